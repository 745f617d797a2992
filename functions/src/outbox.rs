//! What leaves a call: the messages that a fact causes, as rows to be written together. The
//! edge's shell calls it and stores the rows; it decides nothing and performs nothing. Texts
//! are sealed here, before anything is stored.

use std::sync::Arc;

use handoff::audit::entry::entry_of;
use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId};
use handoff::clock::Timestamp;
use handoff::conversation::Context;
use handoff::delivery::Lane;
use handoff::event::{CallEvent, EVENT_LEN_MAX, Evaluable, Fact, WebhookKind, webhook_of};
use handoff::id::{CallId, DestinationId, EdgeId, HumanAgentId, PayloadId, TenantId, TransferId};
use handoff::policy::Decision;
use handoff::seal::{DataKey, NONCE_LEN};
use handoff::webhook::{DataSchema, Message};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::batch::Failure;
use crate::config::FunctionsConfig;
use crate::ports::{DECISIONS, Outgoing, PortError, SIGNALS, StoredPayload, WEBHOOKS_DURABLE, WEBHOOKS_LIVE};
use crate::sqlite::Row;

/// Version of the jobs that this file writes; others are refused.
pub const JOB_VERSION: u32 = 1;

/// A decision on its way to build-payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionJob {
    /// [`JOB_VERSION`].
    pub version: u32,
    /// Whose.
    pub tenant: TenantId,
    /// Which edge has the call.
    pub edge: EdgeId,
    /// Its command queue; empty in the embedded mode.
    pub commands: String,
    /// Number of the event that caused it; the `sequence` of its webhooks.
    pub seq: u64,
    /// When that event happened.
    pub at: Timestamp,
    /// The decision.
    pub decision: Decision,
    /// What the payload is built from; absent where the event carried none.
    pub context: Option<Context>,
}

impl DecisionJob {
    /// As it crosses the queue.
    pub fn outgoing(&self) -> Outgoing {
        // Text and integers only: nothing in these types can fail.
        let body = serde_json::to_vec(self).unwrap_or_default();
        Outgoing::to(DECISIONS, &self.decision.call_id, body)
    }

    /// Reads a job of this version.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Failure> {
        let job: Self = parse(bytes)?;
        if job.version == JOB_VERSION {
            Ok(job)
        } else {
            Err(Failure::permanent("unknown version of a decision"))
        }
    }
}

/// One message for one destination. The body is frozen here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookJob {
    /// [`JOB_VERSION`].
    pub version: u32,
    /// Whose.
    pub tenant: TenantId,
    /// Which edge has the call.
    pub edge: EdgeId,
    /// Its command queue; empty in the embedded mode.
    pub commands: String,
    /// Which call.
    pub call: CallId,
    /// Which transfer, where it is about one.
    pub transfer: Option<TransferId>,
    /// Which revision of the payload, where it carries one.
    pub revision: Option<u32>,
    /// Idempotency key.
    pub message_id: String,
    /// CloudEvents type.
    pub kind: WebhookKind,
    /// To whom.
    pub destination: DestinationId,
    /// In which lane it is now.
    pub lane: Lane,
    /// The body, byte for byte.
    pub body: String,
}

impl WebhookJob {
    /// As it crosses the queue of its lane.
    pub fn outgoing(&self) -> Outgoing {
        let queue = match self.lane {
            Lane::Live => WEBHOOKS_LIVE,
            Lane::Durable => WEBHOOKS_DURABLE,
        };
        Outgoing::to(queue, &self.call, serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a job of this version.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Failure> {
        let job: Self = parse(bytes)?;
        if job.version == JOB_VERSION {
            Ok(job)
        } else {
            Err(Failure::permanent("unknown version of a webhook"))
        }
    }
}

/// Parses without repeating content in the error: it may be personal.
fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::Permanent(format!("job does not parse at line {}, column {}", error.line(), error.column()))
    })
}

/// Turns the facts of one call into rows. It remembers which transfer is under way, because
/// not every fact of a transfer names it. A call keeps the receivers that it began with.
#[derive(Debug)]
pub struct CallOutbox {
    config: Arc<FunctionsConfig>,
    dek: DataKey,
    transfer: Option<TransferId>,
    agent: Option<HumanAgentId>,
    revision: Option<u32>,
    /// The latest event: when it happened, and where the call takes its commands.
    at: Timestamp,
    commands: String,
    /// How often somebody looked at personal data of this call.
    accesses: u32,
}

/// Somebody looks at personal data of a running call.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Who, by an id that names no caller.
    pub actor: &'a str,
    /// As what.
    pub role: &'static str,
    /// At what.
    pub object: &'static str,
    /// When.
    pub at: Timestamp,
}

impl CallOutbox {
    /// An outbox for a new call, with the call's data key.
    pub const fn new(config: Arc<FunctionsConfig>, dek: DataKey) -> Self {
        Self {
            config,
            dek,
            transfer: None,
            agent: None,
            revision: None,
            at: Timestamp::from_unix_millis(0),
            commands: String::new(),
            accesses: 0,
        }
    }

    /// The call's data key.
    pub const fn key(&self) -> &DataKey {
        &self.dek
    }

    /// The rows of one event: its audit entry, its copy for the policy where it can trigger,
    /// its webhooks, and the payload where the edge built one. `nonce` is random, one per
    /// event.
    pub fn rows(&mut self, event: &CallEvent, nonce: [u8; NONCE_LEN]) -> Result<Vec<Row>, PortError> {
        self.at = event.time;
        self.commands.clone_from(&event.commands);
        self.remember(&event.fact);
        let mut rows = vec![Row::Send(Outgoing::audit(&entry_of(event, &self.dek, nonce))?)];
        if event.evaluable.is_some() {
            rows.push(Row::Send(Outgoing::to(SIGNALS, &event.call, bounded_json(event))));
        }
        if let Some(kind) = webhook_of(event) {
            rows.extend(self.life(event, kind));
        }
        if let Fact::PayloadBuilt { payload_id, revision, canonical: Some(bytes), .. } = &event.fact {
            rows.push(Row::Payload(StoredPayload {
                tenant: event.tenant.clone(),
                call: event.call.clone(),
                payload: payload_id.clone(),
                revision: *revision,
                bytes: bytes.expose().clone(),
            }));
        }
        Ok(rows)
    }

    /// The row of a decision that the edge took itself, behind the rows of the event `seq`
    /// that records it.
    pub fn decision(&self, evaluable: &Evaluable, decision: &Decision, seq: u64) -> Row {
        let job = DecisionJob {
            version: JOB_VERSION,
            tenant: self.config.tenant.clone(),
            edge: self.config.edge.clone(),
            commands: self.commands.clone(),
            seq,
            at: self.at,
            decision: decision.clone(),
            context: evaluable.context.clone(),
        };
        Row::Send(job.outgoing())
    }

    /// The entry of an access. Each is a job of its own, because the edge's numbers are those
    /// of its events.
    pub fn accessed(&mut self, call: &CallId, access: Access<'_>) -> Result<Row, PortError> {
        self.accesses = self.accesses.saturating_add(1);
        let Access { actor, role, object, at } = access;
        let entry = AuditEntry {
            tenant: self.config.tenant.clone(),
            chain: ChainId::of(call),
            producer: ProducerId::job("api", &format!("{call}:access"), self.accesses),
            pseq: 0,
            kind: "record.accessed".to_owned(),
            occurred_at: at,
            actor: Actor::system("api"),
            // Nobody sees a part only: `fields` names everything.
            body: json!({"actor": actor, "role": role, "purpose": "transfer", "object": object,
                "fields": ["*"]}),
            sealed: None,
            refs: None,
        };
        Outgoing::audit(&AuditMessage::plain(entry)).map(Row::Send)
    }

    fn remember(&mut self, fact: &Fact) {
        if let Fact::TransferDecided { decision, .. } = fact {
            self.transfer = Some(decision.transfer_id.clone());
            self.agent = None;
            self.revision = None;
        }
        if let Fact::AgentAccepted { agent_id, revision, .. } = fact {
            self.agent = Some(agent_id.clone());
            self.revision = Some(*revision);
        }
    }

    /// The messages of the transfer's life, one per destination that wants them. They carry
    /// ids only, whatever the destination is trusted with.
    fn life(&self, event: &CallEvent, kind: WebhookKind) -> Vec<Row> {
        let about_call = kind == WebhookKind::CallClosed;
        let transfer = self.transfer.as_ref().filter(|_| !about_call);
        if transfer.is_none() && !about_call {
            // A fallback without a transfer under way has no subject.
            return Vec::new();
        }
        let mut data = json!({"tenant_id": event.tenant, "call_id": event.call});
        if let (Some(transfer), Some(members)) = (transfer, data.as_object_mut()) {
            members.insert("transfer_id".to_owned(), json!(transfer));
            members.insert("payload_id".to_owned(), json!(PayloadId::of(transfer)));
            members.insert("pop_url".to_owned(), json!(pop_url(&self.config.public_url, transfer)));
            if let Some(agent) = &self.agent {
                members.insert("agent_id".to_owned(), json!(agent));
            }
            if let Some(revision) = self.revision {
                members.insert("revision".to_owned(), json!(revision));
            }
            members.extend(particulars(&event.fact));
        }
        let message = Message {
            tenant: &event.tenant,
            kind,
            subject: transfer.map_or(event.call.as_str(), TransferId::as_str),
            sequence: event.seq,
            time: event.time,
            revision: self.revision.filter(|_| !about_call),
            schema: DataSchema::Thin,
            data,
        };
        let message_id = message.id();
        let body = String::from_utf8_lossy(&message.body()).into_owned();
        let wanting = self.config.destinations.iter().filter(|destination| destination.wants(kind));
        wanting
            .map(|destination| {
                let job = WebhookJob {
                    version: JOB_VERSION,
                    tenant: event.tenant.clone(),
                    edge: event.edge.clone(),
                    commands: event.commands.clone(),
                    call: event.call.clone(),
                    transfer: transfer.cloned(),
                    revision: None,
                    message_id: message_id.clone(),
                    kind,
                    destination: destination.id.clone(),
                    lane: Lane::of(kind),
                    body: body.clone(),
                };
                Row::Send(job.outgoing())
            })
            .collect()
    }
}

/// What a message says beside the ids of its transfer: by references, never in words.
fn particulars(fact: &Fact) -> Map<String, Value> {
    let mut members = Map::new();
    if let Fact::VoicemailLeft { leg, from_ms, to_ms, ended_by, .. } = fact {
        let recording = json!({"leg": leg, "from_ms": from_ms, "to_ms": to_ms, "ended_by": ended_by});
        members.insert("recording".to_owned(), recording);
    }
    if let Fact::CallbackRequested { callback_id, .. } = fact {
        members.insert("callback_id".to_owned(), json!(callback_id));
    }
    if let Fact::FallbackChosen { kind, .. } = fact {
        members.insert("fallback".to_owned(), json!(kind));
    }
    members
}

/// The page of a transfer: a place to look it up, not a capability.
pub fn pop_url(public_url: &str, transfer: &TransferId) -> String {
    format!("{}/desktop/?transfer={transfer}", public_url.trim_end_matches('/'))
}

/// The event as it is published; without its context where that would not fit a message.
fn bounded_json(event: &CallEvent) -> Vec<u8> {
    let json = event.to_json();
    if json.len() <= EVENT_LEN_MAX {
        return json;
    }
    let mut event = event.clone();
    if let Some(evaluable) = &mut event.evaluable {
        evaluable.context = None;
    }
    event.to_json()
}

#[cfg(test)]
mod tests {
    use handoff::call::outcome::FallbackTaken;
    use handoff::event::{Means, MessageEnd};
    use handoff::id::{CallbackId, LegId, QueueId};
    use handoff::pii::Pii;
    use handoff::policy::{Category, Origin, Trigger};
    use handoff::seal::SealKey;
    use serde_json::Value;

    use super::*;
    use crate::ports::AUDIT;
    use crate::testing::{WORDS, asked, call, config, destination, event, transfer};

    fn outbox() -> CallOutbox {
        let dek = DataKey { id: "dek-1".to_owned(), key: SealKey::new([1; 32]) };
        CallOutbox::new(Arc::new(config(vec![destination("crm")])), dek)
    }

    fn sent(rows: &[Row]) -> Vec<Outgoing> {
        rows.iter()
            .filter_map(|row| match row {
                Row::Send(message) => Some(message.clone()),
                Row::Payload(_) | Row::Key { .. } => None,
            })
            .collect()
    }

    fn queues(rows: &[Row]) -> Vec<String> {
        sent(rows).into_iter().map(|message| message.queue).collect()
    }

    fn decided() -> Fact {
        let decision = Decision {
            decision_id: handoff::id::DecisionId::of(&transfer()),
            transfer_id: transfer(),
            call_id: call(),
            trigger: Trigger {
                category: Category::Topic,
                rule_id: "r1".to_owned(),
                evidence: String::new(),
                mandatory: false,
                waives_waits: false,
                also: Vec::new(),
            },
            policy_version: "1".to_owned(),
            origin: Origin::EdgeFallback,
        };
        Fact::TransferDecided {
            decision,
            queue: QueueId::parse("nurses").unwrap(),
            disclosed: true,
            mode: handoff::event::Mode::Warm,
        }
    }

    #[test]
    fn what_was_said_goes_to_the_policy_and_sealed_to_the_ledger() {
        let rows = outbox().rows(&asked(3), [0; NONCE_LEN]).unwrap();
        assert_eq!(queues(&rows), [AUDIT, SIGNALS]);
        assert!(!String::from_utf8_lossy(&sent(&rows)[0].body).contains(WORDS));
        let published = CallEvent::from_json(&sent(&rows)[1].body).unwrap();
        assert_eq!(published, asked(3));
    }

    #[test]
    fn the_life_of_a_transfer_names_it_even_where_the_fact_does_not() {
        let mut outbox = outbox();
        let accepted = Fact::AgentAccepted {
            agent_id: HumanAgentId::parse("agent_anna").unwrap(),
            leg: LegId(2),
            method: Means::Ui,
            revision: 2,
        };
        let fallback = Fact::FallbackChosen {
            kind: FallbackTaken::Closing,
            reason: "no_answer".to_owned(),
            queue: None,
        };
        assert_eq!(queues(&outbox.rows(&event(0, fallback.clone()), [0; NONCE_LEN]).unwrap()), [AUDIT]);
        assert_eq!(
            queues(&outbox.rows(&event(1, decided()), [0; NONCE_LEN]).unwrap()),
            [AUDIT, WEBHOOKS_DURABLE]
        );
        let rows = outbox.rows(&event(2, accepted), [0; NONCE_LEN]).unwrap();
        assert_eq!(queues(&rows), [AUDIT, WEBHOOKS_LIVE]);
        let job = WebhookJob::from_json(&sent(&rows)[1].body).unwrap();
        let body: Value = serde_json::from_str(&job.body).unwrap();
        assert_eq!(body["subject"], transfer().as_str());
        assert_eq!(body["data"]["agent_id"], "agent_anna");
        assert_eq!(body["data"]["revision"], 2);
        assert_eq!(body["id"], job.message_id.as_str());
        let rows = outbox.rows(&event(3, fallback), [0; NONCE_LEN]).unwrap();
        assert_eq!(queues(&rows), [AUDIT, WEBHOOKS_DURABLE]);
        let ended = Fact::CallEnded { cause: "normal".to_owned(), side: "caller".to_owned() };
        let rows = outbox.rows(&event(4, ended), [0; NONCE_LEN]).unwrap();
        let job = WebhookJob::from_json(&sent(&rows)[1].body).unwrap();
        let body: Value = serde_json::from_str(&job.body).unwrap();
        assert_eq!((body["subject"].as_str(), body["data"].get("transfer_id")), (Some("call_0001"), None));
    }

    #[test]
    fn what_a_caller_left_behind_is_named_by_references_in_a_durable_message() {
        let mut outbox = outbox();
        outbox.rows(&event(1, decided()), [0; NONCE_LEN]).unwrap();
        let left = Fact::VoicemailLeft {
            transfer_id: transfer(),
            leg: LegId::CALLER,
            from_ms: 61_000,
            to_ms: 73_500,
            ended_by: MessageEnd::Pause,
        };
        let wanted =
            Fact::CallbackRequested { transfer_id: transfer(), callback_id: CallbackId::of(&transfer()) };
        for (seq, fact, member, value) in [
            (
                2,
                left,
                "recording",
                json!({"leg": 0, "from_ms": 61_000, "to_ms": 73_500, "ended_by": "pause"}),
            ),
            (3, wanted, "callback_id", json!(CallbackId::of(&transfer()))),
        ] {
            let rows = outbox.rows(&event(seq, fact), [0; NONCE_LEN]).unwrap();
            assert_eq!(queues(&rows), [AUDIT, WEBHOOKS_DURABLE]);
            let job = WebhookJob::from_json(&sent(&rows)[1].body).unwrap();
            let body: Value = serde_json::from_str(&job.body).unwrap();
            assert_eq!(body["data"][member], value);
            assert_eq!(body["subject"], transfer().as_str());
        }
    }

    #[test]
    fn a_retried_event_makes_the_same_rows() {
        let rows = |seq| sent(&outbox().rows(&event(seq, decided()), [7; NONCE_LEN]).unwrap());
        assert_eq!(rows(5), rows(5));
        assert_ne!(rows(5), rows(6));
    }

    #[test]
    fn a_payload_of_the_edge_is_stored_and_a_decision_of_the_edge_is_published() {
        let payload = PayloadId::of(&transfer());
        let built = Fact::PayloadBuilt {
            payload_id: payload.clone(),
            revision: 1,
            generator: "template_fallback".to_owned(),
            completeness_pm: 0,
            canonical: Some(Pii::new(b"{}".to_vec())),
        };
        let rows = outbox().rows(&event(5, built), [0; NONCE_LEN]).unwrap();
        assert!(
            rows.iter().any(|row| matches!(row, Row::Payload(p) if p.payload == payload && p.revision == 1))
        );
        let event = asked(6);
        let mut outbox = outbox();
        outbox.rows(&event, [0; NONCE_LEN]).unwrap();
        let Fact::TransferDecided { decision, .. } = decided() else { panic!("a decision") };
        let row = outbox.decision(event.evaluable.as_deref().unwrap(), &decision, 6);
        let job = DecisionJob::from_json(&sent(&[row])[0].body).unwrap();
        assert_eq!((job.seq, job.at, job.context.is_some()), (6, event.time, true));
    }

    #[test]
    fn every_access_is_an_entry_of_its_own() {
        let mut outbox = outbox();
        let access = Access {
            actor: "agent_anna",
            role: "agent",
            object: "payload",
            at: Timestamp::from_unix_millis(1),
        };
        let rows = [outbox.accessed(&call(), access).unwrap(), outbox.accessed(&call(), access).unwrap()];
        let entries: Vec<AuditEntry> =
            sent(&rows).iter().map(|m| AuditMessage::from_json(&m.body).unwrap().entry).collect();
        assert_eq!(entries[0].kind, "record.accessed");
        for member in ["actor", "role", "purpose", "object", "fields"] {
            assert!(entries[0].body.get(member).is_some(), "the verifier wants `{member}`");
        }
        assert_eq!(entries[0].body["actor"], "agent_anna");
        assert_ne!(entries[0].producer, entries[1].producer);
    }

    #[test]
    fn an_event_too_large_for_a_message_goes_without_its_context() {
        let mut event = asked(3);
        if let Some(context) = event.evaluable.as_mut().and_then(|evaluable| evaluable.context.as_mut()) {
            let turn = context.turns[0].clone();
            context.turns = vec![turn; 4_000];
        }
        let rows = outbox().rows(&event, [0; NONCE_LEN]).unwrap();
        let published = CallEvent::from_json(&sent(&rows)[1].body).unwrap();
        assert_eq!(published.evaluable.unwrap().context, None);
    }
}
