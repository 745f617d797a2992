//! Calls over TLS, and the keys for audio that travel in it.

use edge_media::sip::{
    Destination, DialogKey, Direction, RemoteMedia, SipCommand, SipConfig, SipEvent, SrtpPolicy,
};
use handoff::pii::Pii;

use crate::world::{CARRIER, EDGE, PHONE, World, address, invited, media, trunk};

/// An edge, and a phone that it dials over TLS.
fn world(phones: SrtpPolicy, phone: SrtpPolicy) -> World {
    let mut world = World::new(5);
    let config = |at: &str, name: &str| {
        let mut config = SipConfig::new(address(at), name);
        config.advertised_tls = Some(address(at));
        config
    };
    world.add(EDGE, SipConfig { phones_srtp: phones, ..config(EDGE, "edge.example") });
    for at in [PHONE, CARRIER] {
        let mut far = config(at, "far.example");
        let mut edge = trunk("edge", EDGE);
        edge.srtp = phone;
        far.trunks.push(edge);
        world.add(at, far);
    }
    world
}

fn ring(world: &mut World, key: u64, uri: &str) {
    let to = Destination::Uri(Pii::new(uri.to_owned()));
    let local = media(EDGE, Direction::SendRecv);
    world.command(EDGE, SipCommand::Invite { dialog: DialogKey(key), to, local, handle: None });
    world.run(100);
}

const OVER_TLS: &str = "sip:ben@203.0.113.5:5060;transport=tls";
const OVER_TCP: &str = "sip:ben@203.0.113.5:5060;transport=tcp";

/// What the edge and the phone agreed on, where the call came about.
fn call(world: &mut World, uri: &str) -> Option<(RemoteMedia, RemoteMedia)> {
    ring(world, 1, uri);
    let events = world.take(PHONE);
    let at_phone = invited(&events)?;
    let seen = events
        .iter()
        .find_map(|event| if let SipEvent::Invited { remote, .. } = event { *remote } else { None })?;
    world.command(PHONE, SipCommand::Answer(at_phone, media(PHONE, Direction::SendRecv)));
    world.run(100);
    let agreed = world
        .take(EDGE)
        .into_iter()
        .find_map(|event| if let SipEvent::Answered(_, remote) = event { Some(remote) } else { None })?;
    Some((agreed, seen))
}

#[test]
fn over_tls_both_ends_seal_with_what_the_other_opens_with() {
    let mut world = world(SrtpPolicy::default(), SrtpPolicy::default());
    let (ours, theirs) = call(&mut world, OVER_TLS).unwrap();
    let (ours, theirs) = (ours.srtp.unwrap(), theirs.srtp.unwrap());
    assert_eq!((ours.suite, ours.ours, ours.theirs), (theirs.suite, theirs.theirs, theirs.ours));
    assert_ne!(ours.ours, ours.theirs, "one key would seal both directions alike");
    world.command(EDGE, SipCommand::Reinvite(DialogKey(1), media(EDGE, Direction::SendOnly)));
    world.run(100);
    let held = world
        .take(EDGE)
        .into_iter()
        .find_map(|event| if let SipEvent::Reinvited(_, remote) = event { Some(remote) } else { None });
    assert_eq!(held.unwrap().srtp, Some(ours), "a hold changes no key");
}

#[test]
fn what_is_required_is_never_given_up_in_silence() {
    use SrtpPolicy::{Off, Preferred, Required, WithTls};
    for (edge, phone, encrypted) in [
        (WithTls, Off, None),
        (Required, Off, None),
        (Preferred, Off, Some(false)),
        (Preferred, Required, Some(true)),
        (Off, WithTls, None),
        (Off, Off, Some(false)),
    ] {
        let mut world = world(edge, phone);
        let agreed = call(&mut world, OVER_TLS).map(|(agreed, _)| agreed.srtp.is_some());
        assert_eq!(agreed, encrypted, "{edge:?} {phone:?}");
    }
}

#[test]
fn no_key_leaves_outside_tls() {
    for (policy, rung) in
        [(SrtpPolicy::WithTls, true), (SrtpPolicy::Preferred, true), (SrtpPolicy::Required, false)]
    {
        let mut world = world(policy, policy);
        ring(&mut world, 1, OVER_TCP);
        assert_eq!(world.sent(EDGE).iter().any(|line| line.starts_with("INVITE")), rung, "{policy:?}");
        assert!(world.wire.iter().all(|(.., bytes)| !String::from_utf8_lossy(bytes).contains("crypto")));
        let ended = world.take(EDGE).iter().any(|event| matches!(event, SipEvent::Ended { .. }));
        assert_eq!(ended, !rung);
    }
}
