//! Nobody takes the call: every link of the queue's chain through SIP and RTP, what the caller
//! hears of it, and what is kept of what they say.

use std::time::Duration;

use handoff::call::Fallback;
use handoff::call::outcome::{FallbackTaken, LegCause};
use handoff::event::{CallEvent, Fact, MessageEnd, WebhookKind, webhook_of};
use handoff::id::{LegId, QueueId};
use tests::phone::{Habit, tones};
use tests::setting::{SECOND_QUEUE, Setting, Someone};
use tests::world::{CALLER_NUMBER, World};

const SECOND: Duration = Duration::from_secs(1);
const ANSWERS: Habit = Habit::Answers(Duration::from_millis(500));

fn second_queue() -> Fallback {
    Fallback::Queue(QueueId::parse(SECOND_QUEUE).expect("a valid id"))
}

/// Whether this was recorded.
fn has(world: &World, is: impl Fn(&Fact) -> bool) -> bool {
    world.facts.iter().any(|event| is(&event.fact))
}

/// The links that were taken, in order.
fn taken(world: &World) -> Vec<FallbackTaken> {
    let links = world.facts.iter().filter_map(|event| {
        let Fact::FallbackChosen { kind, .. } = &event.fact else { return None };
        Some(*kind)
    });
    links.collect()
}

fn webhooks(world: &World) -> Vec<WebhookKind> {
    world.facts.iter().filter_map(webhook_of).collect()
}

/// The call ends by itself, and everything that holds for any call held.
fn ends_by_itself(world: &mut World) {
    world.judge();
    world.judge_silence();
    let Some(Fact::CallEnded { side, .. }) = world.fact("call.ended") else { panic!() };
    assert_eq!(side, "system");
    assert!(!world.facts.iter().any(names_the_caller), "a fact names the caller");
}

fn names_the_caller(event: &CallEvent) -> bool {
    let mut event = event.clone();
    // What the functions judge carries what the caller said, and is sealed.
    event.evaluable = None;
    String::from_utf8_lossy(&event.to_json()).contains(CALLER_NUMBER)
}

/// Nobody is there, and this is the chain.
fn nobody(chain: &[Fallback]) -> Setting {
    let nobody = Someone { present: false, ..Someone::new(ANSWERS) };
    Setting { fallback: chain.to_vec(), ..Setting::new(&[nobody]) }
}

/// The caller hears the tone; then it is their turn.
fn after_the_tone(world: &mut World) {
    world.until("fallback.taken", 5 * SECOND);
    world.until("recording.started", 15 * SECOND);
}

#[test]
fn the_people_of_another_queue_are_tried_and_the_caller_hears_where_they_go() {
    let people = [Someone::new(Habit::Rings).ring(9 * SECOND), Someone::new(ANSWERS)];
    let fallback = vec![second_queue(), Fallback::Voicemail];
    let mut world = World::waiting(&Setting { fallback, second_queue: 1, ..Setting::new(&people) });
    world.until("whisper.started", 20 * SECOND);
    world.until("whisper.ended", 20 * SECOND);
    world.everybody_accepts();
    world.pass(8 * SECOND);
    world.ends_well();
    world.judge_silence();
    assert_eq!(taken(&world), [FallbackTaken::Queue]);
    assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)]);
    assert!(world.caller.heard_clip("dest.support.en"), "where they go now");
}

#[test]
fn every_link_in_turn_gives_way_to_the_next_and_the_last_word_is_the_closing_message() {
    let chain =
        [second_queue(), Fallback::VoiceAgent, Fallback::Voicemail, Fallback::Callback, Fallback::Closing];
    let people = [Someone::new(Habit::Refuses(486)), Someone::new(Habit::Rings).ring(9 * SECOND)];
    let fallback = chain.to_vec();
    let mut world = World::asked(&Setting { fallback, second_queue: 1, ..Setting::new(&people) });
    world.caller.says(Vec::new());
    world.until_nth("agent.offered", 2, 5 * SECOND);
    // The voice agent would take the caller back, and is lost meanwhile.
    world.voice_agent_reachable = false;
    world.voice_agent_goes(LegCause::Lost);
    ends_by_itself(&mut world);
    use FallbackTaken::{Callback, Closing, Queue, Voicemail};
    assert_eq!(taken(&world), [Queue, Voicemail, Callback, Closing]);
    assert_eq!(world.outcomes(), [("no_answer", Closing)]);
    for clip in ["voicemail.en", "message_tone", "callback.en", "closing.en"] {
        assert!(world.caller.heard_clip(clip), "{clip}");
    }
    assert_eq!(world.count("voicemail.left"), 0, "nothing was said");
}

#[test]
fn that_nobody_is_there_is_known_at_once_and_the_first_link_is_taken_without_dialling() {
    for (link, clip) in [
        (Fallback::Voicemail, "voicemail.en"),
        (Fallback::Callback, "callback.en"),
        (Fallback::VoiceAgent, "returning.en"),
    ] {
        let mut world = World::asked(&nobody(&[second_queue(), link]));
        let asked = world.now;
        world.until("fallback.taken", SECOND);
        assert!(world.time_of("fallback.taken").unwrap().since(asked) < SECOND / 2);
        world.pass(10 * SECOND);
        assert!(world.caller.heard_clip(clip), "{clip}");
        assert_eq!(world.count("agent.offered"), 0);
        world.ends_well();
        world.judge_silence();
    }
}

#[test]
fn a_message_is_recorded_and_ended_by_a_pause_a_key_a_hang_up_or_its_limit() {
    for recording in [true, false] {
        for ended_by in [MessageEnd::Pause, MessageEnd::Key, MessageEnd::HangUp, MessageEnd::Limit] {
            let setting = Setting { recording, ..nobody(&[Fallback::Voicemail, Fallback::Callback]) };
            let mut world = World::asked(&setting);
            let before = if recording { "fallback.taken" } else { "recording.started" };
            world.until(before, 15 * SECOND);
            world.pass(10 * SECOND);
            let tone_at = world.now;
            match ended_by {
                MessageEnd::Pause => world.caller.says(Vec::new()),
                MessageEnd::Key => world.caller.press('7'),
                MessageEnd::HangUp => world.caller_hangs_up(),
                MessageEnd::Limit => world.pass(120 * SECOND),
            }
            world.judge();
            world.judge_silence();
            let left = has(&world, |fact| {
                matches!(fact, Fact::VoicemailLeft { leg: LegId::CALLER, ended_by: by, from_ms, to_ms, .. }
                    if *by == ended_by && from_ms < to_ms)
            });
            assert!(left, "{recording}, {ended_by:?}: {:?}", world.kinds());
            assert_eq!(world.outcomes(), [("failed", FallbackTaken::Voicemail)]);
            assert!(webhooks(&world).contains(&WebhookKind::VoicemailLeft));
            let kept = world.recorded.get(&LegId::CALLER).expect("the caller's leg is recorded");
            let words = kept.iter().filter(|(at, said, _)| *at <= tone_at && said.contains(&tones::CALLER));
            assert!(words.count() > 100, "what was said is in the recording");
            assert!(has(&world, |fact| matches!(fact, Fact::RecordingStored { leg: LegId::CALLER, .. })));
            if ended_by == MessageEnd::Limit {
                let said = world.nth("voicemail.left", 1).since(tone_at);
                assert!(said < 130 * SECOND, "a message has an end: {said:?}");
            }
            if ended_by != MessageEnd::HangUp {
                assert!(world.caller.heard_clip("voicemail.kept.en"), "{ended_by:?}");
            }
        }
    }
}

#[test]
fn where_calls_are_not_recorded_nothing_but_the_message_is() {
    let mut world = World::asked(&nobody(&[Fallback::Voicemail]));
    after_the_tone(&mut world);
    let began = world.now;
    world.pass(3 * SECOND);
    world.caller.press('#');
    world.until("voicemail.left", SECOND);
    let over = world.now;
    world.judge();
    assert_eq!(world.recorded.keys().copied().collect::<Vec<_>>(), [LegId::CALLER]);
    let margin = Duration::from_millis(60);
    for (at, ..) in &world.recorded[&LegId::CALLER] {
        assert!(*at + margin >= began && *at <= over + margin, "{at:?} is outside the message");
    }
}

#[test]
fn a_held_caller_is_taken_back_before_they_are_asked_to_speak() {
    let people = [Someone::new(Habit::Rings).ring(12 * SECOND)];
    let fallback = vec![Fallback::Voicemail];
    let mut world = World::waiting(&Setting { fallback, ..Setting::new(&people) });
    after_the_tone(&mut world);
    world.pass(2 * SECOND);
    world.caller.press('#');
    ends_by_itself(&mut world);
    assert_eq!(world.count("voicemail.left"), 1, "a held phone sends nothing");
    assert_eq!(world.outcomes(), [("no_answer", FallbackTaken::Voicemail)]);
}

#[test]
fn a_call_back_is_promised_to_whoever_presses_one_and_to_nobody_else() {
    for (key, promised) in [(Some('1'), true), (Some('2'), false), (Some('9'), false), (None, false)] {
        let mut world = World::asked(&nobody(&[Fallback::Callback]));
        world.until("fallback.taken", SECOND);
        world.pass(3 * SECOND);
        if let Some(key) = key {
            world.caller.press(key);
        }
        ends_by_itself(&mut world);
        assert_eq!(world.count("callback.requested"), usize::from(promised), "{key:?}");
        assert_eq!(webhooks(&world).contains(&WebhookKind::CallbackRequested), promised);
        let (outcome, clip) = if promised {
            (("callback_scheduled", FallbackTaken::Callback), "callback.promised.en")
        } else {
            (("failed", FallbackTaken::Closing), "closing.en")
        };
        assert_eq!(world.outcomes(), [outcome], "{key:?}");
        assert!(world.caller.heard_clip(clip), "{key:?}: {clip}");
    }
}

#[test]
fn a_caller_who_leaves_at_any_step_of_the_chain_leaves_nothing_open() {
    for link in [Fallback::Voicemail, Fallback::Callback] {
        for step in 0..24 {
            let mut world = World::asked(&nobody(&[link.clone(), Fallback::VoiceAgent]));
            world.caller.says(Vec::new());
            world.until("fallback.taken", SECOND);
            world.pass(step * (SECOND * 3 / 4));
            world.ends_well();
            assert_eq!(world.count("caller.abandoned"), 0, "nobody was on the way any more");
            assert_eq!(world.count("voicemail.left"), 0);
        }
    }
}
