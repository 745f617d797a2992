//! What the stack does to defend itself: what strangers get, what they cost, and what they may
//! make us believe. Every rule of it stands in `tests/README.md` with its test.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::PathBuf;
use std::time::Duration;

use edge_media::sip::{
    Caller, Credentials, Destination, DialogKey, Direction, Flow, Origin, Secret, SipCommand, SipEvent,
    SipOutput, Stack, Transport,
};
use handoff::clock::Now;
use handoff::pii::Pii;

use crate::world::{CARRIER, EDGE, PHONE, World, address, media};

const STRANGER: &str = "203.0.113.66:5060";
const START: Now = Now::from_millis(1_000);

fn edge() -> Stack {
    World::edge_carrier_phone(1).stacks.remove(&address(EDGE)).unwrap()
}

fn udp(peer: &str) -> Flow {
    Flow { transport: Transport::Udp, peer: address(peer), connection: 0 }
}

fn answers(outputs: &[SipOutput]) -> Vec<String> {
    outputs
        .iter()
        .filter_map(|output| match output {
            SipOutput::Send(_, bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            SipOutput::Close(_) | SipOutput::Event(_) => None,
        })
        .collect()
}

fn status(outputs: &[SipOutput]) -> Option<u16> {
    answers(outputs).last().and_then(|text| text.get(8..11)?.parse().ok())
}

/// A request as phones write them, with these header lines and this body.
fn request(method: &str, from: &str, number: u32, lines: &str, body: &str) -> String {
    format!(
        "{method} sip:100@edge.example SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.66:5060;branch=z9hG4bKs{number}{method};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{from}>;tag=f{number}\r\nTo: <sip:100@edge.example>\r\nCall-ID: {number}@stranger\r\n\
         CSeq: 1 {method}\r\nContact: <sip:a@203.0.113.66:5060>\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n";
const TYPE: &str = "Content-Type: application/sdp\r\n";

fn vectors() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sip");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

#[test]
fn a_stranger_gets_one_answer_of_at_most_twice_its_request_and_no_more_than_it_sent_on_the_whole() {
    let mut sent = vectors();
    for (number, method) in
        ["INVITE", "REGISTER", "OPTIONS", "BYE", "CANCEL", "REFER", "SUBSCRIBE", "MESSAGE"]
            .into_iter()
            .enumerate()
    {
        let number = u32::try_from(number).unwrap();
        for from in ["ann@edge.example", "eve@evil.example"] {
            let body = if method == "INVITE" { (TYPE, SDP) } else { ("", "") };
            let agent = "User-Agent: A telephone of an ordinary make 4.2\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS\r\n";
            let text = request(method, from, number, &format!("{agent}{}", body.0), body.1);
            sent.push((format!("{method} {from}"), text.into_bytes()));
        }
    }
    let (mut bytes_in, mut bytes_out, mut worst) = (0, 0, (0.0, String::new()));
    for (name, bytes) in &sent {
        let mut stack = edge();
        let outputs = stack.receive(START, udp(STRANGER), bytes);
        let answers = answers(&outputs);
        assert!(answers.len() <= 1, "{name}: one answer, no copy");
        let out: usize = answers.iter().map(String::len).sum();
        assert!(out <= 2 * bytes.len(), "{name}: {out} for {}", bytes.len());
        #[expect(clippy::cast_precision_loss, reason = "sizes of datagrams")]
        let ratio = out as f64 / bytes.len() as f64;
        if ratio > worst.0 {
            worst = (ratio, name.clone());
        }
        assert_eq!(stack.next_timeout(), None, "{name}: nothing is sent again");
        assert_eq!(stack.open(), (0, 0), "{name}: nothing is kept");
        (bytes_in, bytes_out) = (bytes_in + bytes.len(), bytes_out + out);
    }
    println!("{bytes_out} bytes for {bytes_in}; the largest ratio is {:.2} ({})", worst.0, worst.1);
    assert!(bytes_out <= bytes_in, "{bytes_out} bytes for {bytes_in}");
}

#[test]
fn an_answer_that_would_be_larger_than_twice_the_request_is_not_sent() {
    let mut stack = edge();
    let tiny = b"OPTIONS sip:edge.example SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bKt\r\nf:<sip:a@b>;tag=1\r\nt:<sip:a@b>\r\ni:t\r\nCSeq:1 OPTIONS\r\n\r\n";
    let short = b"REGISTER sip:edge.example SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bKt;rport\r\nf:<sip:a@edge.example>;tag=1\r\nt:<sip:a@edge.example>\r\ni:t\r\nCSeq:1 REGISTER\r\n\r\n";
    for bytes in [&tiny[..], &short[..]] {
        let outputs = stack.receive(START, udp(STRANGER), bytes);
        assert!(answers(&outputs).concat().len() <= 2 * bytes.len());
    }
    assert!(stack.counters().get("answer_too_large") > 0, "one of the two was too large");
}

#[test]
fn a_scanner_is_banned_where_its_address_is_proven_and_never_a_trunk_or_a_registered_phone() {
    let scan = request("OPTIONS", "100@1.1.1.1", 1, "User-Agent: Friendly-Scanner\r\n", "");
    let plain = request("OPTIONS", "a@edge.example", 2, "", "");
    let mut world = World::edge_carrier_phone(4);
    world.register();
    world.run(100);
    let stack = world.stacks.get_mut(&address(EDGE)).unwrap();
    // Anybody can write anybody's address on a datagram: it is dropped, and nothing else.
    for peer in [STRANGER, PHONE, CARRIER] {
        let answered = stack.receive(world.now, udp(peer), scan.as_bytes());
        assert_eq!(answered.is_empty(), peer != CARRIER, "{peer}");
        assert!(!stack.receive(world.now, udp(peer), plain.as_bytes()).is_empty(), "{peer}");
    }
    assert_eq!(stack.counters().get("banned"), 0);
    let (scan, plain) = (scan.replace("z9hG4bK", "z9hG4bKt"), plain.replace("z9hG4bK", "z9hG4bKp"));
    for (peer, heard) in [(STRANGER, false), (PHONE, true), (CARRIER, true)] {
        let tcp = Flow { transport: Transport::Tcp, peer: address(peer), connection: 3 };
        let _ = stack.receive(world.now, tcp, scan.as_bytes());
        if !heard {
            let closed = stack.receive(world.now, tcp, plain.as_bytes());
            assert_eq!(closed, [SipOutput::Close(tcp)], "a stream is closed");
        }
        let again = plain.replace("z9hG4bKp", "z9hG4bKq");
        assert_eq!(!stack.receive(world.now, udp(peer), again.as_bytes()).is_empty(), heard, "{peer}");
    }
    let elsewhere = udp(&PHONE.replace("5060", "5999"));
    assert_eq!(stack.receive(world.now, elsewhere, plain.as_bytes()), [], "behind the phone's address");
    assert_eq!((stack.counters().get("banned"), stack.counters().get("banned_source")), (2, 3));
    let later = world.now + Duration::from_secs(600);
    let plain = plain.replace("z9hG4bKp", "z9hG4bKr");
    assert_eq!(status(&stack.receive(later, udp(STRANGER), plain.as_bytes())), Some(200), "a ban ends");
}

/// Sends REGISTER with wrong credentials for `user`, challenge first; what the second came to.
fn guess(stack: &mut Stack, now: Now, user: &str, number: u32) -> Option<String> {
    let from = format!("{user}@edge.example");
    let ask = |number: u32, lines: &str| request("REGISTER", &from, number, lines, "");
    let ask = |number, lines: &str| ask(number, lines).replace("To: <sip:100@", &format!("To: <sip:{user}@"));
    let first = answers(&stack.receive(now, udp(STRANGER), ask(2 * number, "").as_bytes())).concat();
    let nonce = first.split("nonce=\"").nth(1)?.split('"').next()?;
    let credentials = format!(
        "Authorization: Digest username=\"{user}\", realm=\"edge.example\", nonce=\"{nonce}\", uri=\"sip:100@edge.example\", \
         response=\"{}\", algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"c\"\r\n",
        "0".repeat(64)
    );
    let second = ask(2 * number + 1, &credentials);
    Some(answers(&stack.receive(now, udp(STRANGER), second.as_bytes())).concat())
}

#[test]
fn wrong_credentials_look_the_same_for_a_user_who_exists_and_one_who_does_not() {
    let plain = |user: &str| {
        let text = guess(&mut edge(), START, user, 1).unwrap();
        let tag = text.split("To: ").nth(1).unwrap().split("tag=").nth(1).unwrap().split("\r\n").next();
        let tag = tag.unwrap().to_owned();
        text.replace(&tag, "T").replace(user, "USER")
    };
    assert!(plain("ann").starts_with("SIP/2.0 401"));
    assert_eq!(plain("ann"), plain("bob"), "byte for byte, but for the name that was sent");
}

#[test]
fn a_user_is_locked_out_per_source_and_then_the_source_is_banned() {
    let mut stack = edge();
    for number in 0..5 {
        assert!(guess(&mut stack, START, "ann", number).unwrap().starts_with("SIP/2.0 401"));
    }
    assert_eq!(guess(&mut stack, START, "ann", 5), None, "silence for this user");
    assert!(guess(&mut stack, START, "bob", 6).unwrap().starts_with("SIP/2.0 401"), "not for another");
    assert_eq!(stack.counters().get("banned"), 0);
    for number in 7..21 {
        let _ = guess(&mut stack, START, &format!("user{number}"), number);
    }
    assert_eq!(stack.counters().get("banned"), 1);
    let plain = request("OPTIONS", "a@edge.example", 99, "", "");
    assert_eq!(stack.receive(START, udp(STRANGER), plain.as_bytes()), [], "silence for this source");
    let other = stack.receive(START, udp("203.0.113.67:5060"), plain.as_bytes());
    assert_eq!(status(&other), Some(200), "not for another");
}

#[test]
fn media_to_where_nobody_can_want_it_is_refused_before_it_is_a_call() {
    let many = format!("{SDP}{}", "m=video 0 RTP/AVP 31\r\n".repeat(16));
    let mut bodies: Vec<String> = ["127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.169.254", "0.1.2.3"]
        .map(|ip| SDP.replace("c=IN IP4 192.0.2.1", &format!("c=IN IP4 {ip}")))
        .to_vec();
    bodies.extend(
        ["::1", "fe80::1", "ff02::1", "::", "fd00:ec2::254", "::ffff:127.0.0.1"]
            .map(|ip| SDP.replace("c=IN IP4 192.0.2.1", &format!("c=IN IP6 {ip}"))),
    );
    bodies.push(format!("{SDP}a=rtcp:4001 IN IP4 203.0.113.7\r\n"));
    bodies.push(many);
    for (number, body) in bodies.iter().enumerate() {
        let invite = request("INVITE", "a@edge.example", u32::try_from(number).unwrap(), TYPE, body);
        let mut stack = edge();
        let outputs = stack.receive(START, udp(CARRIER), invite.as_bytes());
        // An unspecified address is how hold was written before RFC 3264: no audio is sent.
        let hold = body.contains("IP6 ::\r");
        assert_eq!(status(&outputs), Some(if hold { 100 } else { 488 }), "{body}");
        assert_eq!(outputs.iter().any(|output| matches!(output, SipOutput::Event(_))), hold, "{body}");
    }
}

/// What only a trunk may say of a caller or a call, each with a word of its own.
const CLAIMS: &str = "P-Asserted-Identity: <sip:+1999;verstat=TN-Validation-Passed@planted.example>\r\n\
    X-Plivo-Stir-Verification: Verified-planted\r\nUser-to-User: 706c616e746564;encoding=hex\r\n\
    Diversion: <sip:planted@x>;reason=unconditional\r\nHistory-Info: <sip:planted@x>;index=1\r\n\
    Referred-By: <sip:planted@x>\r\n\
    X-Warmbridge-Handoff: planted\r\nX-Edge-Call-Id: planted\r\nIdentity: planted\r\n";

/// To take the place of a call; that is refused to everybody.
const REPLACES: &str = "Replaces: planted@x;to-tag=1;from-tag=2\r\n";

#[test]
fn what_only_a_trunk_may_claim_is_not_believed_of_anybody_else_and_never_passed_on() {
    let mut world = World::edge_carrier_phone(9);
    world.register();
    world.run(100);
    let stack = world.stacks.get_mut(&address(EDGE)).unwrap();
    let outside = stack.receive(
        world.now,
        udp(STRANGER),
        request("INVITE", "eve@evil.example", 1, &format!("{CLAIMS}{REPLACES}"), "").as_bytes(),
    );
    assert_eq!(status(&outside), Some(403));
    assert!(outside.iter().all(|output| matches!(output, SipOutput::Send(..))), "no event, so no call");
    assert!(!answers(&outside).concat().contains("planted"));
    assert_eq!(stack.counters().get("forbidden"), 1);
    // A user who proved who they are is who they proved, whatever else they claim.
    world.drop_if = Some(|text| text.starts_with("INVITE") && text.contains("Authorization: "));
    world.command(PHONE, dial_as_ann(1));
    world.run(100);
    let proven = world.wire.iter().rfind(|(.., bytes)| bytes.starts_with(b"INVITE")).unwrap().3.clone();
    let proven = String::from_utf8(proven).unwrap();
    assert!(proven.contains("Authorization: "));
    world.take(EDGE);
    world.inject(EDGE, PHONE, proven.replace("Content-Type", &format!("{CLAIMS}Content-Type")).as_bytes());
    let told = world.take(EDGE);
    let [SipEvent::Invited { origin: Origin::User(user), caller, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((user.as_str(), caller.as_ref().map(|name| name.expose().as_str())), ("ann", Some("ann")));
    let replacing = format!("{REPLACES}{CLAIMS}{TYPE}");
    world.inject(EDGE, CARRIER, request("INVITE", "a@planted.example", 8, &replacing, SDP).as_bytes());
    assert!(world.take(EDGE).is_empty(), "nobody takes a running call over");
    // A trunk is believed the number, and what it said goes no further all the same.
    let invite = request("INVITE", "a@planted.example", 9, &format!("{CLAIMS}{TYPE}"), SDP);
    world.inject(EDGE, CARRIER, invite.as_bytes());
    let told = world.take(EDGE);
    let [SipEvent::Invited { caller: Some(caller), .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(caller.expose(), "+1999");
    world.wire.clear();
    world.command(
        EDGE,
        SipCommand::Invite {
            dialog: DialogKey(11),
            to: Destination::User("ann".to_owned()),
            local: media(EDGE, Direction::SendRecv),
            handle: None,
        },
    );
    world.run(100);
    let invite = String::from_utf8_lossy(&world.wire.first().unwrap().3).into_owned();
    assert!(
        invite.starts_with("INVITE ") && !invite.contains("planted") && !invite.contains("1999"),
        "{invite}"
    );
}

fn dial_as_ann(key: u64) -> SipCommand {
    let mut from = Caller::new(Pii::new("ann".to_owned()));
    from.domain = Some("edge.example".to_owned());
    SipCommand::Dial {
        dialog: DialogKey(key),
        to: Destination::Uri(Pii::new("sip:100@198.51.100.1:5060".to_owned())),
        local: media(PHONE, Direction::SendRecv),
        from,
        credentials: Some(Credentials {
            user: "ann".to_owned(),
            secret: Secret::Password(Pii::new("secret".to_owned())),
        }),
    }
}

#[test]
fn a_transfer_that_no_call_asks_for_is_forbidden_and_dials_nobody() {
    for target in ["sip:+882100@premium.example", "tel:+882100", "sip:ann@edge.example"] {
        for peer in [STRANGER, CARRIER] {
            let mut stack = edge();
            let refer = request("REFER", "a@edge.example", 1, &format!("Refer-To: <{target}>\r\n"), "");
            let outputs = stack.receive(START, udp(peer), refer.as_bytes());
            assert_eq!((status(&outputs), outputs.len()), (Some(403), 1), "{peer} {target}");
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let mut world = World::edge_carrier_phone(12);
    world.register();
    world.run(100);
    world.take(EDGE);
    world.drop_if = Some(|text| text.starts_with("INVITE"));
    world.wire.clear();
    let local = media(EDGE, Direction::SendRecv);
    let to = Destination::User("ann".to_owned());
    world.command(EDGE, SipCommand::Invite { dialog: DialogKey(1), to, local, handle: None });
    let invite = String::from_utf8(world.wire.first().unwrap().3.clone()).unwrap();
    let copied: String = invite
        .lines()
        .filter(|line| ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|name| line.starts_with(name)))
        .map(|line| format!("{line}{}\r\n", if line.starts_with("To:") { ";tag=x" } else { "" }))
        .collect();
    let moved = format!(
        "SIP/2.0 302 Moved\r\n{copied}Contact: <sip:+882100@203.0.113.200>\r\nContent-Length: 0\r\n\r\n"
    );
    world.inject(EDGE, PHONE, moved.as_bytes());
    world.run(60_000);
    assert!(matches!(&world.take(EDGE)[..], [SipEvent::Ended { status: Some(302), .. }]));
    assert!(world.wire.iter().all(|(_, from, to, _)| *from != address(EDGE) || *to == address(PHONE)));
    assert_eq!(world.sent(EDGE).iter().filter(|line| line.starts_with("INVITE")).count(), 1);
}

#[test]
fn no_address_fills_the_table_of_calls_with_calls_that_ring() {
    let mut stack = edge();
    let ring = |stack: &mut Stack, number: u32| {
        let invite = request("INVITE", "a@edge.example", number, TYPE, SDP);
        let outputs = stack.receive(START, udp(CARRIER), invite.as_bytes());
        (status(&outputs), answers(&outputs).concat().contains("Retry-After: 10\r\n"))
    };
    for number in 0..1_024 {
        assert_eq!(ring(&mut stack, number), (Some(100), false));
    }
    assert_eq!(ring(&mut stack, 1_024), (Some(503), true));
    assert_eq!(stack.counters().get("half_open_full"), 1);
    let mut world = World::edge_carrier_phone(13);
    for key in 0..17 {
        world.command(PHONE, dial_as_ann(2 * key + 1));
        world.run(1_000);
    }
    let told = world.take(EDGE);
    assert_eq!(told.iter().filter(|event| matches!(event, SipEvent::Invited { .. })).count(), 16);
    assert_eq!(world.stack(EDGE).counters().get("half_open_full"), 1);
}

#[test]
fn strangers_open_nothing_however_many_requests_they_send() {
    let mut stack = edge();
    for number in 0..5_000_u32 {
        let peer = format!("203.0.{}.{}:5060", number / 250, number % 250);
        let method = ["INVITE", "REGISTER", "OPTIONS", "BYE"][number as usize % 4];
        let text = request(method, "a@edge.example", number, "", "");
        let _ = stack.receive(START, udp(&peer), text.as_bytes());
    }
    assert_eq!((stack.open(), stack.next_timeout()), ((0, 0), None));
}
