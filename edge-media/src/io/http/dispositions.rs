//! What a CRM says of a transfer afterwards. Nobody shows a token here: the message is signed
//! as ours are (Standard Webhooks 1.0.0), with the secret that its sender has of us as a
//! receiver, and its id makes it one message however often it comes. A message of ours that
//! somebody sends back has a good signature and is no disposition.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use functions::disposition::{Disposition, MEMBERS, MESSAGE_ID_LEN_MAX};
use functions::sqlite::wall_clock;
use handoff::id::DestinationId;
use handoff::webhook;
use serde_json::json;

use super::access::Holder;
use super::calls::{Answer, accepted, members, read};
use super::problem::Denied;
use super::{HttpRequest, Shared};
use crate::config::Config;

pub(super) async fn receive(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = read(body)?;
    let message_id = message_id(&headers)?;
    let from = sender(&shared.config(), &headers, &message_id, &body)?;
    shared.spend(&Holder::Receiver(from.clone()))?;
    let disposition =
        Disposition::parse(&members(&body, &MEMBERS)?).map_err(|bad| Denied::field(bad.member, bad.fault))?;
    let disposition = Box::new(disposition);
    let id = message_id.clone();
    let taken = shared
        .ask(|reply| HttpRequest::Disposition { from, message_id, disposition, reply })
        .await
        .and_then(|taken| taken);
    taken?;
    Ok(accepted(json!({ "message": id })))
}

/// The id of the message, which is part of what is signed.
fn message_id(headers: &HeaderMap) -> Result<String, Denied> {
    let id = header(headers, ID)?;
    let fits = (1..=MESSAGE_ID_LEN_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits { Ok(id.to_owned()) } else { Err(Denied::Unsigned(ID, "is no id out of A-Z a-z 0-9 _ -")) }
}

/// Which of the configured receivers signed it. All are tried, each with both of its keys.
fn sender(config: &Config, headers: &HeaderMap, id: &str, body: &[u8]) -> Result<DestinationId, Denied> {
    let timestamp: i64 = header(headers, TIMESTAMP)?
        .parse()
        .map_err(|_| Denied::Unsigned(TIMESTAMP, "is no number of seconds"))?;
    let signature = header(headers, SIGNATURE)?;
    let now = wall_clock().unix_secs();
    if now.abs_diff(timestamp) > webhook::TOLERANCE_SECS.unsigned_abs() {
        return Err(Denied::Unsigned(TIMESTAMP, "is too far from the time here"));
    }
    let signed = |secret: &crate::config::Secret| {
        webhook::Secret::from_bytes(secret.reveal())
            .is_ok_and(|secret| secret.verify(id, timestamp, body, signature, now).is_ok())
    };
    config
        .webhooks
        .iter()
        .find(|receiver| [&receiver.secret, &receiver.old_secret].into_iter().flatten().any(signed))
        .map(|receiver| receiver.id.clone())
        .ok_or(Denied::Unsigned(SIGNATURE, "fits no secret of a configured webhook"))
}

fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, Denied> {
    let value = headers.get(name).ok_or(Denied::Unsigned(name, "is missing"))?;
    value.to_str().map_err(|_| Denied::Unsigned(name, "is no text"))
}

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";
