//! From a checked configuration to the rules that the edge, the media plane and the
//! functions run by. Everything a running call is pinned to is built here, once per load.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use functions::config::{Content, Destination, FunctionsConfig};
use functions::guard;
use functions::local::checkpointer::Plan;
use functions::sqlite::Store;
use handoff::call::CallRules;
use handoff::payload::{Catalog, Grants};
use handoff::pii::Pii;
use handoff::policy::Policy;

use crate::config::{Config, Grant, HoldSignalling, Phone, WebhookMode};
use crate::edge::EdgeConfig;
use crate::edge::directory::{Dial, Members, Person};
use crate::io::media::MediaConfig;
use crate::sip::{
    Account, CallLimits, Credentials, Destination as SipDestination, SipConfig, TrunkConfig, UplinkConfig,
    UserConfig,
};

/// Calls at once on one edge: the RTP range of the example holds four ports a call for this
/// many. Measured capacity is above it on one core.
const CALLS_MAX: usize = 1_000;

/// Media threads. One carries some hundreds of calls; signalling needs the other core.
const MEDIA_THREADS: usize = 1;

/// Everything that is built from one configuration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Rules of the calls that arrive from now on.
    pub rules: Arc<CallRules>,
    /// The directory.
    pub people: Vec<Person>,
    /// Its queues.
    pub queues: Vec<Members>,
    /// The media plane.
    pub media: MediaConfig,
    /// What the functions run by.
    pub functions: Arc<FunctionsConfig>,
    /// URL of the queue that this edge takes its commands from; empty in this process.
    pub commands: String,
    /// The policy's text, as the functions of the cloud read it.
    pub policy: String,
    /// Where checkpoints of the audit trail go; they hold from one start to the next.
    pub checkpoints: Option<Plan>,
    config: Config,
    tag_key: Pii<[u8; 32]>,
}

impl Setup {
    /// Reads the policy file and builds the rules. The key of callers' pseudonyms follows
    /// from the store's key where the configuration names none.
    pub fn of(config: &Config, store: &Store) -> Result<Self> {
        let policy = policy_of(config)?;
        let policy_text = policy_text(config)?;
        let rules = CallRules {
            tenant: config.edge.tenant.clone(),
            edge: config.edge.id.clone(),
            policy: Arc::new(policy),
            catalog: Arc::new(catalog_of(config)?),
            queues: config.queues.iter().map(crate::config::Queue::rules).collect(),
            lang: config.edge.lang.clone(),
            disclosure: spoken(&config.edge.disclosure, &config.edge.lang),
            hold_by_reinvite: config.edge.hold_signalling == HoldSignalling::Reinvite,
            recording: config.edge.recording,
            on_voice_agent_bye: config.voice_agent.on_bye,
            rtp_timeout: config.edge.rtp_timeout,
            cancel_while_waiting: config.edge.cancel_while_waiting,
            public_url: config.edge.public_url.clone(),
        };
        let functions = FunctionsConfig {
            tenant: rules.tenant.clone(),
            edge: rules.edge.clone(),
            policies: vec![Arc::clone(&rules.policy)],
            catalog: Arc::clone(&rules.catalog),
            queues: config.queues.iter().map(|queue| (queue.id.clone(), queue.label.clone())).collect(),
            destinations: config.webhooks.iter().map(destination).collect::<Result<_>>()?,
            public_url: rules.public_url.clone(),
        };
        Ok(Self {
            rules: Arc::new(rules),
            functions: Arc::new(functions),
            checkpoints: config
                .audit
                .checkpoints
                .as_ref()
                .map(|dir| Plan { dir: dir.clone(), every: config.audit.checkpoint_every }),
            people: config.agents.iter().map(person).collect(),
            queues: config
                .queues
                .iter()
                .map(|queue| Members { queue: queue.id.clone(), people: queue.agents.clone() })
                .collect(),
            media: MediaConfig {
                ip: rtp_address(&config.edge),
                ports: config.edge.rtp_ports.0..=config.edge.rtp_ports.1,
                threads: MEDIA_THREADS,
                real_time: true,
                polly: config.aws.as_ref().and_then(|aws| aws.polly.clone()),
            },
            tag_key: Pii::new(tag_key(config, store)),
            config: config.clone(),
            commands: String::new(),
            policy: policy_text,
        })
    }

    /// The router's configuration, now that the sockets are bound.
    pub fn edge(&self, udp: SocketAddr, tcp: Option<SocketAddr>, tls: Option<SocketAddr>) -> EdgeConfig {
        let edge = &self.config.edge;
        let advertised = |bound: SocketAddr| SocketAddr::new(edge.public_ip, bound.port());
        let call_types: BTreeMap<String, String> = self
            .config
            .trunks
            .iter()
            .filter_map(|trunk| Some((trunk.name.clone(), trunk.call_type.clone()?)))
            .collect();
        EdgeConfig {
            rules: Arc::clone(&self.rules),
            media_ip: edge.public_ip,
            sip: SipConfig {
                advertised_tcp: tcp.map(advertised),
                advertised_tls: tls.map(advertised),
                trunks: self.config.trunks.iter().map(trunk).collect(),
                limits: self.config.trunks.iter().filter_map(limits).collect(),
                uplinks: self.config.trunks.iter().filter_map(|trunk| uplink(trunk, false)).collect(),
                users: self.config.agents.iter().filter_map(user).collect(),
                allow_loopback: edge.allow_loopback,
                phones_srtp: edge.phones_srtp,
                ..SipConfig::new(advertised(udp), &edge.public_ip.to_string())
            },
            call_types,
            people: self.people.clone(),
            queues: self.queues.clone(),
            tag_key: self.tag_key.clone(),
            calls_max: CALLS_MAX,
            commands: self.commands.clone(),
        }
    }
}

/// Where RTP is bound: on the interface of SIP, because the public address may be that of a NAT
/// before this machine.
fn rtp_address(edge: &crate::config::Edge) -> IpAddr {
    let sip = edge.sip_udp.or(edge.sip_tcp).map(|address| address.ip());
    sip.filter(|ip| ip.is_ipv4() == edge.public_ip.is_ipv4()).unwrap_or(edge.public_ip)
}

/// The configured key, or one that follows from the store's and stays with it.
fn tag_key(config: &Config, store: &Store) -> [u8; 32] {
    match &config.audit.tag_key {
        Some(secret) => handoff::seal::derived_key(secret.reveal(), "caller tag"),
        None => store.derived_key("caller tag"),
    }
}

fn destination(webhook: &crate::config::Webhook) -> Result<Destination> {
    guard::check_configured(&webhook.url, &webhook.allow_private)
        .with_context(|| format!("the url of the webhook {}", webhook.id))?;
    Ok(Destination {
        id: webhook.id.clone(),
        url: webhook.url.clone(),
        // Where the functions run in the cloud, theirs is the key; nothing here signs.
        secret: match &webhook.secret {
            Some(secret) => handoff::webhook::Secret::from_bytes(secret.reveal())?,
            None => handoff::webhook::Secret::from_bytes(&functions::sqlite::random::<32>()?)?,
        },
        old_secret: webhook
            .old_secret
            .as_ref()
            .map(|secret| handoff::webhook::Secret::from_bytes(secret.reveal()))
            .transpose()?,
        content: match webhook.mode {
            WebhookMode::Thin => Content::Thin,
            WebhookMode::Full => Content::Full,
        },
        required: webhook.required,
        events: webhook.events.iter().copied().collect(),
        allow_private: webhook.allow_private.clone(),
        grants: Grants {
            pii: webhook.grants.contains(&Grant::Pii),
            phi: webhook.grants.contains(&Grant::Phi),
        },
    })
}

/// The clip of a sentence in a language: its name and the primary subtag.
fn spoken(sentence: &str, lang: &str) -> String {
    format!("{sentence}.{}", lang.split('-').next().unwrap_or_default())
}

/// The policy that a configuration names.
pub fn policy_of(config: &Config) -> Result<Policy> {
    let text = policy_text(config)?;
    let path = config.policy_file.display();
    Policy::from_toml(&text).map_err(|error| anyhow::anyhow!("the policy {path}: {error}"))
}

fn policy_text(config: &Config) -> Result<String> {
    let path: &PathBuf = &config.policy_file;
    std::fs::read_to_string(path).with_context(|| format!("cannot read the policy {}", path.display()))
}

/// The tenant's catalogue from `[payload]`; the built-in one where that is empty.
fn catalog_of(config: &Config) -> Result<Catalog> {
    if config.payload.is_empty() {
        return Ok(Catalog::default());
    }
    toml::Value::Table(config.payload.clone()).try_into().context("the section [payload]")
}

fn person(agent: &crate::config::Agent) -> Person {
    Person {
        id: agent.id.clone(),
        dial: match &agent.phone {
            Phone::Registered { user, .. } => Dial::Registered(user.clone()),
            Phone::Fixed(phone) => Dial::Fixed(SipDestination::Uri(phone.uri.clone())),
        },
        ring_timeout: agent.ring_timeout,
        accept_timeout: agent.accept_timeout,
        lang: agent.lang.clone(),
        trusted: agent.trusted,
        accept_on_answer: agent.accept_on_answer,
    }
}

fn trunk(trunk: &crate::config::Trunk) -> TrunkConfig {
    TrunkConfig {
        name: trunk.name.clone(),
        addresses: trunk.addresses.clone(),
        call_type: trunk.call_type.clone(),
        hold_by_reinvite: true,
        port: None,
        credentials: None,
        rel100: trunk.rel100,
        srtp: trunk.srtp,
    }
}

fn limits(trunk: &crate::config::Trunk) -> Option<CallLimits> {
    let (calls_max, calls_per_s) = (trunk.calls_max, trunk.calls_per_s);
    let limited = calls_max.is_some() || calls_per_s.is_some();
    limited.then(|| CallLimits { trunk: trunk.name.clone(), calls_max, calls_per_s })
}

/// What is kept up with a trunk, if anything; a query asks for it and changes nothing.
pub fn uplink(trunk: &crate::config::Trunk, query: bool) -> Option<UplinkConfig> {
    let uplink = trunk.uplink.as_ref()?;
    Some(UplinkConfig {
        trunk: trunk.name.clone(),
        account: uplink.account.as_ref().map(|account| Account {
            user: account.user.clone(),
            domain: account.domain.clone(),
            port: account.port,
            credentials: Credentials { user: account.auth_user.clone(), secret: password(&account.password) },
            expires_secs: account.expires_s,
        }),
        options: uplink.options,
        known_by_servers: trunk.addresses.is_empty(),
        query,
    })
}

fn password(secret: &crate::config::Secret) -> crate::sip::Secret {
    crate::sip::Secret::Password(Pii::new(String::from_utf8_lossy(secret.reveal()).into_owned()))
}

fn user(agent: &crate::config::Agent) -> Option<UserConfig> {
    match &agent.phone {
        Phone::Registered { user, password, allow_md5 } => Some(UserConfig {
            name: user.clone(),
            secret: self::password(password),
            allow_md5: *allow_md5,
            uri: None,
        }),
        Phone::Fixed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtp_is_bound_where_sip_is_and_a_public_address_may_be_a_nats() {
        let example = include_str!("../../warmbridge.example.toml");
        let secret = |path: &std::path::Path| {
            Ok(match path.extension().and_then(std::ffi::OsStr::to_str) {
                Some("webhook") => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
                Some("key") => "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=".to_owned(),
                Some(_) | None => format!("{}-and-some-more-letters", path.display()),
            })
        };
        for (sip, public, bound) in [
            ("0.0.0.0:5060", "198.51.100.7", "0.0.0.0"),
            ("10.0.0.5:5060", "198.51.100.7", "10.0.0.5"),
            ("[::]:5060", "198.51.100.7", "198.51.100.7"),
            ("[2001:db8::5]:5060", "2001:db8::5", "2001:db8::5"),
        ] {
            let text = example.replace("0.0.0.0:5060", sip).replace("198.51.100.7", public);
            let config = Config::parse(&text, &secret).unwrap();
            assert_eq!(rtp_address(&config.edge), bound.parse::<IpAddr>().unwrap());
        }
    }
}
