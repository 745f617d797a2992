//! How well a leg is heard, in figures: loss, jitter, round trip, and from them an estimate of
//! the mean opinion score (ITU-T G.107, the E-model, reduced to what a packet network adds to
//! G.711 with concealment). An estimate of the line, not of the voice on it.

use handoff::call::media::Quality;

use super::FRAME_SAMPLES;

/// Samples of a millisecond.
const SAMPLES_PER_MS: u32 = 8;
/// The rating of a clean line with the default values of every other parameter.
const RATING_CLEAN: f64 = 93.2;
/// How much of a voice a codec with concealment bears to lose: G.711 (ITU-T G.113 appendix I).
const LOSS_ROBUSTNESS: f64 = 25.1;
/// What loss can take away at most.
const LOSS_IMPAIRMENT_MAX: f64 = 95.0;
/// Delay from which people begin to talk over each other, in milliseconds.
const DELAY_NOTICED_MS: f64 = 177.3;

/// What is known of a leg's audio, as counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Packets that arrived.
    pub(super) received: u64,
    /// Packets that should have.
    pub(super) expected: u64,
    /// Interarrival jitter in samples.
    pub(super) jitter: u32,
    /// Packets that left.
    pub(super) sent: u32,
    /// What the far end reports of these.
    pub(super) far: Option<Far>,
}

/// The far end's last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Far {
    /// Packets that it misses.
    pub(super) lost: u32,
    /// Its interarrival jitter in samples.
    pub(super) jitter: u32,
    /// There and back, in milliseconds.
    pub(super) round_trip_ms: Option<u32>,
}

/// The figures of a leg.
pub(super) fn of(counted: &Counted) -> Quality {
    let lost = counted.expected.saturating_sub(counted.received);
    let lost_pm = per_mille(lost, counted.expected);
    let jitter_ms = counted.jitter / SAMPLES_PER_MS;
    let round_trip_ms = counted.far.and_then(|far| far.round_trip_ms);
    Quality {
        received: counted.received,
        lost_pm,
        jitter_ms,
        far_lost_pm: counted.far.map(|far| per_mille(far.lost.into(), counted.sent.into())),
        far_jitter_ms: counted.far.map(|far| far.jitter / SAMPLES_PER_MS),
        round_trip_ms,
        mos_x100: (counted.received > 0).then(|| mos_x100(lost_pm, jitter_ms, round_trip_ms.unwrap_or(0))),
    }
}

fn per_mille(part: u64, whole: u64) -> u16 {
    let share = (part.min(whole) * 1_000).checked_div(whole).unwrap_or(0);
    u16::try_from(share).unwrap_or(1_000)
}

/// The estimate for what the edge hears of a leg.
fn mos_x100(lost_pm: u16, jitter_ms: u32, round_trip_ms: u32) -> u16 {
    // A frame, and a buffer of twice the jitter, before anything is heard.
    let frame_ms = FRAME_SAMPLES as u32 / SAMPLES_PER_MS;
    let delay = f64::from(round_trip_ms / 2 + frame_ms + 2 * jitter_ms);
    let late = (delay - DELAY_NOTICED_MS).max(0.0);
    let lost = f64::from(lost_pm) / 10.0;
    let rating =
        RATING_CLEAN - (0.024 * delay + 0.11 * late) - LOSS_IMPAIRMENT_MAX * lost / (lost + LOSS_ROBUSTNESS);
    let r = rating.clamp(0.0, 100.0);
    let mos = 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6;
    (mos.clamp(1.0, 4.5) * 100.0).round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_falls_with_loss_jitter_and_delay() {
        for (lost_pm, jitter_ms, round_trip_ms, expected) in [
            (0, 0, 0, 440),
            (10, 2, 40, 430),
            (50, 10, 80, 384),
            (200, 60, 200, 199),
            (0, 0, 800, 291),
            (1_000, 100, 2_000, 100),
        ] {
            let mos = mos_x100(lost_pm, jitter_ms, round_trip_ms);
            assert!(mos.abs_diff(expected) <= 5, "{lost_pm} {jitter_ms} {round_trip_ms}: {mos}");
        }
    }

    #[test]
    fn a_leg_that_nothing_came_from_has_no_score_and_shares_stay_below_a_thousand() {
        assert_eq!(of(&Counted::default()).mos_x100, None);
        let far = Far { lost: 9, jitter: 16, round_trip_ms: None };
        let counted = Counted { received: 90, expected: 100, jitter: 80, sent: 3, far: Some(far) };
        let quality = of(&counted);
        assert_eq!((quality.lost_pm, quality.jitter_ms), (100, 10));
        assert_eq!((quality.far_lost_pm, quality.far_jitter_ms), (Some(1_000), Some(2)));
    }
}
