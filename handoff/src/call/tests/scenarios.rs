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
            "Record(leg-1 off)",
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
            "recording.stored",
            "recording.stopped",
            "leg.closed",
            "recording.stopped",
            "recording.stored",
            "leg.closed",
            "recording.stored",
            "call.ended",
            "producer.final"
        ]
    );
}

/// How to get to a state.
type Reach = fn() -> Bench;

/// Every state, by name.
pub(super) const STATES: [(&str, Reach); 18] = [
    ("arriving", Bench::new),
    ("disclosing", Bench::disclosing),
    ("talking", Bench::talking),
    ("expecting", Bench::expecting),
    ("draining", Bench::draining),
    ("calling", Bench::calling),
    ("announcing", Bench::announcing),
    ("offering", Bench::offering),
    ("proving", Bench::proving),
    ("briefing", Bench::briefing),
    ("barrier", Bench::barrier),
    ("bridged", Bench::bridged),
    ("returned", Bench::returned),
    ("inviting", Bench::inviting),
    ("recording", Bench::recording),
    ("asking", Bench::asking),
    ("closing", Bench::closing),
    ("farewell", Bench::farewell),
];

fn states() -> Vec<(&'static str, Bench)> {
    STATES.into_iter().map(|(name, reach)| (name, reach())).collect()
}

#[test]
fn who_hears_whom() {
    let mut table = String::new();
    for (name, bench) in states() {
        let (caller, agent, human) =
            (bench.hears(LegId::CALLER), bench.hears(LegId::VOICE_AGENT), bench.hears(HUMAN));
        let line = format!("{name}: caller < {caller} | voice agent < {agent} | human < {human}\n");
        table.push_str(&line);
    }
    expect_test::expect![[r#"
        arriving: caller < - | voice agent < - | human < -
        disclosing: caller < disclosure.ai_recording.en | voice agent < - | human < -
        talking: caller < leg-1 | voice agent < leg-0 | human < -
        expecting: caller < leg-1 | voice agent < leg-0 | human < -
        draining: caller < leg-1 | voice agent < leg-0 | human < -
        calling: caller < leg-1 | voice agent < leg-0 | human < -
        announcing: caller < reason.caller_request.en+dest.nurse.en+time.20.en | voice agent < leg-0 | human < -
        offering: caller < hold bed | voice agent < silence | human < -
        proving: caller < hold bed | voice agent < silence | human < presence.en
        briefing: caller < hold bed | voice agent < silence | human < say+press_to_accept.en
        barrier: caller < hold bed | voice agent < silence | human < connecting.en
        bridged: caller < leg-2 | voice agent < - | human < leg-0
        returned: caller < returning.en | voice agent < leg-0 | human < -
        inviting: caller < voicemail.en+message_tone | voice agent < silence | human < -
        recording: caller < comfort noise | voice agent < silence | human < -
        asking: caller < callback.en | voice agent < silence | human < -
        closing: caller < closing.en | voice agent < - | human < -
        farewell: caller < - | voice agent < - | human < caller_left.en
    "#]].assert_eq(&table);
}

#[test]
fn every_state_has_a_deadline_and_its_exit_is_reached_by_timeouts_alone() {
    for (name, mut bench) in states() {
        assert!(bench.call.next_timeout().is_some(), "{name} waits for ever");
        // The world is dead: nothing is ever answered, nothing is reported.
        for _ in 0..1_000 {
            let Some(due) = bench.call.next_timeout() else { break };
            let due = due.micros().div_ceil(1_000);
            bench.run_to(due);
        }
        bench.report_cut();
        bench.balanced();
    }
}

#[test]
fn an_early_or_stale_timeout_does_nothing() {
    for (name, mut bench) in states() {
        bench.put(Input::Timeout);
        assert_eq!(names(&bench.last), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_caller_may_leave_in_any_state_and_every_leg_is_ended_at_once() {
    for cause in [LegCause::RemoteHangUp, LegCause::Lost] {
        for (name, mut bench) in states().into_iter().filter(|(name, _)| *name != "farewell") {
            let open = bench.call.core.legs.ids();
            bench.after(40).ended(LegId::CALLER, cause);
            let briefed = matches!(name, "proving" | "briefing" | "barrier");
            for leg in open {
                let told = briefed && leg == HUMAN || leg == LegId::CALLER;
                assert!(told || !bench.call.core.legs.is_up(leg), "{name}: {leg} goes on");
            }
            if briefed {
                assert_eq!(bench.hears(HUMAN), "caller_left.en", "{name}");
                bench.report_cut().played(HUMAN);
                assert!(bench.has("HangUp(leg-2 LocalHangUp)"), "{name}: {:?}", names(&bench.last));
            }
            bench.report_cut().all_legs_end();
            bench.balanced();
            let transferring = matches!(
                name,
                "draining" | "calling" | "announcing" | "offering" | "proving" | "briefing" | "barrier"
            );
            assert_eq!(bench.count("caller.abandoned"), usize::from(transferring), "{name}");
            if transferring {
                assert!(matches!(bench.outcome(), Some((Outcome::AbandonedByCaller { .. }, _))), "{name}");
            }
        }
    }
}

#[test]
fn a_drain_ends_the_call_in_any_state() {
    for (name, mut bench) in states() {
        bench.after(40).put(Input::Drain);
        assert_eq!(bench.call.core.legs.ids().iter().find(|leg| bench.call.core.legs.is_up(**leg)), None);
        bench.report_cut().all_legs_end();
        bench.balanced();
        let drained = bench
            .facts()
            .into_iter()
            .any(|fact| matches!(fact, Fact::CallEnded { cause, .. } if cause == "drained"));
        assert_eq!(drained, name != "farewell", "{name}");
    }
}

#[test]
fn the_phone_is_dialled_before_the_message_begins_and_after_the_desktop_was_told() {
    let bench = Bench::calling();
    assert_eq!(names(&bench.last), ["leg.opened", "agent.offered", "Desktop(incoming)", "Invite(leg-2 ann)"]);
    assert_eq!(bench.hears(LegId::CALLER), "leg-1", "the voice agent still drains");
}

#[test]
fn queued_speech_is_cut_after_its_time_and_the_message_starts() {
    let mut bench = Bench::calling();
    bench.run(2_999);
    assert_eq!(bench.hears(LegId::CALLER), "leg-1");
    bench.run(1);
    assert!(bench.has("Clear"));
    assert_eq!(bench.hears(LegId::CALLER), "reason.caller_request.en+dest.nurse.en+time.20.en");
}

#[test]
fn a_safety_decision_waits_for_neither_disclosure_nor_speech() {
    for mut bench in [Bench::disclosing(), Bench::talking()] {
        let disclosed = bench.count("disclosure.ai_identity") == 1;
        let mut decision = bench.decision();
        decision.trigger.category = Category::Safety;
        decision.trigger.waives_waits = true;
        bench.after(10).command(CommandBody::TransferDecided { decision });
        assert_eq!(bench.hears(LegId::CALLER), "reason.safety.en+dest.nurse.en+time.30.en");
        let flagged = bench.facts().into_iter().any(
            |fact| matches!(fact, Fact::TransferDecided { disclosed: heard, .. } if *heard == disclosed),
        );
        assert!(flagged);
    }
}

#[test]
fn any_other_decision_waits_for_the_disclosure() {
    let mut bench = Bench::disclosing();
    bench.after(10).decide();
    assert_eq!(names(&bench.last), Vec::<String>::new());
    bench.after(4_000).played(LegId::CALLER);
    assert!(bench.has("transfer.decided"));
}

#[test]
fn a_disclosure_that_was_cut_is_played_once_more_before_the_decision() {
    for played_pm in [100, 300, 990] {
        let mut bench = Bench::disclosing();
        bench.after(10).decide();
        let play = bench.play_at(LegId::CALLER).unwrap();
        bench.after(1_000).media(MediaReport::PlayEnded { play, played_pm });
        assert_eq!(names(&bench.last), ["disclosure.ai_identity", "Media"], "{played_pm}");
        assert_ne!(bench.play_at(LegId::CALLER), Some(play));
        let again = bench.play_at(LegId::CALLER).unwrap();
        bench.after(1_000).media(MediaReport::PlayEnded { play: again, played_pm });
        let flagged = facts(&bench.last)
            .into_iter()
            .any(|fact| matches!(fact, Fact::TransferDecided { disclosed: false, .. }));
        assert!(flagged, "a hand-off without a whole disclosure is flagged");
    }
}

#[test]
fn the_edge_decides_after_its_deadline_and_not_before() {
    let mut bench = Bench::expecting();
    bench.run(799);
    assert_eq!(bench.count("transfer.decided"), 0);
    bench.run(1);
    let mut last = names(&bench.last);
    last.truncate(6);
    assert_eq!(
        last,
        [
            "trigger.evaluated",
            "transfer.decided",
            "PublishDecision",
            "Tell(accepted)",
            "FindTarget(-0)",
            "payload.built"
        ]
    );
}

#[test]
fn many_triggers_make_one_decision_and_late_ones_join_it() {
    let mut bench = Bench::expecting();
    let late = bench.decision();
    bench.after(100).put(request("sig_2")).put(request("sig_2")).put(request("sig_3"));
    bench.after(100).decide();
    bench.put(request("sig_4"));
    bench.after(100).command(CommandBody::TransferDecided { decision: late.clone() });
    assert_eq!(names(&bench.last), Vec::<String>::new(), "it joins");
    bench.run(5_000);
    assert_eq!(bench.count("transfer.decided"), 1);
    assert_eq!(bench.count("signal.received"), 4, "a repeated signal adds nothing");
}

#[test]
fn a_repeated_command_has_no_second_effect_and_a_stale_one_is_refused() {
    let mut bench = Bench::talking();
    let decision = bench.decision();
    let body = CommandBody::TransferDecided { decision };
    let command = Command { id: "cmd_x".to_owned(), call_id: CallId::from_random(7), body };
    bench.put(Input::Command(command.clone()));
    assert!(bench.has("transfer.decided"));
    bench.put(Input::Command(command.clone()));
    assert_eq!(names(&bench.last), Vec::<String>::new());
    bench.put(Input::NobodyAvailable).played(LegId::CALLER);
    let body = command.body.clone();
    bench.command(body);
    assert_eq!(names(&bench.last), ["command.rejected"]);
    bench.put(Input::Command(command));
    assert_eq!(names(&bench.last), Vec::<String>::new(), "delivered late once more: known by its id");
}

#[test]
fn the_payload_comes_from_the_functions_or_after_its_deadline_from_the_edge() {
    let mut bench = Bench::calling();
    bench.run(799);
    assert_eq!(bench.count("payload.built"), 0);
    bench.run(1);
    assert_eq!(bench.count("payload.built"), 1);
    assert!(bench.has("Desktop(card)"));
    let transfer_id = bench.transfer();
    let payload = |revision| Box::new(brief::tests::revision(revision));
    bench.command(CommandBody::PayloadReady { transfer_id: transfer_id.clone(), payload: payload(2) });
    assert_eq!(names(&bench.last), ["Desktop(card)"]);
    bench.command(CommandBody::PayloadReady { transfer_id: transfer_id.clone(), payload: payload(2) });
    assert_eq!(names(&bench.last), ["command.rejected"], "not higher");
    bench.after(300).media(MediaReport::Drained { leg: LegId::VOICE_AGENT }).answered(HUMAN);
    bench.after(500).key(HUMAN, '1');
    bench.command(CommandBody::PayloadReady { transfer_id, payload: payload(3) });
    assert_eq!(names(&bench.last), ["command.rejected"], "frozen at accept");
}

#[test]
fn a_phone_that_is_not_answered_is_cancelled_in_time_and_the_next_one_rings() {
    for ring_s in [5, 20, 60] {
        let mut bench = Bench::draining();
        bench.find(Target { ring_timeout: Duration::from_secs(ring_s), ..target("ann") });
        bench.after(10).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
        bench.after(1_000).played(LegId::CALLER);
        bench.run_to(20_000 + ring_s * 1_000 - 1);
        assert_eq!(bench.count("agent.no_answer"), 0, "{ring_s}");
        bench.run(1);
        assert_eq!(
            names(&bench.last).into_iter().filter(|name| name != "Media").collect::<Vec<_>>(),
            ["agent.no_answer", "HangUp(leg-2 NoAnswer)", "Desktop(no_answer)", "FindTarget(-1)"],
            "{ring_s}"
        );
        bench.after(5).answered(HUMAN);
        assert_eq!(names(&bench.last), ["HangUp(leg-2 Cancelled)"], "the late answer is ended again");
        bench.find(target("bob")).ended(HUMAN, LegCause::Cancelled).run(ring_s.max(25) * 1_000);
        assert_eq!(
            bench.outcome(),
            Some((Outcome::NoAnswer, FallbackTaken::VoiceAgent)),
            "two persons at most"
        );
    }
}

#[test]
fn refusals_are_typed_and_move_on_at_once() {
    for (cause, status, outcome) in [
        (LegCause::Busy, 486, Outcome::Busy),
        (LegCause::Busy, 480, Outcome::Busy),
        (LegCause::Declined, 603, Outcome::Declined),
        (LegCause::Refused, 404, Outcome::Failed { cause: FailureCause::SignallingRefused }),
        (LegCause::Unreachable, 408, Outcome::Failed { cause: FailureCause::Unreachable }),
        (LegCause::NoAnswer, 408, Outcome::NoAnswer),
    ] {
        let mut bench = Bench::offering();
        bench.put(Input::Ended { leg: HUMAN, cause, status: Some(status) });
        assert!(bench.has("FindTarget(-1)"), "{cause:?}");
        assert_eq!(bench.hears(LegId::CALLER), "hold bed");
        bench.put(Input::NobodyAvailable);
        assert_eq!(bench.outcome(), Some((outcome, FallbackTaken::VoiceAgent)));
    }
}

#[test]
fn a_no_is_a_no_by_key_and_by_button_and_the_person_is_not_asked_again() {
    let decline = |bench: &mut Bench| {
        let transfer = bench.transfer();
        let reason = DeclineReason::Declined;
        bench.put(Input::Decline { agent: person("ann"), transfer, means: Means::Ui, reason });
    };
    let mut by_key = Bench::briefing();
    by_key.after(100).key(HUMAN, '2');
    let mut by_button = Bench::briefing();
    decline(&mut by_button);
    let mut while_ringing = Bench::offering();
    decline(&mut while_ringing);
    for bench in [by_key, by_button, while_ringing] {
        assert!(bench.has("agent.declined") && bench.has("Desktop(declined)"), "{:?}", names(&bench.last));
        let excluded = bench.last.iter().any(
            |output| matches!(output, Output::FindTarget { exclude, .. } if *exclude == [person("ann")]),
        );
        assert!(excluded);
    }
}

#[test]
fn a_machine_that_answers_is_never_bridged() {
    let mut bench = Bench::briefing();
    bench.run(8_000).played(HUMAN);
    bench.run(19_999);
    assert_eq!(bench.call.standing().phase, Some(Phase::Briefing));
    bench.run(1);
    assert!(bench.has("HangUp(leg-2 LocalHangUp)") && bench.has("FindTarget(-1)"));
    bench.put(Input::NobodyAvailable);
    assert_eq!(bench.outcome(), Some((Outcome::Voicemail, FallbackTaken::VoiceAgent)));
    assert_eq!(bench.count("bridge.completed"), 0);
}

#[test]
fn an_unproven_listener_hears_nothing_personal_before_a_key() {
    let mut bench = Bench::proving();
    assert_eq!(bench.hears(HUMAN), "presence.en");
    assert_eq!(bench.count("whisper.started"), 0);
    bench.after(900).key(HUMAN, '1').report_cut();
    assert!(bench.hears(HUMAN).ends_with("press_to_accept.en"));
    assert_eq!(bench.call.standing().phase, Some(Phase::Briefing), "presence is not a yes");
    bench.after(900).key(HUMAN, '1').report_cut().acked("ann", 1);
    assert_eq!(bench.call.standing().phase, Some(Phase::Bridged));
}

#[test]
fn answering_counts_as_a_yes_only_in_the_directory_and_only_after_the_whisper() {
    for (trusted, bridged) in [(true, true), (false, false)] {
        let mut bench = Bench::draining();
        bench.find(Target { accept_on_answer: true, trusted, ..target("ann") });
        bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
        bench.run(6_000).played(LegId::CALLER).run(1_000).answered(HUMAN);
        assert_eq!(bench.count("agent.accepted"), usize::from(trusted));
        bench.after(20).acked("ann", 1);
        assert_ne!(bench.call.standing().phase, Some(Phase::Bridged), "the whisper is heard first");
        bench.run(3_000).played(HUMAN);
        assert_eq!(bench.call.standing().phase == Some(Phase::Bridged), bridged);
    }
}

#[test]
fn a_yes_during_the_whisper_skips_the_rest_of_it() {
    let mut bench = Bench::briefing();
    bench.after(1_500).key(HUMAN, '1');
    assert_eq!(bench.hears(HUMAN), "connecting.en");
    bench.after(10).acked("ann", 1);
    assert_eq!(bench.count("bridge.completed"), 0, "the end of the whisper is on record first");
    bench.after(10).report_cut();
    assert_eq!(bench.count("bridge.completed"), 1);
    let skipped =
        bench.facts().into_iter().any(|fact| matches!(fact, Fact::WhisperEnded { played_pm: 400, .. }));
    assert!(skipped);
}

#[test]
fn a_yes_on_the_desktop_before_the_answer_counts_from_the_answer() {
    let mut bench = Bench::offering();
    let transfer = bench.transfer();
    bench.put(Input::Accept { agent: person("ann"), transfer, means: Means::Ui });
    assert_eq!(bench.count("agent.accepted"), 0);
    bench.after(500).answered(HUMAN);
    assert_eq!(bench.count("agent.accepted"), 1);
    bench.after(20).acked("ann", 1);
    assert_eq!(bench.call.standing().phase, Some(Phase::Bridged));
}

#[test]
fn a_yes_of_somebody_else_or_for_another_transfer_is_nothing() {
    let mut bench = Bench::briefing();
    let transfer = bench.transfer();
    bench.put(Input::Accept { agent: person("eve"), transfer, means: Means::Ui });
    assert_eq!(names(&bench.last), Vec::<String>::new());
    let other = TransferId::of(&CallId::from_random(7), 9);
    bench.put(Input::Accept { agent: person("ann"), transfer: other, means: Means::Ui });
    assert_eq!(names(&bench.last), Vec::<String>::new());
}

#[test]
fn the_bridge_waits_for_the_last_sample_of_the_message() {
    let mut bench = Bench::announcing();
    bench.after(1_000).answered(HUMAN);
    assert!(bench.hears(HUMAN).ends_with("press_to_accept.en"), "the whisper is heard meanwhile");
    bench.after(2_000).key(HUMAN, '1').report_cut().acked("ann", 1);
    assert_eq!(bench.call.standing().phase, Some(Phase::Barrier));
    bench.after(500).played(LegId::CALLER);
    assert_eq!(bench.call.standing().phase, Some(Phase::Bridged));
    let held = bench.all.iter().any(|output| matches!(output, Output::Hold { .. }));
    assert!(!held, "no re-INVITE between a yes and the first word");
}

#[test]
fn the_caller_is_held_by_re_invite_and_taken_back_when_the_person_answers() {
    let mut bench = Bench::offering();
    assert!(bench.has("Hold(leg-0)"));
    bench.run(1_000).answered(HUMAN);
    assert!(bench.has("Resume(leg-0)"));
    let mut rules = rules();
    rules.hold_by_reinvite = false;
    let mut silent = Bench::talking_with(rules);
    silent.at(20_000).decide().find(target("ann"));
    silent.after(10).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    silent.after(5_000).played(LegId::CALLER).run(1_000).answered(HUMAN);
    let signalled =
        silent.all.iter().any(|output| matches!(output, Output::Hold { .. } | Output::Resume { .. }));
    assert!(!signalled);
}

#[test]
fn a_waiting_caller_hears_how_long_it_still_takes_every_thirty_seconds() {
    let mut bench = Bench::draining();
    bench.find(Target { ring_timeout: Duration::from_secs(100), ..target("ann") });
    bench.after(10).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    bench.run(5_000).played(LegId::CALLER);
    bench.run(29_999);
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
    bench.run(1);
    assert_eq!(bench.hears(LegId::CALLER), "hold.update.nurse.en+hold.time.5.en");
    bench.run(4_000).played(LegId::CALLER);
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
}

#[test]
fn an_update_that_came_due_after_a_yes_is_told_once_that_yes_comes_to_nothing() {
    let mut bench = Bench::draining();
    bench.find(Target { ring_timeout: Duration::from_secs(100), ..target("ann") });
    bench.after(10).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    bench.run(5_000).played(LegId::CALLER);
    bench.run(24_000).answered(HUMAN).run(5_000).key(HUMAN, '1').run(2_000);
    assert_eq!(bench.call.standing().phase, Some(Phase::Barrier));
    assert_eq!(bench.hears(LegId::CALLER), "hold bed", "not between a yes and the first word");
    bench.ended(HUMAN, LegCause::RemoteHangUp).run(0);
    assert_eq!(bench.hears(LegId::CALLER), "hold.update.nurse.en+hold.time.5.en");
}

#[test]
fn a_desktop_that_never_acknowledges_degrades_the_transfer_after_the_limit() {
    let mut bench = Bench::barrier();
    bench.run(2_999);
    assert_eq!(bench.call.standing().phase, Some(Phase::Barrier));
    bench.run(1).flows(HUMAN);
    let reason = DegradedReason::AckTimeout;
    assert_eq!(bench.outcome().map(|end| end.0), Some(Outcome::CompletedDegraded { reason }));
}

#[test]
fn with_nobody_who_could_acknowledge_there_is_no_wait() {
    let mut bench = Bench::draining();
    bench.find(Target { desktop: false, ..target("ann") });
    bench.after(10).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    bench.run(5_000).played(LegId::CALLER).run(1_000).answered(HUMAN);
    bench.run(4_000).played(HUMAN).key(HUMAN, '1');
    assert_eq!(bench.call.standing().phase, Some(Phase::Bridged));
    bench.flows(HUMAN);
    let reason = DegradedReason::NoDesktop;
    assert_eq!(bench.outcome().map(|end| end.0), Some(Outcome::CompletedDegraded { reason }));
}

#[test]
fn a_queue_may_name_the_destination_that_acknowledges() {
    let mut rules = rules();
    let crm = crate::id::DestinationId::parse("crm").unwrap();
    rules.queues[0].payload_ack = PayloadAck::Destination(crm);
    let mut bench = Bench::talking_with(rules);
    bench.at(20_000).decide().find(Target { desktop: false, ..target("ann") });
    bench.after(10).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    bench.run(5_000).played(LegId::CALLER).run(1_000).answered(HUMAN);
    bench.run(4_000).played(HUMAN).key(HUMAN, '1');
    assert_eq!(bench.call.standing().phase, Some(Phase::Barrier));
    let transfer_id = bench.transfer();
    let destination = "crm".to_owned();
    let at = Timestamp::default();
    bench.command(CommandBody::PayloadAcknowledged { transfer_id, destination, revision: 1, at });
    assert_eq!(bench.call.standing().phase, Some(Phase::Bridged));
    bench.flows(HUMAN);
    assert_eq!(bench.outcome().map(|end| end.0), Some(Outcome::Completed));
}

#[test]
fn a_required_destination_that_missed_its_budget_degrades_the_transfer() {
    let mut bench = Bench::briefing();
    let (transfer_id, destination) = (bench.transfer(), "crm".to_owned());
    bench.command(CommandBody::PayloadUndelivered { transfer_id, destination });
    bench.run(4_000).played(HUMAN).key(HUMAN, '1').acked("ann", 1).flows(HUMAN);
    let reason = DegradedReason::DestinationMissed;
    assert_eq!(bench.outcome().map(|end| end.0), Some(Outcome::CompletedDegraded { reason }));
}

#[test]
fn each_receipt_that_is_withheld_keeps_the_transfer_from_being_complete() {
    let audio = |legs: &[LegId]| {
        let mut bench = Bench::bridged();
        let epoch = bench.plan.as_ref().unwrap().epoch;
        for leg in legs {
            bench.after(100).media(MediaReport::AudioSeen { leg: *leg, epoch });
        }
        // An old plan proves nothing.
        let stale = Epoch(epoch.0 - 1);
        bench.media(MediaReport::AudioSeen { leg: HUMAN, epoch: stale });
        bench.run(2_000);
        bench.outcome().unwrap().0
    };
    let reason = DegradedReason::OneWayAudio;
    assert_eq!(audio(&[LegId::CALLER, HUMAN]), Outcome::Completed);
    assert_eq!(audio(&[LegId::CALLER]), Outcome::CompletedDegraded { reason });
    assert_eq!(audio(&[HUMAN]), Outcome::CompletedDegraded { reason });
    assert_eq!(audio(&[]), Outcome::Failed { cause: FailureCause::OneWayAudio });
}

#[test]
fn skew_is_the_distance_between_the_switch_and_the_paint() {
    let mut bench = Bench::bridged();
    bench.after(35).flows(HUMAN);
    let skew = bench.facts().into_iter().find_map(|fact| match fact {
        Fact::TransferEnded { skew_ms, .. } => *skew_ms,
        _ => None,
    });
    assert_eq!(skew, Some(35));
}

#[test]
fn a_lost_voice_agent_is_called_once_more_and_then_a_person_is() {
    let mut bench = Bench::talking();
    bench.run(5_000).ended(LegId::VOICE_AGENT, LegCause::Lost);
    assert!(bench.has("ConnectVoiceAgent(leg-2)"));
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
    bench.run(5_000);
    assert!(bench.has("HangUp(leg-2 Unreachable)"));
    let rule = bench.facts().into_iter().find_map(|fact| match fact {
        Fact::TransferDecided { decision, .. } => Some(decision.trigger.rule_id.clone()),
        _ => None,
    });
    assert_eq!(rule.as_deref(), Some("voice_agent_lost"));
    assert_eq!(bench.hears(LegId::CALLER), "reason.tool_failure.en+dest.nurse.en+time.30.en");
}

#[test]
fn a_voice_agent_lost_during_a_transfer_does_not_stop_it() {
    for mut bench in [Bench::calling(), Bench::announcing(), Bench::offering(), Bench::briefing()] {
        bench.ended(LegId::VOICE_AGENT, LegCause::Lost);
        assert!(bench.call.standing().phase.is_some());
        assert_ne!(bench.hears(LegId::CALLER), "-");
        assert_ne!(bench.hears(LegId::CALLER), LegId::VOICE_AGENT.to_string());
    }
}

#[test]
fn a_voice_agent_that_leaves_by_itself_follows_the_policy() {
    let mut rules = rules();
    rules.on_voice_agent_bye = OnVoiceAgentBye::Hangup;
    let mut bench = Bench::talking_with(rules);
    bench.ended(LegId::VOICE_AGENT, LegCause::RemoteHangUp);
    assert!(bench.has("HangUp(leg-0 LocalHangUp)"));
    let mut bench = Bench::talking();
    bench.ended(LegId::VOICE_AGENT, LegCause::RemoteHangUp);
    assert!(bench.has("transfer.decided"));
}

#[test]
fn a_caller_may_change_their_mind_before_anybody_accepts() {
    for mut bench in [Bench::calling(), Bench::announcing(), Bench::offering(), Bench::briefing()] {
        bench.key(LegId::CALLER, '*');
        assert_eq!(bench.outcome(), Some((Outcome::Cancelled, FallbackTaken::None)));
        assert_eq!(bench.hears(LegId::CALLER), LegId::VOICE_AGENT.to_string());
        assert_eq!(bench.hears(LegId::VOICE_AGENT), LegId::CALLER.to_string());
        assert!(!bench.call.core.legs.is_up(HUMAN));
    }
    let mut late = Bench::barrier();
    let transfer_id = late.transfer();
    late.command(CommandBody::TransferCancel { transfer_id });
    assert_eq!(names(&late.last), ["command.rejected"]);
}

#[test]
fn nobody_to_try_takes_the_caller_back_with_a_word_of_regret() {
    let mut bench = Bench::draining();
    bench.put(Input::NobodyAvailable);
    assert_eq!(bench.outcome(), Some((Outcome::ReturnedToVoiceAgent, FallbackTaken::VoiceAgent)));
    assert_eq!(bench.hears(LegId::CALLER), "returning.en");
    bench.after(3_000).played(LegId::CALLER);
    assert_eq!(bench.hears(LegId::CALLER), LegId::VOICE_AGENT.to_string());
    assert!(bench.has("Tell(failed)"));
}

#[test]
fn a_chain_that_is_used_up_ends_with_a_closing_message_and_never_in_silence() {
    let mut bench = Bench::closing();
    assert_eq!(bench.outcome(), Some((Outcome::Busy, FallbackTaken::Closing)));
    assert_eq!(bench.hears(LegId::CALLER), "closing.en");
    bench.after(4_000).played(LegId::CALLER);
    assert!(bench.has("HangUp(leg-0 LocalHangUp)"));
    bench.report_cut().all_legs_end().balanced();
}

#[test]
fn a_person_may_hand_the_caller_back() {
    let mut bench = Bench::bridged();
    bench.flows(HUMAN).ended(LegId::VOICE_AGENT, LegCause::LocalHangUp);
    bench.run(5_000).put(Input::HandBack { agent: person("eve") });
    assert_eq!(names(&bench.last), Vec::<String>::new());
    bench.put(Input::HandBack { agent: person("ann") });
    assert!(bench.has("HangUp(leg-2 LocalHangUp)") && bench.has("ConnectVoiceAgent(leg-3)"));
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
    bench.after(300).answered(LegId(3));
    assert_eq!(bench.hears(LegId::CALLER), "leg-3");
}

#[test]
fn a_refused_recording_is_stopped_and_no_text_is_kept() {
    let mut bench = Bench::talking();
    let say = |id: &str, body| Input::Signal(Signal { id: id.to_owned(), at_ms: None, body });
    bench.put(say("c1", SignalBody::Consent { value: "refused".to_owned() }));
    assert!(bench.has("recording.stopped") && bench.has("consent.recording"));
    assert!(bench.has("Record(leg-0 off)") && bench.has("DiscardRecordings"));
    bench.put(say(
        "t1",
        SignalBody::Turn {
            speaker: crate::signal::Speaker::Caller,
            text: Pii::new("hello".to_owned()),
            turn: None,
            confidence_pm: None,
            interrupted: false,
        },
    ));
    let kept = bench.facts().into_iter().find_map(|fact| match fact {
        Fact::Utterance { text, .. } => Some(text.is_some()),
        _ => None,
    });
    assert_eq!(kept, Some(false));
}

#[test]
fn a_cancel_during_the_wait_for_a_decision_makes_that_decision_late() {
    let mut disclosing = Bench::disclosing();
    disclosing.at(1_000).decide();
    for mut bench in [Bench::expecting(), disclosing] {
        let decision = bench.decision();
        let transfer_id = decision.transfer_id.clone();
        bench.after(100).command(CommandBody::TransferCancel { transfer_id: transfer_id.clone() });
        assert_eq!(names(&bench.last), Vec::<String>::new());
        bench.after(100).command(CommandBody::TransferCancel { transfer_id });
        assert!(bench.has("command.rejected"), "there is nothing to cancel any more");
        bench.after(100).command(CommandBody::TransferDecided { decision });
        assert!(bench.has("command.rejected"), "a decision on what was cancelled is stale");
        if bench.call.standing().state == "disclosing" {
            bench.played(LegId::CALLER);
        }
        bench.run(2_000);
        assert_eq!(bench.count("transfer.decided"), 0);
        bench.put(request("sig_again")).run(800);
        assert_eq!(bench.count("transfer.decided"), 1, "another request is another transfer");
    }
}

#[test]
fn a_voice_agent_takes_back_its_own_request_and_nothing_else() {
    let cancel =
        || Input::Signal(Signal { id: "back".to_owned(), at_ms: None, body: SignalBody::TransferCancel });
    let mut bench = Bench::expecting();
    bench.after(100).put(cancel()).run(2_000);
    assert_eq!(bench.count("transfer.decided"), 0);
    let mut bench = Bench::talking();
    bench.at(20_000).key(LegId::CALLER, '0').after(100).put(cancel()).run(2_000);
    assert_eq!(bench.count("transfer.decided"), 1, "the caller pressed 0");
}

#[test]
fn the_caller_hears_the_language_of_the_call_and_the_person_their_own() {
    let spanish =
        CallRules { lang: "es".to_owned(), disclosure: "disclosure.ai_recording.es".to_owned(), ..rules() };
    let mut bench = Bench::talking_with(spanish);
    bench.at(20_000).decide().find(Target { ring_timeout: Duration::from_secs(60), ..target("ann") });
    bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    bench.run(6_000).played(LegId::CALLER).run(40_000).report_cut();
    bench.answered(HUMAN).run(20_000).played(HUMAN).run(30_000);
    bench.put(Input::NobodyAvailable).run(20_000);
    let mut heard = std::collections::BTreeSet::new();
    for plan in bench.all.iter().filter_map(|output| match output {
        Output::Media(plan) => Some(plan),
        _ => None,
    }) {
        for (leg, source) in &plan.egress {
            let Source::Prompt(play) = source else { continue };
            for clip in spoken(&plan.prompts[play]).split('+').filter(|part| *part != "say") {
                heard.insert((*leg == LegId::CALLER, clip.to_owned()));
            }
        }
    }
    assert!(heard.len() > 6, "{heard:?}");
    for (caller, clip) in heard {
        assert!(clip.ends_with(if caller { ".es" } else { ".en" }), "{clip}");
    }
}

#[test]
fn too_much_time_calls_a_person_once() {
    let mut bench = Bench::talking();
    let limit = bench.call.core.rules.policy.elapsed_limit().unwrap();
    let due = 100 + u64::try_from(limit.as_millis()).unwrap();
    bench.run_to(due - 1);
    assert_eq!(bench.count("signal.received"), 0);
    bench.run_to(due + 800);
    assert_eq!(bench.count("transfer.decided"), 1);
}

#[test]
fn a_payload_that_overtakes_its_decision_is_kept_for_it() {
    for mut bench in [Bench::disclosing(), Bench::talking()] {
        let transfer_id = bench.call.core.next_transfer();
        let payload = Box::new(brief::tests::revision(2));
        bench.after(10).command(CommandBody::PayloadReady { transfer_id, payload });
        assert_eq!(names(&bench.last), Vec::<String>::new());
        bench.decide();
        if bench.call.transfer_id().is_none() {
            bench.played(LegId::CALLER);
        }
        assert_eq!(bench.call.payload().map(|payload| payload.revision), Some(2));
        bench.run(1_000);
        assert_eq!(bench.count("payload.built"), 0);
    }
}

#[test]
fn a_paint_while_the_phone_rings_counts_when_the_later_one_is_lost() {
    let mut bench = Bench::offering();
    bench.acked("ann", 1).acked("ann", 1);
    assert_eq!(bench.count("screenpop.acked"), 1);
    bench.after(500).answered(HUMAN).run(4_000).played(HUMAN).key(HUMAN, '1');
    bench.run(3_000).flows(HUMAN);
    assert_eq!(bench.outcome().map(|end| end.0), Some(Outcome::Completed));
}

#[test]
fn a_quick_bridge_waits_with_its_verdict_for_the_destinations() {
    for missed in [false, true] {
        let mut bench = Bench::calling();
        bench.media(MediaReport::Drained { leg: LegId::VOICE_AGENT }).after(900).played(LegId::CALLER);
        bench.after(100).answered(HUMAN).after(500).key(HUMAN, '1').report_cut().acked("ann", 1);
        bench.after(300).flows(HUMAN);
        assert_eq!(bench.outcome(), None);
        if missed {
            let (transfer_id, destination) = (bench.transfer(), "crm".to_owned());
            bench.after(4_000).command(CommandBody::PayloadUndelivered { transfer_id, destination });
        }
        bench.run_to(27_000);
        let reason = DegradedReason::DestinationMissed;
        let expected = if missed { Outcome::CompletedDegraded { reason } } else { Outcome::Completed };
        assert_eq!(bench.outcome().map(|end| end.0), Some(expected));
    }
}

#[test]
fn a_caller_who_comes_back_from_a_hurried_transfer_hears_the_disclosure_first() {
    let mut bench = Bench::disclosing();
    bench.answered(LegId::VOICE_AGENT).after(1_000);
    let mut decision = bench.decision();
    decision.trigger.waives_waits = true;
    bench.command(CommandBody::TransferDecided { decision }).report_cut();
    bench.put(Input::NobodyAvailable);
    assert_eq!(bench.hears(LegId::CALLER), "disclosure.ai_recording.en");
    assert_eq!(bench.call.standing().state, "disclosing");
    // What is decided now waits for its end, since nothing waives that a second time.
    bench.after(500).decide();
    assert_eq!(bench.count("transfer.decided"), 1);
    bench.run(4_000).played(LegId::CALLER);
    assert_eq!(bench.count("transfer.decided"), 2);
}

#[test]
fn a_safety_rule_hurries_a_decision_that_waits_for_the_disclosure() {
    let mut bench = Bench::disclosing();
    bench.after(10).decide();
    let mut decision = bench.decision();
    decision.trigger.category = Category::Safety;
    decision.trigger.waives_waits = true;
    bench.after(10).command(CommandBody::TransferDecided { decision });
    assert_eq!(bench.count("transfer.decided"), 1);
    assert_eq!(bench.hears(LegId::CALLER), "reason.safety.en+dest.nurse.en+time.30.en");
}
