//! The whole SIP stack between a carrier, a registered phone and a stranger, in virtual time.
//! A script sends their bytes and gives the edge's orders; `$Via`, `$From`, `$To`, `$Call-ID`,
//! `$CSeq` and `$Contact` stand for what the edge last sent to that party, so that a script
//! answers a dialog whose tags it cannot know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use edge_media::sip::{
    Caller, Destination, DialogKey, Direction, Flow, LocalMedia, Rel100, RemoteMedia, Secret, SipCommand,
    SipConfig, SipEvent, SipOutput, SrtpPolicy, Stack, Transport, TrunkConfig, UserConfig,
};
use handoff::call::outcome::LegCause;
use handoff::clock::Now;
use handoff::pii::Pii;

use crate::harness::{Behaviour, Target};
use crate::script::{Step, steps};

pub(crate) const TARGET: Target = Target { name: "sip", words: WORDS, run };

fn run(input: &[u8]) -> Behaviour {
    let mut rig = Rig::new();
    for step in steps(input) {
        rig.play(&step);
    }
    rig.finish()
}

/// Who takes part. The stranger is nobody that the edge knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Carrier,
    Phone,
    Stranger,
}

impl Party {
    fn named(name: &str) -> Option<Self> {
        [Self::Carrier, Self::Phone, Self::Stranger].into_iter().find(|party| party.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Carrier => "carrier",
            Self::Phone => "phone",
            Self::Stranger => "stranger",
        }
    }

    fn address(self) -> SocketAddr {
        let host = match self {
            Self::Carrier => [192, 0, 2, 1],
            Self::Phone => [192, 0, 2, 9],
            Self::Stranger => STRANGER,
        };
        SocketAddr::from((host, 5_060))
    }
}

const STRANGER: [u8; 4] = [203, 0, 113, 66];

fn edge_address() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 5_060))
}

/// The stack and what it has done.
pub(crate) struct Rig {
    now: Now,
    stack: Stack,
    /// A second opinion: what the edge emits must be readable by a stack like itself.
    reader: Stack,
    read: u32,
    /// Dialogs that were told, and those that were told to have ended.
    open: BTreeSet<DialogKey>,
    ended: BTreeSet<DialogKey>,
    newest: Option<DialogKey>,
    next_outbound: u64,
    /// Header lines of the last message to each party.
    last: BTreeMap<SocketAddr, Vec<String>>,
    /// Somebody trusted has named the stranger's address, so the edge may speak to it.
    stranger_is_named: bool,
    /// A registration may be held, and expires late.
    registered: bool,
    behaviour: Behaviour,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut edge = SipConfig::new(edge_address(), "edge.example");
        edge.trunks.push(trunk("carrier", Party::Carrier.address()));
        edge.users.push(UserConfig {
            name: "ann".to_owned(),
            secret: Secret::Password(Pii::new(PASSWORD.to_owned())),
            allow_md5: false,
            uri: None,
        });
        let mut reader = SipConfig::new(Party::Carrier.address(), "reader.example");
        reader.trunks.push(trunk("edge", edge_address()));
        Self {
            now: Now::from_millis(1_000),
            stack: Stack::new(edge, 1),
            reader: Stack::new(reader, 2),
            read: 0,
            open: BTreeSet::new(),
            ended: BTreeSet::new(),
            newest: None,
            next_outbound: 1,
            last: BTreeMap::new(),
            stranger_is_named: false,
            registered: false,
            behaviour: Behaviour::new(),
        }
    }

    fn play(&mut self, step: &Step<'_>) {
        self.pass(Duration::from_millis(10));
        self.behaviour.note(step.word(0));
        match (step.word(0), Party::named(step.word(1))) {
            ("udp", Some(party)) => self.receive(party, Transport::Udp, 0, step.bytes),
            ("tcp", Some(party)) => self.receive(party, Transport::Tcp, step.number(2, 9).max(1), step.bytes),
            ("closed", Some(party)) => {
                let connection = step.number(2, 9).max(1);
                let flow = Flow { transport: Transport::Tcp, peer: party.address(), connection };
                let outputs = self.stack.connection_closed(self.now, flow);
                self.carry(outputs);
            }
            ("wait", _) => self.pass(Duration::from_millis(step.number(1, 100_000))),
            ("register", _) => self.register(),
            ("drain", _) => self.order(SipCommand::Drain),
            ("invite", _) => self.invite(),
            ("dial", _) => self.dial(),
            (word, _) => {
                let Some(dialog) = self.newest else { return };
                match word {
                    "ring" => self.order(SipCommand::Ring(dialog)),
                    "answer" => self.order(SipCommand::Answer(dialog, local(Direction::SendRecv))),
                    "reject" => self.order(SipCommand::Reject(dialog, 486)),
                    "hold" => self.order(SipCommand::Reinvite(dialog, local(Direction::SendOnly))),
                    "resume" => self.order(SipCommand::Reinvite(dialog, local(Direction::SendRecv))),
                    "hangup" => self.order(SipCommand::HangUp(dialog, LegCause::LocalHangUp)),
                    _ => {}
                }
            }
        }
    }

    /// The edge calls Ann's phone.
    fn invite(&mut self) {
        let dialog = self.outbound();
        self.order(SipCommand::Invite {
            dialog,
            to: Destination::User("ann".to_owned()),
            local: local(Direction::SendRecv),
            handle: Some("01JD8ZQK5R3V7W2M9X4T6Y0B1C".to_owned()),
        });
    }

    /// The edge calls a number behind the carrier.
    pub(crate) fn dial(&mut self) {
        let dialog = self.outbound();
        self.order(SipCommand::Dial {
            dialog,
            to: Destination::Uri(Pii::new("sip:+15555550100@192.0.2.1:5060".to_owned())),
            local: local(Direction::SendRecv),
            from: Caller::new(Pii::new("+15555550142".to_owned())),
            credentials: None,
        });
    }

    fn outbound(&mut self) -> DialogKey {
        let dialog = DialogKey(self.next_outbound);
        self.next_outbound += 2;
        self.open.insert(dialog);
        self.newest = Some(dialog);
        dialog
    }

    /// Ann's phone registers, as a phone does that knows the password.
    fn register(&mut self) {
        let mut config = SipConfig::new(Party::Phone.address(), "edge.example");
        config.trunks.push(trunk("edge", edge_address()));
        let mut phone = Stack::new(config, 3);
        let edge = Flow { transport: Transport::Udp, peer: edge_address(), connection: 0 };
        let mut outputs = phone.command(
            self.now,
            SipCommand::Register {
                user: "ann".to_owned(),
                password: Pii::new(PASSWORD.to_owned()),
                registrar: edge_address(),
                domain: "edge.example".to_owned(),
                expires_secs: 600,
            },
        );
        for _ in 0..3 {
            let mut answers = Vec::new();
            for output in outputs {
                let SipOutput::Send(_, bytes) = output else { continue };
                let flow = Flow { transport: Transport::Udp, peer: Party::Phone.address(), connection: 0 };
                let sent = self.stack.receive(self.now, flow, &bytes);
                for output in &sent {
                    if let SipOutput::Send(_, bytes) = output {
                        answers.extend(phone.receive(self.now, edge, bytes));
                    }
                }
                self.carry(sent);
            }
            outputs = answers;
        }
    }

    /// Bytes of a party, after what stands for the edge's own words has been put in.
    pub(crate) fn receive_from_carrier(&mut self, bytes: &[u8]) {
        self.pass(Duration::from_millis(10));
        self.receive(Party::Carrier, Transport::Udp, 0, bytes);
    }

    fn receive(&mut self, party: Party, transport: Transport, connection: u64, bytes: &[u8]) {
        let bytes = self.filled_in(party, bytes);
        if party != Party::Stranger {
            let name = b"203.0.113.66";
            self.stranger_is_named |= bytes.windows(name.len()).any(|window| window == name);
        }
        let flow = Flow { transport, peer: party.address(), connection };
        let before = self.stack.open();
        let outputs = self.stack.receive(self.now, flow, &bytes);
        if party == Party::Stranger {
            self.judge_answer_to_stranger(transport, bytes.len(), &outputs, before);
        }
        let calls =
            outputs.iter().filter(|output| matches!(output, SipOutput::Event(SipEvent::Invited { .. })));
        let calls = calls.count();
        if transport == Transport::Udp {
            assert!(calls <= 1, "one datagram, one call");
            assert!(calls == 0 || starts_as_invite(&bytes), "no call is opened by what is no INVITE");
        }
        // Retransmissions aside, a message is answered, acknowledged or passed on; a stream may
        // hold several, and a ping of four bytes between them.
        let pings = if transport == Transport::Tcp { bytes.len() / 4 } else { 0 };
        let messages = 1 + pings + bytes.windows(7).filter(|window| window == b"SIP/2.0").count();
        assert!(outputs.len() <= 8 * messages, "{} outputs for one message", outputs.len());
        self.carry(outputs);
    }

    /// An unverified source: one answer without state, twice the size at most, no call.
    fn judge_answer_to_stranger(
        &self,
        transport: Transport,
        size: usize,
        outputs: &[SipOutput],
        before: (usize, usize),
    ) {
        let invited =
            outputs.iter().any(|output| matches!(output, SipOutput::Event(SipEvent::Invited { .. })));
        assert!(!invited, "a stranger opens no call");
        assert!(self.stack.open().0 <= before.0, "a stranger opens no dialog");
        if transport == Transport::Udp && !self.stranger_is_named {
            let sizes = outputs.iter().filter_map(|output| match output {
                SipOutput::Send(flow, bytes) if flow.peer == Party::Stranger.address() => Some(bytes.len()),
                SipOutput::Send(..) | SipOutput::Close(_) | SipOutput::Event(_) => None,
            });
            let sizes: Vec<usize> = sizes.collect();
            assert!(sizes.len() <= 1, "a stranger gets one answer");
            assert!(sizes.iter().sum::<usize>() <= 2 * size, "{sizes:?} bytes for {size}: an amplifier");
        }
    }

    pub(crate) fn order(&mut self, command: SipCommand) {
        let outputs = self.stack.command(self.now, command);
        self.carry(outputs);
    }

    /// An order, and the messages that it sent.
    pub(crate) fn order_and_see(&mut self, command: SipCommand) -> Vec<Vec<u8>> {
        let outputs = self.stack.command(self.now, command);
        let sent = messages(&outputs);
        self.carry(outputs);
        sent
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        // A timer that does not advance would spin for ever in the shell's loop.
        for _ in 0..TIMEOUTS_MAX {
            let Some(due) = self.stack.next_timeout().filter(|due| *due <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(due);
            let outputs = self.stack.handle_timeout(self.now);
            self.carry(outputs);
        }
        panic!("timers do not come to rest");
    }

    fn carry(&mut self, outputs: Vec<SipOutput>) {
        for output in outputs {
            match output {
                SipOutput::Event(event) => self.hear(&event),
                SipOutput::Close(_) => self.behaviour.note("close"),
                SipOutput::Send(flow, bytes) => self.sent(flow, &bytes),
            }
        }
    }

    fn hear(&mut self, event: &SipEvent) {
        let name = format!("{event:?}");
        self.behaviour.note(name.split(['(', ' ', '{']).next().unwrap_or_default());
        match event {
            SipEvent::Invited { dialog, remote, .. } => {
                assert!(self.open.insert(*dialog), "a dialog is not opened twice");
                self.newest = Some(*dialog);
                remote.iter().for_each(judge_media);
            }
            SipEvent::Ended { dialog, .. } => {
                assert!(self.open.contains(dialog), "only what was opened ends");
                assert!(self.ended.insert(*dialog), "a dialog ends once");
            }
            SipEvent::Answered(dialog, remote)
            | SipEvent::Reinvited(dialog, remote)
            | SipEvent::PeerMedia(dialog, remote)
            | SipEvent::Confirmed(dialog, Some(remote)) => {
                assert!(!self.ended.contains(dialog), "nothing follows the end of a dialog");
                judge_media(remote);
            }
            SipEvent::Confirmed(dialog, None)
            | SipEvent::Ringing(dialog)
            | SipEvent::ReinviteFailed(dialog, _) => {
                assert!(!self.ended.contains(dialog), "nothing follows the end of a dialog");
            }
            SipEvent::Digit(dialog, digit) => {
                assert!(!self.ended.contains(dialog), "nothing follows the end of a dialog");
                assert!("0123456789*#ABCD".contains(*digit), "{digit} is no key");
            }
            SipEvent::Registered { contacts, .. } => {
                self.registered = true;
                assert!(*contacts <= 10, "{contacts} contacts");
            }
            SipEvent::RegisterResult { .. } => {}
        }
    }

    fn sent(&mut self, flow: Flow, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let first = text.lines().next().unwrap_or_default();
        self.behaviour.note(first.get(..12).unwrap_or(first).split(" sip").next().unwrap_or_default());
        judge_framing(bytes);
        let salvaged = first.starts_with("SIP/2.0 400") || first.starts_with("SIP/2.0 505");
        // Reading everything twice would halve the speed for nothing new.
        if !salvaged && self.read < READ_MAX && flow.transport == Transport::Udp {
            self.read += 1;
            let from = Flow { peer: edge_address(), ..flow };
            let faults = |stack: &Stack| {
                stack.counters().get("malformed_request") + stack.counters().get("malformed_dropped")
            };
            let _ = self.reader.receive(self.now, from, bytes);
            assert_eq!(faults(&self.reader), 0, "we cannot read what we wrote: {text}");
        }
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        self.last.insert(flow.peer, head.lines().map(str::to_owned).collect());
    }

    fn filled_in(&self, party: Party, bytes: &[u8]) -> Vec<u8> {
        let Some(lines) = self.last.get(&party.address()).filter(|_| bytes.contains(&b'$')) else {
            return bytes.to_vec();
        };
        let mut bytes = bytes.to_vec();
        for name in ["Via", "From", "To", "Call-ID", "CSeq", "Contact"] {
            let mark = format!("${name}");
            let values: Vec<&str> =
                lines.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect();
            let value = values.join(", ");
            for _ in 0..MARKS_MAX {
                let found = bytes.windows(mark.len()).position(|window| window == mark.as_bytes());
                let Some(at) = found else { break };
                bytes.splice(at..at + mark.len(), value.bytes());
            }
        }
        bytes
    }

    /// Ends every dialog and lets time pass: whatever the bytes opened is given back.
    pub(crate) fn finish(mut self) -> Behaviour {
        let open = self.stack.open();
        let parties = self.open.len();
        assert!(open.0 <= parties, "{} dialogs of {parties}", open.0);
        for dialog in self.open.clone() {
            self.order(SipCommand::HangUp(dialog, LegCause::LocalHangUp));
        }
        self.pass(if self.registered { EXPIRY } else { REST });
        assert_eq!(self.stack.open(), (0, 0), "dialogs and transactions end");
        let unended: Vec<_> = self.open.difference(&self.ended).collect();
        assert!(unended.is_empty(), "{unended:?} never ended");
        for (name, _) in self.stack.counters().iter() {
            self.behaviour.note(name);
        }
        self.behaviour
    }
}

/// Where audio must never be sent, whatever a description says.
fn judge_media(remote: &RemoteMedia) {
    let held = remote.direction == Direction::Inactive && remote.rtp.ip().is_unspecified();
    let ip = remote.rtp.ip().to_canonical();
    let local = match ip {
        std::net::IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    assert!(held || !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || local), "{ip}");
    assert_ne!(remote.rtp.port(), 0, "no audio goes to port 0");
}

/// One message, one of each single header, framed right, nothing that starts a line of its own.
fn judge_framing(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        assert!(text.trim().is_empty(), "neither a message nor a keep-alive: {text:?}");
        return;
    };
    if head.is_empty() {
        return;
    }
    let salvaged = head.starts_with("SIP/2.0 400") || head.starts_with("SIP/2.0 505");
    for name in ["Content-Length: ", "Call-ID: ", "CSeq: ", "From: ", "To: "] {
        let count = head.lines().filter(|line| line.starts_with(name)).count();
        assert!(count == 1 || (salvaged && count == 0), "{count} times {name}: {text}");
    }
    assert!(!head.contains('\0') && !head.replace("\r\n", "").contains(['\r', '\n']), "{text:?}");
    let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| bytes.len() - at - 4);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map(str::parse);
    assert_eq!(length, body.map(Ok), "{text}");
}

fn messages(outputs: &[SipOutput]) -> Vec<Vec<u8>> {
    let sent = outputs.iter().filter_map(|output| match output {
        SipOutput::Send(_, bytes) => Some(bytes.clone()),
        SipOutput::Close(_) | SipOutput::Event(_) => None,
    });
    sent.collect()
}

fn starts_as_invite(bytes: &[u8]) -> bool {
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or_default();
    bytes.get(start..).is_some_and(|rest| rest.starts_with(b"INVITE"))
}

fn trunk(name: &str, at: SocketAddr) -> TrunkConfig {
    TrunkConfig {
        name: name.to_owned(),
        addresses: vec![at.ip().into()],
        port: None,
        call_type: None,
        hold_by_reinvite: true,
        credentials: None,
        rel100: Rel100::default(),
        srtp: SrtpPolicy::default(),
    }
}

pub(crate) fn local(direction: Direction) -> LocalMedia {
    LocalMedia { ip: edge_address().ip(), port: 20_000, direction }
}

impl Rig {
    /// The dialog that was opened last.
    pub(crate) const fn newest(&self) -> Option<DialogKey> {
        self.newest
    }

    pub(crate) fn note(&mut self, what: &str) {
        self.behaviour.note(what);
    }
}

const PASSWORD: &str = "a-long-secret";
/// Emitted messages of one input that are read again.
const READ_MAX: u32 = 12;
/// Placeholders of one kind in one message.
const MARKS_MAX: usize = 4;
/// Longer than every timer of a dialog that was hung up, and of a stream that stalls.
const REST: Duration = Duration::from_secs(120);
/// Longer than a registration that nobody refreshes.
const EXPIRY: Duration = Duration::from_secs(4_000);
/// Timeouts in one stretch of time: retransmissions and keep-alives of everything at once.
const TIMEOUTS_MAX: usize = 20_000;

const WORDS: &[&str] = &[
    "\n%% udp carrier\n",
    "\n%% udp stranger\n",
    "\n%% udp phone\n",
    "\n%% tcp carrier 1\n",
    "\n%% tcp stranger 2\n",
    "\n%% closed carrier 1\n",
    "\n%% answer\n",
    "\n%% ring\n",
    "\n%% reject\n",
    "\n%% hold\n",
    "\n%% resume\n",
    "\n%% hangup\n",
    "\n%% invite\n",
    "\n%% dial\n",
    "\n%% register\n",
    "\n%% wait 500\n",
    "\n%% wait 40000\n",
    "\n%% drain\n",
    "\r\n",
    "\r\n\r\n",
    "\r\n ",
    "\r\n\t",
    "INVITE ",
    "ACK ",
    "BYE ",
    "CANCEL ",
    "OPTIONS ",
    "REGISTER ",
    "UPDATE ",
    "INFO ",
    "PRACK ",
    "REFER ",
    "SUBSCRIBE ",
    "NOTIFY ",
    "SIP/2.0",
    "SIP/3.0",
    "SIP/2.0 100 x\r\n",
    "SIP/2.0 180 x\r\n",
    "SIP/2.0 200 OK\r\n",
    "SIP/2.0 302 x\r\n",
    "SIP/2.0 401 x\r\n",
    "SIP/2.0 422 x\r\nMin-SE: 4000\r\n",
    "SIP/2.0 487 x\r\n",
    "SIP/2.0 491 x\r\n",
    "SIP/2.0 503 x\r\n",
    "SIP/2.0 603 x\r\n",
    "Via: ",
    "v: ",
    "SIP/2.0/UDP ",
    "SIP/2.0/TCP ",
    ";branch=z9hG4bK",
    ";branch=z9hG4bKx1",
    ";rport",
    ";received=127.0.0.1",
    ";maddr=224.0.0.1",
    "From: ",
    "f: ",
    "To: ",
    "t: ",
    ";tag=",
    "Call-ID: ",
    "i: ",
    "CSeq: ",
    "Contact: ",
    "m: ",
    "Contact: *\r\n",
    "Contact: <sip:a@203.0.113.66>\r\n",
    "Expires: 0\r\n",
    "Max-Forwards: 0\r\n",
    "Content-Length: ",
    "l: ",
    "Content-Length: 0\r\n",
    "Content-Type: ",
    "application/sdp",
    "application/dtmf-relay",
    "Signal=5\r\n",
    "Record-Route: <sip:r@192.0.2.1;lr>\r\n",
    "Route: <sip:a@b;lr>\r\n",
    "Require: 100rel\r\n",
    "Require: x\r\n",
    "Supported: timer, 100rel\r\n",
    "Session-Expires: 90;refresher=uac\r\n",
    "Session-Expires: 1\r\n",
    "Min-SE: 90\r\n",
    "RAck: 1 1 INVITE\r\n",
    "Refer-To: <sip:+900@x>\r\n",
    "Replaces: a;to-tag=b;from-tag=c\r\n",
    "Privacy: id\r\n",
    "P-Asserted-Identity: <tel:+15555550142>\r\n",
    "Authorization: Digest ",
    "username=\"ann\"",
    "realm=\"edge.example\"",
    "nonce=\"\"",
    "algorithm=SHA-256",
    "qop=auth",
    "nc=00000001",
    "response=\"\"",
    "User-Agent: friendly-scanner\r\n",
    "sip:",
    "sips:",
    "tel:+15555550142",
    "<sip:ann@edge.example>",
    "@198.51.100.1",
    "@[2001:db8::1]",
    ";lr",
    ";transport=tcp",
    "?Replaces=x",
    "%00",
    "\"",
    "$Via",
    "$From",
    "$To",
    "$Call-ID",
    "$CSeq",
    "$Contact",
    "v=0\r\n",
    "m=audio 4000 RTP/AVP 0 8 101\r\n",
    "c=IN IP4 127.0.0.1\r\n",
    "a=sendonly\r\n",
];
