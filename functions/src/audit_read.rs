//! Reading the embedded store from outside: the chains, one chain, the verdict on them, the
//! export. It works on a store that no process has open and never writes.

use std::path::Path;

use handoff::audit::verify::{Report, Source, StoredChain, StoredRecord, verify};
use handoff::audit::{AuditRecord, ChainHead, ChainId, Hash, HeadState};
use handoff::clock::Timestamp;
use handoff::id::TenantId;
use handoff::payload::Payload;
use handoff::seal::{SealKey, place};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;

use crate::sqlite::{self, StoreError, keys};

/// One chain, in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The call's id, with a suffix for side chains.
    pub chain: String,
    /// Records.
    pub records: u64,
    /// `open` or `closed`.
    pub state: String,
    /// Time of the first record.
    pub began: String,
}

/// One record, to be read by a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Number in the chain.
    pub seq: u64,
    /// Type.
    pub kind: String,
    /// When.
    pub occurred_at: Timestamp,
    /// Who, as `kind:id`.
    pub actor: String,
    /// Details.
    pub body: Value,
    /// The sealed text, where this store's key opens it.
    pub text: Option<String>,
}

/// One webhook as the sender recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// `webhook-id`.
    pub message_id: String,
    /// CloudEvents type.
    pub kind: String,
    /// Last HTTP status.
    pub status: Option<u16>,
    /// Tries.
    pub attempts: u32,
}

/// A store opened for reading.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    key: Option<SealKey>,
}

impl Reader {
    /// Opens the store in `dir`. Without its key file, sealed texts stay sealed.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let connection = sqlite::open_reader(&dir.join("warmbridge.db"))?;
        // The file may be any file: ask it something that only our store knows.
        connection.query_row("SELECT count(*) FROM audit_head", [], |_| Ok(()))?;
        let key =
            std::fs::read(dir.join("store.key")).ok().and_then(|bytes| SealKey::from_slice(&bytes).ok());
        Ok(Self { connection, key })
    }

    /// All chains, newest first.
    pub fn list(&self) -> Result<Vec<Chain>, StoreError> {
        let mut select = self.connection.prepare(
            "SELECT h.chain, h.seq, h.state, coalesce(min(a.occurred_at), '') AS began FROM audit_head h
             LEFT JOIN audit a ON a.tenant = h.tenant AND a.chain = h.chain
             GROUP BY h.tenant, h.chain ORDER BY began DESC, h.chain",
        )?;
        let rows = select.query_map([], |row| {
            Ok(Chain { chain: row.get(0)?, records: row.get(1)?, state: row.get(2)?, began: row.get(3)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The records of one chain, in order.
    pub fn show(&self, chain: &str) -> Result<Vec<Shown>, StoreError> {
        let mut select = self.connection.prepare("SELECT cj, ct FROM audit WHERE chain = ?1 ORDER BY seq")?;
        let rows = select
            .query_map([chain], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?)))?;
        let mut shown = Vec::new();
        for row in rows {
            let (canonical, ciphertext) = row?;
            let record = AuditRecord::parse(&canonical).ok_or_else(|| {
                StoreError::Unreadable("a record does not parse; run `audit verify`".to_owned())
            })?;
            let text = ciphertext.and_then(|ciphertext| self.opened(&record, &ciphertext));
            let entry = record.entry;
            let actor = serde_json::to_value(entry.actor.kind).ok();
            let actor = actor.as_ref().and_then(Value::as_str).unwrap_or_default();
            shown.push(Shown {
                seq: record.seq,
                kind: entry.kind,
                occurred_at: entry.occurred_at,
                actor: format!("{actor}:{}", entry.actor.id),
                body: entry.body,
                text,
            });
        }
        Ok(shown)
    }

    fn opened(&self, record: &AuditRecord, ciphertext: &[u8]) -> Option<String> {
        let entry = &record.entry;
        let call = entry.chain.call()?;
        let dek = keys::find(&self.connection, self.key.as_ref()?, &entry.tenant, &call).ok()??;
        let place = place(&entry.tenant, call.as_str(), entry.producer.as_str(), entry.pseq);
        let plain = dek.key.open(&place, ciphertext).ok()?;
        Some(String::from_utf8_lossy(&plain).into_owned())
    }

    /// The verdict on one call, or on everything.
    pub fn verify(&self, call: Option<&str>, now: Timestamp) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut select = self.connection.prepare(
            "SELECT tenant, chain FROM audit_head UNION SELECT tenant, chain FROM audit ORDER BY 1, 2",
        )?;
        let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let names: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
        let wanted = |chain: &str| call.is_none_or(|call| chain == call);
        for (tenant, chain) in names.iter().filter(|(_, chain)| !chain.ends_with("#late") && wanted(chain)) {
            let main = self.stored(tenant, chain)?;
            let side = format!("{chain}#late");
            let side = names
                .iter()
                .any(|(_, name)| *name == side)
                .then(|| self.stored(tenant, &side))
                .transpose()?;
            report.absorb(verify(&main, side.as_ref(), Source::Store, now));
        }
        if report.chains == 0 && call.is_some() {
            return Ok(Report::unreadable("the store holds no such call"));
        }
        Ok(report)
    }

    fn stored(&self, tenant: &str, chain: &str) -> Result<StoredChain, StoreError> {
        let unreadable = |error: &dyn std::fmt::Display| StoreError::Unreadable(error.to_string());
        let mut select = self.connection.prepare_cached(
            "SELECT seq, cj, hash, recorded_at, ct FROM audit WHERE tenant = ?1 AND chain = ?2 ORDER BY seq",
        )?;
        let rows = select.query_map([tenant, chain], |row| {
            Ok(StoredRecord {
                seq: row.get(0)?,
                canonical: bytes(row, 1)?,
                hash: row.get(2)?,
                recorded_at: row.get::<_, String>(3).ok().and_then(|text| Timestamp::parse(&text).ok()),
                ciphertext: row.get(4)?,
            })
        })?;
        let records = rows.collect::<Result<_, _>>()?;
        let head: Option<(u64, String, String)> = self
            .connection
            .prepare_cached("SELECT seq, hash, state FROM audit_head WHERE tenant = ?1 AND chain = ?2")?
            .query_row([tenant, chain], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let head = head
            .map(|(seq, hash, state)| {
                let state = if state == "open" { HeadState::Open } else { HeadState::Closed };
                Hash::parse(&hash)
                    .map(|hash| ChainHead { seq, hash, state })
                    .map_err(|error| unreadable(&error))
            })
            .transpose()?;
        let destroyed: Option<bool> = self
            .connection
            .prepare_cached("SELECT state = 'destroyed' FROM audit_keys WHERE tenant = ?1 AND call = ?2")?
            .query_row([tenant, chain.split('#').next().unwrap_or_default()], |row| row.get(0))
            .optional()?;
        Ok(StoredChain {
            tenant: TenantId::parse(tenant).map_err(|error| unreadable(&error))?,
            chain: ChainId::parse(chain).map_err(|error| unreadable(&error))?,
            records,
            head,
            erased: destroyed == Some(true),
        })
    }

    /// A call's records as a bundle: one canonical record a line, byte for byte.
    pub fn export(&self, chain: &str) -> Result<Vec<u8>, StoreError> {
        let mut select = self.connection.prepare("SELECT cj FROM audit WHERE chain = ?1 ORDER BY seq")?;
        let rows = select.query_map([chain], |row| bytes(row, 0))?;
        let mut bundle = Vec::new();
        for row in rows {
            bundle.extend(row?);
            bundle.push(b'\n');
        }
        Ok(bundle)
    }

    /// The newest payload of a transfer that the functions built.
    pub fn payload(&self, transfer: &str) -> Result<Option<Payload>, StoreError> {
        let Some(key) = &self.key else { return Ok(None) };
        let sealed: Option<Vec<u8>> = self
            .connection
            .query_row(
                "SELECT body FROM payloads WHERE transfer = ?1 ORDER BY revision DESC LIMIT 1",
                [transfer],
                |row| row.get(0),
            )
            .optional()?;
        let Some(sealed) = sealed else { return Ok(None) };
        let plain = key.open(transfer, &sealed).map_err(|_| StoreError::Unsealed)?;
        Payload::parse(&plain).map(Some).map_err(|error| StoreError::Unreadable(error.to_string()))
    }

    /// The webhooks of one call.
    pub fn webhooks(&self, call: &str) -> Result<Vec<Webhook>, StoreError> {
        let mut select = self.connection.prepare(
            "SELECT message_id, type, status, attempts FROM webhooks WHERE call = ?1 ORDER BY type",
        )?;
        let rows = select.query_map([call], |row| {
            Ok(Webhook {
                message_id: row.get(0)?,
                kind: row.get(1)?,
                status: row.get(2)?,
                attempts: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// A column that holds our bytes. Whoever edits the file with a text tool may leave text
/// behind; its bytes are judged like any others.
fn bytes(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
    })
}
