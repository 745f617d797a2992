//! The data keys of calls: one per call, wrapped by the store's key. Destroying the wrapped
//! key is what erases a call's texts; the chain hashes ciphertext and goes on verifying.

use handoff::id::{CallId, TenantId};
use handoff::seal::{DataKey, SealKey};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::StoreError;

/// Keeps a call's new key, wrapped. A key that is there already stays.
pub fn keep(
    connection: &Connection,
    store: &SealKey,
    tenant: &TenantId,
    call: &CallId,
    dek: &DataKey,
    nonce: [u8; 12],
) -> Result<(), StoreError> {
    let wrapped = dek.key.wrapped(store, nonce, &place(tenant, call));
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO audit_keys (tenant, call, dek_id, wrapped, state) VALUES (?1, ?2, ?3, ?4, 'live')",
        )?
        .execute(params![tenant.as_str(), call.as_str(), dek.id, wrapped])?;
    Ok(())
}

/// A call's key; `None` where there is none, or it was destroyed.
pub fn find(
    connection: &Connection,
    store: &SealKey,
    tenant: &TenantId,
    call: &CallId,
) -> Result<Option<DataKey>, StoreError> {
    let row: Option<(String, Option<Vec<u8>>)> = connection
        .prepare_cached("SELECT dek_id, wrapped FROM audit_keys WHERE tenant = ?1 AND call = ?2")?
        .query_row([tenant.as_str(), call.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, Some(wrapped))) = row else { return Ok(None) };
    let key = SealKey::unwrapped(store, &place(tenant, call), &wrapped).map_err(|_| StoreError::Unsealed)?;
    Ok(Some(DataKey { id, key }))
}

fn place(tenant: &TenantId, call: &CallId) -> String {
    format!("dek|{tenant}|{call}")
}
