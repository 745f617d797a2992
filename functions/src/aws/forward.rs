//! The edge's side of the cloud: what the spool holds goes to the queues, commands come back.
//! A row leaves the spool when the cloud has it, so that nothing is lost over an outage or a
//! restart; what is sent twice has the same ids. Keys and the edge's own payloads go first to
//! their tables, each when it can: nothing else waits for them.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use handoff::audit::{AuditMessage, PRODUCER_FINAL};
use handoff::command::Command;
use handoff::id::{CallId, TenantId};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::names::Names;
use super::queues::batches;
use super::vault::EDGE_KEY;
use super::{Cloud, code_of, commands, failed};
use crate::batch::Verdict;
use crate::config::FunctionsConfig;
use crate::ports::{
    AUDIT, COMMANDS_PREFIX, DECISIONS, GetPayload, Outgoing, PortError, SIGNALS, WEBHOOKS_DURABLE,
    WEBHOOKS_LIVE,
};
use crate::sqlite::queue::{FORWARD_KEYS, FORWARD_PAYLOADS, ForwardedPayload, Received};
use crate::sqlite::{Store, StoreError, vault};
use crate::worker::{self, Control, Failures, STORE_RETRY};

/// Most commands that wait for the edge. The edge takes them at once or is gone.
const COMMANDS_MAX: usize = 256;

/// The queues that are forwarded as they are.
const FORWARDED: [&str; 5] = [SIGNALS, DECISIONS, AUDIT, WEBHOOKS_LIVE, WEBHOOKS_DURABLE];

/// Between two looks for keys that are needed no more.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// Wait before the stack is looked for again, where it could not be asked.
const LOOK_FOR_AGAIN: Duration = Duration::from_secs(5);

/// Why the edge cannot work with the cloud.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// Threads or the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service answered, and the stack has no such queue: another name, another region or
    /// another account.
    #[error("the stack has no queue {0}: check its name, the region and the account")]
    NoQueue(String),
    /// The cloud could not be asked.
    #[error("the cloud cannot be asked: {0}")]
    Unreachable(PortError),
}

/// The running forwarder. Dropping it stops it; what is spooled stays spooled.
#[derive(Debug)]
pub struct Forwarder {
    store: Store,
    cloud: Cloud,
    /// URL of this edge's command queue, which every event names; empty where it was not to be
    /// learnt at the start, and the functions then find it by the edge's id.
    pub commands_url: String,
    control: watch::Sender<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Finds the queues of `stack`, publishes what its functions run by, and starts. Commands
    /// for the edge come out of the receiver.
    pub async fn start(
        store: Store,
        stack: &str,
        media: &str,
        config: &FunctionsConfig,
        policy: &str,
    ) -> Result<(Self, mpsc::Receiver<Command>), CloudError> {
        let cloud = Cloud::connect(Names::of_stack(stack, media)).await;
        let wanted = Wanted { stack: stack.to_owned(), config: config.clone(), policy: policy.to_owned() };
        let joined = match wanted.join(&cloud).await {
            Ok(joined) => Some(joined),
            Err(error @ CloudError::Unreachable(_)) => {
                tracing::warn!(%error, "calls go on without it: the edge decides by itself and spools");
                None
            }
            Err(error) => return Err(error),
        };
        let commands_url = joined.as_ref().map(|joined| joined.commands.clone()).unwrap_or_default();
        let (control, watching) = watch::channel(Control::Run);
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let shared = Shared { store: store.clone(), cloud: cloud.clone(), tenant: config.tenant.clone() };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StoreError::from)?;
        let work = async move {
            let found = match joined {
                Some(joined) => Some(joined),
                None => wanted.found(&shared.cloud, watching.clone()).await,
            };
            if let Some(Joined { cloud, commands: url }) = found {
                run_all(Arc::new(Shared { cloud, ..shared }), url, commands, watching).await;
            }
        };
        let thread = Builder::new()
            .name("cloud".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, work))
            .map_err(StoreError::from)?;
        let forwarder = Self { store, cloud, commands_url, control, thread: Some(thread) };
        Ok((forwarder, receiver))
    }

    /// Publishes a new configuration, before the first call that is pinned to it.
    pub async fn publish(&self, config: &FunctionsConfig, policy: &str) -> Result<(), CloudError> {
        self.cloud.publish(config, policy).await.map_err(CloudError::Unreachable)
    }

    /// Resolves when the cloud has everything.
    pub async fn idle(&self) -> Result<(), StoreError> {
        self.store.run(|_| Ok(())).committed().await?;
        let mut activity = self.store.activity();
        while self.store.outstanding()? > 0 {
            activity.borrow_and_update();
            let _changed_or_late = tokio::time::timeout(STORE_RETRY, activity.changed()).await;
        }
        Ok(())
    }

    /// Stops after the requests that are under way. Blocks.
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

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.join();
    }
}

/// What is looked for, and what is published once it is found.
struct Wanted {
    stack: String,
    config: FunctionsConfig,
    policy: String,
}

/// A stack whose queues are known.
struct Joined {
    cloud: Cloud,
    commands: String,
}

impl Wanted {
    async fn join(&self, cloud: &Cloud) -> Result<Joined, CloudError> {
        let Self { stack, config, policy } = self;
        let mut cloud = cloud.clone();
        for queue in FORWARDED {
            let url = cloud.find_queue(format!("{stack}-{queue}")).await?;
            cloud.names.queues.push((queue, url));
        }
        let commands = cloud.find_queue(format!("{stack}-{COMMANDS_PREFIX}{}", config.edge)).await?;
        cloud.publish(config, policy).await.map_err(CloudError::Unreachable)?;
        Ok(Joined { cloud, commands })
    }

    /// Looks until the stack is found; `None` when told to stop before that.
    async fn found(&self, cloud: &Cloud, mut control: watch::Receiver<Control>) -> Option<Joined> {
        loop {
            tokio::select! {
                _ = control.wait_for(|control| *control == Control::Stop) => return None,
                () = tokio::time::sleep(LOOK_FOR_AGAIN) => {}
            }
            match self.join(cloud).await {
                Ok(joined) => {
                    tracing::info!("the cloud is found; what was spooled follows");
                    return Some(joined);
                }
                Err(error) => tracing::warn!(%error, "the cloud is still away"),
            }
        }
    }
}

impl Cloud {
    async fn find_queue(&self, name: String) -> Result<String, CloudError> {
        let found = self.sqs().get_queue_url().queue_name(&name).send().await;
        let url = match found {
            Ok(answer) => answer.queue_url,
            Err(error)
                if code_of(&error).is_some_and(|code| {
                    code.ends_with("NonExistentQueue") || code == "QueueDoesNotExist"
                }) =>
            {
                None
            }
            Err(error) => return Err(CloudError::Unreachable(failed("the queues", error))),
        };
        url.ok_or(CloudError::NoQueue(name))
    }
}

struct Shared {
    store: Store,
    cloud: Cloud,
    tenant: TenantId,
}

async fn run_all(
    shared: Arc<Shared>,
    url: String,
    commands: mpsc::Sender<Command>,
    control: watch::Receiver<Control>,
) {
    let mut tasks = JoinSet::new();
    for queue in FORWARDED {
        tasks.spawn_local(forward(shared.clone(), queue, control.clone()));
    }
    tasks.spawn_local(forget(shared.clone(), control.clone()));
    tasks.spawn_local(each(shared.clone(), FORWARD_KEYS, control.clone()));
    tasks.spawn_local(each(shared.clone(), FORWARD_PAYLOADS, control.clone()));
    for _ in 0..commands::POLLS {
        tasks.spawn_local(commands::poll(
            shared.cloud.clone(),
            url.clone(),
            commands.clone(),
            control.clone(),
        ));
    }
    while tasks.join_next().await.is_some() {}
}

/// Sends what one queue of the spool holds.
async fn forward(shared: Arc<Shared>, queue: &'static str, control: watch::Receiver<Control>) {
    let handle = async |messages: Vec<Received>| {
        let sent = send(&shared.cloud, queue, messages).await;
        for (message, verdict) in &sent {
            if let (Verdict::Delete, Some(call)) = (verdict, ended(queue, message)) {
                shared.over(&call).await;
            }
        }
        sent
    };
    worker::work(&shared.store, queue, Failures::Forgiven, control, handle).await;
}

/// The call whose last entry this is.
fn ended(queue: &str, message: &Received) -> Option<CallId> {
    let entry = (queue == AUDIT).then(|| AuditMessage::from_json(&message.body).ok())??.entry;
    (entry.kind == PRODUCER_FINAL).then(|| entry.chain.call())?
}

/// Forgets the keys of calls that the cloud has whole, every now and then.
async fn forget(shared: Arc<Shared>, mut control: watch::Receiver<Control>) {
    let mut last = false;
    while !last {
        tokio::select! {
            _ = control.wait_for(|control| *control == Control::Stop) => last = true,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
        if let Err(error) = shared.store.run(vault::forget_over).committed().await {
            tracing::warn!(%error, "keys of forwarded calls are kept longer");
        }
    }
}

async fn send(cloud: &Cloud, queue: &'static str, messages: Vec<Received>) -> Vec<(Received, Verdict)> {
    let outgoing = messages.iter().map(|message| outgoing(queue, message)).collect();
    let (Ok(url), Ok(batches)) = (cloud.names.queue_url(queue), batches(outgoing)) else {
        // One of them is larger than any queue takes: each alone, so that only that one stays.
        return one_by_one(cloud, queue, messages).await;
    };
    let mut taken = vec![false; messages.len()];
    let mut first = 0;
    for batch in batches {
        match cloud.send_batch(&url, &batch).await {
            Ok(positions) => {
                for position in positions {
                    if let Some(place) = taken.get_mut(first + position) {
                        *place = true;
                    }
                }
            }
            Err(error) => tracing::warn!(queue, %error, "spooled messages wait for the cloud"),
        }
        first += batch.len();
    }
    let verdict = |taken| if taken { Verdict::Delete } else { Verdict::Retry };
    messages.into_iter().zip(taken.into_iter().map(verdict)).collect()
}

async fn one_by_one(cloud: &Cloud, queue: &'static str, messages: Vec<Received>) -> Vec<(Received, Verdict)> {
    let mut judged = Vec::new();
    for message in messages {
        let fits = batches(vec![outgoing(queue, &message)]).is_ok();
        if fits {
            judged.extend(Box::pin(send(cloud, queue, vec![message])).await);
        } else {
            judged.push((message, Verdict::Park("larger than a queue of the cloud takes".to_owned())));
        }
    }
    judged
}

/// An entry's deduplication id follows from its content, so that a second send of the same
/// row is dropped by the queue.
fn outgoing(queue: &str, message: &Received) -> Outgoing {
    let (group, dedup) = if queue == AUDIT {
        let entry = AuditMessage::from_json(&message.body).map(|message| message.entry);
        let dedup = entry.and_then(|entry| entry.deduplication_id());
        let fallback = || handoff::audit::Hash::of(&[&message.body]).to_string();
        (message.group.clone(), Some(dedup.unwrap_or_else(|_| fallback())))
    } else {
        (None, None)
    };
    Outgoing {
        queue: queue.to_owned(),
        call: message.call.clone(),
        body: message.body.clone(),
        group,
        dedup,
        delay: Duration::ZERO,
    }
}

/// Takes keys or payloads to their tables, one at a time.
async fn each(shared: Arc<Shared>, queue: &'static str, control: watch::Receiver<Control>) {
    let handle = async |messages: Vec<Received>| {
        let mut judged = Vec::new();
        for message in messages {
            let done = match (queue, message.call.clone()) {
                (FORWARD_KEYS, Some(call)) => shared.key(&call).await,
                (_, Some(call)) => shared.payload(&call, &message.body).await,
                (_, None) => Err(PortError::Permanent("a row without its call".to_owned())),
            };
            judged.push(match done {
                Ok(()) => (message, Verdict::Delete),
                Err(PortError::Permanent(why)) => (message, Verdict::Park(why)),
                Err(error) => {
                    tracing::warn!(queue, %error, "spooled rows wait for the cloud");
                    (message, Verdict::Retry)
                }
            });
        }
        judged
    };
    worker::work(&shared.store, queue, Failures::Forgiven, control, handle).await;
}

impl Shared {
    fn edge_key(&self, call: &CallId) -> Result<handoff::seal::SealKey, PortError> {
        let key = self.store.read(|conn, store_key| vault::find_key(conn, store_key, &self.tenant, call))?;
        key.map(|key| key.key).ok_or_else(|| PortError::Permanent("a call without its key".to_owned()))
    }

    async fn over(&self, call: &CallId) {
        let (tenant, over) = (self.tenant.clone(), call.clone());
        let marked = self.store.run(move |tx| vault::call_over(tx, &tenant, &over)).committed().await;
        if let Err(error) = marked {
            tracing::warn!(call_id = %call, %error, "the key of a forwarded call is kept");
        }
    }

    async fn key(&self, call: &CallId) -> Result<(), PortError> {
        let key = self.edge_key(call)?;
        self.cloud.keep_key(&self.tenant, call, EDGE_KEY, key.bytes()).await.map(drop)
    }

    async fn payload(&self, call: &CallId, body: &[u8]) -> Result<(), PortError> {
        let wanted: ForwardedPayload = serde_json::from_slice(body)
            .map_err(|_| PortError::Permanent("a payload's row does not parse".to_owned()))?;
        let stored = self.store.payload(&self.tenant, &wanted.payload, Some(wanted.revision)).await?;
        let stored = stored.ok_or_else(|| PortError::Permanent("a payload is gone".to_owned()))?;
        let key = self.edge_key(call)?;
        self.cloud.put_payload_under(stored, EDGE_KEY, &key).await.map(drop)
    }
}
