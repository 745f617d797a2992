//! The labelled corpus of turns against the built-in policy and the promise detector:
//! precision and recall of each, printed and held above a floor. The patterns were tuned on
//! the corpus: the figures show a step back, not the accuracy on real calls.

use std::collections::BTreeMap;

use handoff::clock::{Moment, Now, Timestamp};
use handoff::conversation::{CallerIdentity, Conversation, TransferStanding};
use handoff::pii::Pii;
use handoff::policy::{Category, Policy};
use handoff::signal::{Signal, SignalBody, Speaker};

/// Below this a change of phrases is a step back.
const FLOOR: f64 = 0.95;

/// Every detector that finds something in one turn.
fn found(policy: &Policy, detector: &str, text: &str) -> bool {
    let at = Moment { now: Now::from_millis(1_000), wall: Timestamp::from_unix_millis(0) };
    let mut conversation =
        Conversation::new(at, CallerIdentity::default(), None, policy.version().to_owned());
    let speaker = if detector == "promise" { Speaker::Agent } else { Speaker::Caller };
    let body = SignalBody::Turn {
        speaker,
        text: Pii::new(text.to_owned()),
        turn: None,
        confidence_pm: None,
        interrupted: false,
    };
    let stimulus = conversation.apply(at, &Signal { id: "s".to_owned(), at_ms: None, body });
    let snapshot = conversation.snapshot(at.now, TransferStanding::None);
    if detector == "promise" {
        return snapshot.promise_age_ms.is_some();
    }
    let category = Category::ALL.into_iter().find(|category| category.as_str() == detector);
    policy.evaluate(&snapshot, &stimulus).is_some_and(|trigger| {
        Some(trigger.category) == category || trigger.also.iter().any(|other| other.starts_with(detector))
    })
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures of the corpus are the point of the test")]
fn every_detector_reaches_its_floor_of_precision_and_recall() {
    let policy = Policy::default();
    let mut counts: BTreeMap<String, [u32; 4]> = BTreeMap::new();
    let mut wrong = String::new();
    let lines = include_str!("data/phrases.tsv").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let columns: Vec<&str> = line.split('\t').collect();
        let [detector, lang, expected, text] = columns[..] else { panic!("four columns: {line}") };
        let (expected, found) = (expected == "yes", found(&policy, detector, text));
        let cell = match (expected, found) {
            (true, true) => 0,
            (false, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
        };
        for key in [detector.to_owned(), format!("{detector} {lang}")] {
            counts.entry(key).or_default()[cell] += 1;
        }
        if expected != found {
            wrong.push_str(&format!("expected {expected}: {line}\n"));
        }
    }
    let mut below = Vec::new();
    for (key, [hits, false_alarms, misses, rests]) in &counts {
        let ratio = |part: u32, whole: u32| if whole == 0 { 1.0 } else { f64::from(part) / f64::from(whole) };
        let (precision, recall) = (ratio(*hits, hits + false_alarms), ratio(*hits, hits + misses));
        println!(
            "{key:<20} precision {precision:.3} recall {recall:.3} (n = {})",
            hits + false_alarms + misses + rests
        );
        if !key.contains(' ') && (precision < FLOOR || recall < FLOOR) {
            below.push(key.clone());
        }
    }
    println!("{wrong}");
    assert!(below.is_empty(), "below {FLOOR}: {below:?}\n{wrong}");
    assert!(counts.values().flatten().sum::<u32>() / 2 >= 120, "the corpus is too small to mean anything");
}
