//! A phone on a page in a browser (RFC 7118): it is reached over its WebSocket and by no other
//! way, and it is gone with it. The phone here is a stack whose datagrams are carried as the
//! frames of one connection, and whose address is rewritten to the name that resolves to nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use edge_media::sip::{
    Destination, DialogKey, Direction, Flow, MESSAGE_BYTES_MAX, Secret, SipCommand, SipConfig, SipEvent,
    SipOutput, Stack, Transport, UserConfig,
};
use handoff::call::outcome::LegCause;
use handoff::clock::Now;
use handoff::pii::Pii;

use crate::world::{EDGE, PHONE, address, ended, first_line, invited, media, trunk};

/// What a page says for its own address.
const NAMELESS: &str = "df7jal23ls0d.invalid";
/// What a proxy on the way adds to a request.
const VIA_OF_PROXY: &str = "Via: SIP/2.0/TLS p.example;branch=z9hG4bKp\r\n";
/// Where the browser's end of the connection is.
const BROWSER: &str = "203.0.113.99:51234";

const SOCKET: Flow = Flow {
    transport: Transport::Wss,
    peer: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 99)), 51_234),
    connection: 7,
};

struct Page {
    edge: Stack,
    phone: Stack,
    now: Now,
    told: Vec<SipEvent>,
    heard: Vec<SipEvent>,
    /// What the edge sent, and on which connection.
    sent: Vec<(Flow, String)>,
    closed: Vec<Flow>,
    /// What a proxy on the way adds to a registration.
    added: &'static str,
    /// Parameters of the phone's Contact.
    names: &'static str,
}

impl Page {
    fn new() -> Self {
        assert_eq!(SOCKET.peer, address(BROWSER));
        let mut edge = SipConfig::new(address(EDGE), "edge.example");
        edge.advertised_wss = Some(address("198.51.100.1:7443"));
        // Audio in the clear, for a phone that has no keys.
        edge.phones_srtp = edge_media::sip::SrtpPolicy::Off;
        edge.users.push(UserConfig {
            name: "ann".to_owned(),
            secret: Secret::Password(Pii::new("secret".to_owned())),
            allow_md5: false,
            uri: None,
        });
        let mut phone = SipConfig::new(address(PHONE), "edge.example");
        phone.trunks.push(trunk("edge", EDGE));
        Self {
            edge: Stack::new(edge, 1),
            phone: Stack::new(phone, 2),
            now: Now::from_millis(1_000),
            told: Vec::new(),
            heard: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            added: "",
            names: "",
        }
    }

    fn of_edge(&mut self, outputs: Vec<SipOutput>) {
        for output in outputs {
            match output {
                SipOutput::Event(event) => self.told.push(event),
                SipOutput::Close(flow) => self.closed.push(flow),
                SipOutput::Send(flow, bytes) => {
                    let text = String::from_utf8(bytes).unwrap();
                    self.sent.push((flow, text.clone()));
                    // A proxy on the way takes its own Via off again.
                    let frame = text.replace(NAMELESS, PHONE).replacen(VIA_OF_PROXY, "", 1);
                    let from = Flow { transport: Transport::Udp, peer: address(EDGE), connection: 0 };
                    let outputs = self.phone.receive(self.now, from, frame.as_bytes());
                    self.of_phone(outputs);
                }
            }
        }
    }

    fn of_phone(&mut self, outputs: Vec<SipOutput>) {
        for output in outputs {
            match output {
                SipOutput::Event(event) => self.heard.push(event),
                SipOutput::Close(_) => {}
                SipOutput::Send(_, bytes) => {
                    let text = String::from_utf8(bytes).unwrap().replace(PHONE, NAMELESS);
                    let text = if text.starts_with("REGISTER") {
                        let text = text.replacen(
                            "\r\nContent-Length",
                            &format!("{}\r\nContent-Length", self.added),
                            1,
                        );
                        text.replacen("\r\nExpires", &format!("{}\r\nExpires", self.names), 1)
                    } else {
                        text
                    };
                    self.frame(SOCKET, text.as_bytes());
                }
            }
        }
    }

    /// A frame arrives at the edge.
    fn frame(&mut self, flow: Flow, bytes: &[u8]) {
        let outputs = self.edge.receive(self.now, flow, bytes);
        self.of_edge(outputs);
    }

    fn register(&mut self) {
        let outputs = self.phone.command(
            self.now,
            SipCommand::Register {
                user: "ann".to_owned(),
                password: Pii::new("secret".to_owned()),
                registrar: address(EDGE),
                domain: "edge.example".to_owned(),
                expires_secs: 600,
            },
        );
        self.of_phone(outputs);
    }

    fn order(&mut self, command: SipCommand) {
        let outputs = self.edge.command(self.now, command);
        self.of_edge(outputs);
    }

    fn call(&mut self, key: u64) {
        self.order(SipCommand::Invite {
            dialog: DialogKey(key),
            to: Destination::User("ann".to_owned()),
            local: media(EDGE, Direction::SendRecv),
            handle: None,
        });
    }

    /// The connection ends.
    fn lose(&mut self) {
        let outputs = self.edge.connection_closed(self.now, SOCKET);
        self.of_edge(outputs);
    }
}

#[test]
fn a_phone_without_an_address_is_called_and_hung_up_over_its_own_connection() {
    let mut page = Page::new();
    page.register();
    assert_eq!(page.told, [SipEvent::Registered { user: "ann".to_owned(), contacts: 1 }]);
    page.call(1);
    let key = invited(&page.heard).unwrap();
    let outputs = page.phone.command(page.now, SipCommand::Answer(key, media(PHONE, Direction::SendRecv)));
    page.of_phone(outputs);
    assert!(matches!(page.told.last(), Some(SipEvent::Answered(DialogKey(1), _))), "{:?}", page.told);
    page.order(SipCommand::Reinvite(DialogKey(1), media(EDGE, Direction::SendOnly)));
    page.order(SipCommand::HangUp(DialogKey(1), LegCause::LocalHangUp));
    assert_eq!(ended(&page.heard), 1);

    assert!(page.sent.iter().all(|(flow, _)| *flow == SOCKET), "{:?}", page.sent);
    let requests: Vec<&String> =
        page.sent.iter().map(|(_, text)| text).filter(|text| !text.starts_with("SIP/2.0")).collect();
    let methods: Vec<&str> = requests.iter().map(|text| text.split(' ').next().unwrap()).collect();
    assert_eq!(methods, ["INVITE", "ACK", "INVITE", "ACK", "BYE"]);
    for request in requests {
        assert!(first_line(request.as_bytes()).contains(NAMELESS), "{request}");
        assert!(request.contains("Via: SIP/2.0/WSS 198.51.100.1:7443;branch="), "{request}");
        let named = "Contact: <sip:warmbridge@198.51.100.1:7443;transport=ws>";
        assert_eq!(request.contains(named), request.starts_with("INVITE"), "{request}");
    }
}

#[test]
fn a_registration_lives_as_long_as_its_connection() {
    let mut page = Page::new();
    page.register();
    page.told.clear();
    page.lose();
    assert_eq!(page.told, [SipEvent::Registered { user: "ann".to_owned(), contacts: 0 }]);
    page.told.clear();
    page.sent.clear();
    page.call(1);
    assert_eq!(
        page.told,
        [SipEvent::Ended { dialog: DialogKey(1), cause: LegCause::Unreachable, status: None }]
    );
    assert!(page.sent.is_empty());
}

#[test]
fn a_call_that_rings_ends_with_the_connection_it_rings_on() {
    let mut page = Page::new();
    page.register();
    page.call(1);
    page.told.clear();
    page.lose();
    let gone = SipEvent::Ended { dialog: DialogKey(1), cause: LegCause::Unreachable, status: None };
    assert!(page.told.contains(&gone), "{:?}", page.told);
}

#[test]
fn a_broken_frame_is_answered_and_spoils_no_other_and_one_without_end_closes() {
    let mut page = Page::new();
    // No length is needed: the frame's border is the message's (RFC 7118 section 5.2).
    let options = |more: &str| {
        format!(
            "OPTIONS sip:edge.example SIP/2.0\r\nVia: SIP/2.0/WSS {NAMELESS};branch=z9hG4bKa{more}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:ann@edge.example>;tag=1\r\nTo: <sip:edge.example>\r\n\
             Call-ID: c{more}\r\nCSeq: 1 OPTIONS\r\n\r\n"
        )
    };
    page.frame(SOCKET, options("1").as_bytes());
    page.frame(SOCKET, options("2").replace("CSeq: 1 OPTIONS", "CSeq: one").as_bytes());
    page.frame(SOCKET, options("3").as_bytes());
    let answers: Vec<String> = page.sent.iter().map(|(_, text)| first_line(text.as_bytes())).collect();
    assert_eq!(answers[0], "SIP/2.0 200 OK");
    assert!(answers[1].starts_with("SIP/2.0 400 "), "{answers:?}");
    assert_eq!(answers[2], "SIP/2.0 200 OK");
    assert!(page.closed.is_empty());
    page.frame(SOCKET, &vec![b'a'; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(page.closed, [SOCKET]);
}

#[test]
fn keep_alive_in_a_frame_is_answered_in_a_frame() {
    let mut page = Page::new();
    page.frame(SOCKET, b"\r\n\r\n");
    page.frame(SOCKET, b"\r\n");
    assert_eq!(page.sent, [(SOCKET, "\r\n".to_owned())]);
}

#[test]
fn a_phone_behind_a_proxy_is_called_along_the_way_that_its_registration_took() {
    let path = "<sip:token@proxy.example;lr>, <sip:inner.example;lr>";
    for (added, known) in [
        (
            "\r\nRequire: path\r\nSupported: path\r\nPath: <sip:token@proxy.example;lr>, <sip:inner.example;lr>",
            true,
        ),
        ("\r\nPath: <sip:token@proxy.example;lr>, <sip:inner.example;lr>", false),
    ] {
        let mut page = Page { added, ..Page::new() };
        page.register();
        let accepted = &page.sent.last().unwrap().1;
        assert!(accepted.starts_with("SIP/2.0 200"), "{accepted}");
        for hop in path.split(", ") {
            assert_eq!(accepted.contains(&format!("\r\nPath: {hop}\r\n")), known, "{accepted}");
        }
        page.sent.clear();
        page.call(1);
        let (_, invite) = &page.sent[0];
        let routes: Vec<&str> = invite.lines().filter_map(|line| line.strip_prefix("Route: ")).collect();
        assert_eq!(routes.join(", "), path, "{invite}");
        assert!(first_line(invite.as_bytes()).contains(NAMELESS), "the phone itself is meant: {invite}");
    }
}

#[test]
fn a_call_that_was_answered_outlives_its_connection() {
    let mut page = Page::new();
    page.register();
    page.call(1);
    let key = invited(&page.heard).unwrap();
    let outputs = page.phone.command(page.now, SipCommand::Answer(key, media(PHONE, Direction::SendRecv)));
    page.of_phone(outputs);
    page.told.clear();
    page.lose();
    assert_eq!(page.told, [SipEvent::Registered { user: "ann".to_owned(), contacts: 0 }], "audio goes on");
}

#[test]
fn a_phone_that_asks_for_its_connection_to_be_kept_is_told_how_often_to_show_that_it_lives() {
    const NAMES: &str = ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\";reg-id=1";
    const ASKS: &str = "\r\nSupported: path, outbound";
    const PROXY: &str = "\r\nSupported: path, outbound\r\nVia: SIP/2.0/TLS p.example;branch=z9hG4bKp";
    const KNOWING: &str = "\r\nSupported: path, outbound\r\nVia: SIP/2.0/TLS p.example;branch=z9hG4bKp\
        \r\nPath: <sip:x@p.example;lr;ob>";
    for (names, added, status, told) in [
        (NAMES, ASKS, "200", true),
        (NAMES, KNOWING, "200", true),
        (NAMES, "", "200", false),
        ("", ASKS, "200", false),
        (";reg-id=1", ASKS, "200", false),
        (NAMES, PROXY, "439", false),
    ] {
        let mut page = Page { added, names, ..Page::new() };
        page.register();
        let (_, answer) = page.sent.last().unwrap();
        assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{names} {added}: {answer}");
        let says = answer.contains("\r\nRequire: outbound\r\n") && answer.contains("\r\nFlow-Timer: 120\r\n");
        assert_eq!(says, told, "{names} {added}: {answer}");
    }
}
