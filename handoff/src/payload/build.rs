//! Builds a payload from what is known of a call. The words of tier 1 are the template's:
//! confirmed facts only, so that nothing is claimed which nobody said. The template is
//! always two sentences and always valid; a transfer never waits for a summary.

use std::collections::BTreeMap;

use super::{
    Ani, AuditHead, Caller, Catalog, Completeness, Crm, Disclosure, Generator, Grounding, IntentFact, Item,
    Level, Match, NextAction, PAYLOAD_LEN_MAX, Payload, Redaction, Routing, SCHEMA, Structured, Summary,
    Told, Transcript, TriggerFact, Verification,
};
use crate::clock::Timestamp;
use crate::conversation::{Collected, Context, Disclosed, Provenance};
use crate::id::{CallId, PayloadId, TenantId, TransferId};
use crate::pii::Pii;
use crate::policy::{Category, Trigger};
use crate::signal::PiiClass;

/// A payload is of use for one call; its links end an hour later.
const LIFE_MS: i64 = 3_600_000;
/// Items of tier 2; more than a screen holds helps nobody.
const ITEMS_MAX: usize = 40;
/// Longest value of an item, in characters.
const VALUE_CHARS_MAX: usize = 500;
/// Longest summary, in characters.
const SUMMARY_CHARS_MAX: usize = 600;
/// Longest whisper, in characters: about twelve seconds of speech.
const WHISPER_CHARS_MAX: usize = 320;
/// Longest headline, in characters.
const HEADLINE_CHARS_MAX: usize = 90;
/// Confirmed items that the summary names.
const NAMED_MAX: usize = 3;

/// Everything that a payload is built from.
#[derive(Clone, Copy, Debug)]
pub struct BuildInput<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Which call.
    pub call: &'a CallId,
    /// Which transfer.
    pub transfer: &'a TransferId,
    /// Why.
    pub trigger: &'a Trigger,
    /// The payload's `ruleset`.
    pub policy_version: &'a str,
    /// What is known, redacted.
    pub context: &'a Context,
    /// The tenant's catalogue.
    pub catalog: &'a Catalog,
    /// Id of the queue.
    pub queue: &'a str,
    /// Name of the queue on screens.
    pub queue_label: &'a str,
    /// From 1.
    pub revision: u32,
    /// Now.
    pub created_at: Timestamp,
    /// When the event happened that decided.
    pub fired_at: Timestamp,
    /// Base of the links.
    pub public_url: &'a str,
    /// Head of the call's chain, where it is known.
    pub audit_head: Option<(&'a str, u64)>,
}

/// The payload with the best summary that can be trusted.
pub fn build(input: &BuildInput<'_>) -> Payload {
    template(input)
}

/// The payload with the template's summary.
pub fn template(input: &BuildInput<'_>) -> Payload {
    let context = input.context;
    let intent_name = context.intent.as_ref().map(|intent| intent.name.as_str());
    let (category, intent) = input.catalog.intent_of(intent_name);
    let (action, next) = input.catalog.action_of(&intent);
    let collected = items(context, input.catalog);
    let present = |field: &String| collected.iter().any(|item| item.key == *field && is_present(item));
    let missing: Vec<String> =
        intent.required.iter().filter(|field| !present(field)).take(12).cloned().collect();
    let level = level(context);
    let summary = summary(input, &intent.label, &collected, level);
    let payload = Payload {
        schema: SCHEMA.to_owned(),
        payload_id: PayloadId::of(input.transfer),
        revision: input.revision.max(1),
        tenant_id: input.tenant.clone(),
        call_id: input.call.clone(),
        transfer_id: input.transfer.clone(),
        created_at: input.created_at,
        expires_at: Some(input.created_at.plus_millis(LIFE_MS)),
        locale: context.language.as_deref().map(|lang| cut(lang, 16)),
        classification: classes(context, input.catalog),
        summary,
        structured: Structured {
            caller: caller(context, level),
            intent: IntentFact {
                category: cut(&category, 60),
                label: cut(&intent.label, 120),
                confidence_pm: context.intent.as_ref().map_or(0, |intent| intent.confidence_pm),
                secondary: Some(context.secondary.iter().rev().take(3).map(|name| cut(name, 60)).collect()),
                sentiment: Some(sentiment(context.sentiment_pm).to_owned()),
            },
            trigger: trigger(input),
            next_action: NextAction {
                code: action,
                text: Pii::new(cut(&next.text, 240)),
                script_ref: None,
                do_not: do_not(&collected),
            },
            actions_taken: Some(context.tools.iter().rev().take(20).map(tool).collect()),
            unresolved: None,
            routing: Some(Routing {
                target_id: Some(input.queue.to_owned()).filter(|id| (3..=64).contains(&id.len())),
                queue: Some(cut(input.queue_label, 60)),
                skill: None,
                priority: None,
                promised_wait_s: None,
            }),
            crm: Some(Crm {
                system: Some("generic".to_owned()),
                screen_pop: None,
                prefill: Some(prefill(&collected)),
            }),
            completeness: Some(Completeness {
                score_pm: score(intent.required.len(), missing.len()),
                missing,
            }),
            collected,
        },
        transcript: transcript(input),
        disclosure: Disclosure {
            ai_identity: told(&context.ai_disclosure, None),
            recording: told(&context.recording_disclosure, Some(&context.recording_consent)),
            transfer_notice: Some(told(&context.transition, None)).filter(|told| told.status == "delivered"),
            jurisdictions: None,
        },
        redaction: Redaction {
            engine: "warmbridge-redact@1".to_owned(),
            policy: Some("R1_pci".to_owned()),
            counts: context.redactions.iter().take(24).cloned().collect(),
            pci_pause: Vec::new(),
        },
        audit: input.audit_head.map(|(chain, seq)| AuditHead { chain: chain.to_owned(), seq, hash: None }),
    };
    fitted(payload)
}

/// Tier 1 for those who may see nothing personal.
pub(super) fn anonymous_summary(category: &Category) -> String {
    format!("The caller was talking to the voice assistant. Transferred because {}.", reason(*category))
}

fn summary(input: &BuildInput<'_>, label: &str, collected: &[Item], level: Level) -> Summary {
    let name = (level >= Level::PartialKba).then(|| name_of(collected)).flatten();
    let who = name.as_deref().unwrap_or("The caller");
    let confirmed: Vec<String> = collected
        .iter()
        .filter(|item| item.confirmed && !is_name(&item.key))
        .filter_map(|item| Some(format!("{} {}", words(&item.key), item.value.as_ref()?.expose())))
        .take(NAMED_MAX)
        .collect();
    let details = if confirmed.is_empty() {
        "no details confirmed".to_owned()
    } else {
        format!("confirmed {}", confirmed.join(", "))
    };
    let why = reason(input.trigger.category);
    let first = format!("{who} is calling about {label}.");
    let second = format!("Transferred because {why}; {details}.");
    // Values may hold a full stop; then only what the catalogue says is repeated.
    let whole = one_line(&format!("{first} {second}"));
    let plain =
        format!("The caller is calling about {label}. Transferred because {why}; no details confirmed.");
    let text =
        if sentences(&whole) == 2 && whole.chars().count() <= SUMMARY_CHARS_MAX { whole } else { plain };
    let whisper = format!("{}, {label}, because {why}.", name.as_deref().unwrap_or("Caller"));
    Summary {
        text: Pii::new(text),
        sentence_count: 2,
        headline: Some(Pii::new(cut(&capitalised(label), HEADLINE_CHARS_MAX))),
        whisper_text: Some(Pii::new(cut(&one_line(&whisper), WHISPER_CHARS_MAX))),
        generator: Generator::TemplateFallback,
        model_ref: None,
        grounding: Grounding {
            verified: true,
            segments: Some(collected.iter().filter_map(|item| item.segment).take(16).collect()),
            unsupported_claims: Some(0),
        },
    }
}

/// Sentences by their ends: a mark followed by white space or the end, not inside a number.
pub(super) fn sentences(text: &str) -> usize {
    let mut count = 0;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        let ends = matches!(c, '.' | '!' | '?') && chars.peek().is_none_or(|next| next.is_whitespace());
        count += usize::from(ends);
    }
    count
}

fn reason(category: Category) -> &'static str {
    match category {
        Category::Regulatory => "the question must be answered by a person",
        Category::Safety => "somebody may be in danger",
        Category::CallerRequest => "the caller asked for a person",
        Category::ToolFailure => "a tool of the voice assistant failed",
        Category::RoutingRule => "calls of this kind go to a person",
        Category::Topic => "the topic belongs to a person",
        Category::BrokenPromise => "a person had been promised",
        Category::Loop => "the conversation went round in circles",
        Category::LowConfidence => "the voice assistant was not sure enough",
        Category::ElapsedTime => "the call took too long",
    }
}

fn trigger(input: &BuildInput<'_>) -> TriggerFact {
    let trigger = input.trigger;
    TriggerFact {
        code: trigger.category,
        rule_id: Some(cut(&trigger.rule_id, 60)),
        ruleset: cut(input.policy_version, 60),
        fired_at: input.fired_at.min(input.created_at),
        explanation: Some(cut(&trigger.evidence, 200)),
        also: Some(trigger.also.iter().take(6).map(|rule| cut(rule, 40)).collect()),
        mandatory: Some(trigger.mandatory),
    }
}

fn items(context: &Context, catalog: &Catalog) -> Vec<Item> {
    context
        .collected
        .iter()
        .filter(|field| field.class != PiiClass::Pci && is_key(&field.name))
        .take(ITEMS_MAX)
        .map(|field| {
            // A value that no caller turn shows, or that lost its turn, is an inference of
            // the whole conversation: it cites the last turn.
            let segment =
                field.segment.or_else(|| context.turns.last().map(|turn| turn.segment)).unwrap_or(0);
            Item {
                key: field.name.clone(),
                label: None,
                value: field.value.as_ref().map(|value| Pii::new(cut(value.expose(), VALUE_CHARS_MAX))),
                kind: Some("string".to_owned()),
                provenance: field.provenance,
                segment: Some(segment),
                confidence_pm: field.confidence_pm.min(1_000),
                confirmed: is_confirmed(field),
                confirmed_segment: field.confirmed_segment,
                redacted: Some(if field.value.is_some() { "none" } else { "removed" }.to_owned()),
                crm_field: catalog.crm_field.get(&field.name).map(|name| cut(name, 80)),
            }
        })
        .collect()
}

/// Only what the caller confirmed in a turn, or keyed in, counts as confirmed.
fn is_confirmed(field: &Collected) -> bool {
    field.confirmed && (field.confirmed_segment.is_some() || field.provenance == Provenance::Dtmf)
}

fn is_key(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && name.len() <= 48
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_present(item: &Item) -> bool {
    item.value.is_some() || item.redacted.as_deref().is_some_and(|state| state != "none")
}

fn is_name(key: &str) -> bool {
    matches!(key, "name" | "patient_name" | "caller_name" | "customer_name")
}

fn name_of(collected: &[Item]) -> Option<String> {
    let item = collected.iter().find(|item| is_name(&item.key) && item.confirmed)?;
    item.value.as_ref().map(|name| cut(name.expose(), 60))
}

/// A detail that the caller confirmed proves a little; a number alone proves a number.
fn level(context: &Context) -> Level {
    if context.collected.iter().any(is_confirmed) { Level::PartialKba } else { Level::Unverified }
}

fn caller(context: &Context, level: Level) -> Caller {
    let number = context.caller.e164.clone();
    let presentation = match (&number, context.caller.restricted) {
        (_, true) => "restricted",
        (Some(_), false) => "allowed",
        (None, false) => "unavailable",
    };
    let methods = (level == Level::PartialKba).then(|| vec!["detail_confirmed".to_owned()]);
    Caller {
        ani: Ani {
            e164: number.filter(|_| !context.caller.restricted),
            presentation: presentation.to_owned(),
            stir: None,
        },
        matched: Match { status: "not_attempted".to_owned(), method: "none".to_owned(), candidates: None },
        verification: Verification { level, methods, at: None },
    }
}

fn classes(context: &Context, catalog: &Catalog) -> Vec<String> {
    let mut classes = vec!["internal".to_owned(), "pii".to_owned()];
    if catalog.health || context.collected.iter().any(|field| field.class == PiiClass::Phi) {
        classes.push("phi".to_owned());
    }
    classes
}

const fn sentiment(score_pm: Option<i16>) -> &'static str {
    match score_pm {
        None => "unknown",
        Some(i16::MIN..=-600) => "distressed",
        Some(-599..=-200) => "negative",
        Some(-199..=199) => "neutral",
        Some(200..) => "positive",
    }
}

fn tool(run: &crate::conversation::ToolRun) -> super::ActionTaken {
    let outcome = match run.ok {
        Some(true) => "ok",
        Some(false) => "failed",
        None => "unknown",
    };
    super::ActionTaken { tool: cut(&run.name, 60), outcome: outcome.to_owned(), at: run.at, reference: None }
}

fn do_not(collected: &[Item]) -> Option<Vec<String>> {
    let known: Vec<String> =
        collected.iter().filter(|item| item.confirmed).map(|item| words(&item.key)).take(4).collect();
    (!known.is_empty()).then(|| vec![cut(&format!("Do not ask again for: {}.", known.join(", ")), 120)])
}

/// Only confirmed values are written into a CRM by themselves.
fn prefill(collected: &[Item]) -> BTreeMap<String, Option<Pii<String>>> {
    collected
        .iter()
        .filter(|item| item.confirmed || item.provenance == Provenance::Crm)
        .filter_map(|item| Some((item.crm_field.clone()?, item.value.clone())))
        .collect()
}

fn score(required: usize, missing: usize) -> u16 {
    let present = required.saturating_sub(missing);
    if required == 0 { 1_000 } else { u16::try_from(present * 1_000 / required).unwrap_or(1_000) }
}

fn transcript(input: &BuildInput<'_>) -> Transcript {
    let context = input.context;
    let refused = context.recording_consent == "refused";
    let last = context.turns.last().map(|turn| turn.segment);
    let url = https(input.public_url).map(|base| format!("{base}/v1/transcripts/{}", input.transfer));
    let url = url.filter(|url| !refused && last.is_some() && url.len() <= 512);
    let availability = match (&url, refused) {
        (_, true) => "consent_withheld",
        (Some(_), false) => "on_demand",
        (None, false) => "unavailable",
    };
    let on_demand = url.is_some();
    Transcript {
        availability: availability.to_owned(),
        url,
        partial: Some(context.truncated),
        segments: u32::try_from(context.turns.len()).ok(),
        last_seq: last.or(Some(0)).filter(|_| on_demand),
        sha512: None,
        redaction_level: Some("R1_pci".to_owned()),
    }
}

/// Links in a payload are `https`, whatever the listener behind them speaks.
fn https(base: &str) -> Option<String> {
    let host = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"))?;
    Some(format!("https://{}", host.trim_end_matches('/')))
}

fn told(disclosed: &Disclosed, consent: Option<&str>) -> Told {
    let status = match disclosed.played_pm {
        1_000 => "delivered",
        0 => "not_delivered",
        _ => "interrupted",
    };
    let consent = consent.filter(|value| !value.is_empty()).map(str::to_owned);
    Told {
        status: status.to_owned(),
        text_id: Some(cut(&disclosed.text_id, 60)).filter(|id| !id.is_empty()),
        text_sha256: disclosed.text_sha256.clone(),
        at: disclosed.at,
        played_pm: Some(disclosed.played_pm.min(1_000)),
        consent,
        audit_seq: None,
    }
}

/// Over the size limit, what helps least goes first: the oldest actions, then unconfirmed
/// facts from the least certain. Each dropped fact is named as missing.
fn fitted(mut payload: Payload) -> Payload {
    while payload.canonical_bytes().len() > PAYLOAD_LEN_MAX {
        if payload.structured.actions_taken.as_mut().and_then(Vec::pop).is_some() {
            continue;
        }
        let facts = &mut payload.structured.collected;
        let least = facts
            .iter()
            .enumerate()
            .min_by_key(|(_, item)| (item.confirmed, item.confidence_pm))
            .map(|(index, _)| index);
        let Some(index) = least else { break };
        let dropped = facts.remove(index);
        if let Some(completeness) =
            payload.structured.completeness.as_mut().filter(|known| known.missing.len() < 12)
        {
            completeness.missing.push(dropped.key);
        }
    }
    payload
}

fn words(key: &str) -> String {
    key.replace('_', " ")
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `chars` characters, cut between characters.
fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}
