//! Who hears whom. I1: an answered caller always hears something. I2: no private word reaches
//! the caller. I3: caller and human hear each other after the yes and not before, and the
//! voice agent has the caller back after a transfer that failed. I5: no plan names a leg
//! that is not open. I6: a bridged call is not listened to. I9: who loses a bridged human is
//! not left in dead air.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use edge_media::media::{Carrier, MediaCommand};
use handoff::call::media::{MediaPlan, Part, Prompt, Source};
use handoff::call::outcome::{FallbackTaken, Outcome};
use handoff::clock::Now;
use handoff::event::{Fact, Role};
use handoff::id::{CallId, LegId};

use super::{Findings, Seen, Watch, short};
use crate::storm::media::Ear;
use crate::storm::plan::Plan;

/// The longest silence.
const SILENCE_MAX: Duration = Duration::from_millis(500);
/// A tick, and what a report waits for the next event.
const SLACK: Duration = Duration::from_millis(45);
/// The longest fixed sentence to a caller who comes back.
const NOTICE_MAX: Duration = Duration::from_secs(16);

#[derive(Default)]
struct Call {
    roles: BTreeMap<LegId, Role>,
    open: BTreeSet<LegId>,
    answered: bool,
    silent_since: Option<Now>,
    /// What the caller heard last that could be heard.
    heard: Option<Ear>,
    hears: BTreeMap<LegId, Ear>,
    accepted: Option<LegId>,
    bridged: Option<LegId>,
    /// The voice agent has the caller again since then.
    back_since: Option<Now>,
    apart_since: Option<Now>,
    /// When this was looked at last.
    looked: Now,
    door: bool,
}

/// See the module.
pub(super) struct Hearing {
    limit: Duration,
    calls: BTreeMap<CallId, Call>,
    /// Ports of ours, and the call whose caller is behind one.
    ports: BTreeMap<u16, CallId>,
    /// The call of a caller, and the CSeq of the INVITE that was answered last.
    callers: BTreeMap<usize, (CallId, u32)>,
}

impl Hearing {
    pub(super) fn new(plan: &Plan) -> Self {
        // A prompt ends and its report is late; then a phone is silent, and that report is.
        let limit = SILENCE_MAX + SLACK + 2 * Duration::from_millis(plan.house.reports_ms);
        Self { limit, calls: BTreeMap::new(), ports: BTreeMap::new(), callers: BTreeMap::new() }
    }
}

/// Words that only a human agent may hear.
fn private(prompt: &Prompt) -> Option<&str> {
    prompt.parts.iter().find_map(|part| match part {
        Part::Say { .. } => Some("free text"),
        Part::Clip(clip) => {
            let name = clip.0.as_str();
            ["whisper.", "presence", "press_to_accept", "caller_left", "connecting"]
                .iter()
                .any(|word| name.starts_with(word))
                .then_some(name)
        }
    })
}

fn sources(source: &Source) -> Vec<LegId> {
    match source {
        Source::Leg(leg) => vec![*leg],
        Source::Mix(legs) => legs.clone(),
        Source::Prompt(_) | Source::HoldBed | Source::Silence | Source::Comfort => Vec::new(),
    }
}

impl Call {
    fn is(&self, leg: LegId, role: Role) -> bool {
        self.roles.get(&leg) == Some(&role)
    }

    fn fact(&mut self, at: Now, fact: &Fact) {
        match fact {
            Fact::LegOpened { leg, role } => {
                self.roles.insert(*leg, *role);
            }
            Fact::AgentAccepted { leg, .. } => self.accepted = Some(*leg),
            Fact::BridgeCompleted { .. } => self.bridged = self.accepted.take(),
            Fact::TransferDecided { .. } | Fact::CallEnded { .. } => self.back_since = None,
            Fact::AgentOffered { .. } => self.accepted = None,
            Fact::TransferEnded { outcome, fallback, .. } => {
                let back = *fallback == FallbackTaken::VoiceAgent || *outcome == Outcome::Cancelled;
                self.back_since = (back && self.bridged.is_none()).then_some(at);
                self.apart_since = None;
            }
            _ => {}
        }
    }

    fn plan(&mut self, at: Now, plan: &MediaPlan, findings: &mut Findings) {
        if self.bridged.is_some_and(|leg| !plan.egress.contains_key(&leg)) {
            self.bridged = None;
        }
        for (leg, source) in &plan.egress {
            let named = sources(source);
            for other in named.iter().chain([leg]) {
                if !self.open.contains(other) {
                    findings.add("I5", at, format!("a plan names {other}, which is not open"));
                }
            }
            if named.contains(leg) {
                findings.add("I5", at, format!("{leg} hears itself"));
            }
            let role = self.roles.get(leg).copied();
            let human = named.iter().find(|other| self.is(**other, Role::HumanAgent));
            match role {
                Some(Role::Caller) => {
                    if let Source::Prompt(play) = source
                        && let Some(word) = plan.prompts.get(play).and_then(private)
                    {
                        findings.add("I2", at, format!("the caller hears `{word}`"));
                    }
                    if human.is_some_and(|human| self.bridged != Some(*human)) {
                        findings.add("I3", at, "the caller hears a human who is not bridged");
                    }
                }
                Some(Role::HumanAgent) => {
                    if named.contains(&LegId::CALLER) && self.bridged != Some(*leg) {
                        findings.add("I3", at, format!("{leg} hears the caller before the bridge"));
                    }
                }
                Some(Role::VoiceAgent) => {
                    if !named.is_empty() && self.bridged.is_some() {
                        findings.add("I6", at, "the voice agent listens to a bridged call");
                    }
                    if human.is_some() || matches!(source, Source::Prompt(_)) {
                        findings.add("I2", at, "the voice agent hears what is for the human agent");
                    }
                }
                None => findings.add("I5", at, format!("{leg} has no role")),
            }
        }
        let humans = plan
            .egress
            .iter()
            .filter(|(leg, source)| {
                self.is(**leg, Role::HumanAgent) && sources(source).contains(&LegId::CALLER)
            })
            .count();
        if humans > 1 {
            findings.add("I4", at, "two humans are bridged to one caller");
        }
    }

    fn hears(&mut self, at: Now, leg: LegId, ear: &Ear) {
        self.hears.insert(leg, ear.clone());
        if leg == LegId::CALLER {
            self.listen(at);
        }
    }

    fn listen(&mut self, at: Now) {
        let audible = match self.hears.get(&LegId::CALLER) {
            None | Some(Ear::Nothing) => false,
            Some(Ear::Bed | Ear::Comfort | Ear::Play(..) | Ear::Legs(_)) => true,
            Some(Ear::Leg(_, flows)) => *flows,
        };
        if audible {
            self.heard = self.hears.get(&LegId::CALLER).cloned();
        }
        let there = self.answered && self.open.contains(&LegId::CALLER);
        if audible || !there {
            self.silent_since = None;
        } else {
            self.silent_since.get_or_insert(at);
        }
    }

    /// The voice agent's leg, while its link is open.
    fn voice(&self) -> Option<LegId> {
        let open = |leg: &&LegId| self.open.contains(leg) && self.is(**leg, Role::VoiceAgent);
        self.roles.keys().rfind(open).copied().filter(|_| self.door)
    }

    fn pass(&mut self, at: Now, limit: Duration, call: &CallId, findings: &mut Findings) {
        if let Some(since) = self.silent_since
            && at.since(since) > limit
        {
            let lost = matches!(&self.heard, Some(Ear::Leg(leg, _)) if self.is(*leg, Role::HumanAgent));
            let invariant = if lost { "I9" } else { "I1" };
            let what = format!("the caller of {} hears nothing since {} ms", short(call), since.millis());
            findings.add(invariant, at, what);
        }
        let (Some(since), true) = (self.back_since, self.open.contains(&LegId::CALLER)) else { return };
        let Some(voice) = self.voice() else {
            self.back_since = None;
            return;
        };
        let waited = at.since(since);
        let listens = matches!(self.hears.get(&voice), Some(Ear::Leg(LegId::CALLER, _)));
        let talks = matches!(self.hears.get(&LegId::CALLER), Some(Ear::Leg(leg, _)) if *leg == voice);
        let noticed = matches!(self.hears.get(&LegId::CALLER), Some(Ear::Play(..)));
        if listens && (talks || noticed) {
            self.apart_since = None;
        } else if at.since(*self.apart_since.get_or_insert_with(|| since.max(self.looked))) > limit {
            findings.add("I3", at, "after a failed transfer caller and voice agent are not connected");
        }
        if waited > limit + NOTICE_MAX {
            if !talks {
                findings.add("I3", at, "the caller never gets back to the voice agent");
            }
            self.back_since = None;
        }
    }
}

impl Watch for Hearing {
    fn see(&mut self, at: Now, seen: &Seen<'_>, findings: &mut Findings) {
        match seen {
            Seen::Fact(event) => {
                self.calls.entry(event.call.clone()).or_default().fact(at, &event.fact);
            }
            Seen::Media(MediaCommand::Open { call, leg, carrier }) => {
                if let (Carrier::Rtp(port), LegId::CALLER) = (carrier, *leg) {
                    self.ports.insert(port.0, call.clone());
                }
                self.calls.entry(call.clone()).or_default().open.insert(*leg);
            }
            Seen::Media(MediaCommand::Close { call, leg }) => {
                if let Some(known) = self.calls.get_mut(call) {
                    known.open.remove(leg);
                    known.listen(at);
                }
            }
            Seen::Media(MediaCommand::Apply(plan)) => {
                if let Some(known) = self.calls.get_mut(&plan.call) {
                    known.plan(at, plan, findings);
                }
            }
            Seen::Hears(call, leg, ear) => {
                if let Some(known) = self.calls.get_mut(call) {
                    known.hears(at, *leg, ear);
                }
            }
            Seen::Door(call, open) => {
                if let Some(known) = self.calls.get_mut(call) {
                    known.door = *open;
                }
            }
            Seen::Out(Some(peer), message) if message.status == Some(200) => {
                let port = message.audio().map(|audio| audio.address.port());
                if let Some(call) = port.and_then(|port| self.ports.get(&port)) {
                    self.callers.insert(*peer, (call.clone(), message.cseq));
                }
            }
            Seen::In(peer, message) if message.status.is_none() && message.method == "ACK" => {
                // The ACK of a refusal says nothing of the 200.
                let call = self.callers.get(peer).filter(|(_, cseq)| *cseq == message.cseq);
                if let Some(known) = call.and_then(|(call, _)| self.calls.get_mut(call)) {
                    known.answered = true;
                    known.listen(at);
                }
            }
            Seen::Forgotten(call) => drop(self.calls.remove(call)),
            _ => {}
        }
    }

    fn pass(&mut self, at: Now, findings: &mut Findings) {
        for (call, known) in &mut self.calls {
            known.pass(at, self.limit, call, findings);
            known.looked = at;
        }
    }
}
