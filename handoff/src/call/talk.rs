//! The call before (and after) a transfer: the disclosure, the voice agent, its signals,
//! and the decision that starts a transfer. The voice agent asks; the policy decides; where
//! nobody else decides in time, the same policy is obeyed here.

use crate::call::State;
use crate::call::core::{Core, VoiceLink, earliest};
use crate::call::decide::{self, Expected};
use crate::call::ending;
use crate::call::io::OnVoiceAgentBye;
use crate::call::media::{Prompt, Purpose};
use crate::call::outcome::LegCause;
use crate::call::tap;
use crate::call::transfer::{self, Adoption};
use crate::call::{NOTICE_LIMIT, PROMPT_LIMIT, SIGNAL_NAME_MAX};
use crate::clock::{Moment, Now};
use crate::conversation::Stimulus;
use crate::event::Fact;
use crate::id::{LegId, PlayId};
use crate::message;
use crate::policy::{Category, Trigger};
use crate::signal::{ConfidenceOf, Signal, SignalBody};

/// The disclosure plays.
#[derive(Debug)]
pub(super) struct Disclosing {
    pub(super) play: PlayId,
    /// It was cut once and plays again.
    again: bool,
    until: Now,
    pub(super) expected: Option<Box<Expected>>,
    /// Decided already, waiting for the disclosure to be heard.
    pub(super) ready: Option<Box<Adoption>>,
}

/// Caller and voice agent talk.
#[derive(Debug, Default)]
pub(super) struct Conversing {
    /// What the caller hears before the voice agent again.
    pub(super) notice: Option<Notice>,
    pub(super) expected: Option<Box<Expected>>,
}

/// A fixed prompt to a caller who comes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notice {
    pub(super) play: PlayId,
    pub(super) until: Now,
}

impl Disclosing {
    /// No decision is made or awaited.
    const fn is_idle(&self) -> bool {
        self.expected.is_none() && self.ready.is_none()
    }

    /// The next deadline.
    pub(super) fn next_timeout(&self, core: &Core) -> Option<Now> {
        let decision = self.expected.as_ref().map(|expected| expected.until());
        let clock = core.clock_due().filter(|_| self.is_idle());
        earliest([Some(self.until), decision, clock])
    }
}

impl Conversing {
    /// No decision is awaited.
    const fn is_idle(&self) -> bool {
        self.expected.is_none()
    }

    /// The next deadline.
    pub(super) fn next_timeout(&self, core: &Core) -> Option<Now> {
        let notice = self.notice.map(|notice| notice.until);
        let decision = self.expected.as_ref().map(|expected| expected.until());
        let clock = core.clock_due().filter(|_| self.is_idle());
        earliest([notice, decision, clock])
    }
}

/// The caller is there: the disclosure plays while the voice agent is connected.
pub(super) fn answered(core: &mut Core) -> State {
    core.caller_answered();
    core.connect_voice(true);
    disclosing(core)
}

fn disclosing(core: &mut Core) -> State {
    let play = disclose(core);
    let until = core.at.now + PROMPT_LIMIT;
    State::Disclosing(Disclosing { play, again: false, until, expected: None, ready: None })
}

/// The voice agent has the caller again, after these words. A safety rule may have cut the
/// disclosure: then it is heard first, as on the first time, and stands for the words.
pub(super) fn back(core: &mut Core, words: Option<Prompt>) -> State {
    if !core.disclosed {
        return disclosing(core);
    }
    let notice = words.map(|prompt| {
        let play = core.play(Purpose::Unrecorded, prompt);
        Notice { play, until: core.at.now + NOTICE_LIMIT }
    });
    State::WithVoiceAgent(Conversing { notice, expected: None })
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
        Some(adoption) => transfer::begin(core, *adoption),
        None => State::WithVoiceAgent(Conversing { notice: None, expected }),
    }
}

/// The caller comes back from a bridge that ended on its far side: an apology, and the voice
/// agent, which left at the bridge, is called again.
pub(super) fn come_back(core: &mut Core) -> State {
    if core.voice.leg().is_none() {
        core.connect_voice(true);
    }
    let apology = message::apology(&core.rules.lang);
    back(core, Some(apology))
}

/// A notice to a caller who came back was heard; now the voice agent is told.
pub(super) fn notice_ended(core: &mut Core, mut conversing: Conversing, play: PlayId) -> State {
    if conversing.notice.is_some_and(|notice| notice.play == play) {
        conversing.notice = None;
        core.tell_voice("failed", None);
    }
    State::WithVoiceAgent(conversing)
}

/// The voice agent said something. What was said by anybody goes through the tap first.
pub(super) fn signal(core: &mut Core, state: State, signal: &Signal) -> State {
    if core.conversation.has_seen(&signal.id) {
        return state;
    }
    match &signal.body {
        SignalBody::TurnPartial { .. } => state,
        SignalBody::Turn { speaker, text, turn, .. } => {
            tap::turn(core, state, signal, *speaker, text, turn.as_deref())
        }
        SignalBody::Tool { name, .. } => {
            let state = tap::tool(core, state, name);
            heed(core, state, core.at, signal)
        }
        SignalBody::CallStarted { .. }
        | SignalBody::Intent { .. }
        | SignalBody::Topic { .. }
        | SignalBody::Field { .. }
        | SignalBody::Sentiment { .. }
        | SignalBody::Confidence { .. }
        | SignalBody::DisclosureMade { .. }
        | SignalBody::Consent { .. }
        | SignalBody::Dtmf { .. }
        | SignalBody::TransferRequest(_)
        | SignalBody::TransferCancel
        | SignalBody::Resolved { .. }
        | SignalBody::Error { .. }
        | SignalBody::X => heed(core, state, core.at, signal),
    }
}

/// A signal, as it may be seen: it is recorded in every state; it can start a transfer only
/// where none is under way. `said` is when it came, which for a turn may be a moment ago.
pub(super) fn heed(core: &mut Core, state: State, said: Moment, signal: &Signal) -> State {
    let stimulus = core.conversation.apply(said, signal);
    if matches!(&signal.body, SignalBody::Consent { value } if value == "refused") {
        core.refuse_recording();
    }
    let fact = signal_fact(core, said, signal, &stimulus);
    let state = if matches!(state, State::Closing { .. } | State::Ending(_)) {
        // Nothing is decided any more, and nothing is lost either.
        core.emit(fact);
        state
    } else {
        decide::stimulate(core, state, stimulus, fact)
    };
    match (state, &signal.body) {
        (State::Transferring(transfer), SignalBody::TransferCancel) => transfer::cancel(core, transfer).0,
        (state, SignalBody::TransferCancel) => decide::request_withdrawn(core, state),
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
    decide::stimulate(core, state, stimulus, fact)
}

/// A key of the caller, as our own media plane heard it.
pub(super) fn caller_key(core: &mut Core, state: State, digit: char) -> State {
    let stimulus = core.conversation.record_digit(core.at, digit);
    let (id, values) = (format!("key-{}", core.seq), requested(&stimulus));
    let fact = Fact::SignalReceived { id, kind: "dtmf".to_owned(), values };
    decide::stimulate(core, state, stimulus, fact)
}

/// Deadlines while no transfer is under way.
pub(super) fn tick(core: &mut Core, state: State) -> State {
    let state = decide::tick(core, state);
    let state = prompt_due(core, state);
    let idle = match &state {
        State::Disclosing(disclosing) => disclosing.is_idle(),
        State::WithVoiceAgent(conversing) => conversing.is_idle(),
        State::Arriving { .. }
        | State::Transferring(_)
        | State::FallingBack(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => false,
    };
    if idle && core.clock_due().is_some_and(|due| core.at.now >= due) {
        return clock(core, state);
    }
    state
}

/// A prompt whose end was never reported: nothing is proven to have been heard.
fn prompt_due(core: &mut Core, state: State) -> State {
    let now = core.at.now;
    match state {
        State::Disclosing(disclosing) if now >= disclosing.until => {
            core.play_ended(disclosing.play, 0);
            disclosure_ended(core, disclosing)
        }
        State::WithVoiceAgent(conversing) => match conversing.notice {
            Some(notice) if now >= notice.until => {
                core.play_ended(notice.play, 0);
                notice_ended(core, conversing, notice.play)
            }
            Some(_) | None => State::WithVoiceAgent(conversing),
        },
        State::Arriving { .. }
        | State::Disclosing(_)
        | State::Transferring(_)
        | State::FallingBack(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => state,
    }
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
    let link = std::mem::replace(&mut core.voice, VoiceLink::Gone);
    if link.up().is_some() {
        let reason = if cause == LegCause::RemoteHangUp { "left" } else { "lost" };
        core.emit(Fact::VoiceAgentReleased { transfer_id: None, reason: reason.to_owned() });
    }
    match state {
        State::Disclosing(_) | State::WithVoiceAgent(_) => {}
        State::Transferring(transfer) => return transfer::drained(core, transfer),
        State::Arriving { .. }
        | State::FallingBack(_)
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
    let trigger = Trigger {
        category: Category::ToolFailure,
        rule_id: rule.to_owned(),
        evidence: "the voice agent is no longer on the call".to_owned(),
        mandatory: true,
        waives_waits: false,
        also: Vec::new(),
    };
    decide::decide_now(core, state, trigger, Stimulus::AgentError)
}

/// What is recorded of a signal: a turn by reference (its text as it was kept, redacted),
/// anything else by names and numbers.
fn signal_fact(core: &Core, said: Moment, signal: &Signal, stimulus: &Stimulus) -> Fact {
    if let (SignalBody::Turn { speaker, turn, .. }, Stimulus::Turn { text, .. }) = (&signal.body, stimulus) {
        let known = turn.as_deref().and_then(|item| core.conversation.segment_of(item));
        return Fact::Utterance {
            segment: known.or_else(|| core.conversation.segment_of_last_turn()).unwrap_or_default(),
            speaker: *speaker,
            offset_ms: core.offset_ms(said.now),
            text: (!core.refused).then(|| text.clone()),
        };
    }
    let mut values = values(&signal.body);
    values.extend(requested(stimulus));
    Fact::SignalReceived { id: signal.id.clone(), kind: kind(&signal.body), values }
}

/// Of a key only whether it asked for a person: keys spell card numbers.
fn requested(stimulus: &Stimulus) -> Vec<(String, i64)> {
    let asked = matches!(stimulus, Stimulus::Digit { zero: true });
    asked.then(|| ("request".to_owned(), 1)).into_iter().collect()
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
        SignalBody::TransferRequest(request) => vec![(name("reason", request.reason.as_str()), 1)],
        SignalBody::CallStarted { .. }
        | SignalBody::Turn { .. }
        | SignalBody::TurnPartial { .. }
        | SignalBody::DisclosureMade { .. }
        | SignalBody::Consent { .. }
        | SignalBody::Dtmf { .. }
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
