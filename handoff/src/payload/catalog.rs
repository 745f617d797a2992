//! What a tenant's calls can be about: intents with the fields that each needs, actions, CRM
//! fields. It is read from the configuration, and checked there: whatever a payload takes
//! from it fits the payload's limits and says nothing personal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Classification, CrmSystem, sentences, shape};
use crate::id::QueueId;
use crate::redact::{self, Level, PriorTurns};

/// Most intents, and most actions. A catalogue is read by people; more is a mistake.
const ENTRIES_MAX: usize = 200;

/// Most required fields of an intent: the payload's list of missing ones holds no more.
const REQUIRED_MAX: usize = 12;

/// Most CRM fields: the payload's prefill holds no more.
const CRM_FIELDS_MAX: usize = 40;

/// The category for whatever no entry names. Part of every catalogue.
pub(super) const OTHER: &str = "other";

/// The action for whatever no entry names. Part of every catalogue.
pub(super) const ASSIST: &str = "assist_caller";

/// Intents, actions and fields of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Catalog {
    /// What calls can be about.
    #[serde(rename = "intent")]
    pub intents: Vec<Intent>,
    /// What a human agent can be asked to do first.
    #[serde(rename = "action")]
    pub actions: Vec<Action>,
    /// The CRM and its fields.
    pub crm: Crm,
    /// What is taken out of a payload's texts; at least `R1_pci`.
    pub redaction: Level,
    /// What every payload of the tenant is classed as, besides what is found in it.
    pub classification: Vec<Classification>,
    /// Fields that prove something of the caller's identity once confirmed.
    pub verification: Vec<String>,
    /// Fields that hold the caller's name, best first.
    pub names: Vec<String>,
    /// The configured queues; the shell fills them in. Empty: routing is not checked.
    pub queues: Vec<QueueId>,
}

/// One thing that calls can be about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// `billing.refund`
    pub category: String,
    /// Completes "The caller is calling about …": "a refund".
    pub label: String,
    /// Fields that the human agent needs.
    #[serde(default)]
    pub required: Vec<String>,
    /// Where such calls go unless a rule says otherwise.
    #[serde(default)]
    pub queue: Option<QueueId>,
    /// Code of the action to propose.
    #[serde(default)]
    pub action: Option<String>,
}

/// Something that a human agent can be asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// `refund_review`
    pub code: String,
    /// In words.
    pub text: String,
    /// A script to follow.
    #[serde(default)]
    pub script_ref: Option<String>,
    /// What not to do.
    #[serde(default)]
    pub do_not: Vec<String>,
}

/// The CRM that a payload is made ready for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Crm {
    /// Which.
    pub system: Option<CrmSystem>,
    /// Collected field → field of the CRM.
    pub fields: BTreeMap<String, String>,
}

/// Why a catalogue is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("payload catalogue: {entry}: {reason}")]
pub struct BadCatalog {
    /// The entry at fault.
    pub entry: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// As written, before the checks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Unchecked {
    intent: Option<Vec<Intent>>,
    action: Vec<Action>,
    crm: Crm,
    redaction: Level,
    classification: Vec<Classification>,
    verification: Vec<String>,
    names: Vec<String>,
    queues: Vec<QueueId>,
}

impl Default for Unchecked {
    fn default() -> Self {
        let Catalog { intents: _, actions, crm, redaction, classification, verification, names, queues } =
            Catalog::default();
        Self { intent: None, action: actions, crm, redaction, classification, verification, names, queues }
    }
}

impl TryFrom<Unchecked> for Catalog {
    type Error = BadCatalog;

    fn try_from(raw: Unchecked) -> Result<Self, BadCatalog> {
        let Unchecked { intent, action, crm, redaction, classification, verification, names, queues } = raw;
        // The default intents stay usable beside a tenant's own actions.
        let known = |code: &String| code == ASSIST || action.iter().any(|action| action.code == *code);
        let intents = intent.unwrap_or_else(|| {
            let mut intents = Self::default().intents;
            for intent in &mut intents {
                intent.action = intent.action.take().filter(known);
            }
            intents
        });
        let catalog =
            Self { intents, actions: action, crm, redaction, classification, verification, names, queues };
        catalog.check()?;
        Ok(catalog)
    }
}

impl Default for Catalog {
    /// A small catalogue that suits any business until it writes its own.
    fn default() -> Self {
        let intent = |category: &str, label: &str, required: &[&str], action: &str| Intent {
            category: category.to_owned(),
            label: label.to_owned(),
            required: required.iter().map(|key| (*key).to_owned()).collect(),
            queue: None,
            action: Some(action.to_owned()),
        };
        let action = |code: &str, text: &str| Action {
            code: code.to_owned(),
            text: text.to_owned(),
            script_ref: None,
            do_not: vec!["Do not ask again for what is shown as confirmed.".to_owned()],
        };
        let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        Self {
            intents: vec![
                intent("billing", "a billing question", &["name", "account_number"], "review_account"),
                intent("billing.refund", "a refund", &["name", "order_number"], "review_account"),
                intent("scheduling", "an appointment", &["name", "appointment"], "review_schedule"),
                intent(
                    "scheduling.move",
                    "moving an appointment",
                    &["name", "appointment"],
                    "review_schedule",
                ),
                intent("order.status", "an order", &["name", "order_number"], "review_account"),
                intent("account.access", "access to an account", &["name"], "verify_caller"),
                intent(
                    "clinical.medication",
                    "a medication question",
                    &["name", "medication"],
                    "clinical_review",
                ),
                intent("technical", "a technical problem", &["name"], "review_account"),
                intent("complaint", "a complaint", &["name"], "listen_first"),
            ],
            actions: vec![
                action(
                    "review_account",
                    "Greet the caller by what is known, then review the account with them.",
                ),
                action(
                    "review_schedule",
                    "Greet the caller by what is known, then review the schedule with them.",
                ),
                action("verify_caller", "Verify the caller before you open the account."),
                action("clinical_review", "Answer the clinical question, then document it."),
                action("listen_first", "Let the caller finish, then say what you can do."),
            ],
            crm: Crm::default(),
            redaction: Level::R1Pci,
            classification: Vec::new(),
            verification: owned(&["dob", "date_of_birth", "account_number", "member_id"]),
            names: owned(&["name", "caller_name", "patient_name", "customer_name", "full_name"]),
            queues: Vec::new(),
        }
    }
}

impl Catalog {
    /// Whether everything in it fits a payload. Run when it is read; a catalogue that is
    /// made in code can run it too.
    pub fn check(&self) -> Result<(), BadCatalog> {
        let bad = |entry: &str, reason| Err(BadCatalog { entry: entry.to_owned(), reason });
        if self.intents.len() > ENTRIES_MAX || self.actions.len() > ENTRIES_MAX {
            return bad("intent, action", "at most 200 of each");
        }
        for (at, intent) in self.intents.iter().enumerate() {
            let entry = intent.category.as_str();
            if !is_code(entry) {
                return bad(entry, "a category has 1 to 60 characters out of a-z 0-9 _ . -");
            }
            if self.intents.iter().skip(at + 1).any(|other| other.category == intent.category) {
                return bad(entry, "the category is listed twice");
            }
            if !is_phrase(&intent.label, 80) || intent.label.is_empty() {
                return bad(entry, "a label is a phrase of at most 80 characters that ends no sentence");
            }
            if intent.required.len() > REQUIRED_MAX || !intent.required.iter().all(|key| shape::key(key)) {
                return bad(entry, "required lists at most 12 field names");
            }
            if intent.action.as_ref().is_some_and(|code| code != ASSIST && self.action(code).is_none()) {
                return bad(entry, "the action is not in the catalogue");
            }
        }
        for action in &self.actions {
            let entry = action.code.as_str();
            let script = action.script_ref.as_ref().is_none_or(|script| script.chars().count() <= 120);
            if !is_code(entry) {
                return bad(entry, "a code has 1 to 60 characters out of a-z 0-9 _ . -");
            }
            if action.text.chars().count() > 240 || flagged(&action.text) || !script {
                return bad(
                    entry,
                    "text has at most 240 and script_ref at most 120 characters, and nothing personal",
                );
            }
            if action.do_not.len() > 4
                || action.do_not.iter().any(|not| not.chars().count() > 120 || flagged(not))
            {
                return bad(entry, "do_not lists at most 4 texts of at most 120 characters");
            }
        }
        let crm = &self.crm.fields;
        if crm.len() > CRM_FIELDS_MAX
            || !crm.iter().all(|(key, field)| shape::key(key) && shape::crm_field_name(field))
        {
            return bad("crm.fields", "at most 40 entries of a field name and a CRM field name");
        }
        if self.redaction == Level::R0None {
            return bad("redaction", "a payload is redacted at R1_pci at least");
        }
        if !self.verification.iter().chain(&self.names).all(|key| shape::key(key)) {
            return bad("verification, names", "a field name matches [a-z][a-z0-9_]{0,47}");
        }
        Ok(())
    }

    /// The intent of `category`.
    pub fn intent(&self, category: &str) -> Option<&Intent> {
        self.intents.iter().find(|intent| intent.category == category)
    }

    /// The action of `code`.
    pub fn action(&self, code: &str) -> Option<&Action> {
        self.actions.iter().find(|action| action.code == code)
    }

    /// The fields that a call about `category` needs.
    pub fn required(&self, category: &str) -> &[String] {
        self.intent(category).map_or(&[], |intent| &intent.required)
    }
}

fn is_code(text: &str) -> bool {
    (1..=60).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
}

/// A phrase that can stand inside a sentence.
fn is_phrase(text: &str, max: usize) -> bool {
    text.chars().count() <= max
        && !text.chars().any(char::is_control)
        && sentences::count(&format!("{text} x")) == 1
        && !flagged(text)
}

fn flagged(text: &str) -> bool {
    redact::flags(text, Level::R3Phi, &PriorTurns::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_catalogue_passes_its_own_checks() {
        assert_eq!(Catalog::default().check(), Ok(()));
    }

    #[test]
    fn a_catalogue_is_read_from_toml_and_unknown_keys_are_refused() {
        let catalog: Catalog = toml::from_str(
            r#"
            redaction = "R2_pii"
            classification = ["phi"]
            [[intent]]
            category = "clinic.refill"
            label = "a refill"
            required = ["name", "medication"]
            queue = "queue_nurse"
            action = "triage"
            [[action]]
            code = "triage"
            text = "Answer the question."
            [crm]
            system = "salesforce"
            fields = { name = "Contact.Name" }
            "#,
        )
        .unwrap();
        assert_eq!(catalog.required("clinic.refill"), ["name", "medication"]);
        assert_eq!(catalog.names, Catalog::default().names);
        assert!(toml::from_str::<Catalog>("").unwrap() == Catalog::default());
        for (text, reason) in [
            ("colour = 1", "unknown field"),
            ("[[intent]]\ncategory = \"A b\"\nlabel = \"x\"", "a category has"),
            ("[[intent]]\ncategory = \"a\"\nlabel = \"One. Two\"", "a label is a phrase"),
            ("[[intent]]\ncategory = \"a\"\nlabel = \"x\"\naction = \"nope\"", "the action is not"),
            ("redaction = \"R0_none\"", "R1_pci at least"),
            ("[crm.fields]\nname = \"1x\"", "CRM field name"),
        ] {
            let error = toml::from_str::<Catalog>(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
