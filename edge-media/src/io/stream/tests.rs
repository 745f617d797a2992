//! A bot in about a hundred lines, as stock ones behave, against the door and a media plane
//! reduced to a queue that the test empties by hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{SinkExt as _, StreamExt as _};
use handoff::call::OnVoiceAgentBye;
use handoff::id::CallId;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Upgrade, Response};

use super::*;
use crate::config::Secret;
use crate::link::twilio::StreamIds;
use crate::media::FRAME_SAMPLES;

const KEY: StreamKey = StreamKey(7);
/// Long enough for a loaded machine; nothing is asserted of it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The bot: it reads exactly two frames, decides the dialect by `streamSid` and `callSid`,
/// and then does what a test says.
struct Bot {
    socket: WebSocketStream<TcpStream>,
    stream_sid: String,
    start: Value,
    signature: Option<String>,
}

impl Bot {
    #[expect(clippy::result_large_err, reason = "the shape of the library's callback")]
    async fn answer(listener: &TcpListener) -> Self {
        let (socket, _) = listener.accept().await.unwrap();
        let mut signature = None;
        let read = |request: &Upgrade, response: Response| -> Result<Response, ErrorResponse> {
            signature = request.headers().get("x-twilio-signature").map(|v| v.to_str().unwrap().to_owned());
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(socket, read).await.unwrap();
        let mut bot = Self { socket, stream_sid: String::new(), start: Value::Null, signature };
        let connected = bot.hear().await.unwrap();
        assert_eq!(connected, json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
        bot.start = bot.hear().await.unwrap();
        assert_eq!(bot.start["event"], "start");
        bot.stream_sid = bot.start["start"]["streamSid"].as_str().unwrap().to_owned();
        assert!(bot.start["start"]["callSid"].as_str().unwrap().starts_with("CA"));
        bot
    }

    /// The next message; `None` once the edge has closed.
    async fn hear(&mut self) -> Option<Value> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_)) | None => return None,
                Some(Err(error)) => panic!("{error}"),
            }
        }
    }

    async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn audio(&mut self, bytes: &[u8]) {
        let payload = BASE64.encode(bytes);
        self.say(json!({"event": "media", "streamSid": self.stream_sid, "media": {"payload": payload}}))
            .await;
    }

    async fn mark(&mut self, name: &str) {
        self.say(json!({"event": "mark", "streamSid": self.stream_sid, "mark": {"name": name}})).await;
    }
}

/// Rooms of the queue towards the media plane.
const TO_MEDIA: usize = 256;

/// The media plane's end.
struct MediaEnd {
    incoming: mpsc::Receiver<StreamIn>,
    outgoing: mpsc::Sender<StreamOut>,
}

/// The edge's side of one stream.
struct Edge {
    media: MediaEnd,
    events: mpsc::Receiver<(StreamKey, DoorEvent)>,
    door: Option<Door>,
}

impl Edge {
    fn close(&mut self) {
        self.door.take().unwrap().close();
    }

    async fn event(&mut self) -> DoorEvent {
        let (stream, event) = timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap();
        assert_eq!(stream, KEY);
        event
    }

    async fn incoming(&mut self) -> StreamIn {
        timeout(PATIENCE, self.media.incoming.recv()).await.unwrap().unwrap()
    }

    async fn closed(&mut self) -> (CloseReason, Tally, Dropped) {
        loop {
            if let DoorEvent::Closed { reason, tally, dropped } = self.event().await {
                return (reason, tally, dropped);
            }
        }
    }

    async fn frame(&self, byte: u8) {
        self.media.outgoing.send(StreamOut::Frame(Box::new([byte; FRAME_SAMPLES]))).await.unwrap();
    }
}

fn dialer(url: &str) -> Dialer {
    let auth_token = Some(Secret::new(b"12345".to_vec()));
    let on_bye = OnVoiceAgentBye::default();
    Dialer::new(&VoiceAgent { url: url.to_owned(), auth_token, signal_token: None, on_bye }).unwrap()
}

fn dial(url: &str) -> Edge {
    dial_by(&dialer(url))
}

fn dial_by(dialer: &Dialer) -> Edge {
    let (to_media, incoming) = mpsc::channel(TO_MEDIA);
    let (outgoing, from_media) = mpsc::channel(50);
    let (sender, events) = mpsc::channel(64);
    let call = CallId::parse("call_01").unwrap();
    let session = Session::new(StreamIds::from_random(1, 2, 3), &call, &[]);
    let door = connect(dialer, KEY, session, to_media, from_media, sender);
    Edge { media: MediaEnd { incoming, outgoing }, events, door: Some(door) }
}

async fn connected() -> (Edge, Bot) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut edge = dial(&format!("ws://{}/media", listener.local_addr().unwrap()));
    let bot = Bot::answer(&listener).await;
    assert_eq!(edge.event().await, DoorEvent::Opened);
    (edge, bot)
}

#[tokio::test]
async fn the_first_two_frames_let_a_bot_recognise_the_dialect_and_the_format() {
    let (_edge, bot) = connected().await;
    let format = json!({"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1});
    assert_eq!(bot.start["start"]["mediaFormat"], format);
    assert_eq!(bot.start["start"]["customParameters"]["edge_call_id"], "call_01");
    assert_eq!(bot.signature.unwrap().len(), 28);
}

#[tokio::test]
async fn audio_of_any_length_arrives_whole_and_in_order() {
    let (mut edge, mut bot) = connected().await;
    let lengths = [758, 320, 16_000, 1, 0, 2_400, 2_400, 2_400, 2_400, 240_000];
    for (index, length) in lengths.into_iter().enumerate() {
        bot.audio(&vec![index as u8; length]).await;
    }
    for (index, length) in lengths.into_iter().enumerate() {
        assert_eq!(edge.incoming().await, StreamIn::Audio(vec![index as u8; length]));
    }
}

#[tokio::test]
async fn marks_are_echoed_when_the_media_plane_says_so_one_for_one() {
    let (mut edge, mut bot) = connected().await;
    bot.audio(&[0; 160]).await;
    bot.mark("responsePart").await;
    bot.mark("responsePart").await;
    bot.say(json!({"event": "mark", "streamSid": bot.stream_sid})).await;
    bot.say(json!({"event": "clear", "streamSid": bot.stream_sid})).await;
    let part = || "responsePart".to_owned();
    assert_eq!(edge.incoming().await, StreamIn::Audio(vec![0; 160]));
    assert_eq!(edge.incoming().await, StreamIn::Mark(part()));
    assert_eq!(edge.incoming().await, StreamIn::Mark(part()));
    assert_eq!(edge.incoming().await, StreamIn::Clear);
    edge.frame(0xff).await;
    edge.media.outgoing.send(StreamOut::Mark(part())).await.unwrap();
    edge.media.outgoing.send(StreamOut::Mark(part())).await.unwrap();
    assert_eq!(bot.hear().await.unwrap()["event"], "media");
    for sequence in ["3", "4"] {
        let echo = bot.hear().await.unwrap();
        assert_eq!(
            (&echo["mark"]["name"], &echo["sequenceNumber"]),
            (&json!("responsePart"), &json!(sequence))
        );
    }
}

#[tokio::test]
async fn the_caller_is_heard_contiguously_with_keys_in_between() {
    let (edge, mut bot) = connected().await;
    for byte in 0..3 {
        edge.frame(byte).await;
        edge.media.outgoing.send(StreamOut::Digit('#')).await.unwrap();
    }
    for (index, timestamp) in ["20", "40", "60"].into_iter().enumerate() {
        let media = bot.hear().await.unwrap();
        assert_eq!(media["media"]["timestamp"], timestamp);
        assert_eq!(BASE64.decode(media["media"]["payload"].as_str().unwrap()).unwrap(), [index as u8; 160]);
        assert_eq!(bot.hear().await.unwrap()["dtmf"]["digit"], "#");
    }
}

#[tokio::test]
async fn a_bot_that_closes_has_left_the_call() {
    let (mut edge, mut bot) = connected().await;
    bot.audio(&[1; 160]).await;
    bot.socket.close(None).await.unwrap();
    let (reason, tally, dropped) = edge.closed().await;
    assert_eq!((reason, tally.heard, dropped), (CloseReason::RemoteClosed, 1, Dropped::default()));
}

#[tokio::test]
async fn a_connection_that_breaks_is_lost() {
    let (mut edge, bot) = connected().await;
    let socket = bot.socket.into_inner();
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    assert!(matches!(edge.closed().await.0, CloseReason::Lost | CloseReason::Protocol));
}

#[tokio::test]
async fn unknown_events_are_accepted_and_signals_reach_the_edge() {
    let (mut edge, mut bot) = connected().await;
    bot.say(json!({"event": "rtvi", "data": {"x": 1}})).await;
    let signal = json!({"v": 1, "id": "s1", "type": "confidence", "data": {"value": 0.4}});
    bot.say(json!({"event": "agent.signal", "signal": signal})).await;
    let DoorEvent::Signal(heard) = edge.event().await else { panic!("a signal was sent") };
    assert_eq!(heard.id, "s1");
}

#[tokio::test]
async fn the_edge_says_how_the_transfer_stands_then_stop_then_closes() {
    let (mut edge, mut bot) = connected().await;
    edge.door.as_ref().unwrap().status("accepted", Some(30));
    edge.close();
    let status = bot.hear().await.unwrap();
    assert_eq!((&status["event"], &status["eta_s"]), (&json!("edge.status"), &json!(30)));
    assert_eq!(bot.hear().await.unwrap()["event"], "stop");
    assert_eq!(bot.hear().await, None);
    assert_eq!(edge.closed().await.0, CloseReason::Local);
}

#[tokio::test]
async fn broken_messages_are_reported_at_a_bounded_rate_and_the_link_stays() {
    let (mut edge, mut bot) = connected().await;
    for _ in 0..200 {
        bot.socket.send(Message::text("{")).await.unwrap();
        bot.socket.send(Message::binary(vec![0; 160])).await.unwrap();
    }
    bot.mark("still here").await;
    assert_eq!(edge.incoming().await, StreamIn::Mark("still here".to_owned()));
    edge.close();
    let mut complaints = 0;
    let tally = loop {
        match edge.event().await {
            DoorEvent::Malformed(why) => {
                assert_eq!(why, Malformed::NotAnEvent);
                complaints += 1;
            }
            DoorEvent::Closed { tally, .. } => break tally,
            DoorEvent::Opened | DoorEvent::Signal(_) | DoorEvent::Silent(_) => {
                panic!("nothing of the kind was sent")
            }
        }
    };
    assert_eq!((tally.malformed, tally.heard), (400, 1));
    assert!((10..400).contains(&complaints), "{complaints}");
}

#[tokio::test]
async fn a_bot_that_does_not_read_loses_audio_and_blocks_nobody() {
    let (mut edge, mut bot) = connected().await;
    // Far more than the buffers of both kernels hold, while the bot goes on speaking.
    for _ in 0..200 {
        for _ in 0..100 {
            edge.frame(0).await;
        }
    }
    bot.mark("speaking").await;
    assert_eq!(edge.incoming().await, StreamIn::Mark("speaking".to_owned()));
    edge.close();
    let (reason, _, dropped) = edge.closed().await;
    assert_eq!(reason, CloseReason::Local);
    assert!(dropped.frames_out > 0);
}

#[tokio::test]
async fn a_full_media_queue_loses_audio_but_no_clear_and_no_mark() {
    let (mut edge, mut bot) = connected().await;
    for _ in 0..TO_MEDIA + 2 * PENDING_MAX {
        bot.audio(&[9; 160]).await;
    }
    bot.mark("after").await;
    bot.say(json!({"event": "clear"})).await;
    bot.say(json!({"event": "agent.signal", "signal": {"v": 1, "id": "s1", "type": "transfer.cancel"}}))
        .await;
    assert!(matches!(edge.event().await, DoorEvent::Signal(_)));
    let mut audio = 0;
    while let StreamIn::Audio(_) = edge.incoming().await {
        audio += 1;
    }
    assert_eq!(edge.incoming().await, StreamIn::Clear);
    assert_eq!(audio, TO_MEDIA);
    edge.close();
    assert_eq!(edge.closed().await.2.audio_in, PENDING_MAX as u64);
}

#[tokio::test]
async fn a_server_that_refuses_or_is_not_there_closes_the_door_with_its_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut edge = dial(&format!("ws://{address}/"));
    let (mut socket, _) = listener.accept().await.unwrap();
    let refusal = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut socket, refusal).await.unwrap();
    assert_eq!(edge.closed().await.0, CloseReason::Refused(403));
    drop((listener, socket));
    let mut edge = dial(&format!("ws://{address}/"));
    assert_eq!(edge.closed().await.0, CloseReason::Unreachable);
}

#[tokio::test]
async fn a_peer_that_never_answers_the_upgrade_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut edge = dial(&format!("ws://{}/", listener.local_addr().unwrap()));
    let _held = listener.accept().await.unwrap();
    let (_, event) = edge.events.recv().await.unwrap();
    assert!(matches!(event, DoorEvent::Closed { reason: CloseReason::ConnectTimeout, .. }));
}

#[tokio::test]
async fn a_message_beyond_all_bounds_ends_the_link() {
    let (mut edge, mut bot) = connected().await;
    let large = Message::text("x".repeat(WIRE_MESSAGE_BYTES_MAX + 1));
    // The edge may close before the bot has written it all.
    let _ = bot.socket.send(large).await;
    assert_eq!(edge.closed().await.0, CloseReason::Protocol);
}

/// A link whose watch is twenty times as quick.
async fn watched() -> (Edge, Bot) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/media", listener.local_addr().unwrap());
    let watch = Watch {
        ping_every: PING_EVERY / 20,
        unanswered_max: UNANSWERED_MAX / 20,
        silence_max: SILENCE_MAX / 20,
    };
    let mut edge = dial_by(&Dialer { watch, ..dialer(&url) });
    let bot = Bot::answer(&listener).await;
    assert_eq!(edge.event().await, DoorEvent::Opened);
    (edge, bot)
}

#[tokio::test]
async fn a_bot_that_stalls_with_its_socket_open_is_silent_and_then_gone() {
    let (mut edge, _bot) = watched().await;
    assert_eq!(edge.event().await, DoorEvent::Silent(true));
    assert_eq!(edge.closed().await.0, CloseReason::Stalled);
}

#[tokio::test]
async fn a_bot_that_drips_byte_by_byte_has_said_nothing() {
    let (mut edge, bot) = watched().await;
    let mut socket = bot.socket.into_inner();
    let drip = tokio::spawn(async move {
        // A text message of 125 bytes that never completes.
        for byte in [0x81, 0x7d].into_iter().chain([b'{'; 100]) {
            if tokio::io::AsyncWriteExt::write_all(&mut socket, &[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(PING_EVERY / 100).await;
        }
    });
    assert_eq!(edge.event().await, DoorEvent::Silent(true));
    assert_eq!(edge.closed().await.0, CloseReason::Stalled);
    drip.abort();
}

#[tokio::test]
async fn a_bot_that_answers_again_is_heard_again() {
    let (mut edge, mut bot) = watched().await;
    assert_eq!(edge.event().await, DoorEvent::Silent(true));
    bot.mark("back").await;
    while edge.event().await != DoorEvent::Silent(false) {}
}

#[tokio::test]
async fn a_bot_that_breaks_into_garbage_is_gone_at_once() {
    let (mut edge, bot) = connected().await;
    let mut socket = bot.socket.into_inner();
    tokio::io::AsyncWriteExt::write_all(&mut socket, &[0xf7; 4_096]).await.unwrap();
    assert_eq!(edge.closed().await.0, CloseReason::Protocol);
}
