//! What a human agent's page may say, against a desktop with one offer: only what is offered is
//! acted on, a refusal repeats no more than a plain name, and nothing said changes what is shown.

use edge_media::desktop::{DesktopInput, DesktopSession, Desktops};
use handoff::call::DesktopPush;
use handoff::clock::Now;
use handoff::id::{CallId, HumanAgentId, TransferId};
use handoff::pii::Pii;
use serde_json::Value;

use crate::harness::{Behaviour, Target};

pub(crate) const TARGET: Target = Target { name: "desktop", words: WORDS, run };

fn run(input: &[u8]) -> Behaviour {
    let mut behaviour = Behaviour::new();
    // A text frame that is no UTF-8 never leaves the WebSocket.
    let Ok(text) = core::str::from_utf8(input) else { return behaviour };
    let mut desktops = Desktops::default();
    let (ana, ben) = (agent("agent_ana"), agent("agent_ben"));
    let (transfer, call) = (TransferId::parse("xfer_1").expect("a valid id"), CallId::from_random(7));
    for push in [
        DesktopPush::Incoming { transfer: transfer.clone(), call: call.clone(), attempt: 1, waited_ms: 0 },
        DesktopPush::Bridged { transfer: transfer.clone() },
    ] {
        desktops.push(Now::ZERO, &ana, &push).expect("an offer is shown");
    }
    let before = state(&mut desktops, &ana, 1);
    match desktops.receive(&ana, text) {
        Ok((of, said)) => {
            assert_eq!((&of, said.transfer()), (&call, &transfer), "only what is offered is acted on");
            let name = format!("{said:?}");
            behaviour.note(name.split([' ', '{']).next().unwrap_or_default());
            if let DesktopInput::Acked { revision, .. } = said {
                panic!("revision {revision} was never shown");
            }
        }
        Err(refusal) => {
            let message = refusal.to_message();
            assert!(message.len() <= REFUSAL_BYTES_MAX, "{} bytes for {}", message.len(), text.len());
            let parsed: Value = serde_json::from_str(&message).expect("a refusal is JSON");
            assert_eq!(parsed.get("type"), Some(&Value::from("refused")));
            behaviour.note(&message);
        }
    }
    assert!(desktops.receive(&ben, text).is_err(), "nobody acts on another's offer");
    assert_eq!(state(&mut desktops, &ana, 2), before, "words of a page change nothing that is shown");
    behaviour
}

fn agent(name: &str) -> HumanAgentId {
    HumanAgentId::parse(name).expect("a valid id")
}

fn state(desktops: &mut Desktops, who: &HumanAgentId, session: u64) -> String {
    let name = Pii::new("Ana Lind".to_owned());
    let session = DesktopSession(session);
    let shown = desktops.connect(Now::ZERO, who, &name, session).expect("two pages are allowed");
    desktops.disconnect(who, session);
    shown.into_exposed()
}

const REFUSAL_BYTES_MAX: usize = 256;

const WORDS: &[&str] = &[
    r#"{"type":"accept","transfer":"xfer_1"}"#,
    r#""type":"ack""#,
    r#""type":"accept""#,
    r#""type":"decline""#,
    r#""type":"hand_back""#,
    r#""transfer":"xfer_1""#,
    r#""transfer":"xfer_2""#,
    r#""revision":1"#,
    r#""revision":0"#,
    r#""revision":4294967296"#,
    r#""reason":"busy""#,
    r#""reason":"wrong_team""#,
    r#""reason":null"#,
    r#""seq":1"#,
    "null",
    "{}",
    "[]",
    "\"\"",
    ",",
    "\\u0000",
    "1e999",
    "[[[[",
];
