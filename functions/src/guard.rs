//! Where a webhook may go. A URL is refused before it is resolved where its form is enough,
//! and after it where **any** of its addresses is private, special or a disguise of one. It
//! resolves and connects to nothing; `http` does, and connects only to what passed here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use reqwest::Url;

/// Ports that a destination on the public network may use.
const PORTS: &[u16] = &[443];

/// Longest URL: more is a mistake or an attack.
const URL_LEN_MAX: usize = 2_048;

/// Most addresses of one name that are looked at; a name with more is refused.
pub const ADDRESSES_MAX: usize = 16;

/// The destination is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Not a URL that names a host.
    #[error("not an absolute http(s) URL with a host")]
    BadUrl,
    /// A user name or password in the URL.
    #[error("credentials in a URL are refused")]
    Userinfo,
    /// Plain HTTP, or another scheme.
    #[error("only HTTPS is allowed")]
    Scheme,
    /// Not an allowed port.
    #[error("the port is not allowed")]
    Port,
    /// One of the addresses is private, special, or contains such a one.
    #[error("the address is private or special")]
    Address,
    /// The name has no address, or too many.
    #[error("the name has no usable address")]
    NoAddress,
}

/// A URL that passed the checks of its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The URL.
    pub url: Url,
    /// Its host, without brackets.
    pub host: String,
    /// Its port, explicit or by scheme.
    pub port: u16,
}

/// Checks the form of a URL. Scheme and port are judged with the addresses, because listed
/// private addresses may use any.
pub fn check_url(text: &str) -> Result<Target, Forbidden> {
    if text.len() > URL_LEN_MAX {
        return Err(Forbidden::BadUrl);
    }
    let url = Url::parse(text).map_err(|_| Forbidden::BadUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Forbidden::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Forbidden::Userinfo);
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Forbidden::BadUrl)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default().ok_or(Forbidden::BadUrl)?;
    Ok(Target { url, host, port })
}

/// Checks everything else, for all addresses of the target's name at once.
pub fn check_addresses(
    target: &Target,
    addresses: &[IpAddr],
    allow_private: &[IpNet],
) -> Result<(), Forbidden> {
    if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
        return Err(Forbidden::NoAddress);
    }
    let listed = |address: &IpAddr| allow_private.iter().any(|net| net.contains(address));
    if addresses.iter().all(listed) {
        return Ok(());
    }
    check_public_form(target)?;
    if addresses.iter().all(|address| is_public(*address)) { Ok(()) } else { Err(Forbidden::Address) }
}

fn check_public_form(target: &Target) -> Result<(), Forbidden> {
    if target.url.scheme() != "https" {
        return Err(Forbidden::Scheme);
    }
    if PORTS.contains(&target.port) { Ok(()) } else { Err(Forbidden::Port) }
}

/// Checks a destination when it is configured, as far as its text tells: where a name leads
/// is known at the send, and is judged at every one.
pub fn check_configured(text: &str, allow_private: &[IpNet]) -> Result<(), Forbidden> {
    let target = check_url(text)?;
    match target.host.parse::<IpAddr>() {
        Ok(address) => check_addresses(&target, &[address], allow_private),
        Err(_) if allow_private.is_empty() => check_public_form(&target),
        Err(_) => Ok(()),
    }
}

/// Whether an address is an ordinary one of the public network.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

// The special-purpose registries of IANA (RFC 6890 and its updates).
const fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [first, second, ..] = segments;
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4-mapped, IPv4-translated and the well-known NAT64 prefix: judged by the IPv4
        // address that they reach.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => embedded(high, low),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4 carries the IPv4 address behind its prefix.
        [0x2002, high, low, ..] => embedded(high, low),
        // Everything that is public lies in 2000::/3, except what is reserved there:
        // 2001::/23 (Teredo, ORCHID and other protocols) and documentation.
        _ => {
            first & 0xe000 == 0x2000
                && !(first == 0x2001 && second < 0x0200)
                && !(first == 0x2001 && second == 0x0db8)
                && first != 0x3fff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an attacker may write into a destination; all are refused before or after the
    /// name is resolved. Names stand for a resolver that the attacker controls.
    const HOSTILE: [&str; 36] = [
        "http://crm.example/",
        "ftp://crm.example/",
        "file:///etc/passwd",
        "gopher://crm.example/",
        "https://",
        "https://user:pass@8.8.8.8/",
        "https://user@8.8.8.8/",
        "https://8.8.8.8:22/",
        "https://8.8.8.8:8443/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://0.0.0.0/",
        "https://10.0.0.1/",
        "https://172.16.5.4/",
        "https://172.31.255.255/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://192.0.0.192/",
        "https://198.18.0.1/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://240.0.0.1/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[64:ff9b::a00:1]/",
        "https://[fd00:ec2::254]/",
        "https://[fe80::1]/",
        "https://[ff02::1]/",
        "https://[2002:7f00:1::]/",
        "https://[::127.0.0.1]/",
    ];

    fn judge(url: &str, addresses: &[&str], allow: &[&str]) -> Result<(), Forbidden> {
        let target = check_url(url)?;
        let literal = target.host.parse::<IpAddr>().ok();
        let addresses: Vec<IpAddr> = match literal {
            Some(address) => vec![address],
            None => addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        let allow: Vec<IpNet> = allow.iter().map(|net| net.parse().unwrap()).collect();
        check_addresses(&target, &addresses, &allow)
    }

    #[test]
    fn every_hostile_url_is_refused() {
        for url in HOSTILE {
            assert!(judge(url, &["8.8.8.8"], &[]).is_err(), "{url}");
        }
    }

    #[test]
    fn what_a_url_tells_by_itself_is_refused_when_it_is_configured() {
        for url in HOSTILE {
            assert!(check_configured(url, &[]).is_err(), "{url}");
        }
        let allow = ["127.0.0.1/32".parse().unwrap()];
        assert_eq!(check_configured("https://crm.example/hook", &[]), Ok(()));
        assert_eq!(check_configured("http://127.0.0.1:8099/hook", &allow), Ok(()));
        assert_eq!(check_configured("http://crm.local:8099/hook", &allow), Ok(()));
        assert!(check_configured("http://10.0.0.1/hook", &allow).is_err());
    }

    #[test]
    fn one_private_address_among_many_is_enough() {
        let url = "https://crm.example/hook";
        assert_eq!(judge(url, &["8.8.8.8", "2606:4700::1111"], &[]), Ok(()));
        for address in ["10.0.0.1", "127.0.0.1", "::1", "64:ff9b::7f00:1", "2001:db8::1", "2001::1", "100::1"]
        {
            assert_eq!(judge(url, &["8.8.8.8", address], &[]), Err(Forbidden::Address), "{address}");
        }
        assert_eq!(judge(url, &[], &[]), Err(Forbidden::NoAddress));
        assert_eq!(judge(url, &["8.8.8.8"; ADDRESSES_MAX + 1], &[]), Err(Forbidden::NoAddress));
    }

    #[test]
    fn a_listed_address_opens_any_port_and_plain_http_but_only_itself() {
        let allow = ["127.0.0.1/32"];
        assert_eq!(judge("http://127.0.0.1:8099/hook", &[], &allow), Ok(()));
        assert_eq!(judge("http://crm.local:8099/hook", &["127.0.0.1"], &allow), Ok(()));
        assert_eq!(
            judge("http://crm.local/hook", &["127.0.0.1", "10.0.0.1"], &allow),
            Err(Forbidden::Scheme)
        );
        assert_eq!(
            judge("https://crm.local/hook", &["127.0.0.1", "10.0.0.1"], &allow),
            Err(Forbidden::Address)
        );
        assert_eq!(judge("http://127.0.0.2:8099/hook", &[], &allow), Err(Forbidden::Scheme));
        assert_eq!(judge("http://u@127.0.0.1/", &[], &allow), Err(Forbidden::Userinfo));
    }
}
