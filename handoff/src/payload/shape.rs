//! The limits of the published schema that types do not express: lengths, ranges, patterns
//! and the three conditions between members. Lengths count characters, as JSON Schema does.

use super::{Availability, Consent, CrmRef, Disclosed, Generator, Item, Payload, Structured, Summary};
use crate::pii::Pii;

/// The first member of `payload` outside the limits of the schema.
pub(super) fn fault(payload: &Payload) -> Option<&'static str> {
    let mut check = Check { fault: None };
    envelope(&mut check, payload);
    summary(&mut check, &payload.summary);
    structured(&mut check, &payload.structured);
    transcript(&mut check, payload);
    disclosure(&mut check, payload);
    redaction(&mut check, payload);
    check.fault
}

struct Check {
    fault: Option<&'static str>,
}

impl Check {
    fn that(&mut self, holds: bool, member: &'static str) {
        if !holds && self.fault.is_none() {
            self.fault = Some(member);
        }
    }

    fn text(&mut self, text: &str, max: usize, member: &'static str) {
        self.that(text.chars().count() <= max, member);
    }

    fn opt(&mut self, text: Option<&String>, max: usize, member: &'static str) {
        if let Some(text) = text {
            self.text(text, max, member);
        }
    }

    fn list<T>(&mut self, items: Option<&Vec<T>>, max: usize, member: &'static str) {
        self.that(items.is_none_or(|items| items.len() <= max), member);
    }

    fn pm(&mut self, value: u16, member: &'static str) {
        self.that(value <= 1_000, member);
    }

    fn url(&mut self, url: &str, member: &'static str) {
        let plain = url.chars().all(|letter| letter.is_ascii_graphic());
        self.that(plain && url.starts_with("https://") && url.len() <= 512, member);
    }
}

fn envelope(check: &mut Check, payload: &Payload) {
    check.that(payload_id(payload.payload_id.as_str()), "payload_id");
    check.that(payload.revision >= 1, "revision");
    check.opt(payload.locale.as_ref(), 16, "locale");
    let classes = &payload.classification;
    let unique = classes
        .iter()
        .enumerate()
        .all(|(at, class)| !classes.iter().skip(at + 1).any(|other| other == class));
    check.that(!classes.is_empty() && unique, "classification");
    if let Some(audit) = &payload.audit {
        check.that(audit.seq >= 1, "audit.seq");
        check.that(audit.hash.as_ref().is_none_or(|hash| hex(hash, 64)), "audit.hash");
    }
}

fn summary(check: &mut Check, summary: &Summary) {
    let length = summary.text.expose().chars().count();
    check.that((20..=600).contains(&length), "summary.text");
    check.that((2..=3).contains(&summary.sentence_count), "summary.sentence_count");
    check.opt(summary.headline.as_ref().map(Pii::expose), 90, "summary.headline");
    check.opt(summary.whisper_text.as_ref().map(Pii::expose), 320, "summary.whisper_text");
    check.opt(summary.model_ref.as_ref(), 80, "summary.model_ref");
    check.list(summary.grounding.segments.as_ref(), 16, "summary.grounding.segments");
    if summary.generator == Generator::Model {
        check.that(summary.model_ref.is_some(), "summary.model_ref");
        check.that(summary.grounding.verified, "summary.grounding.verified");
    }
}

fn structured(check: &mut Check, structured: &Structured) {
    let caller = &structured.caller;
    check.that(
        caller.ani.e164.as_ref().is_none_or(|number| e164(number.expose())),
        "structured.caller.ani.e164",
    );
    check.list(caller.matched.candidates.as_ref(), 5, "structured.caller.match.candidates");
    for candidate in caller.matched.candidates.iter().flatten() {
        crm_ref(check, candidate, "structured.caller.match.candidates");
    }
    check.list(caller.verification.methods.as_ref(), 6, "structured.caller.verification.methods");
    for method in caller.verification.methods.iter().flatten() {
        check.text(method, 40, "structured.caller.verification.methods");
    }

    let intent = &structured.intent;
    check.text(&intent.category, 60, "structured.intent.category");
    check.text(&intent.label, 120, "structured.intent.label");
    check.pm(intent.confidence_pm, "structured.intent.confidence_pm");
    check.list(intent.secondary.as_ref(), 3, "structured.intent.secondary");
    for other in intent.secondary.iter().flatten() {
        check.text(other, 60, "structured.intent.secondary");
    }

    let trigger = &structured.trigger;
    check.opt(trigger.rule_id.as_ref(), 60, "structured.trigger.rule_id");
    check.text(&trigger.ruleset, 60, "structured.trigger.ruleset");
    check.opt(trigger.explanation.as_ref(), 200, "structured.trigger.explanation");
    check.list(trigger.also.as_ref(), 6, "structured.trigger.also");
    for other in trigger.also.iter().flatten() {
        check.text(other, 40, "structured.trigger.also");
    }

    check.that(structured.collected.len() <= 40, "structured.collected");
    for item in &structured.collected {
        collected(check, item);
    }

    hand_over(check, structured);
}

/// What comes next: action, routing, CRM, completeness.
fn hand_over(check: &mut Check, structured: &Structured) {
    let next = &structured.next_action;
    check.text(&next.code, 60, "structured.next_action.code");
    check.text(next.text.expose(), 240, "structured.next_action.text");
    check.opt(next.script_ref.as_ref(), 120, "structured.next_action.script_ref");
    check.list(next.do_not.as_ref(), 4, "structured.next_action.do_not");
    for not in next.do_not.iter().flatten() {
        check.text(not.expose(), 120, "structured.next_action.do_not");
    }

    check.list(structured.actions_taken.as_ref(), 20, "structured.actions_taken");
    for action in structured.actions_taken.iter().flatten() {
        check.text(&action.tool, 60, "structured.actions_taken.tool");
        check.opt(action.reference.as_ref().map(Pii::expose), 80, "structured.actions_taken.ref");
    }
    check.list(structured.unresolved.as_ref(), 8, "structured.unresolved");
    for open in structured.unresolved.iter().flatten() {
        check.text(open.expose(), 160, "structured.unresolved");
    }
    if let Some(routing) = &structured.routing {
        check.opt(routing.queue.as_ref(), 60, "structured.routing.queue");
        check.opt(routing.skill.as_ref(), 60, "structured.routing.skill");
        check.that(routing.priority.is_none_or(|priority| priority <= 9), "structured.routing.priority");
    }
    if let Some(crm) = &structured.crm {
        if let Some(pop) = &crm.screen_pop {
            crm_ref(check, pop, "structured.crm.screen_pop");
        }
        let prefill = crm.prefill.as_ref();
        check.that(prefill.is_none_or(|prefill| prefill.len() <= 40), "structured.crm.prefill");
        for (field, value) in prefill.into_iter().flatten() {
            check.that(crm_field_name(field), "structured.crm.prefill");
            check.opt(value.as_ref().map(Pii::expose), 500, "structured.crm.prefill");
        }
    }
    if let Some(completeness) = &structured.completeness {
        check.pm(completeness.score_pm, "structured.completeness.score_pm");
        check.that(completeness.missing.len() <= 12, "structured.completeness.missing");
        for missing in &completeness.missing {
            check.text(missing, 48, "structured.completeness.missing");
        }
    }
}

fn collected(check: &mut Check, item: &Item) {
    check.that(key(&item.key), "structured.collected.key");
    check.opt(item.label.as_ref(), 60, "structured.collected.label");
    check.opt(item.value.as_ref().map(Pii::expose), 500, "structured.collected.value");
    check.pm(item.confidence_pm, "structured.collected.confidence_pm");
    check.opt(item.crm_field.as_ref(), 80, "structured.collected.crm_field");
}

fn crm_ref(check: &mut Check, record: &CrmRef, member: &'static str) {
    check.text(&record.object, 40, member);
    check.text(record.id.expose(), 64, member);
    if let Some(url) = &record.url {
        check.url(url.expose(), member);
    }
}

fn transcript(check: &mut Check, payload: &Payload) {
    let transcript = &payload.transcript;
    if let Some(url) = &transcript.url {
        check.url(url, "transcript.url");
    }
    let digest = |text: &String| {
        text.strip_prefix("sha512-").is_some_and(|digest| {
            digest.len() == 86
                && digest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        })
    };
    check.that(transcript.sha512.as_ref().is_none_or(digest), "transcript.sha512");
    match transcript.availability {
        Availability::OnDemand => {
            check.that(transcript.url.is_some(), "transcript.url");
            check.that(transcript.last_seq.is_some(), "transcript.last_seq");
            check.that(transcript.redaction_level.is_some(), "transcript.redaction_level");
        }
        Availability::Unavailable | Availability::ConsentWithheld => {
            check.that(transcript.url.is_none(), "transcript.url");
            check.that(transcript.sha512.is_none(), "transcript.sha512");
        }
    }
    if payload.disclosure.recording.consent == Some(Consent::Refused) {
        check.that(transcript.availability == Availability::ConsentWithheld, "transcript.availability");
    }
}

fn disclosure(check: &mut Check, payload: &Payload) {
    let all = &payload.disclosure;
    disclosed(check, &all.ai_identity, "disclosure.ai_identity");
    disclosed(check, &all.recording, "disclosure.recording");
    if let Some(notice) = &all.transfer_notice {
        disclosed(check, notice, "disclosure.transfer_notice");
    }
    check.list(all.jurisdictions.as_ref(), 8, "disclosure.jurisdictions");
    for jurisdiction in all.jurisdictions.iter().flatten() {
        check.text(jurisdiction, 12, "disclosure.jurisdictions");
    }
}

fn disclosed(check: &mut Check, text: &Disclosed, member: &'static str) {
    check.opt(text.text_id.as_ref(), 60, member);
    check.that(text.text_sha256.as_ref().is_none_or(|digest| hex(digest, 64)), member);
    check.pm(text.played_pm.unwrap_or(0), member);
    check.that(text.audit_seq.is_none_or(|seq| seq >= 1), member);
}

fn redaction(check: &mut Check, payload: &Payload) {
    let redaction = &payload.redaction;
    check.text(&redaction.engine, 60, "redaction.engine");
    check.opt(redaction.policy.as_ref(), 40, "redaction.policy");
    check.that(redaction.counts.len() <= 24, "redaction.counts");
    check.that(redaction.counts.keys().all(|class| class_name(class)), "redaction.counts");
    check.that(redaction.pci_pause.len() <= 8, "redaction.pci_pause");
}

/// `^[a-z][a-z0-9_]{0,47}$`
pub(super) fn key(text: &str) -> bool {
    text.len() <= 48
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// `^[A-Za-z][A-Za-z0-9_.]{0,79}$`
pub(super) fn crm_field_name(text: &str) -> bool {
    text.len() <= 80
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
}

/// `^[A-Z][A-Z0-9_]{0,23}$`
pub(super) fn class_name(text: &str) -> bool {
    text.len() <= 24
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// `^\+[1-9][0-9]{6,14}$`
pub(super) fn e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// So many lower-case hexadecimal digits.
pub(super) fn hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `^hp_[0-9A-HJKMNP-TV-Z]{26}$`
fn payload_id(text: &str) -> bool {
    text.strip_prefix("hp_").is_some_and(|digits| {
        digits.len() == 26
            && digits.bytes().all(|b| {
                b.is_ascii_digit() || (b.is_ascii_uppercase() && !matches!(b, b'I' | b'L' | b'O' | b'U'))
            })
    })
}
