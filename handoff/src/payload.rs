//! The context that travels with a transfer: `warmbridge.handoff/1.0`, three tiers, closed
//! types, canonical bytes.

use serde::{Deserialize, Serialize};

use crate::pii::Pii;

/// The payload (`warmbridge.handoff/1.0`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// From 1; the desktop replaces its view only with a higher one.
    pub revision: u32,
    /// The private briefing, as text.
    pub whisper: Option<Pii<String>>,
}

impl Payload {
    /// The private briefing, as text.
    pub fn whisper_text(&self) -> Option<&Pii<String>> {
        self.whisper.as_ref()
    }

    /// Required fields present, per-mille.
    pub fn completeness_pm(&self) -> u16 {
        0
    }
}

/// The tenant's catalogue: intents with their required fields, actions, CRM fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {}
