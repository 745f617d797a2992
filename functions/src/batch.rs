//! A batch of records, each judged alone: a poison or panicking record never takes its
//! neighbours with it. Permanent failures are parked and acknowledged, transient ones go
//! back to the queue; in a queue that keeps order, so do those behind them in their group.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::ports::PortError;

/// Why a handler failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The record will never succeed: unparsable, unknown version, conflicting duplicate.
    #[error("permanent: {0}")]
    Permanent(String),
    /// The same record may succeed later.
    #[error("transient: {0}")]
    Transient(String),
}

impl Failure {
    /// A permanent failure with what was wrong; never with content of the record.
    pub fn permanent(error: impl ToString) -> Self {
        Self::Permanent(error.to_string())
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Transient(_) => Self::Transient(error.to_string()),
            PortError::Permanent(_) => Self::Permanent(error.to_string()),
        }
    }
}

/// What a handler says of a record that it handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// Acknowledge it.
    Done,
    /// It waits for a later try by its own schedule.
    Defer(Duration),
    /// It was not tried, for a reason that is not its own.
    Hold(Duration),
    /// Its schedule is used up: dead letter.
    Bury,
}

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it from the queue.
    Delete,
    /// Give it back for later.
    Defer(Duration),
    /// Give it back for later, as if it had not been taken.
    Hold(Duration),
    /// To the dead letters.
    Bury,
    /// To `parked`, with why.
    Park(String),
    /// Back to the queue: it failed for now, or stands behind one that did.
    Retry,
}

/// A record as a batch sees it.
pub trait Grouped {
    /// The group whose order it keeps, if any.
    fn group(&self) -> Option<&str>;
}

/// Handles each record alone, in order, and judges it.
pub async fn run<R, F>(records: Vec<R>, keeps_order: bool, mut handle: F) -> Vec<(R, Verdict)>
where
    R: Grouped,
    F: AsyncFnMut(&R) -> Result<Handled, Failure>,
{
    let mut blocked: BTreeSet<String> = BTreeSet::new();
    let mut judged = Vec::with_capacity(records.len());
    for record in records {
        let behind = keeps_order && record.group().is_some_and(|group| blocked.contains(group));
        let verdict = if behind { Verdict::Retry } else { judge(alone(handle(&record)).await) };
        if verdict == Verdict::Retry
            && let Some(group) = record.group()
        {
            blocked.insert(group.to_owned());
        }
        judged.push((record, verdict));
    }
    judged
}

fn judge(result: Result<Handled, Failure>) -> Verdict {
    match result {
        Ok(Handled::Done) => Verdict::Delete,
        Ok(Handled::Defer(delay)) => Verdict::Defer(delay),
        Ok(Handled::Hold(delay)) => Verdict::Hold(delay),
        Ok(Handled::Bury) => Verdict::Bury,
        Err(Failure::Permanent(why)) => {
            tracing::error!(why, "record parked");
            Verdict::Park(why)
        }
        Err(Failure::Transient(why)) => {
            tracing::warn!(why, "record goes back to its queue");
            Verdict::Retry
        }
    }
}

/// Turns a panic into a failure of this record. A panic is a bug of ours and repeats, so it
/// is permanent.
async fn alone<F>(future: F) -> Result<Handled, Failure>
where
    F: Future<Output = Result<Handled, Failure>>,
{
    let mut future = pin!(future);
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(Failure::Permanent("the handler panicked".to_owned()))))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Record(&'static str, Option<&'static str>);

    impl Grouped for Record {
        fn group(&self) -> Option<&str> {
            self.1
        }
    }

    async fn verdicts(records: Vec<Record>, keeps_order: bool) -> Vec<Verdict> {
        let handle = async |record: &Record| match record.0 {
            "ok" => Ok(Handled::Done),
            "later" => Ok(Handled::Defer(Duration::from_secs(5))),
            "down" => Err(Failure::Transient("store".to_owned())),
            "panic" => panic!("a bug"),
            _ => Err(Failure::Permanent("garbage".to_owned())),
        };
        run(records, keeps_order, handle).await.into_iter().map(|(_, verdict)| verdict).collect()
    }

    #[tokio::test]
    async fn a_poison_or_panicking_record_fails_alone() {
        let records = ["ok", "garbage", "panic", "later", "ok"].map(|name| Record(name, Some("call_1")));
        assert_eq!(
            verdicts(records.into(), true).await,
            [
                Verdict::Delete,
                Verdict::Park("garbage".to_owned()),
                Verdict::Park("the handler panicked".to_owned()),
                Verdict::Defer(Duration::from_secs(5)),
                Verdict::Delete,
            ]
        );
    }

    #[tokio::test]
    async fn a_transient_failure_holds_back_its_own_group_only() {
        let records = [("ok", "a"), ("down", "a"), ("ok", "a"), ("ok", "b")]
            .map(|(name, group)| Record(name, Some(group)));
        assert_eq!(
            verdicts(records.into(), true).await,
            [Verdict::Delete, Verdict::Retry, Verdict::Retry, Verdict::Delete]
        );
        let records = ["down", "ok"].map(|name| Record(name, None));
        assert_eq!(verdicts(records.into(), false).await, [Verdict::Retry, Verdict::Delete]);
    }
}
