//! The formulas on rows of which every expected value is worked by hand.

use super::super::fixture::{abandoned, bridged, disposed, row};
use super::*;
use crate::id::CallId;

/// All windows of the fixtures are over by then.
const LATER: Timestamp = Timestamp::from_unix_millis(400 * DAY_MS);
const ALWAYS: Period = Period { from: Timestamp::from_unix_millis(0), to: LATER };

fn of(k: u64, n: u64) -> Proportion {
    Proportion { k, n }
}

fn figures(rows: &[Row]) -> Figures {
    Figures::of(rows, ALWAYS, None, LATER)
}

/// Ten calls. Worked by hand:
///
/// | call | transfer |
/// |---|---|
/// | a | low confidence, bridged at 20 s, resolved |
/// | b | the same, not resolved |
/// | c | the same, no disposition |
/// | d | the caller asked; left after 4 s |
/// | e | safety; left after 31 s |
/// | f | two: bridged at 20 s and resolved, then bridged at 40 s and resolved |
/// | g, h | none |
/// | i | short and silent: out |
/// | j | a test with a transfer: out |
fn ten_calls() -> Vec<Row> {
    let second = Transfer { ordinal: 2, bridged_ms: Some(40_000), ..disposed(bridged(), true) };
    let mut rows = vec![
        row("a", 0, Some(disposed(bridged(), true))),
        row("b", 1, Some(disposed(bridged(), false))),
        row("c", 2, Some(bridged())),
        row("d", 3, Some(Transfer { trigger: Some(Category::CallerRequest), ..abandoned(4_000) })),
        row("e", 4, Some(Transfer { trigger: Some(Category::Safety), ..abandoned(31_000) })),
        row("f", 5, Some(Transfer { followed: true, ..disposed(bridged(), true) })),
        row("f", 5, Some(second)),
        row("g", 6, None),
        row("h", 7, None),
        row("i", 8, None),
        row("j", 9, Some(bridged())),
    ];
    rows[9].left_out = Some(LeftOut::Silent);
    rows[10].left_out = Some(LeftOut::Test);
    rows
}

#[test]
fn the_rates_are_of_calls_that_the_voice_agent_answered() {
    let figures = figures(&ten_calls());
    assert_eq!(figures.calls, 8);
    assert_eq!(figures.left_out, BTreeMap::from([(LeftOut::Test, 1), (LeftOut::Silent, 1)]));
    assert_eq!(figures.transfer_rate, of(6, 8), "a to f; f counts once");
    assert_eq!(figures.adjustable_rate, of(4, 8), "without d and e");
    let expected = [(Category::Safety, 1), (Category::CallerRequest, 1), (Category::LowConfidence, 4)];
    assert_eq!(figures.rate_by_trigger, expected.map(|(category, k)| (category, of(k, 8))).into());
}

#[test]
fn completion_and_abandonment_are_of_transfers_decided() {
    let figures = figures(&ten_calls());
    assert_eq!(figures.completion, of(5, 7));
    assert_eq!(figures.abandonment, of(2, 7));
    assert_eq!(figures.short_abandonment, of(1, 7), "4 s; 31 s is not short");
    assert_eq!(
        figures.outcomes,
        BTreeMap::from([("abandoned_by_caller".into(), 2), ("completed".into(), 5)])
    );
}

#[test]
fn who_was_asked_again_is_of_the_dispositions_that_tell() {
    let mut rows = ten_calls();
    for (row, fields) in rows.iter_mut().zip([Some(2), Some(0)]) {
        let transfer = row.transfer.as_mut().unwrap();
        transfer.disposition.as_mut().unwrap().asked_again = fields;
    }
    assert_eq!(figures(&rows).asked_again, of(1, 2), "the third disposition does not say");
}

/// Warm: five of seven bridged, two left, none cut. Cold: of three one left, one was cut after
/// 40 s, one talked on.
#[test]
fn the_modes_stand_side_by_side_each_with_its_own_sample() {
    let mut rows = ten_calls();
    let cut = Transfer { life_ms: Some(40_000), handled_ms: Some(41_000), ..bridged() };
    for (name, transfer) in [("k", abandoned(9_000)), ("l", cut), ("m", bridged())] {
        rows.push(row(name, 10, Some(Transfer { mode: Mode::Cold, ..transfer })));
    }
    let by_mode = figures(&rows).by_mode;
    let (warm, cold) = (by_mode[&Mode::Warm], by_mode[&Mode::Cold]);
    assert_eq!((warm.dropped, warm.completion, warm.talk_ms.n), (of(2, 7), of(5, 7), 5));
    assert_eq!((cold.dropped, cold.completion, cold.talk_ms.n), (of(2, 3), of(2, 3), 2));
    assert_eq!(figures(&ten_calls()).by_mode.len(), 1, "no row of a mode that nobody used");
}

/// Seven offered. Met within 30 s: a, b, c and the first of f, four; its second took 40 s.
/// Left within 30 s: d, one; e left after 31 s. Ignored 4 of 6, negative 4 of 7, positive 5 of 7.
#[test]
fn the_service_level_treats_those_who_left_in_three_ways() {
    let level = figures(&ten_calls()).service_level;
    assert_eq!((level.ignored, level.negative, level.positive), (of(4, 6), of(4, 7), of(5, 7)));
    let never_offered = [row("a", 0, Some(Transfer { offers: 0, ..abandoned(9_000) }))];
    assert_eq!(figures(&never_offered).service_level, ServiceLevel::default());
}

/// Bridged: a, b, c, f, f: five, all eligible. No repeat in any: 5 of 5. With a disposition:
/// a, b, f, f: 4 of 5. Resolved without a second transfer: a and the second of f: 2 of 4.
/// Dispositions that say resolved: 3 of 4.
#[test]
fn resolution_is_of_the_eligible_with_a_disposition() {
    let figures = figures(&ten_calls());
    assert_eq!(figures.resolution.iter().map(|it| it.window_days).collect::<Vec<_>>(), [1, 3, 7, 30]);
    let judged = figures.resolution();
    assert_eq!((judged.eligible, judged.no_repeat), (of(5, 5), of(5, 5)));
    assert_eq!((judged.disposed, judged.post_transfer), (of(4, 5), of(2, 4)));
    assert_eq!(figures.disposition, of(3, 4));
}

#[test]
fn durations_are_published_as_spreads() {
    let figures = figures(&ten_calls());
    // 20 s four times and 40 s: mean 24 s. Promised 30: -10 s four times and +10: mean -6 s.
    assert_eq!(figures.wait_ms, Spread { n: 5, mean: Some(24_000), p50: Some(20_000), p95: Some(40_000) });
    assert_eq!(
        figures.promise_error_ms,
        Spread { n: 5, mean: Some(-6_000), p50: Some(-10_000), p95: Some(10_000) }
    );
    // 180 s of talk and 30 s after it, where a disposition told them: a, b, f, f.
    assert_eq!((figures.handle_ms.n, figures.handle_ms.mean), (4, Some(210_000)));
    assert_eq!((figures.talk_ms.n, figures.talk_ms.mean), (5, Some(180_000)), "c too");
    assert_eq!((figures.handle_known, &figures.handle_gap), (of(4, 5), &Gap::NoBaseline));
    assert_eq!((figures.ring_ms.n, figures.ring_ms.p50), (7, Some(6_000)));
    assert_eq!((figures.resolution_ms.n, figures.resolution_ms.p50), (3, Some(60_000)));
}

#[test]
fn the_layers_speak_for_themselves() {
    let late = Transfer { pop_skew_ms: None, ..bridged() };
    let bare = Transfer { completeness_pm: Some(500), template: Some(true), wrong_team: true, ..bridged() };
    let silent =
        Transfer { dead_air_ms: Some(501), played_pm: Some(900), life_ms: Some(59_999), ..bridged() };
    let mut rows = vec![row("a", 0, Some(late)), row("b", 0, Some(bare)), row("c", 0, Some(silent))];
    rows.push(row("d", 0, Some(Transfer { played_pm: Some(300), ..abandoned(9_000) })));
    rows[1].legs_open = 1;
    let figures = figures(&rows);
    assert_eq!((figures.pop_success, figures.pop_skew_ms.n), (of(2, 3), 2));
    assert_eq!((figures.incomplete, figures.template, figures.wrong_team), (of(1, 4), of(1, 4), of(1, 4)));
    assert_eq!((figures.dead_air, figures.dead_air_ms.p95), (of(1, 4), Some(501)));
    assert_eq!(figures.message_cut, of(1, 3), "who leaves during the message cut it themselves");
    let life = Life { cut: of(1, 3), cut_after_ms: Some(59_999), together: of(1, 1) };
    assert_eq!(figures.life, BTreeMap::from([("queue_care".to_owned(), life)]));
    assert_eq!(figures.unbalanced, 1);
}

/// A second call of the same caller, so many days after the first ended.
fn pair(after_ms: i64) -> Vec<Row> {
    let first = row("a", 0, Some(disposed(bridged(), true)));
    let mut second = row("b", 0, None);
    second.started_at = first.ended_at.plus_millis(after_ms);
    second.ended_at = second.started_at.plus_millis(60_000);
    second.caller.clone_from(&first.caller);
    vec![first, second]
}

#[test]
fn another_contact_counts_inside_the_window_only() {
    for (after_ms, repeated) in [(1, true), (7 * DAY_MS, true), (7 * DAY_MS + 1, false)] {
        let judged = figures(&pair(after_ms)).resolution();
        assert_eq!(judged.no_repeat, of(u64::from(!repeated), 1), "{after_ms}");
        assert_eq!(judged.post_transfer, of(u64::from(!repeated), 1), "{after_ms}");
    }
    let ten_days = figures(&pair(10 * DAY_MS)).resolution;
    assert_eq!(ten_days.iter().map(|it| it.no_repeat.k).collect::<Vec<_>>(), [1, 1, 1, 0]);
}

#[test]
fn a_contact_after_the_period_counts_and_is_no_call_of_it() {
    let rows = pair(DAY_MS);
    let period = Period { from: Timestamp::from_unix_millis(0), to: rows[0].ended_at };
    let figures = Figures::of(&rows, period, None, LATER);
    assert_eq!(figures.calls, 1);
    assert_eq!(figures.resolution().post_transfer, of(0, 1));
}

#[test]
fn who_comes_back_for_something_else_or_never_spoke_is_no_repeat() {
    let change = |what: fn(&mut Row)| {
        let mut rows = pair(DAY_MS);
        what(&mut rows[1]);
        figures(&rows).resolution().no_repeat.k
    };
    assert_eq!(change(|_| ()), 0);
    assert_eq!(change(|row| row.intent = Some("sales".to_owned())), 1);
    assert_eq!(change(|row| row.intent = None), 0, "where nobody knows, nothing is claimed");
    assert_eq!(change(|row| row.caller = None), 1);
    assert_eq!(change(|row| row.left_out = Some(LeftOut::Silent)), 1);
    assert_eq!(change(|row| row.left_out = Some(LeftOut::Test)), 1);
    assert_eq!(change(|row| row.left_out = Some(LeftOut::Running)), 0);
    assert_eq!(change(|row| row.left_out = Some(LeftOut::NotAnswered)), 0, "a contact is one in any channel");
}

#[test]
fn a_repeat_seen_by_somebody_else_counts_in_the_windows_that_hold_it() {
    let seen = Transfer { repeat_within_days: Some(3), ..disposed(bridged(), true) };
    let found = figures(&[row("a", 0, Some(seen))]).resolution;
    assert_eq!(found.iter().map(|it| it.post_transfer.k).collect::<Vec<_>>(), [1, 0, 0, 0]);
}

#[test]
fn a_window_that_still_runs_and_an_unknown_caller_are_not_eligible() {
    let mut rows = vec![row("a", 0, Some(disposed(bridged(), true)))];
    let matures = rows[0].ended_at.plus_millis(7 * DAY_MS);
    let at = |rows: &[Row], now| Figures::of(rows, ALWAYS, None, now).resolution();
    assert_eq!(at(&rows, matures.plus_millis(-1)).eligible, of(0, 1));
    assert_eq!(at(&rows, matures).eligible, of(1, 1));
    rows[0].caller = None;
    assert_eq!(at(&rows, LATER).eligible, of(0, 1));
    assert_eq!(at(&rows, LATER).post_transfer, of(0, 0));
}

#[test]
fn rows_outside_the_period_are_no_part_of_any_figure() {
    let rows = ten_calls();
    let day = |day: i64| Timestamp::from_unix_millis(day * DAY_MS);
    let figures = Figures::of(&rows, Period { from: day(3), to: day(5) }, None, LATER);
    assert_eq!((figures.calls, figures.abandonment), (2, of(2, 2)), "d and e; the end is outside");
    let none = Figures::of(&[], ALWAYS, None, LATER);
    assert_eq!((none.calls, none.transfer_rate, none.wait_ms), (0, of(0, 0), Spread::default()));
}

#[test]
fn the_figures_are_published_as_one_object() {
    let json = serde_json::to_value(figures(&ten_calls())).unwrap();
    assert_eq!(json["transfer_rate"]["k"], 6);
    assert_eq!(json["left_out"]["silent"], 1);
    assert_eq!(json["rate_by_trigger"]["low_confidence"]["n"], 8);
    assert_eq!(json["handle_gap"]["state"], "no_baseline");
    assert!(CallId::parse("call_a").is_ok() && !json.to_string().contains("hm1:"), "no caller is named");
}
