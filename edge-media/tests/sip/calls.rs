//! Whole calls between stacks in virtual time, over good and bad networks.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use edge_media::sip::{
    Caller, Credentials, Destination, DialogKey, Direction, Origin, Secret, SipCommand, SipConfig, SipEvent,
};
use handoff::call::outcome::LegCause;
use handoff::clock::Now;
use handoff::pii::Pii;

use crate::world::{CARRIER, EDGE, PHONE, Weather, World, address, agreed, ended, invited, media};

#[test]
fn a_call_from_a_trunk_is_answered_held_resumed_and_ended() {
    let mut world = World::edge_carrier_phone(1);
    world.dial(1);
    world.run(100);
    let events = world.take(EDGE);
    let inbound = invited(&events).unwrap();
    let SipEvent::Invited { origin, caller, restricted, dialled, remote, .. } = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(*origin, Origin::Trunk("carrier".to_owned()));
    assert_eq!(caller.as_ref().map(|caller| caller.expose().as_str()), Some("+15555550142"));
    assert_eq!((dialled.expose().as_str(), *restricted), ("+15555550100", false));
    assert_eq!(*remote, Some(agreed(CARRIER, Direction::SendRecv)));

    world.command(EDGE, SipCommand::Ring(inbound));
    world.run(100);
    assert_eq!(world.take(CARRIER), [SipEvent::Ringing(DialogKey(1))]);
    world.command(EDGE, SipCommand::Answer(inbound, media(EDGE, Direction::SendRecv)));
    world.run(100);
    assert_eq!(world.take(CARRIER), [SipEvent::Answered(DialogKey(1), agreed(EDGE, Direction::SendRecv))]);
    assert_eq!(world.take(EDGE), [SipEvent::Confirmed(inbound, None)]);

    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::Reinvited(inbound, agreed(CARRIER, Direction::SendOnly))]);
    assert_eq!(world.take(CARRIER), [SipEvent::PeerMedia(DialogKey(1), agreed(EDGE, Direction::RecvOnly))]);
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendRecv)));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::Reinvited(inbound, agreed(CARRIER, Direction::SendRecv))]);
    world.take(CARRIER);

    world.command(CARRIER, SipCommand::HangUp(DialogKey(1), LegCause::LocalHangUp));
    world.run(100);
    let over = |dialog, cause| SipEvent::Ended { dialog, cause, status: None };
    assert_eq!(world.take(CARRIER), [over(DialogKey(1), LegCause::LocalHangUp)]);
    assert_eq!(world.take(EDGE), [over(inbound, LegCause::RemoteHangUp)]);
    world.run(120_000);
    assert_eq!(world.stack(EDGE).open(), (0, 0));
    assert_eq!(world.stack(CARRIER).open(), (0, 0));
}

#[test]
fn a_registered_user_is_called_and_gets_the_handle() {
    let mut world = World::edge_carrier_phone(2);
    world.register();
    world.run(100);
    assert_eq!(
        world.take(PHONE),
        [SipEvent::RegisterResult { user: "ann".to_owned(), ok: true, status: Some(200) }]
    );
    assert_eq!(world.take(EDGE), [SipEvent::Registered { user: "ann".to_owned(), contacts: 1 }]);

    let handle = "0123456789abcdefghijklmnop";
    world.command(
        EDGE,
        SipCommand::Invite {
            dialog: DialogKey(7),
            to: Destination::User("ann".to_owned()),
            local: media(EDGE, Direction::SendRecv),
            handle: Some(handle.to_owned()),
        },
    );
    world.run(100);
    let key = invited(&world.take(PHONE)).unwrap();
    let invite = world.wire.iter().map(|(.., bytes)| String::from_utf8_lossy(bytes)).find(|text| {
        text.starts_with("INVITE") && text.contains(&format!("X-Warmbridge-Handoff: {handle}\r\n"))
    });
    assert!(invite.unwrap().contains("User-to-User: 30313233"));
    world.command(PHONE, SipCommand::Ring(key));
    world.command(PHONE, SipCommand::Answer(key, media(PHONE, Direction::SendRecv)));
    world.run(100);
    assert_eq!(
        world.take(EDGE),
        [
            SipEvent::Ringing(DialogKey(7)),
            SipEvent::Answered(DialogKey(7), agreed(PHONE, Direction::SendRecv))
        ]
    );
    world.command(EDGE, SipCommand::HangUp(DialogKey(7), LegCause::LocalHangUp));
    world.run(100);
    assert!(matches!(world.take(PHONE).last(), Some(SipEvent::Ended { cause: LegCause::RemoteHangUp, .. })));
}

#[test]
fn a_whole_call_converges_under_twenty_percent_loss() {
    let mut completed = 0;
    for seed in 0..200 {
        let mut world = World::edge_carrier_phone(seed);
        world.weather = Weather { loss: 20, duplicates: 10, jitter_ms: 300 };
        let (mut edge, mut carrier) = (Vec::new(), Vec::new());
        let (mut step, mut inbound) = (0, None);
        world.dial(1);
        for _ in 0..400 {
            world.run(500);
            let fresh = world.take(EDGE);
            carrier.extend(world.take(CARRIER));
            for event in &fresh {
                match (step, event) {
                    (0, SipEvent::Invited { dialog, .. }) => {
                        inbound = Some(*dialog);
                        world.command(EDGE, SipCommand::Answer(*dialog, media(EDGE, Direction::SendRecv)));
                    }
                    (0, SipEvent::Confirmed(key, _)) => {
                        step = 1;
                        world.command(EDGE, SipCommand::Reinvite(*key, media(EDGE, Direction::SendOnly)));
                    }
                    (1, SipEvent::Reinvited(key, remote)) => {
                        assert_eq!(remote.direction, Direction::SendOnly, "seed {seed}");
                        step = 2;
                        world.command(EDGE, SipCommand::Reinvite(*key, media(EDGE, Direction::SendRecv)));
                    }
                    (2, SipEvent::Reinvited(..)) => {
                        step = 3;
                        let bye = SipCommand::HangUp(DialogKey(1), LegCause::LocalHangUp);
                        world.command(CARRIER, bye);
                    }
                    _ => {}
                }
            }
            edge.extend(fresh);
        }
        let invited = edge.iter().filter(|event| matches!(event, SipEvent::Invited { .. })).count();
        assert!(invited <= 1, "seed {seed}: a retransmitted INVITE is one call");
        assert_eq!((ended(&edge), ended(&carrier)), (invited, 1), "seed {seed}: {edge:?} {carrier:?}");
        assert!(matches!(carrier.last(), Some(SipEvent::Ended { .. })), "seed {seed}: the end is the last");
        assert_eq!(world.stack(EDGE).open(), (0, 0), "seed {seed}: {inbound:?}");
        assert_eq!(world.stack(CARRIER).open(), (0, 0), "seed {seed}");
        completed += usize::from(step == 3);
    }
    assert!(completed >= 195, "only {completed} of 200 calls went all the way");
}

#[test]
fn the_same_seed_is_the_same_run_byte_for_byte() {
    let run = || {
        let mut world = World::edge_carrier_phone(42);
        world.weather = Weather { loss: 20, duplicates: 10, jitter_ms: 300 };
        world.dial(1);
        world.run(60_000);
        std::mem::take(&mut world.wire)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_user_calls_in_after_a_challenge() {
    let mut world = World::edge_carrier_phone(3);
    let dial = |password: &str, user: &str| SipCommand::Dial {
        dialog: DialogKey(if password == "secret" { 1 } else { 3 }),
        to: Destination::Uri(Pii::new("sip:100@198.51.100.1".to_owned())),
        local: media(PHONE, Direction::SendRecv),
        from: Caller::new(Pii::new(user.to_owned())),
        credentials: Some(Credentials {
            user: "ann".to_owned(),
            secret: Secret::Password(Pii::new(password.to_owned())),
        }),
    };
    world.command(PHONE, dial("secret", "ann"));
    world.run(200);
    let events = world.take(EDGE);
    assert!(
        matches!(&events[..], [SipEvent::Invited { origin: Origin::User(user), .. }] if user == "ann"),
        "{events:?}"
    );
    world.command(PHONE, dial("wrong", "ann"));
    world.run(200);
    assert_eq!(world.take(EDGE), []);
    let refused = |key, status| SipEvent::Ended {
        dialog: DialogKey(key),
        cause: LegCause::Refused,
        status: Some(status),
    };
    assert_eq!(world.take(PHONE), [refused(3, 401)]);
}

#[test]
fn a_user_may_not_call_as_somebody_else() {
    let mut world = World::edge_carrier_phone(3);
    world.command(
        PHONE,
        SipCommand::Dial {
            dialog: DialogKey(1),
            to: Destination::Uri(Pii::new("sip:100@198.51.100.1".to_owned())),
            local: media(PHONE, Direction::SendRecv),
            from: Caller::new(Pii::new("bob".to_owned())),
            credentials: Some(Credentials {
                user: "ann".to_owned(),
                secret: Secret::Password(Pii::new("secret".to_owned())),
            }),
        },
    );
    world.run(200);
    assert_eq!(world.take(EDGE), []);
    assert!(matches!(world.take(PHONE)[..], [SipEvent::Ended { status: Some(403), .. }]));
}

#[test]
fn a_wrong_password_registers_nothing() {
    let mut world = World::edge_carrier_phone(4);
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
    world.run(1_000);
    assert_eq!(world.take(EDGE), []);
    assert!(matches!(world.take(PHONE)[..], [SipEvent::RegisterResult { ok: false, status: Some(401), .. }]));
    assert_eq!(world.stack(EDGE).contacts("ann"), 0);
}

#[test]
fn a_registration_is_refreshed_and_expires_when_the_phone_is_gone() {
    let mut world = World::edge_carrier_phone(5);
    world.register();
    world.run(3_600_000);
    assert_eq!(world.stack(EDGE).contacts("ann"), 1);
    world.stacks.remove(&address(PHONE));
    world.take(EDGE);
    world.run(700_000);
    assert_eq!(world.take(EDGE), [SipEvent::Registered { user: "ann".to_owned(), contacts: 0 }]);
}

#[test]
fn sessions_are_refreshed_for_hours_and_end_when_the_peer_is_gone() {
    let mut world = World::edge_carrier_phone(6);
    let inbound = world.answered_call(1);
    world.take(EDGE);
    world.run(3 * 3_600_000);
    assert_eq!(world.take(EDGE), [], "refreshes are nobody's business");
    world.stacks.remove(&address(CARRIER));
    world.run(1_800_000);
    assert!(matches!(
        world.take(EDGE)[..],
        [SipEvent::Ended { dialog, cause: LegCause::Lost, .. }] if dialog == inbound
    ));
}

#[test]
fn calls_work_over_tcp() {
    let mut world = World::edge_carrier_phone(7);
    world.command(
        CARRIER,
        SipCommand::Dial {
            dialog: DialogKey(1),
            to: Destination::Uri(Pii::new("sip:100@198.51.100.1:5060;transport=tcp".to_owned())),
            local: media(CARRIER, Direction::SendRecv),
            from: Caller::new(Pii::new("+15555550142".to_owned())),
            credentials: None,
        },
    );
    world.run(100);
    let inbound = invited(&world.take(EDGE)).unwrap();
    world.command(EDGE, SipCommand::Answer(inbound, media(EDGE, Direction::SendRecv)));
    world.run(100);
    assert_eq!(world.take(EDGE), [SipEvent::Confirmed(inbound, None)]);
    world.command(EDGE, SipCommand::HangUp(inbound, LegCause::LocalHangUp));
    world.run(100);
    assert_eq!(ended(&world.take(CARRIER)), 1);
    world.run(40_000);
    assert_eq!((world.stack(EDGE).open(), world.stack(CARRIER).open()), ((0, 0), (0, 0)));
}

#[test]
fn refusals_map_to_causes() {
    for (status, cause) in [
        (486, LegCause::Busy),
        (600, LegCause::Busy),
        (603, LegCause::Declined),
        (404, LegCause::Refused),
        (500, LegCause::Refused),
    ] {
        let mut world = World::edge_carrier_phone(8);
        world.dial(1);
        world.run(100);
        let inbound = invited(&world.take(EDGE)).unwrap();
        world.command(EDGE, SipCommand::Reject(inbound, status));
        world.run(100);
        let told = |dialog| SipEvent::Ended { dialog, cause, status: Some(status) };
        assert_eq!(world.take(CARRIER), [told(DialogKey(1))]);
        assert_eq!(world.take(EDGE), [told(inbound)]);
    }
}

#[test]
fn nobody_there_is_unreachable() {
    let mut world = World::edge_carrier_phone(9);
    for (key, uri) in [(1, "sip:100@192.0.2.200"), (3, "sip:100@no-such-host"), (5, "sip:100@127.0.0.1")] {
        world.command(
            EDGE,
            SipCommand::Invite {
                dialog: DialogKey(key),
                to: Destination::Uri(Pii::new(uri.to_owned())),
                local: media(EDGE, Direction::SendRecv),
                handle: None,
            },
        );
        world.run(40_000);
        let over = SipEvent::Ended { dialog: DialogKey(key), cause: LegCause::Unreachable, status: None };
        assert_eq!(world.take(EDGE), [over], "{uri}");
    }
    assert_eq!(world.stack(EDGE).open(), (0, 0));
}

#[test]
fn the_next_contact_is_tried_under_a_new_call_id() {
    let mut world = World::edge_carrier_phone(10);
    let mut second = SipConfig::new(address("203.0.113.6:5060"), "edge.example");
    second.trunks.push(crate::world::trunk("edge", EDGE));
    world.add("203.0.113.6:5060", second);
    world.register();
    world.run(1_000);
    let register = |registrar: &str| SipCommand::Register {
        user: "ann".to_owned(),
        password: Pii::new("secret".to_owned()),
        registrar: address(registrar),
        domain: "edge.example".to_owned(),
        expires_secs: 600,
    };
    world.command("203.0.113.6:5060", register(EDGE));
    world.run(1_000);
    assert_eq!(world.stack(EDGE).contacts("ann"), 2);
    world.stacks.remove(&address("203.0.113.6:5060"));
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
    world.run(40_000);
    assert!(invited(&world.take(PHONE)).is_some());
    let ids: std::collections::BTreeSet<String> = world
        .wire
        .iter()
        .map(|(.., bytes)| String::from_utf8_lossy(bytes).into_owned())
        .filter(|text| text.starts_with("INVITE"))
        .filter_map(|text| text.lines().find(|line| line.starts_with("Call-ID")).map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_draining_edge_refuses_new_calls_and_keeps_old_ones() {
    let mut world = World::edge_carrier_phone(11);
    world.answered_call(1);
    world.take(CARRIER);
    world.command(EDGE, SipCommand::Drain);
    world.dial(3);
    world.run(100);
    assert!(matches!(world.take(CARRIER)[..], [SipEvent::Ended { status: Some(503), .. }]));
    world.run_until(Now::from_millis(60_000));
    assert_eq!(ended(&world.take(CARRIER)), 0);
}

#[test]
fn a_refresh_that_finds_no_dialog_ends_the_call() {
    let mut world = World::edge_carrier_phone(12);
    let mut fresh = SipConfig::new(address(CARRIER), "carrier.example");
    fresh.trunks.push(crate::world::trunk("edge", EDGE));
    world.dial(1);
    world.run(100);
    let inbound = invited(&world.take(EDGE)).unwrap();
    world.command(EDGE, SipCommand::Answer(inbound, media(EDGE, Direction::SendRecv)));
    world.run(100);
    world.take(EDGE);
    // The carrier restarts and knows nothing any more.
    world.add(CARRIER, fresh);
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.run(100);
    assert_eq!(
        world.take(EDGE),
        [
            SipEvent::ReinviteFailed(inbound, 481),
            SipEvent::Ended { dialog: inbound, cause: LegCause::Lost, status: Some(481) }
        ]
    );
    world.run(60_000);
    assert_eq!(world.stack(EDGE).open(), (0, 0));
}

#[test]
fn a_request_too_large_for_a_datagram_goes_over_tcp_and_falls_back() {
    let mut world = World::edge_carrier_phone(13);
    world.drop_if = Some(|text| text.contains("SIP/2.0/TCP"));
    dial_long(&mut world, 1);
    let sent = String::from_utf8(world.wire[0].3.clone()).unwrap();
    assert!(sent.contains("Via: SIP/2.0/TCP "), "{sent}");
    world.close(CARRIER, EDGE, 0);
    let again = String::from_utf8(world.wire[1].3.clone()).unwrap();
    let bare = |text: &str| text.replace("SIP/2.0/TCP", "SIP/2.0/UDP");
    assert_eq!(again, bare(&sent), "the same request, by another way");
    world.run(100);
    let inbound = invited(&world.take(EDGE)).unwrap();

    // Whatever is too large from now on stays with datagrams, which TCP's peer has shown to take.
    world.command(EDGE, SipCommand::Answer(inbound, media(EDGE, Direction::SendRecv)));
    world.run(100);
    let before = world.wire.len();
    dial_long(&mut world, 3);
    world.run(100);
    assert!(world.wire[before..].iter().all(|(.., bytes)| !String::from_utf8_lossy(bytes).contains("/TCP")));
    assert!(invited(&world.take(EDGE)).is_some());
    assert_eq!(world.stack(CARRIER).counters().get("tcp_refused"), 1);
    // Until the peer may have changed.
    world.run(600_000);
    let before = world.wire.len();
    dial_long(&mut world, 5);
    assert!(String::from_utf8_lossy(&world.wire[before].3).contains("Via: SIP/2.0/TCP "));
}

#[test]
fn a_large_request_whose_connection_was_refused_is_cancelled_where_it_went_instead() {
    let mut world = World::edge_carrier_phone(13);
    world.drop_if = Some(|text| text.contains("SIP/2.0/TCP"));
    dial_long(&mut world, 1);
    world.close(CARRIER, EDGE, 0);
    world.run(100);
    let inbound = invited(&world.take(EDGE)).unwrap();
    world.command(EDGE, SipCommand::Ring(inbound));
    world.run(100);
    world.command(CARRIER, SipCommand::HangUp(DialogKey(1), LegCause::LocalHangUp));
    world.run(1_000);
    assert_eq!(ended(&world.take(EDGE)), 1);
    let cancel = world.wire.iter().map(|(.., bytes)| String::from_utf8_lossy(bytes));
    let cancel = cancel.into_iter().find(|text| text.starts_with("CANCEL")).unwrap().into_owned();
    assert!(cancel.contains("Via: SIP/2.0/UDP "), "{cancel}");
}

#[test]
fn a_large_request_to_a_phone_that_registered_with_datagrams_is_one() {
    let mut world = World::edge_carrier_phone(2);
    world.register();
    world.run(100);
    world.take(EDGE);
    let long = "x".repeat(1_200);
    world.command(
        EDGE,
        SipCommand::Dial {
            dialog: DialogKey(1),
            to: Destination::User("ann".to_owned()),
            local: media(EDGE, Direction::SendRecv),
            from: Caller::new(Pii::new(long)),
            credentials: None,
        },
    );
    world.run(100);
    assert!(invited(&world.take(PHONE)).is_some());
    assert!(world.wire.iter().all(|(.., bytes)| !String::from_utf8_lossy(bytes).contains("SIP/2.0/TCP")));
}

/// The carrier calls a number that no datagram holds.
fn dial_long(world: &mut World, key: u64) {
    let long = "x".repeat(700);
    world.command(
        CARRIER,
        SipCommand::Dial {
            dialog: DialogKey(key),
            to: Destination::Uri(Pii::new(format!("sip:{long}@198.51.100.1"))),
            local: media(CARRIER, Direction::SendRecv),
            from: Caller::new(Pii::new("+15555550142".to_owned())),
            credentials: None,
        },
    );
}

#[test]
fn anonymous_callers_are_restricted_and_not_named() {
    let mut world = World::edge_carrier_phone(14);
    let mut from = Caller::new(Pii::new("+15555550142".to_owned()));
    from.restricted = true;
    world.command(
        CARRIER,
        SipCommand::Dial {
            dialog: DialogKey(1),
            to: Destination::Uri(Pii::new("sip:100@198.51.100.1".to_owned())),
            local: media(CARRIER, Direction::SendRecv),
            from,
            credentials: None,
        },
    );
    world.run(100);
    assert!(matches!(world.take(EDGE)[..], [SipEvent::Invited { caller: None, restricted: true, .. }]));
    assert!(!String::from_utf8_lossy(&world.wire[0].3).contains("15555550142"));
}

#[test]
fn a_fixed_phone_with_a_name_is_rung_where_the_name_leads() {
    let mut world = World::edge_carrier_phone(16);
    let invite = |key| SipCommand::Invite {
        dialog: DialogKey(key),
        to: Destination::Uri(Pii::new("sip:ben@PBX.example".to_owned())),
        local: media(EDGE, Direction::SendRecv),
        handle: None,
    };
    world.command(EDGE, invite(1));
    assert_eq!(
        world.take(EDGE),
        [SipEvent::Ended { dialog: DialogKey(1), cause: LegCause::Unreachable, status: None }]
    );
    assert!(world.wire.is_empty(), "nobody knows where");
    let hosts = vec![("pbx.example".to_owned(), address(PHONE))];
    world.stacks.get_mut(&address(EDGE)).unwrap().set_hosts(hosts);
    world.command(EDGE, invite(3));
    world.run(100);
    let (_, _, to, bytes) = &world.wire[0];
    assert_eq!(*to, address(PHONE));
    assert!(bytes.starts_with(b"INVITE sip:ben@PBX.example SIP/2.0\r\n"), "the name itself stays in it");
}

#[test]
fn reload_ends_the_bindings_of_removed_users_and_keeps_calls() {
    let mut world = World::edge_carrier_phone(15);
    world.register();
    let inbound = world.answered_call(1);
    world.take(EDGE);
    let outputs = world.stacks.get_mut(&address(EDGE)).unwrap().reload(Vec::new(), Vec::new());
    assert!(matches!(
        &outputs[..],
        [edge_media::sip::SipOutput::Event(SipEvent::Registered { user, contacts: 0 })] if user == "ann"
    ));
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.run(100);
    assert!(matches!(world.take(EDGE)[..], [SipEvent::Reinvited(..)]));
    world.take(CARRIER);
    world.dial(3);
    world.run(100);
    assert!(matches!(world.take(CARRIER)[..], [SipEvent::Ended { status: Some(403), .. }]));
}
