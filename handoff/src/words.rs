//! Words, numbers and dates in spoken or written English, with their places in the text.
//! Speech recognition writes "forty four" where a form would hold 44; redaction and
//! grounding both need the digits behind the words. The word lists are data, one table per
//! meaning. Nothing here decides what a number means.

use core::ops::Range;

/// A maximal run of letters, or of decimal digits. Everything else only separates.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Bytes of the text.
    pub(crate) range: Range<usize>,
    /// The letters in lower case, or the digits as ASCII.
    pub(crate) folded: String,
    /// Digits, not letters.
    pub(crate) digits: bool,
    /// Starts with an upper-case letter.
    pub(crate) capital: bool,
}

/// Zeros of the decimal digit blocks that recognisers and keyboards produce: ASCII,
/// Arabic-Indic, extended Arabic-Indic, Devanagari, full width.
const ZEROS: [char; 5] = ['0', '\u{0660}', '\u{06F0}', '\u{0966}', '\u{FF10}'];

const UNITS: [(&str, &str); 13] = [
    ("zero", "0"),
    ("oh", "0"),
    ("o", "0"),
    ("nought", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
];

const TEENS: [(&str, &str); 10] = [
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("thirteen", "13"),
    ("fourteen", "14"),
    ("fifteen", "15"),
    ("sixteen", "16"),
    ("seventeen", "17"),
    ("eighteen", "18"),
    ("nineteen", "19"),
];

const TENS: [(&str, &str); 8] = [
    ("twenty", "2"),
    ("thirty", "3"),
    ("forty", "4"),
    ("fifty", "5"),
    ("sixty", "6"),
    ("seventy", "7"),
    ("eighty", "8"),
    ("ninety", "9"),
];

/// Words between two digits that do not end a number.
const FILLERS: [&str; 16] = [
    "uh", "um", "er", "erm", "hm", "hmm", "mm", "and", "dash", "hyphen", "space", "then", "ok", "okay",
    "yeah", "so",
];

const ORDINALS: [(&str, u32); 20] = [
    ("first", 1),
    ("second", 2),
    ("third", 3),
    ("fourth", 4),
    ("fifth", 5),
    ("sixth", 6),
    ("seventh", 7),
    ("eighth", 8),
    ("ninth", 9),
    ("tenth", 10),
    ("eleventh", 11),
    ("twelfth", 12),
    ("thirteenth", 13),
    ("fourteenth", 14),
    ("fifteenth", 15),
    ("sixteenth", 16),
    ("seventeenth", 17),
    ("eighteenth", 18),
    ("nineteenth", 19),
    ("twentieth", 20),
];

const MONTHS: [(&str, u32); 24] = [
    ("january", 1),
    ("jan", 1),
    ("february", 2),
    ("feb", 2),
    ("march", 3),
    ("mar", 3),
    ("april", 4),
    ("apr", 4),
    ("may", 5),
    ("june", 6),
    ("jun", 6),
    ("july", 7),
    ("jul", 7),
    ("august", 8),
    ("aug", 8),
    ("september", 9),
    ("sep", 9),
    ("sept", 9),
    ("october", 10),
    ("oct", 10),
    ("november", 11),
    ("nov", 11),
    ("december", 12),
    ("dec", 12),
];

/// Month names that are ordinary words too: a month only beside a day.
const AMBIGUOUS_MONTHS: [&str; 5] = ["may", "march", "mar", "jan", "sep"];

fn find<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

fn decimal(letter: char) -> Option<char> {
    ZEROS.iter().find_map(|zero| {
        let offset = u32::from(letter).checked_sub(u32::from(*zero))?;
        char::from_digit(offset, 10)
    })
}

/// Cuts `text` into words and digit groups.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    for (start, letter) in text.char_indices() {
        let end = start + letter.len_utf8();
        let digit = decimal(letter);
        if digit.is_none() && !letter.is_alphabetic() {
            continue;
        }
        if let Some(last) = out.last_mut()
            && last.range.end == start
            && last.digits == digit.is_some()
        {
            last.range.end = end;
            match digit {
                Some(digit) => last.folded.push(digit),
                None => last.folded.extend(letter.to_lowercase()),
            }
            continue;
        }
        out.push(Token {
            range: start..end,
            folded: digit.map_or_else(|| letter.to_lowercase().collect(), String::from),
            digits: digit.is_some(),
            capital: letter.is_uppercase(),
        });
    }
    out
}

/// What lies between two neighbouring tokens.
pub(crate) fn gap<'t>(text: &'t str, tokens: &[Token], index: usize) -> &'t str {
    let from = tokens.get(index).map_or(0, |token| token.range.end);
    let to = tokens.get(index + 1).map_or(text.len(), |token| token.range.start);
    text.get(from..to).unwrap_or_default()
}

/// A number as it was spoken or written, digit by digit: "four one double one, um, 1 1".
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// From the first digit or digit word to the last, fillers between them included.
    pub(crate) range: Range<usize>,
    /// The digits, fillers and separators removed.
    pub(crate) digits: String,
    /// Index of the first token, and one past the last.
    pub(crate) tokens: Range<usize>,
    /// At least one digit is not a bare "oh", which is an interjection as often as a zero.
    certain: bool,
}

fn unit(tokens: &[Token], index: usize) -> Option<&'static str> {
    tokens.get(index).filter(|token| !token.digits).and_then(|token| find(&UNITS, &token.folded))
}

/// The digits that begin at token `index`, and how many tokens they take.
fn digits_at(tokens: &[Token], index: usize, in_run: bool) -> Option<(String, usize)> {
    let token = tokens.get(index)?;
    if token.digits {
        return Some((token.folded.clone(), 1));
    }
    if let Some(digit) = unit(tokens, index) {
        return Some((digit.to_owned(), 1));
    }
    if let Some(teen) = find(&TEENS, &token.folded) {
        return Some((teen.to_owned(), 1));
    }
    if let Some(ten) = find(&TENS, &token.folded) {
        return Some(match unit(tokens, index + 1).filter(|digit| *digit != "0") {
            Some(digit) => (format!("{ten}{digit}"), 2),
            None => (format!("{ten}0"), 1),
        });
    }
    let times = match token.folded.as_str() {
        "double" => 2,
        "triple" | "treble" => 3,
        "hundred" if in_run => return Some(("00".to_owned(), 1)),
        "thousand" if in_run => return Some(("000".to_owned(), 1)),
        _ => return None,
    };
    let next = tokens.get(index + 1)?;
    let digit =
        if next.digits && next.folded.len() == 1 { next.folded.as_str() } else { unit(tokens, index + 1)? };
    Some((digit.repeat(times), 2))
}

/// Every number in `tokens`, left to right. Separators and fillers do not end a number; any
/// other word does.
pub(crate) fn runs(tokens: &[Token]) -> Vec<Run> {
    let mut out = Vec::new();
    let mut open: Option<Run> = None;
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        if let Some((digits, taken)) = digits_at(tokens, index, open.is_some()) {
            let end = tokens.get(index + taken - 1).map_or(token.range.end, |last| last.range.end);
            let certain = token.digits || !matches!(token.folded.as_str(), "oh" | "o");
            match open.as_mut() {
                Some(run) => {
                    run.digits.push_str(&digits);
                    run.range.end = end;
                    run.tokens.end = index + taken;
                    run.certain |= certain;
                }
                None => {
                    open = Some(Run {
                        range: token.range.start..end,
                        digits,
                        tokens: index..index + taken,
                        certain,
                    });
                }
            }
            index += taken;
            continue;
        }
        if !is_filler(&token.folded) {
            out.extend(open.take());
        }
        index += 1;
    }
    out.extend(open);
    out.retain(|run| run.certain);
    out
}

/// A word that may stand inside a spoken number without ending it.
pub(crate) fn is_filler(word: &str) -> bool {
    FILLERS.contains(&word)
}

/// A calendar date as far as it is stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DateMention {
    /// Bytes of the text.
    pub(crate) range: Range<usize>,
    /// Index of the first token, and one past the last.
    pub(crate) tokens: Range<usize>,
    /// 1 to 12.
    pub(crate) month: u32,
    /// 1 to 31.
    pub(crate) day: Option<u32>,
    /// Four digits.
    pub(crate) year: Option<u32>,
}

fn number(token: Option<&Token>) -> Option<u32> {
    token.filter(|token| token.digits && token.folded.len() <= 4)?.folded.parse().ok()
}

/// A day of the month at token `index`: "3", "3rd", "third", "twenty first", "twenty one".
fn day_at(tokens: &[Token], index: usize) -> Option<(u32, usize)> {
    let token = tokens.get(index)?;
    let (day, taken) = if token.digits {
        let suffixed = tokens.get(index + 1).is_some_and(|next| {
            next.range.start == token.range.end && matches!(next.folded.as_str(), "st" | "nd" | "rd" | "th")
        });
        (number(Some(token)).filter(|_| token.folded.len() <= 2)?, if suffixed { 2 } else { 1 })
    } else if let Some(day) = find(&ORDINALS, &token.folded) {
        (day, 1)
    } else if token.folded == "thirtieth" {
        (30, 1)
    } else if let Some(tens) = find(&TENS, &token.folded).filter(|tens| matches!(*tens, "2" | "3")) {
        let base = if tens == "2" { 20 } else { 30 };
        let next = tokens.get(index + 1)?;
        let unit = find(&ORDINALS, &next.folded)
            .filter(|day| *day < 10)
            .or_else(|| find(&UNITS, &next.folded).and_then(|digit| digit.parse().ok()))?;
        (base + unit, 2)
    } else {
        let digits = find(&UNITS, &token.folded).or_else(|| find(&TEENS, &token.folded))?;
        (digits.parse().ok()?, 1)
    };
    (1..=31).contains(&day).then_some((day, taken))
}

/// A year at token `index`: "1980", "nineteen eighty", "twenty twenty six", "two thousand five".
fn year_at(tokens: &[Token], index: usize) -> Option<(u32, usize)> {
    if let Some(year) = number(tokens.get(index)).filter(|year| (1900..=2100).contains(year)) {
        return Some((year, 1));
    }
    let century = match tokens.get(index)?.folded.as_str() {
        "nineteen" => "19",
        "twenty" => "20",
        "two" if tokens.get(index + 1).is_some_and(|next| next.folded == "thousand") => {
            let tail = digits_at(tokens, index + 2, false).and_then(|(digits, taken)| {
                digits.parse::<u32>().ok().filter(|tail| *tail < 100).map(|tail| (2000 + tail, 2 + taken))
            });
            return Some(tail.unwrap_or((2000, 2)));
        }
        _ => return None,
    };
    let (digits, taken) = digits_at(tokens, index + 1, false)?;
    let year = format!("{century}{digits}");
    (year.len() == 4).then(|| year.parse().ok()).flatten().map(|year| (year, 1 + taken))
}

/// A date in digits at token `index`: 2026-12-03, 12/3/2026, 12/3, 3.12.2026.
fn written_date(text: &str, tokens: &[Token], index: usize) -> Option<(u32, u32, Option<u32>, usize)> {
    let first = number(tokens.get(index))?;
    let second = number(tokens.get(index + 1))?;
    let third = number(tokens.get(index + 2));
    let separator = gap(text, tokens, index);
    let again = gap(text, tokens, index + 1) == separator;
    let year_first = tokens.get(index).is_some_and(|token| token.folded.len() == 4);
    let (month, day, year, taken) = match (separator, third.filter(|_| again)) {
        ("-" | "/", Some(third)) if year_first => (second, third, Some(first), 3),
        ("." | "-", Some(third)) if !year_first && first > 12 => (second, first, Some(third), 3),
        (".", Some(third)) => (second, first, Some(third), 3),
        ("/" | "-", Some(third)) if first > 12 => (second, first, Some(third), 3),
        ("/" | "-", Some(third)) => (first, second, Some(third), 3),
        ("/", None) if first > 12 => (second, first, None, 2),
        ("/", None) => (first, second, None, 2),
        _ => return None,
    };
    let year = year.map(|year| match year {
        0..=49 => 2000 + year,
        50..=99 => 1900 + year,
        _ => year,
    });
    let plausible = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && year.is_none_or(|year| (1900..=2100).contains(&year));
    plausible.then_some((month, day, year, taken))
}

/// Every date in `text`, left to right, without overlap.
pub(crate) fn dates(text: &str, tokens: &[Token]) -> Vec<DateMention> {
    let mut out = Vec::new();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let found = date_at(text, tokens, index);
        let Some((month, day, year, taken)) = found else {
            index += 1;
            continue;
        };
        let end = tokens.get(index + taken - 1).map_or(token.range.end, |last| last.range.end);
        out.push(DateMention {
            range: token.range.start..end,
            tokens: index..index + taken,
            month,
            day,
            year,
        });
        index += taken;
    }
    out
}

type DateParts = (u32, Option<u32>, Option<u32>, usize);

fn date_at(text: &str, tokens: &[Token], index: usize) -> Option<DateParts> {
    if let Some((month, day, year, taken)) = written_date(text, tokens, index) {
        return Some((month, Some(day), year, taken));
    }
    let with_year = |month: u32, day: Option<u32>, taken: usize| -> DateParts {
        match year_at(tokens, index + taken) {
            Some((year, more)) => (month, day, Some(year), taken + more),
            None => (month, day, None, taken),
        }
    };
    let token = tokens.get(index)?;
    if let Some(month) = find(&MONTHS, &token.folded) {
        let the = usize::from(tokens.get(index + 1).is_some_and(|next| next.folded == "the"));
        let month_only = !AMBIGUOUS_MONTHS.contains(&token.folded.as_str()) && token.folded.len() > 3;
        return match day_at(tokens, index + 1 + the) {
            Some((day, taken)) => Some(with_year(month, Some(day), 1 + the + taken)),
            None if month_only => Some(with_year(month, None, 1)),
            None => None,
        };
    }
    let (day, taken) = day_at(tokens, index)?;
    let of = usize::from(tokens.get(index + taken).is_some_and(|next| next.folded == "of"));
    let month = find(&MONTHS, &tokens.get(index + taken + of)?.folded)?;
    // "two may" is a day before a month only when it is marked as one.
    let ambiguous = tokens
        .get(index + taken + of)
        .is_some_and(|token| AMBIGUOUS_MONTHS.contains(&token.folded.as_str()) && !token.capital);
    (of == 1 || !ambiguous).then(|| with_year(month, Some(day), taken + of + 1))
}

/// The value of the number that begins at token `index` ("two hundred and fifty", "42",
/// "1,200.50"), as digits with an optional fraction, and how many tokens it takes.
pub(crate) fn value_at(text: &str, tokens: &[Token], index: usize) -> Option<(String, usize)> {
    let token = tokens.get(index)?;
    if token.digits {
        let mut value = token.folded.clone();
        let mut taken = 1;
        let mut fraction = false;
        while let Some(next) = tokens.get(index + taken).filter(|next| next.digits && !fraction) {
            match gap(text, tokens, index + taken - 1) {
                "," if next.folded.len() == 3 => value.push_str(&next.folded),
                "." => {
                    fraction = true;
                    let tail = next.folded.trim_end_matches('0');
                    if !tail.is_empty() {
                        value.push('.');
                        value.push_str(tail);
                    }
                }
                _ => break,
            }
            taken += 1;
        }
        return Some((value, taken));
    }
    spoken_value(tokens, index).map(|(value, taken)| (value.to_string(), taken))
}

fn spoken_value(tokens: &[Token], index: usize) -> Option<(u64, usize)> {
    let below_hundred = |at: usize| -> Option<(u64, usize)> {
        let token =
            tokens.get(at).filter(|token| !token.digits && !matches!(token.folded.as_str(), "oh" | "o"))?;
        let spoken = find(&UNITS, &token.folded)
            .or_else(|| find(&TEENS, &token.folded))
            .or_else(|| find(&TENS, &token.folded));
        spoken
            .and_then(|_| digits_at(tokens, at, false))
            .and_then(|(digits, taken)| Some((digits.parse().ok()?, taken)))
    };
    let (mut total, mut taken) = below_hundred(index)?;
    for (name, scale) in [("hundred", 100), ("thousand", 1_000)] {
        if tokens.get(index + taken).is_some_and(|next| next.folded == name) {
            total *= scale;
            taken += 1;
            let and = usize::from(tokens.get(index + taken).is_some_and(|next| next.folded == "and"));
            if let Some((rest, more)) = below_hundred(index + taken + and) {
                total += rest;
                taken += and + more;
            }
        }
    }
    Some((total, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(text: &str) -> Vec<String> {
        runs(&tokens(text)).into_iter().map(|run| run.digits).collect()
    }

    fn found(text: &str) -> Vec<(u32, Option<u32>, Option<u32>)> {
        dates(text, &tokens(text)).into_iter().map(|date| (date.month, date.day, date.year)).collect()
    }

    #[test]
    fn digit_words_join_into_the_number_that_was_meant() {
        for (text, digits) in [
            ("four one double one, um, 1 1", vec!["411111"]),
            ("forty four fourteen oh two", vec!["441402"]),
            ("forty-four twenty", vec!["4420"]),
            ("triple five dash zero one four two", vec!["5550142"]),
            ("five and then six", vec!["56"]),
            ("forty one hundred", vec!["4100"]),
            ("4111-1111 okay so 22", vec!["4111111122"]),
            ("five apples and six pears", vec!["5", "6"]),
            ("oh hello", vec![]),
            ("１２３ and ٤٥٦", vec!["123456"]),
            ("double trouble", vec![]),
        ] {
            assert_eq!(spoken(text), digits, "{text}");
        }
    }

    #[test]
    fn a_date_is_the_same_however_it_is_said() {
        let third = (12, Some(3), None);
        for text in ["Dec 3", "december third", "Dec. 3rd", "the third of December", "3 December", "12/3"] {
            assert_eq!(found(text), vec![third], "{text}");
        }
        for text in
            ["2026-12-03", "December 3, 2026", "12/3/2026", "3.12.2026", "December third twenty twenty six"]
        {
            assert_eq!(found(text), vec![(12, Some(3), Some(2026))], "{text}");
        }
        assert_eq!(found("April twenty first, nineteen eighty"), vec![(4, Some(21), Some(1980))]);
        assert_eq!(found("in December"), vec![(12, None, None)]);
        for text in ["you may go", "they march on", "3 of them", "1/2026", "99/99"] {
            assert_eq!(found(text), vec![], "{text}");
        }
    }

    #[test]
    fn a_value_is_the_same_in_words_and_in_digits() {
        for (text, value) in [
            ("42", "42"),
            ("forty two", "42"),
            ("1,200.50", "1200.5"),
            ("42.00", "42"),
            ("two hundred and fifty", "250"),
            ("three thousand", "3000"),
        ] {
            assert_eq!(
                value_at(text, &tokens(text), 0).map(|(value, _)| value),
                Some(value.to_owned()),
                "{text}"
            );
        }
    }
}
