//! What a voice agent may tell us: `warmbridge` signals, version 1, as typed values.
//! Every door (WebSocket, HTTP, QUIC, SIP headers) parses its bytes here, once. A signal
//! that does not validate is refused with the name of the member at fault; unknown members
//! inside `data` are ignored and counted. No signal is an order: a voice agent can ask for
//! a transfer, it can never make one.

use serde::{Deserialize, Serialize};

use crate::pii::Pii;

pub mod parse;

/// The voice agent's tool that begins a payment: card data is about to be said. Until it ends,
/// nothing is recorded, and every number that is said is taken out of the transcript.
pub const PAYMENT_BEGINS: &str = "payment.start";

/// The voice agent's tool that ends a payment. One that is forgotten ends by itself.
pub const PAYMENT_ENDS: &str = "payment.end";

/// One validated signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Idempotency key, unique per call, at most 64 characters.
    pub id: String,
    /// Milliseconds since the media of this leg started, where the agent says so.
    pub at_ms: Option<u64>,
    /// What it says.
    pub body: SignalBody,
}

/// Who spoke a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// The caller.
    Caller,
    /// The voice agent.
    Agent,
    /// The human agent.
    Human,
    /// Neither: a prompt or a note of the system.
    System,
}

/// What a confidence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfidenceOf {
    /// That the voice agent can resolve the call. The only one the threshold looks at.
    Resolution,
    /// Of the speech recognition.
    Asr,
    /// Of the intent.
    Intent,
    /// Of the caller's identity.
    Identity,
}

/// How sensitive a collected field is, as its producer states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PiiClass {
    /// Not personal.
    #[default]
    None,
    /// Personal.
    Pii,
    /// Health information.
    Phi,
    /// Payment data; never stored.
    Pci,
}

/// Why the voice agent asks for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestReason {
    /// The caller asked for a person.
    CallerRequest,
    /// The agent is not confident.
    LowConfidence,
    /// The topic belongs to a person.
    Topic,
    /// A regulation requires a person.
    Regulatory,
    /// The call has taken too long.
    TimeLimit,
    /// The agent or a tool of it failed.
    Error,
    /// The caller is to be treated by a person.
    Vip,
    /// Anything else.
    Other,
}

/// What the voice agent wants to happen when nobody takes the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    /// Give the caller back to the voice agent.
    ReturnToAgent,
    /// Offer a call-back.
    Callback,
    /// Offer voicemail.
    Voicemail,
    /// End with a closing message.
    Hangup,
}

/// A voice agent's request for a transfer. Its words are input to the payload, never the
/// payload itself; its target is matched against the directory, never dialled as given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferRequest {
    /// Why.
    pub reason: RequestReason,
    /// The team to reach, if known: a queue id or its label.
    pub queue: Option<String>,
    /// A directory id or a URI that policy maps to one.
    pub target: Option<Pii<String>>,
    /// Candidate for the summary, at most 1 500 characters.
    pub summary: Option<Pii<String>>,
    /// Candidate for the next action, at most 500 characters.
    pub next_action: Option<Pii<String>>,
    /// What the agent suggests to tell the caller, at most 400 characters.
    pub caller_message: Option<Pii<String>>,
    /// Candidate for the whisper, at most 600 characters.
    pub whisper: Option<Pii<String>>,
    /// What should happen when nobody takes the call.
    pub on_fail: Option<OnFail>,
    /// Facts collected so far, by name.
    pub fields: Vec<(String, Pii<String>)>,
}

/// The kinds of signal. Confidences are per-mille behind the door (0..=1000).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalBody {
    /// The agent took the call.
    CallStarted {
        /// Name and version of the agent.
        agent: Option<String>,
        /// The platform's own id of the call; some put the caller's number into it.
        session: Option<Pii<String>>,
        /// BCP 47 language of the call.
        language: Option<String>,
    },
    /// A finished turn. A later one with the same `turn` replaces it.
    Turn {
        /// Who spoke.
        speaker: Speaker,
        /// What was said, at most 8 000 characters.
        text: Pii<String>,
        /// Item id, the key of replacement.
        turn: Option<String>,
        /// Of the recognition, per-mille.
        confidence_pm: Option<u16>,
        /// Cut short by the other side.
        interrupted: bool,
    },
    /// An unfinished turn: never a trigger, never stored.
    TurnPartial {
        /// Who is speaking.
        speaker: Speaker,
    },
    /// What the caller wants.
    Intent {
        /// Category, e.g. `billing.refund`.
        name: String,
        /// Per-mille.
        confidence_pm: Option<u16>,
    },
    /// What the conversation is about.
    Topic {
        /// Name, e.g. `medication`.
        name: String,
        /// Per-mille.
        confidence_pm: Option<u16>,
        /// The agent believes that a regulation applies.
        regulated: bool,
    },
    /// A fact that the caller gave or confirmed.
    Field {
        /// Name, `[a-z][a-z0-9_]*`, at most 48 characters.
        name: String,
        /// Value as text.
        value: Pii<String>,
        /// Per-mille.
        confidence_pm: Option<u16>,
        /// The caller confirmed it.
        verified: bool,
        /// How sensitive.
        class: PiiClass,
    },
    /// How the caller feels: −1000..=1000.
    Sentiment {
        /// Score in per-mille of the unit interval.
        score_pm: i16,
    },
    /// How sure the agent is.
    Confidence {
        /// Per-mille.
        value_pm: u16,
        /// Of what.
        of: ConfidenceOf,
    },
    /// The agent says that it disclosed something; checked against what was played.
    DisclosureMade {
        /// `ai`, `recording`, `transfer_notice` or `other`.
        kind: String,
    },
    /// The caller answered a consent question.
    Consent {
        /// `affirmative`, `implied_by_continuing` or `refused`.
        value: String,
    },
    /// A key the caller pressed, as the agent heard it.
    Dtmf {
        /// The key; personal, since keys spell card numbers.
        digits: Pii<String>,
    },
    /// A tool ran.
    Tool {
        /// Its name.
        name: String,
        /// `true` where it succeeded, `None` where that is not known.
        ok: Option<bool>,
    },
    /// The agent asks for a person.
    TransferRequest(TransferRequest),
    /// The agent takes its request back.
    TransferCancel,
    /// The agent says that the matter is settled.
    Resolved {
        /// In its own words, which may be the caller's.
        outcome: Option<Pii<String>>,
    },
    /// The agent reports a fault of its own.
    Error {
        /// In its own words, which may be the caller's; bounded.
        message: Option<Pii<String>>,
    },
    /// An extension we carry and ignore.
    X,
}

impl RequestReason {
    /// The name used in contracts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallerRequest => "caller_request",
            Self::LowConfidence => "low_confidence",
            Self::Topic => "topic",
            Self::Regulatory => "regulatory",
            Self::TimeLimit => "time_limit",
            Self::Error => "error",
            Self::Vip => "vip",
            Self::Other => "other",
        }
    }
}

impl ConfidenceOf {
    /// The name used in contracts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolution => "resolution",
            Self::Asr => "asr",
            Self::Intent => "intent",
            Self::Identity => "identity",
        }
    }
}

impl Signal {
    /// The signal's `type`.
    pub const fn kind(&self) -> &'static str {
        match self.body {
            SignalBody::CallStarted { .. } => "call.started",
            SignalBody::Turn { .. } => "turn",
            SignalBody::TurnPartial { .. } => "turn.partial",
            SignalBody::Intent { .. } => "intent",
            SignalBody::Topic { .. } => "topic",
            SignalBody::Field { .. } => "field",
            SignalBody::Sentiment { .. } => "sentiment",
            SignalBody::Confidence { .. } => "confidence",
            SignalBody::DisclosureMade { .. } => "disclosure.made",
            SignalBody::Consent { .. } => "consent",
            SignalBody::Dtmf { .. } => "dtmf",
            SignalBody::Tool { .. } => "tool",
            SignalBody::TransferRequest(_) => "transfer.request",
            SignalBody::TransferCancel => "transfer.cancel",
            SignalBody::Resolved { .. } => "resolved",
            SignalBody::Error { .. } => "error",
            SignalBody::X => "x",
        }
    }

    /// What a record of this signal may say in the clear: names and numbers, no words.
    pub fn values(&self) -> Vec<(String, i64)> {
        let one = |name: &str, value: i64| vec![(name.to_owned(), value)];
        let sure = |confidence_pm: &Option<u16>| confidence_pm.map_or(-1, i64::from);
        match &self.body {
            SignalBody::Turn { confidence_pm: Some(value), .. } => one("asr", i64::from(*value)),
            SignalBody::Intent { name, confidence_pm } => one(name, sure(confidence_pm)),
            SignalBody::Topic { name, confidence_pm, regulated } => {
                vec![(name.clone(), sure(confidence_pm)), ("regulated".to_owned(), i64::from(*regulated))]
            }
            SignalBody::Field { name, confidence_pm, verified, .. } => {
                vec![(name.clone(), sure(confidence_pm)), ("verified".to_owned(), i64::from(*verified))]
            }
            SignalBody::Sentiment { score_pm } => one("score", i64::from(*score_pm)),
            SignalBody::Confidence { value_pm, of } => one(of.as_str(), i64::from(*value_pm)),
            SignalBody::DisclosureMade { kind } => one(kind, 1),
            SignalBody::Consent { value } => one(value, 1),
            SignalBody::Dtmf { digits } => one("keys", i64::try_from(digits.expose().len()).unwrap_or(0)),
            SignalBody::Tool { name, ok } => one(name, ok.map_or(-1, i64::from)),
            SignalBody::TransferRequest(request) => one(request.reason.as_str(), 1),
            SignalBody::Turn { confidence_pm: None, .. }
            | SignalBody::CallStarted { .. }
            | SignalBody::TurnPartial { .. }
            | SignalBody::TransferCancel
            | SignalBody::Resolved { .. }
            | SignalBody::Error { .. }
            | SignalBody::X => Vec::new(),
        }
    }
}
