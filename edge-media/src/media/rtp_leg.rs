//! One leg over RTP: the latch, the jitter buffer and the key receiver on the way in, the
//! egress on the way out, and the watch over whether its source is alive. It knows neither
//! call nor plan; what it sends is given to it frame by frame.

use std::net::SocketAddr;
use std::time::Duration;

use handoff::clock::Now;

use super::Port;
use super::codec::{self, Frame};
use super::dtmf::KeyReceiver;
use super::egress::{Agreed, Egress, Slot, Turn};
use super::jitter::{JitterBuffer, JitterCounters};
use super::latch::Latch;
use super::rtcp::{Heard, REPORT_LEN_MAX, Report};
use super::rtp::RtpPacket;
use crate::sip::{Codec, RemoteMedia};

/// A source that somebody listens to is lost after this long without a valid packet. Shorter
/// would take a breath of the network for an end; longer would be silence that is noticed.
pub const SOURCE_LOST_AFTER: Duration = Duration::from_millis(500);
/// Reports are sent every five seconds (RFC 3550 section 6.2), here counted in ticks.
const REPORT_TICKS: u32 = 250;
/// Payload type of comfort noise (RFC 3389): a sign of life, not audio.
const COMFORT_NOISE: u8 = 13;

/// See the module.
#[derive(Clone, Debug)]
pub struct RtpLeg {
    port: Port,
    remote: Option<RemoteMedia>,
    latch: Latch,
    jitter: JitterBuffer,
    keys: KeyReceiver,
    egress: Egress,
    reception: Reception,
    last_valid: Option<Now>,
    watched_since: Option<Now>,
    lost: bool,
    ticks: u32,
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Not RTP, or not a payload type that was agreed.
    Malformed,
    /// From somebody else.
    Foreign,
    /// Audio in the agreed codec.
    Audio(Codec),
    /// A newly pressed key.
    Key(char),
    /// Valid, and nothing more: a repeated event, comfort noise.
    Alive,
}

impl RtpLeg {
    /// A leg on `port` that neither sends nor listens yet.
    pub fn new(port: Port, random: [u32; 4]) -> Self {
        let [ssrc, sequence, timestamp, noise] = random;
        Self {
            port,
            remote: None,
            latch: Latch::default(),
            jitter: JitterBuffer::new(Codec::Pcmu, noise),
            keys: KeyReceiver::default(),
            egress: Egress::new([ssrc, sequence, timestamp]),
            reception: Reception::default(),
            last_valid: None,
            watched_since: None,
            lost: false,
            ticks: noise % REPORT_TICKS,
        }
    }

    /// Its port.
    pub const fn port(&self) -> Port {
        self.port
    }

    /// What was agreed from now on. The outgoing timeline goes on whatever changes.
    pub fn agree(&mut self, now: Now, remote: RemoteMedia) {
        self.latch.signalled(remote.rtp);
        self.keys.restart();
        if self.remote.is_none_or(|before| before.codec != remote.codec) {
            self.jitter.restart(remote.codec);
        }
        self.remote = Some(remote);
        // A held peer was allowed to be silent: its time starts again.
        self.watched_since = self.watched_since.map(|_| now);
        self.last_valid = None;
    }

    /// Takes one datagram of the RTP port.
    pub fn receive(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) -> Arrival {
        let Ok(packet) = RtpPacket::parse(bytes) else { return Arrival::Malformed };
        let Some(remote) = self.remote else { return Arrival::Foreign };
        let audio = packet.payload_type == codec::payload_type(remote.codec);
        let event = remote.telephone_event == Some(packet.payload_type);
        if !audio && !event && packet.payload_type != COMFORT_NOISE {
            return Arrival::Malformed;
        }
        if !self.latch.accepts(now, from, packet.ssrc, packet.sequence) {
            return Arrival::Foreign;
        }
        self.last_valid = Some(now);
        if self.reception.packet(now, &packet) {
            self.jitter.restart(remote.codec);
            self.keys.restart();
        }
        if audio {
            self.jitter.push(now, packet.timestamp, packet.payload);
            return Arrival::Audio(remote.codec);
        }
        let key = if event { self.keys.receive(now, packet.timestamp, packet.payload) } else { None };
        key.map_or(Arrival::Alive, Arrival::Key)
    }

    /// What the far end says in this tick.
    pub fn said(&mut self, now: Now) -> Frame {
        self.jitter.pop(now)
    }

    /// Whether the far end's media is known, so that what is played reaches somebody.
    pub const fn is_agreed(&self) -> bool {
        self.remote.is_some()
    }

    /// Sends this tick's frame: where to, and the bytes. `None` before the agreement and
    /// while the direction forbids it.
    pub fn send(&mut self, frame: &Frame) -> Option<(SocketAddr, &[u8])> {
        let agreed = agreed(self.remote.as_ref()?);
        let to = self.latch.destination()?;
        self.egress.tick(agreed, frame).map(|bytes| (to, bytes))
    }

    /// Passes on a packet of another leg as it is, where this leg has agreed on its codec:
    /// where to, and the bytes.
    pub fn relay(&mut self, now: Now, codec: Codec, packet: &RtpPacket<'_>) -> Option<(SocketAddr, &[u8])> {
        let remote = self.remote.as_ref().filter(|remote| remote.codec == codec)?;
        let to = self.latch.destination()?;
        self.egress.relay(now, agreed(remote), packet).map(|bytes| (to, bytes))
    }

    /// Who serves this slot.
    pub fn turn(&mut self, slot: Slot) -> Turn {
        self.egress.turn(slot)
    }

    /// Time passes without a source: the timeline goes on unsent.
    pub fn rest(&mut self) {
        self.egress.skip(1);
    }

    /// The next packet is the first of another source. Gives the frames that the source before
    /// still owed.
    pub fn source_changed(&mut self, slot: Slot) -> u32 {
        self.egress.source_changed(slot)
    }

    /// Queues keys; gives the number that was refused.
    pub fn send_keys(&mut self, keys: &str) -> usize {
        self.egress.send_keys(keys)
    }

    /// The clock lost these frames, in both directions.
    pub fn skip(&mut self, frames: u32) {
        self.egress.lost(frames);
        self.jitter.skip(frames);
    }

    /// Somebody begins or ceases to listen to this leg.
    pub fn watch(&mut self, now: Now, listened: bool) {
        if !listened {
            self.watched_since = None;
        } else if self.watched_since.is_none() {
            self.watched_since = Some(now);
            self.lost = false;
        }
    }

    /// Whether the source was lost just now. A peer that may be silent is never lost.
    pub fn lost_now(&mut self, now: Now) -> bool {
        let (Some(since), Some(remote)) = (self.watched_since, self.remote.as_ref()) else { return false };
        let last = self.last_valid.map_or(since, |last| last.max(since));
        let lost = agreed(remote).may_receive() && now.since(last) >= SOURCE_LOST_AFTER;
        let news = lost && !self.lost;
        self.lost |= lost;
        news
    }

    /// Whether the source is back just now.
    pub fn back_now(&mut self) -> bool {
        core::mem::take(&mut self.lost)
    }

    /// An RTCP report, when one is due at this tick, and where it goes.
    pub fn report<'b>(
        &mut self,
        now: Now,
        buffer: &'b mut [u8; REPORT_LEN_MAX],
    ) -> Option<(SocketAddr, &'b [u8])> {
        self.ticks += 1;
        self.remote?;
        if !self.ticks.is_multiple_of(REPORT_TICKS) {
            return None;
        }
        let mut to = self.latch.destination()?;
        to.set_port(to.port().checked_add(1)?);
        let (ssrc, timestamp, packets, octets) = self.egress.sent();
        let heard = self.reception.heard();
        Some((to, Report { ssrc, now, timestamp, packets, octets, heard }.write(buffer)))
    }

    /// What the jitter buffer counted.
    pub const fn jitter_counters(&self) -> JitterCounters {
        self.jitter.counters()
    }
}

const fn agreed(remote: &RemoteMedia) -> Agreed {
    Agreed { codec: remote.codec, telephone_event: remote.telephone_event, direction: remote.direction }
}

/// Statistics of the stream that arrives (RFC 3550 appendix A).
#[derive(Clone, Debug, Default)]
struct Reception {
    ssrc: Option<u32>,
    base: u32,
    highest: u32,
    received: u32,
    expected_before: u32,
    received_before: u32,
    transit: Option<i64>,
    /// Sixteen times the jitter in samples.
    jitter: i64,
}

impl Reception {
    /// Counts one packet; true when it begins another stream than before.
    fn packet(&mut self, now: Now, packet: &RtpPacket<'_>) -> bool {
        let renewed = self.ssrc.is_some_and(|ssrc| ssrc != packet.ssrc);
        if self.ssrc != Some(packet.ssrc) {
            let start = 0x1_0000 + u32::from(packet.sequence);
            *self = Self { ssrc: Some(packet.ssrc), base: start, highest: start, ..Self::default() };
        }
        let step = packet.sequence.wrapping_sub(self.highest as u16) as i16;
        if step > 0 {
            self.highest = self.highest.wrapping_add(step as u32);
        }
        self.received = self.received.wrapping_add(1);
        let arrival = (now.micros() * 8 / 1_000) as u32;
        let transit = i64::from(arrival.wrapping_sub(packet.timestamp) as i32);
        if let Some(before) = self.transit.replace(transit) {
            self.jitter += (transit - before).abs().min(8_000) - ((self.jitter + 8) >> 4);
        }
        renewed
    }

    /// The report block; its fraction covers the time since the last one.
    fn heard(&mut self) -> Option<Heard> {
        let ssrc = self.ssrc?;
        let expected = self.highest.wrapping_sub(self.base).wrapping_add(1);
        let due = expected.wrapping_sub(self.expected_before);
        let lost = due.saturating_sub(self.received.wrapping_sub(self.received_before));
        self.expected_before = expected;
        self.received_before = self.received;
        Some(Heard {
            ssrc,
            fraction_lost: (u64::from(lost) * 256).checked_div(u64::from(due)).unwrap_or(0).min(255) as u8,
            lost: expected.saturating_sub(self.received),
            highest: self.highest.wrapping_sub(0x1_0000),
            jitter: (self.jitter >> 4) as u32,
        })
    }
}
