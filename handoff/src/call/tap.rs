//! The transcript tap: every turn goes through the hold-back before the record, the policy or
//! a payload sees it, because a card number that is said over several turns is known only at
//! its end. What the voice agent says while the caller still hears the disclosure waits too,
//! as its audio does: it is heard, and recorded, behind the disclosure. What cannot wait for that (a caller in danger, or one who asks for a person) goes
//! out at once, without its numbers. The voice agent's tools begin and end a payment.

use std::collections::{BTreeMap, VecDeque};

use crate::call::State;
use crate::call::core::{Core, Recent};
use crate::call::talk;
use crate::clock::{Moment, Now};
use crate::conversation::{Stimulus, TransferStanding, Turn};
use crate::pii::Pii;
use crate::redact::holdback::{HoldBack, Input, Output};
use crate::redact::{self, Level};
use crate::signal::{PAYMENT_BEGINS, PAYMENT_ENDS, Signal, SignalBody, Speaker};

/// Most turns of the voice agent that wait for the end of the disclosure: it takes some seconds
/// and is played twice at most. One more goes through at once, and the record shows it.
const EARLY_MAX: usize = 16;

/// The hold-back of one call, and the signals whose turns it has.
#[derive(Debug)]
pub(super) struct Tap {
    machine: HoldBack,
    /// By the number that the turn has in the machine. As many as the machine holds.
    waiting: BTreeMap<u32, Heard>,
    turns: u32,
    /// Turns of the voice agent that the caller will hear after the disclosure.
    early: VecDeque<Signal>,
    /// A turn that came may be gone from `waiting` and unknown to the conversation.
    ids: Recent,
}

/// A turn that came, with what its signal says besides the text.
#[derive(Debug)]
struct Heard {
    said: Moment,
    signal: Signal,
}

impl Tap {
    pub(super) fn new() -> Self {
        let machine = HoldBack::new(Level::R1Pci);
        Self { machine, waiting: BTreeMap::new(), turns: 0, early: VecDeque::new(), ids: Recent::default() }
    }

    /// The next deadline.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.machine.next_timeout()
    }

    /// The number of a turn: its own, or that of the turn which it corrects.
    fn number(&mut self, item: Option<&str>) -> u32 {
        let corrects = |heard: &Heard| {
            let SignalBody::Turn { turn, .. } = &heard.signal.body else { return false };
            item.is_some() && turn.as_deref() == item
        };
        let known = self.waiting.iter().find(|(_, heard)| corrects(heard)).map(|(number, _)| *number);
        known.unwrap_or_else(|| {
            self.turns = self.turns.saturating_add(1);
            self.turns
        })
    }
}

/// A finished turn came.
pub(super) fn turn(
    core: &mut Core,
    state: State,
    signal: &Signal,
    speaker: Speaker,
    text: &Pii<String>,
    item: Option<&str>,
) -> State {
    if !core.tap.ids.insert(&signal.id) {
        return state;
    }
    if speaker == Speaker::Agent && !core.disclosure_recorded && core.tap.early.len() < EARLY_MAX {
        core.tap.early.push_back(signal.clone());
        return state;
    }
    take(core, state, signal, speaker, text, item)
}

fn take(
    core: &mut Core,
    state: State,
    signal: &Signal,
    speaker: Speaker,
    text: &Pii<String>,
    item: Option<&str>,
) -> State {
    let number = core.tap.number(item);
    core.tap.waiting.insert(number, Heard { said: core.at, signal: signal.clone() });
    let turn = Turn { segment: number, speaker, text: text.clone(), at_ms: core.offset_ms(core.at.now) };
    let state = give(core, state, Input::Turn(turn));
    if core.tap.waiting.contains_key(&number) && cannot_wait(core, &state, speaker, text) {
        return give(core, state, Input::Hurry);
    }
    state
}

/// A tool of the voice agent ran; two of them begin and end a payment.
pub(super) fn tool(core: &mut Core, state: State, name: &str) -> State {
    match name {
        PAYMENT_BEGINS => give(core, state, Input::PaymentStarted),
        PAYMENT_ENDS => give(core, state, Input::PaymentEnded),
        _ => state,
    }
}

/// A deadline may have come.
pub(super) fn tick(core: &mut Core, state: State) -> State {
    let due = core.tap.next_timeout().is_some_and(|due| due <= core.at.now);
    if due { give(core, state, Input::Timeout) } else { state }
}

/// What follows from any transition: once the disclosure is recorded, what the voice agent said
/// meanwhile comes behind it; once nothing more is said, what is held goes out, and a payment
/// is over.
pub(super) fn settle(core: &mut Core, mut state: State) -> State {
    if core.disclosure_recorded {
        for signal in std::mem::take(&mut core.tap.early) {
            if let SignalBody::Turn { speaker, text, turn, .. } = &signal.body {
                state = take(core, state, &signal, *speaker, text, turn.as_deref());
            }
        }
    }
    let over = matches!(state, State::Closing { .. } | State::Ending(_));
    if over && core.tap.next_timeout().is_some() { give(core, state, Input::Flush) } else { state }
}

fn give(core: &mut Core, mut state: State, input: Input) -> State {
    for output in core.tap.machine.handle(core.at.now, input) {
        match output {
            Output::Release { turn, counts } => {
                let Some(Heard { said, mut signal }) = core.tap.waiting.remove(&turn.segment) else {
                    continue;
                };
                if let SignalBody::Turn { text, .. } = &mut signal.body {
                    *text = turn.text;
                }
                core.conversation.record_redactions(&counts);
                state = talk::heed(core, state, said, &signal);
            }
            Output::Payment { on } => core.paying = on,
        }
    }
    state
}

/// Whether a turn that is held fires a rule which the edge itself obeys. This look does not
/// leave the machine.
fn cannot_wait(core: &Core, state: &State, speaker: Speaker, text: &Pii<String>) -> bool {
    if !matches!(state, State::Disclosing(_) | State::WithVoiceAgent(_)) {
        return false;
    }
    let snapshot = core.conversation.snapshot(core.at.now, TransferStanding::None);
    let text = Pii::new(redact::pci(text.expose()).text);
    let fired = core.rules.policy.evaluate(&snapshot, &Stimulus::Turn { speaker, text });
    fired.is_some_and(|trigger| trigger.mandatory)
}
