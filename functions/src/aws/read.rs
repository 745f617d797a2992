//! Reading the tables for the command line: list, show, verify, export. The verifier is the
//! same as for the embedded store and trusts the tables no more than it trusts a file.

use std::collections::{BTreeMap, BTreeSet};

use handoff::audit::verify::{NO_CHECKPOINTS, Report, StoredChain, StoredRecord};
use handoff::audit::{AuditRecord, ChainId, feed, record_hash};
use handoff::clock::Timestamp;
use handoff::id::{CallId, PayloadId, TenantId, TransferId};
use handoff::payload::Payload;
use handoff::pii::Pii;
use handoff::seal::{DataKey, place};
use serde_json::Value;

use super::ledger::{DAY_SHARDS, chain_key};
use super::names::Names;
use super::vault::EDGE_KEY;
use super::{Cloud, Item, binary_of, damaged, failed, number_of, text, text_of};
use crate::audit_read::{Bundle, Chain, Shown, Witness, main_name};
use crate::ports::{GetPayload, PortError, ReadRecords};

/// A view of an audit table and its siblings.
#[derive(Clone, Debug)]
pub struct TableReader {
    cloud: Cloud,
}

impl TableReader {
    /// A view of the tables beside `table`.
    pub async fn open(table: &str) -> Self {
        Self { cloud: Cloud::connect(Names::of_audit_table(table)).await }
    }

    /// All chains, newest first.
    pub async fn list(&self) -> Result<Vec<Chain>, PortError> {
        let mut chains = Vec::new();
        for head in self.scan(&self.cloud.names.heads(), None).await? {
            let started_at = text_of(&head, "started_at").and_then(|at| Timestamp::parse(at).ok());
            chains.push(Chain {
                tenant: text_of(&head, "tenant").unwrap_or_default().to_owned(),
                chain: text_of(&head, "chain").unwrap_or_default().to_owned(),
                records: number_of(&head, "seq").unwrap_or_default(),
                state: text_of(&head, "state").unwrap_or_default().to_owned(),
                started_at: started_at.unwrap_or(Timestamp::from_unix_millis(0)),
            });
        }
        chains.sort_by(|a, b| b.started_at.cmp(&a.started_at).then_with(|| a.chain.cmp(&b.chain)));
        Ok(chains)
    }

    /// The records of a call, those of its side chain behind them.
    pub async fn show(&self, chain: &str) -> Result<Vec<Shown>, PortError> {
        let mut shown = Vec::new();
        for (tenant, name) in self.named(Some(chain)).await? {
            let main = ChainId::parse(&name).map_err(|_| damaged("the name of a chain"))?;
            let erased = match (TenantId::parse(&tenant), main.call()) {
                (Ok(tenant), Some(call)) => self.cloud.is_erased(&tenant, &call).await?,
                _ => false,
            };
            for chain in [main.clone(), main.side()] {
                for row in self.records(&tenant, &chain).await? {
                    // A record that no longer parses is the verifier's business.
                    let Some(record) = AuditRecord::parse(&row.canonical) else { continue };
                    let text = match &row.ciphertext {
                        Some(ciphertext) => self.opened(&record, ciphertext).await,
                        None => None,
                    };
                    let erased = record.entry.sealed.is_some() && erased;
                    shown.push(Shown { erased, ..Shown::of(record, text) });
                }
            }
        }
        Ok(shown)
    }

    /// A sealed text, where this reader may use the key and the key exists.
    async fn opened(&self, record: &AuditRecord, ciphertext: &[u8]) -> Option<Pii<String>> {
        let entry = &record.entry;
        let call = entry.chain.call()?;
        let key = self.cloud.find_key(&entry.tenant, &call, EDGE_KEY).await.ok()??;
        let place = place(&entry.tenant, call.as_str(), entry.producer.as_str(), entry.pseq);
        let plain = key.key.open(&place, ciphertext).ok()?;
        Some(Pii::new(String::from_utf8_lossy(&plain).into_owned()))
    }

    /// Verifies one call with its side chain, or everything, one call at a time.
    pub async fn verify(&self, chain: Option<&str>) -> Result<Report, PortError> {
        self.verify_with(chain, &Witness::default()).await
    }

    /// The same, against what a witness outside the tables knows.
    pub async fn verify_with(&self, chain: Option<&str>, witness: &Witness) -> Result<Report, PortError> {
        let wanted = chain.map(main_name);
        let mut by_tenant: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tenant, name) in self.named(None).await? {
            by_tenant.entry(tenant).or_default().push(name);
        }
        let known = by_tenant.values().flatten().any(|name| Some(name.as_str()) == wanted);
        // A tenant of which nothing is left but its log is missing as a whole.
        for tenant in witness.tenants().map_err(unreadable)? {
            by_tenant.entry(tenant.to_string()).or_default();
        }
        let (mut report, mut expired) = (Report::default(), false);
        if by_tenant.is_empty() && witness.checkpoints.is_none() {
            report.notes.push(NO_CHECKPOINTS.to_owned());
        }
        for (tenant, names) in &by_tenant {
            let names = names.iter().filter(|name| wanted.is_none_or(|wanted| wanted == name.as_str()));
            let mut verifier = witness.verifier(tenant).map_err(unreadable)?;
            let Ok(parsed) = TenantId::parse(tenant) else {
                names.for_each(|name| verifier.damaged(name, "the tenant of a chain"));
                report.absorb(verifier.finish(None));
                continue;
            };
            match self.cloud.stored_chain(&parsed, ChainId::tenant()).await {
                Ok(own) => verifier.know_expired(&own),
                // Told where that chain itself is judged.
                Err(PortError::Permanent(_)) => {}
                Err(error) => return Err(error),
            }
            for name in names {
                match self.stored_call(&parsed, name).await {
                    // The table removes the rows of an expired call one by one, when it likes.
                    Ok((main, side)) if verifier.is_expired(&main.chain) && !whole(&main, side.as_ref()) => {}
                    Ok((main, side)) => verifier.chain(&main, side.as_ref()),
                    // Rows that contradict each other were not written by this program.
                    Err(PortError::Permanent(why)) => {
                        verifier.damaged(name, why.trim_end_matches(" is damaged"))
                    }
                    Err(error) => return Err(error),
                }
            }
            let only = wanted.and_then(|wanted| ChainId::parse(wanted).ok());
            expired |= only.as_ref().is_some_and(|only| verifier.is_expired(only));
            report.absorb(verifier.finish(only.as_ref()));
        }
        let named = report.findings.iter().any(|finding| Some(main_name(&finding.chain)) == wanted);
        if let (Some(chain), false) = (chain, known || named || expired) {
            return Ok(Report::unreadable(&format!("no chain {chain} in this table")));
        }
        Ok(report)
    }

    async fn stored_call(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<(StoredChain, Option<StoredChain>), PortError> {
        let main = ChainId::parse(name).map_err(|_| damaged("the name of a chain"))?;
        let (mut main, side) = self.cloud.stored_call(tenant, main).await?;
        if let Some(call) = main.chain.call() {
            main.erased = self.cloud.is_erased(tenant, &call).await?;
        }
        Ok((main, side))
    }

    /// Rows for a warehouse: those of one day, of every tenant, in no order.
    pub async fn feed(&self, day: &str) -> Result<Vec<Value>, PortError> {
        let compact: String = day.chars().filter(char::is_ascii_digit).collect();
        let tenants: BTreeSet<String> =
            self.named(None).await?.into_iter().map(|(tenant, _)| tenant).collect();
        let mut wanted: BTreeSet<(String, String, u64)> = BTreeSet::new();
        for (tenant, shard) in
            tenants.iter().flat_map(|tenant| (0..DAY_SHARDS).map(move |shard| (tenant, shard)))
        {
            for key in self.day_index(&format!("T#{tenant}#D#{compact}#S#{shard}")).await? {
                let chain = text_of(&key, "PK").and_then(|key| key.strip_prefix("T#")?.split_once("#C#"));
                let seq = text_of(&key, "SK").and_then(|key| key.strip_prefix("EVT#")?.parse().ok());
                let (Some((tenant, chain)), Some(seq)) = (chain, seq) else {
                    return Err(damaged("the key of a row"));
                };
                wanted.insert((tenant.to_owned(), chain.to_owned(), seq));
            }
        }
        let mut rows = Vec::new();
        let chains: BTreeSet<(&String, &String)> =
            wanted.iter().map(|(tenant, chain, _)| (tenant, chain)).collect();
        for (tenant, chain) in chains {
            let name = ChainId::parse(chain).map_err(|_| damaged("the name of a chain"))?;
            for stored in self.records(tenant, &name).await? {
                if !wanted.contains(&(tenant.clone(), chain.clone(), stored.seq)) {
                    continue;
                }
                let record = AuditRecord::parse(&stored.canonical);
                let hash = record_hash(&stored.canonical);
                rows.extend(record.map(|record| feed::row(&record, &hash, stored.recorded_at)));
            }
        }
        Ok(rows)
    }

    async fn day_index(&self, partition: &str) -> Result<Vec<Item>, PortError> {
        let mut rows = Vec::new();
        let mut from = None;
        loop {
            let answer = self
                .cloud
                .dynamodb()
                .query()
                .table_name(&self.cloud.names.audit)
                .index_name("GSI1")
                .key_condition_expression("GSI1PK = :day")
                .expression_attribute_values(":day", text(partition))
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| failed("the index of days", error))?;
            rows.extend(answer.items.unwrap_or_default());
            from = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() {
                return Ok(rows);
            }
        }
    }

    /// The records of a call and of its side chain, as they are, sealed texts sealed.
    pub async fn records_of(&self, tenant: &TenantId, call: &CallId) -> Result<Vec<AuditRecord>, PortError> {
        ReadRecords::records(&self.cloud, tenant, call).await
    }

    /// The key that the edge sealed a call's texts and recordings with; `None` where there is
    /// none, an error where it was destroyed.
    pub async fn edge_key(&self, tenant: &TenantId, call: &CallId) -> Result<Option<DataKey>, PortError> {
        self.cloud.find_key(tenant, call, EDGE_KEY).await
    }

    /// The highest revision of a transfer's payload.
    pub async fn payload(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
    ) -> Result<Option<Payload>, PortError> {
        let stored = self.cloud.payload(tenant, &PayloadId::of(transfer), None).await?;
        let parsed = stored.map(|stored| Payload::parse(&stored.bytes)).transpose();
        parsed.map_err(|_| damaged("a payload"))
    }

    /// One call's chain (or side chain) as a bundle.
    pub async fn export(&self, chain: &str) -> Result<Bundle, PortError> {
        let mut bundle = Bundle { jsonl: Vec::new(), meta: Vec::new() };
        let name = ChainId::parse(chain).map_err(|_| damaged("the name of a chain"))?;
        for (tenant, _) in self.named(Some(chain)).await? {
            for record in self.records(&tenant, &name).await? {
                bundle.push(&record);
            }
        }
        Ok(bundle)
    }

    async fn records(&self, tenant: &str, chain: &ChainId) -> Result<Vec<StoredRecord>, PortError> {
        let tenant = TenantId::parse(tenant).map_err(|_| damaged("the tenant of a chain"))?;
        self.cloud.stored_records(&tenant, chain).await
    }

    /// Tenant and main chain of everything of which there is any trace, or of one chain.
    async fn named(&self, wanted: Option<&str>) -> Result<BTreeSet<(String, String)>, PortError> {
        let mut names = BTreeSet::new();
        for table in [self.cloud.names.heads(), self.cloud.names.audit.clone()] {
            for row in self.scan(&table, Some("PK")).await? {
                let key = text_of(&row, "PK").unwrap_or_default();
                let key = key.strip_prefix("HEAD#").unwrap_or(key);
                let parts = key.strip_prefix("T#").and_then(|rest| rest.split_once("#C#"));
                let Some((tenant, chain)) = parts else { return Err(damaged("the key of a row")) };
                names.insert((tenant.to_owned(), main_name(chain).to_owned()));
            }
        }
        let wanted = wanted.map(main_name);
        names.retain(|(_, name)| wanted.is_none_or(|wanted| wanted == name));
        Ok(names)
    }

    /// Every row of a table; only the attribute `only`, where one is named.
    async fn scan(&self, table: &str, only: Option<&str>) -> Result<Vec<Item>, PortError> {
        let mut rows = Vec::new();
        let mut from = None;
        loop {
            let answer = self
                .cloud
                .dynamodb()
                .scan()
                .table_name(table)
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

impl Cloud {
    /// A call's chain and, where it has one, its side chain; or any other chain.
    pub(crate) async fn stored_call(
        &self,
        tenant: &TenantId,
        main: ChainId,
    ) -> Result<(StoredChain, Option<StoredChain>), PortError> {
        let side = match main.call() {
            Some(_) => Some(self.stored_chain(tenant, main.side()).await?),
            None => None,
        };
        let main = self.stored_chain(tenant, main).await?;
        Ok((main, side.filter(|side| !side.records.is_empty() || side.head.is_some())))
    }

    /// A chain as it is stored; whether its texts can still be read is not asked.
    pub(crate) async fn stored_chain(
        &self,
        tenant: &TenantId,
        chain: ChainId,
    ) -> Result<StoredChain, PortError> {
        let records = self.stored_records(tenant, &chain).await?;
        let head = self.head_of(tenant, &chain).await?;
        Ok(StoredChain { tenant: tenant.clone(), chain, records, head, erased: false })
    }

    /// A chain's records as they are stored.
    async fn stored_records(
        &self,
        tenant: &TenantId,
        chain: &ChainId,
    ) -> Result<Vec<StoredRecord>, PortError> {
        let rows = self.partition(&self.names.audit, &chain_key(tenant, chain), "EVT#", None).await?;
        rows.iter().map(record_in).collect()
    }
}

impl ReadRecords for Cloud {
    async fn records(&self, tenant: &TenantId, call: &CallId) -> Result<Vec<AuditRecord>, PortError> {
        let main = ChainId::of(call);
        let mut records = Vec::new();
        for chain in [main.clone(), main.side()] {
            let stored = self.stored_records(tenant, &chain).await?;
            records.extend(stored.iter().filter_map(|record| AuditRecord::parse(&record.canonical)));
        }
        Ok(records)
    }
}

/// Whether both chains are as long as their heads say.
fn whole(main: &StoredChain, side: Option<&StoredChain>) -> bool {
    let mut chains = std::iter::once(main).chain(side);
    chains.all(|chain| {
        let last = chain.records.last().map(|last| last.seq);
        last.is_some()
            && last == chain.head.map(|head| head.seq)
            && last == u64::try_from(chain.records.len()).ok()
    })
}

fn unreadable(error: std::io::Error) -> PortError {
    PortError::Permanent(format!("the checkpoints: {error}"))
}

fn record_in(row: &Item) -> Result<StoredRecord, PortError> {
    let seq = text_of(row, "SK").and_then(|key| key.strip_prefix("EVT#")?.parse().ok());
    Ok(StoredRecord {
        seq: seq.ok_or_else(|| damaged("the key of a record"))?,
        canonical: binary_of(row, "cj").ok_or_else(|| damaged("a record without its bytes"))?,
        hash: text_of(row, "hash").map(str::to_owned),
        recorded_at: text_of(row, "recorded_at").and_then(|at| Timestamp::parse(at).ok()),
        ciphertext: binary_of(row, "ct"),
    })
}
