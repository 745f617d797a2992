//! Who is who: the configuration of the stack, and which trunk a source address belongs to.
//! A trunk is known by its address and by nothing else; a user proves a secret. Nothing in a
//! message can make its sender a trunk.

use std::net::{IpAddr, SocketAddr};

use handoff::pii::Pii;
use ipnet::IpNet;

use super::auth::Secret;
use super::dialog::transport_of;
use super::header::Uri;
use super::room::CallLimits;
use super::sdes::{Keying, SrtpPolicy};
use super::uplink::UplinkConfig;
use super::{Flow, Transport};

/// A carrier, PBX or other peer that is trusted by its address.
#[derive(Clone, Debug)]
pub struct TrunkConfig {
    /// Its name in [`Origin`](super::Origin).
    pub name: String,
    /// Where it sends from.
    pub addresses: Vec<IpNet>,
    /// The one source port that is it, where several peers share an address: demo and tests.
    pub port: Option<u16>,
    /// What kind of call its calls are, for the policy; the stack only carries it.
    pub call_type: Option<String>,
    /// Whether a hold is signalled to it with a re-INVITE; the stack only carries it.
    pub hold_by_reinvite: bool,
    /// What we answer its challenges with.
    pub credentials: Option<Credentials>,
    /// Reliable provisional responses, to it and from it.
    pub rel100: Rel100,
    /// Whether its audio is encrypted.
    pub srtp: SrtpPolicy,
}

/// Whether provisional responses are made to arrive (RFC 3262).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rel100 {
    /// Never: a peer that insists gets 420.
    Off,
    /// Where the peer asks for it, and for those that agree on media.
    #[default]
    Supported,
    /// Always: a peer that cannot gets 421.
    Require,
}

/// A name and secret of ours at somebody else's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user name there.
    pub user: String,
    /// The secret there.
    pub secret: Secret,
}

/// A human agent's phone.
#[derive(Clone, Debug)]
pub struct UserConfig {
    /// The user part of its address of record, and its digest user name.
    pub name: String,
    /// What it proves at REGISTER and INVITE.
    pub secret: Secret,
    /// Its device cannot do SHA-256, and is challenged with MD5.
    pub allow_md5: bool,
    /// Where it is reached while nothing is registered.
    pub uri: Option<Pii<String>>,
}

/// Everything the stack is told.
#[derive(Clone, Debug)]
pub struct SipConfig {
    /// Our UDP address as peers see it: Via, Contact, SDP origin.
    pub advertised: SocketAddr,
    /// Our TCP address as peers see it, where TCP is listened on.
    pub advertised_tcp: Option<SocketAddr>,
    /// Our TLS address as peers see it, where TLS is listened on.
    pub advertised_tls: Option<SocketAddr>,
    /// The digest realm, and the domain of our own From and of the users.
    pub realm: String,
    /// Other hosts that a Request-URI may name and mean us.
    pub domains: Vec<String>,
    /// Trusted peers.
    pub trunks: Vec<TrunkConfig>,
    /// Human agents.
    pub users: Vec<UserConfig>,
    /// How many calls trunks may have.
    pub limits: Vec<CallLimits>,
    /// What is kept up with trunks.
    pub uplinks: Vec<UplinkConfig>,
    /// Addresses that a trunk without a list of its own is known by: those of its servers.
    pub targets: Vec<(String, IpAddr)>,
    /// Names that a fixed URI may use, already resolved: nothing here asks DNS.
    pub hosts: Vec<(String, SocketAddr)>,
    /// Accept media and targets on 127.0.0.0/8 and ::1: demo and tests.
    pub allow_loopback: bool,
    /// The user part of our From and Contact where a call has no caller of its own.
    pub identity: String,
    /// What we ask for as session interval, in seconds (RFC 4028); at least 90.
    pub session_expires_secs: u32,
    /// Whether audio with peers that are no trunks is encrypted.
    pub phones_srtp: SrtpPolicy,
    /// Messages a second that one source address may send, if it is no trunk; three times as
    /// many at once. Higher lets a larger office through one NAT, lower sheds a flood sooner.
    pub source_rate: u64,
}

impl SipConfig {
    /// A configuration without trunks and users.
    pub fn new(advertised: SocketAddr, realm: &str) -> Self {
        Self {
            advertised,
            advertised_tcp: None,
            advertised_tls: None,
            realm: realm.to_owned(),
            domains: Vec::new(),
            trunks: Vec::new(),
            users: Vec::new(),
            limits: Vec::new(),
            uplinks: Vec::new(),
            targets: Vec::new(),
            hosts: Vec::new(),
            allow_loopback: false,
            identity: "warmbridge".to_owned(),
            session_expires_secs: SESSION_EXPIRES_SECS,
            phones_srtp: SrtpPolicy::default(),
            source_rate: SOURCE_RATE,
        }
    }

    /// The trunk of a source address.
    pub(super) fn trunk(&self, source: SocketAddr) -> Option<&TrunkConfig> {
        let (source, port) = (source.ip().to_canonical(), source.port());
        let listed = self.trunks.iter().find(|trunk| {
            trunk.port.is_none_or(|only| only == port)
                && trunk.addresses.iter().any(|network| network.contains(&source))
        });
        // A list says more than a name that resolves to somewhere.
        listed.or_else(|| {
            let (name, _) = self.targets.iter().find(|(_, target)| *target == source)?;
            self.trunks.iter().find(|trunk| trunk.name == *name && trunk.addresses.is_empty())
        })
    }

    /// What is done about reliable provisional responses of an address.
    pub(super) fn rel100(&self, peer: SocketAddr) -> Rel100 {
        self.trunk(peer).map_or_else(Rel100::default, |trunk| trunk.rel100)
    }

    /// What a dialog over `flow` may agree on about encrypted audio.
    pub(super) fn keying(&self, flow: Flow) -> Keying {
        self.trunk(flow.peer).map_or(self.phones_srtp, |trunk| trunk.srtp).over(flow.transport)
    }

    /// A user by name.
    pub(super) fn user(&self, name: &str) -> Option<&UserConfig> {
        self.users.iter().find(|user| user.name == name)
    }

    /// Whether any user's phone knows MD5 alone.
    pub(super) fn offers_md5(&self) -> bool {
        self.users.iter().any(|user| user.allow_md5)
    }

    /// Whether `host` means us.
    pub(super) fn is_ours(&self, host: &str) -> bool {
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        let advertised = [Some(self.advertised), self.advertised_tcp, self.advertised_tls];
        host.eq_ignore_ascii_case(&self.realm)
            || self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(host))
            || advertised.into_iter().flatten().any(|address| Some(address.ip().to_canonical()) == ip)
            || (self.allow_loopback && ip.is_some_and(|ip| ip.is_loopback()))
    }

    /// The address of a URI: its host, and its port or the one of its transport.
    pub(super) fn resolve(&self, uri: &Uri) -> Option<SocketAddr> {
        let secure = transport_of(uri) == Transport::Tls;
        let port = uri.port.or_else(|| secure.then_some(TLS_PORT));
        if let Ok(ip) = uri.host.parse::<IpAddr>() {
            return Some(SocketAddr::new(ip.to_canonical(), port.unwrap_or(SIP_PORT)));
        }
        let (_, address) = self.hosts.iter().find(|(name, _)| name.eq_ignore_ascii_case(&uri.host))?;
        Some(SocketAddr::new(address.ip(), port.unwrap_or_else(|| address.port())))
    }

    /// The user part of a number or name, for an address of ours.
    pub(super) fn identity(&self, from: Option<&Pii<String>>) -> String {
        from.map_or_else(|| self.identity.clone(), |from| from.expose().clone())
    }
}

/// Where SIP is where nothing else is said (RFC 3261 section 19.1.2).
const SIP_PORT: u16 = 5_060;

/// The same over TLS.
const TLS_PORT: u16 = 5_061;

/// A phone sends a handful of messages per call; this serves dozens behind one address.
const SOURCE_RATE: u64 = 50;

/// Half an hour, as RFC 4028 recommends: a dead peer holds a call no longer.
pub const SESSION_EXPIRES_SECS: u32 = 1_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        let mut config = SipConfig::new("198.51.100.1:5060".parse().unwrap(), "edge.example");
        config.trunks.push(TrunkConfig {
            name: "carrier".to_owned(),
            addresses: vec!["192.0.2.0/24".parse().unwrap()],
            port: None,
            call_type: None,
            hold_by_reinvite: true,
            credentials: None,
            rel100: Rel100::Off,
            srtp: SrtpPolicy::default(),
        });
        let name =
            |config: &SipConfig, at: &str| config.trunk(at.parse().unwrap()).map(|trunk| trunk.name.clone());
        assert_eq!(name(&config, "192.0.2.7:5060").as_deref(), Some("carrier"));
        assert_eq!(name(&config, "[::ffff:192.0.2.7]:5060").as_deref(), Some("carrier"));
        assert_eq!(name(&config, "203.0.113.7:5060"), None);
        assert!(config.is_ours("EDGE.example") && config.is_ours("198.51.100.1"));
        config.trunks[0].port = Some(5_080);
        assert_eq!(name(&config, "192.0.2.7:5060"), None);
        assert_eq!(name(&config, "192.0.2.7:5080").as_deref(), Some("carrier"));
        assert!(!config.is_ours("127.0.0.1") && !config.is_ours("other.example"));
    }

    #[test]
    fn a_uri_without_a_port_means_that_of_its_transport() {
        let mut config = SipConfig::new("198.51.100.1:5060".parse().unwrap(), "edge.example");
        config.hosts.push(("pbx.example".to_owned(), "192.0.2.9:5060".parse().unwrap()));
        for (uri, address) in [
            ("sip:a@192.0.2.1", "192.0.2.1:5060"),
            ("sip:a@192.0.2.1;transport=tls", "192.0.2.1:5061"),
            ("sip:a@192.0.2.1:5071;transport=tls", "192.0.2.1:5071"),
            ("sip:a@pbx.example", "192.0.2.9:5060"),
            ("sip:a@pbx.example;transport=TLS", "192.0.2.9:5061"),
        ] {
            let found = config.resolve(&Uri::parse(uri).unwrap());
            assert_eq!(found, Some(address.parse().unwrap()), "{uri}");
        }
    }
}
