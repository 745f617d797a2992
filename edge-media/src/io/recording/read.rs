//! Reads sealed recordings back: which legs of a call were recorded, and each as one WAV file
//! of two channels, what the leg said on the left and what it heard on the right. All legs of
//! a call begin at the same moment, and what was not recorded is silence, so that the files
//! can be played beside each other. It opens nothing without the call's key.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use handoff::clock::Now;
use handoff::id::{CallId, LegId};
use handoff::seal::SealKey;
use sha2::{Digest, Sha256};

use super::{GAP, Piece, RecordingError, open_piece, piece_path};
use crate::media::codec;
use crate::sip::Codec;

/// Samples of a millisecond at 8 kHz.
const SAMPLES_PER_MS: u64 = 8;

/// Longest recording that is written: no call lasts longer, so a piece beyond it has a start
/// that no recorder gave it.
const LENGTH_MAX: Duration = Duration::from_secs(4 * 3_600 + 600);

/// Why a recording cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A piece.
    #[error("piece {number} of {leg}: {source}")]
    Piece {
        /// Whose.
        leg: LegId,
        /// Which.
        number: u32,
        /// Why.
        source: RecordingError,
    },
    /// The WAV file.
    #[error(transparent)]
    Wav(#[from] hound::Error),
}

/// What was read of one leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Files.
    pub pieces: u32,
    /// Audio in them; the WAV file is longer where something was not recorded.
    pub duration_ms: u64,
    /// SHA-256 of the files one after the other, as the call's record names it.
    pub sha256: String,
}

/// The recorded legs of a call with their pieces in order. None where nothing was recorded.
pub fn legs(folder: &Path, call: &CallId) -> io::Result<BTreeMap<LegId, Vec<u32>>> {
    let mut legs: BTreeMap<LegId, Vec<u32>> = BTreeMap::new();
    let files = match fs::read_dir(folder.join(call.as_str())) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(legs),
        Err(error) => return Err(error),
    };
    for file in files {
        if let Some((leg, number)) = file?.file_name().to_str().and_then(parse_name) {
            legs.entry(leg).or_default().push(number);
        }
    }
    for numbers in legs.values_mut() {
        numbers.sort_unstable();
    }
    Ok(legs)
}

/// When the first recorded sample of a call was.
pub fn origin(
    folder: &Path,
    key: &SealKey,
    call: &CallId,
    legs: &BTreeMap<LegId, Vec<u32>>,
) -> Result<Option<Now>, ExportError> {
    let mut first: Option<Now> = None;
    for (leg, numbers) in legs {
        if let Some(number) = numbers.first() {
            let (piece, _) = piece(folder, key, call, *leg, *number)?;
            first = Some(first.map_or(piece.start, |known| known.min(piece.start)));
        }
    }
    Ok(first)
}

/// Writes the recording of one leg to `wav`, beginning at `origin`.
pub fn export(
    folder: &Path,
    key: &SealKey,
    call: &CallId,
    leg: LegId,
    numbers: &[u32],
    origin: Now,
    wav: &Path,
) -> Result<Exported, ExportError> {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(wav, spec)?;
    let mut digest = Sha256::new();
    let mut written: u64 = 0;
    let mut recorded: u64 = 0;
    for number in numbers {
        let (piece, sealed) = piece(folder, key, call, leg, *number)?;
        digest.update(&sealed);
        let offset = piece.start.since(origin);
        if offset > LENGTH_MAX {
            return Err(ExportError::Piece { leg, number: *number, source: RecordingError::Layout });
        }
        let due = u64::try_from(offset.as_millis()).unwrap_or(u64::MAX) * SAMPLES_PER_MS;
        let gap = due.saturating_sub(written);
        // A piece that follows its predecessor begins a few milliseconds early or late.
        if gap > u64::try_from(GAP.as_millis()).unwrap_or_default() * SAMPLES_PER_MS || written == 0 {
            for _ in 0..2 * gap {
                writer.write_sample(0_i16)?;
            }
            written += gap;
        }
        for (said, heard) in piece.said.iter().zip(&piece.heard) {
            writer.write_sample(codec::decode(Codec::Pcmu, *said))?;
            writer.write_sample(codec::decode(Codec::Pcmu, *heard))?;
        }
        written += piece.said.len() as u64;
        recorded += piece.said.len() as u64;
    }
    writer.finalize()?;
    Ok(Exported {
        pieces: u32::try_from(numbers.len()).unwrap_or(u32::MAX),
        duration_ms: recorded / SAMPLES_PER_MS,
        sha256: hex(&digest.finalize()),
    })
}

fn piece(
    folder: &Path,
    key: &SealKey,
    call: &CallId,
    leg: LegId,
    number: u32,
) -> Result<(Piece, Vec<u8>), ExportError> {
    let sealed = fs::read(piece_path(folder, call, leg, number))?;
    let piece = open_piece(key, call, leg, number, &sealed).map_err(|source| ExportError::Piece {
        leg,
        number,
        source,
    })?;
    Ok((piece, sealed))
}

/// The leg and the number in the name that [`piece_path`] gives.
fn parse_name(name: &str) -> Option<(LegId, u32)> {
    let (leg, number) = name.strip_prefix("leg-")?.strip_suffix(".sealed")?.split_once('-')?;
    Some((LegId(leg.parse().ok()?), number.parse().ok()?))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        text.extend([byte >> 4, byte & 0xf].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::recording::Recorder;
    use crate::media::FRAME_SAMPLES;
    use crate::media::engine::RecordedFrame;

    const SAID: u8 = 0x10;
    const HEARD: u8 = 0x90;

    fn call() -> CallId {
        CallId::parse("call_1").unwrap()
    }

    fn key() -> SealKey {
        SealKey::new([7; 32])
    }

    /// Two legs: the caller from 1 s on with a pause, the human from 3 s on.
    fn recorded(folder: &Path) {
        let recorder = Recorder::start(folder.to_owned(), Box::new(|_, _, _| {})).unwrap();
        let queue = recorder.queue();
        let frames = |leg: LegId, from_ms: u64, frames: u64| {
            queue.begin(call(), leg, key());
            for frame in 0..frames {
                queue.frame(&RecordedFrame {
                    at: Now::from_millis(from_ms + 20 * frame),
                    call: &call(),
                    leg,
                    said: &[SAID; FRAME_SAMPLES],
                    heard: &[HEARD; FRAME_SAMPLES],
                });
            }
        };
        frames(LegId::CALLER, 1_000, 50);
        frames(LegId::CALLER, 4_000, 50);
        frames(LegId::FIRST_HUMAN, 3_000, 100);
        recorder.stop();
    }

    fn samples(wav: &Path) -> Vec<(i16, i16)> {
        let samples: Vec<i16> =
            hound::WavReader::open(wav).unwrap().into_samples().map(Result::unwrap).collect();
        samples.chunks(2).map(|pair| (pair[0], pair[1])).collect()
    }

    #[test]
    fn every_leg_begins_at_the_same_moment_and_a_pause_is_silence() {
        let folder = tempfile::tempdir().unwrap();
        recorded(folder.path());
        let legs = legs(folder.path(), &call()).unwrap();
        assert_eq!(legs, BTreeMap::from([(LegId::CALLER, vec![0, 1]), (LegId::FIRST_HUMAN, vec![0])]));
        let origin = origin(folder.path(), &key(), &call(), &legs).unwrap().unwrap();
        assert_eq!(origin, Now::from_millis(1_000));
        let wav = folder.path().join("leg.wav");
        let audio = (codec::decode(Codec::Pcmu, SAID), codec::decode(Codec::Pcmu, HEARD));
        let caller = export(folder.path(), &key(), &call(), LegId::CALLER, &[0, 1], origin, &wav).unwrap();
        assert_eq!((caller.pieces, caller.duration_ms), (2, 2_000));
        let heard = samples(&wav);
        assert_eq!(heard.len(), 4 * 8_000);
        assert!(heard[..8_000].iter().chain(&heard[24_000..]).all(|pair| *pair == audio));
        assert!(heard[8_000..24_000].iter().all(|pair| *pair == (0, 0)));
        export(folder.path(), &key(), &call(), LegId::FIRST_HUMAN, &[0], origin, &wav).unwrap();
        let heard = samples(&wav);
        assert_eq!(heard.iter().position(|pair| *pair == audio), Some(16_000));
    }

    #[test]
    fn without_its_key_a_recording_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        recorded(folder.path());
        let legs = legs(folder.path(), &call()).unwrap();
        let other = SealKey::new([8; 32]);
        assert!(matches!(
            origin(folder.path(), &other, &call(), &legs),
            Err(ExportError::Piece { source: RecordingError::Sealed(_), .. })
        ));
    }

    #[test]
    fn a_call_without_recordings_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(legs(folder.path(), &call()).unwrap().is_empty());
        for name in ["leg-0-000000.part", "notes.txt", "leg-x-000000.sealed", "leg-0-.sealed"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
