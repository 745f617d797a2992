//! The handlers in-process, over the embedded store: the same code that runs as functions in
//! the cloud, on one thread with its own runtime, polling nothing. Workers sleep until the
//! store says that a queue changed or a message becomes due.

pub mod checkpointer;

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use handoff::command::Command;
use handoff::policy::Policy;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::batch::{self, Failure, Grouped, Handled, Verdict};
use crate::breakers::Breakers;
use crate::clock::SystemClock;
use crate::config::{Current, FunctionsConfig, PolicySet, command_queue};
use crate::http::HttpSender;
use crate::ports::{AUDIT, AppendAudit, DECISIONS, SIGNALS, WEBHOOKS_DURABLE, WEBHOOKS_LIVE};
use crate::sqlite::queue::{self, Batch, QueueSettings, Received, settings_of};
use crate::sqlite::{Store, StoreError, ledger};
use crate::{build_payload, evaluate_trigger, send_webhook, write_audit};

/// Most commands that wait for the edge. The edge takes them at once or is gone.
const COMMANDS_MAX: usize = 256;

/// Workers of each queue: how many records of it are handled at the same time. Webhooks wait
/// for the network, so they have more.
const WORKERS: [(&str, usize); 5] =
    [(SIGNALS, 2), (DECISIONS, 2), (WEBHOOKS_LIVE, 8), (WEBHOOKS_DURABLE, 4), (AUDIT, 2)];

/// Longest sleep of a worker or of the closer: what depends on time alone happens this late
/// at most.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Wait after the store failed.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Wait before a record that failed for now is tried again: doubled per receive, up to
/// sixteen times.
const RETRY_BASE: Duration = Duration::from_millis(250);

impl Grouped for Received {
    fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }
}

/// The running handlers. Dropping it stops them.
#[derive(Debug)]
pub struct Workers {
    store: Store,
    policies: PolicySet,
    config: Current,
    control: watch::Sender<Control>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Run,
    Pause,
    Stop,
}

impl Workers {
    /// Starts all handlers. Commands for the edge come out of the receiver.
    pub fn start(
        store: Store,
        config: FunctionsConfig,
    ) -> Result<(Self, mpsc::Receiver<Command>), StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (control, watching) = watch::channel(Control::Run);
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let policies = PolicySet::new(&config.policies);
        let commands_name = command_queue("", &config.edge);
        let config = Current::new(config);
        let shared = Arc::new(Shared {
            store: store.clone(),
            policies: policies.clone(),
            clock: SystemClock::start(),
            http: HttpSender::new(config.clone(), SystemClock::start()),
            breakers: Breakers::default(),
            config: config.clone(),
            commands,
            commands_name,
        });
        let thread = Builder::new().name("functions".to_owned()).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, run_all(shared, watching));
        })?;
        Ok((Self { store, policies, config, control, thread: Some(thread) }, receiver))
    }

    /// Lets records wait: no handler begins another until [`Workers::resume`].
    pub fn pause(&self) {
        self.control.send_replace(Control::Pause);
    }

    /// Takes up where [`Workers::pause`] left.
    pub fn resume(&self) {
        self.control.send_replace(Control::Run);
    }

    /// Makes a new policy known; running calls keep theirs.
    pub fn publish_policy(&self, policy: Arc<Policy>) {
        self.policies.publish(policy);
    }

    /// Takes over a new configuration with its policies, from the next record on. The edge
    /// whose commands are delivered stays the one that it began with.
    pub fn reload(&self, config: FunctionsConfig) {
        for policy in &config.policies {
            self.publish_policy(policy.clone());
        }
        self.config.replace(config);
    }

    /// Resolves when no message waits (those that wait for a late try of the durable lane
    /// aside) and the chain of every ended call is closed.
    pub async fn idle(&self) -> Result<(), StoreError> {
        // Jobs are done in order: what was handed to the store before is counted.
        self.store.run(|_| Ok(())).committed().await?;
        let mut activity = self.store.activity();
        loop {
            activity.borrow_and_update();
            if self.store.outstanding()? == 0 && self.store.read(|conn, _| ledger::ended(conn))?.is_empty() {
                return Ok(());
            }
            let _changed_or_late = tokio::time::timeout(STORE_RETRY, activity.changed()).await;
        }
    }

    /// Stops after the records that are being handled, and waits for that. Blocks.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.control.send_replace(Control::Stop);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.join();
    }
}

struct Shared {
    store: Store,
    policies: PolicySet,
    clock: SystemClock,
    http: HttpSender<SystemClock>,
    breakers: Breakers,
    config: Current,
    commands: mpsc::Sender<Command>,
    commands_name: String,
}

async fn run_all(shared: Arc<Shared>, control: watch::Receiver<Control>) {
    let mut tasks = tokio::task::JoinSet::new();
    for (name, count) in WORKERS {
        for _ in 0..count {
            tasks.spawn_local(work(shared.clone(), name.to_owned(), control.clone()));
        }
    }
    let commands = shared.commands_name.clone();
    tasks.spawn_local(work(shared.clone(), commands, control.clone()));
    tasks.spawn_local(close_chains(shared, control));
    while tasks.join_next().await.is_some() {}
}

/// Waits while paused. `false` means stop.
async fn may_run(control: &mut watch::Receiver<Control>) -> bool {
    let running = control.wait_for(|control| *control != Control::Pause).await;
    running.is_ok_and(|control| *control == Control::Run)
}

/// One worker of one queue.
async fn work(shared: Arc<Shared>, name: String, mut control: watch::Receiver<Control>) {
    let Some(settings) = settings_of(&name) else { return };
    let mut activity = shared.store.activity();
    while may_run(&mut control).await {
        activity.borrow_and_update();
        match take(&shared.store, &name, settings).await {
            Ok(batch) if !batch.messages.is_empty() => {
                let judged = batch::run(batch.messages, name == AUDIT, async |record: &Received| {
                    handle(&shared, &name, record).await
                })
                .await;
                if let Err(error) = settle(&shared.store, &name, judged).await {
                    tracing::warn!(queue = name, %error, "results were not stored; records come again");
                }
            }
            Ok(batch) => {
                let now = shared.store.wall().unix_millis();
                let until = batch.next_at.map_or(LOOK_AGAIN, |at| {
                    let wait = at.unix_millis().saturating_sub(now);
                    Duration::from_millis(u64::try_from(wait).unwrap_or_default()).min(LOOK_AGAIN)
                });
                tokio::select! {
                    _ = activity.changed() => {}
                    _ = control.changed() => {}
                    () = tokio::time::sleep(until) => {}
                }
            }
            Err(error) => {
                tracing::warn!(queue = name, %error, "queue cannot be read");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
}

/// Looks without writing first: an empty queue costs the writer nothing.
async fn take(store: &Store, name: &str, settings: QueueSettings) -> Result<Batch, StoreError> {
    let now = store.wall();
    let due = store.read(|conn, _| queue::due(conn, name, now))?;
    if !due.now {
        return Ok(Batch { messages: Vec::new(), next_at: due.next_at });
    }
    let queue = name.to_owned();
    let taken = store.run(move |tx| queue::receive(tx, &queue, settings.batch)).committed().await?;
    Ok(taken.value)
}

async fn handle(shared: &Shared, name: &str, record: &Received) -> Result<Handled, Failure> {
    let Shared { store, policies, clock, http, breakers, config, commands, .. } = shared;
    let config = &*config.get();
    let body = record.body.as_slice();
    match name {
        SIGNALS => evaluate_trigger::handle(store, policies, clock, body).await,
        DECISIONS => build_payload::handle(store, clock, config, body).await,
        WEBHOOKS_LIVE | WEBHOOKS_DURABLE => {
            send_webhook::handle(store, http, clock, breakers, config, body, jitter()).await
        }
        AUDIT => write_audit::handle(store, body).await,
        _ => deliver(commands, body).await,
    }
}

async fn deliver(commands: &mpsc::Sender<Command>, body: &[u8]) -> Result<Handled, Failure> {
    let command = serde_json::from_slice(body).map_err(|error| {
        Failure::Permanent(format!(
            "command does not parse at line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    // An edge that no longer listens has no call that the command could be for.
    let _gone = commands.send(command).await;
    Ok(Handled::Done)
}

fn jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness there is no jitter, and nothing else is lost.
    let _none = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}

/// Writes what became of the records of a batch, together.
async fn settle(store: &Store, name: &str, judged: Vec<(Received, Verdict)>) -> Result<(), StoreError> {
    let uncounted = name == AUDIT;
    let settled = store.run(move |tx| {
        for (record, verdict) in &judged {
            let (id, receives) = (record.id, record.receives);
            match verdict {
                Verdict::Delete => queue::delete(tx, id, receives)?,
                Verdict::Defer(delay) => queue::release(tx, id, receives, *delay, queue::Release::Deferred)?,
                Verdict::Hold(delay) => queue::release(tx, id, receives, *delay, queue::Release::Held)?,
                Verdict::Bury => queue::bury(tx, id, receives)?,
                Verdict::Park(why) => queue::park(tx, id, receives, why)?,
                Verdict::Retry => {
                    let delay = RETRY_BASE * (1 << receives.min(4));
                    // A ledger that is down must not cost an entry: only its own faults count.
                    let how = if uncounted { queue::Release::Uncounted } else { queue::Release::Counted };
                    queue::release(tx, id, receives, delay, how)?;
                }
            }
        }
        Ok(())
    });
    settled.committed().await.map(drop)
}

/// Closes chains when the last message of their call is gone.
async fn close_chains(shared: Arc<Shared>, mut control: watch::Receiver<Control>) {
    let mut activity = shared.store.activity();
    while may_run(&mut control).await {
        activity.borrow_and_update();
        let waiting = shared.store.read(|conn, _| ledger::ended(conn)).is_ok_and(|ended| !ended.is_empty());
        if waiting {
            match shared.store.close_complete().await {
                Ok(closed) => {
                    for call in closed {
                        tracing::info!(call_id = %call, "audit chain closed");
                    }
                }
                Err(error) => tracing::warn!(%error, "chains were not closed"),
            }
        }
        tokio::select! {
            _ = activity.changed() => {}
            _ = control.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests;
