//! The audit trail as rows for a data warehouse: flat, and without personal columns. What is
//! not named here does not leave: a new member of a body is left out until somebody decides,
//! and a test asks. Texts that people wrote (evidence, grounds, actors) are left out by name;
//! of the caller there is the pseudonym only. A row is found again by tenant, chain and seq,
//! so that a feed may be read twice.

use serde_json::{Map, Value, json};

use super::{AuditRecord, Hash};
use crate::clock::Timestamp;

/// Version of the rows.
pub const VERSION: &str = "warmbridge-feed/1";

/// Longest text of a column, in bytes: an identifier, never a sentence.
const TEXT_LEN_MAX: usize = 128;

/// Digits of a number that somebody could be called at (E.164): fewer are a count, more are a
/// sequence number.
const CALLABLE_DIGITS: core::ops::RangeInclusive<usize> = 7..=15;

/// Members of bodies that are columns, whatever record they are in.
pub const COLUMNS: &[&str] = &[
    "acw_s",
    "agent_id",
    "anchor_s",
    "at_ms",
    "attempt",
    "billed_ms",
    "breaks",
    "call_type",
    "callback_id",
    "caller_tag",
    "category",
    "cause",
    "class",
    "closed_hash",
    "closed_seq",
    "code",
    "completeness_pm",
    "count",
    "decision_id",
    "degraded",
    "destination",
    "direction",
    "disclosed",
    "duration_ms",
    "ended_by",
    "engine",
    "event",
    "event_count",
    "fallback",
    "far_jitter_ms",
    "far_lost_pm",
    "from_ms",
    "generator",
    "jitter_ms",
    "kind",
    "lane",
    "lang",
    "leaked_frames",
    "leg",
    "level",
    "longest_gap_ms",
    "longest_silence_ms",
    "lost_ms",
    "lost_pm",
    "mandatory",
    "message_id",
    "method",
    "mono_us",
    "mos_x100",
    "ms",
    "object",
    "offset_ms",
    "origin",
    "outcome",
    "packets",
    "payload_id",
    "phase",
    "pieces",
    "played_pm",
    "policy_version",
    "popped",
    "purpose",
    "reason",
    "received",
    "resolved",
    "response_digest",
    "result",
    "revision",
    "role",
    "round_trip_ms",
    "rule_id",
    "ruleset",
    "segment",
    "sha256",
    "side",
    "skew_ms",
    "speaker",
    "status",
    "target_id",
    "text_id",
    "to_ms",
    "transfer_id",
    "trigger",
    "trunk",
    "try",
    "value",
    "waives_waits",
];

/// Members that are left out: free text, names of people who looked, names that somebody
/// else's system chose, and lists. `type` of a webhook would take the place of the record's.
pub const LEFT_OUT: &[&str] = &[
    "actor",
    "also",
    "basis",
    "case_id",
    "counts",
    "dek_ids",
    "evidence",
    "fields",
    "id",
    "inputs",
    "producer_counts",
    "type",
    "values",
];

/// A record as a row; `recorded_at` is the store's, which the hash does not cover. A member
/// that is no column, and a text that does not look like an identifier, is left out.
pub fn row(record: &AuditRecord, hash: &Hash, recorded_at: Option<Timestamp>) -> Value {
    let entry = &record.entry;
    let mut row = json!({
        "feed": VERSION,
        "tenant": entry.tenant,
        "chain": entry.chain,
        "seq": record.seq,
        "hash": hash,
        "type": entry.kind,
        "occurred_at": entry.occurred_at,
        "recorded_at": recorded_at,
        "producer": entry.producer,
        "pseq": entry.pseq,
        "sealed": entry.sealed.is_some(),
    });
    if let Some(columns) = row.as_object_mut() {
        columns.extend(columns_of(&entry.body));
    }
    row
}

fn columns_of(body: &Value) -> Map<String, Value> {
    let members = body.as_object().into_iter().flatten();
    members
        .filter(|(name, value)| COLUMNS.binary_search(&name.as_str()).is_ok() && is_plain(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => is_identifier(text),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Letters, digits and what joins them, and not a number that somebody could be called at,
/// whatever scheme stands before it. An address with a domain is no identifier.
fn is_identifier(text: &str) -> bool {
    let joined = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/#".contains(&byte);
    let mut parts = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    text.len() <= TEXT_LEN_MAX
        && text.bytes().all(joined)
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !parts.any(is_callable)
}

fn is_callable(part: &str) -> bool {
    CALLABLE_DIGITS.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Actor, AuditEntry, ChainId, ProducerId, Sealed, genesis};
    use crate::id::{CallId, TenantId};
    use proptest::prelude::*;

    fn record(kind: &str, body: Value) -> AuditRecord {
        let tenant = TenantId::parse("t_acme").unwrap();
        let chain = ChainId::of(&CallId::parse("call_0001").unwrap());
        let prev = genesis(&tenant, &chain);
        let entry = AuditEntry {
            tenant,
            chain,
            producer: ProducerId::parse("edge-1").unwrap(),
            pseq: 0,
            kind: kind.to_owned(),
            occurred_at: Timestamp::parse("2026-11-22T07:00:00.000Z").unwrap(),
            actor: Actor::system("edge-1"),
            body,
            sealed: None,
            refs: None,
        };
        AuditRecord { entry, seq: 1, prev }
    }

    fn told(body: Value) -> Value {
        let at = Timestamp::parse("2026-11-22T07:00:01.000Z").unwrap();
        row(&record("transfer.decided", body), &Hash::of(&[]), Some(at))
    }

    #[test]
    fn columns_stand_in_order_and_each_member_is_decided_once() {
        assert!(COLUMNS.is_sorted() && LEFT_OUT.is_sorted());
        for member in super::super::verify::body_members() {
            let ways = [COLUMNS, LEFT_OUT].into_iter().filter(|way| way.contains(&member)).count();
            assert_eq!(ways, 1, "{member}: a column or left out?");
        }
    }

    #[test]
    fn no_column_takes_the_place_of_what_every_row_has() {
        let bare = told(json!({}));
        assert_eq!(COLUMNS.iter().find(|column| bare.get(**column).is_some()), None);
    }

    #[test]
    fn identifiers_leave_and_what_one_can_be_reached_at_does_not() {
        for id in ["call_0001", "edge-1:00000000000000000007", "medication_2026.1", "00ff00ff0a1b"] {
            assert_eq!(told(json!({"reason": id}))["reason"], json!(id));
        }
        for reach in ["ana@example.com", "sip:15550142000@host", "tel:15550142000", "call_15550142000"] {
            assert_eq!(told(json!({"reason": reach})).get("reason"), None, "{reach}");
        }
    }

    #[test]
    fn a_row_is_flat_and_has_no_text_that_people_wrote() {
        let told = told(json!({
            "transfer_id": "xfer_1", "trigger": "regulatory", "mandatory": true, "skew_ms": null,
            "evidence": "my knee hurts", "also": ["topic"], "actor": "Dana", "reason": "she said so",
        }));
        expect_test::expect![[r#"{"chain":"call_0001","feed":"warmbridge-feed/1","hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","mandatory":true,"occurred_at":"2026-11-22T07:00:00.000Z","producer":"edge-1","pseq":0,"recorded_at":"2026-11-22T07:00:01.000Z","sealed":false,"seq":1,"skew_ms":null,"tenant":"t_acme","transfer_id":"xfer_1","trigger":"regulatory","type":"transfer.decided"}"#]]
        .assert_eq(&told.to_string());
    }

    #[test]
    fn what_was_sealed_leaves_a_mark_and_nothing_else() {
        let mut said = record("utterance.ref", json!({"segment": 1, "speaker": "caller", "offset_ms": 5}));
        said.entry.sealed = Some(Sealed::beside("dek-1", b"ciphertext"));
        let told = row(&said, &Hash::of(&[]), None);
        assert_eq!(told["sealed"], json!(true));
        assert!(!told.to_string().contains("dek-1"));
    }

    proptest! {
        #[test]
        fn no_number_and_no_sentence_leaves(
            member in proptest::sample::select(COLUMNS),
            number in "\\+?[0-9]{7,15}",
            scheme in "(tel|sip|x)[:_./-]",
            words in "[a-z]{1,8}( [a-z]{1,8}){1,4}",
        ) {
            let schemed = format!("{scheme}{}", number.trim_start_matches('+'));
            for text in [number, schemed, words] {
                let told = told(json!({member: text}));
                prop_assert!(told.get(member).is_none());
            }
        }
    }
}
