//! Requests that come in: admission, verdicts, and the called side of an INVITE up to
//! its final answer (RFC 3261 sections 8.2, 9.2, 13.3). What nobody proved is answered without
//! state, once and small.

use handoff::call::outcome::LegCause;
use handoff::clock::Now;
use handoff::pii::Pii;

use super::auth::{Account, Algorithm, Verdict};
use super::dialog::{Dialog, Parties, Peer, Phase, Purpose, Role};
use super::header::Method;
use super::message::{Contacts, Request, Response};
use super::random::{hex, mac};
use super::refer;
use super::reliable::REL100;
use super::stack::{DIALOGS_MAX, Stack, Timer};
use super::transaction::{Received, TransactionId};
use super::trunk::Rel100;
use super::{DialogKey, Flow, LocalMedia, Origin, SipEvent, SipOutput};

/// What every Allow header says.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, REGISTER";
/// What an answer to OPTIONS says that we know.
const SUPPORTED: &str = "timer, 100rel";
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
        let trunk = self.config.trunk(flow.peer).map(|trunk| trunk.name.clone());
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
            // One forged datagram would otherwise silence whoever owns the address.
            if flow.transport.is_stream() {
                self.ban(now, flow);
            }
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
        if let Some((status, fields)) = unacceptable(&request, self.config.rel100(flow.peer)) {
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
                let fields = [("Allow", ALLOW), ("Accept", SDP), ("Supported", SUPPORTED)];
                self.refuse(now, path, &request, if self.draining { 503 } else { 200 }, &fields);
            }
            Method::Bye | Method::Update => self.refuse(now, path, &request, 481, &[]),
            // A transfer that no call of the sender's asks for.
            Method::Known("REFER") => self.refuse(now, path, &request, 403, &[]),
            Method::Known("SUBSCRIBE" | "PUBLISH") => self.refuse(now, path, &request, 489, &[]),
            Method::Known("INFO" | "NOTIFY") => self.refuse(now, path, &request, 481, &[]),
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
                if flow.transport.is_stream() || bytes.len() <= 2 * size {
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
        let claimed = shortened(request.head.from.uri.user_text().unwrap_or_default());
        if !self.failures.has(now, &source) || !self.user_failures.has(now, &(source, claimed)) {
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
                self.user_failures.take(now, &(source, shortened(&user)));
                self.failures.take(now, &source);
                // Its nonce was made for this source, which has therefore read our challenge:
                // nobody can have another's address banned.
                if !self.failures.has(now, &source) {
                    self.ban(now, flow);
                    return None;
                }
                false
            }
        };
        let algorithm = self.algorithm(request.head.from.uri.user_text().unwrap_or_default());
        let challenge = self.auth.challenge(now, source, algorithm, stale);
        let fields = [("WWW-Authenticate", challenge.as_str())];
        self.refuse(now, path, request, 401, &fields);
        None
    }

    /// What a user is challenged with. It is one challenge and not a choice of them, because
    /// phones that know MD5 alone (baresip 1.0) give up at the first one that they cannot do.
    fn algorithm(&self, user: &str) -> Algorithm {
        match self.config.user(user) {
            Some(user) if user.allow_md5 => Algorithm::Md5,
            None if self.config.offers_md5() => self.auth.algorithm_of_nobody(user),
            Some(_) | None => Algorithm::Sha256,
        }
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
        let refusal = self.invite_refusal(flow, &request);
        if let Some((status, fields)) = refusal {
            self.refuse(now, path, &request, status, fields);
            return;
        }
        if self.ringing_from(flow) >= ringing_max(&origin) {
            self.counters.count("half_open_full");
            self.refuse(now, path, &request, 503, &[("Retry-After", RETRY_AFTER_SECS)]);
            return;
        }
        if let Origin::Trunk(name) = &origin
            && !self.room.admit(now, name)
        {
            self.counters.count("trunk_full");
            self.refuse(now, path, &request, 503, &[("Retry-After", RETRY_AFTER_SECS)]);
            return;
        }
        let key = DialogKey(self.next_inbound);
        let dialog = self.called(key, flow, transaction, &origin, &request);
        let remote = if request.head.body.is_empty() {
            None
        } else {
            match dialog.negotiation.look(&request.head.body) {
                Ok(remote) => Some(remote),
                Err(_) => {
                    self.refuse(now, path, &request, 488, &[]);
                    return;
                }
            }
        };
        self.next_inbound += 2;
        self.by_call.insert((dialog.call_id.clone(), dialog.local_tag().to_owned()), key);
        self.dialogs.insert(key, dialog);
        if let Origin::Trunk(name) = &origin {
            self.room.opened(key, name);
        }
        self.respond(now, transaction, &request.response(100, None));
        let (caller, restricted) = caller(&request, matches!(origin, Origin::Trunk(_)));
        let dialled = Pii::new(request.uri.user_text().unwrap_or_default().to_owned());
        self.event(SipEvent::Invited { dialog: key, origin, caller, restricted, dialled, remote });
    }

    /// Calls of this address that nobody has answered yet.
    fn ringing_from(&self, flow: Flow) -> usize {
        let source = flow.peer.ip().to_canonical();
        let ringing = |dialog: &&Dialog| {
            matches!(dialog.phase, Phase::Called { .. }) && dialog.flow.peer.ip().to_canonical() == source
        };
        self.dialogs.values().filter(ringing).count()
    }

    /// What stands against a new INVITE of a known sender.
    fn invite_refusal(&self, flow: Flow, request: &Request) -> Option<(u16, Fields<'static>)> {
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
        let can_reliably = ["Supported", "Require"].iter().any(|name| request.head.has_token(name, REL100));
        if !self.is_for_us(request) {
            Some((404, &[]))
        } else if let Some(status) = refer::replaces(request) {
            Some((status, &[]))
        } else if self.draining || self.dialogs.len() >= DIALOGS_MAX {
            Some((503, &[("Retry-After", RETRY_AFTER_SECS)]))
        } else if merged {
            Some((482, &[]))
        } else if bad_contact {
            Some((400, &[]))
        } else if self.config.rel100(flow.peer) == Rel100::Require && !can_reliably {
            Some((421, &[("Require", REL100)]))
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
        origin: &Origin,
        request: &Request,
    ) -> Dialog {
        let tag = self.random.token();
        let parties = Parties {
            call_id: request.head.call_id.clone(),
            local: request.head.to.clone().with_tag(&tag),
            remote: request.head.from.clone(),
            target: request.head.from.uri.clone(),
        };
        let peer = match origin {
            Origin::Trunk(_) => Peer::Address,
            Origin::User(_) => Peer::User,
        };
        let phase = Phase::Called { transaction, request: Box::new(request.clone()) };
        let mut dialog =
            Dialog::new(&self.config, &mut self.random, key, Role::Uas, peer, flow, parties, phase);
        dialog.routes = request.head.addresses("Record-Route").unwrap_or_default();
        dialog.remote_cseq = Some(request.head.cseq);
        if let Origin::Trunk(name) = origin {
            let trunk = self.config.trunks.iter().find(|trunk| trunk.name == *name);
            dialog.credentials = trunk.and_then(|trunk| trunk.credentials.clone());
        }
        dialog.rel100 = self.config.rel100(flow.peer);
        dialog.refresh_target(&request.head);
        dialog.learn_methods(&request.head);
        dialog
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
        self.with(key, |stack, dialog| stack.answer_call(now, dialog, local));
    }

    /// Answers a call, once the description of a reliable response has arrived.
    pub(super) fn answer_call(&mut self, now: Now, dialog: &mut Dialog, local: LocalMedia) {
        let Phase::Called { transaction, request } = dialog.phase.clone() else {
            return;
        };
        if dialog.ended || dialog.holds_answer(local) {
            return;
        }
        self.timers.clear(&Timer::Provisional(dialog.key));
        let body = if dialog.reliable.settled {
            // Agreed already; other media than that is a re-INVITE.
            let differs = dialog.negotiation.local() != Some(local);
            dialog.wanted = differs.then_some((local, Purpose::Media));
            Ok(Vec::new())
        } else if request.head.body.is_empty() {
            Ok(dialog.negotiation.offer(local))
        } else {
            dialog.negotiation.answer(&request.head.body, local).map(|(body, _)| body)
        };
        match body {
            Ok(body) => {
                dialog.phase = Phase::Confirmed;
                self.accept(now, dialog, transaction, &request, body, true);
            }
            Err(_) => self.refuse_call(now, dialog, 488, LegCause::Refused),
        }
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
}

/// Checks that hold for every request but ACK and CANCEL: status and headers of a refusal.
fn unacceptable(request: &Request, rel100: Rel100) -> Option<(u16, Vec<(&'static str, String)>)> {
    let head = &request.head;
    if !matches!(head.method, Method::Unknown(_) | Method::Known(_)) {
        let scheme = request.uri.scheme.as_str();
        if scheme != "sip" && !(scheme == "tel" && head.method != Method::Register) {
            return Some((416, Vec::new()));
        }
    }
    let supported = |token: &str| {
        token.eq_ignore_ascii_case("timer") || (rel100 != Rel100::Off && token.eq_ignore_ascii_case(REL100))
    };
    let unsupported: Vec<&str> =
        head.tokens("Require").into_iter().filter(|token| !supported(token)).collect();
    if !unsupported.is_empty() {
        return Some((420, vec![("Unsupported", unsupported.join(", "))]));
    }
    if matches!(head.method, Method::Invite | Method::Update | Method::Known("PRACK")) {
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

/// Most unanswered calls of one address. No one address fills the table of dialogs, and a
/// person's phone has a handful of lines.
const fn ringing_max(origin: &Origin) -> usize {
    match origin {
        Origin::Trunk(_) => DIALOGS_MAX / 8,
        Origin::User(_) => 16,
    }
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
    (user.map(|user| Pii::new(number(user).to_owned())), false)
}

/// A telephone number without its parameters, of which carriers write the verdict of their
/// verification there (RFC 3261 section 19.1.6); a name as it is.
fn number(user: &str) -> &str {
    let is_number = user.starts_with(|first: char| first == '+' || first.is_ascii_digit());
    if is_number { user.split(';').next().unwrap_or(user) } else { user }
}

/// A user name as the lock-out table keeps it: names of a peer's choosing must not fill it.
fn shortened(user: &str) -> String {
    user.chars().take(64).collect()
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
