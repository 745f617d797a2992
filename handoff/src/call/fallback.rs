//! What a caller is offered whom nobody could take: the links of the queue's chain, in its
//! order. A link that cannot be taken, or that comes to nothing, gives way to the next; the
//! closing message is behind the last, so that no call ends in silence. A message is kept only
//! where the caller was told that they speak to a machine and has not refused to be recorded;
//! a call back is promised only on a number that they show, and only by their own key.

use crate::call::State;
use crate::call::core::Core;
use crate::call::ending;
use crate::call::io::{Fallback, Output};
use crate::call::media::{Purpose, Source};
use crate::call::offer::Offer;
use crate::call::outcome::{FailureCause, FallbackTaken, Outcome};
use crate::call::transfer::{self, Announcement, Transfer};
use crate::call::{ANSWER_LIMIT, MESSAGE_LIMIT, NOTICE_LIMIT};
use crate::clock::Now;
use crate::event::{Fact, MessageEnd};
use crate::id::{CallbackId, LegId, PlayId};
use crate::message;

/// The caller is offered something in place of a person.
#[derive(Debug)]
pub(super) struct FallingBack {
    /// The transfer that it belongs to, with what is left of its chain.
    pub(super) transfer: Box<Transfer>,
    stage: Stage,
}

/// How far the link at hand is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The caller is told how to leave a message, up to the tone.
    Inviting { play: PlayId, until: Now },
    /// They leave it.
    Recording { from_ms: u64, spoke: bool, until: Now },
    /// They are asked whether to call them back; the question may be over.
    Asking { play: Option<PlayId>, until: Now },
}

impl FallingBack {
    /// The next deadline.
    pub(super) const fn next_timeout(&self) -> Now {
        match self.stage {
            Stage::Inviting { until, .. } | Stage::Recording { until, .. } | Stage::Asking { until, .. } => {
                until
            }
        }
    }

    /// What the caller hears.
    pub(super) fn heard(&self) -> Source {
        match self.stage {
            Stage::Inviting { play, .. } => Source::Prompt(play),
            Stage::Recording { .. } => Source::Comfort,
            Stage::Asking { play, .. } => play.map_or(Source::Comfort, Source::Prompt),
        }
    }

    /// The link at hand.
    const fn taken(&self) -> FallbackTaken {
        match self.stage {
            Stage::Inviting { .. } | Stage::Recording { .. } => FallbackTaken::Voicemail,
            Stage::Asking { .. } => FallbackTaken::Callback,
        }
    }
}

/// Nobody (else) of the queue can be tried: the next link of the chain.
pub(super) fn begin(core: &mut Core, transfer: Box<Transfer>) -> State {
    let reason = transfer.last.map_or("nobody_available", Outcome::name);
    descend(core, transfer, reason)
}

/// The next link that can be taken. What came to nothing is the reason.
fn descend(core: &mut Core, mut transfer: Box<Transfer>, reason: &'static str) -> State {
    while let Some(link) = transfer.chain.pop_front() {
        match link {
            Fallback::Queue(id) => {
                if let Some(queue) = core.rules.queues.iter().position(|queue| queue.id == id) {
                    return transfer::overflow(core, transfer, queue, reason);
                }
            }
            Fallback::VoiceAgent if core.voice.up().is_some() => {
                record(core, FallbackTaken::VoiceAgent, reason);
                return transfer::returned(core, transfer);
            }
            Fallback::Voicemail if core.may_keep_message() => return invite(core, transfer, reason),
            Fallback::Callback if core.may_call_back() => return ask(core, transfer, reason),
            Fallback::VoiceAgent | Fallback::Voicemail | Fallback::Callback => {}
            Fallback::Closing => break,
        }
    }
    record(core, FallbackTaken::Closing, reason);
    let outcome = outcome(&transfer);
    transfer::end(core, *transfer, outcome, FallbackTaken::Closing, "ended");
    ending::closing(core, message::closing(&core.rules.lang.clone()), "failed")
}

fn record(core: &mut Core, kind: FallbackTaken, reason: &str) {
    core.emit(Fact::FallbackChosen { kind, reason: reason.to_owned(), queue: None });
}

/// How the transfer ends where a machine has the last word.
fn outcome(transfer: &Transfer) -> Outcome {
    transfer.last.unwrap_or(Outcome::Failed { cause: FailureCause::NobodyAvailable })
}

/// The caller leaves the hold bed for a link that speaks. A voice agent that no later link goes
/// back to has nothing left to do here.
fn enter(core: &mut Core, transfer: &mut Transfer, kind: FallbackTaken, reason: &str, play: PlayId) {
    record(core, kind, reason);
    transfer::unhold(core, transfer);
    if matches!(transfer.announcement, Announcement::Played(_)) {
        core.emit(Fact::HoldEnded { leg: LegId::CALLER, reason: "fallback".to_owned() });
    }
    transfer.announcement = Announcement::Playing { play, until: core.at.now + NOTICE_LIMIT };
    transfer.offer = Offer::Withdrawn;
    transfer.aside = true;
    // Whoever listens to the message or calls back reads it.
    transfer::build_payload(core, transfer);
    if !transfer.chain.contains(&Fallback::VoiceAgent) {
        core.release_voice(Some(transfer.id.clone()), "ended");
    } else if let Some(leg) = core.voice.up() {
        core.out.push(Output::ClearVoiceAgent { leg });
    }
}

fn invite(core: &mut Core, mut transfer: Box<Transfer>, reason: &str) -> State {
    let play = core.play(Purpose::Unrecorded, message::voicemail(&core.rules.lang));
    enter(core, &mut transfer, FallbackTaken::Voicemail, reason, play);
    let stage = Stage::Inviting { play, until: core.at.now + NOTICE_LIMIT };
    State::FallingBack(Box::new(FallingBack { transfer, stage }))
}

fn ask(core: &mut Core, mut transfer: Box<Transfer>, reason: &str) -> State {
    let play = core.play(Purpose::Unrecorded, message::callback(&core.rules.lang));
    enter(core, &mut transfer, FallbackTaken::Callback, reason, play);
    let stage = Stage::Asking { play: Some(play), until: core.at.now + NOTICE_LIMIT };
    State::FallingBack(Box::new(FallingBack { transfer, stage }))
}

/// A prompt is over.
pub(super) fn play_ended(core: &mut Core, mut falling: Box<FallingBack>, play: PlayId) -> State {
    match &mut falling.stage {
        Stage::Inviting { play: playing, .. } if *playing == play => return listen(core, falling),
        Stage::Asking { play: playing @ Some(_), until } if *playing == Some(play) => {
            *playing = None;
            *until = core.at.now + ANSWER_LIMIT;
        }
        Stage::Inviting { .. } | Stage::Recording { .. } | Stage::Asking { .. } => {}
    }
    State::FallingBack(falling)
}

/// The tone was heard: from here on the caller's leg is recorded, whether calls are or not.
fn listen(core: &mut Core, mut falling: Box<FallingBack>) -> State {
    if !core.may_keep_message() {
        return descend(core, falling.transfer, "no_message");
    }
    let from_ms = core.offset_ms(core.at.now);
    core.message = true;
    if !core.rules.recording {
        core.emit(Fact::RecordingConsent {
            value: "implied_by_continuing".to_owned(),
            method: "voicemail".to_owned(),
            at_ms: from_ms,
        });
    }
    falling.stage = Stage::Recording { from_ms, spoke: false, until: core.at.now + MESSAGE_LIMIT };
    State::FallingBack(falling)
}

/// The caller has begun to speak.
pub(super) fn spoke(mut falling: Box<FallingBack>) -> State {
    if let Stage::Recording { spoke, .. } = &mut falling.stage {
        *spoke = true;
    }
    State::FallingBack(falling)
}

/// The caller says nothing (more).
pub(super) fn quiet(core: &mut Core, falling: Box<FallingBack>) -> State {
    message_over(core, falling, MessageEnd::Pause)
}

/// A key of the caller: any ends a message, 1 and 2 answer the question.
pub(super) fn key(core: &mut Core, falling: Box<FallingBack>, digit: char) -> State {
    match (falling.stage, digit) {
        (Stage::Asking { .. }, '1') => promise(core, *falling.transfer),
        (Stage::Asking { .. }, '2') => descend(core, falling.transfer, "callback_declined"),
        (Stage::Recording { .. }, _) => message_over(core, falling, MessageEnd::Key),
        (Stage::Inviting { .. } | Stage::Asking { .. }, _) => State::FallingBack(falling),
    }
}

/// The message is over. Where there is none, the next link follows.
fn message_over(core: &mut Core, falling: Box<FallingBack>, ended_by: MessageEnd) -> State {
    let Stage::Recording { .. } = falling.stage else { return State::FallingBack(falling) };
    let kept = keep_message(core, &falling, ended_by);
    core.message = false;
    if !kept {
        return descend(core, falling.transfer, "no_message");
    }
    let outcome = outcome(&falling.transfer);
    transfer::end(core, *falling.transfer, outcome, FallbackTaken::Voicemail, "ended");
    ending::closing(core, message::message_kept(&core.rules.lang.clone()), "normal")
}

/// Records that a message was left. `false` where nothing was said or nothing may be kept.
fn keep_message(core: &mut Core, falling: &FallingBack, ended_by: MessageEnd) -> bool {
    let Stage::Recording { from_ms, spoke: true, .. } = falling.stage else { return false };
    if core.refused {
        return false;
    }
    let (transfer_id, to_ms) = (falling.transfer.id.clone(), core.offset_ms(core.at.now));
    core.emit(Fact::VoicemailLeft { transfer_id, leg: LegId::CALLER, from_ms, to_ms, ended_by });
    true
}

/// The caller wants to be called back.
fn promise(core: &mut Core, transfer: Transfer) -> State {
    let outcome = transfer.last.unwrap_or(Outcome::CallbackScheduled);
    let callback_id = CallbackId::of(&transfer.id);
    core.emit(Fact::CallbackRequested { transfer_id: transfer.id.clone(), callback_id });
    transfer::end(core, transfer, outcome, FallbackTaken::Callback, "ended");
    ending::closing(core, message::callback_promised(&core.rules.lang.clone()), "normal")
}

/// A deadline of the link.
pub(super) fn tick(core: &mut Core, falling: Box<FallingBack>) -> State {
    if core.at.now < falling.next_timeout() {
        return State::FallingBack(falling);
    }
    match falling.stage {
        Stage::Inviting { play, .. } => {
            core.play_ended(play, 0);
            listen(core, falling)
        }
        Stage::Recording { .. } => message_over(core, falling, MessageEnd::Limit),
        Stage::Asking { play: Some(play), .. } => {
            core.play_ended(play, 0);
            play_ended(core, falling, play)
        }
        Stage::Asking { play: None, .. } => descend(core, falling.transfer, "callback_unanswered"),
    }
}

/// The call ends in the middle of it: what was said until then is a message.
pub(super) fn leave(core: &mut Core, falling: Box<FallingBack>, outcome: Option<Outcome>) {
    keep_message(core, &falling, MessageEnd::HangUp);
    core.message = false;
    let (taken, last) = (falling.taken(), self::outcome(&falling.transfer));
    transfer::end(core, *falling.transfer, outcome.unwrap_or(last), taken, "ended");
}
