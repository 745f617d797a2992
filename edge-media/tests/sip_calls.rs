//! Whole calls between stacks in virtual time, over good and bad networks.

mod sip_world;

use edge_media::sip::{Destination, DialogKey, Direction, Origin, SipCommand, SipEvent};
use handoff::call::outcome::LegCause;
use sip_world::{CARRIER, EDGE, PHONE, World, agreed, invited, media};

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
