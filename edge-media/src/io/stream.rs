//! The shell of a voice agent's WebSocket: dials it, pumps audio between it and the media
//! plane, and tells the edge what it says. One task per stream, which nobody waits for: a
//! bot that reads slowly loses audio, a bot that floods is no longer heard, a bot that says
//! nothing for [`UNANSWERED_MAX`] is told as silent and for [`SILENCE_MAX`] is gone. What the messages mean is decided by
//! [`Session`]; nothing here looks into them. RFC 6455.

mod pump;

use core::time::Duration;
use std::sync::Arc;

use handoff::pii::Pii;
use handoff::signal::Signal;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, connect_async_tls_with_config};

use crate::config::VoiceAgent;
use crate::link::twilio::{self, FromAgent, Malformed, Session, Tally};
use crate::media::{StreamIn, StreamKey, StreamOut};
use pump::{DoorEnd, Pump};

/// What a door tells the edge.
#[derive(Clone, Debug, PartialEq)]
pub enum DoorEvent {
    /// The link is up and `start` has been sent.
    Opened,
    /// The voice agent said something about the call.
    Signal(Box<Signal>),
    /// The voice agent said something unusable; reported at a bounded rate.
    Malformed(Malformed),
    /// Nothing comes any more, not even answers to pings, or it comes again. The link is still
    /// there.
    Silent(bool),
    /// The link is over, or never came up. Exactly one per stream, and the last.
    Closed {
        /// Why.
        reason: CloseReason,
        /// What came in.
        tally: Tally,
        /// What did not get through.
        dropped: Dropped,
    },
}

/// What the edge tells a door.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DoorCommand {
    /// How the transfer stands.
    Status {
        /// `accepted`, `ringing`, `connected`, `failed`.
        status: &'static str,
        /// Seconds until a person, where known.
        eta_s: Option<u32>,
    },
}

/// Why a link is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseReason {
    /// It did not come up within [`CONNECT_TIMEOUT`].
    ConnectTimeout,
    /// The address could not be reached, or TLS failed.
    Unreachable,
    /// The server answered the upgrade with this status.
    Refused(u16),
    /// The voice agent closed it: it left the call.
    RemoteClosed,
    /// The connection broke.
    Lost,
    /// Nothing came for [`SILENCE_MAX`], not even an answer to a ping.
    Stalled,
    /// The peer broke the WebSocket protocol, or sent a message beyond all bounds.
    Protocol,
    /// The edge closed it, or its media ended.
    Local,
}

/// What did not get through, because one side was slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Frames for a voice agent that reads too slowly.
    pub frames_out: u64,
    /// Messages of audio or marks for a media plane whose queue is full.
    pub audio_in: u64,
    /// Reports for an edge that is busy.
    pub reports: u64,
}

/// The edge's handle on one stream. Dropping it closes the link.
#[derive(Debug)]
pub struct Door {
    orders: mpsc::Sender<DoorCommand>,
}

impl Door {
    /// Tells the voice agent how the transfer stands. A link too slow for it misses it.
    pub fn status(&self, status: &'static str, eta_s: Option<u32>) {
        let _ = self.orders.try_send(DoorCommand::Status { status, eta_s });
    }

    /// Says goodbye and ends; `Closed` follows.
    pub fn close(self) {
        drop(self.orders);
    }
}

/// What all streams to one voice agent share: its URL, the signature and the trusted roots.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// May hold a token, so it is never printed.
    url: Pii<String>,
    signature: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
    watch: Watch,
}

/// How a link is watched.
#[derive(Clone, Copy, Debug)]
struct Watch {
    ping_every: Duration,
    unanswered_max: Duration,
    silence_max: Duration,
}

/// Why no stream could ever be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialerError {
    /// The URL cannot be used in a request.
    #[error("the voice agent's URL cannot be dialled")]
    Url,
    /// The machine has no root certificates, so no `wss://` peer could be believed.
    #[error("no trusted root certificates were found on this machine")]
    NoRoots,
    /// The TLS library refused its own defaults.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Dialer {
    /// Reads the machine's root certificates where the URL needs them.
    pub fn new(voice_agent: &VoiceAgent) -> Result<Self, DialerError> {
        let url = voice_agent.url.clone();
        url.as_str().into_client_request().map_err(|_| DialerError::Url)?;
        let signature = match &voice_agent.auth_token {
            None => None,
            Some(token) => {
                let value = twilio::signature(token.reveal(), &url);
                Some(HeaderValue::from_str(&value).map_err(|_| DialerError::Url)?)
            }
        };
        let tls = if url.starts_with("wss:") { Some(Arc::new(trusted_roots()?)) } else { None };
        Ok(Self { url: Pii::new(url), signature, tls, watch: WATCH })
    }

    fn request(&self) -> Result<Request<()>, CloseReason> {
        let mut request =
            self.url.expose().as_str().into_client_request().map_err(|_| CloseReason::Unreachable)?;
        if let Some(signature) = &self.signature {
            request.headers_mut().insert("X-Twilio-Signature", signature.clone());
        }
        Ok(request)
    }

    async fn dial(&self) -> Result<pump::Socket, CloseReason> {
        let limits = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(WIRE_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(WIRE_MESSAGE_BYTES_MAX));
        let connector = self.tls.clone().map_or(Connector::Plain, Connector::Rustls);
        let dialled = connect_async_tls_with_config(self.request()?, Some(limits), true, Some(connector));
        match timeout(CONNECT_TIMEOUT, dialled).await {
            Err(_elapsed) => Err(CloseReason::ConnectTimeout),
            Ok(Ok((socket, _response))) => Ok(socket),
            Ok(Err(WsError::Http(response))) => Err(CloseReason::Refused(response.status().as_u16())),
            Ok(Err(_unreachable)) => Err(CloseReason::Unreachable),
        }
    }
}

fn trusted_roots() -> Result<ClientConfig, DialerError> {
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(DialerError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Dials the voice agent for one call. Returns at once; `events` gets `Opened` or `Closed`,
/// tagged with the stream. The two audio queues are those that the media plane opened for
/// it; the media plane drops frames when the one towards the voice agent is full.
pub fn connect(
    dialer: &Dialer,
    stream: StreamKey,
    session: Session,
    audio_in: mpsc::Sender<StreamIn>,
    audio_out: mpsc::Receiver<StreamOut>,
    events: mpsc::Sender<(StreamKey, DoorEvent)>,
) -> Door {
    let (orders, commands) = mpsc::channel(COMMANDS_MAX);
    let dialer = dialer.clone();
    let watch = dialer.watch;
    let media = DoorEnd { to_media: audio_in, from_media: audio_out };
    tokio::spawn(async move {
        let closed = match dialer.dial().await {
            Ok(socket) => {
                let pump = Pump::new(stream, socket, session, media, events.clone(), commands);
                pump.run(watch).await
            }
            Err(reason) => DoorEvent::Closed { reason, tally: session.tally(), dropped: Dropped::default() },
        };
        // The edge that is gone needs no report.
        let _ = events.send((stream, closed)).await;
    });
    Door { orders }
}

/// A bot that has not answered by then would answer into a caller's impatience.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A bot that answers no ping for so long is gone. Longer lets the caller wait for a dead one;
/// shorter loses a bot over a pause of its machine, and with it what it knows of the call.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Three pings unanswered: whoever listens to the bot hears something else until it is back.
pub const UNANSWERED_MAX: Duration = Duration::from_secs(3);
/// Every library answers pings by itself, and a ping a second costs nothing beside the audio.
const PING_EVERY: Duration = Duration::from_secs(1);
/// The watch of every link but those of tests, which have less time.
const WATCH: Watch =
    Watch { ping_every: PING_EVERY, unanswered_max: UNANSWERED_MAX, silence_max: SILENCE_MAX };
/// Time for the last words and the peer's own close frame.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// The edge says a handful of things per transfer.
const COMMANDS_MAX: usize = 16;
/// Messages written but not taken by a slow peer: one more second.
const OUTBOX_MAX: usize = 50;
/// Audio that waits for a full media queue; marks may exceed it by as much again, because
/// a lost mark leaves a bot waiting for ever.
const PENDING_MAX: usize = 64;
/// Reports that wait for a busy edge.
const REPORTS_MAX: usize = 128;
/// Half a second of frames each way; the library allocates it at once for every stream.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Beyond this the library reports an error instead of taking more.
const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Above [`twilio::MESSAGE_BYTES_MAX`] a message is refused and the link stays; above this
/// it is not even read, and the link cannot stay.
const WIRE_MESSAGE_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests;
