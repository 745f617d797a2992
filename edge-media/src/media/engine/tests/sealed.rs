//! Legs under SRTP among legs in the clear.

use super::*;
use crate::media::rtp_leg::RtpLeg;
use crate::media::srtp::{Srtp, SrtpError, TAG_LEN_MAX};
use crate::sip::{KEY_LEN, MasterKey, SALT_LEN, SrtpKeys, Suite};

#[test]
fn sealed_legs_are_opened_and_sealed_and_a_stranger_without_the_key_changes_nothing() {
    let mut world = World::new();
    let key = |byte| MasterKey { key: [byte; KEY_LEN], salt: [byte; SALT_LEN] };
    let keys = SrtpKeys { suite: Suite::Sha1Tag80, ours: key(1), theirs: key(2) };
    let from = world.phones[&CALLER].from;
    let agree = |world: &mut World, srtp| {
        let remote = RemoteMedia {
            rtp: from,
            codec: Codec::Pcma,
            telephone_event: Some(101),
            direction: Direction::SendRecv,
            srtp,
        };
        world.command(MediaCommand::Remote { call: call(), leg: CALLER, remote });
    };
    agree(&mut world, Some(keys));
    world.plan(&[(CALLER, Source::Leg(HUMAN)), (HUMAN, Source::Leg(CALLER))], &[]);
    let mut caller = Srtp::new(keys.suite, &keys.theirs);
    world.ear.keys.insert(world.phones[&CALLER].port, Srtp::new(keys.suite, &keys.ours));
    world.phones.get_mut(&CALLER).unwrap().talks = false;
    let seal = |caller: &mut Srtp, sequence: u16| {
        let payload: Vec<u8> =
            tone::sine(CALLER_HZ, 8_000, 160).iter().map(|s| codec::encode(Codec::Pcma, *s)).collect();
        let mut buffer = vec![0; 12 + 160 + TAG_LEN_MAX];
        let packet = RtpPacket {
            marker: false,
            payload_type: 8,
            sequence,
            timestamp: u32::from(sequence) * 160,
            ssrc: 77,
            payload: &payload,
        };
        let len = packet.write(&mut buffer).unwrap().len();
        caller.seal(&mut buffer, len).unwrap().to_vec()
    };
    let port = world.phones[&CALLER].port;
    for sequence in 0..100 {
        let sealed = seal(&mut caller, sequence);
        let (mut forged, mut twice) = (sealed.clone(), sealed.clone());
        forged[20] ^= 1;
        for bytes in [&mut forged, &mut sealed.clone(), &mut twice] {
            world.engine.packet(world.now, port, from, bytes, &mut world.ear);
        }
        if sequence == 50 {
            // A hold and its end agree on the same keys again, and nothing begins anew.
            agree(&mut world, Some(keys));
        }
        world.tick();
    }
    let counters = world.engine.counters();
    assert_eq!((counters.forged, counters.foreign, counters.malformed), (100, 100, 0));
    let heard = world.ear.packets[&world.phones[&HUMAN].port].len();
    assert!((95..=105).contains(&heard), "each packet went on once: {heard}");
    // The ear refuses what is not sealed, sealed twice under one count, or by another key.
    let sent: Vec<Vec<i16>> = world.sent(CALLER).iter().skip(10).map(|sent| sent.samples.clone()).collect();
    assert!(sent.len() > 80, "{}", sent.len());
    assert_eq!(World::tones(&sent), [HUMAN_HZ]);
}

/// A hold and its end say the same keys again. If the count of packets began again with them, old
/// packets would be opened once more, and new ones sealed as others were.
#[test]
fn the_same_keys_said_again_begin_no_count_anew_and_other_keys_do() {
    let key = |byte| MasterKey { key: [byte; KEY_LEN], salt: [byte; SALT_LEN] };
    let keys = SrtpKeys { suite: Suite::Sha1Tag80, ours: key(1), theirs: key(2) };
    let agreed = |srtp| RemoteMedia {
        rtp: "192.0.2.1:4000".parse().unwrap(),
        codec: Codec::Pcmu,
        telephone_event: None,
        direction: Direction::SendRecv,
        srtp: Some(srtp),
    };
    let mut far = Srtp::new(keys.suite, &keys.theirs);
    let mut buffer = vec![0; 12 + 160 + TAG_LEN_MAX];
    let packet =
        RtpPacket { marker: false, payload_type: 0, sequence: 7, timestamp: 0, ssrc: 77, payload: &[0; 160] };
    let len = packet.write(&mut buffer).unwrap().len();
    let sealed = far.seal(&mut buffer, len).unwrap().to_vec();
    let mut leg = RtpLeg::new(Port(4_000), [1, 2, 3, 4]);
    let now = Now::from_millis(1);
    leg.agree(now, agreed(keys));
    assert!(leg.open(&mut sealed.clone()).is_ok());
    assert_eq!(leg.open(&mut sealed.clone()), Err(SrtpError::Repeated));
    leg.agree(now, agreed(keys));
    assert_eq!(leg.open(&mut sealed.clone()), Err(SrtpError::Repeated), "after a hold");
    leg.agree(now, agreed(SrtpKeys { theirs: key(3), ..keys }));
    assert_eq!(leg.open(&mut sealed.clone()), Err(SrtpError::Forged), "under another key");
}
