//! Queues with the semantics of SQS, in the embedded store: at least once, a visibility
//! timeout, order within a group where one is named, a dead-letter queue after too many
//! receives, and `parked` for what can never succeed. Bodies hold transcript text on their
//! way to a payload, so they are sealed at rest with the store's key.

use std::sync::Arc;

use handoff::clock::Timestamp;
use handoff::seal::SealKey;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Store, StoreError};

/// One message to enqueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which queue.
    pub queue: &'static str,
    /// What.
    pub body: Vec<u8>,
    /// Messages of one group are received in order, one at a time.
    pub group: Option<String>,
    /// The call that waits for it: its chain is closed when nothing is on its way.
    pub call: Option<String>,
    /// A second message with this key is dropped while the first is queued.
    pub dedup: Option<String>,
    /// Not before this much later, in milliseconds.
    pub delay_ms: i64,
}

/// One received message. It comes back after the visibility timeout unless it is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// For [`Store::delete`] and [`Store::postpone`].
    pub id: i64,
    /// What.
    pub body: Vec<u8>,
    /// How often it was received, this time included.
    pub receives: u32,
}

impl Message {
    /// A message without group, key or delay.
    pub const fn plain(queue: &'static str, body: Vec<u8>) -> Self {
        Self { queue, body, group: None, call: None, dedup: None, delay_ms: 0 }
    }
}

/// Puts messages into their queues, inside a job of the store.
pub fn enqueue(
    connection: &Connection,
    key: &SealKey,
    now: Timestamp,
    messages: &[Message],
) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO queue (name, grp, call, dedup, body, visible_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name, dedup) WHERE dedup IS NOT NULL DO NOTHING",
    )?;
    for message in messages {
        let mut nonce = [0_u8; 12];
        getrandom::fill(&mut nonce).map_err(|_| StoreError::NoRandomness)?;
        let body = key.seal(nonce, message.queue, &message.body);
        insert.execute(params![
            message.queue,
            message.group,
            message.call,
            message.dedup,
            body,
            now.unix_millis().saturating_add(message.delay_ms)
        ])?;
    }
    Ok(())
}

impl Store {
    /// Puts messages into their queues; done when they are on disk.
    pub async fn enqueue(&self, now: Timestamp, messages: Vec<Message>) -> Result<(), StoreError> {
        let key = Arc::clone(self.key());
        self.write(move |connection| enqueue(connection, &key, now, &messages)).await
    }

    /// Takes up to `most` due messages of a queue and hides them for `visibility_ms`. A group
    /// with a hidden message gives no other: order within the group is kept.
    pub async fn receive(
        &self,
        now: Timestamp,
        queue: &'static str,
        most: u32,
        visibility_ms: i64,
    ) -> Result<Vec<Received>, StoreError> {
        let key = Arc::clone(self.key());
        self.write(move |connection| receive(connection, &key, now, queue, most, visibility_ms)).await
    }

    /// Acknowledges a message.
    pub async fn delete(&self, id: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection.prepare_cached("DELETE FROM queue WHERE id = ?1")?.execute([id])?;
            Ok(())
        })
        .await
    }

    /// Shows a message again at `at` and not before.
    pub async fn postpone(&self, id: i64, at: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection
                .prepare_cached("UPDATE queue SET visible_at = ?2 WHERE id = ?1")?
                .execute(params![id, at.unix_millis()])?;
            Ok(())
        })
        .await
    }

    /// Moves a message out of its queue: to `parked` (it can never succeed) or to a
    /// dead-letter queue (it failed too often), with the reason beside it.
    pub async fn set_aside(&self, id: i64, to: String, reason: String) -> Result<(), StoreError> {
        let key = Arc::clone(self.key());
        self.write(move |connection| {
            let row: Option<(String, Vec<u8>)> = connection
                .query_row("SELECT name, body FROM queue WHERE id = ?1", [id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((from, sealed)) = row else { return Ok(()) };
            // The body is bound to its queue's name, so it is sealed anew for the next.
            let body = key.open(&from, &sealed).map_err(|_| StoreError::Unsealed)?;
            let mut nonce = [0_u8; 12];
            getrandom::fill(&mut nonce).map_err(|_| StoreError::NoRandomness)?;
            let sealed = key.seal(nonce, &to, &body);
            connection.execute(
                "UPDATE queue SET name = ?2, body = ?3, grp = NULL, call = NULL, dedup = NULL, note = ?4 WHERE id = ?1",
                params![id, to, sealed, reason],
            )?;
            Ok(())
        })
        .await
    }

    /// Messages in a queue, hidden ones included.
    pub fn depth(&self, queue: &str) -> Result<u64, StoreError> {
        let depth: i64 =
            self.reader()?
                .query_row("SELECT count(*) FROM queue WHERE name = ?1", [queue], |row| row.get(0))?;
        Ok(u64::try_from(depth).unwrap_or(0))
    }
}

fn receive(
    connection: &Connection,
    key: &SealKey,
    now: Timestamp,
    queue: &str,
    most: u32,
    visibility_ms: i64,
) -> Result<Vec<Received>, StoreError> {
    // The oldest message of each group that has none under way, and every ungrouped one.
    let mut select = connection.prepare_cached(
        "SELECT id, body, receives FROM queue AS q WHERE name = ?1 AND visible_at <= ?2
         AND (grp IS NULL OR id = (SELECT min(id) FROM queue WHERE name = ?1 AND grp = q.grp))
         ORDER BY id LIMIT ?3",
    )?;
    let rows = select.query_map(params![queue, now.unix_millis(), most], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, u32>(2)?))
    })?;
    let rows: Vec<(i64, Vec<u8>, u32)> = rows.collect::<Result<_, _>>()?;
    let mut hide = connection
        .prepare_cached("UPDATE queue SET visible_at = ?2, receives = receives + 1 WHERE id = ?1")?;
    let mut received = Vec::with_capacity(rows.len());
    for (id, sealed, receives) in rows {
        hide.execute(params![id, now.unix_millis().saturating_add(visibility_ms)])?;
        let body = key.open(queue, &sealed).map_err(|_| StoreError::Unsealed)?.to_vec();
        received.push(Received { id, body, receives: receives + 1 });
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_000_000);

    fn at(millis: i64) -> Timestamp {
        NOW.plus_millis(millis)
    }

    fn message(body: &str, group: Option<&str>) -> Message {
        Message { group: group.map(str::to_owned), ..Message::plain("audit.fifo", body.as_bytes().to_vec()) }
    }

    async fn bodies(store: &Store, now: Timestamp) -> Vec<String> {
        let received = store.receive(now, "audit.fifo", 10, 1_000).await.unwrap();
        received.into_iter().map(|message| String::from_utf8(message.body).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_received_message_is_hidden_and_comes_back_unless_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.enqueue(NOW, vec![message("a", None), message("b", None)]).await.unwrap();
        let first = store.receive(NOW, "audit.fifo", 1, 1_000).await.unwrap();
        assert_eq!(first[0].body, b"a");
        assert_eq!(bodies(&store, at(1)).await, ["b"]);
        store.delete(first[0].id).await.unwrap();
        assert_eq!(bodies(&store, at(1_001)).await, ["b"]);
    }

    #[tokio::test]
    async fn a_group_is_received_in_order_and_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let all = [("a1", "a"), ("a2", "a"), ("b1", "b")].map(|(body, group)| message(body, Some(group)));
        store.enqueue(NOW, all.to_vec()).await.unwrap();
        let first = store.receive(NOW, "audit.fifo", 10, 1_000).await.unwrap();
        let got: Vec<&[u8]> = first.iter().map(|message| message.body.as_slice()).collect();
        assert_eq!(got, [b"a1", b"b1"]);
        assert_eq!(bodies(&store, at(1)).await, Vec::<String>::new());
        store.delete(first[0].id).await.unwrap();
        assert_eq!(bodies(&store, at(2)).await, ["a2"]);
    }

    #[tokio::test]
    async fn a_duplicate_key_is_dropped_and_a_delay_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let keyed = Message { dedup: Some("k".to_owned()), delay_ms: 50, ..message("a", None) };
        store.enqueue(NOW, vec![keyed.clone(), keyed]).await.unwrap();
        assert_eq!(bodies(&store, at(49)).await, Vec::<String>::new());
        assert_eq!(bodies(&store, at(50)).await, ["a"]);
    }

    #[tokio::test]
    async fn a_body_is_not_readable_in_the_file_and_survives_being_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.enqueue(NOW, vec![message("a canary sentence", None)]).await.unwrap();
        let id = store.receive(NOW, "audit.fifo", 1, 0).await.unwrap()[0].id;
        store.set_aside(id, "parked".to_owned(), "unparsable".to_owned()).await.unwrap();
        assert_eq!(store.depth("parked").unwrap(), 1);
        let parked = store.receive(at(1), "parked", 1, 0).await.unwrap();
        assert_eq!(parked[0].body, b"a canary sentence");
        store.stop().await;
        let file = std::fs::read(store.path()).unwrap();
        assert!(!file.windows(6).any(|window| window == b"canary"));
    }
}
