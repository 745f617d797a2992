//! The record of a call. I11: one end, and nothing after it; facts count without a gap. I12:
//! a transfer has one trigger, one decision and one end, and its outcome fits what happened.
//! I13: nothing is offered or recorded before the caller was told. I14: the message comes
//! before hold, and a waiting caller is told how long it still takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use edge_media::media::MediaCommand;
use handoff::call::media::Part;
use handoff::call::outcome::{FallbackTaken, Outcome, Phase};
use handoff::clock::Now;
use handoff::event::{CallEvent, Fact};
use handoff::id::{CallId, LegId, PlayId, TransferId};
use handoff::policy::Origin;

use super::{Findings, Seen, Watch, short};
use crate::storm::media::Ear;
use crate::storm::plan::Plan;

/// The voice agent's sentence is over, and the message begins.
const MESSAGE_BY: Duration = Duration::from_millis(3_350);
/// A waiting caller hears music alone no longer.
const BED_MAX: Duration = Duration::from_millis(30_100);

#[derive(Default)]
struct Transfer {
    bridged: bool,
    abandoned: bool,
    fallbacks: Vec<FallbackTaken>,
    ended: bool,
}

#[derive(Default)]
struct Call {
    next: u64,
    finished: bool,
    ended: bool,
    fired: BTreeSet<TransferId>,
    evaluated: bool,
    transfers: BTreeMap<TransferId, Transfer>,
    under_way: Option<TransferId>,
    decided_at: Now,
    clips: BTreeMap<PlayId, String>,
    disclosed: bool,
    waived: bool,
    refused: bool,
    /// The caller may leave a message.
    message: bool,
    message_begun: bool,
    message_heard: bool,
    accepted: bool,
    bed_since: Option<Now>,
    offered_at: Now,
}

/// See the module.
pub(super) struct Record {
    slack: Duration,
    recording: bool,
    calls: BTreeMap<CallId, Call>,
}

impl Record {
    pub(super) fn new(plan: &Plan) -> Self {
        let slack = Duration::from_millis(plan.house.reports_ms + 45);
        Self { slack, recording: plan.house.recording, calls: BTreeMap::new() }
    }
}

impl Call {
    fn fact(&mut self, at: Now, event: &CallEvent, recording: bool, findings: &mut Findings) {
        if self.finished {
            findings.add("I11", at, format!("`{}` follows the last fact", event.fact.kind()));
        }
        if event.seq != self.next {
            findings.add("I11", at, format!("fact {} where {} is next", event.seq, self.next));
        }
        self.next = event.seq + 1;
        if let Some(evaluable) = event.evaluable.as_ref().filter(|evaluable| evaluable.context.is_some()) {
            self.fired.insert(evaluable.transfer_id.clone());
        }
        match &event.fact {
            Fact::CallEnded { .. } if std::mem::replace(&mut self.ended, true) => {
                findings.add("I11", at, "the call ended twice");
            }
            Fact::ProducerFinal { count } => {
                self.finished = true;
                if *count != self.next || !self.ended {
                    findings.add("I11", at, format!("the last fact counts {count} of {}", self.next));
                }
            }
            Fact::RecordingStarted { leg, .. }
                if !self.disclosed
                    || self.refused
                    || !(recording || (self.message && *leg == LegId::CALLER)) =>
            {
                findings.add("I13", at, "recording began before the disclosure was heard");
            }
            Fact::RecordingConsent { value, .. } if value == "refused" => self.refused = true,
            Fact::AgentOffered { .. } => {
                (self.accepted, self.offered_at) = (false, at);
                if !self.disclosed && !self.waived {
                    findings.add("I13", at, "a transfer is offered before the disclosure was heard");
                }
            }
            Fact::AgentAccepted { .. } => self.accepted = true,
            Fact::HoldStarted { .. } if !self.message_heard => {
                findings.add("I14", at, "hold began before the message was heard");
            }
            fact => self.transfer(at, fact, findings),
        }
    }

    fn transfer(&mut self, at: Now, fact: &Fact, findings: &mut Findings) {
        match fact {
            Fact::TriggerEvaluated { .. } => self.evaluated = true,
            Fact::TransferDecided { decision, disclosed, .. } => {
                let id = decision.transfer_id.clone();
                let own = decision.origin == Origin::EdgeFallback && std::mem::take(&mut self.evaluated);
                if !own && !self.fired.contains(&id) {
                    findings.add("I12", at, "a transfer was decided that nothing triggered");
                }
                if let Some(other) = self.under_way.replace(id.clone()) {
                    findings.add("I12", at, format!("a transfer begins while {other} is under way"));
                }
                if self.transfers.insert(id, Transfer::default()).is_some() {
                    findings.add("I12", at, "a transfer was decided twice");
                }
                if *disclosed && !self.disclosed {
                    findings.add("I13", at, "the record says that the disclosure was heard, and it was not");
                }
                self.waived = decision.trigger.waives_waits;
                (self.message_begun, self.message_heard, self.accepted) = (false, false, false);
                self.decided_at = at;
            }
            Fact::BridgeCompleted { transfer_id, .. } => {
                self.transfers.entry(transfer_id.clone()).or_default().bridged = true;
                self.accepted = true;
            }
            Fact::CallerAbandoned { transfer_id, .. } => {
                self.transfers.entry(transfer_id.clone()).or_default().abandoned = true;
            }
            Fact::FallbackChosen { kind, .. } => {
                let under_way = self.under_way.clone();
                match under_way.and_then(|id| self.transfers.get_mut(&id)) {
                    Some(transfer) => transfer.fallbacks.push(*kind),
                    None => findings.add("I12", at, "a fallback without a transfer"),
                }
                self.message = *kind == FallbackTaken::Voicemail;
                // Its own words stand for the message.
                let speaks = matches!(kind, FallbackTaken::Voicemail | FallbackTaken::Callback);
                self.message_begun |= speaks;
                self.message_heard |= speaks;
            }
            Fact::TransferEnded { transfer_id, outcome, fallback, .. } => {
                match self.transfers.get_mut(transfer_id) {
                    None => findings.add("I12", at, "a transfer ended that was never decided"),
                    Some(transfer) => {
                        if std::mem::replace(&mut transfer.ended, true) {
                            findings.add("I12", at, "a transfer ended twice");
                        }
                        judge(at, transfer, *outcome, *fallback, findings);
                    }
                }
                if self.under_way.as_ref() == Some(transfer_id) {
                    self.under_way = None;
                }
            }
            _ => {}
        }
    }

    fn pass(&self, at: Now, slack: Duration, findings: &mut Findings) {
        let waits = self.under_way.is_some() && !self.ended;
        if waits && !self.message_begun && at.since(self.decided_at) > MESSAGE_BY + slack {
            findings.add("I14", at, "the message did not begin");
        }
        if let Some(since) = self.bed_since
            && waits
            && !self.accepted
            && at > (since.max(self.decided_at) + BED_MAX).max(self.offered_at) + slack
        {
            findings.add("I14", at, "the caller waits without an update");
        }
    }
}

/// Whether an outcome fits what was recorded before it.
fn judge(at: Now, transfer: &Transfer, outcome: Outcome, fallback: FallbackTaken, findings: &mut Findings) {
    let bridged = match outcome {
        Outcome::Completed | Outcome::CompletedDegraded { .. } => Some(true),
        Outcome::AgentLost { phase } => Some(phase == Phase::Bridged),
        Outcome::Failed { .. } => None,
        Outcome::AbandonedByCaller { .. }
        | Outcome::NoAnswer
        | Outcome::Busy
        | Outcome::Declined
        | Outcome::Voicemail
        | Outcome::ReturnedToVoiceAgent
        | Outcome::CallbackScheduled
        | Outcome::Cancelled => Some(false),
    };
    let abandoned = matches!(outcome, Outcome::AbandonedByCaller { .. });
    let fell = match (transfer.fallbacks.last(), fallback) {
        (None | Some(FallbackTaken::Queue), taken) => taken == FallbackTaken::None,
        (Some(last), taken) => *last == taken,
    };
    let fits =
        bridged.is_none_or(|bridged| bridged == transfer.bridged) && abandoned == transfer.abandoned && fell;
    if !fits {
        let (was, fell) = (transfer.bridged, &transfer.fallbacks);
        let what = format!("{outcome:?}, {fallback:?} does not fit: bridged {was}, fallbacks {fell:?}");
        findings.add("I12", at, what);
    }
}

impl Watch for Record {
    fn see(&mut self, at: Now, seen: &Seen<'_>, findings: &mut Findings) {
        match seen {
            Seen::Fact(event) => {
                let recording = self.recording;
                self.calls.entry(event.call.clone()).or_default().fact(at, event, recording, findings);
            }
            Seen::Media(MediaCommand::Record { call, on: true, .. })
                if self.calls.get(call).is_none_or(|call| !call.disclosed || call.refused) =>
            {
                findings.add("I13", at, "the media plane records before the disclosure was heard");
            }
            Seen::Media(MediaCommand::Apply(plan)) => {
                let known = self.calls.entry(plan.call.clone()).or_default();
                for (play, prompt) in &plan.prompts {
                    if let Some(Part::Clip(clip)) = prompt.parts.first() {
                        known.clips.insert(*play, clip.0.clone());
                    }
                }
            }
            Seen::Played(call, play, 1_000) => {
                let Some(known) = self.calls.get_mut(*call) else { return };
                let clip = known.clips.get(play).map_or("", String::as_str);
                known.disclosed |= clip.starts_with("disclosure.");
                known.message_heard |= clip.starts_with("reason.") || clip.starts_with("apology");
            }
            Seen::Hears(call, LegId::CALLER, ear) => {
                let Some(known) = self.calls.get_mut(*call) else { return };
                if let Ear::Play(play, _) = ear {
                    let clip = known.clips.get(play).map_or("", String::as_str);
                    known.message_begun |= clip.starts_with("reason.") || clip.starts_with("apology");
                }
                known.bed_since = matches!(ear, Ear::Bed).then(|| known.bed_since.unwrap_or(at));
            }
            Seen::Forgotten(call) => {
                let Some(known) = self.calls.get(*call) else { return };
                if !known.finished {
                    findings.add("I11", at, format!("{} was forgotten before its last fact", short(call)));
                }
                if known.transfers.values().any(|transfer| !transfer.ended) {
                    findings.add("I12", at, format!("a transfer of {} never ended", short(call)));
                }
            }
            _ => {}
        }
    }

    fn pass(&mut self, at: Now, findings: &mut Findings) {
        let slack = self.slack;
        for known in self.calls.values_mut().filter(|known| !known.finished) {
            known.pass(at, slack, findings);
        }
    }
}
