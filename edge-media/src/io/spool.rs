//! From facts to the disk: each fact becomes an audit entry with its text sealed, a copy for
//! the functions where it can trigger, and webhooks where it is part of a transfer's life.
//! All of one step go to disk in one commit. What goes wrong here never stops a call.

use std::collections::BTreeMap;

use functions::destinations::Destination;
use functions::jobs::{self, DECISIONS, Decided, Hook};
use functions::sqlite::queue::{self, Message};
use functions::sqlite::{Store, StoreError, keys};
use functions::write_audit;
use handoff::audit::entry::entry_of;
use handoff::audit::{AuditMessage, ProducerId};
use handoff::clock::Timestamp;
use handoff::delivery::Lane;
use handoff::event::{CallEvent, Evaluable, WebhookKind, webhook_of};
use handoff::id::{CallId, EdgeId, TenantId, TransferId};
use handoff::policy::Decision;
use handoff::seal::{DataKey, SealKey};
use handoff::webhook::{DataSchema, Message as Webhook};
use serde_json::json;
use tokio::sync::oneshot;
use tracing::error;

/// The spool of one edge.
#[derive(Debug)]
pub struct Spool {
    store: Store,
    tenant: TenantId,
    edge: EdgeId,
    destinations: Vec<Destination>,
    calls: BTreeMap<CallId, Open>,
    rows: Vec<Message>,
    new_keys: Vec<(CallId, DataKey, [u8; 12])>,
    now: Timestamp,
}

/// What the spool keeps of a running call.
#[derive(Debug)]
struct Open {
    dek: DataKey,
    transfer: Option<TransferId>,
    accesses: u32,
}

impl Spool {
    /// A spool into `store`, with webhooks for `destinations`.
    pub fn new(store: Store, tenant: TenantId, edge: EdgeId, destinations: Vec<Destination>) -> Self {
        Self {
            store,
            tenant,
            edge,
            destinations,
            calls: BTreeMap::new(),
            rows: Vec::new(),
            new_keys: Vec::new(),
            now: Timestamp::default(),
        }
    }

    /// New receivers hold for what happens from now on.
    pub fn reload(&mut self, destinations: Vec<Destination>) {
        self.destinations = destinations;
    }

    /// Takes a fact; it goes to disk with the next [`Self::flush`].
    pub fn push(&mut self, event: CallEvent) {
        self.now = event.time;
        let Some(nonce) = random::<12>() else { return };
        let Some(open) = self.open(&event.call) else { return };
        if let handoff::event::Fact::TransferDecided { decision, .. } = &event.fact {
            open.transfer = Some(decision.transfer_id.clone());
        }
        let transfer = open.transfer.clone();
        let entry = entry_of(&event, &open.dek, nonce);
        self.entry(&entry);
        if event.evaluable.is_some() {
            self.rows.push(jobs::signal(&event));
        }
        if let Some(kind) = webhook_of(&event) {
            self.webhooks(&event, kind, transfer, &entry);
        }
    }

    /// Takes the edge's own decision, so that the payload follows when the functions are back.
    pub fn push_decision(&mut self, evaluable: Evaluable, decision: Decision, sequence: u64) {
        let decided = Decided {
            tenant: self.tenant.clone(),
            edge: self.edge.clone(),
            fired_at: self.now,
            sequence,
            decision,
            evaluable,
        };
        match serde_json::to_vec(&decided) {
            Ok(body) => self.rows.push(Message {
                call: Some(decided.decision.call_id.to_string()),
                dedup: Some(decided.decision.decision_id.to_string()),
                ..Message::plain(DECISIONS, body)
            }),
            Err(error) => error!(%error, "a decision could not be written"),
        }
    }

    /// Somebody looked at personal data of a running call.
    pub fn accessed(&mut self, call: &CallId, actor: &str, role: &str, object: &str, at: Timestamp) {
        let Some(open) = self.open(call) else { return };
        open.accesses += 1;
        let producer = ProducerId::job("api", &format!("{call}:access"), open.accesses);
        let body = json!({"actor": actor, "role": role, "purpose": "transfer", "object": object});
        let entry = write_audit::job_entry(&self.tenant, call, producer, "record.accessed", at, body);
        self.entry(&AuditMessage::plain(entry));
        // Bytes leave only when this is certain to be written: it goes to disk at once.
        drop(self.flush());
    }

    /// The call is over; its key is in the store.
    pub fn forget(&mut self, call: &CallId) {
        self.calls.remove(call);
    }

    /// Writes everything taken so far in one commit.
    pub fn flush(&mut self) -> oneshot::Receiver<Result<(), StoreError>> {
        let rows = std::mem::take(&mut self.rows);
        let new_keys = std::mem::take(&mut self.new_keys);
        let (key, tenant, now) = (std::sync::Arc::clone(self.store.key()), self.tenant.clone(), self.now);
        self.store.submit(move |connection| {
            for (call, dek, nonce) in &new_keys {
                keys::keep(connection, &key, &tenant, call, dek, *nonce)?;
            }
            queue::enqueue(connection, &key, now, &rows)
        })
    }

    fn open(&mut self, call: &CallId) -> Option<&mut Open> {
        if !self.calls.contains_key(call) {
            let dek = DataKey { id: "dek-1".to_owned(), key: SealKey::new(random::<32>()?) };
            self.new_keys.push((call.clone(), dek.clone(), random::<12>()?));
            self.calls.insert(call.clone(), Open { dek, transfer: None, accesses: 0 });
        }
        self.calls.get_mut(call)
    }

    fn entry(&mut self, entry: &AuditMessage) {
        match write_audit::message(entry) {
            Ok(message) => self.rows.push(message),
            // Our own entry breaks our own rules: a bug, and the chain shows the gap.
            Err(error) => error!(%error, kind = entry.entry.kind, "a fact could not be written"),
        }
    }

    fn webhooks(
        &mut self,
        event: &CallEvent,
        kind: WebhookKind,
        transfer: Option<TransferId>,
        entry: &AuditMessage,
    ) {
        let subject = match (kind, &transfer) {
            (WebhookKind::CallClosed, _) | (_, None) => event.call.as_str().to_owned(),
            (_, Some(transfer)) => transfer.as_str().to_owned(),
        };
        let mut data = entry.entry.body.clone();
        if let Some(members) = data.as_object_mut() {
            members.insert("tenant_id".to_owned(), json!(event.tenant));
            members.insert("call_id".to_owned(), json!(event.call));
            members.insert("transfer_id".to_owned(), json!(transfer));
        }
        let webhook = Webhook {
            tenant: &event.tenant,
            kind,
            subject: &subject,
            sequence: event.seq,
            time: event.time,
            revision: None,
            schema: DataSchema::Thin,
            data,
        };
        let message_id = webhook.id();
        let body = String::from_utf8_lossy(&webhook.body()).into_owned();
        for destination in self.destinations.iter().filter(|known| known.wants(kind)) {
            let hook = Hook {
                tenant: event.tenant.clone(),
                call: event.call.clone(),
                transfer: transfer.clone(),
                destination: destination.id.clone(),
                kind,
                message_id: message_id.clone(),
                revision: None,
                lane: Lane::of(kind),
                failed: 0,
                lane_since: event.time,
                body: body.clone(),
            };
            match hook.message(0) {
                Ok(message) => self.rows.push(message),
                Err(error) => error!(%error, "a webhook could not be written"),
            }
        }
    }
}

/// Random bytes of the operating system. Without them nothing can be sealed, and a text
/// that cannot be sealed is not written.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Some(bytes),
        Err(error) => {
            error!(%error, "the system has no randomness: a fact is lost");
            None
        }
    }
}
