//! Bad networks and crossing requests: loss, jitter, reorder and duplicates change no state;
//! both sides asking at once end in agreement; a leg is given up only when nothing comes.

use std::time::Duration;

use edge_media::sip::{DialogKey, Direction, SipCommand, SipEvent};
use handoff::call::outcome::{FallbackTaken, LegCause};
use handoff::clock::Now;
use tests::net::{Fate, Suffers, Weather};
use tests::phone::{Habit, tones};
use tests::setting::{Setting, Someone};
use tests::world::World;

const ANSWERS: Habit = Habit::Answers(Duration::from_millis(500));
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn one() -> Setting {
    Setting::new(&[Someone::new(ANSWERS)])
}

fn completes(world: &mut World) {
    world.pass(8 * SECOND);
    world.caller_hangs_up();
    world.until("producer.final", 60 * SECOND);
    world.judge_record();
    world.judge_whisper();
    assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)]);
}

#[test]
fn lost_late_doubled_and_overtaken_audio_changes_no_state() {
    let weathers = [
        Weather { suffers: Suffers::Rtp, loss_pm: 50, ..Weather::default() },
        Weather { suffers: Suffers::Rtp, loss_pm: 200, ..Weather::default() },
        Weather { suffers: Suffers::Rtp, jitter: 100 * MS, ..Weather::default() },
        Weather { suffers: Suffers::Rtp, duplicate_pm: 300, ..Weather::default() },
        Weather { suffers: Suffers::Rtp, loss_pm: 200, duplicate_pm: 100, jitter: 100 * MS },
    ];
    let calm = {
        let mut world = World::bridged(&one());
        world.pass(5 * SECOND);
        world.kinds()
    };
    for weather in weathers {
        let mut world = World::of(&one());
        world.net.weather = weather;
        world.call_and_disclose();
        world.pass(SECOND);
        world.asks();
        world.until("whisper.ended", 30 * SECOND);
        // A key may take more than one press on such a line; people press again.
        for _ in 0..5 {
            world.presses(0, '1');
            world.pass(SECOND);
        }
        world.until("bridge.completed", 5 * SECOND);
        world.pass(5 * SECOND);
        let mut kinds = world.kinds();
        kinds.retain(|kind| calm.contains(kind));
        assert_eq!(kinds.len(), calm.len(), "{weather:?}: {kinds:?}");
        let since = world.now;
        world.pass(2 * SECOND);
        let human =
            world.caller.heard.iter().filter(|(at, heard)| *at > since && heard.contains(&tones::HUMAN));
        assert!(human.count() > 50, "{weather:?}: the person is heard");
        completes(&mut world);
    }
}

#[test]
fn lost_late_doubled_and_overtaken_signalling_ends_in_the_same_call() {
    for seed in 0..8_u32 {
        let mut world = World::of(&one());
        world.net.weather =
            Weather { suffers: Suffers::Sip, loss_pm: 200, duplicate_pm: 200, jitter: 100 * MS };
        for _ in 0..seed {
            world.pass(5 * MS);
        }
        world.call_and_disclose();
        world.pass(SECOND);
        world.asks();
        world.until("whisper.ended", 60 * SECOND);
        world.everybody_accepts();
        assert_eq!(world.count("agent.offered"), 1);
        completes(&mut world);
    }
}

#[test]
fn a_source_that_is_lost_for_less_than_its_time_comes_back_into_the_same_call() {
    for (index, secs) in [(0, 2), (0, 15), (1, 2), (1, 15)] {
        let mut world = World::bridged(&one());
        world.pass(6 * SECOND);
        let phone = if index == 0 { world.caller.rtp } else { world.humans[0].rtp };
        world.net.mute.insert(phone);
        world.pass(secs * SECOND);
        world.net.mute.clear();
        let back = world.now;
        world.pass(2 * SECOND);
        assert_eq!(world.stands(), "bridged/bridged");
        assert!(world.caller.heard_alone(tones::HUMAN, back, world.now));
        world.judge_silence();
        completes(&mut world);
    }
}

#[test]
fn a_source_that_is_lost_for_its_whole_time_is_given_up_then_and_not_before() {
    let mut world = World::talking(&one());
    world.pass(SECOND);
    world.net.mute.insert(world.caller.rtp);
    let lost = world.now;
    world.until("call.ended", 30 * SECOND);
    let after = world.nth("call.ended", 1).since(lost);
    assert!(after >= 20 * SECOND && after <= 21 * SECOND, "{after:?}");
    world.judge();
    let told = world
        .caller
        .events
        .iter()
        .any(|event| matches!(event, SipEvent::Ended { cause: LegCause::RemoteHangUp, .. }));
    assert!(told, "with a BYE, should the caller be there after all");
}

#[test]
fn a_held_caller_may_send_nothing_for_ten_minutes() {
    // The phone obeys `sendonly` and stops sending; one phone after another rings meanwhile.
    let people = [Someone::new(Habit::Rings).ring(120 * SECOND); 3];
    let mut world = World::waiting(&Setting::new(&people));
    world.net.mute.insert(world.caller.rtp);
    world.pass(300 * SECOND);
    assert_eq!(world.stands(), "transferring/offering");
    assert_eq!(world.count("agent.no_answer"), 2);
    world.net.mute.clear();
    world.until("transfer.ended", 120 * SECOND);
    // It holds itself, as its owner pressed a button: ten minutes.
    world.pass(10 * SECOND);
    reinvite(&mut world, Direction::Inactive);
    world.pass(SECOND);
    world.net.mute.insert(world.caller.rtp);
    world.pass(600 * SECOND);
    assert_eq!(world.count("call.ended"), 0);
    world.ends_well();
}

fn reinvite(world: &mut World, direction: Direction) {
    let local = edge_media::sip::LocalMedia { direction, ..world.caller.local() };
    let now = world.now;
    let sent = world.caller.order(now, SipCommand::Reinvite(DialogKey(1), local));
    world.send(sent);
}

#[test]
fn requests_that_cross_meet_491_and_converge_within_the_bands_of_rfc_3261() {
    let mut world = World::asked(&Setting::new(&[Someone::new(Habit::Answers(12 * SECOND))]));
    world.until("agent.ringing", 5 * SECOND);
    // Our hold and the caller's own re-INVITE leave in the same moment.
    world.net.rule("INVITE ", "a=sendonly", None, 1, Fate::Late(200 * MS));
    let edge = "192.0.2.1:5060".parse().ok();
    world.net.rule("INVITE ", "a=sendrecv", edge, 1, Fate::Late(200 * MS));
    world.until("hold.started", 20 * SECOND);
    let held = world.now;
    reinvite(&mut world, Direction::SendRecv);
    world.pass(6 * SECOND);
    let sendonly = |event: &SipEvent| matches!(event, SipEvent::PeerMedia(_, media) if media.direction == Direction::RecvOnly);
    assert!(world.caller.events.iter().any(sendonly), "the hold got through");
    assert!(
        world.caller.events.iter().any(|event| matches!(event, SipEvent::Reinvited(..))),
        "and so did theirs"
    );
    // We did not begin the call, so we wait up to two seconds; the caller 2.1 to 4.
    assert_eq!(world.edge.sip_counters().get("glare_met"), 1);
    assert!(world.now.since(held) <= 7 * SECOND);
    world.until("whisper.ended", 30 * SECOND);
    world.everybody_accepts();
    world.pass(3 * SECOND);
    let since = world.now;
    world.pass(SECOND);
    assert!(world.caller.heard_alone(tones::HUMAN, since, world.now));
    assert!(world.humans[0].heard_alone(tones::CALLER, Now::ZERO, world.now));
    completes(&mut world);
    world.judge_silence();
}

#[test]
fn two_who_hang_up_at_once_end_one_call_once() {
    for early in [0, 5, 10, 20] {
        let mut world = World::bridged(&one());
        world.pass(6 * SECOND);
        world.human_hangs_up(0);
        for _ in 0..early / 5 {
            world.pass(5 * MS);
        }
        world.ends_well();
        assert_eq!(world.count("call.ended"), 1);
        assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)]);
    }
}

#[test]
fn a_caller_whose_acknowledgement_never_comes_is_asked_for_it_and_then_left() {
    let mut world = World::of(&one());
    world.net.rule("ACK ", "", None, 1_000, Fate::Lost);
    world.dial();
    world.until("producer.final", 60 * SECOND);
    world.pass(SECOND);
    world.judge_record();
    let answers = world.caller.events.iter().filter(|event| matches!(event, SipEvent::Ended { .. })).count();
    assert_eq!(answers, 1);
    assert!(world.now >= Now::from_millis(32_000), "after 64*T1");
}
