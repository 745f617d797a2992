//! When a webhook is tried, and when it is given up: a machine with two lanes. The live
//! lane lives within one call's ringing (three tries in five seconds); the durable lane
//! keeps trying for about three days. It sends nothing and reads no clock; telephony never
//! waits for it.

pub mod breaker;

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::event::WebhookKind;

/// Longest wait for a connection in the live lane. A CRM that needs longer will not answer
/// before the person does.
pub const LIVE_CONNECT: Duration = Duration::from_millis(500);

/// Longest try in the live lane.
pub const LIVE_TRY: Duration = Duration::from_secs(2);

/// All tries of the live lane together: a phone rings about this long at least.
pub const LIVE_BUDGET: Duration = Duration::from_secs(5);

/// A try with less time left than this would be cut short before it can succeed.
pub const LIVE_LEFT_MIN: Duration = Duration::from_millis(500);

/// Longest try in the durable lane.
pub const DURABLE_TRY: Duration = Duration::from_secs(15);

/// Waits after a failed try in the live lane.
const LIVE_WAITS: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1_500)];

/// Waits after a failed try in the durable lane: quick for a restart, then through a night
/// and a weekend. Ten tries in about 76 hours.
const DURABLE_WAITS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
    Duration::from_secs(24 * 3600),
];

/// Largest share of a durable wait that jitter adds, per-mille. Enough to spread a burst
/// over the receiver's recovery, too little to change the schedule.
const JITTER_PM_MAX: u64 = 100;

/// Longest `Retry-After` that is honoured: a peer cannot park a message for longer than
/// the longest wait of the schedule.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where a message is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// While the phone rings.
    Live,
    /// For days.
    Durable,
}

impl Lane {
    /// The lane in which a message starts: what a person needs while the phone rings is
    /// live, all else can wait its turn.
    pub const fn of(kind: WebhookKind) -> Self {
        match kind {
            WebhookKind::Offered | WebhookKind::Accepted | WebhookKind::PayloadRevised => Self::Live,
            WebhookKind::Decided
            | WebhookKind::Bridged
            | WebhookKind::Abandoned
            | WebhookKind::Failed
            | WebhookKind::Fallback
            | WebhookKind::VoicemailLeft
            | WebhookKind::CallbackRequested
            | WebhookKind::CallClosed => Self::Durable,
        }
    }

    /// The name used in contracts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Durable => "durable",
        }
    }
}

/// What became of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// The receiver answered.
    Answered {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, where it was given in seconds.
        retry_after: Option<Duration>,
    },
    /// No answer: connection refused, reset, timeout, TLS failure, name not found.
    NoAnswer,
    /// The destination's address is one that we refuse to connect to.
    Forbidden,
}

/// Why no try follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaveUp {
    /// The live budget or its tries are used up. The message continues in the durable lane.
    LiveSpent,
    /// The receiver refused the message in the live lane. It continues in the durable lane.
    LiveRefused,
    /// The schedule is used up: dead letter.
    Spent,
    /// 410: the endpoint is gone for good and is disabled.
    EndpointGone,
    /// The address is forbidden: no repetition can help.
    Forbidden,
}

impl GaveUp {
    /// The message goes on in the durable lane, with the same id.
    pub const fn continues(self) -> bool {
        match self {
            Self::LiveSpent | Self::LiveRefused => true,
            Self::Spent | Self::EndpointGone | Self::Forbidden => false,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try at this time, for at most this long in all.
    SendAt {
        /// When.
        at: Now,
        /// Longest duration of that try.
        timeout: Duration,
    },
    /// No further try in this lane.
    GiveUp(GaveUp),
    /// Delivered.
    Done,
}

/// The delivery of one message to one destination in one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    lane: Lane,
    started: Now,
    failed: u32,
}

impl Delivery {
    /// A delivery that begins now, with what to do first.
    pub const fn start(lane: Lane, now: Now) -> (Self, Next) {
        let timeout = match lane {
            Lane::Live => LIVE_TRY,
            Lane::Durable => DURABLE_TRY,
        };
        (Self { lane, started: now, failed: 0 }, Next::SendAt { at: now, timeout })
    }

    /// A delivery of the durable lane of which `failed` tries have failed before; the queue
    /// delivers it when its next try is due.
    pub const fn resume(failed: u32, now: Now) -> Self {
        Self { lane: Lane::Durable, started: now, failed }
    }

    /// Tries that failed so far.
    pub const fn failed(&self) -> u32 {
        self.failed
    }

    /// Takes the result of the latest try. `jitter_pm` is a random number, of which at most
    /// 100 per-mille are added to a durable wait.
    pub fn handle(&mut self, now: Now, result: AttemptResult, jitter_pm: u16) -> Next {
        let retry_after = match result {
            AttemptResult::Answered { status: 200..=299, .. } => return Next::Done,
            AttemptResult::Answered { status: 410, .. } => return Next::GiveUp(GaveUp::EndpointGone),
            AttemptResult::Forbidden => return Next::GiveUp(GaveUp::Forbidden),
            AttemptResult::Answered { status: 429 | 502 | 503 | 504, retry_after } => retry_after,
            AttemptResult::Answered { status: 400..=499, .. } if self.lane == Lane::Live => {
                return Next::GiveUp(GaveUp::LiveRefused);
            }
            AttemptResult::Answered { .. } | AttemptResult::NoAnswer => None,
        };
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let waits: &[Duration] = match self.lane {
            Lane::Live => &LIVE_WAITS,
            Lane::Durable => &DURABLE_WAITS,
        };
        let wait = waits.get(usize::try_from(self.failed).unwrap_or(usize::MAX)).copied();
        self.failed = self.failed.saturating_add(1);
        match (self.lane, wait) {
            (Lane::Live, Some(wait)) => self.next_live(now + wait.max(asked)),
            (Lane::Live, None) => Next::GiveUp(GaveUp::LiveSpent),
            (Lane::Durable, Some(wait)) => {
                let at = now + jittered(wait, jitter_pm).max(asked);
                Next::SendAt { at, timeout: DURABLE_TRY }
            }
            (Lane::Durable, None) => Next::GiveUp(GaveUp::Spent),
        }
    }

    fn next_live(&self, at: Now) -> Next {
        let left = LIVE_BUDGET.saturating_sub(at.since(self.started));
        if left < LIVE_LEFT_MIN {
            return Next::GiveUp(GaveUp::LiveSpent);
        }
        Next::SendAt { at, timeout: left.min(LIVE_TRY) }
    }
}

fn jittered(wait: Duration, jitter_pm: u16) -> Duration {
    let share = u64::from(jitter_pm) % (JITTER_PM_MAX + 1);
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    wait + Duration::from_millis(millis / 1_000 * share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Now = Now::from_millis(10_000);

    fn answered(status: u16) -> AttemptResult {
        AttemptResult::Answered { status, retry_after: None }
    }

    fn at(millis: u64, timeout_ms: u64) -> Next {
        Next::SendAt { at: T0 + Duration::from_millis(millis), timeout: Duration::from_millis(timeout_ms) }
    }

    #[test]
    fn a_live_message_is_tried_three_times_and_then_continues() {
        let (mut delivery, first) = Delivery::start(Lane::Live, T0);
        assert_eq!(first, at(0, 2_000));
        assert_eq!(delivery.handle(T0 + Duration::from_millis(100), answered(500), 0), at(500, 2_000));
        assert_eq!(
            delivery.handle(T0 + Duration::from_millis(600), AttemptResult::NoAnswer, 0),
            at(2_100, 2_000)
        );
        let last = delivery.handle(T0 + Duration::from_millis(2_200), answered(500), 0);
        assert_eq!(last, Next::GiveUp(GaveUp::LiveSpent));
        assert!(GaveUp::LiveSpent.continues());
    }

    #[test]
    fn slow_failures_shorten_the_last_live_try_or_cancel_it() {
        let (mut delivery, _) = Delivery::start(Lane::Live, T0);
        assert_eq!(
            delivery.handle(T0 + Duration::from_secs(2), AttemptResult::NoAnswer, 0),
            at(2_400, 2_000)
        );
        let next = delivery.handle(T0 + Duration::from_millis(4_400), AttemptResult::NoAnswer, 0);
        assert_eq!(next, Next::GiveUp(GaveUp::LiveSpent), "a try at 5.9 s would be over the budget");
    }

    #[test]
    fn retry_after_is_honoured_where_the_budget_allows_it() {
        let busy =
            |secs| AttemptResult::Answered { status: 503, retry_after: Some(Duration::from_secs(secs)) };
        let (mut delivery, _) = Delivery::start(Lane::Live, T0);
        assert_eq!(delivery.handle(T0, busy(1), 0), at(1_000, 2_000));
        assert_eq!(delivery.handle(T0, busy(9), 0), Next::GiveUp(GaveUp::LiveSpent));
        let mut durable = Delivery::resume(0, T0);
        assert_eq!(durable.handle(T0, busy(60), 0), at(60_000, 15_000));
        assert_eq!(durable.handle(T0, busy(u64::MAX / 2_000_000), 0), at(24 * 3_600_000, 15_000));
    }

    #[test]
    fn refusals_end_the_lane_that_they_end() {
        let (mut live, _) = Delivery::start(Lane::Live, T0);
        assert_eq!(live.clone().handle(T0, answered(422), 0), Next::GiveUp(GaveUp::LiveRefused));
        assert_eq!(live.clone().handle(T0, answered(410), 0), Next::GiveUp(GaveUp::EndpointGone));
        assert_eq!(live.clone().handle(T0, answered(204), 0), Next::Done);
        assert_eq!(live.handle(T0, answered(302), 0), at(400, 2_000));
        let mut durable = Delivery::resume(3, T0);
        assert_eq!(durable.handle(T0, AttemptResult::Forbidden, 0), Next::GiveUp(GaveUp::Forbidden));
        assert_eq!(durable.handle(T0, answered(422), 0), at(2 * 3_600_000, 15_000));
    }

    #[test]
    fn the_durable_schedule_ends_in_the_dead_letter_queue() {
        let mut delivery = Delivery::resume(0, T0);
        let mut now = T0;
        let mut tries = 1;
        while let Next::SendAt { at, .. } = delivery.handle(now, answered(500), 0) {
            now = at;
            tries += 1;
        }
        assert_eq!(tries, 10);
        assert_eq!(now.since(T0).as_secs(), 5 + 300 + 1800 + 7200 + 18000 + 36000 + 50400 + 72000 + 86400);
        assert_eq!(delivery.handle(now, answered(500), 0), Next::GiveUp(GaveUp::Spent));
    }

    proptest! {
        /// However slowly tries fail and whatever the receiver answers, the live lane never
        /// exceeds its budget and tries never overlap.
        #[test]
        fn the_live_budget_holds(
            steps in prop::collection::vec((0_u64..=2_000, prop::option::of(0_u64..10), any::<u16>()), 8)
        ) {
            let (mut delivery, mut next) = Delivery::start(Lane::Live, T0);
            let mut now = T0;
            let mut tries = 0;
            for (took, retry_after, jitter) in steps {
                let Next::SendAt { at, timeout } = next else { break };
                prop_assert!(at >= now, "a try starts only after the previous one has failed");
                prop_assert!(timeout >= LIVE_LEFT_MIN && timeout <= LIVE_TRY);
                tries += 1;
                now = at + Duration::from_millis(took).min(timeout);
                prop_assert!(now.since(T0) <= LIVE_BUDGET);
                let retry_after = retry_after.map(Duration::from_secs);
                next = delivery.handle(now, AttemptResult::Answered { status: 503, retry_after }, jitter);
            }
            prop_assert!(tries <= 3);
        }
    }
}
