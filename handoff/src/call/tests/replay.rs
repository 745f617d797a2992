//! Calls that were recorded and are lived through again: the policy that decided them decides
//! them alike, and another one shows what it would change.

use super::*;
use crate::audit::entry::entry_of;
use crate::event::CallEvent;
use crate::policy::backtest::{Backtest, Recorded, backtest};
use crate::policy::replay::{LeftOut, Past, replay};
use crate::seal::{DataKey, SealKey};
use crate::signal::{ConfidenceOf, Speaker};

fn signal(id: &str, body: SignalBody) -> Input {
    Input::Signal(Signal { id: id.to_owned(), at_ms: None, body })
}

fn says(id: &str, speaker: Speaker, text: &str) -> Input {
    let text = Pii::new(text.to_owned());
    let body = SignalBody::Turn { speaker, text, turn: None, confidence_pm: None, interrupted: false };
    signal(id, body)
}

fn caller(id: &str, text: &str) -> Input {
    says(id, Speaker::Caller, text)
}

fn sure(id: &str, value_pm: u16) -> Input {
    signal(id, SignalBody::Confidence { value_pm, of: ConfidenceOf::Resolution })
}

fn failed(id: &str) -> Input {
    signal(id, SignalBody::Tool { name: "lookup".to_owned(), ok: Some(false) })
}

/// Plays a call with a cloud that decides by the same policy, and records it.
fn recorded(script: Vec<(u64, Input)>) -> Vec<Past> {
    let mut bench = Bench::talking();
    let mut seen = 0;
    for (at, input) in script {
        bench.run_to(at.max(bench.now_ms));
        bench.put(input);
        let fresh: Vec<Output> = bench.all[seen..].to_vec();
        seen = bench.all.len();
        for output in fresh {
            let Output::Emit { evaluable: Some(evaluable), .. } = output else { continue };
            let policy = bench.call.core.rules.policy.clone();
            let fired = policy.evaluate(&evaluable.snapshot, &evaluable.stimulus);
            if let (Some(trigger), None) = (fired, bench.call.transfer_id()) {
                let decision = Decision { trigger, ..bench.decision() };
                bench.command(CommandBody::TransferDecided { decision });
            }
        }
    }
    bench.run(1_000).put(Input::NobodyAvailable);
    bench.ended(LegId::CALLER, LegCause::RemoteHangUp).all_legs_end();
    past(&bench)
}

/// The facts of a call as its chain holds them.
fn past(bench: &Bench) -> Vec<Past> {
    let dek = DataKey { id: "dek-1".to_owned(), key: SealKey::new([1; 32]) };
    let mut now_us = 0;
    let fact = |output: &Output| {
        let Output::Emit { seq, at, fact, .. } = output else { return None };
        now_us = u64::try_from(at.unix_millis() - moment(0).wall.unix_millis()).unwrap() * 1_000;
        let event = CallEvent {
            edge: EdgeId::parse("edge_1").unwrap(),
            tenant: TenantId::parse("t_acme").unwrap(),
            call: CallId::from_random(7),
            seq: *seq,
            time: *at,
            mono_us: now_us,
            commands: String::new(),
            fact: fact.clone(),
            evaluable: None,
        };
        let text = match fact {
            Fact::Utterance { text, .. } => text.clone(),
            _ => None,
        };
        let entry = entry_of(&event, &dek, [0; 12]).entry;
        Some(Past { kind: entry.kind, body: entry.body, text })
    };
    bench.all.iter().filter_map(fact).collect()
}

fn calls() -> Vec<Vec<Past>> {
    let limit_ms = u64::try_from(test_policy().elapsed_limit().unwrap().as_millis()).unwrap();
    vec![
        recorded(vec![(9_000, caller("a", "my bill is too high")), (20_000, caller("b", "thank you"))]),
        recorded(vec![(9_000, caller("a", "can I talk to a person please"))]),
        recorded(vec![(9_000, caller("a", "my order is 88417")), (40_000, caller("b", "bye"))]),
        recorded(vec![(9_000, Input::Media(MediaReport::Digit { leg: LegId::CALLER, digit: '0' }))]),
        recorded(vec![(9_000, Input::Media(MediaReport::Digit { leg: LegId::CALLER, digit: '4' }))]),
        recorded(vec![(9_000, request("a"))]),
        recorded(vec![(9_000, failed("a")), (9_500, failed("b")), (10_000, failed("c"))]),
        recorded(vec![(9_000, sure("a", 300)), (12_000, sure("b", 300)), (15_000, sure("c", 200))]),
        recorded(vec![(9_000, sure("a", 950)), (12_000, sure("b", 900))]),
        recorded(vec![
            (9_000, says("a", Speaker::Agent, "I am transferring you to a colleague now.")),
            (60_000, caller("b", "hello?")),
        ]),
        recorded(vec![(limit_ms + 3_000, caller("a", "still here"))]),
        recorded(vec![(9_000, caller("a", "I want to hurt myself"))]),
    ]
}

fn judged(candidate: &Policy, calls: &[Vec<Past>]) -> Backtest {
    let events = calls.iter().enumerate().flat_map(|(number, facts)| {
        let call = CallId::parse(&format!("call_{number:04}")).unwrap();
        let events: Vec<Recorded> = replay(candidate, &call, facts).unwrap();
        events
    });
    backtest(candidate, events)
}

#[test]
fn the_policy_that_decided_the_calls_flips_none_of_them() {
    let calls = calls();
    let result = judged(&test_policy(), &calls);
    assert_eq!((result.calls, result.flips, result.renamed), (12, 0, 0), "{:?}", result.changed);
    assert!(result.transferred_now >= 7, "{result:?}");
    assert!(result.shares.len() >= 4, "{:?}", result.shares);
}

#[test]
fn a_policy_with_other_limits_flips_what_they_decide() {
    let calls = calls();
    let patient = "name = 'patient'\n[[elapsed_time]]\nid = 't'\nafter_s = 20";
    let patient = Policy::from_toml(patient).unwrap_or_else(|error| panic!("{error}"));
    let result = judged(&patient, &calls);
    // Time decides after 20 s, in calls that nothing had ended or decided by then; and what the
    // voice agent asks for on behalf of the caller needs no rule.
    let shares: Vec<(Category, u64)> = result.shares.into_iter().collect();
    assert_eq!(shares, [(Category::CallerRequest, 1), (Category::ElapsedTime, 4)]);
    assert_eq!((result.flips, result.renamed), (7, 1));
    assert_eq!(result.changed[0].now, Some(Category::ElapsedTime));
}

#[test]
fn a_call_that_no_rule_decided_or_whose_words_are_gone_is_left_out() {
    let call = CallId::from_random(7);
    let mut bench = Bench::talking();
    bench.at(9_000).ended(LegId::VOICE_AGENT, LegCause::RemoteHangUp);
    bench.ended(LegId::CALLER, LegCause::RemoteHangUp).all_legs_end();
    assert_eq!(replay(&test_policy(), &call, &past(&bench)).unwrap_err(), LeftOut::NoRule);
    let mut facts = recorded(vec![(9_000, caller("a", "hello"))]);
    for fact in &mut facts {
        fact.text = None;
    }
    assert_eq!(replay(&test_policy(), &call, &facts).unwrap_err(), LeftOut::NoText);
    assert_eq!(replay(&test_policy(), &call, &[]).unwrap_err(), LeftOut::NoTalk);
}
