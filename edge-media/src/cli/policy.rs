//! `warmbridge policy`: says what is wrong with a policy file, with the line, or `ok`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use handoff::policy::Policy;

use super::print_line;

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Say what is wrong with a policy file, or `ok`.
    Check {
        /// The policy file.
        file: PathBuf,
    },
}

pub(super) fn run(what: What) -> ExitCode {
    match what {
        What::Check { file } => {
            let text = match std::fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) => {
                    print_line(&format!("{}: {error}", file.display()));
                    return ExitCode::FAILURE;
                }
            };
            match Policy::from_toml(&text) {
                Ok(policy) => {
                    for warning in policy.lint() {
                        print_line(&format!("warning: {warning}"));
                    }
                    print_line(&format!("ok: {}", policy.version()));
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    print_line(&format!("{}: {error}", file.display()));
                    ExitCode::FAILURE
                }
            }
        }
    }
}
