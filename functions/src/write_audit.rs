//! `write-audit`: the one writer that assigns sequence numbers and hashes. An entry that is
//! there already is a success; another event under the same number is an alarm and is
//! parked, never stored. It interprets no body.

use handoff::audit::AuditMessage;

use crate::batch::{Failure, Handled};
use crate::ports::{AppendAudit, AuditOutcome};

/// Handles one entry of the queue `audit.fifo`.
pub async fn handle<S: AppendAudit>(store: &S, body: &[u8]) -> Result<Handled, Failure> {
    let message = AuditMessage::from_json(body).map_err(Failure::permanent)?;
    let (chain, producer, pseq) =
        (message.entry.chain.clone(), message.entry.producer.clone(), message.entry.pseq);
    match store.append(message).await? {
        AuditOutcome::Recorded { .. } | AuditOutcome::Duplicate { .. } => Ok(Handled::Done),
        AuditOutcome::Conflict { seq } => {
            tracing::error!(%chain, %producer, pseq, seq, "conflicting duplicate of an audit entry");
            Err(Failure::permanent("another event is recorded under this producer and number"))
        }
    }
}
