//! The outside of the engine in its tests: keeps every effect, and opens what is sealed.

use super::*;
use crate::media::rtcp;
use crate::media::srtp::Srtp;

#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) at: Now,
    pub(super) to: SocketAddr,
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
    pub(super) samples: Vec<i16>,
}

/// Keeps every effect.
#[derive(Debug, Default)]
pub(super) struct Ear {
    pub(super) now: RefCell<Now>,
    /// What the far end of a port opens with, where it was given keys.
    pub(super) keys: BTreeMap<Port, Srtp>,
    pub(super) packets: BTreeMap<Port, Vec<Sent>>,
    pub(super) reports_sent: u32,
    pub(super) frames: Vec<(Now, Vec<i16>)>,
    pub(super) marks: Vec<(Now, String)>,
    pub(super) digits: String,
    pub(super) events: Vec<MediaEvent>,
    pub(super) recorded: Vec<(LegId, Vec<i16>, Vec<i16>)>,
}

pub(super) fn samples(codec: Codec, bytes: &[u8]) -> Vec<i16> {
    bytes.iter().map(|byte| codec::decode(codec, *byte)).collect()
}

impl Sink for Ear {
    fn send_rtp(&mut self, port: Port, to: SocketAddr, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let opened = match self.keys.get_mut(&port) {
            Some(keys) => keys.open(&mut bytes).unwrap(),
            None => &bytes,
        };
        let packet = RtpPacket::parse(opened).unwrap();
        let codec = if packet.payload_type == 8 { Codec::Pcma } else { Codec::Pcmu };
        self.packets.entry(port).or_default().push(Sent {
            at: *self.now.borrow(),
            to,
            marker: packet.marker,
            payload_type: packet.payload_type,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: packet.ssrc,
            samples: samples(codec, packet.payload),
        });
    }

    fn send_rtcp(&mut self, port: Port, _to: SocketAddr, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let opened = match self.keys.get_mut(&port) {
            Some(keys) => keys.open_control(&mut bytes).unwrap(),
            None => &bytes,
        };
        assert!(rtcp::is_compound(opened));
        self.reports_sent += 1;
    }

    fn stream_out(&mut self, key: StreamKey, out: StreamOut) {
        assert_eq!(key, STREAM);
        let now = *self.now.borrow();
        match out {
            StreamOut::Frame(bytes) => self.frames.push((now, samples(Codec::Pcmu, &bytes[..]))),
            StreamOut::Mark(name) => self.marks.push((now, name)),
            StreamOut::Digit(key) => self.digits.push(key),
        }
    }

    fn report(&mut self, event: MediaEvent) {
        self.events.push(event);
    }

    fn record(&mut self, frame: RecordedFrame<'_>) {
        let (said, heard) = (samples(Codec::Pcmu, frame.said), samples(Codec::Pcmu, frame.heard));
        self.recorded.push((frame.leg, said, heard));
    }
}
