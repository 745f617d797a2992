//! The ledger in the embedded store: the conditions and outcomes are `handoff::audit`'s, the
//! rows are written in one transaction. Nothing here updates or deletes a record.

use std::collections::BTreeMap;

use handoff::audit::verify::{StoredChain, StoredRecord};
use handoff::audit::{
    Appended, AuditEntry, AuditMessage, AuditRecord, ChainHead, ChainId, Hash, HeadState, PRODUCER_FINAL,
    Prior, ProducerId, append, closing, late_opening,
};
use handoff::clock::Timestamp;
use handoff::id::{CallId, TenantId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::{StoreError, Tx, queue, vault};
use crate::ports::AuditOutcome;

/// How long after a call's end its chain is closed even if something is missing; the
/// verifier then says what.
pub const CLOSE_ANYWAY_AFTER_MS: i64 = 15 * 60_000;

/// Most chains that one pass closes, so that a pass never holds up the writer.
const CLOSE_BATCH_MAX: usize = 64;

/// Appends one entry, to the side chain where the main chain is closed.
pub(super) fn append_message(tx: &Tx<'_>, message: &AuditMessage) -> Result<AuditOutcome, StoreError> {
    let entry = &message.entry;
    let ciphertext = message.ciphertext.as_deref();
    let appended = append_to(tx, &entry.chain, entry, ciphertext)?;
    let Appended::Late(side) = appended else { return outcome(&appended, false) };
    if head(tx.conn, &entry.tenant, &side)?.is_none() {
        let closed = head(tx.conn, &entry.tenant, &entry.chain)?
            .ok_or(StoreError::Damaged("a late entry without a closed chain"))?;
        append_to(tx, &side, &late_opening(entry, &closed), None)?;
    }
    outcome(&append_to(tx, &side, entry, ciphertext)?, true)
}

const fn outcome(appended: &Appended, late: bool) -> Result<AuditOutcome, StoreError> {
    match appended {
        Appended::Recorded(new) => Ok(AuditOutcome::Recorded { seq: new.record.seq, late }),
        Appended::Duplicate { seq } => Ok(AuditOutcome::Duplicate { seq: *seq }),
        Appended::Conflict { seq } => Ok(AuditOutcome::Conflict { seq: *seq }),
        Appended::Late(_) => Err(StoreError::Damaged("a side chain is closed")),
    }
}

fn append_to(
    tx: &Tx<'_>,
    chain: &ChainId,
    entry: &AuditEntry,
    ciphertext: Option<&[u8]>,
) -> Result<Appended, StoreError> {
    let tenant = entry.tenant.as_str();
    let current = head(tx.conn, &entry.tenant, chain)?;
    let prior = prior(tx.conn, tenant, chain, entry)?;
    let before = current.unwrap_or_else(|| ChainHead::genesis(&entry.tenant, chain));
    let appended = append(chain, &before, prior, entry)?;
    let Appended::Recorded(new) = &appended else { return Ok(appended) };
    tx.conn
        .prepare_cached(
            "INSERT INTO audit (tenant, chain, seq, cj, hash, type, producer, pseq, occurred_at, recorded_at, ct)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            tenant,
            chain.as_str(),
            new.record.seq,
            new.canonical,
            new.hash.to_string(),
            entry.kind,
            entry.producer.as_str(),
            entry.pseq,
            entry.occurred_at.to_string(),
            tx.now.to_string(),
            ciphertext
        ])?;
    tx.conn
        .prepare_cached(
            "INSERT INTO audit_idem (tenant, chain, producer, pseq, seq, bd) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            tenant,
            chain.as_str(),
            entry.producer.as_str(),
            entry.pseq,
            new.record.seq,
            new.body_digest.to_string()
        ])?;
    write_head(tx, tenant, chain, entry, &before, &new.head)?;
    Ok(appended)
}

fn write_head(
    tx: &Tx<'_>,
    tenant: &str,
    chain: &ChainId,
    entry: &AuditEntry,
    before: &ChainHead,
    after: &ChainHead,
) -> Result<(), StoreError> {
    let now = tx.now.unix_millis();
    let state = match after.state {
        HeadState::Open => "open",
        HeadState::Closed => "closed",
    };
    let ends = !chain.is_side() && (entry.kind == PRODUCER_FINAL || entry.kind == "call.ended");
    let ended_at = ends.then_some(now);
    let changed = if before.seq == 0 {
        tx.conn
            .prepare_cached(
                "INSERT INTO audit_head (tenant, chain, seq, hash, state, started_at, ended_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                tenant,
                chain.as_str(),
                after.seq,
                after.hash.to_string(),
                state,
                now,
                ended_at
            ])?
    } else {
        tx.conn
            .prepare_cached(
                "UPDATE audit_head SET seq = ?3, hash = ?4, state = ?5, ended_at = COALESCE(ended_at, ?6)
                 WHERE tenant = ?1 AND chain = ?2 AND seq = ?7 AND hash = ?8 AND state = 'open'",
            )?
            .execute(params![
                tenant,
                chain.as_str(),
                after.seq,
                after.hash.to_string(),
                state,
                ended_at,
                before.seq,
                before.hash.to_string()
            ])?
    };
    if changed == 1 { Ok(()) } else { Err(StoreError::Damaged("the head of a chain moved")) }
}

/// Closes the chains that are complete or have waited long enough.
pub(super) fn close_complete(tx: &Tx<'_>) -> Result<Vec<CallId>, StoreError> {
    let mut closed = Vec::new();
    for (tenant, call, ended_at) in ended(tx.conn)? {
        tx.conn.execute_batch("SAVEPOINT chain")?;
        match close(tx, &tenant, &call, ended_at) {
            Ok(true) => closed.push(call),
            Ok(false) => {}
            Err(StoreError::Damaged(what)) => {
                // The verifier will say so; the chains of other calls are not to blame.
                tracing::error!(call_id = %call, what, "a chain is damaged and cannot be closed");
                tx.conn.execute_batch("ROLLBACK TO chain")?;
            }
            Err(error) => return Err(error),
        }
        tx.conn.execute_batch("RELEASE chain")?;
        if closed.len() == CLOSE_BATCH_MAX {
            break;
        }
    }
    if !closed.is_empty() {
        tx.mark_active();
    }
    Ok(closed)
}

/// Closes one chain, if it is time.
fn close(tx: &Tx<'_>, tenant: &TenantId, call: &CallId, ended_at: i64) -> Result<bool, StoreError> {
    let overdue = tx.now.unix_millis().saturating_sub(ended_at) > CLOSE_ANYWAY_AFTER_MS;
    let counts = counts(tx.conn, tenant, call)?;
    let complete = queue::outstanding(tx.conn, Some(call.as_str()))? == 0
        && streams_complete(tx.conn, tenant, call, &counts)?;
    if !complete && !overdue {
        return Ok(false);
    }
    let chain = ChainId::of(call);
    let head = head(tx.conn, tenant, &chain)?.ok_or(StoreError::Damaged("an ended chain has no head"))?;
    append_to(tx, &chain, &closing(tenant, call, &head, &counts, tx.now), None)?;
    Ok(true)
}

/// The records of a call's chain, then those of its side chain. Those that no longer parse
/// are the verifier's business.
pub(crate) fn records(
    conn: &Connection,
    tenant: &str,
    call: &CallId,
) -> Result<Vec<AuditRecord>, StoreError> {
    let main = ChainId::of(call);
    let mut statement =
        conn.prepare_cached("SELECT cj FROM audit WHERE tenant = ?1 AND chain = ?2 ORDER BY seq")?;
    let mut records = Vec::new();
    for chain in [&main, &main.side()] {
        let rows = statement.query_map([tenant, chain.as_str()], |row| row.get::<_, Vec<u8>>(0))?;
        for row in rows {
            records.extend(AuditRecord::parse(&row?));
        }
    }
    Ok(records)
}

/// One chain as it is stored; without records where there are none.
pub(crate) fn stored_chain(conn: &Connection, tenant: &str, chain: &str) -> Result<StoredChain, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, cj, hash, recorded_at, ct FROM audit WHERE tenant = ?1 AND chain = ?2 ORDER BY seq",
    )?;
    let records = statement.query_map([tenant, chain], |row| {
        let recorded_at: String = row.get(3)?;
        Ok(StoredRecord {
            seq: row.get(0)?,
            canonical: row.get(1)?,
            hash: Some(row.get(2)?),
            recorded_at: Timestamp::parse(&recorded_at).ok(),
            ciphertext: row.get(4)?,
        })
    })?;
    let records = records.collect::<Result<_, _>>()?;
    let tenant = TenantId::parse(tenant).map_err(|_| StoreError::Damaged("the tenant of a chain"))?;
    let name = ChainId::parse(chain).map_err(|_| StoreError::Damaged("the name of a chain"))?;
    let head = head(conn, &tenant, &name)?;
    let erased = match name.call() {
        Some(call) => vault::is_erased(conn, tenant.as_str(), call.as_str())?,
        None => false,
    };
    Ok(StoredChain { tenant, chain: name, records, head, erased })
}

/// A call's chain with its side chain, where it has one.
pub(crate) fn stored_call(
    conn: &Connection,
    tenant: &str,
    name: &str,
) -> Result<(StoredChain, Option<StoredChain>), StoreError> {
    let main = stored_chain(conn, tenant, name)?;
    let side = match main.chain.call() {
        Some(_) => Some(stored_chain(conn, tenant, main.chain.side().as_str())?),
        None => None,
    };
    Ok((main, side.filter(|side| !side.records.is_empty() || side.head.is_some())))
}

/// Open chains of calls that ended.
pub(crate) fn ended(conn: &Connection) -> Result<Vec<(TenantId, CallId, i64)>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT tenant, chain, ended_at FROM audit_head WHERE state = 'open' AND ended_at IS NOT NULL ORDER BY ended_at",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (tenant, chain, ended_at) = row?;
        if let (Ok(tenant), Ok(call)) = (TenantId::parse(&tenant), CallId::parse(&chain)) {
            found.push((tenant, call, ended_at));
        }
    }
    Ok(found)
}

fn counts(
    conn: &Connection,
    tenant: &TenantId,
    call: &CallId,
) -> Result<BTreeMap<ProducerId, u64>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT producer, COUNT(*) FROM audit_idem WHERE tenant = ?1 AND chain = ?2 GROUP BY producer",
    )?;
    let rows = statement.query_map(params![tenant.as_str(), call.as_str()], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?))
    })?;
    let mut counts = BTreeMap::new();
    for row in rows {
        let (producer, count) = row?;
        let producer = ProducerId::parse(&producer).map_err(|_| StoreError::Damaged("a producer's name"))?;
        counts.insert(producer, count);
    }
    Ok(counts)
}

/// Every stream producer has announced its last entry, and all before it are there.
fn streams_complete(
    conn: &Connection,
    tenant: &TenantId,
    call: &CallId,
    counts: &BTreeMap<ProducerId, u64>,
) -> Result<bool, StoreError> {
    for (producer, count) in counts.iter().filter(|(producer, _)| producer.is_stream()) {
        let last: Option<Vec<u8>> = conn
            .prepare_cached(
                "SELECT cj FROM audit WHERE tenant = ?1 AND chain = ?2 AND producer = ?3 AND type = ?4",
            )?
            .query_row(params![tenant.as_str(), call.as_str(), producer.as_str(), PRODUCER_FINAL], |row| {
                row.get(0)
            })
            .optional()?;
        let announced = last
            .and_then(|bytes| AuditRecord::parse(&bytes))
            .and_then(|record| record.entry.body.get("count").and_then(Value::as_u64));
        if announced != Some(*count) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The head of a chain, where it has records.
pub(crate) fn head(
    conn: &Connection,
    tenant: &TenantId,
    chain: &ChainId,
) -> Result<Option<ChainHead>, StoreError> {
    conn.prepare_cached("SELECT seq, hash, state FROM audit_head WHERE tenant = ?1 AND chain = ?2")?
        .query_row(params![tenant.as_str(), chain.as_str()], head_columns)
        .optional()?
        .map(head_of)
        .transpose()
}

type HeadColumns = (u64, String, String);

fn head_columns(row: &Row<'_>) -> rusqlite::Result<HeadColumns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn head_of((seq, hash, state): HeadColumns) -> Result<ChainHead, StoreError> {
    let hash = Hash::parse(&hash).map_err(|_| StoreError::Damaged("the hash of a head"))?;
    let state = match state.as_str() {
        "open" => HeadState::Open,
        "closed" => HeadState::Closed,
        _ => return Err(StoreError::Damaged("the state of a head")),
    };
    Ok(ChainHead { seq, hash, state })
}

fn prior(
    conn: &Connection,
    tenant: &str,
    chain: &ChainId,
    entry: &AuditEntry,
) -> Result<Option<Prior>, StoreError> {
    let row: Option<(u64, String)> = conn
        .prepare_cached(
            "SELECT seq, bd FROM audit_idem WHERE tenant = ?1 AND chain = ?2 AND producer = ?3 AND pseq = ?4",
        )?
        .query_row(params![tenant, chain.as_str(), entry.producer.as_str(), entry.pseq], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    row.map(|(seq, digest)| {
        let body_digest = Hash::parse(&digest).map_err(|_| StoreError::Damaged("a body digest"))?;
        Ok(Prior { seq, body_digest })
    })
    .transpose()
}
