//! What callers and human agents hear from us: prompts as lists of committed clips, and
//! the texts of those clips. Every transition message says why, where to and how long; the
//! linter refuses one that does not. Nothing here is written by a model, and nothing here
//! says anything about the caller.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::call::media::{ClipId, Part, Prompt};
use crate::policy::Category;

/// The times that are spoken, in seconds. Few enough to be recorded, close enough that
/// rounding up is at most half again as long as the estimate.
pub const ANCHORS_S: [u32; 14] = [5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300, 420, 600];

/// Languages with a complete catalogue; the first is spoken where the call's is not among them.
pub const LANGUAGES: [&str; 2] = ["en", "es"];

/// Where a call can be said to go. The first is spoken for a queue without a clip.
pub const DESTINATIONS: [&str; 7] =
    ["team", "billing", "support", "sales", "nurse", "scheduling", "specialist"];

/// The clip after which a message is recorded. It is a sound and has no words.
pub const MESSAGE_TONE: &str = "message_tone";

/// Prompts that are one clip.
const FIXED: [&str; 13] = [
    "disclosure.ai_recording",
    "connecting",
    "apology",
    "returning",
    "voicemail",
    "voicemail.kept",
    "callback",
    "callback.promised",
    "closing",
    "presence",
    "press_to_accept",
    "whisper.generic",
    "caller_left",
];

/// What the caller is told when a transfer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Identifies the text and, by the end of its digest, its version.
    pub text_id: String,
    /// The clips.
    pub prompt: Prompt,
    /// The sentence that says why.
    pub reason: String,
    /// The sentence that says where to.
    pub destination: String,
    /// The time it names, in seconds.
    pub anchor_s: u32,
    /// All of it, as spoken.
    pub text: String,
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    /// A clip of the catalogue is absent.
    #[error("the catalogue has no clip `{0}`")]
    Absent(String),
    /// It says no reason.
    #[error("`{0}` gives no reason: a caller must hear why")]
    NoReason(String),
    /// It names no destination.
    #[error("`{0}` names no destination")]
    NoDestination(String),
    /// It names no time, or another than its id.
    #[error("`{0}` does not say its number: a caller must hear how long")]
    NoNumber(String),
    /// It is vague.
    #[error("`{clip}` is vague: it says `{phrase}`")]
    Vague {
        /// Which clip.
        clip: String,
        /// The phrase.
        phrase: &'static str,
    },
}

/// The transition message: reason, destination, time.
pub fn transition(category: Category, queue_spoken: &str, anchor_s: u32, lang: &str) -> Transition {
    let (lang, place, anchor_s) = (language(lang), destination(queue_spoken), spoken_anchor(anchor_s));
    let reason = clip(&format!("reason.{}", category.as_str()), lang);
    let dest = clip(&format!("dest.{place}"), lang);
    let time = clip(&format!("time.{anchor_s}"), lang);
    let (why, where_to) = (text_of_clip(&reason), text_of_clip(&dest));
    let prompt = prompt([reason, dest, time]);
    let text = text_of(&prompt);
    let digest = text_sha256(&prompt);
    let version = digest.get(..8).unwrap_or_default();
    let text_id = format!("transition.{}.{place}.{anchor_s}.{lang}.{version}", category.as_str());
    Transition { text_id, prompt, reason: why, destination: where_to, anchor_s, text }
}

/// The announcement while the caller waits: destination and time.
pub fn hold_update(queue_spoken: &str, remaining_s: u32, lang: &str) -> Prompt {
    let (lang, place) = (language(lang), destination(queue_spoken));
    let time = clip(&format!("hold.time.{}", spoken_anchor(remaining_s)), lang);
    prompt([clip(&format!("hold.update.{place}"), lang), time])
}

/// To the caller, first of all: that a machine speaks and that the call is recorded.
pub fn disclosure(lang: &str) -> Prompt {
    fixed("disclosure.ai_recording", lang)
}

/// To the caller, last of all, when nobody could take the call.
pub fn closing(lang: &str) -> Prompt {
    fixed("closing", lang)
}

/// To a caller whose human agent was lost.
pub fn apology(lang: &str) -> Prompt {
    fixed("apology", lang)
}

/// To a human agent whose caller has hung up.
pub fn caller_left(lang: &str) -> Prompt {
    fixed("caller_left", lang)
}

/// To both, right before the bridge.
pub fn connecting(lang: &str) -> Prompt {
    fixed("connecting", lang)
}

/// To a human agent, where there is no spoken summary.
pub fn generic_whisper(lang: &str) -> Prompt {
    fixed("whisper.generic", lang)
}

/// To a phone outside the directory: press a key to prove that a person is there.
pub fn presence(lang: &str) -> Prompt {
    fixed("presence", lang)
}

/// To a human agent, after the whisper.
pub fn press_to_accept(lang: &str) -> Prompt {
    fixed("press_to_accept", lang)
}

/// To a caller who goes back to the voice agent.
pub fn returning(lang: &str) -> Prompt {
    fixed("returning", lang)
}

/// To a caller who goes on to the people of another queue: destination and time.
pub fn redirect(queue_spoken: &str, seconds: u32, lang: &str) -> Prompt {
    let (lang, place) = (language(lang), destination(queue_spoken));
    prompt([clip(&format!("dest.{place}"), lang), clip(&format!("time.{}", spoken_anchor(seconds)), lang)])
}

/// To a caller who may leave a message: how, and the tone after which it is recorded.
pub fn voicemail(lang: &str) -> Prompt {
    prompt([clip("voicemail", language(lang)), ClipId(MESSAGE_TONE.to_owned())])
}

/// To a caller who has left a message.
pub fn message_kept(lang: &str) -> Prompt {
    fixed("voicemail.kept", lang)
}

/// To a caller who may ask to be called back: the question and its keys.
pub fn callback(lang: &str) -> Prompt {
    fixed("callback", lang)
}

/// To a caller who will be called back.
pub fn callback_promised(lang: &str) -> Prompt {
    fixed("callback.promised", lang)
}

/// The smallest spoken time that is not shorter than `seconds`; the largest where there is
/// none. Rounding up keeps the promise: a caller forgives a wait that was shorter.
pub fn spoken_anchor(seconds: u32) -> u32 {
    let longest = ANCHORS_S[ANCHORS_S.len() - 1];
    ANCHORS_S.into_iter().find(|anchor| *anchor >= seconds).unwrap_or(longest)
}

/// Whether `queue_spoken` (`nurse`, or the clip family `dest.nurse`) has clips of its own.
/// Others are spoken as "our team".
pub fn is_destination(queue_spoken: &str) -> bool {
    DESTINATIONS.contains(&queue_spoken.strip_prefix("dest.").unwrap_or(queue_spoken))
}

/// The text of every clip.
///
/// # Panics
///
/// Never in a build that passed its tests: the catalogue is part of the program.
pub fn catalogue() -> &'static BTreeMap<ClipId, String> {
    static CATALOGUE: OnceLock<BTreeMap<ClipId, String>> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let file: CatalogueFile =
            toml::from_str(include_str!("message/catalogue.toml")).expect("the committed catalogue parses");
        file.clips
    })
}

/// The words of a prompt. Free text is personal and not among them; its fallback is.
pub fn text_of(prompt: &Prompt) -> String {
    let texts: Vec<String> = prompt
        .parts
        .iter()
        .map(|part| match part {
            Part::Clip(clip) | Part::Say { fallback: clip, .. } => text_of_clip(clip),
        })
        .collect();
    texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// SHA-256 of [`text_of`], hexadecimal: the proof of which fixed text was played.
pub fn text_sha256(prompt: &Prompt) -> String {
    Sha256::digest(text_of(prompt)).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks a catalogue: complete in every language, a reason in every reason, a place in
/// every destination, the right number in every time, nothing vague.
pub fn lint(clips: &BTreeMap<ClipId, String>) -> Vec<TemplateFault> {
    let mut faults = Vec::new();
    for lang in LANGUAGES {
        let mut look = |name: String, check: fn(&str, &str, &str) -> Option<TemplateFault>| {
            let id = clip(&name, lang);
            match clips.get(&id) {
                None => faults.push(TemplateFault::Absent(id.0)),
                Some(text) => faults.extend(check(&id.0, text, lang)),
            }
        };
        for category in Category::ALL {
            look(format!("reason.{}", category.as_str()), lint_reason);
        }
        for place in DESTINATIONS {
            look(format!("dest.{place}"), lint_destination);
            look(format!("hold.update.{place}"), lint_destination);
        }
        for anchor in ANCHORS_S {
            look(format!("time.{anchor}"), lint_time);
            look(format!("hold.time.{anchor}"), lint_time);
        }
        for name in FIXED {
            look(name.to_owned(), |_, _, _| None);
        }
    }
    faults
}

/// Refuses a reason that is none: too short to say anything, or a phrase that only stalls.
pub fn lint_reason(clip: &str, text: &str, _lang: &str) -> Option<TemplateFault> {
    if words(text).len() < REASON_WORDS_MIN {
        return Some(TemplateFault::NoReason(clip.to_owned()));
    }
    vague(clip, text)
}

fn lint_destination(clip: &str, text: &str, _lang: &str) -> Option<TemplateFault> {
    if words(text).len() < REASON_WORDS_MIN {
        return Some(TemplateFault::NoDestination(clip.to_owned()));
    }
    vague(clip, text)
}

/// Refuses a time without its number, in figures or in words; `clip` names the seconds.
pub fn lint_time(clip: &str, text: &str, lang: &str) -> Option<TemplateFault> {
    let seconds = clip.split('.').find_map(|part| part.parse::<u32>().ok());
    let spoken = seconds.is_some_and(|seconds| says(text, seconds, lang));
    if !spoken {
        return Some(TemplateFault::NoNumber(clip.to_owned()));
    }
    vague(clip, text)
}

/// Fewest words in which a reason or a place can be said.
const REASON_WORDS_MIN: usize = 4;

/// Phrases that stall without saying anything (in the languages of the catalogue).
const VAGUE: [&str; 10] = [
    "one moment",
    "please hold",
    "as soon as possible",
    "shortly",
    "a short while",
    "soon",
    "un momento",
    "en breve",
    "lo antes posible",
    "enseguida",
];

fn vague(clip: &str, text: &str) -> Option<TemplateFault> {
    let plain = format!(" {} ", words(text).join(" "));
    let phrase = VAGUE.into_iter().find(|phrase| plain.contains(&format!(" {phrase} ")))?;
    Some(TemplateFault::Vague { clip: clip.to_owned(), phrase })
}

fn says(text: &str, seconds: u32, lang: &str) -> bool {
    let words = words(text);
    let plain = format!(" {} ", words.join(" "));
    let whole_minutes = seconds > 0 && seconds.is_multiple_of(60);
    let in_figures = words.contains(&seconds.to_string())
        || (whole_minutes && words.contains(&(seconds / 60).to_string()));
    let amounts = NUMBERS.iter().filter(|(value, _, _)| *value == seconds || value * 60 == seconds);
    let mut spoken = amounts.map(|(value, english, spanish)| {
        let unit_is_minutes = *value != seconds;
        let (number, units) = match (lang, unit_is_minutes) {
            ("es", false) => (spanish, ["segundos", "segundo"]),
            ("es", true) => (spanish, ["minutos", "minuto"]),
            (_, false) => (english, ["seconds", "second"]),
            (_, true) => (english, ["minutes", "minute"]),
        };
        units.map(|unit| format!(" {number} {unit} "))
    });
    in_figures || spoken.any(|forms| forms.iter().any(|form| plain.contains(form)))
}

/// The numbers of the anchors, in seconds and in minutes, English and Spanish.
const NUMBERS: [(u32, &str, &str); 13] = [
    (1, "one", "un"),
    (2, "two", "dos"),
    (3, "three", "tres"),
    (4, "four", "cuatro"),
    (5, "five", "cinco"),
    (7, "seven", "siete"),
    (10, "ten", "diez"),
    (15, "fifteen", "quince"),
    (20, "twenty", "veinte"),
    (30, "thirty", "treinta"),
    (45, "forty five", "cuarenta y cinco"),
    (60, "sixty", "sesenta"),
    (90, "ninety", "noventa"),
];

fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    clips: BTreeMap<ClipId, String>,
}

fn fixed(name: &str, lang: &str) -> Prompt {
    prompt([clip(name, language(lang))])
}

fn prompt<const N: usize>(clips: [ClipId; N]) -> Prompt {
    Prompt { parts: clips.into_iter().map(Part::Clip).collect() }
}

fn clip(name: &str, lang: &str) -> ClipId {
    ClipId(format!("{name}.{lang}"))
}

fn text_of_clip(clip: &ClipId) -> String {
    catalogue().get(clip).cloned().unwrap_or_default()
}

/// The catalogue's language for a BCP 47 tag, by its primary subtag.
fn language(tag: &str) -> &'static str {
    let primary = tag.split(['-', '_']).next().unwrap_or_default();
    LANGUAGES.into_iter().find(|lang| lang.eq_ignore_ascii_case(primary)).unwrap_or(LANGUAGES[0])
}

fn destination(queue_spoken: &str) -> &'static str {
    let name = queue_spoken.strip_prefix("dest.").unwrap_or(queue_spoken);
    DESTINATIONS.into_iter().find(|place| *place == name).unwrap_or(DESTINATIONS[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_complete_and_passes_the_linter() {
        assert_eq!(lint(catalogue()), []);
    }

    #[test]
    fn every_clip_of_the_catalogue_belongs_to_a_known_family_and_language() {
        for ClipId(id) in catalogue().keys() {
            let (name, lang) = id.rsplit_once('.').unwrap();
            assert!(LANGUAGES.contains(&lang), "{id}");
            let family = |prefix: &str, known: bool| name.starts_with(prefix) && known;
            let tail = name.rsplit('.').next().unwrap_or_default();
            let anchor = tail.parse().is_ok_and(|seconds: u32| ANCHORS_S.contains(&seconds));
            let reason = Category::ALL.iter().any(|category| category.as_str() == tail);
            let known = FIXED.contains(&name)
                || family("reason.", reason)
                || family("dest.", is_destination(tail))
                || family("hold.update.", is_destination(tail))
                || family("time.", anchor)
                || family("hold.time.", anchor);
            assert!(known, "{id} is rendered but never played");
        }
    }

    #[test]
    fn a_transition_names_reason_destination_and_time() {
        let message = transition(Category::CallerRequest, "dest.billing", 26, "en-GB");
        assert_eq!(
            message.text,
            "As you asked, I am connecting you to a person. I am transferring you to our billing team. \
             This takes about thirty seconds."
        );
        assert_eq!(message.anchor_s, 30);
        assert!(
            message.text_id.starts_with("transition.caller_request.billing.30.en."),
            "{}",
            message.text_id
        );
    }

    #[test]
    fn every_transition_has_its_three_parts_in_every_language() {
        for lang in ["en", "es", "es-MX", "fr"] {
            for category in Category::ALL {
                for place in DESTINATIONS {
                    for anchor in ANCHORS_S {
                        let message = transition(category, place, anchor, lang);
                        assert_eq!(message.prompt.parts.len(), 3);
                        assert!(message.text_id.len() <= 60, "{}", message.text_id);
                        assert!(message.text.contains(&message.reason) && !message.reason.is_empty());
                        assert!(
                            message.text.contains(&message.destination) && !message.destination.is_empty()
                        );
                        let hold = text_of(&hold_update(place, anchor, lang));
                        assert!(!hold.is_empty() && !hold.contains("  "), "{hold}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_unknown_queue_or_language_falls_back_to_our_team_in_english() {
        let message = transition(Category::Loop, "dest.moonshots", 5, "tlh");
        assert_eq!(message.destination, "I am transferring you to our team.");
    }

    #[test]
    fn estimates_are_rounded_up_and_capped() {
        for (seconds, anchor) in
            [(0, 5), (5, 5), (6, 10), (31, 45), (61, 90), (301, 420), (600, 600), (9_999, 600)]
        {
            assert_eq!(spoken_anchor(seconds), anchor, "{seconds}");
        }
    }

    #[test]
    fn templates_without_a_reason_or_a_number_and_vague_ones_are_refused() {
        let vague = |clip: &str, phrase| Some(TemplateFault::Vague { clip: clip.to_owned(), phrase });
        assert_eq!(lint_reason("r", "Hold on.", "en"), Some(TemplateFault::NoReason("r".to_owned())));
        assert_eq!(lint_reason("r", "Please hold while I look.", "en"), vague("r", "please hold"));
        assert_eq!(lint_time("time.30.en", "This will not take long.", "en"), Some(no_number("time.30.en")));
        assert_eq!(
            lint_time("time.30.en", "This takes about ten seconds.", "en"),
            Some(no_number("time.30.en"))
        );
        assert_eq!(lint_time("time.30.en", "About 30 seconds, so soon.", "en"), vague("time.30.en", "soon"));
        assert_eq!(lint_time("time.120.es", "Esto tardará cerca de dos minutos.", "es"), None);
    }

    fn no_number(clip: &str) -> TemplateFault {
        TemplateFault::NoNumber(clip.to_owned())
    }

    #[test]
    fn the_linter_finds_a_clip_that_is_taken_out() {
        let mut clips = catalogue().clone();
        clips.remove(&ClipId("dest.nurse.es".to_owned()));
        assert_eq!(lint(&clips), [TemplateFault::Absent("dest.nurse.es".to_owned())]);
    }

    #[test]
    fn the_fixed_prompts_have_texts_and_differ() {
        let all = [
            disclosure,
            closing,
            apology,
            caller_left,
            connecting,
            generic_whisper,
            presence,
            press_to_accept,
            returning,
            voicemail,
            message_kept,
            callback,
            callback_promised,
        ];
        for lang in LANGUAGES {
            let digests: std::collections::BTreeSet<String> =
                all.iter().map(|make| text_sha256(&make(lang))).collect();
            assert_eq!(digests.len(), all.len());
        }
    }

    #[test]
    fn free_text_never_shows_in_the_words_of_a_prompt() {
        let part = Part::Say {
            text: "Jane Roe is calling".to_owned().into(),
            lang: "en".to_owned(),
            fallback: ClipId("whisper.generic.en".to_owned()),
        };
        let words = text_of(&Prompt { parts: vec![part] });
        assert_eq!(words, "You have a transfer from the voice assistant. The details are on your screen.");
    }
}
