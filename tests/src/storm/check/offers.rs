//! Offers to people. I15: who says yes has the payload that is frozen by it, and the bridge
//! waits for a receipt or says why not. I16: as many offers as allowed, each as long as
//! allowed, and the next one at once. I17: only people of the directory are dialled, and only
//! when they are offered a call. I18: a person's own act comes before the bridge, and before
//! any private word to a phone that nobody vouches for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use handoff::call::DesktopPush;
use handoff::call::outcome::FallbackTaken;
use handoff::clock::Now;
use handoff::event::{CallEvent, Fact, Means};
use handoff::id::{CallId, HumanAgentId, LegId, TransferId};

use super::{Findings, Seen, Watch};
use crate::storm::house;
use crate::storm::plan::Plan;
use crate::storm::wire::Message;

/// The next offer follows a failed one so soon.
const NEXT_OFFER: Duration = Duration::from_millis(500);
/// What a report of the media plane may be late, and a tick.
const SLACK: Duration = Duration::from_millis(120);
/// How long the receipt is waited for.
const RECEIPT_WAIT: Duration = Duration::from_secs(3);

struct Person {
    ring: Duration,
    trusted: bool,
    accept_on_answer: bool,
}

#[derive(Default)]
struct Call {
    transfer: Option<TransferId>,
    attempts: u32,
    /// Attempts of the queues before the present one.
    before: u32,
    /// Who is offered the call on which leg, and when the phone was dialled.
    offer: Option<(HumanAgentId, LegId, Now)>,
    rings: bool,
    /// The last offer failed then, and nothing has followed.
    failed_at: Option<Now>,
    accepted: Option<(HumanAgentId, u32, Now)>,
    built: Option<Vec<u8>>,
}

/// See the module.
pub(super) struct Offers {
    attempts_max: u32,
    crm: bool,
    callers: usize,
    people: BTreeMap<HumanAgentId, Person>,
    calls: BTreeMap<CallId, Call>,
    /// Highest revision of a card, by person and transfer, and the bytes of the first.
    cards: BTreeMap<(HumanAgentId, TransferId), u32>,
    yes: BTreeSet<(CallId, LegId)>,
    said: BTreeSet<(HumanAgentId, TransferId)>,
    painted: BTreeMap<(HumanAgentId, TransferId), u32>,
    reported: BTreeSet<TransferId>,
    /// Offers whose INVITE has not been seen.
    to_dial: BTreeSet<HumanAgentId>,
    dialled: BTreeSet<String>,
}

impl Offers {
    pub(super) fn new(plan: &Plan) -> Self {
        let people = plan.people.iter().enumerate().map(|(place, person)| {
            let ring = Duration::from_secs(person.ring_s);
            let (trusted, accept_on_answer) = (person.trusted, person.accept_on_answer);
            (house::person_id(place), Person { ring, trusted, accept_on_answer })
        });
        Self {
            attempts_max: plan.house.attempts_max,
            crm: plan.house.crm_acknowledges,
            callers: plan.calls.len(),
            people: people.collect(),
            calls: BTreeMap::new(),
            cards: BTreeMap::new(),
            yes: BTreeSet::new(),
            said: BTreeSet::new(),
            painted: BTreeMap::new(),
            reported: BTreeSet::new(),
            to_dial: BTreeSet::new(),
            dialled: BTreeSet::new(),
        }
    }

    fn fact(&mut self, at: Now, event: &CallEvent, findings: &mut Findings) {
        let call = self.calls.entry(event.call.clone()).or_default();
        match &event.fact {
            Fact::TransferDecided { decision, .. } => {
                *call = Call { transfer: Some(decision.transfer_id.clone()), ..Call::default() };
            }
            Fact::AgentOffered { agent_id, attempt, leg } => {
                call.attempts += 1;
                if *attempt != call.attempts || *attempt > call.before + self.attempts_max {
                    let what = format!("attempt {attempt} of {}", self.attempts_max);
                    findings.add("I16", at, what);
                }
                (call.offer, call.rings) = (Some((agent_id.clone(), *leg, at)), true);
                (call.failed_at, call.accepted) = (None, None);
                self.to_dial.insert(agent_id.clone());
            }
            Fact::AgentAnswered { .. } => call.rings = false,
            Fact::AgentNoAnswer { agent_id, .. } => {
                let ring = self.people.get(agent_id).map_or(Duration::ZERO, |person| person.ring);
                if let Some((_, _, since)) = &call.offer
                    && at.since(*since) + SLACK < ring
                {
                    findings.add("I16", at, "the phone was given up before its time");
                }
                call.failed(at);
            }
            Fact::AgentDeclined { .. } => call.failed(at),
            Fact::FallbackChosen { kind, .. } => {
                call.failed_at = None;
                if *kind == FallbackTaken::Queue {
                    call.before = call.attempts;
                }
            }
            Fact::TransferEnded { .. } | Fact::CallerAbandoned { .. } => {
                (call.failed_at, call.rings) = (None, false);
            }
            Fact::PayloadBuilt { revision: 1, canonical, .. } => {
                call.built = canonical.as_ref().map(|bytes| bytes.expose().clone());
            }
            Fact::WhisperStarted { agent_id } => {
                let trusted = self.people.get(agent_id).is_some_and(|person| person.trusted);
                let there = call
                    .offer
                    .as_ref()
                    .is_some_and(|(_, leg, _)| self.yes.contains(&(event.call.clone(), *leg)));
                if !trusted && !there {
                    findings.add("I18", at, "a private word to a phone that nobody vouches for");
                }
            }
            Fact::AgentAccepted { agent_id, leg, method, revision } => {
                call.accepted = Some((agent_id.clone(), *revision, at));
                let transfer = call.transfer.clone();
                self.accepted(at, &event.call, transfer, agent_id, *leg, *method, *revision, findings);
            }
            Fact::BridgeCompleted { degraded, .. } => {
                self.bridged(at, &event.call, degraded.as_deref(), findings)
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one fact")]
    fn accepted(
        &self,
        at: Now,
        call: &CallId,
        transfer: Option<TransferId>,
        agent: &HumanAgentId,
        leg: LegId,
        method: Means,
        revision: u32,
        findings: &mut Findings,
    ) {
        let Some(transfer) = transfer else {
            findings.add("I18", at, "somebody accepted, and there is no transfer");
            return;
        };
        let key = (agent.clone(), transfer);
        let did = self.yes.contains(&(call.clone(), leg)) || self.said.contains(&key);
        let by_answering =
            self.people.get(agent).is_some_and(|person| person.trusted && person.accept_on_answer);
        if !did || (method == Means::SipAnswer && !by_answering) {
            findings.add("I18", at, format!("{agent} accepts by {method:?}, and did nothing"));
        }
        if revision == 0 || self.cards.get(&key).is_none_or(|card| *card < revision) {
            findings.add("I15", at, format!("{agent} accepts revision {revision} without its card"));
        }
    }

    fn bridged(&mut self, at: Now, call: &CallId, degraded: Option<&str>, findings: &mut Findings) {
        let Some(call) = self.calls.get_mut(call) else { return };
        let (Some((agent, revision, accepted_at)), Some(transfer)) =
            (call.accepted.clone(), call.transfer.clone())
        else {
            findings.add("I18", at, "a bridge, and nobody said yes");
            return;
        };
        let shown = self.painted.get(&(agent, transfer.clone())).is_some_and(|painted| *painted >= revision);
        let receipt = if self.crm { self.reported.contains(&transfer) } else { shown };
        match degraded {
            None if !receipt => findings.add("I15", at, "a bridge without a receipt, and not degraded"),
            Some("ack_timeout") if at.since(accepted_at) + SLACK < RECEIPT_WAIT => {
                findings.add("I15", at, "the receipt was given up before its time");
            }
            None | Some(_) => {}
        }
    }

    fn pushed(&mut self, at: Now, agent: &HumanAgentId, push: &DesktopPush, findings: &mut Findings) {
        let DesktopPush::Card { transfer, payload } = push else { return };
        let key = (agent.clone(), transfer.clone());
        let card = self.cards.entry(key).or_insert(0);
        *card = payload.revision.max(*card);
        let built = self.calls.get(&payload.call_id).and_then(|call| call.built.as_ref());
        if payload.revision == 1
            && let Some(built) = built
            && payload.canonical_bytes().ok().as_ref() != Some(built)
        {
            findings.add("I15", at, "the page gets other bytes than the record has");
        }
    }

    fn sent(&mut self, at: Now, peer: Option<usize>, message: &Message<'_>, findings: &mut Findings) {
        let opens = message.status.is_none() && message.method == "INVITE" && message.to_tag().is_empty();
        if !opens {
            return;
        }
        let person = peer.and_then(|peer| peer.checked_sub(self.callers)).map(house::person_id);
        let Some(person) = person else {
            findings.add("I17", at, format!("{} is dialled, which nobody has", message.uri));
            return;
        };
        if !self.dialled.insert(message.call_id.to_owned()) {
            return;
        }
        if !self.to_dial.remove(&person) {
            findings.add("I17", at, format!("{person} is dialled without an offer"));
        }
    }
}

impl Call {
    fn failed(&mut self, at: Now) {
        (self.failed_at, self.rings) = (Some(at), false);
    }
}

impl Watch for Offers {
    fn see(&mut self, at: Now, seen: &Seen<'_>, findings: &mut Findings) {
        match seen {
            Seen::Fact(event) => self.fact(at, event, findings),
            Seen::Push(agent, push) => self.pushed(at, agent, push, findings),
            Seen::Out(peer, message) => self.sent(at, *peer, message, findings),
            Seen::Yes(agent, leg, transfer) => {
                self.yes.extend(leg.map(|(call, leg)| (call.clone(), leg)));
                self.said.extend(transfer.map(|transfer| ((*agent).clone(), transfer.clone())));
            }
            Seen::Painted(agent, transfer, revision) => {
                let painted = self.painted.entry(((*agent).clone(), (*transfer).clone())).or_insert(0);
                *painted = (*revision).max(*painted);
            }
            Seen::Crm(transfer) => drop(self.reported.insert((*transfer).clone())),
            Seen::Forgotten(call) => drop(self.calls.remove(*call)),
            _ => {}
        }
    }

    fn pass(&mut self, at: Now, findings: &mut Findings) {
        for call in self.calls.values_mut() {
            if call.failed_at.is_some_and(|failed| at.since(failed) > NEXT_OFFER) {
                findings.add("I16", at, "an offer failed, and nothing followed");
                call.failed_at = None;
            }
            if let Some((agent, _, since)) = &call.offer
                && call.rings
                && let Some(person) = self.people.get(agent)
                && at.since(*since) > person.ring + SLACK
            {
                findings.add("I16", at, format!("{agent}'s phone rings for too long"));
                call.rings = false;
            }
        }
    }
}
