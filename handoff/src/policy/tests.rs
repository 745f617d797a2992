//! Which rule fires on what, which of several names the decision, and which files are refused.

use proptest::prelude::*;

use super::*;
use crate::conversation::Named;
use crate::pii::Pii;

fn calm() -> Snapshot {
    Snapshot { elapsed_ms: 10_000, policy_version: "v".to_owned(), ..Snapshot::default() }
}

fn policy(text: &str) -> Policy {
    Policy::from_toml(&format!("name = \"t\"\n{text}")).unwrap()
}

fn caller(text: &str) -> Stimulus {
    Stimulus::Turn { speaker: Speaker::Caller, text: Pii::new(text.to_owned()) }
}

fn agent(text: &str) -> Stimulus {
    Stimulus::Turn { speaker: Speaker::Agent, text: Pii::new(text.to_owned()) }
}

fn topic(name: &str, confidence_pm: u16) -> Stimulus {
    Stimulus::Topic { topic: Named { name: name.to_owned(), confidence_pm }, regulated: false }
}

fn intent(name: &str, confidence_pm: u16) -> Stimulus {
    Stimulus::Intent(Named { name: name.to_owned(), confidence_pm })
}

fn decided(policy: &Policy, snapshot: &Snapshot, stimulus: &Stimulus) -> Option<Category> {
    policy.evaluate(snapshot, stimulus).map(|trigger| trigger.category)
}

#[test]
fn confidence_fires_below_its_threshold_only() {
    let policy = policy("[[low_confidence]]\nid='c'\nthreshold=0.5\nupper_edge=0.6\nconsecutive=1");
    for (value_pm, fires) in [(499, true), (500, false), (501, false), (0, true), (1000, false)] {
        let snapshot = Snapshot { confidence_recent_pm: vec![value_pm], ..calm() };
        let stimulus = Stimulus::Confidence { value_pm };
        assert_eq!(decided(&policy, &snapshot, &stimulus).is_some(), fires, "{value_pm}");
    }
}

#[test]
fn confidence_must_be_low_several_times_in_a_row() {
    let policy = policy("[[low_confidence]]\nid='c'\nthreshold=0.5\nupper_edge=0.6\nconsecutive=3");
    let last = Stimulus::Confidence { value_pm: 100 };
    for (recent, fires) in [
        (vec![100, 100, 100], true),
        (vec![900, 100, 100, 100], true),
        (vec![100, 100], false),
        (vec![100, 100, 500, 100], false),
    ] {
        let snapshot = Snapshot { confidence_recent_pm: recent.clone(), ..calm() };
        assert_eq!(decided(&policy, &snapshot, &last).is_some(), fires, "{recent:?}");
    }
    let latched = Snapshot { confidence_recent_pm: vec![100; 3], confidence_latched: true, ..calm() };
    assert_eq!(decided(&policy, &latched, &last), None, "a latched rule stays quiet");
}

#[test]
fn elapsed_time_fires_at_its_limit_and_not_before_and_waits_again_after_a_failed_attempt() {
    let policy = policy("[[elapsed_time]]\nid='e'\nafter_s=300");
    for (elapsed_ms, failed_attempts, fires) in
        [(299_999, 0, false), (300_000, 0, true), (300_001, 0, true), (300_000, 1, false), (600_000, 1, true)]
    {
        let snapshot = Snapshot { elapsed_ms, failed_attempts, ..calm() };
        let fired = decided(&policy, &snapshot, &Stimulus::Clock);
        assert_eq!(fired, fires.then_some(Category::ElapsedTime), "{elapsed_ms} {failed_attempts}");
    }
    assert_eq!(policy.elapsed_limit(), Some(Duration::from_secs(300)));
}

#[test]
fn a_promise_is_broken_when_its_time_is_over() {
    let policy = policy("[[broken_promise]]\nid='p'\nwithin_ms=2500");
    for (age, fires) in [(None, false), (Some(2_499), false), (Some(2_500), true)] {
        let snapshot = Snapshot { promise_age_ms: age, ..calm() };
        assert_eq!(decided(&policy, &snapshot, &Stimulus::Clock).is_some(), fires, "{age:?}");
    }
    assert_eq!(policy.promise_limit(), Some(Duration::from_millis(2_500)));
}

#[test]
fn the_same_intent_or_prompt_again_and_again_is_a_loop() {
    let policy = policy("[[loop]]\nid='l'\nsame_intent=4\nsame_prompt=3");
    for (same_intent_run, same_prompt_run, stimulus, fires) in [
        (3, 0, intent("a", 0), false),
        (4, 0, intent("a", 0), true),
        (0, 2, agent("again?"), false),
        (0, 3, agent("again?"), true),
        (4, 3, caller("again?"), false),
        (4, 3, Stimulus::Clock, false),
    ] {
        let snapshot = Snapshot { same_intent_run, same_prompt_run, ..calm() };
        assert_eq!(decided(&policy, &snapshot, &stimulus).is_some(), fires, "{snapshot:?}");
    }
}

#[test]
fn tools_that_fail_in_a_row_and_a_faulty_agent_are_a_tool_failure() {
    let policy = policy("[[tool_failure]]\nid='t'\nin_a_row=2\nagent_error=true");
    let failed = Stimulus::Tool { name: "lookup".to_owned(), failed: true };
    let worked = Stimulus::Tool { name: "lookup".to_owned(), failed: false };
    let run = |tool_failures_run| Snapshot { tool_failures_run, ..calm() };
    assert_eq!(decided(&policy, &run(1), &failed), None);
    assert_eq!(decided(&policy, &run(2), &failed), Some(Category::ToolFailure));
    assert_eq!(decided(&policy, &run(2), &worked), None);
    assert_eq!(decided(&policy, &run(0), &Stimulus::AgentError), Some(Category::ToolFailure));
}

#[test]
fn routing_follows_the_type_of_call_once_and_the_intent_always() {
    let policy =
        policy("[[routing_rule]]\nid='r'\ncall_types=['vip']\nintents=['cancel']\nconfidence_min=0.5");
    let vip = Snapshot { call_type: Some("vip".to_owned()), ..calm() };
    assert_eq!(decided(&policy, &vip, &Stimulus::Other), Some(Category::RoutingRule));
    assert_eq!(decided(&policy, &Snapshot { failed_attempts: 1, ..vip }, &Stimulus::Other), None);
    for (name, confidence, fires) in [
        ("cancel", 500, true),
        ("cancel.now", 900, true),
        ("cancellation", 900, false),
        ("cancel", 499, false),
    ] {
        let fired = decided(&policy, &calm(), &intent(name, confidence));
        assert_eq!(fired.is_some(), fires, "{name} {confidence}");
    }
}

#[test]
fn every_regulated_topic_of_the_built_in_policy_fires_at_any_confidence() {
    let policy = Policy::default();
    for name in [
        "medication",
        "medication.dosage",
        "prescription",
        "legal",
        "fraud",
        "do_not_call",
        "investment_advice",
    ] {
        for confidence in [0, 1, 500, 1000] {
            let fired = decided(&policy, &calm(), &topic(name, confidence));
            assert_eq!(fired, Some(Category::Regulatory), "{name} {confidence}");
        }
    }
    let flagged =
        Stimulus::Topic { topic: Named { name: "weather".to_owned(), confidence_pm: 0 }, regulated: true };
    assert_eq!(decided(&policy, &calm(), &flagged), Some(Category::Regulatory));
}

#[test]
fn topics_need_their_confidence() {
    let policy = Policy::default();
    assert_eq!(decided(&policy, &calm(), &topic("billing.dispute", 500)), Some(Category::Topic));
    assert_eq!(decided(&policy, &calm(), &topic("billing.dispute", 499)), None);
    assert_eq!(decided(&policy, &calm(), &topic("billing", 900)), None);
}

#[test]
fn a_request_of_the_agent_maps_to_its_category_and_never_to_safety() {
    let policy = Policy::default();
    for (reason, category) in [
        (RequestReason::CallerRequest, Category::CallerRequest),
        (RequestReason::LowConfidence, Category::LowConfidence),
        (RequestReason::Topic, Category::Topic),
        (RequestReason::Regulatory, Category::Regulatory),
        (RequestReason::TimeLimit, Category::ElapsedTime),
        (RequestReason::Error, Category::ToolFailure),
        (RequestReason::Vip, Category::RoutingRule),
        (RequestReason::Other, Category::RoutingRule),
    ] {
        let trigger = policy.evaluate(&calm(), &Stimulus::Requested { reason }).unwrap();
        assert_eq!((trigger.category, trigger.rule_id.as_str()), (category, REQUEST_RULE_ID));
        assert_eq!(trigger.mandatory, category.is_mandatory());
        assert!(!trigger.waives_waits);
    }
    let strict = self::policy("[transfer_request]\nreasons=['caller_request']");
    assert_eq!(strict.evaluate(&calm(), &Stimulus::Requested { reason: RequestReason::Vip }), None);
}

#[test]
fn zero_is_a_request_and_other_keys_are_not() {
    let policy = Policy::default();
    assert_eq!(decided(&policy, &calm(), &Stimulus::Digit { zero: true }), Some(Category::CallerRequest));
    assert_eq!(decided(&policy, &calm(), &Stimulus::Digit { zero: false }), None);
}

#[test]
fn the_first_category_names_the_trigger_and_a_safety_rule_beside_it_waives_every_wait() {
    let policy = Policy::default();
    let both = caller("I took too much medication, I think it is an overdose, get me a person");
    let trigger = policy.evaluate(&Snapshot { elapsed_ms: 400_000, ..calm() }, &both).unwrap();
    assert_eq!(trigger.category, Category::Regulatory);
    assert!(trigger.waives_waits && trigger.mandatory);
    assert_eq!(trigger.also, ["safety:emergency", "caller_request:asked", "elapsed_time:five_minutes"]);
    let plain = policy.evaluate(&calm(), &caller("get me a person")).unwrap();
    assert!(!plain.waives_waits && plain.also.is_empty());
}

#[test]
fn only_the_callers_words_count() {
    let policy = Policy::default();
    for speaker in [Speaker::Agent, Speaker::Human, Speaker::System] {
        let text = Pii::new("I want to talk to a person, this is an emergency".to_owned());
        assert_eq!(policy.evaluate(&calm(), &Stimulus::Turn { speaker, text }), None);
    }
}

#[test]
fn no_decision_starts_while_a_transfer_is_under_way() {
    let policy = Policy::default();
    for transfer in [TransferStanding::Active, TransferStanding::Bridged] {
        let snapshot = Snapshot { transfer, ..calm() };
        assert_eq!(policy.evaluate(&snapshot, &caller("get me a person")), None);
    }
}

#[test]
fn evidence_never_repeats_the_caller() {
    let policy = Policy::default();
    let trigger = policy.evaluate(&calm(), &caller("This is Jane Roe, let me talk to a person")).unwrap();
    assert!(!trigger.evidence.contains("Jane"), "{}", trigger.evidence);
}

#[test]
fn every_rule_answers_with_its_id_in_order_of_precedence() {
    let policy = Policy::default();
    let verdicts = policy.verdicts(&calm(), &Stimulus::Clock);
    let ids: Vec<&str> = verdicts.iter().map(|(id, _)| id.as_str()).collect();
    let expected = "medication legal_and_complaint stop_calling financial_advice agent_flag self_harm emergency \
                    asked tools people_only sensitive promise circles confidence five_minutes";
    assert_eq!(ids.join(" "), expected);
    assert!(verdicts.iter().all(|(_, verdict)| matches!(verdict, Verdict::Skip(_))));
}

#[test]
fn a_bad_file_is_refused_with_its_key_and_line() {
    for (text, line, key) in [
        ("name = 't'\ncolour = 1", 2, "colour"),
        ("name = 't'\n\n[[loop]]\nid='a'\nsame_promt = 3", 5, "same_promt"),
        ("name = 't'\n[[elapsed_time]]\nid='a'\nafter_s = 0", 4, "after_s"),
        ("name = 't'\n[[elapsed_time]]\nid='a'", 2, "after_s"),
        (
            "name = 't'\n[[low_confidence]]\nid='a'\nthreshold=1.5\nupper_edge=2.0\nconsecutive=1",
            4,
            "threshold",
        ),
        (
            "name = 't'\n[[low_confidence]]\nid='a'\nthreshold=0.5\nupper_edge=0.4\nconsecutive=1",
            5,
            "upper_edge",
        ),
        (
            "name = 't'\n[[low_confidence]]\nid='a'\nthreshold=0.5\nupper_edge=0.6\nconsecutive=9",
            6,
            "consecutive",
        ),
        ("name = 't'\n[[topic]]\nid='a'\nphrases=[\n'ok',\n'talk to {nobody}']", 6, "nobody"),
        ("name = 't'\n[[topic]]\nid='a'\nphrases=['a b|$']", 4, "`phrases`: `$`"),
        ("name = 't'\n[[caller_request]]\nid='a'\nphrases=['a']\nexcept=['b',\n'[c]']", 6, "`except`"),
        ("name = 't'\n[[caller_request]]\nid='a'\nexcept=['b']", 4, "`except` leaves out nothing"),
        ("name = 't'\n[[topic]]\nid='a'\nphrases=['a']\nexcept=['b']", 5, "except"),
        ("name = 't'\n[phrase_sets]\none=['a',\n'b {two}']", 4, "`phrase_sets`, `one`: the set `two`"),
        ("name = 't'\n[phrase_sets]\none=['a {two}']\ntwo=['b {one}']", 3, "contains itself"),
        ("name = 't'\n[[topic]]\nid='a'\n[[safety]]\nid='a'", 3, "used twice"),
        ("name = 't'\n[[topic]]\nid='a'\nagent_flag=true", 4, "agent_flag"),
        ("name = 't'\n[[regulatory]]\nid='a'\nconfidence_min=0.5", 4, "confidence_min"),
        ("name = 'a b'", 1, "name"),
        ("name = 't'\n[[loop]]\nid = 'a rule with a much too long id'", 3, "id"),
        ("name = ", 1, ""),
    ] {
        let refused = Policy::from_toml(text).unwrap_err();
        assert_eq!(refused.line, line, "{text}: {refused}");
        assert!(refused.message.contains(key), "{text}: {refused}");
    }
}

#[test]
fn the_version_follows_the_content() {
    let one = policy("[[elapsed_time]]\nid='e'\nafter_s=300");
    let other = policy("[[elapsed_time]]\nid='e'\nafter_s=301");
    assert_ne!(one.version(), other.version());
    assert!(Policy::default().version().starts_with("default-") && Policy::default().version().len() <= 60);
}

#[test]
fn the_built_in_policy_has_no_warnings_and_an_empty_one_has_many() {
    assert_eq!(Policy::default().lint(), Vec::<String>::new());
    let warnings = policy("").lint();
    assert!(warnings.iter().any(|warning| warning.contains("caller_request")), "{warnings:?}");
    assert!(warnings.len() >= 7, "{warnings:?}");
}

#[test]
fn at_every_confidence_a_regulatory_match_decides_beside_every_other_rule() {
    let policy = Policy::default();
    // Everything else that the built-in rules look at speaks for a person, or nothing does.
    let all_fire = Snapshot {
        elapsed_ms: 3_600_000,
        same_intent_run: 9,
        same_prompt_run: 9,
        tool_failures_run: 9,
        failed_attempts: 4,
        promise_age_ms: Some(60_000),
        call_type: Some("vip".to_owned()),
        ..calm()
    };
    for confidence in 0..=1000_u16 {
        for base in [&calm(), &all_fire] {
            let confident = vec![confidence; 5];
            let snapshot =
                Snapshot { confidence_pm: Some(confidence), confidence_recent_pm: confident, ..base.clone() };
            let stimuli = [
                topic("medication", confidence),
                Stimulus::Topic {
                    topic: Named { name: "anything".to_owned(), confidence_pm: confidence },
                    regulated: true,
                },
                intent("medication.dosage", confidence),
                caller("Which medication may I take, I want a person and I have chest pain"),
                Stimulus::Requested { reason: RequestReason::Regulatory },
            ];
            for stimulus in stimuli {
                let category = decided(&policy, &snapshot, &stimulus);
                assert_eq!(category, Some(Category::Regulatory), "{confidence}: {stimulus:?}");
            }
        }
    }
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let confidences = prop::collection::vec(0..=1000_u16, 0..5);
    let runs = (0..10_u32, 0..10_u32, 0..10_u32, 0..5_u32);
    (0..2_000_000_u64, confidences, any::<bool>(), runs, prop::option::of(0..9_000_u64), any::<bool>())
        .prop_map(|(elapsed_ms, confidence_recent_pm, confidence_latched, runs, promise_age_ms, vip)| {
            Snapshot {
                elapsed_ms,
                confidence_pm: confidence_recent_pm.last().copied(),
                confidence_recent_pm,
                confidence_latched,
                same_intent_run: runs.0,
                same_prompt_run: runs.1,
                tool_failures_run: runs.2,
                failed_attempts: runs.3,
                promise_age_ms,
                call_type: vip.then(|| "vip".to_owned()),
                ..calm()
            }
        })
}

fn regulated() -> impl Strategy<Value = Stimulus> {
    let words = prop::sample::select(vec![
        "What are the side effects?",
        "Which medication may I take, I want a person and I have chest pain",
        "I will file a formal complaint",
        "stop calling me",
    ]);
    prop_oneof![
        (0..=1000_u16).prop_map(|confidence| topic("medication", confidence)),
        (0..=1000_u16, "[a-z]{1,12}").prop_map(|(confidence_pm, name)| Stimulus::Topic {
            topic: Named { name, confidence_pm },
            regulated: true
        }),
        (0..=1000_u16).prop_map(|confidence| intent("medication.dosage", confidence)),
        words.prop_map(caller),
        Just(Stimulus::Requested { reason: RequestReason::Regulatory }),
    ]
}

proptest! {
    #[test]
    fn a_regulatory_match_decides_whatever_else_holds(snapshot in snapshots(), stimulus in regulated()) {
        let trigger = Policy::default().evaluate(&snapshot, &stimulus);
        prop_assert_eq!(trigger.map(|trigger| trigger.category), Some(Category::Regulatory));
    }

    #[test]
    fn evaluation_is_the_first_verdict_that_fires(snapshot in snapshots(), text in "\\PC{0,60}") {
        let policy = Policy::default();
        let stimulus = caller(&text);
        let verdicts = policy.verdicts(&snapshot, &stimulus);
        let first = verdicts.into_iter().find(|(_, verdict)| matches!(verdict, Verdict::Fire(_)));
        let trigger = policy.evaluate(&snapshot, &stimulus);
        prop_assert_eq!(trigger.as_ref().map(|trigger| &trigger.rule_id), first.as_ref().map(|(id, _)| id));
        if let Some(trigger) = trigger {
            prop_assert!(trigger.evidence.chars().count() <= EVIDENCE_CHARS_MAX);
            prop_assert!(trigger.also.len() <= ALSO_MAX && trigger.also.iter().all(|rule| rule.len() <= 40));
        }
    }

    #[test]
    fn no_policy_text_panics(text in "\\PC{0,300}") {
        let _ = Policy::from_toml(&text);
    }
}
