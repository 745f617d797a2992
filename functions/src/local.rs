//! The handlers in-process, over the embedded store: the same code that runs as functions in
//! the cloud, on one thread with its own runtime, polling nothing. Workers sleep until the
//! store says that a queue changed or a message becomes due.

pub mod checkpointer;

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use handoff::command::Command;
use handoff::id::CallId;
use handoff::policy::Policy;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::batch::{self, Failure, Handled};
use crate::breakers::Breakers;
use crate::clock::SystemClock;
use crate::config::{Current, FunctionsConfig, PolicySet, command_queue};
use crate::http::HttpSender;
use crate::ports::{AUDIT, AppendAudit, DECISIONS, SIGNALS, WEBHOOKS_DURABLE, WEBHOOKS_LIVE};
use crate::sqlite::queue::Received;
use crate::sqlite::{Store, StoreError, ledger};
use crate::worker::{self, Control, Failures, LOOK_AGAIN, STORE_RETRY, may_run};
use crate::{build_payload, evaluate_trigger, measure_transfers, send_webhook, write_audit};

/// Most commands that wait for the edge. The edge takes them at once or is gone.
const COMMANDS_MAX: usize = 256;

/// Workers of each queue: how many records of it are handled at the same time. Webhooks wait
/// for the network, so they have more.
const WORKERS: [(&str, usize); 5] =
    [(SIGNALS, 2), (DECISIONS, 2), (WEBHOOKS_LIVE, 8), (WEBHOOKS_DURABLE, 4), (AUDIT, 2)];

/// The running handlers. Dropping it stops them.
#[derive(Debug)]
pub struct Workers {
    store: Store,
    policies: PolicySet,
    config: Current,
    control: watch::Sender<Control>,
    thread: Option<JoinHandle<()>>,
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

/// One worker of one queue, each of whose records is judged alone.
async fn work(shared: Arc<Shared>, name: String, control: watch::Receiver<Control>) {
    // A ledger that is down must not cost an entry: only its own faults count.
    let failures = if name == AUDIT { Failures::Forgiven } else { Failures::Count };
    let judge = async |messages: Vec<Received>| {
        let handle = async |record: &Received| handle(&shared, &name, record).await;
        batch::run(messages, name == AUDIT, handle).await
    };
    worker::work(&shared.store, &name, failures, control, judge).await;
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
        AUDIT => {
            let recorded = write_audit::handle(store, body).await?;
            if let Some((tenant, call)) = measure_transfers::late_result(body) {
                measure_transfers::measure(store, &tenant, &call).await?;
            }
            Ok(recorded)
        }
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

/// Chance that spreads retries.
pub fn jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness there is no jitter, and nothing else is lost.
    let _none = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}

/// Closes chains when the last message of their call is gone, and measures their calls.
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
                        measure(&shared, &call).await;
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

/// Measures a call whose chain was closed. Where that fails the chain still has everything.
async fn measure(shared: &Shared, call: &CallId) {
    let tenant = shared.config.get().tenant.clone();
    if let Err(error) = measure_transfers::measure(&shared.store, &tenant, call).await {
        tracing::warn!(call_id = %call, %error, "a call was not measured");
    }
}

#[cfg(test)]
mod tests;
