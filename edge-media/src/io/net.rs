//! SIP's sockets: one UDP socket and one TCP listener. Bytes go to the edge as they come,
//! bytes from the edge go out as they are; this module knows nothing of SIP. TCP
//! connections are numbered, bounded in count and idle time, and never block the loop.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::sip::{Flow, Transport};

/// Connections at most. Each costs a task and a buffer; a trunk needs a handful.
const CONNECTIONS_MAX: usize = 1_024;

/// Of these, at most so many from one address, or one stranger who says nothing would keep
/// every trunk and phone out. Phones of a whole office may share an address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = CONNECTIONS_MAX / 4;

/// Who connects speaks first (RFC 3261 section 18), and at once: a connection without a first
/// byte for this long is a scanner's.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(15);

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
    connections: BTreeMap<SocketAddr, (Flow, mpsc::Sender<Vec<u8>>)>,
    events: mpsc::Sender<NetEvent>,
    next_connection: Arc<std::sync::atomic::AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Where UDP is bound.
    pub udp_address: SocketAddr,
    /// Where TCP listens, if it does.
    pub tcp_address: Option<SocketAddr>,
}

impl Net {
    /// Binds both. Events arrive on the returned channel, which is bounded: when the loop
    /// is behind, the kernel's socket buffers fill next, and then the network drops.
    pub async fn bind(
        udp: SocketAddr,
        tcp: Option<SocketAddr>,
    ) -> std::io::Result<(Self, mpsc::Receiver<NetEvent>)> {
        let (events, receiver) = mpsc::channel(4_096);
        let udp = Arc::new(UdpSocket::bind(udp).await?);
        let udp_address = udp.local_addr()?;
        let mut net = Self {
            udp: Arc::clone(&udp),
            connections: BTreeMap::new(),
            events: events.clone(),
            next_connection: Arc::new(std::sync::atomic::AtomicU64::new(1)),
            tasks: Vec::new(),
            udp_address,
            tcp_address: None,
        };
        net.tasks.push(tokio::spawn(read_datagrams(udp, events.clone())));
        if let Some(tcp) = tcp {
            let listener = TcpListener::bind(tcp).await?;
            net.tcp_address = Some(listener.local_addr()?);
            net.tasks.push(tokio::spawn(accept(listener, Arc::clone(&net.next_connection), events)));
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
            Transport::Tcp => {
                if let Some((_, writer)) = self.connections.get(&flow.peer) {
                    if writer.try_send(bytes).is_err() {
                        warn!(connection = flow.connection, "a peer reads too slowly: connection dropped");
                        self.connections.remove(&flow.peer);
                    }
                } else {
                    self.connect(flow.peer, bytes);
                }
            }
        }
    }

    /// Closes a connection.
    pub fn close(&mut self, flow: Flow) {
        self.connections.remove(&flow.peer);
    }

    /// Remembers an opened connection. Must be called for each [`NetEvent::Opened`].
    pub fn opened(&mut self, flow: Flow, writer: mpsc::Sender<Vec<u8>>) {
        if self.connections.len() < CONNECTIONS_MAX {
            self.connections.insert(flow.peer, (flow, writer));
        }
    }

    /// Forgets an ended connection. Must be called for each [`NetEvent::Closed`].
    pub fn closed(&mut self, flow: Flow) {
        if self.connections.get(&flow.peer).is_some_and(|(live, _)| live.connection == flow.connection) {
            self.connections.remove(&flow.peer);
        }
    }

    fn connect(&mut self, peer: SocketAddr, first: Vec<u8>) {
        let connection = self.next_connection.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let flow = Flow { transport: Transport::Tcp, peer, connection };
        let (writer, writes) = mpsc::channel(WRITES_MAX);
        // The queue is empty, so the first message fits.
        let _ = writer.try_send(first);
        self.connections.insert(peer, (flow, writer));
        let events = self.events.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(peer)).await {
                Ok(Ok(stream)) => carry_stream(stream, flow, IDLE_MAX, writes, events).await,
                Ok(Err(_)) | Err(_) => {
                    let _ = events.send(NetEvent::Closed(flow)).await;
                }
            }
        });
    }
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

async fn accept(
    listener: TcpListener,
    next: Arc<std::sync::atomic::AtomicU64>,
    events: mpsc::Sender<NetEvent>,
) {
    let open = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    let mut places = Places::default();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Descriptors are used up: wait for some to come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else { continue };
        let Some(place) = places.take(peer.ip().to_canonical()) else {
            debug!("one address has too many connections: refused");
            continue;
        };
        let connection = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let flow = Flow { transport: Transport::Tcp, peer, connection };
        let (writer, writes) = mpsc::channel(WRITES_MAX);
        let events = events.clone();
        tokio::spawn(async move {
            let _held = (permit, place);
            if events.send(NetEvent::Opened(flow, writer)).await.is_ok() {
                carry_stream(stream, flow, FIRST_BYTE_MAX, writes, events).await;
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
    stream: TcpStream,
    flow: Flow,
    mut patience: Duration,
    mut writes: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<NetEvent>,
) {
    let (mut reader, mut writer) = stream.into_split();
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
                    let written = tokio::time::timeout(CONNECT_MAX, writer.write_all(&bytes)).await;
                    if !matches!(written, Ok(Ok(()))) {
                        break;
                    }
                }
                None => break,
            },
        }
    }
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
        let (net, mut events) = Net::bind(LOOPBACK, Some(LOOPBACK)).await.unwrap();
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
}
