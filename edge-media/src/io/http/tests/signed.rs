//! Dispositions: who signed them, which header or member is wrong, what the edge is told.

use functions::sqlite::wall_clock;
use handoff::webhook;

use super::*;

const SAID: &str = r#"{"transfer_id":"xfer_1","code":"refund.done","resolved":true,"acw_s":40}"#;

/// The headers of a message signed `late_s` seconds ago.
pub(super) fn headers(secret: &str, id: &str, late_s: i64, body: &str) -> String {
    let at = wall_clock().unix_secs() - late_s;
    let signature = webhook::Secret::parse(secret).unwrap().sign(id, at, body.as_bytes());
    format!("\r\nwebhook-id: {id}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signature}")
}

async fn post(address: SocketAddr, headers: &str, body: &str) -> (u16, Value) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST /v1/dispositions HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ncontent-length: {length}{headers}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn either_key_of_a_receiver_signs_and_the_edge_is_told_who_did() {
    let (address, mut lines) = start().await;
    for secret in [CRM, CRM_BEFORE] {
        let (status, body) = post(address, &headers(secret, "msg_7", 0, SAID), SAID).await;
        assert_eq!((status, &body), (202, &json!({"message": "msg_7"})));
        let line = timeout(PATIENCE, lines.recv()).await.unwrap().unwrap();
        assert!(line.starts_with("disposition crm msg_7 ") && line.contains("refund.done"), "{line}");
    }
}

#[tokio::test]
async fn what_is_not_signed_right_is_refused_by_the_name_of_the_header() {
    let (address, _lines) = start().await;
    let good = headers(CRM, "msg_7", 0, SAID);
    let other = "whsec_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";
    for (headers, body, field) in [
        (String::new(), SAID, "webhook-id"),
        (good.replace("webhook-timestamp", "x"), SAID, "webhook-timestamp"),
        (good.replace("webhook-signature", "x"), SAID, "webhook-signature"),
        (good.replace("msg_7", "msg_8"), SAID, "webhook-signature"),
        (good.replace("msg_7", "a.b"), SAID, "webhook-id"),
        (good.clone(), "{}", "webhook-signature"),
        (headers(other, "msg_7", 0, SAID), SAID, "webhook-signature"),
        (headers(CRM, "msg_7", 400, SAID), SAID, "webhook-timestamp"),
        (headers(CRM, "msg_7", -400, SAID), SAID, "webhook-timestamp"),
    ] {
        let (status, problem) = post(address, &headers, body).await;
        assert_eq!((status, &problem["field"]), (401, &json!(field)), "{headers}");
    }
}

#[tokio::test]
async fn a_member_that_does_not_fit_is_named_and_a_message_of_ours_is_no_disposition() {
    let (address, _lines) = start().await;
    let event = r#"{"specversion":"1.0","id":"msg_1","type":"warmbridge.transfer.bridged.v1","data":{}}"#;
    let words = SAID.replace("refund.done", "she was angry");
    for (body, field) in [
        ("", "transfer_id"),
        ("[]", "body"),
        (event, "data"),
        (words.as_str(), "code"),
        (r#"{"transfer_id":"xfer_1","code":"a"}"#, "resolved"),
        (r#"{"transfer_id":"xfer_1","code":"a","resolved":true,"acw_s":"40"}"#, "acw_s"),
    ] {
        let (status, problem) = post(address, &headers(CRM, "msg_7", 0, body), body).await;
        assert_eq!((status, &problem["field"]), (422, &json!(field)), "{body}");
        assert!(!problem.to_string().contains("angry"));
    }
}
