//! The record of something that is taken out of the store: stored before a byte leaves.

use functions::sqlite;
use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId};
use handoff::id::{CallId, TenantId};
use serde_json::json;

/// An export of `object` by `actor`. Each export is a job of its own: a second one is not a
/// repeat.
pub(super) fn entry(
    tenant: &TenantId,
    call: &CallId,
    actor: &str,
    object: &str,
    fields: &[String],
) -> AuditMessage {
    let at = sqlite::wall_clock();
    let job = format!("{call}:{object}:{}:{}", at.unix_millis(), std::process::id());
    AuditMessage::plain(AuditEntry {
        tenant: tenant.clone(),
        chain: ChainId::of(call),
        producer: ProducerId::job(object, &job, 1),
        pseq: 0,
        kind: "record.exported".to_owned(),
        occurred_at: at,
        actor: Actor::system("command_line"),
        body: json!({"actor": actor, "role": "operator", "purpose": "export", "object": object,
            "fields": fields}),
        sealed: None,
        refs: None,
    })
}
