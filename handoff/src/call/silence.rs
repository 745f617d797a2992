//! Legs from which nothing comes: since when, and when such a leg is given up. A leg that is
//! held may be silent for as long as it likes (RFC 3264 section 8.4), so its time stands
//! still and begins anew with the resume. What the leg was used for is decided elsewhere.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::clock::Now;
use crate::id::LegId;

/// The silent legs of one call. Bounded by the ledger: a leg that is closed is forgotten.
#[derive(Clone, Debug)]
pub(super) struct Silences {
    limit: Duration,
    legs: BTreeMap<LegId, Watch>,
}

/// One leg that is silent, or held, or both.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// When it is given up, were it not held.
    due: Option<Now>,
    by_us: bool,
    by_peer: bool,
}

/// Who put a leg on hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldBy {
    /// Our re-INVITE.
    Us,
    /// The far end's.
    Peer,
}

impl Watch {
    const fn is_held(self) -> bool {
        self.by_us || self.by_peer
    }
}

impl Silences {
    /// No leg is silent; one that becomes so is given up after `limit`.
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, legs: BTreeMap::new() }
    }

    /// Nothing comes from `leg` any more. A repeated report does not move its time.
    pub(super) fn lost(&mut self, leg: LegId, now: Now) {
        let due = now + self.limit;
        self.legs.entry(leg).or_default().due.get_or_insert(due);
    }

    /// Something comes from `leg`.
    pub(super) fn back(&mut self, leg: LegId) {
        if let Some(watch) = self.legs.get_mut(&leg) {
            watch.due = None;
        }
    }

    /// `leg` was put on hold, or taken back from it: then a silent one has its time again.
    pub(super) fn hold(&mut self, leg: LegId, by: HeldBy, held: bool, now: Now) {
        let due = now + self.limit;
        let watch = self.legs.entry(leg).or_default();
        let before = watch.is_held();
        match by {
            HeldBy::Us => watch.by_us = held,
            HeldBy::Peer => watch.by_peer = held,
        }
        if before && !watch.is_held() && watch.due.is_some() {
            watch.due = Some(due);
        }
    }

    /// `leg` is over.
    pub(super) fn forget(&mut self, leg: LegId) {
        self.legs.remove(&leg);
    }

    /// The next leg to give up, and when.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.running().map(|(due, _)| due).min()
    }

    /// A leg whose time is over. It is told once.
    pub(super) fn take_due(&mut self, now: Now) -> Option<LegId> {
        let (_, leg) = self.running().min().filter(|(due, _)| now >= *due)?;
        self.back(leg);
        Some(leg)
    }

    fn running(&self) -> impl Iterator<Item = (Now, LegId)> {
        let free = self.legs.iter().filter(|(_, watch)| !watch.is_held());
        free.filter_map(|(leg, watch)| Some((watch.due?, *leg)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn at(secs: u64) -> Now {
        Now::from_millis(secs * 1_000)
    }

    #[test]
    fn a_silent_leg_is_given_up_once_after_its_time_and_not_before() {
        let mut silences = Silences::new(LIMIT);
        silences.lost(LegId::CALLER, at(10));
        silences.lost(LegId::CALLER, at(25));
        assert_eq!(silences.next_timeout(), Some(at(30)));
        assert_eq!(silences.take_due(Now::from_millis(29_999)), None);
        assert_eq!(silences.take_due(at(30)), Some(LegId::CALLER));
        assert_eq!(silences.take_due(at(30)), None);
    }

    #[test]
    fn a_leg_that_is_heard_again_or_closed_is_not_given_up() {
        let mut silences = Silences::new(LIMIT);
        silences.lost(LegId::CALLER, at(0));
        silences.lost(LegId::FIRST_HUMAN, at(1));
        silences.back(LegId::CALLER);
        assert_eq!(silences.next_timeout(), Some(at(21)));
        silences.forget(LegId::FIRST_HUMAN);
        assert_eq!(silences.next_timeout(), None);
    }

    #[test]
    fn the_time_of_a_held_leg_stands_still_and_begins_anew_with_the_last_resume() {
        let mut silences = Silences::new(LIMIT);
        silences.lost(LegId::CALLER, at(0));
        silences.hold(LegId::CALLER, HeldBy::Us, true, at(5));
        silences.hold(LegId::CALLER, HeldBy::Peer, true, at(6));
        assert_eq!(silences.take_due(at(600)), None);
        silences.hold(LegId::CALLER, HeldBy::Us, false, at(600));
        assert_eq!(silences.next_timeout(), None, "the peer still holds");
        silences.hold(LegId::CALLER, HeldBy::Peer, false, at(700));
        assert_eq!(silences.next_timeout(), Some(at(720)));
    }
}
