//! Session descriptions as typed values (RFC 8866), the façade over the foreign parser: the
//! only file that names it. Reads what a peer offers, writes what this side offers. Refused:
//! more than sixteen m-lines, tokens that would break a line, and addresses that nobody can
//! honestly want audio sent to. It decides nothing about codecs; `offer_answer` does.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::Direction;
use super::sdes::{CRYPTOS_MAX, Crypto};

/// Most m-lines: each one is echoed in every answer for the life of a dialog.
const LINES_MAX: usize = 16;
/// Most formats that are read of one m-line.
const FORMATS_MAX: usize = 64;

/// One m-line with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MediaLine {
    /// `audio`, `video`, `image` and so on.
    pub(super) kind: String,
    /// 0 is refused or removed.
    pub(super) port: u16,
    /// `RTP/AVP` and so on.
    pub(super) protocol: String,
    /// Payload types or other formats, in the order of preference.
    pub(super) formats: Vec<String>,
    /// Where media go; `None` without a `c=` line.
    pub(super) address: Option<IpAddr>,
    /// `a=rtpmap`: payload type, encoding name in upper case, clock rate.
    pub(super) encodings: Vec<(u8, String, u32)>,
    /// As its author sees it.
    pub(super) direction: Direction,
    /// The keys that are usable, in the order of preference.
    pub(super) cryptos: Vec<Crypto>,
}

/// A session description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// In order; never reordered or removed.
    pub(super) lines: Vec<MediaLine>,
}

/// Why a description is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SdpError {
    /// Not SDP.
    #[error("not a session description")]
    Malformed,
    /// Too many m-lines.
    #[error("more than sixteen m-lines")]
    TooManyLines,
    /// RTCP to a third party.
    #[error("RTCP to another host")]
    ForeignRtcp,
}

impl Description {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, SdpError> {
        let session = sdp_types::Session::parse(&normalise(body)).map_err(|_| SdpError::Malformed)?;
        if session.medias.len() > LINES_MAX {
            return Err(SdpError::TooManyLines);
        }
        let session_address = session.connection.as_ref().map(address).transpose()?;
        let session_direction = direction(&session.attributes);
        let mut lines = Vec::with_capacity(session.medias.len());
        for media in &session.medias {
            let own = media.connections.first().map(address).transpose()?;
            let address = own.or(session_address);
            foreign_rtcp(media, address)?;
            let formats: Vec<String> =
                media.fmt.split_whitespace().take(FORMATS_MAX).map(str::to_owned).collect();
            let tokens = formats.iter().chain([&media.media, &media.proto]);
            if !tokens.into_iter().all(|token| is_printable(token)) || formats.is_empty() {
                return Err(SdpError::Malformed);
            }
            lines.push(MediaLine {
                kind: media.media.clone(),
                port: media.port,
                protocol: media.proto.clone(),
                formats,
                address,
                encodings: encodings(&media.attributes),
                direction: direction(&media.attributes).or(session_direction).unwrap_or(Direction::SendRecv),
                cryptos: cryptos(&media.attributes),
            });
        }
        Ok(Self { lines })
    }
}

/// The `o=` line: this side's identity in one dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Constant for the dialog.
    pub(super) session: u64,
    /// Grows by one exactly when the description changes.
    pub(super) version: u64,
}

/// One m-line of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LocalLine {
    /// The audio stream.
    Audio {
        /// Our RTP port.
        port: u16,
        /// `RTP/AVP` as offered.
        protocol: String,
        /// Payload type, encoding name, clock rate; telephone-event gets its `fmtp`.
        payloads: Vec<(u8, &'static str)>,
        /// As we see it.
        direction: Direction,
        /// Our key.
        crypto: Option<Crypto>,
    },
    /// Anything else: refused in place, port 0.
    Refused {
        /// As offered.
        kind: String,
        /// As offered.
        protocol: String,
        /// As offered.
        formats: Vec<String>,
    },
}

/// Writes a description without its `o=` version, for comparison, and with it.
pub(super) fn print(origin: Origin, ip: IpAddr, lines: &[LocalLine]) -> Vec<u8> {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let mut out = String::with_capacity(400);
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "v=0\r\no=- {} {} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n",
        origin.session, origin.version
    );
    for line in lines {
        match line {
            LocalLine::Audio { port, protocol, payloads, direction, crypto } => {
                let _ = write!(out, "m=audio {port} {protocol}");
                for (payload, _) in payloads {
                    let _ = write!(out, " {payload}");
                }
                out.push_str("\r\n");
                for (payload, name) in payloads {
                    let _ = write!(out, "a=rtpmap:{payload} {name}/8000\r\n");
                    if *name == TELEPHONE_EVENT {
                        let _ = write!(out, "a=fmtp:{payload} 0-15\r\n");
                    }
                }
                if let Some(crypto) = crypto {
                    let _ = write!(out, "a=crypto:{}\r\n", crypto.print());
                }
                let _ = write!(out, "a=ptime:20\r\na={}\r\n", attribute(*direction));
            }
            LocalLine::Refused { kind, protocol, formats } => {
                let _ = write!(out, "m={kind} 0 {protocol} {}\r\n", formats.join(" "));
            }
        }
    }
    out.into_bytes()
}

/// RFC 4733.
pub(super) const TELEPHONE_EVENT: &str = "telephone-event";

const fn attribute(direction: Direction) -> &'static str {
    match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    }
}

fn direction(attributes: &[sdp_types::Attribute]) -> Option<Direction> {
    attributes.iter().find_map(|attribute| match attribute.attribute.as_str() {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    })
}

fn encodings(attributes: &[sdp_types::Attribute]) -> Vec<(u8, String, u32)> {
    let rtpmap = |value: &str| {
        let (payload, encoding) = value.split_once(' ')?;
        let mut parts = encoding.trim().split('/');
        let name = parts.next()?.to_ascii_uppercase();
        Some((payload.parse().ok()?, name, parts.next()?.parse().ok()?))
    };
    attributes
        .iter()
        .filter(|attribute| attribute.attribute == "rtpmap")
        .filter_map(|attribute| rtpmap(attribute.value.as_deref()?))
        .take(FORMATS_MAX)
        .collect()
}

fn cryptos(attributes: &[sdp_types::Attribute]) -> Vec<Crypto> {
    attributes
        .iter()
        .filter(|attribute| attribute.attribute == "crypto")
        .take(CRYPTOS_MAX)
        .filter_map(|attribute| Crypto::parse(attribute.value.as_deref()?))
        .collect()
}

fn address(connection: &sdp_types::Connection) -> Result<IpAddr, SdpError> {
    // A name would have to be resolved, and nothing here resolves names.
    let text = connection.connection_address.split('/').next().unwrap_or_default();
    text.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| SdpError::Malformed)
}

fn foreign_rtcp(media: &sdp_types::Media, address: Option<IpAddr>) -> Result<(), SdpError> {
    for attribute in media.attributes.iter().filter(|attribute| attribute.attribute == "rtcp") {
        let host = attribute.value.as_deref().and_then(|value| value.split_whitespace().nth(3));
        if let Some(host) = host
            && host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()) != address
        {
            return Err(SdpError::ForeignRtcp);
        }
    }
    Ok(())
}

fn is_printable(token: &str) -> bool {
    !token.is_empty() && token.len() <= 64 && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Makes `o=` lines readable that real devices send: user names with spaces, and numbers
/// beyond 64 bits. Nothing of `o=` is used, so a constant does.
fn normalise(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"o=") {
            out.extend_from_slice(b"o=- 0 0 IN IP4 0.0.0.0\r\n");
        } else {
            out.extend_from_slice(line);
        }
    }
    out
}
