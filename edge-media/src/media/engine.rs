//! All legs of all calls of one media thread. Whole plans come in and take hold at the next
//! tick; packets and pieces of streams come in at any time; every 20 ms each egress sends
//! exactly one frame of its source, unless that source is a leg of the same codec whose
//! packets are relayed as they arrive. A leg is heard only where the newest plan says so, and
//! never by itself. It reads no clock and owns no socket: its effects go to a [`Sink`].

mod leg;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use handoff::call::media::{MediaPlan, MediaReport};
use handoff::clock::Now;
use handoff::id::{CallId, Epoch, LegId};

use self::leg::Leg;
use super::codec::Frame;
use super::egress::Slot;
use super::prompt::{Audio, ClipStore, SpeechKey, SpeechStore};
use super::rtp::RtpPacket;
use super::rtp_leg::Arrival;
use super::srtp::SrtpError;
use super::{
    FRAME_SAMPLES, FRAMES_AT_ONCE_MAX, MediaCommand, MediaEvent, Port, StreamIn, StreamKey, StreamOut, TICK,
};
use crate::sip::RemoteMedia;

/// Calls of one thread. A thread is saturated by packets long before.
const CALLS_MAX: usize = 4_096;
/// Legs of one call: caller, voice agent, and the attempts that may overlap.
const LEGS_PER_CALL_MAX: usize = 32;

/// Where the effects of the engine go.
pub trait Sink {
    /// Send this RTP packet from `port`.
    fn send_rtp(&mut self, port: Port, to: SocketAddr, bytes: &[u8]);
    /// Send this RTCP packet from the port after `port`.
    fn send_rtcp(&mut self, port: Port, to: SocketAddr, bytes: &[u8]);
    /// Give this to the voice agent's stream.
    fn stream_out(&mut self, key: StreamKey, out: StreamOut);
    /// Tell the call machine.
    fn report(&mut self, event: MediaEvent);
    /// Keep 20 ms of a recorded leg.
    fn record(&mut self, frame: RecordedFrame<'_>);
}

/// What one recorded leg said and heard in one tick, as µ-law.
#[derive(Clone, Copy, Debug)]
pub struct RecordedFrame<'a> {
    /// When.
    pub at: Now,
    /// Whose.
    pub call: &'a CallId,
    /// Which.
    pub leg: LegId,
    /// What it said.
    pub said: &'a [u8; FRAME_SAMPLES],
    /// What it heard.
    pub heard: &'a [u8; FRAME_SAMPLES],
}

/// What the engine counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Ticks that had to send more than one frame at once.
    pub late_ticks: u64,
    /// Frames that were not sent because the clock was too far behind.
    pub skipped_frames: u64,
    /// Datagrams that were not RTP or not of an agreed payload type.
    pub malformed: u64,
    /// Datagrams from anybody but the source of the leg.
    pub foreign: u64,
    /// Plans that were older than the one that holds.
    pub stale_plans: u64,
    /// Orders about legs or calls that are not (or no longer) known, or one too many.
    pub refused: u64,
    /// Keys that could not be queued.
    pub refused_keys: u64,
    /// Datagrams under SRTP that the far end did not seal, also counted as foreign.
    pub forged: u64,
}

impl EngineCounters {
    /// A datagram that does not open. One that the network doubled is nobody's fault.
    const fn refuse(&mut self, error: SrtpError) {
        match error {
            SrtpError::Length => self.malformed += 1,
            SrtpError::Forged => {
                self.foreign += 1;
                self.forged += 1;
            }
            SrtpError::Repeated => {}
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    clips: Arc<ClipStore>,
    speech: SpeechStore,
    calls: BTreeMap<CallId, CallMedia>,
    ports: BTreeMap<Port, (CallId, LegId)>,
    streams: BTreeMap<StreamKey, (CallId, LegId)>,
    random: Random,
    next_tick: Option<Now>,
    counters: EngineCounters,
}

/// When a frame is sent, and when it was due: the same but for a late tick.
#[derive(Clone, Copy, Debug)]
struct Times {
    now: Now,
    slot: Slot,
}

/// The media of one call.
#[derive(Debug)]
struct CallMedia {
    plan: MediaPlan,
    legs: Vec<Leg>,
}

impl Engine {
    /// An engine without calls. `seed` feeds the choice of SSRCs and the like; it must be
    /// random outside of tests.
    pub fn new(clips: Arc<ClipStore>, seed: u64) -> Self {
        Self {
            clips,
            speech: SpeechStore::default(),
            calls: BTreeMap::new(),
            ports: BTreeMap::new(),
            streams: BTreeMap::new(),
            random: Random(seed),
            next_tick: None,
            counters: EngineCounters::default(),
        }
    }

    /// Carries out an order.
    pub fn command(&mut self, now: Now, command: MediaCommand, sink: &mut impl Sink) {
        match command {
            MediaCommand::Open { call, leg, carrier } => {
                let leg = Leg::open(leg, carrier, || self.random.next());
                self.open(now, call, leg, sink);
            }
            MediaCommand::Remote { call, leg, remote } => self.agree(now, &call, leg, remote),
            MediaCommand::Apply(plan) => self.apply(now, plan, sink),
            MediaCommand::Clear { call, leg } => match self.leg_mut(&call, leg) {
                Some(leg) => leg.clear(now, &call, sink),
                None => self.counters.refused += 1,
            },
            MediaCommand::Drain { call, leg } => match self.leg_mut(&call, leg) {
                Some(leg) => leg.drain(now, &call, sink),
                None => self.counters.refused += 1,
            },
            MediaCommand::SendDigits { call, leg, digits } => match self.leg_mut(&call, leg) {
                Some(leg) => {
                    let refused = leg.send_keys(&digits, sink);
                    self.counters.refused_keys += refused as u64;
                }
                None => self.counters.refused += 1,
            },
            MediaCommand::Record { call, leg, on } => match self.leg_mut(&call, leg) {
                Some(leg) => leg.record(on),
                None => self.counters.refused += 1,
            },
            MediaCommand::Close { call, leg } => self.close(now, &call, leg, sink),
        }
    }

    /// Speech is ready for the prompts that start from now on.
    pub fn prompt_ready(&mut self, key: SpeechKey, audio: Audio) {
        self.speech.insert(key, audio);
    }

    /// A datagram arrived on an RTP port. It is opened in its place, where it is sealed.
    pub fn packet(&mut self, now: Now, port: Port, from: SocketAddr, bytes: &mut [u8], sink: &mut impl Sink) {
        let Some((call, id)) = self.ports.get(&port) else {
            self.counters.foreign += 1;
            return;
        };
        let Some(media) = self.calls.get_mut(call) else { return };
        let epoch = media.plan.epoch;
        let Some(leg) = media.legs.iter_mut().find(|leg| leg.id() == *id) else { return };
        let bytes = match leg.open_packet(bytes) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.counters.refuse(error);
                return;
            }
        };
        match leg.packet(now, from, bytes, call, epoch, sink) {
            Arrival::Malformed => self.counters.malformed += 1,
            Arrival::Foreign => self.counters.foreign += 1,
            Arrival::Audio(codec) => {
                if let Ok(packet) = RtpPacket::parse(bytes) {
                    for listener in &mut media.legs {
                        listener.relay(now, *id, codec, &packet, sink);
                    }
                }
            }
            Arrival::Key(_) | Arrival::Alive => {}
        }
    }

    /// A datagram arrived on an RTCP port. It is checked and counted, and steers nothing.
    pub fn control_packet(&mut self, now: Now, port: Port, bytes: &mut [u8]) {
        let leg = self
            .ports
            .get(&port)
            .and_then(|(call, id)| self.calls.get_mut(call)?.legs.iter_mut().find(|leg| leg.id() == *id));
        let Some(leg) = leg else {
            self.counters.foreign += 1;
            return;
        };
        match leg.control_packet(now, bytes) {
            Ok(true) => {}
            Ok(false) => self.counters.malformed += 1,
            Err(error) => self.counters.refuse(error),
        }
    }

    /// A voice agent's stream brought something.
    pub fn stream_in(&mut self, now: Now, key: StreamKey, input: StreamIn, sink: &mut impl Sink) {
        let Some((call, id)) = self.streams.get(&key) else {
            self.counters.refused += 1;
            return;
        };
        let Some(media) = self.calls.get_mut(call) else { return };
        let epoch = media.plan.epoch;
        if let Some(leg) = media.legs.iter_mut().find(|leg| leg.id() == *id) {
            leg.stream_in(now, input, call, epoch, sink);
        }
    }

    /// Sends what is due. Call it at [`Self::next_tick`]; later calls catch up, frame by frame,
    /// by the rule of [`FRAMES_AT_ONCE_MAX`].
    pub fn tick(&mut self, now: Now, sink: &mut impl Sink) {
        let due_at = *self.next_tick.get_or_insert(now);
        if now < due_at {
            return;
        }
        let tick = u64::try_from(TICK.as_micros()).unwrap_or(u64::MAX);
        let due = (now.micros() - due_at.micros()) / tick + 1;
        self.next_tick = Some(Now::from_micros(due_at.micros() + due * tick));
        if due > 1 {
            self.counters.late_ticks += 1;
        }
        let skipped = due.saturating_sub(u64::from(FRAMES_AT_ONCE_MAX));
        if skipped > 0 {
            self.counters.skipped_frames += skipped;
            let frames = u32::try_from(skipped).unwrap_or(u32::MAX);
            for leg in self.calls.values_mut().flat_map(|media| &mut media.legs) {
                leg.skip(frames);
            }
        }
        for frame in skipped..due {
            let slot = Slot {
                at: Now::from_micros(due_at.micros() + frame * tick),
                more: u32::try_from(due - 1 - frame).unwrap_or(u32::MAX),
            };
            for (call, media) in &mut self.calls {
                media.tick(Times { now, slot }, call, &self.clips, sink);
            }
        }
    }

    /// When [`Self::tick`] has to be called next; `None` before the first.
    pub const fn next_tick(&self) -> Option<Now> {
        self.next_tick
    }

    /// What happened so far.
    pub const fn counters(&self) -> EngineCounters {
        self.counters
    }

    /// Calls with at least one leg.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    fn open(&mut self, now: Now, call: CallId, mut leg: Leg, sink: &mut impl Sink) {
        let full = self.calls.len() >= CALLS_MAX;
        let media = match self.calls.get_mut(&call) {
            Some(media) => media,
            None if full => {
                self.counters.refused += 1;
                return;
            }
            None => self.calls.entry(call.clone()).or_insert_with(|| CallMedia {
                plan: MediaPlan {
                    call: call.clone(),
                    epoch: Epoch::default(),
                    egress: BTreeMap::new(),
                    prompts: BTreeMap::new(),
                },
                legs: Vec::new(),
            }),
        };
        let known = media.legs.iter().any(|other| other.id() == leg.id());
        if known || media.legs.len() >= LEGS_PER_CALL_MAX {
            self.counters.refused += 1;
            return;
        }
        if let Some(port) = leg.port() {
            self.ports.insert(port, (call.clone(), leg.id()));
        }
        if let Some(key) = leg.stream_key() {
            self.streams.insert(key, (call, leg.id()));
        }
        leg.switch(&media.plan, &self.clips, &self.speech);
        leg.watch(now, &media.plan, sink);
        media.legs.push(leg);
        media.legs.sort_by_key(Leg::id);
    }

    fn agree(&mut self, now: Now, call: &CallId, leg: LegId, remote: RemoteMedia) {
        match self.leg_mut(call, leg) {
            Some(leg) => leg.agree(now, remote),
            None => self.counters.refused += 1,
        }
    }

    fn apply(&mut self, now: Now, plan: MediaPlan, sink: &mut impl Sink) {
        let Some(media) = self.calls.get_mut(&plan.call) else {
            self.counters.refused += 1;
            return;
        };
        if plan.epoch <= media.plan.epoch {
            self.counters.stale_plans += 1;
            return;
        }
        media.plan = plan;
        for leg in &mut media.legs {
            if let Some((play, played_pm)) = leg.switch(&media.plan, &self.clips, &self.speech) {
                let report = MediaReport::PlayEnded { play, played_pm };
                sink.report(MediaEvent { at: now, call: media.plan.call.clone(), report });
            }
            leg.watch(now, &media.plan, sink);
        }
    }

    fn close(&mut self, now: Now, call: &CallId, id: LegId, sink: &mut impl Sink) {
        let Some(media) = self.calls.get_mut(call) else {
            self.counters.refused += 1;
            return;
        };
        let Some(position) = media.legs.iter().position(|leg| leg.id() == id) else {
            self.counters.refused += 1;
            return;
        };
        let mut leg = media.legs.remove(position);
        if let Some((play, played_pm)) = leg.cut() {
            let report = MediaReport::PlayEnded { play, played_pm };
            sink.report(MediaEvent { at: now, call: call.clone(), report });
        }
        if let Some(port) = leg.port() {
            self.ports.remove(&port);
        }
        if let Some(key) = leg.stream_key() {
            self.streams.remove(&key);
        }
        if media.legs.is_empty() {
            self.calls.remove(call);
        }
    }

    fn leg_mut(&mut self, call: &CallId, id: LegId) -> Option<&mut Leg> {
        self.calls.get_mut(call)?.legs.iter_mut().find(|leg| leg.id() == id)
    }
}

impl CallMedia {
    /// One frame in from every leg, then one frame out to every egress.
    fn tick(&mut self, times: Times, call: &CallId, clips: &ClipStore, sink: &mut impl Sink) {
        for leg in &mut self.legs {
            leg.listen(times.now, call, sink);
        }
        for position in 0..self.legs.len() {
            let routed = self.legs.get(position).and_then(|leg| leg.route(&self.legs));
            if let Some(leg) = self.legs.get_mut(position) {
                leg.speak(times, routed, call, self.plan.epoch, clips, sink);
            }
        }
        let prompts: Vec<(LegId, Frame)> = self.legs.iter().filter_map(Leg::prompts).collect();
        for leg in &mut self.legs {
            leg.judge(&prompts);
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the seed of one engine, spread over its legs.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as u32
    }
}
