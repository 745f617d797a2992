//! The barrier before the bridge, the bridge, and the proof that it carried. The bridge is
//! made when a person has said yes, the message was played to its end and the payload is
//! acknowledged or no longer waited for. It counts as complete on receipts only: audio in
//! both directions and the acknowledgement.

use crate::call::State;
use crate::call::core::{Core, earliest, millis};
use crate::call::decide;
use crate::call::ending;
use crate::call::io::{DesktopPush, Output, PayloadAck, Survivor, Target};
use crate::call::offer::{Accepted, Ack, Offer};
use crate::call::outcome::{DegradedReason, FailureCause, FallbackTaken, LegCause, Outcome, Phase};
use crate::call::talk;
use crate::call::transfer::{self, Announcement, Transfer};
use crate::call::{AUDIO_PROOF_LIMIT, DELIVERY_SETTLES};
use crate::clock::Now;
use crate::conversation::Stimulus;
use crate::event::Fact;
use crate::id::{Epoch, HumanAgentId, LegId, TransferId};
use crate::message;
use crate::payload::Payload;
use crate::policy::{Decision, Trigger};

/// Caller and human agent are connected.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) transfer: TransferId,
    decision: Decision,
    queue: usize,
    pub(super) target: Target,
    pub(super) leg: LegId,
    pub(super) payload: Option<Payload>,
    /// The plan that connected them.
    epoch: Epoch,
    revision: u32,
    /// The desktop showed the frozen revision after the yes.
    acked_at: Option<Now>,
    /// The first packet of the human's audio left towards the caller.
    switched_at: Option<Now>,
    caller_heard: bool,
    human_heard: bool,
    degraded: Option<DegradedReason>,
    missed: bool,
    /// Until then two-way audio must have been seen.
    proof_due: Now,
    /// Until then a destination may still report that it missed its budget.
    settles_at: Now,
    /// `transfer.ended` is written.
    recorded: bool,
    /// The human agent's phone put us on hold.
    pub(super) held: bool,
    /// Nothing comes from the human agent's phone.
    pub(super) silent: bool,
}

impl Bridge {
    /// The next deadline, until the outcome is recorded.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        if self.recorded {
            return None;
        }
        let heard = self.caller_heard && self.human_heard;
        let proof = if heard { None } else { Some(self.proof_due) };
        // Both must have passed, so the later of the two is the next to wait for.
        earliest([proof.max(Some(self.settles_at))])
    }

    /// A required destination missed its budget. `false` once the outcome is recorded.
    pub(super) const fn undelivered(&mut self) -> bool {
        if !self.recorded {
            self.missed = true;
        }
        !self.recorded
    }

    fn outcome(&self) -> Outcome {
        match (self.caller_heard, self.human_heard) {
            (false, false) => return Outcome::Failed { cause: FailureCause::OneWayAudio },
            (true, false) | (false, true) => {
                return Outcome::CompletedDegraded { reason: DegradedReason::OneWayAudio };
            }
            (true, true) => {}
        }
        if self.missed {
            return Outcome::CompletedDegraded { reason: DegradedReason::DestinationMissed };
        }
        self.degraded.map_or(Outcome::Completed, |reason| Outcome::CompletedDegraded { reason })
    }

    /// |first packet of the human's audio to the caller − acknowledgement of the payload|.
    fn skew_ms(&self) -> Option<u64> {
        let (switched, acked) = (self.switched_at?, self.acked_at?);
        Some(millis(switched.since(acked).max(acked.since(switched))))
    }
}

/// Makes the bridge if nothing is left to wait for.
pub(super) fn try_bridge(core: &mut Core, mut transfer: Box<Transfer>) -> State {
    if !matches!(transfer.announcement, Announcement::Played(_)) || !transfer.offer.is_ready() {
        return State::Transferring(transfer);
    }
    let offer = std::mem::replace(&mut transfer.offer, Offer::Withdrawn);
    let Offer::Accepted(accepted) = offer else { return State::Transferring(transfer) };
    connect(core, *transfer, accepted)
}

fn connect(core: &mut Core, mut transfer: Transfer, accepted: Accepted) -> State {
    let now = core.at.now;
    let (acked_at, degraded) = match accepted.ack {
        Ack::At(at) => (Some(at), None),
        Ack::Given(degraded) => (None, degraded),
        Ack::Waiting { .. } => (None, Some(DegradedReason::AckTimeout)),
    };
    // A re-INVITE that is still open would leave the caller on hold beneath the bridge.
    transfer::unhold(core, &mut transfer);
    let shown = transfer.missed().or(degraded);
    core.emit(Fact::BridgeCompleted {
        transfer_id: transfer.id.clone(),
        degraded: shown.map(|reason| reason.as_str().to_owned()),
    });
    core.emit(Fact::HoldEnded { leg: LegId::CALLER, reason: "bridged".to_owned() });
    core.desktop(&accepted.target.agent, DesktopPush::Bridged { transfer: transfer.id.clone() });
    core.tell_voice("connected", None);
    core.release_voice(Some(transfer.id.clone()), "bridged");
    if let Some(queue) = core.queue(transfer.queue).map(|queue| queue.id.clone()) {
        let waited = now.since(transfer.entered_at).as_secs();
        core.out.push(Output::Learn { queue, waited_s: u32::try_from(waited).unwrap_or(u32::MAX) });
    }
    State::Bridged(Box::new(Bridge {
        transfer: transfer.id,
        decision: transfer.decision,
        queue: transfer.queue,
        target: accepted.target,
        leg: accepted.leg,
        payload: transfer.payload,
        epoch: core.sound.next_epoch(),
        revision: accepted.revision,
        acked_at,
        switched_at: None,
        caller_heard: false,
        human_heard: false,
        degraded,
        missed: transfer.missed,
        proof_due: now + AUDIO_PROOF_LIMIT,
        settles_at: transfer.decided_at.now + DELIVERY_SETTLES,
        recorded: false,
        held: false,
        silent: false,
    }))
}

/// The plan holds: the switch at the caller's egress is the moment that skew is taken from.
pub(super) fn applied(core: &Core, mut bridge: Box<Bridge>, epoch: Epoch, egress: LegId) -> State {
    if epoch == bridge.epoch && egress == LegId::CALLER {
        bridge.switched_at.get_or_insert(core.at.now);
    }
    State::Bridged(bridge)
}

/// Valid audio came from a leg since the bridge.
pub(super) fn audio_seen(core: &mut Core, mut bridge: Box<Bridge>, leg: LegId, epoch: Epoch) -> State {
    if epoch >= bridge.epoch {
        bridge.caller_heard |= leg == LegId::CALLER;
        bridge.human_heard |= leg == bridge.leg;
    }
    judge(core, bridge)
}

/// The desktop painted a revision; the frozen one may come after the bridge.
pub(super) fn painted(
    core: &mut Core,
    mut bridge: Box<Bridge>,
    agent: &HumanAgentId,
    revision: u32,
) -> State {
    let fits = bridge.target.agent == *agent && revision >= bridge.revision;
    if fits && bridge.acked_at.is_none() && !bridge.recorded {
        bridge.acked_at = Some(core.at.now);
        core.emit(Fact::ScreenpopAcked {
            destination: "desktop".to_owned(),
            agent_id: agent.clone(),
            revision,
        });
    }
    State::Bridged(bridge)
}

/// A deadline of the bridge.
pub(super) fn tick(core: &mut Core, bridge: Box<Bridge>) -> State {
    judge(core, bridge)
}

/// Records the outcome once it is certain.
fn judge(core: &mut Core, mut bridge: Box<Bridge>) -> State {
    let now = core.at.now;
    let proven = (bridge.caller_heard && bridge.human_heard) || now >= bridge.proof_due;
    if proven && now >= bridge.settles_at {
        settle(core, &mut bridge);
    }
    State::Bridged(bridge)
}

/// Records the outcome with what is known now. Exactly once.
pub(super) fn settle(core: &mut Core, bridge: &mut Bridge) {
    if !std::mem::replace(&mut bridge.recorded, true) {
        let (outcome, skew_ms) = (bridge.outcome(), bridge.skew_ms());
        transfer::record_end(core, bridge.transfer.clone(), outcome, FallbackTaken::None, skew_ms);
    }
}

/// The human agent's leg is over. The queue says where the caller goes then: one who hangs
/// up has usually ended the call, one who is lost has not.
pub(super) fn human_gone(core: &mut Core, mut bridge: Box<Bridge>, leg: LegId, cause: LegCause) -> State {
    if leg != bridge.leg {
        return State::Bridged(bridge);
    }
    let agent = bridge.target.agent.clone();
    core.desktop(&agent, DesktopPush::Ended { transfer: bridge.transfer.clone(), reason: "ended" });
    let left = cause == LegCause::RemoteHangUp;
    let survivor = core
        .queue(bridge.queue)
        .map_or(Survivor::End, |queue| if left { queue.on_agent_bye } else { queue.on_agent_lost });
    let taken = match survivor {
        Survivor::End | Survivor::Reoffer => FallbackTaken::None,
        Survivor::VoiceAgent => FallbackTaken::VoiceAgent,
        Survivor::Closing => FallbackTaken::Closing,
    };
    if left {
        settle(core, &mut bridge);
    } else if !std::mem::replace(&mut bridge.recorded, true) {
        let outcome = Outcome::AgentLost { phase: Phase::Bridged };
        let skew_ms = bridge.skew_ms();
        transfer::record_end(core, bridge.transfer.clone(), outcome, taken, skew_ms);
    }
    match survivor {
        Survivor::End => {
            let cause = if left { "normal" } else { "failed" };
            ending::end(core, cause, "human_agent", LegCause::LocalHangUp)
        }
        Survivor::Reoffer => reoffer(core, *bridge, agent),
        Survivor::VoiceAgent => talk::come_back(core),
        Survivor::Closing => ending::closing(core, message::closing(&core.rules.lang.clone()), "failed"),
    }
}

/// Another transfer, to somebody else.
fn reoffer(core: &mut Core, bridge: Bridge, agent: HumanAgentId) -> State {
    let Bridge { decision, queue, .. } = bridge;
    let trigger = Trigger {
        rule_id: "human_agent_lost".to_owned(),
        evidence: "the human agent's leg ended after the bridge".to_owned(),
        mandatory: true,
        ..decision.trigger
    };
    let adoption = decide::own_decision(core, trigger, Stimulus::Other);
    transfer::resume(core, adoption, queue, agent)
}

/// The human agent gives the caller back to the voice agent, which left at the bridge and
/// is called again; until it is there the caller hears the hold bed.
pub(super) fn hand_back(core: &mut Core, mut bridge: Box<Bridge>, agent: &HumanAgentId) -> State {
    if bridge.target.agent != *agent {
        return State::Bridged(bridge);
    }
    settle(core, &mut bridge);
    core.hang_up(bridge.leg, LegCause::LocalHangUp);
    core.desktop(agent, DesktopPush::Ended { transfer: bridge.transfer.clone(), reason: "ended" });
    if core.voice.leg().is_none() {
        core.connect_voice(true);
    }
    talk::back(core, None)
}

/// A destination has the payload.
pub(super) fn delivered(
    core: &mut Core,
    mut transfer: Box<Transfer>,
    destination: &str,
    revision: u32,
) -> State {
    let named = core.queue(transfer.queue).is_some_and(
        |queue| matches!(&queue.payload_ack, PayloadAck::Destination(id) if id.as_str() == destination),
    );
    if named && revision > transfer.delivered {
        transfer.delivered = revision;
        if let Some(agent_id) = transfer.offer.target().map(|target| target.agent.clone()) {
            core.emit(Fact::ScreenpopAcked { destination: destination.to_owned(), agent_id, revision });
        }
    }
    if let Offer::Accepted(accepted) = &mut transfer.offer
        && named
        && revision >= accepted.revision
        && matches!(accepted.ack, Ack::Waiting { .. })
    {
        accepted.ack = Ack::At(core.at.now);
    }
    try_bridge(core, transfer)
}
