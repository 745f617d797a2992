//! From a checked configuration to the rules that the edge, the media plane and the
//! functions run by. Everything a running call is pinned to is built here, once per load.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use handoff::call::{CallRules, QueueRules};
use handoff::pii::Pii;
use handoff::policy::Policy;

use crate::config::{Config, HoldSignalling, Phone, Secret};
use crate::edge::EdgeConfig;
use crate::edge::directory::{Dial, Members, Person};
use crate::sip::{Destination, SipConfig, TrunkConfig, UserConfig};

/// Calls at once on one edge: the RTP range of the example holds four ports a call for this
/// many. Measured capacity is above it on one core.
const CALLS_MAX: usize = 1_000;

/// Everything that is built from one configuration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Rules of the calls that arrive from now on.
    pub rules: Arc<CallRules>,
    /// The directory.
    pub people: Vec<Person>,
    /// Its queues.
    pub queues: Vec<Members>,
    /// The voice agent's door.
    pub voice_agent: VoiceAgentSetup,
    config: Config,
    tag_key: Pii<[u8; 32]>,
}

/// How to open the voice agent's door.
#[derive(Clone, Debug)]
pub struct VoiceAgentSetup {
    /// `ws://` or `wss://`.
    pub url: String,
    /// Key of the signature header.
    pub auth_token: Option<Secret>,
}

impl Setup {
    /// Reads the policy file and builds the rules. `tag_key` is the key of callers'
    /// pseudonyms where the configuration names none.
    pub fn of(config: &Config, tag_key: [u8; 32]) -> Result<Self> {
        let path: &PathBuf = &config.policy_file;
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the policy {}", path.display()))?;
        let policy =
            Policy::from_toml(&text).map_err(|error| anyhow::anyhow!("the policy {}: {error}", path.display()))?;
        let rules = CallRules {
            tenant: config.edge.tenant.clone(),
            edge: config.edge.id.clone(),
            policy: Arc::new(policy),
            catalog: Arc::new(config.payload.clone()),
            queues: config.queues.iter().map(queue_rules).collect(),
            lang: config.edge.lang.clone(),
            disclosure: config.edge.disclosure.clone(),
            hold_by_reinvite: config.edge.hold_signalling == HoldSignalling::Reinvite,
            recording: config.edge.recording,
            on_voice_agent_bye: config.voice_agent.on_bye,
            public_url: config.edge.public_url.clone(),
        };
        Ok(Self {
            rules: Arc::new(rules),
            people: config.agents.iter().map(person).collect(),
            queues: config
                .queues
                .iter()
                .map(|queue| Members { queue: queue.id.clone(), people: queue.agents.clone() })
                .collect(),
            voice_agent: VoiceAgentSetup {
                url: config.voice_agent.url.clone(),
                auth_token: config.voice_agent.auth_token.clone(),
            },
            tag_key: Pii::new(tag_key),
            config: config.clone(),
        })
    }

    /// The router's configuration, now that the sockets are bound.
    pub fn edge(&self, udp: SocketAddr, tcp: Option<SocketAddr>) -> EdgeConfig {
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
                advertised: advertised(udp),
                advertised_tcp: tcp.map(advertised),
                realm: edge.public_ip.to_string(),
                trunks: self.config.trunks.iter().map(trunk).collect(),
                users: self.config.agents.iter().filter_map(user).collect(),
                allow_loopback: edge.allow_loopback,
            },
            call_types,
            people: self.people.clone(),
            queues: self.queues.clone(),
            tag_key: self.tag_key.clone(),
            calls_max: CALLS_MAX,
        }
    }
}

fn queue_rules(queue: &crate::config::Queue) -> QueueRules {
    QueueRules {
        id: queue.id.clone(),
        spoken: queue.spoken.clone(),
        attempts_max: queue.attempts_max,
        payload_ack: queue.payload_ack.clone(),
        fallback: queue.fallback.clone(),
        wait_default_s: queue.wait_default_s,
    }
}

fn person(agent: &crate::config::Agent) -> Person {
    Person {
        id: agent.id.clone(),
        dial: match &agent.phone {
            Phone::Registered { user, .. } => Dial::Registered(user.clone()),
            Phone::Fixed(uri) => Dial::Fixed(Destination::Uri(uri.clone())),
        },
        ring_timeout: agent.ring_timeout,
        lang: agent.lang.clone(),
        trusted: agent.trusted,
        accept_on_answer: agent.accept_on_answer,
    }
}

fn trunk(trunk: &crate::config::Trunk) -> TrunkConfig {
    TrunkConfig { name: trunk.name.clone(), addresses: trunk.addresses.clone() }
}

fn user(agent: &crate::config::Agent) -> Option<UserConfig> {
    match &agent.phone {
        Phone::Registered { user, password } => Some(UserConfig {
            name: user.clone(),
            password: Pii::new(String::from_utf8_lossy(password.reveal()).into_owned()),
            allow_md5: false,
        }),
        Phone::Fixed(_) => None,
    }
}
