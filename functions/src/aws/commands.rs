//! The edge's command queue: long polls, several at once, so that a command waits for no
//! other. A command is taken from the queue once the edge has it; one that does not parse
//! stays, and the queue's own limit moves it to the dead letters.

use std::time::Duration;

use handoff::command::Command;
use tokio::sync::{mpsc, watch};

use super::{Cloud, failed};
use crate::ports::PortError;
use crate::worker::{Control, may_run};

/// Polls at once. One that just came back leaves a gap; four leave none.
pub(crate) const POLLS: usize = 4;

/// Longest wait of a poll, in seconds: the service's own limit.
const POLL_SECS: i32 = 20;

/// Wait after a poll failed.
const POLL_RETRY: Duration = Duration::from_secs(1);

/// Polls until told to stop.
pub(crate) async fn poll(
    cloud: Cloud,
    url: String,
    commands: mpsc::Sender<Command>,
    mut control: watch::Receiver<Control>,
) {
    while may_run(&mut control).await {
        let polled = tokio::select! {
            polled = cloud.receive_commands(&url, &commands) => polled,
            _ = control.changed() => continue,
        };
        if let Err(error) = polled {
            tracing::warn!(%error, "no commands from the cloud; the edge decides by itself meanwhile");
            tokio::time::sleep(POLL_RETRY).await;
        }
    }
}

impl Cloud {
    async fn receive_commands(&self, url: &str, commands: &mpsc::Sender<Command>) -> Result<(), PortError> {
        let answer = self
            .sqs()
            .receive_message()
            .queue_url(url)
            .wait_time_seconds(POLL_SECS)
            .max_number_of_messages(10)
            .send()
            .await
            .map_err(|error| failed("the command queue", error))?;
        for message in answer.messages() {
            let body = message.body().unwrap_or_default();
            let Ok(command) = serde_json::from_str::<Command>(body) else {
                tracing::error!("a command does not parse and is left for the dead letters");
                continue;
            };
            // An edge that no longer listens has no call that the command could be for.
            let _gone = commands.send(command).await;
            let taken = self
                .sqs()
                .delete_message()
                .queue_url(url)
                .receipt_handle(message.receipt_handle().unwrap_or_default());
            if let Err(error) = taken.send().await {
                // It comes again, and the edge knows its id.
                tracing::warn!(error = %failed("the command queue", error), "a command stays in its queue");
            }
        }
        Ok(())
    }
}
