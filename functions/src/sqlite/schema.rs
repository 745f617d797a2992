//! The tables of the embedded store. `audit` and its column `cj` are a contract: any tool may
//! open the file and check the chain. A file of another version is refused, never guessed at.

use rusqlite::Connection;

use super::StoreError;

/// Written into `user_version`. Version 1 had other tables and was never released.
const VERSION: i64 = 2;

/// `audit.cj` holds the canonical bytes of a record and is read by other programs; every
/// other column of `audit` is a projection of it.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS audit (
  tenant TEXT NOT NULL, chain TEXT NOT NULL, seq INTEGER NOT NULL,
  cj BLOB NOT NULL, hash TEXT NOT NULL, type TEXT NOT NULL,
  producer TEXT NOT NULL, pseq INTEGER NOT NULL,
  occurred_at TEXT NOT NULL, recorded_at TEXT NOT NULL, ct BLOB,
  PRIMARY KEY (tenant, chain, seq)) STRICT;
CREATE TABLE IF NOT EXISTS audit_idem (
  tenant TEXT NOT NULL, chain TEXT NOT NULL, producer TEXT NOT NULL, pseq INTEGER NOT NULL,
  seq INTEGER NOT NULL, bd TEXT NOT NULL,
  PRIMARY KEY (tenant, chain, producer, pseq)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_head (
  tenant TEXT NOT NULL, chain TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL,
  state TEXT NOT NULL, hold INTEGER NOT NULL DEFAULT 0, started_at INTEGER NOT NULL, ended_at INTEGER,
  PRIMARY KEY (tenant, chain)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS audit_head_ended ON audit_head (ended_at) WHERE state = 'open' AND ended_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS signed_heads (
  tenant TEXT NOT NULL, chain TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL,
  PRIMARY KEY (tenant, chain)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_keys (
  tenant TEXT NOT NULL, call TEXT NOT NULL, n INTEGER NOT NULL, wrapped BLOB, state TEXT NOT NULL,
  PRIMARY KEY (tenant, call, n)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, call TEXT, body BLOB NOT NULL,
  grp TEXT, visible_at INTEGER NOT NULL, enqueued_at INTEGER NOT NULL,
  receives INTEGER NOT NULL DEFAULT 0, in_flight INTEGER NOT NULL DEFAULT 0,
  deferred INTEGER NOT NULL DEFAULT 0, note TEXT) STRICT;
CREATE INDEX IF NOT EXISTS queue_due ON queue (name, visible_at, id);
CREATE INDEX IF NOT EXISTS queue_group ON queue (name, grp, id);
CREATE INDEX IF NOT EXISTS queue_call ON queue (call);
CREATE TABLE IF NOT EXISTS sent (
  name TEXT NOT NULL, dedup TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (name, dedup)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sent_at ON sent (at);
CREATE TABLE IF NOT EXISTS payloads (
  tenant TEXT NOT NULL, payload TEXT NOT NULL, revision INTEGER NOT NULL, call TEXT NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (tenant, payload, revision)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transcripts (
  tenant TEXT NOT NULL, call TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (tenant, call)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS webhooks (
  message_id TEXT NOT NULL, destination TEXT NOT NULL, kind TEXT NOT NULL, call TEXT NOT NULL,
  attempts INTEGER NOT NULL, durable_failed INTEGER NOT NULL, status INTEGER, state TEXT NOT NULL,
  PRIMARY KEY (message_id, destination)) STRICT;
CREATE TABLE IF NOT EXISTS transfers (
  tenant TEXT NOT NULL, day TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (tenant, day, key)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
  name TEXT PRIMARY KEY, owner TEXT NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Creates what is missing in a file of this version, or in a new one.
pub(super) fn create(connection: &Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    if found != 0 && found != VERSION {
        return Err(StoreError::Version(found));
    }
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}

/// Refuses what this program did not write, or wrote in another version.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    match version(connection)? {
        VERSION => Ok(()),
        found => Err(StoreError::Version(found)),
    }
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}
