//! From evidence to figures: what the parties heard and what the store holds, turned into
//! the report. Nothing here asks the running edge.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use functions::audit_read::{self, Reader, Witness};
use serde_json::Value;

use handoff::call::media::ClipId;
use handoff::id::{CallId, TransferId};

use crate::demo::crm::Received;
use crate::demo::desktop::Seen;
use crate::demo::hearing::{self, Heard, Window};
use crate::demo::report::{
    AuditFigures, CallerFigures, LegFigures, PayloadFigures, Recordings, Report, Step, TransitionFigures,
    TriggerFigures, WebhookFigures,
};
use crate::demo::stage::checkpoints_of;
use crate::io::media::MediaHandle;
use crate::media::prompt::ClipStore;
use crate::media::tone;

/// Everything that is known when the call is over.
#[derive(Debug)]
pub struct Evidence {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// What the caller's phone received.
    pub caller: Vec<Heard>,
    /// What the human agent's phone received.
    pub human: Vec<Heard>,
    /// What the voice agent received.
    pub voice_agent: Vec<i16>,
    /// What the CRM received.
    pub webhooks: Vec<Received>,
    /// What the desktop painted.
    pub seen: Vec<Seen>,
    /// What was printed.
    pub timeline: Vec<Step>,
    /// Worst lateness of the idle clock.
    pub host_stall: Duration,
    /// Where the store is.
    pub data: PathBuf,
}

/// One audit record, as far as the figures need it.
struct Record {
    kind: String,
    at_ms: i64,
    body: Value,
}

/// The report, and whether the whisper was found in what the human agent heard.
pub fn report(evidence: Evidence, clips: &ClipStore, media: &MediaHandle) -> Result<(Report, bool)> {
    let reader = Reader::open(&evidence.data).context("the store cannot be read")?;
    // Side chains, of what came after a chain was closed, have names that no call has.
    let mut calls = reader.list()?.into_iter().filter_map(|chain| CallId::parse(&chain.chain).ok());
    let call = calls.next().context("the store holds no call")?;
    let records: Vec<Record> = reader
        .show(call.as_str())?
        .into_iter()
        .map(|record| Record {
            kind: record.kind,
            at_ms: record.occurred_at.unix_millis(),
            body: record.body,
        })
        .collect();
    let checkpoints = Some(checkpoints_of(&evidence.data)).filter(|folder| folder.is_dir());
    let witness = Witness { checkpoints, ..Witness::default() };
    let verified = reader.verify_with(Some(call.as_str()), &witness)?.exit_code() == 0;
    let find = |kind: &str| records.iter().find(|record| record.kind == kind);
    let text = |record: Option<&Record>, pointer: &str| {
        record
            .and_then(|record| record.body.pointer(pointer))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let number = |record: Option<&Record>, pointer: &str| {
        record.and_then(|record| record.body.pointer(pointer)).and_then(Value::as_u64)
    };
    let decided = find("transfer.decided");
    let ended = find("transfer.ended");
    let transition = find("transition.played");
    let accepted = find("agent.accepted");
    let answered = find("agent.answered");

    let caller_audio = hearing::recording(&evidence.caller);
    let human_audio = hearing::recording(&evidence.human);
    let transfer_id = text(ended, "/transfer_id");
    let payload = match TransferId::parse(&transfer_id) {
        Ok(transfer) => reader.payload(&transfer)?,
        Err(_) => None,
    };
    let whisper = payload
        .as_ref()
        .and_then(|payload| payload.whisper_text())
        .and_then(|text| media.spoken(text.expose(), "en"))
        .unwrap_or_else(|| clips.samples("whisper.generic.en"));
    let whisper_found = tone::correlates(&whisper, &human_audio);
    let heard_whisper = tone::correlates(&whisper, &caller_audio);

    let until = ["bridge.completed", "fallback.taken", "call.ended"].into_iter().find_map(find);
    let whole = Window { from_ns: 0, to_ns: u64::MAX };
    let nanos = |record: Option<&Record>, otherwise: u64| {
        record.and_then(|record| u64::try_from(record.at_ms).ok()).map_or(otherwise, |ms| ms * 1_000_000)
    };
    let transfer = Window { from_ns: nanos(decided, 0), to_ns: nanos(until, u64::MAX) };
    let frozen = number(accepted, "/revision");
    let first_card = evidence.seen.iter().find(|seen| seen.kind == "card");
    let opened = records.iter().filter(|record| record.kind == "leg.opened").count() as u64;
    let closed = records.iter().filter(|record| record.kind == "leg.closed").count() as u64;
    let acknowledged = records.iter().any(|record| {
        record.kind == "screenpop.acked" && record.body["revision"].as_u64() >= frozen && frozen.is_some()
    });

    let report = Report {
        scenario: evidence.scenario.to_owned(),
        outcome: text(ended, "/outcome"),
        outcome_detail: ["phase", "cause", "reason"]
            .iter()
            .map(|detail| text(ended, &format!("/{detail}")))
            .find(|detail| !detail.is_empty()),
        fallback: text(ended, "/fallback"),
        call_id: call.to_string(),
        transfer_id,
        trigger: TriggerFigures { category: text(decided, "/trigger"), rule_id: text(decided, "/rule_id") },
        timeline: evidence.timeline,
        caller: CallerFigures {
            longest_gap_ms: millis(hearing::longest_gap(&evidence.caller, whole)),
            longest_silence_ms: millis(hearing::longest_silence(&evidence.caller, transfer)),
            seq_breaks: hearing::sequence_breaks(&evidence.caller),
            heard_whisper,
        },
        host_stall_ms: millis(evidence.host_stall),
        accept_skew_ms: number(ended, "/skew_ms"),
        card_lead_ms: answered.zip(first_card).map(|(answered, card)| answered.at_ms - card.painted_at_ms),
        transition: TransitionFigures {
            reason: decided
                .map(|_| text(decided, "/trigger"))
                .and_then(|category| {
                    let clip = ClipId(format!("reason.{category}.en"));
                    handoff::message::catalogue().get(&clip).cloned()
                })
                .unwrap_or_default(),
            anchor_s: number(transition, "/anchor_s").and_then(|s| u32::try_from(s).ok()).unwrap_or(0),
            played_pm: number(transition, "/played_pm").and_then(|pm| u16::try_from(pm).ok()).unwrap_or(0),
        },
        payload: PayloadFigures {
            sentences: payload.as_ref().map_or(0, |payload| u64::from(payload.sentence_count())),
            completeness_pm: payload.as_ref().map_or(0, |payload| payload.completeness_pm()),
            acknowledged,
        },
        webhooks: webhooks(&reader, &call, &evidence.webhooks)?,
        audit: AuditFigures { records: records.len() as u64, verified },
        legs: LegFigures { opened, closed },
        recordings: Recordings {
            caller: write_wav(&evidence.data, "caller", &caller_audio)?,
            human: write_wav(&evidence.data, "human", &human_audio)?,
            voice_agent: write_wav(&evidence.data, "voice_agent", &evidence.voice_agent)?,
        },
    };
    Ok((report, whisper_found))
}

/// What the sender recorded, kept only where the receiver agrees: an attempt that the CRM
/// never saw, or could not verify, is no delivery.
fn webhooks(reader: &Reader, call: &CallId, received: &[Received]) -> Result<Vec<WebhookFigures>> {
    let sent: Vec<audit_read::Webhook> = reader.webhooks(call)?;
    Ok(sent
        .into_iter()
        .map(|hook| {
            let seen = received.iter().any(|got| got.id == hook.message_id && got.verified);
            WebhookFigures { kind: hook.kind, status: hook.status.filter(|_| seen), attempts: hook.attempts }
        })
        .collect())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn write_wav(data: &Path, name: &str, samples: &[i16]) -> Result<String> {
    let path = data.join(format!("{name}.wav"));
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer =
        hound::WavWriter::create(&path, spec).with_context(|| format!("cannot write {name}.wav"))?;
    for sample in samples {
        writer.write_sample(*sample)?;
    }
    writer.finalize()?;
    Ok(path.display().to_string())
}
