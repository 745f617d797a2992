//! `send-webhook`: frozen bodies out, every try audited. When to try again is decided by
//! `handoff::delivery`; the response is kept as status and digest only. Nothing of a call
//! waits for this, and a repeated message has the same id.

use std::time::Duration;

use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId};
use handoff::command::{Command, CommandBody};
use handoff::delivery::breaker::Admission;
use handoff::delivery::{AttemptResult, Delivery, GaveUp, LIVE_CONNECT, Lane, Next};
use handoff::event::WebhookKind;
use handoff::id::derived_text;
use serde_json::{Value, json};

use crate::batch::{Failure, Handled};
use crate::breakers::Breakers;
use crate::config::{Destination, FunctionsConfig};
use crate::evaluate_trigger::send_command;
use crate::outbox::WebhookJob;
use crate::ports::{
    Clock, Deliveries, DeliveryState, Enqueue, Outgoing, SendWebhook, WebhookAnswer, WebhookRequest,
};

/// Longest wait for a connection in the durable lane: a third of a try.
const DURABLE_CONNECT: Duration = Duration::from_secs(5);

/// Handles one message of either webhook queue. `random` spreads retries.
pub async fn handle<S, H, C>(
    store: &S,
    http: &H,
    clock: &C,
    breakers: &Breakers,
    config: &FunctionsConfig,
    body: &[u8],
    random: u16,
) -> Result<Handled, Failure>
where
    S: Enqueue + Deliveries,
    H: SendWebhook,
    C: Clock,
{
    let job = WebhookJob::from_json(body)?;
    let destination = config
        .destination(&job.destination)
        .ok_or_else(|| Failure::permanent("the destination of a webhook is not configured"))?;
    let state =
        store.delivery(&job.message_id, job.destination.as_str()).await?.unwrap_or_else(|| fresh_state(&job));
    if state.state == DELIVERED || store.is_disabled(job.destination.as_str()).await? {
        return Ok(Handled::Done);
    }
    let sender = Sender { store, http, clock, breakers, destination, job: &job, random };
    match job.lane {
        Lane::Live => sender.live(state).await,
        Lane::Durable => sender.durable(state).await,
    }
}

const PENDING: &str = "pending";
const DELIVERED: &str = "delivered";
const FAILED: &str = "failed";

fn fresh_state(job: &WebhookJob) -> DeliveryState {
    DeliveryState {
        message_id: job.message_id.clone(),
        destination: job.destination.to_string(),
        kind: job.kind.as_str().to_owned(),
        call: job.call.clone(),
        attempts: 0,
        durable_failed: 0,
        status: None,
        state: PENDING.to_owned(),
    }
}

struct Sender<'a, S, H, C> {
    store: &'a S,
    http: &'a H,
    clock: &'a C,
    breakers: &'a Breakers,
    destination: &'a Destination,
    job: &'a WebhookJob,
    random: u16,
}

impl<S: Enqueue + Deliveries, H: SendWebhook, C: Clock> Sender<'_, S, H, C> {
    /// All tries of the live lane, within its budget.
    async fn live(&self, mut state: DeliveryState) -> Result<Handled, Failure> {
        let (mut delivery, mut next) = Delivery::start(Lane::Live, self.clock.now());
        loop {
            match next {
                Next::SendAt { at, timeout } => {
                    self.clock.sleep_until(at).await;
                    if let Admission::Wait(_) = self.admit() {
                        next = Next::GiveUp(GaveUp::LiveSpent);
                        continue;
                    }
                    next = self.attempt(&mut state, &mut delivery, LIVE_CONNECT, timeout).await?;
                }
                Next::Done => return Ok(Handled::Done),
                Next::GiveUp(why) => {
                    let mut messages = Vec::new();
                    if why.continues() {
                        messages.push(WebhookJob { lane: Lane::Durable, ..self.job.clone() }.outgoing());
                    }
                    messages.extend(self.undelivered());
                    self.store.enqueue(messages).await?;
                    return Ok(Handled::Done);
                }
            }
        }
    }

    /// One try of the durable lane.
    async fn durable(&self, mut state: DeliveryState) -> Result<Handled, Failure> {
        if let Admission::Wait(until) = self.admit() {
            return Ok(Handled::Hold(until.since(self.clock.now())));
        }
        let mut delivery = Delivery::resume(state.durable_failed, self.clock.now());
        let timeout = handoff::delivery::DURABLE_TRY;
        match self.attempt(&mut state, &mut delivery, DURABLE_CONNECT, timeout).await? {
            Next::Done => Ok(Handled::Done),
            Next::SendAt { at, .. } => Ok(Handled::Defer(at.since(self.clock.now()))),
            Next::GiveUp(_) => Ok(Handled::Bury),
        }
    }

    /// Whether the destination may be tried now. A message of the live lane does not wait for
    /// that, it goes on in the durable lane.
    fn admit(&self) -> Admission {
        self.breakers.admit(&self.job.destination, self.clock.now())
    }

    /// One try: numbered before it is made, audited after.
    async fn attempt(
        &self,
        state: &mut DeliveryState,
        delivery: &mut Delivery,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Next, Failure> {
        state.attempts += 1;
        self.store.note_delivery(state.clone()).await?;
        let started = self.clock.now();
        let answer = self
            .http
            .send(WebhookRequest {
                destination: self.job.destination.clone(),
                id: self.job.message_id.clone(),
                body: self.job.body.clone().into_bytes(),
                connect_timeout,
                timeout,
            })
            .await;
        let ended = self.clock.now();
        self.breakers.record(&self.job.destination, ended, answer.result);
        let next = delivery.handle(ended, answer.result, self.random);
        state.status = status_of(answer.result).or(state.status);
        if self.job.lane == Lane::Durable {
            state.durable_failed = delivery.failed();
        }
        state.state = match next {
            Next::Done => DELIVERED,
            Next::GiveUp(why) if !why.continues() => FAILED,
            Next::GiveUp(_) | Next::SendAt { .. } => PENDING,
        }
        .to_owned();
        let mut messages = self.audit(state, &answer, ended.since(started), next)?;
        messages.extend(self.acknowledged(&answer));
        self.store.enqueue(messages).await?;
        self.store.note_delivery(state.clone()).await?;
        if next == Next::GiveUp(GaveUp::EndpointGone) {
            tracing::error!(destination = %self.job.destination, "endpoint is gone and is disabled");
            self.store.disable(self.job.destination.as_str()).await?;
        }
        Ok(next)
    }

    /// Every try is its own producer: a repeated function never reuses a number with other
    /// bytes.
    fn audit(
        &self,
        state: &DeliveryState,
        answer: &WebhookAnswer,
        took: Duration,
        next: Next,
    ) -> Result<Vec<Outgoing>, Failure> {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let body = |extra: Option<(&str, Value)>| {
            let mut body = json!({
                "message_id": self.job.message_id,
                "type": self.job.kind.as_str(),
                "destination": self.job.destination,
                "lane": self.job.lane.as_str(),
                "try": state.attempts,
                "status": status_of(answer.result),
                "ms": ms,
                "response_digest": answer.response_sha256,
            });
            if let (Some(members), Some((name, value))) = (body.as_object_mut(), extra) {
                members.insert(name.to_owned(), value);
            }
            body
        };
        let mut facts = vec![("webhook.attempted", body(None))];
        match next {
            Next::Done => facts.push(("webhook.delivered", body(Some(("popped", json!(answer.popped)))))),
            Next::GiveUp(why) => {
                facts.push(("webhook.failed", body(Some(("reason", json!(reason_of(why)))))))
            }
            Next::SendAt { .. } => {}
        }
        let job = format!("{}|{}", self.job.message_id, self.job.destination);
        let producer = ProducerId::job("send-webhook", &job, state.attempts);
        let at = self.clock.wall();
        let entries = (0_u64..).zip(facts).map(|(pseq, (kind, body))| AuditEntry {
            tenant: self.job.tenant.clone(),
            chain: ChainId::of(&self.job.call),
            producer: producer.clone(),
            pseq,
            kind: kind.to_owned(),
            occurred_at: at,
            actor: Actor::system("send-webhook"),
            body,
            sealed: None,
            refs: None,
        });
        entries.map(|entry| Ok(Outgoing::audit(&AuditMessage::plain(entry))?)).collect()
    }

    /// Tells the edge that a destination has the payload on screen. "Sent" is not "shown".
    fn acknowledged(&self, answer: &WebhookAnswer) -> Option<Outgoing> {
        let delivered = matches!(answer.result, AttemptResult::Answered { status: 200..=299, .. });
        if !delivered || !answer.popped || !carries_payload(self.job.kind) {
            return None;
        }
        let body = CommandBody::PayloadAcknowledged {
            transfer_id: self.job.transfer.clone()?,
            destination: self.job.destination.to_string(),
            revision: self.job.revision?,
            at: self.clock.wall(),
        };
        Some(self.command("payload.acknowledged", body))
    }

    /// Tells the edge that a required destination missed its budget.
    fn undelivered(&self) -> Option<Outgoing> {
        if !self.destination.required || !carries_payload(self.job.kind) {
            return None;
        }
        let body = CommandBody::PayloadUndelivered {
            transfer_id: self.job.transfer.clone()?,
            destination: self.job.destination.to_string(),
        };
        Some(self.command("payload.undelivered", body))
    }

    fn command(&self, name: &str, body: CommandBody) -> Outgoing {
        let job = self.job;
        let parts = [name, job.message_id.as_str(), job.destination.as_str()];
        let command =
            Command { id: format!("cmd_{}", derived_text(&parts)), call_id: job.call.clone(), body };
        send_command(&job.commands, &job.edge, &command)
    }
}

const fn carries_payload(kind: WebhookKind) -> bool {
    matches!(kind, WebhookKind::Offered | WebhookKind::PayloadRevised)
}

const fn status_of(result: AttemptResult) -> Option<u16> {
    match result {
        AttemptResult::Answered { status, .. } => Some(status),
        AttemptResult::NoAnswer | AttemptResult::Forbidden => None,
    }
}

const fn reason_of(why: GaveUp) -> &'static str {
    match why {
        GaveUp::LiveSpent => "live_budget_spent",
        GaveUp::LiveRefused => "refused",
        GaveUp::Spent => "schedule_spent",
        GaveUp::EndpointGone => "endpoint_gone",
        GaveUp::Forbidden => "address_forbidden",
    }
}

#[cfg(test)]
mod tests;
