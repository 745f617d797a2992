//! SIP's sockets: one UDP socket, one TCP and one TLS listener. Bytes go to the edge as they come,
//! bytes from the edge go out as they are; this module knows nothing of SIP. TCP
//! connections are numbered, bounded in count and idle time, and never block the loop.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::io::tls::{Tls, TlsStream};
use crate::sip::{Flow, Transport};

/// Connections at most. Each costs a task and a buffer; a trunk needs a handful.
const CONNECTIONS_MAX: usize = 1_024;

/// Of these, at most so many from one address, or one stranger who says nothing would keep
/// every trunk and phone out. Phones of a whole office may share an address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = CONNECTIONS_MAX / 4;

/// Who connects speaks first (RFC 3261 section 18), and at once: a connection without a first
/// byte for this long is a scanner's.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(15);

/// A handshake takes two round trips; who needs longer holds a place for nothing.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Messages waiting to be written to one connection. A peer that reads so slowly is cut off.
const WRITES_MAX: usize = 64;

/// A connection without a byte for this long is closed; registered phones keep theirs alive
/// by CRLF.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Connecting takes at most this long; SIP's own timers retry.
const CONNECT_MAX: Duration = Duration::from_secs(4);

/// What the sockets tell the loop.
#[derive(Debug)]
pub enum NetEvent {
    /// Bytes came.
    Bytes(Flow, Vec<u8>),
    /// A TCP connection ended.
    Closed(Flow),
    /// A TCP connection was opened or accepted; answers may use it.
    Opened(Flow, mpsc::Sender<Vec<u8>>),
}

/// The sockets and the open connections.
#[derive(Debug)]
pub struct Net {
    udp: Arc<UdpSocket>,
    /// By transport as well: what is meant for TLS never leaves on a bare connection.
    connections: BTreeMap<(Transport, SocketAddr), Open>,
    events: mpsc::Sender<NetEvent>,
    next_connection: Arc<std::sync::atomic::AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    tls: watch::Sender<Option<Tls>>,
    names: BTreeMap<IpAddr, Vec<String>>,
    /// Where UDP is bound.
    pub udp_address: SocketAddr,
    /// Where TCP listens, if it does.
    pub tcp_address: Option<SocketAddr>,
    /// Where TLS listens, if it does.
    pub tls_address: Option<SocketAddr>,
}

/// A connection, and where to put what it is to carry.
type Open = (Flow, mpsc::Sender<Vec<u8>>);

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// For datagrams.
    pub udp: SocketAddr,
    /// For TCP.
    pub tcp: Option<SocketAddr>,
    /// For TLS, with the edge's certificate.
    pub tls: Option<(SocketAddr, Tls)>,
}

impl Net {
    /// Binds all. Events arrive on the returned channel, which is bounded: when the loop
    /// is behind, the kernel's socket buffers fill next, and then the network drops.
    pub async fn bind(listeners: Listeners) -> std::io::Result<(Self, mpsc::Receiver<NetEvent>)> {
        let Listeners { udp, tcp, tls } = listeners;
        let (events, receiver) = mpsc::channel(4_096);
        let udp = Arc::new(UdpSocket::bind(udp).await?);
        let udp_address = udp.local_addr()?;
        let mut net = Self {
            udp: Arc::clone(&udp),
            connections: BTreeMap::new(),
            events: events.clone(),
            next_connection: Arc::new(std::sync::atomic::AtomicU64::new(1)),
            tasks: Vec::new(),
            tls: watch::Sender::new(tls.as_ref().map(|(_, tls)| tls.clone())),
            names: BTreeMap::new(),
            udp_address,
            tcp_address: None,
            tls_address: None,
        };
        net.tasks.push(tokio::spawn(read_datagrams(udp, events.clone())));
        if let Some(tcp) = tcp {
            let listener = TcpListener::bind(tcp).await?;
            net.tcp_address = Some(listener.local_addr()?);
            let door = Door { listener, next: Arc::clone(&net.next_connection), tls: None };
            net.tasks.push(tokio::spawn(accept(door, events.clone())));
        }
        if let Some((address, _)) = tls {
            let listener = TcpListener::bind(address).await?;
            net.tls_address = Some(listener.local_addr()?);
            let tls = Some(net.tls.subscribe());
            let door = Door { listener, next: Arc::clone(&net.next_connection), tls };
            net.tasks.push(tokio::spawn(accept(door, events)));
        }
        Ok((net, receiver))
    }

    /// Sends bytes on a flow. For TCP without a live connection to the peer, connects first.
    /// Never blocks: what cannot be sent is lost, and SIP's timers notice.
    pub fn send(&mut self, flow: Flow, bytes: Vec<u8>) {
        match flow.transport {
            Transport::Udp => {
                if let Err(error) = self.udp.try_send_to(&bytes, flow.peer) {
                    debug!(kind = ?error.kind(), "a datagram could not be sent");
                }
            }
            Transport::Tcp | Transport::Tls => {
                if let Some((_, writer)) = self.connections.get(&place(flow)) {
                    if writer.try_send(bytes).is_err() {
                        warn!(connection = flow.connection, "a peer reads too slowly: connection dropped");
                        self.connections.remove(&place(flow));
                    }
                } else {
                    self.connect(flow.transport, flow.peer, bytes);
                }
            }
        }
    }

    /// Closes a connection.
    pub fn close(&mut self, flow: Flow) {
        self.connections.remove(&place(flow));
    }

    /// Remembers an opened connection. Must be called for each [`NetEvent::Opened`].
    pub fn opened(&mut self, flow: Flow, writer: mpsc::Sender<Vec<u8>>) {
        if self.connections.len() < CONNECTIONS_MAX {
            self.connections.insert(place(flow), (flow, writer));
        }
    }

    /// Forgets an ended connection. Must be called for each [`NetEvent::Closed`].
    pub fn closed(&mut self, flow: Flow) {
        if self.connections.get(&place(flow)).is_some_and(|(live, _)| live.connection == flow.connection) {
            self.connections.remove(&place(flow));
        }
    }

    /// The names behind addresses that are dialled: what the far end's certificate must show.
    pub fn learn(&mut self, hosts: &[(String, SocketAddr)]) {
        self.names.clear();
        for (name, address) in hosts {
            self.names.entry(address.ip()).or_default().push(name.clone());
        }
    }

    /// New connections go by other certificates; those that are open stay.
    pub fn renew(&self, tls: Option<Tls>) {
        self.tls.send_replace(tls);
    }

    fn connect(&mut self, transport: Transport, peer: SocketAddr, first: Vec<u8>) {
        let connection = self.next_connection.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let flow = Flow { transport, peer, connection };
        let (writer, writes) = mpsc::channel(WRITES_MAX);
        // The queue is empty, so the first message fits.
        let _ = writer.try_send(first);
        self.connections.insert(place(flow), (flow, writer));
        let events = self.events.clone();
        let tls = self.tls.borrow().clone();
        let names = self.names.get(&peer.ip()).cloned().unwrap_or_else(|| vec![peer.ip().to_string()]);
        tokio::spawn(async move {
            match tokio::time::timeout(CONNECT_MAX, dial(transport, peer, tls, &names)).await {
                Ok(Ok(Stream::Plain(stream))) => carry_stream(stream, flow, IDLE_MAX, writes, events).await,
                Ok(Ok(Stream::Tls(stream))) => carry_stream(stream, flow, IDLE_MAX, writes, events).await,
                Ok(Err(error)) => {
                    debug!(kind = ?error.kind(), "a connection could not be made");
                    let _ = events.send(NetEvent::Closed(flow)).await;
                }
                Err(_) => {
                    let _ = events.send(NetEvent::Closed(flow)).await;
                }
            }
        });
    }
}

/// Where a connection is kept.
const fn place(flow: Flow) -> (Transport, SocketAddr) {
    (flow.transport, flow.peer)
}

/// An opened connection.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// Opens a connection. A TLS peer shows one of these names, or is not talked to.
async fn dial(
    transport: Transport,
    peer: SocketAddr,
    tls: Option<Tls>,
    names: &[String],
) -> std::io::Result<Stream> {
    if transport != Transport::Tls {
        return TcpStream::connect(peer).await.map(Stream::Plain);
    }
    let tls = tls.ok_or(std::io::ErrorKind::Unsupported)?;
    let mut failed = std::io::ErrorKind::InvalidInput.into();
    for name in names {
        match tls.connect(name, TcpStream::connect(peer).await?).await {
            Ok(stream) => return Ok(Stream::Tls(Box::new(stream))),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Drop for Net {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn read_datagrams(socket: Arc<UdpSocket>, events: mpsc::Sender<NetEvent>) {
    let mut buffer = vec![0_u8; 65_535];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, peer)) => {
                let flow = Flow { transport: Transport::Udp, peer, connection: 0 };
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if events.send(NetEvent::Bytes(flow, bytes)).await.is_err() {
                    return;
                }
            }
            // An ICMP error of an earlier datagram; the socket itself is fine.
            Err(error) => debug!(kind = ?error.kind(), "receiving a datagram failed"),
        }
    }
}

/// A listener, and what its connections go through first.
struct Door {
    listener: TcpListener,
    next: Arc<std::sync::atomic::AtomicU64>,
    tls: Option<watch::Receiver<Option<Tls>>>,
}

async fn accept(door: Door, events: mpsc::Sender<NetEvent>) {
    let open = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    let mut places = Places::default();
    loop {
        let Ok((stream, peer)) = door.listener.accept().await else {
            // Descriptors are used up: wait for some to come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else { continue };
        let Some(place) = places.take(peer.ip().to_canonical()) else {
            debug!("one address has too many connections: refused");
            continue;
        };
        let connection = door.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (writer, writes) = mpsc::channel(WRITES_MAX);
        let events = events.clone();
        let tls = door.tls.as_ref().map(|tls| tls.borrow().clone());
        tokio::spawn(async move {
            let _held = (permit, place);
            match tls {
                None => {
                    let flow = Flow { transport: Transport::Tcp, peer, connection };
                    if events.send(NetEvent::Opened(flow, writer)).await.is_ok() {
                        carry_stream(stream, flow, FIRST_BYTE_MAX, writes, events).await;
                    }
                }
                Some(tls) => {
                    let Some(tls) = tls else { return };
                    let flow = Flow { transport: Transport::Tls, peer, connection };
                    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await else {
                        debug!("a TLS handshake failed or took too long");
                        return;
                    };
                    if events.send(NetEvent::Opened(flow, writer)).await.is_ok() {
                        carry_stream(stream, flow, FIRST_BYTE_MAX, writes, events).await;
                    }
                }
            }
        });
    }
}

/// Who holds how many of the accepted connections.
#[derive(Debug, Default)]
struct Places(BTreeMap<IpAddr, Arc<()>>);

impl Places {
    /// A place that is given back by dropping it; `None` where the address has its share.
    fn take(&mut self, address: IpAddr) -> Option<Arc<()>> {
        self.0.retain(|_, held| Arc::strong_count(held) > 1);
        let held = self.0.entry(address).or_default();
        // One of the count is the table's own.
        (Arc::strong_count(held) <= CONNECTIONS_PER_ADDRESS_MAX).then(|| Arc::clone(held))
    }
}

async fn carry_stream(
    stream: impl AsyncRead + AsyncWrite,
    flow: Flow,
    mut patience: Duration,
    mut writes: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<NetEvent>,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = vec![0_u8; 65_535];
    loop {
        tokio::select! {
            read = tokio::time::timeout(patience, reader.read(&mut buffer)) => match read {
                Ok(Ok(length)) if length > 0 => {
                    patience = IDLE_MAX;
                    let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                    if events.send(NetEvent::Bytes(flow, bytes)).await.is_err() {
                        return;
                    }
                }
                Ok(Ok(_) | Err(_)) | Err(_) => break,
            },
            write = writes.recv() => match write {
                Some(bytes) => {
                    // TLS keeps what the socket did not take at once until it is flushed.
                    let written = async {
                        writer.write_all(&bytes).await?;
                        writer.flush().await
                    };
                    let written = tokio::time::timeout(CONNECT_MAX, written).await;
                    if !matches!(written, Ok(Ok(()))) {
                        break;
                    }
                }
                None => break,
            },
        }
    }
    // The far end may be gone, and then nobody is told.
    let _ = tokio::time::timeout(CONNECT_MAX, writer.shutdown()).await;
    let _ = events.send(NetEvent::Closed(flow)).await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn one_address_has_a_share_of_the_places_and_gets_it_back() {
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut places = Places::default();
        let mut held: Vec<_> = (0..CONNECTIONS_PER_ADDRESS_MAX).map_while(|_| places.take(one)).collect();
        assert_eq!(held.len(), CONNECTIONS_PER_ADDRESS_MAX);
        assert!(places.take(one).is_none());
        assert!(places.take(other).is_some());
        held.pop();
        assert!(places.take(one).is_some());
        held.clear();
        let _last = places.take(other);
        assert_eq!(places.0.len(), 1, "who holds nothing is forgotten");
    }

    #[tokio::test]
    async fn the_next_connection_of_a_full_address_is_closed_and_a_message_on_an_old_one_still_comes() {
        let (net, mut events) =
            Net::bind(Listeners { udp: LOOPBACK, tcp: Some(LOOPBACK), tls: None }).await.unwrap();
        let to = net.tcp_address.unwrap();
        let mut open = Vec::new();
        let mut kept = Vec::new();
        for _ in 0..CONNECTIONS_PER_ADDRESS_MAX {
            open.push(TcpStream::connect(to).await.unwrap());
            kept.push(events.recv().await.unwrap());
        }
        let mut refused = TcpStream::connect(to).await.unwrap();
        assert!(matches!(refused.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        open[0].write_all(b"OPTIONS").await.unwrap();
        assert!(matches!(events.recv().await, Some(NetEvent::Bytes(_, bytes)) if bytes == b"OPTIONS"));
    }

    const CERTIFICATE: &str = include_str!("../../tests/data/tls/edge.pem");
    const KEY: &str = include_str!("../../tests/data/tls/edge.key");
    const ROOTS: &str = include_str!("../../tests/data/tls/ca.pem");

    async fn secured(roots: Option<&str>) -> (Net, mpsc::Receiver<NetEvent>) {
        let tls = Tls::of_pem(CERTIFICATE, KEY, roots).unwrap();
        Net::bind(Listeners { udp: LOOPBACK, tcp: None, tls: Some((LOOPBACK, tls)) }).await.unwrap()
    }

    fn secure(net: &Net) -> Flow {
        Flow { transport: Transport::Tls, peer: net.tls_address.unwrap(), connection: 0 }
    }

    #[tokio::test]
    async fn one_tls_connection_carries_both_ways() {
        let (mut near, mut at_near) = secured(Some(ROOTS)).await;
        let (mut far, mut at_far) = secured(Some(ROOTS)).await;
        near.send(secure(&far), b"OPTIONS".to_vec());
        let Some(NetEvent::Opened(flow, writer)) = at_far.recv().await else { panic!("opened first") };
        assert_eq!(flow.transport, Transport::Tls);
        far.opened(flow, writer);
        assert!(matches!(at_far.recv().await, Some(NetEvent::Bytes(_, bytes)) if bytes == b"OPTIONS"));
        far.send(flow, b"200".to_vec());
        let came = at_near.recv().await;
        assert!(
            matches!(came, Some(NetEvent::Bytes(from, bytes)) if bytes == b"200" && from.peer == far.tls_address.unwrap())
        );
    }

    #[tokio::test]
    async fn a_far_end_without_the_dialled_name_or_without_trust_hears_nothing() {
        for (roots, name, spoken) in [
            (Some(ROOTS), Some("edge.example"), true),
            (Some(ROOTS), Some("other.example"), false),
            (None, None, false),
        ] {
            let (mut near, mut at_near) = secured(roots).await;
            let (far, mut at_far) = secured(None).await;
            let to = secure(&far);
            near.learn(&Vec::from_iter(name.map(|name| (name.to_owned(), to.peer))));
            near.send(to, b"OPTIONS".to_vec());
            if spoken {
                assert!(matches!(at_far.recv().await, Some(NetEvent::Opened(..))), "{name:?}");
            } else {
                assert!(matches!(at_near.recv().await, Some(NetEvent::Closed(_))), "{name:?}");
                assert!(at_far.try_recv().is_err(), "{name:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_meant_for_tls_never_leaves_on_a_bare_connection() {
        let (mut near, mut at_near) = secured(Some(ROOTS)).await;
        let bare = TcpListener::bind(LOOPBACK).await.unwrap();
        let peer = bare.local_addr().unwrap();
        near.send(Flow { transport: Transport::Tcp, peer, connection: 0 }, b"bare".to_vec());
        let (mut first, _) = bare.accept().await.unwrap();
        near.send(Flow { transport: Transport::Tls, peer, connection: 0 }, b"secret".to_vec());
        let (second, _) = bare.accept().await.unwrap();
        drop(second);
        assert!(
            matches!(at_near.recv().await, Some(NetEvent::Closed(flow)) if flow.transport == Transport::Tls)
        );
        drop(near);
        let mut heard = Vec::new();
        first.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bare");
    }

    #[tokio::test]
    async fn clear_text_on_the_tls_port_reaches_nobody() {
        let (net, mut events) = secured(None).await;
        let mut stranger = TcpStream::connect(net.tls_address.unwrap()).await.unwrap();
        stranger.write_all(b"OPTIONS sip:edge SIP/2.0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // An alert, or nothing: never SIP.
        let _ = stranger.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"SIP"));
        assert!(events.try_recv().is_err());
    }
}
