//! What a handler needs from the world, one small trait per verb. Handlers are generic over
//! these; the embedded store implements them in `sqlite`, and nothing else is assumed.
//! Every effect behind a port carries a deterministic id, so that doing it twice is safe.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use handoff::audit::{AuditMessage, AuditRecord, Hash};
use handoff::checkpoint::Leaf;
use handoff::checkpoint::keyring::NoteKey;
use handoff::clock::{Day, Now, Timestamp};
use handoff::delivery::AttemptResult;
use handoff::id::{CallId, DestinationId, PayloadId, TenantId};
use handoff::policy::Policy;
use handoff::seal::DataKey;

/// Signals that can trigger, to evaluate-trigger.
pub const SIGNALS: &str = "signals";
/// Decisions to transfer, to build-payload.
pub const DECISIONS: &str = "decisions";
/// Webhooks that a person waits for, to send-webhook.
pub const WEBHOOKS_LIVE: &str = "webhooks-live";
/// Webhooks that must arrive some time, to send-webhook.
pub const WEBHOOKS_DURABLE: &str = "webhooks-durable";
/// Audit entries, to write-audit; the only queue in which order matters.
pub const AUDIT: &str = "audit.fifo";
/// Permanently bad records, for an operator.
pub const PARKED: &str = "parked";
/// First part of the name of an edge's command queue.
pub const COMMANDS_PREFIX: &str = "commands-";

/// A port could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// It may work later: throttled, locked, full, timed out.
    #[error("temporarily unavailable: {0}")]
    Transient(String),
    /// It will never work with this input.
    #[error("refused for good: {0}")]
    Permanent(String),
}

/// A message on its way into a queue.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The queue's name (or URL).
    pub queue: String,
    /// The call that it is about; a chain is closed only when no message of its call is left.
    pub call: Option<CallId>,
    /// The content.
    pub body: Vec<u8>,
    /// Order is kept within a group, in queues that keep order.
    pub group: Option<String>,
    /// A second message with the same id is dropped, in queues that deduplicate.
    pub dedup: Option<String>,
    /// Not before this has passed.
    pub delay: Duration,
}

impl Outgoing {
    /// A message about `call`, at once and without order.
    pub fn to(queue: &str, call: &CallId, body: Vec<u8>) -> Self {
        Self {
            queue: queue.to_owned(),
            call: Some(call.clone()),
            body,
            group: None,
            dedup: None,
            delay: Duration::ZERO,
        }
    }

    /// An audit entry on its way to the ledger, in the order of its chain.
    pub fn audit(message: &AuditMessage) -> Result<Self, PortError> {
        let dedup = message.entry.deduplication_id().map_err(|e| PortError::Permanent(e.to_string()))?;
        Ok(Self {
            queue: AUDIT.to_owned(),
            call: message.entry.chain.call(),
            body: message.to_json(),
            group: Some(message.entry.chain.to_string()),
            dedup: Some(dedup),
            delay: Duration::ZERO,
        })
    }
}

/// Says where it goes, never what is in it: bodies are personal.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({} bytes to {})", self.body.len(), self.queue)
    }
}

/// Puts messages into queues: all of them or none.
pub trait Enqueue {
    /// Returns when they are durable.
    fn enqueue(&self, messages: Vec<Outgoing>) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// What became of an audit entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// Recorded, in its own chain or, after the close, in the side chain.
    Recorded {
        /// Under this number.
        seq: u64,
        /// In the side chain.
        late: bool,
    },
    /// It was there already.
    Duplicate {
        /// Under this number.
        seq: u64,
    },
    /// Another event is there under the same producer and number.
    Conflict {
        /// Under this number.
        seq: u64,
    },
}

/// Writes to the ledger. The only port that assigns sequence numbers and hashes.
pub trait AppendAudit {
    /// Appends one entry.
    fn append(&self, message: AuditMessage) -> impl Future<Output = Result<AuditOutcome, PortError>> + Send;

    /// Closes the chains that are complete: every stream producer has ended, all its entries
    /// are there and no message of the call is left; or the call ended too long ago to wait
    /// any longer. Returns the calls whose chains were closed.
    fn close_complete(&self) -> impl Future<Output = Result<Vec<CallId>, PortError>> + Send;
}

/// A chain's end as a payload cites it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CitedHead {
    /// Number of the last record; 0 where there is none yet.
    pub seq: u64,
    /// Its hash, hexadecimal.
    pub hash: String,
}

/// Reads from the ledger.
pub trait ReadAudit {
    /// The end of a call's chain.
    fn head(
        &self,
        tenant: &TenantId,
        call: &CallId,
    ) -> impl Future<Output = Result<CitedHead, PortError>> + Send;
}

/// One revision of a payload as it is stored: canonical bytes, frozen.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredPayload {
    /// Whose.
    pub tenant: TenantId,
    /// Of which call; its data key seals the bytes.
    pub call: CallId,
    /// Which payload.
    pub payload: PayloadId,
    /// From 1; the edge's own.
    pub revision: u32,
    /// The canonical bytes.
    pub bytes: Vec<u8>,
}

/// Stores payloads.
pub trait PutPayload {
    /// Stores a revision unless it exists, and returns the bytes that are stored: a second
    /// build of the same revision gets those of the first.
    fn put_payload(&self, payload: StoredPayload) -> impl Future<Output = Result<Vec<u8>, PortError>> + Send;
}

/// Reads payloads.
pub trait GetPayload {
    /// A revision, or the highest where none is named.
    fn payload(
        &self,
        tenant: &TenantId,
        payload: &PayloadId,
        revision: Option<u32>,
    ) -> impl Future<Output = Result<Option<StoredPayload>, PortError>> + Send;
}

/// Stores the transcript that a payload links to.
pub trait PutTranscript {
    /// Stores it, replacing an earlier one of the same call.
    fn put_transcript(
        &self,
        tenant: &TenantId,
        call: &CallId,
        text: Vec<u8>,
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// Reads transcripts. Whoever calls this records the access first.
pub trait GetTranscript {
    /// The transcript, while its key exists.
    fn transcript(
        &self,
        tenant: &TenantId,
        call: &CallId,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, PortError>> + Send;
}

/// Claims a name once.
pub trait ClaimOnce {
    /// `true` for the first owner, every time it asks; `false` for all others.
    fn claim(&self, name: &str, owner: &str) -> impl Future<Output = Result<bool, PortError>> + Send;
}

/// Data keys of calls.
pub trait Keys {
    /// The call's key; made where there is none. An error where it is destroyed.
    fn data_key(
        &self,
        tenant: &TenantId,
        call: &CallId,
    ) -> impl Future<Output = Result<DataKey, PortError>> + Send;

    /// Destroys the call's keys and returns their ids: what they sealed is gone.
    fn destroy(
        &self,
        tenant: &TenantId,
        call: &CallId,
    ) -> impl Future<Output = Result<Vec<String>, PortError>> + Send;
}

/// Policies by version.
pub trait Policies {
    /// The policy of a version that some running call may be pinned to.
    fn policy(&self, version: &str) -> Option<Arc<Policy>>;
}

/// The newest checkpoint of a log, as far as the next one needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheckpoint {
    /// The signed note.
    pub note: String,
    /// The frontier of the tree, the largest subtree first: checked against the note's root.
    pub peaks: Vec<Hash>,
}

/// A checkpoint to be kept, for good and where no writer of the ledger can change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCheckpoint {
    /// Whose log.
    pub tenant: TenantId,
    /// Size of the log that it extends; 0 for the first.
    pub previous: u64,
    /// Leaves of the log up to and with this checkpoint: its name within the log.
    pub size: u64,
    /// The signed note.
    pub note: String,
    /// What came into the log with this checkpoint.
    pub leaves: Vec<Leaf>,
    /// The frontier of the tree at this size.
    pub peaks: Vec<Hash>,
}

/// Reads the ends of chains for the checkpointer.
pub trait ReadHeads {
    /// Ends of chains that no checkpoint holds yet, at most `max` of them. One that was
    /// marked and has moved since comes again.
    fn unsigned_heads(
        &self,
        tenant: &TenantId,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Leaf>, PortError>> + Send;

    /// The checkpoint of `size` leaves holds these. Where that is forgotten they come again,
    /// which costs leaves and harms nothing.
    fn mark_signed(
        &self,
        tenant: &TenantId,
        leaves: Vec<Leaf>,
        size: u64,
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// Keeps checkpoints.
pub trait Checkpoints {
    /// The newest checkpoint of a tenant's log.
    fn last(
        &self,
        tenant: &TenantId,
    ) -> impl Future<Output = Result<Option<LastCheckpoint>, PortError>> + Send;

    /// Keeps a checkpoint, leaves before note: what has no note was never made. Never
    /// replaces one; where the log is no longer `previous` leaves long, that is a transient
    /// error, because the next attempt begins from what is there.
    fn put(&self, checkpoint: NewCheckpoint) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// Signs notes: Ed25519 (RFC 8032) over the text itself, not over a digest of it.
pub trait SignNote {
    /// The public key, under the name of the tenant's log.
    fn note_key(&self, tenant: &TenantId) -> impl Future<Output = Result<NoteKey, PortError>> + Send;

    /// The signature of `text`.
    fn sign(&self, text: String) -> impl Future<Output = Result<[u8; 64], PortError>> + Send;
}

/// The two clocks.
pub trait Clock {
    /// Wall time.
    fn wall(&self) -> Timestamp;
    /// Monotonic time.
    fn now(&self) -> Now;

    /// Resolves at `at` of the monotonic clock.
    fn sleep_until(&self, at: Now) -> impl Future<Output = ()> + Send;
}

/// One signed request.
#[derive(Clone)]
pub struct WebhookRequest {
    /// To whom.
    pub destination: DestinationId,
    /// Message id, the receiver's idempotency key.
    pub id: String,
    /// Frozen body.
    pub body: Vec<u8>,
    /// Longest wait for the connection.
    pub connect_timeout: Duration,
    /// Longest duration in all.
    pub timeout: Duration,
}

/// What the receiver answered, as far as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookAnswer {
    /// For the retry policy.
    pub result: AttemptResult,
    /// The body said `{"popped": true}`.
    pub popped: bool,
    /// SHA-256 of the body, hexadecimal; the body itself is not kept.
    pub response_sha256: Option<String>,
}

/// Sends webhooks.
pub trait SendWebhook {
    /// One try. Never an error: what went wrong is a result that the retry policy judges.
    fn send(&self, request: WebhookRequest) -> impl Future<Output = WebhookAnswer> + Send;
}

/// The state of one message to one destination, for reports and for the retry schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryState {
    /// Message id.
    pub message_id: String,
    /// To whom.
    pub destination: String,
    /// CloudEvents type.
    pub kind: String,
    /// Of which call.
    pub call: CallId,
    /// Tries so far, over both lanes.
    pub attempts: u32,
    /// Failed tries in the durable lane.
    pub durable_failed: u32,
    /// Status of the last answer.
    pub status: Option<u16>,
    /// `pending`, `delivered`, `failed`.
    pub state: String,
}

/// Remembers deliveries.
pub trait Deliveries {
    /// What is known of a message to a destination.
    fn delivery(
        &self,
        message_id: &str,
        destination: &str,
    ) -> impl Future<Output = Result<Option<DeliveryState>, PortError>> + Send;

    /// Replaces what is known.
    fn note_delivery(&self, state: DeliveryState) -> impl Future<Output = Result<(), PortError>> + Send;

    /// A destination that answered "gone" takes nothing any more.
    fn disable(&self, destination: &str) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Whether a destination is disabled.
    fn is_disabled(&self, destination: &str) -> impl Future<Output = Result<bool, PortError>> + Send;
}

/// Reads what the ledger holds of a call.
pub trait ReadRecords {
    /// Every record of the call's chain in its order, then those of its side chain. A record
    /// that no longer parses is left out: that it does not is the verifier's finding. Empty
    /// where nothing was recorded.
    fn records(
        &self,
        tenant: &TenantId,
        call: &CallId,
    ) -> impl Future<Output = Result<Vec<AuditRecord>, PortError>> + Send;
}

/// What is kept of a transfer (or of a call without one) for the measures, under its tenant,
/// the day on which its call began, and its key. It holds ids, numbers and the pseudonym of
/// the caller, like the chain it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Whose.
    pub tenant: TenantId,
    /// The call's first day.
    pub day: Day,
    /// The transfer's id; the call's id where it had no transfer.
    pub key: String,
    /// The row as JSON, at most a few kilobytes.
    pub body: Vec<u8>,
}

/// Keeps rows of measures.
pub trait PutRow {
    /// Stores a row, replacing the one under the same tenant, day and key.
    fn put_row(&self, row: StoredRow) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// Reads rows of measures.
pub trait ReadRows {
    /// All rows of one tenant and day, in the order of their keys.
    fn rows(
        &self,
        tenant: &TenantId,
        day: Day,
    ) -> impl Future<Output = Result<Vec<StoredRow>, PortError>> + Send;
}
