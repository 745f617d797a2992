//! The offer of a transfer to one person after another: find, tell the desktop, ring,
//! brief in private, and wait for a yes. Only a person's own act is a yes; an answered
//! phone may be a machine, and a machine runs into the deadline.

use crate::call::State;
use crate::call::bridge;
use crate::call::brief;
use crate::call::core::{Core, earliest};
use crate::call::fallback;
use crate::call::io::{DesktopPush, Output, PayloadAck, QueueRules, Target};
use crate::call::media::Purpose;
use crate::call::outcome::{DegradedReason, FailureCause, LegCause, Outcome};
use crate::call::transfer::{self, Transfer};
use crate::call::{ATTEMPTS_LIMIT, BARRIER_WAIT_MAX, BRIEFING_LIMIT, RING_LIMIT, SEARCH_LIMIT};
use crate::clock::Now;
use crate::event::{DeclineReason, Fact, Means, Role};
use crate::id::{HumanAgentId, LegId, PlayId, TransferId};
use crate::message;

/// How far the offer is.
#[derive(Debug)]
pub(super) enum Offer {
    /// The directory looks for a person.
    Searching { until: Now },
    /// The phone was dialled.
    Calling(Calling),
    /// The phone was answered.
    Briefing(Briefing),
    /// The person said yes.
    Accepted(Accepted),
    /// Taken back; nothing follows.
    Withdrawn,
}

/// A phone that rings, or soon will.
#[derive(Debug)]
pub(super) struct Calling {
    pub(super) target: Target,
    pub(super) leg: LegId,
    ringing: bool,
    /// Said yes on the desktop before the phone was answered.
    early: Option<Means>,
    /// Highest revision that the desktop has painted.
    painted: u32,
    until: Now,
}

/// A person (or a machine) on the phone who has not said yes.
#[derive(Debug)]
pub(super) struct Briefing {
    pub(super) target: Target,
    pub(super) leg: LegId,
    stage: Stage,
    /// Highest revision that the desktop has painted.
    painted: u32,
    until: Now,
    overall: Now,
}

/// How far the briefing is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing personal is said before somebody proves to be there.
    Proving { play: Option<PlayId> },
    /// The whisper plays.
    Whispering { play: PlayId },
    /// It was played; a yes or a no is awaited.
    Asking,
}

/// A person who said yes.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) target: Target,
    pub(super) leg: LegId,
    /// The payload revision that the yes froze.
    pub(super) revision: u32,
    /// What the person hears.
    speech: Option<PlayId>,
    /// The whisper whose end is still to be reported, and until when that is awaited.
    pub(super) whisper: Option<(PlayId, Now)>,
    pub(super) ack: Ack,
    /// The desktop had painted the frozen revision before the yes.
    pub(super) painted: bool,
}

/// The acknowledgement that opens the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// Awaited.
    Waiting { until: Now },
    /// It came.
    At(Now),
    /// The bridge does not wait (any more).
    Given(Option<DegradedReason>),
}

impl Offer {
    /// Orders a search and waits for its answer.
    pub(super) fn search(core: &mut Core, queue: &QueueRules, tried: &[HumanAgentId]) -> Self {
        core.out.push(Output::FindTarget { queue: queue.id.clone(), exclude: tried.to_vec() });
        Self::Searching { until: core.at.now + SEARCH_LIMIT }
    }

    /// The person that it is about.
    pub(super) const fn target(&self) -> Option<&Target> {
        match self {
            Self::Calling(Calling { target, .. })
            | Self::Briefing(Briefing { target, .. })
            | Self::Accepted(Accepted { target, .. }) => Some(target),
            Self::Searching { .. } | Self::Withdrawn => None,
        }
    }

    /// Its leg.
    pub(super) const fn leg(&self) -> Option<LegId> {
        match self {
            Self::Calling(Calling { leg, .. })
            | Self::Briefing(Briefing { leg, .. })
            | Self::Accepted(Accepted { leg, .. }) => Some(*leg),
            Self::Searching { .. } | Self::Withdrawn => None,
        }
    }

    /// Somebody (or something) is on the phone.
    pub(super) const fn is_answered(&self) -> bool {
        matches!(self, Self::Briefing(_) | Self::Accepted(_))
    }

    /// What the person's phone plays, where it was answered.
    pub(super) const fn speech(&self) -> Option<(LegId, Option<PlayId>)> {
        match self {
            Self::Briefing(Briefing { leg, stage, .. }) => {
                let speech = match stage {
                    Stage::Proving { play } => *play,
                    Stage::Whispering { play } => Some(*play),
                    Stage::Asking => None,
                };
                Some((*leg, speech))
            }
            Self::Accepted(Accepted { leg, speech, .. }) => Some((*leg, *speech)),
            Self::Searching { .. } | Self::Calling(_) | Self::Withdrawn => None,
        }
    }

    /// Its next deadline.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        match self {
            Self::Searching { until }
            | Self::Calling(Calling { until, .. })
            | Self::Briefing(Briefing { until, .. }) => Some(*until),
            Self::Accepted(accepted) => {
                let whisper = accepted.whisper.map(|(_, until)| until);
                let ack = match accepted.ack {
                    Ack::Waiting { until } => Some(until),
                    Ack::At(_) | Ack::Given(_) => None,
                };
                earliest([whisper, ack])
            }
            Self::Withdrawn => None,
        }
    }

    /// Nothing on the person's side is left to wait for.
    pub(super) const fn is_ready(&self) -> bool {
        match self {
            Self::Accepted(accepted) => {
                accepted.whisper.is_none() && !matches!(accepted.ack, Ack::Waiting { .. })
            }
            Self::Searching { .. } | Self::Calling(_) | Self::Briefing(_) | Self::Withdrawn => false,
        }
    }

    /// The acknowledgement will not come.
    pub(super) fn wait_no_more(&mut self) {
        if let Self::Accepted(accepted) = self
            && matches!(accepted.ack, Ack::Waiting { .. })
        {
            accepted.ack = Ack::Given(Some(DegradedReason::DestinationMissed));
        }
    }

    /// Takes the offer back: the phone and the desktop are told.
    pub(super) fn withdraw(
        &mut self,
        core: &mut Core,
        transfer: &TransferId,
        unanswered: LegCause,
        reason: &'static str,
    ) {
        let Some((leg, agent)) = self.leg().zip(self.target().map(|target| target.agent.clone())) else {
            *self = Self::Withdrawn;
            return;
        };
        let cause = if self.is_answered() { LegCause::LocalHangUp } else { unanswered };
        *self = Self::Withdrawn;
        core.hang_up(leg, cause);
        core.desktop(&agent, DesktopPush::Ended { transfer: transfer.clone(), reason });
    }
}

/// The directory found a person: the desktop is told before the phone rings.
pub(super) fn found(
    core: &mut Core,
    mut transfer: Box<Transfer>,
    target: Target,
    estimate_s: Option<u32>,
) -> State {
    if !matches!(transfer.offer, Offer::Searching { .. }) {
        return State::Transferring(transfer);
    }
    transfer.estimate_s = estimate_s.unwrap_or(transfer.estimate_s);
    transfer::redirect(core, &mut transfer);
    let agent = target.agent.clone();
    transfer.tried.push(agent.clone());
    transfer.attempts += 1;
    transfer.attempts_here += 1;
    let attempt = transfer.attempts;
    let leg = core.open_leg(Role::HumanAgent);
    core.emit(Fact::AgentOffered { agent_id: agent.clone(), attempt, leg });
    let waited_ms = transfer::waited_ms(core, &transfer);
    let call = core.arrival.call.clone();
    core.desktop(&agent, DesktopPush::Incoming { transfer: transfer.id.clone(), call, attempt, waited_ms });
    if let Some(payload) = transfer.payload.clone().filter(|_| !transfer::is_cold(core, &transfer)) {
        core.desktop(&agent, DesktopPush::Card { transfer: transfer.id.clone(), payload: Box::new(payload) });
    }
    core.out.push(Output::Invite { leg, agent, transfer: transfer.id.clone() });
    let until = core.at.now + target.ring_timeout.min(RING_LIMIT);
    let until = transfer::patience_until(core, &transfer).map_or(until, |limit| limit.min(until));
    transfer.offer = Offer::Calling(Calling { target, leg, ringing: false, early: None, painted: 0, until });
    State::Transferring(transfer)
}

/// The directory has nobody (else).
pub(super) fn nobody(core: &mut Core, transfer: Box<Transfer>) -> State {
    if matches!(transfer.offer, Offer::Searching { .. }) {
        return fallback::begin(core, transfer);
    }
    State::Transferring(transfer)
}

/// The phone rings.
pub(super) fn ringing(core: &mut Core, mut transfer: Box<Transfer>, leg: LegId) -> State {
    let attempt = transfer.attempts;
    let eta_s = transfer.estimate_s;
    if let Offer::Calling(calling) = &mut transfer.offer
        && calling.leg == leg
        && !calling.ringing
    {
        calling.ringing = true;
        core.emit(Fact::AgentRinging { agent_id: calling.target.agent.clone(), attempt });
        core.tell_voice("ringing", Some(eta_s));
    }
    State::Transferring(transfer)
}

/// The phone was answered: the caller's leg is taken back from hold now, so that nothing is
/// left to negotiate at the bridge, and the briefing starts at once.
pub(super) fn answered(core: &mut Core, mut transfer: Box<Transfer>, leg: LegId) -> State {
    let offer = std::mem::replace(&mut transfer.offer, Offer::Withdrawn);
    let Offer::Calling(calling) = offer else {
        transfer.offer = offer;
        return State::Transferring(transfer);
    };
    if calling.leg != leg {
        transfer.offer = Offer::Calling(calling);
        return State::Transferring(transfer);
    }
    let Calling { target, early, painted, .. } = calling;
    let attempt = transfer.attempts;
    core.emit(Fact::AgentAnswered { agent_id: target.agent.clone(), attempt, leg });
    transfer::unhold(core, &mut transfer);
    let by_answering = target.trusted && target.accept_on_answer;
    let proven = target.trusted;
    let overall = core.at.now + BRIEFING_LIMIT;
    let stage = Stage::Proving { play: None };
    transfer.offer = Offer::Briefing(Briefing { target, leg, stage, painted, until: overall, overall });
    transfer::build_payload(core, &mut transfer);
    if let Some(means) = early {
        return accept(core, transfer, means);
    }
    let cold = transfer::is_cold(core, &transfer);
    if by_answering {
        if !cold {
            whisper(core, &mut transfer, false);
        }
        return accept(core, transfer, Means::SipAnswer);
    }
    if proven && !cold {
        whisper(core, &mut transfer, true);
    } else if let Offer::Briefing(briefing) = &mut transfer.offer {
        let play = core.play(Purpose::Unrecorded, message::presence(&briefing.target.lang));
        briefing.stage = Stage::Proving { play: Some(play) };
    }
    State::Transferring(transfer)
}

/// Starts the private briefing.
fn whisper(core: &mut Core, transfer: &mut Transfer, ask: bool) {
    let Offer::Briefing(briefing) = &mut transfer.offer else { return };
    let agent_id = briefing.target.agent.clone();
    let lang = &briefing.target.lang;
    let prompt = brief::whisper(transfer.payload.as_ref(), lang, ask);
    let text = brief::caption(transfer.payload.as_ref(), lang);
    let play = core.play(Purpose::Whisper { agent_id: agent_id.clone() }, prompt);
    briefing.stage = Stage::Whispering { play };
    core.desktop(&agent_id, DesktopPush::Caption { transfer: transfer.id.clone(), text });
    core.emit(Fact::WhisperStarted { agent_id });
}

/// A prompt of ours ended at the person's phone.
pub(super) fn play_ended(core: &mut Core, mut transfer: Box<Transfer>, play: PlayId) -> State {
    let now = core.at.now;
    match &mut transfer.offer {
        Offer::Briefing(briefing) => match briefing.stage {
            Stage::Proving { play: Some(playing) } if playing == play => {
                briefing.stage = Stage::Proving { play: None };
                briefing.until = (now + briefing.target.accept_timeout).min(briefing.overall);
            }
            Stage::Whispering { play: playing } if playing == play => {
                briefing.stage = Stage::Asking;
                briefing.until = (now + briefing.target.accept_timeout).min(briefing.overall);
            }
            Stage::Proving { .. } | Stage::Whispering { .. } | Stage::Asking => {}
        },
        Offer::Accepted(accepted) => {
            let whispered = accepted.whisper.is_some_and(|(playing, _)| playing == play);
            if whispered {
                accepted.whisper = None;
            }
            if accepted.speech == Some(play) {
                accepted.speech = None;
            }
            if whispered {
                return bridge::try_bridge(core, transfer);
            }
        }
        Offer::Searching { .. } | Offer::Calling(_) | Offer::Withdrawn => {}
    }
    State::Transferring(transfer)
}

/// A key on the person's phone: 1 is yes (or "I am here", where a briefing follows), 2 is no.
pub(super) fn key(core: &mut Core, mut transfer: Box<Transfer>, leg: LegId, digit: char) -> State {
    let proving = match &transfer.offer {
        Offer::Briefing(briefing) if briefing.leg == leg => matches!(briefing.stage, Stage::Proving { .. }),
        Offer::Searching { .. }
        | Offer::Calling(_)
        | Offer::Briefing(_)
        | Offer::Accepted(_)
        | Offer::Withdrawn => return State::Transferring(transfer),
    };
    match digit {
        '1' if proving && !transfer::is_cold(core, &transfer) => {
            whisper(core, &mut transfer, true);
            State::Transferring(transfer)
        }
        '1' => accept(core, transfer, Means::Dtmf),
        '2' => declined(core, transfer, DeclineReason::Declined),
        _ => State::Transferring(transfer),
    }
}

/// A yes by button or API. Before the phone is answered it is kept until then.
pub(super) fn accepted_by(
    core: &mut Core,
    mut transfer: Box<Transfer>,
    agent: &HumanAgentId,
    means: Means,
) -> State {
    match &mut transfer.offer {
        Offer::Calling(calling) if calling.target.agent == *agent => {
            calling.early.get_or_insert(means);
        }
        Offer::Briefing(briefing) if briefing.target.agent == *agent => return accept(core, transfer, means),
        Offer::Searching { .. }
        | Offer::Calling(_)
        | Offer::Briefing(_)
        | Offer::Accepted(_)
        | Offer::Withdrawn => {}
    }
    State::Transferring(transfer)
}

/// A no by button or API.
pub(super) fn declined_by(
    core: &mut Core,
    transfer: Box<Transfer>,
    agent: &HumanAgentId,
    reason: DeclineReason,
) -> State {
    match &transfer.offer {
        Offer::Calling(Calling { target, .. }) | Offer::Briefing(Briefing { target, .. })
            if target.agent == *agent =>
        {
            declined(core, transfer, reason)
        }
        Offer::Searching { .. }
        | Offer::Calling(_)
        | Offer::Briefing(_)
        | Offer::Accepted(_)
        | Offer::Withdrawn => State::Transferring(transfer),
    }
}

/// The yes: it freezes the payload and opens the wait for its acknowledgement.
fn accept(core: &mut Core, mut transfer: Box<Transfer>, method: Means) -> State {
    let offer = std::mem::replace(&mut transfer.offer, Offer::Withdrawn);
    let Offer::Briefing(briefing) = offer else {
        transfer.offer = offer;
        return State::Transferring(transfer);
    };
    let Briefing { target, leg, stage, painted, overall, .. } = briefing;
    let now = core.at.now;
    let revision = transfer.payload.as_ref().map_or(0, |payload| payload.revision);
    let agent_id = target.agent.clone();
    let cold = transfer::is_cold(core, &transfer);
    if matches!(stage, Stage::Proving { .. }) && !cold {
        // The person read the card instead: the whisper was skipped whole.
        core.emit(Fact::WhisperEnded { agent_id: agent_id.clone(), played_pm: 0 });
    }
    core.emit(Fact::AgentAccepted { agent_id: agent_id.clone(), leg, method, revision });
    core.desktop(&agent_id, DesktopPush::Accepted { transfer: transfer.id.clone(), revision });
    let hear_out = method == Means::SipAnswer;
    let whisper = match stage {
        Stage::Whispering { play } if hear_out => Some((play, overall)),
        Stage::Whispering { play } => Some((play, now + BARRIER_WAIT_MAX)),
        Stage::Proving { .. } | Stage::Asking => None,
    };
    let speech = match whisper {
        Some((play, _)) if hear_out => play,
        Some(_) | None => core.play(Purpose::Unrecorded, message::connecting(&target.lang)),
    };
    let desktop_decides =
        core.queue(transfer.queue).is_none_or(|queue| queue.payload_ack == PayloadAck::Desktop);
    let ack = if cold {
        Ack::Given(None)
    } else if desktop_decides && !target.desktop && painted == 0 {
        Ack::Given(Some(DegradedReason::NoDesktop))
    } else if !desktop_decides && transfer.delivered >= revision {
        Ack::Given(None)
    } else {
        Ack::Waiting { until: now + BARRIER_WAIT_MAX }
    };
    let painted = painted >= revision && desktop_decides;
    let speech = Some(speech);
    transfer.offer = Offer::Accepted(Accepted { target, leg, revision, speech, whisper, ack, painted });
    bridge::try_bridge(core, transfer)
}

/// The no.
fn declined(core: &mut Core, mut transfer: Box<Transfer>, reason: DeclineReason) -> State {
    record_decline(core, &transfer, reason, None);
    transfer.offer.withdraw(core, &transfer.id, LegCause::Cancelled, "declined");
    failed(core, transfer, Outcome::Declined)
}

/// The desktop shows a revision.
pub(super) fn painted(
    core: &mut Core,
    mut transfer: Box<Transfer>,
    agent: &HumanAgentId,
    revision: u32,
) -> State {
    if transfer.offer.target().is_none_or(|target| target.agent != *agent) {
        return State::Transferring(transfer);
    }
    let desktop_decides =
        core.queue(transfer.queue).is_none_or(|queue| queue.payload_ack == PayloadAck::Desktop);
    let now = core.at.now;
    let news = match &mut transfer.offer {
        Offer::Calling(Calling { target, painted, .. })
        | Offer::Briefing(Briefing { target, painted, .. }) => {
            target.desktop = true;
            let news = revision > *painted;
            *painted = revision.max(*painted);
            news
        }
        Offer::Accepted(accepted) if desktop_decides && revision >= accepted.revision => {
            let news = matches!(accepted.ack, Ack::Waiting { .. });
            if news {
                accepted.ack = Ack::At(now);
            }
            news
        }
        Offer::Accepted(_) | Offer::Searching { .. } | Offer::Withdrawn => false,
    };
    if news {
        core.emit(Fact::ScreenpopAcked {
            destination: "desktop".to_owned(),
            agent_id: agent.clone(),
            revision,
        });
    }
    bridge::try_bridge(core, transfer)
}

/// The phone is over before anybody said yes, or after that but before the bridge.
pub(super) fn lost(
    core: &mut Core,
    mut transfer: Box<Transfer>,
    leg: LegId,
    cause: LegCause,
    status: Option<u16>,
) -> State {
    if transfer.offer.leg() != Some(leg) {
        return State::Transferring(transfer);
    }
    let phase = transfer.phase();
    let (outcome, reason) = if transfer.offer.is_answered() {
        record_decline(core, &transfer, DeclineReason::Lost, status);
        (Outcome::AgentLost { phase }, "ended")
    } else {
        refused(core, &transfer, cause, status)
    };
    transfer.offer.withdraw(core, &transfer.id, LegCause::LocalHangUp, reason);
    failed(core, transfer, outcome)
}

/// What an end before the answer means: the outcome, and the word for the desktop.
fn refused(
    core: &mut Core,
    transfer: &Transfer,
    cause: LegCause,
    status: Option<u16>,
) -> (Outcome, &'static str) {
    let (outcome, decline) = match cause {
        LegCause::NoAnswer => {
            record_no_answer(core, transfer);
            return (Outcome::NoAnswer, "no_answer");
        }
        LegCause::Declined => (Outcome::Declined, DeclineReason::Declined),
        LegCause::Busy => (Outcome::Busy, DeclineReason::Busy),
        LegCause::Refused => {
            (Outcome::Failed { cause: FailureCause::SignallingRefused }, DeclineReason::Busy)
        }
        LegCause::RemoteHangUp
        | LegCause::LocalHangUp
        | LegCause::Cancelled
        | LegCause::Unreachable
        | LegCause::Lost
        | LegCause::Drained => (Outcome::Failed { cause: FailureCause::Unreachable }, DeclineReason::Busy),
    };
    record_decline(core, transfer, decline, status);
    (outcome, if decline == DeclineReason::Declined { "declined" } else { "ended" })
}

/// Deadlines of the offer.
pub(super) fn tick(core: &mut Core, mut transfer: Box<Transfer>) -> State {
    let now = core.at.now;
    match &mut transfer.offer {
        Offer::Searching { until } if now >= *until => fallback::begin(core, transfer),
        Offer::Calling(Calling { until, .. }) if now >= *until => {
            record_no_answer(core, &transfer);
            transfer.offer.withdraw(core, &transfer.id, LegCause::NoAnswer, "no_answer");
            failed(core, transfer, Outcome::NoAnswer)
        }
        Offer::Briefing(Briefing { until, .. }) if now >= *until => {
            record_decline(core, &transfer, DeclineReason::NeverAccepted, None);
            transfer.offer.withdraw(core, &transfer.id, LegCause::LocalHangUp, "no_answer");
            failed(core, transfer, Outcome::Voicemail)
        }
        Offer::Accepted(accepted) => {
            if let Ack::Waiting { until } = accepted.ack
                && now >= until
            {
                let missing = (!accepted.painted).then_some(DegradedReason::AckTimeout);
                accepted.ack = Ack::Given(missing);
            }
            if let Some((play, until)) = accepted.whisper
                && now >= until
            {
                accepted.whisper = None;
                if accepted.speech == Some(play) {
                    accepted.speech = None;
                }
                core.play_ended(play, 0);
            }
            bridge::try_bridge(core, transfer)
        }
        Offer::Searching { .. } | Offer::Calling(_) | Offer::Briefing(_) | Offer::Withdrawn => {
            State::Transferring(transfer)
        }
    }
}

/// An attempt failed: the next person, or the fallback chain.
fn failed(core: &mut Core, mut transfer: Box<Transfer>, outcome: Outcome) -> State {
    transfer.last = Some(outcome);
    let Some(queue) = core.queue(transfer.queue).cloned() else {
        return fallback::begin(core, transfer);
    };
    let enough = transfer.attempts_here >= queue.attempts_max.max(1) || transfer.attempts >= ATTEMPTS_LIMIT;
    let impatient = transfer::patience_until(core, &transfer).is_some_and(|limit| core.at.now >= limit);
    if !outcome.is_retried() || enough || impatient {
        return fallback::begin(core, transfer);
    }
    transfer.offer = Offer::search(core, &queue, &transfer.tried);
    State::Transferring(transfer)
}

fn record_no_answer(core: &mut Core, transfer: &Transfer) {
    if let Some(target) = transfer.offer.target() {
        let attempt = transfer.attempts;
        core.emit(Fact::AgentNoAnswer { agent_id: target.agent.clone(), attempt });
    }
}

fn record_decline(core: &mut Core, transfer: &Transfer, reason: DeclineReason, status: Option<u16>) {
    if let Some(target) = transfer.offer.target() {
        let attempt = transfer.attempts;
        core.emit(Fact::AgentDeclined { agent_id: target.agent.clone(), attempt, reason, status });
    }
}
