//! A scripted voice agent behind a WebSocket, as an outside party: it speaks the Twilio
//! Media Streams dialect as any stock bot does, says its lines, waits until each has been
//! played (marks), and sends signals in-band. It hears the caller and keeps what it hears.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;

use crate::media::codec;
use crate::sip::Codec;

/// A line takes as long as it takes to play, and a little more.
const LINE_MAX: Duration = Duration::from_secs(60);

/// What the script tells the voice agent to do.
#[derive(Debug)]
pub enum Cue {
    /// Say this (µ-law) and report when its last sample was played or cut.
    Say(Vec<u8>, oneshot::Sender<()>),
    /// Send this signal in-band (`type` and `data`; the envelope is added).
    Signal(&'static str, Value),
    /// Send these bytes as a text frame, valid or not.
    Raw(String),
    /// Drop the connection without a word.
    Die,
}

/// What the voice agent tells the script.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The edge opened the stream.
    Started,
    /// The edge said how the transfer stands.
    Status(String),
    /// The stream ended.
    Stopped,
}

/// The bot's server and its channels.
#[derive(Debug)]
pub struct VoiceAgent {
    /// `ws://…` for the edge's configuration.
    pub url: String,
    cues: mpsc::Sender<Cue>,
    told: mpsc::Receiver<Told>,
    task: tokio::task::JoinHandle<Vec<i16>>,
}

impl VoiceAgent {
    /// Listens on loopback for one stream.
    pub async fn start() -> Result<Self> {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.context("the demo's voice agent cannot listen")?;
        let address: SocketAddr = listener.local_addr()?;
        let (cues, cue_queue) = mpsc::channel(64);
        let (tell, told) = mpsc::channel(64);
        let task = tokio::spawn(async move { serve(listener, cue_queue, tell).await.unwrap_or_default() });
        Ok(Self { url: format!("ws://{address}/voice"), cues, told, task })
    }

    /// Gives a cue; false when the stream is gone.
    pub async fn cue(&self, cue: Cue) -> bool {
        self.cues.send(cue).await.is_ok()
    }

    /// Says a line and waits until it was played.
    pub async fn say(&self, line: Vec<u8>) {
        let (done, played) = oneshot::channel();
        if self.cue(Cue::Say(line, done)).await {
            let _ = tokio::time::timeout(LINE_MAX, played).await;
        }
    }

    /// The next thing that the edge told the bot.
    pub async fn told(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// Ends the bot and returns what it heard.
    pub async fn leave(self) -> Vec<i16> {
        drop(self.cues);
        tokio::time::timeout(Duration::from_secs(2), self.task)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default()
    }
}

async fn serve(
    listener: TcpListener,
    mut cues: mpsc::Receiver<Cue>,
    told: mpsc::Sender<Told>,
) -> Result<Vec<i16>> {
    let mut heard = Vec::new();
    let (stream, _) = listener.accept().await?;
    let socket = tokio_tungstenite::accept_async(stream).await?;
    let (mut sink, mut source) = socket.split();
    let mut stream_sid = String::new();
    let mut pending: Vec<(String, oneshot::Sender<()>)> = Vec::new();
    let mut count = 0_u64;
    loop {
        tokio::select! {
            cue = cues.recv() => {
                count += 1;
                match cue {
                    Some(Cue::Say(line, done)) => {
                        // Bots send in bursts of any size; the edge paces.
                        for burst in line.chunks(2_400) {
                            let media = json!({"event": "media", "streamSid": stream_sid,
                                "media": {"payload": STANDARD.encode(burst)}});
                            sink.send(Message::text(media.to_string())).await?;
                        }
                        let name = format!("line-{count}");
                        let mark = json!({"event": "mark", "streamSid": stream_sid, "mark": {"name": name}});
                        sink.send(Message::text(mark.to_string())).await?;
                        pending.push((name, done));
                    }
                    Some(Cue::Signal(kind, data)) => {
                        let signal = json!({"event": "agent.signal",
                            "signal": {"v": 1, "id": format!("demo-{count}"), "type": kind, "data": data}});
                        sink.send(Message::text(signal.to_string())).await?;
                    }
                    Some(Cue::Raw(text)) => sink.send(Message::text(text)).await?,
                    Some(Cue::Die) | None => return Ok(heard),
                }
            }
            message = source.next() => {
                let Some(Ok(message)) = message else {
                    let _ = told.send(Told::Stopped).await;
                    return Ok(heard);
                };
                let Ok(text) = message.to_text() else { continue };
                let Ok(value) = serde_json::from_str::<Value>(text) else { continue };
                match value["event"].as_str() {
                    Some("start") => {
                        stream_sid = value["streamSid"].as_str().unwrap_or_default().to_owned();
                        let _ = told.send(Told::Started).await;
                    }
                    Some("media") => {
                        let payload = value["media"]["payload"].as_str().unwrap_or_default();
                        let bytes = STANDARD.decode(payload).unwrap_or_default();
                        heard.extend(bytes.iter().map(|b| codec::decode(Codec::Pcmu, *b)));
                    }
                    Some("mark") => {
                        let name = value["mark"]["name"].as_str().unwrap_or_default();
                        if let Some(index) = pending.iter().position(|(mark, _)| mark == name) {
                            let _ = pending.remove(index).1.send(());
                        }
                    }
                    Some("edge.status") => {
                        let status = value["status"].as_str().unwrap_or_default().to_owned();
                        let _ = told.send(Told::Status(status)).await;
                    }
                    Some("stop") => {
                        let _ = told.send(Told::Stopped).await;
                        return Ok(heard);
                    }
                    Some(_) | None => {}
                }
            }
        }
    }
}
