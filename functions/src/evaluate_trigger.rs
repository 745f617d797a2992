//! `evaluate-trigger`: does this event hand the call to a person? A pure evaluation of the
//! policy on the event's own snapshot; nothing is read, so it cannot be late for lack of a
//! database. A rule that fires becomes a command to the edge and a job for build-payload.

use handoff::clock::Timestamp;
use handoff::command::{Command, CommandBody};
use handoff::event::CallEvent;
use handoff::id::DecisionId;
use handoff::policy::{Decision, Origin, Policy};

use crate::batch::Failure;
use crate::jobs::{COMMANDS, DECISIONS, Decided};
use crate::sqlite::queue::Message;

/// An event older than this was decided by the edge itself; a decision now would be noise.
const STALE_MS: i64 = 10_000;

/// What one event leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing: no rule fires.
    Continue,
    /// Nothing: too old.
    Stale,
    /// These messages, and what was decided on what.
    Transfer(Box<Decided>, Vec<Message>),
}

/// Evaluates one message of `signals`.
pub fn evaluate(now: Timestamp, policy: &Policy, body: &[u8]) -> Result<Verdict, Failure> {
    let event = CallEvent::from_json(body).map_err(|error| Failure::Permanent(error.to_string()))?;
    let evaluable =
        event.evaluable.ok_or_else(|| Failure::Permanent("an event without a snapshot".to_owned()))?;
    if now.unix_millis() - event.time.unix_millis() > STALE_MS {
        return Ok(Verdict::Stale);
    }
    let Some(trigger) = policy.evaluate(&evaluable.snapshot, &evaluable.stimulus) else {
        return Ok(Verdict::Continue);
    };
    let decision = Decision {
        decision_id: DecisionId::of(&evaluable.transfer_id),
        transfer_id: evaluable.transfer_id.clone(),
        call_id: event.call.clone(),
        trigger,
        policy_version: policy.version().to_owned(),
        origin: Origin::Function,
    };
    // The decision's id: a second event that fires joins the first command as a duplicate.
    let command = Command {
        id: decision.decision_id.to_string(),
        call_id: event.call,
        body: CommandBody::TransferDecided { decision: decision.clone() },
    };
    let decided = Decided {
        tenant: event.tenant,
        edge: event.edge,
        decision,
        evaluable: *evaluable,
        fired_at: event.time,
        sequence: event.seq,
    };
    let call = Some(decided.decision.call_id.to_string());
    let dedup = Some(decided.decision.decision_id.to_string());
    let messages = vec![
        Message { dedup: Some(command.id.clone()), ..Message::plain(COMMANDS, to_json(&command)?) },
        Message { call, dedup, ..Message::plain(DECISIONS, to_json(&decided)?) },
    ];
    Ok(Verdict::Transfer(Box::new(decided), messages))
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::Permanent(error.to_string()))
}
