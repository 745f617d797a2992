//! Rows of measures in the table of transfers, by tenant and day; and what the stream of heads
//! says of chains that closed or got something late.

use handoff::audit::ChainId;
use handoff::clock::Day;
use handoff::id::{CallId, TenantId};
use serde::Deserialize;

use super::{Cloud, binary, binary_of, damaged, failed, number, text, text_of};
use crate::ports::{PortError, PutRow, ReadRows, StoredRow};

/// How long a row is kept, in seconds: a little longer than a year.
const KEPT_SECS: i64 = 400 * 86_400;

fn day_key(tenant: &TenantId, day: Day) -> String {
    format!("T#{tenant}#D#{day}")
}

impl PutRow for Cloud {
    async fn put_row(&self, row: StoredRow) -> Result<(), PortError> {
        let put = self
            .dynamodb()
            .put_item()
            .table_name(&self.names.transfers)
            .item("PK", text(day_key(&row.tenant, row.day)))
            .item("SK", text(&row.key))
            .item("row", binary(&row.body))
            .item("ttl", number(self.wall().unix_secs() + KEPT_SECS));
        put.send().await.map(drop).map_err(|error| failed("the table of transfers", error))
    }
}

impl ReadRows for Cloud {
    async fn rows(&self, tenant: &TenantId, day: Day) -> Result<Vec<StoredRow>, PortError> {
        let items = self.partition(&self.names.transfers, &day_key(tenant, day), "", None).await?;
        items
            .iter()
            .map(|item| {
                let (key, body) = (text_of(item, "SK"), binary_of(item, "row"));
                let (Some(key), Some(body)) = (key, body) else { return Err(damaged("a row of measures")) };
                Ok(StoredRow { tenant: tenant.clone(), day, key: key.to_owned(), body })
            })
            .collect()
    }
}

/// The event that the stream of heads invokes a function with.
#[derive(Deserialize)]
pub struct StreamEvent {
    /// The batch.
    #[serde(rename = "Records", default)]
    records: Vec<StreamRecord>,
}

#[derive(Deserialize)]
struct StreamRecord {
    dynamodb: Change,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    sequence_number: String,
    new_image: Option<Head>,
}

/// A head as far as it must be known here.
#[derive(Deserialize)]
struct Head {
    tenant: Text,
    chain: Text,
    state: Text,
}

#[derive(Deserialize)]
struct Text {
    #[serde(rename = "S")]
    text: String,
}

impl StreamEvent {
    /// The calls whose measures changed, each with what names its change in the answer.
    pub fn measured(&self) -> impl Iterator<Item = (&str, TenantId, CallId)> {
        self.records.iter().filter_map(|record| {
            let head = record.dynamodb.new_image.as_ref()?;
            let chain = ChainId::parse(&head.chain.text).ok()?;
            let changes = chain.is_side() || head.state.text == "closed";
            let tenant = TenantId::parse(&head.tenant.text).ok()?;
            changes.then_some((record.dynamodb.sequence_number.as_str(), tenant, chain.call()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_measured_when_its_chain_closes_and_when_something_comes_late() {
        let change = |number: &str, chain: &str, state: &str| {
            json!({"dynamodb": {"SequenceNumber": number, "NewImage": {
                "tenant": {"S": "t_acme"}, "chain": {"S": chain}, "state": {"S": state}, "seq": {"N": "5"}}}})
        };
        let event: StreamEvent = serde_json::from_value(json!({"Records": [
            change("1", "call_0001", "open"),
            change("2", "call_0002", "closed"),
            change("3", "call_0003#late", "open"),
            change("4", "#tenant", "open"),
            {"dynamodb": {"SequenceNumber": "5"}},
        ]}))
        .unwrap();
        let measured: Vec<_> = event.measured().map(|(number, _, call)| (number, call.to_string())).collect();
        assert_eq!(measured, [("2", "call_0002".to_owned()), ("3", "call_0003".to_owned())]);
    }
}
