//! `send-webhook`: one try of one webhook to one destination. The body was frozen when it
//! was queued; only the timestamp and its signature are new. What follows a failure is
//! decided by the delivery machine; what was answered is kept as status and digest, never
//! as text. Neither the phone nor the bridge waits for this.

use std::time::Duration;

use handoff::clock::{Now, Timestamp};
use handoff::command::{Command, CommandBody};
use handoff::delivery::{AttemptResult, Delivery, GaveUp, Lane, Next};
use handoff::event::WebhookKind;
use handoff::id::derived_text;
use handoff::webhook::CONTENT_TYPE;
use sha2::{Digest as _, Sha256};

use crate::batch::Failure;
use crate::destinations::Destination;
use crate::guard::{self, Reply};
use crate::jobs::{COMMANDS, Hook};
use crate::sqlite::queue::Message;

/// What one try led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// Last HTTP status; absent where nobody answered.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// SHA-256 of the answer's body, hexadecimal.
    pub digest: String,
    /// How it stands now.
    pub state: Delivered,
    /// What follows: the next try, the durable lane, the acknowledgement.
    pub messages: Vec<Message>,
}

/// How a delivery stands after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// 2xx.
    Yes,
    /// It is tried again.
    Later,
    /// No try follows.
    Never(GaveUp),
}

/// Sends `hook` once.
pub async fn send(
    wall: Timestamp,
    hook: &Hook,
    destination: &Destination,
    jitter_pm: u16,
) -> Result<Tried, Failure> {
    let started = tokio::time::Instant::now();
    // The machine counts in its own time: zero is when the lane began.
    let since = u64::try_from(wall.unix_millis() - hook.lane_since.unix_millis()).unwrap_or(0);
    let (mut delivery, limit) = resume(hook, Now::from_millis(since));
    let secs = wall.unix_secs();
    let headers = [
        ("content-type", CONTENT_TYPE.to_owned()),
        ("webhook-id", hook.message_id.clone()),
        ("webhook-timestamp", secs.to_string()),
        ("webhook-signature", destination.secret.sign(&hook.message_id, secs, hook.body.as_bytes())),
    ];
    let body = hook.body.clone().into_bytes();
    let reply = guard::post(&destination.url, &destination.allow_private, &headers, body, limit).await;
    let (result, status, answer) = match reply {
        Ok(Reply::Answered { status, retry_after_s, body }) => {
            let retry_after = retry_after_s.map(Duration::from_secs);
            (AttemptResult::Answered { status, retry_after }, Some(status), body)
        }
        Ok(Reply::Unreachable) | Err(guard::Refused::Unresolved) => {
            (AttemptResult::NoAnswer, None, Vec::new())
        }
        Err(_) => (AttemptResult::Forbidden, None, Vec::new()),
    };
    let took = started.elapsed();
    let ended = Now::from_millis(since) + took;
    let next = delivery.handle(ended, result, jitter_pm);
    let (state, messages) = follow(wall, ended, hook, destination, &delivery, next, &answer)?;
    Ok(Tried { status, took, digest: hex(&Sha256::digest(&answer)), state, messages })
}

/// The delivery as it stood, and the longest duration of this try.
fn resume(hook: &Hook, now: Now) -> (Delivery, Duration) {
    let (fresh, first) = Delivery::start(hook.lane, Now::ZERO);
    let limit = |next| match next {
        Next::SendAt { timeout, .. } => timeout,
        Next::GiveUp(_) | Next::Done => Duration::from_secs(1),
    };
    match hook.lane {
        Lane::Durable => (Delivery::resume(hook.failed, now), limit(first)),
        Lane::Live => {
            // The earlier tries of this lane, replayed: its budget runs from its start.
            let mut delivery = fresh;
            let mut next = first;
            for _ in 0..hook.failed {
                next = delivery.handle(now, AttemptResult::NoAnswer, 0);
            }
            (delivery, limit(next))
        }
    }
}

fn follow(
    wall: Timestamp,
    ended: Now,
    hook: &Hook,
    destination: &Destination,
    delivery: &Delivery,
    next: Next,
    answer: &[u8],
) -> Result<(Delivered, Vec<Message>), Failure> {
    let broken = |error: serde_json::Error| Failure::Permanent(error.to_string());
    match next {
        Next::Done => {
            let ack = popped(answer).then(|| acknowledged(wall, hook)).flatten();
            let messages = ack.map(|command| command_message(&command)).transpose()?;
            Ok((Delivered::Yes, messages.into_iter().collect()))
        }
        Next::SendAt { at, .. } => {
            let again = Hook { failed: delivery.failed(), ..hook.clone() };
            let delay = i64::try_from(at.since(ended).as_millis()).unwrap_or(i64::MAX);
            Ok((Delivered::Later, vec![again.message(delay).map_err(broken)?]))
        }
        Next::GiveUp(why) => {
            let mut messages = Vec::new();
            if why.continues() {
                let durable = Hook { lane: Lane::Durable, failed: 0, lane_since: wall, ..hook.clone() };
                messages.push(durable.message(0).map_err(broken)?);
            }
            // The person's screen waits for the live lane only: its end is news for the edge.
            if hook.lane == Lane::Live && destination.required {
                messages.extend(undelivered(hook).map(|command| command_message(&command)).transpose()?);
            }
            Ok((Delivered::Never(why), messages))
        }
    }
}

/// The receiver says that the record is on its user's screen.
fn popped(answer: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(answer).is_ok_and(|value| value["popped"] == true)
}

fn acknowledged(wall: Timestamp, hook: &Hook) -> Option<Command> {
    let carries =
        matches!(hook.kind, WebhookKind::Offered | WebhookKind::PayloadRevised | WebhookKind::Accepted);
    let (transfer_id, revision) = (hook.transfer.clone()?, hook.revision.filter(|_| carries)?);
    let destination = hook.destination.to_string();
    Some(Command {
        id: derived_text(&["acknowledged", &hook.message_id, &destination]),
        call_id: hook.call.clone(),
        body: CommandBody::PayloadAcknowledged { transfer_id, destination, revision, at: wall },
    })
}

fn undelivered(hook: &Hook) -> Option<Command> {
    let destination = hook.destination.to_string();
    Some(Command {
        id: derived_text(&["undelivered", &hook.message_id, &destination]),
        call_id: hook.call.clone(),
        body: CommandBody::PayloadUndelivered { transfer_id: hook.transfer.clone()?, destination },
    })
}

fn command_message(command: &Command) -> Result<Message, Failure> {
    let body = serde_json::to_vec(command).map_err(|error| Failure::Permanent(error.to_string()))?;
    Ok(Message { dedup: Some(command.id.clone()), ..Message::plain(COMMANDS, body) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
