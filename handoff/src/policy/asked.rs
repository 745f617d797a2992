//! Rules on what is asked for: the caller wants a person (in words, by implication or by
//! key), and calls of a type or intent that always go to one.

use crate::conversation::Stimulus;
use crate::policy::phrase::Phrases;
use crate::policy::subject::covers;
use crate::policy::{Rule, Seen, Verdict};

/// The caller asks for a person.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CallerRequest {
    pub(super) id: String,
    /// What the caller says.
    pub(super) phrases: Phrases,
    /// Names of intents that are such a request.
    pub(super) intents: Vec<String>,
    /// The key 0 is such a request.
    pub(super) zero_key: bool,
}

impl Rule for CallerRequest {
    fn id(&self) -> &str {
        &self.id
    }

    fn verdict(&self, seen: &Seen<'_>) -> Verdict {
        match seen.stimulus {
            Stimulus::Turn { .. } => match seen.words.as_ref().and_then(|words| self.phrases.find(words)) {
                Some(pattern) => Verdict::Fire(format!("the caller said: {pattern}")),
                None => Verdict::Skip("no request for a person in this turn"),
            },
            Stimulus::Digit { zero: true } if self.zero_key => {
                Verdict::Fire("the caller pressed 0".to_owned())
            }
            Stimulus::Intent(intent) if self.intents.iter().any(|name| covers(name, &intent.name)) => {
                Verdict::Fire(format!("intent {}, confidence {}", intent.name, intent.confidence_pm))
            }
            Stimulus::Digit { .. }
            | Stimulus::Intent(_)
            | Stimulus::Topic { .. }
            | Stimulus::Confidence { .. }
            | Stimulus::Tool { .. }
            | Stimulus::Requested { .. }
            | Stimulus::AgentError
            | Stimulus::Clock
            | Stimulus::Other => Verdict::Skip("no request for a person"),
        }
    }
}

/// Calls that go to a person by their type or intent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RoutingRule {
    pub(super) id: String,
    /// Types of call, from the trunk or the number dialled.
    pub(super) call_types: Vec<String>,
    /// Names of intents.
    pub(super) intents: Vec<String>,
    /// Intents below this confidence do not count.
    pub(super) confidence_min_pm: u16,
}

impl Rule for RoutingRule {
    fn id(&self) -> &str {
        &self.id
    }

    fn verdict(&self, seen: &Seen<'_>) -> Verdict {
        let call_type = seen.snapshot.call_type.as_ref();
        if let Some(call_type) = call_type.filter(|call_type| self.call_types.contains(call_type)) {
            // The type of a call never changes: fired again after a failed attempt, the rule
            // would take the caller away from the voice agent for ever.
            return if seen.snapshot.failed_attempts == 0 {
                Verdict::Fire(format!("calls of type {call_type}"))
            } else {
                Verdict::Skip("the type of call was tried already")
            };
        }
        let Stimulus::Intent(intent) = seen.stimulus else {
            return Verdict::Skip("neither the type of call nor an intent");
        };
        if !self.intents.iter().any(|name| covers(name, &intent.name)) {
            return Verdict::Skip("another intent");
        }
        if intent.confidence_pm < self.confidence_min_pm {
            return Verdict::Skip("the intent is not certain enough");
        }
        Verdict::Fire(format!("intent {}, confidence {}", intent.name, intent.confidence_pm))
    }
}
