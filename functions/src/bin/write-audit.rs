//! The function `write-audit`, once for each task: `append` records what its queue brings,
//! `close` ends the chains of calls that are over, `checkpoint` signs what moved,
//! `watch` tells of rows that somebody changed, `erase` destroys the keys of a call when it is
//! asked to, `archive` locks closed chains away, and `expire` ends calls whose time is up. Each
//! is deployed with a role of its own.

use functions::aws::erase::Request;
use functions::aws::lambda::{Function, begin, serve, trace_of};
use functions::aws::ledger::CLOSE_AFTER_MS;
use functions::batch::Failure;
use functions::clock::SystemClock;
use functions::invocation::{answer, batch_in};
use functions::ports::{AUDIT, Clock};
use functions::tamper_watch::StreamOfRecords;
use functions::write_audit;
use handoff::audit::AuditMessage;
use handoff::audit::retention::RetentionClass;
use handoff::audit::verify::OPEN_MAX_MS;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let function = begin("write-audit", AUDIT).await;
    let task = std::env::var("WB_TASK").unwrap_or_default();
    serve(async |event| match task.as_str() {
        "append" => append(&function, event).await,
        "close" => close(&function).await,
        "checkpoint" => checkpoint(&function).await,
        "watch" => watch(&function, event),
        "erase" => erase(&function, event).await,
        "archive" => archive(&function).await,
        "expire" => expire(&function).await,
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
    let open = function.cloud.open_before(OPEN_MAX_MS).await?;
    function.figure("chains_open_too_long", open);
    Ok(json!({"closed": closed.len(), "open_too_long": open}))
}

/// The classes by which the stack keeps its records, and whether their lock holds for everybody.
fn retention() -> Result<(Vec<RetentionClass>, bool), Failure> {
    let names = std::env::var("WB_RETENTION").unwrap_or_default();
    let classes = names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(|name| {
        let class = RetentionClass::named(name);
        class.ok_or_else(|| Failure::permanent(&format!("WB_RETENTION: there is no class {name}")))
    });
    let classes: Vec<_> = classes.collect::<Result<_, _>>()?;
    if classes.is_empty() {
        return Err(Failure::permanent("WB_RETENTION names no class"));
    }
    Ok((classes, std::env::var("WB_LOCK").is_ok_and(|lock| lock == "COMPLIANCE")))
}

async fn archive(function: &Function) -> Result<Value, Failure> {
    let (classes, compliance) = retention()?;
    let made = function.cloud.archive(&classes, compliance).await?;
    function.figure("chains_unverified", made.unverified);
    Ok(json!({"archived": made.archived, "waiting": made.waiting, "unverified": made.unverified}))
}

async fn expire(function: &Function) -> Result<Value, Failure> {
    let (classes, compliance) = retention()?;
    let swept = function.cloud.expire(&classes, compliance, SystemClock::start().wall()).await?;
    function.figure("chains_unverified", swept.unverified);
    Ok(json!({"told": swept.told, "expired": swept.expired, "forgotten": swept.forgotten,
        "locked": swept.locked, "held": swept.held, "longer": swept.longer,
        "unarchived": swept.unarchived, "unverified": swept.unverified}))
}

async fn checkpoint(function: &Function) -> Result<Value, Failure> {
    let made = function.cloud.checkpoint(SystemClock::start()).await?;
    Ok(json!({"checkpoints": made.checkpoints, "leaves": made.leaves, "size": made.size}))
}

/// Invoked by hand, with a request and nobody's batch.
async fn erase(function: &Function, event: Value) -> Result<Value, Failure> {
    let request = serde_json::from_value(event);
    let request: Request =
        request.map_err(|_| Failure::permanent("the invocation is not a request to erase"))?;
    tracing::info!(call_id = %request.call, trace_id = trace_of(&request.call), deed = ?request.deed, "asked");
    Ok(json!({"destroyed": function.cloud.carry_out(&request).await?}))
}

fn watch(function: &Function, event: Value) -> Result<Value, Failure> {
    let stream = serde_json::from_value::<StreamOfRecords>(event);
    let stream = stream.map_err(|_| Failure::permanent("the invocation is not a batch of a stream"))?;
    let tampering = stream.tampering();
    for row in &tampering {
        tracing::error!(
            chain = row.chain,
            record = row.record,
            what = row.what,
            "a record was tampered with"
        );
    }
    function.figure("records_tampered", tampering.len());
    Ok(json!({"tampered": tampering.len()}))
}
