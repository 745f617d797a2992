//! What is known of a conversation, accumulated from signals. It yields three views and
//! keeps them apart on purpose: the [`Snapshot`] (names and numbers only, safe to publish
//! and to hash), the [`Stimulus`] (the one new thing, which the policy looks at) and the
//! [`Context`] (what a payload is built from; personal, already redacted at `R1_pci`).
//! It decides nothing.

mod grounding;
mod promise;
mod state;

use serde::{Deserialize, Serialize};

pub use self::state::Conversation;
use crate::clock::Timestamp;
use crate::pii::Pii;
use crate::signal::{PiiClass, RequestReason, Speaker, TransferRequest};

/// A name with a confidence: an intent or a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Category.
    pub name: String,
    /// Per-mille; 0 where the agent gave none.
    pub confidence_pm: u16,
}

/// Where a call stands in a transfer, for a policy that must not start a second one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferStanding {
    /// None is under way.
    #[default]
    None,
    /// One is under way: a new decision joins it.
    Active,
    /// A human agent has the call.
    Bridged,
}

/// What a policy needs to know of the call so far, without any personal data: counts,
/// names and numbers. It travels with every event that can trigger, so that a decision is
/// a pure function of policy, snapshot and stimulus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Time since the caller was answered.
    pub elapsed_ms: u64,
    /// Finished turns of the caller.
    pub turns_caller: u32,
    /// Finished turns of the voice agent.
    pub turns_agent: u32,
    /// The latest resolution confidence.
    pub confidence_pm: Option<u16>,
    /// Mean of the last resolution confidences (at most 5).
    pub confidence_rolling_pm: Option<u16>,
    /// Consecutive resolution confidences, newest last, at most 5.
    pub confidence_recent_pm: Vec<u16>,
    /// The low-confidence rule has fired and the confidence has not risen past its upper
    /// edge since (hysteresis).
    pub confidence_latched: bool,
    /// Last intents, newest last, at most 5.
    pub intents: Vec<Named>,
    /// Last topics, newest last, at most 5.
    pub topics: Vec<Named>,
    /// How often in a row the same intent came.
    pub same_intent_run: u32,
    /// How often in a row the voice agent said the same thing.
    pub same_prompt_run: u32,
    /// Tool failures in a row.
    pub tool_failures_run: u32,
    /// Transfers that ended without a bridge.
    pub failed_attempts: u32,
    /// Names of the collected fields.
    pub collected: Vec<String>,
    /// The type of call, from the trunk or the number dialled.
    pub call_type: Option<String>,
    /// Time since the voice agent promised a person without one being on the way.
    pub promise_age_ms: Option<u64>,
    /// Version of the policy that this call is pinned to.
    pub policy_version: String,
    /// Where the call stands.
    pub transfer: TransferStanding,
}

/// The one new thing that a policy evaluation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stimulus {
    /// Somebody finished a turn. The text is redacted at `R1_pci`.
    Turn {
        /// Who.
        speaker: Speaker,
        /// What.
        text: Pii<String>,
    },
    /// An intent was recognised.
    Intent(Named),
    /// A topic was recognised.
    Topic {
        /// Which.
        topic: Named,
        /// The agent believes that a regulation applies.
        regulated: bool,
    },
    /// A resolution confidence came.
    Confidence {
        /// Per-mille.
        value_pm: u16,
    },
    /// The caller pressed a key.
    Digit {
        /// Only `0` is a request; the others are not told apart here.
        zero: bool,
    },
    /// A tool ran.
    Tool {
        /// Its name.
        name: String,
        /// It failed.
        failed: bool,
    },
    /// The voice agent asked for a person.
    Requested {
        /// Why.
        reason: RequestReason,
    },
    /// The voice agent reported a fault of its own, or its link is gone for good.
    AgentError,
    /// A timer of the call fired (elapsed time, broken promise).
    Clock,
    /// Anything that cannot trigger by itself.
    Other,
}

/// Where a collected value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// The caller said it.
    CallerStated,
    /// The caller confirmed it.
    CallerConfirmed,
    /// Keys.
    Dtmf,
    /// The CRM.
    Crm,
    /// The signalling (the caller's number).
    Sip,
    /// The model concluded it; no caller turn shows it.
    ModelInferred,
}

/// One turn of the transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Segment number, from 0, contiguous.
    pub segment: u32,
    /// Who.
    pub speaker: Speaker,
    /// What, redacted.
    pub text: Pii<String>,
    /// Since the caller was answered.
    pub at_ms: u64,
}

/// One collected fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Name.
    pub name: String,
    /// Value, redacted; `None` where redaction removed it.
    pub value: Option<Pii<String>>,
    /// Where it came from.
    pub provenance: Provenance,
    /// The segment in which it was stated.
    pub segment: Option<u32>,
    /// The segment in which the caller confirmed it.
    pub confirmed_segment: Option<u32>,
    /// Per-mille.
    pub confidence_pm: u16,
    /// Confirmed by the caller.
    pub confirmed: bool,
    /// How sensitive.
    pub class: PiiClass,
}

/// One tool run of the voice agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRun {
    /// Its name.
    pub name: String,
    /// `None` where not known.
    pub ok: Option<bool>,
    /// When.
    pub at: Timestamp,
}

/// Whether and how far a disclosure was heard. `played_pm` comes from the egress's own
/// cursor: 1000 means that every sample was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disclosed {
    /// Identifies the text and its version.
    pub text_id: String,
    /// SHA-256 of the fixed text, hexadecimal.
    pub text_sha256: Option<String>,
    /// Share of the samples sent, per-mille.
    pub played_pm: u16,
    /// When it ended.
    pub at: Option<Timestamp>,
}

/// Which fixed text was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisclosureKind {
    /// That a machine speaks.
    Ai,
    /// That the call is recorded.
    Recording,
    /// The transition message.
    Transition,
}

/// What the caller's number is and how far it can be trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerIdentity {
    /// E.164, where there is one.
    pub e164: Option<Pii<String>>,
    /// The caller asked for it not to be shown.
    pub restricted: bool,
}

/// Everything a payload is built from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Who calls.
    pub caller: CallerIdentity,
    /// BCP 47 language of the call.
    pub language: Option<String>,
    /// The transcript, oldest first.
    pub turns: Vec<Turn>,
    /// Older turns were left out of this copy.
    pub truncated: bool,
    /// Facts.
    pub collected: Vec<Collected>,
    /// Latest intent.
    pub intent: Option<Named>,
    /// Earlier intents.
    pub secondary: Vec<String>,
    /// Latest sentiment, −1000..=1000.
    pub sentiment_pm: Option<i16>,
    /// What the voice agent asked for, if it did.
    pub request: Option<TransferRequest>,
    /// Tools that ran.
    pub tools: Vec<ToolRun>,
    /// The AI disclosure.
    pub ai_disclosure: Disclosed,
    /// The recording disclosure.
    pub recording_disclosure: Disclosed,
    /// `affirmative`, `implied_by_continuing`, `refused` or `not_asked`.
    pub recording_consent: String,
    /// The transition message, once played.
    pub transition: Disclosed,
    /// Redaction counts by class (`PAN`, `CVV`, …).
    pub redactions: Vec<(String, u32)>,
}
