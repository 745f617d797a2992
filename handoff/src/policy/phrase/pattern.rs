//! The grammar of phrases: word classes that may be made of other word classes, and patterns
//! over them. A pattern is followed through a text with the set of places that it can have
//! reached, not by trying every way in turn, so that no pattern and no text makes it slow.

use std::collections::{BTreeMap, BTreeSet};

use super::Words;

/// Most words that `*` stands for; more would join two thoughts into one.
const GAP_WORDS_MAX: usize = 3;
/// Most elements of a pattern: a longer one would never be said.
const ELEMENTS_MAX: usize = 16;
/// Deepest nesting of sets in sets: a word, a noun with its article, a clause, and one to spare.
const DEPTH_MAX: usize = 4;
/// What cannot be part of a word: inside one it would be dropped without a word said.
const SIGNS: [char; 7] = ['[', ']', '{', '}', '*', '^', '$'];

/// Named sets of alternatives, as a policy file defines them.
pub type PhraseSets = BTreeMap<String, Vec<String>>;

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// A set that is not defined.
    #[error("the set `{0}` is not defined in [phrase_sets]")]
    UnknownSet(String),
    /// A set that is made of itself, or of too many others.
    #[error("the set `{0}` contains itself, or sets in sets more than four deep")]
    Nested(String),
    /// It can match nothing, or anything.
    #[error("a pattern needs a word that is no filler (`please`, `just`), and no more than sixteen elements")]
    Empty,
    /// A sign of the pattern language inside a word.
    #[error("`{0}`: `[…]`, `{{…}}`, `*`, `^` and `$` stand alone, with nothing but `|` beside a set")]
    Sign(String),
    /// It begins with `*`.
    #[error("a pattern cannot begin with `*` or an optional word alone")]
    Unanchored,
}

/// An entry of a set that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{set}`: {bad}")]
pub struct BadSet {
    /// Name of the set.
    pub set: String,
    /// Which of its entries, from 0.
    pub entry: usize,
    /// What is wrong with it.
    #[source]
    pub bad: BadPattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    /// One of several rows of words or sets.
    OneOf { choices: Vec<Choice>, optional: bool },
    /// Up to three words.
    Gap,
    /// Begin of a sentence.
    Begin,
    /// End of a sentence.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    Row(Vec<String>),
    /// Index of a set in the vocabulary.
    Set(usize),
}

/// Patterns of which any may be meant, found by the word with which they begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alternatives {
    patterns: Vec<Vec<Element>>,
    /// First word → patterns that can begin with it, in the order of the file.
    first: BTreeMap<String, Vec<usize>>,
    /// One of them may be absent altogether: an entry of fillers only.
    absent: bool,
}

/// The word classes of a policy, compiled once for all its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    names: BTreeMap<String, usize>,
    sets: Vec<Alternatives>,
}

impl Vocabulary {
    /// Compiles sets. A set may name others, in any order, and not itself.
    pub fn of(sources: &PhraseSets) -> Result<Self, BadSet> {
        let names: BTreeMap<String, usize> =
            sources.keys().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let mut parsed = Vec::with_capacity(sources.len());
        for (set, entries) in sources {
            let rows: Result<Vec<_>, BadSet> = entries
                .iter()
                .enumerate()
                .map(|(entry, source)| {
                    elements(source, &names).map_err(|bad| BadSet { set: set.clone(), entry, bad })
                })
                .collect();
            parsed.push(rows?);
        }
        let depths = depths(&parsed);
        let too_deep =
            names.iter().find(|(_, index)| depths.get(**index).is_none_or(|depth| *depth > DEPTH_MAX));
        if let Some((set, _)) = too_deep {
            let bad = BadPattern::Nested(set.clone());
            return Err(BadSet { set: set.clone(), entry: 0, bad });
        }
        // From the innermost outwards, so that what a set is made of is known already.
        let mut order: Vec<usize> = (0..parsed.len()).collect();
        order.sort_by_key(|index| depths.get(*index).copied());
        let mut vocabulary = Self { sets: vec![Alternatives::default(); parsed.len()], names };
        for index in order {
            let patterns = parsed.get_mut(index).map(core::mem::take).unwrap_or_default();
            let set = vocabulary.names.iter().find(|(_, at)| **at == index).map(|(name, _)| name.clone());
            let compiled = vocabulary.alternatives(patterns).map_err(|(entry, bad)| BadSet {
                set: set.unwrap_or_default(),
                entry,
                bad,
            })?;
            if let Some(slot) = vocabulary.sets.get_mut(index) {
                *slot = compiled;
            }
        }
        Ok(vocabulary)
    }

    /// Compiles patterns that use these sets; a fault comes with the index of its pattern.
    pub(super) fn compile<'a>(
        &self,
        sources: impl IntoIterator<Item = &'a str>,
    ) -> Result<Alternatives, (usize, BadPattern)> {
        let mut patterns = Vec::new();
        for (index, source) in sources.into_iter().enumerate() {
            let elements = elements(source, &self.names).map_err(|bad| (index, bad))?;
            if elements.is_empty() || elements.iter().all(|element| self.may_be_absent(element)) {
                return Err((index, BadPattern::Empty));
            }
            patterns.push(elements);
        }
        self.alternatives(patterns)
    }

    fn alternatives(&self, patterns: Vec<Vec<Element>>) -> Result<Alternatives, (usize, BadPattern)> {
        let mut first: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut absent = false;
        for (index, elements) in patterns.iter().enumerate() {
            if elements.iter().all(|element| self.may_be_absent(element)) {
                absent = true;
                // An entry of a filler alone has no elements; one of optional words has.
                if elements.is_empty() {
                    continue;
                }
                return Err((index, BadPattern::Empty));
            }
            for word in self.first_words(elements).map_err(|bad| (index, bad))? {
                first.entry(word).or_default().push(index);
            }
        }
        Ok(Alternatives { patterns, first, absent })
    }

    fn set(&self, index: usize) -> Option<&Alternatives> {
        self.sets.get(index)
    }

    fn may_be_absent(&self, element: &Element) -> bool {
        match element {
            Element::Gap | Element::Begin | Element::End => true,
            Element::OneOf { choices, optional } => {
                let absent = |choice: &Choice| match choice {
                    Choice::Row(_) => false,
                    Choice::Set(index) => self.set(*index).is_some_and(|set| set.absent),
                };
                *optional || choices.iter().any(absent)
            }
        }
    }

    /// The words with which a pattern can begin.
    fn first_words(&self, elements: &[Element]) -> Result<BTreeSet<String>, BadPattern> {
        let mut first = BTreeSet::new();
        for element in elements {
            match element {
                Element::Begin => {}
                Element::Gap | Element::End => return Err(BadPattern::Unanchored),
                Element::OneOf { choices, .. } => {
                    for choice in choices {
                        match choice {
                            Choice::Row(row) => first.extend(row.first().cloned()),
                            Choice::Set(index) => {
                                first.extend(
                                    self.set(*index).into_iter().flat_map(|set| set.first.keys().cloned()),
                                );
                            }
                        }
                    }
                    if !self.may_be_absent(element) {
                        return Ok(first);
                    }
                }
            }
        }
        Err(BadPattern::Unanchored)
    }

    /// The first of `patterns` that the words show from `start` on, and the nearest place
    /// where it can end.
    pub(super) fn shown(
        &self,
        patterns: &Alternatives,
        words: &Words,
        start: usize,
    ) -> Option<(usize, usize)> {
        let candidates = words.text(start).and_then(|word| patterns.first.get(word))?;
        candidates.iter().find_map(|index| {
            let ends = self.reach(patterns.patterns.get(*index)?, words, start, start);
            ends.first().map(|end| (*index, *end))
        })
    }

    /// The farthest place that any of `patterns` reaches from `start` on.
    pub(super) fn farthest(&self, patterns: &Alternatives, words: &Words, start: usize) -> Option<usize> {
        let candidates = words.text(start).and_then(|word| patterns.first.get(word))?;
        let ends = candidates.iter().filter_map(|index| patterns.patterns.get(*index));
        ends.filter_map(|pattern| self.reach(pattern, words, start, start).last().copied()).max()
    }

    /// Where `elements` can end when they begin at `from`, in a match that began at `start`.
    fn reach(&self, elements: &[Element], words: &Words, start: usize, from: usize) -> BTreeSet<usize> {
        let mut places = BTreeSet::from([from]);
        for element in elements {
            let mut next = BTreeSet::new();
            for place in places {
                self.step(element, words, start, place, &mut next);
            }
            if next.is_empty() {
                return next;
            }
            places = next;
        }
        places
    }

    fn step(&self, element: &Element, words: &Words, start: usize, place: usize, next: &mut BTreeSet<usize>) {
        match element {
            Element::Begin | Element::End => next.extend(words.ends_sentence(place).then_some(place)),
            Element::Gap => {
                next.insert(place);
                for skipped in place..place + GAP_WORDS_MAX {
                    if skipped != start && words.ends_sentence(skipped) {
                        break;
                    }
                    next.insert(skipped + 1);
                }
            }
            Element::OneOf { choices, .. } => {
                for choice in choices {
                    match choice {
                        Choice::Row(row) if shows(row, words, start, place) => {
                            next.insert(place + row.len());
                        }
                        Choice::Row(_) => {}
                        Choice::Set(index) => self.step_set(*index, words, start, place, next),
                    }
                }
                if self.may_be_absent(element) {
                    next.insert(place);
                }
            }
        }
    }

    fn step_set(&self, index: usize, words: &Words, start: usize, place: usize, next: &mut BTreeSet<usize>) {
        let Some(set) = self.set(index) else { return };
        let candidates = words.text(place).and_then(|word| set.first.get(word)).into_iter().flatten();
        for pattern in candidates.filter_map(|index| set.patterns.get(*index)) {
            next.extend(self.reach(pattern, words, start, place));
        }
    }
}

impl Alternatives {
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

/// How deep each set is nested; beyond the limit it is not counted further, so that a set
/// made of itself ends there too.
fn depths(sets: &[Vec<Vec<Element>>]) -> Vec<usize> {
    let mut depths = vec![0; sets.len()];
    for _ in 0..=DEPTH_MAX {
        let deeper = |set: &Vec<Vec<Element>>| {
            let inner = set.iter().flatten().flat_map(|element| match element {
                Element::OneOf { choices, .. } => choices.as_slice(),
                Element::Gap | Element::Begin | Element::End => &[],
            });
            let depth = |choice: &Choice| match choice {
                Choice::Row(_) => 0,
                Choice::Set(index) => depths.get(*index).map_or(0, |depth| depth + 1),
            };
            inner.map(depth).max().unwrap_or(0)
        };
        depths = sets.iter().map(deeper).collect();
    }
    depths
}

fn elements(source: &str, names: &BTreeMap<String, usize>) -> Result<Vec<Element>, BadPattern> {
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
                let mut choices = choices(piece, names)?;
                // A filler is never seen in a text ("um" is a word in Portuguese and none in
                // English), so an element that may be one may be absent.
                let filler = choices.iter().any(Choice::is_filler);
                choices.retain(|choice| !choice.is_filler());
                if !choices.is_empty() {
                    elements.push(Element::OneOf { choices, optional: optional || filler });
                }
            }
        }
    }
    if elements.len() > ELEMENTS_MAX {
        return Err(BadPattern::Empty);
    }
    Ok(elements)
}

impl Choice {
    fn is_filler(&self) -> bool {
        match self {
            Self::Row(row) => row.is_empty(),
            Self::Set(_) => false,
        }
    }
}

fn choices(piece: &str, names: &BTreeMap<String, usize>) -> Result<Vec<Choice>, BadPattern> {
    let mut choices = Vec::new();
    for alternative in piece.split('|') {
        match alternative.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            None if alternative.contains(SIGNS) => return Err(BadPattern::Sign(alternative.to_owned())),
            None => choices.push(Choice::Row(Words::of(alternative).texts().map(str::to_owned).collect())),
            Some(name) => match names.get(name) {
                Some(index) => choices.push(Choice::Set(*index)),
                None => return Err(BadPattern::UnknownSet(name.to_owned())),
            },
        }
    }
    Ok(choices)
}

fn shows(row: &[String], words: &Words, start: usize, at: usize) -> bool {
    row.iter().enumerate().all(|(step, expected)| {
        let here = at + step;
        words.text(here) == Some(expected) && (here == start || !words.ends_sentence(here))
    })
}
