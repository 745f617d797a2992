//! Re-INVITEs of ours: one at a time, never before the last ACK, with the back-off of
//! RFC 3261 section 14.1 where both sides ask at once, and the refresh of RFC 4028. A refusal
//! changes nothing; only a far end that has forgotten the dialog ends it.

use std::time::Duration;

use handoff::call::outcome::LegCause;
use handoff::clock::Now;

use super::dialog::{self, Dialog, Phase, Purpose, Reinvite, Role};
use super::header::Method;
use super::message::Response;
use super::stack::{Stack, Timer, Use};
use super::uac::cancel_of;
use super::uas::{ALLOW, MIN_SE_SECS, SDP};
use super::{DialogKey, Flow, LocalMedia, SipEvent};

/// Attempts at a re-INVITE that meets 491: after that the peer is not getting out of the way.
pub(super) const GLARES_MAX: u32 = 3;
/// RFC 3261 section 14.1: the owner of the Call-ID waits 2.1 to 4 s, the other side up to 2 s.
pub(super) const OWNER_WAIT: (u64, u64) = (210, 400);
pub(super) const OTHER_WAIT: (u64, u64) = (0, 200);

/// How long a re-INVITE may stay open once the peer has shown that it is alive: longer than
/// the transaction's own 32 s, which end the dialog of a peer that has not.
const STUCK_AFTER: Duration = Duration::from_secs(34);

impl Stack {
    pub(super) fn on_session_timer(&mut self, now: Now, dialog: &mut Dialog) {
        let Some(session) = dialog.session else {
            return;
        };
        if session.we_refresh && dialog.takes_update {
            self.refresh(now, dialog);
            self.watch_session(now, dialog);
        } else if session.we_refresh {
            if let (Some(local), None) = (dialog.negotiation.local(), dialog.wanted) {
                dialog.wanted = Some((local, Purpose::Refresh));
                self.try_reinvite(now, dialog);
            }
            self.watch_session(now, dialog);
        } else {
            self.counters.count("session_expired");
            self.end(dialog, LegCause::Lost, None);
            self.bye(now, dialog);
        }
    }

    pub(super) fn reinvite(&mut self, now: Now, key: DialogKey, local: LocalMedia) {
        self.with(key, |stack, dialog| {
            if dialog.ended {
                return;
            }
            if !matches!(dialog.phase, Phase::Confirmed) {
                stack.event(SipEvent::ReinviteFailed(key, 481));
                return;
            }
            dialog.wanted = Some((local, Purpose::Media));
            dialog.glares = 0;
            if !stack.timers.is_set(&Timer::Glare(key)) {
                stack.try_reinvite(now, dialog);
            }
        });
    }

    /// Sends the wanted re-INVITE as soon as nothing else is open: one offer at a time, and
    /// never before the last ACK.
    pub(super) fn try_reinvite(&mut self, now: Now, dialog: &mut Dialog) {
        let free = dialog.unacknowledged.is_none()
            && dialog.reinvite.is_none()
            && !dialog.ended
            && matches!(dialog.phase, Phase::Confirmed)
            && !self.timers.is_set(&Timer::Glare(dialog.key));
        if !free {
            return;
        }
        if let Some((local, purpose)) = dialog.wanted.take() {
            self.send_reinvite(now, dialog, local, purpose, None);
        }
    }

    fn send_reinvite(
        &mut self,
        now: Now,
        dialog: &mut Dialog,
        local: LocalMedia,
        purpose: Purpose,
        authorization: Option<(&'static str, String)>,
    ) {
        let (flow, mut request) = dialog.request(&self.config, &mut self.random, Method::Invite, None);
        request.head.push_address("Contact", &dialog::contact(&self.config, None, flow));
        request.head.push("Allow", ALLOW);
        request.head.push("Supported", "timer");
        if let Some(session) = dialog.session {
            let refresher = if session.we_refresh { "uac" } else { "uas" };
            request
                .head
                .push("Session-Expires", format!("{};refresher={refresher}", session.interval.as_secs()));
            request.head.push("Min-SE", MIN_SE_SECS.to_string());
        }
        let authorized = authorization.is_some();
        if let Some((name, value)) = authorization {
            request.head.push(name, value);
        }
        request.head.push("Content-Type", SDP);
        let refresh = (purpose == Purpose::Refresh).then(|| dialog.negotiation.refresh()).flatten();
        let (local, body) = refresh.unwrap_or_else(|| (local, dialog.negotiation.offer(local)));
        request.head.body = body;
        match self.start(now, flow, &mut request, Use::Reinvite(dialog.key)) {
            Some(id) => {
                dialog.reinvite_transaction = Some(id);
                self.timers.set(Timer::Reinvite(dialog.key), now + STUCK_AFTER);
                dialog.reinvite = Some(Reinvite { request, local, purpose, authorized });
            }
            None => {
                dialog.negotiation.roll_back();
                self.tell_reinvite_failed(dialog.key, purpose, 503);
            }
        }
    }

    fn tell_reinvite_failed(&mut self, key: DialogKey, purpose: Purpose, status: u16) {
        if purpose == Purpose::Media {
            self.event(SipEvent::ReinviteFailed(key, status));
        }
    }

    pub(super) fn on_reinvite_response(
        &mut self,
        now: Now,
        flow: Flow,
        dialog: &mut Dialog,
        response: &Response,
    ) {
        let status = response.status;
        if status < 200 {
            return;
        }
        let cseq = response.head.cseq;
        let tag = response.head.to.tag().unwrap_or_default().to_owned();
        if (200..300).contains(&status) {
            if let Some((flow, ack)) = dialog.acks.get(&(cseq, tag.clone())) {
                self.out.push(super::SipOutput::Send(*flow, ack.clone()));
                return;
            }
            dialog.refresh_target(&response.head);
            if flow.transport == dialog.flow.transport {
                dialog.flow = flow;
            }
            let answered = dialog.reinvite.take();
            self.ack(dialog, cseq, tag, answered.as_ref().map(|open| &open.request));
            match answered {
                Some(open) if !dialog.ended => {
                    self.timers.clear(&Timer::Reinvite(dialog.key));
                    self.on_reinvite_success(now, dialog, &open, response);
                }
                None if !dialog.ended => {
                    // Given up already; the peer now holds another agreement than we do.
                    let local = dialog.negotiation.local();
                    dialog.wanted = dialog.wanted.or_else(|| local.map(|local| (local, Purpose::Refresh)));
                }
                Some(_) | None => {}
            }
            self.try_reinvite(now, dialog);
            return;
        }
        let Some(open) = dialog.reinvite.take() else {
            return;
        };
        dialog.reinvite_transaction = None;
        self.timers.clear(&Timer::Reinvite(dialog.key));
        dialog.negotiation.roll_back();
        if dialog.ended {
            return;
        }
        self.on_reinvite_refused(now, dialog, open, response);
        self.try_reinvite(now, dialog);
    }

    fn on_reinvite_success(&mut self, now: Now, dialog: &mut Dialog, open: &Reinvite, response: &Response) {
        dialog.glares = 0;
        match dialog.negotiation.accept(&response.head.body) {
            Ok(remote) => {
                self.adopt_session(now, dialog, response);
                if open.purpose == Purpose::Media {
                    self.event(SipEvent::Reinvited(dialog.key, remote));
                }
            }
            Err(_) => {
                dialog.negotiation.roll_back();
                self.tell_reinvite_failed(dialog.key, open.purpose, 488);
            }
        }
    }

    fn on_reinvite_refused(&mut self, now: Now, dialog: &mut Dialog, open: Reinvite, response: &Response) {
        match response.status {
            491 if dialog.glares < GLARES_MAX => {
                dialog.glares += 1;
                let (from, to) = if dialog.role == Role::Uac { OWNER_WAIT } else { OTHER_WAIT };
                let steps = from + self.random.below(to - from + 1);
                self.counters.count("glare_met");
                dialog.wanted = dialog.wanted.or(Some((open.local, open.purpose)));
                self.timers.set(Timer::Glare(dialog.key), now + Duration::from_millis(10 * steps));
            }
            401 | 407 if !open.authorized => {
                let credentials = dialog.credentials.clone();
                let answer =
                    credentials.and_then(|known| self.authorization(&known, response, &open.request));
                match answer {
                    Some(answer) => self.send_reinvite(now, dialog, open.local, open.purpose, Some(answer)),
                    None => self.tell_reinvite_failed(dialog.key, open.purpose, response.status),
                }
            }
            408 | 481 => {
                // The far end has no such dialog any more (RFC 3261 section 12.2.1.2).
                self.tell_reinvite_failed(dialog.key, open.purpose, response.status);
                self.end(dialog, LegCause::Lost, Some(response.status));
                self.bye(now, dialog);
            }
            status => self.tell_reinvite_failed(dialog.key, open.purpose, status),
        }
    }

    pub(super) fn on_reinvite_unanswered(&mut self, now: Now, dialog: &mut Dialog) {
        dialog.reinvite_transaction = None;
        let Some(open) = dialog.reinvite.take() else {
            return;
        };
        dialog.negotiation.roll_back();
        if !dialog.ended {
            self.tell_reinvite_failed(dialog.key, open.purpose, 408);
            self.end(dialog, LegCause::Lost, None);
            self.bye(now, dialog);
        }
    }

    /// A peer that answers 100 and nothing more: first the request is taken back and told as
    /// failed, then its transaction is forgotten. The call goes on as it was.
    pub(super) fn on_reinvite_stuck(&mut self, now: Now, dialog: &mut Dialog) {
        let Some(id) = dialog.reinvite_transaction else {
            return;
        };
        let Some(open) = dialog.reinvite.take() else {
            self.transactions.abandon(id);
            self.uses.remove(&id);
            dialog.reinvite_transaction = None;
            return;
        };
        dialog.negotiation.roll_back();
        self.timers.set(Timer::Reinvite(dialog.key), now + STUCK_AFTER);
        let flow = self.transactions.flow(id).unwrap_or(dialog.flow);
        let cancel = cancel_of(&open.request);
        self.start_on(now, flow, &cancel, Use::Nothing);
        if !dialog.ended {
            self.tell_reinvite_failed(dialog.key, open.purpose, 408);
            self.try_reinvite(now, dialog);
        }
    }
}
