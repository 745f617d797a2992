//! What an operator has switched off, and which policy is pinned, while a stack runs: read
//! from two texts that anybody may change at any moment. Nothing here loses a record: what is
//! switched off waits, or is decided by the edges' own rules.

use std::fmt;
use std::sync::Arc;

use handoff::policy::Policy;

use crate::ports::Policies;

/// What the text of the policy says where each call keeps the policy that it began with.
pub const AS_PUBLISHED: &str = "as-published";
/// What the text of the switches says where nothing is off.
pub const NONE: &str = "none";
/// No signal is evaluated.
pub const NO_DECISIONS: &str = "no-decisions";
/// No webhook is sent.
pub const NO_WEBHOOKS: &str = "no-webhooks";

/// See the module. The default is a stack that does everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// The version of the policy by which signals are evaluated, whatever their calls began
    /// with.
    pub policy: Option<String>,
    /// Signals are acknowledged without being evaluated: the edges decide by themselves what
    /// is mandatory.
    pub no_decisions: bool,
    /// Webhooks wait.
    pub no_webhooks: bool,
}

/// A word that is no switch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a switch: {NO_DECISIONS}, {NO_WEBHOOKS} or {NONE}")]
pub struct NoSwitch(String);

impl Switches {
    /// From both texts, each absent where nobody has written it.
    pub fn parse(policy: Option<&str>, switches: Option<&str>) -> Result<Self, NoSwitch> {
        let policy = policy.map(str::trim).filter(|version| ![AS_PUBLISHED, ""].contains(version));
        let mut read = Self { policy: policy.map(str::to_owned), ..Self::default() };
        for word in switches.unwrap_or(NONE).split(',').map(str::trim) {
            match word {
                NO_DECISIONS => read.no_decisions = true,
                NO_WEBHOOKS => read.no_webhooks = true,
                NONE => {}
                _ => return Err(NoSwitch(word.chars().take(40).collect())),
            }
        }
        Ok(read)
    }
}

impl fmt::Display for Switches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off = [(self.no_decisions, NO_DECISIONS), (self.no_webhooks, NO_WEBHOOKS)];
        let words: Vec<&str> = off.into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
        let words = if words.is_empty() { NONE.to_owned() } else { words.join(",") };
        write!(f, "{words}, policy {}", self.policy.as_deref().unwrap_or(AS_PUBLISHED))
    }
}

/// The policies of an edge with one of them pinned: it answers for every version, where the
/// edge has published it.
#[derive(Clone, Copy, Debug)]
pub struct Pinned<'a, P> {
    /// The edge's.
    pub policies: &'a P,
    /// The version.
    pub version: Option<&'a str>,
}

impl<P: Policies> Policies for Pinned<'_, P> {
    fn policy(&self, version: &str) -> Option<Arc<Policy>> {
        let pinned = self.version.and_then(|version| self.policies.policy(version));
        pinned.or_else(|| self.policies.policy(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PolicySet;
    use crate::testing::policy;

    #[test]
    fn nothing_is_off_where_nobody_has_said_so() {
        for (policy, switches) in [
            (None, None),
            (Some(AS_PUBLISHED), Some(NONE)),
            (Some(" "), Some(" none ")),
            (None, Some("none,none")),
        ] {
            assert_eq!(Switches::parse(policy, switches), Ok(Switches::default()));
        }
        assert_eq!(Switches::default().to_string(), "none, policy as-published");
    }

    #[test]
    fn each_word_is_one_switch_and_another_word_is_an_error() {
        let both = Switches::parse(Some("rules@7"), Some("no-decisions, no-webhooks")).unwrap();
        assert_eq!(
            both,
            Switches { policy: Some("rules@7".to_owned()), no_decisions: true, no_webhooks: true }
        );
        assert_eq!(both.to_string(), "no-decisions,no-webhooks, policy rules@7");
        let one = Switches::parse(None, Some(NO_WEBHOOKS)).unwrap();
        assert_eq!((one.no_decisions, one.no_webhooks), (false, true));
        for wrong in ["", "no-webhook", "none no-webhooks", "no-decisions,"] {
            assert!(Switches::parse(None, Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pinned_version_answers_for_every_other_where_it_is_published() {
        let other = Arc::new(Policy::from_toml("name = \"other\"\n").unwrap());
        let others = other.version().to_owned();
        let began_with = policy();
        let policies = PolicySet::new(&[Arc::clone(&began_with), other]);
        let by = |version| {
            let pinned = Pinned { policies: &policies, version };
            pinned.policy(began_with.version()).unwrap().version().to_owned()
        };
        assert_eq!(by(None), began_with.version());
        assert_eq!(by(Some(others.as_str())), others);
        assert_eq!(by(Some("nobody@9")), began_with.version());
        assert!(Pinned { policies: &policies, version: Some("nobody@9") }.policy("nobody@9").is_none());
    }
}
