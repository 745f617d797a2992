//! The Twilio Media Streams dialect as its client: the edge dials the bot's WebSocket as the
//! carrier would, so that unmodified bots work. Text frames of JSON in both directions,
//! 8 kHz µ-law in base64; compatible by the observed behaviour of stock bots, not by name.
//!
//! A [`Session`] writes what the carrier would write, with strings and numbers where the
//! carrier has them, and reads whatever a bot may send. It never fails on input: what is
//! unknown is ignored, what is broken is named, both are counted, and the link stays. Pacing,
//! queueing and the moment of a mark's echo belong to the media plane.

use core::fmt::Write as _;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use handoff::clock::Now;
use handoff::id::CallId;
use handoff::signal::Signal;
use handoff::signal::parse::BadSignal;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha1::Sha1;

use super::Budget;
use crate::media::FRAME_SAMPLES;

/// The names of one stream, in the carrier's form: two letters and 32 hexadecimal digits.
/// They are our own; no account of any carrier is behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamIds {
    account_sid: String,
    call_sid: String,
    stream_sid: String,
}

impl StreamIds {
    /// Names from random bits: the account's are the edge's own and stay, the others are
    /// drawn for each stream.
    pub fn from_random(account: u128, call: u128, stream: u128) -> Self {
        Self {
            account_sid: format!("AC{account:032x}"),
            call_sid: format!("CA{call:032x}"),
            stream_sid: format!("MZ{stream:032x}"),
        }
    }

    /// The call's name, by which the bot may refer to it over HTTP.
    pub fn call_sid(&self) -> &str {
        &self.call_sid
    }
}

/// What a bot said.
#[derive(Clone, Debug, PartialEq)]
pub enum FromAgent {
    /// µ-law bytes of any length.
    Audio(Vec<u8>),
    /// Echo this name when the audio before it has been played.
    Mark(String),
    /// Drop the queued audio and echo its marks.
    Clear,
    /// A signal, validated.
    Signal(Box<Signal>),
    /// Nothing that concerns us.
    Ignored,
    /// Nothing that can be used.
    Malformed(Malformed),
}

/// Why a message could not be used. It carries nothing of what the message said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Larger than [`MESSAGE_BYTES_MAX`].
    #[error("message too large")]
    TooLarge,
    /// Not a JSON object with an `event`.
    #[error("not a JSON object with a string member `event`")]
    NotAnEvent,
    /// `media.payload` is missing or is not base64.
    #[error("`media.payload` is not base64")]
    BadAudio,
    /// More audio in one message than [`AUDIO_BYTES_MAX`].
    #[error("`media.payload` holds too much audio")]
    TooMuchAudio,
    /// A mark's name is longer than [`MARK_BYTES_MAX`].
    #[error("`mark.name` is too long")]
    LongMark,
    /// A signal that does not validate; names the member at fault.
    #[error(transparent)]
    BadSignal(#[from] BadSignal),
    /// Signals came faster than they are heard.
    #[error("too many signals")]
    TooManySignals,
}

/// What came in, for one line of the log at the end of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that were understood.
    pub heard: u64,
    /// Messages of unknown kind or for another stream.
    pub ignored: u64,
    /// Messages that could not be used, reported or not.
    pub malformed: u64,
    /// Members inside signals that were not understood.
    pub unknown_members: u64,
}

/// One stream between the edge and a bot.
#[derive(Clone, Debug)]
pub struct Session {
    ids: StreamIds,
    parameters: Vec<(String, String)>,
    sequence: u64,
    chunk: u64,
    media_ms: u64,
    signals: Budget,
    complaints: Budget,
    tally: Tally,
}

impl Session {
    /// A stream of `call`, before its first message. `parameters` reach the bot as
    /// `customParameters` beside `edge_call_id`, by which it can name the call elsewhere.
    pub fn new(ids: StreamIds, call: &CallId, parameters: &[(&str, &str)]) -> Self {
        let own = ("edge_call_id".to_owned(), call.as_str().to_owned());
        let given = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            ids,
            parameters: core::iter::once(own).chain(given).collect(),
            sequence: 0,
            chunk: 0,
            media_ms: 0,
            signals: Budget::new(SIGNALS_BURST, SIGNALS_EVERY),
            complaints: Budget::new(COMPLAINTS_BURST, COMPLAINTS_EVERY),
            tally: Tally::default(),
        }
    }

    /// The first two messages: `connected`, then `start`. Bots read exactly two before they
    /// decide which dialect this is.
    pub fn opening(&mut self) -> Vec<String> {
        let parameters: Vec<String> = self
            .parameters
            .iter()
            .map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)))
            .collect();
        let StreamIds { account_sid, call_sid, stream_sid } = &self.ids;
        let start = format!(
            concat!(
                r#""start":{{"accountSid":"{}","streamSid":"{}","callSid":"{}","tracks":["inbound"],"#,
                r#""customParameters":{{{}}},"#,
                r#""mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}}"#,
            ),
            account_sid,
            stream_sid,
            call_sid,
            parameters.join(",")
        );
        let connected = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.to_owned();
        vec![connected, self.message("start", &start)]
    }

    /// 20 ms of the caller. Called for every frame of the stream's life, silence included,
    /// so `timestamp` is contiguous.
    pub fn frame(&mut self, samples: &[u8; FRAME_SAMPLES]) -> String {
        self.chunk += 1;
        self.media_ms += FRAME_MS;
        let (chunk, timestamp) = (self.chunk, self.media_ms);
        let mut media = String::with_capacity(FRAME_MESSAGE_BYTES);
        // Writing into a string cannot fail.
        let _ = write!(
            media,
            r#""media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp}","payload":""#
        );
        BASE64.encode_string(samples, &mut media);
        media.push_str(r#""}"#);
        self.message("media", &media)
    }

    /// A frame that could not be sent. The clock of the stream goes on, so that a bot which
    /// fills gaps by `timestamp` fills this one.
    pub const fn skip_frame(&mut self) {
        self.media_ms += FRAME_MS;
    }

    /// A mark was reached: its echo.
    pub fn mark(&mut self, name: &str) -> String {
        self.message("mark", &format!(r#""mark":{{"name":{}}}"#, quoted(name)))
    }

    /// A key of the caller.
    pub fn digit(&mut self, digit: char) -> String {
        let digit = quoted(digit.encode_utf8(&mut [0; 4]));
        self.message("dtmf", &format!(r#""dtmf":{{"track":"inbound_track","digit":{digit}}}"#))
    }

    /// The last message.
    pub fn stop(&mut self) -> String {
        let StreamIds { account_sid, call_sid, .. } = &self.ids;
        let stop = format!(r#""stop":{{"accountSid":"{account_sid}","callSid":"{call_sid}"}}"#);
        self.message("stop", &stop)
    }

    /// How the transfer stands. Not of the carrier's dialect, so it takes no sequence
    /// number; bots that do not know the event ignore it.
    pub fn status(&self, status: &str, eta_s: Option<u32>) -> String {
        let (stream_sid, status) = (&self.ids.stream_sid, quoted(status));
        let eta = eta_s.map(|eta_s| format!(r#","eta_s":{eta_s}"#)).unwrap_or_default();
        format!(r#"{{"event":"edge.status","streamSid":"{stream_sid}","status":{status}{eta}}}"#)
    }

    /// Reads one text frame. Usually one value comes back; none when a flood of broken
    /// messages is merely counted.
    pub fn receive(&mut self, now: Now, text: &str) -> Vec<FromAgent> {
        match self.read(now, text) {
            Ok(FromAgent::Ignored) => {
                self.tally.ignored += 1;
                vec![FromAgent::Ignored]
            }
            Ok(heard) => {
                self.tally.heard += 1;
                vec![heard]
            }
            Err(why) => self.complain(now, why),
        }
    }

    /// Counts a message that the shell could not even pass on (binary, too large).
    pub fn complain(&mut self, now: Now, why: Malformed) -> Vec<FromAgent> {
        self.tally.malformed += 1;
        if self.complaints.spend(now) { vec![FromAgent::Malformed(why)] } else { Vec::new() }
    }

    /// What came in so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    fn read(&mut self, now: Now, text: &str) -> Result<FromAgent, Malformed> {
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(Malformed::TooLarge);
        }
        let message: Value = serde_json::from_str(text).map_err(|_| Malformed::NotAnEvent)?;
        let event = message.get("event").and_then(Value::as_str).ok_or(Malformed::NotAnEvent)?;
        let stream = message.get("streamSid").and_then(Value::as_str);
        if stream.is_some_and(|stream| stream != self.ids.stream_sid) {
            return Ok(FromAgent::Ignored);
        }
        match event {
            "media" => audio(&message),
            "mark" => mark(&message),
            "clear" => Ok(FromAgent::Clear),
            "agent.signal" => {
                if !self.signals.spend(now) {
                    return Err(Malformed::TooManySignals);
                }
                let parsed = Signal::parse(message.get("signal").unwrap_or(&Value::Null))?;
                self.tally.unknown_members += u64::from(parsed.ignored);
                Ok(FromAgent::Signal(Box::new(parsed.signal)))
            }
            _unknown => Ok(FromAgent::Ignored),
        }
    }

    /// One message of the carrier's dialect: the members that all have, then `body`.
    fn message(&mut self, event: &str, body: &str) -> String {
        self.sequence += 1;
        let (sequence, stream_sid) = (self.sequence, &self.ids.stream_sid);
        format!(r#"{{"event":"{event}","sequenceNumber":"{sequence}","streamSid":"{stream_sid}",{body}}}"#)
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn audio(message: &Value) -> Result<FromAgent, Malformed> {
    let payload = message.get("media").and_then(|media| media.get("payload"));
    let payload = payload.and_then(Value::as_str).ok_or(Malformed::BadAudio)?;
    if payload.len() / 4 * 3 > AUDIO_BYTES_MAX {
        return Err(Malformed::TooMuchAudio);
    }
    BASE64.decode(payload).map(FromAgent::Audio).map_err(|_| Malformed::BadAudio)
}

/// Some bots send a mark without a name, or without the object; the carrier says nothing to
/// that either.
fn mark(message: &Value) -> Result<FromAgent, Malformed> {
    match message.get("mark").and_then(|mark| mark.get("name")).and_then(Value::as_str) {
        None => Ok(FromAgent::Ignored),
        Some(name) if name.len() > MARK_BYTES_MAX => Err(Malformed::LongMark),
        Some(name) => Ok(FromAgent::Mark(name.to_owned())),
    }
}

/// The value of `X-Twilio-Signature`: base64 of HMAC-SHA1 over the URL, byte for byte as it
/// is dialled.
pub fn signature(auth_token: &[u8], url: &str) -> String {
    // HMAC takes a key of any length, so there is always a signature.
    let signed = Hmac::<Sha1>::new_from_slice(auth_token).map(|mut mac| {
        mac.update(url.as_bytes());
        BASE64.encode(mac.finalize().into_bytes())
    });
    signed.unwrap_or_default()
}

/// Largest message: 30 s of audio, the longest single chunk that a bot has been seen to
/// send, with its JSON. More would only fill the queue that the media plane bounds anyway.
pub const MESSAGE_BYTES_MAX: usize = 384 * 1024;
/// 30 s of µ-law.
pub const AUDIO_BYTES_MAX: usize = 240_000;
/// Marks are echoed, so their names are kept until the audio before them has been played.
pub const MARK_BYTES_MAX: usize = 256;
/// A turn brings half a dozen signals at once.
const SIGNALS_BURST: u32 = 100;
/// Nobody says 20 things a second for long; each costs a record on disk.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);
/// A broken bot is broken in every frame: the first complaints say all there is to say.
const COMPLAINTS_BURST: u32 = 10;
/// Enough to see that it goes on.
const COMPLAINTS_EVERY: Duration = Duration::from_secs(1);
/// Length of a frame.
const FRAME_MS: u64 = 20;
/// A `media` member of 160 samples, so that it is allocated once.
const FRAME_MESSAGE_BYTES: usize = 320;

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use handoff::signal::{ConfidenceOf, SignalBody};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn session() -> Session {
        let call = CallId::parse("call_01").unwrap();
        Session::new(StreamIds::from_random(1, 2, 3), &call, &[("lang", "en")])
    }

    fn one(text: &str) -> FromAgent {
        let mut heard = session().receive(Now::ZERO, text);
        assert_eq!(heard.len(), 1);
        heard.remove(0)
    }

    #[test]
    fn every_message_has_the_carriers_form() {
        let mut session = session();
        let mut lines = session.opening();
        lines.push(session.frame(&[0xff; FRAME_SAMPLES]));
        lines.push(session.frame(&[0x00; FRAME_SAMPLES]));
        lines.push(session.mark("x\"y"));
        lines.push(session.digit('1'));
        lines.push(session.status("accepted", Some(30)));
        lines.push(session.stop());
        expect![[r#"
            {"event":"connected","protocol":"Call","version":"1.0.0"}
            {"event":"start","sequenceNumber":"1","streamSid":"MZ00000000000000000000000000000003","start":{"accountSid":"AC00000000000000000000000000000001","streamSid":"MZ00000000000000000000000000000003","callSid":"CA00000000000000000000000000000002","tracks":["inbound"],"customParameters":{"edge_call_id":"call_01","lang":"en"},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}
            {"event":"media","sequenceNumber":"2","streamSid":"MZ00000000000000000000000000000003","media":{"track":"inbound","chunk":"1","timestamp":"20","payload":"/////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////////w=="}}
            {"event":"media","sequenceNumber":"3","streamSid":"MZ00000000000000000000000000000003","media":{"track":"inbound","chunk":"2","timestamp":"40","payload":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="}}
            {"event":"mark","sequenceNumber":"4","streamSid":"MZ00000000000000000000000000000003","mark":{"name":"x\"y"}}
            {"event":"dtmf","sequenceNumber":"5","streamSid":"MZ00000000000000000000000000000003","dtmf":{"track":"inbound_track","digit":"1"}}
            {"event":"edge.status","streamSid":"MZ00000000000000000000000000000003","status":"accepted","eta_s":30}
            {"event":"stop","sequenceNumber":"6","streamSid":"MZ00000000000000000000000000000003","stop":{"accountSid":"AC00000000000000000000000000000001","callSid":"CA00000000000000000000000000000002"}}
        "#]]
        .assert_eq(&(lines.join("\n") + "\n"));
    }

    #[test]
    fn a_skipped_frame_leaves_a_gap_in_time_and_none_in_numbers() {
        let mut session = session();
        session.frame(&[0; FRAME_SAMPLES]);
        session.skip_frame();
        let third = session.frame(&[0; FRAME_SAMPLES]);
        assert!(
            third.contains(r#""sequenceNumber":"2""#) && third.contains(r#""chunk":"2","timestamp":"60""#)
        );
    }

    #[test]
    fn what_bots_send_is_understood() {
        for (text, expected) in [
            (
                r#"{"event":"media","streamSid":"MZ00000000000000000000000000000003","media":{"payload":"AAEC"}}"#,
                FromAgent::Audio(vec![0, 1, 2]),
            ),
            (r#"{"event":"media","media":{"payload":""}}"#, FromAgent::Audio(vec![])),
            (
                r#"{"event":"mark","mark":{"name":"responsePart"}}"#,
                FromAgent::Mark("responsePart".to_owned()),
            ),
            (r#"{"event":"mark","streamSid":"MZ00000000000000000000000000000003"}"#, FromAgent::Ignored),
            (r#"{"event":"clear","streamSid":"MZ00000000000000000000000000000003"}"#, FromAgent::Clear),
            (r#"{"event":"clear","streamSid":"MZ00000000000000000000000000000009"}"#, FromAgent::Ignored),
            (r#"{"event":"rtvi","data":{}}"#, FromAgent::Ignored),
        ] {
            assert_eq!(one(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_broken_is_named() {
        let long_mark =
            json!({"event": "mark", "mark": {"name": "m".repeat(MARK_BYTES_MAX + 1)}}).to_string();
        let much = json!({"event": "media", "media": {"payload": "A".repeat(330_000)}}).to_string();
        for (text, why) in [
            ("", Malformed::NotAnEvent),
            ("[1]", Malformed::NotAnEvent),
            ("{\"event\":7}", Malformed::NotAnEvent),
            (&"[".repeat(100_000), Malformed::NotAnEvent),
            (r#"{"event":"media"}"#, Malformed::BadAudio),
            (r#"{"event":"media","media":{"payload":"%%%"}}"#, Malformed::BadAudio),
            (&much, Malformed::TooMuchAudio),
            (&long_mark, Malformed::LongMark),
            (&" ".repeat(MESSAGE_BYTES_MAX + 1), Malformed::TooLarge),
        ] {
            assert_eq!(one(text), FromAgent::Malformed(why));
        }
    }

    #[test]
    fn a_flood_of_broken_messages_is_counted_and_no_longer_reported() {
        let mut session = session();
        let reported: usize = (0..1_000).map(|_| session.receive(Now::ZERO, "?").len()).sum();
        assert_eq!(reported, 10);
        assert_eq!(session.tally(), Tally { heard: 0, ignored: 0, malformed: 1_000, unknown_members: 0 });
        assert_eq!(session.receive(Now::ZERO, r#"{"event":"clear"}"#), [FromAgent::Clear]);
    }

    #[test]
    fn a_signal_is_validated_and_a_bad_one_names_its_member() {
        let good =
            r#"{"event":"agent.signal","signal":{"v":1,"id":"s1","type":"confidence","data":{"value":0.4}}}"#;
        let FromAgent::Signal(signal) = one(good) else { panic!("it is valid") };
        assert_eq!(signal.body, SignalBody::Confidence { value_pm: 400, of: ConfidenceOf::Resolution });
        for (text, member) in [
            (r#"{"event":"agent.signal"}"#, "$"),
            (
                r#"{"event":"agent.signal","signal":{"v":1,"id":"s1","type":"confidence","data":{"value":4}}}"#,
                "data.value",
            ),
        ] {
            let FromAgent::Malformed(Malformed::BadSignal(bad)) = one(text) else {
                panic!("it is not valid")
            };
            assert_eq!(bad.member, member);
        }
    }

    #[test]
    fn a_flood_of_signals_does_not_pass() {
        let mut session = session();
        let signal = r#"{"event":"agent.signal","signal":{"v":1,"id":"s1","type":"transfer.cancel"}}"#;
        let heard = (0..1_000).flat_map(|_| session.receive(Now::ZERO, signal));
        let heard = heard.filter(|heard| matches!(heard, FromAgent::Signal(_))).count();
        assert_eq!(heard, 100);
        assert!(matches!(session.receive(Now::from_millis(50), signal)[..], [FromAgent::Signal(_)]));
    }

    #[test]
    fn the_signature_agrees_with_openssl() {
        let url = "wss://bot.example/media";
        assert_eq!(signature(b"12345", url), "/5mvxNeOJlhlHoGo6j8L/oRVdXY=");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_session_panic(text in ".{0,200}") {
            session().receive(Now::ZERO, &text);
        }

        #[test]
        fn no_event_makes_a_session_panic(
            event in prop::sample::select(vec!["media", "mark", "clear", "agent.signal", "start"]),
            member in prop::sample::select(vec!["media", "mark", "signal", "streamSid"]),
            value in prop::sample::select(vec!["null", "1", "\"x\"", "{}", "[]", "{\"payload\":1}", "{\"name\":[]}"]),
        ) {
            let text = format!(r#"{{"event":"{event}","{member}":{value}}}"#);
            prop_assert_eq!(session().receive(Now::ZERO, &text).len(), 1);
        }
    }
}
