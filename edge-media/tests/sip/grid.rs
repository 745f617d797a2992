//! The whole grid of a dialog, state by input, as a file: what the edge sends, tells its user
//! and leaves open for each pair is seen in review. Messages from the far end are made from
//! those of the same call, so that they are in their dialog.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use edge_media::sip::{Destination, DialogKey, Direction, SipCommand, SipEvent};
use expect_test::expect_file;
use handoff::call::outcome::LegCause;

use crate::world::{CARRIER, EDGE, PHONE, World, address, invited, media};

/// A dialog of the edge in some state.
struct Bench {
    world: World,
    key: DialogKey,
    /// The far end.
    peer: &'static str,
    /// The first INVITE of the call, and the answer that has both tags, where there is one.
    invite: String,
}

/// What can happen to it.
enum Input {
    Command(fn(DialogKey) -> SipCommand),
    /// A request of the far end within the dialog, with a session description or not.
    Request(&'static str, bool),
    /// A response of the far end to the last request of this method that the edge sent.
    Response(&'static str, u16, bool),
    Timer,
}

const SDP: &str = "v=0\r\no=- 9 9 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\n\
                   m=audio 20000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendonly\r\n";

fn inputs() -> Vec<(&'static str, Input)> {
    vec![
        ("ring", Input::Command(SipCommand::Ring)),
        ("answer", Input::Command(|key| SipCommand::Answer(key, media(EDGE, Direction::SendRecv)))),
        ("reject", Input::Command(|key| SipCommand::Reject(key, 486))),
        ("hang up", Input::Command(|key| SipCommand::HangUp(key, LegCause::LocalHangUp))),
        ("hold", Input::Command(|key| SipCommand::Reinvite(key, media(EDGE, Direction::SendOnly)))),
        ("INVITE with SDP", Input::Request("INVITE", true)),
        ("INVITE without SDP", Input::Request("INVITE", false)),
        ("UPDATE", Input::Request("UPDATE", true)),
        ("INFO", Input::Request("INFO", false)),
        ("OPTIONS", Input::Request("OPTIONS", false)),
        ("CANCEL", Input::Request("CANCEL", false)),
        ("ACK", Input::Request("ACK", false)),
        ("BYE", Input::Request("BYE", false)),
        ("180 to INVITE", Input::Response("INVITE", 180, false)),
        ("200 to INVITE", Input::Response("INVITE", 200, true)),
        ("200 to INVITE without SDP", Input::Response("INVITE", 200, false)),
        ("302 to INVITE", Input::Response("INVITE", 302, false)),
        ("481 to INVITE", Input::Response("INVITE", 481, false)),
        ("486 to INVITE", Input::Response("INVITE", 486, false)),
        ("491 to INVITE", Input::Response("INVITE", 491, false)),
        ("200 to BYE", Input::Response("BYE", 200, false)),
        ("481 to BYE", Input::Response("BYE", 481, false)),
        ("next timer", Input::Timer),
    ]
}

type Reach = fn() -> Bench;

const STATES: [(&str, Reach); 14] = [
    ("called", Bench::called),
    ("called, ringing", || Bench::called().with(SipCommand::Ring)),
    ("called, answered without ACK", Bench::answered),
    ("called, up", || Bench::answered().settled()),
    ("called, up, hold asked for", || Bench::answered().settled().with(hold)),
    ("called, up, BYE sent", || Bench::answered().settled().with(hang_up)),
    ("called, hung up before the ACK", || Bench::answered().with(hang_up)),
    ("called, refused", || Bench::called().with(|key| SipCommand::Reject(key, 486))),
    ("calling", Bench::calling),
    ("calling, ringing", Bench::ringing),
    ("calling, hung up before it rang", || Bench::calling().with(hang_up)),
    ("calling, CANCEL sent", || Bench::ringing().with(hang_up)),
    ("calling, up", Bench::up),
    ("calling, up, hold asked for", || Bench::up().with(hold)),
];

fn hang_up(key: DialogKey) -> SipCommand {
    SipCommand::HangUp(key, LegCause::LocalHangUp)
}

fn hold(key: DialogKey) -> SipCommand {
    SipCommand::Reinvite(key, media(EDGE, Direction::SendOnly))
}

impl Bench {
    /// The carrier's INVITE has come.
    fn called() -> Self {
        let mut world = World::edge_carrier_phone(1);
        world.dial(1);
        world.run(100);
        let key = invited(&world.take(EDGE)).unwrap();
        Self::of(world, key, CARRIER)
    }

    /// The edge has answered, and the far end does not know it yet.
    fn answered() -> Self {
        let mut bench = Self::called();
        bench.world.drop_if = Some(|text| text.starts_with("SIP/2.0 200"));
        bench.with(|key| SipCommand::Answer(key, media(EDGE, Direction::SendRecv)))
    }

    /// The edge has called the phone, which knows nothing of it yet.
    fn calling() -> Self {
        let mut world = World::edge_carrier_phone(1);
        world.register();
        world.run(200);
        for at in [EDGE, PHONE] {
            world.take(at);
        }
        world.drop_if = Some(|text| text.starts_with("INVITE"));
        let key = DialogKey(7);
        let local = media(EDGE, Direction::SendRecv);
        let to = Destination::User("ann".to_owned());
        world.command(EDGE, SipCommand::Invite { dialog: key, to, local, handle: None });
        Self::of(world, key, PHONE)
    }

    fn ringing() -> Self {
        let mut bench = Self::calling();
        bench.put(&Input::Response("INVITE", 180, false));
        bench.quiet()
    }

    fn up() -> Self {
        let mut bench = Self::ringing();
        bench.put(&Input::Response("INVITE", 200, true));
        bench.quiet()
    }

    fn of(world: World, key: DialogKey, peer: &'static str) -> Self {
        let texts = world.wire.iter().map(|(.., bytes)| String::from_utf8_lossy(bytes).into_owned());
        let invite = texts.rev().find(|text| text.starts_with("INVITE")).unwrap();
        Self { world, key, peer, invite }.quiet()
    }

    fn with(mut self, command: fn(DialogKey) -> SipCommand) -> Self {
        self.world.command(EDGE, command(self.key));
        self.quiet()
    }

    /// The far end acknowledges.
    fn settled(mut self) -> Self {
        self.put(&Input::Request("ACK", false));
        self.quiet()
    }

    /// What was told so far is known.
    fn quiet(mut self) -> Self {
        self.world.take(EDGE);
        self
    }

    fn put(&mut self, input: &Input) {
        match input {
            Input::Command(command) => self.world.command(EDGE, command(self.key)),
            Input::Timer => {
                if let Some(at) = self.world.stack(EDGE).next_timeout() {
                    self.world.now = self.world.now.max(at);
                    let outputs = self.world.stacks.get_mut(&address(EDGE)).unwrap().handle_timeout(at);
                    self.world.carry_out(address(EDGE), outputs);
                }
            }
            Input::Request(method, sdp) => {
                let text = self.request(method, *sdp);
                self.world.inject(EDGE, self.peer, text.as_bytes());
            }
            Input::Response(method, status, sdp) => {
                if let Some(text) = self.response(method, *status, *sdp) {
                    self.world.inject(EDGE, self.peer, text.as_bytes());
                }
            }
        }
    }

    /// What the edge sent, last first.
    fn sent(&self) -> impl Iterator<Item = String> {
        let from_edge = self.world.wire.iter().rev().filter(|(_, from, ..)| *from == address(EDGE));
        from_edge.map(|(.., bytes)| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A request of the far end in this dialog. CANCEL and ACK belong to its INVITE.
    fn request(&self, method: &str, sdp: bool) -> String {
        let ours = self.peer == PHONE;
        // Who called whom decides which side is From.
        let (local, remote) = if ours { ("To", "From") } else { ("From", "To") };
        let tagged =
            self.sent().find(|text| text.starts_with("SIP/2.0") && line(text, "To").contains("tag="));
        let far = match (ours, &tagged) {
            (true, _) => format!("{};tag=far", line(&self.invite, local)),
            (false, _) => line(&self.invite, local).to_owned(),
        };
        let near = match (ours, &tagged) {
            (false, Some(answer)) if method != "CANCEL" => line(answer, remote).to_owned(),
            _ => line(&self.invite, remote).to_owned(),
        };
        let number: u32 = line(&self.invite, "CSeq").split(' ').next().unwrap().parse().unwrap();
        let follows = matches!(method, "CANCEL" | "ACK");
        let cseq = if follows && !ours { number } else { number + 1 };
        let via = if method == "CANCEL" && !ours {
            line(&self.invite, "Via").to_owned()
        } else {
            format!("SIP/2.0/UDP {};branch=z9hG4bK{method}{sdp}", self.peer)
        };
        let uri = self.invite.split(' ').nth(1).unwrap();
        let uri = if ours { format!("sip:{EDGE}") } else { uri.to_owned() };
        let (kind, body) = if sdp { ("Content-Type: application/sdp\r\n", SDP) } else { ("", "") };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {far}\r\nTo: {near}\r\n\
             Call-ID: {}\r\nCSeq: {cseq} {method}\r\nContact: <sip:{}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            line(&self.invite, "Call-ID"),
            self.peer,
            body.len()
        )
    }

    /// A response to the last request of `method` that the edge sent.
    fn response(&self, method: &str, status: u16, sdp: bool) -> Option<String> {
        let request = self.sent().find(|text| text.starts_with(method))?;
        let to = line(&request, "To");
        let tag = if to.contains("tag=") { "" } else { ";tag=far" };
        let (kind, body) = if sdp { ("Content-Type: application/sdp\r\n", SDP) } else { ("", "") };
        let body = body.replace("sendonly", "sendrecv");
        Some(format!(
            "SIP/2.0 {status} X\r\nVia: {}\r\nFrom: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             Contact: <sip:{}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            line(&request, "Via"),
            line(&request, "From"),
            line(&request, "Call-ID"),
            line(&request, "CSeq"),
            self.peer,
            body.len()
        ))
    }

    /// What the edge sends and tells when `input` comes; `.` for nothing, `-` where there is
    /// no such input.
    fn cell(mut self, input: &Input) -> String {
        if let Input::Response(method, ..) = input
            && !self.sent().any(|text| text.starts_with(method))
        {
            return "-".to_owned();
        }
        let (before, open) = (self.world.wire.len(), self.world.stack(EDGE).open());
        self.put(input);
        let mut effects: Vec<String> = self.world.wire[before..]
            .iter()
            .filter(|(_, from, ..)| *from == address(EDGE))
            .map(|(.., bytes)| first_words(&String::from_utf8_lossy(bytes)))
            .collect();
        effects.extend(self.world.take(EDGE).iter().map(|event| format!("tell {}", told(event))));
        let text = if effects.is_empty() { ".".to_owned() } else { effects.join(", ") };
        let now = self.world.stack(EDGE).open();
        if now == open { text } else { format!("{text} => {} open dialogs, {} transactions", now.0, now.1) }
    }
}

fn line<'t>(text: &'t str, name: &str) -> &'t str {
    let start = format!("{name}: ");
    text.lines().find_map(|line| line.strip_prefix(start.as_str())).unwrap_or_default()
}

/// The method, or the status of a response with its method.
fn first_words(text: &str) -> String {
    let mut words = text.split(' ');
    match words.next() {
        // RFC 5626 section 3.5.1: two empty lines keep a way through a NAT open.
        Some("\r\n\r\n") => "keep the flow alive".to_owned(),
        Some("SIP/2.0") => {
            let method = line(text, "CSeq").split(' ').nth(1).unwrap_or_default();
            format!("send {} to {method}", words.next().unwrap_or_default())
        }
        Some(method) => format!("send {method}"),
        None => String::new(),
    }
}

fn told(event: &SipEvent) -> String {
    if let SipEvent::Ended { cause, .. } = event {
        return format!("Ended({cause:?})");
    }
    if let SipEvent::PeerMedia(_, remote) | SipEvent::Reinvited(_, remote) = event {
        return format!("{}({:?})", name(event), remote.direction);
    }
    name(event)
}

fn name(event: &SipEvent) -> String {
    let text = format!("{event:?}");
    text.chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[test]
fn the_whole_grid_of_a_dialog() {
    let mut grid = String::new();
    for (state, reach) in STATES {
        grid.push_str(&format!("\n== {state}\n"));
        for (name, input) in inputs() {
            grid.push_str(&format!("{name}: {}\n", reach().cell(&input)));
        }
    }
    expect_file!["grid.txt"].assert_eq(&grid);
}
