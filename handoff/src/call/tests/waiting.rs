//! A caller who waits, as others see it, and people who do not take the call.

use super::*;

#[test]
fn a_caller_who_waits_is_seen_with_queue_reason_and_person_until_the_bridge() {
    let bench = Bench::offering();
    let waiting = bench.call.waiting().unwrap();
    assert_eq!((waiting.queue.as_str(), waiting.attempt), ("nurse_line", 1));
    assert_eq!(waiting.offered_to, Some(person("ann")));
    assert_eq!(waiting.transfer, bench.transfer());
    assert_eq!(Bench::talking().call.waiting(), None);
    assert_eq!(Bench::bridged().call.waiting(), None);
}

#[test]
fn the_record_says_why_a_person_declined() {
    for reason in [DeclineReason::Declined, DeclineReason::Busy, DeclineReason::WrongTeam] {
        let mut bench = Bench::offering();
        let transfer = bench.transfer();
        bench.put(Input::Decline { agent: person("ann"), transfer, means: Means::Api, reason });
        let recorded =
            |fact: &&Fact| matches!(fact, Fact::AgentDeclined { reason: why, .. } if *why == reason);
        assert_eq!(bench.facts().into_iter().filter(recorded).count(), 1, "{reason:?}");
        assert!(bench.has("FindTarget(-1)"), "whatever the reason, the next person is tried at once");
    }
}

#[test]
fn a_directory_that_never_answers_is_waited_for_two_seconds() {
    let mut bench = Bench::draining();
    assert!(bench.has("FindTarget(-0)"), "{:?}", names(&bench.last));
    bench.run(1_999);
    assert_eq!(bench.count("fallback.taken"), 0);
    bench.run(1);
    assert_eq!(bench.count("fallback.taken"), 1, "the chain begins, as if nobody were there");
}

#[test]
fn an_answer_of_a_phone_that_was_given_up_is_not_taken_for_that_of_the_next() {
    let mut bench = Bench::calling();
    bench.run(20_000).find(target("bob"));
    bench.answered(HUMAN);
    assert_eq!(bench.count("agent.answered"), 0);
    bench.answered(LegId(HUMAN.0 + 1));
    assert_eq!(bench.count("agent.answered"), 1);
}

#[test]
fn a_second_reason_joins_the_first_and_does_not_move_its_deadline() {
    let mut bench = Bench::expecting();
    bench.run(700).put(Input::Media(MediaReport::Digit { leg: LegId::CALLER, digit: '0' }));
    bench.run(100);
    assert_eq!(bench.count("transfer.decided"), 1, "800 ms after the first reason");
    let decided = bench.facts().into_iter().find_map(|fact| match fact {
        Fact::TransferDecided { decision, .. } => Some(decision.trigger.clone()),
        _ => None,
    });
    assert_eq!(decided.unwrap().also.len(), 1, "the other reason is named beside it");
}

#[test]
fn a_whisper_whose_end_is_never_reported_holds_the_bridge_for_three_seconds_at_most() {
    let mut bench = Bench::briefing();
    bench.after(500).key(HUMAN, '1').acked("ann", 1).run(2_999);
    assert_eq!(bench.call.standing().phase, Some(Phase::Barrier));
    bench.run(1);
    assert_eq!(bench.call.standing().phase, Some(Phase::Bridged));
}
