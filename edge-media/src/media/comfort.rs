//! A leg's turn to speak: soft noise towards it, so that nobody takes an open line for a dead
//! one, and an ear for whether it does. The noise is a fixed sequence at one level; nothing is
//! learnt from what the far end sends. Sound is told from silence by level alone: whoever coughs
//! has spoken, and a machine that hisses below the threshold has not.

use super::FRAME_SAMPLES;
use super::codec::Frame;
use super::tone;

/// Peak of the noise: about -45 dBFS, clearly there on a quiet line and far below a voice.
const NOISE_PEAK: i32 = 220;

/// A frame above this is sound. Speech on a telephone lies above -35 dBFS, the noise of a room
/// and of a codec below -45 dBFS.
const SOUND_DBFS: f64 = -40.0;

/// Frames of sound that make a word: 300 ms. Fewer are a click.
const WORD_FRAMES: u32 = 15;

/// Frames without sound after which nobody speaks any more: five seconds. A shorter pause is
/// somebody who thinks.
const PAUSE_FRAMES: u32 = 250;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpeechTurn {
    noise: u32,
    sound: u32,
    quiet: u32,
}

/// What became certain with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody has spoken. Once in a turn.
    Spoke,
    /// Nothing was said for so long that nothing more will come. Once in a pause.
    Quiet,
}

impl SpeechTurn {
    /// The next 20 ms of noise.
    pub fn noise(&mut self) -> Frame {
        let mut samples = [0; FRAME_SAMPLES];
        for sample in &mut samples {
            // A linear congruential generator (Numerical Recipes); its upper bits are even enough.
            self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let spread = i32::try_from(self.noise >> 16).unwrap_or_default() - 0x8000;
            *sample = i16::try_from(spread * NOISE_PEAK / 0x8000).unwrap_or_default();
        }
        Frame::Linear(samples)
    }

    /// Takes 20 ms of what the leg says.
    pub fn hear(&mut self, said: &Frame) -> Option<Heard> {
        if tone::loudness(&said.linear()) > SOUND_DBFS {
            self.quiet = 0;
            self.sound = self.sound.saturating_add(1);
            return (self.sound == WORD_FRAMES).then_some(Heard::Spoke);
        }
        self.quiet = self.quiet.saturating_add(1);
        (self.quiet == PAUSE_FRAMES).then_some(Heard::Quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice() -> Frame {
        Frame::Linear(tone::sine(450, 8_000, FRAME_SAMPLES).try_into().unwrap())
    }

    fn heard(turn: &mut SpeechTurn, frame: Frame, times: usize) -> Vec<Heard> {
        (0..times).filter_map(|_| turn.hear(&frame)).collect()
    }

    #[test]
    fn the_noise_is_audible_even_and_far_below_a_voice() {
        let mut turn = SpeechTurn::default();
        for _ in 0..500 {
            let level = tone::loudness(&turn.noise().linear());
            assert!((-48.0..-42.0).contains(&level), "{level} dBFS");
        }
    }

    #[test]
    fn a_word_is_told_once_and_a_click_never() {
        let mut turn = SpeechTurn::default();
        assert_eq!(heard(&mut turn, voice(), 14), []);
        assert_eq!(heard(&mut turn, Frame::Silence, 100), []);
        assert_eq!(heard(&mut turn, voice(), 500), [Heard::Spoke]);
    }

    #[test]
    fn each_pause_is_told_once_and_only_when_it_is_long() {
        let mut turn = SpeechTurn::default();
        assert_eq!(heard(&mut turn, Frame::Silence, 249), []);
        assert_eq!(heard(&mut turn, voice(), 20), [Heard::Spoke]);
        assert_eq!(heard(&mut turn, Frame::Silence, 900), [Heard::Quiet]);
        assert_eq!(heard(&mut turn, voice(), 5), []);
        assert_eq!(heard(&mut turn, Frame::Silence, 250), [Heard::Quiet]);
    }

    #[test]
    fn our_own_noise_coming_back_is_no_speech() {
        let mut turn = SpeechTurn::default();
        let echoes: Vec<_> = (0..1_000).map(|_| turn.noise()).collect();
        let heard: Vec<_> = echoes.iter().filter_map(|echo| turn.hear(echo)).collect();
        assert_eq!(heard, [Heard::Quiet]);
    }
}
