//! `warmbridge audit`: the trail as a person reads it, and the verdict on it. The exit codes
//! of `verify` are a contract: 0 verified, 1 tampered, 2 incomplete, 3 policy, 4 unreadable.

#[cfg(feature = "aws")]
pub(super) mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use functions::audit_read::{Bundle, Chain, Reader, Shown, verify_bundle};
use handoff::audit::verify::Report;
use serde_json::json;

use super::{UNREADABLE, print_line};

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
        What::Verify { call, bundle: None } => {
            Reader::open(data).and_then(|reader| Ok(verdict(&reader.verify(call.as_deref())?, as_json)))
        }
        What::List => Reader::open(data).and_then(|reader| Ok(list(reader.list()?, as_json))),
        What::Show { call } => Reader::open(data).and_then(|reader| Ok(show(reader.show(&call)?, as_json))),
        What::Export { call } => Reader::open(data).and_then(|reader| Ok(export(&reader.export(&call)?))),
    };
    done.unwrap_or_else(|error| {
        verdict(&Report::unreadable(&format!("{}: {error}", data.display())), as_json);
        ExitCode::from(UNREADABLE)
    })
}

fn verdict(report: &Report, as_json: bool) -> ExitCode {
    print_report(report, as_json);
    ExitCode::from(report.exit_code())
}

fn list(chains: Vec<Chain>, as_json: bool) -> ExitCode {
    for chain in chains {
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
    ExitCode::SUCCESS
}

fn show(records: Vec<Shown>, as_json: bool) -> ExitCode {
    if records.is_empty() {
        print_line("the store holds no such call; `warmbridge audit list` names those it holds");
        return ExitCode::from(UNREADABLE);
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
    ExitCode::SUCCESS
}

fn export(bundle: &Bundle) -> ExitCode {
    if bundle.jsonl.is_empty() {
        print_line("the store holds no such call; `warmbridge audit list` names those it holds");
        return ExitCode::from(UNREADABLE);
    }
    // A closed pipe ends the output.
    let _ = std::io::stdout().lock().write_all(&bundle.jsonl);
    ExitCode::SUCCESS
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
