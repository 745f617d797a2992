//! `write-audit`: the one writer of the ledger. It gives each entry its number and its link,
//! under the same conditions as the cloud's transaction: the head must be where it was read,
//! a producer's number is taken once. It also closes chains, and it makes the entries of the
//! other functions, whose facts are their own doings and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use handoff::audit::{
    self, Actor, Appended, AuditEntry, AuditMessage, ChainHead, ChainId, Hash, HeadState, NewRecord, Prior,
    ProducerId, Refs,
};
use handoff::clock::Timestamp;
use handoff::id::{CallId, TenantId};
use handoff::payload::Payload;
use handoff::seal::DataKey;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use crate::batch::Failure;
use crate::jobs::{AUDIT, Decided, Hook};
use crate::local::Settings;
use crate::send_webhook::{Delivered, Tried};
use crate::sqlite::queue::{self, Message};
use crate::sqlite::{Store, StoreError, keys};

/// A chain that still waits for a webhook is closed this long after its last fact; what comes
/// later goes to the side chain.
const GRACE_MS: i64 = 15 * 60 * 1_000;

/// Appends one message of `audit.fifo`.
pub async fn run(store: &Store, wall: Timestamp, body: Vec<u8>) -> Result<(), Failure> {
    let message = AuditMessage::from_json(&body).map_err(|error| Failure::Permanent(error.to_string()))?;
    let appended = store.write(move |connection| append(connection, wall, &message)).await?;
    match appended {
        Appended::Recorded(_) | Appended::Duplicate { .. } | Appended::Late(_) => Ok(()),
        Appended::Conflict { seq } => {
            Err(Failure::Permanent(format!("conflicting duplicate: record {seq} says something else")))
        }
    }
}

/// Appends one entry inside a job of the store: to its chain, or to the side chain where
/// that one is closed.
pub fn append(
    connection: &Connection,
    wall: Timestamp,
    message: &AuditMessage,
) -> Result<Appended, StoreError> {
    let entry = &message.entry;
    let first = append_to(connection, wall, &entry.chain, message)?;
    let Appended::Late(side) = first else { return Ok(first) };
    if head(connection, &entry.tenant, &side)?.seq == 0 {
        let closed = head(connection, &entry.tenant, &entry.chain)?;
        let opening = AuditMessage::plain(audit::late_opening(entry, &closed));
        append_to(connection, wall, &side, &opening)?;
    }
    append_to(connection, wall, &side, message)
}

fn append_to(
    connection: &Connection,
    wall: Timestamp,
    chain: &ChainId,
    message: &AuditMessage,
) -> Result<Appended, StoreError> {
    let entry = &message.entry;
    let head = head(connection, &entry.tenant, chain)?;
    let prior = prior(connection, chain, entry)?;
    let appended = audit::append(chain, &head, prior, entry)
        .map_err(|error| StoreError::Unreadable(error.to_string()))?;
    if let Appended::Recorded(new) = &appended {
        record(connection, wall, chain, new, message.ciphertext.as_deref())?;
    }
    Ok(appended)
}

fn head(connection: &Connection, tenant: &TenantId, chain: &ChainId) -> Result<ChainHead, StoreError> {
    let row: Option<(u64, String, String)> = connection
        .prepare_cached("SELECT seq, hash, state FROM audit_head WHERE tenant = ?1 AND chain = ?2")?
        .query_row([tenant.as_str(), chain.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((seq, hash, state)) = row else { return Ok(ChainHead::genesis(tenant, chain)) };
    let hash = Hash::parse(&hash).map_err(|error| StoreError::Unreadable(error.to_string()))?;
    let state = if state == "open" { HeadState::Open } else { HeadState::Closed };
    Ok(ChainHead { seq, hash, state })
}

/// What is held under the producer's number, in this chain or in its main chain.
fn prior(connection: &Connection, chain: &ChainId, entry: &AuditEntry) -> Result<Option<Prior>, StoreError> {
    let row: Option<(u64, String)> = connection
        .prepare_cached(
            "SELECT seq, bd FROM audit_idem WHERE tenant = ?1 AND chain = ?2 AND producer = ?3 AND pseq = ?4",
        )?
        .query_row(
            params![entry.tenant.as_str(), chain.as_str(), entry.producer.as_str(), entry.pseq],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    row.map(|(seq, digest)| {
        let body_digest = Hash::parse(&digest).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        Ok(Prior { seq, body_digest })
    })
    .transpose()
}

fn record(
    connection: &Connection,
    wall: Timestamp,
    chain: &ChainId,
    new: &NewRecord,
    ciphertext: Option<&[u8]>,
) -> Result<(), StoreError> {
    let entry = &new.record.entry;
    connection
        .prepare_cached(
            "INSERT INTO audit (tenant, chain, seq, cj, hash, type, occurred_at, recorded_at, ct)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            entry.tenant.as_str(),
            chain.as_str(),
            new.record.seq,
            new.canonical,
            new.hash.to_string(),
            entry.kind,
            entry.occurred_at.to_string(),
            wall.to_string(),
            ciphertext
        ])?;
    connection
        .prepare_cached(
            "INSERT INTO audit_idem (tenant, chain, producer, pseq, seq, bd) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            entry.tenant.as_str(),
            chain.as_str(),
            entry.producer.as_str(),
            entry.pseq,
            new.record.seq,
            new.body_digest.to_string()
        ])?;
    let state = match new.head.state {
        HeadState::Open => "open",
        HeadState::Closed => "closed",
    };
    connection
        .prepare_cached(
            "INSERT INTO audit_head (tenant, chain, seq, hash, state, event_count) VALUES (?1, ?2, ?3, ?4, ?5, ?3)
             ON CONFLICT (tenant, chain) DO UPDATE SET seq = ?3, hash = ?4, state = ?5, event_count = ?3",
        )?
        .execute(params![entry.tenant.as_str(), chain.as_str(), new.head.seq, new.head.hash.to_string(), state])?;
    Ok(())
}

/// Open main chains whose producer has finished, with the time of their last record.
const FINISHED: &str = "SELECT h.tenant, h.chain, max(a.recorded_at) FROM audit_head h
     JOIN audit a ON a.tenant = h.tenant AND a.chain = h.chain
     WHERE h.state = 'open' AND h.chain NOT LIKE '%#%'
     GROUP BY h.tenant, h.chain HAVING sum(a.type = 'producer.final') > 0";

/// Chains of ended calls that are still open.
pub fn open_ended(store: &Store) -> Result<u64, StoreError> {
    let connection = store.reader()?;
    let count: i64 =
        connection.query_row(&format!("SELECT count(*) FROM ({FINISHED})"), [], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Closes each chain whose producer has finished and for which nothing is on its way any
/// more, or whose grace time is over.
pub async fn close_due(store: &Store, wall: Timestamp) -> Result<(), StoreError> {
    let finished: Vec<(String, String, String)> = {
        let connection = store.reader()?;
        let mut select = connection.prepare_cached(FINISHED)?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect::<Result<_, _>>()?
    };
    for (tenant, chain, last) in finished {
        let waited = Timestamp::parse(&last).map_or(0, |last| wall.unix_millis() - last.unix_millis());
        store.write(move |connection| close(connection, wall, &tenant, &chain, waited >= GRACE_MS)).await?;
    }
    Ok(())
}

fn close(
    connection: &Connection,
    wall: Timestamp,
    tenant: &str,
    chain: &str,
    late: bool,
) -> Result<(), StoreError> {
    let unreadable = |error: &dyn std::fmt::Display| StoreError::Unreadable(error.to_string());
    let call = CallId::parse(chain).map_err(|error| unreadable(&error))?;
    let tenant = TenantId::parse(tenant).map_err(|error| unreadable(&error))?;
    let on_its_way: i64 = connection
        .prepare_cached("SELECT count(*) FROM queue WHERE call = ?1")?
        .query_row([chain], |row| row.get(0))?;
    if on_its_way > 0 && !late {
        return Ok(());
    }
    let id = ChainId::of(&call);
    let head = head(connection, &tenant, &id)?;
    let mut counts = BTreeMap::new();
    let mut select = connection.prepare_cached(
        "SELECT producer, count(*) FROM audit_idem WHERE tenant = ?1 AND chain = ?2 GROUP BY producer",
    )?;
    let rows = select
        .query_map([tenant.as_str(), chain], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
    for row in rows {
        let (producer, count) = row?;
        counts.insert(ProducerId::parse(&producer).map_err(|error| unreadable(&error))?, count);
    }
    let closing = AuditMessage::plain(audit::closing(&tenant, &call, &head, &counts, wall));
    append(connection, wall, &closing).map(|_| ())
}

/// The message that carries an entry to the ledger.
pub fn message(entry: &AuditMessage) -> Result<Message, Failure> {
    let dedup = entry.entry.deduplication_id().map_err(|error| Failure::Permanent(error.to_string()))?;
    let call = entry.entry.chain.call().map(|call| call.to_string());
    Ok(Message { group: call.clone(), call, dedup: Some(dedup), ..Message::plain(AUDIT, entry.to_json()) })
}

/// An entry of one function run: its own producer, so that a retried run with another result
/// never reuses a number.
pub fn job_entry(
    tenant: &TenantId,
    call: &CallId,
    producer: ProducerId,
    kind: &str,
    at: Timestamp,
    body: Value,
) -> AuditEntry {
    let actor = Actor::system(producer.as_str().split(':').next().unwrap_or_default());
    AuditEntry {
        tenant: tenant.clone(),
        chain: ChainId::of(call),
        producer,
        pseq: 0,
        kind: kind.to_owned(),
        occurred_at: at,
        actor,
        body,
        sealed: None,
        refs: None,
    }
}

/// The entry of evaluate-trigger. Each event is a job of its own: several may fire before
/// the first decision is taken, each for its own reason.
pub fn trigger_evaluated(settings: &Settings, at: Timestamp, decided: &Decided) -> Result<Message, Failure> {
    let decision = &decided.decision;
    let job = format!("{}:{}", decision.call_id, decided.sequence);
    let producer = ProducerId::job("evaluate-trigger", &job, 0);
    let snapshot = &decided.evaluable.snapshot;
    let body = json!({
        "rule_id": decision.trigger.rule_id,
        "ruleset": decision.policy_version,
        "result": "transfer",
        "category": decision.trigger.category,
        "evidence": decision.trigger.evidence,
        "also": decision.trigger.also,
        "inputs": [
            ["elapsed_ms", snapshot.elapsed_ms],
            ["turns_caller", snapshot.turns_caller],
            ["confidence_pm", snapshot.confidence_pm],
            ["failed_attempts", snapshot.failed_attempts],
        ],
        "transfer_id": decision.transfer_id,
    });
    let entry = job_entry(&settings.tenant, &decision.call_id, producer, "trigger.evaluated", at, body);
    message(&AuditMessage::plain(entry))
}

/// The entry of build-payload: the digest of the exact bytes under the call's own key.
pub async fn payload_built(
    store: &Store,
    at: Timestamp,
    decided: &Decided,
    payload: &Payload,
) -> Result<Message, Failure> {
    let (tenant, call) = (decided.tenant.clone(), decided.decision.call_id.clone());
    let key = Arc::clone(store.key());
    let dek: Option<DataKey> =
        store.write(move |connection| keys::find(connection, &key, &tenant, &call)).await?;
    let canonical = payload.canonical_bytes().map_err(|error| Failure::Permanent(error.to_string()))?;
    let payload_mac = dek.map(|dek| dek.key.payload_mac(&canonical));
    let job = format!("{}:{}", payload.payload_id, payload.revision());
    let producer = ProducerId::job("build-payload", &job, 0);
    let body = json!({
        "payload_id": payload.payload_id,
        "revision": payload.revision(),
        "generator": payload.generator(),
        "completeness_pm": payload.completeness_pm(),
    });
    let mut entry =
        job_entry(&decided.tenant, &decided.decision.call_id, producer, "payload.built", at, body);
    entry.refs = Some(Refs { payload_mac, ..Refs::default() });
    message(&AuditMessage::plain(entry))
}

/// What one try of a webhook leaves: the row that people look at, its entries, and what
/// follows from it, in one commit.
pub async fn webhook_tried(store: &Store, wall: Timestamp, hook: &Hook, tried: Tried) -> Result<(), Failure> {
    let lane = hook.lane.as_str();
    let job = format!("{}:{}:{lane}", hook.message_id, hook.destination);
    let body = json!({
        "message_id": hook.message_id,
        "destination": hook.destination,
        "type": hook.kind,
        "lane": lane,
        "try": hook.failed + 1,
        "status": tried.status,
        "ms": u64::try_from(tried.took.as_millis()).unwrap_or(u64::MAX),
        "response_digest": tried.digest,
    });
    let (kind, state) = match tried.state {
        Delivered::Yes => ("webhook.delivered", "delivered"),
        Delivered::Later => ("webhook.attempted", "pending"),
        Delivered::Never(why) if why.continues() => ("webhook.attempted", "pending"),
        Delivered::Never(_) => ("webhook.failed", "failed"),
    };
    let producer = ProducerId::job("send-webhook", &job, hook.failed);
    let entry = job_entry(&hook.tenant, &hook.call, producer, kind, wall, body);
    let mut messages = tried.messages;
    messages.push(message(&AuditMessage::plain(entry))?);
    let (key, hook, status) = (Arc::clone(store.key()), hook.clone(), tried.status);
    store
        .write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO webhooks (message_id, destination, call, type, attempts, status, state)
                     VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6) ON CONFLICT (message_id, destination)
                     DO UPDATE SET attempts = attempts + 1, status = ?5, state = ?6",
                )?
                .execute(params![
                    hook.message_id,
                    hook.destination.as_str(),
                    hook.call.as_str(),
                    hook.kind.as_str(),
                    status,
                    state
                ])?;
            queue::enqueue(connection, &key, wall, &messages)
        })
        .await?;
    Ok(())
}
