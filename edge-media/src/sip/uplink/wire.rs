//! Registration and health of a trunk as messages: REGISTER (RFC 3261 section 10.2) with the
//! answers to its challenges, and OPTIONS (section 11). UDP only.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use handoff::clock::Now;
use handoff::pii::Pii;

use super::machine::{Answer, Asked, Input, Machine, Step};
use super::{Account, LastAnswer, OptionsState, UplinkChange, UplinkConfig, UplinkNews, UplinkState};
use crate::sip::auth::Challenge;
use crate::sip::dialog;
use crate::sip::header::{Address, Method, Uri};
use crate::sip::message::{Contacts, Head, Request, Response};
use crate::sip::stack::{Stack, Timer, Use};
use crate::sip::{Flow, Transport};

/// What is taken for an answer that names no time.
const GRANTED_DEFAULT_SECS: u32 = 3_600;
/// News that wait to be read; older ones go, since the state itself can be asked for.
const NEWS_MAX: usize = 256;

/// What is kept up with one trunk.
#[derive(Debug)]
pub(in crate::sip) struct Uplink {
    config: UplinkConfig,
    machine: Machine,
    call_id: String,
    tag: String,
    cseq: u32,
    /// The request that is out, or was last.
    request: Option<Request>,
    /// The answers to the challenges of this attempt, by header.
    answers: Vec<(&'static str, String)>,
    health: Health,
}

#[derive(Debug, Default)]
struct Health {
    cseq: u32,
    asking: bool,
    up: Option<bool>,
    since: Option<Now>,
    last: Option<LastAnswer>,
}

impl Stack {
    /// Takes over what is to be kept up. What is configured as before goes on; one that was
    /// refused for good is tried once more.
    pub(in crate::sip) fn keep_uplinks(&mut self, now: Now, configs: Vec<UplinkConfig>) {
        let mut before = std::mem::take(&mut self.uplinks);
        self.config.targets.retain(|(trunk, _)| {
            configs.iter().any(|config| config.trunk == *trunk && config.known_by_servers)
        });
        for config in configs {
            let name = config.trunk.clone();
            let kept = before.remove(&name).filter(|uplink| uplink.config == config);
            let uplink = match kept {
                Some(kept) => kept,
                None => {
                    self.timers.clear(&Timer::Uplink(name.clone()));
                    self.timers.clear(&Timer::Health(name.clone()));
                    Uplink {
                        machine: Machine::new(
                            config.account.as_ref().map_or(0, |account| account.expires_secs),
                        ),
                        call_id: self.random.token(),
                        tag: self.random.token(),
                        cseq: 0,
                        request: None,
                        answers: Vec::new(),
                        health: Health::default(),
                        config,
                    }
                }
            };
            let stopped = uplink.machine.state(now).phase == super::RegistrationPhase::Stopped;
            self.uplinks.insert(name.clone(), uplink);
            if stopped {
                self.on_uplink_due(now, &name);
            }
        }
        for name in before.into_keys() {
            self.timers.clear(&Timer::Uplink(name.clone()));
            self.timers.clear(&Timer::Health(name));
        }
    }

    /// Learns the addresses of the servers of trunks, in the order in which they are tried.
    pub(in crate::sip) fn learn_servers(&mut self, now: Now, servers: Vec<(String, Vec<SocketAddr>)>) {
        for (trunk, addresses) in servers {
            if addresses.is_empty() {
                continue;
            }
            if self.uplinks.get(&trunk).is_some_and(|uplink| uplink.config.known_by_servers) {
                let named = |address: &SocketAddr| (trunk.clone(), address.ip().to_canonical());
                self.config.targets.retain(|(other, _)| *other != trunk);
                self.config.targets.extend(addresses.iter().map(named));
            }
            self.with_uplink(now, &trunk, |stack, uplink| {
                let step = uplink.machine.learn(now, &addresses);
                stack.take_uplink_step(now, uplink, step);
                if uplink.config.options.is_some() && !uplink.health.asking && uplink.health.up.is_none() {
                    stack.ask_health(now, uplink);
                }
            });
        }
    }

    pub(in crate::sip) fn on_uplink_due(&mut self, now: Now, trunk: &str) {
        self.with_uplink(now, trunk, |stack, uplink| stack.drive(now, uplink, Input::Due));
    }

    pub(in crate::sip) fn on_uplink_silence(&mut self, now: Now, trunk: &str) {
        self.with_uplink(now, trunk, |stack, uplink| stack.drive(now, uplink, Input::Silence));
    }

    pub(in crate::sip) fn on_uplink_response(&mut self, now: Now, trunk: &str, response: &Response) {
        self.with_uplink(now, trunk, |stack, uplink| {
            let current = response.head.cseq == uplink.cseq && response.head.call_id == uplink.call_id;
            let Some(request) = uplink.request.clone().filter(|_| current && response.status >= 200) else {
                return;
            };
            let challenge = stack.answer_challenge(uplink, response, &request);
            let answer = Answer {
                status: response.status,
                granted_secs: granted(response, &request),
                min_expires: response.head.number("Min-Expires"),
                retry_after: retry_after(response),
                challenge,
            };
            stack.drive(now, uplink, Input::Answer(answer));
        });
    }

    pub(in crate::sip) fn on_health_due(&mut self, now: Now, trunk: &str) {
        self.with_uplink(now, trunk, |stack, uplink| stack.ask_health(now, uplink));
    }

    /// Any answer but those of a server in trouble says that it lives; 404 and 405 do as well.
    pub(in crate::sip) fn on_health(&mut self, now: Now, trunk: &str, response: Option<&Response>) {
        let status = response.map(|response| response.status);
        if status.is_some_and(|status| status < 200) {
            return;
        }
        self.with_uplink(now, trunk, |stack, uplink| {
            let Some(every) = uplink.config.options else { return };
            let up = !matches!(status, None | Some(408 | 503));
            uplink.health.asking = false;
            uplink.health.last = uplink.machine.server().map(|server| LastAnswer { at: now, server, status });
            if uplink.health.up != Some(up) {
                let change = if up { UplinkChange::Up } else { UplinkChange::Down(status) };
                // The first answer of a healthy server is no news.
                if !up || uplink.health.up.is_some() {
                    stack.uplink_news(uplink, change);
                }
                uplink.health.up = Some(up);
                uplink.health.since = Some(now);
                if up {
                    stack.drive(now, uplink, Input::Reachable);
                }
            }
            if !up && uplink.config.account.is_none() {
                // Nothing else chooses the server of a trunk without an account.
                uplink.machine.turn();
            }
            let jitter = Duration::from_millis(stack.random.below(1_000));
            stack.timers.set(Timer::Health(uplink.config.trunk.clone()), now + every + jitter);
        });
    }

    /// The names of all trunks, in the order of the configuration.
    pub fn trunk_names(&self) -> impl Iterator<Item = &String> {
        self.config.trunks.iter().map(|trunk| &trunk.name)
    }

    /// How it stands with every trunk that something is kept up with.
    pub fn uplink_states(&self, now: Now) -> Vec<UplinkState> {
        let state = |uplink: &Uplink| UplinkState {
            trunk: uplink.config.trunk.clone(),
            server: uplink.machine.server(),
            registration: uplink.config.account.as_ref().map(|_| uplink.machine.state(now)),
            options: uplink.config.options.map(|_| OptionsState {
                up: uplink.health.up,
                since: uplink.health.since,
                last: uplink.health.last,
            }),
        };
        self.uplinks.values().map(state).collect()
    }

    /// What changed since the last time this was called, for the log.
    pub fn take_uplink_news(&mut self) -> Vec<UplinkNews> {
        std::mem::take(&mut self.uplink_news)
    }

    fn with_uplink(&mut self, now: Now, trunk: &str, work: impl FnOnce(&mut Self, &mut Uplink)) {
        let Some(mut uplink) = self.uplinks.remove(trunk) else { return };
        work(self, &mut uplink);
        let timer = Timer::Uplink(trunk.to_owned());
        match uplink.machine.deadline() {
            Some(due) => self.timers.set(timer, due.max(now)),
            None => self.timers.clear(&timer),
        }
        self.uplinks.insert(trunk.to_owned(), uplink);
    }

    fn drive(&mut self, now: Now, uplink: &mut Uplink, input: Input) {
        if uplink.config.account.is_none() {
            return;
        }
        let draw = self.random.below(u64::MAX);
        let step = uplink.machine.handle(now, input, draw);
        self.take_uplink_step(now, uplink, step);
    }

    fn take_uplink_step(&mut self, now: Now, uplink: &mut Uplink, step: Step) {
        match (step, uplink.machine.server(), uplink.config.account.clone()) {
            (Step::Ask { answered }, Some(server), Some(account)) => {
                if !answered {
                    uplink.answers.clear();
                }
                if !self.send_uplink_register(now, uplink, &account, server) {
                    self.drive(now, uplink, Input::Silence);
                }
            }
            (Step::Ask { .. } | Step::Rest, _, _) => {}
        }
        if let Some(change) = uplink.machine.take_news() {
            self.uplink_news(uplink, change);
        }
    }

    fn uplink_news(&mut self, uplink: &Uplink, change: UplinkChange) {
        self.counters.count(match change {
            UplinkChange::Registered => "trunk_registered",
            UplinkChange::Failed(_) => "trunk_register_failed",
            UplinkChange::Stopped => "trunk_register_stopped",
            UplinkChange::Up => "trunk_up",
            UplinkChange::Down(_) => "trunk_down",
        });
        if self.uplink_news.len() < NEWS_MAX {
            self.uplink_news.push(UplinkNews { trunk: uplink.config.trunk.clone(), change });
        }
    }

    /// Whether it could be sent.
    fn send_uplink_register(
        &mut self,
        now: Now,
        uplink: &mut Uplink,
        account: &Account,
        server: SocketAddr,
    ) -> bool {
        let flow = Flow { transport: Transport::Udp, peer: server, connection: 0 };
        let (Some(uri), Some(aor)) = (domain_uri(account), aor_uri(account, server)) else {
            return false;
        };
        uplink.cseq += 1;
        let mut head = Head {
            vias: vec![dialog::via(&self.config, &mut self.random, flow)],
            from: Address::new(aor.clone()).with_tag(&uplink.tag),
            to: Address::new(aor),
            call_id: uplink.call_id.clone(),
            cseq: uplink.cseq,
            method: Method::Register,
            fields: Vec::new(),
            body: Vec::new(),
        };
        if !uplink.config.query {
            let contact = dialog::contact(&self.config, Some(&Pii::new(account.user.clone())), flow);
            head.push_address("Contact", &contact);
            head.push("Expires", uplink.machine.expires_secs().to_string());
        }
        for (name, value) in &uplink.answers {
            head.push(name, value.clone());
        }
        let request = Request { uri, max_forwards: Some(70), head };
        let purpose = Use::Uplink(uplink.config.trunk.clone());
        let started = self.start_on(now, flow, &request, purpose).is_some();
        uplink.request = Some(request);
        started
    }

    /// Prepares the answer to a challenge, if it is one that we have credentials for.
    fn answer_challenge(
        &mut self,
        uplink: &mut Uplink,
        response: &Response,
        request: &Request,
    ) -> Option<Asked> {
        let asked = match response.status {
            401 => "WWW-Authenticate",
            407 => "Proxy-Authenticate",
            _ => return None,
        };
        let credentials = &uplink.config.account.as_ref()?.credentials;
        let challenge = Challenge::strongest(response.head.all(asked))?;
        let (name, value) = self.authorization(credentials, response, request)?;
        let before = uplink.answers.iter().any(|(answered, _)| *answered == name);
        uplink.answers.retain(|(answered, _)| *answered != name);
        uplink.answers.push((name, value));
        Some(match (before, challenge.stale) {
            (false, _) => Asked::First,
            (true, true) => Asked::Stale,
            (true, false) => Asked::Again,
        })
    }

    fn ask_health(&mut self, now: Now, uplink: &mut Uplink) {
        let Some(server) = uplink.machine.server().filter(|_| !uplink.health.asking) else { return };
        let flow = Flow { transport: Transport::Udp, peer: server, connection: 0 };
        let to = uplink.config.account.as_ref().and_then(domain_uri);
        let to = to.unwrap_or_else(|| Uri::of(None, server, Transport::Udp));
        let from = dialog::contact(&self.config, None, flow);
        uplink.health.cseq += 1;
        let mut head = Head {
            vias: vec![dialog::via(&self.config, &mut self.random, flow)],
            from: from.clone().with_tag(&uplink.tag),
            to: Address::new(to.clone()),
            call_id: self.random.token(),
            cseq: uplink.health.cseq,
            method: Method::Options,
            fields: Vec::new(),
            body: Vec::new(),
        };
        head.push_address("Contact", &from);
        head.push("Accept", crate::sip::uas::SDP);
        let request = Request { uri: to, max_forwards: Some(70), head };
        let trunk = uplink.config.trunk.clone();
        let started = self.start_on(now, flow, &request, Use::Health(trunk.clone())).is_some();
        uplink.health.asking = started;
        if !started {
            // The table of transactions is full: that says nothing about the trunk.
            let every = uplink.config.options.unwrap_or(Duration::from_secs(30));
            self.timers.set(Timer::Health(trunk), now + every);
        }
    }
}

/// The Request-URI of a REGISTER: a domain without a user.
fn domain_uri(account: &Account) -> Option<Uri> {
    let host = host(&account.domain);
    Uri::parse(&account.port.map_or_else(|| format!("sip:{host}"), |port| format!("sip:{host}:{port}")))
}

/// The address of record; the user part is escaped where it has to be.
fn aor_uri(account: &Account, server: SocketAddr) -> Option<Uri> {
    let escaped = Uri::of(Some(&account.user), server, Transport::Udp).text;
    let user = escaped.get(..escaped.rfind('@')?)?.to_owned();
    Uri::parse(&format!("{user}@{}", host(&account.domain)))
}

fn host(domain: &str) -> String {
    match domain.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V4(_)) | Err(_) => domain.to_owned(),
    }
}

/// `Retry-After: 18 (in a meeting);duration=3600`: the number alone.
fn retry_after(response: &Response) -> Option<u32> {
    let value = response.head.field("Retry-After")?;
    value.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// How long the registrar keeps our contact. Some repeat it with parameters of their own, so
/// user, host and port are compared; some name a time for all of them.
fn granted(response: &Response, request: &Request) -> u32 {
    let list = |contacts| match contacts {
        Some(Contacts::List(list)) => list,
        Some(Contacts::Wildcard) | None => Vec::new(),
    };
    let (ours, listed) = (list(request.head.contacts()), list(response.head.contacts()));
    let key = |address: &Address| (address.uri.user.clone(), address.uri.host.clone(), address.uri.port);
    let same = listed.iter().find(|listed| ours.iter().any(|own| key(own) == key(listed)));
    let own = same.and_then(|contact| contact.param("expires").flatten()).and_then(|secs| secs.parse().ok());
    own.or_else(|| response.head.number("Expires"))
        .or_else(|| request.head.number("Expires"))
        .unwrap_or(GRANTED_DEFAULT_SECS)
}
