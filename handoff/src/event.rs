//! Facts of a call that cross the queue. [`Fact`] is closed and versioned; each is one
//! record of the call's audit chain, and `seq` is the producer's sequence number there.
//! [`CallEvent`] is the fact with its envelope (CloudEvents 1.0) and, where the fact can
//! trigger a transfer, the snapshot that makes evaluation stateless. A fact carries no
//! personal data except inside `Pii`, which the shell seals before the fact is stored.

mod codec;

use serde::{Deserialize, Serialize};

pub use codec::{BadEvent, DATA_VERSION, EVENT_LEN_MAX, sequence_text, webhook_of};

use crate::call::media::{Quality, Stretch};
use crate::call::outcome::{FallbackTaken, LegCause, Outcome};
use crate::clock::Timestamp;
use crate::conversation::{Context, Snapshot, Stimulus};
use crate::id::{
    CallId, CallbackId, DestinationId, EdgeId, HumanAgentId, LegId, PayloadId, QueueId, TenantId, TransferId,
};
use crate::pii::Pii;
use crate::policy::{Decision, Trigger};
use crate::signal::Speaker;

/// What a leg is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person who called.
    Caller,
    /// The machine that answered.
    VoiceAgent,
    /// A person to whom the call is offered.
    HumanAgent,
}

/// How much a person is told before the caller is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Briefed in private, with the facts on screen.
    #[default]
    Warm,
    /// Nothing: somebody says yes, and the caller is there. The records are the same, so that
    /// the two can be compared.
    Cold,
}

impl Mode {
    /// The name used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    /// It is the usual one, which records leave out.
    pub const fn is_warm(&self) -> bool {
        matches!(self, Self::Warm)
    }
}

/// How a human agent said yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// A key on the phone.
    Dtmf,
    /// A button on the desktop page.
    Ui,
    /// The HTTP API.
    Api,
    /// A fixed spoken word.
    Word,
    /// Answering the phone, where the policy says so.
    SipAnswer,
}

/// Which fixed text was played to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Played {
    /// Identifies the text and its version.
    pub text_id: String,
    /// BCP 47.
    pub lang: String,
    /// Share of the samples sent, per-mille: 1000 means heard whole.
    pub played_pm: u16,
    /// Start, since the caller was answered.
    pub from_ms: u64,
    /// End, since the caller was answered.
    pub to_ms: u64,
}

/// Why an offer to a human agent ended without an accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// The agent pressed decline.
    Declined,
    /// Busy or unavailable.
    Busy,
    /// The person says that it belongs to another team.
    WrongTeam,
    /// Answered, but nobody accepted in time: a voicemail, or a person who walked away.
    NeverAccepted,
    /// Lost after the answer.
    Lost,
}

/// What ended a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageEnd {
    /// A key of the caller.
    Key,
    /// Nothing more was said.
    Pause,
    /// The call ended.
    HangUp,
    /// It had lasted as long as any may.
    Limit,
}

/// The recording of one leg as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRecording {
    /// Sealed files, numbered from 0 without a gap.
    pub pieces: u32,
    /// Audio in them.
    pub duration_ms: u64,
    /// Audio that could not be written.
    pub lost_ms: u64,
    /// SHA-256 of the files one after the other, hexadecimal. It covers ciphertext, so it says
    /// nothing once the call's key is destroyed.
    pub sha256: String,
}

/// Everything that can be recorded of a call by the edge. The serialised tag is the audit
/// record's `type`; the fields are its body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "body", deny_unknown_fields)]
pub enum Fact {
    /// An INVITE was accepted from a trunk.
    #[serde(rename = "call.received")]
    CallReceived {
        /// Configured name of the trunk.
        trunk: String,
        /// Pseudonym of the caller's number (keyed, see `audit`), where there is one.
        caller_tag: Option<String>,
        /// `inbound`.
        direction: String,
        /// Type of call, for routing rules, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call_type: Option<String>,
    },
    /// The AI disclosure ended, whole or cut.
    #[serde(rename = "disclosure.ai_identity")]
    DisclosureAi(Played),
    /// The recording consent as it stands.
    #[serde(rename = "consent.recording")]
    RecordingConsent {
        /// `affirmative`, `implied_by_continuing`, `refused`, `not_asked`.
        value: String,
        /// `disclosure`, `voice_agent`.
        method: String,
        /// Since the caller was answered.
        at_ms: u64,
    },
    /// A recording of a leg began.
    #[serde(rename = "recording.started")]
    RecordingStarted {
        /// Which leg.
        leg: LegId,
        /// Since the caller was answered.
        offset_ms: u64,
    },
    /// A recording of a leg ended.
    #[serde(rename = "recording.stopped")]
    RecordingStopped {
        /// Which leg.
        leg: LegId,
        /// Since the caller was answered.
        offset_ms: u64,
    },
    /// A recording of a leg is interrupted: nothing of the span is kept.
    #[serde(rename = "recording.paused")]
    RecordingPaused {
        /// Which leg.
        leg: LegId,
        /// `payment`.
        reason: String,
        /// Since the caller was answered.
        offset_ms: u64,
    },
    /// A recording of a leg goes on.
    #[serde(rename = "recording.resumed")]
    RecordingResumed {
        /// Which leg.
        leg: LegId,
        /// Since the caller was answered.
        offset_ms: u64,
    },
    /// A recording of a leg lies on disk, sealed and complete.
    #[serde(rename = "recording.stored")]
    RecordingStored {
        /// Which leg.
        leg: LegId,
        /// What lies there.
        recording: StoredRecording,
    },
    /// The voice agent sent a signal other than a turn.
    #[serde(rename = "signal.received")]
    SignalReceived {
        /// The signal's id.
        id: String,
        /// Its type.
        kind: String,
        /// Names and numbers only.
        values: Vec<(String, i64)>,
    },
    /// Somebody finished a turn. `text` is sealed before it is stored.
    #[serde(rename = "utterance.ref")]
    Utterance {
        /// Segment number.
        segment: u32,
        /// Who.
        speaker: Speaker,
        /// Since the caller was answered.
        offset_ms: u64,
        /// What; absent where recording consent was refused.
        text: Option<Pii<String>>,
    },
    /// The edge evaluated the policy itself and a rule fired.
    #[serde(rename = "trigger.evaluated")]
    TriggerEvaluated {
        /// What fired.
        trigger: Trigger,
        /// Version of the rules.
        ruleset: String,
        /// Inputs in per-mille.
        inputs: Vec<(String, i64)>,
    },
    /// The edge adopted a decision. Exactly one per transfer.
    #[serde(rename = "transfer.decided")]
    TransferDecided {
        /// The decision.
        decision: Decision,
        /// The queue it goes to.
        queue: QueueId,
        /// The disclosure was heard whole before this.
        disclosed: bool,
        /// What the people of the queue are told; left out where it is the usual.
        #[serde(default, skip_serializing_if = "Mode::is_warm")]
        mode: Mode,
    },
    /// The transition message ended.
    #[serde(rename = "transition.played")]
    TransitionPlayed {
        /// Which transfer.
        transfer_id: TransferId,
        /// What was played.
        played: Played,
        /// The time that it named, in seconds.
        anchor_s: u32,
    },
    /// A leg is on the hold bridge.
    #[serde(rename = "hold.started")]
    HoldStarted {
        /// Which leg.
        leg: LegId,
        /// `transfer`.
        reason: String,
    },
    /// A leg left the hold bridge.
    #[serde(rename = "hold.ended")]
    HoldEnded {
        /// Which leg.
        leg: LegId,
        /// `bridged`, `returned`, `ended`, `fallback`.
        reason: String,
    },
    /// The edge built a payload revision (the template).
    #[serde(rename = "payload.built")]
    PayloadBuilt {
        /// Per transfer.
        payload_id: PayloadId,
        /// From 1.
        revision: u32,
        /// `template_fallback`.
        generator: String,
        /// Required fields present, per-mille.
        completeness_pm: u16,
        /// The canonical bytes, for `refs.payload_mac`; never stored in the record itself.
        #[serde(skip)]
        canonical: Option<Pii<Vec<u8>>>,
    },
    /// An offer went to a human agent: desktop first, then the phone.
    #[serde(rename = "agent.offered")]
    AgentOffered {
        /// Who.
        agent_id: HumanAgentId,
        /// From 1 within the transfer.
        attempt: u32,
        /// The leg that will ring.
        leg: LegId,
    },
    /// The phone rings.
    #[serde(rename = "agent.ringing")]
    AgentRinging {
        /// Who.
        agent_id: HumanAgentId,
        /// Which attempt.
        attempt: u32,
    },
    /// The phone was answered; that may be a voicemail.
    #[serde(rename = "agent.answered")]
    AgentAnswered {
        /// Who.
        agent_id: HumanAgentId,
        /// Which attempt.
        attempt: u32,
        /// The leg.
        leg: LegId,
    },
    /// The offer was refused.
    #[serde(rename = "agent.declined")]
    AgentDeclined {
        /// Who.
        agent_id: HumanAgentId,
        /// Which attempt.
        attempt: u32,
        /// Why.
        reason: DeclineReason,
        /// The SIP status, where there was one.
        status: Option<u16>,
    },
    /// The ring timer expired.
    #[serde(rename = "agent.no_answer")]
    AgentNoAnswer {
        /// Who.
        agent_id: HumanAgentId,
        /// Which attempt.
        attempt: u32,
    },
    /// A desktop (or the queue's named destination) has the payload on screen.
    #[serde(rename = "screenpop.acked")]
    ScreenpopAcked {
        /// `desktop`, or the destination that the queue names.
        destination: String,
        /// Who sees it.
        agent_id: HumanAgentId,
        /// Which revision.
        revision: u32,
    },
    /// The whisper began.
    #[serde(rename = "whisper.started")]
    WhisperStarted {
        /// Who hears it.
        agent_id: HumanAgentId,
    },
    /// The whisper ended or was skipped by the human agent.
    #[serde(rename = "whisper.ended")]
    WhisperEnded {
        /// Who heard it.
        agent_id: HumanAgentId,
        /// Share of the samples sent, per-mille.
        played_pm: u16,
    },
    /// A person accepted. The only evidence on which a bridge is made.
    #[serde(rename = "agent.accepted")]
    AgentAccepted {
        /// Who.
        agent_id: HumanAgentId,
        /// On which leg.
        leg: LegId,
        /// How.
        method: Means,
        /// The payload revision frozen by this.
        revision: u32,
    },
    /// Caller and human agent are connected.
    #[serde(rename = "bridge.completed")]
    BridgeCompleted {
        /// Which transfer.
        transfer_id: TransferId,
        /// Why the transfer counts as degraded, if it does.
        degraded: Option<String>,
    },
    /// The voice agent left the call.
    #[serde(rename = "ai.released")]
    VoiceAgentReleased {
        /// Which transfer, where one is the reason.
        transfer_id: Option<TransferId>,
        /// `bridged`, `lost`, `ended`.
        reason: String,
    },
    /// The caller left before the bridge.
    #[serde(rename = "caller.abandoned")]
    CallerAbandoned {
        /// Which transfer.
        transfer_id: TransferId,
        /// In which phase.
        phase: String,
    },
    /// What the caller's egress sent from the transition message to the human's first word, as
    /// the media plane measured it. Before the end of a transfer in which anything was sent.
    #[serde(rename = "media.proof")]
    MediaProof {
        /// Of which transfer.
        transfer_id: TransferId,
        /// What was measured.
        #[serde(flatten)]
        stretch: Stretch,
    },
    /// A transfer ended. Exactly one per transfer.
    #[serde(rename = "transfer.ended")]
    TransferEnded {
        /// Which.
        transfer_id: TransferId,
        /// How.
        outcome: Outcome,
        /// Where the caller went.
        fallback: FallbackTaken,
        /// |first audio of the human − acknowledgement of the frozen payload|, once bridged.
        skew_ms: Option<u64>,
        /// Whose doing: the class of the outcome.
        class: String,
    },
    /// A leg was opened.
    #[serde(rename = "leg.opened")]
    LegOpened {
        /// Which.
        leg: LegId,
        /// What for.
        role: Role,
    },
    /// A leg was closed. Exactly one per leg opened.
    #[serde(rename = "leg.closed")]
    LegClosed {
        /// Which.
        leg: LegId,
        /// What for.
        role: Role,
        /// Why.
        cause: LegCause,
        /// From answer to end.
        billed_ms: u64,
        /// How well it was heard; of a leg that was up for some seconds.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        quality: Option<Quality>,
    },
    /// The call ended.
    #[serde(rename = "call.ended")]
    CallEnded {
        /// `normal`, `failed`, `drained`.
        cause: String,
        /// `caller`, `human_agent`, `voice_agent`, `system`.
        side: String,
    },
    /// A command was stale or unknown and had no effect.
    #[serde(rename = "command.rejected")]
    CommandRejected {
        /// The command's id.
        id: String,
        /// Why.
        reason: String,
    },
    /// The caller was sent somewhere else because nobody took the call.
    #[serde(rename = "fallback.taken")]
    FallbackChosen {
        /// Where.
        kind: FallbackTaken,
        /// Why.
        reason: String,
        /// Which queue, where it is another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<QueueId>,
    },
    /// The caller left a message. It is a stretch of the recording of their leg.
    #[serde(rename = "voicemail.left")]
    VoicemailLeft {
        /// Which transfer nobody took.
        transfer_id: TransferId,
        /// Whose recording holds it.
        leg: LegId,
        /// Start, since the caller was answered.
        from_ms: u64,
        /// End, since the caller was answered.
        to_ms: u64,
        /// What ended it.
        ended_by: MessageEnd,
    },
    /// The caller asked by a key to be called back. Whoever does so finds the number in the
    /// payload of the transfer; it is not repeated here.
    #[serde(rename = "callback.requested")]
    CallbackRequested {
        /// Which transfer nobody took.
        transfer_id: TransferId,
        /// Names the request.
        callback_id: CallbackId,
    },
    /// The edge produces no more facts for this call. Exactly one, the last.
    #[serde(rename = "producer.final")]
    ProducerFinal {
        /// Facts of this producer, this one included.
        count: u64,
    },
}

/// What `evaluate-trigger` needs, on the copy of an event that goes to `signals`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluable {
    /// Names and numbers of the call so far, the stimulus included.
    pub snapshot: Snapshot,
    /// The one new thing.
    pub stimulus: Stimulus,
    /// The transfer that a decision on this event would start.
    pub transfer_id: TransferId,
    /// What a payload is built from, where the edge's own policy fires on this event.
    pub context: Option<Context>,
}

/// One fact with its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct CallEvent {
    /// CloudEvents `source`.
    pub edge: EdgeId,
    /// Whose call.
    pub tenant: TenantId,
    /// CloudEvents `subject`.
    pub call: CallId,
    /// From 0, contiguous; `id` is `{call}:{seq}`, so a duplicate is one by construction.
    pub seq: u64,
    /// CloudEvents `time`.
    pub time: Timestamp,
    /// The edge's monotonic clock in microseconds, beside the wall clock.
    pub mono_us: u64,
    /// Where commands for this call go (a queue URL; empty in the embedded mode).
    pub commands: String,
    /// What happened.
    pub fact: Fact,
    /// Present on events that can trigger.
    pub evaluable: Option<Box<Evaluable>>,
}

/// Which lane and destinations a webhook of the transfer's life goes to is decided by
/// `delivery`; this names the type only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WebhookKind {
    /// `warmbridge.transfer.decided.v1`
    #[serde(rename = "warmbridge.transfer.decided.v1")]
    Decided,
    /// `warmbridge.transfer.offered.v1` (from build-payload)
    #[serde(rename = "warmbridge.transfer.offered.v1")]
    Offered,
    /// `warmbridge.transfer.accepted.v1`
    #[serde(rename = "warmbridge.transfer.accepted.v1")]
    Accepted,
    /// `warmbridge.transfer.bridged.v1`
    #[serde(rename = "warmbridge.transfer.bridged.v1")]
    Bridged,
    /// `warmbridge.transfer.abandoned.v1`
    #[serde(rename = "warmbridge.transfer.abandoned.v1")]
    Abandoned,
    /// `warmbridge.transfer.failed.v1`
    #[serde(rename = "warmbridge.transfer.failed.v1")]
    Failed,
    /// `warmbridge.transfer.fallback.v1`
    #[serde(rename = "warmbridge.transfer.fallback.v1")]
    Fallback,
    /// `warmbridge.voicemail.left.v1`
    #[serde(rename = "warmbridge.voicemail.left.v1")]
    VoicemailLeft,
    /// `warmbridge.callback.requested.v1`
    #[serde(rename = "warmbridge.callback.requested.v1")]
    CallbackRequested,
    /// `warmbridge.payload.revised.v1` (from build-payload)
    #[serde(rename = "warmbridge.payload.revised.v1")]
    PayloadRevised,
    /// `warmbridge.call.closed.v1`
    #[serde(rename = "warmbridge.call.closed.v1")]
    CallClosed,
}

/// A webhook that names its destination, for a command that reports its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationAck {
    /// Which destination.
    pub destination: DestinationId,
    /// The revision it has.
    pub revision: u32,
}
