//! The one place where time is read. Everything that is compared comes from one monotonic
//! epoch, so that a moment of the media threads and one of the event loop can be subtracted;
//! the wall clock only labels facts.

use std::time::{SystemTime, UNIX_EPOCH};

use handoff::clock::{Moment, Now, Timestamp};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// The clock of one process, started once and copied to whoever needs it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// `CLOCK_MONOTONIC` at the start, in nanoseconds.
    epoch_nanos: u64,
}

impl Clock {
    /// Starts the epoch now.
    pub fn start() -> Self {
        Self { epoch_nanos: monotonic_nanos() }
    }

    /// Monotonic time since the start.
    pub fn now(&self) -> Now {
        Now::from_micros(monotonic_nanos().saturating_sub(self.epoch_nanos) / 1_000)
    }

    /// Wall time, for labels only.
    pub fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Both at one instant.
    pub fn moment(&self) -> Moment {
        Moment { now: self.now(), wall: self.wall() }
    }

    /// `at` on `CLOCK_MONOTONIC`, for absolute deadlines.
    pub(super) fn deadline(&self, at: Now) -> TimeSpec {
        let nanos = self.epoch_nanos.saturating_add(at.micros().saturating_mul(1_000));
        TimeSpec::new((nanos / 1_000_000_000) as i64, (nanos % 1_000_000_000) as i64)
    }
}

/// The clock that never steps. The kernel cannot refuse it; if it did, time would stand still
/// rather than jump.
fn monotonic_nanos() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_clock_agree_and_never_go_back() {
        let clock = Clock::start();
        let copy = clock;
        let first = clock.now();
        let second = copy.now();
        assert!(second >= first);
        assert!(clock.wall() > Timestamp::from_unix_millis(1_700_000_000_000));
    }
}
