//! The scenarios of the demo. Each is a plan (how the parties behave, what must come out) and
//! a short script of what is special about it; whatever they have in common is said once. A
//! script waits for what the parties see and never for a time, except where a person would.

use std::time::Duration;

use anyhow::Result;
use handoff::call::outcome::LegCause;
use serde_json::json;

use crate::cli::Scenario;
use crate::demo::crm::Behaviour;
use crate::demo::phone::PhoneOrder;
use crate::demo::report::Expected;
use crate::demo::stage::Stage;
use crate::demo::voice_agent::Cue;
use crate::sip::{DialogKey, Direction, SipCommand, SipEvent};

/// A person takes this long to reach for the phone.
const REACH: Duration = Duration::from_millis(1_500);

/// The caller's dialog: the first that its phone opens.
const CALLER_DIALOG: DialogKey = DialogKey(1);

/// A little longer than the message to the caller: a demo has no patience.
const SHORT_S: u32 = 8;

/// Longer than the message to the caller, so that a person answers a caller on hold.
const LONG_S: u32 = 20;

/// How the parties of a scenario behave, and what must come out.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long the human agent's phone rings.
    pub ring_timeout_s: u32,
    /// How long whoever answered may take to accept.
    pub accept_timeout_s: u32,
    /// How the CRM answers.
    pub crm: Behaviour,
    /// A transfer that the CRM missed is degraded.
    pub crm_required: bool,
    /// The whole call, from dialling to the last record, at most.
    pub longest: Duration,
    /// What must come out.
    pub expected: Expected,
}

/// What comes out where nobody took the call.
const fn returned(outcome: &'static str, whispered: bool) -> Expected {
    Expected { outcome, fallback: "voice_agent", bridged: false, whispered, delivered: true }
}

/// The plan of a scenario.
pub const fn plan(scenario: Scenario) -> Plan {
    let completed =
        Expected { outcome: "completed", fallback: "none", bridged: true, whispered: true, delivered: true };
    let healthy = Plan {
        ring_timeout_s: LONG_S,
        accept_timeout_s: LONG_S,
        crm: Behaviour::Healthy,
        crm_required: false,
        longest: Duration::from_secs(55),
        expected: completed,
    };
    match scenario {
        Scenario::Happy | Scenario::VoiceAgentDies | Scenario::FunctionsDown => healthy,
        Scenario::NoAnswer => {
            Plan { ring_timeout_s: SHORT_S, expected: returned("no_answer", false), ..healthy }
        }
        Scenario::Declined => Plan { expected: returned("declined", false), ..healthy },
        Scenario::Voicemail => {
            Plan { accept_timeout_s: SHORT_S, expected: returned("voicemail", true), ..healthy }
        }
        Scenario::CallerHangsUp => Plan {
            expected: Expected {
                outcome: "abandoned_by_caller",
                bridged: false,
                whispered: false,
                ..completed
            },
            ..healthy
        },
        Scenario::CrmDown => Plan {
            crm: Behaviour::Down,
            crm_required: true,
            expected: Expected { outcome: "completed_degraded", delivered: false, ..completed },
            ..healthy
        },
    }
}

/// Plays a scenario from dialling to the last record.
pub async fn play(stage: &mut Stage, scenario: Scenario) -> Result<()> {
    opening(stage).await?;
    match scenario {
        Scenario::Happy => small_talk(stage).await?,
        Scenario::FunctionsDown => {
            stage.say("every function stops");
            stage.functions()?.pause();
        }
        Scenario::NoAnswer
        | Scenario::Declined
        | Scenario::Voicemail
        | Scenario::CallerHangsUp
        | Scenario::VoiceAgentDies
        | Scenario::CrmDown => {}
    }
    question(stage).await?;
    let (transfer, dialog) = rings(stage).await?;
    match scenario {
        Scenario::Happy | Scenario::CrmDown | Scenario::VoiceAgentDies | Scenario::FunctionsDown => {
            held(stage).await?;
            if scenario == Scenario::VoiceAgentDies {
                stage.say("the voice agent's connection breaks");
                stage.voice_agent.cue(Cue::Die).await;
            }
            answered(stage, dialog).await?;
            accepted(stage, &transfer).await?;
            if scenario == Scenario::FunctionsDown {
                stage.say("every function starts again, with all that it missed");
                stage.functions()?.resume();
            }
            if scenario == Scenario::Happy {
                stage.human_says("human.hello").await?;
            }
            thanks(stage).await?;
        }
        Scenario::NoAnswer => {
            held(stage).await?;
            stage.human_released().await?;
            stage.say("nobody answered; the phone is cancelled");
            back(stage).await?;
            stage.voice_agent_says("agent.greeting").await?;
        }
        Scenario::Declined => {
            held(stage).await?;
            tokio::time::sleep(REACH).await;
            stage.desktop.press("decline", &transfer).await;
            stage.say("the human agent declines on the page");
            stage.human_released().await?;
            back(stage).await?;
        }
        Scenario::Voicemail => {
            tokio::time::sleep(REACH).await;
            pick_up(stage, dialog);
            stage.say("a machine answers, and speaks");
            stage.human_says("human.voicemail").await?;
            stage.whisper_ended().await?;
            stage.say("the machine has no key to press");
            stage.human_released().await?;
            back(stage).await?;
        }
        Scenario::CallerHangsUp => {
            held(stage).await?;
            tokio::time::sleep(REACH).await;
            hang_up(stage);
            stage.human_released().await?;
            stage.say("the human agent's phone stops ringing");
            return stage.finished().await;
        }
    }
    hang_up(stage);
    stage.finished().await
}

/// The call is answered, and the disclosure is heard.
async fn opening(stage: &mut Stage) -> Result<()> {
    stage.say("the caller dials");
    stage.dial();
    stage.caller_event(|event| matches!(event, SipEvent::Answered(..))).await?;
    stage.say("the edge answers; the disclosure plays");
    stage.voice_agent_started().await?;
    stage.disclosed().await
}

/// The voice agent does what it is there for.
async fn small_talk(stage: &mut Stage) -> Result<()> {
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
    stage.voice_agent_says("agent.refill_done").await
}

/// The question that the policy reserves for people, whatever the confidence.
async fn question(stage: &mut Stage) -> Result<()> {
    let understood = json!({"topic": "medication", "confidence": 0.97, "regulated": true});
    stage.caller_says("caller.medication_question", understood).await
}

/// The human agent's side, as it happens: page first, then the phone.
async fn rings(stage: &mut Stage) -> Result<(String, DialogKey)> {
    let transfer = stage.card_shown().await?;
    let dialog = stage.human_rings().await?;
    stage.say("the human agent's phone rings; the card is on the screen");
    Ok((transfer, dialog))
}

/// The message is over and the caller is put on hold.
async fn held(stage: &mut Stage) -> Result<()> {
    stage.caller_directed(Direction::RecvOnly).await?;
    stage.say("a re-INVITE puts the caller on hold; the music plays");
    Ok(())
}

fn pick_up(stage: &Stage, dialog: DialogKey) {
    let local = stage.human.local();
    stage.human.order(PhoneOrder::Sip(SipCommand::Answer(dialog, local)));
}

async fn answered(stage: &mut Stage, dialog: DialogKey) -> Result<()> {
    tokio::time::sleep(REACH).await;
    pick_up(stage, dialog);
    stage.say("the human agent answers and hears the whisper");
    stage.caller_directed(Direction::SendRecv).await?;
    stage.say("a re-INVITE takes the caller back, before the bridge needs it");
    stage.whisper_ended().await
}

async fn accepted(stage: &mut Stage, transfer: &str) -> Result<()> {
    stage.human.order(PhoneOrder::Press('1'));
    stage.say("the human agent presses 1");
    stage.bridged(transfer).await?;
    stage.say("connected");
    Ok(())
}

/// The caller has been helped.
async fn thanks(stage: &mut Stage) -> Result<()> {
    stage.caller_says("caller.thanks", json!({})).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Nobody took the call: the caller is told so, and has the voice agent again.
async fn back(stage: &mut Stage) -> Result<()> {
    stage.returned().await?;
    stage.say("the caller is told, and goes back to the voice agent");
    stage.voice_agent_told("failed").await
}

fn hang_up(stage: &Stage) {
    stage.say("the caller hangs up");
    stage.caller.order(PhoneOrder::Sip(SipCommand::HangUp(CALLER_DIALOG, LegCause::LocalHangUp)));
}
