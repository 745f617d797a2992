//! One leg over RTP: the latch, the jitter buffer and the key receiver on the way in, the
//! egress on the way out, the seal on both where one is agreed, and the watch over whether its
//! source is alive. It knows neither
//! call nor plan; what it sends is given to it frame by frame.

use std::net::SocketAddr;
use std::time::Duration;

use handoff::call::media::Quality;
use handoff::clock::Now;

use super::Port;
use super::codec::{self, Frame};
use super::dtmf::KeyReceiver;
use super::egress::{Agreed, Egress, PACKET_LEN, Slot, Turn};
use super::jitter::{JitterBuffer, JitterCounters};
use super::latch::Latch;
use super::quality::{self, Counted, Far};
use super::rtcp::{self, Heard, REPORT_LEN_MAX, Report};
use super::rtp::RtpPacket;
use super::srtp::{CONTROL_GROWTH, Srtp, SrtpError, TAG_LEN_MAX};
use crate::sip::{Codec, RemoteMedia, SrtpKeys};

/// A source that somebody listens to is lost after this long without a valid packet. Shorter
/// would take a breath of the network for an end; longer would be silence that is noticed.
pub const SOURCE_LOST_AFTER: Duration = Duration::from_millis(500);
/// Reports are sent every five seconds (RFC 3550 section 6.2), here counted in ticks.
const REPORT_TICKS: u32 = 250;
/// Ten seconds in units of 1/65536 s: a longer way is a clock that was set.
const ROUND_TRIP_MAX: u32 = 10 << 16;
/// Payload type of comfort noise (RFC 3389): a sign of life, not audio.
const COMFORT_NOISE: u8 = 13;

/// Bytes of the largest report as it leaves.
pub const SEALED_REPORT_LEN_MAX: usize = REPORT_LEN_MAX + CONTROL_GROWTH;

/// See the module.
#[derive(Debug)]
pub struct RtpLeg {
    port: Port,
    remote: Option<RemoteMedia>,
    latch: Latch,
    jitter: JitterBuffer,
    keys: KeyReceiver,
    egress: Egress,
    sealed: Option<Box<Sealed>>,
    reception: Reception,
    far: Option<Far>,
    last_valid: Option<Now>,
    watched_since: Option<Now>,
    lost: bool,
    ticks: u32,
}

/// Both directions of a stream under SRTP.
#[derive(Debug)]
struct Sealed {
    keys: SrtpKeys,
    out: Srtp,
    inward: Srtp,
    /// The newest packet as it leaves.
    wire: [u8; PACKET_LEN + TAG_LEN_MAX],
}

impl Sealed {
    fn new(keys: SrtpKeys) -> Self {
        Self {
            keys,
            out: Srtp::new(keys.suite, &keys.ours),
            inward: Srtp::new(keys.suite, &keys.theirs),
            wire: [0; PACKET_LEN + TAG_LEN_MAX],
        }
    }

    /// Takes new keys. A direction whose key stays goes on where it is: its packets are
    /// counted, and a count that began again would seal two packets alike.
    fn renew(&mut self, keys: SrtpKeys) {
        let before = core::mem::replace(&mut self.keys, keys);
        if (before.suite, before.ours) != (keys.suite, keys.ours) {
            self.out = Srtp::new(keys.suite, &keys.ours);
        }
        if (before.suite, before.theirs) != (keys.suite, keys.theirs) {
            self.inward = Srtp::new(keys.suite, &keys.theirs);
        }
    }
}

/// One packet that leaves.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'b> {
    /// Where to.
    pub to: SocketAddr,
    /// What is in it.
    pub plain: &'b [u8],
    /// Its bytes on the way: the same, or sealed.
    pub wire: &'b [u8],
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
            sealed: None,
            reception: Reception::default(),
            far: None,
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
        match (&mut self.sealed, remote.srtp) {
            (Some(sealed), Some(keys)) => sealed.renew(keys),
            (sealed, keys) => *sealed = keys.map(|keys| Box::new(Sealed::new(keys))),
        }
        if self.remote.is_none_or(|before| before.codec != remote.codec) {
            self.jitter.restart(remote.codec);
        }
        self.remote = Some(remote);
        // A held peer was allowed to be silent: its time starts again.
        self.watched_since = self.watched_since.map(|_| now);
        self.last_valid = None;
    }

    /// Opens one datagram of the RTP port in its place, before anything else looks at it. A
    /// packet may come twice; only its first is opened.
    pub fn open<'b>(&mut self, datagram: &'b mut [u8]) -> Result<&'b [u8], SrtpError> {
        match &mut self.sealed {
            Some(sealed) => sealed.inward.open(datagram),
            None => Ok(datagram),
        }
    }

    /// The same for the RTCP port.
    pub fn open_control<'b>(&mut self, datagram: &'b mut [u8]) -> Result<&'b [u8], SrtpError> {
        match &mut self.sealed {
            Some(sealed) => sealed.inward.open_control(datagram),
            None => Ok(datagram),
        }
    }

    /// Takes one packet that was opened.
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

    /// Sends this tick's frame. `None` before the agreement and while the direction forbids
    /// it.
    pub fn send(&mut self, frame: &Frame) -> Option<Outgoing<'_>> {
        let agreed = agreed(self.remote.as_ref()?);
        let to = self.latch.destination()?;
        let plain = self.egress.tick(agreed, frame)?;
        sealed(&mut self.sealed, to, plain)
    }

    /// Passes on a packet of another leg as it is, where this leg has agreed on its codec.
    pub fn relay(&mut self, now: Now, codec: Codec, packet: &RtpPacket<'_>) -> Option<Outgoing<'_>> {
        let remote = self.remote.as_ref().filter(|remote| remote.codec == codec)?;
        let to = self.latch.destination()?;
        let plain = self.egress.relay(now, agreed(remote), packet)?;
        sealed(&mut self.sealed, to, plain)
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
        buffer: &'b mut [u8; SEALED_REPORT_LEN_MAX],
    ) -> Option<(SocketAddr, &'b [u8])> {
        self.ticks += 1;
        self.remote?;
        if !self.ticks.is_multiple_of(REPORT_TICKS) {
            return None;
        }
        let mut to = self.latch.destination()?;
        to.set_port(to.port().checked_add(1)?);
        let (ssrc, timestamp, packets, octets) = self.egress.sent();
        let heard = self.reception.heard(now);
        let report = Report { ssrc, now, timestamp, packets, octets, heard };
        let len = report.write(buffer.first_chunk_mut()?).len();
        let bytes = match &mut self.sealed {
            Some(sealed) => sealed.out.seal_control(buffer, len)?,
            None => buffer.get(..len)?,
        };
        Some((to, bytes))
    }

    /// Takes a compound packet of the RTCP port that was opened. It changes figures, and
    /// nothing else.
    pub fn control(&mut self, now: Now, packet: &[u8]) {
        let told = rtcp::told(packet, self.egress.sent().0);
        if let Some(stamp) = told.stamp {
            self.reception.report = Some((stamp, now));
        }
        if let Some(heard) = told.heard {
            let there_and_back =
                rtcp::middle(now).wrapping_sub(heard.last_report).wrapping_sub(heard.since_report);
            let known = heard.last_report != 0 && there_and_back < ROUND_TRIP_MAX;
            self.far = Some(Far {
                lost: heard.lost,
                jitter: heard.jitter,
                round_trip_ms: known.then_some(((u64::from(there_and_back) * 1_000) >> 16) as u32),
            });
        }
    }

    /// How well it is heard so far.
    pub fn quality(&self) -> Quality {
        let (received, expected) = self.reception.counted();
        let (_, _, sent, _) = self.egress.sent();
        let jitter = (self.reception.jitter >> 4) as u32;
        quality::of(&Counted { received, expected, jitter, sent, far: self.far })
    }

    /// What the jitter buffer counted.
    pub const fn jitter_counters(&self) -> JitterCounters {
        self.jitter.counters()
    }
}

/// A packet as it leaves.
fn sealed<'b>(sealed: &'b mut Option<Box<Sealed>>, to: SocketAddr, plain: &'b [u8]) -> Option<Outgoing<'b>> {
    let wire = match sealed {
        None => plain,
        Some(sealed) => {
            let Sealed { out, wire, .. } = &mut **sealed;
            wire.get_mut(..plain.len())?.copy_from_slice(plain);
            out.seal(wire, plain.len())?
        }
    };
    Some(Outgoing { to, plain, wire })
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
    /// Received and expected of streams before this one.
    earlier: (u64, u64),
    /// The far end's last sender report, and when it came.
    report: Option<(u32, Now)>,
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
            let earlier = self.counted();
            *self = Self { ssrc: Some(packet.ssrc), base: start, highest: start, earlier, ..Self::default() };
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

    /// Packets that came and packets that should have, of all streams of the leg.
    fn counted(&self) -> (u64, u64) {
        let expected = self.ssrc.map_or(0, |_| self.highest.wrapping_sub(self.base).wrapping_add(1));
        // What came twice fills no hole.
        let received = self.received.min(expected);
        (self.earlier.0 + u64::from(received), self.earlier.1 + u64::from(expected))
    }

    /// The report block; its fraction covers the time since the last one.
    fn heard(&mut self, now: Now) -> Option<Heard> {
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
            last_report: self.report.map_or(0, |(stamp, _)| stamp),
            since_report: self.report.map_or(0, |(_, at)| rtcp::middle(now).wrapping_sub(rtcp::middle(at))),
        })
    }
}
