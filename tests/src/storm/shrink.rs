//! Makes a failing plan smaller: whatever can be left out while the same invariant is still
//! broken is left out. The same seed and bug always give the same small plan, so one command
//! replays it.

use super::plan::{First, Habit, Net, Plan, Then, When};
use super::sabotage::Bug;
use super::world::play;

/// Passes over the plan at most; each leaves something out or is the last.
const PASSES_MAX: usize = 12;

/// The smallest plan found that breaks the same invariant.
pub fn shrink(plan: &Plan, bug: Option<Bug>) -> Plan {
    let Some(invariant) = broken(plan, bug) else { return plan.clone() };
    let mut best = plan.clone();
    for _ in 0..PASSES_MAX {
        let before = best.clone();
        for candidate in candidates(&best) {
            // Candidates are made from the plan at the start of the pass; each is one step.
            let step = merge(&best, candidate);
            if broken(&step, bug) == Some(invariant) {
                best = step;
            }
        }
        if format!("{before:?}") == format!("{best:?}") {
            break;
        }
    }
    best
}

fn broken(plan: &Plan, bug: Option<Bug>) -> Option<&'static str> {
    play(plan, bug, false).violations.first().map(|violation| violation.invariant)
}

/// One thing that may be left out.
enum Step {
    Deed(usize),
    Call(usize),
    Calm(Net),
    Person,
    Plain(usize, usize),
    Less(usize, fn(&mut Then)),
    Now(usize),
    Simple(fn(&mut Plan)),
}

fn candidates(plan: &Plan) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend((0..plan.deeds.len()).rev().map(Step::Deed));
    steps.extend((0..plan.calls.len()).rev().map(Step::Call));
    steps.push(Step::Calm(Net { delay_ms: 5, ..Net::default() }));
    for net in
        [Net { lost_pm: 0, ..plan.net }, Net { twice_pm: 0, ..plan.net }, Net { jitter_ms: 0, ..plan.net }]
    {
        steps.push(Step::Calm(net));
    }
    steps.extend((1..plan.people.len()).map(|_| Step::Person));
    for (place, person) in plan.people.iter().enumerate() {
        steps.extend((0..person.habits.len()).rev().map(|nth| Step::Plain(place, nth)));
        let less: [fn(&mut Then); 6] = [
            |then| then.bye = None,
            |then| then.vanishes = None,
            |then| then.mute = None,
            |then| then.hold = None,
            |then| then.hand_back = None,
            |then| then.no = None,
        ];
        steps.extend(less.map(|less| Step::Less(place, less)));
    }
    steps.extend((0..plan.deeds.len()).map(Step::Now));
    let simple: [fn(&mut Plan); 9] = [
        |plan| plan.house.reports_ms = 0,
        |plan| plan.house.recording = false,
        |plan| plan.house.hold_by_reinvite = false,
        |plan| plan.house.crm_acknowledges = false,
        |plan| plan.calls.iter_mut().for_each(|call| call.cloud.copies = 1),
        |plan| plan.calls.iter_mut().for_each(|call| call.cloud.payload_ms = None),
        |plan| plan.calls.iter_mut().for_each(|call| call.cloud.crm = None),
        |plan| plan.calls.iter_mut().for_each(|call| call.at_ms = 0),
        |plan| plan.calls.iter_mut().for_each(|call| call.drain_ms = 0),
    ];
    steps.extend(simple.map(Step::Simple));
    steps
}

fn merge(plan: &Plan, step: Step) -> Plan {
    let mut plan = plan.clone();
    match step {
        Step::Deed(index) if index < plan.deeds.len() => drop(plan.deeds.remove(index)),
        Step::Call(place) if plan.calls.len() > 1 && place < plan.calls.len() => {
            plan.calls.remove(place);
            plan.deeds.retain(|deed| deed.call != place);
            for deed in plan.deeds.iter_mut().filter(|deed| deed.call > place) {
                deed.call -= 1;
            }
        }
        Step::Calm(net) => plan.net = net,
        Step::Person if plan.people.len() > 1 => drop(plan.people.pop()),
        Step::Plain(place, nth) => {
            let habits = plan.people.get_mut(place).map(|person| &mut person.habits);
            if let Some(habits) = habits.filter(|habits| habits.len() > 1 && nth < habits.len()) {
                habits.remove(nth);
            } else if let Some(habit) =
                plan.people.get_mut(place).and_then(|person| person.habits.get_mut(nth))
            {
                *habit = Habit { first: First::Rings, then: Then::default(), late: false, forks: false };
            }
        }
        Step::Less(place, less) => {
            if let Some(person) = plan.people.get_mut(place) {
                person.habits.iter_mut().for_each(|habit| less(&mut habit.then));
            }
        }
        Step::Now(index) => {
            if let Some(deed) = plan.deeds.get_mut(index) {
                deed.when = When { after_ms: 0, ..deed.when };
            }
        }
        Step::Simple(change) => change(&mut plan),
        Step::Deed(_) | Step::Call(_) | Step::Person => {}
    }
    plan
}
