//! From a TOML file to a [`Policy`]: one table array per category, one named set of phrases
//! per `[phrase_sets]` entry. An unknown key, a number out of range or a pattern that cannot
//! match is an error with its line; nothing is repaired in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Spanned;

use crate::policy::asked::{CallerRequest, RoutingRule};
use crate::policy::measured::{BrokenPromise, ElapsedTime, LowConfidence, Repetition, ToolFailure};
use crate::policy::phrase::{BadPattern, PhraseSets, Phrases, Vocabulary};
use crate::policy::subject::Subject;
use crate::policy::{Category, Policy};
use crate::signal::RequestReason;

/// Largest policy file: thousands of phrases fit, and a wrong file is refused before it is read.
const FILE_BYTES_MAX: usize = 512 * 1024;
/// Most rules of one category; each is judged on every signal.
const RULES_MAX: usize = 64;
/// Most phrases of one rule, for the same reason.
const PHRASES_MAX: usize = 2_000;
/// Longest rule id: `broken_promise:` and the id fit the 40 characters of `trigger.also`.
const RULE_ID_CHARS_MAX: usize = 25;
/// Longest name of a policy: with the digest it fits the 60 characters of `trigger.ruleset`.
const NAME_CHARS_MAX: usize = 48;
/// A confidence rule can look back no further than a snapshot does.
const CONSECUTIVE_MAX: u8 = 5;
/// Longest elapsed-time window: a day is longer than any call.
const AFTER_S_MAX: u64 = 86_400;
/// Longest wait for a promise: beyond it nobody is on the line any more.
const WITHIN_MS_MAX: u64 = 60_000;
/// Above this age a promise is noticed later than three seconds after it was made.
const PROMISE_MS_ADVISED: u64 = 3_000;

/// A policy file that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy, line {line}: {message}")]
pub struct PolicyError {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong there, with the key's name.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    #[serde(default)]
    phrase_sets: BTreeMap<String, Vec<Spanned<String>>>,
    #[serde(default)]
    transfer_request: RequestTable,
    #[serde(default)]
    regulatory: Vec<SubjectTable>,
    #[serde(default)]
    safety: Vec<SubjectTable>,
    #[serde(default)]
    caller_request: Vec<CallerRequestTable>,
    #[serde(default)]
    tool_failure: Vec<ToolFailureTable>,
    #[serde(default)]
    routing_rule: Vec<RoutingTable>,
    #[serde(default)]
    topic: Vec<SubjectTable>,
    #[serde(default)]
    broken_promise: Vec<BrokenPromiseTable>,
    #[serde(default, rename = "loop")]
    repetition: Vec<RepetitionTable>,
    #[serde(default)]
    low_confidence: Vec<LowConfidenceTable>,
    #[serde(default)]
    elapsed_time: Vec<ElapsedTimeTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestTable {
    reasons: Vec<RequestReason>,
}

impl Default for RequestTable {
    fn default() -> Self {
        use RequestReason::{CallerRequest, Error, LowConfidence, Other, Regulatory, TimeLimit, Topic, Vip};
        Self { reasons: vec![CallerRequest, LowConfidence, Topic, Regulatory, TimeLimit, Error, Vip, Other] }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectTable {
    id: Spanned<String>,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    intents: Vec<String>,
    #[serde(default)]
    phrases: Vec<Spanned<String>>,
    #[serde(default = "yes")]
    heed_negation: bool,
    confidence_min: Option<Spanned<f64>>,
    agent_flag: Option<Spanned<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerRequestTable {
    id: Spanned<String>,
    #[serde(default)]
    phrases: Vec<Spanned<String>>,
    #[serde(default)]
    except: Vec<Spanned<String>>,
    #[serde(default)]
    intents: Vec<String>,
    #[serde(default = "yes")]
    zero_key: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutingTable {
    id: Spanned<String>,
    #[serde(default)]
    call_types: Vec<String>,
    #[serde(default)]
    intents: Vec<String>,
    confidence_min: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolFailureTable {
    id: Spanned<String>,
    in_a_row: Option<Spanned<u32>>,
    #[serde(default)]
    agent_error: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokenPromiseTable {
    id: Spanned<String>,
    within_ms: Spanned<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepetitionTable {
    id: Spanned<String>,
    same_intent: Option<Spanned<u32>>,
    same_prompt: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LowConfidenceTable {
    id: Spanned<String>,
    threshold: Spanned<f64>,
    upper_edge: Spanned<f64>,
    consecutive: Spanned<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ElapsedTimeTable {
    id: Spanned<String>,
    after_s: Spanned<u64>,
}

const fn yes() -> bool {
    true
}

impl Policy {
    /// Loads a policy file. The first fault is returned, with its line.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(PolicyError { line: 1, message: format!("the file is over {FILE_BYTES_MAX} bytes") });
        }
        let file: File = toml::from_str(text).map_err(|error| PolicyError {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let vocabulary = vocabulary(text, &file.phrase_sets)?;
        let mut reader = Reader { text, vocabulary, ids: BTreeSet::new() };
        let version = reader.version(&file.name)?;
        Ok(Self {
            version,
            regulatory: reader
                .each(file.regulatory, |reader, table| reader.subject(table, Category::Regulatory))?,
            safety: reader.each(file.safety, |reader, table| reader.subject(table, Category::Safety))?,
            caller_request: reader.each(file.caller_request, Reader::caller_request)?,
            tool_failure: reader.each(file.tool_failure, Reader::tool_failure)?,
            routing_rule: reader.each(file.routing_rule, Reader::routing_rule)?,
            topic: reader.each(file.topic, |reader, table| reader.subject(table, Category::Topic))?,
            broken_promise: reader.each(file.broken_promise, Reader::broken_promise)?,
            repetition: reader.each(file.repetition, Reader::repetition)?,
            low_confidence: reader.each(file.low_confidence, Reader::low_confidence)?,
            elapsed_time: reader.each(file.elapsed_time, Reader::elapsed_time)?,
            granted: file.transfer_request.reasons,
        })
    }

    /// What a policy may do but rarely should: sentences for `policy check`.
    pub fn lint(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |applies: bool, text: &str| {
            if applies {
                warnings.push(text.to_owned());
            }
        };
        let no_words = |phrases: &Phrases| phrases.is_empty();
        warn(
            self.caller_request.iter().all(|rule| no_words(&rule.phrases)),
            "no caller_request rule has phrases: a caller who asks for a person will not get one",
        );
        warn(
            !self.caller_request.iter().any(|rule| rule.zero_key),
            "no caller_request rule has zero_key: pressing 0 does nothing",
        );
        warn(
            self.safety.iter().all(|rule| no_words(&rule.phrases)),
            "no safety rule has phrases: an emergency is treated like any other turn",
        );
        warn(
            self.regulatory.is_empty(),
            "no regulatory rule: say so on purpose with a rule that never fires",
        );
        warn(
            !self.regulatory.iter().any(|rule| rule.agent_flag),
            "no regulatory rule has agent_flag: topics that the voice agent flags as regulated are ignored",
        );
        warn(self.elapsed_time.is_empty(), "no elapsed_time rule: a call can go on without end");
        warn(self.repetition.is_empty(), "no loop rule: the voice agent can go round in circles");
        warn(
            self.broken_promise.is_empty(),
            "no broken_promise rule: a promised transfer that never starts stays unnoticed",
        );
        warn(
            self.broken_promise.iter().any(|rule| rule.within_ms > PROMISE_MS_ADVISED),
            "a broken promise is noticed later than 3000 ms",
        );
        warn(
            self.low_confidence.iter().any(|rule| rule.threshold_pm > 800),
            "a low_confidence threshold above 0.8 transfers most calls",
        );
        warn(
            self.low_confidence.iter().any(|rule| rule.consecutive == 1),
            "low_confidence with consecutive = 1 fires on a single bad turn",
        );
        warn(
            !self.granted.contains(&RequestReason::CallerRequest),
            "transfer_request.reasons leaves out caller_request: the voice agent cannot pass on what it was asked",
        );
        warnings
    }
}

/// Turns tables into rules, and knows where in the file they stood.
struct Reader<'a> {
    text: &'a str,
    vocabulary: Arc<Vocabulary>,
    ids: BTreeSet<String>,
}

impl Reader<'_> {
    fn each<T, R>(
        &mut self,
        tables: Vec<T>,
        mut read: impl FnMut(&mut Self, T) -> Result<R, PolicyError>,
    ) -> Result<Vec<R>, PolicyError> {
        if tables.len() > RULES_MAX {
            return Err(PolicyError {
                line: 1,
                message: format!("more than {RULES_MAX} rules of one category"),
            });
        }
        tables.into_iter().map(|table| read(self, table)).collect()
    }

    fn version(&self, name: &Spanned<String>) -> Result<String, PolicyError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let text = name.get_ref();
        if text.is_empty() || text.len() > NAME_CHARS_MAX || !text.bytes().all(plain) {
            return Err(self.fault(name, "`name` has 1 to 48 characters out of A-Z a-z 0-9 - _ ."));
        }
        let digest = Sha256::digest(self.text);
        let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{text}-{short}"))
    }

    fn subject(&mut self, table: SubjectTable, category: Category) -> Result<Subject, PolicyError> {
        let regulatory = category == Category::Regulatory;
        if let Some(minimum) = table.confidence_min.as_ref().filter(|_| regulatory) {
            return Err(
                self.fault(minimum, "`confidence_min`: a regulatory rule holds whatever the confidence")
            );
        }
        if let Some(flag) = table.agent_flag.as_ref().filter(|_| !regulatory) {
            return Err(self.fault(flag, "`agent_flag` belongs to regulatory rules only"));
        }
        Ok(Subject {
            id: self.id(&table.id)?,
            topics: table.topics,
            intents: table.intents,
            phrases: self.phrases(&table.phrases, table.heed_negation)?,
            confidence_min_pm: self.per_mille("confidence_min", table.confidence_min.as_ref())?.unwrap_or(0),
            agent_flag: table.agent_flag.is_some_and(Spanned::into_inner),
        })
    }

    fn caller_request(&mut self, table: CallerRequestTable) -> Result<CallerRequest, PolicyError> {
        if let Some(idle) = table.except.first().filter(|_| table.phrases.is_empty()) {
            return Err(self.fault(idle, "`except` leaves out nothing: this rule has no `phrases`"));
        }
        if let Some(extra) = table.except.get(PHRASES_MAX) {
            return Err(self.fault(extra, "`except`: a rule has at most 2000 exceptions"));
        }
        let exceptions: Vec<&str> = table.except.iter().map(|source| source.get_ref().as_str()).collect();
        let phrases = self.phrases(&table.phrases, true)?;
        Ok(CallerRequest {
            id: self.id(&table.id)?,
            phrases: phrases
                .except(&exceptions)
                .map_err(|bad| self.bad_pattern("except", &table.except, bad))?,
            intents: table.intents,
            zero_key: table.zero_key,
        })
    }

    fn routing_rule(&mut self, table: RoutingTable) -> Result<RoutingRule, PolicyError> {
        Ok(RoutingRule {
            id: self.id(&table.id)?,
            call_types: table.call_types,
            intents: table.intents,
            confidence_min_pm: self.per_mille("confidence_min", table.confidence_min.as_ref())?.unwrap_or(0),
        })
    }

    fn tool_failure(&mut self, table: ToolFailureTable) -> Result<ToolFailure, PolicyError> {
        Ok(ToolFailure {
            id: self.id(&table.id)?,
            in_a_row: self.count("in_a_row", table.in_a_row.as_ref())?,
            agent_error: table.agent_error,
        })
    }

    fn broken_promise(&mut self, table: BrokenPromiseTable) -> Result<BrokenPromise, PolicyError> {
        let within_ms = self.within("within_ms", &table.within_ms, 1, WITHIN_MS_MAX)?;
        Ok(BrokenPromise { id: self.id(&table.id)?, within_ms })
    }

    fn repetition(&mut self, table: RepetitionTable) -> Result<Repetition, PolicyError> {
        Ok(Repetition {
            id: self.id(&table.id)?,
            same_intent: self.count("same_intent", table.same_intent.as_ref())?,
            same_prompt: self.count("same_prompt", table.same_prompt.as_ref())?,
        })
    }

    fn low_confidence(&mut self, table: LowConfidenceTable) -> Result<LowConfidence, PolicyError> {
        let threshold_pm = self.per_mille("threshold", Some(&table.threshold))?.unwrap_or_default();
        let upper_edge_pm = self.per_mille("upper_edge", Some(&table.upper_edge))?.unwrap_or_default();
        if upper_edge_pm < threshold_pm {
            return Err(self.fault(&table.upper_edge, "`upper_edge` must not be below `threshold`"));
        }
        let consecutive = *table.consecutive.get_ref();
        if !(1..=CONSECUTIVE_MAX).contains(&consecutive) {
            return Err(self.fault(&table.consecutive, "`consecutive` must be from 1 to 5"));
        }
        Ok(LowConfidence { id: self.id(&table.id)?, threshold_pm, upper_edge_pm, consecutive })
    }

    fn elapsed_time(&mut self, table: ElapsedTimeTable) -> Result<ElapsedTime, PolicyError> {
        let after_s = self.within("after_s", &table.after_s, 1, AFTER_S_MAX)?;
        Ok(ElapsedTime { id: self.id(&table.id)?, after_s })
    }

    fn id(&mut self, id: &Spanned<String>) -> Result<String, PolicyError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let text = id.get_ref();
        if text.is_empty() || text.len() > RULE_ID_CHARS_MAX || !text.bytes().all(plain) {
            return Err(self.fault(id, "`id` has 1 to 25 characters out of A-Z a-z 0-9 - _ ."));
        }
        if !self.ids.insert(text.clone()) {
            return Err(self.fault(id, &format!("`id` {text} is used twice")));
        }
        Ok(text.clone())
    }

    fn phrases(&self, sources: &[Spanned<String>], heed_negation: bool) -> Result<Phrases, PolicyError> {
        if let Some(extra) = sources.get(PHRASES_MAX) {
            return Err(self.fault(extra, "a rule has at most 2000 phrases"));
        }
        let patterns: Vec<&str> = sources.iter().map(|source| source.get_ref().as_str()).collect();
        Phrases::compile(&patterns, &self.vocabulary, heed_negation)
            .map_err(|bad| self.bad_pattern("phrases", sources, bad))
    }

    fn bad_pattern(&self, key: &str, sources: &[Spanned<String>], bad: (usize, BadPattern)) -> PolicyError {
        let (index, bad) = bad;
        let line = sources.get(index).map_or(1, |source| line_of(self.text, source.span().start));
        PolicyError { line, message: format!("`{key}`: {bad}") }
    }

    fn per_mille(&self, key: &str, unit: Option<&Spanned<f64>>) -> Result<Option<u16>, PolicyError> {
        let Some(unit) = unit else { return Ok(None) };
        if !(0.0..=1.0).contains(unit.get_ref()) {
            return Err(self.fault(unit, &format!("`{key}` must be from 0.0 to 1.0")));
        }
        // The range was checked, so the product is within 0..=1000.
        Ok(Some((unit.get_ref() * 1_000.0).round() as u16))
    }

    fn count(&self, key: &str, count: Option<&Spanned<u32>>) -> Result<Option<u32>, PolicyError> {
        let Some(count) = count else { return Ok(None) };
        if !(1..=100).contains(count.get_ref()) {
            return Err(self.fault(count, &format!("`{key}` must be from 1 to 100")));
        }
        Ok(Some(*count.get_ref()))
    }

    fn within(&self, key: &str, value: &Spanned<u64>, min: u64, max: u64) -> Result<u64, PolicyError> {
        if !(min..=max).contains(value.get_ref()) {
            return Err(self.fault(value, &format!("`{key}` must be from {min} to {max}")));
        }
        Ok(*value.get_ref())
    }

    fn fault<T>(&self, at: &Spanned<T>, message: &str) -> PolicyError {
        PolicyError { line: line_of(self.text, at.span().start), message: message.to_owned() }
    }
}

fn vocabulary(
    text: &str,
    sets: &BTreeMap<String, Vec<Spanned<String>>>,
) -> Result<Arc<Vocabulary>, PolicyError> {
    let entries = |set: &Vec<Spanned<String>>| set.iter().map(|entry| entry.get_ref().clone()).collect();
    let plain: PhraseSets = sets.iter().map(|(name, set)| (name.clone(), entries(set))).collect();
    Vocabulary::of(&plain).map(Arc::new).map_err(|bad| {
        let entry = sets.get(&bad.set).and_then(|set| set.get(bad.entry));
        let line = entry.map_or(1, |entry| line_of(text, entry.span().start));
        PolicyError { line, message: format!("`phrase_sets`, {bad}") }
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
