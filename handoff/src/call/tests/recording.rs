//! Recordings: they know nothing of transfers, and their digests are among the last facts.

use super::*;

#[test]
fn a_recording_spans_a_transfer_that_failed() {
    let mut bench = Bench::returned();
    assert_eq!(bench.outcome().map(|end| end.0), Some(Outcome::Busy));
    let of_caller = |bench: &Bench| {
        let recorded = |output: &&Output| matches!(output, Output::Record { leg: LegId::CALLER, .. });
        bench.all.iter().filter(recorded).cloned().collect::<Vec<_>>()
    };
    bench.after(3_000).played(LegId::CALLER).run(20_000);
    assert_eq!(of_caller(&bench), [Output::Record { leg: LegId::CALLER, on: true }]);
    bench.ended(LegId::CALLER, LegCause::RemoteHangUp).all_legs_end().balanced();
    assert_eq!(bench.count("recording.stored"), bench.count("recording.started"));
}

#[test]
fn the_last_facts_wait_for_the_recordings_and_not_for_ever() {
    let recording = StoredRecording { pieces: 3, duration_ms: 9, lost_ms: 0, sha256: String::new() };
    let ended = || {
        let mut bench = Bench::talking();
        bench.recorder = false;
        bench.after(1_000).ended(LegId::CALLER, LegCause::RemoteHangUp).all_legs_end();
        assert!(!bench.call.is_finished());
        bench
    };
    let mut bench = ended();
    bench.put(Input::RecordingStored { leg: LegId::CALLER, recording: recording.clone() });
    assert!(!bench.call.is_finished());
    bench.put(Input::RecordingStored { leg: LegId::VOICE_AGENT, recording });
    bench.balanced();
    assert_eq!(bench.count("recording.stored"), 2);
    let mut bench = ended();
    bench.run(2_999);
    assert!(!bench.call.is_finished());
    bench.run(1).balanced();
    assert_eq!(bench.count("recording.stored"), 0);
}
