//! A look at what is sealed, from outside the process that has the store: the key of a call
//! comes only with the entry of the look, in one short transaction. The edge may be running;
//! its workers find the entry when they look again.

use std::path::Path;

use handoff::id::{CallId, TenantId};
use handoff::seal::DataKey;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::writer::Tx;
use super::{BUSY_TIMEOUT_MS, DATABASE, StoreError, queue, read_key, schema, vault, wall_clock};
use crate::ports::Outgoing;

/// Stores `entry`, which says who looks at what, and gives the call's key. Without the one
/// there is not the other; where the key does not exist or was destroyed, nothing is stored.
pub fn recorded_access(
    dir: &Path,
    tenant: &TenantId,
    call: &CallId,
    entry: &Outgoing,
) -> Result<DataKey, StoreError> {
    let conn = connection(dir)?;
    let store_key = read_key(dir)?;
    let transaction = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate)?;
    let key = vault::find_key(&transaction, &store_key, tenant, call)?;
    let key = key.ok_or(StoreError::Damaged("a call without a key"))?;
    queue::send(&Tx::new(&transaction, &store_key, wall_clock()), entry)?;
    transaction.commit()?;
    Ok(key)
}

/// Stores `entry`, which says what is taken out, where no key is asked for.
pub fn recorded_export(dir: &Path, entry: &Outgoing) -> Result<(), StoreError> {
    let conn = connection(dir)?;
    let store_key = read_key(dir)?;
    let transaction = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate)?;
    queue::send(&Tx::new(&transaction, &store_key, wall_clock()), entry)?;
    Ok(transaction.commit()?)
}

fn connection(dir: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(dir.join(DATABASE), flags)?;
    conn.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    schema::check(&conn)?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ports::{AUDIT, Keys};
    use crate::sqlite::Store;
    use crate::testing::{call, config};

    fn entry() -> Outgoing {
        Outgoing::to(AUDIT, &call(), b"{}".to_vec())
    }

    #[tokio::test]
    async fn the_key_comes_with_the_entry_while_the_store_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let tenant = Arc::new(config(Vec::new())).tenant.clone();
        let made = store.data_key(&tenant, &call()).await.unwrap();
        let given = recorded_access(dir.path(), &tenant, &call(), &entry()).unwrap();
        assert_eq!(given.key.payload_mac(b"{}"), made.key.payload_mac(b"{}"));
        assert_eq!(store.depth(AUDIT).unwrap(), 1);
    }

    #[tokio::test]
    async fn a_destroyed_key_is_neither_given_nor_recorded_as_given() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let tenant = Arc::new(config(Vec::new())).tenant.clone();
        let unknown = recorded_access(dir.path(), &tenant, &call(), &entry());
        assert!(matches!(unknown, Err(StoreError::Damaged(_))), "{unknown:?}");
        store.data_key(&tenant, &call()).await.unwrap();
        store.destroy(&tenant, &call()).await.unwrap();
        let erased = recorded_access(dir.path(), &tenant, &call(), &entry());
        assert!(matches!(erased, Err(StoreError::Erased)), "{erased:?}");
        assert_eq!(store.depth(AUDIT).unwrap(), 0);
    }
}
