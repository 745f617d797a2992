//! The journal of a call as somebody else's bytes, one record a line, with hashes that its
//! attacker has made fit. The verifier reads anything, and calls verified only what it is: the
//! records as they were, under the head that the store has kept.

use std::sync::LazyLock;

use handoff::audit::verify::{FINDINGS_MAX, Source, StoredChain, StoredRecord, verify};
use handoff::audit::{ChainHead, ChainId, HeadState, record_hash};
use handoff::clock::Timestamp;
use handoff::id::{CallId, TenantId};

use crate::harness::{Behaviour, Target};

pub(crate) const TARGET: Target = Target { name: "audit", words: WORDS, run };

/// The chain that every published version of the verifier must accept.
const GOLDEN: &str = include_str!("../../../handoff/tests/golden/audit-chain-1.jsonl");

static HEAD: LazyLock<ChainHead> = LazyLock::new(|| {
    let last = GOLDEN.trim_end().lines().last().unwrap_or_default();
    let seq = GOLDEN.trim_end().lines().count() as u64;
    ChainHead { seq, hash: record_hash(last.as_bytes()), state: HeadState::Closed }
});

fn run(input: &[u8]) -> Behaviour {
    let input = input.strip_suffix(b"\n").unwrap_or(input);
    let call = CallId::parse("call_0001").expect("a valid id");
    let records =
        input.split(|byte| *byte == b'\n').take(LINES_MAX).zip(1..).map(|(line, seq)| StoredRecord {
            seq,
            canonical: line.to_vec(),
            hash: Some(record_hash(line).to_string()),
            recorded_at: Some(now()),
            ciphertext: None,
        });
    let mut chain = StoredChain {
        tenant: TenantId::parse("t_acme").expect("a valid id"),
        chain: ChainId::of(&call),
        records: records.collect(),
        head: Some(*HEAD),
        erased: false,
    };
    let mut behaviour = Behaviour::new();
    let report = verify(&chain, None, Source::Store, now());
    assert!(report.findings.len() <= FINDINGS_MAX, "a report is bounded");
    assert_eq!(report.is_verified(), report.exit_code() == 0);
    assert_eq!(report.is_verified(), input == GOLDEN.trim_end().as_bytes(), "{:?}", report.findings);
    for finding in &report.findings {
        assert!(finding.text.len() <= FINDING_BYTES_MAX, "a finding of {} bytes", finding.text.len());
        behaviour.note(finding.text.split(char::is_numeric).next().unwrap_or_default());
    }
    // As a bundle: no head, no stored hashes. The last record may then be anything.
    chain.head = None;
    chain.records.iter_mut().for_each(|record| record.hash = None);
    let bundle = verify(&chain, None, Source::Bundle, now());
    behaviour.note(&bundle.exit_code().to_string());
    behaviour
}

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_795_330_900_000)
}

/// Records of one input.
const LINES_MAX: usize = 64;
const FINDING_BYTES_MAX: usize = 400;

const WORDS: &[&str] = &[
    r#""seq":1"#,
    r#""seq":7"#,
    r#""pseq":0"#,
    r#""producer":"edge-2""#,
    r#""chain":"call_0002""#,
    r#""tenant":"t_b""#,
    r#""type":"chain.closed""#,
    r#""type":"producer.final""#,
    r#""type":"transfer.decided""#,
    r#""type":"bridge.completed""#,
    r#""occurred_at":"2026-11-22T07:00:00.000Z""#,
    r#""body":{}"#,
    r#""prev":""#,
    r#""v":"warmbridge-audit/v1""#,
    r#""sealed":{}"#,
    r#""refs":{}"#,
    "\n",
    " ",
    "null",
    "1.0",
    "9007199254740992",
    "\\u0000",
];
