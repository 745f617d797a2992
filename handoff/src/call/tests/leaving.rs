//! Who leaves, who stays: legs that fall silent, and people who go after the bridge.

use super::*;

/// The caller's audio stops and never comes back.
fn falls_silent(bench: &mut Bench, leg: LegId) {
    bench.after(40).media(MediaReport::SourceLost { leg });
}

#[test]
fn a_caller_from_whom_nothing_comes_is_given_up_after_the_set_time() {
    for mut bench in [Bench::disclosing(), Bench::talking(), Bench::announcing(), Bench::bridged()] {
        if bench.call.standing().state == "disclosing" {
            bench.answered(LegId::VOICE_AGENT);
        }
        let state = bench.call.standing().state;
        falls_silent(&mut bench, LegId::CALLER);
        let fell = bench.now_ms;
        bench.run(500).report_cut();
        // The message of a transfer ends meanwhile; with a re-INVITE that would be a hold.
        bench.run_to(fell + 19_999);
        assert!(bench.call.core.legs.is_up(LegId::CALLER), "{state}: too early");
        bench.run_to(fell + 20_000);
        assert!(bench.has("HangUp(leg-0 Lost)"), "{state}: {:?}", names(&bench.last));
        bench.report_cut().run(6_000).all_legs_end();
        bench.balanced();
    }
}

#[test]
fn a_caller_who_is_heard_again_is_not_given_up() {
    let mut bench = Bench::talking();
    falls_silent(&mut bench, LegId::CALLER);
    bench.run(19_000).media(MediaReport::SourceBack { leg: LegId::CALLER });
    bench.run(60_000);
    assert!(bench.call.core.legs.is_up(LegId::CALLER));
}

#[test]
fn a_held_caller_may_be_silent_for_ten_minutes() {
    let mut bench = Bench::talking();
    falls_silent(&mut bench, LegId::CALLER);
    bench.put(Input::PeerHold { leg: LegId::CALLER, held: true });
    bench.run(600_000);
    assert!(bench.call.core.legs.is_up(LegId::CALLER));
    bench.put(Input::PeerHold { leg: LegId::CALLER, held: false });
    bench.run(20_000);
    assert!(!bench.call.core.legs.is_up(LegId::CALLER), "taken back, and still silent");

    // Our own hold, which begins while the caller is silent.
    let mut bench = Bench::draining();
    bench.find(Target { ring_timeout: Duration::from_secs(60), ..target("ann") });
    bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    falls_silent(&mut bench, LegId::CALLER);
    bench.run(5_000).played(LegId::CALLER).run(25_000);
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
    assert!(bench.call.core.legs.is_up(LegId::CALLER));
}

#[test]
fn a_person_whose_phone_falls_silent_is_covered_by_music_and_then_replaced() {
    let mut bench = Bench::bridged();
    bench.flows(HUMAN).run(10_000);
    falls_silent(&mut bench, HUMAN);
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
    bench.run(20_000);
    assert!(bench.has("HangUp(leg-2 Lost)") && bench.has("FindTarget(-1)"), "{:?}", names(&bench.last));
    assert_eq!(bench.hears(LegId::CALLER), "apology.en");
    // The end of the silent leg, confirmed, changes nothing any more.
    bench.ended(HUMAN, LegCause::Lost);
    assert_eq!(bench.call.standing().phase, Some(Phase::Announcing));
}

#[test]
fn a_person_lost_in_whisper_or_barrier_reopens_the_offer() {
    for (mut bench, phase) in [(Bench::briefing(), Phase::Briefing), (Bench::barrier(), Phase::Barrier)] {
        bench.after(20).ended(HUMAN, LegCause::Lost);
        assert!(bench.has("FindTarget(-1)"));
        assert_eq!(bench.hears(LegId::CALLER), "hold bed");
        bench.find(target("bob"));
        let next = LegId(HUMAN.0 + 1);
        bench.after(500).answered(next).after(2_000).key(next, '1').report_cut().acked("bob", 1);
        assert_eq!(bench.hears(LegId::CALLER), next.to_string());
        let lost = bench
            .facts()
            .into_iter()
            .any(|fact| matches!(fact, Fact::AgentDeclined { reason: DeclineReason::Lost, .. }));
        assert!(lost, "{phase:?}");
    }
}

#[test]
fn a_person_lost_after_the_bridge_is_replaced_after_an_apology() {
    let mut bench = Bench::bridged();
    bench.flows(HUMAN).run(10_000).ended(HUMAN, LegCause::Lost);
    assert_eq!(bench.hears(LegId::CALLER), "apology.en");
    assert!(bench.has("FindTarget(-1)") && bench.has("PublishDecision"));
    assert_eq!(bench.count("transfer.decided"), 2);
    bench.find(target("bob"));
    let next = LegId(HUMAN.0 + 1);
    bench.after(3_000).played(LegId::CALLER).after(500).answered(next);
    bench.after(2_000).key(next, '1').report_cut().acked("bob", 1);
    assert_eq!(bench.hears(LegId::CALLER), next.to_string());
}

#[test]
fn a_person_who_hangs_up_after_the_bridge_has_ended_the_call() {
    let mut bench = Bench::bridged();
    bench.flows(HUMAN).run(10_000).ended(HUMAN, LegCause::RemoteHangUp);
    assert!(bench.has("HangUp(leg-0 LocalHangUp)"));
    bench.all_legs_end().balanced();
}

#[test]
fn a_silent_or_held_human_leg_never_leaves_the_caller_in_silence() {
    let mut bench = Bench::bridged();
    bench.flows(HUMAN).media(MediaReport::SourceLost { leg: HUMAN });
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
    bench.media(MediaReport::SourceBack { leg: HUMAN });
    assert_eq!(bench.hears(LegId::CALLER), HUMAN.to_string());
    bench.put(Input::PeerHold { leg: HUMAN, held: true });
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
}

/// A call of these rules, bridged for ten seconds.
fn bridged_with(bye: Survivor, lost: Survivor) -> Bench {
    let mut rules = rules();
    for queue in &mut rules.queues {
        (queue.on_agent_bye, queue.on_agent_lost) = (bye, lost);
    }
    let mut bench = Bench::talking_with(rules);
    bench.at(20_000).decide().find(target("ann"));
    bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    bench.run(6_000).played(LegId::CALLER).run(2_000).answered(HUMAN);
    bench.run(4_000).played(HUMAN).after(1_000).key(HUMAN, '1').after(30).acked("ann", 1);
    bench.flows(HUMAN).ended(LegId::VOICE_AGENT, LegCause::LocalHangUp).run(10_000);
    bench
}

#[test]
fn the_queue_says_where_the_caller_goes_when_a_person_goes_after_the_bridge() {
    let ways = [
        (Survivor::End, "-", "HangUp(leg-0 LocalHangUp)"),
        (Survivor::Reoffer, "apology.en", "FindTarget(-1)"),
        (Survivor::VoiceAgent, "apology.en", "ConnectVoiceAgent(leg-3)"),
        (Survivor::Closing, "closing.en", "Media"),
    ];
    for (survivor, hears, orders) in ways {
        for cause in [LegCause::RemoteHangUp, LegCause::Lost] {
            let (bye, lost) = match cause {
                LegCause::RemoteHangUp => (survivor, Survivor::End),
                _ => (Survivor::End, survivor),
            };
            let mut bench = bridged_with(bye, lost);
            bench.ended(HUMAN, cause);
            assert_eq!(bench.hears(LegId::CALLER), hears, "{survivor:?} after {cause:?}");
            assert!(bench.has(orders), "{survivor:?} after {cause:?}: {:?}", names(&bench.last));
            bench.ended(LegId::CALLER, LegCause::RemoteHangUp).report_cut().all_legs_end().balanced();
        }
    }
}

#[test]
fn a_person_lost_before_the_bridge_has_proven_itself_is_no_completed_transfer() {
    for (survivor, taken) in
        [(Survivor::VoiceAgent, FallbackTaken::VoiceAgent), (Survivor::Closing, FallbackTaken::Closing)]
    {
        let mut rules = rules();
        rules.queues[0].on_agent_lost = survivor;
        let mut bench = Bench::talking_with(rules);
        bench.at(20_000).decide().find(target("ann"));
        bench
            .after(200)
            .media(MediaReport::Drained { leg: LegId::VOICE_AGENT })
            .after(5_000)
            .played(LegId::CALLER);
        bench.after(100).answered(HUMAN).after(4_000).played(HUMAN).key(HUMAN, '1').acked("ann", 1);
        bench.after(100).ended(HUMAN, LegCause::Lost);
        assert_eq!(bench.outcome(), Some((Outcome::AgentLost { phase: Phase::Bridged }, taken)));
    }
}

#[test]
fn a_caller_who_came_back_hears_the_voice_agent_as_soon_as_it_is_there() {
    let mut bench = bridged_with(Survivor::VoiceAgent, Survivor::VoiceAgent);
    bench.ended(HUMAN, LegCause::Lost).after(300).answered(LegId(3));
    bench.after(3_000).played(LegId::CALLER);
    assert_eq!(bench.hears(LegId::CALLER), "leg-3");
    assert_eq!(bench.hears(LegId(3)), "leg-0");
}

#[test]
fn a_waiting_caller_is_overheard_only_where_that_was_chosen_and_calls_it_off_in_words() {
    let mut rules = rules();
    rules.cancel_while_waiting = true;
    rules.hold_by_reinvite = false;
    let mut bench = Bench::talking_with(rules);
    bench.at(20_000).decide().find(target("ann"));
    bench
        .after(200)
        .media(MediaReport::Drained { leg: LegId::VOICE_AGENT })
        .after(5_000)
        .played(LegId::CALLER);
    assert_eq!(
        (bench.hears(LegId::CALLER), bench.hears(LegId::VOICE_AGENT)),
        ("hold bed".into(), "leg-0".into())
    );
    let word = SignalBody::TransferCancel;
    bench.after(900).put(Input::Signal(Signal { id: "sig_word".to_owned(), at_ms: None, body: word }));
    assert_eq!(bench.outcome(), Some((Outcome::Cancelled, FallbackTaken::None)));
    assert_eq!(bench.hears(LegId::CALLER), "leg-1");
    assert_eq!(Bench::offering().hears(LegId::VOICE_AGENT), "silence");
}

#[test]
fn by_a_silent_link_nobody_is_heard_and_the_caller_hears_music_until_it_speaks_again() {
    let voice = LegId::VOICE_AGENT;
    let mut bench = Bench::talking();
    bench.media(MediaReport::SourceLost { leg: voice });
    assert_eq!((bench.hears(LegId::CALLER), bench.hears(voice)), ("hold bed".to_owned(), "leg-0".to_owned()));
    bench.media(MediaReport::SourceBack { leg: voice });
    assert_eq!(bench.hears(LegId::CALLER), "leg-1");
    // The next link begins anew, whatever the one before did.
    bench.media(MediaReport::SourceLost { leg: voice }).ended(voice, LegCause::Lost);
    let next = *bench.call.core.legs.ids().last().unwrap();
    bench.answered(next);
    assert_eq!(bench.hears(LegId::CALLER), next.to_string());
}
