//! In which order the servers behind a name are tried (RFC 3263 section 4, RFC 2782), from
//! records that somebody else has looked up. Over UDP alone, which is what is kept up with a
//! trunk. It asks no name server.

use sha2::{Digest as _, Sha256};

use super::uplink::Server;

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower is tried first.
    pub priority: u16,
    /// Share of the first tries among records of one priority.
    pub weight: u16,
    /// The server's port.
    pub port: u16,
    /// The server's name, without a dot at its end; empty where the service is not offered.
    pub target: String,
}

/// A NAPTR record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    /// Lower is taken first.
    pub order: u16,
    /// Lower is taken first among records of one order.
    pub preference: u16,
    /// What comes next; `s` is an SRV record.
    pub flags: String,
    /// Which service it is; `SIP+D2U` is SIP over UDP.
    pub services: String,
    /// The name to go on with, without a dot at its end.
    pub replacement: String,
}

/// Whether records are asked for: not where an address or a port says enough (section 4.2).
pub fn is_located(server: &Server) -> bool {
    server.port.is_none() && server.host.parse::<std::net::IpAddr>().is_err()
}

/// The name whose SRV records are asked for. Where a domain tells of SIP but not over UDP, the
/// usual name is as good a guess as any.
pub fn service_name(host: &str, naptr: &[Naptr]) -> String {
    let usable = naptr.iter().filter(|record| {
        record.flags.eq_ignore_ascii_case("s")
            && record.services.eq_ignore_ascii_case("SIP+D2U")
            && !record.replacement.is_empty()
    });
    let best = usable.min_by_key(|record| (record.order, record.preference));
    best.map_or_else(|| format!("_sip._udp.{host}"), |record| record.replacement.clone())
}

/// The servers in the order in which they are tried: by priority, and among equals drawn by
/// weight. The draw depends on `seed` and the server alone, so that the same records give one
/// edge the same order at every look-up, and other edges another.
pub fn in_order(records: &[Srv], seed: u64) -> Vec<Server> {
    let mut drawn: Vec<(u16, f64, &Srv)> = records
        .iter()
        // A lone root says that there is no such service here (RFC 2782).
        .filter(|record| !record.target.is_empty() && record.target != ".")
        .map(|record| (record.priority, lot(record, seed), record))
        .collect();
    drawn.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    let servers = drawn.into_iter().take(SERVERS_MAX);
    servers.map(|(_, _, record)| Server { host: record.target.clone(), port: Some(record.port) }).collect()
}

/// Servers of one name. A carrier has a handful; whoever sends more has something else in mind.
const SERVERS_MAX: usize = 16;

/// A waiting time with the weight as its rate: the shortest wins with the probability that RFC
/// 2782 wants, and so does the next among those that are left. No weight is a very small one.
fn lot(record: &Srv, seed: u64) -> f64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    hash.update(record.port.to_be_bytes());
    hash.update(record.target.to_ascii_lowercase());
    let drawn = hash.finalize().iter().take(6).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    // Never zero, so that the logarithm is finite.
    let uniform = (drawn as f64 + 1.0) / (1_u64 << 48) as f64;
    let weight = if record.weight == 0 { 1e-3 } else { f64::from(record.weight) };
    -uniform.ln() / weight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 5_060, target: target.to_owned() }
    }

    #[test]
    fn priorities_come_first_and_weights_share_the_first_try() {
        let records = [srv(20, 100, "last"), srv(10, 75, "big"), srv(10, 25, "small"), srv(10, 0, "none")];
        let mut first = [0_u32; 3];
        for seed in 0..4_000 {
            let order: Vec<String> = in_order(&records, seed).into_iter().map(|server| server.host).collect();
            assert_eq!((order.len(), order[3].as_str()), (4, "last"));
            let at = ["big", "small", "none"].iter().position(|name| *name == order[0]).unwrap();
            first[at] += 1;
            assert_eq!(
                order,
                in_order(&records, seed).into_iter().map(|server| server.host).collect::<Vec<_>>()
            );
        }
        assert!((2_850..3_150).contains(&first[0]) && (850..1_150).contains(&first[1]), "{first:?}");
        assert!(first[2] < 10, "{first:?}");
    }

    #[test]
    fn a_root_is_no_server_and_there_are_only_so_many() {
        assert_eq!(in_order(&[srv(0, 0, "."), srv(0, 0, "")], 1), []);
        let many: Vec<Srv> = (0..100).map(|n| srv(n, 1, &format!("s{n}"))).collect();
        assert_eq!(in_order(&many, 1).len(), SERVERS_MAX);
    }

    #[test]
    fn naptr_says_where_to_look_and_its_absence_says_nothing() {
        let record = |order, preference, flags: &str, services: &str, replacement: &str| Naptr {
            order,
            preference,
            flags: flags.to_owned(),
            services: services.to_owned(),
            replacement: replacement.to_owned(),
        };
        let records = [
            record(10, 10, "s", "SIPS+D2T", "_sips._tcp.a"),
            record(20, 20, "S", "sip+d2u", "_sip._udp.second"),
            record(20, 10, "s", "SIP+D2U", "_sip._udp.first"),
            record(5, 5, "u", "SIP+D2U", "_sip._udp.regexp"),
        ];
        assert_eq!(service_name("carrier.example", &records), "_sip._udp.first");
        assert_eq!(service_name("carrier.example", &records[..1]), "_sip._udp.carrier.example");
    }

    #[test]
    fn an_address_or_a_port_is_asked_nothing_about() {
        for (text, located) in [
            ("carrier.example", true),
            ("carrier.example:5060", false),
            ("192.0.2.1", false),
            ("[2001:db8::1]", false),
        ] {
            assert_eq!(is_located(&Server::parse(text).unwrap()), located, "{text}");
        }
    }
}
