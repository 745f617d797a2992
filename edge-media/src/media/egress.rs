//! The one writer of an outgoing RTP stream. Sources come and go behind it; SSRC, sequence
//! number and timestamp are its own and never break: the sequence counts packets sent, the
//! timestamp counts time, also while the far end forbids us to send. What may not be sent is
//! dropped, never kept for later. Packets of a leg with the same codec are relayed as they
//! arrive, by a fixed offset into the same timeline, which keeps their pace for as long; where
//! they fail to come, the tick takes over and fills what they owe, and what comes too late for
//! its place is dropped. RFC 3550 section 5.1, RFC 4733.

use std::time::Duration;

use handoff::clock::Now;

use super::codec::{self, Frame};
use super::dtmf::{self, KeySender};
use super::rtp::{HEADER_LEN, RtpPacket};
use super::tone;
use super::{FRAME_SAMPLES, FRAMES_AT_ONCE_MAX, TICK};
use crate::sip::{Codec, Direction};

/// Bytes of the largest packet that we send.
pub const PACKET_LEN: usize = HEADER_LEN + FRAME_SAMPLES;

/// The tick takes over when nothing was relayed for two frames. Sooner, and every late packet
/// would be doubled; later, and the far end would be left to itself.
const RELAY_SILENCE: Duration = Duration::from_millis(40);
/// Relayed packets that may come too late in a row before the offset is taken anew: the
/// delay of the path has grown. Until then their audio plays through the jitter buffer.
const RELAY_LATE_MAX: u8 = 10;
/// Lost packets that are passed on as a hole in the sequence, so that the far end conceals
/// them. A larger hole is a break, and counts on without one.
const RELAY_HOLE_MAX: u16 = 5;
/// A relayed timestamp this far from our clock (one second) belongs to another timeline.
const RELAY_JUMP: u32 = 8_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Egress {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    keys: KeySender,
    /// Timestamp of the newest audio that was sent.
    last: Option<u32>,
    relay: Option<Relay>,
    packets: u32,
    octets: u32,
    buffer: [u8; PACKET_LEN],
}

/// A stream that is passed on.
#[derive(Clone, Copy, Debug)]
struct Relay {
    ssrc: u32,
    /// Our timestamp minus theirs.
    offset: u32,
    sequence: u16,
    at: Now,
    /// The newest packet of ours was a relayed one.
    live: bool,
    late: u8,
}

/// One frame's place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// When the frame is due, or was, where the tick is late.
    pub at: Now,
    /// Frames that the same late tick sends after it.
    pub more: u32,
}

/// Who serves a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Relayed packets do, on their own time.
    Relay,
    /// The tick does, after so many frames that the relay owes.
    Tick {
        /// Frames to be sent before.
        owed: u32,
    },
}

/// How the stream is to be written at this tick, as agreed with the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The codec of the audio.
    pub codec: Codec,
    /// The payload type of keys; without one they are sent as tones.
    pub telephone_event: Option<u8>,
    /// Our view of the direction.
    pub direction: Direction,
}

impl Agreed {
    /// Whether we may send.
    pub const fn may_send(self) -> bool {
        matches!(self.direction, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether we may expect to receive.
    pub const fn may_receive(self) -> bool {
        matches!(self.direction, Direction::SendRecv | Direction::RecvOnly)
    }
}

impl Egress {
    /// A new stream; the bits are random, so that nobody can guess it (RFC 3550 section 5.1).
    pub fn new(random: [u32; 3]) -> Self {
        let [ssrc, sequence, timestamp] = random;
        Self {
            ssrc,
            sequence: sequence as u16,
            timestamp,
            marker: true,
            keys: KeySender::default(),
            last: None,
            relay: None,
            packets: 0,
            octets: 0,
            buffer: [0; PACKET_LEN],
        }
    }

    /// The next packet is the first of another source. Gives the frames that the source before
    /// still owed.
    pub fn source_changed(&mut self, slot: Slot) -> u32 {
        let relay = self.relay.take().filter(|relay| relay.live);
        let owed = relay.map_or(0, |relay| self.owed(slot, relay.at));
        self.marker = true;
        owed
    }

    /// Passes on a packet of audio in the agreed codec. `None` where it may not be sent, has
    /// no place in the timeline, or is left to the tick.
    pub fn relay(&mut self, now: Now, agreed: Agreed, packet: &RtpPacket<'_>) -> Option<&[u8]> {
        if !agreed.may_send() || self.keys.is_busy() || packet.payload.len() != FRAME_SAMPLES {
            self.relay = None;
            return None;
        }
        let next = self.next_timestamp();
        let fresh = Relay {
            ssrc: packet.ssrc,
            offset: next.wrapping_sub(packet.timestamp),
            sequence: packet.sequence.wrapping_sub(1),
            at: now,
            live: false,
            late: 0,
        };
        let known = self.relay.filter(|relay| relay.ssrc == packet.ssrc && relay.late < RELAY_LATE_MAX);
        let away = |relay: &Relay| packet.timestamp.wrapping_add(relay.offset).wrapping_sub(next) as i32;
        let mut relay = known.filter(|relay| away(relay).unsigned_abs() < RELAY_JUMP).unwrap_or(fresh);
        let timestamp = packet.timestamp.wrapping_add(relay.offset);
        if self.last.is_some_and(|last| !follows(timestamp, last)) {
            relay.late += 1;
            self.relay = Some(relay);
            return None;
        }
        let step = packet.sequence.wrapping_sub(relay.sequence);
        // A number that is missing without any time missing was no audio: keys that a phone
        // sends between its frames are not passed on, and leave no hole.
        let frames = self.last.map_or(1, |last| timestamp.wrapping_sub(last) / FRAME_SAMPLES as u32);
        let lost = u16::try_from(frames.saturating_sub(1)).unwrap_or(u16::MAX);
        let hole =
            if relay.live && (2..=RELAY_HOLE_MAX + 1).contains(&step) { lost.min(step - 1) } else { 0 };
        self.relay = Some(Relay { sequence: packet.sequence, at: now, live: true, late: 0, ..relay });
        self.sequence = self.sequence.wrapping_add(hole);
        let marker = core::mem::take(&mut self.marker);
        self.last = Some(timestamp);
        self.timestamp = timestamp.wrapping_add(FRAME_SAMPLES as u32);
        self.write(codec::payload_type(agreed.codec), marker, timestamp, packet.payload)
    }

    /// Who serves this slot.
    pub fn turn(&mut self, slot: Slot) -> Turn {
        let Some(relay) = self.relay.as_mut().filter(|relay| relay.live) else {
            return Turn::Tick { owed: 0 };
        };
        let since = relay.at;
        if slot.at.since(since) < RELAY_SILENCE && !self.keys.is_busy() {
            return Turn::Relay;
        }
        relay.live = false;
        Turn::Tick { owed: self.owed(slot, since) }
    }

    /// Frames before that of this slot which the relay did not bring since its last packet, as
    /// many as may be sent at once; the timeline steps over the rest.
    fn owed(&mut self, slot: Slot, last: Now) -> u32 {
        let frames = slot.at.since(last).as_micros() / TICK.as_micros();
        let owed = u32::try_from(frames).unwrap_or(u32::MAX).saturating_sub(1);
        let sent = owed.min((FRAMES_AT_ONCE_MAX - 1).saturating_sub(slot.more));
        if owed > sent {
            self.skip(owed - sent);
        }
        sent
    }

    /// Queues keys; gives the number that was refused.
    pub fn send_keys(&mut self, keys: &str) -> usize {
        self.keys.send(keys)
    }

    /// The packet of this tick; `None` while the direction forbids one.
    pub fn tick(&mut self, agreed: Agreed, frame: &Frame) -> Option<&[u8]> {
        let timestamp = self.next_timestamp();
        self.timestamp = timestamp.wrapping_add(FRAME_SAMPLES as u32);
        let key = self.keys.tick();
        if !agreed.may_send() {
            self.marker = true;
            return None;
        }
        let audio_type = codec::payload_type(agreed.codec);
        match (key, agreed.telephone_event) {
            (Some(key), Some(event_type)) => {
                let start = timestamp.wrapping_sub(u32::from(key.age_ticks) * FRAME_SAMPLES as u32);
                self.write(event_type, key.first, start, &key.payload)
            }
            (Some(key), None) if key.sounds => {
                self.last = Some(timestamp);
                let tones = dtmf::key_tones(key.key).unwrap_or_default();
                let audio = tone::dual(tones, usize::from(key.age_ticks) * FRAME_SAMPLES);
                self.write(audio_type, key.first, timestamp, &audio.coded(agreed.codec))
            }
            (Some(_) | None, _) => {
                self.last = Some(timestamp);
                let marker = core::mem::take(&mut self.marker);
                self.write(audio_type, marker, timestamp, &frame.coded(agreed.codec))
            }
        }
    }

    /// The timestamp of the next frame: that of our clock, or behind what was sent already.
    fn next_timestamp(&self) -> u32 {
        match self.last {
            Some(last) if !follows(self.timestamp, last) => last.wrapping_add(FRAME_SAMPLES as u32),
            Some(_) | None => self.timestamp,
        }
    }

    fn write(&mut self, payload_type: u8, marker: bool, timestamp: u32, payload: &[u8]) -> Option<&[u8]> {
        let (sequence, ssrc) = (self.sequence, self.ssrc);
        let packet = RtpPacket { marker, payload_type, sequence, timestamp, ssrc, payload };
        let bytes = packet.write(&mut self.buffer)?;
        self.sequence = sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        Some(bytes)
    }

    /// The clock lost these frames. What is relayed keeps its own time.
    pub fn lost(&mut self, frames: u32) {
        if !self.relay.is_some_and(|relay| relay.live) {
            self.skip(frames);
        }
    }

    /// Time that passed without a chance to send: the timestamp goes on, the sequence waits.
    pub fn skip(&mut self, frames: u32) {
        self.timestamp = self.timestamp.wrapping_add(frames.wrapping_mul(FRAME_SAMPLES as u32));
        self.marker = true;
    }

    /// SSRC, timestamp of the next frame, packets and payload bytes sent, for reports.
    pub const fn sent(&self) -> (u32, u32, u32, u32) {
        (self.ssrc, self.timestamp, self.packets, self.octets)
    }
}

/// Whether a frame at `timestamp` lies wholly behind the frame at `before`.
fn follows(timestamp: u32, before: u32) -> bool {
    timestamp.wrapping_sub(before) as i32 >= FRAME_SAMPLES as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN: Agreed =
        Agreed { codec: Codec::Pcma, telephone_event: Some(101), direction: Direction::SendRecv };

    fn heads(egress: &mut Egress, agreed: Agreed, ticks: usize) -> Vec<(bool, u8, u16, u32)> {
        (0..ticks)
            .filter_map(|_| {
                let bytes = egress.tick(agreed, &Frame::Silence)?;
                let packet = RtpPacket::parse(bytes).unwrap();
                Some((packet.marker, packet.payload_type, packet.sequence, packet.timestamp))
            })
            .collect()
    }

    #[test]
    fn a_new_source_is_marked_and_the_timeline_goes_on() {
        let mut egress = Egress::new([1, 65_535, u32::MAX - 159]);
        let mut seen = heads(&mut egress, OPEN, 2);
        egress.source_changed(slot(0));
        seen.extend(heads(&mut egress, OPEN, 2));
        let start = u32::MAX - 159;
        assert_eq!(seen, [(true, 8, 65_535, start), (false, 8, 0, 0), (true, 8, 1, 160), (false, 8, 2, 320)]);
    }

    #[test]
    fn a_forbidden_direction_sends_nothing_and_bursts_nothing_afterwards() {
        for direction in [Direction::RecvOnly, Direction::Inactive] {
            let mut egress = Egress::new([1, 10, 0]);
            heads(&mut egress, OPEN, 1);
            assert_eq!(heads(&mut egress, Agreed { direction, ..OPEN }, 100), []);
            assert_eq!(heads(&mut egress, OPEN, 1), [(true, 8, 11, 101 * 160)]);
        }
    }

    #[test]
    fn a_key_takes_the_place_of_audio_with_the_timestamp_of_its_start() {
        let mut egress = Egress::new([1, 0, 0]);
        heads(&mut egress, OPEN, 1);
        egress.send_keys("5");
        let seen = heads(&mut egress, OPEN, 9);
        let events: Vec<_> = seen.iter().filter(|head| head.1 == 101).collect();
        assert_eq!(events.len(), 7);
        assert!(events.iter().all(|head| head.3 == 160), "{events:?}");
        assert!(seen.iter().zip(1..).all(|(head, sequence)| head.2 == sequence));
        assert_eq!(seen[7].3, 8 * 160, "audio goes on where it would be");
    }

    #[test]
    fn without_telephone_events_a_key_is_a_pair_of_tones() {
        let mut egress = Egress::new([1, 0, 0]);
        egress.send_keys("1");
        let agreed = Agreed { telephone_event: None, ..OPEN };
        let bytes = egress.tick(agreed, &Frame::Silence).unwrap();
        let samples: Vec<_> =
            RtpPacket::parse(bytes).unwrap().payload.iter().map(|b| codec::decode(Codec::Pcma, *b)).collect();
        assert!(tone::level(&samples, 697) > -20.0 && tone::level(&samples, 1_209) > -20.0);
        assert!(tone::level(&samples, 941) < -30.0);
    }

    /// Relays packet `number` of a far stream `at` that many milliseconds.
    fn relay(egress: &mut Egress, at: u64, number: u16) -> Option<(u16, u32)> {
        relay_frame(egress, at, number, number)
    }

    /// The same where other packets took numbers between the frames.
    fn relay_frame(egress: &mut Egress, at: u64, number: u16, frame: u16) -> Option<(u16, u32)> {
        let packet = RtpPacket {
            marker: false,
            payload_type: 8,
            sequence: 100 + number,
            timestamp: 7_000 + u32::from(frame) * 160,
            ssrc: 9,
            payload: &[1; FRAME_SAMPLES],
        };
        let bytes = egress.relay(Now::from_millis(at), OPEN, &packet)?;
        RtpPacket::parse(bytes).map(|sent| (sent.sequence, sent.timestamp)).ok()
    }

    fn slot(at: u64) -> Slot {
        Slot { at: Now::from_millis(at), more: 0 }
    }

    /// What the tick at that millisecond sends.
    fn tick(egress: &mut Egress, at: u64) -> Vec<(u16, u32)> {
        let frames = match egress.turn(slot(at)) {
            Turn::Relay => 0,
            Turn::Tick { owed } => owed as usize + 1,
        };
        heads(egress, OPEN, frames).iter().map(|head| (head.2, head.3)).collect()
    }

    #[test]
    fn relayed_packets_continue_the_timeline_of_the_tick_and_back() {
        let mut egress = Egress::new([1, 0, 0]);
        assert_eq!(tick(&mut egress, 0), [(0, 0)]);
        for number in 0..5_u16 {
            let at = u64::from(number) * 20 + 5;
            assert_eq!(relay(&mut egress, at, number), Some((number + 1, u32::from(number + 1) * 160)));
            assert_eq!(tick(&mut egress, at + 15), [], "the tick is served");
        }
        assert_eq!(egress.source_changed(slot(120)), 0);
        assert_eq!(tick(&mut egress, 120), [(6, 6 * 160)]);
    }

    #[test]
    fn a_lost_packet_stays_a_hole_and_the_tick_takes_over_when_more_are_missing() {
        let mut egress = Egress::new([1, 0, 0]);
        tick(&mut egress, 0);
        assert_eq!(relay(&mut egress, 5, 0), Some((1, 160)));
        assert_eq!(tick(&mut egress, 20), []);
        assert_eq!(tick(&mut egress, 40), []);
        assert_eq!(relay(&mut egress, 44, 2), Some((3, 480)), "number 1 was lost");
        assert_eq!([60, 80].map(|at| tick(&mut egress, at)), [[], []]);
        assert_eq!(tick(&mut egress, 100), [(4, 640), (5, 800)], "56 ms without a packet");
        assert_eq!(relay(&mut egress, 101, 3), None, "too late for its place");
        assert_eq!(relay(&mut egress, 102, 5), Some((6, 960)), "in its place again");
    }

    #[test]
    fn a_timestamp_half_a_circle_away_begins_another_timeline() {
        let mut egress = Egress::new([1, 2, 3]);
        let mut relayed = |number: u16, timestamp: u32| {
            let payload = [0; FRAME_SAMPLES];
            let packet = RtpPacket {
                marker: false,
                payload_type: 8,
                sequence: number,
                timestamp,
                ssrc: 9,
                payload: &payload,
            };
            let sent = egress.relay(Now::from_millis(20 * u64::from(number)), OPEN, &packet)?;
            RtpPacket::parse(sent).ok().map(|packet| packet.timestamp)
        };
        let first = relayed(1, 0).unwrap();
        // The one difference whose magnitude no signed number holds.
        assert_eq!(relayed(2, 0x8000_00a0), Some(first.wrapping_add(160)));
    }

    #[test]
    fn whatever_the_relay_owes_is_filled_and_a_long_stall_is_stepped_over() {
        for (silent, sent, step) in
            [(15, 1, 160), (45, 2, 160), (99, 4, 160), (119, 5, 160), (1_000, 5, 46 * 160)]
        {
            for changed in [false, true] {
                let mut egress = Egress::new([1, 0, 0]);
                tick(&mut egress, 0);
                relay(&mut egress, 5, 0);
                let owed = if changed { egress.source_changed(slot(5 + silent)) as usize } else { 0 };
                let mut seen = heads(&mut egress, OPEN, owed).iter().map(|h| (h.2, h.3)).collect::<Vec<_>>();
                seen.extend(tick(&mut egress, 5 + silent));
                if !changed && silent < 40 {
                    assert_eq!(seen, []);
                    continue;
                }
                assert_eq!(seen.len(), sent, "{silent} ms, changed: {changed}");
                assert_eq!(seen[0], (2, 160 + step), "{silent} ms, changed: {changed}");
                assert!(seen.windows(2).all(|pair| pair[1] == (pair[0].0 + 1, pair[0].1 + 160)), "{seen:?}");
            }
        }
    }

    #[test]
    fn keys_between_the_frames_of_a_phone_leave_no_hole() {
        let mut egress = Egress::new([1, 0, 0]);
        tick(&mut egress, 0);
        assert_eq!(relay(&mut egress, 5, 0), Some((1, 160)));
        for frame in 1..9 {
            let at = 5 + u64::from(frame) * 20;
            assert_eq!(tick(&mut egress, at - 5), []);
            let sent = relay_frame(&mut egress, at, 2 * frame, frame);
            assert_eq!(sent, Some((frame + 1, u32::from(frame + 1) * 160)));
        }
    }

    #[test]
    fn a_path_that_became_slower_is_relayed_again_and_moves_the_timeline_once() {
        let mut egress = Egress::new([1, 0, 0]);
        let mut last = 0;
        let mut sent = 0;
        for slot in 0..200_u64 {
            for (_, timestamp) in tick(&mut egress, slot * 20) {
                assert!(timestamp > last || slot == 0);
                last = timestamp;
                sent += 1;
            }
            let delay = if slot < 50 { 0 } else { 10 };
            let number = u16::try_from(slot).unwrap();
            let missing = (50..60).contains(&slot);
            if !missing
                && let Some((_, timestamp)) = relay(&mut egress, slot * 20 + 5, number - delay.min(number))
            {
                assert!(timestamp > last);
                last = timestamp;
                sent += 1;
            }
        }
        assert!((195..=202).contains(&sent), "{sent}");
        assert!(last.abs_diff(200 * 160) < 480, "{last}");
    }

    #[test]
    fn another_length_or_a_forbidden_direction_is_not_relayed() {
        let mut egress = Egress::new([1, 0, 0]);
        let packet = |payload: &'static [u8]| RtpPacket {
            marker: false,
            payload_type: 8,
            sequence: 1,
            timestamp: 1,
            ssrc: 1,
            payload,
        };
        assert!(egress.relay(Now::ZERO, OPEN, &packet(&[1; 80])).is_none());
        let held = Agreed { direction: Direction::RecvOnly, ..OPEN };
        assert!(egress.relay(Now::ZERO, held, &packet(&[1; 160])).is_none());
        egress.send_keys("1");
        assert!(egress.relay(Now::ZERO, OPEN, &packet(&[1; 160])).is_none(), "keys go first");
    }

    proptest! {
        #[test]
        fn relayed_or_ticked_the_audio_never_goes_back(
            steps in proptest::collection::vec((0_u64..30, any::<u16>(), 0_u8..8), 1..300)
        ) {
            let mut egress = Egress::new([1, 0, 0]);
            let (mut now, mut number, mut last) = (0, 0_u16, None::<u32>);
            for (pause, wild, step) in steps {
                now += pause;
                number = if step == 7 { wild % 9_000 } else { number + 1 };
                let sent = if step < 3 {
                    tick(&mut egress, now)
                } else {
                    relay(&mut egress, now, number).into_iter().collect()
                };
                for (_, timestamp) in sent {
                    if let Some(before) = last {
                        prop_assert!(timestamp >= before + 160, "{} after {}", timestamp, before);
                    }
                    last = Some(timestamp);
                }
            }
        }

        #[test]
        fn the_timeline_never_goes_back(
            steps in proptest::collection::vec((0_u8..4, 0_u32..9), 1..200)
        ) {
            let mut egress = Egress::new([1, 0, 0]);
            let mut last: Option<(u16, u32)> = None;
            for (step, amount) in steps {
                match step {
                    0 => egress.skip(amount),
                    1 => { egress.source_changed(slot(0)); }
                    2 => { egress.send_keys("1"); }
                    _ => {}
                }
                let direction = if amount == 0 { Direction::Inactive } else { Direction::SendRecv };
                if let Some(bytes) = egress.tick(Agreed { direction, ..OPEN }, &Frame::Silence) {
                    let packet = RtpPacket::parse(bytes).unwrap();
                    if let Some((sequence, _)) = last {
                        prop_assert_eq!(packet.sequence, sequence.wrapping_add(1));
                    }
                    if packet.payload_type == 8 {
                        if let Some((_, timestamp)) = last {
                            prop_assert!(packet.timestamp > timestamp);
                        }
                        last = Some((packet.sequence, packet.timestamp));
                    } else {
                        last = Some((packet.sequence, last.map_or(0, |l| l.1)));
                    }
                }
            }
        }
    }
}
