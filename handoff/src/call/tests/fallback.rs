//! The fallback chain: each link in its order, what a link that comes to nothing gives way to,
//! and what the caller hears and the record says of each.

use super::*;

/// A second queue, spoken as another team.
pub(super) fn two_queues(fallback: Vec<Fallback>) -> CallRules {
    let mut rules = rules();
    let first = rules.queues[0].clone();
    rules.queues[0] = QueueRules { fallback, attempts_max: 1, ..first.clone() };
    rules.queues.push(QueueRules {
        id: front(),
        spoken: "dest.support".to_owned(),
        mode: Mode::Warm,
        wait_default_s: 60,
        // Its own chain is not walked: it was the other queue's call.
        fallback: vec![Fallback::Queue(QueueId::parse("nurse_line").unwrap())],
        ..first
    });
    rules
}

fn front() -> QueueId {
    QueueId::parse("front_desk").unwrap()
}

/// On the hold bed while the first phone rings, with this chain.
fn waiting(fallback: Vec<Fallback>) -> Bench {
    waiting_with(two_queues(fallback))
}

fn waiting_with(rules: CallRules) -> Bench {
    let mut bench = Bench::of(rules, Bench::number());
    bench.at(100).answered(LegId::CALLER).at(300).answered(LegId::VOICE_AGENT);
    bench.at(5_000).played(LegId::CALLER).at(20_000).decide().find(target("ann"));
    bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    bench.run(6_000).played(LegId::CALLER).run(1_000);
    bench
}

/// The one phone is busy.
fn busy(bench: &mut Bench, leg: LegId) -> &mut Bench {
    bench.put(Input::Ended { leg, cause: LegCause::Busy, status: Some(486) })
}

fn chosen(bench: &Bench) -> Vec<(FallbackTaken, String)> {
    let chosen = |fact: &Fact| match fact {
        Fact::FallbackChosen { kind, reason, .. } => Some((*kind, reason.clone())),
        _ => None,
    };
    bench.facts().into_iter().filter_map(chosen).collect()
}

fn links(links: &[(FallbackTaken, &str)]) -> Vec<(FallbackTaken, String)> {
    links.iter().map(|(kind, reason)| (*kind, (*reason).to_owned())).collect()
}

/// The caller hears the last words, and the call ends for this cause.
fn ends_after(bench: &mut Bench, words: &str, why: &str) {
    assert_eq!(bench.hears(LegId::CALLER), words);
    bench.report_cut().run(3_000).played(LegId::CALLER).all_legs_end().report_cut().balanced();
    let ended =
        |fact: &&Fact| matches!(fact, Fact::CallEnded { cause, side } if cause == why && side == "system");
    assert_eq!(bench.facts().into_iter().filter(ended).count(), 1);
}

fn queue_link() -> Fallback {
    Fallback::Queue(front())
}

#[test]
fn another_queue_is_tried_behind_the_first_and_the_caller_is_told_where_to() {
    let mut bench = waiting(vec![queue_link(), Fallback::Voicemail]);
    busy(&mut bench, HUMAN);
    assert!(bench.has("FindTarget(-1)"), "nobody is asked twice: {:?}", names(&bench.last));
    assert_eq!(chosen(&bench), links(&[(FallbackTaken::Queue, "busy")]));
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
    assert_eq!(bench.call.waiting().unwrap().queue, front());
    bench.find(target("bob"));
    assert_eq!(bench.hears(LegId::CALLER), "dest.support.en+time.20.en");
    bench.run(3_000).played(LegId::CALLER);
    let second = LegId(HUMAN.0 + 1);
    bench.answered(second).run(4_000).played(second).key(second, '1').after(30).acked("bob", 1);
    bench.flows(second).run(9_000);
    assert_eq!(bench.outcome(), Some((Outcome::Completed, FallbackTaken::None)));
    let learnt =
        |output: &&Output| matches!(output, Output::Learn { queue, waited_s: 7 } if *queue == front());
    assert_eq!(bench.all.iter().filter(learnt).count(), 1, "it has waited 7 s in this queue");
}

#[test]
fn a_message_that_still_plays_is_followed_by_the_new_place_and_one_to_come_names_it() {
    let mut rules = two_queues(vec![queue_link()]);
    rules.queues[0].attempts_max = 1;
    let reach = |played: bool| {
        let mut bench = Bench::talking_with(rules.clone());
        bench.at(20_000).decide().find(target("ann"));
        if played {
            bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
        }
        busy(&mut bench, HUMAN).find(target("bob"));
        bench
    };
    let mut bench = reach(true);
    assert_eq!(bench.hears(LegId::CALLER), "reason.caller_request.en+dest.nurse.en+time.20.en");
    bench.run(5_000).played(LegId::CALLER);
    assert_eq!(bench.hears(LegId::CALLER), "dest.support.en+time.20.en");
    let mut bench = reach(false);
    bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
    assert_eq!(bench.hears(LegId::CALLER), "reason.caller_request.en+dest.support.en+time.20.en");
    bench.run(5_000).played(LegId::CALLER);
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
}

#[test]
fn every_link_that_fails_gives_way_to_the_next_in_the_configured_order() {
    let chain = vec![queue_link(), Fallback::Callback, Fallback::Voicemail, Fallback::VoiceAgent];
    let mut bench = waiting(chain);
    busy(&mut bench, HUMAN);
    bench.put(Input::NobodyAvailable);
    assert_eq!(bench.hears(LegId::CALLER), "callback.en");
    bench.run(4_000).key(LegId::CALLER, '2');
    assert_eq!(bench.hears(LegId::CALLER), "voicemail.en+message_tone");
    bench.run(4_000).played(LegId::CALLER);
    assert_eq!(bench.hears(LegId::CALLER), "comfort noise");
    bench.run(5_000).media(MediaReport::Quiet { leg: LegId::CALLER });
    assert_eq!(bench.hears(LegId::CALLER), "returning.en");
    let expected = [
        (FallbackTaken::Queue, "busy"),
        (FallbackTaken::Callback, "busy"),
        (FallbackTaken::Voicemail, "callback_declined"),
        (FallbackTaken::VoiceAgent, "no_message"),
    ];
    assert_eq!(chosen(&bench), links(&expected));
    assert_eq!(bench.outcome(), Some((Outcome::Busy, FallbackTaken::VoiceAgent)));
    assert_eq!((bench.count("hold.started"), bench.count("hold.ended")), (1, 1));
}

#[test]
fn behind_the_last_link_the_caller_always_hears_a_closing_message() {
    for chain in [vec![], vec![queue_link()], vec![Fallback::Voicemail], vec![Fallback::Callback]] {
        let mut bench = waiting(chain.clone());
        busy(&mut bench, HUMAN);
        bench.put(Input::NobodyAvailable);
        // Nobody says or presses anything, and no prompt is ever reported to be over.
        while bench.call.standing().state == "falling_back" {
            let due = bench.call.next_timeout().unwrap().micros().div_ceil(1_000);
            bench.run_to(due);
        }
        assert_eq!(bench.outcome(), Some((Outcome::Busy, FallbackTaken::Closing)), "{chain:?}");
        ends_after(&mut bench, "closing.en", "failed");
    }
}

#[test]
fn a_message_is_kept_with_its_place_in_the_recording_and_the_caller_is_thanked() {
    use crate::event::MessageEnd;
    for (recording, ended_by) in [
        (true, MessageEnd::Key),
        (true, MessageEnd::Pause),
        (false, MessageEnd::Key),
        (false, MessageEnd::Limit),
        (false, MessageEnd::HangUp),
    ] {
        let chain = vec![Fallback::Voicemail, Fallback::Callback];
        let mut bench = waiting_with(CallRules { recording, ..two_queues(chain) });
        assert_eq!(bench.count("recording.started") > 0, recording);
        busy(&mut bench, HUMAN);
        assert!(bench.has("Resume(leg-0)"), "a held caller may not be heard: {:?}", names(&bench.last));
        assert!(bench.has("HangUp(leg-1 LocalHangUp)"), "the voice agent has nothing left to do here");
        bench.report_cut().run(7_000).played(LegId::CALLER);
        let from = bench.now_ms - 100;
        let started = |fact: &&Fact| matches!(fact, Fact::RecordingStarted { leg: LegId::CALLER, .. });
        assert_eq!(bench.facts().into_iter().filter(started).count(), 1, "once, whoever wanted it");
        bench.run(500).media(MediaReport::Spoke { leg: LegId::CALLER }).run(9_500);
        match ended_by {
            MessageEnd::Key => bench.key(LegId::CALLER, '#'),
            MessageEnd::Pause => bench.media(MediaReport::Quiet { leg: LegId::CALLER }),
            MessageEnd::HangUp => bench.ended(LegId::CALLER, LegCause::RemoteHangUp),
            MessageEnd::Limit => bench.run(110_000),
        };
        let to = bench.now_ms - 100;
        let left = Fact::VoicemailLeft {
            transfer_id: bench.transfer(),
            leg: LegId::CALLER,
            from_ms: from,
            to_ms: to,
            ended_by,
        };
        assert_eq!(bench.facts().into_iter().filter(|fact| **fact == left).count(), 1, "{ended_by:?}");
        assert_eq!(bench.outcome(), Some((Outcome::Busy, FallbackTaken::Voicemail)));
        let stopped = |fact: &&Fact| matches!(fact, Fact::RecordingStopped { leg: LegId::CALLER, .. });
        let stops = !recording || ended_by == MessageEnd::HangUp;
        assert_eq!(bench.facts().into_iter().any(|fact| stopped(&fact)), stops, "{ended_by:?}");
        if ended_by == MessageEnd::HangUp {
            bench.report_cut().all_legs_end().balanced();
        } else {
            ends_after(&mut bench, "voicemail.kept.en", "normal");
        }
        assert_eq!(bench.count("recording.stored"), bench.count("recording.started"));
    }
}

#[test]
fn a_message_in_which_nothing_is_said_is_none() {
    for end in ["key", "pause", "limit", "hang-up"] {
        let mut bench = waiting(vec![Fallback::Voicemail]);
        busy(&mut bench, HUMAN).run(7_000).played(LegId::CALLER).run(2_000);
        match end {
            "key" => bench.key(LegId::CALLER, '1'),
            "pause" => bench.media(MediaReport::Quiet { leg: LegId::CALLER }),
            "limit" => bench.run(120_000),
            _ => bench.ended(LegId::CALLER, LegCause::RemoteHangUp),
        };
        assert_eq!(bench.count("voicemail.left"), 0, "{end}");
        let taken = if end == "hang-up" { FallbackTaken::Voicemail } else { FallbackTaken::Closing };
        assert_eq!(bench.outcome(), Some((Outcome::Busy, taken)), "{end}");
    }
}

#[test]
fn no_message_is_kept_of_a_caller_who_refused_or_was_not_told() {
    let refused = |bench: &mut Bench, id: &str| {
        let body = SignalBody::Consent { value: "refused".to_owned() };
        bench.put(Input::Signal(Signal { id: id.to_owned(), at_ms: None, body }));
    };
    // Before: the link is not taken at all.
    let mut bench = waiting(vec![Fallback::Voicemail]);
    refused(&mut bench, "no");
    busy(&mut bench, HUMAN);
    assert_eq!(chosen(&bench), links(&[(FallbackTaken::Closing, "busy")]));
    // In the middle: what was said is destroyed, and no message was left.
    let mut bench = waiting_with(CallRules {
        recording: false,
        ..two_queues(vec![Fallback::Voicemail, Fallback::VoiceAgent])
    });
    busy(&mut bench, HUMAN).run(7_000).played(LegId::CALLER);
    bench.run(1_000).media(MediaReport::Spoke { leg: LegId::CALLER });
    refused(&mut bench, "no");
    assert!(bench.has("DiscardRecordings"), "{:?}", names(&bench.last));
    bench.key(LegId::CALLER, '1');
    assert_eq!(bench.count("voicemail.left"), 0);
    assert_eq!(bench.outcome(), Some((Outcome::Busy, FallbackTaken::VoiceAgent)));
    // Nobody was told that a machine speaks: a safety rule cut the disclosure.
    let mut bench = Bench::of(two_queues(vec![Fallback::Voicemail]), Bench::number());
    bench.at(100).answered(LegId::CALLER).at(300).answered(LegId::VOICE_AGENT);
    let mut decision = bench.decision();
    decision.trigger.waives_waits = true;
    bench.at(400).command(CommandBody::TransferDecided { decision }).put(Input::NobodyAvailable);
    assert_eq!(chosen(&bench), links(&[(FallbackTaken::Closing, "nobody_available")]));
}

#[test]
fn a_call_back_is_promised_by_a_key_alone_and_named_by_an_opaque_reference() {
    let mut bench = waiting(vec![Fallback::Callback, Fallback::VoiceAgent]);
    bench.put(Input::Ended { leg: HUMAN, cause: LegCause::NoAnswer, status: None });
    assert_eq!(bench.hears(LegId::VOICE_AGENT), "silence", "it may be needed, and hears nothing");
    bench.run(6_000).played(LegId::CALLER);
    assert_eq!(bench.hears(LegId::CALLER), "comfort noise");
    bench.run(7_000).key(LegId::CALLER, '5');
    assert_eq!(bench.count("callback.requested"), 0);
    bench.key(LegId::CALLER, '1');
    let asked = bench.facts().into_iter().find(|fact| fact_name(fact) == "callback.requested").unwrap();
    let said = serde_json::to_string(asked).unwrap();
    assert!(said.contains("\"cb_") && !said.contains("555"), "{said}");
    assert_eq!(bench.outcome(), Some((Outcome::NoAnswer, FallbackTaken::Callback)));
    assert_eq!(bench.count("payload.built"), 1, "whoever calls back finds the payload");
    ends_after(&mut bench, "callback.promised.en", "normal");
}

#[test]
fn where_nobody_was_tried_a_call_back_is_the_outcome() {
    let mut bench = Bench::of(two_queues(vec![Fallback::Callback]), Bench::number());
    bench.at(100).answered(LegId::CALLER).at(300).answered(LegId::VOICE_AGENT);
    bench.at(5_000).played(LegId::CALLER).at(20_000).decide().put(Input::NobodyAvailable);
    assert_eq!(bench.hears(LegId::CALLER), "callback.en", "known before anybody was dialled");
    bench.run(1_000).key(LegId::CALLER, '1');
    assert_eq!(bench.outcome(), Some((Outcome::CallbackScheduled, FallbackTaken::Callback)));
}

#[test]
fn a_caller_without_a_number_to_show_is_not_asked() {
    let hidden = CallerIdentity { restricted: true, ..Bench::number() };
    for caller in [hidden, CallerIdentity::default()] {
        let mut bench = Bench::of(two_queues(vec![Fallback::Callback]), caller);
        bench.at(100).answered(LegId::CALLER).at(300).answered(LegId::VOICE_AGENT);
        bench.at(5_000).played(LegId::CALLER).at(20_000).decide().put(Input::NobodyAvailable);
        assert_eq!(bench.hears(LegId::CALLER), "closing.en");
    }
}

#[test]
fn a_question_that_nobody_answers_gives_way_and_other_people_may_follow_it() {
    let mut bench = waiting(vec![Fallback::Callback, queue_link()]);
    busy(&mut bench, HUMAN).run(6_000).played(LegId::CALLER).run(8_000);
    assert_eq!(bench.call.standing().state, "transferring");
    assert_eq!(bench.hears(LegId::CALLER), "hold bed");
    bench.find(target("bob"));
    assert_eq!(bench.hears(LegId::CALLER), "dest.support.en+time.20.en");
    bench.run(3_000).ended(LegId::CALLER, LegCause::RemoteHangUp).all_legs_end().report_cut().balanced();
    assert_eq!((bench.count("hold.started"), bench.count("hold.ended")), (2, 2));
}

#[test]
fn a_queue_that_takes_too_long_gives_way_while_its_phones_still_ring() {
    let mut rules = two_queues(vec![queue_link()]);
    rules.queues[0].attempts_max = 3;
    rules.queues[0].patience = Some(Duration::from_secs(12));
    let mut bench = waiting_with(rules.clone());
    let decided = bench.now_ms - 7_200;
    bench.run_to(decided + 11_990);
    assert_eq!(chosen(&bench), []);
    bench.run_to(decided + 12_000);
    assert!(bench.has("HangUp(leg-2 NoAnswer)"), "{:?}", names(&bench.last));
    assert_eq!(chosen(&bench), links(&[(FallbackTaken::Queue, "no_answer")]));
    // The second queue has its own patience, from its own beginning.
    rules.queues[1].patience = None;
    bench.find(target("bob")).run(15_000);
    assert_eq!(bench.count("agent.no_answer"), 1);
    // Somebody who has answered is not hung up on.
    let mut bench = waiting_with(rules);
    bench.answered(HUMAN).run(15_000);
    assert_eq!(chosen(&bench), []);
    assert_eq!(bench.call.standing().phase, Some(Phase::Briefing));
}
