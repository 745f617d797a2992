//! Bound pairs of ports: random even ones out of a configured range, so that nobody guesses
//! the next one. A port is bound before it is advertised, and stays bound in quarantine after
//! its leg, so that a late stream of one call never reaches another.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;

use socket2::{Domain, Protocol, Socket, Type};

use crate::media::Port;

/// Random places that are tried before the range is searched in order.
const RANDOM_TRIES: usize = 32;
/// Room for 200 ms of packets of a leg; what waits longer is too late to be played anyway.
const RECEIVE_BUFFER: usize = 64 * 1_024;
/// Expedited forwarding (RFC 3246), where the network honours it.
const TOS_EXPEDITED: u32 = 0xb8;

/// Why no port could be bound.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// All are in use or in quarantine.
    #[error("every port of the configured media range is in use")]
    Exhausted,
    /// Not even one may be opened.
    #[error("a media port could not be opened")]
    Refused(#[source] std::io::Error),
}

/// RTP and RTCP of one leg.
#[derive(Debug)]
pub(super) struct PortSockets {
    pub(super) rtp: UdpSocket,
    pub(super) rtcp: UdpSocket,
}

#[derive(Debug)]
pub(super) struct PortPool {
    ip: IpAddr,
    /// The first even port, and how many pairs follow.
    first: u16,
    pairs: u16,
    stock: BTreeMap<Port, PortSockets>,
}

impl PortPool {
    pub(super) fn new(ip: IpAddr, range: RangeInclusive<u16>) -> Self {
        let first = range.start().next_multiple_of(2);
        let pairs = (u32::from(*range.end()) + 1).saturating_sub(u32::from(first)) / 2;
        Self { ip, first, pairs: pairs as u16, stock: BTreeMap::new() }
    }

    /// Binds one more pair into the stock.
    pub(super) fn bind(&mut self) -> Result<Port, PortError> {
        if self.pairs == 0 {
            return Err(PortError::Exhausted);
        }
        let random = || getrandom::u32().map_or(0, |bits| (bits % u32::from(self.pairs)) as u16);
        let start = random();
        let tries = (0..RANDOM_TRIES).map(|_| random());
        let search = (0..self.pairs).map(|step| (u32::from(start) + u32::from(step)) % u32::from(self.pairs));
        for place in tries.chain(search.map(|place| place as u16)) {
            let port = Port(self.first + place * 2);
            match pair(self.ip, port.0) {
                Ok(sockets) => {
                    self.stock.insert(port, sockets);
                    return Ok(port);
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(PortError::Refused(error)),
            }
        }
        Err(PortError::Exhausted)
    }

    /// Hands the sockets of a bound port over to their leg.
    pub(super) fn claim(&mut self, port: Port) -> Option<PortSockets> {
        self.stock.remove(&port)
    }
}

fn pair(ip: IpAddr, port: u16) -> std::io::Result<PortSockets> {
    Ok(PortSockets { rtp: bound(ip, port)?, rtcp: bound(ip, port + 1)? })
}

fn bound(ip: IpAddr, port: u16) -> std::io::Result<UdpSocket> {
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    // A network that forbids the marking still carries the packets.
    let _ = if ip.is_ipv4() { socket.set_tos_v4(TOS_EXPEDITED) } else { socket.set_tclass_v6(TOS_EXPEDITED) };
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn ports_are_even_distinct_and_end_with_the_range() {
        let mut pool = PortPool::new(Ipv4Addr::LOCALHOST.into(), 45_001..=45_010);
        let mut ports = Vec::new();
        while let Ok(port) = pool.bind() {
            ports.push(port.0);
        }
        ports.sort_unstable();
        assert!(ports.iter().all(|port| port % 2 == 0 && (45_002..=45_008).contains(port)), "{ports:?}");
        assert!(ports.len() <= 4 && ports.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(matches!(pool.bind(), Err(PortError::Exhausted)));
    }

    #[test]
    fn a_port_is_claimed_once() {
        let mut pool = PortPool::new(Ipv4Addr::LOCALHOST.into(), 45_100..=45_199);
        let port = pool.bind().unwrap();
        assert!(pool.claim(port).is_some());
        assert!(pool.claim(port).is_none());
    }
}
