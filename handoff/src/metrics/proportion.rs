//! A share with its sample size and the 95 % bounds of Wilson's score interval, which stay
//! honest at 0, at 1 and in small samples; and percentiles by nearest rank. Refuses to call
//! anything proven on fewer than [`SAMPLE_MIN`] cases. Shares are published in per-mille,
//! because what is published has no fractions.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

/// Fewest cases on which a share may raise an alarm: below it the interval is too wide to act on.
pub const SAMPLE_MIN: u64 = 100;

/// Two-sided 95 % quantile of the normal distribution.
pub const Z_95: f64 = 1.959_964;

/// `k` of `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proportion {
    /// Cases that have the property.
    pub k: u64,
    /// All cases.
    pub n: u64,
}

impl Proportion {
    /// Those of `cases` that have the property.
    pub fn of<T>(cases: impl IntoIterator<Item = T>, has: impl Fn(&T) -> bool) -> Self {
        let mut share = Self::default();
        cases.into_iter().for_each(|case| share.count(has(&case)));
        share
    }

    /// Counts one more case.
    pub const fn count(&mut self, has: bool) {
        self.n += 1;
        if has {
            self.k += 1;
        }
    }

    /// The share in per-mille, rounded; none of none is none.
    pub fn per_mille(self) -> Option<u64> {
        (self.n > 0).then(|| (self.k * 1_000 + self.n / 2) / self.n)
    }

    /// Lower and upper bound as shares between 0 and 1. Without a case everything is possible.
    pub fn bounds(self) -> (f64, f64) {
        if self.n == 0 {
            return (0.0, 1.0);
        }
        let (n, p) = (float(self.n), float(self.k) / float(self.n));
        let z2 = Z_95 * Z_95;
        let centre = p + z2 / (2.0 * n);
        let spread = Z_95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z2 / n;
        (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
    }

    /// The bounds in per-mille, rounded away from the middle, so that they promise no more.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a bound lies between 0 and 1"
    )]
    pub fn bounds_pm(self) -> (u64, u64) {
        let (low, high) = self.bounds();
        ((low * 1_000.0).floor() as u64, (high * 1_000.0).ceil() as u64)
    }

    /// Enough cases, and even the lower bound lies above `limit_pm`.
    pub fn surely_above(self, limit_pm: u32) -> bool {
        self.n >= SAMPLE_MIN && self.bounds().0 * 1_000.0 > f64::from(limit_pm)
    }

    /// Enough cases, and even the upper bound lies below `limit_pm`.
    pub fn surely_below(self, limit_pm: u32) -> bool {
        self.n >= SAMPLE_MIN && self.bounds().1 * 1_000.0 < f64::from(limit_pm)
    }
}

/// `{k, n, pm, low_pm, high_pm}`; nothing but `k` and `n` where there is no case.
impl Serialize for Proportion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bounds = (self.n > 0).then(|| self.bounds_pm());
        let mut members = serializer.serialize_struct("Proportion", 5)?;
        members.serialize_field("k", &self.k)?;
        members.serialize_field("n", &self.n)?;
        members.serialize_field("pm", &self.per_mille())?;
        members.serialize_field("low_pm", &bounds.map(|(low, _)| low))?;
        members.serialize_field("high_pm", &bounds.map(|(_, high)| high))?;
        members.end()
    }
}

/// How measured values spread. What a middle value hides, the 95th percentile shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Spread {
    /// Values.
    pub n: u64,
    /// The mean, rounded.
    pub mean: Option<i64>,
    /// Half lie at or below it.
    pub p50: Option<i64>,
    /// 95 % lie at or below it.
    pub p95: Option<i64>,
}

impl Spread {
    /// Of these values.
    pub fn of(mut values: Vec<i64>) -> Self {
        values.sort_unstable();
        let n = i64::try_from(values.len()).unwrap_or(i64::MAX);
        let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
        let mean = (n > 0).then(|| (sum + i128::from(n / 2)).div_euclid(i128::from(n)));
        Self {
            n: n.unsigned_abs(),
            mean: mean.and_then(|mean| i64::try_from(mean).ok()),
            p50: percentile(&values, 50),
            p95: percentile(&values, 95),
        }
    }
}

/// The value at or below which `percent` of the sorted values lie (nearest rank).
fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A count as a number with which to reckon.
#[expect(clippy::cast_precision_loss, reason = "counts of calls stay far below 2^53")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked with the formula by hand, z = 1.959964 (z^2 = 3.841459):
    /// 0 of 100: high = z^2/100 / (1 + z^2/100) = 0.038415 / 1.038415 = 0.036994.
    /// 0 of 99: high = 0.038803 / 1.038803 = 0.037353.
    /// 100 of 100: low = 1 - 0.036994. 99 of 99: low = 1 - 0.037353.
    /// 10 of 100: centre = 0.1 + 0.019207 = 0.119207; root = z * sqrt(0.0009 + 0.000096036)
    /// = 0.061856; (0.119207 -+ 0.061856) / 1.038415 = 0.055229 and 0.174366.
    /// 50 of 100: centre = 0.519207; root = z * sqrt(0.0025 + 0.000096036) = 0.099863;
    /// 0.403830 and 0.596170.
    #[test]
    fn bounds_are_those_of_wilson() {
        for (k, n, low, high) in [
            (0, 0, 0.0, 1.0),
            (0, 99, 0.0, 0.037_353),
            (0, 100, 0.0, 0.036_994),
            (99, 99, 0.962_647, 1.0),
            (100, 100, 0.963_006, 1.0),
            (10, 100, 0.055_229, 0.174_366),
            (50, 100, 0.403_830, 0.596_170),
        ] {
            let bounds = Proportion { k, n }.bounds();
            assert!((bounds.0 - low).abs() < 2e-6 && (bounds.1 - high).abs() < 2e-6, "{k}/{n}: {bounds:?}");
        }
        assert_eq!(Proportion { k: 10, n: 100 }.bounds_pm(), (55, 175));
    }

    #[test]
    fn ninety_nine_cases_prove_nothing() {
        assert!(!Proportion { k: 99, n: 99 }.surely_above(200));
        assert!(Proportion { k: 100, n: 100 }.surely_above(200));
        assert!(!Proportion { k: 0, n: 99 }.surely_below(800));
        assert!(Proportion { k: 0, n: 100 }.surely_below(800));
    }

    /// 28 of 100: low = (0.28 + 0.019207 - z * sqrt(0.002016 + 0.000096036)) / 1.038415
    /// = (0.299207 - 0.090074) / 1.038415 = 0.2014. 27 of 100: (0.289207 - 0.089117) / 1.038415
    /// = 0.1927.
    #[test]
    fn a_share_fires_when_its_bound_has_crossed_the_limit_and_not_before() {
        assert!(!Proportion { k: 27, n: 100 }.surely_above(200), "27 of 100 may still be 20 %");
        assert!(Proportion { k: 28, n: 100 }.surely_above(200));
        assert!(!Proportion { k: 73, n: 100 }.surely_below(800));
        assert!(Proportion { k: 72, n: 100 }.surely_below(800));
    }

    #[test]
    fn a_spread_is_by_nearest_rank_with_a_rounded_mean() {
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        assert_eq!(Spread::of(vec![5]), Spread { n: 1, mean: Some(5), p50: Some(5), p95: Some(5) });
        let hundred = Spread::of((1..=100).rev().collect());
        assert_eq!((hundred.mean, hundred.p50, hundred.p95), (Some(51), Some(50), Some(95)));
        assert_eq!(Spread::of(vec![-3, -4]).mean, Some(-3), "halves go up");
    }

    #[test]
    fn a_share_is_published_with_its_bounds() {
        let json = |k, n| serde_json::to_string(&Proportion { k, n }).unwrap();
        assert_eq!(json(10, 100), r#"{"k":10,"n":100,"pm":100,"low_pm":55,"high_pm":175}"#);
        assert_eq!(json(0, 0), r#"{"k":0,"n":0,"pm":null,"low_pm":null,"high_pm":null}"#);
    }
}
