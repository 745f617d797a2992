//! Offer and answer (RFC 3264, 6337, 6141) of one dialog: one audio stream of PCMU, PCMA and
//! telephone-event; every other m-line stays in place with port 0. A failed exchange leaves
//! the last agreement in force, and audio that was agreed to be encrypted stays so. It sends nothing and knows no transaction.

use std::net::{IpAddr, SocketAddr};

use super::sdes::{Crypto, Keying, MasterKey, OUR_TAG, SrtpKeys, Suite};
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
    /// Encrypted audio is required, and the far end's keys are missing or unusable.
    #[error("no key in common")]
    NoKey,
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
    keying: Keying,
    /// What we seal with: the same for the life of the dialog.
    key: MasterKey,
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
    /// How it would seal.
    offered_suite: Option<Suite>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Audio { protocol: String },
    Other { kind: String, protocol: String, formats: Vec<String> },
}

impl Negotiation {
    /// Nothing agreed yet. `session` is the `o=` id of the dialog, `key` what it seals with.
    pub(super) fn new(session: u64, allow_loopback: bool, keying: Keying, key: MasterKey) -> Self {
        Self {
            session,
            version: 0,
            allow_loopback,
            keying,
            key,
            shape: Vec::new(),
            sent: None,
            settled: None,
            local: None,
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            event_payload: EVENT_PAYLOAD,
            agreed: None,
            offered: None,
            offered_suite: None,
        }
    }

    /// A dialog that has agreed on nothing yet is tried over another transport.
    pub(super) fn moved(&mut self, keying: Keying) {
        if self.agreed.is_none() && self.keying != keying {
            self.keying = keying;
            self.shape.clear();
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
            // Who may do without keys would not find an audio line of its own under SAVP.
            let protocol = if self.keying == Keying::Required { SECURE } else { PLAIN };
            self.shape.push(Line::Audio { protocol: protocol.to_owned() });
        }
        self.offered = Some(local);
        let payloads = self
            .codecs
            .iter()
            .map(|codec| name(*codec))
            .chain([(self.event_payload, TELEPHONE_EVENT)])
            .collect();
        let suite = match (self.agreed, self.keying) {
            (Some(agreed), _) => agreed.srtp.map(|keys| keys.suite),
            (None, Keying::Preferred | Keying::Required) => Some(Suite::Sha1Tag80),
            (None, Keying::Clear | Keying::Impossible) => None,
        };
        self.offered_suite = suite;
        let crypto = suite.map(|suite| Crypto { tag: OUR_TAG, suite, key: self.key });
        self.print(local, local.direction, payloads, crypto)
    }

    /// The description in force as an offer again, byte for byte: a session refresh changes
    /// nothing (RFC 4028 section 7.4).
    pub(super) fn refresh(&mut self) -> Option<(LocalMedia, Vec<u8>)> {
        let (local, description) = (self.local?, self.settled.clone()?);
        self.offered = Some(local);
        self.offered_suite = self.agreed.and_then(|agreed| agreed.srtp).map(|keys| keys.suite);
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
        let mut remote = self.read(line, local.direction)?;
        let suite = self.offered_suite;
        // An answer takes one of the lines offered (RFC 4568 section 5.1.2), and there is one.
        let taken = line.cryptos.iter().find(|crypto| crypto.tag == OUR_TAG && Some(crypto.suite) == suite);
        remote.srtp = taken.map(|crypto| self.keys(crypto));
        self.may_agree(remote)?;
        self.agree(local, remote);
        self.settled.clone_from(&self.sent);
        Ok(remote)
    }

    /// What an offer would give, without agreeing to it.
    pub(super) fn look(&self, body: &[u8]) -> Result<RemoteMedia, Refusal> {
        let offer = Description::parse(body)?;
        let line = offer.lines.get(self.choose(&offer)?).ok_or(Refusal::NoCodec)?;
        let mut remote = self.read(line, Direction::SendRecv)?;
        remote.srtp = self.crypto_of(line).map(|crypto| self.keys(&crypto));
        self.may_agree(remote)?;
        Ok(remote)
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
        let audio = self.choose(&offer)?;
        let line = offer.lines.get(audio).ok_or(Refusal::NoCodec)?;
        let mut remote = self.read(line, local.direction)?;
        let theirs = self.crypto_of(line);
        remote.srtp = theirs.map(|crypto| self.keys(&crypto));
        self.may_agree(remote)?;
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
        let crypto = theirs.map(|crypto| Crypto { key: self.key, ..crypto });
        let bytes = self.print(local, remote.direction, payloads, crypto);
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
        crypto: Option<Crypto>,
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
                    crypto,
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
            srtp: None,
        })
    }

    /// The first audio line that carries a codec of ours; one with keys first, where keys are
    /// taken, and one under SAVP only there.
    fn choose(&self, offer: &Description) -> Result<usize, Refusal> {
        let usable = |line: &MediaLine| {
            let plain = line.protocol.eq_ignore_ascii_case(PLAIN);
            let secure = line.protocol.eq_ignore_ascii_case(SECURE) && self.crypto_of(line).is_some();
            line.kind == "audio"
                && line.port != 0
                && (plain || secure)
                && line.formats.iter().any(|format| codec_of(line, format).is_some())
        };
        let keyed = |line: &MediaLine| usable(line) && self.crypto_of(line).is_some();
        let lines = &offer.lines;
        lines.iter().position(keyed).or_else(|| lines.iter().position(usable)).ok_or(Refusal::NoCodec)
    }

    /// The first key of an offer that this side takes.
    fn crypto_of(&self, line: &MediaLine) -> Option<Crypto> {
        match self.keying {
            Keying::Preferred | Keying::Required => line.cryptos.first().copied(),
            Keying::Clear | Keying::Impossible => None,
        }
    }

    const fn keys(&self, theirs: &Crypto) -> SrtpKeys {
        SrtpKeys { suite: theirs.suite, ours: self.key, theirs: theirs.key }
    }

    /// Encrypted audio is never given up in silence: neither where it is required, nor where
    /// it was agreed before.
    fn may_agree(&self, remote: RemoteMedia) -> Result<(), Refusal> {
        let required = match self.keying {
            Keying::Required => true,
            Keying::Clear | Keying::Preferred => self.agreed.is_some_and(|agreed| agreed.srtp.is_some()),
            Keying::Impossible => return Err(Refusal::NoKey),
        };
        if required && remote.srtp.is_none() { Err(Refusal::NoKey) } else { Ok(()) }
    }
}

/// Audio in the clear.
const PLAIN: &str = "RTP/AVP";
/// Audio under SRTP (RFC 3711 section 12).
const SECURE: &str = "RTP/SAVP";

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
    use crate::sip::sdes::{KEY_LEN, SALT_LEN};

    const OURS: MasterKey = MasterKey { key: [1; KEY_LEN], salt: [2; SALT_LEN] };
    const THEIRS: MasterKey = MasterKey { key: [3; KEY_LEN], salt: [4; SALT_LEN] };

    fn local(direction: Direction) -> LocalMedia {
        LocalMedia { ip: "198.51.100.1".parse().unwrap(), port: 20_000, direction }
    }

    fn clear(session: u64) -> Negotiation {
        Negotiation::new(session, false, Keying::Clear, OURS)
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
            let mut negotiation = clear(1);
            let body = offer(&format!("m=audio 4000 RTP/AVP 8 0\r\na={attribute}\r\n"));
            let (answer, remote) = negotiation.answer(&body, local(ours)).unwrap();
            assert_eq!((remote.direction, remote.codec), (agreed, Codec::Pcma), "{attribute}");
            assert!(text(&answer).contains("m=audio 20000 RTP/AVP 8\r\n"));
        }
    }

    #[test]
    fn legacy_hold_is_inactive() {
        let body = b"v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let (answer, remote) = clear(1).answer(body, local(Direction::SendRecv)).unwrap();
        assert_eq!(remote.direction, Direction::Inactive);
        assert!(text(&answer).contains("a=inactive"));
    }

    #[test]
    fn other_m_lines_stay_in_place_with_port_0() {
        let body = offer(
            "m=video 5000 RTP/AVP 31\r\nm=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 telephone-event/8000\r\nm=image 6000 udptl t38\r\n",
        );
        let (answer, remote) = clear(7).answer(&body, local(Direction::SendRecv)).unwrap();
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
        let mut negotiation = clear(1);
        let first = negotiation.offer(local(Direction::SendRecv));
        assert_eq!(first, negotiation.offer(local(Direction::SendRecv)));
        assert!(text(&negotiation.offer(local(Direction::SendOnly))).contains("o=- 1 2 "));
        assert!(text(&negotiation.offer(local(Direction::SendRecv))).contains("o=- 1 3 "));
    }

    #[test]
    fn a_refresh_repeats_the_description_in_force() {
        let mut negotiation = clear(1);
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
        let mut negotiation = clear(1);
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
            assert_eq!(clear(1).look(body.as_bytes()), Err(Refusal::Address), "{ip}");
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
            assert_eq!(clear(1).look(body), Err(refusal));
        }
    }

    #[test]
    fn origins_that_break_parsers_are_read() {
        let body = b"v=0\r\no=some user 99999999999999999999 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        assert!(clear(1).look(body).is_ok());
    }

    fn keyed(keying: Keying) -> Negotiation {
        Negotiation::new(1, false, keying, OURS)
    }

    fn line(tag: u32, suite: Suite) -> String {
        format!("a=crypto:{}\r\n", Crypto { tag, suite, key: THEIRS }.print())
    }

    const PLAIN_LINE: &str = "m=audio 4000 RTP/AVP 0\r\n";
    const SECURE_LINE: &str = "m=audio 4000 RTP/SAVP 0\r\n";

    #[test]
    fn an_offer_with_keys_is_answered_by_what_is_configured() {
        use Keying::{Clear, Impossible, Preferred, Required};
        let crypto = line(7, Suite::Sha1Tag32);
        for (keying, lines, answered) in [
            (Required, format!("{SECURE_LINE}{crypto}"), Ok(true)),
            (Required, format!("{PLAIN_LINE}{crypto}"), Ok(true)),
            (Required, PLAIN_LINE.to_owned(), Err(Refusal::NoKey)),
            (Required, SECURE_LINE.to_owned(), Err(Refusal::NoCodec)),
            (Required, format!("{PLAIN_LINE}{SECURE_LINE}{crypto}"), Ok(true)),
            (Preferred, format!("{SECURE_LINE}{crypto}"), Ok(true)),
            (Preferred, PLAIN_LINE.to_owned(), Ok(false)),
            (Clear, format!("{PLAIN_LINE}{crypto}"), Ok(false)),
            (Clear, format!("{SECURE_LINE}{crypto}"), Err(Refusal::NoCodec)),
            (Impossible, PLAIN_LINE.to_owned(), Err(Refusal::NoKey)),
            (Impossible, format!("{SECURE_LINE}{crypto}"), Err(Refusal::NoCodec)),
        ] {
            let mut negotiation = keyed(keying);
            let looked = negotiation.look(&offer(&lines)).map(|remote| remote.srtp.is_some());
            assert_eq!(looked, answered, "{keying:?} {lines}");
            let answer = negotiation.answer(&offer(&lines), local(Direction::SendRecv));
            assert_eq!(answer.as_ref().map(|(_, remote)| remote.srtp.is_some()), answered.as_ref().copied());
            let Ok((body, remote)) = answer else { continue };
            let ours = Crypto { tag: 7, suite: Suite::Sha1Tag32, key: OURS }.print();
            assert_eq!(text(&body).contains(&format!("a=crypto:{ours}\r\n")), remote.srtp.is_some());
            let keys = SrtpKeys { suite: Suite::Sha1Tag32, ours: OURS, theirs: THEIRS };
            assert!(remote.srtp.is_none_or(|agreed| agreed == keys));
        }
    }

    #[test]
    fn our_offer_has_a_key_and_an_answer_without_one_is_refused_where_it_is_required() {
        for (keying, protocol, answer, agreed) in [
            (Keying::Required, "RTP/SAVP", line(1, Suite::Sha1Tag80), Ok(true)),
            (Keying::Required, "RTP/SAVP", line(1, Suite::Sha1Tag32), Err(Refusal::NoKey)),
            (Keying::Required, "RTP/SAVP", line(2, Suite::Sha1Tag80), Err(Refusal::NoKey)),
            (Keying::Required, "RTP/SAVP", String::new(), Err(Refusal::NoKey)),
            (Keying::Preferred, "RTP/AVP", line(1, Suite::Sha1Tag80), Ok(true)),
            (Keying::Preferred, "RTP/AVP", String::new(), Ok(false)),
            (Keying::Clear, "RTP/AVP", line(1, Suite::Sha1Tag80), Ok(false)),
        ] {
            let mut negotiation = keyed(keying);
            let body = text(&negotiation.offer(local(Direction::SendRecv)));
            assert!(body.contains(&format!("m=audio 20000 {protocol} ")), "{body}");
            assert_eq!(body.contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"), keying != Keying::Clear);
            let remote = negotiation.accept(&offer(&format!("m=audio 4000 {protocol} 0\r\n{answer}")));
            assert_eq!(remote.map(|remote| remote.srtp.is_some()), agreed, "{keying:?} {answer}");
        }
    }

    #[test]
    fn encrypted_audio_stays_encrypted_under_the_same_key() {
        let mut negotiation = keyed(Keying::Preferred);
        let first = offer(&format!("{SECURE_LINE}{}", line(4, Suite::Sha1Tag32)));
        negotiation.answer(&first, local(Direction::SendRecv)).unwrap();
        let hold = text(&negotiation.offer(local(Direction::SendOnly)));
        let ours = Crypto { tag: 1, suite: Suite::Sha1Tag32, key: OURS }.print();
        assert!(hold.contains("RTP/SAVP") && hold.contains(&format!("a=crypto:{ours}\r\n")), "{hold}");
        let bare = offer(SECURE_LINE);
        assert_eq!(negotiation.accept(&bare), Err(Refusal::NoKey));
        negotiation.roll_back();
        assert!(negotiation.answer(&offer(PLAIN_LINE), local(Direction::SendRecv)).is_err());
        assert!(negotiation.agreed().unwrap().srtp.is_some());
    }

    #[test]
    fn a_call_that_moves_out_of_tls_takes_no_key_with_it() {
        let mut negotiation = keyed(Keying::Required);
        negotiation.offer(local(Direction::SendRecv));
        negotiation.moved(Keying::Clear);
        let body = text(&negotiation.offer(local(Direction::SendRecv)));
        assert!(body.contains("RTP/AVP") && !body.contains("crypto"), "{body}");
    }
}
