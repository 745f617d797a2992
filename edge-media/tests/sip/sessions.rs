//! Session timers by UPDATE (RFC 4028, RFC 3311), and media that a peer changes in a running
//! call, with the peer played by hand where it has to be odd.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use edge_media::sip::{Codec, DialogKey, Direction, SipCommand, SipEvent};
use handoff::call::outcome::LegCause;

use crate::world::{CARRIER, EDGE, World, address, agreed, ended, media};

/// Messages of `from` that start so, since the last look.
fn texts(world: &World, from: &str, start: &str) -> Vec<String> {
    let sent = world.wire.iter().filter(|(_, sender, ..)| *sender == address(from));
    sent.map(|(.., bytes)| String::from_utf8_lossy(bytes).into_owned())
        .filter(|text| text.starts_with(start))
        .collect()
}

fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// An answered call, and the ACK of the carrier, which names it.
fn call(seed: u64) -> (World, DialogKey, String) {
    let mut world = World::edge_carrier_phone(seed);
    let key = world.answered_call(1);
    let ack = texts(&world, CARRIER, "ACK").remove(0);
    world.take(EDGE);
    world.take(CARRIER);
    world.wire.clear();
    (world, key, ack)
}

/// A request of the carrier within the call.
fn within(ack: &str, method: &str, cseq: u32, fields: &str, body: &str) -> String {
    let get = |name| line(ack, name).unwrap();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} sip:x@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{method}{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n{fields}{kind}\
         Content-Length: {}\r\n\r\n{body}",
        get("From"),
        get("To"),
        get("Call-ID"),
        body.len()
    )
}

/// The answer of the carrier to a request of the edge.
fn answer(request: &str, status: u16, fields: &str) -> String {
    let get = |name| line(request, name).unwrap();
    format!(
        "SIP/2.0 {status} X\r\nVia: {}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {}\r\n{fields}\
         Content-Length: 0\r\n\r\n",
        get("Via"),
        get("From"),
        get("To"),
        get("Call-ID"),
        get("CSeq")
    )
}

/// A call that the edge has to refresh, because the carrier asked it to with an UPDATE; the
/// carrier is played by hand from then on. Returns the first refresh.
fn refreshed_by_the_edge(seed: u64) -> (World, DialogKey, String) {
    let (mut world, key, ack) = call(seed);
    world.stacks.remove(&address(CARRIER));
    let fields = "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\nAllow: INVITE, UPDATE\r\n\
                  Contact: <sip:y@192.0.2.1:5060>\r\n";
    world.inject(EDGE, CARRIER, within(&ack, "UPDATE", 90_000_000, fields, "").as_bytes());
    let granted = texts(&world, EDGE, "SIP/2.0 200").remove(0);
    assert_eq!(line(&granted, "Session-Expires"), Some("90;refresher=uas"));
    world.wire.clear();
    world.run(45_100);
    let update = texts(&world, EDGE, "UPDATE").remove(0);
    (world, key, update)
}

#[test]
fn sessions_are_refreshed_by_update_without_a_description_where_the_peer_takes_it() {
    let (mut world, ..) = call(1);
    world.run(2 * 1_800_000);
    let updates = texts(&world, CARRIER, "UPDATE");
    assert_eq!(updates.len(), 4, "every half of the 1800 s that were agreed");
    assert_eq!(line(&updates[0], "Session-Expires"), Some("1800;refresher=uac"));
    assert_eq!(line(&updates[0], "Content-Length"), Some("0"));
    assert_eq!(texts(&world, CARRIER, "INVITE").len(), 0);
    assert_eq!((world.take(EDGE), world.take(CARRIER)), (vec![], vec![]));
}

#[test]
fn a_lost_update_is_repeated_and_the_session_goes_on() {
    let (mut world, ..) = call(2);
    world.drop_if = Some(|text| text.starts_with("UPDATE"));
    world.run(903_000);
    world.drop_if = None;
    world.run(1_800_000);
    assert_eq!((ended(&world.take(EDGE)), ended(&world.take(CARRIER))), (0, 0));
}

#[test]
fn an_edge_that_is_asked_to_refreshes_and_keeps_what_the_peer_grants() {
    let (mut world, key, update) = refreshed_by_the_edge(3);
    assert_eq!(line(&update, "Session-Expires"), Some("90;refresher=uac"));
    let granted = answer(&update, 200, "Session-Expires: 120;refresher=uac\r\n");
    world.inject(EDGE, CARRIER, granted.as_bytes());
    world.wire.clear();
    world.run(59_000);
    assert_eq!(texts(&world, EDGE, "UPDATE").len(), 0);
    world.run(2_000);
    assert!(!texts(&world, EDGE, "UPDATE").is_empty());
    world.run(40_000);
    let over = SipEvent::Ended { dialog: key, cause: LegCause::Lost, status: None };
    assert_eq!(world.take(EDGE), [over], "nobody answers the second one");
}

#[test]
fn a_refresh_that_is_not_taken_as_update_is_made_by_invite() {
    for status in [405, 501, 488] {
        let (mut world, _, update) = refreshed_by_the_edge(4);
        world.inject(EDGE, CARRIER, answer(&update, status, "").as_bytes());
        let invites = texts(&world, EDGE, "INVITE");
        assert_eq!(invites.len(), 1, "{status}");
        assert!(invites[0].contains("m=audio 20000 "));
        assert_eq!(world.take(EDGE), []);
    }
}

#[test]
fn a_refresh_that_is_too_short_is_repeated_with_what_the_peer_takes() {
    let (mut world, _, update) = refreshed_by_the_edge(5);
    world.inject(EDGE, CARRIER, answer(&update, 422, "Min-SE: 240\r\n").as_bytes());
    let again = texts(&world, EDGE, "UPDATE").pop().unwrap();
    assert_eq!(line(&again, "Session-Expires"), Some("240;refresher=uac"));
    assert_eq!(line(&again, "Min-SE"), Some("240"));
}

#[test]
fn a_refresh_that_meets_another_request_comes_again_after_the_back_off() {
    for (fields, status, from, to) in [("", 491, 0, 2_000), ("Retry-After: 5\r\n", 500, 5_000, 5_000)] {
        let (mut world, _, update) = refreshed_by_the_edge(6);
        let at = world.now;
        world.inject(EDGE, CARRIER, answer(&update, status, fields).as_bytes());
        world.wire.clear();
        world.run(6_000);
        let again = world.wire.iter().find(|(.., bytes)| bytes.starts_with(b"UPDATE")).unwrap();
        let waited = again.0.millis() - at.millis();
        assert!((from..=to).contains(&waited), "{waited}");
    }
}

#[test]
fn a_refresh_that_finds_no_dialog_ends_the_leg() {
    for status in [481, 408] {
        let (mut world, key, update) = refreshed_by_the_edge(7);
        world.inject(EDGE, CARRIER, answer(&update, status, "").as_bytes());
        let over = SipEvent::Ended { dialog: key, cause: LegCause::Lost, status: Some(status) };
        assert_eq!(world.take(EDGE), [over]);
    }
}

const SDP: &str = "v=0\r\no=- 5 5 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";

#[test]
fn an_offer_in_an_update_meets_491_while_ours_is_open_and_changes_nothing() {
    let (mut world, key, ack) = call(8);
    world.stacks.remove(&address(CARRIER));
    world.command(EDGE, SipCommand::Reinvite(key, media(EDGE, Direction::SendOnly)));
    let body = format!("{SDP}m=audio 4000 RTP/AVP 8\r\n");
    world.inject(EDGE, CARRIER, within(&ack, "UPDATE", 90_000_000, "", &body).as_bytes());
    assert_eq!(texts(&world, EDGE, "SIP/2.0 491").len(), 1);
    // Without an offer there is nothing to collide.
    world.inject(EDGE, CARRIER, within(&ack, "UPDATE", 90_000_001, "", "").as_bytes());
    assert_eq!(texts(&world, EDGE, "SIP/2.0 200").len(), 1);
    assert_eq!(world.take(EDGE), []);
}

#[test]
fn a_peer_changes_the_codec_by_reinvite_or_update() {
    for method in ["INVITE", "UPDATE"] {
        let (mut world, key, ack) = call(9);
        world.stacks.remove(&address(CARRIER));
        let body = format!("{SDP}m=audio 20000 RTP/AVP 8 0\r\n");
        world.inject(EDGE, CARRIER, within(&ack, method, 90_000_000, "", &body).as_bytes());
        let told = world.take(EDGE);
        let [SipEvent::PeerMedia(changed, remote)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*changed, remote.codec), (key, Codec::Pcma));
        let accepted = texts(&world, EDGE, "SIP/2.0 200").remove(0);
        assert!(accepted.contains("m=audio 20000 RTP/AVP 8\r\n"), "{accepted}");
    }
}

#[test]
fn an_offer_without_a_codec_of_ours_leaves_the_agreement_in_force() {
    for method in ["INVITE", "UPDATE"] {
        let (mut world, key, ack) = call(10);
        let body = format!("{SDP}m=audio 20000 RTP/AVP 18\r\n");
        world.inject(EDGE, CARRIER, within(&ack, method, 90_000_000, "", &body).as_bytes());
        assert_eq!(texts(&world, EDGE, "SIP/2.0 488").len(), 1);
        assert_eq!(world.take(EDGE), []);
        // The next change finds everything as it was.
        world.command(EDGE, SipCommand::Reinvite(key, media(EDGE, Direction::SendOnly)));
        world.run(100);
        assert_eq!(world.take(EDGE), [SipEvent::Reinvited(key, agreed(CARRIER, Direction::SendOnly))]);
    }
}

#[test]
fn an_offerless_reinvite_gets_a_full_offer_and_its_ack_agrees_or_ends_the_call() {
    for (answered, line) in [(true, "m=audio 20000 RTP/AVP 8\r\n"), (false, "")] {
        let (mut world, key, ack) = call(11);
        world.stacks.remove(&address(CARRIER));
        world.inject(EDGE, CARRIER, within(&ack, "INVITE", 90_000_000, "", "").as_bytes());
        let offer = texts(&world, EDGE, "SIP/2.0 200").remove(0);
        assert!(offer.contains("m=audio 20000 RTP/AVP 0 8 101\r\n"), "{offer}");
        let body = if answered { format!("{SDP}{line}") } else { String::new() };
        world.inject(EDGE, CARRIER, within(&ack, "ACK", 90_000_000, "", &body).as_bytes());
        let told = world.take(EDGE);
        match &told[..] {
            [SipEvent::PeerMedia(_, remote)] if answered => assert_eq!(remote.codec, Codec::Pcma),
            [SipEvent::Ended { dialog, .. }] if !answered => {
                assert_eq!(*dialog, key);
                assert_eq!(texts(&world, EDGE, "BYE").len(), 1);
            }
            _ => panic!("{told:?}"),
        }
    }
}
