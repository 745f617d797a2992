//! Rules about what was recorded: required members, disclosure before content, pauses that
//! end, consent that is respected. The order of events is the producer's own, because the
//! ledger's may differ by design.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Class, Report};
use crate::audit::AuditRecord;

/// Longest pause of a recording, in milliseconds: card entry takes less, and a forgotten
/// pause would hide a conversation.
const PAUSE_MAX_MS: u64 = 180_000;

/// Members that a body must have, by type. A type that is not here is recorded freely.
const REQUIRED: &[(&str, &[&str])] = &[
    ("call.received", &["trunk", "caller_tag", "direction"]),
    ("disclosure.ai_identity", &["text_id", "lang", "played_pm", "from_ms", "to_ms"]),
    ("disclosure.ai_end", &["text_id", "lang", "played_pm", "from_ms", "to_ms"]),
    ("transition.played", &["transfer_id", "text_id", "lang", "played_pm", "from_ms", "to_ms", "anchor_s"]),
    ("consent.recording", &["value", "method", "at_ms"]),
    ("recording.started", &["offset_ms"]),
    ("recording.paused", &["reason", "offset_ms"]),
    ("recording.resumed", &["offset_ms"]),
    ("recording.stopped", &["offset_ms"]),
    ("recording.stored", &["leg", "pieces", "duration_ms", "lost_ms", "sha256"]),
    ("signal.received", &["id", "kind", "values"]),
    ("utterance.ref", &["segment", "speaker", "offset_ms"]),
    ("trigger.evaluated", &["rule_id", "ruleset", "result", "inputs"]),
    (
        "transfer.decided",
        &[
            "transfer_id",
            "decision_id",
            "trigger",
            "rule_id",
            "mandatory",
            "origin",
            "policy_version",
            "target_id",
        ],
    ),
    ("hold.started", &["leg", "reason"]),
    ("hold.ended", &["leg", "reason"]),
    ("payload.built", &["payload_id", "revision", "generator", "completeness_pm"]),
    ("webhook.attempted", WEBHOOK),
    ("webhook.delivered", WEBHOOK),
    ("webhook.failed", WEBHOOK),
    ("agent.offered", &["agent_id", "attempt"]),
    ("agent.ringing", &["agent_id", "attempt"]),
    ("agent.answered", &["agent_id", "attempt"]),
    ("agent.declined", &["agent_id", "attempt"]),
    ("agent.no_answer", &["agent_id", "attempt"]),
    ("screenpop.acked", &["destination", "agent_id"]),
    ("whisper.started", &["agent_id"]),
    ("whisper.ended", &["agent_id", "played_pm"]),
    ("agent.accepted", &["agent_id", "leg", "method"]),
    ("bridge.completed", &["transfer_id", "degraded"]),
    ("ai.released", &["transfer_id", "reason"]),
    ("caller.abandoned", &["transfer_id", "phase"]),
    (
        "media.proof",
        &["transfer_id", "packets", "longest_gap_ms", "longest_silence_ms", "breaks", "leaked_frames"],
    ),
    ("transfer.ended", &["transfer_id", "outcome"]),
    ("leg.opened", &["leg", "role"]),
    ("leg.closed", &["leg", "role", "cause", "billed_ms"]),
    ("call.ended", &["cause", "side"]),
    ("command.rejected", &["id", "reason"]),
    ("fallback.taken", &["kind", "reason"]),
    ("voicemail.left", &["transfer_id", "leg", "from_ms", "to_ms", "ended_by"]),
    ("callback.requested", &["transfer_id", "callback_id"]),
    ("redaction.applied", &["counts", "engine", "level"]),
    ("record.accessed", &["actor", "role", "purpose", "object", "fields"]),
    ("record.exported", &["actor", "role", "purpose", "object", "fields"]),
    ("hold.legal_placed", &["basis", "object"]),
    ("hold.legal_released", &["basis", "object"]),
    ("erasure.requested", &["basis", "object"]),
    ("erasure.executed", &["basis", "dek_ids"]),
    ("retention.expired", &["basis", "object"]),
    ("producer.final", &["count"]),
    ("chain.closed", &["event_count", "producer_counts"]),
    ("late.opened", &["closed_seq", "closed_hash"]),
];

/// What every try of a webhook is recorded with; of the answer, status and digest only.
const WEBHOOK: &[&str] = &["message_id", "destination", "lane", "try", "status", "ms", "response_digest"];

/// Every member that a known body has.
#[cfg(test)]
pub(in crate::audit) fn body_members() -> std::collections::BTreeSet<&'static str> {
    REQUIRED.iter().flat_map(|(_, members)| members.iter().copied()).collect()
}

/// All rules, on a call's main chain.
pub(super) fn verify(chain: &str, records: &[AuditRecord], report: &mut Report) {
    verify_bodies(chain, records, report);
    let mut streams: BTreeMap<&str, Vec<&AuditRecord>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.entry.producer.is_stream()) {
        streams.entry(record.entry.producer.as_str()).or_default().push(record);
    }
    for stream in streams.values_mut() {
        stream.sort_by_key(|record| record.entry.pseq);
        verify_disclosure(chain, stream, report);
        verify_pauses(chain, stream, report);
        verify_consent(chain, stream, report);
    }
}

/// Required members only: for a side chain, whose order says nothing.
pub(super) fn verify_bodies(chain: &str, records: &[AuditRecord], report: &mut Report) {
    for record in records {
        let entry = &record.entry;
        let required = REQUIRED.iter().find(|(kind, _)| *kind == entry.kind).map(|(_, members)| *members);
        for member in required.unwrap_or_default() {
            if entry.body.get(member).is_none() {
                let text = format!("{} lacks `{member}`", entry.kind);
                report.add(Class::Policy, chain, Some(record.seq), text);
            }
        }
    }
}

/// The disclosure comes before the voice agent's first turn and, whole, before a transfer;
/// one that was cut is enough where it was then played again, and a rule that waives every
/// wait carries it in the transition message.
fn verify_disclosure(chain: &str, stream: &[&AuditRecord], report: &mut Report) {
    let mut played = 0_u32;
    let mut whole = false;
    let mut spoken = false;
    for record in stream {
        let body = &record.entry.body;
        let mut against = |text: &str| report.add(Class::Policy, chain, Some(record.seq), text.to_owned());
        match record.entry.kind.as_str() {
            "disclosure.ai_identity" => {
                played += 1;
                whole |= body.get("played_pm").and_then(Value::as_u64) == Some(1_000);
            }
            "utterance.ref" if text(body, "speaker") == Some("agent") && !spoken => {
                spoken = true;
                if played == 0 {
                    against("the voice agent spoke before the disclosure");
                }
            }
            "transfer.decided" => {
                let waived = body.get("waives_waits").and_then(Value::as_bool) == Some(true);
                if !whole && played < 2 && !waived {
                    against("a transfer was decided before the disclosure was heard");
                }
            }
            _ => {}
        }
    }
}

/// Each leg is recorded, and paused, by itself.
fn verify_pauses(chain: &str, stream: &[&AuditRecord], report: &mut Report) {
    let mut paused: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for record in stream {
        let body = &record.entry.body;
        let offset = body.get("offset_ms").and_then(Value::as_u64).unwrap_or_default();
        let leg = body.get("leg").map(Value::to_string).unwrap_or_default();
        let mut against = |seq: u64, text: &str| report.add(Class::Policy, chain, Some(seq), text.to_owned());
        match record.entry.kind.as_str() {
            "recording.paused" => {
                let before = paused.insert(leg, (offset, record.seq));
                if before.is_some() {
                    against(record.seq, "a recording was paused twice");
                }
            }
            kind @ ("recording.resumed" | "recording.stopped") => match paused.remove(&leg) {
                Some((since, seq)) if offset.saturating_sub(since) > PAUSE_MAX_MS => {
                    against(seq, "a recording was paused for more than 180 s");
                }
                None if kind == "recording.resumed" => {
                    against(record.seq, "a recording was resumed without a pause");
                }
                Some(_) | None => {}
            },
            _ => {}
        }
    }
    for (_, seq) in paused.into_values() {
        report.add(Class::Policy, chain, Some(seq), "a recording was paused and never resumed".to_owned());
    }
}

fn verify_consent(chain: &str, stream: &[&AuditRecord], report: &mut Report) {
    let mut refused = false;
    for record in stream {
        let entry = &record.entry;
        match entry.kind.as_str() {
            "consent.recording" => refused = text(&entry.body, "value") == Some("refused"),
            "utterance.ref" if refused && entry.sealed.is_some() => {
                let text = "a text was stored although recording was refused".to_owned();
                report.add(Class::Policy, chain, Some(record.seq), text);
            }
            "recording.started" if refused => {
                let text = "a recording was started although it was refused".to_owned();
                report.add(Class::Policy, chain, Some(record.seq), text);
            }
            _ => {}
        }
    }
}

fn text<'a>(body: &'a Value, member: &str) -> Option<&'a str> {
    body.get(member).and_then(Value::as_str)
}
