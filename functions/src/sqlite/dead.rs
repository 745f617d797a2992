//! The dead letters of webhooks: those whose schedule is used up, or whose receiver said that
//! it is gone. An operator lists them and sends them again. The edge may be running: one short
//! transaction of another process is all that this writes, and the workers find the messages
//! when they look again.

use std::path::Path;

use handoff::clock::Timestamp;
use handoff::delivery::Lane;
use handoff::id::{CallId, DestinationId};
use handoff::seal::SealKey;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::queue::{DLQ_SUFFIX, PLACE};
use super::{BUSY_TIMEOUT_MS, DATABASE, StoreError, nonce, ports, read_key, schema, wall_clock};
use crate::outbox::WebhookJob;
use crate::ports::{WEBHOOKS_DURABLE, WEBHOOKS_LIVE};

/// One dead webhook, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its idempotency key.
    pub message_id: String,
    /// CloudEvents type.
    pub kind: String,
    /// To whom.
    pub destination: DestinationId,
    /// Of which call.
    pub call: CallId,
    /// When it was first queued.
    pub queued_at: Timestamp,
}

/// Which dead letters are sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// One message, to whomever it was for.
    Message(String),
    /// All of one destination.
    Destination(DestinationId),
    /// All.
    Everything,
}

impl Replay {
    fn takes(&self, job: &WebhookJob) -> bool {
        match self {
            Self::Message(id) => job.message_id == *id,
            Self::Destination(destination) => job.destination == *destination,
            Self::Everything => true,
        }
    }
}

/// The dead letters of one store.
#[derive(Debug)]
pub struct DeadLetters {
    conn: Connection,
    key: SealKey,
}

impl DeadLetters {
    /// Opens the store in `dir`, which must exist.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(dir.join(DATABASE), flags)?;
        conn.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
        schema::check(&conn)?;
        Ok(Self { conn, key: read_key(dir)? })
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Result<Vec<DeadLetter>, StoreError> {
        let rows = rows(&self.conn, &self.key)?;
        let letters = rows.into_iter().map(|row| DeadLetter {
            message_id: row.job.message_id,
            kind: row.job.kind.as_str().to_owned(),
            destination: row.job.destination,
            call: row.job.call,
            queued_at: row.queued_at,
        });
        Ok(letters.collect())
    }

    /// Puts those that fit back into the durable lane, from its first try on, with the same id
    /// and the same bytes. A destination that said that it is gone is tried again: whoever
    /// replays knows that it is back. Returns how many there were.
    pub fn replay(&mut self, which: &Replay) -> Result<usize, StoreError> {
        let key = self.key.clone();
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut replayed = 0;
        for row in rows(&transaction, &key)?.into_iter().filter(|row| which.takes(&row.job)) {
            revive(&transaction, &key, row)?;
            replayed += 1;
        }
        transaction.commit()?;
        Ok(replayed)
    }
}

struct Row {
    id: i64,
    queued_at: Timestamp,
    job: WebhookJob,
}

fn rows(conn: &Connection, key: &SealKey) -> Result<Vec<Row>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT id, enqueued_at, body FROM queue WHERE name IN (?1, ?2) ORDER BY id")?;
    let names = [WEBHOOKS_DURABLE, WEBHOOKS_LIVE].map(|queue| format!("{queue}{DLQ_SUFFIX}"));
    let found: Vec<(i64, i64, Vec<u8>)> = statement
        .query_map(names, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let opened = found.into_iter().map(|(id, at, sealed)| {
        let body = key.open(PLACE, &sealed)?;
        let job =
            WebhookJob::from_json(&body).map_err(|_| StoreError::Damaged("a dead letter does not parse"))?;
        Ok(Row { id, queued_at: Timestamp::from_unix_millis(at), job })
    });
    opened.collect()
}

fn revive(transaction: &Transaction<'_>, key: &SealKey, row: Row) -> Result<(), StoreError> {
    let job = WebhookJob { lane: Lane::Durable, ..row.job };
    let message = job.outgoing();
    let now = wall_clock().unix_millis();
    transaction
        .prepare_cached(
            "UPDATE queue SET name = ?2, body = ?3, visible_at = ?4, enqueued_at = ?4, receives = 0,
             in_flight = 0, deferred = 0 WHERE id = ?1",
        )?
        .execute(params![row.id, message.queue, key.seal(nonce()?, PLACE, &message.body), now])?;
    transaction
        .prepare_cached(
            "UPDATE webhooks SET durable_failed = 0, state = 'pending' WHERE message_id = ?1 AND destination = ?2",
        )?
        .execute(params![job.message_id, job.destination.as_str()])?;
    transaction
        .prepare_cached("DELETE FROM claims WHERE name = ?1")?
        .execute([ports::disabled_name(job.destination.as_str())])?;
    Ok(())
}
