//! Whole calls as their ledger holds them, folded; expected values are worked by hand.

use serde_json::{Value, json};

use super::*;
use crate::audit::{Actor, AuditEntry, ChainId, Hash, ProducerId};
use crate::id::{PayloadId, TenantId};

const T0: i64 = 1_795_330_800_000;

fn call() -> CallId {
    CallId::parse("call_1").unwrap()
}

fn transfer(ordinal: u32) -> TransferId {
    TransferId::of(&call(), ordinal)
}

/// Records of an edge and of others, numbered as they come.
#[derive(Default)]
struct Ledger(Vec<AuditRecord>);

impl Ledger {
    fn push(&mut self, producer: &str, chain: ChainId, at_ms: i64, kind: &str, body: Value) {
        let seq = self.0.len() as u64 + 1;
        self.0.push(AuditRecord {
            entry: AuditEntry {
                tenant: TenantId::parse("t_acme").unwrap(),
                chain,
                producer: ProducerId::parse(producer).unwrap(),
                pseq: seq,
                kind: kind.to_owned(),
                occurred_at: Timestamp::from_unix_millis(T0 + at_ms),
                actor: Actor::system("test"),
                body,
                sealed: None,
                refs: None,
            },
            seq,
            prev: Hash::of(&[]),
        });
    }

    fn edge(mut self, at_ms: i64, kind: &str, mut body: Value) -> Self {
        body["mono_us"] = json!((at_ms + 70_000) * 1_000);
        self.push("edge-1", ChainId::of(&call()), at_ms, kind, body);
        self
    }

    fn late(mut self, at_ms: i64, kind: &str, body: Value) -> Self {
        self.push("api:job:1", ChainId::of(&call()).side(), at_ms, kind, body);
        self
    }

    fn rows(&self) -> Vec<Row> {
        Row::of(&call(), &self.0)
    }
}

fn begun() -> Ledger {
    Ledger::default()
        .edge(0, "call.received", json!({"caller_tag": "hm1:a", "direction": "inbound"}))
        .edge(0, "leg.opened", json!({"leg": 0, "role": "caller"}))
        .edge(10, "leg.opened", json!({"leg": 1, "role": "voice_agent"}))
        .edge(5_000, "utterance.ref", json!({}))
        .edge(6_000, "signal.received", json!({"kind": "intent", "values": [["intent:billing", 900]]}))
}

fn decided(ledger: Ledger, at_ms: i64, ordinal: u32, leg: u64) -> Ledger {
    let body =
        json!({"transfer_id": transfer(ordinal), "trigger": "loop", "rule_id": "r1", "target_id": "q1"});
    ledger
        .edge(at_ms, "transfer.decided", body)
        .edge(at_ms + 10, "leg.opened", json!({"leg": leg, "role": "human_agent"}))
        .edge(at_ms + 20, "agent.offered", json!({"agent_id": "ann", "attempt": 1, "leg": leg}))
}

fn ended(ledger: Ledger, at_ms: i64) -> Ledger {
    ledger
        .edge(
            at_ms,
            "leg.closed",
            json!({"leg": 0, "role": "caller", "cause": "remote_hang_up", "billed_ms": at_ms}),
        )
        .edge(
            at_ms,
            "leg.closed",
            json!({"leg": 1, "role": "voice_agent", "cause": "local_hang_up", "billed_ms": 21_000}),
        )
        .edge(at_ms + 5, "call.ended", json!({"cause": "normal", "side": "caller"}))
}

/// Decided at 9 s, answered at 15 s (the card was there at 14.7 s), bridged at 21 s, hung up
/// by the caller at 61 s.
fn whole() -> Ledger {
    let ledger = decided(begun(), 9_000, 1, 2)
        .edge(9_100, "payload.built", json!({"payload_id": PayloadId::of(&transfer(1)), "revision": 1, "generator": "template_fallback", "completeness_pm": 500}))
        .edge(10_000, "agent.ringing", json!({"agent_id": "ann", "attempt": 1}))
        .edge(14_700, "screenpop.acked", json!({"agent_id": "ann", "destination": "desktop"}))
        .edge(15_000, "agent.answered", json!({"agent_id": "ann", "leg": 2}))
        .edge(15_400, "transition.played", json!({"played_pm": 1_000, "anchor_s": 30}))
        .edge(15_500, "screenpop.acked", json!({"agent_id": "ann", "destination": "crm"}))
        .edge(20_000, "agent.accepted", json!({"agent_id": "ann", "leg": 2, "revision": 2}))
        .edge(21_000, "bridge.completed", json!({"transfer_id": transfer(1), "degraded": null}))
        .edge(22_000, "media.proof", json!({"transfer_id": transfer(1), "longest_silence_ms": 240}))
        .edge(22_000, "transfer.ended", json!({"transfer_id": transfer(1), "outcome": "completed"}));
    let ledger = ended(ledger, 61_000);
    let mut ledger = ledger.edge(
        61_006,
        "leg.closed",
        json!({"leg": 2, "role": "human_agent", "cause": "local_hang_up", "billed_ms": 46_000}),
    );
    // The function's payload reached the ledger last, and one came after the accept.
    for (revision, completeness) in [(2, 1_000), (3, 700)] {
        let body = json!({"payload_id": PayloadId::of(&transfer(1)), "transfer_id": transfer(1), "revision": revision,
            "generator": "model", "completeness_pm": completeness});
        ledger.push("build-payload:x:1", ChainId::of(&call()), 9_400, "payload.built", body);
    }
    ledger
}

#[test]
fn a_whole_transfer_is_one_row() {
    let rows = whole().rows();
    let [Row { transfer: Some(transfer), .. }] = rows.as_slice() else { panic!("{rows:?}") };
    let row = &rows[0];
    assert_eq!((row.left_out, row.legs_open, row.intent.as_deref()), (None, 0, Some("billing")));
    assert_eq!((row.started_at.unix_millis(), row.ended_at.unix_millis()), (T0, T0 + 61_006));
    assert_eq!((transfer.trigger, transfer.rule_id.as_deref()), (Some(Category::Loop), Some("r1")));
    assert_eq!((transfer.bridged_ms, transfer.ring_ms), (Some(12_000), 5_000));
    assert_eq!(transfer.pop_skew_ms, Some(-300), "the first card counts");
    assert_eq!(transfer.handled_ms, Some(46_000), "the clock starts at the answer: the whisper counts");
    assert_eq!((transfer.life_ms, transfer.cut_by.as_deref()), (Some(40_000), Some("remote_hang_up")));
    assert_eq!((transfer.dead_air_ms, transfer.promise_error_ms()), (Some(240), Some(-18_000)));
    assert_eq!(
        (transfer.completeness_pm, transfer.template),
        (Some(1_000), Some(false)),
        "the revision that was frozen counts, not the first and not a later one"
    );
    assert_eq!(transfer.outcome.as_deref(), Some("completed"));
    assert_eq!(row.key(), transfer.id.as_str());
}

#[test]
fn the_mode_is_the_one_that_the_decision_names_and_warm_where_it_names_none() {
    let of = |body: Value| {
        let rows = begun().edge(9_000, "transfer.decided", body).rows();
        rows[0].transfer.as_ref().unwrap().mode
    };
    assert_eq!(of(json!({"transfer_id": transfer(1), "mode": "cold"})), Mode::Cold);
    assert_eq!(of(json!({"transfer_id": transfer(1)})), Mode::Warm);
}

#[test]
fn the_order_of_the_ledger_does_not_matter() {
    let mut shuffled = whole();
    shuffled.0.reverse();
    assert_eq!(shuffled.rows(), whole().rows());
}

#[test]
fn a_disposition_may_tell_how_many_fields_were_asked_again() {
    let asked = |fields: Value| {
        let said =
            json!({"transfer_id": transfer(1), "code": "done", "resolved": true, "asked_again": fields});
        let rows = whole().late(100_000, "disposition.received", said).rows();
        rows[0].transfer.as_ref().unwrap().disposition.as_ref().unwrap().asked_again
    };
    assert_eq!((asked(json!(["a", "b"])), asked(json!([])), asked(Value::Null)), (Some(2), Some(0), None));
}

#[test]
fn the_last_disposition_wins_by_its_own_clock_and_adds_the_work_after() {
    let said = |resolved, acw_s| json!({"transfer_id": transfer(1), "code": "done", "resolved": resolved, "acw_s": acw_s});
    let before = whole();
    assert_eq!(before.rows()[0].transfer.as_ref().unwrap().handle_ms(), None, "unknown is not zero");
    // The later word reached the ledger first.
    let rows = whole()
        .late(200_000, "disposition.received", said(true, 10))
        .late(100_000, "disposition.received", said(false, 5))
        .rows();
    let transfer = rows[0].transfer.as_ref().unwrap();
    assert_eq!(
        transfer.disposition,
        Some(Disposition { code: "done".into(), resolved: true, acw_s: Some(10), asked_again: None })
    );
    assert_eq!(transfer.handle_ms(), Some(56_000));
    assert_eq!(rows[0].ended_at, before.rows()[0].ended_at, "what came late does not lengthen the call");
}

#[test]
fn each_transfer_of_a_call_has_its_row_and_knows_whether_one_followed() {
    let ledger = decided(begun(), 9_000, 1, 2)
        .edge(10_000, "agent.ringing", json!({"agent_id": "ann", "attempt": 1}))
        .edge(12_000, "caller.abandoned", json!({"transfer_id": transfer(1)}));
    let ledger = ended(decided(ledger, 30_000, 2, 3), 40_000);
    let found: Vec<(u32, bool, Option<u64>, u64)> = ledger
        .rows()
        .iter()
        .filter_map(|row| row.transfer.as_ref())
        .map(|transfer| (transfer.ordinal, transfer.followed, transfer.abandoned_ms, transfer.ring_ms))
        .collect();
    assert_eq!(found, [(1, true, Some(3_000), 2_000), (2, false, None, 0)], "the phone rang to the end");
}

#[test]
fn calls_that_say_nothing_are_left_out_with_the_reason() {
    let silent = Ledger::default().edge(0, "call.received", json!({"direction": "inbound"}));
    let rang = silent.edge(10, "leg.opened", json!({"leg": 1, "role": "voice_agent"}));
    let never = Ledger(rang.0.clone()).edge(
        3_000,
        "leg.closed",
        json!({"leg": 1, "role": "voice_agent", "billed_ms": 0}),
    );
    let tested =
        Ledger::default().edge(0, "call.received", json!({"direction": "inbound", "call_type": "test"}));
    let inside = Ledger::default().edge(0, "call.received", json!({"direction": "internal"}));
    for (ledger, expected) in [
        (begun(), Some(LeftOut::Running)),
        (ended(Ledger(rang.0.clone()), 9_000), Some(LeftOut::Silent)),
        (ended(rang, 10_000), None),
        (never.edge(3_000, "call.ended", json!({})), Some(LeftOut::NotAnswered)),
        (ended(tested, 90_000), Some(LeftOut::Test)),
        (ended(inside, 90_000), Some(LeftOut::Internal)),
        (ended(begun(), 9_000), None),
    ] {
        let rows = ledger.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].left_out, rows[0].key()), (expected, "call_1"), "{rows:?}");
    }
}

#[test]
fn a_restarted_edge_measures_by_the_wall_clock() {
    let mut ledger = decided(begun(), 9_000, 1, 2);
    ledger = ledger.edge(21_000, "bridge.completed", json!({"transfer_id": transfer(1)}));
    // The process began anew at 20 s: its monotonic clock did too.
    ledger.0.last_mut().unwrap().entry.body["mono_us"] = json!(1_000_000);
    assert_eq!(ledger.rows()[0].transfer.as_ref().unwrap().bridged_ms, Some(12_000));
}

#[test]
fn a_repeat_seen_elsewhere_counts_with_its_nearest_window() {
    let seen = |days| json!({"transfer_id": transfer(1), "window_days": days});
    let rows = whole()
        .late(1, "followup.repeat_contact", seen(7))
        .late(2, "followup.repeat_contact", seen(3))
        .rows();
    assert_eq!(rows[0].transfer.as_ref().unwrap().repeat_within_days, Some(3));
}

#[test]
fn records_without_members_stop_nothing_and_no_records_are_no_row() {
    let mut bare = whole();
    bare.0.iter_mut().for_each(|record| record.entry.body = json!(null));
    assert_eq!(bare.rows().len(), 1);
    assert_eq!(Row::of(&call(), &[]), []);
}

#[test]
fn a_row_is_stored_and_read_as_it_was() {
    let row = whole().rows().remove(0);
    let text = serde_json::to_string(&row).unwrap();
    assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    assert!(text.len() < 1_024, "a row is small: {} bytes", text.len());
}
