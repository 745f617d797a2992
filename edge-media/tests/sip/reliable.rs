//! Reliable provisional responses (RFC 3262) on both sides, with what gets lost and what comes
//! twice, and the early dialogs of a call that forks.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeSet;

use edge_media::sip::{Destination, DialogKey, Direction, Rel100, SipCommand, SipEvent, TrunkConfig};
use handoff::call::outcome::LegCause;
use handoff::pii::Pii;

use crate::world::{CARRIER, EDGE, Weather, World, address, agreed, invited, media, trunk};

const BOTH: Direction = Direction::SendRecv;

/// An edge and a carrier with these policies.
fn world(seed: u64, edge: Rel100, carrier: Rel100) -> World {
    let mut world = World::edge_carrier_phone(seed);
    for (at, name, peer, rel100) in [(EDGE, "carrier", CARRIER, edge), (CARRIER, "edge", EDGE, carrier)] {
        let trunks = vec![TrunkConfig { rel100, ..trunk(name, peer) }];
        let outputs = world.stacks.get_mut(&address(at)).unwrap().reload(trunks, Vec::new());
        world.carry_out(address(at), outputs);
    }
    world
}

/// The carrier calls; the edge says 183 with its media.
fn in_progress(world: &mut World) -> DialogKey {
    world.dial(1);
    world.run(100);
    let key = invited(&world.take(EDGE)).unwrap();
    world.command(EDGE, SipCommand::Progress(key, media(EDGE, BOTH)));
    key
}

/// Messages of `from` that start so.
fn texts(world: &World, from: &str, start: &str) -> Vec<String> {
    let sent = world.wire.iter().filter(|(_, sender, ..)| *sender == address(from));
    sent.map(|(.., bytes)| String::from_utf8_lossy(bytes).into_owned())
        .filter(|text| text.starts_with(start))
        .collect()
}

fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn idle(world: &mut World) {
    world.run(120_000);
    assert_eq!((world.stack(EDGE).open(), world.stack(CARRIER).open()), ((0, 0), (0, 0)));
}

#[test]
fn an_answer_in_a_reliable_183_is_acknowledged_and_not_repeated_in_the_200() {
    let mut world = world(1, Rel100::Supported, Rel100::Supported);
    let key = in_progress(&mut world);
    world.run(100);
    assert_eq!(world.take(CARRIER), [SipEvent::Ringing(DialogKey(1))]);
    let progress = texts(&world, EDGE, "SIP/2.0 183").remove(0);
    assert_eq!(line(&progress, "Require"), Some("100rel"));
    let rack = format!("{} ", line(&progress, "RSeq").unwrap());
    let prack = texts(&world, CARRIER, "PRACK").remove(0);
    assert!(line(&prack, "RAck").unwrap().starts_with(&rack), "{prack}");
    world.command(EDGE, SipCommand::Answer(key, media(EDGE, BOTH)));
    world.run(100);
    assert_eq!(world.take(CARRIER), [SipEvent::Answered(DialogKey(1), agreed(EDGE, BOTH))]);
    assert_eq!(world.take(EDGE), [SipEvent::Confirmed(key, Some(agreed(CARRIER, BOTH)))]);
    let answers = texts(&world, EDGE, "SIP/2.0 200");
    let answer = answers.iter().find(|text| text.contains(" INVITE\r\n")).unwrap();
    assert_eq!(line(answer, "Content-Length"), Some("0"));
    world.command(EDGE, SipCommand::HangUp(key, LegCause::LocalHangUp));
    idle(&mut world);
}

#[test]
fn a_lost_183_is_repeated_at_doubling_intervals_until_its_prack() {
    let mut world = world(2, Rel100::Supported, Rel100::Supported);
    world.drop_if = Some(|text| text.starts_with("SIP/2.0 183"));
    in_progress(&mut world);
    let start = world.now;
    world.run(8_000);
    let sent = world.wire.iter().filter(|(.., bytes)| bytes.starts_with(b"SIP/2.0 183"));
    let at: Vec<u64> = sent.map(|(at, ..)| at.millis() - start.millis()).collect();
    assert_eq!(at, [0, 500, 1_500, 3_500, 7_500]);
    assert_eq!(texts(&world, CARRIER, "PRACK").len(), 0);
    world.drop_if = None;
    world.run(60_000);
    assert_eq!(texts(&world, EDGE, "SIP/2.0 183").len(), 6, "the next one arrives and is the last");
    assert_eq!(texts(&world, CARRIER, "PRACK").len(), 1);
}

#[test]
fn a_call_whose_183_is_never_acknowledged_ends_with_504() {
    let mut world = world(3, Rel100::Supported, Rel100::Supported);
    world.drop_if = Some(|text| text.starts_with("PRACK"));
    let key = in_progress(&mut world);
    world.command(EDGE, SipCommand::Answer(key, media(EDGE, BOTH)));
    world.run(31_000);
    assert_eq!(world.take(EDGE), []);
    world.run(2_000);
    let over = |dialog, cause| SipEvent::Ended { dialog, cause, status: Some(504) };
    assert_eq!(world.take(EDGE), [over(key, LegCause::Lost)]);
    assert_eq!(world.take(CARRIER), [SipEvent::Ringing(DialogKey(1)), over(DialogKey(1), LegCause::Refused)]);
    assert_eq!(texts(&world, EDGE, "SIP/2.0 200").len(), 0, "no 2xx before the PRACK");
    idle(&mut world);
}

#[test]
fn the_200_waits_until_the_description_has_arrived() {
    let mut world = world(4, Rel100::Supported, Rel100::Supported);
    world.drop_if = Some(|text| text.starts_with("PRACK"));
    let key = in_progress(&mut world);
    world.command(EDGE, SipCommand::Answer(key, media(EDGE, BOTH)));
    world.run(1_000);
    assert_eq!(texts(&world, EDGE, "SIP/2.0 200").len(), 0);
    world.drop_if = None;
    world.run(1_000);
    assert_eq!(world.take(EDGE), [SipEvent::Confirmed(key, Some(agreed(CARRIER, BOTH)))]);
}

#[test]
fn a_180_without_description_does_not_hold_the_200_and_its_prack_is_answered_after_it() {
    let mut world = world(5, Rel100::Require, Rel100::Supported);
    world.dial(1);
    world.run(100);
    let key = invited(&world.take(EDGE)).unwrap();
    world.drop_if = Some(|text| text.starts_with("PRACK"));
    world.command(EDGE, SipCommand::Ring(key));
    world.run(100);
    world.command(EDGE, SipCommand::Answer(key, media(EDGE, BOTH)));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::Confirmed(key, None)]);
    world.drop_if = None;
    world.run(2_000);
    let answered = texts(&world, EDGE, "SIP/2.0 200").iter().any(|text| text.contains(" PRACK\r\n"));
    assert!(answered);
    assert_eq!(texts(&world, EDGE, "SIP/2.0 180").len(), 1, "nothing is repeated after the 200");
}

#[test]
fn the_policies_of_both_sides_decide_what_is_reliable() {
    use Rel100::{Off, Require, Supported};
    for (edge, carrier, ringing, described) in [
        (Off, Off, false, false),
        (Off, Supported, false, false),
        (Supported, Off, false, false),
        (Supported, Supported, false, true),
        (Supported, Require, true, true),
        (Require, Supported, true, true),
        (Require, Require, true, true),
    ] {
        let mut world = world(6, edge, carrier);
        world.dial(1);
        world.run(100);
        let key = invited(&world.take(EDGE)).unwrap();
        world.command(EDGE, SipCommand::Ring(key));
        world.run(100);
        world.command(EDGE, SipCommand::Progress(key, media(EDGE, BOTH)));
        world.run(100);
        let reliable = |status| line(&texts(&world, EDGE, status)[0], "RSeq").is_some();
        let found = (reliable("SIP/2.0 180"), reliable("SIP/2.0 183"));
        assert_eq!(found, (ringing, described), "{edge:?} {carrier:?}");
        world.command(EDGE, SipCommand::Answer(key, media(EDGE, BOTH)));
        world.run(100);
        let told = world.take(CARRIER);
        assert!(told.contains(&SipEvent::Answered(DialogKey(1), agreed(EDGE, BOTH))), "{told:?}");
    }
}

#[test]
fn what_one_side_insists_on_and_the_other_has_not_is_refused() {
    for (edge, carrier, status, name) in
        [(Rel100::Off, Rel100::Require, 420, "Unsupported"), (Rel100::Require, Rel100::Off, 421, "Require")]
    {
        let mut world = world(7, edge, carrier);
        world.dial(1);
        world.run(100);
        assert_eq!(invited(&world.take(EDGE)), None);
        let refusal = texts(&world, EDGE, &format!("SIP/2.0 {status}")).remove(0);
        assert_eq!(line(&refusal, name), Some("100rel"));
        idle(&mut world);
    }
}

#[test]
fn a_second_reliable_response_waits_for_the_prack_of_the_first() {
    let mut world = world(8, Rel100::Require, Rel100::Supported);
    let key = in_progress(&mut world);
    world.command(EDGE, SipCommand::Ring(key));
    assert_eq!(texts(&world, EDGE, "SIP/2.0 180").len(), 0);
    world.run(100);
    let number = |status| {
        let text = texts(&world, EDGE, status).remove(0);
        line(&text, "RSeq").unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(number("SIP/2.0 180"), number("SIP/2.0 183") + 1);
    assert_eq!(texts(&world, CARRIER, "PRACK").len(), 2);
}

#[test]
fn a_prack_that_names_no_response_of_ours_gets_481_and_a_malformed_one_400() {
    let mut world = world(9, Rel100::Supported, Rel100::Supported);
    world.drop_if = Some(|text| text.starts_with("PRACK"));
    in_progress(&mut world);
    world.run(100);
    let prack = texts(&world, CARRIER, "PRACK").remove(0);
    let (rack, cseq) = (line(&prack, "RAck").unwrap(), line(&prack, "CSeq").unwrap());
    let (rseq, invite) = rack.split_once(' ').unwrap();
    let next = |text: &str| text.parse::<u32>().unwrap() + 1;
    let mut number = next(cseq.split(' ').next().unwrap());
    for (value, status) in [
        (format!("{} {invite}", next(rseq)), 481),
        (format!("{rseq} 1 INVITE"), 481),
        (format!("{rseq} 1"), 400),
        (rack.to_owned(), 200),
        (rack.to_owned(), 481),
    ] {
        number += 1;
        let text = prack.replace(rack, &value).replace(cseq, &format!("{number} PRACK"));
        let text = text.replace("branch=z9hG4bK", &format!("branch=z9hG4bK{number}"));
        world.wire.clear();
        world.inject(EDGE, CARRIER, text.as_bytes());
        assert_eq!(texts(&world, EDGE, &format!("SIP/2.0 {status}")).len(), 1, "{value}");
    }
}

#[test]
fn whatever_comes_twice_is_acknowledged_once() {
    let mut world = world(10, Rel100::Require, Rel100::Require);
    world.weather = Weather { loss: 0, duplicates: 100, jitter_ms: 5 };
    let key = in_progress(&mut world);
    world.run(1_000);
    world.command(EDGE, SipCommand::Answer(key, media(EDGE, BOTH)));
    world.run(1_000);
    let pracks = texts(&world, CARRIER, "PRACK");
    let numbers: BTreeSet<&str> = pracks.iter().filter_map(|text| line(text, "CSeq")).collect();
    assert_eq!(numbers.len(), 1);
    assert!(world.take(CARRIER).contains(&SipEvent::Answered(DialogKey(1), agreed(EDGE, BOTH))));
}

#[test]
fn calls_with_reliable_responses_come_through_bad_networks() {
    for seed in 0..40 {
        let mut world = world(seed, Rel100::Require, Rel100::Supported);
        world.weather = Weather { loss: 20, duplicates: 10, jitter_ms: 200 };
        world.dial(1);
        world.run(5_000);
        let Some(key) = invited(&world.take(EDGE)) else { continue };
        world.command(EDGE, SipCommand::Ring(key));
        world.command(EDGE, SipCommand::Progress(key, media(EDGE, BOTH)));
        world.command(EDGE, SipCommand::Answer(key, media(EDGE, BOTH)));
        world.run(40_000);
        let told = world.take(CARRIER);
        assert!(told.contains(&SipEvent::Answered(DialogKey(1), agreed(EDGE, BOTH))), "{seed}: {told:?}");
        world.command(EDGE, SipCommand::HangUp(key, LegCause::LocalHangUp));
        idle(&mut world);
    }
}

const OFFER: &str = "v=0\r\no=- 5 5 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";

/// The INVITE that the carrier would send without an offer, as the edge sees it.
fn offerless(world: &mut World) -> DialogKey {
    world.drop_if = Some(|text| text.starts_with("INVITE"));
    world.dial(1);
    let invite = texts(world, CARRIER, "INVITE").remove(0);
    world.stacks.remove(&address(CARRIER));
    let (head, _) = invite.split_once("Content-Type").unwrap();
    world.inject(EDGE, CARRIER, format!("{head}Content-Length: 0\r\n\r\n").as_bytes());
    invited(&world.take(EDGE)).unwrap()
}

/// A request of the carrier within the dialog of this response.
fn within(response: &str, method: &str, cseq: u32, fields: &str, body: &str) -> String {
    let (from, to, id) =
        (line(response, "From").unwrap(), line(response, "To").unwrap(), line(response, "Call-ID").unwrap());
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} sip:x@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{method}{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\n{fields}{kind}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn prack(response: &str, body: &str) -> String {
    let invite: u32 = line(response, "CSeq").unwrap().split(' ').next().unwrap().parse().unwrap();
    let rack = format!("RAck: {} {invite} INVITE\r\n", line(response, "RSeq").unwrap());
    within(response, "PRACK", invite + 1, &rack, body)
}

#[test]
fn an_offer_in_a_reliable_183_is_answered_in_the_prack() {
    let mut world = world(11, Rel100::Supported, Rel100::Supported);
    let key = offerless(&mut world);
    world.command(EDGE, SipCommand::Progress(key, media(EDGE, BOTH)));
    let progress = texts(&world, EDGE, "SIP/2.0 183").remove(0);
    assert!(progress.contains("m=audio 20000 RTP/AVP 0 8 101\r\n"), "{progress}");
    let answer = format!("{OFFER}m=audio 4000 RTP/AVP 8\r\n");
    world.inject(EDGE, CARRIER, prack(&progress, &answer).as_bytes());
    world.command(EDGE, SipCommand::Answer(key, media(EDGE, BOTH)));
    let accepted = texts(&world, EDGE, "SIP/2.0 200").remove(1);
    assert_eq!(line(&accepted, "Content-Length"), Some("0"));
    let cseq = line(&accepted, "CSeq").unwrap().split(' ').next().unwrap().parse().unwrap();
    world.inject(EDGE, CARRIER, within(&accepted, "ACK", cseq, "", "").as_bytes());
    let told = world.take(EDGE);
    let [SipEvent::Confirmed(_, Some(remote))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((remote.rtp, remote.codec), (address("192.0.2.1:4000"), edge_media::sip::Codec::Pcma));
}

#[test]
fn an_offer_in_a_reliable_183_without_answer_in_the_prack_ends_the_call() {
    let mut world = world(12, Rel100::Supported, Rel100::Supported);
    let key = offerless(&mut world);
    world.command(EDGE, SipCommand::Progress(key, media(EDGE, BOTH)));
    let progress = texts(&world, EDGE, "SIP/2.0 183").remove(0);
    world.inject(EDGE, CARRIER, prack(&progress, "").as_bytes());
    assert_eq!(
        world.take(EDGE),
        [SipEvent::Ended { dialog: key, cause: LegCause::Refused, status: Some(488) }]
    );
}

#[test]
fn an_update_changes_media_before_the_answer_once_they_are_agreed() {
    let mut world = world(13, Rel100::Supported, Rel100::Supported);
    world.drop_if = Some(|text| text.starts_with("PRACK"));
    let key = in_progress(&mut world);
    world.run(100);
    let progress = texts(&world, EDGE, "SIP/2.0 183").remove(0);
    let prack = texts(&world, CARRIER, "PRACK").remove(0);
    world.inject(EDGE, CARRIER, prack.as_bytes());
    let cseq: u32 = line(&prack, "CSeq").unwrap().split(' ').next().unwrap().parse().unwrap();
    let body = format!("{OFFER}m=audio 4000 RTP/AVP 8 0\r\n");
    world.inject(EDGE, CARRIER, within(&progress, "UPDATE", cseq + 1, "", &body).as_bytes());
    let told = world.take(EDGE);
    let [SipEvent::PeerMedia(changed, remote)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*changed, remote.codec), (key, edge_media::sip::Codec::Pcma));
    let answer = texts(&world, EDGE, "SIP/2.0 200").pop().unwrap();
    assert!(answer.contains("m=audio 20000 RTP/AVP 8\r\n"), "{answer}");
}

/// The edge calls the carrier, which is played by hand; returns the INVITE.
fn calling(world: &mut World) -> String {
    world.stacks.remove(&address(CARRIER));
    world.command(
        EDGE,
        SipCommand::Invite {
            dialog: DialogKey(7),
            to: Destination::Uri(Pii::new("sip:ben@192.0.2.1".to_owned())),
            local: media(EDGE, BOTH),
            handle: None,
        },
    );
    texts(world, EDGE, "INVITE").remove(0)
}

/// A response of the phone with this tag; its audio comes from this port, if it says so.
fn response(invite: &str, status: u16, tag: &str, rseq: Option<u32>, port: Option<u16>) -> String {
    let get = |name| line(invite, name).unwrap();
    let body = port.map(|port| format!("{OFFER}m=audio {port} RTP/AVP 0\r\n")).unwrap_or_default();
    let reliable = rseq.map(|rseq| format!("Require: 100rel\r\nRSeq: {rseq}\r\n")).unwrap_or_default();
    format!(
        "SIP/2.0 {status} X\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag={tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
         Contact: <sip:ben@192.0.2.1:5060>\r\n{reliable}Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{body}",
        get("Via"),
        get("From"),
        get("To"),
        get("Call-ID"),
        get("CSeq"),
        body.len()
    )
}

#[test]
fn each_early_dialog_has_its_own_numbers_and_gets_its_own_pracks_in_order() {
    let mut world = world(14, Rel100::Supported, Rel100::Supported);
    let invite = calling(&mut world);
    assert_eq!(line(&invite, "Supported"), Some("timer, 100rel"));
    for (tag, rseq, pracks) in [
        ("a", 10, 1),
        ("b", 77, 2),
        ("a", 10, 2), // again
        ("a", 12, 2), // 11 is missing
        ("a", 11, 3),
        ("a", 12, 4),
        ("b", 76, 4), // of long ago
        ("b", 78, 5),
    ] {
        let text = response(&invite, 180, tag, Some(rseq), None);
        world.inject(EDGE, CARRIER, text.as_bytes());
        assert_eq!(texts(&world, EDGE, "PRACK").len(), pracks, "{tag} {rseq}");
    }
    let sent = texts(&world, EDGE, "PRACK");
    let racks: Vec<&str> = sent.iter().map(|text| line(text, "RAck").unwrap()).collect();
    let starts: Vec<&str> = racks.iter().filter_map(|rack| rack.split(' ').next()).collect();
    assert_eq!(starts, ["10", "77", "11", "12", "78"]);
    assert_eq!(world.take(EDGE), [SipEvent::Ringing(DialogKey(7))]);
}

#[test]
fn early_dialogs_beyond_the_bound_ring_and_are_not_kept() {
    let mut world = world(15, Rel100::Supported, Rel100::Supported);
    let invite = calling(&mut world);
    for fork in 0..40 {
        let text = response(&invite, 180, &format!("f{fork}"), Some(1), None);
        world.inject(EDGE, CARRIER, text.as_bytes());
    }
    assert_eq!(texts(&world, EDGE, "PRACK").len(), 16);
}

#[test]
fn a_description_belongs_to_the_early_dialog_that_it_came_in() {
    for reliable in [true, false] {
        let mut world = world(16, Rel100::Supported, Rel100::Supported);
        let invite = calling(&mut world);
        let rseq = reliable.then_some(1);
        for (tag, port) in [("a", 4_000), ("b", 5_000)] {
            let text = response(&invite, 183, tag, rseq, Some(port));
            world.inject(EDGE, CARRIER, text.as_bytes());
        }
        world.take(EDGE);
        world.inject(EDGE, CARRIER, response(&invite, 200, "b", None, None).as_bytes());
        world.inject(EDGE, CARRIER, response(&invite, 200, "a", None, None).as_bytes());
        let told = world.take(EDGE);
        let [SipEvent::Answered(_, remote)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(remote.rtp, address("192.0.2.1:5000"));
        // The other phone answered too: it hears ACK, then BYE.
        assert_eq!((texts(&world, EDGE, "ACK").len(), texts(&world, EDGE, "BYE").len()), (2, 1));
        assert!(line(&texts(&world, EDGE, "BYE")[0], "To").unwrap().ends_with("tag=a"));
    }
}

#[test]
fn an_answer_that_arrived_reliably_is_not_replaced_by_the_200() {
    for (rseq, port) in [(Some(1), "192.0.2.1:4000"), (None, "192.0.2.1:5000")] {
        let mut world = world(17, Rel100::Supported, Rel100::Supported);
        let invite = calling(&mut world);
        world.inject(EDGE, CARRIER, response(&invite, 183, "a", rseq, Some(4_000)).as_bytes());
        world.take(EDGE);
        world.inject(EDGE, CARRIER, response(&invite, 200, "a", None, Some(5_000)).as_bytes());
        let told = world.take(EDGE);
        let [SipEvent::Answered(_, remote)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(remote.rtp, address(port));
    }
}

#[test]
fn a_phone_may_change_media_before_it_answers_once_they_are_agreed() {
    for (rseq, status, port) in [(Some(1), 200, 6_000), (None, 491, 4_000)] {
        let mut world = world(18, Rel100::Supported, Rel100::Supported);
        let invite = calling(&mut world);
        let early = response(&invite, 183, "a", rseq, Some(4_000));
        world.inject(EDGE, CARRIER, early.as_bytes());
        world.take(EDGE);
        let body = format!("{OFFER}m=audio 6000 RTP/AVP 0\r\n");
        let update = within(&early, "UPDATE", 1, "", &body);
        let (from, to) = (line(&early, "From").unwrap(), line(&early, "To").unwrap());
        let update = update
            .replace(&format!("From: {from}\r\nTo: {to}\r\n"), &format!("From: {to}\r\nTo: {from}\r\n"));
        world.inject(EDGE, CARRIER, update.as_bytes());
        assert_eq!(texts(&world, EDGE, &format!("SIP/2.0 {status}")).len(), 1);
        world.inject(EDGE, CARRIER, response(&invite, 200, "a", None, None).as_bytes());
        let told = world.take(EDGE);
        let [SipEvent::Answered(_, remote)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(remote.rtp.port(), port);
    }
}
