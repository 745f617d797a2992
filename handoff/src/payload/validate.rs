//! The rules that a schema cannot state. [`validate`] judges a payload against the
//! conversation and the tenant's catalogue and repairs nothing. The first four rules are
//! about the words of the summary: where one fails, the template takes its place.

use super::grounding::{self, Claim, Evidence};
use super::{
    BadPayload, Catalog, EXPIRY_MS, Masking, PAYLOAD_BYTES_MAX, Payload, VerificationLevel, catalog,
    sentences, shape,
};
use crate::conversation::{Context, Provenance};
use crate::pii::Pii;
use crate::redact::{self, Level, PriorTurns};
use crate::signal::PiiClass;
use crate::words;

/// Digits in a row from which on a whisper gives a personal detail away.
const PRIVATE_DIGITS_MIN: usize = 3;

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The limits of the published schema.
    Shape,
    /// V1: the sentences counted are the sentences stated.
    Sentences,
    /// V2: every number, date and name of the summary occurs in its sources.
    Grounded,
    /// V3: no text holds what the redactor takes out.
    Redacted,
    /// V4: an unverified caller's whisper is impersonal.
    WhisperPrivate,
    /// V5: a confirmed fact names the segment of its confirmation, or came by keys.
    ConfirmationShown,
    /// V6: the CRM is filled from confirmed facts and its own.
    PrefillConfirmed,
    /// V7: a matching number verifies nobody.
    VerificationProven,
    /// V8: intent, action and queue are in the catalogue.
    Catalogued,
    /// V9: what was removed has no value.
    RemovedEmpty,
    /// V10: segments exist and times are in order.
    Ordered,
    /// V11: no fraction, no exponent, no number too large.
    Integers,
    /// V12: at most 64 KB.
    Size,
    /// V13: what the caller said or the model concluded names its segment.
    SourceShown,
}

impl Rule {
    /// The rule's short name.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Shape => "schema",
            Self::Sentences => "V1",
            Self::Grounded => "V2",
            Self::Redacted => "V3",
            Self::WhisperPrivate => "V4",
            Self::ConfirmationShown => "V5",
            Self::PrefillConfirmed => "V6",
            Self::VerificationProven => "V7",
            Self::Catalogued => "V8",
            Self::RemovedEmpty => "V9",
            Self::Ordered => "V10",
            Self::Integers => "V11",
            Self::Size => "V12",
            Self::SourceShown => "V13",
        }
    }

    /// Whether a violation is cured by the template summary.
    pub const fn forces_template(self) -> bool {
        matches!(self, Self::Sentences | Self::Grounded | Self::Redacted | Self::WhisperPrivate)
    }
}

/// One broken rule. Names the member, never its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is broken by {member}", rule.id())]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// Which member.
    pub member: &'static str,
}

/// Judges `payload` against the conversation that it is about.
pub fn validate(payload: &Payload, context: &Context, catalog: &Catalog) -> Result<(), Vec<Violation>> {
    let mut out = Vec::new();
    if let Some(member) = shape::fault(payload) {
        out.push(Violation { rule: Rule::Shape, member });
    }
    out.extend(of_words(payload, context, catalog));
    of_facts(payload, catalog, &mut out);
    of_order(payload, &mut out);
    match size(payload) {
        Ok(bytes) if bytes <= PAYLOAD_BYTES_MAX => {}
        Ok(_) => out.push(Violation { rule: Rule::Size, member: "payload" }),
        Err(_) => out.push(Violation { rule: Rule::Integers, member: "payload" }),
    }
    if out.is_empty() { Ok(()) } else { Err(out) }
}

/// Bytes of the canonical form.
pub(super) fn size(payload: &Payload) -> Result<usize, BadPayload> {
    Ok(payload.canonical_bytes()?.len())
}

/// V1 to V4: the words that a person reads or hears.
pub(super) fn of_words(payload: &Payload, context: &Context, catalog: &Catalog) -> Vec<Violation> {
    let mut out = Vec::new();
    let summary = &payload.summary;
    let mut broken = |rule, member| out.push(Violation { rule, member });
    if sentences::count(summary.text.expose()) != usize::from(summary.sentence_count) {
        broken(Rule::Sentences, "summary.sentence_count");
    }

    let mut evidence = facts(payload);
    let cited = summary.grounding.segments.iter().flatten();
    for segment in cited {
        if let Some(turn) = context.turns.iter().find(|turn| turn.segment == *segment) {
            evidence.add(turn.text.expose());
        }
    }
    if summary.grounding.unsupported_claims.is_some_and(|claims| claims > 0) {
        broken(Rule::Grounded, "summary.grounding.unsupported_claims");
    }
    let headline = summary.headline.as_ref().map(Pii::expose);
    let whisper = summary.whisper_text.as_ref().map(Pii::expose);
    let spoken = [
        ("summary.text", Some(summary.text.expose())),
        ("summary.headline", headline),
        ("summary.whisper_text", whisper),
    ];
    for (member, text) in spoken {
        let Some(text) = text else { continue };
        if grounding::claims(text).iter().any(|claim| !evidence.shows(claim)) {
            broken(Rule::Grounded, member);
        }
        if flagged(text, "", level(catalog)) {
            broken(Rule::Redacted, member);
        }
    }
    for member in flagged_texts(payload, level(catalog)) {
        broken(Rule::Redacted, member);
    }
    if whisper.is_some_and(|whisper| !is_private(whisper, payload, context)) {
        broken(Rule::WhisperPrivate, "summary.whisper_text");
    }
    out
}

/// The level at which a tenant's payloads are redacted.
pub(super) fn level(catalog: &Catalog) -> Level {
    catalog.redaction.max(Level::R1Pci)
}

/// Whether the redactor would take something out of the value of `key` (or of a text that
/// has no key).
pub(super) fn flagged(text: &str, key: &str, level: Level) -> bool {
    let name = key.replace('_', " ");
    redact::flags(text, level, &PriorTurns { question: Some(&name), payment: false })
}

fn flagged_texts(payload: &Payload, level: Level) -> Vec<&'static str> {
    let structured = &payload.structured;
    let mut texts: Vec<(&'static str, &str, &str)> =
        vec![("structured.next_action.text", structured.next_action.text.expose(), "")];
    let not = structured.next_action.do_not.iter().flatten();
    texts.extend(not.map(|text| ("structured.next_action.do_not", text.expose().as_str(), "")));
    let open = structured.unresolved.iter().flatten();
    texts.extend(open.map(|text| ("structured.unresolved", text.expose().as_str(), "")));
    texts.extend(
        structured
            .trigger
            .explanation
            .iter()
            .map(|text| ("structured.trigger.explanation", text.as_str(), "")),
    );
    for item in &structured.collected {
        let value = item.value.as_ref().map(|value| value.expose().as_str());
        texts.extend(value.map(|value| ("structured.collected.value", value, item.key.as_str())));
    }
    texts.into_iter().filter(|(_, text, key)| flagged(text, key, level)).map(|(member, ..)| member).collect()
}

/// What the structured part shows by itself, the catalogue's own words included.
pub(super) fn facts(payload: &Payload) -> Evidence {
    let structured = &payload.structured;
    let mut evidence = wording(payload);
    for item in &structured.collected {
        evidence.add(&item.key.replace('_', " "));
        if let Some(value) = &item.value {
            evidence.add(value.expose());
        }
    }
    let prefill = structured.crm.iter().filter_map(|crm| crm.prefill.as_ref());
    for value in prefill.flat_map(|fields| fields.values()).flatten() {
        evidence.add(value.expose());
    }
    if let Some(number) = &structured.caller.ani.e164 {
        evidence.add(number.expose());
    }
    evidence
}

/// The words that come from the catalogue and say nothing about a person.
fn wording(payload: &Payload) -> Evidence {
    let mut evidence = Evidence::of(&payload.structured.intent.label);
    if let Some(queue) = payload.structured.routing.as_ref().and_then(|routing| routing.queue.as_ref()) {
        evidence.add(queue);
    }
    evidence
}

/// V4. Fails towards silence: a word that only looks like a name is taken for one.
fn is_private(whisper: &str, payload: &Payload, context: &Context) -> bool {
    if payload.structured.caller.verification.level >= VerificationLevel::PartialKba {
        return true;
    }
    let wording = wording(payload);
    let impersonal = grounding::claims(whisper).iter().all(|claim| match claim {
        Claim::Number(digits) => digits.len() < PRIVATE_DIGITS_MIN || wording.shows(claim),
        Claim::Date(..) | Claim::Weekday(_) | Claim::Name(_) => wording.shows(claim),
    });
    let tokens = words::tokens(whisper);
    let runs = words::runs(&tokens);
    let short = runs.iter().all(|run| {
        run.digits.len() < PRIVATE_DIGITS_MIN || wording.shows(&Claim::Number(run.digits.clone()))
    });
    let said: Vec<&str> = tokens.iter().map(|token| token.folded.as_str()).collect();
    let tells = context.collected.iter().filter(|fact| fact.class != PiiClass::None).any(|fact| {
        let value = fact.value.as_ref().map(|value| words::tokens(value.expose())).unwrap_or_default();
        !value.is_empty()
            && value.iter().map(|token| token.folded.len()).sum::<usize>() >= PRIVATE_DIGITS_MIN
            && said.windows(value.len()).any(|window| window.iter().zip(&value).all(|(a, b)| **a == b.folded))
    });
    impersonal && short && !tells && !flagged(whisper, "", Level::R3Phi)
}

/// V5 to V9 and V13.
fn of_facts(payload: &Payload, catalog: &Catalog, out: &mut Vec<Violation>) {
    let mut broken = |rule, member| out.push(Violation { rule, member });
    let structured = &payload.structured;
    for item in &structured.collected {
        if item.confirmed && item.confirmed_segment.is_none() && item.provenance != Provenance::Dtmf {
            broken(Rule::ConfirmationShown, "structured.collected.confirmed");
        }
        if item.redacted == Some(Masking::Removed) && item.value.is_some() {
            broken(Rule::RemovedEmpty, "structured.collected.value");
        }
        if item.value.as_ref().is_some_and(|value| flagged(value.expose(), &item.key, Level::R1Pci)) {
            broken(Rule::RemovedEmpty, "structured.collected.value");
        }
        let sourced = match item.provenance {
            Provenance::CallerStated | Provenance::CallerConfirmed | Provenance::ModelInferred => {
                item.segment.is_some()
            }
            Provenance::Dtmf | Provenance::Crm | Provenance::Sip => true,
        };
        if !sourced {
            broken(Rule::SourceShown, "structured.collected.segment");
        }
    }
    for (field, value) in structured.crm.iter().filter_map(|crm| crm.prefill.as_ref()).flatten() {
        let may_fill = structured.collected.iter().any(|item| {
            item.crm_field.as_ref() == Some(field)
                && item.value == *value
                && (item.confirmed || item.provenance == Provenance::Crm)
        });
        if !may_fill {
            broken(Rule::PrefillConfirmed, "structured.crm.prefill");
        }
    }
    let verification = &structured.caller.verification;
    let knowledge = verification.methods.iter().flatten().any(|method| !method.starts_with("ani"));
    if verification.level >= VerificationLevel::PartialKba && !knowledge {
        broken(Rule::VerificationProven, "structured.caller.verification.level");
    }
    let category = structured.intent.category.as_str();
    if category != catalog::OTHER && catalog.intent(category).is_none() {
        broken(Rule::Catalogued, "structured.intent.category");
    }
    let code = structured.next_action.code.as_str();
    if code != catalog::ASSIST && catalog.action(code).is_none() {
        broken(Rule::Catalogued, "structured.next_action.code");
    }
    let target = structured.routing.as_ref().and_then(|routing| routing.target_id.as_ref());
    if target.is_some_and(|target| !catalog.queues.is_empty() && !catalog.queues.contains(target)) {
        broken(Rule::Catalogued, "structured.routing.target_id");
    }
}

/// V10.
fn of_order(payload: &Payload, out: &mut Vec<Violation>) {
    let mut broken = |member| out.push(Violation { rule: Rule::Ordered, member });
    let last = payload.transcript.last_seq;
    let exists =
        |segment: Option<u32>| segment.is_none_or(|segment| last.is_some_and(|last| segment <= last));
    let collected = &payload.structured.collected;
    if !collected.iter().all(|item| exists(item.segment) && exists(item.confirmed_segment)) {
        broken("structured.collected.segment");
    }
    if !payload.summary.grounding.segments.iter().flatten().all(|segment| exists(Some(*segment))) {
        broken("summary.grounding.segments");
    }
    if payload.structured.trigger.fired_at > payload.created_at {
        broken("structured.trigger.fired_at");
    }
    let latest = payload.created_at.plus_millis(EXPIRY_MS);
    if payload.expires_at.is_some_and(|expires| expires <= payload.created_at || expires > latest) {
        broken("expires_at");
    }
}
