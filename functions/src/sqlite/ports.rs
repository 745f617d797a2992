//! The ports of the handlers on the embedded store. Each is one job of the writer or one
//! lookup of the reader.

use handoff::audit::{AuditMessage, AuditRecord, ChainHead, ChainId};
use handoff::clock::Day;
use handoff::id::{CallId, PayloadId, TenantId};
use handoff::seal::DataKey;
use rusqlite::{OptionalExtension, params};

use super::{Receipt, Row, Store, ledger, queue, vault};
use crate::ports::{
    AppendAudit, AuditOutcome, CitedHead, ClaimOnce, Deliveries, DeliveryState, Enqueue, GetPayload,
    GetTranscript, Keys, Outgoing, PortError, PutPayload, PutRow, PutTranscript, ReadAudit, ReadRecords,
    ReadRows, StoredPayload, StoredRow,
};

impl Store {
    /// The call's data key, made where there is none: to await, or to wait for on a thread.
    pub fn call_key(&self, tenant: &TenantId, call: &CallId) -> Receipt<DataKey> {
        let (tenant, call) = (tenant.clone(), call.clone());
        self.run(move |tx| vault::data_key(tx, &tenant, &call))
    }

    /// Places or lifts a legal hold: while it stands, nothing of the call is erased.
    pub fn hold(&self, tenant: &TenantId, call: &CallId, held: bool) -> Receipt<()> {
        let (tenant, call) = (tenant.clone(), call.clone());
        self.run(move |tx| {
            tx.conn
                .prepare_cached("UPDATE audit_head SET hold = ?3 WHERE tenant = ?1 AND chain = ?2")?
                .execute(params![tenant.as_str(), call.as_str(), held])?;
            Ok(())
        })
    }

    /// Messages that somebody still works on.
    pub fn outstanding(&self) -> Result<u64, super::StoreError> {
        self.read(|conn, _| queue::outstanding(conn, None))
    }

    /// Messages in one queue, parked and dead ones included where they are asked for.
    pub fn depth(&self, queue: &str) -> Result<u64, super::StoreError> {
        self.read(|conn, _| queue::depth(conn, queue))
    }
}

impl Enqueue for Store {
    async fn enqueue(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        let rows: Vec<Row> = messages.into_iter().map(Row::Send).collect();
        self.submit(rows).committed().await?;
        Ok(())
    }
}

impl AppendAudit for Store {
    async fn append(&self, message: AuditMessage) -> Result<AuditOutcome, PortError> {
        Ok(self.run(move |tx| ledger::append_message(tx, &message)).committed().await?.value)
    }

    async fn close_complete(&self) -> Result<Vec<CallId>, PortError> {
        Ok(self.run(ledger::close_complete).committed().await?.value)
    }
}

impl ReadAudit for Store {
    async fn head(&self, tenant: &TenantId, call: &CallId) -> Result<CitedHead, PortError> {
        let chain = ChainId::of(call);
        let head = self
            .read(|conn, _| ledger::head(conn, tenant, &chain))?
            .unwrap_or_else(|| ChainHead::genesis(tenant, &chain));
        Ok(CitedHead { seq: head.seq, hash: head.hash.to_string() })
    }
}

impl PutPayload for Store {
    async fn put_payload(&self, payload: StoredPayload) -> Result<Vec<u8>, PortError> {
        Ok(self.run(move |tx| vault::put_payload(tx, &payload)).committed().await?.value)
    }
}

impl GetPayload for Store {
    async fn payload(
        &self,
        tenant: &TenantId,
        payload: &PayloadId,
        revision: Option<u32>,
    ) -> Result<Option<StoredPayload>, PortError> {
        Ok(self.read(|conn, key| vault::find_payload(conn, key, tenant, payload, revision))?)
    }
}

impl PutTranscript for Store {
    async fn put_transcript(&self, tenant: &TenantId, call: &CallId, text: Vec<u8>) -> Result<(), PortError> {
        let (tenant, call) = (tenant.clone(), call.clone());
        self.run(move |tx| vault::put_transcript(tx, &tenant, &call, &text)).committed().await?;
        Ok(())
    }
}

impl GetTranscript for Store {
    async fn transcript(&self, tenant: &TenantId, call: &CallId) -> Result<Option<Vec<u8>>, PortError> {
        Ok(self.read(|conn, key| vault::find_transcript(conn, key, tenant, call))?)
    }
}

impl ClaimOnce for Store {
    async fn claim(&self, name: &str, owner: &str) -> Result<bool, PortError> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        let work = move |tx: &super::Tx<'_>| {
            tx.conn
                .prepare_cached("INSERT OR IGNORE INTO claims (name, owner, at) VALUES (?1, ?2, ?3)")?
                .execute(params![name, owner, tx.now.unix_millis()])?;
            let first: String = tx
                .conn
                .prepare_cached("SELECT owner FROM claims WHERE name = ?1")?
                .query_row([&name], |row| row.get(0))?;
            Ok(first == owner)
        };
        Ok(self.run(work).committed().await?.value)
    }
}

impl Keys for Store {
    async fn data_key(&self, tenant: &TenantId, call: &CallId) -> Result<DataKey, PortError> {
        Ok(self.call_key(tenant, call).committed().await?.value)
    }

    async fn destroy(&self, tenant: &TenantId, call: &CallId) -> Result<Vec<String>, PortError> {
        let (tenant, call) = (tenant.clone(), call.clone());
        Ok(self.run(move |tx| vault::destroy(tx, &tenant, &call)).committed().await?.value)
    }
}

impl Deliveries for Store {
    async fn delivery(
        &self,
        message_id: &str,
        destination: &str,
    ) -> Result<Option<DeliveryState>, PortError> {
        let found = self.read(|conn, _| {
            let row = conn
                .prepare_cached(
                    "SELECT kind, call, attempts, durable_failed, status, state FROM webhooks
                     WHERE message_id = ?1 AND destination = ?2",
                )?
                .query_row(params![message_id, destination], |row| {
                    let call: String = row.get(1)?;
                    Ok((call, row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
                })
                .optional()?;
            Ok(row)
        })?;
        let Some((call, kind, attempts, durable_failed, status, state)) = found else { return Ok(None) };
        let call = CallId::parse(&call).map_err(|e| PortError::Permanent(e.to_string()))?;
        Ok(Some(DeliveryState {
            message_id: message_id.to_owned(),
            destination: destination.to_owned(),
            kind,
            call,
            attempts,
            durable_failed,
            status,
            state,
        }))
    }

    async fn note_delivery(&self, state: DeliveryState) -> Result<(), PortError> {
        let work = move |tx: &super::Tx<'_>| {
            tx.conn
                .prepare_cached(
                    "INSERT INTO webhooks (message_id, destination, kind, call, attempts, durable_failed, status, state)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                     ON CONFLICT (message_id, destination) DO UPDATE SET attempts = excluded.attempts,
                       durable_failed = excluded.durable_failed, status = excluded.status, state = excluded.state",
                )?
                .execute(params![
                    state.message_id,
                    state.destination,
                    state.kind,
                    state.call.as_str(),
                    state.attempts,
                    state.durable_failed,
                    state.status,
                    state.state
                ])?;
            Ok(())
        };
        self.run(work).committed().await?;
        Ok(())
    }

    async fn disable(&self, destination: &str) -> Result<(), PortError> {
        self.claim(&disabled_name(destination), "gone").await.map(drop)
    }

    async fn is_disabled(&self, destination: &str) -> Result<bool, PortError> {
        let name = disabled_name(destination);
        let found: Option<i64> = self.read(|conn, _| {
            Ok(conn
                .prepare_cached("SELECT 1 FROM claims WHERE name = ?1")?
                .query_row([&name], |row| row.get(0))
                .optional()?)
        })?;
        Ok(found.is_some())
    }
}

impl ReadRecords for Store {
    async fn records(&self, tenant: &TenantId, call: &CallId) -> Result<Vec<AuditRecord>, PortError> {
        Ok(self.read(|conn, _| ledger::records(conn, tenant.as_str(), call))?)
    }
}

impl PutRow for Store {
    async fn put_row(&self, row: StoredRow) -> Result<(), PortError> {
        let work = move |tx: &super::Tx<'_>| {
            tx.conn
                .prepare_cached(
                    "INSERT INTO transfers (tenant, day, key, body) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (tenant, day, key) DO UPDATE SET body = excluded.body",
                )?
                .execute(params![row.tenant.as_str(), row.day.to_string(), row.key, row.body])?;
            Ok(())
        };
        self.run(work).committed().await?;
        Ok(())
    }
}

impl ReadRows for Store {
    async fn rows(&self, tenant: &TenantId, day: Day) -> Result<Vec<StoredRow>, PortError> {
        let rows: Vec<(String, Vec<u8>)> = self.read(|conn, _| {
            let mut statement = conn.prepare_cached(
                "SELECT key, body FROM transfers WHERE tenant = ?1 AND day = ?2 ORDER BY key",
            )?;
            let rows = statement
                .query_map(params![tenant.as_str(), day.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        let stored = |(key, body)| StoredRow { tenant: tenant.clone(), day, key, body };
        Ok(rows.into_iter().map(stored).collect())
    }
}

pub(super) fn disabled_name(destination: &str) -> String {
    format!("disabled:{destination}")
}
