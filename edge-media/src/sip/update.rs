//! UPDATE (RFC 3311) both ways: a peer's change of media, answered at once and without ACK,
//! and our own refresh of the session (RFC 4028) at peers that take it. Ours carries no
//! description, so it meets no glare of offers; where it is not taken, a re-INVITE follows.

use std::time::Duration;

use handoff::call::outcome::LegCause;
use handoff::clock::Now;

use super::SipEvent;
use super::dialog::{self, Dialog, Phase, Purpose, Role};
use super::header::Method;
use super::message::{Head, Request, Response};
use super::reinvite::{GLARES_MAX, OTHER_WAIT, OWNER_WAIT};
use super::stack::{Stack, Timer, Use};
use super::transaction::TransactionId;
use super::uas::{ALLOW, MIN_SE_SECS, Path, session_interval};

/// Longest `Retry-After` of a refresh that is waited for: RFC 3261 section 14.2 names 10 s.
const RETRY_AFTER_MAX_SECS: u32 = 10;

/// A refresh of ours without a final answer.
#[derive(Clone, Debug)]
pub(super) struct Refresh {
    id: TransactionId,
    request: Request,
    authorized: bool,
    /// The peer's Min-SE was obeyed.
    raised: bool,
}

impl Dialog {
    /// Learns from an Allow header whether the far end takes UPDATE.
    pub(super) fn learn_methods(&mut self, head: &Head) {
        if head.field("Allow").is_some() {
            self.takes_update = head.has_token("Allow", Method::Update.as_str());
        }
    }
}

impl Stack {
    /// Refreshes the session without a word about media.
    pub(super) fn refresh(&mut self, now: Now, dialog: &mut Dialog) {
        if dialog.refresh.is_none() {
            self.send_refresh(now, dialog, None, false);
        }
    }

    fn send_refresh(
        &mut self,
        now: Now,
        dialog: &mut Dialog,
        authorization: Option<(&'static str, String)>,
        raised: bool,
    ) {
        let Some(session) = dialog.session else {
            return;
        };
        let (flow, mut request) = dialog.request(&self.config, &mut self.random, Method::Update, None);
        request.head.push_address("Contact", &dialog::contact(&self.config, None, flow));
        request.head.push("Allow", ALLOW);
        request.head.push("Supported", "timer");
        let secs = session.interval.as_secs();
        request.head.push("Session-Expires", format!("{secs};refresher=uac"));
        request.head.push("Min-SE", if raised { secs } else { MIN_SE_SECS.into() }.to_string());
        let authorized = authorization.is_some();
        if let Some((name, value)) = authorization {
            request.head.push(name, value);
        }
        let id = self.start(now, flow, &mut request, Use::Update(dialog.key));
        dialog.refresh = id.map(|id| Refresh { id, request, authorized, raised });
    }

    pub(super) fn on_update_response(
        &mut self,
        now: Now,
        id: TransactionId,
        dialog: &mut Dialog,
        response: &Response,
    ) {
        let ours = dialog.refresh.as_ref().is_some_and(|open| open.id == id);
        if response.status < 200 || !ours || dialog.ended {
            return;
        }
        let Some(open) = dialog.refresh.take() else {
            return;
        };
        match response.status {
            200..300 => {
                dialog.glares = 0;
                dialog.refresh_target(&response.head);
                self.adopt_session(now, dialog, response);
            }
            401 | 407 if !open.authorized => {
                let credentials = dialog.credentials.clone();
                let answer =
                    credentials.and_then(|known| self.authorization(&known, response, &open.request));
                match answer {
                    Some(answer) => self.send_refresh(now, dialog, Some(answer), open.raised),
                    None => self.refresh_by_invite(now, dialog),
                }
            }
            422 if !open.raised => {
                let least = response.head.number("Min-SE").unwrap_or_default().clamp(MIN_SE_SECS, 86_400);
                if let Some(session) = &mut dialog.session {
                    session.interval = session.interval.max(Duration::from_secs(least.into()));
                }
                self.send_refresh(now, dialog, None, true);
            }
            408 | 481 => self.refresh_lost(now, dialog, Some(response.status)),
            491 | 500 if dialog.glares < GLARES_MAX => {
                dialog.glares += 1;
                let (from, to) = if dialog.role == Role::Uac { OWNER_WAIT } else { OTHER_WAIT };
                let band = Duration::from_millis(10 * (from + self.random.below(to - from + 1)));
                let asked = response.head.number("Retry-After").unwrap_or_default();
                let asked = Duration::from_secs(asked.min(RETRY_AFTER_MAX_SECS).into());
                self.timers.set(Timer::Session(dialog.key), now + band.max(asked));
            }
            _ => self.refresh_by_invite(now, dialog),
        }
    }

    /// The peer does not take the refresh this way.
    fn refresh_by_invite(&mut self, now: Now, dialog: &mut Dialog) {
        dialog.takes_update = false;
        if let (Some(local), None) = (dialog.negotiation.local(), dialog.wanted) {
            dialog.wanted = Some((local, Purpose::Refresh));
            self.try_reinvite(now, dialog);
        }
    }

    /// The far end has forgotten the dialog, or is gone (RFC 4028 section 7.4).
    fn refresh_lost(&mut self, now: Now, dialog: &mut Dialog, status: Option<u16>) {
        self.end(dialog, LegCause::Lost, status);
        self.bye(now, dialog);
    }

    pub(super) fn on_update_unanswered(&mut self, now: Now, id: TransactionId, dialog: &mut Dialog) {
        if dialog.refresh.take_if(|open| open.id == id).is_some() && !dialog.ended {
            self.refresh_lost(now, dialog, None);
        }
    }

    /// RFC 3311: like a re-INVITE, but answered at once and without ACK.
    pub(super) fn on_update(&mut self, now: Now, path: Path, dialog: &mut Dialog, request: &Request) {
        let has_offer = !request.head.body.is_empty();
        if has_offer && dialog.negotiation.is_offering() {
            self.refuse(now, path, request, 491, &[]);
            return;
        }
        if has_offer && matches!(dialog.phase, Phase::Called { .. }) && !dialog.reliable.settled {
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
