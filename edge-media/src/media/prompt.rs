//! Prompts: committed clips and synthesised speech, joined without gaps and counted to the
//! last sample. A prompt that was cut says how much of it was sent, so that half a disclosure
//! is never taken for a whole one. It synthesises nothing: speech is brought by the shell,
//! and where it is late the part's own clip is played.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use handoff::call::media::{ClipId, Part, Prompt};
use handoff::id::PlayId;
use sha2::{Digest, Sha256};

use super::FRAME_SAMPLES;
use super::clip_table;
use super::codec::{self, Frame};
use super::hold::HoldBed;
use crate::sip::Codec;

/// Speech that one media thread keeps: about a whisper per busy human agent, and at 12 s each
/// below 25 MB.
const SPEECH_KEPT_MAX: usize = 256;

/// µ-law audio at 8 kHz, embedded or made at run time; cheap to clone.
#[derive(Clone, Debug)]
pub enum Audio {
    /// Part of the binary.
    Embedded(&'static [u8]),
    /// Made at run time.
    Made(Arc<[u8]>),
}

impl Audio {
    /// The samples, one byte each.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Embedded(bytes) => bytes,
            Self::Made(bytes) => bytes,
        }
    }

    /// The samples, decoded.
    pub fn samples(&self) -> Vec<i16> {
        self.bytes().iter().map(|byte| codec::decode(Codec::Pcmu, *byte)).collect()
    }
}

impl From<Vec<u8>> for Audio {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Made(bytes.into())
    }
}

/// All clips and the hold bed, shared by every media thread.
#[derive(Clone, Debug)]
pub struct ClipStore {
    clips: BTreeMap<ClipId, Audio>,
    hold: HoldBed,
}

impl ClipStore {
    /// The clips and the music that are part of the binary.
    pub fn embedded() -> Self {
        let clips = clip_table::CLIPS
            .iter()
            .map(|(name, bytes)| (ClipId((*name).to_owned()), Audio::Embedded(bytes)))
            .collect();
        Self { clips, hold: HoldBed::new(Audio::Embedded(clip_table::HOLD)) }
    }

    /// No clip, and this hold bed.
    pub const fn empty(hold: HoldBed) -> Self {
        Self { clips: BTreeMap::new(), hold }
    }

    /// The same store with another hold bed.
    #[must_use]
    pub fn with_hold(mut self, hold: HoldBed) -> Self {
        self.hold = hold;
        self
    }

    /// Adds or replaces a clip.
    pub fn insert(&mut self, id: ClipId, audio: Audio) {
        self.clips.insert(id, audio);
    }

    /// The clip of that name.
    pub fn clip(&self, id: &ClipId) -> Option<&Audio> {
        self.clips.get(id)
    }

    /// The samples of a clip; none where there is no such clip.
    pub fn samples(&self, name: &str) -> Vec<i16> {
        self.clip(&ClipId(name.to_owned())).map(Audio::samples).unwrap_or_default()
    }

    /// All names, in order.
    pub fn ids(&self) -> impl Iterator<Item = &ClipId> {
        self.clips.keys()
    }

    /// The hold bed.
    pub const fn hold(&self) -> &HoldBed {
        &self.hold
    }
}

/// Names a synthesised text without keeping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpeechKey([u8; 32]);

impl SpeechKey {
    /// The key of `text` spoken in `lang`.
    pub fn of(text: &str, lang: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(lang.as_bytes());
        digest.update([0]);
        digest.update(text.as_bytes());
        Self(digest.finalize().into())
    }
}

/// Synthesised speech that is ready to be played; the oldest makes room.
#[derive(Clone, Debug, Default)]
pub struct SpeechStore {
    ready: BTreeMap<SpeechKey, Audio>,
    order: VecDeque<SpeechKey>,
}

impl SpeechStore {
    /// Keeps `audio` for the prompts to come.
    pub fn insert(&mut self, key: SpeechKey, audio: Audio) {
        if self.ready.insert(key, audio).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > SPEECH_KEPT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.ready.remove(&oldest);
            }
        }
    }

    /// What is ready for `key`.
    pub fn ready(&self, key: &SpeechKey) -> Option<&Audio> {
        self.ready.get(key)
    }
}

/// One prompt on its way to one listener.
#[derive(Clone, Debug)]
pub struct Playback {
    play: PlayId,
    parts: Vec<Audio>,
    part: usize,
    offset: usize,
    total: usize,
    sent: usize,
    in_flight: usize,
    /// A part had no audio at all, so the whole was not said whatever is sent.
    incomplete: bool,
    over: bool,
}

impl Playback {
    /// Resolves the parts as far as they are ready now.
    pub fn start(play: PlayId, prompt: Option<&Prompt>, clips: &ClipStore, speech: &SpeechStore) -> Self {
        let wanted = prompt.map_or(&[][..], |prompt| &prompt.parts);
        let parts: Vec<Audio> = wanted
            .iter()
            .filter_map(|part| match part {
                Part::Clip(id) => clips.clip(id).cloned(),
                Part::Say { text, lang, fallback } => speech
                    .ready(&SpeechKey::of(text.expose(), lang))
                    .or_else(|| clips.clip(fallback))
                    .cloned(),
            })
            .collect();
        let total = parts.iter().map(|part| part.bytes().len()).sum();
        let incomplete = parts.len() < wanted.len() || total == 0;
        Self { play, parts, part: 0, offset: 0, total, sent: 0, in_flight: 0, incomplete, over: false }
    }

    /// Which play.
    pub const fn play(&self) -> PlayId {
        self.play
    }

    /// The next frame; after the end silence. [`Self::left`] says what became of it.
    pub fn frame(&mut self) -> Frame {
        let mut bytes = [codec::ULAW_SILENCE; FRAME_SAMPLES];
        self.in_flight = 0;
        'frame: for slot in &mut bytes {
            loop {
                let Some(part) = self.parts.get(self.part) else { break 'frame };
                if let Some(byte) = part.bytes().get(self.offset) {
                    *slot = *byte;
                    self.offset += 1;
                    self.in_flight += 1;
                    break;
                }
                self.part += 1;
                self.offset = 0;
            }
        }
        if self.in_flight == 0 { Frame::Silence } else { Frame::ulaw(&bytes) }
    }

    /// The last frame left, or was dropped. True exactly once: when the prompt has ended.
    pub fn left(&mut self, sent: bool) -> bool {
        self.sent += if sent { self.in_flight } else { 0 };
        self.in_flight = 0;
        // Samples that were dropped are not played again, so the end is where the data ends.
        let rest = self.parts.get(self.part).map_or(0, |part| part.bytes().len() - self.offset)
            + self.parts.iter().skip(self.part + 1).map(|part| part.bytes().len()).sum::<usize>();
        if self.over || rest > 0 {
            return false;
        }
        self.over = true;
        true
    }

    /// Whether the end has been reported.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Samples sent, per-mille, rounded down: 1000 only when nothing is missing.
    pub fn played_pm(&self) -> u16 {
        let share = (self.sent * 1_000).checked_div(self.total).unwrap_or(0);
        let most = if self.incomplete { 999 } else { 1_000 };
        u16::try_from(share.min(most)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use handoff::pii::Pii;

    use super::*;
    use crate::media::tone;

    fn store() -> ClipStore {
        let mut store = ClipStore::empty(HoldBed::tones());
        for (name, length) in [("a", 100_u8), ("b", 250), ("c", 1)] {
            store.insert(ClipId(name.to_owned()), Audio::from(vec![length; usize::from(length)]));
        }
        store
    }

    fn clips(names: &[&str]) -> Prompt {
        Prompt { parts: names.iter().map(|name| Part::Clip(ClipId((*name).to_owned()))).collect() }
    }

    fn start(prompt: &Prompt) -> Playback {
        Playback::start(PlayId(1), Some(prompt), &store(), &SpeechStore::default())
    }

    #[test]
    fn parts_follow_each_other_without_a_gap_and_end_at_a_thousand() {
        let mut playback = start(&clips(&["a", "b", "c"]));
        let mut heard = Vec::new();
        let mut ends = 0;
        for _ in 0..4 {
            heard.extend(playback.frame().coded(Codec::Pcmu));
            ends += usize::from(playback.left(true));
        }
        assert_eq!(ends, 1);
        assert_eq!(playback.played_pm(), 1_000);
        assert!(heard[..100].iter().all(|b| *b == 100) && heard[100..350].iter().all(|b| *b == 250));
        assert_eq!(heard[350], 1);
        assert!(heard[351..].iter().all(|b| *b == codec::ULAW_SILENCE));
    }

    #[test]
    fn one_unsent_sample_is_not_a_whole_prompt() {
        let mut store = store();
        store.insert(ClipId("long".to_owned()), Audio::from(vec![9; 160_001]));
        let prompt = clips(&["long"]);
        let mut playback = Playback::start(PlayId(1), Some(&prompt), &store, &SpeechStore::default());
        for _ in 0..1_000 {
            playback.frame();
            assert!(!playback.left(true));
        }
        assert_eq!(playback.played_pm(), 999);
        playback.frame();
        assert!(playback.left(true));
        assert_eq!(playback.played_pm(), 1_000);
    }

    #[test]
    fn dropped_frames_are_never_counted_as_played() {
        let mut playback = start(&clips(&["b"]));
        playback.frame();
        assert!(!playback.left(false));
        playback.frame();
        assert!(playback.left(true));
        assert_eq!(playback.played_pm(), 360);
    }

    #[test]
    fn a_missing_clip_is_never_a_thousand() {
        for (names, at_most) in [(&["a", "nowhere"][..], 999), (&["nowhere"], 0), (&[], 0)] {
            let mut playback = start(&clips(names));
            playback.frame();
            assert!(playback.left(true), "{names:?}");
            assert_eq!(playback.played_pm(), at_most, "{names:?}");
        }
    }

    #[test]
    fn speech_is_played_when_ready_and_its_clip_when_not() {
        let say = Part::Say {
            text: Pii::new("hello".to_owned()),
            lang: "en".to_owned(),
            fallback: ClipId("a".to_owned()),
        };
        let prompt = Prompt { parts: vec![say] };
        let mut speech = SpeechStore::default();
        let first = |speech: &SpeechStore| {
            Playback::start(PlayId(1), Some(&prompt), &store(), speech).frame().coded(Codec::Pcmu)[0]
        };
        assert_eq!(first(&speech), 100);
        speech.insert(SpeechKey::of("hello", "en"), Audio::from(vec![42; 10]));
        assert_eq!(first(&speech), 42);
    }

    #[test]
    fn the_oldest_speech_makes_room() {
        let mut speech = SpeechStore::default();
        for number in 0..=SPEECH_KEPT_MAX {
            speech.insert(SpeechKey::of(&number.to_string(), "en"), Audio::from(vec![1]));
        }
        assert!(speech.ready(&SpeechKey::of("0", "en")).is_none());
        assert!(speech.ready(&SpeechKey::of("1", "en")).is_some());
    }

    /// Samples before the first and after the last one that can be heard.
    fn margins(samples: &[i16]) -> (usize, usize) {
        let audible = |sample: &i16| sample.unsigned_abs() > 200;
        let first = samples.iter().position(audible).unwrap_or(samples.len());
        let last = samples.iter().rposition(audible).map_or(0, |last| last + 1);
        (first, samples.len() - last)
    }

    #[test]
    fn every_sentence_of_the_catalogue_has_audible_trimmed_audio() {
        let store = ClipStore::embedded();
        let catalogue: toml::Table =
            toml::from_str(include_str!("../../../handoff/src/message/catalogue.toml")).unwrap();
        let demo: toml::Table = toml::from_str(include_str!("../../clips/demo.toml")).unwrap();
        let texts = catalogue["clips"].as_table().unwrap().iter().chain(demo["lines"].as_table().unwrap());
        let mut count = 0;
        for (name, text) in texts {
            let audio = store.clip(&ClipId(name.clone())).unwrap_or_else(|| panic!("{name} has no clip"));
            let samples: Vec<_> = audio.bytes().iter().map(|b| codec::decode(Codec::Pcmu, *b)).collect();
            let millis = samples.len() / 8;
            let (before, after) = margins(&samples);
            assert!(before <= 400 && after <= 1_600, "{name}: {before} and {after} samples of silence");
            assert!(tone::loudness(&samples) > -30.0, "{name} is too quiet");
            let letters = text.as_str().unwrap().chars().count();
            assert!(
                millis > 25 * letters && millis < 150 * letters,
                "{name}: {letters} letters in {millis} ms"
            );
            count += 1;
        }
        let tone = store.samples(handoff::message::MESSAGE_TONE);
        assert!(tone::level(&tone, 1_200) > -12.0 && tone.len() == 3_200, "0.4 s of one tone");
        assert_eq!(store.ids().count(), count + 1, "the table has clips that no text explains");
    }

    #[test]
    fn the_hold_music_never_falls_silent() {
        let store = ClipStore::embedded();
        let mut place = 0;
        for number in 0..2_000 {
            let level = tone::loudness(&store.hold().frame(&mut place).linear());
            assert!(level > -45.0 && level < -6.0, "frame {number}: {level} dBFS");
        }
    }
}
