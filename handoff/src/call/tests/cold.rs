//! The cold mode: the person is told nothing before the caller is there, a yes is asked all
//! the same, and the records are those of a warm transfer.

use super::*;

/// The caller is on the hold bed, a phone of a cold queue rings.
fn ringing(target: Target) -> Bench {
    let mut rules = rules();
    rules.queues[0].mode = Mode::Cold;
    let mut bench = Bench::talking_with(rules);
    bench.at(20_000).decide().find(target);
    bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    bench.put(Input::Ringing { leg: HUMAN });
    bench.run(6_000).played(LegId::CALLER);
    bench
}

/// What the desktop was sent, but for the ring and the ends.
fn shown(bench: &Bench) -> usize {
    let tells = |output: &&Output| {
        matches!(output, Output::Desktop { push: DesktopPush::Card { .. } | DesktopPush::Caption { .. }, .. })
    };
    bench.all.iter().filter(tells).count()
}

fn is_cold_and_bridged(bench: &Bench, what: &str) {
    for (fact, count) in [("agent.accepted", 1), ("bridge.completed", 1), ("payload.built", 1)] {
        assert_eq!(bench.count(fact), count, "{what}: {fact}");
    }
    assert_eq!((bench.count("whisper.started"), bench.count("whisper.ended")), (0, 0), "{what}");
    assert_eq!(shown(bench), 0, "{what}");
}

#[test]
fn a_yes_by_key_connects_at_once_and_nothing_is_told_before() {
    for trusted in [true, false] {
        let mut bench = ringing(Target { trusted, ..target("ann") });
        bench.after(2_000).answered(HUMAN);
        assert!(bench.play_at(HUMAN).is_some(), "the person is asked for the key");
        bench.after(1_000).key(HUMAN, '1');
        is_cold_and_bridged(&bench, "by key");
        bench.after(5).flows(HUMAN).run(30_000);
        assert_eq!(bench.outcome(), Some((Outcome::Completed, FallbackTaken::None)));
    }
}

#[test]
fn a_trusted_phone_that_accepts_by_answering_is_connected_when_it_answers() {
    let mut bench = ringing(Target { trusted: true, accept_on_answer: true, ..target("ann") });
    bench.after(2_000).answered(HUMAN);
    is_cold_and_bridged(&bench, "by answering");
}

#[test]
fn a_payload_that_was_there_before_anybody_was_found_is_not_shown() {
    let mut rules = rules();
    rules.queues[0].mode = Mode::Cold;
    let mut bench = Bench::talking_with(rules);
    bench.at(20_000).decide().run(1_000);
    assert_eq!(bench.count("payload.built"), 1);
    bench.find(target("ann"));
    assert_eq!(shown(&bench), 0);
}

#[test]
fn a_payload_that_comes_later_is_not_shown_either() {
    let mut bench = ringing(target("ann"));
    bench.after(2_000).answered(HUMAN);
    let transfer_id = bench.transfer();
    bench.command(CommandBody::PayloadReady { transfer_id, payload: Box::new(brief::tests::revision(2)) });
    assert_eq!(shown(&bench), 0);
}

#[test]
fn a_machine_says_no_yes_and_the_caller_is_not_given_to_it() {
    let mut bench = ringing(target("ann"));
    bench.after(2_000).answered(HUMAN).played(HUMAN).run(60_000);
    assert_eq!((bench.count("agent.accepted"), bench.count("bridge.completed")), (0, 0));
}
