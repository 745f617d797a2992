//! What is known of webhooks, and names that are claimed once, in the table of transfers.

use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use handoff::id::CallId;

use super::{Cloud, Item, code_of, damaged, failed, number, number_of, text, text_of};
use crate::ports::{ClaimOnce, Deliveries, DeliveryState, Enqueue, Outgoing, PortError};

/// How long a row of this kind is kept, in seconds: longer than any repeat-contact window and
/// any dispute about a delivery.
const KEPT_SECS: i64 = 400 * 86_400;

fn delivery_key(message_id: &str) -> String {
    format!("W#{message_id}")
}

fn disabled_name(destination: &str) -> String {
    format!("disabled:{destination}")
}

impl Cloud {
    fn expiry(&self) -> i64 {
        self.wall().unix_millis() / 1_000 + KEPT_SECS
    }
}

impl ClaimOnce for Cloud {
    async fn claim(&self, name: &str, owner: &str) -> Result<bool, PortError> {
        let put = self
            .dynamodb()
            .put_item()
            .table_name(&self.names.transfers)
            .item("PK", text(format!("CLAIM#{name}")))
            .item("SK", text("CLAIM"))
            .item("owner", text(owner))
            .item("ttl", number(self.expiry()))
            .condition_expression("attribute_not_exists(PK) OR #owner = :owner")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":owner", text(owner))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::None)
            .send()
            .await;
        match put {
            Ok(_) => Ok(true),
            Err(error) if code_of(&error) == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(failed("the table of transfers", error)),
        }
    }
}

impl Deliveries for Cloud {
    async fn delivery(
        &self,
        message_id: &str,
        destination: &str,
    ) -> Result<Option<DeliveryState>, PortError> {
        let item = self.item(&self.names.transfers, &delivery_key(message_id), destination).await?;
        item.map(|item| state_in(&item, message_id, destination)).transpose()
    }

    async fn note_delivery(&self, state: DeliveryState) -> Result<(), PortError> {
        let mut item = Item::from([
            ("PK".to_owned(), text(delivery_key(&state.message_id))),
            ("SK".to_owned(), text(&state.destination)),
            ("kind".to_owned(), text(&state.kind)),
            ("call".to_owned(), text(state.call.as_str())),
            ("attempts".to_owned(), number(state.attempts)),
            ("durable_failed".to_owned(), number(state.durable_failed)),
            ("state".to_owned(), text(&state.state)),
            ("ttl".to_owned(), number(self.expiry())),
        ]);
        if let Some(status) = state.status {
            item.insert("status".to_owned(), number(status));
        }
        let put = self.dynamodb().put_item().table_name(&self.names.transfers).set_item(Some(item));
        put.send().await.map(drop).map_err(|error| failed("the table of transfers", error))
    }

    async fn disable(&self, destination: &str) -> Result<(), PortError> {
        self.claim(&disabled_name(destination), "gone").await.map(drop)
    }

    async fn is_disabled(&self, destination: &str) -> Result<bool, PortError> {
        let name = format!("CLAIM#{}", disabled_name(destination));
        Ok(self.item(&self.names.transfers, &name, "CLAIM").await?.is_some())
    }
}

fn state_in(item: &Item, message_id: &str, destination: &str) -> Result<DeliveryState, PortError> {
    let call = text_of(item, "call").and_then(|call| CallId::parse(call).ok());
    let (Some(kind), Some(state), Some(call)) = (text_of(item, "kind"), text_of(item, "state"), call) else {
        return Err(damaged("a delivery"));
    };
    Ok(DeliveryState {
        message_id: message_id.to_owned(),
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        call,
        attempts: number_of(item, "attempts").ok_or_else(|| damaged("a delivery"))?,
        durable_failed: number_of(item, "durable_failed").unwrap_or_default(),
        status: number_of(item, "status"),
        state: state.to_owned(),
    })
}

/// The stack for a function that claims nothing: what two runs both decide is one transfer by
/// its ids, which the edge and build-payload join. Evaluating a signal then needs no table.
#[derive(Clone, Copy, Debug)]
pub struct WithoutClaims<'a>(pub &'a Cloud);

impl ClaimOnce for WithoutClaims<'_> {
    async fn claim(&self, _name: &str, _owner: &str) -> Result<bool, PortError> {
        Ok(true)
    }
}

impl Enqueue for WithoutClaims<'_> {
    async fn enqueue(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        self.0.enqueue(messages).await
    }
}
