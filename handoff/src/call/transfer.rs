//! A transfer from its decision to its end. Its parts run beside each other: the message
//! to the caller (draining, playing, played, then the hold bed) and the offer to a person
//! (searching, calling, briefing, accepted). The phase is derived from both; no part waits
//! for another except at the barrier.

use std::collections::VecDeque;

use crate::call::State;
use crate::call::bridge;
use crate::call::brief;
use crate::call::core::{Core, earliest, millis};
use crate::call::ending;
use crate::call::io::{DesktopPush, Fallback, Output};
use crate::call::media::{Prompt, Purpose};
use crate::call::offer::Offer;
use crate::call::outcome::{DegradedReason, FallbackTaken, LegCause, Outcome, Phase};
use crate::call::silence::HeldBy;
use crate::call::talk;
use crate::call::{
    DRAIN_LIMIT, EDGE_FALLBACK, HOLD_UPDATE_EVERY, NOTICE_LIMIT, PROMPT_LIMIT, SPOKEN_WAIT_MIN_S,
    TRANSFERS_MAX,
};
use crate::clock::{Moment, Now};
use crate::event::{Evaluable, Fact, Mode};
use crate::id::{HumanAgentId, LegId, PayloadId, PlayId, TransferId};
use crate::message;
use crate::payload::Payload;
use crate::policy::{Decision, Origin};

/// A decision that is to be carried out. `publish` is set for a decision of the edge's own.
#[derive(Clone, Debug)]
pub(super) struct Adoption {
    pub(super) decision: Decision,
    pub(super) publish: Option<Box<Evaluable>>,
}

/// One transfer under way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) id: TransferId,
    pub(super) decision: Decision,
    /// Index of its queue in the rules.
    pub(super) queue: usize,
    pub(super) decided_at: Moment,
    /// When its present queue became responsible: at the decision, or at an overflow.
    pub(super) entered_at: Now,
    /// Wait to announce, in seconds from then.
    pub(super) estimate_s: u32,
    /// The caller is to be told of another queue.
    moved: bool,
    /// The caller left the hold bed for a link of the chain that speaks.
    pub(super) aside: bool,
    /// What is left of the fallback chain of its first queue.
    pub(super) chain: VecDeque<Fallback>,
    pub(super) announcement: Announcement,
    pub(super) offer: Offer,
    /// Attempts so far.
    pub(super) attempts: u32,
    /// Attempts in the present queue.
    pub(super) attempts_here: u32,
    /// Persons who are not (again) offered this transfer, in order.
    pub(super) tried: Vec<HumanAgentId>,
    /// How the last attempt ended.
    pub(super) last: Option<Outcome>,
    pub(super) payload: Option<Payload>,
    /// When the edge builds the payload itself, if none has come.
    pub(super) payload_due: Option<Now>,
    /// Highest revision that the destination named by the queue has.
    pub(super) delivered: u32,
    /// A destination configured as required missed its budget.
    pub(super) missed: bool,
}

/// What the caller is told, and hears after that.
#[derive(Debug)]
pub(super) enum Announcement {
    /// Queued speech of the voice agent is played out first.
    Draining { until: Now },
    /// The message plays.
    Playing { play: PlayId, until: Now },
    /// It was played to its end; the caller is on the hold bed.
    Played(Bed),
}

/// The hold bed.
#[derive(Debug)]
pub(super) struct Bed {
    /// The caller's leg was put on hold by re-INVITE.
    pub(super) signalled: bool,
    /// The voice agent goes on hearing the caller.
    pub(super) overheard: bool,
    update: Update,
}

/// The announcement of the remaining wait.
#[derive(Clone, Copy, Debug)]
enum Update {
    Due(Now),
    Playing { play: PlayId, until: Now },
}

impl Bed {
    /// The update that plays now.
    pub(super) const fn update(&self) -> Option<PlayId> {
        match self.update {
            Update::Playing { play, .. } => Some(play),
            Update::Due(_) => None,
        }
    }
}

impl Transfer {
    /// The phase, derived from how far the offer and the message are.
    pub(super) const fn phase(&self) -> Phase {
        match (&self.offer, &self.announcement) {
            (Offer::Accepted(_), _) => Phase::Barrier,
            (Offer::Briefing(_), _) => Phase::Briefing,
            (_, Announcement::Played(_)) => Phase::Offering,
            (_, Announcement::Draining { .. } | Announcement::Playing { .. }) => Phase::Announcing,
        }
    }

    /// A person has said yes.
    pub(super) const fn is_accepted(&self) -> bool {
        matches!(self.offer, Offer::Accepted(_))
    }

    /// The wait that was announced last, in seconds from the decision.
    pub(super) fn announced_s(&self) -> u32 {
        let before = self.entered_at.since(self.decided_at.now).as_secs();
        self.estimate_s.saturating_add(u32::try_from(before).unwrap_or(u32::MAX))
    }

    /// The next deadline of any of its parts.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        let said = match &self.announcement {
            Announcement::Draining { until } | Announcement::Playing { until, .. } => Some(*until),
            Announcement::Played(Bed { update, .. }) => match update {
                // Who is about to be connected is told nothing; should that fail, what is
                // overdue is told at once.
                Update::Due(_) if self.is_accepted() => None,
                Update::Due(until) | Update::Playing { until, .. } => Some(*until),
            },
        };
        earliest([said, self.offer.next_timeout(), self.payload_due])
    }

    /// Why it would be degraded now, apart from the acknowledgement.
    pub(super) fn missed(&self) -> Option<DegradedReason> {
        self.missed.then_some(DegradedReason::DestinationMissed)
    }

    fn waived(&self) -> bool {
        self.decision.trigger.waives_waits
    }
}

/// Carries a decision out: the message and the search for a person begin in the same
/// moment.
pub(super) fn begin(core: &mut Core, adoption: Adoption) -> State {
    let request = core.conversation.context().request.and_then(|request| request.queue);
    let wanted =
        request.and_then(|name| core.rules.queues.iter().position(|queue| queue.id.as_str() == name));
    start(core, adoption, wanted.unwrap_or(0), Vec::new(), false)
}

/// A new transfer for a caller whose human agent was lost: the caller hears an apology in
/// place of the message, and the lost agent is not tried again.
pub(super) fn resume(core: &mut Core, adoption: Adoption, queue: usize, lost: HumanAgentId) -> State {
    start(core, adoption, queue, vec![lost], true)
}

fn start(
    core: &mut Core,
    adoption: Adoption,
    queue: usize,
    tried: Vec<HumanAgentId>,
    apologise: bool,
) -> State {
    let Adoption { decision, publish } = adoption;
    let Some(rules) = core.queue(queue).filter(|_| core.transfers < TRANSFERS_MAX).cloned() else {
        return nowhere(core);
    };
    core.transfers += 1;
    core.conversation.record_decision(&decision.trigger, &core.rules.policy);
    let (id, now) = (decision.transfer_id.clone(), core.at.now);
    let fact = Fact::TransferDecided {
        decision: decision.clone(),
        queue: rules.id.clone(),
        disclosed: core.disclosed,
        mode: rules.mode,
    };
    core.emit(fact);
    if let Some(evaluable) = publish {
        core.out.push(Output::PublishDecision { evaluable, decision: decision.clone() });
    }
    core.proof = None;
    core.tell_voice("accepted", Some(rules.wait_default_s));
    let own = decision.origin == Origin::EdgeFallback;
    let payload = core.kept_payload(&id);
    let mut transfer = Box::new(Transfer {
        id,
        decision,
        queue,
        decided_at: core.at,
        entered_at: now,
        estimate_s: rules.wait_default_s,
        moved: false,
        aside: false,
        chain: rules.fallback.iter().cloned().collect(),
        announcement: Announcement::Draining { until: now + DRAIN_LIMIT },
        offer: Offer::search(core, &rules, &tried),
        attempts: 0,
        attempts_here: 0,
        tried,
        last: None,
        payload_due: payload.is_none().then_some(now + EDGE_FALLBACK),
        payload,
        delivered: 0,
        missed: false,
    });
    if own {
        build_payload(core, &mut transfer);
    }
    if apologise {
        let play = core.play(Purpose::Unrecorded, message::apology(&core.rules.lang));
        transfer.announcement = Announcement::Playing { play, until: now + PROMPT_LIMIT };
    } else {
        match core.voice.up() {
            Some(leg) if !transfer.waived() => core.out.push(Output::DrainVoiceAgent { leg }),
            Some(_) | None => announce(core, &mut transfer),
        }
    }
    State::Transferring(transfer)
}

/// There is no queue to go to, or the call was transferred too often already.
fn nowhere(core: &mut Core) -> State {
    if core.voice.up().is_some() {
        return talk::back(core, None);
    }
    ending::closing(core, message::closing(&core.rules.lang.clone()), "failed")
}

/// The voice agent has said what it had to say, or has had its time.
pub(super) fn drained(core: &mut Core, mut transfer: Box<Transfer>) -> State {
    if matches!(transfer.announcement, Announcement::Draining { .. }) {
        announce(core, &mut transfer);
    }
    State::Transferring(transfer)
}

/// Cuts what the voice agent still has queued and plays the message.
pub(super) fn announce(core: &mut Core, transfer: &mut Transfer) {
    if let Some(leg) = core.voice.up() {
        core.out.push(Output::ClearVoiceAgent { leg });
    }
    transfer.moved = false;
    let spoken = core.queue(transfer.queue).map(|queue| queue.spoken.clone()).unwrap_or_default();
    let category = transfer.decision.trigger.category;
    let message = message::transition(category, &spoken, transfer.estimate_s, &core.rules.lang);
    let purpose = Purpose::Transition {
        transfer_id: transfer.id.clone(),
        text_id: message.text_id,
        anchor_s: message.anchor_s,
    };
    let play = core.play(purpose, message.prompt);
    transfer.announcement = Announcement::Playing { play, until: core.at.now + PROMPT_LIMIT };
}

/// A prompt to the caller or to the person ended.
pub(super) fn play_ended(core: &mut Core, mut transfer: Box<Transfer>, play: PlayId) -> State {
    match &mut transfer.announcement {
        Announcement::Playing { play: playing, .. } if *playing == play => return told(core, transfer),
        Announcement::Played(bed) if bed.update() == Some(play) => {
            bed.update = Update::Due(core.at.now + HOLD_UPDATE_EVERY);
        }
        Announcement::Draining { .. } | Announcement::Playing { .. } | Announcement::Played(_) => {}
    }
    super::offer::play_ended(core, transfer, play)
}

/// The message is over: the caller goes to the hold bed. No re-INVITE is sent once a person
/// has answered, so that none stands between their accept and the first word.
fn told(core: &mut Core, mut transfer: Box<Transfer>) -> State {
    let signalled = core.rules.hold_by_reinvite && !transfer.offer.is_answered();
    core.emit(Fact::HoldStarted { leg: LegId::CALLER, reason: "transfer".to_owned() });
    if signalled {
        core.silences.hold(LegId::CALLER, HeldBy::Us, true, core.at.now);
        core.out.push(Output::Hold { leg: LegId::CALLER });
    }
    let update = Update::Due(core.at.now + HOLD_UPDATE_EVERY);
    transfer.announcement =
        Announcement::Played(Bed { signalled, overheard: core.rules.cancel_while_waiting, update });
    redirect(core, &mut transfer);
    bridge::try_bridge(core, transfer)
}

/// Takes the caller's leg back from hold, where it was put there.
pub(super) fn unhold(core: &mut Core, transfer: &mut Transfer) {
    if let Announcement::Played(Bed { signalled: signalled @ true, .. }) = &mut transfer.announcement {
        *signalled = false;
        core.silences.hold(LegId::CALLER, HeldBy::Us, false, core.at.now);
        core.out.push(Output::Resume { leg: LegId::CALLER });
    }
}

/// A hold re-INVITE was refused: there is nothing to take back.
pub(super) fn hold_refused(core: &mut Core, transfer: &mut Transfer) {
    if let Announcement::Played(bed) = &mut transfer.announcement {
        bed.signalled = false;
        core.silences.hold(LegId::CALLER, HeldBy::Us, false, core.at.now);
    }
}

/// Deadlines of the message, the bed and the payload.
pub(super) fn tick(core: &mut Core, mut transfer: Box<Transfer>) -> State {
    let now = core.at.now;
    if transfer.payload_due.is_some_and(|due| now >= due) {
        build_payload(core, &mut transfer);
    }
    match transfer.announcement {
        Announcement::Draining { until } if now >= until => announce(core, &mut transfer),
        Announcement::Playing { play, until } if now >= until => {
            // The end was never reported, so nothing is proven to have been heard.
            core.play_ended(play, 0);
            let state = told(core, transfer);
            let State::Transferring(told) = state else { return state };
            transfer = told;
        }
        Announcement::Played(_) => update(core, &mut transfer),
        Announcement::Draining { .. } | Announcement::Playing { .. } => {}
    }
    super::offer::tick(core, transfer)
}

/// Tells the caller how long it still takes, unless a person has said yes.
fn update(core: &mut Core, transfer: &mut Transfer) {
    let now = core.at.now;
    let waited_s = u32::try_from(now.since(transfer.entered_at).as_secs()).unwrap_or(u32::MAX);
    let remaining_s = transfer.estimate_s.saturating_sub(waited_s).max(SPOKEN_WAIT_MIN_S);
    let accepted = transfer.is_accepted();
    let spoken = core.queue(transfer.queue).map(|queue| queue.spoken.clone()).unwrap_or_default();
    let Announcement::Played(bed) = &mut transfer.announcement else { return };
    match bed.update {
        Update::Due(due) if now >= due && !accepted => {
            let prompt = message::hold_update(&spoken, remaining_s, &core.rules.lang);
            let play = core.play(Purpose::Unrecorded, prompt);
            bed.update = Update::Playing { play, until: now + NOTICE_LIMIT };
        }
        Update::Playing { until, .. } if now >= until => bed.update = Update::Due(now + HOLD_UPDATE_EVERY),
        Update::Due(_) | Update::Playing { .. } => {}
    }
}

/// Builds the payload from what the edge knows, where none has come.
pub(super) fn build_payload(core: &mut Core, transfer: &mut Transfer) {
    transfer.payload_due = None;
    if transfer.payload.is_some() {
        return;
    }
    let payload = brief::template(core, transfer);
    core.emit(Fact::PayloadBuilt {
        payload_id: PayloadId::of(&transfer.id),
        revision: payload.revision,
        generator: payload.generator().to_owned(),
        completeness_pm: payload.completeness_pm(),
        canonical: brief::canonical(&payload),
    });
    put_payload(core, transfer, payload);
}

/// The people of its queue are told nothing before they are connected.
pub(super) fn is_cold(core: &Core, transfer: &Transfer) -> bool {
    core.queue(transfer.queue).is_some_and(|queue| queue.mode == Mode::Cold)
}

/// A payload revision came. `false` when it is not higher than what is there, or frozen.
pub(super) fn take_payload(core: &mut Core, transfer: &mut Transfer, payload: Payload) -> bool {
    let known = transfer.payload.as_ref().map_or(0, |payload| payload.revision);
    if payload.revision <= known || matches!(transfer.offer, Offer::Accepted(_)) {
        return false;
    }
    transfer.payload_due = None;
    put_payload(core, transfer, payload);
    true
}

fn put_payload(core: &mut Core, transfer: &mut Transfer, payload: Payload) {
    if let Some(target) = transfer.offer.target()
        && !is_cold(core, transfer)
    {
        let push = DesktopPush::Card { transfer: transfer.id.clone(), payload: Box::new(payload.clone()) };
        core.desktop(&target.agent.clone(), push);
    }
    transfer.payload = Some(payload);
}

/// The people of another queue are tried, after those of the one before. The caller stays where
/// they are, and is told where they go now as soon as somebody is found there.
pub(super) fn overflow(core: &mut Core, mut transfer: Box<Transfer>, queue: usize, reason: &str) -> State {
    let Some(rules) = core.queue(queue).cloned() else { return State::Transferring(transfer) };
    core.emit(Fact::FallbackChosen {
        kind: FallbackTaken::Queue,
        reason: reason.to_owned(),
        queue: Some(rules.id.clone()),
    });
    transfer.queue = queue;
    transfer.entered_at = core.at.now;
    transfer.estimate_s = rules.wait_default_s;
    transfer.attempts_here = 0;
    transfer.moved = true;
    if std::mem::take(&mut transfer.aside) {
        wait_again(core, &mut transfer);
    }
    transfer.offer = Offer::search(core, &rules, &transfer.tried);
    State::Transferring(transfer)
}

/// Back to the hold bed, which is not told to the caller's trunk a second time.
fn wait_again(core: &mut Core, transfer: &mut Transfer) {
    core.emit(Fact::HoldStarted { leg: LegId::CALLER, reason: "transfer".to_owned() });
    let update = Update::Due(core.at.now + HOLD_UPDATE_EVERY);
    let overheard = core.rules.cancel_while_waiting;
    transfer.announcement = Announcement::Played(Bed { signalled: false, overheard, update });
}

/// Until when the people of the present queue are rung.
pub(super) fn patience_until(core: &Core, transfer: &Transfer) -> Option<Now> {
    Some(transfer.entered_at + core.queue(transfer.queue)?.patience?)
}

/// Tells a caller on the hold bed that they go somewhere else now. Where the message is still to
/// come, it names the new place; where it plays, this follows it.
pub(super) fn redirect(core: &mut Core, transfer: &mut Transfer) {
    let Announcement::Played(bed) = &mut transfer.announcement else { return };
    if !std::mem::take(&mut transfer.moved) {
        return;
    }
    let spoken = core.queue(transfer.queue).map(|queue| queue.spoken.clone()).unwrap_or_default();
    let prompt = message::redirect(&spoken, transfer.estimate_s, &core.rules.lang);
    let play = core.play(Purpose::Unrecorded, prompt);
    bed.update = Update::Playing { play, until: core.at.now + NOTICE_LIMIT };
}

/// Back to the voice agent, because nobody took the call.
pub(super) fn returned(core: &mut Core, transfer: Box<Transfer>) -> State {
    let outcome = transfer.last.unwrap_or(Outcome::ReturnedToVoiceAgent);
    let words = message::returning(&core.rules.lang);
    give_back(core, transfer, outcome, FallbackTaken::VoiceAgent, Some(words))
}

/// Takes the transfer back before anybody accepted. Where the voice agent is gone there is
/// nobody to go back to, and where somebody accepted it is too late: then it goes on.
pub(super) fn cancel(core: &mut Core, mut transfer: Box<Transfer>) -> (State, bool) {
    if core.voice.up().is_none() || matches!(transfer.offer, Offer::Accepted(_)) {
        return (State::Transferring(transfer), false);
    }
    transfer.offer.withdraw(core, &transfer.id, LegCause::Cancelled, "ended");
    (give_back(core, transfer, Outcome::Cancelled, FallbackTaken::None, None), true)
}

fn give_back(
    core: &mut Core,
    mut transfer: Box<Transfer>,
    outcome: Outcome,
    taken: FallbackTaken,
    words: Option<Prompt>,
) -> State {
    unhold(core, &mut transfer);
    end(core, *transfer, outcome, taken, "returned");
    if words.is_none() || !core.disclosed {
        core.tell_voice("failed", None);
    }
    talk::back(core, words)
}

/// Records how a transfer ended that never reached its bridge. Exactly once per transfer,
/// since it takes the transfer.
pub(super) fn end(
    core: &mut Core,
    transfer: Transfer,
    outcome: Outcome,
    fallback: FallbackTaken,
    hold_reason: &str,
) {
    if matches!(transfer.announcement, Announcement::Played(_)) {
        core.emit(Fact::HoldEnded { leg: LegId::CALLER, reason: hold_reason.to_owned() });
    }
    core.conversation.record_failed_attempt();
    record_end(core, transfer.id, outcome, fallback, None);
}

/// The fact itself.
pub(super) fn record_end(
    core: &mut Core,
    transfer_id: TransferId,
    outcome: Outcome,
    fallback: FallbackTaken,
    skew_ms: Option<u64>,
) {
    if let Some(stretch) = core.proof.take().filter(|stretch| stretch.packets > 0) {
        core.emit(Fact::MediaProof { transfer_id: transfer_id.clone(), stretch });
    }
    let class = outcome.class().as_str().to_owned();
    core.emit(Fact::TransferEnded { transfer_id, outcome, fallback, skew_ms, class });
}

/// How long the caller has waited since the decision, in milliseconds.
pub(super) fn waited_ms(core: &Core, transfer: &Transfer) -> u64 {
    millis(core.at.now.since(transfer.decided_at.now))
}
