//! What the functions run by, as each edge publishes it: one JSON object per edge in the
//! bucket, without any secret. A function looks at it when a record of that edge comes, again
//! after some seconds, and at once where a record names a policy that it does not know. Signing
//! keys come from Secrets Manager, by the destination's id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use handoff::audit::Hash;
use handoff::event::WebhookKind;
use handoff::id::{DestinationId, EdgeId, QueueId, TenantId};
use handoff::payload::{Catalog, Grants};
use handoff::policy::Policy;
use handoff::webhook::Secret;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{Cloud, code_of, failed};
use crate::clock::SystemClock;
use crate::config::{Content, Current, Destination, FunctionsConfig, PolicySet};
use crate::http::HttpSender;
use crate::ports::{Clock, Policies, PortError};

/// Version of the published object; others are refused.
const VERSION: u32 = 1;

/// Largest published object: some policies with thousands of phrases each.
const PUBLISHED_LEN_MAX: usize = 16 * 1024 * 1024;

/// Texts of earlier policies that stay published: running calls are pinned to them.
const POLICIES_MAX: usize = 16;

/// How long the published object is taken for unchanged: an edge's reload holds for its new
/// calls at once, and for the functions this much later.
const LOOK_AGAIN_MS: u64 = 10_000;

/// How long an unchanged object's signing keys are kept; a rotated key holds after this.
const KEPT_MS: u64 = 5 * 60_000;

/// The least time between two looks for one edge, whatever a record names.
const LOOK_AT_ONCE_MS: u64 = 2_000;

/// Most edges whose settings one function keeps; a stack has a handful.
const EDGES_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    version: u32,
    tenant: TenantId,
    edge: EdgeId,
    /// The files of the policies, oldest first.
    policies: Vec<String>,
    catalog: Catalog,
    queues: Vec<(QueueId, String)>,
    destinations: Vec<PublishedDestination>,
    public_url: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishedDestination {
    id: DestinationId,
    url: String,
    full: bool,
    required: bool,
    events: Vec<WebhookKind>,
    allow_private: Vec<IpNet>,
    pii: bool,
    phi: bool,
}

impl From<&Destination> for PublishedDestination {
    fn from(destination: &Destination) -> Self {
        Self {
            id: destination.id.clone(),
            url: destination.url.clone(),
            full: destination.content == Content::Full,
            required: destination.required,
            events: destination.events.clone(),
            allow_private: destination.allow_private.clone(),
            pii: destination.grants.pii,
            phi: destination.grants.phi,
        }
    }
}

impl PublishedDestination {
    fn with(self, (secret, old_secret): (Secret, Option<Secret>)) -> Destination {
        Destination {
            id: self.id,
            url: self.url,
            secret,
            old_secret,
            content: if self.full { Content::Full } else { Content::Thin },
            required: self.required,
            events: self.events,
            allow_private: self.allow_private,
            grants: Grants { pii: self.pii, phi: self.phi },
        }
    }
}

fn object_of(edge: &EdgeId) -> String {
    format!("config/{edge}.json")
}

impl Cloud {
    /// Publishes what the functions run by for one edge. `policy` is the text of its policy;
    /// those published before stay for the calls that are pinned to them.
    pub async fn publish(&self, config: &FunctionsConfig, policy: &str) -> Result<(), PortError> {
        let before = self.published(&config.edge).await?;
        let mut policies = before.map(|before| before.policies).unwrap_or_default();
        policies.retain(|text| text != policy);
        policies.push(policy.to_owned());
        let surplus = policies.len().saturating_sub(POLICIES_MAX);
        policies.drain(..surplus);
        let published = Published {
            version: VERSION,
            tenant: config.tenant.clone(),
            edge: config.edge.clone(),
            policies,
            catalog: (*config.catalog).clone(),
            queues: config.queues.clone(),
            destinations: config.destinations.iter().map(PublishedDestination::from).collect(),
            public_url: config.public_url.clone(),
        };
        // Text and integers only: nothing in these types can fail.
        let bytes = serde_json::to_vec(&published).unwrap_or_default();
        self.put_object(&self.names.media, &object_of(&config.edge), bytes).await
    }

    async fn published(&self, edge: &EdgeId) -> Result<Option<Published>, PortError> {
        let bytes = self.object(&self.names.media, &object_of(edge)).await?;
        bytes.map(|bytes| parsed(edge, &bytes)).transpose()
    }

    /// The signing key of a destination, and the one before its last rotation: the secret's
    /// first and second line.
    async fn secret_of(&self, destination: &DestinationId) -> Result<(Secret, Option<Secret>), PortError> {
        let name = format!("{}{destination}", self.names.secrets_prefix);
        let answer = self.secrets().get_secret_value().secret_id(&name).send().await.map_err(|error| {
            if code_of(&error) == Some("ResourceNotFoundException") {
                return PortError::Transient(format!(
                    "there is no secret {name}: put the destination's whsec_… there"
                ));
            }
            failed("the secrets", error)
        })?;
        let text = answer.secret_string.unwrap_or_default();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let bad = |_| {
            PortError::Transient(format!("the secret {name} is not whsec_ and 24 to 64 bytes in base 64"))
        };
        let secret = Secret::parse(lines.next().unwrap_or_default()).map_err(bad)?;
        Ok((secret, lines.next().map(Secret::parse).transpose().map_err(bad)?))
    }
}

fn parsed(edge: &EdgeId, bytes: &[u8]) -> Result<Published, PortError> {
    // Not the record's fault that asks for them: it waits until the edge has published others.
    let bad = |what| Err(PortError::Transient(format!("the published settings of {edge}: {what}")));
    if bytes.len() > PUBLISHED_LEN_MAX {
        return bad("too large");
    }
    match serde_json::from_slice::<Published>(bytes) {
        Ok(published) if published.version == VERSION => Ok(published),
        Ok(_) => bad("unknown version"),
        Err(_) => bad("do not parse"),
    }
}

/// What a function runs by for one edge.
pub struct Settings<S> {
    /// Its configuration.
    pub config: Arc<FunctionsConfig>,
    /// Its policies.
    pub policies: PolicySet,
    /// What sends its webhooks, and keeps connections between records; nothing in a function
    /// that sends none.
    pub sender: S,
    digest: Hash,
    read_at_ms: u64,
    looked_at_ms: AtomicU64,
}

/// What a function does with receivers beyond naming them. A type and no flag, so that a
/// function that sends nothing has neither the HTTP client nor that of the secrets in it.
pub trait Sender: Sized {
    /// The signing key of a destination, and the one before its last rotation.
    fn keys(
        cloud: &Cloud,
        destination: &DestinationId,
    ) -> impl Future<Output = Result<(Secret, Option<Secret>), PortError>> + Send;

    /// One for the receivers of `config`.
    fn new(config: &FunctionsConfig, clock: SystemClock) -> Self;
}

/// Signs nothing and sends nothing.
impl Sender for () {
    async fn keys(_: &Cloud, _: &DestinationId) -> Result<(Secret, Option<Secret>), PortError> {
        Ok((no_secret()?, None))
    }

    fn new(_: &FunctionsConfig, _: SystemClock) -> Self {}
}

impl Sender for HttpSender<SystemClock> {
    async fn keys(cloud: &Cloud, destination: &DestinationId) -> Result<(Secret, Option<Secret>), PortError> {
        cloud.secret_of(destination).await
    }

    fn new(config: &FunctionsConfig, clock: SystemClock) -> Self {
        Self::new(Current::new(config.clone()), clock)
    }
}

/// The settings of all edges, as far as this function has seen them.
pub struct Library<S> {
    cloud: Cloud,
    clock: SystemClock,
    known: Mutex<BTreeMap<EdgeId, Arc<Settings<S>>>>,
}

impl<S: Sender> Library<S> {
    /// Reads nothing yet.
    pub fn new(cloud: Cloud, clock: SystemClock) -> Self {
        Self { cloud, clock, known: Mutex::new(BTreeMap::new()) }
    }

    /// The settings of an edge. Where `policy` is named and not known, they are read again.
    pub async fn of(&self, edge: &EdgeId, policy: Option<&str>) -> Result<Arc<Settings<S>>, PortError> {
        let now_ms = self.clock.now().millis();
        let mut known = self.known.lock().await;
        let before = known.get(edge).cloned();
        if let Some(settings) = &before {
            let age = now_ms.saturating_sub(settings.looked_at_ms.load(Ordering::Relaxed));
            let lacks = policy.is_some_and(|version| settings.policies.policy(version).is_none());
            if age < if lacks { LOOK_AT_ONCE_MS } else { LOOK_AGAIN_MS } {
                return Ok(Arc::clone(settings));
            }
        }
        let settings = match (self.looked(edge, before.as_ref(), now_ms).await, before) {
            (Ok(settings), _) => settings,
            // What held a moment ago is better than nothing while the bucket is away.
            (Err(PortError::Transient(why)), Some(before)) => {
                tracing::warn!(why, "the settings could not be looked at; the ones before hold");
                before
            }
            (Err(error), _) => return Err(error),
        };
        settings.looked_at_ms.store(now_ms, Ordering::Relaxed);
        if known.len() >= EDGES_MAX && !known.contains_key(edge) {
            known.pop_first();
        }
        known.insert(edge.clone(), Arc::clone(&settings));
        Ok(settings)
    }

    /// The settings as they are published now: the ones before, where nothing changed.
    async fn looked(
        &self,
        edge: &EdgeId,
        before: Option<&Arc<Settings<S>>>,
        now_ms: u64,
    ) -> Result<Arc<Settings<S>>, PortError> {
        let bytes = self.cloud.object(&self.cloud.names.media, &object_of(edge)).await?;
        // Not there yet is not for good: the edge publishes when it can.
        let bytes =
            bytes.ok_or_else(|| PortError::Transient(format!("{edge} has not published its settings")))?;
        let digest = Hash::of(&[&bytes]);
        let fresh = |settings: &&Arc<Settings<S>>| {
            settings.digest == digest && now_ms.saturating_sub(settings.read_at_ms) < KEPT_MS
        };
        match before.filter(fresh) {
            Some(settings) => Ok(Arc::clone(settings)),
            None => Ok(Arc::new(self.read(edge, parsed(edge, &bytes)?, digest, now_ms).await?)),
        }
    }

    async fn read(
        &self,
        edge: &EdgeId,
        published: Published,
        digest: Hash,
        read_at_ms: u64,
    ) -> Result<Settings<S>, PortError> {
        let bad = |what: String| PortError::Transient(format!("the published settings of {edge}: {what}"));
        let policies = published
            .policies
            .iter()
            .map(|text| Policy::from_toml(text).map(Arc::new).map_err(|error| bad(error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let mut destinations = Vec::new();
        for destination in published.destinations {
            let secrets = S::keys(&self.cloud, &destination.id).await?;
            destinations.push(destination.with(secrets));
        }
        let config = FunctionsConfig {
            tenant: published.tenant,
            edge: published.edge,
            policies: policies.clone(),
            catalog: Arc::new(published.catalog),
            queues: published.queues,
            destinations,
            public_url: published.public_url,
        };
        let sender = S::new(&config, self.clock);
        Ok(Settings {
            config: Arc::new(config),
            policies: PolicySet::new(&policies),
            sender,
            digest,
            read_at_ms,
            looked_at_ms: AtomicU64::new(read_at_ms),
        })
    }
}

/// What a function that signs nothing has for a key: chance, that no receiver knows.
fn no_secret() -> Result<Secret, PortError> {
    let mut bytes = [0; 32];
    let none = |_| PortError::Transient("the system gives no randomness".to_owned());
    getrandom::fill(&mut bytes).map_err(none)?;
    Secret::from_bytes(&bytes).map_err(|_| PortError::Permanent("a key of 32 bytes is refused".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, destination};

    #[test]
    fn no_secret_is_published() {
        let config = config(vec![destination("crm")]);
        let published: Vec<_> = config.destinations.iter().map(PublishedDestination::from).collect();
        let json = serde_json::to_value(published).unwrap();
        let names: Vec<&String> = json[0].as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            ["allow_private", "events", "full", "id", "phi", "pii", "required", "url"],
            "a new member must hold no secret"
        );
    }
}
