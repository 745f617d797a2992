//! The rules behind [`redact`](super::redact): which digits are a card, a code, a person's
//! number. Each rule looks at the number, at the 60 characters before it, and at the
//! question that it answers.

use super::{Class, Finding, Level, PriorTurns};
use crate::words::{self, DateMention, Run, Token};

/// Characters before a number in which a context word counts. Longer takes out harmless
/// numbers, shorter misses "the security code on the back of it, let me see, is".
const CONTEXT_BEFORE: usize = 60;

/// Characters after a number in which "… is my PIN" counts.
const CONTEXT_AFTER: usize = 30;

/// Longest card number, and so the longest code that is taken for one beside a context word.
const CODE_DIGITS_MAX: usize = 12;

/// Bytes of magnetic-stripe data after the card number, at most (track 1 holds 79 in all).
const TRACK_TAIL_MAX: usize = 120;

/// First digits of a card number (a range of prefixes of equal length) and its lengths.
const ISSUERS: [(u32, u32, &[usize]); 14] = [
    (4, 4, &[13, 16, 19]),
    (34, 34, &[15]),
    (37, 37, &[15]),
    (51, 55, &[16]),
    (2221, 2720, &[16]),
    (6011, 6011, &[16, 17, 18, 19]),
    (644, 649, &[16, 17, 18, 19]),
    (65, 65, &[16, 17, 18, 19]),
    (300, 305, &[14]),
    (36, 36, &[14]),
    (38, 38, &[14]),
    (39, 39, &[14]),
    (3528, 3589, &[16, 17, 18, 19]),
    (62, 62, &[16, 17, 18, 19]),
];

/// Context phrases, as words. Single letters in a row count as one word ("c v v").
type Phrases = &'static [&'static [&'static str]];

const CVV: Phrases = &[
    &["cvv"],
    &["cvc"],
    &["cvn"],
    &["csc"],
    &["cv"],
    &["cid"],
    &["security", "code"],
    &["card", "code"],
    &["verification", "code"],
    &["verification", "value"],
    &["verification", "number"],
    &["card", "verification"],
    &["digit", "code"],
    &["digits", "on"],
    &["on", "the", "back"],
    &["back", "of", "the", "card"],
    &["back", "of", "your", "card"],
    &["back", "of", "my", "card"],
    &["back", "of", "it"],
    &["signature", "strip"],
];

const PIN: Phrases = &[
    &["pin"],
    &["pins"],
    &["passcode"],
    &["pass", "code"],
    &["access", "code"],
    &["password"],
    &["otp"],
    &["one", "time", "code"],
    &["personal", "identification"],
];

const SSN: Phrases = &[&["ssn"], &["social"], &["socials"]];
const LAST_FOUR: Phrases = &[&["last", "four"], &["last"], &["ends", "in"], &["ending", "in"]];
const BIRTH: Phrases = &[&["born"], &["birth"], &["birthday"], &["birthdate"], &["dob"]];
const LICENCE: Phrases = &[&["licence"], &["license"], &["driver"], &["drivers"]];
const BANK: Phrases = &[&["routing"], &["iban"], &["bank"], &["account", "number"], &["sort", "code"]];
const RECORD: Phrases = &[&["mrn"], &["medical", "record"], &["record", "number"], &["patient", "number"]];
const PHONE: Phrases =
    &[&["phone"], &["call", "me"], &["reach", "me"], &["mobile"], &["cell"], &["telephone"]];
const POSTAL: Phrases = &[&["zip"], &["postal"], &["postcode"], &["zipcode"]];

const STREETS: [&str; 24] = [
    "street",
    "st",
    "avenue",
    "ave",
    "road",
    "rd",
    "boulevard",
    "blvd",
    "lane",
    "ln",
    "drive",
    "dr",
    "court",
    "ct",
    "place",
    "pl",
    "terrace",
    "way",
    "highway",
    "hwy",
    "parkway",
    "circle",
    "square",
    "close",
];

const DOMAINS: [&str; 16] = [
    "com", "org", "net", "edu", "gov", "io", "co", "uk", "us", "de", "fr", "es", "ca", "au", "info",
    "example",
];

/// Everything of `level` in `text`, in order, without overlap.
pub(super) fn find(text: &str, level: Level, prior: &PriorTurns<'_>) -> Vec<Finding> {
    let tokens = words::tokens(text);
    let runs = words::runs(&tokens);
    let question = prior.question.map(Question::of).unwrap_or_default();
    let scene = Scene { text, tokens: &tokens, runs: &runs, question, payment: prior.payment };
    let mut out: Vec<Finding> = runs.iter().filter_map(|run| scene.payment_data(run)).collect();
    if level >= Level::R2Pii {
        let dates = words::dates(text, &tokens);
        out.extend(runs.iter().filter_map(|run| scene.personal_number(run)));
        out.extend(dates.iter().filter_map(|date| scene.date(date, level)));
        out.extend(scene.emails());
        out.extend(scene.addresses());
    }
    merged(out)
}

/// What the voice agent's last words ask for.
#[derive(Clone, Copy, Default)]
struct Question {
    code: Option<Class>,
    social: bool,
    birth: bool,
    licence: bool,
    bank: bool,
    record: bool,
    phone: bool,
    postal: bool,
}

impl Question {
    fn of(text: &str) -> Self {
        let words = context_words(text, &words::tokens(text));
        Self {
            code: code_class(&words),
            social: says(&words, SSN),
            birth: says(&words, BIRTH),
            licence: says(&words, LICENCE),
            bank: says(&words, BANK),
            record: says(&words, RECORD),
            phone: says(&words, PHONE),
            postal: says(&words, POSTAL),
        }
    }
}

fn code_class(words: &[String]) -> Option<Class> {
    if says(words, CVV) {
        Some(Class::Cvv)
    } else if says(words, PIN) {
        Some(Class::Pin)
    } else {
        None
    }
}

/// Whether a voice agent's turn asks for a code that must never be kept.
pub(super) fn asks_for_code(text: &str) -> bool {
    Question::of(text).code.is_some()
}

struct Scene<'s> {
    text: &'s str,
    tokens: &'s [Token],
    runs: &'s [Run],
    question: Question,
    payment: bool,
}

impl Scene<'_> {
    fn payment_data(&self, run: &Run) -> Option<Finding> {
        let finding = |class| Some(Finding { range: run.range.clone(), class });
        let length = run.digits.len();
        if holds_card(&run.digits) {
            // The whole run goes: what follows a card number without a word is its expiry
            // and its code.
            return match self.track_end(run) {
                Some(end) => Some(Finding { range: run.range.start..end, class: Class::Track }),
                None => finding(Class::Pan),
            };
        }
        if self.payment && length >= 7 {
            // Mis-heard digits break the Luhn check, so it is not asked for here.
            return finding(Class::Pan);
        }
        if self.payment && length >= 3 {
            return finding(Class::Cvv);
        }
        if let Some(class) = self.question.code {
            // A bare answer, perhaps in several breaths: all of its digits go.
            let digits: usize = self.runs.iter().map(|run| run.digits.len()).sum();
            if digits >= 3 && length <= CODE_DIGITS_MAX {
                return finding(class);
            }
        }
        if !(3..=CODE_DIGITS_MAX).contains(&length) {
            return None;
        }
        let before = self.before(run.range.start);
        let code = code_class(&before).or_else(|| self.named_after(run));
        match code {
            Some(Class::Pin) if length < 4 => None,
            Some(class) => finding(class),
            // Beside a card number, a short number is its expiry or its code.
            None if length <= 4 && before.iter().any(|word| word == CARD_TAKEN_OUT) => finding(Class::Cvv),
            None => None,
        }
    }

    /// Where the stripe data that begins with this card number ends, if it is stripe data.
    fn track_end(&self, run: &Run) -> Option<usize> {
        let rest = self.text.get(run.range.start..)?;
        let sentinel = rest.find(['=', '^'])?;
        // A digit run joins over '=', so the separator can lie inside the run or right behind it.
        if run.range.start + sentinel > run.range.end + 1 {
            return None;
        }
        let tail = rest.find('?').filter(|tail| *tail < TRACK_TAIL_MAX).map(|tail| run.range.start + tail);
        let digits_after = self
            .runs
            .iter()
            .filter(|other| {
                other.range.start >= run.range.end && other.range.start < run.range.end + TRACK_TAIL_MAX
            })
            .map(|other| other.range.end)
            .max();
        Some(tail.into_iter().chain(digits_after).max().unwrap_or(run.range.end).max(run.range.end))
    }

    /// "123 is my security code": the name of the code follows it.
    fn named_after(&self, run: &Run) -> Option<Class> {
        let rest = self.text.get(run.range.end..)?;
        let near: usize = rest.chars().take(CONTEXT_AFTER).map(char::len_utf8).sum();
        let near = rest.get(..near)?;
        let tokens = words::tokens(near);
        let next_number = words::runs(&tokens).first().map_or(near.len(), |next| next.range.start);
        let words = context_words(
            near,
            &tokens.into_iter().filter(|t| t.range.end <= next_number).collect::<Vec<_>>(),
        );
        let names = words.first().is_some_and(|word| matches!(word.as_str(), "is" | "s" | "for" | "as"));
        names.then(|| code_class(&words)).flatten()
    }

    fn personal_number(&self, run: &Run) -> Option<Finding> {
        let length = run.digits.len();
        let before = self.before(run.range.start);
        let class = if length == 9
            && valid_ssn(&run.digits)
            && (self.is(SSN, &before, self.question.social) || self.three_two_four(run))
        {
            Class::Ssn
        } else if length == 4
            && self.is(SSN, &before, self.question.social)
            && (self.question.social || says(&before, LAST_FOUR))
        {
            Class::Ssn4
        } else if length >= 4 && self.is(BIRTH, &before, self.question.birth) {
            Class::Dob
        } else if length >= 4 && self.is(RECORD, &before, self.question.record) {
            Class::Mrn
        } else if length >= 4 && self.is(LICENCE, &before, self.question.licence) {
            Class::DriverLicence
        } else if length >= 6 && self.is(BANK, &before, self.question.bank) {
            Class::Bank
        } else if self.is_phone(run) || (length >= 7 && self.is(PHONE, &before, self.question.phone)) {
            Class::Phone
        } else if (length == 5 || length == 9) && self.is(POSTAL, &before, self.question.postal) {
            Class::Address
        } else {
            return None;
        };
        Some(Finding { range: run.range.clone(), class })
    }

    fn is(&self, phrases: Phrases, before: &[String], asked: bool) -> bool {
        asked || says(before, phrases)
    }

    fn three_two_four(&self, run: &Run) -> bool {
        let lengths: Vec<usize> = self
            .tokens
            .get(run.tokens.clone())
            .unwrap_or_default()
            .iter()
            .map(|token| if token.digits { token.folded.len() } else { 0 })
            .collect();
        lengths == [3, 2, 4]
    }

    fn is_phone(&self, run: &Run) -> bool {
        let plus = self.text.get(..run.range.start).is_some_and(|before| before.ends_with('+'));
        let national = match run.digits.len() {
            11 => run.digits.strip_prefix('1'),
            10 => Some(run.digits.as_str()),
            _ => None,
        };
        // North American numbers: neither the area code nor the exchange begins with 0 or 1.
        let north_american = national.is_some_and(|digits| {
            let starts = |at: usize| digits.as_bytes().get(at).is_some_and(|digit| *digit >= b'2');
            starts(0) && starts(3)
        });
        north_american || (plus && (7..=15).contains(&run.digits.len()))
    }

    fn date(&self, date: &DateMention, level: Level) -> Option<Finding> {
        let birth = self.question.birth || says(&self.before(date.range.start), BIRTH);
        let class = match (birth, level) {
            (true, _) => Class::Dob,
            (false, Level::R3Phi) if date.day.is_some() => Class::Date,
            (false, Level::R0None | Level::R1Pci | Level::R2Pii | Level::R3Phi) => return None,
        };
        Some(Finding { range: date.range.clone(), class })
    }

    fn emails(&self) -> Vec<Finding> {
        let mut out = Vec::new();
        let local = |letter: char| letter.is_alphanumeric() || matches!(letter, '.' | '_' | '%' | '+' | '-');
        for (at, _) in self.text.match_indices('@') {
            let before = self.text.get(..at).unwrap_or_default();
            let after = self.text.get(at + 1..).unwrap_or_default();
            let start =
                before.char_indices().rev().take_while(|(_, c)| local(*c)).last().map_or(at, |(i, _)| i);
            let length: usize = after
                .chars()
                .take_while(|c| c.is_alphanumeric() || matches!(c, '.' | '-'))
                .map(char::len_utf8)
                .sum();
            if start < at && after.get(..length).is_some_and(|domain| domain.trim_matches('.').contains('.'))
            {
                out.push(Finding { range: start..at + 1 + length, class: Class::Email });
            }
        }
        out.extend(self.spoken_emails());
        out
    }

    /// "dana dot ortiz at example dot com"
    fn spoken_emails(&self) -> Vec<Finding> {
        let word = |index: usize| self.tokens.get(index).map_or("", |token| token.folded.as_str());
        let joins = |text: &str| matches!(text, "dot" | "underscore" | "dash" | "hyphen" | "plus");
        let mut out = Vec::new();
        for at in 1..self.tokens.len() {
            if word(at) != "at" {
                continue;
            }
            let mut end = at + 1;
            while end + 2 < self.tokens.len() && word(end + 1) == "dot" && !DOMAINS.contains(&word(end + 2)) {
                end += 2;
            }
            let domain = (word(end + 1) == "dot" && DOMAINS.contains(&word(end + 2)))
                .then_some(end + 2)
                // "at example.com" as a recogniser may write it.
                .or_else(|| {
                    (words::gap(self.text, self.tokens, end) == "." && DOMAINS.contains(&word(end + 1)))
                        .then_some(end + 1)
                });
            let Some(last) = domain else { continue };
            let mut first = at - 1;
            while first >= 2 && joins(word(first - 1)) {
                first -= 2;
            }
            if let (Some(first), Some(last)) = (self.tokens.get(first), self.tokens.get(last)) {
                out.push(Finding { range: first.range.start..last.range.end, class: Class::Email });
            }
        }
        out
    }

    /// A house number, one to three words, and a kind of street.
    fn addresses(&self) -> Vec<Finding> {
        let mut out = Vec::new();
        for run in self.runs.iter().filter(|run| run.digits.len() <= 5) {
            let street = (run.tokens.end + 1..run.tokens.end + 4).find(|index| {
                self.tokens.get(*index).is_some_and(|token| STREETS.contains(&token.folded.as_str()))
            });
            if let Some(last) = street.and_then(|index| self.tokens.get(index)) {
                out.push(Finding { range: run.range.start..last.range.end, class: Class::Address });
            }
        }
        out
    }

    /// The words in the characters before `start`.
    fn before(&self, start: usize) -> Vec<String> {
        let all = self.text.get(..start).unwrap_or_default();
        let length: usize = all.chars().rev().take(CONTEXT_BEFORE).map(char::len_utf8).sum();
        let near = all.get(start.saturating_sub(length)..).unwrap_or_default();
        context_words(near, &words::tokens(near))
    }
}

/// Stands for `[PAN]` among context words; no word that is spoken equals it.
const CARD_TAKEN_OUT: &str = "[pan]";

/// The words of a context, single letters joined. A class in brackets is our own mark: only
/// the mark of a card number still means something.
fn context_words(text: &str, tokens: &[Token]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut spelled = false;
    for token in tokens.iter().filter(|token| !token.digits) {
        let marked = text.get(..token.range.start).is_some_and(|before| before.ends_with('['))
            && text.get(token.range.end..).is_some_and(|after| after.starts_with(']'));
        if marked {
            spelled = false;
            if token.folded == "pan" {
                out.push(CARD_TAKEN_OUT.to_owned());
            }
            continue;
        }
        let letter = token.folded.chars().count() == 1;
        match out.last_mut() {
            Some(last) if letter && spelled => last.push_str(&token.folded),
            Some(_) | None => out.push(token.folded.clone()),
        }
        spelled = letter;
    }
    out
}

fn says(words: &[String], phrases: Phrases) -> bool {
    phrases.iter().any(|phrase| {
        words.windows(phrase.len()).any(|window| window.iter().zip(*phrase).all(|(word, part)| word == part))
    })
}

/// Whether some part of `digits` is a card number: issuer, length and Luhn check.
fn holds_card(digits: &str) -> bool {
    (0..digits.len()).any(|start| {
        let rest = digits.get(start..).unwrap_or_default();
        ISSUERS.iter().any(|(low, high, lengths)| {
            let prefix = low.to_string().len();
            let issued = rest
                .get(..prefix)
                .and_then(|prefix| prefix.parse::<u32>().ok())
                .is_some_and(|prefix| (*low..=*high).contains(&prefix));
            issued && lengths.iter().any(|length| rest.get(..*length).is_some_and(luhn))
        })
    })
}

fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit.saturating_sub(b'0'));
            match place % 2 {
                1 if digit > 4 => digit * 2 - 9,
                1 => digit * 2,
                _ => digit,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn valid_ssn(digits: &str) -> bool {
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    !matches!(part(0, 3), "000" | "666")
        && !digits.starts_with('9')
        && part(3, 5) != "00"
        && part(5, 9) != "0000"
}

/// In order, overlaps joined under the class of higher precedence.
fn merged(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_unstable_by_key(|finding| (finding.range.start, finding.class));
    let mut out: Vec<Finding> = Vec::new();
    for finding in findings {
        match out.last_mut() {
            Some(last) if finding.range.start < last.range.end => {
                last.range.end = last.range.end.max(finding.range.end);
                last.class = last.class.min(finding.class);
            }
            Some(_) | None => out.push(finding),
        }
    }
    out
}
