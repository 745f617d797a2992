//! The circuit breaker of one destination: after several failures in a row nothing is sent
//! for a while, then one try finds out whether it is back. A receiver that is down then costs
//! nothing to those that are up, and is not beaten while it recovers. It refuses no message
//! for good: what may not be sent now waits, or goes on in the durable lane.

use core::time::Duration;

use super::{AttemptResult, DURABLE_TRY};
use crate::clock::Now;

/// Failures in a row that open the breaker: the three tries of one live message and two more,
/// so that no single message closes a destination for all others.
pub const FAILURES_MAX: u32 = 5;

/// First rest: a restart of the receiver takes about as long.
pub const REST_MIN: Duration = Duration::from_secs(30);

/// Longest rest: a receiver that is back is noticed within five minutes.
pub const REST_MAX: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Messages pass; so many failures came in a row.
    Closed { failures: u32 },
    /// Nothing passes until then.
    Open { until: Now, rest: Duration },
    /// One try is under way, and is given up as lost at `until`.
    Probing { until: Now, rest: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Whether a try may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Go,
    /// Not before then.
    Wait(Now),
}

impl Breaker {
    /// Asks for one try.
    pub fn admit(&mut self, now: Now) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Go,
            State::Open { until, .. } | State::Probing { until, .. } if now < until => Admission::Wait(until),
            State::Open { rest, .. } | State::Probing { rest, .. } => {
                self.state = State::Probing { until: now + DURABLE_TRY, rest };
                Admission::Go
            }
        }
    }

    /// Takes the result of a try. `true` when it opened the breaker just now.
    pub fn record(&mut self, now: Now, result: AttemptResult) -> bool {
        if is_alive(result) {
            self.state = State::default();
            return false;
        }
        let rest = match self.state {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => {
                self.state = State::Closed { failures: failures + 1 };
                return false;
            }
            State::Closed { .. } => REST_MIN,
            // A try that began before it opened says nothing new.
            State::Open { .. } => return false,
            State::Probing { rest, .. } => (rest * 2).min(REST_MAX),
        };
        self.state = State::Open { until: now + rest, rest };
        true
    }
}

/// Whether the receiver works, whatever it thinks of the message. An address that we refuse
/// to connect to says nothing of a receiver, and every message is refused there anyway.
const fn is_alive(result: AttemptResult) -> bool {
    match result {
        AttemptResult::Answered { status, .. } => status < 500 && status != 429,
        AttemptResult::NoAnswer => false,
        AttemptResult::Forbidden => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: AttemptResult = AttemptResult::NoAnswer;
    const OK: AttemptResult = AttemptResult::Answered { status: 200, retry_after: None };

    fn at(secs: u64) -> Now {
        Now::from_millis(secs * 1_000)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for n in 1..=FAILURES_MAX {
            assert_eq!(breaker.admit(at(0)), Admission::Go);
            assert_eq!(breaker.record(at(0), DOWN), n == FAILURES_MAX);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_starts_the_count_again() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                assert!(!breaker.record(at(0), DOWN));
            }
            breaker.record(at(0), OK);
        }
        assert_eq!(breaker.admit(at(0)), Admission::Go);
        assert_eq!(opened().admit(at(29)), Admission::Wait(at(30)));
    }

    #[test]
    fn a_refusal_is_a_sign_of_life_and_overload_is_not() {
        for (status, alive) in
            [(200, true), (301, true), (404, true), (429, false), (500, false), (503, false)]
        {
            assert_eq!(is_alive(AttemptResult::Answered { status, retry_after: None }), alive, "{status}");
        }
        assert!(is_alive(AttemptResult::Forbidden));
    }

    #[test]
    fn after_the_rest_one_try_finds_out_and_the_rest_doubles_up_to_its_limit() {
        let mut breaker = opened();
        let mut now = 30;
        for rest in [60, 120, 240, 300, 300] {
            assert_eq!(breaker.admit(at(now)), Admission::Go);
            assert_eq!(breaker.admit(at(now)), Admission::Wait(at(now + 15)), "one at a time");
            assert!(breaker.record(at(now), DOWN));
            assert_eq!(breaker.admit(at(now)), Admission::Wait(at(now + rest)));
            now += rest;
        }
        assert_eq!(breaker.admit(at(now)), Admission::Go);
        breaker.record(at(now), OK);
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_lost_try_and_a_late_result_do_not_keep_it_shut() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(at(30)), Admission::Go);
        assert_eq!(breaker.admit(at(45)), Admission::Go, "the first try never came back");
        let mut breaker = opened();
        assert!(!breaker.record(at(10), DOWN), "it began before");
        assert_eq!(breaker.admit(at(30)), Admission::Go);
    }
}
