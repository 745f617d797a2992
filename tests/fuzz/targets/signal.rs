//! Signals of a voice agent, one JSON text a line, told to one conversation and judged by the
//! policy. A refusal names a member and nothing that was said, what is told stays bounded, and
//! the fact that crosses the queue comes out of it unchanged.

use std::sync::LazyLock;

use handoff::clock::{Moment, Now, Timestamp};
use handoff::conversation::{CallerIdentity, Conversation, TransferStanding};
use handoff::event::{CallEvent, Evaluable, Fact};
use handoff::id::{CallId, EdgeId, TenantId, TransferId};
use handoff::policy::{Policy, Trigger};
use handoff::signal::parse::{Parsed, SIGNAL_BYTES_MAX};
use handoff::signal::{Signal, SignalBody};

use crate::harness::{Behaviour, Target};

pub(crate) const TARGET: Target = Target { name: "signal", words: WORDS, run };

static POLICY: LazyLock<Policy> = LazyLock::new(Policy::default);

fn run(input: &[u8]) -> Behaviour {
    let mut behaviour = Behaviour::new();
    let mut at = moment(0);
    let mut conversation = Conversation::new(at, CallerIdentity::default(), None, "p@1".to_owned());
    for (line, bytes) in input.split(|byte| *byte == b'\n').take(LINES_MAX).enumerate() {
        at = moment(line as u64);
        match Signal::parse_bytes(bytes) {
            Ok(Parsed { signal, .. }) => {
                assert!(bytes.len() <= SIGNAL_BYTES_MAX, "{} bytes were taken", bytes.len());
                behaviour.note(signal.kind());
                if let Some(trigger) = told(&mut conversation, at, &signal) {
                    behaviour.note(&trigger.rule_id);
                }
            }
            Err(bad) => {
                let text = bad.to_string();
                assert!(text.len() <= REFUSAL_BYTES_MAX, "a refusal of {} bytes", text.len());
                assert!(!text.contains(NUMBER), "a refusal repeats what was said: {text}");
                behaviour.note(&text);
            }
        }
    }
    let context = conversation.context();
    assert!(context.turns.len() <= 400 && context.collected.len() <= 40 && context.tools.len() <= 20);
    behaviour
}

/// What the signal means to the policy, across the queue and back.
fn told(conversation: &mut Conversation, at: Moment, signal: &Signal) -> Option<Trigger> {
    let stimulus = conversation.apply(at, signal);
    let snapshot = conversation.snapshot(at.now, TransferStanding::None);
    let trigger = POLICY.evaluate(&snapshot, &stimulus);
    if let Some(trigger) = &trigger {
        assert!(trigger.evidence.chars().count() <= 200, "evidence is short");
        assert!(!trigger.evidence.contains(NUMBER), "evidence holds no caller's number");
    }
    let fact = Fact::SignalReceived {
        id: signal.id.clone(),
        kind: signal.kind().to_owned(),
        values: signal.values(),
    };
    let shown = format!("{fact:?} {snapshot:?} {stimulus:?} {signal:?}");
    assert!(!shown.contains(NUMBER) || is_in_a_label(signal), "a number is in the clear: {shown}");
    let call = CallId::from_random(7);
    let transfer_id = TransferId::of(&call, 1);
    let evaluable = Evaluable { snapshot, stimulus, transfer_id, context: Some(conversation.context()) };
    let event = CallEvent {
        edge: EdgeId::parse("edge-1").expect("a valid id"),
        tenant: TenantId::parse("t_acme").expect("a valid id"),
        call,
        seq: 1,
        time: at.wall,
        mono_us: at.now.micros(),
        commands: String::new(),
        fact,
        evaluable: Some(Box::new(evaluable)),
    };
    assert_eq!(CallEvent::from_json(&event.to_json()), Ok(event), "what crosses the queue is unchanged");
    trigger
}

/// Labels are the voice agent's own names for things. A mutation may move a number into one.
fn is_in_a_label(signal: &Signal) -> bool {
    let has = |label: &Option<String>| label.as_ref().is_some_and(|label| label.contains(NUMBER));
    signal.id.contains(NUMBER)
        || match &signal.body {
            SignalBody::CallStarted { agent, language, .. } => has(agent) || has(language),
            SignalBody::Turn { turn, .. } => has(turn),
            SignalBody::TransferRequest(request) => has(&request.queue),
            SignalBody::TurnPartial { .. }
            | SignalBody::Intent { .. }
            | SignalBody::Topic { .. }
            | SignalBody::Field { .. }
            | SignalBody::Sentiment { .. }
            | SignalBody::Confidence { .. }
            | SignalBody::DisclosureMade { .. }
            | SignalBody::Consent { .. }
            | SignalBody::Dtmf { .. }
            | SignalBody::Tool { .. }
            | SignalBody::TransferCancel
            | SignalBody::Resolved { .. }
            | SignalBody::Error { .. }
            | SignalBody::X => false,
        }
}

fn moment(line: u64) -> Moment {
    let now = Now::from_millis(1_000 + 2_000 * line);
    Moment { now, wall: Timestamp::from_unix_millis(1_795_330_800_000) }
}

/// In many of the corpus's values; it must be in no refusal, evidence, fact or `Debug` text.
const NUMBER: &str = "5555550142";
/// A member's path and a fault.
const REFUSAL_BYTES_MAX: usize = 120;
/// Signals of one input.
const LINES_MAX: usize = 64;

const WORDS: &[&str] = &[
    r#"{"v":1,"id":"w1","type":"transfer.cancel"}"#,
    r#""v":1"#,
    r#""id":"#,
    r#""type":"turn""#,
    r#""type":"field""#,
    r#""type":"intent""#,
    r#""type":"topic""#,
    r#""type":"transfer.request""#,
    r#""type":"confidence""#,
    r#""type":"tool""#,
    r#""type":"dtmf""#,
    r#""type":"consent""#,
    r#""type":"disclosure.made""#,
    r#""type":"resolved""#,
    r#""type":"x""#,
    r#""data":{"#,
    r#""speaker":"caller""#,
    r#""speaker":"agent""#,
    r#""text":"I want a person""#,
    r#""text":"+15555550142""#,
    r#""name":"phone""#,
    r#""value":"+15555550142""#,
    r#""confidence":0.1"#,
    r#""regulated":true"#,
    r#""reason":"regulatory""#,
    r#""verified":true"#,
    r#""turn":"t1""#,
    r#""interrupted":true"#,
    r#""ok":false"#,
    r#""digits":"0""#,
    r#""fields":{"a":1}"#,
    "\\u0000",
    "\\ud83d\\ude42",
    "\\ud800",
    "\u{feff}",
    "null",
    "true",
    "-0",
    "1e308",
    "1e-400",
    "0.5",
    "[[[[",
    "{}",
    "[]",
    "\"\"",
    "chest pain",
    "my card is 4111 1111 1111 1111",
    "\n",
];
