//! One media thread.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use handoff::clock::Now;
use handoff::id::{CallId, LegId};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use tokio::sync::mpsc;

use super::port::PortSockets;
use super::{Gauges, MediaConfig, Order, StreamEnds};
use crate::io::clock::Clock;
use crate::io::recording::RecordingQueue;
use crate::media::engine::{Engine, EngineCounters, RecordedFrame, Sink};
use crate::media::prompt::ClipStore;
use crate::media::rtp::DATAGRAM_LEN_MAX;
use crate::media::{Carrier, MediaCommand, MediaEvent, Port, StreamKey, StreamOut, TICK};

/// The token of the clock; ports have their number.
const CLOCK_TOKEN: u64 = u64::MAX;
/// Sockets that are served between two looks at the clock.
const READY_MAX: usize = 64;
/// Datagrams of one socket in one turn. More waits for the next turn, so that a flood on one
/// port delays no other.
const DATAGRAMS_PER_TURN: usize = 16;
/// Pieces of one stream in one tick: five minutes of 20 ms pieces drain within a second.
const PIECES_PER_TICK: usize = 512;
/// A port rests until it was quiet for 30 s, and never longer than ten minutes: a peer that
/// still sends must not reach the next call, nor hold the port for ever.
const QUARANTINE_QUIET: Duration = Duration::from_secs(30);
const QUARANTINE_MAX: Duration = Duration::from_secs(600);
/// Ticks between two looks at the quarantine and the counters: one second.
const HOUSEKEEPING_TICKS: u64 = 50;
/// Above every ordinary thread, below what the system itself runs at.
const PRIORITY: u8 = 20;

pub(super) struct Worker {
    clock: Clock,
    engine: Engine,
    orders: Receiver<Order>,
    epoll: Epoll,
    timer: TimerFd,
    carriers: BTreeMap<(CallId, LegId), Carrier>,
    outside: Outside,
    quarantine: BTreeMap<Port, Resting>,
    gauges: Arc<Gauges>,
    /// What of the engine's counters the gauges already contain.
    published: EngineCounters,
    real_time: bool,
    ticks: u64,
}

/// Everything the engine's effects need.
struct Outside {
    sockets: BTreeMap<Port, PortSockets>,
    streams: BTreeMap<StreamKey, StreamEnds>,
    events: mpsc::Sender<MediaEvent>,
    recording: Option<RecordingQueue>,
    gauges: Arc<Gauges>,
}

struct Resting {
    since: Now,
    last_packet: Now,
}

impl Worker {
    pub(super) fn new(
        clock: Clock,
        clips: Arc<ClipStore>,
        orders: Receiver<Order>,
        events: mpsc::Sender<MediaEvent>,
        gauges: Arc<Gauges>,
        config: &MediaConfig,
    ) -> io::Result<Self> {
        let seed = getrandom::u64().map_err(io::Error::other)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, CLOCK_TOKEN))?;
        let outside = Outside {
            sockets: BTreeMap::new(),
            streams: BTreeMap::new(),
            events,
            recording: None,
            gauges: Arc::clone(&gauges),
        };
        Ok(Self {
            clock,
            engine: Engine::new(clips, seed),
            orders,
            epoll,
            timer,
            carriers: BTreeMap::new(),
            outside,
            quarantine: BTreeMap::new(),
            gauges,
            published: EngineCounters::default(),
            real_time: config.real_time,
            ticks: 0,
        })
    }

    /// Runs until it is stopped or the edge is gone.
    pub(super) fn run(mut self) {
        if self.real_time {
            ask_for_real_time();
        }
        let mut ready = [EpollEvent::empty(); READY_MAX];
        let mut deadline = self.clock.now();
        loop {
            let alarm = Expiration::OneShot(self.clock.deadline(deadline));
            if let Err(error) = self.timer.set(alarm, TimerSetTimeFlags::TFD_TIMER_ABSTIME) {
                tracing::error!(%error, "the media clock cannot be set");
                return;
            }
            let count = match self.epoll.wait(&mut ready, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    tracing::error!(%error, "the media thread cannot wait");
                    return;
                }
            };
            for event in ready.iter().take(count).filter(|event| event.data() != CLOCK_TOKEN) {
                self.receive(event.data());
            }
            let now = self.clock.now();
            if now < deadline {
                continue;
            }
            let lateness = u64::try_from(now.since(deadline).as_micros()).unwrap_or(u64::MAX);
            self.gauges.tick_lateness_max_us.fetch_max(lateness, Ordering::Relaxed);
            if !self.take_orders(now) {
                return;
            }
            self.take_streams(now);
            self.engine.tick(now, &mut self.outside);
            self.ticks += 1;
            if self.ticks.is_multiple_of(HOUSEKEEPING_TICKS) {
                self.housekeeping(now);
            }
            deadline = self.engine.next_tick().unwrap_or(now + TICK);
        }
    }

    /// Takes what has arrived on one socket.
    fn receive(&mut self, token: u64) {
        let Ok(number) = u16::try_from(token) else { return };
        let port = Port(number & !1);
        let mut buffer = [0; DATAGRAM_LEN_MAX + 1];
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(sockets) = self.outside.sockets.get(&port) else { return };
            let socket = if number == port.0 { &sockets.rtp } else { &sockets.rtcp };
            let (length, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The echo of an unreachable peer; the next read may succeed.
                Err(_) => continue,
            };
            let now = self.clock.now();
            if let Some(resting) = self.quarantine.get_mut(&port) {
                resting.last_packet = now;
                continue;
            }
            let bytes = buffer.get_mut(..length).unwrap_or_default();
            if number == port.0 {
                self.engine.packet(now, port, unmapped(from), bytes, &mut self.outside);
            } else {
                self.engine.control_packet(now, port, bytes);
            }
        }
    }

    /// Carries out what waits; false when the edge has stopped or is gone.
    fn take_orders(&mut self, now: Now) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Command(command)) => self.command(now, command),
                Ok(Order::Sockets(port, sockets)) => self.attach(port, sockets),
                Ok(Order::Stream(key, ends)) => {
                    self.outside.streams.insert(key, ends);
                }
                Ok(Order::Speech(key, audio)) => self.engine.prompt_ready(key, audio),
                Ok(Order::Recording(queue)) => self.outside.recording = Some(queue),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn command(&mut self, now: Now, command: MediaCommand) {
        let mut closed = None;
        match &command {
            MediaCommand::Open { call, leg, carrier } => {
                self.carriers.insert((call.clone(), *leg), *carrier);
            }
            MediaCommand::Close { call, leg } => {
                closed = self.carriers.remove(&(call.clone(), *leg));
                if let Some(queue) = &self.outside.recording {
                    queue.end(call.clone(), *leg);
                }
            }
            MediaCommand::Remote { .. }
            | MediaCommand::Apply(_)
            | MediaCommand::Clear { .. }
            | MediaCommand::Drain { .. }
            | MediaCommand::SendDigits { .. }
            | MediaCommand::Record { .. } => {}
        }
        self.engine.command(now, command, &mut self.outside);
        match closed {
            Some(Carrier::Rtp(port)) if self.outside.sockets.contains_key(&port) => {
                self.quarantine.insert(port, Resting { since: now, last_packet: now });
            }
            Some(Carrier::Stream(key)) => {
                self.outside.streams.remove(&key);
            }
            Some(Carrier::Rtp(_)) | None => {}
        }
    }

    fn attach(&mut self, port: Port, sockets: PortSockets) {
        for (socket, token) in [(&sockets.rtp, port.0), (&sockets.rtcp, port.0 + 1)] {
            if let Err(error) = self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token.into())) {
                tracing::error!(%error, "a media port cannot be watched");
            }
        }
        self.outside.sockets.insert(port, sockets);
    }

    fn take_streams(&mut self, now: Now) {
        let keys: Vec<StreamKey> = self.outside.streams.keys().copied().collect();
        for key in keys {
            for _ in 0..PIECES_PER_TICK {
                let Some(ends) = self.outside.streams.get_mut(&key) else { break };
                let Ok(input) = ends.input.try_recv() else { break };
                self.engine.stream_in(now, key, input, &mut self.outside);
            }
        }
    }

    fn housekeeping(&mut self, now: Now) {
        let rested: Vec<Port> = self
            .quarantine
            .iter()
            .filter(|(_, resting)| {
                now.since(resting.last_packet) >= QUARANTINE_QUIET
                    || now.since(resting.since) >= QUARANTINE_MAX
            })
            .map(|(port, _)| *port)
            .collect();
        for port in rested {
            self.quarantine.remove(&port);
            if let Some(sockets) = self.outside.sockets.remove(&port) {
                // Closing a socket takes it out of the poll set as well.
                drop(sockets);
            }
        }
        let counters = self.engine.counters();
        let before = core::mem::replace(&mut self.published, counters);
        for (gauge, news) in [
            (&self.gauges.late_ticks, counters.late_ticks - before.late_ticks),
            (&self.gauges.skipped_frames, counters.skipped_frames - before.skipped_frames),
            (&self.gauges.malformed, counters.malformed - before.malformed),
            (&self.gauges.foreign, counters.foreign - before.foreign),
        ] {
            gauge.fetch_add(news, Ordering::Relaxed);
        }
    }
}

impl Sink for Outside {
    fn send_rtp(&mut self, port: Port, to: SocketAddr, bytes: &[u8]) {
        let sent = self.sockets.get(&port).is_some_and(|sockets| sockets.rtp.send_to(bytes, to).is_ok());
        if !sent {
            self.gauges.send_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send_rtcp(&mut self, port: Port, to: SocketAddr, bytes: &[u8]) {
        if let Some(sockets) = self.sockets.get(&port) {
            // Reports are a courtesy; many peers have no RTCP port at all.
            let _ = sockets.rtcp.send_to(bytes, to);
        }
    }

    fn stream_out(&mut self, key: StreamKey, out: StreamOut) {
        let taken = self.streams.get(&key).is_some_and(|ends| ends.output.try_send(out).is_ok());
        if !taken {
            self.gauges.stream_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn report(&mut self, event: MediaEvent) {
        if self.events.try_send(event).is_err() {
            self.gauges.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn record(&mut self, frame: RecordedFrame<'_>) {
        if let Some(queue) = &self.recording {
            queue.frame(&frame);
        }
    }
}

/// An IPv4 peer of a dual-stack socket, as SDP names it.
fn unmapped(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

/// Real-time scheduling and resident memory. Without them the plane works, with more jitter.
fn ask_for_real_time() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority =
        thread_priority::ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    let granted =
        priority.is_ok_and(|p| set_thread_priority_and_policy(thread_native_id(), p, policy).is_ok());
    if !granted {
        tracing::warn!("no real-time scheduling for media threads; expect more jitter under load");
    }
    // Only what is mapped now: locking the future too would turn a memory limit into a crash.
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT) {
        tracing::warn!(%error, "memory is not locked; a page fault may delay audio");
    }
}
