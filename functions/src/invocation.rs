//! What the platform invokes a function with, and what it takes as an answer: batches of a
//! queue and of the stream of heads. Content that does not parse is never repeated in an
//! error, because it may be personal. `infra/events/` has a sample of each.

use handoff::audit::ChainId;
use handoff::clock::Timestamp;
use handoff::id::{CallId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::{Failure, Grouped};

/// The event that SQS invokes a function with.
#[derive(Deserialize)]
pub struct SqsEvent {
    /// The batch.
    #[serde(rename = "Records", default)]
    pub records: Vec<SqsRecord>,
}

/// One message of a batch.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsRecord {
    /// Names it in the answer.
    pub message_id: String,
    /// Names this receipt of it.
    pub receipt_handle: String,
    /// The content.
    #[serde(default)]
    pub body: String,
    /// What the queue knows of it.
    #[serde(default)]
    pub attributes: SqsAttributes,
}

/// What a queue knows of a message.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SqsAttributes {
    /// The group whose order it keeps.
    pub message_group_id: Option<String>,
    /// When it was sent, in milliseconds since 1970.
    pub sent_timestamp: Option<String>,
}

impl Grouped for SqsRecord {
    fn group(&self) -> Option<&str> {
        self.attributes.message_group_id.as_deref()
    }
}

impl SqsRecord {
    /// How long it waited in its queue, in milliseconds.
    pub fn waited(&self, now: Timestamp) -> Option<i64> {
        let sent: i64 = self.attributes.sent_timestamp.as_deref()?.parse().ok()?;
        Some(now.unix_millis().saturating_sub(sent).max(0))
    }
}

/// The records that must come again.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// Each by its message id.
    pub batch_item_failures: Vec<ItemFailure>,
}

/// One record that must come again.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// Its message id.
    pub item_identifier: String,
}

/// A batch out of an invocation.
pub fn batch_in(event: Value) -> Result<SqsEvent, Failure> {
    // Its content may be personal, so the error does not repeat it.
    serde_json::from_value(event).map_err(|_| Failure::permanent("the invocation is not a batch of a queue"))
}

/// A batch's answer as the platform takes it.
pub fn answer(response: &BatchResponse) -> Value {
    // Text only: nothing in these types can fail.
    serde_json::to_value(response).unwrap_or_default()
}

/// The event that the stream of heads invokes a function with.
#[derive(Deserialize)]
pub struct HeadsEvent {
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
    /// Its call is on its way out: what is left of it is no measure of anything.
    expiring_at: Option<Text>,
    ttl: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Text {
    #[serde(rename = "S")]
    text: String,
}

impl HeadsEvent {
    /// The calls whose measures changed, each with what names its change in the answer.
    pub fn measured(&self) -> impl Iterator<Item = (&str, TenantId, CallId)> {
        self.records.iter().filter_map(|record| {
            let head = record.dynamodb.new_image.as_ref()?;
            let chain = ChainId::parse(&head.chain.text).ok()?;
            let stays = head.expiring_at.is_none() && head.ttl.is_none();
            let changes = stays && (chain.is_side() || head.state.text == "closed");
            let tenant = TenantId::parse(&head.tenant.text).ok()?;
            changes.then_some((record.dynamodb.sequence_number.as_str(), tenant, chain.call()?))
        })
    }
}

#[cfg(test)]
mod samples;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_is_read_and_answered_as_the_platform_writes_it() {
        let event = batch_in(json!({"Records": [{
            "messageId": "m1", "receiptHandle": "r1", "body": "{}", "eventSource": "aws:sqs",
            "attributes": {"MessageGroupId": "call_0001", "SentTimestamp": "1000", "ApproximateReceiveCount": "1"},
        }]}))
        .ok()
        .unwrap();
        let record = &event.records[0];
        assert_eq!(record.group(), Some("call_0001"));
        assert_eq!(record.waited(Timestamp::from_unix_millis(1_250)), Some(250));
        let response =
            BatchResponse { batch_item_failures: vec![ItemFailure { item_identifier: "m1".to_owned() }] };
        assert_eq!(answer(&response), json!({"batchItemFailures": [{"itemIdentifier": "m1"}]}));
        assert_eq!(answer(&BatchResponse::default()), json!({"batchItemFailures": []}));
    }

    #[test]
    fn a_call_is_measured_when_its_chain_closes_and_when_something_comes_late() {
        let change = |number: &str, chain: &str, state: &str| {
            json!({"dynamodb": {"SequenceNumber": number, "NewImage": {
                "tenant": {"S": "t_acme"}, "chain": {"S": chain}, "state": {"S": state}, "seq": {"N": "5"}}}})
        };
        let leaving = |number: &str, mark: &str, value: Value| {
            let mut event = change(number, "call_0004", "closed");
            event["dynamodb"]["NewImage"][mark] = value;
            event
        };
        let event: HeadsEvent = serde_json::from_value(json!({"Records": [
            change("1", "call_0001", "open"),
            change("2", "call_0002", "closed"),
            change("3", "call_0003#late", "open"),
            change("4", "#tenant", "open"),
            {"dynamodb": {"SequenceNumber": "5"}},
            leaving("6", "expiring_at", json!({"S": "2033-01-01T00:00:00.000Z"})),
            leaving("7", "ttl", json!({"N": "1990000000"})),
        ]}))
        .unwrap();
        let measured: Vec<_> = event.measured().map(|(number, _, call)| (number, call.to_string())).collect();
        assert_eq!(measured, [("2", "call_0002".to_owned()), ("3", "call_0003".to_owned())]);
    }
}
