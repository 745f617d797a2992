//! What one source may cost: token buckets and bans in bounded tables, applied before a byte is
//! parsed, and the names of everything that was dropped or refused. It judges addresses and
//! counts, never content.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use handoff::clock::Now;

/// Most sources that are told apart. A flood from more forgets the longest-silent ones,
/// which then start with a full bucket; the transaction cap still holds.
const SOURCES_MAX: usize = 16_384;

/// Most sources that are banned at once. One more displaces the ban that ends first: an
/// attacker with more addresses than this is held by the other limits.
const BANS_MAX: usize = 4_096;
/// How long a ban lasts: beyond the patience of a scanner's run, and short enough that an
/// office which cleaned up its one bad device is served again by itself.
const BAN: Duration = Duration::from_secs(600);

/// Tokens are counted in parts of this size, so that a rate of one a minute has whole parts
/// in a millisecond.
const PARTS: u64 = 60_000;

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
    per_minute: u64,
    burst: u64,
    /// Parts of tokens and when they were counted.
    levels: BTreeMap<K, (u64, Now)>,
}

impl<K: Ord + Clone> Buckets<K> {
    /// `per_second` tokens a second, up to `burst` at once.
    pub(super) const fn new(per_second: u64, burst: u64) -> Self {
        Self::per_minute(per_second.saturating_mul(60), burst)
    }

    /// `per_minute` tokens a minute, up to `burst` at once.
    pub(super) const fn per_minute(per_minute: u64, burst: u64) -> Self {
        Self { per_minute, burst, levels: BTreeMap::new() }
    }

    /// Takes a token; `false` where none is left.
    pub(super) fn take(&mut self, now: Now, key: &K) -> bool {
        let level = self.level(now, key);
        let left = level.checked_sub(PARTS);
        self.store(now, key, left.unwrap_or(level));
        left.is_some()
    }

    /// Whether a token is left, without taking it.
    pub(super) fn has(&self, now: Now, key: &K) -> bool {
        self.level(now, key) >= PARTS
    }

    fn level(&self, now: Now, key: &K) -> u64 {
        let full = self.burst.saturating_mul(PARTS);
        self.levels.get(key).map_or(full, |(level, at)| {
            let millis = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX);
            level.saturating_add(millis.saturating_mul(self.per_minute)).min(full)
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
        let (full, rate) = (self.burst.saturating_mul(PARTS), self.per_minute);
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

/// Sources that are not listened to for a while.
#[derive(Debug, Default)]
pub(super) struct Bans {
    until: BTreeMap<IpAddr, Now>,
}

impl Bans {
    /// Stops listening to a source. One that is banned already is banned no longer for it:
    /// what it sends meanwhile is not read.
    pub(super) fn ban(&mut self, now: Now, source: IpAddr) {
        if self.until.len() >= BANS_MAX && !self.until.contains_key(&source) {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() >= BANS_MAX
            && let Some((first, _)) = self.until.iter().min_by_key(|(_, until)| **until)
        {
            let first = *first;
            self.until.remove(&first);
        }
        self.until.insert(source, now + BAN);
    }

    /// Whether a source is not listened to now.
    pub(super) fn holds(&self, now: Now, source: IpAddr) -> bool {
        self.until.get(&source).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_ends_by_itself() {
        let mut bans = Bans::default();
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        bans.ban(Now::ZERO, one);
        assert!(bans.holds(Now::from_millis(599_999), one) && !bans.holds(Now::ZERO, other));
        assert!(!bans.holds(Now::from_millis(600_000), one));
    }

    #[test]
    fn the_table_of_bans_is_bounded_and_loses_the_one_that_ends_first() {
        let mut bans = Bans::default();
        let source = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..5_000 {
            bans.ban(Now::from_millis(number.into()), source(number));
        }
        assert_eq!(bans.until.len(), BANS_MAX);
        let now = Now::from_millis(5_000);
        assert!(bans.holds(now, source(4_999)) && !bans.holds(now, source(0)));
    }

    #[test]
    fn a_slow_bucket_gives_one_token_back_in_its_time() {
        let mut buckets = Buckets::per_minute(5, 2);
        let mut take = |at| buckets.take(Now::from_millis(at), &1);
        assert_eq!([take(0), take(0), take(0)], [true, true, false]);
        assert_eq!([take(11_999), take(12_000), take(12_001)], [false, true, false]);
    }

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
