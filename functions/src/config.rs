//! What the handlers are configured with: whose calls, which rules, where webhooks go. Read
//! and checked by whoever starts them; nothing here parses a file.

use std::sync::{Arc, PoisonError, RwLock};

use handoff::event::WebhookKind;
use handoff::id::{DestinationId, EdgeId, TenantId};
use handoff::payload::{Catalog, Grants};
use handoff::policy::Policy;
use handoff::webhook::Secret;
use ipnet::IpNet;

use crate::ports::{COMMANDS_PREFIX, Policies};

/// Most versions of the policy that are kept: a call is pinned to the version that it began
/// with, and more reloads than this within one call mean that somebody is editing live.
const POLICIES_MAX: usize = 16;

/// How much of a payload a destination gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Ids, a headline and a link.
    #[default]
    Thin,
    /// The whole payload, as far as its grants allow.
    Full,
}

/// Where webhooks go.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its id in the configuration.
    pub id: DestinationId,
    /// HTTPS, except at the addresses of `allow_private`.
    pub url: String,
    /// Signing key.
    pub secret: Secret,
    /// The key before the last rotation; both sign until it is removed.
    pub old_secret: Option<Secret>,
    /// How much it gets.
    pub content: Content,
    /// A transfer that it misses counts as degraded.
    pub required: bool,
    /// What it subscribes to; empty means everything.
    pub events: Vec<WebhookKind>,
    /// Addresses that the guard opens for it: any port and plain HTTP there.
    pub allow_private: Vec<IpNet>,
    /// What it is trusted with.
    pub grants: Grants,
}

impl Destination {
    /// Whether it wants messages of this kind.
    pub fn wants(&self, kind: WebhookKind) -> bool {
        self.events.is_empty() || self.events.contains(&kind)
    }
}

/// The configuration of all handlers.
#[derive(Clone, Debug)]
pub struct FunctionsConfig {
    /// Whose calls.
    pub tenant: TenantId,
    /// The edge whose commands are delivered in the embedded mode.
    pub edge: EdgeId,
    /// The policies that running calls may be pinned to, oldest first.
    pub policies: Vec<Arc<Policy>>,
    /// Intents, actions and CRM fields.
    pub catalog: Arc<Catalog>,
    /// Where webhooks go.
    pub destinations: Vec<Destination>,
    /// Base of the links in payloads and messages, without a final slash.
    pub public_url: String,
}

impl FunctionsConfig {
    /// The destination of an id.
    pub fn destination(&self, id: &DestinationId) -> Option<&Destination> {
        self.destinations.iter().find(|destination| destination.id == *id)
    }
}

/// The command queue of an event: the one that it names, or the edge's own by name.
pub fn command_queue(named: &str, edge: &EdgeId) -> String {
    if named.is_empty() { format!("{COMMANDS_PREFIX}{edge}") } else { named.to_owned() }
}

/// Policies by version, with room for reloads.
#[derive(Clone, Debug, Default)]
pub struct PolicySet(Arc<RwLock<Vec<Arc<Policy>>>>);

impl PolicySet {
    /// The policies of a configuration.
    pub fn new(policies: &[Arc<Policy>]) -> Self {
        let set = Self::default();
        for policy in policies {
            set.publish(policy.clone());
        }
        set
    }

    /// Adds a version; the oldest goes when there are too many.
    pub fn publish(&self, policy: Arc<Policy>) {
        let mut policies = self.0.write().unwrap_or_else(PoisonError::into_inner);
        policies.retain(|known| known.version() != policy.version());
        policies.push(policy);
        if policies.len() > POLICIES_MAX {
            policies.remove(0);
        }
    }
}

impl Policies for PolicySet {
    fn policy(&self, version: &str) -> Option<Arc<Policy>> {
        let policies = self.0.read().unwrap_or_else(PoisonError::into_inner);
        policies.iter().find(|policy| policy.version() == version).cloned()
    }
}
