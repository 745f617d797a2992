//! From a fact of the edge to the entry that its chain records: the actor, the body without
//! personal data, the sealed text. What a person said leaves this file as ciphertext only.

use serde_json::{Map, Value, json};

use super::{Actor, ActorKind, AuditEntry, AuditMessage, ChainId, ProducerId, Refs, Sealed};
use crate::event::{CallEvent, Fact};
use crate::id::LegId;
use crate::seal::{DataKey, NONCE_LEN, place};
use crate::signal::Speaker;

/// The audit entry of `event`. `dek` is the call's data key; `nonce` is random and is used
/// only where the fact carries a text to seal.
pub fn entry_of(event: &CallEvent, dek: &DataKey, nonce: [u8; NONCE_LEN]) -> AuditMessage {
    let producer = ProducerId::edge(&event.edge);
    let ciphertext = text_of(&event.fact).map(|text| {
        let place = place(&event.tenant, event.call.as_str(), producer.as_str(), event.seq);
        dek.key.seal(nonce, &place, text.as_bytes())
    });
    let mut body = body_of(&event.fact);
    // Both clocks are in the record: the wall clock may be stepped, this one may not.
    body.insert("mono_us".to_owned(), json!(event.mono_us));
    let entry = AuditEntry {
        tenant: event.tenant.clone(),
        chain: ChainId::of(&event.call),
        producer,
        pseq: event.seq,
        kind: event.fact.kind().to_owned(),
        occurred_at: event.time,
        actor: actor_of(event),
        body: Value::Object(body),
        sealed: ciphertext.as_ref().map(|ct| Sealed::beside(&dek.id, ct)),
        refs: refs_of(&event.fact, dek),
    };
    AuditMessage { entry, ciphertext }
}

const fn text_of(fact: &Fact) -> Option<&String> {
    if let Fact::Utterance { text: Some(text), .. } = fact { Some(text.expose()) } else { None }
}

fn refs_of(fact: &Fact, dek: &DataKey) -> Option<Refs> {
    let Fact::PayloadBuilt { canonical: Some(bytes), .. } = fact else { return None };
    Some(Refs { payload_mac: Some(dek.key.payload_mac(bytes.expose())), ..Refs::default() })
}

/// The body as it is recorded. Most facts are recorded as they are; those that nest are laid
/// flat, so that every name that must be present is a member of the body itself.
fn body_of(fact: &Fact) -> Map<String, Value> {
    match fact {
        Fact::Utterance { segment, speaker, offset_ms, .. } => {
            object(json!({"segment": segment, "speaker": speaker, "offset_ms": offset_ms}))
        }
        Fact::TriggerEvaluated { trigger, ruleset, inputs } => {
            let mut body = object(json!(trigger));
            body.insert("ruleset".to_owned(), json!(ruleset));
            body.insert("inputs".to_owned(), json!(inputs));
            body.insert("result".to_owned(), json!("transfer"));
            body
        }
        Fact::TransferDecided { decision, queue, disclosed, mode } => {
            let mut body = object(json!({
            "transfer_id": decision.transfer_id,
            "decision_id": decision.decision_id,
            "trigger": decision.trigger.category,
            "rule_id": decision.trigger.rule_id,
            "evidence": decision.trigger.evidence,
            "mandatory": decision.trigger.mandatory,
            "waives_waits": decision.trigger.waives_waits,
            "also": decision.trigger.also,
            "origin": decision.origin,
            "policy_version": decision.policy_version,
            "target_id": queue,
            "disclosed": disclosed,
            }));
            if !mode.is_warm() {
                body.insert("mode".to_owned(), json!(mode));
            }
            body
        }
        Fact::TransitionPlayed { transfer_id, played, anchor_s } => {
            let mut body = object(json!(played));
            body.insert("transfer_id".to_owned(), json!(transfer_id));
            body.insert("anchor_s".to_owned(), json!(anchor_s));
            body
        }
        Fact::TransferEnded { transfer_id, outcome, fallback, skew_ms, class } => {
            let mut body = object(json!(outcome));
            let name = body.remove("name").unwrap_or_default();
            body.insert("outcome".to_owned(), name);
            body.insert("transfer_id".to_owned(), json!(transfer_id));
            body.insert("fallback".to_owned(), json!(fallback));
            body.insert("skew_ms".to_owned(), json!(skew_ms));
            body.insert("class".to_owned(), json!(class));
            body
        }
        Fact::RecordingStored { leg, recording } => {
            let mut body = object(json!(recording));
            body.insert("leg".to_owned(), json!(leg));
            body
        }
        Fact::CallReceived { .. }
        | Fact::DisclosureAi(_)
        | Fact::RecordingConsent { .. }
        | Fact::RecordingStarted { .. }
        | Fact::RecordingStopped { .. }
        | Fact::RecordingPaused { .. }
        | Fact::RecordingResumed { .. }
        | Fact::SignalReceived { .. }
        | Fact::HoldStarted { .. }
        | Fact::HoldEnded { .. }
        | Fact::PayloadBuilt { .. }
        | Fact::AgentOffered { .. }
        | Fact::AgentRinging { .. }
        | Fact::AgentAnswered { .. }
        | Fact::AgentDeclined { .. }
        | Fact::AgentNoAnswer { .. }
        | Fact::ScreenpopAcked { .. }
        | Fact::WhisperStarted { .. }
        | Fact::WhisperEnded { .. }
        | Fact::AgentAccepted { .. }
        | Fact::BridgeCompleted { .. }
        | Fact::VoiceAgentReleased { .. }
        | Fact::CallerAbandoned { .. }
        | Fact::MediaProof { .. }
        | Fact::LegOpened { .. }
        | Fact::LegClosed { .. }
        | Fact::CallEnded { .. }
        | Fact::CommandRejected { .. }
        | Fact::FallbackChosen { .. }
        | Fact::VoicemailLeft { .. }
        | Fact::CallbackRequested { .. }
        | Fact::ProducerFinal { .. } => {
            let mut tagged = object(json!(fact));
            tagged.remove("body").map(object).unwrap_or_default()
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(members) = value { members } else { Map::new() }
}

/// Who did what the fact says. What the edge does on its own account is the system's.
fn actor_of(event: &CallEvent) -> Actor {
    let leg = |kind, leg: LegId| Actor { kind, id: leg.to_string() };
    let caller = || leg(ActorKind::Caller, LegId::CALLER);
    let voice_agent = || leg(ActorKind::Ai, LegId::VOICE_AGENT);
    let edge = || Actor::system(event.edge.as_str());
    match &event.fact {
        Fact::CallReceived { .. }
        | Fact::CallerAbandoned { .. }
        | Fact::RecordingConsent { .. }
        | Fact::VoicemailLeft { .. }
        | Fact::CallbackRequested { .. } => caller(),
        Fact::SignalReceived { .. } => voice_agent(),
        Fact::Utterance { speaker, .. } => match speaker {
            Speaker::Caller => caller(),
            Speaker::Agent => voice_agent(),
            Speaker::Human => Actor { kind: ActorKind::Agent, id: "human".to_owned() },
            Speaker::System => edge(),
        },
        Fact::AgentAnswered { agent_id, .. }
        | Fact::AgentDeclined { agent_id, .. }
        | Fact::AgentAccepted { agent_id, .. }
        | Fact::ScreenpopAcked { agent_id, .. } => Actor { kind: ActorKind::Agent, id: agent_id.to_string() },
        Fact::CallEnded { side, .. } => match side.as_str() {
            "caller" => caller(),
            "voice_agent" => voice_agent(),
            "human_agent" => Actor { kind: ActorKind::Agent, id: "human".to_owned() },
            _ => edge(),
        },
        Fact::DisclosureAi(_)
        | Fact::RecordingStarted { .. }
        | Fact::RecordingStopped { .. }
        | Fact::RecordingPaused { .. }
        | Fact::RecordingResumed { .. }
        | Fact::RecordingStored { .. }
        | Fact::TriggerEvaluated { .. }
        | Fact::TransferDecided { .. }
        | Fact::TransitionPlayed { .. }
        | Fact::HoldStarted { .. }
        | Fact::HoldEnded { .. }
        | Fact::PayloadBuilt { .. }
        | Fact::AgentOffered { .. }
        | Fact::AgentRinging { .. }
        | Fact::AgentNoAnswer { .. }
        | Fact::WhisperStarted { .. }
        | Fact::WhisperEnded { .. }
        | Fact::BridgeCompleted { .. }
        | Fact::VoiceAgentReleased { .. }
        | Fact::MediaProof { .. }
        | Fact::TransferEnded { .. }
        | Fact::LegOpened { .. }
        | Fact::LegClosed { .. }
        | Fact::CommandRejected { .. }
        | Fact::FallbackChosen { .. }
        | Fact::ProducerFinal { .. } => edge(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::outcome::{FallbackTaken, Outcome, Phase};
    use crate::clock::Timestamp;
    use crate::event::Mode;
    use crate::id::{CallId, DecisionId, EdgeId, HumanAgentId, PayloadId, QueueId, TenantId, TransferId};
    use crate::pii::Pii;
    use crate::policy::{Category, Decision, Origin, Trigger};
    use crate::seal::SealKey;

    fn dek() -> DataKey {
        DataKey { id: "dek-1".to_owned(), key: SealKey::new([7; 32]) }
    }

    fn event(fact: Fact) -> CallEvent {
        CallEvent {
            edge: EdgeId::parse("edge-1").unwrap(),
            tenant: TenantId::parse("t_acme").unwrap(),
            call: CallId::parse("call_0001").unwrap(),
            seq: 7,
            time: Timestamp::from_unix_millis(0),
            mono_us: 55,
            commands: String::new(),
            fact,
            evaluable: None,
        }
    }

    #[test]
    fn what_was_said_is_recorded_as_ciphertext_only() {
        let text = "my number is 555-0142";
        let message = entry_of(
            &event(Fact::Utterance {
                segment: 0,
                speaker: Speaker::Caller,
                offset_ms: 5,
                text: Some(Pii::new(text.to_owned())),
            }),
            &dek(),
            [1; NONCE_LEN],
        );
        assert!(!String::from_utf8_lossy(&message.to_json()).contains("0142"));
        let place = place(&message.entry.tenant, "call_0001", "edge-1", 7);
        let opened = dek().key.open(&place, message.ciphertext.as_ref().unwrap()).unwrap();
        assert_eq!(opened.as_slice(), text.as_bytes());
        assert_eq!(AuditMessage::from_json(&message.to_json()), Ok(message));
    }

    #[test]
    fn a_decision_names_its_mode_where_it_is_not_the_usual_one() {
        let decided = |mode| {
            let transfer_id = TransferId::parse("xfer_1").unwrap();
            let trigger = Trigger {
                category: Category::Topic,
                rule_id: "r1".to_owned(),
                evidence: String::new(),
                mandatory: false,
                waives_waits: false,
                also: Vec::new(),
            };
            let decision = Decision {
                decision_id: DecisionId::of(&transfer_id),
                transfer_id,
                call_id: CallId::parse("call_0001").unwrap(),
                trigger,
                policy_version: "rules@0".to_owned(),
                origin: Origin::Function,
            };
            let queue = QueueId::parse("nurses").unwrap();
            let fact = Fact::TransferDecided { decision, queue, disclosed: true, mode };
            entry_of(&event(fact), &dek(), [1; NONCE_LEN]).entry.body["mode"].clone()
        };
        assert_eq!(decided(Mode::Cold), "cold");
        assert_eq!(decided(Mode::Warm), Value::Null);
    }

    #[test]
    fn a_payload_is_cited_by_its_keyed_digest() {
        let message = entry_of(
            &event(Fact::PayloadBuilt {
                payload_id: PayloadId::of(&TransferId::parse("xfer_1").unwrap()),
                revision: 1,
                generator: "template_fallback".into(),
                completeness_pm: 1000,
                canonical: Some(Pii::new(b"{}".to_vec())),
            }),
            &dek(),
            [1; NONCE_LEN],
        );
        assert_eq!(message.entry.refs.unwrap().payload_mac, Some(dek().key.payload_mac(b"{}")));
        assert_eq!(message.entry.body.get("canonical"), None);
    }

    #[test]
    fn actors_and_flat_bodies() {
        let accepted = entry_of(
            &event(Fact::WhisperStarted { agent_id: HumanAgentId::parse("agent_anna").unwrap() }),
            &dek(),
            [0; NONCE_LEN],
        );
        assert_eq!(accepted.entry.actor, Actor::system("edge-1"));
        let ended = entry_of(
            &event(Fact::TransferEnded {
                transfer_id: TransferId::parse("xfer_1").unwrap(),
                outcome: Outcome::AgentLost { phase: Phase::Briefing },
                fallback: FallbackTaken::Closing,
                skew_ms: None,
                class: "upstream_error".into(),
            }),
            &dek(),
            [0; NONCE_LEN],
        );
        assert_eq!(
            ended.entry.body,
            json!({
                "outcome": "agent_lost", "phase": "briefing", "transfer_id": "xfer_1", "fallback": "closing",
                "skew_ms": null, "class": "upstream_error", "mono_us": 55,
            })
        );
    }
}
