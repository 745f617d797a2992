//! What needs no token: the page's own files, the health of the edge, the description of
//! the API.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::{HttpRequest, Shared};

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

pub(super) async fn icon() -> Response {
    file("image/svg+xml", include_str!("../../desktop/web/icon.svg"))
}

pub(super) async fn description() -> Response {
    file("application/json", OPENAPI)
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

/// The API, described (OpenAPI 3.1).
pub(super) const OPENAPI: &str = include_str!("../../../openapi.json");

/// A file of this program. Browsers ask again after each start of the edge, since the files
/// change with it.
fn file(content_type: &'static str, body: &'static str) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")];
    (headers, body).into_response()
}
