//! Queues in the embedded store, with the semantics of the cloud's: at least once,
//! visibility timeout, order per group where a queue keeps order, a dead-letter queue after
//! too many receives. Bodies are sealed at rest.

use std::fmt;
use std::time::Duration;

use handoff::clock::Timestamp;
use handoff::id::{CallId, PayloadId, TenantId};
use handoff::seal::DataKey;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{StoreError, Tx, nonce, vault};
use crate::ports::{
    AUDIT, COMMANDS_PREFIX, DECISIONS, Outgoing, PARKED, SIGNALS, StoredPayload, WEBHOOKS_DURABLE,
    WEBHOOKS_LIVE,
};

/// How a queue treats its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// Its name; command queues share one entry.
    pub name: &'static str,
    /// How long a received message stays invisible.
    pub visibility: Duration,
    /// Receives after which it is dead.
    pub receives_max: u32,
    /// How long a message is kept.
    pub retention: Duration,
    /// Most messages at once.
    pub batch: usize,
}

/// Data keys of calls on their way to the cloud's table. The message is its call alone.
pub(crate) const FORWARD_KEYS: &str = "forward-keys";
/// Payloads of the edge on their way to the cloud's table. The message is a
/// [`ForwardedPayload`].
pub(crate) const FORWARD_PAYLOADS: &str = "forward-payloads";

/// Which payload goes to the cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardedPayload {
    /// Which.
    pub(crate) payload: PayloadId,
    /// Its revision.
    pub(crate) revision: u32,
}

impl Row {
    /// The message that takes this row to the cloud as well, where it is not one itself.
    pub fn forwarded(&self) -> Option<Self> {
        let (queue, call, body) = match self {
            Self::Send(_) => return None,
            Self::Key { call, .. } => (FORWARD_KEYS, call, Vec::new()),
            Self::Payload(stored) => {
                let named = ForwardedPayload { payload: stored.payload.clone(), revision: stored.revision };
                // An id and a number: nothing in this type can fail.
                (FORWARD_PAYLOADS, &stored.call, serde_json::to_vec(&named).unwrap_or_default())
            }
        };
        Some(Self::Send(Outgoing::to(queue, call, body)))
    }
}

/// The queues that are consumed, as they are deployed in the cloud, and those of an edge that
/// forwards to it.
pub const QUEUES: [QueueSettings; 8] = [
    settings(SIGNALS, 30, 3, 3_600, 10),
    settings(DECISIONS, 60, 3, 3_600, 1),
    settings(WEBHOOKS_LIVE, 36, 2, 3_600, 1),
    settings(WEBHOOKS_DURABLE, 120, 30, 14 * 86_400, 1),
    settings(AUDIT, 60, 5, 14 * 86_400, 10),
    settings(COMMANDS_PREFIX, 10, 3, 300, 10),
    settings(FORWARD_KEYS, 60, 5, 14 * 86_400, 10),
    settings(FORWARD_PAYLOADS, 60, 5, 14 * 86_400, 10),
];

const fn settings(
    name: &'static str,
    visibility: u64,
    receives_max: u32,
    retention: u64,
    batch: usize,
) -> QueueSettings {
    QueueSettings {
        name,
        visibility: Duration::from_secs(visibility),
        receives_max,
        retention: Duration::from_secs(retention),
        batch,
    }
}

/// How long a second message with the same id is dropped: as in the cloud.
const DEDUP_WINDOW_MS: i64 = 5 * 60_000;

/// What is added to a queue's name for its dead letters.
pub(super) const DLQ_SUFFIX: &str = "-dlq";

/// Where a sealed body belongs, so that it cannot be moved out of the queue's table.
pub(super) const PLACE: &str = "queue";

/// One row to be written with others in one transaction.
#[derive(Clone)]
pub enum Row {
    /// A message.
    Send(Outgoing),
    /// A payload revision, stored unless it is there.
    Payload(StoredPayload),
    /// The data key of a new call, before the first text that it seals.
    Key {
        /// Whose.
        tenant: TenantId,
        /// Of which call.
        call: CallId,
        /// The key.
        key: DataKey,
    },
}

/// Says what it is, never what is in it.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(message) => message.fmt(f),
            Self::Payload(payload) => write!(f, "Payload({}, {})", payload.payload, payload.revision),
            Self::Key { call, .. } => write!(f, "Key({call})"),
        }
    }
}

/// A message that a worker holds until its visibility ends.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    /// Its row.
    pub id: i64,
    /// Times it was received, this one included; a stale holder's number no longer fits.
    pub receives: u32,
    /// The group whose order it keeps.
    pub group: Option<String>,
    /// The call it is about.
    pub call: Option<CallId>,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// The content.
    pub body: Vec<u8>,
}

/// Says which message, never what is in it: bodies are personal.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({}, {} bytes, receive {})", self.id, self.body.len(), self.receives)
    }
}

/// What a queue has for a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Messages, oldest first.
    pub messages: Vec<Received>,
    /// When the next one becomes visible, if any waits.
    pub next_at: Option<Timestamp>,
}

/// The settings of a queue, by its name.
pub(crate) fn settings_of(name: &str) -> Option<QueueSettings> {
    QUEUES.into_iter().find(|queue| {
        if queue.name == COMMANDS_PREFIX { name.starts_with(COMMANDS_PREFIX) } else { name == queue.name }
    })
}

pub(super) fn insert(tx: &Tx<'_>, row: &Row) -> Result<(), StoreError> {
    match row {
        Row::Send(message) => send(tx, message),
        Row::Payload(payload) => vault::put_payload(tx, payload).map(drop),
        Row::Key { tenant, call, key } => vault::keep_key(tx, tenant, call, key),
    }
}

/// Adds a message, unless an equal one was sent just before.
pub(super) fn send(tx: &Tx<'_>, message: &Outgoing) -> Result<(), StoreError> {
    let now = tx.now.unix_millis();
    if let Some(dedup) = &message.dedup {
        tx.conn.prepare_cached("DELETE FROM sent WHERE at < ?1")?.execute([now - DEDUP_WINDOW_MS])?;
        let fresh = tx
            .conn
            .prepare_cached("INSERT OR IGNORE INTO sent (name, dedup, at) VALUES (?1, ?2, ?3)")?
            .execute(params![message.queue, dedup, now])?;
        if fresh == 0 {
            return Ok(());
        }
    }
    let sealed = tx.key.seal(nonce()?, PLACE, &message.body);
    let visible_at = now.saturating_add(millis(message.delay));
    tx.conn
        .prepare_cached(
            "INSERT INTO queue (name, call, body, grp, visible_at, enqueued_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            message.queue,
            message.call.as_ref().map(CallId::as_str),
            sealed,
            message.group,
            visible_at,
            now
        ])?;
    tx.mark_active();
    Ok(())
}

/// Whether a queue has work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// A message is visible now.
    pub(crate) now: bool,
    /// When the next one will be.
    pub(crate) next_at: Option<Timestamp>,
}

/// Looks without taking.
pub(crate) fn due(conn: &Connection, queue: &str, now: Timestamp) -> Result<Due, StoreError> {
    let first: Option<i64> = conn
        .prepare_cached("SELECT MIN(visible_at) FROM queue WHERE name = ?1")?
        .query_row([queue], |row| row.get(0))?;
    let visible = first.is_some_and(|at| at <= now.unix_millis());
    let blocked = visible && keeps_order(queue) && candidates(conn, queue, now.unix_millis(), 1)?.is_empty();
    let next_at = match (visible, blocked) {
        (true, false) => None,
        (false, _) => first.map(Timestamp::from_unix_millis),
        // A message of the group in front becomes visible, or is taken away, first.
        (true, true) => next_visible(conn, queue, now.unix_millis())?,
    };
    Ok(Due { now: visible && !blocked, next_at })
}

fn next_visible(conn: &Connection, queue: &str, now: i64) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<i64> = conn
        .prepare_cached("SELECT MIN(visible_at) FROM queue WHERE name = ?1 AND visible_at > ?2")?
        .query_row(params![queue, now], |row| row.get(0))?;
    Ok(next.map(Timestamp::from_unix_millis))
}

/// Takes up to `max` visible messages. In a queue that keeps order, a message waits while an
/// earlier one of its group is held.
pub(crate) fn receive(tx: &Tx<'_>, queue: &str, max: usize) -> Result<Batch, StoreError> {
    let settings = settings_of(queue).ok_or(StoreError::Damaged("no such queue"))?;
    let now = tx.now.unix_millis();
    expire(tx, queue, settings, now)?;
    let mut batch = Batch::default();
    for candidate in candidates(tx.conn, queue, now, max)? {
        tx.conn
            .prepare_cached(
                "UPDATE queue SET visible_at = ?2, receives = receives + 1, in_flight = 1, deferred = 0 WHERE id = ?1",
            )?
            .execute(params![candidate.id, now + millis(settings.visibility)])?;
        let body = tx.key.open(PLACE, &candidate.body)?.to_vec();
        batch.messages.push(Received { receives: candidate.receives + 1, body, ..candidate });
    }
    if batch.messages.is_empty() {
        batch.next_at = next_visible(tx.conn, queue, now)?;
    }
    Ok(batch)
}

/// Old messages go, and those that were received too often go to the dead letters.
fn expire(tx: &Tx<'_>, queue: &str, settings: QueueSettings, now: i64) -> Result<(), StoreError> {
    let oldest = now.saturating_sub(millis(settings.retention));
    let dropped = tx
        .conn
        .prepare_cached("DELETE FROM queue WHERE name = ?1 AND visible_at <= ?2 AND enqueued_at < ?3")?
        .execute(params![queue, now, oldest])?;
    let dead = tx
        .conn
        .prepare_cached(
            "UPDATE queue SET name = name || ?4, in_flight = 0 WHERE name = ?1 AND visible_at <= ?2 AND receives >= ?3",
        )?
        .execute(params![queue, now, settings.receives_max, DLQ_SUFFIX])?;
    if dead > 0 {
        tracing::error!(queue, dead, "messages went to the dead-letter queue");
    }
    if dropped + dead > 0 {
        tx.mark_active();
    }
    Ok(())
}

fn candidates(conn: &Connection, queue: &str, now: i64, max: usize) -> Result<Vec<Received>, StoreError> {
    let ordered = "SELECT id, receives, grp, call, enqueued_at, body FROM queue q
        WHERE name = ?1 AND visible_at <= ?2 AND NOT EXISTS (
          SELECT 1 FROM queue p WHERE p.name = q.name AND p.grp = q.grp AND p.id < q.id AND p.visible_at > ?2)
        ORDER BY id LIMIT ?3";
    let unordered = "SELECT id, receives, grp, call, enqueued_at, body FROM queue
        WHERE name = ?1 AND visible_at <= ?2 ORDER BY visible_at, id LIMIT ?3";
    let mut statement = conn.prepare_cached(if keeps_order(queue) { ordered } else { unordered })?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![queue, now, limit], |row| {
        let call: Option<String> = row.get(3)?;
        Ok(Received {
            id: row.get(0)?,
            receives: row.get(1)?,
            group: row.get(2)?,
            call: call.and_then(|call| CallId::parse(&call).ok()),
            sent_at: Timestamp::from_unix_millis(row.get(4)?),
            body: row.get(5)?,
        })
    })?;
    rows.collect::<Result<_, _>>().map_err(StoreError::from)
}

fn keeps_order(queue: &str) -> bool {
    queue.ends_with(".fifo")
}

/// Takes a message away for good. A stale holder changes nothing.
pub(crate) fn delete(tx: &Tx<'_>, id: i64, receives: u32) -> Result<(), StoreError> {
    let gone = tx
        .conn
        .prepare_cached("DELETE FROM queue WHERE id = ?1 AND receives = ?2")?
        .execute(params![id, receives])?;
    if gone > 0 {
        tx.mark_active();
    }
    Ok(())
}

/// Why a message goes back to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// It failed; this receive brings it nearer to the dead letters.
    Counted,
    /// It was not its own fault.
    Uncounted,
    /// It waits for a later try by its own schedule, and nothing waits for it.
    Deferred,
    /// It was not tried at all, and nothing waits for it.
    Held,
}

/// Gives a message back, visible after `delay`.
pub(crate) fn release(
    tx: &Tx<'_>,
    id: i64,
    receives: u32,
    delay: Duration,
    how: Release,
) -> Result<(), StoreError> {
    let visible_at = tx.now.unix_millis().saturating_add(millis(delay));
    let counted = match how {
        Release::Counted | Release::Deferred => receives,
        Release::Uncounted | Release::Held => receives.saturating_sub(1),
    };
    tx.conn
        .prepare_cached(
            "UPDATE queue SET visible_at = ?3, in_flight = 0, deferred = ?4, receives = ?5
             WHERE id = ?1 AND receives = ?2",
        )?
        .execute(params![
            id,
            receives,
            visible_at,
            matches!(how, Release::Deferred | Release::Held),
            counted
        ])?;
    tx.mark_active();
    Ok(())
}

/// Moves a message to `parked`, with why.
pub(crate) fn park(tx: &Tx<'_>, id: i64, receives: u32, why: &str) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached(
            "UPDATE queue SET name = ?3, note = name || ': ' || ?4, in_flight = 0 WHERE id = ?1 AND receives = ?2",
        )?
        .execute(params![id, receives, PARKED, why])?;
    tx.mark_active();
    Ok(())
}

/// Moves a message straight to its queue's dead letters: its schedule is used up.
pub(crate) fn bury(tx: &Tx<'_>, id: i64, receives: u32) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached("UPDATE queue SET name = name || ?3, in_flight = 0 WHERE id = ?1 AND receives = ?2")?
        .execute(params![id, receives, DLQ_SUFFIX])?;
    tx.mark_active();
    Ok(())
}

/// Messages that somebody still works on: not parked, not dead, not waiting for a late try.
pub(crate) fn outstanding(conn: &Connection, call: Option<&str>) -> Result<u64, StoreError> {
    conn.prepare_cached(
        "SELECT COUNT(*) FROM queue WHERE name <> 'parked' AND name NOT LIKE '%-dlq' AND deferred = 0
         AND (?1 IS NULL OR call = ?1)",
    )?
    .query_row(params![call], |row| row.get(0))
    .map_err(StoreError::from)
}

/// Messages in one queue, whatever their state.
pub(crate) fn depth(conn: &Connection, queue: &str) -> Result<u64, StoreError> {
    conn.query_row("SELECT COUNT(*) FROM queue WHERE name = ?1", [queue], |row| row.get(0))
        .optional()
        .map(Option::unwrap_or_default)
        .map_err(StoreError::from)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
