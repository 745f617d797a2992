//! `warmbridge audit … --dynamodb TABLE`: the same answers from the tables of a deployed stack.

use std::process::ExitCode;

use functions::aws::read::TableReader;
use functions::ports::PortError;
use handoff::audit::verify::Report;

use super::{UNREADABLE, What, export, list, show, verdict};

/// Carries out one command over `table` and its siblings.
pub(in crate::cli) async fn run(table: String, as_json: bool, what: What) -> anyhow::Result<ExitCode> {
    let reader = TableReader::open(&table).await;
    Ok(carried_out(&reader, as_json, what).await.unwrap_or_else(|error| {
        verdict(&Report::unreadable(&format!("{table}: {error}")), as_json);
        ExitCode::from(UNREADABLE)
    }))
}

async fn carried_out(reader: &TableReader, as_json: bool, what: What) -> Result<ExitCode, PortError> {
    Ok(match what {
        What::List => list(reader.list().await?, as_json),
        What::Show { call } => show(reader.show(&call).await?, as_json),
        What::Verify { call, bundle: None } => verdict(&reader.verify(call.as_deref()).await?, as_json),
        What::Verify { bundle: Some(_), .. } => {
            return Err(PortError::Permanent("a bundle is a file: leave --dynamodb out".to_owned()));
        }
        What::Export { call } => export(&reader.export(&call).await?),
    })
}
