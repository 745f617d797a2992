//! The WebSocket of a desktop page: one task per page, which carries text both ways and
//! understands none of it.

use core::time::Duration;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff::clock::Now;
use handoff::id::HumanAgentId;
use handoff::pii::Pii;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::access::{Holder as Admitted, bearer};
use super::problem::Denied;
use super::{HttpRequest, Note, Shared};
use crate::config::Secret;
use crate::desktop::DesktopSession;
use crate::desktop::message::MESSAGE_BYTES_MAX;
use crate::link::Budget;

/// `?token=`, for clients that can set neither header nor subprotocol.
#[derive(Deserialize)]
pub(super) struct InUrl {
    token: Option<Pii<String>>,
}

/// Upgrades a request that carries an agent's token: in `Authorization`, in the subprotocol
/// `bearer.{base64url}` (a browser can set no header, and a URL ends in logs), or in the URL.
pub(super) async fn open(
    State(shared): State<Arc<Shared>>,
    Query(url): Query<InUrl>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let from_protocol = in_subprotocol(&headers);
    let presented = bearer(&headers)
        .or(from_protocol.as_deref())
        .or_else(|| url.token.as_ref().map(|token| token.expose().as_bytes()));
    let config = shared.config();
    let known = presented.and_then(|token| Some((config.agent_by_token(token)?.id.clone(), token)));
    let Some((agent, token)) = known else { return Denied::Unknown.into_response() };
    if let Err(denied) = shared.spend(&Admitted::Agent(agent.clone())) {
        return denied.into_response();
    }
    let holder = Holder { agent, token: Secret::new(token.to_vec()) };
    upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(WIRE_MESSAGE_BYTES_MAX)
        .max_frame_size(WIRE_MESSAGE_BYTES_MAX)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .write_buffer_size(0)
        .on_upgrade(move |socket| attend(shared, holder, socket))
}

fn in_subprotocol(headers: &HeaderMap) -> Option<Vec<u8>> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let encoded = offered.split(',').find_map(|protocol| protocol.trim().strip_prefix("bearer."))?;
    URL_SAFE_NO_PAD.decode(encoded).ok()
}

/// Whose page it is, and by which token.
struct Holder {
    agent: HumanAgentId,
    token: Secret,
}

/// Carries messages until either side is gone, and tells the edge so.
async fn attend(shared: Arc<Shared>, holder: Holder, socket: WebSocket) {
    let agent = holder.agent.clone();
    let session = shared.next_session();
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    let opened = HttpRequest::DesktopOpened { agent: agent.clone(), session, outbox };
    if shared.edge.send(opened).await.is_err() {
        return;
    }
    carry(&shared, &holder, session, socket, messages).await;
    // An edge that is gone has no pages to forget.
    let _ = shared.edge.send(HttpRequest::DesktopClosed { agent, session }).await;
}

async fn carry(
    shared: &Shared,
    holder: &Holder,
    session: DesktopSession,
    mut socket: WebSocket,
    mut messages: mpsc::Receiver<Note>,
) {
    let (started, mut heard_at) = (Instant::now(), Instant::now());
    let mut budget = Budget::new(MESSAGES_BURST, MESSAGES_EVERY);
    let mut beat = interval(PING_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut written = None;
        let message = tokio::select! {
            biased;
            message = messages.recv() => match message {
                Some(note) => {
                    written = note.written;
                    Message::text(note.text.into_exposed())
                }
                None => {
                    let again = CloseFrame { code: TRY_AGAIN, reason: "try again".into() };
                    let _ = timeout(WRITE_MAX, socket.send(Message::Close(Some(again)))).await;
                    return;
                }
            },
            _ = beat.tick() => {
                // A reload may have taken the token away.
                let config = shared.config();
                let holds = config.agent_by_token(holder.token.reveal()).is_some_and(|a| a.id == holder.agent);
                if heard_at.elapsed() > SILENCE_MAX || !holds {
                    return;
                }
                // Scripts do not see pings; the page needs its own sign that the link lives.
                if !matches!(timeout(WRITE_MAX, socket.send(Message::Ping(Bytes::new()))).await, Ok(Ok(()))) {
                    return;
                }
                Message::text(BEAT)
            }
            heard = socket.recv() => {
                heard_at = Instant::now();
                match heard {
                    Some(Ok(Message::Text(text))) => {
                        if !budget.spend(Now::ZERO + started.elapsed()) {
                            return;
                        }
                        let text = Pii::new(text.as_str().to_owned());
                        let said = HttpRequest::DesktopSaid { agent: holder.agent.clone(), session, text };
                        if shared.edge.send(said).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    // The page sends text only.
                    Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => return,
                }
                continue;
            }
        };
        // A page that does not take a message in time is closed; it comes back to the truth.
        if !matches!(timeout(WRITE_MAX, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
        if let Some(written) = written {
            // Who asked may have stopped waiting.
            let _ = written.send(());
        }
    }
}

/// The version of the messages.
const SUBPROTOCOL: &str = "warmbridge.desktop.v1";
/// RFC 6455 registry: try again later.
const TRY_AGAIN: u16 = 1013;
/// A message above the desktop's own limit is refused by name; one above this is not read.
const WIRE_MESSAGE_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// Two cards of the largest size.
const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// An offer is a dozen messages.
const OUTBOX_MAX: usize = 64;
/// A person clicks, a page acknowledges: a dozen messages per transfer.
const MESSAGES_BURST: u32 = 60;
/// Nobody clicks ten times a second.
const MESSAGES_EVERY: Duration = Duration::from_millis(100);
/// Keeps proxies from closing an idle connection, and lets both sides find a dead one before
/// the next offer does.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Three pings unanswered.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// What the page hears with each ping.
const BEAT: &str = r#"{"type":"beat"}"#;
/// A page that takes longer is not being looked at.
const WRITE_MAX: Duration = Duration::from_secs(5);
