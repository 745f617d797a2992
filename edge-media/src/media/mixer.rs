//! The sum of several legs, clamped; the listener is never part of what it hears. The caller
//! of [`mix`] leaves the listener out (mix-minus, RFC 7667 section 3.6).

use super::FRAME_SAMPLES;
use super::codec::Frame;

/// Sums `frames`. One speaker alone passes unchanged, still coded.
pub fn mix<'a>(frames: impl Iterator<Item = &'a Frame>) -> Frame {
    let mut only = None;
    let mut sum = [0_i32; FRAME_SAMPLES];
    let mut speakers = 0;
    for frame in frames.filter(|frame| !matches!(frame, Frame::Silence)) {
        speakers += 1;
        only = Some(frame);
        for (total, sample) in sum.iter_mut().zip(frame.linear()) {
            *total += i32::from(sample);
        }
    }
    match (speakers, only) {
        (0, _) | (_, None) => Frame::Silence,
        (1, Some(frame)) => *frame,
        _ => Frame::Linear(sum.map(|total| total.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loud_speakers_clamp_and_do_not_wrap() {
        let loud = Frame::Linear([i16::MAX; FRAME_SAMPLES]);
        let low = Frame::Linear([i16::MIN; FRAME_SAMPLES]);
        assert_eq!(mix([loud, loud].iter()), loud);
        assert_eq!(mix([low, low].iter()), low);
        assert_eq!(mix([loud, low].iter()), Frame::Linear([-1; FRAME_SAMPLES]));
    }

    #[test]
    fn one_speaker_passes_unchanged_and_none_is_silence() {
        let speech = Frame::ulaw(&[7; FRAME_SAMPLES]);
        assert_eq!(mix([Frame::Silence, speech].iter()), speech);
        assert_eq!(mix([Frame::Silence].iter()), Frame::Silence);
    }
}
