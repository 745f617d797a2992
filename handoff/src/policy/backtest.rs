//! What a candidate policy would have done to calls that already happened: a pure function
//! over their recorded evaluations. Only the first decision of a call counts, because what
//! came after a different decision never happened.

use std::collections::BTreeMap;

use crate::conversation::{Snapshot, Stimulus};
use crate::id::CallId;
use crate::policy::{Category, Policy};

/// From this transfer rate on the rules should be looked at, per-mille of calls.
pub const BAND_WARN_PM: u32 = 150;
/// Above this transfer rate thresholds or scope must be changed, per-mille of calls.
pub const BAND_ACT_PM: u32 = 200;
/// Most flips that are listed; all are counted.
pub const FLIPS_LISTED_MAX: usize = 1_000;

/// One recorded evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Which call.
    pub call: CallId,
    /// The call so far, the stimulus included.
    pub snapshot: Snapshot,
    /// The new thing.
    pub stimulus: Stimulus,
    /// What was decided on it then.
    pub decided: Option<Category>,
}

/// A call that a candidate treats differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    /// Which call.
    pub call: CallId,
    /// What was decided.
    pub was: Option<Category>,
    /// What the candidate decides.
    pub now: Option<Category>,
}

/// What a candidate would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backtest {
    /// Calls seen.
    pub calls: u64,
    /// Calls that were transferred.
    pub transferred_then: u64,
    /// Calls that the candidate transfers.
    pub transferred_now: u64,
    /// Calls that change sides.
    pub flips: u64,
    /// Calls that are transferred either way, for another reason.
    pub renamed: u64,
    /// The first of both, flips and renamed, in order of call id.
    pub changed: Vec<Flip>,
    /// Decisions of the candidate by category.
    pub shares: BTreeMap<Category, u64>,
}

/// Where a transfer rate lies against the band of 15 to 20 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// Below 15 %.
    Healthy,
    /// From 15 to 20 %.
    Warn,
    /// Above 20 %.
    Act,
}

impl Backtest {
    /// The candidate's transfer rate in per-mille of calls.
    pub fn rate_pm(&self) -> u32 {
        per_mille(self.transferred_now, self.calls)
    }

    /// The recorded transfer rate in per-mille of calls.
    pub fn rate_then_pm(&self) -> u32 {
        per_mille(self.transferred_then, self.calls)
    }

    /// Where the candidate's rate lies.
    pub fn band(&self) -> Band {
        match self.rate_pm() {
            rate if rate > BAND_ACT_PM => Band::Act,
            rate if rate >= BAND_WARN_PM => Band::Warn,
            _ => Band::Healthy,
        }
    }

    /// The category that a setting can move and that contributes most: where to look first
    /// when the rate is above the band. What must reach a person is never it.
    pub fn largest_adjustable(&self) -> Option<Category> {
        let fixed = [Category::Regulatory, Category::Safety, Category::CallerRequest];
        let adjustable = self.shares.iter().filter(|(category, _)| !fixed.contains(category));
        adjustable
            .max_by_key(|(category, count)| (**count, core::cmp::Reverse(**category)))
            .map(|(category, _)| *category)
    }
}

/// Runs `candidate` over recorded evaluations, in the order of each call.
pub fn backtest(candidate: &Policy, events: impl IntoIterator<Item = Recorded>) -> Backtest {
    let mut calls: BTreeMap<CallId, (Option<Category>, Option<Category>)> = BTreeMap::new();
    for Recorded { call, mut snapshot, stimulus, decided } in events {
        let (was, now) = calls.entry(call).or_default();
        if now.is_none() {
            // A latch was set by a decision of the old policy, which this one did not make.
            snapshot.confidence_latched = false;
            *now = candidate.evaluate(&snapshot, &stimulus).map(|trigger| trigger.category);
        }
        *was = was.or(decided);
    }
    let mut result = Backtest::default();
    for (call, (was, now)) in calls {
        result.calls += 1;
        result.transferred_then += u64::from(was.is_some());
        result.transferred_now += u64::from(now.is_some());
        if let Some(category) = now {
            *result.shares.entry(category).or_default() += 1;
        }
        if was == now {
            continue;
        }
        if was.is_some() == now.is_some() {
            result.renamed += 1;
        } else {
            result.flips += 1;
        }
        if result.changed.len() < FLIPS_LISTED_MAX {
            result.changed.push(Flip { call, was, now });
        }
    }
    result
}

fn per_mille(part: u64, whole: u64) -> u32 {
    let rate = (part * 1_000).checked_div(whole).unwrap_or(0);
    u32::try_from(rate).unwrap_or(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pii::Pii;
    use crate::signal::Speaker;

    fn policy(threshold: &str) -> Policy {
        let text = format!(
            "name = 't'\n[[low_confidence]]\nid='c'\nthreshold={threshold}\nupper_edge=0.9\nconsecutive=1\n\
             [[caller_request]]\nid='r'\nphrases=['a person']"
        );
        Policy::from_toml(&text).unwrap()
    }

    /// Calls with a few turns and one confidence each, decided by `policy`.
    fn recorded(policy: &Policy, calls: u16) -> Vec<Recorded> {
        let mut events = Vec::new();
        for index in 0..calls {
            let call = CallId::parse(&format!("call-{index:05}")).unwrap();
            let said = if index % 10 == 0 { "give me a person" } else { "my bill is too high" };
            let turn =
                |text: &str| Stimulus::Turn { speaker: Speaker::Caller, text: Pii::new(text.to_owned()) };
            let value_pm = index % 100 * 10;
            for stimulus in [turn("hello"), turn(said), Stimulus::Confidence { value_pm }, turn("thank you")]
            {
                let recent = vec![value_pm];
                let snapshot = Snapshot { confidence_recent_pm: recent, ..Snapshot::default() };
                let decided = policy.evaluate(&snapshot, &stimulus).map(|trigger| trigger.category);
                events.push(Recorded { call: call.clone(), snapshot, stimulus, decided });
            }
        }
        events
    }

    #[test]
    fn the_same_policy_flips_nothing() {
        let policy = policy("0.1");
        let result = backtest(&policy, recorded(&policy, 1_000));
        assert_eq!((result.calls, result.flips, result.renamed), (1_000, 0, 0));
        assert_eq!(result.rate_pm(), result.rate_then_pm());
        assert_eq!(result.rate_pm(), 190);
        assert_eq!(result.band(), Band::Warn);
    }

    #[test]
    fn a_higher_threshold_shows_its_flips_and_its_share() {
        let events = recorded(&policy("0.1"), 1_000);
        let result = backtest(&policy("0.3"), events);
        assert_eq!((result.rate_then_pm(), result.rate_pm(), result.flips), (190, 370, 180));
        assert_eq!(result.band(), Band::Act);
        assert_eq!(result.largest_adjustable(), Some(Category::LowConfidence));
        assert_eq!(result.changed.len(), 180);
        assert!(result.changed.iter().all(|flip| flip.was.is_none() && flip.now.is_some()));
    }

    #[test]
    fn what_must_reach_a_person_is_never_the_one_to_adjust() {
        let policy = Policy::from_toml("name='t'\n[[caller_request]]\nid='r'\nphrases=['a person']").unwrap();
        let result = backtest(&policy, recorded(&policy, 100));
        assert_eq!((result.rate_pm(), result.largest_adjustable()), (100, None));
    }

    #[test]
    fn no_calls_give_no_rate() {
        assert_eq!(backtest(&policy("0.5"), []).rate_pm(), 0);
    }
}
