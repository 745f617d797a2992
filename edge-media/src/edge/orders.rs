//! Carries out what the call machine orders: each [`Output`] becomes SIP commands, media
//! commands, pushes and facts. Orders that need an answer from the router itself (a person
//! from the directory, a port) are answered in the same step.

use handoff::call::outcome::LegCause;
use handoff::call::{DesktopPush, Input, Output};
use handoff::clock::Moment;
use handoff::event::CallEvent;
use handoff::id::{CallId, HumanAgentId, LegId, QueueId, TransferId};

use super::{Edge, EdgeOutput, Wire, speech_of};
use crate::media::{Carrier, MediaCommand, StreamKey};
use crate::sip::{DialogKey, Direction, SipCommand};

/// The orders of a call that one input may cause, nested answers included. A machine that
/// wants more has a loop in it; the rest is dropped and the next timeout takes over.
const ORDERS_MAX: usize = 256;

impl Edge {
    /// Carries out the orders of `call` in order.
    pub(super) fn carry(&mut self, at: Moment, call: &CallId, out: &mut Vec<EdgeOutput>) {
        for _ in 0..ORDERS_MAX {
            let Some(running) = self.calls.get_mut(call) else { return };
            let Some(order) = running.orders.pop_front() else { break };
            running.carrying = true;
            for input in self.carry_one(at, call, order, out) {
                self.feed(at, call, input, out);
            }
        }
        if let Some(running) = self.calls.get_mut(call) {
            running.carrying = false;
            running.orders.clear();
        }
        self.rearm(call);
    }

    fn carry_one(
        &mut self,
        at: Moment,
        call: &CallId,
        order: Output,
        out: &mut Vec<EdgeOutput>,
    ) -> Vec<Input> {
        match order {
            Output::Answer => {
                if let Some((dialog, port)) = self.sip_leg(call, LegId::CALLER) {
                    let local = self.local(port, Direction::SendRecv);
                    self.sip_order(at, SipCommand::Answer(dialog, local), out);
                }
            }
            Output::ConnectVoiceAgent { leg } => self.connect_voice_agent(call, leg, out),
            Output::FindTarget { queue, exclude } => return self.find_target(&queue, &exclude),
            Output::Invite { leg, agent, transfer } => {
                return self.invite(at, call, leg, &agent, &transfer, out);
            }
            Output::HangUp { leg, cause } => return self.hang_up(at, call, leg, cause, out),
            Output::Hold { leg } => self.reinvite(at, call, leg, Direction::SendOnly, out),
            Output::Resume { leg } => self.reinvite(at, call, leg, Direction::SendRecv, out),
            Output::Media(plan) => {
                for (text, lang) in plan.prompts.values().flat_map(speech_of) {
                    out.push(EdgeOutput::PrepareSpeech { text, lang });
                }
                out.push(EdgeOutput::Media(MediaCommand::Apply(plan)));
            }
            Output::DrainVoiceAgent { leg } => {
                out.push(EdgeOutput::Media(MediaCommand::Drain { call: call.clone(), leg }));
            }
            Output::ClearVoiceAgent { leg } => {
                out.push(EdgeOutput::Media(MediaCommand::Clear { call: call.clone(), leg }));
            }
            Output::TellVoiceAgent { leg, status, eta_s } => {
                if let Some(Wire::Stream(stream)) = self.wire(call, leg) {
                    out.push(EdgeOutput::DoorStatus { stream, status, eta_s });
                }
            }
            Output::Desktop { agent, push } => self.push_desktop(call, agent, push, out),
            Output::Record { leg, on } => {
                out.push(EdgeOutput::Media(MediaCommand::Record { call: call.clone(), leg, on }));
            }
            Output::DiscardRecordings => out.push(EdgeOutput::DiscardRecordings(call.clone())),
            Output::Emit { seq, at: time, fact, evaluable } => {
                let rules = &self.config.rules;
                out.push(EdgeOutput::Fact(Box::new(CallEvent {
                    edge: rules.edge.clone(),
                    tenant: rules.tenant.clone(),
                    call: call.clone(),
                    seq,
                    time,
                    mono_us: at.now.micros(),
                    commands: self.config.commands.clone(),
                    fact,
                    evaluable,
                })));
            }
            Output::PublishDecision { evaluable, decision } => {
                // The fact that records the decision stands before this in the same batch.
                let sequence = out.iter().rev().find_map(|output| {
                    let EdgeOutput::Fact(event) = output else { return None };
                    Some(event.seq)
                });
                out.push(EdgeOutput::Decision(evaluable, Box::new(decision), sequence.unwrap_or(0)));
            }
            Output::Learn { queue, waited_s } => self.directory.learn(&queue, waited_s),
            Output::Finished => self.finish(at, call, out),
        }
        Vec::new()
    }

    fn wire(&self, call: &CallId, leg: LegId) -> Option<Wire> {
        self.calls.get(call)?.legs.get(&leg).cloned()
    }

    fn sip_leg(&self, call: &CallId, leg: LegId) -> Option<(DialogKey, crate::media::Port)> {
        match self.wire(call, leg)? {
            Wire::Sip { dialog, port, .. } => Some((dialog, port)),
            Wire::Stream(_) => None,
        }
    }

    fn sip_order(&mut self, at: Moment, command: SipCommand, out: &mut Vec<EdgeOutput>) {
        let outputs = self.sip.command(at.now, command);
        self.carry_sip(at, outputs, out);
    }

    fn connect_voice_agent(&mut self, call: &CallId, leg: LegId, out: &mut Vec<EdgeOutput>) {
        let stream = StreamKey(self.next_stream);
        self.next_stream += 1;
        self.streams.insert(stream, (call.clone(), leg));
        if let Some(running) = self.calls.get_mut(call) {
            running.legs.insert(leg, Wire::Stream(stream));
        }
        out.push(EdgeOutput::Media(MediaCommand::Open {
            call: call.clone(),
            leg,
            carrier: Carrier::Stream(stream),
        }));
        out.push(EdgeOutput::OpenDoor { stream, call: call.clone() });
    }

    fn find_target(&mut self, queue: &QueueId, exclude: &[HumanAgentId]) -> Vec<Input> {
        let estimate_s = self.directory.estimate_s(queue);
        let desktops = &self.desktops;
        let found = self.directory.reserve(queue, exclude, |agent| desktops.contains(agent));
        vec![found.map_or(Input::NobodyAvailable, |target| Input::TargetFound { target, estimate_s })]
    }

    fn invite(
        &mut self,
        at: Moment,
        call: &CallId,
        leg: LegId,
        agent: &HumanAgentId,
        transfer: &TransferId,
        out: &mut Vec<EdgeOutput>,
    ) -> Vec<Input> {
        let destination = self.directory.destination(agent);
        let (Some(to), Some(port)) = (destination, self.ports.pop_front()) else {
            self.directory.release(at.now, agent);
            return vec![Input::Ended { leg, cause: LegCause::Unreachable, status: None }];
        };
        let dialog = DialogKey(self.next_dialog);
        self.next_dialog += 2;
        self.dialogs.insert(dialog, (call.clone(), leg));
        if let Some(running) = self.calls.get_mut(call) {
            let wire = Wire::Sip { dialog, port, agent: Some(agent.clone()), remote: None };
            running.legs.insert(leg, wire);
        }
        out.push(EdgeOutput::Media(MediaCommand::Open {
            call: call.clone(),
            leg,
            carrier: Carrier::Rtp(port),
        }));
        // The handle names the transfer without saying anything about it; it opens nothing.
        let handle = self
            .directory
            .takes_handle(agent)
            .then(|| handoff::id::derived_text(&["handle", transfer.as_str()]));
        let local = self.local(port, Direction::SendRecv);
        self.sip_order(at, SipCommand::Invite { dialog, to, local, handle }, out);
        Vec::new()
    }

    fn hang_up(
        &mut self,
        at: Moment,
        call: &CallId,
        leg: LegId,
        cause: LegCause,
        out: &mut Vec<EdgeOutput>,
    ) -> Vec<Input> {
        match self.wire(call, leg) {
            // The stack reports the end of the dialog when it is certain.
            Some(Wire::Sip { dialog, .. }) => {
                self.sip_order(at, SipCommand::HangUp(dialog, cause), out);
                Vec::new()
            }
            Some(Wire::Stream(stream)) => {
                self.streams.remove(&stream);
                if let Some(running) = self.calls.get_mut(call) {
                    running.legs.remove(&leg);
                }
                out.push(EdgeOutput::CloseDoor(stream));
                out.push(EdgeOutput::Media(MediaCommand::Close { call: call.clone(), leg }));
                vec![Input::Ended { leg, cause, status: None }]
            }
            None => Vec::new(),
        }
    }

    fn reinvite(
        &mut self,
        at: Moment,
        call: &CallId,
        leg: LegId,
        direction: Direction,
        out: &mut Vec<EdgeOutput>,
    ) {
        if let Some((dialog, port)) = self.sip_leg(call, leg) {
            let local = self.local(port, direction);
            self.sip_order(at, SipCommand::Reinvite(dialog, local), out);
        }
    }

    /// A card carries the whisper's text: it is synthesised while the phone rings.
    fn push_desktop(&self, call: &CallId, agent: HumanAgentId, push: DesktopPush, out: &mut Vec<EdgeOutput>) {
        if let DesktopPush::Card { payload, .. } = &push
            && let (Some(text), Some(running)) = (payload.whisper_text(), self.calls.get(call))
        {
            let lang = running.call.whisper_lang();
            out.push(EdgeOutput::PrepareSpeech { text: text.clone(), lang });
        }
        out.push(EdgeOutput::Desktop(agent, push));
    }

    fn finish(&mut self, at: Moment, call: &CallId, out: &mut Vec<EdgeOutput>) {
        let Some(running) = self.calls.remove(call) else { return };
        if let Some(deadline) = running.deadline {
            self.deadlines.remove(&(deadline, call.clone()));
        }
        // Every leg has ended by now; this is the guard that makes it so.
        for (leg, wire) in running.legs {
            match wire {
                Wire::Sip { dialog, agent, .. } => {
                    self.dialogs.remove(&dialog);
                    self.sip_order(at, SipCommand::HangUp(dialog, LegCause::LocalHangUp), out);
                    if let Some(agent) = agent {
                        self.directory.release(at.now, &agent);
                    }
                }
                Wire::Stream(stream) => {
                    self.streams.remove(&stream);
                    out.push(EdgeOutput::CloseDoor(stream));
                }
            }
            out.push(EdgeOutput::Media(MediaCommand::Close { call: call.clone(), leg }));
        }
        out.push(EdgeOutput::Forget(call.clone()));
    }

    /// Files the call's next deadline, and forgets its last.
    fn rearm(&mut self, call: &CallId) {
        let Some(running) = self.calls.get_mut(call) else { return };
        let next = running.call.next_timeout();
        if next != running.deadline {
            if let Some(old) = std::mem::replace(&mut running.deadline, next) {
                self.deadlines.remove(&(old, call.clone()));
            }
            if let Some(next) = next {
                self.deadlines.insert((next, call.clone()));
            }
        }
    }
}
