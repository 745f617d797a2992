//! `warmbridge audit … --dynamodb TABLE`: the same answers from the tables of a deployed stack.

use std::process::ExitCode;

use functions::aws::Cloud;
use functions::aws::erase::{Deed, Request};
use functions::aws::names::Names;
use functions::aws::read::TableReader;
use functions::ports::{Enqueue, Outgoing, PortError};
use functions::sqlite::wall_clock;
use handoff::audit::verify::Report;
use handoff::clock::{Day, Timestamp};
use handoff::id::{CallId, TenantId};
use serde_json::json;

use super::vcon::{Parts, VconOptions, transfers};
use super::{Ground, Hold, UNREADABLE, What, done, export, list, retention::retention, show, verdict};
use crate::cli::{account, print_line};

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
        What::Verify { call, bundle: None, witness, .. } => {
            let witness = witness.read().map_err(PortError::Permanent)?;
            verdict(&reader.verify_with(call.as_deref(), &witness).await?, as_json)
        }
        What::Verify { bundle: Some(_), .. } => {
            return refused("a bundle is a file: leave --dynamodb out");
        }
        What::Export { call, vcon } if vcon.vcon => as_vcon(reader, table, &call, &vcon).await?,
        What::Export { call, .. } => export(&reader.export(&call).await?),
        What::Feed { from } => feed(reader, from.as_deref()).await?,
        What::Erase { call, ground } => deed(reader, table, &call, Deed::Erase, ground).await?,
        What::Hold { what: Hold::Place { call, ground } } => {
            deed(reader, table, &call, Deed::PlaceHold, ground).await?
        }
        What::Hold { what: Hold::Release { call, ground } } => {
            deed(reader, table, &call, Deed::ReleaseHold, ground).await?
        }
        What::Retention { sweep, .. } if sweep.is_asked() => {
            return refused("only an embedded store is swept: leave --dynamodb out");
        }
        What::Retention { call: None, .. } => retention(None, as_json),
        What::Retention { call: Some(call), .. } => retention(Some(reader.show(&call).await?), as_json),
        What::Checkpoint { .. } => {
            return refused("the stack signs its own: invoke its function WriteAuditCheckpoint");
        }
    })
}

/// Prints the rows of every day from `from` on; of today alone where it is left out.
async fn feed(reader: &TableReader, from: Option<&str>) -> Result<ExitCode, PortError> {
    let today = Day::of(wall_clock());
    let parsed = |day: &str| Timestamp::parse(&format!("{day}T00:00:00.000Z")).map(Day::of);
    let Ok(mut day) = from.map_or(Ok(today), parsed) else {
        return Err(PortError::Permanent("--from is a day, as 2026-11-23".to_owned()));
    };
    while day <= today {
        for mut row in reader.feed(&day.to_string()).await? {
            row["cursor"] = json!(day.to_string());
            print_line(&row.to_string());
        }
        day = day.next();
    }
    Ok(ExitCode::SUCCESS)
}

/// Exports a call as a vCon; its record goes first, through the stack's queue.
async fn as_vcon(
    reader: &TableReader,
    table: &str,
    call: &str,
    options: &VconOptions,
) -> Result<ExitCode, PortError> {
    let (tenant, call, cloud) = found(reader, table, call).await?;
    let signer = options.signer().map_err(|error| PortError::Permanent(format!("{error:#}")))?;
    cloud.enqueue(vec![Outgoing::audit(&options.entry(&tenant, &call))?]).await?;
    let records = reader.records_of(&tenant, &call).await?;
    let mut payloads = Vec::new();
    for transfer in transfers(&records) {
        // Where the call was erased there is no payload to be read.
        payloads.extend(reader.payload(&tenant, &transfer).await.ok().flatten());
    }
    let shown = reader.show(call.as_str()).await?;
    let jsonl = reader.export(call.as_str()).await?.jsonl;
    let parts = Parts { tenant, call, records, shown, jsonl, payloads };
    options.print(&parts, signer.as_ref()).map_err(|error| PortError::Permanent(format!("{error:#}")))
}

/// A call, whose it is, and the stack with its way into the trail.
pub(in crate::cli) async fn found(
    reader: &TableReader,
    table: &str,
    call: &str,
) -> Result<(TenantId, CallId, Cloud), PortError> {
    let missing = |why: &str| PortError::Permanent(why.to_owned());
    let chain = reader.list().await?.into_iter().find(|chain| chain.chain == call);
    let tenant = chain.and_then(|chain| TenantId::parse(&chain.tenant).ok());
    let (Some(tenant), Ok(call)) = (tenant, CallId::parse(call)) else {
        return Err(missing("the table holds no such call"));
    };
    let stack = table.strip_suffix("-audit").ok_or_else(|| missing("the table is not called STACK-audit"))?;
    let cloud = Cloud::connect(Names::of_audit_table(table)).await.with_audit_queue(stack).await?;
    Ok((tenant, call, cloud))
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
    let (tenant, call, cloud) = match found(reader, table, call).await {
        Ok(found) => found,
        Err(PortError::Permanent(why)) => return Ok(done(deed, Err(why))),
        Err(error) => return Err(error),
    };
    let actor = ground.actor.unwrap_or_else(account);
    Ok(done(deed, cloud.carry_out(&Request { deed, tenant, call, basis: ground.basis, actor }).await))
}
