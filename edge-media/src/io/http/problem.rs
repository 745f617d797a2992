//! Why a request goes no further, as one form for every route (RFC 9457): what, and, where
//! it is a member of the request, which. Values that were sent are never repeated.

use core::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::ApiError;

/// Why a request goes no further.
#[derive(Debug)]
pub(super) enum Denied {
    /// No token, or nobody's.
    Unknown,
    /// A header of the signature that is missing or does not fit, and how.
    Unsigned(&'static str, &'static str),
    /// Somebody's, whose role does not open this.
    Role,
    /// Too often; worth another try after this time.
    TooMany(Duration),
    /// The edge says no.
    Api(ApiError),
    /// The body is larger than is read.
    TooLarge,
    /// A member of the request, by its path, and what is wrong with it.
    Field(String, String),
}

impl Denied {
    /// A member that does not fit.
    pub(super) fn field(name: &str, fault: &str) -> Self {
        Self::Field(name.to_owned(), fault.to_owned())
    }
}

impl From<ApiError> for Denied {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (status, detail, field) = match &self {
            Self::Unknown => (StatusCode::UNAUTHORIZED, "a bearer token is needed".to_owned(), None),
            Self::Unsigned(name, fault) => {
                (StatusCode::UNAUTHORIZED, format!("`{name}` {fault}"), Some(*name))
            }
            Self::Role => (StatusCode::FORBIDDEN, "this token does not open that".to_owned(), None),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too many requests".to_owned(), None),
            Self::Api(error) => (error.status(), error.to_string(), None),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large".to_owned(), None),
            Self::Field(name, fault) => {
                (StatusCode::UNPROCESSABLE_ENTITY, format!("`{name}` {fault}"), Some(name.as_str()))
            }
        };
        let mut response = problem(status, &detail, field);
        let headers = response.headers_mut();
        match self {
            Self::Unknown => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Unsigned(..) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Standard-Webhooks"));
            }
            Self::TooMany(wait) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
            }
            Self::Api(ApiError::Busy) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(BUSY.as_secs()));
            }
            Self::Role
            | Self::Api(ApiError::NotFound | ApiError::NotYours | ApiError::Conflict)
            | Self::TooLarge
            | Self::Field(..) => {}
        }
        response
    }
}

/// What the framework refuses by itself (a path, a method, a handshake) gets the same form;
/// its headers stay.
pub(super) fn in_one_form(response: Response) -> Response {
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let formed = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == CONTENT_TYPE);
    if !refused || formed {
        return response;
    }
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    let title = status.canonical_reason().unwrap_or("refused");
    Response::from_parts(head, Body::from(text(status, title, None)))
}

fn problem(status: StatusCode, detail: &str, field: Option<&str>) -> Response {
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], text(status, detail, field)).into_response()
}

fn text(status: StatusCode, detail: &str, field: Option<&str>) -> String {
    let title = status.canonical_reason().unwrap_or("refused");
    let mut problem = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    if let (Some(field), Some(members)) = (field, problem.as_object_mut()) {
        members.insert("field".to_owned(), json!(field));
    }
    problem.to_string()
}

const CONTENT_TYPE: &str = "application/problem+json";
/// The loop of a healthy edge has caught up by then.
const BUSY: Duration = Duration::from_secs(1);
