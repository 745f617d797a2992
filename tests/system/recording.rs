//! Recordings, judged by the tones in them: every leg by itself, across every transition, the
//! whisper where it was heard and nowhere else.

use std::time::Duration;

use handoff::id::LegId;
use tests::phone::{Habit, tones};
use tests::world::{Cloud, World};

/// Late enough for the caller to be on the hold bed meanwhile.
const ANSWERS: Habit = Habit::Answers(Duration::from_secs(12));
const SOON: Cloud = Cloud::Decides(Duration::from_millis(40));
const ASKED: &str = r#"{"v":1,"id":"s-1","type":"transfer.request","data":{"reason":"caller_request"}}"#;

/// Longest step between two recorded frames that is no gap.
const STEP: Duration = Duration::from_millis(20);

fn asked(habits: &[Habit]) -> World {
    let mut world = World::recording(habits, SOON);
    world.call_and_disclose();
    world.pass(Duration::from_secs(1));
    world.signal(ASKED);
    world
}

fn ended(mut world: World) -> World {
    world.caller_hangs_up();
    world.until("producer.final", Duration::from_secs(40));
    world
}

fn without_gaps(world: &World, leg: LegId) -> bool {
    world.recorded[&leg].windows(2).all(|pair| pair[1].0.since(pair[0].0) <= STEP)
}

fn heard(world: &World, leg: LegId, tone: u32) -> usize {
    world.recorded[&leg].iter().filter(|(_, _, heard)| heard.contains(&tone)).count()
}

/// Speech holds every tone for a moment; the tone alone, for a tenth of a second, is its source.
fn holds(world: &World, leg: LegId, tone: u32) -> bool {
    world.recorded[&leg].windows(5).any(|run| run.iter().all(|(_, _, heard)| heard == &[tone]))
}

fn said(world: &World, leg: LegId, tone: u32) -> usize {
    world.recorded[&leg].iter().filter(|(_, said, _)| said.contains(&tone)).count()
}

#[test]
fn a_recording_spans_the_whole_transfer_and_holds_the_whisper_on_the_humans_leg_only() {
    let mut world = asked(&[ANSWERS]);
    world.until("whisper.ended", Duration::from_secs(30));
    world.humans[0].press('1');
    world.until("bridge.completed", Duration::from_secs(30));
    world.pass(Duration::from_secs(3));
    let world = ended(world);
    let (caller, human) = (LegId::CALLER, LegId::FIRST_HUMAN);
    assert!(holds(&world, human, tones::WHISPER));
    assert!(!holds(&world, caller, tones::WHISPER));
    assert!(!holds(&world, LegId::VOICE_AGENT, tones::WHISPER));
    for tone in [tones::VOICE_AGENT, tones::HOLD, tones::HUMAN] {
        assert!(heard(&world, caller, tone) > 20, "the caller's recording lacks {tone} Hz");
    }
    assert!(said(&world, caller, tones::CALLER) > 100 && said(&world, human, tones::HUMAN) > 100);
    assert!(heard(&world, human, tones::CALLER) > 100);
    for leg in world.recorded.keys() {
        assert!(without_gaps(&world, *leg), "{leg} has a gap");
    }
    assert_eq!(world.count("recording.started"), 3);
    assert_eq!(world.count("recording.stopped"), 3);
    assert_eq!(world.count("recording.stored"), 3);
}

#[test]
fn a_recording_goes_on_after_a_transfer_that_failed() {
    let mut world = asked(&[Habit::Refuses(486)]);
    world.until("transfer.ended", Duration::from_secs(60));
    let failed = world.now;
    world.pass(Duration::from_secs(12));
    let world = ended(world);
    let after = world.recorded[&LegId::CALLER].iter().filter(|(at, ..)| *at > failed);
    let voice_agent = after.filter(|(_, _, heard)| heard.contains(&tones::VOICE_AGENT)).count();
    assert!(voice_agent > 100, "the caller is back with the voice agent: {voice_agent}");
    assert!(without_gaps(&world, LegId::CALLER));
    assert_eq!(world.count("recording.stored"), 2, "the phone that refused has no recording");
}

#[test]
fn a_caller_who_refuses_leaves_no_recording_behind() {
    let mut world = asked(&[ANSWERS]);
    world.signal(r#"{"v":1,"id":"s-2","type":"consent","data":{"value":"refused"}}"#);
    world.until("whisper.started", Duration::from_secs(30));
    let world = ended(world);
    assert!(world.recorded.is_empty());
    assert_eq!(world.count("recording.stored"), 0);
}

#[test]
fn what_is_not_configured_is_not_recorded() {
    let mut world = World::new(&[ANSWERS], SOON);
    world.call_and_disclose();
    world.pass(Duration::from_secs(1));
    assert!(world.recorded.is_empty());
    assert_eq!(world.count("recording.started"), 0);
}
