//! A call as a vCon (draft-ietf-vcon-vcon-core-03 with the contact-centre extension `CC`): an
//! export for other systems, made from the audit trail after the call. It is never the ledger
//! and never read back. Digits that a party pressed are not exported at all. [`check`] holds
//! what the draft says in words and its schema does not, [`signed`] makes the signed form.

pub mod check;
pub mod signed;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::audit::{AuditRecord, feed, record_hash};
use crate::clock::Timestamp;
use crate::id::{CallId, TenantId};
use crate::pii::Pii;
use crate::redact::{Level, pci};

/// Who made the analysis of an export.
const VENDOR: &str = "warmbridge";

/// The caller among the parties.
const CALLER: usize = 0;

/// The voice agent among the parties.
const VOICE_AGENT: usize = 1;

/// One turn of the transcript.
#[derive(Clone, Debug)]
pub struct Turn {
    /// When it began to be heard.
    pub at: Timestamp,
    /// `caller` or `agent`.
    pub speaker: String,
    /// What was said.
    pub text: Pii<String>,
}

/// What an export is made of.
#[derive(Clone, Debug)]
pub struct Material<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Which call.
    pub call: &'a CallId,
    /// When the export is made.
    pub at: Timestamp,
    /// How much is taken out: texts stay up to [`Level::R1Pci`], and beyond it are left out
    /// whole, because no rule finds every name in free text.
    pub level: Level,
    /// The call's chain, in its order.
    pub records: &'a [AuditRecord],
    /// The same, byte for byte.
    pub jsonl: &'a str,
    /// The transcript.
    pub turns: &'a [Turn],
    /// The payload of each transfer that has one, as JSON.
    pub payloads: &'a [Value],
}

/// The vCon of a call.
pub fn export(material: &Material<'_>) -> Value {
    let mut vcon = json!({
        "uuid": uuid(material, material.level > Level::R1Pci),
        "extensions": ["CC"],
        "created_at": material.at,
        "subject": "warm transfer",
    });
    let mut scene = Scene::new(material);
    scene.original();
    scene.transfers();
    let Scene { people, dialog, .. } = scene;
    let organization = people.len() + 2;
    let transfer = dialog.iter().position(|one| one["type"] == "transfer").unwrap_or(0);
    vcon["parties"] = parties(material, &people);
    vcon["dialog"] = Value::Array(dialog);
    vcon["analysis"] = analysis(material, transfer);
    vcon["attachments"] = attachments(material, organization, transfer);
    if material.level > Level::R1Pci {
        vcon["redacted"] = json!({"uuid": uuid(material, false), "type": material.level});
    }
    vcon
}

/// A version 8 UUID (RFC 9562) that follows from the call: one call is one vCon, and its
/// redacted form another.
fn uuid(material: &Material<'_>, redacted: bool) -> String {
    let form = if redacted { json!(material.level).to_string() } else { "whole".to_owned() };
    let digest = Sha256::digest(format!("vcon\0{}\0{}\0{form}", material.tenant, material.call));
    let mut bytes: [u8; 16] = core::array::from_fn(|n| digest.get(n).copied().unwrap_or_default());
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = crate::seal::hex(&bytes);
    let mut text = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

fn parties(material: &Material<'_>, people: &[String]) -> Value {
    let tag = material.records.iter().find_map(|record| {
        let received = record.entry.kind == "call.received";
        record.entry.body.get("caller_tag")?.as_str().filter(|_| received)
    });
    let mut caller = json!({"type": "person", "role": "customer"});
    if let Some(tag) = tag {
        caller["uuid"] = json!(tag);
    }
    let mut parties = vec![caller, json!({"type": "bot", "role": "agent", "uuid": "voice_agent"})];
    parties.extend(people.iter().map(|id| json!({"type": "person", "role": "agent", "uuid": id})));
    parties.push(json!({"type": "organization", "uuid": material.tenant}));
    Value::Array(parties)
}

/// The dialogs of a call as they come out of its records.
struct Scene<'a> {
    material: &'a Material<'a>,
    recorded: bool,
    people: Vec<String>,
    dialog: Vec<Value>,
}

impl<'a> Scene<'a> {
    fn new(material: &'a Material<'a>) -> Self {
        let mut people: Vec<String> = Vec::new();
        for record in material.records {
            if let Some(id) = text(record, "agent_id").filter(|id| !people.iter().any(|one| one == id)) {
                people.push(id.to_owned());
            }
        }
        let refused = consent(material) == Some("refused");
        let recorded = !refused && material.records.iter().any(|r| r.entry.kind == "recording.stored");
        Self { material, recorded, people, dialog: Vec::new() }
    }

    fn party(&self, agent: &str) -> usize {
        self.people.iter().position(|id| id == agent).unwrap_or_default() + 2
    }

    /// A conversation that took place. Where nothing was recorded of it, a placeholder keeps
    /// its index; the schema wants a start of it, and the text a disposition.
    fn conversation(
        &mut self,
        start: Timestamp,
        end: Timestamp,
        parties: &[usize],
        leg: Option<u64>,
    ) -> usize {
        let mut one = json!({"start": start, "parties": parties, "interaction_id": self.material.call});
        if self.recorded {
            one["type"] = json!("recording");
            one["duration"] = json!(end.unix_millis().saturating_sub(start.unix_millis()).max(0) / 1_000);
            one["mediatype"] = json!("audio/x-wav");
            if let Some(leg) = leg {
                one["filename"] = json!(format!("{}-leg-{leg}.wav", self.material.call));
            }
        } else {
            one["type"] = json!("incomplete");
            one["disposition"] = json!("failed");
        }
        self.dialog.push(one);
        self.dialog.len() - 1
    }

    /// The caller with the voice agent: the dialog that is transferred.
    fn original(&mut self) {
        let records = self.material.records;
        let start = records.first().map_or(self.material.at, |first| first.entry.occurred_at);
        let left =
            records.iter().find(|r| r.entry.kind == "leg.closed" && text(r, "role") == Some("voice_agent"));
        let ended = left.or_else(|| records.iter().find(|r| r.entry.kind == "call.ended"));
        let end = ended.map_or(start, |record| record.entry.occurred_at);
        let index = self.conversation(start, end, &[CALLER, VOICE_AGENT], Some(0));
        let history: Vec<Value> = records.iter().filter_map(history).collect();
        if let Some(one) = self.dialog.get_mut(index).filter(|_| !history.is_empty()) {
            one["party_history"] = Value::Array(history);
        }
    }

    /// Each decision with its attempts: those that failed, and the whisper of the one that was
    /// answered, are consultations; the bridge is the target dialog.
    fn transfers(&mut self) {
        let records = self.material.records;
        let starts: Vec<usize> =
            (0..records.len()).filter(|at| records[*at].entry.kind == "transfer.decided").collect();
        for (nth, start) in starts.iter().enumerate() {
            let end = starts.get(nth + 1).copied().unwrap_or(records.len());
            self.transfer(&records[*start..end]);
        }
    }

    fn transfer(&mut self, records: &[AuditRecord]) {
        let Some(decided) = records.first() else { return };
        let (mut consultation, mut targets, mut target_dialog) = (Vec::new(), Vec::new(), None);
        let mut with: Option<(usize, Option<u64>, Timestamp)> = None;
        for record in records {
            let at = record.entry.occurred_at;
            let agent = text(record, "agent_id").map(|id| self.party(id));
            match (record.entry.kind.as_str(), agent) {
                ("agent.offered", Some(agent)) => {
                    with = Some((agent, record.entry.body.get("leg").and_then(Value::as_u64), at));
                    if !targets.contains(&agent) {
                        targets.push(agent);
                    }
                }
                ("agent.no_answer", Some(agent)) => consultation.push(self.attempt(at, agent, "no-answer")),
                ("agent.declined", Some(agent)) => {
                    let disposition = match text(record, "reason") {
                        Some("busy") => "busy",
                        Some("voicemail") => "voicemail-no-message",
                        Some("declined") => "hung-up",
                        Some(_) | None => "failed",
                    };
                    consultation.push(self.attempt(at, agent, disposition));
                }
                ("whisper.started", Some(agent)) => {
                    let ended =
                        records.iter().find(|r| r.entry.kind == "whisper.ended" && r.seq > record.seq);
                    let end = ended.map_or(at, |ended| ended.entry.occurred_at);
                    let leg = with.and_then(|(_, leg, _)| leg);
                    consultation.push(self.conversation(at, end, &[agent], leg));
                }
                ("bridge.completed", _) => {
                    let Some((agent, leg, _)) = with else { continue };
                    let ended = records.iter().rfind(|r| r.entry.kind == "leg.closed");
                    let end = ended.map_or(at, |ended| ended.entry.occurred_at);
                    target_dialog = Some(self.conversation(at, end, &[CALLER, agent], leg));
                }
                _ => {}
            }
        }
        if targets.is_empty() {
            return;
        }
        let mut one = json!({
            "type": "transfer", "start": decided.entry.occurred_at, "interaction_id": self.material.call,
            "transferee": CALLER, "transferor": VOICE_AGENT, "transfer_target": one_or_all(&targets), "original": 0,
        });
        if !consultation.is_empty() {
            one["consultation"] = one_or_all(&consultation);
        }
        if let Some(target) = target_dialog {
            one["target_dialog"] = json!(target);
        }
        self.dialog.push(one);
    }

    fn attempt(&mut self, at: Timestamp, agent: usize, disposition: &str) -> usize {
        self.dialog.push(json!({
            "type": "incomplete", "start": at, "parties": [VOICE_AGENT, agent], "disposition": disposition,
            "interaction_id": self.material.call,
        }));
        self.dialog.len() - 1
    }
}

/// One index as a number, several as a list, as the schema has it.
fn one_or_all(indices: &[usize]) -> Value {
    if let [one] = indices { json!(one) } else { json!(indices) }
}

/// Who joined, was held and left the original dialog. Digits are never part of it.
fn history(record: &AuditRecord) -> Option<Value> {
    let leg = record.entry.body.get("leg").and_then(Value::as_u64);
    let party = match (text(record, "role"), leg) {
        (Some("caller"), _) | (None, Some(0)) => CALLER,
        (Some("voice_agent"), _) => VOICE_AGENT,
        (Some(_) | None, _) => return None,
    };
    let event = match record.entry.kind.as_str() {
        "leg.opened" => "join",
        "hold.started" => "hold",
        "hold.ended" => "unhold",
        "leg.closed" => "drop",
        _ => return None,
    };
    Some(json!({"party": party, "time": record.entry.occurred_at, "event": event}))
}

fn analysis(material: &Material<'_>, transfer: usize) -> Value {
    let mut analysis = Vec::new();
    let open = material.level <= Level::R1Pci;
    for payload in material.payloads {
        let mut one =
            json!({"type": "summary", "dialog": 0, "vendor": VENDOR, "schema": "warmbridge.handoff/1.0"});
        if let Some(text) = payload.pointer("/summary/text").and_then(Value::as_str).filter(|_| open) {
            one["body"] = json!(pci(text).text);
            one["encoding"] = json!("none");
        }
        analysis.push(one);
    }
    if consent(material) != Some("refused") && !material.turns.is_empty() {
        let mut one =
            json!({"type": "transcript", "dialog": 0, "vendor": VENDOR, "schema": "warmbridge.transcript/1"});
        if open {
            let turns: Vec<Value> = material
                .turns
                .iter()
                .map(|turn| json!({"start": turn.at, "speaker": turn.speaker, "text": pci(turn.text.expose()).text}))
                .collect();
            one["body"] = Value::Array(turns);
            one["encoding"] = json!("json");
        }
        analysis.push(one);
    }
    let decided = material.records.iter().filter(|record| record.entry.kind == "transfer.decided");
    for record in decided {
        // The reason of a transfer belongs here, not into its dialog.
        let mut body = Map::new();
        for member in
            ["decision_id", "transfer_id", "trigger", "rule_id", "mandatory", "origin", "policy_version"]
        {
            body.extend(record.entry.body.get(member).map(|value| (member.to_owned(), value.clone())));
        }
        analysis.push(json!({"type": "report", "dialog": transfer, "vendor": VENDOR,
            "schema": "warmbridge.trigger/1", "body": body, "encoding": "json"}));
    }
    Value::Array(analysis)
}

fn attachments(material: &Material<'_>, organization: usize, transfer: usize) -> Value {
    let start = material.records.first().map_or(material.at, |first| first.entry.occurred_at);
    let mut attachments = Vec::new();
    for payload in material.payloads {
        let mut one = json!({"purpose": "warmbridge.handoff/1.0", "party": organization, "start": start,
            "dialog": transfer, "mediatype": "application/json"});
        if material.level <= Level::R1Pci {
            one["body"] = payload.clone();
            one["encoding"] = json!("json");
        }
        attachments.push(one);
    }
    let (purpose, trail) = trail(material);
    attachments.push(json!({"purpose": purpose, "party": organization, "start": start, "dialog": 0,
        "mediatype": "application/jsonl", "body": trail, "encoding": "none"}));
    let asked = material.records.iter().find(|record| record.entry.kind == "consent.recording");
    if let Some(record) = asked {
        attachments.push(json!({"purpose": "consent", "party": CALLER, "start": record.entry.occurred_at,
            "dialog": 0, "mediatype": "application/json", "body": record.entry.body, "encoding": "json"}));
    }
    Value::Array(attachments)
}

/// The trail: its exact bytes, which can be verified, or where more than payment data is taken
/// out its rows. The bytes have grounds and evidence, and nothing can be taken out of them.
fn trail(material: &Material<'_>) -> (&'static str, String) {
    if material.level <= Level::R1Pci {
        return (crate::audit::VERSION, material.jsonl.to_owned());
    }
    let mut rows = String::new();
    for record in material.records {
        let Ok(canonical) = record.canonical() else { continue };
        rows.push_str(&feed::row(record, &record_hash(&canonical), None).to_string());
        rows.push('\n');
    }
    (feed::VERSION, rows)
}

fn consent<'a>(material: &Material<'a>) -> Option<&'a str> {
    let mut asked = material.records.iter().rev().filter(|record| record.entry.kind == "consent.recording");
    asked.next().and_then(|record| text(record, "value"))
}

fn text<'a>(record: &'a AuditRecord, member: &str) -> Option<&'a str> {
    record.entry.body.get(member).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
