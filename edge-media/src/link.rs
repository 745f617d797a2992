//! Doors for voice agents: the pure half of each. Text and frames in, typed values out; no
//! socket, no clock, no task. A voice agent can speak, ask and leave through its door; it
//! can make nothing happen by itself.

pub mod twilio;

use core::time::Duration;

use handoff::clock::Now;

/// A rate with a burst: `burst` at once, then one per `every`. Whoever exceeds it is not
/// cut off, merely no longer heard.
#[derive(Clone, Debug)]
pub struct Budget {
    every: Duration,
    burst: u32,
    left: u32,
    since: Now,
}

impl Budget {
    /// A full budget.
    pub const fn new(burst: u32, every: Duration) -> Self {
        Self { every, burst, left: burst, since: Now::ZERO }
    }

    /// Spends one; `false` when there is none left.
    pub fn spend(&mut self, now: Now) -> bool {
        let every = self.every.as_micros().max(1);
        let earned = now.since(self.since).as_micros() / every;
        if earned > 0 {
            self.left = u32::try_from(earned).unwrap_or(u32::MAX).saturating_add(self.left).min(self.burst);
            // The remainder of an interval counts towards the next one.
            let used = u64::try_from(earned.saturating_mul(every)).unwrap_or(u64::MAX);
            self.since = self.since + Duration::from_micros(used);
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_its_burst_then_its_rate() {
        let mut budget = Budget::new(2, Duration::from_millis(100));
        let granted: Vec<bool> = [0, 0, 0, 99, 100, 100, 1_000, 1_000, 1_000]
            .map(|millis| budget.spend(Now::from_millis(millis)))
            .to_vec();
        assert_eq!(granted, [true, true, false, false, true, false, true, true, false]);
    }
}
