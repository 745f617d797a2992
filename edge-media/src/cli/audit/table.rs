//! `warmbridge audit … --dynamodb TABLE`: the same answers from the tables of a deployed stack.

use std::process::ExitCode;

use functions::aws::Cloud;
use functions::aws::erase::{Deed, Request};
use functions::aws::names::Names;
use functions::aws::read::TableReader;
use functions::ports::PortError;
use handoff::audit::verify::Report;
use handoff::id::{CallId, TenantId};

use super::{Ground, Hold, UNREADABLE, What, done, export, list, retention, show, verdict};
use crate::cli::account;

/// Carries out one command over `table` and its siblings.
pub(in crate::cli) async fn run(table: String, as_json: bool, what: What) -> anyhow::Result<ExitCode> {
    let reader = TableReader::open(&table).await;
    Ok(carried_out(&reader, &table, as_json, what).await.unwrap_or_else(|error| {
        verdict(&Report::unreadable(&format!("{table}: {error}")), as_json);
        ExitCode::from(UNREADABLE)
    }))
}

async fn carried_out(
    reader: &TableReader,
    table: &str,
    as_json: bool,
    what: What,
) -> Result<ExitCode, PortError> {
    let refused = |why: &str| Err(PortError::Permanent(why.to_owned()));
    Ok(match what {
        What::List => list(reader.list().await?, as_json),
        What::Show { call } => show(reader.show(&call).await?, as_json),
        What::Verify { call, bundle: None, witness } => {
            let witness = witness.read().map_err(PortError::Permanent)?;
            verdict(&reader.verify_with(call.as_deref(), &witness).await?, as_json)
        }
        What::Verify { bundle: Some(_), .. } => {
            return refused("a bundle is a file: leave --dynamodb out");
        }
        What::Export { call } => export(&reader.export(&call).await?),
        What::Erase { call, ground } => deed(reader, table, &call, Deed::Erase, ground).await?,
        What::Hold { what: Hold::Place { call, ground } } => {
            deed(reader, table, &call, Deed::PlaceHold, ground).await?
        }
        What::Hold { what: Hold::Release { call, ground } } => {
            deed(reader, table, &call, Deed::ReleaseHold, ground).await?
        }
        What::Retention { call: None } => retention(None, as_json),
        What::Retention { call: Some(call) } => retention(Some(reader.show(&call).await?), as_json),
        What::Checkpoint { .. } => {
            return refused("the stack signs its own: invoke its function WriteAuditCheckpoint");
        }
    })
}

/// Erases or holds with the rights of whoever runs the command; the record follows through the
/// stack's queue.
async fn deed(
    reader: &TableReader,
    table: &str,
    call: &str,
    deed: Deed,
    ground: Ground,
) -> Result<ExitCode, PortError> {
    let chain = reader.list().await?.into_iter().find(|chain| chain.chain == call);
    let tenant = chain.and_then(|chain| TenantId::parse(&chain.tenant).ok());
    let (Some(tenant), Ok(call)) = (tenant, CallId::parse(call)) else {
        return Ok(done(deed, Err("the table holds no such call")));
    };
    let Some(stack) = table.strip_suffix("-audit") else {
        return Ok(done(deed, Err("the table is not called STACK-audit")));
    };
    let cloud = Cloud::connect(Names::of_audit_table(table)).await.with_audit_queue(stack).await?;
    let actor = ground.actor.unwrap_or_else(account);
    Ok(done(deed, cloud.carry_out(&Request { deed, tenant, call, basis: ground.basis, actor }).await))
}
