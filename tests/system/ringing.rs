//! One phone after another: ring times, refusals, answers that come too late or twice, and
//! machines that answer. The caller hears something all the while.

use std::time::Duration;

use edge_media::media::prompt::ClipStore;
use edge_media::media::tone;
use edge_media::sip::SipEvent;
use handoff::call::DesktopPush;
use handoff::call::outcome::{FallbackTaken, LegCause};
use handoff::clock::Now;
use handoff::event::{DeclineReason, Fact};
use tests::net::Fate;
use tests::phone::{Habit, tones};
use tests::setting::{Setting, Someone};
use tests::world::World;

const ANSWERS: Habit = Habit::Answers(Duration::from_millis(500));
/// The next phone is dialled within this time after an attempt has failed.
const NEXT_MAX: Duration = Duration::from_millis(500);

/// When the phone of `index` was told of its first call.
fn dialled(world: &World, index: usize) -> bool {
    world.humans[index].events.iter().any(|event| matches!(event, SipEvent::Invited { .. }))
}

fn ends(world: &World, index: usize) -> Vec<(LegCause, Option<u16>)> {
    let events = world.humans[index].events.iter();
    events
        .filter_map(|event| {
            let SipEvent::Ended { cause, status, .. } = event else { return None };
            Some((*cause, *status))
        })
        .collect()
}

fn reasons(world: &World) -> Vec<DeclineReason> {
    let facts = world.facts.iter().filter_map(|event| {
        let Fact::AgentDeclined { reason, .. } = &event.fact else { return None };
        Some(*reason)
    });
    facts.collect()
}

/// After the first attempt failed at `failed`, the second phone rings soon, answers, and the
/// call goes its way.
fn goes_on_to_the_next(world: &mut World, failed: Now) {
    world.until_nth("agent.offered", 2, Duration::from_secs(5));
    let before = world.facts.iter().take_while(|event| event.mono_us <= failed.micros());
    let rung = before.filter(|event| event.fact.kind() == "agent.ringing").count();
    world.until_nth("agent.ringing", rung + 1, Duration::from_secs(5));
    let rang = world.nth("agent.ringing", rung + 1);
    assert!(rang.since(failed) <= NEXT_MAX, "the next phone rang {:?} later", rang.since(failed));
    world.until("whisper.ended", Duration::from_secs(30));
    world.everybody_accepts();
    world.pass(Duration::from_secs(3));
    world.ends_well();
    world.judge_silence();
    assert_eq!(world.outcomes().last(), Some(&("completed", FallbackTaken::None)));
}

#[test]
fn each_phone_rings_for_its_own_time_and_is_then_cancelled() {
    for secs in [5, 20, 60] {
        let ring = Duration::from_secs(secs);
        let people = [Someone::new(Habit::Rings).ring(ring), Someone::new(ANSWERS)];
        let mut world = World::asked(&Setting::new(&people));
        world.until("agent.no_answer", Duration::from_secs(secs + 5));
        let (offered, expired) = (world.nth("agent.offered", 1), world.nth("agent.no_answer", 1));
        let rang = expired.since(offered);
        assert!(rang >= ring && rang <= ring + Duration::from_millis(5), "{rang:?} instead of {ring:?}");
        goes_on_to_the_next(&mut world, expired);
        assert_eq!(ends(&world, 0), [(LegCause::RemoteHangUp, Some(487))]);
    }
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_hung_up() {
    let ring = Duration::from_secs(5);
    let late = Habit::Answers(ring + Duration::from_millis(100));
    let people = [Someone::new(late).ring(ring), Someone::new(ANSWERS)];
    let mut world = World::talking(&Setting::new(&people));
    world.net.rule("CANCEL ", "", None, 1, Fate::Late(Duration::from_millis(400)));
    world.asks();
    world.until("agent.no_answer", Duration::from_secs(10));
    let expired = world.nth("agent.no_answer", 1);
    goes_on_to_the_next(&mut world, expired);
    let confirmed = world.humans[0].events.iter().any(|event| matches!(event, SipEvent::Confirmed(..)));
    assert!(confirmed, "its answer was acknowledged");
    assert_eq!(ends(&world, 0), [(LegCause::RemoteHangUp, None)]);
}

#[test]
fn a_refusal_is_typed_and_followed_by_the_next_phone_at_once() {
    let refusals = [
        (480, DeclineReason::Busy),
        (486, DeclineReason::Busy),
        (600, DeclineReason::Busy),
        (603, DeclineReason::Declined),
        (404, DeclineReason::Busy),
        (500, DeclineReason::Busy),
    ];
    for (status, reason) in refusals {
        let people = [Someone::new(Habit::Refuses(status)), Someone::new(ANSWERS)];
        let mut world = World::asked(&Setting::new(&people));
        world.until("agent.declined", Duration::from_secs(5));
        assert_eq!(reasons(&world), [reason], "{status}");
        let refused = world.nth("agent.declined", 1);
        goes_on_to_the_next(&mut world, refused);
    }
}

#[test]
fn a_no_by_key_or_button_goes_on_to_the_next_and_is_never_asked_again() {
    for by_key in [true, false] {
        let mut world = World::briefed(&Setting::new(&[Someone::new(ANSWERS); 2]));
        world.pass(Duration::from_millis(300));
        if by_key {
            world.presses(0, '2');
        } else {
            world.clicks_decline(0);
        }
        world.until("agent.declined", Duration::from_secs(2));
        assert_eq!(reasons(&world), [DeclineReason::Declined]);
        let declined = world.nth("agent.declined", 1);
        world.until_nth("whisper.started", 2, Duration::from_secs(5));
        world.presses(1, '2');
        world.until("transfer.ended", Duration::from_secs(10));
        // Both said no: neither is asked again, and the voice agent has the caller.
        assert_eq!(world.count("agent.offered"), 2);
        assert!(world.nth("agent.offered", 2).since(declined) <= NEXT_MAX);
        assert_eq!(world.outcomes(), [("declined", FallbackTaken::VoiceAgent)]);
        world.pass(Duration::from_secs(5));
        world.ends_well();
        world.judge_silence();
    }
}

#[test]
fn a_no_on_the_page_while_the_phone_rings_stops_its_ringing() {
    let people = [Someone::new(Habit::Rings), Someone::new(ANSWERS)];
    let mut world = World::waiting(&Setting::new(&people));
    world.clicks_decline(0);
    let declined = world.nth("agent.declined", 1);
    goes_on_to_the_next(&mut world, declined);
    assert_eq!(ends(&world, 0), [(LegCause::RemoteHangUp, Some(487))]);
}

#[test]
fn a_machine_that_answers_is_never_bridged_whatever_it_says() {
    // It answers at once or late, in the directory or outside it, and presses keys that mean
    // nothing: only a yes is a yes.
    for (after_ms, trusted, keys) in
        [(0, true, ""), (500, true, "#"), (4_000, true, "0#*"), (500, false, ""), (2_000, false, "39#")]
    {
        let machine = Habit::Answers(Duration::from_millis(after_ms));
        let people = [Someone { trusted, ..Someone::new(machine) }];
        let mut world = World::asked(&Setting::new(&people));
        world.until("agent.answered", Duration::from_secs(20));
        for key in keys.chars() {
            world.pass(Duration::from_secs(2));
            world.presses(0, key);
        }
        world.until("transfer.ended", Duration::from_secs(60));
        assert_eq!(world.count("bridge.completed"), 0);
        assert_eq!(world.outcomes(), [("voicemail", FallbackTaken::VoiceAgent)]);
        world.pass(Duration::from_secs(5));
        world.ends_well();
        world.judge_silence();
        let end = world.now;
        assert!(!world.humans[0].heard_alone(tones::CALLER, Now::ZERO, end), "it heard the caller");
    }
}

/// Twenty seconds of music.
fn hold_music(clips: &ClipStore) -> Vec<i16> {
    let mut place = 0;
    (0..1_000).flat_map(|_| clips.hold().frame(&mut place).linear()).collect()
}

/// What an answering machine, or what else picks up, says over and over.
fn machines() -> Vec<(&'static str, Vec<i16>)> {
    let clips = ClipStore::embedded();
    let (greeting, pause) = (clips.samples("human.voicemail"), vec![0; 16_000]);
    let keys = |keys: &[(u32, u32)]| -> Vec<i16> {
        let key = |tones: (u32, u32)| (0..10).flat_map(move |n| tone::dual(tones, n * 160).linear());
        keys.iter().flat_map(|tones| key(*tones).chain([0; 800])).collect()
    };
    let one = (697, 1_209);
    let beep = || tone::sine(1_000, 9_000, 4_000);
    let long = || vec![0; 60 * 8_000];
    vec![
        ("a short greeting and a beep", [greeting[..8_000].to_vec(), beep(), long()].concat()),
        ("a long greeting and a beep", [greeting.repeat(10), beep(), long()].concat()),
        ("a greeting over and over", [greeting.clone(), pause.clone()].concat()),
        ("a beep alone", [beep(), long()].concat()),
        ("silence", Vec::new()),
        ("music on hold", hold_music(&clips)),
        ("keys in its audio", [greeting.clone(), keys(&[one, one, one]), pause.clone()].concat()),
        ("keys in its audio all the while", keys(&[one])),
        ("an announcement that says press one", [clips.samples("press_to_accept.en"), pause].concat()),
        ("our own words back", clips.samples("presence.en")),
        ("a fax that calls", [tone::sine(1_100, 9_000, 4_000), vec![0; 24_000]].concat()),
        ("a fax that answers", tone::sine(2_100, 9_000, 24_000)),
    ]
}

#[test]
fn twelve_machines_with_voices_of_their_own_are_never_bridged() {
    for (name, voice) in machines() {
        for trusted in [true, false] {
            let people = [Someone { trusted, ..Someone::new(ANSWERS) }];
            let mut world = World::talking(&Setting::new(&people));
            world.humans[0].says(voice.clone());
            world.asks();
            ends_as_a_machine(&mut world, name);
        }
    }
}

#[test]
fn keys_of_the_caller_are_no_yes_of_a_machine_on_another_leg() {
    let mut world = World::asked(&Setting::new(&[Someone::new(ANSWERS)]));
    world.until("agent.answered", Duration::from_secs(20));
    for _ in 0..6 {
        world.pass(Duration::from_secs(2));
        world.caller.press('1');
    }
    ends_as_a_machine(&mut world, "keys of another leg");
}

/// Nobody says yes: no bridge, and the machine hears nothing of the caller.
fn ends_as_a_machine(world: &mut World, name: &str) {
    world.until("transfer.ended", Duration::from_secs(80));
    assert_eq!(world.count("bridge.completed"), 0, "{name}");
    assert_eq!(world.count("agent.accepted"), 0, "{name}");
    assert_eq!(world.outcomes(), [("voicemail", FallbackTaken::VoiceAgent)], "{name}");
    world.pass(Duration::from_secs(5));
    world.ends_well();
    world.judge_silence();
    let end = world.now;
    assert!(!world.humans[0].heard_alone(tones::CALLER, Now::ZERO, end), "{name} heard the caller");
}

#[test]
fn an_unproven_listener_hears_nothing_personal_before_a_key() {
    let people = [Someone { trusted: false, ..Someone::new(ANSWERS) }];
    let mut world = World::asked(&Setting::new(&people));
    world.until("agent.answered", Duration::from_secs(20));
    world.pass(Duration::from_secs(10));
    assert_eq!(world.count("whisper.started"), 0);
    let before = world.now;
    assert!(!world.humans[0].heard_alone(tones::WHISPER, Now::ZERO, before), "personal words to nobody");
    let captions = world.pushes.iter().filter(|(_, _, push)| matches!(push, DesktopPush::Caption { .. }));
    assert_eq!(captions.count(), 0, "nor on a screen");
    // The first key proves that somebody is there; the second is the yes.
    world.presses(0, '1');
    world.until("whisper.ended", Duration::from_secs(20));
    assert!(world.humans[0].heard_alone(tones::WHISPER, before, world.now));
    world.everybody_accepts();
    world.pass(Duration::from_secs(3));
    world.ends_well();
    world.judge_silence();
}

#[test]
fn the_first_yes_wins_and_a_later_one_of_another_person_is_nothing() {
    // The first person's yes comes after the ring time, when the second is being briefed.
    let people = [Someone::new(Habit::Rings).ring(Duration::from_secs(5)), Someone::new(ANSWERS)];
    let mut world = World::briefed(&Setting::new(&people));
    world.clicks_accept(0);
    assert_eq!(world.count("agent.accepted"), 0);
    world.clicks_accept(1);
    world.clicks_accept(0);
    world.until("bridge.completed", Duration::from_secs(10));
    assert_eq!(world.count("agent.accepted"), 1);
    let Some(Fact::AgentAccepted { agent_id, .. }) = world.fact("agent.accepted") else { panic!() };
    assert_eq!(*agent_id, World::agent(1), "the leg that answered is credited");
    world.pass(Duration::from_secs(3));
    world.ends_well();
}

#[test]
fn two_phones_that_answer_the_same_call_leave_one_in_it() {
    // A proxy rings two phones; both answer 0 to 40 ms apart.
    for apart_ms in [0, 5, 20, 40] {
        let people = [Someone::new(ANSWERS), Someone { present: false, ..Someone::new(Habit::Rings) }];
        let mut world = World::talking(&Setting::new(&people));
        world.humans[1].habit = Habit::Answers(Duration::from_millis(500 + apart_ms));
        world.forks = Some((0, 1));
        world.asks();
        world.until("whisper.started", Duration::from_secs(20));
        world.pass(Duration::from_secs(1));
        assert_eq!(world.count("agent.answered"), 1);
        let losers: Vec<_> = [0, 1].into_iter().filter(|index| !ends(&world, *index).is_empty()).collect();
        assert_eq!(losers.len(), 1, "{apart_ms} ms apart: exactly one is in the call");
        assert_eq!(ends(&world, losers[0]), [(LegCause::RemoteHangUp, None)], "ACK, then BYE");
        world.until("whisper.ended", Duration::from_secs(20));
        world.everybody_accepts();
        world.pass(Duration::from_secs(3));
        assert!(dialled(&world, 1));
        world.ends_well();
        world.judge_silence();
    }
}

#[test]
fn a_winner_who_vanishes_before_the_bridge_reopens_the_offer() {
    let mut world = World::briefed(&Setting::new(&[Someone::new(ANSWERS); 2]));
    world.desktops_acknowledge = false;
    world.presses(0, '1');
    world.until("agent.accepted", Duration::from_secs(2));
    world.desktops_acknowledge = true;
    world.human_hangs_up(0);
    world.until_nth("whisper.started", 2, Duration::from_secs(5));
    assert_eq!(reasons(&world), [DeclineReason::Lost]);
    world.until_nth("whisper.ended", 2, Duration::from_secs(20));
    world.everybody_accepts();
    world.pass(Duration::from_secs(3));
    world.ends_well();
    world.judge_silence();
    assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)]);
}
