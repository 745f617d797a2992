//! `send-webhook` over a scripted network and a clock that only sleeping moves.

use std::collections::VecDeque;
use std::sync::Mutex;

use handoff::audit::AuditMessage;
use handoff::clock::{Now, Timestamp};
use handoff::delivery::LIVE_BUDGET;
use handoff::id::{CallId, DestinationId, EdgeId, TenantId, TransferId};
use handoff::webhook::Secret;

use super::*;
use crate::config::Content;
use crate::outbox::JOB_VERSION;
use crate::ports::{AUDIT, PortError, WEBHOOKS_DURABLE};

#[derive(Default)]
struct World {
    now: Mutex<Now>,
    answers: Mutex<VecDeque<(u64, AttemptResult, bool)>>,
    sent: Mutex<Vec<(Now, WebhookRequest)>>,
    queued: Mutex<Vec<Outgoing>>,
    states: Mutex<Vec<DeliveryState>>,
    disabled: Mutex<Vec<String>>,
    breakers: Breakers,
}

impl World {
    /// Answers in order: how long each took, what it was, whether it popped.
    fn answering(answers: &[(u64, AttemptResult, bool)]) -> Self {
        Self { answers: Mutex::new(answers.iter().copied().collect()), ..Self::default() }
    }

    fn queued_to(&self, queue: &str) -> Vec<Outgoing> {
        self.queued.lock().unwrap().iter().filter(|message| message.queue == queue).cloned().collect()
    }

    fn kinds(&self) -> Vec<String> {
        let audited = self.queued_to(AUDIT);
        audited.iter().map(|m| AuditMessage::from_json(&m.body).unwrap().entry.kind).collect()
    }

    fn commands(&self) -> Vec<CommandBody> {
        let commands = self.queued_to("commands-edge-1");
        commands.iter().map(|m| serde_json::from_slice::<Command>(&m.body).unwrap().body).collect()
    }

    async fn handle(&self, job: &WebhookJob) -> Result<Handled, Failure> {
        handle(self, self, self, &self.breakers, &config(), &job.outgoing().body, 0).await
    }
}

impl Clock for World {
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_millis(0)
    }

    fn now(&self) -> Now {
        *self.now.lock().unwrap()
    }

    async fn sleep_until(&self, at: Now) {
        let mut now = self.now.lock().unwrap();
        *now = at.max(*now);
    }
}

impl SendWebhook for World {
    async fn send(&self, request: WebhookRequest) -> WebhookAnswer {
        let (took, result, popped) =
            self.answers.lock().unwrap().pop_front().unwrap_or((u64::MAX, AttemptResult::NoAnswer, false));
        let mut now = self.now.lock().unwrap();
        self.sent.lock().unwrap().push((*now, request.clone()));
        *now = *now + Duration::from_millis(took).min(request.timeout);
        WebhookAnswer { result, popped, response_sha256: None }
    }
}

impl Enqueue for World {
    async fn enqueue(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        self.queued.lock().unwrap().extend(messages);
        Ok(())
    }
}

impl Deliveries for World {
    async fn delivery(&self, id: &str, to: &str) -> Result<Option<DeliveryState>, PortError> {
        let states = self.states.lock().unwrap();
        Ok(states.iter().rev().find(|state| state.message_id == id && state.destination == to).cloned())
    }

    async fn note_delivery(&self, state: DeliveryState) -> Result<(), PortError> {
        self.states.lock().unwrap().push(state);
        Ok(())
    }

    async fn disable(&self, destination: &str) -> Result<(), PortError> {
        self.disabled.lock().unwrap().push(destination.to_owned());
        Ok(())
    }

    async fn is_disabled(&self, destination: &str) -> Result<bool, PortError> {
        Ok(self.disabled.lock().unwrap().iter().any(|disabled| disabled == destination))
    }
}

fn config() -> FunctionsConfig {
    let destination = Destination {
        id: DestinationId::parse("crm").unwrap(),
        url: "https://crm.example/".to_owned(),
        secret: Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(),
        old_secret: None,
        content: Content::Thin,
        required: true,
        events: Vec::new(),
        allow_private: Vec::new(),
        grants: handoff::payload::Grants::default(),
    };
    FunctionsConfig {
        tenant: TenantId::parse("t_acme").unwrap(),
        edge: EdgeId::parse("edge-1").unwrap(),
        policies: Vec::new(),
        catalog: std::sync::Arc::default(),
        queues: Vec::new(),
        destinations: vec![destination],
        public_url: "https://edge.example".to_owned(),
    }
}

fn offered(lane: Lane) -> WebhookJob {
    WebhookJob {
        version: JOB_VERSION,
        tenant: TenantId::parse("t_acme").unwrap(),
        edge: EdgeId::parse("edge-1").unwrap(),
        commands: String::new(),
        call: CallId::parse("call_0001").unwrap(),
        transfer: Some(TransferId::parse("xfer_1").unwrap()),
        revision: Some(2),
        message_id: "msg_1".to_owned(),
        kind: WebhookKind::Offered,
        destination: DestinationId::parse("crm").unwrap(),
        lane,
        body: "{}".to_owned(),
    }
}

const OK: AttemptResult = AttemptResult::Answered { status: 200, retry_after: None };
const DOWN: AttemptResult = AttemptResult::Answered { status: 500, retry_after: None };
const GONE: AttemptResult = AttemptResult::Answered { status: 410, retry_after: None };

#[tokio::test]
async fn a_message_that_pops_is_acknowledged_to_the_edge() {
    let world = World::answering(&[(80, OK, true)]);
    assert_eq!(world.handle(&offered(Lane::Live)).await, Ok(Handled::Done));
    assert_eq!(world.kinds(), ["webhook.attempted", "webhook.delivered"]);
    let [CommandBody::PayloadAcknowledged { destination, revision: 2, .. }] = &world.commands()[..] else {
        panic!("one acknowledgement: {:?}", world.commands())
    };
    assert_eq!(destination, "crm");
    assert_eq!(world.handle(&offered(Lane::Live)).await, Ok(Handled::Done));
    assert_eq!(world.sent.lock().unwrap().len(), 1, "a redelivered record is not sent again");
}

#[tokio::test]
async fn sent_is_not_acknowledged() {
    let world = World::answering(&[(80, OK, false)]);
    world.handle(&offered(Lane::Live)).await.unwrap();
    assert_eq!(world.commands(), []);
}

#[tokio::test]
async fn a_crm_that_is_down_degrades_the_transfer_within_the_budget_and_is_tried_for_days() {
    let world = World::answering(&[]);
    assert_eq!(world.handle(&offered(Lane::Live)).await, Ok(Handled::Done));
    assert!(world.now().since(Now::ZERO) <= LIVE_BUDGET);
    let sent = world.sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 2, "two tries of two seconds fill the budget");
    assert!(sent[1].0 >= sent[0].0 + sent[0].1.timeout, "tries never overlap");
    assert!(sent.iter().all(|(_, request)| request.id == "msg_1" && request.connect_timeout == LIVE_CONNECT));
    assert_eq!(world.kinds(), ["webhook.attempted", "webhook.attempted", "webhook.failed"]);
    assert!(matches!(&world.commands()[..], [CommandBody::PayloadUndelivered { .. }]));
    let continued = world.queued_to(WEBHOOKS_DURABLE);
    let continued = WebhookJob::from_json(&continued[0].body).unwrap();
    assert!(continued == offered(Lane::Durable), "the same id and the same bytes");

    *world.answers.lock().unwrap() = [(10, DOWN, false), (10, OK, false)].into();
    let deferred = world.handle(&continued).await.unwrap();
    assert_eq!(deferred, Handled::Defer(Duration::from_secs(5)));
    assert_eq!(world.handle(&continued).await, Ok(Handled::Done));
    let state = world.delivery("msg_1", "crm").await.unwrap().unwrap();
    assert_eq!((state.attempts, state.durable_failed, state.status), (4, 1, Some(200)));
    assert_eq!(state.state, "delivered");
}

#[tokio::test]
async fn every_try_is_its_own_producer() {
    let world = World::answering(&[(1, DOWN, false), (1, DOWN, false), (1, OK, false)]);
    world.handle(&offered(Lane::Live)).await.unwrap();
    let entries: Vec<(String, u64)> = world
        .queued_to(AUDIT)
        .iter()
        .map(|m| AuditMessage::from_json(&m.body).unwrap().entry)
        .map(|entry| (entry.producer.to_string().rsplit_once(':').unwrap().1.to_owned(), entry.pseq))
        .collect();
    let expected = [("1", 0), ("2", 0), ("3", 0), ("3", 1)].map(|(attempt, pseq)| (attempt.to_owned(), pseq));
    assert_eq!(entries, expected);
}

#[tokio::test]
async fn a_try_that_died_before_its_result_was_kept_is_repeated_without_contradicting_itself() {
    let world = World::answering(&[(1, OK, false), (1, OK, false)]);
    world.handle(&offered(Lane::Live)).await.unwrap();
    // The process died after the entries of the try were queued: only its number is known.
    world.states.lock().unwrap().truncate(1);
    world.now.lock().unwrap().clone_from(&Now::from_millis(60_000));
    assert_eq!(world.handle(&offered(Lane::Live)).await, Ok(Handled::Done));
    let mut places: Vec<(String, u64)> = world
        .queued_to(AUDIT)
        .iter()
        .map(|m| AuditMessage::from_json(&m.body).unwrap().entry)
        .map(|entry| (entry.producer.to_string(), entry.pseq))
        .collect();
    assert_eq!(places.len(), 4, "two tries, each attempted and delivered");
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 4, "no number is used for two different entries");
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled() {
    let world = World::answering(&[(1, GONE, false)]);
    world.handle(&offered(Lane::Live)).await.unwrap();
    assert_eq!(world.queued_to(WEBHOOKS_DURABLE), []);
    let mut next = offered(Lane::Live);
    next.message_id = "msg_2".to_owned();
    world.handle(&next).await.unwrap();
    assert_eq!(world.sent.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_job_for_nobody_or_of_another_version_is_permanent() {
    let world = World::default();
    let mut job = offered(Lane::Live);
    job.destination = DestinationId::parse("unknown").unwrap();
    assert!(matches!(world.handle(&job).await, Err(Failure::Permanent(_))));
    job.version = 2;
    assert!(matches!(world.handle(&job).await, Err(Failure::Permanent(_))));
}

#[tokio::test]
async fn a_destination_that_is_down_rests_while_its_messages_wait_and_none_is_lost() {
    let down = (1, AttemptResult::NoAnswer, false);
    let world = World::answering(&[down, down, down, down, down, (1, OK, false)]);
    world.handle(&offered(Lane::Live)).await.unwrap();
    world.handle(&WebhookJob { message_id: "msg_2".to_owned(), ..offered(Lane::Live) }).await.unwrap();
    assert_eq!(world.sent.lock().unwrap().len(), 5, "the sixth try was not made");
    assert_eq!(world.queued_to(WEBHOOKS_DURABLE).len(), 2, "both go on in the durable lane");
    let third = WebhookJob { message_id: "msg_3".to_owned(), ..offered(Lane::Durable) };
    let Ok(Handled::Hold(rest)) = world.handle(&third).await else { panic!("it may not be tried yet") };
    assert!(rest > Duration::from_secs(20), "{rest:?}");
    let woken = world.now() + rest;
    world.sleep_until(woken).await;
    assert_eq!(world.handle(&third).await, Ok(Handled::Done));
    assert!(world.handle(&offered(Lane::Durable)).await.is_ok());
}

#[tokio::test]
async fn what_an_operator_holds_is_not_sent_and_follows_when_it_is_let_go() {
    let world = World::answering(&[(1, OK, false)]);
    world.breakers.hold_all(true);
    assert_eq!(world.handle(&offered(Lane::Live)).await, Ok(Handled::Done));
    let queued = world.queued_to(WEBHOOKS_DURABLE);
    assert_eq!((world.sent.lock().unwrap().len(), queued.len()), (0, 1), "it goes on in the durable lane");
    let Ok(Handled::Hold(rest)) = world.handle(&offered(Lane::Durable)).await else { panic!("it is held") };
    assert_eq!(rest, Duration::from_secs(900));
    world.breakers.hold_all(false);
    assert_eq!(world.handle(&offered(Lane::Durable)).await, Ok(Handled::Done));
    assert_eq!(world.sent.lock().unwrap().len(), 1);
}
