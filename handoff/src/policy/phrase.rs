//! Phrases in speech: a small pattern language over the words of a turn. Text is folded
//! (lower case, no accents, no fillers) and matched on word boundaries; a match inside a
//! negated clause can be left out. It understands no grammar and no meaning; what it finds
//! and misses is measured by a labelled corpus.
//!
//! A pattern is a row of words: `speak|talk to [a|the] {person}`. `a|b` is either word,
//! `[…]` around one of these may be absent, `{set}` is any
//! entry of a named set, `*` is at most three words,
//! `^` and `$` are the ends of a sentence.

use std::collections::{BTreeMap, BTreeSet};

/// Most words of a turn that are looked at: the longest turn has fewer.
const WORDS_MAX: usize = 2_000;
/// Most words that `*` stands for; more would join two thoughts into one.
const GAP_WORDS_MAX: usize = 3;
/// Most elements of a pattern: a longer one would never be said.
const ELEMENTS_MAX: usize = 16;
/// How many words before a match a negation still reaches it.
const NEGATION_REACH: usize = 6;

/// Named sets of alternatives, as a policy file defines them.
pub type PhraseSets = BTreeMap<String, Vec<String>>;

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// A set that is not defined.
    #[error("the set `{0}` is not defined in [phrase_sets]")]
    UnknownSet(String),
    /// It can match nothing, or anything.
    #[error("a pattern needs a word that is no filler (`please`, `just`), and no more than sixteen elements")]
    Empty,
    /// It begins with `*`.
    #[error("a pattern cannot begin with `*` or an optional word alone")]
    Unanchored,
}

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
    patterns: Vec<Pattern>,
    /// First word → patterns that can begin with it.
    first: BTreeMap<String, Vec<usize>>,
    /// Words before a match that turn it into a question or a condition.
    hedges: BTreeSet<&'static str>,
    heed_negation: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    source: String,
    elements: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    /// One of several rows of words.
    OneOf { rows: Vec<Vec<String>>, optional: bool },
    /// Up to three words.
    Gap,
    /// Begin of a sentence.
    Begin,
    /// End of a sentence.
    End,
}

impl Phrases {
    /// Compiles patterns. With `heed_negation`, "I do not want to …" is not a match.
    pub fn compile<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
        sets: &PhraseSets,
        heed_negation: bool,
    ) -> Result<Self, BadPattern> {
        let mut phrases = Self { heed_negation, ..Self::default() };
        for source in patterns {
            let elements = elements(source, sets)?;
            let index = phrases.patterns.len();
            for word in first_words(&elements)? {
                phrases.first.entry(word).or_default().push(index);
            }
            phrases.patterns.push(Pattern { source: source.to_owned(), elements });
        }
        Ok(phrases)
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
        (0..words.0.len()).find_map(|at| {
            let candidates = words.text(at).and_then(|word| self.first.get(word))?;
            let shown = |index: &&usize| {
                self.patterns.get(**index).is_some_and(|pattern| matches(&pattern.elements, words, at, at))
            };
            let index = candidates.iter().find(shown)?;
            let spoilt = (self.heed_negation && is_negated(words, at)) || self.is_hedged(words, at);
            if spoilt { None } else { self.patterns.get(*index).map(|pattern| pattern.source.as_str()) }
        })
    }

    /// A condition holds for its whole sentence, in front ("if you like, I will …") or
    /// behind ("I will … if you like").
    fn is_hedged(&self, words: &Words, start: usize) -> bool {
        if self.hedges.is_empty() {
            return false;
        }
        let first = (0..=start).rev().find(|at| words.ends_sentence(*at)).unwrap_or(0);
        let end = (start + 1..).find(|at| words.ends_sentence(*at)).unwrap_or(start);
        let hedge_before =
            (first..start).filter_map(|at| words.text(at)).any(|word| self.hedges.contains(word));
        let condition_after =
            (start..end).filter_map(|at| words.text(at)).any(|word| CONDITIONS.contains(&word));
        hedge_before || condition_after
    }
}

fn elements(source: &str, sets: &PhraseSets) -> Result<Vec<Element>, BadPattern> {
    let mut elements = Vec::new();
    for piece in source.split_whitespace() {
        let (piece, optional) = match piece.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => (inner, true),
            None => (piece, false),
        };
        match piece {
            "*" => elements.push(Element::Gap),
            "^" => elements.push(Element::Begin),
            "$" => elements.push(Element::End),
            _ => {
                let mut rows = rows(piece, sets)?;
                // A filler is never seen in a text ("um" is a word in Portuguese and none in
                // English), so an element that may be one may be absent.
                let filler = rows.iter().any(Vec::is_empty);
                rows.retain(|row| !row.is_empty());
                elements.push(Element::OneOf { rows, optional: optional || filler });
            }
        }
    }
    let has_word = elements.iter().any(|element| matches!(element, Element::OneOf { optional: false, .. }));
    if !has_word || elements.len() > ELEMENTS_MAX {
        return Err(BadPattern::Empty);
    }
    Ok(elements)
}

fn rows(piece: &str, sets: &PhraseSets) -> Result<Vec<Vec<String>>, BadPattern> {
    let mut rows = Vec::new();
    for alternative in piece.split('|') {
        match alternative.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            None => rows.push(row(alternative)),
            Some(name) => {
                let set = sets.get(name).ok_or_else(|| BadPattern::UnknownSet(name.to_owned()))?;
                rows.extend(set.iter().map(|entry| row(entry)));
            }
        }
    }
    // The longest first, so that "customer service agent" is not read as "customer service".
    rows.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    Ok(rows)
}

fn row(text: &str) -> Vec<String> {
    Words::of(text).texts().map(str::to_owned).collect()
}

/// The words with which a pattern can begin.
fn first_words(elements: &[Element]) -> Result<BTreeSet<String>, BadPattern> {
    let mut first = BTreeSet::new();
    for element in elements {
        match element {
            Element::Begin => {}
            Element::Gap | Element::End => return Err(BadPattern::Unanchored),
            Element::OneOf { rows, optional } => {
                first.extend(rows.iter().filter_map(|row| row.first().cloned()));
                if !optional {
                    return Ok(first);
                }
            }
        }
    }
    Err(BadPattern::Unanchored)
}

/// Whether `elements` match from `at` on, in a match that began at `start`.
fn matches(elements: &[Element], words: &Words, start: usize, at: usize) -> bool {
    let Some((element, rest)) = elements.split_first() else { return true };
    match element {
        Element::Begin => words.ends_sentence(at) && matches(rest, words, start, at),
        Element::End => words.ends_sentence(at) && matches(rest, words, start, at),
        Element::Gap => (0..=GAP_WORDS_MAX)
            .take_while(|skipped| (0..*skipped).all(|step| at == start || !words.ends_sentence(at + step)))
            .any(|skipped| matches(rest, words, start, at + skipped)),
        Element::OneOf { rows, optional } => {
            rows.iter()
                .any(|row| row_matches(row, words, start, at) && matches(rest, words, start, at + row.len()))
                || (*optional && matches(rest, words, start, at))
        }
    }
}

fn row_matches(row: &[String], words: &Words, start: usize, at: usize) -> bool {
    row.iter().enumerate().all(|(step, expected)| {
        let here = at + step;
        words.text(here) == Some(expected) && (here == start || !words.ends_sentence(here))
    })
}

/// Whether a negation reaches the match that begins at `start`. It looks back inside the
/// clause, and stops where the caller starts over ("I don't want a robot I want a person").
fn is_negated(words: &Words, start: usize) -> bool {
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
        if CLOSERS.contains(&word) || (RESTARTS.contains(&word) && !opinion && !directly) {
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

    fn sets() -> PhraseSets {
        let person = ["person", "customer service", "customer service agent"].map(str::to_owned);
        BTreeMap::from([("person".to_owned(), person.to_vec())])
    }

    fn finds(pattern: &str, text: &str) -> bool {
        Phrases::compile([pattern], &sets(), true).unwrap().find(&Words::of(text)).is_some()
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
            ("can't I talk to a person", true),
            ("without having to talk to a person", false),
        ] {
            assert_eq!(finds("talk to a person", text), found, "{text}");
        }
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        let compile = |pattern| Phrases::compile([pattern], &sets(), true).map(|_| ());
        assert_eq!(compile("talk to {nobody}"), Err(BadPattern::UnknownSet("nobody".to_owned())));
        assert_eq!(compile(""), Err(BadPattern::Empty));
        assert_eq!(compile("[maybe]"), Err(BadPattern::Empty));
        assert_eq!(compile("* person"), Err(BadPattern::Unanchored));
        assert_eq!(compile(&"a ".repeat(17)), Err(BadPattern::Empty));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}", pattern in "[a-z|{}\\[\\]*^$ ]{0,30}") {
            let words = Words::of(&text);
            prop_assert!(words.0.len() <= WORDS_MAX);
            if let Ok(phrases) = Phrases::compile([pattern.as_str()], &sets(), true) {
                let _ = phrases.find(&words);
            }
        }
    }
}
