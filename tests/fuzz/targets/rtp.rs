//! RTP and RTCP into a media engine with two bridged legs: packets of the caller, of the human
//! agent and of a stranger, in the order of a script. Each egress stays one continuous stream,
//! a stranger without proof moves nothing, and what is written can be read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use edge_media::media::engine::{Engine, RecordedFrame, Sink};
use edge_media::media::hold::HoldBed;
use edge_media::media::prompt::ClipStore;
use edge_media::media::rtp::RtpPacket;
use edge_media::media::{
    Carrier, FRAMES_AT_ONCE_MAX, MediaCommand, MediaEvent, Port, StreamKey, StreamOut, TICK, rtcp,
};
use edge_media::sip::{Codec, Direction, RemoteMedia};
use handoff::call::media::{MediaPlan, MediaReport, Source};
use handoff::clock::Now;
use handoff::id::{CallId, Epoch, LegId};

use crate::harness::{Behaviour, Target};
use crate::script::{Step, steps};

pub(crate) const TARGET: Target = Target { name: "rtp", words: WORDS, run };

fn run(input: &[u8]) -> Behaviour {
    let mut rig = Rig::new();
    for step in steps(input) {
        rig.play(&step);
    }
    rig.tick(5);
    assert_eq!(rig.engine.calls(), 1, "no packet opens or ends a call");
    let counters = rig.engine.counters();
    rig.behaviour.note_size(usize::try_from(counters.malformed).unwrap_or_default());
    rig.behaviour.note_size(usize::try_from(counters.foreign).unwrap_or_default());
    rig.behaviour
}

struct Rig {
    now: Now,
    engine: Engine,
    wire: Wire,
    epoch: u64,
    /// Packets that each source has sent to each port.
    sent: BTreeMap<(Port, SocketAddr), u32>,
    behaviour: Behaviour,
}

/// What the engine sends, judged as it leaves.
#[derive(Default)]
struct Wire {
    packets: Vec<(Port, SocketAddr)>,
    streams: BTreeMap<Port, (u32, u16)>,
    reports: Vec<MediaReport>,
}

impl Sink for Wire {
    fn send_rtp(&mut self, port: Port, to: SocketAddr, bytes: &[u8]) {
        let packet = RtpPacket::parse(bytes).expect("we can read what we wrote");
        assert!(packet.payload.len() <= PAYLOAD_BYTES_MAX, "{} bytes", packet.payload.len());
        if let Some((ssrc, sequence)) = self.streams.insert(port, (packet.ssrc, packet.sequence)) {
            let step = packet.sequence.wrapping_sub(sequence);
            assert!(packet.ssrc == ssrc && (1..=STEP_MAX).contains(&step), "one stream: {step}");
        }
        self.packets.push((port, to));
    }

    fn send_rtcp(&mut self, port: Port, to: SocketAddr, bytes: &[u8]) {
        assert!(rtcp::is_compound(bytes), "we can read what we wrote");
        // A report goes to the port after that of the audio.
        self.packets.push((port, SocketAddr::new(to.ip(), to.port().wrapping_sub(1))));
    }

    fn stream_out(&mut self, _: StreamKey, _: StreamOut) {}

    fn report(&mut self, event: MediaEvent) {
        self.reports.push(event.report);
    }

    fn record(&mut self, _: RecordedFrame<'_>) {}
}

fn source(name: &str) -> SocketAddr {
    let (host, port) = match name {
        "caller" => ([192, 0, 2, 2], 4_000),
        "human" => ([192, 0, 2, 3], 4_000),
        // Behind the caller's address, and from elsewhere.
        "neighbour" => ([192, 0, 2, 2], 4_002),
        _ => ([203, 0, 113, 66], 4_000),
    };
    SocketAddr::from((host, port))
}

const PORTS: [(LegId, Port, &str); 2] =
    [(LegId::CALLER, Port(20_000), "caller"), (LegId::FIRST_HUMAN, Port(20_002), "human")];

impl Rig {
    fn new() -> Self {
        let clips = ClipStore::empty(HoldBed::tones());
        let mut rig = Self {
            now: Now::from_millis(1_000),
            engine: Engine::new(Arc::new(clips), 7),
            wire: Wire::default(),
            epoch: 0,
            sent: BTreeMap::new(),
            behaviour: Behaviour::new(),
        };
        for (leg, port, name) in PORTS {
            rig.order(MediaCommand::Open { call: call(), leg, carrier: Carrier::Rtp(port) });
            rig.agree(leg, name);
        }
        rig.plan(true);
        rig.tick(1);
        rig
    }

    fn play(&mut self, step: &Step<'_>) {
        self.behaviour.note(step.word(0));
        match (step.word(0), step.word(1)) {
            ("rtp", name) => {
                let port = if name == "human" { Port(20_002) } else { Port(20_000) };
                self.packet(port, source(name), step.bytes);
            }
            // Of nobody's port, and of the human's port by a stranger.
            ("astray", _) => self.packet(Port(9), source("stranger"), step.bytes),
            ("intrude", _) => self.packet(Port(20_002), source("stranger"), step.bytes),
            ("rtcp", _) => self.engine.control_packet(self.now, Port(20_000), &mut step.bytes.to_vec()),
            ("tick", _) => self.tick(step.number(1, 100)),
            ("late", _) => {
                self.now = self.now + TICK * u32::try_from(step.number(1, 500)).unwrap_or_default();
                self.tick(1);
            }
            ("hold", _) => self.plan(false),
            ("bridge", _) => self.plan(true),
            ("agree", name) => self.agree(LegId::CALLER, name),
            ("keys", _) => {
                let digits = String::from_utf8_lossy(step.bytes).chars().take(32).collect();
                self.order(MediaCommand::SendDigits { call: call(), leg: LegId::FIRST_HUMAN, digits });
            }
            _ => {}
        }
    }

    fn packet(&mut self, port: Port, from: SocketAddr, bytes: &[u8]) {
        *self.sent.entry((port, from)).or_default() += 1;
        let before = self.wire.packets.len();
        self.engine.packet(self.now, port, from, &mut bytes.to_vec(), &mut self.wire);
        assert!(self.wire.packets.len() <= before + 1 + FRAMES_AT_ONCE, "one packet in, a burst out");
        self.judge();
        if let Ok(packet) = RtpPacket::parse(bytes) {
            let mut buffer = [0; 2_048];
            let written = packet.write(&mut buffer).expect("what fits a datagram fits the buffer");
            assert_eq!(RtpPacket::parse(written), Ok(packet), "what is written is read back");
        }
    }

    fn tick(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now = self.now + TICK;
            let before = self.wire.packets.len();
            self.engine.tick(self.now, &mut self.wire);
            // Two legs, each late by its clock or by what a relay owed it, and a report for each.
            let most = 2 * FRAMES_AT_ONCE + 2;
            let burst = self.wire.packets.len() - before;
            assert!(burst <= most, "{burst} packets in one tick");
            self.judge();
        }
    }

    fn judge(&mut self) {
        for (port, to) in self.wire.packets.drain(..) {
            let signalled = ["caller", "human", "neighbour"].into_iter().any(|name| source(name) == to);
            let proven = self.sent.get(&(port, to)).is_some_and(|sent| *sent >= 3);
            assert!(signalled || proven, "audio for {to}, which has proven nothing");
        }
        assert!(self.wire.reports.len() <= REPORTS_MAX, "reports without end");
        for report in self.wire.reports.drain(..) {
            let text = format!("{report:?}");
            self.behaviour.note(text.split([' ', '(']).next().unwrap_or_default());
            if let MediaReport::Digit { digit, .. } = report {
                assert!("0123456789*#ABCD".contains(digit), "{digit} is no key");
            }
        }
    }

    fn agree(&mut self, leg: LegId, name: &str) {
        // The stranger is nobody's signalled address.
        let rtp = source(if name == "neighbour" {
            name
        } else if leg == LegId::CALLER {
            "caller"
        } else {
            "human"
        });
        let codec = if name == "alaw" { Codec::Pcma } else { Codec::Pcmu };
        let remote = RemoteMedia {
            rtp,
            codec,
            telephone_event: Some(101),
            direction: Direction::SendRecv,
            srtp: None,
        };
        self.order(MediaCommand::Remote { call: call(), leg, remote });
    }

    fn plan(&mut self, bridged: bool) {
        self.epoch += 1;
        let egress = if bridged {
            [
                (LegId::CALLER, Source::Leg(LegId::FIRST_HUMAN)),
                (LegId::FIRST_HUMAN, Source::Leg(LegId::CALLER)),
            ]
        } else {
            [(LegId::CALLER, Source::HoldBed), (LegId::FIRST_HUMAN, Source::Silence)]
        };
        let plan = MediaPlan {
            call: call(),
            epoch: Epoch(self.epoch),
            egress: egress.into_iter().collect(),
            prompts: BTreeMap::new(),
        };
        self.order(MediaCommand::Apply(plan));
    }

    fn order(&mut self, command: MediaCommand) {
        self.engine.command(self.now, command, &mut self.wire);
        self.judge();
    }
}

fn call() -> CallId {
    CallId::from_random(7)
}

/// 60 ms of G.711: the longest packet that is agreed on.
const PAYLOAD_BYTES_MAX: usize = 480;
/// A few lost packets are passed on as a hole, so that the far end conceals them.
const STEP_MAX: u16 = 6;
/// What a late tick may catch up with.
const FRAMES_AT_ONCE: usize = FRAMES_AT_ONCE_MAX as usize;
/// Reports between two looks: a plan, the state of each leg, and a key.
const REPORTS_MAX: usize = 16;

const WORDS: &[&str] = &[
    "\n%% rtp caller\n",
    "\n%% rtp human\n",
    "\n%% rtp neighbour\n",
    "\n%% rtp stranger\n",
    "\n%% intrude\n",
    "\n%% astray\n",
    "\n%% rtcp\n",
    "\n%% tick 1\n",
    "\n%% tick 30\n",
    "\n%% late 5\n",
    "\n%% late 400\n",
    "\n%% hold\n",
    "\n%% bridge\n",
    "\n%% agree caller\n",
    "\n%% agree neighbour\n",
    "\n%% agree alaw\n",
    "\n%% keys\n1,2#",
    "\u{0}",
    "\u{8}",
    "\u{d}",
    "e",
];
