//! When a person takes over: rules in, one [`Decision`] out. A pure function of policy,
//! snapshot and stimulus, so the edge, the function and the backtest agree byte for byte.
//! It knows no target and dials nothing.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::conversation::{Snapshot, Stimulus, TransferStanding};
use crate::id::{CallId, DecisionId, TransferId};

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

/// The rules, loaded from a TOML file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {}

impl Policy {
    /// The rule that fires on `stimulus`, if any.
    pub fn evaluate(&self, snapshot: &Snapshot, stimulus: &Stimulus) -> Option<Trigger> {
        let (category, rule_id) = match stimulus {
            _ if snapshot.transfer != TransferStanding::None => return None,
            Stimulus::Requested { .. } | Stimulus::Digit { zero: true } => (Category::CallerRequest, "asked"),
            Stimulus::Topic { regulated: true, .. } => (Category::Regulatory, "regulated_topic"),
            Stimulus::Clock => (Category::ElapsedTime, "elapsed"),
            Stimulus::Turn { .. }
            | Stimulus::Intent(_)
            | Stimulus::Topic { .. }
            | Stimulus::Confidence { .. }
            | Stimulus::Digit { .. }
            | Stimulus::Tool { .. }
            | Stimulus::AgentError
            | Stimulus::Other => return None,
        };
        Some(Trigger {
            category,
            rule_id: rule_id.to_owned(),
            evidence: String::new(),
            mandatory: true,
            waives_waits: false,
            also: Vec::new(),
        })
    }

    /// Identifies the rules.
    pub fn version(&self) -> &str {
        "rules@0"
    }

    /// How long a call may last before a person takes over.
    pub fn elapsed_limit(&self) -> Option<Duration> {
        Some(Duration::from_secs(600))
    }

    /// How long a promised person may fail to be on the way.
    pub fn promise_limit(&self) -> Option<Duration> {
        None
    }
}
