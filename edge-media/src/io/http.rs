//! The HTTP listener: the human agent's page and its WebSocket, the API of transfers, calls
//! and signals, and the health of the edge. It holds no state of any call: each request
//! becomes an [`HttpRequest`] to the edge's loop, which answers or is too busy. Every route
//! but the page's own files, `/healthz`, `/readyz` and the description of the API needs a
//! bearer token, or, for dispositions, a signature; what a token opens is its holder's role, and how often is bounded. The
//! description (`openapi.json`) is held against the routes by a test. TLS is the business of
//! a proxy before it. RFC 9110, 9457 (problems), 6455.

mod access;
mod calls;
mod desktop;
mod dispositions;
pub mod events;
mod problem;
mod routes;
mod transfers;
pub mod trunks;

use core::future::Future;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use functions::disposition::Disposition;
use handoff::call::{Standing, Waiting};
use handoff::clock::{Moment, Now};
use handoff::id::{CallId, DestinationId, HumanAgentId, QueueId, TransferId};
use handoff::pii::Pii;
use handoff::signal::Signal;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::desktop::{DesktopInput, DesktopSession};
use crate::edge::directory::Staffing;
use crate::io::http::access::Rates;
use crate::io::http::events::EventLog;
use crate::io::http::problem::Denied;
use crate::sip::UplinkState;

/// A message for a page.
#[derive(Debug)]
pub struct Note {
    /// What it says.
    pub text: Pii<String>,
    /// Told once it is written to the socket; dropped where it cannot be.
    pub written: Option<oneshot::Sender<()>>,
}

/// What the listener asks of the edge's loop.
#[derive(Debug)]
pub enum HttpRequest {
    /// A page was opened with this person's token. The edge sends its state into `outbox`,
    /// and closes the page by dropping it.
    DesktopOpened {
        /// Whose.
        agent: HumanAgentId,
        /// Which page.
        session: DesktopSession,
        /// Messages for it.
        outbox: mpsc::Sender<Note>,
    },
    /// A page said something, not yet parsed.
    DesktopSaid {
        /// Whose.
        agent: HumanAgentId,
        /// Which page.
        session: DesktopSession,
        /// What.
        text: Pii<String>,
    },
    /// A page is gone.
    DesktopClosed {
        /// Whose.
        agent: HumanAgentId,
        /// Which page.
        session: DesktopSession,
    },
    /// An accept, a decline or a hand-back over the API.
    Decide {
        /// By whom.
        agent: HumanAgentId,
        /// What.
        input: DesktopInput,
        /// Whether it was taken.
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// The payload of a transfer. The edge records who looked before it answers.
    Payload {
        /// Which transfer.
        transfer: TransferId,
        /// Who asks.
        who: Accessor,
        /// The payload as JSON.
        reply: oneshot::Sender<Result<Pii<String>, ApiError>>,
    },
    /// The transcript of a transfer, on demand only. The edge records who looked before it
    /// answers.
    Transcript {
        /// Which transfer.
        transfer: TransferId,
        /// Who asks.
        who: Accessor,
        /// The transcript as JSON ([`crate::desktop::transcript`]).
        reply: oneshot::Sender<Result<Pii<String>, ApiError>>,
    },
    /// Signals of the voice agent, outside its stream.
    Signals {
        /// The edge's id of the call, or the stream's `CA…`.
        call: String,
        /// All valid; at most [`SIGNALS_PER_REQUEST_MAX`].
        signals: Vec<Signal>,
        /// Whether the call is known.
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// Somebody asks for a person for a call. The policy decides, as it does for the voice
    /// agent's own request.
    RequestTransfer {
        /// The call.
        call: CallId,
        /// The request, with an id that names who asks.
        request: Box<Signal>,
        /// Whether the call is in a state in which it can be asked for.
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// Somebody takes a transfer back before anybody has accepted it.
    CancelTransfer {
        /// Which transfer.
        transfer: TransferId,
        /// The id of the command.
        id: String,
        /// Whether it was still possible.
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// What a CRM says of a transfer after the call; its signature was good.
    Disposition {
        /// Who signed it.
        from: DestinationId,
        /// The sender's id of the message.
        message_id: String,
        /// What it says.
        disposition: Box<Disposition>,
        /// Whether it is on its way into the record.
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// The calls under way, in the order of their ids.
    Calls {
        /// Behind this one.
        after: Option<CallId>,
        /// At most so many.
        limit: usize,
        /// Without personal data.
        reply: oneshot::Sender<Vec<CallSummary>>,
    },
    /// One call under way.
    Call {
        /// Which.
        call: CallId,
        /// Without personal data.
        reply: oneshot::Sender<Result<CallSummary, ApiError>>,
    },
    /// The queues with who waits in them.
    Queues {
        /// In the order of the configuration.
        reply: oneshot::Sender<Vec<QueueFigures>>,
    },
    /// The trunks and how it stands with them.
    Trunks {
        /// At which moment, each with what is kept up with it.
        reply: oneshot::Sender<TrunkStates>,
    },
    /// Whether the edge takes new calls.
    Ready {
        /// The answer.
        reply: oneshot::Sender<bool>,
    },
}

/// The trunks at one moment, each by its name with what is kept up with it.
pub type TrunkStates = (Moment, Vec<(String, Option<UplinkState>)>);

/// Who asks for personal data, for the record of the access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accessor {
    /// A human agent: their own transfers only.
    Agent(HumanAgentId),
    /// A supervisor of the configuration, by id.
    Supervisor(String),
}

/// One line of the list of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSummary {
    /// Which.
    pub call: CallId,
    /// Where it stands.
    pub standing: Standing,
    /// How its caller waits for a person, and for how long already.
    pub waiting: Option<(Waiting, Duration)>,
}

/// One queue as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFigures {
    /// Which.
    pub queue: QueueId,
    /// Its name on screens.
    pub label: String,
    /// Its people.
    pub staffing: Staffing,
    /// Announced until there is a history to measure.
    pub wait_default_s: u32,
    /// Who waits, the longest first, and for how long already.
    pub waiting: Vec<(TransferId, Duration)>,
}

/// Why the edge does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no such call or transfer.
    #[error("not found")]
    NotFound,
    /// It belongs to somebody else.
    #[error("not yours")]
    NotYours,
    /// It is over, or not so far yet.
    #[error("not possible now")]
    Conflict,
    /// The edge is overloaded or stopping.
    #[error("busy")]
    Busy,
}

impl ApiError {
    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::NotYours => StatusCode::FORBIDDEN,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The open pages, for the edge's loop: who is to be sent what. A page that does not keep
/// up is closed; it comes back and is shown the truth.
#[derive(Debug, Default)]
pub struct DesktopSockets {
    open: BTreeMap<(HumanAgentId, DesktopSession), mpsc::Sender<Note>>,
}

impl DesktopSockets {
    /// Keeps the outbox of a page.
    pub fn open(&mut self, agent: HumanAgentId, session: DesktopSession, outbox: mpsc::Sender<Note>) {
        self.open.insert((agent, session), outbox);
    }

    /// Forgets a page; its socket closes.
    pub fn close(&mut self, agent: &HumanAgentId, session: DesktopSession) {
        self.open.remove(&(agent.clone(), session));
    }

    /// Sends to one page.
    pub fn send(&mut self, agent: &HumanAgentId, session: DesktopSession, text: Pii<String>) {
        let key = (agent.clone(), session);
        if self.open.get(&key).is_some_and(|outbox| outbox.try_send(Note { text, written: None }).is_err()) {
            self.open.remove(&key);
        }
    }

    /// Sends to every page of one person.
    pub fn send_all(&mut self, agent: &HumanAgentId, text: &Pii<String>) {
        self.open.retain(|(owner, _), outbox| {
            owner != agent || outbox.try_send(Note { text: text.clone(), written: None }).is_ok()
        });
    }

    /// Sends to every page of one person; each says when it is written.
    pub fn send_all_watched(
        &mut self,
        agent: &HumanAgentId,
        text: &Pii<String>,
    ) -> Vec<oneshot::Receiver<()>> {
        let mut watched = Vec::new();
        self.open.retain(|(owner, _), outbox| {
            if owner != agent {
                return true;
            }
            let (written, told) = oneshot::channel();
            watched.push(told);
            outbox.try_send(Note { text: text.clone(), written: Some(written) }).is_ok()
        });
        watched
    }
}

/// What every handler needs.
#[derive(Debug)]
struct Shared {
    config: watch::Receiver<Arc<Config>>,
    edge: mpsc::Sender<HttpRequest>,
    events: Arc<EventLog>,
    /// Event streams that may still be opened.
    streams: Arc<Semaphore>,
    rates: Mutex<Rates>,
    started: Instant,
    sessions: AtomicU64,
}

impl Shared {
    fn new(
        config: watch::Receiver<Arc<Config>>,
        edge: mpsc::Sender<HttpRequest>,
        events: Arc<EventLog>,
        rates: Rates,
        streams: usize,
    ) -> Self {
        Self {
            config,
            edge,
            events,
            streams: Arc::new(Semaphore::new(streams)),
            rates: Mutex::new(rates),
            started: Instant::now(),
            sessions: AtomicU64::new(1),
        }
    }

    fn now(&self) -> Now {
        Now::ZERO + self.started.elapsed()
    }

    fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    fn next_session(&self) -> DesktopSession {
        DesktopSession(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks the edge and waits for its answer, for a bounded time.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> HttpRequest) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.edge.try_send(request(reply)).map_err(|_| ApiError::Busy)?;
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(ApiError::Busy),
        }
    }
}

/// The channel between the listener and the edge's loop.
pub fn requests() -> (mpsc::Sender<HttpRequest>, mpsc::Receiver<HttpRequest>) {
    mpsc::channel(REQUESTS_MAX)
}

/// Serves until `stop` resolves; open pages are then closed. A new configuration on `config`
/// holds for every request and page that begins after it.
pub async fn serve(
    listener: TcpListener,
    config: watch::Receiver<Arc<Config>>,
    edge: mpsc::Sender<HttpRequest>,
    events: Arc<EventLog>,
    stop: impl Future<Output = ()>,
) {
    accept(listener, Shared::new(config, edge, events, Rates::default(), EVENT_STREAMS_MAX), stop).await;
}

async fn accept(listener: TcpListener, shared: Shared, stop: impl Future<Output = ()>) {
    let router = router(Arc::new(shared));
    let mut connections = JoinSet::new();
    let mut stop = core::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            Some(_ended) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        let Ok((socket, _)) = accepted else {
            // Descriptors are exhausted, or the peer is gone already: neither is mended by haste.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A socket that cannot be set up serves all the same.
        let _ = set_up(&socket);
        connections.spawn(attend(router.clone(), socket));
    }
}

fn set_up(socket: &TcpStream) -> std::io::Result<()> {
    // Without it a small message waits for the acknowledgement of the one before.
    socket.set_nodelay(true)?;
    // Nothing above the socket notices a peer that asks and does not read: the answer would
    // wait for it, and hold the connection, for ever.
    SockRef::from(socket).set_tcp_user_timeout(Some(UNREAD_MAX))
}

/// Serves one stream of bytes as if it had been accepted, until either side ends it. It needs
/// no port, so hostile input can be tried by the hundred thousand. There is no stream of
/// events: it would not end with its input.
pub async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    config: watch::Receiver<Arc<Config>>,
    edge: mpsc::Sender<HttpRequest>,
) {
    let shared = Shared::new(config, edge, Arc::new(EventLog::new(0)), Rates::default(), 0);
    attend(router(Arc::new(shared)), stream).await;
}

async fn attend(router: Router, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    // A connection that breaks is the peer's affair.
    let _ = connection.await;
}

/// Every route there is, with the methods that it takes.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    vec![
        ("/desktop", get(routes::to_page)),
        ("/desktop/", get(routes::page)),
        ("/desktop/app.js", get(routes::script)),
        ("/desktop/style.css", get(routes::style)),
        ("/desktop/icon.svg", get(routes::icon)),
        ("/healthz", get(routes::healthy)),
        ("/readyz", get(routes::ready)),
        ("/v1/openapi.json", get(routes::description)),
        ("/v1/desktop/ws", get(desktop::open)),
        ("/v1/events", get(events::stream)),
        ("/v1/queues", get(calls::queues)),
        ("/v1/calls", get(calls::list)),
        ("/v1/calls/{id}", get(calls::show)),
        ("/v1/calls/{id}/signals", post(calls::signals)),
        ("/v1/calls/{id}/transfer", post(calls::request_transfer)),
        ("/v1/transfers/{id}/cancel", post(transfers::cancel)),
        ("/v1/transfers/{id}/accept", post(transfers::accept)),
        ("/v1/transfers/{id}/decline", post(transfers::decline)),
        ("/v1/transfers/{id}/hand-back", post(transfers::hand_back)),
        ("/v1/transfers/{id}/payload", get(transfers::payload)),
        ("/v1/transcripts/{id}", get(transfers::transcript)),
        ("/v1/trunks", get(trunks::list)),
        ("/v1/trunks/{name}", get(trunks::show)),
        ("/v1/dispositions", post(dispositions::receive)),
    ]
}

fn router(shared: Arc<Shared>) -> Router {
    let routed =
        routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    routed.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).layer(from_fn(guarded)).with_state(shared)
}

/// Every answer comes in bounded time, tells what is wrong in one form, and has the headers
/// that keep a browser from doing anything else with it.
async fn guarded(request: Request, next: Next) -> Response {
    let of_api = request.uri().path().starts_with("/v1/");
    let mut response = if promises_too_much(request.headers()) {
        Denied::TooLarge.into_response()
    } else {
        let answered = tokio::time::timeout(REQUEST_MAX, next.run(request)).await;
        answered.unwrap_or_else(|_elapsed| StatusCode::REQUEST_TIMEOUT.into_response())
    };
    if of_api {
        response = problem::in_one_form(response);
    }
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// A body that would be refused is not waited for (RFC 9110 section 15.5.14). One without a
/// length is refused once it has grown too large.
fn promises_too_much(headers: &HeaderMap) -> bool {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > BODY_BYTES_MAX as u64)
}

/// The page loads its own four files and talks to its own origin; nothing else runs in it,
/// and nobody frames it.
const SECURITY_HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), clipboard-write=(self)"),
];

/// The largest thing to be posted is a batch of signals.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Signals in one request; a turn brings half a dozen.
pub const SIGNALS_PER_REQUEST_MAX: usize = 100;
/// A browser's headers are a tenth of it; hyper wants at least 8 KiB.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// For the headers of a request, and for an idle connection until the next one.
const HEADERS_MAX: Duration = Duration::from_secs(15);
/// For a whole request, its body included.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// For a peer to take any of what waits for it (RFC 5482, also where its window is closed).
const UNREAD_MAX: Duration = Duration::from_secs(15);
/// For the edge's loop; it answers within a tick when it is well.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Pages of a large team with their API calls. Beyond it new connections wait in the kernel.
const CONNECTIONS_MAX: usize = 2_048;
/// A second of requests at the rate at which a large team could make them.
const REQUESTS_MAX: usize = 512;
/// A wallboard and a few programs; each holds a connection and a task.
const EVENT_STREAMS_MAX: usize = 32;
/// See its use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
