//! Checkpoints: what makes a rewrite or a loss of whole chains visible. The ends of chains
//! are leaves of one append-only Merkle tree per tenant ([`tree`], RFC 9162); a signed note
//! ([`note`], C2SP tlog-checkpoint) vouches for the tree at one size and is kept where the
//! ledger's writers cannot reach. [`keyring`] says whose signature counts, and when. A
//! [`proof`] carries one chain's leaf away from the log, with all that vouches for it.
//! Nothing here stores, signs or reads a clock: the shell brings notes, leaves and the time.

pub mod keyring;
pub mod note;
pub mod proof;
pub mod tree;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::audit::{ChainId, Hash};
use crate::canonical;
use crate::id::TenantId;

use tree::leaf_hash;

/// How often a checkpoint is made where nothing else is configured: what is rewritten before
/// the next one cannot be seen.
pub const EVERY_S: u32 = 3_600;

/// Most leaves of one checkpoint; what is left over goes into the next, made at once. More
/// would make one object of a back end large, fewer would cost signatures.
pub const LEAVES_MAX: usize = 4_096;

/// The end of a chain as it was when a checkpoint was made. A chain that grows has several;
/// each of them stays true, because a chain is only appended to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// Which chain.
    pub chain: ChainId,
    /// Number of its last record.
    pub seq: u64,
    /// Hash of that record.
    pub hash: Hash,
}

impl Leaf {
    /// The canonical bytes: what the tree hashes, and one line of a leaf file.
    pub fn canonical(&self) -> Vec<u8> {
        // Names and hashes are within the profile; a number beyond it has no chain.
        canonical::to_bytes(&json!({"chain": self.chain, "seq": self.seq, "hash": self.hash}))
            .unwrap_or_default()
    }

    /// Its hash in the tree.
    pub fn tree_hash(&self) -> Hash {
        leaf_hash(&self.canonical())
    }

    /// Reads one line of a leaf file; `None` where it is not the canonical form of a leaf.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let leaf: Self = serde_json::from_value(canonical::parse_canonical(line).ok()?).ok()?;
        Some(leaf)
    }

    /// The lines of a leaf file.
    pub fn lines(leaves: &[Self]) -> Vec<u8> {
        let mut lines = Vec::new();
        for leaf in leaves {
            lines.extend(leaf.canonical());
            lines.push(b'\n');
        }
        lines
    }

    /// Reads a leaf file; `None` where a line is not a leaf.
    pub fn read_lines(lines: &[u8]) -> Option<Vec<Self>> {
        lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(Self::parse).collect()
    }
}

/// The name of a tenant's log, which never changes: first line of every note and name of
/// every key that signs it.
pub fn origin(tenant: &TenantId) -> String {
    format!("{}/{tenant}", crate::audit::VERSION)
}

#[cfg(test)]
mod tests;
