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
