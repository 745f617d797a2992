//! The whole grid, state by input, as a file: a pair that starts to be ignored, or stops
//! being ignored, is seen in review.

use expect_test::expect_file;

use super::scenarios::STATES;
use super::*;
use crate::id::DestinationId;

/// One input of every kind, as it would fit the bench's call.
fn inputs(bench: &Bench) -> Vec<(&'static str, Input)> {
    let transfer = bench.transfer();
    let epoch = bench.plan.as_ref().map_or(Epoch(0), |plan| plan.epoch);
    let agent = || person("ann");
    let caller = LegId::CALLER;
    let voice = LegId::VOICE_AGENT;
    let command =
        |id: &str, body| Input::Command(Command { id: id.to_owned(), call_id: CallId::from_random(7), body });
    let ended = |leg, cause| Input::Ended { leg, cause, status: None };
    let mut inputs = vec![
        ("caller answered", Input::Answered { leg: caller }),
        ("voice agent answered", Input::Answered { leg: voice }),
        ("phone rings", Input::Ringing { leg: HUMAN }),
        ("phone answered", Input::Answered { leg: HUMAN }),
        ("caller hangs up", ended(caller, LegCause::RemoteHangUp)),
        ("voice agent leaves", ended(voice, LegCause::RemoteHangUp)),
        ("voice agent lost", ended(voice, LegCause::Lost)),
        ("human hangs up", ended(HUMAN, LegCause::RemoteHangUp)),
        ("human lost", ended(HUMAN, LegCause::Lost)),
        ("human busy", ended(HUMAN, LegCause::Busy)),
        ("hold done", Input::HoldDone { leg: caller, ok: true }),
        ("hold refused", Input::HoldDone { leg: caller, ok: false }),
        ("human holds", Input::PeerHold { leg: HUMAN, held: true }),
        ("signal: request", request("sig_grid")),
        (
            "signal: cancel",
            Input::Signal(Signal {
                id: "sig_back".to_owned(),
                at_ms: None,
                body: SignalBody::TransferCancel,
            }),
        ),
        ("decided: next", command("g1", CommandBody::TransferDecided { decision: bench.decision() })),
        (
            "payload ready",
            command(
                "g2",
                CommandBody::PayloadReady {
                    transfer_id: transfer.clone(),
                    payload: Box::new(brief::tests::revision(2)),
                },
            ),
        ),
        (
            "payload undelivered",
            command(
                "g3",
                CommandBody::PayloadUndelivered {
                    transfer_id: transfer.clone(),
                    destination: DestinationId::parse("crm").unwrap().to_string(),
                },
            ),
        ),
        ("cancel", command("g4", CommandBody::TransferCancel { transfer_id: transfer.clone() })),
        ("target found", Input::TargetFound { target: target("bob"), estimate_s: Some(10) }),
        ("nobody available", Input::NobodyAvailable),
        ("desktop acked", Input::DesktopAcked { agent: agent(), transfer: transfer.clone(), revision: 1 }),
        ("accept", Input::Accept { agent: agent(), transfer: transfer.clone(), means: Means::Ui }),
        (
            "decline",
            Input::Decline { agent: agent(), transfer, means: Means::Ui, reason: DeclineReason::Declined },
        ),
        ("hand back", Input::HandBack { agent: agent() }),
        ("applied", Input::Media(MediaReport::Applied { epoch, egress: caller })),
        ("caller key 0", Input::Media(MediaReport::Digit { leg: caller, digit: '0' })),
        ("caller key 1", Input::Media(MediaReport::Digit { leg: caller, digit: '1' })),
        ("caller key 2", Input::Media(MediaReport::Digit { leg: caller, digit: '2' })),
        ("caller key *", Input::Media(MediaReport::Digit { leg: caller, digit: '*' })),
        ("human key 1", Input::Media(MediaReport::Digit { leg: HUMAN, digit: '1' })),
        ("human key 2", Input::Media(MediaReport::Digit { leg: HUMAN, digit: '2' })),
        ("first rtp", Input::Media(MediaReport::FirstRtp { leg: caller })),
        ("audio seen", Input::Media(MediaReport::AudioSeen { leg: caller, epoch })),
        ("caller silent", Input::Media(MediaReport::SourceLost { leg: caller })),
        ("human silent", Input::Media(MediaReport::SourceLost { leg: HUMAN })),
        ("human back", Input::Media(MediaReport::SourceBack { leg: HUMAN })),
        ("caller speaks", Input::Media(MediaReport::Spoke { leg: caller })),
        ("caller says nothing more", Input::Media(MediaReport::Quiet { leg: caller })),
        ("drained", Input::Media(MediaReport::Drained { leg: voice })),
        (
            "recording stored",
            Input::RecordingStored {
                leg: voice,
                recording: StoredRecording {
                    pieces: 2,
                    duration_ms: 12_000,
                    lost_ms: 0,
                    sha256: "0".repeat(64),
                },
            },
        ),
        ("drain", Input::Drain),
        ("stale timeout", Input::Timeout),
    ];
    for (name, leg) in [("prompt to caller played", caller), ("prompt to human played", HUMAN)] {
        if let Some(play) = bench.play_at(leg) {
            inputs.push((name, Input::Media(MediaReport::PlayEnded { play, played_pm: 1_000 })));
        }
    }
    inputs
}

fn state_of(bench: &Bench) -> String {
    let standing = bench.call.standing();
    standing
        .phase
        .map_or_else(|| standing.state.to_owned(), |phase| format!("{}/{}", standing.state, phase.as_str()))
}

#[test]
fn the_whole_grid() {
    let mut grid = String::new();
    for (name, reach) in STATES {
        let bench = reach();
        let from = state_of(&bench);
        grid.push_str(&format!("\n== {name} ({from})\n"));
        for (column, (input_name, _)) in inputs(&bench).iter().enumerate() {
            // A fresh bench per cell: a call cannot be copied, on purpose.
            let mut cell = reach();
            let (_, input) = inputs(&cell).swap_remove(column);
            cell.put(input);
            let (outputs, to) = (names(&cell.last).join(" "), state_of(&cell));
            let line = match (outputs.is_empty(), to == from) {
                (true, true) => format!("{input_name}: .\n"),
                (_, true) => format!("{input_name}: {outputs}\n"),
                (_, false) => format!("{input_name}: {outputs} => {to}\n"),
            };
            grid.push_str(&line);
        }
        let mut cell = reach();
        if let Some(due) = cell.call.next_timeout() {
            cell.at(due.micros().div_ceil(1_000)).put(Input::Timeout);
            let (outputs, to) = (names(&cell.last).join(" "), state_of(&cell));
            grid.push_str(&format!("timeout: {outputs} => {to}\n"));
        }
    }
    expect_file!["grid.txt"].assert_eq(&grid);
}
