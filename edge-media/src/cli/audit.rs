//! `warmbridge audit`: the trail as a person reads it, and the verdict on it. The exit codes
//! of `verify` are a contract: 0 verified, 1 tampered, 2 incomplete, 3 policy, 4 unreadable.

mod retention;
#[cfg(feature = "aws")]
pub(super) mod table;
mod vcon;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use functions::audit_read::{Bundle, Chain, Reader, Shown, Vouched, Witness, verify_bundle};
use functions::local::checkpointer::make_outside;
use functions::sqlite::StoreError;
use functions::sqlite::erase::{Deed, execute};
use handoff::audit::verify::Report;
use handoff::audit::verify::checkpoints::TrailPolicy;
use handoff::id::CallId;
use serde_json::json;

use super::{UNREADABLE, account, print_line};
use crate::config::within;
use retention::{Sweep, retention};
use vcon::VconOptions;

/// Rows that are in memory at once.
const FEED_PAGE: usize = 1_000;

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
        /// The proof that was archived beside the bundle: with it, a rewritten one is found.
        #[arg(long, value_name = "FILE", group = "signed", requires_all = ["bundle", "keyring"])]
        proof: Option<PathBuf>,
        #[command(flatten)]
        witness: WitnessFiles,
    },
    /// Sign what moved since the last checkpoint, now; the edge may be running.
    Checkpoint {
        /// The folder of signed checkpoints, outside the data directory.
        #[arg(long, value_name = "DIR")]
        checkpoints: PathBuf,
    },
    /// Destroy the keys of one call: its texts, payloads, transcript and recordings are gone for
    /// good, and its chain still verifies.
    Erase {
        /// The call.
        call: String,
        #[command(flatten)]
        ground: Ground,
    },
    /// Forbid erasing a call, or allow it again.
    Hold {
        #[command(subcommand)]
        what: Hold,
    },
    /// How long records are kept: every class, with the date for one call; or, with --class,
    /// the calls whose time is up.
    Retention {
        /// The call.
        #[arg(conflicts_with = "class")]
        call: Option<String>,
        #[command(flatten)]
        sweep: Sweep,
    },
    /// One call as a bundle: one canonical record a line, byte for byte; or as a vCon.
    Export {
        /// The call.
        call: String,
        #[command(flatten)]
        vcon: VconOptions,
    },
    /// Every record as a row for a data warehouse, one JSON object a line, without personal
    /// columns.
    Feed {
        /// Only what came behind this `cursor` of a row; with --dynamodb a day, as 2026-11-23.
        #[arg(long)]
        from: Option<String>,
    },
}

/// What the verdict goes by, beside the chains.
#[derive(Debug, clap::Args)]
pub(super) struct WitnessFiles {
    /// The folder of signed checkpoints: with it, rewritten and missing calls are found.
    #[arg(long, value_name = "DIR", group = "signed", conflicts_with = "bundle")]
    checkpoints: Option<PathBuf>,
    /// The keyring to go by: instead of the folder's own, or for a proof.
    #[arg(long, value_name = "FILE", requires = "signed")]
    keyring: Option<PathBuf>,
    /// What is asked of the trail: `[checkpoints] required = true, every_s = 3600`.
    #[arg(long, value_name = "FILE", conflicts_with = "bundle")]
    policy: Option<PathBuf>,
}

impl WitnessFiles {
    fn read(self) -> Result<Witness, String> {
        let policy = self.policy.as_deref().map(asked).transpose()?.unwrap_or_default();
        Ok(Witness { checkpoints: self.checkpoints, keyring: self.keyring, policy })
    }
}

/// Why, and by whom.
#[derive(Debug, clap::Args)]
pub(super) struct Ground {
    /// On what ground, as the audit trail will say it; no personal data.
    #[arg(long, value_name = "TEXT")]
    basis: String,
    /// By whom, as the audit trail will name it; the account of this machine where it is left
    /// out.
    #[arg(long)]
    actor: Option<String>,
}

/// What to do with a legal hold.
#[derive(Debug, Subcommand)]
pub(super) enum Hold {
    /// While it stands, nothing of the call is erased.
    Place {
        /// The call.
        call: String,
        #[command(flatten)]
        ground: Ground,
    },
    /// It may be erased again.
    Release {
        /// The call.
        call: String,
        #[command(flatten)]
        ground: Ground,
    },
}

pub(super) fn run(data: &Path, as_json: bool, what: What) -> ExitCode {
    let done = match what {
        What::Verify { bundle: Some(bundle), proof, witness, .. } => {
            Ok(verdict(&bundled(&bundle, proof.zip(witness.keyring)), as_json))
        }
        What::Verify { call, bundle: None, witness, .. } => match witness.read() {
            Ok(witness) => Reader::open(data)
                .and_then(|reader| reader.verify_with(call.as_deref(), &witness))
                .map(|report| verdict(&report, as_json)),
            Err(why) => return verdict(&Report::unreadable(&why), as_json),
        },
        What::Erase { call, ground } => Ok(deed(data, &call, Deed::Erase, ground)),
        What::Hold { what: Hold::Place { call, ground } } => Ok(deed(data, &call, Deed::PlaceHold, ground)),
        What::Hold { what: Hold::Release { call, ground } } => {
            Ok(deed(data, &call, Deed::ReleaseHold, ground))
        }
        What::Retention { sweep, .. } if sweep.is_asked() => sweep.run(data, as_json),
        What::Retention { call, .. } => {
            let records = call.map(|call| Reader::open(data).and_then(|reader| reader.show(&call)));
            records.transpose().map(|records| retention(records, as_json))
        }
        What::Checkpoint { checkpoints } => checkpoint(data, &checkpoints, as_json),
        What::List => Reader::open(data).and_then(|reader| Ok(list(reader.list()?, as_json))),
        What::Show { call } => Reader::open(data).and_then(|reader| Ok(show(reader.show(&call)?, as_json))),
        What::Export { call, vcon } if vcon.vcon => {
            return vcon::export(data, &call, &vcon).unwrap_or_else(|error| {
                print_line(&format!("{error:#}"));
                ExitCode::from(UNREADABLE)
            });
        }
        What::Export { call, .. } => Reader::open(data).and_then(|reader| Ok(export(&reader.export(&call)?))),
        What::Feed { from } => match from.as_deref().unwrap_or("0").parse() {
            Ok(cursor) => Reader::open(data).and_then(|reader| feed(&reader, cursor)),
            Err(_) => return verdict(&Report::unreadable("--from is the cursor of a row"), as_json),
        },
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

/// Erases or holds, and says what became of it.
fn deed(data: &Path, call: &str, deed: Deed, ground: Ground) -> ExitCode {
    let Ok(call) = CallId::parse(call) else {
        print_line("this is not the id of a call");
        return ExitCode::FAILURE;
    };
    let actor = ground.actor.unwrap_or_else(account);
    done(deed, execute(data, &call, deed, &ground.basis, &actor))
}

/// Says what became of a deed.
fn done(deed: Deed, destroyed: Result<Vec<String>, impl std::fmt::Display>) -> ExitCode {
    match destroyed {
        Ok(keys) => {
            print_line(match deed {
                Deed::Erase if keys.is_empty() => {
                    "nothing to erase: the keys are destroyed already, or never were"
                }
                Deed::Erase => {
                    "erased: the keys of the call are destroyed; backups of the store may still hold them"
                }
                Deed::PlaceHold => "a legal hold stands on the call",
                Deed::ReleaseHold => "no legal hold stands on the call",
            });
            ExitCode::SUCCESS
        }
        Err(error) => {
            print_line(&error.to_string());
            ExitCode::FAILURE
        }
    }
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

/// Prints all rows behind a cursor. Each has its own, from which the next feed goes on.
fn feed(reader: &Reader, mut cursor: i64) -> Result<ExitCode, StoreError> {
    loop {
        let rows = reader.feed(cursor, FEED_PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(ExitCode::SUCCESS) };
        cursor = *last;
        for (cursor, mut row) in rows {
            // A record that no longer parses is the verifier's business.
            if let Some(columns) = row.as_object_mut() {
                columns.insert("cursor".to_owned(), json!(cursor));
                print_line(&row.to_string());
            }
        }
    }
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
                "text": record.text, "erased": record.erased});
            print_line(&line.to_string());
        } else {
            print_line(&record.line());
        }
    }
    ExitCode::SUCCESS
}

/// The verdict on a bundle, held to a proof and a keyring where they are given.
fn bundled(bundle: &Path, signed: Option<(PathBuf, PathBuf)>) -> Report {
    match signed.map(|(proof, keyring)| Vouched::read(&proof, &keyring)).transpose() {
        Ok(vouched) => verify_bundle(bundle, vouched.as_ref()),
        Err(why) => Report::unreadable(&why),
    }
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
