//! Named deadlines with an ordered queue: set, clear, pop what is due. Nothing here reads a
//! clock. One deadline per name; setting it again moves it.

use std::collections::{BTreeMap, BTreeSet};

use handoff::clock::Now;

/// Deadlines by name. Bounded by its owner: each name belongs to an entry of a capped map.
#[derive(Clone, Debug)]
pub(super) struct Deadlines<K> {
    at: BTreeMap<K, Now>,
    queue: BTreeSet<(Now, K)>,
}

impl<K: Ord + Clone> Deadlines<K> {
    /// None set.
    pub(super) const fn new() -> Self {
        Self { at: BTreeMap::new(), queue: BTreeSet::new() }
    }

    /// Sets or moves the deadline of `name`.
    pub(super) fn set(&mut self, name: K, at: Now) {
        self.clear(&name);
        self.queue.insert((at, name.clone()));
        self.at.insert(name, at);
    }

    /// Forgets the deadline of `name`.
    pub(super) fn clear(&mut self, name: &K) {
        if let Some(at) = self.at.remove(name) {
            self.queue.remove(&(at, name.clone()));
        }
    }

    /// Takes the earliest deadline that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Now) -> Option<K> {
        let (at, name) = self.queue.first()?.clone();
        if at > now {
            return None;
        }
        self.clear(&name);
        Some(name)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Now> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The deadline of `name`.
    #[cfg(test)]
    pub(super) fn of(&self, name: &K) -> Option<Now> {
        self.at.get(name).copied()
    }

    /// Whether `name` has a deadline.
    pub(super) fn is_set(&self, name: &K) -> bool {
        self.at.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_fire_in_order_and_move_when_set_again() {
        let mut deadlines = Deadlines::new();
        deadlines.set("b", Now::from_millis(20));
        deadlines.set("a", Now::from_millis(10));
        deadlines.set("b", Now::from_millis(5));
        assert_eq!(deadlines.next(), Some(Now::from_millis(5)));
        assert_eq!(deadlines.pop_due(Now::from_millis(4)), None);
        assert_eq!(deadlines.pop_due(Now::from_millis(10)), Some("b"));
        assert_eq!(deadlines.pop_due(Now::from_millis(10)), Some("a"));
        assert_eq!(deadlines.next(), None);
        assert!(!deadlines.is_set(&"a"));
    }
}
