//! What is said of a period, for a program as one object and for a person as text: every
//! figure with its sample size, its bounds and its window, the thresholds, and the cards that
//! fire. A figure of nothing says so; none is left away because it is bad, or good.

use core::fmt;

use serde::Serialize;

use super::diagnosis::{Card, Finding, Severity, Signal, Thresholds, diagnose};
use super::figures::{Figures, Period, REPEAT_WINDOW_DAYS, Resolution, SERVICE_LEVEL_MS};
use super::handling::{Baseline, Gap};
use super::proportion::{Proportion, SAMPLE_MIN, Spread};
use super::row::Row;
use crate::clock::Timestamp;

/// How the figures are taken, in words that go with them.
pub const METHOD: &str = "shares with Wilson's 95 % bounds; percentiles by nearest rank; handle time within intents, weighted by what is transferred";

/// All that is said of a period.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Of calls that began in it.
    pub period: Period,
    /// How.
    pub method: &'static str,
    /// When a figure is bad.
    pub thresholds: Thresholds,
    /// The window by which resolution is judged.
    pub window_days: u32,
    /// The figures.
    pub figures: Figures,
    /// What is bad, and what to do.
    pub cards: Vec<Card>,
}

impl Report {
    /// Of the calls of `period` among `rows`; the others tell who came back.
    pub fn of(
        rows: &[Row],
        period: Period,
        baseline: Option<&Baseline>,
        thresholds: Thresholds,
        now: Timestamp,
    ) -> Self {
        let figures = Figures::of(rows, period, baseline, now);
        let cards = diagnose(rows, period, &figures, thresholds, now);
        Self { period, method: METHOD, thresholds, window_days: REPEAT_WINDOW_DAYS, figures, cards }
    }

    fn write_rates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Thresholds { rate_warn_pm, rate_act_pm, .. } = self.thresholds;
        let figures = &self.figures;
        let limit = format!("warn above {}, act above {}", percent(rate_warn_pm), percent(rate_act_pm));
        share(f, "transfer rate", figures.transfer_rate, &limit)?;
        share(f, "  by rules that can move", figures.adjustable_rate, "")?;
        for (category, of) in &figures.rate_by_trigger {
            share(f, &format!("  {}", category.as_str()), *of, "")?;
        }
        Ok(())
    }

    fn write_transfers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        let limit = format!("act above {}", percent(self.thresholds.abandonment_max_pm));
        share(f, "abandoned while waiting", figures.abandonment, &limit)?;
        share(f, "  within 5 s", figures.short_abandonment, "")?;
        share(f, "bridged", figures.completion, "")?;
        for (outcome, count) in &figures.outcomes {
            writeln!(f, "{:<25} {count}", format!("  {outcome}"))?;
        }
        let within = SERVICE_LEVEL_MS / 1_000;
        let level = figures.service_level;
        share(f, &format!("a person within {within} s"), level.ignored, "callers who left are taken out")?;
        share(f, "  left counts as missed", level.negative, "")?;
        share(f, "  left counts as met", level.positive, "")?;
        spread(f, "wait", figures.wait_ms)?;
        spread(f, "  beyond the promise", figures.promise_error_ms)?;
        spread(f, "phones rang", figures.ring_ms)?;
        spread(f, "longest silence", figures.dead_air_ms)?;
        share(f, "message cut", figures.message_cut, "")
    }

    fn write_resolution(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = format!("act below {}", percent(self.thresholds.resolution_min_pm));
        let Resolution { window_days, eligible, disposed, post_transfer, .. } = self.figures.resolution();
        let label = format!("resolved, {window_days} days");
        share(f, &label, post_transfer, &limit)?;
        share(f, "  of bridged, eligible", eligible, "window over, caller known")?;
        share(f, "  of these, disposition", disposed, "")?;
        for Resolution { window_days, no_repeat, .. } in &self.figures.resolution {
            share(f, &format!("  no repeat in {window_days} d"), *no_repeat, "")?;
        }
        share(f, "  resolved, as disposed", self.figures.disposition, "")?;
        spread(f, "  start to end of call", self.figures.resolution_ms)
    }

    fn write_handling(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        spread(f, "handle time", figures.handle_ms)?;
        spread(f, "  talk and hold", figures.talk_ms)?;
        share(f, "  known whole", figures.handle_known, "talk, hold and work after")?;
        let label = "  beside direct calls";
        match &figures.handle_gap {
            Gap::NoBaseline => writeln!(f, "{label:<25} no baseline"),
            Gap::TooFew { transferred, direct } => writeln!(
                f,
                "{label:<25} too few of any one intent: {transferred} transferred, {direct} direct"
            ),
            Gap::Compared(gap) => writeln!(
                f,
                "{label:<25} {} ({} to {}; n = {} and {} direct, {} intents, {} left out; plainly {}), act above 0",
                seconds(gap.gap_ms),
                seconds(gap.low_ms),
                seconds(gap.high_ms),
                gap.transferred,
                gap.direct,
                gap.intents,
                percent(u32::try_from(gap.excluded_pm).unwrap_or(u32::MAX)),
                seconds(gap.unstratified_ms)
            ),
        }?;
        share(f, "card acknowledged", figures.pop_success, "")?;
        spread(f, "  after the answer", figures.pop_skew_ms)?;
        share(f, "payload lacks a field", figures.incomplete, "")?;
        share(f, "template summary", figures.template, "")?;
        share(f, "caller asked again", figures.asked_again, "of dispositions that tell")?;
        share(f, "sent to the wrong team", figures.wrong_team, "")?;
        for (queue, life) in &figures.life {
            share(f, "over within 60 s", life.cut, queue)?;
        }
        // One mode alone is what all the other figures are of.
        for (mode, of) in figures.by_mode.iter().filter(|_| figures.by_mode.len() > 1) {
            share(
                f,
                &format!("{} transfers dropped", mode.as_str()),
                of.dropped,
                "left before, or within 60 s of the bridge",
            )?;
            share(f, "  bridged", of.completion, "")?;
            spread(f, "  talk and hold", of.talk_ms)?;
        }
        if figures.unbalanced > 0 {
            writeln!(f, "{:<25} {} calls", "legs never closed", figures.unbalanced)?;
        }
        Ok(())
    }
}

/// For a person.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<25} {} to {}", "calls that began", self.period.from, self.period.to)?;
        let left_out: u64 = self.figures.left_out.values().sum();
        writeln!(f, "{:<25} {} ({left_out} left out)", "calls", self.figures.calls)?;
        for (why, count) in &self.figures.left_out {
            writeln!(f, "{:<25} {count}", format!("  {}", why.words()))?;
        }
        self.write_rates(f)?;
        self.write_resolution(f)?;
        self.write_handling(f)?;
        self.write_transfers(f)?;
        if self.cards.is_empty() {
            writeln!(f, "no card: no figure is beyond its threshold on {SAMPLE_MIN} cases or more")?;
        }
        self.cards.iter().try_for_each(|card| write!(f, "\n{card}"))
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warn => "look",
            Severity::Act => "act",
        };
        let (name, in_time) = match self.signal {
            Signal::TransferRate => ("transfer rate", false),
            Signal::ResolutionPostTransfer => ("resolved after transfer", false),
            Signal::HandleTime => ("handle time beyond direct calls", true),
            Signal::Abandonment => ("abandoned while waiting", false),
            Signal::LifeAfterBridge => ("over within 60 s of the bridge", false),
        };
        let value = |number: i64| if in_time { seconds(number) } else { percent_signed(number) };
        let of = self.queue.as_ref().map(|queue| format!(" of {queue}")).unwrap_or_default();
        writeln!(f, "[{severity}] {}: {name}{of}", self.layer)?;
        writeln!(
            f,
            "  figure    {}, 95 % bound {}, threshold {}, n = {}",
            value(self.value),
            value(self.bound),
            value(self.threshold),
            self.n
        )?;
        if let Some(trigger) = self.trigger {
            let rule = self.rule_id.as_ref().map(|rule| format!(", rule {rule}")).unwrap_or_default();
            writeln!(f, "  mostly    {}{rule}", trigger.as_str())?;
        }
        for Finding { check, value, limit, sick } in &self.checks {
            let state = match (value, sick) {
                (None, _) => "not measured",
                (Some(_), true) => "beyond",
                (Some(_), false) => "healthy",
            };
            let value = value.map_or_else(|| "none".to_owned(), |value| value.to_string());
            writeln!(f, "  checked   {check} = {value}, limit {limit}: {state}")?;
        }
        for knob in &self.knobs {
            writeln!(f, "  change    {}: {}", knob.setting, knob.direction)?;
        }
        if self.knobs.is_empty() {
            writeln!(f, "  change    nothing yet: the layer is healthy, listen to the calls")?;
        }
        let calls: Vec<&str> = self.evidence.iter().map(|call| call.as_str()).collect();
        writeln!(f, "  calls     {}", calls.join(" "))
    }
}

fn share(f: &mut fmt::Formatter<'_>, label: &str, of: Proportion, note: &str) -> fmt::Result {
    let note = if note.is_empty() { String::new() } else { format!(", {note}") };
    let Some(pm) = of.per_mille() else { return writeln!(f, "{label:<25} none (n = 0){note}") };
    let (low, high) = of.bounds_pm();
    let pct = |pm: u64| percent(u32::try_from(pm).unwrap_or(u32::MAX));
    writeln!(f, "{label:<25} {} ({} to {}; {} of {}){note}", pct(pm), pct(low), pct(high), of.k, of.n)
}

fn spread(f: &mut fmt::Formatter<'_>, label: &str, of: Spread) -> fmt::Result {
    let Spread { n, mean: Some(mean), p50: Some(p50), p95: Some(p95) } = of else {
        return writeln!(f, "{label:<25} none (n = 0)");
    };
    writeln!(f, "{label:<25} p50 {}, p95 {}, mean {} (n = {n})", seconds(p50), seconds(p95), seconds(mean))
}

fn percent(pm: u32) -> String {
    format!("{}.{} %", pm / 10, pm % 10)
}

fn percent_signed(pm: i64) -> String {
    percent(u32::try_from(pm).unwrap_or_default())
}

/// Milliseconds as seconds with their fraction.
fn seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    format!("{sign}{}.{:03} s", millis / 1_000, millis % 1_000)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{abandoned, bridged, disposed, row};
    use super::super::row::{LeftOut, Transfer};
    use super::*;
    use crate::clock::DAY_MS;

    const LATER: Timestamp = Timestamp::from_unix_millis(60 * DAY_MS);
    const ALWAYS: Period = Period { from: Timestamp::from_unix_millis(0), to: LATER };

    fn report() -> Report {
        let mut rows: Vec<Row> = (0..400_u64)
            .map(|n| {
                let transfer = match n {
                    0..20 => Some(abandoned(9_000)),
                    20..120 => Some(disposed(Transfer { dead_air_ms: Some(900), ..bridged() }, n % 10 != 0)),
                    _ => None,
                };
                row(&format!("{n:03}"), 0, transfer)
            })
            .collect();
        rows[399].left_out = Some(LeftOut::Silent);
        Report::of(&rows, ALWAYS, None, Thresholds::default(), LATER)
    }

    #[test]
    fn the_report_reads_so() {
        expect![[r#"
            calls that began          1970-01-01T00:00:00.000Z to 1970-03-02T00:00:00.000Z
            calls                     399 (1 left out)
              short and silent        1
            transfer rate             30.1 % (25.7 % to 34.8 %; 120 of 399), warn above 15.0 %, act above 20.0 %
              by rules that can move  30.1 % (25.7 % to 34.8 %; 120 of 399)
              low_confidence          30.1 % (25.7 % to 34.8 %; 120 of 399)
            resolved, 7 days          90.0 % (82.5 % to 94.5 %; 90 of 100), act below 80.0 %
              of bridged, eligible    100.0 % (96.3 % to 100.0 %; 100 of 100), window over, caller known
              of these, disposition   100.0 % (96.3 % to 100.0 %; 100 of 100)
              no repeat in 1 d        100.0 % (96.3 % to 100.0 %; 100 of 100)
              no repeat in 3 d        100.0 % (96.3 % to 100.0 %; 100 of 100)
              no repeat in 7 d        100.0 % (96.3 % to 100.0 %; 100 of 100)
              no repeat in 30 d       100.0 % (96.3 % to 100.0 %; 100 of 100)
              resolved, as disposed   90.0 % (82.5 % to 94.5 %; 90 of 100)
              start to end of call    p50 60.000 s, p95 60.000 s, mean 60.000 s (n = 90)
            handle time               p50 210.000 s, p95 210.000 s, mean 210.000 s (n = 100)
              talk and hold           p50 180.000 s, p95 180.000 s, mean 180.000 s (n = 100)
              known whole             100.0 % (96.3 % to 100.0 %; 100 of 100), talk, hold and work after
              beside direct calls     no baseline
            card acknowledged         100.0 % (96.3 % to 100.0 %; 100 of 100)
              after the answer        p50 -0.800 s, p95 -0.800 s, mean -0.800 s (n = 100)
            payload lacks a field     0.0 % (0.0 % to 3.2 %; 0 of 120)
            template summary          0.0 % (0.0 % to 3.2 %; 0 of 120)
            caller asked again        none (n = 0), of dispositions that tell
            sent to the wrong team    0.0 % (0.0 % to 3.2 %; 0 of 120)
            over within 60 s          0.0 % (0.0 % to 3.7 %; 0 of 100), queue_care
            abandoned while waiting   16.7 % (11.0 % to 24.4 %; 20 of 120), act above 5.0 %
              within 5 s              0.0 % (0.0 % to 3.2 %; 0 of 120)
            bridged                   83.3 % (75.6 % to 89.0 %; 100 of 120)
              abandoned_by_caller     20
              completed               100
            a person within 30 s      100.0 % (96.3 % to 100.0 %; 100 of 100), callers who left are taken out
              left counts as missed   83.3 % (75.6 % to 89.0 %; 100 of 120)
              left counts as met      100.0 % (96.8 % to 100.0 %; 120 of 120)
            wait                      p50 20.000 s, p95 20.000 s, mean 20.000 s (n = 100)
              beyond the promise      p50 -10.000 s, p95 -10.000 s, mean -10.000 s (n = 100)
            phones rang               p50 6.000 s, p95 6.000 s, mean 6.000 s (n = 120)
            longest silence           p50 0.900 s, p95 0.900 s, mean 0.770 s (n = 120)
            message cut               0.0 % (0.0 % to 3.7 %; 0 of 100)

            [act] triggers: transfer rate
              figure    30.1 %, 95 % bound 25.7 %, threshold 20.0 %, n = 399
              mostly    low_confidence, rule unsure
              checked   reasons_that_rules_move_pm = 1000, limit 499: beyond
              checked   reasons_that_no_rule_moves_pm = 0, limit 500: healthy
              change    [[low_confidence]] threshold, consecutive: lower the threshold, or want it crossed more often in a row
              calls     call_000 call_001 call_002 call_003 call_004

            [act] hold: abandoned while waiting
              figure    16.7 %, 95 % bound 11.0 %, threshold 5.0 %, n = 120
              checked   messages_cut_pm = 0, limit 50: healthy
              checked   transfers_with_dead_air_pm = 833, limit 50: beyond
              checked   wait_beyond_promise_p95_ms = -10000, limit 10000: healthy
              checked   ring_p95_ms = 6000, limit 30000: healthy
              checked   left_at_once_pm = 0, limit 500: healthy
              change    hold audio and the interval of its announcements: leave no silence above 500 ms
              calls     call_000 call_001 call_002 call_003 call_004
        "#]].assert_eq(&report().to_string());
    }

    #[test]
    fn a_report_of_nothing_says_so() {
        let text = Report::of(&[], ALWAYS, None, Thresholds::default(), LATER).to_string();
        assert!(
            text.contains("transfer rate             none (n = 0)") && text.contains("no card"),
            "{text}"
        );
    }

    #[test]
    fn a_program_reads_the_same() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!((&json["window_days"], &json["thresholds"]["rate_act_pm"]), (&7.into(), &200.into()));
        assert_eq!(json["cards"][0]["layer"], "triggers");
        assert_eq!(json["cards"][1]["evidence"][0], "call_000");
        assert_eq!(
            json["cards"][1]["knobs"][0]["setting"],
            "hold audio and the interval of its announcements"
        );
        assert_eq!(json["period"]["from"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn seconds_have_a_sign_and_three_places() {
        for (millis, text) in [(0, "0.000 s"), (-300, "-0.300 s"), (61_020, "61.020 s")] {
            assert_eq!(seconds(millis), text);
        }
    }
}
