//! The addresses behind the names of fixed phones. The SIP machine asks no DNS; here the names
//! are looked up at the start, at each reload and again while the process runs, and the edge
//! is told the whole table whenever it changed. Address records only: whoever is found by
//! NAPTR or SRV (RFC 3263 section 4) needs the name of the host itself in the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use handoff::clock::Now;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::config::{Config, Problem};
use crate::io::Order;
use crate::io::clock::Clock;
use crate::sip::is_reachable;

/// Names are looked up again after this long. Shorter follows a phone that moves sooner,
/// longer asks less of the name server.
const REFRESH: Duration = Duration::from_secs(60);

/// One look-up takes at most this long: the time in which a resolver tries its first server.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// Look-ups at once. The system resolver goes on after [`LOOKUP_MAX`] on a thread of its own
/// for about half a minute, so this also bounds the threads that a dead name server costs.
const LOOKUPS_AT_ONCE: usize = 4;

/// An address is used for this long after its name stopped resolving, as RFC 8767 section 5
/// suggests: a name server that is down takes nobody off the phone for a day.
const STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// SIP's port where a URI names none (RFC 3261 section 19.1.2).
const SIP_PORT: u16 = 5_060;

/// Looks names up until the edge is gone.
pub(super) async fn keep(
    mut config: watch::Receiver<Arc<Config>>,
    clock: Clock,
    orders: mpsc::Sender<Order>,
) {
    let mut names = Names::default();
    loop {
        let current = Arc::clone(&config.borrow_and_update());
        let wanted = names_of(&current);
        let mut changed = names.retain(&wanted);
        let mut found = look_up(wanted, &current);
        loop {
            if changed && orders.send(Order::Resolved(names.table())).await.is_err() {
                return;
            }
            let Some((host, address)) = found.next().await else { break };
            changed = names.learn(clock.now(), host, address);
        }
        drop(found);
        tokio::select! {
            reloaded = config.changed() => if reloaded.is_err() { return },
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
}

/// What is doubtful about the names in a configuration, now and from this machine.
pub async fn doubts(config: &Config) -> Vec<Problem> {
    let lost: BTreeSet<String> = look_up(names_of(config), config)
        .filter_map(|(host, address)| std::future::ready(address.is_none().then_some(host)))
        .collect()
        .await;
    let phones = config.fixed_phones().filter(|phone| lost.contains(&phone.host));
    phones
        .map(|phone| Problem {
            line: Some(phone.line),
            message: format!("uri: \"{}\" does not resolve: nobody can be rung there", phone.host),
        })
        .collect()
}

/// The hosts of fixed phones that are names.
fn names_of(config: &Config) -> BTreeSet<String> {
    let hosts = config.fixed_phones().map(|phone| &phone.host);
    hosts.filter(|host| host.parse::<IpAddr>().is_err()).cloned().collect()
}

/// Each name with an address that can be dialled from here, as the answers come.
fn look_up(
    names: BTreeSet<String>,
    config: &Config,
) -> impl stream::Stream<Item = (String, Option<IpAddr>)> + Unpin + use<> {
    let (ours, loopback) = (config.edge.public_ip, config.edge.allow_loopback);
    let usable = move |ip: &IpAddr| ip.is_ipv4() == ours.is_ipv4() && is_reachable(*ip, loopback);
    let one = move |host: String| async move {
        let answer = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((host.as_str(), SIP_PORT)));
        let address = match answer.await {
            Ok(Ok(addresses)) => addresses.map(|address| address.ip()).find(usable),
            Ok(Err(_)) | Err(_) => None,
        };
        (host, address)
    };
    Box::pin(stream::iter(names).map(one).buffer_unordered(LOOKUPS_AT_ONCE))
}

/// What is known of each name.
#[derive(Debug, Default)]
struct Names {
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    /// The last address, and when it was confirmed.
    address: Option<(IpAddr, Now)>,
    /// Whether the last look-up failed.
    missing: bool,
}

impl Names {
    /// Forgets all other names. Whether there were any.
    fn retain(&mut self, wanted: &BTreeSet<String>) -> bool {
        let before = self.known.len();
        self.known.retain(|host, _| wanted.contains(host));
        self.known.len() != before
    }

    /// Takes one answer, and says whether the table is another now. Only changes are logged.
    fn learn(&mut self, now: Now, host: String, found: Option<IpAddr>) -> bool {
        let before = self.known.remove(&host).unwrap_or(Known { address: None, missing: false });
        let kept = before.address.filter(|(_, confirmed)| now.since(*confirmed) < STALE_MAX);
        let address = found.map(|address| (address, now)).or(kept);
        let (old, new) = (before.address.map(|(ip, _)| ip), address.map(|(ip, _)| ip));
        match new {
            Some(address) if found.is_some() && (old != new || before.missing) => {
                info!(host, %address, "the name of a phone resolves");
            }
            Some(address) if found.is_none() && !before.missing => {
                warn!(host, %address, "the name of a phone does not resolve now: its last address is used");
            }
            None if old.is_some() || !before.missing => {
                warn!(host, "the name of a phone does not resolve: nobody can be rung there");
            }
            Some(_) | None => {}
        }
        self.known.insert(host, Known { address, missing: found.is_none() });
        old != new
    }

    fn table(&self) -> Vec<(String, SocketAddr)> {
        let address = |known: &Known| known.address.map(|(ip, _)| SocketAddr::new(ip, SIP_PORT));
        self.known.iter().filter_map(|(host, known)| Some((host.clone(), address(known)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "192.0.2.7";
    const SECOND: &str = "192.0.2.8";

    #[test]
    fn an_address_outlives_its_name_for_a_day() {
        let mut names = Names::default();
        let day = STALE_MAX.as_millis() as u64;
        for (at, found, changed, table) in [
            (0, None, false, None),
            (1, Some(FIRST), true, Some(FIRST)),
            (2, Some(FIRST), false, Some(FIRST)),
            (3, None, false, Some(FIRST)),
            (4, Some(SECOND), true, Some(SECOND)),
            (day + 3, None, false, Some(SECOND)),
            (day + 4, None, true, None),
            (day + 5, None, false, None),
            (day + 6, Some(FIRST), true, Some(FIRST)),
        ] {
            let found = found.map(|ip| ip.parse().unwrap());
            assert_eq!(names.learn(Now::from_millis(at), "pbx.example".to_owned(), found), changed, "{at}");
            let expected = table.map(|ip| ("pbx.example".to_owned(), format!("{ip}:5060").parse().unwrap()));
            assert_eq!(names.table(), Vec::from_iter(expected), "{at}");
        }
    }

    #[test]
    fn a_name_that_is_configured_no_longer_leaves_the_table() {
        let mut names = Names::default();
        names.learn(Now::ZERO, "old.example".to_owned(), Some(FIRST.parse().unwrap()));
        let wanted = BTreeSet::from(["new.example".to_owned()]);
        assert!(names.retain(&wanted));
        assert!(!names.retain(&wanted));
        assert_eq!(names.table(), []);
    }

    /// One registered phone, one at each of these URIs.
    fn config(uris: &[&str]) -> Config {
        let mut text = r#"
[edge]
id = "edge-1"
tenant = "t_acme"
sip_udp = "127.0.0.1:0"
http = "127.0.0.1:0"
public_ip = "127.0.0.1"
public_url = "https://handoff.example"
allow_loopback = true
[[trunk]]
name = "carrier"
addresses = ["127.0.0.2/32"]
[voice_agent]
url = "ws://127.0.0.1:9/media"
[[queue]]
id = "queue_nurse"
label = "Nurse line"
spoken = "dest.nurse"
agents = ["agent_0"]
[policy]
file = "policy.toml"
"#
        .to_owned();
        for (number, uri) in uris.iter().enumerate() {
            text +=
                &format!("[[agent]]\nid = \"agent_{number}\"\nname = \"Agent {number}\"\nuri = \"{uri}\"\n");
        }
        Config::parse(&text, &|_| Ok(String::new())).unwrap()
    }

    // The two names need no name server: one is in every hosts file, the other can be in none.
    #[tokio::test]
    async fn the_edge_is_told_what_resolves_and_again_after_a_reload() {
        let (sender, watched) = watch::channel(Arc::new(config(&["sip:a@localhost", "sip:b@name.invalid"])));
        let (orders, mut told) = mpsc::channel(4);
        let task = tokio::spawn(keep(watched, Clock::start(), orders));
        let table = |order: Option<Order>| match order {
            Some(Order::Resolved(table)) => table,
            Some(Order::Servers(_)) => panic!("a table"),
            Some(Order::Reload(_) | Order::Drain(_) | Order::Answer(_) | Order::Stop) | None => {
                panic!("a table")
            }
        };
        let localhost = ("localhost".to_owned(), "127.0.0.1:5060".parse().unwrap());
        assert_eq!(table(told.recv().await), [localhost]);
        sender.send_replace(Arc::new(config(&["sip:a@127.0.0.1", "sip:b@name.invalid"])));
        assert_eq!(table(told.recv().await), []);
        drop(sender);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_check_names_the_line_of_a_name_that_does_not_resolve() {
        let config = config(&["sip:a@localhost", "sip:b@name.invalid", "sip:c@127.0.0.1"]);
        let doubts: Vec<String> = doubts(&config).await.iter().map(ToString::to_string).collect();
        assert_eq!(doubts, ["line 29: uri: \"name.invalid\" does not resolve: nobody can be rung there"]);
    }
}
