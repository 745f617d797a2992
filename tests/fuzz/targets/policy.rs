//! Policy files: refused with a line, or a policy that decides every call. What a policy that
//! loads decides is short, the same twice, and never a second transfer beside the one under way.

use handoff::conversation::{Named, Snapshot, Stimulus, TransferStanding};
use handoff::pii::Pii;
use handoff::policy::{Category, Policy, Verdict};
use handoff::signal::{RequestReason, Speaker};

use crate::harness::{Behaviour, Target};

pub(crate) const TARGET: Target = Target { name: "policy", words: WORDS, run };

fn run(input: &[u8]) -> Behaviour {
    let mut behaviour = Behaviour::new();
    let Ok(text) = core::str::from_utf8(input) else { return behaviour };
    match Policy::from_toml(text) {
        Err(error) => {
            let lines = 1 + text.matches('\n').count();
            assert!((1..=lines).contains(&error.line), "line {} of {lines}", error.line);
            behaviour.note(error.message.split([':', '"', '`', '\n']).next().unwrap_or_default());
        }
        Ok(policy) => {
            behaviour.note("accepted");
            assert!(policy.version().chars().count() <= 60, "{}", policy.version());
            behaviour.note_size(policy.lint().len());
            for stimulus in stimuli() {
                decide(&policy, &stimulus, &mut behaviour);
            }
        }
    }
    behaviour
}

fn decide(policy: &Policy, stimulus: &Stimulus, behaviour: &mut Behaviour) {
    let snapshot = Snapshot {
        elapsed_ms: 600_000,
        confidence_recent_pm: vec![100, 900, 0],
        same_intent_run: 4,
        tool_failures_run: 4,
        promise_age_ms: Some(5_000),
        call_type: Some("vip".to_owned()),
        ..Snapshot::default()
    };
    let trigger = policy.evaluate(&snapshot, stimulus);
    assert_eq!(policy.evaluate(&snapshot, stimulus), trigger, "the same twice");
    let fires =
        policy.verdicts(&snapshot, stimulus).iter().any(|(_, verdict)| matches!(verdict, Verdict::Fire(_)));
    assert_eq!(trigger.is_some(), fires, "a transfer, exactly where a rule fires");
    if let Some(trigger) = trigger {
        assert!(trigger.evidence.chars().count() <= 200 && trigger.also.len() <= 6);
        assert!(trigger.also.iter().all(|rule| rule.chars().count() <= 40), "{:?}", trigger.also);
        assert_eq!(trigger.mandatory, trigger.category.is_mandatory());
        let named = |rule: &String| rule.split(':').next().map(str::to_owned);
        let before = Category::ALL.iter().take_while(|category| **category != trigger.category);
        let earlier: Vec<String> = before.map(|category| category.as_str().to_owned()).collect();
        let beside: Vec<String> = trigger.also.iter().filter_map(named).collect();
        assert!(
            !beside.iter().any(|rule| earlier.contains(rule)),
            "{beside:?} before {:?}",
            trigger.category
        );
        behaviour.note(trigger.category.as_str());
    }
    let under_way = Snapshot { transfer: TransferStanding::Active, ..snapshot };
    assert_eq!(policy.evaluate(&under_way, stimulus), None, "one transfer at a time");
}

fn stimuli() -> [Stimulus; 6] {
    let said = |text: &str| Stimulus::Turn { speaker: Speaker::Caller, text: Pii::new(text.to_owned()) };
    [
        said("I want to talk to a person now, I do not want a robot, what about my medication"),
        said(""),
        Stimulus::Topic {
            topic: Named { name: "medication".to_owned(), confidence_pm: 500 },
            regulated: true,
        },
        Stimulus::Requested { reason: RequestReason::Other },
        Stimulus::Digit { zero: true },
        Stimulus::Clock,
    ]
}

const WORDS: &[&str] = &[
    "name = \"clinic\"\n",
    "\n[[regulatory]]\nid = \"r\"\n",
    "\n[[safety]]\nid = \"s\"\n",
    "\n[[caller_request]]\nid = \"c\"\n",
    "\n[[tool_failure]]\nid = \"t\"\n",
    "\n[[routing_rule]]\nid = \"v\"\n",
    "\n[[topic]]\nid = \"o\"\n",
    "\n[[broken_promise]]\nid = \"b\"\n",
    "\n[[loop]]\nid = \"l\"\n",
    "\n[[low_confidence]]\nid = \"w\"\n",
    "\n[[elapsed_time]]\nid = \"e\"\n",
    "\n[phrase_sets]\n",
    "person = [\"person\", \"human\"]\n",
    "phrases = [\"talk to a {person}\"]\n",
    "phrases = [\"* * *\"]\n",
    "phrases = [\"[a] b * c {person}\"]\n",
    "topics = [\"medication\"]\n",
    "intents = [\"a.b\"]\n",
    "threshold = 0.6\n",
    "upper_edge = 0.7\n",
    "consecutive = 2\n",
    "after_s = 300\n",
    "within_ms = 3000\n",
    "in_a_row = 3\n",
    "same_intent = 3\n",
    "same_prompt = 3\n",
    "heed_negation = false\n",
    "confidence_min = 0.5\n",
    "agent_flag = true\n",
    "zero_key = false\n",
    "call_types = [\"vip\"]\n",
    "reasons = []\n",
    "{person}",
    "{",
    "}",
    "[",
    "]",
    "*",
    " * ",
    "nan",
    "-1",
    "1e400",
    "\"\"\"",
    "'''",
    "=",
    "\"",
    "\u{301}",
    "ﬁ",
    "\u{200b}",
];
