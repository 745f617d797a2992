//! An edge that registers with its carrier, against a carrier of the same code, in virtual
//! time: the challenge, the refresh, calls to the registered contact, and the way back after
//! the carrier was gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::time::Duration;

use edge_media::sip::{
    Account, CallLimits, Caller, Credentials, Destination, DialogKey, Direction, Origin, RegistrationPhase,
    Secret, SipCommand, SipConfig, SipEvent, TrunkConfig, UplinkChange, UplinkConfig, UplinkState,
    UserConfig,
};
use handoff::pii::Pii;

use crate::world::{CARRIER, EDGE, PHONE, World, address, media, trunk};

const SECOND: &str = "192.0.2.2:5060";

fn secret(password: &str) -> Secret {
    Secret::Password(Pii::new(password.to_owned()))
}

fn uplink(password: &str, options_s: Option<u64>) -> UplinkConfig {
    UplinkConfig {
        trunk: "carrier".to_owned(),
        account: Some(Account {
            user: "+15555550100".to_owned(),
            domain: "carrier.example".to_owned(),
            port: None,
            credentials: Credentials { user: "+15555550100".to_owned(), secret: secret(password) },
            expires_secs: 100,
        }),
        options: options_s.map(Duration::from_secs),
        known_by_servers: true,
        query: false,
    }
}

/// A registrar that has our account.
fn registrar(at: &str, allow_md5: bool) -> SipConfig {
    let mut config = SipConfig::new(address(at), "carrier.example");
    config.trunks.push(trunk("edge", EDGE));
    config.users.push(UserConfig {
        name: "+15555550100".to_owned(),
        secret: secret("right"),
        allow_md5,
        uri: None,
    });
    config
}

/// An edge with one trunk that has no addresses of its own, and the carrier's registrar.
fn world(uplink: UplinkConfig, allow_md5: bool) -> World {
    let mut world = World::new(7);
    let mut edge = SipConfig::new(address(EDGE), "edge.example");
    edge.trunks.push(TrunkConfig { addresses: Vec::new(), ..trunk("carrier", CARRIER) });
    edge.uplinks.push(uplink);
    world.add(EDGE, edge);
    world.add(CARRIER, registrar(CARRIER, allow_md5));
    world
}

fn state(world: &World) -> UplinkState {
    world.stack(EDGE).uplink_states(world.now).pop().unwrap()
}

fn is_registered(world: &World) -> bool {
    state(world).registration.unwrap().until.is_some()
}

fn news(world: &mut World) -> Vec<UplinkChange> {
    let stack = world.stacks.get_mut(&address(EDGE)).unwrap();
    stack.take_uplink_news().into_iter().map(|news| news.change).collect()
}

fn dial(world: &mut World, from: &str, key: u64) {
    world.command(
        from,
        SipCommand::Dial {
            dialog: DialogKey(key),
            to: Destination::Uri(Pii::new("sip:+15555550100@198.51.100.1:5060".to_owned())),
            local: media(from, Direction::SendRecv),
            from: Caller::new(Pii::new("+15555550142".to_owned())),
            credentials: None,
        },
    );
}

#[test]
fn an_account_registers_with_either_digest_and_is_refreshed_before_its_end() {
    for allow_md5 in [false, true] {
        let mut world = world(uplink("right", None), allow_md5);
        world.run(1_000);
        assert_eq!(world.sent(EDGE), Vec::<String>::new(), "nobody is asked before an address is known");
        world.servers(EDGE, "carrier", &[CARRIER]);
        world.run(1_000);
        assert!(is_registered(&world));
        assert_eq!(news(&mut world), [UplinkChange::Registered]);
        assert_eq!(world.stack(CARRIER).contacts("+15555550100"), 1);
        for _ in 0..20 {
            world.run(50_000);
            assert!(is_registered(&world));
            assert_eq!(world.stack(CARRIER).contacts("+15555550100"), 1);
        }
        assert_eq!(news(&mut world), [], "a refresh is no news");
        assert!(world.sent(EDGE).iter().all(|line| line == "REGISTER sip:carrier.example SIP/2.0"));
    }
}

#[test]
fn a_call_from_a_server_of_the_trunk_is_its_call_and_one_from_elsewhere_is_nobodys() {
    let mut world = world(uplink("right", None), false);
    world.add(SECOND, registrar(SECOND, false));
    world.add(PHONE, registrar(PHONE, false));
    world.servers(EDGE, "carrier", &[CARRIER, SECOND]);
    world.run(1_000);
    for (from, key, taken) in [(CARRIER, 1, true), (SECOND, 3, true), (PHONE, 5, false)] {
        world.take(EDGE);
        dial(&mut world, from, key);
        world.run(100);
        let origin = world
            .take(EDGE)
            .into_iter()
            .find_map(|event| if let SipEvent::Invited { origin, .. } = event { Some(origin) } else { None });
        assert_eq!(origin, taken.then(|| Origin::Trunk("carrier".to_owned())), "{from}");
    }
    // The servers moved: who was one is no longer.
    world.servers(EDGE, "carrier", &[CARRIER]);
    dial(&mut world, SECOND, 7);
    world.run(100);
    assert!(!world.take(EDGE).iter().any(|event| matches!(event, SipEvent::Invited { .. })));
}

#[test]
fn a_wrong_password_is_tried_again_after_ever_longer_waits_and_never_in_a_row() {
    let mut world = world(uplink("wrong", None), false);
    world.servers(EDGE, "carrier", &[CARRIER]);
    world.run(20_000);
    assert_eq!(world.sent(EDGE).len(), 2, "one question and one answer to the challenge");
    assert_eq!(news(&mut world), [UplinkChange::Failed(Some(401))]);
    world.run(3_600_000);
    assert!(world.sent(EDGE).len() <= 20, "{}", world.sent(EDGE).len());
    assert_eq!(state(&world).registration.unwrap().phase, RegistrationPhase::Waiting);
}

#[test]
fn a_lost_registrar_is_seen_and_comes_back_by_itself() {
    let mut world = world(uplink("right", Some(10)), false);
    world.servers(EDGE, "carrier", &[CARRIER]);
    world.run(12_000);
    assert_eq!(state(&world).options.unwrap().up, Some(true));
    world.stacks.remove(&address(CARRIER));
    world.run(150_000);
    assert!(!is_registered(&world));
    assert_eq!(state(&world).options.unwrap().up, Some(false));
    assert!(news(&mut world).contains(&UplinkChange::Down(None)));
    // It comes back without its table.
    world.add(CARRIER, registrar(CARRIER, false));
    world.run(50_000);
    assert!(is_registered(&world), "an answer to OPTIONS ends the wait");
    assert_eq!(world.stack(CARRIER).contacts("+15555550100"), 1);
    assert_eq!(news(&mut world).iter().filter(|change| **change == UplinkChange::Up).count(), 1);
}

#[test]
fn a_silent_server_is_followed_by_the_next() {
    let mut world = world(uplink("right", None), false);
    world.add(SECOND, registrar(SECOND, false));
    world.stacks.remove(&address(CARRIER));
    world.servers(EDGE, "carrier", &[CARRIER, SECOND]);
    world.run(40_000);
    assert!(is_registered(&world));
    assert_eq!(state(&world).server, Some(address(SECOND)));
}

#[test]
fn a_query_proves_the_account_and_registers_nothing() {
    let mut world = world(UplinkConfig { query: true, ..uplink("right", None) }, false);
    world.servers(EDGE, "carrier", &[CARRIER]);
    world.run(1_000);
    assert!(is_registered(&world));
    assert_eq!(world.stack(CARRIER).contacts("+15555550100"), 0);
}

#[test]
fn a_reload_leaves_alone_what_is_configured_as_before() {
    let mut world = world(uplink("right", None), false);
    world.servers(EDGE, "carrier", &[CARRIER]);
    world.run(1_000);
    let before = state(&world);
    let now = world.now;
    let stack = world.stacks.get_mut(&address(EDGE)).unwrap();
    assert_eq!(stack.set_uplinks(now, vec![uplink("right", None)]), []);
    assert_eq!(state(&world), before);
    let stack = world.stacks.get_mut(&address(EDGE)).unwrap();
    assert_eq!(stack.set_uplinks(now, Vec::new()), []);
    assert_eq!(stack.uplink_states(now), []);
    // What is not kept up any more is nobody's server either.
    world.take(EDGE);
    dial(&mut world, CARRIER, 9);
    world.run(100);
    assert!(!world.take(EDGE).iter().any(|event| matches!(event, SipEvent::Invited { .. })));
}

#[test]
fn a_call_beyond_the_trunk_s_room_is_told_to_come_back_and_one_that_ends_makes_room() {
    let mut world = World::new(11);
    let mut edge = SipConfig::new(address(EDGE), "edge.example");
    edge.trunks.push(trunk("carrier", CARRIER));
    edge.limits.push(CallLimits { trunk: "carrier".to_owned(), calls_max: Some(1), calls_per_s: Some(2) });
    world.add(EDGE, edge);
    world.add(CARRIER, registrar(CARRIER, false));
    let invited = |events: Vec<SipEvent>| {
        events
            .into_iter()
            .find_map(|event| if let SipEvent::Invited { dialog, .. } = event { Some(dialog) } else { None })
    };
    dial(&mut world, CARRIER, 1);
    world.run(100);
    let first = invited(world.take(EDGE)).unwrap();
    dial(&mut world, CARRIER, 3);
    world.run(100);
    assert_eq!(invited(world.take(EDGE)), None);
    let refusals = |world: &World| {
        let texts = world.wire.iter().map(|(.., bytes)| String::from_utf8_lossy(bytes).into_owned());
        texts
            .filter(|text| text.starts_with("SIP/2.0 503") && text.contains("\r\nRetry-After: 10\r\n"))
            .count()
    };
    assert_eq!(refusals(&world), 1);
    // The first ends: there is room, but only so often a second.
    world.command(EDGE, SipCommand::Reject(first, 486));
    world.run(100);
    world.take(EDGE);
    dial(&mut world, CARRIER, 5);
    world.run(100);
    let second = invited(world.take(EDGE)).unwrap();
    world.command(EDGE, SipCommand::Reject(second, 486));
    dial(&mut world, CARRIER, 7);
    world.run(100);
    assert_eq!((invited(world.take(EDGE)), refusals(&world)), (None, 2));
    world.run(1_000);
    dial(&mut world, CARRIER, 9);
    world.run(100);
    assert!(invited(world.take(EDGE)).is_some());
}
