//! What the handlers are configured with: whose calls, which rules, where webhooks go. Read
//! and checked by whoever starts them; nothing here parses a file.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use handoff::event::WebhookKind;
use handoff::id::{DestinationId, EdgeId, QueueId, TenantId};
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
#[derive(Clone)]
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

/// The id alone: a URL may hold a token, and a log line needs neither.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("id", &self.id).finish_non_exhaustive()
    }
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
    /// Queues with their labels; the first takes whoever asks for none that exists.
    pub queues: Vec<(QueueId, String)>,
    /// Where webhooks go.
    pub destinations: Vec<Destination>,
    /// Base of the links in payloads and messages, without a final slash.
    pub public_url: String,
}

impl FunctionsConfig {
    /// The queue that a call goes to, by the name that its voice agent asked for: chosen as the
    /// call itself chooses.
    pub fn queue(&self, asked: Option<&str>) -> Option<(&QueueId, &str)> {
        let named = asked.and_then(|asked| self.queues.iter().find(|(id, _)| id.as_str() == asked));
        named.or_else(|| self.queues.first()).map(|(id, label)| (id, label.as_str()))
    }

    /// The destination of an id.
    pub fn destination(&self, id: &DestinationId) -> Option<&Destination> {
        self.destinations.iter().find(|destination| destination.id == *id)
    }
}

/// The configuration that holds now. Clones share it, so that a reload reaches every handler
/// with its next record.
#[derive(Clone, Debug)]
pub struct Current(Arc<RwLock<Arc<FunctionsConfig>>>);

impl Current {
    /// Begins with `config`.
    pub fn new(config: FunctionsConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// What holds now.
    pub fn get(&self) -> Arc<FunctionsConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on, `config` holds.
    pub fn replace(&self, config: FunctionsConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, policy};

    #[test]
    fn a_call_keeps_its_policy_over_a_reload_and_the_oldest_goes_at_last() {
        let text = include_str!("../../handoff/policies/default.toml");
        let edited = |n: usize| Arc::new(Policy::from_toml(&format!("{text}\n# edit {n}\n")).unwrap());
        let set = PolicySet::new(&[policy()]);
        let first = policy().version().to_owned();
        let versions: Vec<String> = (1..POLICIES_MAX)
            .map(|n| {
                let policy = edited(n);
                set.publish(policy.clone());
                policy.version().to_owned()
            })
            .collect();
        assert!(set.policy(&first).is_some() && versions.iter().all(|version| set.policy(version).is_some()));
        set.publish(edited(POLICIES_MAX));
        assert!(set.policy(&first).is_none());
    }

    #[test]
    fn the_queue_is_the_one_that_was_asked_for_or_the_first() {
        let mut config = config(Vec::new());
        assert_eq!(config.queue(Some("nurse")), None);
        let queue = |id: &str, label: &str| (QueueId::parse(id).unwrap(), label.to_owned());
        config.queues = vec![queue("desk", "Front desk"), queue("nurse", "Nurse line")];
        let chosen = |asked| config.queue(asked).map(|(_, label)| label);
        assert_eq!(chosen(Some("nurse")), Some("Nurse line"));
        assert_eq!(chosen(Some("nobody")), Some("Front desk"));
        assert_eq!(chosen(None), Some("Front desk"));
    }
}
