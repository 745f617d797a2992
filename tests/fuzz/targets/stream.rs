//! Frames of a voice agent's WebSocket into its session and on into the media engine. A script
//! gives each frame; what is echoed was given before, a queue does not grow without end, and
//! nothing that a bot says makes the edge say more than it was told.

use std::sync::Arc;
use std::time::Duration;

use edge_media::link::twilio::{AUDIO_BYTES_MAX, FromAgent, MARK_BYTES_MAX, Malformed, Session, StreamIds};
use edge_media::media::engine::{Engine, RecordedFrame, Sink};
use edge_media::media::hold::HoldBed;
use edge_media::media::prompt::ClipStore;
use edge_media::media::{
    Carrier, FRAMES_AT_ONCE_MAX, MediaCommand, MediaEvent, Port, StreamIn, StreamKey, StreamOut, TICK,
};
use handoff::clock::Now;
use handoff::id::{CallId, LegId};

use crate::harness::{Behaviour, Target};
use crate::script::{Step, steps};

pub(crate) const TARGET: Target = Target { name: "stream", words: WORDS, run };

fn run(input: &[u8]) -> Behaviour {
    let mut rig = Rig::new();
    for step in steps(input) {
        rig.play(&step);
    }
    rig.engine.stream_in(rig.now, STREAM, StreamIn::Clear, &mut rig.out);
    rig.tick(1);
    assert_eq!(rig.out.echoed, rig.marks, "every mark that was taken is echoed, once and in order");
    let tally = rig.session.tally();
    assert_eq!(tally.heard + tally.ignored + tally.malformed, rig.messages, "every message is counted once");
    rig.behaviour
}

struct Rig {
    now: Now,
    session: Session,
    engine: Engine,
    out: Out,
    messages: u64,
    marks: Vec<String>,
    behaviour: Behaviour,
}

#[derive(Default)]
struct Out {
    echoed: Vec<String>,
    frames: usize,
    reports: usize,
}

impl Sink for Out {
    fn send_rtp(&mut self, _: Port, _: std::net::SocketAddr, _: &[u8]) {
        panic!("a stream leg sends no RTP");
    }

    fn send_rtcp(&mut self, _: Port, _: std::net::SocketAddr, _: &[u8]) {
        panic!("a stream leg sends no RTCP");
    }

    fn stream_out(&mut self, _: StreamKey, out: StreamOut) {
        match out {
            StreamOut::Mark(name) => self.echoed.push(name),
            StreamOut::Frame(_) => self.frames += 1,
            StreamOut::Digit(_) => {}
        }
    }

    fn report(&mut self, _: MediaEvent) {
        self.reports += 1;
    }

    fn record(&mut self, _: RecordedFrame<'_>) {}
}

impl Rig {
    fn new() -> Self {
        let call = CallId::from_random(7);
        let mut rig = Self {
            now: Now::from_millis(1_000),
            session: Session::new(StreamIds::from_random(1, 2, 3), &call, &[("lang", "en")]),
            engine: Engine::new(Arc::new(ClipStore::empty(HoldBed::tones())), 7),
            out: Out::default(),
            messages: 0,
            marks: Vec::new(),
            behaviour: Behaviour::new(),
        };
        assert_eq!(rig.session.opening().len(), 2);
        let open = MediaCommand::Open { call, leg: LegId::VOICE_AGENT, carrier: Carrier::Stream(STREAM) };
        rig.engine.command(rig.now, open, &mut rig.out);
        rig
    }

    fn play(&mut self, step: &Step<'_>) {
        match step.word(0) {
            "text" => self.text(step.bytes),
            "binary" => {
                self.messages += 1;
                assert!(self.session.complain(self.now, Malformed::NotAnEvent).len() <= 1);
            }
            "tick" => self.tick(step.number(1, 100)),
            "wait" => self.now = self.now + Duration::from_millis(step.number(1, 10_000)),
            _ => {}
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        // A text frame that is no UTF-8 never leaves the WebSocket.
        let Ok(text) = core::str::from_utf8(bytes) else { return };
        self.messages += 1;
        let heard = self.session.receive(self.now, text);
        assert!(heard.len() <= 1, "one message, one meaning");
        for heard in heard {
            let debug = format!("{heard:?}");
            let mut names = debug.split(['(', ' ', '{']);
            self.behaviour.note(names.next().unwrap_or_default());
            match heard {
                FromAgent::Audio(audio) => {
                    assert!(audio.len() <= AUDIO_BYTES_MAX + 2, "{} bytes of audio", audio.len());
                    assert!(audio.len() <= text.len(), "audio is not made from nothing");
                    self.give(StreamIn::Audio(audio));
                }
                FromAgent::Mark(name) => {
                    assert!(name.len() <= MARK_BYTES_MAX, "a name of {} bytes", name.len());
                    self.echo(&name);
                    self.marks.push(name.clone());
                    self.give(StreamIn::Mark(name));
                }
                FromAgent::Clear => self.give(StreamIn::Clear),
                FromAgent::Signal(signal) => {
                    let body = format!("{:?}", signal.body);
                    self.behaviour.note(body.split(['(', ' ', '{']).next().unwrap_or_default());
                }
                FromAgent::Malformed(why) => self.behaviour.note(&why.to_string()),
                FromAgent::Ignored => {}
            }
        }
    }

    /// The echo of a mark is JSON again, and the name in it is the one that was given.
    fn echo(&mut self, name: &str) {
        let echo = self.session.mark(name);
        let heard = self.session.clone().receive(self.now, &echo);
        assert_eq!(heard, [FromAgent::Mark(name.to_owned())], "the echo of a mark is that mark");
    }

    fn give(&mut self, input: StreamIn) {
        let before = self.out.reports;
        self.engine.stream_in(self.now, STREAM, input, &mut self.out);
        assert!(self.out.reports <= before + 2, "one message, few reports");
        assert!(self.out.echoed.len() <= self.marks.len(), "nothing is echoed that was not given");
    }

    fn tick(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now = self.now + TICK;
            let before = self.out.frames;
            self.engine.tick(self.now, &mut self.out);
            assert!(self.out.frames <= before + FRAMES_AT_ONCE_MAX as usize, "a tick that bursts");
        }
    }
}

const STREAM: StreamKey = StreamKey(1);

const WORDS: &[&str] = &[
    "\n%% text\n",
    "\n%% binary\n",
    "\n%% tick 3\n",
    "\n%% wait 1000\n",
    r#"{"event":"media","media":{"payload":"//8="}}"#,
    r#"{"event":"mark","mark":{"name":"m1"}}"#,
    r#"{"event":"clear"}"#,
    r#"{"event":"stop"}"#,
    r#""event":"#,
    r#""media":"#,
    r#""payload":"#,
    r#""mark":"#,
    r#""name":"#,
    r#""streamSid":"MZ00000000000000000000000000000003""#,
    r#""streamSid":"MZ1""#,
    r#""signal":"#,
    r#"{"event":"agent.signal","signal":{"v":1,"id":"s1","type":"transfer.cancel"}}"#,
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "1e999",
    "[[[[",
    "{}",
    "[]",
    "\"\"",
    "////////",
    "====",
];
