//! A call with one failed attempt and a bridge: golden file, schema, and every trap with its
//! negative case.

use super::check::faults;
use super::*;
use crate::audit::{Actor, AuditEntry, ChainId, ProducerId, genesis};

const GOLDEN: &str = include_str!("../../tests/golden/vcon-1.json");
const SCHEMA: &str = include_str!("../../tests/vcon.schema.json");

fn tenant() -> TenantId {
    TenantId::parse("t_acme").unwrap()
}

fn call() -> CallId {
    CallId::parse("call_0001").unwrap()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_330_800_000 + secs * 1_000)
}

fn records(consent: &str) -> Vec<AuditRecord> {
    let stored = json!({"leg": 0, "pieces": 1, "duration_ms": 1, "lost_ms": 0, "sha256": "00"});
    let facts = [
        ("call.received", json!({"trunk": "t", "caller_tag": "hm1:abc", "direction": "inbound"})),
        ("leg.opened", json!({"leg": 0, "role": "caller"})),
        ("leg.opened", json!({"leg": 1, "role": "voice_agent"})),
        ("consent.recording", json!({"value": consent, "method": "disclosure", "at_ms": 4000})),
        (
            "transfer.decided",
            json!({"transfer_id": "xfer_1", "decision_id": "dec_1", "trigger": "regulatory",
            "rule_id": "medication", "mandatory": true, "origin": "function", "policy_version": "p1",
            "target_id": "nurse_line", "evidence": "the caller said: medication"}),
        ),
        ("agent.offered", json!({"agent_id": "ana", "attempt": 1, "leg": 2})),
        ("agent.no_answer", json!({"agent_id": "ana", "attempt": 1})),
        ("agent.offered", json!({"agent_id": "ben", "attempt": 2, "leg": 3})),
        ("hold.started", json!({"leg": 0, "reason": "transfer"})),
        ("agent.answered", json!({"agent_id": "ben", "attempt": 2, "leg": 3})),
        ("whisper.started", json!({"agent_id": "ben"})),
        ("whisper.ended", json!({"agent_id": "ben", "played_pm": 1000})),
        ("agent.accepted", json!({"agent_id": "ben", "leg": 3, "method": "dtmf", "revision": 2})),
        ("bridge.completed", json!({"transfer_id": "xfer_1", "degraded": null})),
        ("hold.ended", json!({"leg": 0, "reason": "bridged"})),
        ("leg.closed", json!({"leg": 1, "role": "voice_agent", "cause": "local_hang_up", "billed_ms": 1})),
        ("recording.stored", stored),
        ("leg.closed", json!({"leg": 0, "role": "caller", "cause": "remote_hang_up", "billed_ms": 1})),
        ("call.ended", json!({"cause": "normal", "side": "caller"})),
    ];
    let chain = ChainId::of(&call());
    let mut prev = genesis(&tenant(), &chain);
    let mut records = Vec::new();
    for (seq, (kind, body)) in (1..).zip(facts) {
        let entry = AuditEntry {
            tenant: tenant(),
            chain: chain.clone(),
            producer: ProducerId::parse("edge-1").unwrap(),
            pseq: seq - 1,
            kind: kind.to_owned(),
            occurred_at: at(i64::try_from(seq).unwrap() * 3),
            actor: Actor::system("edge-1"),
            body,
            sealed: None,
            refs: None,
        };
        let record = AuditRecord { entry, seq, prev };
        prev = record_hash(&record.canonical().unwrap());
        records.push(record);
    }
    records
}

fn exported(consent: &str, level: Level) -> Value {
    let records = records(consent);
    let jsonl: String =
        records.iter().map(|r| format!("{}\n", String::from_utf8(r.canonical().unwrap()).unwrap())).collect();
    let said = |secs, speaker: &str, text: &str| Turn {
        at: at(secs),
        speaker: speaker.to_owned(),
        text: Pii::new(text.to_owned()),
    };
    let turns = [
        said(5, "agent", "How can I help?"),
        said(8, "caller", "I am Dana Ortiz, my card is 4111 1111 1111 1111."),
    ];
    let payloads = [
        json!({"schema": "warmbridge.handoff/1.0", "summary": {"text": "Dana Ortiz asks about a medicine."}}),
    ];
    export(&Material {
        tenant: &tenant(),
        call: &call(),
        at: at(100),
        level,
        records: &records,
        jsonl: &jsonl,
        turns: &turns,
        payloads: &payloads,
    })
}

#[test]
fn the_export_is_the_golden_one_and_fits_schema_and_text() {
    let vcon = exported("implied_by_continuing", Level::R1Pci);
    expect_test::expect_file!["../../tests/golden/vcon-1.json"].assert_eq(&format!("{vcon:#}\n"));
    assert_eq!(serde_json::from_str::<Value>(GOLDEN).unwrap(), vcon);
    let schema = serde_json::from_str(SCHEMA).unwrap();
    for level in [Level::R1Pci, Level::R2Pii, Level::R3Phi] {
        for consent in ["affirmative", "refused"] {
            let vcon = exported(consent, level);
            let validator = jsonschema::validator_for(&schema).unwrap();
            let errors: Vec<String> = validator.iter_errors(&vcon).map(|error| error.to_string()).collect();
            assert_eq!(errors, Vec::<String>::new());
            assert_eq!(faults(&vcon), Vec::<String>::new());
        }
    }
}

#[test]
fn the_transfer_names_parties_and_dialogs_by_index() {
    let vcon = exported("affirmative", Level::R1Pci);
    let expected = json!({"type": "transfer", "start": at(15), "interaction_id": "call_0001",
        "transferee": 0, "transferor": 1, "transfer_target": [2, 3], "original": 0, "consultation": [1, 2],
        "target_dialog": 3});
    assert_eq!(vcon["dialog"][4], expected);
    assert_eq!(vcon["dialog"][1]["disposition"], "no-answer");
    assert_eq!(vcon["parties"].as_array().unwrap().len(), 5);
}

#[test]
fn a_redacted_export_keeps_every_index_and_no_words() {
    let whole = exported("affirmative", Level::R1Pci);
    assert!(!whole.to_string().contains("4111"), "a card number leaves at no level");
    for level in [Level::R2Pii, Level::R3Phi] {
        let redacted = exported("affirmative", level);
        for member in ["parties", "dialog", "analysis", "attachments"] {
            assert_eq!(redacted[member].as_array().unwrap().len(), whole[member].as_array().unwrap().len());
        }
        assert_eq!(redacted["dialog"], whole["dialog"]);
        assert_eq!(redacted["redacted"]["uuid"], whole["uuid"]);
        assert_ne!(redacted["uuid"], whole["uuid"]);
        for word in ["Ortiz", "medicine", "How can I help", "the caller said"] {
            assert!(!redacted.to_string().contains(word), "{word}");
        }
    }
}

#[test]
fn a_refused_recording_leaves_placeholders_and_no_transcript() {
    let vcon = exported("refused", Level::R1Pci);
    for dialog in vcon["dialog"].as_array().unwrap() {
        assert_ne!(dialog["type"], "recording");
    }
    assert!(vcon["analysis"].as_array().unwrap().iter().all(|one| one["type"] != "transcript"));
    assert_eq!(vcon["dialog"].as_array().unwrap().len(), 5);
}

#[test]
fn what_the_schema_lets_pass_the_check_does_not() {
    type Damage = fn(&mut Value);
    let damages: [(&str, Damage); 9] = [
        ("transfer-target is a name of an older draft", |v| v["dialog"][4]["transfer-target"] = json!(2)),
        ("dialog 4: a transfer lacks transferee", |v| {
            v["dialog"][4].as_object_mut().unwrap().remove("transferee");
        }),
        ("dialog 4: a transfer has parties", |v| v["dialog"][4]["parties"] = json!([0])),
        ("dialog 1: incomplete without disposition", |v| {
            v["dialog"][1].as_object_mut().unwrap().remove("disposition");
        }),
        ("dialog 0: a pressed digit is exported", |v| {
            let digit = json!({"party": 0, "time": at(1), "event": "keydown", "button": "1"});
            v["dialog"][0]["party_history"].as_array_mut().unwrap().push(digit);
        }),
        ("dialog 4: target_dialog points nowhere", |v| v["dialog"][4]["target_dialog"] = json!(9)),
        ("dialog 0: parties points nowhere", |v| v["dialog"][0]["parties"] = json!([0, 7])),
        ("both redacted and amended", |v| {
            v["redacted"] = json!({"type": "x"});
            v["amended"] = json!({});
        }),
        ("attachment 0: purpose is missing", |v| {
            v["attachments"][0].as_object_mut().unwrap().remove("purpose");
        }),
    ];
    for (fault, damage) in damages {
        let mut vcon = exported("affirmative", Level::R1Pci);
        damage(&mut vcon);
        assert_eq!(faults(&vcon), [fault]);
    }
}
