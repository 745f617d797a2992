//! The contract of the ports, as one set of questions to any back end: the embedded store
//! answers them in every test run, the cloud's adapters answer the same ones against an
//! emulator. A back end that needs another answer is not one.

#![expect(clippy::unwrap_used, reason = "what fails here is a failed question")]

use std::collections::BTreeMap;

use handoff::audit::verify::{Class, Report};
use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId, Sealed};
use handoff::clock::Timestamp;
use handoff::id::{CallId, PayloadId, TenantId, TransferId};
use handoff::seal::place;
use serde_json::json;
use tokio::task::JoinSet;

use crate::ports::{
    AppendAudit, AuditOutcome, ClaimOnce, Deliveries, DeliveryState, GetPayload, GetTranscript, Keys,
    PortError, PutPayload, PutTranscript, ReadAudit, StoredPayload,
};

/// What is asked of a back end beside its ports.
pub(crate) trait BackEnd:
    AppendAudit
    + ClaimOnce
    + Clone
    + Deliveries
    + GetPayload
    + GetTranscript
    + Keys
    + PutPayload
    + PutTranscript
    + ReadAudit
    + Send
    + Sync
    + 'static
{
    /// Closes what has ended, without any grace.
    async fn close_now(&self) -> Vec<CallId>;
    /// The verdict on one call.
    async fn verified(&self, call: &CallId) -> Report;
}

/// A call of its own for every question, so that questions share a back end.
fn fresh_call(name: &str) -> CallId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    let id = CallId::from_random(u128::from_be_bytes(bytes));
    CallId::parse(&format!("{name}-{}", &id.as_str()[id.as_str().len() - 12..])).unwrap()
}

pub(crate) fn tenant() -> TenantId {
    TenantId::parse("t_contract").unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_330_800_000 + millis)
}

fn entry(call: &CallId, producer: &str, pseq: u64, kind: &str, body: serde_json::Value) -> AuditMessage {
    AuditMessage::plain(AuditEntry {
        tenant: tenant(),
        chain: ChainId::of(call),
        producer: ProducerId::parse(producer).unwrap(),
        pseq,
        kind: kind.to_owned(),
        occurred_at: at(i64::try_from(pseq).unwrap()),
        actor: Actor::system("contract"),
        body,
        sealed: None,
        refs: None,
    })
}

/// A whole stream of `count` entries that ends the call.
fn stream(call: &CallId, count: u64) -> Vec<AuditMessage> {
    let mut entries: Vec<_> =
        (0..count - 2).map(|pseq| entry(call, "edge-1", pseq, "hold.started", json!({"n": pseq}))).collect();
    entries.push(entry(
        call,
        "edge-1",
        count - 2,
        "call.ended",
        json!({"cause": "normal", "side": "caller"}),
    ));
    entries.push(entry(call, "edge-1", count - 1, "producer.final", json!({"count": count})));
    entries
}

/// Nothing but what follows from an invented call: no tampering and no gap.
fn whole(report: &Report) -> bool {
    let bad = |class| matches!(class, Class::Tamper | Class::Incomplete | Class::Unreadable);
    let found: Vec<_> = report.findings.iter().filter(|finding| bad(finding.class)).collect();
    assert!(found.is_empty(), "{found:?}");
    true
}

pub(crate) async fn shuffled_and_repeated_entries_of_many_writers_give_one_whole_chain<B: BackEnd>(
    backend: &B,
) {
    const DISTINCT: u64 = 220;
    const WRITERS: usize = 16;
    let call = fresh_call("shuffled");
    let entries = stream(&call, DISTINCT);
    let mut sent: Vec<AuditMessage> = entries.clone();
    sent.extend(entries.iter().take(160).cloned());
    // A fixed shuffle: every message lands far from where it was.
    let len = sent.len();
    let shuffled: Vec<AuditMessage> = (0..len).map(|index| sent[index * 137 % len].clone()).collect();
    assert!(!len.is_multiple_of(137));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (backend, share) =
            (backend.clone(), shuffled.iter().skip(writer).step_by(WRITERS).cloned().collect::<Vec<_>>());
        writers.spawn(async move {
            let mut outcomes = Vec::new();
            for message in share {
                loop {
                    match backend.append(message.clone()).await {
                        Ok(outcome) => break outcomes.push(outcome),
                        // What a queue would bring again.
                        Err(PortError::Transient(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            outcomes
        });
    }
    let mut recorded = 0;
    while let Some(outcomes) = writers.join_next().await {
        for outcome in outcomes.unwrap() {
            match outcome {
                AuditOutcome::Recorded { late, .. } => {
                    assert!(!late);
                    recorded += 1;
                }
                AuditOutcome::Duplicate { .. } => {}
                AuditOutcome::Conflict { seq } => panic!("a conflict with {seq}"),
            }
        }
    }
    assert_eq!(recorded, DISTINCT);
    assert_eq!(backend.head(&tenant(), &call).await.unwrap().seq, DISTINCT);
    assert!(backend.close_now().await.contains(&call));
    assert_eq!(backend.head(&tenant(), &call).await.unwrap().seq, DISTINCT + 1);
    assert!(whole(&backend.verified(&call).await));
}

pub(crate) async fn a_duplicate_is_a_success_and_another_event_under_its_number_is_a_conflict<B: BackEnd>(
    backend: &B,
) {
    let call = fresh_call("twice");
    let first = entry(&call, "edge-1", 0, "hold.started", json!({"leg": 0}));
    let other = entry(&call, "edge-1", 0, "hold.started", json!({"leg": 1}));
    assert_eq!(backend.append(first.clone()).await, Ok(AuditOutcome::Recorded { seq: 1, late: false }));
    assert_eq!(backend.append(first).await, Ok(AuditOutcome::Duplicate { seq: 1 }));
    assert_eq!(backend.append(other).await, Ok(AuditOutcome::Conflict { seq: 1 }));
    assert_eq!(backend.head(&tenant(), &call).await.unwrap().seq, 1);
}

pub(crate) async fn what_comes_after_the_close_goes_to_the_side_chain<B: BackEnd>(backend: &B) {
    let call = fresh_call("late");
    for message in stream(&call, 4) {
        backend.append(message).await.unwrap();
    }
    assert!(backend.close_now().await.contains(&call));
    let late = |pseq| entry(&call, "api:disposition:1", pseq, "disposition.received", json!({"code": pseq}));
    assert_eq!(backend.append(late(0)).await, Ok(AuditOutcome::Recorded { seq: 2, late: true }));
    assert_eq!(backend.append(late(1)).await, Ok(AuditOutcome::Recorded { seq: 3, late: true }));
    assert_eq!(backend.append(late(0)).await, Ok(AuditOutcome::Duplicate { seq: 2 }));
    // Also a duplicate of what the closed chain itself holds.
    let known = stream(&call, 4).remove(1);
    assert_eq!(backend.append(known).await, Ok(AuditOutcome::Duplicate { seq: 2 }));
    assert!(whole(&backend.verified(&call).await));
    assert!(!backend.close_now().await.contains(&call), "a chain is closed once");
}

pub(crate) async fn two_calls_with_equal_producers_and_numbers_are_both_recorded<B: BackEnd>(backend: &B) {
    let calls = [fresh_call("one"), fresh_call("two")];
    for call in &calls {
        let message = entry(call, "edge-1", 0, "hold.started", json!({"leg": 0}));
        assert_eq!(backend.append(message).await, Ok(AuditOutcome::Recorded { seq: 1, late: false }));
    }
}

pub(crate) async fn an_open_call_is_not_closed<B: BackEnd>(backend: &B) {
    let call = fresh_call("open");
    backend.append(entry(&call, "edge-1", 0, "hold.started", json!({}))).await.unwrap();
    assert!(!backend.close_now().await.contains(&call));
}

pub(crate) async fn a_sealed_text_stays_beside_its_record_and_goes_with_its_key<B: BackEnd>(backend: &B) {
    let call = fresh_call("sealed");
    let dek = backend.data_key(&tenant(), &call).await.unwrap();
    let mut entries = stream(&call, 4);
    let message = &mut entries[0];
    message.entry.kind = "utterance.ref".to_owned();
    message.entry.body = json!({"segment": 0, "speaker": "caller", "offset_ms": 0});
    let place = place(&tenant(), call.as_str(), "edge-1", 0);
    let ciphertext = dek.key.seal([7; 12], &place, "my knee hurts".as_bytes());
    message.entry.sealed = Some(Sealed::beside(&dek.id, &ciphertext));
    message.ciphertext = Some(ciphertext.clone());
    for message in entries {
        backend.append(message).await.unwrap();
    }
    assert!(backend.close_now().await.contains(&call));
    assert!(whole(&backend.verified(&call).await));
    let again = backend.data_key(&tenant(), &call).await.unwrap();
    assert_eq!(again.key.open(&place, &ciphertext).unwrap().as_slice(), b"my knee hurts");
    assert_eq!(backend.destroy(&tenant(), &call).await.unwrap(), [dek.id]);
    assert!(matches!(backend.data_key(&tenant(), &call).await, Err(PortError::Permanent(_))));
    assert!(whole(&backend.verified(&call).await), "the chain covers ciphertext only");
}

fn payload(call: &CallId, revision: u32, bytes: &[u8]) -> StoredPayload {
    let payload = PayloadId::of(&TransferId::of(call, 1));
    StoredPayload { tenant: tenant(), call: call.clone(), payload, revision, bytes: bytes.to_vec() }
}

pub(crate) async fn a_payload_is_written_once_and_gone_with_its_key<B: BackEnd>(backend: &B) {
    let call = fresh_call("payload");
    let id = PayloadId::of(&TransferId::of(&call, 1));
    assert!(matches!(backend.payload(&tenant(), &id, None).await, Ok(None)));
    assert_eq!(backend.put_payload(payload(&call, 2, b"first")).await.unwrap(), b"first");
    assert_eq!(backend.put_payload(payload(&call, 2, b"second")).await.unwrap(), b"first");
    assert_eq!(backend.put_payload(payload(&call, 10, b"third")).await.unwrap(), b"third");
    let bytes = async |revision| {
        backend.payload(&tenant(), &id, revision).await.unwrap().map(|stored| (stored.revision, stored.bytes))
    };
    assert_eq!(bytes(Some(2)).await, Some((2, b"first".to_vec())));
    assert_eq!(bytes(None).await, Some((10, b"third".to_vec())));
    assert_eq!(bytes(Some(3)).await, None);
    backend.destroy(&tenant(), &call).await.unwrap();
    assert!(backend.payload(&tenant(), &id, Some(2)).await.is_err());
}

pub(crate) async fn a_large_payload_is_whole<B: BackEnd>(backend: &B) {
    let call = fresh_call("large");
    let bytes: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).step_by(3).collect();
    let large = payload(&call, 2, &bytes);
    backend.put_payload(large.clone()).await.unwrap();
    let stored = backend.payload(&tenant(), &large.payload, None).await.unwrap().unwrap();
    assert!(stored.bytes == bytes);
}

pub(crate) async fn a_transcript_is_replaced_and_gone_with_its_key<B: BackEnd>(backend: &B) {
    let call = fresh_call("transcript");
    assert_eq!(backend.transcript(&tenant(), &call).await, Ok(None));
    for text in ["one", "two"] {
        backend.put_transcript(&tenant(), &call, text.as_bytes().to_vec()).await.unwrap();
    }
    assert_eq!(backend.transcript(&tenant(), &call).await, Ok(Some(b"two".to_vec())));
    backend.destroy(&tenant(), &call).await.unwrap();
    assert!(backend.transcript(&tenant(), &call).await.is_err());
}

pub(crate) async fn a_call_has_one_key_however_many_ask_at_once<B: BackEnd>(backend: &B) {
    let call = fresh_call("key");
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let (backend, call) = (backend.clone(), call.clone());
        asking
            .spawn(async move { backend.data_key(&tenant(), &call).await.unwrap().key.payload_mac(b"same") });
    }
    let mut macs = BTreeMap::new();
    while let Some(mac) = asking.join_next().await {
        *macs.entry(mac.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(macs.into_values().collect::<Vec<_>>(), [8]);
}

pub(crate) async fn a_name_is_claimed_by_its_first_owner_for_ever<B: BackEnd>(backend: &B) {
    let name = fresh_call("claim").to_string();
    for (owner, first) in [("a", true), ("b", false), ("a", true), ("b", false)] {
        assert_eq!(backend.claim(&name, owner).await, Ok(first));
    }
}

pub(crate) async fn a_delivery_is_remembered_and_a_gone_destination_too<B: BackEnd>(backend: &B) {
    let call = fresh_call("delivery");
    let message_id = format!("msg_{call}");
    let mut state = DeliveryState {
        message_id: message_id.clone(),
        destination: "crm".to_owned(),
        kind: "warmbridge.transfer.offered.v1".to_owned(),
        call: call.clone(),
        attempts: 1,
        durable_failed: 0,
        status: None,
        state: "pending".to_owned(),
    };
    assert_eq!(backend.delivery(&message_id, "crm").await, Ok(None));
    backend.note_delivery(state.clone()).await.unwrap();
    (state.attempts, state.status, state.state) = (2, Some(204), "delivered".to_owned());
    backend.note_delivery(state.clone()).await.unwrap();
    assert_eq!(backend.delivery(&message_id, "crm").await, Ok(Some(state)));
    assert_eq!(backend.delivery(&message_id, "helpdesk").await, Ok(None));
    let destination = format!("gone-{call}");
    assert_eq!(backend.is_disabled(&destination).await, Ok(false));
    backend.disable(&destination).await.unwrap();
    assert_eq!(backend.is_disabled(&destination).await, Ok(true));
}

/// Every question, for whoever asks them.
macro_rules! questions {
    ($each:ident) => {
        $each! {
            shuffled_and_repeated_entries_of_many_writers_give_one_whole_chain,
            a_duplicate_is_a_success_and_another_event_under_its_number_is_a_conflict,
            what_comes_after_the_close_goes_to_the_side_chain,
            two_calls_with_equal_producers_and_numbers_are_both_recorded,
            an_open_call_is_not_closed,
            a_sealed_text_stays_beside_its_record_and_goes_with_its_key,
            a_payload_is_written_once_and_gone_with_its_key,
            a_large_payload_is_whole,
            a_transcript_is_replaced_and_gone_with_its_key,
            a_call_has_one_key_however_many_ask_at_once,
            a_name_is_claimed_by_its_first_owner_for_ever,
            a_delivery_is_remembered_and_a_gone_destination_too,
        }
    };
}

#[cfg(test)]
mod embedded {
    use std::sync::Arc;

    use handoff::audit::verify::Report;
    use handoff::id::CallId;

    use super::BackEnd;
    use crate::audit_read::verify_store;
    use crate::ports::AppendAudit;
    use crate::sqlite::{Store, wall_clock};

    impl BackEnd for Store {
        async fn close_now(&self) -> Vec<CallId> {
            self.close_complete().await.unwrap()
        }

        async fn verified(&self, call: &CallId) -> Report {
            verify_store(self.dir(), Some(call.as_str()))
        }
    }

    macro_rules! asked {
        ($($question:ident),+ $(,)?) => {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $question() {
                    let dir = tempfile::tempdir().unwrap();
                    let store = Store::open_with(dir.path(), Arc::new(wall_clock)).unwrap();
                    super::$question(&store).await;
                }
            )+
        };
    }
    questions!(asked);
}

/// Asks the stack that the environment names, and prints one line a question. A question that
/// is not answered as it must be ends with what was wrong.
#[cfg(feature = "contract")]
pub mod cloud {
    use std::io::Write as _;
    use std::process::ExitCode;

    use handoff::audit::retention::RetentionClass;
    use handoff::audit::verify::Report;
    use handoff::clock::Timestamp;
    use handoff::id::CallId;

    use super::BackEnd;
    use crate::aws::Cloud;
    use crate::aws::names::Names;
    use crate::aws::read::TableReader;

    impl BackEnd for Cloud {
        async fn close_now(&self) -> Vec<CallId> {
            self.close_after(0).await.unwrap()
        }

        async fn verified(&self, call: &CallId) -> Report {
            TableReader::open(&self.names.audit).await.verify(Some(call.as_str())).await.unwrap()
        }
    }

    async fn stack() -> Cloud {
        Cloud::connect(Names::from_environment(|name| std::env::var(name).ok())).await
    }

    /// One pass over the calls that are past six years at the time `at`, and what it came to.
    pub async fn expire(at: &str) -> ExitCode {
        let classes: Vec<_> = RetentionClass::named("hipaa").into_iter().collect();
        let Ok(at) = Timestamp::parse(at) else { return ExitCode::from(2) };
        let swept = stack().await.expire(&classes, false, at).await;
        let _ = writeln!(std::io::stdout().lock(), "{swept:?}");
        ExitCode::from(u8::from(swept.is_err()))
    }

    /// Asks every question.
    pub async fn ask() -> ExitCode {
        let cloud = stack().await;
        let mut failures = 0_u8;
        let mut say = |name: &str, answered: bool| {
            failures += u8::from(!answered);
            let verdict = if answered { "ok" } else { "FAILED" };
            let _ = writeln!(std::io::stdout().lock(), "{verdict} contract: {}", name.replace('_', " "));
        };
        macro_rules! asked {
            ($($question:ident),+ $(,)?) => {
                $(
                    let backend = cloud.clone();
                    let answered = tokio::spawn(async move { super::$question(&backend).await }).await;
                    say(stringify!($question), answered.is_ok());
                )+
            };
        }
        questions!(asked);
        ExitCode::from(failures)
    }
}
