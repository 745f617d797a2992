//! The accumulation itself: signals in, one stimulus each out, and the two views. Text is
//! redacted before it is kept, so nothing that this type holds or returns has ever shown a
//! card number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clock::{Moment, Now};
use crate::conversation::grounding::shows;
use crate::conversation::promise::{asks_for_keys, promises};
use crate::conversation::{
    CallerIdentity, Collected, Context, Disclosed, DisclosureKind, Named, Provenance, Snapshot, Stimulus,
    ToolRun, TransferStanding, Turn,
};
use crate::pii::Pii;
use crate::policy::phrase::Words;
use crate::policy::{Category, Policy, Trigger};
use crate::redact::{self, Level, PriorTurns};
use crate::signal::{ConfidenceOf, PiiClass, Signal, SignalBody, Speaker, TransferRequest};

/// Most turns kept: an hour of quick talk. Older ones are in the audit chain.
pub(super) const TURNS_MAX: usize = 400;
/// Most bytes of text in one [`Context`]: it travels in a queue message beside the rest.
pub(super) const CONTEXT_BYTES_MAX: usize = 64 * 1024;
/// Most collected facts: the payload's `collected`.
pub(super) const FIELDS_MAX: usize = 40;
/// Most tool runs kept: the payload's `actions_taken`.
pub(super) const TOOLS_MAX: usize = 20;
/// Most intents, topics and confidences in a snapshot.
pub(super) const RECENT_MAX: usize = 5;
/// Most earlier intents in a context: the payload's `secondary`.
const SECONDARY_MAX: usize = 3;
/// Most signal ids remembered, to drop repeats: more than a stream resends.
const SEEN_MAX: usize = 512;
/// Most redaction classes counted: the payload's `redaction.counts`.
const CLASSES_MAX: usize = 24;
/// A key within this time after another is part of a number, not a request.
const KEYS_APART: core::time::Duration = core::time::Duration::from_secs(5);

/// What is known of one conversation.
#[derive(Clone, Debug)]
pub struct Conversation {
    started: Moment,
    call_type: Option<String>,
    policy_version: String,
    context: Context,
    turns: VecDeque<KeptTurn>,
    /// Segment number of the next turn.
    segments: u32,
    truncated: bool,
    turns_caller: u32,
    turns_agent: u32,
    confidences: VecDeque<u16>,
    /// The edge that the confidence must reach before low confidence fires again.
    latch: Option<u16>,
    intents: VecDeque<Named>,
    topics: VecDeque<Named>,
    same_intent_run: u32,
    same_prompt_run: u32,
    last_prompt: String,
    tool_failures_run: u32,
    failed_attempts: u32,
    promised: Option<Promise>,
    promise_reported: bool,
    /// Elapsed-time windows that `take_due` has reported.
    windows_reported: u32,
    last_key: Option<Now>,
    keys_expected: bool,
    seen: BTreeSet<String>,
    seen_order: VecDeque<String>,
    redactions: BTreeMap<String, u32>,
}

/// An open promise of the voice agent.
#[derive(Clone, Copy, Debug)]
struct Promise {
    since: Now,
    /// The turn that made it.
    segment: u32,
}

#[derive(Clone, Debug)]
struct KeptTurn {
    /// The agent's item id, by which a later turn replaces this one.
    item: Option<String>,
    turn: Turn,
}

impl Conversation {
    /// A conversation that begins at `at`, when the caller was answered.
    pub fn new(
        at: Moment,
        caller: CallerIdentity,
        call_type: Option<String>,
        policy_version: String,
    ) -> Self {
        let context = Context { caller, recording_consent: "not_asked".to_owned(), ..Context::default() };
        Self {
            started: at,
            call_type,
            policy_version,
            context,
            turns: VecDeque::new(),
            segments: 0,
            truncated: false,
            turns_caller: 0,
            turns_agent: 0,
            confidences: VecDeque::new(),
            latch: None,
            intents: VecDeque::new(),
            topics: VecDeque::new(),
            same_intent_run: 0,
            same_prompt_run: 0,
            last_prompt: String::new(),
            tool_failures_run: 0,
            failed_attempts: 0,
            promised: None,
            promise_reported: false,
            windows_reported: 0,
            last_key: None,
            keys_expected: false,
            seen: BTreeSet::new(),
            seen_order: VecDeque::new(),
            redactions: BTreeMap::new(),
        }
    }

    /// Takes one signal in. A repeated id changes nothing and stimulates nothing.
    pub fn apply(&mut self, at: Moment, signal: &Signal) -> Stimulus {
        if !self.remember(&signal.id) {
            return Stimulus::Other;
        }
        match &signal.body {
            SignalBody::CallStarted { language, .. } => {
                self.context.language = language.clone().or_else(|| self.context.language.take());
                Stimulus::Other
            }
            SignalBody::Turn { speaker, text, turn, .. } => {
                self.turn(at, *speaker, text.expose(), turn.as_deref())
            }
            SignalBody::Intent { name, confidence_pm } => self.intent(named(name, *confidence_pm)),
            SignalBody::Topic { name, confidence_pm, regulated } => {
                let topic = named(name, *confidence_pm);
                push_recent(&mut self.topics, topic.clone(), RECENT_MAX);
                Stimulus::Topic { topic, regulated: *regulated }
            }
            SignalBody::Field { name, value, confidence_pm, verified, class } => {
                self.field(at, name, value.expose(), confidence_pm.unwrap_or(0), *verified, *class);
                Stimulus::Other
            }
            SignalBody::Sentiment { score_pm } => {
                self.context.sentiment_pm = Some(*score_pm);
                Stimulus::Other
            }
            SignalBody::Confidence { value_pm, of: ConfidenceOf::Resolution } => self.confidence(*value_pm),
            SignalBody::Consent { value } => {
                self.record_consent(value);
                Stimulus::Other
            }
            SignalBody::Dtmf { digits } => self.keys(at, digits.expose()),
            SignalBody::Tool { name, ok } => self.tool(at, name, *ok),
            SignalBody::TransferRequest(request) => self.request(at, request),
            SignalBody::TransferCancel | SignalBody::Resolved { .. } => {
                self.context.request = None;
                self.promised = None;
                Stimulus::Other
            }
            SignalBody::Error { .. } => Stimulus::AgentError,
            // What the agent says it disclosed proves nothing; what was played does.
            SignalBody::DisclosureMade { .. }
            | SignalBody::Confidence {
                of: ConfidenceOf::Asr | ConfidenceOf::Intent | ConfidenceOf::Identity,
                ..
            }
            | SignalBody::TurnPartial { .. }
            | SignalBody::X => Stimulus::Other,
        }
    }

    /// A key that the caller pressed. The digits themselves are not kept: they may be a card's.
    pub fn record_digit(&mut self, at: Moment, digit: char) -> Stimulus {
        let alone = self.last_key.is_none_or(|last| at.now.since(last) >= KEYS_APART);
        self.last_key = Some(at.now);
        Stimulus::Digit { zero: digit == '0' && alone && !self.keys_expected }
    }

    /// How far a fixed text was heard. Proof of a disclosure grows and never shrinks: a
    /// second, shorter playing does not undo the first.
    pub fn record_disclosure(&mut self, kind: DisclosureKind, disclosed: Disclosed) {
        let place = match kind {
            DisclosureKind::Ai => &mut self.context.ai_disclosure,
            DisclosureKind::Recording => &mut self.context.recording_disclosure,
            DisclosureKind::Transition => return self.record_transition(disclosed),
        };
        if disclosed.played_pm >= place.played_pm {
            *place = disclosed;
        }
    }

    /// A turn that no signal brought: a prompt of ours, or a human agent's words.
    pub fn record_turn(&mut self, at: Moment, speaker: Speaker, text: &Pii<String>) {
        let text = self.redact(text.expose());
        self.push_turn(at, speaker, &text, None);
    }

    /// The recording consent as it stands: `affirmative`, `implied_by_continuing`, `refused`
    /// or `not_asked`. A refusal is final.
    pub fn record_consent(&mut self, value: &str) {
        if self.context.recording_consent != "refused" {
            self.context.recording_consent = value.to_owned();
        }
    }

    /// The transition message has ended, whole or cut.
    pub fn record_transition(&mut self, played: Disclosed) {
        self.context.transition = played;
    }

    /// A transfer has ended without a bridge. A promise made for it is settled by it.
    pub fn record_failed_attempt(&mut self) {
        self.failed_attempts = self.failed_attempts.saturating_add(1);
        self.promised = None;
        self.context.request = None;
        self.context.transition = Disclosed::default();
    }

    /// A decision was adopted; low confidence does not fire again before it has recovered.
    pub fn record_decision(&mut self, trigger: &Trigger, policy: &Policy) {
        let low = Category::LowConfidence;
        let fired = trigger.category == low || trigger.also.iter().any(|rule| rule.starts_with(low.as_str()));
        if fired {
            self.latch = policy.confidence_upper_edge_pm();
        }
    }

    /// Names and numbers of the call so far.
    pub fn snapshot(&self, now: Now, standing: TransferStanding) -> Snapshot {
        let count = u32::try_from(self.confidences.len()).unwrap_or(1);
        let sum: u32 = self.confidences.iter().map(|value| u32::from(*value)).sum();
        let promise = self.promised.filter(|_| standing == TransferStanding::None);
        Snapshot {
            elapsed_ms: millis(now, self.started.now),
            turns_caller: self.turns_caller,
            turns_agent: self.turns_agent,
            confidence_pm: self.confidences.back().copied(),
            confidence_rolling_pm: sum.checked_div(count).and_then(|mean| u16::try_from(mean).ok()),
            confidence_recent_pm: self.confidences.iter().copied().collect(),
            confidence_latched: self.latch.is_some(),
            intents: self.intents.iter().cloned().collect(),
            topics: self.topics.iter().cloned().collect(),
            same_intent_run: self.same_intent_run,
            same_prompt_run: self.same_prompt_run,
            tool_failures_run: self.tool_failures_run,
            failed_attempts: self.failed_attempts,
            collected: self.context.collected.iter().map(|field| field.name.clone()).collect(),
            call_type: self.call_type.clone(),
            promise_age_ms: promise.map(|promise| millis(now, promise.since)),
            policy_version: self.policy_version.clone(),
            transfer: standing,
        }
    }

    /// Everything a payload is built from, the newest turns first to stay.
    pub fn context(&self) -> Context {
        let mut context = self.context.clone();
        let mut bytes = 0;
        let mut kept: Vec<Turn> = Vec::new();
        for kept_turn in self.turns.iter().rev() {
            bytes += kept_turn.turn.text.expose().len();
            if bytes > CONTEXT_BYTES_MAX {
                context.truncated = true;
                break;
            }
            kept.push(kept_turn.turn.clone());
        }
        kept.reverse();
        context.turns = kept;
        context.truncated |= self.truncated;
        context.intent = self.intents.back().cloned();
        context.secondary = self.secondary();
        context.redactions = self.redactions.iter().map(|(class, count)| (class.clone(), *count)).collect();
        context
    }

    /// Number of the newest segment, where anybody has spoken.
    pub fn segment_of_last_turn(&self) -> Option<u32> {
        self.turns.back().map(|kept| kept.turn.segment)
    }

    /// Number of the segment that a turn with this item id has.
    pub fn segment_of(&self, item: &str) -> Option<u32> {
        let same = |kept: &&KeptTurn| kept.item.as_deref() == Some(item);
        self.turns.iter().rev().find(same).map(|kept| kept.turn.segment)
    }

    /// Whether a signal with this id was taken in already.
    pub fn has_seen(&self, id: &str) -> bool {
        self.seen.contains(id)
    }

    /// When the elapsed-time or the promise rule has something to say. Meaningful while no
    /// transfer is under way; a time that has come is taken with [`Self::take_due`].
    pub fn next_timeout(&self, policy: &Policy) -> Option<Now> {
        let promise = self.promise_due(policy);
        let elapsed = self.elapsed_due(policy);
        [promise, elapsed].into_iter().flatten().min()
    }

    /// Takes what is due at `now`: the stimulus of a timer, each timer once. A caller that
    /// evaluates it and decides nothing is not woken again for the same reason.
    pub fn take_due(&mut self, now: Now, policy: &Policy) -> Option<Stimulus> {
        let promise = self.promise_due(policy).is_some_and(|due| due <= now);
        let elapsed = self.elapsed_due(policy).is_some_and(|due| due <= now);
        self.promise_reported |= promise;
        if elapsed {
            self.windows_reported = self.failed_attempts.saturating_add(1);
        }
        (promise || elapsed).then_some(Stimulus::Clock)
    }

    fn promise_due(&self, policy: &Policy) -> Option<Now> {
        let since = self.promised.filter(|_| !self.promise_reported)?.since;
        policy.promise_limit().map(|limit| since + limit)
    }

    fn elapsed_due(&self, policy: &Policy) -> Option<Now> {
        let windows = self.failed_attempts.saturating_add(1);
        let limit = policy.elapsed_limit().filter(|_| self.windows_reported < windows)?;
        Some(self.started.now + limit.saturating_mul(windows))
    }

    fn turn(&mut self, at: Moment, speaker: Speaker, text: &str, item: Option<&str>) -> Stimulus {
        let text = self.redact(text);
        let replaced =
            item.and_then(|item| self.turns.iter_mut().rev().find(|kept| kept.item.as_deref() == Some(item)));
        let segment = if let Some(kept) = replaced {
            kept.turn.text = Pii::new(text.clone());
            kept.turn.speaker = speaker;
            kept.turn.segment
        } else {
            self.count_turn(speaker, &text);
            self.push_turn(at, speaker, &text, item)
        };
        if speaker == Speaker::Agent {
            self.keys_expected = asks_for_keys(&text);
            self.heed_promise(at, segment, promises(&text));
        }
        Stimulus::Turn { speaker, text: Pii::new(text) }
    }

    /// The first open promise starts the clock; a correction of that very turn ("I'm trans—")
    /// may take it back.
    fn heed_promise(&mut self, at: Moment, segment: u32, promised: bool) {
        match self.promised {
            None if promised => {
                self.promised = Some(Promise { since: at.now, segment });
                self.promise_reported = false;
            }
            Some(promise) if promise.segment == segment && !promised => self.promised = None,
            Some(_) | None => {}
        }
    }

    fn push_turn(&mut self, at: Moment, speaker: Speaker, text: &str, item: Option<&str>) -> u32 {
        let segment = self.segments;
        let turn = Turn {
            segment,
            speaker,
            text: Pii::new(text.to_owned()),
            at_ms: millis(at.now, self.started.now),
        };
        self.segments = self.segments.saturating_add(1);
        self.turns.push_back(KeptTurn { item: item.map(str::to_owned), turn });
        if self.turns.len() > TURNS_MAX {
            self.turns.pop_front();
            self.truncated = true;
        }
        segment
    }

    fn count_turn(&mut self, speaker: Speaker, text: &str) {
        match speaker {
            Speaker::Caller => self.turns_caller = self.turns_caller.saturating_add(1),
            Speaker::Agent => {
                self.turns_agent = self.turns_agent.saturating_add(1);
                let prompt = Words::of(text).joined();
                let same = !prompt.is_empty() && prompt == self.last_prompt;
                self.same_prompt_run = if same { self.same_prompt_run.saturating_add(1) } else { 1 };
                self.last_prompt = prompt;
            }
            Speaker::Human | Speaker::System => {}
        }
    }

    fn intent(&mut self, intent: Named) -> Stimulus {
        let same = self.intents.back().is_some_and(|last| last.name == intent.name);
        self.same_intent_run = if same { self.same_intent_run.saturating_add(1) } else { 1 };
        push_recent(&mut self.intents, intent.clone(), RECENT_MAX);
        Stimulus::Intent(intent)
    }

    fn confidence(&mut self, value_pm: u16) -> Stimulus {
        push_recent(&mut self.confidences, value_pm, RECENT_MAX);
        if self.latch.is_some_and(|edge| value_pm >= edge) {
            self.latch = None;
        }
        Stimulus::Confidence { value_pm }
    }

    fn keys(&mut self, at: Moment, digits: &str) -> Stimulus {
        let mut stimulus = Stimulus::Digit { zero: false };
        let single = digits.chars().count() == 1;
        for digit in digits.chars() {
            let pressed = self.record_digit(at, digit);
            if single {
                stimulus = pressed;
            }
        }
        stimulus
    }

    fn tool(&mut self, at: Moment, name: &str, ok: Option<bool>) -> Stimulus {
        let failed = ok == Some(false);
        self.tool_failures_run = match ok {
            Some(true) => 0,
            Some(false) => self.tool_failures_run.saturating_add(1),
            None => self.tool_failures_run,
        };
        let tools = &mut self.context.tools;
        if tools.len() >= TOOLS_MAX {
            tools.remove(0);
        }
        tools.push(ToolRun { name: name.to_owned(), ok, at: at.wall });
        Stimulus::Tool { name: name.to_owned(), failed }
    }

    fn request(&mut self, at: Moment, request: &TransferRequest) -> Stimulus {
        for (name, value) in &request.fields {
            self.field(at, name, value.expose(), 0, false, PiiClass::Pii);
        }
        let mut kept = request.clone();
        for text in [&mut kept.summary, &mut kept.next_action, &mut kept.caller_message, &mut kept.whisper] {
            *text = text.take().map(|text| Pii::new(self.redact(text.expose())));
        }
        kept.queue = kept.queue.map(|queue| self.redact(&queue));
        // The facts stand in `collected`, with where they came from.
        kept.fields = Vec::new();
        self.context.request = Some(kept);
        Stimulus::Requested { reason: request.reason }
    }

    fn field(
        &mut self,
        at: Moment,
        name: &str,
        value: &str,
        confidence_pm: u16,
        verified: bool,
        class: PiiClass,
    ) {
        let known = self.context.collected.iter().position(|field| field.name == name);
        if value.is_empty() || class == PiiClass::Pci {
            // Nothing of a payment is kept, and a fact without a value is taken back.
            if let Some(index) = known {
                self.context.collected.remove(index);
            }
            return;
        }
        let value = self.redact(value);
        let field = self.grounded(at, name, value, confidence_pm, verified, class);
        let collected = &mut self.context.collected;
        let room = collected.len() < FIELDS_MAX;
        match known.and_then(|index| collected.get_mut(index)) {
            Some(place) => *place = field,
            None if room => collected.push(field),
            // The first facts of a call identify it; a forty-first is not worth one of them.
            None => {}
        }
    }

    /// A fact with the segment that shows it. A model's word alone confirms nothing.
    fn grounded(
        &mut self,
        at: Moment,
        name: &str,
        value: String,
        confidence_pm: u16,
        verified: bool,
        class: PiiClass,
    ) -> Collected {
        if self.turns.is_empty() {
            // Agents that send no transcript still send facts, and each needs a source.
            self.push_turn(at, Speaker::System, "The voice agent sent this without a transcript.", None);
        }
        let shown_by = |speaker: Speaker| {
            let by =
                |kept: &&KeptTurn| kept.turn.speaker == speaker && shows(kept.turn.text.expose(), &value);
            self.turns.iter().rev().find(by).map(|kept| kept.turn.segment)
        };
        let last_caller = self.turns.iter().rev().find(|kept| kept.turn.speaker == Speaker::Caller);
        let last_caller = last_caller.map(|kept| kept.turn.segment);
        let stated = shown_by(Speaker::Caller);
        let read_out = shown_by(Speaker::Agent);
        let answered = |segment: u32| last_caller.filter(|last| *last > segment);
        let (provenance, segment, confirmed_segment) = match (stated, read_out) {
            (Some(said), _) if verified => {
                (Provenance::CallerConfirmed, Some(said), answered(said).or(Some(said)))
            }
            (Some(said), _) => (Provenance::CallerStated, Some(said), None),
            (None, Some(read)) if verified && answered(read).is_some() => {
                (Provenance::CallerConfirmed, Some(read), answered(read))
            }
            (None, _) => {
                (Provenance::ModelInferred, last_caller.or_else(|| self.segment_of_last_turn()), None)
            }
        };
        Collected {
            name: name.to_owned(),
            value: Some(Pii::new(value)),
            provenance,
            segment,
            confirmed_segment,
            confidence_pm,
            confirmed: confirmed_segment.is_some(),
            class,
        }
    }

    fn secondary(&self) -> Vec<String> {
        let latest = self.intents.back().map(|intent| intent.name.as_str());
        let mut earlier: Vec<String> = Vec::new();
        for intent in self.intents.iter().rev() {
            if Some(intent.name.as_str()) != latest && !earlier.contains(&intent.name) {
                earlier.push(intent.name.clone());
            }
        }
        earlier.truncate(SECONDARY_MAX);
        earlier
    }

    fn redact(&mut self, text: &str) -> String {
        // A bare answer is judged by the question that it answers.
        let asked = self.turns.iter().rev().find(|kept| kept.turn.speaker == Speaker::Agent);
        let question = asked.map(|kept| kept.turn.text.expose().as_str());
        let redacted = redact::redact(text, Level::R1Pci, &PriorTurns { question, payment: false });
        self.record_redactions(&redacted.counts);
        redacted.text
    }

    /// What was taken out of a text before it came here.
    pub fn record_redactions(&mut self, counts: &[(redact::Class, u32)]) {
        for (class, count) in counts {
            let class = class.as_str();
            if self.redactions.contains_key(class) || self.redactions.len() < CLASSES_MAX {
                let sum = self.redactions.entry(class.to_owned()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }

    /// `false` where the id was taken in before.
    fn remember(&mut self, id: &str) -> bool {
        if !self.seen.insert(id.to_owned()) {
            return false;
        }
        self.seen_order.push_back(id.to_owned());
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

fn named(name: &str, confidence_pm: Option<u16>) -> Named {
    Named { name: name.to_owned(), confidence_pm: confidence_pm.unwrap_or(0) }
}

fn push_recent<T>(recent: &mut VecDeque<T>, item: T, max: usize) {
    recent.push_back(item);
    if recent.len() > max {
        recent.pop_front();
    }
}

fn millis(now: Now, since: Now) -> u64 {
    u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
