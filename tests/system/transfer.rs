//! One warm transfer through the whole pure system, judged by what each party heard: SIP as
//! bytes, RTP as tones, time as numbers.

use std::time::Duration;

use edge_media::edge::directory::Dial;
use edge_media::edge::{Edge, EdgeInput, EdgeOutput};
use edge_media::media::Port;
use edge_media::sip::Destination;
use handoff::call::DesktopPush;
use handoff::clock::{Moment, Now, Timestamp};
use handoff::event::Fact;
use handoff::pii::Pii;
use tests::phone::{Habit, tones};
use tests::world::{Cloud, World, edge_config};

const ANSWERS: Habit = Habit::Answers(Duration::from_millis(500));
const SOON: Cloud = Cloud::Decides(Duration::from_millis(40));
const ASKED: &str = r#"{"v":1,"id":"s-1","type":"transfer.request","data":{"reason":"caller_request"}}"#;

/// A call in which the caller asked for a person and the phone was answered.
fn briefed(habits: &[Habit], cloud: Cloud) -> World {
    let mut world = World::new(habits, cloud);
    world.call_and_disclose();
    world.signal(ASKED);
    world.until("whisper.started", Duration::from_secs(30));
    world
}

fn accepted(habits: &[Habit], cloud: Cloud) -> World {
    let mut world = briefed(habits, cloud);
    world.until("whisper.ended", Duration::from_secs(30));
    for human in &mut world.humans {
        human.press('1');
    }
    world.until("bridge.completed", Duration::from_secs(30));
    world.pass(Duration::from_secs(3));
    world
}

#[test]
fn a_caller_who_asks_for_a_person_talks_to_one_and_the_ledger_balances() {
    let mut world = accepted(&[ANSWERS], SOON);
    world.caller_hangs_up();
    world.until("producer.final", Duration::from_secs(40));
    assert_eq!(world.count("transfer.decided"), 1);
    assert_eq!(world.count("transfer.ended"), 1);
    assert_eq!(world.count("leg.opened"), world.count("leg.closed"));
    assert!(world.published.is_empty(), "the cloud decided");
    let Some(Fact::MediaProof { stretch: proof, .. }) = world.fact("media.proof") else {
        panic!("what the caller was sent is in the record")
    };
    assert_eq!((proof.breaks, proof.leaked_frames), (0, 0), "{proof:?}");
    assert!(
        proof.packets > 100 && proof.longest_gap_ms <= 40 && proof.longest_silence_ms <= 500,
        "{proof:?}"
    );
}

#[test]
fn after_the_bridge_each_hears_the_other_and_nothing_else() {
    let world = accepted(&[ANSWERS], SOON);
    let late = world.time_of("bridge.completed").unwrap() + Duration::from_secs(1);
    for (at, heard) in &world.caller.heard {
        if *at > late {
            assert_eq!(heard, &[tones::HUMAN]);
        }
    }
    for (at, heard) in &world.humans[0].heard {
        if *at > late {
            assert_eq!(heard, &[tones::CALLER]);
        }
    }
}

#[test]
fn the_caller_is_held_with_music_and_the_voice_agent_never_hears_it() {
    let world = accepted(&[ANSWERS], SOON);
    assert!(world.caller.heard.iter().any(|(_, heard)| heard.contains(&tones::HOLD)));
    assert!(!world.voice_agent_heard.iter().any(|(_, heard)| heard.contains(&tones::HOLD)));
    // Speech holds every tone for a moment; the person's own tone alone, for a tenth of a
    // second, is the person.
    let bridged = world.time_of("bridge.completed").unwrap();
    let before: Vec<bool> = world
        .caller
        .heard
        .iter()
        .filter(|(at, _)| *at < bridged)
        .map(|(_, heard)| heard == &[tones::HUMAN])
        .collect();
    assert!(
        !before.windows(5).any(|run| run.iter().all(|human| *human)),
        "the human was heard before the bridge"
    );
}

#[test]
fn the_callers_stream_has_no_break_from_the_first_packet_to_the_last() {
    let world = accepted(&[ANSWERS], SOON);
    assert_eq!(world.caller.breaks, 0);
}

#[test]
fn the_desktop_shows_the_call_before_the_phone_is_dialled() {
    let world = briefed(&[ANSWERS], SOON);
    let (incoming, _, _) =
        world.pushes.iter().find(|(_, _, push)| matches!(push, DesktopPush::Incoming { .. })).unwrap();
    assert!(*incoming <= world.time_of("agent.ringing").unwrap());
}

#[test]
fn without_the_cloud_the_edge_decides_after_its_deadline_and_says_so() {
    let mut world = accepted(&[ANSWERS], Cloud::Gone);
    assert_eq!(world.published.len(), 1);
    world.caller_hangs_up();
    world.until("producer.final", Duration::from_secs(40));
    assert_eq!(world.count("leg.opened"), world.count("leg.closed"));
}

#[test]
fn a_person_who_does_not_answer_is_followed_by_the_next() {
    let world = accepted(&[Habit::Rings, ANSWERS], SOON);
    assert_eq!(world.count("agent.no_answer"), 1);
    assert_eq!(world.count("agent.offered"), 2);
}

#[test]
fn after_a_reload_a_person_is_reached_at_the_address_of_their_phones_new_name() {
    let mut world = World::new(&[ANSWERS], SOON);
    let mut config = edge_config(&["agent_0".to_owned()], false);
    config.sip.users.clear();
    let uri = Pii::new("sip:agent_0@phone.example".to_owned());
    config.people[0].dial = Dial::Fixed(Destination::Uri(uri));
    config.people[0].trusted = false;
    world.give(EdgeInput::Reload(Box::new(config)));
    let phone = ("phone.example".to_owned(), "192.0.2.3:5060".parse().unwrap());
    world.give(EdgeInput::Resolved(vec![phone]));
    world.call_and_disclose();
    world.signal(ASKED);
    world.until("agent.answered", Duration::from_secs(30));
}

#[test]
fn a_range_of_ports_that_is_used_up_is_asked_again_later_and_not_at_once() {
    let mut edge = Edge::new(edge_config(&[], false), 7);
    let moment = |now: Now| Moment { now, wall: Timestamp::from_unix_millis(0) };
    let asks = |outputs: &[EdgeOutput]| outputs.iter().any(|o| matches!(o, EdgeOutput::NeedPorts(_)));
    let start = Now::from_millis(1_000);
    assert!(asks(&edge.handle(moment(start), EdgeInput::Timeout)));
    assert!(!asks(&edge.handle(moment(start), EdgeInput::Ports(Vec::new()))));
    assert!(!edge.is_ready());
    let later = edge.next_timeout().unwrap();
    assert!(later > start);
    assert!(asks(&edge.handle(moment(later), EdgeInput::Timeout)));
    assert!(!asks(&edge.handle(moment(later), EdgeInput::Ports(vec![Port(20_000)]))));
    assert!(edge.is_ready(), "one port carries a call");
}

#[test]
fn a_busy_person_is_followed_by_the_next() {
    let world = accepted(&[Habit::Refuses(486), ANSWERS], SOON);
    assert_eq!(world.count("agent.declined"), 1);
    assert_eq!(world.count("bridge.completed"), 1);
}

#[test]
fn a_caller_who_leaves_while_the_phone_rings_leaves_no_leg_behind() {
    let mut world = World::new(&[Habit::Rings], SOON);
    world.call_and_disclose();
    world.signal(ASKED);
    world.until("agent.ringing", Duration::from_secs(10));
    world.caller_hangs_up();
    world.until("producer.final", Duration::from_secs(40));
    assert_eq!(world.count("caller.abandoned"), 1);
    assert_eq!(world.count("leg.opened"), world.count("leg.closed"));
}
