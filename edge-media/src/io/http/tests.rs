//! Real sockets on loopback: who gets in, what each role opens, what the edge is asked.

use std::collections::BTreeMap as Map;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use handoff::call::outcome::Phase;
use handoff::event::Role;
use handoff::id::LegId;
use handoff::policy::Category;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;
use crate::link::Budget;
use crate::sip::{LastAnswer, OptionsState, RegistrationPhase, RegistrationState};

mod contract;
mod following;
mod signed;

const ANA: &str = "token-of-ana-which-is-long-enough";
const LEAD: &str = "token-of-the-supervisor-long-enough";
const WALL: &str = "token-of-the-wallboard-long-enough";
const BOT: &str = "token-of-the-voice-agent-long-enough";
/// The secret that the CRM has of us, and the one before it.
const CRM: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const CRM_BEFORE: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Long enough for a loaded machine; nothing is asserted of it.
const PATIENCE: Duration = Duration::from_secs(20);

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
        [[webhook]]
        id = "crm"
        url = "https://crm.example/hook"
        secret = "{CRM}"
        old_secret = "{CRM_BEFORE}"
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
    Config::parse(&text, &|_: &Path| -> io::Result<String> { Ok(String::new()) }).unwrap()
}

/// An edge's loop that answers by the name of what is asked for, and keeps the last pages:
/// `…_none` does not exist, `…_other` is somebody else's, `…_late` is over.
async fn edge(mut requests: mpsc::Receiver<HttpRequest>, seen: mpsc::Sender<String>) {
    let mut sockets = DesktopSockets::default();
    while let Some(request) = requests.recv().await {
        // Nobody may wait for the answer any more, nor for the line.
        let line = match request {
            HttpRequest::DesktopOpened { agent, session, outbox } => {
                sockets.open(agent.clone(), session, outbox);
                sockets.send(&agent, session, Pii::new(r#"{"type":"state"}"#.to_owned()));
                format!("opened {agent}")
            }
            HttpRequest::DesktopSaid { agent, session, text } => {
                if text.expose() == "close" {
                    sockets.close(&agent, session);
                } else {
                    let watched = sockets.send_all_watched(&agent, &text);
                    let seen = seen.clone();
                    tokio::spawn(async move {
                        for page in watched {
                            let word = if page.await.is_ok() { "written" } else { "lost" };
                            let _ = seen.send(word.to_owned()).await;
                        }
                    });
                }
                format!("said {agent} {}", text.expose())
            }
            HttpRequest::DesktopClosed { agent, .. } => format!("closed {agent}"),
            HttpRequest::Decide { agent, input, reply } => {
                let _ = reply.send(by_name(input.transfer().as_str(), ()));
                format!("{agent} {input:?}")
            }
            HttpRequest::Payload { transfer, who, reply } => {
                let _ = reply.send(by_name(transfer.as_str(), Pii::new(r#"{"summary":{}}"#.to_owned())));
                format!("payload {transfer} {who:?}")
            }
            HttpRequest::Transcript { transfer, who, reply } => {
                let text = crate::desktop::transcript(&transfer, &[], false);
                let _ = reply.send(by_name(transfer.as_str(), text));
                format!("transcript {transfer} {who:?}")
            }
            HttpRequest::Signals { call, signals, reply } => {
                let _ = reply.send(by_name(&call, ()));
                format!("signals {call} {}", signals.len())
            }
            HttpRequest::RequestTransfer { call, request, reply } => {
                let _ = reply.send(by_name(call.as_str(), ()));
                format!("{} {:?}", request.id, request.body)
            }
            HttpRequest::CancelTransfer { transfer, id, reply } => {
                let _ = reply.send(by_name(transfer.as_str(), ()));
                format!("cancel {transfer} {id}")
            }
            HttpRequest::Disposition { from, message_id, disposition, reply } => {
                let _ = reply.send(by_name(disposition.transfer().as_str(), ()));
                format!("disposition {from} {message_id} {disposition:?}")
            }
            HttpRequest::Calls { after, limit, reply } => {
                let _ = reply
                    .send(["call_01", "call_02", "call_03"].map(summary).into_iter().take(limit).collect());
                format!("calls {after:?} {limit}")
            }
            HttpRequest::Call { call, reply } => {
                let _ = reply.send(by_name(call.as_str(), summary(call.as_str())));
                format!("call {call}")
            }
            HttpRequest::Queues { reply } => {
                let waiting = vec![(TransferId::parse("xfer_1").unwrap(), Duration::from_secs(4))];
                let queue = QueueId::parse("queue_nurse").unwrap();
                let staffing = Staffing { people: 2, present: 1, available: 1, estimate_s: None };
                let label = "Nurse line".to_owned();
                let _ =
                    reply.send(vec![QueueFigures { queue, label, staffing, wait_default_s: 30, waiting }]);
                "queues".to_owned()
            }
            HttpRequest::Trunks { reply } => {
                let _ = reply.send((Moment::default(), trunks()));
                "trunks".to_owned()
            }
            HttpRequest::Ready { reply } => {
                let _ = reply.send(true);
                "ready".to_owned()
            }
        };
        let _ = seen.try_send(line);
    }
}

/// One trunk that all is told of, and one that nothing is kept up with.
fn trunks() -> Vec<(String, Option<UplinkState>)> {
    let server = "192.0.2.1:5060".parse().unwrap();
    let last = |status| Some(LastAnswer { at: Now::ZERO, server, status });
    let registration = RegistrationState {
        phase: RegistrationPhase::Waiting,
        since: Some(Now::ZERO),
        until: Some(Now::from_millis(90_000)),
        next: Some(Now::from_millis(30_000)),
        failures: 1,
        last: last(None),
    };
    let options = OptionsState { up: Some(true), since: Some(Now::ZERO), last: last(Some(200)) };
    let state = UplinkState {
        trunk: "carrier".to_owned(),
        server: Some(server),
        registration: Some(registration),
        options: Some(options),
    };
    vec![("carrier".to_owned(), Some(state)), ("pbx".to_owned(), None)]
}

fn by_name<T>(name: &str, found: T) -> Result<T, ApiError> {
    match name {
        _ if name.ends_with("_none") => Err(ApiError::NotFound),
        _ if name.ends_with("_other") => Err(ApiError::NotYours),
        _ if name.ends_with("_late") => Err(ApiError::Conflict),
        _anything_else => Ok(found),
    }
}

fn summary(call: &str) -> CallSummary {
    let legs = Map::from([(LegId::CALLER, Role::Caller)]);
    let transfer = TransferId::parse("xfer_1").unwrap();
    let waiting = Waiting {
        transfer: transfer.clone(),
        queue: QueueId::parse("queue_nurse").unwrap(),
        category: Category::CallerRequest,
        since: Now::ZERO,
        estimate_s: 30,
        attempt: 1,
        offered_to: None,
    };
    CallSummary {
        call: CallId::parse(call).unwrap(),
        standing: Standing {
            state: "transferring",
            phase: Some(Phase::Offering),
            transfer: Some(transfer),
            legs,
        },
        waiting: Some((waiting, Duration::from_millis(1_500))),
    }
}

/// A listener of its own for a test.
struct Listening {
    address: SocketAddr,
    lines: mpsc::Receiver<String>,
    events: Arc<EventLog>,
    config: watch::Sender<Arc<Config>>,
}

async fn listen(rates: Rates, edge_is_up: bool) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = requests();
    let (seen, lines) = mpsc::channel(1_024);
    if edge_is_up {
        tokio::spawn(edge(receiver, seen));
    }
    let (config, watched) = watch::channel(Arc::new(config()));
    let events = Arc::new(EventLog::new(7));
    let shared = Shared::new(watched, sender, Arc::clone(&events), rates, EVENT_STREAMS_MAX);
    tokio::spawn(accept(listener, shared, core::future::pending()));
    Listening { address, lines, events, config }
}

async fn start() -> (SocketAddr, mpsc::Receiver<String>) {
    let Listening { address, lines, config, .. } = listen(Rates::default(), true).await;
    // The listener keeps what it was last given.
    drop(config);
    (address, lines)
}

/// One request on its own connection: status, headers and body.
async fn send(address: SocketAddr, head: &str, body: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request =
        format!("{head}\r\nhost: edge\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    // The server may answer, and close, before it has read everything.
    let _ = socket.write_all(request.as_bytes()).await;
    let mut response = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut response)).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

async fn call(address: SocketAddr, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
    let head = format!("{method} {path} HTTP/1.1\r\nauthorization: Bearer {token}");
    let (status, _, body) = send(address, &head, body).await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

type Page = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(address: SocketAddr, protocols: &str) -> Result<Page, WsError> {
    let mut request = format!("ws://{address}/v1/desktop/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    connect_async(request).await.map(|(page, _)| page)
}

async fn hear(page: &mut Page) -> Option<String> {
    loop {
        match timeout(PATIENCE, page.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) if text.as_str() == r#"{"type":"beat"}"# => {}
            Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(_) | Err(_)) | None => return None,
        }
    }
}

fn protocols(token: &str) -> String {
    format!("warmbridge.desktop.v1, bearer.{}", URL_SAFE_NO_PAD.encode(token))
}

#[tokio::test]
async fn the_page_is_served_with_the_headers_that_confine_it() {
    let (address, _lines) = start().await;
    for (path, kind) in [
        ("/desktop/", "text/html"),
        ("/desktop/app.js", "text/javascript"),
        ("/desktop/style.css", "text/css"),
    ] {
        let (status, head, _) = send(address, &format!("GET {path} HTTP/1.1"), "").await;
        assert_eq!(status, 200);
        assert!(
            head.contains(kind)
                && head.contains("content-security-policy: default-src 'none'; script-src 'self'")
        );
        assert!(
            head.contains("x-content-type-options: nosniff") && head.contains("referrer-policy: no-referrer")
        );
    }
    assert_eq!(send(address, "GET /desktop HTTP/1.1", "").await.0, 308);
    assert_eq!(send(address, "GET /nothing HTTP/1.1", "").await.0, 404);
}

#[tokio::test]
async fn health_needs_no_token_and_readiness_is_the_edges_own_word() {
    let (address, mut lines) = start().await;
    assert_eq!(send(address, "GET /healthz HTTP/1.1", "").await.0, 200);
    assert_eq!(send(address, "GET /readyz HTTP/1.1", "").await.0, 200);
    assert_eq!(lines.recv().await.unwrap(), "ready");
    let down = listen(Rates::default(), false).await;
    assert_eq!(send(down.address, "GET /healthz HTTP/1.1", "").await.0, 200);
    assert_eq!(send(down.address, "GET /readyz HTTP/1.1", "").await.0, 503);
}

#[tokio::test]
async fn each_role_opens_what_it_may_and_nothing_else() {
    let (address, _lines) = start().await;
    let stranger = "a-token-that-nobody-has-been-given";
    // By Ana, the supervisor, the wallboard, the voice agent; what gets past the role is 2xx,
    // 404 or 422.
    for (method, path, expected) in [
        ("GET", "/v1/calls", [403, 200, 200, 403]),
        ("GET", "/v1/calls/call_01", [403, 200, 200, 403]),
        ("GET", "/v1/events?call=x", [403, 422, 422, 403]),
        ("GET", "/v1/queues", [200, 200, 200, 403]),
        ("GET", "/v1/transfers/xfer_1/payload", [200, 200, 403, 403]),
        ("GET", "/v1/transcripts/xfer_1", [200, 200, 403, 403]),
        ("POST", "/v1/transfers/xfer_1/accept", [202, 403, 403, 403]),
        ("POST", "/v1/transfers/xfer_1/decline", [202, 403, 403, 403]),
        ("POST", "/v1/transfers/xfer_1/hand-back", [202, 403, 403, 403]),
        ("POST", "/v1/transfers/xfer_1/cancel", [403, 202, 403, 202]),
        ("POST", "/v1/calls/call_01/transfer", [403, 422, 403, 422]),
        ("POST", "/v1/calls/call_01/signals", [403, 403, 403, 422]),
        ("GET", "/v1/transfers/%00/payload", [404, 404, 403, 403]),
    ] {
        for (token, status) in [ANA, LEAD, WALL, BOT].into_iter().zip(expected) {
            assert_eq!(call(address, method, path, token, "").await.0, status, "{method} {path} by {token}");
        }
        assert_eq!(call(address, method, path, stranger, "").await.0, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn the_edge_learns_who_looks_before_it_answers() {
    let (address, mut lines) = start().await;
    let (_, body) = call(address, "GET", "/v1/transfers/xfer_1/payload", ANA, "").await;
    assert_eq!(body, json!({"summary": {}}));
    assert_eq!(lines.recv().await.unwrap(), "payload xfer_1 Agent(HumanAgentId(\"agent_ana\"))");
    call(address, "GET", "/v1/transcripts/xfer_1", LEAD, "").await;
    assert_eq!(lines.recv().await.unwrap(), "transcript xfer_1 Supervisor(\"lead\")");
}

#[tokio::test]
async fn calls_come_in_pages_and_say_how_their_callers_wait() {
    let (address, mut lines) = start().await;
    let (_, body) = call(address, "GET", "/v1/calls?limit=2", WALL, "").await;
    assert_eq!(lines.recv().await.unwrap(), "calls None 3");
    assert_eq!((&body["calls"][1]["call"], &body["next"]), (&json!("call_02"), &json!("call_02")));
    assert_eq!(body["calls"][0]["legs"], json!([{"leg": 0, "role": "caller"}]));
    assert_eq!(body["calls"][0]["waiting"]["waited_ms"], 1_500);
    let (_, body) = call(address, "GET", "/v1/calls?after=call_01", WALL, "").await;
    assert_eq!(lines.recv().await.unwrap(), "calls Some(CallId(\"call_01\")) 101");
    assert_eq!(body["next"], Value::Null);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("after=%2B49", "after"),
        ("page=2", "query"),
    ] {
        let (status, body) = call(address, "GET", &format!("/v1/calls?{query}"), WALL, "").await;
        assert_eq!((status, &body["field"]), (422, &json!(field)), "{query}");
    }
}

#[tokio::test]
async fn a_transfer_is_asked_for_by_the_name_of_a_queue_and_by_nothing_that_could_be_dialled() {
    let (address, mut lines) = start().await;
    let path = "/v1/calls/call_01/transfer";
    let body = r#"{"reason":"vip","queue":"queue_nurse","summary":"Asks for a refill.","id":"k-1"}"#;
    let (status, answer) = call(address, "POST", path, LEAD, body).await;
    assert_eq!((status, answer), (202, json!({"signal": "api:lead:k-1"})));
    let asked = lines.recv().await.unwrap();
    assert!(asked.starts_with("api:lead:k-1 TransferRequest") && asked.contains("target: None"), "{asked}");
    let (_, answer) = call(address, "POST", path, BOT, r#"{"reason":"other"}"#).await;
    assert!(answer["signal"].as_str().unwrap().starts_with("api:voice_agent:"));
    for (body, field) in [
        ("[]", "body"),
        ("{", "body"),
        ("", "reason"),
        (r#"{"reason":"because"}"#, "reason"),
        (r#"{"reason":"vip","queue":"+88216555"}"#, "queue"),
        (r#"{"reason":"vip","queue":"sip:x@evil.example"}"#, "queue"),
        (r#"{"reason":"vip","queue":["queue_nurse"]}"#, "queue"),
        (r#"{"reason":"vip","target":"+88216555"}"#, "target"),
        (r#"{"reason":"vip","uri":"sip:x@evil.example"}"#, "uri"),
        (r#"{"reason":"vip","id":"a b"}"#, "id"),
        (r#"{"reason":"vip","summary":""}"#, "summary"),
    ] {
        let (status, answer) = call(address, "POST", path, LEAD, body).await;
        assert_eq!((status, &answer["field"]), (422, &json!(field)), "{body}");
        assert!(!answer.to_string().contains("evil"), "what was sent is not repeated");
    }
}

#[tokio::test]
async fn a_decline_has_a_reason_or_none_and_no_other_member() {
    let (address, mut lines) = start().await;
    let path = "/v1/transfers/xfer_1/decline";
    for (body, choice) in
        [("", "Other"), (r#"{"reason":"busy"}"#, "Busy"), (r#"{"reason":"wrong_team"}"#, "WrongTeam")]
    {
        assert_eq!(call(address, "POST", path, ANA, body).await.0, 202);
        assert!(lines.recv().await.unwrap().contains(&format!("reason: {choice}")), "{body}");
    }
    for (body, field) in [(r#"{"reason":"tired"}"#, "reason"), (r#"{"why":"busy"}"#, "why")] {
        let (status, answer) = call(address, "POST", path, ANA, body).await;
        assert_eq!((status, &answer["field"]), (422, &json!(field)));
    }
}

#[tokio::test]
async fn signals_come_alone_in_an_array_or_one_per_line_and_all_or_none() {
    let (address, mut lines) = start().await;
    let one = r#"{"v":1,"id":"s1","type":"transfer.cancel"}"#;
    for (body, count) in
        [(one.to_owned(), 1), (format!("[{one},{one}]"), 2), (format!("{one}\n{one}\n{one}"), 3)]
    {
        assert_eq!(call(address, "POST", "/v1/calls/call_01/signals", BOT, &body).await.0, 202);
        assert_eq!(lines.recv().await.unwrap(), format!("signals call_01 {count}"));
    }
    for (body, field, reason) in [
        (format!(r#"[{one},{{"v":1,"id":"s2","type":"dance"}}]"#), "[1].type", "none of the allowed"),
        (
            format!(
                r#"{one}
{{"v":1,"id":"s2","type":"confidence","data":{{"value":7}}}}"#
            ),
            "[1].data.value",
            "range",
        ),
        ("[7]".to_owned(), "[0]", "type"),
        ("{".to_owned(), "body", "neither JSON"),
        (String::new(), "body", "no signal"),
        (format!("[{}]", vec![one; 101].join(",")), "body", "more than 100"),
    ] {
        let (status, answer) = call(address, "POST", "/v1/calls/call_01/signals", BOT, &body).await;
        assert_eq!((status, &answer["field"]), (422, &json!(field)), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(reason), "{answer}");
    }
    let large = " ".repeat(BODY_BYTES_MAX + 1);
    assert_eq!(call(address, "POST", "/v1/calls/call_01/signals", BOT, &large).await.0, 413);
    // What is promised is refused before it comes.
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/calls/call_01/signals HTTP/1.1\r\nhost: edge\r\n";
    let promise = format!("{head}content-length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
    socket.write_all(promise.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_page_opens_with_its_persons_token_and_carries_text_both_ways() {
    let (address, mut lines) = start().await;
    let mut page = open(address, &protocols(ANA)).await.unwrap();
    assert_eq!(lines.recv().await.unwrap(), "opened agent_ana");
    assert_eq!(hear(&mut page).await.unwrap(), r#"{"type":"state"}"#);
    page.send(Message::text("hello")).await.unwrap();
    let mut told = [lines.recv().await.unwrap(), lines.recv().await.unwrap()];
    told.sort_unstable();
    assert_eq!(told, ["said agent_ana hello", "written"], "the edge knows that the page has it");
    assert_eq!(hear(&mut page).await.unwrap(), "hello");
    drop(page);
    assert_eq!(lines.recv().await.unwrap(), "closed agent_ana");
    let (_page, _) = connect_async(format!("ws://{address}/v1/desktop/ws?token={ANA}")).await.unwrap();
    assert_eq!(lines.recv().await.unwrap(), "opened agent_ana");
}

#[tokio::test]
async fn a_page_without_an_agents_token_is_refused() {
    let (address, _lines) = start().await;
    for refused in ["warmbridge.desktop.v1".to_owned(), protocols(LEAD), "bearer.%%".to_owned()] {
        match open(address, &refused).await {
            Err(WsError::Http(response)) => assert_eq!(response.status().as_u16(), 401),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{refused} opened a page"),
        }
    }
}

#[tokio::test]
async fn the_edge_closes_a_page_and_a_page_that_floods_is_closed() {
    let (address, mut lines) = start().await;
    let mut page = open(address, &protocols(ANA)).await.unwrap();
    hear(&mut page).await.unwrap();
    page.send(Message::text("close")).await.unwrap();
    assert_eq!(hear(&mut page).await, None);
    assert_eq!(lines.recv().await.unwrap(), "opened agent_ana");
    assert_eq!(lines.recv().await.unwrap(), "said agent_ana close");
    assert_eq!(lines.recv().await.unwrap(), "closed agent_ana");
    let mut page = open(address, &protocols(ANA)).await.unwrap();
    for _ in 0..500 {
        if page.send(Message::text("{}")).await.is_err() {
            break;
        }
    }
    while lines.recv().await.unwrap() != "closed agent_ana" {}
    let large = Message::text("x".repeat(1 << 20));
    let mut page = open(address, &protocols(ANA)).await.unwrap();
    let _ = page.send(large).await;
    while lines.recv().await.unwrap() != "closed agent_ana" {}
}

#[tokio::test]
async fn an_accepted_connection_does_not_wait_for_ever_for_a_peer_that_does_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (socket, _) = accepted.unwrap();
    set_up(&socket).unwrap();
    assert!(socket.nodelay().unwrap());
    assert_eq!(SockRef::from(&socket).tcp_user_timeout().unwrap(), Some(UNREAD_MAX));
}
