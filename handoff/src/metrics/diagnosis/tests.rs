//! Planted faults raise their card and no other; healthy calls, and calls of which too few
//! are known, raise none.

use super::super::fixture::{abandoned, bridged, disposed, row};
use super::super::handling::Baseline;
use super::*;
use crate::clock::DAY_MS;

const LATER: Timestamp = Timestamp::from_unix_millis(60 * DAY_MS);
const ALWAYS: Period = Period { from: Timestamp::from_unix_millis(0), to: LATER };

/// So many calls; each of the first `transferred` has the transfer that `make` gives.
fn rows(calls: u64, transferred: u64, make: impl Fn(u64) -> Transfer) -> Vec<Row> {
    (0..calls).map(|n| row(&format!("{n:05}"), 0, (n < transferred).then(|| make(n)))).collect()
}

fn cards(rows: &[Row], baseline: Option<&Baseline>) -> Vec<Card> {
    let figures = Figures::of(rows, ALWAYS, baseline, LATER);
    diagnose(rows, ALWAYS, &figures, Thresholds::default(), LATER)
}

/// Direct calls that take as long as a healthy transferred one: 210 s, 5 s more or less.
fn direct() -> Baseline {
    let line = |n: u32| {
        let talk_s = if n.is_multiple_of(2) { 175 } else { 185 };
        format!(
            r#"{{"intent":"billing","ended_at":"1970-01-01T00:00:00.000Z","talk_s":{talk_s},"hold_s":0,"acw_s":30}}"#
        )
    };
    Baseline::parse(&(0..200).map(line).collect::<Vec<_>>().join("\n")).unwrap()
}

/// One transfer in ten, resolved, with nothing to complain of.
fn healthy(n: u64) -> Transfer {
    let mut transfer = disposed(bridged(), true);
    transfer.handled_ms = Some(if n.is_multiple_of(2) { 175_000 } else { 185_000 });
    transfer
}

/// One in five leaves after nine seconds.
fn leaving(n: u64, change: fn(&mut Transfer)) -> Transfer {
    let mut transfer = if n.is_multiple_of(5) { abandoned(9_000) } else { healthy(n) };
    change(&mut transfer);
    transfer
}

fn unresolved(n: u64, change: fn(&mut Transfer)) -> Transfer {
    let mut transfer =
        Transfer { disposition: disposed(bridged(), n.is_multiple_of(2)).disposition, ..healthy(n) };
    change(&mut transfer);
    transfer
}

fn slow(n: u64, change: fn(&mut Transfer)) -> Transfer {
    let mut transfer = healthy(n);
    transfer.handled_ms = transfer.handled_ms.map(|ms| ms + 40_000);
    change(&mut transfer);
    transfer
}

/// The one card that the planted fault raises.
fn only(rows: &[Row]) -> Card {
    let mut found = cards(rows, Some(&direct()));
    assert_eq!(found.len(), 1, "{found:#?}");
    let card = found.remove(0);
    assert!((1..=EVIDENCE_MAX).contains(&card.evidence.len()), "{card:#?}");
    assert!(card.n >= CUT_SAMPLE_MIN && card.knobs.is_empty() == (card.layer == UNEXPLAINED), "{card:#?}");
    card
}

#[test]
fn healthy_calls_raise_no_card_with_or_without_a_baseline() {
    for calls in [1_000, 10_000] {
        let rows = rows(calls, calls / 10, healthy);
        assert_eq!(cards(&rows, Some(&direct())), []);
        assert_eq!(cards(&rows, None), []);
    }
}

/// 300 of 1 000 is 30.0 %; low = (0.3 + 0.001921 - z * sqrt(0.00021 + 0.00000096)) / 1.003841
/// = (0.301921 - 0.028468) / 1.003841 = 0.2724, printed as 27.2 %.
#[test]
fn a_rate_that_rules_made_leads_to_the_rule_that_made_most_of_it() {
    let make = |n| Transfer {
        trigger: Some(if n % 3 == 0 { Category::Topic } else { Category::LowConfidence }),
        rule_id: Some(if n % 3 == 0 { "t1".to_owned() } else { "unsure".to_owned() }),
        ..healthy(n)
    };
    let card = only(&rows(1_000, 300, make));
    assert_eq!((card.signal, card.severity, card.layer), (Signal::TransferRate, Severity::Act, "triggers"));
    assert_eq!((card.value, card.bound, card.threshold, card.n), (300, 272, 200, 1_000));
    assert_eq!((card.trigger, card.rule_id.as_deref()), (Some(Category::LowConfidence), Some("unsure")));
    assert_eq!(card.knobs, [rules::knob_of(Category::LowConfidence)]);
    assert_eq!(card.evidence[0].as_str(), "call_00001", "a call of that reason, not the first of all");
}

#[test]
fn a_rate_that_no_rule_moves_leads_to_the_scope() {
    for category in [Category::CallerRequest, Category::Safety, Category::Regulatory] {
        let card = only(&rows(1_000, 300, |n| Transfer { trigger: Some(category), ..healthy(n) }));
        assert_eq!((card.layer, card.trigger), ("triggers", Some(category)));
        assert_eq!(card.knobs[0].setting, "scope of the voice agent");
    }
    let unknown = only(&rows(1_000, 300, |n| Transfer { trigger: None, ..healthy(n) }));
    assert_eq!((unknown.layer, unknown.knobs.as_slice()), (UNEXPLAINED, [].as_slice()));
}

#[test]
fn a_rate_inside_the_band_warns() {
    let card = only(&rows(1_000, 190, healthy));
    assert_eq!((card.signal, card.severity, card.threshold), (Signal::TransferRate, Severity::Warn, 150));
    assert_eq!(cards(&rows(1_000, 160, healthy), None), [], "160 of 1 000 may still be 15 %");
}

#[test]
fn unresolved_transfers_with_bare_payloads_lead_to_the_payload() {
    let bare = |n| unresolved(n, |transfer| transfer.completeness_pm = Some(600));
    let card = only(&rows(2_000, 200, bare));
    assert_eq!((card.signal, card.layer), (Signal::ResolutionPostTransfer, "payload"));
    assert_eq!(card.knobs[0].setting, "[[payload.intent]] required");
    let missing = card.checks.iter().find(|found| found.check == "payloads_with_missing_fields_pm").unwrap();
    assert_eq!((missing.value, missing.sick), (Some(1_000), true));
    assert_eq!(card.evidence[0].as_str(), "call_00001", "odd ones are unresolved");

    let other = only(&rows(2_000, 200, |n| unresolved(n, |transfer| transfer.wrong_team = true)));
    assert_eq!((other.layer, other.knobs[0].setting), ("payload", "[[queue]] skills and agents"));
}

#[test]
fn who_comes_back_is_evidence_too() {
    let mut rows = rows(2_000, 200, |n| {
        let mut transfer = healthy(n);
        transfer.completeness_pm = Some(600);
        transfer
    });
    for n in 0..100 {
        let caller = rows[n].caller.clone();
        rows[1_900 + n].caller = caller;
        rows[1_900 + n].started_at = rows[n].ended_at.plus_millis(DAY_MS);
    }
    let card = only(&rows);
    assert_eq!((card.signal, card.value), (Signal::ResolutionPostTransfer, 500));
    assert_eq!(card.evidence[0].as_str(), "call_00000");
}

#[test]
fn slow_transfers_with_late_cards_lead_to_the_screen_pop() {
    let late = |n| slow(n, |transfer| transfer.pop_skew_ms = Some(4_000));
    let card = only(&rows(2_000, 200, late));
    assert_eq!((card.signal, card.layer), (Signal::HandleTime, "screen pop"));
    assert_eq!((card.value, card.threshold, card.n), (40_000, 0, 200));
    assert_eq!(card.knobs.len(), 2, "half of them late, and some very late");
    let lost = only(&rows(2_000, 200, |n| slow(n, |transfer| transfer.pop_skew_ms = None)));
    assert_eq!(
        (lost.layer, lost.knobs[0].direction),
        ("screen pop", "find out why the card does not reach the screen")
    );
}

#[test]
fn abandonment_leads_to_what_is_wrong_with_the_hold() {
    let silent = |n| leaving(n, |transfer| transfer.dead_air_ms = Some(2_000));
    let card = only(&rows(2_000, 200, silent));
    assert_eq!((card.signal, card.layer, card.value), (Signal::Abandonment, "hold", 200));
    assert_eq!(card.knobs[0].setting, "hold audio and the interval of its announcements");
    for (change, setting) in [
        (
            (|transfer| transfer.bridged_ms = transfer.bridged_ms.map(|_| 45_000)) as fn(&mut Transfer),
            "[[queue]] wait_default_s",
        ),
        (|transfer| transfer.ring_ms = 40_000, "[[agent]] ring_timeout_s, [[queue]] overflow_after_s"),
        (|transfer| transfer.abandoned_ms = transfer.abandoned_ms.map(|_| 2_000), "transition message"),
        (|transfer| transfer.played_pm = Some(400), "transition message"),
    ] {
        let card = only(&rows(2_000, 200, |n| leaving(n, change)));
        assert_eq!((card.layer, card.knobs[0].setting), ("hold", setting));
    }
}

#[test]
fn a_layer_whose_telemetry_is_healthy_is_not_blamed() {
    for (planted, rows) in [
        ("resolution", rows(2_000, 200, |n| unresolved(n, |_| ()))),
        ("handle time", rows(2_000, 200, |n| slow(n, |_| ()))),
        ("abandonment", rows(2_000, 200, |n| leaving(n, |_| ()))),
    ] {
        let card = only(&rows);
        assert_eq!((card.layer, card.knobs.len()), (UNEXPLAINED, 0), "{planted}: {card:#?}");
        assert!(card.checks.len() >= 3 && card.checks.iter().all(|found| !found.sick), "{planted}");
    }
}

#[test]
fn a_layer_of_which_nothing_is_known_is_not_blamed_either() {
    let card = only(&rows(2_000, 200, |n| {
        unresolved(n, |transfer| {
            (transfer.completeness_pm, transfer.template, transfer.offers) = (None, None, 0);
        })
    }));
    assert_eq!(card.layer, UNEXPLAINED);
    assert!(card.checks.iter().all(|found| found.value.is_none() && !found.sick));
}

#[test]
fn ninety_nine_cases_raise_no_card() {
    assert_eq!(cards(&rows(99, 99, healthy), None), []);
    for make in [
        (|n| unresolved(n, |transfer| transfer.completeness_pm = Some(0))) as fn(u64) -> Transfer,
        |n| slow(n, |transfer| transfer.pop_skew_ms = None),
        |n| leaving(n, |transfer| transfer.dead_air_ms = Some(9_000)),
    ] {
        assert_eq!(cards(&rows(2_000, 99, make), Some(&direct())), []);
    }
}

#[test]
fn conversations_that_all_end_at_forty_seconds_lead_to_the_line() {
    let cut = |n: u64| Transfer {
        life_ms: Some(if n.is_multiple_of(2) { 40_000 + n } else { 170_000 }),
        queue: if n % 4 == 3 { "queue_fine" } else { "queue_care" }.to_owned(),
        ..healthy(n)
    };
    let card = only(&rows(2_000, 40, cut));
    assert_eq!((card.signal, card.layer), (Signal::LifeAfterBridge, rules::LINE_LAYER));
    assert_eq!((card.queue.as_deref(), card.n, card.value), (Some("queue_care"), 30, 667));
    assert_eq!(card.knobs, [rules::LINE]);

    // As many short ones that end at any time are people who are quick.
    let quick = |n: u64| Transfer {
        life_ms: Some(if n.is_multiple_of(2) { 1_400 * n } else { 170_000 }),
        ..healthy(n)
    };
    assert_eq!(only(&rows(2_000, 40, quick)).layer, UNEXPLAINED);
    assert_eq!(cards(&rows(2_000, 19, |n| Transfer { life_ms: Some(40_000), ..healthy(n) }), None), []);
}

/// A setting is a table of the configuration or of the policy with its keys, or says in words
/// what is outside of both.
#[test]
fn every_setting_that_a_card_names_exists() {
    let configured = concat!(
        include_str!("../../../../warmbridge.example.toml"),
        include_str!("../../../policies/default.toml"),
        include_str!("../../payload/catalog.rs")
    );
    let figures = Figures::of(&rows(10, 5, healthy), ALWAYS, None, LATER);
    let of_rules =
        RULES.iter().flat_map(|rule| rule.checks.iter().filter_map(|check| (check.knob)(&figures)));
    let knobs = of_rules.chain(Category::ALL.map(rules::knob_of)).chain([rules::LINE]);
    for Knob { setting, direction } in knobs {
        assert!(!direction.is_empty());
        for word in setting.split([' ', ',']).filter(|word| word.starts_with("[[") || word.contains('_')) {
            let known = word == "[[payload.intent]]" || configured.contains(word);
            assert!(known, "{setting}: {word}");
        }
    }
    assert!(RULES.iter().all(|rule| !rule.layer.is_empty() && rule.checks.len() >= 2));
}
