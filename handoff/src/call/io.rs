//! The contract of the call machine: what a call starts from, what can happen to it and
//! what it orders. Inputs are present facts, outputs are imperatives; neither names a
//! socket, a dialog or a number.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::call::media::{MediaPlan, MediaReport};
use crate::call::outcome::{LegCause, Phase};
use crate::clock::{Now, Timestamp};
use crate::command::Command;
use crate::conversation::CallerIdentity;
use crate::event::{DeclineReason, Evaluable, Fact, Means, Mode, StoredRecording};
use crate::id::{CallId, DestinationId, EdgeId, HumanAgentId, LegId, QueueId, TenantId, TransferId};
use crate::payload::{Catalog, Payload};
use crate::pii::Pii;
use crate::policy::{Category, Policy};
use crate::signal::Signal;

/// What holds for a call from its first to its last moment; pinned when it arrives, so a
/// reload never changes the rules of a running call.
#[derive(Clone, Debug)]
pub struct CallRules {
    /// Whose calls.
    pub tenant: TenantId,
    /// Which edge.
    pub edge: EdgeId,
    /// The rules that decide transfers.
    pub policy: Arc<Policy>,
    /// Intents, actions and required fields of the tenant.
    pub catalog: Arc<Catalog>,
    /// Queues by id; the first is the default.
    pub queues: Vec<QueueRules>,
    /// BCP 47 language of prompts.
    pub lang: String,
    /// Clip and text id of the AI and recording disclosure.
    pub disclosure: String,
    /// Put the caller on hold by re-INVITE; `false` is `hold_signalling = "none"`.
    pub hold_by_reinvite: bool,
    /// Record the legs (needs the disclosure).
    pub recording: bool,
    /// What happens when the voice agent leaves without asking for a person.
    pub on_voice_agent_bye: OnVoiceAgentBye,
    /// How long nothing may come from a leg that is not held before it counts as lost.
    pub rtp_timeout: Duration,
    /// The voice agent goes on hearing a waiting caller, who can call the transfer off in words.
    pub cancel_while_waiting: bool,
    /// Base of the links in a payload (`https://…`).
    pub public_url: String,
}

/// Policy for a voice agent that leaves by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnVoiceAgentBye {
    /// End the call.
    Hangup,
    /// Hand the caller to the default queue.
    #[default]
    TransferDefault,
}

/// A link of the fallback chain. One that cannot be taken, or comes to nothing, gives way to
/// the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The people of another queue, by this queue's own rules but for its chain.
    Queue(QueueId),
    /// Back to the voice agent, while its leg is up.
    VoiceAgent,
    /// The caller may leave a message.
    Voicemail,
    /// The caller may ask to be called back.
    Callback,
    /// Closing message, then the end. The implicit last link.
    Closing,
}

/// Where the caller goes when the human agent's leg ends after the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivor {
    /// Nowhere: the call is over.
    End,
    /// To the next person of the queue, after an apology.
    Reoffer,
    /// Back to the voice agent, after an apology.
    VoiceAgent,
    /// To the closing message.
    Closing,
}

/// The rules of one queue.
#[derive(Clone, Debug)]
pub struct QueueRules {
    /// Its id.
    pub id: QueueId,
    /// What its people are told before they are connected.
    pub mode: Mode,
    /// Clip that names it to the caller (`dest.nurse`).
    pub spoken: String,
    /// Most agents tried in one transfer.
    pub attempts_max: u32,
    /// How long its people may be rung in all before the chain goes on; without it, each for
    /// their own time.
    pub patience: Option<Duration>,
    /// Whose acknowledgement opens the barrier.
    pub payload_ack: PayloadAck,
    /// What happens when nobody takes the call, in order.
    pub fallback: Vec<Fallback>,
    /// A human agent hangs up after the bridge.
    pub on_agent_bye: Survivor,
    /// A human agent's leg is lost after the bridge.
    pub on_agent_lost: Survivor,
    /// Time to announce until there are enough bridges to measure it, in seconds.
    pub wait_default_s: u32,
}

/// Whose acknowledgement opens the barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadAck {
    /// The desktop's.
    Desktop,
    /// A named webhook destination's.
    Destination(DestinationId),
}

/// A person chosen by the edge's directory for one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who.
    pub agent: HumanAgentId,
    /// How long the phone rings.
    pub ring_timeout: Duration,
    /// How long the person may take to say yes after the whisper ended. Longer suits people
    /// who read first; shorter finds out a voicemail sooner.
    pub accept_timeout: Duration,
    /// BCP 47 language of the whisper.
    pub lang: String,
    /// A member of the agent directory whose presence is proven by registration. Others
    /// hear nothing personal before they have proven that they are there.
    pub trusted: bool,
    /// Answering the phone counts as accepting (never outside the directory).
    pub accept_on_answer: bool,
    /// A desktop of this person is connected now.
    pub desktop: bool,
}

/// What a new call starts from.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The call's id.
    pub call: CallId,
    /// Name of the trunk.
    pub trunk: String,
    /// Keyed pseudonym of the number.
    pub caller_tag: Option<String>,
    /// Who calls.
    pub caller: CallerIdentity,
    /// Type of call, from the trunk or the number dialled; for routing rules.
    pub call_type: Option<String>,
}

/// What can happen to a call. Present facts; each comes with the moment it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A phone that we dialled rings.
    Ringing {
        /// Which.
        leg: LegId,
    },
    /// A leg is up: the caller's after our answer was acknowledged, the voice agent's when
    /// its link is open, a human agent's when the phone was answered.
    Answered {
        /// Which.
        leg: LegId,
    },
    /// A leg is over, before or after its answer. Comes exactly once per leg.
    Ended {
        /// Which.
        leg: LegId,
        /// Why.
        cause: LegCause,
        /// The SIP status, where there was one.
        status: Option<u16>,
    },
    /// A hold or resume re-INVITE of ours was answered (or refused: `ok` is false, which
    /// changes nothing but the record).
    HoldDone {
        /// Which leg.
        leg: LegId,
        /// It was accepted.
        ok: bool,
    },
    /// The peer put its own leg on hold or took it back.
    PeerHold {
        /// Which leg.
        leg: LegId,
        /// On or off.
        held: bool,
    },
    /// The voice agent said something.
    Signal(Signal),
    /// The cloud said something.
    Command(Command),
    /// The directory found a person for the pending search.
    TargetFound {
        /// Who and how.
        target: Target,
        /// Wait to announce or repeat, from live history, in seconds.
        estimate_s: Option<u32>,
    },
    /// The directory has nobody for the pending search.
    NobodyAvailable,
    /// A desktop shows the payload: painted, not merely received.
    DesktopAcked {
        /// Whose desktop.
        agent: HumanAgentId,
        /// Which transfer.
        transfer: TransferId,
        /// Which revision.
        revision: u32,
    },
    /// A human agent said yes by button or API. (Keys come as `MediaReport::Digit`.)
    Accept {
        /// Who.
        agent: HumanAgentId,
        /// Which transfer.
        transfer: TransferId,
        /// How.
        means: Means,
    },
    /// A human agent said no by button or API.
    Decline {
        /// Who.
        agent: HumanAgentId,
        /// Which transfer.
        transfer: TransferId,
        /// How.
        means: Means,
        /// Why, as the person chose it.
        reason: DeclineReason,
    },
    /// A human agent asks to give the caller back to the voice agent.
    HandBack {
        /// Who.
        agent: HumanAgentId,
    },
    /// The media plane reports.
    Media(MediaReport),
    /// The recording of a leg that is over lies on disk.
    RecordingStored {
        /// Which.
        leg: LegId,
        /// What lies there.
        recording: StoredRecording,
    },
    /// `next_timeout` has come.
    Timeout,
    /// The edge drains for good: end the call now.
    Drain,
}

/// What a call orders. Imperatives; the edge carries them out in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Answer the caller (200 with our SDP).
    Answer,
    /// Open the voice agent's link.
    ConnectVoiceAgent {
        /// Its leg.
        leg: LegId,
    },
    /// Find a person. The edge answers at once with `TargetFound` or `NobodyAvailable`.
    FindTarget {
        /// In which queue.
        queue: QueueId,
        /// Not these: they had this transfer already.
        exclude: Vec<HumanAgentId>,
    },
    /// Dial a person.
    Invite {
        /// The new leg.
        leg: LegId,
        /// Whom.
        agent: HumanAgentId,
        /// The transfer, for the opaque handle in the headers.
        transfer: TransferId,
    },
    /// End a leg: CANCEL, BYE or close, whatever its state needs.
    HangUp {
        /// Which.
        leg: LegId,
        /// Why.
        cause: LegCause,
    },
    /// Re-INVITE with `sendonly`.
    Hold {
        /// Which leg.
        leg: LegId,
    },
    /// Re-INVITE with `sendrecv`.
    Resume {
        /// Which leg.
        leg: LegId,
    },
    /// Apply this plan.
    Media(MediaPlan),
    /// Report `Drained` when the queued speech of the voice agent has been played out, at
    /// once where there is none.
    DrainVoiceAgent {
        /// Its leg.
        leg: LegId,
    },
    /// Drop queued speech of the voice agent and echo its pending marks.
    ClearVoiceAgent {
        /// Its leg.
        leg: LegId,
    },
    /// Tell the voice agent how its transfer stands (in-band `edge.status`).
    TellVoiceAgent {
        /// Its leg.
        leg: LegId,
        /// `accepted`, `ringing`, `connected`, `failed`.
        status: &'static str,
        /// Seconds until a person, where known.
        eta_s: Option<u32>,
    },
    /// Show something on a person's desktop.
    Desktop {
        /// Whose.
        agent: HumanAgentId,
        /// What.
        push: DesktopPush,
    },
    /// Record what a leg says and hears, or cease to. A leg that is over ceases by itself, and
    /// its recording is reported with `RecordingStored`.
    Record {
        /// Which.
        leg: LegId,
        /// Begin or go on; `false` leaves a gap.
        on: bool,
    },
    /// Destroy what was recorded of this call, and keep nothing more of it.
    DiscardRecordings,
    /// Record a fact. The shell stamps, seals, spools and publishes it, in this order.
    Emit {
        /// From 0, contiguous within the call.
        seq: u64,
        /// Wall time of the input that caused it.
        at: Timestamp,
        /// What happened.
        fact: Fact,
        /// For the copy on `signals`.
        evaluable: Option<Box<Evaluable>>,
    },
    /// Publish the edge's own decision to `decisions`, so that the payload and the webhooks
    /// follow when the functions are back.
    PublishDecision {
        /// The event that it belongs to.
        evaluable: Box<Evaluable>,
        /// The decision.
        decision: crate::policy::Decision,
    },
    /// A bridge happened after so many seconds; for the estimate of the queue.
    Learn {
        /// Which queue.
        queue: QueueId,
        /// Seconds from the decision to the bridge.
        waited_s: u32,
    },
    /// Forget the call. Nothing follows.
    Finished,
}

/// What a person's desktop is told. Ordered before the INVITE of the same offer.
#[derive(Clone, Debug, PartialEq)]
pub enum DesktopPush {
    /// A call is coming: shown before the phone rings.
    Incoming {
        /// Which transfer.
        transfer: TransferId,
        /// Which call.
        call: CallId,
        /// Which attempt.
        attempt: u32,
        /// How long the caller has waited, ms.
        waited_ms: u64,
    },
    /// The card, whole. Replaces a lower revision.
    Card {
        /// Which transfer.
        transfer: TransferId,
        /// The payload.
        payload: Box<Payload>,
    },
    /// The whisper as text.
    Caption {
        /// Which transfer.
        transfer: TransferId,
        /// What is being spoken.
        text: Pii<String>,
    },
    /// Accepted with this revision frozen; the desktop acknowledges once painted.
    Accepted {
        /// Which transfer.
        transfer: TransferId,
        /// The frozen revision.
        revision: u32,
    },
    /// Connected.
    Bridged {
        /// Which transfer.
        transfer: TransferId,
    },
    /// The offer or the call is over.
    Ended {
        /// Which transfer.
        transfer: TransferId,
        /// Fixed reason (`caller_left`, `no_answer`, `declined`, `ended`, `taken`).
        reason: &'static str,
    },
}

/// A caller who waits for a person, for lists and for the API: no personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which transfer.
    pub transfer: TransferId,
    /// In which queue.
    pub queue: QueueId,
    /// Why a person is needed.
    pub category: Category,
    /// Since when.
    pub since: Now,
    /// Wait that was announced, in seconds from then.
    pub estimate_s: u32,
    /// Persons tried so far, the present one included.
    pub attempt: u32,
    /// To whom it is offered now.
    pub offered_to: Option<HumanAgentId>,
}

/// The call, for lists and for the API: no personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Name of the state.
    pub state: &'static str,
    /// The phase of the transfer, if one is under way.
    pub phase: Option<Phase>,
    /// The transfer.
    pub transfer: Option<TransferId>,
    /// Legs that are open.
    pub legs: BTreeMap<LegId, crate::event::Role>,
}
