//! What a human agent says of a transfer after the call, sent by the CRM: resolved or not, and
//! how long the work after it took. It is recorded in the side chain of the call and nowhere
//! else; every one is kept, and the last of a transfer counts. A message that comes again is
//! recorded once. It holds a code and a case number, and refuses anything that could be more.

use handoff::audit::{Actor, ActorKind, AuditEntry, AuditMessage, ChainId, ProducerId};
use handoff::clock::Timestamp;
use handoff::id::{CallId, DestinationId, PayloadId, TenantId, TransferId, derived_text};
use serde_json::{Value, json};

use crate::ports::{Outgoing, PortError};
use crate::sqlite::{Once, Receipt, Store, StoreError};

/// Longest code or case number.
pub const NAME_LEN_MAX: usize = 64;

/// Longest message id that is taken, from whatever system.
pub const MESSAGE_ID_LEN_MAX: usize = 128;

/// Longest work after a call: a working day. More is a mistake in the unit.
pub const ACW_MAX_S: u64 = 8 * 3_600;

/// Most fields that a caller was asked for again: as many as a card shows.
const ASKED_AGAIN_MAX: usize = 32;

/// A member that is wrong, and how. Values are never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{member}` {fault}")]
pub struct BadDisposition {
    /// Which.
    pub member: &'static str,
    /// What is wrong with it.
    pub fault: &'static str,
}

/// A disposition that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disposition {
    transfer: TransferId,
    code: String,
    resolved: bool,
    case_id: Option<String>,
    acw_s: Option<u64>,
    asked_again: Option<Vec<String>>,
}

/// The members that a disposition may have.
pub const MEMBERS: [&str; 6] = ["transfer_id", "code", "resolved", "case_id", "acw_s", "asked_again"];

impl Disposition {
    /// Reads the members of a disposition; those that are none were refused before.
    pub fn parse(members: &serde_json::Map<String, Value>) -> Result<Self, BadDisposition> {
        let bad = |member, fault| BadDisposition { member, fault };
        let needed = |member| members.get(member).ok_or_else(|| bad(member, "is missing"));
        let transfer = needed("transfer_id")?.as_str().and_then(|id| TransferId::parse(id).ok());
        let code = needed("code")?.as_str().filter(|code| is_name(code));
        let resolved = needed("resolved")?.as_bool();
        let given = |member| members.get(member).filter(|value| !value.is_null());
        let case_id = given("case_id").map(|value| value.as_str().filter(|id| is_name(id)));
        let acw_s = given("acw_s").map(|value| value.as_u64().filter(|seconds| *seconds <= ACW_MAX_S));
        let asked_again = given("asked_again").map(|value| {
            let fields = value.as_array().filter(|fields| fields.len() <= ASKED_AGAIN_MAX)?;
            fields
                .iter()
                .map(|field| field.as_str().filter(|name| is_name(name)).map(str::to_owned))
                .collect()
        });
        Ok(Self {
            transfer: transfer.ok_or_else(|| bad("transfer_id", "is no id of a transfer"))?,
            code: code.ok_or_else(|| bad("code", NO_NAME))?.to_owned(),
            resolved: resolved.ok_or_else(|| bad("resolved", "is neither true nor false"))?,
            case_id: case_id
                .map(|id| id.ok_or_else(|| bad("case_id", NO_NAME)))
                .transpose()?
                .map(str::to_owned),
            acw_s: acw_s
                .map(|seconds| seconds.ok_or_else(|| bad("acw_s", "is no number of seconds up to 28800")))
                .transpose()?,
            asked_again: asked_again
                .map(|fields: Option<_>| {
                    fields.ok_or_else(|| bad("asked_again", "is no list of up to 32 names of fields"))
                })
                .transpose()?,
        })
    }

    /// Which transfer it is of.
    pub const fn transfer(&self) -> &TransferId {
        &self.transfer
    }

    fn body(&self) -> Value {
        let mut body = json!({"transfer_id": self.transfer, "code": self.code, "resolved": self.resolved});
        if let Some(members) = body.as_object_mut() {
            members.extend(self.case_id.iter().map(|id| ("case_id".to_owned(), json!(id))));
            members.extend(self.acw_s.iter().map(|seconds| ("acw_s".to_owned(), json!(seconds))));
            members.extend(self.asked_again.iter().map(|fields| ("asked_again".to_owned(), json!(fields))));
        }
        body
    }

    /// Its entry for the side chain of `call`. The message id names the producer, so that a
    /// second copy is one; the sender is the actor.
    fn entry(
        &self,
        tenant: &TenantId,
        call: &CallId,
        from: &DestinationId,
        message_id: &str,
        at: Timestamp,
    ) -> Result<Outgoing, PortError> {
        Outgoing::audit(&AuditMessage::plain(AuditEntry {
            tenant: tenant.clone(),
            chain: ChainId::of(call),
            producer: ProducerId::job("api", &format!("{from}:disposition:{message_id}"), 1),
            pseq: 0,
            kind: "disposition.received".to_owned(),
            occurred_at: at,
            actor: Actor { kind: ActorKind::System, id: from.to_string() },
            body: self.body(),
            sealed: None,
            refs: None,
        }))
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is on its way into the record, or was before.
    Recorded,
    /// No such transfer is known.
    UnknownTransfer,
    /// Another message came under this id.
    IdReused,
}

/// Takes a disposition that `from` sent under `message_id`: its entry is durable with the
/// claim of the id, or neither is.
pub async fn take(
    store: &Store,
    tenant: &TenantId,
    from: &DestinationId,
    message_id: &str,
    disposition: &Disposition,
) -> Result<Taken, StoreError> {
    let payload = PayloadId::of(disposition.transfer());
    let Some(call) = store.call_of_payload(tenant, &payload)? else { return Ok(Taken::UnknownTransfer) };
    let entry = disposition
        .entry(tenant, &call, from, message_id, store.wall())
        .map_err(|_| StoreError::Damaged("a disposition that fits cannot be recorded"))?;
    let name = format!("disposition:{from}:{message_id}");
    let content = derived_text(&[&disposition.body().to_string()]);
    let sent: Receipt<Once> = store.send_once(&name, &content, entry);
    match sent.committed().await?.value {
        Once::First | Once::Again => Ok(Taken::Recorded),
        Once::Other => Ok(Taken::IdReused),
    }
}

/// Codes and case numbers are names, so that no sentence about anybody gets into the record.
fn is_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:/#".contains(&b))
}

const NO_NAME: &str = "is no name of 1 to 64 characters out of A-Z a-z 0-9 _ - . : / #";

#[cfg(test)]
mod tests {
    use handoff::audit::verify::Class;

    use super::*;
    use crate::audit_read::{Reader, verify_store};
    use crate::ports::{AUDIT, AppendAudit, Keys, PutPayload, StoredPayload};
    use crate::testing::{Bench, call};
    use crate::write_audit;

    const SAID: &str = r#"{"transfer_id":"xfer_1","code":"refund.done","resolved":true,"case_id":"C-77","acw_s":40,"asked_again":["date_of_birth"]}"#;

    fn parsed(text: &str) -> Result<Disposition, BadDisposition> {
        let Ok(Value::Object(members)) = serde_json::from_str(text) else { panic!("an object") };
        Disposition::parse(&members)
    }

    fn crm() -> DestinationId {
        DestinationId::parse("crm").unwrap()
    }

    fn tenant() -> TenantId {
        TenantId::parse("t_acme").unwrap()
    }

    /// A call with a payload for `xfer_1`.
    async fn bench() -> Bench {
        let bench = Bench::new();
        bench.store.data_key(&tenant(), &call()).await.unwrap();
        let payload = StoredPayload {
            tenant: tenant(),
            call: call(),
            payload: PayloadId::of(&TransferId::parse("xfer_1").unwrap()),
            revision: 1,
            bytes: b"{}".to_vec(),
        };
        bench.store.put_payload(payload).await.unwrap();
        bench
    }

    #[tokio::test]
    async fn a_message_is_recorded_once_however_often_it_comes() {
        let bench = bench().await;
        let said = parsed(SAID).unwrap();
        for _ in 0..3 {
            // A retry comes later: the entry must not change with the clock.
            bench.clock.pass(5_000);
            assert_eq!(take(&bench.store, &tenant(), &crm(), "msg_1", &said).await.unwrap(), Taken::Recorded);
        }
        let entries = bench.drain(AUDIT).await;
        assert_eq!(entries.len(), 1);
        write_audit::handle(&bench.store, &entries[0].body).await.unwrap();
        let shown = Reader::open(bench.store.dir()).unwrap().show(call().as_str()).unwrap();
        let expected: Value = serde_json::from_str(SAID).unwrap();
        assert_eq!((shown[0].kind.as_str(), &shown[0].body), ("disposition.received", &expected));
        assert_eq!(shown[0].actor.id, "crm");
    }

    #[test]
    fn what_was_asked_again_is_a_short_list_of_names() {
        let with = |value: &str| SAID.replace(r#"["date_of_birth"]"#, value);
        for good in ["[]", "null", r#"["a","b"]"#] {
            assert!(parsed(&with(good)).is_ok(), "{good}");
        }
        let many = format!("[{}]", vec![r#""a""#; 33].join(","));
        for bad in ["true", r#""date_of_birth""#, "[1]", r#"["when was she born?"]"#, &many] {
            assert_eq!(parsed(&with(bad)).unwrap_err().member, "asked_again", "{bad}");
        }
    }

    #[tokio::test]
    async fn another_message_under_the_same_id_is_refused_and_of_another_sender_is_not() {
        let bench = bench().await;
        let first = parsed(SAID).unwrap();
        let other = parsed(&SAID.replace("true", "false")).unwrap();
        let store = &bench.store;
        assert_eq!(take(store, &tenant(), &crm(), "msg_1", &first).await.unwrap(), Taken::Recorded);
        assert_eq!(take(store, &tenant(), &crm(), "msg_1", &other).await.unwrap(), Taken::IdReused);
        assert_eq!(take(store, &tenant(), &crm(), "msg_2", &other).await.unwrap(), Taken::Recorded);
        let erp = DestinationId::parse("erp").unwrap();
        assert_eq!(take(store, &tenant(), &erp, "msg_1", &other).await.unwrap(), Taken::Recorded);
        assert_eq!(bench.drain(AUDIT).await.len(), 3);
    }

    #[tokio::test]
    async fn a_transfer_that_nobody_knows_is_not_recorded() {
        let bench = bench().await;
        let said = parsed(&SAID.replace("xfer_1", "xfer_2")).unwrap();
        assert_eq!(take(&bench.store, &tenant(), &crm(), "m", &said).await.unwrap(), Taken::UnknownTransfer);
        assert_eq!(bench.drain(AUDIT).await.len(), 0);
    }

    #[tokio::test]
    async fn the_trail_verifies_with_what_came_after_the_close() {
        let bench = bench().await;
        let entry = |pseq, kind: &str, body| {
            AuditMessage::plain(AuditEntry {
                tenant: tenant(),
                chain: ChainId::of(&call()),
                producer: ProducerId::parse("edge-1").unwrap(),
                pseq,
                kind: kind.to_owned(),
                occurred_at: bench.store.wall(),
                actor: Actor::system("edge-1"),
                body,
                sealed: None,
                refs: None,
            })
        };
        let ended = entry(0, "call.ended", json!({"cause": "normal", "side": "caller"}));
        bench.store.append(ended).await.unwrap();
        bench.store.append(entry(1, "producer.final", json!({"count": 2}))).await.unwrap();
        assert_eq!(bench.store.close_complete().await.unwrap(), [call()]);
        take(&bench.store, &tenant(), &crm(), "msg_1", &parsed(SAID).unwrap()).await.unwrap();
        let entries = bench.drain(AUDIT).await;
        write_audit::handle(&bench.store, &entries[0].body).await.unwrap();
        let report = verify_store(bench.store.dir(), None);
        let broken = |class| matches!(class, Class::Tamper | Class::Incomplete | Class::Policy);
        assert!(!report.findings.iter().any(|found| broken(found.class)), "{:?}", report.findings);
    }

    #[test]
    fn the_member_that_is_wrong_is_named_and_its_value_is_not() {
        for (text, member) in [
            ("{}", "transfer_id"),
            (r#"{"transfer_id":7,"code":"a","resolved":true}"#, "transfer_id"),
            (r#"{"transfer_id":"xfer_1","resolved":true}"#, "code"),
            (r#"{"transfer_id":"xfer_1","code":"she said so","resolved":true}"#, "code"),
            (r#"{"transfer_id":"xfer_1","code":"","resolved":true}"#, "code"),
            (r#"{"transfer_id":"xfer_1","code":"a"}"#, "resolved"),
            (r#"{"transfer_id":"xfer_1","code":"a","resolved":"yes"}"#, "resolved"),
            (r#"{"transfer_id":"xfer_1","code":"a","resolved":true,"case_id":7}"#, "case_id"),
            (r#"{"transfer_id":"xfer_1","code":"a","resolved":true,"acw_s":-1}"#, "acw_s"),
            (r#"{"transfer_id":"xfer_1","code":"a","resolved":true,"acw_s":1.5}"#, "acw_s"),
            (r#"{"transfer_id":"xfer_1","code":"a","resolved":true,"acw_s":28801}"#, "acw_s"),
        ] {
            let fault = parsed(text).unwrap_err();
            assert_eq!(fault.member, member, "{text}");
            assert!(!fault.to_string().contains("she"), "{fault}");
        }
        let least = parsed(r#"{"transfer_id":"xfer_1","code":"a","resolved":true,"acw_s":null}"#).unwrap();
        assert_eq!(least.body(), json!({"transfer_id": "xfer_1", "code": "a", "resolved": true}));
    }
}
