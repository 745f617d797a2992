//! Erasure and legal holds in the cloud. Keys go in one transaction with the question whether
//! a hold stands; the record follows through the queue of the audit trail. Where it cannot be
//! sent, the same request again sends the same record, because what was done is kept beside
//! the destroyed keys.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, TransactWriteItem, Update};
use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId};
use handoff::clock::Timestamp;
use handoff::id::{CallId, TenantId};
use serde::Deserialize;
use serde_json::json;

use super::ledger::head_key;
use super::vault::{DESTROYED, EDGE_KEY, FUNCTIONS_KEY, key_name, keys_of};
use super::{Cloud, Item, code_of, damaged, failed, text, text_of};
use crate::ports::{AUDIT, Enqueue, Outgoing, PortError};
pub use crate::sqlite::erase::Deed;

/// Longest ground and longest name of an actor, in bytes: they go into a record.
const GROUND_LEN_MAX: usize = 256;

/// What is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What is done.
    pub deed: Deed,
    /// Whose call.
    pub tenant: TenantId,
    /// Which call.
    pub call: CallId,
    /// On what ground; no personal data.
    pub basis: String,
    /// By whom, as the audit trail will name it.
    pub actor: String,
}

/// When, on what ground and by whom something was done.
pub(crate) struct Done {
    at: Timestamp,
    basis: String,
    actor: String,
}

impl Done {
    /// Done now.
    pub(crate) fn now(at: Timestamp, basis: &str, actor: &str) -> Self {
        Self { at, basis: basis.to_owned(), actor: actor.to_owned() }
    }
}

impl Cloud {
    /// The queue of the audit trail, for whoever has only the stack's name.
    pub async fn with_audit_queue(mut self, stack: &str) -> Result<Self, PortError> {
        let found = self.sqs().get_queue_url().queue_name(format!("{stack}-{AUDIT}")).send().await;
        let url = found.map_err(|error| failed("the queue of the audit trail", error))?.queue_url;
        self.names.queues.push((AUDIT, url.ok_or_else(|| damaged("the queue of the audit trail"))?));
        Ok(self)
    }

    /// Does what is asked for and records it. Returns the keys that are destroyed.
    pub async fn carry_out(&self, request: &Request) -> Result<Vec<String>, PortError> {
        let short = |text: &str| (1..=GROUND_LEN_MAX).contains(&text.len());
        if !short(&request.basis) || !short(&request.actor) {
            return Err(PortError::Permanent("a basis and an actor of at most 256 bytes each".to_owned()));
        }
        let Request { deed, tenant, call, basis, actor } = request;
        let asked = Done::now(self.wall(), basis, actor);
        if self.head_of(tenant, &ChainId::of(call)).await?.is_none() {
            return Err(PortError::Permanent("the stack holds no such call".to_owned()));
        }
        if *deed != Deed::Erase {
            self.hold(request).await?;
            self.hold_archive(tenant, call, *deed == Deed::PlaceHold).await?;
            let job = format!("hold:{}", asked.at.unix_millis());
            self.record(request, &job, &asked, Vec::new()).await?;
            return Ok(Vec::new());
        }
        let rows = self.partition(&self.names.keys(), &keys_of(tenant, call), "DEK#", None).await?;
        let done = match rows.iter().find_map(done_in) {
            // Done before: perhaps without its record.
            Some(done) => done,
            None => {
                self.destroy_keys(tenant, call, &asked).await?;
                asked
            }
        };
        let ids = [EDGE_KEY, FUNCTIONS_KEY].map(key_name).to_vec();
        self.record(request, "erasure", &done, ids.clone()).await?;
        Ok(ids)
    }

    /// Destroys a call's keys, unless a hold stands. Returns those that there were.
    pub(crate) async fn destroy_keys(
        &self,
        tenant: &TenantId,
        call: &CallId,
        done: &Done,
    ) -> Result<Vec<String>, PortError> {
        let pk = keys_of(tenant, call);
        let rows = self.partition(&self.names.keys(), &pk, "DEK#", None).await?;
        let head = ConditionCheck::builder()
            .table_name(self.names.heads())
            .key("PK", text(head_key(tenant, &ChainId::of(call))))
            .key("SK", text("HEAD"))
            .condition_expression("attribute_not_exists(#hold) OR #hold = :no")
            .expression_attribute_names("#hold", "hold")
            .expression_attribute_values(":no", AttributeValue::Bool(false))
            .build()
            .map_err(|_| damaged("a head"))?;
        let mut items = vec![TransactWriteItem::builder().condition_check(head).build()];
        // Both numbers, whether there or not: a key that is still on its way finds its place
        // taken.
        for n in [EDGE_KEY, FUNCTIONS_KEY] {
            let gone = Update::builder()
                .table_name(self.names.keys())
                .key("PK", text(&pk))
                .key("SK", text(format!("DEK#{n}")))
                .update_expression(
                    "SET #state = :destroyed, destroyed_at = :at, basis = :basis, actor = :actor REMOVE wrapped_dek",
                )
                .expression_attribute_names("#state", "state")
                .expression_attribute_values(":destroyed", text(DESTROYED))
                .expression_attribute_values(":at", text(done.at.to_string()))
                .expression_attribute_values(":basis", text(&done.basis))
                .expression_attribute_values(":actor", text(&done.actor))
                .build()
                .map_err(|_| damaged("a key"))?;
            items.push(TransactWriteItem::builder().update(gone).build());
        }
        let erased = self.dynamodb().transact_write_items().set_transact_items(Some(items)).send().await;
        match erased {
            Ok(_) => Ok(ids(&rows)),
            Err(error) => Err(match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    refusal(cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code()))
                }
                _ => failed("the table of keys", error),
            }),
        }
    }

    async fn hold(&self, request: &Request) -> Result<(), PortError> {
        let held = request.deed == Deed::PlaceHold;
        let set = self
            .dynamodb()
            .update_item()
            .table_name(self.names.heads())
            .key("PK", text(head_key(&request.tenant, &ChainId::of(&request.call))))
            .key("SK", text("HEAD"))
            .update_expression("SET #hold = :held")
            .condition_expression("attribute_exists(PK)")
            .expression_attribute_names("#hold", "hold")
            .expression_attribute_values(":held", AttributeValue::Bool(held))
            .send()
            .await;
        match set {
            Ok(_) => Ok(()),
            Err(error) if code_of(&error) == Some("ConditionalCheckFailedException") => {
                Err(PortError::Permanent("the stack holds no such call".to_owned()))
            }
            Err(error) => Err(failed("the table of heads", error)),
        }
    }

    async fn record(
        &self,
        request: &Request,
        job: &str,
        done: &Done,
        keys: Vec<String>,
    ) -> Result<(), PortError> {
        let Request { deed, tenant, call, .. } = request;
        let mut body = json!({"actor": done.actor, "basis": done.basis, "object": call});
        if *deed == Deed::Erase {
            body["dek_ids"] = json!(keys);
        }
        let message = AuditMessage::plain(AuditEntry {
            tenant: tenant.clone(),
            chain: ChainId::of(call),
            producer: ProducerId::job("write-audit", &format!("{call}:{job}"), 1),
            pseq: 0,
            kind: deed.kind().to_owned(),
            occurred_at: done.at,
            actor: Actor::system("write-audit"),
            body,
            sealed: None,
            refs: None,
        });
        self.enqueue(vec![Outgoing::audit(&message)?]).await
    }
}

fn refusal<'a>(codes: impl Iterator<Item = &'a str>) -> PortError {
    let codes: Vec<&str> = codes.collect();
    match codes.first() {
        Some(&"ConditionalCheckFailed") => {
            PortError::Permanent("a legal hold stands on this call".to_owned())
        }
        _ => PortError::Transient(format!("the table of keys: {}", codes.join(", "))),
    }
}

/// What a destroyed key's row says of its end.
fn done_in(row: &Item) -> Option<Done> {
    Some(Done {
        at: text_of(row, "destroyed_at").and_then(|at| Timestamp::parse(at).ok())?,
        basis: text_of(row, "basis")?.to_owned(),
        actor: text_of(row, "actor")?.to_owned(),
    })
}

/// The keys that can still open something.
fn ids(rows: &[Item]) -> Vec<String> {
    let live = rows.iter().filter(|row| row.contains_key("wrapped_dek"));
    let numbers = live.filter_map(|row| text_of(row, "SK")?.strip_prefix("DEK#")?.parse().ok());
    numbers.map(key_name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::binary;
    use super::*;

    #[test]
    fn a_hold_is_for_good_and_a_busy_table_is_not() {
        assert!(matches!(refusal(["ConditionalCheckFailed", "None"].into_iter()), PortError::Permanent(_)));
        assert!(matches!(refusal(["None", "TransactionConflict"].into_iter()), PortError::Transient(_)));
    }

    #[test]
    fn a_request_is_closed_and_names_its_deed() {
        let request = json!({"deed": "erase", "tenant": "t_acme", "call": "call_0001", "basis": "GDPR 17", "actor": "dpo"});
        let parsed: Request = serde_json::from_value(request.clone()).unwrap();
        assert_eq!(parsed.deed, Deed::Erase);
        let mut wide = request;
        wide["all"] = json!(true);
        assert!(serde_json::from_value::<Request>(wide).is_err());
    }

    #[test]
    fn what_was_done_is_read_back_from_the_destroyed_keys() {
        let gone = Item::from([
            ("SK".to_owned(), text("DEK#1")),
            ("destroyed_at".to_owned(), text("2027-01-01T00:00:00.000Z")),
            ("basis".to_owned(), text("GDPR 17")),
            ("actor".to_owned(), text("dpo")),
        ]);
        let live = Item::from([("SK".to_owned(), text("DEK#2")), ("wrapped_dek".to_owned(), binary(b"key"))]);
        assert_eq!(done_in(&gone).unwrap().basis, "GDPR 17");
        assert!(done_in(&live).is_none());
        assert_eq!(ids(&[gone, live]), ["dek-2"]);
    }
}
