//! The media engine in virtual time: who hears whom by tone, one continuous stream per
//! egress, and what strangers and late ticks leave of it.

mod ear;
mod measured;
mod sealed;

use std::cell::RefCell;
use std::time::Duration;

use handoff::call::media::{ClipId, Part, Prompt, Source};
use handoff::id::PlayId;
use handoff::pii::Pii;
use proptest::prelude::*;

use super::*;
use crate::media::hold::HoldBed;
use crate::media::rtp::RtpPacket;
use crate::media::{Carrier, codec, tone};
use crate::sip::{Codec, Direction, RemoteMedia};
use ear::{Ear, Sent};

const CALLER: LegId = LegId::CALLER;
const AGENT: LegId = LegId::VOICE_AGENT;
const HUMAN: LegId = LegId::FIRST_HUMAN;
const STREAM: StreamKey = StreamKey(1);

const CALLER_HZ: u32 = 450;
const AGENT_HZ: u32 = 650;
const HOLD_HZ: u32 = 850;
const HUMAN_HZ: u32 = 1_000;
const WHISPER_HZ: u32 = 1_400;
const ALL_HZ: [u32; 5] = [CALLER_HZ, AGENT_HZ, HOLD_HZ, HUMAN_HZ, WHISPER_HZ];
/// Tones are made at about −12 dBFS; a bin above this contains one.
const PRESENT_DB: f64 = -30.0;

fn ulaw_tone(hz: u32, samples: usize) -> Vec<u8> {
    tone::sine(hz, 8_000, samples).iter().map(|s| codec::encode(Codec::Pcmu, *s)).collect()
}

fn clips() -> Arc<ClipStore> {
    let mut store = ClipStore::empty(HoldBed::tones());
    // The whisper lasts two seconds; the message 1.01 s, so that its last frame is a half one.
    store.insert(ClipId("whisper".to_owned()), ulaw_tone(WHISPER_HZ, 16_000).into());
    store.insert(ClipId("message".to_owned()), ulaw_tone(1_800, 8_080).into());
    Arc::new(store)
}

/// A phone that says its tone in every tick.
#[derive(Debug)]
struct Phone {
    port: Port,
    from: SocketAddr,
    codec: Codec,
    hz: u32,
    ssrc: u32,
    sequence: u16,
    talks: bool,
}

/// One call: a caller (A-law) and a human (µ-law) by RTP, a voice agent by stream.
struct World {
    engine: Engine,
    ear: Ear,
    now: Now,
    phones: BTreeMap<LegId, Phone>,
    agent_talks: bool,
    epoch: u64,
}

fn call() -> CallId {
    CallId::parse("call_1").unwrap()
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            engine: Engine::new(clips(), 7),
            ear: Ear::default(),
            now: Now::from_millis(1_000),
            phones: BTreeMap::new(),
            agent_talks: true,
            epoch: 0,
        };
        for (leg, number, codec, hz) in
            [(CALLER, 4_000, Codec::Pcma, CALLER_HZ), (HUMAN, 4_002, Codec::Pcmu, HUMAN_HZ)]
        {
            let port = Port(number);
            let from = ([192, 0, 2, 1], number).into();
            let phone =
                Phone { port, from, codec, hz, ssrc: u32::from(number), sequence: 65_500, talks: true };
            world.phones.insert(leg, phone);
            world.command(MediaCommand::Open { call: call(), leg, carrier: Carrier::Rtp(port) });
            world.direction(leg, Direction::SendRecv);
        }
        let carrier = Carrier::Stream(STREAM);
        world.command(MediaCommand::Open { call: call(), leg: AGENT, carrier });
        world
    }

    fn command(&mut self, command: MediaCommand) {
        *self.ear.now.borrow_mut() = self.now;
        self.engine.command(self.now, command, &mut self.ear);
    }

    fn direction(&mut self, leg: LegId, direction: Direction) {
        let phone = &self.phones[&leg];
        let remote = RemoteMedia {
            rtp: phone.from,
            codec: phone.codec,
            telephone_event: Some(101),
            direction,
            srtp: None,
        };
        self.command(MediaCommand::Remote { call: call(), leg, remote });
    }

    fn plan(&mut self, egress: &[(LegId, Source)], prompts: &[(u32, &str)]) {
        self.epoch += 1;
        self.command(MediaCommand::Apply(MediaPlan {
            call: call(),
            epoch: Epoch(self.epoch),
            egress: egress.iter().cloned().collect(),
            prompts: prompts.iter().map(|(play, clip)| (PlayId(*play), Prompt::clip(clip))).collect(),
        }));
    }

    fn agent(&mut self, input: StreamIn) {
        *self.ear.now.borrow_mut() = self.now;
        self.engine.stream_in(self.now, STREAM, input, &mut self.ear);
    }

    fn arrive(&mut self, port: Port, from: SocketAddr, packet: RtpPacket<'_>) {
        *self.ear.now.borrow_mut() = self.now;
        let mut buffer = [0; 600];
        let mut bytes = packet.write(&mut buffer).unwrap().to_vec();
        self.engine.packet(self.now, port, from, &mut bytes, &mut self.ear);
    }

    /// Lets every party talk once, 5 ms before the next tick.
    fn talk(&mut self) {
        for leg in [CALLER, HUMAN] {
            let phone = self.phones.get_mut(&leg).unwrap();
            if !phone.talks {
                continue;
            }
            phone.sequence = phone.sequence.wrapping_add(1);
            let payload: Vec<u8> =
                tone::sine(phone.hz, 8_000, 160).iter().map(|s| codec::encode(phone.codec, *s)).collect();
            let packet = RtpPacket {
                marker: false,
                payload_type: codec::payload_type(phone.codec),
                sequence: phone.sequence,
                timestamp: u32::from(phone.sequence.wrapping_add(40)) * 160,
                ssrc: phone.ssrc,
                payload: &payload,
            };
            let (port, from) = (phone.port, phone.from);
            self.arrive(port, from, packet);
        }
        if self.agent_talks {
            self.agent(StreamIn::Audio(ulaw_tone(AGENT_HZ, 160)));
        }
    }

    fn tick(&mut self) {
        self.talk();
        self.now = self.now + TICK;
        *self.ear.now.borrow_mut() = self.now;
        self.engine.tick(self.now, &mut self.ear);
    }

    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.tick();
        }
    }

    fn sent(&self, leg: LegId) -> &[Sent] {
        self.ear.packets.get(&self.phones[&leg].port).map_or(&[], Vec::as_slice)
    }

    fn reports(&self) -> Vec<(u64, MediaReport)> {
        self.ear.events.iter().map(|event| (event.at.millis(), event.report.clone())).collect()
    }

    fn count(&self, wanted: &MediaReport) -> usize {
        self.ear.events.iter().filter(|event| event.report == *wanted).count()
    }

    /// The tones that a leg heard in more than one frame out of five, and in none out of any.
    fn tones(frames: &[Vec<i16>]) -> Vec<u32> {
        let present = |hz: &u32| {
            let count = frames.iter().filter(|frame| tone::level(frame, *hz) > PRESENT_DB).count();
            count * 5 > frames.len()
        };
        ALL_HZ.into_iter().filter(present).collect()
    }

    /// What caller, voice agent and human hear under a plan, once it has settled.
    fn who_hears(&mut self, egress: &[(LegId, Source)], prompts: &[(u32, &str)]) -> [Vec<u32>; 3] {
        self.plan(egress, prompts);
        self.run(10);
        let start = (self.sent(CALLER).len(), self.ear.frames.len(), self.sent(HUMAN).len());
        self.run(20);
        let rtp = |sent: &[Sent], from: usize| -> Vec<Vec<i16>> {
            sent[from..].iter().map(|packet| packet.samples.clone()).collect()
        };
        let agent: Vec<_> = self.ear.frames[start.1..].iter().map(|(_, frame)| frame.clone()).collect();
        [
            Self::tones(&rtp(self.sent(CALLER), start.0)),
            Self::tones(&agent),
            Self::tones(&rtp(self.sent(HUMAN), start.2)),
        ]
    }
}

fn assert_continuous(sent: &[Sent]) {
    for pair in sent.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(160), "{:?}", pair[1].at);
        assert_eq!(pair[1].ssrc, pair[0].ssrc);
        assert_eq!(pair[1].at.since(pair[0].at), TICK);
    }
}

#[test]
fn each_routing_lets_exactly_the_right_parties_be_heard() {
    use Source::{HoldBed as Hold, Leg, Mix, Prompt, Silence};
    let mut world = World::new();
    let with_agent = [(CALLER, Leg(AGENT)), (AGENT, Leg(CALLER))];
    assert_eq!(world.who_hears(&with_agent, &[]), [vec![AGENT_HZ], vec![CALLER_HZ], vec![]]);
    let offering = [(CALLER, Hold), (AGENT, Silence)];
    assert_eq!(world.who_hears(&offering, &[]), [vec![HOLD_HZ], vec![], vec![]]);
    let briefing = [(CALLER, Hold), (AGENT, Silence), (HUMAN, Prompt(PlayId(1)))];
    assert_eq!(world.who_hears(&briefing, &[(1, "whisper")]), [vec![HOLD_HZ], vec![], vec![WHISPER_HZ]]);
    let live = [(CALLER, Hold), (AGENT, Leg(HUMAN)), (HUMAN, Leg(AGENT))];
    assert_eq!(world.who_hears(&live, &[]), [vec![HOLD_HZ], vec![HUMAN_HZ], vec![AGENT_HZ]]);
    let introducing = [
        (CALLER, Mix(vec![AGENT, HUMAN])),
        (AGENT, Mix(vec![CALLER, HUMAN, AGENT])),
        (HUMAN, Mix(vec![AGENT, CALLER])),
    ];
    assert_eq!(
        world.who_hears(&introducing, &[]),
        [vec![AGENT_HZ, HUMAN_HZ], vec![CALLER_HZ, HUMAN_HZ], vec![CALLER_HZ, AGENT_HZ]]
    );
    let bridged = [(CALLER, Leg(HUMAN)), (AGENT, Silence), (HUMAN, Leg(CALLER))];
    assert_eq!(world.who_hears(&bridged, &[]), [vec![HUMAN_HZ], vec![], vec![CALLER_HZ]]);
    assert_eq!(
        world.who_hears(&[(CALLER, Leg(CALLER))], &[])[0],
        Vec::<u32>::new(),
        "nobody hears themselves"
    );
}

#[test]
fn the_caller_never_hears_one_frame_of_the_whisper() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(10);
    world.plan(&[(CALLER, Source::HoldBed), (HUMAN, Source::Prompt(PlayId(1)))], &[(1, "whisper")]);
    world.run(40);
    world.plan(&[(CALLER, Source::Leg(HUMAN)), (HUMAN, Source::Leg(CALLER))], &[]);
    world.run(60);
    let leaked = world.sent(CALLER).iter().filter(|p| tone::level(&p.samples, WHISPER_HZ) > -50.0).count();
    assert_eq!(leaked, 0);
    let whispered = world.sent(HUMAN).iter().filter(|p| tone::level(&p.samples, WHISPER_HZ) > -20.0).count();
    assert_eq!(whispered, 40);
}

#[test]
fn from_hold_to_bridge_no_frame_is_missing_and_the_timeline_does_not_break() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::HoldBed), (HUMAN, Source::Silence)], &[]);
    world.run(50);
    let before = world.sent(CALLER).len();
    world.plan(&[(CALLER, Source::Leg(HUMAN)), (HUMAN, Source::Leg(CALLER))], &[]);
    world.run(50);
    assert_continuous(world.sent(CALLER));
    assert_continuous(world.sent(HUMAN));
    assert_eq!(world.sent(CALLER).len(), 100);
    let (hold, human) = world.sent(CALLER).split_at(before);
    assert!(hold.iter().all(|packet| tone::level(&packet.samples, HOLD_HZ) > -20.0));
    assert!(human.iter().all(|packet| tone::level(&packet.samples, HUMAN_HZ) > -20.0));
    let marked: Vec<_> = world.sent(CALLER).iter().map(|p| p.marker).collect();
    assert_eq!(marked.iter().filter(|marker| **marker).count(), 2);
    assert!(marked[0] && marked[before]);
    assert!(world.sent(CALLER).iter().all(|packet| packet.payload_type == 8));
    let at = human[0].at.millis();
    assert!(world.reports().contains(&(at, MediaReport::Applied { epoch: Epoch(2), egress: CALLER })));
}

#[test]
fn audio_of_the_same_codec_passes_bit_for_bit() {
    let mut world = World::new();
    world.phones.get_mut(&HUMAN).unwrap().codec = Codec::Pcma;
    world.direction(HUMAN, Direction::SendRecv);
    world.plan(&[(CALLER, Source::Leg(HUMAN))], &[]);
    world.run(30);
    assert!(world.sent(CALLER).len() >= 29);
    let expected: Vec<_> = tone::sine(HUMAN_HZ, 8_000, 160)
        .iter()
        .map(|s| codec::decode(Codec::Pcma, codec::encode(Codec::Pcma, *s)))
        .collect();
    assert_eq!(world.sent(CALLER).last().unwrap().samples, expected);
}

#[test]
fn a_bridge_of_the_same_codec_is_relayed_on_arrival_without_a_seam() {
    let mut world = World::new();
    world.phones.get_mut(&HUMAN).unwrap().codec = Codec::Pcma;
    world.direction(HUMAN, Direction::SendRecv);
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(20);
    world.plan(&[(CALLER, Source::Leg(HUMAN)), (HUMAN, Source::Leg(CALLER))], &[]);
    world.run(20);
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(20);
    let sent = world.sent(CALLER);
    for pair in sent.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(160));
        assert!(pair[1].at.since(pair[0].at) <= TICK);
    }
    // In this world a phone talks at the moment of the last tick: relayed means no delay.
    let relayed = sent.iter().filter(|p| tone::level(&p.samples, HUMAN_HZ) > -20.0).count();
    assert_eq!(relayed, 21, "one by the tick, and then each as it came");
}

#[test]
fn a_forbidden_direction_sends_nothing_and_does_not_catch_up() {
    for direction in [Direction::RecvOnly, Direction::Inactive] {
        let mut world = World::new();
        world.plan(&[(CALLER, Source::HoldBed)], &[]);
        world.run(10);
        world.direction(CALLER, direction);
        world.run(100);
        assert_eq!(world.sent(CALLER).len(), 10, "{direction:?}");
        world.direction(CALLER, Direction::SendRecv);
        world.run(10);
        let sent = world.sent(CALLER);
        assert_eq!(sent.len(), 20);
        assert_eq!(sent[10].sequence, sent[9].sequence.wrapping_add(1));
        assert_eq!(sent[10].timestamp, sent[9].timestamp.wrapping_add(101 * 160));
        assert!(sent[10].marker);
    }
}

#[test]
fn nothing_is_sent_before_a_plan_names_the_egress_and_after_it_names_it_no_more() {
    let mut world = World::new();
    world.run(10);
    assert!(world.sent(CALLER).is_empty() && world.ear.frames.is_empty());
    world.plan(&[(CALLER, Source::Silence), (AGENT, Source::Silence)], &[]);
    world.run(10);
    world.plan(&[(AGENT, Source::Silence)], &[]);
    world.run(10);
    assert_eq!(world.sent(CALLER).len(), 10);
    world.plan(&[], &[]);
    world.run(10);
    assert_eq!(world.ear.frames.len(), 30, "a stream hears silence for ever");
}

#[test]
fn strangers_cost_the_stream_no_frame() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Leg(HUMAN))], &[]);
    world.run(10);
    let port = world.phones[&HUMAN].port;
    let noise = ulaw_tone(WHISPER_HZ, 160);
    for round in 0..200_u16 {
        for stranger in 0..20_u16 {
            let from: SocketAddr = ([198, 51, 100, 7], 10_000 + stranger % 4).into();
            let (sequence, ssrc) = (round * 20 + stranger, u32::from(stranger % 4));
            let timestamp = u32::from(sequence) * 160;
            let packet =
                RtpPacket { marker: false, payload_type: 0, sequence, timestamp, ssrc, payload: &noise };
            world.arrive(port, from, packet);
        }
        world.tick();
    }
    let heard = &world.sent(CALLER)[10..];
    let real = heard.iter().filter(|p| tone::level(&p.samples, HUMAN_HZ) > -20.0).count();
    let foreign = heard.iter().filter(|p| tone::level(&p.samples, WHISPER_HZ) > -50.0).count();
    assert_eq!((real, foreign), (200, 0));
    assert_eq!(world.engine.counters().foreign, 4_000);
    assert!(world.sent(HUMAN).iter().all(|packet| packet.to == world.phones[&HUMAN].from));
}

#[test]
fn marks_are_echoed_when_their_audio_was_played_and_a_clear_echoes_the_rest() {
    let mut world = World::new();
    world.agent_talks = false;
    world.plan(&[(CALLER, Source::Leg(AGENT)), (AGENT, Source::Leg(CALLER))], &[]);
    world.run(5);
    let start = world.now;
    for name in ["a", "b", "c"] {
        world.agent(StreamIn::Audio(ulaw_tone(AGENT_HZ, 1_600)));
        world.agent(StreamIn::Mark(name.to_owned()));
    }
    world.run(15);
    let echoed: Vec<_> =
        world.ear.marks.iter().map(|(at, n)| (at.since(start).as_millis(), &n[..])).collect();
    assert_eq!(echoed, [(200, "a")]);
    world.agent(StreamIn::Clear);
    let names: Vec<_> = world.ear.marks.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(world.count(&MediaReport::Drained { leg: AGENT }), 1);
    let before = world.sent(CALLER).len();
    world.run(10);
    assert!(world.sent(CALLER)[before..].iter().all(|p| tone::level(&p.samples, AGENT_HZ) < -50.0));
}

#[test]
fn a_drain_is_answered_at_once_or_when_the_last_word_was_said() {
    let mut world = World::new();
    world.agent_talks = false;
    world.plan(&[(CALLER, Source::Leg(AGENT))], &[]);
    world.run(5);
    let drained = MediaReport::Drained { leg: AGENT };
    world.command(MediaCommand::Drain { call: call(), leg: AGENT });
    assert_eq!(world.count(&drained), 1);
    world.agent(StreamIn::Audio(ulaw_tone(AGENT_HZ, 1_600)));
    world.command(MediaCommand::Drain { call: call(), leg: AGENT });
    world.run(9);
    assert_eq!(world.count(&drained), 1);
    world.run(1);
    assert_eq!(world.count(&drained), 2);
}

#[test]
fn what_an_agent_says_to_nobody_is_thrown_away_and_its_greeting_waits() {
    let mut world = World::new();
    world.agent_talks = false;
    world.plan(&[(CALLER, Source::Prompt(PlayId(1)))], &[(1, "message")]);
    world.agent(StreamIn::Audio(ulaw_tone(AGENT_HZ, 1_600)));
    world.run(60);
    world.plan(&[(CALLER, Source::Leg(AGENT)), (AGENT, Source::Leg(CALLER))], &[]);
    world.run(20);
    let heard = |world: &World, from: usize| {
        world.sent(CALLER)[from..].iter().filter(|p| tone::level(&p.samples, AGENT_HZ) > -20.0).count()
    };
    assert_eq!(heard(&world, 0), 10, "the greeting was kept for its listener");
    world.agent(StreamIn::Audio(ulaw_tone(AGENT_HZ, 80_000)));
    world.agent(StreamIn::Mark("cut".to_owned()));
    world.run(10);
    world.plan(&[(CALLER, Source::HoldBed), (AGENT, Source::Silence)], &[]);
    world.agent(StreamIn::Audio(ulaw_tone(AGENT_HZ, 80_000)));
    world.agent(StreamIn::Mark("unheard".to_owned()));
    world.run(10);
    let names: Vec<_> = world.ear.marks.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["cut", "unheard"]);
    let back = world.sent(CALLER).len();
    world.plan(&[(CALLER, Source::Leg(AGENT)), (AGENT, Source::Leg(CALLER))], &[]);
    world.run(20);
    assert_eq!(heard(&world, back), 0, "nothing of the frozen time is left");
}

#[test]
fn the_stream_is_contiguous_through_every_routing() {
    let mut world = World::new();
    for source in [Source::Leg(CALLER), Source::Silence, Source::Mix(vec![CALLER, HUMAN]), Source::Leg(HUMAN)]
    {
        world.plan(&[(AGENT, source)], &[]);
        world.run(25);
    }
    assert_eq!(world.ear.frames.len(), 100);
    assert!(world.ear.frames.windows(2).all(|pair| pair[1].0.since(pair[0].0) == TICK));
}

fn events(world: &mut World, leg: LegId, key: u8, timestamp: u32) {
    let phone = world.phones.get_mut(&leg).unwrap();
    let (port, from, ssrc) = (phone.port, phone.from, phone.ssrc);
    for step in 1..8_u16 {
        let phone = world.phones.get_mut(&leg).unwrap();
        phone.sequence = phone.sequence.wrapping_add(1);
        let sequence = phone.sequence;
        let [high, low] = (step.min(5) * 160).to_be_bytes();
        let payload = [key, if step > 4 { 0x8a } else { 10 }, high, low];
        let packet =
            RtpPacket { marker: step == 1, payload_type: 101, sequence, timestamp, ssrc, payload: &payload };
        world.arrive(port, from, packet);
    }
}

#[test]
fn a_key_is_reported_once_and_sent_to_nobody() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Leg(HUMAN)), (HUMAN, Source::Leg(CALLER))], &[]);
    world.run(10);
    events(&mut world, HUMAN, 1, 90_000);
    world.run(20);
    assert_eq!(world.count(&MediaReport::Digit { leg: HUMAN, digit: '1' }), 1);
    assert!(world.sent(CALLER).iter().all(|packet| packet.payload_type == 8));
}

#[test]
fn keys_are_sent_on_the_addressed_leg_only() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Leg(HUMAN)), (HUMAN, Source::Leg(CALLER)), (AGENT, Source::Silence)], &[]);
    world.run(10);
    world.command(MediaCommand::SendDigits { call: call(), leg: HUMAN, digits: "42#".to_owned() });
    world.run(50);
    let keys = |leg| world.sent(leg).iter().filter(|packet| packet.payload_type == 101).count();
    assert_eq!((keys(HUMAN), keys(CALLER)), (21, 0));
    let audio: Vec<_> = world.sent(HUMAN).iter().filter(|p| p.payload_type == 0).collect();
    assert!(audio.windows(2).all(|pair| pair[1].timestamp > pair[0].timestamp));
    assert!(world.sent(HUMAN).windows(2).all(|p| p[1].sequence == p[0].sequence.wrapping_add(1)));
    assert!(world.ear.digits.is_empty());
    world.command(MediaCommand::SendDigits { call: call(), leg: AGENT, digits: "7,8".to_owned() });
    assert_eq!(world.ear.digits, "78");
}

#[test]
fn a_prompt_that_is_cut_never_counts_as_played() {
    // The message has 8 080 samples: 51 frames, the last one half full.
    for (ticks, expected) in [(5, 99), (15, 297), (50, 990)] {
        let mut world = World::new();
        world.plan(&[(CALLER, Source::Prompt(PlayId(1)))], &[(1, "message")]);
        world.run(ticks);
        world.plan(&[(CALLER, Source::HoldBed)], &[]);
        world.run(5);
        let ended = MediaReport::PlayEnded { play: PlayId(1), played_pm: expected };
        assert_eq!(world.count(&ended), 1, "{ticks}: {:?}", world.reports());
    }
}

#[test]
fn a_whole_prompt_counts_once_and_at_its_last_sample() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Prompt(PlayId(1)))], &[(1, "message")]);
    world.run(80);
    // A later plan that still names it does not play it again.
    world.plan(&[(CALLER, Source::Prompt(PlayId(1))), (AGENT, Source::Silence)], &[(1, "message")]);
    world.run(80);
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(1);
    let ends: Vec<_> =
        world.reports().into_iter().filter(|(_, r)| matches!(r, MediaReport::PlayEnded { .. })).collect();
    let last = world.sent(CALLER)[50].at.millis();
    assert_eq!(ends, [(last, MediaReport::PlayEnded { play: PlayId(1), played_pm: 1_000 })]);
}

#[test]
fn a_prompt_that_was_superseded_before_its_first_tick_was_not_played() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Prompt(PlayId(1)))], &[(1, "message")]);
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(2);
    assert_eq!(world.count(&MediaReport::PlayEnded { play: PlayId(1), played_pm: 0 }), 1);
    assert_eq!(world.count(&MediaReport::Applied { epoch: Epoch(1), egress: CALLER }), 0);
    assert_eq!(world.count(&MediaReport::Applied { epoch: Epoch(2), egress: CALLER }), 1);
}

#[test]
fn a_prompt_into_a_held_line_is_not_played() {
    let mut world = World::new();
    world.direction(CALLER, Direction::RecvOnly);
    world.plan(&[(CALLER, Source::Prompt(PlayId(1)))], &[(1, "message")]);
    world.run(60);
    assert_eq!(world.count(&MediaReport::PlayEnded { play: PlayId(1), played_pm: 0 }), 1);
}

#[test]
fn a_prompt_waits_for_a_line_that_is_not_agreed_yet() {
    let mut world = World::new();
    let late = LegId(5);
    world.command(MediaCommand::Open { call: call(), leg: late, carrier: Carrier::Rtp(Port(4_010)) });
    world.plan(&[(late, Source::Prompt(PlayId(1)))], &[(1, "message")]);
    world.run(60);
    let rtp = ([192, 0, 2, 9], 9_000).into();
    let remote = RemoteMedia {
        rtp,
        codec: Codec::Pcmu,
        telephone_event: None,
        direction: Direction::SendRecv,
        srtp: None,
    };
    world.command(MediaCommand::Remote { call: call(), leg: late, remote });
    world.run(60);
    assert_eq!(world.count(&MediaReport::PlayEnded { play: PlayId(1), played_pm: 1_000 }), 1);
}

#[test]
fn speech_is_said_when_it_is_ready_and_the_clip_when_it_is_not() {
    for (ready, hz) in [(true, 2_000), (false, WHISPER_HZ)] {
        let mut world = World::new();
        if ready {
            world.engine.prompt_ready(SpeechKey::of("Hello", "en"), ulaw_tone(2_000, 1_600).into());
        }
        let fallback = ClipId("whisper".to_owned());
        let say = Part::Say { text: Pii::new("Hello".to_owned()), lang: "en".to_owned(), fallback };
        world.command(MediaCommand::Apply(MediaPlan {
            call: call(),
            epoch: Epoch(1),
            egress: [(HUMAN, Source::Prompt(PlayId(1)))].into(),
            prompts: [(PlayId(1), Prompt { parts: vec![say] })].into(),
        }));
        world.run(3);
        assert!(tone::level(&world.sent(HUMAN)[0].samples, hz) > -20.0);
    }
}

#[test]
fn a_late_tick_sends_what_a_far_end_can_buffer_and_skips_the_rest() {
    for (late_ms, sent, skipped) in [(19, 1, 0), (20, 2, 0), (99, 5, 0), (100, 5, 1), (200, 5, 6)] {
        let mut world = World::new();
        world.plan(&[(CALLER, Source::HoldBed)], &[]);
        world.run(10);
        world.now = world.now + TICK + Duration::from_millis(late_ms);
        world.engine.tick(world.now, &mut world.ear);
        let packets = world.sent(CALLER);
        assert_eq!(packets.len(), 10 + sent, "{late_ms} ms late");
        assert_eq!(world.engine.counters().skipped_frames, skipped);
        let last = packets.last().unwrap();
        assert_eq!(last.sequence, packets[9].sequence.wrapping_add(sent as u16));
        let missed = (sent as u64 + skipped) as u32;
        assert_eq!(last.timestamp, packets[9].timestamp.wrapping_add(missed * 160));
    }
}

#[test]
fn a_prompt_loses_nothing_to_a_late_tick() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Prompt(PlayId(1)))], &[(1, "message")]);
    world.run(10);
    world.now = world.now + Duration::from_millis(300);
    world.run(60);
    assert_eq!(world.count(&MediaReport::PlayEnded { play: PlayId(1), played_pm: 1_000 }), 1);
}

#[test]
fn a_silent_source_is_lost_after_half_a_second_and_comes_back() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Leg(HUMAN))], &[]);
    world.run(20);
    world.phones.get_mut(&HUMAN).unwrap().talks = false;
    // Its last packet came just before the last tick.
    let silent_from = world.now.millis() - 20;
    world.run(100);
    let lost: Vec<_> = world
        .reports()
        .into_iter()
        .filter(|(_, report)| *report == MediaReport::SourceLost { leg: HUMAN })
        .map(|(at, _)| at - silent_from)
        .collect();
    assert_eq!(lost, [500], "once, and for the listened leg only");
    world.phones.get_mut(&HUMAN).unwrap().talks = true;
    world.run(5);
    assert_eq!(world.count(&MediaReport::SourceBack { leg: HUMAN }), 1);
    assert_eq!(world.count(&MediaReport::SourceLost { leg: CALLER }), 0);
    assert_continuous(world.sent(CALLER));
}

#[test]
fn a_held_peer_may_be_silent_for_ten_minutes() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::HoldBed), (HUMAN, Source::Leg(CALLER))], &[]);
    world.run(10);
    world.direction(CALLER, Direction::SendOnly);
    world.phones.get_mut(&CALLER).unwrap().talks = false;
    world.agent_talks = false;
    world.run(30_000);
    assert_eq!(world.count(&MediaReport::SourceLost { leg: CALLER }), 0);
    world.direction(CALLER, Direction::SendRecv);
    world.run(24);
    assert_eq!(world.count(&MediaReport::SourceLost { leg: CALLER }), 0, "the time starts at the resume");
    world.run(2);
    assert_eq!(world.count(&MediaReport::SourceLost { leg: CALLER }), 1);
    assert_eq!(world.sent(CALLER).len(), 30_036);
}

#[test]
fn ten_packets_prove_audio_once_for_each_plan() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(9);
    let seen = |epoch| MediaReport::AudioSeen { leg: CALLER, epoch: Epoch(epoch) };
    assert_eq!(world.count(&seen(1)), 0);
    world.run(20);
    assert_eq!(world.count(&seen(1)), 1);
    world.plan(&[(CALLER, Source::Leg(HUMAN))], &[]);
    world.run(9);
    assert_eq!(world.count(&seen(2)), 0);
    world.run(1);
    assert_eq!(world.count(&seen(2)), 1);
    assert_eq!(world.count(&MediaReport::FirstRtp { leg: CALLER }), 1);
}

#[test]
fn a_leg_whose_turn_it_is_hears_that_the_line_is_open_and_is_listened_to() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Comfort)], &[]);
    world.run(14);
    assert_eq!(world.count(&MediaReport::Spoke { leg: CALLER }), 0);
    world.run(10);
    assert_eq!(world.count(&MediaReport::Spoke { leg: CALLER }), 1);
    world.phones.get_mut(&CALLER).unwrap().talks = false;
    world.run(240);
    assert_eq!(world.count(&MediaReport::Quiet { leg: CALLER }), 0);
    world.run(400);
    assert_eq!(world.count(&MediaReport::Quiet { leg: CALLER }), 1);
    assert_eq!(world.count(&MediaReport::Spoke { leg: HUMAN }), 0, "nobody else has a turn");
    let noise = world.sent(CALLER).iter().filter(|packet| tone::loudness(&packet.samples) > -50.0).count();
    assert_eq!(noise, world.sent(CALLER).len(), "every frame is audible");
    // Another turn begins anew.
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.phones.get_mut(&CALLER).unwrap().talks = true;
    world.run(30);
    assert_eq!(world.count(&MediaReport::Spoke { leg: CALLER }), 1);
    world.plan(&[(CALLER, Source::Comfort)], &[]);
    world.run(30);
    assert_eq!(world.count(&MediaReport::Spoke { leg: CALLER }), 2);
    assert_continuous(world.sent(CALLER));
}

#[test]
fn an_older_plan_changes_nothing() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.plan(&[(CALLER, Source::Silence)], &[]);
    world.epoch = 0;
    world.plan(&[(CALLER, Source::Leg(HUMAN))], &[]);
    world.run(20);
    assert!(world.sent(CALLER).iter().all(|p| tone::loudness(&p.samples) < -50.0));
    assert_eq!(world.engine.counters().stale_plans, 1);
}

#[test]
fn a_leg_that_changes_its_codec_keeps_its_timeline() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(20);
    world.phones.get_mut(&CALLER).unwrap().codec = Codec::Pcmu;
    world.direction(CALLER, Direction::SendRecv);
    world.run(20);
    assert_continuous(world.sent(CALLER));
    assert!(world.sent(CALLER).iter().all(|packet| tone::level(&packet.samples, HOLD_HZ) > -20.0));
}

#[test]
fn a_recorded_leg_keeps_what_it_said_and_heard_in_every_tick() {
    let mut world = World::new();
    world.command(MediaCommand::Record { call: call(), leg: CALLER, on: true });
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(20);
    world.plan(&[(CALLER, Source::Leg(HUMAN))], &[]);
    world.run(20);
    assert_eq!(world.ear.recorded.len(), 40);
    let (leg, said, heard) = world.ear.recorded.last().unwrap();
    assert_eq!(*leg, CALLER);
    assert!(tone::level(said, CALLER_HZ) > -20.0 && tone::level(heard, HUMAN_HZ) > -20.0);
    assert!(tone::level(&world.ear.recorded[10].2, HOLD_HZ) > -20.0);
}

#[test]
fn a_closed_leg_is_gone_and_its_prompt_ends() {
    let mut world = World::new();
    world.plan(&[(HUMAN, Source::Prompt(PlayId(3))), (CALLER, Source::Leg(HUMAN))], &[(3, "whisper")]);
    world.run(10);
    world.command(MediaCommand::Close { call: call(), leg: HUMAN });
    assert_eq!(world.count(&MediaReport::PlayEnded { play: PlayId(3), played_pm: 100 }), 1);
    let before = (world.sent(CALLER).len(), world.sent(HUMAN).len());
    world.run(10);
    assert_eq!(world.sent(HUMAN).len(), before.1);
    assert_eq!(world.sent(CALLER).len(), before.0 + 10, "the caller hears silence, not absence");
    for leg in [CALLER, AGENT] {
        world.command(MediaCommand::Close { call: call(), leg });
    }
    assert_eq!(world.engine.calls(), 0);
    world.run(2);
}

#[test]
fn reports_are_sent_every_five_seconds() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::HoldBed)], &[]);
    world.run(1_000);
    assert_eq!(world.ear.reports_sent, 8, "two RTP legs, four times");
}

fn any_source() -> impl Strategy<Value = Source> {
    prop_oneof![
        (0_u16..4).prop_map(|leg| Source::Leg(LegId(leg))),
        (0_u32..4).prop_map(|play| Source::Prompt(PlayId(play))),
        Just(Source::HoldBed),
        Just(Source::Silence),
        proptest::collection::vec((0_u16..4).prop_map(LegId), 0..4).prop_map(Source::Mix),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_datagram_leaves_the_engine_alive(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..220), 0..100),
        shaped in any::<bool>(),
    ) {
        let mut world = World::new();
        world.plan(&[(CALLER, Source::Leg(HUMAN)), (AGENT, Source::Mix(vec![CALLER, HUMAN]))], &[]);
        let (port, from) = (world.phones[&HUMAN].port, world.phones[&HUMAN].from);
        for mut bytes in datagrams {
            if shaped && bytes.len() > 12 {
                bytes[0] = 0x80;
                bytes[1] &= 0x65;
                bytes[8..12].copy_from_slice(&4_002_u32.to_be_bytes());
            }
            world.engine.packet(world.now, port, from, &mut bytes, &mut world.ear);
            world.engine.control_packet(world.now, port, &mut bytes);
            world.tick();
        }
    }

    #[test]
    fn under_any_plans_every_egress_has_one_unbroken_timeline(
        plans in proptest::collection::vec(
            (proptest::collection::btree_map((0_u16..3).prop_map(LegId), any_source(), 0..4), 0_usize..4, 0_u64..80),
            1..40,
        )
    ) {
        let mut world = World::new();
        for (egress, ticks, late_ms) in plans {
            let egress: Vec<_> = egress.into_iter().collect();
            world.plan(&egress, &[(0, "message"), (1, "whisper"), (2, "nowhere")]);
            world.run(ticks);
            world.now = world.now + Duration::from_millis(late_ms);
        }
        for leg in [CALLER, HUMAN] {
            for pair in world.sent(leg).windows(2) {
                prop_assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
                prop_assert_eq!(pair[1].ssrc, pair[0].ssrc);
                let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
                prop_assert!(step > 0 && step % 160 == 0 && step < 1 << 20, "{}", step);
            }
        }
    }
}
