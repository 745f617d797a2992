//! The storm in small: what `./test storm` plays by the hundred thousand. A few seeds hold the
//! invariants, the same seed is the same run, and a planted bug is found, made smaller, and
//! found again in what is left.

use tests::storm::plan::Plan;
use tests::storm::sabotage::{ALL, Bug};
use tests::storm::shrink::shrink;
use tests::storm::sweep;
use tests::storm::world::play;

/// Few enough for a build without optimisation.
const SEEDS: u64 = 256;

#[test]
fn whatever_people_and_networks_do_no_invariant_breaks() {
    let sum = sweep(0, SEEDS, 2, None);
    assert_eq!(sum.seeds, SEEDS);
    assert!(sum.failed.is_none(), "{:?}", sum.failed.map(|(seed, verdict)| (seed, verdict.violations)));
    for fact in
        ["agent.no_answer", "agent.declined", "bridge.completed", "fallback.taken", "caller.abandoned"]
    {
        assert!(sum.facts.contains_key(fact), "the storm never came to {fact}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let digest = |seed| play(&Plan::of(seed), None, false).digest;
    let runs: Vec<u64> = (0..32).map(digest).collect();
    assert_eq!(runs, (0..32).map(digest).collect::<Vec<_>>());
    let mut different = runs.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), runs.len());
}

#[test]
fn a_planted_bug_is_found_and_still_there_in_the_smallest_plan() {
    let sum = sweep(0, SEEDS, 1, Some(Bug::DeadAirAfterBridge));
    let (seed, _) = sum.failed.expect("a violation");
    let whole = Plan::of(seed);
    let small = shrink(&whole, Some(Bug::DeadAirAfterBridge));
    assert!(small.calls.len() <= whole.calls.len() && small.deeds.len() <= whole.deeds.len());
    assert!(!play(&small, Some(Bug::DeadAirAfterBridge), false).violations.is_empty());
    assert!(play(&small, None, false).violations.is_empty(), "it is the bug that breaks it");
}

#[test]
fn every_planted_bug_has_a_name_of_its_own() {
    let mut names: Vec<_> = ALL.iter().map(|(_, name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
    assert!(names.len() >= 20);
}
