//! `build-payload`: from a decision to the card on the desk. It builds the payload from the
//! context that came with the decision, keeps it, tells the edge, and queues the webhooks
//! that carry it. It reads nothing from the call itself, so it works when the edge is busy
//! and repeats without effect.

use handoff::clock::Timestamp;
use handoff::command::{Command, CommandBody};
use handoff::delivery::Lane;
use handoff::event::WebhookKind;
use handoff::id::derived_text;
use handoff::payload::{self, BuildInput, Grants, Payload, project, thin};
use handoff::webhook::{DataSchema, Message as Webhook};
use rusqlite::params;

use crate::batch::Failure;
use crate::destinations::Destination;
use crate::jobs::{COMMANDS, Decided, Hook};
use crate::local::Settings;
use crate::sqlite::queue::{self, Message};
use crate::sqlite::{Store, StoreError};
use crate::write_audit;

/// The first revision of the functions; revision 1 is the edge's.
const REVISION: u32 = 2;

/// Handles one message of `decisions`.
pub async fn run(store: &Store, settings: &Settings, wall: Timestamp, body: &[u8]) -> Result<(), Failure> {
    let decided: Decided =
        serde_json::from_slice(body).map_err(|error| Failure::Permanent(error.to_string()))?;
    let context = decided.evaluable.context.clone().unwrap_or_default();
    let queue = settings.queues.first().map(|(id, label)| (id, label.as_str()));
    let payload = payload::build(&BuildInput {
        tenant: &decided.tenant,
        call: &decided.decision.call_id,
        transfer: &decided.decision.transfer_id,
        trigger: &decided.decision.trigger,
        policy_version: &decided.decision.policy_version,
        origin: decided.decision.origin,
        context: &context,
        catalog: &settings.catalog,
        queue,
        revision: REVISION,
        created_at: wall,
        fired_at: decided.fired_at,
        public_url: &settings.public_url,
        audit_head: None,
        classification: &[],
    });
    let mut messages = vec![command(&decided, &payload)?];
    for destination in settings.destinations.iter().filter(|known| known.wants(WebhookKind::Offered)) {
        messages.push(hook(settings, &decided, &payload, destination, wall)?);
    }
    messages.push(write_audit::payload_built(store, wall, &decided, &payload).await?);
    Ok(keep(store, wall, payload, messages).await?)
}

fn command(decided: &Decided, payload: &Payload) -> Result<Message, Failure> {
    let transfer_id = decided.decision.transfer_id.clone();
    let command = Command {
        id: derived_text(&["payload", transfer_id.as_str(), &payload.revision().to_string()]),
        call_id: decided.decision.call_id.clone(),
        body: CommandBody::PayloadReady { transfer_id, payload: Box::new(payload.clone()) },
    };
    let body = serde_json::to_vec(&command).map_err(|error| Failure::Permanent(error.to_string()))?;
    Ok(Message { dedup: Some(command.id), ..Message::plain(COMMANDS, body) })
}

fn hook(
    settings: &Settings,
    decided: &Decided,
    payload: &Payload,
    to: &Destination,
    wall: Timestamp,
) -> Result<Message, Failure> {
    let broken = |error: serde_json::Error| Failure::Permanent(error.to_string());
    let grants = Grants { pii: to.pii, phi: to.phi };
    let (schema, data) = if to.full {
        (DataSchema::Full, serde_json::to_value(project(payload, grants)).map_err(broken)?)
    } else {
        let page = format!("{}/desktop/", settings.public_url.trim_end_matches('/'));
        (DataSchema::Thin, serde_json::to_value(thin(payload, None, Some(&page), grants)).map_err(broken)?)
    };
    let transfer = &decided.decision.transfer_id;
    let webhook = Webhook {
        tenant: &decided.tenant,
        kind: WebhookKind::Offered,
        subject: transfer.as_str(),
        sequence: decided.sequence,
        time: wall,
        revision: Some(payload.revision()),
        schema,
        data,
    };
    let hook = Hook {
        tenant: decided.tenant.clone(),
        call: decided.decision.call_id.clone(),
        transfer: Some(transfer.clone()),
        destination: to.id.clone(),
        kind: WebhookKind::Offered,
        message_id: webhook.id(),
        revision: Some(payload.revision()),
        lane: Lane::of(WebhookKind::Offered),
        failed: 0,
        lane_since: wall,
        body: String::from_utf8(webhook.body()).map_err(|error| Failure::Permanent(error.to_string()))?,
    };
    hook.message(0).map_err(broken)
}

/// The payload and everything that follows from it, in one commit: after a crash there is
/// either both or nothing.
async fn keep(
    store: &Store,
    wall: Timestamp,
    payload: Payload,
    messages: Vec<Message>,
) -> Result<(), StoreError> {
    let key = std::sync::Arc::clone(store.key());
    store
        .write(move |connection| {
            let transfer = payload.transfer_id.to_string();
            let mut nonce = [0_u8; 12];
            getrandom::fill(&mut nonce).map_err(|_| StoreError::NoRandomness)?;
            let canonical =
                payload.canonical_bytes().map_err(|error| StoreError::Unreadable(error.to_string()))?;
            let body = key.seal(nonce, &transfer, &canonical);
            connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO payloads (transfer, revision, call, body) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![transfer, payload.revision(), payload.call_id.as_str(), body])?;
            queue::enqueue(connection, &key, wall, &messages)
        })
        .await
}
