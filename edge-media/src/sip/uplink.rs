//! What this edge itself keeps up with a trunk: the registration of its account (RFC 3261
//! section 10.2) and a look at its health with OPTIONS (section 11). Pure: it is told the
//! addresses of the trunk's servers and resolves no name, and it places no call. Who may call
//! is the business of [`trunk`](super::trunk); a trunk that has no list of addresses is known
//! by those that its servers resolve to.
//!
//! `machine` decides when to ask whom; `wire` puts it into messages and reads the answers.

mod machine;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use handoff::clock::Now;

use super::trunk::Credentials;
pub(super) use wire::Uplink;

/// Most that is asked of a registrar, and taken from its `Min-Expires`: a day.
pub const EXPIRES_MAX_SECS: u32 = 86_400;

/// What is kept up with one trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// The trunk's name.
    pub trunk: String,
    /// The account that is registered.
    pub account: Option<Account>,
    /// How often its server is asked with OPTIONS.
    pub options: Option<Duration>,
    /// The trunk has no list of addresses: calls come from its servers.
    pub known_by_servers: bool,
    /// Only ask for what is registered (RFC 3261 section 10.2.3), and change nothing by it.
    pub query: bool,
}

/// An account at a carrier's registrar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user part of its address of record, and of our Contact.
    pub user: String,
    /// The registrar's domain.
    pub domain: String,
    /// The port of the registrar, where its URI names one.
    pub port: Option<u16>,
    /// What a challenge is answered with.
    pub credentials: Credentials,
    /// How long a registration is asked for.
    pub expires_secs: u32,
}

/// A SIP server of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Address or name.
    pub host: String,
    /// Port, where it is given.
    pub port: Option<u16>,
}

impl Server {
    /// Parses `host`, `host:port` or `[IPv6]:port`. `None` where it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let uri = super::header::Uri::parse(&format!("sip:{text}"))?;
        let plain = uri.user.is_none() && !uri.has_headers && !text.contains([';', '?', '@']);
        plain.then_some(Self { host: uri.host, port: uri.port })
    }
}

/// User and server of an account's `sip:user@host[:port]`. `None` where it is anything else,
/// also where it has parameters: a transport is not a part of an account.
pub fn account_of(uri: &str) -> Option<(String, Server)> {
    let parsed = super::header::Uri::parse(uri).filter(|parsed| parsed.scheme == "sip")?;
    let user = parsed.user_text().filter(|user| !user.is_empty())?.to_owned();
    // A password in a URI is in every log of the way (RFC 3261 section 19.1.1).
    let password =
        uri.get(4..).and_then(|rest| rest.split_once('@')).is_some_and(|(user, _)| user.contains(':'));
    let plain = !parsed.has_headers && !password && !uri.contains([';', '?']);
    plain.then_some((user, Server { host: parsed.host, port: parsed.port }))
}

/// How it stands with a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkState {
    /// The trunk's name.
    pub trunk: String,
    /// The server in use; none while no name has resolved.
    pub server: Option<SocketAddr>,
    /// Of its account, where it has one.
    pub registration: Option<RegistrationState>,
    /// Of its health, where it is asked.
    pub options: Option<OptionsState>,
}

/// How it stands with a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationState {
    /// What is being done.
    pub phase: RegistrationPhase,
    /// Since when it is registered without a break.
    pub since: Option<Now>,
    /// Until when the registrar keeps our contact, also while a refresh fails.
    pub until: Option<Now>,
    /// When it is asked next.
    pub next: Option<Now>,
    /// Attempts that failed since the last success.
    pub failures: u32,
    /// What was answered last.
    pub last: Option<LastAnswer>,
}

/// What is being done about a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationPhase {
    /// No address of a server is known.
    Unresolved,
    /// A server has been asked and has not answered yet.
    Asking,
    /// Registered; a refresh is planned.
    Registered,
    /// The last attempt failed; the next one is planned.
    Waiting,
    /// Refused with 403: asking again cannot help until the configuration is loaded again.
    Stopped,
}

/// How it stands with a trunk's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionsState {
    /// Whether the server answers; unknown before the first answer or silence.
    pub up: Option<bool>,
    /// Since when it is so.
    pub since: Option<Now>,
    /// What was answered last.
    pub last: Option<LastAnswer>,
}

/// One answer, or the lack of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAnswer {
    /// When.
    pub at: Now,
    /// The server that was asked.
    pub server: SocketAddr,
    /// The SIP status; none where nothing came.
    pub status: Option<u16>,
}

/// A change that an operator wants to read in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkNews {
    /// The trunk's name.
    pub trunk: String,
    /// What changed.
    pub change: UplinkChange,
}

/// What changed with a trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkChange {
    /// It is registered now and was not before.
    Registered,
    /// An attempt failed; there will be another.
    Failed(Option<u16>),
    /// Refused for good.
    Stopped,
    /// Its server answers OPTIONS.
    Up,
    /// Its server does not answer OPTIONS.
    Down(Option<u16>),
}

/// What whoever runs the edge can do about an answer to a REGISTER.
pub const fn advice(status: Option<u16>) -> &'static str {
    match status {
        None => {
            "the server does not answer: check its name and port, the firewall on the way, and whether the carrier has put this edge's address on its list"
        }
        Some(401 | 407) => {
            "the server does not accept the user name and password: compare auth_user and password_file with the carrier's account; some carriers want the account's number, others a name of its own"
        }
        Some(403) => {
            "the server refuses this account or this address: ask the carrier whether the account is active and which addresses it may register from, then reload the configuration (SIGHUP)"
        }
        Some(404) => {
            "the server does not know the account: check the user and the domain of `register` against the carrier's letters"
        }
        Some(423) => {
            "the server wants longer registrations than it says: set expires_s to what the carrier names"
        }
        Some(408 | 500..=599) => {
            "the server is in trouble; the next one of `proxies`, if there is one, is asked and it is tried again by itself"
        }
        Some(300..=399) => {
            "the server sends this edge elsewhere, which is not followed: put the server that the carrier names into `register` or `proxies`"
        }
        Some(_) => "the server answers with a refusal; its number and the carrier's documentation tell why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_and_a_server_are_what_they_say_and_nothing_more() {
        let server = |host: &str, port| Server { host: host.to_owned(), port };
        for (uri, expected) in [
            ("sip:alice@reg.example", Some(("alice", server("reg.example", None)))),
            ("sip:+15550100@192.0.2.1:5070", Some(("+15550100", server("192.0.2.1", Some(5_070))))),
            ("sip:reg.example", None),
            ("sip:alice:secret@reg.example", None),
            ("sip:alice@reg.example;transport=tls", None),
            ("sips:alice@reg.example", None),
            ("tel:+15550100", None),
            ("", None),
        ] {
            let found = account_of(uri);
            assert_eq!(
                found.as_ref().map(|(user, server)| (user.as_str(), server.clone())),
                expected,
                "{uri}"
            );
        }
        assert_eq!(Server::parse("a.example:5080"), Some(server("a.example", Some(5_080))));
        assert_eq!(Server::parse("[2001:db8::1]:5080"), Some(server("2001:db8::1", Some(5_080))));
        for bad in ["", "a b", "alice@a.example", "a.example;lr", "sip:a.example"] {
            assert_eq!(Server::parse(bad), None, "{bad}");
        }
    }
}
