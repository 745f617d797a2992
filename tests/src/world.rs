//! Everything between the phones, in virtual time: the edge's router and media engine, the
//! network, the scripted voice agent, and a cloud that answers late or not at all. Time
//! moves in steps of 5 ms; every datagram takes one step. The same script gives the same run.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edge_media::edge::directory::{Dial, Members, Person};
use edge_media::edge::{Edge, EdgeConfig, EdgeInput, EdgeOutput};
use edge_media::io::stream::{SILENCE_MAX, UNANSWERED_MAX};
use edge_media::media::engine::{Engine, RecordedFrame, Sink};
use edge_media::media::hold::HoldBed;
use edge_media::media::prompt::{Audio, ClipStore, SpeechKey};
use edge_media::media::{MediaCommand, MediaEvent, Port, StreamIn, StreamKey, StreamOut, codec, tone};
use edge_media::sip::{
    Caller, Codec, Destination, DialogKey, Flow, Rel100, Secret, SipCommand, SipConfig, SrtpPolicy,
    Transport, TrunkConfig, UserConfig,
};
use handoff::call::outcome::LegCause;
use handoff::call::{CallRules, DesktopPush, Fallback, OnVoiceAgentBye, PayloadAck, QueueRules, Survivor};
use handoff::clock::{Moment, Now, Timestamp};
use handoff::command::{Command, CommandBody};
use handoff::event::{CallEvent, Fact, Mode, StoredRecording};
use handoff::id::{CallId, DecisionId, EdgeId, HumanAgentId, LegId, QueueId, TenantId};
use handoff::pii::Pii;
use handoff::policy::{Decision, Origin, Policy};
use handoff::signal::Signal;

use crate::net::Net;
use crate::phone::{Habit, Phone, Sent, tones};
use crate::setting::{Setting, Someone};

/// One step of time, and the delay of every datagram.
const STEP: Duration = Duration::from_millis(5);

/// How the cloud behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Decides this long after the event.
    Decides(Duration),
    /// Says nothing.
    Gone,
}

/// How the link to the voice agent fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// The connection is reset.
    Reset,
    /// It stays open, and nothing comes any more.
    Stall,
    /// A byte comes every second, and no message is ever complete.
    Drip,
    /// What comes is no WebSocket any more.
    Garbage,
}

/// When a recorded frame was, and the tones in what the leg said and in what it heard.
pub type RecordedTones = (Now, Vec<u32>, Vec<u32>);

/// The world of one call.
pub struct World {
    /// Virtual time.
    pub now: Now,
    /// The edge.
    pub edge: Edge,
    /// The media plane.
    pub engine: Engine,
    /// The caller.
    pub caller: Phone,
    /// The human agents.
    pub humans: Vec<Phone>,
    /// Everything recorded.
    pub facts: Vec<CallEvent>,
    /// Everything pushed to desktops.
    pub pushes: Vec<(Now, HumanAgentId, DesktopPush)>,
    /// Decisions that the edge published itself.
    pub published: Vec<Decision>,
    /// What the voice agent heard: the tones of each frame.
    pub voice_agent_heard: Vec<(Now, Vec<u32>)>,
    /// The cloud.
    pub cloud: Cloud,
    /// Desktops paint and acknowledge.
    pub desktops_acknowledge: bool,
    /// The network.
    pub net: Net,
    /// The voice agent answers when its door is opened.
    pub voice_agent_reachable: bool,
    /// A proxy before the phone of one person rings another's phone as well.
    pub forks: Option<(usize, usize)>,
    /// The media plane reports what it has played and heard.
    pub media_reports: bool,
    /// Commands that the cloud has sent, to be sent again.
    pub commanded: Vec<Command>,
    outputs: VecDeque<EdgeOutput>,
    carrying: bool,
    /// What is kept for a judge of what may be seen; `None` keeps nothing.
    pub record: Option<Record>,
    /// What was recorded of each leg, as the tones of each frame: said, then heard.
    pub recorded: BTreeMap<LegId, Vec<RecordedTones>>,
    stream: Option<StreamKey>,
    voice_agent_speaks: bool,
    /// Since when the link brings no whole message, and whether the edge was told.
    unanswered: Option<(Now, bool)>,
    commands: VecDeque<(Now, Command)>,
    media: Plane,
    next_port: u16,
    /// Legs whose recordings the disk will report.
    closed: Vec<(CallId, LegId)>,
}

/// Everything that could be printed of a call, and every SIP message on the wire.
#[derive(Default)]
pub struct Record {
    /// The `Debug` texts of the router's inputs and outputs, and of what the phones were told.
    pub printed: Vec<String>,
    /// Messages: from, to, bytes.
    pub sip: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

/// The caller's number.
pub const CALLER_NUMBER: &str = "+15555550142";
/// The password of every human agent's phone.
pub const PASSWORD: &str = "hushed-opal-7731";

/// Where the engine's effects go until the world carries them.
#[derive(Default)]
struct Plane {
    rtp: Vec<(Port, SocketAddr, Vec<u8>)>,
    stream: Vec<(StreamKey, StreamOut)>,
    reports: Vec<MediaEvent>,
    recorded: Vec<(LegId, RecordedTones)>,
}

impl Sink for Plane {
    fn send_rtp(&mut self, port: Port, to: SocketAddr, bytes: &[u8]) {
        self.rtp.push((port, to, bytes.to_vec()));
    }

    fn send_rtcp(&mut self, _: Port, _: SocketAddr, _: &[u8]) {}

    fn stream_out(&mut self, key: StreamKey, out: StreamOut) {
        self.stream.push((key, out));
    }

    fn report(&mut self, event: MediaEvent) {
        self.reports.push(event);
    }

    fn record(&mut self, frame: RecordedFrame<'_>) {
        let RecordedFrame { at, leg, said, heard, .. } = frame;
        self.recorded.push((leg, (at, tones_of(said), tones_of(heard))));
    }
}

fn tones_of(ulaw: &[u8]) -> Vec<u32> {
    let samples: Vec<i16> = ulaw.iter().map(|byte| codec::decode(Codec::Pcmu, *byte)).collect();
    tones::in_frame(&samples)
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), port)
}

fn edge_sip() -> SocketAddr {
    address(1, 5060)
}

impl World {
    /// A world with one trunk, one queue and these human agents, who have registered.
    pub fn new(habits: &[Habit], cloud: Cloud) -> Self {
        let people: Vec<Someone> = habits.iter().map(|habit| Someone::new(*habit)).collect();
        Self::of(&Setting { cloud, ..Setting::new(&people) })
    }

    /// The same, and every leg is recorded.
    pub fn recording(habits: &[Habit], cloud: Cloud) -> Self {
        let people: Vec<Someone> = habits.iter().map(|habit| Someone::new(*habit)).collect();
        Self::of(&Setting { cloud, recording: true, ..Setting::new(&people) })
    }

    /// A world of this setting.
    pub fn of(setting: &Setting) -> Self {
        let names: Vec<String> = (0..setting.people.len()).map(|n| format!("agent_{n}")).collect();
        let mut config = edge_config(&names, setting.recording);
        setting.apply(&mut config);
        let clips = ClipStore::embedded().with_hold(HoldBed::tones());
        let caller = Phone::new(
            address(2, 5060),
            address(2, 4_000),
            tones::CALLER,
            Habit::Rings,
            outside(address(2, 5060)),
            11,
        );
        let humans = (3_u8..)
            .zip(&setting.people)
            .map(|(host, Someone { habit, .. })| {
                let sip = address(host, 5060);
                Phone::new(sip, address(host, 4_000), tones::HUMAN, *habit, outside(sip), u64::from(host))
            })
            .collect();
        let mut world = Self {
            now: Now::from_millis(1_000),
            edge: Edge::new(config, 7),
            engine: Engine::new(Arc::new(clips), 7),
            caller,
            humans,
            facts: Vec::new(),
            pushes: Vec::new(),
            published: Vec::new(),
            voice_agent_heard: Vec::new(),
            cloud: setting.cloud,
            desktops_acknowledge: true,
            net: Net::default(),
            voice_agent_reachable: true,
            forks: None,
            media_reports: true,
            commanded: Vec::new(),
            outputs: VecDeque::new(),
            carrying: false,
            record: None,
            recorded: BTreeMap::new(),
            stream: None,
            voice_agent_speaks: true,
            unanswered: None,
            commands: VecDeque::new(),
            media: Plane::default(),
            next_port: 20_000,
            closed: Vec::new(),
        };
        for (index, (name, someone)) in names.iter().zip(&setting.people).enumerate() {
            let register = SipCommand::Register {
                user: name.clone(),
                password: Pii::new(PASSWORD.to_owned()),
                registrar: edge_sip(),
                domain: edge_sip().ip().to_string(),
                expires_secs: 3_600,
            };
            let now = world.now;
            if let Some(phone) = world.humans.get_mut(index).filter(|_| someone.present) {
                let sent = phone.order(now, register);
                world.post(sent);
            }
            if let Some(agent) = HumanAgentId::parse(name).ok().filter(|_| someone.desktop) {
                world.give(EdgeInput::DesktopPresence(agent, true));
            }
        }
        world.pass(Duration::from_millis(500));
        world
    }

    /// The caller dials; returns when the disclosure has been heard.
    pub fn call_and_disclose(&mut self) {
        self.dial();
        self.until("disclosure.ai_identity", Duration::from_secs(20));
        self.pass(Duration::from_millis(200));
    }

    /// The caller dials.
    pub fn dial(&mut self) {
        let local = self.caller.local();
        let sent = self.caller.order(
            self.now,
            SipCommand::Dial {
                dialog: DialogKey(1),
                to: Destination::Uri(Pii::new("sip:+18005550100@192.0.2.1:5060".to_owned())),
                local,
                from: Caller { user: Pii::new(CALLER_NUMBER.to_owned()), domain: None, restricted: false },
                credentials: None,
            },
        );
        self.post(sent);
    }

    /// The caller hangs up.
    pub fn caller_hangs_up(&mut self) {
        let cause = LegCause::LocalHangUp;
        let sent = self.caller.order(self.now, SipCommand::HangUp(DialogKey(1), cause));
        self.post(sent);
    }

    /// The link to the voice agent breaks, or its far end closes it.
    pub fn voice_agent_goes(&mut self, cause: LegCause) {
        if let Some(stream) = self.stream.take() {
            self.unanswered = None;
            self.give(EdgeInput::DoorClosed(stream, cause));
        }
    }

    /// The link to the voice agent fails. What the door makes of it (a reset or garbage is the
    /// end, a link that brings no message is silent and then gone) is the door's own rule.
    pub fn voice_agent_fails(&mut self, fault: LinkFault) {
        match fault {
            LinkFault::Reset | LinkFault::Garbage => self.voice_agent_goes(LegCause::Lost),
            LinkFault::Stall | LinkFault::Drip => self.unanswered = Some((self.now, false)),
        }
    }

    /// The door's watch over a link that brings no message.
    fn watch_door(&mut self) {
        let (Some((since, told)), Some(stream)) = (self.unanswered, self.stream) else { return };
        if self.now.since(since) >= SILENCE_MAX {
            self.voice_agent_goes(LegCause::Lost);
        } else if !told && self.now.since(since) >= UNANSWERED_MAX {
            self.unanswered = Some((since, true));
            self.give(EdgeInput::DoorSilent(stream, true));
        }
    }

    /// Nobody listens, where only the record matters: such a call is played much faster.
    pub fn deaf(&mut self, deaf: bool) {
        self.caller.listens = !deaf;
        for human in &mut self.humans {
            human.listens = !deaf;
        }
    }

    /// The link to the voice agent is open.
    pub const fn voice_agent_is_there(&self) -> bool {
        self.stream.is_some()
    }

    /// A human agent whose phone rings answers it.
    pub fn human_answers(&mut self, index: usize) {
        self.human_orders(index, |phone, dialog| SipCommand::Answer(dialog, phone.local()));
    }

    /// A human agent whose phone rings refuses.
    pub fn human_refuses(&mut self, index: usize, status: u16) {
        self.human_orders(index, |_, dialog| SipCommand::Reject(dialog, status));
    }

    /// A human agent hangs up.
    pub fn human_hangs_up(&mut self, index: usize) {
        self.human_orders(index, |_, dialog| SipCommand::HangUp(dialog, LegCause::LocalHangUp));
    }

    fn human_orders(&mut self, index: usize, order: impl FnOnce(&Phone, DialogKey) -> SipCommand) {
        let now = self.now;
        let Some(phone) = self.humans.get_mut(index) else { return };
        let Some(dialog) = phone.dialog() else { return };
        let command = order(phone, dialog);
        let sent = phone.order(now, command);
        self.post(sent);
    }

    /// The voice agent sends a signal, as JSON.
    pub fn signal(&mut self, json: &str) {
        let signal = Signal::parse_bytes(json.as_bytes()).expect("the script's signals are valid").signal;
        if let Some(stream) = self.stream {
            self.give(EdgeInput::DoorSignal(stream, Box::new(signal)));
        }
    }

    /// Gives the edge an input now.
    pub fn give(&mut self, input: EdgeInput) {
        if let Some(record) = &mut self.record {
            record.printed.push(format!("{input:?}"));
        }
        let outputs = self.edge.handle(self.moment(), input);
        if let Some(record) = &mut self.record {
            record.printed.extend(outputs.iter().map(|output| format!("{output:?}")));
        }
        self.carry(outputs);
    }

    /// Passes time until a fact of this type is recorded; panics after `limit`.
    pub fn until(&mut self, kind: &str, limit: Duration) {
        self.until_nth(kind, 1, limit);
    }

    /// Passes time until so many facts of this type are recorded; panics after `limit`.
    pub fn until_nth(&mut self, kind: &str, nth: usize, limit: Duration) {
        let deadline = self.now + limit;
        while self.count(kind) < nth {
            assert!(self.now < deadline, "no `{kind}` within {limit:?}; recorded: {:?}", self.kinds());
            self.step();
        }
    }

    /// Passes time.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    /// How many facts of this type were recorded.
    pub fn count(&self, kind: &str) -> usize {
        self.facts.iter().filter(|event| event.fact.kind() == kind).count()
    }

    /// The types of all facts, in order, without signals and turns.
    pub fn kinds(&self) -> Vec<&'static str> {
        let kinds = self.facts.iter().map(|event| event.fact.kind());
        kinds.filter(|kind| !matches!(*kind, "signal.received" | "utterance.ref")).collect()
    }

    /// The first fact of this type.
    pub fn fact(&self, kind: &str) -> Option<&Fact> {
        self.facts.iter().map(|event| &event.fact).find(|fact| fact.kind() == kind)
    }

    /// When the first fact of this type was recorded.
    pub fn time_of(&self, kind: &str) -> Option<Now> {
        let event = self.facts.iter().find(|event| event.fact.kind() == kind)?;
        Some(Now::from_micros(event.mono_us))
    }

    fn moment(&self) -> Moment {
        let wall = 1_795_330_800_000 + i64::try_from(self.now.millis()).unwrap_or(i64::MAX);
        Moment { now: self.now, wall: Timestamp::from_unix_millis(wall) }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        self.deliver();
        self.watch_door();
        while let Some((at, _)) = self.commands.front() {
            if *at > self.now {
                break;
            }
            if let Some((_, command)) = self.commands.pop_front() {
                self.give(EdgeInput::Command(Box::new(command)));
            }
        }
        if self.edge.next_timeout().is_some_and(|due| due <= self.now) {
            self.give(EdgeInput::Timeout);
        }
        if self.now.millis().is_multiple_of(20) {
            self.tick();
        }
        for (call, leg) in std::mem::take(&mut self.closed) {
            let frames = self.recorded.get(&leg).map_or(0, Vec::len) as u64;
            let recording =
                StoredRecording { pieces: 1, duration_ms: 20 * frames, lost_ms: 0, sha256: String::new() };
            self.give(EdgeInput::RecordingStored(call, leg, recording));
        }
    }

    fn tick(&mut self) {
        if let Some(stream) = self.stream.filter(|_| self.voice_agent_speaks && self.unanswered.is_none()) {
            let frame = tone::sine(tones::VOICE_AGENT, 8_000, 160);
            let bytes = frame.iter().map(|sample| codec::encode(Codec::Pcmu, *sample)).collect();
            self.engine.stream_in(self.now, stream, StreamIn::Audio(bytes), &mut self.media);
        }
        let mut sent = self.caller.tick(self.now);
        for human in &mut self.humans {
            sent.extend(human.tick(self.now));
        }
        self.post(sent);
        self.engine.tick(self.now, &mut self.media);
        self.carry_media();
    }

    /// A phone sends what an order of the script made.
    pub fn send(&mut self, sent: Vec<Sent>) {
        self.post(sent);
    }

    fn post(&mut self, sent: Vec<Sent>) {
        self.net.post(self.now, STEP, sent);
    }

    fn deliver(&mut self) {
        while let Some(sent) = self.net.arrived(self.now) {
            self.arrive(sent);
        }
    }

    fn arrive(&mut self, sent: Sent) {
        let Sent { from, to, mut bytes } = sent;
        if let Some(record) = self.record.as_mut().filter(|_| from.port() == 5060) {
            record.sip.push((from, to, bytes.clone()));
        }
        if to == edge_sip() {
            let flow = Flow { transport: Transport::Udp, peer: from, connection: 0 };
            self.give(EdgeInput::Bytes(flow, bytes));
            return;
        }
        if to.ip() == edge_sip().ip() {
            self.engine.packet(self.now, Port(to.port()), from, &mut bytes, &mut self.media);
            self.carry_media();
            return;
        }
        self.fork(from, to, &bytes);
        let now = self.now;
        let phones = std::iter::once(&mut self.caller).chain(&mut self.humans);
        let mut answers = Vec::new();
        for phone in phones {
            if phone.sip == to {
                answers.extend(phone.receive(now, from, &bytes));
            } else if phone.rtp == to {
                phone.hear(now, &bytes);
            }
        }
        self.post(answers);
    }

    /// The proxy: an INVITE outside a dialog, its CANCEL and its failure's ACK reach the second
    /// phone too, under that phone's own address.
    fn fork(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some((one, other)) = self.forks else { return };
        let (Some(one), Some(other)) = (self.humans.get(one), self.humans.get(other)) else { return };
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Some((line, rest)) = text.split_once("\r\n") else { return };
        let to_tag = rest.lines().find(|line| line.starts_with("To:")).is_some_and(|to| to.contains("tag="));
        let forked = line.starts_with("INVITE ") && !to_tag || line.starts_with("CANCEL ");
        if to != one.sip || !forked {
            return;
        }
        let line = line.replace(&one.sip.ip().to_string(), &other.sip.ip().to_string());
        let (to, bytes) = (other.sip, format!("{line}\r\n{rest}").into_bytes());
        self.post(vec![Sent { from, to, bytes }]);
    }

    fn carry_media(&mut self) {
        let Plane { rtp, stream, reports, recorded } = std::mem::take(&mut self.media);
        for (leg, tones) in recorded {
            self.recorded.entry(leg).or_default().push(tones);
        }
        for (port, to, bytes) in rtp {
            self.post(vec![Sent { from: address(1, port.0), to, bytes }]);
        }
        for (_, out) in stream {
            if let StreamOut::Frame(frame) = out
                && self.caller.listens
            {
                self.voice_agent_heard.push((self.now, tones_of(&*frame)));
            }
        }
        let reports = if self.media_reports { reports } else { Vec::new() };
        for report in reports {
            self.give(EdgeInput::Media(report));
        }
    }

    /// Carries outputs out in order; what one of them causes at once comes behind the others.
    fn carry(&mut self, outputs: Vec<EdgeOutput>) {
        self.outputs.extend(outputs);
        if std::mem::replace(&mut self.carrying, true) {
            return;
        }
        while let Some(output) = self.outputs.pop_front() {
            match output {
                EdgeOutput::Send(flow, bytes) => {
                    self.post(vec![Sent { from: edge_sip(), to: flow.peer, bytes }]);
                }
                EdgeOutput::Media(command) => self.order_media(command),
                EdgeOutput::OpenDoor { stream, .. } => {
                    if self.voice_agent_reachable {
                        self.stream = Some(stream);
                        self.give(EdgeInput::DoorOpened(stream));
                    } else {
                        self.give(EdgeInput::DoorClosed(stream, LegCause::Unreachable));
                    }
                }
                EdgeOutput::CloseDoor(_) => {
                    self.stream = None;
                    self.unanswered = None;
                }
                EdgeOutput::Desktop(agent, push) => self.push(agent, push),
                EdgeOutput::Fact(event) => {
                    self.decide(&event);
                    self.facts.push(*event);
                }
                EdgeOutput::Decision(_, decision, _) => self.published.push(*decision),
                EdgeOutput::NeedPorts(count) => {
                    let count = u16::try_from(count).unwrap_or(u16::MAX);
                    let ports = (0..count).map(|n| Port(self.next_port + 2 * n)).collect();
                    self.next_port += 2 * count;
                    self.give(EdgeInput::Ports(ports));
                }
                // What would be synthesised for the human agent is two seconds of its own tone.
                EdgeOutput::PrepareSpeech { text, lang } => {
                    let speech = tone::sine(tones::WHISPER, 8_000, 16_000);
                    let bytes: Vec<u8> =
                        speech.iter().map(|sample| codec::encode(Codec::Pcmu, *sample)).collect();
                    self.engine.prompt_ready(SpeechKey::of(text.expose(), &lang), Audio::from(bytes));
                }
                EdgeOutput::DiscardRecordings(_) => self.recorded.clear(),
                EdgeOutput::Close(_) | EdgeOutput::DoorStatus { .. } | EdgeOutput::Forget(_) => {}
            }
        }
        self.carrying = false;
    }

    fn order_media(&mut self, command: MediaCommand) {
        let closed = match &command {
            MediaCommand::Close { call, leg } => Some((call.clone(), *leg)),
            MediaCommand::Open { .. }
            | MediaCommand::Remote { .. }
            | MediaCommand::Apply(_)
            | MediaCommand::Clear { .. }
            | MediaCommand::Drain { .. }
            | MediaCommand::SendDigits { .. }
            | MediaCommand::Record { .. } => None,
        };
        self.engine.command(self.now, command, &mut self.media);
        self.carry_media();
        if let Some((call, leg)) = closed {
            self.closed.push((call, leg));
        }
    }

    fn push(&mut self, agent: HumanAgentId, push: DesktopPush) {
        let acked = match &push {
            DesktopPush::Card { transfer, payload } => Some((transfer.clone(), payload.revision)),
            DesktopPush::Accepted { transfer, revision } => Some((transfer.clone(), *revision)),
            DesktopPush::Incoming { .. }
            | DesktopPush::Caption { .. }
            | DesktopPush::Bridged { .. }
            | DesktopPush::Ended { .. } => None,
        };
        self.pushes.push((self.now, agent.clone(), push));
        if let Some((transfer, revision)) = acked.filter(|_| self.desktops_acknowledge) {
            self.give(EdgeInput::DesktopAcked(agent, transfer, revision));
        }
    }

    /// The cloud: the same policy, a moment later.
    fn decide(&mut self, event: &CallEvent) {
        let (Cloud::Decides(after), Some(evaluable)) = (self.cloud, &event.evaluable) else { return };
        let policy = Policy::default();
        let Some(trigger) = policy.evaluate(&evaluable.snapshot, &evaluable.stimulus) else { return };
        let decision = Decision {
            decision_id: DecisionId::of(&evaluable.transfer_id),
            transfer_id: evaluable.transfer_id.clone(),
            call_id: event.call.clone(),
            trigger,
            policy_version: policy.version().to_owned(),
            origin: Origin::Function,
        };
        let command = Command {
            id: format!("{}:{}", event.call, event.seq),
            call_id: event.call.clone(),
            body: CommandBody::TransferDecided { decision },
        };
        self.commanded.push(command.clone());
        self.commands.push_back((self.now + after, command));
    }
}

fn trunk(name: &str, network: &str) -> TrunkConfig {
    TrunkConfig {
        name: name.to_owned(),
        addresses: vec![network.parse().expect("a valid network")],
        certificate: None,
        port: None,
        call_type: None,
        hold_by_reinvite: true,
        credentials: None,
        rel100: Rel100::default(),
        srtp: SrtpPolicy::default(),
    }
}

/// A party outside the edge: it knows the edge by its address.
fn outside(own: SocketAddr) -> SipConfig {
    SipConfig {
        trunks: vec![trunk("edge", "192.0.2.1/32")],
        domains: vec!["phone.example".to_owned()],
        ..SipConfig::new(own, &own.ip().to_string())
    }
}

/// The edge of these worlds, with these people.
pub fn edge_config(agents: &[String], recording: bool) -> EdgeConfig {
    let queue = QueueId::parse("nurse_line").expect("a valid id");
    let people: Vec<HumanAgentId> =
        agents.iter().map(|name| HumanAgentId::parse(name).expect("a valid id")).collect();
    let rules = CallRules {
        tenant: TenantId::parse("t_world").expect("a valid id"),
        edge: EdgeId::parse("edge_world").expect("a valid id"),
        policy: Arc::new(Policy::default()),
        catalog: Arc::default(),
        queues: vec![QueueRules {
            id: queue.clone(),
            spoken: "dest.nurse".to_owned(),
            attempts_max: 3,
            patience: None,
            payload_ack: PayloadAck::Desktop,
            fallback: vec![Fallback::VoiceAgent],
            on_agent_bye: Survivor::End,
            on_agent_lost: Survivor::Reoffer,
            mode: Mode::Warm,
            wait_default_s: 30,
        }],
        lang: "en".to_owned(),
        disclosure: "disclosure.ai_recording.en".to_owned(),
        hold_by_reinvite: true,
        recording,
        on_voice_agent_bye: OnVoiceAgentBye::TransferDefault,
        rtp_timeout: Duration::from_secs(20),
        cancel_while_waiting: false,
        public_url: "https://warmbridge.example".to_owned(),
    };
    EdgeConfig {
        rules: Arc::new(rules),
        media_ip: edge_sip().ip(),
        sip: SipConfig {
            trunks: vec![trunk("carrier", "192.0.2.2/32")],
            users: agents
                .iter()
                .map(|name| UserConfig {
                    name: name.clone(),
                    secret: Secret::Password(Pii::new(PASSWORD.to_owned())),
                    allow_md5: false,
                    uri: None,
                })
                .collect(),
            ..SipConfig::new(edge_sip(), &edge_sip().ip().to_string())
        },
        call_types: BTreeMap::new(),
        people: people
            .iter()
            .map(|id| Person {
                id: id.clone(),
                dial: Dial::Registered(id.to_string()),
                ring_timeout: Duration::from_secs(20),
                accept_timeout: Duration::from_secs(20),
                lang: "en".to_owned(),
                trusted: true,
                accept_on_answer: false,
            })
            .collect(),
        queues: vec![Members { queue, people }],
        tag_key: Pii::new([7; 32]),
        calls_max: 10,
        commands: String::new(),
    }
}
