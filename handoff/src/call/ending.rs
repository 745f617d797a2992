//! How a call ends: who left, what the others still hear, and that every leg is closed.
//! After the order to end, only the ends of legs matter; a limit bounds the wait for them.

use crate::call::State;
use crate::call::bridge;
use crate::call::core::{Core, earliest};
use crate::call::fallback;
use crate::call::io::{DesktopPush, Output};
use crate::call::media::{Prompt, Purpose};
use crate::call::offer::Offer;
use crate::call::outcome::{FailureCause, FallbackTaken, LegCause, Outcome};
use crate::call::transfer;
use crate::call::{CLOSE_LIMIT, FAREWELL_LIMIT, NOTICE_LIMIT};
use crate::clock::Now;
use crate::event::Fact;
use crate::id::{LegId, PlayId};
use crate::message;

/// The call is over; its legs are being closed.
#[derive(Debug)]
pub(super) struct Ending {
    cause: &'static str,
    side: &'static str,
    /// What a human agent still hears whose caller left in the briefing.
    pub(super) farewell: Option<Farewell>,
    /// No end of a leg is awaited longer.
    until: Now,
}

/// The fixed sentence for a human agent whose caller left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Farewell {
    pub(super) leg: LegId,
    pub(super) play: PlayId,
    until: Now,
}

impl Ending {
    /// The next deadline.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        earliest([Some(self.until), self.farewell.map(|farewell| farewell.until)])
    }
}

/// Orders the end of every leg.
pub(super) fn end(core: &mut Core, cause: &'static str, side: &'static str, leg_cause: LegCause) -> State {
    ending(core, cause, side, leg_cause, None)
}

fn ending(
    core: &mut Core,
    cause: &'static str,
    side: &'static str,
    leg_cause: LegCause,
    farewell: Option<Farewell>,
) -> State {
    core.release_voice(None, "ended");
    for leg in core.legs.ids() {
        if farewell.is_none_or(|farewell| farewell.leg != leg) {
            core.hang_up(leg, leg_cause);
        }
    }
    State::Ending(Ending { cause, side, farewell, until: core.at.now + CLOSE_LIMIT })
}

/// The caller is gone, in whatever state: the one input that every state obeys.
pub(super) fn caller_gone(core: &mut Core, state: State, cause: LegCause) -> State {
    core.close_leg(LegId::CALLER, cause);
    without_caller(core, state, cause)
}

/// What follows when the caller's leg is over, or about to be ended by us.
pub(super) fn without_caller(core: &mut Core, state: State, cause: LegCause) -> State {
    let normal = if cause == LegCause::RemoteHangUp { "normal" } else { "failed" };
    match state {
        State::Transferring(mut transfer) => {
            let phase = transfer.phase();
            let transfer_id = transfer.id.clone();
            core.emit(Fact::CallerAbandoned { transfer_id, phase: phase.as_str().to_owned() });
            let farewell = farewell(core, &transfer.offer);
            if let Some(agent) = transfer.offer.target().map(|target| target.agent.clone()) {
                let push = DesktopPush::Ended { transfer: transfer.id.clone(), reason: "caller_left" };
                core.desktop(&agent, push);
            }
            if farewell.is_none()
                && let Some(leg) = transfer.offer.leg()
            {
                core.hang_up(leg, LegCause::Cancelled);
            }
            transfer.offer = Offer::Withdrawn;
            let outcome = Outcome::AbandonedByCaller { phase };
            transfer::end(core, *transfer, outcome, FallbackTaken::None, "ended");
            ending(core, normal, "caller", LegCause::LocalHangUp, farewell)
        }
        State::Bridged(mut bridge) => {
            bridge::settle(core, &mut bridge);
            let agent = bridge.target.agent.clone();
            core.desktop(&agent, DesktopPush::Ended { transfer: bridge.transfer.clone(), reason: "ended" });
            end(core, normal, "caller", LegCause::LocalHangUp)
        }
        State::FallingBack(falling) => {
            fallback::leave(core, falling, None);
            end(core, normal, "caller", LegCause::LocalHangUp)
        }
        State::Arriving { .. } | State::Disclosing(_) | State::WithVoiceAgent(_) | State::Closing { .. } => {
            end(core, normal, "caller", LegCause::LocalHangUp)
        }
        State::Ending(ending) => State::Ending(ending),
        State::Finished => State::Finished,
    }
}

/// A person who was being briefed is told that the caller has left.
fn farewell(core: &mut Core, offer: &Offer) -> Option<Farewell> {
    let leg = offer.leg().filter(|_| offer.is_answered())?;
    let lang = offer.target().map(|target| target.lang.clone()).unwrap_or_default();
    let play = core.play(Purpose::Unrecorded, message::caller_left(&lang));
    Some(Farewell { leg, play, until: core.at.now + FAREWELL_LIMIT })
}

/// Ends the call now, for a reason of ours.
pub(super) fn stop(core: &mut Core, state: State, cause: &'static str, leg_cause: LegCause) -> State {
    match state {
        State::Transferring(mut transfer) => {
            transfer.offer.withdraw(core, &transfer.id, leg_cause, "ended");
            let outcome = Outcome::Failed { cause: FailureCause::Drained };
            transfer::end(core, *transfer, outcome, FallbackTaken::None, "ended");
        }
        State::FallingBack(falling) => {
            fallback::leave(core, falling, Some(Outcome::Failed { cause: FailureCause::Drained }));
        }
        State::Bridged(mut bridge) => {
            bridge::settle(core, &mut bridge);
            let agent = bridge.target.agent.clone();
            core.desktop(&agent, DesktopPush::Ended { transfer: bridge.transfer.clone(), reason: "ended" });
        }
        State::Ending(ending) => {
            let farewell = ending.farewell;
            if let Some(farewell) = farewell {
                core.hang_up(farewell.leg, leg_cause);
            }
            return State::Ending(Ending { farewell: None, ..ending });
        }
        State::Finished => return State::Finished,
        State::Arriving { .. } | State::Disclosing(_) | State::WithVoiceAgent(_) | State::Closing { .. } => {}
    }
    end(core, cause, "system", leg_cause)
}

/// The end of every fallback chain: the caller hears the last words, then the call ends for
/// this cause.
pub(super) fn closing(core: &mut Core, words: Prompt, cause: &'static str) -> State {
    core.release_voice(None, "ended");
    for leg in core.legs.ids() {
        if leg != LegId::CALLER {
            core.hang_up(leg, LegCause::LocalHangUp);
        }
    }
    let play = core.play(Purpose::Unrecorded, words);
    State::Closing { play, until: core.at.now + NOTICE_LIMIT, cause }
}

/// The farewell was heard.
pub(super) fn play_ended(core: &mut Core, mut ending: Ending, play: PlayId) -> State {
    if let Some(farewell) = ending.farewell.filter(|farewell| farewell.play == play) {
        core.hang_up(farewell.leg, LegCause::LocalHangUp);
        ending.farewell = None;
    }
    State::Ending(ending)
}

/// Deadlines of the end.
pub(super) fn tick(core: &mut Core, mut ending: Ending) -> State {
    let now = core.at.now;
    if let Some(farewell) = ending.farewell.filter(|farewell| now >= farewell.until) {
        core.hang_up(farewell.leg, LegCause::LocalHangUp);
        ending.farewell = None;
    }
    if now >= ending.until {
        for leg in core.legs.ids() {
            core.close_leg(leg, LegCause::Lost);
        }
    }
    State::Ending(ending)
}

/// Writes the last facts, once every leg is closed.
pub(super) fn finish(core: &mut Core, ending: &Ending) {
    core.emit(Fact::CallEnded { cause: ending.cause.to_owned(), side: ending.side.to_owned() });
    let count = core.seq + 1;
    core.emit(Fact::ProducerFinal { count });
    core.out.push(Output::Finished);
}
