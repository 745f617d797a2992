//! Does the caller have to say anything twice? A scripted person opens the call with the card
//! before them and asks for whatever their work needs and the card does not show. What the
//! caller had told the voice agent already must not be among it.

use std::collections::BTreeSet;
use std::time::Duration;

use handoff::call::DesktopPush;
use handoff::event::Mode;
use handoff::payload::Payload;
use tests::phone::Habit;
use tests::setting::{Setting, Someone};
use tests::world::{Cloud, World};

const ANSWERS: Habit = Habit::Answers(Duration::from_millis(500));
const ASKED: &str = r#"{"v":1,"id":"s-9","type":"transfer.request","data":{"reason":"caller_request"}}"#;

/// What the caller tells the voice agent: the names of the fields and their values.
const TOLD: [(&str, &str); 3] =
    [("patient_name", "Dana Ortiz"), ("date_of_birth", "1980-02-11"), ("medication", "lisinopril")];

/// What this person's work needs before it can begin: what the caller told, who calls, about
/// what, and why the voice agent passed them on.
const NEEDED: [&str; 6] = ["patient_name", "date_of_birth", "medication", "number", "intent", "reason"];

/// What the scripted person asks for: whatever is needed and not on the card.
fn questions(card: &Payload) -> BTreeSet<String> {
    let facts = &card.structured;
    let shown = |name: &str| match name {
        "number" => facts.caller.ani.e164.is_some(),
        "intent" => !facts.intent.category.is_empty(),
        "reason" => !card.summary.text.expose().is_empty(),
        name => facts.collected.iter().any(|item| item.key == name),
    };
    NEEDED.into_iter().filter(|name| !shown(name)).map(str::to_owned).collect()
}

/// Those questions whose answer the caller had given already.
fn asked_again(card: &Payload) -> BTreeSet<String> {
    let told: BTreeSet<String> = TOLD.iter().map(|(name, _)| (*name).to_owned()).collect();
    questions(card).intersection(&told).cloned().collect()
}

/// How long one question and its answer take on a phone line: a line of each at the usual 150
/// words a minute, and a breath between them.
const EXCHANGE: Duration = Duration::from_secs(7);

/// A world in which the caller has told everything and asked for a person.
fn told(setting: &Setting) -> World {
    let mut world = World::of(setting);
    world.call_and_disclose();
    for (number, (name, value)) in TOLD.iter().enumerate() {
        world.signal(&format!(
            r#"{{"v":1,"id":"s-{number}","type":"field","data":{{"name":"{name}","value":"{value}","confidence":0.95,"pii":"pii"}}}}"#
        ));
    }
    world.signal(ASKED);
    world
}

/// Everybody who is on the phone says yes; the bridge follows.
fn accept(world: &mut World) {
    for human in &mut world.humans {
        human.press('1');
    }
    world.until("bridge.completed", Duration::from_secs(30));
}

/// The card that the person who accepted had before them, frozen at the accept.
fn card(habits: &[Habit], cloud: Cloud) -> Payload {
    let people: Vec<Someone> = habits.iter().map(|habit| Someone::new(*habit)).collect();
    let mut world = told(&Setting { cloud, ..Setting::new(&people) });
    world.until("whisper.ended", Duration::from_secs(60));
    accept(&mut world);
    let frozen = world.pushes.iter().rev().find_map(|(_, _, push)| {
        let DesktopPush::Accepted { revision, .. } = push else { return None };
        Some(*revision)
    });
    let shown = world.pushes.iter().find_map(|(_, _, push)| {
        let DesktopPush::Card { payload, .. } = push else { return None };
        (Some(payload.revision) == frozen).then(|| (**payload).clone())
    });
    shown.expect("the person who accepted had a card")
}

#[test]
fn nobody_asks_again_for_what_the_caller_has_told() {
    let soon = Cloud::Decides(Duration::from_millis(40));
    for (what, habits, cloud) in [
        ("the functions build the card", &[ANSWERS][..], soon),
        ("the edge builds it, because nothing answers", &[ANSWERS][..], Cloud::Gone),
        ("the second person takes the call", &[Habit::Refuses(486), ANSWERS][..], soon),
    ] {
        let card = card(habits, cloud);
        assert_eq!(asked_again(&card), BTreeSet::new(), "{what}");
        assert_eq!(questions(&card), BTreeSet::new(), "{what}");
    }
}

#[test]
fn the_scripted_person_asks_for_what_a_poor_card_leaves_out() {
    let mut poor = card(&[ANSWERS], Cloud::Decides(Duration::from_millis(40)));
    poor.structured.collected.retain(|item| item.key == "medication");
    poor.structured.caller.ani.e164 = None;
    let asked: Vec<String> = questions(&poor).into_iter().collect();
    assert_eq!(asked, ["date_of_birth", "number", "patient_name"]);
    assert_eq!(asked_again(&poor).len(), 2, "the number was never told");
}

/// What a cold transfer costs: the same call, the same person, and no card. The first turn about
/// the matter itself comes after all the questions; the time of one exchange is an assumption,
/// the number of exchanges is not.
#[test]
fn after_a_cold_transfer_the_caller_says_everything_again() {
    let setting = Setting { mode: Mode::Cold, ..Setting::new(&[Someone::new(ANSWERS)]) };
    let mut world = told(&setting);
    world.until("agent.answered", Duration::from_secs(60));
    world.pass(Duration::from_secs(1));
    accept(&mut world);
    let briefed = |push: &DesktopPush| matches!(push, DesktopPush::Card { .. } | DesktopPush::Caption { .. });
    assert!(!world.pushes.iter().any(|(_, _, push)| briefed(push)), "nothing was shown");
    assert!(!world.kinds().iter().any(|kind| kind.starts_with("whisper.")), "nothing was whispered");
    let warm = questions(&card(&[ANSWERS], Cloud::Decides(Duration::from_millis(40)))).len();
    let cold = NEEDED.len();
    println!(
        "questions before the first turn about the matter: {warm} warm, {cold} cold; at {EXCHANGE:?} each {:?} and {:?}",
        EXCHANGE * u32::try_from(warm).unwrap(),
        EXCHANGE * u32::try_from(cold).unwrap(),
    );
    assert!(warm < cold);
}
