//! The JSON form of a [`CallEvent`]: CloudEvents 1.0, structured mode, with the `sequence`
//! extension. `data` is a closed, versioned type: a version that is not known here is
//! refused, never guessed. Errors name a place in the text, never the text itself.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{CallEvent, Evaluable, Fact, WebhookKind};
use crate::call::outcome::Outcome;
use crate::clock::Timestamp;
use crate::id::{CallId, EdgeId, TenantId};

/// The version of `data` that is written. Every version ever published stays readable.
pub const DATA_VERSION: u32 = 1;

/// Longest event that is read, in bytes: a full snapshot with its context, and below the
/// 256 KiB that every message queue carries.
pub const EVENT_LEN_MAX: usize = 240 * 1024;

/// The text is not an event of this product.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// Longer than [`EVENT_LEN_MAX`].
    #[error("event of {0} bytes is longer than any that is written")]
    TooLong(usize),
    /// Not the JSON that is expected; the place is all that is said, the text may be personal.
    #[error("event does not parse at line {line}, column {column}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The envelope is from another standard or version.
    #[error("event is not CloudEvents 1.0 with data version {DATA_VERSION}")]
    UnknownVersion,
    /// Two members of the envelope contradict each other.
    #[error("event member `{0}` contradicts the rest of the event")]
    Inconsistent(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    specversion: Cow<'a, str>,
    id: String,
    source: EdgeId,
    subject: CallId,
    #[serde(rename = "type")]
    kind: String,
    time: Timestamp,
    datacontenttype: Cow<'a, str>,
    sequence: String,
    data: Data<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data<'a> {
    version: u32,
    tenant: TenantId,
    mono_us: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    commands: String,
    fact: Cow<'a, Fact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evaluable: Option<Cow<'a, Evaluable>>,
}

impl CallEvent {
    /// The CloudEvents `id`: `{call}:{seq}`.
    pub fn id(&self) -> String {
        format!("{}:{}", self.call, self.seq)
    }

    /// The bytes that cross the queue.
    pub fn to_json(&self) -> Vec<u8> {
        let envelope = Envelope {
            specversion: Cow::Borrowed(SPEC_VERSION),
            id: self.id(),
            source: self.edge.clone(),
            subject: self.call.clone(),
            kind: cloud_type(&self.fact),
            time: self.time,
            datacontenttype: Cow::Borrowed(CONTENT_TYPE),
            sequence: sequence_text(self.seq),
            data: Data {
                version: DATA_VERSION,
                tenant: self.tenant.clone(),
                mono_us: self.mono_us,
                commands: self.commands.clone(),
                fact: Cow::Borrowed(&self.fact),
                evaluable: self.evaluable.as_deref().map(Cow::Borrowed),
            },
        };
        // Text, integers and lists only: there is nothing in these types that can fail.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }

    /// Reads what [`CallEvent::to_json`] wrote, and nothing else.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BadEvent> {
        if bytes.len() > EVENT_LEN_MAX {
            return Err(BadEvent::TooLong(bytes.len()));
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)
            .map_err(|error| BadEvent::Malformed { line: error.line(), column: error.column() })?;
        if envelope.specversion != SPEC_VERSION || envelope.data.version != DATA_VERSION {
            return Err(BadEvent::UnknownVersion);
        }
        let seq = envelope.sequence.parse().map_err(|_| BadEvent::Inconsistent("sequence"))?;
        let event = Self {
            edge: envelope.source,
            tenant: envelope.data.tenant,
            call: envelope.subject,
            seq,
            time: envelope.time,
            mono_us: envelope.data.mono_us,
            commands: envelope.data.commands,
            fact: envelope.data.fact.into_owned(),
            evaluable: envelope.data.evaluable.map(|evaluable| Box::new(evaluable.into_owned())),
        };
        if envelope.id != event.id() {
            return Err(BadEvent::Inconsistent("id"));
        }
        if envelope.kind != cloud_type(&event.fact) {
            return Err(BadEvent::Inconsistent("type"));
        }
        if envelope.sequence != sequence_text(seq) {
            return Err(BadEvent::Inconsistent("sequence"));
        }
        Ok(event)
    }
}

impl Fact {
    /// The audit record's `type`, which is also the serialised tag.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::CallReceived { .. } => "call.received",
            Self::DisclosureAi(_) => "disclosure.ai_identity",
            Self::RecordingConsent { .. } => "consent.recording",
            Self::RecordingStarted { .. } => "recording.started",
            Self::RecordingStopped { .. } => "recording.stopped",
            Self::RecordingPaused { .. } => "recording.paused",
            Self::RecordingResumed { .. } => "recording.resumed",
            Self::RecordingStored { .. } => "recording.stored",
            Self::SignalReceived { .. } => "signal.received",
            Self::Utterance { .. } => "utterance.ref",
            Self::TriggerEvaluated { .. } => "trigger.evaluated",
            Self::TransferDecided { .. } => "transfer.decided",
            Self::TransitionPlayed { .. } => "transition.played",
            Self::HoldStarted { .. } => "hold.started",
            Self::HoldEnded { .. } => "hold.ended",
            Self::PayloadBuilt { .. } => "payload.built",
            Self::AgentOffered { .. } => "agent.offered",
            Self::AgentRinging { .. } => "agent.ringing",
            Self::AgentAnswered { .. } => "agent.answered",
            Self::AgentDeclined { .. } => "agent.declined",
            Self::AgentNoAnswer { .. } => "agent.no_answer",
            Self::ScreenpopAcked { .. } => "screenpop.acked",
            Self::WhisperStarted { .. } => "whisper.started",
            Self::WhisperEnded { .. } => "whisper.ended",
            Self::AgentAccepted { .. } => "agent.accepted",
            Self::BridgeCompleted { .. } => "bridge.completed",
            Self::VoiceAgentReleased { .. } => "ai.released",
            Self::CallerAbandoned { .. } => "caller.abandoned",
            Self::MediaProof { .. } => "media.proof",
            Self::TransferEnded { .. } => "transfer.ended",
            Self::LegOpened { .. } => "leg.opened",
            Self::LegClosed { .. } => "leg.closed",
            Self::CallEnded { .. } => "call.ended",
            Self::CommandRejected { .. } => "command.rejected",
            Self::FallbackChosen { .. } => "fallback.taken",
            Self::VoicemailLeft { .. } => "voicemail.left",
            Self::CallbackRequested { .. } => "callback.requested",
            Self::ProducerFinal { .. } => "producer.final",
        }
    }
}

/// The webhook that a fact of the edge causes, if any. `offered` and `payload.revised` are
/// missing on purpose: whoever builds a payload announces it. A transfer that bridged has
/// been announced by `bridged`, one that the caller left by `abandoned`; only the other
/// endings make a `failed`.
pub const fn webhook_of(event: &CallEvent) -> Option<WebhookKind> {
    match &event.fact {
        Fact::TransferDecided { .. } => Some(WebhookKind::Decided),
        Fact::AgentAccepted { .. } => Some(WebhookKind::Accepted),
        Fact::BridgeCompleted { .. } => Some(WebhookKind::Bridged),
        Fact::CallerAbandoned { .. } => Some(WebhookKind::Abandoned),
        Fact::FallbackChosen { .. } => Some(WebhookKind::Fallback),
        Fact::VoicemailLeft { .. } => Some(WebhookKind::VoicemailLeft),
        Fact::CallbackRequested { .. } => Some(WebhookKind::CallbackRequested),
        Fact::CallEnded { .. } => Some(WebhookKind::CallClosed),
        Fact::TransferEnded { outcome, .. } => match outcome {
            Outcome::Completed | Outcome::CompletedDegraded { .. } | Outcome::AbandonedByCaller { .. } => {
                None
            }
            Outcome::NoAnswer
            | Outcome::Busy
            | Outcome::Declined
            | Outcome::Voicemail
            | Outcome::AgentLost { .. }
            | Outcome::ReturnedToVoiceAgent
            | Outcome::CallbackScheduled
            | Outcome::Cancelled
            | Outcome::Failed { .. } => Some(WebhookKind::Failed),
        },
        Fact::CallReceived { .. }
        | Fact::DisclosureAi(_)
        | Fact::RecordingConsent { .. }
        | Fact::RecordingStarted { .. }
        | Fact::RecordingStopped { .. }
        | Fact::RecordingPaused { .. }
        | Fact::RecordingResumed { .. }
        | Fact::RecordingStored { .. }
        | Fact::SignalReceived { .. }
        | Fact::Utterance { .. }
        | Fact::TriggerEvaluated { .. }
        | Fact::TransitionPlayed { .. }
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
        | Fact::VoiceAgentReleased { .. }
        | Fact::MediaProof { .. }
        | Fact::LegOpened { .. }
        | Fact::LegClosed { .. }
        | Fact::CommandRejected { .. }
        | Fact::ProducerFinal { .. } => None,
    }
}

/// The `sequence` extension as text: zero-padded, so that text order is number order.
pub fn sequence_text(seq: u64) -> String {
    format!("{seq:020}")
}

fn cloud_type(fact: &Fact) -> String {
    format!("warmbridge.{}.v{DATA_VERSION}", fact.kind())
}

const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::outcome::{FailureCause, FallbackTaken, LegCause, Phase};
    use crate::conversation::{Snapshot, Stimulus};
    use crate::event::{MessageEnd, Played, Role};
    use crate::id::{CallbackId, LegId, QueueId, TransferId};
    use crate::pii::Pii;
    use crate::signal::Speaker;

    const GOLDEN_V1: &str = include_str!("../../tests/golden/call-event-1.json");

    fn event(fact: Fact) -> CallEvent {
        CallEvent {
            edge: EdgeId::parse("edge-1").unwrap(),
            tenant: TenantId::parse("t_acme").unwrap(),
            call: CallId::parse("call_0001").unwrap(),
            seq: 7,
            time: Timestamp::parse("2026-11-22T07:01:35.000Z").unwrap(),
            mono_us: 1_234_567,
            commands: String::new(),
            fact,
            evaluable: None,
        }
    }

    fn golden() -> CallEvent {
        let mut event = event(Fact::Utterance {
            segment: 3,
            speaker: Speaker::Caller,
            offset_ms: 4_200,
            text: Some(Pii::new("Quiero hablar con una persona, señorita".to_owned())),
        });
        event.evaluable = Some(Box::new(Evaluable {
            snapshot: Snapshot { elapsed_ms: 4_200, turns_caller: 2, ..Snapshot::default() },
            stimulus: Stimulus::Turn {
                speaker: Speaker::Caller,
                text: Pii::new("Quiero hablar con una persona, señorita".to_owned()),
            },
            transfer_id: TransferId::of(&event.call, 1),
            context: None,
        }));
        event
    }

    #[test]
    fn the_published_version_parses_and_is_written_byte_for_byte() {
        let golden_bytes = GOLDEN_V1.trim_end().as_bytes();
        assert_eq!(CallEvent::from_json(golden_bytes), Ok(golden()));
        assert_eq!(String::from_utf8(golden().to_json()).unwrap(), GOLDEN_V1.trim_end());
    }

    #[test]
    fn every_truncation_is_refused_and_none_panics() {
        let bytes = golden().to_json();
        for end in 0..bytes.len() {
            assert!(CallEvent::from_json(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn an_envelope_that_contradicts_itself_is_refused() {
        let text = String::from_utf8(golden().to_json()).unwrap();
        for (from, to, expected) in [
            ("call_0001:7", "call_0001:8", BadEvent::Inconsistent("id")),
            ("warmbridge.utterance.ref.v1", "warmbridge.call.ended.v1", BadEvent::Inconsistent("type")),
            ("00000000000000000007", "7", BadEvent::Inconsistent("sequence")),
            ("\"specversion\":\"1.0\"", "\"specversion\":\"0.3\"", BadEvent::UnknownVersion),
            ("\"version\":1", "\"version\":2", BadEvent::UnknownVersion),
        ] {
            assert_eq!(CallEvent::from_json(text.replace(from, to).as_bytes()), Err(expected), "{from}");
        }
    }

    #[test]
    fn an_unknown_member_is_refused() {
        let text = String::from_utf8(golden().to_json()).unwrap();
        let extra = text.replacen("{\"specversion\"", "{\"extra\":1,\"specversion\"", 1);
        assert!(matches!(CallEvent::from_json(extra.as_bytes()), Err(BadEvent::Malformed { .. })));
    }

    #[test]
    fn an_error_never_repeats_what_was_said() {
        let text = String::from_utf8(golden().to_json()).unwrap();
        let broken = text.replace("\"segment\":3", "\"segment\":\"Quiero\"");
        let error = CallEvent::from_json(broken.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("Quiero") && !format!("{error:?}").contains("Quiero"));
    }

    #[test]
    fn the_kind_is_the_serialised_tag() {
        let facts = [
            Fact::CallEnded { cause: "normal".into(), side: "caller".into() },
            Fact::ProducerFinal { count: 8 },
            Fact::LegClosed {
                leg: LegId(2),
                role: Role::HumanAgent,
                cause: LegCause::Busy,
                billed_ms: 0,
                quality: None,
            },
            Fact::DisclosureAi(Played {
                text_id: "d".into(),
                lang: "en".into(),
                played_pm: 1000,
                from_ms: 0,
                to_ms: 1,
            }),
            Fact::FallbackChosen { kind: FallbackTaken::Closing, reason: "no_answer".into(), queue: None },
            Fact::FallbackChosen {
                kind: FallbackTaken::Queue,
                reason: "busy".into(),
                queue: Some(QueueId::parse("front_desk").unwrap()),
            },
            Fact::VoicemailLeft {
                transfer_id: TransferId::parse("xfer_1").unwrap(),
                leg: LegId::CALLER,
                from_ms: 61_000,
                to_ms: 73_500,
                ended_by: MessageEnd::Pause,
            },
            Fact::CallbackRequested {
                transfer_id: TransferId::parse("xfer_1").unwrap(),
                callback_id: CallbackId::of(&TransferId::parse("xfer_1").unwrap()),
            },
        ];
        for fact in facts {
            let value = serde_json::to_value(&fact).unwrap();
            assert_eq!(value["type"], fact.kind());
            assert_eq!(CallEvent::from_json(&event(fact.clone()).to_json()).unwrap().fact, fact);
        }
    }

    #[test]
    fn only_endings_without_an_own_message_make_a_failed_webhook() {
        let ended = |outcome| {
            webhook_of(&event(Fact::TransferEnded {
                transfer_id: TransferId::of(&CallId::parse("call_0001").unwrap(), 1),
                outcome,
                fallback: FallbackTaken::None,
                skew_ms: None,
                class: "success".into(),
            }))
        };
        assert_eq!(ended(Outcome::Completed), None);
        assert_eq!(ended(Outcome::AbandonedByCaller { phase: Phase::Offering }), None);
        assert_eq!(ended(Outcome::NoAnswer), Some(WebhookKind::Failed));
        assert_eq!(
            ended(Outcome::Failed { cause: FailureCause::NobodyAvailable }),
            Some(WebhookKind::Failed)
        );
    }
}
