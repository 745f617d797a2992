//! Data keys, payloads and transcripts. Each call has its own key; destroying it erases the
//! sealed audit texts, the payloads and the transcript of that call together.

use handoff::id::{CallId, PayloadId, TenantId};
use handoff::seal::{DataKey, SealKey};
use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, Tx, nonce, random};
use crate::ports::{AUDIT, StoredPayload};

/// The number of a call's only data key.
const KEY_NUMBER: u32 = 1;

fn key_id(number: u32) -> String {
    format!("dek-{number}")
}

fn key_place(tenant: &str, call: &str) -> String {
    format!("{tenant}|{call}|key|{KEY_NUMBER}")
}

/// A new data key for a call whose first rows are about to be written.
pub fn fresh_key() -> Result<DataKey, StoreError> {
    Ok(DataKey { id: key_id(KEY_NUMBER), key: SealKey::new(random()?) })
}

/// The call's data key; made where there is none.
pub(super) fn data_key(tx: &Tx<'_>, tenant: &TenantId, call: &CallId) -> Result<DataKey, StoreError> {
    if let Some(key) = find_key(tx.conn, tx.key, tenant, call)? {
        return Ok(key);
    }
    let key = fresh_key()?;
    keep_key(tx, tenant, call, &key)?;
    Ok(key)
}

/// Keeps a call's new key, wrapped. A key that is there stays, and so does its absence.
pub(super) fn keep_key(
    tx: &Tx<'_>,
    tenant: &TenantId,
    call: &CallId,
    key: &DataKey,
) -> Result<(), StoreError> {
    let wrapped = key.key.wrapped(tx.key, nonce()?, &key_place(tenant.as_str(), call.as_str()));
    tx.conn
        .prepare_cached(
            "INSERT OR IGNORE INTO audit_keys (tenant, call, n, wrapped, state) VALUES (?1, ?2, ?3, ?4, 'live')",
        )?
        .execute(params![tenant.as_str(), call.as_str(), KEY_NUMBER, wrapped])?;
    Ok(())
}

/// The call's data key, where it exists; an error where it was destroyed.
pub(crate) fn find_key(
    conn: &Connection,
    store_key: &SealKey,
    tenant: &TenantId,
    call: &CallId,
) -> Result<Option<DataKey>, StoreError> {
    let wrapped: Option<Option<Vec<u8>>> = conn
        .prepare_cached("SELECT wrapped FROM audit_keys WHERE tenant = ?1 AND call = ?2 AND n = ?3")?
        .query_row(params![tenant.as_str(), call.as_str(), KEY_NUMBER], |row| row.get(0))
        .optional()?;
    match wrapped {
        None => Ok(None),
        Some(None) => Err(StoreError::Erased),
        Some(Some(wrapped)) => {
            let place = key_place(tenant.as_str(), call.as_str());
            let key = SealKey::unwrapped(store_key, &place, &wrapped)?;
            Ok(Some(DataKey { id: key_id(KEY_NUMBER), key }))
        }
    }
}

/// Destroys the call's keys, unless a legal hold stands.
pub(super) fn destroy(tx: &Tx<'_>, tenant: &TenantId, call: &CallId) -> Result<Vec<String>, StoreError> {
    let held: Option<bool> = tx
        .conn
        .prepare_cached("SELECT hold FROM audit_head WHERE tenant = ?1 AND chain = ?2")?
        .query_row(params![tenant.as_str(), call.as_str()], |row| row.get(0))
        .optional()?;
    if held == Some(true) {
        return Err(StoreError::Held);
    }
    let destroyed = tx
        .conn
        .prepare_cached(
            "UPDATE audit_keys SET wrapped = NULL, state = 'destroyed' WHERE tenant = ?1 AND call = ?2 AND wrapped IS NOT NULL",
        )?
        .execute(params![tenant.as_str(), call.as_str()])?;
    // What waits, is parked or is dead is sealed with the store's key. Entries on their way to
    // the ledger hold ciphertext under the key that is gone, and the chain needs them.
    tx.conn
        .prepare_cached(
            "DELETE FROM queue WHERE call = ?1 AND name NOT LIKE ?2 || '%' AND COALESCE(note, '') NOT LIKE ?2 || ':%'",
        )?
        .execute(params![call.as_str(), AUDIT])?;
    tx.mark_active();
    Ok(if destroyed == 0 { Vec::new() } else { vec![key_id(KEY_NUMBER)] })
}

/// The call is over: its key is kept only as long as something of it waits here.
#[cfg(feature = "aws")]
pub(crate) fn call_over(tx: &Tx<'_>, tenant: &TenantId, call: &CallId) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached(
            "UPDATE audit_keys SET state = 'over' WHERE tenant = ?1 AND call = ?2 AND state = 'live'",
        )?
        .execute(params![tenant.as_str(), call.as_str()])?;
    Ok(())
}

/// Forgets the keys of calls that are over and have nothing waiting, and what only they open:
/// the cloud has them, and what is erased there is not to live on here. Returns how many.
#[cfg(feature = "aws")]
pub(crate) fn forget_over(tx: &Tx<'_>) -> Result<usize, StoreError> {
    const OVER: &str = "SELECT call FROM audit_keys k WHERE state = 'over'
                        AND NOT EXISTS (SELECT 1 FROM queue q WHERE q.call = k.call)";
    for table in ["payloads", "transcripts"] {
        tx.conn.execute(&format!("DELETE FROM {table} WHERE call IN ({OVER})"), [])?;
    }
    let forgotten = tx.conn.execute(
        &format!("UPDATE audit_keys SET wrapped = NULL, state = 'forwarded' WHERE call IN ({OVER})"),
        [],
    )?;
    Ok(forgotten)
}

/// Whether the call's key was destroyed.
pub(crate) fn is_erased(conn: &Connection, tenant: &str, call: &str) -> Result<bool, StoreError> {
    let state: Option<String> = conn
        .prepare_cached("SELECT state FROM audit_keys WHERE tenant = ?1 AND call = ?2 AND n = ?3")?
        .query_row(params![tenant, call, KEY_NUMBER], |row| row.get(0))
        .optional()?;
    Ok(state.as_deref() == Some("destroyed"))
}

fn payload_place(payload: &StoredPayload) -> String {
    format!("{}|{}|{}|{}", payload.tenant, payload.call, payload.payload, payload.revision)
}

/// Stores a revision unless it is there; returns the bytes that are stored.
pub(super) fn put_payload(tx: &Tx<'_>, payload: &StoredPayload) -> Result<Vec<u8>, StoreError> {
    let stored = find_payload(tx.conn, tx.key, &payload.tenant, &payload.payload, Some(payload.revision))?;
    if let Some(stored) = stored {
        return Ok(stored.bytes);
    }
    let key = data_key(tx, &payload.tenant, &payload.call)?;
    let sealed = key.key.seal(nonce()?, &payload_place(payload), &payload.bytes);
    tx.conn
        .prepare_cached(
            "INSERT INTO payloads (tenant, payload, revision, call, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            payload.tenant.as_str(),
            payload.payload.as_str(),
            payload.revision,
            payload.call.as_str(),
            sealed
        ])?;
    Ok(payload.bytes.clone())
}

/// A revision of a payload, or the highest.
pub(crate) fn find_payload(
    conn: &Connection,
    store_key: &SealKey,
    tenant: &TenantId,
    payload: &PayloadId,
    revision: Option<u32>,
) -> Result<Option<StoredPayload>, StoreError> {
    let row: Option<(u32, String, Vec<u8>)> = conn
        .prepare_cached(
            "SELECT revision, call, body FROM payloads WHERE tenant = ?1 AND payload = ?2
             AND (?3 IS NULL OR revision = ?3) ORDER BY revision DESC LIMIT 1",
        )?
        .query_row(params![tenant.as_str(), payload.as_str(), revision], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((revision, call, sealed)) = row else { return Ok(None) };
    let call = CallId::parse(&call).map_err(|_| StoreError::Damaged("the call of a payload"))?;
    let key =
        find_key(conn, store_key, tenant, &call)?.ok_or(StoreError::Damaged("a payload without a key"))?;
    let mut stored =
        StoredPayload { tenant: tenant.clone(), call, payload: payload.clone(), revision, bytes: Vec::new() };
    stored.bytes = key.key.open(&payload_place(&stored), &sealed)?.to_vec();
    Ok(Some(stored))
}

fn transcript_place(tenant: &TenantId, call: &CallId) -> String {
    format!("{tenant}|{call}|transcript")
}

/// Stores a call's transcript, replacing an earlier one.
pub(super) fn put_transcript(
    tx: &Tx<'_>,
    tenant: &TenantId,
    call: &CallId,
    text: &[u8],
) -> Result<(), StoreError> {
    let key = data_key(tx, tenant, call)?;
    let sealed = key.key.seal(nonce()?, &transcript_place(tenant, call), text);
    tx.conn
        .prepare_cached(
            "INSERT INTO transcripts (tenant, call, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (tenant, call) DO UPDATE SET body = excluded.body",
        )?
        .execute(params![tenant.as_str(), call.as_str(), sealed])?;
    Ok(())
}

/// A call's transcript.
pub(super) fn find_transcript(
    conn: &Connection,
    store_key: &SealKey,
    tenant: &TenantId,
    call: &CallId,
) -> Result<Option<Vec<u8>>, StoreError> {
    let sealed: Option<Vec<u8>> = conn
        .prepare_cached("SELECT body FROM transcripts WHERE tenant = ?1 AND call = ?2")?
        .query_row(params![tenant.as_str(), call.as_str()], |row| row.get(0))
        .optional()?;
    let Some(sealed) = sealed else { return Ok(None) };
    let key =
        find_key(conn, store_key, tenant, call)?.ok_or(StoreError::Damaged("a transcript without a key"))?;
    Ok(Some(key.key.open(&transcript_place(tenant, call), &sealed)?.to_vec()))
}
