//! The handlers about one transfer: accept, decline and hand back for the person to whom it
//! is offered, cancel for who may direct calls, payload and transcript for who may see them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use handoff::id::{HumanAgentId, TransferId};
use handoff::pii::Pii;
use serde_json::json;

use super::calls::{Answer, accepted, json_body, members, read};
use super::problem::Denied;
use super::{ApiError, HttpRequest, Shared};
use crate::desktop::DesktopInput;
use crate::desktop::message::DeclineChoice;

pub(super) async fn accept(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let agent = shared.admit(&headers)?.agent()?;
    let input = DesktopInput::Accept { transfer: transfer(&id)? };
    decide(&shared, agent, input).await
}

/// `{"reason": …}`, or nothing.
pub(super) async fn decline(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let agent = shared.admit(&headers)?.agent()?;
    let transfer = transfer(&id)?;
    let members = members(&read(body)?, &["reason"])?;
    let reason = match members.get("reason") {
        None => DeclineChoice::Other,
        Some(name) => name
            .as_str()
            .and_then(DeclineChoice::parse)
            .ok_or_else(|| Denied::field("reason", "is none of the allowed values"))?,
    };
    decide(&shared, agent, DesktopInput::Decline { transfer, reason }).await
}

pub(super) async fn hand_back(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let agent = shared.admit(&headers)?.agent()?;
    let input = DesktopInput::HandBack { transfer: transfer(&id)? };
    decide(&shared, agent, input).await
}

pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let who = shared.admit(&headers)?.director()?;
    let transfer = transfer(&id)?;
    // The record of a refused command says whose it was.
    let id = format!("api:{who}:{}", shared.sessions.fetch_add(1, Ordering::Relaxed));
    let taken = shared.ask(|reply| HttpRequest::CancelTransfer { transfer, id, reply }).await;
    taken.and_then(|taken| taken)?;
    Ok(accepted(json!({})))
}

pub(super) async fn payload(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let who = shared.admit(&headers)?.accessor()?;
    let transfer = transfer(&id)?;
    let asked = shared.ask(|reply| HttpRequest::Payload { transfer, who, reply }).await;
    personal(asked)
}

pub(super) async fn transcript(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let who = shared.admit(&headers)?.accessor()?;
    let transfer = transfer(&id)?;
    let asked = shared.ask(|reply| HttpRequest::Transcript { transfer, who, reply }).await;
    personal(asked)
}

async fn decide(shared: &Shared, agent: HumanAgentId, input: DesktopInput) -> Answer {
    let taken = shared.ask(|reply| HttpRequest::Decide { agent, input, reply }).await;
    taken.and_then(|taken| taken)?;
    Ok(accepted(json!({})))
}

fn personal(asked: Result<Result<Pii<String>, ApiError>, ApiError>) -> Answer {
    let body = asked.and_then(|answer| answer)?;
    Ok::<Response, Denied>(json_body(StatusCode::OK, body.into_exposed()))
}

/// What is no id names no transfer.
fn transfer(id: &str) -> Result<TransferId, Denied> {
    TransferId::parse(id).map_err(|_| Denied::Api(ApiError::NotFound))
}
