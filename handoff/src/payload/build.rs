//! Makes a payload from a conversation. The voice agent's words are candidates: its summary,
//! whisper and next action are used where every number, date and name in them is shown by
//! the conversation, and the fixed template takes their place where not. A transfer never
//! waits for words, so this always gives a payload, and always a valid one.

use std::collections::BTreeMap;

use super::grounding::{self, Evidence};
use super::validate::{self, level};
use super::{
    ActionTaken, Ani, AuditHead, Availability, Caller, Catalog, Classification, Consent, CrmView, Disclosed,
    Disclosure, DisclosureStatus, EXPIRY_MS, Generator, Grounding, IntentView, Item, Masking, Match,
    MatchMethod, MatchStatus, NextAction, Payload, Presentation, Redaction, Routing, Schema, Sentiment,
    Structured, Summary, ToolOutcome, Transcript, TriggerView, Verification, VerificationLevel, catalog,
    fallback, limits, sentences, shape,
};
use crate::clock::Timestamp;
use crate::conversation::{self, Collected, Context, Provenance};
use crate::id::{CallId, PayloadId, QueueId, TenantId, TransferId};
use crate::pii::Pii;
use crate::policy::{Origin, Trigger};
use crate::redact::{self, PriorTurns};
use crate::signal::PiiClass;

/// Name and version of the detector.
const ENGINE: &str = "warmbridge-redact@1";

/// What `summary.model_ref` says of the voice agent's own words.
const VOICE_AGENT: &str = "voice-agent";

/// Limits of the schema that building has to respect, in characters or entries.
pub(super) const TEXT_RANGE: core::ops::RangeInclusive<usize> = 20..=600;
pub(super) const WHISPER_MAX: usize = 320;
const NEXT_ACTION_MAX: usize = 240;
const VALUE_MAX: usize = 500;
const ITEMS_MAX: usize = 40;
const CITED_MAX: usize = 16;
const ACTIONS_MAX: usize = 20;

/// Everything that a payload is made from.
#[derive(Clone, Copy, Debug)]
pub struct BuildInput<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// The call.
    pub call: &'a CallId,
    /// The transfer.
    pub transfer: &'a TransferId,
    /// Why a person.
    pub trigger: &'a Trigger,
    /// Version of the policy.
    pub policy_version: &'a str,
    /// Who decided.
    pub origin: Origin,
    /// The conversation, redacted at `R1_pci`.
    pub context: &'a Context,
    /// The tenant's catalogue.
    pub catalog: &'a Catalog,
    /// Where the call goes: the queue and its label.
    pub queue: Option<(&'a QueueId, &'a str)>,
    /// From 1.
    pub revision: u32,
    /// Now.
    pub created_at: Timestamp,
    /// When the trigger fired.
    pub fired_at: Timestamp,
    /// Base of the links.
    pub public_url: &'a str,
    /// The audit chain and its last record.
    pub audit_head: Option<(&'a CallId, u64)>,
    /// Classes that this call has besides the tenant's and those found in it.
    pub classification: &'a [Classification],
}

/// The best payload that the conversation allows.
pub fn build(input: &BuildInput<'_>) -> Payload {
    finished(input, Words::Best)
}

/// The same with the fixed template, whatever the voice agent said.
pub fn template(input: &BuildInput<'_>) -> Payload {
    finished(input, Words::Template)
}

/// The template without any collected value: what is sent where a later scan of a payload
/// finds what should not be in it.
pub fn bare_template(input: &BuildInput<'_>) -> Payload {
    let context = Context { collected: Vec::new(), request: None, ..input.context.clone() };
    finished(&BuildInput { context: &context, ..*input }, Words::Template)
}

/// The link to a transfer's transcript, or `None` where `public_url` cannot form one. The
/// contract allows `https` alone, so a plain address of one machine is written as one: it
/// names the transcript even where only a local page can fetch it.
pub fn transcript_url(public_url: &str, transfer: &TransferId) -> Option<String> {
    let rest = public_url.strip_prefix("https://").or_else(|| public_url.strip_prefix("http://"))?;
    let host = rest.trim_end_matches('/');
    let url = format!("https://{host}/v1/transcripts/{transfer}");
    let plain = url.bytes().all(|byte| {
        byte.is_ascii_graphic()
            && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    });
    (!host.is_empty() && plain && url.len() <= 512).then_some(url)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Best,
    Template,
}

fn finished(input: &BuildInput<'_>, words: Words) -> Payload {
    let (mut payload, mut dropped) = draft(input);
    if words == Words::Best {
        use_next_action(&mut payload, input);
        use_summary(&mut payload, input);
        use_whisper(&mut payload, input);
    }
    let fits = limits::fit(&mut payload, input.catalog, &mut dropped);
    if !fits {
        limits::reduce(&mut payload, input.catalog, &mut dropped);
    }
    // A dropped fact may have been what the words rested on.
    if !fits || !validate::of_words(&payload, input.context, input.catalog).is_empty() {
        fallback::apply(&mut payload, input.context, input.catalog);
    }
    payload
}

/// Everything but the voice agent's own words, under a template summary.
fn draft(input: &BuildInput<'_>) -> (Payload, Vec<String>) {
    let context = input.context;
    let created_at = printable(input.created_at);
    let last_seq = context.turns.iter().map(|turn| turn.segment).max();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for (class, count) in &context.redactions {
        if shape::class_name(class) && (counts.contains_key(class) || counts.len() < 24) {
            let sum = counts.entry(class.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    let (collected, dropped) = items(input, last_seq);
    let consent = consent(&context.recording_consent);
    let mut payload = Payload {
        schema: Schema::Handoff10,
        payload_id: PayloadId::of(input.transfer),
        revision: input.revision.max(1),
        tenant_id: input.tenant.clone(),
        call_id: input.call.clone(),
        transfer_id: input.transfer.clone(),
        created_at,
        expires_at: Some(created_at.plus_millis(EXPIRY_MS)),
        locale: context.language.clone().filter(|language| language.chars().count() <= 16),
        classification: classification(input, &counts),
        summary: Summary {
            text: Pii::new(String::new()),
            sentence_count: 2,
            headline: None,
            whisper_text: None,
            generator: Generator::TemplateFallback,
            model_ref: None,
            grounding: Grounding::default(),
        },
        structured: structured(input, collected),
        transcript: transcript(input, consent, last_seq),
        disclosure: Disclosure {
            ai_identity: disclosed(&context.ai_disclosure, None),
            recording: disclosed(&context.recording_disclosure, Some(consent)),
            transfer_notice: Some(disclosed(&context.transition, None)),
            jurisdictions: None,
        },
        redaction: Redaction { engine: ENGINE.to_owned(), policy: None, counts, pci_pause: Vec::new() },
        audit: input.audit_head.filter(|(_, seq)| *seq >= 1).map(|(chain, seq)| AuditHead {
            chain: chain.clone(),
            seq,
            hash: None,
        }),
    };
    fallback::apply(&mut payload, input.context, input.catalog);
    (payload, dropped)
}

fn structured(input: &BuildInput<'_>, collected: Vec<Item>) -> Structured {
    let context = input.context;
    let catalog = input.catalog;
    let crm = &catalog.crm;
    let known =
        context.intent.as_ref().and_then(|named| catalog.intent(&named.name).map(|intent| (named, intent)));
    let intent = IntentView {
        category: known.map_or_else(|| catalog::OTHER.to_owned(), |(_, intent)| intent.category.clone()),
        label: known.map_or_else(|| "a question".to_owned(), |(_, intent)| intent.label.clone()),
        confidence_pm: known.map_or(0, |(named, _)| named.confidence_pm.min(1_000)),
        secondary: filled(
            context.secondary.iter().filter(|name| catalog.intent(name).is_some()).take(3).cloned().collect(),
        ),
        sentiment: context.sentiment_pm.map(sentiment),
    };
    let prefill: BTreeMap<String, Option<Pii<String>>> = collected
        .iter()
        .filter(|item| item.confirmed || item.provenance == Provenance::Crm)
        .filter(|item| item.redacted == Some(Masking::None))
        .filter_map(|item| Some((item.crm_field.clone()?, item.value.clone())))
        .collect();
    let actions = context.tools.iter().rev().take(ACTIONS_MAX).rev().map(|tool| ActionTaken {
        tool: cleaned(&tool.name, 60, input),
        outcome: match tool.ok {
            Some(true) => ToolOutcome::Ok,
            Some(false) => ToolOutcome::Failed,
            None => ToolOutcome::Unknown,
        },
        at: printable(tool.at),
        reference: None,
    });
    Structured {
        caller: caller(input, &collected),
        next_action: proposed_action(catalog, &intent.category),
        intent,
        trigger: trigger(input),
        actions_taken: filled(actions.collect()),
        unresolved: None,
        routing: input.queue.map(|(id, label)| Routing {
            target_id: Some(id.clone()).filter(|id| catalog.queues.is_empty() || catalog.queues.contains(id)),
            queue: Some(cut(label, 60)),
            ..Routing::default()
        }),
        crm: (crm.system.is_some() || !crm.fields.is_empty()).then_some(CrmView {
            system: crm.system,
            screen_pop: None,
            prefill: Some(prefill),
        }),
        collected,
        completeness: None,
    }
}

fn trigger(input: &BuildInput<'_>) -> TriggerView {
    let trigger = input.trigger;
    let decided = match input.origin {
        Origin::Function => "",
        Origin::EdgeFallback => " (decided by the edge alone)",
    };
    let evidence = cleaned(&trigger.evidence, 200 - decided.len(), input);
    TriggerView {
        code: trigger.category,
        rule_id: Some(cut(&trigger.rule_id, 60)),
        ruleset: cut(input.policy_version, 60),
        fired_at: printable(input.fired_at).min(printable(input.created_at)),
        explanation: Some(format!("{evidence}{decided}")),
        also: filled(trigger.also.iter().take(6).map(|rule| cut(rule, 40)).collect()),
        mandatory: Some(trigger.mandatory),
    }
}

fn caller(input: &BuildInput<'_>, collected: &[Item]) -> Caller {
    let identity = &input.context.caller;
    let number = identity.e164.clone().filter(|number| shape::e164(number.expose()) && !identity.restricted);
    let proves = |item: &&Item| {
        let by_caller =
            matches!(item.provenance, Provenance::CallerConfirmed | Provenance::Dtmf | Provenance::Crm);
        item.confirmed && by_caller && input.catalog.verification.contains(&item.key)
    };
    let methods: Vec<String> = collected
        .iter()
        .filter(proves)
        .take(6)
        .map(|item| cut(&format!("{}_confirmed", item.key), 40))
        .collect();
    Caller {
        ani: Ani {
            presentation: match (&number, identity.restricted) {
                (_, true) => Presentation::Restricted,
                (Some(_), false) => Presentation::Allowed,
                (None, false) => Presentation::Unavailable,
            },
            e164: number,
            stir: None,
        },
        matched: Match { status: MatchStatus::NotAttempted, method: MatchMethod::None, candidates: None },
        verification: Verification {
            level: if methods.is_empty() {
                VerificationLevel::Unverified
            } else {
                VerificationLevel::PartialKba
            },
            methods: filled(methods),
            at: None,
        },
    }
}

/// The facts that can be shown with their source, and the names of those that can not.
fn items(input: &BuildInput<'_>, last_seq: Option<u32>) -> (Vec<Item>, Vec<String>) {
    let mut dropped = Vec::new();
    let mut out: Vec<Item> = Vec::new();
    for fact in &input.context.collected {
        // Nothing of a payment is passed on, not even that there was a field for it.
        if fact.class == PiiClass::Pci
            || !shape::key(&fact.name)
            || out.iter().any(|item| item.key == fact.name)
        {
            continue;
        }
        match item(input, fact, last_seq) {
            Some(item) => out.push(item),
            None => dropped.push(fact.name.clone()),
        }
    }
    let required =
        input.context.intent.as_ref().map_or(&[][..], |intent| input.catalog.required(&intent.name));
    while out.len() > ITEMS_MAX {
        let rank = |item: &Item| (required.contains(&item.key), item.confirmed, item.confidence_pm);
        let weakest = out.iter().enumerate().min_by_key(|(_, item)| rank(item)).map(|(index, _)| index);
        dropped.extend(weakest.map(|index| out.remove(index).key));
    }
    (out, dropped)
}

fn item(input: &BuildInput<'_>, fact: &Collected, last_seq: Option<u32>) -> Option<Item> {
    let exists = |segment: &u32| last_seq.is_some_and(|last| *segment <= last);
    let segment = fact.segment.filter(exists);
    let confirmed_segment = fact.confirmed_segment.filter(exists);
    match fact.provenance {
        Provenance::CallerStated | Provenance::CallerConfirmed | Provenance::ModelInferred => segment?,
        Provenance::Dtmf | Provenance::Crm | Provenance::Sip => 0,
    };
    let (value, redacted) = shown(input, fact)?;
    Some(Item {
        key: fact.name.clone(),
        label: Some(label(&fact.name)),
        value,
        kind: None,
        provenance: fact.provenance,
        segment,
        confidence_pm: fact.confidence_pm.min(1_000),
        confirmed: fact.confirmed && (confirmed_segment.is_some() || fact.provenance == Provenance::Dtmf),
        redacted: Some(redacted),
        crm_field: input.catalog.crm.fields.get(&fact.name).cloned(),
        confirmed_segment,
    })
}

/// The value as it may be shown. `None`: it is no value, or too long to be shown whole, and
/// half a fact is a wrong one.
fn shown(input: &BuildInput<'_>, fact: &Collected) -> Option<(Option<Pii<String>>, Masking)> {
    let level = level(input.catalog);
    let withheld = match fact.class {
        PiiClass::None => false,
        PiiClass::Pii => level >= redact::Level::R2Pii,
        PiiClass::Phi => level >= redact::Level::R3Phi,
        PiiClass::Pci => true,
    };
    let Some(value) = fact.value.as_ref().filter(|_| !withheld) else {
        return Some((None, Masking::Removed));
    };
    let value = one_line(value.expose());
    let name = fact.name.replace('_', " ");
    let cleaned = redact::redact(&value, level, &PriorTurns { question: Some(&name), payment: false }).text;
    let masking = match (cleaned == value, cleaned.starts_with('[') && cleaned.ends_with(']')) {
        (true, _) => Masking::None,
        (false, true) => return Some((None, Masking::Removed)),
        (false, false) => Masking::Masked,
    };
    let length = cleaned.chars().count();
    (1..=VALUE_MAX).contains(&length).then(|| (Some(Pii::new(cleaned)), masking))
}

fn transcript(input: &BuildInput<'_>, consent: Consent, last_seq: Option<u32>) -> Transcript {
    let url = transcript_url(input.public_url, input.transfer);
    let (availability, url) = match (consent, url, last_seq) {
        (Consent::Refused, _, _) => (Availability::ConsentWithheld, None),
        (_, Some(url), Some(_)) => (Availability::OnDemand, Some(url)),
        (_, _, _) => (Availability::Unavailable, None),
    };
    Transcript {
        availability,
        partial: Some(true),
        segments: last_seq.map(|last| last.saturating_add(1)),
        last_seq,
        sha512: None,
        redaction_level: url.as_ref().map(|_| level(input.catalog)),
        url,
    }
}

fn classification(input: &BuildInput<'_>, counts: &BTreeMap<String, u32>) -> Vec<Classification> {
    let context = input.context;
    let health = context.collected.iter().any(|fact| fact.class == PiiClass::Phi);
    let payment = ["PAN", "CVV", "PIN", "TRACK"].iter().any(|class| counts.contains_key(*class));
    let found = [
        Some(Classification::Internal),
        // Free speech is personal whatever was said.
        (!context.turns.is_empty() || !context.collected.is_empty() || context.caller.e164.is_some())
            .then_some(Classification::Pii),
        health.then_some(Classification::Phi),
        payment.then_some(Classification::PciScope),
    ];
    let mut all: Vec<Classification> = found.into_iter().flatten().collect();
    all.extend(input.catalog.classification.iter().chain(input.classification));
    all.sort_unstable();
    all.dedup();
    all
}

fn proposed_action(catalog: &Catalog, category: &str) -> NextAction {
    let code = catalog.intent(category).and_then(|intent| intent.action.as_deref());
    match code.and_then(|code| catalog.action(code)) {
        Some(action) => NextAction {
            code: action.code.clone(),
            text: Pii::new(action.text.clone()),
            script_ref: action.script_ref.clone(),
            do_not: filled(action.do_not.iter().cloned().map(Pii::new).collect()),
        },
        None => NextAction {
            code: catalog::ASSIST.to_owned(),
            text: Pii::new("Greet the caller and go on from the summary.".to_owned()),
            script_ref: None,
            do_not: None,
        },
    }
}

/// The voice agent's next action, if it invents nothing.
fn use_next_action(payload: &mut Payload, input: &BuildInput<'_>) {
    let Some(text) = candidate(input, |request| request.next_action.as_ref(), 1..=NEXT_ACTION_MAX) else {
        return;
    };
    let mut evidence = validate::facts(payload);
    for turn in &input.context.turns {
        evidence.add(turn.text.expose());
    }
    if grounding::claims_of_instruction(&text).iter().all(|claim| evidence.shows(claim)) {
        payload.structured.next_action.text = Pii::new(text);
    }
}

/// The voice agent's summary, if it passes every rule about words.
fn use_summary(payload: &mut Payload, input: &BuildInput<'_>) {
    let Some(text) = candidate(input, |request| request.summary.as_ref(), TEXT_RANGE) else { return };
    let count = sentences::count(&text);
    let Some(sentence_count) = u8::try_from(count).ok().filter(|count| (2..=3).contains(count)) else {
        return;
    };
    let Some(cited) = cited(payload, input, &text, &[]) else { return };
    let mut tried = payload.clone();
    tried.summary = Summary {
        text: Pii::new(text),
        sentence_count,
        headline: payload.summary.headline.clone(),
        whisper_text: payload.summary.whisper_text.clone(),
        generator: Generator::Model,
        model_ref: Some(VOICE_AGENT.to_owned()),
        grounding: Grounding { verified: true, segments: Some(cited), unsupported_claims: Some(0) },
    };
    use_if_sound(payload, tried, input);
}

/// The voice agent's whisper, if it passes every rule about words.
fn use_whisper(payload: &mut Payload, input: &BuildInput<'_>) {
    let Some(text) = candidate(input, |request| request.whisper.as_ref(), 1..=WHISPER_MAX) else { return };
    let known = payload.summary.grounding.segments.clone().unwrap_or_default();
    let Some(cited) = cited(payload, input, &text, &known) else { return };
    let mut tried = payload.clone();
    tried.summary.whisper_text = Some(Pii::new(text));
    tried.summary.grounding.segments = Some(cited);
    use_if_sound(payload, tried, input);
}

fn use_if_sound(payload: &mut Payload, tried: Payload, input: &BuildInput<'_>) {
    if validate::of_words(&tried, input.context, input.catalog).is_empty() {
        *payload = tried;
    }
}

type Wanted = fn(&crate::signal::TransferRequest) -> Option<&Pii<String>>;

/// One of the voice agent's texts, on one line, of a fitting length, free of what the
/// redactor takes out.
fn candidate(
    input: &BuildInput<'_>,
    wanted: Wanted,
    length: core::ops::RangeInclusive<usize>,
) -> Option<String> {
    let text = one_line(wanted(input.context.request.as_ref()?)?.expose());
    let fits = length.contains(&text.chars().count());
    (fits && !validate::flagged(&text, "", level(input.catalog))).then_some(text)
}

/// The segments that show what `text` claims beyond the collected facts, added to `known`.
/// `None` where nothing shows a claim, or where it takes more segments than can be cited.
fn cited(payload: &Payload, input: &BuildInput<'_>, text: &str, known: &[u32]) -> Option<Vec<u32>> {
    let facts = validate::facts(payload);
    let mut cited = known.to_vec();
    let mut turns: Option<Vec<(u32, Evidence)>> = None;
    for claim in grounding::claims(text) {
        if facts.shows(&claim) {
            continue;
        }
        let turns = turns.get_or_insert_with(|| {
            input.context.turns.iter().map(|turn| (turn.segment, Evidence::of(turn.text.expose()))).collect()
        });
        let shown_by = |segments: &[u32]| {
            turns.iter().find(|(segment, turn)| {
                (segments.is_empty() || segments.contains(segment)) && turn.shows(&claim)
            })
        };
        if !cited.is_empty() && shown_by(&cited).is_some() {
            continue;
        }
        cited.push(shown_by(&[])?.0);
    }
    cited.sort_unstable();
    cited.dedup();
    (cited.len() <= CITED_MAX).then_some(cited)
}

fn consent(text: &str) -> Consent {
    match text {
        "affirmative" => Consent::Affirmative,
        "implied_by_continuing" => Consent::ImpliedByContinuing,
        "refused" => Consent::Refused,
        // Whatever else stands there is no consent.
        _ => Consent::NotAsked,
    }
}

const fn sentiment(score_pm: i16) -> Sentiment {
    match score_pm {
        ..=-600 => Sentiment::Distressed,
        -599..=-200 => Sentiment::Negative,
        -199..=200 => Sentiment::Neutral,
        201.. => Sentiment::Positive,
    }
}

fn disclosed(text: &conversation::Disclosed, consent: Option<Consent>) -> Disclosed {
    let played_pm = text.played_pm.min(1_000);
    Disclosed {
        status: match played_pm {
            0 => DisclosureStatus::NotDelivered,
            1_000.. => DisclosureStatus::Delivered,
            1..=999 => DisclosureStatus::Interrupted,
        },
        text_id: Some(cut(&text.text_id, 60)).filter(|id| !id.is_empty()),
        text_sha256: text.text_sha256.clone().filter(|digest| shape::hex(digest, 64)),
        at: text.at.map(printable),
        played_pm: Some(played_pm),
        consent,
        audit_seq: None,
    }
}

/// Within the years that RFC 3339 can print, an hour of expiry included.
fn printable(at: Timestamp) -> Timestamp {
    const LAST: i64 = 253_402_300_799_999 - EXPIRY_MS;
    Timestamp::from_unix_millis(at.unix_millis().clamp(0, LAST))
}

fn cleaned(text: &str, max: usize, input: &BuildInput<'_>) -> String {
    cut(&redact::redact(&one_line(text), level(input.catalog), &PriorTurns::default()).text, max)
}

pub(super) fn cut(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

/// White space and control characters as single spaces.
fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// "order_number" as a person reads it.
fn label(key: &str) -> String {
    capitalised(&key.replace('_', " "))
}

pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn filled<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}
