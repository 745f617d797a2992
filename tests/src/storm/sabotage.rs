//! Planted bugs. Each changes what crosses the edge's border, inwards or outwards, as a real
//! mistake behind it would; shipped code carries no switch for them. A storm that finds
//! nothing is worth as much as the bugs that it finds when they are planted, so each of them
//! has to be found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use edge_media::edge::{EdgeInput, EdgeOutput};
use edge_media::media::{Carrier, MediaCommand, MediaEvent};
use handoff::call::DesktopPush;
use handoff::call::media::{MediaPlan, MediaReport, Part, Prompt, Source};
use handoff::clock::Now;
use handoff::command::CommandBody;
use handoff::event::{CallEvent, Fact};
use handoff::id::{CallId, DecisionId, LegId, PlayId, TransferId};

use super::wire::Message;

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each has its sentence in `ALL`")]
pub enum Bug {
    CancelForgotten,
    ByeForgotten,
    AckForgotten,
    LateAnswerIgnored,
    WhisperToCaller,
    HumanHeardEarly,
    CallerHeardEarly,
    VoiceAgentStays,
    HoldIsSilent,
    PromptIsEmpty,
    DeadAirAfterBridge,
    LegClosedTwice,
    LegNeverClosed,
    BilledTooLong,
    RingingBilled,
    FallbackForgotten,
    TimersEarly,
    RingTimerDoubled,
    DecisionTwice,
    SequenceStops,
    FactAfterTheLast,
    ReservationForgotten,
    PortGivenTwice,
    PortKept,
    AddressWrong,
    DeadLegServed,
    DisclosureSkipped,
    MessageSkipped,
    UpdatesForgotten,
    CardForgotten,
    ReceiptForged,
    OtherPayload,
    OneMoreAttempt,
    DialsElsewhere,
    MachineAccepts,
    CallerKeyAccepts,
    RecordedTooSoon,
}

/// Every bug: its name, and what it does.
pub const ALL: [(Bug, &str, &str); 37] = [
    (Bug::CancelForgotten, "cancel_forgotten", "an offer is taken back without CANCEL"),
    (Bug::ByeForgotten, "bye_forgotten", "a leg is ended without BYE"),
    (Bug::AckForgotten, "ack_forgotten", "an answer is not acknowledged"),
    (Bug::LateAnswerIgnored, "late_answer_ignored", "an answer that crosses a CANCEL is not noticed"),
    (Bug::WhisperToCaller, "whisper_to_caller", "the whisper is routed to the held caller"),
    (Bug::HumanHeardEarly, "human_heard_early", "the caller hears the human before the bridge"),
    (Bug::CallerHeardEarly, "caller_heard_early", "the human hears the caller before the bridge"),
    (Bug::VoiceAgentStays, "voice_agent_stays", "the voice agent listens on after the bridge"),
    (Bug::HoldIsSilent, "hold_is_silent", "hold is silence"),
    (Bug::PromptIsEmpty, "prompt_is_empty", "a plan does not carry its prompts"),
    (Bug::DeadAirAfterBridge, "dead_air_after_bridge", "no new plan when the bridged human goes"),
    (Bug::LegClosedTwice, "leg_closed_twice", "a leg is released twice"),
    (Bug::LegNeverClosed, "leg_never_closed", "a leg's end is not recorded"),
    (Bug::BilledTooLong, "billed_too_long", "a leg is billed on after its end"),
    (Bug::RingingBilled, "ringing_billed", "a phone that only rang is billed"),
    (Bug::FallbackForgotten, "fallback_forgotten", "a fallback is not recorded"),
    (Bug::TimersEarly, "timers_early", "a timer acts before its time"),
    (Bug::RingTimerDoubled, "ring_timer_doubled", "a phone rings twice as long as it may"),
    (Bug::DecisionTwice, "decision_twice", "a repeated decision opens a second transfer"),
    (Bug::SequenceStops, "sequence_stops", "facts stop counting"),
    (Bug::FactAfterTheLast, "fact_after_the_last", "a fact follows the last"),
    (Bug::ReservationForgotten, "reservation_forgotten", "a reload forgets who is busy"),
    (Bug::PortGivenTwice, "port_given_twice", "two legs get one port"),
    (Bug::PortKept, "port_kept", "a port is not given back"),
    (Bug::AddressWrong, "address_wrong", "audio goes to an address that was not negotiated"),
    (Bug::DeadLegServed, "dead_leg_served", "a plan goes on naming a leg that is over"),
    (Bug::DisclosureSkipped, "disclosure_skipped", "the disclosure is taken as heard at once"),
    (Bug::MessageSkipped, "message_skipped", "the transition message is taken as heard at once"),
    (Bug::UpdatesForgotten, "updates_forgotten", "a waiting caller gets no update"),
    (Bug::CardForgotten, "card_forgotten", "the page gets no card"),
    (Bug::ReceiptForged, "receipt_forged", "a payload counts as painted when it was sent"),
    (Bug::OtherPayload, "other_payload", "the page gets another payload than the record has"),
    (Bug::OneMoreAttempt, "one_more_attempt", "one person more is tried than allowed"),
    (Bug::DialsElsewhere, "dials_elsewhere", "a number is dialled that is not in the directory"),
    (Bug::MachineAccepts, "machine_accepts", "answering counts as accepting, for a machine too"),
    (Bug::CallerKeyAccepts, "caller_key_accepts", "the caller's key is taken for the human's"),
    (Bug::RecordedTooSoon, "recorded_too_soon", "recording begins before the disclosure was heard"),
];

/// The bug of a name.
pub fn bug_of(name: &str) -> Option<Bug> {
    ALL.into_iter().find(|(_, known, _)| *known == name).map(|(bug, ..)| bug)
}

/// Plants one bug, or none.
#[derive(Debug, Default)]
pub struct Saboteur {
    bug: Option<Bug>,
    /// Facts of a call that were added (or left out): later numbers move.
    shift: BTreeMap<CallId, i64>,
    /// Call-IDs that a CANCEL was sent for.
    cancelled: BTreeSet<String>,
    /// Commands that were delivered once.
    delivered: BTreeSet<String>,
    /// The voice agent's leg of each call.
    voice: BTreeMap<CallId, LegId>,
    /// The human legs of each call, and what each was seen doing last.
    humans: BTreeMap<CallId, LegId>,
    bridged: BTreeMap<CallId, LegId>,
    /// Calls whose plans are not passed on any more.
    frozen: BTreeSet<CallId>,
    given: u32,
    injected: Vec<EdgeInput>,
    reload: bool,
}

impl Saboteur {
    /// Plants a bug.
    pub fn new(bug: Option<Bug>) -> Self {
        Self { bug, ..Self::default() }
    }

    /// Attempts more than the rules say.
    pub fn extra_attempts(&self) -> u32 {
        u32::from(self.bug == Some(Bug::OneMoreAttempt))
    }

    /// By how much a phone rings too long.
    pub fn ring_factor(&self) -> u32 {
        1 + u32::from(self.bug == Some(Bug::RingTimerDoubled))
    }

    /// Whether the configuration is to be read anew now, carelessly.
    pub fn reloads(&mut self) -> bool {
        std::mem::take(&mut self.reload)
    }

    /// An input that nobody gave.
    pub fn inject(&mut self) -> Option<EdgeInput> {
        self.injected.pop()
    }

    /// What goes in, and by how much the clock is wrong.
    pub fn input(&mut self, input: EdgeInput) -> (Duration, Option<EdgeInput>) {
        let Some(bug) = self.bug else { return (Duration::ZERO, Some(input)) };
        let input = match (bug, input) {
            (Bug::TimersEarly, EdgeInput::Timeout) => {
                return (Duration::from_secs(4), Some(EdgeInput::Timeout));
            }
            (Bug::LateAnswerIgnored, EdgeInput::Bytes(flow, bytes)) => {
                let late = Message::parse(&bytes).is_some_and(|message| {
                    message.status == Some(200)
                        && message.method == "INVITE"
                        && self.cancelled.contains(message.call_id)
                });
                return (Duration::ZERO, (!late).then_some(EdgeInput::Bytes(flow, bytes)));
            }
            (Bug::PortGivenTwice, EdgeInput::Ports(mut ports)) => {
                if let [first, second, ..] = ports.as_mut_slice() {
                    *second = *first;
                }
                EdgeInput::Ports(ports)
            }
            (Bug::DecisionTwice, EdgeInput::Command(mut command)) => {
                let repeated = !self.delivered.insert(command.id.clone());
                if let CommandBody::TransferDecided { decision } = &mut command.body
                    && repeated
                {
                    self.given += 1;
                    command.id = format!("{}-{}", command.id, self.given);
                    decision.transfer_id = TransferId::of(&command.call_id, 2);
                    decision.decision_id = DecisionId::of(&decision.transfer_id);
                }
                EdgeInput::Command(command)
            }
            (Bug::CallerKeyAccepts, EdgeInput::Media(mut event)) => {
                if let MediaReport::Digit { leg, .. } = &mut event.report
                    && *leg == LegId::CALLER
                    && let Some(human) = self.humans.get(&event.call)
                {
                    *leg = *human;
                }
                EdgeInput::Media(event)
            }
            (_, input) => input,
        };
        (Duration::ZERO, Some(input))
    }

    /// What comes out.
    pub fn outputs(&mut self, now: Now, outputs: Vec<EdgeOutput>) -> Vec<EdgeOutput> {
        if self.bug.is_none() {
            return outputs;
        }
        let mut out = Vec::with_capacity(outputs.len());
        for output in outputs {
            self.output(now, output, &mut out);
        }
        out
    }

    fn output(&mut self, now: Now, output: EdgeOutput, out: &mut Vec<EdgeOutput>) {
        match output {
            EdgeOutput::Send(flow, bytes) => {
                let (keep, peer) = self.sip(flow.peer, &bytes);
                if keep {
                    out.push(EdgeOutput::Send(edge_media::sip::Flow { peer, ..flow }, bytes));
                }
            }
            EdgeOutput::Fact(event) => self.fact(*event, out),
            EdgeOutput::Media(command) => self.media(now, command, out),
            EdgeOutput::CloseDoor(stream) => {
                if self.bug != Some(Bug::VoiceAgentStays) || self.bridged.is_empty() {
                    out.push(EdgeOutput::CloseDoor(stream));
                }
            }
            EdgeOutput::Desktop(agent, mut push) => {
                match (self.bug, &mut push) {
                    (Some(Bug::CardForgotten), DesktopPush::Card { .. }) => return,
                    (Some(Bug::OtherPayload), DesktopPush::Card { payload, .. }) => {
                        payload.summary.text = handoff::pii::Pii::new("Something else.".to_owned());
                    }
                    (Some(Bug::ReceiptForged), DesktopPush::Accepted { transfer, revision }) => {
                        let (agent, transfer) = (agent.clone(), transfer.clone());
                        self.injected.push(EdgeInput::DesktopAcked(agent, transfer, *revision));
                    }
                    _ => {}
                }
                out.push(EdgeOutput::Desktop(agent, push));
            }
            other => out.push(other),
        }
    }

    fn sip(&mut self, peer: SocketAddr, bytes: &[u8]) -> (bool, SocketAddr) {
        let Some(message) = Message::parse(bytes) else { return (true, peer) };
        let request = message.status.is_none();
        if request && message.method == "CANCEL" {
            self.cancelled.insert(message.call_id.to_owned());
        }
        let lost = match self.bug {
            Some(Bug::CancelForgotten) => request && message.method == "CANCEL",
            Some(Bug::ByeForgotten) => request && message.method == "BYE",
            // That of an answer has a branch of its own.
            Some(Bug::AckForgotten) => request && message.method == "ACK",
            _ => false,
        };
        let elsewhere = self.bug == Some(Bug::DialsElsewhere)
            && request
            && message.method == "INVITE"
            && message.to_tag().is_empty();
        let peer = if elsewhere { SocketAddr::from(([203, 0, 113, 9], 5_060)) } else { peer };
        (!lost, peer)
    }

    /// A fact, with the number that it would have had.
    fn emit(&self, mut event: CallEvent, out: &mut Vec<EdgeOutput>) {
        let shift = self.shift.get(&event.call).copied().unwrap_or(0);
        event.seq = event.seq.saturating_add_signed(shift);
        if let Fact::ProducerFinal { count } = &mut event.fact {
            *count = count.saturating_add_signed(shift);
        }
        out.push(EdgeOutput::Fact(Box::new(event)));
    }

    fn fact(&mut self, mut event: CallEvent, out: &mut Vec<EdgeOutput>) {
        let Some(bug) = self.bug else { return };
        let call = event.call.clone();
        match (&mut event.fact, bug) {
            (Fact::LegClosed { .. }, Bug::LegClosedTwice) => {
                self.emit(event.clone(), out);
                *self.shift.entry(call).or_insert(0) += 1;
            }
            (Fact::LegClosed { leg, .. }, Bug::LegNeverClosed) if *leg >= LegId::FIRST_HUMAN => {
                *self.shift.entry(call).or_insert(0) -= 1;
                return;
            }
            (Fact::LegClosed { billed_ms, .. }, Bug::BilledTooLong) if *billed_ms > 0 => *billed_ms += 5_000,
            (Fact::LegClosed { billed_ms, .. }, Bug::RingingBilled) if *billed_ms == 0 => *billed_ms = 3_000,
            (Fact::FallbackChosen { .. }, Bug::FallbackForgotten) => {
                *self.shift.entry(call).or_insert(0) -= 1;
                return;
            }
            (Fact::ProducerFinal { .. }, Bug::FactAfterTheLast) => {
                self.emit(event.clone(), out);
                *self.shift.entry(call).or_insert(0) += 1;
            }
            (Fact::AgentOffered { .. }, Bug::ReservationForgotten) => self.reload = true,
            (Fact::AgentAnswered { leg, .. }, Bug::MachineAccepts) => {
                let report = MediaReport::Digit { leg: *leg, digit: '1' };
                let at = Now::from_micros(event.mono_us);
                for _ in 0..2 {
                    let event = MediaEvent { at, call: call.clone(), report: report.clone() };
                    self.injected.push(EdgeInput::Media(event));
                }
            }
            (_, Bug::SequenceStops) if event.seq > 12 => event.seq = 12,
            _ => {}
        }
        self.emit(event, out);
    }

    fn media(&mut self, now: Now, command: MediaCommand, out: &mut Vec<EdgeOutput>) {
        let Some(bug) = self.bug else { return };
        let mut after = None;
        let command = match command {
            MediaCommand::Open { call, leg, carrier } => {
                match carrier {
                    Carrier::Stream(_) => drop(self.voice.insert(call.clone(), leg)),
                    Carrier::Rtp(_) if leg != LegId::CALLER => drop(self.humans.insert(call.clone(), leg)),
                    Carrier::Rtp(_) if bug == Bug::RecordedTooSoon => {
                        after = Some(MediaCommand::Record { call: call.clone(), leg, on: true });
                    }
                    Carrier::Rtp(_) => {}
                }
                MediaCommand::Open { call, leg, carrier }
            }
            MediaCommand::Remote { call, leg, mut remote } => {
                if bug == Bug::AddressWrong {
                    remote.rtp.set_port(remote.rtp.port().wrapping_add(2));
                }
                MediaCommand::Remote { call, leg, remote }
            }
            MediaCommand::Close { call, leg } => {
                let human = self.humans.get(&call) == Some(&leg);
                let voice = self.voice.get(&call) == Some(&leg);
                if human && bug == Bug::PortKept {
                    return;
                }
                if voice && bug == Bug::VoiceAgentStays && self.bridged.contains_key(&call) {
                    return;
                }
                if bug == Bug::DeadAirAfterBridge && self.bridged.get(&call) == Some(&leg) {
                    self.frozen.insert(call.clone());
                }
                MediaCommand::Close { call, leg }
            }
            MediaCommand::Apply(plan) => {
                if self.frozen.contains(&plan.call) {
                    return;
                }
                MediaCommand::Apply(self.plan(now, bug, plan))
            }
            other => other,
        };
        out.push(EdgeOutput::Media(command));
        out.extend(after.map(EdgeOutput::Media));
    }

    fn plan(&mut self, now: Now, bug: Bug, mut plan: MediaPlan) -> MediaPlan {
        let call = plan.call.clone();
        let caller = plan.egress.get(&LegId::CALLER).cloned();
        let human = self.humans.get(&call).copied().filter(|leg| plan.egress.contains_key(leg));
        let held = caller == Some(Source::HoldBed);
        if let Some(Source::Leg(leg)) = &caller
            && self.humans.get(&call) == Some(leg)
        {
            self.bridged.insert(call.clone(), *leg);
        }
        let starts = |start: &str| match &caller {
            Some(Source::Prompt(play)) => {
                plan.prompts.get(play).filter(|prompt| first_clip(prompt).starts_with(start)).map(|_| *play)
            }
            _ => None,
        };
        match bug {
            Bug::WhisperToCaller => {
                let whisper = human.and_then(|leg| plan.egress.get(&leg).cloned());
                if let (true, Some(Source::Prompt(play))) = (held, whisper) {
                    plan.egress.insert(LegId::CALLER, Source::Prompt(play));
                }
            }
            Bug::HumanHeardEarly => {
                if let (true, Some(leg)) = (held, human) {
                    plan.egress.insert(LegId::CALLER, Source::Leg(leg));
                }
            }
            Bug::CallerHeardEarly => {
                if let Some(leg) = human {
                    plan.egress.insert(leg, Source::Leg(LegId::CALLER));
                }
            }
            Bug::VoiceAgentStays => {
                if let (true, Some(voice)) = (self.bridged.contains_key(&call), self.voice.get(&call)) {
                    plan.egress.insert(*voice, Source::Leg(LegId::CALLER));
                }
            }
            Bug::HoldIsSilent if held => drop(plan.egress.insert(LegId::CALLER, Source::Silence)),
            Bug::PromptIsEmpty => plan.prompts.clear(),
            Bug::DeadLegServed => {
                if let (None, Some(leg)) = (human, self.humans.get(&call)) {
                    plan.egress.insert(*leg, Source::Silence);
                }
            }
            Bug::DisclosureSkipped => self.skip(now, &call, starts("disclosure.")),
            Bug::MessageSkipped => self.skip(now, &call, starts("reason.")),
            Bug::UpdatesForgotten if starts("hold.update").is_some() => {
                plan.egress.insert(LegId::CALLER, Source::HoldBed);
            }
            _ => {}
        }
        plan
    }

    fn skip(&mut self, at: Now, call: &CallId, play: Option<PlayId>) {
        if let Some(play) = play {
            let report = MediaReport::PlayEnded { play, played_pm: 1_000 };
            self.injected.push(EdgeInput::Media(MediaEvent { at, call: call.clone(), report }));
        }
    }
}

/// The name of the first clip of a prompt.
fn first_clip(prompt: &Prompt) -> &str {
    prompt.parts.first().map_or("", |part| match part {
        Part::Clip(clip) => clip.0.as_str(),
        Part::Say { .. } => "say",
    })
}
