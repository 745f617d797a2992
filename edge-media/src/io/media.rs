//! The media threads: bound ports, a 20 ms clock with absolute deadlines, and the engine
//! between them. In order of priority, a thread takes what has arrived, then the orders of
//! the edge, then sends what is due. It waits in one place (epoll), blocks on nothing else,
//! and gives reports and frames only where there is room.

mod port;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use handoff::id::CallId;
use handoff::pii::Pii;
use tokio::sync::mpsc;

pub use self::port::PortError;
use self::port::{PortPool, PortSockets};
use self::worker::Worker;
use super::clock::Clock;
use super::recording::{Recorder, RecordingQueue};
use super::speech::Speech;
use crate::config::Polly;
use crate::media::prompt::{Audio, ClipStore, SpeechKey, SpeechStore};
use crate::media::{Carrier, MediaCommand, MediaEvent, Port, StreamIn, StreamKey, StreamOut};

/// Orders that may wait for one thread: it takes all of them every 20 ms, and a call causes
/// some tens in its life.
const ORDERS_MAX: usize = 8_192;
/// Reports that may wait for the edge. Losing one could stall a call until its deadline, so
/// there is room for a burst of every call at once.
const EVENTS_MAX: usize = 8_192;
/// Pieces of a voice agent's speech that may wait for the next tick. A full channel slows the
/// reader of its stream, which is what should happen to an agent that floods.
const STREAM_IN_MAX: usize = 1_024;
/// Five seconds of frames for a stream that is not being written; then frames are dropped.
const STREAM_OUT_MAX: usize = 250;
/// Streams that are open while their leg is not: doors that connect ahead of the call.
const STREAMS_WAITING_MAX: usize = 1_024;

/// How the media plane is set up.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// Address to bind.
    pub ip: IpAddr,
    /// Ports to use; even ones carry RTP, the next one RTCP.
    pub ports: RangeInclusive<u16>,
    /// Media threads; each call lives on one.
    pub threads: usize,
    /// Ask for real-time scheduling and locked memory; refusal is a warning.
    pub real_time: bool,
    /// Voices of Polly for free text.
    pub polly: Option<Polly>,
}

/// What the media plane counts, over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaCounters {
    /// Orders that found a full queue.
    pub orders_dropped: u64,
    /// Reports that found a full queue.
    pub events_dropped: u64,
    /// Frames and marks that a stream did not take.
    pub stream_dropped: u64,
    /// Packets that the kernel did not take.
    pub send_failed: u64,
    /// Ticks that had to send two frames at once.
    pub late_ticks: u64,
    /// Frames that were not sent at all, because the clock was too late.
    pub skipped_frames: u64,
    /// The worst lateness of a tick, in microseconds.
    pub tick_lateness_max_us: u64,
    /// Datagrams that were not RTP or not of an agreed type.
    pub malformed: u64,
    /// Datagrams from anybody but the source of a leg.
    pub foreign: u64,
}

/// The edge's hold on the media plane.
#[derive(Debug)]
pub struct MediaHandle {
    workers: Vec<(SyncSender<Order>, JoinHandle<()>)>,
    ports: Mutex<PortPool>,
    streams: Mutex<BTreeMap<StreamKey, StreamEnds>>,
    speech: Option<Speech>,
    spoken: Arc<Mutex<SpeechStore>>,
    gauges: Arc<Gauges>,
}

/// The media plane's ends of one stream.
#[derive(Debug)]
struct StreamEnds {
    input: mpsc::Receiver<StreamIn>,
    output: mpsc::Sender<StreamOut>,
}

/// What a thread is given, in order.
#[derive(Debug)]
enum Order {
    /// To the engine.
    Command(MediaCommand),
    /// The sockets of a port that is opened next.
    Sockets(Port, PortSockets),
    /// The stream of a leg that is opened next.
    Stream(StreamKey, StreamEnds),
    /// Synthesised speech.
    Speech(SpeechKey, Audio),
    /// Where recorded frames go from now on.
    Recording(RecordingQueue),
    /// The end.
    Stop,
}

impl MediaHandle {
    /// Starts the threads. The reports come out of the receiver.
    pub fn start(
        config: &MediaConfig,
        clips: ClipStore,
        clock: Clock,
    ) -> io::Result<(Self, mpsc::Receiver<MediaEvent>)> {
        let clips = Arc::new(clips);
        let gauges = Arc::new(Gauges::default());
        let (events, reports) = mpsc::channel(EVENTS_MAX);
        let mut workers = Vec::new();
        for number in 0..config.threads.max(1) {
            let (orders, queue) = sync_channel(ORDERS_MAX);
            let worker =
                Worker::new(clock, Arc::clone(&clips), queue, events.clone(), Arc::clone(&gauges), config)?;
            let thread = std::thread::Builder::new().name(format!("media-{number}"));
            workers.push((orders, thread.spawn(move || worker.run())?));
        }
        let senders: Vec<_> = workers.iter().map(|(orders, _)| orders.clone()).collect();
        let spoken = Arc::new(Mutex::new(SpeechStore::default()));
        let kept = Arc::clone(&spoken);
        let speech = Speech::start(config.polly.clone(), move |key, audio| {
            lock(&kept).insert(key, audio.clone());
            for orders in &senders {
                // A full queue costs the whisper its voice, not its clip.
                let _ = orders.try_send(Order::Speech(key, audio.clone()));
            }
        });
        let speech = speech.inspect_err(|error| tracing::warn!(%error, "no speech synthesis")).ok();
        let ports = Mutex::new(PortPool::new(config.ip, config.ports.clone()));
        Ok((Self { workers, ports, streams: Mutex::default(), speech, spoken, gauges }, reports))
    }

    /// Gives an order; it never waits. False when the queue was full or the plane has stopped.
    pub fn command(&self, command: MediaCommand) -> bool {
        let call = match &command {
            MediaCommand::Open { call, .. }
            | MediaCommand::Remote { call, .. }
            | MediaCommand::Clear { call, .. }
            | MediaCommand::Drain { call, .. }
            | MediaCommand::SendDigits { call, .. }
            | MediaCommand::Record { call, .. }
            | MediaCommand::Close { call, .. } => call,
            MediaCommand::Apply(plan) => &plan.call,
        };
        let Some((orders, _)) = self.workers.get(self.thread_of(call)) else { return false };
        let carried = match &command {
            MediaCommand::Open { carrier: Carrier::Rtp(port), .. } => {
                lock(&self.ports).claim(*port).map(|sockets| Order::Sockets(*port, sockets))
            }
            MediaCommand::Open { carrier: Carrier::Stream(key), .. } => {
                lock(&self.streams).remove(key).map(|ends| Order::Stream(*key, ends))
            }
            MediaCommand::Remote { .. }
            | MediaCommand::Apply(_)
            | MediaCommand::Clear { .. }
            | MediaCommand::Drain { .. }
            | MediaCommand::SendDigits { .. }
            | MediaCommand::Record { .. }
            | MediaCommand::Close { .. } => None,
        };
        let taken = carried.is_none_or(|carried| orders.try_send(carried).is_ok())
            && orders.try_send(Order::Command(command)).is_ok();
        if !taken {
            self.gauges.orders_dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Binds `count` ports for legs to come, or as many as the range has left. The error says
    /// why there is not one.
    pub fn take_ports(&self, count: usize) -> Result<Vec<Port>, PortError> {
        let mut pool = lock(&self.ports);
        let mut ports = Vec::new();
        while ports.len() < count {
            match pool.bind() {
                Ok(port) => ports.push(port),
                Err(error) if ports.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(ports)
    }

    /// The door's ends of a stream: what the voice agent says, and what it is to hear. The
    /// stream begins with the `Open` that names `key`.
    pub fn open_stream(&self, key: StreamKey) -> (mpsc::Sender<StreamIn>, mpsc::Receiver<StreamOut>) {
        let (give, input) = mpsc::channel(STREAM_IN_MAX);
        let (output, take) = mpsc::channel(STREAM_OUT_MAX);
        self.attach_stream(key, input, output);
        (give, take)
    }

    /// The same with queues that the door has made: what the voice agent says, and what it is
    /// to hear.
    pub fn attach_stream(
        &self,
        key: StreamKey,
        input: mpsc::Receiver<StreamIn>,
        output: mpsc::Sender<StreamOut>,
    ) {
        let mut streams = lock(&self.streams);
        // A door that gave up before its call was opened has dropped its ends.
        streams.retain(|_, ends| !ends.output.is_closed());
        if streams.len() < STREAMS_WAITING_MAX {
            streams.insert(key, StreamEnds { input, output });
        }
    }

    /// Has `text` made into speech, so that it is ready when a prompt says it.
    pub fn prepare(&self, text: Pii<String>, lang: &str) {
        if let Some(speech) = &self.speech {
            speech.prepare(text, lang);
        }
    }

    /// The samples that were made of `text`, if they were and are still kept.
    pub fn spoken(&self, text: &str, lang: &str) -> Option<Vec<i16>> {
        lock(&self.spoken).ready(&SpeechKey::of(text, lang)).map(Audio::samples)
    }

    /// Gives what recorded legs say and hear to `recorder` from now on. Stop the media plane
    /// before the recorder.
    pub fn record_to(&self, recorder: &Recorder) {
        for (orders, _) in &self.workers {
            if orders.try_send(Order::Recording(recorder.queue())).is_err() {
                self.gauges.orders_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> MediaCounters {
        self.gauges.read()
    }

    /// Stops the threads and waits for them; ports close.
    pub fn stop(self) {
        for (orders, _) in &self.workers {
            // A thread that is gone, or a full queue, ends with its channel below.
            let _ = orders.try_send(Order::Stop);
        }
        drop(self.speech);
        for (orders, thread) in self.workers {
            drop(orders);
            if thread.join().is_err() {
                tracing::error!("a media thread panicked");
            }
        }
    }

    fn thread_of(&self, call: &CallId) -> usize {
        // FNV-1a: stable, and spread well enough over a handful of threads.
        let hash = call.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash % self.workers.len().max(1) as u64) as usize
    }
}

/// The lock's data, whoever panicked with it: every entry is whole between two calls.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counters that the threads write without waiting.
#[derive(Debug, Default)]
struct Gauges {
    orders_dropped: AtomicU64,
    events_dropped: AtomicU64,
    stream_dropped: AtomicU64,
    send_failed: AtomicU64,
    late_ticks: AtomicU64,
    skipped_frames: AtomicU64,
    tick_lateness_max_us: AtomicU64,
    malformed: AtomicU64,
    foreign: AtomicU64,
}

impl Gauges {
    fn read(&self) -> MediaCounters {
        let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        MediaCounters {
            orders_dropped: read(&self.orders_dropped),
            events_dropped: read(&self.events_dropped),
            stream_dropped: read(&self.stream_dropped),
            send_failed: read(&self.send_failed),
            late_ticks: read(&self.late_ticks),
            skipped_frames: read(&self.skipped_frames),
            tick_lateness_max_us: read(&self.tick_lateness_max_us),
            malformed: read(&self.malformed),
            foreign: read(&self.foreign),
        }
    }
}

#[cfg(test)]
mod tests;
