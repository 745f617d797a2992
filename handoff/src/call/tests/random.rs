//! Random sequences of inputs in a naive world, judged from outside: only outputs are
//! looked at, never the state.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// One random move: what, with which choice, and after how long.
type Move = (u8, u8, u16);

/// What has been seen of one call, and what must never be.
#[derive(Default)]
struct Judge {
    roles: BTreeMap<LegId, Role>,
    closed: BTreeSet<LegId>,
    hung_up: BTreeSet<LegId>,
    caller_up: bool,
    decided: Vec<TransferId>,
    ended: Vec<TransferId>,
    accepted: Option<LegId>,
    accepted_at: Timestamp,
    acked: bool,
    whispered: bool,
    bridged: Option<LegId>,
    finished: bool,
    finals: usize,
    incoming: usize,
    invites: usize,
    next_seq: u64,
}

impl Judge {
    fn see(&mut self, outputs: &[Output]) {
        assert!(!self.finished || outputs.is_empty(), "nothing follows the end: {:?}", names(outputs));
        for output in outputs {
            match output {
                Output::Emit { seq, fact, at, .. } => {
                    assert_eq!(*seq, self.next_seq, "facts are contiguous");
                    self.next_seq += 1;
                    assert_eq!(self.finals, 0, "no fact after the last");
                    self.fact(fact, *at);
                }
                Output::Desktop { push: DesktopPush::Incoming { .. }, .. } => self.incoming += 1,
                Output::Invite { .. } => {
                    self.invites += 1;
                    assert!(self.incoming >= self.invites, "the desktop is told first");
                }
                Output::HangUp { leg, .. } => {
                    assert!(self.roles.contains_key(leg), "{leg} was never opened");
                    self.hung_up.insert(*leg);
                }
                Output::Media(plan) => self.plan(plan),
                Output::Finished => self.finished = true,
                _ => {}
            }
        }
    }

    fn fact(&mut self, fact: &Fact, at: Timestamp) {
        match fact {
            Fact::LegOpened { leg, role } => {
                assert!(self.roles.insert(*leg, *role).is_none(), "{leg} is not reused");
            }
            Fact::LegClosed { leg, .. } => assert!(self.closed.insert(*leg), "{leg} is closed once"),
            Fact::TransferDecided { decision, .. } => {
                assert!(!self.decided.contains(&decision.transfer_id), "one decision per transfer");
                assert_eq!(self.decided.len(), self.ended.len(), "one transfer at a time");
                self.decided.push(decision.transfer_id.clone());
                (self.accepted, self.acked, self.whispered) = (None, false, false);
            }
            Fact::TransferEnded { transfer_id, .. } => {
                assert!(self.decided.contains(transfer_id) && !self.ended.contains(transfer_id));
                self.ended.push(transfer_id.clone());
            }
            Fact::AgentOffered { .. } => (self.accepted, self.acked, self.whispered) = (None, false, false),
            Fact::AgentAccepted { leg, .. } => {
                self.accepted = Some(*leg);
                self.accepted_at = at;
            }
            Fact::ScreenpopAcked { .. } => self.acked = true,
            Fact::WhisperEnded { .. } => self.whispered = true,
            Fact::BridgeCompleted { degraded, .. } => {
                assert!(self.accepted.is_some(), "no bridge without a yes");
                assert!(self.acked || degraded.is_some(), "no bridge without a receipt or a reason");
                let waited = at.unix_millis() - self.accepted_at.unix_millis();
                let gave_up = degraded.as_deref() == Some("ack_timeout");
                assert!(!gave_up || waited >= 3_000, "gave up on the receipt after {waited} ms");
                assert!(self.whispered, "no bridge without a briefing");
                self.bridged = self.accepted;
            }
            Fact::ProducerFinal { count } => {
                self.finals += 1;
                assert_eq!(*count, self.next_seq);
            }
            _ => {}
        }
    }

    fn plan(&self, plan: &MediaPlan) {
        for (leg, source) in &plan.egress {
            assert!(
                !self.hung_up.contains(leg) && !self.closed.contains(leg),
                "{leg} is over and still served"
            );
            let to_caller = *leg == LegId::CALLER;
            match source {
                Source::Leg(from) if to_caller => {
                    if self.roles.get(from) == Some(&Role::HumanAgent) {
                        assert_eq!(Some(*from), self.bridged, "only the bridged human is heard");
                    }
                }
                Source::Prompt(play) => {
                    let prompt = plan.prompts.get(play).expect("a plan is complete by itself");
                    let text = spoken(prompt);
                    let private = ["say", "whisper", "presence", "press_to_accept", "caller_left"];
                    let leaked = to_caller && private.iter().any(|word| text.contains(word));
                    assert!(!leaked, "the caller heard {text}");
                }
                Source::Silence => assert!(!to_caller, "the caller is never given silence"),
                Source::Leg(from) => {
                    let human = self.roles.get(leg) == Some(&Role::HumanAgent);
                    assert!(!human || *from != LegId::CALLER || self.bridged == Some(*leg));
                }
                Source::HoldBed | Source::Mix(_) => {}
                Source::Comfort => assert!(to_caller, "only the caller is given a turn"),
            }
            match self.roles.get(leg) {
                Some(Role::VoiceAgent) => {
                    let heard = matches!(source, Source::Silence | Source::Leg(LegId::CALLER));
                    assert!(heard, "the voice agent hears the caller or nothing, not {source:?}");
                }
                Some(Role::HumanAgent) => {
                    let own =
                        matches!(source, Source::Silence | Source::Prompt(_) | Source::Leg(LegId::CALLER));
                    assert!(own, "a human agent hears prompts and the caller, not {source:?}");
                }
                Some(Role::Caller) | None => assert!(to_caller, "{leg} is heard by nobody's leg"),
            }
        }
        let served = plan.egress.contains_key(&LegId::CALLER);
        let over = self.hung_up.contains(&LegId::CALLER) || self.closed.contains(&LegId::CALLER);
        assert!(served || over || !self.caller_up, "an answered caller always hears something");
    }
}

fn pick_leg(bench: &Bench, choice: u8) -> LegId {
    let legs = bench.call.core.legs.ids();
    if legs.is_empty() || choice == 255 {
        return LegId(u16::from(choice));
    }
    legs[usize::from(choice) % legs.len()]
}

/// What a move means now. Half of them fit the state of the world, half do not.
fn input_of(bench: &Bench, (what, choice, _): Move) -> Input {
    let leg = pick_leg(bench, choice);
    let agent = person(["ann", "bob", "cid"][usize::from(choice) % 3]);
    let current = bench.call.core.last_transfer();
    let transfer = if choice == 77 { TransferId::of(&CallId::from_random(7), 99) } else { current };
    let epoch = bench.plan.as_ref().map_or(Epoch(0), |plan| plan.epoch);
    let epoch = Epoch(epoch.0.saturating_sub(u64::from(choice % 7 == 6)));
    let command = |body| {
        let id = format!("cmd_{what}_{choice}_{}", bench.all.len());
        Input::Command(Command { id, call_id: CallId::from_random(7), body })
    };
    let causes =
        [LegCause::RemoteHangUp, LegCause::Lost, LegCause::Busy, LegCause::Declined, LegCause::Refused];
    let cause = causes[usize::from(choice) % causes.len()];
    match what % 32 {
        0..=4 => Input::Answered { leg },
        5 => Input::Ringing { leg },
        6 if leg == LegId::CALLER && !choice.is_multiple_of(8) => Input::Timeout,
        6 => Input::Ended { leg, cause, status: None },
        7..=9 => Input::TargetFound {
            target: Target {
                agent,
                trusted: !choice.is_multiple_of(4),
                accept_timeout: Duration::from_secs(20),
                accept_on_answer: choice.is_multiple_of(5),
                desktop: !choice.is_multiple_of(3),
                ..target("ann")
            },
            estimate_s: (choice.is_multiple_of(2)).then_some(u32::from(choice)),
        },
        10 => Input::NobodyAvailable,
        11..=13 => Input::DesktopAcked { agent, transfer, revision: u32::from(choice % 4) },
        14 | 15 => Input::Accept { agent, transfer, means: Means::Ui },
        16 => Input::Decline { agent, transfer, means: Means::Ui, reason: DeclineReason::Declined },
        17 => Input::HandBack { agent },
        18 => Input::Media(MediaReport::Applied { epoch, egress: leg }),
        19 | 20 => Input::Media(MediaReport::AudioSeen { leg, epoch }),
        21..=23 => {
            let digit = ['1', '2', '0', '*', '1', '1'][usize::from(choice) % 6];
            Input::Media(MediaReport::Digit { leg, digit })
        }
        24 => Input::Media(MediaReport::Drained { leg }),
        25 if choice.is_multiple_of(3) => Input::Media(MediaReport::Spoke { leg }),
        25 if choice % 3 == 1 => Input::Media(MediaReport::Quiet { leg }),
        25 => Input::Media(MediaReport::SourceLost { leg }),
        26 => Input::PeerHold { leg, held: choice.is_multiple_of(2) },
        27 | 28 => {
            let mut decision = bench.decision();
            decision.trigger.waives_waits = choice.is_multiple_of(3);
            command(CommandBody::TransferDecided { decision })
        }
        29 => request(&format!("sig_{choice}")),
        30 if choice.is_multiple_of(3) => command(CommandBody::TransferCancel { transfer_id: transfer }),
        30 if choice % 3 == 1 => {
            command(CommandBody::PayloadUndelivered { transfer_id: transfer, destination: "crm".to_owned() })
        }
        30 => command(CommandBody::PayloadReady {
            transfer_id: transfer,
            payload: Box::new(brief::tests::revision(u32::from(choice))),
        }),
        _ if choice == 0 => Input::Drain,
        _ => {
            Input::Signal(Signal { id: format!("b{choice}"), at_ms: None, body: SignalBody::TransferCancel })
        }
    }
}

/// What a world in which everything works would do next.
fn helpful(bench: &Bench, choice: u8) -> Input {
    let standing = bench.call.standing();
    let human = standing.legs.iter().rev().find(|(_, role)| **role == Role::HumanAgent).map(|(leg, _)| *leg);
    let unanswered = standing.legs.keys().copied().find(|leg| !bench.call.core.legs.is_up(*leg));
    let caller_play = bench.play_at(LegId::CALLER);
    let played = |play| Input::Media(MediaReport::PlayEnded { play, played_pm: 1_000 });
    let agent = bench
        .all
        .iter()
        .rev()
        .find_map(|output| match output {
            Output::Invite { agent, .. } => Some(agent.clone()),
            _ => None,
        })
        .unwrap_or_else(|| person("ann"));
    let transfer = bench.call.core.last_transfer();
    let epoch = bench.plan.as_ref().map_or(Epoch(0), |plan| plan.epoch);
    match (standing.phase, human, caller_play) {
        (None, _, Some(play)) => played(play),
        (None, _, None) if standing.state == "with_voice_agent" && choice.is_multiple_of(2) => {
            let body = CommandBody::TransferDecided { decision: bench.decision() };
            let id = format!("cmd_{}", bench.all.len());
            Input::Command(Command { id, call_id: CallId::from_random(7), body })
        }
        (Some(Phase::Bridged), Some(leg), _) => {
            let leg = if choice.is_multiple_of(2) { leg } else { LegId::CALLER };
            Input::Media(MediaReport::AudioSeen { leg, epoch })
        }
        (Some(Phase::Barrier), _, None) => Input::DesktopAcked { agent, transfer, revision: 200 },
        (Some(Phase::Barrier), _, Some(play)) if choice.is_multiple_of(2) => played(play),
        (Some(Phase::Barrier), _, Some(_)) => Input::DesktopAcked { agent, transfer, revision: 200 },
        (Some(Phase::Briefing), Some(leg), _) if choice.is_multiple_of(3) => {
            bench.play_at(leg).map_or(Input::Timeout, played)
        }
        (Some(Phase::Briefing), Some(leg), _) => Input::Media(MediaReport::Digit { leg, digit: '1' }),
        (Some(Phase::Announcing | Phase::Offering), Some(leg), _) if choice.is_multiple_of(2) => {
            Input::Answered { leg }
        }
        (Some(Phase::Announcing), _, Some(play)) => played(play),
        (Some(Phase::Announcing), _, None) if choice.is_multiple_of(3) => {
            Input::Media(MediaReport::Drained { leg: LegId::VOICE_AGENT })
        }
        (Some(_), _, _) => Input::TargetFound {
            target: Target {
                agent: person(&format!("hum{choice}")),
                desktop: !choice.is_multiple_of(4),
                ..target("ann")
            },
            estimate_s: None,
        },
        (None, ..) => unanswered.map_or(Input::Timeout, |leg| Input::Answered { leg }),
    }
}

/// Any chain of up to four links.
fn chain_of(choice: u8) -> Vec<Fallback> {
    let link = |number: u8| match number % 4 {
        0 => Fallback::Queue(QueueId::parse("front_desk").unwrap()),
        1 => Fallback::VoiceAgent,
        2 => Fallback::Voicemail,
        _ => Fallback::Callback,
    };
    (0..choice % 5).map(|place| link(choice >> (2 * place.min(3)))).collect()
}

/// Plays the moves, then lets the caller leave and the far sides confirm what was ordered.
fn play(chain: u8, moves: &[Move]) {
    let mut bench = Bench::of(fallback::two_queues(chain_of(chain)), Bench::number());
    let mut judge = Judge::default();
    judge.see(&bench.all.clone());
    for random in moves {
        let (what, choice, wait) = *random;
        // Mostly moments, now and then long enough for a deadline.
        bench.run(if wait.is_multiple_of(16) { u64::from(wait) % 30_000 } else { u64::from(wait) % 400 });
        judge.see(&std::mem::take(&mut bench.last));
        let input = match bench.play_at(pick_leg(&bench, choice)) {
            _ if what < 150 => helpful(&bench, choice),
            // Some prompts are cut, and their ends are reported late.
            Some(play) if what >= 240 => Input::Media(MediaReport::PlayEnded { play, played_pm: 300 }),
            Some(_) | None => input_of(&bench, *random),
        };
        judge.caller_up |= matches!(input, Input::Answered { leg: LegId::CALLER });
        bench.put(input);
        judge.see(&std::mem::take(&mut bench.last));
        if what.is_multiple_of(2) {
            for play in std::mem::take(&mut bench.cut) {
                bench.media(MediaReport::PlayEnded { play, played_pm: 500 });
                judge.see(&std::mem::take(&mut bench.last));
            }
        }
    }
    if bench.call.core.legs.ids().contains(&LegId::CALLER) {
        bench.ended(LegId::CALLER, LegCause::RemoteHangUp);
        judge.see(&std::mem::take(&mut bench.last));
    }
    bench.run(60_000);
    judge.see(&std::mem::take(&mut bench.last));
    assert!(judge.finished, "a call without a caller ends");
    assert_eq!(judge.finals, 1);
    assert_eq!(judge.decided, judge.ended, "every decision has its end");
    assert_eq!(judge.roles.keys().copied().collect::<BTreeSet<_>>(), judge.closed, "the ledger balances");
    bench.put(Input::Timeout).put(request("late")).put(Input::Drain);
    judge.see(&bench.last);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_inputs_breaks_an_invariant(
        chain in any::<u8>(),
        moves in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<u16>()), 1..160)
    ) {
        play(chain, &moves);
    }
}

/// One way in which a person can be asked for, as input number `index`.
fn trigger(bench: &Bench, how: u8, index: usize) -> Input {
    let stale = index.is_multiple_of(5);
    match how % 4 {
        0 => request(&format!("k_{index}")),
        // The same signal, sent twice by a platform that got no answer.
        1 => request("k_again"),
        _ => {
            let mut decision = bench.decision();
            if stale && let Some(first) = bench.all.iter().find_map(first_decision) {
                decision = first;
            }
            // The same command twice, or another with the same decision.
            let id = if how % 4 == 2 { "k_command".to_owned() } else { format!("k_command_{index}") };
            let body = CommandBody::TransferDecided { decision };
            Input::Command(Command { id, call_id: CallId::from_random(7), body })
        }
    }
}

fn first_decision(output: &Output) -> Option<Decision> {
    match output {
        Output::Emit { fact: Fact::TransferDecided { decision, .. }, .. } => Some(decision.clone()),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn however_many_triggers_there_is_one_decision(
        triggers in proptest::collection::vec((any::<u8>(), 0..700_u64), 1..40),
        accepts in any::<bool>(),
    ) {
        let mut bench = Bench::expecting();
        for (index, (how, wait)) in triggers.into_iter().enumerate() {
            bench.run(wait);
            if bench.count("transfer.ended") > 0 {
                // What comes now would begin another transfer.
                break;
            }
            let input = trigger(&bench, how, index);
            bench.put(input);
            // The transfer goes on meanwhile, up to the bridge where somebody accepts.
            if accepts {
                let next = helpful(&bench, how);
                bench.put(next);
            }
            prop_assert!(bench.count("transfer.decided") <= 1 || bench.count("transfer.ended") > 0);
        }
        bench.run(1_000);
        prop_assert!(bench.count("transfer.ended") > 0 || bench.count("transfer.decided") == 1);
    }
}
