//! What crosses the queues and lies in the spool: events, commands, payloads and audit entries,
//! as bytes of whoever can write to a queue. What is read is written to what was read, canonical
//! bytes have one form only, and an error repeats nothing of its text.

use handoff::audit::{AuditMessage, AuditRecord};
use handoff::canonical;
use handoff::command::Command;
use handoff::event::CallEvent;
use handoff::payload::Payload;

use crate::harness::{Behaviour, Target};

pub(crate) const TARGET: Target = Target { name: "event", words: WORDS, run };

fn run(input: &[u8]) -> Behaviour {
    let mut behaviour = Behaviour::new();
    let mut errors = Vec::new();
    match CallEvent::from_json(input) {
        Ok(event) => {
            behaviour.note(event.fact.kind());
            assert_eq!(CallEvent::from_json(&event.to_json()), Ok(event), "events read as they are written");
        }
        Err(error) => errors.push(error.to_string()),
    }
    match AuditMessage::from_json(input) {
        Ok(message) => {
            behaviour.note(&message.entry.kind);
            assert_eq!(
                AuditMessage::from_json(&message.to_json()),
                Ok(message),
                "entries read as they are written"
            );
        }
        Err(error) => errors.push(error.to_string()),
    }
    match Payload::parse(input) {
        Ok(payload) => {
            behaviour.note("payload");
            let bytes = payload.canonical_bytes().expect("what was read can be written");
            assert_eq!(Payload::parse(&bytes), Ok(payload), "payloads read as they are written");
        }
        Err(error) => errors.push(error.to_string()),
    }
    if let Ok(command) = serde_json::from_slice::<Command>(input) {
        behaviour.note("command");
        let bytes = serde_json::to_vec(&command).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<Command>(&bytes).ok(), Some(command), "commands read as written");
    }
    if let Some(record) = AuditRecord::parse(input) {
        behaviour.note("record");
        if let Ok(bytes) = record.canonical() {
            assert_eq!(AuditRecord::parse(&bytes), Some(record), "records read as they are written");
        }
    }
    match canonical::parse_strict(input) {
        Ok(value) => {
            let bytes = canonical::to_bytes(&value).expect("what is in the profile can be written");
            assert_eq!(canonical::parse_canonical(&bytes), Ok(value), "canonical bytes are read back");
            assert_eq!(canonical::parse_canonical(input).is_ok(), bytes == input, "one value, one form");
            behaviour.note("canonical");
        }
        Err(error) => errors.push(error.to_string()),
    }
    for error in &errors {
        assert!(!error.contains(SAID), "an error repeats what was said: {error}");
        behaviour.note(error.split(char::is_numeric).next().unwrap_or_default());
    }
    behaviour
}

/// A caller's words in many of the corpus's texts.
const SAID: &str = "planted words";

const WORDS: &[&str] = &[
    "planted words",
    r#""specversion":"1.0""#,
    r#""subject":"call_0001""#,
    r#""sequence":"00000000000000000007""#,
    r#""version":1"#,
    r#""data":"#,
    r#""fact":"#,
    r#""evaluable":"#,
    r#""type":"transfer.decided""#,
    r#""body":"#,
    r#""leg":0"#,
    r#""played_pm":1001"#,
    r#""entry":"#,
    r#""ct":"AAAA""#,
    r#""sealed":"#,
    r#""producer":"edge-1""#,
    r#""pseq":0"#,
    r#""prev":"#,
    r#""v":"warmbridge-audit/v1""#,
    r#""schema":"warmbridge.handoff/1.0""#,
    r#""revision":"#,
    r#""summary":"#,
    r#""transcript":"#,
    "9007199254740991",
    "9007199254740992",
    "-0",
    "1.0",
    "1e3",
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\\u0000",
    "\\ud800",
    "\\u00e9",
    "é",
    "\u{feff}",
    "[[[[[[[[",
    "}",
    "{",
    ",",
    ":",
];
