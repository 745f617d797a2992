//! Listening: tones at known frequencies, and whether one recording contains another. Tests
//! and the demo decide by it who heard whom; the media plane itself only makes tones with it.

use core::f64::consts::TAU;

use super::FRAME_SAMPLES;
use super::codec::Frame;

/// Samples per second of everything here.
const RATE: f64 = 8_000.0;
/// The piece of a recording that must be recognised: 400 ms. Shorter pieces of two voices
/// resemble each other by chance.
const PIECE: usize = 3_200;
/// Pieces start this far apart, so that every 600 ms that leak contain a whole one.
const PIECE_STEP: usize = 1_600;
/// Likeness from which on a piece counts as heard.
pub const LIKENESS_HEARD: f64 = 0.5;
/// A piece or window below this mean square after emphasis (the end of a word, the noise of a
/// codec) says nothing.
const POWER_MIN: f64 = 2_000.0;
/// Frames of a piece that must sound, of its twenty. The burst of one consonant in a pause
/// resembles every other burst: over the catalogue and the demo's recordings the best likeness
/// by chance was 0.52 without this rule and 0.30 with it.
const SOUNDING_FRAMES_MIN: usize = 12;
/// A frame with a hundredth of its piece's energy sounds: a fifth of an even share.
const SOUNDING_SHARE: f64 = 0.01;
/// How much of the sample before is taken off each sample. Voices of one pitch resemble each
/// other by their lowest tones alone; what is left are the sounds that make the words.
const EMPHASIS: f64 = 0.95;
/// Block of the fast correlation: large enough that the pieces' overlap costs little.
const BLOCK: usize = 16_384;

/// A tone of `hz` at `peak`, `samples` long, from its phase zero on.
pub fn sine(hz: u32, peak: i16, samples: usize) -> Vec<i16> {
    (0..samples).map(|n| wave(hz, n, f64::from(peak)) as i16).collect()
}

/// 20 ms of two tones at −10 dBFS each, beginning `start` samples after their phase zero.
pub fn dual((low, high): (u32, u32), start: usize) -> Frame {
    let mut samples = [0; FRAME_SAMPLES];
    for (n, sample) in (start..).zip(&mut samples) {
        *sample = (wave(low, n, 10_362.0) + wave(high, n, 10_362.0)) as i16;
    }
    Frame::Linear(samples)
}

fn wave(hz: u32, n: usize, peak: f64) -> f64 {
    peak * (TAU * f64::from(hz) * n as f64 / RATE).sin()
}

/// The level of `hz` in `samples`, in dB relative to a full-scale sine (Goertzel). Multiples
/// of 50 Hz are separate in windows of 160 samples.
pub fn level(samples: &[i16], hz: u32) -> f64 {
    let turn = TAU * f64::from(hz) / RATE;
    let coefficient = 2.0 * turn.cos();
    let (mut one, mut two) = (0.0_f64, 0.0_f64);
    for sample in samples {
        let next = f64::from(*sample) + coefficient * one - two;
        two = one;
        one = next;
    }
    let power = one * one + two * two - coefficient * one * two;
    let peak = 2.0 * power.max(0.0).sqrt() / samples.len().max(1) as f64;
    20.0 * (peak / f64::from(i16::MAX)).max(1e-9).log10()
}

/// The level of `samples` as a whole, in dBFS.
pub fn loudness(samples: &[i16]) -> f64 {
    let square: f64 = samples.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
    let mean = (square / samples.len().max(1) as f64).sqrt();
    20.0 * (mean * 2.0_f64.sqrt() / f64::from(i16::MAX)).max(1e-9).log10()
}

/// Whether `recording` contains 400 ms of `speech` at any lag.
pub fn correlates(speech: &[i16], recording: &[i16]) -> bool {
    likeness(speech, recording) >= LIKENESS_HEARD
}

/// The highest normalised correlation of any 400 ms of `speech` with any 400 ms of
/// `recording`; 0 when either is too short or too quiet.
pub fn likeness(speech: &[i16], recording: &[i16]) -> f64 {
    if speech.len() < PIECE || recording.len() < PIECE {
        return 0.0;
    }
    let (speech, recording) = (emphasised(speech), emphasised(recording));
    let fourier = Fourier::new();
    let advance = BLOCK - PIECE + 1;
    let blocks: Vec<_> =
        (0..recording.len()).step_by(advance).map(|at| fourier.forward(tail(&recording, at))).collect();
    let energies = window_energies(&recording);
    let mut best = 0.0_f64;
    for start in (0..=speech.len() - PIECE).step_by(PIECE_STEP) {
        let piece = speech.get(start..start + PIECE).unwrap_or_default();
        let energy = energy_of(piece);
        if energy < POWER_MIN * PIECE as f64 || !sounds_throughout(piece, energy) {
            continue;
        }
        let spectrum = fourier.forward(piece);
        for (block, products) in blocks.iter().enumerate() {
            let correlation = fourier.correlate(products, &spectrum);
            for (offset, product) in correlation.iter().take(advance).enumerate() {
                let Some(heard) = energies.get(block * advance + offset) else { break };
                if *heard >= POWER_MIN * PIECE as f64 {
                    best = best.max(product / (energy * heard).sqrt());
                }
            }
        }
    }
    best
}

fn energy_of(samples: &[i16]) -> f64 {
    samples.iter().map(|s| f64::from(*s) * f64::from(*s)).sum()
}

/// Whether a piece is speech for most of its time, not a burst in a pause.
fn sounds_throughout(piece: &[i16], energy: f64) -> bool {
    let sounding =
        piece.chunks(FRAME_SAMPLES).filter(|frame| energy_of(frame) >= SOUNDING_SHARE * energy).count();
    sounding >= SOUNDING_FRAMES_MIN
}

/// The samples with their lowest tones taken down: pre-emphasis, twice.
fn emphasised(samples: &[i16]) -> Vec<i16> {
    let once = |samples: &[i16]| -> Vec<i16> {
        let before = std::iter::once(&0).chain(samples);
        let pairs = samples.iter().zip(before);
        pairs.map(|(new, old)| (f64::from(*new) - EMPHASIS * f64::from(*old)) as i16).collect()
    };
    once(&once(samples))
}

fn tail(samples: &[i16], at: usize) -> &[i16] {
    let end = samples.len().min(at + BLOCK);
    samples.get(at..end).unwrap_or_default()
}

/// The energy of each window of one piece's length.
fn window_energies(samples: &[i16]) -> Vec<f64> {
    let square = |sample: &i16| f64::from(*sample) * f64::from(*sample);
    let mut sum: f64 = samples.iter().take(PIECE).map(square).sum();
    let mut energies = vec![sum];
    for (new, old) in samples.iter().skip(PIECE).zip(samples) {
        sum += square(new) - square(old);
        energies.push(sum.max(0.0));
    }
    energies
}

/// Radix-2 transforms of one block length.
struct Fourier {
    roots: Vec<(f64, f64)>,
}

type Complex = (f64, f64);

impl Fourier {
    fn new() -> Self {
        let turn = |n: usize| -TAU * n as f64 / BLOCK as f64;
        Self { roots: (0..BLOCK / 2).map(|n| (turn(n).cos(), turn(n).sin())).collect() }
    }

    fn forward(&self, samples: &[i16]) -> Vec<Complex> {
        let mut values = vec![(0.0, 0.0); BLOCK];
        for (value, sample) in values.iter_mut().zip(samples) {
            value.0 = f64::from(*sample);
        }
        self.transform(&mut values);
        values
    }

    /// The cross-correlation of two transformed blocks, by the transform of the conjugate.
    fn correlate(&self, block: &[Complex], piece: &[Complex]) -> Vec<f64> {
        let mut values: Vec<Complex> =
            block.iter().zip(piece).map(|(a, b)| (a.0 * b.0 + a.1 * b.1, -(a.1 * b.0 - a.0 * b.1))).collect();
        self.transform(&mut values);
        values.iter().map(|value| value.0 / BLOCK as f64).collect()
    }

    fn transform(&self, values: &mut [Complex]) {
        let bits = BLOCK.trailing_zeros();
        for index in 0..values.len() {
            let other = index.reverse_bits() >> (usize::BITS - bits);
            if other > index {
                values.swap(index, other);
            }
        }
        let mut half = 1;
        while half < values.len() {
            for group in values.chunks_exact_mut(2 * half) {
                let (left, right) = group.split_at_mut(half);
                let roots = self.roots.iter().step_by(BLOCK / 2 / half);
                for ((a, b), root) in left.iter_mut().zip(right).zip(roots) {
                    let turned = (b.0 * root.0 - b.1 * root.1, b.0 * root.1 + b.1 * root.0);
                    *b = (a.0 - turned.0, a.1 - turned.1);
                    *a = (a.0 + turned.0, a.1 + turned.1);
                }
            }
            half *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something like speech: a pitch that wanders, with noise, from a seed.
    fn babble(seed: u32, samples: usize) -> Vec<i16> {
        let mut noise = seed;
        let mut phase = 0.0_f64;
        (0..samples)
            .map(|n| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let wander = f64::from(noise >> 16) / 65_536.0 - 0.5;
                phase += TAU * (140.0 + f64::from(seed) * 13.0 + 40.0 * (n as f64 / 900.0).sin()) / RATE;
                (phase.sin() * 4_000.0 + wander * 4_000.0) as i16
            })
            .collect()
    }

    #[test]
    fn a_tone_is_found_on_its_own_bin_only() {
        let samples = sine(1_400, 8_000, FRAME_SAMPLES);
        assert!((level(&samples, 1_400) + 12.25).abs() < 0.2, "{}", level(&samples, 1_400));
        for other in [450, 650, 850, 1_000, 2_300] {
            assert!(level(&samples, other) < -60.0, "{other}");
        }
        assert!((loudness(&samples) + 12.25).abs() < 0.2);
    }

    #[test]
    fn a_piece_of_speech_is_recognised_at_any_lag_under_other_sound() {
        let whisper = babble(3, 16_000);
        let mut recording = babble(8, 40_000);
        for sample in &mut recording {
            *sample /= 3;
        }
        for (slot, sample) in recording.iter_mut().skip(17_321).zip(&whisper[4_000..9_000]) {
            *slot = slot.saturating_add(*sample / 2);
        }
        assert!(correlates(&whisper, &recording));
        assert!(!correlates(&whisper, &babble(8, 40_000)));
        assert!(!correlates(&whisper, &vec![0; 40_000]));
        assert!(!correlates(&whisper, &[]));
    }

    #[test]
    fn one_burst_in_a_pause_is_not_speech() {
        let mut burst = vec![0; PIECE];
        burst[1_000..1_400].copy_from_slice(&babble(4, 400));
        let recording: Vec<_> = babble(9, 4_000).into_iter().chain(burst.iter().copied()).collect();
        assert!(!correlates(&burst, &recording));
    }

    #[test]
    fn the_fast_correlation_equals_the_slow_one() {
        let speech = babble(5, PIECE);
        let recording: Vec<_> = babble(6, 500).into_iter().chain(speech.iter().copied()).collect();
        // The first sample of a piece has another neighbour in the recording.
        assert!((likeness(&speech, &recording) - 1.0).abs() < 1e-2);
    }
}
