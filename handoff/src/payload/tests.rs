//! Tests of the payload: schema, validator, builder and projections.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::conversation::{
    CallerIdentity, Collected, Context, Disclosed as Played, Named, Provenance, ToolRun, Turn,
};
use crate::id::{HumanAgentId, QueueId};
use crate::policy::{Category, Origin, Trigger};
use crate::signal::{PiiClass, RequestReason, Speaker, TransferRequest};

const SCHEMA: &str = include_str!("../../schemas/handoff-1-0.schema.json");
const EXAMPLE: &str = include_str!("../../schemas/handoff-1-0.example.json");

/// The example of each version that was ever published: add to it, never take one away.
const PUBLISHED: &[&str] = &[EXAMPLE];
const THIN_SCHEMA: &str = include_str!("../../schemas/handoff-thin-1-0.schema.json");

fn schema() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn faults(payload: &Payload) -> Vec<String> {
    let value = serde_json::to_value(payload).unwrap();
    schema().iter_errors(&value).map(|error| format!("{} {error}", error.instance_path())).collect()
}

fn text(text: &str) -> Pii<String> {
    Pii::new(text.to_owned())
}

fn said(segment: u32, speaker: Speaker, words: &str) -> Turn {
    Turn { segment, speaker, text: text(words), at_ms: u64::from(segment) * 1_000 }
}

fn fact(name: &str, value: &str, segment: u32) -> Collected {
    Collected {
        name: name.to_owned(),
        value: Some(text(value)),
        provenance: Provenance::CallerConfirmed,
        segment: Some(segment),
        confirmed_segment: Some(segment),
        confidence_pm: 900,
        confirmed: true,
        class: PiiClass::Pii,
    }
}

fn request(summary: &str, whisper: &str) -> TransferRequest {
    TransferRequest {
        reason: RequestReason::CallerRequest,
        queue: None,
        target: None,
        summary: Some(text(summary)),
        next_action: None,
        caller_message: None,
        whisper: Some(text(whisper)),
        on_fail: None,
        fields: Vec::new(),
    }
}

/// Dana Ortiz, order 4711, wants her money back; she has confirmed her account number.
fn dana() -> Context {
    let played = Played { text_id: "disc.ai.en.v3".into(), text_sha256: None, played_pm: 1_000, at: None };
    Context {
        caller: CallerIdentity { e164: Some(text("+15555550142")), restricted: false },
        language: Some("en-US".into()),
        turns: vec![
            said(0, Speaker::Agent, "How can I help you?"),
            said(1, Speaker::Caller, "I'm Dana Ortiz, order forty seven eleven, I want my money back"),
            said(2, Speaker::Agent, "It was delivered on December third. Your account number?"),
            said(3, Speaker::Caller, "eight eight four one two"),
        ],
        collected: vec![
            fact("name", "Dana Ortiz", 1),
            fact("order_number", "4711", 1),
            fact("account_number", "88412", 3),
        ],
        intent: Some(Named { name: "billing.refund".into(), confidence_pm: 880 }),
        tools: vec![ToolRun {
            name: "order.lookup".into(),
            ok: Some(true),
            at: Timestamp::from_unix_millis(5),
        }],
        ai_disclosure: played.clone(),
        recording_disclosure: played,
        recording_consent: "implied_by_continuing".into(),
        ..Context::default()
    }
}

fn trigger() -> Trigger {
    Trigger {
        category: Category::CallerRequest,
        rule_id: "asked".into(),
        evidence: "phrase person".into(),
        mandatory: true,
        waives_waits: false,
        also: vec!["low_confidence:threshold".into()],
    }
}

fn with_input<T>(context: &Context, catalog: &Catalog, run: impl FnOnce(&BuildInput<'_>) -> T) -> T {
    let call = CallId::parse("call_1").unwrap();
    run(&BuildInput {
        tenant: &TenantId::parse("t_acme").unwrap(),
        call: &call,
        transfer: &TransferId::of(&call, 1),
        trigger: &trigger(),
        policy_version: "rules@17",
        origin: Origin::EdgeFallback,
        context,
        catalog,
        queue: Some((&QueueId::parse("queue_care").unwrap(), "Customer care")),
        revision: 1,
        created_at: Timestamp::from_unix_millis(1_795_330_895_000),
        fired_at: Timestamp::from_unix_millis(1_795_330_890_000),
        public_url: "https://handoff.example",
        audit_head: Some((&call, 22)),
        classification: &[],
    })
}

fn built(context: &Context) -> Payload {
    let catalog = Catalog::default();
    let payload = with_input(context, &catalog, build);
    assert_eq!(faults(&payload), Vec::<String>::new());
    assert_eq!(validate(&payload, context, &catalog), Ok(()));
    payload
}

fn summary(payload: &Payload) -> &str {
    payload.summary.text.expose()
}

fn whisper(payload: &Payload) -> &str {
    payload.whisper_text().map_or("", |whisper| whisper.expose())
}

/// The conversation that the published example is about.
fn example_context() -> Context {
    Context {
        turns: vec![
            said(0, Speaker::Agent, "You are speaking with an automated assistant."),
            said(1, Speaker::Caller, "yes, this is Dana Ortiz"),
            said(3, Speaker::Caller, "it's about my lisinopril refill"),
            said(4, Speaker::Caller, "yes, december third is good"),
            said(5, Speaker::Caller, "is lisinopril safe with a new cough medicine?"),
            said(8, Speaker::Agent, "I will connect you with a nurse."),
            said(13, Speaker::Agent, "One moment please."),
        ],
        ..Context::default()
    }
}

fn example_catalog() -> Catalog {
    toml::from_str(
        r#"
        queues = ["queue_nurse"]
        [[intent]]
        category = "clinical.medication"
        label = "a medication question"
        required = ["patient_name", "dob", "medication"]
        action = "nurse_triage"
        [[action]]
        code = "nurse_triage"
        text = "Answer the question."
        "#,
    )
    .unwrap()
}

#[test]
fn the_published_example_parses_and_keeps_its_canonical_bytes() {
    let example = Payload::parse(EXAMPLE.as_bytes()).unwrap();
    let canonical = canonical::to_bytes(&canonical::parse_strict(EXAMPLE.as_bytes()).unwrap()).unwrap();
    assert_eq!(String::from_utf8(example.canonical_bytes().unwrap()), String::from_utf8(canonical.clone()));
    assert_eq!(Payload::parse(&canonical).unwrap(), example);
    assert_eq!(faults(&example), Vec::<String>::new());
    assert_eq!((example.revision(), example.sentence_count(), example.completeness_pm()), (2, 3, 1_000));
    assert_eq!(validate(&example, &example_context(), &example_catalog()), Ok(()));
}

#[test]
fn every_published_version_still_parses() {
    for golden in PUBLISHED {
        let payload = Payload::parse(golden.as_bytes()).unwrap();
        let inside: Payload = serde_json::from_str(&serde_json::to_string(&payload).unwrap()).unwrap();
        assert_eq!(inside, payload);
    }
}

fn change(pointer: &str, value: Value) -> String {
    let mut example: Value = serde_json::from_str(EXAMPLE).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = example.pointer_mut(parent).unwrap();
    if value == json!("(absent)") {
        parent.as_object_mut().unwrap().remove(key).unwrap();
    } else if let Some(members) = parent.as_object_mut() {
        members.insert(key.to_owned(), value);
    } else {
        *parent.pointer_mut(&format!("/{key}")).unwrap() = value;
    }
    example.to_string()
}

#[test]
fn what_the_schema_refuses_is_refused_by_the_parser() {
    let long = "x".repeat(700);
    let many: Vec<Value> = (0..7).map(|n| json!(format!("m{n}"))).collect();
    for (pointer, value) in [
        ("/summary/sentence_count", json!(4)),
        ("/summary/text", json!(long)),
        ("/summary/text", json!("too short")),
        ("/summary/model_ref", json!("(absent)")),
        ("/summary/grounding/verified", json!(false)),
        ("/structured/intent/confidence_pm", json!(1_001)),
        ("/structured/intent/confidence_pm", json!(0.5)),
        ("/structured/intent/mood", json!("good")),
        ("/colour", json!(1)),
        ("/locale", json!(null)),
        ("/revision", json!(0)),
        ("/schema", json!("warmbridge.handoff/2.0")),
        ("/payload_id", json!("hp_01JDA3V7K8Q2M4N6P8R0S2T4VI")),
        ("/tenant_id", json!("a b")),
        ("/created_at", json!("2026-11-22T07:01:35Z")),
        ("/classification", json!([])),
        ("/classification", json!(["pii", "pii"])),
        ("/transcript/url", json!("http://handoff.example/x")),
        ("/transcript/last_seq", json!("(absent)")),
        ("/transcript/sha512", json!("sha512-abc")),
        ("/disclosure", json!("(absent)")),
        ("/disclosure/recording/consent", json!("refused")),
        ("/disclosure/ai_identity/text_sha256", json!("XYZ")),
        ("/structured/trigger/code", json!("boredom")),
        ("/structured/collected/0/provenance", json!("(absent)")),
        ("/structured/collected/0/value", json!("(absent)")),
        ("/structured/collected/0/key", json!("Patient Name")),
        ("/structured/caller/ani/e164", json!("0155")),
        ("/structured/caller/verification/methods", json!(many)),
        ("/structured/routing/priority", json!(10)),
        ("/structured/crm/prefill", json!({ "1x": "y" })),
        ("/structured/completeness/missing", json!(vec!["k"; 13])),
        ("/redaction/counts", json!({ "pan": 1 })),
        ("/redaction/pci_pause", json!([{ "from_ms": 1 }])),
        ("/audit/seq", json!(0)),
    ] {
        let changed = change(pointer, value.clone());
        let value: Value = serde_json::from_str(&changed).unwrap();
        assert!(!schema().is_valid(&value), "the schema accepts {pointer}");
        assert!(Payload::parse(changed.as_bytes()).is_err(), "the parser accepts {pointer}");
        assert!(serde_json::from_str::<Payload>(&changed).is_err(), "serde accepts {pointer}");
    }
}

#[test]
fn a_number_with_a_fraction_and_a_duplicate_key_are_refused_although_json_schema_lets_them_pass() {
    let whole = EXAMPLE.replace("\"confidence_pm\": 941", "\"confidence_pm\": 941.0");
    assert_eq!(Payload::parse(whole.as_bytes()), Err(BadPayload::NotCanonical(NotCanonical::NotInteger)));
    let twice = EXAMPLE.replacen("\"revision\": 2", "\"revision\": 2, \"revision\": 3", 1);
    assert_eq!(Payload::parse(twice.as_bytes()), Err(BadPayload::NotCanonical(NotCanonical::DuplicateKey)));
    let padded = format!("{EXAMPLE}{}", " ".repeat(PAYLOAD_BYTES_MAX));
    assert_eq!(Payload::parse(padded.as_bytes()), Err(BadPayload::TooLong));
}

#[test]
fn each_rule_beyond_the_schema_finds_its_violation() {
    type Break = fn(&mut Payload);
    let cases: [(Rule, Break); 16] = [
        (Rule::Shape, |p| p.revision = 0),
        (Rule::Sentences, |p| p.summary.sentence_count = 2),
        (Rule::Grounded, |p| {
            p.summary.text = text("Peter Ruiz is calling. She owes 900 dollars. She waits.")
        }),
        (Rule::Grounded, |p| p.summary.grounding.unsupported_claims = Some(1)),
        (Rule::Redacted, |p| p.structured.next_action.text = text("Charge 4111 1111 1111 1111.")),
        (Rule::WhisperPrivate, |p| p.structured.caller.verification.level = VerificationLevel::AniMatchOnly),
        (Rule::ConfirmationShown, |p| p.structured.collected[3].confirmed_segment = None),
        (Rule::PrefillConfirmed, |p| {
            let crm = p.structured.crm.as_mut().unwrap();
            crm.prefill.as_mut().unwrap().insert("Case.Medication__c".into(), Some(text("lisinopril")));
        }),
        (Rule::VerificationProven, |p| p.structured.caller.verification.methods = Some(vec!["ani".into()])),
        (Rule::Catalogued, |p| p.structured.intent.category = "clinical.surgery".into()),
        (Rule::Catalogued, |p| {
            p.structured.routing.as_mut().unwrap().target_id = QueueId::parse("queue_x").ok()
        }),
        (Rule::RemovedEmpty, |p| p.structured.collected[1].value = Some(text("1980-04-12"))),
        (Rule::Ordered, |p| p.structured.collected[2].segment = Some(14)),
        (Rule::Ordered, |p| p.structured.trigger.fired_at = p.created_at.plus_millis(1)),
        (Rule::Ordered, |p| p.expires_at = Some(p.created_at.plus_millis(EXPIRY_MS + 1))),
        (Rule::SourceShown, |p| p.structured.collected[2].segment = None),
    ];
    for (rule, change) in cases {
        let mut payload = Payload::parse(EXAMPLE.as_bytes()).unwrap();
        change(&mut payload);
        let found = validate(&payload, &example_context(), &example_catalog()).unwrap_err();
        assert!(found.iter().any(|violation| violation.rule == rule), "{rule:?} {found:?}");
    }
}

#[test]
fn a_grounded_summary_of_the_voice_agent_is_used() {
    let mut context = dana();
    context.request = Some(request(
        "Dana Ortiz wants a refund for order 4711. It was delivered on Dec 3. She is waiting for a person.",
        "Dana Ortiz, refund for order 4711, delivered December third.",
    ));
    let payload = built(&context);
    assert_eq!(payload.summary.generator, Generator::Model);
    assert_eq!(payload.summary.model_ref.as_deref(), Some("voice-agent"));
    assert_eq!(payload.sentence_count(), 3);
    assert_eq!(payload.summary.grounding.segments, Some(vec![2]));
    assert_eq!(whisper(&payload), "Dana Ortiz, refund for order 4711, delivered December third.");
    assert_eq!(payload.completeness_pm(), 1_000);
}

#[test]
fn a_summary_that_breaks_a_rule_gives_the_template() {
    for bad in [
        "Dana Ortiz wants a refund of 900 dollars. She is waiting.",
        "Peter wants a refund. He is waiting for a person.",
        "She wants a refund for order 4711 from Dec 4. She is waiting.",
        "A single sentence about the refund of an order.",
        "One. Two. Three. And four sentences are too many for a card.",
        "Dana paid with 4111 1111 1111 1111. She wants it back.",
        "Hi. Ok.",
    ] {
        let mut context = dana();
        context.request = Some(request(bad, ""));
        let payload = built(&context);
        assert_eq!(payload.summary.generator, Generator::TemplateFallback, "{bad}");
        assert_eq!(
            summary(&payload),
            "Dana Ortiz is calling about a refund. Transferred because the caller asked for a person; \
             confirmed: order number 4711, account number 88412."
        );
    }
}

#[test]
fn the_template_names_nobody_who_has_not_confirmed_a_detail() {
    let mut context = dana();
    context.collected.truncate(1);
    let payload = built(&context);
    assert_eq!(
        summary(&payload),
        "The caller is calling about a refund. Transferred because the caller asked for a person; \
         no details confirmed."
    );
    assert_eq!(
        whisper(&payload),
        "A caller, calling about a refund. Transferred because the caller asked for a person."
    );
    assert_eq!(payload.completeness_pm(), 500);
    assert_eq!(payload.structured.completeness.unwrap().missing, ["order_number"]);
}

#[test]
fn the_whisper_of_an_unverified_caller_gives_no_detail_away() {
    for private in [
        "Dana Ortiz wants a refund.",
        "dana ortiz wants a refund",
        "The caller wants a refund for order 4711.",
        "The caller wants a refund, number five five five oh one four two.",
        "The caller wants a refund for December third.",
    ] {
        let mut context = dana();
        context.collected.truncate(1);
        context.request = Some(request("", private));
        let payload = built(&context);
        assert_eq!(
            whisper(&payload),
            "A caller, calling about a refund. Transferred because the caller asked for a person.",
            "{private}"
        );
    }
    let mut context = dana();
    context.collected.truncate(1);
    context.request = Some(request("", "The caller wants a refund and is in a hurry."));
    assert_eq!(whisper(&built(&context)), "The caller wants a refund and is in a hurry.");
}

#[test]
fn an_invented_next_action_is_not_passed_on() {
    let proposed = |words: &str| {
        let mut context = dana();
        context.request = Some(TransferRequest { next_action: Some(text(words)), ..request("", "") });
        built(&context).structured.next_action.text.expose().clone()
    };
    assert_eq!(proposed("Refund order 4711 for Dana."), "Refund order 4711 for Dana.");
    let own = Catalog::default().action("review_account").unwrap().text.clone();
    assert_eq!(proposed("Refund 900 dollars at once."), own);
    assert_eq!(proposed("Ask for Mr. Smith."), own);
}

#[test]
fn refused_consent_withholds_the_transcript_and_the_transfer_goes_on() {
    let mut context = dana();
    context.recording_consent = "refused".into();
    let payload = built(&context);
    assert_eq!(payload.transcript.availability, Availability::ConsentWithheld);
    assert_eq!(payload.transcript.url, None);
}

#[test]
fn payment_data_never_becomes_a_fact() {
    let mut context = dana();
    context.collected.push(fact("cvv", "123", 3));
    context.collected.push(fact("card", "4111 1111 1111 1111", 3));
    context.collected.push(Collected { class: PiiClass::Pci, ..fact("card_holder", "Dana", 3) });
    let payload = built(&context);
    let bytes = String::from_utf8(payload.canonical_bytes().unwrap()).unwrap();
    assert!(!bytes.contains("123\"") && !bytes.contains("4111") && !bytes.contains("card_holder"));
    let cvv = payload.structured.collected.iter().find(|item| item.key == "cvv").unwrap();
    assert_eq!((cvv.value.as_ref(), cvv.redacted), (None, Some(Masking::Removed)));
}

#[test]
fn a_fact_without_a_source_is_left_out_and_named_as_missing() {
    let mut context = dana();
    context.collected[1] = Collected { segment: None, ..fact("order_number", "4711", 1) };
    let payload = built(&context);
    assert!(payload.structured.collected.iter().all(|item| item.key != "order_number"));
    assert_eq!(payload.structured.completeness.unwrap().missing, ["order_number"]);
}

#[test]
fn the_crm_is_filled_from_confirmed_facts_only() {
    let catalog: Catalog =
        toml::from_str("[crm]\nsystem = \"salesforce\"\nfields = { name = \"Contact.Name\", order_number = \"Case.Order__c\" }")
            .unwrap();
    let mut context = dana();
    context.collected[1].confirmed = false;
    let payload = with_input(&context, &catalog, build);
    assert_eq!(validate(&payload, &context, &catalog), Ok(()));
    assert_eq!(faults(&payload), Vec::<String>::new());
    let prefill = payload.structured.crm.unwrap().prefill.unwrap();
    assert_eq!(
        prefill.into_iter().collect::<Vec<_>>(),
        [("Contact.Name".to_owned(), Some(text("Dana Ortiz")))]
    );
}

#[test]
fn a_payload_over_64_kb_loses_the_least_needed_facts_first_and_says_so() {
    let mut context = dana();
    for n in 0..40 {
        let mut wide = fact(&format!("note_{n}"), &"\u{1F600}".repeat(500), 1);
        (wide.confirmed, wide.confidence_pm) = (n >= 35, 100 + n);
        context.collected.push(wide);
    }
    let payload = built(&context);
    assert!(payload.canonical_bytes().unwrap().len() <= PAYLOAD_BYTES_MAX);
    let keys: Vec<&str> = payload.structured.collected.iter().map(|item| item.key.as_str()).collect();
    for kept in ["name", "order_number", "account_number", "note_35", "note_34"] {
        assert!(keys.contains(&kept), "{keys:?}");
    }
    assert_eq!(payload.structured.actions_taken, Some(vec![]));
    let missing = payload.structured.completeness.unwrap().missing;
    assert!(
        missing.contains(&"actions_taken".to_owned()) && missing.contains(&"note_3".to_owned()),
        "{missing:?}"
    );
}

#[test]
fn what_can_not_be_dropped_piece_by_piece_is_reduced_to_the_required_fields() {
    let mut context = dana();
    context.request = Some(request("Dana Ortiz wants a refund. She is waiting.", ""));
    for n in 0..37 {
        context.collected.push(fact(&format!("note_{n}"), &"\u{1F600}".repeat(500), 1));
    }
    let payload = built(&context);
    assert_eq!(payload.summary.generator, Generator::TemplateFallback);
    let keys: Vec<&str> = payload.structured.collected.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(keys, ["name", "order_number"]);
}

#[test]
fn a_link_is_https_or_absent() {
    let transfer = TransferId::parse("xfer_1").unwrap();
    for (base, url) in [
        ("https://handoff.example", Some("https://handoff.example/v1/transcripts/xfer_1")),
        ("http://127.0.0.1:8080/", Some("https://127.0.0.1:8080/v1/transcripts/xfer_1")),
        ("ftp://x", None),
        ("https://", None),
        ("https://a b", None),
    ] {
        assert_eq!(transcript_url(base, &transfer).as_deref(), url, "{base}");
    }
}

#[test]
fn a_destination_without_grants_sees_neither_person_nor_health() {
    let example = Payload::parse(EXAMPLE.as_bytes()).unwrap();
    let shown = |grants: Grants| {
        let projected = project(&example, grants);
        assert_eq!(faults(&projected), Vec::<String>::new());
        String::from_utf8(projected.canonical_bytes().unwrap()).unwrap()
    };
    let person = ["Dana", "Ortiz", "5550142", "003XX", "500XX", "appt_8841", "2026-12-03"];
    let health = ["lisinopril", "edication", "nurse", "linical", "med_question", "refill", "cough", "dob"];
    let nothing = shown(Grants::default());
    for secret in person.iter().chain(&health) {
        assert!(!nothing.contains(secret), "{secret} in {nothing}");
    }
    let person_only = shown(Grants { pii: true, phi: false });
    for secret in health {
        assert!(!person_only.contains(secret), "{secret} in {person_only}");
    }
    assert!(person_only.contains("+15555550142"));
    let health_only = shown(Grants { pii: false, phi: true });
    for secret in person {
        assert!(!health_only.contains(secret), "{secret} in {health_only}");
    }
    assert_eq!(project(&example, Grants { pii: true, phi: true }), example);
}

#[test]
fn a_thin_message_has_a_headline_only_where_the_grants_reach() {
    let example = Payload::parse(EXAMPLE.as_bytes()).unwrap();
    let line =
        |grants| thin(&example, None, Some("https://h.example/p/x"), grants).headline.map(Pii::into_exposed);
    assert_eq!(
        line(Grants { pii: true, phi: true }).as_deref(),
        Some("Refill question: possible interaction")
    );
    assert_eq!(line(Grants { pii: false, phi: true }).as_deref(), Some("Medication safety question"));
    assert_eq!(line(Grants { pii: true, phi: false }), None);
    expect_test::expect![[r#"{"tenant_id":"t_acme","call_id":"call_01JDA3V7","transfer_id":"xfer_01JDA3W1","payload_id":"hp_01JDA3V7K8Q2M4N6P8R0S2T4V6","revision":2,"pop_url":"https://h.example/p/x","expires_at":"2026-11-22T08:01:35.000Z"}"#]]
    .assert_eq(&serde_json::to_string(&thin(&example, None, Some("https://h.example/p/x"), Grants::default())).unwrap());
}

#[test]
fn a_thin_message_has_the_shape_of_its_schema() {
    let schema: Value = serde_json::from_str(THIN_SCHEMA).unwrap();
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let example = Payload::parse(EXAMPLE.as_bytes()).unwrap();
    let agent = HumanAgentId::parse("agent_ana").unwrap();
    for (agent, url) in [(None, None), (Some(&agent), Some("https://h.example/p/x"))] {
        let message = thin(&example, agent, url, Grants { pii: true, phi: true });
        let value = serde_json::to_value(&message).unwrap();
        assert!(schema.is_valid(&value), "{value}");
        assert_eq!(serde_json::from_value::<ThinPayload>(value).unwrap(), message);
    }
}

#[test]
fn the_bare_template_holds_no_collected_value() {
    let context = dana();
    let payload = with_input(&context, &Catalog::default(), bare_template);
    assert_eq!(faults(&payload), Vec::<String>::new());
    let bytes = String::from_utf8(payload.canonical_bytes().unwrap()).unwrap();
    for value in ["Dana", "4711", "88412"] {
        assert!(!bytes.contains(value), "{value}");
    }
}

#[test]
fn debug_output_of_a_payload_shows_nothing_personal() {
    let shown = format!("{:?}", Payload::parse(EXAMPLE.as_bytes()).unwrap());
    for secret in ["Dana", "lisinopril", "5550142", "003XX", "2026-12-03", "appt_8841"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-zA-Z0-9 .,!?@]{0,80}",
        prop::sample::select(vec![
            "Dana Ortiz",
            "4111 1111 1111 1111",
            "December third",
            "Dr. J. Smith. Hello!",
            "forty seven eleven",
            "May 3. Two. Three.",
        ])
        .prop_map(str::to_owned),
        (1_usize..700).prop_map(|length| "\u{1F600}".repeat(length)),
    ]
}

fn any_fact() -> impl Strategy<Value = Collected> {
    let name = prop_oneof![
        "[a-z][a-z0-9_]{0,50}",
        any::<String>(),
        prop::sample::select(vec!["name", "order_number", "account_number", "dob", "cvv", "line2"])
            .prop_map(str::to_owned),
    ];
    let provenance = prop::sample::select(vec![
        Provenance::CallerStated,
        Provenance::CallerConfirmed,
        Provenance::Dtmf,
        Provenance::Crm,
        Provenance::Sip,
        Provenance::ModelInferred,
    ]);
    let class = prop::sample::select(vec![PiiClass::None, PiiClass::Pii, PiiClass::Phi, PiiClass::Pci]);
    let segment = prop::option::of(0_u32..12);
    (
        name,
        prop::option::of(any_text()),
        provenance,
        segment.clone(),
        segment,
        any::<u16>(),
        any::<bool>(),
        class,
    )
        .prop_map(
            |(name, value, provenance, segment, confirmed_segment, confidence_pm, confirmed, class)| {
                Collected {
                    name,
                    value: value.map(Pii::new),
                    provenance,
                    segment,
                    confirmed_segment,
                    confidence_pm,
                    confirmed,
                    class,
                }
            },
        )
}

prop_compose! {
    fn any_request()(
        summary in prop::option::of(any_text()),
        next_action in prop::option::of(any_text()),
        whisper in prop::option::of(any_text()),
    ) -> TransferRequest {
        TransferRequest {
            summary: summary.map(Pii::new),
            next_action: next_action.map(Pii::new),
            whisper: whisper.map(Pii::new),
            ..request("", "")
        }
    }
}

prop_compose! {
    fn any_context()(
        e164 in prop::option::of(prop_oneof!["\\+[1-9][0-9]{6,14}", any::<String>()]),
        restricted in any::<bool>(),
        language in prop::option::of(any::<String>()),
        turns in prop::collection::vec((any_text(), any::<bool>()), 0..10),
        collected in prop::collection::vec(any_fact(), 0..60),
        intent in prop::option::of(prop_oneof![Just("billing.refund".to_owned()), any::<String>()]),
        confidence_pm in any::<u16>(),
        sentiment_pm in prop::option::of(any::<i16>()),
        request in prop::option::of(any_request()),
        tools in prop::collection::vec((any_text(), prop::option::of(any::<bool>()), any::<i64>()), 0..30),
        played_pm in any::<u16>(),
        text_id in any::<String>(),
        recording_consent in prop::sample::select(vec!["affirmative", "refused", "not_asked", "", "?"]),
        redactions in prop::collection::vec(("[A-Za-z_0-9]{0,30}", any::<u32>()), 0..40),
    ) -> Context {
        let turn = |(segment, (words, caller)): (u32, (String, bool))| {
            said(segment, if caller { Speaker::Caller } else { Speaker::Agent }, &words)
        };
        Context {
            caller: CallerIdentity { e164: e164.map(Pii::new), restricted },
            language,
            turns: (0..).zip(turns).map(turn).collect(),
            collected,
            intent: intent.map(|name| Named { name, confidence_pm }),
            sentiment_pm,
            request,
            tools: tools
                .into_iter()
                .map(|(name, ok, at)| ToolRun { name, ok, at: Timestamp::from_unix_millis(at) })
                .collect(),
            ai_disclosure: Played { text_id, text_sha256: None, played_pm, at: None },
            recording_consent: recording_consent.to_owned(),
            redactions,
            ..Context::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_conversation_gives_a_valid_payload(
        context in any_context(),
        level in prop::sample::select(vec![Level::R1Pci, Level::R2Pii, Level::R3Phi]),
        forced in any::<bool>(),
    ) {
        let mut catalog = Catalog { redaction: level, ..Catalog::default() };
        catalog.crm.fields.insert("name".into(), "Contact.Name".into());
        let payload = with_input(&context, &catalog, if forced { template } else { build });
        prop_assert_eq!(validate(&payload, &context, &catalog), Ok(()));
        prop_assert_eq!(faults(&payload), Vec::<String>::new());
        let bytes = payload.canonical_bytes().unwrap();
        prop_assert!(bytes.len() <= PAYLOAD_BYTES_MAX);
        prop_assert_eq!(Payload::parse(&bytes), Ok(payload));
    }

    #[test]
    fn every_projection_has_the_shape_of_the_schema(context in any_context(), pii in any::<bool>(), phi in any::<bool>()) {
        let payload = with_input(&context, &Catalog::default(), build);
        prop_assert_eq!(faults(&project(&payload, Grants { pii, phi })), Vec::<String>::new());
    }
}
