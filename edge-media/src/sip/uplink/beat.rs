//! Keep-alive of the connection that a registration came over (RFC 5626 section 4.4.1): a double
//! CRLF now and then, and a CRLF back from whoever has shown to know that. Who has is given up
//! when it falls silent; of others silence says nothing. It knows times and no bytes.

use std::time::Duration;

use handoff::clock::Now;

/// What is waited for a pong (RFC 5626 section 4.4.1).
const PONG_MAX: Duration = Duration::from_secs(10);
/// The longest wait between two pings where the registrar names none (RFC 5626 section 4.4.1).
const EVERY_DEFAULT: Duration = Duration::from_secs(120);
/// What a registrar may name: less would be a flood of its own asking, more is no watch.
const EVERY_SECS: (u32, u32) = (10, 600);
/// A ping comes after four fifths of the wait at the earliest, so that edges do not keep step.
const EARLIEST_PERCENT: u32 = 80;

/// The watch over one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beat {
    /// The longest wait between two pings; none while nothing is watched.
    every: Option<Duration>,
    /// The far end answers pings.
    answers: bool,
    /// When the last ping was sent that is not answered.
    asked: Option<Now>,
}

/// What to do, and when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beaten {
    /// Send a ping.
    Ping(Now),
    /// Nothing.
    Rest(Now),
    /// The connection is dead: close it.
    Dead,
}

impl Beat {
    /// A registration was accepted over the connection. `flow_timer` is what its registrar names
    /// for the wait, `knows` whether it said that it knows RFC 5626.
    pub(super) fn begin(&mut self, now: Now, flow_timer: Option<u32>, knows: bool, draw: u64) -> Now {
        let named = flow_timer.map(|secs| Duration::from_secs(secs.clamp(EVERY_SECS.0, EVERY_SECS.1).into()));
        self.every = Some(named.unwrap_or(EVERY_DEFAULT));
        self.answers |= knows || flow_timer.is_some();
        match self.asked {
            // A refresh does not end the wait for a pong.
            Some(asked) if self.answers => asked + PONG_MAX,
            Some(_) | None => now + self.wait(draw),
        }
    }

    /// It is time.
    pub(super) fn due(&mut self, now: Now, draw: u64) -> Beaten {
        match self.asked {
            Some(asked) if self.answers && now.since(asked) >= PONG_MAX => {
                *self = Self::default();
                Beaten::Dead
            }
            Some(asked) if self.answers => Beaten::Rest(asked + PONG_MAX),
            Some(_) | None => {
                self.asked = Some(now);
                Beaten::Ping(now + if self.answers { PONG_MAX } else { self.wait(draw) })
            }
        }
    }

    /// A pong came. Tells when to look again, where it answers a ping.
    pub(super) fn pong(&mut self, now: Now, draw: u64) -> Option<Now> {
        self.asked.take()?;
        self.answers = true;
        Some(now + self.wait(draw))
    }

    fn wait(&self, draw: u64) -> Duration {
        let every = self.every.unwrap_or(EVERY_DEFAULT);
        let span = u64::from(100 - EARLIEST_PERCENT) + 1;
        let percent = EARLIEST_PERCENT + u32::try_from(draw % span).unwrap_or(0);
        every * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Now {
        Now::from_millis(secs * 1_000)
    }

    #[test]
    fn a_far_end_that_knows_how_is_given_up_ten_seconds_after_a_ping_without_pong() {
        for (flow_timer, knows) in [(Some(100), false), (Some(100), true)] {
            let mut beat = Beat::default();
            assert_eq!(beat.begin(at(0), flow_timer, knows, 0), at(80), "four fifths at the earliest");
            assert_eq!(beat.due(at(80), 0), Beaten::Ping(at(90)));
            assert_eq!(beat.pong(at(81), 20), Some(at(181)), "and all of it at the latest");
            assert_eq!(beat.due(at(181), 0), Beaten::Ping(at(191)));
            assert_eq!(beat.begin(at(185), flow_timer, knows, 0), at(191), "a refresh is no pong");
            assert_eq!(beat.due(at(185), 0), Beaten::Rest(at(191)));
            assert_eq!(beat.due(at(191), 0), Beaten::Dead);
            assert_eq!(beat, Beat::default());
        }
    }

    #[test]
    fn the_silence_of_one_that_never_answered_says_nothing_until_it_answers_once() {
        let mut beat = Beat::default();
        assert_eq!(beat.begin(at(0), None, false, 20), at(120));
        assert_eq!(beat.due(at(120), 20), Beaten::Ping(at(240)));
        assert_eq!(beat.due(at(240), 20), Beaten::Ping(at(360)));
        assert_eq!(beat.pong(at(241), 20), Some(at(361)));
        assert_eq!(beat.pong(at(242), 20), None, "an empty line is no answer to anything");
        assert_eq!(beat.due(at(361), 20), Beaten::Ping(at(371)));
        assert_eq!(beat.due(at(371), 20), Beaten::Dead);
    }

    #[test]
    fn a_wait_that_makes_no_sense_is_brought_within_bounds() {
        for (named, wait) in [(0, 8), (10, 8), (600, 480), (u32::MAX, 480)] {
            assert_eq!(Beat::default().begin(at(0), Some(named), true, 0), at(wait), "{named}");
        }
    }
}
