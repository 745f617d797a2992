//! The timeline of a demo call, printed as it happens: what the script does and what the edge
//! records, each as it comes. The facts are passed on to the script, which waits for some.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{broadcast, mpsc};

use crate::cli::print_line;
use crate::demo::report::Step;
use crate::io::Shown;

/// Facts that wait for the script. A call of the demo records about fifty.
const FACTS_MAX: usize = 1_024;

/// Printed and kept, by whoever has a copy.
#[derive(Clone, Debug)]
struct Lines {
    started_ms: i64,
    steps: Arc<Mutex<Vec<Step>>>,
}

/// See the module.
#[derive(Debug)]
pub struct Timeline {
    lines: Lines,
    facts: mpsc::Receiver<String>,
}

impl Timeline {
    /// Begins at `started_ms` of the wall clock and follows what the edge shows.
    pub fn follow(started_ms: i64, mut shown: broadcast::Receiver<Shown>) -> Self {
        let lines = Lines { started_ms, steps: Arc::default() };
        let (sender, facts) = mpsc::channel(FACTS_MAX);
        let follower = lines.clone();
        tokio::spawn(async move {
            loop {
                match shown.recv().await {
                    Ok(Shown { fact, at, .. }) => {
                        // Signals and turns are many; the decision that follows from them is shown.
                        if !matches!(fact.as_str(), "signal.received" | "utterance.ref") {
                            follower.line(at.unix_millis(), &fact);
                        }
                        if sender.send(fact).await.is_err() {
                            return;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        Self { lines, facts }
    }

    /// Prints and keeps what the script does.
    pub fn say(&self, at_ms: i64, event: &str) {
        self.lines.line(at_ms, event);
    }

    /// Waits until the edge has recorded a fact of this kind.
    pub async fn fact(&mut self, wanted: &str, at_most: Duration) -> Result<()> {
        let wait = async {
            loop {
                match self.facts.recv().await {
                    Some(fact) if fact == wanted => return Ok(()),
                    Some(_) => {}
                    None => bail!("the edge stopped"),
                }
            }
        };
        tokio::time::timeout(at_most, wait)
            .await
            .with_context(|| format!("`{wanted}` did not happen within {} s", at_most.as_secs()))?
    }

    /// Every line so far, by time.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = self.lines.steps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        steps.sort_by_key(|step| step.at_ms);
        steps
    }
}

impl Lines {
    fn line(&self, at_ms: i64, event: &str) {
        let at_ms = u64::try_from(at_ms - self.started_ms).unwrap_or(0);
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        print_line(&format!("{:>3}.{:03}  {event}", at_ms / 1_000, at_ms % 1_000));
        steps.push(Step { at_ms, event: event.to_owned() });
    }
}
