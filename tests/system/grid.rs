//! The published grid: every state of a call, and what follows when somebody leaves, refuses,
//! stays silent or a deadline comes. Each cell is a whole call through SIP and RTP, judged
//! like any other; the table in `tests/GRID.md` is what these calls did, so a change of
//! behaviour is a change of that file. `warmbridge grid` prints it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the grid tells of the few facts that a reader asks about"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use handoff::call::Fallback;
use handoff::call::outcome::{FallbackTaken, LegCause, Outcome};
use handoff::event::{DeclineReason, Fact, Role};
use tests::net::Fate;
use tests::phone::Habit;
use tests::setting::{Setting, Someone};
use tests::world::World;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any other wait of a cell, so that a ring time ends only where it is meant to.
const RING: Duration = Duration::from_secs(60);
/// When the edge has answered and the caller's ACK is still on its way.
const ANSWERED: Duration = Duration::from_millis(20);
/// Every leg is over this soon after its reason.
const LEGS_CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What a cell says that no call can be in.
const IMPOSSIBLE: &str = "-";

/// A row: how a call gets there.
type Reach = fn() -> World;

/// The rows.
const STATES: [(&str, &str, Reach); 15] = [
    ("arriving", "arriving", arriving),
    ("disclosing", "disclosing", disclosing),
    ("with the voice agent", "with_voice_agent", talking),
    ("announcing: the voice agent finishes", "transferring/announcing", draining),
    ("announcing: the message plays", "transferring/announcing", announcing),
    ("offering: the caller is on hold", "transferring/offering", offering),
    ("briefing", "transferring/briefing", briefing),
    ("barrier", "transferring/barrier", barrier),
    ("bridged", "bridged/bridged", bridged),
    ("returned: the notice plays", "with_voice_agent", returned),
    ("falling back: how to leave a message", "falling_back", inviting),
    ("falling back: the message is left", "falling_back", message),
    ("falling back: whether to call back", "falling_back", asking),
    ("closing", "closing", closing),
    ("ending: the person is told", "ending", farewell),
];

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    CallerBye,
    CallerCancel,
    CallerSilent,
    HumanBye,
    HumanSilent,
    HumanBusy,
    HumanDeclines,
    HumanNoAnswer,
    HumanVoicemail,
    VoiceAgentCloses,
    VoiceAgentLost,
    Timer,
}

const EVENTS: [(Event, &str); 12] = [
    (Event::CallerBye, "caller BYE"),
    (Event::CallerCancel, "caller CANCEL"),
    (Event::CallerSilent, "caller RTP loss"),
    (Event::HumanBye, "human BYE"),
    (Event::HumanSilent, "human RTP loss"),
    (Event::HumanBusy, "human busy"),
    (Event::HumanDeclines, "human declines"),
    (Event::HumanNoAnswer, "human no answer"),
    (Event::HumanVoicemail, "human voicemail"),
    (Event::VoiceAgentCloses, "voice agent closes"),
    (Event::VoiceAgentLost, "voice agent lost"),
    (Event::Timer, "timer"),
];

// How a call gets into each state.

fn setting() -> Setting {
    Setting::new(&[Someone::new(Habit::Rings).ring(RING); 2])
}

fn arriving() -> World {
    let mut world = World::of(&setting());
    world.net.rule("SIP/2.0 200", " INVITE", Some(world.caller.sip), 1, Fate::Late(SECOND / 5));
    world.dial();
    world.pass(ANSWERED);
    world
}

fn disclosing() -> World {
    let mut world = World::of(&setting());
    world.dial();
    world.pass(SECOND);
    world
}

fn talking() -> World {
    let mut world = World::talking(&setting());
    world.pass(SECOND);
    world
}

fn draining() -> World {
    let mut world = World::asked(&setting());
    world.until("agent.ringing", SECOND);
    world
}

fn announcing() -> World {
    let mut world = draining();
    world.pass(4 * SECOND);
    assert_eq!(world.count("hold.started"), 0);
    world
}

fn offering() -> World {
    let mut world = World::waiting(&setting());
    world.pass(SECOND);
    world
}

fn briefing() -> World {
    let mut world = World::asked(&answered_after(9 * SECOND));
    world.until("whisper.started", RING);
    world.pass(SECOND / 2);
    world
}

fn barrier() -> World {
    let mut world = briefing();
    world.desktops_acknowledge = false;
    world.clicks_accept(0);
    world.pass(SECOND / 2);
    assert_eq!((world.count("agent.accepted"), world.count("bridge.completed")), (1, 0));
    world
}

fn bridged() -> World {
    let mut world = briefing();
    world.until("whisper.ended", RING);
    world.everybody_accepts();
    world.pass(SECOND / 2);
    world
}

fn returned() -> World {
    let mut world = World::asked(&Setting::new(&[Someone::new(Habit::Refuses(486))]));
    world.until("fallback.taken", SECOND);
    world.pass(SECOND / 2);
    world
}

fn closing() -> World {
    let refuses = Setting::new(&[Someone::new(Habit::Refuses(486))]);
    let mut world = World::asked(&Setting { fallback: Vec::new(), ..refuses });
    world.until("fallback.taken", SECOND);
    world.pass(SECOND / 2);
    world
}

fn inviting() -> World {
    fell(vec![Fallback::Voicemail, Fallback::Callback])
}

fn message() -> World {
    let mut world = inviting();
    world.until("recording.started", 10 * SECOND);
    world.pass(2 * SECOND);
    world
}

fn asking() -> World {
    fell(vec![Fallback::Callback])
}

/// Nobody took the call, and the first link of this chain speaks.
fn fell(fallback: Vec<Fallback>) -> World {
    let refuses = Setting::new(&[Someone::new(Habit::Refuses(486))]);
    let mut world = World::asked(&Setting { fallback, ..refuses });
    world.until("fallback.taken", SECOND);
    world.pass(SECOND);
    world
}

fn farewell() -> World {
    let mut world = briefing();
    world.caller_hangs_up();
    world.until("caller.abandoned", SECOND);
    world
}

fn answered_after(time: Duration) -> Setting {
    let answers = Someone::new(Habit::Answers(time)).ring(RING);
    Setting::new(&[answers, Someone::new(Habit::Rings).ring(RING)])
}

/// Lets the event happen. `false` where it cannot, in this state.
fn happens(world: &mut World, event: Event, state: &str) -> bool {
    let caller = state != "ending: the person is told";
    let rings = state.starts_with("announcing") || state.starts_with("offering");
    let briefed = matches!(state, "briefing" | "barrier" | "bridged");
    let voice_agent = world.voice_agent_is_there();
    match event {
        Event::CallerBye if caller && state != "arriving" => world.caller_hangs_up(),
        Event::CallerCancel if state == "arriving" => world.caller_hangs_up(),
        Event::CallerSilent if caller => {
            world.net.mute.insert(world.caller.rtp);
            world.pass(24 * SECOND);
        }
        Event::HumanBye if briefed || !caller => world.human_hangs_up(0),
        Event::HumanSilent if briefed => {
            world.net.mute.insert(world.humans[0].rtp);
            world.pass(24 * SECOND);
        }
        Event::HumanBusy if rings => world.human_refuses(0, 486),
        Event::HumanDeclines if rings => world.human_refuses(0, 603),
        Event::HumanNoAnswer if rings => world.pass(RING),
        Event::HumanVoicemail if rings => {
            world.human_answers(0);
            world.pass(50 * SECOND);
        }
        Event::HumanVoicemail if state == "briefing" => world.pass(50 * SECOND),
        Event::VoiceAgentCloses if voice_agent => world.voice_agent_goes(LegCause::RemoteHangUp),
        Event::VoiceAgentLost if voice_agent => world.voice_agent_goes(LegCause::Lost),
        Event::Timer => deadline(world, state),
        Event::CallerBye
        | Event::CallerCancel
        | Event::CallerSilent
        | Event::HumanBye
        | Event::HumanSilent
        | Event::HumanBusy
        | Event::HumanDeclines
        | Event::HumanNoAnswer
        | Event::HumanVoicemail
        | Event::VoiceAgentCloses
        | Event::VoiceAgentLost => return false,
    }
    world.pass(LEGS_CLOSE_WITHIN);
    true
}

/// Nobody reports or does anything any more, until the state's own deadline.
fn deadline(world: &mut World, state: &str) {
    world.media_reports = matches!(state, "with the voice agent" | "barrier");
    world.desktops_acknowledge = false;
    let longest = match state {
        "arriving" => {
            world.net.rule("ACK ", "", None, 100, Fate::Lost);
            40 * SECOND
        }
        "with the voice agent" => 300 * SECOND,
        "disclosing" => 61 * SECOND,
        "announcing: the voice agent finishes" => 3 * SECOND,
        "announcing: the message plays" => 31 * SECOND,
        "offering: the caller is on hold" => RING,
        "briefing" => 46 * SECOND,
        "barrier" => 4 * SECOND,
        "falling back: the message is left" => 121 * SECOND,
        _ => 16 * SECOND,
    };
    world.pass(longest);
    world.media_reports = true;
}

/// What the call did after its fact number `from`, in words.
fn told(world: &World, from: usize, state: &str) -> String {
    let mut told = Vec::new();
    let mut say = |text: &str| {
        if told.last().is_none_or(|last| last != text) {
            told.push(text.to_owned());
        }
    };
    for event in world.facts.iter().skip(from) {
        match &event.fact {
            Fact::TransferDecided { decision, .. } => {
                say(&format!("a person is called ({})", decision.trigger.rule_id));
            }
            Fact::LegOpened { role: Role::VoiceAgent, .. } if from > 2 => {
                say("the voice agent is called again")
            }
            Fact::AgentNoAnswer { .. } => say("no answer"),
            Fact::AgentDeclined { reason, .. } => say(match reason {
                DeclineReason::Declined => "declined",
                DeclineReason::Busy => "busy",
                DeclineReason::WrongTeam => "wrong team",
                DeclineReason::NeverAccepted => "never accepted",
                DeclineReason::Lost => "lost",
            }),
            Fact::AgentOffered { attempt, .. } if *attempt > 1 => say("next person"),
            Fact::FallbackChosen { kind, .. } => say(match kind {
                FallbackTaken::VoiceAgent => "back to the voice agent",
                FallbackTaken::Closing => "closing message",
                FallbackTaken::Queue => "another queue",
                FallbackTaken::Voicemail => "a message may be left",
                FallbackTaken::Callback => "a call back is offered",
                FallbackTaken::None => "nowhere",
            }),
            Fact::VoicemailLeft { .. } => say("the message is kept"),
            Fact::CallbackRequested { .. } => say("a call back is promised"),
            Fact::HoldStarted { .. } if state.starts_with("announcing") => say("on hold"),
            Fact::BridgeCompleted { .. } => say("bridged"),
            Fact::TransferEnded { outcome, .. } => say(&format!("`{}`", named(*outcome))),
            Fact::CallEnded { cause, .. } => say(&format!("the call ends ({cause})")),
            _ => {}
        }
    }
    if told.is_empty() { "goes on".to_owned() } else { told.join(", ") }
}

fn named(outcome: Outcome) -> String {
    match outcome {
        Outcome::AbandonedByCaller { phase } | Outcome::AgentLost { phase } => {
            format!("{}{{{}}}", outcome.name(), phase.as_str())
        }
        Outcome::CompletedDegraded { reason } => format!("{}{{{}}}", outcome.name(), reason.as_str()),
        Outcome::Completed
        | Outcome::NoAnswer
        | Outcome::Busy
        | Outcome::Declined
        | Outcome::Voicemail
        | Outcome::ReturnedToVoiceAgent
        | Outcome::CallbackScheduled
        | Outcome::Cancelled
        | Outcome::Failed { .. } => outcome.name().to_owned(),
    }
}

/// One cell: the call, what it did, and the judgement of all that holds for any call.
fn cell((state, stands, reach): (&str, &str, Reach), event: Event) -> String {
    let mut world = reach();
    assert_eq!(world.stands(), stands, "{state}");
    let from = world.facts.len();
    if !happens(&mut world, event, state) {
        return IMPOSSIBLE.to_owned();
    }
    let told = told(&world, from, state);
    if matches!(event, Event::CallerBye | Event::CallerCancel) {
        let open = world.count("leg.opened") - world.count("leg.closed");
        let briefed = matches!(state, "briefing" | "barrier");
        assert!(open <= usize::from(briefed), "{state}, {event:?}: {open} legs open after a second");
    }
    if world.count("call.ended") == 0 && state != "ending: the person is told" {
        world.net.mute.clear();
        world.caller_hangs_up();
    }
    world.judge();
    // A silent network, and a media plane that reports nothing, are faults of their own; a
    // caller who leaves before the first frame has heard nothing.
    let silent = matches!(event, Event::Timer | Event::CallerSilent | Event::HumanSilent);
    if !silent && state != "arriving" {
        world.judge_silence();
    }
    told
}

#[test]
fn every_cell_of_the_published_grid_is_what_a_whole_call_did() {
    let rows: BTreeMap<usize, Vec<String>> = thread::scope(|scope| {
        let rows: Vec<_> = STATES
            .iter()
            .map(|state| scope.spawn(move || EVENTS.iter().map(|(event, _)| cell(*state, *event)).collect()))
            .collect();
        rows.into_iter()
            .map(|row| row.join().expect("a cell failed; its message stands above"))
            .enumerate()
            .collect()
    });
    let mut text = String::from(INTRODUCTION);
    for ((state, ..), cells) in STATES.iter().zip(rows.values()) {
        let _ = write!(text, "\n## {state}\n\n| event | what follows |\n|---|---|\n");
        let row: Vec<_> = EVENTS.iter().map(|(_, name)| *name).zip(cells).collect();
        for (name, cell) in row.iter().filter(|(_, cell)| *cell != IMPOSSIBLE) {
            let _ = writeln!(text, "| {name} | {cell} |");
        }
        let never: Vec<&str> =
            row.iter().filter(|(_, cell)| *cell == IMPOSSIBLE).map(|(name, _)| *name).collect();
        if !never.is_empty() {
            let _ = write!(text, "\nCannot happen here: {}.\n", never.join(", "));
        }
    }
    expect_test::expect_file!["../GRID.md"].assert_eq(&text);
}

const INTRODUCTION: &str = "# What follows when somebody leaves

Every state of a call, and what follows when somebody leaves, refuses or falls silent, or when
the state's own deadline comes. Each line is what one whole call did, through SIP and RTP in
virtual time: `tests/system/grid.rs` plays them all and compares, and judges each for balanced
legs, a whole record, a caller who is never in silence and never hears a whisper.
`warmbridge grid` prints this page.

Two people are in the queue, each phone rings for 60 s, and the fallback is the voice agent. \"goes
on\" means that nothing changed for the caller. After the bridge the queue chooses: here one who
hangs up has ended the call, and one who is lost is followed by the next person. Somebody who falls
silent is given up after 20 s, unless they are held or nobody listens to them.
";
