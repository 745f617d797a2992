//! Every id of the system, parsed once at the border. An id is opaque, non-personal, and
//! matches `[A-Za-z0-9_-]{3,64}`, so that it fits a SQS group id, a chain name and a path.
//! Ids that follow from other ids (a transfer's, a decision's, a payload's) are derived,
//! never minted: the edge and the functions then name the same thing alike, and a retry
//! makes nothing twice.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

/// Longest id, in bytes. With the tenant's it still fits every key that is built from both.
pub const ID_LEN_MAX: usize = 64;

/// The text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 3 to 64 characters out of A-Z a-z 0-9 _ -")]
pub struct BadId;

fn checked(text: &str) -> Result<String, BadId> {
    let fits = (3..=ID_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits { Ok(text.to_owned()) } else { Err(BadId) }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Parses an id, once, at the border.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                checked(text).map(Self)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// Whose calls these are.
    TenantId
);
text_id!(
    /// One media edge.
    EdgeId
);
text_id!(
    /// One conversation with all its legs; also the name of its audit chain.
    CallId
);
text_id!(
    /// One transfer of a call, derived from the call id and the transfer's ordinal.
    TransferId
);
text_id!(
    /// One decision to transfer, derived from the transfer id.
    DecisionId
);
text_id!(
    /// The payload of one transfer (all revisions), derived from the transfer id.
    PayloadId
);
text_id!(
    /// One request to be called back, derived from the transfer that nobody took. It names the
    /// request and says nothing about the caller.
    CallbackId
);
text_id!(
    /// A person in the agent directory.
    HumanAgentId
);
text_id!(
    /// A queue of human agents.
    QueueId
);
text_id!(
    /// A webhook or CRM destination of the configuration.
    DestinationId
);

impl CallId {
    /// A call id from 128 random bits that the shell drew.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("call_{}", crockford(&bits.to_be_bytes(), 26)))
    }
}

impl TransferId {
    /// The id of the `ordinal`-th transfer (from 1) of `call`.
    pub fn of(call: &CallId, ordinal: u32) -> Self {
        Self(format!("xfer_{}", derived(&["transfer", call.as_str(), &ordinal.to_string()])))
    }
}

impl DecisionId {
    /// The one decision that starts `transfer`, whoever takes it.
    pub fn of(transfer: &TransferId) -> Self {
        Self(format!("dec_{}", derived(&["decision", transfer.as_str()])))
    }
}

impl PayloadId {
    /// The payload of `transfer`: `hp_` and 26 Crockford base-32 digits.
    pub fn of(transfer: &TransferId) -> Self {
        Self(format!("hp_{}", derived(&["payload", transfer.as_str()])))
    }
}

impl CallbackId {
    /// The request of the caller of `transfer`: `cb_` and 26 Crockford base-32 digits.
    pub fn of(transfer: &TransferId) -> Self {
        Self(format!("cb_{}", derived(&["callback", transfer.as_str()])))
    }
}

/// 26 Crockford base-32 digits of a digest over labelled parts.
fn derived(parts: &[&str]) -> String {
    derived_text(parts)
}

/// 26 Crockford base-32 digits over `parts`, for every id that follows from other ids
/// (webhook message ids too). Equal parts give equal text on every machine.
pub fn derived_text(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let bytes: [u8; 32] = digest.finalize().into();
    crockford(&bytes, 26)
}

/// The first `digits` base-32 digits (Crockford's alphabet) of `bytes`, most significant first.
fn crockford(bytes: &[u8], digits: usize) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bit = |index: usize| bytes.get(index / 8).map_or(0, |byte| byte >> (7 - index % 8) & 1);
    (0..digits)
        .map(|digit| {
            let value = (0..5).fold(0_usize, |sum, offset| sum << 1 | usize::from(bit(digit * 5 + offset)));
            char::from(*ALPHABET.get(value).unwrap_or(&b'0'))
        })
        .collect()
}

/// One leg of one call. The caller is 0 and the voice agent 1; human agents follow in the
/// order in which they were dialled, one id per attempt, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LegId(pub u16);

impl LegId {
    /// The caller's leg.
    pub const CALLER: Self = Self(0);
    /// The voice agent's leg.
    pub const VOICE_AGENT: Self = Self(1);
    /// The first human agent's leg; later attempts count up from here.
    pub const FIRST_HUMAN: Self = Self(2);
}

impl fmt::Display for LegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leg-{}", self.0)
    }
}

/// One playing of one prompt within a call; counts up, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlayId(pub u32);

/// The version of a call's media plan; counts up with every change. A report that carries
/// an older epoch is about a plan that no longer holds, and is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_repeat_and_differ_by_ordinal() {
        let call = CallId::from_random(7);
        let first = TransferId::of(&call, 1);
        assert_eq!(first, TransferId::of(&call, 1));
        assert_ne!(first, TransferId::of(&call, 2));
        assert!(PayloadId::of(&first).as_str().len() == 29);
    }

    #[test]
    fn an_id_outside_the_alphabet_is_refused() {
        for text in ["", "ab", "a b c", "x\0y", "é12", &"a".repeat(65)] {
            assert_eq!(CallId::parse(text), Err(BadId), "{text:?}");
        }
    }
}
