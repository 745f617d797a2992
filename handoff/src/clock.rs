//! The two clocks of the domain, as values. `Now` is monotonic and drives every machine;
//! `Timestamp` is wall time and only ever labels facts. Nothing here reads a clock: the
//! shell passes both in. (The third clock of the system, RTP media time, lives in the edge.)

use core::fmt;
use core::ops::Add;
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Monotonic time in microseconds since an epoch that the shell chose (its start).
///
/// Timers compare only `Now`s, so a step of the wall clock moves no timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Now(u64);

impl Now {
    /// The shell's epoch.
    pub const ZERO: Self = Self(0);

    /// A moment `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// A moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Time since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Now {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

/// Wall-clock time in milliseconds since the Unix epoch, printed as RFC 3339 with
/// milliseconds and `Z` (the only form that payload and audit accept).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text is not `YYYY-MM-DDThh:mm:ss.mmmZ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 timestamp with milliseconds and Z (2026-11-22T07:01:35.000Z)")]
pub struct BadTimestamp;

impl Timestamp {
    /// From milliseconds since 1970-01-01T00:00:00Z.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub const fn unix_secs(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The same moment shifted by `millis`.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Parses exactly the form that [`fmt::Display`] prints.
    pub fn parse(text: &str) -> Result<Self, BadTimestamp> {
        let bytes = text.as_bytes();
        let layout = b"0000-00-00T00:00:00.000Z";
        if bytes.len() != layout.len() {
            return Err(BadTimestamp);
        }
        for (byte, shape) in bytes.iter().zip(layout) {
            let fits = if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
            if !fits {
                return Err(BadTimestamp);
            }
        }
        let number = |from: usize, to: usize| -> i64 {
            bytes.get(from..to).unwrap_or_default().iter().fold(0, |sum, b| sum * 10 + i64::from(b - b'0'))
        };
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        let (hour, minute, second, milli) = (number(11, 13), number(14, 16), number(17, 19), number(20, 23));
        let in_range =
            (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
        let days = days_from_civil(year, month, day);
        if !in_range || civil_from_days(days) != (year, month, day) {
            return Err(BadTimestamp);
        }
        Ok(Self((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + milli))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(DAY_MS);
        let in_day = self.0.rem_euclid(DAY_MS);
        let (year, month, day) = civil_from_days(days);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            in_day / 3_600_000,
            in_day / 60_000 % 60,
            in_day / 1_000 % 60,
            in_day % 1_000
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// One day of the calendar in UTC, printed as `yyyymmdd`: by it the rows of calls are grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// The day of a moment.
    pub const fn of(at: Timestamp) -> Self {
        Self(at.0.div_euclid(DAY_MS))
    }

    /// The day after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0);
        write!(f, "{year:04}{month:02}{day:02}")
    }
}

/// Milliseconds of a day. Wall time here has no leap seconds.
pub const DAY_MS: i64 = 86_400_000;

/// Both clocks at one instant, as the shell read them when an input arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Drives timers.
    pub now: Now,
    /// Labels facts.
    pub wall: Timestamp,
}

// Civil calendar arithmetic after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_and_parse_as_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_795_330_895_000, "2026-11-22T07:01:35.000Z"),
        ] {
            assert_eq!(Timestamp::from_unix_millis(millis).to_string(), text);
            assert_eq!(Timestamp::parse(text), Ok(Timestamp::from_unix_millis(millis)));
        }
    }

    #[test]
    fn days_follow_each_other_across_a_leap_year() {
        let last = Timestamp::parse("2028-02-28T23:59:59.999Z").unwrap();
        let day = Day::of(last);
        assert_eq!(day.to_string(), "20280228");
        assert_eq!(day.next(), Day::of(last.plus_millis(1)));
        assert_eq!(day.next().to_string(), "20280229");
        assert_eq!(Day::of(Timestamp::from_unix_millis(-1)).to_string(), "19691231");
    }

    #[test]
    fn anything_but_that_exact_form_is_refused() {
        for text in [
            "",
            "2026-11-22T07:01:35Z",
            "2026-02-30T00:00:00.000Z",
            "2026-11-22 07:01:35.000Z",
            "2026-11-22T24:00:00.000Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(BadTimestamp), "{text}");
        }
    }
}
