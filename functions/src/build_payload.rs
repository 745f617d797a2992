//! `build-payload`: a decision in, a frozen payload out. It stores the bytes, tells the edge,
//! announces them to every destination that wants them, and records that it did. A second
//! build of the same revision sends what the first one stored.

use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId, Refs};
use handoff::clock::Timestamp;
use handoff::command::{Command, CommandBody};
use handoff::conversation::Context;
use handoff::delivery::Lane;
use handoff::event::WebhookKind;
use handoff::id::derived_text;
use handoff::payload::{Availability, BuildInput, Generator, Payload, build, project, thin};
use handoff::webhook::{DataSchema, Message};
use serde_json::{Value, json};

use crate::batch::{Failure, Handled};
use crate::config::{Content, Destination, FunctionsConfig};
use crate::evaluate_trigger::send_command;
use crate::outbox::{DecisionJob, JOB_VERSION, WebhookJob, pop_url};
use crate::ports::{
    ClaimOnce, Clock, Enqueue, Keys, Outgoing, PutPayload, PutTranscript, ReadAudit, StoredPayload,
};

/// The first revision that a function builds; 1 is the edge's own.
pub const FIRST_REVISION: u32 = 2;

/// Handles one job of the queue `decisions`.
pub async fn handle<S, C>(
    store: &S,
    clock: &C,
    config: &FunctionsConfig,
    body: &[u8],
) -> Result<Handled, Failure>
where
    S: Enqueue + ClaimOnce + ReadAudit + PutPayload + PutTranscript + Keys,
    C: Clock,
{
    let job = DecisionJob::from_json(body)?;
    // The edge and the function may both have decided; the transfer has one payload.
    let claim = format!("payload:{}", job.decision.transfer_id);
    if !store.claim(&claim, &format!("{}:{}", job.edge, job.seq)).await? {
        return Ok(Handled::Done);
    }
    let call = &job.decision.call_id;
    let head = store.head(&job.tenant, call).await?.seq;
    let fresh = composed(&job, config, head, clock.wall());
    let bytes = store.put_payload(stored(&job, &fresh)?).await?;
    // After a retry these are the bytes of the first build, with its times and its head.
    let payload = Payload::parse(&bytes).map_err(Failure::permanent)?;
    if let Some(text) = transcript(&job, &payload) {
        store.put_transcript(&job.tenant, call, text).await?;
    }
    let mac = store.data_key(&job.tenant, call).await?.key.payload_mac(&bytes);
    let mut messages = vec![ready(&job, &payload)];
    messages.extend(announcements(&job, config, &payload)?);
    messages.extend(audit(&job, &payload, mac)?);
    store.enqueue(messages).await?;
    Ok(Handled::Done)
}

fn composed(job: &DecisionJob, config: &FunctionsConfig, head: u64, now: Timestamp) -> Payload {
    let nothing_known = Context::default();
    let context = job.context.as_ref().unwrap_or(&nothing_known);
    let asked = context.request.as_ref().and_then(|request| request.queue.as_deref());
    let decision = &job.decision;
    build(&BuildInput {
        tenant: &job.tenant,
        call: &decision.call_id,
        transfer: &decision.transfer_id,
        trigger: &decision.trigger,
        policy_version: &decision.policy_version,
        origin: decision.origin,
        context,
        catalog: &config.catalog,
        queue: config.queue(asked),
        revision: FIRST_REVISION,
        created_at: now,
        // Both clocks are wall clocks of different machines; a payload is never older than
        // its cause.
        fired_at: job.at.min(now),
        public_url: &config.public_url,
        audit_head: (head > 0).then_some((&decision.call_id, head)),
        classification: &[],
    })
}

fn stored(job: &DecisionJob, payload: &Payload) -> Result<StoredPayload, Failure> {
    Ok(StoredPayload {
        tenant: job.tenant.clone(),
        call: job.decision.call_id.clone(),
        payload: payload.payload_id.clone(),
        revision: payload.revision,
        bytes: payload.canonical_bytes().map_err(Failure::permanent)?,
    })
}

/// The turns that the payload's link will serve; none where the payload says that there are
/// none, or that the caller refused.
fn transcript(job: &DecisionJob, payload: &Payload) -> Option<Vec<u8>> {
    let context = job.context.as_ref()?;
    let available = payload.transcript.availability == Availability::OnDemand;
    available.then(|| serde_json::to_vec(&context.turns).unwrap_or_default())
}

fn ready(job: &DecisionJob, payload: &Payload) -> Outgoing {
    let transfer = &job.decision.transfer_id;
    let revision = payload.revision.to_string();
    let command = Command {
        id: format!("cmd_{}", derived_text(&["payload.ready", transfer.as_str(), &revision])),
        call_id: job.decision.call_id.clone(),
        body: CommandBody::PayloadReady { transfer_id: transfer.clone(), payload: Box::new(payload.clone()) },
    };
    send_command(&job.commands, &job.edge, &command)
}

/// `offered`, once per destination that wants it, each with what it may see.
fn announcements(
    job: &DecisionJob,
    config: &FunctionsConfig,
    payload: &Payload,
) -> Result<Vec<Outgoing>, Failure> {
    let kind = WebhookKind::Offered;
    let transfer = &job.decision.transfer_id;
    let wanting = config.destinations.iter().filter(|destination| destination.wants(kind));
    wanting
        .map(|destination| {
            let (schema, data) = data_for(destination, config, payload)?;
            let message = Message {
                tenant: &job.tenant,
                kind,
                subject: transfer.as_str(),
                sequence: job.seq,
                time: payload.created_at,
                revision: Some(payload.revision),
                schema,
                data,
            };
            let message_id = message.id();
            Ok(WebhookJob {
                version: JOB_VERSION,
                tenant: job.tenant.clone(),
                edge: job.edge.clone(),
                commands: job.commands.clone(),
                call: job.decision.call_id.clone(),
                transfer: Some(transfer.clone()),
                revision: Some(payload.revision),
                message_id,
                kind,
                destination: destination.id.clone(),
                lane: Lane::of(kind),
                body: String::from_utf8_lossy(&message.body()).into_owned(),
            }
            .outgoing())
        })
        .collect()
}

/// What a destination may see: thin by default, and never more than its grants.
fn data_for(
    destination: &Destination,
    config: &FunctionsConfig,
    payload: &Payload,
) -> Result<(DataSchema, Value), Failure> {
    let (schema, data) = match destination.content {
        Content::Full => (DataSchema::Full, serde_json::to_value(project(payload, destination.grants))),
        Content::Thin => {
            let page = pop_url(&config.public_url, &payload.transfer_id);
            let thin = thin(payload, None, Some(&page), destination.grants);
            (DataSchema::Thin, serde_json::to_value(thin))
        }
    };
    data.map(|data| (schema, data)).map_err(|_| Failure::permanent("a payload cannot be written"))
}

fn audit(job: &DecisionJob, payload: &Payload, mac: String) -> Result<Vec<Outgoing>, Failure> {
    let facts = [
        (
            "payload.built",
            json!({
                "payload_id": payload.payload_id,
                "transfer_id": payload.transfer_id,
                "revision": payload.revision,
                "generator": match payload.summary.generator {
                    Generator::Model => "model",
                    Generator::TemplateFallback => "template_fallback",
                },
                "completeness_pm": payload.structured.completeness.as_ref().map_or(0, |known| known.score_pm),
            }),
            Some(Refs { payload_mac: Some(mac), ..Refs::default() }),
        ),
        (
            "redaction.applied",
            json!({
                "counts": payload.redaction.counts,
                "engine": payload.redaction.engine,
                "level": payload.transcript.redaction_level,
            }),
            None,
        ),
    ];
    let producer = ProducerId::job("build-payload", payload.payload_id.as_str(), payload.revision);
    let entries = (0_u64..).zip(facts).map(|(pseq, (kind, body, refs))| AuditEntry {
        tenant: job.tenant.clone(),
        chain: ChainId::of(&job.decision.call_id),
        producer: producer.clone(),
        pseq,
        kind: kind.to_owned(),
        occurred_at: payload.created_at,
        actor: Actor::system("build-payload"),
        body,
        sealed: None,
        refs,
    });
    entries.map(|entry| Ok(Outgoing::audit(&AuditMessage::plain(entry))?)).collect()
}

#[cfg(test)]
mod tests {
    use handoff::id::{DecisionId, PayloadId};
    use handoff::policy::{Category, Decision, Origin, Trigger};

    use super::*;
    use crate::ports::{AUDIT, GetPayload, GetTranscript, WEBHOOKS_LIVE};
    use crate::testing::{Bench, asked, call, config, destination, policy, tenant, transfer};

    fn job(origin: Origin, seq: u64) -> DecisionJob {
        let event = asked(seq);
        DecisionJob {
            version: JOB_VERSION,
            tenant: tenant(),
            edge: event.edge,
            commands: String::new(),
            seq,
            at: event.time,
            decision: Decision {
                decision_id: DecisionId::of(&transfer()),
                transfer_id: transfer(),
                call_id: call(),
                trigger: Trigger {
                    category: Category::CallerRequest,
                    rule_id: "caller_asks".to_owned(),
                    evidence: "asked".to_owned(),
                    mandatory: true,
                    waives_waits: false,
                    also: Vec::new(),
                },
                policy_version: policy().version().to_owned(),
                origin,
            },
            context: event.evaluable.and_then(|evaluable| evaluable.context),
        }
    }

    async fn run(bench: &Bench, config: &FunctionsConfig, job: &DecisionJob) -> Result<Handled, Failure> {
        handle(&bench.store, &bench.clock, config, &job.outgoing().body).await
    }

    #[tokio::test]
    async fn a_payload_is_stored_told_announced_and_recorded() {
        let bench = Bench::new();
        let config = config(vec![destination("crm"), destination("lake")]);
        assert_eq!(run(&bench, &config, &job(Origin::Function, 4)).await, Ok(Handled::Done));
        let id = PayloadId::of(&transfer());
        let stored = bench.store.payload(&tenant(), &id, None).await.unwrap().unwrap();
        let command: Command = serde_json::from_slice(&bench.drain("commands-edge-1").await[0].body).unwrap();
        let CommandBody::PayloadReady { payload, .. } = command.body else { panic!("the payload") };
        assert_eq!(payload.canonical_bytes().unwrap(), stored.bytes);
        let jobs: Vec<WebhookJob> = bench
            .drain(WEBHOOKS_LIVE)
            .await
            .iter()
            .map(|m| WebhookJob::from_json(&m.body).unwrap())
            .collect();
        let named: Vec<&str> = jobs.iter().map(|job| job.destination.as_str()).collect();
        assert_eq!(named, ["crm", "lake"]);
        assert_eq!(jobs[0].message_id, jobs[1].message_id);
        let audit = bench.drain(AUDIT).await;
        let built = AuditMessage::from_json(&audit[0].body).unwrap().entry;
        let key = bench.store.data_key(&tenant(), &call()).await.unwrap().key;
        assert_eq!(built.refs.unwrap().payload_mac, Some(key.payload_mac(&stored.bytes)));
        assert_eq!(AuditMessage::from_json(&audit[1].body).unwrap().entry.kind, "redaction.applied");
        assert!(bench.store.transcript(&tenant(), &call()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_build_that_died_after_storing_sends_what_it_stored() {
        let bench = Bench::new();
        let config = config(vec![destination("crm")]);
        let job = job(Origin::Function, 4);
        let first = composed(&job, &config, 0, bench.clock.wall());
        bench.store.put_payload(stored(&job, &first).unwrap()).await.unwrap();
        bench.clock.pass(5_000);
        run(&bench, &config, &job).await.unwrap();
        let command: Command = serde_json::from_slice(&bench.drain("commands-edge-1").await[0].body).unwrap();
        let CommandBody::PayloadReady { payload, .. } = command.body else { panic!("the payload") };
        assert_eq!(payload.created_at, first.created_at);
    }

    #[tokio::test]
    async fn two_decisions_for_one_transfer_make_one_payload() {
        let bench = Bench::new();
        let config = config(vec![destination("crm")]);
        run(&bench, &config, &job(Origin::EdgeFallback, 6)).await.unwrap();
        run(&bench, &config, &job(Origin::Function, 4)).await.unwrap();
        assert_eq!(bench.drain(WEBHOOKS_LIVE).await.len(), 1);
    }

    #[tokio::test]
    async fn a_destination_sees_no_more_than_its_grants() {
        let payload =
            composed(&job(Origin::Function, 4), &config(Vec::new()), 0, Timestamp::from_unix_millis(0));
        let config = config(vec![destination("crm")]);
        let (schema, thin) = data_for(&config.destinations[0], &config, &payload).unwrap();
        assert_eq!(schema, DataSchema::Thin);
        assert_eq!(thin["pop_url"], format!("https://edge.example/desktop/?transfer={}", transfer()));
        let mut full = destination("crm");
        full.content = Content::Full;
        let (schema, data) = data_for(&full, &config, &payload).unwrap();
        assert_eq!(schema, DataSchema::Full);
        assert_eq!(data["schema"], "warmbridge.handoff/1.0");
    }
}
