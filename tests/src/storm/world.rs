//! One seed, played: the real edge (router, call machines, SIP stack) between phones that
//! speak SIP as bytes, a media plane that keeps its contract, voice agents, pages, functions
//! and a CRM, all in virtual time that jumps from one event to the next. It carries things
//! to and fro and lets people act; it judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use edge_media::edge::{Edge, EdgeInput, EdgeOutput};
use edge_media::media::{MediaCommand, MediaEvent, Port, StreamKey};
use edge_media::sip::{Flow, Transport};
use handoff::call::DesktopPush;
use handoff::call::media::MediaReport;
use handoff::call::outcome::LegCause;
use handoff::clock::{Moment, Now, Timestamp};
use handoff::command::{Command, CommandBody};
use handoff::event::{CallEvent, Fact, Means};
use handoff::id::{CallId, DecisionId, HumanAgentId, LegId, TransferId};
use handoff::policy::{Decision, Origin};

use super::chance::Chance;
use super::check::{Findings, Seen, Violation, Watch, short, watches};
use super::house;
use super::media::{Follows, Plane};
use super::peer::{Effects, News, Peer, Stand, Timer};
use super::plan::{Deed, First, Habit, Plan, Say, What, Yes};
use super::sabotage::{Bug, Saboteur};
use super::voice;
use super::wire::Message;

/// A seed that needs more events than this runs in a circle.
const EVENTS_MAX: u64 = 60_000;

/// Every call is over so long after the last caller's patience. The longest way there is a
/// vanished caller who is held while three phones ring and a machine answers each.
const CALLS_END: Duration = Duration::from_secs(420);

/// How long a recording takes to lie on disk, ms.
const STORED_MS: u64 = 40;

/// What the last requests take on the wire: one transaction, and an answer to it.
const WIRE_SETTLES: Duration = Duration::from_secs(70);

/// How a seed went.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was broken; empty is well.
    pub violations: Vec<Violation>,
    /// Events played.
    pub events: u64,
    /// A digest over everything that crossed the edge's border: equal for equal runs.
    pub digest: u64,
    /// The trace, where one was asked for.
    pub trace: Vec<String>,
    /// Facts by type: what the storm reaches.
    pub facts: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
enum Event {
    ToEdge(usize, Vec<u8>),
    ToPeer(usize, Vec<u8>),
    PeerTimer(usize, Timer),
    Report(MediaEvent),
    Media(CallId),
    Dial(usize),
    Patience(usize),
    Deed(usize),
    Order(Command),
    Door(StreamKey),
    DoorGone(StreamKey, LegCause),
    Paint(HumanAgentId, TransferId, u32),
    Page(usize, bool),
    Human(usize, usize, Act),
    Unhold(usize, usize),
    Unmute(usize, usize),
    Stored(CallId, LegId),
}

/// What a human agent does next with a dialog.
#[derive(Clone, Copy, Debug)]
enum Act {
    Ring,
    Answer,
    Refuse(u16),
    Yes(Yes, u32),
    No(Yes),
    Bye,
    Vanish,
    Mute(u64),
    Hold(u64),
    HandBack,
}

/// What the world knows of one call.
struct Known {
    /// Its place in the plan.
    place: usize,
    stream: Option<StreamKey>,
    facts: BTreeMap<&'static str, u32>,
    signals: u32,
    orders: Vec<Command>,
    transfer: Option<TransferId>,
    reported: Now,
    /// The next wake of its media that is filed.
    wake: Option<Now>,
}

/// See the module.
pub struct World<'a> {
    plan: &'a Plan,
    now: Now,
    edge: Edge,
    chance: Chance,
    queue: BTreeMap<(Now, u64), Event>,
    filed: u64,
    peers: Vec<Peer>,
    plane: Plane,
    calls: BTreeMap<CallId, Known>,
    streams: BTreeMap<StreamKey, CallId>,
    recorded: BTreeSet<(CallId, LegId)>,
    ids: Vec<HumanAgentId>,
    next_port: u16,
    calm: Now,
    saboteur: Saboteur,
    watches: Vec<Box<dyn Watch>>,
    findings: Findings,
    verdict: Verdict,
    tracing: bool,
    /// The caller whose INVITE is at the edge's door.
    arriving: Option<usize>,
}

/// Plays a plan, with a planted bug or without, and judges it.
pub fn play(plan: &Plan, bug: Option<Bug>, tracing: bool) -> Verdict {
    let mut world = World::new(plan, bug, tracing);
    world.run();
    let mut verdict = world.verdict;
    verdict.violations = world.findings.0;
    verdict
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, bug: Option<Bug>, tracing: bool) -> Self {
        let saboteur = Saboteur::new(bug);
        let mut peers: Vec<Peer> = Vec::new();
        for (place, caller) in plan.calls.iter().enumerate() {
            let mut peer = Peer::new(house::caller_address(place), &format!("+1555555014{place}"));
            peer.reinvite = caller.reinvite;
            peer.acks = caller.acks;
            peers.push(peer);
        }
        for place in 0..plan.people.len() {
            peers.push(Peer::new(house::person_address(place), &house::person_name(place)));
        }
        let ids = (0..plan.people.len()).map(house::person_id).collect();
        let plane = Plane::new(
            Duration::from_millis(plan.house.clip_ms),
            Duration::from_millis(plan.house.speech_ms),
        );
        let last = plan.calls.iter().map(|caller| caller.at_ms + caller.patience_ms).max().unwrap_or(0);
        let mut world = Self {
            plan,
            now: Now::from_millis(1_000),
            edge: Edge::new(
                house::edge_config(plan, saboteur.extra_attempts(), saboteur.ring_factor()),
                u128::from(plan.seed) << 64 | 7,
            ),
            chance: Chance::new(plan.seed ^ 0x5707_1234),
            queue: BTreeMap::new(),
            filed: 0,
            peers,
            plane,
            calls: BTreeMap::new(),
            streams: BTreeMap::new(),
            recorded: BTreeSet::new(),
            ids,
            next_port: 20_000,
            calm: Now::from_millis(1_000 + last),
            saboteur,
            watches: watches(plan),
            findings: Findings::default(),
            verdict: Verdict {
                violations: Vec::new(),
                events: 0,
                digest: 0xcbf2_9ce4_8422_2325,
                trace: Vec::new(),
                facts: BTreeMap::new(),
            },
            tracing,
            arriving: None,
        };
        world.give(EdgeInput::Timeout);
        house::register(plan, world.now, &mut world.edge);
        for (place, person) in plan.people.iter().enumerate() {
            if person.desktop {
                world.give(EdgeInput::DesktopPresence(world.ids[place].clone(), true));
            }
        }
        for (place, caller) in plan.calls.iter().enumerate() {
            world.after(caller.at_ms, Event::Dial(place));
            world.after(caller.at_ms + caller.patience_ms, Event::Patience(place));
        }
        world
    }

    fn run(&mut self) {
        let limit = self.calm + CALLS_END;
        let mut settles: Option<Now> = None;
        while self.findings.0.is_empty() {
            let all_over = self.calls.is_empty() && self.now >= self.calm;
            if all_over && settles.is_none() {
                settles = Some(self.now + WIRE_SETTLES);
            }
            let until = settles.unwrap_or(limit);
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self.edge.next_timeout().map(|at| at.max(self.now));
            let Some(next) = event.into_iter().chain(timer).min().filter(|next| *next <= until) else {
                break;
            };
            self.verdict.events += 1;
            if self.verdict.events > EVENTS_MAX {
                self.findings.add("L1", self.now, "the seed runs in a circle");
                break;
            }
            self.now = next;
            self.watch_time();
            if timer == Some(next) {
                self.give(EdgeInput::Timeout);
            } else if let Some((_, event)) = self.queue.pop_first() {
                self.happen(event);
            }
        }
        if self.findings.0.is_empty() {
            self.close();
        }
    }

    /// The end: everything has to be over.
    fn close(&mut self) {
        let at = self.now;
        for (call, _) in self.edge.standings() {
            self.findings.add("L1", at, format!("{} never ended", short(call)));
        }
        for peer in &self.peers {
            if peer.open() > 0 {
                let what = format!("{} is left with {} open dialogs", peer.sip, peer.open());
                self.findings.add("I7", at, what);
            }
            if peer.unacknowledged() > 0 {
                self.findings.add("I7", at, format!("an answer of {} was never acknowledged", peer.sip));
            }
        }
        if self.plane.open() > 0 {
            self.findings.add("I10", at, "the media plane is left with legs");
        }
        for watch in &mut self.watches {
            watch.end(at, &mut self.findings);
        }
    }

    fn watch_time(&mut self) {
        for watch in &mut self.watches {
            watch.pass(self.now, &mut self.findings);
        }
    }

    fn see(&mut self, seen: &Seen<'_>) {
        for watch in &mut self.watches {
            watch.see(self.now, seen, &mut self.findings);
        }
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            self.verdict.trace.push(format!("{:>8} {}", self.now.millis(), line()));
        }
    }

    fn digest(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.verdict.digest = (self.verdict.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let millis = self.now.micros();
        self.verdict.digest = (self.verdict.digest ^ millis).wrapping_mul(0x0100_0000_01b3);
    }

    fn after(&mut self, ms: u64, event: Event) {
        let at = self.now + Duration::from_millis(ms);
        self.at(at, event);
    }

    fn at(&mut self, at: Now, event: Event) {
        self.filed += 1;
        self.queue.insert((at, self.filed), event);
    }

    fn moment(&self) -> Moment {
        let wall = 1_795_330_800_000 + i64::try_from(self.now.millis()).unwrap_or(i64::MAX);
        Moment { now: self.now, wall: Timestamp::from_unix_millis(wall) }
    }

    // --- The edge's border ---------------------------------------------------------------------

    fn give(&mut self, input: EdgeInput) {
        let (shift, input) = self.saboteur.input(input);
        if let Some(input) = input {
            let moment = self.moment();
            let outputs = self.edge.handle(Moment { now: moment.now + shift, ..moment }, input);
            for output in self.saboteur.outputs(self.now, outputs) {
                self.carry(output);
            }
        }
        if self.saboteur.reloads() {
            self.reload(true);
        }
        while let Some(input) = self.saboteur.inject() {
            self.give(input);
        }
    }

    fn carry(&mut self, output: EdgeOutput) {
        match output {
            EdgeOutput::Send(flow, bytes) => self.sent(flow, bytes),
            EdgeOutput::Media(command) => {
                self.trace(|| format!("  media {command:?}"));
                self.see(&Seen::Media(&command));
                if let MediaCommand::Close { call, leg } = &command
                    && self.recorded.remove(&(call.clone(), *leg))
                {
                    self.after(STORED_MS, Event::Stored(call.clone(), *leg));
                } else if let MediaCommand::Record { call, leg, on: true } = &command {
                    self.recorded.insert((call.clone(), *leg));
                }
                let mut follows = Follows::default();
                self.plane.command(self.now, &command, &mut follows);
                if let MediaCommand::Open { call, leg: LegId::CALLER, .. } = &command {
                    self.arrived(call.clone());
                }
                self.follow(follows);
            }
            EdgeOutput::OpenDoor { stream, call } => self.open_door(stream, call),
            EdgeOutput::CloseDoor(stream) => {
                if let Some(call) = self.streams.remove(&stream) {
                    self.see(&Seen::Door(&call, false));
                    if let Some(known) = self.calls.get_mut(&call)
                        && known.stream == Some(stream)
                    {
                        known.stream = None;
                    }
                }
            }
            EdgeOutput::Desktop(agent, push) => self.pushed(agent, &push),
            EdgeOutput::Fact(event) => self.recorded(*event),
            EdgeOutput::NeedPorts(count) => self.bind(count),
            EdgeOutput::Forget(call) => {
                self.trace(|| format!("  forget {}", short(&call)));
                self.see(&Seen::Forgotten(&call));
                self.calls.remove(&call);
            }
            // Speech is always ready here, recordings lie nowhere, and what the edge decided
            // itself is in its facts.
            _ => {}
        }
    }

    /// Fresh ports; none is used twice, since no seed lasts as long as a port rests.
    fn bind(&mut self, count: usize) {
        let mut ports = Vec::new();
        for _ in 0..count {
            ports.push(Port(self.next_port));
            self.next_port = self.next_port.wrapping_add(2);
        }
        self.give(EdgeInput::Ports(ports));
    }

    fn sent(&mut self, flow: Flow, bytes: Vec<u8>) {
        let peer = self.peers.iter().position(|peer| peer.sip == flow.peer);
        self.digest(&bytes);
        let Some(message) = Message::parse(&bytes) else { return };
        self.trace(|| format!("  edge -> {} {}", flow.peer, message.summary()));
        self.see(&Seen::Out(peer, &message));
        if let Some(peer) = peer {
            self.travel(Event::ToPeer(peer, bytes));
        }
    }

    /// Puts a datagram onto the network. Once faults have stopped, it is perfect.
    fn travel(&mut self, event: Event) {
        let net = self.plan.net;
        let calm = self.now >= self.calm;
        let copies = if calm {
            1
        } else if self.chance.per_mille(net.lost_pm) {
            0
        } else {
            1 + u64::from(self.chance.per_mille(net.twice_pm))
        };
        for _ in 1..copies {
            let copy = match &event {
                Event::ToEdge(peer, bytes) => Event::ToEdge(*peer, bytes.clone()),
                Event::ToPeer(peer, bytes) => Event::ToPeer(*peer, bytes.clone()),
                _ => return,
            };
            let delay = net.delay_ms + self.chance.below(net.jitter_ms + 1);
            self.after(delay.max(1), copy);
        }
        if copies > 0 {
            let delay = net.delay_ms + if calm { 0 } else { self.chance.below(net.jitter_ms + 1) };
            self.after(delay.max(1), event);
        }
    }

    fn follow(&mut self, follows: Follows) {
        let Follows { reports, heard, refused } = follows;
        let mut touched: Vec<CallId> = Vec::new();
        for (call, leg, ear) in heard {
            self.trace(|| format!("  {} {leg} hears {ear:?}", short(&call)));
            self.see(&Seen::Hears(&call, leg, &ear));
            touched.push(call);
        }
        for what in refused {
            self.see(&Seen::Refused(&what));
        }
        for event in reports {
            if let MediaReport::PlayEnded { play, played_pm } = event.report {
                self.see(&Seen::Played(&event.call, play, played_pm));
            }
            let due = self.now + Duration::from_millis(self.plan.house.reports_ms);
            let due = self.calls.get_mut(&event.call).map_or(due, |known| {
                known.reported = due.max(known.reported);
                known.reported
            });
            touched.push(event.call.clone());
            self.at(due, Event::Report(event));
        }
        for call in touched {
            self.wake(call);
        }
    }

    /// Files the next moment at which something is due in the media of a call.
    fn wake(&mut self, call: CallId) {
        let Some(next) = self.plane.next(&call) else { return };
        if let Some(known) = self.calls.get_mut(&call)
            && known.wake.is_none_or(|filed| filed > next || filed <= self.now)
        {
            known.wake = Some(next);
            self.at(next, Event::Media(call));
        }
    }

    fn arrived(&mut self, call: CallId) {
        let Some(place) = self.arriving else { return };
        let known = Known {
            place,
            stream: None,
            facts: BTreeMap::new(),
            signals: 0,
            orders: Vec::new(),
            transfer: None,
            reported: self.now,
            wake: None,
        };
        let drain = Duration::from_millis(self.plan.calls[place].drain_ms);
        self.plane.set_drain(&call, drain);
        self.calls.insert(call.clone(), known);
        self.trigger(&call, "", 1);
    }

    // --- What the edge says to its neighbours ----------------------------------------------------

    fn recorded(&mut self, event: CallEvent) {
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
    fn functions(&mut self, place: usize, event: &CallEvent) {
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

    fn order(&mut self, ms: u64, copies: u64, call: &CallId, body: CommandBody, number: u64) {
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

    fn pushed(&mut self, agent: HumanAgentId, push: &DesktopPush) {
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

    fn open_door(&mut self, stream: StreamKey, call: CallId) {
        let Some(known) = self.calls.get_mut(&call) else { return };
        known.stream = Some(stream);
        let opens = self.plan.calls[known.place].voice_ms;
        self.streams.insert(stream, call);
        if let Some(ms) = opens {
            self.after(ms, Event::Door(stream));
        }
    }

    // --- What happens ------------------------------------------------------------------------------

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToEdge(peer, bytes) => self.reach_edge(peer, bytes),
            Event::ToPeer(peer, bytes) => {
                let plan = self.plan;
                let callers = plan.calls.len();
                let late = |dialog: usize| {
                    let person = peer.checked_sub(callers).and_then(|person| plan.people.get(person));
                    person.is_some_and(|person| habit_of(&person.habits, dialog).late)
                };
                let mut effects = Effects::default();
                self.peers[peer].receive(&bytes, late, &mut effects);
                self.effects(peer, effects);
            }
            Event::PeerTimer(peer, timer) => {
                let mut effects = Effects::default();
                self.peers[peer].timer(timer, &mut effects);
                self.effects(peer, effects);
            }
            Event::Report(event) => {
                self.trace(|| format!("report {} {:?}", short(&event.call), event.report));
                self.give(EdgeInput::Media(event));
            }
            Event::Media(call) => {
                if let Some(known) = self.calls.get_mut(&call) {
                    known.wake = None;
                }
                let mut follows = Follows::default();
                self.plane.advance(self.now, &call, &mut follows);
                self.follow(follows);
                self.wake(call);
            }
            Event::Dial(place) => {
                self.trace(|| format!("caller {place} dials"));
                let mut effects = Effects::default();
                self.peers[place].dial(self.plan.calls[place].offers, &mut effects);
                self.effects(place, effects);
            }
            Event::Patience(place) => self.caller_leaves(place),
            Event::Deed(index) => {
                let plan = self.plan;
                if let Some(deed) = plan.deeds.get(index) {
                    self.act(deed);
                }
            }
            Event::Order(command) => {
                self.trace(|| format!("command {}", command.id));
                if let CommandBody::PayloadAcknowledged { transfer_id, .. }
                | CommandBody::PayloadUndelivered { transfer_id, .. } = &command.body
                {
                    let transfer = transfer_id.clone();
                    self.see(&Seen::Crm(&transfer));
                }
                self.give(EdgeInput::Command(Box::new(command)));
            }
            Event::Door(stream) => {
                if let Some(call) = self.streams.get(&stream).cloned() {
                    self.see(&Seen::Door(&call, true));
                    self.give(EdgeInput::DoorOpened(stream));
                }
            }
            Event::DoorGone(stream, cause) => {
                if let Some(call) = self.streams.remove(&stream) {
                    self.trace(|| format!("the voice agent of {} is gone: {cause:?}", short(&call)));
                    self.see(&Seen::Door(&call, false));
                    self.give(EdgeInput::DoorClosed(stream, cause));
                }
            }
            Event::Paint(agent, transfer, revision) => {
                self.trace(|| format!("{agent} sees revision {revision}"));
                self.see(&Seen::Painted(&agent, &transfer, revision));
                self.give(EdgeInput::DesktopAcked(agent, transfer, revision));
            }
            Event::Page(place, there) => {
                if let Some(id) = self.ids.get(place).cloned() {
                    self.give(EdgeInput::DesktopPresence(id, there));
                }
            }
            Event::Human(peer, dialog, act) => self.human(peer, dialog, act),
            Event::Unhold(peer, dialog) => {
                let mut effects = Effects::default();
                self.peers[peer].hold(dialog, false, &mut effects);
                self.effects(peer, effects);
            }
            Event::Unmute(peer, dialog) => self.mute(peer, dialog, false),
            Event::Stored(call, leg) => self.give(house::stored(call, leg)),
        }
    }

    fn reach_edge(&mut self, peer: usize, bytes: Vec<u8>) {
        let from = self.peers[peer].sip;
        if let Some(message) = Message::parse(&bytes) {
            self.trace(|| format!("{from} -> edge {}", message.summary()));
            self.see(&Seen::In(peer, &message));
            if message.status.is_some() {
                self.peers[peer].reached(message.call_id);
            }
        }
        let flow = Flow { transport: Transport::Udp, peer: from, connection: 0 };
        self.arriving = (peer < self.plan.calls.len()).then_some(peer);
        self.give(EdgeInput::Bytes(flow, bytes));
        self.arriving = None;
    }

    fn effects(&mut self, peer: usize, effects: Effects) {
        let Effects { sent, timers, news } = effects;
        for bytes in sent {
            self.travel(Event::ToEdge(peer, bytes));
        }
        for (after, timer) in timers {
            let at = self.now + after;
            self.at(at, Event::PeerTimer(peer, timer));
        }
        for news in news {
            match news {
                News::Invited(dialog) => self.invited(peer, dialog),
                News::Answered(dialog) | News::Flow(dialog) => self.flow(peer, dialog),
                News::Cancelled(_) => {}
            }
        }
    }

    fn flow(&mut self, peer: usize, dialog: usize) {
        let Some(known) = self.peers[peer].dialogs.get(dialog) else { return };
        let (Some(port), flows) = (known.edge_port, known.flows()) else { return };
        let mut follows = Follows::default();
        let call = self.plane.leg_of(port).map(|(call, _)| call.clone());
        self.plane.flow(self.now, port, flows, &mut follows);
        self.follow(follows);
        if let Some(call) = call {
            self.wake(call);
        }
    }

    fn invited(&mut self, peer: usize, dialog: usize) {
        let Some(place) = peer.checked_sub(self.plan.calls.len()) else { return };
        let habit = habit_of(&self.plan.people[place].habits, dialog);
        let mut effects = Effects::default();
        match habit.first {
            First::Dead => {}
            First::Trying => self.peers[peer].provisional(dialog, 100, &mut effects),
            First::Rings => self.after(30, Event::Human(peer, dialog, Act::Ring)),
            First::Answers(ms) => {
                self.peers[peer].provisional(dialog, 180, &mut effects);
                self.after(ms.max(1), Event::Human(peer, dialog, Act::Answer));
            }
            First::Refuses(status, ms) => {
                self.peers[peer].provisional(dialog, 100, &mut effects);
                self.after(ms, Event::Human(peer, dialog, Act::Refuse(status)));
            }
        }
        self.effects(peer, effects);
    }

    fn human(&mut self, peer: usize, dialog: usize, act: Act) {
        let place = peer - self.plan.calls.len();
        let habit = habit_of(&self.plan.people[place].habits, dialog);
        let mut effects = Effects::default();
        let up = self.peers[peer].dialogs.get(dialog).is_some_and(|known| known.stand == Stand::Up);
        let live = up && !self.peers[peer].vanished;
        match act {
            Act::Ring => self.peers[peer].provisional(dialog, 180, &mut effects),
            Act::Answer => {
                let early = self.peers[peer].dialogs.get(dialog).map(|known| known.stand);
                if early == Some(Stand::Early) && !self.peers[peer].vanished {
                    if self.plan.people[place].accept_on_answer && self.plan.people[place].trusted {
                        self.says_yes(peer, dialog, place);
                    }
                    let phones = if habit.forks { 2 } else { 1 };
                    self.peers[peer].answer(dialog, phones, &mut effects);
                    self.acts_after_answer(peer, dialog, habit);
                }
            }
            Act::Refuse(status) => self.peers[peer].refuse(dialog, status, &mut effects),
            Act::Yes(way, left) if live => {
                self.says_yes(peer, dialog, place);
                self.say(peer, dialog, place, way, '1', &mut effects);
                if left > 0 {
                    self.after(2_500, Event::Human(peer, dialog, Act::Yes(way, left - 1)));
                }
            }
            Act::No(way) if live => self.say(peer, dialog, place, way, '2', &mut effects),
            Act::Bye if live => self.peers[peer].hang_up(dialog, &mut effects),
            Act::Vanish => {
                self.trace(|| "a human agent's phone vanishes".to_owned());
                self.peers[peer].vanish(&mut effects);
            }
            Act::Mute(ms) => {
                self.mute(peer, dialog, true);
                self.after(ms, Event::Unmute(peer, dialog));
            }
            Act::Hold(ms) if live => {
                self.peers[peer].hold(dialog, true, &mut effects);
                self.after(ms, Event::Unhold(peer, dialog));
            }
            Act::HandBack if live => {
                if let Some(transfer) = self.transfer_of(peer, dialog) {
                    self.give(EdgeInput::HandBack(self.ids[place].clone(), transfer));
                }
            }
            Act::Yes(..) | Act::No(_) | Act::Bye | Act::Hold(_) | Act::HandBack => {}
        }
        self.effects(peer, effects);
    }

    fn acts_after_answer(&mut self, peer: usize, dialog: usize, habit: Habit) {
        let then = habit.then;
        let acts = [
            then.yes.map(|(ms, way)| (ms, Act::Yes(way, 4))),
            then.no.map(|(ms, way)| (ms, Act::No(way))),
            then.bye.map(|ms| (ms, Act::Bye)),
            then.vanishes.map(|ms| (ms, Act::Vanish)),
            then.mute.map(|(ms, long)| (ms, Act::Mute(long))),
            then.hold.map(|(ms, long)| (ms, Act::Hold(long))),
            then.hand_back.map(|ms| (ms, Act::HandBack)),
            // Nobody stays on a telephone for ever.
            Some((90_000, Act::Bye)),
        ];
        for (ms, act) in acts.into_iter().flatten() {
            self.after(ms.max(1), Event::Human(peer, dialog, act));
        }
    }

    fn leg_of(&self, peer: usize, dialog: usize) -> Option<(CallId, LegId)> {
        let port = self.peers[peer].dialogs.get(dialog)?.edge_port?;
        self.plane.leg_of(port).cloned()
    }

    fn transfer_of(&self, peer: usize, dialog: usize) -> Option<TransferId> {
        let (call, _) = self.leg_of(peer, dialog)?;
        self.calls.get(&call)?.transfer.clone()
    }

    fn says_yes(&mut self, peer: usize, dialog: usize, place: usize) {
        let leg = self.leg_of(peer, dialog);
        let transfer = self.transfer_of(peer, dialog);
        let agent = self.ids[place].clone();
        let leg = leg.as_ref().map(|(call, leg)| (call, *leg));
        self.trace(|| format!("{agent} says yes"));
        self.see(&Seen::Yes(&agent, leg, transfer.as_ref()));
    }

    /// A yes or a no reaches the edge by key or button.
    fn say(&mut self, peer: usize, dialog: usize, place: usize, way: Yes, key: char, out: &mut Effects) {
        match way {
            Yes::Info => self.peers[peer].info(dialog, key, out),
            Yes::Key => {
                if let Some((call, leg)) = self.leg_of(peer, dialog) {
                    let report = MediaReport::Digit { leg, digit: key };
                    let event = MediaEvent { at: self.now, call, report };
                    self.give(EdgeInput::Media(event));
                }
            }
            Yes::Button => {
                let agent = self.ids[place].clone();
                if let Some(transfer) = self.transfer_of(peer, dialog) {
                    let input = if key == '1' {
                        EdgeInput::Accept(agent, transfer, Means::Ui)
                    } else {
                        house::decline(agent, transfer)
                    };
                    self.give(input);
                }
            }
        }
    }

    fn mute(&mut self, peer: usize, dialog: usize, mute: bool) {
        let vanished = self.peers[peer].vanished;
        if let Some(known) = self.peers[peer].dialogs.get_mut(dialog) {
            known.mute = mute || vanished;
        }
        self.flow(peer, dialog);
    }

    fn caller_leaves(&mut self, place: usize) {
        self.trace(|| format!("caller {place} leaves"));
        let mut effects = Effects::default();
        if !self.peers[place].dialogs.is_empty() {
            self.peers[place].hang_up(0, &mut effects);
        }
        self.effects(place, effects);
    }

    // --- Deeds ---------------------------------------------------------------------------------------

    fn trigger(&mut self, call: &CallId, fact: &'static str, nth: u32) {
        let Some(place) = self.calls.get(call).map(|known| known.place) else { return };
        let plan = self.plan;
        for (index, deed) in plan.deeds.iter().enumerate() {
            if deed.call == place && deed.when.fact == fact && deed.when.nth == nth {
                self.after(deed.when.after_ms, Event::Deed(index));
            }
        }
    }

    fn act(&mut self, deed: &Deed) {
        let place = deed.call;
        self.trace(|| format!("deed {:?}", deed.what));
        let call = self.calls.iter().find(|(_, known)| known.place == place).map(|(call, _)| call.clone());
        let mut effects = Effects::default();
        match deed.what {
            What::CallerLeaves => self.caller_leaves(place),
            What::CallerVanishes => self.peers[place].vanish(&mut effects),
            What::CallerHolds(ms) => {
                self.peers[place].hold(0, true, &mut effects);
                self.after(ms, Event::Unhold(place, 0));
            }
            What::CallerMute(ms) => {
                self.mute(place, 0, true);
                self.after(ms, Event::Unmute(place, 0));
            }
            What::CallerKey(digit) => {
                if let Some(call) = call {
                    let report = MediaReport::Digit { leg: LegId::CALLER, digit };
                    self.give(EdgeInput::Media(MediaEvent { at: self.now, call, report }));
                }
            }
            What::VoiceSays(say) => self.voice_says(call, say),
            What::VoiceGone(cause) => {
                let stream = call.and_then(|call| self.calls.get(&call)?.stream);
                if let Some(stream) = stream {
                    self.at(self.now, Event::DoorGone(stream, cause));
                }
            }
            What::CloudCancels => {
                if let Some((call, transfer_id)) =
                    call.and_then(|call| Some((call.clone(), self.calls.get(&call)?.transfer.clone()?)))
                {
                    self.order(0, 2, &call, CommandBody::TransferCancel { transfer_id }, self.now.micros());
                }
            }
            What::CloudRepeats => {
                let orders = call.and_then(|call| Some(self.calls.get(&call)?.orders.clone()));
                for command in orders.unwrap_or_default() {
                    self.give(EdgeInput::Command(Box::new(command)));
                }
            }
            What::StrayAccept => self.stray_accept(),
            What::PageGone(place, ms) => {
                if self.plan.people.get(place).is_some_and(|person| person.desktop) {
                    self.at(self.now, Event::Page(place, false));
                    self.after(ms, Event::Page(place, true));
                }
            }
            What::Reload => self.reload(false),
            What::Drain => self.give(EdgeInput::Drain),
            What::Stop => {
                self.see(&Seen::Operator);
                self.give(EdgeInput::Stop);
            }
        }
        self.effects(place, effects);
    }

    /// Everybody presses accept for a transfer that is over or never was.
    fn stray_accept(&mut self) {
        for agent in self.ids.clone() {
            let transfer = TransferId::of(&CallId::from_random(1), 1);
            self.give(EdgeInput::Accept(agent, transfer, Means::Api));
        }
    }

    fn voice_says(&mut self, call: Option<CallId>, say: Say) {
        let Some(known) = call.and_then(|call| self.calls.get_mut(&call)) else { return };
        known.signals += 1;
        let (stream, signal) = (known.stream, voice::signal(say, known.signals));
        if let Some(stream) = stream {
            self.give(EdgeInput::DoorSignal(stream, Box::new(signal)));
        }
    }

    /// The configuration is read anew; `careless` forgets who is busy.
    fn reload(&mut self, careless: bool) {
        let mut configs = vec![house::edge_config(self.plan, 0, 1)];
        if careless {
            let mut nobody = house::edge_config(self.plan, 0, 1);
            nobody.people.clear();
            configs.insert(0, nobody);
        }
        for config in configs {
            self.give(EdgeInput::Reload(Box::new(config)));
        }
    }
}

/// The habit for a phone's n-th call.
fn habit_of(habits: &[Habit], nth: usize) -> Habit {
    let last = habits.len().saturating_sub(1);
    habits.get(nth.min(last)).copied().unwrap_or_else(|| Habit {
        first: First::Rings,
        then: super::plan::Then::default(),
        late: false,
        forks: false,
    })
}
