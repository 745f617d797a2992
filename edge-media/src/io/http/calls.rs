//! The handlers about calls and queues: lists without personal data, the voice agent's
//! signals, and the request for a transfer. A request is a signal like the voice agent's own
//! and takes the same way through the policy; it names a queue of the configuration, and
//! there is no member in which a number or an address could be given.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use handoff::id::CallId;
use handoff::pii::Pii;
use handoff::signal::{RequestReason, Signal, SignalBody, TransferRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::Holder;
use super::problem::Denied;
use super::{ApiError, CallSummary, HttpRequest, QueueFigures, SIGNALS_PER_REQUEST_MAX, Shared};

pub(super) type Answer = Result<Response, Denied>;

/// `?limit=` and `?after=`, as text: what does not fit is named.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    limit: Option<String>,
    after: Option<String>,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer {
    shared.admit(&headers)?.operator()?;
    let Query(query) = query.map_err(|_| Denied::field("query", "has unknown or repeated members"))?;
    let limit = match query.limit.as_deref().map(str::parse::<usize>) {
        None => CALLS_PER_PAGE_DEFAULT,
        Some(Ok(limit)) if (1..=CALLS_PER_PAGE_MAX).contains(&limit) => limit,
        Some(_) => return Err(Denied::field("limit", "is no number from 1 to 200")),
    };
    let after = query.after.as_deref().map(CallId::parse).transpose();
    let after = after.map_err(|_| Denied::field("after", "is no id of a call"))?;
    // One more tells whether there is a next page.
    let asked = shared.ask(|reply| HttpRequest::Calls { after, limit: limit + 1, reply }).await;
    let mut calls = asked?;
    let more = calls.len() > limit;
    calls.truncate(limit);
    let next = calls.last().filter(|_| more).map(|call| call.call.clone());
    let calls: Vec<Value> = calls.iter().map(summary).collect();
    Ok(json_body(StatusCode::OK, json!({ "calls": calls, "next": next }).to_string()))
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    shared.admit(&headers)?.operator()?;
    let call = call_id(&id)?;
    let found = shared.ask(|reply| HttpRequest::Call { call, reply }).await.and_then(|found| found)?;
    Ok(json_body(StatusCode::OK, summary(&found).to_string()))
}

pub(super) async fn queues(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    match shared.admit(&headers)? {
        Holder::Agent(_) | Holder::Monitor(_) | Holder::Supervisor(_) => {}
        Holder::VoiceAgent | Holder::Receiver(_) => return Err(Denied::Role),
    }
    let queues = shared.ask(|reply| HttpRequest::Queues { reply }).await?;
    let queues: Vec<Value> = queues.iter().map(figures).collect();
    Ok(json_body(StatusCode::OK, json!({ "queues": queues }).to_string()))
}

/// One signal, an array of them, or one per line.
pub(super) async fn signals(
    State(shared): State<Arc<Shared>>,
    Path(call): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    match shared.admit(&headers)? {
        Holder::VoiceAgent => {}
        Holder::Agent(_) | Holder::Monitor(_) | Holder::Supervisor(_) | Holder::Receiver(_) => {
            return Err(Denied::Role);
        }
    }
    let signals = batch(&read(body)?)?;
    let count = signals.len();
    let taken = shared.ask(|reply| HttpRequest::Signals { call, signals, reply }).await;
    taken.and_then(|taken| taken)?;
    Ok(accepted(json!({ "signals": count })))
}

/// Asks for a person for the caller. The policy decides whether and the directory who.
pub(super) async fn request_transfer(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let who = shared.admit(&headers)?.director()?;
    let call = call_id(&id)?;
    let members = members(&read(body)?, &["id", "reason", "queue", "summary"])?;
    let text = |name: &str, max: usize| match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=max).contains(&text.chars().count()) => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(Denied::field(name, "is empty or too long")),
        Some(_) => Err(Denied::field(name, "has the wrong type")),
    };
    let reason = members.get("reason").ok_or_else(|| Denied::field("reason", "is missing"))?;
    let reason = RequestReason::deserialize(reason)
        .map_err(|_| Denied::field("reason", "is none of the allowed values"))?;
    let queue = text("queue", QUEUE_CHARS_MAX)?;
    let known = |name: &String| shared.config().queues.iter().any(|queue| queue.id.as_str() == name);
    if !queue.as_ref().is_none_or(known) {
        return Err(Denied::field("queue", "is no queue of the configuration"));
    }
    let key = match text("id", KEY_CHARS_MAX)? {
        Some(key) if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => key,
        Some(_) => return Err(Denied::field("id", "has characters other than A-Z a-z 0-9 _ -")),
        None => random_key()?,
    };
    let request = TransferRequest {
        reason,
        queue,
        target: None,
        summary: text("summary", SUMMARY_CHARS_MAX)?.map(Pii::new),
        next_action: None,
        caller_message: None,
        whisper: None,
        on_fail: None,
        fields: Vec::new(),
    };
    // The signal's id is in the record: it says who asked.
    let signal = format!("api:{who}:{key}");
    let request =
        Box::new(Signal { id: signal.clone(), at_ms: None, body: SignalBody::TransferRequest(request) });
    let taken = shared.ask(|reply| HttpRequest::RequestTransfer { call, request, reply }).await;
    taken.and_then(|taken| taken)?;
    Ok(accepted(json!({ "signal": signal })))
}

/// All signals of a body, or the first that is not one, by its place.
fn batch(body: &[u8]) -> Result<Vec<Signal>, Denied> {
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        match value {
            Ok(Value::Array(several)) if values.is_empty() => values.extend(several),
            Ok(value) => values.push(value),
            Err(_) => return Err(Denied::field("body", "is neither JSON nor one JSON object per line")),
        }
        if values.len() > SIGNALS_PER_REQUEST_MAX {
            return Err(Denied::Field(
                "body".to_owned(),
                format!("has more than {SIGNALS_PER_REQUEST_MAX} signals"),
            ));
        }
    }
    if values.is_empty() {
        return Err(Denied::field("body", "has no signal"));
    }
    let parsed = values.iter().enumerate().map(|(place, value)| {
        Signal::parse(value).map(|parsed| parsed.signal).map_err(|bad| {
            let member =
                bad.member.strip_prefix('$').map_or_else(|| format!(".{}", bad.member), str::to_owned);
            Denied::Field(format!("[{place}]{member}"), bad.fault.to_string())
        })
    });
    parsed.collect()
}

/// The body, if it is not too large.
pub(super) fn read(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Denied> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Denied::TooLarge,
        _broken => Denied::field("body", "could not be read"),
    })
}

/// The members of a body: an object with these names and no other, or nothing at all.
pub(super) fn members(body: &[u8], allowed: &[&str]) -> Result<Map<String, Value>, Denied> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Err(Denied::field("body", "is no JSON object"));
    };
    match members.keys().find(|name| !allowed.contains(&name.as_str())) {
        None => Ok(members),
        Some(name) => {
            // Names come from the client too: only what looks like one is repeated.
            let plain = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_');
            Err(Denied::Field(plain.take(KEY_CHARS_MAX).collect(), "is unknown".to_owned()))
        }
    }
}

fn call_id(id: &str) -> Result<CallId, Denied> {
    CallId::parse(id).map_err(|_| Denied::Api(ApiError::NotFound))
}

fn random_key() -> Result<String, Denied> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|_| Denied::Api(ApiError::Busy))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

fn summary(call: &CallSummary) -> Value {
    let standing = &call.standing;
    let legs: Vec<Value> =
        standing.legs.iter().map(|(leg, role)| json!({ "leg": leg, "role": role })).collect();
    let waiting = call.waiting.as_ref().map(|(waiting, waited)| {
        json!({
            "queue": waiting.queue,
            "category": waiting.category,
            "waited_ms": millis(*waited),
            "estimate_s": waiting.estimate_s,
            "attempt": waiting.attempt,
            "offered_to": waiting.offered_to,
        })
    });
    json!({
        "call": call.call,
        "state": standing.state,
        "phase": standing.phase,
        "transfer": standing.transfer,
        "legs": legs,
        "waiting": waiting,
    })
}

fn figures(queue: &QueueFigures) -> Value {
    let waiting: Vec<Value> = queue
        .waiting
        .iter()
        .enumerate()
        .map(|(place, (transfer, waited))| {
            json!({ "transfer": transfer, "position": place + 1, "waited_ms": millis(*waited) })
        })
        .collect();
    json!({
        "queue": queue.queue,
        "label": queue.label,
        "people": queue.staffing.people,
        "present": queue.staffing.present,
        "available": queue.staffing.available,
        "estimate_s": queue.staffing.estimate_s.unwrap_or(queue.wait_default_s),
        "measured": queue.staffing.estimate_s.is_some(),
        "waiting": waiting,
    })
}

fn millis(time: core::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Taken; what becomes of it is told by the events.
pub(super) fn accepted(body: Value) -> Response {
    json_body(StatusCode::ACCEPTED, body.to_string())
}

pub(super) fn json_body(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// What a screen shows.
const CALLS_PER_PAGE_DEFAULT: usize = 100;
/// The answer stays below a tenth of a megabyte.
const CALLS_PER_PAGE_MAX: usize = 200;
/// Longest id there is.
const QUEUE_CHARS_MAX: usize = 64;
/// An ULID or a UUID fits, and the signal's id stays short with the name before it.
const KEY_CHARS_MAX: usize = 40;
/// The same as in the voice agent's own request.
const SUMMARY_CHARS_MAX: usize = 1_500;
