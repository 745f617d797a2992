//! Redaction before anything leaves the process: a deterministic detector for payment and
//! authentication data, and light rules for personal data. It finds digits however they are
//! written or spoken; it finds no names and no diagnoses, which a rule cannot.
//! What it takes out it replaces by the class in brackets (`[PAN]`), never by part of the
//! value, and redacting twice changes nothing more.
//! Known miss: a number corrected half-way ("four, no wait, five"); the payment state of
//! [`holdback`] covers that by taking out every longer number.

pub mod holdback;
mod rules;

use core::fmt;
use core::ops::Range;

use serde::{Deserialize, Serialize};

/// What was found. Declared in order of precedence where two findings overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Class {
    /// Data of a card's magnetic stripe.
    Track,
    /// A card number.
    Pan,
    /// A card verification code.
    Cvv,
    /// A PIN, passcode or one-time code.
    Pin,
    /// A United States social security number.
    Ssn,
    /// Its last four digits.
    Ssn4,
    /// A date of birth.
    Dob,
    /// The number of a driving licence.
    DriverLicence,
    /// A bank account or routing number.
    Bank,
    /// A medical record number.
    Mrn,
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// A street address or postal code.
    Address,
    /// Any other date; identifying beside health information.
    Date,
}

impl Class {
    /// The name used in counts and in the replaced text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Track => "TRACK",
            Self::Pan => "PAN",
            Self::Cvv => "CVV",
            Self::Pin => "PIN",
            Self::Ssn => "SSN",
            Self::Ssn4 => "SSN4",
            Self::Dob => "DOB",
            Self::DriverLicence => "DRIVER_LICENCE",
            Self::Bank => "BANK",
            Self::Mrn => "MRN",
            Self::Email => "EMAIL",
            Self::Phone => "PHONE",
            Self::Address => "ADDRESS",
            Self::Date => "DATE",
        }
    }

    /// The lowest level that takes this class out.
    pub const fn level(self) -> Level {
        match self {
            Self::Track | Self::Pan | Self::Cvv | Self::Pin => Level::R1Pci,
            Self::Ssn
            | Self::Ssn4
            | Self::Dob
            | Self::DriverLicence
            | Self::Bank
            | Self::Mrn
            | Self::Email
            | Self::Phone
            | Self::Address => Level::R2Pii,
            Self::Date => Level::R3Phi,
        }
    }
}

impl AsRef<str> for Class {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much is taken out. Each level includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing; for the sealed store only.
    #[serde(rename = "R0_none")]
    R0None,
    /// Payment and authentication data. The least for transcripts, webhooks and logs.
    #[default]
    #[serde(rename = "R1_pci")]
    R1Pci,
    /// Personal data too.
    #[serde(rename = "R2_pii")]
    R2Pii,
    /// Health information too, as far as a rule can see it.
    #[serde(rename = "R3_phi")]
    R3Phi,
}

/// What went before a text and changes what its digits mean.
#[derive(Clone, Copy, Default)]
pub struct PriorTurns<'t> {
    /// What the voice agent said last: a question and its bare answer come in two turns.
    pub question: Option<&'t str>,
    /// The voice agent is taking a payment: every number of three digits or more goes.
    pub payment: bool,
}

/// A text after redaction, and what was taken out of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted {
    /// The text. Free of the classes of the level, but personal all the same.
    pub text: String,
    /// How many findings of each class, in the order of [`Class`]; none with zero.
    pub counts: Vec<(Class, u32)>,
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redacted").field("text", &"[redacted]").field("counts", &self.counts).finish()
    }
}

/// Takes payment and authentication data out of a text that stands alone.
pub fn pci(text: &str) -> Redacted {
    redact(text, Level::R1Pci, &PriorTurns::default())
}

/// Takes everything of `level` out of `text`.
pub fn redact(text: &str, level: Level, prior: &PriorTurns<'_>) -> Redacted {
    let mut pieces = [text.to_owned()];
    let counts = redact_joined(&mut pieces, level, prior);
    let [text] = pieces;
    Redacted { text, counts }
}

/// Whether [`redact`] would change `text`.
pub fn flags(text: &str, level: Level, prior: &PriorTurns<'_>) -> bool {
    level > Level::R0None && !rules::find(text, level, prior).is_empty()
}

/// One thing to take out of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    range: Range<usize>,
    class: Class,
}

/// Redacts several pieces of one utterance as if they were one text, so that a number is
/// found although a pause cut it. Taking one thing out can bring a context word nearer to
/// another, hence it repeats until nothing is found; each round removes at least one word.
fn redact_joined(pieces: &mut [String], level: Level, prior: &PriorTurns<'_>) -> Vec<(Class, u32)> {
    let mut counts: Vec<(Class, u32)> = Vec::new();
    if level == Level::R0None {
        return counts;
    }
    loop {
        let joined = pieces.join("\n");
        let findings = rules::find(&joined, level, prior);
        if findings.is_empty() {
            break;
        }
        for finding in &findings {
            match counts.iter_mut().find(|(class, _)| *class == finding.class) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => counts.push((finding.class, 1)),
            }
        }
        let mut start = 0;
        for piece in pieces.iter_mut() {
            let end = start + piece.len();
            *piece = replace(piece, start, &findings);
            start = end + 1;
        }
    }
    counts.sort_unstable();
    counts
}

/// The piece that begins at byte `offset` of the joined text, without the findings.
fn replace(piece: &str, offset: usize, findings: &[Finding]) -> String {
    let mut out = String::with_capacity(piece.len());
    let mut kept = 0;
    for finding in findings {
        let from = finding.range.start.saturating_sub(offset).max(kept).min(piece.len());
        let to = finding.range.end.saturating_sub(offset).min(piece.len());
        if to <= from || finding.range.end <= offset {
            continue;
        }
        out.push_str(piece.get(kept..from).unwrap_or_default());
        out.push('[');
        out.push_str(finding.class.as_str());
        out.push(']');
        kept = to;
    }
    out.push_str(piece.get(kept..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests;
