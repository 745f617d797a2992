//! The life of one open stream: a loop in which no branch waits for another. Its order of
//! priority is the order of its branches: orders of the edge, frames of the media plane,
//! what is due, what can be written, and last what can be read.

use core::pin::pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::future::poll_fn;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, Stream as _, StreamExt as _};
use handoff::clock::Now;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{
    CloseReason, DoorCommand, DoorEvent, Dropped, FromAgent, GOODBYE_MAX, Malformed, OUTBOX_MAX, PENDING_MAX,
    REPORTS_MAX, Session, StreamIn, StreamKey, StreamOut, Watch,
};

/// A WebSocket that we dialled.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The door's end of the two bounded queues to the media plane.
pub(super) struct DoorEnd {
    /// What the voice agent says.
    pub(super) to_media: mpsc::Sender<StreamIn>,
    /// What it hears.
    pub(super) from_media: mpsc::Receiver<StreamOut>,
}

pub(super) struct Pump {
    stream: StreamKey,
    writer: Writer,
    reader: SplitStream<Socket>,
    session: Session,
    media: DoorEnd,
    events: mpsc::Sender<(StreamKey, DoorEvent)>,
    commands: mpsc::Receiver<DoorCommand>,
    /// Waits for room in the media plane's queue.
    pending: VecDeque<StreamIn>,
    /// Waits for room in the edge's queue.
    reports: VecDeque<DoorEvent>,
    dropped: Dropped,
    started: Instant,
    heard_at: Instant,
    /// The edge was told that nothing comes.
    silent: bool,
}

/// The writing half, with what waits to be written.
struct Writer {
    sink: SplitSink<Socket, Message>,
    outbox: VecDeque<Message>,
    unflushed: bool,
}

impl Pump {
    pub(super) fn new(
        stream: StreamKey,
        socket: Socket,
        session: Session,
        media: DoorEnd,
        events: mpsc::Sender<(StreamKey, DoorEvent)>,
        commands: mpsc::Receiver<DoorCommand>,
    ) -> Self {
        let (sink, reader) = socket.split();
        let now = Instant::now();
        Self {
            stream,
            writer: Writer { sink, outbox: VecDeque::new(), unflushed: false },
            reader,
            session,
            media,
            events,
            commands,
            pending: VecDeque::new(),
            reports: VecDeque::from([DoorEvent::Opened]),
            dropped: Dropped::default(),
            started: now,
            heard_at: now,
            silent: false,
        }
    }

    /// Pumps until the link is over; yields the last event.
    pub(super) async fn run(mut self, watch: Watch) -> DoorEvent {
        for message in self.session.opening() {
            self.writer.outbox.push_back(Message::text(message));
        }
        let reason = self.pump(watch).await;
        if reason == CloseReason::Local {
            self.say_goodbye().await;
        }
        for report in self.reports.drain(..) {
            if self.events.send((self.stream, report)).await.is_err() {
                break;
            }
        }
        DoorEvent::Closed { reason, tally: self.session.tally(), dropped: self.dropped }
    }

    async fn pump(&mut self, watch: Watch) -> CloseReason {
        let mut beat = interval_at(Instant::now() + watch.ping_every, watch.ping_every);
        // The permits of `reserve` borrow these, not the pump.
        let (events, to_media) = (self.events.clone(), self.media.to_media.clone());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (has_pending, has_reports) = (!self.pending.is_empty(), !self.reports.is_empty());
            let over = tokio::select! {
                biased;
                command = self.commands.recv() => self.obey(command),
                given = self.media.from_media.recv() => self.speak(given),
                _ = beat.tick() => self.beat(watch),
                room = events.reserve(), if has_reports => {
                    if let (Ok(room), Some(report)) = (room, self.reports.pop_front()) {
                        room.send((self.stream, report));
                        None
                    } else {
                        Some(CloseReason::Local)
                    }
                }
                room = to_media.reserve(), if has_pending => {
                    if let (Ok(room), Some(item)) = (room, self.pending.pop_front()) {
                        room.send(item);
                        None
                    } else {
                        Some(CloseReason::Local)
                    }
                }
                written = poll_fn(|context| self.writer.poll(context)), if self.writer.has_work() => {
                    written.err().map(|error| fault(&error))
                }
                message = self.reader.next() => self.hear(message),
            };
            if let Some(reason) = over {
                return reason;
            }
        }
    }

    fn obey(&mut self, command: Option<DoorCommand>) -> Option<CloseReason> {
        match command {
            Some(DoorCommand::Status { status, eta_s }) => {
                let message = self.session.status(status, eta_s);
                self.write(Message::text(message));
                None
            }
            // The edge let go of its handle.
            None => Some(CloseReason::Local),
        }
    }

    fn speak(&mut self, given: Option<StreamOut>) -> Option<CloseReason> {
        match given {
            Some(StreamOut::Frame(samples)) => {
                if self.writer.outbox.len() < OUTBOX_MAX {
                    let message = self.session.frame(&samples);
                    self.write(Message::text(message));
                } else {
                    self.session.skip_frame();
                    self.dropped.frames_out += 1;
                }
            }
            Some(StreamOut::Mark(name)) => {
                let message = self.session.mark(&name);
                self.write(Message::text(message));
            }
            Some(StreamOut::Digit(digit)) => {
                let message = self.session.digit(digit);
                self.write(Message::text(message));
            }
            None => return Some(CloseReason::Local),
        }
        None
    }

    /// Frames stop at [`OUTBOX_MAX`]; the few other messages may go to twice that.
    fn write(&mut self, message: Message) {
        if self.writer.outbox.len() < 2 * OUTBOX_MAX {
            self.writer.outbox.push_back(message);
        } else {
            self.dropped.frames_out += 1;
        }
    }

    fn beat(&mut self, watch: Watch) -> Option<CloseReason> {
        if self.heard_at.elapsed() >= watch.silence_max {
            return Some(CloseReason::Stalled);
        }
        if !self.silent && self.heard_at.elapsed() >= watch.unanswered_max {
            self.silent = true;
            self.report(DoorEvent::Silent(true));
        }
        self.write(Message::Ping(Bytes::new()));
        None
    }

    fn hear(&mut self, message: Option<Result<Message, WsError>>) -> Option<CloseReason> {
        self.heard_at = Instant::now();
        if std::mem::take(&mut self.silent) {
            self.report(DoorEvent::Silent(false));
        }
        let now = Now::ZERO + self.started.elapsed();
        let heard = match message {
            None | Some(Ok(Message::Close(_))) => return Some(CloseReason::RemoteClosed),
            Some(Err(error)) => return Some(fault(&error)),
            // The library answers pings by itself, with the next flush.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                self.writer.unflushed = true;
                return None;
            }
            Some(Ok(Message::Binary(_))) => self.session.complain(now, Malformed::NotAnEvent),
            Some(Ok(Message::Text(text))) => self.session.receive(now, &text),
        };
        for said in heard {
            match said {
                FromAgent::Audio(bytes) => self.give(StreamIn::Audio(bytes)),
                FromAgent::Mark(name) => self.give(StreamIn::Mark(name)),
                FromAgent::Clear => self.give(StreamIn::Clear),
                FromAgent::Signal(signal) => self.report(DoorEvent::Signal(signal)),
                FromAgent::Malformed(why) => self.report(DoorEvent::Malformed(why)),
                FromAgent::Ignored => {}
            }
        }
        None
    }

    /// Hands something to the media plane, in order, without ever waiting for it.
    fn give(&mut self, item: StreamIn) {
        let item = if self.pending.is_empty() {
            match self.media.to_media.try_send(item) {
                Ok(()) | Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(item)) => item,
            }
        } else {
            item
        };
        let room = match &item {
            StreamIn::Audio(_) => self.pending.len() < PENDING_MAX,
            StreamIn::Mark(_) => self.pending.len() < 2 * PENDING_MAX,
            // A clear makes room: audio that it would drop need not be handed over.
            StreamIn::Clear => {
                self.pending.retain(|waiting| matches!(waiting, StreamIn::Mark(_)));
                true
            }
        };
        if room {
            self.pending.push_back(item);
        } else {
            self.dropped.audio_in += 1;
        }
    }

    fn report(&mut self, event: DoorEvent) {
        if self.reports.len() < REPORTS_MAX {
            self.reports.push_back(event);
        } else {
            self.dropped.reports += 1;
        }
    }

    /// `stop`, the close frame, and a moment for the peer's.
    async fn say_goodbye(&mut self) {
        let stop = self.session.stop();
        self.writer.outbox.push_back(Message::text(stop));
        self.writer.outbox.push_back(Message::Close(None));
        let goodbye = poll_fn(|context| {
            if self.writer.has_work() && ready!(self.writer.poll(context)).is_err() {
                return Poll::Ready(());
            }
            while let Some(Ok(_)) = ready!(pin!(&mut self.reader).poll_next(context)) {}
            Poll::Ready(())
        });
        // A peer that does not take its leave is left without one.
        let _ = timeout(GOODBYE_MAX, goodbye).await;
    }
}

impl Writer {
    fn has_work(&self) -> bool {
        self.unflushed || !self.outbox.is_empty()
    }

    /// Writes what can be written. May be abandoned at any point: each message is either
    /// still in the outbox or wholly with the socket.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.unflushed = true;
        while !self.outbox.is_empty() {
            ready!(self.sink.poll_ready_unpin(context))?;
            if let Some(message) = self.outbox.pop_front() {
                self.sink.start_send_unpin(message)?;
            }
        }
        ready!(self.sink.poll_flush_unpin(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

/// What an error of the library means for the call.
fn fault(error: &WsError) -> CloseReason {
    match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => CloseReason::RemoteClosed,
        WsError::Capacity(_) | WsError::Protocol(_) | WsError::Utf8(_) | WsError::AttackAttempt => {
            CloseReason::Protocol
        }
        WsError::Io(_)
        | WsError::Tls(_)
        | WsError::WriteBufferFull(_)
        | WsError::Url(_)
        | WsError::Http(_)
        | WsError::HttpFormat(_) => CloseReason::Lost,
    }
}
