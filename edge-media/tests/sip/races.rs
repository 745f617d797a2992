//! The races of RFC 5407 and their relatives, each as a run in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::{BTreeMap, BTreeSet};

use edge_media::sip::{Destination, DialogKey, Direction, SipCommand, SipEvent};
use handoff::call::outcome::LegCause;

use crate::world::{
    CARRIER, EDGE, PHONE, Weather, World, address, agreed, ended, first_line, invited, media,
};

/// The edge rings the phone `ann` under key 7; returns the phone's key.
fn ringing(world: &mut World) -> DialogKey {
    world.register();
    world.run(100);
    world.take(EDGE);
    world.wire.clear();
    world.command(
        EDGE,
        SipCommand::Invite {
            dialog: DialogKey(7),
            to: Destination::User("ann".to_owned()),
            local: media(EDGE, Direction::SendRecv),
            handle: None,
        },
    );
    world.run(100);
    let key = invited(&world.take(PHONE)).unwrap();
    world.command(PHONE, SipCommand::Ring(key));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::Ringing(DialogKey(7))]);
    key
}

fn methods(lines: &[String]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.split(' ').next()).collect()
}

fn cancelled(cause: LegCause) -> SipEvent {
    SipEvent::Ended { dialog: DialogKey(7), cause, status: None }
}

#[test]
fn late_answer_after_cancel_is_acked_then_byed() {
    let mut world = World::edge_carrier_phone(1);
    let key = ringing(&mut world);
    world.command(PHONE, SipCommand::Answer(key, media(PHONE, Direction::SendRecv)));
    world.command(EDGE, SipCommand::HangUp(DialogKey(7), LegCause::Cancelled));
    world.run(200);
    assert_eq!(world.take(EDGE), [cancelled(LegCause::Cancelled)]);
    assert_eq!(methods(&world.sent(EDGE)), ["INVITE", "CANCEL", "ACK", "BYE"]);
    assert_eq!(ended(&world.take(PHONE)), 1);
    world.run(80_000);
    assert_eq!((world.stack(EDGE).open(), world.stack(PHONE).open()), ((0, 0), (0, 0)));
}

/// The Reason of every message of this method that the edge sent.
fn reasons(world: &World, method: &str) -> Vec<String> {
    let from_edge = world.wire.iter().filter(|(_, from, ..)| *from == address(EDGE));
    let texts = from_edge.map(|(.., bytes)| String::from_utf8_lossy(bytes).into_owned());
    texts
        .filter(|text| text.starts_with(method))
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("Reason: ").map(str::to_owned)))
        .collect()
}

#[test]
fn a_cancel_and_the_bye_behind_it_say_why() {
    let mut world = World::edge_carrier_phone(1);
    let key = ringing(&mut world);
    world.command(PHONE, SipCommand::Answer(key, media(PHONE, Direction::SendRecv)));
    world.command(EDGE, SipCommand::HangUp(DialogKey(7), LegCause::NoAnswer));
    world.run(200);
    let why = "Q.850;cause=19;text=\"No answer from the user\"";
    assert_eq!(reasons(&world, "CANCEL "), [why]);
    assert_eq!(reasons(&world, "BYE "), [why]);
}

#[test]
fn a_bye_of_a_call_that_is_over_says_normal_and_of_a_drained_one_does_not() {
    for (cause, number) in [(LegCause::LocalHangUp, 16), (LegCause::Drained, 38)] {
        let mut world = World::edge_carrier_phone(1);
        let key = ringing(&mut world);
        world.command(PHONE, SipCommand::Answer(key, media(PHONE, Direction::SendRecv)));
        world.run(200);
        world.command(EDGE, SipCommand::HangUp(DialogKey(7), cause));
        world.run(200);
        let why = reasons(&world, "BYE ");
        assert!(why.len() == 1 && why[0].starts_with(&format!("Q.850;cause={number};")), "{why:?}");
    }
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let mut world = World::edge_carrier_phone(2);
    world.register();
    world.run(100);
    world.wire.clear();
    world.drop_if = Some(|text| text.starts_with("SIP/2.0 100"));
    world.command(
        EDGE,
        SipCommand::Invite {
            dialog: DialogKey(7),
            to: Destination::User("ann".to_owned()),
            local: media(EDGE, Direction::SendRecv),
            handle: None,
        },
    );
    world.run(100);
    world.command(EDGE, SipCommand::HangUp(DialogKey(7), LegCause::NoAnswer));
    world.run(100);
    assert_eq!(methods(&world.sent(EDGE)), ["INVITE"]);
    world.drop_if = None;
    world.run(2_000);
    let sent = world.sent(EDGE);
    let lines = methods(&sent);
    assert!(lines.contains(&"CANCEL") && lines.last() == Some(&"ACK"), "{lines:?}");
    assert!(matches!(
        world.take(PHONE).last(),
        Some(SipEvent::Ended { cause: LegCause::RemoteHangUp, status: Some(487), .. })
    ));
}

#[test]
fn a_caller_who_leaves_while_it_rings_ends_the_call() {
    let mut world = World::edge_carrier_phone(3);
    world.dial(1);
    world.run(100);
    let inbound = invited(&world.take(EDGE)).unwrap();
    world.command(CARRIER, SipCommand::HangUp(DialogKey(1), LegCause::LocalHangUp));
    world.run(100);
    assert!(matches!(
        world.take(EDGE)[..],
        [SipEvent::Ended { dialog, cause: LegCause::RemoteHangUp, status: Some(487) }] if dialog == inbound
    ));
    world.command(EDGE, SipCommand::Answer(inbound, media(EDGE, Direction::SendRecv)));
    world.run(60_000);
    assert_eq!(world.take(EDGE), [], "an answer that comes too late does nothing");
    assert_eq!(world.stack(EDGE).open(), (0, 0));
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_in_bye() {
    let mut world = World::edge_carrier_phone(4);
    world.drop_if = Some(|text| text.starts_with("ACK"));
    let inbound = world.answered_call(1);
    world.run(40_000);
    let answers = world.sent(EDGE).iter().filter(|line| *line == "SIP/2.0 200 OK").count();
    assert!(answers >= 10, "the answer is repeated: {answers}");
    assert!(world.sent(EDGE).iter().any(|line| line.starts_with("BYE")));
    assert_eq!(world.take(EDGE), [SipEvent::Ended { dialog: inbound, cause: LegCause::Lost, status: None }]);
}

#[test]
fn hanging_up_before_the_ack_waits_for_it() {
    let mut world = World::edge_carrier_phone(5);
    world.dial(1);
    world.run(100);
    let inbound = invited(&world.take(EDGE)).unwrap();
    world.command(EDGE, SipCommand::Answer(inbound, media(EDGE, Direction::SendRecv)));
    world.command(EDGE, SipCommand::HangUp(inbound, LegCause::LocalHangUp));
    assert!(!world.sent(EDGE).iter().any(|line| line.starts_with("BYE")));
    world.run(100);
    assert!(world.sent(EDGE).iter().any(|line| line.starts_with("BYE")));
    assert_eq!((ended(&world.take(EDGE)), ended(&world.take(CARRIER))), (1, 1));
}

#[test]
fn crossing_byes_are_both_answered_and_end_once() {
    let mut world = World::edge_carrier_phone(6);
    let inbound = world.answered_call(1);
    world.wire.clear();
    world.command(EDGE, SipCommand::HangUp(inbound, LegCause::LocalHangUp));
    world.command(CARRIER, SipCommand::HangUp(DialogKey(1), LegCause::LocalHangUp));
    world.run(100);
    for side in [EDGE, CARRIER] {
        let sent = world.sent(side);
        assert!(sent[0].starts_with("BYE") && sent[1] == "SIP/2.0 200 OK" && sent.len() == 2, "{sent:?}");
        assert_eq!(ended(&world.take(side)), 1);
    }
}

#[test]
fn a_bye_after_the_end_gets_481() {
    let mut world = World::edge_carrier_phone(7);
    world.answered_call(1);
    world.command(CARRIER, SipCommand::HangUp(DialogKey(1), LegCause::LocalHangUp));
    world.run(100);
    world.take(EDGE);
    let bye = world.wire.iter().map(|(.., bytes)| bytes.clone()).find(|bytes| bytes.starts_with(b"BYE"));
    let text = String::from_utf8(bye.unwrap()).unwrap();
    world.inject(EDGE, CARRIER, text.as_bytes());
    assert_eq!(world.sent(EDGE).last().unwrap(), "SIP/2.0 200 OK", "a retransmission gets the same answer");
    let another = text.replace("branch=z9hG4bK", "branch=z9hG4bKx");
    world.inject(EDGE, CARRIER, another.as_bytes());
    assert!(world.sent(EDGE).last().unwrap().starts_with("SIP/2.0 481"));
    assert_eq!(world.take(EDGE), []);
}

#[test]
fn every_fork_is_acked_and_all_but_the_first_are_byed() {
    let mut world = World::edge_carrier_phone(8);
    let key = ringing(&mut world);
    world.command(PHONE, SipCommand::Answer(key, media(PHONE, Direction::SendRecv)));
    world.run(100);
    assert!(matches!(world.take(EDGE)[..], [SipEvent::Answered(..)]));
    let answer =
        world.wire.iter().map(|(.., bytes)| String::from_utf8(bytes.clone()).unwrap()).find(|text| {
            text.starts_with("SIP/2.0 200") && text.contains("CSeq:") && text.contains(" INVITE\r\n")
        });
    let answer = answer.unwrap();
    let tag = answer.lines().find(|line| line.starts_with("To:")).unwrap().rsplit("tag=").next().unwrap();
    let fork = answer.replace(tag, "anotherphone");
    world.wire.clear();
    world.inject(EDGE, PHONE, fork.as_bytes());
    world.inject(EDGE, PHONE, fork.as_bytes());
    world.inject(EDGE, PHONE, answer.as_bytes());
    assert_eq!(methods(&world.sent(EDGE)), ["ACK", "BYE", "ACK", "ACK"]);
    assert_eq!(reasons(&world, "BYE "), ["SIP;cause=200;text=\"Call completed elsewhere\""]);
    assert_eq!(world.take(EDGE), [], "the call goes on");
}

#[test]
fn glare_both_ways_waits_inside_the_bands_and_converges() {
    for seed in 0..20 {
        let mut world = World::edge_carrier_phone(seed);
        let inbound = world.answered_call(1);
        world.take(EDGE);
        world.take(CARRIER);
        world.wire.clear();
        world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
        world.command(CARRIER, SipCommand::Reinvite(DialogKey(1), media(CARRIER, Direction::SendOnly)));
        let start = world.now;
        world.run(15_000);
        let invites = |from: &str| -> Vec<u64> {
            let sent = world.wire.iter().filter(|(_, sender, _, bytes)| {
                *sender == address(from) && first_line(bytes).starts_with("INVITE")
            });
            sent.map(|(at, ..)| at.millis() - start.millis()).collect()
        };
        // The 491 arrives 20 ms after the start.
        let (owner, other) = (invites(CARRIER), invites(EDGE));
        assert!((2_120..=4_020).contains(&owner[1]), "seed {seed}: {owner:?}");
        assert!((20..=2_020).contains(&other[1]), "seed {seed}: {other:?}");
        assert!(owner[1] % 10 == 0 && other[1] % 10 == 0);
        let edge = world.take(EDGE);
        assert!(edge.iter().any(|event| matches!(event, SipEvent::Reinvited(..))), "seed {seed}: {edge:?}");
        assert_eq!(ended(&edge), 0);
    }
}

#[test]
fn glare_to_the_end_is_told_after_three_tries() {
    let mut world = World::edge_carrier_phone(9);
    let inbound = world.answered_call(1);
    world.take(EDGE);
    // The carrier's own re-INVITE never gets an answer, so it stays pending for 32 s.
    world.drop_if = Some(|text| text.contains("From: <sip:+15555550142") && text.starts_with("INVITE"));
    world.command(CARRIER, SipCommand::Reinvite(DialogKey(1), media(CARRIER, Direction::SendRecv)));
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.run(20_000);
    assert_eq!(world.take(EDGE), [SipEvent::ReinviteFailed(inbound, 491)]);
}

#[test]
fn a_refused_reinvite_leaves_the_agreement_and_the_next_one_works() {
    let mut world = World::edge_carrier_phone(10);
    let inbound = world.answered_call(1);
    world.take(EDGE);
    let mut nonsense = media(EDGE, Direction::SendOnly);
    nonsense.ip = "127.0.0.1".parse().unwrap();
    world.command(EDGE, SipCommand::Reinvite(inbound, nonsense));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::ReinviteFailed(inbound, 488)]);
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::Reinvited(inbound, agreed(CARRIER, Direction::SendOnly))]);
}

#[test]
fn a_reinvite_waits_for_the_ack_of_the_answer() {
    let mut world = World::edge_carrier_phone(11);
    world.dial(1);
    world.run(100);
    let inbound = invited(&world.take(EDGE)).unwrap();
    world.wire.clear();
    world.command(EDGE, SipCommand::Answer(inbound, media(EDGE, Direction::SendRecv)));
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.run(200);
    let order: Vec<String> = world.wire.iter().map(|(.., bytes)| first_line(bytes)).collect();
    let ack = order.iter().position(|line| line.starts_with("ACK")).unwrap();
    let invite = order.iter().position(|line| line.starts_with("INVITE")).unwrap();
    assert!(ack < invite, "{order:?}");
}

#[test]
fn a_reinvite_that_is_never_answered_is_given_up_and_the_call_goes_on() {
    let mut world = World::edge_carrier_phone(15);
    let inbound = world.answered_call(1);
    world.take(EDGE);
    world.wire.clear();
    world.drop_if = Some(|text| text.starts_with("SIP/2.0 200") || text.starts_with("BYE"));
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    let invite = String::from_utf8(world.wire[0].3.clone()).unwrap();
    let kept = ["Via", "From", "To", "Call-ID", "CSeq"];
    let lines: String = invite
        .lines()
        .filter(|line| kept.iter().any(|name| line.starts_with(&format!("{name}:"))))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let trying = format!("SIP/2.0 100 Trying\r\n{lines}Content-Length: 0\r\n\r\n");
    world.inject(EDGE, CARRIER, trying.as_bytes());
    world.run(33_000);
    assert_eq!(world.take(EDGE), []);
    world.run(2_000);
    assert_eq!(world.take(EDGE), [SipEvent::ReinviteFailed(inbound, 408)]);
    assert!(world.sent(EDGE).iter().any(|line| line.starts_with("CANCEL")));
    world.run(60_000);
    assert_eq!(world.take(EDGE), []);
}

#[test]
fn a_bye_ends_a_call_whose_reinvite_is_open() {
    let mut world = World::edge_carrier_phone(12);
    let inbound = world.answered_call(1);
    world.take(EDGE);
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.command(CARRIER, SipCommand::HangUp(DialogKey(1), LegCause::LocalHangUp));
    world.run(100);
    assert_eq!(
        world.take(EDGE),
        [SipEvent::Ended { dialog: inbound, cause: LegCause::RemoteHangUp, status: None }]
    );
    world.run(60_000);
    assert_eq!((world.stack(EDGE).open(), world.stack(CARRIER).open()), ((0, 0), (0, 0)));
    assert_eq!(world.take(EDGE), []);
}

#[test]
fn held_by_both_sides_and_resumed_by_one() {
    let mut world = World::edge_carrier_phone(13);
    let inbound = world.answered_call(1);
    world.take(EDGE);
    world.command(CARRIER, SipCommand::Reinvite(DialogKey(1), media(CARRIER, Direction::SendOnly)));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::PeerMedia(inbound, agreed(CARRIER, Direction::RecvOnly))]);
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::Reinvited(inbound, agreed(CARRIER, Direction::Inactive))]);
    world.command(CARRIER, SipCommand::Reinvite(DialogKey(1), media(CARRIER, Direction::SendRecv)));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::PeerMedia(inbound, agreed(CARRIER, Direction::SendOnly))]);
}

/// The dialog that an event is about.
fn about(event: &SipEvent) -> Option<DialogKey> {
    match event {
        SipEvent::Invited { dialog, .. } | SipEvent::Ended { dialog, .. } => Some(*dialog),
        SipEvent::Ringing(key)
        | SipEvent::Answered(key, _)
        | SipEvent::Confirmed(key, _)
        | SipEvent::Reinvited(key, _)
        | SipEvent::ReinviteFailed(key, _)
        | SipEvent::PeerMedia(key, _)
        | SipEvent::Digit(key, _) => Some(*key),
        SipEvent::Registered { .. } | SipEvent::RegisterResult { .. } => None,
    }
}

#[test]
fn whatever_both_sides_do_every_dialog_ends_once_and_nothing_is_left() {
    let (mut calls, mut changes) = (0, 0);
    for seed in 0..300 {
        let mut world = World::edge_carrier_phone(seed);
        world.weather = Weather { loss: seed % 30, duplicates: 10, jitter_ms: 400 };
        let mut keys: BTreeMap<&str, BTreeSet<DialogKey>> = BTreeMap::new();
        let mut next = 1;
        let mut log: BTreeMap<&str, Vec<SipEvent>> = BTreeMap::new();
        for _ in 0..60 {
            let pause = world.draw() % 1_500;
            world.run(pause);
            for side in [EDGE, CARRIER] {
                let events = world.take(side);
                keys.entry(side).or_default().extend(invited(&events));
                log.entry(side).or_default().extend(events);
            }
            if world.draw().is_multiple_of(8) {
                world.dial(next);
                keys.entry(CARRIER).or_default().insert(DialogKey(next));
                next += 2;
            }
            let side = if world.draw().is_multiple_of(2) { EDGE } else { CARRIER };
            let known: Vec<DialogKey> = keys.entry(side).or_default().iter().copied().collect();
            let pick = usize::try_from(world.draw()).unwrap_or(0) % known.len().max(1);
            let Some(key) = known.get(pick).copied() else { continue };
            let direction =
                if world.draw().is_multiple_of(2) { Direction::SendOnly } else { Direction::SendRecv };
            let command = match world.draw() % 12 {
                0 | 1 => SipCommand::Ring(key),
                2..=6 => SipCommand::Answer(key, media(side, direction)),
                7..=9 => SipCommand::Reinvite(key, media(side, direction)),
                10 => SipCommand::Reject(key, 486),
                _ => SipCommand::HangUp(key, LegCause::LocalHangUp),
            };
            world.command(side, command);
        }
        for side in [EDGE, CARRIER] {
            let fresh = world.take(side);
            keys.entry(side).or_default().extend(invited(&fresh));
            log.entry(side).or_default().extend(fresh);
            for key in keys.entry(side).or_default().clone() {
                world.command(side, SipCommand::HangUp(key, LegCause::LocalHangUp));
            }
        }
        world.run(60_000);
        // An INVITE that was still on its way is hung up like the others.
        let late = world.take(EDGE);
        if let Some(key) = invited(&late) {
            world.command(EDGE, SipCommand::HangUp(key, LegCause::LocalHangUp));
        }
        log.entry(EDGE).or_default().extend(late);
        world.run(240_000);
        for side in [EDGE, CARRIER] {
            let events = log.entry(side).or_default();
            events.extend(world.take(side));
            calls += events.iter().filter(|event| matches!(event, SipEvent::Confirmed(..))).count();
            changes += events.iter().filter(|event| matches!(event, SipEvent::Reinvited(..))).count();
            let told: BTreeSet<DialogKey> = events.iter().filter_map(about).collect();
            for key in told {
                let own: Vec<&SipEvent> = events.iter().filter(|event| about(event) == Some(key)).collect();
                let ends = own.iter().filter(|event| matches!(event, SipEvent::Ended { .. })).count();
                assert_eq!(ends, 1, "seed {seed} {side} {key:?}: {own:?}");
                assert!(matches!(own.last(), Some(SipEvent::Ended { .. })), "seed {seed} {side}: {own:?}");
            }
            assert_eq!(world.stack(side).open(), (0, 0), "seed {seed} {side}");
        }
    }
    assert!(calls > 500 && changes > 500, "too tame: {calls} calls, {changes} changes");
}
