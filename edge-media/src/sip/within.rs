//! Requests within a dialog, and the 2xx that opens it or changes it: repeated until its ACK
//! (RFC 3261 sections 13.3.1.4, 14.2, 15.1.2; RFC 3311; RFC 4028). A change of media by the
//! peer is answered here at once, with the direction mirrored and our port kept.

use std::time::Duration;

use handoff::call::outcome::LegCause;
use handoff::clock::Now;

use super::dialog::{self, Dialog, Phase, Session, Unacknowledged};
use super::header::Method;
use super::message::{Request, Response};
use super::refer;
use super::stack::{Stack, Timer};
use super::transaction::{T1, T2, TIMEOUT, TransactionId};
use super::uas::{ALLOW, MIN_SE_SECS, Path, SDP, session_interval};
use super::{Flow, SipEvent};

impl Stack {
    /// Sends a 2xx with a body, and again until it is acknowledged.
    pub(super) fn accept(
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

    pub(super) fn success(&self, dialog: &Dialog, request: &Request, body: Vec<u8>) -> Response {
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
    pub(super) fn agree_session(
        &mut self,
        now: Now,
        dialog: &mut Dialog,
        request: &Request,
        response: &mut Response,
    ) {
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

    pub(super) fn on_ack(&mut self, now: Now, ack: &Request) {
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
            (true, remote) => {
                let early = dialog.negotiation.agreed().filter(|_| dialog.reliable.settled);
                self.event(SipEvent::Confirmed(dialog.key, remote.or(early)));
            }
            (false, Some(remote)) => self.event(SipEvent::PeerMedia(dialog.key, remote)),
            (false, None) => {}
        }
        self.try_reinvite(now, dialog);
    }

    /// A request within a dialog.
    pub(super) fn within(&mut self, now: Now, flow: Flow, path: Path, dialog: &mut Dialog, request: Request) {
        let Path::Transaction(transaction) = path else {
            return;
        };
        let method = request.head.method.clone();
        if matches!(dialog.phase, Phase::Calling(_)) {
            self.within_early(now, path, dialog, &request);
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
        if dialog.flow.transport.may_become(flow.transport) {
            dialog.flow = flow;
        }
        match method {
            Method::Invite => self.on_reinvite(now, transaction, dialog, &request),
            Method::Update => self.on_update(now, path, dialog, &request),
            Method::Options => self.refuse(now, path, &request, 200, &[("Allow", ALLOW), ("Accept", SDP)]),
            Method::Unknown(_) => self.refuse(now, path, &request, 501, &[("Allow", ALLOW)]),
            Method::Known("SUBSCRIBE" | "NOTIFY") => self.refuse(now, path, &request, 489, &[]),
            Method::Known("INFO") => self.on_info(now, path, dialog, &request),
            Method::Known("PRACK") => self.on_prack(now, path, dialog, &request),
            Method::Known("REFER") => self.refuse(now, path, &request, refer::verdict(&request), &[]),
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
        dialog.learn_methods(&request.head);
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

    /// RFC 6086: the two bodies that phones use for digits; an empty INFO is a keep-alive.
    fn on_info(&mut self, now: Now, path: Path, dialog: &Dialog, request: &Request) {
        if request.head.body.is_empty() {
            self.refuse(now, path, request, 200, &[]);
            return;
        }
        match digit(request) {
            Some(digit) => {
                self.refuse(now, path, request, 200, &[]);
                self.event(SipEvent::Digit(dialog.key, digit));
            }
            None => {
                self.refuse(
                    now,
                    path,
                    request,
                    415,
                    &[("Accept", "application/dtmf-relay, application/dtmf")],
                );
            }
        }
    }
}

/// The digit of an INFO body.
fn digit(request: &Request) -> Option<char> {
    let body = std::str::from_utf8(&request.head.body).ok()?;
    let text = match request.head.content_type()?.as_str() {
        "application/dtmf-relay" => body.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            name.trim().eq_ignore_ascii_case("signal").then_some(value)
        })?,
        "application/dtmf" => body,
        _ => return None,
    };
    let mut chars = text.trim().chars();
    let digit = chars.next()?.to_ascii_uppercase();
    (chars.next().is_none() && "0123456789*#ABCD".contains(digit)).then_some(digit)
}
