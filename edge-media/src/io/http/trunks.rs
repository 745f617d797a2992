//! The handlers about trunks: whether the accounts are registered and the servers answer, and
//! in plain words what to do where they do not. Nothing personal, and no secret of an account.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use handoff::clock::{Moment, Now, Timestamp};
use serde_json::{Value, json};

use super::calls::{Answer, json_body};
use super::{ApiError, HttpRequest, Shared};
use crate::sip::{LastAnswer, OptionsState, RegistrationPhase, RegistrationState, UplinkState, advice};

pub(super) async fn list(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    shared.admit(&headers)?.operator()?;
    let (at, trunks) = shared.ask(|reply| HttpRequest::Trunks { reply }).await?;
    let trunks: Vec<Value> = trunks.iter().map(|(name, state)| shown(at, name, state.as_ref())).collect();
    Ok(json_body(StatusCode::OK, json!({ "trunks": trunks }).to_string()))
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(wanted): Path<String>,
    headers: HeaderMap,
) -> Answer {
    shared.admit(&headers)?.operator()?;
    let (at, trunks) = shared.ask(|reply| HttpRequest::Trunks { reply }).await?;
    let (name, state) = trunks.iter().find(|(name, _)| *name == wanted).ok_or(ApiError::NotFound)?;
    Ok(json_body(StatusCode::OK, shown(at, name, state.as_ref()).to_string()))
}

/// One trunk as it is told.
pub fn shown(at: Moment, name: &str, state: Option<&UplinkState>) -> Value {
    let registration = state.and_then(|state| state.registration.as_ref());
    let options = state.and_then(|state| state.options.as_ref());
    json!({
        "trunk": name,
        "server": state.and_then(|state| state.server).map(|server| server.to_string()),
        "registration": registration.map(|registration| shown_registration(at, registration)),
        "options": options.map(|options| shown_options(at, options)),
        "advice": state.and_then(advised),
    })
}

fn shown_registration(at: Moment, of: &RegistrationState) -> Value {
    json!({
        "state": match of.phase {
            RegistrationPhase::Unresolved => "unresolved",
            RegistrationPhase::Asking => "asking",
            RegistrationPhase::Registered => "registered",
            RegistrationPhase::Waiting => "waiting",
            RegistrationPhase::Stopped => "stopped",
        },
        // A refresh that is under way or has failed takes nothing away before the end.
        "registered": of.until.is_some(),
        "since": of.since.map(|since| wall(at, since).to_string()),
        "until": of.until.map(|until| wall(at, until).to_string()),
        "seconds_left": of.until.map(|until| until.since(at.now).as_secs()),
        "next": of.next.map(|next| wall(at, next).to_string()),
        "failures": of.failures,
        "last": of.last.map(|last| shown_last(at, last)),
    })
}

fn shown_options(at: Moment, of: &OptionsState) -> Value {
    json!({
        "state": match of.up {
            None => "unknown",
            Some(true) => "up",
            Some(false) => "down",
        },
        "since": of.since.map(|since| wall(at, since).to_string()),
        "last": of.last.map(|last| shown_last(at, last)),
    })
}

fn shown_last(at: Moment, last: LastAnswer) -> Value {
    json!({
        "at": wall(at, last.at).to_string(),
        "server": last.server.to_string(),
        "status": last.status,
    })
}

/// What to do; nothing where all is well.
pub fn advised(state: &UplinkState) -> Option<&'static str> {
    if state.server.is_none() {
        return Some(
            "no name of a server resolves: check the names in `register` and `proxies` and this machine's name server",
        );
    }
    let failed = state.registration.as_ref().filter(|registration| registration.failures > 0);
    if let Some(registration) = failed {
        return Some(advice(registration.last.and_then(|last| last.status)));
    }
    let down = state.options.as_ref().filter(|options| options.up == Some(false));
    down.map(|options| advice(options.last.and_then(|last| last.status)))
}

/// A moment of the monotonic clock on the wall, before or after this one.
fn wall(at: Moment, then: Now) -> Timestamp {
    let millis = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    if then >= at.now {
        at.wall.plus_millis(millis(then.since(at.now)))
    } else {
        at.wall.plus_millis(-millis(at.now.since(then)))
    }
}
