//! SIP over WebSocket (RFC 7118): the upgrade, which must ask for the subprotocol `sip`, and
//! the life of one such connection. A frame is a message, whole, in either direction; what it
//! says is read elsewhere. A page in a browser can send no ping, so the edge does (RFC 7118
//! section 6), and whoever answers none is gone, and their registration with them.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::door::FIRST_BYTE_MAX;
use super::{CONNECT_MAX, NetEvent};
use crate::sip::{Flow, MESSAGE_BYTES_MAX};

/// What both sides must speak (RFC 7118 section 4.1).
const SUBPROTOCOL: &str = "sip";

/// The library allocates it at once for each connection; most messages fit.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// What a slow peer may leave unread inside the library: two of the largest messages.
const WRITE_BUFFER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// Pings and pongs of the far end between two of our own. One a second is a lot; more is a
/// flood, because each of theirs costs us an answer.
const CONTROL_FRAMES_MAX: u32 = 64;

/// How a connection is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    ping_every: Duration,
    silence_max: Duration,
    first_message_max: Duration,
}

/// Below the half minute after which proxies and NATs forget a quiet connection; three unanswered
/// pings are a phone whose machine sleeps or whose network is gone.
pub(super) const WATCH: Watch = Watch {
    ping_every: Duration::from_secs(20),
    silence_max: Duration::from_secs(60),
    first_message_max: FIRST_BYTE_MAX,
};

/// Upgrades a connection that asks for SIP. Whoever asks for something else gets 400.
pub(super) async fn upgrade<S>(stream: S) -> Result<WebSocketStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    accept_hdr_async_with_config(stream, agree, Some(limits)).await
}

/// The library's own type of a refusal is large, and made once per connection.
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let speaks_sip = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL);
    if speaks_sip {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some("the subprotocol here is sip (RFC 7118)\n".to_owned()));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

/// Carries messages both ways until one side ends it.
pub(super) async fn carry<S>(
    mut socket: WebSocketStream<S>,
    flow: Flow,
    watch: Watch,
    mut writes: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<NetEvent>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    let (mut heard_at, mut spoke, mut control_frames) = (began, false, 0);
    let mut beat = interval_at(began + watch.ping_every, watch.ping_every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            came = socket.next() => {
                heard_at = Instant::now();
                let message = match came {
                    Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                    Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                        control_frames += 1;
                        if control_frames > CONTROL_FRAMES_MAX { break } else { continue }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                };
                spoke = true;
                if events.send(NetEvent::Bytes(flow, message)).await.is_err() {
                    return;
                }
            }
            write = writes.recv() => {
                let Some(bytes) = write else { break };
                if !matches!(timeout(CONNECT_MAX, socket.send(framed(bytes))).await, Ok(Ok(()))) {
                    break;
                }
            }
            _ = beat.tick() => {
                control_frames = 0;
                if heard_at.elapsed() > watch.silence_max {
                    break;
                }
                let ping = Message::Ping(Vec::new().into());
                if !matches!(timeout(CONNECT_MAX, socket.send(ping)).await, Ok(Ok(()))) {
                    break;
                }
            }
            () = sleep_until(began + watch.first_message_max), if !spoke => break,
        }
    }
    // The far end may be gone, and then nobody is told.
    let _ = timeout(CONNECT_MAX, socket.close(None)).await;
    let _ = events.send(NetEvent::Closed(flow)).await;
}

/// One message as one frame: text where it is text, for the sake of phones that take no other
/// (RFC 7118 section 5.1 lets both be sent).
fn framed(bytes: Vec<u8>) -> Message {
    match String::from_utf8(bytes) {
        Ok(text) => Message::text(text),
        Err(error) => Message::binary(error.into_bytes()),
    }
}

#[cfg(test)]
mod tests;
