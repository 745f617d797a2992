//! Tier 2 of the payload: the facts, each with its source, for people and for a CRM.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{nullable, present};
use crate::clock::Timestamp;
use crate::conversation::Provenance;
use crate::id::QueueId;
use crate::pii::Pii;
use crate::policy::Category;

/// Tier 2: the facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Structured {
    /// Who calls.
    pub caller: Caller,
    /// What about.
    pub intent: IntentView,
    /// Why a person.
    pub trigger: TriggerView,
    /// What is known.
    pub collected: Vec<Item>,
    /// What to do first.
    pub next_action: NextAction,
    /// What the voice agent did.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub actions_taken: Option<Vec<ActionTaken>>,
    /// What is open.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<Vec<Pii<String>>>,
    /// Where it goes.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// For the CRM.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub crm: Option<CrmView>,
    /// How much of what the intent needs is here.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub completeness: Option<Completeness>,
}

/// Who calls, and how far that can be trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// The number.
    pub ani: Ani,
    /// The CRM's answer.
    #[serde(rename = "match")]
    pub matched: Match,
    /// What was proven.
    pub verification: Verification,
}

/// The caller's number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ani {
    /// E.164; null where there is none to show.
    #[serde(deserialize_with = "nullable")]
    pub e164: Option<Pii<String>>,
    /// Whether it may be shown.
    pub presentation: Presentation,
    /// The carrier's verdict.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub stir: Option<Stir>,
}

/// Whether a number may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presentation {
    /// Yes.
    Allowed,
    /// The caller asked for it not to be.
    Restricted,
    /// There is none.
    Unavailable,
}

/// STIR/SHAKEN verdict: about the number, never about the person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stir {
    /// The verdict.
    pub verstat: Verstat,
    /// The attestation.
    pub attest: Attest,
    /// Who verified.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub source: Option<StirSource>,
}

/// Verdict over a caller's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verstat {
    /// Valid.
    Passed,
    /// Invalid.
    Failed,
    /// Not verified.
    None,
}

/// Attestation level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attest {
    /// Full.
    A,
    /// Partial.
    B,
    /// Gateway.
    C,
    /// Not known.
    #[serde(rename = "none")]
    None,
}

/// Who verified a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StirSource {
    /// The trunk, in a header.
    TrunkHeader,
    /// We did.
    LocalVerify,
}

/// What a CRM look-up found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The answer.
    pub status: MatchStatus,
    /// What was looked up.
    pub method: MatchMethod,
    /// Records, best first.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<CrmRef>>,
}

/// Answer of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchStatus {
    /// One record.
    Unique,
    /// Several.
    Multiple,
    /// No record.
    None,
    /// The CRM did not answer.
    LookupFailed,
    /// Nobody asked.
    NotAttempted,
}

/// What was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchMethod {
    /// The caller's number.
    Ani,
    /// An account number.
    AccountNumber,
    /// What the caller said.
    CallerStated,
    /// Nothing.
    None,
}

/// What is proven of the caller's identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// How far.
    pub level: VerificationLevel,
    /// By what.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// When.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// How far an identity is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationLevel {
    /// Not at all.
    Unverified,
    /// The number matches a record; numbers are shared and stolen.
    AniMatchOnly,
    /// One knowledge detail was confirmed.
    PartialKba,
    /// The tenant's own procedure was passed.
    Verified,
}

/// What the caller wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentView {
    /// Category of the tenant's catalogue.
    pub category: String,
    /// Its label.
    pub label: String,
    /// Per-mille.
    pub confidence_pm: u16,
    /// Earlier ones.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub secondary: Option<Vec<String>>,
    /// How the caller feels.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub sentiment: Option<Sentiment>,
}

/// How the caller feels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sentiment {
    /// Well.
    Positive,
    /// Neither.
    Neutral,
    /// Badly.
    Negative,
    /// Very badly.
    Distressed,
    /// Not known.
    Unknown,
}

/// Why the call is handed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerView {
    /// Category.
    pub code: Category,
    /// Rule of the policy.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<String>,
    /// Version of the policy.
    pub ruleset: String,
    /// When.
    pub fired_at: Timestamp,
    /// What the rule saw.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// Other rules that fired.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub also: Option<Vec<String>>,
    /// The edge acts on it alone.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub mandatory: Option<bool>,
}

/// One collected fact with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Name.
    pub key: String,
    /// Name to show.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Value; null where redaction removed it.
    #[serde(deserialize_with = "nullable")]
    pub value: Option<Pii<String>>,
    /// Type of the value.
    #[serde(rename = "type", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ItemType>,
    /// Where it came from.
    pub provenance: Provenance,
    /// The segment in which it was stated.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub segment: Option<u32>,
    /// Per-mille.
    pub confidence_pm: u16,
    /// The caller confirmed it.
    pub confirmed: bool,
    /// What redaction did.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub redacted: Option<Masking>,
    /// Field of the CRM.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub crm_field: Option<String>,
    /// The segment in which the caller confirmed it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub confirmed_segment: Option<u32>,
}

/// Type of a collected value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemType {
    /// Text.
    String,
    /// A day.
    Date,
    /// A moment.
    Datetime,
    /// A whole number.
    Integer,
    /// An amount.
    Money,
    /// A telephone number.
    E164,
    /// An e-mail address.
    Email,
    /// One of a list.
    Enum,
    /// Yes or no.
    Boolean,
}

/// What redaction did to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Masking {
    /// Nothing.
    None,
    /// Took a part out.
    Masked,
    /// Took all of it out.
    Removed,
    /// Put a token in its place.
    Tokenized,
}

/// What to do first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextAction {
    /// Code of the tenant's catalogue.
    pub code: String,
    /// In words.
    pub text: Pii<String>,
    /// A script to follow.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub script_ref: Option<String>,
    /// What not to do.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub do_not: Option<Vec<Pii<String>>>,
}

/// One tool run of the voice agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionTaken {
    /// The tool.
    pub tool: String,
    /// How it ended.
    pub outcome: ToolOutcome,
    /// When.
    pub at: Timestamp,
    /// What it made.
    #[serde(rename = "ref", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Pii<String>>,
}

/// How a tool run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolOutcome {
    /// It succeeded.
    Ok,
    /// It failed.
    Failed,
    /// Not known.
    Unknown,
}

/// Where a call goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// The queue.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub target_id: Option<QueueId>,
    /// Its label.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// A skill.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// 0 to 9.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// The wait that the caller was told, in seconds.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub promised_wait_s: Option<u32>,
}

/// A record of a CRM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrmRef {
    /// Kind of record.
    pub object: String,
    /// Its id; a pseudonym of a person.
    pub id: Pii<String>,
    /// Where it is shown.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub url: Option<Pii<String>>,
}

/// A known CRM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrmSystem {
    /// Salesforce.
    Salesforce,
    /// Zendesk.
    Zendesk,
    /// HubSpot.
    Hubspot,
    /// Amazon Connect.
    AmazonConnect,
    /// Dynamics 365.
    Dynamics,
    /// Freshdesk.
    Freshdesk,
    /// Any other, by webhook.
    Generic,
}

/// What the CRM is to show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrmView {
    /// Which CRM.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub system: Option<CrmSystem>,
    /// The record to open.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub screen_pop: Option<CrmRef>,
    /// Fields to fill in.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub prefill: Option<BTreeMap<String, Option<Pii<String>>>>,
}

/// How much of what the intent needs is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completeness {
    /// Required fields present, per-mille.
    pub score_pm: u16,
    /// What is missing or was dropped.
    pub missing: Vec<String>,
}
