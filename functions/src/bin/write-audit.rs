//! The function `write-audit`, once for each task: `append` records what its queue brings,
//! `close` ends the chains of calls that are over. Each is deployed with a role of its own.

use functions::aws::lambda::{Function, answer, batch_in, begin, serve, trace_of};
use functions::aws::ledger::CLOSE_AFTER_MS;
use functions::batch::Failure;
use functions::ports::AUDIT;
use functions::write_audit;
use handoff::audit::AuditMessage;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let function = begin("write-audit", AUDIT).await;
    let task = std::env::var("WB_TASK").unwrap_or_default();
    serve(async |event| match task.as_str() {
        "append" => append(&function, event).await,
        "close" => close(&function).await,
        _ => Err(Failure::permanent("WB_TASK names no task of write-audit")),
    })
    .await
}

async fn append(function: &Function, event: Value) -> Result<Value, Failure> {
    let batch = function.batch(batch_in(event)?, async |record| {
        let body = record.body.as_bytes();
        if let Some(call) = AuditMessage::from_json(body).ok().and_then(|message| message.entry.chain.call())
        {
            tracing::info!(call_id = %call, trace_id = trace_of(&call), "audit entry");
        }
        write_audit::handle(&function.cloud, body).await
    });
    Ok(answer(&batch.await))
}

async fn close(function: &Function) -> Result<Value, Failure> {
    let grace = std::env::var("WB_CLOSE_AFTER_S").ok().and_then(|secs| secs.parse::<i64>().ok());
    let grace_ms = grace.map_or(CLOSE_AFTER_MS, |secs| secs.saturating_mul(1_000));
    let closed = function.cloud.close_after(grace_ms).await?;
    Ok(json!({"closed": closed.len()}))
}
