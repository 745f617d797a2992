//! WebSockets on real sockets: a listener of the edge, and clients of another library's half.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, client_async, connect_async};

use super::super::{Listeners, Net};
use super::*;
use crate::sip::Transport;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn edge() -> (Net, mpsc::Receiver<NetEvent>) {
    Net::bind(Listeners { ws: Some(LOOPBACK), ..Listeners::of_udp(LOOPBACK) }).await.unwrap()
}

/// Dials the edge and asks for these subprotocols.
async fn dial(net: &Net, protocols: Option<&'static str>) -> Result<(Client, Option<HeaderValue>), Error> {
    let mut request = format!("ws://{}/sip", net.bound.ws.unwrap()).into_client_request().unwrap();
    if let Some(protocols) = protocols {
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
    }
    let (client, response) = connect_async(request).await?;
    Ok((client, response.headers().get(header::SEC_WEBSOCKET_PROTOCOL).cloned()))
}

/// A phone that is connected, and the edge's end of it.
async fn connected() -> (Net, mpsc::Receiver<NetEvent>, Client, Flow) {
    let (mut net, mut events) = edge().await;
    let (client, _) = dial(&net, Some("sip")).await.unwrap();
    let Some(NetEvent::Opened(flow, writer)) = events.recv().await else { panic!("opened first") };
    net.opened(flow, writer);
    (net, events, client, flow)
}

#[tokio::test]
async fn a_frame_is_a_message_in_either_direction() {
    let (mut net, mut events, mut client, flow) = connected().await;
    assert_eq!(flow.transport, Transport::Ws);
    for message in [Message::text("OPTIONS one"), Message::binary(b"OPTIONS two".to_vec())] {
        client.send(message.clone()).await.unwrap();
        let came = events.recv().await;
        assert!(
            matches!(came, Some(NetEvent::Bytes(from, bytes)) if from == flow && bytes == message.into_data())
        );
    }
    net.send(flow, b"SIP/2.0 200 OK".to_vec());
    net.send(flow, vec![0xFF]);
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("SIP/2.0 200 OK"));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![0xFF]));
    client.close(None).await.unwrap();
    assert!(matches!(events.recv().await, Some(NetEvent::Closed(from)) if from == flow));
}

#[tokio::test]
async fn whoever_does_not_ask_for_sip_gets_400_and_reaches_nobody() {
    let (net, mut events) = edge().await;
    for protocols in [None, Some("mqtt"), Some("sips, siphon")] {
        let Err(Error::Http(refusal)) = dial(&net, protocols).await else { panic!("{protocols:?}") };
        assert_eq!(refusal.status(), StatusCode::BAD_REQUEST);
    }
    let (_, agreed) = dial(&net, Some("mqtt, sip")).await.unwrap();
    assert_eq!(agreed.unwrap(), SUBPROTOCOL);
    assert!(matches!(events.recv().await, Some(NetEvent::Opened(..))));
    assert!(events.try_recv().is_err());
    assert_eq!(net.counters().upgrade, 3);
}

#[tokio::test]
async fn what_is_no_upgrade_is_answered_by_nothing_but_http_and_counted() {
    let (net, mut events) = edge().await;
    for hello in ["OPTIONS sip:edge SIP/2.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: edge\r\n\r\n"] {
        let mut stranger = TcpStream::connect(net.bound.ws.unwrap()).await.unwrap();
        stranger.write_all(hello.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{hello}");
    }
    assert!(events.try_recv().is_err());
    assert_eq!(net.counters().upgrade, 2);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_its_connection() {
    let (_net, mut events, mut client, flow) = connected().await;
    client.send(Message::binary(vec![b'a'; MESSAGE_BYTES_MAX])).await.unwrap();
    assert!(matches!(events.recv().await, Some(NetEvent::Bytes(..))));
    let _ = client.send(Message::binary(vec![b'a'; MESSAGE_BYTES_MAX + 1])).await;
    assert!(matches!(events.recv().await, Some(NetEvent::Closed(from)) if from == flow));
}

#[tokio::test]
async fn a_flood_of_pings_ends_its_connection() {
    let (_net, mut events, mut client, flow) = connected().await;
    for _ in 0..=CONTROL_FRAMES_MAX {
        let _ = client.feed(Message::Ping(Vec::new().into())).await;
    }
    let _ = client.flush().await;
    assert!(matches!(events.recv().await, Some(NetEvent::Closed(from)) if from == flow));
}

#[tokio::test]
async fn what_is_meant_for_a_connection_that_is_gone_never_leaves_on_its_successor() {
    let (mut net, mut events, mut client, flow) = connected().await;
    for connection in [0, flow.connection + 1] {
        let gone = Flow { connection, ..flow };
        net.send(gone, b"INVITE".to_vec());
        assert!(matches!(events.recv().await, Some(NetEvent::Closed(told)) if told == gone));
    }
    net.close(Flow { connection: flow.connection + 1, ..flow });
    net.send(flow, b"BYE".to_vec());
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("BYE"));
}

/// The edge's end of a connection that is watched like this, and the other end.
async fn watched(watch: Watch) -> (mpsc::Receiver<NetEvent>, WebSocketStream<TcpStream>) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let peer = listener.local_addr().unwrap();
    let (events, queue) = mpsc::channel(16);
    tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        let socket = upgrade(stream).await.unwrap();
        let (writer, writes) = mpsc::channel(1);
        let flow = Flow { transport: Transport::Ws, peer, connection: 1 };
        carry(socket, flow, watch, writes, events).await;
        drop(writer);
    });
    let mut request = format!("ws://{peer}/").into_client_request().unwrap();
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("sip"));
    let stream = TcpStream::connect(peer).await.unwrap();
    (queue, client_async(request, stream).await.unwrap().0)
}

const QUICK: Watch = Watch {
    ping_every: Duration::from_millis(20),
    silence_max: Duration::from_millis(100),
    first_message_max: Duration::from_secs(3_600),
};

#[tokio::test]
async fn a_phone_that_answers_pings_stays_and_one_that_does_not_is_gone() {
    let (mut events, mut client) = watched(QUICK).await;
    for _ in 0..8 {
        // Reading is answering, in this library.
        assert!(matches!(client.next().await, Some(Ok(Message::Ping(_)))));
    }
    assert!(events.try_recv().is_err(), "it is still there");
    // From here on nobody reads.
    assert!(matches!(events.recv().await, Some(NetEvent::Closed(_))));
    drop(client);
}

#[tokio::test]
async fn a_phone_that_never_speaks_loses_its_place_though_it_answers_pings() {
    let (mut events, mut client) =
        watched(Watch { first_message_max: Duration::from_millis(200), ..QUICK }).await;
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = client.next().await {} });
    assert!(matches!(events.recv().await, Some(NetEvent::Closed(_))));
    reading.await.unwrap();
}
