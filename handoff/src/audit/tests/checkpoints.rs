//! An attacker who may write everything but the checkpoints: seven attacks, and what is
//! wrong with notes and keys themselves.

use ed25519_dalek::{Signer, SigningKey};

use super::super::retention::{Expiring, RetentionClass};
use super::super::verify::Verifier;
use super::super::verify::checkpoints::{Evidence, StoredCheckpoint, TrailPolicy};
use super::*;
use crate::checkpoint::keyring::{Keyring, NoteKey, TrustedKey};
use crate::checkpoint::note::{NoteBody, SignedNote};
use crate::checkpoint::tree::Frontier;
use crate::checkpoint::{Leaf, origin};

/// A log as a checkpointer makes it.
#[derive(Default)]
struct Notary {
    frontier: Frontier,
    evidence: Evidence,
}

fn private() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public() -> NoteKey {
    NoteKey::new(&origin(&tenant()), private().verifying_key().to_bytes())
}

impl Notary {
    fn new() -> Self {
        let key = TrustedKey { key: public(), from: at(0), until: None };
        Self {
            frontier: Frontier::default(),
            evidence: Evidence { keyring: Keyring::new(vec![key]), checkpoints: Vec::new() },
        }
    }

    fn sign(&mut self, leaves: &[Leaf], when: Timestamp) {
        leaves.iter().for_each(|leaf| self.frontier.push(leaf.tree_hash()));
        let (size, root) = (self.frontier.size(), self.frontier.root());
        let body = NoteBody { origin: origin(&tenant()), size, root, at: when };
        let text = body.text();
        let signature = public().signature(private().sign(text.as_bytes()).to_bytes());
        let note = SignedNote { body, text, signatures: vec![signature] }.print();
        let name = format!("{size}.note");
        self.evidence.checkpoints.push(StoredCheckpoint { name, note, leaves: Some(Leaf::lines(leaves)) });
    }

    /// A checkpoint of every chain of a ledger.
    fn of(ledger: &Ledger) -> Self {
        let mut notary = Self::new();
        notary.sign(&heads(ledger), at(99_500));
        notary
    }

    fn verify(&self, ledger: &Ledger) -> Report {
        self.verify_at(ledger, at(100_000), &TrailPolicy::default())
    }

    fn verify_at(&self, ledger: &Ledger, now: Timestamp, policy: &TrailPolicy) -> Report {
        let mut verifier = Verifier::new(&tenant(), Source::Store, now, Some(&self.evidence), policy);
        for chain in ledger.chains.values().filter(|chain| !chain.chain.is_side()) {
            verifier.chain(chain, ledger.chains.get(chain.chain.side().as_str()));
        }
        verifier.finish(None)
    }
}

fn heads(ledger: &Ledger) -> Vec<Leaf> {
    let leaf = |chain: &StoredChain| {
        let head = chain.head.unwrap();
        Leaf { chain: chain.chain.clone(), seq: head.seq, hash: head.hash }
    };
    ledger.chains.values().map(leaf).collect()
}

fn first_finding(report: &Report) -> &str {
    report.findings.iter().find(|finding| finding.class != Class::Warning).map_or("", |f| f.text.as_str())
}

/// What somebody with the whole program and write access to the store would do: everything
/// from record `from` on again, with one member changed, links, close and head included.
fn rewrite(ledger: &mut Ledger, from: usize) {
    let mut chain = ledger.chains.remove(call().as_str()).unwrap();
    let kept = chain.records.split_off(from);
    chain.head = chain.records.last().map(|last| ChainHead {
        seq: last.seq,
        hash: record_hash(&last.canonical),
        state: HeadState::Open,
    });
    ledger.chains.insert(call().to_string(), chain);
    ledger.idem.clear();
    for stored in kept {
        let mut entry = AuditRecord::parse(&stored.canonical).unwrap().entry;
        if entry.kind == "call.ended" {
            entry.body = json!({"cause": "normal", "side": "agent"});
        }
        assert!(matches!(ledger.append(&entry), Appended::Recorded(_)));
    }
}

#[test]
fn an_untouched_ledger_with_a_checkpoint_is_verified_and_says_how_far() {
    let ledger = ledger();
    let report = Notary::of(&ledger).verify(&ledger);
    assert_eq!(report.findings, []);
    assert_eq!(report.exit_code(), 0);
    assert_eq!(report.notes, ["checked against checkpoints of 1 leaves"]);
}

#[test]
fn seven_attacks_on_a_ledger_with_a_checkpoint_are_all_found() {
    type Attack = (&'static str, fn(&mut Ledger));
    let attacks: [Attack; 7] = [
        ("edit", |ledger| {
            let record = &mut ledger.chains.get_mut(call().as_str()).unwrap().records[3];
            record.canonical =
                String::from_utf8(record.canonical.clone()).unwrap().replace("caller\"", "agent\"").into();
        }),
        ("edit with its own hash corrected", |ledger| {
            let record = &mut ledger.chains.get_mut(call().as_str()).unwrap().records[3];
            record.canonical =
                String::from_utf8(record.canonical.clone()).unwrap().replace("caller\"", "agent\"").into();
            record.hash = Some(record_hash(&record.canonical).to_string());
        }),
        ("a record deleted", |ledger| {
            ledger.chains.get_mut(call().as_str()).unwrap().records.remove(2);
        }),
        ("two records swapped", |ledger| {
            let records = &mut ledger.chains.get_mut(call().as_str()).unwrap().records;
            let (a, b) = (records[2].canonical.clone(), records[3].canonical.clone());
            (records[2].canonical, records[3].canonical) = (b, a);
        }),
        ("the tail cut off, the head with it", |ledger| {
            let chain = ledger.chains.get_mut(call().as_str()).unwrap();
            chain.records.truncate(4);
            let last = &chain.records[3];
            chain.head =
                Some(ChainHead { seq: 4, hash: record_hash(&last.canonical), state: HeadState::Open });
        }),
        ("a suffix rewritten consistently", |ledger| rewrite(ledger, 3)),
        ("a whole call deleted", |ledger| {
            ledger.chains.remove(call().as_str());
        }),
    ];
    for (name, attack) in attacks {
        let mut ledger = ledger();
        let notary = Notary::of(&ledger);
        attack(&mut ledger);
        let report = notary.verify(&ledger);
        assert_eq!(report.exit_code(), 1, "{name}: {:?}", report.findings);
    }
}

#[test]
fn a_consistent_rewrite_is_seen_by_the_checkpoint_alone() {
    let mut ledger = ledger();
    let notary = Notary::of(&ledger);
    rewrite(&mut ledger, 3);
    assert_eq!(ledger.verify().exit_code(), 0, "the chain alone cannot show it");
    let report = notary.verify(&ledger);
    assert_eq!(
        first_finding(&report),
        "the chain was rewritten: a checkpoint has another hash of this record"
    );
}

#[test]
fn a_checkpoint_made_after_a_rewrite_does_not_launder_it() {
    let mut ledger = ledger();
    let mut notary = Notary::of(&ledger);
    rewrite(&mut ledger, 3);
    notary.sign(&heads(&ledger), at(99_600));
    assert_eq!(notary.verify(&ledger).exit_code(), 1);
}

#[test]
fn a_chain_shorter_than_its_leaf_and_a_deleted_call_are_named() {
    let mut shorter = ledger();
    let notary = Notary::of(&shorter);
    let chain = shorter.chains.get_mut(call().as_str()).unwrap();
    chain.records.truncate(5);
    let hash = record_hash(&chain.records[4].canonical);
    chain.head = Some(ChainHead { seq: 5, hash, state: HeadState::Open });
    assert_eq!(first_finding(&notary.verify(&shorter)), "the chain is shorter than its checkpoint");
    shorter.chains.clear();
    let text = "the chain was deleted: a checkpoint has it, the store does not";
    assert_eq!(first_finding(&notary.verify(&shorter)), text);
    let mut verifier =
        Verifier::new(&tenant(), Source::Store, at(100_000), Some(&notary.evidence), &TrailPolicy::default());
    let asked = verifier.clone().finish(Some(&ChainId::of(&call())));
    assert_eq!(first_finding(&asked), text);
    verifier.damaged("call_0001", "the name of a chain");
    assert_eq!(verifier.finish(None).findings.len(), 1, "damaged is not deleted");
}

/// The call is deleted, and the tenant's chain has a record of it that says how it ended.
fn expire(ledger: &mut Ledger, end: ChainHead) {
    let tsr = RetentionClass::named("tsr").unwrap();
    let (tenant, call) = (tenant(), call());
    let expiring = Expiring { tenant: &tenant, call: &call, closed_at: at(99_000), head: end, side: None };
    let entry = expiring.entry(&[tsr], &[], "uid:0", tsr.until(at(99_000))).unwrap();
    ledger.chains.remove(call.as_str());
    ledger.append(&entry);
}

#[test]
fn a_call_whose_time_was_up_is_not_missing() {
    let mut ledger = ledger();
    let notary = Notary::of(&ledger);
    let end = ledger.head(&ChainId::of(&call()));
    expire(&mut ledger, end);
    let report = notary.verify(&ledger);
    assert_eq!(report.exit_code(), 0, "{:?}", report.findings);
    // Asked for the one call, the verdict says where it went.
    let mut verifier =
        Verifier::new(&tenant(), Source::Store, at(100_000), Some(&notary.evidence), &TrailPolicy::default());
    verifier.know_expired(&ledger.chains["#tenant"]);
    assert!(verifier.is_expired(&ChainId::of(&call())));
    let report = verifier.finish(Some(&ChainId::of(&call())));
    assert_eq!(report.exit_code(), 0);
    assert!(report.notes[0].starts_with("call_0001 was deleted at "), "{:?}", report.notes);
}

#[test]
fn a_record_of_another_end_does_not_excuse_a_deletion() {
    let mut ledger = ledger();
    let notary = Notary::of(&ledger);
    let end = ledger.head(&ChainId::of(&call()));
    expire(&mut ledger, ChainHead { hash: Hash::of(&[b"another"]), ..end });
    let report = notary.verify(&ledger);
    assert_eq!(report.exit_code(), 1);
    assert!(first_finding(&report).contains("not as retention.expired tells"), "{:?}", report.findings);
}

#[test]
fn an_open_chain_has_several_leaves_and_the_last_one_says_how_long_it_is() {
    let mut growing = Ledger::default();
    let mut notary = Notary::new();
    for pseq in 0..3 {
        growing.append(&entry(pseq, "fallback.taken", json!({"kind": "closing", "reason": "none"})));
        notary.sign(&heads(&growing), at(1_000 + i64::try_from(pseq).unwrap()));
    }
    growing.append(&entry(3, "fallback.taken", json!({"kind": "closing", "reason": "none"})));
    assert_eq!(notary.verify(&growing).exit_code(), 0);
    growing.chains.get_mut(call().as_str()).unwrap().records.truncate(2);
    assert_eq!(notary.verify(&growing).exit_code(), 1);
}

#[test]
fn bad_notes_keys_and_leaves_are_tampering() {
    type Damage = (&'static str, fn(&mut Evidence));
    let damages: [Damage; 7] = [
        ("a signature of the note is forged", |e| {
            e.checkpoints[0].note = e.checkpoints[0].note.replace("\ntime 20", "\ntime 19");
        }),
        ("no signature of the note is by a key of the keyring", |e| {
            let key =
                NoteKey::new(&origin(&tenant()), SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
            e.keyring = Keyring::new(vec![TrustedKey { key, from: at(0), until: None }]);
        }),
        ("the note was signed outside the validity of its key", |e| {
            e.keyring =
                Keyring::new(vec![TrustedKey { key: public(), from: at(0), until: Some(at(50_000)) }]);
        }),
        ("the leaves of the note are missing", |e| e.checkpoints[0].leaves = None),
        ("the leaves of the note do not parse", |e| e.checkpoints[0].leaves = Some(b"{}\n".to_vec())),
        ("the note of 1 leaves is not of the leaves that lie beside it", |e| {
            let leaves = e.checkpoints[0].leaves.as_mut().unwrap();
            leaves.extend(leaves.clone());
        }),
        ("not the signed note of a checkpoint: no empty line before the signatures", |e| {
            e.checkpoints[0].note.clear();
        }),
    ];
    for (text, damage) in damages {
        let ledger = ledger();
        let mut notary = Notary::of(&ledger);
        damage(&mut notary.evidence);
        let report = notary.verify(&ledger);
        assert_eq!((report.exit_code(), first_finding(&report)), (1, text));
    }
}

#[test]
fn two_notes_that_contradict_each_other_are_tampering() {
    let ledger = ledger();
    // A log that forked: the second note does not continue the first.
    let mut notary = Notary::of(&ledger);
    let mut other = Notary::new();
    let stranger = Leaf { chain: ChainId::tenant(), seq: 1, hash: Hash::of(&[b"other"]) };
    other.sign(&[stranger], at(99_000));
    other.sign(&heads(&ledger), at(99_700));
    notary.evidence.checkpoints.push(other.evidence.checkpoints[1].clone());
    let text = "the note of 2 leaves is inconsistent with the note of 1 before it and with its leaves";
    assert_eq!(first_finding(&notary.verify(&ledger)), text);
    // Two views of one size.
    let mut notary = Notary::of(&ledger);
    notary.evidence.checkpoints.push(other.evidence.checkpoints[0].clone());
    let text = "two notes of the same size, 1, are inconsistent with each other";
    assert_eq!(first_finding(&notary.verify(&ledger)), text);
}

#[test]
fn a_closed_chain_without_a_note_is_a_finding_only_where_the_policy_asks() {
    let mut ledger = ledger();
    let mut notary = Notary::of(&ledger);
    let mut second = entry(0, "fallback.taken", json!({"kind": "closing", "reason": "none"}));
    let other = CallId::parse("call_0002").unwrap();
    second.chain = ChainId::of(&other);
    second.producer = ProducerId::job("test", "second", 1);
    ledger.append(&second);
    let head = ledger.head(&second.chain);
    let counts = BTreeMap::from([(second.producer.clone(), 1)]);
    ledger.append(&closing(&tenant(), &other, &head, &counts, at(99_900)));
    let asks = TrailPolicy::parse("[checkpoints]\nrequired = true\nevery_s = 60\n").unwrap();
    let verdict = |notary: &Notary, seconds: i64, policy: &TrailPolicy| {
        notary.verify_at(&ledger, at(99_900 + 1_000 * seconds), policy).exit_code()
    };
    assert_eq!(verdict(&notary, 3_700, &TrailPolicy::default()), 0);
    assert_eq!(verdict(&notary, 59, &asks), 0);
    assert_eq!(verdict(&notary, 61, &asks), 2);
    notary.sign(&heads(&ledger), at(99_950));
    assert_eq!(verdict(&notary, 61, &asks), 0);
    assert!(TrailPolicy::parse("[checkpoint]\n").is_err());
}

#[test]
fn a_policy_that_asks_for_checkpoints_is_not_met_without_any() {
    let ledger = ledger();
    let asks = TrailPolicy::parse("[checkpoints]\nrequired = true\n").unwrap();
    assert_eq!(Notary::new().verify_at(&ledger, at(100_000), &asks).exit_code(), 2);
    let verifier = Verifier::new(&tenant(), Source::Store, at(100_000), None, &asks);
    assert_eq!(verifier.finish(None).exit_code(), 2);
}
