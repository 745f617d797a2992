//! The description of the API against the listener: every route that there is stands in it,
//! every route and status that stands in it can be had, and the bodies are as described.

use std::collections::BTreeSet;

use super::*;
use crate::io::http::routes as all_routes;

/// How one documented status comes about: method, route, status, path and query, token, body.
type Case = (&'static str, &'static str, u16, &'static str, &'static str, &'static str);

const SIGNAL: &str = r#"{"v":1,"id":"s1","type":"transfer.cancel"}"#;
const ASK: &str = r#"{"reason":"vip"}"#;
const WS: &str = "/v1/desktop/ws";
const SIGNALS: &str = "/v1/calls/{id}/signals";
const TRANSFER: &str = "/v1/calls/{id}/transfer";
const CANCEL: &str = "/v1/transfers/{id}/cancel";
const ACCEPT: &str = "/v1/transfers/{id}/accept";
const DECLINE: &str = "/v1/transfers/{id}/decline";
const HAND_BACK: &str = "/v1/transfers/{id}/hand-back";
const PAYLOAD: &str = "/v1/transfers/{id}/payload";
const TRANSCRIPT: &str = "/v1/transcripts/{id}";

const TRUNK: &str = "/v1/trunks/{name}";
const DISPOSITIONS: &str = "/v1/dispositions";
const SAID: &str = r#"{"transfer_id":"xfer_1","code":"done","resolved":true,"case_id":null,"acw_s":40}"#;
const SAID_OF_NONE: &str = r#"{"transfer_id":"xfer_none","code":"done","resolved":true}"#;
const SAID_ELSE: &str = r#"{"transfer_id":"xfer_late","code":"done","resolved":true}"#;

/// A body that is one byte too large, made where it is needed.
const LARGE: &str = "large";

/// What a healthy edge answers. 401, 429 and 503 follow from the routes themselves.
const CASES: &[Case] = &[
    ("get", "/desktop", 308, "/desktop", "", ""),
    ("get", "/desktop/", 200, "/desktop/", "", ""),
    ("get", "/desktop/app.js", 200, "/desktop/app.js", "", ""),
    ("get", "/desktop/style.css", 200, "/desktop/style.css", "", ""),
    ("get", "/desktop/icon.svg", 200, "/desktop/icon.svg", "", ""),
    ("get", "/healthz", 200, "/healthz", "", ""),
    ("get", "/readyz", 200, "/readyz", "", ""),
    ("get", "/v1/openapi.json", 200, "/v1/openapi.json", "", ""),
    ("get", WS, 101, WS, ANA, ""),
    ("get", "/v1/events", 200, "/v1/events", WALL, ""),
    ("get", "/v1/events", 403, "/v1/events", ANA, ""),
    ("get", "/v1/events", 422, "/v1/events?call=%00", WALL, ""),
    ("get", "/v1/queues", 200, "/v1/queues", ANA, ""),
    ("get", "/v1/queues", 403, "/v1/queues", BOT, ""),
    ("get", "/v1/calls", 200, "/v1/calls", WALL, ""),
    ("get", "/v1/calls", 403, "/v1/calls", ANA, ""),
    ("get", "/v1/calls", 422, "/v1/calls?limit=0", WALL, ""),
    ("get", "/v1/calls/{id}", 200, "/v1/calls/call_01", WALL, ""),
    ("get", "/v1/calls/{id}", 403, "/v1/calls/call_01", ANA, ""),
    ("get", "/v1/calls/{id}", 404, "/v1/calls/call_none", WALL, ""),
    ("post", SIGNALS, 202, "/v1/calls/call_01/signals", BOT, SIGNAL),
    ("post", SIGNALS, 403, "/v1/calls/call_01/signals", LEAD, SIGNAL),
    ("post", SIGNALS, 404, "/v1/calls/call_none/signals", BOT, SIGNAL),
    ("post", SIGNALS, 413, "/v1/calls/call_01/signals", BOT, LARGE),
    ("post", SIGNALS, 422, "/v1/calls/call_01/signals", BOT, "[]"),
    ("post", TRANSFER, 202, "/v1/calls/call_01/transfer", LEAD, ASK),
    ("post", TRANSFER, 403, "/v1/calls/call_01/transfer", WALL, ASK),
    ("post", TRANSFER, 404, "/v1/calls/call_none/transfer", LEAD, ASK),
    ("post", TRANSFER, 409, "/v1/calls/call_late/transfer", LEAD, ASK),
    ("post", TRANSFER, 413, "/v1/calls/call_01/transfer", LEAD, LARGE),
    ("post", TRANSFER, 422, "/v1/calls/call_01/transfer", LEAD, "{}"),
    ("post", CANCEL, 202, "/v1/transfers/xfer_1/cancel", LEAD, ""),
    ("post", CANCEL, 403, "/v1/transfers/xfer_1/cancel", ANA, ""),
    ("post", CANCEL, 404, "/v1/transfers/xfer_none/cancel", LEAD, ""),
    ("post", CANCEL, 409, "/v1/transfers/xfer_late/cancel", LEAD, ""),
    ("post", ACCEPT, 202, "/v1/transfers/xfer_1/accept", ANA, ""),
    ("post", ACCEPT, 403, "/v1/transfers/xfer_other/accept", ANA, ""),
    ("post", ACCEPT, 404, "/v1/transfers/x/accept", ANA, ""),
    ("post", ACCEPT, 409, "/v1/transfers/xfer_late/accept", ANA, ""),
    ("post", DECLINE, 202, "/v1/transfers/xfer_1/decline", ANA, r#"{"reason":"busy"}"#),
    ("post", DECLINE, 403, "/v1/transfers/xfer_other/decline", ANA, ""),
    ("post", DECLINE, 404, "/v1/transfers/x/decline", ANA, ""),
    ("post", DECLINE, 409, "/v1/transfers/xfer_late/decline", ANA, ""),
    ("post", DECLINE, 413, "/v1/transfers/xfer_1/decline", ANA, LARGE),
    ("post", DECLINE, 422, "/v1/transfers/xfer_1/decline", ANA, r#"{"reason":7}"#),
    ("post", HAND_BACK, 202, "/v1/transfers/xfer_1/hand-back", ANA, ""),
    ("post", HAND_BACK, 403, "/v1/transfers/xfer_other/hand-back", ANA, ""),
    ("post", HAND_BACK, 404, "/v1/transfers/x/hand-back", ANA, ""),
    ("post", HAND_BACK, 409, "/v1/transfers/xfer_late/hand-back", ANA, ""),
    ("get", PAYLOAD, 200, "/v1/transfers/xfer_1/payload", ANA, ""),
    ("get", PAYLOAD, 403, "/v1/transfers/xfer_other/payload", ANA, ""),
    ("get", PAYLOAD, 404, "/v1/transfers/xfer_none/payload", LEAD, ""),
    ("get", TRANSCRIPT, 200, "/v1/transcripts/xfer_1", LEAD, ""),
    ("get", TRANSCRIPT, 403, "/v1/transcripts/xfer_1", WALL, ""),
    ("get", TRANSCRIPT, 404, "/v1/transcripts/xfer_none", LEAD, ""),
    ("get", "/v1/trunks", 200, "/v1/trunks", WALL, ""),
    ("get", "/v1/trunks", 403, "/v1/trunks", ANA, ""),
    ("get", TRUNK, 200, "/v1/trunks/carrier", WALL, ""),
    ("get", TRUNK, 403, "/v1/trunks/carrier", ANA, ""),
    ("get", TRUNK, 404, "/v1/trunks/none", WALL, ""),
    ("post", DISPOSITIONS, 202, DISPOSITIONS, CRM, SAID),
    ("post", DISPOSITIONS, 404, DISPOSITIONS, CRM, SAID_OF_NONE),
    ("post", DISPOSITIONS, 409, DISPOSITIONS, CRM, SAID_ELSE),
    ("post", DISPOSITIONS, 413, DISPOSITIONS, CRM, LARGE),
    ("post", DISPOSITIONS, 422, DISPOSITIONS, CRM, "{}"),
];

fn described() -> Value {
    serde_json::from_str(routes::OPENAPI).unwrap()
}

/// Every method, route and status of the description.
fn statuses(document: &Value) -> BTreeSet<(String, String, u16)> {
    let mut found = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                found.insert((method.clone(), path.clone(), status.parse().unwrap()));
            }
        }
    }
    found
}

/// One request; only the head of the answer and a body of known length are read, since a
/// stream does not end.
async fn ask(address: SocketAddr, head: &str, body: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}\r\nhost: edge\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = socket.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned());
            }
        }
        let mut chunk = [0_u8; 65_536];
        let count = timeout(PATIENCE, socket.read(&mut chunk)).await.unwrap().unwrap();
        assert_ne!(count, 0, "{head}: cut short");
        answer.extend_from_slice(&chunk[..count]);
    }
}

/// A request with what lets it in: a token, or the signature of its body.
fn head(method: &str, path: &str, token: &str, body: &str) -> String {
    let mut head = format!("{} {path} HTTP/1.1", method.to_uppercase());
    if token == CRM {
        head += &signed::headers(CRM, "msg_1", 0, body);
    } else if !token.is_empty() {
        head += &format!("\r\nauthorization: Bearer {token}");
    }
    if path.starts_with(WS) {
        head += "\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    }
    head
}

/// Follows a reference to a response of the components.
fn response<'a>(document: &'a Value, method: &str, path: &str, status: u16) -> &'a Value {
    let response = &document["paths"][path][method]["responses"][status.to_string()];
    match response["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => response,
    }
}

/// The type of the body and, where it is JSON, the body itself are as described.
fn fits(document: &Value, (method, path, status): (&str, &str, u16), head: &str, body: &str) {
    let what = format!("{method} {path} {status}");
    let response = response(document, method, path, status);
    let Some(content) = response["content"].as_object() else { return };
    let (kind, described) = content.iter().next().unwrap();
    assert!(head.to_ascii_lowercase().contains(&format!("content-type: {kind}")), "{what}: {head}");
    if kind.ends_with("json") {
        let mut schema = described["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let faults: Vec<String> = validator.iter_errors(&body).map(|fault| fault.to_string()).collect();
        assert_eq!(faults, Vec::<String>::new(), "{what}: {body}");
    }
    for name in response["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
        assert!(head.to_ascii_lowercase().contains(&name.to_ascii_lowercase()), "{what}: no {name}");
    }
}

#[test]
fn every_route_stands_in_the_description_and_the_other_way_round() {
    let document = described();
    let paths: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let routes: BTreeSet<&str> = all_routes().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, routes);
}

#[tokio::test]
async fn every_documented_status_can_be_had_and_is_as_described() {
    let document = described();
    let healthy = listen(Rates::default(), true).await;
    let down = listen(Rates::default(), false).await;
    let none = || Budget::new(0, Duration::from_secs(3_600));
    let exhausted = listen(Rates::of(none(), none()), true).await;
    let large = " ".repeat(BODY_BYTES_MAX + 1);
    let mut had = BTreeSet::new();
    for (method, route, status, path, token, body) in CASES.iter().copied() {
        let body = if body == LARGE { large.as_str() } else { body };
        let (got, answer_head, answer) = ask(healthy.address, &head(method, path, token, body), body).await;
        assert_eq!(got, status, "{method} {path} by {token}: {answer}");
        fits(&document, (method, route, status), &answer_head, &answer);
        had.insert((method.to_owned(), route.to_owned(), status));
        let operation = &document["paths"][route][method];
        if status >= 300 || token.is_empty() {
            continue;
        }
        // Whatever succeeds needs a token, is limited, and needs the edge's loop, or says not.
        for (status, address, token) in
            [(401, healthy.address, ""), (429, exhausted.address, token), (503, down.address, token)]
        {
            let documented = operation["responses"].get(status.to_string()).is_some();
            let (got, answer_head, answer) = ask(address, &head(method, path, token, body), body).await;
            assert_eq!(got == status, documented, "{method} {path}: {got} where {status} is possible");
            if documented {
                fits(&document, (method, route, status), &answer_head, &answer);
                had.insert((method.to_owned(), route.to_owned(), status));
            }
        }
    }
    let (got, answer_head, answer) = ask(down.address, &head("get", "/readyz", "", ""), "").await;
    assert_eq!(got, 503);
    fits(&document, ("get", "/readyz", 503), &answer_head, &answer);
    had.insert(("get".to_owned(), "/readyz".to_owned(), 503));
    // Half a handshake, and one over a version that knows none.
    let whole = head("get", WS, ANA, "");
    for (status, broken) in
        [(400, whole.replace("upgrade: websocket\r\n", "")), (426, whole.replace("HTTP/1.1", "HTTP/1.0"))]
    {
        let (got, answer_head, answer) = ask(healthy.address, &broken, "").await;
        assert_eq!(got, status, "{broken}");
        fits(&document, ("get", WS, status), &answer_head, &answer);
        had.insert(("get".to_owned(), WS.to_owned(), status));
    }
    assert_eq!(had, statuses(&document));
}

#[tokio::test]
async fn another_method_and_another_path_are_refused_in_the_same_form() {
    let (address, _lines) = start().await;
    for (head, status) in [
        ("DELETE /v1/calls HTTP/1.1", 405),
        ("GET /v1/nothing HTTP/1.1", 404),
        ("GET /v1/calls/ HTTP/1.1", 404),
    ] {
        let (got, answer_head, body) = ask(address, head, "").await;
        assert_eq!(got, status);
        assert!(answer_head.contains("application/problem+json"), "{answer_head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["status"], status);
    }
}

#[test]
fn who_may_is_a_list_of_roles_that_there_are() {
    let document = described();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            if path == DISPOSITIONS {
                assert_eq!(operation["security"], json!([{"signature": []}]));
                continue;
            }
            let open = !path.starts_with("/v1/") || path == "/v1/openapi.json";
            let roles: Vec<&str> = operation["security"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|scheme| scheme["token"].as_array().unwrap())
                .map(|role| role.as_str().unwrap())
                .collect();
            assert_eq!(roles.is_empty(), open, "{path}");
            assert!(
                roles.iter().all(|role| ["agent", "monitor", "supervisor", "voice_agent"].contains(role))
            );
        }
    }
}
