//! Numbers said over several turns, and payments: what leaves a call never shows a card.

use super::*;
use crate::redact::holdback::{HOLD_MAX, PAYMENT_MAX};
use crate::signal::{PAYMENT_BEGINS, PAYMENT_ENDS, Speaker};

fn turn(id: &str, speaker: Speaker, text: &str) -> Input {
    Input::Signal(Signal {
        id: id.to_owned(),
        at_ms: None,
        body: SignalBody::Turn {
            speaker,
            text: Pii::new(text.to_owned()),
            turn: None,
            confidence_pm: None,
            interrupted: false,
        },
    })
}

fn caller(id: &str, text: &str) -> Input {
    turn(id, Speaker::Caller, text)
}

fn tool(id: &str, name: &str) -> Input {
    let body = SignalBody::Tool { name: name.to_owned(), ok: None };
    Input::Signal(Signal { id: id.to_owned(), at_ms: None, body })
}

/// The texts that were recorded, with when they were said.
fn recorded(bench: &Bench) -> Vec<(u64, String)> {
    let utterance = |fact: &Fact| match fact {
        Fact::Utterance { offset_ms, text, .. } => Some((*offset_ms, text.clone()?.into_exposed())),
        _ => None,
    };
    bench.facts().into_iter().filter_map(utterance).collect()
}

/// Everything that left the call, as text: facts, snapshots, contexts, payloads, plans.
fn left(bench: &Bench) -> String {
    let exposed = |output: &Output| match output {
        Output::Emit { fact, evaluable, .. } => {
            format!("{}{}", serde_json::to_string(fact).unwrap(), serde_json::to_string(evaluable).unwrap())
        }
        Output::Desktop { push: DesktopPush::Card { payload, .. }, .. } => {
            serde_json::to_string(payload).unwrap()
        }
        Output::Desktop { push: DesktopPush::Caption { text, .. }, .. } => text.expose().clone(),
        Output::PublishDecision { evaluable, .. } => serde_json::to_string(evaluable).unwrap(),
        _ => String::new(),
    };
    bench.all.iter().map(exposed).collect()
}

#[test]
fn a_card_number_over_three_turns_leaves_only_as_its_class() {
    let mut bench = Bench::talking();
    bench.at(10_000).put(caller("t1", "my card is 4111 1111"));
    assert_eq!(names(&bench.last), Vec::<String>::new(), "nothing leaves before the number is known");
    bench.after(1_000).put(turn("t2", Speaker::Agent, "Go on."));
    bench.after(1_000).put(caller("t3", "one one one one"));
    bench.after(1_000).put(caller("t4", "1111"));
    bench.after(1_000).put(turn("t5", Speaker::Agent, "Thank you, I have it."));
    let expected = [
        (9_900, "my card is [PAN]"),
        (10_900, "Go on."),
        (11_900, "[PAN]"),
        (12_900, "[PAN]"),
        (13_900, "Thank you, I have it."),
    ];
    assert_eq!(recorded(&bench), expected.map(|(at, text)| (at, text.to_owned())));
    bench.put(caller("t6", "give me a person"));
    bench.run(1_000).find(target("ann")).run(30_000);
    assert!(!bench.facts().is_empty() && bench.count("transfer.decided") == 1);
    let left = left(&bench);
    assert!(left.contains("[PAN]") && !left.contains("1111") && !left.contains("one one"), "{left}");
    assert!(bench.call.context().redactions.contains(&("PAN".to_owned(), 1)));
}

#[test]
fn a_harmless_number_leaves_whole_after_its_time() {
    let mut bench = Bench::talking();
    bench.at(10_000).put(caller("t1", "my order is 88417"));
    let hold_ms = u64::try_from(HOLD_MAX.as_millis()).unwrap();
    bench.run(hold_ms - 1);
    assert!(recorded(&bench).is_empty());
    bench.run(1);
    assert_eq!(recorded(&bench), [(9_900, "my order is 88417".to_owned())]);
}

#[test]
fn a_call_that_ends_while_a_turn_is_held_records_it() {
    let mut bench = Bench::talking();
    bench.at(10_000).put(caller("t1", "4111 1111")).put(caller("t2", "1111 1111"));
    bench.ended(LegId::CALLER, LegCause::RemoteHangUp).all_legs_end().balanced();
    let texts: Vec<String> = recorded(&bench).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["[PAN]", "[PAN]"]);
}

#[test]
fn a_repeated_signal_of_a_held_turn_is_taken_once() {
    let mut bench = Bench::talking();
    bench.at(10_000).put(caller("t1", "my order is 88417")).put(caller("t1", "my order is 88417"));
    bench.run(10_000).put(caller("t1", "my order is 88417")).run(10_000);
    assert_eq!(recorded(&bench).len(), 1);
}

#[test]
fn a_corrected_turn_is_held_once_as_corrected() {
    let mut bench = Bench::talking();
    let said = |id: &str, text: &str| {
        let Input::Signal(mut signal) = caller(id, text) else { unreachable!() };
        if let SignalBody::Turn { turn, .. } = &mut signal.body {
            *turn = Some("item_1".to_owned());
        }
        Input::Signal(signal)
    };
    bench.at(10_000).put(said("t1", "order 8841")).put(said("t2", "order 88417"));
    bench.run(10_000);
    assert_eq!(recorded(&bench), [(9_900, "order 88417".to_owned())]);
}

#[test]
fn who_asks_for_a_person_does_not_wait_for_the_end_of_a_number() {
    let mut bench = Bench::talking();
    bench.at(10_000).put(caller("t1", "give me a person, my card is 4111 1111"));
    assert_eq!(recorded(&bench), [(9_900, "give me a person, my card is [PAN]".to_owned())]);
    bench.run(800);
    assert_eq!(bench.count("transfer.decided"), 1);
    bench.put(caller("t2", "1111 1111")).run(20_000);
    assert!(!left(&bench).contains("1111"));
}

#[test]
fn a_payment_pauses_every_recording_and_takes_every_number_out() {
    let mut bench = Bench::talking();
    bench.at(10_000).put(tool("p1", PAYMENT_BEGINS));
    assert!(bench.has("Record(leg-0 off)") && bench.has("Record(leg-1 off)"));
    assert_eq!(bench.count("recording.paused"), 2);
    bench.after(1_000).put(caller("t1", "it is 4111 1112 and the code is"));
    bench.after(1_000).put(caller("t2", "one two three"));
    // The same signal again begins no second payment.
    bench.after(1_000).put(tool("p2", PAYMENT_ENDS)).put(tool("p1", PAYMENT_BEGINS));
    assert!(bench.has("Record(leg-0 on)") || bench.count("recording.resumed") == 2);
    assert_eq!((bench.count("recording.paused"), bench.count("recording.resumed")), (2, 2));
    bench.put(caller("t3", "is that all?"));
    let left = left(&bench);
    assert!(!left.contains("1112") && !left.contains("two"), "{left}");
    bench.ended(LegId::CALLER, LegCause::RemoteHangUp).all_legs_end().balanced();
}

#[test]
fn a_payment_that_nobody_ends_ends_by_itself_before_the_longest_pause() {
    let mut bench = Bench::talking();
    bench.at(10_000).put(tool("p1", PAYMENT_BEGINS));
    let limit_ms = u64::try_from(PAYMENT_MAX.as_millis()).unwrap();
    bench.run(limit_ms - 1);
    assert_eq!(bench.count("recording.resumed"), 0);
    bench.run(1);
    assert_eq!(bench.count("recording.resumed"), 2);
}

#[test]
fn a_person_who_answers_during_a_payment_is_recorded_from_its_end() {
    let mut bench = Bench::offering();
    bench.put(tool("p1", PAYMENT_BEGINS));
    bench.run(2_000).answered(HUMAN);
    assert!(!bench.has("Record(leg-2 on)"));
    bench.put(tool("p2", PAYMENT_ENDS));
    assert!(bench.has("recording.started") && bench.has("Record(leg-2 on)"));
}

/// Positions of the first turn of the voice agent and of the disclosure among the facts.
fn order(bench: &Bench) -> (Option<usize>, Option<usize>) {
    let facts = bench.facts();
    let spoke = facts.iter().position(|fact| matches!(fact, Fact::Utterance { speaker: Speaker::Agent, .. }));
    (spoke, facts.iter().position(|fact| matches!(fact, Fact::DisclosureAi(_))))
}

#[test]
fn what_the_voice_agent_says_before_the_disclosure_ends_is_recorded_behind_it() {
    let mut bench = Bench::disclosing();
    bench.at(200).answered(LegId::VOICE_AGENT);
    bench.at(1_000).put(turn("g1", Speaker::Agent, "Good morning, how can I help?"));
    bench.put(turn("g1", Speaker::Agent, "Good morning, how can I help?"));
    assert_eq!(names(&bench.last), Vec::<String>::new());
    bench.at(2_000).put(caller("t1", "hello"));
    assert_eq!(recorded(&bench).len(), 1, "the caller is heard at once");
    bench.at(5_000).played(LegId::CALLER);
    let (spoke, disclosed) = order(&bench);
    assert!(spoke > disclosed && disclosed.is_some(), "{:?}", names(&bench.all));
    assert_eq!(recorded(&bench).len(), 2);
}

#[test]
fn a_greeting_that_nobody_heard_is_not_recorded() {
    let mut bench = Bench::disclosing();
    bench.at(200).answered(LegId::VOICE_AGENT).put(turn("g1", Speaker::Agent, "Good morning"));
    bench.at(1_000).ended(LegId::CALLER, LegCause::RemoteHangUp).all_legs_end().balanced();
    assert_eq!(order(&bench).0, None);
}

#[test]
fn a_disclosure_that_is_cut_by_danger_is_recorded_before_what_the_voice_agent_said() {
    let mut bench = Bench::disclosing();
    bench.at(200).answered(LegId::VOICE_AGENT).put(turn("g1", Speaker::Agent, "Good morning"));
    let mut decision = bench.decision();
    decision.trigger.waives_waits = true;
    bench.at(1_000).command(CommandBody::TransferDecided { decision }).report_cut().run(1_000);
    let (spoke, disclosed) = order(&bench);
    assert!(spoke > disclosed && disclosed.is_some(), "{:?}", names(&bench.all));
}
