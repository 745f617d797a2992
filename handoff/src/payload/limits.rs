//! Completeness, and the way to 64 KB: what is dropped first, and that each drop is said.

use std::collections::BTreeMap;

use super::validate::size;
use super::{Catalog, Completeness, Item, Masking, PAYLOAD_BYTES_MAX, Payload};
use crate::pii::Pii;

/// Entries of `completeness.missing`, and characters of each, by the schema.
const MISSING_MAX: usize = 12;
const MISSING_LEN_MAX: usize = 48;

/// Whether the human agent can do without asking for this field.
fn is_present(item: &Item) -> bool {
    item.value.is_some()
        || matches!(item.redacted, Some(Masking::Removed | Masking::Masked | Masking::Tokenized))
}

/// Counts what is there of what the intent needs; `dropped` is listed with what is missing.
pub(super) fn completeness(payload: &mut Payload, catalog: &Catalog, dropped: &[String]) {
    let required = catalog.required(&payload.structured.intent.category);
    let collected = &payload.structured.collected;
    let has = |key: &String| collected.iter().any(|item| item.key == *key && is_present(item));
    let present = required.iter().filter(|key| has(key)).count();
    let score = if required.is_empty() { 1_000 } else { present * 1_000 / required.len() };
    let mut missing: Vec<String> = Vec::new();
    for key in required.iter().filter(|key| !has(key)).chain(dropped) {
        let key: String = key.chars().take(MISSING_LEN_MAX).collect();
        if missing.len() < MISSING_MAX && !missing.contains(&key) {
            missing.push(key);
        }
    }
    let score_pm = u16::try_from(score).unwrap_or(1_000);
    payload.structured.completeness = Some(Completeness { score_pm, missing });
}

/// Drops what a human agent misses least until the payload fits. `false`: it still does not,
/// and only the required fields under a template summary are left to try.
pub(super) fn fit(payload: &mut Payload, catalog: &Catalog, dropped: &mut Vec<String>) -> bool {
    loop {
        completeness(payload, catalog, dropped);
        if size(payload).is_ok_and(|bytes| bytes <= PAYLOAD_BYTES_MAX) {
            return true;
        }
        let Some(key) = drop_one(payload, catalog) else { return false };
        dropped.push(key);
    }
}

/// Drops the next thing in order and names it.
fn drop_one(payload: &mut Payload, catalog: &Catalog) -> Option<String> {
    let structured = &mut payload.structured;
    if let Some(candidates) = &mut structured.caller.matched.candidates
        && candidates.len() > 1
    {
        candidates.truncate(1);
        return Some("candidates".to_owned());
    }
    if let Some(actions) = &mut structured.actions_taken
        && !actions.is_empty()
    {
        actions.remove(0);
        return Some("actions_taken".to_owned());
    }
    let weakest = structured
        .collected
        .iter()
        .enumerate()
        .filter(|(_, item)| !item.confirmed)
        .min_by_key(|(_, item)| item.confidence_pm)
        .map(|(index, _)| index);
    if let Some(index) = weakest {
        let item = structured.collected.remove(index);
        if let (Some(field), Some(prefill)) = (&item.crm_field, prefill(payload)) {
            // An entry without its fact could no longer be checked.
            prefill.remove(field);
        }
        return Some(item.key);
    }
    let required = catalog.required(&structured.intent.category);
    let needed = |field: &String| required.iter().any(|key| catalog.crm.fields.get(key) == Some(field));
    let entries = structured.crm.as_mut().and_then(|crm| crm.prefill.as_mut())?;
    let spare = entries.keys().find(|field| !needed(field)).cloned()?;
    entries.remove(&spare);
    Some(spare)
}

fn prefill(payload: &mut Payload) -> Option<&mut BTreeMap<String, Option<Pii<String>>>> {
    payload.structured.crm.as_mut().and_then(|crm| crm.prefill.as_mut())
}

/// Tier 2 reduced to the required fields.
pub(super) fn reduce(payload: &mut Payload, catalog: &Catalog, dropped: &mut Vec<String>) {
    let structured = &mut payload.structured;
    let required = catalog.required(&structured.intent.category);
    structured.collected.retain(|item| {
        let keeps = required.contains(&item.key);
        if !keeps {
            dropped.push(item.key.clone());
        }
        keeps
    });
    structured.caller.matched.candidates = None;
    structured.actions_taken = None;
    structured.unresolved = None;
    if let Some(crm) = &mut structured.crm {
        crm.prefill = None;
    }
    completeness(payload, catalog, dropped);
}
