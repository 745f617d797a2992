//! The router: bytes, timers, commands and reports in; bytes, orders and facts out. It binds
//! the legs that the call machine knows by number to SIP dialogs, ports and streams, and
//! carries the machine's orders out in their order. Pure: no socket, clock, thread or disk.
//! RTP never passes through here, and no decision about a transfer is taken here.

mod debug;
pub mod directory;
mod orders;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use handoff::call::media::{MediaReport, Prompt};
use handoff::call::outcome::LegCause;
use handoff::call::{Arrival, Call, CallRules, DesktopPush, Input, Output, Standing, Waiting};
use handoff::clock::{Moment, Now};
use handoff::command::Command;
use handoff::conversation::CallerIdentity;
use handoff::event::{CallEvent, DeclineReason, Evaluable, Means, StoredRecording};
use handoff::id::{CallId, HumanAgentId, LegId, QueueId, TransferId};
use handoff::pii::Pii;
use handoff::policy::Decision;
use handoff::signal::Signal;

use crate::edge::directory::{Directory, Members, Person, Staffing};
use crate::media::{Carrier, MediaCommand, MediaEvent, Port, StreamKey};
use crate::sip::{
    CertificateFault, DialogKey, Direction, Flow, LocalMedia, Origin, RemoteMedia, SipCommand, SipConfig,
    SipEvent, SipOutput, Stack, UplinkNews, UplinkState,
};

/// Ports held ready ahead of use. A call takes two (caller and human agent); the shell
/// refills whenever the stock falls below this.
pub const PORT_STOCK: usize = 32;

/// How long a stock that could not be filled is left as it is. A port rests for half a minute
/// behind its leg, so asking much more often would search a used-up range in vain.
const RESTOCK_WAIT: Duration = Duration::from_secs(5);

/// What holds for calls that arrive from now on.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Rules that a call is pinned to.
    pub rules: Arc<CallRules>,
    /// Address in our SDP.
    pub media_ip: IpAddr,
    /// Trunks and users of the SIP stack.
    pub sip: SipConfig,
    /// Type of call by trunk name.
    pub call_types: BTreeMap<String, String>,
    /// The directory.
    pub people: Vec<Person>,
    /// Its queues.
    pub queues: Vec<Members>,
    /// Key of the caller tag (a pseudonym; the number itself is never recorded).
    pub tag_key: Pii<[u8; 32]>,
    /// Running calls at most. More are refused with 503 before running ones suffer.
    pub calls_max: usize,
    /// Where the functions send this edge's commands, as every event says; empty where they
    /// run in this process.
    pub commands: String,
}

/// What reaches the edge.
pub enum EdgeInput {
    /// One UDP datagram, bytes of one TCP connection, or one frame of a WebSocket.
    Bytes(Flow, Vec<u8>),
    /// A connection ended.
    ConnectionClosed(Flow),
    /// The far end of a connection has shown a certificate, which was verified.
    Vouched {
        /// The connection.
        flow: Flow,
        /// The names in the certificate.
        names: Vec<String>,
        /// We dialled, and one of them is the name that was dialled.
        dialled: bool,
    },
    /// The media plane reports.
    Media(MediaEvent),
    /// The voice agent's link is open.
    DoorOpened(StreamKey),
    /// The voice agent said something.
    DoorSignal(StreamKey, Box<Signal>),
    /// A signal about a call that did not come by its voice agent's link.
    CallSignal(CallId, Box<Signal>),
    /// Nothing comes by the voice agent's link any more, or it comes again.
    DoorSilent(StreamKey, bool),
    /// The voice agent's link is gone.
    DoorClosed(StreamKey, LegCause),
    /// A person's desktop came or went.
    DesktopPresence(HumanAgentId, bool),
    /// A person's desktop has painted a payload.
    DesktopAcked(HumanAgentId, TransferId, u32),
    /// A person accepts by button or API.
    Accept(HumanAgentId, TransferId, Means),
    /// A person declines by button or API.
    Decline(HumanAgentId, TransferId, Means, DeclineReason),
    /// A person gives the caller back to the voice agent.
    HandBack(HumanAgentId, TransferId),
    /// The cloud orders.
    Command(Box<Command>),
    /// A new configuration: rules, trunks, people and their phones for the calls that arrive
    /// from now on. Running calls keep the rules they began with, and our own addresses stay.
    Reload(Box<EdgeConfig>),
    /// What the names of fixed phones stand for now.
    Resolved(Vec<(String, SocketAddr)>),
    /// The addresses of the servers of trunks that something is kept up with.
    Servers(Vec<(String, Vec<SocketAddr>)>),
    /// Freshly bound ports.
    Ports(Vec<Port>),
    /// The recording of a leg that is over lies on disk.
    RecordingStored(CallId, LegId, StoredRecording),
    /// A timer is due.
    Timeout,
    /// No new calls; running ones go on.
    Drain,
    /// End every call now: the grace time is over.
    Stop,
}

/// What the edge wants done. Outputs come in order; those that follow a `Fact` of the same
/// batch are effects of that fact, and the shell releases them after its commit.
#[derive(PartialEq)]
pub enum EdgeOutput {
    /// Send these bytes.
    Send(Flow, Vec<u8>),
    /// Close this connection.
    Close(Flow),
    /// Tell the media plane.
    Media(MediaCommand),
    /// Synthesise ahead of use; the result is picked up when the prompt is played.
    PrepareSpeech {
        /// What will be said.
        text: Pii<String>,
        /// BCP 47.
        lang: String,
    },
    /// Open the voice agent's link.
    OpenDoor {
        /// Under this key.
        stream: StreamKey,
        /// For this call.
        call: CallId,
    },
    /// Tell the voice agent how its transfer stands.
    DoorStatus {
        /// Which link.
        stream: StreamKey,
        /// `accepted`, `ringing`, `connected`, `failed`.
        status: &'static str,
        /// Seconds, where known.
        eta_s: Option<u32>,
    },
    /// Close the voice agent's link.
    CloseDoor(StreamKey),
    /// Show something on a person's desktop.
    Desktop(HumanAgentId, DesktopPush),
    /// Seal, spool, publish.
    Fact(Box<CallEvent>),
    /// The edge's own decision, for `decisions`, with the number of the fact that records it.
    Decision(Box<Evaluable>, Box<Decision>, u64),
    /// Destroy what was recorded of this call.
    DiscardRecordings(CallId),
    /// The stock of ports is low: bind this many.
    NeedPorts(usize),
    /// The call is over; its keys can be forgotten once its facts are stored.
    Forget(CallId),
}

/// The edge.
pub struct Edge {
    config: EdgeConfig,
    sip: Stack,
    directory: Directory,
    desktops: BTreeSet<HumanAgentId>,
    calls: BTreeMap<CallId, Running>,
    dialogs: BTreeMap<DialogKey, (CallId, LegId)>,
    streams: BTreeMap<StreamKey, (CallId, LegId)>,
    deadlines: BTreeSet<(Now, CallId)>,
    ports: VecDeque<Port>,
    asked_for_ports: bool,
    /// The range gave less than was asked for: nothing is asked before this.
    restock_at: Option<Now>,
    next_dialog: u64,
    next_stream: u64,
    random: u128,
    draining: bool,
    counters: EdgeCounters,
}

/// What was refused or dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounters {
    /// Calls accepted.
    pub calls: u64,
    /// Calls refused because the edge drains, is full or has no port.
    pub calls_refused: u64,
    /// Commands for calls that are gone.
    pub commands_late: u64,
    /// Reports for calls that are gone.
    pub reports_late: u64,
}

/// What an edge holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeHolding {
    /// Calls that run.
    pub calls: usize,
    /// Their legs.
    pub legs: usize,
    /// Streams of voice agents.
    pub streams: usize,
    /// SIP dialogs.
    pub dialogs: usize,
    /// SIP transactions that are not terminated.
    pub transactions: usize,
    /// Timers of calls.
    pub deadlines: usize,
    /// Bound ports that wait for a leg.
    pub ports_in_stock: usize,
}

struct Running {
    call: Call,
    /// What the machine has ordered and nobody has carried out yet.
    orders: VecDeque<Output>,
    /// Its orders are being carried out; what they cause queues up behind them.
    carrying: bool,
    deadline: Option<Now>,
    legs: BTreeMap<LegId, Wire>,
}

/// What a leg is bound to.
#[derive(Clone, Debug)]
enum Wire {
    Sip { dialog: DialogKey, port: Port, agent: Option<HumanAgentId>, remote: Option<RemoteMedia> },
    Stream(StreamKey),
}

impl Edge {
    /// An edge without calls. `seed` must come from the operating system's random source:
    /// tags, branches, nonces and call ids follow from it.
    pub fn new(config: EdgeConfig, seed: u128) -> Self {
        Self {
            sip: Stack::new(config.sip.clone(), seed),
            directory: Directory::new(config.people.clone(), config.queues.clone()),
            config,
            desktops: BTreeSet::new(),
            calls: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            streams: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            ports: VecDeque::new(),
            asked_for_ports: false,
            restock_at: None,
            next_dialog: 1,
            next_stream: 1,
            random: seed,
            draining: false,
            counters: EdgeCounters::default(),
        }
    }

    /// Takes one input and returns what follows from it, in order.
    #[must_use = "outputs are the only effect the edge has"]
    pub fn handle(&mut self, at: Moment, input: EdgeInput) -> Vec<EdgeOutput> {
        let mut out = Vec::new();
        match input {
            EdgeInput::Bytes(flow, bytes) => {
                let outputs = self.sip.receive(at.now, flow, &bytes);
                self.carry_sip(at, outputs, &mut out);
            }
            EdgeInput::ConnectionClosed(flow) => {
                let outputs = self.sip.connection_closed(at.now, flow);
                self.carry_sip(at, outputs, &mut out);
            }
            EdgeInput::Vouched { flow, names, dialled } => {
                let outputs = self.sip.vouched(flow, names, dialled);
                self.carry_sip(at, outputs, &mut out);
            }
            EdgeInput::Media(event) => {
                // The report happened a moment ago on the media thread; timers and figures
                // follow its own clock.
                let at = Moment { now: event.at, wall: at.wall };
                if !self.feed(at, &event.call, Input::Media(event.report), &mut out) {
                    self.counters.reports_late += 1;
                }
            }
            EdgeInput::DoorOpened(stream) => {
                self.feed_stream(at, stream, &mut out, |leg| Input::Answered { leg })
            }
            EdgeInput::DoorSignal(stream, signal) => {
                self.feed_stream(at, stream, &mut out, |_| Input::Signal(*signal));
            }
            EdgeInput::DoorSilent(stream, silent) => self.feed_stream(at, stream, &mut out, |leg| {
                let lost = MediaReport::SourceLost { leg };
                Input::Media(if silent { lost } else { MediaReport::SourceBack { leg } })
            }),
            EdgeInput::CallSignal(call, signal) => {
                self.feed(at, &call, Input::Signal(*signal), &mut out);
            }
            EdgeInput::DoorClosed(stream, cause) => {
                if let Some((call, leg)) = self.streams.remove(&stream) {
                    self.close_leg(at, &call, leg, cause, None, &mut out);
                }
            }
            EdgeInput::DesktopPresence(agent, true) => {
                self.desktops.insert(agent);
            }
            EdgeInput::DesktopPresence(agent, false) => {
                self.desktops.remove(&agent);
            }
            EdgeInput::DesktopAcked(agent, transfer, revision) => {
                self.feed_agent(at, &agent.clone(), &mut out, |_| Input::DesktopAcked {
                    agent,
                    transfer,
                    revision,
                });
            }
            EdgeInput::Accept(agent, transfer, means) => {
                self.feed_agent(at, &agent.clone(), &mut out, |_| Input::Accept { agent, transfer, means });
            }
            EdgeInput::Decline(agent, transfer, means, reason) => {
                self.feed_agent(at, &agent.clone(), &mut out, |_| Input::Decline {
                    agent,
                    transfer,
                    means,
                    reason,
                });
            }
            EdgeInput::HandBack(agent, _) => {
                self.feed_agent(at, &agent.clone(), &mut out, |_| Input::HandBack { agent });
            }
            EdgeInput::Command(command) => {
                let call = command.call_id.clone();
                if !self.feed(at, &call, Input::Command(*command), &mut out) {
                    self.counters.commands_late += 1;
                }
            }
            EdgeInput::Ports(ports) => {
                self.asked_for_ports = false;
                self.ports.extend(ports);
                self.restock_at = (self.ports.len() < PORT_STOCK).then_some(at.now + RESTOCK_WAIT);
            }
            EdgeInput::Reload(config) => self.reload(at, *config, &mut out),
            EdgeInput::Resolved(hosts) => self.sip.set_hosts(hosts),
            EdgeInput::Servers(servers) => {
                let outputs = self.sip.set_servers(at.now, servers);
                self.carry_sip(at, outputs, &mut out);
            }
            EdgeInput::RecordingStored(call, leg, recording) => {
                if !self.feed(at, &call, Input::RecordingStored { leg, recording }, &mut out) {
                    self.counters.reports_late += 1;
                }
            }
            EdgeInput::Timeout => self.run_timers(at, &mut out),
            EdgeInput::Drain => {
                self.draining = true;
                let outputs = self.sip.command(at.now, SipCommand::Drain);
                self.carry_sip(at, outputs, &mut out);
            }
            EdgeInput::Stop => {
                let calls: Vec<CallId> = self.calls.keys().cloned().collect();
                for call in calls {
                    self.feed(at, &call, Input::Drain, &mut out);
                }
            }
        }
        self.restock(at.now, &mut out);
        out
    }

    /// When `handle(now, EdgeInput::Timeout)` has something to do next.
    pub fn next_timeout(&self) -> Option<Now> {
        let calls = self.deadlines.first().map(|(at, _)| *at);
        [calls, self.sip.next_timeout(), self.restock_at].into_iter().flatten().min()
    }

    /// Running calls with their standing, for lists.
    pub fn standings(&self) -> impl Iterator<Item = (&CallId, Standing)> {
        self.calls.iter().map(|(id, running)| (id, running.call.standing()))
    }

    /// The machine of one running call, to be read.
    pub fn call(&self, id: &CallId) -> Option<&Call> {
        self.calls.get(id).map(|running| &running.call)
    }

    /// The running call that a transfer belongs to.
    pub fn call_of(&self, transfer: &TransferId) -> Option<&CallId> {
        self.calls
            .iter()
            .find(|(_, running)| running.call.standing().transfer.as_ref() == Some(transfer))
            .map(|(id, _)| id)
    }

    /// The running call of a voice agent's stream.
    pub fn call_of_stream(&self, stream: StreamKey) -> Option<&CallId> {
        self.streams.get(&stream).map(|(call, _)| call)
    }

    /// Callers who wait for a person, the longest first.
    pub fn waiting(&self) -> Vec<(&CallId, Waiting)> {
        let waiting = self.calls.iter().filter_map(|(id, running)| Some((id, running.call.waiting()?)));
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(_, waiting)| waiting.since);
        waiting
    }

    /// Who could take a call of this queue now, and how long it takes.
    pub fn staffing(&self, queue: &QueueId) -> Option<Staffing> {
        self.directory.staffing(queue)
    }

    /// Counters of this router.
    pub fn counters(&self) -> EdgeCounters {
        self.counters
    }

    /// Every trunk, and how it stands with those that something is kept up with.
    pub fn trunks(&self, now: Now) -> Vec<(String, Option<UplinkState>)> {
        let states = self.sip.uplink_states(now);
        let of = |name: &String| states.iter().find(|state| state.trunk == *name).cloned();
        self.sip.trunk_names().map(|name| (name.clone(), of(name))).collect()
    }

    /// What changed with trunks since the last time this was called, for the log.
    pub fn take_trunk_news(&mut self) -> Vec<UplinkNews> {
        self.sip.take_uplink_news()
    }

    /// Whether a trunk's registrar has yet to answer that it forgot this edge.
    pub fn is_leaving(&self) -> bool {
        self.sip.is_leaving()
    }

    /// Whose certificates were not taken since this was asked last.
    pub fn take_certificate_faults(&mut self) -> Vec<CertificateFault> {
        self.sip.take_certificate_faults()
    }

    /// Counters of the SIP stack.
    pub fn sip_counters(&self) -> &crate::sip::Counters {
        self.sip.counters()
    }

    /// What is held for calls at this moment. Nothing is, half a minute after the last call.
    pub fn holding(&self) -> EdgeHolding {
        let (dialogs, transactions) = self.sip.open();
        EdgeHolding {
            calls: self.calls.len(),
            legs: self.calls.values().map(|running| running.legs.len()).sum(),
            streams: self.streams.len(),
            dialogs,
            transactions,
            deadlines: self.deadlines.len(),
            ports_in_stock: self.ports.len(),
        }
    }

    /// Ready for new calls: not draining, ports in stock.
    pub fn is_ready(&self) -> bool {
        !self.draining && !self.ports.is_empty() && self.calls.len() < self.config.calls_max
    }

    fn reload(&mut self, at: Moment, config: EdgeConfig, out: &mut Vec<EdgeOutput>) {
        self.config.rules = config.rules;
        self.config.call_types = config.call_types;
        self.directory.reload(config.people, config.queues);
        let outputs = self.sip.reload(config.sip.trunks, config.sip.users);
        self.carry_sip(at, outputs, out);
        self.sip.set_limits(config.sip.limits);
        let outputs = self.sip.set_uplinks(at.now, config.sip.uplinks);
        self.carry_sip(at, outputs, out);
    }

    fn run_timers(&mut self, at: Moment, out: &mut Vec<EdgeOutput>) {
        if self.sip.next_timeout().is_some_and(|due| due <= at.now) {
            let outputs = self.sip.handle_timeout(at.now);
            self.carry_sip(at, outputs, out);
        }
        // A call that answers a timeout with another due deadline is served in the next
        // round, so one call cannot starve the loop.
        let due: Vec<CallId> = self
            .deadlines
            .iter()
            .take_while(|(when, _)| *when <= at.now)
            .map(|(_, call)| call.clone())
            .collect();
        for call in due {
            self.feed(at, &call, Input::Timeout, out);
        }
    }

    fn carry_sip(&mut self, at: Moment, outputs: Vec<SipOutput>, out: &mut Vec<EdgeOutput>) {
        for output in outputs {
            match output {
                SipOutput::Send(flow, bytes) => out.push(EdgeOutput::Send(flow, bytes)),
                SipOutput::Close(flow) => out.push(EdgeOutput::Close(flow)),
                SipOutput::Event(event) => self.on_sip(at, event, out),
            }
        }
    }

    fn on_sip(&mut self, at: Moment, event: SipEvent, out: &mut Vec<EdgeOutput>) {
        match event {
            SipEvent::Invited { dialog, origin, caller, restricted, dialled: _, remote } => {
                self.invited(at, dialog, origin, caller, restricted, remote, out);
            }
            SipEvent::Ringing(dialog) => self.feed_dialog(at, dialog, out, |leg| Input::Ringing { leg }),
            SipEvent::Answered(dialog, remote) => {
                self.agree(dialog, remote, out);
                self.feed_dialog(at, dialog, out, |leg| Input::Answered { leg });
            }
            SipEvent::Confirmed(dialog, remote) => {
                if let Some(remote) = remote {
                    self.agree(dialog, remote, out);
                }
                self.feed_dialog(at, dialog, out, |leg| Input::Answered { leg });
            }
            SipEvent::Ended { dialog, cause, status } => {
                if let Some((call, leg)) = self.dialogs.remove(&dialog) {
                    self.close_leg(at, &call, leg, cause, status, out);
                }
            }
            SipEvent::Reinvited(dialog, remote) => {
                self.agree(dialog, remote, out);
                self.feed_dialog(at, dialog, out, |leg| Input::HoldDone { leg, ok: true });
            }
            SipEvent::ReinviteFailed(dialog, _) => {
                self.feed_dialog(at, dialog, out, |leg| Input::HoldDone { leg, ok: false });
            }
            SipEvent::PeerMedia(dialog, remote) => {
                self.agree(dialog, remote, out);
                let held = matches!(remote.direction, Direction::RecvOnly | Direction::Inactive);
                self.feed_dialog(at, dialog, out, |leg| Input::PeerHold { leg, held });
            }
            SipEvent::Digit(dialog, digit) => {
                self.feed_dialog(at, dialog, out, |leg| Input::Media(MediaReport::Digit { leg, digit }))
            }
            SipEvent::Registered { user, contacts } => self.directory.registered(&user, contacts),
            // Only parties that register elsewhere get this; the edge itself does not yet.
            SipEvent::RegisterResult { .. } => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one event, taken apart once")]
    fn invited(
        &mut self,
        at: Moment,
        dialog: DialogKey,
        origin: Origin,
        caller: Option<Pii<String>>,
        restricted: bool,
        remote: Option<RemoteMedia>,
        out: &mut Vec<EdgeOutput>,
    ) {
        let trunk = match origin {
            Origin::Trunk(name) => name,
            // A softphone may register and answer; calling the voice agent is a trunk's part.
            Origin::User(_) => return self.refuse(at, dialog, 403, out),
        };
        let full = self.draining || self.calls.len() >= self.config.calls_max;
        let Some(port) = (if full { None } else { self.ports.pop_front() }) else {
            self.counters.calls_refused += 1;
            return self.refuse(at, dialog, 503, out);
        };
        let call = CallId::from_random(self.next_random());
        self.counters.calls += 1;
        let e164 = caller.filter(|number| is_e164(number.expose()));
        let caller_tag = e164.as_ref().map(|number| {
            handoff::seal::caller_tag(
                1,
                self.config.tag_key.expose(),
                &self.config.rules.tenant,
                number.expose(),
            )
        });
        let arrival = Arrival {
            call: call.clone(),
            call_type: self.config.call_types.get(&trunk).cloned(),
            trunk,
            caller_tag,
            caller: CallerIdentity { e164, restricted },
        };
        let (machine, outputs) = Call::new(at, arrival, Arc::clone(&self.config.rules));
        let wire = Wire::Sip { dialog, port, agent: None, remote };
        self.dialogs.insert(dialog, (call.clone(), LegId::CALLER));
        let legs = BTreeMap::from([(LegId::CALLER, wire)]);
        self.calls.insert(
            call.clone(),
            Running { call: machine, orders: outputs.into(), carrying: false, deadline: None, legs },
        );
        out.push(EdgeOutput::Media(MediaCommand::Open {
            call: call.clone(),
            leg: LegId::CALLER,
            carrier: Carrier::Rtp(port),
        }));
        if let Some(remote) = remote {
            out.push(EdgeOutput::Media(MediaCommand::Remote {
                call: call.clone(),
                leg: LegId::CALLER,
                remote,
            }));
        }
        self.carry(at, &call, out);
    }

    fn refuse(&mut self, at: Moment, dialog: DialogKey, status: u16, out: &mut Vec<EdgeOutput>) {
        let outputs = self.sip.command(at.now, SipCommand::Reject(dialog, status));
        self.carry_sip(at, outputs, out);
    }

    /// The media of a dialog was agreed anew.
    fn agree(&mut self, dialog: DialogKey, agreed: RemoteMedia, out: &mut Vec<EdgeOutput>) {
        let Some((call, leg)) = self.dialogs.get(&dialog) else { return };
        if let Some(Wire::Sip { remote, .. }) =
            self.calls.get_mut(call).and_then(|running| running.legs.get_mut(leg))
        {
            *remote = Some(agreed);
        }
        out.push(EdgeOutput::Media(MediaCommand::Remote { call: call.clone(), leg: *leg, remote: agreed }));
    }

    /// A leg is over: its port goes to quarantine, its person is free, the machine is told.
    fn close_leg(
        &mut self,
        at: Moment,
        call: &CallId,
        leg: LegId,
        cause: LegCause,
        status: Option<u16>,
        out: &mut Vec<EdgeOutput>,
    ) {
        let wire = self.calls.get_mut(call).and_then(|running| running.legs.remove(&leg));
        if let Some(Wire::Sip { agent: Some(agent), .. }) = &wire {
            self.directory.release(at.now, agent);
        }
        if wire.is_some() {
            out.push(EdgeOutput::Media(MediaCommand::Close { call: call.clone(), leg }));
            self.feed(at, call, Input::Ended { leg, cause, status }, out);
        }
    }

    fn feed_dialog(
        &mut self,
        at: Moment,
        dialog: DialogKey,
        out: &mut Vec<EdgeOutput>,
        input: impl FnOnce(LegId) -> Input,
    ) {
        if let Some((call, leg)) = self.dialogs.get(&dialog).cloned() {
            self.feed(at, &call, input(leg), out);
        }
    }

    fn feed_stream(
        &mut self,
        at: Moment,
        stream: StreamKey,
        out: &mut Vec<EdgeOutput>,
        input: impl FnOnce(LegId) -> Input,
    ) {
        if let Some((call, leg)) = self.streams.get(&stream).cloned() {
            self.feed(at, &call, input(leg), out);
        }
    }

    /// Feeds the call in which `agent` has a leg. A person has at most one call.
    fn feed_agent(
        &mut self,
        at: Moment,
        agent: &HumanAgentId,
        out: &mut Vec<EdgeOutput>,
        input: impl FnOnce(LegId) -> Input,
    ) {
        let found = self.calls.iter().find_map(|(id, running)| {
            running.legs.iter().find_map(|(leg, wire)| match wire {
                Wire::Sip { agent: Some(owner), .. } if owner == agent => Some((id.clone(), *leg)),
                Wire::Sip { .. } | Wire::Stream(_) => None,
            })
        });
        if let Some((call, leg)) = found {
            self.feed(at, &call, input(leg), out);
        }
    }

    /// Gives one input to one call and carries out what it orders. False: there is no such call.
    /// An input that an order of the same call causes is taken at once, and what follows from
    /// it comes after what was ordered before: facts leave in the order of their numbers.
    fn feed(&mut self, at: Moment, call: &CallId, input: Input, out: &mut Vec<EdgeOutput>) -> bool {
        let Some(running) = self.calls.get_mut(call) else { return false };
        running.orders.extend(running.call.handle(at, input));
        if !running.carrying {
            self.carry(at, call, out);
        }
        true
    }

    fn restock(&mut self, now: Now, out: &mut Vec<EdgeOutput>) {
        let waits = self.asked_for_ports || self.restock_at.is_some_and(|at| at > now);
        if self.ports.len() < PORT_STOCK && !waits {
            self.asked_for_ports = true;
            self.restock_at = None;
            out.push(EdgeOutput::NeedPorts(PORT_STOCK * 2 - self.ports.len()));
        }
    }

    fn local(&self, port: Port, direction: Direction) -> LocalMedia {
        LocalMedia { ip: self.config.media_ip, port: port.0, direction }
    }

    /// The next 128 bits of the seeded generator (SplitMix64 twice): ids, not secrets, but
    /// unpredictable without the seed.
    fn next_random(&mut self) -> u128 {
        let mut half = || {
            self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
            let mut word = (self.random >> 64) as u64 ^ self.random as u64;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            u128::from(word ^ (word >> 31))
        };
        half() << 64 | half()
    }
}

/// `+` and 7 to 15 digits: only such a number is a key for a lookup or a tag.
fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0')
    })
}

/// Texts of a prompt that need speech synthesis.
fn speech_of(prompt: &Prompt) -> impl Iterator<Item = (Pii<String>, String)> {
    prompt.parts.iter().filter_map(|part| match part {
        handoff::call::media::Part::Say { text, lang, .. } => Some((text.clone(), lang.clone())),
        handoff::call::media::Part::Clip(_) => None,
    })
}
