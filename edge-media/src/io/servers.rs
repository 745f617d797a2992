//! The addresses of trunks' servers: looked up at the start, at each reload and again while the
//! process runs, and told to the edge in the order in which they are to be tried. A look-up
//! that finds nothing is told as nothing, and the edge keeps what it had. A name without a port
//! is looked for by NAPTR and SRV first, and by its address records where it has none of these
//! (RFC 3263 section 4).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tracing::warn;

use crate::config::{Config, Trunk};
use crate::io::Order;
use crate::io::dns::Dns;
use crate::sip::{Server, in_order, is_located, is_reachable, service_name};

/// Names are looked up again after this long, as those of phones are.
const REFRESH: Duration = Duration::from_secs(60);

/// Names of which nothing is known yet are asked for again after this long.
const RETRY: Duration = Duration::from_secs(10);

/// One look-up takes at most this long: the time in which a resolver tries its first server.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// Addresses of one trunk: all of its servers with a few each.
const ADDRESSES_MAX: usize = 16;

/// SIP's port where a server names none (RFC 3261 section 19.1.2).
const SIP_PORT: u16 = 5_060;

/// Looks servers up until the edge is gone; again whenever `reloaded` tells that the edge has
/// a new configuration, and not before it has.
pub(super) async fn keep(
    config: watch::Receiver<Arc<Config>>,
    reloaded: Arc<Notify>,
    orders: mpsc::Sender<Order>,
) {
    let Ok(seed) = getrandom::u64() else {
        warn!("the system has no randomness: trunks' servers are not looked up");
        return;
    };
    loop {
        let current = Arc::clone(&config.borrow());
        let mut servers = Vec::new();
        let mut missing = false;
        for trunk in current.trunks.iter().filter(|trunk| trunk.uplink.is_some()) {
            let found = servers_of(&current, trunk, seed).await;
            if found.is_empty() {
                warn!(trunk = trunk.name, "no server of the trunk resolves");
                missing = true;
            }
            servers.push((trunk.name.clone(), found));
        }
        if !servers.is_empty() && orders.send(Order::Servers(servers)).await.is_err() {
            return;
        }
        tokio::select! {
            () = orders.closed() => return,
            () = reloaded.notified() => {}
            () = tokio::time::sleep(if missing { RETRY } else { REFRESH }) => {}
        }
    }
}

/// The addresses of a trunk's servers, in the order of the configuration, then of their SRV
/// records, drawn by `seed`, and then of the answers; each once.
pub async fn servers_of(config: &Config, trunk: &Trunk, seed: u64) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    // What the machine is configured with may have changed since the last time.
    let dns = Dns::of_system();
    for server in trunk.uplink.iter().flat_map(|uplink| &uplink.servers) {
        for server in located(&dns, server, seed).await {
            for address in look_up(config, &server).await {
                if !found.contains(&address) && found.len() < ADDRESSES_MAX {
                    found.push(address);
                }
            }
        }
    }
    found
}

/// The servers behind one of the configuration: itself, or what its domain names.
async fn located(dns: &Dns, server: &Server, seed: u64) -> Vec<Server> {
    if !is_located(server) {
        return vec![server.clone()];
    }
    let name = service_name(&server.host, &dns.naptr(&server.host).await);
    let servers = in_order(&dns.srv(&name).await, seed);
    if servers.is_empty() { vec![server.clone()] } else { servers }
}

async fn look_up(config: &Config, server: &Server) -> Vec<SocketAddr> {
    let (ours, loopback) = (config.edge.public_ip, config.edge.allow_loopback);
    let usable = |address: &SocketAddr| {
        address.ip().is_ipv4() == ours.is_ipv4() && is_reachable(address.ip(), loopback)
    };
    let port = server.port.unwrap_or(SIP_PORT);
    let answer = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((server.host.as_str(), port)));
    match answer.await {
        Ok(Ok(addresses)) => {
            let mut addresses: Vec<SocketAddr> = addresses.filter(usable).collect();
            // Answers rotate; what did not change must not look like a change.
            addresses.sort();
            addresses
        }
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}
