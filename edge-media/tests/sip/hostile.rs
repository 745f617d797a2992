//! Hostile and odd input: vectors modelled on the classes of RFC 4475, mutations, random
//! bytes, guesses and floods. Nothing panics, nothing is amplified, and what is odd but legal
//! works.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::PathBuf;

use edge_media::sip::{
    Flow, Secret, SipCommand, SipConfig, SipEvent, SipOutput, Stack, Transport, UserConfig,
};
use handoff::clock::Now;
use handoff::pii::Pii;
use proptest::prelude::*;

use crate::world::{CARRIER, EDGE, PHONE, World, address, invited, media};

const STRANGER: &str = "203.0.113.66:5060";

fn vector(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sip").join(format!("{name}.sip"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

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

#[test]
fn every_vector_gets_its_verdict() {
    for (name, expected) in [
        ("folded_compact_invite", Some(100)),
        ("escaped_null_user", Some(200)),
        ("unknown_method", Some(501)),
        ("escaped_register_is_unknown", Some(501)),
        ("two_call_ids", Some(400)),
        ("cseq_out_of_range", Some(400)),
        ("cseq_other_method", Some(400)),
        ("negative_content_length", Some(400)),
        ("length_beyond_datagram", Some(400)),
        ("angle_brackets_in_request_uri", Some(400)),
        ("space_in_request_uri", Some(400)),
        ("headers_in_request_uri", Some(400)),
        ("version_7", Some(505)),
        ("unterminated_quote", Some(400)),
        ("required_extension", Some(420)),
        ("reliable_provisional_required", Some(100)),
        ("unknown_scheme", Some(416)),
        ("unknown_body", Some(415)),
        ("foreign_target", Some(404)),
        ("bare_cookie_branch", Some(200)),
        ("two_in_one_datagram", Some(200)),
        ("short_session_interval", Some(422)),
        ("media_to_loopback", Some(488)),
        ("stray_response", None),
        ("status_4294967301", None),
        ("offerless_invite", Some(100)),
        ("rfc2543_invite", Some(100)),
    ] {
        let outputs = edge().receive(Now::from_millis(1_000), udp(CARRIER), &vector(name));
        assert_eq!(status(&outputs), expected, "{name}");
        assert!(answers(&outputs).len() <= 1, "{name}");
    }
}

#[test]
fn refusals_say_what_would_be_accepted() {
    for (name, line) in [
        ("unknown_method", "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, REGISTER"),
        ("required_extension", "Unsupported: teleport"),
        ("unknown_body", "Accept: application/sdp"),
        ("short_session_interval", "Min-SE: 90"),
    ] {
        let outputs = edge().receive(Now::from_millis(1_000), udp(CARRIER), &vector(name));
        let text = answers(&outputs).concat();
        assert!(text.contains(&format!("{line}\r\n")), "{name}: {text}");
    }
}

#[test]
fn an_offerless_invite_is_offered_in_the_200_and_agreed_in_the_ack() {
    let (mut stack, now) = (edge(), Now::from_millis(1_000));
    let outputs = stack.receive(now, udp(CARRIER), &vector("offerless_invite"));
    let SipOutput::Event(SipEvent::Invited { dialog, remote: None, .. }) = outputs[1] else {
        panic!("{outputs:?}");
    };
    let local = media(EDGE, edge_media::sip::Direction::SendRecv);
    let outputs = stack.command(now, SipCommand::Answer(dialog, local));
    let answer = answers(&outputs).concat();
    assert!(answer.contains("m=audio 20000 RTP/AVP 0 8 101\r\n"), "{answer}");
    let to = answer.lines().find(|line| line.starts_with("To:")).unwrap();
    let body =
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";
    let ack = |body: &str| {
        format!(
            "ACK sip:x@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKack\r\n{to}\r\n\
             From: <sip:caller@192.0.2.1>;tag=c1\r\nCall-ID: offerless@vectors\r\nCSeq: 1 ACK\r\nMax-Forwards: 70\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut without = edge();
    let outputs = stack.receive(now, udp(CARRIER), ack(body).as_bytes());
    assert!(matches!(&outputs[..], [SipOutput::Event(SipEvent::Confirmed(_, Some(remote)))]
        if remote.rtp == address("192.0.2.1:4000")));
    // The same without an answer in the ACK ends the call.
    let outputs = without.receive(now, udp(CARRIER), &vector("offerless_invite"));
    assert_eq!(status(&outputs), Some(100));
    let outputs = without.command(now, SipCommand::Answer(dialog, local));
    assert_eq!(status(&outputs), Some(200));
    let outputs = without.receive(now, udp(CARRIER), ack("").as_bytes());
    assert!(answers(&outputs).concat().starts_with("BYE "), "{outputs:?}");
}

#[test]
fn within_a_dialog_order_is_kept() {
    let (mut stack, now) = (edge(), Now::from_millis(1_000));
    let invite = String::from_utf8(vector("rfc2543_invite")).unwrap();
    let invite = invite.replace("<sip:caller@192.0.2.1>\r\nTo", "<sip:caller@192.0.2.1>;tag=c1\r\nTo");
    let outputs = stack.receive(now, udp(CARRIER), invite.as_bytes());
    let SipOutput::Event(SipEvent::Invited { dialog, .. }) = outputs[1] else { panic!("{outputs:?}") };
    let ring = answers(&stack.command(now, SipCommand::Ring(dialog))).concat();
    let to = ring.lines().find(|line| line.starts_with("To:")).unwrap().to_owned();
    let request = |method: &str, cseq: u32, branch: &str, extra: &str| {
        format!(
            "{method} sip:x@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{branch}\r\n{to}\r\n\
             From: <sip:caller@192.0.2.1>;tag=c1\r\nCall-ID: old@vectors\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
             {extra}Content-Length: 0\r\n\r\n"
        )
    };
    let mut send = |method: &str, cseq: u32, branch: &str, extra: &str| {
        let outputs = stack.receive(now, udp(CARRIER), request(method, cseq, branch, extra).as_bytes());
        (status(&outputs), answers(&outputs).concat())
    };
    let (overlapping, text) = send("INVITE", 2, "a", "");
    assert_eq!(overlapping, Some(500));
    assert!(text.contains("Retry-After: "));
    assert_eq!(send("OPTIONS", 2, "b", "").0, Some(500), "CSeq does not grow");
    assert_eq!(send("UPDATE", 3, "c", "").0, Some(200));
    assert_eq!(send("PRACK", 4, "d", "RAck: 1 1 INVITE\r\n").0, Some(481));
    assert_eq!(send("REFER", 5, "e", "Refer-To: <sip:a@b>\r\n").0, Some(603));
    assert_eq!(send("UPDATE", 6, "f", "Session-Expires: 30\r\n").0, Some(422));
    let (bye, text) = send("BYE", 7, "g", "");
    assert!(bye.is_some() && text.contains("SIP/2.0 200") && text.contains("SIP/2.0 487"), "{text}");
    assert_eq!(send("BYE", 8, "h", "").0, Some(481));
}

#[test]
fn digits_by_info_are_told() {
    for (kind, body, digit) in [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", Some('5')),
        ("application/dtmf-relay", "Signal= # \r\n", Some('#')),
        ("application/dtmf", "7", Some('7')),
        ("application/dtmf-relay", "Signal=55\r\n", None),
        ("application/json", "{}", None),
    ] {
        let mut world = World::edge_carrier_phone(6);
        let inbound = world.answered_call(1);
        world.take(EDGE);
        let ack = world.wire.iter().map(|(.., bytes)| bytes.clone()).find(|bytes| bytes.starts_with(b"ACK"));
        let ack = String::from_utf8(ack.unwrap()).unwrap();
        let number: u32 = ack.split("CSeq: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let info = ack
            .replacen("ACK", "INFO", 1)
            .replace("z9hG4bK", "z9hG4bKi")
            .replace(&format!("{number} ACK"), &format!("{} INFO", number + 1))
            .replace(
                "Content-Length: 0\r\n\r\n",
                &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            );
        world.inject(EDGE, CARRIER, info.as_bytes());
        let expected: Vec<SipEvent> =
            digit.map(|digit| SipEvent::Digit(inbound, digit)).into_iter().collect();
        assert_eq!(world.take(EDGE), expected, "{kind} {body}");
        let status = if digit.is_some() { "SIP/2.0 200" } else { "SIP/2.0 415" };
        assert!(world.sent(EDGE).last().unwrap().starts_with(status), "{kind} {body}");
    }
}

#[test]
fn strangers_learn_nothing_and_cost_nothing() {
    let now = Now::from_millis(1_000);
    let invite = |from: &str| {
        format!(
            "INVITE sip:100@edge.example SIP/2.0\r\nVia: SIP/2.0/UDP {STRANGER};branch=z9hG4bKs{};rport\r\n\
             From: <sip:{from}>;tag=1\r\nTo: <sip:100@edge.example>\r\nCall-ID: {from}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:a@{STRANGER}>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            from.len()
        )
    };
    let mut stack = edge();
    let outputs = stack.receive(now, udp(STRANGER), invite("eve@evil.example").as_bytes());
    assert_eq!(status(&outputs), Some(403));
    let challenge = |stack: &mut Stack, from: &str| {
        let text = answers(&stack.receive(now, udp(STRANGER), invite(from).as_bytes())).concat();
        let challenge = text.lines().find(|line| line.starts_with("WWW-Authenticate")).map(str::to_owned);
        (text.get(8..11).map(str::to_owned), challenge)
    };
    let known = challenge(&mut stack, "ann@edge.example");
    assert_eq!(known, challenge(&mut stack, "nobody@edge.example"), "known and unknown users look the same");
    assert_eq!(known.0.as_deref(), Some("401"));
    assert_eq!(stack.open(), (0, 0), "no state for strangers");
    assert_eq!(stack.next_timeout(), None);
}

#[test]
fn a_phone_that_knows_md5_alone_is_asked_for_nothing_else_and_does_not_stand_out() {
    let mut world = World::edge_carrier_phone(3);
    let mut config = SipConfig::new(address(EDGE), "edge.example");
    config.users.push(UserConfig {
        name: "ann".to_owned(),
        secret: Secret::Password(Pii::new("secret".to_owned())),
        allow_md5: true,
        uri: None,
    });
    world.add(EDGE, config);
    world.command(
        PHONE,
        SipCommand::Register {
            user: "ann".to_owned(),
            password: Pii::new("secret".to_owned()),
            registrar: address(EDGE),
            domain: "edge.example".to_owned(),
            expires_secs: 60,
        },
    );
    world.run(200);
    let known = SipEvent::Registered { user: "ann".to_owned(), contacts: 1 };
    assert_eq!(world.take(EDGE), [known]);
    let challenge = |world: &mut World, user: &str| {
        let text = format!(
            "REGISTER sip:edge.example SIP/2.0\r\nVia: SIP/2.0/UDP {STRANGER};branch=z9hG4bK{user};rport\r\n\
             From: <sip:{user}@edge.example>;tag=1\r\nTo: <sip:{user}@edge.example>\r\nCall-ID: {user}\r\n\
             CSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        world.inject(EDGE, STRANGER, text.as_bytes());
        let (_, _, _, answer) = world.wire.last().unwrap();
        let answer = String::from_utf8_lossy(answer).into_owned();
        assert_eq!(answer.matches("WWW-Authenticate").count(), 1, "{answer}");
        answer.contains("algorithm=MD5")
    };
    assert!(challenge(&mut world, "ann"));
    let others: Vec<bool> = (0..32).map(|n| challenge(&mut world, &format!("nobody{n}"))).collect();
    assert!(others.contains(&true) && others.contains(&false), "{others:?}");
    assert!(
        (0..32).all(|n| challenge(&mut world, &format!("nobody{n}")) == others[n]),
        "asked twice, told once"
    );
}

#[test]
fn a_stranger_never_gets_more_than_twice_what_it_sent() {
    let mut stack = edge();
    for name in ["unknown_method", "two_call_ids", "version_7", "required_extension", "foreign_target"] {
        let bytes = vector(name);
        let outputs = stack.receive(Now::from_millis(1_000), udp(STRANGER), &bytes);
        let sent: usize = answers(&outputs).iter().map(String::len).sum();
        assert!(sent <= 2 * bytes.len(), "{name}");
    }
    let tiny = b"OPTIONS sip:edge.example SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bKt\r\nf:<sip:a@b>;tag=1\r\nt:<sip:a@b>\r\ni:t\r\nCSeq:1 OPTIONS\r\n\r\n";
    let outputs = stack.receive(Now::from_millis(1_000), udp(STRANGER), tiny);
    assert!(answers(&outputs).concat().len() <= 2 * tiny.len());
}

#[test]
fn a_flood_is_dropped_before_parsing_and_trunks_are_not_limited() {
    let mut stack = edge();
    let bytes = vector("unknown_method");
    let count = |stack: &mut Stack, peer: &str| {
        (0..200).filter(|_| !stack.receive(Now::from_millis(1_000), udp(peer), &bytes).is_empty()).count()
    };
    assert_eq!(count(&mut stack, STRANGER), 150);
    assert_eq!(stack.counters().get("source_over_rate"), 50);
    assert_eq!(count(&mut stack, CARRIER), 200);
}

#[test]
fn guessing_passwords_ends_in_silence() {
    let mut world = World::edge_carrier_phone(5);
    for _ in 0..60 {
        world.command(
            PHONE,
            SipCommand::Register {
                user: "ann".to_owned(),
                password: Pii::new("guess".to_owned()),
                registrar: address(EDGE),
                domain: "edge.example".to_owned(),
                expires_secs: 600,
            },
        );
        world.run(500);
    }
    assert!(world.stack(EDGE).counters().get("locked_out") > 0);
    assert!(world.stack(EDGE).counters().get("wrong_credentials") < 60);
}

#[test]
fn scanners_hear_nothing() {
    let text = String::from_utf8(vector("escaped_null_user")).unwrap();
    let text = text.replace("Max-Forwards", "User-Agent: friendly-scanner\r\nMax-Forwards");
    let mut stack = edge();
    assert_eq!(stack.receive(Now::from_millis(1_000), udp(STRANGER), text.as_bytes()), []);
    assert_eq!(stack.counters().get("scanner"), 1);
}

/// Everything that a peer of a trunk might send, to mutate.
fn seeds() -> Vec<Vec<u8>> {
    let mut world = World::edge_carrier_phone(77);
    world.register();
    let inbound = world.answered_call(1);
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, edge_media::sip::Direction::SendOnly)));
    world.run(200);
    world.command(EDGE, SipCommand::HangUp(inbound, handoff::call::outcome::LegCause::LocalHangUp));
    world.run(200);
    let mut seeds: Vec<Vec<u8>> =
        std::mem::take(&mut world.wire).into_iter().map(|(.., bytes)| bytes).collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sip");
    seeds.extend(
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()),
    );
    seeds
}

/// What every output has to be: one message, one of each single header, framed right.
fn check_output(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        assert!(text.trim().is_empty(), "{text}");
        return;
    };
    for name in ["Content-Length: ", "Call-ID: ", "CSeq: ", "From: ", "To: "] {
        let count = head.lines().filter(|line| line.starts_with(name)).count();
        let salvaged = head.starts_with("SIP/2.0 400") || head.starts_with("SIP/2.0 505");
        assert!(count == 1 || (salvaged && count == 0), "{name}{count}: {text}");
    }
    assert!(!head.contains('\0') && !head.replace("\r\n", "").contains(['\r', '\n']), "{text}");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(length.parse(), Ok(body.len()));
}

#[test]
fn fifty_thousand_mutations_never_panic_and_never_leak_a_line() {
    let seeds = seeds();
    let mut world = World::edge_carrier_phone(123);
    let mut stack = edge();
    let mut now = Now::from_millis(1_000);
    for round in 0..50_000_u64 {
        let mut bytes = seeds[usize::try_from(world.draw()).unwrap_or(0) % seeds.len()].clone();
        for _ in 0..=world.draw() % 4 {
            let at = usize::try_from(world.draw()).unwrap_or(0) % bytes.len().max(1);
            match world.draw() % 5 {
                0 if !bytes.is_empty() => bytes[at] = u8::try_from(world.draw() % 256).unwrap_or(0),
                1 => bytes.truncate(at),
                2 => bytes.insert(
                    at.min(bytes.len()),
                    b";,<>\"\r\n: \0"[usize::try_from(world.draw() % 10).unwrap_or(0)],
                ),
                3 if !bytes.is_empty() => {
                    bytes.remove(at);
                }
                _ => {
                    let piece = bytes[at.min(bytes.len())..].to_vec();
                    bytes.extend_from_slice(&piece[..piece.len().min(200)]);
                }
            }
        }
        now = now + std::time::Duration::from_millis(world.draw() % 50);
        let tcp = round % 16 == 0;
        let flow = if tcp {
            Flow { transport: Transport::Tcp, peer: address(CARRIER), connection: 1 + round }
        } else {
            udp(CARRIER)
        };
        let mut outputs = stack.receive(now, flow, &bytes);
        outputs.extend(stack.handle_timeout(now));
        if tcp {
            outputs.extend(stack.connection_closed(now, flow));
        }
        let keys: Vec<_> = outputs
            .iter()
            .filter_map(|output| {
                if let SipOutput::Event(event) = output { invited(std::slice::from_ref(event)) } else { None }
            })
            .collect();
        for key in keys {
            let local = media(EDGE, edge_media::sip::Direction::SendRecv);
            outputs.extend(stack.command(now, SipCommand::Answer(key, local)));
        }
        for output in &outputs {
            if let SipOutput::Send(_, bytes) = output {
                check_output(bytes);
            }
        }
    }
    // Whatever the mutations opened, time ends.
    for _ in 0..200_000 {
        let Some(at) = stack.next_timeout().filter(|at| *at < Now::from_millis(20_000_000)) else { break };
        now = now.max(at);
        let _ = stack.handle_timeout(now);
    }
    assert_eq!(stack.open(), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), tcp in any::<bool>()) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let flow = Flow { transport, peer: address(CARRIER), connection: u64::from(tcp) };
        let _ = edge().receive(Now::from_millis(1), flow, &bytes);
    }

    #[test]
    fn no_value_of_ours_adds_a_header_line(user in "\\PC*|[\\x00-\\x7f]{0,40}", handle in "[\\x00-\\x7f]{0,40}") {
        let mut world = World::edge_carrier_phone(3);
        world.register();
        world.run(100);
        world.wire.clear();
        world.command(EDGE, SipCommand::Dial {
            dialog: edge_media::sip::DialogKey(1),
            to: edge_media::sip::Destination::User("ann".to_owned()),
            local: media(EDGE, edge_media::sip::Direction::SendRecv),
            from: edge_media::sip::Caller::new(Pii::new(user)),
            credentials: None,
        });
        world.command(EDGE, SipCommand::Invite {
            dialog: edge_media::sip::DialogKey(3),
            to: edge_media::sip::Destination::User("ann".to_owned()),
            local: media(EDGE, edge_media::sip::Direction::SendRecv),
            handle: Some(handle),
        });
        for (.., bytes) in &world.wire {
            check_output(bytes);
            let text = String::from_utf8_lossy(bytes);
            let lines = text.split_once("\r\n\r\n").unwrap().0.lines().count();
            prop_assert!(lines == 14 || lines == 16, "{} lines: {}", lines, text);
        }
    }
}
