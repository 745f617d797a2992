//! A call against a script: inputs in, outputs out, in virtual time.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test picks the few outputs that it is about")]

use super::media::{MediaPlan, Part, Prompt, Source};
use super::outcome::{DegradedReason, FailureCause, FallbackTaken, Outcome};
use super::*;
use crate::clock::Timestamp;
use crate::command::{Command, CommandBody};
use crate::conversation::CallerIdentity;
use crate::event::{DeclineReason, Means, Mode, StoredRecording};
use crate::id::{CallId, DecisionId, EdgeId, Epoch, HumanAgentId, QueueId, TenantId};
use crate::payload::Catalog;
use crate::pii::Pii;
use crate::policy::{Category, Decision, Origin, Policy, Trigger};
use crate::signal::{RequestReason, Signal, SignalBody, TransferRequest};

mod cold;
mod fallback;
mod grid;
mod leaving;
mod random;
mod recording;
mod replay;
mod scenarios;
mod tap;
mod waiting;

/// The second link of a voice agent gets whatever id is free.
const HUMAN: LegId = LegId::FIRST_HUMAN;

fn rules() -> CallRules {
    CallRules {
        tenant: TenantId::parse("t_acme").unwrap(),
        edge: EdgeId::parse("edge_1").unwrap(),
        policy: Arc::new(test_policy()),
        catalog: Arc::new(Catalog::default()),
        queues: vec![QueueRules {
            id: QueueId::parse("nurse_line").unwrap(),
            spoken: "dest.nurse".to_owned(),
            attempts_max: 2,
            patience: None,
            payload_ack: PayloadAck::Desktop,
            fallback: vec![Fallback::VoiceAgent],
            on_agent_bye: Survivor::End,
            on_agent_lost: Survivor::Reoffer,
            mode: Mode::Warm,
            wait_default_s: 30,
        }],
        lang: "en".to_owned(),
        disclosure: "disclosure.ai_recording.en".to_owned(),
        hold_by_reinvite: true,
        recording: true,
        on_voice_agent_bye: OnVoiceAgentBye::TransferDefault,
        rtp_timeout: Duration::from_secs(20),
        cancel_while_waiting: false,
        public_url: "https://warmbridge.example".to_owned(),
    }
}

fn test_policy() -> Policy {
    Policy::default()
}

fn person(name: &str) -> HumanAgentId {
    HumanAgentId::parse(name).unwrap()
}

fn target(name: &str) -> Target {
    Target {
        agent: person(name),
        ring_timeout: Duration::from_secs(20),
        accept_timeout: Duration::from_secs(20),
        lang: "en".to_owned(),
        trusted: true,
        accept_on_answer: false,
        desktop: true,
    }
}

/// A call with its own clock and the naive world around it that every test needs: it
/// remembers the plan, and reports the end of prompts that were taken away.
struct Bench {
    call: Call,
    now_ms: u64,
    /// Everything so far.
    all: Vec<Output>,
    /// What the last input brought.
    last: Vec<Output>,
    plan: Option<MediaPlan>,
    /// Prompts that a plan took away before their end was reported.
    cut: Vec<PlayId>,
    commands: u32,
    /// The recorder says what lies on disk as soon as a leg is closed.
    recorder: bool,
}

impl Bench {
    fn new() -> Self {
        Self::with(rules())
    }

    fn with(rules: CallRules) -> Self {
        Self::of(rules, CallerIdentity::default())
    }

    /// A caller who shows a number.
    fn number() -> CallerIdentity {
        CallerIdentity { e164: Some(Pii::new("+15555550142".to_owned())), restricted: false }
    }

    fn of(rules: CallRules, caller: CallerIdentity) -> Self {
        let arrival = Arrival {
            call: CallId::from_random(7),
            trunk: "carrier".to_owned(),
            caller_tag: None,
            caller,
            call_type: None,
        };
        let (call, last) = Call::new(moment(0), arrival, Arc::new(rules));
        let mut bench = Self {
            call,
            now_ms: 0,
            all: Vec::new(),
            last: Vec::new(),
            plan: None,
            cut: Vec::new(),
            commands: 0,
            recorder: true,
        };
        bench.note(last);
        bench
    }

    fn note(&mut self, outputs: Vec<Output>) {
        for output in &outputs {
            if let Output::Media(plan) = output {
                let before = self.plan.replace(plan.clone());
                let gone = before.into_iter().flat_map(|plan| plan.prompts.into_keys());
                self.cut.extend(gone.filter(|play| !plan.prompts.contains_key(play)));
            }
        }
        self.all.extend(outputs.clone());
        self.last = outputs;
    }

    fn put(&mut self, input: Input) -> &mut Self {
        let mut outputs = self.call.handle(moment(self.now_ms), input);
        if self.recorder {
            for leg in closed_in(&outputs) {
                let recording =
                    StoredRecording { pieces: 1, duration_ms: 20, lost_ms: 0, sha256: "0".repeat(64) };
                let stored = Input::RecordingStored { leg, recording };
                outputs.extend(self.call.handle(moment(self.now_ms), stored));
            }
        }
        self.note(outputs);
        self
    }

    fn at(&mut self, now_ms: u64) -> &mut Self {
        assert!(now_ms >= self.now_ms, "time goes forward");
        self.now_ms = now_ms;
        self
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.at(self.now_ms + ms)
    }

    /// Lets time pass to `now_ms`, firing every timeout on the way at its own time.
    fn run_to(&mut self, now_ms: u64) -> &mut Self {
        let mut collected = Vec::new();
        while let Some(due) = self.call.next_timeout().filter(|due| due.millis() <= now_ms) {
            let due_ms = due.micros().div_ceil(1_000).max(self.now_ms);
            self.at(due_ms).put(Input::Timeout);
            collected.append(&mut self.last);
            let next = self.call.next_timeout();
            assert!(
                next.is_none_or(|next| next > Now::from_millis(due_ms)),
                "a deadline stays due: {next:?}"
            );
        }
        self.at(now_ms);
        self.last = collected;
        self
    }

    fn run(&mut self, ms: u64) -> &mut Self {
        self.run_to(self.now_ms + ms)
    }

    fn answered(&mut self, leg: LegId) -> &mut Self {
        self.put(Input::Answered { leg })
    }

    fn ended(&mut self, leg: LegId, cause: LegCause) -> &mut Self {
        self.put(Input::Ended { leg, cause, status: None })
    }

    fn media(&mut self, report: MediaReport) -> &mut Self {
        self.put(Input::Media(report))
    }

    fn play_at(&self, leg: LegId) -> Option<PlayId> {
        match self.plan.as_ref()?.egress.get(&leg)? {
            Source::Prompt(play) => Some(*play),
            Source::Leg(_) | Source::HoldBed | Source::Silence | Source::Comfort | Source::Mix(_) => None,
        }
    }

    /// The media plane reports the prompts that were taken away, as it does within a tick.
    fn report_cut(&mut self) -> &mut Self {
        for play in std::mem::take(&mut self.cut) {
            self.media(MediaReport::PlayEnded { play, played_pm: 400 });
        }
        self
    }

    /// The prompt at `leg` was played to its last sample.
    fn played(&mut self, leg: LegId) -> &mut Self {
        let play = self.play_at(leg).expect("a prompt plays there");
        self.media(MediaReport::PlayEnded { play, played_pm: 1_000 })
    }

    fn decision(&self) -> Decision {
        let transfer_id = self.call.core.next_transfer();
        Decision {
            decision_id: DecisionId::of(&transfer_id),
            transfer_id,
            call_id: CallId::from_random(7),
            trigger: Trigger {
                category: Category::CallerRequest,
                rule_id: "asked".to_owned(),
                evidence: String::new(),
                mandatory: true,
                waives_waits: false,
                also: Vec::new(),
            },
            policy_version: "rules@0".to_owned(),
            origin: Origin::Function,
        }
    }

    fn command(&mut self, body: CommandBody) -> &mut Self {
        self.commands += 1;
        let id = format!("cmd_{}", self.commands);
        self.put(Input::Command(Command { id, call_id: CallId::from_random(7), body }))
    }

    fn decide(&mut self) -> &mut Self {
        let decision = self.decision();
        self.command(CommandBody::TransferDecided { decision })
    }

    fn find(&mut self, target: Target) -> &mut Self {
        self.put(Input::TargetFound { target, estimate_s: Some(20) })
    }

    fn transfer(&self) -> TransferId {
        self.call.core.last_transfer()
    }

    fn acked(&mut self, agent: &str, revision: u32) -> &mut Self {
        let transfer = self.transfer();
        self.put(Input::DesktopAcked { agent: person(agent), transfer, revision })
    }

    fn key(&mut self, leg: LegId, digit: char) -> &mut Self {
        self.media(MediaReport::Digit { leg, digit })
    }

    /// A person outside the directory is on the phone.
    fn proving() -> Self {
        let mut bench = Self::draining();
        bench.find(Target { trusted: false, ..target("ann") });
        bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
        bench.run(6_000).played(LegId::CALLER);
        bench.after(1_000).answered(HUMAN);
        bench
    }

    /// The edge's own policy fired; the cloud's decision is awaited.
    fn expecting() -> Self {
        let mut bench = Self::talking();
        bench.at(20_000).put(request("sig_1"));
        bench
    }

    /// Nobody took the call; the caller hears so before the voice agent again.
    fn returned() -> Self {
        let mut bench = Self::offering();
        bench.put(Input::Ended { leg: HUMAN, cause: LegCause::Busy, status: Some(486) });
        bench.put(Input::NobodyAvailable);
        bench
    }

    /// Nobody took the call and the voice agent is gone.
    fn closing() -> Self {
        let mut bench = Self::offering();
        bench.ended(LegId::VOICE_AGENT, LegCause::Lost);
        bench.put(Input::Ended { leg: HUMAN, cause: LegCause::Busy, status: Some(486) });
        bench.put(Input::NobodyAvailable);
        bench
    }

    /// Nobody took the call; the caller is told how to leave a message.
    fn inviting() -> Self {
        let chain = vec![Fallback::Voicemail, Fallback::Callback, Fallback::VoiceAgent];
        let mut bench = Self::of(fallback::two_queues(chain), Self::number());
        bench.at(100).answered(LegId::CALLER).at(300).answered(LegId::VOICE_AGENT);
        bench.at(5_000).played(LegId::CALLER).at(20_000).decide().put(Input::NobodyAvailable);
        bench
    }

    /// The caller leaves a message, and has said a word.
    fn recording() -> Self {
        let mut bench = Self::inviting();
        bench.run(7_000).played(LegId::CALLER).run(900).media(MediaReport::Spoke { leg: LegId::CALLER });
        bench
    }

    /// The caller is asked whether to call back.
    fn asking() -> Self {
        let mut bench = Self::inviting();
        bench.run(7_000).played(LegId::CALLER).run(5_000);
        bench.media(MediaReport::Quiet { leg: LegId::CALLER });
        bench
    }

    /// The caller left in the briefing; the person is told.
    fn farewell() -> Self {
        let mut bench = Self::briefing();
        bench.after(500).ended(LegId::CALLER, LegCause::RemoteHangUp);
        bench
    }

    /// The switch took place and audio flows both ways.
    fn flows(&mut self, human: LegId) -> &mut Self {
        let epoch = self.plan.as_ref().map_or(Epoch(0), |plan| plan.epoch);
        self.media(MediaReport::Applied { epoch, egress: LegId::CALLER });
        self.media(MediaReport::AudioSeen { leg: LegId::CALLER, epoch });
        self.media(MediaReport::AudioSeen { leg: human, epoch })
    }

    // Scripts up to a state.

    fn disclosing() -> Self {
        let mut bench = Self::new();
        bench.at(100).answered(LegId::CALLER);
        bench
    }

    fn talking() -> Self {
        Self::talking_with(rules())
    }

    fn talking_with(rules: CallRules) -> Self {
        let mut bench = Self::with(rules);
        bench.at(100).answered(LegId::CALLER).at(300).answered(LegId::VOICE_AGENT);
        bench.at(5_000).played(LegId::CALLER);
        bench
    }

    fn draining() -> Self {
        let mut bench = Self::talking();
        bench.at(20_000).decide();
        bench
    }

    fn calling() -> Self {
        let mut bench = Self::draining();
        bench.find(target("ann"));
        bench
    }

    /// The message plays, the phone rings.
    fn announcing() -> Self {
        let mut bench = Self::calling();
        bench.after(200).media(MediaReport::Drained { leg: LegId::VOICE_AGENT });
        bench.put(Input::Ringing { leg: HUMAN });
        bench
    }

    /// The caller is on the hold bed, the phone rings.
    fn offering() -> Self {
        let mut bench = Self::announcing();
        bench.run(6_000).played(LegId::CALLER);
        bench
    }

    fn briefing() -> Self {
        let mut bench = Self::offering();
        bench.run(2_000).answered(HUMAN);
        bench
    }

    fn barrier() -> Self {
        let mut bench = Self::briefing();
        bench.run(4_000).played(HUMAN).after(1_000).key(HUMAN, '1');
        bench
    }

    fn bridged() -> Self {
        let mut bench = Self::barrier();
        bench.after(30).acked("ann", 1);
        bench
    }

    fn facts(&self) -> Vec<&Fact> {
        facts(&self.all)
    }

    fn outcome(&self) -> Option<(Outcome, FallbackTaken)> {
        let ends: Vec<_> = self
            .facts()
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::TransferEnded { outcome, fallback, .. } => Some((*outcome, *fallback)),
                _ => None,
            })
            .collect();
        assert!(ends.len() <= 1, "one end per transfer: {ends:?}");
        ends.first().copied()
    }

    /// Closes every leg that was ordered to end, as the far sides do in the end.
    fn count(&self, name: &str) -> usize {
        self.facts().into_iter().filter(|fact| fact_name(fact) == name).count()
    }

    fn has(&self, name: &str) -> bool {
        names(&self.last).iter().any(|output| output == name)
    }

    /// Nothing is open and everything that was begun was ended, once.
    fn balanced(&self) {
        assert!(self.call.is_finished(), "{:?}", self.call.standing());
        assert_eq!(self.count("leg.opened"), self.count("leg.closed"));
        assert_eq!(self.count("transfer.decided"), self.count("transfer.ended"));
        assert_eq!(self.count("hold.started"), self.count("hold.ended"));
        assert_eq!(self.count("recording.started"), self.count("recording.stopped"));
        assert!(self.count("recording.paused") >= self.count("recording.resumed"));
        assert_eq!(self.count("producer.final"), 1);
        assert!(matches!(self.all.last(), Some(Output::Finished)));
        let seqs: Vec<u64> = self
            .all
            .iter()
            .filter_map(|output| match output {
                Output::Emit { seq, .. } => Some(*seq),
                _ => None,
            })
            .collect();
        assert!(seqs.iter().enumerate().all(|(index, seq)| *seq == index as u64), "{seqs:?}");
        let last = self.facts().into_iter().next_back().cloned();
        assert_eq!(last, Some(Fact::ProducerFinal { count: seqs.len() as u64 }));
    }

    fn all_legs_end(&mut self) -> &mut Self {
        for leg in self.call.core.legs.ids() {
            self.ended(leg, LegCause::LocalHangUp);
        }
        self
    }

    fn hears(&self, leg: LegId) -> String {
        match self.plan.as_ref().and_then(|plan| plan.egress.get(&leg)) {
            None => "-".to_owned(),
            Some(source) => self.source(source),
        }
    }

    fn source(&self, source: &Source) -> String {
        match source {
            Source::Leg(leg) => leg.to_string(),
            Source::HoldBed => "hold bed".to_owned(),
            Source::Comfort => "comfort noise".to_owned(),
            Source::Silence => "silence".to_owned(),
            Source::Mix(legs) => format!("{legs:?}"),
            Source::Prompt(play) => {
                let prompt = self.plan.as_ref().and_then(|plan| plan.prompts.get(play));
                prompt.map_or_else(|| "?".to_owned(), spoken)
            }
        }
    }
}

fn spoken(prompt: &Prompt) -> String {
    let parts: Vec<_> = prompt
        .parts
        .iter()
        .map(|part| match part {
            Part::Clip(clip) => clip.0.clone(),
            Part::Say { .. } => "say".to_owned(),
        })
        .collect();
    parts.join("+")
}

fn moment(ms: u64) -> Moment {
    let start = 1_795_330_895_000;
    Moment {
        now: Now::from_millis(ms),
        wall: Timestamp::from_unix_millis(start + i64::try_from(ms).unwrap()),
    }
}

fn closed_in(outputs: &[Output]) -> Vec<LegId> {
    let closed = |fact: &Fact| match fact {
        Fact::LegClosed { leg, .. } => Some(*leg),
        _ => None,
    };
    facts(outputs).into_iter().filter_map(closed).collect()
}

fn facts(outputs: &[Output]) -> Vec<&Fact> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Emit { fact, .. } => Some(fact),
            _ => None,
        })
        .collect()
}

/// The name of a fact as in the record.
fn fact_name(fact: &Fact) -> String {
    serde_json::to_value(fact).unwrap()["type"].as_str().unwrap().to_owned()
}

/// One short name per output.
fn names(outputs: &[Output]) -> Vec<String> {
    outputs
        .iter()
        .map(|output| match output {
            Output::Answer => "Answer".to_owned(),
            Output::ConnectVoiceAgent { leg } => format!("ConnectVoiceAgent({leg})"),
            Output::FindTarget { exclude, .. } => format!("FindTarget(-{})", exclude.len()),
            Output::Invite { leg, agent, .. } => format!("Invite({leg} {agent})"),
            Output::HangUp { leg, cause } => format!("HangUp({leg} {cause:?})"),
            Output::Hold { leg } => format!("Hold({leg})"),
            Output::Resume { leg } => format!("Resume({leg})"),
            Output::Media(_) => "Media".to_owned(),
            Output::DrainVoiceAgent { .. } => "Drain".to_owned(),
            Output::ClearVoiceAgent { .. } => "Clear".to_owned(),
            Output::TellVoiceAgent { status, .. } => format!("Tell({status})"),
            Output::Desktop { push, .. } => {
                let push = match push {
                    DesktopPush::Incoming { .. } => "incoming",
                    DesktopPush::Card { .. } => "card",
                    DesktopPush::Caption { .. } => "caption",
                    DesktopPush::Accepted { .. } => "accepted",
                    DesktopPush::Bridged { .. } => "bridged",
                    DesktopPush::Ended { reason, .. } => reason,
                };
                format!("Desktop({push})")
            }
            Output::Emit { fact, .. } => fact_name(fact),
            Output::PublishDecision { .. } => "PublishDecision".to_owned(),
            Output::Learn { waited_s, .. } => format!("Learn({waited_s})"),
            Output::Record { leg, on } => format!("Record({leg} {})", if *on { "on" } else { "off" }),
            Output::DiscardRecordings => "DiscardRecordings".to_owned(),
            Output::Finished => "Finished".to_owned(),
        })
        .collect()
}

fn request(id: &str) -> Input {
    Input::Signal(Signal {
        id: id.to_owned(),
        at_ms: None,
        body: SignalBody::TransferRequest(TransferRequest {
            reason: RequestReason::CallerRequest,
            queue: None,
            target: None,
            summary: None,
            next_action: None,
            caller_message: None,
            whisper: None,
            on_fail: None,
            fields: Vec::new(),
        }),
    })
}
