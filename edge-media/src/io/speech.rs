//! Free text to speech, µ-law at 8 kHz: by Polly where the configuration names voices of it and
//! the build has the cloud's adapters, else or when that fails by espeak-ng as a subprocess
//! (its licence stays outside of ours). To espeak-ng the text goes through standard input,
//! never into an argument list that other users can read. Where nobody can say it, or all are
//! late, nothing is made, and the prompt plays its generic clip. No text is ever logged.

#[cfg(feature = "aws")]
mod polly;

use std::collections::{BTreeSet, VecDeque};
use std::f64::consts::PI;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use handoff::pii::Pii;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::config::Polly as PollyVoices;
use crate::media::codec;
use crate::media::prompt::{Audio, SpeechKey};
use crate::sip::Codec;

/// The synthesiser's name on the path.
const PROGRAM: &str = "espeak-ng";
/// Of 99. A low voice shares no pitch with the clips that callers hear: at the usual 50,
/// vowels of both correlate up to 0.7 over 400 ms, at 20 below 0.5, so that a search of the
/// caller's recording for the whisper finds the whisper or nothing.
const PITCH: &str = "20";
/// What each provider has for a text. A whisper takes espeak-ng some 50 ms; two that take this
/// long would come after the answer.
const TIME_LIMIT: Duration = Duration::from_millis(1_500);
/// Longest text. A whisper has at most 320 characters.
const TEXT_LEN_MAX: usize = 1_000;
/// Longest speech: a person who has to listen longer reads the screen instead.
const SAMPLES_MAX: usize = 8_000 * 30;
/// Requests that may wait: one per call that rings at this moment.
const REQUESTS_MAX: usize = 256;
/// Texts in work at a time: as many as Polly takes at once from one account.
const AT_ONCE_MAX: usize = 16;
/// Synthesisers at a time: they share the machine with the media threads.
const PROCESSES_MAX: usize = 4;
/// Texts that are not made again, because the media threads still have them.
const REMEMBERED_MAX: usize = 256;
/// Below this sample value the beginning and the end are cut off.
const AUDIBLE: f64 = 150.0;
/// Peak of the result, −4 dBFS.
const PEAK: f64 = 20_000.0;

/// A request: what to say, in which language.
type Request = (Pii<String>, String);

/// The synthesiser's front door.
#[derive(Clone, Debug)]
pub struct Speech {
    requests: mpsc::Sender<Request>,
}

impl Speech {
    /// Starts a thread that makes speech and gives it to `ready`: by Polly where it has a
    /// voice, else by espeak-ng.
    pub fn start(
        polly: Option<PollyVoices>,
        ready: impl Fn(SpeechKey, Audio) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("speech".to_owned()).spawn(move || {
            runtime.block_on(async { serve(queue, providers(polly).await, Arc::new(ready)).await });
        })?;
        Ok(Self { requests })
    }

    /// Asks for speech; a full queue forgets the request, and the clip is played.
    pub fn prepare(&self, text: Pii<String>, lang: &str) {
        if self.requests.try_send((text, lang.to_owned())).is_err() {
            tracing::warn!("speech synthesis is too busy; a generic clip will be played");
        }
    }
}

/// Who can say a text.
#[derive(Debug)]
enum Provider {
    /// Amazon Polly.
    #[cfg(feature = "aws")]
    Polly(Box<polly::Polly>),
    /// A subprocess, and how many of them may run.
    Espeak(Semaphore),
}

/// Why a provider said nothing; never what it should have said.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Unspoken {
    #[error("it has no voice for the language")]
    NoVoice,
    #[error("it is not installed")]
    NotInstalled,
    #[error("it took too long")]
    Late,
    #[error("it failed: {0}")]
    Failed(String),
    #[error("what it made is not speech")]
    NotSpeech,
}

impl Unspoken {
    /// Whether the same text may be spoken a moment later.
    const fn may_pass(&self) -> bool {
        match self {
            Self::Late | Self::Failed(_) => true,
            Self::NoVoice | Self::NotInstalled | Self::NotSpeech => false,
        }
    }
}

impl Provider {
    const fn name(&self) -> &'static str {
        match self {
            #[cfg(feature = "aws")]
            Self::Polly(_) => "Polly",
            Self::Espeak(_) => PROGRAM,
        }
    }

    /// `text` as samples, with their rate.
    async fn say(&self, text: &Pii<String>, lang: &str) -> Result<(u32, Vec<f64>), Unspoken> {
        match self {
            #[cfg(feature = "aws")]
            Self::Polly(polly) => in_time(polly.say(text, lang)).await,
            Self::Espeak(places) => {
                // Never closed.
                let _place = places.acquire().await;
                let wave = in_time(espeak(text, lang)).await?;
                parse_wave(&wave).ok_or(Unspoken::NotSpeech)
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Unspoken>>) -> Result<T, Unspoken> {
    tokio::time::timeout(TIME_LIMIT, work).await.unwrap_or(Err(Unspoken::Late))
}

/// Everybody who can say something here, in the order in which they are asked.
#[cfg_attr(not(feature = "aws"), expect(clippy::unused_async, reason = "the cloud's environment is read"))]
async fn providers(polly: Option<PollyVoices>) -> Vec<Provider> {
    let espeak = Provider::Espeak(Semaphore::new(PROCESSES_MAX));
    match polly {
        None => vec![espeak],
        #[cfg(feature = "aws")]
        Some(voices) => vec![Provider::Polly(Box::new(polly::Polly::connect(&voices).await)), espeak],
        // A configuration that names it is refused without the adapters.
        #[cfg(not(feature = "aws"))]
        Some(_) => vec![espeak],
    }
}

/// Whether there is a synthesiser on the path.
pub fn installed() -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file()))
}

async fn serve(
    mut queue: mpsc::Receiver<Request>,
    providers: Vec<Provider>,
    ready: Arc<impl Fn(SpeechKey, Audio) + Send + Sync + 'static>,
) {
    let providers = Arc::new(providers);
    let mut known = Known::default();
    let mut work = JoinSet::new();
    loop {
        tokio::select! {
            request = queue.recv(), if work.len() < AT_ONCE_MAX => {
                let Some((text, lang)) = request else { return };
                let key = SpeechKey::of(text.expose(), &lang);
                if known.insert(key) {
                    let (providers, ready) = (Arc::clone(&providers), Arc::clone(&ready));
                    work.spawn(async move {
                        match synthesise(&providers, &text, &lang).await {
                            Ok(audio) => {
                                ready(key, audio);
                                None
                            }
                            Err(again) => {
                                tracing::warn!(lang, "no speech was made; a generic clip will be played");
                                again.then_some(key)
                            }
                        }
                    });
                }
            }
            Some(done) = work.join_next(), if !work.is_empty() => {
                // One that panicked has been reported, and stays known.
                if let Ok(Some(again)) = done {
                    known.keys.remove(&again);
                }
            }
        }
    }
}

/// What was made, or is being made, not long ago. A text's voice follows from its language
/// while the process runs, so that the key of both is that of the voice too.
#[derive(Debug, Default)]
struct Known {
    keys: BTreeSet<SpeechKey>,
    order: VecDeque<SpeechKey>,
}

impl Known {
    /// Whether `key` was new.
    fn insert(&mut self, key: SpeechKey) -> bool {
        if !self.keys.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }
}

/// `text` as the first of `providers` says it that can; an error says whether one of them may
/// be able to a moment later.
async fn synthesise(providers: &[Provider], text: &Pii<String>, lang: &str) -> Result<Audio, bool> {
    if text.expose().len() > TEXT_LEN_MAX {
        return Err(false);
    }
    let mut again = false;
    for provider in providers {
        match provider.say(text, lang).await.and_then(|(rate, samples)| telephone(rate, &samples)) {
            Ok(audio) => return Ok(audio),
            Err(why) if why.may_pass() => {
                tracing::warn!(provider = provider.name(), %why, lang, "a text was not spoken");
                again = true;
            }
            Err(why) => tracing::debug!(provider = provider.name(), %why, lang, "a text was not spoken"),
        }
    }
    Err(again)
}

/// Samples as a telephone plays them.
fn telephone(rate: u32, samples: &[f64]) -> Result<Audio, Unspoken> {
    let speech = level(&resample(rate, samples));
    if speech.is_empty() {
        return Err(Unspoken::NotSpeech);
    }
    Ok(Audio::from(speech.iter().map(|s| codec::encode(Codec::Pcmu, *s)).collect::<Vec<u8>>()))
}

/// The wave that espeak-ng makes of `text`.
async fn espeak(text: &Pii<String>, lang: &str) -> Result<Vec<u8>, Unspoken> {
    let voice = voice(lang).ok_or(Unspoken::NoVoice)?;
    let mut child = Command::new(PROGRAM)
        .args(["--stdin", "--stdout", "-b", "1", "-s", "170", "-p", PITCH, "-v", &voice])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            if missing { Unspoken::NotInstalled } else { Unspoken::Failed(error.kind().to_string()) }
        })?;
    if let Some(mut input) = child.stdin.take() {
        // Whoever left before reading it says why by its exit.
        let _ = input.write_all(text.expose().as_bytes()).await;
    }
    let output =
        child.wait_with_output().await.map_err(|error| Unspoken::Failed(error.kind().to_string()))?;
    // It says so of a language that it does not have.
    output.status.success().then_some(output.stdout).ok_or(Unspoken::NoVoice)
}

/// The voice for a BCP 47 tag: a man's, as in the clips for human agents and in no other.
fn voice(lang: &str) -> Option<String> {
    let primary = lang.split('-').next()?.to_ascii_lowercase();
    let plausible = (2..=3).contains(&primary.len()) && primary.bytes().all(|b| b.is_ascii_lowercase());
    plausible.then(|| if primary == "en" { "en-gb+m3".to_owned() } else { format!("{primary}+m3") })
}

/// Rate and samples of a 16-bit mono wave. A stream does not know its length beforehand, so a
/// data chunk that claims more than there is ends with the bytes.
fn parse_wave(bytes: &[u8]) -> Option<(u32, Vec<f64>)> {
    let mut rest = bytes.strip_prefix(b"RIFF")?.get(4..)?.strip_prefix(b"WAVE")?;
    let mut rate = None;
    loop {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let (length, body) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        match name {
            b"fmt " => {
                let &[1, 0, 1, 0, r0, r1, r2, r3, _, _, _, _, _, _, 16, 0] = body.first_chunk()? else {
                    return None;
                };
                rate = Some(u32::from_le_bytes([r0, r1, r2, r3]));
            }
            b"data" => {
                let data = body.get(..length.min(body.len()))?;
                let samples = data.chunks_exact(2).filter_map(|pair| pair.first_chunk());
                let samples = samples.map(|pair| f64::from(i16::from_le_bytes(*pair))).collect();
                return Some((rate.filter(|rate| (8_000..=48_000).contains(rate))?, samples));
            }
            _ => {}
        }
        rest = body.get(length + length % 2..)?;
    }
}

/// To 8 kHz by a windowed sinc whose pass band ends below 3.7 kHz.
fn resample(rate: u32, samples: &[f64]) -> Vec<f64> {
    const HALF_WIDTH_MS: f64 = 2.0;
    let step = f64::from(rate) / 8_000.0;
    let cutoff = 2.0 * 3_600.0 / f64::from(rate);
    let half = HALF_WIDTH_MS * f64::from(rate) / 1_000.0;
    let count = ((samples.len() as f64 / step) as usize).min(SAMPLES_MAX);
    (0..count)
        .map(|n| {
            let centre = n as f64 * step;
            let first = (centre - half).ceil().max(0.0) as usize;
            let last = (centre + half).floor() as usize;
            let window = samples.get(first..=last.min(samples.len() - 1)).unwrap_or_default();
            (first..)
                .zip(window)
                .map(|(k, sample)| {
                    let x = k as f64 - centre;
                    let sinc = if x.abs() < 1e-9 { cutoff } else { (PI * cutoff * x).sin() / (PI * x) };
                    sample * sinc * (0.5 + 0.5 * (PI * x / half).cos())
                })
                .sum()
        })
        .collect()
}

/// Trims both ends and brings the peak to where the clips have theirs.
fn level(samples: &[f64]) -> Vec<i16> {
    let audible = |sample: &f64| sample.abs() > AUDIBLE;
    let (Some(first), Some(last)) = (samples.iter().position(audible), samples.iter().rposition(audible))
    else {
        return Vec::new();
    };
    let speech = samples.get(first..=last).unwrap_or_default();
    let peak = speech.iter().fold(1.0_f64, |peak, sample| peak.max(sample.abs()));
    speech.iter().map(|sample| (sample * PEAK / peak) as i16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::tone;

    fn wave(rate: u32, samples: &[i16]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        bytes.extend(rate.to_le_bytes());
        bytes.extend((rate * 2).to_le_bytes());
        bytes.extend([2, 0, 16, 0]);
        bytes.extend(b"LIST\x03\0\0\0abc\0data\xff\xff\xff\x7f");
        bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }

    fn sine(hz: f64, rate: u32, count: usize) -> Vec<i16> {
        (0..count).map(|n| (10_000.0 * (2.0 * PI * hz * n as f64 / f64::from(rate)).sin()) as i16).collect()
    }

    #[test]
    fn a_streamed_wave_is_read_and_resampled_without_aliases() {
        for (hz, passes) in [(1_000.0, true), (3_000.0, true), (5_000.0, false), (7_000.0, false)] {
            let (rate, samples) = parse_wave(&wave(22_050, &sine(hz, 22_050, 22_050))).unwrap();
            let low: Vec<i16> = resample(rate, &samples).iter().map(|s| *s as i16).collect();
            assert_eq!(low.len(), 8_000);
            let level = tone::loudness(&low[400..7_600]);
            assert_eq!(level > -13.0, passes, "{hz} Hz: {level}");
            assert!(passes || level < -45.0, "{hz} Hz: {level}");
        }
    }

    #[test]
    fn a_broken_wave_is_no_speech() {
        let whole = wave(22_050, &[1, 2, 3]);
        for length in 0..whole.len() - 6 {
            assert!(parse_wave(&whole[..length]).is_none() || length >= whole.len() - 6, "{length}");
        }
        assert!(parse_wave(&wave(1, &[1])).is_none());
    }

    #[test]
    fn a_language_tag_never_becomes_an_option() {
        assert_eq!(voice("en-US").as_deref(), Some("en-gb+m3"));
        assert_eq!(voice("es").as_deref(), Some("es+m3"));
        for tag in ["", "-x", "--help", "e", "english", "../a"] {
            assert_eq!(voice(tag), None, "{tag}");
        }
    }

    #[tokio::test]
    async fn text_becomes_speech_where_a_synthesiser_is_installed() {
        let text = Pii::new("A patient asks about a refill.".to_owned());
        let audio = synthesise(&providers(None).await, &text, "en").await;
        assert_eq!(audio.is_ok(), installed());
        if let Ok(audio) = audio {
            assert!((8_000..80_000).contains(&audio.bytes().len()), "{}", audio.bytes().len());
        }
    }
}
