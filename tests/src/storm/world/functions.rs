//! What the functions, the CRM, the pages and the voice agent's host do once a fact is out.

use edge_media::edge::EdgeInput;
use edge_media::media::StreamKey;
use handoff::call::DesktopPush;
use handoff::command::{Command, CommandBody};
use handoff::event::{CallEvent, Fact};
use handoff::id::{CallId, DecisionId, HumanAgentId};
use handoff::policy::{Decision, Origin};

use super::super::check::{Seen, short};
use super::super::house;
use super::{Event, World};

impl World<'_> {
    pub(super) fn recorded(&mut self, event: CallEvent) {
        let kind = event.fact.kind();
        *self.verdict.facts.entry(kind).or_insert(0) += 1;
        self.digest(kind.as_bytes());
        self.trace(|| format!("{} {}#{} {:?}", short(&event.call), kind, event.seq, event.fact));
        self.see(&Seen::Fact(&event));
        let call = event.call.clone();
        let Some(known) = self.calls.get_mut(&call) else { return };
        let place = known.place;
        let nth = known.facts.entry(kind).or_insert(0);
        *nth += 1;
        let nth = *nth;
        if let Fact::TransferDecided { decision, .. } = &event.fact {
            known.transfer = Some(decision.transfer_id.clone());
        }
        self.functions(place, &event);
        self.trigger(&call, kind, nth);
    }

    /// The functions: a decision for what can trigger one, a payload for what was decided.
    pub(super) fn functions(&mut self, place: usize, event: &CallEvent) {
        let cloud = self.plan.calls[place].cloud;
        if let (Some(ms), Some(evaluable)) = (cloud.decides_ms, &event.evaluable)
            // The function evaluates what the edge evaluated; where the edge's own policy did
            // not fire, neither does the function's, which is the same.
            && evaluable.context.is_some()
            && let Some(trigger) = house::policy().evaluate(&evaluable.snapshot, &evaluable.stimulus)
        {
            let decision = Decision {
                decision_id: DecisionId::of(&evaluable.transfer_id),
                transfer_id: evaluable.transfer_id.clone(),
                call_id: event.call.clone(),
                trigger,
                policy_version: house::policy().version().to_owned(),
                origin: Origin::Function,
            };
            self.order(ms, cloud.copies, &event.call, CommandBody::TransferDecided { decision }, event.seq);
        }
        let Fact::TransferDecided { decision, .. } = &event.fact else { return };
        let transfer_id = decision.transfer_id.clone();
        if let Some(ms) = cloud.payload_ms {
            let payload = Box::new(house::payload(&event.call, decision, event.time, 2));
            let body = CommandBody::PayloadReady { transfer_id: transfer_id.clone(), payload };
            self.order(ms, cloud.copies, &event.call, body, event.seq);
        }
        if let Some((ms, delivered)) = cloud.crm {
            let destination = house::CRM.to_owned();
            let body = if delivered {
                let at = event.time;
                CommandBody::PayloadAcknowledged { transfer_id, destination, revision: 2, at }
            } else {
                CommandBody::PayloadUndelivered { transfer_id, destination }
            };
            self.order(ms, cloud.copies, &event.call, body, event.seq + 1_000_000);
        }
    }

    pub(super) fn order(&mut self, ms: u64, copies: u64, call: &CallId, body: CommandBody, number: u64) {
        let kind = match &body {
            CommandBody::TransferDecided { .. } => "d",
            CommandBody::PayloadReady { .. } => "p",
            CommandBody::PayloadAcknowledged { .. } => "a",
            CommandBody::PayloadUndelivered { .. } => "u",
            CommandBody::TransferCancel { .. } => "c",
        };
        let command = Command { id: format!("{kind}-{call}-{number}"), call_id: call.clone(), body };
        for copy in 0..copies {
            // A queue delivers again, and in no order.
            let later = copy * (1 + self.chance.below(2_000));
            self.after(ms + later, Event::Order(command.clone()));
        }
        if let Some(known) = self.calls.get_mut(call) {
            known.orders.push(command);
        }
    }

    /// An order of the functions reaches the edge, for the first time or again.
    pub(super) fn order_arrives(&mut self, command: Command) {
        self.trace(|| format!("command {}", command.id));
        if let CommandBody::PayloadAcknowledged { transfer_id, .. }
        | CommandBody::PayloadUndelivered { transfer_id, .. } = &command.body
        {
            let transfer = transfer_id.clone();
            self.see(&Seen::Crm(&transfer));
        }
        self.give(EdgeInput::Command(Box::new(command)));
    }

    pub(super) fn pushed(&mut self, agent: HumanAgentId, push: &DesktopPush) {
        self.trace(|| format!("  page of {agent}: {}", house::push_name(push)));
        self.see(&Seen::Push(&agent, push));
        let painted = match push {
            DesktopPush::Card { transfer, payload } => Some((transfer.clone(), payload.revision)),
            DesktopPush::Accepted { transfer, revision } => Some((transfer.clone(), *revision)),
            _ => None,
        };
        let place = self.ids.iter().position(|id| *id == agent);
        let Some((place, (transfer, revision))) = place.zip(painted) else { return };
        let person = &self.plan.people[place];
        if let Some(ms) = person.paints_ms.filter(|_| person.desktop) {
            self.after(ms, Event::Paint(agent, transfer, revision));
        }
    }

    pub(super) fn open_door(&mut self, stream: StreamKey, call: CallId) {
        let Some(known) = self.calls.get_mut(&call) else { return };
        known.stream = Some(stream);
        let opens = self.plan.calls[known.place].voice_ms;
        self.streams.insert(stream, call);
        if let Some(ms) = opens {
            self.after(ms, Event::Door(stream));
        }
    }
}
