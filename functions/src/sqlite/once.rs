//! What comes from outside with an id of its own: taken once, whoever repeats it, and told
//! apart from something else under the same id.

use handoff::id::{CallId, PayloadId, TenantId};
use rusqlite::{OptionalExtension, params};

use super::{Receipt, Store, StoreError, Tx, queue};
use crate::ports::Outgoing;

/// What became of a message that is to be sent once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// Nothing was sent under this name before; now it was.
    First,
    /// The same was sent before.
    Again,
    /// Something else was sent under this name.
    Other,
}

impl Store {
    /// Sends a message under a name, once. The claim and the message are one transaction, so
    /// that a crash leaves both or neither. `content` tells what is the same.
    pub fn send_once(&self, name: &str, content: &str, message: Outgoing) -> Receipt<Once> {
        let (name, content) = (name.to_owned(), content.to_owned());
        self.run(move |tx: &Tx<'_>| {
            let first = tx
                .conn
                .prepare_cached("INSERT OR IGNORE INTO claims (name, owner, at) VALUES (?1, ?2, ?3)")?
                .execute(params![name, content, tx.now.unix_millis()])?;
            if first == 1 {
                queue::send(tx, &message)?;
                return Ok(Once::First);
            }
            let owner: String = tx
                .conn
                .prepare_cached("SELECT owner FROM claims WHERE name = ?1")?
                .query_row([&name], |row| row.get(0))?;
            Ok(if owner == content { Once::Again } else { Once::Other })
        })
    }

    /// The call that a payload is of, without opening it: known from the ring on, also once
    /// the call's key is destroyed.
    pub fn call_of_payload(
        &self,
        tenant: &TenantId,
        payload: &PayloadId,
    ) -> Result<Option<CallId>, StoreError> {
        let found: Option<String> = self.read(|conn, _| {
            Ok(conn
                .prepare_cached("SELECT call FROM payloads WHERE tenant = ?1 AND payload = ?2 LIMIT 1")?
                .query_row(params![tenant.as_str(), payload.as_str()], |row| row.get(0))
                .optional()?)
        })?;
        let parse =
            |call: String| CallId::parse(&call).map_err(|_| StoreError::Damaged("the call of a payload"));
        found.map(parse).transpose()
    }
}
