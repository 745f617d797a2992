//! Who decides that a person takes over. Every stimulus is recorded with all that somebody
//! else needs to judge it; where a mandatory rule fires here and nobody else decides in
//! time, the same policy is obeyed by the edge itself. One decision per transfer: a second
//! reason joins the first.

use crate::call::State;
use crate::call::core::Core;
use crate::call::transfer::{self, Adoption};
use crate::call::{ALSO_MAX, EDGE_FALLBACK};
use crate::clock::Now;
use crate::conversation::{Snapshot, Stimulus, TransferStanding};
use crate::event::{Evaluable, Fact};
use crate::id::DecisionId;
use crate::policy::{Decision, Origin, Trigger};

/// The edge's own policy fired a mandatory rule: somebody else's decision is awaited, and
/// taken here when it does not come.
#[derive(Debug)]
pub(super) struct Expected {
    trigger: Trigger,
    evaluable: Box<Evaluable>,
    until: Now,
}

impl Expected {
    /// When the edge decides itself.
    pub(super) const fn until(&self) -> Now {
        self.until
    }
}

/// Records a stimulus with all that is needed to judge it elsewhere, and judges it here.
pub(super) fn stimulate(core: &mut Core, mut state: State, stimulus: Stimulus, fact: Fact) -> State {
    let (standing, transfer_id) = match &state {
        State::Transferring(_) | State::FallingBack(_) => (TransferStanding::Active, core.last_transfer()),
        State::Bridged(_) => (TransferStanding::Bridged, core.last_transfer()),
        State::Arriving { .. }
        | State::Disclosing(_)
        | State::WithVoiceAgent(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => (TransferStanding::None, core.next_transfer()),
    };
    let mut evaluable = core.evaluable(stimulus, standing, transfer_id);
    let fired = core
        .rules
        .policy
        .evaluate(&evaluable.snapshot, &evaluable.stimulus)
        .filter(|_| standing == TransferStanding::None);
    if fired.is_some() {
        evaluable.context = Some(core.conversation.context());
    }
    let evaluable = Box::new(evaluable);
    core.emit_with(fact, Some(evaluable.clone()));
    if let Some(trigger) = fired.filter(|trigger| trigger.mandatory) {
        let until = core.at.now + EDGE_FALLBACK;
        if let Some(expected) = expected_in(&mut state, trigger.waives_waits) {
            expect(expected, trigger, evaluable, until);
        }
    }
    state
}

/// Where a state awaits a decision. One that has its decision awaits no other, except one
/// that waives the wait for the disclosure.
fn expected_in(state: &mut State, waives_waits: bool) -> Option<&mut Option<Box<Expected>>> {
    match state {
        State::Disclosing(disclosing) => {
            (disclosing.ready.is_none() || waives_waits).then_some(&mut disclosing.expected)
        }
        State::WithVoiceAgent(conversing) => Some(&mut conversing.expected),
        State::Arriving { .. }
        | State::Transferring(_)
        | State::FallingBack(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => None,
    }
}

/// Nobody else decided in time: the edge's own decision.
pub(super) fn tick(core: &mut Core, mut state: State) -> State {
    let now = core.at.now;
    let due =
        expected_in(&mut state, true).and_then(|expected| expected.take_if(|expected| now >= expected.until));
    match due {
        Some(expected) => {
            let Expected { trigger, evaluable, .. } = *expected;
            let adoption = adopt_own(core, trigger, evaluable);
            decided(core, state, adoption)
        }
        None => state,
    }
}

/// The edge needs a person for the caller now. What the caller needs may be known already,
/// and then names the decision better than `trigger` does.
pub(super) fn decide_now(core: &mut Core, mut state: State, trigger: Trigger, stimulus: Stimulus) -> State {
    let known = expected_in(&mut state, true).and_then(Option::take);
    let adoption = match known {
        Some(known) => adopt_own(core, known.trigger, known.evaluable),
        None => own_decision(core, trigger, stimulus),
    };
    decided(core, state, adoption)
}

/// Takes back the transfer that is awaited, or that waits for the disclosure. It has used up
/// its number, so that somebody else's decision on it comes too late. `false` where there is
/// none.
pub(super) fn withdraw(core: &mut Core, mut state: State) -> (State, bool) {
    let awaited = expected_in(&mut state, true).and_then(Option::take).is_some();
    let ready = match &mut state {
        State::Disclosing(disclosing) => disclosing.ready.take().is_some(),
        State::Arriving { .. }
        | State::WithVoiceAgent(_)
        | State::Transferring(_)
        | State::FallingBack(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => false,
    };
    if awaited || ready {
        core.transfers += 1;
    }
    (state, awaited || ready)
}

/// The voice agent takes its request back before anybody has decided on it. What the caller
/// said or did stays a reason.
pub(super) fn request_withdrawn(core: &mut Core, mut state: State) -> State {
    let own = expected_in(&mut state, true).and_then(|expected| expected.as_ref()).is_some_and(|expected| {
        matches!(expected.evaluable.stimulus, Stimulus::Requested { .. }) && expected.trigger.also.is_empty()
    });
    if own { withdraw(core, state).0 } else { state }
}

/// A second trigger joins the first: the stronger names the decision, a safety rule waives
/// every wait, and the deadline stays that of the first.
fn expect(expected: &mut Option<Box<Expected>>, trigger: Trigger, evaluable: Box<Evaluable>, until: Now) {
    let Some(known) = expected else {
        *expected = Some(Box::new(Expected { trigger, evaluable, until }));
        return;
    };
    let waives_waits = known.trigger.waives_waits || trigger.waives_waits;
    let joined = if trigger.category < known.trigger.category {
        let weaker = std::mem::replace(&mut known.trigger, trigger);
        known.evaluable = evaluable;
        weaker
    } else {
        trigger
    };
    let name = format!("{}:{}", joined.category.as_str(), joined.rule_id);
    if !known.trigger.also.contains(&name) && known.trigger.also.len() < ALSO_MAX {
        known.trigger.also.push(name);
    }
    known.trigger.waives_waits = waives_waits;
}

/// A decision came, or was taken here. It starts the transfer, or waits for the disclosure.
pub(super) fn decided(core: &mut Core, state: State, adoption: Adoption) -> State {
    match state {
        State::Disclosing(mut disclosing) if !adoption.decision.trigger.waives_waits => {
            disclosing.expected = None;
            disclosing.ready.get_or_insert_with(|| Box::new(adoption));
            State::Disclosing(disclosing)
        }
        State::Disclosing(_) | State::WithVoiceAgent(_) => transfer::begin(core, adoption),
        State::Arriving { .. }
        | State::Transferring(_)
        | State::FallingBack(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => state,
    }
}

/// A decision of the edge's own for the next transfer.
pub(super) fn own_decision(core: &mut Core, trigger: Trigger, stimulus: Stimulus) -> Adoption {
    let transfer_id = core.next_transfer();
    let mut evaluable = core.evaluable(stimulus, TransferStanding::None, transfer_id.clone());
    evaluable.context = Some(core.conversation.context());
    adopt_own(core, trigger, Box::new(evaluable))
}

/// Records that the edge evaluated the policy itself, and turns the result into a decision.
fn adopt_own(core: &mut Core, trigger: Trigger, evaluable: Box<Evaluable>) -> Adoption {
    let policy_version = core.rules.policy.version().to_owned();
    core.emit(Fact::TriggerEvaluated {
        trigger: trigger.clone(),
        ruleset: policy_version.clone(),
        inputs: inputs(&evaluable.snapshot),
    });
    let transfer_id = core.next_transfer();
    let decision = Decision {
        decision_id: DecisionId::of(&transfer_id),
        transfer_id,
        call_id: core.arrival.call.clone(),
        trigger,
        policy_version,
        origin: Origin::EdgeFallback,
    };
    Adoption { decision, publish: Some(evaluable) }
}

/// The numbers of a snapshot that a rule can have looked at.
fn inputs(snapshot: &Snapshot) -> Vec<(String, i64)> {
    let number = |name: &str, value: u64| (name.to_owned(), i64::try_from(value).unwrap_or(i64::MAX));
    let mut inputs = vec![
        number("elapsed_ms", snapshot.elapsed_ms),
        number("turns_caller", snapshot.turns_caller.into()),
        number("failed_attempts", snapshot.failed_attempts.into()),
    ];
    inputs.extend(snapshot.confidence_pm.map(|value| number("confidence_pm", value.into())));
    inputs.extend(snapshot.confidence_rolling_pm.map(|value| number("confidence_rolling_pm", value.into())));
    inputs
}
