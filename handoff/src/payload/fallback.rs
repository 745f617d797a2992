//! The fixed words: a summary and a whisper that need no model and always hold. They use
//! confirmed values and those of the CRM only, and name the caller only once a knowledge
//! detail has been confirmed.

use super::build::{TEXT_RANGE, WHISPER_MAX, capitalised, cut};
use super::{
    Catalog, Generator, Grounding, Item, Masking, Payload, Structured, Summary, VerificationLevel, validate,
};
use crate::conversation::{Context, Provenance};
use crate::pii::Pii;
use crate::policy::Category;

/// Longest value that the template reads out; a longer one is on the card anyway.
const SPOKEN_VALUE_MAX: usize = 60;

/// Facts that the template reads out: more make a sentence that nobody remembers.
const SPOKEN_ITEMS_MAX: usize = 4;

/// The template: who and what, then why and what is confirmed. Two sentences, whatever the
/// values hold: a value that would break a rule is left out, first the name, then the facts.
pub(super) fn apply(payload: &mut Payload, context: &Context, catalog: &Catalog) {
    let structured = &payload.structured;
    let name = name(structured, catalog);
    let (facts, segments) = confirmed(structured, catalog);
    let about = structured.intent.label.clone();
    let why = reason(structured.trigger.code);
    let tries = [
        (name.as_deref(), Some(facts.as_str())),
        (None, Some(facts.as_str())),
        (name.as_deref(), None),
        (None, None),
    ];
    for (name, facts) in tries {
        let facts = facts.filter(|facts| !facts.is_empty());
        let text = format!(
            "{} is calling about {about}. Transferred because {why}; {}.",
            name.unwrap_or("The caller"),
            facts.map_or_else(|| "no details confirmed".to_owned(), |facts| format!("confirmed: {facts}")),
        );
        let whisper =
            format!("{}, calling about {about}. Transferred because {why}.", name.unwrap_or("A caller"));
        payload.summary = Summary {
            text: Pii::new(text),
            sentence_count: 2,
            headline: Some(Pii::new(cut(&capitalised(&about), 90))),
            whisper_text: Some(Pii::new(whisper)).filter(|text| text.expose().chars().count() <= WHISPER_MAX),
            generator: Generator::TemplateFallback,
            model_ref: None,
            grounding: Grounding {
                verified: true,
                segments: Some(if facts.is_some() { segments.clone() } else { Vec::new() }),
                unsupported_claims: Some(0),
            },
        };
        let length = payload.summary.text.expose().chars().count();
        if TEXT_RANGE.contains(&length) && validate::of_words(payload, context, catalog).is_empty() {
            return;
        }
    }
}

/// The caller's name, once a knowledge detail has been confirmed.
fn name(structured: &Structured, catalog: &Catalog) -> Option<String> {
    if structured.caller.verification.level < VerificationLevel::PartialKba {
        return None;
    }
    let named = |key: &String| structured.collected.iter().find(|item| item.key == *key && is_sure(item));
    let item = catalog.names.iter().find_map(named)?;
    let name = item.value.as_ref()?.expose();
    (name.chars().count() <= SPOKEN_VALUE_MAX).then(|| name.clone())
}

/// Confirmed facts as a list, and the segments that show them.
fn confirmed(structured: &Structured, catalog: &Catalog) -> (String, Vec<u32>) {
    let mut parts = Vec::new();
    let mut segments = Vec::new();
    for item in structured.collected.iter().filter(|item| is_sure(item) && !catalog.names.contains(&item.key))
    {
        let Some(value) = item.value.as_ref().map(Pii::expose) else { continue };
        if value.chars().count() > SPOKEN_VALUE_MAX || parts.len() >= SPOKEN_ITEMS_MAX {
            continue;
        }
        parts.push(format!("{} {value}", item.key.replace('_', " ")));
        segments.extend(item.confirmed_segment.or(item.segment));
    }
    segments.sort_unstable();
    segments.dedup();
    (parts.join(", "), segments)
}

fn is_sure(item: &Item) -> bool {
    (item.confirmed || item.provenance == Provenance::Crm) && item.redacted == Some(Masking::None)
}

/// Completes "Transferred because …".
const fn reason(category: Category) -> &'static str {
    match category {
        Category::Regulatory => "this must be answered by a person",
        Category::Safety => "someone may need urgent help",
        Category::CallerRequest => "the caller asked for a person",
        Category::ToolFailure => "a system that the assistant needs is failing",
        Category::RoutingRule => "this type of call goes to a person",
        Category::Topic => "this topic goes to a person",
        Category::BrokenPromise => "a person was promised and not yet reached",
        Category::Loop => "the conversation was going in circles",
        Category::LowConfidence => "the assistant was not sure enough",
        Category::ElapsedTime => "the call was taking too long",
    }
}
