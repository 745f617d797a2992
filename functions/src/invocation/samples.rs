//! The sample events of `infra/events`, each through the handler that the platform gives it to.

use std::time::Duration;

use handoff::audit::AuditMessage;
use handoff::command::{Command, CommandBody};
use handoff::delivery::AttemptResult;
use handoff::id::PayloadId;
use handoff::policy::{Category, Origin};
use serde_json::Value;

use super::*;
use crate::batch::{self, Failure, Handled, Verdict};
use crate::breakers::Breakers;
use crate::config::{FunctionsConfig, PolicySet};
use crate::outbox::{DecisionJob, WebhookJob};
use crate::ports::{AUDIT, DECISIONS, GetPayload, SendWebhook, WEBHOOKS_LIVE, WebhookAnswer, WebhookRequest};
use crate::sqlite::queue::Received;
use crate::tamper_watch::StreamOfRecords;
use crate::testing::{Bench, T0, config, destination, policy};
use crate::{build_payload, evaluate_trigger, measure_transfers, send_webhook, write_audit};

/// Where the samples' edge takes its commands.
const COMMANDS: &str = "https://sqs.us-east-1.amazonaws.com/123456789012/warmbridge-commands-edge-1";

/// When the samples' caller asked; the store is a second later.
const ASKED: i64 = 1_795_435_876_173;

macro_rules! sample {
    ($name:literal) => {
        event(include_str!(concat!("../../../infra/events/", $name, ".json")))
    };
}

/// A sample whose commands go to the queue that the edge of a store has.
fn event(text: &str) -> Value {
    serde_json::from_str(&text.replace(COMMANDS, "")).unwrap()
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.clock.pass(ASKED + 1_000 - T0);
    bench
}

fn settings() -> FunctionsConfig {
    config(vec![destination("crm")])
}

/// What becomes of the one record of a batch.
async fn verdict(
    event: Value,
    keeps_order: bool,
    handle: impl AsyncFnMut(&SqsRecord) -> Result<Handled, Failure>,
) -> Verdict {
    let judged = batch::run(batch_in(event).ok().unwrap().records, keeps_order, handle).await;
    let [(_, verdict)] = &judged[..] else { panic!("one record") };
    verdict.clone()
}

fn command(message: &Received) -> CommandBody {
    serde_json::from_slice::<Command>(&message.body).unwrap().body
}

fn kinds(messages: &[Received]) -> Vec<String> {
    messages.iter().map(|message| AuditMessage::from_json(&message.body).unwrap().entry.kind).collect()
}

#[tokio::test]
async fn the_signal_leads_to_a_decision() {
    let (bench, policies) = (bench(), PolicySet::new(&[policy()]));
    let handled = verdict(sample!("evaluate-trigger"), false, async |record| {
        evaluate_trigger::handle(&bench.store, &policies, &bench.clock, record.body.as_bytes()).await
    });
    assert_eq!(handled.await, Verdict::Delete);
    let job = DecisionJob::from_json(&bench.drain(DECISIONS).await[0].body).unwrap();
    assert_eq!(
        (job.decision.trigger.category, job.decision.origin),
        (Category::Regulatory, Origin::Function)
    );
    let told = command(&bench.drain("commands-edge-1").await[0]);
    assert_eq!(told, CommandBody::TransferDecided { decision: job.decision });
    assert_eq!(kinds(&bench.drain(AUDIT).await), ["trigger.evaluated"]);
}

#[tokio::test]
async fn the_decision_leads_to_a_payload_and_its_announcement() {
    let (bench, settings) = (bench(), settings());
    let event = sample!("build-payload");
    let body = event["Records"][0]["body"].as_str().unwrap().as_bytes().to_vec();
    let job = DecisionJob::from_json(&body).unwrap();
    let handled = verdict(event, false, async |record| {
        build_payload::handle(&bench.store, &bench.clock, &settings, record.body.as_bytes()).await
    });
    assert_eq!(handled.await, Verdict::Delete);
    let id = PayloadId::of(&job.decision.transfer_id);
    let stored = bench.store.payload(&job.tenant, &id, None).await.unwrap().unwrap();
    let CommandBody::PayloadReady { payload, .. } = command(&bench.drain("commands-edge-1").await[0]) else {
        panic!("the payload")
    };
    assert_eq!(payload.canonical_bytes().unwrap(), stored.bytes);
    let announced = WebhookJob::from_json(&bench.drain(WEBHOOKS_LIVE).await[0].body).unwrap();
    assert_eq!(announced.destination.as_str(), "crm");
    assert!(kinds(&bench.drain(AUDIT).await).contains(&"payload.built".to_owned()));
}

/// A receiver that always answers the same.
struct Receiver(u16);

impl SendWebhook for Receiver {
    async fn send(&self, _request: WebhookRequest) -> WebhookAnswer {
        let result = AttemptResult::Answered { status: self.0, retry_after: None };
        WebhookAnswer { result, popped: false, response_sha256: None }
    }
}

#[tokio::test]
async fn the_webhook_leads_to_a_recorded_try_and_comes_again_where_it_was_refused() {
    for (status, last) in [(200, "webhook.delivered"), (500, "webhook.attempted")] {
        let (bench, settings, breakers) = (bench(), settings(), Breakers::default());
        let handled = verdict(sample!("send-webhook"), false, async |record| {
            let (body, receiver) = (record.body.as_bytes(), Receiver(status));
            send_webhook::handle(&bench.store, &receiver, &bench.clock, &breakers, &settings, body, 0).await
        });
        let verdict = handled.await;
        let deferred = matches!(verdict, Verdict::Defer(wait) if wait > Duration::ZERO);
        assert!(if status == 200 { verdict == Verdict::Delete } else { deferred }, "{verdict:?}");
        assert_eq!(kinds(&bench.drain(AUDIT).await).last().map(String::as_str), Some(last));
    }
}

#[tokio::test]
async fn the_audit_entry_leads_to_a_record_and_again_to_none() {
    let bench = bench();
    for _ in 0..2 {
        let handled = verdict(sample!("write-audit-append"), true, async |record| {
            write_audit::handle(&bench.store, record.body.as_bytes()).await
        });
        assert_eq!(handled.await, Verdict::Delete);
    }
    let call = "call_SAMPLE00000000000000000000";
    let shown = crate::audit_read::Reader::open(bench.store.dir()).unwrap().show(call).unwrap();
    assert_eq!(shown.iter().map(|record| record.kind.as_str()).collect::<Vec<_>>(), ["agent.accepted"]);
}

#[tokio::test]
async fn the_closed_head_leads_to_a_row_of_measures() {
    let bench = bench();
    let appended = verdict(sample!("write-audit-append"), true, async |record| {
        write_audit::handle(&bench.store, record.body.as_bytes()).await
    });
    assert_eq!(appended.await, Verdict::Delete);
    let event: HeadsEvent = serde_json::from_value(sample!("measure-transfers")).unwrap();
    let changed: Vec<_> = event.measured().collect();
    let [(_, tenant, call)] = &changed[..] else { panic!("one closed chain") };
    assert_eq!(measure_transfers::measure(&bench.store, tenant, call).await, Ok(1));
}

#[test]
fn the_changed_record_leads_to_an_alarm() {
    let stream: StreamOfRecords = serde_json::from_value(sample!("write-audit-watch")).unwrap();
    let told: Vec<_> =
        stream.tampering().iter().map(|row| (row.record.to_owned(), row.what.to_owned())).collect();
    assert_eq!(told, [("EVT#00000001".to_owned(), "MODIFY".to_owned())]);
}

#[test]
fn a_schedule_brings_no_record() {
    let events = [
        sample!("write-audit-close"),
        sample!("write-audit-checkpoint"),
        sample!("write-audit-archive"),
        sample!("write-audit-expire"),
    ];
    for event in events {
        assert_eq!(event["source"], "aws.scheduler");
        assert!(batch_in(event).ok().unwrap().records.is_empty());
    }
}
