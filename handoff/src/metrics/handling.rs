//! Handle time of transferred calls beside that of direct ones. The voice agent keeps the easy
//! calls, so the two are compared within each intent and the differences are weighted by what
//! is transferred; the plain difference is published beside it for whoever expects it. Direct
//! calls never pass through here: they come as an imported baseline. Without one there is no
//! comparison, and that is said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::proportion::{SAMPLE_MIN, Z_95, float};
use super::row::Row;
use crate::clock::Timestamp;

/// Fewest calls of one intent in each arm: below it the spread within the intent is unknown.
pub const STRATUM_MIN: u64 = 30;

/// Most direct calls that a baseline may have: a year of a large team.
pub const BASELINE_CALLS_MAX: usize = 2_000_000;

/// One direct call: one that reached a person without the voice agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direct {
    /// What it was about, in the words of the voice agent's intents.
    pub intent: String,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Talk.
    pub talk_s: u32,
    /// Hold.
    pub hold_s: u32,
    /// Work after the call.
    pub acw_s: u32,
}

/// Direct calls, for comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline(Vec<Direct>);

/// A line of a baseline that is not a direct call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBaseline {
    /// It does not parse. What the line says is not repeated.
    #[error(
        "line {line} is not {{\"intent\": text, \"ended_at\": time, \"talk_s\": n, \"hold_s\": n, \"acw_s\": n}}"
    )]
    Line {
        /// From 1.
        line: usize,
    },
    /// There are too many.
    #[error("more than {BASELINE_CALLS_MAX} calls")]
    TooMany,
}

impl Baseline {
    /// Reads one JSON object per line; empty lines are skipped.
    pub fn parse(text: &str) -> Result<Self, BadBaseline> {
        let mut calls = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            if content.trim().is_empty() {
                continue;
            }
            if calls.len() == BASELINE_CALLS_MAX {
                return Err(BadBaseline::TooMany);
            }
            calls.push(serde_json::from_str(content).map_err(|_| BadBaseline::Line { line })?);
        }
        Ok(Self(calls))
    }

    /// How many calls it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// It has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Handle time of transferred calls less that of direct ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Gap {
    /// No direct calls were imported.
    NoBaseline,
    /// No intent has enough calls in both arms.
    TooFew {
        /// Transferred calls whose handle time is known.
        transferred: u64,
        /// Direct calls.
        direct: u64,
    },
    /// Compared.
    Compared(Compared),
}

/// The comparison, in milliseconds. Above zero transferred calls take longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The weighted difference.
    pub gap_ms: i64,
    /// Its lower 95 % bound.
    pub low_ms: i64,
    /// Its upper 95 % bound.
    pub high_ms: i64,
    /// The plain difference of the means, over all calls.
    pub unstratified_ms: i64,
    /// Transferred calls in the intents that are compared.
    pub transferred: u64,
    /// Direct calls in them.
    pub direct: u64,
    /// Intents that are compared.
    pub intents: u64,
    /// Transferred calls outside them, per-mille of all whose handle time is known.
    pub excluded_pm: u64,
}

impl Compared {
    /// Transferred calls take longer, beyond chance.
    pub const fn is_surely_longer(&self) -> bool {
        self.transferred >= SAMPLE_MIN && self.low_ms > 0
    }
}

impl Gap {
    /// Compares the transfers whose handle time is known whole with the baseline.
    pub(super) fn of<'r>(rows: impl Iterator<Item = &'r Row>, baseline: Option<&Baseline>) -> Self {
        let Some(baseline) = baseline.filter(|baseline| !baseline.is_empty()) else {
            return Self::NoBaseline;
        };
        let mut all = Stratum::default();
        let mut strata: BTreeMap<&str, Stratum> = BTreeMap::new();
        for row in rows {
            let handled = row.transfer.as_ref().and_then(|transfer| transfer.handle_ms());
            let Some(handled_ms) = handled else { continue };
            all.transferred.add(float(handled_ms));
            if let Some(intent) = row.intent.as_deref() {
                strata.entry(intent).or_default().transferred.add(float(handled_ms));
            }
        }
        for Direct { intent, talk_s, hold_s, acw_s, .. } in &baseline.0 {
            let handled_ms = 1_000.0 * (f64::from(*talk_s) + f64::from(*hold_s) + f64::from(*acw_s));
            all.direct.add(handled_ms);
            if let Some(stratum) = strata.get_mut(intent.as_str()) {
                stratum.direct.add(handled_ms);
            }
        }
        strata.retain(|_, Stratum { transferred, direct }| {
            transferred.n >= STRATUM_MIN && direct.n >= STRATUM_MIN
        });
        if strata.is_empty() {
            return Self::TooFew { transferred: all.transferred.n, direct: all.direct.n };
        }
        Self::Compared(compare(&all, strata.into_values().collect()))
    }
}

fn compare(all: &Stratum, strata: Vec<Stratum>) -> Compared {
    let transferred: u64 = strata.iter().map(|stratum| stratum.transferred.n).sum();
    let (mut gap, mut variance) = (0.0, 0.0);
    for Stratum { transferred: with, direct } in &strata {
        let weight = float(with.n) / float(transferred);
        gap += weight * (with.mean - direct.mean);
        variance += weight * weight * (with.variance() / float(with.n) + direct.variance() / float(direct.n));
    }
    let margin = Z_95 * variance.sqrt();
    let outside = all.transferred.n - transferred;
    Compared {
        gap_ms: whole(gap),
        low_ms: whole(gap - margin),
        high_ms: whole(gap + margin),
        unstratified_ms: whole(all.transferred.mean - all.direct.mean),
        transferred,
        direct: strata.iter().map(|stratum| stratum.direct.n).sum(),
        intents: strata.len() as u64,
        excluded_pm: (outside * 1_000 + all.transferred.n / 2) / all.transferred.n,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a difference of call lengths in milliseconds")]
fn whole(millis: f64) -> i64 {
    millis.round() as i64
}

/// Both arms of one intent.
#[derive(Clone, Copy, Debug, Default)]
struct Stratum {
    transferred: Moments,
    direct: Moments,
}

/// Mean and variance in one pass (Welford), which stays exact where sums of squares do not.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    n: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.n += 1;
        let before = value - self.mean;
        self.mean += before / float(self.n);
        self.squares += before * (value - self.mean);
    }

    /// The variance of the population that these were drawn from.
    fn variance(&self) -> f64 {
        if self.n < 2 { 0.0 } else { self.squares / float(self.n - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{bridged, disposed, row};
    use super::*;

    /// `count` calls of one intent, in pairs 10 s below and above the mean.
    fn transferred(intent: &str, count: u64, mean_s: u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for n in 0..count {
            let seconds = if n % 2 == 0 { mean_s - 10 } else { mean_s + 10 };
            let mut transfer = disposed(bridged(), true);
            transfer.handled_ms = Some(1_000 * (seconds - 30));
            let mut row = row(&format!("{intent}_{n}"), 0, Some(transfer));
            row.intent = Some(intent.to_owned());
            rows.push(row);
        }
        rows
    }

    fn direct(intent: &str, count: u64, mean_s: u64) -> String {
        let line = |n| {
            let talk_s = if n % 2 == 0 { mean_s - 40 } else { mean_s - 20 };
            format!(
                "{{\"intent\":\"{intent}\",\"ended_at\":\"2026-11-22T07:01:35.000Z\",\"talk_s\":{talk_s},\"hold_s\":10,\"acw_s\":20}}\n"
            )
        };
        (0..count).map(line).collect()
    }

    fn gap(rows: &[Row], baseline: &str) -> Gap {
        Gap::of(rows.iter(), Some(&Baseline::parse(baseline).unwrap()))
    }

    /// Worked by hand. Transferred: 40 easy of 90 s, 360 hard of 380 s: mean (3 600 + 136 800)
    /// / 400 = 351 s. Direct: 300 easy of 100 s, 60 hard of 400 s: mean (30 000 + 24 000) / 360
    /// = 150 s. Plain gap 351 - 150 = +201 s. Within the intents -10 s and -20 s, weighted
    /// 0.1 and 0.9: -19 s.
    #[test]
    fn the_easy_calls_that_the_voice_agent_keeps_raise_no_alarm() {
        let rows = [transferred("easy", 40, 90), transferred("hard", 360, 380)].concat();
        let baseline = direct("easy", 300, 100) + &direct("hard", 60, 400);
        let Gap::Compared(compared) = gap(&rows, &baseline) else { panic!("compared") };
        assert_eq!((compared.unstratified_ms, compared.gap_ms), (201_000, -19_000));
        assert!(!compared.is_surely_longer(), "{compared:?}");
        assert_eq!((compared.transferred, compared.direct, compared.intents), (400, 360, 2));
    }

    /// Worked by hand. Pairs 10 s to either side of their mean, so s^2 = 100 n / (n - 1) s^2.
    /// a: n_T = 60, n_D = 50, gap +6 s; b: n_T = 40, n_D = 100, gap +1 s; weights 0.6, 0.4.
    /// gap = 0.6 * 6 + 0.4 * 1 = 4 s. Variance of a mean = 100 / (n - 1): a 100/59 + 100/49 =
    /// 3.735732; b 100/39 + 100/99 = 3.574204. 0.36 * 3.735732 + 0.16 * 3.574204 = 1.916736,
    /// root 1.384462, times z 2.713496: from 1.287 s to 6.713 s.
    #[test]
    fn the_gap_is_weighted_by_what_is_transferred_and_bounded() {
        let mut rows = [transferred("a", 60, 206), transferred("b", 40, 101)].concat();
        let baseline = direct("a", 50, 200) + &direct("b", 100, 100) + &direct("never", 500, 900);
        let Gap::Compared(compared) = gap(&rows, &baseline) else { panic!("compared") };
        assert_eq!((compared.gap_ms, compared.low_ms, compared.high_ms), (4_000, 1_287, 6_713));
        assert!(compared.is_surely_longer() && compared.excluded_pm == 0);
        assert_eq!((compared.transferred, compared.direct), (100, 150), "an intent never transferred is out");

        // 25 more without a counterpart: the shares are of what is compared, the rest is told.
        rows.extend(transferred("rare", 25, 500));
        let Gap::Compared(wider) = gap(&rows, &baseline) else { panic!("compared") };
        assert_eq!((wider.gap_ms, wider.low_ms, wider.excluded_pm), (4_000, 1_287, 200));
        rows.retain(|row| row.call.as_str() != "call_a_0");
        let Gap::Compared(fewer) = gap(&rows, &baseline) else { panic!("compared") };
        assert!(fewer.low_ms > 0 && !fewer.is_surely_longer(), "99 transferred calls prove nothing");
    }

    #[test]
    fn without_a_baseline_there_is_no_comparison() {
        let rows = transferred("a", 200, 500);
        assert_eq!(Gap::of(rows.iter(), None), Gap::NoBaseline);
        assert_eq!(gap(&rows, "\n"), Gap::NoBaseline);
        let few = Gap::TooFew { transferred: 200, direct: 29 };
        assert_eq!(gap(&rows, &direct("a", 29, 100)), few, "29 calls in one arm are too few");
    }

    #[test]
    fn a_transfer_whose_work_afterwards_is_unknown_is_not_compared() {
        let mut rows = transferred("a", 31, 500);
        for row in rows.iter_mut().take(2) {
            row.transfer.as_mut().unwrap().disposition = None;
        }
        assert_eq!(gap(&rows, &direct("a", 90, 100)), Gap::TooFew { transferred: 29, direct: 90 });
    }

    #[test]
    fn a_bad_line_is_named_and_not_repeated() {
        let good = direct("a", 1, 100);
        for bad in
            ["{}", "+15550142", r#"{"intent":"a","ended_at":"yesterday","talk_s":1,"hold_s":1,"acw_s":1}"#]
        {
            let error = Baseline::parse(&format!("{good}\n{bad}\n")).unwrap_err();
            assert_eq!(error, BadBaseline::Line { line: 3 });
            assert!(!error.to_string().contains("0142"));
        }
        assert_eq!(Baseline::parse(&good).map(|baseline| baseline.len()), Ok(1));
    }
}
