//! What a page is shown, restored and allowed to say.

use handoff::call::Input;
use handoff::event::{DeclineReason, Means};
use proptest::prelude::*;

use super::message::{DeclineChoice, MESSAGE_BYTES_MAX};
use super::*;

fn ana() -> HumanAgentId {
    HumanAgentId::parse("agent_ana").unwrap()
}

fn transfer(name: &str) -> TransferId {
    TransferId::parse(name).unwrap()
}

fn incoming(name: &str) -> DesktopPush {
    let call = CallId::parse("call_01").unwrap();
    DesktopPush::Incoming { transfer: transfer(name), call, attempt: 1, waited_ms: 1_000 }
}

fn connect(desktops: &mut Desktops, millis: u64, session: u64) -> Value {
    let name = Pii::new("Ana Lind".to_owned());
    let state = desktops.connect(Now::from_millis(millis), &ana(), &name, DesktopSession(session)).unwrap();
    serde_json::from_str(state.expose()).unwrap()
}

fn push(desktops: &mut Desktops, push: &DesktopPush) -> Option<Value> {
    let message = desktops.push(Now::ZERO, &ana(), push)?;
    Some(serde_json::from_str(message.expose()).unwrap())
}

/// A card as the desk stores it; the payload's own form is not this module's concern.
fn show(desktops: &mut Desktops, name: &str, revision: u32) -> Option<Value> {
    let payload = json!({ "revision": revision, "summary": { "headline": "Refill" } });
    desktops.desks.get_mut(&ana())?.show(&transfer(name), payload)
}

fn offered() -> Desktops {
    let mut desktops = Desktops::default();
    connect(&mut desktops, 0, 1);
    push(&mut desktops, &incoming("xfer_1")).unwrap();
    show(&mut desktops, "xfer_1", 1).unwrap();
    desktops
}

#[test]
fn a_desktop_that_reconnects_shows_what_holds_at_that_moment() {
    let mut desktops = offered();
    let text = Pii::new("A caller with a question.".to_owned());
    push(&mut desktops, &DesktopPush::Caption { transfer: transfer("xfer_1"), text });
    push(&mut desktops, &DesktopPush::Accepted { transfer: transfer("xfer_1"), revision: 1 });
    desktops.disconnect(&ana(), DesktopSession(1));
    assert!(!desktops.is_connected(&ana()));
    let state = connect(&mut desktops, 4_000, 2);
    assert!(desktops.is_connected(&ana()));
    let offer = &state["offers"][0];
    assert_eq!((&offer["stage"], &offer["frozen"]), (&json!("accepted"), &json!(1)));
    assert_eq!((&offer["waited_ms"], &offer["attempt"]), (&json!(5_000), &json!(1)));
    assert_eq!(offer["payload"]["summary"]["headline"], "Refill");
    assert_eq!(offer["caption"], "A caller with a question.");
    push(&mut desktops, &DesktopPush::Ended { transfer: transfer("xfer_1"), reason: "ended" });
    assert_eq!(connect(&mut desktops, 5_000, 3)["offers"], json!([]));
}

#[test]
fn what_happens_while_nobody_looks_is_shown_on_connecting() {
    let mut desktops = Desktops::default();
    push(&mut desktops, &incoming("xfer_1")).unwrap();
    assert_eq!(connect(&mut desktops, 0, 1)["offers"][0]["stage"], "incoming");
}

#[test]
fn messages_are_numbered_per_person_and_a_second_page_takes_no_number() {
    let mut desktops = Desktops::default();
    let numbers =
        [
            connect(&mut desktops, 0, 1)["seq"].clone(),
            push(&mut desktops, &incoming("xfer_1")).unwrap()["seq"].clone(),
            push(&mut desktops, &DesktopPush::Bridged { transfer: transfer("xfer_1") }).unwrap()["seq"]
                .clone(),
            push(&mut desktops, &DesktopPush::Ended { transfer: transfer("xfer_1"), reason: "ended" })
                .unwrap()["seq"]
                .clone(),
        ];
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert_eq!(connect(&mut desktops, 0, 2)["seq"], 3);
}

#[test]
fn only_a_higher_revision_replaces_the_card_and_an_accept_freezes_it() {
    let mut desktops = offered();
    assert_eq!(show(&mut desktops, "xfer_1", 1), None);
    assert_eq!(show(&mut desktops, "xfer_1", 3).unwrap()["revision"], 3);
    assert_eq!(show(&mut desktops, "xfer_1", 2), None);
    push(&mut desktops, &DesktopPush::Accepted { transfer: transfer("xfer_1"), revision: 3 });
    assert_eq!(show(&mut desktops, "xfer_1", 4), None);
    assert_eq!(show(&mut desktops, "xfer_9", 1), None);
}

#[test]
fn what_a_page_says_becomes_an_input_of_its_call() {
    let mut desktops = offered();
    let transfer = || transfer("xfer_1");
    for (text, expected) in [
        (
            r#"{"type":"ack","transfer":"xfer_1","revision":1}"#,
            Input::DesktopAcked { agent: ana(), transfer: transfer(), revision: 1 },
        ),
        (
            r#"{"type":"accept","transfer":"xfer_1"}"#,
            Input::Accept { agent: ana(), transfer: transfer(), means: Means::Ui },
        ),
        (
            r#"{"type":"decline","transfer":"xfer_1","reason":"busy"}"#,
            Input::Decline {
                agent: ana(),
                transfer: transfer(),
                means: Means::Ui,
                reason: DeclineReason::Busy,
            },
        ),
    ] {
        let (call, input) = desktops.receive(&ana(), text).unwrap();
        assert_eq!(call.as_str(), "call_01");
        assert_eq!(input.into_input(ana(), Means::Ui), expected);
    }
    let declined = desktops.receive(&ana(), r#"{"type":"decline","transfer":"xfer_1"}"#).unwrap().1;
    assert_eq!(declined, DesktopInput::Decline { transfer: transfer(), reason: DeclineChoice::Other });
    push(&mut desktops, &DesktopPush::Bridged { transfer: transfer() });
    let back = desktops.receive(&ana(), r#"{"type":"hand_back","transfer":"xfer_1"}"#).unwrap().1;
    assert_eq!(back.into_input(ana(), Means::Ui), Input::HandBack { agent: ana() });
}

#[test]
fn after_a_yes_there_is_nothing_left_to_accept_or_decline() {
    let mut desktops = offered();
    push(&mut desktops, &DesktopPush::Accepted { transfer: transfer("xfer_1"), revision: 1 });
    for kind in ["accept", "decline"] {
        let said = desktops.receive(&ana(), &format!(r#"{{"type":"{kind}","transfer":"xfer_1"}}"#));
        assert_eq!(said, Err(Refusal::TooLate));
    }
}

#[test]
fn who_waits_is_told_when_it_changes_and_to_every_new_page() {
    let caller = |name: &str, offered_to| WaitingCaller {
        transfer: transfer(name),
        queue: "Nurse line".to_owned(),
        category: Category::CallerRequest,
        since: Now::ZERO,
        offered_to,
    };
    let mut desktops = Desktops::default();
    let now = Now::from_millis(2_000);
    assert_eq!(desktops.waiting(now, &ana(), &[caller("xfer_1", None)]), None, "no page is open");
    connect(&mut desktops, 0, 1);
    assert!(desktops.waiting(now, &ana(), &[]).is_some(), "a new page is told that nobody waits");
    assert_eq!(desktops.waiting(now, &ana(), &[]), None, "told already");
    let told = desktops.waiting(now, &ana(), &[caller("xfer_1", None), caller("xfer_2", Some(ana()))]);
    let told: Value = serde_json::from_str(told.unwrap().expose()).unwrap();
    assert_eq!((&told["total"], &told["callers"][1]["offered"]), (&json!(2), &json!("you")));
    assert_eq!(
        (&told["callers"][0]["waited_ms"], &told["callers"][0]["offered"]),
        (&json!(2_000), &json!("nobody"))
    );
    assert_eq!(told.get("seq"), None);
    let same = [caller("xfer_1", None), caller("xfer_2", Some(ana()))];
    assert_eq!(desktops.waiting(now, &ana(), &same), None, "told already");
    connect(&mut desktops, 0, 2);
    assert!(desktops.waiting(now, &ana(), &same).is_some(), "a new page knows of none");
    assert!(desktops.waiting(now, &ana(), &[]).is_some(), "the last one is gone");
}

#[test]
fn what_does_not_fit_is_refused_by_the_name_of_the_member() {
    let desktops = offered();
    let large = format!(r#"{{"type":"accept","transfer":"{}"}}"#, "x".repeat(MESSAGE_BYTES_MAX));
    for (text, reason) in [
        (large.as_str(), "message: too large"),
        ("[]", "message: not a JSON object"),
        (r#"{"type":"dance"}"#, "type: unknown, missing or unfit"),
        (r#"{"type":"accept"}"#, "transfer: unknown, missing or unfit"),
        (r#"{"type":"accept","transfer":"xfer_1","force":true}"#, "force: unknown, missing or unfit"),
        (r#"{"type":"accept","transfer":"xfer_1","<b>x":1}"#, "bx: unknown, missing or unfit"),
        (r#"{"type":"accept","transfer":"xfer_2"}"#, "transfer: not offered to you"),
        (r#"{"type":"ack","transfer":"xfer_1","revision":-1}"#, "revision: unknown, missing or unfit"),
        (r#"{"type":"ack","transfer":"xfer_1","revision":2}"#, "revision: unknown, missing or unfit"),
        (r#"{"type":"decline","transfer":"xfer_1","reason":"no"}"#, "reason: unknown, missing or unfit"),
        (r#"{"type":"hand_back","transfer":"xfer_1"}"#, "type: not connected yet"),
    ] {
        let refusal = desktops.receive(&ana(), text).unwrap_err();
        assert_eq!(refusal.to_string(), reason);
    }
    let refused: Value = serde_json::from_str(&Refusal::Field("force".to_owned()).to_message()).unwrap();
    assert_eq!((&refused["type"], &refused["field"]), (&json!("refused"), &json!("force")));
}

#[test]
fn nobody_acts_on_the_offer_of_somebody_else() {
    let desktops = offered();
    let ben = HumanAgentId::parse("agent_ben").unwrap();
    let accept = r#"{"type":"accept","transfer":"xfer_1"}"#;
    assert_eq!(desktops.receive(&ben, accept), Err(Refusal::NotYours));
    assert_eq!(desktops.payload_of(&ben, &transfer("xfer_1")), None);
    assert!(desktops.payload_of(&ana(), &transfer("xfer_1")).is_some());
}

#[test]
fn pages_and_offers_are_bounded() {
    let mut desktops = Desktops::default();
    for session in 0..4 {
        connect(&mut desktops, 0, session);
    }
    let name = Pii::new(String::new());
    assert_eq!(desktops.connect(Now::ZERO, &ana(), &name, DesktopSession(9)), Err(TooManyPages));
    for name in ["xfer_1", "xfer_2", "xfer_3", "xfer_4", "xfer_5"] {
        push(&mut desktops, &incoming(name));
    }
    desktops.disconnect(&ana(), DesktopSession(0));
    let offers = connect(&mut desktops, 0, 10)["offers"].as_array().unwrap().len();
    assert_eq!(offers, 4);
    assert_eq!(desktops.call_of(&ana(), &transfer("xfer_1")), None);
}

#[test]
fn the_page_is_small_and_loads_and_runs_nothing_of_others() {
    let [html, style, script] =
        [include_str!("web/index.html"), include_str!("web/style.css"), include_str!("web/app.js")];
    assert!(html.len() + style.len() + script.len() <= 50_000);
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "eval(",
        "document.write",
        "http:",
        "@import",
        "url(",
    ] {
        assert!(![html, style, script].iter().any(|file| file.contains(forbidden)), "{forbidden}");
    }
    // The policy of the listener allows no inline script, style or handler.
    for forbidden in ["<style", " style=", " onclick=", "<script>"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
}

proptest! {
    #[test]
    fn no_message_of_a_page_panics(text in ".{0,100}", kind in "(ack|accept|decline|hand_back)", value in "(1|null|\"xfer_1\"|\\[\\])") {
        let desktops = offered();
        let _ = desktops.receive(&ana(), &text);
        let _ = desktops.receive(&ana(), &format!(r#"{{"type":"{kind}","transfer":{value},"revision":{value}}}"#));
    }
}
