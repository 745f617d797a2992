//! The checkpointer of an installation on one machine: a thread that signs what moved at
//! fixed intervals, when it is asked to, and at a clean exit. A pass that fails is logged and
//! made up for by the next one; calls never wait for it.

use std::path::PathBuf;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use handoff::id::TenantId;
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::folder::CheckpointFolder;
use crate::checkpoint::local_key::LocalKey;
use crate::checkpoint::{Made, handle};
use crate::clock::SystemClock;
use crate::ports::{Clock, PortError, ReadHeads, SignNote};
use crate::sqlite::{HeadsOutside, Store, StoreError};

/// Requests that wait while a pass runs; each gets the answer of a pass of its own.
const REQUESTS_MAX: usize = 8;

/// Tries of one pass: one loses to another process that adds to the same log, and begins
/// again from what that made.
const TRIES: u32 = 3;

/// Where checkpoints go, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The folder, outside the data directory.
    pub dir: PathBuf,
    /// From one checkpoint to the next.
    pub every: Duration,
}

/// The running checkpointer. Dropping it makes a last checkpoint.
#[derive(Debug)]
pub struct Checkpointer {
    requests: Option<mpsc::Sender<oneshot::Sender<Result<Made, PortError>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts it over `store`.
    pub fn start(store: Store, plan: Plan) -> Result<Self, StoreError> {
        let key = LocalKey::open(store.dir())?;
        let folder = CheckpointFolder::new(&plan.dir);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (requests, mut asked) = mpsc::channel::<oneshot::Sender<Result<Made, PortError>>>(REQUESTS_MAX);
        let thread = Builder::new().name("checkpoints".to_owned()).spawn(move || {
            let clock = SystemClock::start();
            let mut next = clock.now() + plan.every;
            let work = async {
                loop {
                    let answer = tokio::select! {
                        asked = asked.recv() => match asked {
                            Some(answer) => Some(answer),
                            None => break,
                        },
                        () = clock.sleep_until(next) => None,
                    };
                    next = clock.now() + plan.every;
                    let made = told(pass(&store, &folder, &key, &clock, &store_tenants(&store)).await);
                    if let Some(answer) = answer {
                        // Whoever asked may have stopped waiting.
                        let _gone = answer.send(made);
                    }
                }
                let _logged = told(pass(&store, &folder, &key, &clock, &store_tenants(&store)).await);
            };
            runtime.block_on(work);
        })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Makes a checkpoint now.
    pub async fn make(&self) -> Result<Made, PortError> {
        let gone = || PortError::Transient("the checkpointer has stopped".to_owned());
        let (answer, made) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(answer).await.map_err(|_| gone())?;
        made.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Makes a checkpoint of a store that another process may have open.
pub async fn make_outside(data: &std::path::Path, dir: &std::path::Path) -> Result<Made, StoreError> {
    let heads = HeadsOutside::of(data);
    let tenants = heads.tenants()?;
    let key = LocalKey::open(data)?;
    let made = pass(&heads, &CheckpointFolder::new(dir), &key, &SystemClock::start(), &tenants).await;
    made.map_err(|error| StoreError::File(std::io::Error::other(error.to_string())))
}

fn store_tenants(store: &Store) -> Vec<TenantId> {
    store.tenants().unwrap_or_else(|error| {
        tracing::warn!(%error, "the store's tenants cannot be read");
        Vec::new()
    })
}

/// One checkpoint of each tenant's log.
async fn pass<H: ReadHeads>(
    heads: &H,
    folder: &CheckpointFolder,
    key: &LocalKey,
    clock: &SystemClock,
    tenants: &[TenantId],
) -> Result<Made, PortError> {
    let mut all = Made::default();
    for tenant in tenants {
        let public = key.note_key(tenant).await?;
        folder.trust(&public, clock.wall()).map_err(|error| PortError::Transient(error.to_string()))?;
        let mut tries = 1;
        let made = loop {
            match handle(heads, folder, key, clock, tenant).await {
                Err(PortError::Transient(_)) if tries < TRIES => tries += 1,
                made => break made?,
            }
        };
        all.checkpoints += made.checkpoints;
        all.leaves += made.leaves;
        all.size += made.size;
    }
    Ok(all)
}

fn told(made: Result<Made, PortError>) -> Result<Made, PortError> {
    match &made {
        Ok(made) if made.checkpoints > 0 => {
            tracing::info!(leaves = made.leaves, size = made.size, "checkpoint of the audit trail signed");
        }
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "no checkpoint of the audit trail was made"),
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit_read::{Reader, Witness};
    use crate::ports::AppendAudit;
    use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId};
    use handoff::id::CallId;

    async fn record(store: &Store, call: &str) {
        let entry = AuditEntry {
            tenant: TenantId::parse("t_acme").unwrap(),
            chain: ChainId::of(&CallId::parse(call).unwrap()),
            producer: ProducerId::parse("job:test:1").unwrap(),
            pseq: 0,
            kind: "fallback.taken".to_owned(),
            occurred_at: store.wall(),
            actor: Actor::system("test"),
            body: serde_json::json!({"kind": "closing", "reason": "none"}),
            sealed: None,
            refs: None,
        };
        store.append(AuditMessage::plain(entry)).await.unwrap();
    }

    #[tokio::test]
    async fn it_signs_when_asked_beside_a_command_and_at_a_clean_exit() {
        let (data, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(data.path()).unwrap();
        let plan = Plan { dir: outside.path().to_owned(), every: Duration::from_secs(3_600) };
        let checkpointer = Checkpointer::start(store.clone(), plan).unwrap();
        record(&store, "call_0001").await;
        assert_eq!(checkpointer.make().await, Ok(Made { checkpoints: 1, leaves: 1, size: 1 }));
        record(&store, "call_0002").await;
        let made = make_outside(data.path(), outside.path()).await.unwrap();
        assert_eq!(made, Made { checkpoints: 1, leaves: 1, size: 2 });
        record(&store, "call_0003").await;
        tokio::task::spawn_blocking(move || drop(checkpointer)).await.unwrap();
        let witness = Witness { checkpoints: Some(outside.path().to_owned()), ..Witness::default() };
        let report = Reader::open(data.path()).unwrap().verify_with(None, &witness).unwrap();
        assert_eq!(report.exit_code(), 0, "{:?}", report.findings);
        assert_eq!(report.notes, ["checked against checkpoints of 3 leaves"]);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_an_error_and_no_panic() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        record(&store, "call_0001").await;
        let file = data.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let plan = Plan { dir: file, every: Duration::from_secs(3_600) };
        let checkpointer = Checkpointer::start(store, plan).unwrap();
        assert!(checkpointer.make().await.is_err());
    }
}
