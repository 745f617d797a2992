//! Rules on what a conversation is about: regulatory, safety and topic. All three look at
//! topics, intents and phrases of the caller; a regulatory rule does so whatever the
//! confidence, because a regulation does not depend on how well we heard.

use crate::conversation::{Named, Stimulus};
use crate::policy::phrase::Phrases;
use crate::policy::{Rule, Seen, Verdict};

/// One rule on a subject.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subject {
    pub(super) id: String,
    /// Names; `billing` also covers `billing.refund`.
    pub(super) topics: Vec<String>,
    /// Names of intents, alike.
    pub(super) intents: Vec<String>,
    /// What the caller says.
    pub(super) phrases: Phrases,
    /// Names below this confidence do not count.
    pub(super) confidence_min_pm: u16,
    /// The voice agent's own word that a regulation applies is enough.
    pub(super) agent_flag: bool,
}

impl Rule for Subject {
    fn id(&self) -> &str {
        &self.id
    }

    fn verdict(&self, seen: &Seen<'_>) -> Verdict {
        match seen.stimulus {
            Stimulus::Topic { topic, regulated } => {
                if self.agent_flag && *regulated {
                    return Verdict::Fire(format!("topic {} is flagged as regulated", topic.name));
                }
                self.named("topic", &self.topics, topic)
            }
            Stimulus::Intent(intent) => self.named("intent", &self.intents, intent),
            Stimulus::Turn { .. } => match seen.words.as_ref().and_then(|words| self.phrases.find(words)) {
                Some(pattern) => Verdict::Fire(format!("the caller said: {pattern}")),
                None => Verdict::Skip("none of the phrases was said by the caller"),
            },
            Stimulus::Confidence { .. }
            | Stimulus::Digit { .. }
            | Stimulus::Tool { .. }
            | Stimulus::Requested { .. }
            | Stimulus::AgentError
            | Stimulus::Clock
            | Stimulus::Other => Verdict::Skip("not about a subject"),
        }
    }
}

impl Subject {
    fn named(&self, what: &str, names: &[String], given: &Named) -> Verdict {
        let Some(name) = names.iter().find(|name| covers(name, &given.name)) else {
            return Verdict::Skip("another subject");
        };
        if given.confidence_pm < self.confidence_min_pm {
            return Verdict::Skip("the subject is not certain enough");
        }
        Verdict::Fire(format!("{what} {} (rule on {name}), confidence {}", given.name, given.confidence_pm))
    }
}

/// `billing` covers `billing` and `billing.refund`, not `billing_address`.
pub(super) fn covers(rule: &str, name: &str) -> bool {
    name.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
