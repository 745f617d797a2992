//! The tables of the embedded store. `audit` and its column `cj` (the canonical bytes of
//! each record) are a contract: any tool may open the file and verify the chain.

use rusqlite::Connection;

use super::StoreError;

/// Written into `user_version`; a file of a newer version is refused.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS audit (
    tenant TEXT NOT NULL, chain TEXT NOT NULL, seq INTEGER NOT NULL,
    cj BLOB NOT NULL, hash TEXT NOT NULL, type TEXT NOT NULL,
    occurred_at TEXT NOT NULL, recorded_at TEXT NOT NULL, ct BLOB,
    PRIMARY KEY (tenant, chain, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_idem (
    tenant TEXT NOT NULL, chain TEXT NOT NULL, producer TEXT NOT NULL, pseq INTEGER NOT NULL,
    seq INTEGER NOT NULL, bd TEXT NOT NULL,
    PRIMARY KEY (tenant, chain, producer, pseq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_head (
    tenant TEXT NOT NULL, chain TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL,
    state TEXT NOT NULL, event_count INTEGER NOT NULL, hold INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, chain)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_keys (
    tenant TEXT NOT NULL, call TEXT NOT NULL, dek_id TEXT NOT NULL, wrapped BLOB, state TEXT NOT NULL,
    PRIMARY KEY (tenant, call)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, grp TEXT, call TEXT, dedup TEXT,
    body BLOB NOT NULL, visible_at INTEGER NOT NULL, receives INTEGER NOT NULL DEFAULT 0, note TEXT
);
CREATE INDEX IF NOT EXISTS queue_call ON queue (call) WHERE call IS NOT NULL;
CREATE INDEX IF NOT EXISTS queue_due ON queue (name, visible_at);
CREATE UNIQUE INDEX IF NOT EXISTS queue_dedup ON queue (name, dedup) WHERE dedup IS NOT NULL;
CREATE TABLE IF NOT EXISTS payloads (
    transfer TEXT NOT NULL, revision INTEGER NOT NULL, call TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (transfer, revision)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transcripts (
    transfer TEXT PRIMARY KEY, call TEXT NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhooks (
    message_id TEXT NOT NULL, destination TEXT NOT NULL, call TEXT NOT NULL, type TEXT NOT NULL,
    attempts INTEGER NOT NULL, status INTEGER, state TEXT NOT NULL,
    PRIMARY KEY (message_id, destination)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    id TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, state TEXT NOT NULL
) WITHOUT ROWID;
";

/// Creates what is missing.
pub(super) fn create(connection: &Connection) -> Result<(), StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Err(StoreError::Unreadable(format!(
            "a store of version {version}; this program writes {VERSION}"
        )));
    }
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}
