//! A telephone in virtual time: its own SIP stack, one outgoing tone, and for each received
//! 20 ms frame the tones that were in it. It reacts as its habits say.

use std::net::SocketAddr;
use std::time::Duration;

use edge_media::media::{FRAME_SAMPLES, codec, rtp, tone};
use edge_media::sip::{
    Codec, DialogKey, Direction, Flow, LocalMedia, RemoteMedia, SipCommand, SipConfig, SipEvent, SipOutput,
    Stack, Transport,
};
use handoff::clock::Now;

/// The tones of the system's sources, each on its own bin of a 20 ms window.
pub mod tones {
    /// The caller.
    pub const CALLER: u32 = 450;
    /// The voice agent.
    pub const VOICE_AGENT: u32 = 650;
    /// The first partial of the hold bed's test tone.
    pub const HOLD: u32 = 850;
    /// The human agent.
    pub const HUMAN: u32 = 1_000;
    /// The whisper's test tone.
    pub const WHISPER: u32 = 1_400;

    /// A tone is in a frame when it is well above what rounding leaves, in dB.
    const AUDIBLE_DB: f64 = -30.0;

    /// Which of the tones are in 20 ms of sound.
    pub fn in_frame(samples: &[i16]) -> Vec<u32> {
        [CALLER, VOICE_AGENT, HOLD, HUMAN, WHISPER]
            .into_iter()
            .filter(|hz| edge_media::media::tone::level(samples, *hz) > AUDIBLE_DB)
            .collect()
    }
}

/// A frame below this is silence.
const SILENT_DBFS: f64 = -50.0;

/// What a phone does by itself when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Rings, answers after this long.
    Answers(Duration),
    /// Rings for ever.
    Rings,
    /// Refuses with this status.
    Refuses(u16),
}

/// A telephone.
pub struct Phone {
    /// Its SIP stack.
    pub stack: Stack,
    /// Where it receives SIP.
    pub sip: SocketAddr,
    /// Where it receives RTP.
    pub rtp: SocketAddr,
    /// What it does when called.
    pub habit: Habit,
    /// Everything that its stack told it.
    pub events: Vec<SipEvent>,
    /// When each frame came, and which of the known tones were in it.
    pub heard: Vec<(Now, Vec<u32>)>,
    /// It listens to what it receives; one that does not is quicker.
    pub listens: bool,
    /// All that was heard, as samples.
    pub sound: Vec<i16>,
    /// When each frame came that could be heard at all (above −50 dBFS).
    pub loud: Vec<Now>,
    /// Breaks of the received stream.
    pub breaks: u32,
    /// What it says, over and over: whole frames.
    voice: Vec<i16>,
    spoken: usize,
    remote: Option<RemoteMedia>,
    offered: Option<RemoteMedia>,
    answer_at: Option<(Now, DialogKey)>,
    key: Option<KeyPress>,
    seq: u16,
    timestamp: u32,
    last: Option<(u32, u16, u32)>,
}

struct KeyPress {
    event: u8,
    timestamp: u32,
    packets_left: u16,
}

/// Bytes on their way.
#[derive(Debug)]
pub struct Sent {
    /// From this socket.
    pub from: SocketAddr,
    /// To this one.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

impl Phone {
    /// A phone that says `frequency` whenever it may.
    pub fn new(
        sip: SocketAddr,
        rtp: SocketAddr,
        frequency: u32,
        habit: Habit,
        config: SipConfig,
        seed: u64,
    ) -> Self {
        Self {
            stack: Stack::new(config, seed.into()),
            sip,
            rtp,
            habit,
            events: Vec::new(),
            heard: Vec::new(),
            listens: true,
            sound: Vec::new(),
            loud: Vec::new(),
            breaks: 0,
            // A second of the tone holds whole periods.
            voice: tone::sine(frequency, 8_000, FRAME_SAMPLES * 50),
            spoken: 0,
            remote: None,
            offered: None,
            answer_at: None,
            key: None,
            seq: seed as u16,
            timestamp: (seed >> 16) as u32,
            last: None,
        }
    }

    /// Its media as it offers it.
    pub fn local(&self) -> LocalMedia {
        LocalMedia { ip: self.rtp.ip(), port: self.rtp.port(), direction: Direction::SendRecv }
    }

    /// The dialog of the last call that reached it.
    pub fn dialog(&self) -> Option<DialogKey> {
        self.events.iter().rev().find_map(|event| match event {
            SipEvent::Invited { dialog, .. } => Some(*dialog),
            SipEvent::Ringing(_)
            | SipEvent::Answered(..)
            | SipEvent::Confirmed(..)
            | SipEvent::Ended { .. }
            | SipEvent::Reinvited(..)
            | SipEvent::ReinviteFailed(..)
            | SipEvent::PeerMedia(..)
            | SipEvent::Digit(..)
            | SipEvent::Registered { .. }
            | SipEvent::RegisterResult { .. } => None,
        })
    }

    /// Gives its stack an order.
    pub fn order(&mut self, now: Now, command: SipCommand) -> Vec<Sent> {
        if let SipCommand::Answer(..) = command {
            self.remote = self.offered;
        }
        let outputs = self.stack.command(now, command);
        self.carry(now, outputs)
    }

    /// Says this from now on, over and over; nothing is silence.
    pub fn says(&mut self, mut samples: Vec<i16>) {
        samples.resize(samples.len().div_ceil(FRAME_SAMPLES).max(1) * FRAME_SAMPLES, 0);
        self.voice = samples;
        self.spoken = 0;
    }

    /// Presses a key for 100 ms (RFC 4733).
    pub fn press(&mut self, key: char) {
        let event = "0123456789*#ABCD".find(key).and_then(|index| u8::try_from(index).ok());
        self.key = event.map(|event| KeyPress { event, timestamp: self.timestamp, packets_left: 8 });
    }

    /// SIP bytes arrived.
    pub fn receive(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) -> Vec<Sent> {
        let flow = Flow { transport: Transport::Udp, peer: from, connection: 0 };
        let outputs = self.stack.receive(now, flow, bytes);
        self.carry(now, outputs)
    }

    /// RTP bytes arrived.
    pub fn hear(&mut self, now: Now, bytes: &[u8]) {
        let Ok(packet) = rtp::RtpPacket::parse(bytes) else { return };
        if let Some((ssrc, seq, timestamp)) = self.last {
            let continuous = packet.ssrc == ssrc
                && packet.sequence == seq.wrapping_add(1)
                && packet.timestamp == timestamp.wrapping_add(160);
            self.breaks += u32::from(!continuous && packet.payload_type < 96);
        }
        self.last = Some((packet.ssrc, packet.sequence, packet.timestamp));
        if packet.payload_type == 0 && self.listens {
            let samples: Vec<i16> =
                packet.payload.iter().map(|byte| codec::decode(Codec::Pcmu, *byte)).collect();
            if tone::loudness(&samples) > SILENT_DBFS {
                self.loud.push(now);
            }
            self.heard.push((now, tones::in_frame(&samples)));
            self.sound.extend(samples);
        }
    }

    /// Twenty milliseconds have passed: timers, and one packet out.
    pub fn tick(&mut self, now: Now) -> Vec<Sent> {
        let mut sent = Vec::new();
        if self.stack.next_timeout().is_some_and(|due| due <= now) {
            let outputs = self.stack.handle_timeout(now);
            sent.extend(self.carry(now, outputs));
        }
        if let Some((at, dialog)) = self.answer_at
            && at <= now
        {
            self.answer_at = None;
            let local = self.local();
            sent.extend(self.order(now, SipCommand::Answer(dialog, local)));
        }
        sent.extend(self.speak());
        sent
    }

    fn speak(&mut self) -> Option<Sent> {
        let remote = self.remote?;
        let timestamp = self.timestamp;
        self.timestamp = self.timestamp.wrapping_add(160);
        let from = self.spoken % (self.voice.len() / FRAME_SAMPLES).max(1) * FRAME_SAMPLES;
        self.spoken += 1;
        let samples = self.voice.get(from..from + FRAME_SAMPLES).unwrap_or_default().to_vec();
        if !matches!(remote.direction, Direction::SendRecv | Direction::SendOnly) {
            return None;
        }
        self.seq = self.seq.wrapping_add(1);
        let mut buffer = [0_u8; 512];
        let (payload_type, marker, timestamp, payload) = match (&mut self.key, remote.telephone_event) {
            (Some(press), Some(payload_type)) => {
                let first = press.packets_left == 8;
                press.packets_left -= 1;
                let end = if press.packets_left < 3 { 0x80 } else { 0 };
                let duration = (8 - press.packets_left) * 160;
                let [high, low] = duration.to_be_bytes();
                let payload = vec![press.event, end | 10, high, low];
                let at = press.timestamp;
                if press.packets_left == 0 {
                    self.key = None;
                }
                (payload_type, first, at, payload)
            }
            _ => (0, false, timestamp, samples.iter().map(|s| codec::encode(Codec::Pcmu, *s)).collect()),
        };
        let packet = rtp::RtpPacket {
            payload_type,
            marker,
            sequence: self.seq,
            timestamp,
            ssrc: u32::from(self.rtp.port()),
            payload: &payload,
        };
        let bytes = packet.write(&mut buffer)?.to_vec();
        Some(Sent { from: self.rtp, to: remote.rtp, bytes })
    }

    fn carry(&mut self, now: Now, outputs: Vec<SipOutput>) -> Vec<Sent> {
        let mut sent = Vec::new();
        for output in outputs {
            match output {
                SipOutput::Send(flow, bytes) => sent.push(Sent { from: self.sip, to: flow.peer, bytes }),
                SipOutput::Close(_) => {}
                SipOutput::Event(event) => {
                    sent.extend(self.react(now, &event));
                    self.events.push(event);
                }
            }
        }
        sent
    }

    fn react(&mut self, now: Now, event: &SipEvent) -> Vec<Sent> {
        match event {
            SipEvent::Invited { dialog, remote, .. } => {
                self.remote = None;
                self.offered = *remote;
                match self.habit {
                    Habit::Answers(after) => {
                        self.answer_at = Some((now + after, *dialog));
                        self.order(now, SipCommand::Ring(*dialog))
                    }
                    Habit::Rings => self.order(now, SipCommand::Ring(*dialog)),
                    Habit::Refuses(status) => self.order(now, SipCommand::Reject(*dialog, status)),
                }
            }
            SipEvent::Answered(_, remote)
            | SipEvent::Reinvited(_, remote)
            | SipEvent::PeerMedia(_, remote)
            | SipEvent::Confirmed(_, Some(remote)) => {
                self.remote = Some(*remote);
                Vec::new()
            }
            SipEvent::Ended { .. } => {
                self.remote = None;
                self.answer_at = None;
                Vec::new()
            }
            SipEvent::Confirmed(_, None)
            | SipEvent::Ringing(_)
            | SipEvent::Digit(..)
            | SipEvent::ReinviteFailed(..)
            | SipEvent::Registered { .. }
            | SipEvent::RegisterResult { .. } => Vec::new(),
        }
    }
}
