//! Every target on its corpus and on a fixed number of mutations; the same inputs every time.

use crate::harness::{Campaign, Target};
use crate::targets;

/// Inputs for each target: what an unoptimised build does in some seconds. The program of the
/// same name runs longer, with other seeds.
const RUNS: u64 = 1_500;

fn holds(target: &'static Target) {
    let mut campaign = Campaign::new(target, 1);
    while campaign.runs() < RUNS {
        let input = campaign.next();
        if let Err(finding) = campaign.run(input) {
            panic!("{}: this input breaks it: {}", target.name, finding.input.escape_ascii());
        }
    }
}

macro_rules! targets {
    ($($test:ident: $target:expr,)+) => {
        $(#[test]
        fn $test() {
            holds(&$target);
        })+

        #[test]
        fn every_target_is_tested() {
            let tested = [$($target.name),+];
            let known: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
            assert_eq!(tested.as_slice(), known);
        }
    };
}

targets! {
    hostile_sip_breaks_nothing: targets::sip::TARGET,
    hostile_session_descriptions_break_nothing: targets::sdp::TARGET,
    hostile_rtp_and_rtcp_break_nothing: targets::rtp::TARGET,
    hostile_voice_agent_frames_break_nothing: targets::stream::TARGET,
    hostile_signals_break_nothing: targets::signal::TARGET,
    hostile_http_breaks_nothing: targets::http::TARGET,
    hostile_desktop_pages_break_nothing: targets::desktop::TARGET,
    hostile_configurations_break_nothing: targets::config::TARGET,
    hostile_policies_break_nothing: targets::policy::TARGET,
    hostile_events_and_commands_break_nothing: targets::event::TARGET,
    hostile_audit_bundles_break_nothing: targets::audit::TARGET,
}
