//! How many calls a trunk may have at once, and how many may arrive in a second. What is
//! beyond is refused before it becomes a call; calls that run are never touched, also where a
//! reload takes room away. A trunk without limits has those of the edge alone.

use std::collections::BTreeMap;

use handoff::clock::Now;

use super::DialogKey;
use super::guard::Buckets;

/// The limits of one trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// The trunk's name.
    pub trunk: String,
    /// Calls from it at once.
    pub calls_max: Option<u32>,
    /// Calls from it that arrive in a second; as many at once after a quiet second.
    pub calls_per_s: Option<u32>,
}

/// The calls of trunks that have limits.
#[derive(Debug)]
pub(super) struct Room {
    trunks: BTreeMap<String, (CallLimits, Option<Buckets<()>>)>,
    calls: BTreeMap<DialogKey, String>,
}

impl Room {
    pub(super) fn new(limits: Vec<CallLimits>) -> Self {
        let mut room = Self { trunks: BTreeMap::new(), calls: BTreeMap::new() };
        room.limit(limits);
        room
    }

    /// Takes other limits over; running calls count on.
    pub(super) fn limit(&mut self, limits: Vec<CallLimits>) {
        let mut before = std::mem::take(&mut self.trunks);
        for limit in limits {
            // A reload that changes nothing gives nobody a full bucket.
            let kept = before.remove(&limit.trunk).filter(|(known, _)| *known == limit);
            let fresh = || limit.calls_per_s.map(|rate| Buckets::new(rate.into(), rate.into()));
            let (limit, bucket) = kept.unwrap_or_else(|| (limit.clone(), fresh()));
            self.trunks.insert(limit.trunk.clone(), (limit, bucket));
        }
    }

    /// Whether one more call may come from this trunk now.
    pub(super) fn admit(&mut self, now: Now, trunk: &str) -> bool {
        let calls = self.calls.values().filter(|of| *of == trunk).count();
        let Some((limits, bucket)) = self.trunks.get_mut(trunk) else { return true };
        let full = limits.calls_max.is_some_and(|max| calls >= max as usize);
        !full && bucket.as_mut().is_none_or(|bucket| bucket.take(now, &()))
    }

    /// A call has come.
    pub(super) fn opened(&mut self, dialog: DialogKey, trunk: &str) {
        self.calls.insert(dialog, trunk.to_owned());
    }

    /// A call, or anything else that was never counted, is over.
    pub(super) fn ended(&mut self, dialog: DialogKey) {
        self.calls.remove(&dialog);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(calls_max: Option<u32>, calls_per_s: Option<u32>) -> CallLimits {
        CallLimits { trunk: "a".to_owned(), calls_max, calls_per_s }
    }

    #[test]
    fn a_trunk_has_room_until_it_is_full_and_again_when_a_call_ends() {
        let mut room = Room::new(vec![limits(Some(2), None)]);
        for key in [2, 4] {
            assert!(room.admit(Now::ZERO, "a"));
            room.opened(DialogKey(key), "a");
        }
        assert!(!room.admit(Now::ZERO, "a"));
        room.opened(DialogKey(6), "b");
        assert!(room.admit(Now::ZERO, "b"), "another trunk has its own room");
        room.ended(DialogKey(6));
        room.ended(DialogKey(99));
        assert!(!room.admit(Now::ZERO, "a"));
        room.ended(DialogKey(2));
        assert!(room.admit(Now::ZERO, "a"));
    }

    #[test]
    fn a_rate_is_a_second_s_worth_at_once_and_then_so_many_a_second() {
        let mut room = Room::new(vec![limits(None, Some(2))]);
        let admitted =
            |room: &mut Room, at: u64| (0..5).filter(|_| room.admit(Now::from_millis(at), "a")).count();
        assert_eq!(admitted(&mut room, 0), 2);
        assert_eq!(admitted(&mut room, 500), 1);
        room.limit(vec![limits(None, Some(2))]);
        assert_eq!(admitted(&mut room, 500), 0, "a reload fills no bucket");
        assert_eq!(admitted(&mut room, 10_000), 2);
    }

    #[test]
    fn a_reload_changes_limits_and_forgets_no_call() {
        let mut room = Room::new(vec![limits(Some(5), None)]);
        room.opened(DialogKey(2), "a");
        room.limit(vec![limits(Some(1), None)]);
        assert!(!room.admit(Now::ZERO, "a"));
        room.limit(Vec::new());
        assert!(room.admit(Now::ZERO, "a"));
        room.limit(vec![limits(Some(1), None)]);
        assert!(!room.admit(Now::ZERO, "a"));
    }
}
