//! Erasure and legal holds, from outside the process that has the store. The deed and its
//! record are one transaction, so that there is neither without the other. Erasing destroys
//! the call's keys: every sealed text, payload, transcript and recording of it is then noise,
//! and the chain, which hashes ciphertext, still verifies.

use std::path::Path;

use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId};
use handoff::id::{CallId, TenantId};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::writer::Tx;
use super::{BUSY_TIMEOUT_MS, DATABASE, StoreError, ledger, read_key, schema, vault, wall_clock};

/// What is done to a call, and on what ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Deed {
    /// Its keys are destroyed.
    #[serde(rename = "erase")]
    Erase,
    /// Nothing of it may be erased from now on.
    #[serde(rename = "hold")]
    PlaceHold,
    /// It may be erased again.
    #[serde(rename = "release")]
    ReleaseHold,
}

impl Deed {
    /// The type of its record.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Erase => "erasure.executed",
            Self::PlaceHold => "hold.legal_placed",
            Self::ReleaseHold => "hold.legal_released",
        }
    }
}

/// Does it and records it, by `actor`. Returns the keys that were destroyed. A call that the
/// store does not hold is an error, and so is an erasure under a legal hold.
pub fn execute(
    dir: &Path,
    call: &CallId,
    deed: Deed,
    basis: &str,
    actor: &str,
) -> Result<Vec<String>, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(dir.join(DATABASE), flags)?;
    conn.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    schema::check(&conn)?;
    // A key that is overwritten must not stay readable in a free page.
    conn.pragma_update(None, "secure_delete", true)?;
    let store_key = read_key(dir)?;
    let transaction = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate)?;
    let tenant = tenant_of(&transaction, call)?;
    let tx = Tx::new(&transaction, &store_key, wall_clock());
    let destroyed = match deed {
        Deed::Erase => vault::destroy(&tx, &tenant, call)?,
        Deed::PlaceHold => hold(&tx, &tenant, call, true)?,
        Deed::ReleaseHold => hold(&tx, &tenant, call, false)?,
    };
    // Nothing left to destroy, or nothing changed: nothing to record.
    let nothing = deed == Deed::Erase && destroyed.is_empty();
    if !nothing {
        let body = match deed {
            Deed::Erase => json!({"actor": actor, "basis": basis, "object": call, "dek_ids": destroyed}),
            Deed::PlaceHold | Deed::ReleaseHold => json!({"actor": actor, "basis": basis, "object": call}),
        };
        let message = AuditMessage::plain(entry(&tx, &tenant, call, deed, body));
        ledger::append_message(&tx, &message)?;
    }
    transaction.commit()?;
    // The log holds the key's old page until it is folded in; a reader may put that off until
    // the next clean exit.
    let _busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    Ok(destroyed)
}

fn hold(tx: &Tx<'_>, tenant: &TenantId, call: &CallId, held: bool) -> Result<Vec<String>, StoreError> {
    tx.conn
        .prepare_cached("UPDATE audit_head SET hold = ?3 WHERE tenant = ?1 AND chain = ?2")?
        .execute(params![tenant.as_str(), call.as_str(), held])?;
    Ok(Vec::new())
}

/// Each deed is a job of its own: a second one is not a repeat.
fn entry(tx: &Tx<'_>, tenant: &TenantId, call: &CallId, deed: Deed, body: Value) -> AuditEntry {
    let job = format!("{call}:{}:{}:{}", deed.kind(), tx.now.unix_millis(), std::process::id());
    AuditEntry {
        tenant: tenant.clone(),
        chain: ChainId::of(call),
        producer: ProducerId::job("write-audit", &job, 1),
        pseq: 0,
        kind: deed.kind().to_owned(),
        occurred_at: tx.now,
        actor: Actor::system("command_line"),
        body,
        sealed: None,
        refs: None,
    }
}

fn tenant_of(conn: &Connection, call: &CallId) -> Result<TenantId, StoreError> {
    let mut statement = conn.prepare("SELECT tenant FROM audit_head WHERE chain = ?1")?;
    let tenants = statement
        .query_map([call.as_str()], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let [tenant] = tenants.as_slice() else {
        let why = "the store holds no such call, or one of several tenants";
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, why).into());
    };
    TenantId::parse(tenant).map_err(|_| StoreError::Damaged("the tenant of a chain"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit_read::Reader;
    use crate::ports::{AppendAudit, GetTranscript, Keys, PutTranscript};
    use crate::sqlite::Store;
    use crate::testing::call;
    use handoff::audit::Sealed;
    use handoff::seal::place;

    fn tenant() -> TenantId {
        TenantId::parse("t_acme").unwrap()
    }

    /// A closed call with one sealed turn and a transcript.
    async fn spoken(store: &Store) {
        let dek = store.data_key(&tenant(), &call()).await.unwrap();
        let producer = ProducerId::parse("edge-1").unwrap();
        let ct = dek.key.seal([1; 12], &place(&tenant(), call().as_str(), "edge-1", 0), b"my knee hurts");
        let fact = |pseq, kind: &str, body: Value, sealed| AuditEntry {
            tenant: tenant(),
            chain: ChainId::of(&call()),
            producer: producer.clone(),
            pseq,
            kind: kind.to_owned(),
            occurred_at: store.wall(),
            actor: Actor::system("edge-1"),
            body,
            sealed,
            refs: None,
        };
        let body = json!({"segment": "s1", "speaker": "caller", "offset_ms": 0});
        let turn = fact(0, "utterance.ref", body, Some(Sealed::beside(&dek.id, &ct)));
        store.append(AuditMessage { entry: turn, ciphertext: Some(ct) }).await.unwrap();
        let last = fact(1, "producer.final", json!({"count": 2}), None);
        store.append(AuditMessage::plain(last)).await.unwrap();
        store.put_transcript(&tenant(), &call(), b"my knee hurts".to_vec()).await.unwrap();
        assert_eq!(store.close_complete().await.unwrap(), [call()]);
    }

    #[tokio::test]
    async fn an_erased_call_is_unreadable_recorded_and_still_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        spoken(&store).await;
        let reader = Reader::open(dir.path()).unwrap();
        let before = reader.show(call().as_str()).unwrap();
        assert_eq!(before[0].text.as_ref().unwrap().expose(), "my knee hurts");
        let destroyed = execute(dir.path(), &call(), Deed::Erase, "GDPR 17", "uid:0").unwrap();
        assert_eq!(destroyed, ["dek-1"]);
        let after = reader.show(call().as_str()).unwrap();
        assert!(after[0].text.is_none() && after[0].erased);
        assert!(after[0].line().ends_with("[erased]"), "{}", after[0].line());
        let last = after.last().unwrap();
        assert_eq!((last.kind.as_str(), last.chain.as_str()), ("erasure.executed", "call_0001#late"));
        assert!(store.transcript(&tenant(), &call()).await.is_err());
        let report = reader.verify(None).unwrap();
        assert_eq!(report.exit_code(), 0, "{:?}", report.findings);
        assert!(report.findings.iter().any(|finding| finding.text.contains("erased")));
        // A second one finds nothing to destroy and records nothing.
        assert!(execute(dir.path(), &call(), Deed::Erase, "GDPR 17", "uid:0").unwrap().is_empty());
        assert_eq!(reader.show(call().as_str()).unwrap().len(), after.len());
    }

    #[tokio::test]
    async fn a_legal_hold_stands_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        spoken(&store).await;
        execute(dir.path(), &call(), Deed::PlaceHold, "case 7", "uid:0").unwrap();
        let refused = execute(dir.path(), &call(), Deed::Erase, "GDPR 17", "uid:0");
        assert!(matches!(refused, Err(StoreError::Held)), "{refused:?}");
        execute(dir.path(), &call(), Deed::ReleaseHold, "case 7 is closed", "uid:0").unwrap();
        execute(dir.path(), &call(), Deed::Erase, "GDPR 17", "uid:0").unwrap();
        let reader = Reader::open(dir.path()).unwrap();
        let late: Vec<String> =
            reader.show(call().as_str()).unwrap().into_iter().skip(3).map(|shown| shown.kind).collect();
        assert_eq!(late, ["late.opened", "hold.legal_placed", "hold.legal_released", "erasure.executed"]);
        assert_eq!(reader.verify(None).unwrap().exit_code(), 0);
    }

    #[tokio::test]
    async fn a_call_that_is_not_there_is_neither_erased_nor_held() {
        let dir = tempfile::tempdir().unwrap();
        let _store = Store::open(dir.path()).unwrap();
        assert!(execute(dir.path(), &call(), Deed::Erase, "none", "uid:0").is_err());
        assert!(execute(dir.path(), &call(), Deed::PlaceHold, "none", "uid:0").is_err());
    }
}
