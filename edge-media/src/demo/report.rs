//! The report of a demo run: every figure is measured by an outside party of the call or
//! read back from the store, none is asserted. The JSON is a contract (see the README).

use serde::Serialize;

use crate::media::FRAMES_AT_ONCE_MAX;

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Since the caller dialled.
    pub at_ms: u64,
    /// The audit record's type, or what a party saw.
    pub event: String,
}

/// The rule that fired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TriggerFigures {
    /// One of the ten categories.
    pub category: String,
    /// Its id in the policy.
    pub rule_id: String,
}

/// What the caller's phone measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallerFigures {
    /// Largest difference between kernel receive times of neighbouring packets.
    pub longest_gap_ms: u64,
    /// Longest run of silent or missing frames from the decision to the bridge, the return
    /// or the end.
    pub longest_silence_ms: u64,
    /// Breaks of source, sequence number or timestamp.
    pub seq_breaks: u64,
    /// The whisper is in what the caller heard.
    pub heard_whisper: bool,
}

/// A stall that a late egress makes up for without a break, in milliseconds.
const CAUGHT_UP_MS: u64 = 20 * FRAMES_AT_ONCE_MAX as u64;

/// The transition message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransitionFigures {
    /// The reason that was spoken.
    pub reason: String,
    /// The time that was spoken, in seconds.
    pub anchor_s: u32,
    /// Share of its samples sent.
    pub played_pm: u16,
}

/// The payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PayloadFigures {
    /// Sentences of the summary.
    pub sentences: u64,
    /// Required fields present.
    pub completeness_pm: u16,
    /// The desktop (or the queue's destination) acknowledged the frozen revision.
    pub acknowledged: bool,
}

/// One webhook as the sender recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookFigures {
    /// CloudEvents type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Last HTTP status; absent where nobody answered.
    pub status: Option<u16>,
    /// Tries.
    pub attempts: u32,
}

/// The audit chain of the call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditFigures {
    /// Records of the main chain.
    pub records: u64,
    /// `warmbridge audit verify` found nothing.
    pub verified: bool,
}

/// The leg ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LegFigures {
    /// Legs opened.
    pub opened: u64,
    /// Legs closed.
    pub closed: u64,
}

/// Where the recordings are: absolute paths of WAV files, 8 kHz, 16 bits, mono.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recordings {
    /// What the caller heard.
    pub caller: String,
    /// What the human agent heard.
    pub human: String,
    /// What the voice agent heard.
    pub voice_agent: String,
}

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The scenario that was played.
    pub scenario: String,
    /// Bare name of the transfer's outcome.
    pub outcome: String,
    /// Its phase or cause, where it has one.
    pub outcome_detail: Option<String>,
    /// Where the caller went.
    pub fallback: String,
    /// The call.
    pub call_id: String,
    /// The transfer.
    pub transfer_id: String,
    /// The rule that fired.
    pub trigger: TriggerFigures,
    /// What happened when.
    pub timeline: Vec<Step>,
    /// What the caller's phone measured.
    pub caller: CallerFigures,
    /// Worst lateness of an idle 20 ms clock in this process meanwhile: what the machine,
    /// not Warmbridge, added to the figures.
    pub host_stall_ms: u64,
    /// |first audio of the human − acknowledgement of the frozen payload|.
    pub accept_skew_ms: Option<u64>,
    /// The human's 200 minus the desktop's first acknowledgement; positive is early.
    pub card_lead_ms: Option<i64>,
    /// The transition message.
    pub transition: TransitionFigures,
    /// The payload.
    pub payload: PayloadFigures,
    /// Webhooks.
    pub webhooks: Vec<WebhookFigures>,
    /// The audit chain.
    pub audit: AuditFigures,
    /// The leg ledger.
    pub legs: LegFigures,
    /// What each party heard.
    pub recordings: Recordings,
}

/// What must come out of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// How the transfer ends.
    pub outcome: &'static str,
    /// Where the caller goes.
    pub fallback: &'static str,
    /// Caller and human agent are connected.
    pub bridged: bool,
    /// The whisper is played to the human agent's phone.
    pub whispered: bool,
    /// The CRM takes what it is sent.
    pub delivered: bool,
}

/// One check of the report, with its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// What was measured, with its unit.
    pub measured: String,
    /// What it may be.
    pub limit: String,
    /// It holds.
    pub holds: bool,
}

impl Report {
    /// The checks that a run must pass. Timing limits are widened by what the idle clock of
    /// the same process was late.
    pub fn checks(&self, expected: &Expected, whisper_found_at_human: bool) -> Vec<Check> {
        let stall = self.host_stall_ms;
        let check = |name, measured: String, limit: String, holds| Check { name, measured, limit, holds };
        let at_most = |name, value: u64, limit: u64| {
            check(name, format!("{value} ms"), format!("at most {limit} ms"), value <= limit)
        };
        let mut checks = vec![
            check(
                "outcome",
                self.outcome.clone(),
                expected.outcome.to_owned(),
                self.outcome == expected.outcome,
            ),
            check(
                "fallback",
                self.fallback.clone(),
                expected.fallback.to_owned(),
                self.fallback == expected.fallback,
            ),
            at_most("caller: longest gap", self.caller.longest_gap_ms, 40 + stall),
            at_most("caller: longest silence", self.caller.longest_silence_ms, 500 + stall),
            // A machine that stood for longer than an egress catches up with tears any stream.
            check(
                "caller: breaks of the stream",
                self.caller.seq_breaks.to_string(),
                if stall < CAUGHT_UP_MS {
                    "0".to_owned()
                } else {
                    format!("0, but for a stall of {stall} ms")
                },
                self.caller.seq_breaks == 0 || stall >= CAUGHT_UP_MS,
            ),
            check(
                "caller heard the whisper",
                self.caller.heard_whisper.to_string(),
                "false".to_owned(),
                !self.caller.heard_whisper,
            ),
            check(
                "legs opened and closed",
                format!("{} and {}", self.legs.opened, self.legs.closed),
                "equal".to_owned(),
                self.legs.opened == self.legs.closed && self.legs.opened > 0,
            ),
            check(
                "audit chain",
                format!("{} records, verified {}", self.audit.records, self.audit.verified),
                "verified, at least 15 records".to_owned(),
                self.audit.verified && self.audit.records >= 15,
            ),
        ];
        if expected.whispered {
            let found = whisper_found_at_human.to_string();
            let name = "whisper reached the human's phone";
            checks.push(check(name, found, "true".to_owned(), whisper_found_at_human));
            checks.push(check(
                "card on screen before the answer",
                self.card_lead_ms.map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms before")),
                "more than 0 ms".to_owned(),
                self.card_lead_ms.is_some_and(|ms| ms > 0),
            ));
        }
        if expected.bridged {
            let (payload, transition) = (&self.payload, &self.transition);
            checks.push(check(
                "transition message",
                format!("{} per-mille, {} s", transition.played_pm, transition.anchor_s),
                "1000 per-mille, a reason and a number".to_owned(),
                transition.played_pm == 1_000 && transition.anchor_s > 0 && !transition.reason.is_empty(),
            ));
            checks.push(check(
                "accept skew",
                self.accept_skew_ms.map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms")),
                format!("at most {} ms", 50 + stall),
                self.accept_skew_ms.is_some_and(|ms| ms <= 50 + stall),
            ));
            checks.push(check(
                "payload",
                format!("{} sentences, acknowledged {}", payload.sentences, payload.acknowledged),
                "2 or 3 sentences, acknowledged".to_owned(),
                (2..=3).contains(&payload.sentences) && payload.acknowledged,
            ));
        }
        checks.push(self.webhooks_as(expected));
        checks
    }

    /// Every webhook is delivered. Where the CRM is down none is, and the first were tried: those
    /// behind them wait until a probe of it succeeds.
    fn webhooks_as(&self, expected: &Expected) -> Check {
        let hooks = &self.webhooks;
        let is_delivered = |hook: &WebhookFigures| hook.status.is_some_and(|status| status / 100 == 2);
        let tries: u32 = hooks.iter().map(|hook| hook.attempts).sum();
        let (name, measured, limit, holds) = if expected.delivered {
            let least = if expected.bridged { 3 } else { 2 };
            let holds = hooks.len() >= least && hooks.iter().all(is_delivered);
            (
                "webhooks delivered",
                hooks.len().to_string(),
                format!("at least {least}, each with a 2xx"),
                holds,
            )
        } else {
            let holds = tries > 0 && !hooks.iter().any(is_delivered);
            ("webhooks tried in vain", format!("{tries} tries"), "some, none with a 2xx".to_owned(), holds)
        };
        Check { name, measured, limit, holds }
    }
}
