//! How long the records of a call are kept: classes as data. A call may be in several, and
//! the longest governs. These are floors for deletion, never a licence to read. What is
//! deleted when its time is up leaves one record in the chain of its tenant, which says where
//! the deleted chains ended, so that a checkpoint's leaf can still be told from a deed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Actor, AuditEntry, AuditRecord, ChainHead, ChainId, Hash, HeadState, ProducerId};
use crate::clock::Timestamp;
use crate::id::{CallId, TenantId};

/// Type of the record that says why a chain is no longer there.
pub const RETENTION_EXPIRED: &str = "retention.expired";

/// A reason to keep records, with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionClass {
    /// Its name in configuration and records.
    pub name: &'static str,
    /// Days from the close of the chain.
    pub days: u32,
    /// Whose rule it follows.
    pub basis: &'static str,
}

/// All classes. The days count leap days, so that no class is a day short of its years.
pub const CLASSES: [RetentionClass; 5] = [
    RetentionClass { name: "hipaa", days: 2_192, basis: "45 CFR 164.316(b)(2)(i), six years" },
    RetentionClass { name: "tsr", days: 1_827, basis: "16 CFR 310.5, five years" },
    RetentionClass { name: "co_admt", days: 1_096, basis: "Colorado SB 26-189, three years" },
    RetentionClass { name: "sec_3y", days: 1_096, basis: "17 CFR 240.17a-4, three years" },
    RetentionClass { name: "sec_6y", days: 2_192, basis: "17 CFR 240.17a-4, six years" },
];

impl RetentionClass {
    /// The class of a name.
    pub fn named(name: &str) -> Option<Self> {
        CLASSES.into_iter().find(|class| class.name == name)
    }

    /// Until when records of a chain that was closed at `closed` are kept.
    pub const fn until(&self, closed: Timestamp) -> Timestamp {
        closed.plus_millis(self.days as i64 * 86_400_000)
    }
}

/// Until when records of a chain that was closed at `closed` are kept, and the class that
/// says so: the longest. `None` without a class, because then nothing says that they may go.
pub fn governing(classes: &[RetentionClass], closed: Timestamp) -> Option<(RetentionClass, Timestamp)> {
    classes.iter().map(|class| (*class, class.until(closed))).max_by_key(|(_, until)| *until)
}

/// A closed call whose records are about to be deleted.
#[derive(Clone, Debug)]
pub struct Expiring<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Which.
    pub call: &'a CallId,
    /// When its chain was closed.
    pub closed_at: Timestamp,
    /// The end of its chain.
    pub head: ChainHead,
    /// The end of its side chain, where it has one.
    pub side: Option<ChainHead>,
}

impl Expiring<'_> {
    /// The record of the deletion at `at`; `None` while a class keeps the call, or its chain
    /// is open. It is a job of the call alone, so that a call expires once.
    pub fn entry(
        &self,
        classes: &[RetentionClass],
        dek_ids: &[String],
        actor: &str,
        at: Timestamp,
    ) -> Option<AuditEntry> {
        let (class, until) = governing(classes, self.closed_at)?;
        if at < until || self.head.state == HeadState::Open {
            return None;
        }
        let mut body = json!({"actor": actor, "basis": format!("{}: {}", class.name, class.basis),
            "object": self.call, "closed_at": self.closed_at, "kept_until": until, "dek_ids": dek_ids,
            "chain_seq": self.head.seq, "chain_hash": self.head.hash});
        if let Some(side) = self.side {
            body["late_seq"] = json!(side.seq);
            body["late_hash"] = json!(side.hash);
        }
        Some(AuditEntry {
            tenant: self.tenant.clone(),
            chain: ChainId::tenant(),
            producer: ProducerId::job("write-audit", &format!("{}:{RETENTION_EXPIRED}", self.call), 1),
            pseq: 0,
            kind: RETENTION_EXPIRED.to_owned(),
            occurred_at: at,
            actor: Actor::system("retention"),
            body,
            sealed: None,
            refs: None,
        })
    }
}

/// What a `retention.expired` says of a call that is no longer there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The call.
    pub call: CallId,
    /// When it went.
    pub at: Timestamp,
    main: (u64, Hash),
    side: Option<(u64, Hash)>,
}

impl Expired {
    /// Reads a record; `None` where it is of another type, lacks where the chain ended, or is
    /// older than the time that it gives itself.
    pub fn read(record: &AuditRecord) -> Option<Self> {
        let (entry, body) = (&record.entry, &record.entry.body);
        let word = |name: &str| body.get(name).and_then(Value::as_str);
        let end = |seq: &str, hash: &str| {
            let seq = body.get(seq).and_then(Value::as_u64)?;
            Some((seq, Hash::parse(word(hash)?).ok()?))
        };
        let kept_until = Timestamp::parse(word("kept_until")?).ok()?;
        if entry.kind != RETENTION_EXPIRED || entry.occurred_at < kept_until {
            return None;
        }
        Some(Self {
            call: CallId::parse(word("object")?).ok()?,
            at: entry.occurred_at,
            main: end("chain_seq", "chain_hash")?,
            side: end("late_seq", "late_hash"),
        })
    }

    /// Whether it accounts for a leaf of `chain` with one of `hashes` at `seq`: the chain is
    /// one of the call's and was at least that long, and where it ended just there it had
    /// that hash.
    pub fn tells_of(&self, chain: &ChainId, seq: u64, hashes: &BTreeSet<Hash>) -> bool {
        let own = chain.call().is_some_and(|call| call == self.call);
        let end = if chain.is_side() { self.side } else { Some(self.main) };
        own && end.is_some_and(|(last, hash)| {
            seq < last || (seq == last && hashes.iter().all(|leaf| *leaf == hash))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> CallId {
        CallId::parse("call_0001").unwrap()
    }

    fn closed() -> Timestamp {
        Timestamp::parse("2027-03-01T00:00:00.000Z").unwrap()
    }

    fn class(name: &str) -> RetentionClass {
        RetentionClass::named(name).unwrap()
    }

    fn head(seq: u64, state: HeadState) -> ChainHead {
        ChainHead { seq, hash: Hash::of(&[&seq.to_be_bytes()]), state }
    }

    /// The record of a deletion a second after the class lets go of the call.
    fn expired_entry() -> AuditEntry {
        let tenant = TenantId::parse("t_acme").unwrap();
        let (head, side) = (head(7, HeadState::Closed), Some(head(3, HeadState::Open)));
        let call = call();
        let expiring = Expiring { tenant: &tenant, call: &call, closed_at: closed(), head, side };
        let at = class("tsr").until(closed()).plus_millis(1_000);
        expiring.entry(&[class("tsr")], &["dek-1".to_owned()], "uid:0", at).unwrap()
    }

    fn read(entry: AuditEntry) -> Option<Expired> {
        Expired::read(&AuditRecord { entry, seq: 1, prev: Hash::of(&[b"before"]) })
    }

    #[test]
    fn the_longest_class_governs_and_none_keeps_for_ever() {
        let both = [class("co_admt"), class("hipaa")];
        assert_eq!(governing(&both, closed()), Some((class("hipaa"), class("hipaa").until(closed()))));
        assert_eq!(governing(&[], closed()), None);
    }

    #[test]
    fn a_call_goes_when_its_last_class_ends_and_not_a_millisecond_sooner() {
        let tenant = TenantId::parse("t_acme").unwrap();
        let (call, both) = (call(), [class("tsr"), class("hipaa")]);
        let until = class("hipaa").until(closed());
        let mut expiring = Expiring {
            tenant: &tenant,
            call: &call,
            closed_at: closed(),
            head: head(7, HeadState::Closed),
            side: None,
        };
        let goes = |expiring: &Expiring<'_>, classes: &[RetentionClass], at| {
            expiring.entry(classes, &[], "uid:0", at).is_some()
        };
        assert!(!goes(&expiring, &both, until.plus_millis(-1)));
        assert!(goes(&expiring, &both, until));
        assert!(!goes(&expiring, &[], until), "nothing says that it may go");
        expiring.head = head(7, HeadState::Open);
        assert!(!goes(&expiring, &both, until), "an open chain is not over");
    }

    #[test]
    fn a_record_of_a_deletion_accounts_for_the_leaves_of_its_call_only() {
        let expired = read(expired_entry()).unwrap();
        let main = ChainId::of(&call());
        let leaf = |seq: u64| BTreeSet::from([Hash::of(&[&seq.to_be_bytes()])]);
        assert!(expired.tells_of(&main, 7, &leaf(7)));
        assert!(expired.tells_of(&main, 2, &leaf(2)), "an older leaf of an open chain");
        assert!(!expired.tells_of(&main, 7, &leaf(8)), "the chain ended otherwise");
        assert!(!expired.tells_of(&main, 8, &leaf(8)), "the chain was longer");
        assert!(expired.tells_of(&main.side(), 3, &leaf(3)));
        assert!(!expired.tells_of(&main.side(), 4, &leaf(4)));
        let other = ChainId::of(&CallId::parse("call_0002").unwrap());
        assert!(!expired.tells_of(&other, 1, &leaf(1)));
        let mut without_side = expired_entry();
        without_side.body.as_object_mut().unwrap().remove("late_seq");
        assert!(!read(without_side).unwrap().tells_of(&main.side(), 1, &leaf(1)));
    }

    #[test]
    fn a_record_that_is_before_its_time_or_lacks_the_end_of_the_chain_accounts_for_nothing() {
        let mut early = expired_entry();
        early.occurred_at = class("tsr").until(closed()).plus_millis(-1);
        assert_eq!(read(early), None);
        for member in ["object", "kept_until", "chain_seq", "chain_hash"] {
            let mut entry = expired_entry();
            entry.body.as_object_mut().unwrap().remove(member);
            assert_eq!(read(entry), None, "{member}");
        }
        let other = AuditEntry { kind: "erasure.executed".to_owned(), ..expired_entry() };
        assert_eq!(read(other), None);
    }

    #[test]
    fn no_class_is_shorter_than_its_years() {
        let closed = closed();
        for (name, until) in [("hipaa", "2033-03-01"), ("tsr", "2032-03-01"), ("co_admt", "2030-03-01")] {
            let class = RetentionClass::named(name).unwrap();
            assert!(class.until(closed).to_string().as_str() >= until, "{name}");
        }
        assert_eq!(RetentionClass::named("forever"), None);
    }
}
