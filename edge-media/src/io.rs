//! The shell: the only code of the edge with sockets, threads, clocks and disks. One task
//! owns the edge and serves, in this order: outputs whose facts are on disk, due timers,
//! media reports, signalling, doors and desktops, commands. It decides nothing.
//!
//! A fact is on disk before anything that follows from it is visible: effects that come
//! behind a fact wait for its commit. Media routing and SIP retransmissions never wait.

pub mod clock;
mod descriptors;
mod dns;
mod held;
pub mod http;
pub mod media;
pub mod names;
pub mod net;
mod notify;
mod pages;
pub mod receiver;
pub mod recording;
pub mod servers;
pub mod speech;
pub mod spool;
pub mod stream;
pub mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use handoff::call::DesktopPush;
use handoff::call::outcome::LegCause;
use handoff::clock::Timestamp;
use handoff::event::StoredRecording;
use handoff::id::{CallId, LegId};
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::control::ControlPlane;
use crate::desktop::Desktops;
use crate::edge::{Edge, EdgeCounters, EdgeHolding, EdgeInput, EdgeOutput, PORT_STOCK};
use crate::io::clock::Clock;
use crate::io::held::{Came, Held, Waits, came};
use crate::io::http::events::{EventLog, Told};
use crate::io::http::{DesktopSockets, HttpRequest};
use crate::io::media::{MediaCounters, MediaHandle};
use crate::io::net::{Listeners, Net, NetCounters, NetEvent};
use crate::io::recording::{RECORDINGS, Recorder, RecordingQueue};
use crate::io::spool::Spool;
use crate::io::stream::{CloseReason, Dialer, Door, DoorEvent};
use crate::link::twilio::{Session, StreamIds};
use crate::media::{Carrier, MediaCommand, Port, StreamIn, StreamKey, StreamOut};
use crate::setup::Setup;
use crate::sip::{CertificateFault, UplinkChange, UplinkNews, advice};

/// The loop answers within this time or is taken for standing: it never works longer at once.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The functions may finish what is queued for this long at a stop, so that the chains of the
/// last calls are closed. Longer is the business of the next start: nothing is lost.
const FINISH: Duration = Duration::from_secs(5);

/// Inputs of one kind handled before the others get a turn.
const BUDGET: usize = 64;

/// Effects that wait for the disk, in all calls together. Beyond this the disk is not late,
/// it is gone; the edge then refuses new calls and keeps running ones on the media path.
const HELD_MAX: usize = 65_536;

/// How often the log tells what was refused and dropped, if anything was. More often would
/// give whoever sends garbage a line of the log for little.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Facts shown to a local listener (the demo's progress). A slow listener misses some.
const SHOWN_MAX: usize = 1_024;

/// Reports of stored recordings that may wait for the loop: the legs of some hundred calls that
/// end at once. A call whose report is lost ends a few seconds later, without its digest.
const RECORDINGS_MAX: usize = 1_024;

/// Runs the edge until it is told to stop. The exit code of a drain is 0.
pub async fn serve(path: PathBuf) -> Result<ExitCode> {
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(errors) => {
            crate::cli::print_line(&errors.to_string());
            return Ok(ExitCode::FAILURE);
        }
    };
    descriptors::raise_limit();
    let mut drain_max = config.edge.drain_max;
    let server = Server::start(config).await?;
    let manager = notify::Manager::of_environment();
    manager.ready();
    info!(sip = %server.sip, http = %server.http, "ready");
    let mut sign_of_life = tokio::time::interval(manager.interval());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut hang_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = sign_of_life.tick() => if server.is_alive().await { manager.alive() },
            _ = hang_up.recv() => match Config::load(&path) {
                Ok(config) => {
                    drain_max = config.edge.drain_max;
                    server.reload(config).await;
                }
                Err(errors) => warn!("the new configuration is refused, the old one stays: {errors}"),
            },
        }
    }
    info!("draining: no new calls, running ones go on");
    manager.stopping(drain_max + FINISH);
    {
        let mut draining = pin!(server.drain(drain_max));
        loop {
            tokio::select! {
                () = &mut draining => break,
                _ = sign_of_life.tick() => if server.is_alive().await { manager.alive() },
            }
        }
    }
    manager.finishing();
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// A running edge with its functions.
#[derive(Debug)]
pub struct Server {
    /// Where SIP over UDP is bound.
    pub sip: SocketAddr,
    /// Where SIP over TCP is bound.
    pub sip_tcp: Option<SocketAddr>,
    /// Where the desktop page and the API are.
    pub http: SocketAddr,
    orders: mpsc::Sender<Order>,
    shown: broadcast::Sender<Shown>,
    control: ControlPlane,
    media: Arc<MediaHandle>,
    recorder: Recorder,
    task: tokio::task::JoinHandle<Arc<MediaHandle>>,
    http_task: tokio::task::JoinHandle<()>,
    http_config: watch::Sender<Arc<Config>>,
    http_stop: Option<oneshot::Sender<()>>,
}

/// One fact, for a local listener: names only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub call: CallId,
    /// The audit type of the fact.
    pub fact: String,
}

enum Order {
    Reload(Box<Setup>),
    Resolved(Vec<(String, SocketAddr)>),
    Servers(Vec<(String, Vec<(String, SocketAddr)>)>),
    Drain(oneshot::Sender<()>),
    Answer(oneshot::Sender<()>),
    Stop,
}

impl Server {
    /// Opens the store, binds every port, starts media, functions and the loop.
    pub async fn start(config: Config) -> Result<Self> {
        let clock = Clock::start();
        let store = ControlPlane::open(&config).context("the embedded store cannot start")?;
        let mut setup = Setup::of(&config, &store)?;
        let (control, commands) = ControlPlane::start(store, &config, &mut setup).await?;
        let clips = crate::media::prompt::ClipStore::embedded();
        let (media, reports) =
            MediaHandle::start(&setup.media, clips, clock).context("the media threads cannot start")?;
        let ports = media.take_ports(PORT_STOCK).context("no RTP port can be bound")?;
        let media = Arc::new(media);
        let (recordings, recording_queue) = mpsc::channel(RECORDINGS_MAX);
        let recorder = Recorder::start(
            config.edge.data_dir.join(RECORDINGS),
            Box::new(move |call, leg, recording| {
                // The disk never waits for the loop.
                let _ = recordings.try_send((call, leg, recording));
            }),
        )
        .context("the recorder cannot start")?;
        media.record_to(&recorder);
        let udp = config.edge.sip_udp.context("[edge] sip_udp is not set")?;
        let listeners = Listeners {
            udp,
            tcp: config.edge.sip_tcp,
            tls: config.edge.sip_tls,
            ws: config.edge.sip_ws,
            wss: config.edge.sip_wss,
            certificate: config.edge.tls.clone(),
        };
        let (net, net_events) = Net::bind(listeners).await.context("SIP cannot listen")?;
        let listener = TcpListener::bind(config.edge.http).await.context("HTTP cannot listen")?;
        let http = listener.local_addr()?;
        let (http_requests, http_queue) = http::requests();
        let dialer = Dialer::new(&config.voice_agent)?;
        let (http_config, watched) = watch::channel(Arc::new(config));
        let (http_stop, stopped) = oneshot::channel::<()>();
        let events = Arc::new(EventLog::new(seed()? as u32));
        let told = Arc::clone(&events);
        let http_task =
            tokio::spawn(http::serve(listener, watched.clone(), http_requests, told, async move {
                // Also when the sender is dropped.
                let _ = stopped.await;
            }));
        let (sip, sip_tcp) = (net.bound.udp, net.bound.tcp);
        let edge = Edge::new(setup.edge(net.bound), seed()?);
        let (orders, order_queue) = mpsc::channel(16);
        // Ends by itself when the configuration's sender is gone.
        tokio::spawn(names::keep(watched.clone(), clock, orders.clone()));
        let reloaded = Arc::new(Notify::new());
        tokio::spawn(servers::keep(watched.clone(), Arc::clone(&reloaded), orders.clone()));
        let (shown, _) = broadcast::channel(SHOWN_MAX);
        let (door_events, door_queue) = mpsc::channel(1_024);
        let shell = Shell {
            edge,
            clock,
            net,
            media: Arc::clone(&media),
            recording: recorder.queue(),
            desktops: Desktops::default(),
            pages: DesktopSockets::default(),
            config: watched,
            doors: BTreeMap::new(),
            call_sids: BTreeMap::new(),
            stream_ends: BTreeMap::new(),
            door_events,
            dialer,
            spool: Spool::new(control.store().clone(), Arc::clone(&setup.functions), control.place()),
            held: VecDeque::new(),
            events,
            shown: shown.clone(),
            drained: None,
            told: Counted::default(),
            reloaded,
        };
        let sources = Sources {
            orders: order_queue,
            net: net_events,
            media: reports,
            recordings: recording_queue,
            http: http_queue,
            doors: door_queue,
            commands,
        };
        let task = tokio::spawn(shell.run(sources, ports));
        Ok(Self {
            sip,
            sip_tcp,
            http,
            orders,
            shown,
            control,
            media,
            recorder,
            task,
            http_task,
            http_config,
            http_stop: Some(http_stop),
        })
    }

    /// Facts as they are recorded, for a local listener.
    pub fn shown(&self) -> broadcast::Receiver<Shown> {
        self.shown.subscribe()
    }

    /// The media plane.
    pub fn media(&self) -> &MediaHandle {
        &self.media
    }

    /// The functions, wherever they run, and the store of this machine.
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// Takes over a new configuration for calls that arrive from now on.
    pub async fn reload(&self, config: Config) {
        let setup = match Setup::of(&config, self.control.store()) {
            // Before the first call that is pinned to it.
            Ok(mut setup) => self.control.reload(&mut setup).await.map(|()| setup),
            Err(error) => Err(error),
        };
        match setup {
            Ok(setup) => {
                self.http_config.send_replace(Arc::new(config));
                let _ = self.orders.send(Order::Reload(Box::new(setup))).await;
                info!("the new configuration holds for new calls");
            }
            Err(error) => warn!("the new configuration is refused, the old one stays: {error:#}"),
        }
    }

    /// Whether the loop answers, in its turn, within [`ANSWER_MAX`].
    async fn is_alive(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = async { self.orders.send(Order::Answer(answer)).await.is_ok() && answered.await.is_ok() };
        tokio::time::timeout(ANSWER_MAX, asked).await.unwrap_or(false)
    }

    /// Takes no new calls and waits until the running ones have ended, `grace` at most;
    /// then ends them.
    pub async fn drain(&self, grace: Duration) {
        let (done, drained) = oneshot::channel();
        if self.orders.send(Order::Drain(done)).await.is_ok()
            && tokio::time::timeout(grace, drained).await.is_err()
        {
            warn!("the grace time is over: ending the calls that are left");
        }
    }

    /// Ends every call, lets the functions finish what is queued, and closes the store.
    pub async fn stop(mut self) {
        let _ = self.orders.send(Order::Stop).await;
        let media = self.task.await;
        drop(self.http_stop.take());
        let _ = self.http_task.await;
        drop(media);
        // The loop was the only other owner.
        if let Some(media) = Arc::into_inner(self.media) {
            let recorder = self.recorder;
            let _ = tokio::task::spawn_blocking(move || {
                // In this order: nothing is recorded behind the end.
                media.stop();
                recorder.stop();
            })
            .await;
        }
        if !matches!(tokio::time::timeout(FINISH, self.control.idle()).await, Ok(Ok(()))) {
            info!("what is queued stays queued until the next start");
        }
        self.control.stop().await;
    }
}

/// Tells whoever reads the log how it stands with a trunk.
fn tell_trunk(news: &UplinkNews) {
    let trunk = &news.trunk;
    match news.change {
        UplinkChange::Registered => info!(trunk, "the trunk is registered"),
        UplinkChange::Up => info!(trunk, "the trunk answers again"),
        UplinkChange::Down(status) => warn!(trunk, status, "the trunk does not answer OPTIONS"),
        UplinkChange::Failed(status) => {
            warn!(trunk, status, "the trunk is not registered, and is tried again: {}", advice(status));
        }
        UplinkChange::Lost => {
            warn!(trunk, "the connection that the trunk was registered over is lost: registering anew");
        }
        UplinkChange::Left => info!(trunk, "the trunk's registration is taken back"),
        UplinkChange::NotLeft(status) => {
            warn!(trunk, status, "the trunk's registration is not taken back: it ends by itself");
        }
        UplinkChange::Stopped => {
            warn!(trunk, "the trunk refuses the registration, and is not asked again: {}", advice(Some(403)));
        }
    }
}

/// Tells who was refused for a certificate that is good, and not the one that was wanted.
fn tell_certificate(fault: &CertificateFault) {
    match fault {
        CertificateFault::Lacking { trunk } => warn!(
            trunk,
            "a connection from the trunk's address does not show the trunk's certificate: refused"
        ),
        CertificateFault::Unknown { names } => warn!(
            ?names,
            "a connection shows a certificate that is no trunk's: refused; see certificate of [[trunk]]"
        ),
    }
}

/// The door's ends of a stream's queues.
type StreamEnds = (mpsc::Sender<StreamIn>, mpsc::Receiver<StreamOut>);

/// 128 bits of the operating system's randomness.
fn seed() -> Result<u128> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    Ok(u128::from_be_bytes(bytes))
}

struct Sources {
    orders: mpsc::Receiver<Order>,
    net: mpsc::Receiver<NetEvent>,
    media: mpsc::Receiver<crate::media::MediaEvent>,
    recordings: mpsc::Receiver<(CallId, LegId, StoredRecording)>,
    http: mpsc::Receiver<HttpRequest>,
    doors: mpsc::Receiver<(StreamKey, DoorEvent)>,
    commands: mpsc::Receiver<handoff::command::Command>,
}

struct Shell {
    edge: Edge,
    clock: Clock,
    net: Net,
    media: Arc<MediaHandle>,
    recording: RecordingQueue,
    desktops: Desktops,
    pages: DesktopSockets,
    config: watch::Receiver<Arc<Config>>,
    doors: BTreeMap<StreamKey, Door>,
    /// The stream of each name by which a voice agent may refer to its call over HTTP.
    call_sids: BTreeMap<String, StreamKey>,
    stream_ends: BTreeMap<StreamKey, StreamEnds>,
    door_events: mpsc::Sender<(StreamKey, DoorEvent)>,
    dialer: Dialer,
    spool: Spool,
    held: VecDeque<Held>,
    events: Arc<EventLog>,
    shown: broadcast::Sender<Shown>,
    drained: Option<oneshot::Sender<()>>,
    told: Counted,
    /// Tells that a new configuration has been taken over.
    reloaded: Arc<Notify>,
}

/// What the parts of the edge counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted {
    edge: EdgeCounters,
    sip: crate::sip::Counters,
    net: NetCounters,
    media: MediaCounters,
    holding: EdgeHolding,
}

impl Shell {
    async fn run(mut self, mut from: Sources, ports: Vec<Port>) -> Arc<MediaHandle> {
        self.step(EdgeInput::Ports(ports));
        let mut tell = tokio::time::interval(TELL_EVERY);
        loop {
            let timer = self.edge.next_timeout();
            let wait = timer.map(|due| due.since(self.clock.now()));
            tokio::select! {
                biased;
                came = came(self.held.front_mut()) => self.release(came),
                () = sleep(wait), if wait.is_some() => self.step(EdgeInput::Timeout),
                Some(event) = from.media.recv() => {
                    self.step(EdgeInput::Media(event));
                    self.drain_queue(&mut from.media, EdgeInput::Media);
                }
                Some(event) = from.net.recv() => self.on_net(event),
                Some((call, leg, recording)) = from.recordings.recv() => {
                    self.step(EdgeInput::RecordingStored(call, leg, recording));
                }
                Some((stream, event)) = from.doors.recv() => self.on_door(stream, event),
                Some(request) = from.http.recv() => self.on_http(request),
                Some(command) = from.commands.recv() => self.step(EdgeInput::Command(Box::new(command))),
                order = from.orders.recv() => match order {
                    Some(Order::Reload(setup)) => {
                        self.spool.reload(Arc::clone(&setup.functions));
                        self.net.renew(self.config.borrow().edge.tls.clone());
                        self.step(EdgeInput::Reload(Box::new(setup.edge(self.net.bound))));
                        self.reloaded.notify_one();
                        match Dialer::new(&self.config.borrow().voice_agent) {
                            Ok(dialer) => self.dialer = dialer,
                            Err(error) => warn!(%error, "the voice agent's door stays as it was"),
                        }
                    }
                    Some(Order::Resolved(hosts)) => {
                        self.net.learn(&hosts);
                        self.step(EdgeInput::Resolved(hosts));
                    }
                    Some(Order::Servers(servers)) => {
                        self.net.learn_servers(servers.iter().flat_map(|(_, found)| found));
                        let bare = |found: Vec<(String, SocketAddr)>| found.into_iter().map(|(_, at)| at).collect();
                        let servers = servers.into_iter().map(|(trunk, found)| (trunk, bare(found)));
                        self.step(EdgeInput::Servers(servers.collect()));
                    }
                    Some(Order::Drain(done)) => {
                        self.drained = Some(done);
                        self.step(EdgeInput::Drain);
                    }
                    Some(Order::Answer(answer)) => {
                        // Who asked may have waited long enough.
                        let _ = answer.send(());
                    }
                    Some(Order::Stop) | None => break,
                },
                _ = tell.tick() => self.tell_counted(),
            }
            if self.edge.standings().next().is_none()
                && !self.edge.is_leaving()
                && let Some(done) = self.drained.take()
            {
                let _ = done.send(());
            }
        }
        self.wind_up(&mut from).await;
        self.media
    }

    /// Tells what was counted, where it is not what was told last.
    fn tell_counted(&mut self) {
        let media = self.media.counters();
        // A new worst lateness alone is no news.
        let counted = Counted {
            edge: self.edge.counters(),
            sip: self.edge.sip_counters().clone(),
            net: self.net.counters(),
            media: MediaCounters { tick_lateness_max_us: 0, ..media },
            holding: self.edge.holding(),
        };
        if counted != self.told {
            let holding = &counted.holding;
            info!(edge = ?counted.edge, sip = ?counted.sip, net = ?counted.net, ?media, ?holding, "counted so far");
            self.told = counted;
        }
    }

    /// Ends what still runs and waits for the disk.
    async fn wind_up(&mut self, from: &mut Sources) {
        self.step(EdgeInput::Stop);
        self.settle().await;
        // BYEs are on the wire; their answers, and the recordings, have half a second to arrive.
        let deadline = self.clock.now() + Duration::from_millis(500);
        while self.clock.now() < deadline && self.edge.standings().next().is_some() {
            tokio::select! {
                came = came(self.held.front_mut()) => self.release(came),
                Some(event) = from.net.recv() => self.on_net(event),
                Some((call, leg, recording)) = from.recordings.recv() => {
                    self.step(EdgeInput::RecordingStored(call, leg, recording));
                }
                () = tokio::time::sleep(Duration::from_millis(20)) => self.step(EdgeInput::Timeout),
            }
        }
        self.settle().await;
        if !self.spool.is_empty() {
            // What the disk refused has one more try.
            let again = self.spool.flush();
            self.held.push_back(Held::behind(again, VecDeque::new(), Vec::new()));
            self.settle().await;
        }
        self.tell_counted();
    }

    /// Waits until nothing waits for the disk.
    async fn settle(&mut self) {
        while !self.held.is_empty() {
            let came = came(self.held.front_mut()).await;
            self.release(came);
        }
    }

    fn drain_queue<T>(&mut self, queue: &mut mpsc::Receiver<T>, input: impl Fn(T) -> EdgeInput) {
        for _ in 0..BUDGET {
            let Ok(item) = queue.try_recv() else { return };
            self.step(input(item));
        }
    }

    /// One input to the edge, and its outputs carried out or held.
    fn step(&mut self, input: EdgeInput) {
        let outputs = self.edge.handle(self.clock.moment(), input);
        self.take(outputs);
        self.edge.take_trunk_news().iter().for_each(tell_trunk);
        self.edge.take_certificate_faults().iter().for_each(tell_certificate);
    }

    /// Facts go to the spool; what stands behind one waits for its commit, except media and
    /// speech. Anything behind effects that already wait for an earlier fact of the same
    /// call keeps its order, because commits come in order.
    fn take(&mut self, outputs: Vec<EdgeOutput>) {
        let mut effects = VecDeque::new();
        let mut journalled = false;
        let mut shown = Vec::new();
        let mut told = Vec::new();
        for output in outputs {
            match output {
                EdgeOutput::Fact(event) => {
                    let fact = event.fact.kind().to_owned();
                    shown.push(Shown { at: event.time, call: event.call.clone(), fact });
                    told.push(Told::of(&event));
                    self.spool.push(&event);
                    journalled = true;
                }
                EdgeOutput::Decision(evaluable, decision, sequence) => {
                    self.spool.push_decision(&evaluable, &decision, sequence);
                    journalled = true;
                }
                EdgeOutput::Forget(call) => self.spool.forget(&call),
                effect @ (EdgeOutput::Media(_)
                | EdgeOutput::DiscardRecordings(_)
                | EdgeOutput::PrepareSpeech { .. }
                | EdgeOutput::NeedPorts(_)) => {
                    self.carry(effect);
                }
                effect @ (EdgeOutput::Send(..)
                | EdgeOutput::Close(_)
                | EdgeOutput::OpenDoor { .. }
                | EdgeOutput::DoorStatus { .. }
                | EdgeOutput::CloseDoor(_)
                | EdgeOutput::Desktop(..)) => {
                    if journalled {
                        effects.push_back(effect);
                    } else {
                        self.carry(effect);
                    }
                }
            }
        }
        if journalled {
            let stored = self.spool.flush();
            for fact in shown {
                // Nobody listening is the normal case.
                let _ = self.shown.send(fact);
            }
            if self.held.len() < HELD_MAX {
                self.held.push_back(Held::behind(stored, effects, told));
            } else {
                warn!("the disk is gone: effects go out before their facts are stored");
                effects.into_iter().for_each(|effect| self.carry(effect));
            }
        }
    }

    /// The facts at the front are on disk, or refused by it, which must not silence a call:
    /// their effects go out. What is to be sent once a page announces it waits for that page.
    fn release(&mut self, came: Came) {
        let Some(Held { waits, mut effects, told }) = self.held.pop_front() else { return };
        if let (Waits::Disk(rows), Came::Stored(Err(error))) = (waits, came) {
            warn!(%error, "facts could not be stored; they are tried again");
            let again = self.spool.refused(&rows, &error);
            let bare = |stored| Held::behind(stored, VecDeque::new(), Vec::new());
            self.held.extend(again.into_iter().map(bare));
        }
        let mut announced = Vec::new();
        while let Some(effect) = effects.pop_front() {
            if let EdgeOutput::Desktop(agent, push @ DesktopPush::Incoming { .. }) = &effect {
                if let Some(message) = self.desktops.push(self.clock.now(), agent, push) {
                    announced.extend(self.pages.send_all_watched(agent, &message));
                }
            } else if matches!(effect, EdgeOutput::Send(..)) && !announced.is_empty() {
                effects.push_front(effect);
                self.held.push_front(Held::behind_pages(announced, effects, told));
                return;
            } else {
                self.carry(effect);
            }
        }
        let queues_moved = told.iter().any(|told| moves_queues(told.kind));
        told.into_iter().for_each(|told| self.events.push(told));
        if queues_moved {
            self.show_waiting();
        }
    }

    fn carry(&mut self, effect: EdgeOutput) {
        match effect {
            EdgeOutput::Send(flow, bytes) => self.net.send(flow, bytes),
            EdgeOutput::Close(flow) => self.net.close(flow),
            EdgeOutput::Media(command) => {
                // The media plane takes over a stream's queues when its leg is opened, which
                // waits for nothing; the door gets the other ends when its fact is on disk.
                if let MediaCommand::Open { carrier: Carrier::Stream(key), .. } = &command {
                    self.stream_ends.insert(*key, self.media.open_stream(*key));
                }
                // The recorder has the key before the first frame comes.
                if let MediaCommand::Record { call, leg, on: true } = &command
                    && let Some(key) = self.spool.key(call)
                {
                    self.recording.begin(call.clone(), *leg, key);
                }
                if !self.media.command(command) {
                    warn!("the media plane is behind: an order was dropped");
                }
            }
            EdgeOutput::DiscardRecordings(call) => self.recording.discard(call),
            EdgeOutput::PrepareSpeech { text, lang } => self.media.prepare(text, &lang),
            EdgeOutput::OpenDoor { stream, call } => self.open_door(stream, &call),
            EdgeOutput::DoorStatus { stream, status, eta_s } => {
                if let Some(door) = self.doors.get(&stream) {
                    door.status(status, eta_s);
                }
            }
            EdgeOutput::CloseDoor(stream) => {
                self.stream_ends.remove(&stream);
                self.call_sids.retain(|_, named| *named != stream);
                if let Some(door) = self.doors.remove(&stream) {
                    door.close();
                }
            }
            EdgeOutput::Desktop(agent, push) => {
                if let Some(message) = self.desktops.push(self.clock.now(), &agent, &push) {
                    self.pages.send_all(&agent, &message);
                }
            }
            EdgeOutput::NeedPorts(count) => match self.media.take_ports(count) {
                Ok(ports) => self.step(EdgeInput::Ports(ports)),
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    if self.edge.is_ready() {
                        debug!("no further RTP port could be bound: {error:#}");
                    } else {
                        warn!("no RTP port could be bound: {error:#}");
                    }
                    self.step(EdgeInput::Ports(Vec::new()));
                }
            },
            // Carried out where they are taken.
            EdgeOutput::Fact(_) | EdgeOutput::Decision(..) | EdgeOutput::Forget(_) => {}
        }
    }

    fn on_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Bytes(flow, bytes) => self.step(EdgeInput::Bytes(flow, bytes)),
            NetEvent::Opened(flow, writer) => self.net.opened(flow, writer),
            NetEvent::Vouched { flow, names, dialled } => {
                self.step(EdgeInput::Vouched { flow, names, dialled });
            }
            NetEvent::Closed(flow) => {
                self.net.closed(flow);
                self.step(EdgeInput::ConnectionClosed(flow));
            }
        }
    }

    fn on_door(&mut self, stream: StreamKey, event: DoorEvent) {
        match event {
            DoorEvent::Opened => self.step(EdgeInput::DoorOpened(stream)),
            DoorEvent::Signal(signal) => self.step(EdgeInput::DoorSignal(stream, signal)),
            DoorEvent::Silent(silent) => {
                info!(silent, "the voice agent's link answers nothing, or does again");
                self.step(EdgeInput::DoorSilent(stream, silent));
            }
            DoorEvent::Malformed(why) => warn!(?why, "the voice agent sent something unusable"),
            DoorEvent::Closed { reason, tally, dropped } => {
                info!(?reason, ?tally, ?dropped, "the voice agent's link is closed");
                self.doors.remove(&stream);
                self.call_sids.retain(|_, named| *named != stream);
                let cause = match reason {
                    CloseReason::RemoteClosed => LegCause::RemoteHangUp,
                    CloseReason::Local => LegCause::LocalHangUp,
                    CloseReason::ConnectTimeout | CloseReason::Unreachable | CloseReason::Refused(_) => {
                        LegCause::Unreachable
                    }
                    CloseReason::Lost | CloseReason::Stalled | CloseReason::Protocol => LegCause::Lost,
                };
                self.step(EdgeInput::DoorClosed(stream, cause));
            }
        }
    }

    fn open_door(&mut self, stream: StreamKey, call: &CallId) {
        let Ok([account, this_call, this_stream]) = [seed(), seed(), seed()]
            .into_iter()
            .collect::<Result<Vec<_>>>()
            .map(|drawn| <[u128; 3]>::try_from(drawn).unwrap_or_default())
        else {
            return self.step(EdgeInput::DoorClosed(stream, LegCause::Unreachable));
        };
        let ids = StreamIds::from_random(account, this_call, this_stream);
        self.call_sids.insert(ids.call_sid().to_owned(), stream);
        let session = Session::new(ids, call, &[]);
        let Some((to_media, from_media)) = self.stream_ends.remove(&stream) else {
            return self.step(EdgeInput::DoorClosed(stream, LegCause::Unreachable));
        };
        let events = self.door_events.clone();
        let door = stream::connect(&self.dialer, stream, session, to_media, from_media, events);
        self.doors.insert(stream, door);
    }
}

/// Facts after which another caller waits, one less, or for somebody else.
fn moves_queues(kind: &str) -> bool {
    ["transfer.", "agent.", "bridge.", "caller.", "call."].iter().any(|family| kind.starts_with(family))
}

async fn sleep(wait: Option<Duration>) {
    tokio::time::sleep(wait.unwrap_or_default()).await;
}
