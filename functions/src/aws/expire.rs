//! The end of calls whose time is up, in three steps that may each be cut off: the keys go and
//! the tenant's own chain is told; when it has recorded that, the rows are marked for the table
//! to remove; when the archive's lock lets go, the archive goes. A legal hold keeps a call, and
//! so do a chain that does not verify and one that is not archived to its end.

use std::collections::BTreeSet;

use handoff::audit::retention::{Expired, Expiring, RetentionClass, governing};
use handoff::audit::verify::{Class, Source, StoredChain, verify};
use handoff::audit::{AuditEntry, AuditMessage, AuditRecord, ChainId};
use handoff::clock::{DAY_MS, Timestamp};
use handoff::id::{CallId, TenantId};

use super::erase::Done;
use super::ledger::{TO_EXPIRE, TO_FORGET, chain_key, head_key, record_key};
use super::vault::{EDGE_KEY, FUNCTIONS_KEY, key_name};
use super::{Cloud, Item, binary_of, code_of, damaged, failed, number, text, text_of};
use crate::ports::{Enqueue, Outgoing, PortError};

/// Calls that one pass looks at: more than a schedule's time fits. The next pass goes on.
const CALLS_MAX: i32 = 100;

/// The attribute of a head: when its call was first found to be past its time. A record that is
/// sent again says the same.
const EXPIRING_AT: &str = "expiring_at";

/// The attribute by which the tables forget, in seconds.
const TTL: &str = "ttl";

/// What one pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Calls whose keys are destroyed, and of which the tenant's chain is being told.
    pub told: usize,
    /// Calls whose rows the table may remove.
    pub expired: usize,
    /// Calls whose archive is gone, too.
    pub forgotten: usize,
    /// Calls whose archive cannot be removed yet.
    pub locked: usize,
    /// Calls that a legal hold keeps.
    pub held: usize,
    /// Calls that a class keeps longer than one did when they were archived.
    pub longer: usize,
    /// Calls that are not archived to their end yet.
    pub unarchived: usize,
    /// Calls that do not verify. They stay as evidence.
    pub unverified: usize,
}

/// A call whose time is up, as its head's row names it.
struct Old {
    tenant: TenantId,
    call: CallId,
    row: Item,
}

impl Cloud {
    /// One pass over the calls whose time is up at `now` under all of `classes`.
    pub async fn expire(
        &self,
        classes: &[RetentionClass],
        compliance: bool,
        now: Timestamp,
    ) -> Result<Swept, PortError> {
        let mut swept = Swept::default();
        // The last step first, so that no call takes two in one pass.
        for key in self.due(TO_FORGET, now, CALLS_MAX).await? {
            let Some(old) = self.old(&key).await? else { continue };
            match self.forget(&old, now).await {
                Ok(()) => swept.forgotten += 1,
                // A lock that holds still, a hold on an object: the next pass tries again.
                Err(error) => {
                    tracing::warn!(call_id = %old.call, %error, "an archive cannot be removed yet");
                    swept.locked += 1;
                    let key = head_key(&old.tenant, &ChainId::of(&old.call));
                    self.set_due(&key, TO_FORGET, now.plus_millis(DAY_MS)).await?;
                }
            }
        }
        for key in self.due(TO_EXPIRE, now, CALLS_MAX).await? {
            let Some(old) = self.old(&key).await? else { continue };
            match self.end(&old, classes, compliance, now).await {
                Ok(step) => {
                    *step.counter(&mut swept) += 1;
                    // Whoever is held for years does not keep the others waiting.
                    if step == Step::Held {
                        self.postpone(&old, now.plus_millis(DAY_MS)).await?;
                    }
                }
                // The other calls are not to blame, and do not wait behind it.
                Err(PortError::Permanent(why)) => {
                    tracing::error!(call_id = %old.call, why, "a call cannot expire");
                    swept.unverified += 1;
                    self.postpone(&old, now.plus_millis(DAY_MS)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }

    async fn old(&self, key: &str) -> Result<Option<Old>, PortError> {
        let Some(row) = self.item(&self.names.heads(), key, "HEAD").await? else { return Ok(None) };
        let tenant = text_of(&row, "tenant").and_then(|tenant| TenantId::parse(tenant).ok());
        let call = text_of(&row, "chain").and_then(|call| CallId::parse(call).ok());
        let (Some(tenant), Some(call)) = (tenant, call) else { return Err(damaged("the name of a chain")) };
        Ok(Some(Old { tenant, call, row }))
    }

    /// The next step of a call's end.
    async fn end(
        &self,
        old: &Old,
        classes: &[RetentionClass],
        compliance: bool,
        now: Timestamp,
    ) -> Result<Step, PortError> {
        if matches!(old.row.get("hold").and_then(|hold| hold.as_bool().ok()), Some(true)) {
            return Ok(Step::Held);
        }
        let Old { tenant, call, .. } = old;
        let (main, side) = self.stored_call(tenant, ChainId::of(call)).await?;
        let closed_at = main.closed_at().ok_or_else(|| damaged("the close of a chain"))?;
        let (_, until) = governing(classes, closed_at).ok_or_else(|| damaged("the list of classes"))?;
        // What the tenant's chain was told already is carried to its end.
        if until > now && !old.row.contains_key(EXPIRING_AT) {
            self.lock_longer(tenant, call, until, compliance).await?;
            self.postpone(old, until).await?;
            return Ok(Step::Longer);
        }
        let report = verify(&main, side.as_ref(), Source::Store, now);
        if report.findings.iter().any(|finding| finding.class == Class::Tamper) {
            return Err(PortError::Permanent("its chain does not verify".to_owned()));
        }
        for chain in std::iter::once(&main).chain(side.as_ref()) {
            if !self.is_archived(chain).await? {
                return Ok(Step::Unarchived);
            }
        }
        let at = self.began(old, now).await?;
        let head = main.head.ok_or_else(|| damaged("a head"))?;
        let expiring =
            Expiring { tenant, call, closed_at, head, side: side.as_ref().and_then(|side| side.head) };
        let keys = [EDGE_KEY, FUNCTIONS_KEY].map(key_name);
        let entry = expiring.entry(classes, &keys, "retention", at);
        let entry = entry.ok_or_else(|| PortError::Permanent("a class keeps it after all".to_owned()))?;
        if self.is_recorded(&entry, &main, side.as_ref()).await? {
            self.mark_rows(&main, side.as_ref(), now).await?;
            return Ok(Step::Expired);
        }
        if !self.is_erased(tenant, call).await? {
            self.destroy_keys(tenant, call, &Done::now(at, "retention", "retention")).await?;
        }
        self.enqueue(vec![Outgoing::audit(&AuditMessage::plain(entry))?]).await?;
        Ok(Step::Told)
    }

    /// When the call was first found past its time.
    async fn began(&self, old: &Old, now: Timestamp) -> Result<Timestamp, PortError> {
        if let Some(at) = text_of(&old.row, EXPIRING_AT) {
            return Timestamp::parse(at).map_err(|_| damaged("a head"));
        }
        let set = self
            .dynamodb()
            .update_item()
            .table_name(self.names.heads())
            .key("PK", text(head_key(&old.tenant, &ChainId::of(&old.call))))
            .key("SK", text("HEAD"))
            .update_expression("SET #at = :now")
            .condition_expression("attribute_not_exists(#at)")
            .expression_attribute_names("#at", EXPIRING_AT)
            .expression_attribute_values(":now", text(now.to_string()))
            .send()
            .await;
        set.map(|_| now).map_err(|error| failed("the table of heads", error))
    }

    /// Whether the tenant's chain tells how both chains end. Where it tells of another end they
    /// have moved since, and that is an error.
    async fn is_recorded(
        &self,
        entry: &AuditEntry,
        main: &StoredChain,
        side: Option<&StoredChain>,
    ) -> Result<bool, PortError> {
        let own = ChainId::tenant();
        let Some(prior) = self.prior(&own, entry).await? else { return Ok(false) };
        let pk = chain_key(&entry.tenant, &own);
        let row = self.item(&self.names.audit, &pk, &record_key(prior.seq)).await?;
        let record = row.and_then(|row| AuditRecord::parse(&binary_of(&row, "cj")?));
        let told = record.and_then(|record| Expired::read(&record)).ok_or_else(|| damaged("a record"))?;
        let mut chains = std::iter::once(main).chain(side);
        let all = chains.all(|chain| {
            chain.head.is_some_and(|head| told.tells_of(&chain.chain, head.seq, &BTreeSet::from([head.hash])))
        });
        if all {
            Ok(true)
        } else {
            Err(PortError::Permanent("the tenant's chain tells of another end".to_owned()))
        }
    }

    /// Marks every row of the call's chains for the table to remove. The head stays until the
    /// archive is gone: it says what is left to do.
    async fn mark_rows(
        &self,
        main: &StoredChain,
        side: Option<&StoredChain>,
        now: Timestamp,
    ) -> Result<(), PortError> {
        for chain in std::iter::once(main).chain(side) {
            let pk = chain_key(&chain.tenant, &chain.chain);
            for kind in ["EVT#", "IDEM#"] {
                for row in self.partition(&self.names.audit, &pk, kind, Some("SK")).await? {
                    let sk = text_of(&row, "SK").ok_or_else(|| damaged("the key of a row"))?;
                    self.mark(&self.names.audit, &pk, sk, "SET #ttl = :now", now).await?;
                }
            }
        }
        let key = head_key(&main.tenant, &main.chain);
        self.set_due(&key, TO_FORGET, now).await
    }

    async fn mark(
        &self,
        table: &str,
        pk: &str,
        sk: &str,
        expression: &str,
        now: Timestamp,
    ) -> Result<(), PortError> {
        let marked = self
            .dynamodb()
            .update_item()
            .table_name(table)
            .key("PK", text(pk))
            .key("SK", text(sk))
            .update_expression(expression)
            // A row that is gone must not come back as a mark.
            .condition_expression("attribute_exists(PK)")
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(":now", number(now.unix_millis() / 1_000))
            .send()
            .await;
        match marked {
            Ok(_) => Ok(()),
            Err(error) if code_of(&error) == Some("ConditionalCheckFailedException") => Ok(()),
            Err(error) => Err(failed("a table", error)),
        }
    }

    /// The last step: the archive, where its lock lets go, and then the heads.
    async fn forget(&self, old: &Old, now: Timestamp) -> Result<(), PortError> {
        self.forget_archive(&old.tenant, &old.call).await?;
        let (main, heads) = (ChainId::of(&old.call), self.names.heads());
        for chain in [main.side(), main] {
            let key = head_key(&old.tenant, &chain);
            self.mark(&heads, &key, "HEAD", "SET #ttl = :now REMOVE due_state, due_since", now).await?;
        }
        Ok(())
    }

    /// The call is looked at again then.
    async fn postpone(&self, old: &Old, until: Timestamp) -> Result<(), PortError> {
        let key = head_key(&old.tenant, &ChainId::of(&old.call));
        self.set_due(&key, TO_EXPIRE, until).await
    }
}

/// What a pass did with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Told,
    Expired,
    Held,
    Longer,
    Unarchived,
}

impl Step {
    const fn counter(self, swept: &mut Swept) -> &mut usize {
        match self {
            Self::Told => &mut swept.told,
            Self::Expired => &mut swept.expired,
            Self::Held => &mut swept.held,
            Self::Longer => &mut swept.longer,
            Self::Unarchived => &mut swept.unarchived,
        }
    }
}
