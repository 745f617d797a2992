//! What travels in the queues between the edge and the functions, besides call events and
//! audit entries: versioned by their queue, closed, bounded by the payload's own limit.

use handoff::clock::Timestamp;
use handoff::delivery::Lane;
use handoff::event::{CallEvent, Evaluable, WebhookKind};
use handoff::id::{CallId, DestinationId, EdgeId, TenantId, TransferId};
use handoff::policy::Decision;
use serde::{Deserialize, Serialize};

use crate::sqlite::queue::Message;

/// Events that may trigger a transfer.
pub const SIGNALS: &str = "signals";
/// Decisions that want a payload.
pub const DECISIONS: &str = "decisions";
/// Webhooks that a person waits for.
pub const WEBHOOKS_LIVE: &str = "webhooks-live";
/// Webhooks that must arrive some day.
pub const WEBHOOKS_DURABLE: &str = "webhooks-durable";
/// Audit entries, in order within a call.
pub const AUDIT: &str = "audit.fifo";
/// Orders to the edge of this machine.
pub const COMMANDS: &str = "commands";
/// What can never succeed.
pub const PARKED: &str = "parked";

/// A decision on its way to its payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decided {
    /// Whose.
    pub tenant: TenantId,
    /// Which edge took or will take it.
    pub edge: EdgeId,
    /// The decision.
    pub decision: Decision,
    /// What it was based on, with the context of the payload.
    pub evaluable: Evaluable,
    /// When the event happened.
    pub fired_at: Timestamp,
    /// Sequence number of the event that caused it; webhooks of the payload carry it.
    pub sequence: u64,
}

/// One webhook for one destination. The body is frozen here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Whose.
    pub tenant: TenantId,
    /// The call that it is about.
    pub call: CallId,
    /// The transfer that it is about, where there is one.
    pub transfer: Option<TransferId>,
    /// Where to.
    pub destination: DestinationId,
    /// What happened.
    pub kind: WebhookKind,
    /// `webhook-id`, equal on every try.
    pub message_id: String,
    /// The payload revision in it, for the acknowledgement.
    pub revision: Option<u32>,
    /// Which lane.
    pub lane: Lane,
    /// Tries that failed in this lane.
    pub failed: u32,
    /// When this lane began, for the live budget.
    pub lane_since: Timestamp,
    /// The body, as text: JSON that is sent byte for byte.
    pub body: String,
}

impl Hook {
    /// The message that carries this webhook, due after `delay_ms`.
    pub fn message(&self, delay_ms: i64) -> Result<Message, serde_json::Error> {
        let queue = match self.lane {
            Lane::Live => WEBHOOKS_LIVE,
            Lane::Durable => WEBHOOKS_DURABLE,
        };
        let dedup =
            format!("{}:{}:{}:{}", self.message_id, self.destination, self.lane.as_str(), self.failed);
        let call = Some(self.call.to_string());
        Ok(Message { call, dedup: Some(dedup), delay_ms, ..Message::plain(queue, serde_json::to_vec(self)?) })
    }
}

/// The copy of an event for `signals`.
pub fn signal(event: &CallEvent) -> Message {
    Message {
        call: Some(event.call.to_string()),
        dedup: Some(event.id()),
        ..Message::plain(SIGNALS, event.to_json())
    }
}
