//! What the cloud may tell a call. A command that was obeyed already has no second effect;
//! one that does not fit the state any more is refused, and the refusal is recorded.

use crate::call::State;
use crate::call::bridge;
use crate::call::core::Core;
use crate::call::io::PayloadAck;
use crate::call::talk;
use crate::call::transfer::{self, Adoption, Announcement};
use crate::command::{Command, CommandBody};
use crate::event::Fact;
use crate::policy::Decision;

/// Obeys, joins or refuses.
pub(super) fn obey(core: &mut Core, state: State, command: Command) -> State {
    if !core.commands.insert(&command.id) {
        return state;
    }
    let Command { id, call_id, body } = command;
    if call_id != core.arrival.call {
        return refuse(core, state, id, "other_call");
    }
    match body {
        CommandBody::TransferDecided { decision } => decided(core, state, id, decision),
        CommandBody::PayloadReady { transfer_id, payload } => match state {
            State::Transferring(mut transfer) if transfer.id == transfer_id => {
                let taken = transfer::take_payload(core, &mut transfer, *payload);
                let state = State::Transferring(transfer);
                if taken { state } else { refuse(core, state, id, "stale") }
            }
            other => refuse(core, other, id, "stale"),
        },
        CommandBody::PayloadAcknowledged { transfer_id, destination, revision, .. } => match state {
            State::Transferring(transfer) if transfer.id == transfer_id => {
                bridge::delivered(core, transfer, &destination, revision)
            }
            // An acknowledgement that comes after the bridge tells nothing new.
            State::Bridged(bridge) if bridge.transfer == transfer_id => State::Bridged(bridge),
            other => refuse(core, other, id, "stale"),
        },
        CommandBody::PayloadUndelivered { transfer_id, destination } => match state {
            State::Transferring(mut transfer) if transfer.id == transfer_id => {
                transfer.missed = true;
                let named = core.queue(transfer.queue).is_some_and(|queue| {
                    matches!(&queue.payload_ack, PayloadAck::Destination(id) if id.as_str() == destination)
                });
                if named {
                    transfer.offer.wait_no_more();
                }
                bridge::try_bridge(core, transfer)
            }
            State::Bridged(mut bridge) if bridge.transfer == transfer_id => {
                let noted = bridge::undelivered(&mut bridge);
                let state = State::Bridged(bridge);
                if noted { state } else { refuse(core, state, id, "stale") }
            }
            other => refuse(core, other, id, "stale"),
        },
        CommandBody::TransferCancel { transfer_id } => match state {
            State::Transferring(transfer) if transfer.id == transfer_id => {
                let (state, cancelled) = transfer::cancel(core, transfer);
                if cancelled { state } else { refuse(core, state, id, "too_late") }
            }
            other => refuse(core, other, id, "stale"),
        },
    }
}

/// A decision starts the next transfer, joins the one that it is about, or is stale.
fn decided(core: &mut Core, state: State, id: String, decision: Decision) -> State {
    let is_next = decision.transfer_id == core.next_transfer();
    let is_this = core.transfers > 0 && decision.transfer_id == core.last_transfer();
    match state {
        state @ (State::Disclosing(_) | State::WithVoiceAgent(_)) if is_next => {
            talk::decided(core, state, Adoption { decision, publish: None })
        }
        State::Transferring(transfer) if is_this => {
            let hurry = decision.trigger.waives_waits
                && matches!(transfer.announcement, Announcement::Draining { .. });
            if hurry { transfer::drained(core, transfer) } else { State::Transferring(transfer) }
        }
        State::Bridged(bridge) if is_this => State::Bridged(bridge),
        other => refuse(core, other, id, "stale"),
    }
}

fn refuse(core: &mut Core, state: State, id: String, reason: &str) -> State {
    core.emit(Fact::CommandRejected { id, reason: reason.to_owned() });
    state
}
