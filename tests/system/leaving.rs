//! Somebody leaves: the caller while a person is being told, the person at every step of the
//! whisper, the person after the bridge. What the others hear then.

use std::time::Duration;

use edge_media::io::stream::{SILENCE_MAX, UNANSWERED_MAX};
use handoff::call::outcome::{FallbackTaken, LegCause};
use handoff::call::{Fallback, OnVoiceAgentBye, Survivor};
use handoff::clock::Now;
use handoff::event::{CallEvent, Fact, Role};
use tests::phone::{Habit, tones};
use tests::setting::{Setting, Someone};
use tests::world::{LinkFault, World};

const ANSWERS: Habit = Habit::Answers(Duration::from_millis(500));
const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(20);

/// The second person takes the call, and it ends well.
fn the_next_takes_it(world: &mut World) {
    world.until_nth("whisper.started", 2, 20 * SECOND);
    world.until("transition.played", 20 * SECOND);
    world.presses(1, '1');
    world.until("bridge.completed", 20 * SECOND);
    world.pass(8 * SECOND);
    world.ends_well();
    world.judge_silence();
    assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)]);
}

#[test]
fn a_person_lost_at_any_step_of_the_whisper_reopens_the_offer() {
    let whisper = {
        let mut world = World::briefed(&Setting::new(&[Someone::new(ANSWERS); 2]));
        world.until("whisper.ended", 30 * SECOND);
        world.nth("whisper.ended", 1).since(world.nth("whisper.started", 1))
    };
    let steps = u32::try_from(whisper.as_millis() / STEP.as_millis()).unwrap() + 10;
    // Every step ends in the same offer to the next person; every tenth is played to its end,
    // and only there it matters what was heard.
    for step in 0..steps {
        let mut world = World::of(&Setting::new(&[Someone::new(ANSWERS); 2]));
        world.deaf(step % 10 != 0);
        world.call_and_disclose();
        world.asks();
        world.until("whisper.started", 20 * SECOND);
        world.pass(STEP * step);
        let left = world.now;
        world.human_hangs_up(0);
        world.until_nth("agent.offered", 2, SECOND);
        assert!(world.nth("agent.offered", 2).since(left) <= SECOND / 2, "step {step}");
        if step % 10 == 0 {
            the_next_takes_it(&mut world);
        }
    }
}

#[test]
fn a_person_lost_at_any_step_between_yes_and_bridge_reopens_the_offer() {
    for step in 0..50 {
        let mut world = World::of(&Setting::new(&[Someone::new(ANSWERS); 2]));
        world.deaf(step % 10 != 0);
        world.call_and_disclose();
        world.asks();
        world.until("hold.started", 20 * SECOND);
        world.desktops_acknowledge = false;
        world.presses(0, '1');
        world.until("agent.accepted", SECOND);
        world.pass(STEP * step);
        assert_eq!(world.count("bridge.completed"), 0, "the barrier waits for the page");
        world.desktops_acknowledge = true;
        world.human_hangs_up(0);
        world.until_nth("agent.offered", 2, SECOND);
        if step % 10 == 0 {
            the_next_takes_it(&mut world);
        }
    }
}

#[test]
fn a_person_whose_caller_left_hears_a_fixed_sentence_and_no_more_of_the_whisper() {
    for after in [SECOND / 10, SECOND, 3 * SECOND] {
        let mut world = World::briefed(&Setting::new(&[Someone::new(ANSWERS)]));
        world.pass(after);
        world.caller_hangs_up();
        world.until("caller.abandoned", SECOND);
        let left = world.now;
        world.judge();
        assert!(world.humans[0].heard_clip("caller_left.en"));
        assert!(!world.humans[0].heard_alone(tones::WHISPER, left + SECOND / 10, world.now));
        let ended = world.nth("leg.closed", world.count("leg.closed"));
        assert!(ended.since(left) <= 6 * SECOND, "{:?} after the caller", ended.since(left));
    }
}

#[test]
fn who_is_lost_after_the_bridge_is_followed_by_what_the_queue_chose() {
    let ways = [
        (Survivor::End, None),
        (Survivor::Reoffer, Some("apology.en")),
        (Survivor::VoiceAgent, Some("apology.en")),
        (Survivor::Closing, Some("closing.en")),
    ];
    for (survivor, clip) in ways {
        for vanishes in [false, true] {
            let setting = Setting {
                on_agent_bye: survivor,
                on_agent_lost: survivor,
                ..Setting::new(&[Someone::new(ANSWERS); 2])
            };
            let mut world = World::bridged(&setting);
            world.pass(8 * SECOND);
            let left = world.now;
            if vanishes {
                world.net.gone.insert(world.humans[0].sip.ip());
                // Its network is gone: music at once, and given up after the set time.
                world.pass(10 * SECOND);
                assert!(world.caller.heard_alone(tones::HOLD, left, world.now) || has_hold(&world, left));
                world.pass(12 * SECOND);
            } else {
                world.human_hangs_up(0);
                world.pass(2 * SECOND);
            }
            match survivor {
                Survivor::End => {}
                Survivor::Reoffer => {
                    world.until_nth("whisper.ended", 2, 30 * SECOND);
                    world.everybody_accepts();
                    world.pass(10 * SECOND);
                    world.caller_hangs_up();
                }
                Survivor::VoiceAgent => {
                    world.pass(8 * SECOND);
                    let back = world.caller.heard_alone(tones::VOICE_AGENT, left, world.now);
                    assert!(back, "the voice agent has the caller again: {}", world.stands());
                    world.caller_hangs_up();
                }
                Survivor::Closing => world.pass(10 * SECOND),
            }
            world.until("producer.final", 60 * SECOND);
            world.judge_record();
            world.judge_whisper();
            world.judge_silence();
            assert_eq!(world.outcomes()[0], ("completed", FallbackTaken::None), "{survivor:?}");
            assert!(clip.is_none_or(|clip| world.caller.heard_clip(clip)), "{survivor:?}, {vanishes}");
        }
    }
}

fn has_hold(world: &World, since: Now) -> bool {
    world.caller.heard.iter().any(|(at, heard)| *at > since && heard.contains(&tones::HOLD))
}

#[test]
fn a_voice_agent_lost_before_a_transfer_is_called_once_more() {
    let mut world = World::talking(&Setting::new(&[Someone::new(ANSWERS)]));
    world.pass(2 * SECOND);
    world.voice_agent_goes(LegCause::Lost);
    let lost = world.now;
    world.pass(2 * SECOND);
    assert_eq!(world.count("transfer.decided"), 0);
    assert!(world.caller.heard_alone(tones::VOICE_AGENT, lost, world.now));
    world.ends_well();
    world.judge_silence();
}

#[test]
fn a_voice_agent_that_stays_away_is_followed_by_a_person() {
    let mut world = World::talking(&Setting::new(&[Someone::new(ANSWERS)]));
    world.pass(2 * SECOND);
    world.voice_agent_reachable = false;
    world.voice_agent_goes(LegCause::Lost);
    world.until("transfer.decided", 6 * SECOND);
    let Some(Fact::TransferDecided { decision, .. }) = world.fact("transfer.decided") else { panic!() };
    assert_eq!(decision.trigger.rule_id, "voice_agent_lost");
    world.until("whisper.ended", 30 * SECOND);
    world.everybody_accepts();
    world.pass(8 * SECOND);
    world.ends_well();
    world.judge_silence();
    assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)]);
}

#[test]
fn a_voice_agent_that_never_comes_up_is_followed_by_a_person_after_the_disclosure() {
    let mut world = World::of(&Setting::new(&[Someone::new(ANSWERS)]));
    world.voice_agent_reachable = false;
    world.call_and_disclose();
    world.until("whisper.ended", 40 * SECOND);
    world.everybody_accepts();
    world.pass(8 * SECOND);
    world.ends_well();
    world.judge_silence();
    assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)]);
}

#[test]
fn a_voice_agent_that_never_comes_up_with_nobody_there_ends_in_a_closing_message() {
    let nobody = Someone { present: false, ..Someone::new(ANSWERS) };
    let mut world = World::of(&Setting::new(&[nobody]));
    world.voice_agent_reachable = false;
    world.call_and_disclose();
    world.judge();
    world.judge_silence();
    assert!(world.caller.heard_clip("closing.en"));
    assert_eq!(world.outcomes(), [("failed", FallbackTaken::Closing)]);
}

#[test]
fn a_voice_agent_that_leaves_by_itself_is_followed_by_what_the_configuration_chose() {
    for choice in [OnVoiceAgentBye::Hangup, OnVoiceAgentBye::TransferDefault] {
        let people = [Someone::new(ANSWERS)];
        let mut world = World::talking(&Setting { on_voice_agent_bye: choice, ..Setting::new(&people) });
        world.pass(SECOND);
        world.voice_agent_goes(LegCause::RemoteHangUp);
        world.pass(SECOND);
        match choice {
            OnVoiceAgentBye::Hangup => assert_eq!(world.count("call.ended"), 1),
            OnVoiceAgentBye::TransferDefault => {
                world.until("agent.ringing", 5 * SECOND);
                world.caller_hangs_up();
            }
        }
        world.judge();
        world.judge_silence();
    }
}

#[test]
fn a_voice_agent_lost_at_any_moment_of_a_transfer_does_not_stop_it() {
    for moment in
        ["transfer.decided", "agent.ringing", "transition.played", "agent.answered", "whisper.ended"]
    {
        for cause in [LegCause::Lost, LegCause::RemoteHangUp] {
            let slow = Someone::new(Habit::Answers(8 * SECOND));
            let mut world = World::asked(&Setting::new(&[slow]));
            world.until(moment, 30 * SECOND);
            world.voice_agent_reachable = false;
            world.voice_agent_goes(cause);
            let lost = world.now;
            world.pass(SECOND);
            let first = world.caller.loud.iter().find(|at| **at > lost);
            assert!(first.is_some_and(|at| at.since(lost) <= SECOND / 2), "{moment}: a sound within 500 ms");
            world.until("whisper.ended", 30 * SECOND);
            world.everybody_accepts();
            world.pass(8 * SECOND);
            assert!(world.humans[0].heard_alone(tones::WHISPER, Now::ZERO, world.now));
            world.ends_well();
            world.judge_silence();
            assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)], "{moment}");
        }
    }
}

const FAULTS: [LinkFault; 4] = [LinkFault::Reset, LinkFault::Stall, LinkFault::Drip, LinkFault::Garbage];

/// From the moment at which a link is known to answer nothing, or is gone.
fn known_at(fault: LinkFault, failed: Now) -> Now {
    match fault {
        LinkFault::Reset | LinkFault::Garbage => failed,
        LinkFault::Stall | LinkFault::Drip => failed + UNANSWERED_MAX,
    }
}

/// The caller hears a sound within half a second of `since`, and at all times from then on.
fn heard_soon(world: &World, since: Now, what: &str) {
    let silence = world.caller.longest_silence(since, world.now);
    assert!(silence <= SECOND / 2, "{what}: the caller was in silence for {silence:?}");
}

#[test]
fn a_link_that_fails_before_a_trigger_is_opened_anew_and_the_caller_hears_something_meanwhile() {
    for fault in FAULTS {
        let mut world = World::talking(&Setting::new(&[Someone::new(ANSWERS)]));
        world.pass(2 * SECOND);
        let failed = world.now;
        world.voice_agent_fails(fault);
        world.pass(20 * SECOND);
        assert_eq!(world.count("transfer.decided"), 0, "{fault:?}");
        let voice = |fact: &&CallEvent| matches!(fact.fact, Fact::LegOpened { role: Role::VoiceAgent, .. });
        assert_eq!(world.facts.iter().filter(voice).count(), 2, "{fault:?}: one more link");
        let end = world.now;
        assert!(world.caller.heard_alone(tones::VOICE_AGENT, failed + 16 * SECOND, end), "{fault:?}");
        heard_soon(&world, known_at(fault, failed), &format!("{fault:?}"));
        world.ends_well();
    }
}

#[test]
fn a_link_that_fails_twice_before_a_trigger_is_followed_by_a_person_or_by_the_chain() {
    for fault in FAULTS {
        for present in [true, false] {
            let people = [Someone { present, ..Someone::new(ANSWERS) }];
            let fallback = vec![Fallback::VoiceAgent, Fallback::Callback];
            let mut world = World::talking(&Setting { fallback, ..Setting::new(&people) });
            for _ in 0..2 {
                world.pass(2 * SECOND);
                world.voice_agent_fails(fault);
                world.pass(SILENCE_MAX);
            }
            world.until("transfer.decided", 2 * SECOND);
            let Some(Fact::TransferDecided { decision, .. }) = world.fact("transfer.decided") else {
                panic!()
            };
            assert_eq!(decision.trigger.rule_id, "voice_agent_lost", "{fault:?}");
            let since = world.nth("transfer.decided", 1);
            if present {
                world.until("whisper.ended", 30 * SECOND);
                world.everybody_accepts();
                world.pass(8 * SECOND);
                world.ends_well();
                assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)], "{fault:?}");
            } else {
                world.until("fallback.taken", SECOND);
                world.pass(SECOND);
                world.caller.press('1');
                world.judge();
                let callback = ("callback_scheduled", FallbackTaken::Callback);
                assert_eq!(world.outcomes(), [callback], "{fault:?}");
            }
            let last = world.caller.loud.last().copied().unwrap_or(since);
            let silence = world.caller.longest_silence(since, last);
            assert!(silence <= SECOND / 2, "{fault:?}: {silence:?}");
        }
    }
}

#[test]
fn a_link_that_fails_in_any_state_of_a_transfer_does_not_stop_it() {
    for moment in
        ["transfer.decided", "agent.ringing", "transition.played", "agent.answered", "whisper.ended"]
    {
        for fault in FAULTS {
            let slow = Someone::new(Habit::Answers(8 * SECOND));
            let mut world = World::asked(&Setting::new(&[slow]));
            world.until(moment, 30 * SECOND);
            world.voice_agent_reachable = false;
            let failed = world.now;
            world.voice_agent_fails(fault);
            world.until("whisper.ended", 30 * SECOND);
            world.everybody_accepts();
            world.pass(8 * SECOND);
            // The message begins when the queued speech has been played, whatever the link does.
            heard_soon(&world, failed, &format!("{fault:?} at {moment}"));
            assert!(world.humans[0].heard_alone(tones::WHISPER, Now::ZERO, world.now));
            world.ends_well();
            world.judge_silence();
            assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)], "{fault:?} at {moment}");
        }
    }
}
