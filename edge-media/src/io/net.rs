//! SIP's sockets: one UDP socket, and listeners for TCP, TLS, WebSockets and WebSockets inside
//! TLS. Bytes go to the edge as they come, bytes from the edge go out as they are; this module
//! knows nothing of SIP. Connections are numbered, bounded in count and idle time, and never
//! block the loop. `door` lets them in, `ws` carries those of browsers.

mod door;
mod ws;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::io::tls::{self, Tls, TlsStream};
use crate::sip::{Flow, Transport};
use door::Door;
pub use door::NetCounters;

/// Connections of one listener at most. Each costs a task and a buffer; a trunk needs a handful.
const CONNECTIONS_MAX: usize = 1_024;

/// Connections that are remembered: those of four listeners.
const OPEN_MAX: usize = 4 * CONNECTIONS_MAX;

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
    /// A connection ended, or could not be made.
    Closed(Flow),
    /// A connection was accepted; answers may use it.
    Opened(Flow, mpsc::Sender<Vec<u8>>),
    /// The far end of a connection has shown a certificate, which was verified. Comes before
    /// its first byte.
    Vouched {
        /// The connection.
        flow: Flow,
        /// The names in the certificate.
        names: Vec<String>,
        /// We dialled, and one of them is the name that was dialled.
        dialled: bool,
    },
}

/// The sockets and the open connections.
#[derive(Debug)]
pub struct Net {
    udp: Arc<UdpSocket>,
    /// By transport as well: what is meant for TLS never leaves on a bare connection. Where to put
    /// what each is to carry.
    connections: BTreeMap<Place, mpsc::Sender<Vec<u8>>>,
    events: mpsc::Sender<NetEvent>,
    next_connection: Arc<std::sync::atomic::AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    tls: watch::Sender<Option<Tls>>,
    names: BTreeMap<IpAddr, Vec<String>>,
    /// The same of trunks' servers.
    server_names: BTreeMap<IpAddr, Vec<String>>,
    refused: Arc<door::Refused>,
    /// Where all of them are bound.
    pub bound: Bound,
}

/// Where SIP's sockets are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// For datagrams.
    pub udp: SocketAddr,
    /// For TCP, if it listens.
    pub tcp: Option<SocketAddr>,
    /// For TLS, if it listens.
    pub tls: Option<SocketAddr>,
    /// For WebSockets, if it listens.
    pub ws: Option<SocketAddr>,
    /// For WebSockets inside TLS, if it listens.
    pub wss: Option<SocketAddr>,
}

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// For datagrams.
    pub udp: SocketAddr,
    /// For TCP.
    pub tcp: Option<SocketAddr>,
    /// For TLS.
    pub tls: Option<SocketAddr>,
    /// For WebSockets.
    pub ws: Option<SocketAddr>,
    /// For WebSockets inside TLS.
    pub wss: Option<SocketAddr>,
    /// The edge's certificate, and whom it trusts.
    pub certificate: Option<Tls>,
}

impl Listeners {
    /// For datagrams alone.
    pub const fn of_udp(udp: SocketAddr) -> Self {
        Self { udp, tcp: None, tls: None, ws: None, wss: None, certificate: None }
    }
}

impl Net {
    /// Binds all. Events arrive on the returned channel, which is bounded: when the loop
    /// is behind, the kernel's socket buffers fill next, and then the network drops.
    pub async fn bind(listeners: Listeners) -> std::io::Result<(Self, mpsc::Receiver<NetEvent>)> {
        let (events, receiver) = mpsc::channel(4_096);
        let udp = Arc::new(UdpSocket::bind(listeners.udp).await?);
        let bound = Bound { udp: udp.local_addr()?, tcp: None, tls: None, ws: None, wss: None };
        let mut net = Self {
            udp: Arc::clone(&udp),
            connections: BTreeMap::new(),
            events: events.clone(),
            next_connection: Arc::new(std::sync::atomic::AtomicU64::new(1)),
            tasks: Vec::new(),
            tls: watch::Sender::new(listeners.certificate),
            names: BTreeMap::new(),
            server_names: BTreeMap::new(),
            refused: Arc::default(),
            bound,
        };
        net.tasks.push(tokio::spawn(read_datagrams(udp, events)));
        net.bound.tcp = net.listen(Transport::Tcp, listeners.tcp).await?;
        net.bound.tls = net.listen(Transport::Tls, listeners.tls).await?;
        net.bound.ws = net.listen(Transport::Ws, listeners.ws).await?;
        net.bound.wss = net.listen(Transport::Wss, listeners.wss).await?;
        Ok((net, receiver))
    }

    async fn listen(
        &mut self,
        transport: Transport,
        at: Option<SocketAddr>,
    ) -> std::io::Result<Option<SocketAddr>> {
        let Some(at) = at else { return Ok(None) };
        let door = Door {
            listener: tokio::net::TcpListener::bind(at).await?,
            transport,
            next: Arc::clone(&self.next_connection),
            tls: self.tls.subscribe(),
            refused: Arc::clone(&self.refused),
            events: self.events.clone(),
        };
        let bound = door.listener.local_addr()?;
        self.tasks.push(tokio::spawn(door.accept()));
        Ok(Some(bound))
    }

    /// Who was refused before SIP began.
    pub fn counters(&self) -> NetCounters {
        self.refused.counted()
    }

    /// Sends bytes on a flow. For TCP and TLS without a live connection to the peer, connects first.
    /// Never blocks: what cannot be sent is lost, and SIP's timers notice.
    pub fn send(&mut self, flow: Flow, bytes: Vec<u8>) {
        match flow.transport {
            Transport::Udp => {
                if let Err(error) = self.udp.try_send_to(&bytes, flow.peer) {
                    debug!(kind = ?error.kind(), "a datagram could not be sent");
                }
            }
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                if let Some((place, writer)) = self.open(flow) {
                    if writer.try_send(bytes).is_err() {
                        warn!(connection = place.2, "a peer reads too slowly: connection dropped");
                        self.connections.remove(&place);
                    }
                } else if flow.transport.is_opened_by_peer() {
                    // A queue that is full loses it, and SIP's timers notice.
                    let _ = self.events.try_send(NetEvent::Closed(flow));
                } else {
                    self.connect(flow.transport, flow.peer, bytes);
                }
            }
        }
    }

    /// Closes a connection.
    pub fn close(&mut self, flow: Flow) {
        if let Some((place, _)) = self.open(flow) {
            self.connections.remove(&place);
        }
    }

    /// The connection that carries a flow: its own, or where that is gone or not known yet, the
    /// newest one to the same peer. The place of a WebSocket that is gone may be somebody else's by
    /// now: an address and port behind a NAT are used again.
    fn open(&self, flow: Flow) -> Option<(Place, &mpsc::Sender<Vec<u8>>)> {
        let Flow { transport, peer, connection } = flow;
        if let Some(own) = self.connections.get_key_value(&(transport, peer, connection)) {
            return Some((*own.0, own.1));
        }
        let all = (transport, peer, 0)..=(transport, peer, u64::MAX);
        let newest = self.connections.range(all).next_back().filter(|_| !transport.is_opened_by_peer());
        newest.map(|(place, writer)| (*place, writer))
    }

    /// Remembers an opened connection. Must be called for each [`NetEvent::Opened`].
    pub fn opened(&mut self, flow: Flow, writer: mpsc::Sender<Vec<u8>>) {
        if self.connections.len() < OPEN_MAX {
            self.connections.insert(place(flow), writer);
        }
    }

    /// Forgets an ended connection. Must be called for each [`NetEvent::Closed`].
    pub fn closed(&mut self, flow: Flow) {
        self.connections.remove(&place(flow));
    }

    /// The names behind addresses that are dialled: what the far end's certificate must show.
    pub fn learn(&mut self, hosts: &[(String, SocketAddr)]) {
        self.names.clear();
        for (name, address) in hosts {
            self.names.entry(address.ip()).or_default().push(name.clone());
        }
    }

    /// The same of trunks' servers, which come from elsewhere at other times.
    pub fn learn_servers<'a>(&mut self, hosts: impl Iterator<Item = &'a (String, SocketAddr)>) {
        self.server_names.clear();
        for (name, address) in hosts {
            self.server_names.entry(address.ip()).or_default().push(name.clone());
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
        self.connections.insert(place(flow), writer);
        let events = self.events.clone();
        let tls = self.tls.borrow().clone();
        let known = [&self.server_names, &self.names];
        let mut names: Vec<String> =
            known.iter().filter_map(|names| names.get(&peer.ip())).flatten().cloned().collect();
        names.dedup();
        if names.is_empty() {
            names.push(peer.ip().to_string());
        }
        tokio::spawn(async move {
            // Whatever was sent before the connection had a number is lost with it; of connections
            // that others made nothing was.
            let unnumbered = NetEvent::Closed(Flow { connection: 0, ..flow });
            let told = events.clone();
            match tokio::time::timeout(CONNECT_MAX, dial(transport, peer, tls, &names)).await {
                Ok(Ok(Stream::Plain(stream))) => carry_stream(stream, flow, IDLE_MAX, writes, events).await,
                Ok(Ok(Stream::Tls(stream))) => {
                    let vouched = NetEvent::Vouched { flow, names: tls::names(&stream), dialled: true };
                    if events.send(vouched).await.is_ok() {
                        carry_stream(stream, flow, IDLE_MAX, writes, events).await;
                    }
                }
                Ok(Err(error)) => {
                    debug!(kind = ?error.kind(), "a connection could not be made");
                    let _ = events.send(NetEvent::Closed(flow)).await;
                }
                Err(_) => {
                    let _ = events.send(NetEvent::Closed(flow)).await;
                }
            }
            let _ = told.send(unnumbered).await;
        });
    }
}

/// Where a connection is kept.
type Place = (Transport, SocketAddr, u64);

const fn place(flow: Flow) -> Place {
    (flow.transport, flow.peer, flow.connection)
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

    use tokio::net::TcpListener;

    use super::door::CONNECTIONS_PER_ADDRESS_MAX;
    use super::*;
    use crate::io::tls::Pem;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn the_next_connection_of_a_full_address_is_closed_and_a_message_on_an_old_one_still_comes() {
        let (net, mut events) =
            Net::bind(Listeners { tcp: Some(LOOPBACK), ..Listeners::of_udp(LOOPBACK) }).await.unwrap();
        let to = net.bound.tcp.unwrap();
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
    const CARRIERS: &str = include_str!("../../tests/data/tls/carriers.pem");
    const CARRIER: (&str, &str) =
        (include_str!("../../tests/data/tls/carrier.pem"), include_str!("../../tests/data/tls/carrier.key"));

    async fn listening(pem: Pem<'_>) -> (Net, mpsc::Receiver<NetEvent>) {
        let certificate = Some(Tls::of_pem(pem).unwrap());
        Net::bind(Listeners { tls: Some(LOOPBACK), certificate, ..Listeners::of_udp(LOOPBACK) })
            .await
            .unwrap()
    }

    async fn secured(roots: Option<&str>) -> (Net, mpsc::Receiver<NetEvent>) {
        listening(Pem { certificate: CERTIFICATE, key: KEY, roots, ..Pem::default() }).await
    }

    /// An edge that takes certificates of carriers.
    async fn asking(clients_required: bool) -> (Net, mpsc::Receiver<NetEvent>) {
        let clients = Some(CARRIERS);
        listening(Pem { certificate: CERTIFICATE, key: KEY, clients, clients_required, ..Pem::default() })
            .await
    }

    fn secure(net: &Net) -> Flow {
        Flow { transport: Transport::Tls, peer: net.bound.tls.unwrap(), connection: 0 }
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
        let vouched = at_near.recv().await;
        assert!(
            matches!(vouched, Some(NetEvent::Vouched { names, dialled: true, .. }) if names == ["edge.example"])
        );
        let came = at_near.recv().await;
        assert!(
            matches!(came, Some(NetEvent::Bytes(from, bytes)) if bytes == b"200" && from.peer == far.bound.tls.unwrap())
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
    async fn a_carrier_shows_its_certificate_to_who_asks_and_its_names_come_before_its_first_byte() {
        let (certificate, key) = CARRIER;
        for clients_required in [false, true] {
            let (far, mut at_far) = asking(clients_required).await;
            let roots = Some(ROOTS);
            let (mut near, _at_near) = listening(Pem { certificate, key, roots, ..Pem::default() }).await;
            near.send(secure(&far), b"OPTIONS".to_vec());
            let Some(NetEvent::Opened(flow, _writer)) = at_far.recv().await else { panic!("opened first") };
            let Some(NetEvent::Vouched { flow: of, names, dialled: false }) = at_far.recv().await else {
                panic!("then vouched for")
            };
            assert_eq!(of, flow);
            // Those of hosts, and of a domain; who is somebody's user at a domain is not it.
            assert_eq!(names, ["carrier.example", "sip.carrier.example"]);
            assert!(matches!(at_far.recv().await, Some(NetEvent::Bytes(_, bytes)) if bytes == b"OPTIONS"));
        }
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_here_vouches_for_is_not_shown_and_none_is_enough_for_a_phone() {
        for (clients_required, taken) in [(false, true), (true, false)] {
            let (far, mut at_far) = asking(clients_required).await;
            // Its certificate is of another authority than those that are asked for.
            let (mut near, mut at_near) = secured(Some(ROOTS)).await;
            near.send(secure(&far), b"OPTIONS".to_vec());
            if taken {
                let Some(NetEvent::Opened(_, _writer)) = at_far.recv().await else { panic!("opened first") };
                assert!(matches!(at_far.recv().await, Some(NetEvent::Bytes(..))), "nothing is vouched for");
            } else {
                while !matches!(at_near.recv().await, Some(NetEvent::Closed(_)) | None) {}
                assert!(at_far.try_recv().is_err());
                assert_eq!(far.counters().certificate, 1);
            }
        }
    }

    #[tokio::test]
    async fn a_certificate_of_another_authority_ends_the_handshake_and_is_counted() {
        let (far, mut at_far) = asking(false).await;
        let to = far.bound.tls.unwrap();
        let shown = tls::tests::shows_whatever_is_asked(CERTIFICATE, KEY, ROOTS);
        let mut stream = shown.connect("edge.example", TcpStream::connect(to).await.unwrap()).await.unwrap();
        let _ = stream.write_all(b"OPTIONS").await;
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        assert!(heard.is_empty());
        assert!(at_far.try_recv().is_err());
        assert_eq!(far.counters(), NetCounters { certificate: 1, ..NetCounters::default() });
    }

    #[tokio::test]
    async fn a_connection_that_is_refused_is_told_of_as_the_flow_that_asked_for_it() {
        let (mut net, mut events) = Net::bind(Listeners::of_udp(LOOPBACK)).await.unwrap();
        let nobody = TcpListener::bind(LOOPBACK).await.unwrap();
        let asked = Flow { transport: Transport::Tcp, peer: nobody.local_addr().unwrap(), connection: 0 };
        drop(nobody);
        net.send(asked, b"INVITE".to_vec());
        let Some(NetEvent::Closed(numbered)) = events.recv().await else { panic!("closed") };
        assert_ne!(numbered, asked);
        assert!(matches!(events.recv().await, Some(NetEvent::Closed(flow)) if flow == asked));
    }

    #[tokio::test]
    async fn a_peer_that_connects_from_where_it_listens_ends_no_connection_of_ours_to_it() {
        let (mut net, mut events) =
            Net::bind(Listeners { tcp: Some(LOOPBACK), ..Listeners::of_udp(LOOPBACK) }).await.unwrap();
        // Its number is what such a connection would have; a second socket cannot have the port.
        let far = TcpListener::bind(LOOPBACK).await.unwrap();
        let flow = Flow { transport: Transport::Tcp, peer: far.local_addr().unwrap(), connection: 0 };
        net.send(flow, b"REGISTER".to_vec());
        let (mut carried, _) = far.accept().await.unwrap();
        let (writer, mut theirs) = mpsc::channel(1);
        let accepted = Flow { connection: 9, ..flow };
        net.opened(accepted, writer);
        net.send(accepted, b"200".to_vec());
        assert_eq!(theirs.recv().await.unwrap(), b"200");
        net.closed(accepted);
        net.send(flow, b"PING".to_vec());
        let mut heard = [0; 12];
        carried.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"REGISTERPING");
        assert!(events.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_is_sent_to_a_peer_whose_connection_is_open_reuses_it() {
        let (mut net, mut events) =
            Net::bind(Listeners { tcp: Some(LOOPBACK), ..Listeners::of_udp(LOOPBACK) }).await.unwrap();
        let mut phone = TcpStream::connect(net.bound.tcp.unwrap()).await.unwrap();
        let Some(NetEvent::Opened(flow, writer)) = events.recv().await else { panic!("opened") };
        net.opened(flow, writer);
        for connection in [flow.connection, 0] {
            net.send(Flow { connection, ..flow }, b"OPTIONS".to_vec());
            let mut heard = [0; 7];
            phone.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"OPTIONS");
        }
        assert!(events.try_recv().is_err(), "no other connection was made");
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
        let mut stranger = TcpStream::connect(net.bound.tls.unwrap()).await.unwrap();
        stranger.write_all(b"OPTIONS sip:edge SIP/2.0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // An alert, or nothing: never SIP.
        let _ = stranger.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"SIP"));
        assert!(events.try_recv().is_err());
    }
}
