//! What was recorded of the demo's call, read back from where it was recorded: the embedded
//! store, or the tables of a deployed stack.

use std::path::Path;

use anyhow::{Context, Result};
use functions::audit_read::{Reader, Shown, Witness};
use handoff::id::{CallId, TransferId};
use handoff::payload::Payload;
use serde_json::Value;

use crate::demo::crm::{Crm, Received};
use crate::demo::report::WebhookFigures;
use crate::demo::stage::checkpoints_of;

/// One audit record, as far as the figures need it.
#[derive(Debug)]
pub struct Record {
    /// What happened.
    pub kind: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Details.
    pub body: Value,
}

impl From<Shown> for Record {
    fn from(shown: Shown) -> Self {
        Self { kind: shown.kind, at_ms: shown.occurred_at.unix_millis(), body: shown.body }
    }
}

/// What was recorded of one call.
#[derive(Debug)]
pub struct Recorded {
    /// Which.
    pub call: CallId,
    /// Its records, in order.
    pub records: Vec<Record>,
    /// The verdict on them.
    pub verified: bool,
    /// The highest revision of its transfer's payload.
    pub payload: Option<Payload>,
    /// Its webhooks, as sender and receiver agree on them.
    pub webhooks: Vec<WebhookFigures>,
}

/// The latest call of the embedded store in `data`.
pub fn by_store(data: &Path, crm: &Crm) -> Result<Recorded> {
    let reader = Reader::open(data).context("the store cannot be read")?;
    // Side chains, of what came after a chain was closed, have names that no call has.
    let mut calls = reader.list()?.into_iter().filter_map(|chain| CallId::parse(&chain.chain).ok());
    let call = calls.next().context("the store holds no call")?;
    let records: Vec<Record> = reader.show(call.as_str())?.into_iter().map(Record::from).collect();
    let payload = match transfer_of(&records) {
        Some(transfer) => reader.payload(&transfer)?,
        None => None,
    };
    let checkpoints = Some(checkpoints_of(data)).filter(|folder| folder.is_dir());
    let witness = Witness { checkpoints, ..Witness::default() };
    let received = crm.received();
    let sent = reader.webhooks(&call)?.into_iter();
    let webhooks =
        sent.map(|hook| figures(hook.kind, &hook.message_id, hook.status, hook.attempts, &received));
    Ok(Recorded {
        verified: reader.verify_with(Some(call.as_str()), &witness)?.exit_code() == 0,
        payload,
        webhooks: webhooks.collect(),
        call,
        records,
    })
}

/// The transfer that ended last.
fn transfer_of(records: &[Record]) -> Option<TransferId> {
    let ended = records.iter().find(|record| record.kind == "transfer.ended")?;
    TransferId::parse(ended.body.get("transfer_id")?.as_str()?).ok()
}

/// What the sender recorded, kept only where the receiver agrees: an attempt that the CRM
/// never saw, or could not verify, is no delivery.
fn figures(
    kind: String,
    message_id: &str,
    status: Option<u16>,
    attempts: u32,
    received: &[Received],
) -> WebhookFigures {
    let seen = received.iter().any(|got| got.id == message_id && got.verified);
    WebhookFigures { kind, status: status.filter(|_| seen), attempts }
}

#[cfg(feature = "aws")]
pub use stack::by_stack;

#[cfg(feature = "aws")]
mod stack {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use anyhow::{Context, Result};
    use functions::aws::Cloud;
    use functions::aws::names::Names;
    use functions::aws::read::TableReader;
    use functions::ports::GetPayload;
    use handoff::id::{CallId, PayloadId, TenantId};
    use handoff::payload::Payload;
    use serde_json::Value;

    use super::{Record, Recorded, figures, transfer_of};
    use crate::demo::crm::{Crm, Received};
    use crate::demo::report::WebhookFigures;

    /// How long the functions may take to record everything.
    const SETTLE_MAX: Duration = Duration::from_secs(90);

    /// How often the tables are asked.
    const ASK_EVERY: Duration = Duration::from_secs(2);

    /// A call's records are complete when none came for so many askings behind the edge's last.
    const QUIET_ASKINGS: u32 = 4;

    /// The latest call in the tables of `stack`.
    pub async fn by_stack(stack: &str, bucket: &str, crm: &Crm) -> Result<Recorded> {
        let names = Names::of_stack(stack, bucket);
        let reader = TableReader::open(&names.audit).await;
        let cloud = Cloud::connect(names).await;
        let settled = tokio::time::timeout(SETTLE_MAX, settled(&reader)).await;
        let (call, tenant, records) = settled.context("the functions did not record the call in time")??;
        let payload = match (transfer_of(&records), TenantId::parse(&tenant)) {
            (Some(transfer), Ok(tenant)) => {
                let stored = cloud.payload(&tenant, &PayloadId::of(&transfer), None).await?;
                stored.map(|stored| Payload::parse(&stored.bytes)).transpose()?
            }
            _ => None,
        };
        let verified = reader.verify(Some(call.as_str())).await?.exit_code() == 0;
        let webhooks = webhooks(&records, &crm.received());
        Ok(Recorded { call, records, verified, payload, webhooks })
    }

    async fn settled(reader: &TableReader) -> Result<(CallId, String, Vec<Record>)> {
        let (mut before, mut quiet) = (0, 0);
        loop {
            let chains = reader.list().await?;
            let latest =
                chains.into_iter().find_map(|chain| Some((CallId::parse(&chain.chain).ok()?, chain.tenant)));
            if let Some((call, tenant)) = latest {
                let records: Vec<Record> =
                    reader.show(call.as_str()).await?.into_iter().map(Record::from).collect();
                let over = records.iter().any(|record| record.kind == "producer.final");
                quiet = if over && records.len() == before { quiet + 1 } else { 0 };
                if quiet == QUIET_ASKINGS {
                    return Ok((call, tenant, records));
                }
                before = records.len();
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// The webhooks that the records tell of: the last try of each message.
    fn webhooks(records: &[Record], received: &[Received]) -> Vec<WebhookFigures> {
        let mut tries: BTreeMap<String, (String, Option<u16>, u32)> = BTreeMap::new();
        for record in records.iter().filter(|record| record.kind == "webhook.attempted") {
            let text =
                |name: &str| record.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let number = |name: &str| record.body.get(name).and_then(Value::as_u64);
            let status = number("status").and_then(|status| u16::try_from(status).ok());
            let attempt = number("try").and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or_default();
            let known = tries.entry(text("message_id")).or_insert_with(|| (text("type"), None, 0));
            if attempt >= known.2 {
                (known.1, known.2) = (status, attempt);
            }
        }
        tries
            .into_iter()
            .map(|(id, (kind, status, attempts))| figures(kind, &id, status, attempts, received))
            .collect()
    }
}
