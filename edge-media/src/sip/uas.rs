//! Requests that come in: admission, verdicts, the called side of an INVITE, and everything
//! within a dialog (RFC 3261 sections 8.2, 13.3, 14.2, 15.1.2; RFC 3311; RFC 4028). What
//! nobody proved is answered without state, once and small.

use std::collections::BTreeMap;
use std::time::Duration;

use handoff::call::outcome::LegCause;
use handoff::clock::Now;
use handoff::pii::Pii;

use super::auth::{Account, Verdict};
use super::dialog::{self, Dialog, Peer, Phase, Role, Session, Unacknowledged};
use super::message::{Contacts, Method, Request, Response};
use super::offer_answer::Negotiation;
use super::random::{hex, mac};
use super::stack::{DIALOGS_MAX, Stack, Timer};
use super::transaction::{Received, T1, T2, TIMEOUT, TransactionId};
use super::{DialogKey, Flow, LocalMedia, Origin, SipEvent, SipOutput, Transport};

/// What every Allow header says.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, REGISTER";
/// The only body that means anything here.
pub(super) const SDP: &str = "application/sdp";
/// RFC 4028's smallest session interval.
pub(super) const MIN_SE_SECS: u32 = 90;
/// Where a refused caller may come back; short, because the next edge takes it sooner.
const RETRY_AFTER_SECS: &str = "10";
/// User-Agents of scanners in the wild. An answer would only confirm that somebody listens.
const SCANNERS: [&str; 6] =
    ["friendly-scanner", "sipvicious", "sipcli", "sundayddr", "vaxsipuseragent", "pplsip"];

/// How a new request may be answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path {
    /// Its sender is known: a transaction, with retransmission.
    Transaction(TransactionId),
    /// Its sender is nobody: one answer of bounded size.
    Stateless { flow: Flow, size: usize },
}

type Fields<'a> = &'a [(&'static str, &'a str)];

impl Stack {
    pub(super) fn on_request(&mut self, now: Now, flow: Flow, size: usize, request: Request) {
        if request.head.method == Method::Ack {
            self.on_ack(now, &request);
            return;
        }
        let source = flow.peer.ip().to_canonical();
        let trunk = self.config.trunk(source).map(|trunk| trunk.name.clone());
        let known = self.transactions.find_server(&request).is_some();
        let key = self.find_dialog(&request);
        let cancels = self.transactions.find_cancelled(&request);
        let trusted = trunk.is_some() || known || key.is_some();
        if known {
            self.admit(now, flow, size, &request, true);
            return;
        }
        if trunk.is_none() && is_scanner(&request) {
            self.counters.count("scanner");
            return;
        }
        if request.head.method == Method::Cancel {
            let path = if cancels.is_some() { self.admit(now, flow, size, &request, true) } else { None };
            self.on_cancel(now, flow, size, path, cancels, &request);
            return;
        }
        let path = if trusted {
            match self.admit(now, flow, size, &request, trunk.is_some()) {
                Some(path) => path,
                None => return,
            }
        } else {
            Path::Stateless { flow, size }
        };
        if let Some((status, fields)) = unacceptable(&request) {
            let fields: Vec<(&'static str, &str)> =
                fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.refuse(now, path, &request, status, &fields);
            return;
        }
        match key {
            Some(key) => self.with(key, |stack, dialog| stack.within(now, flow, path, dialog, request)),
            None if request.head.to.tag().is_some() && request.head.method != Method::Register => {
                self.refuse(now, path, &request, 481, &[]);
            }
            None => self.outside(now, flow, path, trunk, request),
        }
    }

    /// Opens a server transaction, or absorbs a retransmission.
    fn admit(&mut self, now: Now, flow: Flow, size: usize, request: &Request, trusted: bool) -> Option<Path> {
        let mut progress = Vec::new();
        let received = self.transactions.receive(now, flow, request, trusted, &mut progress);
        self.advance(now, progress);
        match received {
            Received::New(id) => Some(Path::Transaction(id)),
            Received::Absorbed => None,
            Received::Full => {
                self.counters.count("transactions_full");
                if trusted {
                    let path = Path::Stateless { flow, size };
                    self.refuse(now, path, request, 503, &[("Retry-After", RETRY_AFTER_SECS)]);
                }
                None
            }
        }
    }

    fn outside(&mut self, now: Now, flow: Flow, path: Path, trunk: Option<String>, request: Request) {
        match request.head.method {
            Method::Invite => self.on_invite(now, flow, path, trunk, request),
            Method::Register => self.on_register(now, flow, path, &request),
            Method::Options if !self.is_for_us(&request) => self.refuse(now, path, &request, 404, &[]),
            Method::Options => {
                let fields = [("Allow", ALLOW), ("Accept", SDP), ("Supported", "timer")];
                self.refuse(now, path, &request, if self.draining { 503 } else { 200 }, &fields);
            }
            Method::Bye | Method::Update => self.refuse(now, path, &request, 481, &[]),
            Method::Known("SUBSCRIBE" | "PUBLISH") => self.refuse(now, path, &request, 489, &[]),
            Method::Known(_) => self.refuse(now, path, &request, 405, &[("Allow", ALLOW)]),
            Method::Unknown(_) => self.refuse(now, path, &request, 501, &[("Allow", ALLOW)]),
            Method::Ack | Method::Cancel => {}
        }
    }

    fn is_for_us(&self, request: &Request) -> bool {
        request.uri.scheme == "tel" || self.config.is_ours(&request.uri.host)
    }

    /// A final answer (a refusal, or a 200 that has no state), with the tag that the same
    /// request always gets.
    pub(super) fn refuse(
        &mut self,
        now: Now,
        path: Path,
        request: &Request,
        status: u16,
        fields: Fields<'_>,
    ) {
        let tag = self.stateless_tag(request);
        let mut response = request.response(status, Some(&tag));
        for (name, value) in fields {
            response.head.push(name, *value);
        }
        self.answer_on(now, path, &response);
        if status >= 300 {
            self.counters.count(refusal_name(status));
        }
    }

    pub(super) fn answer_on(&mut self, now: Now, path: Path, response: &Response) {
        match path {
            Path::Transaction(id) => self.respond(now, id, response),
            Path::Stateless { flow, size } => {
                let bytes = response.print();
                // An amplifier for somebody else's source address is not what this is. A TCP
                // handshake proves the address.
                if flow.transport == Transport::Tcp || bytes.len() <= 2 * size {
                    self.out.push(SipOutput::Send(flow, bytes));
                } else {
                    self.counters.count("answer_too_large");
                }
            }
        }
    }

    fn stateless_tag(&self, request: &Request) -> String {
        let via = request.head.vias.first().and_then(|via| via.branch()).unwrap_or_default();
        let from = request.head.from.tag().unwrap_or_default();
        let tag = mac(&self.tag_key, &[request.head.call_id.as_bytes(), from.as_bytes(), via.as_bytes()]);
        hex(tag.get(..8).unwrap_or_default())
    }

    /// Lets a request in that must prove a user. `None` after the challenge or refusal.
    pub(super) fn authenticate(
        &mut self,
        now: Now,
        flow: Flow,
        path: Path,
        request: &Request,
    ) -> Option<String> {
        let source = flow.peer.ip().to_canonical();
        let claimed = request.head.from.uri.user_text().unwrap_or_default().to_owned();
        let everybody = (source, String::new());
        if !self.failures.has(now, &everybody) || !self.failures.has(now, &(source, claimed)) {
            self.counters.count("locked_out");
            return None;
        }
        let config = &self.config;
        let account = |name: &str| {
            config.user(name).map(|user| Account { secret: &user.secret, allow_md5: user.allow_md5 })
        };
        let values: Vec<&str> = request.head.all("Authorization").collect();
        let method = request.head.method.as_str();
        let verdict = self.auth.check(now, source, method, &request.uri.text, &values, account);
        let stale = match verdict {
            Verdict::Known(user) => return Some(user),
            Verdict::Challenge { stale } => stale,
            Verdict::Wrong(user) => {
                self.counters.count("wrong_credentials");
                self.failures.take(now, &everybody);
                self.failures.take(now, &(source, user));
                false
            }
        };
        let challenges = self.auth.challenge(now, source, self.config.offers_md5(), stale);
        let fields: Vec<(&'static str, &str)> =
            challenges.iter().map(|value| ("WWW-Authenticate", value.as_str())).collect();
        self.refuse(now, path, request, 401, &fields);
        None
    }

    /// A transaction for a request whose sender has just proven who they are.
    pub(super) fn proven(&mut self, now: Now, flow: Flow, path: Path, request: &Request) -> Option<Path> {
        match path {
            Path::Transaction(_) => Some(path),
            Path::Stateless { size, .. } => self.admit(now, flow, size, request, false),
        }
    }

    fn on_invite(&mut self, now: Now, flow: Flow, path: Path, trunk: Option<String>, request: Request) {
        let (origin, path) = match trunk {
            Some(name) => (Origin::Trunk(name), path),
            None => {
                if !self.config.is_ours(&request.head.from.uri.host) {
                    self.refuse(now, path, &request, 403, &[]);
                    return;
                }
                let Some(user) = self.authenticate(now, flow, path, &request) else {
                    return;
                };
                let Some(path) = self.proven(now, flow, path, &request) else {
                    return;
                };
                if request.head.from.uri.user_text() != Some(&user) {
                    self.refuse(now, path, &request, 403, &[]);
                    return;
                }
                (Origin::User(user), path)
            }
        };
        let Path::Transaction(transaction) = path else {
            return;
        };
        let refusal = self.invite_refusal(&request);
        if let Some((status, fields)) = refusal {
            self.refuse(now, path, &request, status, fields);
            return;
        }
        let key = DialogKey(self.next_inbound);
        let mut negotiation = Negotiation::new(self.random.below(1 << 53), self.config.allow_loopback);
        negotiation.roll_back();
        let remote = if request.head.body.is_empty() {
            None
        } else {
            match negotiation.look(&request.head.body) {
                Ok(remote) => Some(remote),
                Err(_) => {
                    self.refuse(now, path, &request, 488, &[]);
                    return;
                }
            }
        };
        self.next_inbound += 2;
        let dialog = self.called(key, flow, transaction, negotiation, &origin, &request);
        self.by_call.insert((dialog.call_id.clone(), dialog.local_tag().to_owned()), key);
        self.dialogs.insert(key, dialog);
        self.respond(now, transaction, &request.response(100, None));
        let (caller, restricted) = caller(&request, matches!(origin, Origin::Trunk(_)));
        let dialled = Pii::new(request.uri.user_text().unwrap_or_default().to_owned());
        self.event(SipEvent::Invited { dialog: key, origin, caller, restricted, dialled, remote });
    }

    /// What stands against a new INVITE of a known sender.
    fn invite_refusal(&self, request: &Request) -> Option<(u16, Fields<'static>)> {
        let merged = self.dialogs.values().any(|dialog| {
            dialog.call_id == request.head.call_id
                && dialog.role == Role::Uas
                && dialog.is_remote_tag(request.head.from.tag())
                && dialog.remote_cseq == Some(request.head.cseq)
        });
        let contacts = match request.head.contacts() {
            Some(Contacts::List(contacts)) => contacts,
            Some(Contacts::Wildcard) | None => return Some((400, &[])),
        };
        // RFC 2543 peers may leave Contact out; then From has to do.
        let bad_contact = contacts.len() > 1 || contacts.first().is_some_and(|contact| !contact.uri.is_sip());
        if !self.is_for_us(request) {
            Some((404, &[]))
        } else if self.draining || self.dialogs.len() >= DIALOGS_MAX {
            Some((503, &[("Retry-After", RETRY_AFTER_SECS)]))
        } else if merged {
            Some((482, &[]))
        } else if bad_contact {
            Some((400, &[]))
        } else if session_interval(request).is_some_and(|secs| secs < MIN_SE_SECS) {
            Some((422, &[("Min-SE", "90")]))
        } else {
            None
        }
    }

    fn called(
        &mut self,
        key: DialogKey,
        flow: Flow,
        transaction: TransactionId,
        negotiation: Negotiation,
        origin: &Origin,
        request: &Request,
    ) -> Dialog {
        let tag = self.random.token();
        let mut dialog = Dialog {
            key,
            role: Role::Uas,
            peer: match origin {
                Origin::Trunk(_) => Peer::Address,
                Origin::User(_) => Peer::User,
            },
            flow,
            call_id: request.head.call_id.clone(),
            local: request.head.to.clone().with_tag(&tag),
            remote: request.head.from.clone(),
            target: request.head.from.uri.clone(),
            routes: request.head.addresses("Record-Route").unwrap_or_default(),
            // Below 2^31 with room to count.
            local_cseq: u32::try_from(self.random.below(1 << 24)).unwrap_or(1),
            remote_cseq: Some(request.head.cseq),
            negotiation,
            phase: Phase::Called { transaction, request: Box::new(request.clone()) },
            invite: None,
            reinvite_transaction: None,
            reinvite: None,
            wanted: None,
            glares: 0,
            unacknowledged: None,
            bye: None,
            bye_wanted: false,
            ended: false,
            acks: BTreeMap::new(),
            session: None,
            credentials: None,
        };
        if let Origin::Trunk(name) = origin {
            let trunk = self.config.trunks.iter().find(|trunk| trunk.name == *name);
            dialog.credentials = trunk.and_then(|trunk| trunk.credentials.clone());
        }
        dialog.refresh_target(&request.head);
        dialog
    }

    pub(super) fn ring(&mut self, now: Now, key: DialogKey) {
        self.with(key, |stack, dialog| {
            if let Phase::Called { transaction, request } = &dialog.phase
                && !dialog.ended
            {
                let mut response = request.response(180, Some(dialog.local_tag()));
                response.head.push_address("Contact", &dialog::contact(&stack.config, None, dialog.flow));
                stack.respond(now, *transaction, &response);
            }
        });
    }

    pub(super) fn reject(&mut self, now: Now, key: DialogKey, status: u16) {
        self.with(key, |stack, dialog| {
            let status = if (400..=699).contains(&status) { status } else { 480 };
            stack.refuse_call(now, dialog, status, cause_of(status));
        });
    }

    /// Refuses a call that was not answered yet.
    pub(super) fn refuse_call(&mut self, now: Now, dialog: &mut Dialog, status: u16, cause: LegCause) {
        if let Phase::Called { transaction, request } = &dialog.phase
            && !dialog.ended
        {
            let mut response = request.response(status, Some(dialog.local_tag()));
            if status == 503 {
                response.head.push("Retry-After", RETRY_AFTER_SECS);
            }
            self.respond(now, *transaction, &response);
            self.end(dialog, cause, Some(status));
        }
    }

    pub(super) fn answer(&mut self, now: Now, key: DialogKey, local: LocalMedia) {
        self.with(key, |stack, dialog| {
            let Phase::Called { transaction, request } = dialog.phase.clone() else {
                return;
            };
            if dialog.ended {
                return;
            }
            let body = if request.head.body.is_empty() {
                Ok(dialog.negotiation.offer(local))
            } else {
                dialog.negotiation.answer(&request.head.body, local).map(|(body, _)| body)
            };
            match body {
                Ok(body) => {
                    dialog.phase = Phase::Confirmed;
                    stack.accept(now, dialog, transaction, &request, body, true);
                }
                Err(_) => stack.refuse_call(now, dialog, 488, LegCause::Refused),
            }
        });
    }

    /// Sends a 2xx with a body, and again until it is acknowledged.
    fn accept(
        &mut self,
        now: Now,
        dialog: &mut Dialog,
        transaction: TransactionId,
        request: &Request,
        body: Vec<u8>,
        first: bool,
    ) {
        let mut response = self.success(dialog, request, body);
        self.agree_session(now, dialog, request, &mut response);
        self.respond(now, transaction, &response);
        dialog.unacknowledged = Some(Unacknowledged {
            cseq: request.head.cseq,
            transaction,
            response,
            interval: T1,
            give_up_at: now + TIMEOUT,
            wants_answer: dialog.negotiation.is_offering(),
            first,
        });
        self.timers.set(Timer::Acknowledge(dialog.key), now + T1);
    }

    fn success(&self, dialog: &Dialog, request: &Request, body: Vec<u8>) -> Response {
        let mut response = request.response(200, Some(dialog.local_tag()));
        for route in request.head.addresses("Record-Route").unwrap_or_default() {
            response.head.push_address("Record-Route", &route);
        }
        response.head.push_address("Contact", &dialog::contact(&self.config, None, dialog.flow));
        response.head.push("Allow", ALLOW);
        response.head.push("Supported", "timer");
        if !body.is_empty() {
            response.head.push("Content-Type", SDP);
            response.head.body = body;
        }
        response
    }

    /// The answering side of RFC 4028 section 9: the peer refreshes unless it asks us to, or
    /// does not know how.
    fn agree_session(&mut self, now: Now, dialog: &mut Dialog, request: &Request, response: &mut Response) {
        let offered = session_interval(request);
        let secs = offered.unwrap_or(self.config.session_expires_secs).max(MIN_SE_SECS);
        let peer_can = request.head.has_token("Supported", "timer");
        let asks_us =
            request.head.field("Session-Expires").is_some_and(|value| value.contains("refresher=uas"));
        let we_refresh = asks_us || !peer_can || offered.is_none();
        if peer_can {
            let refresher = if we_refresh { "uas" } else { "uac" };
            response.head.push("Session-Expires", format!("{secs};refresher={refresher}"));
            if !we_refresh {
                response.head.push("Require", "timer");
            }
        }
        dialog.session = Some(Session { interval: Duration::from_secs(secs.into()), we_refresh });
        self.watch_session(now, dialog);
    }

    pub(super) fn watch_session(&mut self, now: Now, dialog: &Dialog) {
        match dialog.session {
            Some(session) if !dialog.ended => {
                self.timers.set(Timer::Session(dialog.key), now + session.act_after());
            }
            Some(_) | None => self.timers.clear(&Timer::Session(dialog.key)),
        }
    }

    /// The 2xx again, or the end: a 2xx that is never acknowledged ends in BYE.
    pub(super) fn on_unacknowledged(&mut self, now: Now, dialog: &mut Dialog) {
        let Some(open) = &mut dialog.unacknowledged else {
            return;
        };
        if now >= open.give_up_at {
            dialog.unacknowledged = None;
            self.counters.count("ack_missing");
            dialog.bye_wanted = false;
            self.end(dialog, LegCause::Lost, None);
            self.bye(now, dialog);
            return;
        }
        open.interval = (open.interval * 2).min(T2);
        let (id, response, at) = (open.transaction, open.response.clone(), now + open.interval);
        let at = at.min(open.give_up_at);
        self.timers.set(Timer::Acknowledge(dialog.key), at);
        self.respond(now, id, &response);
    }

    fn on_ack(&mut self, now: Now, ack: &Request) {
        let mut progress = Vec::new();
        let absorbed = self.transactions.on_ack(now, ack, &mut progress);
        self.advance(now, progress);
        if absorbed {
            return;
        }
        match self.find_dialog(ack) {
            Some(key) => self.with(key, |stack, dialog| {
                let due = dialog.unacknowledged.as_ref().is_some_and(|open| open.cseq == ack.head.cseq);
                if due {
                    stack.acknowledged(now, dialog, Some(&ack.head.body));
                }
            }),
            None => self.counters.count("stray_ack"),
        }
    }

    /// The peer has our 2xx. `body` is that of its ACK, `None` where a later request implies
    /// an ACK that was lost.
    fn acknowledged(&mut self, now: Now, dialog: &mut Dialog, body: Option<&[u8]>) {
        let Some(open) = dialog.unacknowledged.take() else {
            return;
        };
        self.timers.clear(&Timer::Acknowledge(dialog.key));
        let mut agreed = None;
        if open.wants_answer {
            match body.map(|body| dialog.negotiation.accept(body)) {
                Some(Ok(remote)) => agreed = Some(remote),
                Some(Err(_)) | None => {
                    dialog.negotiation.roll_back();
                    if open.first || !dialog.ended {
                        self.end(dialog, LegCause::Refused, Some(488));
                    }
                    self.bye(now, dialog);
                    return;
                }
            }
        }
        if dialog.bye_wanted {
            dialog.bye_wanted = false;
            self.bye(now, dialog);
            return;
        }
        match (open.first, agreed) {
            (true, remote) => self.event(SipEvent::Confirmed(dialog.key, remote)),
            (false, Some(remote)) => self.event(SipEvent::PeerMedia(dialog.key, remote)),
            (false, None) => {}
        }
        self.try_reinvite(now, dialog);
    }

    fn on_cancel(
        &mut self,
        now: Now,
        flow: Flow,
        size: usize,
        path: Option<Path>,
        cancels: Option<TransactionId>,
        request: &Request,
    ) {
        let Some(id) = cancels else {
            self.refuse(now, Path::Stateless { flow, size }, request, 481, &[]);
            return;
        };
        if let Some(path) = path {
            self.refuse(now, path, request, 200, &[]);
        }
        let key = self.dialogs.values().find_map(|dialog| match &dialog.phase {
            Phase::Called { transaction, .. } if *transaction == id => Some(dialog.key),
            Phase::Called { .. } | Phase::Calling(_) | Phase::Confirmed => None,
        });
        // After the final answer a CANCEL has no effect (RFC 3261 section 9.2).
        if let Some(key) = key {
            self.with(key, |stack, dialog| stack.refuse_call(now, dialog, 487, LegCause::RemoteHangUp));
        }
    }

    /// A request within a dialog.
    fn within(&mut self, now: Now, flow: Flow, path: Path, dialog: &mut Dialog, request: Request) {
        let Path::Transaction(transaction) = path else {
            return;
        };
        let method = request.head.method.clone();
        if matches!(dialog.phase, Phase::Calling(_)) {
            // Early, and we asked: only what has no media in it makes sense.
            let status = match method {
                Method::Update if !request.head.body.is_empty() => 491,
                Method::Update | Method::Options => 200,
                Method::Invite
                | Method::Ack
                | Method::Bye
                | Method::Cancel
                | Method::Register
                | Method::Known(_)
                | Method::Unknown(_) => 481,
            };
            self.refuse(now, path, &request, status, &[]);
            return;
        }
        if !dialog.advances(request.head.cseq) {
            self.refuse(now, path, &request, 500, &[]);
            return;
        }
        if method == Method::Bye {
            self.on_bye(now, path, dialog, &request);
            return;
        }
        if dialog.ended {
            self.refuse(now, path, &request, 481, &[]);
            return;
        }
        if flow.transport == dialog.flow.transport || flow.transport == Transport::Tcp {
            dialog.flow = flow;
        }
        match method {
            Method::Invite => self.on_reinvite(now, transaction, dialog, &request),
            Method::Update => self.on_update(now, path, dialog, &request),
            Method::Options => self.refuse(now, path, &request, 200, &[("Allow", ALLOW), ("Accept", SDP)]),
            Method::Unknown(_) => self.refuse(now, path, &request, 501, &[("Allow", ALLOW)]),
            Method::Known("SUBSCRIBE" | "NOTIFY") => self.refuse(now, path, &request, 489, &[]),
            Method::Known("PRACK") => self.refuse(now, path, &request, 481, &[]),
            Method::Known(_) | Method::Register => self.refuse(now, path, &request, 405, &[("Allow", ALLOW)]),
            Method::Ack | Method::Bye | Method::Cancel => {}
        }
    }

    /// BYE is always answered; an open INVITE of the peer gets 487 (RFC 3261 section 15.1.2).
    fn on_bye(&mut self, now: Now, path: Path, dialog: &mut Dialog, request: &Request) {
        if dialog.ended && dialog.bye.is_none() && !dialog.bye_wanted && dialog.unacknowledged.is_none() {
            self.refuse(now, path, request, 481, &[]);
            return;
        }
        self.refuse(now, path, request, 200, &[]);
        if let Phase::Called { .. } = dialog.phase {
            self.refuse_call(now, dialog, 487, LegCause::RemoteHangUp);
        }
        dialog.bye_wanted = false;
        dialog.unacknowledged = None;
        self.timers.clear(&Timer::Acknowledge(dialog.key));
        self.end(dialog, LegCause::RemoteHangUp, None);
    }

    fn on_reinvite(&mut self, now: Now, transaction: TransactionId, dialog: &mut Dialog, request: &Request) {
        let path = Path::Transaction(transaction);
        if let Phase::Called { .. } = dialog.phase {
            // The first INVITE is not answered yet (RFC 3261 section 14.2).
            let wait = self.random.below(11).to_string();
            self.refuse(now, path, request, 500, &[("Retry-After", &wait)]);
            return;
        }
        if dialog.reinvite.is_some() {
            self.refuse(now, path, request, 491, &[]);
            return;
        }
        if dialog.unacknowledged.as_ref().is_some_and(|open| open.wants_answer) {
            self.refuse(now, path, request, 491, &[]);
            return;
        }
        // A newer request of the same peer: it has our 2xx, its ACK got lost or is late.
        self.acknowledged(now, dialog, None);
        if dialog.ended {
            self.refuse(now, path, request, 481, &[]);
            return;
        }
        if session_interval(request).is_some_and(|secs| secs < MIN_SE_SECS) {
            self.refuse(now, path, request, 422, &[("Min-SE", "90")]);
            return;
        }
        let Some(local) = dialog.negotiation.local() else {
            self.refuse(now, path, request, 488, &[]);
            return;
        };
        dialog.refresh_target(&request.head);
        if request.head.body.is_empty() {
            let body = dialog.negotiation.offer(local);
            self.accept(now, dialog, transaction, request, body, false);
            return;
        }
        let before = dialog.negotiation.agreed();
        match dialog.negotiation.answer(&request.head.body, local) {
            Ok((body, remote)) => {
                self.accept(now, dialog, transaction, request, body, false);
                if before != Some(remote) {
                    self.event(SipEvent::PeerMedia(dialog.key, remote));
                }
            }
            Err(_) => self.refuse(now, path, request, 488, &[]),
        }
    }

    /// RFC 3311: like a re-INVITE, but answered at once and without ACK.
    fn on_update(&mut self, now: Now, path: Path, dialog: &mut Dialog, request: &Request) {
        let has_offer = !request.head.body.is_empty();
        if has_offer && dialog.negotiation.is_offering() {
            self.refuse(now, path, request, 491, &[]);
            return;
        }
        if has_offer && matches!(dialog.phase, Phase::Called { .. }) {
            let wait = self.random.below(11).to_string();
            self.refuse(now, path, request, 500, &[("Retry-After", &wait)]);
            return;
        }
        if session_interval(request).is_some_and(|secs| secs < MIN_SE_SECS) {
            self.refuse(now, path, request, 422, &[("Min-SE", "90")]);
            return;
        }
        dialog.refresh_target(&request.head);
        let mut body = Vec::new();
        let mut changed = None;
        if has_offer {
            let before = dialog.negotiation.agreed();
            let answered =
                dialog.negotiation.local().map(|local| dialog.negotiation.answer(&request.head.body, local));
            match answered {
                Some(Ok((answer, remote))) => {
                    body = answer;
                    changed = Some(remote).filter(|_| before != Some(remote));
                }
                Some(Err(_)) | None => {
                    self.refuse(now, path, request, 488, &[]);
                    return;
                }
            }
        }
        let mut response = self.success(dialog, request, body);
        if matches!(dialog.phase, Phase::Confirmed) {
            self.agree_session(now, dialog, request, &mut response);
        }
        self.answer_on(now, path, &response);
        if let Some(remote) = changed {
            self.event(SipEvent::PeerMedia(dialog.key, remote));
        }
    }
}

/// Checks that hold for every request but ACK and CANCEL: status and headers of a refusal.
fn unacceptable(request: &Request) -> Option<(u16, Vec<(&'static str, String)>)> {
    let head = &request.head;
    if !matches!(head.method, Method::Unknown(_) | Method::Known(_)) {
        let scheme = request.uri.scheme.as_str();
        if scheme != "sip" && !(scheme == "tel" && head.method != Method::Register) {
            return Some((416, Vec::new()));
        }
    }
    let unsupported: Vec<&str> =
        head.tokens("Require").into_iter().filter(|token| !token.eq_ignore_ascii_case("timer")).collect();
    if !unsupported.is_empty() {
        return Some((420, vec![("Unsupported", unsupported.join(", "))]));
    }
    if matches!(head.method, Method::Invite | Method::Update) {
        let encoded =
            head.tokens("Content-Encoding").iter().any(|coding| !coding.eq_ignore_ascii_case("identity"));
        if !head.body.is_empty() && (encoded || head.content_type().as_deref() != Some(SDP)) {
            return Some((415, vec![("Accept", SDP.to_owned())]));
        }
        let accepts: Vec<&str> = head.tokens("Accept");
        let sdp = |kind: &str| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            [SDP, "application/*", "*/*"].iter().any(|known| known.eq_ignore_ascii_case(kind))
        };
        if !accepts.is_empty() && !accepts.iter().any(|kind| sdp(kind)) {
            return Some((406, Vec::new()));
        }
    }
    None
}

fn is_scanner(request: &Request) -> bool {
    let agent = request.head.field("User-Agent").unwrap_or_default().to_ascii_lowercase();
    SCANNERS.iter().any(|scanner| agent.contains(scanner))
}

pub(super) fn session_interval(request: &Request) -> Option<u32> {
    request.head.number("Session-Expires")
}

/// Who calls, and whether they want it known (RFC 3323, RFC 3325).
fn caller(request: &Request, trusted: bool) -> (Option<Pii<String>>, bool) {
    let from = &request.head.from;
    let privacy = ["id", "user", "header"].iter().any(|kind| {
        let tokens = request.head.all("Privacy").flat_map(|value| value.split([';', ',']));
        tokens.into_iter().any(|token| token.trim().eq_ignore_ascii_case(kind))
    });
    let anonymous = from.uri.host.ends_with("anonymous.invalid")
        || from.uri.user_text().is_some_and(|user| user.eq_ignore_ascii_case("anonymous"));
    if privacy || anonymous {
        return (None, true);
    }
    let asserted = request.head.addresses("P-Asserted-Identity").unwrap_or_default();
    let asserted = asserted.iter().filter(|_| trusted).find_map(|address| address.uri.user_text());
    let user = asserted.or_else(|| from.uri.user_text()).filter(|user| !user.is_empty());
    (user.map(|user| Pii::new(user.to_owned())), false)
}

/// Whose doing a refusal was.
pub(super) const fn cause_of(status: u16) -> LegCause {
    match status {
        486 | 600 | 480 => LegCause::Busy,
        603 => LegCause::Declined,
        408 => LegCause::Unreachable,
        487 => LegCause::Cancelled,
        _ => LegCause::Refused,
    }
}

const fn refusal_name(status: u16) -> &'static str {
    match status {
        401 | 407 => "challenged",
        403 => "forbidden",
        404 => "not_found",
        481 => "no_dialog",
        491 => "glare",
        500..=599 => "refused_5xx",
        _ => "refused_other",
    }
}
