//! Chains against the log of their tenant: what the chains alone cannot show. A chain that
//! was rewritten consistently no longer has the hash that its leaf names; a chain that was
//! deleted leaves its leaf behind. Every leaf counts, not only the last one of a chain: a
//! chain is only appended to, so an older leaf stays true, and a checkpoint that was made
//! after a rewrite cannot launder it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Class, Report, StoredChain};
use crate::audit::retention::Expired;
use crate::audit::{AuditRecord, ChainId, Hash, record_hash};
use crate::checkpoint::keyring::Keyring;
use crate::checkpoint::note::SignedNote;
use crate::checkpoint::tree::Frontier;
use crate::checkpoint::{EVERY_S, Leaf, origin};
use crate::clock::Timestamp;
use crate::id::{CallId, TenantId};

/// A checkpoint as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// Where it was found, for the report.
    pub name: String,
    /// The signed note.
    pub note: String,
    /// The leaves that came with it, where they are there.
    pub leaves: Option<Vec<u8>>,
}

/// What vouches for a tenant's chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whose notes count.
    pub keyring: Keyring,
    /// In order of size.
    pub checkpoints: Vec<StoredCheckpoint>,
}

/// What an operator asks of checkpoints: one table of the file that `--policy` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointPolicy {
    /// A closed chain without a note is a finding, not only a warning.
    pub required: bool,
    /// Within how many seconds of its close.
    pub every_s: u32,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { required: false, every_s: EVERY_S }
    }
}

/// What an operator asks of the trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrailPolicy {
    /// Of checkpoints.
    pub checkpoints: CheckpointPolicy,
}

impl TrailPolicy {
    /// Reads the file. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }
}

/// The log of a tenant, read and judged by itself.
#[derive(Clone, Debug)]
pub struct Log {
    leaves: BTreeMap<ChainId, BTreeMap<u64, BTreeSet<Hash>>>,
    policy: CheckpointPolicy,
    size: u64,
}

impl Log {
    /// Reads and judges the log: each note is signed by a key that was good then, is of this
    /// tenant's log, and has the root of all leaves up to its size, which makes all notes
    /// consistent with each other.
    pub fn read(
        tenant: &TenantId,
        evidence: &Evidence,
        policy: CheckpointPolicy,
        report: &mut Report,
    ) -> Self {
        let mut log = Self { leaves: BTreeMap::new(), policy, size: 0 };
        let mut frontier = Frontier::default();
        let mut whole = true;
        let mut last: Option<(u64, Hash)> = None;
        for stored in &evidence.checkpoints {
            let mut tamper = |text: String| report.add(Class::Tamper, &stored.name, None, text);
            let note = match SignedNote::parse(&stored.note) {
                Ok(note) => note,
                Err(error) => {
                    tamper(error.to_string());
                    whole = false;
                    continue;
                }
            };
            if let Err(fault) = evidence.keyring.verify(&note) {
                tamper(fault.to_string());
            }
            if note.body.origin != origin(tenant) {
                tamper("the note is of another log".to_owned());
            }
            let (size, root) = (note.body.size, note.body.root);
            if last.is_some_and(|(before, before_root)| before == size && before_root != root) {
                tamper(format!("two notes of the same size, {size}, are inconsistent with each other"));
            }
            let leaves = stored.leaves.as_deref().map(Leaf::read_lines);
            match leaves {
                None => {
                    tamper("the leaves of the note are missing".to_owned());
                    whole = false;
                }
                Some(None) => {
                    tamper("the leaves of the note do not parse".to_owned());
                    whole = false;
                }
                Some(Some(leaves)) => {
                    for leaf in leaves {
                        frontier.push(leaf.tree_hash());
                        log.enter(leaf);
                    }
                    // After a loss no root can be computed; the loss is a finding already.
                    if whole && (frontier.size() != size || frontier.root() != root) {
                        tamper(inconsistent(size, last));
                        whole = false;
                    }
                }
            }
            last = Some((size, root));
            log.size = log.size.max(size);
        }
        if evidence.checkpoints.is_empty() {
            let text = "there is no checkpoint yet".to_owned();
            let class = if policy.required { Class::Incomplete } else { Class::Warning };
            report.add(class, &origin(tenant), None, text);
        }
        log
    }

    /// Leaves that the newest note vouches for.
    pub const fn size(&self) -> u64 {
        self.size
    }

    fn enter(&mut self, leaf: Leaf) {
        self.leaves.entry(leaf.chain).or_default().entry(leaf.seq).or_default().insert(leaf.hash);
    }

    /// A chain against all its leaves.
    pub(super) fn verify_chain(
        &self,
        chain: &StoredChain,
        closed: bool,
        now: Timestamp,
        report: &mut Report,
    ) {
        let name = chain.chain.as_str();
        let last = chain.records.last().map_or(0, |last| last.seq);
        let leaves = self.leaves.get(&chain.chain);
        let hashes: BTreeMap<u64, Hash> =
            chain.records.iter().map(|stored| (stored.seq, record_hash(&stored.canonical))).collect();
        for (seq, signed) in leaves.into_iter().flatten() {
            let mut tamper = |text: &str| report.add(Class::Tamper, name, Some(*seq), text.to_owned());
            match hashes.get(seq) {
                None if *seq > last => tamper("the chain is shorter than its checkpoint"),
                None => tamper("the record that a checkpoint names is missing"),
                Some(hash) if signed.iter().any(|signed| signed != hash) => {
                    tamper("the chain was rewritten: a checkpoint has another hash of this record");
                }
                Some(_) => {}
            }
        }
        let covered = leaves.and_then(|leaves| leaves.last_key_value()).is_some_and(|(seq, _)| *seq >= last);
        if closed && !covered {
            self.verify_coverage(chain, now, report);
        }
    }

    /// A closed chain that no note covers is fresh, or a note is overdue.
    fn verify_coverage(&self, chain: &StoredChain, now: Timestamp, report: &mut Report) {
        let Some(last) = chain.records.last() else { return };
        let recorded =
            AuditRecord::parse(&last.canonical).map(|record| record.entry.occurred_at).or(last.recorded_at);
        let age = recorded.map_or(i64::MAX, |at| now.unix_millis().saturating_sub(at.unix_millis()));
        let overdue = age > i64::from(self.policy.every_s) * 1_000;
        let (class, text) = match (overdue, self.policy.required) {
            (true, true) => (Class::Incomplete, "no checkpoint covers the closed chain, and one is overdue"),
            (true, false) => (Class::Warning, "no checkpoint covers the closed chain, and one is overdue"),
            (false, _) => (Class::Warning, "no checkpoint covers the closed chain yet"),
        };
        report.add(class, chain.chain.as_str(), Some(last.seq), text.to_owned());
    }

    /// Chains that have a leaf and are gone, and whose end no record of the tenant's explains.
    /// `wanted` limits the question to one call.
    pub(super) fn verify_presence(
        &self,
        present: &BTreeSet<ChainId>,
        expired: &BTreeMap<CallId, Expired>,
        wanted: Option<&ChainId>,
        report: &mut Report,
    ) {
        for (chain, leaves) in &self.leaves {
            let asked = wanted.is_none_or(|wanted| *chain == *wanted || *chain == wanted.side());
            if !asked || present.contains(chain) {
                continue;
            }
            let told = chain.call().and_then(|call| expired.get(&call));
            let last = leaves.last_key_value().map(|(seq, _)| *seq);
            let text = match told {
                Some(told) if leaves.iter().all(|(seq, hashes)| told.tells_of(chain, *seq, hashes)) => {
                    continue;
                }
                Some(_) => {
                    "the chain was deleted, and not as retention.expired tells: a checkpoint has another end"
                }
                None => "the chain was deleted: a checkpoint has it, the store does not",
            };
            report.add(Class::Tamper, chain.as_str(), last, text.to_owned());
        }
    }
}

/// Calls whose chains the tenant's own chain says were deleted when their time was up.
pub(super) fn expired(tenant_chain: &StoredChain) -> impl Iterator<Item = (CallId, Expired)> {
    let records = tenant_chain.records.iter().filter_map(|stored| AuditRecord::parse(&stored.canonical));
    records.filter_map(|record| Expired::read(&record)).map(|expired| (expired.call.clone(), expired))
}

fn inconsistent(size: u64, last: Option<(u64, Hash)>) -> String {
    match last {
        Some((before, _)) => format!(
            "the note of {size} leaves is inconsistent with the note of {before} before it and with its leaves"
        ),
        None => format!("the note of {size} leaves is not of the leaves that lie beside it"),
    }
}
