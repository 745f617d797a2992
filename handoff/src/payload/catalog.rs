//! What a tenant expects of a payload: its intents with the fields each needs, the actions
//! that may be recommended, and where fields go in its CRM. Part of the configuration, so
//! every table is closed and an unknown key is refused by name.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The tenant's catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalog {
    /// Intents by category. The one named `other` stands for all that are not named.
    pub intent: BTreeMap<String, Intent>,
    /// Actions by code. The one named `take_over` is recommended where nothing else fits.
    pub action: BTreeMap<String, Action>,
    /// Field name → CRM field.
    pub crm_field: BTreeMap<String, String>,
    /// Calls of this tenant may carry health information.
    pub health: bool,
}

/// One intent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// As people say it: `a refill of a medicine`.
    pub label: String,
    /// Fields without which the person would have to ask.
    #[serde(default)]
    pub required: Vec<String>,
    /// The action to recommend.
    #[serde(default)]
    pub action: Option<String>,
}

/// One action.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// What to do, in one sentence.
    pub text: String,
}

/// The intent of every call that fits no other.
pub(super) const OTHER: &str = "other";
/// The action where nothing else fits.
pub(super) const TAKE_OVER: &str = "take_over";

impl Default for Catalog {
    fn default() -> Self {
        let intent = |label: &str, required: &[&str], action: &str| Intent {
            label: label.to_owned(),
            required: required.iter().map(|field| (*field).to_owned()).collect(),
            action: Some(action.to_owned()),
        };
        let action = |text: &str| Action { text: text.to_owned() };
        Self {
            intent: BTreeMap::from([
                (OTHER.to_owned(), intent("a question for a person", &[], TAKE_OVER)),
                (
                    "clinical.medication_refill".to_owned(),
                    intent("a refill of a medicine", &["patient_name", "medication"], "clinical_review"),
                ),
                (
                    "clinical.medication".to_owned(),
                    intent("a question about a medicine", &["patient_name", "medication"], "clinical_review"),
                ),
                ("billing.refund".to_owned(), intent("a refund", &["account"], "review_account")),
                ("billing.question".to_owned(), intent("a bill", &["account"], "review_account")),
                ("scheduling.move".to_owned(), intent("moving an appointment", &["name"], "offer_times")),
            ]),
            action: BTreeMap::from([
                (
                    TAKE_OVER.to_owned(),
                    action("Confirm what the caller needs in one sentence, then take over."),
                ),
                (
                    "clinical_review".to_owned(),
                    action("Confirm the medicines the caller takes, then answer the question."),
                ),
                ("review_account".to_owned(), action("Open the account, confirm the item, then settle it.")),
                ("offer_times".to_owned(), action("Offer the next two free times.")),
            ]),
            crm_field: BTreeMap::new(),
            health: false,
        }
    }
}

impl Catalog {
    /// The intent of a category, or the one for all others.
    pub fn intent_of(&self, category: Option<&str>) -> (String, Intent) {
        let named =
            category.and_then(|name| self.intent.get(name).map(|intent| (name.to_owned(), intent.clone())));
        named.unwrap_or_else(|| {
            let other = self.intent.get(OTHER).cloned();
            let fallback =
                || Intent { label: "a question for a person".to_owned(), required: Vec::new(), action: None };
            (OTHER.to_owned(), other.unwrap_or_else(fallback))
        })
    }

    /// The action that an intent recommends; never empty.
    pub fn action_of(&self, intent: &Intent) -> (String, Action) {
        let code = intent.action.as_deref().unwrap_or(TAKE_OVER);
        let action = self.action.get(code).cloned();
        let fallback = || Action { text: "Confirm what the caller needs, then take over.".to_owned() };
        (code.to_owned(), action.unwrap_or_else(fallback))
    }

    /// What is wrong with it: an intent that recommends an action which is not there.
    pub fn faults(&self) -> Vec<String> {
        self.intent
            .iter()
            .filter_map(|(category, intent)| {
                let code = intent.action.as_deref()?;
                (!self.action.contains_key(code))
                    .then(|| format!("intent `{category}` recommends the unknown action `{code}`"))
            })
            .collect()
    }
}
