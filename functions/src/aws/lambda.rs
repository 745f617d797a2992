//! From an invocation to the handlers: a batch of SQS records in, the ones that must come
//! again out. A poison or panicking record is parked alone and acknowledged; one that waits
//! for its own schedule is given back with its wait. Figures leave as one line of the embedded
//! metric format per batch, dimensions without any id of a call.

use std::time::Duration;

use handoff::clock::Timestamp;
use handoff::id::{CallId, derived_text};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::{Value, json};

use super::names::Names;
use super::{Cloud, failed};
use crate::batch::{self, Failure, Handled, Verdict};
use crate::invocation::{BatchResponse, ItemFailure, SqsEvent, SqsRecord};
use crate::ports::{AUDIT, PARKED, PortError};

/// Longest time that a message can be kept from its queue.
const INVISIBLE_MAX: Duration = Duration::from_secs(12 * 3_600);

/// Longest reason that is kept with a parked record.
const WHY_LEN_MAX: usize = 300;

/// One function over one queue.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name in metrics and in parked records.
    pub name: &'static str,
    /// The queue that it reads, by its port name.
    pub queue: &'static str,
    /// Where it works.
    pub cloud: Cloud,
    /// Of which stage its figures are.
    pub stage: String,
}

impl Function {
    /// Handles a batch.
    pub async fn batch<F>(&self, event: SqsEvent, handle: F) -> BatchResponse
    where
        F: AsyncFnMut(&SqsRecord) -> Result<Handled, Failure>,
    {
        let now = self.cloud.wall();
        let oldest = event.records.iter().filter_map(|record| record.waited(now)).max();
        let judged = batch::run(event.records, self.queue == AUDIT, handle).await;
        let mut counts = Counts::default();
        let mut again = Vec::new();
        for (record, verdict) in judged {
            counts.count(&verdict);
            if self.settle(&record, verdict).await == Settled::Again {
                again.push(ItemFailure { item_identifier: record.message_id });
            }
        }
        say(&counts.line(self.name, &self.stage, now, oldest));
        BatchResponse { batch_item_failures: again }
    }

    /// Tells one figure that is no batch's.
    pub fn figure(&self, name: &str, value: usize) {
        say(&json!({
            "_aws": {
                "Timestamp": self.cloud.wall().unix_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": "Warmbridge",
                    "Dimensions": [["stage", "function"]],
                    "Metrics": [{"Name": name, "Unit": "Count"}],
                }],
            },
            "stage": self.stage,
            "function": self.name,
            name: value,
        })
        .to_string());
    }

    async fn settle(&self, record: &SqsRecord, verdict: Verdict) -> Settled {
        match verdict {
            Verdict::Delete => Settled::Done,
            Verdict::Retry => Settled::Again,
            Verdict::Defer(wait) | Verdict::Hold(wait) => {
                if let Err(error) = self.postpone(record, wait).await {
                    // It comes when its visibility ends: too early, which its handler notices.
                    tracing::warn!(%error, "a message could not be postponed");
                }
                Settled::Again
            }
            Verdict::Park(why) => self.park(record, &why).await,
            Verdict::Bury => self.park(record, "its schedule of tries is used up").await,
        }
    }

    async fn postpone(&self, record: &SqsRecord, wait: Duration) -> Result<(), PortError> {
        let secs = wait.min(INVISIBLE_MAX).as_secs_f64().ceil() as i32;
        let changed = self
            .cloud
            .sqs()
            .change_message_visibility()
            .queue_url(self.cloud.names.queue_url(self.queue)?)
            .receipt_handle(&record.receipt_handle)
            .visibility_timeout(secs)
            .send()
            .await;
        changed.map(drop).map_err(|error| failed("the queue", error))
    }

    /// Gives a record to an operator. One that cannot be parked comes again, so that nothing
    /// is lost.
    async fn park(&self, record: &SqsRecord, why: &str) -> Settled {
        let why: String = why.chars().take(WHY_LEN_MAX).collect();
        let body = json!({
            "function": self.name,
            "queue": self.queue,
            "message_id": record.message_id,
            "why": why,
            "body": record.body,
        });
        let sent = match self.cloud.names.queue_url(PARKED) {
            Ok(url) => {
                let send = self.cloud.sqs().send_message().queue_url(url).message_body(body.to_string());
                send.send().await.map(drop).map_err(|error| failed("parked", error))
            }
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => Settled::Done,
            Err(error) => {
                tracing::error!(%error, "a bad record could not be parked");
                Settled::Again
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Done,
    Again,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    done: u32,
    postponed: u32,
    retried: u32,
    parked: u32,
}

impl Counts {
    const fn count(&mut self, verdict: &Verdict) {
        let count = match verdict {
            Verdict::Delete => &mut self.done,
            Verdict::Defer(_) | Verdict::Hold(_) => &mut self.postponed,
            Verdict::Retry => &mut self.retried,
            Verdict::Park(_) | Verdict::Bury => &mut self.parked,
        };
        *count += 1;
    }

    /// One line of the embedded metric format.
    fn line(&self, function: &str, stage: &str, now: Timestamp, oldest_ms: Option<i64>) -> String {
        let metrics = json!([
            {"Name": "done", "Unit": "Count"},
            {"Name": "postponed", "Unit": "Count"},
            {"Name": "retried", "Unit": "Count"},
            {"Name": "parked", "Unit": "Count"},
            {"Name": "queue_wait_ms", "Unit": "Milliseconds"},
        ]);
        json!({
            "_aws": {
                "Timestamp": now.unix_millis(),
                "CloudWatchMetrics": [
                    {"Namespace": "Warmbridge", "Dimensions": [["stage", "function"]], "Metrics": metrics}
                ],
            },
            "stage": stage,
            "function": function,
            "done": self.done,
            "postponed": self.postponed,
            "retried": self.retried,
            "parked": self.parked,
            "queue_wait_ms": oldest_ms.unwrap_or_default(),
        })
        .to_string()
    }
}

/// The trace that a call's records share in every function and in the edge: it follows from
/// the call's id, so that nothing has to carry it.
pub fn trace_of(call: &CallId) -> String {
    derived_text(&["trace", call.as_str()])
}

/// Metrics are lines of stdout, which is what the platform reads them from.
fn say(line: &str) {
    use std::io::Write as _;
    // A closed pipe costs a figure, not a record.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// What every function does first: logs as JSON, one crypto provider, clients for its stack.
pub async fn begin(name: &'static str, queue: &'static str) -> Function {
    tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .init();
    // A second provider would be a fault of ours; the first one stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variable = |name: &str| std::env::var(name).ok();
    let cloud = Cloud::connect(Names::from_environment(variable)).await;
    Function { name, queue, cloud, stage: variable("WB_STAGE").unwrap_or_default() }
}

/// Serves invocations until the platform ends the process.
pub async fn serve<F>(invoke: F) -> Result<(), lambda_runtime::Error>
where
    F: AsyncFn(Value) -> Result<Value, Failure>,
{
    let invoke = &invoke;
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<Value>| {
        // A function's future holds those of every request it may make; it lives on the heap.
        Box::pin(invoke(event.payload)).await.map_err(|error| lambda_runtime::Error::from(error.to_string()))
    }))
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_dimensions_that_name_no_call() {
        let mut counts = Counts::default();
        for verdict in [Verdict::Delete, Verdict::Park("garbage".to_owned()), Verdict::Retry] {
            counts.count(&verdict);
        }
        let line: Value =
            serde_json::from_str(&counts.line("write-audit", "dev", Timestamp::from_unix_millis(5), Some(7)))
                .unwrap();
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["stage", "function"]]));
        assert_eq!((&line["parked"], &line["queue_wait_ms"]), (&json!(1), &json!(7)));
    }
}
