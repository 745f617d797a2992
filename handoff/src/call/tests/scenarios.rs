//! Whole calls and single turns of them, each named for what must hold.

use super::*;

#[test]
fn the_happy_path_is_one_warm_transfer_from_start_to_end() {
    let mut bench = Bench::bridged();
    let bridge = names(&bench.last);
    assert_eq!(
        bridge,
        [
            "screenpop.acked",
            "bridge.completed",
            "hold.ended",
            "Desktop(bridged)",
            "Tell(connected)",
            "ai.released",
            "HangUp(leg-1 LocalHangUp)",
            "Learn(13)",
            "recording.stopped",
            "Media"
        ]
    );
    bench.after(5).flows(HUMAN);
    assert_eq!(bench.outcome(), Some((Outcome::Completed, FallbackTaken::None)));
    bench.ended(LegId::VOICE_AGENT, LegCause::LocalHangUp);
    bench.run(60_000).ended(LegId::CALLER, LegCause::RemoteHangUp);
    assert_eq!(bench.hears(HUMAN), "-");
    bench.ended(HUMAN, LegCause::LocalHangUp);
    assert!(bench.call.is_finished());
    let facts: Vec<_> = bench.facts().into_iter().map(fact_name).collect();
    assert_eq!(
        facts,
        [
            "call.received",
            "leg.opened",
            "leg.opened",
            "disclosure.ai_identity",
            "consent.recording",
            "recording.started",
            "recording.started",
            "transfer.decided",
            "leg.opened",
            "agent.offered",
            "agent.ringing",
            "payload.built",
            "transition.played",
            "hold.started",
            "agent.answered",
            "whisper.started",
            "recording.started",
            "whisper.ended",
            "agent.accepted",
            "screenpop.acked",
            "bridge.completed",
            "hold.ended",
            "ai.released",
            "recording.stopped",
            "transfer.ended",
            "leg.closed",
            "recording.stopped",
            "leg.closed",
            "recording.stopped",
            "leg.closed",
            "call.ended",
            "producer.final"
        ]
    );
}
