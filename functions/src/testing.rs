//! What the tests of the handlers share: a call in an embedded store, under a clock that
//! stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use handoff::clock::{Now, Timestamp};
use handoff::conversation::{Context, Snapshot, Stimulus, Turn};
use handoff::event::{CallEvent, Evaluable, Fact};
use handoff::id::{CallId, DestinationId, EdgeId, TenantId, TransferId};
use handoff::payload::Grants;
use handoff::pii::Pii;
use handoff::policy::Policy;
use handoff::signal::Speaker;
use handoff::webhook::Secret;
use tempfile::TempDir;

use crate::config::{Content, Destination, FunctionsConfig};
use crate::ports::Clock;
use crate::sqlite::Store;
use crate::sqlite::queue::{self, Received};

/// When everything happens.
pub(crate) const T0: i64 = 1_795_330_800_000;

/// What the caller says.
pub(crate) const WORDS: &str = "I want to talk to a real person please";

/// A wall clock that a test moves.
#[derive(Clone)]
pub(crate) struct Hands(Arc<AtomicI64>);

impl Hands {
    pub(crate) fn pass(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst))
    }

    fn now(&self) -> Now {
        Now::ZERO
    }

    async fn sleep_until(&self, _at: Now) {}
}

/// A store in a directory of its own.
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) clock: Hands,
    _dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Hands(Arc::new(AtomicI64::new(T0)));
        let hands = clock.clone();
        let store = Store::open_with(dir.path(), Arc::new(move || hands.wall())).unwrap();
        Self { store, clock, _dir: dir }
    }

    /// Everything that waits in a queue, taken out of it.
    pub(crate) async fn drain(&self, name: &'static str) -> Vec<Received> {
        let taken = self
            .store
            .run(move |tx| {
                let batch = queue::receive(tx, name, 100)?;
                batch.messages.iter().try_for_each(|m| queue::delete(tx, m.id, m.receives))?;
                Ok(batch.messages)
            })
            .committed();
        taken.await.unwrap().value
    }
}

pub(crate) fn tenant() -> TenantId {
    TenantId::parse("t_acme").unwrap()
}

pub(crate) fn call() -> CallId {
    CallId::parse("call_0001").unwrap()
}

pub(crate) fn transfer() -> TransferId {
    TransferId::of(&call(), 1)
}

pub(crate) fn policy() -> Arc<Policy> {
    Arc::new(Policy::from_toml(include_str!("../../handoff/policies/default.toml")).unwrap())
}

pub(crate) fn destination(id: &str) -> Destination {
    Destination {
        id: DestinationId::parse(id).unwrap(),
        url: "https://crm.example/hook".to_owned(),
        secret: Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(),
        old_secret: None,
        content: Content::Thin,
        required: false,
        events: Vec::new(),
        allow_private: Vec::new(),
        grants: Grants::default(),
    }
}

pub(crate) fn config(destinations: Vec<Destination>) -> FunctionsConfig {
    FunctionsConfig {
        tenant: tenant(),
        edge: EdgeId::parse("edge-1").unwrap(),
        policies: vec![policy()],
        catalog: Arc::default(),
        queues: Vec::new(),
        destinations,
        public_url: "https://edge.example".to_owned(),
    }
}

pub(crate) fn event(seq: u64, fact: Fact) -> CallEvent {
    CallEvent {
        edge: EdgeId::parse("edge-1").unwrap(),
        tenant: tenant(),
        call: call(),
        seq,
        time: Timestamp::from_unix_millis(T0),
        mono_us: seq,
        commands: String::new(),
        fact,
        evaluable: None,
    }
}

/// The caller asks for a person, as event `seq`.
pub(crate) fn asked(seq: u64) -> CallEvent {
    let text = Pii::new(WORDS.to_owned());
    let utterance =
        Fact::Utterance { segment: 0, speaker: Speaker::Caller, offset_ms: 3_000, text: Some(text.clone()) };
    let turn = Turn { segment: 0, speaker: Speaker::Caller, text: text.clone(), at_ms: 3_000 };
    let mut event = event(seq, utterance);
    event.evaluable = Some(Box::new(Evaluable {
        snapshot: Snapshot {
            elapsed_ms: 3_000,
            turns_caller: 1,
            policy_version: policy().version().to_owned(),
            ..Snapshot::default()
        },
        stimulus: Stimulus::Turn { speaker: Speaker::Caller, text },
        transfer_id: transfer(),
        context: Some(Context {
            turns: vec![turn],
            recording_consent: "not_asked".to_owned(),
            ..Context::default()
        }),
    }));
    event
}
