//! The command line: what a person or a script can ask for, and the exit code of each
//! answer. Results go to stdout, logs to stderr, JSON where a program may read it.

mod audit;
mod exported;
mod metrics;
mod policy;
mod recording;
mod trunk;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What whole calls did in virtual time; the test that plays them keeps it true.
const GRID: &str = include_str!("../../tests/GRID.md");

/// Exit code for a store that cannot be read.
const UNREADABLE: u8 = 4;

/// Warm transfers from voice AI to people.
#[derive(Debug, Parser)]
#[command(name = "warmbridge", version, about)]
struct Arguments {
    /// How logs are written to stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play one whole warm transfer on this machine and measure it.
    Demo(DemoArguments),
    /// Run the edge.
    Serve {
        /// The configuration.
        #[arg(long, default_value = "warmbridge.toml")]
        config: PathBuf,
    },
    /// Say what is wrong with a configuration, with the line, or `ok`.
    Check {
        /// The configuration.
        #[arg(long, default_value = "warmbridge.toml")]
        config: PathBuf,
    },
    /// Read and verify the audit trail.
    Audit {
        /// Where the embedded store is.
        #[arg(long, global = true, default_value = "./warmbridge-data")]
        data: PathBuf,
        /// Read this DynamoDB table and those beside it instead, with the environment's
        /// credentials.
        #[arg(long, global = true, value_name = "TABLE", conflicts_with = "data")]
        dynamodb: Option<String>,
        /// Print JSON.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        what: audit::What,
    },
    /// Print what follows when somebody leaves, refuses or falls silent, in every state of a call.
    Grid,
    /// Receive webhooks as a consumer would, or send those again that were given up.
    Webhook {
        #[command(subcommand)]
        what: webhook::What,
    },
    /// Take recordings out of the sealed store.
    Recording {
        /// Where the embedded store is.
        #[arg(long, global = true, default_value = "./warmbridge-data")]
        data: PathBuf,
        /// The audit table of the stack that has the call's key and its trail; the recordings
        /// themselves lie in the edge's data directory.
        #[arg(long, global = true, value_name = "TABLE")]
        dynamodb: Option<String>,
        /// Print JSON.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        what: recording::What,
    },
    /// Say how transfers go, and what to change where they go badly.
    Metrics(metrics::Options),
    /// Say how it stands with the trunks: registered, answering, and what to do where they are not.
    Trunk {
        /// The configuration of the edge.
        #[arg(long, global = true, default_value = "warmbridge.toml")]
        config: PathBuf,
        /// Print JSON.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        what: trunk::What,
    },
    /// Check a policy.
    Policy {
        #[command(subcommand)]
        what: policy::What,
    },
}

/// Options of `warmbridge demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArguments {
    /// Write the report as JSON to this file.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// What happens in the call.
    #[arg(long, value_enum, default_value_t = Scenario::Happy)]
    pub scenario: Scenario,
    /// Where the store and the recordings go; a new folder under the temporary folder
    /// where it is left out.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Open the human agent's page in the browser of this machine.
    #[arg(long)]
    pub open: bool,
    /// Play it through the functions of this deployed stack, with the environment's
    /// credentials; the edge is its slot `edge-1`.
    #[arg(long, requires = "media_bucket")]
    pub stack: Option<String>,
    /// The stack's bucket of settings, an output of its deployment.
    #[arg(long, value_name = "BUCKET", requires = "stack")]
    pub media_bucket: Option<String>,
}

/// The scenarios of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Everything works.
    Happy,
    /// The human agent's phone rings and nobody answers.
    NoAnswer,
    /// The human agent declines.
    Declined,
    /// A voicemail answers.
    Voicemail,
    /// The caller leaves while the phone rings.
    CallerHangsUp,
    /// The voice agent's link breaks during the transfer.
    VoiceAgentDies,
    /// The CRM answers 500.
    CrmDown,
    /// All functions stop before the trigger and start again after the bridge.
    FunctionsDown,
}

impl Scenario {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Happy => "happy",
            Self::NoAnswer => "no-answer",
            Self::Declined => "declined",
            Self::Voicemail => "voicemail",
            Self::CallerHangsUp => "caller-hangs-up",
            Self::VoiceAgentDies => "voice-agent-dies",
            Self::CrmDown => "crm-down",
            Self::FunctionsDown => "functions-down",
        }
    }
}

/// Why a build without the cloud's adapters cannot answer.
#[cfg(not(feature = "aws"))]
const NO_DYNAMODB: &str =
    "this build reads no DynamoDB: build it with `cargo build --release --features aws`";

/// Parses the command line, runs the command, and returns its exit code.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(arguments.log);
    // One crypto provider for the process; a second call would be a fault of ours.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::error!("a crypto provider was already installed");
    }
    match arguments.command {
        Command::Demo(options) => on_runtime(crate::demo::run(options)),
        Command::Serve { config } => on_runtime(crate::io::serve(config)),
        Command::Check { config } => on_runtime(check(config)),
        Command::Audit { dynamodb: None, data, json, what } => audit::run(&data, json, what),
        #[cfg(feature = "aws")]
        Command::Audit { dynamodb: Some(table), json, what, .. } => {
            on_runtime(audit::table::run(table, json, what))
        }
        #[cfg(not(feature = "aws"))]
        Command::Audit { dynamodb: Some(_), .. } => fail(&anyhow::anyhow!(NO_DYNAMODB)),
        Command::Grid => {
            print_line(GRID.trim_end());
            ExitCode::SUCCESS
        }
        Command::Webhook { what } => on_runtime(webhook::run(what)),
        Command::Recording { dynamodb: None, data, json, what } => recording::run(&data, json, what),
        #[cfg(feature = "aws")]
        Command::Recording { dynamodb: Some(table), data, json, what } => {
            on_runtime(recording::run_of_stack(table, data, json, what))
        }
        #[cfg(not(feature = "aws"))]
        Command::Recording { dynamodb: Some(_), .. } => fail(&anyhow::anyhow!(NO_DYNAMODB)),
        #[cfg(feature = "aws")]
        Command::Metrics(options) if options.table().is_some() => on_runtime(metrics::run_of_stack(options)),
        #[cfg(not(feature = "aws"))]
        Command::Metrics(options) if options.table().is_some() => fail(&anyhow::anyhow!(NO_DYNAMODB)),
        Command::Metrics(options) => metrics::run(&options),
        Command::Trunk { config, json, what } => on_runtime(trunk::run(config, json, what)),
        Command::Policy { what } => policy::run(what),
    }
}

/// The account that runs the command, by its number: names are personal.
fn account() -> String {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").map_or_else(|_| "unknown".to_owned(), |own| format!("uid:{}", own.uid()))
}

/// Waits on this thread for work that needs a runtime of its own.
fn blocking<T, E: From<std::io::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn on_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("the runtime cannot start")),
    };
    let code = runtime.block_on(work).unwrap_or_else(|error| fail(&error));
    // Tasks that still wait for a slow peer must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}

async fn check(path: PathBuf) -> anyhow::Result<ExitCode> {
    match crate::config::Config::load(&path) {
        Ok(config) => {
            // The policy is read as well: a configuration whose policy does not load is not ok.
            if let Err(error) = crate::setup::policy_of(&config) {
                print_line(&format!("{error:#}"));
                return Ok(ExitCode::FAILURE);
            }
            let mut report = config.check();
            report.warnings.extend(crate::io::names::doubts(&config).await);
            report.warnings.sort_by_key(|warning| warning.line.unwrap_or(usize::MAX));
            print_line(&report.to_string());
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            print_line(&errors.to_string());
            Ok(ExitCode::FAILURE)
        }
    }
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("WARMBRIDGE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.compact().init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Says what went wrong, with its causes, and gives the exit code of a failure.
fn fail(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::FAILURE
}

/// Writes one line of a result. A closed pipe ends the output, not the program with a panic.
pub(crate) fn print_line(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
