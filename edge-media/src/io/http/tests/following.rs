//! The stream of events over real sockets: from now on, from a place, and where that is gone.

use handoff::clock::Timestamp;
use handoff::event::{CallEvent, Fact};
use handoff::id::{EdgeId, TenantId};

use super::*;
use crate::io::http::events::Told;

fn fact(call: &str, seq: u64) -> Told {
    Told::of(&CallEvent {
        edge: EdgeId::parse("edge_1").unwrap(),
        tenant: TenantId::parse("t_acme").unwrap(),
        call: CallId::parse(call).unwrap(),
        seq,
        time: Timestamp::from_unix_millis(0),
        mono_us: 0,
        commands: String::new(),
        fact: Fact::CallEnded { cause: "normal".to_owned(), side: "caller".to_owned() },
        evaluable: None,
    })
}

struct Stream(TcpStream, String);

impl Stream {
    async fn open(address: SocketAddr, query: &str, last: &str) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let last = if last.is_empty() { String::new() } else { format!("last-event-id: {last}\r\n") };
        let request = format!(
            "GET /v1/events{query} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {WALL}\r\n{last}\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self(socket, String::new());
        let head = stream.until("\r\n\r\n").await;
        assert!(head.contains(" 200 ") && head.contains("text/event-stream"), "{head}");
        stream
    }

    async fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some((before, behind)) = self.1.split_once(mark) {
                let (before, behind) = (before.to_owned(), behind.to_owned());
                self.1 = behind;
                return before;
            }
            let mut chunk = [0_u8; 8_192];
            let count = timeout(PATIENCE, self.0.read(&mut chunk)).await.unwrap().unwrap();
            assert_ne!(count, 0, "the stream ended");
            self.1 += &String::from_utf8_lossy(&chunk[..count]);
        }
    }

    /// The next event: its name, its id and its data.
    async fn event(&mut self) -> (String, String, Value) {
        let text = self.until("\n\n").await;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{name}:")));
            line.unwrap_or_default().trim().to_owned()
        };
        (field("event"), field("id"), serde_json::from_str(&field("data")).unwrap())
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_cut_and_misses_nothing() {
    let listening = listen(Rates::default(), true).await;
    let mut stream = Stream::open(listening.address, "", "").await;
    let (name, start, _) = stream.event().await;
    assert_eq!(name, "ready");
    listening.events.push(fact("call_01", 4));
    let (name, id, data) = stream.event().await;
    assert_eq!((name.as_str(), &data["call"], &data["seq"]), ("call.ended", &json!("call_01"), &json!(4)));
    drop(stream);
    listening.events.push(fact("call_01", 5));
    listening.events.push(fact("call_02", 0));
    let mut stream = Stream::open(listening.address, "", &id).await;
    assert_eq!(stream.event().await.2["seq"], 5);
    assert_eq!(stream.event().await.2["call"], "call_02");
    // The first sign of the stream is a place too.
    let mut stream = Stream::open(listening.address, "?call=call_02", &start).await;
    assert_eq!(stream.event().await.2["call"], "call_02", "the other call is left out");
}

#[tokio::test]
async fn where_events_were_missed_the_stream_says_so_and_goes_on() {
    let listening = listen(Rates::default(), true).await;
    for last in ["deadbeef-3", "nonsense", "00000007-99"] {
        let mut stream = Stream::open(listening.address, "", last).await;
        assert_eq!(stream.event().await.0, "reset", "{last}");
        listening.events.push(fact("call_01", 0));
        assert_eq!(stream.event().await.0, "call.ended");
    }
    for seq in 0..5_000 {
        listening.events.push(fact("call_01", seq));
    }
    let mut stream = Stream::open(listening.address, "", "00000007-1").await;
    assert_eq!(stream.event().await.0, "reset", "no longer kept");
}

#[tokio::test]
async fn streams_are_bounded_and_a_place_is_free_when_one_is_left() {
    let listening = listen(Rates::default(), true).await;
    let mut open = Vec::new();
    for _ in 0..EVENT_STREAMS_MAX {
        open.push(Stream::open(listening.address, "", "").await);
    }
    assert_eq!(call(listening.address, "GET", "/v1/events", LEAD, "").await.0, 429);
    drop(open);
    // The server notices when it next writes.
    listening.events.push(fact("call_01", 0));
    loop {
        let mut socket = TcpStream::connect(listening.address).await.unwrap();
        let head = format!("GET /v1/events HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {LEAD}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0_u8; 12];
        socket.read_exact(&mut answer).await.unwrap();
        if answer.ends_with(b"200") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}
