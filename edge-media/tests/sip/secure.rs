//! Calls over TLS, the keys for audio that travel in it, and certificates of trunks.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use edge_media::sip::{
    CertificateFault, Destination, DialogKey, Direction, Flow, Origin, RemoteMedia, SipCommand, SipConfig,
    SipEvent, SipOutput, SrtpPolicy, Stack, Transport, TrunkConfig,
};
use handoff::clock::Now;
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

/// An edge with a carrier that has a certificate: wherever it is, or at these addresses.
fn certified(addresses: &[&str]) -> Stack {
    let mut config = SipConfig::new(address(EDGE), "edge.example");
    config.advertised_tls = Some(address(EDGE));
    config.trunks.push(TrunkConfig {
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        certificate: Some("sip.carrier.example".to_owned()),
        srtp: SrtpPolicy::Off,
        ..trunk("carrier", CARRIER)
    });
    Stack::new(config, 7)
}

const INVITE: &str = "INVITE sip:+15555550100@198.51.100.1 SIP/2.0\r\n\
    Via: SIP/2.0/TLS 192.0.2.1;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n\
    From: <sip:+15555550142@carrier.example>;tag=1\r\nTo: <sip:+15555550100@198.51.100.1>\r\n\
    Call-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:192.0.2.1;transport=tls>\r\nContent-Length: 0\r\n\r\n";

/// What becomes of an INVITE on a connection with these names: `Ok` is whose call it is, `Err` the
/// status, or none where the connection is closed.
fn invite(stack: &mut Stack, transport: Transport, names: &[&str]) -> Result<Origin, Option<u16>> {
    let connection = u64::from(transport.is_stream());
    let flow = Flow { transport, peer: address(CARRIER), connection };
    let mut outputs = Vec::new();
    if !names.is_empty() {
        outputs = stack.vouched(flow, names.iter().map(|name| (*name).to_owned()).collect(), false);
    }
    if !outputs.contains(&SipOutput::Close(flow)) {
        outputs.extend(stack.receive(Now::from_millis(1_000), flow, INVITE.as_bytes()));
    }
    let mut status = None;
    for output in outputs {
        match output {
            SipOutput::Event(SipEvent::Invited { origin, .. }) => return Ok(origin),
            SipOutput::Send(_, bytes) if !bytes.starts_with(b"SIP/2.0 100") => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
            }
            SipOutput::Event(_) | SipOutput::Send(..) => {}
            SipOutput::Close(_) => return Err(None),
        }
    }
    Err(status)
}

#[test]
fn a_trunk_with_a_certificate_calls_on_a_connection_that_shows_it_and_on_no_other() {
    let carrier = || Ok(Origin::Trunk("carrier".to_owned()));
    let of_carrier: &[&str] = &["carrier.example", "sip.carrier.example"];
    let mut stack = certified(&[]);
    assert_eq!(invite(&mut stack, Transport::Tls, of_carrier), carrier());
    assert_eq!(invite(&mut certified(&["192.0.2.1/32"]), Transport::Tls, of_carrier), carrier());
    // Wherever else it comes from.
    assert_eq!(invite(&mut certified(&["192.0.2.9/32"]), Transport::Tls, of_carrier), Err(None));
    // A phone's way in, and so a stranger's.
    assert_eq!(invite(&mut certified(&[]), Transport::Tls, &[]), Err(Some(403)));
    assert_eq!(invite(&mut certified(&["192.0.2.1/32"]), Transport::Udp, &[]), Err(Some(403)));
}

#[test]
fn a_wrong_certificate_or_none_at_the_trunks_address_is_refused_counted_and_told() {
    let mut stack = certified(&["192.0.2.1/32"]);
    for (transport, times) in [(Transport::Tls, 1), (Transport::Tcp, 2)] {
        assert_eq!(invite(&mut stack, transport, &[]), Err(None));
        assert_eq!(stack.counters().get("trunk_without_certificate"), times);
        let lacking = CertificateFault::Lacking { trunk: "carrier".to_owned() };
        assert_eq!(stack.take_certificate_faults(), [lacking]);
    }
    assert_eq!(invite(&mut stack, Transport::Tls, &["sip.other.example"]), Err(None));
    assert_eq!(stack.counters().get("certificate_of_nobody"), 1);
    let unknown = CertificateFault::Unknown { names: vec!["sip.other.example".to_owned()] };
    assert_eq!(stack.take_certificate_faults(), [unknown]);
    assert_eq!(stack.take_certificate_faults(), []);
}

#[test]
fn a_certificate_vouches_for_its_connection_until_that_ends() {
    let mut stack = certified(&["192.0.2.1/32"]);
    assert!(invite(&mut stack, Transport::Tls, &["sip.carrier.example"]).is_ok());
    let flow = Flow { transport: Transport::Tls, peer: address(CARRIER), connection: 1 };
    let _ = stack.connection_closed(Now::from_millis(2_000), flow);
    assert_eq!(invite(&mut stack, Transport::Tls, &[]), Err(None));
}
