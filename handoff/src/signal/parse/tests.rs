//! The parser of signals against the published schema, and against input that fits neither.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema() -> jsonschema::Validator {
    let text = include_str!("../../../schemas/agent-signals.schema.json");
    jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap()
}

fn signal(kind: &str, data: Value) -> Value {
    json!({"v": 1, "id": "s-1", "type": kind, "data": data})
}

fn good() -> Vec<Value> {
    vec![
        json!({"v": 1, "id": "a", "type": "call.started"}),
        json!({"v": 1.0, "id": "a", "call": "c-1", "seq": 4, "ts": "2026-11-22T07:01:35Z", "at_ms": 1200,
               "source": "pipecat", "type": "call.started",
               "data": {"agent": "bot 1", "session": "s", "language": "en-US", "model": "m", "extra": 1}}),
        json!({"v": 1, "id": "a", "at_ms": -5, "seq": 3.0, "type": "x", "data": {"anything": [1]}}),
        signal(
            "turn",
            json!({"speaker": "caller", "text": "Hello", "turn": "i1", "start_ms": 1, "end_ms": 9,
               "confidence": 0.91, "interrupted": true, "language": "en", "words": []}),
        ),
        signal("turn", json!({"speaker": "agent", "text": "é".repeat(8_000)})),
        signal("turn.partial", json!({"speaker": "human", "text": ""})),
        signal("intent", json!({"name": "Billing.Refund", "confidence": 1, "turn": "i1"})),
        signal("topic", json!({"name": "medication", "confidence": 0, "regulated": true})),
        signal(
            "field",
            json!({"name": "Account Number", "value": 4711, "confidence": 0.5, "verified": true, "pii": "pii"}),
        ),
        signal("field", json!({"name": "k", "value": null})),
        signal("sentiment", json!({"score": -0.25, "label": "sad"})),
        signal("confidence", json!({"value": 0.4205, "of": "resolution"})),
        signal("confidence", json!({"value": 0.42})),
        signal("disclosure.made", json!({"kind": "ai", "text": "I am a bot", "turn": "i1"})),
        signal("consent", json!({"value": "affirmative"})),
        signal("dtmf", json!({"digits": "0"})),
        signal("tool", json!({"name": "lookup_order", "ok": false})),
        signal(
            "transfer.request",
            json!({"reason": "vip", "queue": "billing", "target": "tel:+15555550142",
               "urgency": "high", "summary": "s", "next_action": "n", "caller_message": "c", "whisper": "w",
               "whisper_by": "edge", "on_fail": "voicemail", "fields": {"name": "Jane", "n": 3, "日": 1}}),
        ),
        json!({"v": 1, "id": "a", "type": "transfer.cancel"}),
        signal("resolved", json!({"outcome": "paid", "summary": "s"})),
        signal("error", json!({"message": "model overloaded"})),
    ]
}

fn bad() -> Vec<(&'static str, Value)> {
    vec![
        ("$", json!([])),
        ("v", json!({"id": "a", "type": "x"})),
        ("v", json!({"v": 2, "id": "a", "type": "x"})),
        ("v", json!({"v": "1", "id": "a", "type": "x"})),
        ("id", json!({"v": 1, "type": "x"})),
        ("id", json!({"v": 1, "id": "", "type": "x"})),
        ("id", json!({"v": 1, "id": "a".repeat(65), "type": "x"})),
        ("type", json!({"v": 1, "id": "a"})),
        ("type", json!({"v": 1, "id": "a", "type": "bridge.now"})),
        ("hello", json!({"v": 1, "id": "a", "type": "x", "hello": 1})),
        ("(unprintable)", json!({"v": 1, "id": "a", "type": "x", "+15555550142": 1})),
        ("seq", json!({"v": 1, "id": "a", "type": "x", "seq": -1})),
        ("seq", json!({"v": 1, "id": "a", "type": "x", "seq": 1.5})),
        ("at_ms", json!({"v": 1, "id": "a", "type": "x", "at_ms": "1"})),
        ("call", json!({"v": 1, "id": "a", "type": "x", "call": 1})),
        ("data", json!({"v": 1, "id": "a", "type": "x", "data": []})),
        ("data", json!({"v": 1, "id": "a", "type": "turn"})),
        ("data", json!({"v": 1, "id": "a", "type": "tool"})),
        ("data.speaker", signal("turn", json!({"text": "x"}))),
        ("data.speaker", signal("turn", json!({"speaker": "robot", "text": "x"}))),
        ("data.text", signal("turn", json!({"speaker": "caller"}))),
        ("data.text", signal("turn", json!({"speaker": "caller", "text": "x".repeat(8_001)}))),
        ("data.words", signal("turn", json!({"speaker": "caller", "text": "x", "words": {}}))),
        ("data.confidence", signal("turn", json!({"speaker": "caller", "text": "x", "confidence": 1.01}))),
        ("data.name", signal("intent", json!({}))),
        ("data.name", signal("intent", json!({"name": "123"}))),
        ("data.regulated", signal("topic", json!({"name": "a", "regulated": "yes"}))),
        ("data.value", signal("field", json!({"name": "a"}))),
        ("data.pii", signal("field", json!({"name": "a", "value": 1, "pii": "secret"}))),
        ("data.score", signal("sentiment", json!({"score": -1.5}))),
        ("data.score", signal("sentiment", json!({}))),
        ("data.value", signal("confidence", json!({"value": "high"}))),
        ("data.value", signal("confidence", json!({"value": 42}))),
        ("data.value", signal("confidence", json!({"value": null}))),
        ("data.of", signal("confidence", json!({"value": 0.1, "of": "mood"}))),
        ("data.kind", signal("disclosure.made", json!({"kind": "human"}))),
        ("data.value", signal("consent", json!({"value": "maybe"}))),
        ("data.digits", signal("dtmf", json!({"digits": "call me"}))),
        ("data.ok", signal("tool", json!({"name": "a", "ok": 1}))),
        ("data.reason", signal("transfer.request", json!({"summary": "s"}))),
        ("data.urgency", signal("transfer.request", json!({"reason": "vip", "urgency": "now"}))),
        ("data.whisper", signal("transfer.request", json!({"reason": "vip", "whisper": "w".repeat(601)}))),
        ("data.fields", signal("transfer.request", json!({"reason": "vip", "fields": []}))),
        ("data.message", signal("error", json!({"message": 1}))),
    ]
}

#[test]
fn parser_and_schema_accept_the_good_samples() {
    let schema = schema();
    for sample in good() {
        assert!(schema.is_valid(&sample), "schema: {sample}");
        assert!(Signal::parse(&sample).is_ok(), "{sample}: {:?}", Signal::parse(&sample));
    }
}

#[test]
fn parser_and_schema_refuse_the_bad_samples_and_the_parser_names_the_member() {
    let schema = schema();
    for (member, sample) in bad() {
        assert!(!schema.is_valid(&sample), "schema: {sample}");
        assert_eq!(Signal::parse(&sample).map_err(|bad| bad.member), Err(member.to_owned()), "{sample}");
    }
}

#[test]
fn confidences_are_rounded_to_per_mille_at_the_border() {
    for (unit, per_mille) in [("0", 0), ("0.4205", 421), ("0.42049", 420), ("1", 1000), ("0.9996", 1000)] {
        let text = format!(r#"{{"v":1,"id":"a","type":"confidence","data":{{"value":{unit}}}}}"#);
        let parsed = Signal::parse_bytes(text.as_bytes()).unwrap();
        let body = SignalBody::Confidence { value_pm: per_mille, of: ConfidenceOf::Resolution };
        assert_eq!(parsed.signal.body, body, "{unit}");
    }
    for unit in ["NaN", "Infinity", "1e999", "-0.1"] {
        let text = format!(r#"{{"v":1,"id":"a","type":"confidence","data":{{"value":{unit}}}}}"#);
        assert!(Signal::parse_bytes(text.as_bytes()).is_err(), "{unit}");
    }
}

#[test]
fn unknown_members_of_data_are_counted_not_refused() {
    let parsed = Signal::parse(&signal("confidence", json!({"value": 0.5, "mood": 1, "tone": {}}))).unwrap();
    assert_eq!(parsed.ignored, 2);
}

#[test]
fn a_signal_over_64_kilobytes_is_refused_by_both_ways_in() {
    let huge = signal("x", json!({"filler": "x".repeat(SIGNAL_BYTES_MAX)}));
    let refused = Err(BadSignal::new("$", Fault::TooLong));
    assert_eq!(Signal::parse(&huge), refused);
    assert_eq!(Signal::parse_bytes(huge.to_string().as_bytes()), refused);
}

#[test]
fn names_are_normalised_and_hide_long_numbers() {
    for (raw, alphabet, name) in [
        ("Account Number", Alphabet::Plain, Some("account_number")),
        ("billing.Refund-2", Alphabet::Dotted, Some("billing.refund-2")),
        ("billing.refund", Alphabet::Plain, Some("billing_refund")),
        ("call +15555550142 back", Alphabet::Dotted, Some("call_1555_back")),
        ("  42 is the answer ", Alphabet::Plain, Some("is_the_answer")),
        ("日本", Alphabet::Dotted, None),
    ] {
        assert_eq!(named(raw, 60, alphabet).as_deref(), name, "{raw}");
    }
    assert_eq!(
        named(&"a".repeat(99), FIELD_NAME_CHARS_MAX, Alphabet::Plain).map(|name| name.len()),
        Some(48)
    );
}

#[test]
fn an_error_never_repeats_a_value() {
    for (_, sample) in bad() {
        let bad = Signal::parse(&sample).unwrap_err().to_string();
        assert!(!bad.contains("robot") && !bad.contains("1555") && !bad.contains("call me"), "{bad}");
    }
}

#[test]
fn every_kind_has_its_name_and_only_names_and_numbers_as_values() {
    for sample in good() {
        let parsed = Signal::parse(&sample).unwrap().signal;
        assert_eq!(Some(parsed.kind()), sample.get("type").and_then(Value::as_str));
        let printed = format!("{:?}", parsed.values());
        assert!(
            !printed.contains("Jane") && !printed.contains("Hello") && !printed.contains("4711"),
            "{printed}"
        );
    }
}

/// One small change to one sample: a member removed, replaced, or added.
fn mutated() -> impl Strategy<Value = Value> {
    let samples: Vec<Value> = good().into_iter().chain(bad().into_iter().map(|(_, sample)| sample)).collect();
    let scraps = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2.0..2.0f64).prop_map(Value::from),
        Just(json!(0.0)),
        Just(json!(3.0)),
        "[a-z.0-9+ ]{0,12}".prop_map(Value::from),
        "\\PC{0,80}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!("caller")),
        Just(json!("resolution")),
        Just(json!("turn")),
        Just(json!("field")),
    ];
    let members = prop::sample::select(vec![
        "v",
        "id",
        "type",
        "seq",
        "at_ms",
        "ts",
        "call",
        "source",
        "data",
        "name",
        "value",
        "text",
        "speaker",
        "turn",
        "confidence",
        "regulated",
        "of",
        "kind",
        "score",
        "pii",
        "verified",
        "reason",
        "summary",
        "fields",
        "queue",
        "ok",
        "digits",
        "urgency",
        "language",
        "start_ms",
        "interrupted",
        "label",
        "words",
        "message",
    ]);
    let edits = prop::collection::vec((any::<bool>(), members, prop::option::of(scraps)), 1..4);
    (prop::sample::select(samples), edits).prop_map(|(mut sample, edits)| {
        for (inside, member, scrap) in edits {
            let place = if inside {
                sample.get_mut("data").and_then(Value::as_object_mut)
            } else {
                sample.as_object_mut()
            };
            let Some(place) = place else { continue };
            match scrap {
                Some(scrap) => place.insert(member.to_owned(), scrap),
                None => place.remove(member),
            };
        }
        sample
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn parser_and_schema_agree_on_mutations(sample in mutated()) {
        thread_local!(static SCHEMA: jsonschema::Validator = schema());
        let valid = SCHEMA.with(|schema| schema.is_valid(&sample));
        prop_assert_eq!(Signal::parse(&sample).is_ok(), valid, "{} {:?}", sample, Signal::parse(&sample));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Signal::parse_bytes(&bytes);
    }

    #[test]
    fn no_text_inside_a_frame_panics(text in "\\PC{0,200}") {
        let _ = Signal::parse(&signal("turn", json!({"speaker": "caller", "text": text, "turn": text})));
        let _ = Signal::parse(&signal("field", json!({"name": text, "value": text})));
    }
}
