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
pub mod recorded;
pub mod report;
pub mod scenario;
pub mod stage;
pub mod timeline;
pub mod voice_agent;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::{DemoArguments, print_line};
use crate::demo::report::Check;
use crate::demo::stage::Stage;

/// Plays the scenario, prints what happens, and says with its exit code whether the call
/// went as it should.
pub async fn run(options: DemoArguments) -> Result<ExitCode> {
    let plan = scenario::plan(options.scenario);
    let stack = options.stack.clone().zip(options.media_bucket.clone());
    let mut stage = Stage::set(options.data.clone(), &plan, stack).await?;
    if options.open {
        stage.open_page();
    }
    let played = tokio::time::timeout(plan.longest, scenario::play(&mut stage, options.scenario)).await;
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
    let checks = report.checks(&plan.expected, whisper_found);
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
