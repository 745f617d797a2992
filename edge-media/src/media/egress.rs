//! The one writer of an outgoing RTP stream. Sources come and go behind it; SSRC, sequence
//! number and timestamp are its own and never break: the sequence counts packets sent, the
//! timestamp counts time, also while the far end forbids us to send. What may not be sent is
//! dropped, never kept for later. RFC 3550 section 5.1, RFC 4733.

use super::FRAME_SAMPLES;
use super::codec::{self, Frame};
use super::dtmf::{self, KeySender};
use super::rtp::{HEADER_LEN, RtpPacket};
use super::tone;
use crate::sip::{Codec, Direction};

/// Bytes of the largest packet that we send.
pub const PACKET_LEN: usize = HEADER_LEN + FRAME_SAMPLES;

/// See the module.
#[derive(Clone, Debug)]
pub struct Egress {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    keys: KeySender,
    packets: u32,
    octets: u32,
    buffer: [u8; PACKET_LEN],
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
            packets: 0,
            octets: 0,
            buffer: [0; PACKET_LEN],
        }
    }

    /// The next packet is the first of another source.
    pub fn source_changed(&mut self) {
        self.marker = true;
    }

    /// Queues keys; gives the number that was refused.
    pub fn send_keys(&mut self, keys: &str) -> usize {
        self.keys.send(keys)
    }

    /// The packet of this tick; `None` while the direction forbids one.
    pub fn tick(&mut self, agreed: Agreed, frame: &Frame) -> Option<&[u8]> {
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(FRAME_SAMPLES as u32);
        let key = self.keys.tick();
        if !agreed.may_send() {
            self.marker = true;
            return None;
        }
        let audio;
        let event;
        let (payload_type, timestamp, marker, payload): (_, _, _, &[u8]) = match (key, agreed.telephone_event)
        {
            (Some(key), Some(payload_type)) => {
                event = key.payload;
                let start = timestamp.wrapping_sub(u32::from(key.age_ticks) * FRAME_SAMPLES as u32);
                (payload_type, start, key.first, &event)
            }
            (Some(key), None) if key.sounds => {
                let start = usize::from(key.age_ticks) * FRAME_SAMPLES;
                let tones = dtmf::key_tones(key.key).unwrap_or_default();
                audio = tone::dual(tones, start).coded(agreed.codec);
                (codec::payload_type(agreed.codec), timestamp, key.first, &audio)
            }
            (Some(_) | None, _) => {
                audio = frame.coded(agreed.codec);
                (codec::payload_type(agreed.codec), timestamp, core::mem::take(&mut self.marker), &audio)
            }
        };
        let packet =
            RtpPacket { marker, payload_type, sequence: self.sequence, timestamp, ssrc: self.ssrc, payload };
        let bytes = packet.write(&mut self.buffer)?;
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(bytes.len() as u32 - HEADER_LEN as u32);
        Some(bytes)
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
        egress.source_changed();
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

    proptest! {
        #[test]
        fn the_timeline_never_goes_back(
            steps in proptest::collection::vec((0_u8..4, 0_u32..9), 1..200)
        ) {
            let mut egress = Egress::new([1, 0, 0]);
            let mut last: Option<(u16, u32)> = None;
            for (step, amount) in steps {
                match step {
                    0 => egress.skip(amount),
                    1 => egress.source_changed(),
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
