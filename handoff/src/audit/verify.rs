//! The offline verifier: it trusts nothing but the bytes. It says what is wrong, in which
//! chain and at which record, in four classes that are never mixed up: tampered, incomplete,
//! against policy, and mere warnings. From the chains alone it cannot see a consistent rewrite
//! of a whole suffix, nor that a call is gone; with the log of [`checkpoints`] it sees both,
//! and the report says when none was given.

pub mod checkpoints;
mod policy;

#[cfg(test)]
pub(in crate::audit) use policy::body_members;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::retention::Expired;
use super::{
    AuditRecord, CHAIN_CLOSED, CIPHERTEXT_BESIDE, ChainHead, ChainId, Hash, HeadState, LATE_OPENED,
    PRODUCER_FINAL, ProducerId, genesis, record_hash,
};
use crate::clock::Timestamp;
use crate::id::{CallId, TenantId};
use checkpoints::{Evidence, Log, TrailPolicy};

/// How long a chain may stay open after its last record before that is a finding.
pub const OPEN_MAX_MS: i64 = 24 * 3_600_000;

/// How far the ledger's clock and a producer's may differ before that is a warning.
pub const SKEW_MAX_MS: i64 = 5_000;

/// Most findings that a report keeps per chain: a broken chain should not fill a disk.
pub const FINDINGS_MAX: usize = 200;

/// Where records come from, which decides what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A store: heads, stored hashes and ciphertext are expected.
    Store,
    /// An exported bundle: canonical bytes only.
    Bundle,
}

/// One record as it was found.
#[derive(Clone, Debug, Default)]
pub struct StoredRecord {
    /// The number under which it is stored (in a bundle, its line).
    pub seq: u64,
    /// The canonical bytes.
    pub canonical: Vec<u8>,
    /// The hash stored beside it; text, because it may be damaged too.
    pub hash: Option<String>,
    /// When the ledger took it.
    pub recorded_at: Option<Timestamp>,
    /// The ciphertext stored beside it.
    pub ciphertext: Option<Vec<u8>>,
}

/// One chain as it was found.
#[derive(Clone, Debug)]
pub struct StoredChain {
    /// Whose it is said to be.
    pub tenant: TenantId,
    /// Which it is said to be.
    pub chain: ChainId,
    /// In stored order.
    pub records: Vec<StoredRecord>,
    /// The head, where a store has one.
    pub head: Option<ChainHead>,
    /// Its data key is destroyed: sealed texts are erased.
    pub erased: bool,
}

impl StoredChain {
    /// When it was closed, by its own bytes: an attribute beside them proves nothing.
    pub fn closed_at(&self) -> Option<Timestamp> {
        let mut records =
            self.records.iter().rev().filter_map(|stored| AuditRecord::parse(&stored.canonical));
        records.find(|record| record.entry.kind == CHAIN_CLOSED).map(|record| record.entry.occurred_at)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The input is not a store or a bundle.
    Unreadable,
    /// Somebody changed what was recorded.
    Tamper,
    /// Something that must be there is missing.
    Incomplete,
    /// What was recorded breaks a rule.
    Policy,
    /// Worth knowing; verification succeeds.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub class: Class,
    /// In which chain.
    pub chain: String,
    /// At which record, where one can be named.
    pub seq: Option<u64>,
    /// What, in words. Never any content of a record.
    pub text: String,
}

/// What verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Chains looked at.
    pub chains: u64,
    /// Records looked at.
    pub records: u64,
    /// What was found, in order of chain and record.
    pub findings: Vec<Finding>,
    /// What was not checked, and why.
    pub notes: Vec<String>,
}

impl Report {
    /// Nothing but warnings.
    pub fn is_verified(&self) -> bool {
        self.findings.iter().all(|finding| finding.class == Class::Warning)
    }

    /// 0 verified, 1 tampered, 2 incomplete, 3 against policy, 4 unreadable. With several
    /// findings: 4, 1, 2, 3.
    pub fn exit_code(&self) -> u8 {
        match self.findings.iter().map(|finding| finding.class).min() {
            None | Some(Class::Warning) => 0,
            Some(Class::Unreadable) => 4,
            Some(Class::Tamper) => 1,
            Some(Class::Incomplete) => 2,
            Some(Class::Policy) => 3,
        }
    }

    /// A report that says that the input cannot be read.
    pub fn unreadable(what: &str) -> Self {
        let mut report = Self::default();
        report.add(Class::Unreadable, "", None, what.to_owned());
        report
    }

    /// Adds what another report found.
    pub fn absorb(&mut self, other: Self) {
        self.chains += other.chains;
        self.records += other.records;
        self.findings.extend(other.findings);
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    fn add(&mut self, class: Class, chain: &str, seq: Option<u64>, text: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { class, chain: chain.to_owned(), seq, text });
        }
    }
}

/// What the report says where no log was given.
pub const NO_CHECKPOINTS: &str = "no checkpoints are configured: a consistent rewrite of a whole chain, or the loss of a \
     whole call, cannot be seen";

/// Verifies a call's chain together with its side chain, or any single chain, without a log.
pub fn verify(main: &StoredChain, side: Option<&StoredChain>, source: Source, now: Timestamp) -> Report {
    let mut report = Report::default();
    report.notes.push(NO_CHECKPOINTS.to_owned());
    verify_call(main, side, source, now, None, &mut report);
    report
}

/// Verifies the chains of one tenant, call by call, so that only one call is in memory. Every
/// back end feeds it; it decides what is missing at the end.
#[derive(Clone, Debug)]
pub struct Verifier {
    source: Source,
    now: Timestamp,
    log: Option<Log>,
    present: BTreeSet<ChainId>,
    expired: BTreeMap<CallId, Expired>,
    report: Report,
}

impl Verifier {
    /// A verifier of the chains of `tenant`. Without `evidence` it sees what chains show.
    pub fn new(
        tenant: &TenantId,
        source: Source,
        now: Timestamp,
        evidence: Option<&Evidence>,
        policy: &TrailPolicy,
    ) -> Self {
        let mut report = Report::default();
        let log = evidence.map(|evidence| Log::read(tenant, evidence, policy.checkpoints, &mut report));
        if log.is_none() {
            report.notes.push(NO_CHECKPOINTS.to_owned());
            if policy.checkpoints.required {
                let text = "the policy asks for checkpoints, and none were given".to_owned();
                report.add(Class::Incomplete, tenant.as_str(), None, text);
            }
        }
        Self { source, now, log, present: BTreeSet::new(), expired: BTreeMap::new(), report }
    }

    /// Takes one call's chain with its side chain, or the tenant's own chain. What
    /// `retention.expired` the tenant's chain has is known from then on.
    pub fn chain(&mut self, main: &StoredChain, side: Option<&StoredChain>) {
        self.present.insert(main.chain.clone());
        self.present.extend(side.map(|side| side.chain.clone()));
        if main.chain == ChainId::tenant() {
            self.expired.extend(checkpoints::expired(main));
        }
        let mut report = Report::default();
        verify_call(main, side, self.source, self.now, self.log.as_ref(), &mut report);
        self.report.absorb(report);
    }

    /// A chain that is there but cannot be read at all: rows that contradict each other.
    pub fn damaged(&mut self, name: &str, what: &str) {
        if let Ok(chain) = ChainId::parse(name) {
            self.present.insert(chain.side());
            self.present.insert(chain);
        }
        let finding = Finding {
            class: Class::Tamper,
            chain: name.to_owned(),
            seq: None,
            text: format!("{what} is damaged"),
        };
        self.report.findings.push(finding);
    }

    /// Calls that retention deleted, where the tenant's own chain is read apart from the
    /// question: it is neither counted nor judged.
    pub fn know_expired(&mut self, tenant_chain: &StoredChain) {
        self.expired.extend(checkpoints::expired(tenant_chain));
    }

    /// Whether a call's time was up and it went, as the tenant's own chain tells.
    pub fn is_expired(&self, chain: &ChainId) -> bool {
        chain.call().is_some_and(|call| self.expired.contains_key(&call))
    }

    /// The verdict, when every chain was given, or those of `only` where one call was asked
    /// for.
    pub fn finish(mut self, only: Option<&ChainId>) -> Report {
        let gone = only.filter(|only| !self.present.contains(only)).and_then(ChainId::call);
        if let Some(expired) = gone.and_then(|call| self.expired.get(&call)) {
            let text = format!("{} was deleted at {}, when its time was up", expired.call, expired.at);
            self.report.notes.push(text);
        }
        if let Some(log) = &self.log {
            log.verify_presence(&self.present, &self.expired, only, &mut self.report);
            self.report.notes.push(format!("checked against checkpoints of {} leaves", log.size()));
        }
        self.report
    }
}

fn verify_call(
    main: &StoredChain,
    side: Option<&StoredChain>,
    source: Source,
    now: Timestamp,
    log: Option<&Log>,
    report: &mut Report,
) {
    let main_records = verify_links(main, source, report);
    let side_records = side.map(|side| verify_links(side, source, report)).unwrap_or_default();
    let closed = verify_close(main, &main_records, now, report);
    if let Some(side) = side {
        verify_citation(main, side, &side_records, report);
    }
    verify_producers(main, &main_records, &side_records, closed, report);
    policy::verify(main.chain.as_str(), &main_records, report);
    if let Some(side) = side {
        policy::verify_bodies(side.chain.as_str(), &side_records, report);
    }
    if let Some(log) = log {
        log.verify_chain(main, closed, now, report);
        if let Some(side) = side {
            log.verify_chain(side, false, now, report);
        }
    }
    if main.erased {
        let text = "the data key is destroyed: sealed texts are erased".to_owned();
        report.add(Class::Warning, main.chain.as_str(), None, text);
    }
}

/// Every check that binds bytes to bytes. Returns the records that parse.
fn verify_links(chain: &StoredChain, source: Source, report: &mut Report) -> Vec<AuditRecord> {
    let name = chain.chain.as_str();
    report.chains += 1;
    let mut parsed = Vec::with_capacity(chain.records.len());
    let mut prev = genesis(&chain.tenant, &chain.chain);
    let mut expected = 1;
    for stored in &chain.records {
        report.records += 1;
        let mut tamper = |text: String| report.add(Class::Tamper, name, Some(stored.seq), text);
        if stored.seq > expected {
            tamper(gap(expected, stored.seq - 1));
        } else if stored.seq < expected {
            tamper(format!("record {} appears out of order", stored.seq));
        }
        let hash = record_hash(&stored.canonical);
        if stored.hash.as_ref().is_some_and(|stored| *stored != hash.to_string()) {
            tamper("the stored hash is not the hash of the stored bytes".to_owned());
        }
        match AuditRecord::parse(&stored.canonical) {
            None => tamper("the record does not parse in the canonical profile".to_owned()),
            Some(record) => {
                for fault in faults_of(chain, stored, &record, prev, source) {
                    tamper(fault.to_owned());
                }
                warn_skew(name, stored, &record, report);
                parsed.push(record);
            }
        }
        prev = hash;
        expected = stored.seq.max(expected) + 1;
    }
    verify_head(chain, source, expected - 1, prev, report);
    parsed
}

fn faults_of(
    chain: &StoredChain,
    stored: &StoredRecord,
    record: &AuditRecord,
    prev: Hash,
    source: Source,
) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if record.canonical().as_deref() != Ok(stored.canonical.as_slice()) {
        faults.push("the stored bytes are not the canonical bytes of the record");
    }
    if record.seq != stored.seq {
        faults.push("the record's own number is not the one it is stored under");
    }
    if record.prev != prev {
        faults.push("the link to the preceding record is broken");
    }
    if record.entry.tenant != chain.tenant || record.entry.chain != chain.chain {
        faults.push("the record belongs to another chain");
    }
    let Some(sealed) = record.entry.sealed.as_ref().filter(|sealed| sealed.ct_ref == CIPHERTEXT_BESIDE)
    else {
        return faults;
    };
    match &stored.ciphertext {
        Some(ct) if Hash::of(&[ct]) != sealed.ct_sha256 => faults.push("the sealed text was changed"),
        None if source == Source::Store => faults.push("the sealed text is missing"),
        Some(_) | None => {}
    }
    faults
}

fn warn_skew(chain: &str, stored: &StoredRecord, record: &AuditRecord, report: &mut Report) {
    let Some(recorded_at) = stored.recorded_at else { return };
    let skew = recorded_at.unix_millis().saturating_sub(record.entry.occurred_at.unix_millis());
    if !(-SKEW_MAX_MS..=SKEW_MAX_MS).contains(&skew) {
        let text = format!("recorded {skew} ms after it occurred");
        report.add(Class::Warning, chain, Some(stored.seq), text);
    }
}

fn verify_head(chain: &StoredChain, source: Source, last: u64, hash: Hash, report: &mut Report) {
    let mut tamper = |text: String| report.add(Class::Tamper, chain.chain.as_str(), Some(last), text);
    match chain.head {
        Some(head) if head.seq > last => tamper(format!("cut off: {}", gap(last + 1, head.seq))),
        Some(head) if head.seq < last || head.hash != hash => {
            tamper("the head of the chain is not its last record".to_owned());
        }
        None if source == Source::Store => tamper("the chain has no head".to_owned()),
        Some(_) | None => {}
    }
}

/// Whether the chain is closed, and closed rightly.
fn verify_close(main: &StoredChain, records: &[AuditRecord], now: Timestamp, report: &mut Report) -> bool {
    let name = main.chain.as_str();
    let Some(position) = records.iter().position(|record| record.entry.kind == CHAIN_CLOSED) else {
        if main.head.is_some_and(|head| head.state == HeadState::Closed) {
            let text = "the head says closed, but no record closes the chain".to_owned();
            report.add(Class::Tamper, name, None, text);
        }
        let is_call = main.chain.call().is_some() && !main.chain.is_side();
        if let Some(last) = records.last().filter(|_| is_call) {
            let age = now.unix_millis().saturating_sub(last.entry.occurred_at.unix_millis());
            let class = if age > OPEN_MAX_MS { Class::Incomplete } else { Class::Warning };
            report.add(class, name, Some(last.seq), "the chain is open".to_owned());
        }
        return false;
    };
    let (before, after) = records.split_at(position);
    let Some((close, after)) = after.split_first() else { return false };
    let mut tamper = |seq, text: &str| report.add(Class::Tamper, name, Some(seq), text.to_owned());
    if let Some(record) = after.first() {
        tamper(record.seq, "a record follows the close");
    }
    let body = &close.entry.body;
    if body.get("event_count").and_then(Value::as_u64) != Some(close.seq) {
        tamper(close.seq, "the close counts another number of records");
    }
    let counts = counts_of(before);
    let stated: Option<BTreeMap<String, u64>> =
        body.get("producer_counts").and_then(|counts| serde_json::from_value(counts.clone()).ok());
    if stated != Some(counts.iter().map(|(producer, count)| (producer.to_string(), *count)).collect()) {
        tamper(close.seq, "the close counts other numbers per producer");
    }
    if main.head.is_some_and(|head| head.state == HeadState::Open) {
        tamper(close.seq, "the chain is closed, but its head says open");
    }
    true
}

/// Records of each producer.
pub(crate) fn counts_of(records: &[AuditRecord]) -> BTreeMap<ProducerId, u64> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry(record.entry.producer.clone()).or_insert(0) += 1;
    }
    counts
}

/// A side chain must cite the head that it follows.
fn verify_citation(main: &StoredChain, side: &StoredChain, records: &[AuditRecord], report: &mut Report) {
    let Some(first) = records.first() else { return };
    let last = main.records.last();
    let body = &first.entry.body;
    let cites = first.entry.kind == LATE_OPENED
        && body.get("closed_seq").and_then(Value::as_u64) == last.map(|last| last.seq)
        && body.get("closed_hash").and_then(Value::as_str)
            == last.map(|last| record_hash(&last.canonical).to_string()).as_deref();
    if !cites {
        let text = "the side chain does not cite the close that it follows".to_owned();
        report.add(Class::Tamper, side.chain.as_str(), Some(first.seq), text);
    }
}

/// Contiguity of each producer over main and side chain together.
fn verify_producers(
    main: &StoredChain,
    records: &[AuditRecord],
    late: &[AuditRecord],
    closed: bool,
    report: &mut Report,
) {
    let name = main.chain.as_str();
    let mut seen: BTreeMap<&ProducerId, BTreeSet<u64>> = BTreeMap::new();
    let mut finals: BTreeMap<&ProducerId, &AuditRecord> = BTreeMap::new();
    for record in records.iter().chain(late) {
        let entry = &record.entry;
        if !seen.entry(&entry.producer).or_default().insert(entry.pseq) {
            let text = format!("producer {} numbered two events {}", entry.producer, entry.pseq);
            report.add(Class::Tamper, name, Some(record.seq), text);
        }
        if entry.kind == PRODUCER_FINAL {
            finals.insert(&entry.producer, record);
        }
    }
    for (producer, numbers) in seen {
        let mut expected = 0;
        for number in &numbers {
            if *number > expected {
                let text = format!("producer {producer}: events {expected} to {} are missing", number - 1);
                report.add(Class::Incomplete, name, None, text);
            }
            expected = number.saturating_add(1);
        }
        let count = finals.get(producer).map(|last| last.entry.body.get("count").and_then(Value::as_u64));
        if count.is_none() && closed && producer.is_stream() {
            report.add(Class::Incomplete, name, None, format!("producer {producer} has no producer.final"));
        }
        if let Some(count) = count.filter(|count| *count != Some(expected)) {
            let stated = count.unwrap_or_default();
            let text =
                format!("producer {producer} announced {stated} events, {expected} are the most there");
            report.add(Class::Incomplete, name, None, text);
        }
    }
}

fn gap(first: u64, last: u64) -> String {
    if first == last {
        format!("record {first} is missing")
    } else {
        format!("records {first} to {last} are missing")
    }
}
