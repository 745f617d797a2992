//! `warmbridge audit`: the trail as a person reads it, and the verdict on it. The exit codes
//! of `verify` are a contract: 0 verified, 1 tampered, 2 incomplete, 3 policy, 4 unreadable.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use functions::audit_read::{Reader, Witness, verify_bundle};
use functions::local::checkpointer::make_outside;
use functions::sqlite::StoreError;
use handoff::audit::verify::Report;
use handoff::audit::verify::checkpoints::TrailPolicy;
use serde_json::json;

use super::print_line;
use crate::config::within;

/// Exit code for a store that cannot be read.
const UNREADABLE: u8 = 4;

/// What to do with the trail.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// One line a call, newest first.
    List,
    /// Every record of one call.
    Show {
        /// The call.
        call: String,
    },
    /// The verdict on one call, or on all.
    Verify {
        /// The call; all where it is left out.
        call: Option<String>,
        /// Verifies an exported bundle instead of the store.
        #[arg(long, value_name = "FILE", conflicts_with = "call")]
        bundle: Option<PathBuf>,
        /// The folder of signed checkpoints: with it, rewritten and missing calls are found.
        #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
        checkpoints: Option<PathBuf>,
        /// The keyring to go by instead of the folder's own.
        #[arg(long, value_name = "FILE", requires = "checkpoints")]
        keyring: Option<PathBuf>,
        /// What is asked of the trail: `[checkpoints] required = true, every_s = 3600`.
        #[arg(long, value_name = "FILE", conflicts_with = "bundle")]
        policy: Option<PathBuf>,
    },
    /// Sign what moved since the last checkpoint, now; the edge may be running.
    Checkpoint {
        /// The folder of signed checkpoints, outside the data directory.
        #[arg(long, value_name = "DIR")]
        checkpoints: PathBuf,
    },
    /// One call as a bundle: one canonical record a line, byte for byte.
    Export {
        /// The call.
        call: String,
    },
}

pub(super) fn run(data: &Path, as_json: bool, what: What) -> ExitCode {
    let done = match what {
        What::Verify { bundle: Some(bundle), .. } => Ok(verdict(&verify_bundle(&bundle), as_json)),
        What::Verify { call, bundle: None, checkpoints, keyring, policy } => {
            let policy = match policy.as_deref().map(asked).transpose() {
                Ok(policy) => policy.unwrap_or_default(),
                Err(why) => return verdict(&Report::unreadable(&why), as_json),
            };
            let witness = Witness { checkpoints, keyring, policy };
            let verified =
                Reader::open(data).and_then(|reader| reader.verify_with(call.as_deref(), &witness));
            verified.map(|report| verdict(&report, as_json))
        }
        What::Checkpoint { checkpoints } => checkpoint(data, &checkpoints, as_json),
        What::List => Reader::open(data).and_then(|reader| list(&reader, as_json)),
        What::Show { call } => Reader::open(data).and_then(|reader| show(&reader, &call, as_json)),
        What::Export { call } => Reader::open(data).and_then(|reader| export(&reader, &call)),
    };
    done.unwrap_or_else(|error| {
        verdict(&Report::unreadable(&format!("{}: {error}", data.display())), as_json);
        ExitCode::from(UNREADABLE)
    })
}

/// What a policy file asks of the trail.
fn asked(file: &Path) -> Result<TrailPolicy, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    text.and_then(|text| TrailPolicy::parse(&text)).map_err(|why| format!("{}: {why}", file.display()))
}

fn checkpoint(data: &Path, folder: &Path, as_json: bool) -> Result<ExitCode, StoreError> {
    if within(folder, data) {
        print_line(
            "the checkpoints lie inside the data directory: whoever can change the records could change them too",
        );
        return Ok(ExitCode::FAILURE);
    }
    let made = super::blocking(make_outside(data, folder))?;
    if as_json {
        let line = json!({"checkpoints": made.checkpoints, "leaves": made.leaves, "size": made.size});
        print_line(&line.to_string());
    } else if made.checkpoints == 0 {
        print_line("nothing moved since the last checkpoint");
    } else {
        print_line(&format!("signed {} chains; the log has {} leaves", made.leaves, made.size));
    }
    Ok(ExitCode::SUCCESS)
}

fn verdict(report: &Report, as_json: bool) -> ExitCode {
    print_report(report, as_json);
    ExitCode::from(report.exit_code())
}

fn list(reader: &Reader, as_json: bool) -> Result<ExitCode, StoreError> {
    for chain in reader.list()? {
        if as_json {
            let line = json!({"chain": chain.chain, "records": chain.records, "state": chain.state,
                "began": chain.started_at});
            print_line(&line.to_string());
        } else {
            print_line(&format!(
                "{}  {:<38} {:>4} records  {}",
                chain.started_at, chain.chain, chain.records, chain.state
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(reader: &Reader, call: &str, as_json: bool) -> Result<ExitCode, StoreError> {
    let records = reader.show(call)?;
    if records.is_empty() {
        print_line("the store holds no such call; `warmbridge audit list` names those it holds");
        return Ok(ExitCode::from(UNREADABLE));
    }
    for record in records {
        if as_json {
            let line = json!({"chain": record.chain, "seq": record.seq, "type": record.kind,
                "occurred_at": record.occurred_at, "actor": record.actor, "body": record.body,
                "text": record.text});
            print_line(&line.to_string());
        } else {
            print_line(&record.line());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn export(reader: &Reader, call: &str) -> Result<ExitCode, StoreError> {
    let bundle = reader.export(call)?;
    if bundle.jsonl.is_empty() {
        print_line("the store holds no such call; `warmbridge audit list` names those it holds");
        return Ok(ExitCode::from(UNREADABLE));
    }
    // A closed pipe ends the output.
    let _ = std::io::stdout().lock().write_all(&bundle.jsonl);
    Ok(ExitCode::SUCCESS)
}

fn print_report(report: &Report, as_json: bool) {
    if as_json {
        let mut value = json!(report);
        if let Some(members) = value.as_object_mut() {
            members.insert("exit_code".to_owned(), json!(report.exit_code()));
        }
        return print_line(&value.to_string());
    }
    for finding in &report.findings {
        let record = finding.seq.map(|seq| format!(" record {seq}")).unwrap_or_default();
        let class = json!(finding.class);
        let class = class.as_str().unwrap_or_default();
        print_line(&format!("{class}: {}{record}: {}", finding.chain, finding.text));
    }
    for note in &report.notes {
        print_line(&format!("note: {note}"));
    }
    let verdict = if report.is_verified() { "verified" } else { "NOT verified" };
    print_line(&format!("{verdict}: {} calls, {} records", report.chains, report.records));
}
