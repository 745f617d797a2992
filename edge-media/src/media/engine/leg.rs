//! One leg in the engine: its carrier, the source that the plan gives it, and the reports
//! that follow from both.

use std::net::SocketAddr;

use handoff::call::media::{MediaPlan, MediaReport, Source};
use handoff::clock::Now;
use handoff::id::{CallId, Epoch, LegId, PlayId};

use super::{RecordedFrame, Sink, Times};
use crate::media::codec::Frame;
use crate::media::comfort::{Heard, SpeechTurn};
use crate::media::egress::Turn;
use crate::media::measure::Measure;
use crate::media::mixer;
use crate::media::prompt::{ClipStore, Playback, SpeechStore};
use crate::media::rtcp;
use crate::media::rtp::RtpPacket;
use crate::media::rtp_leg::{Arrival, Outgoing, RtpLeg, SEALED_REPORT_LEN_MAX};
use crate::media::srtp::SrtpError;
use crate::media::stream_leg::{Reached, StreamQueue};
use crate::media::{Carrier, FRAME_SAMPLES, MediaEvent, Port, StreamIn, StreamKey, StreamOut};
use crate::sip::{Codec, RemoteMedia};

/// Valid packets that prove audio: 200 ms at 20 ms each, more than a stray packet or an echo
/// of the last stream.
const AUDIO_SEEN_PACKETS: u32 = 10;

#[derive(Debug)]
pub(super) struct Leg {
    id: LegId,
    line: Line,
    source: Option<Source>,
    /// The source changed and no packet of it has left yet.
    unannounced: bool,
    /// The source changed since the last tick, from this one: it is relayed until the tick, so
    /// that the change falls on a frame boundary wherever the order came in between.
    changed_from: Option<Option<LegId>>,
    playback: Option<Playback>,
    hold_place: usize,
    /// It is this leg's turn to speak.
    turn: Option<SpeechTurn>,
    recorded: bool,
    said: Frame,
    /// What this tick says to the far end; `None` where nothing is sent.
    tells: Option<Frame>,
    measure: Measure,
    first_seen: bool,
    /// Packets since the plan of that epoch; its report is sent once.
    proof: (Epoch, u32),
}

#[derive(Debug)]
enum Line {
    Rtp(Box<RtpLeg>),
    Stream(Stream),
}

#[derive(Debug)]
struct Stream {
    key: StreamKey,
    queue: StreamQueue,
    /// Some plan has named this egress: frames never stop from then on.
    started: bool,
    listened: bool,
    /// Somebody has listened once. What an agent says before waits (a greeting during the
    /// disclosure); what it says to nobody afterwards is thrown away.
    was_heard: bool,
    bytes: usize,
}

impl Leg {
    pub(super) fn open(id: LegId, carrier: Carrier, mut random: impl FnMut() -> u32) -> Self {
        let line = match carrier {
            Carrier::Rtp(port) => {
                Line::Rtp(Box::new(RtpLeg::new(port, [random(), random(), random(), random()])))
            }
            Carrier::Stream(key) => Line::Stream(Stream {
                key,
                queue: StreamQueue::default(),
                started: false,
                listened: false,
                was_heard: false,
                bytes: 0,
            }),
        };
        Self {
            id,
            line,
            source: None,
            unannounced: false,
            changed_from: None,
            playback: None,
            hold_place: 0,
            turn: None,
            recorded: false,
            said: Frame::Silence,
            tells: None,
            measure: Measure::default(),
            first_seen: false,
            proof: (Epoch::default(), 0),
        }
    }

    pub(super) const fn id(&self) -> LegId {
        self.id
    }

    pub(super) fn port(&self) -> Option<Port> {
        match &self.line {
            Line::Rtp(rtp) => Some(rtp.port()),
            Line::Stream(_) => None,
        }
    }

    pub(super) const fn stream_key(&self) -> Option<StreamKey> {
        match &self.line {
            Line::Rtp(_) => None,
            Line::Stream(stream) => Some(stream.key),
        }
    }

    pub(super) fn agree(&mut self, now: Now, remote: RemoteMedia) {
        match &mut self.line {
            Line::Rtp(rtp) => rtp.agree(now, remote),
            // A stream has its own, fixed format.
            Line::Stream(_) => {}
        }
    }

    pub(super) const fn record(&mut self, on: bool) {
        self.recorded = on;
    }

    /// Takes the source that `plan` gives to this egress. A prompt that loses its place is
    /// returned with what was sent of it.
    pub(super) fn switch(
        &mut self,
        plan: &MediaPlan,
        clips: &ClipStore,
        speech: &SpeechStore,
    ) -> Option<(PlayId, u16)> {
        if self.proof.0 != plan.epoch {
            self.proof = (plan.epoch, 0);
        }
        let wanted = plan.egress.get(&self.id);
        if self.source.as_ref() != wanted {
            let before = match core::mem::replace(&mut self.source, wanted.cloned()) {
                Some(Source::Leg(leg)) => Some(leg),
                Some(
                    Source::Prompt(_) | Source::HoldBed | Source::Silence | Source::Comfort | Source::Mix(_),
                )
                | None => None,
            };
            self.changed_from.get_or_insert(before);
            self.unannounced = wanted.is_some();
            let ended = self.cut();
            self.turn = (wanted == Some(&Source::Comfort)).then(SpeechTurn::default);
            if let Line::Stream(stream) = &mut self.line {
                stream.started |= wanted.is_some();
            }
            if let Some(Source::Prompt(play)) = wanted {
                self.playback = Some(Playback::start(*play, plan.prompts.get(play), clips, speech));
            }
            return ended;
        }
        None
    }

    /// Ends the prompt before its end.
    pub(super) fn cut(&mut self) -> Option<(PlayId, u16)> {
        let playback = self.playback.take()?;
        (!playback.is_over()).then(|| (playback.play(), playback.played_pm()))
    }

    /// Begins or ceases to watch this leg as a source of others.
    pub(super) fn watch(&mut self, now: Now, plan: &MediaPlan, sink: &mut impl Sink) {
        let id = self.id;
        let listened = plan.egress.iter().any(|(listener, source)| {
            *listener != id
                && match source {
                    Source::Leg(leg) => *leg == id,
                    Source::Mix(legs) => legs.contains(&id),
                    Source::Prompt(_) | Source::HoldBed | Source::Silence | Source::Comfort => false,
                }
        });
        match &mut self.line {
            Line::Rtp(rtp) => rtp.watch(now, listened),
            Line::Stream(stream) => {
                stream.listened = listened;
                stream.was_heard |= listened;
                if stream.discards() {
                    let reached = stream.queue.clear();
                    self.reached(now, reached, &plan.call, sink);
                }
            }
        }
    }

    pub(super) fn clear(&mut self, now: Now, call: &CallId, sink: &mut impl Sink) {
        match &mut self.line {
            Line::Rtp(_) => {}
            Line::Stream(stream) => {
                let reached = stream.queue.clear();
                self.reached(now, reached, call, sink);
            }
        }
    }

    /// Says at once that nothing is queued, if so; what is queued says so when it ends.
    pub(super) fn drain(&self, now: Now, call: &CallId, sink: &mut impl Sink) {
        let idle = match &self.line {
            Line::Rtp(_) => true,
            Line::Stream(stream) => stream.queue.is_idle(),
        };
        if idle {
            let report = MediaReport::Drained { leg: self.id };
            sink.report(MediaEvent { at: now, call: call.clone(), report });
        }
    }

    /// Sends keys to the far end of this leg; gives the number that was refused.
    pub(super) fn send_keys(&mut self, keys: &str, sink: &mut impl Sink) -> usize {
        match &mut self.line {
            Line::Rtp(rtp) => rtp.send_keys(keys),
            Line::Stream(stream) => {
                for key in keys.chars().filter(|key| *key != ',') {
                    sink.stream_out(stream.key, StreamOut::Digit(key));
                }
                0
            }
        }
    }

    /// Opens a datagram of its RTP port in its place.
    pub(super) fn open_packet<'b>(&mut self, datagram: &'b mut [u8]) -> Result<&'b [u8], SrtpError> {
        match &mut self.line {
            Line::Rtp(rtp) => rtp.open(datagram),
            Line::Stream(_) => Ok(datagram),
        }
    }

    /// Takes a datagram of its RTCP port; says whether it was well formed.
    pub(super) fn control_packet(&mut self, now: Now, datagram: &mut [u8]) -> Result<bool, SrtpError> {
        let Line::Rtp(rtp) = &mut self.line else { return Ok(false) };
        let len = rtp.open_control(datagram)?.len();
        // It was opened in its place.
        let packet = datagram.get(..len).unwrap_or_default();
        let formed = rtcp::is_compound(packet);
        if formed {
            rtp.control(now, packet);
        }
        Ok(formed)
    }

    pub(super) fn packet(
        &mut self,
        now: Now,
        from: SocketAddr,
        bytes: &[u8],
        call: &CallId,
        epoch: Epoch,
        sink: &mut impl Sink,
    ) -> Arrival {
        let Line::Rtp(rtp) = &mut self.line else { return Arrival::Foreign };
        let arrival = rtp.receive(now, from, bytes);
        let leg = self.id;
        let mut report = |report| sink.report(MediaEvent { at: now, call: call.clone(), report });
        match arrival {
            Arrival::Malformed | Arrival::Foreign => return arrival,
            Arrival::Audio(_) | Arrival::Key(_) | Arrival::Alive => {}
        }
        if !core::mem::replace(&mut self.first_seen, true) {
            report(MediaReport::FirstRtp { leg });
        }
        if rtp.back_now() {
            report(MediaReport::SourceBack { leg });
        }
        match arrival {
            Arrival::Audio(_) => self.prove(now, 1, call, epoch, sink),
            Arrival::Key(digit) => report(MediaReport::Digit { leg, digit }),
            Arrival::Malformed | Arrival::Foreign | Arrival::Alive => {}
        }
        arrival
    }

    pub(super) fn stream_in(
        &mut self,
        now: Now,
        input: StreamIn,
        call: &CallId,
        epoch: Epoch,
        sink: &mut impl Sink,
    ) {
        let Line::Stream(stream) = &mut self.line else { return };
        let mut packets = 0;
        let reached = match input {
            StreamIn::Audio(bytes) => {
                stream.bytes += bytes.len();
                packets = stream.bytes / FRAME_SAMPLES;
                stream.bytes %= FRAME_SAMPLES;
                if !stream.discards() {
                    stream.queue.audio(&bytes);
                }
                Reached::default()
            }
            StreamIn::Mark(name) => {
                stream.queue.mark(name);
                Reached::default()
            }
            StreamIn::Clear => stream.queue.clear(),
        };
        self.reached(now, reached, call, sink);
        if packets > 0 {
            if !core::mem::replace(&mut self.first_seen, true) {
                let report = MediaReport::FirstRtp { leg: self.id };
                sink.report(MediaEvent { at: now, call: call.clone(), report });
            }
            self.prove(now, u32::try_from(packets).unwrap_or(u32::MAX), call, epoch, sink);
        }
    }

    /// Passes a packet of `from` on at once, where it is the source of this egress and needs
    /// no other form. The first packet of a new source is left to the tick, so that sources
    /// change on a frame boundary.
    pub(super) fn relay(
        &mut self,
        now: Now,
        from: LegId,
        codec: Codec,
        packet: &RtpPacket<'_>,
        sink: &mut impl Sink,
    ) {
        let wanted = match self.changed_from {
            Some(before) => before == Some(from),
            None => self.source == Some(Source::Leg(from)) && !self.unannounced,
        };
        if let Line::Rtp(rtp) = &mut self.line
            && wanted
            && self.id != from
        {
            let port = rtp.port();
            if let Some(Outgoing { to, plain, wire }) = rtp.relay(now, codec, packet) {
                self.measure.sent(now, plain);
                sink.send_rtp(port, to, wire);
            }
        }
    }

    /// Takes this tick's frame from the far end.
    pub(super) fn listen(&mut self, now: Now, call: &CallId, sink: &mut impl Sink) {
        match &mut self.line {
            Line::Rtp(rtp) => {
                self.said = rtp.said(now);
                if rtp.lost_now(now) {
                    let report = MediaReport::SourceLost { leg: self.id };
                    sink.report(MediaEvent { at: now, call: call.clone(), report });
                }
            }
            Line::Stream(stream) if stream.listened || stream.was_heard => {
                let (frame, reached) = stream.queue.tick();
                self.said = frame;
                self.reached(now, reached, call, sink);
            }
            Line::Stream(_) => self.said = Frame::Silence,
        }
        let leg = self.id;
        let heard = self.turn.as_mut().and_then(|turn| turn.hear(&self.said));
        if let Some(heard) = heard {
            let report = match heard {
                Heard::Spoke => MediaReport::Spoke { leg },
                Heard::Quiet => MediaReport::Quiet { leg },
            };
            sink.report(MediaEvent { at: now, call: call.clone(), report });
        }
    }

    /// What the other legs say to this egress; `None` where its source is no leg.
    pub(super) fn route(&self, legs: &[Self]) -> Option<Frame> {
        let other = |id: &LegId| legs.iter().find(|leg| leg.id == *id && leg.id != self.id);
        match &self.source {
            Some(Source::Leg(id)) => Some(other(id).map_or(Frame::Silence, |leg| leg.said)),
            Some(Source::Mix(ids)) => Some(mixer::mix(ids.iter().filter_map(other).map(|leg| &leg.said))),
            Some(Source::Prompt(_) | Source::HoldBed | Source::Silence | Source::Comfort) | None => None,
        }
    }

    /// Sends this tick's frame to the far end.
    pub(super) fn speak(
        &mut self,
        times: Times,
        routed: Option<Frame>,
        call: &CallId,
        epoch: Epoch,
        clips: &ClipStore,
        sink: &mut impl Sink,
    ) {
        let Times { now, slot } = times;
        let changed = self.changed_from.take().is_some();
        let mut owed_before = 0;
        if let Line::Rtp(rtp) = &mut self.line {
            if changed {
                owed_before = rtp.source_changed(slot);
            }
            if !rtp.is_agreed() {
                rtp.rest();
                self.tells = None;
                self.measure.paused();
                return;
            }
        }
        let frame = match (routed, &self.source) {
            (Some(frame), _) => frame,
            (None, Some(Source::Prompt(_))) => self.playback.as_mut().map_or(Frame::Silence, Playback::frame),
            (None, Some(Source::HoldBed)) => clips.hold().frame(&mut self.hold_place),
            (None, Some(Source::Comfort)) => self.turn.as_mut().map_or(Frame::Silence, SpeechTurn::noise),
            (None, Some(Source::Silence | Source::Leg(_) | Source::Mix(_)) | None) => Frame::Silence,
        };
        let open = self.source.is_some();
        let sent = match &mut self.line {
            Line::Rtp(rtp) => {
                let port = rtp.port();
                let mut buffer = [0; SEALED_REPORT_LEN_MAX];
                if let Some((to, bytes)) = rtp.report(now, &mut buffer) {
                    sink.send_rtcp(port, to, bytes);
                    let report = MediaReport::Quality { leg: self.id, quality: rtp.quality() };
                    sink.report(MediaEvent { at: now, call: call.clone(), report });
                }
                if !open {
                    rtp.rest();
                    false
                } else {
                    match rtp.turn(slot) {
                        Turn::Relay => true,
                        Turn::Tick { owed } => {
                            // What the relay owed is lost or late: one frame of the same
                            // source conceals it, another source is not repeated.
                            let filler = if owed > 0 { &frame } else { &Frame::Silence };
                            let before = std::iter::repeat_n(filler, (owed_before + owed) as usize);
                            let mut sent = false;
                            for frame in before.chain([&frame]) {
                                sent = rtp
                                    .send(frame)
                                    .map(|Outgoing { to, plain, wire }| {
                                        self.measure.sent(now, plain);
                                        sink.send_rtp(port, to, wire);
                                    })
                                    .is_some();
                            }
                            sent
                        }
                    }
                }
            }
            Line::Stream(stream) => {
                if stream.started {
                    let bytes = Box::new(frame.coded(Codec::Pcmu));
                    sink.stream_out(stream.key, StreamOut::Frame(bytes));
                }
                open
            }
        };
        self.tells = sent.then_some(frame);
        if !sent {
            self.measure.paused();
        }
        let mut report = |report| sink.report(MediaEvent { at: now, call: call.clone(), report });
        if sent && self.unannounced && matches!(self.line, Line::Rtp(_)) {
            report(MediaReport::Sent { egress: self.id, stretch: self.measure.take() });
        }
        if sent && core::mem::take(&mut self.unannounced) {
            report(MediaReport::Applied { epoch, egress: self.id });
        }
        if let Some(playback) = &mut self.playback
            && playback.left(sent)
        {
            report(MediaReport::PlayEnded { play: playback.play(), played_pm: playback.played_pm() });
        }
        if self.recorded {
            let said = self.said.coded(Codec::Pcmu);
            let heard = if sent { frame } else { Frame::Silence }.coded(Codec::Pcmu);
            sink.record(RecordedFrame { at: now, call, leg: self.id, said: &said, heard: &heard });
        }
    }

    /// Measures what this tick said to the far end beside what prompts said to others.
    pub(super) fn judge(&mut self, others: &[(LegId, Frame)]) {
        if let (Line::Rtp(_), Some(frame)) = (&self.line, &self.tells) {
            let id = self.id;
            self.measure.heard(frame, others.iter().filter(|(leg, _)| *leg != id).map(|(_, frame)| frame));
        }
    }

    /// What a prompt says to the far end in this tick.
    pub(super) fn prompts(&self) -> Option<(LegId, Frame)> {
        matches!(self.source, Some(Source::Prompt(_))).then(|| Some((self.id, self.tells?))).flatten()
    }

    pub(super) fn skip(&mut self, frames: u32) {
        match &mut self.line {
            Line::Rtp(rtp) => rtp.skip(frames),
            // The far end of a stream counts frames, and prompts and queues lose nothing.
            Line::Stream(_) => {}
        }
    }

    fn prove(&mut self, now: Now, packets: u32, call: &CallId, epoch: Epoch, sink: &mut impl Sink) {
        let (_, seen) = &mut self.proof;
        let before = *seen;
        *seen = before.saturating_add(packets);
        if before < AUDIO_SEEN_PACKETS && *seen >= AUDIO_SEEN_PACKETS {
            let report = MediaReport::AudioSeen { leg: self.id, epoch };
            sink.report(MediaEvent { at: now, call: call.clone(), report });
        }
    }

    fn reached(&self, now: Now, reached: Reached, call: &CallId, sink: &mut impl Sink) {
        let Line::Stream(stream) = &self.line else { return };
        for name in reached.marks {
            sink.stream_out(stream.key, StreamOut::Mark(name));
        }
        if reached.drained {
            let report = MediaReport::Drained { leg: self.id };
            sink.report(MediaEvent { at: now, call: call.clone(), report });
        }
    }
}

impl Stream {
    /// Whether what the agent says now is for nobody and will be for nobody.
    const fn discards(&self) -> bool {
        self.was_heard && !self.listened
    }
}
