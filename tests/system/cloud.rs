//! The cloud is late, repeats itself, contradicts itself or is gone; replies get lost; timers
//! and reports come when their time is over. The call goes on, and nothing happens twice.

use std::time::Duration;

use edge_media::edge::EdgeInput;
use edge_media::media::MediaEvent;
use handoff::call::media::MediaReport;
use handoff::call::outcome::FallbackTaken;
use handoff::command::{Command, CommandBody};
use handoff::event::Fact;
use handoff::id::{Epoch, LegId, PlayId, TransferId};
use handoff::policy::Origin;
use tests::net::Fate;
use tests::phone::Habit;
use tests::setting::{Setting, Someone};
use tests::world::{Cloud, World};

const ANSWERS: Habit = Habit::Answers(Duration::from_millis(500));
const SECOND: Duration = Duration::from_secs(1);

/// How a call gets into a state.
type Reach = fn(&Setting) -> World;

fn one() -> Setting {
    Setting::new(&[Someone::new(ANSWERS)])
}

/// The bridged call goes on for a while and ends as a completed one.
fn completes(world: &mut World) {
    world.pass(8 * SECOND);
    world.ends_well();
    world.judge_silence();
    assert_eq!(world.outcomes(), [("completed", FallbackTaken::None)]);
}

fn again(world: &mut World, command: &Command) {
    world.give(EdgeInput::Command(Box::new(command.clone())));
}

#[test]
fn a_page_that_never_acknowledges_delays_the_bridge_by_three_seconds_and_no_more() {
    let mut world = World::of(&one());
    world.desktops_acknowledge = false;
    world.call_and_disclose();
    world.asks();
    world.until("hold.started", 30 * SECOND);
    world.until("whisper.ended", 30 * SECOND);
    world.everybody_accepts();
    let waited = world.nth("bridge.completed", 1).since(world.nth("agent.accepted", 1));
    assert!(waited >= 3 * SECOND && waited <= 3 * SECOND + Duration::from_millis(20), "{waited:?}");
    let Some(Fact::BridgeCompleted { degraded, .. }) = world.fact("bridge.completed") else { panic!() };
    assert_eq!(degraded.as_deref(), Some("ack_timeout"), "the reason is in the record");
    world.pass(8 * SECOND);
    world.ends_well();
    world.judge_silence();
    assert_eq!(world.outcomes(), [("completed_degraded", FallbackTaken::None)]);
}

#[test]
fn without_a_page_there_is_nothing_to_wait_for_and_the_record_says_so() {
    let pageless = Someone { desktop: false, ..Someone::new(ANSWERS) };
    let mut world = World::of(&Setting::new(&[pageless]));
    world.desktops_acknowledge = false;
    world.call_and_disclose();
    world.asks();
    world.until("hold.started", 30 * SECOND);
    world.until("whisper.ended", 30 * SECOND);
    world.everybody_accepts();
    let waited = world.nth("bridge.completed", 1).since(world.nth("agent.accepted", 1));
    assert!(waited <= Duration::from_millis(100), "{waited:?}");
    world.pass(8 * SECOND);
    world.ends_well();
    assert_eq!(world.outcomes(), [("completed_degraded", FallbackTaken::None)]);
}

#[test]
fn without_functions_every_mandatory_reason_still_gets_a_person() {
    let reasons = [
        (
            r#"{"v":1,"id":"a","type":"transfer.request","data":{"reason":"caller_request"}}"#,
            "caller_request",
        ),
        (
            r#"{"v":1,"id":"b","type":"turn","data":{"speaker":"caller","text":"I have chest pain","confidence":0.9}}"#,
            "safety",
        ),
        (
            r#"{"v":1,"id":"c","type":"topic","data":{"name":"medication","confidence":0.97,"regulated":true}}"#,
            "regulatory",
        ),
        ("", "elapsed_time"),
    ];
    for (signal, category) in reasons {
        let mut world = World::talking(&Setting { cloud: Cloud::Gone, ..one() });
        world.pass(SECOND);
        let asked = world.now;
        if signal.is_empty() {
            world.until("transfer.decided", 700 * SECOND);
        } else {
            world.signal(signal);
            world.until("transfer.decided", 2 * SECOND);
            let waited = world.nth("transfer.decided", 1).since(asked);
            assert!(waited >= Duration::from_millis(800) && waited < SECOND, "{category}: {waited:?}");
        }
        let Some(Fact::TransferDecided { decision, .. }) = world.fact("transfer.decided") else { panic!() };
        assert_eq!(decision.trigger.category.as_str(), category);
        assert_eq!(decision.origin, Origin::EdgeFallback);
        assert_eq!(world.published.len(), 1, "for the functions, when they are back");
        world.until("payload.built", 10 * SECOND);
        world.until("whisper.ended", 30 * SECOND);
        world.everybody_accepts();
        completes(&mut world);
    }
}

#[test]
fn many_triggers_in_any_order_make_one_decision() {
    for cloud in [Cloud::Decides(Duration::from_millis(40)), Cloud::Decides(3 * SECOND), Cloud::Gone] {
        let mut world = World::talking(&Setting { cloud, ..one() });
        for n in 0..5 {
            world.signal(&format!(
                r#"{{"v":1,"id":"k-{n}","type":"transfer.request","data":{{"reason":"caller_request"}}}}"#
            ));
            world.signal(&format!(
                r#"{{"v":1,"id":"t-{n}","type":"topic","data":{{"name":"medication","confidence":0.9,"regulated":true}}}}"#
            ));
            world.pass(Duration::from_millis(300));
        }
        world.until("whisper.ended", 30 * SECOND);
        world.everybody_accepts();
        assert_eq!(world.count("transfer.decided"), 1, "{cloud:?}");
        assert_eq!(world.count("agent.offered"), 1, "{cloud:?}");
        completes(&mut world);
    }
}

#[test]
fn commands_that_come_again_in_any_order_and_at_any_time_change_nothing() {
    // The same commands, once in order, and then five times over, shuffled, in every state.
    let mut world = World::asked(&one());
    world.until("agent.ringing", 10 * SECOND);
    let offers = world.count("agent.offered");
    let stages = ["hold.started", "whisper.started", "whisper.ended"];
    for stage in stages {
        world.until(stage, 30 * SECOND);
        for round in 0..5 {
            let mut commands = world.commanded.clone();
            let turn = round % commands.len().max(1);
            commands.rotate_left(turn);
            for command in &commands {
                again(&mut world, command);
            }
        }
    }
    world.everybody_accepts();
    for command in world.commanded.clone() {
        again(&mut world, &command);
    }
    assert_eq!((world.count("transfer.decided"), world.count("agent.offered")), (1, offers));
    completes(&mut world);
}

#[test]
fn a_command_of_an_older_transfer_or_another_call_is_refused_and_recorded() {
    let mut world = World::waiting(&Setting::new(&[Someone::new(Habit::Answers(12 * SECOND))]));
    let call = world.facts[0].call.clone();
    let mut refused = 0;
    for (n, transfer) in [TransferId::of(&call, 7), TransferId::of(&call, 0)].into_iter().enumerate() {
        let body = CommandBody::TransferCancel { transfer_id: transfer };
        let command = Command { id: format!("old-{n}"), call_id: call.clone(), body };
        again(&mut world, &command);
        refused += 1;
        assert_eq!(world.count("command.rejected"), refused, "recorded");
        again(&mut world, &command);
        assert_eq!(world.count("command.rejected"), refused, "once per id");
    }
    assert_eq!(world.stands(), "transferring/offering");
    world.until("whisper.ended", 30 * SECOND);
    world.everybody_accepts();
    completes(&mut world);
}

#[test]
fn a_lost_answer_to_any_request_tears_nothing_down() {
    // Whatever was done, its first answer is lost: the request comes again, and is done once.
    for (starts, holds) in [
        ("SIP/2.0 100", " INVITE"),
        ("SIP/2.0 180", " INVITE"),
        ("SIP/2.0 200", " INVITE"),
        ("SIP/2.0 200", " BYE"),
        ("ACK ", ""),
    ] {
        for times in [1, 2, 3] {
            let mut world = World::talking(&one());
            world.net.rule(starts, holds, None, times, Fate::Lost);
            world.asks();
            world.until("whisper.ended", 40 * SECOND);
            world.everybody_accepts();
            assert_eq!(world.count("agent.offered"), 1, "{starts}{holds}: nobody is dialled twice");
            completes(&mut world);
        }
    }
}

#[test]
fn a_lost_acknowledgement_of_the_page_is_no_failure() {
    let mut world = World::waiting(&one());
    world.until("whisper.ended", 30 * SECOND);
    world.desktops_acknowledge = false;
    world.everybody_accepts();
    // It comes after the bridge, on a second try.
    world.desktops_acknowledge = true;
    let transfer = TransferId::of(&world.facts[0].call, 1);
    world.give(EdgeInput::DesktopAcked(World::agent(0), transfer, 1));
    completes(&mut world);
}

#[test]
fn timers_and_reports_of_another_time_do_nothing_in_any_state() {
    let states: [(&str, Reach); 5] = [
        ("talking", World::talking),
        ("asked", World::asked),
        ("waiting", World::waiting),
        ("briefed", World::briefed),
        ("bridged", World::bridged),
    ];
    for (name, reach) in states {
        let mut world = reach(&one());
        let (facts, stands) = (world.facts.len(), world.stands());
        let call = world.facts[0].call.clone();
        let now = world.now;
        world.give(EdgeInput::Timeout);
        for report in [
            MediaReport::PlayEnded { play: PlayId(0), played_pm: 1_000 },
            MediaReport::PlayEnded { play: PlayId(999), played_pm: 1_000 },
            MediaReport::Applied { epoch: Epoch(0), egress: LegId::CALLER },
            MediaReport::Applied { epoch: Epoch(9_999), egress: LegId::CALLER },
            MediaReport::AudioSeen { leg: LegId::CALLER, epoch: Epoch(0) },
            MediaReport::SourceBack { leg: LegId::FIRST_HUMAN },
            MediaReport::SourceLost { leg: LegId(77) },
            MediaReport::Digit { leg: LegId(77), digit: '1' },
            MediaReport::Drained { leg: LegId(77) },
        ] {
            world.give(EdgeInput::Media(MediaEvent { at: now, call: call.clone(), report }));
        }
        assert_eq!((world.facts.len(), world.stands()), (facts, stands), "{name}");
        if name != "bridged" {
            if name == "talking" {
                world.asks();
            }
            world.until("whisper.ended", 30 * SECOND);
            world.everybody_accepts();
        }
        completes(&mut world);
    }
}
