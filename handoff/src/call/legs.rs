//! The leg ledger: every leg is opened once and closed once, with one cause and with what
//! is billed for it. A call is over when its ledger is empty, and not before.

use std::collections::BTreeMap;

use crate::call::media::Quality;
use crate::call::outcome::LegCause;
use crate::clock::Now;
use crate::event::Role;
use crate::id::LegId;

/// The open legs of one call.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    open: BTreeMap<LegId, Leg>,
    next: LegId,
}

/// One open leg.
#[derive(Clone, Copy, Debug)]
struct Leg {
    role: Role,
    answered: Option<Now>,
    /// When and why we ordered its end. The leg stays open until the far side confirms.
    ordered_end: Option<(Now, LegCause)>,
    quality: Option<Quality>,
}

/// What is recorded of a leg that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) role: Role,
    pub(super) cause: LegCause,
    pub(super) billed_ms: u64,
    pub(super) quality: Option<Quality>,
}

impl Ledger {
    /// A ledger with the caller's leg, which is there before the call is.
    pub(super) fn new() -> Self {
        let caller = Leg { role: Role::Caller, answered: None, ordered_end: None, quality: None };
        Self { open: BTreeMap::from([(LegId::CALLER, caller)]), next: LegId::VOICE_AGENT }
    }

    /// Opens a leg. Ids count up in the order of opening, so the voice agent, which is
    /// connected first, has the id reserved for it; a second link to it gets a new one.
    pub(super) fn open(&mut self, role: Role) -> LegId {
        if role == Role::HumanAgent && self.next == LegId::VOICE_AGENT {
            self.next = LegId::FIRST_HUMAN;
        }
        let leg = self.next;
        self.next = LegId(leg.0.saturating_add(1));
        self.open.insert(leg, Leg { role, answered: None, ordered_end: None, quality: None });
        leg
    }

    /// Marks `leg` as answered. Says whether it may be used: not when it is unknown, was
    /// answered before, or is being ended.
    pub(super) fn answer(&mut self, leg: LegId, now: Now) -> Answered {
        match self.open.get_mut(&leg) {
            None => Answered::Unknown,
            Some(Leg { ordered_end: Some(_), .. }) => Answered::TooLate,
            Some(Leg { answered: Some(_), .. }) => Answered::Again,
            Some(open) => {
                open.answered = Some(now);
                Answered::Up(open.role)
            }
        }
    }

    /// Notes that the end of `leg` was ordered; `false` when there is nothing to order.
    pub(super) fn order_end(&mut self, leg: LegId, now: Now, cause: LegCause) -> bool {
        match self.open.get_mut(&leg) {
            Some(open @ Leg { ordered_end: None, .. }) => {
                open.ordered_end = Some((now, cause));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Notes how well `leg` is heard; the last word counts.
    pub(super) fn heard(&mut self, leg: LegId, quality: Quality) {
        if let Some(open) = self.open.get_mut(&leg) {
            open.quality = Some(quality);
        }
    }

    /// Closes `leg`. Our own reason for ending it comes before the far side's echo of it,
    /// and what is billed stops when we ordered the end.
    pub(super) fn close(&mut self, leg: LegId, now: Now, cause: LegCause) -> Option<Closed> {
        let Leg { role, answered, ordered_end, quality } = self.open.remove(&leg)?;
        let (ended, cause) = ordered_end.unwrap_or((now, cause));
        let billed = answered.map_or(0, |since| ended.since(since).as_millis());
        Some(Closed { role, cause, billed_ms: u64::try_from(billed).unwrap_or(u64::MAX), quality })
    }

    /// Whether `leg` is up: answered, and its end neither happened nor ordered.
    pub(super) fn is_up(&self, leg: LegId) -> bool {
        self.open.get(&leg).is_some_and(|leg| leg.answered.is_some() && leg.ordered_end.is_none())
    }

    /// Open legs and their roles.
    pub(super) fn roles(&self) -> BTreeMap<LegId, Role> {
        self.open.iter().map(|(id, leg)| (*id, leg.role)).collect()
    }

    /// Ids of the open legs.
    pub(super) fn ids(&self) -> Vec<LegId> {
        self.open.keys().copied().collect()
    }

    /// Nothing is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// What an answer means for the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The leg is up.
    Up(Role),
    /// It was up before: a repeated report.
    Again,
    /// Its end was already ordered; the answer crossed it.
    TooLate,
    /// No such leg is open.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_is_closed_once_with_our_own_cause_first() {
        let mut legs = Ledger::new();
        assert_eq!(legs.open(Role::VoiceAgent), LegId::VOICE_AGENT);
        let human = legs.open(Role::HumanAgent);
        assert_eq!(human, LegId::FIRST_HUMAN);
        assert_eq!(legs.answer(human, Now::from_millis(1_000)), Answered::Up(Role::HumanAgent));
        legs.heard(human, Quality::default());
        let last = Quality { received: 99, mos_x100: Some(440), ..Quality::default() };
        legs.heard(human, last);
        assert!(legs.order_end(human, Now::from_millis(3_000), LegCause::LocalHangUp));
        assert!(!legs.order_end(human, Now::from_millis(3_500), LegCause::Drained));
        let closed = legs.close(human, Now::from_millis(4_000), LegCause::RemoteHangUp);
        let expected = Closed {
            role: Role::HumanAgent,
            cause: LegCause::LocalHangUp,
            billed_ms: 2_000,
            quality: Some(last),
        };
        assert_eq!(closed, Some(expected));
        assert_eq!(legs.close(human, Now::from_millis(4_000), LegCause::RemoteHangUp), None);
    }

    #[test]
    fn an_answer_that_crosses_our_cancel_is_too_late_and_bills_nothing() {
        let mut legs = Ledger::new();
        let human = legs.open(Role::HumanAgent);
        assert_eq!(human, LegId::FIRST_HUMAN, "the voice agent's id is not given to a person");
        assert!(legs.order_end(human, Now::from_millis(1_000), LegCause::NoAnswer));
        assert_eq!(legs.answer(human, Now::from_millis(1_001)), Answered::TooLate);
        let closed = legs.close(human, Now::from_millis(9_000), LegCause::Cancelled).unwrap();
        assert_eq!((closed.cause, closed.billed_ms), (LegCause::NoAnswer, 0));
    }
}
