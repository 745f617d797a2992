//! All handlers together, over the embedded store and a real receiver on the loopback.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use handoff::audit::feed;
use handoff::call::outcome::{FallbackTaken, Outcome};
use handoff::clock::{Day, Timestamp};
use handoff::command::CommandBody;
use handoff::conversation::{Context, Snapshot, Stimulus, TransferStanding};
use handoff::event::{CallEvent, Evaluable, Fact, Mode, Played};
use handoff::id::{CallId, DestinationId, EdgeId, QueueId, TenantId, TransferId};
use handoff::metrics::row::Row as Measured;
use handoff::pii::Pii;
use handoff::policy::{Decision, Policy};
use handoff::signal::Speaker;
use handoff::webhook::{Secret, verify};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::audit_read::{Reader, verify_store};
use crate::config::{Content, Destination};
use crate::disposition::{self, Disposition, Taken};
use crate::outbox::CallOutbox;
use crate::ports::{PARKED, ReadRows};
use crate::sqlite::{Row, nonce};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A CRM that keeps what it gets and answers with `status`.
async fn crm(status: StatusCode) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let hook = async move |State(seen): State<Seen>, headers: HeaderMap, body: Bytes| {
        seen.lock().unwrap().push((headers, body));
        (status, r#"{"popped":true}"#)
    };
    let app = Router::new().route("/hook", post(hook)).with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, seen)
}

fn policy() -> Arc<Policy> {
    Arc::new(Policy::from_toml(include_str!("../../../handoff/policies/default.toml")).unwrap())
}

fn config(crm: SocketAddr, required: bool) -> FunctionsConfig {
    // HTTP clients need a TLS provider even for plain HTTP; a second installation is refused.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    FunctionsConfig {
        tenant: tenant(),
        edge: EdgeId::parse("edge-1").unwrap(),
        policies: vec![policy()],
        catalog: Arc::default(),
        queues: Vec::new(),
        destinations: vec![Destination {
            id: DestinationId::parse("crm").unwrap(),
            url: format!("http://{crm}/hook"),
            secret: Secret::parse(SECRET).unwrap(),
            old_secret: None,
            content: Content::Thin,
            required,
            events: Vec::new(),
            allow_private: vec!["127.0.0.1/32".parse().unwrap()],
            grants: handoff::payload::Grants::default(),
        }],
        public_url: "https://edge.example".to_owned(),
    }
}

fn tenant() -> TenantId {
    TenantId::parse("t_acme").unwrap()
}

fn call() -> CallId {
    CallId::parse("call_0001").unwrap()
}

fn transfer() -> TransferId {
    TransferId::of(&call(), 1)
}

/// The edge's side of a call: facts in, rows out.
struct Edge {
    store: Store,
    outbox: CallOutbox,
    seq: u64,
}

impl Edge {
    async fn new(store: &Store, config: &FunctionsConfig) -> Self {
        let dek = store.call_key(&tenant(), &call()).committed().await.unwrap().value;
        Self { store: store.clone(), outbox: CallOutbox::new(Arc::new(config.clone()), dek), seq: 0 }
    }

    async fn emit(&mut self, fact: Fact, evaluable: Option<Evaluable>) {
        let event = CallEvent {
            edge: EdgeId::parse("edge-1").unwrap(),
            tenant: tenant(),
            call: call(),
            seq: self.seq,
            time: self.store.wall(),
            mono_us: self.seq,
            commands: String::new(),
            fact,
            evaluable: evaluable.map(Box::new),
        };
        self.seq += 1;
        let rows: Vec<Row> = self.outbox.rows(&event, nonce().unwrap()).unwrap();
        self.store.submit(rows).committed().await.unwrap();
    }

    async fn asks_for_a_person(&mut self) {
        let text = Pii::new("I want to talk to a real person please".to_owned());
        self.emit(
            Fact::CallReceived {
                trunk: "carrier".into(),
                caller_tag: None,
                direction: "inbound".into(),
                call_type: None,
            },
            None,
        )
        .await;
        self.emit(
            Fact::DisclosureAi(Played {
                text_id: "disclosure.1".into(),
                lang: "en".into(),
                played_pm: 1000,
                from_ms: 0,
                to_ms: 2_000,
            }),
            None,
        )
        .await;
        self.emit(
            Fact::Utterance {
                segment: 0,
                speaker: Speaker::Caller,
                offset_ms: 3_000,
                text: Some(text.clone()),
            },
            Some(Evaluable {
                snapshot: Snapshot {
                    elapsed_ms: 3_000,
                    turns_caller: 1,
                    policy_version: policy().version().to_owned(),
                    transfer: TransferStanding::None,
                    ..Snapshot::default()
                },
                stimulus: Stimulus::Turn { speaker: Speaker::Caller, text },
                transfer_id: transfer(),
                context: Some(Context { recording_consent: "not_asked".into(), ..Context::default() }),
            }),
        )
        .await;
    }

    async fn bridges_and_ends(&mut self, decision: Decision) {
        let queue = QueueId::parse("nurses").unwrap();
        let facts = [
            Fact::TransferDecided { decision, queue, disclosed: true, mode: Mode::Warm },
            Fact::BridgeCompleted { transfer_id: transfer(), degraded: None },
            Fact::TransferEnded {
                transfer_id: transfer(),
                outcome: Outcome::Completed,
                fallback: FallbackTaken::None,
                skew_ms: Some(1),
                class: "success".into(),
            },
            Fact::CallEnded { cause: "normal".into(), side: "caller".into() },
            Fact::ProducerFinal { count: 8 },
        ];
        for fact in facts {
            self.emit(fact, None).await;
        }
    }
}

async fn decided(commands: &mut mpsc::Receiver<Command>) -> Decision {
    loop {
        if let CommandBody::TransferDecided { decision } = commands.recv().await.unwrap().body {
            return decision;
        }
    }
}

async fn stop(workers: Workers) {
    tokio::task::spawn_blocking(|| workers.stop()).await.unwrap();
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Every member that the handlers record is a column or left out, on purpose, and a feed goes on
/// from any cursor without a gap.
fn the_feed_is_whole(reader: &Reader) {
    for shown in ["call_0001", "call_0001#late"].iter().flat_map(|chain| reader.show(chain).unwrap()) {
        for member in shown.body.as_object().unwrap().keys() {
            let ways = [feed::COLUMNS, feed::LEFT_OUT].iter().filter(|way| way.contains(&member.as_str()));
            assert_eq!(ways.count(), 1, "{member} of {}: a column or left out?", shown.kind);
        }
    }
    let whole = reader.feed(0, 1_000).unwrap();
    assert!(whole.iter().all(|(_, row)| row["recorded_at"].is_string()), "{whole:?}");
    for (at, (cursor, _)) in (1..).zip(&whole) {
        assert_eq!(reader.feed(*cursor, 1_000).unwrap(), whole[at..]);
        assert_eq!(reader.feed(0, at).unwrap(), whole[..at], "a page");
    }
    let said = whole.iter().find(|(_, row)| row["type"] == "disposition.received");
    let (_, said) = said.expect("what came after the call is a row too");
    assert_eq!((&said["resolved"], &said["acw_s"]), (&json!(true), &json!(5)));
}

#[tokio::test]
async fn a_call_runs_through_all_handlers_and_its_chain_verifies() {
    let dir = directory();
    let (address, seen) = crm(StatusCode::OK).await;
    let config = config(address, true);
    let store = Store::open(dir.path()).unwrap();
    let (workers, mut commands) = Workers::start(store.clone(), config.clone()).unwrap();
    let mut edge = Edge::new(&store, &config).await;
    edge.asks_for_a_person().await;
    let decision = decided(&mut commands).await;
    let CommandBody::PayloadReady { transfer_id, .. } = commands.recv().await.unwrap().body else {
        panic!("the payload follows the decision")
    };
    assert_eq!(transfer_id, transfer());
    let CommandBody::PayloadAcknowledged { destination, revision, .. } = commands.recv().await.unwrap().body
    else {
        panic!("the CRM shows it")
    };
    assert_eq!((destination.as_str(), revision), ("crm", 2));
    edge.bridges_and_ends(decision).await;
    workers.idle().await.unwrap();
    let said = json!({"transfer_id": transfer(), "code": "done", "resolved": true, "acw_s": 5});
    let said = Disposition::parse(said.as_object().unwrap()).unwrap();
    let crm = DestinationId::parse("crm").unwrap();
    assert_eq!(disposition::take(&store, &tenant(), &crm, "msg_1", &said).await.unwrap(), Taken::Recorded);
    workers.idle().await.unwrap();
    stop(workers).await;

    let report = verify_store(dir.path(), None);
    assert_eq!((report.exit_code(), report.findings), (0, vec![]));
    let reader = Reader::open(dir.path()).unwrap();
    let kinds: Vec<String> = reader.show("call_0001").unwrap().into_iter().map(|shown| shown.kind).collect();
    for kind in
        ["trigger.evaluated", "payload.built", "webhook.delivered", "transfer.decided", "chain.closed"]
    {
        assert!(kinds.iter().any(|known| known == kind), "{kind} in {kinds:?}");
    }
    the_feed_is_whole(&reader);
    let mut chains = reader.list().unwrap();
    chains.sort_by(|one, other| one.chain.cmp(&other.chain));
    let closed: Vec<(&str, &str)> =
        chains.iter().map(|chain| (chain.chain.as_str(), chain.state.as_str())).collect();
    assert_eq!(closed, [("call_0001", "closed"), ("call_0001#late", "open")]);
    assert!(reader.payload(&transfer()).unwrap().is_some());
    let webhooks = reader.webhooks(&call()).unwrap();
    assert!(webhooks.iter().all(|webhook| webhook.status == Some(200) && webhook.attempts == 1));
    assert_eq!(webhooks.len(), 4, "offered, decided, bridged, closed");
    for (headers, body) in seen.lock().unwrap().iter() {
        let header = |name: &str| headers[name].to_str().unwrap();
        let at: i64 = header("webhook-timestamp").parse().unwrap();
        assert_eq!(verify(SECRET, header("webhook-id"), at, body, header("webhook-signature"), at), Ok(()));
    }
    assert_eq!(store.depth(PARKED).unwrap(), 0);
    let day = Day::of(chains[0].started_at);
    let rows = store.rows(&tenant(), day).await.unwrap();
    let [row] = rows.as_slice() else { panic!("one transfer: {rows:?}") };
    let measured: Measured = serde_json::from_slice(&row.body).unwrap();
    assert_eq!((row.key.as_str(), measured.left_out), (transfer().as_str(), None));
    let said = measured.transfer.unwrap().disposition.unwrap();
    assert_eq!((said.resolved, said.acw_s), (true, Some(5)), "what came late is measured too");
}

#[tokio::test]
async fn a_reload_reaches_the_handlers_and_a_running_call_keeps_its_policy() {
    let dir = directory();
    let (address, _) = crm(StatusCode::OK).await;
    let reloaded = config(address, true);
    let before = FunctionsConfig { destinations: Vec::new(), ..reloaded.clone() };
    let store = Store::open(dir.path()).unwrap();
    let (workers, mut commands) = Workers::start(store.clone(), before).unwrap();
    let edited = format!("{}\n# edited\n", include_str!("../../../handoff/policies/default.toml"));
    let edited = Arc::new(Policy::from_toml(&edited).unwrap());
    assert_ne!(edited.version(), policy().version());
    workers.reload(FunctionsConfig { policies: vec![edited], ..reloaded.clone() });
    let mut edge = Edge::new(&store, &reloaded).await;
    edge.asks_for_a_person().await;
    let decision = decided(&mut commands).await;
    assert_eq!(decision.policy_version, policy().version());
    edge.bridges_and_ends(decision).await;
    workers.idle().await.unwrap();
    stop(workers).await;
    let webhooks = Reader::open(dir.path()).unwrap().webhooks(&call()).unwrap();
    assert!(
        webhooks.len() == 4 && webhooks.iter().all(|webhook| webhook.status == Some(200)),
        "{webhooks:?}"
    );
    assert_eq!(store.depth(PARKED).unwrap(), 0);
}

#[tokio::test]
async fn a_crm_that_is_down_is_reported_and_does_not_keep_the_call_open() {
    let dir = directory();
    let (address, _) = crm(StatusCode::UNPROCESSABLE_ENTITY).await;
    let config = config(address, true);
    let store = Store::open(dir.path()).unwrap();
    let (workers, mut commands) = Workers::start(store.clone(), config.clone()).unwrap();
    let mut edge = Edge::new(&store, &config).await;
    edge.asks_for_a_person().await;
    let decision = decided(&mut commands).await;
    loop {
        if let CommandBody::PayloadUndelivered { destination, .. } = commands.recv().await.unwrap().body {
            assert_eq!(destination, "crm");
            break;
        }
    }
    edge.bridges_and_ends(decision).await;
    workers.idle().await.unwrap();
    stop(workers).await;
    assert_eq!(verify_store(dir.path(), None).exit_code(), 0);
}

#[tokio::test]
async fn while_the_handlers_are_paused_everything_waits_and_nothing_is_lost() {
    let dir = directory();
    let (address, _) = crm(StatusCode::OK).await;
    let config = config(address, false);
    let store = Store::open(dir.path()).unwrap();
    let (workers, mut commands) = Workers::start(store.clone(), config.clone()).unwrap();
    workers.pause();
    let mut edge = Edge::new(&store, &config).await;
    edge.asks_for_a_person().await;
    let waiting = store.outstanding().unwrap();
    assert_eq!(waiting, 4, "three entries and a signal");
    assert!(commands.try_recv().is_err());
    workers.resume();
    let decision = decided(&mut commands).await;
    edge.bridges_and_ends(decision).await;
    workers.idle().await.unwrap();
    stop(workers).await;
    assert_eq!(verify_store(dir.path(), Some("call_0001")).exit_code(), 0);
}

#[tokio::test]
async fn garbage_is_parked_and_its_neighbours_go_on() {
    let dir = directory();
    let (address, _) = crm(StatusCode::OK).await;
    let config = config(address, false);
    let store = Store::open(dir.path()).unwrap();
    let (workers, mut commands) = Workers::start(store.clone(), config.clone()).unwrap();
    for queue in [SIGNALS, DECISIONS, WEBHOOKS_LIVE, WEBHOOKS_DURABLE, AUDIT, "commands-edge-1"] {
        let garbage = crate::ports::Outgoing::to(queue, &call(), b"{\"version\":1".to_vec());
        store.submit(vec![Row::Send(garbage)]).committed().await.unwrap();
    }
    let mut edge = Edge::new(&store, &config).await;
    edge.asks_for_a_person().await;
    let decision = decided(&mut commands).await;
    edge.bridges_and_ends(decision).await;
    workers.idle().await.unwrap();
    assert_eq!(store.depth(PARKED).unwrap(), 6);
    stop(workers).await;
    assert_eq!(verify_store(dir.path(), None).exit_code(), 0);
}

#[tokio::test]
async fn a_stale_signal_is_acknowledged_without_a_decision() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let (workers, mut commands) =
        Workers::start(store.clone(), config(SocketAddr::from(([127, 0, 0, 1], 9)), false)).unwrap();
    let event = CallEvent {
        edge: EdgeId::parse("edge-1").unwrap(),
        tenant: tenant(),
        call: call(),
        seq: 0,
        time: Timestamp::from_unix_millis(store.wall().unix_millis() - 10_500),
        mono_us: 0,
        commands: String::new(),
        fact: Fact::ProducerFinal { count: 1 },
        evaluable: Some(Box::new(Evaluable {
            snapshot: Snapshot { policy_version: policy().version().to_owned(), ..Snapshot::default() },
            stimulus: Stimulus::Digit { zero: true },
            transfer_id: transfer(),
            context: None,
        })),
    };
    let row = Row::Send(crate::ports::Outgoing::to(SIGNALS, &call(), event.to_json()));
    store.submit(vec![row]).committed().await.unwrap();
    workers.idle().await.unwrap();
    stop(workers).await;
    assert!(commands.try_recv().is_err());
}
