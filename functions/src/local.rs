//! All functions on one machine: the same handlers, fed from the embedded store's queues by
//! a runtime thread of their own, so that no slow receiver ever shares a thread with
//! signalling. Each queue has its own task; a record that fails goes back, aside, or to a
//! dead letter exactly as on SQS.

use std::sync::Arc;
use std::time::Duration;

use handoff::clock::Timestamp;
use handoff::command::Command;
use handoff::id::{EdgeId, QueueId, TenantId};
use handoff::payload::Catalog;
use handoff::policy::Policy;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::batch::{Failure, alone};
use crate::destinations::Destination;
use crate::evaluate_trigger::{self, Verdict};
use crate::jobs::{AUDIT, COMMANDS, DECISIONS, Hook, PARKED, SIGNALS, WEBHOOKS_DURABLE, WEBHOOKS_LIVE};
use crate::sqlite::Store;
use crate::sqlite::queue::Received;
use crate::{build_payload, send_webhook, write_audit};

/// Records of one receive, as in an SQS batch.
const BATCH_MAX: u32 = 10;
/// Webhooks under way at once in one lane: a slow receiver must not hold up the others.
const WEBHOOKS_AT_ONCE: usize = 10;
/// A queue is looked at when the store changes, and at the latest after this long, because
/// time alone makes a postponed message due.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Chains that wait for their last record are looked at this often.
const CLOSE_EVERY: Duration = Duration::from_millis(250);
/// Orders on their way to the edge: it reads promptly or is gone.
const COMMANDS_MAX: usize = 256;

/// What the handlers run by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose calls.
    pub tenant: TenantId,
    /// Which edge.
    pub edge: EdgeId,
    /// The policy of new calls.
    pub policy: Arc<Policy>,
    /// The tenant's catalogue.
    pub catalog: Arc<Catalog>,
    /// Queues: id and label, the first is the default.
    pub queues: Vec<(QueueId, String)>,
    /// Who receives webhooks.
    pub destinations: Vec<Destination>,
    /// Base of the links in a payload.
    pub public_url: String,
}

/// One queue's rules: how long a record is hidden, and how often it may come back.
#[derive(Clone, Copy, Debug)]
struct Rules {
    queue: &'static str,
    visibility: Duration,
    receives_max: u32,
}

/// Visibility is six times what a handler may take, as for Lambda; local commands are
/// acknowledged at once.
const RULES: [Rules; 6] = [
    Rules { queue: SIGNALS, visibility: Duration::from_secs(30), receives_max: 3 },
    Rules { queue: DECISIONS, visibility: Duration::from_secs(60), receives_max: 3 },
    Rules { queue: WEBHOOKS_LIVE, visibility: Duration::from_secs(36), receives_max: 2 },
    Rules { queue: WEBHOOKS_DURABLE, visibility: Duration::from_secs(120), receives_max: 30 },
    Rules { queue: AUDIT, visibility: Duration::from_secs(60), receives_max: 5 },
    Rules { queue: COMMANDS, visibility: Duration::from_secs(10), receives_max: 3 },
];

/// The running functions.
#[derive(Debug)]
pub struct Workers {
    store: Store,
    running: watch::Sender<Running>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Yes,
    Paused,
    Stopped,
}

impl Workers {
    /// Starts the handlers. Orders for the edge arrive on the returned channel.
    pub fn start(store: Store, settings: Settings) -> std::io::Result<(Self, mpsc::Receiver<Command>)> {
        let (running, watched) = watch::channel(Running::Yes);
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker =
            Worker { store: store.clone(), settings: Arc::new(settings), commands, running: watched };
        let thread = std::thread::Builder::new().name("functions".to_owned()).spawn(move || {
            runtime.block_on(worker.run());
        })?;
        Ok((Self { store, running, thread: Some(thread) }, receiver))
    }

    /// All handlers stop after the record they are at, as in an outage of the cloud.
    pub fn pause(&self) {
        self.running.send_replace(Running::Paused);
    }

    /// The handlers go on.
    pub fn resume(&self) {
        self.running.send_replace(Running::Yes);
    }

    /// Resolves when every queue is empty and the chain of every ended call is closed.
    pub async fn idle(&self) {
        // What was handed to the store before is counted: jobs are done in order.
        let _ = self.store.write(|_| Ok(())).await;
        loop {
            let empty = RULES.iter().all(|rules| self.store.depth(rules.queue).is_ok_and(|depth| depth == 0));
            if empty && write_audit::open_ended(&self.store).is_ok_and(|open| open == 0) {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), self.store.changed()).await;
        }
    }

    /// Stops the handlers after the record they are at. What is queued stays queued.
    pub async fn stop(mut self) {
        self.running.send_replace(Running::Stopped);
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Wall-clock time: the functions are a shell, they may look.
pub fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[derive(Clone)]
struct Worker {
    store: Store,
    settings: Arc<Settings>,
    commands: mpsc::Sender<Command>,
    running: watch::Receiver<Running>,
}

impl Worker {
    async fn run(self) {
        let mut tasks = tokio::task::JoinSet::new();
        for rules in RULES {
            tasks.spawn(self.clone().serve(rules));
        }
        tasks.spawn(self.clone().close_chains());
        while tasks.join_next().await.is_some() {}
    }

    /// Serves one queue until the workers are stopped.
    async fn serve(mut self, rules: Rules) {
        let gate =
            Arc::new(tokio::sync::Semaphore::new(if is_webhook(rules.queue) { WEBHOOKS_AT_ONCE } else { 1 }));
        while self.may_run().await {
            let visibility = i64::try_from(rules.visibility.as_millis()).unwrap_or(i64::MAX);
            // The wake-up is armed before the look, so that nothing slips in between.
            let store = self.store.clone();
            let changed = store.changed();
            tokio::pin!(changed);
            let received = match self.store.receive(wall(), rules.queue, BATCH_MAX, visibility).await {
                Ok(received) => received,
                Err(error) => {
                    warn!(queue = rules.queue, %error, "a queue cannot be read");
                    Vec::new()
                }
            };
            if received.is_empty() {
                let _ = tokio::time::timeout(LOOK_EVERY, changed).await;
                continue;
            }
            for record in received {
                let Ok(permit) = Arc::clone(&gate).acquire_owned().await else { return };
                let worker = self.clone();
                let handled = tokio::spawn(async move {
                    worker.handle(rules, record).await;
                    drop(permit);
                });
                // Order matters in all queues but the webhooks'.
                if !is_webhook(rules.queue) {
                    let _ = handled.await;
                }
            }
        }
    }

    async fn may_run(&mut self) -> bool {
        let state = self.running.wait_for(|running| *running != Running::Paused).await;
        state.is_ok_and(|running| *running == Running::Yes)
    }

    /// One record: handled and acknowledged, or back, or aside.
    async fn handle(&self, rules: Rules, record: Received) {
        let (worker, body) = (self.clone(), record.body);
        let result = alone(async move { worker.dispatch(rules.queue, body).await }).await;
        let done = match result {
            Ok(()) => self.store.delete(record.id).await,
            Err(Failure::Permanent(reason)) => {
                warn!(queue = rules.queue, reason, "a record can never succeed: parked");
                self.store.set_aside(record.id, PARKED.to_owned(), reason).await
            }
            Err(Failure::Transient(reason)) if record.receives >= rules.receives_max => {
                warn!(queue = rules.queue, reason, "a record failed too often: dead letter");
                self.store.set_aside(record.id, format!("{}-dlq", rules.queue), reason).await
            }
            Err(Failure::Transient(reason)) => {
                info!(queue = rules.queue, reason, "a record failed and comes back");
                let wait = i64::from(record.receives) * 500;
                self.store.postpone(record.id, wall().plus_millis(wait)).await
            }
        };
        if let Err(error) = done {
            warn!(queue = rules.queue, %error, "a record could not be acknowledged; it comes back");
        }
    }

    async fn dispatch(&self, queue: &'static str, body: Vec<u8>) -> Result<(), Failure> {
        match queue {
            SIGNALS => self.evaluate(&body).await,
            DECISIONS => build_payload::run(&self.store, &self.settings, wall(), &body).await,
            WEBHOOKS_LIVE | WEBHOOKS_DURABLE => self.send(&body).await,
            AUDIT => write_audit::run(&self.store, wall(), body).await,
            COMMANDS => self.command(&body).await,
            _ => Err(Failure::Permanent("no handler for this queue".to_owned())),
        }
    }

    async fn evaluate(&self, body: &[u8]) -> Result<(), Failure> {
        match evaluate_trigger::evaluate(wall(), &self.settings.policy, body)? {
            Verdict::Continue => Ok(()),
            Verdict::Stale => {
                info!("an event came too late to be decided here; the edge has decided");
                Ok(())
            }
            Verdict::Transfer(decided, mut messages) => {
                messages.push(write_audit::trigger_evaluated(&self.settings, wall(), &decided)?);
                Ok(self.store.enqueue(wall(), messages).await?)
            }
        }
    }

    async fn command(&self, body: &[u8]) -> Result<(), Failure> {
        let command: Command =
            serde_json::from_slice(body).map_err(|error| Failure::Permanent(error.to_string()))?;
        self.commands
            .send(command)
            .await
            .map_err(|_| Failure::Transient("the edge is not listening".to_owned()))
    }

    async fn send(&self, body: &[u8]) -> Result<(), Failure> {
        let hook: Hook =
            serde_json::from_slice(body).map_err(|error| Failure::Permanent(error.to_string()))?;
        let destination = self.settings.destinations.iter().find(|known| known.id == hook.destination);
        let Some(destination) = destination else {
            return Err(Failure::Permanent(format!(
                "the destination {} is not configured",
                hook.destination
            )));
        };
        let mut random = [0_u8; 2];
        getrandom::fill(&mut random).map_err(|_| Failure::Transient("no randomness".to_owned()))?;
        let tried = send_webhook::send(wall(), &hook, destination, u16::from_be_bytes(random)).await?;
        write_audit::webhook_tried(&self.store, wall(), &hook, tried).await
    }

    async fn close_chains(mut self) {
        while self.may_run().await {
            if let Err(error) = write_audit::close_due(&self.store, wall()).await {
                warn!(%error, "chains could not be closed");
            }
            tokio::time::sleep(CLOSE_EVERY).await;
        }
    }
}

fn is_webhook(queue: &str) -> bool {
    matches!(queue, WEBHOOKS_LIVE | WEBHOOKS_DURABLE)
}
