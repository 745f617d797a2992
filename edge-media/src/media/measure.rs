//! What leaves on one egress, measured on the packets and frames themselves and not on the
//! plan: gaps, silence, breaks of the stream, and frames in which a prompt for somebody else is
//! heard. It changes nothing and knows neither calls nor roles.

use handoff::call::media::Stretch;
use handoff::clock::Now;

use crate::media::codec::Frame;
use crate::media::{FRAME_SAMPLES, TICK};

/// -50 dBFS as the mean square of 16-bit samples: below it a line sounds dead.
const SILENT_POWER: i64 = 10_737;

/// Sequence numbers that may be missing at a time: what a network lost of a relayed stream is
/// a hole and no break.
const HOLE_MAX: u16 = 64;

/// A timestamp may run ahead of the time that passed by so much: a relayed stream keeps its
/// own, and moves once when a path became slower.
const LEAP_MAX: u32 = 8_000;

/// Payload types below this carry audio here; keys share a timestamp among their packets.
const DYNAMIC: u8 = 96;

/// Frames in a row that must resemble a prompt to be taken for it: 100 ms. One frame of a
/// vowel may resemble one of a flute.
const LEAK_RUN: u32 = 5;

/// How much they must resemble it, as the square of the correlation, in per cent.
const LEAK_PERCENT: i128 = 70;

/// The measure of one egress.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    last: Option<Packet>,
    last_at: Option<Now>,
    silent: u32,
    alike: u32,
    stretch: Stretch,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

impl Measure {
    /// A packet left.
    pub fn sent(&mut self, now: Now, bytes: &[u8]) {
        let Some((head, _)) = bytes.split_first_chunk::<12>() else { return };
        let [_, kind, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3] = *head;
        let packet = Packet {
            ssrc: u32::from_be_bytes([r0, r1, r2, r3]),
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
        };
        let audio = kind & 0x7f < DYNAMIC;
        let passed = self.last_at.map(|last| now.since(last));
        if let Some(passed) = passed {
            let gap = u32::try_from(passed.as_millis()).unwrap_or(u32::MAX);
            self.stretch.longest_gap_ms = self.stretch.longest_gap_ms.max(gap);
        }
        if let Some(last) = self.last
            && !packet.follows(last, audio, passed.map_or(u32::MAX, |passed| samples(passed.as_micros())))
        {
            self.stretch.breaks = self.stretch.breaks.saturating_add(1);
        }
        let timestamp =
            if audio { packet.timestamp } else { self.last.map_or(packet.timestamp, |l| l.timestamp) };
        self.last = Some(Packet { timestamp, ..packet });
        self.last_at = Some(now);
        self.stretch.packets = self.stretch.packets.saturating_add(1);
    }

    /// Nothing may be sent: the time until the next packet is nobody's fault.
    pub const fn paused(&mut self) {
        self.last_at = None;
        self.silent = 0;
    }

    /// What this tick says, and what the prompts for others say in it.
    pub fn heard<'a>(&mut self, frame: &Frame, others: impl Iterator<Item = &'a Frame>) {
        let own = frame.linear();
        if power(&own) < SILENT_POWER {
            self.silent = self.silent.saturating_add(1);
            let tick_ms = u32::try_from(TICK.as_millis()).unwrap_or(u32::MAX);
            let silence = self.silent.saturating_mul(tick_ms);
            self.stretch.longest_silence_ms = self.stretch.longest_silence_ms.max(silence);
        } else {
            self.silent = 0;
        }
        let alike = others.map(Frame::linear).any(|other| resemble(&own, &other));
        self.alike = if alike { self.alike.saturating_add(1) } else { 0 };
        let leaked = match self.alike {
            LEAK_RUN => LEAK_RUN,
            run if run > LEAK_RUN => 1,
            _ => 0,
        };
        self.stretch.leaked_frames = self.stretch.leaked_frames.saturating_add(leaked);
    }

    /// What was measured since this was asked last.
    pub fn take(&mut self) -> Stretch {
        core::mem::take(&mut self.stretch)
    }
}

impl Packet {
    fn follows(self, last: Self, audio: bool, passed: u32) -> bool {
        let step = self.sequence.wrapping_sub(last.sequence);
        let moved = self.timestamp.wrapping_sub(last.timestamp);
        let in_order = self.ssrc == last.ssrc && (1..=HOLE_MAX + 1).contains(&step);
        in_order && (!audio || (1..=passed.saturating_add(LEAP_MAX)).contains(&moved))
    }
}

/// Samples of so many microseconds.
fn samples(micros: u128) -> u32 {
    u32::try_from(micros / 125).unwrap_or(u32::MAX)
}

fn power(samples: &[i16; FRAME_SAMPLES]) -> i64 {
    samples.iter().map(|sample| i64::from(*sample) * i64::from(*sample)).sum::<i64>() / FRAME_SAMPLES as i64
}

/// Whether two frames that can be heard are the same sound, whatever its level.
fn resemble(one: &[i16; FRAME_SAMPLES], other: &[i16; FRAME_SAMPLES]) -> bool {
    let (mut cross, mut first, mut second) = (0_i64, 0_i64, 0_i64);
    for (a, b) in one.iter().zip(other) {
        let (a, b) = (i64::from(*a), i64::from(*b));
        cross += a * b;
        first += a * a;
        second += b * b;
    }
    let floor = SILENT_POWER * FRAME_SAMPLES as i64;
    let alike = i128::from(cross) * i128::from(cross) * 100;
    first > floor && second > floor && alike > i128::from(first) * i128::from(second) * LEAK_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::tone;

    fn packet(sequence: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
        let mut bytes = vec![0x80, 0];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend(ssrc.to_be_bytes());
        bytes.extend([0xff; FRAME_SAMPLES]);
        bytes
    }

    fn at(ms: u64) -> Now {
        Now::from_millis(ms)
    }

    fn tone_of(hz: u32, start: usize) -> Frame {
        let samples: Vec<i16> = (start..start + FRAME_SAMPLES)
            .map(|n| (8_000.0 * (core::f64::consts::TAU * f64::from(hz) * n as f64 / 8_000.0).sin()) as i16)
            .collect();
        assert!(tone::level(&samples, hz) > -20.0);
        Frame::Linear(samples.try_into().unwrap())
    }

    #[test]
    fn a_whole_stream_has_packets_and_no_break() {
        let mut measure = Measure::default();
        for n in 0..100_u16 {
            measure.sent(at(u64::from(n) * 20), &packet(n, u32::from(n) * 160, 7));
        }
        let expected = Stretch { packets: 100, longest_gap_ms: 20, ..Stretch::default() };
        assert_eq!(measure.take(), expected);
        assert_eq!(measure.take(), Stretch::default(), "it is told once");
    }

    #[test]
    fn gaps_holes_and_breaks_are_told_apart() {
        for (name, sequence, timestamp, ssrc, breaks) in [
            ("a lost packet", 12, 12 * 160, 7, 0),
            ("a repeated number", 10, 11 * 160, 7, 1),
            ("a number that goes back", 8, 11 * 160, 7, 1),
            ("another source", 11, 11 * 160, 8, 1),
            ("a timestamp that repeats", 11, 10 * 160, 7, 1),
            ("a timestamp of another clock", 11, 3_000_000, 7, 1),
        ] {
            let mut measure = Measure::default();
            measure.sent(at(200), &packet(10, 10 * 160, 7));
            measure.sent(at(260), &packet(sequence, timestamp, ssrc));
            let stretch = measure.take();
            assert_eq!((stretch.breaks, stretch.longest_gap_ms), (breaks, 60), "{name}");
        }
    }

    #[test]
    fn a_pause_that_the_far_end_wants_is_no_gap() {
        let mut measure = Measure::default();
        measure.sent(at(0), &packet(1, 160, 7));
        measure.paused();
        measure.sent(at(60_000), &packet(2, 480_160, 7));
        let stretch = measure.take();
        assert_eq!((stretch.longest_gap_ms, stretch.breaks), (0, 0));
    }

    #[test]
    fn silence_is_measured_and_ends_with_a_sound() {
        let mut measure = Measure::default();
        let none = core::iter::empty::<&Frame>;
        for frame in [Frame::Silence, Frame::Silence, tone_of(500, 0), Frame::Silence] {
            measure.heard(&frame, none());
        }
        assert_eq!(measure.take().longest_silence_ms, 40);
    }

    #[test]
    fn a_prompt_of_somebody_else_is_recognised_at_any_level_and_under_other_sound() {
        let louder = |frame: &Frame, other: &Frame| {
            let mut samples = frame.linear();
            for (sample, other) in samples.iter_mut().zip(other.linear()) {
                *sample = *sample / 2 + other / 8;
            }
            Frame::Linear(samples)
        };
        let mut measure = Measure::default();
        for n in 0..20 {
            let whisper = tone_of(440, n * FRAME_SAMPLES);
            let music = tone_of(1_000, n * FRAME_SAMPLES);
            measure.heard(&louder(&whisper, &music), [&whisper].into_iter());
        }
        assert_eq!(measure.take().leaked_frames, 20);
        for n in 0..20 {
            let (whisper, music) = (tone_of(440, n * FRAME_SAMPLES), tone_of(1_000, n * FRAME_SAMPLES));
            measure.heard(&music, [&whisper].into_iter());
        }
        assert_eq!(measure.take().leaked_frames, 0, "other sound is not taken for it");
    }
}
