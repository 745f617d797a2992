//! One whole warm transfer on one machine, with outside parties on real loopback sockets: a
//! caller behind a carrier, a voice agent, a person with a softphone and a desktop, a CRM.
//! The edge under test is the one that `serve` runs, with a configuration file like any
//! other. Every figure is taken by the parties or read back from the store.

pub mod crm;
pub mod desktop;
pub mod figures;
pub mod hearing;
pub mod idle;
pub mod phone;
pub mod report;
pub mod stage;
pub mod timeline;
pub mod voice_agent;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use handoff::call::outcome::LegCause;
use serde_json::json;

use crate::cli::{DemoArguments, NOT_BUILT, Scenario, print_line};
use crate::demo::phone::PhoneOrder;
use crate::demo::report::Check;
use crate::demo::stage::Stage;
use crate::demo::voice_agent::Cue;
use crate::sip::{DialogKey, Direction, SipCommand, SipEvent};

/// The whole call, from dialling to the last record, at most. A healthy one takes half.
const CALL_MAX: Duration = Duration::from_secs(55);

/// A person takes this long to reach for the phone.
const REACH: Duration = Duration::from_millis(1_500);

/// The caller's dialog: the first that its phone opens.
const CALLER_DIALOG: DialogKey = DialogKey(1);

/// Plays the scenario, prints what happens, and says with its exit code whether the call
/// went as it should.
pub async fn run(options: DemoArguments) -> Result<ExitCode> {
    if options.scenario != Scenario::Happy {
        print_line(&format!(
            "The scenario `{}` is declared and not built yet; `happy` is.",
            options.scenario.name()
        ));
        return Ok(ExitCode::from(NOT_BUILT));
    }
    let mut stage = Stage::set(options.data.clone()).await?;
    if options.open {
        stage.open_page();
    }
    let played = tokio::time::timeout(CALL_MAX, happy(&mut stage)).await;
    match &played {
        Ok(Ok(())) => {}
        Ok(Err(error)) => stage.say(&format!("the call broke off: {error:#}")),
        Err(_) => stage.say("the call took too long"),
    }
    let (report, whisper_found) = stage.measure(options.scenario).await?;
    if let Some(path) = &options.report {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let checks = report.checks("completed", whisper_found);
    print_checks(&checks);
    print_line(&format!("what the caller heard       {}", report.recordings.caller));
    print_line(&format!("what the human agent heard  {}", report.recordings.human));
    print_line(&format!("what the voice agent heard  {}", report.recordings.voice_agent));
    let passed = matches!(played, Ok(Ok(()))) && checks.iter().all(|check| check.holds);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_checks(checks: &[Check]) {
    print_line("");
    for check in checks {
        let sign = if check.holds { "ok " } else { "NOT" };
        print_line(&format!("{sign}  {:<34} {:<34} {}", check.name, check.measured, check.limit));
    }
    print_line("");
}

/// Everything works: the caller asks the voice agent something that only a person may
/// answer, and is handed over.
async fn happy(stage: &mut Stage) -> Result<()> {
    stage.say("the caller dials");
    stage.dial();
    stage.caller_event(|event| matches!(event, SipEvent::Answered(..))).await?;
    stage.say("the edge answers; the disclosure plays");
    stage.voice_agent_started().await?;
    stage.disclosed().await?;

    stage.voice_agent_says("agent.greeting").await?;
    stage
        .caller_says("caller.refill", json!({"intent": "clinical.medication_refill", "confidence": 0.93}))
        .await?;
    stage.voice_agent.cue(Cue::Signal("confidence", json!({"value": 0.86, "of": "resolution"}))).await;
    stage.voice_agent_says("agent.confirm_name").await?;
    stage.caller_says("caller.name", json!({})).await?;
    for (name, value) in [("patient_name", "Dana Ortiz"), ("medication", "lisinopril")] {
        let field = json!({"name": name, "value": value, "confidence": 0.95, "verified": name == "patient_name", "pii": "pii"});
        stage.voice_agent.cue(Cue::Signal("field", field)).await;
    }
    stage.voice_agent_says("agent.refill_done").await?;
    // The question that the policy reserves for people, whatever the confidence.
    stage
        .caller_says(
            "caller.medication_question",
            json!({"topic": "medication", "confidence": 0.97, "regulated": true}),
        )
        .await?;

    // The human's side, as it happens: page first, then the phone.
    let transfer = stage.card_shown().await?;
    let dialog = stage.human_rings().await?;
    stage.say("the human agent's phone rings; the card is on the screen");
    // The person is slower than the message, so that the caller is put on hold in between.
    stage.caller_directed(Direction::RecvOnly).await?;
    stage.say("a re-INVITE puts the caller on hold; the music plays");
    tokio::time::sleep(REACH).await;
    let local = stage.human.local();
    stage.human.order(PhoneOrder::Sip(SipCommand::Answer(dialog, local)));
    stage.say("the human agent answers and hears the whisper");
    stage.caller_directed(Direction::SendRecv).await?;
    stage.say("a re-INVITE takes the caller back, before the bridge needs it");
    stage.whisper_ended().await?;
    stage.human.order(PhoneOrder::Press('1'));
    stage.say("the human agent presses 1");
    stage.bridged(&transfer).await?;
    stage.say("connected");

    stage.human_says("human.hello").await?;
    stage.caller_says("caller.thanks", json!({})).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.say("the caller hangs up");
    stage.caller.order(PhoneOrder::Sip(SipCommand::HangUp(CALLER_DIALOG, LegCause::LocalHangUp)));
    stage.finished().await
}
