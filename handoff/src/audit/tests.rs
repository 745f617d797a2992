//! The chain as a whole: golden vectors, the outcomes of an append, and an attacker who
//! edits, deletes, swaps and cuts.

mod checkpoints;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::verify::{Class, Report, Source, StoredChain, StoredRecord, verify};
use super::*;

const GOLDEN: &str = include_str!("../../tests/golden/audit-chain-1.jsonl");
const GOLDEN_HASHES: &str = include_str!("../../tests/golden/audit-chain-1.hashes");

/// A ledger as small as it can be: what an adapter does with the outcomes.
#[derive(Default)]
struct Ledger {
    chains: BTreeMap<String, StoredChain>,
    idem: BTreeMap<(String, String, u64), Prior>,
}

impl Ledger {
    fn append(&mut self, entry: &AuditEntry) -> Appended {
        let outcome = self.append_to(&entry.chain.clone(), entry);
        let Appended::Late(side) = outcome else { return outcome };
        if self.head(&side).seq == 0 && self.prior(&side, entry).is_none() {
            let closed = self.head(&entry.chain);
            self.append_to(&side, &late_opening(entry, &closed));
        }
        self.append_to(&side, entry)
    }

    fn append_to(&mut self, chain: &ChainId, entry: &AuditEntry) -> Appended {
        let head = self.head(chain);
        let outcome = append(chain, &head, self.prior(chain, entry), entry).unwrap();
        if let Appended::Recorded(new) = &outcome {
            let prior = Prior { seq: new.record.seq, body_digest: new.body_digest };
            self.idem.insert((chain.to_string(), entry.producer.to_string(), entry.pseq), prior);
            let stored = self.chains.entry(chain.to_string()).or_insert_with(|| StoredChain {
                tenant: entry.tenant.clone(),
                chain: chain.clone(),
                records: Vec::new(),
                head: None,
                erased: false,
            });
            stored.records.push(StoredRecord {
                seq: new.record.seq,
                canonical: new.canonical.clone(),
                hash: Some(new.hash.to_string()),
                recorded_at: Some(entry.occurred_at),
                ciphertext: None,
            });
            stored.head = Some(new.head);
        }
        outcome
    }

    fn head(&self, chain: &ChainId) -> ChainHead {
        let stored = self.chains.get(chain.as_str()).and_then(|chain| chain.head);
        stored.unwrap_or_else(|| ChainHead::genesis(&tenant(), chain))
    }

    fn prior(&self, chain: &ChainId, entry: &AuditEntry) -> Option<Prior> {
        self.idem.get(&(chain.to_string(), entry.producer.to_string(), entry.pseq)).copied()
    }

    fn close(&mut self) {
        let counts = verify::counts_of(
            &self
                .chain()
                .records
                .iter()
                .map(|r| AuditRecord::parse(&r.canonical).unwrap())
                .collect::<Vec<_>>(),
        );
        let head = self.head(&ChainId::of(&call()));
        let entry = closing(&tenant(), &call(), &head, &counts, at(99_000));
        assert!(matches!(self.append(&entry), Appended::Recorded(_)));
    }

    fn chain(&self) -> &StoredChain {
        &self.chains[call().as_str()]
    }

    fn verify(&self) -> Report {
        let side = self.chains.get(ChainId::of(&call()).side().as_str());
        verify(self.chain(), side, Source::Store, at(100_000))
    }
}

fn tenant() -> TenantId {
    TenantId::parse("t_acme").unwrap()
}

fn call() -> CallId {
    CallId::parse("call_0001").unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_330_800_000 + millis)
}

fn entry(pseq: u64, kind: &str, body: Value) -> AuditEntry {
    AuditEntry {
        tenant: tenant(),
        chain: ChainId::of(&call()),
        producer: ProducerId::parse("edge-1").unwrap(),
        pseq,
        kind: kind.to_owned(),
        occurred_at: at(i64::try_from(pseq).unwrap() * 100),
        actor: Actor::system("edge-1"),
        body,
        sealed: None,
        refs: None,
    }
}

fn played() -> Value {
    json!({"text_id": "disclosure.1", "lang": "es", "played_pm": 1000, "from_ms": 0, "to_ms": 3000})
}

/// A small closed chain; the last fact is the producer's final.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    let facts = [
        entry(0, "call.received", json!({"trunk": "carrier", "caller_tag": null, "direction": "inbound"})),
        entry(1, "disclosure.ai_identity", played()),
        entry(
            2,
            "fallback.taken",
            json!({"kind": "closing", "reason": "señor, nobody — \u{1F642} \u{7f}\n"}),
        ),
        entry(3, "call.ended", json!({"cause": "normal", "side": "caller"})),
        entry(4, "producer.final", json!({"count": 5})),
    ];
    for fact in &facts {
        assert!(matches!(ledger.append(fact), Appended::Recorded(_)));
    }
    ledger.close();
    ledger
}

fn only_class(report: &Report) -> Vec<Class> {
    let mut classes: Vec<Class> = report.findings.iter().map(|finding| finding.class).collect();
    classes.dedup();
    classes
}

#[test]
fn the_golden_chain_is_reproduced_byte_for_byte() {
    let ledger = ledger();
    let lines: Vec<String> =
        ledger.chain().records.iter().map(|r| String::from_utf8(r.canonical.clone()).unwrap()).collect();
    let mut hashes = vec![format!("genesis {}", genesis(&tenant(), &ChainId::of(&call())))];
    hashes.extend(ledger.chain().records.iter().map(|r| format!("{} {}", r.seq, r.hash.clone().unwrap())));
    assert_eq!(lines.join("\n"), GOLDEN.trim_end());
    assert_eq!(hashes.join("\n"), GOLDEN_HASHES.trim_end());
}

#[test]
fn an_intact_chain_verifies() {
    let report = ledger().verify();
    assert_eq!((report.exit_code(), report.findings.as_slice(), report.records), (0, &[][..], 6));
}

#[test]
fn a_duplicate_adds_nothing_and_a_conflict_is_named() {
    let mut ledger = ledger();
    let same = entry(1, "disclosure.ai_identity", played());
    assert_eq!(ledger.append(&same), Appended::Duplicate { seq: 2 });
    let other = entry(1, "disclosure.ai_identity", json!({"text_id": "other"}));
    assert_eq!(ledger.append(&other), Appended::Conflict { seq: 2 });
    assert_ne!(same.deduplication_id(), other.deduplication_id());
    assert_eq!(ledger.verify().exit_code(), 0);
}

#[test]
fn what_comes_after_the_close_goes_to_the_side_chain_which_cites_it() {
    let mut ledger = ledger();
    let mut late = entry(0, "disposition.received", json!({"code": "solved"}));
    late.producer = ProducerId::job("api", "disposition-1", 0);
    let Appended::Recorded(new) = ledger.append(&late) else { panic!("recorded") };
    assert_eq!((new.record.entry.chain.as_str(), new.record.seq), ("call_0001#late", 2));
    assert_eq!(ledger.append(&late), Appended::Duplicate { seq: 2 });
    assert_eq!(ledger.verify().exit_code(), 0);
    let side = ledger.chains.get_mut("call_0001#late").unwrap();
    side.records.remove(0);
    assert_eq!(ledger.verify().exit_code(), 1);
}

#[test]
fn shuffled_and_duplicated_delivery_gives_one_verified_chain() {
    let mut ledger = Ledger::default();
    let mut facts: Vec<AuditEntry> = (1..199)
        .map(|pseq| {
            entry(pseq, "signal.received", json!({"id": pseq.to_string(), "kind": "topic", "values": []}))
        })
        .collect();
    facts.push(entry(0, "call.received", json!({"trunk": "c", "caller_tag": null, "direction": "inbound"})));
    facts.push(entry(199, "producer.final", json!({"count": 200})));
    facts.extend(facts.clone().into_iter().take(150));
    // A fixed permutation: 97 and 350 have no common divisor.
    let order: Vec<usize> = (0..facts.len()).map(|i| i * 97 % facts.len()).collect();
    let outcomes: Vec<Appended> = order.iter().map(|index| ledger.append(&facts[*index])).collect();
    assert_eq!(outcomes.iter().filter(|o| matches!(o, Appended::Recorded(_))).count(), 200);
    assert_eq!(outcomes.iter().filter(|o| matches!(o, Appended::Duplicate { .. })).count(), 150);
    ledger.close();
    assert_eq!(ledger.verify().findings, []);
}

#[test]
fn two_calls_may_use_the_same_producer_and_number() {
    let mut ledger = ledger();
    let mut other = entry(1, "disclosure.ai_identity", played());
    other.chain = ChainId::of(&CallId::parse("call_0002").unwrap());
    assert!(matches!(ledger.append(&other), Appended::Recorded(_)));
}

#[test]
fn every_attack_on_a_chain_without_checkpoints_is_named() {
    type Attack = fn(&mut StoredChain);
    let attacks: [(&str, Attack, u64, &str); 7] = [
        ("white space", |c| c.records[2].canonical.insert(1, b' '), 3, "canonical"),
        ("field", |c| replace(&mut c.records[2], "closing", "callback"), 3, "stored hash"),
        (
            "field and own hash",
            |c| {
                replace(&mut c.records[2], "closing", "callback");
                c.records[2].hash = Some(record_hash(&c.records[2].canonical).to_string());
            },
            4,
            "link",
        ),
        (
            "delete",
            |c| {
                c.records.remove(2);
            },
            4,
            "record 3 is missing",
        ),
        ("swap", |c| c.records.swap(2, 3), 4, "record 3 is missing"),
        (
            "truncate",
            |c| {
                c.records.truncate(4);
            },
            4,
            "records 5 to 6 are missing",
        ),
        (
            "last with own hash",
            |c| {
                replace(&mut c.records[5], "write-audit\"", "write-audiT\"");
                c.records[5].hash = Some(record_hash(&c.records[5].canonical).to_string());
            },
            6,
            "head",
        ),
    ];
    for (name, attack, seq, text) in attacks {
        let mut ledger = ledger();
        attack(ledger.chains.get_mut("call_0001").unwrap());
        let report = ledger.verify();
        assert_eq!(report.exit_code(), 1, "{name}");
        assert!(
            report.findings.iter().any(|f| f.seq == Some(seq) && f.text.contains(text)),
            "{name}: {:?}",
            report.findings
        );
    }
}

fn replace(record: &mut StoredRecord, from: &str, to: &str) {
    let text = String::from_utf8(record.canonical.clone()).unwrap();
    assert!(text.contains(from));
    record.canonical = text.replace(from, to).into_bytes();
}

#[test]
fn a_changed_or_missing_ciphertext_is_tampering() {
    let mut ledger = Ledger::default();
    let mut said = entry(0, "utterance.ref", json!({"segment": 0, "speaker": "caller", "offset_ms": 1}));
    said.sealed = Some(Sealed::beside("dek-1", b"ciphertext"));
    ledger.append(&said);
    let stored = ledger.chains.get_mut("call_0001").unwrap();
    stored.records[0].ciphertext = Some(b"ciphertext".to_vec());
    let chain = stored.clone();
    assert_eq!(only_class(&verify(&chain, None, Source::Store, at(1))), [Class::Warning]);
    for ciphertext in [Some(b"ciphertexT".to_vec()), None] {
        let mut chain = chain.clone();
        chain.records[0].ciphertext = ciphertext;
        assert_eq!(verify(&chain, None, Source::Store, at(1)).exit_code(), 1);
    }
}

#[test]
fn a_ledger_time_beyond_all_times_is_a_warning() {
    let mut ledger = ledger();
    let record = &mut ledger.chains.get_mut("call_0001").unwrap().records[1];
    record.recorded_at = Some(Timestamp::from_unix_millis(i64::MIN));
    assert_eq!(only_class(&ledger.verify()), [Class::Warning]);
}

#[test]
fn what_is_missing_is_incomplete_not_tampered() {
    let mut ledger = Ledger::default();
    ledger.append(&entry(0, "call.ended", json!({"cause": "normal", "side": "caller"})));
    ledger.append(&entry(3, "hold.ended", json!({"leg": 0, "reason": "ended"})));
    let open = ledger.verify();
    assert!(open.findings.iter().any(|f| f.text == "producer edge-1: events 1 to 2 are missing"));
    assert_eq!(open.exit_code(), 2);
    ledger.close();
    let closed = ledger.verify();
    assert!(closed.findings.iter().any(|f| f.text == "producer edge-1 has no producer.final"));
    let day_later = at(100_000).plus_millis(verify::OPEN_MAX_MS);
    let mut young = Ledger::default();
    young.append(&entry(0, "call.ended", json!({"cause": "normal", "side": "caller"})));
    assert_eq!(only_class(&verify(young.chain(), None, Source::Store, at(1_000))), [Class::Warning]);
    assert_eq!(verify(young.chain(), None, Source::Store, day_later).exit_code(), 2);
}

#[test]
fn rules_about_disclosure_consent_and_pauses_are_checked() {
    let agent = || json!({"segment": 0, "speaker": "agent", "offset_ms": 1});
    let decided = |waives: bool| {
        json!({"transfer_id": "xfer_1", "decision_id": "dec_1", "trigger": "topic", "rule_id": "r", "mandatory": false,
               "origin": "function", "policy_version": "1", "target_id": "nurses", "waives_waits": waives})
    };
    let cut = json!({"text_id": "d", "lang": "en", "played_pm": 300, "from_ms": 0, "to_ms": 900});
    let consent = json!({"value": "refused", "method": "voice_agent", "at_ms": 5});
    let pause = |ms: u64| json!({"reason": "card", "offset_ms": ms});
    let paused_leg = |leg: u16| json!({"leg": leg, "reason": "payment", "offset_ms": 0});
    type Case<'a> = (Vec<(&'a str, Value)>, Option<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        (vec![("disclosure.ai_identity", played()), ("utterance.ref", agent())], None),
        (vec![("utterance.ref", agent()), ("disclosure.ai_identity", played())], Some("spoke before")),
        (vec![("disclosure.ai_identity", cut.clone()), ("transfer.decided", decided(false))], Some("heard")),
        (vec![("disclosure.ai_identity", cut.clone()), ("transfer.decided", decided(true))], None),
        (
            vec![
                ("disclosure.ai_identity", cut.clone()),
                ("disclosure.ai_identity", cut),
                ("transfer.decided", decided(false)),
            ],
            None,
        ),
        (
            vec![("consent.recording", consent), ("recording.started", json!({"offset_ms": 9}))],
            Some("refused"),
        ),
        (vec![("recording.paused", pause(0)), ("recording.resumed", pause(180_000))], None),
        (vec![("recording.paused", pause(0)), ("recording.resumed", pause(180_001))], Some("180 s")),
        (vec![("recording.paused", pause(0))], Some("never resumed")),
        (
            vec![
                ("recording.paused", paused_leg(0)),
                ("recording.paused", paused_leg(1)),
                ("recording.stopped", paused_leg(1)),
                ("recording.resumed", paused_leg(0)),
            ],
            None,
        ),
        (
            vec![
                ("recording.paused", paused_leg(0)),
                ("recording.resumed", paused_leg(1)),
                ("recording.stopped", paused_leg(0)),
            ],
            Some("without a pause"),
        ),
        (vec![("hold.started", json!({"leg": 0}))], Some("lacks `reason`")),
    ];
    for (facts, expected) in cases {
        let mut ledger = Ledger::default();
        for (pseq, (kind, body)) in facts.into_iter().enumerate() {
            ledger.append(&entry(u64::try_from(pseq).unwrap(), kind, body));
        }
        let report = ledger.verify();
        let texts: Vec<&str> =
            report.findings.iter().filter(|f| f.class == Class::Policy).map(|f| f.text.as_str()).collect();
        match expected {
            None => assert_eq!(texts, [""; 0]),
            Some(part) => {
                assert_eq!(report.exit_code(), 3);
                assert!(texts.len() == 1 && texts[0].contains(part), "{texts:?} lacks {part}");
            }
        }
    }
}

#[test]
fn an_entry_outside_the_profile_is_refused() {
    let head = ChainHead::genesis(&tenant(), &ChainId::of(&call()));
    let outcome = |entry: &AuditEntry| append(&entry.chain, &head, None, entry).err();
    assert_eq!(outcome(&entry(0, "a.b", json!({"x": 0.5}))), Some(BadEntry::NotCanonical));
    assert_eq!(outcome(&entry(0, "a.b", json!({"x": 1_u64 << 53}))), Some(BadEntry::NotCanonical));
    assert_eq!(outcome(&entry(0, "a.b", json!({"é": 1}))), Some(BadEntry::NotCanonical));
    assert_eq!(outcome(&entry(0, "a.b", json!([]))), Some(BadEntry::BadBody));
    assert_eq!(outcome(&entry(0, "A b", json!({}))), Some(BadEntry::BadKind));
    let mut side = entry(0, "a.b", json!({}));
    side.chain = side.chain.side();
    let sent = AuditMessage::plain(side).to_json();
    assert_eq!(AuditMessage::from_json(&sent), Err(BadEntry::SideChain));
}

proptest! {
    #[test]
    fn any_changed_byte_is_tampering(record in 0_usize..6, position in any::<prop::sample::Index>(), bits in 1_u8..) {
        let mut ledger = ledger();
        let bytes = &mut ledger.chains.get_mut("call_0001").unwrap().records[record].canonical;
        let index = position.index(bytes.len());
        bytes[index] ^= bits;
        prop_assert_eq!(ledger.verify().exit_code(), 1);
    }

    #[test]
    fn any_deletion_swap_or_cut_is_tampering(first in 0_usize..6, second in 0_usize..6, how in 0..3) {
        let mut ledger = ledger();
        let records = &mut ledger.chains.get_mut("call_0001").unwrap().records;
        match how {
            0 => { records.remove(first); }
            1 => { records.truncate(first); }
            _ => {
                prop_assume!(first != second);
                // Swapped as an attacker would: the contents change places, the numbers stay.
                let (a, b) = (records[first].clone(), records[second].clone());
                records[first] = StoredRecord { seq: a.seq, ..b.clone() };
                records[second] = StoredRecord { seq: b.seq, ..a };
            }
        }
        prop_assert_eq!(ledger.verify().exit_code(), 1);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = AuditRecord::parse(&bytes);
        let _ = AuditMessage::from_json(&bytes);
    }
}
