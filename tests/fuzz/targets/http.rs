//! Bytes on a connection of the HTTP listener, up to the desktop's WebSocket: whatever comes is
//! answered in HTTP or not at all, nothing fails inside, and what needs a token reaches the edge
//! with a token only.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Arc;

use edge_media::config::Config;
use edge_media::io::http::{ApiError, HttpRequest, Note, SIGNALS_PER_REQUEST_MAX, requests, serve_stream};
use handoff::pii::Pii;
use handoff::signal::SignalBody;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

use crate::harness::{Behaviour, Target};

pub(crate) const TARGET: Target = Target { name: "http", words: WORDS, run };

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    static CONFIG: Arc<Config> = Arc::new(config());
}

fn run(input: &[u8]) -> Behaviour {
    let (answer, asked) = RUNTIME.with(|runtime| runtime.block_on(exchange(input)));
    let mut behaviour = Behaviour::new();
    if !answer.is_empty() {
        assert!(answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    }
    let text = String::from_utf8_lossy(&answer);
    for line in text.split("HTTP/1.").skip(1).filter_map(|rest| rest.lines().next()) {
        let line = line.get(2..).unwrap_or_default();
        assert!(!line.starts_with('5'), "something fails inside: {line}");
        behaviour.note(line);
    }
    let knows = |token: &str| {
        let bare = input.windows(token.len()).any(|window| window == token.as_bytes());
        // In a subprotocol it is base64, in a query it may be escaped.
        bare || input.windows(7).any(|window| window == b"bearer." || window == b"?token=")
    };
    let known = [ANA, LEAD, WALL, BOT].into_iter().any(knows);
    for what in asked {
        assert!(what == "ready" || known, "{what} without a token");
        behaviour.note(&what);
    }
    for token in [ANA, LEAD, WALL, BOT] {
        assert!(!text.contains(token), "a token comes back");
    }
    behaviour
}

/// Sends the input, ends the stream, and reads what comes; the edge's loop answers meanwhile.
async fn exchange(input: &[u8]) -> (Vec<u8>, Vec<String>) {
    let (near, far) = duplex(PIPE_BYTES);
    let (edge, asked) = requests();
    let (_keep, config) = watch::channel(CONFIG.with(Arc::clone));
    let asked_of = RefCell::new(Vec::new());
    let (mut from, mut to) = tokio::io::split(near);
    let client = async {
        let write = async {
            // The peer may have closed already.
            let _ = to.write_all(input).await;
            let _ = to.shutdown().await;
        };
        let mut answer = Vec::new();
        let read = async {
            let _ = from.read_to_end(&mut answer).await;
        };
        tokio::join!(write, read);
        answer
    };
    let ((), answer, ()) = tokio::join!(serve_stream(far, config, edge), client, answers(asked, &asked_of));
    (answer, asked_of.into_inner())
}

/// The edge's loop: says no wherever it can.
async fn answers(mut asked: mpsc::Receiver<HttpRequest>, seen: &RefCell<Vec<String>>) {
    let mut pages = Vec::new();
    while let Some(request) = asked.recv().await {
        let name = match request {
            HttpRequest::DesktopOpened { outbox, .. } => {
                let _ = outbox.send(Note { text: Pii::new("{}".to_owned()), written: None }).await;
                pages.push(outbox);
                "opened"
            }
            HttpRequest::DesktopSaid { .. } => "said",
            HttpRequest::DesktopClosed { .. } => {
                pages.clear();
                "closed"
            }
            HttpRequest::Decide { reply, .. } => {
                let _ = reply.send(Err(ApiError::Conflict));
                "decide"
            }
            HttpRequest::Payload { reply, .. } => {
                let _ = reply.send(Err(ApiError::NotFound));
                "payload"
            }
            HttpRequest::Transcript { reply, .. } => {
                let _ = reply.send(Err(ApiError::NotYours));
                "transcript"
            }
            HttpRequest::Signals { signals, reply, .. } => {
                assert!(signals.len() <= SIGNALS_PER_REQUEST_MAX, "{} signals", signals.len());
                let _ = reply.send(Ok(()));
                "signals"
            }
            HttpRequest::RequestTransfer { request, reply, .. } => {
                let SignalBody::TransferRequest(asked) = &request.body else { panic!("{request:?}") };
                // Nothing that could be dialled gets through.
                assert!(asked.target.is_none() && asked.queue.as_deref().is_none_or(|queue| queue == QUEUE));
                let _ = reply.send(Ok(()));
                "request transfer"
            }
            HttpRequest::CancelTransfer { reply, .. } => {
                let _ = reply.send(Err(ApiError::Conflict));
                "cancel transfer"
            }
            HttpRequest::Disposition { reply, .. } => {
                let _ = reply.send(Err(ApiError::NotFound));
                "disposition"
            }
            HttpRequest::Calls { limit, reply, .. } => {
                assert!(limit <= 201, "{limit} calls");
                let _ = reply.send(Vec::new());
                "calls"
            }
            HttpRequest::Call { reply, .. } => {
                let _ = reply.send(Err(ApiError::NotFound));
                "call"
            }
            HttpRequest::Queues { reply } => {
                let _ = reply.send(Vec::new());
                "queues"
            }
            HttpRequest::Trunks { reply } => {
                let _ = reply.send((handoff::clock::Moment::default(), Vec::new()));
                "trunks"
            }
            HttpRequest::Ready { reply } => {
                let _ = reply.send(true);
                "ready"
            }
        };
        seen.borrow_mut().push(name.to_owned());
    }
}

/// The only queue of the configuration.
const QUEUE: &str = "queue_nurse";
const ANA: &str = "token-of-ana-which-is-long-enough";
const LEAD: &str = "token-of-the-supervisor-long-enough";
const WALL: &str = "token-of-the-wallboard-long-enough";
const BOT: &str = "token-of-the-voice-agent-long-enough";
/// Less than the page's script, so that an answer meets a full pipe.
const PIPE_BYTES: usize = 16 * 1024;

fn config() -> Config {
    let text = format!(
        r#"
        [edge]
        id = "edge-1"
        tenant = "t_acme"
        sip_udp = "127.0.0.1:5060"
        http = "127.0.0.1:8080"
        public_ip = "192.0.2.7"
        public_url = "https://handoff.example"
        [[trunk]]
        name = "carrier"
        addresses = ["203.0.113.0/24"]
        [voice_agent]
        url = "wss://bot.example/media"
        signal_token = "{BOT}"
        [[agent]]
        id = "agent_ana"
        name = "Ana Lind"
        uri = "sip:ana@pbx.example"
        desktop_token = "{ANA}"
        [[queue]]
        id = "queue_nurse"
        label = "Nurse line"
        spoken = "dest.nurse"
        agents = ["agent_ana"]
        [policy]
        file = "policy.toml"
        [[operator]]
        id = "lead"
        role = "supervisor"
        token = "{LEAD}"
        [[operator]]
        id = "wallboard"
        role = "monitor"
        token = "{WALL}"
        "#
    );
    Config::parse(&text, &|_: &Path| -> io::Result<String> { Ok(String::new()) })
        .expect("a valid configuration")
}

const WORDS: &[&str] = &[
    "GET ",
    "POST ",
    "HEAD ",
    "OPTIONS ",
    "PUT ",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    " HTTP/2.0\r\n",
    "/desktop/",
    "/desktop/app.js",
    "/v1/desktop/ws",
    "/v1/transfers/xfer_1/payload",
    "/v1/transfers/xfer_1/accept",
    "/v1/transfers/%2e%2e/decline",
    "/v1/transcripts/xfer_1",
    "/v1/calls",
    "/v1/calls/call_01/signals",
    "/v1/calls/call_01/transfer",
    "/v1/calls?limit=2&after=call_01",
    "/v1/queues",
    "/v1/events?call=call_01",
    "/v1/transfers/xfer_1/cancel",
    "/v1/transfers/xfer_1/hand-back",
    "/v1/openapi.json",
    "Last-Event-ID: 00000000-0\r\n",
    "/healthz",
    "/readyz",
    "?token=token-of-ana-which-is-long-enough",
    "%00",
    "%ff",
    "//",
    "/../",
    "Host: x\r\n",
    "Connection: close\r\n",
    "Connection: Upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Sec-WebSocket-Version: 13\r\n",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Sec-WebSocket-Protocol: warmbridge.desktop.v1, bearer.dG9rZW4tb2YtYW5hLXdoaWNoLWlzLWxvbmctZW5vdWdo\r\n",
    "Authorization: Bearer token-of-ana-which-is-long-enough\r\n",
    "Authorization: Bearer token-of-the-supervisor-long-enough\r\n",
    "Authorization: Bearer token-of-the-voice-agent-long-enough\r\n",
    "Authorization: Basic YTpi\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Expect: 100-continue\r\n",
    "\r\n\r\n",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
    r#"{"v":1,"id":"s1","type":"transfer.cancel"}"#,
    r#"{"reason":"vip","queue":"queue_nurse","id":"k"}"#,
    r#"{"reason":"busy"}"#,
    "\u{81}",
    "\u{89}",
    "\r",
    "\n",
];
