//! Retention from outside the process that has the store: calls whose time is up under every
//! class that the operator names go with their keys and rows, and one record in the chain of
//! their tenant says so, in the same transaction. A legal hold keeps a call, and so does a
//! chain that does not verify: deleting it would destroy the traces of whoever changed it.

use std::collections::BTreeSet;
use std::path::Path;

use handoff::audit::retention::{Expiring, RetentionClass, governing};
use handoff::audit::verify::{Class, Source, StoredChain, verify};
use handoff::audit::{AuditMessage, AuditRecord, ChainId};
use handoff::clock::{DAY_MS, Day, Timestamp};
use handoff::id::{CallId, TenantId};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use serde_json::Value;

use super::writer::Tx;
use super::{BUSY_TIMEOUT_MS, DATABASE, StoreError, ledger, read_key, schema, vault, wall_clock};
use crate::ports::AUDIT;

/// Most calls that one sweep looks at, the oldest first. The next one goes on; more would keep
/// too many names in memory.
const CALLS_MAX: usize = 100_000;

/// What becomes of a call whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It would go.
    Due,
    /// It went.
    Expired,
    /// A legal hold stands on it.
    Held,
    /// It does not verify, and stays as evidence.
    Unverified,
    /// Entries of it are still on their way to the ledger.
    Underway,
}

/// A call whose time is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Which.
    pub call: CallId,
    /// The class that kept it longest.
    pub class: RetentionClass,
    /// Until when.
    pub until: Timestamp,
    /// What becomes of it.
    pub fate: Fate,
}

/// Every call whose time is up under all of `classes`, the oldest first; with `apply` those
/// that may go are deleted, each in a transaction of its own, in the name of `actor`.
pub fn sweep(
    dir: &Path,
    classes: &[RetentionClass],
    actor: &str,
    apply: bool,
) -> Result<Vec<Past>, StoreError> {
    sweep_at(dir, classes, actor, apply, wall_clock())
}

fn sweep_at(
    dir: &Path,
    classes: &[RetentionClass],
    actor: &str,
    apply: bool,
    now: Timestamp,
) -> Result<Vec<Past>, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(dir.join(DATABASE), flags)?;
    conn.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    schema::check(&conn)?;
    // What is overwritten must not stay readable in a free page.
    conn.pragma_update(None, "secure_delete", true)?;
    let store_key = read_key(dir)?;
    let mut past = Vec::new();
    for (tenant, call) in old(&conn, classes, now)? {
        let transaction = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate)?;
        let tx = Tx::new(&transaction, &store_key, now);
        let Some(mut one) = judged(&tx, &tenant, &call, classes)? else { continue };
        if one.fate == Fate::Due && apply {
            delete(&tx, &tenant, &call, classes, actor)?;
            transaction.commit()?;
            one.fate = Fate::Expired;
        }
        past.push(one);
    }
    // The log holds old pages until it is folded in; a reader may put that off until the next
    // clean exit.
    let _busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    Ok(past)
}

/// Closed calls that began long enough ago to be past their time. A call is closed after it
/// began, so none is missed.
fn old(
    conn: &Connection,
    classes: &[RetentionClass],
    now: Timestamp,
) -> Result<Vec<(TenantId, CallId)>, StoreError> {
    let Some(days) = classes.iter().map(|class| class.days).max() else { return Ok(Vec::new()) };
    let before = now.plus_millis(-i64::from(days) * DAY_MS).unix_millis();
    let mut statement = conn.prepare(
        "SELECT tenant, chain FROM audit_head WHERE state = 'closed' AND started_at <= ?1
         ORDER BY started_at, tenant, chain LIMIT ?2",
    )?;
    let rows = statement.query_map(params![before, CALLS_MAX], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut calls = Vec::new();
    for row in rows {
        let (tenant, chain) = row?;
        // A name that is none is the verifier's business.
        if let (Ok(tenant), Ok(call)) = (TenantId::parse(&tenant), CallId::parse(&chain)) {
            calls.push((tenant, call));
        }
    }
    Ok(calls)
}

/// What may become of a call; `None` while its time is not up.
fn judged(
    tx: &Tx<'_>,
    tenant: &TenantId,
    call: &CallId,
    classes: &[RetentionClass],
) -> Result<Option<Past>, StoreError> {
    let of = |class, until, fate| Some(Past { call: call.clone(), class, until, fate });
    let chains = ledger::stored_call(tx.conn, tenant.as_str(), call.as_str());
    let (main, side) = match chains {
        Ok(chains) => chains,
        Err(StoreError::Damaged(_)) => {
            return Ok(governing(classes, tx.now).and_then(|(class, _)| of(class, tx.now, Fate::Unverified)));
        }
        Err(error) => return Err(error),
    };
    let Some(closed_at) = main.closed_at() else { return Ok(None) };
    let Some((class, until)) = governing(classes, closed_at).filter(|(_, until)| *until <= tx.now) else {
        return Ok(None);
    };
    let report = verify(&main, side.as_ref(), Source::Store, tx.now);
    let fate = if held(tx.conn, tenant, call)? {
        Fate::Held
    } else if report.findings.iter().any(|finding| finding.class == Class::Tamper) {
        Fate::Unverified
    } else if underway(tx.conn, call)? {
        Fate::Underway
    } else {
        Fate::Due
    };
    Ok(of(class, until, fate))
}

fn held(conn: &Connection, tenant: &TenantId, call: &CallId) -> Result<bool, StoreError> {
    let side = ChainId::of(call).side();
    let mut statement = conn.prepare_cached(
        "SELECT COALESCE(MAX(hold), 0) FROM audit_head WHERE tenant = ?1 AND chain IN (?2, ?3)",
    )?;
    Ok(statement.query_row(params![tenant.as_str(), call.as_str(), side.as_str()], |row| row.get(0))?)
}

/// An entry that came after the deletion would begin the chain anew.
fn underway(conn: &Connection, call: &CallId) -> Result<bool, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM queue WHERE call = ?1 AND name = ?2)")?;
    Ok(statement.query_row(params![call.as_str(), AUDIT], |row| row.get(0))?)
}

/// Deletes a call with every trace and records that.
fn delete(
    tx: &Tx<'_>,
    tenant: &TenantId,
    call: &CallId,
    classes: &[RetentionClass],
    actor: &str,
) -> Result<(), StoreError> {
    let (main, side) = ledger::stored_call(tx.conn, tenant.as_str(), call.as_str())?;
    let closed_at = main.closed_at().ok_or(StoreError::Damaged("the close of a chain"))?;
    let head = main.head.ok_or(StoreError::Damaged("the head of a chain"))?;
    let rows = measured(&main, call);
    let destroyed = vault::destroy(tx, tenant, call)?;
    let expiring = Expiring { tenant, call, closed_at, head, side: side.as_ref().and_then(|side| side.head) };
    let entry = expiring.entry(classes, &destroyed, actor, tx.now);
    let entry = entry.ok_or(StoreError::Damaged("the time of a call"))?;
    ledger::append_message(tx, &AuditMessage::plain(entry))?;
    for chain in [&main.chain, &main.chain.side()] {
        for table in ["audit", "audit_idem", "audit_head", "signed_heads"] {
            tx.conn
                .prepare_cached(&format!("DELETE FROM {table} WHERE tenant = ?1 AND chain = ?2"))?
                .execute(params![tenant.as_str(), chain.as_str()])?;
        }
    }
    for table in ["audit_keys", "payloads", "transcripts"] {
        tx.conn
            .prepare_cached(&format!("DELETE FROM {table} WHERE tenant = ?1 AND call = ?2"))?
            .execute(params![tenant.as_str(), call.as_str()])?;
    }
    for table in ["queue", "webhooks"] {
        tx.conn.prepare_cached(&format!("DELETE FROM {table} WHERE call = ?1"))?.execute([call.as_str()])?;
    }
    // The row of a call lies under the day on which it began, which may be one off where the
    // clocks of edge and ledger stood on both sides of midnight.
    let began = main.records.first().and_then(|first| AuditRecord::parse(&first.canonical));
    let began = began.map_or(closed_at, |first| first.entry.occurred_at);
    let [from, to] = [-DAY_MS, DAY_MS].map(|step| Day::of(began.plus_millis(step)).to_string());
    for key in rows {
        tx.conn
            .prepare_cached("DELETE FROM transfers WHERE tenant = ?1 AND day BETWEEN ?2 AND ?3 AND key = ?4")?
            .execute(params![tenant.as_str(), from, to, key])?;
    }
    Ok(())
}

/// Keys of what is measured of a call: its own and those of its transfers.
fn measured(main: &StoredChain, call: &CallId) -> BTreeSet<String> {
    let mut keys = BTreeSet::from([call.to_string()]);
    for record in main.records.iter().filter_map(|stored| AuditRecord::parse(&stored.canonical)) {
        keys.extend(record.entry.body.get("transfer_id").and_then(Value::as_str).map(str::to_owned));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit_read::{Reader, Witness};
    use crate::local::checkpointer::make_outside;
    use crate::ports::{AppendAudit, Enqueue, Keys, Outgoing, PutRow, PutTranscript, StoredRow};
    use crate::sqlite::Store;
    use crate::sqlite::erase::{Deed, execute};
    use crate::testing::call;
    use handoff::audit::{Actor, AuditEntry, ProducerId, Sealed};
    use handoff::seal::place;
    use serde_json::json;

    fn tenant() -> TenantId {
        TenantId::parse("t_acme").unwrap()
    }

    fn hipaa() -> [RetentionClass; 1] {
        [RetentionClass::named("hipaa").unwrap()]
    }

    fn fact(store: &Store, call: &CallId, pseq: u64, kind: &str, body: Value) -> AuditEntry {
        AuditEntry {
            tenant: tenant(),
            chain: ChainId::of(call),
            producer: ProducerId::parse("edge-1").unwrap(),
            pseq,
            kind: kind.to_owned(),
            occurred_at: store.wall(),
            actor: Actor::system("edge-1"),
            body,
            sealed: None,
            refs: None,
        }
    }

    /// A closed call with a sealed turn, a transcript, a row of measures and a side chain.
    async fn over(store: &Store, call: &CallId) {
        let dek = store.data_key(&tenant(), call).await.unwrap();
        let ct = dek.key.seal([1; 12], &place(&tenant(), call.as_str(), "edge-1", 0), b"my knee hurts");
        let body = json!({"segment": "s1", "speaker": "caller", "offset_ms": 0});
        let sealed = Some(Sealed::beside(&dek.id, &ct));
        let turn = AuditEntry { sealed, ..fact(store, call, 0, "utterance.ref", body) };
        store.append(AuditMessage { entry: turn, ciphertext: Some(ct) }).await.unwrap();
        let last = fact(store, call, 1, "producer.final", json!({"count": 2}));
        store.append(AuditMessage::plain(last)).await.unwrap();
        store.put_transcript(&tenant(), call, b"my knee hurts".to_vec()).await.unwrap();
        let day = Day::of(store.wall());
        let row = StoredRow { tenant: tenant(), day, key: call.to_string(), body: b"{}".to_vec() };
        store.put_row(row).await.unwrap();
        store.close_complete().await.unwrap();
        let late = AuditEntry {
            producer: ProducerId::parse("job:disposition:1").unwrap(),
            ..fact(store, call, 0, "disposition.received", json!({"transfer_id": "x", "code": "resolved"}))
        };
        store.append(AuditMessage::plain(late)).await.unwrap();
    }

    /// A time at which every call that is made here is past its class.
    fn later(store: &Store) -> Timestamp {
        hipaa()[0].until(store.wall()).plus_millis(DAY_MS)
    }

    fn fates(past: &[Past]) -> Vec<Fate> {
        past.iter().map(|past| past.fate).collect()
    }

    /// Rows that name the call, of every table.
    fn traces(dir: &Path, call: &CallId) -> i64 {
        let conn = Connection::open(dir.join(DATABASE)).unwrap();
        let count =
            |sql: &str| -> i64 { conn.query_row(sql, [format!("{call}%")], |row| row.get(0)).unwrap() };
        ["audit", "audit_idem", "audit_head", "signed_heads"]
            .map(|table| count(&format!("SELECT COUNT(*) FROM {table} WHERE chain LIKE ?1")))
            .into_iter()
            .chain(
                ["audit_keys", "payloads", "transcripts", "queue", "webhooks"]
                    .map(|table| count(&format!("SELECT COUNT(*) FROM {table} WHERE call LIKE ?1"))),
            )
            .chain([count("SELECT COUNT(*) FROM transfers WHERE key LIKE ?1")])
            .sum()
    }

    #[tokio::test]
    async fn a_call_whose_time_is_up_goes_with_every_trace_and_the_trail_says_so() {
        let (dir, notes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(dir.path()).unwrap();
        let other = CallId::parse("call_0002").unwrap();
        over(&store, &call()).await;
        over(&store, &other).await;
        execute(dir.path(), &other, Deed::PlaceHold, "case 7", "uid:0").unwrap();
        make_outside(dir.path(), notes.path()).await.unwrap();
        let sweep = |apply, at| sweep_at(dir.path(), &hipaa(), "uid:0", apply, at).unwrap();
        assert_eq!(sweep(true, store.wall().plus_millis(DAY_MS)), [], "nothing goes before its time");
        let before = traces(dir.path(), &call());
        assert_eq!(fates(&sweep(false, later(&store))), [Fate::Due, Fate::Held]);
        assert_eq!(traces(dir.path(), &call()), before, "a dry run leaves everything");
        assert_eq!(fates(&sweep(true, later(&store))), [Fate::Expired, Fate::Held]);
        assert_eq!(traces(dir.path(), &call()), 0);
        assert!(traces(dir.path(), &other) > 10, "a held call stays");
        assert_eq!(fates(&sweep(true, later(&store))), [Fate::Held]);

        let reader = Reader::open(dir.path()).unwrap();
        let own = reader.show("#tenant").unwrap();
        let body = &own[0].body;
        assert_eq!((own.len(), own[0].kind.as_str()), (1, "retention.expired"));
        assert_eq!((&body["object"], &body["chain_seq"]), (&json!("call_0001"), &json!(3)));
        assert_eq!(body["dek_ids"], json!(["dek-1"]));
        let witness = Witness { checkpoints: Some(notes.path().to_owned()), ..Witness::default() };
        for asked in [None, Some("call_0001"), Some("call_0002")] {
            let report = reader.verify_with(asked, &witness).unwrap();
            assert_eq!(report.exit_code(), 0, "{asked:?}: {:?}", report.findings);
        }
        let report = reader.verify(Some("call_0001")).unwrap();
        assert_eq!(report.exit_code(), 0);
        assert!(report.notes.iter().any(|note| note.contains("its time was up")), "{:?}", report.notes);
        assert_eq!(reader.verify(Some("call_0003")).unwrap().exit_code(), 4, "never heard of");
    }

    #[tokio::test]
    async fn a_call_that_was_deleted_without_the_record_is_missing() {
        let (dir, notes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(dir.path()).unwrap();
        over(&store, &call()).await;
        make_outside(dir.path(), notes.path()).await.unwrap();
        sweep_at(dir.path(), &hipaa(), "uid:0", true, later(&store)).unwrap();
        let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
        conn.execute("DELETE FROM audit WHERE chain = '#tenant'", []).unwrap();
        conn.execute("DELETE FROM audit_head WHERE chain = '#tenant'", []).unwrap();
        let witness = Witness { checkpoints: Some(notes.path().to_owned()), ..Witness::default() };
        let reader = Reader::open(dir.path()).unwrap();
        assert_eq!(reader.verify_with(None, &witness).unwrap().exit_code(), 1);
        assert_eq!(reader.verify_with(Some("call_0001"), &witness).unwrap().exit_code(), 1);
    }

    #[tokio::test]
    async fn a_call_that_was_tampered_with_stays_as_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        over(&store, &call()).await;
        let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
        conn.execute("DELETE FROM audit WHERE chain = 'call_0001' AND seq = 1", []).unwrap();
        let past = sweep_at(dir.path(), &hipaa(), "uid:0", true, later(&store)).unwrap();
        assert_eq!(fates(&past), [Fate::Unverified]);
        assert!(traces(dir.path(), &call()) > 0);
    }

    #[tokio::test]
    async fn a_call_with_entries_on_their_way_waits_for_them_and_an_open_one_never_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        over(&store, &call()).await;
        let open = CallId::parse("call_0002").unwrap();
        let first = fact(&store, &open, 0, "fallback.taken", json!({"kind": "closing", "reason": "none"}));
        store.append(AuditMessage::plain(first)).await.unwrap();
        store.enqueue(vec![Outgoing::to(AUDIT, &call(), b"{}".to_vec())]).await.unwrap();
        let past = sweep_at(dir.path(), &hipaa(), "uid:0", true, later(&store)).unwrap();
        assert_eq!(fates(&past), [Fate::Underway]);
    }

    #[tokio::test]
    async fn without_a_class_nothing_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        over(&store, &call()).await;
        assert_eq!(sweep_at(dir.path(), &[], "uid:0", true, later(&store)).unwrap(), []);
    }
}
