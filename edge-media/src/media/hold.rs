//! Hold music from our own clock: a committed loop, or for tests a pair of tones. Each
//! listener has its own place in the loop and finds it again after an update was spoken.

use super::FRAME_SAMPLES;
use super::codec::Frame;
use super::prompt::Audio;
use super::tone;
use crate::media::codec;
use crate::sip::Codec;

/// The two tones of the test bed, in Hz.
pub const HOLD_TONES: (u32, u32) = (850, 2_300);

/// A µ-law loop.
#[derive(Clone, Debug)]
pub struct HoldBed {
    audio: Audio,
}

impl HoldBed {
    /// Plays `audio` round and round; an empty one is silence.
    pub const fn new(audio: Audio) -> Self {
        Self { audio }
    }

    /// 850 Hz and 2300 Hz, which fit a frame without remainder.
    pub fn tones() -> Self {
        Self::new(Audio::from(tone::dual(HOLD_TONES, 0).coded(Codec::Pcmu).to_vec()))
    }

    /// The next frame of a listener at `place`.
    pub fn frame(&self, place: &mut usize) -> Frame {
        let bytes = self.audio.bytes();
        let mut frame = [codec::ULAW_SILENCE; FRAME_SAMPLES];
        for slot in &mut frame {
            if *place >= bytes.len() {
                *place = 0;
            }
            if let Some(byte) = bytes.get(*place) {
                *slot = *byte;
            }
            *place += 1;
        }
        Frame::Coded(Codec::Pcmu, frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_closes_in_the_middle_of_a_frame() {
        let bed = HoldBed::new(Audio::from((0..100).collect::<Vec<u8>>()));
        let mut place = 0;
        let frame = bed.frame(&mut place).coded(Codec::Pcmu);
        assert_eq!((frame[99], frame[100], frame[159], place), (99, 0, 59, 60));
    }

    #[test]
    fn the_test_bed_sounds_on_both_bins() {
        let samples = HoldBed::tones().frame(&mut 0).linear();
        assert!(tone::level(&samples, 850) > -12.0 && tone::level(&samples, 2_300) > -12.0);
    }
}
