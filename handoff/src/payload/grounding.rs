//! Whether a text says only what its sources show. Its claims are the numbers, dates and
//! names in it; each must occur in a source after normalisation ("Dec 3" = 2026-12-03,
//! "forty two" = 42). It does not understand sentences: a claim may be in the sources and
//! the sentence around it still be wrong.

use std::collections::BTreeSet;

use crate::words::{self, DateMention, Token};

/// Capitalised words that are not names, mostly because they begin sentences. A word that
/// is missing here costs a template summary, a word too many lets a name pass.
const NOT_NAMES: [&str; 119] = [
    "a",
    "about",
    "account",
    "actions",
    "after",
    "agent",
    "ai",
    "all",
    "also",
    "an",
    "and",
    "another",
    "any",
    "are",
    "as",
    "asked",
    "asking",
    "asks",
    "assistant",
    "at",
    "because",
    "before",
    "both",
    "but",
    "by",
    "call",
    "called",
    "caller",
    "calling",
    "calls",
    "can",
    "card",
    "clear",
    "confirm",
    "confirmed",
    "could",
    "currently",
    "customer",
    "did",
    "do",
    "does",
    "during",
    "each",
    "for",
    "from",
    "had",
    "has",
    "have",
    "he",
    "her",
    "his",
    "how",
    "however",
    "i",
    "id",
    "if",
    "in",
    "is",
    "it",
    "its",
    "just",
    "last",
    "member",
    "my",
    "needs",
    "next",
    "no",
    "not",
    "nothing",
    "now",
    "of",
    "ok",
    "okay",
    "on",
    "once",
    "one",
    "only",
    "our",
    "patient",
    "person",
    "please",
    "reports",
    "requested",
    "requesting",
    "requests",
    "says",
    "she",
    "since",
    "so",
    "some",
    "someone",
    "still",
    "that",
    "the",
    "their",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "to",
    "today",
    "transferred",
    "until",
    "user",
    "voice",
    "waiting",
    "wants",
    "was",
    "we",
    "what",
    "when",
    "while",
    "who",
    "will",
    "with",
    "you",
    "your",
];

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Digits from which on a number may be a part of a longer one: the last four of an account.
const PART_DIGITS_MIN: usize = 3;

/// Something that a text states as a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// An amount, a count or an identifier, as digits.
    Number(String),
    /// A date as far as it is stated.
    Date(u32, Option<u32>, Option<u32>),
    /// Monday is 0.
    Weekday(usize),
    /// A word that is written like a name, in lower case.
    Name(String),
}

/// The claims of `text`.
pub(super) fn claims(text: &str) -> BTreeSet<Claim> {
    claims_where(text, |_, _| true)
}

/// The claims of an instruction ("Confirm the order with Dana."), whose sentences begin with
/// a verb: a capital there makes no name.
pub(super) fn claims_of_instruction(text: &str) -> BTreeSet<Claim> {
    claims_where(text, |tokens, index| {
        index > 0 && !words::gap(text, tokens, index - 1).contains(['.', '!', '?', ':', '\n'])
    })
}

fn claims_where(text: &str, may_be_name: impl Fn(&[Token], usize) -> bool) -> BTreeSet<Claim> {
    let tokens = words::tokens(text);
    let dates = words::dates(text, &tokens);
    let mut out: BTreeSet<Claim> = dates.iter().map(|d| Claim::Date(d.month, d.day, d.year)).collect();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        if let Some(date) = inside(&dates, index) {
            index = date.tokens.end;
            continue;
        }
        if let Some((value, taken)) = words::value_at(text, &tokens, index) {
            // "One" is a pronoun as often as a number.
            if token.digits || value != "1" {
                out.insert(Claim::Number(plain(&value)));
            }
            index += taken;
            continue;
        }
        if let Some(day) = WEEKDAYS.iter().position(|day| *day == token.folded) {
            out.insert(Claim::Weekday(day));
        } else if token.capital
            && may_be_name(&tokens, index)
            && !NOT_NAMES.contains(&token.folded.as_str())
            && !possessive(text, &tokens, index)
        {
            out.insert(Claim::Name(token.folded.clone()));
        }
        index += 1;
    }
    out
}

/// The "s" of "Dana's".
fn possessive(text: &str, tokens: &[Token], index: usize) -> bool {
    index > 0 && matches!(words::gap(text, tokens, index - 1), "'" | "’")
}

fn inside(dates: &[DateMention], index: usize) -> Option<&DateMention> {
    dates.iter().find(|date| date.tokens.contains(&index))
}

/// Without leading zeros, which a value does not have and an identifier keeps in its run.
fn plain(value: &str) -> String {
    let trimmed = value.trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
}

/// What sources show, ready to be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    numbers: BTreeSet<String>,
    runs: BTreeSet<String>,
    dates: BTreeSet<(u32, Option<u32>, Option<u32>)>,
    weekdays: BTreeSet<usize>,
    words: BTreeSet<String>,
}

impl Evidence {
    /// The evidence of one text.
    pub(super) fn of(text: &str) -> Self {
        let mut evidence = Self::default();
        evidence.add(text);
        evidence
    }

    /// Adds one text.
    pub(super) fn add(&mut self, text: &str) {
        let tokens = words::tokens(text);
        self.words.extend(tokens.iter().filter(|token| !token.digits).map(|token| token.folded.clone()));
        self.dates.extend(words::dates(text, &tokens).iter().map(|d| (d.month, d.day, d.year)));
        self.runs.extend(words::runs(&tokens).into_iter().map(|run| run.digits));
        for (index, token) in tokens.iter().enumerate() {
            if let Some((value, _)) = words::value_at(text, &tokens, index) {
                self.numbers.insert(plain(&value));
            }
            if let Some(day) = WEEKDAYS.iter().position(|day| *day == token.folded) {
                self.weekdays.insert(day);
            }
        }
    }

    /// Whether the sources show `claim`.
    pub(super) fn shows(&self, claim: &Claim) -> bool {
        match claim {
            Claim::Number(value) => {
                self.numbers.contains(value)
                    || (value.len() >= PART_DIGITS_MIN
                        && value.bytes().all(|digit| digit.is_ascii_digit())
                        && self.runs.iter().any(|run| run.contains(value.as_str())))
            }
            Claim::Date(month, day, year) => self.dates.iter().any(|(known_month, known_day, known_year)| {
                month == known_month
                    && day.is_none_or(|day| *known_day == Some(day))
                    && (year.is_none() || known_year.is_none() || year == known_year)
            }),
            Claim::Weekday(day) => {
                self.weekdays.contains(day)
                    || self.dates.iter().any(|date| matches!(date, (month, Some(on), Some(year)) if weekday(*year, *month, *on) == *day))
            }
            Claim::Name(word) => self.words.contains(word),
        }
    }
}

/// Monday is 0 (Sakamoto's method).
fn weekday(year: u32, month: u32, day: u32) -> usize {
    const OFFSETS: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
    let year = if month < 3 { year.saturating_sub(1) } else { year };
    let offset =
        usize::try_from(month).ok().and_then(|m| OFFSETS.get(m.saturating_sub(1))).copied().unwrap_or(0);
    let sunday_zero = (year + year / 4 - year / 100 + year / 400 + offset + day) % 7;
    usize::try_from((sunday_zero + 6) % 7).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsupported(text: &str, source: &str) -> Vec<Claim> {
        let evidence = Evidence::of(source);
        claims(text).into_iter().filter(|claim| !evidence.shows(claim)).collect()
    }

    #[test]
    fn a_claim_is_supported_however_its_source_says_it() {
        for (text, source) in [
            ("Dana Ortiz moved it to Dec 3.", "i'm dana ortiz, december third please"),
            ("The visit is on December third.", "2026-12-03"),
            ("It is on Thursday, Dec 3.", "2026-12-03"),
            ("She owes $1,200.50.", "the balance is 1200.50"),
            ("She ordered 42 units.", "forty two of them"),
            ("Account ending 0142.", "five five five oh one four two"),
            ("Dana's order waits.", "this is Dana"),
            ("One of the items is late.", "it is late"),
        ] {
            assert_eq!(unsupported(text, source), vec![], "{text} | {source}");
        }
    }

    #[test]
    fn a_claim_that_no_source_shows_is_named() {
        let source = "i'm dana and my order 4711 came on december third";
        for (text, claim) in [
            ("Peter is calling.", Claim::Name("peter".into())),
            ("The caller spoke with Dr. Ruiz.", Claim::Name("ruiz".into())),
            ("It came on Dec 4.", Claim::Date(12, Some(4), None)),
            ("It came on a Friday.", Claim::Weekday(4)),
            ("Order 4712 is late.", Claim::Number("4712".into())),
            ("She has two orders.", Claim::Number("2".into())),
        ] {
            assert!(unsupported(text, source).contains(&claim), "{text}: {:?}", unsupported(text, source));
        }
    }
}
