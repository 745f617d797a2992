//! A caller who changes their mind, nobody who could take the call, and where the caller goes
//! when the chain of fallbacks is used up: never into silence.

use std::time::Duration;

use edge_media::edge::EdgeInput;
use handoff::call::Fallback;
use handoff::call::outcome::{FallbackTaken, LegCause};
use handoff::clock::Now;
use handoff::command::{Command, CommandBody};
use handoff::event::Fact;
use tests::phone::{Habit, tones};
use tests::setting::{Setting, Someone};
use tests::world::World;

const ANSWERS: Habit = Habit::Answers(Duration::from_millis(500));
const SECOND: Duration = Duration::from_secs(1);

/// A setting in which a waiting caller may go on speaking.
fn open(people: &[Someone]) -> Setting {
    Setting { hold_by_reinvite: false, cancel_while_waiting: true, ..Setting::new(people) }
}

/// The caller and the voice agent hear each other again, soon.
fn is_back(world: &mut World, since: Now) {
    world.pass(5 * SECOND);
    let soon = since + Duration::from_millis(500);
    assert!(world.caller.heard_alone(tones::VOICE_AGENT, since, world.now), "{}", world.standing());
    let heard = world.voice_agent_heard.iter();
    let first = heard.filter(|(at, heard)| *at > since && heard == &[tones::CALLER]).map(|(at, _)| *at).min();
    assert!(first.is_some_and(|at| at <= soon), "the voice agent hears the caller again at {first:?}");
}

/// How a call gets into a state.
type Reach = fn(&Setting) -> World;

/// Ways to call a transfer off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Key,
    Word,
    Command,
}

fn call_off(world: &mut World, way: Way) {
    match way {
        Way::Key => world.caller.press('*'),
        Way::Word => world.calls_off(),
        Way::Command => {
            let call_id = world.facts[0].call.clone();
            let transfer_id = handoff::id::TransferId::of(&call_id, 1);
            let body = CommandBody::TransferCancel { transfer_id };
            world.give(EdgeInput::Command(Box::new(Command { id: "off".to_owned(), call_id, body })));
        }
    }
}

#[test]
fn a_caller_may_change_their_mind_in_every_state_before_the_yes() {
    let phases: [(&str, Reach); 4] = [
        ("draining", World::asked),
        ("announcing", |setting| {
            let mut world = World::asked(setting);
            world.until("agent.ringing", 5 * SECOND);
            world.pass(SECOND);
            world
        }),
        ("waiting", World::waiting),
        ("briefed", |setting| {
            let mut world = World::waiting(setting);
            world.until("whisper.started", 20 * SECOND);
            world
        }),
    ];
    for (name, reach) in phases {
        for way in [Way::Key, Way::Word, Way::Command] {
            let mut world = reach(&open(&[Someone::new(Habit::Answers(8 * SECOND)), Someone::new(ANSWERS)]));
            if name == "draining" {
                world.until("transfer.decided", SECOND);
            }
            call_off(&mut world, way);
            world.until("transfer.ended", SECOND);
            let off = world.nth("transfer.ended", 1);
            is_back(&mut world, off);
            assert_eq!(world.outcomes(), [("cancelled", FallbackTaken::None)], "{name} by {way:?}");
            assert_eq!(world.count("agent.offered"), 1, "{name} by {way:?}");
            world.ends_well();
            world.judge_silence();
        }
    }
}

#[test]
fn after_the_yes_it_is_too_late_to_call_it_off() {
    let mut world = World::briefed(&open(&[Someone::new(ANSWERS)]));
    world.desktops_acknowledge = false;
    world.clicks_accept(0);
    for way in [Way::Key, Way::Word, Way::Command] {
        call_off(&mut world, way);
        world.pass(Duration::from_millis(300));
    }
    world.until("bridge.completed", 20 * SECOND);
    assert_eq!(world.count("command.rejected"), 1);
    world.pass(3 * SECOND);
    world.ends_well();
    world.judge_silence();
}

#[test]
fn a_caller_who_came_back_may_ask_again() {
    let mut world = World::waiting(&open(&[Someone::new(Habit::Answers(8 * SECOND))]));
    call_off(&mut world, Way::Key);
    world.pass(5 * SECOND);
    world.signal(r#"{"v":1,"id":"s-2","type":"transfer.request","data":{"reason":"caller_request"}}"#);
    world.until_nth("whisper.ended", 2, 40 * SECOND);
    world.everybody_accepts();
    world.pass(3 * SECOND);
    world.ends_well();
    let ends = [("cancelled", FallbackTaken::None), ("completed", FallbackTaken::None)];
    assert_eq!(world.outcomes(), ends);
    world.judge_silence();
}

#[test]
fn that_nobody_is_there_is_known_before_anybody_is_dialled() {
    for (fallback, taken, outcome) in [
        (vec![Fallback::VoiceAgent], FallbackTaken::VoiceAgent, "returned_to_voice_agent"),
        (vec![Fallback::Closing], FallbackTaken::Closing, "failed"),
        (Vec::new(), FallbackTaken::Closing, "failed"),
    ] {
        let nobody = Someone { present: false, ..Someone::new(ANSWERS) };
        let mut world = World::asked(&Setting { fallback, ..Setting::new(&[nobody]) });
        world.until("transfer.ended", SECOND);
        assert_eq!(world.count("agent.offered"), 0);
        assert_eq!(world.outcomes(), [(outcome, taken)]);
        let Some(Fact::FallbackChosen { kind, .. }) = world.fact("fallback.taken") else { panic!() };
        assert_eq!(*kind, taken);
        if taken == FallbackTaken::VoiceAgent {
            world.pass(8 * SECOND);
            assert!(world.caller.heard_alone(tones::VOICE_AGENT, world.nth("transfer.ended", 1), world.now));
            world.caller_hangs_up();
        }
        world.judge();
        world.judge_silence();
    }
}

#[test]
fn when_everybody_failed_the_chain_is_walked_to_its_end_and_a_closing_message_is_heard() {
    let people = [
        Someone::new(Habit::Refuses(486)),
        Someone::new(Habit::Refuses(603)),
        Someone::new(Habit::Rings).ring(5 * SECOND),
    ];
    // The voice agent would take the caller back, but it has left meanwhile.
    let chain = vec![Fallback::VoiceAgent, Fallback::Closing];
    let mut world = World::asked(&Setting { fallback: chain, ..Setting::new(&people) });
    world.until("agent.ringing", 10 * SECOND);
    world.voice_agent_goes(LegCause::Lost);
    world.until("transfer.ended", 10 * SECOND);
    assert_eq!(world.outcomes(), [("no_answer", FallbackTaken::Closing)]);
    let failed = world.nth("transfer.ended", 1);
    world.judge();
    world.judge_silence();
    let closing = world.caller.loud.iter().filter(|at| **at > failed).count();
    assert!(closing > 50, "the closing message was heard for {closing} frames");
    let Some(Fact::CallEnded { side, .. }) = world.fact("call.ended") else { panic!() };
    assert_eq!(side, "system", "we hung up, after the message");
}

#[test]
fn no_more_people_are_tried_than_the_queue_allows() {
    let people = [Someone::new(Habit::Refuses(486)); 3];
    let mut world = World::asked(&Setting { attempts_max: 2, ..Setting::new(&people) });
    world.until("transfer.ended", 5 * SECOND);
    assert_eq!(world.count("agent.offered"), 2);
    assert_eq!(world.outcomes(), [("busy", FallbackTaken::VoiceAgent)]);
    world.pass(5 * SECOND);
    world.ends_well();
    world.judge_silence();
}
