//! The contract of the ports, on the embedded store.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use handoff::audit::verify::{Class, Report};
use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId, Sealed};
use handoff::checkpoint::Leaf;
use handoff::checkpoint::proof::Proof;
use handoff::checkpoint::tree::Frontier;
use handoff::clock::Day;
use handoff::delivery::Lane;
use handoff::event::WebhookKind;
use handoff::id::{CallId, DestinationId, EdgeId, PayloadId, TenantId, TransferId};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::dead::{DeadLetters, Replay};
use super::queue::{self, Batch, Release};
use super::*;
use crate::audit_read::{Reader, Vouched, verify_bundle, verify_store};
use crate::local::checkpointer::make_outside;
use crate::outbox::{JOB_VERSION, WebhookJob};
use crate::ports::{
    AUDIT, AppendAudit, AuditOutcome, ClaimOnce, Deliveries, Enqueue, GetPayload, GetTranscript, Keys,
    Outgoing, PARKED, PutPayload, PutRow, PutTranscript, ReadAudit, ReadRecords, ReadRows, SIGNALS,
    StoredPayload, StoredRow, WEBHOOKS_DURABLE,
};

/// A store whose clock stands until it is moved.
struct Fixture {
    store: Option<Store>,
    dir: TempDir,
    clock: Arc<AtomicI64>,
}

const T0: i64 = 1_795_330_800_000;

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(T0));
        let mut fixture = Self { store: None, dir, clock };
        fixture.reopen();
        fixture
    }

    fn reopen(&mut self) {
        self.store = None;
        let clock = self.clock.clone();
        let now = Arc::new(move || Timestamp::from_unix_millis(clock.load(Ordering::SeqCst)));
        self.store = Some(Store::open_with(self.dir.path(), now).unwrap());
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn pass(&self, time: Duration) {
        self.clock.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn receive(&self, queue: &'static str, max: usize) -> Batch {
        done(self.store().run(move |tx| queue::receive(tx, queue, max)))
    }

    fn delete(&self, message: &Received) {
        let (id, receives) = (message.id, message.receives);
        done(self.store().run(move |tx| queue::delete(tx, id, receives)));
    }

    fn send(&self, message: Outgoing) {
        done(self.store().submit(vec![Row::Send(message)]));
    }

    fn verify(&self) -> Report {
        verify_store(self.dir.path(), None)
    }

    /// Changes rows behind the store's back, as somebody with the file would.
    fn tamper(&self, sql: &str) {
        let changed = Connection::open(self.dir.path().join(DATABASE)).unwrap().execute(sql, []).unwrap();
        assert!(changed > 0, "{sql}");
    }
}

/// Waits on a thread of its own, so that async tests may use it too.
fn done<T: Send + 'static>(receipt: Receipt<T>) -> T {
    std::thread::spawn(move || receipt.wait().unwrap().value).join().unwrap()
}

fn tenant() -> TenantId {
    TenantId::parse("t_acme").unwrap()
}

fn call(name: &str) -> CallId {
    CallId::parse(name).unwrap()
}

fn text(body: &str) -> Outgoing {
    Outgoing::to(SIGNALS, &call("call_0001"), body.as_bytes().to_vec())
}

fn grouped(group: &str, body: &str) -> Outgoing {
    Outgoing {
        queue: AUDIT.to_owned(),
        group: Some(group.to_owned()),
        dedup: Some(format!("{group}-{body}")),
        ..text(body)
    }
}

fn bodies(batch: &Batch) -> Vec<String> {
    batch.messages.iter().map(|m| String::from_utf8(m.body.clone()).unwrap()).collect()
}

fn entry(name: &str, pseq: u64, kind: &str, body: serde_json::Value) -> AuditMessage {
    AuditMessage::plain(AuditEntry {
        tenant: tenant(),
        chain: ChainId::of(&call(name)),
        producer: ProducerId::parse("edge-1").unwrap(),
        pseq,
        kind: kind.to_owned(),
        occurred_at: Timestamp::from_unix_millis(T0),
        actor: Actor::system("edge-1"),
        body,
        sealed: None,
        refs: None,
    })
}

/// The facts of a small call, `count` of them.
fn facts(name: &str, count: u64) -> Vec<AuditMessage> {
    let signal =
        |pseq| entry(name, pseq, "signal.received", json!({"id": "s1", "kind": "topic", "values": []}));
    let mut facts: Vec<AuditMessage> = (0..count - 1).map(signal).collect();
    facts.push(entry(name, count - 1, "producer.final", json!({"count": count})));
    facts
}

#[test]
fn a_message_is_invisible_while_it_is_held_and_comes_again_if_it_is_not_deleted() {
    let fixture = Fixture::new();
    fixture.send(text("a"));
    let first = fixture.receive(SIGNALS, 10);
    assert_eq!(bodies(&first), ["a"]);
    let empty = fixture.receive(SIGNALS, 10);
    assert_eq!(empty.messages, []);
    assert_eq!(empty.next_at, Some(Timestamp::from_unix_millis(T0 + 30_000)));
    fixture.pass(Duration::from_secs(30));
    let again = fixture.receive(SIGNALS, 10);
    assert_eq!(again.messages[0].receives, 2);
    fixture.delete(&first.messages[0]);
    assert_eq!(fixture.store().depth(SIGNALS).unwrap(), 1, "the first holder's receipt is stale");
    fixture.delete(&again.messages[0]);
    assert_eq!(fixture.store().depth(SIGNALS).unwrap(), 0);
}

#[test]
fn after_too_many_receives_a_message_is_dead() {
    let fixture = Fixture::new();
    fixture.send(text("poison"));
    for _ in 0..3 {
        assert_eq!(fixture.receive(SIGNALS, 1).messages.len(), 1);
        fixture.pass(Duration::from_secs(31));
    }
    assert_eq!(fixture.receive(SIGNALS, 1).messages, []);
    assert_eq!(fixture.store().depth("signals-dlq").unwrap(), 1);
    assert_eq!(fixture.store().outstanding().unwrap(), 0);
}

#[test]
fn order_is_kept_within_a_group_and_only_there() {
    let fixture = Fixture::new();
    for (group, body) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
        fixture.send(grouped(group, body));
    }
    let first = fixture.receive(AUDIT, 1);
    assert_eq!(bodies(&first), ["a1"]);
    let others = fixture.receive(AUDIT, 10);
    assert_eq!(bodies(&others), ["b1"], "a2 waits for a1");
    fixture.delete(&first.messages[0]);
    assert_eq!(bodies(&fixture.receive(AUDIT, 10)), ["a2", "a3"]);
}

#[test]
fn a_second_message_with_the_same_id_is_dropped_for_five_minutes() {
    let fixture = Fixture::new();
    fixture.send(grouped("a", "x"));
    fixture.send(grouped("a", "x"));
    assert_eq!(fixture.store().depth(AUDIT).unwrap(), 1);
    fixture.pass(Duration::from_secs(301));
    fixture.send(grouped("a", "x"));
    assert_eq!(fixture.store().depth(AUDIT).unwrap(), 2);
}

#[test]
fn a_delayed_message_waits_and_a_deferred_one_is_not_waited_for() {
    let fixture = Fixture::new();
    fixture.send(Outgoing {
        delay: Duration::from_secs(9),
        queue: WEBHOOKS_DURABLE.to_owned(),
        ..text("later")
    });
    assert_eq!(fixture.receive(WEBHOOKS_DURABLE, 1).messages, []);
    fixture.pass(Duration::from_secs(9));
    let held = fixture.receive(WEBHOOKS_DURABLE, 1).messages;
    assert_eq!(fixture.store().outstanding().unwrap(), 1);
    let (id, receives) = (held[0].id, held[0].receives);
    let release =
        move |tx: &Tx<'_>| queue::release(tx, id, receives, Duration::from_secs(300), Release::Deferred);
    fixture.store().run(release).wait().unwrap();
    assert_eq!(fixture.store().outstanding().unwrap(), 0);
    fixture.pass(Duration::from_secs(300));
    assert_eq!(fixture.receive(WEBHOOKS_DURABLE, 1).messages.len(), 1);
}

#[test]
fn a_parked_message_keeps_its_reason_and_blocks_nobody() {
    let fixture = Fixture::new();
    fixture.send(grouped("a", "bad"));
    fixture.send(grouped("a", "good"));
    let bad = fixture.receive(AUDIT, 1).messages.remove(0);
    fixture.store().run(move |tx| queue::park(tx, bad.id, bad.receives, "garbage")).wait().unwrap();
    assert_eq!(bodies(&fixture.receive(AUDIT, 10)), ["good"]);
    assert_eq!(fixture.store().depth(PARKED).unwrap(), 1);
}

#[test]
fn what_a_dead_process_held_is_visible_again_at_once() {
    let mut fixture = Fixture::new();
    fixture.send(text("a"));
    assert_eq!(fixture.receive(SIGNALS, 1).messages.len(), 1);
    fixture.reopen();
    assert_eq!(bodies(&fixture.receive(SIGNALS, 1)), ["a"]);
}

#[test]
fn a_store_belongs_to_one_process_at_a_time() {
    let mut fixture = Fixture::new();
    let second = || Store::open(fixture.dir.path()).map(drop);
    assert!(matches!(second(), Err(StoreError::InUse)));
    fixture.store = None;
    assert!(Store::open(fixture.dir.path()).is_ok());
}

#[test]
fn dead_webhooks_are_listed_without_content_and_sent_again_with_the_same_bytes() {
    let fixture = Fixture::new();
    let job = |id: &str, destination: &str| WebhookJob {
        version: JOB_VERSION,
        tenant: tenant(),
        edge: EdgeId::parse("edge-1").unwrap(),
        commands: String::new(),
        call: call("call_dead"),
        transfer: None,
        revision: None,
        message_id: id.to_owned(),
        kind: WebhookKind::Bridged,
        destination: DestinationId::parse(destination).unwrap(),
        lane: Lane::Durable,
        body: format!("body of {id}"),
    };
    for job in [job("msg_a", "crm"), job("msg_b", "crm"), job("msg_c", "warehouse")] {
        fixture.send(job.outgoing());
        let held = fixture.receive(WEBHOOKS_DURABLE, 1).messages.remove(0);
        fixture.store().run(move |tx| queue::bury(tx, held.id, held.receives)).wait().unwrap();
    }
    let mut dead = DeadLetters::open(fixture.dir.path()).unwrap();
    let ids = |dead: &DeadLetters| -> Vec<String> {
        dead.list().unwrap().into_iter().map(|letter| letter.message_id).collect()
    };
    assert_eq!(ids(&dead), ["msg_a", "msg_b", "msg_c"]);
    assert_eq!(dead.replay(&Replay::Message("msg_x".to_owned())).unwrap(), 0);
    assert_eq!(dead.replay(&Replay::Message("msg_a".to_owned())).unwrap(), 1);
    assert_eq!(dead.replay(&Replay::Destination(DestinationId::parse("warehouse").unwrap())).unwrap(), 1);
    assert_eq!(ids(&dead), ["msg_b"]);
    // The command stamps the wall clock, the store of this test has a clock of its own.
    let read =
        |row: &rusqlite::Row<'_>| -> rusqlite::Result<(u32, String)> { Ok((row.get(0)?, row.get(1)?)) };
    let waiting: Vec<(u32, String)> = fixture
        .store()
        .read(|conn, _| {
            let mut rows = conn.prepare("SELECT receives, name FROM queue WHERE name = ?1")?;
            let rows = rows.query_map([WEBHOOKS_DURABLE], read)?.collect::<Result<_, _>>()?;
            Ok(rows)
        })
        .unwrap();
    assert_eq!(waiting, [(0, WEBHOOKS_DURABLE.to_owned()), (0, WEBHOOKS_DURABLE.to_owned())]);
    assert_eq!(dead.replay(&Replay::Everything).unwrap(), 1);
    assert_eq!(ids(&dead), [""; 0]);
}

#[test]
fn bodies_are_sealed_at_rest_and_the_key_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let mut fixture = Fixture::new();
    fixture.send(text("my number is 555-0142"));
    fixture.store = None;
    let mut files = 0;
    for file in fs::read_dir(fixture.dir.path()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"555-0142"));
        files += 1;
    }
    assert_eq!(files, 2, "a clean exit leaves the database and the key, no log");
    let mode = fs::metadata(fixture.dir.path().join(KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_failing_or_panicking_job_fails_alone_and_commit_numbers_grow() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let write = |tx: &Tx<'_>| queue::send(tx, &text("kept"));
    let first = store.run(write);
    let failed = store.run(|tx| {
        queue::send(tx, &text("lost"))?;
        Err::<(), _>(StoreError::Damaged("on purpose"))
    });
    let panicked = store.run(|tx| -> Result<(), StoreError> {
        queue::send(tx, &text("lost"))?;
        panic!("a bug")
    });
    let last = store.run(write);
    let first = first.wait().unwrap().commit;
    assert!(matches!(failed.wait(), Err(StoreError::Damaged(_))));
    assert!(matches!(panicked.wait(), Err(StoreError::Panicked)));
    let last = last.wait().unwrap().commit;
    assert!(first >= 1 && last >= first);
    assert!(store.run(write).wait().unwrap().commit > last);
    assert_eq!(store.depth(SIGNALS).unwrap(), 3);
}

#[tokio::test]
async fn many_rows_are_written_together_or_not_at_all() {
    let fixture = Fixture::new();
    let messages: Vec<Outgoing> = (0..50).map(|n| text(&n.to_string())).collect();
    fixture.store().enqueue(messages).await.unwrap();
    assert_eq!(fixture.store().depth(SIGNALS).unwrap(), 50);
}

#[tokio::test]
async fn a_name_is_claimed_by_its_first_owner_for_ever() {
    let mut fixture = Fixture::new();
    assert!(fixture.store().claim("decision:x", "call:1").await.unwrap());
    assert!(!fixture.store().claim("decision:x", "call:2").await.unwrap());
    fixture.reopen();
    assert!(fixture.store().claim("decision:x", "call:1").await.unwrap());
    assert!(!fixture.store().is_disabled("crm").await.unwrap());
    fixture.store().disable("crm").await.unwrap();
    assert!(fixture.store().is_disabled("crm").await.unwrap());
}

#[tokio::test]
async fn payloads_are_written_once_and_gone_when_their_key_is() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let payload = PayloadId::of(&TransferId::parse("xfer_1").unwrap());
    let stored = |revision, bytes: &[u8]| StoredPayload {
        tenant: tenant(),
        call: call("call_0001"),
        payload: payload.clone(),
        revision,
        bytes: bytes.to_vec(),
    };
    assert_eq!(store.put_payload(stored(2, b"two")).await.unwrap(), b"two");
    assert_eq!(store.put_payload(stored(2, b"other")).await.unwrap(), b"two");
    store.put_payload(stored(1, b"one")).await.unwrap();
    let highest = store.payload(&tenant(), &payload, None).await.unwrap().unwrap();
    assert_eq!((highest.revision, highest.bytes.as_slice()), (2, &b"two"[..]));
    let first = store.payload(&tenant(), &payload, Some(1)).await.unwrap().unwrap();
    assert_eq!(first.bytes, b"one");
    store.put_transcript(&tenant(), &call("call_0001"), b"hello".to_vec()).await.unwrap();
    assert_eq!(store.transcript(&tenant(), &call("call_0001")).await.unwrap().unwrap(), b"hello");

    store.hold(&tenant(), &call("call_0001"), true).committed().await.unwrap();
    assert_eq!(store.destroy(&tenant(), &call("call_0001")).await.unwrap(), ["dek-1"]);
    assert!(store.payload(&tenant(), &payload, None).await.is_err());
    assert!(store.transcript(&tenant(), &call("call_0001")).await.is_err());
    assert!(
        store.data_key(&tenant(), &call("call_0001")).await.is_err(),
        "a destroyed key is not made again"
    );
}

#[tokio::test]
async fn erasure_leaves_the_chain_whole_and_a_hold_prevents_it() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let key = store.data_key(&tenant(), &call("call_0001")).await.unwrap();
    let ciphertext = key.key.seal(nonce().unwrap(), "place", b"what was said");
    let mut said =
        entry("call_0001", 0, "utterance.ref", json!({"segment": 0, "speaker": "caller", "offset_ms": 1}));
    said.entry.sealed = Some(Sealed::beside(&key.id, &ciphertext));
    said.ciphertext = Some(ciphertext.clone());
    store.append(said).await.unwrap();
    store.append(entry("call_0001", 1, "producer.final", json!({"count": 2}))).await.unwrap();
    assert_eq!(store.close_complete().await.unwrap(), [call("call_0001")]);

    store.hold(&tenant(), &call("call_0001"), true).committed().await.unwrap();
    assert!(store.destroy(&tenant(), &call("call_0001")).await.is_err());
    store.hold(&tenant(), &call("call_0001"), false).committed().await.unwrap();
    store.destroy(&tenant(), &call("call_0001")).await.unwrap();
    let report = fixture.verify();
    assert_eq!(report.exit_code(), 0);
    assert!(report.findings.iter().any(|f| f.class == Class::Warning && f.text.contains("erased")));
    fixture.tamper("UPDATE audit SET ct = x'00' WHERE seq = 1");
    assert_eq!(fixture.verify().exit_code(), 1);
}

#[tokio::test]
async fn erasure_takes_what_waits_or_is_parked_and_leaves_the_ledgers_entries() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let erased = call("call_0001");
    store.data_key(&tenant(), &erased).await.unwrap();
    fixture.send(Outgoing::to(SIGNALS, &erased, b"what was said".to_vec()));
    fixture.send(Outgoing::to(WEBHOOKS_DURABLE, &erased, b"about whom".to_vec()));
    fixture.send(Outgoing::to(SIGNALS, &call("call_0002"), b"somebody else".to_vec()));
    fixture.send(Outgoing::audit(&facts("call_0001", 4)[0]).unwrap());
    let parked = fixture.receive(SIGNALS, 1).messages.remove(0);
    done(store.run(move |tx| queue::park(tx, parked.id, parked.receives, "garbage")));
    store.destroy(&tenant(), &erased).await.unwrap();
    let depths = [SIGNALS, WEBHOOKS_DURABLE, PARKED, AUDIT].map(|queue| store.depth(queue).unwrap());
    assert_eq!(depths, [1, 0, 0, 1]);
}

#[tokio::test]
async fn a_damaged_chain_does_not_keep_the_others_open() {
    let fixture = Fixture::new();
    for name in ["call_0001", "call_0002"] {
        for fact in facts(name, 4) {
            fixture.store().append(fact).await.unwrap();
        }
    }
    fixture.tamper("UPDATE audit_head SET hash = 'x' WHERE chain = 'call_0001'");
    assert_eq!(fixture.store().close_complete().await.unwrap(), [call("call_0002")]);
    let report = fixture.verify();
    assert_eq!(report.exit_code(), 1);
    assert!(report.findings.iter().all(|finding| finding.chain == "call_0001"), "{:?}", report.findings);
}

#[tokio::test]
async fn a_store_of_another_version_or_without_its_key_is_refused() {
    let mut fixture = Fixture::new();
    fixture.store().data_key(&tenant(), &call("call_0001")).await.unwrap();
    fixture.store = None;
    let dir = fixture.dir.path();
    let key = fs::read(dir.join(KEY_FILE)).unwrap();
    fs::remove_file(dir.join(KEY_FILE)).unwrap();
    assert!(matches!(Store::open(dir), Err(StoreError::File(_))));
    fs::write(dir.join(KEY_FILE), b"short").unwrap();
    assert!(matches!(Store::open(dir), Err(StoreError::Sealed(_))));
    fs::write(dir.join(KEY_FILE), key).unwrap();
    drop(Store::open(dir).unwrap());
    let file = Connection::open(fixture.dir.path().join(DATABASE)).unwrap();
    file.pragma_update(None, "user_version", 1).unwrap();
    assert!(matches!(Store::open(fixture.dir.path()), Err(StoreError::Version(1))));
    assert_eq!(verify_store(fixture.dir.path(), None).exit_code(), 4);
}

#[tokio::test]
async fn what_was_said_is_shown_while_its_key_exists() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let key = fresh_key().unwrap();
    let event = handoff::event::CallEvent {
        edge: EdgeId::parse("edge-1").unwrap(),
        tenant: tenant(),
        call: call("call_0001"),
        seq: 0,
        time: Timestamp::from_unix_millis(T0),
        mono_us: 0,
        commands: String::new(),
        fact: handoff::event::Fact::Utterance {
            segment: 0,
            speaker: handoff::signal::Speaker::Caller,
            offset_ms: 0,
            text: Some(handoff::pii::Pii::new("my knee hurts".to_owned())),
        },
        evaluable: None,
    };
    let said = handoff::audit::entry::entry_of(&event, &key, nonce().unwrap());
    let row = Row::Key { tenant: tenant(), call: call("call_0001"), key };
    store.submit([row]).committed().await.unwrap();
    store.append(said).await.unwrap();
    let shown = || Reader::open(fixture.dir.path()).unwrap().show("call_0001").unwrap().remove(0);
    assert!(shown().line().contains("“my knee hurts”"));
    store.destroy(&tenant(), &call("call_0001")).await.unwrap();
    assert_eq!((shown().text, shown().sealed), (None, true));
}

#[tokio::test]
async fn shuffled_and_repeated_entries_from_many_writers_give_one_verified_chain() {
    let fixture = Fixture::new();
    let facts = facts("call_0001", 200);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let store = fixture.store().clone();
        let mine: Vec<AuditMessage> = facts
            .iter()
            .enumerate()
            .filter(|(n, _)| n % 16 == writer || n % 13 == writer)
            .map(|(_, f)| f.clone())
            .collect();
        tasks.spawn(async move {
            let mut recorded = 0;
            for fact in mine.into_iter().rev() {
                let repeated = store.append(fact.clone()).await.unwrap();
                recorded += usize::from(matches!(repeated, AuditOutcome::Recorded { .. }));
                assert!(matches!(store.append(fact).await.unwrap(), AuditOutcome::Duplicate { .. }));
            }
            recorded
        });
    }
    let recorded: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(recorded, 200);
    assert_eq!(fixture.store().close_complete().await.unwrap().len(), 1);
    let report = fixture.verify();
    assert_eq!((report.exit_code(), report.records), (0, 201), "{:?}", report.findings);
}

#[tokio::test]
async fn a_chain_closes_when_all_is_there_or_after_a_quarter_of_an_hour() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let mut all = facts("call_0001", 3);
    let late = all.remove(1);
    for fact in all {
        store.append(fact).await.unwrap();
    }
    assert_eq!(store.close_complete().await.unwrap(), [], "an entry is missing");
    fixture.pass(Duration::from_millis(15 * 60_000 + 1));
    assert_eq!(store.close_complete().await.unwrap().len(), 1);
    assert_eq!(fixture.verify().exit_code(), 2);
    assert!(matches!(
        store.append(late.clone()).await.unwrap(),
        AuditOutcome::Recorded { seq: 2, late: true }
    ));
    assert!(matches!(store.append(late).await.unwrap(), AuditOutcome::Duplicate { seq: 2 }));
    assert_eq!(fixture.verify().exit_code(), 0, "main and side chain are complete together");

    for fact in facts("call_0002", 2) {
        store.append(fact).await.unwrap();
    }
    fixture.send(Outgoing::to(SIGNALS, &call("call_0002"), b"x".to_vec()));
    assert_eq!(store.close_complete().await.unwrap(), [], "a message of the call is on its way");
    let message = fixture.receive(SIGNALS, 1).messages.remove(0);
    fixture.delete(&message);
    assert_eq!(store.close_complete().await.unwrap(), [call("call_0002")]);
}

#[tokio::test]
async fn two_calls_with_equal_producers_and_numbers_are_both_recorded() {
    let fixture = Fixture::new();
    for name in ["call_0001", "call_0002"] {
        for fact in facts(name, 5) {
            fixture.store().append(fact).await.unwrap();
        }
    }
    let conflict =
        entry("call_0001", 1, "signal.received", json!({"id": "s2", "kind": "topic", "values": []}));
    assert_eq!(fixture.store().append(conflict).await.unwrap(), AuditOutcome::Conflict { seq: 2 });
    assert_eq!(fixture.store().head(&tenant(), &call("call_0002")).await.unwrap().seq, 5);
    let reader = Reader::open(fixture.dir.path()).unwrap();
    assert_eq!(reader.list().unwrap().len(), 2);
    assert_eq!(reader.show("call_0001").unwrap().len(), 5);
}

#[tokio::test]
async fn who_edits_the_file_is_found_out() {
    let attacks = [
        "UPDATE audit SET cj = CAST(replace(CAST(cj AS TEXT), 'topic', 'tonic') AS BLOB) WHERE seq = 2",
        "UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 2",
        "DELETE FROM audit WHERE seq >= 4",
        "DELETE FROM audit",
        "DELETE FROM audit_head",
        "UPDATE audit_head SET seq = 4",
        "UPDATE audit_head SET state = 'open'",
        "UPDATE audit SET seq = 99 WHERE seq = 2",
        "UPDATE audit SET chain = 'call_0009'",
        "UPDATE audit SET chain = 'no chain'",
        "UPDATE audit_head SET hash = 'x'",
        "UPDATE audit_head SET seq = -1",
        "UPDATE audit_head SET hash = CAST(x'ff' AS TEXT)",
        "UPDATE audit_head SET state = 'whatever'",
        "UPDATE audit_head SET chain = CAST(x'ff' AS TEXT)",
        "UPDATE audit SET seq = -2 WHERE seq = 2",
        "UPDATE audit SET cj = x'ff00' WHERE seq = 2",
        "UPDATE audit SET cj = x'' WHERE seq = 2",
        "UPDATE audit SET recorded_at = CAST(x'ff' AS TEXT) WHERE seq = 2",
        "UPDATE audit SET tenant = '' WHERE seq = 2",
        "UPDATE audit_keys SET state = CAST(x'ff' AS TEXT)",
    ];
    for attack in attacks {
        let fixture = Fixture::new();
        fixture.store().data_key(&tenant(), &call("call_0001")).await.unwrap();
        for fact in facts("call_0001", 4) {
            fixture.store().append(fact).await.unwrap();
        }
        fixture.store().close_complete().await.unwrap();
        assert_eq!(fixture.verify().exit_code(), 0, "{attack}");
        fixture.tamper(attack);
        assert_eq!(fixture.verify().exit_code(), 1, "{attack}");
    }
}

#[tokio::test]
async fn a_bundle_with_its_proof_shows_what_a_forger_who_knows_the_format_changed() {
    let (fixture, forger) = (Fixture::new(), Fixture::new());
    let notes = tempfile::tempdir().unwrap();
    for fact in facts("call_0001", 4) {
        fixture.store().append(fact).await.unwrap();
    }
    for fact in facts("call_0001", 5) {
        forger.store().append(fact).await.unwrap();
    }
    for own in [&fixture, &forger] {
        own.store().close_complete().await.unwrap();
    }
    make_outside(fixture.dir.path(), notes.path()).await.unwrap();
    let of_log = |name: &str| fs::read(notes.path().join(tenant().as_str()).join(name)).unwrap();
    let leaves = Leaf::read_lines(&of_log("000000000001.leaves")).unwrap();
    let note = String::from_utf8(of_log("000000000001.note")).unwrap();
    let proof = Proof::of(&leaves[0], &Frontier::default(), &leaves, &note).unwrap();
    let path = |name: &str| notes.path().join(name);
    fs::write(path("proof.json"), proof.print()).unwrap();
    let vouched = Vouched::read(&path("proof.json"), &path("keyring.toml")).unwrap();
    let verdict = |own: &Fixture, chain: &str| {
        let bundle = Reader::open(own.dir.path()).unwrap().export(chain).unwrap();
        fs::write(path("bundle"), &bundle.jsonl).unwrap();
        (
            verify_bundle(&path("bundle"), None).exit_code(),
            verify_bundle(&path("bundle"), Some(&vouched)).exit_code(),
        )
    };
    assert_eq!(verdict(&fixture, "call_0001"), (0, 0));
    assert_eq!(verdict(&forger, "call_0001"), (0, 1), "whole by itself, and not what was signed");
    for fact in facts("call_0002", 4) {
        fixture.store().append(fact).await.unwrap();
    }
    fixture.store().close_complete().await.unwrap();
    assert_eq!(verdict(&fixture, "call_0002"), (0, 1), "the proof is of another call");
    assert!(Vouched::read(&path("bundle"), &path("keyring.toml")).unwrap_err().contains("does not parse"));
}

#[tokio::test]
async fn an_exported_bundle_verifies_and_what_is_no_store_cannot_be_read() {
    let fixture = Fixture::new();
    for fact in facts("call_0001", 4) {
        fixture.store().append(fact).await.unwrap();
    }
    fixture.store().close_complete().await.unwrap();
    let bundle = Reader::open(fixture.dir.path()).unwrap().export("call_0001").unwrap();
    assert_eq!(bundle.meta.iter().filter(|byte| **byte == b'\n').count(), 5);
    let path = fixture.dir.path().join("call_0001.jsonl");
    fs::write(&path, &bundle.jsonl).unwrap();
    assert_eq!(verify_bundle(&path, None).exit_code(), 0);
    fs::write(&path, String::from_utf8(bundle.jsonl).unwrap().replace("topic", "tonic")).unwrap();
    assert_eq!(verify_bundle(&path, None).exit_code(), 1);
    fs::write(&path, "hello\n").unwrap();
    assert_eq!(verify_bundle(&path, None).exit_code(), 4);
    assert_eq!(verify_store(Path::new("/nowhere"), None).exit_code(), 4);
    assert_eq!(verify_store(fixture.dir.path(), Some("call_none")).exit_code(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The process dies between any two calls of the store: what was answered is there, in
    /// order, and whatever is sent again adds nothing.
    #[test]
    fn a_crash_between_any_two_calls_leaves_no_gap_and_no_double(cuts in prop::collection::vec(0_usize..9, 1..4)) {
        let mut fixture = Fixture::new();
        for fact in facts("call_0001", 8) {
            fixture.send(Outgoing::audit(&fact).unwrap());
        }
        let mut cuts = cuts.into_iter();
        while fixture.store().depth(AUDIT).unwrap() > 0 {
            let mut steps = cuts.next().unwrap_or(usize::MAX);
            'alive: for message in fixture.receive(AUDIT, 10).messages {
                let fact = AuditMessage::from_json(&message.body).unwrap();
                for delete in [false, true] {
                    if steps == 0 {
                        fixture.reopen();
                        break 'alive;
                    }
                    steps -= 1;
                    if delete {
                        fixture.delete(&message);
                    } else {
                        let fact = fact.clone();
                        fixture.store().run(move |tx| ledger::append_message(tx, &fact)).wait().unwrap();
                    }
                }
            }
        }
        fixture.store().run(ledger::close_complete).wait().unwrap();
        let report = fixture.verify();
        prop_assert_eq!((report.exit_code(), report.records), (0, 9));
    }
}

#[tokio::test]
async fn a_row_is_replaced_under_its_key_and_read_by_its_day() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let tenant = TenantId::parse("t_acme").unwrap();
    let day = Day::of(store.wall());
    let row = |day, key: &str, body: &[u8]| StoredRow {
        tenant: tenant.clone(),
        day,
        key: key.to_owned(),
        body: body.to_vec(),
    };
    for row in [
        row(day, "xfer_2", b"two"),
        row(day, "xfer_1", b"one"),
        row(day.next(), "xfer_3", b"three"),
        row(day, "xfer_1", b"one again"),
    ] {
        store.put_row(row).await.unwrap();
    }
    let found = store.rows(&tenant, day).await.unwrap();
    assert_eq!(found, [row(day, "xfer_1", b"one again"), row(day, "xfer_2", b"two")]);
    let other = TenantId::parse("t_other").unwrap();
    assert_eq!(store.rows(&other, day).await.unwrap(), []);
}

#[tokio::test]
async fn the_records_of_a_call_are_read_with_what_came_late_behind_them() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for fact in facts("call_0001", 3) {
        store.append(fact).await.unwrap();
    }
    store.append(facts("call_0002", 2).remove(0)).await.unwrap();
    store.close_complete().await.unwrap();
    store.append(entry("call_0001", 7, "disposition.received", json!({}))).await.unwrap();
    let records = store.records(&tenant(), &call("call_0001")).await.unwrap();
    let kinds: Vec<&str> = records.iter().map(|record| record.entry.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "signal.received",
            "signal.received",
            "producer.final",
            "chain.closed",
            "late.opened",
            "disposition.received"
        ]
    );
    assert!(store.records(&tenant(), &call("call_0003")).await.unwrap().is_empty());
}
