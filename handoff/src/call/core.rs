//! What a call has in every state: its record, its ledger, its media plan, what it knows
//! of the conversation, and the link to the voice agent. Functions here order and record;
//! they never change the state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::call::io::{Arrival, CallRules, DesktopPush, Output, QueueRules};
use crate::call::legs::{Closed, Ledger};
use crate::call::media::{Play, Prompt, Purpose, Sound, Stretch};
use crate::call::outcome::LegCause;
use crate::call::silence::Silences;
use crate::call::tap::Tap;
use crate::call::{CALL_LIMIT, IDS_REMEMBERED, STORE_LIMIT, VOICE_CONNECT_LIMIT};
use crate::clock::{Moment, Now};
use crate::conversation::{Conversation, Disclosed, Stimulus, TransferStanding};
use crate::event::{Evaluable, Fact, Played, Role, StoredRecording};
use crate::id::{HumanAgentId, LegId, PlayId, TransferId};
use crate::message;
use crate::payload::Payload;

/// What a call has in every state.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) arrival: Arrival,
    pub(super) rules: Arc<CallRules>,
    /// When the input at hand happened.
    pub(super) at: Moment,
    pub(super) out: Vec<Output>,
    /// Facts so far; the next one's number.
    pub(super) seq: u64,
    pub(super) legs: Ledger,
    pub(super) sound: Sound,
    pub(super) silences: Silences,
    pub(super) conversation: Conversation,
    pub(super) voice: VoiceLink,
    /// Nothing comes by that link, though it is open.
    pub(super) voice_silent: bool,
    /// Transfers so far; the ordinal of the last.
    pub(super) transfers: u32,
    /// A payload that came before the transfer it is for: its decision is late, or waits for
    /// the disclosure.
    early_payload: Option<(TransferId, Payload)>,
    pub(super) answered_at: Option<Now>,
    /// The disclosure was heard to its last sample.
    pub(super) disclosed: bool,
    /// How far the disclosure was heard is recorded.
    pub(super) disclosure_recorded: bool,
    /// The caller refused to be recorded, which is final.
    pub(super) refused: bool,
    /// No call lasts longer than this.
    pub(super) until: Now,
    pub(super) commands: Recent,
    /// What the turns go through before anything here or elsewhere sees them.
    pub(super) tap: Tap,
    /// The voice agent takes a payment: nothing is recorded meanwhile.
    pub(super) paying: bool,
    /// The caller leaves a message: their leg is recorded for it.
    pub(super) message: bool,
    /// What the caller's egress sent since the transition message of the transfer under way; the
    /// stretch before it is the voice agent's and counts for nothing.
    pub(super) proof: Option<Stretch>,
    /// Legs that are recorded, and whether that is paused.
    recorded: BTreeMap<LegId, bool>,
    /// Ended recordings that are not reported to lie on disk yet.
    unstored: BTreeSet<LegId>,
    /// No report of them is awaited longer; set once every leg is closed.
    store_until: Option<Now>,
}

/// The link to the voice agent. One more link is tried when one is lost; a link that was
/// asked for anew (a caller handed back) has its own second try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VoiceLink {
    /// Not asked for, or lost for good.
    Gone,
    /// Being opened.
    Connecting { leg: LegId, until: Now, retry: bool },
    /// Open.
    Up { leg: LegId, retry: bool },
}

impl VoiceLink {
    /// The leg, if the link is open.
    pub(super) const fn up(self) -> Option<LegId> {
        match self {
            Self::Up { leg, .. } => Some(leg),
            Self::Gone | Self::Connecting { .. } => None,
        }
    }

    /// The leg, open or being opened.
    pub(super) const fn leg(self) -> Option<LegId> {
        match self {
            Self::Up { leg, .. } | Self::Connecting { leg, .. } => Some(leg),
            Self::Gone => None,
        }
    }

    /// Another link may be tried when this one is lost.
    pub(super) const fn may_retry(self) -> bool {
        match self {
            Self::Up { retry, .. } | Self::Connecting { retry, .. } => retry,
            Self::Gone => false,
        }
    }
}

/// The last ids of one kind, so that a repeated one is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(VecDeque<String>);

impl Recent {
    /// Remembers `id`; `false` when it is known already.
    pub(super) fn insert(&mut self, id: &str) -> bool {
        if self.0.iter().any(|known| known == id) {
            return false;
        }
        if self.0.len() >= IDS_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(id.to_owned());
        true
    }
}

impl Core {
    pub(super) fn new(at: Moment, arrival: Arrival, rules: Arc<CallRules>) -> Self {
        let conversation = Conversation::new(
            at,
            arrival.caller.clone(),
            arrival.call_type.clone(),
            rules.policy.version().to_owned(),
        );
        let silences = Silences::new(rules.rtp_timeout);
        Self {
            arrival,
            rules,
            at,
            out: Vec::new(),
            seq: 0,
            legs: Ledger::new(),
            sound: Sound::default(),
            silences,
            conversation,
            voice: VoiceLink::Gone,
            voice_silent: false,
            transfers: 0,
            early_payload: None,
            answered_at: None,
            disclosed: false,
            disclosure_recorded: false,
            refused: false,
            until: at.now + CALL_LIMIT,
            commands: Recent::default(),
            tap: Tap::new(),
            paying: false,
            message: false,
            proof: None,
            recorded: BTreeMap::new(),
            unstored: BTreeSet::new(),
            store_until: None,
        }
    }

    /// The caller was answered: the clock of the conversation starts here.
    pub(super) fn caller_answered(&mut self) {
        self.answered_at = Some(self.at.now);
        self.conversation = Conversation::new(
            self.at,
            self.arrival.caller.clone(),
            self.arrival.call_type.clone(),
            self.rules.policy.version().to_owned(),
        );
    }

    /// Milliseconds from the answer to `now`.
    pub(super) fn offset_ms(&self, now: Now) -> u64 {
        millis(self.answered_at.map_or(std::time::Duration::ZERO, |since| now.since(since)))
    }

    pub(super) fn emit(&mut self, fact: Fact) {
        self.emit_with(fact, None);
    }

    pub(super) fn emit_with(&mut self, fact: Fact, evaluable: Option<Box<Evaluable>>) {
        self.out.push(Output::Emit { seq: self.seq, at: self.at.wall, fact, evaluable });
        self.seq += 1;
    }

    pub(super) fn open_leg(&mut self, role: Role) -> LegId {
        let leg = self.legs.open(role);
        self.emit(Fact::LegOpened { leg, role });
        leg
    }

    /// Orders the end of a leg, once.
    pub(super) fn hang_up(&mut self, leg: LegId, cause: LegCause) {
        self.silences.forget(leg);
        if self.legs.order_end(leg, self.at.now, cause) {
            self.out.push(Output::HangUp { leg, cause });
        }
    }

    /// A leg is over.
    pub(super) fn close_leg(&mut self, leg: LegId, cause: LegCause) {
        self.stop_recording(leg);
        self.silences.forget(leg);
        if let Some(closed) = self.legs.close(leg, self.at.now, cause) {
            let Closed { role, cause, billed_ms, quality } = closed;
            self.emit(Fact::LegClosed { leg, role, cause, billed_ms, quality });
        }
    }

    /// Opens a link to the voice agent; `retry` says whether a second one may follow.
    pub(super) fn connect_voice(&mut self, retry: bool) {
        let leg = self.open_leg(Role::VoiceAgent);
        self.out.push(Output::ConnectVoiceAgent { leg });
        self.voice_silent = false;
        self.voice = VoiceLink::Connecting { leg, until: self.at.now + VOICE_CONNECT_LIMIT, retry };
    }

    /// Lets the voice agent go.
    pub(super) fn release_voice(&mut self, transfer_id: Option<TransferId>, reason: &str) {
        let link = std::mem::replace(&mut self.voice, VoiceLink::Gone);
        let Some(leg) = link.leg() else { return };
        if link.up().is_some() {
            self.emit(Fact::VoiceAgentReleased { transfer_id, reason: reason.to_owned() });
        }
        self.hang_up(leg, LegCause::LocalHangUp);
    }

    /// Tells the voice agent how its transfer stands, if it is there.
    pub(super) fn tell_voice(&mut self, status: &'static str, eta_s: Option<u32>) {
        if let Some(leg) = self.voice.up() {
            self.out.push(Output::TellVoiceAgent { leg, status, eta_s });
        }
    }

    pub(super) fn desktop(&mut self, agent: &HumanAgentId, push: DesktopPush) {
        self.out.push(Output::Desktop { agent: agent.clone(), push });
    }

    /// Starts a prompt: it is heard as soon as a state routes it somewhere.
    pub(super) fn play(&mut self, purpose: Purpose, prompt: Prompt) -> PlayId {
        self.sound.start(self.at.now, purpose, prompt)
    }

    /// A prompt is over: what was proven to be heard is recorded, whatever the state is now.
    /// `false` for a play that is not known (any more).
    pub(super) fn play_ended(&mut self, play: PlayId, played_pm: u16) -> bool {
        let Some(Play { purpose, prompt, since }) = self.sound.end(play) else { return false };
        let lang = self.rules.lang.clone();
        let (from_ms, to_ms) = (self.offset_ms(since), self.offset_ms(self.at.now));
        let played = |text_id: String| Played { text_id, lang, played_pm, from_ms, to_ms };
        let heard = |text_id: String| Disclosed {
            text_id,
            text_sha256: Some(message::text_sha256(&prompt)),
            played_pm,
            at: Some(self.at.wall),
        };
        match purpose {
            Purpose::Disclosure => {
                let text_id = self.rules.disclosure.clone();
                self.disclosed |= played_pm >= 1_000;
                self.disclosure_recorded = true;
                super::brief::disclosed(&mut self.conversation, heard(text_id.clone()), self.rules.recording);
                self.emit(Fact::DisclosureAi(played(text_id)));
            }
            Purpose::Transition { transfer_id, text_id, anchor_s } => {
                super::brief::announced(&mut self.conversation, heard(text_id.clone()));
                let played = played(text_id);
                self.emit(Fact::TransitionPlayed { transfer_id, played, anchor_s });
            }
            Purpose::Whisper { agent_id } => self.emit(Fact::WhisperEnded { agent_id, played_pm }),
            Purpose::Unrecorded => {}
        }
        true
    }

    /// What an evaluation is about, for the function and for a fallback decision.
    pub(super) fn evaluable(
        &self,
        stimulus: Stimulus,
        standing: TransferStanding,
        transfer_id: TransferId,
    ) -> Evaluable {
        let snapshot = self.conversation.snapshot(self.at.now, standing);
        Evaluable { snapshot, stimulus, transfer_id, context: None }
    }

    /// The id of the transfer that the next decision starts.
    pub(super) fn next_transfer(&self) -> TransferId {
        TransferId::of(&self.arrival.call, self.transfers.saturating_add(1))
    }

    /// Keeps a payload for the next transfer.
    pub(super) fn keep_payload(&mut self, transfer: TransferId, payload: Payload) {
        let newer = self.early_payload.as_ref().is_none_or(|(_, kept)| payload.revision > kept.revision);
        if newer {
            self.early_payload = Some((transfer, payload));
        }
    }

    /// The payload that was kept for `transfer`.
    pub(super) fn kept_payload(&mut self, transfer: &TransferId) -> Option<Payload> {
        self.early_payload.take().filter(|(id, _)| id == transfer).map(|(_, payload)| payload)
    }

    /// The id of the latest transfer.
    pub(super) fn last_transfer(&self) -> TransferId {
        TransferId::of(&self.arrival.call, self.transfers)
    }

    pub(super) fn queue(&self, index: usize) -> Option<&QueueRules> {
        self.rules.queues.get(index)
    }

    /// When a rule has something to say about the time, while no transfer is under way.
    pub(super) fn clock_due(&self) -> Option<Now> {
        self.answered_at?;
        self.conversation.next_timeout(&self.rules.policy)
    }

    /// A message of the caller may be kept: they know that a machine speaks, have not refused to
    /// be recorded, and say no card number.
    pub(super) const fn may_keep_message(&self) -> bool {
        self.disclosed && !self.refused && !self.paying
    }

    /// The caller shows a number to call back.
    pub(super) const fn may_call_back(&self) -> bool {
        self.arrival.caller.e164.is_some() && !self.arrival.caller.restricted
    }

    /// Whether `leg` is to be recorded: every one where calls are, the caller's for a message.
    fn is_recorded(&self, leg: LegId) -> bool {
        let wanted = self.rules.recording || (self.message && leg == LegId::CALLER);
        wanted && self.disclosed && !self.refused && self.legs.is_up(leg)
    }

    /// Recordings follow the legs: on while a leg is up, the disclosure was heard whole and
    /// nobody refused; interrupted while a payment is taken.
    pub(super) fn follow_recordings(&mut self) {
        for leg in self.recorded.keys().copied().collect::<Vec<_>>() {
            if !self.is_recorded(leg) {
                self.stop_recording(leg);
                self.out.push(Output::Record { leg, on: false });
            }
        }
        for leg in self.legs.ids() {
            if !self.is_recorded(leg) {
                continue;
            }
            let offset_ms = self.offset_ms(self.at.now);
            let fact = match self.recorded.get(&leg) {
                None if self.paying => continue,
                None => Fact::RecordingStarted { leg, offset_ms },
                Some(false) if self.paying => {
                    Fact::RecordingPaused { leg, reason: "payment".to_owned(), offset_ms }
                }
                Some(true) if !self.paying => Fact::RecordingResumed { leg, offset_ms },
                Some(_) => continue,
            };
            self.recorded.insert(leg, self.paying);
            self.emit(fact);
            self.out.push(Output::Record { leg, on: !self.paying });
        }
    }

    /// The caller refused to be recorded: what was recorded before the refusal goes too.
    pub(super) fn refuse_recording(&mut self) {
        let first = !std::mem::replace(&mut self.refused, true);
        let recorded = self.rules.recording || !self.recorded.is_empty() || !self.unstored.is_empty();
        self.follow_recordings();
        if first && recorded {
            self.unstored.clear();
            self.out.push(Output::DiscardRecordings);
        }
    }

    /// The recording of a leg lies on disk.
    pub(super) fn recording_stored(&mut self, leg: LegId, recording: StoredRecording) {
        if self.unstored.remove(&leg) {
            self.emit(Fact::RecordingStored { leg, recording });
        }
    }

    /// Every leg is closed: whether the last facts can be written, because no report of a
    /// recording is awaited any more.
    pub(super) fn recordings_settled(&mut self) -> bool {
        if self.unstored.is_empty() {
            return true;
        }
        let until = *self.store_until.get_or_insert(self.at.now + STORE_LIMIT);
        self.at.now >= until
    }

    /// When the last report of a recording is given up, once every leg is closed.
    pub(super) const fn store_due(&self) -> Option<Now> {
        self.store_until
    }

    fn stop_recording(&mut self, leg: LegId) {
        if self.recorded.remove(&leg).is_some() {
            let offset_ms = self.offset_ms(self.at.now);
            self.unstored.insert(leg);
            self.emit(Fact::RecordingStopped { leg, offset_ms });
        }
    }
}

/// The earliest of several deadlines.
pub(super) fn earliest<const N: usize>(deadlines: [Option<Now>; N]) -> Option<Now> {
    deadlines.into_iter().flatten().min()
}

/// A duration in whole milliseconds.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
