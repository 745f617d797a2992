//! What a conversation makes of its signals, one at a time and in any order.

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::signal::RequestReason;

fn at(millis: u64) -> Moment {
    let wall = Timestamp::from_unix_millis(i64::try_from(millis).unwrap());
    Moment { now: Now::from_millis(millis), wall }
}

fn conversation() -> Conversation {
    Conversation::new(at(1_000), CallerIdentity::default(), None, "default-1".to_owned())
}

/// Applies bodies one second apart, from second 2 on.
fn told(bodies: Vec<SignalBody>) -> Conversation {
    let mut conversation = conversation();
    for (index, body) in bodies.into_iter().enumerate() {
        let index = u64::try_from(index).unwrap();
        conversation.apply(at(2_000 + index * 1_000), &Signal { id: format!("s{index}"), at_ms: None, body });
    }
    conversation
}

fn turn(speaker: Speaker, text: &str, item: Option<&str>) -> SignalBody {
    SignalBody::Turn {
        speaker,
        text: Pii::new(text.to_owned()),
        turn: item.map(str::to_owned),
        confidence_pm: None,
        interrupted: false,
    }
}

fn caller(text: &str) -> SignalBody {
    turn(Speaker::Caller, text, None)
}

fn agent(text: &str) -> SignalBody {
    turn(Speaker::Agent, text, None)
}

fn field(name: &str, value: &str, verified: bool) -> SignalBody {
    SignalBody::Field {
        name: name.to_owned(),
        value: Pii::new(value.to_owned()),
        confidence_pm: Some(800),
        verified,
        class: PiiClass::Pii,
    }
}

fn confidence(value_pm: u16) -> SignalBody {
    SignalBody::Confidence { value_pm, of: ConfidenceOf::Resolution }
}

fn intent(name: &str) -> SignalBody {
    SignalBody::Intent { name: name.to_owned(), confidence_pm: Some(900) }
}

fn tool(ok: Option<bool>) -> SignalBody {
    SignalBody::Tool { name: "lookup".to_owned(), ok }
}

fn snapshot(conversation: &Conversation) -> Snapshot {
    conversation.snapshot(Now::from_millis(10_000), TransferStanding::None)
}

#[test]
fn counts_and_runs_are_those_of_the_call() {
    let told = told(vec![
        agent("How can I help?"),
        caller("My bill"),
        agent("How can I help?"),
        agent("how can i help"),
        intent("billing"),
        intent("billing"),
        intent("refund"),
        tool(Some(false)),
        tool(None),
        tool(Some(false)),
        confidence(400),
        confidence(500),
    ]);
    let seen = told.snapshot(Now::from_millis(61_000), TransferStanding::None);
    assert_eq!((seen.elapsed_ms, seen.turns_caller, seen.turns_agent), (60_000, 1, 3));
    assert_eq!((seen.same_prompt_run, seen.same_intent_run, seen.tool_failures_run), (3, 1, 2));
    assert_eq!((seen.confidence_pm, seen.confidence_rolling_pm), (Some(500), Some(450)));
    assert_eq!(seen.intents.len(), 3);
    assert_eq!(told.context().secondary, ["billing"]);
    assert_eq!(told.context().tools.len(), 3);
}

#[test]
fn a_repeated_signal_changes_nothing() {
    let mut conversation = conversation();
    let signal = Signal { id: "same".to_owned(), at_ms: None, body: tool(Some(false)) };
    assert_ne!(conversation.apply(at(2_000), &signal), Stimulus::Other);
    assert_eq!(conversation.apply(at(3_000), &signal), Stimulus::Other);
    assert_eq!(snapshot(&conversation).tool_failures_run, 1);
    assert!(conversation.has_seen("same"));
}

#[test]
fn a_later_turn_with_the_same_item_replaces_the_text_and_keeps_the_segment() {
    let told = told(vec![
        turn(Speaker::Agent, "I can certainly help you with that", Some("i1")),
        caller("Stop"),
        turn(Speaker::Agent, "I can certainly", Some("i1")),
    ]);
    let turns = told.context().turns;
    assert_eq!(turns.len(), 2);
    assert_eq!((turns[0].segment, turns[0].text.expose().as_str()), (0, "I can certainly"));
    assert_eq!(told.segment_of_last_turn(), Some(1));
    assert_eq!(told.segment_of("i1"), Some(0));
    assert_eq!(snapshot(&told).turns_agent, 1);
}

#[test]
fn card_numbers_are_gone_before_anything_is_kept_or_returned() {
    let mut conversation = conversation();
    let body = caller("My card is 4111 1111 1111 1111, thanks");
    let stimulus = conversation.apply(at(2_000), &Signal { id: "a".to_owned(), at_ms: None, body });
    let Stimulus::Turn { text, .. } = &stimulus else { panic!("a turn") };
    assert_eq!(text.expose(), "My card is [PAN], thanks");
    conversation.apply(
        at(3_000),
        &Signal { id: "b".to_owned(), at_ms: None, body: field("note", "4111111111111111", false) },
    );
    let context = conversation.context();
    assert_eq!(context.redactions, [("PAN".to_owned(), 2)]);
    assert!(!serde_json::to_string(&context).unwrap().contains("411111111111"));
}

#[test]
fn provenance_follows_what_the_transcript_shows() {
    let told = told(vec![
        agent("What is your order number?"),
        caller("It's four seven one one"),
        field("order", "4711", false),
        agent("So your name is Jane Roe, right?"),
        caller("Yes."),
        field("name", "Jane Roe", true),
        field("mood", "impatient", true),
        field("order_again", "4711", true),
    ]);
    let collected = told.context().collected;
    let facts: Vec<_> = collected
        .iter()
        .map(|field| (field.name.as_str(), field.provenance, field.segment, field.confirmed_segment))
        .collect();
    assert_eq!(
        facts,
        [
            ("order", Provenance::CallerStated, Some(1), None),
            ("name", Provenance::CallerConfirmed, Some(2), Some(3)),
            ("mood", Provenance::ModelInferred, Some(3), None),
            ("order_again", Provenance::CallerConfirmed, Some(1), Some(3)),
        ]
    );
    assert!(collected.iter().all(|field| field.confirmed == field.confirmed_segment.is_some()));
}

#[test]
fn payment_fields_are_dropped_and_an_empty_value_takes_a_fact_back() {
    let card = SignalBody::Field {
        name: "card".to_owned(),
        value: Pii::new("4111".to_owned()),
        confidence_pm: None,
        verified: true,
        class: PiiClass::Pci,
    };
    let told = told(vec![
        field("name", "Jane", false),
        card,
        field("city", "Bonn", false),
        field("name", "", false),
    ]);
    assert_eq!(snapshot(&told).collected, ["city"]);
}

#[test]
fn facts_without_any_transcript_still_have_a_segment() {
    let told = told(vec![field("name", "Jane", false), field("city", "Bonn", false)]);
    let context = told.context();
    assert_eq!(context.turns.len(), 1);
    assert!(context.collected.iter().all(|field| field.segment == Some(0)));
}

#[test]
fn low_confidence_is_latched_by_its_decision_until_the_upper_edge() {
    let policy = Policy::default();
    let mut told = told(vec![confidence(300), confidence(300)]);
    let seen = snapshot(&told);
    let trigger = policy.evaluate(&seen, &Stimulus::Confidence { value_pm: 300 }).unwrap();
    told.record_decision(&trigger, &policy);
    told.record_failed_attempt();
    for (value_pm, latched) in [(300, true), (599, true), (600, false), (300, false)] {
        let signal = Signal { id: format!("{value_pm}{latched}"), at_ms: None, body: confidence(value_pm) };
        told.apply(at(9_000), &signal);
        assert_eq!(snapshot(&told).confidence_latched, latched, "{value_pm}");
    }
}

#[test]
fn a_promise_without_a_transfer_is_due_after_its_limit_and_once() {
    let policy = Policy::default();
    let mut told = told(vec![caller("My bill"), agent("I'm transferring you to billing now.")]);
    let due = Now::from_millis(3_000) + policy.promise_limit().unwrap();
    assert_eq!(told.next_timeout(&policy), Some(due));
    assert!(policy.promise_limit().unwrap() < Duration::from_secs(3), "noticed within three seconds");
    assert_eq!(told.take_due(Now::from_millis(3_100), &policy), None);
    assert_eq!(told.take_due(due, &policy), Some(Stimulus::Clock));
    let trigger = policy.evaluate(&told.snapshot(due, TransferStanding::None), &Stimulus::Clock);
    assert_eq!(trigger.map(|trigger| trigger.category), Some(Category::BrokenPromise));
    assert!(
        told.next_timeout(&policy).is_some_and(|next| next > due),
        "not woken again for the same promise"
    );
    assert_eq!(told.snapshot(due, TransferStanding::Active).promise_age_ms, None);
}

#[test]
fn a_promise_is_taken_back_by_a_correction_a_cancel_or_a_failed_attempt() {
    let promise = || turn(Speaker::Agent, "I'm transferring you now.", Some("i1"));
    let open = |told: &Conversation| snapshot(told).promise_age_ms.is_some();
    assert!(open(&told(vec![promise(), agent("Anything else?")])));
    assert!(!open(&told(vec![promise(), turn(Speaker::Agent, "I'm", Some("i1"))])));
    assert!(!open(&told(vec![promise(), SignalBody::TransferCancel])));
    let mut failed = told(vec![promise()]);
    failed.record_failed_attempt();
    assert!(!open(&failed));
}

#[test]
fn the_elapsed_time_is_due_once_per_window() {
    let policy = Policy::default();
    let mut told = told(vec![]);
    let limit = policy.elapsed_limit().unwrap();
    let due = Now::from_millis(1_000) + limit;
    assert_eq!(told.next_timeout(&policy), Some(due));
    assert_eq!(told.take_due(due, &policy), Some(Stimulus::Clock));
    assert_eq!(told.next_timeout(&policy), None);
    told.record_failed_attempt();
    assert_eq!(told.next_timeout(&policy), Some(due + limit));
}

#[test]
fn zero_counts_alone_and_not_inside_a_number_or_when_keys_were_asked_for() {
    let mut told = told(vec![]);
    let zero = |told: &mut Conversation, millis, digit| told.record_digit(at(millis), digit);
    assert_eq!(zero(&mut told, 2_000, '0'), Stimulus::Digit { zero: true });
    assert_eq!(zero(&mut told, 3_000, '0'), Stimulus::Digit { zero: false });
    assert_eq!(zero(&mut told, 8_000, '1'), Stimulus::Digit { zero: false });
    assert_eq!(zero(&mut told, 20_000, '0'), Stimulus::Digit { zero: true });
    let mut asked = self::told(vec![agent("Please enter your account number on your keypad")]);
    assert_eq!(asked.record_digit(at(9_000), '0'), Stimulus::Digit { zero: false });
    let number = SignalBody::Dtmf { digits: Pii::new("00".to_owned()) };
    let signal = Signal { id: "n".to_owned(), at_ms: None, body: number };
    assert_eq!(conversation().apply(at(9_000), &signal), Stimulus::Digit { zero: false });
}

#[test]
fn disclosure_counts_by_what_was_played_and_never_by_the_agents_word() {
    let mut told = told(vec![SignalBody::DisclosureMade { kind: "ai".to_owned() }]);
    assert_eq!(told.context().ai_disclosure, Disclosed::default());
    let heard = |played_pm| Disclosed { text_id: "d".to_owned(), played_pm, ..Disclosed::default() };
    told.record_disclosure(DisclosureKind::Ai, heard(1000));
    told.record_disclosure(DisclosureKind::Ai, heard(300));
    assert_eq!(told.context().ai_disclosure.played_pm, 1000);
    told.record_consent("refused");
    told.record_consent("affirmative");
    assert_eq!(told.context().recording_consent, "refused");
}

#[test]
fn a_request_keeps_its_words_redacted_and_its_facts_as_fields() {
    let request = TransferRequest {
        reason: RequestReason::CallerRequest,
        queue: Some("billing".to_owned()),
        target: None,
        summary: Some(Pii::new("Card 4111111111111111 was declined.".to_owned())),
        next_action: None,
        caller_message: None,
        whisper: None,
        on_fail: None,
        fields: vec![("name".to_owned(), Pii::new("Jane".to_owned()))],
    };
    let told = told(vec![caller("I am Jane"), SignalBody::TransferRequest(request)]);
    let context = told.context();
    let kept = context.request.unwrap();
    assert_eq!(kept.summary.unwrap().expose(), "Card [PAN] was declined.");
    assert!(kept.fields.is_empty());
    assert_eq!(context.collected[0].provenance, Provenance::CallerStated);
}

#[test]
fn a_context_keeps_the_newest_turns_within_its_size() {
    let long = "word ".repeat(1_000);
    let told = told((0..20).map(|_| caller(&long)).collect());
    let context = told.context();
    assert!(context.truncated);
    assert_eq!(context.turns.last().map(|turn| turn.segment), Some(19));
    assert!(context.turns.iter().map(|turn| turn.text.expose().len()).sum::<usize>() <= CONTEXT_BYTES_MAX);
}

fn bodies() -> impl Strategy<Value = SignalBody> {
    let speaker = prop::sample::select(vec![Speaker::Caller, Speaker::Agent, Speaker::System]);
    prop_oneof![
        4 => (speaker, "[a-z0-9 ]{0,30}", prop::option::of("[ab]"))
            .prop_map(|(speaker, text, item)| turn(speaker, &text, item.as_deref())),
        3 => ("[a-z]{1,2}", "[a-z0-9 ]{0,8}", any::<bool>())
            .prop_map(|(name, value, verified)| field(&name, &value, verified)),
        1 => (0..=1000_u16).prop_map(confidence),
        1 => "[a-c]".prop_map(|name| intent(&name)),
        1 => any::<Option<bool>>().prop_map(tool),
        1 => Just(SignalBody::TransferCancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_told_stays_bounded_and_every_fact_has_its_segment(
        bodies in prop::collection::vec(bodies(), 0..600)
    ) {
        let told = told(bodies);
        let context = told.context();
        let last = told.segment_of_last_turn();
        prop_assert!(context.turns.len() <= TURNS_MAX);
        prop_assert!(context.collected.len() <= FIELDS_MAX && context.tools.len() <= TOOLS_MAX);
        prop_assert!(context.turns.windows(2).all(|pair| pair[1].segment == pair[0].segment + 1));
        for fact in &context.collected {
            prop_assert!(fact.segment.is_some() && fact.segment <= last);
            prop_assert_eq!(fact.confirmed, fact.confirmed_segment.is_some());
        }
        let seen = snapshot(&told);
        prop_assert!(seen.confidence_recent_pm.len() <= RECENT_MAX && seen.intents.len() <= RECENT_MAX);
    }
}
