//! Requests that leave: the calling side of an INVITE with its forks, challenges and
//! cancellation, and BYE (RFC 3261 sections 9.1, 13.2, 15.1.1). A redirect is never followed
//! and no dial string is made up here.

use std::time::Duration;

use handoff::call::outcome::LegCause;
use handoff::clock::Now;
use handoff::pii::Pii;

use super::auth::{Challenge, Covered};
use super::dialog::{
    self, Calling, Cancel, Dialog, FORKS_MAX, Parties, Peer, Phase, Role, Session, Target, establish,
};
use super::early;
use super::header::{Address, Method, Uri};
use super::message::{Head, Request, Response};
use super::offer_answer::is_reachable;
use super::reliable::REL100;
use super::sdes::Keying;
use super::stack::{DIALOGS_MAX, Stack, Timer, Use};
use super::transaction::TIMEOUT;
use super::trunk::{Credentials, Rel100};
use super::uas::{ALLOW, MIN_SE_SECS, SDP, cause_of};
use super::{Caller, Destination, DialogKey, Flow, LocalMedia, SipEvent, Transport};

/// What a new outbound INVITE is told.
pub(super) struct Order {
    pub(super) to: Destination,
    pub(super) local: LocalMedia,
    pub(super) handle: Option<String>,
    pub(super) from: Option<Caller>,
    pub(super) credentials: Option<Credentials>,
}

/// Longest handle that is put into a header; it has 26 characters.
const HANDLE_BYTES_MAX: usize = 64;

/// How an INVITE differs from the one before: its credentials header, and the session
/// interval it asks for with the least it takes.
type Attempt = (Option<(&'static str, String)>, (u32, u32));

impl Stack {
    pub(super) fn invite(&mut self, now: Now, key: DialogKey, order: Order) {
        if self.dialogs.contains_key(&key) {
            // An end told now would be that of the other dialog.
            self.counters.count("dialog_key_taken");
            return;
        }
        let (peer, mut targets) = self.targets(now, &order.to);
        let known = targets.len();
        targets.retain(|target| self.config.keying(target.flow) != Keying::Impossible);
        if targets.len() < known {
            self.counters.count("srtp_without_tls");
        }
        targets.reverse();
        let full = self.dialogs.len() >= DIALOGS_MAX;
        let (Some(first), false) = (targets.pop(), full) else {
            self.counters.count("undialable");
            self.event(SipEvent::Ended { dialog: key, cause: LegCause::Unreachable, status: None });
            return;
        };
        let trunk = self.config.trunk(first.flow.peer);
        let credentials = order.credentials.or_else(|| trunk.and_then(|trunk| trunk.credentials.clone()));
        let own = self.own_identity(order.from.as_ref());
        // A handle is for the human agent's own phone; it names nobody, but it is theirs.
        let handle = order.handle.filter(|handle| {
            peer == Peer::User
                && (1..=HANDLE_BYTES_MAX).contains(&handle.len())
                && handle.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let flow = first.flow;
        let parties = Parties {
            call_id: self.random.token(),
            local: own.with_tag(&self.random.token()),
            remote: Address::new(plain(&first.uri)),
            target: first.uri.clone(),
        };
        let mut dialog = Dialog::new(
            &self.config,
            &mut self.random,
            key,
            Role::Uac,
            peer,
            flow,
            parties,
            Phase::Confirmed,
        );
        dialog.credentials = credentials.clone();
        dialog.rel100 = self.config.rel100(flow.peer);
        let (_, request) = dialog.request(&self.config, &mut self.random, Method::Invite, None);
        let mut calling = Calling::new(request, order.local);
        calling.targets = targets;
        calling.handle = handle;
        calling.restricted = order.from.is_some_and(|from| from.restricted);
        calling.credentials = credentials;
        dialog.phase = Phase::Calling(Box::new(calling));
        let interval = self.interval();
        self.send_invite(now, &mut dialog, None, interval);
        self.by_call.insert((dialog.call_id.clone(), dialog.local_tag().to_owned()), key);
        self.dialogs.insert(key, dialog);
        self.with(key, |stack, dialog| {
            if dialog.invite.is_none() {
                stack.end(dialog, LegCause::Unreachable, None);
            }
        });
    }

    /// The session interval to ask for, and the least to take.
    fn interval(&self) -> (u32, u32) {
        (self.config.session_expires_secs.max(MIN_SE_SECS), MIN_SE_SECS)
    }

    /// Where a destination is, best first.
    fn targets(&self, now: Now, to: &Destination) -> (Peer, Vec<Target>) {
        match to {
            Destination::User(name) => {
                let bindings = self.registrar.bindings(now, name);
                let mut targets: Vec<Target> = bindings
                    .into_iter()
                    .map(|binding| Target { uri: binding.contact, flow: binding.flow })
                    .collect();
                let fixed = self.config.user(name).and_then(|user| user.uri.as_ref());
                if targets.is_empty() {
                    targets.extend(fixed.and_then(|uri| self.fixed_target(uri.expose())));
                }
                (Peer::User, targets)
            }
            Destination::Uri(uri) => (Peer::Address, self.fixed_target(uri.expose()).into_iter().collect()),
        }
    }

    fn fixed_target(&self, uri: &str) -> Option<Target> {
        let uri = Uri::parse(uri).filter(|uri| uri.is_sip() && !uri.has_headers)?;
        let peer = self.config.resolve(&uri)?;
        let reachable = is_reachable(peer.ip(), self.config.allow_loopback);
        let flow = Flow { transport: dialog::transport_of(&uri), peer, connection: 0 };
        reachable.then_some(Target { uri, flow })
    }

    fn own_identity(&self, from: Option<&Caller>) -> Address {
        if from.is_some_and(|from| from.restricted) {
            let uri = Uri::parse("sip:anonymous@anonymous.invalid");
            if let Some(uri) = uri {
                return Address { display: Some("Anonymous".to_owned()), uri, params: Vec::new() };
            }
        }
        let user = self.config.identity(from.map(|from| &from.user));
        let mut uri = Uri::of(Some(&user), self.config.advertised, Transport::Udp);
        let domain = from.and_then(|from| from.domain.as_deref()).unwrap_or(&self.config.realm);
        let at = uri.text.rfind('@').unwrap_or(0);
        let named = uri.text.get(..at).and_then(|start| Uri::parse(&format!("{start}@{domain}")));
        if let Some(named) = named {
            uri = named;
        }
        Address::new(uri)
    }

    /// Sends the INVITE of `dialog` with a new branch; what differs between attempts is in
    /// the arguments.
    fn send_invite(
        &mut self,
        now: Now,
        dialog: &mut Dialog,
        authorization: Option<(&str, String)>,
        interval: (u32, u32),
    ) {
        early::forget(dialog);
        let Phase::Calling(mut calling) = dialog.phase.clone() else {
            return;
        };
        dialog.negotiation.moved(self.config.keying(dialog.flow));
        let cseq = calling.request.head.cseq;
        let (flow, mut request) = dialog.request(&self.config, &mut self.random, Method::Invite, Some(cseq));
        request.head.push_address("Contact", &dialog::contact(&self.config, None, flow));
        request.head.push("Allow", ALLOW);
        match dialog.rel100 {
            Rel100::Off => request.head.push("Supported", "timer"),
            Rel100::Supported => request.head.push("Supported", "timer, 100rel"),
            Rel100::Require => {
                request.head.push("Supported", "timer, 100rel");
                request.head.push("Require", REL100);
            }
        }
        request.head.push("Session-Expires", interval.0.to_string());
        request.head.push("Min-SE", interval.1.to_string());
        if calling.restricted {
            request.head.push("Privacy", "id");
        }
        if let Some(handle) = &calling.handle {
            request.head.push("X-Warmbridge-Handoff", handle.clone());
            let hex = super::random::hex(handle.as_bytes());
            request.head.push("User-to-User", format!("{hex};encoding=hex"));
        }
        if let Some((name, value)) = authorization {
            request.head.push(name, value);
        }
        request.head.push("Content-Type", SDP);
        request.head.body = dialog.negotiation.offer(calling.local);
        let purpose = Use::Invite(dialog.key);
        dialog.invite = if calling.datagram_only {
            self.start_on(now, flow, &request, purpose)
        } else {
            self.start(now, flow, &mut request, purpose)
        };
        let used = dialog.invite.and_then(|id| self.transactions.flow(id));
        calling.moved_to_tcp = used.is_some_and(|used| used.transport != flow.transport);
        calling.request = request;
        calling.provisional = false;
        dialog.phase = Phase::Calling(calling);
    }

    pub(super) fn on_invite_response(
        &mut self,
        now: Now,
        flow: Flow,
        dialog: &mut Dialog,
        response: &Response,
    ) {
        let status = response.status;
        if (200..300).contains(&status) {
            self.on_invite_success(now, flow, dialog, response);
            return;
        }
        let Phase::Calling(calling) = &mut dialog.phase else {
            return;
        };
        if status < 200 {
            calling.provisional = true;
            let rings = status > 100 && self.on_progress(now, flow, dialog, response);
            if let Phase::Calling(calling) = &mut dialog.phase
                && rings
                && !std::mem::replace(&mut calling.rang, true)
                && !dialog.ended
            {
                self.event(SipEvent::Ringing(dialog.key));
            }
            self.cancel_if_wanted(now, dialog);
            return;
        }
        dialog.invite = None;
        if dialog.ended {
            return;
        }
        if let Some((authorization, interval)) = self.second_chance(dialog, response) {
            if let Phase::Calling(calling) = &mut dialog.phase {
                dialog.local_cseq += 1;
                calling.request.head.cseq = dialog.local_cseq;
            }
            self.send_invite(now, dialog, authorization, interval);
            return;
        }
        if matches!(status, 408 | 503) && self.next_target(now, dialog) {
            return;
        }
        self.end(dialog, cause_of(status), Some(status));
    }

    /// What a challenge or a 422 asks for, once each.
    fn second_chance(&mut self, dialog: &mut Dialog, response: &Response) -> Option<Attempt> {
        let wanted = self.config.session_expires_secs.max(MIN_SE_SECS);
        let Phase::Calling(calling) = &mut dialog.phase else {
            return None;
        };
        match response.status {
            401 | 407 if !calling.authorized => {
                let credentials = calling.credentials.clone()?;
                calling.authorized = true;
                let request = calling.request.clone();
                let answer = self.authorization(&credentials, response, &request)?;
                Some((Some(answer), (wanted, MIN_SE_SECS)))
            }
            422 if !calling.interval_raised => {
                calling.interval_raised = true;
                let minimum = response.head.number("Min-SE")?.clamp(MIN_SE_SECS, 86_400);
                Some((None, (wanted.max(minimum), minimum)))
            }
            _ => None,
        }
    }

    /// The header that answers a challenge to `request`.
    pub(super) fn authorization(
        &mut self,
        credentials: &Credentials,
        response: &Response,
        request: &Request,
    ) -> Option<(&'static str, String)> {
        let (asked, answered) = match response.status {
            407 => ("Proxy-Authenticate", "Proxy-Authorization"),
            _ => ("WWW-Authenticate", "Authorization"),
        };
        let challenge = Challenge::strongest(response.head.all(asked))?;
        let covered = Covered {
            method: request.head.method.as_str(),
            uri: &request.uri.text,
            body: &request.head.body,
        };
        let cnonce = self.random.token();
        challenge
            .answer(&credentials.user, &credentials.secret, &covered, 1, &cnonce)
            .map(|value| (answered, value))
    }

    pub(super) fn on_invite_unanswered(&mut self, now: Now, dialog: &mut Dialog) {
        dialog.invite = None;
        if dialog.ended {
            return;
        }
        if let Phase::Calling(calling) = &mut dialog.phase
            && calling.moved_to_tcp
            && !std::mem::replace(&mut calling.datagram_only, true)
        {
            // RFC 3261 section 18.1.1: where TCP is refused, a large datagram is the best left.
            dialog.local_cseq += 1;
            calling.request.head.cseq = dialog.local_cseq;
            let interval = self.interval();
            self.send_invite(now, dialog, None, interval);
            return;
        }
        if !self.next_target(now, dialog) {
            self.end(dialog, LegCause::Unreachable, None);
        }
    }

    /// The next contact, as a new call: no Call-ID is used twice, so nobody sees a merged
    /// request.
    fn next_target(&mut self, now: Now, dialog: &mut Dialog) -> bool {
        let Phase::Calling(calling) = &mut dialog.phase else {
            return false;
        };
        let (Some(next), false) = (calling.targets.pop(), calling.provisional) else {
            return false;
        };
        calling.authorized = false;
        self.by_call.remove(&(dialog.call_id.clone(), dialog.local_tag().to_owned()));
        dialog.call_id = self.random.token();
        dialog.local = dialog.local.clone().with_tag(&self.random.token());
        dialog.flow = next.flow;
        dialog.remote = Address::new(plain(&next.uri));
        dialog.target = next.uri;
        self.by_call.insert((dialog.call_id.clone(), dialog.local_tag().to_owned()), dialog.key);
        let interval = self.interval();
        self.send_invite(now, dialog, None, interval);
        dialog.invite.is_some()
    }

    fn on_invite_success(&mut self, now: Now, flow: Flow, dialog: &mut Dialog, response: &Response) {
        let tag = response.head.to.tag().unwrap_or_default().to_owned();
        if let Some((flow, ack)) = dialog.acks.get(&(response.head.cseq, tag.clone())) {
            // A retransmission: our ACK was lost.
            self.out.push(super::SipOutput::Send(*flow, ack.clone()));
            return;
        }
        let Phase::Calling(calling) = dialog.phase.clone() else {
            self.on_fork(now, flow, dialog, response, tag);
            return;
        };
        let early = dialog.early.remove(&tag).unwrap_or_default();
        dialog.early.clear();
        dialog.remote = response.head.to.clone();
        establish(dialog, flow, response);
        self.ack(dialog, response.head.cseq, tag, Some(&calling.request));
        let preview = early.confirm(dialog);
        dialog.phase = Phase::Confirmed;
        self.timers.clear(&Timer::Cancelled(dialog.key));
        if dialog.ended {
            // Answered while it was taken back.
            self.counters.count("late_answer");
            self.bye(now, dialog);
            return;
        }
        let body = if response.head.body.is_empty() { preview } else { Some(response.head.body.clone()) };
        // The first description that arrived reliably is the answer; later ones are none
        // (RFC 3261 section 13.2.1).
        let answer = match dialog.negotiation.agreed() {
            Some(agreed) => Some(Ok(agreed)),
            None => body.map(|body| dialog.negotiation.accept(&body)),
        };
        match answer {
            Some(Ok(remote)) => {
                self.adopt_session(now, dialog, response);
                self.event(SipEvent::Answered(dialog.key, remote));
            }
            Some(Err(_)) | None => {
                self.counters.count("unusable_answer");
                self.end(dialog, LegCause::Refused, Some(488));
                self.bye(now, dialog);
            }
        }
    }

    /// Another phone answered the same INVITE: it hears ACK, then BYE.
    fn on_fork(&mut self, now: Now, flow: Flow, dialog: &mut Dialog, response: &Response, tag: String) {
        if dialog.acks.len() >= FORKS_MAX {
            self.counters.count("forks_full");
            return;
        }
        self.counters.count("forked_answer");
        let mut fork = dialog.clone();
        fork.remote = response.head.to.clone();
        establish(&mut fork, flow, response);
        self.ack(&mut fork, response.head.cseq, tag, None);
        let (flow, mut request) = fork.request(&self.config, &mut self.random, Method::Bye, None);
        request.head.push(REASON, COMPLETED_ELSEWHERE);
        self.start(now, flow, &mut request, Use::Nothing);
        dialog.acks = fork.acks;
    }

    /// ACK for a 2xx: a request of its own, kept for as long as the 2xx may come again.
    pub(super) fn ack(&mut self, dialog: &mut Dialog, cseq: u32, tag: String, answered: Option<&Request>) {
        let (flow, mut ack) = dialog.request(&self.config, &mut self.random, Method::Ack, Some(cseq));
        for name in ["Authorization", "Proxy-Authorization"] {
            if let Some(value) = answered.and_then(|request| request.head.field(name)) {
                ack.head.push(name, value);
            }
        }
        let bytes = ack.print();
        self.out.push(super::SipOutput::Send(flow, bytes.clone()));
        // Each re-INVITE adds one; the oldest can no longer be asked for.
        while dialog.acks.len() >= FORKS_MAX {
            dialog.acks.pop_first();
        }
        dialog.acks.insert((cseq, tag), (flow, bytes));
    }

    /// The asking side of RFC 4028 section 7: without a `Session-Expires` in the answer, we
    /// refresh alone.
    pub(super) fn adopt_session(&mut self, now: Now, dialog: &mut Dialog, response: &Response) {
        let granted = response.head.number("Session-Expires");
        let theirs =
            response.head.field("Session-Expires").is_some_and(|value| value.contains("refresher=uas"));
        let secs = granted.unwrap_or(self.config.session_expires_secs).max(MIN_SE_SECS);
        dialog.session = Some(Session { interval: Duration::from_secs(secs.into()), we_refresh: !theirs });
        self.watch_session(now, dialog);
    }

    pub(super) fn hang_up(&mut self, now: Now, key: DialogKey, cause: LegCause) {
        self.with(key, |stack, dialog| {
            if dialog.ended {
                return;
            }
            dialog.cause = cause;
            match &mut dialog.phase {
                Phase::Called { .. } => stack.refuse_call(now, dialog, status_of(cause), cause),
                Phase::Calling(calling) => {
                    calling.cancel = Cancel::Wanted;
                    calling.targets.clear();
                    stack.cancel_if_wanted(now, dialog);
                    stack.end(dialog, cause, None);
                }
                Phase::Confirmed => {
                    // The caller of an INVITE may hang up at once; who answered waits for the
                    // ACK (RFC 3261 section 15).
                    if dialog.unacknowledged.as_ref().is_some_and(|open| open.first) {
                        dialog.bye_wanted = true;
                    } else {
                        stack.bye(now, dialog);
                    }
                    stack.end(dialog, cause, None);
                }
            }
        });
    }

    /// CANCEL, but never before a provisional response: the INVITE may not have arrived.
    fn cancel_if_wanted(&mut self, now: Now, dialog: &mut Dialog) {
        let key = dialog.key;
        let Phase::Calling(calling) = &mut dialog.phase else {
            return;
        };
        if calling.cancel != Cancel::Wanted || !calling.provisional {
            return;
        }
        calling.cancel = Cancel::Sent;
        let mut cancel = cancel_of(&calling.request);
        cancel.head.push(REASON, reason_of(dialog.cause));
        let flow = dialog.invite.and_then(|id| self.transactions.flow(id)).unwrap_or(dialog.flow);
        self.start_on(now, flow, &cancel, Use::Nothing);
        self.timers.set(Timer::Cancelled(key), now + TIMEOUT);
    }

    /// BYE, once.
    pub(super) fn bye(&mut self, now: Now, dialog: &mut Dialog) {
        if dialog.bye.is_some() || !matches!(dialog.phase, Phase::Confirmed) {
            return;
        }
        // A 2xx to a re-INVITE that nobody acknowledged needs no ACK any more.
        dialog.unacknowledged = None;
        self.timers.clear(&Timer::Acknowledge(dialog.key));
        let (flow, mut request) = dialog.request(&self.config, &mut self.random, Method::Bye, None);
        request.head.push(REASON, reason_of(dialog.cause));
        dialog.bye = self.start(now, flow, &mut request, Use::Bye(dialog.key));
    }
}

/// RFC 3261 section 9.1: the same request to the same place, without what belongs to it.
pub(super) fn cancel_of(invite: &Request) -> Request {
    let routes = invite.head.fields.iter().filter(|(name, _)| name == "Route").cloned().collect();
    let head = Head { method: Method::Cancel, fields: routes, body: Vec::new(), ..invite.head.clone() };
    Request { uri: invite.uri.clone(), max_forwards: Some(70), head }
}

/// A To address: the target without parameters that only routing needs.
fn plain(uri: &Uri) -> Uri {
    let host = if uri.host.contains(':') { format!("[{}]", uri.host) } else { uri.host.clone() };
    let before_host = uri.text.find('@').and_then(|at| uri.text.get(..=at)).unwrap_or("sip:");
    Uri::parse(&format!("{before_host}{host}")).unwrap_or_else(|| uri.clone())
}

/// Why a call is taken back or ended (RFC 3326), so that a carrier's records and a phone's
/// list of missed calls say the truth.
const REASON: &str = "Reason";

/// For a phone that answered a call which another one has.
const COMPLETED_ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

/// The cause as ITU-T Q.850 counts it.
const fn reason_of(cause: LegCause) -> &'static str {
    match cause {
        LegCause::RemoteHangUp | LegCause::LocalHangUp | LegCause::Cancelled => {
            "Q.850;cause=16;text=\"Normal call clearing\""
        }
        LegCause::NoAnswer => "Q.850;cause=19;text=\"No answer from the user\"",
        LegCause::Busy => "Q.850;cause=17;text=\"User busy\"",
        LegCause::Declined => "Q.850;cause=21;text=\"Call rejected\"",
        LegCause::Refused => "Q.850;cause=31;text=\"Normal, unspecified\"",
        LegCause::Unreachable => "Q.850;cause=27;text=\"Destination out of order\"",
        LegCause::Lost => "Q.850;cause=41;text=\"Temporary failure\"",
        LegCause::Drained => "Q.850;cause=38;text=\"Network out of order\"",
    }
}

const fn status_of(cause: LegCause) -> u16 {
    match cause {
        LegCause::Busy => 486,
        LegCause::Declined => 603,
        LegCause::Drained => 503,
        LegCause::RemoteHangUp
        | LegCause::LocalHangUp
        | LegCause::Cancelled
        | LegCause::NoAnswer
        | LegCause::Refused
        | LegCause::Unreachable
        | LegCause::Lost => 480,
    }
}

impl Caller {
    /// A caller by number or user name, in our own domain, shown.
    pub const fn new(user: Pii<String>) -> Self {
        Self { user, domain: None, restricted: false }
    }
}
