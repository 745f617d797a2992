//! The handlers of single requests: who asks, whether the role allows it, what the edge
//! says.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use handoff::id::{HumanAgentId, TransferId};
use handoff::pii::Pii;
use handoff::signal::Signal;
use serde_json::{Value, json};

use super::{Accessor, ApiError, CallSummary, HttpRequest, SIGNALS_PER_REQUEST_MAX, Shared};
use crate::config::{Config, OperatorRole};
use crate::desktop::DesktopInput;
use crate::desktop::message::DeclineChoice;

/// Whose token a request carries.
enum Holder {
    Agent(HumanAgentId),
    Operator(String, OperatorRole),
}

/// Why a request goes no further.
pub(super) enum Denied {
    /// No token, or nobody's.
    Unknown,
    /// Somebody's, whose role does not open this.
    Role,
    /// The edge says no.
    Api(ApiError),
    /// The body, with the reason.
    Body(String),
}

impl From<ApiError> for Denied {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

type Answer = Result<Response, Denied>;

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (status, reason) = match self {
            Self::Unknown => (StatusCode::UNAUTHORIZED, "a bearer token is needed".to_owned()),
            Self::Role => (StatusCode::FORBIDDEN, "this token does not open that".to_owned()),
            Self::Api(error) => (error.status(), error.to_string()),
            Self::Body(reason) => (StatusCode::UNPROCESSABLE_ENTITY, reason),
        };
        let mut response = json_body(status, json!({ "error": reason }).to_string());
        if status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

pub(super) async fn to_page() -> Redirect {
    Redirect::permanent("/desktop/")
}

pub(super) async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("../../desktop/web/index.html"))
}

pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../desktop/web/app.js"))
}

pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../desktop/web/style.css"))
}

pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.ask(|reply| HttpRequest::Ready { reply }).await {
        Ok(true) => "ready\n".into_response(),
        Ok(false) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

pub(super) async fn calls(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    match holder(&shared.config(), &headers).ok_or(Denied::Unknown)? {
        Holder::Operator(_, OperatorRole::Monitor | OperatorRole::Supervisor) => {}
        Holder::Agent(_) => return Err(Denied::Role),
    }
    let calls = shared.ask(|reply| HttpRequest::Calls { reply }).await.map_err(Denied::Api)?;
    let calls: Vec<Value> = calls.iter().map(summary).collect();
    Ok(json_body(StatusCode::OK, json!({ "calls": calls }).to_string()))
}

pub(super) async fn payload(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let who = accessor(&shared.config(), &headers)?;
    let transfer = transfer(&id)?;
    let asked = shared.ask(|reply| HttpRequest::Payload { transfer, who, reply }).await;
    personal(asked)
}

pub(super) async fn transcript(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let who = accessor(&shared.config(), &headers)?;
    let transfer = transfer(&id)?;
    let asked = shared.ask(|reply| HttpRequest::Transcript { transfer, who, reply }).await;
    personal(asked)
}

pub(super) async fn accept(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let agent = agent(&shared.config(), &headers)?;
    let input = DesktopInput::Accept { transfer: transfer(&id)? };
    decide(&shared, agent, input).await
}

pub(super) async fn decline(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let agent = agent(&shared.config(), &headers)?;
    let input = DesktopInput::Decline { transfer: transfer(&id)?, reason: DeclineChoice::Other };
    decide(&shared, agent, input).await
}

/// One signal, an array of them, or one per line.
pub(super) async fn signals(
    State(shared): State<Arc<Shared>>,
    Path(call): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let config = shared.config();
    let presented = bearer(&headers).ok_or(Denied::Unknown)?;
    if !config.voice_agent.signal_token.as_ref().is_some_and(|token| token.matches(presented)) {
        return Err(Denied::Unknown);
    }
    let signals = batch(&body).map_err(Denied::Body)?;
    let taken = shared.ask(|reply| HttpRequest::Signals { call, signals, reply }).await;
    taken.and_then(|taken| taken).map_err(Denied::Api)?;
    Ok(json_body(StatusCode::ACCEPTED, "{}".to_owned()))
}

async fn decide(shared: &Shared, agent: HumanAgentId, input: DesktopInput) -> Answer {
    let taken = shared.ask(|reply| HttpRequest::Decide { agent, input, reply }).await;
    taken.and_then(|taken| taken).map_err(Denied::Api)?;
    Ok(json_body(StatusCode::ACCEPTED, "{}".to_owned()))
}

fn personal(asked: Result<Result<Pii<String>, ApiError>, ApiError>) -> Answer {
    let body = asked.and_then(|answer| answer).map_err(Denied::Api)?;
    Ok(json_body(StatusCode::OK, body.into_exposed()))
}

/// All signals of a body, or the first that is not one.
fn batch(body: &[u8]) -> Result<Vec<Signal>, String> {
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        match value {
            Ok(Value::Array(several)) if values.is_empty() => values.extend(several),
            Ok(value) => values.push(value),
            Err(_) => return Err("the body is neither JSON nor one JSON object per line".to_owned()),
        }
        if values.len() > SIGNALS_PER_REQUEST_MAX {
            return Err(format!("more than {SIGNALS_PER_REQUEST_MAX} signals"));
        }
    }
    let parsed = values.iter().map(|value| Signal::parse(value).map(|parsed| parsed.signal));
    parsed.collect::<Result<Vec<Signal>, _>>().map_err(|bad| bad.to_string())
}

fn holder(config: &Config, headers: &HeaderMap) -> Option<Holder> {
    let presented = bearer(headers)?;
    let agent = config.agent_by_token(presented).map(|agent| Holder::Agent(agent.id.clone()));
    let operator = config.operator_by_token(presented);
    agent.or_else(|| operator.map(|operator| Holder::Operator(operator.id.clone(), operator.role)))
}

fn agent(config: &Config, headers: &HeaderMap) -> Result<HumanAgentId, Denied> {
    match holder(config, headers).ok_or(Denied::Unknown)? {
        Holder::Agent(agent) => Ok(agent),
        Holder::Operator(..) => Err(Denied::Role),
    }
}

fn accessor(config: &Config, headers: &HeaderMap) -> Result<Accessor, Denied> {
    match holder(config, headers).ok_or(Denied::Unknown)? {
        Holder::Agent(agent) => Ok(Accessor::Agent(agent)),
        Holder::Operator(id, OperatorRole::Supervisor) => Ok(Accessor::Supervisor(id)),
        Holder::Operator(_, OperatorRole::Monitor) => Err(Denied::Role),
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

fn transfer(id: &str) -> Result<TransferId, Denied> {
    TransferId::parse(id).map_err(|_| Denied::Api(ApiError::NotFound))
}

fn summary(call: &CallSummary) -> Value {
    let standing = &call.standing;
    let legs: Vec<Value> =
        standing.legs.iter().map(|(leg, role)| json!({ "leg": leg, "role": role })).collect();
    json!({
        "call": call.call,
        "state": standing.state,
        "phase": standing.phase,
        "transfer": standing.transfer,
        "legs": legs,
    })
}

pub(super) fn json_body(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The answer to a request without anybody's token.
pub(super) fn unauthorised() -> Response {
    Denied::Unknown.into_response()
}

/// A file of the page. Browsers ask again after each start of the edge, since the files
/// change with it.
fn file(content_type: &'static str, body: &'static str) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")];
    (headers, body).into_response()
}
