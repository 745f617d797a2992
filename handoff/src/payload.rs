//! The context that travels with a transfer: `warmbridge.handoff/1.0`, three tiers, closed
//! types, canonical bytes.

use serde::{Deserialize, Serialize};

/// The payload (`warmbridge.handoff/1.0`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payload {}

/// The tenant's catalogue: intents with their required fields, actions, CRM fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {}
