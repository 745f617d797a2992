//! Sending into queues. Each queue takes its messages in batches of ten; all queues of one
//! call are served at once. What was sent twice because an answer was lost has the same ids,
//! so that whoever receives it does nothing twice.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use tokio::task::JoinSet;

use super::{Cloud, failed};
use crate::ports::{Enqueue, Outgoing, PortError};

/// Most messages of one request.
pub(crate) const BATCH_MAX: usize = 10;

/// Most bytes of one request, and of one message: the service's limit of 256 KiB less room
/// for attributes.
pub(crate) const REQUEST_LEN_MAX: usize = 250 * 1024;

/// Longest delay that a queue gives.
const DELAY_MAX: Duration = Duration::from_secs(900);

impl Enqueue for Cloud {
    async fn enqueue(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        let mut by_queue: BTreeMap<String, Vec<Outgoing>> = BTreeMap::new();
        for message in messages {
            by_queue.entry(self.names.queue_url(&message.queue)?).or_default().push(message);
        }
        let mut sending = JoinSet::new();
        for (url, messages) in by_queue {
            let cloud = self.clone();
            sending.spawn(async move { cloud.send_all(&url, messages).await });
        }
        let mut result = Ok(());
        while let Some(sent) = sending.join_next().await {
            let sent = sent.unwrap_or_else(|_| Err(PortError::Transient("a send was cut off".to_owned())));
            // A permanent error is said rather than a transient one: a retry cures it not.
            result = match (result, sent) {
                (Err(PortError::Permanent(why)), _) | (_, Err(PortError::Permanent(why))) => {
                    Err(PortError::Permanent(why))
                }
                (Err(why), _) | (Ok(()), Err(why)) => Err(why),
                (Ok(()), Ok(())) => Ok(()),
            };
        }
        result
    }
}

impl Cloud {
    async fn send_all(&self, url: &str, messages: Vec<Outgoing>) -> Result<(), PortError> {
        for batch in batches(messages)? {
            let sent = self.send_batch(url, &batch).await?;
            if sent.len() < batch.len() {
                return Err(PortError::Transient("a queue did not take every message".to_owned()));
            }
        }
        Ok(())
    }

    /// Sends one batch and returns which of its messages were taken, by position. A queue that
    /// keeps order takes them in the order given.
    pub(crate) async fn send_batch(&self, url: &str, batch: &[Outgoing]) -> Result<Vec<usize>, PortError> {
        let entries = batch
            .iter()
            .enumerate()
            .map(|(position, message)| entry(position, message))
            .collect::<Result<Vec<_>, _>>()?;
        let answer = self
            .sqs()
            .send_message_batch()
            .queue_url(url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| failed("a queue", error))?;
        for refused in answer.failed() {
            tracing::warn!(code = refused.code(), "a queue refused a message");
        }
        Ok(answer.successful().iter().filter_map(|taken| taken.id().parse().ok()).collect())
    }
}

fn entry(position: usize, message: &Outgoing) -> Result<SendMessageBatchRequestEntry, PortError> {
    let body = String::from_utf8(message.body.clone())
        .map_err(|_| PortError::Permanent("a message is not text".to_owned()))?;
    let ordered = message.group.is_some();
    // A queue that keeps order takes no delay of its own for one message.
    let delay = (!ordered && !message.delay.is_zero())
        .then(|| i32::try_from(message.delay.min(DELAY_MAX).as_secs()).unwrap_or_default());
    SendMessageBatchRequestEntry::builder()
        .id(position.to_string())
        .message_body(body)
        .set_delay_seconds(delay)
        .set_message_group_id(message.group.clone())
        .set_message_deduplication_id(message.dedup.clone().filter(|_| ordered))
        .build()
        .map_err(|_| PortError::Permanent("a message is incomplete".to_owned()))
}

/// Cuts messages into requests that the service takes, in order.
pub(crate) fn batches(messages: Vec<Outgoing>) -> Result<Vec<Vec<Outgoing>>, PortError> {
    let mut batches: Vec<Vec<Outgoing>> = Vec::new();
    let mut len = 0;
    for message in messages {
        let own = message.body.len();
        if own > REQUEST_LEN_MAX {
            return Err(PortError::Permanent("a message is larger than a queue takes".to_owned()));
        }
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_MAX && len + own <= REQUEST_LEN_MAX => {
                len += own;
                batch.push(message);
            }
            _ => {
                len = own;
                batches.push(vec![message]);
            }
        }
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::SIGNALS;
    use crate::testing::call;

    fn message(len: usize) -> Outgoing {
        Outgoing::to(SIGNALS, &call(), vec![b'x'; len])
    }

    #[test]
    fn batches_hold_ten_messages_and_no_more_bytes_than_a_request_takes() {
        let sizes = |messages| batches(messages).unwrap().iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(Vec::new()), [0; 0]);
        assert_eq!(sizes(vec![message(10); 23]), [10, 10, 3]);
        assert_eq!(sizes(vec![message(REQUEST_LEN_MAX / 2); 5]), [2, 2, 1]);
        assert_eq!(sizes(vec![message(REQUEST_LEN_MAX)]), [1]);
    }

    #[test]
    fn a_message_that_no_queue_takes_is_refused_for_good() {
        assert!(matches!(batches(vec![message(REQUEST_LEN_MAX + 1)]), Err(PortError::Permanent(_))));
    }
}
