//! The ledger in DynamoDB: the conditions and outcomes are `handoff::audit`'s; head, record
//! and idempotency row are written in one transaction, each under its condition, so that any
//! number of writers gives one chain. Nothing here updates or deletes a record.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, Select, TransactWriteItem, Update};
use handoff::audit::{
    Appended, AuditEntry, AuditMessage, AuditRecord, ChainHead, ChainId, Hash, HeadState, NewRecord,
    PRODUCER_FINAL, Prior, ProducerId, append, closing, late_opening,
};
use handoff::clock::Timestamp;
use handoff::id::{CallId, TenantId};

use super::checkpoints::{UNSIGNED, UNSIGNED_SEQ};
use super::{Cloud, Item, binary, damaged, failed, number, number_of, text, text_of};
use crate::ports::{AppendAudit, AuditOutcome, CitedHead, PortError, ReadAudit};

/// Tries of one append while other writers move the head. With the waits between them they
/// outlast any burst of one call.
const TRIES_MAX: u32 = 8;

/// Wait before the second try; doubled for each further one, with as much again at random.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// How long after a call's end its chain stays open for what is still under way.
pub const CLOSE_AFTER_MS: i64 = 15 * 60_000;

/// Most chains that one pass closes: a pass fits a function's time.
const CLOSE_BATCH_MAX: i32 = 50;

/// The index of chains that are not closed, and its two partitions: calls that run, by their
/// begin, and calls that ended, by their end.
const OPEN_INDEX: &str = "open";
const RUNNING: &str = "running";
const ENDED: &str = "ended";

/// The index of chains that retention has something to do with, its partitions, and since when
/// or from when on: closed chains and side chains that moved are archived, archived calls go
/// when their time is up, and their archive goes last.
pub(crate) const DUE_INDEX: &str = "due";
pub(crate) const TO_ARCHIVE: &str = "archive";
pub(crate) const TO_EXPIRE: &str = "expire";
pub(crate) const TO_FORGET: &str = "forget";

/// Parts of a day's index, so that no partition takes every write of a day.
pub(crate) const DAY_SHARDS: u8 = 16;

/// The key of a chain's records.
pub(crate) fn chain_key(tenant: &TenantId, chain: &ChainId) -> String {
    format!("T#{tenant}#C#{chain}")
}

/// The key of a chain's head.
pub(crate) fn head_key(tenant: &TenantId, chain: &ChainId) -> String {
    format!("HEAD#{}", chain_key(tenant, chain))
}

/// The key of a record in its chain.
pub(crate) fn record_key(seq: u64) -> String {
    format!("EVT#{seq:08}")
}

fn idem_key(producer: &ProducerId, pseq: u64) -> String {
    format!("IDEM#{producer}#{pseq:08}")
}

/// The producer of an idempotency row, by its key.
fn producer_of(key: &str) -> Option<ProducerId> {
    let (producer, _pseq) = key.strip_prefix("IDEM#")?.rsplit_once('#')?;
    ProducerId::parse(producer).ok()
}

impl AppendAudit for Cloud {
    async fn append(&self, message: AuditMessage) -> Result<AuditOutcome, PortError> {
        let entry = &message.entry;
        let ciphertext = message.ciphertext.as_deref();
        let appended = self.append_to(&entry.chain, entry, ciphertext).await?;
        let Appended::Late(side) = appended else { return outcome(&appended, false) };
        if self.head_of(&entry.tenant, &side).await?.is_none() {
            let closed = self
                .head_of(&entry.tenant, &entry.chain)
                .await?
                .ok_or_else(|| damaged("a late entry's closed chain"))?;
            // Whoever comes second finds it there.
            self.append_to(&side, &late_opening(entry, &closed), None).await?;
        }
        outcome(&self.append_to(&side, entry, ciphertext).await?, true)
    }

    async fn close_complete(&self) -> Result<Vec<CallId>, PortError> {
        self.close_after(CLOSE_AFTER_MS).await
    }
}

impl ReadAudit for Cloud {
    async fn head(&self, tenant: &TenantId, call: &CallId) -> Result<CitedHead, PortError> {
        let head = self.head_of(tenant, &ChainId::of(call)).await?;
        Ok(head.map_or(CitedHead { seq: 0, hash: String::new() }, |head| CitedHead {
            seq: head.seq,
            hash: head.hash.to_string(),
        }))
    }
}

fn outcome(appended: &Appended, late: bool) -> Result<AuditOutcome, PortError> {
    match appended {
        Appended::Recorded(new) => Ok(AuditOutcome::Recorded { seq: new.record.seq, late }),
        Appended::Duplicate { seq } => Ok(AuditOutcome::Duplicate { seq: *seq }),
        Appended::Conflict { seq } => Ok(AuditOutcome::Conflict { seq: *seq }),
        Appended::Late(_) => Err(damaged("a side chain")),
    }
}

/// What a transaction came to.
enum Written {
    Yes,
    /// Somebody else moved the head, or the table is busy: look again.
    LookAgain,
}

impl Cloud {
    async fn append_to(
        &self,
        chain: &ChainId,
        entry: &AuditEntry,
        ciphertext: Option<&[u8]>,
    ) -> Result<Appended, PortError> {
        for attempt in 0..TRIES_MAX {
            let (head, prior) =
                tokio::try_join!(self.head_of(&entry.tenant, chain), self.prior(chain, entry))?;
            let before = head.unwrap_or_else(|| ChainHead::genesis(&entry.tenant, chain));
            let appended = append(chain, &before, prior, entry)
                .map_err(|error| PortError::Permanent(error.to_string()))?;
            let Appended::Recorded(new) = &appended else { return Ok(appended) };
            match self.write(chain, &before, new, ciphertext).await? {
                Written::Yes => return Ok(appended),
                Written::LookAgain => tokio::time::sleep(wait_before(attempt)).await,
            }
        }
        Err(PortError::Transient("the head of a chain moves too fast".to_owned()))
    }

    async fn write(
        &self,
        chain: &ChainId,
        before: &ChainHead,
        new: &NewRecord,
        ciphertext: Option<&[u8]>,
    ) -> Result<Written, PortError> {
        let now = self.wall();
        let items = [
            TransactWriteItem::builder().update(self.head_update(chain, before, new, now)?).build(),
            TransactWriteItem::builder()
                .put(self.new_item(record_item(chain, new, ciphertext, now))?)
                .build(),
            TransactWriteItem::builder().put(self.new_item(idem_item(chain, new))?).build(),
        ];
        let written =
            self.dynamodb().transact_write_items().set_transact_items(Some(items.into())).send().await;
        let Err(error) = written else { return Ok(Written::Yes) };
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                let refused = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code());
                // A condition that failed and a conflict mean another writer; the next look
                // says whether that writer wrote this very entry.
                let mut others = refused.filter(|code| {
                    !matches!(*code, "None" | "ConditionalCheckFailed" | "TransactionConflict")
                });
                match others.next() {
                    None => Ok(Written::LookAgain),
                    Some("ValidationError") => {
                        Err(PortError::Permanent("an audit item is not valid".to_owned()))
                    }
                    Some(code) => Err(PortError::Transient(format!("the audit table: {code}"))),
                }
            }
            Some(TransactWriteItemsError::TransactionInProgressException(_)) => Ok(Written::LookAgain),
            _ => Err(failed("the audit table", error)),
        }
    }

    /// The head moves from exactly what was read, or begins.
    fn head_update(
        &self,
        chain: &ChainId,
        before: &ChainHead,
        new: &NewRecord,
        now: Timestamp,
    ) -> Result<Update, PortError> {
        let entry = &new.record.entry;
        let main = !chain.is_side() && chain.call().is_some();
        let closed = new.head.state == HeadState::Closed;
        let ends = main && (entry.kind == PRODUCER_FINAL || entry.kind == "call.ended");
        let mut set = vec![
            "seq = :seq, #hash = :hash, #state = :state, event_count = :seq, tenant = :tenant, #chain = :chain",
            "#unsigned = :chain, #unsigned_seq = :seq",
        ];
        let mut update = Update::builder()
            .table_name(self.names.heads())
            .key("PK", text(head_key(&entry.tenant, chain)))
            .key("SK", text("HEAD"))
            .expression_attribute_names("#hash", "hash")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#chain", "chain")
            .expression_attribute_names("#unsigned", UNSIGNED)
            .expression_attribute_names("#unsigned_seq", UNSIGNED_SEQ)
            .expression_attribute_values(":seq", number(new.head.seq))
            .expression_attribute_values(":hash", text(new.head.hash.to_string()))
            .expression_attribute_values(":state", text(if closed { "closed" } else { "open" }))
            .expression_attribute_values(":tenant", text(entry.tenant.as_str()))
            .expression_attribute_values(":chain", text(chain.as_str()));
        if before.seq == 0 {
            set.push("started_at = :now");
            update = update
                .condition_expression("attribute_not_exists(PK)")
                .expression_attribute_values(":now", text(now.to_string()));
        } else {
            update = update
                .condition_expression("seq = :was AND #hash = :before AND #state = :still")
                .expression_attribute_values(":was", number(before.seq))
                .expression_attribute_values(":before", text(before.hash.to_string()))
                .expression_attribute_values(":still", text("open"));
        }
        if ends {
            set.push("ended_at = if_not_exists(ended_at, :ended)");
            update = update.expression_attribute_values(":ended", number(now.unix_millis()));
        }
        if main && !closed && (ends || before.seq == 0) {
            set.push("open_state = :open, open_since = :since");
            update = update
                .expression_attribute_values(":open", text(if ends { ENDED } else { RUNNING }))
                .expression_attribute_values(":since", text(now.to_string()));
        }
        if chain.call().is_some() && (closed || chain.is_side()) {
            set.push("due_state = :archive, due_since = :due");
            update = update
                .expression_attribute_values(":archive", text(TO_ARCHIVE))
                .expression_attribute_values(":due", text(now.to_string()));
        }
        let mut expression = format!("SET {}", set.join(", "));
        if closed {
            expression.push_str(" REMOVE open_state, open_since");
        }
        update.update_expression(expression).build().map_err(|_| damaged("a head"))
    }

    fn new_item(&self, item: Item) -> Result<Put, PortError> {
        Put::builder()
            .table_name(&self.names.audit)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(PK)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::None)
            .build()
            .map_err(|_| damaged("a record"))
    }

    /// The head of a chain, where it has records.
    pub(crate) async fn head_of(
        &self,
        tenant: &TenantId,
        chain: &ChainId,
    ) -> Result<Option<ChainHead>, PortError> {
        let item = self.item(&self.names.heads(), &head_key(tenant, chain), "HEAD").await?;
        item.as_ref().map(head_in).transpose()
    }

    pub(crate) async fn prior(
        &self,
        chain: &ChainId,
        entry: &AuditEntry,
    ) -> Result<Option<Prior>, PortError> {
        let key = idem_key(&entry.producer, entry.pseq);
        let item = self.item(&self.names.audit, &chain_key(&entry.tenant, chain), &key).await?;
        let Some(item) = item else { return Ok(None) };
        let seq = number_of(&item, "seq").ok_or_else(|| damaged("an idempotency row"))?;
        let digest = text_of(&item, "bd").and_then(|digest| Hash::parse(digest).ok());
        Ok(Some(Prior { seq, body_digest: digest.ok_or_else(|| damaged("a body digest"))? }))
    }

    /// One row, read after every write before.
    pub(crate) async fn item(&self, table: &str, pk: &str, sk: &str) -> Result<Option<Item>, PortError> {
        let answer = self
            .dynamodb()
            .get_item()
            .table_name(table)
            .key("PK", text(pk))
            .key("SK", text(sk))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| failed("a table", error))?;
        Ok(answer.item)
    }

    /// Closes the chains of calls that ended longer than `grace_ms` ago. What comes later goes
    /// to the side chain.
    pub async fn close_after(&self, grace_ms: i64) -> Result<Vec<CallId>, PortError> {
        let due = self.wall().plus_millis(-grace_ms);
        let answer = self
            .dynamodb()
            .query()
            .table_name(self.names.heads())
            .index_name(OPEN_INDEX)
            .key_condition_expression("open_state = :ended AND open_since <= :due")
            .expression_attribute_values(":ended", text(ENDED))
            .expression_attribute_values(":due", text(due.to_string()))
            .limit(CLOSE_BATCH_MAX)
            .send()
            .await
            .map_err(|error| failed("the index of open chains", error))?;
        let mut closed = Vec::new();
        for row in answer.items() {
            let Some(key) = text_of(row, "PK") else { continue };
            match self.close(key, grace_ms).await {
                Ok(Some(call)) => closed.push(call),
                Ok(None) => {}
                // The chains of other calls are not to blame; the verifier says what is wrong.
                Err(PortError::Permanent(why)) => tracing::error!(why, "a chain cannot be closed"),
                Err(error) => return Err(error),
            }
        }
        Ok(closed)
    }

    /// How many calls began or ended longer than `age_ms` ago and have an open chain still.
    pub async fn open_before(&self, age_ms: i64) -> Result<usize, PortError> {
        let due = self.wall().plus_millis(-age_ms).to_string();
        let mut open = 0;
        for state in [RUNNING, ENDED] {
            let answer = self
                .dynamodb()
                .query()
                .table_name(self.names.heads())
                .index_name(OPEN_INDEX)
                .key_condition_expression("open_state = :state AND open_since <= :due")
                .expression_attribute_values(":state", text(state))
                .expression_attribute_values(":due", text(&due))
                .select(Select::Count)
                .send()
                .await
                .map_err(|error| failed("the index of open chains", error))?;
            open += usize::try_from(answer.count).unwrap_or_default();
        }
        Ok(open)
    }

    async fn close(&self, key: &str, grace_ms: i64) -> Result<Option<CallId>, PortError> {
        let Some(item) = self.item(&self.names.heads(), key, "HEAD").await? else { return Ok(None) };
        let now = self.wall();
        let due = number_of::<i64>(&item, "ended_at")
            .is_some_and(|ended| now.unix_millis().saturating_sub(ended) >= grace_ms);
        let head = head_in(&item)?;
        if !due || head.state == HeadState::Closed {
            return Ok(None);
        }
        let tenant = text_of(&item, "tenant").and_then(|tenant| TenantId::parse(tenant).ok());
        let call = text_of(&item, "chain").and_then(|call| CallId::parse(call).ok());
        let (Some(tenant), Some(call)) = (tenant, call) else { return Err(damaged("the name of a chain")) };
        let chain = ChainId::of(&call);
        let counts = self.counts(&tenant, &chain).await?;
        let entry = closing(&tenant, &call, &head, &counts, now);
        let appended =
            append(&chain, &head, None, &entry).map_err(|error| PortError::Permanent(error.to_string()))?;
        let Appended::Recorded(new) = &appended else { return Ok(None) };
        // Where the head moved meanwhile, the next pass counts again.
        match self.write(&chain, &head, new, None).await? {
            Written::Yes => Ok(Some(call)),
            Written::LookAgain => Ok(None),
        }
    }

    async fn counts(
        &self,
        tenant: &TenantId,
        chain: &ChainId,
    ) -> Result<BTreeMap<ProducerId, u64>, PortError> {
        let mut counts = BTreeMap::new();
        for row in self.partition(&self.names.audit, &chain_key(tenant, chain), "IDEM#", Some("SK")).await? {
            let producer = text_of(&row, "SK").and_then(producer_of);
            *counts.entry(producer.ok_or_else(|| damaged("a producer's name"))?).or_default() += 1;
        }
        Ok(counts)
    }

    /// Every row of a partition whose sort key begins with `prefix`, in order; only the
    /// attribute `only`, where one is named.
    pub(crate) async fn partition(
        &self,
        table: &str,
        pk: &str,
        prefix: &str,
        only: Option<&str>,
    ) -> Result<Vec<Item>, PortError> {
        let mut rows = Vec::new();
        let mut from = None;
        loop {
            let answer = self
                .dynamodb()
                .query()
                .table_name(table)
                .key_condition_expression("PK = :pk AND begins_with(SK, :prefix)")
                .expression_attribute_values(":pk", text(pk))
                .expression_attribute_values(":prefix", text(prefix))
                .set_projection_expression(only.map(str::to_owned))
                .set_exclusive_start_key(from)
                .consistent_read(true)
                .send()
                .await
                .map_err(|error| failed("a table", error))?;
            rows.extend(answer.items.unwrap_or_default());
            from = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() {
                return Ok(rows);
            }
        }
    }
}

/// Reads a head's row.
pub(crate) fn head_in(item: &Item) -> Result<ChainHead, PortError> {
    let seq = number_of(item, "seq");
    let hash = text_of(item, "hash").and_then(|hash| Hash::parse(hash).ok());
    let state = match text_of(item, "state") {
        Some("open") => Some(HeadState::Open),
        Some("closed") => Some(HeadState::Closed),
        _ => None,
    };
    let (Some(seq), Some(hash), Some(state)) = (seq, hash, state) else { return Err(damaged("a head")) };
    Ok(ChainHead { seq, hash, state })
}

/// The row of a record: the bytes that are hashed, and beside them what a person reads in the
/// console.
fn record_item(chain: &ChainId, new: &NewRecord, ciphertext: Option<&[u8]>, now: Timestamp) -> Item {
    let AuditRecord { entry, seq, .. } = &new.record;
    let at = entry.occurred_at.to_string();
    let day: String = at.chars().take(10).filter(char::is_ascii_digit).collect();
    let shard = chain.as_str().bytes().fold(0_u8, u8::wrapping_add) % DAY_SHARDS;
    let mut item = Item::from([
        ("PK".to_owned(), text(chain_key(&entry.tenant, chain))),
        ("SK".to_owned(), text(record_key(*seq))),
        ("seq".to_owned(), number(seq)),
        ("type".to_owned(), text(&entry.kind)),
        ("actor".to_owned(), text(&entry.actor.id)),
        ("producer".to_owned(), text(entry.producer.as_str())),
        ("pseq".to_owned(), number(entry.pseq)),
        ("occurred_at".to_owned(), text(&at)),
        ("recorded_at".to_owned(), text(now.to_string())),
        ("hash".to_owned(), text(new.hash.to_string())),
        ("digest".to_owned(), text(new.body_digest.to_string())),
        ("cj".to_owned(), binary(&new.canonical)),
        ("GSI1PK".to_owned(), text(format!("T#{}#D#{day}#S#{shard}", entry.tenant))),
        ("GSI1SK".to_owned(), text(format!("{}#{at}", entry.kind))),
    ]);
    if let Some(rule) = entry.body.get("rule_id").and_then(serde_json::Value::as_str) {
        item.insert("rule".to_owned(), text(rule));
    }
    if let Some(ciphertext) = ciphertext {
        item.insert("ct".to_owned(), binary(ciphertext));
    }
    item
}

fn idem_item(chain: &ChainId, new: &NewRecord) -> Item {
    let AuditRecord { entry, seq, .. } = &new.record;
    Item::from([
        ("PK".to_owned(), text(chain_key(&entry.tenant, chain))),
        ("SK".to_owned(), text(idem_key(&entry.producer, entry.pseq))),
        ("seq".to_owned(), number(seq)),
        ("bd".to_owned(), text(new.body_digest.to_string())),
    ])
}

fn wait_before(attempt: u32) -> Duration {
    let mut bytes = [0; 1];
    // Without randomness there is no jitter, and nothing else is lost.
    let _none = getrandom::fill(&mut bytes);
    let wait = TRY_AGAIN * 2_u32.pow(attempt.min(TRIES_MAX));
    wait + wait * u32::from(bytes[0]) / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producer_of_an_idempotency_row_is_read_back_from_its_key() {
        let producer = ProducerId::job("send-webhook", "whatever", 3);
        assert_eq!(producer_of(&idem_key(&producer, 17)), Some(producer));
        assert_eq!(producer_of("EVT#00000001"), None);
    }
}
