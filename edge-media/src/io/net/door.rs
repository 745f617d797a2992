//! Lets connections in: a place for each, the handshakes that its listener wants, and then the
//! task that carries it. A handshake that fails or takes too long costs its place for seconds
//! and reaches nobody. It reads no SIP.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{CONNECTIONS_MAX, NetEvent, WRITES_MAX, carry_stream, ws};
use crate::io::tls::{Tls, TlsStream, certificate_fault, names};
use crate::sip::{Flow, Transport};

/// Of all connections, at most so many from one address, or one stranger who says nothing would
/// keep every trunk and phone out. Phones of a whole office may share an address.
pub(super) const CONNECTIONS_PER_ADDRESS_MAX: usize = CONNECTIONS_MAX / 4;

/// Who connects speaks first (RFC 3261 section 18), and at once: a connection without a first
/// byte for this long is a scanner's.
pub(super) const FIRST_BYTE_MAX: Duration = Duration::from_secs(15);

/// A handshake takes two round trips; who needs longer holds a place for nothing. TLS and the
/// upgrade to a WebSocket share it.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// How many connections ended before SIP began, by what was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// The edge, or their address, had no place left.
    pub no_place: u64,
    /// TLS failed.
    pub tls: u64,
    /// Their certificate is not vouched for, is out of its time, or is missing where all must
    /// have one.
    pub certificate: u64,
    /// What came was no upgrade to a WebSocket that speaks SIP.
    pub upgrade: u64,
    /// A handshake was not over in time.
    pub too_slow: u64,
}

/// The same, counted by the tasks.
#[derive(Debug, Default)]
pub(super) struct Refused {
    no_place: AtomicU64,
    tls: AtomicU64,
    certificate: AtomicU64,
    told: Mutex<Option<Instant>>,
    upgrade: AtomicU64,
    too_slow: AtomicU64,
}

impl Refused {
    pub(super) fn counted(&self) -> NetCounters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetCounters {
            no_place: of(&self.no_place),
            tls: of(&self.tls),
            certificate: of(&self.certificate),
            upgrade: of(&self.upgrade),
            too_slow: of(&self.too_slow),
        }
    }

    /// A handshake failed. A bad certificate is told of, because somebody wants to talk to us and
    /// cannot; not each time, because anybody can show one.
    fn handshake(&self, error: &std::io::Error) {
        let Some(fault) = certificate_fault(error) else {
            debug!(%error, "a TLS handshake failed");
            return count(&self.tls);
        };
        count(&self.certificate);
        let now = Instant::now();
        if let Ok(mut told) = self.told.lock()
            && told.is_none_or(|at| now.duration_since(at) >= TELL_EVERY)
        {
            *told = Some(now);
            warn!(
                fault,
                "a certificate is not accepted: see tls_client_ca_file, and the far end's certificate"
            );
        }
    }
}

/// Between two lines of the log about bad certificates.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// One more of them.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A listener, and what its connections go through first.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) transport: Transport,
    pub(super) next: Arc<AtomicU64>,
    pub(super) tls: watch::Receiver<Option<Tls>>,
    pub(super) refused: Arc<Refused>,
    pub(super) events: mpsc::Sender<NetEvent>,
}

/// One connection on its way in.
struct Guest {
    stream: TcpStream,
    flow: Flow,
    tls: Option<Tls>,
    refused: Arc<Refused>,
    events: mpsc::Sender<NetEvent>,
}

impl Door {
    /// Lets connections in until the task is ended.
    pub(super) async fn accept(self) {
        let open = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        let mut places = Places::default();
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else {
                // Descriptors are used up: wait for some to come back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let permit = Arc::clone(&open).try_acquire_owned().ok();
            let (Some(permit), Some(place)) = (permit, places.take(peer.ip().to_canonical())) else {
                debug!("no place for a connection: refused");
                count(&self.refused.no_place);
                continue;
            };
            let guest = self.guest(stream, peer);
            tokio::spawn(async move {
                let _held = (permit, place);
                guest.welcome().await;
            });
        }
    }

    fn guest(&self, stream: TcpStream, peer: SocketAddr) -> Guest {
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        Guest {
            stream,
            flow: Flow { transport: self.transport, peer, connection },
            tls: self.tls.borrow().clone(),
            refused: Arc::clone(&self.refused),
            events: self.events.clone(),
        }
    }
}

impl Guest {
    /// The handshakes, and then what the connection carries, to its end.
    async fn welcome(self) {
        let Self { stream, flow, tls, refused, events } = self;
        let by = Instant::now() + HANDSHAKE_MAX;
        match (flow.transport, tls) {
            (Transport::Udp | Transport::Tcp, _) => carry(stream, flow, Vec::new(), events).await,
            (Transport::Ws, _) => upgrade(stream, flow, by, &refused, events).await,
            (Transport::Tls, Some(tls)) => {
                if let Some(stream) = secure(tls.accept(stream), by, &refused).await {
                    let names = names(&stream);
                    carry(stream, flow, names, events).await;
                }
            }
            (Transport::Wss, Some(tls)) => {
                if let Some(stream) = secure(tls.accept_browser(stream), by, &refused).await {
                    upgrade(stream, flow, by, &refused, events).await;
                }
            }
            // A reload took the certificate away.
            (Transport::Tls | Transport::Wss, None) => {}
        }
    }
}

async fn secure(
    handshake: impl Future<Output = std::io::Result<TlsStream>>,
    by: Instant,
    refused: &Refused,
) -> Option<TlsStream> {
    match tokio::time::timeout_at(by, handshake).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => refused.handshake(&error),
        Err(_) => count(&refused.too_slow),
    }
    None
}

/// What a connection carries, once its certificate is told of, if there is one.
async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    flow: Flow,
    names: Vec<String>,
    events: mpsc::Sender<NetEvent>,
) {
    let (writer, writes) = mpsc::channel(WRITES_MAX);
    if events.send(NetEvent::Opened(flow, writer)).await.is_err() {
        return;
    }
    if !names.is_empty() && events.send(NetEvent::Vouched { flow, names, dialled: false }).await.is_err() {
        return;
    }
    carry_stream(stream, flow, FIRST_BYTE_MAX, writes, events).await;
}

async fn upgrade(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    flow: Flow,
    by: Instant,
    refused: &Refused,
    events: mpsc::Sender<NetEvent>,
) {
    let socket = match tokio::time::timeout_at(by, ws::upgrade(stream)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(_)) => return count(&refused.upgrade),
        Err(_) => return count(&refused.too_slow),
    };
    let (writer, writes) = mpsc::channel(WRITES_MAX);
    if events.send(NetEvent::Opened(flow, writer)).await.is_ok() {
        ws::carry(socket, flow, ws::WATCH, writes, events).await;
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
