//! The context that travels with a transfer: `warmbridge.handoff/1.0`. Three tiers: a summary
//! of two or three sentences, structured facts with their evidence, and a transcript on
//! demand. The types are closed and mirror the published schema
//! (`schemas/handoff-1-0.schema.json`, JSON Schema 2020-12): whatever deserialises has its
//! shape. Rules that a schema cannot state are in [`validate()`]. It never
//! holds a number with a fraction, so that its canonical bytes are well defined.

mod build;
mod catalog;
mod fallback;
mod grounding;
mod limits;
mod projection;
mod sentences;
mod shape;
mod structured;

mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::canonical::{self, NotCanonical};
use crate::clock::Timestamp;
use crate::id::{CallId, PayloadId, TenantId, TransferId};
use crate::pii::Pii;
use crate::redact::Level;

pub use build::{BuildInput, bare_template, build, template, transcript_url};
pub use catalog::{Action, BadCatalog, Catalog, Crm, Intent};
pub use projection::{Grants, ThinPayload, project, thin};
pub use structured::{
    ActionTaken, Ani, Attest, Caller, Completeness, CrmRef, CrmSystem, CrmView, IntentView, Item, ItemType,
    Masking, Match, MatchMethod, MatchStatus, NextAction, Presentation, Routing, Sentiment, Stir, StirSource,
    Structured, ToolOutcome, TriggerView, Verification, VerificationLevel, Verstat,
};
pub use validate::{Rule, Violation, validate};

/// Most bytes of a payload in canonical form. A webhook and a database item both stay well
/// below their own limits with it; the schema alone would admit 243 KB.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// How long a payload may be fetched and shown.
pub const EXPIRY_MS: i64 = 3_600_000;

/// Why bytes are no payload. Names the member at fault, never its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// Longer than [`PAYLOAD_BYTES_MAX`].
    #[error("longer than {PAYLOAD_BYTES_MAX} bytes")]
    TooLong,
    /// Not JSON of the canonical profile: a fraction, a duplicate key, bad syntax.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    /// A member is missing, unknown, of another type, or outside its limits.
    #[error("does not have the shape of warmbridge.handoff/1.0")]
    Shape,
    /// A member is outside the limits of the schema.
    #[error("{member} is outside the limits of warmbridge.handoff/1.0")]
    Limit {
        /// Path of the member.
        member: &'static str,
    },
}

/// The version of the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schema {
    /// `warmbridge.handoff/1.0`
    #[default]
    #[serde(rename = "warmbridge.handoff/1.0")]
    Handoff10,
}

/// What kinds of data a payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Classification {
    /// For the tenant's own people.
    Internal,
    /// Personal data.
    Pii,
    /// Health information.
    Phi,
    /// From a call in which payment data was heard; none of it is in here.
    PciScope,
    /// Financial communication.
    FinComm,
}

/// The payload (`warmbridge.handoff/1.0`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Payload {
    /// Version of the contract.
    pub schema: Schema,
    /// One per transfer, derived from its id.
    pub payload_id: PayloadId,
    /// From 1; the highest at accept is frozen.
    pub revision: u32,
    /// Whose.
    pub tenant_id: TenantId,
    /// The call.
    pub call_id: CallId,
    /// The transfer.
    pub transfer_id: TransferId,
    /// When this revision was built.
    pub created_at: Timestamp,
    /// When it may no longer be shown.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// BCP 47 language of the call.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Kinds of data inside.
    pub classification: Vec<Classification>,
    /// Tier 1.
    pub summary: Summary,
    /// Tier 2.
    pub structured: Structured,
    /// Tier 3.
    pub transcript: Transcript,
    /// What the caller was told.
    pub disclosure: Disclosure,
    /// What was taken out.
    pub redaction: Redaction,
    /// The audit chain's head when this was built.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditHead>,
}

/// Who wrote a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generator {
    /// A language model; every claim was checked against the conversation.
    Model,
    /// The fixed template, from confirmed values only.
    TemplateFallback,
}

/// Tier 1: what a person reads or hears first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Two or three sentences.
    pub text: Pii<String>,
    /// How many.
    pub sentence_count: u8,
    /// One line.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub headline: Option<Pii<String>>,
    /// What is spoken to the human agent in private.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub whisper_text: Option<Pii<String>>,
    /// Who wrote it.
    pub generator: Generator,
    /// Which model.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub model_ref: Option<String>,
    /// What it rests on.
    pub grounding: Grounding,
}

/// What a summary rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grounding {
    /// Every number, date and name was found in its sources.
    pub verified: bool,
    /// Transcript segments that it cites.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<u32>>,
    /// Claims without a source.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub unsupported_claims: Option<u32>,
}

/// Tier 3: the transcript, fetched on demand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// Whether it can be had.
    pub availability: Availability,
    /// From where.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The conversation was still going on.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub partial: Option<bool>,
    /// How many segments.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub segments: Option<u32>,
    /// Number of the last one.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u32>,
    /// Digest of what will be served.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub sha512: Option<String>,
    /// What was taken out of it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub redaction_level: Option<Level>,
}

/// Whether a transcript can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// By its link; each look is recorded.
    OnDemand,
    /// There is none.
    Unavailable,
    /// The caller refused recording.
    ConsentWithheld,
}

/// What the caller was told, and how far it was heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclosure {
    /// That a machine speaks.
    pub ai_identity: Disclosed,
    /// That the call is recorded.
    pub recording: Disclosed,
    /// That a person takes over.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub transfer_notice: Option<Disclosed>,
    /// Whose law was applied.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub jurisdictions: Option<Vec<String>>,
}

/// One text that was played to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclosed {
    /// How far it was heard.
    pub status: DisclosureStatus,
    /// Text and version.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub text_id: Option<String>,
    /// Digest of the fixed text.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub text_sha256: Option<String>,
    /// When it ended.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Share of the samples sent, per-mille.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub played_pm: Option<u16>,
    /// The caller's answer.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub consent: Option<Consent>,
    /// Its record in the audit chain.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub audit_seq: Option<u64>,
}

/// How far a disclosure was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisclosureStatus {
    /// To its last sample.
    Delivered,
    /// In part.
    Interrupted,
    /// Not at all.
    NotDelivered,
    /// It did not have to be.
    NotRequired,
}

/// A caller's answer to being recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Yes.
    Affirmative,
    /// Went on after being told.
    ImpliedByContinuing,
    /// No.
    Refused,
    /// Nobody asked.
    NotAsked,
}

/// What redaction took out of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// Name and version of the detector.
    pub engine: String,
    /// Policy that it followed.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Findings by class.
    pub counts: BTreeMap<String, u32>,
    /// Spans in which recording was paused for a payment.
    pub pci_pause: Vec<Pause>,
}

/// A span in which recording was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Start, since the caller was answered.
    pub from_ms: u64,
    /// End.
    pub to_ms: u64,
}

/// Head of an audit chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// The chain: the call's id.
    pub chain: CallId,
    /// Its last record when the payload was built.
    pub seq: u64,
    /// That record's hash.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

impl Payload {
    /// Parses a payload from outside. What it returns has the shape of the schema; whether
    /// it is true is for [`validate`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BadPayload> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(BadPayload::TooLong);
        }
        let value = canonical::parse_strict(bytes)?;
        // The derived reader lets the shape through first, so that a limit can be named.
        let payload = Self::deserialize(value).map_err(|_| BadPayload::Shape)?;
        match shape::fault(&payload) {
            Some(member) => Err(BadPayload::Limit { member }),
            None => Ok(payload),
        }
    }

    /// The bytes that are signed, hashed and stored.
    pub fn canonical_bytes(&self) -> Result<Vec<u8>, NotCanonical> {
        // Serialising these types to a tree fails for nothing but a bug in them, which the
        // caller sees as what it is: a payload without canonical bytes.
        let value = serde_json::to_value(self).map_err(|_| NotCanonical::Syntax { line: 0, column: 0 })?;
        canonical::to_bytes(&value)
    }

    /// From 1; the highest at accept is frozen.
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// The two or three sentences.
    pub const fn summary_text(&self) -> &Pii<String> {
        &self.summary.text
    }

    /// What is spoken to the human agent in private.
    pub const fn whisper_text(&self) -> Option<&Pii<String>> {
        self.summary.whisper_text.as_ref()
    }

    /// How many sentences the summary has.
    pub const fn sentence_count(&self) -> u8 {
        self.summary.sentence_count
    }

    /// Required fields present, per-mille; 0 where nobody counted.
    pub fn completeness_pm(&self) -> u16 {
        self.structured.completeness.as_ref().map_or(0, |completeness| completeness.score_pm)
    }

    /// `model` or `template_fallback`.
    pub const fn generator(&self) -> &'static str {
        match self.summary.generator {
            Generator::Model => "model",
            Generator::TemplateFallback => "template_fallback",
        }
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    /// However a payload arrives, inside a command too, its limits hold from here on.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let payload = Self::deserialize(deserializer)?;
        match shape::fault(&payload) {
            Some(member) => Err(serde::de::Error::custom(format_args!("{member} is outside its limits"))),
            None => Ok(payload),
        }
    }
}

/// An optional member is absent or has a value; null is neither.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A required member that may be null.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests;
