//! Real sockets on loopback: who gets in, what each role opens, what the edge is asked.

use std::collections::BTreeMap as Map;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use handoff::event::Role;
use handoff::id::LegId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;

const ANA: &str = "token-of-ana-which-is-long-enough";
const LEAD: &str = "token-of-the-supervisor-long-enough";
const WALL: &str = "token-of-the-wallboard-long-enough";
const BOT: &str = "token-of-the-voice-agent-long-enough";
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

/// An edge's loop that answers every question in the same way, and keeps the last pages.
async fn edge(mut requests: mpsc::Receiver<HttpRequest>, seen: mpsc::Sender<String>) {
    let mut sockets = DesktopSockets::default();
    while let Some(request) = requests.recv().await {
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
                    sockets.send_all(&agent, &text);
                }
                format!("said {agent} {}", text.expose())
            }
            HttpRequest::DesktopClosed { agent, .. } => format!("closed {agent}"),
            HttpRequest::Decide { agent, input, reply } => {
                reply.send(Err(ApiError::Conflict)).unwrap();
                format!("{agent} {input:?}")
            }
            HttpRequest::Payload { transfer, who, reply } => {
                reply.send(Ok(Pii::new(r#"{"summary":{}}"#.to_owned()))).unwrap();
                format!("payload {transfer} {who:?}")
            }
            HttpRequest::Transcript { transfer, who, reply } => {
                reply.send(Err(ApiError::NotYours)).unwrap();
                format!("transcript {transfer} {who:?}")
            }
            HttpRequest::Signals { call, signals, reply } => {
                reply.send(Ok(())).unwrap();
                format!("signals {call} {}", signals.len())
            }
            HttpRequest::Calls { reply } => {
                let legs = Map::from([(LegId::CALLER, Role::Caller)]);
                let standing = Standing { state: "bridged", phase: None, transfer: None, legs };
                reply.send(vec![CallSummary { call: CallId::parse("call_01").unwrap(), standing }]).unwrap();
                "calls".to_owned()
            }
            HttpRequest::Ready { reply } => {
                reply.send(false).unwrap();
                "ready".to_owned()
            }
        };
        seen.send(line).await.unwrap();
    }
}

async fn start() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = requests();
    let (seen, lines) = mpsc::channel(64);
    tokio::spawn(edge(receiver, seen));
    let (keep, config) = watch::channel(Arc::new(config()));
    tokio::spawn(async move {
        serve(listener, config, sender, core::future::pending()).await;
        drop(keep);
    });
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
    assert_eq!(send(address, "GET /readyz HTTP/1.1", "").await.0, 503);
    assert_eq!(lines.recv().await.unwrap(), "ready");
}

#[tokio::test]
async fn each_role_opens_what_it_may_and_nothing_else() {
    let (address, _lines) = start().await;
    let stranger = "a-token-that-nobody-has-been-given";
    for (method, path, expected) in [
        ("GET", "/v1/calls", [("ANA", 403), ("LEAD", 200), ("WALL", 200), ("none", 401)]),
        ("GET", "/v1/transfers/xfer_1/payload", [("ANA", 200), ("LEAD", 200), ("WALL", 403), ("none", 401)]),
        ("GET", "/v1/transcripts/xfer_1", [("ANA", 403), ("LEAD", 403), ("WALL", 403), ("none", 401)]),
        ("POST", "/v1/transfers/xfer_1/accept", [("ANA", 409), ("LEAD", 403), ("WALL", 403), ("none", 401)]),
        ("POST", "/v1/transfers/xfer_1/decline", [("ANA", 409), ("LEAD", 403), ("WALL", 403), ("none", 401)]),
        ("POST", "/v1/calls/call_01/signals", [("ANA", 401), ("LEAD", 401), ("WALL", 401), ("none", 401)]),
        ("GET", "/v1/transfers/%00/payload", [("ANA", 404), ("LEAD", 404), ("WALL", 403), ("none", 401)]),
    ] {
        for (who, status) in expected {
            let token = match who {
                "ANA" => ANA,
                "LEAD" => LEAD,
                "WALL" => WALL,
                _nobody => stranger,
            };
            assert_eq!(call(address, method, path, token, "").await.0, status, "{method} {path} as {who}");
        }
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
    let (_, body) = call(address, "GET", "/v1/calls", WALL, "").await;
    let leg = json!({"leg": 0, "role": "caller"});
    let line = json!({"call": "call_01", "state": "bridged", "phase": null, "transfer": null, "legs": [leg]});
    assert_eq!(body, json!({"calls": [line]}));
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
    for (body, reason) in [
        (format!(r#"[{one},{{"v":1,"id":"s2","type":"dance"}}]"#), "type"),
        ("{".to_owned(), "neither JSON"),
        (format!("[{}]", vec![one; 101].join(",")), "more than 100"),
    ] {
        let (status, answer) = call(address, "POST", "/v1/calls/call_01/signals", BOT, &body).await;
        assert_eq!(status, 422);
        assert!(answer["error"].as_str().unwrap().contains(reason), "{answer}");
    }
    let large = " ".repeat(BODY_BYTES_MAX + 1);
    assert_eq!(call(address, "POST", "/v1/calls/call_01/signals", BOT, &large).await.0, 413);
}

#[tokio::test]
async fn a_page_opens_with_its_persons_token_and_carries_text_both_ways() {
    let (address, mut lines) = start().await;
    let mut page = open(address, &protocols(ANA)).await.unwrap();
    assert_eq!(lines.recv().await.unwrap(), "opened agent_ana");
    assert_eq!(hear(&mut page).await.unwrap(), r#"{"type":"state"}"#);
    page.send(Message::text("hello")).await.unwrap();
    assert_eq!(lines.recv().await.unwrap(), "said agent_ana hello");
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
