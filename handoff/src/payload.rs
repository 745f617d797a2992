//! The context that travels with a transfer: `warmbridge.handoff/1.0` in three tiers, as
//! closed types. Tier 1 is a summary of two or three sentences, tier 2 the facts in the
//! CRM's own terms, tier 3 the transcript, which is only referred to. Built in [`build`];
//! what a tenant requires is in [`catalog`]. Confidences are per-mille integers, so that
//! canonical bytes never meet a fraction.

mod build;
mod catalog;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::canonical;
use crate::clock::Timestamp;
use crate::conversation::Provenance;
use crate::id::{CallId, PayloadId, TenantId, TransferId};
use crate::pii::Pii;
use crate::policy::Category;

pub use build::{BuildInput, build, template};
pub use catalog::{Action, Catalog, Intent};

/// Largest payload in compact UTF-8. It fits a queue message and a database item with room
/// for an envelope.
pub const PAYLOAD_LEN_MAX: usize = 64 * 1024;

/// The schema that this version writes.
pub const SCHEMA: &str = "warmbridge.handoff/1.0";

/// A payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    schema: String,
    payload_id: PayloadId,
    revision: u32,
    tenant_id: TenantId,
    call_id: CallId,
    transfer_id: TransferId,
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    classification: Vec<String>,
    summary: Summary,
    structured: Structured,
    transcript: Transcript,
    disclosure: Disclosure,
    redaction: Redaction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audit: Option<AuditHead>,
}

/// Tier 1: what a person takes in while the phone rings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Summary {
    text: Pii<String>,
    sentence_count: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headline: Option<Pii<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whisper_text: Option<Pii<String>>,
    generator: Generator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model_ref: Option<String>,
    grounding: Grounding,
}

/// Who wrote the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generator {
    /// A model, checked against what was said.
    Model,
    /// The template: confirmed facts only.
    TemplateFallback,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grounding {
    verified: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unsupported_claims: Option<u32>,
}

/// Tier 2: the facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Structured {
    caller: Caller,
    intent: IntentFact,
    trigger: TriggerFact,
    collected: Vec<Item>,
    next_action: NextAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actions_taken: Option<Vec<ActionTaken>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unresolved: Option<Vec<Pii<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routing: Option<Routing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crm: Option<Crm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completeness: Option<Completeness>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Caller {
    ani: Ani,
    #[serde(rename = "match")]
    matched: Match,
    verification: Verification,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ani {
    e164: Option<Pii<String>>,
    presentation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stir: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    status: String,
    method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<CrmRecord>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CrmRecord {
    object: String,
    id: Pii<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<Pii<String>>,
}

/// How far the caller's identity was proven. A number proves a number, not a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Unverified,
    AniMatchOnly,
    PartialKba,
    Verified,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verification {
    level: Level,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    methods: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentFact {
    category: String,
    label: String,
    confidence_pm: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secondary: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sentiment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerFact {
    code: Category,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule_id: Option<String>,
    ruleset: String,
    fired_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    explanation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    also: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mandatory: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    value: Option<Pii<String>>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    provenance: Provenance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segment: Option<u32>,
    confidence_pm: u16,
    confirmed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmed_segment: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redacted: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crm_field: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NextAction {
    code: String,
    text: Pii<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    script_ref: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    do_not: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionTaken {
    tool: String,
    outcome: String,
    at: Timestamp,
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Routing {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skill: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promised_wait_s: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Crm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    screen_pop: Option<CrmRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefill: Option<BTreeMap<String, Option<Pii<String>>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Completeness {
    score_pm: u16,
    missing: Vec<String>,
}

/// Tier 3, by reference: the transcript is fetched on demand, and each fetch is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transcript {
    availability: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partial: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segments: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_seq: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha512: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redaction_level: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disclosure {
    ai_identity: Told,
    recording: Told,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transfer_notice: Option<Told>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jurisdictions: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    played_pm: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    consent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audit_seq: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redaction {
    engine: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    counts: BTreeMap<String, u32>,
    pci_pause: Vec<Pause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    from_ms: u64,
    to_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditHead {
    chain: String,
    seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

/// What a destination may receive beyond what is not personal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Personal data.
    pub pii: bool,
    /// Health information.
    pub phi: bool,
}

/// Bytes are not a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// Larger than [`PAYLOAD_LEN_MAX`].
    #[error("a payload has at most {PAYLOAD_LEN_MAX} bytes")]
    TooLarge,
    /// Not JSON, duplicate keys, or a number with a fraction.
    #[error("not strict JSON (duplicate keys and fractions are refused)")]
    NotStrict,
    /// Does not follow the schema; nothing of its contents is repeated.
    #[error("not a {SCHEMA} payload")]
    NotAPayload,
}

impl Payload {
    /// Parses a payload strictly.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadPayload> {
        if bytes.len() > PAYLOAD_LEN_MAX {
            return Err(BadPayload::TooLarge);
        }
        let value = canonical::parse_strict(bytes).map_err(|_| BadPayload::NotStrict)?;
        let payload: Self = serde_json::from_value(value).map_err(|_| BadPayload::NotAPayload)?;
        let fits = payload.schema == SCHEMA && payload.revision >= 1;
        if fits { Ok(payload) } else { Err(BadPayload::NotAPayload) }
    }

    /// The canonical bytes: what is stored, signed over and hashed.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).unwrap_or_default();
        // Text and integers only: there is nothing in these types that has no canonical form.
        canonical::to_bytes(&value).unwrap_or_default()
    }

    /// From 1; a view replaces what it shows only with a higher one.
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// The transfer.
    pub const fn transfer_id(&self) -> &TransferId {
        &self.transfer_id
    }

    /// The payload's own id, equal in all revisions.
    pub const fn payload_id(&self) -> &PayloadId {
        &self.payload_id
    }

    /// The call.
    pub const fn call_id(&self) -> &CallId {
        &self.call_id
    }

    /// Tier 1 as text.
    pub const fn summary(&self) -> &Pii<String> {
        &self.summary.text
    }

    /// Sentences of tier 1: 2 or 3.
    pub const fn sentence_count(&self) -> u8 {
        self.summary.sentence_count
    }

    /// The private briefing.
    pub const fn whisper_text(&self) -> Option<&Pii<String>> {
        self.summary.whisper_text.as_ref()
    }

    /// Who wrote tier 1.
    pub const fn generator(&self) -> Generator {
        self.summary.generator
    }

    /// Required fields present, per-mille.
    pub fn completeness_pm(&self) -> u16 {
        self.structured.completeness.as_ref().map_or(1_000, |completeness| completeness.score_pm)
    }

    /// Required fields that are missing.
    pub fn missing(&self) -> &[String] {
        self.structured.completeness.as_ref().map_or(&[], |completeness| &completeness.missing)
    }

    /// The payload as far as a destination with these grants may see it. What is not granted
    /// is removed, and marked so.
    #[must_use]
    pub fn project(&self, grants: Grants) -> Self {
        let mut seen = self.clone();
        let phi = self.classification.iter().any(|class| class == "phi");
        if grants.pii && (grants.phi || !phi) {
            return seen;
        }
        seen.structured.caller.ani.e164 = None;
        seen.structured.caller.matched.candidates = None;
        for item in &mut seen.structured.collected {
            if item.value.take().is_some() {
                item.redacted = Some("removed".to_owned());
            }
        }
        seen.structured.unresolved = None;
        seen.structured.crm = None;
        seen.summary.headline = None;
        seen.summary.whisper_text = None;
        seen.summary.text = Pii::new(build::anonymous_summary(&self.structured.trigger.code));
        seen.summary.sentence_count = 2;
        seen.summary.generator = Generator::TemplateFallback;
        seen.summary.model_ref = None;
        seen.structured.next_action.text = Pii::new("Open the handoff page for the next step.".to_owned());
        seen
    }

    /// Ids, a headline and a link: what a webhook carries unless its destination asked for all.
    pub fn thin(&self, grants: Grants) -> Value {
        let phi = self.classification.iter().any(|class| class == "phi");
        let mut thin = json!({
            "tenant_id": self.tenant_id,
            "call_id": self.call_id,
            "transfer_id": self.transfer_id,
            "payload_id": self.payload_id,
            "revision": self.revision,
            "agent_id": null,
            "pop_url": self.transcript.url.as_deref().map(|url| url.replace("/v1/transcripts/", "/desktop/#transfer=")),
            "expires_at": self.expires_at,
        });
        if let (Some(headline), Some(members), true) =
            (&self.summary.headline, thin.as_object_mut(), grants.phi || !phi)
        {
            members.insert("headline".to_owned(), json!(headline));
        }
        thin
    }
}
