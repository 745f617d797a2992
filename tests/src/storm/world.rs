//! One seed, played: the real edge (router, call machines, SIP stack) between phones that
//! speak SIP as bytes, a media plane that keeps its contract, voice agents, pages, functions
//! and a CRM, all in virtual time that jumps from one event to the next. It carries things
//! to and fro and lets people act; it judges nothing.

mod deeds;
mod functions;
mod people;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use edge_media::edge::{Edge, EdgeInput, EdgeOutput};
use edge_media::media::{MediaCommand, MediaEvent, Port, StreamKey};
use edge_media::sip::{Flow, Transport};
use handoff::call::media::MediaReport;
use handoff::call::outcome::LegCause;
use handoff::clock::{Moment, Now, Timestamp};
use handoff::command::Command;
use handoff::id::{CallId, HumanAgentId, LegId, TransferId};

use super::chance::Chance;
use super::check::{Findings, Seen, Violation, Watch, short, watches};
use super::house;
use super::media::{Follows, Plane};
use super::peer::{Effects, Peer, Timer};
use super::plan::{Plan, Yes};
use super::sabotage::{Bug, Saboteur};
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

    // --- What happens ------------------------------------------------------------------------------

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToEdge(peer, bytes) => self.reach_edge(peer, bytes),
            Event::ToPeer(peer, bytes) => {
                let plan = self.plan;
                let callers = plan.calls.len();
                let late = |dialog: usize| {
                    let person = peer.checked_sub(callers).and_then(|person| plan.people.get(person));
                    person.is_some_and(|person| people::habit_of(&person.habits, dialog).late)
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
            Event::Order(command) => self.order_arrives(command),
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
}
