//! One worker of one queue of the embedded store: it sleeps until the store says that the
//! queue changed or a message becomes due, hands over what is visible, and writes what became
//! of it in one commit. What a batch means is its owner's.

use std::time::Duration;

use tokio::sync::watch;

use crate::batch::{Grouped, Verdict};
use crate::sqlite::queue::{self, Batch, QueueSettings, Received, settings_of};
use crate::sqlite::{Store, StoreError};

/// Longest sleep of a worker: what depends on time alone happens this late at most.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Wait after the store failed.
pub(crate) const STORE_RETRY: Duration = Duration::from_millis(500);

/// Wait before a record that failed for now is tried again: doubled per receive, up to
/// sixteen times.
const RETRY_BASE: Duration = Duration::from_millis(250);

impl Grouped for Received {
    fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }
}

/// What workers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Work.
    Run,
    /// Begin nothing.
    Pause,
    /// End.
    Stop,
}

/// Whether failures count towards the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failures {
    /// They do.
    Count,
    /// They do not: what failed is not the record's doing.
    Forgiven,
}

/// Waits while paused. `false` means stop.
pub(crate) async fn may_run(control: &mut watch::Receiver<Control>) -> bool {
    let running = control.wait_for(|control| *control != Control::Pause).await;
    running.is_ok_and(|control| *control == Control::Run)
}

/// Works a queue until told to stop.
pub(crate) async fn work<F>(
    store: &Store,
    name: &str,
    failures: Failures,
    mut control: watch::Receiver<Control>,
    mut handle: F,
) where
    F: AsyncFnMut(Vec<Received>) -> Vec<(Received, Verdict)>,
{
    let Some(settings) = settings_of(name) else { return };
    let mut activity = store.activity();
    while may_run(&mut control).await {
        activity.borrow_and_update();
        match take(store, name, settings).await {
            Ok(batch) if !batch.messages.is_empty() => {
                let judged = handle(batch.messages).await;
                if let Err(error) = settle(store, failures, judged).await {
                    tracing::warn!(queue = name, %error, "results were not stored; records come again");
                }
            }
            Ok(batch) => {
                let now = store.wall().unix_millis();
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

/// Writes what became of the records of a batch, together.
async fn settle(
    store: &Store,
    failures: Failures,
    judged: Vec<(Received, Verdict)>,
) -> Result<(), StoreError> {
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
                    let how = match failures {
                        Failures::Count => queue::Release::Counted,
                        Failures::Forgiven => queue::Release::Uncounted,
                    };
                    queue::release(tx, id, receives, delay, how)?;
                }
            }
        }
        Ok(())
    });
    settled.committed().await.map(drop)
}
