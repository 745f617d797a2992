//! The only way out over HTTP: a client that refuses to be pointed at our own network. A
//! URL is checked when it is configured and again at every send; its name is resolved once,
//! refused if any of its addresses is not public, and the connection goes to the address
//! that was checked. Redirects are not followed, and answers are read up to a limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::Url;

/// Largest answer that is read. A receiver's answer is a word or two.
pub const ANSWER_MAX: usize = 64 * 1024;

/// A connection is made in this time or not at all: a live try has two seconds in all.
pub const CONNECT_MAX: Duration = Duration::from_millis(500);

/// Why a request was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a URL, or with user name, password or fragment.
    #[error("not a plain URL")]
    Malformed,
    /// Not `https`.
    #[error("only https is allowed")]
    NotHttps,
    /// Another port than 443.
    #[error("port {0} is not allowed")]
    Port(u16),
    /// The name does not resolve.
    #[error("the name does not resolve")]
    Unresolved,
    /// At least one address is private, loopback, link-local, multicast or the like.
    #[error("the name leads to an address that is not public")]
    NotPublic,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Answered {
        /// HTTP status.
        status: u16,
        /// `Retry-After` in seconds, where given.
        retry_after_s: Option<u64>,
        /// At most [`ANSWER_MAX`] bytes.
        body: Vec<u8>,
    },
    /// Nobody answered in time, or the connection broke.
    Unreachable,
}

/// Sends one POST to `url` within `limit`, to addresses that are public or in `allowed`.
pub async fn post(
    url: &str,
    allowed: &[IpNet],
    headers: &[(&str, String)],
    body: Vec<u8>,
    limit: Duration,
) -> Result<Reply, Refused> {
    let parsed = parse(url)?;
    let host = parsed.host_str().ok_or(Refused::Malformed)?.trim_matches(['[', ']']).to_owned();
    let port = parsed.port_or_known_default().ok_or(Refused::Malformed)?;
    let started = tokio::time::Instant::now();
    let resolved = tokio::time::timeout(limit, tokio::net::lookup_host((host.as_str(), port))).await;
    let Ok(Ok(addresses)) = resolved else { return Err(Refused::Unresolved) };
    let address = choose(&parsed, addresses.collect(), allowed)?;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_MAX)
        .no_proxy()
        .resolve(&host, address)
        .build()
        .map_err(|_| Refused::Malformed)?;
    let mut request = client.post(parsed).body(body).timeout(limit.saturating_sub(started.elapsed()));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let Ok(mut answer) = request.send().await else { return Ok(Reply::Unreachable) };
    let status = answer.status().as_u16();
    let retry_after_s = answer
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    let mut body = Vec::new();
    // A body that drips or does not end is cut: the status has been said.
    while let Ok(Some(chunk)) = answer.chunk().await {
        let room = ANSWER_MAX - body.len();
        body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
        if body.len() == ANSWER_MAX {
            break;
        }
    }
    Ok(Reply::Answered { status, retry_after_s, body })
}

/// Checks what can be checked without resolving the name.
pub fn check(url: &str, allowed: &[IpNet]) -> Result<(), Refused> {
    let parsed = parse(url)?;
    let literal = parsed.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    match literal {
        Some(ip) => {
            let port = parsed.port_or_known_default().ok_or(Refused::Malformed)?;
            choose(&parsed, vec![SocketAddr::new(ip, port)], allowed).map(|_| ())
        }
        // A destination with an allow-list may have any port and plain HTTP there; whether
        // its name leads there is known at the send.
        None if !allowed.is_empty() => Ok(()),
        None => public_form(&parsed),
    }
}

fn parse(url: &str) -> Result<Url, Refused> {
    let parsed = Url::parse(url).map_err(|_| Refused::Malformed)?;
    let plain = parsed.username().is_empty() && parsed.password().is_none() && parsed.fragment().is_none();
    let web = matches!(parsed.scheme(), "https" | "http") && parsed.has_host();
    if plain && web { Ok(parsed) } else { Err(Refused::Malformed) }
}

fn public_form(url: &Url) -> Result<(), Refused> {
    if url.scheme() != "https" {
        return Err(Refused::NotHttps);
    }
    match url.port_or_known_default() {
        Some(443) => Ok(()),
        port => Err(Refused::Port(port.unwrap_or(0))),
    }
}

/// All addresses must be allowed by name, or all public: a name that leads to both is a
/// rebinding in the making.
fn choose(url: &Url, addresses: Vec<SocketAddr>, allowed: &[IpNet]) -> Result<SocketAddr, Refused> {
    let first = *addresses.first().ok_or(Refused::Unresolved)?;
    let listed = |address: &SocketAddr| allowed.iter().any(|net| net.contains(&address.ip()));
    if addresses.iter().all(listed) {
        return Ok(first);
    }
    if !addresses.iter().all(|address| is_public(address.ip())) {
        return Err(Refused::NotPublic);
    }
    public_form(url)?;
    Ok(first)
}

/// Globally reachable unicast. IPv4 inside IPv6 (mapped, compatible, NAT64, 6to4, Teredo)
/// is judged by what it leads to, or refused.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (18..20).contains(&b);
    let relay = a == 192 && b == 88 && c == 99;
    !(a == 0
        || a >= 240
        || shared
        || protocol
        || benchmark
        || relay
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || ip.is_broadcast())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let embedded = |high: u16, low: u16| {
        let [w, x] = high.to_be_bytes();
        let [y, z] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => embedded(g, h),
        (0x2002, ..) => embedded(b, c),
        // Teredo, documentation, and everything that is not global unicast (2000::/3).
        (0x2001, 0 | 0xdb8, ..) => false,
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_our_own_network_are_refused_in_every_disguise() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://0.0.0.0/",
            "https://10.0.0.1/",
            "https://172.16.0.1/",
            "https://172.31.255.255/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.64.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://240.0.0.1/",
            "https://192.0.0.8/",
            "https://198.18.0.1/",
            "https://192.0.2.1/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[64:ff9b:1::1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001:0:4136:e378::1]/",
            "https://[fe80::1]/",
            "https://[fc00::1]/",
            "https://[fd00:ec2::254]/",
            "https://[ff02::1]/",
            "https://[2001:db8::1]/",
        ] {
            assert_eq!(check(url, &[]), Err(Refused::NotPublic), "{url}");
        }
    }

    #[test]
    fn only_plain_https_on_443_goes_out() {
        for (url, verdict) in [
            ("https://crm.example/hook", Ok(())),
            ("http://crm.example/hook", Err(Refused::NotHttps)),
            ("https://crm.example:8443/hook", Err(Refused::Port(8443))),
            ("https://user@crm.example/", Err(Refused::Malformed)),
            ("https://crm.example/#x", Err(Refused::Malformed)),
            ("ftp://crm.example/", Err(Refused::Malformed)),
            ("file:///etc/passwd", Err(Refused::Malformed)),
            ("gopher://crm.example/", Err(Refused::Malformed)),
            ("not a url", Err(Refused::Malformed)),
            ("https://1.1.1.1/", Ok(())),
            ("https://[2606:4700::1111]/", Ok(())),
        ] {
            assert_eq!(check(url, &[]), verdict, "{url}");
        }
    }

    #[test]
    fn a_listed_address_may_have_any_port_and_plain_http_and_no_other_may() {
        let allowed = ["127.0.0.1/32".parse().unwrap()];
        assert_eq!(check("http://127.0.0.1:8080/", &allowed), Ok(()));
        assert_eq!(check("http://127.0.0.2:8080/", &allowed), Err(Refused::NotPublic));
        assert_eq!(check("http://1.1.1.1:8080/", &allowed), Err(Refused::NotHttps));
    }

    #[test]
    fn a_name_that_leads_to_a_public_and_a_private_address_is_refused() {
        let url = Url::parse("https://crm.example/").unwrap();
        let addresses = ["1.1.1.1:443", "10.0.0.1:443"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(choose(&url, addresses, &[]), Err(Refused::NotPublic));
    }

    #[tokio::test]
    async fn a_name_is_checked_again_when_it_is_resolved() {
        // `localhost` passes the form check and fails where it leads.
        assert_eq!(check("https://localhost/", &[]), Ok(()));
        let sent = post("https://localhost/", &[], &[], Vec::new(), Duration::from_secs(1)).await;
        assert_eq!(sent, Err(Refused::NotPublic));
    }
}
