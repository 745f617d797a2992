//! The receiving end of webhooks, as a consumer needs it: it reads one request a connection,
//! checks age and signature, and says what it was. The demo's CRM and `webhook listen` use it.
//! It is no web server: whatever is not a plain POST with a length is dropped.

use handoff::webhook::{self, WebhookError};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::io::clock::Clock;

/// Largest request that is read: a payload is at most 64 KB.
const REQUEST_MAX: usize = 128 * 1024;

/// One webhook as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// `webhook-id`, the idempotency key.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `subject`.
    pub subject: String,
    /// CloudEvents `sequence`.
    pub sequence: String,
    /// Whether age and signature are right.
    pub verdict: Result<(), WebhookError>,
    /// The body; null where it is no JSON.
    pub body: Value,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body says that a person sees the payload.
    pub popped: bool,
}

/// Reads one webhook from `stream` and answers it as `judge` says. `None` where there was no
/// whole request.
pub async fn receive(
    stream: &mut TcpStream,
    secret: &str,
    clock: &Clock,
    judge: impl FnOnce(&Received) -> Answer,
) -> std::io::Result<Option<Received>> {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0_u8; 8_192];
        let length = stream.read(&mut chunk).await?;
        if length == 0 || request.len() > REQUEST_MAX {
            return Ok(None);
        }
        request.extend_from_slice(chunk.get(..length).unwrap_or_default());
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(request.get(..end).unwrap_or_default()).into_owned();
        let wanted: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let body = request.get(end + 4..).unwrap_or_default();
        if body.len() >= wanted {
            break (head, body.get(..wanted).unwrap_or_default().to_vec());
        }
    };
    let received = read(&head, &body, secret, clock.wall().unix_secs());
    let Answer { status, popped } = judge(&received);
    let text = if popped { "{\"popped\":true}" } else { "" };
    let answer =
        format!("HTTP/1.1 {status} \r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(Some(received))
}

fn read(head: &str, body: &[u8], secret: &str, now_secs: i64) -> Received {
    let id = header(head, "webhook-id").unwrap_or_default();
    let sent_at = header(head, "webhook-timestamp").and_then(|text| text.parse().ok()).unwrap_or(0);
    let signature = header(head, "webhook-signature").unwrap_or_default();
    let verdict = webhook::verify(secret, &id, sent_at, body, &signature, now_secs);
    let event: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Received {
        id,
        kind: text("type"),
        subject: text("subject"),
        sequence: text("sequence"),
        verdict,
        body: event,
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use handoff::webhook::Secret;

    use super::*;

    const SECRET: &str = "whsec_ZGVtby1zaWduaW5nLXNlY3JldC0wMTIzNDU2Nzg5";

    fn head(id: &str, at: i64, body: &[u8]) -> String {
        let signature = Secret::parse(SECRET).unwrap().sign(id, at, body);
        format!(
            "POST / HTTP/1.1\r\nWebhook-Id: {id}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signature}"
        )
    }

    #[test]
    fn a_genuine_webhook_is_told_from_an_old_one_and_a_forged_one() {
        let body = br#"{"type":"warmbridge.transfer.bridged.v1","subject":"xfer_1","sequence":"0004"}"#;
        let genuine = read(&head("msg_1", 1_000, body), body, SECRET, 1_010);
        assert_eq!(
            (genuine.verdict, genuine.subject.as_str(), genuine.sequence.as_str()),
            (Ok(()), "xfer_1", "0004")
        );
        let old = read(&head("msg_1", 1_000, body), body, SECRET, 2_000);
        assert_eq!(old.verdict, Err(WebhookError::Stale));
        let forged = read(&head("msg_1", 1_000, b"{}"), body, SECRET, 1_010);
        assert_eq!(forged.verdict, Err(WebhookError::BadSignature));
        assert_eq!(read("POST / HTTP/1.1", b"nonsense", SECRET, 0).body, Value::Null);
    }
}
