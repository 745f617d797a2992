//! When a person takes over: rules in, one [`Decision`] out. A pure function of policy,
//! snapshot and stimulus, so the edge, the function and the backtest agree byte for byte.
//! It knows no target and dials nothing.

mod asked;
pub mod backtest;
mod load;
mod measured;
pub mod phrase;
pub mod replay;
mod subject;

use core::time::Duration;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use self::asked::{CallerRequest, RoutingRule};
pub use self::load::PolicyError;
use self::measured::{BrokenPromise, ElapsedTime, LowConfidence, Repetition, ToolFailure};
use self::phrase::Words;
use self::subject::Subject;
use crate::conversation::{Snapshot, Stimulus, TransferStanding};
use crate::id::{CallId, DecisionId, TransferId};
use crate::signal::{RequestReason, Speaker};

/// Why a call is handed over: the ten values of `trigger.code` in the payload schema,
/// declared in the order of precedence (a safety rule that loses its name to a regulatory
/// one still waives every wait).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// A regulation requires a person, whatever the confidence.
    Regulatory,
    /// Somebody may be in danger.
    Safety,
    /// The caller asked for a person, in words or by key.
    CallerRequest,
    /// A tool that the voice agent needs keeps failing.
    ToolFailure,
    /// This type of call goes to a person.
    RoutingRule,
    /// This topic goes to a person.
    Topic,
    /// The voice agent promised a person and none is on the way.
    BrokenPromise,
    /// The conversation goes round in circles.
    Loop,
    /// The voice agent is not sure enough.
    LowConfidence,
    /// The call has taken too long.
    ElapsedTime,
}

impl Category {
    /// All ten, in order of precedence.
    pub const ALL: [Self; 10] = [
        Self::Regulatory,
        Self::Safety,
        Self::CallerRequest,
        Self::ToolFailure,
        Self::RoutingRule,
        Self::Topic,
        Self::BrokenPromise,
        Self::Loop,
        Self::LowConfidence,
        Self::ElapsedTime,
    ];

    /// The name used in contracts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regulatory => "regulatory",
            Self::Safety => "safety",
            Self::CallerRequest => "caller_request",
            Self::ToolFailure => "tool_failure",
            Self::RoutingRule => "routing_rule",
            Self::Topic => "topic",
            Self::BrokenPromise => "broken_promise",
            Self::Loop => "loop",
            Self::LowConfidence => "low_confidence",
            Self::ElapsedTime => "elapsed_time",
        }
    }

    /// Mandatory categories are decided by the edge itself when the cloud is late.
    pub const fn is_mandatory(self) -> bool {
        matches!(self, Self::Regulatory | Self::Safety | Self::CallerRequest | Self::ElapsedTime)
    }
}

/// The rule that named a decision, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Category of the rule that won.
    pub category: Category,
    /// Its id in the policy file.
    pub rule_id: String,
    /// What it saw: names and numbers only, at most 200 characters.
    pub evidence: String,
    /// The edge acts on it alone when the cloud is late.
    pub mandatory: bool,
    /// A safety rule is among the rules that fired: no announcement, no wait.
    pub waives_waits: bool,
    /// `category:rule_id` of the other rules that fired, in order of precedence.
    pub also: Vec<String>,
}

/// Who evaluated the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The function `evaluate-trigger`.
    Function,
    /// The edge, because no decision came in time.
    EdgeFallback,
}

/// A decision to transfer. (The policy's other answer, `continue`, needs no record.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Derived from the transfer id.
    pub decision_id: DecisionId,
    /// Derived from the call id and the transfer's ordinal.
    pub transfer_id: TransferId,
    /// The call.
    pub call_id: CallId,
    /// Which rule, and why.
    pub trigger: Trigger,
    /// The payload's `ruleset`.
    pub policy_version: String,
    /// Who decided.
    pub origin: Origin,
}

/// What one rule says to one stimulus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It asks for a person; what it saw, in names and numbers.
    Fire(String),
    /// It does not, and why.
    Skip(&'static str),
}

/// The built-in policy, annotated: a file to start from.
pub const DEFAULT_TOML: &str = include_str!("../policies/default.toml");

/// The rules, loaded from a TOML file. Its version names the file and its content, so two
/// different files never share one.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    version: String,
    regulatory: Vec<Subject>,
    safety: Vec<Subject>,
    caller_request: Vec<CallerRequest>,
    tool_failure: Vec<ToolFailure>,
    routing_rule: Vec<RoutingRule>,
    topic: Vec<Subject>,
    broken_promise: Vec<BrokenPromise>,
    repetition: Vec<Repetition>,
    low_confidence: Vec<LowConfidence>,
    elapsed_time: Vec<ElapsedTime>,
    /// Reasons for which a request of the voice agent is granted.
    granted: Vec<RequestReason>,
}

/// Rule id of a transfer that the voice agent asked for.
pub const REQUEST_RULE_ID: &str = "transfer_request";

/// Most other rules named beside the one that won: the payload's `trigger.also`.
const ALSO_MAX: usize = 6;
/// Longest evidence in characters: the payload's `trigger.explanation`.
const EVIDENCE_CHARS_MAX: usize = 200;

impl Default for Policy {
    /// The policy that is built in: `policies/default.toml`.
    ///
    /// # Panics
    ///
    /// Never in a build that passed its tests: the file is part of the program.
    fn default() -> Self {
        static BUILT_IN: OnceLock<Policy> = OnceLock::new();
        let built_in =
            BUILT_IN.get_or_init(|| Self::from_toml(DEFAULT_TOML).expect("the built-in policy loads"));
        built_in.clone()
    }
}

impl Policy {
    /// Name and digest of the file: the payload's `ruleset`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Decides: the first category in order of precedence names the trigger, the other
    /// rules that fired stay beside it. `None` while a transfer is under way, which a
    /// second reason joins and cannot start again.
    pub fn evaluate(&self, snapshot: &Snapshot, stimulus: &Stimulus) -> Option<Trigger> {
        if snapshot.transfer != TransferStanding::None {
            return None;
        }
        let mut fired = self.judged(snapshot, stimulus).filter_map(|(category, id, verdict)| match verdict {
            Verdict::Fire(evidence) => Some((category, id, evidence)),
            Verdict::Skip(_) => None,
        });
        let (category, rule_id, evidence) = fired.next()?;
        let others: Vec<(Category, &str)> = fired.map(|(category, id, _)| (category, id)).collect();
        let waives_waits =
            category == Category::Safety || others.iter().any(|(category, _)| *category == Category::Safety);
        Some(Trigger {
            category,
            rule_id: rule_id.to_owned(),
            evidence: evidence.chars().take(EVIDENCE_CHARS_MAX).collect(),
            mandatory: category.is_mandatory(),
            waives_waits,
            also: others
                .into_iter()
                .map(|(category, id)| format!("{}:{id}", category.as_str()))
                .take(ALSO_MAX)
                .collect(),
        })
    }

    /// What every rule says, in order of precedence.
    pub fn verdicts(&self, snapshot: &Snapshot, stimulus: &Stimulus) -> Vec<(String, Verdict)> {
        self.judged(snapshot, stimulus).map(|(_, id, verdict)| (id.to_owned(), verdict)).collect()
    }

    /// When the elapsed-time rule first fires, since the caller was answered.
    pub fn elapsed_limit(&self) -> Option<Duration> {
        self.elapsed_time.iter().map(|rule| rule.after()).min()
    }

    /// When a promise of the voice agent counts as broken, since it was made.
    pub fn promise_limit(&self) -> Option<Duration> {
        self.broken_promise.iter().map(|rule| rule.within()).min()
    }

    /// The confidence from which on the low-confidence rule is armed again.
    pub fn confidence_upper_edge_pm(&self) -> Option<u16> {
        self.low_confidence.iter().map(|rule| rule.upper_edge_pm).max()
    }

    /// Every rule with its category and verdict, in order of precedence.
    fn judged<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        stimulus: &'a Stimulus,
    ) -> impl Iterator<Item = (Category, &'a str, Verdict)> {
        let words = match stimulus {
            Stimulus::Turn { speaker: Speaker::Caller, text } => Some(Words::of(text.expose()).once_each()),
            Stimulus::Turn { speaker: Speaker::Agent | Speaker::Human | Speaker::System, .. }
            | Stimulus::Intent(_)
            | Stimulus::Topic { .. }
            | Stimulus::Confidence { .. }
            | Stimulus::Digit { .. }
            | Stimulus::Tool { .. }
            | Stimulus::Requested { .. }
            | Stimulus::AgentError
            | Stimulus::Clock
            | Stimulus::Other => None,
        };
        let seen = Seen { snapshot, stimulus, words };
        Category::ALL.into_iter().flat_map(move |category| self.of_category(category, &seen))
    }

    fn of_category<'a>(&'a self, category: Category, seen: &Seen<'_>) -> Vec<(Category, &'a str, Verdict)> {
        fn all<'a, R: Rule>(rules: &'a [R], seen: &Seen<'_>) -> Vec<(&'a str, Verdict)> {
            rules.iter().map(|rule| (rule.id(), rule.verdict(seen))).collect()
        }
        let mut verdicts = match category {
            Category::Regulatory => all(&self.regulatory, seen),
            Category::Safety => all(&self.safety, seen),
            Category::CallerRequest => all(&self.caller_request, seen),
            Category::ToolFailure => all(&self.tool_failure, seen),
            Category::RoutingRule => all(&self.routing_rule, seen),
            Category::Topic => all(&self.topic, seen),
            Category::BrokenPromise => all(&self.broken_promise, seen),
            Category::Loop => all(&self.repetition, seen),
            Category::LowConfidence => all(&self.low_confidence, seen),
            Category::ElapsedTime => all(&self.elapsed_time, seen),
        };
        if let Stimulus::Requested { reason } = seen.stimulus
            && requested_category(*reason) == category
        {
            verdicts.push((REQUEST_RULE_ID, self.requested(*reason)));
        }
        verdicts.into_iter().map(|(id, verdict)| (category, id, verdict)).collect()
    }

    fn requested(&self, reason: RequestReason) -> Verdict {
        if self.granted.contains(&reason) {
            Verdict::Fire(format!("the voice agent asked for a person: {}", reason.as_str()))
        } else {
            Verdict::Skip("requests with this reason are not granted")
        }
    }
}

/// The category that a voice agent's reason stands for. None stands for safety: that is
/// for the rules of the edge alone to say.
pub const fn requested_category(reason: RequestReason) -> Category {
    match reason {
        RequestReason::CallerRequest => Category::CallerRequest,
        RequestReason::LowConfidence => Category::LowConfidence,
        RequestReason::Topic => Category::Topic,
        RequestReason::Regulatory => Category::Regulatory,
        RequestReason::TimeLimit => Category::ElapsedTime,
        RequestReason::Error => Category::ToolFailure,
        RequestReason::Vip | RequestReason::Other => Category::RoutingRule,
    }
}

/// What a rule looks at: the call so far, the one new thing, and its words where the
/// caller spoke.
struct Seen<'a> {
    snapshot: &'a Snapshot,
    stimulus: &'a Stimulus,
    words: Option<Words>,
}

/// One rule of one category: a pure function from what is seen to a verdict.
trait Rule {
    fn id(&self) -> &str;
    fn verdict(&self, seen: &Seen<'_>) -> Verdict;
}

#[cfg(test)]
mod tests;
