//! Whose token a request carries, what it opens, and how often. A token is looked up at each
//! request, so that one that a reload took away opens nothing from then on.

use core::time::Duration;
use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use handoff::clock::Now;
use handoff::id::{DestinationId, HumanAgentId};

use super::problem::Denied;
use super::{Accessor, Shared};
use crate::config::{Config, OperatorRole};
use crate::link::Budget;

/// Whose token a request carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// A person of the agent directory.
    Agent(HumanAgentId),
    /// Sees calls without personal data.
    Monitor(String),
    /// Sees everything and may ask for a transfer.
    Supervisor(String),
    /// The voice agent, which may post signals.
    VoiceAgent,
    /// A receiver of webhooks, which signs what it sends back.
    Receiver(DestinationId),
}

/// What is left to each holder. Bounded by the configuration: only known tokens get here.
#[derive(Debug)]
pub(super) struct Rates {
    requests: Budget,
    signal_posts: Budget,
    left: BTreeMap<Holder, Budget>,
}

impl Default for Rates {
    fn default() -> Self {
        Self::of(
            Budget::new(REQUESTS_BURST, REQUESTS_EVERY),
            Budget::new(SIGNAL_POSTS_BURST, SIGNAL_POSTS_EVERY),
        )
    }
}

impl Rates {
    /// The budget of each person or program, and that of the voice agent's token.
    pub(super) const fn of(requests: Budget, signal_posts: Budget) -> Self {
        Self { requests, signal_posts, left: BTreeMap::new() }
    }

    fn spend(&mut self, holder: &Holder, now: Now) -> bool {
        // Names of configurations long gone are forgotten with everybody's budget.
        if self.left.len() > HOLDERS_MAX {
            self.left.clear();
        }
        let full = || match holder {
            Holder::VoiceAgent => self.signal_posts.clone(),
            Holder::Agent(_) | Holder::Monitor(_) | Holder::Supervisor(_) | Holder::Receiver(_) => {
                self.requests.clone()
            }
        };
        self.left.entry(holder.clone()).or_insert_with(full).spend(now)
    }
}

impl Shared {
    /// Who asks, if anybody, and if not too often.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<Holder, Denied> {
        let presented = bearer(headers).ok_or(Denied::Unknown)?;
        let holder = holder(&self.config(), presented).ok_or(Denied::Unknown)?;
        self.spend(&holder)?;
        Ok(holder)
    }

    /// Counts one request of this holder.
    pub(super) fn spend(&self, holder: &Holder) -> Result<(), Denied> {
        let now = self.now();
        let mut rates = self.rates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if rates.spend(holder, now) { Ok(()) } else { Err(Denied::TooMany(RETRY_AFTER)) }
    }
}

impl Holder {
    /// An agent, for what agents alone may do.
    pub(super) fn agent(self) -> Result<HumanAgentId, Denied> {
        match self {
            Self::Agent(agent) => Ok(agent),
            Self::Monitor(_) | Self::Supervisor(_) | Self::VoiceAgent | Self::Receiver(_) => {
                Err(Denied::Role)
            }
        }
    }

    /// Somebody who may see calls.
    pub(super) fn operator(self) -> Result<(), Denied> {
        match self {
            Self::Monitor(_) | Self::Supervisor(_) => Ok(()),
            Self::Agent(_) | Self::VoiceAgent | Self::Receiver(_) => Err(Denied::Role),
        }
    }

    /// Somebody who may see personal data, each their own.
    pub(super) fn accessor(self) -> Result<Accessor, Denied> {
        match self {
            Self::Agent(agent) => Ok(Accessor::Agent(agent)),
            Self::Supervisor(id) => Ok(Accessor::Supervisor(id)),
            Self::Monitor(_) | Self::VoiceAgent | Self::Receiver(_) => Err(Denied::Role),
        }
    }

    /// Somebody who may ask for a transfer and take it back; their name for the record.
    pub(super) fn director(self) -> Result<String, Denied> {
        match self {
            Self::Supervisor(id) => Ok(id),
            Self::VoiceAgent => Ok("voice_agent".to_owned()),
            Self::Agent(_) | Self::Monitor(_) | Self::Receiver(_) => Err(Denied::Role),
        }
    }
}

/// The holder of a token. Every kind is compared, so that the time taken tells nothing.
pub(super) fn holder(config: &Config, presented: &[u8]) -> Option<Holder> {
    let agent = config.agent_by_token(presented).map(|agent| Holder::Agent(agent.id.clone()));
    let operator = config.operator_by_token(presented).map(|operator| match operator.role {
        OperatorRole::Monitor => Holder::Monitor(operator.id.clone()),
        OperatorRole::Supervisor => Holder::Supervisor(operator.id.clone()),
    });
    let signals = config.voice_agent.signal_token.as_ref();
    let voice_agent = signals.is_some_and(|token| token.matches(presented)).then_some(Holder::VoiceAgent);
    agent.or(operator).or(voice_agent)
}

/// The token of `Authorization: Bearer …` (RFC 6750).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// A person with a page, or a program that polls a list for each of its screens.
const REQUESTS_BURST: u32 = 60;
/// Twenty a second are more than a person or a wallboard needs.
const REQUESTS_EVERY: Duration = Duration::from_millis(50);
/// One token posts for all calls of the edge: a thousand calls, a post for each turn.
const SIGNAL_POSTS_BURST: u32 = 1_000;
/// See above: a turn of the caller every few seconds in each of a thousand calls.
const SIGNAL_POSTS_EVERY: Duration = Duration::from_millis(2);
/// By then every budget holds some again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The tokens of the largest configuration.
const HOLDERS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holder_has_a_budget_of_its_own_and_it_comes_back() {
        let mut rates = Rates::default();
        let (wall, lead) = (Holder::Monitor("wall".to_owned()), Holder::Supervisor("lead".to_owned()));
        for _ in 0..REQUESTS_BURST {
            assert!(rates.spend(&wall, Now::ZERO));
        }
        assert!(!rates.spend(&wall, Now::ZERO));
        assert!(rates.spend(&lead, Now::ZERO));
        assert!(rates.spend(&wall, Now::ZERO + RETRY_AFTER));
    }
}
