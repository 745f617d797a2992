//! The archive of closed chains: the exact bytes of every record, what the ledger knows beside
//! them, and the proof that a signed tree holds the chain's end, as objects that nobody can
//! replace or remove before their time. What is archived was verified, and read back. Bodies
//! and digests only: what was sealed stays outside, so that a lock never keeps a person's words.

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention,
    ObjectLockRetentionMode,
};
use handoff::audit::retention::{RetentionClass, governing};
use handoff::audit::verify::{Class, Source, StoredChain, verify};
use handoff::audit::{ChainHead, ChainId, Hash};
use handoff::checkpoint::Leaf;
use handoff::checkpoint::proof::Proof;
use handoff::checkpoint::tree::Frontier;
use handoff::clock::{DAY_MS, Timestamp};
use handoff::id::{CallId, TenantId};

use super::checkpoints::{SIGNED_IN, UNSIGNED, object_of};
use super::ledger::{DUE_INDEX, TO_ARCHIVE, TO_EXPIRE, head_in, head_key};
use super::{Cloud, Item, code_of, damaged, failed, number, number_of, text, text_of};
use crate::audit_read::Bundle;
use crate::ports::PortError;

/// Chains that one pass looks at: more than a schedule's time fits. The next pass goes on.
const CHAINS_MAX: i32 = 200;

/// The attribute of a head: up to which record its chain is archived.
pub(crate) const ARCHIVED_SEQ: &str = "archived_seq";

/// What one pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// Chains that are in the archive now.
    pub archived: usize,
    /// Chains that no checkpoint holds yet; the next pass looks again.
    pub waiting: usize,
    /// Chains that do not verify, or whose archive is not what was put there. They stay as
    /// they are, and somebody has to look.
    pub unverified: usize,
}

/// A chain of a call with its head's row.
struct Closed {
    tenant: TenantId,
    call: CallId,
    chain: ChainId,
    head: ChainHead,
    /// Since when it is due, which changes when the chain moves.
    since: String,
    row: Item,
}

impl Cloud {
    /// Archives closed chains, and side chains that moved, until each may go under the longest
    /// of `classes`. `compliance` locks them against everybody, the account's owner included.
    pub async fn archive(&self, classes: &[RetentionClass], compliance: bool) -> Result<Archived, PortError> {
        let (mut made, now) = (Archived::default(), self.wall());
        for key in self.due(TO_ARCHIVE, now, CHAINS_MAX).await? {
            match self.archive_chain(&key, classes, compliance).await {
                Ok(true) => made.archived += 1,
                Ok(false) => made.waiting += 1,
                // The chains of other calls are not to blame, and do not wait behind it.
                Err(PortError::Permanent(why)) => {
                    tracing::error!(why, "a chain cannot be archived");
                    made.unverified += 1;
                    self.set_due(&key, TO_ARCHIVE, now.plus_millis(DAY_MS)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// Keys of heads of which `state` says what was due at `now`, the oldest first.
    pub(crate) async fn due(&self, state: &str, now: Timestamp, max: i32) -> Result<Vec<String>, PortError> {
        let answer = self
            .dynamodb()
            .query()
            .table_name(self.names.heads())
            .index_name(DUE_INDEX)
            .key_condition_expression("due_state = :state AND due_since <= :now")
            .expression_attribute_values(":state", text(state))
            .expression_attribute_values(":now", text(now.to_string()))
            .limit(max)
            .send()
            .await
            .map_err(|error| failed("the index of what is due", error))?;
        Ok(answer.items().iter().filter_map(|row| text_of(row, "PK").map(str::to_owned)).collect())
    }

    /// Archives one chain; `false` where no checkpoint holds its end yet.
    async fn archive_chain(
        &self,
        key: &str,
        classes: &[RetentionClass],
        compliance: bool,
    ) -> Result<bool, PortError> {
        let Some(closed) = self.closed(key).await? else { return Ok(false) };
        let signed_in: Option<u64> = number_of(&closed.row, SIGNED_IN);
        let Some(size) = signed_in.filter(|_| !closed.row.contains_key(UNSIGNED)) else { return Ok(false) };
        let (main, side) = self.stored_call(&closed.tenant, ChainId::of(&closed.call)).await?;
        let report = verify(&main, side.as_ref(), Source::Store, self.wall());
        if report.findings.iter().any(|finding| finding.class == Class::Tamper) {
            return Err(PortError::Permanent(format!("{} does not verify", closed.call)));
        }
        let closed_at = main.closed_at().ok_or_else(|| damaged("the close of a chain"))?;
        let (_, until) = governing(classes, closed_at).ok_or_else(|| damaged("the list of classes"))?;
        let stored = if closed.chain.is_side() { side } else { Some(main) };
        let stored = stored.ok_or_else(|| damaged("a side chain"))?;
        // It moved after its head was read: the next pass has all of it.
        if stored.head != Some(closed.head) {
            return Ok(false);
        }
        let proof = self.proof(&closed, size).await?;
        let held = matches!(closed.row.get("hold").and_then(|hold| hold.as_bool().ok()), Some(true));
        for (part, bytes) in parts(&stored, &proof) {
            let name = object_name(&closed.tenant, &closed.chain, closed.head.seq, part);
            self.lock_away(&name, bytes, until, compliance).await?;
            if held {
                self.hold_object(&name, true).await?;
            }
        }
        self.note_archived(key, &closed, until).await?;
        Ok(true)
    }

    /// What a head's row says of a call's chain.
    async fn closed(&self, key: &str) -> Result<Option<Closed>, PortError> {
        let Some(row) = self.item(&self.names.heads(), key, "HEAD").await? else { return Ok(None) };
        let tenant = text_of(&row, "tenant").and_then(|tenant| TenantId::parse(tenant).ok());
        let chain = text_of(&row, "chain").and_then(|chain| ChainId::parse(chain).ok());
        let call = chain.as_ref().and_then(ChainId::call);
        let (Some(tenant), Some(chain), Some(call)) = (tenant, chain, call) else {
            return Err(damaged("the name of a chain"));
        };
        // The index is behind the table: what is due no longer was dealt with.
        let Some(since) = text_of(&row, "due_since").map(str::to_owned) else { return Ok(None) };
        Ok(Some(Closed { tenant, call, chain, head: head_in(&row)?, since, row }))
    }

    /// The proof that the checkpoint of `size` leaves holds the end of the chain.
    async fn proof(&self, closed: &Closed, size: u64) -> Result<Proof, PortError> {
        let bucket = &self.names.checkpoints;
        let part =
            async |size: u64, what: &str| self.object(bucket, &object_of(&closed.tenant, size, what)).await;
        let lost = || damaged("a checkpoint");
        let note = String::from_utf8(part(size, "note").await?.ok_or_else(lost)?).map_err(|_| lost())?;
        let leaves = part(size, "leaves").await?.as_deref().and_then(Leaf::read_lines).ok_or_else(lost)?;
        let before =
            u64::try_from(leaves.len()).ok().and_then(|own| size.checked_sub(own)).ok_or_else(lost)?;
        let frontier = if before == 0 { Some(Vec::new()) } else { part(before, "frontier").await? };
        let frontier = String::from_utf8(frontier.ok_or_else(lost)?).map_err(|_| lost())?;
        let peaks = frontier.lines().map(Hash::parse).collect::<Result<_, _>>().map_err(|_| lost())?;
        let before = Frontier::from_parts(before, peaks).ok_or_else(lost)?;
        let ChainHead { seq, hash, .. } = closed.head;
        let leaf = Leaf { chain: closed.chain.clone(), seq, hash };
        Proof::of(&leaf, &before, &leaves, &note).ok_or_else(lost)
    }

    /// Puts an object under a lock and reads it back. One that is there must be the same: a
    /// pass may have been cut off behind it.
    async fn lock_away(
        &self,
        name: &str,
        bytes: Vec<u8>,
        until: Timestamp,
        compliance: bool,
    ) -> Result<(), PortError> {
        let mode = if compliance { ObjectLockMode::Compliance } else { ObjectLockMode::Governance };
        let put = self
            .s3()
            .put_object()
            .bucket(&self.names.archive)
            .key(name)
            .body(ByteStream::from(bytes.clone()))
            .object_lock_mode(mode)
            .object_lock_retain_until_date(DateTime::from_millis(until.unix_millis()))
            .if_none_match("*");
        match put.send().await {
            Ok(_) => {}
            Err(error) if code_of(&error) == Some("PreconditionFailed") => {}
            Err(error) => return Err(failed("the archive", error)),
        }
        let there = self.object(&self.names.archive, name).await?;
        if there.is_some_and(|there| there == bytes) {
            Ok(())
        } else {
            Err(PortError::Permanent(format!("the archive has another {name}")))
        }
    }

    /// Places a legal hold on an object of the archive, or takes it away.
    async fn hold_object(&self, name: &str, held: bool) -> Result<(), PortError> {
        let status = if held { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
        let hold = ObjectLockLegalHold::builder().status(status).build();
        let set = self.s3().put_object_legal_hold().bucket(&self.names.archive).key(name).legal_hold(hold);
        set.send().await.map(drop).map_err(|error| failed("the archive", error))
    }

    /// A hold on a call, or its end, for everything that the archive has of it.
    pub(crate) async fn hold_archive(
        &self,
        tenant: &TenantId,
        call: &CallId,
        held: bool,
    ) -> Result<(), PortError> {
        if self.names.archive.is_empty() {
            return Ok(());
        }
        for (name, _) in self.archived(tenant, call).await? {
            self.hold_object(&name, held).await?;
        }
        Ok(())
    }

    /// A longer time than the lock has, for everything that the archive has of a call.
    pub(crate) async fn lock_longer(
        &self,
        tenant: &TenantId,
        call: &CallId,
        until: Timestamp,
        compliance: bool,
    ) -> Result<(), PortError> {
        let mode = if compliance {
            ObjectLockRetentionMode::Compliance
        } else {
            ObjectLockRetentionMode::Governance
        };
        for (name, _) in self.archived(tenant, call).await? {
            let date = DateTime::from_millis(until.unix_millis());
            let longer = ObjectLockRetention::builder().mode(mode.clone()).retain_until_date(date).build();
            let set =
                self.s3().put_object_retention().bucket(&self.names.archive).key(name).retention(longer);
            set.send().await.map_err(|error| failed("the archive", error))?;
        }
        Ok(())
    }

    /// Removes what the archive has of a call; an error where a lock or a hold forbids it.
    pub(crate) async fn forget_archive(&self, tenant: &TenantId, call: &CallId) -> Result<(), PortError> {
        for (name, version) in self.archived(tenant, call).await? {
            let bucket = &self.names.archive;
            let gone = self.s3().delete_object().bucket(bucket).key(name).version_id(version);
            gone.send().await.map_err(|error| failed("the archive", error))?;
        }
        Ok(())
    }

    /// Names and versions of what the archive has of a call: three objects for each time that
    /// one of its two chains was archived.
    async fn archived(&self, tenant: &TenantId, call: &CallId) -> Result<Vec<(String, String)>, PortError> {
        let mut found = Vec::new();
        let (mut key, mut version) = (None, None);
        loop {
            let answer = self
                .s3()
                .list_object_versions()
                .bucket(&self.names.archive)
                .prefix(folder_of(tenant, call))
                .set_key_marker(key)
                .set_version_id_marker(version)
                .send()
                .await
                .map_err(|error| failed("the archive", error))?;
            let named = |object: &aws_sdk_s3::types::ObjectVersion| {
                Some((object.key()?.to_owned(), object.version_id()?.to_owned()))
            };
            found.extend(answer.versions().iter().filter_map(named));
            if answer.is_truncated() != Some(true) {
                return Ok(found);
            }
            (key, version) = (answer.next_key_marker, answer.next_version_id_marker);
        }
    }

    /// A main chain's next date is the end of its time; a side chain goes with it.
    async fn note_archived(&self, key: &str, closed: &Closed, until: Timestamp) -> Result<(), PortError> {
        let side = closed.chain.is_side();
        let expression = if side {
            "SET #archived = :seq REMOVE due_state, due_since"
        } else {
            "SET #archived = :seq, due_state = :expire, due_since = :until"
        };
        let mut update = self
            .dynamodb()
            .update_item()
            .table_name(self.names.heads())
            .key("PK", text(key))
            .key("SK", text("HEAD"))
            .update_expression(expression)
            .condition_expression("due_since = :since")
            .expression_attribute_values(":since", text(&closed.since))
            .expression_attribute_names("#archived", ARCHIVED_SEQ)
            .expression_attribute_values(":seq", number(closed.head.seq));
        if !side {
            update = update
                .expression_attribute_values(":expire", text(TO_EXPIRE))
                .expression_attribute_values(":until", text(until.to_string()));
        }
        match update.send().await {
            Ok(_) => Ok(()),
            // It moved meanwhile: the next pass archives the rest.
            Err(error) if code_of(&error) == Some("ConditionalCheckFailedException") => Ok(()),
            Err(error) => Err(failed("the table of heads", error)),
        }
    }

    /// When retention looks at a chain again, and for what.
    pub(crate) async fn set_due(&self, key: &str, state: &str, since: Timestamp) -> Result<(), PortError> {
        let set = self
            .dynamodb()
            .update_item()
            .table_name(self.names.heads())
            .key("PK", text(key))
            .key("SK", text("HEAD"))
            .update_expression("SET due_state = :state, due_since = :since")
            .condition_expression("attribute_exists(PK)")
            .expression_attribute_values(":state", text(state))
            .expression_attribute_values(":since", text(since.to_string()))
            .send()
            .await;
        set.map(drop).map_err(|error| failed("the table of heads", error))
    }

    /// Whether the archive has all of a chain.
    pub(crate) async fn is_archived(&self, chain: &StoredChain) -> Result<bool, PortError> {
        let row = self.item(&self.names.heads(), &head_key(&chain.tenant, &chain.chain), "HEAD").await?;
        let archived: Option<u64> = row.as_ref().and_then(|row| number_of(row, ARCHIVED_SEQ));
        Ok(archived.is_some() && archived == chain.head.map(|head| head.seq))
    }
}

/// What a chain leaves in the archive, with the ends of the objects' names.
fn parts(chain: &StoredChain, proof: &Proof) -> [(&'static str, Vec<u8>); 3] {
    let mut bundle = Bundle { jsonl: Vec::new(), meta: Vec::new() };
    for record in &chain.records {
        bundle.push(record);
    }
    [("jsonl", bundle.jsonl), ("meta.jsonl", bundle.meta), ("proof.json", proof.print())]
}

fn folder_of(tenant: &TenantId, call: &CallId) -> String {
    format!("{tenant}/{call}/")
}

/// An object of the archive: by tenant and call, the chain, and up to which record.
fn object_name(tenant: &TenantId, chain: &ChainId, seq: u64, part: &str) -> String {
    let call = chain.call().map(|call| folder_of(tenant, &call)).unwrap_or_default();
    let kind = if chain.is_side() { "late" } else { "main" };
    format!("{call}{kind}-{seq:08}.{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_archived_end_of_a_chain_has_objects_of_its_own() {
        let tenant = TenantId::parse("t_acme").unwrap();
        let main = ChainId::of(&CallId::parse("call_0001").unwrap());
        assert_eq!(object_name(&tenant, &main, 42, "jsonl"), "t_acme/call_0001/main-00000042.jsonl");
        assert_eq!(
            object_name(&tenant, &main.side(), 3, "proof.json"),
            "t_acme/call_0001/late-00000003.proof.json"
        );
    }
}
