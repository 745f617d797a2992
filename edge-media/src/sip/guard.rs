//! What one source may cost: token buckets in a bounded table, applied before a byte is
//! parsed, and the names of everything that was dropped or refused. It judges addresses and
//! counts, never content.

use std::collections::BTreeMap;

use handoff::clock::Now;

/// Most sources that are told apart. A flood from more forgets the longest-silent ones,
/// which then start with a full bucket; the transaction cap still holds.
const SOURCES_MAX: usize = 16_384;

/// Counters by name: everything dropped, refused or gone wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// Counts one more.
    pub(super) fn count(&mut self, name: &'static str) {
        *self.0.entry(name).or_insert(0) += 1;
    }

    /// The count of `name`.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All of them, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}

/// Token buckets by key.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    per_second: u64,
    burst: u64,
    /// Milli-tokens and when they were counted.
    levels: BTreeMap<K, (u64, Now)>,
}

impl<K: Ord + Clone> Buckets<K> {
    /// `per_second` tokens a second, up to `burst` at once.
    pub(super) const fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst, levels: BTreeMap::new() }
    }

    /// Takes a token; `false` where none is left.
    pub(super) fn take(&mut self, now: Now, key: &K) -> bool {
        let level = self.level(now, key);
        let left = level.checked_sub(1_000);
        self.store(now, key, left.unwrap_or(level));
        left.is_some()
    }

    /// Whether a token is left, without taking it.
    pub(super) fn has(&self, now: Now, key: &K) -> bool {
        self.level(now, key) >= 1_000
    }

    fn level(&self, now: Now, key: &K) -> u64 {
        let full = self.burst.saturating_mul(1_000);
        self.levels.get(key).map_or(full, |(level, at)| {
            let millis = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX);
            level.saturating_add(millis.saturating_mul(self.per_second)).min(full)
        })
    }

    fn store(&mut self, now: Now, key: &K, level: u64) {
        if self.levels.len() >= SOURCES_MAX && !self.levels.contains_key(key) {
            self.sweep(now);
        }
        self.levels.insert(key.clone(), (level, now));
    }

    /// Forgets the full ones, and if that frees nothing, half of the rest.
    fn sweep(&mut self, now: Now) {
        let (full, rate) = (self.burst.saturating_mul(1_000), self.per_second);
        self.levels.retain(|_, (level, at)| {
            let millis = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX);
            level.saturating_add(millis.saturating_mul(rate)) < full
        });
        if self.levels.len() >= SOURCES_MAX {
            let mut keep = false;
            self.levels.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        let mut buckets = Buckets::new(10, 3);
        let now = Now::from_millis(1_000);
        let taken: Vec<bool> = (0..4).map(|_| buckets.take(now, &1)).collect();
        assert_eq!(taken, [true, true, true, false]);
        assert!(buckets.take(now, &2), "another source is not affected");
        assert!(buckets.take(Now::from_millis(1_100), &1));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut buckets = Buckets::new(1, 1);
        for source in 0..3 * SOURCES_MAX {
            buckets.take(Now::ZERO, &source);
        }
        assert!(buckets.levels.len() <= SOURCES_MAX);
    }
}
