//! The proof that the end of a chain is in a signed tree (RFC 9162 section 2.1.3), as one
//! document beside an archived chain: with it and the public keyring the chain is verified
//! where there is no log. It says nothing of what came after it, and names nobody.

use serde::{Deserialize, Serialize};

use super::keyring::{Keyring, NoteFault};
use super::note::SignedNote;
use super::tree::{Frontier, inclusion_behind, verify_inclusion};
use super::{Leaf, origin};
use crate::audit::Hash;
use crate::id::TenantId;

/// Longest path that is read: a tree of 2^64 leaves has no longer one.
const PATH_MAX: usize = 64;

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// It is no document of this kind.
    #[error("the proof does not parse")]
    Unreadable,
    /// Its note is no note, or nobody's that the keyring trusts.
    #[error("the proof's note: {0}")]
    Note(String),
    /// Its note is of another tenant's log.
    #[error("the proof is of another log")]
    OtherLog,
    /// The path does not lead from the leaf to the root that was signed.
    #[error("the proof does not lead to the root that was signed")]
    NotIncluded,
}

impl From<NoteFault> for ProofFault {
    fn from(fault: NoteFault) -> Self {
        Self::Note(fault.to_string())
    }
}

/// A leaf, its path to a root, and the note that signs the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The end of the chain.
    pub leaf: Leaf,
    /// Which leaf of the log it is, from 0.
    pub index: u64,
    /// Siblings on the way to the root, the lowest first.
    pub path: Vec<Hash>,
    /// The signed note, as it was printed.
    pub note: String,
}

impl Proof {
    /// The proof for `leaf`, which came into the log together with `leaves`, behind what
    /// `before` stands for. `None` where it is not among them, or the note is of another tree.
    pub fn of(leaf: &Leaf, before: &Frontier, leaves: &[Leaf], note: &str) -> Option<Self> {
        let position = leaves.iter().position(|other| other == leaf)?;
        let hashes: Vec<Hash> = leaves.iter().map(Leaf::tree_hash).collect();
        let path = inclusion_behind(before, &hashes, position)?;
        let index = before.size().checked_add(u64::try_from(position).ok()?)?;
        let signed = SignedNote::parse(note).ok()?;
        let proof = Self { leaf: leaf.clone(), index, path, note: note.to_owned() };
        proof.leads_to(&signed).then_some(proof)
    }

    /// Reads the document.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFault> {
        let proof: Self = serde_json::from_slice(bytes).map_err(|_| ProofFault::Unreadable)?;
        if proof.path.len() > PATH_MAX { Err(ProofFault::Unreadable) } else { Ok(proof) }
    }

    /// The document as [`Proof::parse`] reads it.
    pub fn print(&self) -> Vec<u8> {
        // Names, numbers and texts always have a form.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Whether a key of `keyring` vouches that the leaf is in the log of `tenant`.
    pub fn verify(&self, tenant: &TenantId, keyring: &Keyring) -> Result<(), ProofFault> {
        let note = SignedNote::parse(&self.note).map_err(|error| ProofFault::Note(error.to_string()))?;
        keyring.verify(&note)?;
        if note.body.origin != origin(tenant) {
            return Err(ProofFault::OtherLog);
        }
        if self.leads_to(&note) { Ok(()) } else { Err(ProofFault::NotIncluded) }
    }

    fn leads_to(&self, note: &SignedNote) -> bool {
        let (size, root) = (note.body.size, &note.body.root);
        verify_inclusion(&self.leaf.tree_hash(), self.index, size, &self.path, root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::ChainId;
    use crate::checkpoint::keyring::{NoteKey, TrustedKey};
    use crate::checkpoint::note::NoteBody;
    use crate::clock::Timestamp;
    use ed25519_dalek::{Signer, SigningKey};

    fn tenant() -> TenantId {
        TenantId::parse("t_acme").unwrap()
    }

    fn leaves(from: u64, to: u64) -> Vec<Leaf> {
        (from..to)
            .map(|n| Leaf {
                chain: ChainId::parse(&format!("call_{n:04}")).unwrap(),
                seq: 3,
                hash: Hash::of(&[&n.to_be_bytes()]),
            })
            .collect()
    }

    /// A log of `before` leaves that got `more`, its note by the key `seed`, and the keyring.
    fn log(before: u64, more: u64, seed: u8) -> (Frontier, Vec<Leaf>, String, Keyring) {
        let mut frontier = Frontier::default();
        leaves(0, before).iter().for_each(|leaf| frontier.push(leaf.tree_hash()));
        let (earlier, added) = (frontier.clone(), leaves(before, before + more));
        added.iter().for_each(|leaf| frontier.push(leaf.tree_hash()));
        let at = Timestamp::parse("2026-11-23T10:00:00.000Z").unwrap();
        let body = NoteBody { origin: origin(&tenant()), size: frontier.size(), root: frontier.root(), at };
        let text = body.text();
        let signing = SigningKey::from_bytes(&[seed; 32]);
        let key = NoteKey::new(&origin(&tenant()), signing.verifying_key().to_bytes());
        let signature = key.signature(signing.sign(text.as_bytes()).to_bytes());
        let note = SignedNote { body, text, signatures: vec![signature] }.print();
        (earlier, added, note, Keyring::new(vec![TrustedKey { key, from: at, until: None }]))
    }

    #[test]
    fn every_leaf_of_a_checkpoint_is_proved_whatever_was_before_it() {
        for before in 0..33 {
            for more in 1..12 {
                let (earlier, added, note, keyring) = log(before, more, 7);
                for leaf in &added {
                    let proof = Proof::of(leaf, &earlier, &added, &note).unwrap();
                    assert_eq!(Proof::parse(&proof.print()), Ok(proof.clone()));
                    assert_eq!(proof.verify(&tenant(), &keyring), Ok(()), "{before} {more}");
                }
            }
        }
    }

    #[test]
    fn another_leaf_another_place_another_log_and_another_key_are_refused() {
        let (earlier, added, note, keyring) = log(5, 6, 7);
        let proof = Proof::of(&added[2], &earlier, &added, &note).unwrap();
        let refused = |change: &dyn Fn(&mut Proof)| {
            let mut other = proof.clone();
            change(&mut other);
            other.verify(&tenant(), &keyring).unwrap_err()
        };
        assert_eq!(refused(&|proof| proof.leaf.seq = 4), ProofFault::NotIncluded);
        assert_eq!(refused(&|proof| proof.index = 6), ProofFault::NotIncluded);
        assert_eq!(refused(&|proof| proof.path.truncate(1)), ProofFault::NotIncluded);
        assert_eq!(refused(&|proof| proof.leaf = leaves(90, 91).remove(0)), ProofFault::NotIncluded);
        let stranger = TenantId::parse("t_other").unwrap();
        assert_eq!(proof.verify(&stranger, &keyring), Err(ProofFault::OtherLog));
        let (_, _, _, others) = log(5, 6, 8);
        assert!(matches!(proof.verify(&tenant(), &others), Err(ProofFault::Note(_))));
        assert_eq!(Proof::parse(b"{}"), Err(ProofFault::Unreadable));
    }

    #[test]
    fn there_is_no_proof_for_what_is_not_in_the_checkpoint() {
        let (earlier, added, note, _) = log(5, 6, 7);
        assert_eq!(Proof::of(&leaves(90, 91)[0], &earlier, &added, &note), None);
        let (_, _, other, _) = log(5, 7, 7);
        assert_eq!(Proof::of(&added[0], &earlier, &added, &other), None, "the note is of another tree");
    }
}
