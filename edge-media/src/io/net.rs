//! SIP's sockets: one UDP socket and one TCP listener. Bytes go to the edge as they come,
//! bytes from the edge go out as they are; this module knows nothing of SIP. TCP
//! connections are numbered, bounded in count and idle time, and never block the loop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::sip::{Flow, Transport};

/// Connections at most. Each costs a task and a buffer; a trunk needs a handful.
const CONNECTIONS_MAX: usize = 1_024;

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
                Ok(Ok(stream)) => carry_stream(stream, flow, writes, events).await,
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
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Descriptors are used up: wait for some to come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else { continue };
        let connection = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let flow = Flow { transport: Transport::Tcp, peer, connection };
        let (writer, writes) = mpsc::channel(WRITES_MAX);
        let events = events.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if events.send(NetEvent::Opened(flow, writer)).await.is_ok() {
                carry_stream(stream, flow, writes, events).await;
            }
        });
    }
}

async fn carry_stream(
    stream: TcpStream,
    flow: Flow,
    mut writes: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<NetEvent>,
) {
    let (mut reader, mut writer) = stream.into_split();
    let mut buffer = vec![0_u8; 65_535];
    loop {
        tokio::select! {
            read = tokio::time::timeout(IDLE_MAX, reader.read(&mut buffer)) => match read {
                Ok(Ok(length)) if length > 0 => {
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
