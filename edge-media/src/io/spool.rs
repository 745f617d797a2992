//! From facts to the disk: the rows of each fact are made by `functions::outbox`; those of
//! one step go to disk in one commit. A commit that fails keeps its rows for the next. What
//! goes wrong here never stops a call.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use functions::config::FunctionsConfig;
use functions::disposition::{self, Disposition, Taken};
use functions::outbox::{Access, CallOutbox};
use functions::sqlite::{self, Receipt, Row, Store, StoreError};
use handoff::event::{CallEvent, Evaluable};
use handoff::id::{CallId, DestinationId};
use handoff::policy::Decision;
use handoff::seal::SealKey;
use tracing::error;

/// Rows that wait for a disk that refuses them: some minutes of a full edge. Beyond it the
/// oldest are lost, and the chains of their calls show the gap.
const KEPT_MAX: usize = 65_536;

/// The spool of one edge.
#[derive(Debug)]
pub struct Spool {
    store: Store,
    config: Arc<FunctionsConfig>,
    place: Place,
    calls: BTreeMap<CallId, CallOutbox>,
    rows: Vec<Row>,
}

/// Where the functions are that the rows are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this process, over the store itself.
    Here,
    /// In the cloud: keys and payloads go there too, which have a table of their own here.
    Cloud,
}

/// The fate of one commit, with its rows.
#[derive(Debug)]
pub struct Stored {
    receipt: Receipt<()>,
    rows: Arc<[Row]>,
}

impl Stored {
    /// Resolves when the rows are on disk, or are refused.
    pub async fn committed(&mut self) -> Result<(), StoreError> {
        (&mut self.receipt).await.map(drop)
    }
}

impl Spool {
    /// A spool into `store`.
    pub fn new(store: Store, config: Arc<FunctionsConfig>, place: Place) -> Self {
        Self { store, config, place, calls: BTreeMap::new(), rows: Vec::new() }
    }

    /// The configuration of the calls that begin from now on.
    pub fn reload(&mut self, config: Arc<FunctionsConfig>) {
        self.config = config;
    }

    /// Takes a fact; it goes to disk with the next [`Self::flush`].
    pub fn push(&mut self, event: &CallEvent) {
        let rows = sqlite::nonce()
            .and_then(|nonce| Ok(self.open(&event.call)?.rows(event, nonce)))
            .map(|rows| rows.map_err(|error| error.to_string()));
        match rows {
            Ok(Ok(rows)) => rows.into_iter().for_each(|row| self.row(row)),
            // Our own entry breaks our own rules: a bug, and the chain shows the gap.
            Ok(Err(error)) => error!(error, kind = event.fact.kind(), "a fact could not be written"),
            // What cannot be sealed is not written.
            Err(error) => error!(%error, kind = event.fact.kind(), "a fact is lost"),
        }
    }

    /// Takes the edge's own decision, so that the payload follows when the functions are
    /// back. The fact that records it, number `sequence`, was taken before.
    pub fn push_decision(&mut self, evaluable: &Evaluable, decision: &Decision, sequence: u64) {
        if let Some(outbox) = self.calls.get(&decision.call_id) {
            self.rows.push(outbox.decision(evaluable, decision, sequence));
        }
    }

    /// Somebody looks at personal data of a running call. What they look at leaves when this
    /// is on disk.
    pub fn accessed(&mut self, call: &CallId, access: Access<'_>) -> Option<Stored> {
        match self.calls.get_mut(call)?.accessed(call, access) {
            Ok(row) => self.rows.push(row),
            Err(error) => {
                error!(%error, "an access could not be written");
                return None;
            }
        }
        Some(self.flush())
    }

    /// Takes what a CRM says of a transfer, also of one whose call is long over.
    pub fn disposed(
        &self,
        from: DestinationId,
        message_id: String,
        said: Disposition,
    ) -> impl Future<Output = Result<Taken, StoreError>> + Send + 'static {
        let (store, tenant) = (self.store.clone(), self.config.tenant.clone());
        async move { disposition::take(&store, &tenant, &from, &message_id, &said).await }
    }

    /// The key with which everything of a running call is sealed.
    pub fn key(&self, call: &CallId) -> Option<SealKey> {
        self.calls.get(call).map(|outbox| outbox.key().key.clone())
    }

    /// The call is over; its key is in the store.
    pub fn forget(&mut self, call: &CallId) {
        self.calls.remove(call);
    }

    /// Writes everything taken so far in one commit.
    pub fn flush(&mut self) -> Stored {
        let rows = std::mem::take(&mut self.rows);
        self.submit(rows.into())
    }

    fn submit(&self, rows: Arc<[Row]>) -> Stored {
        Stored { receipt: self.store.submit(Arc::clone(&rows)), rows }
    }

    /// A commit failed. Rows that the disk refused go with the next ones: an entry keeps its
    /// number and its bytes, so that a commit that did happen makes it a duplicate and no
    /// more. Where one row can never be written, each has a commit of its own.
    pub fn refused(&mut self, stored: &Stored, error: &StoreError) -> Vec<Stored> {
        if !error.is_transient() {
            if let [row] = &*stored.rows {
                error!(%error, ?row, "a row can never be written");
                return Vec::new();
            }
            return stored.rows.iter().map(|row| self.submit([row.clone()].into())).collect();
        }
        let later = std::mem::take(&mut self.rows);
        self.rows = stored.rows.iter().cloned().chain(later).collect();
        let lost = self.rows.len().saturating_sub(KEPT_MAX);
        if lost > 0 {
            error!(lost, "the disk is gone for too long: facts are lost");
            self.rows.drain(..lost);
        }
        Vec::new()
    }

    /// Nothing waits for a next commit.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn row(&mut self, row: Row) {
        self.rows.extend(forwarded(self.place, &row));
        self.rows.push(row);
    }

    fn open(&mut self, call: &CallId) -> Result<&mut CallOutbox, StoreError> {
        match self.calls.entry(call.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => {
                let key = sqlite::fresh_key()?;
                let tenant = self.config.tenant.clone();
                let row = Row::Key { tenant, call: call.clone(), key: key.clone() };
                self.rows.extend(forwarded(self.place, &row));
                self.rows.push(row);
                Ok(vacant.insert(CallOutbox::new(Arc::clone(&self.config), key)))
            }
        }
    }
}

/// What takes a row to the cloud as well.
fn forwarded(place: Place, row: &Row) -> Option<Row> {
    match place {
        Place::Here => None,
        Place::Cloud => row.forwarded(),
    }
}

#[cfg(test)]
mod tests {
    use functions::ports::{AUDIT, SIGNALS};
    use handoff::clock::Timestamp;
    use handoff::event::Fact;
    use handoff::id::{EdgeId, TenantId};
    use handoff::payload::Catalog;
    use handoff::pii::Pii;
    use handoff::signal::Speaker;

    use super::*;

    fn spool(store: &Store) -> Spool {
        let config = FunctionsConfig {
            tenant: TenantId::parse("t_acme").unwrap(),
            edge: EdgeId::parse("edge-1").unwrap(),
            policies: Vec::new(),
            catalog: Arc::new(Catalog::default()),
            queues: Vec::new(),
            destinations: Vec::new(),
            public_url: "https://edge.example".to_owned(),
        };
        Spool::new(store.clone(), Arc::new(config), Place::Here)
    }

    fn said(seq: u64) -> CallEvent {
        let text = Some(Pii::new("my knee hurts".to_owned()));
        CallEvent {
            edge: EdgeId::parse("edge-1").unwrap(),
            tenant: TenantId::parse("t_acme").unwrap(),
            call: CallId::parse("call_0001").unwrap(),
            seq,
            time: Timestamp::from_unix_millis(1_795_330_800_000),
            mono_us: seq,
            commands: String::new(),
            fact: Fact::Utterance { segment: 0, speaker: Speaker::Caller, offset_ms: 0, text },
            evaluable: None,
        }
    }

    #[tokio::test]
    async fn the_facts_of_one_step_are_stored_together_with_the_calls_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut spool = spool(&store);
        spool.push(&said(0));
        spool.push(&said(1));
        assert_eq!(spool.rows.len(), 3, "one key and two entries");
        spool.flush().committed().await.unwrap();
        assert_eq!((store.depth(AUDIT).unwrap(), store.depth(SIGNALS).unwrap()), (2, 0));
        assert!(spool.is_empty());
    }

    #[tokio::test]
    async fn what_a_full_disk_refuses_goes_with_the_next_facts_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut spool = spool(&store);
        spool.push(&said(0));
        let refused = spool.flush();
        spool.push(&said(1));
        assert!(spool.refused(&refused, &StoreError::Busy).is_empty());
        assert!(matches!(spool.rows.first(), Some(Row::Key { .. })), "the key is before what it seals");
        assert_eq!(spool.rows.len(), 3);
        spool.flush().committed().await.unwrap();
        assert_eq!(store.depth(AUDIT).unwrap(), 2, "a commit that did happen makes a repeat a duplicate");
    }

    #[tokio::test]
    async fn a_row_that_can_never_be_written_does_not_take_the_others_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut spool = spool(&store);
        spool.push(&said(0));
        let refused = spool.flush();
        let alone = spool.refused(&refused, &StoreError::Damaged("a row"));
        assert_eq!(alone.len(), 2);
        for one in &alone {
            assert!(spool.refused(one, &StoreError::Damaged("a row")).is_empty());
        }
        assert!(spool.is_empty());
    }

    #[tokio::test]
    async fn an_access_is_recorded_for_a_running_call_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut spool = spool(&store);
        let at = Timestamp::from_unix_millis(0);
        let access = Access { actor: "ana", role: "agent", object: "payload", at };
        let call = CallId::parse("call_0001").unwrap();
        assert!(spool.accessed(&call, access).is_none());
        spool.push(&said(0));
        spool.accessed(&call, access).unwrap().committed().await.unwrap();
        assert_eq!(store.depth(AUDIT).unwrap(), 2);
        spool.forget(&call);
        assert!(spool.accessed(&call, access).is_none());
    }
}
