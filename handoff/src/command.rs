//! What the edge can be told by the cloud. Commands are idempotent by id, applied when
//! they fit the state of their call, and refused (and recorded) when stale. There is no
//! command that bridges, dials a number or plays a given text.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{CallId, TransferId};
use crate::payload::Payload;
use crate::policy::Decision;

/// One command for one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Idempotency key, derived from what caused it.
    pub id: String,
    /// Which call.
    pub call_id: CallId,
    /// The order.
    pub body: CommandBody,
}

/// The orders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum CommandBody {
    /// A policy decided to transfer.
    #[serde(rename = "transfer.decided")]
    TransferDecided {
        /// The decision.
        decision: Decision,
    },
    /// A payload revision is ready.
    #[serde(rename = "payload.ready")]
    PayloadReady {
        /// Which transfer.
        transfer_id: TransferId,
        /// The whole payload.
        payload: Box<Payload>,
    },
    /// A destination that the queue names has the payload.
    #[serde(rename = "payload.acknowledged")]
    PayloadAcknowledged {
        /// Which transfer.
        transfer_id: TransferId,
        /// The destination's id.
        destination: String,
        /// The revision it has.
        revision: u32,
        /// When, by the function's clock.
        at: Timestamp,
    },
    /// A destination missed its budget.
    #[serde(rename = "payload.undelivered")]
    PayloadUndelivered {
        /// Which transfer.
        transfer_id: TransferId,
        /// The destination's id.
        destination: String,
    },
    /// Stop the transfer; the caller goes back to the voice agent.
    #[serde(rename = "transfer.cancel")]
    TransferCancel {
        /// Which transfer.
        transfer_id: TransferId,
    },
}
