//! SRTP and SRTCP (RFC 3711) with AES in counter mode and HMAC-SHA1, the suites that SDES
//! (RFC 4568) agrees on. A packet is sealed or opened in the buffer that it lies in. What does
//! not authenticate, and what came before, is refused and leaves no trace in the state; which
//! source may speak is not decided here. Keys show in no log.

use core::fmt;

use aes::Aes128;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::rtp::HEADER_LEN;
use crate::sip::{KEY_LEN, MasterKey, SALT_LEN, Suite};

/// Longest tag that a packet grows by.
pub const TAG_LEN_MAX: usize = 10;
/// Bytes that an RTCP packet grows by: index and tag, which is never short (RFC 3711 section 3.4).
pub const CONTROL_GROWTH: usize = 4 + TAG_LEN_MAX;
/// Bytes of the key of HMAC-SHA1.
const AUTH_KEY_LEN: usize = 20;
/// Clear header of an RTCP packet: its first word and the SSRC.
const CONTROL_HEADER_LEN: usize = 8;
/// Flag of an encrypted RTCP packet, before the index.
const ENCRYPTED: u32 = 1 << 31;
/// Sources of one direction that are told apart. A leg has one; a second appears when a phone
/// restarts its stream, and the oldest is then forgotten.
const SOURCES_MAX: usize = 4;
/// Packets that may come late, RFC 3711 section 3.3.2: at least 64.
const WINDOW: u64 = 64;

const fn tag_len(suite: Suite) -> usize {
    match suite {
        Suite::Sha1Tag80 => 10,
        Suite::Sha1Tag32 => 4,
    }
}

/// Why a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// Too short for its own header and tag.
    #[error("the packet is too short")]
    Length,
    /// Not by who has the key, or changed on the way.
    #[error("the packet does not authenticate")]
    Forged,
    /// It was here before, or is older than the window.
    #[error("the packet is a repeat")]
    Repeated,
}

/// Keys of one kind of packet.
struct Session {
    key: [u8; KEY_LEN],
    salt: [u8; SALT_LEN],
    auth: Hmac<Sha1>,
}

impl Session {
    /// Derives the three keys of RFC 3711 section 4.3.1 whose labels begin at `label`.
    fn derive(master: &MasterKey, label: u8) -> Self {
        let mut key = [0; KEY_LEN];
        let mut auth = [0; AUTH_KEY_LEN];
        let mut salt = [0; SALT_LEN];
        derived(master, label, &mut key);
        derived(master, label + 1, &mut auth);
        derived(master, label + 2, &mut salt);
        // HMAC takes a key of any length.
        let auth =
            Hmac::<Sha1>::new_from_slice(&auth).unwrap_or_else(|_| unreachable!("any length is a key"));
        Self { key, salt, auth }
    }

    /// RFC 3711 section 4.1.1: salt, SSRC and index make the initial vector.
    fn apply(&self, ssrc: u32, index: u64, bytes: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..SALT_LEN].copy_from_slice(&self.salt);
        for (at, byte) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *at ^= byte;
        }
        for (at, byte) in iv[8..14].iter_mut().zip(index.to_be_bytes().into_iter().skip(2)) {
            *at ^= byte;
        }
        Ctr128BE::<Aes128>::new(&self.key.into(), &iv.into()).apply_keystream(bytes);
    }

    fn tag(&self, parts: [&[u8]; 2]) -> [u8; AUTH_KEY_LEN] {
        let mut mac = self.auth.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// The key derivation function: AES in counter mode over zeros, with a rate of zero.
fn derived(master: &MasterKey, label: u8, key: &mut [u8]) {
    let mut iv = [0; 16];
    iv[..SALT_LEN].copy_from_slice(&master.salt);
    iv[7] ^= label;
    Ctr128BE::<Aes128>::new(&master.key.into(), &iv.into()).apply_keystream(key);
}

/// A source as far as its packets were authentic.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    /// Highest index of an RTP packet, rollovers included.
    highest: u64,
    /// The packets below it that were here, the highest itself in the lowest bit.
    seen: u64,
    control_highest: u32,
    control_seen: u64,
}

/// One direction of a stream.
pub struct Srtp {
    suite: Suite,
    media: Session,
    control: Session,
    sources: Vec<Source>,
    control_index: u32,
}

impl fmt::Debug for Srtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Srtp").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Srtp {
    /// A direction under `master`. The same master must never seal two directions.
    pub fn new(suite: Suite, master: &MasterKey) -> Self {
        Self {
            suite,
            media: Session::derive(master, 0),
            control: Session::derive(master, 3),
            sources: Vec::with_capacity(SOURCES_MAX),
            control_index: 0,
        }
    }

    /// Seals the RTP packet in the first `len` bytes of `buffer`; gives its length with the
    /// tag. `None` where it has no header or no room.
    pub fn seal<'b>(&mut self, buffer: &'b mut [u8], len: usize) -> Option<&'b [u8]> {
        let (ssrc, sequence, body) = header_of(buffer.get(..len)?)?;
        let index = self.index_of(ssrc, sequence);
        let tag_len = tag_len(self.suite);
        let packet = buffer.get_mut(..len + tag_len)?;
        let (sealed, room) = packet.split_at_mut_checked(len)?;
        self.media.apply(ssrc, index, sealed.get_mut(body..)?);
        let tag = self.media.tag([sealed, &rollover(index)]);
        room.copy_from_slice(tag.get(..tag_len)?);
        self.enter(ssrc, index);
        Some(packet)
    }

    /// Opens a sealed RTP packet in its place and gives it without its tag.
    pub fn open<'b>(&mut self, packet: &'b mut [u8]) -> Result<&'b [u8], SrtpError> {
        let tag_len = tag_len(self.suite);
        let len = packet.len().checked_sub(tag_len).ok_or(SrtpError::Length)?;
        let (sealed, tag) = packet.split_at_mut_checked(len).ok_or(SrtpError::Length)?;
        let (ssrc, sequence, body) = header_of(sealed).ok_or(SrtpError::Length)?;
        let index = self.index_of(ssrc, sequence);
        let wanted = self.media.tag([sealed, &rollover(index)]);
        if !bool::from(wanted.get(..tag_len).unwrap_or_default().ct_eq(tag)) {
            return Err(SrtpError::Forged);
        }
        if self.source(ssrc).is_some_and(|source| was_here(source.highest, source.seen, index)) {
            return Err(SrtpError::Repeated);
        }
        self.enter(ssrc, index);
        self.media.apply(ssrc, index, sealed.get_mut(body..).unwrap_or_default());
        Ok(sealed)
    }

    /// Seals the RTCP packet in the first `len` bytes of `buffer`.
    pub fn seal_control<'b>(&mut self, buffer: &'b mut [u8], len: usize) -> Option<&'b [u8]> {
        let ssrc = control_ssrc(buffer.get(..len)?)?;
        // A new key is due long before 2^31 reports; at one a second that is 68 years.
        self.control_index = (self.control_index + 1) & !ENCRYPTED;
        let index = self.control_index;
        let packet = buffer.get_mut(..len + CONTROL_GROWTH)?;
        let (sealed, room) = packet.split_at_mut_checked(len)?;
        self.control.apply(ssrc, index.into(), sealed.get_mut(CONTROL_HEADER_LEN..)?);
        let word = (index | ENCRYPTED).to_be_bytes();
        let tag = self.control.tag([sealed, &word]);
        room.get_mut(..4)?.copy_from_slice(&word);
        room.get_mut(4..)?.copy_from_slice(tag.get(..TAG_LEN_MAX)?);
        Some(packet)
    }

    /// Opens a sealed RTCP packet in its place and gives it without index and tag.
    pub fn open_control<'b>(&mut self, packet: &'b mut [u8]) -> Result<&'b [u8], SrtpError> {
        let len = packet.len().checked_sub(CONTROL_GROWTH).ok_or(SrtpError::Length)?;
        let (sealed, rest) = packet.split_at_mut_checked(len).ok_or(SrtpError::Length)?;
        let (word, tag) = rest.split_first_chunk::<4>().ok_or(SrtpError::Length)?;
        let ssrc = control_ssrc(sealed).ok_or(SrtpError::Length)?;
        let wanted = self.control.tag([sealed, word]);
        if !bool::from(wanted.get(..TAG_LEN_MAX).unwrap_or_default().ct_eq(tag)) {
            return Err(SrtpError::Forged);
        }
        let word = u32::from_be_bytes(*word);
        let index = word & !ENCRYPTED;
        let known = self.source(ssrc);
        if known.is_some_and(|known| was_here(known.control_highest.into(), known.control_seen, index.into()))
        {
            return Err(SrtpError::Repeated);
        }
        let source = self.source_of(ssrc, 0);
        let (highest, seen) = entered(source.control_highest.into(), source.control_seen, index.into());
        (source.control_highest, source.control_seen) = (highest as u32, seen);
        if word & ENCRYPTED != 0 {
            self.control.apply(ssrc, index.into(), sealed.get_mut(CONTROL_HEADER_LEN..).unwrap_or_default());
        }
        Ok(sealed)
    }

    fn source(&self, ssrc: u32) -> Option<&Source> {
        self.sources.iter().find(|source| source.ssrc == ssrc)
    }

    /// The index of a packet: the rollover that brings it nearest to the highest so far
    /// (RFC 3711 section 3.3.1).
    fn index_of(&self, ssrc: u32, sequence: u16) -> u64 {
        const TURN: u64 = 1 << 16;
        let sequence = u64::from(sequence);
        let Some(source) = self.source(ssrc).filter(|source| source.seen != 0) else { return sequence };
        let turns = source.highest & !(TURN - 1);
        let near = turns | sequence;
        if near + TURN / 2 < source.highest {
            near + TURN
        } else if near > source.highest + TURN / 2 && turns > 0 {
            near - TURN
        } else {
            near
        }
    }

    fn enter(&mut self, ssrc: u32, index: u64) {
        let source = self.source_of(ssrc, index);
        (source.highest, source.seen) = entered(source.highest, source.seen, index);
    }

    fn source_of(&mut self, ssrc: u32, index: u64) -> &mut Source {
        let place = self.sources.iter().position(|source| source.ssrc == ssrc).unwrap_or_else(|| {
            if self.sources.len() == SOURCES_MAX {
                self.sources.remove(0);
            }
            self.sources.push(Source { ssrc, highest: index, seen: 0, control_highest: 0, control_seen: 0 });
            self.sources.len() - 1
        });
        &mut self.sources[place]
    }
}

/// Whether a packet was here or is too old to know.
const fn was_here(highest: u64, seen: u64, index: u64) -> bool {
    if seen == 0 || index > highest {
        return false;
    }
    let age = highest - index;
    age >= WINDOW || seen & (1 << age) != 0
}

/// The window with one more packet.
const fn entered(highest: u64, seen: u64, index: u64) -> (u64, u64) {
    if seen == 0 {
        return (index, 1);
    }
    if index > highest {
        let moved = index - highest;
        return (index, if moved >= WINDOW { 1 } else { seen << moved | 1 });
    }
    let age = highest - index;
    (highest, if age < WINDOW { seen | 1 << age } else { seen })
}

/// What is authenticated behind a packet: its rollover counter.
const fn rollover(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// SSRC, sequence number, and where the payload begins: sources and extension stay readable.
fn header_of(packet: &[u8]) -> Option<(u32, u16, usize)> {
    let (header, rest) = packet.split_first_chunk::<HEADER_LEN>()?;
    let [flags, _, s0, s1, _, _, _, _, x0, x1, x2, x3] = *header;
    let mut body = HEADER_LEN + usize::from(flags & 0x0f) * 4;
    if flags & 0x10 != 0 {
        let extension = rest.get(body - HEADER_LEN..)?;
        let &[_, _, high, low] = extension.first_chunk()?;
        body += 4 + usize::from(u16::from_be_bytes([high, low])) * 4;
    }
    (body <= packet.len()).then_some((
        u32::from_be_bytes([x0, x1, x2, x3]),
        u16::from_be_bytes([s0, s1]),
        body,
    ))
}

fn control_ssrc(packet: &[u8]) -> Option<u32> {
    let &[_, _, _, _, x0, x1, x2, x3] = packet.first_chunk()?;
    Some(u32::from_be_bytes([x0, x1, x2, x3]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn master() -> MasterKey {
        MasterKey {
            key: bytes("e1f97a0d3e018be0d64fa32c06de4139").try_into().unwrap(),
            salt: bytes("0ec675ad498afeebb6960b3aabe6").try_into().unwrap(),
        }
    }

    fn direction() -> Srtp {
        Srtp::new(Suite::Sha1Tag80, &master())
    }

    fn packet(sequence: u16) -> Vec<u8> {
        let mut packet = bytes("800f0000decafbadcafebabe");
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet.extend([0xab; 16]);
        packet
    }

    fn sealed(by: &mut Srtp, sequence: u16) -> Vec<u8> {
        let mut buffer = packet(sequence);
        let len = buffer.len();
        buffer.resize(len + TAG_LEN_MAX, 0);
        by.seal(&mut buffer, len).unwrap().to_vec()
    }

    #[test]
    fn keys_are_derived_as_in_appendix_b_3() {
        let mut key = [0; 16];
        derived(&master(), 0, &mut key);
        assert_eq!(key.to_vec(), bytes("c61e7a93744f39ee10734afe3ff7a087"));
        let mut salt = [0; 14];
        derived(&master(), 2, &mut salt);
        assert_eq!(salt.to_vec(), bytes("30cbbc08863d8c85d49db34a9ae1"));
        let mut auth = [0; 94];
        derived(&master(), 1, &mut auth);
        assert_eq!(auth[..20].to_vec(), bytes("cebe321f6ff7716b6fd4ab49af256a156d38baa4"));
    }

    #[test]
    fn the_key_stream_is_that_of_appendix_b_2() {
        let session = Session {
            key: bytes("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap(),
            salt: bytes("f0f1f2f3f4f5f6f7f8f9fafbfcfd").try_into().unwrap(),
            auth: Hmac::new_from_slice(&[0]).unwrap(),
        };
        let mut stream = [0; 48];
        session.apply(0, 0, &mut stream);
        let expected = "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab41e95b3bb0a2e8dd477901e4fca894c0";
        assert_eq!(stream.to_vec(), bytes(expected));
    }

    #[test]
    fn packets_are_those_of_another_implementation() {
        let expected = "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb";
        assert_eq!(sealed(&mut direction(), 0x1234), bytes(expected));
        let mut control = bytes("81c8000bcafebabe");
        control.extend([0xab; 16]);
        control.resize(24 + CONTROL_GROWTH, 0);
        let expected = "81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798";
        assert_eq!(direction().seal_control(&mut control, 24).unwrap().to_vec(), bytes(expected));
    }

    #[test]
    fn what_was_sealed_opens_once_and_a_changed_bit_never() {
        let (mut near, mut far) = (direction(), direction());
        for at in 0..38 * 8 {
            let mut changed = sealed(&mut direction(), 7);
            changed[at / 8] ^= 1 << (at % 8);
            assert!(far.open(&mut changed).is_err(), "bit {at}");
        }
        let mut whole = sealed(&mut near, 7);
        assert_eq!(far.open(&mut whole.clone()).unwrap().to_vec(), packet(7));
        assert_eq!(far.open(&mut whole), Err(SrtpError::Repeated));
        assert_eq!(far.open(&mut [0; 9]), Err(SrtpError::Length));
    }

    #[test]
    fn the_sequence_may_roll_over_and_packets_may_change_places() {
        let (mut near, mut far) = (direction(), direction());
        let sequences: Vec<u16> = (0..400_u16).map(|n| n.wrapping_add(65_400)).collect();
        let mut all: Vec<Vec<u8>> = sequences.iter().map(|sequence| sealed(&mut near, *sequence)).collect();
        for pair in all.chunks_mut(2) {
            pair.swap(0, 1);
        }
        let mut heard = 0;
        for one in &mut all {
            heard += usize::from(far.open(one).is_ok());
        }
        assert_eq!(heard, 400);
    }

    #[test]
    fn a_packet_older_than_the_window_is_refused() {
        let (mut near, mut far) = (direction(), direction());
        let mut old = sealed(&mut near, 1);
        for sequence in 2..=100 {
            far.open(&mut sealed(&mut near, sequence)).unwrap();
        }
        assert_eq!(far.open(&mut old), Err(SrtpError::Repeated));
    }

    #[test]
    fn reports_open_once() {
        let (mut near, mut far) = (direction(), direction());
        let mut report = bytes("81c8000bcafebabe");
        report.extend([5; 20]);
        let clear = report.clone();
        report.resize(28 + CONTROL_GROWTH, 0);
        let sealed = near.seal_control(&mut report, 28).unwrap().to_vec();
        assert_eq!(far.open_control(&mut sealed.clone()).unwrap().to_vec(), clear);
        assert_eq!(far.open_control(&mut sealed.clone()), Err(SrtpError::Repeated));
        let mut forged = sealed;
        forged[9] ^= 1;
        assert_eq!(direction().open_control(&mut forged), Err(SrtpError::Forged));
    }

    #[test]
    fn sources_are_bounded_and_keys_are_not_shown() {
        let mut far = direction();
        for ssrc in 0..100_u32 {
            let mut near = direction();
            let mut buffer = packet(1);
            buffer[8..12].copy_from_slice(&ssrc.to_be_bytes());
            buffer.resize(28 + TAG_LEN_MAX, 0);
            let mut packet = near.seal(&mut buffer, 28).unwrap().to_vec();
            far.open(&mut packet).unwrap();
            assert!(far.sources.len() <= SOURCES_MAX);
        }
        assert_eq!(format!("{:?}", master()), "MasterKey([redacted])");
        assert!(!format!("{far:?}").contains("key"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_pass(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut far = direction();
            prop_assert!(far.open(&mut bytes.clone()).is_err());
            prop_assert!(far.open_control(&mut bytes).is_err());
        }
    }
}
