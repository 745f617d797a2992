//! The border of the `warmbridge` signals: JSON in, [`Signal`] out. It accepts what the
//! published schema (`schemas/agent-signals.schema.json`, JSON Schema 2020-12) accepts and
//! refuses the rest, naming the member and never its value. It guesses nothing: a member
//! of the wrong type is a fault even where we do not use it, because a producer that is
//! wrong there is wrong elsewhere.

use core::fmt;

use serde_json::{Map, Value};

use crate::pii::Pii;
use crate::signal::{
    ConfidenceOf, OnFail, PiiClass, RequestReason, Signal, SignalBody, Speaker, TransferRequest,
};

/// Largest signal in bytes: a turn of 8 000 four-byte characters fits, a file does not.
pub const SIGNAL_BYTES_MAX: usize = 64 * 1024;
/// Longest signal id in characters: an ULID or a platform's event id fits.
pub const SIGNAL_ID_CHARS_MAX: usize = 64;
/// Longest name of an intent, a topic or a tool: the payload's `intent.category`.
pub const NAME_CHARS_MAX: usize = 60;
/// Longest name of a field: the payload's `collected[].key`.
pub const FIELD_NAME_CHARS_MAX: usize = 48;
/// Longest value of a field: the payload's `collected[].value`.
pub const FIELD_VALUE_CHARS_MAX: usize = 500;
/// Most facts in one transfer request: the payload carries no more.
pub const REQUEST_FIELDS_MAX: usize = 40;
/// Longest free label (agent, session, outcome, message): enough to diagnose, too short to hoard.
const LABEL_CHARS_MAX: usize = 200;
/// Longest turn in characters: ten minutes of speech without a pause.
const TURN_CHARS_MAX: usize = 8_000;
/// Longest item id of a turn.
const TURN_ID_CHARS_MAX: usize = 128;
/// Longest BCP 47 tag that RFC 5646 section 4.4.1 expects implementations to hold.
const LANGUAGE_CHARS_MAX: usize = 35;
/// Longest run of digits kept in a name; longer ones are numbers of people, not names.
const NAME_DIGIT_RUN_MAX: u32 = 4;

/// A validated signal, and how much of it was not understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The signal.
    pub signal: Signal,
    /// Unknown members of `data`, ignored.
    pub ignored: u32,
}

/// What is wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not JSON.
    NotJson,
    /// The signal or the text is longer than its limit.
    TooLong,
    /// A required member is absent.
    Missing,
    /// The value has the wrong type.
    WrongType,
    /// The value is none of those allowed.
    NotAllowed,
    /// The number is outside its range.
    OutOfRange,
    /// The envelope has no such member.
    Unknown,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "is not JSON",
            Self::TooLong => "is too long",
            Self::Missing => "is missing",
            Self::WrongType => "has the wrong type",
            Self::NotAllowed => "is none of the allowed values",
            Self::OutOfRange => "is out of range",
            Self::Unknown => "is unknown",
        })
    }
}

/// A signal that was refused: the member at fault (`data.value`) and why, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signal: `{member}` {fault}")]
pub struct BadSignal {
    /// Path of the member, `$` for the signal itself.
    pub member: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl BadSignal {
    fn new(member: &str, fault: Fault) -> Self {
        Self { member: member.to_owned(), fault }
    }
}

impl Signal {
    /// Parses the bytes of one signal.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Parsed, BadSignal> {
        if bytes.len() > SIGNAL_BYTES_MAX {
            return Err(BadSignal::new("$", Fault::TooLong));
        }
        let json = serde_json::from_slice(bytes).map_err(|_| BadSignal::new("$", Fault::NotJson))?;
        Self::parse(&json)
    }

    /// Parses one signal that is JSON already (an element of a batch, a member of a frame).
    pub fn parse(json: &Value) -> Result<Parsed, BadSignal> {
        if weight(json, SIGNAL_BYTES_MAX) > SIGNAL_BYTES_MAX {
            return Err(BadSignal::new("$", Fault::TooLong));
        }
        let Value::Object(envelope) = json else {
            return Err(BadSignal::new("$", Fault::WrongType));
        };
        for member in envelope.keys() {
            if !ENVELOPE.contains(&member.as_str()) {
                return Err(BadSignal::new(&shown(member), Fault::Unknown));
            }
        }
        let mut outer = Members::new("", envelope);
        if outer.required("v")?.as_f64() != Some(1.0) {
            return Err(outer.fault("v", Fault::NotAllowed));
        }
        let id = outer.text("id", SIGNAL_ID_CHARS_MAX)?.ok_or_else(|| outer.fault("id", Fault::Missing))?;
        if id.is_empty() {
            return Err(outer.fault("id", Fault::NotAllowed));
        }
        for member in ["call", "ts", "source"] {
            outer.label(member)?;
        }
        if outer.integer("seq")?.is_some_and(|seq| seq < 0) {
            return Err(outer.fault("seq", Fault::OutOfRange));
        }
        let at_ms = outer.integer("at_ms")?.map(|millis| u64::try_from(millis).unwrap_or_default());
        let kind = outer.text("type", LABEL_CHARS_MAX)?.ok_or_else(|| outer.fault("type", Fault::Missing))?;
        let nothing = Map::new();
        let (data, given) = match envelope.get("data") {
            Some(Value::Object(data)) => (data, true),
            Some(_) => return Err(outer.fault("data", Fault::WrongType)),
            None => (&nothing, false),
        };
        let mut data = Members::new("data.", data);
        let body = body(&kind, &mut data).map_err(|bad| {
            // A kind that needs data and has none is told so, not told its first member.
            if !given && bad.fault == Fault::Missing { BadSignal::new("data", Fault::Missing) } else { bad }
        })?;
        let ignored = data.unread();
        Ok(Parsed { signal: Self { id, at_ms, body }, ignored })
    }
}

const ENVELOPE: [&str; 9] = ["v", "id", "call", "seq", "ts", "at_ms", "source", "type", "data"];

fn body(kind: &str, data: &mut Members<'_>) -> Result<SignalBody, BadSignal> {
    Ok(match kind {
        "call.started" => {
            data.label("model")?;
            SignalBody::CallStarted {
                agent: data.label("agent")?,
                session: data.label("session")?.map(Pii::new),
                language: data.cut("language", LANGUAGE_CHARS_MAX)?,
            }
        }
        "turn" => turn(data)?.1,
        "turn.partial" => SignalBody::TurnPartial { speaker: turn(data)?.0 },
        "intent" | "topic" => {
            let name = data.name(NAME_CHARS_MAX, Alphabet::Dotted)?;
            let confidence_pm = data.per_mille("confidence")?;
            data.label("turn")?;
            let regulated = data.flag("regulated")?.unwrap_or_default();
            if kind == "intent" {
                SignalBody::Intent { name, confidence_pm }
            } else {
                SignalBody::Topic { name, confidence_pm, regulated }
            }
        }
        "field" => SignalBody::Field {
            name: data.name(FIELD_NAME_CHARS_MAX, Alphabet::Plain)?,
            value: Pii::new(as_text(data.required("value")?)),
            confidence_pm: data.per_mille("confidence")?,
            verified: data.flag("verified")?.unwrap_or_default(),
            class: data.one_of("pii", &PII_CLASSES)?.unwrap_or_default(),
        },
        "sentiment" => {
            data.label("label")?;
            let score = data.number("score", -1.0, 1.0)?;
            let score = score.ok_or_else(|| data.fault("score", Fault::Missing))?;
            SignalBody::Sentiment { score_pm: per_mille(score) }
        }
        "confidence" => {
            let of = data.one_of("of", &CONFIDENCES)?.unwrap_or(ConfidenceOf::Resolution);
            let value_pm = data.per_mille("value")?.ok_or_else(|| data.fault("value", Fault::Missing))?;
            SignalBody::Confidence { value_pm, of }
        }
        "disclosure.made" => {
            data.label("text")?;
            data.label("turn")?;
            SignalBody::DisclosureMade { kind: data.word("kind", &DISCLOSURES)? }
        }
        "consent" => SignalBody::Consent { value: data.word("value", &CONSENTS)? },
        "dtmf" => SignalBody::Dtmf { digits: Pii::new(keys(data)?) },
        "tool" => {
            SignalBody::Tool { name: data.name(NAME_CHARS_MAX, Alphabet::Dotted)?, ok: data.flag("ok")? }
        }
        "transfer.request" => SignalBody::TransferRequest(request(data)?),
        "transfer.cancel" => SignalBody::TransferCancel,
        "resolved" => {
            data.label("summary")?;
            SignalBody::Resolved { outcome: data.label("outcome")?.map(Pii::new) }
        }
        "error" => SignalBody::Error { message: data.label("message")?.map(Pii::new) },
        "x" => SignalBody::X,
        _ => return Err(BadSignal::new("type", Fault::NotAllowed)),
    })
}

/// Who spoke, and the turn; an unfinished turn has the same members and keeps only the former.
fn turn(data: &mut Members<'_>) -> Result<(Speaker, SignalBody), BadSignal> {
    let speaker = data.one_of("speaker", &SPEAKERS)?.ok_or_else(|| data.fault("speaker", Fault::Missing))?;
    let text = data.text("text", TURN_CHARS_MAX)?.ok_or_else(|| data.fault("text", Fault::Missing))?;
    data.integer("start_ms")?;
    data.integer("end_ms")?;
    data.label("language")?;
    if data.optional("words").is_some_and(|words| !words.is_array()) {
        return Err(data.fault("words", Fault::WrongType));
    }
    let body = SignalBody::Turn {
        speaker,
        text: Pii::new(text),
        turn: data.cut("turn", TURN_ID_CHARS_MAX)?,
        confidence_pm: data.per_mille("confidence")?,
        interrupted: data.flag("interrupted")?.unwrap_or_default(),
    };
    Ok((speaker, body))
}

fn request(data: &mut Members<'_>) -> Result<TransferRequest, BadSignal> {
    let reason = data.one_of("reason", &REASONS)?.ok_or_else(|| data.fault("reason", Fault::Missing))?;
    data.one_of("urgency", &["low", "normal", "high", "emergency"].map(|word| (word, ())))?;
    data.one_of("whisper_by", &["edge", "agent", "none"].map(|word| (word, ())))?;
    let fields = match data.optional("fields") {
        None => Vec::new(),
        Some(Value::Object(members)) => members
            .iter()
            .filter_map(|(name, value)| {
                let name = named(name, FIELD_NAME_CHARS_MAX, Alphabet::Plain)?;
                Some((name, Pii::new(as_text(value))))
            })
            .take(REQUEST_FIELDS_MAX)
            .collect(),
        Some(_) => return Err(data.fault("fields", Fault::WrongType)),
    };
    Ok(TransferRequest {
        reason,
        queue: data.cut("queue", NAME_CHARS_MAX)?,
        target: data.label("target")?.map(Pii::new),
        summary: data.text("summary", 1_500)?.map(Pii::new),
        next_action: data.text("next_action", 500)?.map(Pii::new),
        caller_message: data.text("caller_message", 400)?.map(Pii::new),
        whisper: data.text("whisper", 600)?.map(Pii::new),
        on_fail: data.one_of("on_fail", &ON_FAIL)?,
        fields,
    })
}

fn keys(data: &mut Members<'_>) -> Result<String, BadSignal> {
    let digits = data.text("digits", 64)?.ok_or_else(|| data.fault("digits", Fault::Missing))?;
    let are_keys = digits.chars().all(|key| matches!(key, '0'..='9' | 'A'..='D' | '*' | '#'));
    if digits.is_empty() || !are_keys {
        return Err(data.fault("digits", Fault::NotAllowed));
    }
    Ok(digits)
}

/// The members of one object, read by name; what is never read is unknown.
struct Members<'a> {
    path: &'static str,
    members: &'a Map<String, Value>,
    read: Vec<&'static str>,
}

impl<'a> Members<'a> {
    fn new(path: &'static str, members: &'a Map<String, Value>) -> Self {
        Self { path, members, read: Vec::new() }
    }

    fn fault(&self, member: &str, fault: Fault) -> BadSignal {
        BadSignal { member: format!("{}{member}", self.path), fault }
    }

    fn optional(&mut self, member: &'static str) -> Option<&'a Value> {
        self.read.push(member);
        self.members.get(member)
    }

    fn required(&mut self, member: &'static str) -> Result<&'a Value, BadSignal> {
        self.optional(member).ok_or_else(|| self.fault(member, Fault::Missing))
    }

    /// A text that is refused when it is longer than `chars_max`.
    fn text(&mut self, member: &'static str, chars_max: usize) -> Result<Option<String>, BadSignal> {
        match self.optional(member) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() > chars_max => {
                Err(self.fault(member, Fault::TooLong))
            }
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.fault(member, Fault::WrongType)),
        }
    }

    /// A text that the schema does not limit: cut, because nothing depends on its end.
    fn cut(&mut self, member: &'static str, chars_max: usize) -> Result<Option<String>, BadSignal> {
        Ok(self.text(member, usize::MAX)?.map(|text| text.chars().take(chars_max).collect()))
    }

    fn label(&mut self, member: &'static str) -> Result<Option<String>, BadSignal> {
        self.cut(member, LABEL_CHARS_MAX)
    }

    fn name(&mut self, chars_max: usize, alphabet: Alphabet) -> Result<String, BadSignal> {
        let raw = self.text("name", usize::MAX)?.ok_or_else(|| self.fault("name", Fault::Missing))?;
        named(&raw, chars_max, alphabet).ok_or_else(|| self.fault("name", Fault::NotAllowed))
    }

    fn flag(&mut self, member: &'static str) -> Result<Option<bool>, BadSignal> {
        match self.optional(member) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.fault(member, Fault::WrongType)),
        }
    }

    /// A whole number, saturated. `2.0` is one for JSON Schema, so it is one here.
    fn integer(&mut self, member: &'static str) -> Result<Option<i64>, BadSignal> {
        let Some(value) = self.optional(member) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number.fract() == 0.0 => Ok(Some(value.as_i64().unwrap_or(number as i64))),
            Some(_) | None => Err(self.fault(member, Fault::WrongType)),
        }
    }

    fn number(&mut self, member: &'static str, min: f64, max: f64) -> Result<Option<f64>, BadSignal> {
        let Some(value) = self.optional(member) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            Some(_) => Err(self.fault(member, Fault::OutOfRange)),
            None => Err(self.fault(member, Fault::WrongType)),
        }
    }

    fn per_mille(&mut self, member: &'static str) -> Result<Option<u16>, BadSignal> {
        let number = self.number(member, 0.0, 1.0)?;
        Ok(number.map(|unit| u16::try_from(per_mille(unit)).unwrap_or_default()))
    }

    fn one_of<T: Copy>(
        &mut self,
        member: &'static str,
        allowed: &[(&'static str, T)],
    ) -> Result<Option<T>, BadSignal> {
        let Some(value) = self.optional(member) else { return Ok(None) };
        let chosen = value.as_str().and_then(|word| allowed.iter().find(|(name, _)| *name == word));
        match chosen {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(self.fault(member, Fault::NotAllowed)),
        }
    }

    fn word(&mut self, member: &'static str, allowed: &[&'static str]) -> Result<String, BadSignal> {
        let Value::String(word) = self.required(member)? else {
            return Err(self.fault(member, Fault::NotAllowed));
        };
        if !allowed.contains(&word.as_str()) {
            return Err(self.fault(member, Fault::NotAllowed));
        }
        Ok(word.clone())
    }

    fn unread(&self) -> u32 {
        let unread = self.members.keys().filter(|member| !self.read.contains(&member.as_str())).count();
        u32::try_from(unread).unwrap_or(u32::MAX)
    }
}

/// Which characters a name keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    /// `a-z 0-9 _`, beginning with a letter.
    Plain,
    /// Also `.` and `-`, so that names can be grouped.
    Dotted,
}

/// A name as we store it: lower case, ASCII, without long numbers, so that it can stand in
/// a snapshot, an audit record and a metric. `None` where no letter is in it.
fn named(raw: &str, chars_max: usize, alphabet: Alphabet) -> Option<String> {
    let mut name = String::new();
    let mut digit_run = 0;
    for character in raw.chars() {
        let kept = match character {
            'a'..='z' | 'A'..='Z' => Some(character.to_ascii_lowercase()),
            '0'..='9' => Some(character),
            '.' | '-' if alphabet == Alphabet::Dotted => Some(character),
            _ => None,
        };
        digit_run = if character.is_ascii_digit() { digit_run + 1 } else { 0 };
        let begun = name.bytes().any(|byte| byte.is_ascii_alphabetic());
        match kept {
            Some(_) if digit_run > NAME_DIGIT_RUN_MAX => {}
            Some(letter) if begun || letter.is_ascii_alphabetic() => name.push(letter),
            Some(_) => {}
            None if begun && !name.ends_with('_') => name.push('_'),
            None => {}
        }
        if name.len() >= chars_max {
            break;
        }
    }
    let name = name.trim_end_matches('_');
    (!name.is_empty()).then(|| name.to_owned())
}

/// The name of an unknown member as an error may repeat it: it came from outside, so only
/// what looks like a member's name is shown.
fn shown(member: &str) -> String {
    let plain = member.len() <= 32 && member.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if plain && !member.is_empty() { member.to_owned() } else { "(unprintable)".to_owned() }
}

fn as_text(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    text.trim().chars().take(FIELD_VALUE_CHARS_MAX).collect()
}

fn per_mille(unit: f64) -> i16 {
    // The range was checked, so the product is within -1000..=1000.
    (unit * 1_000.0).round() as i16
}

/// About how many bytes the JSON takes; stops counting once over `limit`.
fn weight(json: &Value, limit: usize) -> usize {
    let mut sum: usize = 2;
    match json {
        Value::String(text) => sum += text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => sum += 4,
        Value::Array(items) => {
            for item in items {
                sum += weight(item, limit) + 1;
                if sum > limit {
                    break;
                }
            }
        }
        Value::Object(members) => {
            for (name, item) in members {
                sum += name.len() + 4 + weight(item, limit);
                if sum > limit {
                    break;
                }
            }
        }
    }
    sum
}

const SPEAKERS: [(&str, Speaker); 4] = [
    ("caller", Speaker::Caller),
    ("agent", Speaker::Agent),
    ("human", Speaker::Human),
    ("system", Speaker::System),
];
const CONFIDENCES: [(&str, ConfidenceOf); 4] = [
    ("resolution", ConfidenceOf::Resolution),
    ("asr", ConfidenceOf::Asr),
    ("intent", ConfidenceOf::Intent),
    ("identity", ConfidenceOf::Identity),
];
const PII_CLASSES: [(&str, PiiClass); 4] =
    [("none", PiiClass::None), ("pii", PiiClass::Pii), ("phi", PiiClass::Phi), ("pci", PiiClass::Pci)];
const REASONS: [(&str, RequestReason); 8] = [
    ("caller_request", RequestReason::CallerRequest),
    ("low_confidence", RequestReason::LowConfidence),
    ("topic", RequestReason::Topic),
    ("regulatory", RequestReason::Regulatory),
    ("time_limit", RequestReason::TimeLimit),
    ("error", RequestReason::Error),
    ("vip", RequestReason::Vip),
    ("other", RequestReason::Other),
];
const ON_FAIL: [(&str, OnFail); 4] = [
    ("return_to_agent", OnFail::ReturnToAgent),
    ("callback", OnFail::Callback),
    ("voicemail", OnFail::Voicemail),
    ("hangup", OnFail::Hangup),
];
const DISCLOSURES: [&str; 4] = ["ai", "recording", "transfer_notice", "other"];
const CONSENTS: [&str; 3] = ["affirmative", "implied_by_continuing", "refused"];

#[cfg(test)]
mod tests;
