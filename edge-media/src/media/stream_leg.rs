//! The audio of a voice agent that comes over a stream: pieces of any size, as fast as it
//! likes. They are cut into frames, queued for minutes and played at our clock. A mark is
//! echoed when what was given before it has been played, a clear echoes what is pending.
//! Speech that nobody may hear any more is thrown away, not kept for a later moment.

use std::collections::VecDeque;

use super::FRAME_SAMPLES;
use super::codec::Frame;

/// Five minutes of speech. Stock agents burst seconds; more is a runaway.
const QUEUED_BYTES_MAX: usize = 8_000 * 300;
/// Marks that may be pending: stock agents set one per piece of speech.
const MARKS_MAX: usize = 4_096;
/// Longest name of a mark. Names are echoed, so their size is ours to bound.
const MARK_LEN_MAX: usize = 256;
/// Speech gathers until there are 60 ms of it, so that pieces of 40 ms play without a seam.
const START_BYTES: usize = 3 * FRAME_SAMPLES;
/// Or until this many ticks have passed: a short word must not wait for a longer one. An
/// incomplete frame waits as long for its rest.
const PATIENCE_TICKS: u32 = 2;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct StreamQueue {
    bytes: VecDeque<u8>,
    /// All bytes ever queued and ever played (or thrown away): places of marks.
    queued: u64,
    played: u64,
    marks: VecDeque<(u64, String)>,
    playing: bool,
    waited: u32,
    refused: u64,
}

/// What a tick of the queue yields beside its frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Marks that were reached, in order.
    pub marks: Vec<String>,
    /// The queue ran empty just now.
    pub drained: bool,
}

impl StreamQueue {
    /// Queues µ-law bytes; what exceeds the queue is refused and counted.
    pub fn audio(&mut self, bytes: &[u8]) {
        let room = QUEUED_BYTES_MAX - self.bytes.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.refused += (bytes.len() - taken.len()) as u64;
        self.bytes.extend(taken);
        self.queued += taken.len() as u64;
    }

    /// Queues a mark behind the audio given so far.
    pub fn mark(&mut self, name: String) {
        if self.marks.len() < MARKS_MAX && name.len() <= MARK_LEN_MAX {
            self.marks.push_back((self.queued, name));
        } else {
            self.refused += 1;
        }
    }

    /// Throws the queue away and gives all pending marks.
    pub fn clear(&mut self) -> Reached {
        let drained = !self.bytes.is_empty();
        self.bytes.clear();
        self.played = self.queued;
        self.playing = false;
        self.waited = 0;
        Reached { marks: self.reached(), drained }
    }

    /// The frame of this tick.
    pub fn tick(&mut self) -> (Frame, Reached) {
        if self.bytes.is_empty() {
            self.playing = false;
            return (Frame::Silence, Reached { marks: self.reached(), drained: false });
        }
        let needed = if self.playing { FRAME_SAMPLES } else { START_BYTES };
        if self.bytes.len() < needed && self.waited < PATIENCE_TICKS {
            self.waited += 1;
            return (Frame::Silence, Reached::default());
        }
        self.waited = 0;
        self.playing = true;
        let mut frame = [0; FRAME_SAMPLES];
        let length = self.bytes.len().min(FRAME_SAMPLES);
        for (slot, byte) in frame.iter_mut().zip(self.bytes.drain(..length)) {
            *slot = byte;
        }
        self.played += length as u64;
        let drained = self.bytes.is_empty();
        let said = frame.get(..length).unwrap_or_default();
        (Frame::ulaw(said), Reached { marks: self.reached(), drained })
    }

    /// Whether no speech is queued.
    pub fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes and marks that found no room.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    fn reached(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while self.marks.front().is_some_and(|(place, _)| *place <= self.played) {
            names.extend(self.marks.pop_front().map(|(_, name)| name));
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sip::Codec;

    #[test]
    fn a_mark_is_echoed_when_its_audio_has_been_played() {
        let mut queue = StreamQueue::default();
        queue.audio(&[1; 800]);
        queue.mark("a".to_owned());
        queue.audio(&[2; 320]);
        queue.mark("b".to_owned());
        queue.mark("b".to_owned());
        let echoed: Vec<_> = (0..8).map(|_| queue.tick().1).map(|r| (r.marks.join(" "), r.drained)).collect();
        let at = |text: &str| echoed.iter().position(|(marks, _)| marks == text);
        assert_eq!((at("a"), at("b b")), (Some(4), Some(6)), "duplicates are echoed each");
        assert_eq!(echoed.iter().position(|(_, drained)| *drained), Some(6));
        assert_eq!(echoed.iter().filter(|(_, drained)| *drained).count(), 1);
    }

    #[test]
    fn a_mark_in_an_empty_queue_is_echoed_at_the_next_tick() {
        let mut queue = StreamQueue::default();
        queue.mark("now".to_owned());
        assert_eq!(queue.tick().1.marks, ["now"]);
    }

    #[test]
    fn clear_echoes_everything_pending_and_plays_nothing_more() {
        let mut queue = StreamQueue::default();
        for name in ["a", "b", "c"] {
            queue.audio(&[1; 16_000]);
            queue.mark(name.to_owned());
        }
        queue.tick();
        assert_eq!(queue.clear(), Reached { marks: vec!["a".into(), "b".into(), "c".into()], drained: true });
        assert_eq!(queue.tick(), (Frame::Silence, Reached::default()));
        assert_eq!(queue.clear(), Reached::default());
    }

    #[test]
    fn a_short_word_is_played_after_a_moment_and_padded() {
        let mut queue = StreamQueue::default();
        queue.audio(&[5; 100]);
        assert_eq!(queue.tick().0, Frame::Silence);
        assert_eq!(queue.tick().0, Frame::Silence);
        let (frame, reached) = queue.tick();
        let bytes = frame.coded(Codec::Pcmu);
        assert_eq!((bytes[99], bytes[100]), (5, 0xff));
        assert!(reached.drained);
    }

    #[test]
    fn a_runaway_is_refused_at_the_bound() {
        let mut queue = StreamQueue::default();
        for _ in 0..400 {
            queue.audio(&[1; 8_000]);
        }
        assert_eq!(queue.refused(), 100 * 8_000);
        queue.mark("x".repeat(MARK_LEN_MAX + 1));
        assert_eq!(queue.refused(), 100 * 8_000 + 1);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_come_out_whole_and_in_order(
            pieces in proptest::collection::vec(1_usize..3_000, 1..20)
        ) {
            let mut queue = StreamQueue::default();
            let mut given = Vec::new();
            for (number, length) in pieces.iter().enumerate() {
                given.extend(vec![number as u8; *length]);
                queue.audio(&vec![number as u8; *length]);
            }
            let mut heard = Vec::new();
            while !queue.is_idle() {
                let (frame, _) = queue.tick();
                if frame != Frame::Silence {
                    heard.extend(frame.coded(Codec::Pcmu));
                }
            }
            prop_assert_eq!(&heard[..given.len()], &given[..]);
            prop_assert!(heard[given.len()..].iter().all(|byte| *byte == 0xff));
        }
    }
}
