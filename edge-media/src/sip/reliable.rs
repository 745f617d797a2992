//! Provisional responses of ours that must arrive (RFC 3262): numbered, repeated until their
//! PRACK, one at a time. A description in one is the answer, or the offer, of the call, and
//! the 2xx waits until it has arrived. What the calling side does about them is in `early`.

use std::time::Duration;

use handoff::call::outcome::LegCause;
use handoff::clock::Now;

use super::dialog::{self, Dialog, Phase};
use super::message::{Head, Request, Response};
use super::stack::{Stack, Timer};
use super::transaction::{T1, TIMEOUT};
use super::trunk::Rel100;
use super::uas::{ALLOW, Path, SDP};
use super::{DialogKey, LocalMedia, SipEvent};

/// The option tag of RFC 3262.
pub(super) const REL100: &str = "100rel";

/// The reliable provisional responses of a call that comes in.
#[derive(Clone, Debug, Default)]
pub(super) struct Reliable {
    /// The number of the last one.
    rseq: Option<u32>,
    /// The one that waits for its PRACK. RFC 3262 section 3: no second one before.
    open: Option<Open>,
    /// What is to be said next; a newer one replaces it.
    next: Option<Option<LocalMedia>>,
    /// The 2xx that waits.
    answer: Option<LocalMedia>,
    /// Offer and answer are exchanged: the 2xx has no description any more.
    pub(super) settled: bool,
}

#[derive(Clone, Debug)]
struct Open {
    response: Response,
    interval: Duration,
    give_up_at: Now,
    /// Our offer is in it, so the answer comes in the PRACK.
    wants_answer: bool,
}

impl Open {
    fn has_description(&self) -> bool {
        !self.response.head.body.is_empty()
    }
}

impl Dialog {
    /// Whether the 2xx has to wait; then it is sent by the PRACK.
    pub(super) fn holds_answer(&mut self, local: LocalMedia) -> bool {
        let holds = self.reliable.open.as_ref().is_some_and(Open::has_description);
        if holds {
            self.reliable.answer = Some(local);
        }
        holds
    }

    fn speaks_reliably(&self, request: &Head, described: bool) -> bool {
        let asked = request.has_token("Require", REL100);
        let can = asked || request.has_token("Supported", REL100);
        match self.rel100 {
            Rel100::Off => false,
            // A lost 180 costs nothing, a lost answer the first words.
            Rel100::Supported => asked || (can && described),
            Rel100::Require => can,
        }
    }
}

impl Stack {
    /// 180, or 183 with a description.
    pub(super) fn progress(&mut self, now: Now, key: DialogKey, local: Option<LocalMedia>) {
        self.with(key, |stack, dialog| stack.send_progress(now, dialog, local));
    }

    fn send_progress(&mut self, now: Now, dialog: &mut Dialog, local: Option<LocalMedia>) {
        let Phase::Called { transaction, request } = dialog.phase.clone() else {
            return;
        };
        if dialog.ended {
            return;
        }
        let reliably = dialog.speaks_reliably(&request.head, local.is_some());
        if reliably && dialog.reliable.open.is_some() {
            dialog.reliable.next = Some(local);
            return;
        }
        let Ok(body) = description(dialog, &request, local, reliably) else {
            self.refuse_call(now, dialog, 488, LegCause::Refused);
            return;
        };
        let status = if local.is_some() { 183 } else { 180 };
        let mut response = request.response(status, Some(dialog.local_tag()));
        for route in request.head.addresses("Record-Route").unwrap_or_default() {
            response.head.push_address("Record-Route", &route);
        }
        response.head.push_address("Contact", &dialog::contact(&self.config, None, dialog.flow));
        if reliably {
            // RFC 3262 section 3: a start below 2^31, with room to count.
            let first = u32::try_from(self.random.below(1 << 24)).unwrap_or_default();
            let rseq = dialog.reliable.rseq.unwrap_or(first).saturating_add(1);
            dialog.reliable.rseq = Some(rseq);
            response.head.push("Allow", ALLOW);
            response.head.push("Require", REL100);
            response.head.push("RSeq", rseq.to_string());
        }
        if !body.is_empty() {
            response.head.push("Content-Type", SDP);
            response.head.body = body;
        }
        self.respond(now, transaction, &response);
        if reliably {
            let wants_answer = dialog.negotiation.is_offering();
            dialog.reliable.settled |= !response.head.body.is_empty() && !wants_answer;
            dialog.reliable.open =
                Some(Open { response, interval: T1, give_up_at: now + TIMEOUT, wants_answer });
            self.timers.set(Timer::Provisional(dialog.key), now + T1);
        }
    }

    /// The response again, at intervals that double without a cap, or the end of the call.
    pub(super) fn on_unpracked(&mut self, now: Now, dialog: &mut Dialog) {
        let (Phase::Called { transaction, .. }, Some(open)) = (&dialog.phase, &mut dialog.reliable.open)
        else {
            return;
        };
        if now >= open.give_up_at {
            dialog.reliable = Reliable::default();
            self.counters.count("prack_missing");
            self.refuse_call(now, dialog, 504, LegCause::Lost);
            return;
        }
        open.interval *= 2;
        let (id, response) = (*transaction, open.response.clone());
        self.timers.set(Timer::Provisional(dialog.key), (now + open.interval).min(open.give_up_at));
        self.respond(now, id, &response);
    }

    /// PRACK: it names the response by its number and the INVITE by its CSeq.
    pub(super) fn on_prack(&mut self, now: Now, path: Path, dialog: &mut Dialog, request: &Request) {
        let Some(named) = request.head.field("RAck").and_then(rack) else {
            self.refuse(now, path, request, 400, &[]);
            return;
        };
        let sent = dialog.reliable.open.as_ref().map(|open| (dialog.reliable.rseq, open.response.head.cseq));
        if sent != Some((Some(named.0), named.1)) {
            self.refuse(now, path, request, 481, &[]);
            return;
        }
        let wants_answer = dialog.reliable.open.take().is_some_and(|open| open.wants_answer);
        self.timers.clear(&Timer::Provisional(dialog.key));
        let body = &request.head.body;
        let before = dialog.negotiation.agreed();
        let exchanged = if wants_answer {
            dialog.negotiation.accept(body).map(|_| Vec::new()).ok()
        } else if body.is_empty() {
            Some(Vec::new())
        } else {
            // RFC 3262 section 5: once the first exchange is done, PRACK may carry an offer.
            let local = dialog.negotiation.local().filter(|_| dialog.reliable.settled);
            local.and_then(|local| dialog.negotiation.answer(body, local).ok()).map(|(body, _)| body)
        };
        let Some(body) = exchanged else {
            self.refuse(now, path, request, 488, &[]);
            dialog.negotiation.roll_back();
            if wants_answer {
                self.refuse_call(now, dialog, 488, LegCause::Refused);
            } else {
                self.go_on(now, dialog);
            }
            return;
        };
        dialog.reliable.settled |= wants_answer;
        let changed = dialog.negotiation.agreed().filter(|agreed| before.is_some_and(|old| old != *agreed));
        let response = self.success(dialog, request, body);
        self.answer_on(now, path, &response);
        if let Some(remote) = changed {
            self.event(SipEvent::PeerMedia(dialog.key, remote));
        }
        self.go_on(now, dialog);
    }

    /// Says what had to wait for a PRACK.
    fn go_on(&mut self, now: Now, dialog: &mut Dialog) {
        if let Some(local) = dialog.reliable.answer.take() {
            self.answer_call(now, dialog, local);
        } else if let Some(next) = dialog.reliable.next.take() {
            self.send_progress(now, dialog, next);
        }
    }
}

/// What a provisional response says about media: nothing, once it is agreed; an offer only
/// where it cannot get lost.
fn description(
    dialog: &mut Dialog,
    request: &Request,
    local: Option<LocalMedia>,
    reliably: bool,
) -> Result<Vec<u8>, super::offer_answer::Refusal> {
    let Some(local) = local.filter(|_| !dialog.reliable.settled) else {
        return Ok(Vec::new());
    };
    if !request.head.body.is_empty() {
        return dialog.negotiation.answer(&request.head.body, local).map(|(body, _)| body);
    }
    Ok(if reliably { dialog.negotiation.offer(local) } else { Vec::new() })
}

/// `RAck: <RSeq> <CSeq> INVITE`.
fn rack(value: &str) -> Option<(u32, u32)> {
    let mut words = value.split_ascii_whitespace();
    let (rseq, cseq, method) = (words.next()?, words.next()?, words.next()?);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (method == "INVITE" && words.next().is_none() && digits(rseq) && digits(cseq))
        .then(|| Some((rseq.parse().ok()?, cseq.parse().ok()?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_is_two_numbers_and_the_method_of_the_invite() {
        for (value, read) in [
            ("776656 1 INVITE", Some((776_656, 1))),
            ("  7\t2  INVITE ", Some((7, 2))),
            ("7 2", None),
            ("7 2 invite", None),
            ("7 2 UPDATE", None),
            ("7 2 INVITE 3", None),
            ("+7 2 INVITE", None),
            ("4294967296 2 INVITE", None),
            ("", None),
        ] {
            assert_eq!(rack(value), read, "{value}");
        }
    }
}
