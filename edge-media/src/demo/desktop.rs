//! The human agent's desktop as an outside party: a WebSocket client that does what the
//! page does: shows what it is told, acknowledges a card once it is painted, and can press
//! the buttons. Painting is a fixed short time here; a browser's is measured elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Two frames of a 60 Hz display: what a page needs to paint.
const PAINT: Duration = Duration::from_millis(33);

/// What the desktop saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The message's kind (`incoming`, `card`, `caption`, `accepted`, `bridged`, `ended`).
    pub kind: String,
    /// Wall time in milliseconds when it was painted.
    pub painted_at_ms: i64,
    /// Revision of a card or of an accept.
    pub revision: Option<u64>,
    /// The transfer.
    pub transfer: String,
}

/// A connected desktop.
#[derive(Debug)]
pub struct Desktop {
    seen: mpsc::Receiver<Seen>,
    buttons: mpsc::Sender<Value>,
    task: tokio::task::JoinHandle<()>,
}

impl Desktop {
    /// Connects with an agent's token. Without `acknowledges` it shows and says nothing.
    pub async fn connect(http: SocketAddr, token: &str, clock: crate::io::clock::Clock) -> Result<Self> {
        let mut request = format!("ws://{http}/v1/desktop/ws").into_client_request()?;
        let protocol = format!("warmbridge.desktop.v1, bearer.{}", URL_SAFE_NO_PAD.encode(token));
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().context("a token with odd characters")?);
        let (socket, _) =
            tokio_tungstenite::connect_async(request).await.context("the demo's desktop cannot connect")?;
        let (mut sink, mut source) = socket.split();
        let (tell, seen) = mpsc::channel(256);
        let (buttons, mut pressed) = mpsc::channel::<Value>(16);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = source.next() => {
                        let Some(Ok(message)) = message else { return };
                        let Ok(text) = message.to_text() else { continue };
                        let Ok(value) = serde_json::from_str::<Value>(text) else { continue };
                        let kind = value["type"].as_str().unwrap_or_default().to_owned();
                        let transfer = value["transfer"].as_str().unwrap_or_default().to_owned();
                        let revision = value["revision"].as_u64();
                        if kind == "card" || kind == "accepted" {
                            tokio::time::sleep(PAINT).await;
                            let ack = json!({"type": "ack", "transfer": transfer, "revision": revision});
                            if sink.send(Message::text(ack.to_string())).await.is_err() {
                                return;
                            }
                        }
                        let painted_at_ms = clock.wall().unix_millis();
                        let _ = tell.try_send(Seen { kind, painted_at_ms, revision, transfer });
                    }
                    button = pressed.recv() => {
                        let Some(button) = button else { return };
                        if sink.send(Message::text(button.to_string())).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Self { seen, buttons, task })
    }

    /// The next thing shown.
    pub async fn seen(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }

    /// Presses a button (`accept`, `decline`, `hand_back`).
    pub async fn press(&self, button: &str, transfer: &str) {
        let _ = self.buttons.send(json!({"type": button, "transfer": transfer})).await;
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.task.abort();
    }
}
