//! What the cloud may tell a call. A command that was obeyed already has no second effect;
//! one that does not fit the state any more is refused, and the refusal is recorded.

use crate::call::State;
use crate::call::bridge;
use crate::call::core::Core;
use crate::call::decide;
use crate::call::io::PayloadAck;
use crate::call::transfer::{self, Adoption, Announcement};
use crate::command::{Command, CommandBody};
use crate::event::Fact;
use crate::id::TransferId;
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
        CommandBody::PayloadReady { transfer_id, payload } => match state.into_transfer(&transfer_id) {
            Ok(mut transfer) => {
                let taken = transfer::take_payload(core, &mut transfer, *payload);
                let state = State::Transferring(transfer);
                if taken { state } else { refuse(core, state, id, "stale") }
            }
            Err(state @ (State::Disclosing(_) | State::WithVoiceAgent(_)))
                if transfer_id == core.next_transfer() =>
            {
                core.keep_payload(transfer_id, *payload);
                state
            }
            Err(state) => refuse(core, state, id, "stale"),
        },
        CommandBody::PayloadAcknowledged { transfer_id, destination, revision, .. } => {
            match state.into_transfer(&transfer_id) {
                Ok(transfer) => bridge::delivered(core, transfer, &destination, revision),
                // After the bridge an acknowledgement tells nothing new.
                Err(state) if state.is_bridge_of(&transfer_id) => state,
                Err(state) => refuse(core, state, id, "stale"),
            }
        }
        CommandBody::PayloadUndelivered { transfer_id, destination } => {
            undelivered(core, state, id, &transfer_id, &destination)
        }
        CommandBody::TransferCancel { transfer_id } => match state.into_transfer(&transfer_id) {
            Ok(transfer) => {
                let (state, cancelled) = transfer::cancel(core, transfer);
                if cancelled { state } else { refuse(core, state, id, "too_late") }
            }
            // Not begun yet: its decision is awaited, or waits for the disclosure.
            Err(state) if transfer_id == core.next_transfer() => {
                let (state, withdrawn) = decide::withdraw(core, state);
                if withdrawn { state } else { refuse(core, state, id, "stale") }
            }
            Err(state) => refuse(core, state, id, "stale"),
        },
    }
}

/// A destination configured as required missed its budget: the transfer goes on, degraded.
fn undelivered(
    core: &mut Core,
    state: State,
    id: String,
    transfer_id: &TransferId,
    destination: &str,
) -> State {
    let state = match state.into_transfer(transfer_id) {
        Ok(mut transfer) => {
            transfer.missed = true;
            let named = core.queue(transfer.queue).is_some_and(|queue| {
                matches!(&queue.payload_ack, PayloadAck::Destination(id) if id.as_str() == destination)
            });
            if named {
                transfer.offer.wait_no_more();
            }
            return bridge::try_bridge(core, transfer);
        }
        Err(state) => state,
    };
    let State::Bridged(mut bridge) = state else { return refuse(core, state, id, "stale") };
    let noted = bridge.transfer == *transfer_id && bridge.undelivered();
    let state = State::Bridged(bridge);
    if noted { state } else { refuse(core, state, id, "stale") }
}

/// A decision starts the next transfer, joins the one that it is about, or is stale.
fn decided(core: &mut Core, state: State, id: String, decision: Decision) -> State {
    let is_next = decision.transfer_id == core.next_transfer();
    let state = match state {
        State::Disclosing(_) | State::WithVoiceAgent(_) if is_next => {
            return decide::decided(core, state, Adoption { decision, publish: None });
        }
        State::Arriving { .. }
        | State::Disclosing(_)
        | State::WithVoiceAgent(_)
        | State::Transferring(_)
        | State::FallingBack(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => state,
    };
    match state.into_transfer(&decision.transfer_id) {
        Ok(transfer) => {
            let hurry = decision.trigger.waives_waits
                && matches!(transfer.announcement, Announcement::Draining { .. });
            if hurry { transfer::drained(core, transfer) } else { State::Transferring(transfer) }
        }
        Err(state) if state.is_bridge_of(&decision.transfer_id) => state,
        Err(state) => refuse(core, state, id, "stale"),
    }
}

fn refuse(core: &mut Core, state: State, id: String, reason: &str) -> State {
    core.emit(Fact::CommandRejected { id, reason: reason.to_owned() });
    state
}
