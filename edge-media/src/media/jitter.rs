//! The playout buffer of one RTP source: it orders packets of any length by their timestamps,
//! delays them just enough, and gives exactly one frame per tick. Lost audio is bridged for
//! 60 ms with a falling level, then becomes comfort noise; silence by absence never happens.
//! It decodes nothing that it can pass on. RFC 3550 section 6.4.1 (jitter), ITU-T G.711
//! appendix I (the idea of the concealment).

use std::time::Duration;

use handoff::clock::Now;

use super::FRAME_SAMPLES;
use super::codec::{self, Frame};
use crate::sip::Codec;

const FRAME: u64 = FRAME_SAMPLES as u64;
/// 512 ms of samples. A power of two, and well above the longest delay plus one packet.
const RING_SAMPLES: usize = 4_096;
/// 40 ms to start with: two packets may be late without a gap.
const DELAY_START: u64 = 320;
/// 20 ms: less than one frame of slack would conceal at every breath of the network.
const DELAY_MIN: u64 = 160;
/// 120 ms: more would be felt in conversation; audio that late is dropped instead.
const DELAY_MAX: u64 = 960;
/// Longest packet that is played: 60 ms at 8 kHz. Longer ones are not offered by us.
const PACKET_SAMPLES_MAX: usize = 480;
/// Frames that are bridged with sound (60 ms); longer would drone.
const CONCEALED_FRAMES_MAX: u32 = 3;
/// After half a second without audio, the next packet starts a new buffering.
const RESTART_FRAMES: u32 = 25;
/// Packets over which the slack is watched before the delay shrinks: 10 s at 20 ms. Shorter
/// would shrink into the next burst of jitter.
const SLACK_WINDOW: u32 = 500;
/// Below this peak (about −44 dBFS) a dropped frame is not heard.
const QUIET_PEAK: i16 = 200;
/// Peak of the comfort noise, about −66 dBFS: present, not audible as sound.
const NOISE_PEAK: i16 = 16;
/// Shortest and longest pitch period that concealment looks for: 200 Hz to 50 Hz.
const PITCH: core::ops::RangeInclusive<usize> = 40..=160;

/// What the buffer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitterCounters {
    /// Packets that came too late to be played.
    pub late: u64,
    /// Frames that were made up.
    pub concealed: u64,
    /// Frames left out, to catch up or to shrink the delay.
    pub skipped: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct JitterBuffer {
    codec: Codec,
    ring: Box<[u8; RING_SAMPLES]>,
    present: Box<[bool; RING_SAMPLES]>,
    playout: Playout,
    newest: Option<u64>,
    delay: u64,
    slack: Slack,
    concealment: Concealment,
    counters: JitterCounters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Playout {
    /// No packet yet, or none for long.
    Idle,
    /// Packets gather; the first arrived at `since`.
    Filling { since: Now, from: u64 },
    /// `next` is the next sample to play; `heard` the end of the last real audio.
    Playing { next: u64, heard: u64 },
}

#[derive(Clone, Copy, Debug, Default)]
struct Slack {
    packets: u32,
    least: u64,
    shrink: bool,
}

impl JitterBuffer {
    /// An empty buffer; `seed` only varies the comfort noise.
    pub fn new(codec: Codec, seed: u32) -> Self {
        Self {
            codec,
            ring: Box::new([0; RING_SAMPLES]),
            present: Box::new([false; RING_SAMPLES]),
            playout: Playout::Idle,
            newest: None,
            delay: DELAY_START,
            slack: Slack::default(),
            concealment: Concealment::new(seed),
            counters: JitterCounters::default(),
        }
    }

    /// A new codec or a new sender: what is buffered no longer belongs to it.
    pub fn restart(&mut self, codec: Codec) {
        self.codec = codec;
        self.present.fill(false);
        self.playout = Playout::Idle;
        self.newest = None;
        self.delay = DELAY_START;
        self.slack = Slack::default();
    }

    /// What happened so far.
    pub const fn counters(&self) -> JitterCounters {
        self.counters
    }

    /// Takes one packet.
    pub fn push(&mut self, now: Now, timestamp: u32, payload: &[u8]) {
        if payload.len() > PACKET_SAMPLES_MAX {
            self.counters.late += 1;
            return;
        }
        let start = self.extend(timestamp);
        let length = payload.len() as u64;
        match self.playout {
            Playout::Idle => self.playout = Playout::Filling { since: now, from: start },
            Playout::Filling { since, from } => {
                if start.abs_diff(from) > DELAY_MAX {
                    self.present.fill(false);
                    self.playout = Playout::Filling { since: now, from: start };
                } else {
                    self.playout = Playout::Filling { since, from: from.min(start) };
                }
            }
            Playout::Playing { next, heard } => {
                if start + length <= next && !self.rewind(start, next, heard) {
                    self.counters.late += 1;
                    return;
                }
                self.observe(start);
            }
        }
        let played = match self.playout {
            Playout::Playing { next, .. } => next,
            Playout::Idle | Playout::Filling { .. } => 0,
        };
        for (sample, byte) in (start..).zip(payload) {
            if sample >= played
                && let (Some(slot), Some(present)) =
                    (self.ring.get_mut(index(sample)), self.present.get_mut(index(sample)))
            {
                *slot = *byte;
                *present = true;
            }
        }
    }

    /// The frame of this tick.
    pub fn pop(&mut self, now: Now) -> Frame {
        if let Playout::Filling { since, from } = self.playout
            && now.since(since) >= Duration::from_micros(self.delay * 125)
        {
            self.playout = Playout::Playing { next: from, heard: from };
        }
        let Playout::Playing { mut next, heard } = self.playout else {
            return self.concealment.idle();
        };
        if self.slack.shrink && self.may_drop(next) {
            self.clear(next, next + FRAME);
            next += FRAME;
            self.delay = self.delay.saturating_sub(FRAME).max(DELAY_MIN);
            self.slack = Slack::default();
            self.counters.skipped += 1;
        }
        let mut bytes = [codec::silence(self.codec); FRAME_SAMPLES];
        let mut found = 0;
        for (sample, byte) in (next..).zip(&mut bytes) {
            if let (Some(slot), Some(present)) =
                (self.ring.get(index(sample)), self.present.get_mut(index(sample)))
                && core::mem::take(present)
            {
                *byte = *slot;
                found += 1;
            }
        }
        let end = next + FRAME;
        if found == 0 {
            self.counters.concealed += 1;
            let frame = self.concealment.missing();
            self.playout = if self.concealment.missed >= RESTART_FRAMES {
                self.delay = DELAY_START;
                self.present.fill(false);
                Playout::Idle
            } else {
                Playout::Playing { next: end, heard }
            };
            return frame;
        }
        self.playout = Playout::Playing { next: end, heard: end };
        let frame = Frame::Coded(self.codec, bytes);
        self.concealment.heard(&frame);
        frame
    }

    /// The clock lost these frames: what they would have played is over.
    pub fn skip(&mut self, frames: u32) {
        if let Playout::Playing { next, heard } = self.playout {
            let to = next + u64::from(frames) * FRAME;
            self.clear(next, to.min(next + RING_SAMPLES as u64));
            self.playout = Playout::Playing { next: to, heard };
            self.counters.skipped += u64::from(frames);
        }
    }

    /// The timestamp without its wrap-around. It starts high enough to go back from.
    fn extend(&mut self, timestamp: u32) -> u64 {
        let extended = match self.newest {
            None => (1 << 32) + u64::from(timestamp),
            Some(newest) => {
                let step = i64::from(timestamp.wrapping_sub(newest as u32) as i32);
                newest.saturating_add_signed(step)
            }
        };
        // A jump beyond a second is a sender that started its clock anew.
        if self.newest.is_some_and(|newest| extended.abs_diff(newest) > 8_000) {
            self.present.fill(false);
            self.playout = Playout::Idle;
            self.newest = Some(extended);
        } else {
            self.newest = Some(self.newest.map_or(extended, |newest| newest.max(extended)));
        }
        extended
    }

    /// A packet came after its moment. If nothing newer was played since, play it now and
    /// keep that much more delay; this is how the delay grows.
    fn rewind(&mut self, start: u64, next: u64, heard: u64) -> bool {
        let late = next - start;
        if start < heard || self.delay + late > DELAY_MAX {
            return false;
        }
        self.delay += late;
        self.slack = Slack::default();
        self.playout = Playout::Playing { next: start, heard };
        true
    }

    /// Watches how early packets come, and catches up when they lie in a heap.
    fn observe(&mut self, start: u64) {
        let Playout::Playing { next, heard } = self.playout else { return };
        let early = start.saturating_sub(next);
        if early > DELAY_MAX + FRAME {
            // A stall on our side: the heap is older than any delay that we would add.
            let to = start - self.delay;
            self.clear(next, to.min(next + RING_SAMPLES as u64));
            self.counters.skipped += (to - next) / FRAME;
            self.playout = Playout::Playing { next: to, heard };
            return;
        }
        self.slack.least = if self.slack.packets == 0 { early } else { self.slack.least.min(early) };
        self.slack.packets += 1;
        if self.slack.packets >= SLACK_WINDOW {
            self.slack.shrink = self.slack.least >= 2 * FRAME && self.delay > DELAY_MIN;
            self.slack.packets = 0;
        }
    }

    /// Whether leaving out the frame at `next` would not be heard, or must be borne because
    /// the sender's clock runs ahead of ours.
    fn may_drop(&self, next: u64) -> bool {
        let loud = (next..next + FRAME).any(|sample| {
            let present = self.present.get(index(sample)).copied().unwrap_or_default();
            let byte = self.ring.get(index(sample)).copied().unwrap_or_default();
            present && codec::decode(self.codec, byte).saturating_abs() > QUIET_PEAK
        });
        !loud || self.slack.least >= 4 * FRAME
    }

    fn clear(&mut self, from: u64, to: u64) {
        for sample in from..to {
            if let Some(present) = self.present.get_mut(index(sample)) {
                *present = false;
            }
        }
    }
}

const fn index(sample: u64) -> usize {
    sample as usize % RING_SAMPLES
}

/// Makes up what is missing out of what was last heard.
#[derive(Clone, Debug)]
struct Concealment {
    history: Box<[i16; 2 * FRAME_SAMPLES]>,
    missed: u32,
    /// Nothing was ever heard: there is nothing to conceal.
    fresh: bool,
    period: usize,
    noise: u32,
}

impl Concealment {
    fn new(seed: u32) -> Self {
        Self { history: Box::new([0; 2 * FRAME_SAMPLES]), missed: 0, fresh: true, period: 0, noise: seed | 1 }
    }

    fn heard(&mut self, frame: &Frame) {
        self.fresh = false;
        self.missed = 0;
        self.remember(&frame.linear());
    }

    fn remember(&mut self, samples: &[i16; FRAME_SAMPLES]) {
        self.history.copy_within(FRAME_SAMPLES.., 0);
        for (slot, sample) in self.history.iter_mut().skip(FRAME_SAMPLES).zip(samples) {
            *slot = *sample;
        }
    }

    fn idle(&mut self) -> Frame {
        if self.fresh { Frame::Silence } else { self.noise() }
    }

    fn missing(&mut self) -> Frame {
        self.missed += 1;
        if self.fresh {
            return Frame::Silence;
        }
        if self.missed > CONCEALED_FRAMES_MAX {
            return self.noise();
        }
        if self.missed == 1 {
            self.period = self.pitch();
        }
        let mut samples = [0_i16; FRAME_SAMPLES];
        for position in 0..FRAME_SAMPLES {
            let back = self.history.len() - self.period + position % self.period;
            if let (Some(slot), Some(old)) = (samples.get_mut(position), self.history.get(back)) {
                *slot = *old;
            }
        }
        self.remember(&samples);
        // The level falls in a straight line over the three frames: history keeps it full.
        let total = i32::try_from(FRAME_SAMPLES).unwrap_or(160) * CONCEALED_FRAMES_MAX as i32;
        let before = (self.missed as i32 - 1) * 160;
        for (position, sample) in (before..).zip(&mut samples) {
            *sample = (i32::from(*sample) * (total - position) / total) as i16;
        }
        Frame::Linear(samples)
    }

    /// The lag at which the last 20 ms resemble what came before them most.
    fn pitch(&self) -> usize {
        let mut best = (*PITCH.end(), 0.0_f32);
        for lag in PITCH {
            let (mut product, mut energy) = (0.0_f32, 1.0_f32);
            let recent = self.history.iter().skip(FRAME_SAMPLES);
            let earlier = self.history.iter().skip(FRAME_SAMPLES - lag);
            for (new, old) in recent.zip(earlier) {
                product += f32::from(*new) * f32::from(*old);
                energy += f32::from(*old) * f32::from(*old);
            }
            let likeness = if product > 0.0 { product * product / energy } else { 0.0 };
            if likeness > best.1 {
                best = (lag, likeness);
            }
        }
        best.0
    }

    fn noise(&mut self) -> Frame {
        let mut samples = [0_i16; FRAME_SAMPLES];
        for sample in &mut samples {
            // xorshift32: cheap, deterministic, white enough.
            self.noise ^= self.noise << 13;
            self.noise ^= self.noise >> 17;
            self.noise ^= self.noise << 5;
            *sample = (self.noise % (2 * NOISE_PEAK as u32 + 1)) as i16 - NOISE_PEAK;
        }
        Frame::Linear(samples)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(number: u32) -> [u8; FRAME_SAMPLES] {
        [number as u8 | 1; FRAME_SAMPLES]
    }

    /// Pushes packet `n` at `arrivals[n]` (ms), pops every 20 ms, and gives the frames.
    fn play(arrivals: &[(u64, u32)], ticks: u64) -> (Vec<Frame>, JitterCounters) {
        let mut buffer = JitterBuffer::new(Codec::Pcmu, 1);
        let mut frames = Vec::new();
        let mut waiting = arrivals.iter().peekable();
        for tick in 0..ticks {
            let now = tick * 20 + 5;
            while let Some((at, number)) = waiting.next_if(|(at, _)| *at <= now) {
                let timestamp = 0xffff_ff00_u32.wrapping_add(number * 160);
                buffer.push(Now::from_millis(*at), timestamp, &payload(number * 2));
            }
            frames.push(buffer.pop(Now::from_millis(now)));
        }
        (frames, buffer.counters())
    }

    fn coded(frames: &[Frame]) -> Vec<u8> {
        let byte = |frame: &Frame| match frame {
            Frame::Coded(_, bytes) => Some(bytes[0] / 2),
            Frame::Silence | Frame::Linear(_) => None,
        };
        frames.iter().filter_map(byte).collect()
    }

    #[test]
    fn packets_come_out_in_order_and_unchanged_across_the_wrap() {
        let arrivals: Vec<_> = [0, 2, 1, 3, 5, 4, 4].iter().zip(0..).map(|(n, i)| (i * 20, *n)).collect();
        let (frames, counters) = play(&arrivals, 8);
        assert_eq!(coded(&frames), [0, 1, 2, 3, 4, 5]);
        assert_eq!(counters.concealed, 0);
    }

    #[test]
    fn a_lost_packet_is_bridged_and_nothing_else_moves() {
        let arrivals: Vec<_> = (0..10).filter(|n| *n != 4).map(|n| (u64::from(n) * 20, n)).collect();
        let (frames, counters) = play(&arrivals, 12);
        assert_eq!(coded(&frames), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
        assert_eq!(counters.concealed, 1);
    }

    #[test]
    fn a_late_packet_is_played_and_the_delay_grows() {
        let mut arrivals: Vec<_> = (0..10).map(|n| (u64::from(n) * 20, n)).collect();
        for (at, _) in arrivals.iter_mut().skip(5) {
            *at += 60;
        }
        let (frames, counters) = play(&arrivals, 18);
        assert_eq!(coded(&frames), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "every packet was played");
        assert_eq!(counters.late, 0);
    }

    #[test]
    fn after_sixty_milliseconds_comes_quiet_noise() {
        let arrivals: Vec<_> = (0..5).map(|n| (u64::from(n) * 20, n)).collect();
        let (frames, _) = play(&arrivals, 60);
        let peaks: Vec<_> = frames
            .iter()
            .skip(8)
            .map(|f| f.linear().iter().map(|s| s.unsigned_abs()).max().unwrap())
            .collect();
        assert!(peaks[0] > peaks[1] && peaks[1] > peaks[2], "{peaks:?}");
        assert!(peaks.iter().skip(4).all(|peak| (1..=16).contains(peak)), "{peaks:?}");
    }

    #[test]
    fn a_heap_after_a_stall_is_not_played_late() {
        let mut arrivals: Vec<_> = (0..10).map(|n| (u64::from(n) * 20, n)).collect();
        arrivals.extend((10..30).map(|n| (600, n)));
        arrivals.extend((30..40).map(|n| (u64::from(n) * 20, n)));
        let (frames, counters) = play(&arrivals, 50);
        assert_eq!(coded(&frames).last(), Some(&39));
        assert!(counters.late + counters.skipped >= 10, "{counters:?}");
    }

    #[test]
    fn packets_of_any_length_are_cut_into_frames() {
        for length in [80_usize, 240, 320, 480] {
            let mut buffer = JitterBuffer::new(Codec::Pcma, 1);
            let (mut sent, mut real) = (0_usize, 0);
            for tick in 0..100_u64 {
                while sent <= tick as usize * 160 {
                    buffer.push(Now::from_millis(tick * 20), sent as u32, &vec![1; length]);
                    sent += length;
                }
                real += usize::from(
                    buffer.pop(Now::from_millis(tick * 20)) == Frame::Coded(Codec::Pcma, [1; 160]),
                );
            }
            assert!(real >= 96, "{length}: {real}");
        }
    }

    proptest! {
        #[test]
        fn any_timestamps_give_one_frame_per_tick(
            packets in proptest::collection::vec((any::<u32>(), 0_usize..600, 0_u64..50), 0..200)
        ) {
            let mut buffer = JitterBuffer::new(Codec::Pcmu, 1);
            let mut now = 0;
            for (timestamp, length, step) in packets {
                now += step;
                buffer.push(Now::from_millis(now), timestamp, &vec![3; length]);
                buffer.pop(Now::from_millis(now));
                buffer.skip(timestamp % 7);
            }
        }

        #[test]
        fn jitter_below_the_start_delay_loses_nothing(
            jitter in proptest::collection::vec(0_u64..35, 100)
        ) {
            let arrivals: Vec<_> = jitter.iter().zip(0_u32..).map(|(j, n)| (u64::from(n) * 20 + j, n)).collect();
            let mut sorted = arrivals;
            sorted.sort();
            let (frames, _) = play(&sorted, 110);
            prop_assert_eq!(coded(&frames).len(), 100);
        }
    }
}
