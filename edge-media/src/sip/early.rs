//! The early dialogs of an INVITE of ours, one per To-tag (RFC 3261 section 13.2.2.1): what
//! each agreed on by a reliable provisional response (RFC 3262), which gets its PRACK once,
//! and what a 2xx of the same phone may leave out. A description belongs to its own early
//! dialog and to no other; no early media is played, because nobody listens before an answer.

use handoff::clock::Now;

use super::Flow;
use super::dialog::{Dialog, FORKS_MAX, Phase, establish};
use super::header::Method;
use super::message::{Request, Response};
use super::offer_answer::Negotiation;
use super::reliable::REL100;
use super::stack::{Stack, Use};
use super::trunk::Rel100;
use super::uas::{Path, SDP};

/// One phone that our INVITE reached and that has not answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Early {
    /// Number of its last reliable response.
    rseq: Option<u32>,
    /// CSeq of its last request.
    remote_cseq: Option<u32>,
    /// What was agreed with it reliably.
    negotiation: Option<Negotiation>,
    /// What it said without that, for a 2xx that does not repeat it.
    preview: Option<Vec<u8>>,
}

impl Early {
    /// What is left of it in the dialog that its 2xx confirms: the agreement, or else the
    /// description to be read as the answer.
    pub(super) fn confirm(self, dialog: &mut Dialog) -> Option<Vec<u8>> {
        dialog.remote_cseq = self.remote_cseq;
        match self.negotiation {
            Some(negotiation) => {
                dialog.negotiation = negotiation;
                None
            }
            None => self.preview,
        }
    }
}

impl Stack {
    /// A provisional response above 100. `false`: it was here before, or one before it is
    /// missing, and it is as if it had not come.
    pub(super) fn on_progress(
        &mut self,
        now: Now,
        flow: Flow,
        dialog: &mut Dialog,
        response: &Response,
    ) -> bool {
        let tag = response.head.to.tag().unwrap_or_default().to_owned();
        if !dialog.early.contains_key(&tag) && dialog.early.len() >= FORKS_MAX {
            self.counters.count("forks_full");
            return true;
        }
        let asks = dialog.rel100 != Rel100::Off && response.head.has_token("Require", REL100);
        let rseq = response.head.number("RSeq").filter(|_| asks && !tag.is_empty());
        let early = dialog.early.entry(tag).or_default();
        if let (Some(rseq), Some(last)) = (rseq, early.rseq)
            && last.checked_add(1) != Some(rseq)
        {
            self.counters.count(if rseq <= last { "provisional_again" } else { "provisional_gap" });
            return false;
        }
        let described =
            !response.head.body.is_empty() && response.head.content_type().as_deref() == Some(SDP);
        if described && early.negotiation.is_none() {
            if rseq.is_some() {
                let mut negotiation = dialog.negotiation.clone();
                early.negotiation = negotiation.accept(&response.head.body).is_ok().then_some(negotiation);
            } else {
                early.preview = Some(response.head.body.clone());
            }
        }
        if let Some(rseq) = rseq {
            early.rseq = Some(rseq);
            self.prack(now, flow, dialog, response, rseq);
        }
        true
    }

    /// PRACK, within the early dialog that the response made.
    fn prack(&mut self, now: Now, flow: Flow, dialog: &mut Dialog, response: &Response, rseq: u32) {
        let mut early = dialog.clone();
        early.remote = response.head.to.clone();
        establish(&mut early, flow, response);
        let (flow, mut request) = early.request(&self.config, &mut self.random, Method::Known("PRACK"), None);
        request.head.push("RAck", format!("{rseq} {} INVITE", response.head.cseq));
        self.start(now, flow, &mut request, Use::Nothing);
        dialog.local_cseq = early.local_cseq;
    }

    /// A request within an early dialog of ours.
    pub(super) fn within_early(&mut self, now: Now, path: Path, dialog: &mut Dialog, request: &Request) {
        let offered = !request.head.body.is_empty();
        match request.head.method {
            Method::Update => {}
            Method::Options => return self.refuse(now, path, request, 200, &[]),
            Method::Invite
            | Method::Ack
            | Method::Bye
            | Method::Cancel
            | Method::Register
            | Method::Known(_)
            | Method::Unknown(_) => return self.refuse(now, path, request, 481, &[]),
        }
        let tag = request.head.from.tag().unwrap_or_default();
        let Some(early) = dialog.early.get_mut(tag) else {
            // It may have come before the response that makes its dialog.
            return self.refuse(now, path, request, if offered { 491 } else { 200 }, &[]);
        };
        if early.remote_cseq.is_some_and(|last| request.head.cseq <= last) {
            return self.refuse(now, path, request, 500, &[]);
        }
        early.remote_cseq = Some(request.head.cseq);
        let body = match &mut early.negotiation {
            _ if !offered => Some(Vec::new()),
            // Our own offer has no answer yet (RFC 3311 section 5.2).
            None => return self.refuse(now, path, request, 491, &[]),
            Some(negotiation) => negotiation
                .local()
                .and_then(|local| negotiation.answer(&request.head.body, local).ok())
                .map(|(body, _)| body),
        };
        match body {
            Some(body) => {
                let response = self.success(dialog, request, body);
                self.answer_on(now, path, &response);
            }
            None => self.refuse(now, path, request, 488, &[]),
        }
    }
}

/// Forgets the early dialogs of an INVITE that is sent anew.
pub(super) fn forget(dialog: &mut Dialog) {
    if matches!(dialog.phase, Phase::Calling(_)) {
        dialog.early.clear();
    }
}
