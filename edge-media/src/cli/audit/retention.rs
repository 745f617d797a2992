//! `warmbridge audit retention`: how long records are kept, and the end of those whose time is
//! up. Nothing is deleted that the operator's classes do not name, and nothing without --apply.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use functions::audit_read::Shown;
use functions::sqlite::StoreError;
use functions::sqlite::retention::{Fate, Past, sweep};
use handoff::audit::CHAIN_CLOSED;
use handoff::audit::retention::{CLASSES, RetentionClass};
use handoff::id::CallId;
use serde_json::json;

use crate::cli::{account, print_line};
use crate::io::recording::RECORDINGS;

/// Under which rules, and whether it is done.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Sweep {
    /// A class that the calls of this store are in; once for each. The longest governs.
    #[arg(long, value_name = "NAME", value_parser = named)]
    class: Vec<RetentionClass>,
    /// Delete the calls whose time is up: keys, records, payloads, transcripts, recordings. The
    /// audit trail keeps one record of each. Without it they are only listed.
    #[arg(long, requires = "class")]
    apply: bool,
    /// By whom, as the audit trail will name it; the account of this machine where it is left
    /// out.
    #[arg(long, requires = "apply")]
    actor: Option<String>,
}

impl Sweep {
    /// The question is which calls may go, not how long they are kept.
    pub(super) const fn is_asked(&self) -> bool {
        !self.class.is_empty()
    }

    pub(super) fn run(self, data: &Path, as_json: bool) -> Result<ExitCode, StoreError> {
        let actor = self.actor.unwrap_or_else(account);
        let past = sweep(data, &self.class, &actor, self.apply)?;
        let mut kept = false;
        for one in &past {
            print_line(&line(one, as_json));
            if one.fate == Fate::Expired {
                forget_recordings(data, &one.call)?;
            }
            kept |= one.fate == Fate::Unverified;
        }
        if past.is_empty() && !as_json {
            print_line("no call is past its time");
        }
        // A call that does not verify is for somebody to look at.
        Ok(if kept { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn named(name: &str) -> Result<RetentionClass, String> {
    let names = || CLASSES.map(|class| class.name).join(", ");
    RetentionClass::named(name).ok_or_else(|| format!("the classes are {}", names()))
}

fn line(past: &Past, as_json: bool) -> String {
    let (word, text) = match past.fate {
        Fate::Due => ("due", "would be deleted"),
        Fate::Expired => ("expired", "deleted"),
        Fate::Held => ("held", "kept: a legal hold stands on it"),
        Fate::Unverified => ("unverified", "kept: it does not verify"),
        Fate::Underway => ("underway", "kept for now: records of it are on their way"),
    };
    if as_json {
        json!({"call": past.call, "class": past.class.name, "until": past.until, "fate": word}).to_string()
    } else {
        format!("{}  {} until {}  {text}", past.call, past.class.name, past.until)
    }
}

/// Their key is gone already: what is left is noise, and need not stay.
fn forget_recordings(data: &Path, call: &CallId) -> Result<(), StoreError> {
    match fs::remove_dir_all(data.join(RECORDINGS).join(call.as_str())) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The classes, with the date of each for the call whose records are given.
pub(super) fn retention(records: Option<Vec<Shown>>, as_json: bool) -> ExitCode {
    let mut closed = None;
    if let Some(records) = records {
        closed = records.iter().find(|record| record.kind == CHAIN_CLOSED).map(|record| record.occurred_at);
        if closed.is_none() {
            print_line("the store holds no such call, or its chain is open");
            return ExitCode::FAILURE;
        }
    }
    for class in CLASSES {
        let until = closed.map(|closed| class.until(closed));
        if as_json {
            let line = json!({"class": class.name, "days": class.days, "basis": class.basis, "until": until});
            print_line(&line.to_string());
        } else {
            let until = until.map(|until| format!("  until {until}")).unwrap_or_default();
            print_line(&format!("{:<8} {:>5} days{until}  {}", class.name, class.days, class.basis));
        }
    }
    ExitCode::SUCCESS
}
