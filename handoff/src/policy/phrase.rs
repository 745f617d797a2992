//! Phrases in speech: a small pattern language over the words of a turn. Text is folded
//! (lower case, no accents, no fillers) and matched on word boundaries; a match inside a
//! negated clause can be left out. It understands no grammar and no meaning; what it finds
//! and misses is measured by a labelled corpus.
//!
//! A pattern is a row of words: `speak|talk to [a|the] {person}`. `a|b` is either word,
//! `[…]` around one of these may be absent, `{set}` is any
//! entry of a named set, `*` is at most three words,
//! `^` and `$` are the ends of a sentence. The entries of a set are patterns themselves, so
//! that a set is a word class ("person"), a noun with its article, or a clause.

mod pattern;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::pattern::Alternatives;
pub use self::pattern::{BadPattern, BadSet, PhraseSets, Vocabulary};

/// Most words of a turn that are looked at: the longest turn has fewer.
const WORDS_MAX: usize = 2_000;
/// How many words before a match a negation still reaches it.
const NEGATION_REACH: usize = 6;

/// One word of a turn, folded, and what stood before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    /// A comma or a dash stood before it: a negation ends here.
    pause: bool,
    /// A sentence ended before it: no pattern reaches across.
    sentence: bool,
}

/// The words of a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<Word>);

impl Words {
    /// Folds a text into words.
    pub fn of(text: &str) -> Self {
        let mut words = Vec::new();
        let mut word = String::new();
        let (mut pause, mut sentence) = (false, true);
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let folded = fold(character, &mut word);
            if folded && characters.peek().is_some() {
                continue;
            }
            if !word.is_empty() {
                let text = core::mem::take(&mut word);
                if !FILLERS.contains(&text.as_str()) {
                    words.push(Word { text, pause, sentence });
                    (pause, sentence) = (false, false);
                }
            }
            let mut dots = u32::from(character == '.');
            while dots > 0 && characters.next_if_eq(&'.').is_some() {
                dots += 1;
            }
            // A point, a colon or a hyphen inside a number or a word ends nothing.
            let inside = characters.peek().copied().is_some_and(char::is_alphanumeric);
            match character {
                '.' if dots > 1 => pause = true,
                '.' | ':' | '-' if inside => {}
                ',' | '…' | '–' | '—' | '-' => pause = true,
                '.' | '!' | '?' | ';' | ':' | '¿' | '¡' | '\n' => sentence = true,
                _ => {}
            }
            if words.len() >= WORDS_MAX {
                break;
            }
        }
        Self(words)
    }

    /// The words with single spaces between them.
    pub fn joined(&self) -> String {
        let words: Vec<&str> = self.texts().collect();
        words.join(" ")
    }

    /// Without the words that are said twice in a row, as a caller does who stutters or
    /// insists: "I I want an operator operator".
    #[must_use]
    pub fn once_each(mut self) -> Self {
        self.0.dedup_by(|word, before| word.text == before.text && !word.sentence);
        self
    }

    /// The words, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|word| word.text.as_str())
    }

    /// Whether `needle` occurs here, word by word.
    pub fn contains(&self, needle: &Self) -> bool {
        let same =
            |window: &[Word]| window.iter().zip(&needle.0).all(|(here, there)| here.text == there.text);
        !needle.0.is_empty() && self.0.windows(needle.0.len()).any(same)
    }

    fn text(&self, at: usize) -> Option<&str> {
        self.0.get(at).map(|word| word.text.as_str())
    }

    fn ends_sentence(&self, at: usize) -> bool {
        self.0.get(at).is_none_or(|word| word.sentence)
    }
}

/// Patterns, ready to be looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phrases {
    vocabulary: Arc<Vocabulary>,
    patterns: Alternatives,
    sources: Vec<String>,
    /// Longer phrases: what begins inside one of them does not count.
    exceptions: Alternatives,
    /// Words before a match that turn it into a question or a condition.
    hedges: BTreeSet<&'static str>,
    heed_negation: bool,
}

impl Phrases {
    /// Compiles patterns; a fault comes with the index of its pattern. With `heed_negation`,
    /// "I do not want to …" is not a match.
    pub fn compile(
        patterns: &[&str],
        vocabulary: &Arc<Vocabulary>,
        heed_negation: bool,
    ) -> Result<Self, (usize, BadPattern)> {
        Ok(Self {
            vocabulary: Arc::clone(vocabulary),
            patterns: vocabulary.compile(patterns.iter().copied())?,
            sources: patterns.iter().map(|source| (*source).to_owned()).collect(),
            heed_negation,
            ..Self::default()
        })
    }

    /// Also leaves out matches that begin inside one of `exceptions`: "he wanted to" before
    /// "talk to a person" makes a report of a request.
    pub fn except(mut self, exceptions: &[&str]) -> Result<Self, (usize, BadPattern)> {
        self.exceptions = self.vocabulary.compile(exceptions.iter().copied())?;
        Ok(self)
    }

    /// Also leaves out matches that one of `hedges` precedes in the same sentence.
    #[must_use]
    pub fn hedged(mut self, hedges: &[&'static str]) -> Self {
        self.hedges = hedges.iter().copied().collect();
        self
    }

    /// Nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The first pattern that the words show, as it is written in the policy.
    pub fn find(&self, words: &Words) -> Option<&str> {
        let mut excepted = 0;
        (0..words.0.len()).find_map(|at| {
            let exception = self.vocabulary.farthest(&self.exceptions, words, at);
            excepted = excepted.max(exception.unwrap_or(0));
            let (index, end) = self.vocabulary.shown(&self.patterns, words, at)?;
            let spoilt = at < excepted
                || (self.heed_negation && is_negated(words, at))
                || self.is_hedged(words, at, end);
            if spoilt { None } else { self.sources.get(index).map(String::as_str) }
        })
    }

    /// A condition holds for its whole sentence, in front ("if you like, I will …") or
    /// behind ("I will … if you like").
    fn is_hedged(&self, words: &Words, start: usize, end: usize) -> bool {
        if self.hedges.is_empty() {
            return false;
        }
        let first = (0..=start).rev().find(|at| words.ends_sentence(*at)).unwrap_or(0);
        let last = (start + 1..).find(|at| words.ends_sentence(*at)).unwrap_or(start);
        // Before a pause it is an answer: "sí, le paso …", where a recogniser drops the accent.
        let hedges = |at: usize| {
            let paused = words.0.get(at + 1).is_some_and(|next| next.pause);
            !paused && words.text(at).is_some_and(|word| self.hedges.contains(word))
        };
        let hedge_before = (first..start).any(hedges);
        let condition_after =
            (end..last).filter_map(|at| words.text(at)).any(|word| CONDITIONS.contains(&word));
        hedge_before || condition_after
    }
}

/// Whether a negation reaches the match that begins at `start`. It looks back inside the
/// clause, and stops where the caller starts over ("I don't want a robot I want a person").
fn is_negated(words: &Words, start: usize) -> bool {
    if is_opener(words, start) {
        return false;
    }
    let mut at = start;
    while at > 0 && start - at < NEGATION_REACH {
        if words.0.get(at).is_none_or(|word| word.pause || word.sentence) {
            return false;
        }
        at -= 1;
        let Some(word) = words.text(at) else { return false };
        if is_negation(words, at) {
            return true;
        }
        let before = at.checked_sub(1);
        let opinion =
            before.and_then(|before| words.text(before)).is_some_and(|word| OPINIONS.contains(&word));
        let directly = before.is_some_and(|before| is_negation(words, before));
        let restart = RESTARTS.contains(&word) && !opinion && !directly;
        if CLOSERS.contains(&word) || restart || is_opener(words, at) {
            return false;
        }
    }
    false
}

fn is_negation(words: &Words, at: usize) -> bool {
    let word = words.text(at).unwrap_or_default();
    let next = words.text(at + 1).unwrap_or_default();
    let before = at.checked_sub(1).and_then(|at| words.text(at)).unwrap_or_default();
    // "Don't you have …" and "why can't I …" ask for what they seem to deny.
    let asks = |begin: usize| SUBJECTS.contains(&next) || asks_why(words, begin);
    match word {
        // "No I want a person" refuses the machine; "no quiero …" refuses the person.
        "no" => !NO_THEN.contains(&next) && !asks_why(words, at),
        "t" => CONTRACTED.contains(&before) && !asks(at.saturating_sub(1)),
        "not" | "dont" | "cant" | "wont" | "doesnt" | "couldnt" | "isnt" => !asks(at),
        "pas" | "nicht" | "nao" => !asks_why(words, at),
        _ => NEGATIONS.contains(&word),
    }
}

/// Whether a question or an order begins at `at`, which nothing said before denies.
fn is_opener(words: &Words, at: usize) -> bool {
    let next = words.text(at + 1).unwrap_or_default();
    let opens = match words.text(at) {
        Some("is" | "are") => next == "there",
        Some("can" | "could" | "may") => matches!(next, "i" | "you" | "we" | "someone" | "somebody"),
        Some("get" | "give" | "let" | "put" | "transfer" | "connect") => next == "me",
        Some(_) | None => false,
    };
    // "Don't let me …", "you don't have to let me …" and "I don't think you can …" go on.
    let before = at.checked_sub(1);
    let goes_on = before.is_some_and(|before| {
        let bound = |word: &str| word == "to" || OPINIONS.contains(&word);
        is_negation(words, before) || words.text(before).is_some_and(bound)
    });
    opens && !goes_on
}

/// Whether a question for the reason stands right before `at`.
fn asks_why(words: &Words, at: usize) -> bool {
    let before = |steps: usize| at.checked_sub(steps).and_then(|at| words.text(at));
    match before(1) {
        Some("why" | "pourquoi" | "warum" | "wieso") => true,
        Some("que") => before(2) == Some("por"),
        Some(_) | None => false,
    }
}

const FILLERS: [&str; 17] = [
    "uh", "um", "er", "erm", "ah", "hmm", "mm", "eh", "please", "just", "really", "actually", "bitte",
    "kindly", "euh", "ugh", "well",
];
const NEGATIONS: [&str; 23] = [
    "never", "cannot", "without", "stop", "instead", "nor", "neither", "ne", "jamais", "sans", "kein",
    "keine", "keinen", "keinem", "keiner", "nie", "ohne", "nunca", "jamas", "sin", "tampoco", "sem", "nem",
];
const CONTRACTED: [&str; 11] =
    ["don", "doesn", "didn", "won", "can", "couldn", "wouldn", "isn", "shouldn", "needn", "haven"];
const SUBJECTS: [&str; 9] = ["you", "i", "we", "there", "someone", "somebody", "anyone", "he", "she"];
const NO_THEN: [&str; 18] = [
    "i",
    "get",
    "give",
    "let",
    "put",
    "can",
    "could",
    "connect",
    "transfer",
    "this",
    "that",
    "thats",
    "you",
    "we",
    "it",
    "agent",
    "operator",
    "representative",
];
/// Words after which a new thought begins, whatever was denied before.
const CLOSERS: [&str; 14] = [
    "but",
    "pero",
    "sino",
    "mais",
    "aber",
    "sondern",
    "mas",
    "because",
    "working",
    "helping",
    "right",
    "understand",
    "enough",
    "helpful",
];
/// Words with which a caller starts over, unless they are what was denied.
const RESTARTS: [&str; 10] =
    ["i", "we", "quiero", "necesito", "prefiero", "je", "ich", "eu", "quero", "preciso"];
const CONDITIONS: [&str; 4] = ["if", "unless", "wenn", "falls"];
const OPINIONS: [&str; 6] = ["think", "believe", "suppose", "feel", "sure", "know"];

/// Appends the folded character; `false` where it is no part of a word.
fn fold(character: char, word: &mut String) -> bool {
    let plain = match character {
        'a'..='z' | '0'..='9' => character,
        'A'..='Z' => character.to_ascii_lowercase(),
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'À' | 'Á' | 'Â' | 'Ã' | 'Ä' | 'Å' => 'a',
        'è' | 'é' | 'ê' | 'ë' | 'È' | 'É' | 'Ê' | 'Ë' => 'e',
        'ì' | 'í' | 'î' | 'ï' | 'Ì' | 'Í' | 'Î' | 'Ï' => 'i',
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'Ò' | 'Ó' | 'Ô' | 'Õ' | 'Ö' => 'o',
        'ù' | 'ú' | 'û' | 'ü' | 'Ù' | 'Ú' | 'Û' | 'Ü' => 'u',
        'ç' | 'Ç' => 'c',
        'ñ' | 'Ñ' => 'n',
        'ß' => {
            word.push_str("ss");
            return true;
        }
        'œ' | 'Œ' => {
            word.push_str("oe");
            return true;
        }
        other if other.is_alphanumeric() => {
            word.extend(other.to_lowercase());
            return true;
        }
        // A combining accent belongs to the letter before it, which is already plain.
        '\u{300}'..='\u{36f}' => return true,
        _ => return false,
    };
    word.push(plain);
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sets(sets: &[(&str, &[&str])]) -> PhraseSets {
        let owned = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
        sets.iter().map(|(name, entries)| ((*name).to_owned(), owned(entries))).collect()
    }

    fn vocabulary() -> Arc<Vocabulary> {
        let person = ("person", ["person", "customer service", "customer service agent"].as_slice());
        let someone = ("someone", ["[a|the] [real] {person}", "one of your * {person}"].as_slice());
        Arc::new(Vocabulary::of(&sets(&[person, someone])).unwrap())
    }

    fn finds(pattern: &str, text: &str) -> bool {
        Phrases::compile(&[pattern], &vocabulary(), true).unwrap().find(&Words::of(text)).is_some()
    }

    #[test]
    fn text_is_folded_to_plain_words() {
        for (text, words) in [
            ("I don't,  um, KNOW.", "i don t know"),
            ("¿Atención al cliente?", "atencion al cliente"),
            ("Ich möchte, bitte, 3.5 Äpfel — groß!", "ich mochte 3 5 apfel gross"),
            ("cafe\u{301} déjà vu", "cafe deja vu"),
            ("", ""),
        ] {
            assert_eq!(Words::of(text).joined(), words, "{text}");
        }
    }

    #[test]
    fn a_word_said_twice_counts_once_inside_a_sentence() {
        let words = Words::of("no no I I want an operator operator. Operator!").once_each();
        assert_eq!(words.joined(), "no i want an operator operator");
    }

    #[test]
    fn patterns_match_on_word_boundaries_only() {
        for (pattern, text, found) in [
            ("talk|speak to [a|the] {person}", "may I speak to a person?", true),
            ("talk|speak to [a|the] {person}", "TALK TO PERSON", true),
            ("talk|speak to [a|the] {person}", "may I speak to personnel", false),
            ("talk|speak to [a|the] {person}", "may I speak. To a person I owe this", false),
            ("get me a {person} now", "get me a customer service agent now", true),
            ("get * on the line", "get your boss on the line", true),
            ("get * on the line", "get one two three four on the line", false),
            ("^ {person} $", "Person!", true),
            ("^ {person} $", "Hello. Person, please. Thanks.", true),
            ("^ {person} $", "a person called", false),
            ("chest pain", "chest pains", false),
            ("talk to {someone}", "talk to the real person", true),
            ("talk to {someone} now", "talk to one of your very patient customer service now", true),
            ("talk to {someone} now", "talk to the real now", false),
            ("{someone} called", "a person called", true),
        ] {
            assert_eq!(finds(pattern, text), found, "{pattern} / {text}");
        }
    }

    #[test]
    fn negation_reaches_inside_its_clause_only() {
        for (text, found) in [
            ("I don't want to talk to a person", false),
            ("I dont want to talk to a person", false),
            ("I do not think I need to talk to a person", false),
            ("no quiero talk to a person", false),
            ("No, talk to a person", true),
            ("no I want to talk to a person", true),
            ("I don't want a robot I want to talk to a person", true),
            ("I don't want this, I want to talk to a person", true),
            ("it is not working but let me talk to a person", true),
            ("why can't I talk to a person", true),
            ("you don't get it can I talk to a person", true),
            ("you don't have to let me talk to a person", false),
            ("can't I talk to a person", true),
            ("without having to talk to a person", false),
        ] {
            assert_eq!(finds("talk to a person", text), found, "{text}");
        }
    }

    #[test]
    fn what_begins_inside_an_exception_does_not_count() {
        let phrases = Phrases::compile(&["talk to {someone}"], &vocabulary(), true).unwrap();
        let phrases = phrases.except(&["he|she wanted to talk", "do i have to talk"]).unwrap();
        for (text, found) in [
            ("I want to talk to a person", true),
            ("he wanted to talk to a person", false),
            ("do I have to talk to a person", false),
            ("he wanted to talk to a person so let me talk to a person", true),
        ] {
            assert_eq!(phrases.find(&Words::of(text)).is_some(), found, "{text}");
        }
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        let compile = |pattern: &str| {
            Phrases::compile(&[pattern], &vocabulary(), true).map(|_| ()).map_err(|(_, bad)| bad)
        };
        assert_eq!(compile("talk to {nobody}"), Err(BadPattern::UnknownSet("nobody".to_owned())));
        assert_eq!(compile(""), Err(BadPattern::Empty));
        assert_eq!(compile("please"), Err(BadPattern::Empty));
        assert_eq!(compile("[maybe]"), Err(BadPattern::Empty));
        assert_eq!(compile("* person"), Err(BadPattern::Unanchored));
        assert_eq!(compile("a person|$"), Err(BadPattern::Sign("$".to_owned())));
        assert_eq!(compile("[a b] person"), Err(BadPattern::Sign("[a".to_owned())));
        assert_eq!(compile(&"a ".repeat(17)), Err(BadPattern::Empty));
    }

    #[test]
    fn a_bad_set_is_refused_with_its_entry() {
        let refused = |source: &[(&str, &[&str])]| Vocabulary::of(&sets(source)).unwrap_err();
        let unknown = refused(&[("one", &["a person", "a {two}"])]);
        assert_eq!((unknown.set.as_str(), unknown.entry), ("one", 1));
        assert_eq!(unknown.bad, BadPattern::UnknownSet("two".to_owned()));
        let nested = refused(&[("one", &["a {two}"]), ("two", &["b {one}"])]);
        assert_eq!(nested.bad, BadPattern::Nested("one".to_owned()));
        assert_eq!(refused(&[("one", &["a", "* b"])]).bad, BadPattern::Unanchored);
        assert_eq!(refused(&[("one", &["[a]"])]).bad, BadPattern::Empty);
    }

    #[test]
    fn a_pattern_of_gaps_over_a_text_of_one_word_ends() {
        let gaps = "a * a * a * a * a * a * a * b";
        assert!(!finds(gaps, &"a ".repeat(WORDS_MAX)));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}", pattern in "[a-z|{}\\[\\]*^$ ]{0,30}") {
            let words = Words::of(&text);
            prop_assert!(words.0.len() <= WORDS_MAX);
            if let Ok(phrases) = Phrases::compile(&[pattern.as_str()], &vocabulary(), true) {
                let _ = phrases.find(&words);
            }
            let _ = Vocabulary::of(&sets(&[("a", &[pattern.as_str()]), ("b", &["a {a}", pattern.as_str()])]));
        }
    }
}
