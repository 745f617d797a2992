//! Offer and answer (RFC 3264, 6337, 6141) of one dialog: one audio stream of PCMU, PCMA and
//! telephone-event; every other m-line stays in place with port 0. A failed exchange leaves
//! the last agreement in force. It sends nothing and knows no transaction.

use std::net::{IpAddr, SocketAddr};

use super::sdp::{self, Description, LocalLine, MediaLine, TELEPHONE_EVENT};
use super::{Codec, Direction, LocalMedia, RemoteMedia};

/// Our payload type for telephone-event, where the peer has not chosen one.
const EVENT_PAYLOAD: u8 = 101;

/// Why an offer or an answer is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Not SDP, or SDP that breaks a rule.
    #[error(transparent)]
    Sdp(#[from] sdp::SdpError),
    /// No audio line with a codec of ours.
    #[error("no codec in common")]
    NoCodec,
    /// An address that audio is never sent to.
    #[error("refused media address")]
    Address,
    /// An answer whose m-lines are not those of the offer.
    #[error("answer does not fit the offer")]
    Mismatch,
}

/// The media negotiation of one dialog.
#[derive(Clone, Debug)]
pub(super) struct Negotiation {
    session: u64,
    version: u64,
    allow_loopback: bool,
    /// The shape of the session: grows, never shrinks.
    shape: Vec<Line>,
    /// What was last put on the wire, without regard to its version.
    sent: Option<(IpAddr, Vec<LocalLine>)>,
    /// What of it is in force.
    settled: Option<(IpAddr, Vec<LocalLine>)>,
    /// What this side wants, as last agreed.
    local: Option<LocalMedia>,
    /// Codecs of the agreement, in the order in which they are offered.
    codecs: Vec<Codec>,
    event_payload: u8,
    agreed: Option<RemoteMedia>,
    /// Our offer that has no answer yet.
    offered: Option<LocalMedia>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Audio { protocol: String },
    Other { kind: String, protocol: String, formats: Vec<String> },
}

impl Negotiation {
    /// Nothing agreed yet. `session` is the `o=` id of the dialog.
    pub(super) fn new(session: u64, allow_loopback: bool) -> Self {
        Self {
            session,
            version: 0,
            allow_loopback,
            shape: Vec::new(),
            sent: None,
            settled: None,
            local: None,
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            event_payload: EVENT_PAYLOAD,
            agreed: None,
            offered: None,
        }
    }

    /// The agreement in force.
    pub(super) const fn agreed(&self) -> Option<RemoteMedia> {
        self.agreed
    }

    /// What this side last wanted.
    pub(super) fn local(&self) -> Option<LocalMedia> {
        self.local.or(self.offered)
    }

    /// Whether an offer of ours waits for its answer.
    pub(super) const fn is_offering(&self) -> bool {
        self.offered.is_some()
    }

    /// Our offer. The same media again are the same bytes.
    pub(super) fn offer(&mut self, local: LocalMedia) -> Vec<u8> {
        if self.shape.is_empty() {
            self.shape.push(Line::Audio { protocol: "RTP/AVP".to_owned() });
        }
        self.offered = Some(local);
        let payloads = self
            .codecs
            .iter()
            .map(|codec| name(*codec))
            .chain([(self.event_payload, TELEPHONE_EVENT)])
            .collect();
        self.print(local, local.direction, payloads)
    }

    /// The description in force as an offer again, byte for byte: a session refresh changes
    /// nothing (RFC 4028 section 7.4).
    pub(super) fn refresh(&mut self) -> Option<(LocalMedia, Vec<u8>)> {
        let (local, description) = (self.local?, self.settled.clone()?);
        self.offered = Some(local);
        Some((local, self.emit(description)))
    }

    /// The answer to our offer.
    pub(super) fn accept(&mut self, body: &[u8]) -> Result<RemoteMedia, Refusal> {
        let local = self.offered.ok_or(Refusal::Mismatch)?;
        let answer = Description::parse(body)?;
        if answer.lines.len() != self.shape.len() {
            return Err(Refusal::Mismatch);
        }
        let audio = self.audio_index().and_then(|index| answer.lines.get(index));
        let line = audio.filter(|line| line.kind == "audio").ok_or(Refusal::Mismatch)?;
        let remote = self.read(line, local.direction)?;
        self.agree(local, remote);
        self.settled.clone_from(&self.sent);
        Ok(remote)
    }

    /// What an offer would give, without agreeing to it.
    pub(super) fn look(&self, body: &[u8]) -> Result<RemoteMedia, Refusal> {
        let offer = Description::parse(body)?;
        let line = offer.lines.get(choose(&offer)?).ok_or(Refusal::NoCodec)?;
        self.read(line, Direction::SendRecv)
    }

    /// Answers an offer.
    pub(super) fn answer(
        &mut self,
        body: &[u8],
        local: LocalMedia,
    ) -> Result<(Vec<u8>, RemoteMedia), Refusal> {
        let offer = Description::parse(body)?;
        if offer.lines.len() < self.shape.len() {
            return Err(Refusal::Mismatch);
        }
        let audio = choose(&offer)?;
        let line = offer.lines.get(audio).ok_or(Refusal::NoCodec)?;
        let remote = self.read(line, local.direction)?;
        self.shape = offer
            .lines
            .iter()
            .enumerate()
            .map(|(index, line)| {
                if index == audio {
                    Line::Audio { protocol: line.protocol.clone() }
                } else {
                    Line::Other {
                        kind: line.kind.clone(),
                        protocol: line.protocol.clone(),
                        formats: line.formats.clone(),
                    }
                }
            })
            .collect();
        let mut payloads = vec![name(remote.codec)];
        payloads.extend(remote.telephone_event.map(|payload| (payload, TELEPHONE_EVENT)));
        self.agree(local, remote);
        let bytes = self.print(local, remote.direction, payloads);
        self.settled.clone_from(&self.sent);
        Ok((bytes, remote))
    }

    /// Our offer was refused, or no answer will come: the last agreement stays.
    pub(super) const fn roll_back(&mut self) {
        self.offered = None;
    }

    fn agree(&mut self, local: LocalMedia, remote: RemoteMedia) {
        self.local = Some(local);
        self.offered = None;
        self.agreed = Some(remote);
        self.codecs.sort_by_key(|codec| *codec != remote.codec);
        self.event_payload = remote.telephone_event.unwrap_or(self.event_payload);
    }

    fn audio_index(&self) -> Option<usize> {
        self.shape.iter().position(|line| matches!(line, Line::Audio { .. }))
    }

    fn print(
        &mut self,
        local: LocalMedia,
        direction: Direction,
        payloads: Vec<(u8, &'static str)>,
    ) -> Vec<u8> {
        let lines: Vec<LocalLine> = self
            .shape
            .iter()
            .map(|line| match line {
                Line::Audio { protocol } => LocalLine::Audio {
                    port: local.port,
                    protocol: protocol.clone(),
                    payloads: payloads.clone(),
                    direction,
                },
                Line::Other { kind, protocol, formats } => LocalLine::Refused {
                    kind: kind.clone(),
                    protocol: protocol.clone(),
                    formats: formats.clone(),
                },
            })
            .collect();
        self.emit((local.ip, lines))
    }

    fn emit(&mut self, description: (IpAddr, Vec<LocalLine>)) -> Vec<u8> {
        if self.sent.as_ref() != Some(&description) {
            self.version += 1;
        }
        let origin = sdp::Origin { session: self.session, version: self.version };
        let bytes = sdp::print(origin, description.0, &description.1);
        self.sent = Some(description);
        bytes
    }

    fn read(&self, line: &MediaLine, ours: Direction) -> Result<RemoteMedia, Refusal> {
        let codec = line.formats.iter().find_map(|format| codec_of(line, format)).ok_or(Refusal::NoCodec)?;
        if line.port == 0 {
            return Err(Refusal::NoCodec);
        }
        let address = line.address.ok_or(Refusal::Address)?;
        // The legacy hold of RFC 2543: an offer to nowhere.
        let held = address.is_unspecified();
        if !held && !is_reachable(address, self.allow_loopback) {
            return Err(Refusal::Address);
        }
        let theirs = if held { Direction::Inactive } else { line.direction };
        let event = line.encodings.iter().find(|(payload, encoding, rate)| {
            encoding.eq_ignore_ascii_case(TELEPHONE_EVENT)
                && *rate == 8_000
                && line.formats.iter().any(|format| format.parse() == Ok(*payload))
        });
        Ok(RemoteMedia {
            rtp: SocketAddr::new(address, line.port),
            codec,
            telephone_event: event.map(|(payload, _, _)| *payload),
            direction: meet(ours, mirror(theirs)),
        })
    }
}

/// The first audio line that carries a codec of ours.
fn choose(offer: &Description) -> Result<usize, Refusal> {
    let usable = |line: &MediaLine| {
        line.kind == "audio"
            && line.port != 0
            && line.protocol.eq_ignore_ascii_case("RTP/AVP")
            && line.formats.iter().any(|format| codec_of(line, format).is_some())
    };
    offer.lines.iter().position(usable).ok_or(Refusal::NoCodec)
}

const fn name(codec: Codec) -> (u8, &'static str) {
    match codec {
        Codec::Pcmu => (0, "PCMU"),
        Codec::Pcma => (8, "PCMA"),
    }
}

/// Only the static payload types: a dynamic number for G.711 does not occur in the field.
fn codec_of(line: &MediaLine, format: &str) -> Option<Codec> {
    let codec = match format {
        "0" => Codec::Pcmu,
        "8" => Codec::Pcma,
        _ => return None,
    };
    let payload: u8 = format.parse().ok()?;
    let renamed =
        line.encodings.iter().any(|(number, encoding, _)| *number == payload && encoding != name(codec).1);
    (!renamed).then_some(codec)
}

const fn sends(direction: Direction) -> bool {
    matches!(direction, Direction::SendRecv | Direction::SendOnly)
}

const fn receives(direction: Direction) -> bool {
    matches!(direction, Direction::SendRecv | Direction::RecvOnly)
}

const fn direction(sends: bool, receives: bool) -> Direction {
    match (sends, receives) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    }
}

/// The far end's view, turned into ours.
const fn mirror(theirs: Direction) -> Direction {
    direction(receives(theirs), sends(theirs))
}

/// What both sides allow.
const fn meet(one: Direction, other: Direction) -> Direction {
    direction(sends(one) && sends(other), receives(one) && receives(other))
}

/// Addresses that audio may be sent to. The cloud's metadata service lives in link-local
/// space, so that whole range is out.
pub fn is_reachable(ip: IpAddr, allow_loopback: bool) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_link_local()
                || v4.octets().first() == Some(&0)
                || (v4.is_loopback() && !allow_loopback))
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let metadata = first == 0xfd00 && second == 0x0ec2;
            !(v6.is_unspecified()
                || v6.is_multicast()
                || (first & 0xffc0) == 0xfe80
                || metadata
                || (v6.is_loopback() && !allow_loopback))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(direction: Direction) -> LocalMedia {
        LocalMedia { ip: "198.51.100.1".parse().unwrap(), port: 20_000, direction }
    }

    fn offer(lines: &str) -> Vec<u8> {
        format!("v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n{lines}")
            .into_bytes()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn received_hold_is_mirrored() {
        use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
        for (attribute, ours, agreed) in [
            ("sendrecv", SendRecv, SendRecv),
            ("sendonly", SendRecv, RecvOnly),
            ("recvonly", SendRecv, SendOnly),
            ("inactive", SendRecv, Inactive),
            ("sendrecv", SendOnly, SendOnly),
            ("sendonly", SendOnly, Inactive),
        ] {
            let mut negotiation = Negotiation::new(1, false);
            let body = offer(&format!("m=audio 4000 RTP/AVP 8 0\r\na={attribute}\r\n"));
            let (answer, remote) = negotiation.answer(&body, local(ours)).unwrap();
            assert_eq!((remote.direction, remote.codec), (agreed, Codec::Pcma), "{attribute}");
            assert!(text(&answer).contains("m=audio 20000 RTP/AVP 8\r\n"));
        }
    }

    #[test]
    fn legacy_hold_is_inactive() {
        let body = b"v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let (answer, remote) = Negotiation::new(1, false).answer(body, local(Direction::SendRecv)).unwrap();
        assert_eq!(remote.direction, Direction::Inactive);
        assert!(text(&answer).contains("a=inactive"));
    }

    #[test]
    fn other_m_lines_stay_in_place_with_port_0() {
        let body = offer(
            "m=video 5000 RTP/AVP 31\r\nm=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 telephone-event/8000\r\nm=image 6000 udptl t38\r\n",
        );
        let (answer, remote) = Negotiation::new(7, false).answer(&body, local(Direction::SendRecv)).unwrap();
        assert_eq!(remote.telephone_event, Some(96));
        expect_test::expect![[r#"
            v=0
            o=- 7 1 IN IP4 198.51.100.1
            s=-
            c=IN IP4 198.51.100.1
            t=0 0
            m=video 0 RTP/AVP 31
            m=audio 20000 RTP/AVP 0 96
            a=rtpmap:0 PCMU/8000
            a=rtpmap:96 telephone-event/8000
            a=fmtp:96 0-15
            a=ptime:20
            a=sendrecv
            m=image 0 udptl t38
        "#]]
        .assert_eq(&text(&answer).replace("\r\n", "\n"));
    }

    #[test]
    fn the_version_grows_exactly_when_the_description_changes() {
        let mut negotiation = Negotiation::new(1, false);
        let first = negotiation.offer(local(Direction::SendRecv));
        assert_eq!(first, negotiation.offer(local(Direction::SendRecv)));
        assert!(text(&negotiation.offer(local(Direction::SendOnly))).contains("o=- 1 2 "));
        assert!(text(&negotiation.offer(local(Direction::SendRecv))).contains("o=- 1 3 "));
    }

    #[test]
    fn a_refresh_repeats_the_description_in_force() {
        let mut negotiation = Negotiation::new(1, false);
        assert_eq!(negotiation.refresh(), None);
        let (answer, _) =
            negotiation.answer(&offer("m=audio 4000 RTP/AVP 8 0\r\n"), local(Direction::SendRecv)).unwrap();
        assert_eq!(negotiation.refresh(), Some((local(Direction::SendRecv), answer.clone())));
        negotiation.roll_back();
        negotiation.offer(local(Direction::SendOnly));
        negotiation.roll_back();
        let (_, again) = negotiation.refresh().unwrap();
        assert_eq!(
            text(&again),
            text(&answer).replace("o=- 1 1 ", "o=- 1 3 "),
            "a newer one was seen meanwhile"
        );
    }

    #[test]
    fn a_refused_offer_leaves_the_agreement() {
        let mut negotiation = Negotiation::new(1, false);
        negotiation.offer(local(Direction::SendRecv));
        let agreed = negotiation.accept(&offer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
        negotiation.offer(local(Direction::SendOnly));
        assert_eq!(negotiation.accept(&offer("")), Err(Refusal::Mismatch));
        negotiation.roll_back();
        assert_eq!(negotiation.agreed(), Some(agreed));
        assert_eq!(negotiation.local(), Some(local(Direction::SendRecv)));
    }

    #[test]
    fn addresses_that_nobody_can_want_are_refused() {
        for ip in ["127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.169.254", "0.1.2.3"] {
            let body = format!("v=0\r\nc=IN IP4 {ip}\r\nm=audio 4000 RTP/AVP 0\r\n");
            assert_eq!(Negotiation::new(1, false).look(body.as_bytes()), Err(Refusal::Address), "{ip}");
        }
        for ip in ["::1", "fe80::1", "ff02::1", "fd00:ec2::254", "::ffff:127.0.0.1"] {
            assert!(!is_reachable(ip.parse().unwrap(), false), "{ip}");
        }
        assert!(is_reachable("127.0.0.1".parse().unwrap(), true));
    }

    #[test]
    fn hostile_descriptions_are_refused() {
        let many = offer(&"m=audio 4000 RTP/AVP 0\r\n".repeat(17));
        let cases: [(&[u8], Refusal); 4] = [
            (&many, Refusal::Sdp(sdp::SdpError::TooManyLines)),
            (b"hello", Refusal::Sdp(sdp::SdpError::Malformed)),
            (&offer("m=audio 4000 RTP/AVP 18\r\n"), Refusal::NoCodec),
            (
                &offer("m=audio 4000 RTP/AVP 0\r\na=rtcp:53 IN IP4 203.0.113.7\r\n"),
                Refusal::Sdp(sdp::SdpError::ForeignRtcp),
            ),
        ];
        for (body, refusal) in cases {
            assert_eq!(Negotiation::new(1, false).look(body), Err(refusal));
        }
    }

    #[test]
    fn origins_that_break_parsers_are_read() {
        let body = b"v=0\r\no=some user 99999999999999999999 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        assert!(Negotiation::new(1, false).look(body).is_ok());
    }
}
