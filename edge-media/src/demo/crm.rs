//! A CRM that receives webhooks, as an outside party: it checks each signature, remembers
//! the message ids, and answers as scripted. It trusts nothing it cannot verify.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use handoff::clock::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Largest request that the CRM reads: a payload is at most 64 KB.
const REQUEST_MAX: usize = 128 * 1024;

/// One verified webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// `webhook-id`.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// The signature was right and fresh.
    pub verified: bool,
}

/// How the CRM behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 at once.
    Healthy,
    /// 500 at once.
    Down,
}

/// The receiver.
#[derive(Debug)]
pub struct Crm {
    /// `http://…` for the edge's configuration.
    pub url: String,
    /// The secret of this endpoint (`whsec_…`).
    pub secret: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Crm {
    /// Listens on loopback.
    pub async fn start(behaviour: Behaviour, secret: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the demo's CRM cannot listen")?;
        let address: SocketAddr = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        let key = secret.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, key) = (Arc::clone(&log), key.clone());
                tokio::spawn(async move {
                    // A broken request is the sender's loss, as with any receiver.
                    let _ = serve(stream, behaviour, &key, &log).await;
                });
            }
        });
        Ok(Self { url: format!("http://{address}/warmbridge"), secret, received, task })
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().map(|log| log.clone()).unwrap_or_default()
    }
}

impl Drop for Crm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    behaviour: Behaviour,
    secret: &str,
    log: &Mutex<Vec<Received>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0_u8; 8_192];
        let length = stream.read(&mut chunk).await?;
        if length == 0 || request.len() > REQUEST_MAX {
            return Ok(());
        }
        request.extend_from_slice(chunk.get(..length).unwrap_or_default());
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(request.get(..end).unwrap_or_default()).into_owned();
        let wanted: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let body = request.get(end + 4..).unwrap_or_default();
        if body.len() >= wanted {
            break (head, body.to_vec());
        }
    };
    let id = header(&head, "webhook-id").unwrap_or_default();
    let event: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let verified = handoff::webhook::verify(
        secret,
        &id,
        header(&head, "webhook-timestamp").and_then(|text| text.parse().ok()).unwrap_or(0),
        &body,
        &header(&head, "webhook-signature").unwrap_or_default(),
        now_secs(),
    )
    .is_ok();
    if let Ok(mut log) = log.lock() {
        log.push(Received { id, kind: event["type"].as_str().unwrap_or_default().to_owned(), verified });
    }
    let answer = match behaviour {
        Behaviour::Healthy => {
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 15\r\n\r\n{\"popped\":true}"
        }
        Behaviour::Down => {
            "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn now_secs() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)).unix_secs()
}
