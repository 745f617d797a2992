//! `warmbridge webhook`: for whoever receives webhooks, a listener that checks signatures; for
//! whoever sends them, the dead letters and their replay.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{ArgGroup, Subcommand};
use functions::sqlite::dead::{DeadLetters, Replay};
use handoff::id::DestinationId;
use handoff::webhook::Secret;
use serde_json::json;
use tokio::net::TcpListener;

use super::print_line;
use crate::io::clock::Clock;
use crate::io::receiver::{Answer, Received, receive};

/// What to do with webhooks.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Receive webhooks and say of each whether its signature is right: 204 if so, else 401.
    Listen {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:8090")]
        bind: SocketAddr,
        /// The file with the endpoint's secret (`whsec_…`).
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        /// Print whole bodies as JSON lines. They may hold personal data.
        #[arg(long)]
        json: bool,
        /// End after so many webhooks.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// List the webhooks that were given up, without their content.
    Dead {
        /// Where the embedded store is.
        #[arg(long, default_value = "./warmbridge-data")]
        data: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send webhooks again that were given up: same id, same bytes. The edge may be running.
    #[command(group(ArgGroup::new("which").required(true)))]
    Replay {
        /// This message.
        #[arg(group = "which", value_name = "MESSAGE")]
        message: Option<String>,
        /// All of this destination.
        #[arg(long, group = "which", value_name = "DESTINATION")]
        to: Option<String>,
        /// All.
        #[arg(long, group = "which")]
        all: bool,
        /// Where the embedded store is.
        #[arg(long, default_value = "./warmbridge-data")]
        data: PathBuf,
    },
}

pub(super) async fn run(what: What) -> Result<ExitCode> {
    match what {
        What::Listen { bind, secret_file, json, count } => listen(bind, &secret_file, json, count).await,
        What::Dead { data, json } => dead(&data, json),
        What::Replay { message, to, data, all: _ } => {
            let which = match (message, to) {
                (Some(message), _) => Replay::Message(message),
                (None, Some(to)) => Replay::Destination(
                    DestinationId::parse(&to).with_context(|| format!("`{to}` is no destination"))?,
                ),
                (None, None) => Replay::Everything,
            };
            replay(&data, &which)
        }
    }
}

async fn listen(bind: SocketAddr, secret_file: &Path, as_json: bool, count: Option<u64>) -> Result<ExitCode> {
    let secret = std::fs::read_to_string(secret_file)
        .with_context(|| format!("cannot read {}", secret_file.display()))?;
    let secret = secret.trim();
    Secret::parse(secret).with_context(|| secret_file.display().to_string())?;
    let listener = TcpListener::bind(bind).await.with_context(|| format!("cannot listen on {bind}"))?;
    tracing::info!(address = %listener.local_addr()?, "listening for webhooks; Ctrl-C ends");
    let clock = Clock::start();
    let mut left = count.unwrap_or(u64::MAX);
    let mut genuine = true;
    while left > 0 {
        let (mut stream, _) = listener.accept().await?;
        let judge = |webhook: &Received| Answer {
            status: if webhook.verdict.is_ok() { 204 } else { 401 },
            popped: false,
        };
        // One after the other: a test receiver shows them in the order in which they came.
        let received = tokio::time::timeout(READ_MAX, receive(&mut stream, secret, &clock, judge)).await;
        let Ok(Ok(Some(webhook))) = received else {
            tracing::warn!("a connection brought no webhook");
            continue;
        };
        genuine &= webhook.verdict.is_ok();
        left -= 1;
        print_line(&line(&webhook, as_json));
    }
    Ok(if genuine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A sender that needs longer for its request is none of ours.
const READ_MAX: std::time::Duration = std::time::Duration::from_secs(15);

fn line(webhook: &Received, as_json: bool) -> String {
    let verdict = match webhook.verdict {
        Ok(()) => "genuine".to_owned(),
        Err(error) => format!("REFUSED: {error}"),
    };
    if as_json {
        return json!({"id": webhook.id, "verdict": verdict, "body": webhook.body}).to_string();
    }
    let Received { id, kind, subject, sequence, .. } = webhook;
    format!("{kind:<34} {subject}  #{}  {id}  {verdict}", sequence.trim_start_matches('0'))
}

fn dead(data: &Path, as_json: bool) -> Result<ExitCode> {
    for letter in open(data)?.list()? {
        print_line(&if as_json {
            json!(letter).to_string()
        } else {
            let at = letter.queued_at;
            format!(
                "{at}  {:<34} {}  {}  {}",
                letter.kind, letter.destination, letter.call, letter.message_id
            )
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn replay(data: &Path, which: &Replay) -> Result<ExitCode> {
    let replayed = open(data)?.replay(which)?;
    print_line(&format!("{replayed} webhooks wait to be sent again"));
    Ok(if replayed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn open(data: &Path) -> Result<DeadLetters> {
    DeadLetters::open(data).with_context(|| format!("{}: no store that can be opened", data.display()))
}
