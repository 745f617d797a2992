//! REGISTER, both ways (RFC 3261 section 10): a user's phone registers here and proves itself
//! each time; and this stack registers as a phone elsewhere, which is what the demo's phones
//! and a trunk that wants it need.

use std::net::SocketAddr;
use std::time::Duration;

use handoff::clock::Now;
use handoff::pii::Pii;

use super::auth::Secret;
use super::dialog;
use super::header::{Address, Method, Uri};
use super::message::{Contacts, Head, Request, Response};
use super::registrar::EXPIRES_MIN_SECS;
use super::stack::{Stack, Timer, Use};
use super::trunk::Credentials;
use super::uas::Path;
use super::{Flow, SipEvent, Transport};

/// First wait after a failed registration; it doubles.
const RETRY_MIN: Duration = Duration::from_secs(30);
/// Longest wait after a failed registration.
const RETRY_MAX: Duration = Duration::from_secs(1_800);
/// Most registrations of ours: a softphone has one.
const REGISTRATIONS_MAX: usize = 64;

/// A registration of ours at somebody's registrar.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    credentials: Credentials,
    registrar: SocketAddr,
    domain: String,
    expires_secs: u32,
    call_id: String,
    tag: String,
    cseq: u32,
    request: Option<Request>,
    /// Challenges answered since the last success.
    challenges: u32,
    retry: Duration,
}

impl Stack {
    pub(super) fn on_register(&mut self, now: Now, flow: Flow, path: Path, request: &Request) {
        let aor = &request.head.to.uri;
        if !aor.is_sip() || !request.head.from.uri.is_sip() || request.head.contacts().is_none() {
            self.refuse(now, path, request, 400, &[]);
            return;
        }
        if !self.config.is_ours(&request.uri.host) {
            self.refuse(now, path, request, 404, &[]);
            return;
        }
        let Some(user) = self.authenticate(now, flow, path, request) else {
            return;
        };
        let Some(path) = self.proven(now, flow, path, request) else {
            return;
        };
        let own = |address: &Address| {
            address.uri.user_text() == Some(&user) && self.config.is_ours(&address.uri.host)
        };
        if !own(&request.head.to) || !own(&request.head.from) {
            self.refuse(now, path, request, 403, &[]);
            return;
        }
        let before = self.registrar.count(&user);
        match self.registrar.apply(now, &user, flow, request) {
            Ok(()) => {
                let mut response = request.response(200, Some(&self.random.token()));
                for binding in self.registrar.bindings(now, &user) {
                    response.head.push_address("Contact", &binding.contact(now));
                }
                self.answer_on(now, path, &response);
                if flow.transport == Transport::Udp {
                    self.keep_alive(now);
                }
                if self.registrar.count(&user) != before {
                    self.tell_registered(user);
                }
            }
            Err(refusal) => {
                let minimum = EXPIRES_MIN_SECS.to_string();
                let fields = [("Min-Expires", minimum.as_str())];
                let fields = if refusal.status == 423 { &fields[..] } else { &[] };
                self.refuse(now, path, request, refusal.status, fields);
            }
        }
    }

    pub(super) fn register(
        &mut self,
        now: Now,
        user: String,
        password: Pii<String>,
        registrar: SocketAddr,
        domain: String,
        expires_secs: u32,
    ) {
        if self.registrations.len() >= REGISTRATIONS_MAX && !self.registrations.contains_key(&user) {
            self.event(SipEvent::RegisterResult { user, ok: false, status: None });
            return;
        }
        let known = self.registrations.remove(&user);
        let call_id = known.as_ref().map_or_else(|| self.random.token(), |known| known.call_id.clone());
        let registration = Registration {
            credentials: Credentials { user: user.clone(), secret: Secret::Password(password) },
            registrar,
            domain,
            expires_secs,
            call_id,
            tag: self.random.token(),
            cseq: known.map_or(0, |known| known.cseq),
            request: None,
            challenges: 0,
            retry: RETRY_MIN,
        };
        self.registrations.insert(user.clone(), registration);
        self.send_register(now, &user);
    }

    pub(super) fn send_register(&mut self, now: Now, user: &str) {
        if let Some(registration) = self.registrations.get_mut(user) {
            registration.challenges = 0;
        }
        self.send_register_with(now, user, None);
    }

    fn send_register_with(&mut self, now: Now, user: &str, authorization: Option<(&'static str, String)>) {
        let Some(mut registration) = self.registrations.remove(user) else {
            return;
        };
        let flow = Flow { transport: Transport::Udp, peer: registration.registrar, connection: 0 };
        let host = &registration.domain;
        let aor = Uri::of(Some(user), registration.registrar, Transport::Udp);
        let named = |text: String| Uri::parse(&text);
        let start = aor.text.rfind('@').and_then(|at| aor.text.get(..at)).unwrap_or("sip:");
        let (Some(uri), Some(aor)) = (named(format!("sip:{host}")), named(format!("{start}@{host}"))) else {
            self.event(SipEvent::RegisterResult { user: user.to_owned(), ok: false, status: None });
            return;
        };
        registration.cseq += 1;
        let mut head = Head {
            vias: vec![dialog::via(&self.config, &mut self.random, flow)],
            from: Address::new(aor.clone()).with_tag(&registration.tag),
            to: Address::new(aor),
            call_id: registration.call_id.clone(),
            cseq: registration.cseq,
            method: Method::Register,
            fields: Vec::new(),
            body: Vec::new(),
        };
        let contact = dialog::contact(&self.config, Some(&Pii::new(user.to_owned())), flow);
        head.push_address("Contact", &contact);
        head.push("Expires", registration.expires_secs.to_string());
        if let Some((name, value)) = authorization {
            head.push(name, value);
        }
        let mut request = Request { uri, max_forwards: Some(70), head };
        let started = self.start(now, flow, &mut request, Use::Register(user.to_owned()));
        registration.request = Some(request);
        self.registrations.insert(user.to_owned(), registration);
        if started.is_none() {
            self.on_register_unanswered(now, user);
        }
    }

    pub(super) fn on_register_response(&mut self, now: Now, user: &str, response: &Response) {
        let status = response.status;
        if status < 200 {
            return;
        }
        let Some(registration) = self.registrations.get_mut(user) else {
            return;
        };
        match status {
            200..=299 => {
                let granted = granted(response, registration);
                registration.retry = RETRY_MIN;
                if registration.expires_secs > 0 {
                    // Well before the end: two retries fit in what is left.
                    let wait = Duration::from_secs(u64::from(granted) * 8 / 10).max(Duration::from_secs(1));
                    self.timers.set(Timer::Register(user.to_owned()), now + wait);
                }
                self.event(SipEvent::RegisterResult {
                    user: user.to_owned(),
                    ok: true,
                    status: Some(status),
                });
            }
            // Twice, because the first answer may meet a nonce that is too old.
            401 | 407 if registration.challenges < 2 => {
                registration.challenges += 1;
                let (credentials, request) = (registration.credentials.clone(), registration.request.clone());
                let answer = request.and_then(|request| self.authorization(&credentials, response, &request));
                match answer {
                    Some(answer) => self.send_register_with(now, user, Some(answer)),
                    None => self.register_failed(now, user, Some(status)),
                }
            }
            423 if registration.expires_secs < response.head.number("Min-Expires").unwrap_or(0) => {
                registration.expires_secs = response.head.number("Min-Expires").unwrap_or(3_600).min(86_400);
                self.send_register(now, user);
            }
            _ => self.register_failed(now, user, Some(status)),
        }
    }

    pub(super) fn on_register_unanswered(&mut self, now: Now, user: &str) {
        self.register_failed(now, user, None);
    }

    fn register_failed(&mut self, now: Now, user: &str, status: Option<u16>) {
        let Some(registration) = self.registrations.get_mut(user) else {
            return;
        };
        // 403 says that asking again cannot help.
        if status != Some(403) {
            let jitter = Duration::from_millis(self.random.below(5_000));
            self.timers.set(Timer::Register(user.to_owned()), now + registration.retry + jitter);
            registration.retry = (registration.retry * 2).min(RETRY_MAX);
        }
        self.event(SipEvent::RegisterResult { user: user.to_owned(), ok: false, status });
    }
}

/// How long the registrar keeps our contact.
fn granted(response: &Response, registration: &Registration) -> u32 {
    let ours = registration.request.as_ref().and_then(|request| request.head.contacts());
    let (Some(Contacts::List(ours)), Some(Contacts::List(listed))) = (ours, response.head.contacts()) else {
        return registration.expires_secs;
    };
    let same = listed.iter().find(|listed| ours.iter().any(|own| own.uri.text == listed.uri.text));
    let expires =
        same.and_then(|contact| contact.param("expires").flatten()).and_then(|secs| secs.parse().ok());
    expires.or_else(|| response.head.number("Expires")).unwrap_or(registration.expires_secs)
}
