//! Requests to move a call, from those who may call and from strangers: none of them makes
//! the edge dial, and the running call stays as it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use edge_media::sip::{DialogKey, SipEvent};

use crate::world::{CARRIER, EDGE, World, address, ended, first_line};

const STRANGER: &str = "203.0.113.66:5060";

fn request(method: &str, from: &str, to: &str, id: &str, fields: &str) -> String {
    format!(
        "{method} sip:x@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{method}{}\r\n\
         Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: 99999999 {method}\r\n\
         Contact: <sip:y@192.0.2.1>\r\n{fields}Content-Length: 0\r\n\r\n",
        fields.len()
    )
}

/// The lines that the edge sends for these bytes.
fn answers(world: &mut World, from: &str, text: &str) -> Vec<String> {
    world.wire.clear();
    world.inject(EDGE, from, text.as_bytes());
    world
        .wire
        .iter()
        .filter(|(_, from, ..)| *from == address(EDGE))
        .map(|(.., bytes)| first_line(bytes))
        .collect()
}

#[test]
fn a_refer_within_a_call_is_declined_and_the_call_goes_on() {
    for (fields, status) in [
        ("Refer-To: <sip:+882000000000@192.0.2.1>\r\n", "SIP/2.0 603 Decline"),
        ("", "SIP/2.0 400 Bad Request"),
        ("Refer-To: <sip:a@h>, <sip:b@h>\r\n", "SIP/2.0 400 Bad Request"),
    ] {
        let mut world = World::edge_carrier_phone(1);
        world.answered_call(1);
        let bye = |world: &World| {
            let sent = world
                .wire
                .iter()
                .find(|(_, from, _, bytes)| *from == address(CARRIER) && bytes.starts_with(b"ACK"));
            String::from_utf8_lossy(&sent.unwrap().3).into_owned()
        };
        let ack = bye(&world);
        let get = |name: &str| ack.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let text = request("REFER", &get("From: "), &get("To: "), &get("Call-ID: "), fields);
        world.take(EDGE);
        assert_eq!(answers(&mut world, CARRIER, &text), [status]);
        world.run(5_000);
        assert_eq!((world.take(EDGE), ended(&world.take(CARRIER))), (vec![], 0));
    }
}

#[test]
fn a_refer_outside_a_call_is_forbidden() {
    for from in [CARRIER, STRANGER] {
        let mut world = World::edge_carrier_phone(2);
        let text = request(
            "REFER",
            "<sip:a@192.0.2.1>;tag=f",
            "<sip:x@198.51.100.1>",
            "refer",
            "Refer-To: <sip:+882000000000@192.0.2.1>\r\n",
        );
        assert_eq!(answers(&mut world, from, &text), ["SIP/2.0 403 Forbidden"], "{from}");
        assert_eq!(world.take(EDGE), []);
    }
}

#[test]
fn an_invite_that_wants_the_place_of_another_call_is_refused_and_that_call_goes_on() {
    let mut world = World::edge_carrier_phone(3);
    world.answered_call(1);
    world.take(EDGE);
    world.take(CARRIER);
    let sent = world.wire.iter().find(|(.., bytes)| bytes.starts_with(b"ACK")).unwrap();
    let ack = String::from_utf8_lossy(&sent.3).into_owned();
    let get = |name: &str| ack.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let tag = |name: &str| get(name).rsplit("tag=").next().unwrap().to_owned();
    let replaces =
        format!("Replaces: {};to-tag={};from-tag={}\r\n", get("Call-ID: "), tag("To: "), tag("From: "));
    for (from, fields, status) in [
        (CARRIER, replaces.clone(), "SIP/2.0 403 Forbidden"),
        (CARRIER, replaces.repeat(2), "SIP/2.0 400 Bad Request"),
        (STRANGER, replaces.clone(), "SIP/2.0 403 Forbidden"),
    ] {
        let text = request("INVITE", "<sip:a@192.0.2.1>;tag=f", "<sip:x@198.51.100.1>", "new", &fields);
        assert_eq!(answers(&mut world, from, &text), [status]);
    }
    world.run(5_000);
    assert!(!world.take(EDGE).iter().any(|event| matches!(event, SipEvent::Ended { .. })));
    assert_eq!(ended(&world.take(CARRIER)), 0);
    assert_eq!(world.stack(EDGE).open().0, 1, "{:?}", DialogKey(2));
}
