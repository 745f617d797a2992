//! The call before (and after) a transfer: the disclosure, the voice agent, its signals,
//! and the decision that starts a transfer. The voice agent asks; the policy decides; where
//! nobody else decides in time, the same policy is obeyed here.

use crate::call::State;
use crate::call::bridge::{adopt_own, own_decision};
use crate::call::core::{Core, VoiceLink};
use crate::call::ending;
use crate::call::io::OnVoiceAgentBye;
use crate::call::media::{Prompt, Purpose};
use crate::call::outcome::LegCause;
use crate::call::transfer::{self, Adoption};
use crate::call::{EDGE_FALLBACK, PROMPT_LIMIT, SIGNAL_NAME_MAX};
use crate::clock::Now;
use crate::conversation::{Stimulus, TransferStanding};
use crate::event::{Evaluable, Fact};
use crate::id::{LegId, PlayId};
use crate::policy::{Category, Trigger};
use crate::signal::{ConfidenceOf, Signal, SignalBody};

/// The disclosure plays.
#[derive(Debug)]
pub(super) struct Disclosing {
    pub(super) play: PlayId,
    /// It was cut once and plays again.
    again: bool,
    until: Now,
    expected: Option<Expected>,
    /// Decided already, waiting for the disclosure to be heard.
    ready: Option<Adoption>,
}

/// Caller and voice agent talk.
#[derive(Debug, Default)]
pub(super) struct Conversing {
    /// What the caller hears before the voice agent again.
    pub(super) notice: Option<Notice>,
    pub(super) expected: Option<Expected>,
}

/// A fixed prompt to a caller who comes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notice {
    pub(super) play: PlayId,
    pub(super) until: Now,
}

/// The edge's own policy fired a mandatory rule: somebody else's decision is awaited, and
/// taken here when it does not come.
#[derive(Debug)]
pub(super) struct Expected {
    trigger: Trigger,
    evaluable: Box<Evaluable>,
    until: Now,
}

impl Disclosing {
    /// The next deadline.
    pub(super) fn next_timeout(&self, core: &Core) -> Option<Now> {
        let decision = self.expected.as_ref().map(|expected| expected.until);
        let clock = core.clock_due().filter(|_| self.expected.is_none() && self.ready.is_none());
        crate::call::core::earliest([Some(self.until), decision, clock])
    }
}

impl Conversing {
    /// The next deadline.
    pub(super) fn next_timeout(&self, core: &Core) -> Option<Now> {
        let notice = self.notice.map(|notice| notice.until);
        let decision = self.expected.as_ref().map(|expected| expected.until);
        let clock = core.clock_due().filter(|_| self.expected.is_none());
        crate::call::core::earliest([notice, decision, clock])
    }
}

/// The caller is there: the disclosure plays while the voice agent is connected.
pub(super) fn answered(core: &mut Core) -> State {
    core.caller_answered();
    core.connect_voice(true);
    let play = disclose(core);
    let until = core.at.now + PROMPT_LIMIT;
    State::Disclosing(Disclosing { play, again: false, until, expected: None, ready: None })
}

fn disclose(core: &mut Core) -> PlayId {
    let prompt = Prompt::clip(&core.rules.disclosure);
    core.play(Purpose::Disclosure, prompt)
}

/// The disclosure ended. One that was not heard whole is played once more, before anything
/// that was decided meanwhile is carried out.
pub(super) fn disclosure_ended(core: &mut Core, disclosing: Disclosing) -> State {
    if !core.disclosed && !disclosing.again {
        let play = disclose(core);
        let until = core.at.now + PROMPT_LIMIT;
        return State::Disclosing(Disclosing { play, again: true, until, ..disclosing });
    }
    if core.disclosed && core.rules.recording && !core.refused {
        core.conversation.record_consent("implied_by_continuing");
        let at_ms = core.offset_ms(core.at.now);
        core.emit(Fact::RecordingConsent {
            value: "implied_by_continuing".to_owned(),
            method: "disclosure".to_owned(),
            at_ms,
        });
    }
    let Disclosing { expected, ready, .. } = disclosing;
    match ready {
        Some(adoption) => transfer::begin(core, adoption),
        None => State::WithVoiceAgent(Conversing { notice: None, expected }),
    }
}

/// A notice to a caller who came back was heard; now the voice agent is told.
pub(super) fn notice_ended(core: &mut Core, mut conversing: Conversing, play: PlayId) -> State {
    if conversing.notice.is_some_and(|notice| notice.play == play) {
        conversing.notice = None;
        core.tell_voice("failed", None);
    }
    State::WithVoiceAgent(conversing)
}

/// The voice agent said something. It is recorded in every state; it can start a transfer
/// only where none is under way.
pub(super) fn signal(core: &mut Core, state: State, signal: &Signal) -> State {
    if matches!(signal.body, SignalBody::TurnPartial { .. }) || core.conversation.has_seen(&signal.id) {
        return state;
    }
    let stimulus = core.conversation.apply(core.at, signal);
    if let SignalBody::Consent { value } = &signal.body {
        core.refused |= value == "refused";
    }
    let fact = signal_fact(core, signal, &stimulus);
    let state = stimulate(core, state, stimulus, fact);
    match (state, &signal.body) {
        (State::Transferring(transfer), SignalBody::TransferCancel) => transfer::cancel(core, transfer).0,
        (state, SignalBody::Consent { value }) => {
            let at_ms = core.offset_ms(core.at.now);
            let (value, method) = (value.clone(), "voice_agent".to_owned());
            core.emit(Fact::RecordingConsent { value, method, at_ms });
            state
        }
        (state, _) => state,
    }
}

/// Time has passed that a rule cares about.
fn clock(core: &mut Core, state: State) -> State {
    let now = core.at.now;
    let Some(stimulus) = core.conversation.take_due(now, &core.rules.policy) else { return state };
    let elapsed = i64::try_from(core.offset_ms(now)).unwrap_or(i64::MAX);
    let fact = Fact::SignalReceived {
        id: format!("clock-{}", core.seq),
        kind: "clock".to_owned(),
        values: vec![("elapsed_ms".to_owned(), elapsed)],
    };
    stimulate(core, state, stimulus, fact)
}

/// A key of the caller, as our own media plane heard it.
pub(super) fn caller_key(core: &mut Core, state: State, digit: char) -> State {
    let fact =
        Fact::SignalReceived { id: format!("key-{}", core.seq), kind: "dtmf".to_owned(), values: Vec::new() };
    let stimulus = core.conversation.record_digit(core.at, digit);
    stimulate(core, state, stimulus, fact)
}

/// Records a stimulus with all that is needed to judge it elsewhere, and judges it here.
fn stimulate(core: &mut Core, mut state: State, stimulus: Stimulus, fact: Fact) -> State {
    let (standing, transfer_id) = match &state {
        State::Transferring(_) => (TransferStanding::Active, core.last_transfer()),
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
        match &mut state {
            State::Disclosing(disclosing) if disclosing.ready.is_none() => {
                expect(&mut disclosing.expected, trigger, evaluable, until);
            }
            State::WithVoiceAgent(conversing) => expect(&mut conversing.expected, trigger, evaluable, until),
            State::Arriving { .. }
            | State::Disclosing(_)
            | State::Transferring(_)
            | State::Bridged(_)
            | State::Closing { .. }
            | State::Ending(_)
            | State::Finished => {}
        }
    }
    state
}

/// A second trigger joins the first: the stronger names the decision, a safety rule waives
/// every wait, and the deadline stays that of the first.
fn expect(expected: &mut Option<Expected>, trigger: Trigger, evaluable: Box<Evaluable>, until: Now) {
    let Some(known) = expected else {
        *expected = Some(Expected { trigger, evaluable, until });
        return;
    };
    let waives_waits = known.trigger.waives_waits || trigger.waives_waits;
    let joined = if trigger.category < known.trigger.category {
        let weaker = core::mem::replace(&mut known.trigger, trigger);
        known.evaluable = evaluable;
        weaker
    } else {
        trigger
    };
    let name = format!("{}:{}", joined.category.as_str(), joined.rule_id);
    if !known.trigger.also.contains(&name) && known.trigger.also.len() < Category::ALL.len() {
        known.trigger.also.push(name);
    }
    known.trigger.waives_waits = waives_waits;
}

/// A decision came, or was taken here. It starts the transfer, or waits for the disclosure.
pub(super) fn decided(core: &mut Core, state: State, adoption: Adoption) -> State {
    match state {
        State::Disclosing(mut disclosing) if !adoption.decision.trigger.waives_waits => {
            disclosing.expected = None;
            disclosing.ready.get_or_insert(adoption);
            State::Disclosing(disclosing)
        }
        State::Disclosing(_) | State::WithVoiceAgent(_) => transfer::begin(core, adoption),
        State::Arriving { .. }
        | State::Transferring(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => state,
    }
}

/// Deadlines while no transfer is under way.
pub(super) fn tick(core: &mut Core, state: State) -> State {
    let now = core.at.now;
    let due = |expected: &Option<Expected>| expected.as_ref().is_some_and(|expected| now >= expected.until);
    let state = match state {
        State::Disclosing(mut disclosing) if due(&disclosing.expected) => match disclosing.expected.take() {
            Some(expected) => {
                let adoption = adopt_own(core, expected.trigger, expected.evaluable);
                decided(core, State::Disclosing(disclosing), adoption)
            }
            None => State::Disclosing(disclosing),
        },
        State::WithVoiceAgent(mut conversing) if due(&conversing.expected) => {
            match conversing.expected.take() {
                Some(expected) => {
                    let adoption = adopt_own(core, expected.trigger, expected.evaluable);
                    decided(core, State::WithVoiceAgent(conversing), adoption)
                }
                None => State::WithVoiceAgent(conversing),
            }
        }
        other => other,
    };
    let state = match state {
        State::Disclosing(disclosing) if now >= disclosing.until => {
            // The end was never reported, so nothing is proven to have been heard.
            core.play_ended(disclosing.play, 0);
            disclosure_ended(core, disclosing)
        }
        State::WithVoiceAgent(conversing) if conversing.notice.is_some_and(|notice| now >= notice.until) => {
            let play = conversing.notice.map(|notice| notice.play);
            match play {
                Some(play) => notice_ended(core, conversing, play),
                None => State::WithVoiceAgent(conversing),
            }
        }
        other => other,
    };
    let idle = match &state {
        State::Disclosing(disclosing) => disclosing.expected.is_none() && disclosing.ready.is_none(),
        State::WithVoiceAgent(conversing) => conversing.expected.is_none(),
        State::Arriving { .. }
        | State::Transferring(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => false,
    };
    if idle && core.clock_due().is_some_and(|due| now >= due) {
        return clock(core, state);
    }
    state
}

/// The link to the voice agent is open.
pub(super) fn voice_up(core: &mut Core, leg: LegId) {
    if let VoiceLink::Connecting { leg: connecting, retry, .. } = core.voice
        && connecting == leg
    {
        core.voice = VoiceLink::Up { leg, retry };
    }
}

/// The link to the voice agent is over. Before a transfer there is one more try, then a
/// person; during one the transfer goes on without it.
pub(super) fn voice_gone(core: &mut Core, state: State, cause: LegCause) -> State {
    let link = core::mem::replace(&mut core.voice, VoiceLink::Gone);
    if link.up().is_some() {
        let reason = if cause == LegCause::RemoteHangUp { "left" } else { "lost" };
        core.emit(Fact::VoiceAgentReleased { transfer_id: None, reason: reason.to_owned() });
    }
    match state {
        State::Disclosing(_) | State::WithVoiceAgent(_) => {}
        State::Transferring(transfer) => return transfer::drained(core, transfer),
        State::Arriving { .. }
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => return state,
    }
    let left = link.up().is_some() && cause == LegCause::RemoteHangUp;
    if left && core.rules.on_voice_agent_bye == OnVoiceAgentBye::Hangup {
        return ending::end(core, "normal", "voice_agent", LegCause::LocalHangUp);
    }
    if !left && link.may_retry() {
        core.connect_voice(false);
        return state;
    }
    if matches!(&state, State::Disclosing(disclosing) if disclosing.ready.is_some()) {
        return state;
    }
    let rule = if left { "voice_agent_left" } else { "voice_agent_lost" };
    let adoption = match take_expected(state) {
        // What the caller needs was known already, and names the decision better.
        (state, Some(expected)) => (state, adopt_own(core, expected.trigger, expected.evaluable)),
        (state, None) => {
            let trigger = Trigger {
                category: Category::ToolFailure,
                rule_id: rule.to_owned(),
                evidence: "the voice agent is no longer on the call".to_owned(),
                mandatory: true,
                waives_waits: false,
                also: Vec::new(),
            };
            (state, own_decision(core, trigger, Stimulus::AgentError))
        }
    };
    decided(core, adoption.0, adoption.1)
}

fn take_expected(state: State) -> (State, Option<Expected>) {
    match state {
        State::Disclosing(mut disclosing) => {
            let expected = disclosing.expected.take();
            (State::Disclosing(disclosing), expected)
        }
        State::WithVoiceAgent(mut conversing) => {
            let expected = conversing.expected.take();
            (State::WithVoiceAgent(conversing), expected)
        }
        other => (other, None),
    }
}

/// What is recorded of a signal: a turn by reference (its text as it was kept, redacted),
/// anything else by names and numbers.
fn signal_fact(core: &Core, signal: &Signal, stimulus: &Stimulus) -> Fact {
    if let (SignalBody::Turn { speaker, turn, .. }, Stimulus::Turn { text, .. }) = (&signal.body, stimulus) {
        let known = turn.as_deref().and_then(|item| core.conversation.segment_of(item));
        return Fact::Utterance {
            segment: known.or_else(|| core.conversation.segment_of_last_turn()).unwrap_or_default(),
            speaker: *speaker,
            offset_ms: core.offset_ms(core.at.now),
            text: (!core.refused).then(|| text.clone()),
        };
    }
    Fact::SignalReceived { id: signal.id.clone(), kind: kind(&signal.body), values: values(&signal.body) }
}

fn kind(body: &SignalBody) -> String {
    let kind = match body {
        SignalBody::CallStarted { .. } => "call.started",
        SignalBody::Turn { .. } => "turn",
        SignalBody::TurnPartial { .. } => "turn.partial",
        SignalBody::Intent { .. } => "intent",
        SignalBody::Topic { .. } => "topic",
        SignalBody::Field { .. } => "field",
        SignalBody::Sentiment { .. } => "sentiment",
        SignalBody::Confidence { .. } => "confidence",
        SignalBody::DisclosureMade { .. } => "disclosure.made",
        SignalBody::Consent { .. } => "consent",
        SignalBody::Dtmf { .. } => "dtmf",
        SignalBody::Tool { .. } => "tool",
        SignalBody::TransferRequest(_) => "transfer.request",
        SignalBody::TransferCancel => "transfer.cancel",
        SignalBody::Resolved { .. } => "resolved",
        SignalBody::Error { .. } => "error",
        SignalBody::X => "x",
    };
    kind.to_owned()
}

/// Names and numbers of a signal; never what anybody said.
fn values(body: &SignalBody) -> Vec<(String, i64)> {
    let pm = |value: &Option<u16>| value.map_or(0, i64::from);
    match body {
        SignalBody::Intent { name: what, confidence_pm } => vec![(name("intent", what), pm(confidence_pm))],
        SignalBody::Topic { name: what, confidence_pm, regulated } => {
            vec![(name("topic", what), pm(confidence_pm)), ("regulated".to_owned(), i64::from(*regulated))]
        }
        SignalBody::Field { name: what, confidence_pm, verified, .. } => {
            vec![(name("field", what), pm(confidence_pm)), ("verified".to_owned(), i64::from(*verified))]
        }
        SignalBody::Sentiment { score_pm } => vec![("score_pm".to_owned(), i64::from(*score_pm))],
        SignalBody::Confidence { value_pm, of } => {
            let of = match of {
                ConfidenceOf::Resolution => "resolution_pm",
                ConfidenceOf::Asr => "asr_pm",
                ConfidenceOf::Intent => "intent_pm",
                ConfidenceOf::Identity => "identity_pm",
            };
            vec![(of.to_owned(), i64::from(*value_pm))]
        }
        SignalBody::Tool { name: what, ok } => {
            vec![(name("tool", what), ok.map_or(-1, i64::from))]
        }
        SignalBody::CallStarted { .. }
        | SignalBody::Turn { .. }
        | SignalBody::TurnPartial { .. }
        | SignalBody::DisclosureMade { .. }
        | SignalBody::Consent { .. }
        | SignalBody::Dtmf { .. }
        | SignalBody::TransferRequest(_)
        | SignalBody::TransferCancel
        | SignalBody::Resolved { .. }
        | SignalBody::Error { .. }
        | SignalBody::X => Vec::new(),
    }
}

/// A name that a voice agent gave, if it looks like the name of a category. Anything else
/// could be what a caller said.
fn name(kind: &str, given: &str) -> String {
    let plain = (1..=SIGNAL_NAME_MAX).contains(&given.len())
        && given
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
    if plain { format!("{kind}:{given}") } else { format!("{kind}:other") }
}
