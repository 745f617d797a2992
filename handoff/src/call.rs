//! One call, from INVITE to the last record: every transition it can make. The machine is
//! given facts ([`Input`]) and answers with orders ([`Output`]); it has no other effect.
//! No model takes part: accept, decline, hang-up, fallback and bridge are decided here.
//! It knows legs by [`LegId`] only; the edge maps them to SIP dialogs and streams.

mod bridge;
mod brief;
mod command;
mod core;
mod decide;
mod ending;
mod fallback;
mod io;
mod legs;
pub mod media;
mod offer;
pub mod outcome;
mod silence;
mod talk;
mod tap;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

pub use self::io::{
    Arrival, CallRules, DesktopPush, Fallback, Input, OnVoiceAgentBye, Output, PayloadAck, QueueRules,
    Standing, Survivor, Target, Waiting,
};

use self::bridge::Bridge;
use self::core::{Core, VoiceLink, earliest};
use self::ending::Ending;
use self::fallback::FallingBack;
use self::legs::Answered;
use self::media::{MediaReport, Stretch};
use self::outcome::{LegCause, Phase};
use self::silence::HeldBy;
use self::talk::{Conversing, Disclosing};
use self::transfer::Transfer;
use crate::clock::{Moment, Now};
use crate::conversation::Context;
use crate::event::{Fact, Role};
use crate::id::{LegId, PlayId, TransferId};
use crate::payload::Payload;

/// How long somebody else's decision on a mandatory trigger, or somebody else's payload, is
/// awaited. Longer lets a cold function decide; shorter keeps a caller who asked for help
/// from waiting for a cloud that is down.
pub const EDGE_FALLBACK: Duration = Duration::from_millis(800);

/// How long an accepted call waits for the acknowledgement of its payload. Longer gives a
/// slow desktop its chance; shorter keeps two people from listening to silence.
pub const BARRIER_WAIT_MAX: Duration = Duration::from_secs(3);

/// How long queued speech of the voice agent may play out after the decision. Longer lets it
/// finish its sentence; shorter brings the message sooner.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// Longest transition message or disclosure, after which its end is taken as unreported.
const PROMPT_LIMIT: Duration = Duration::from_secs(30);

/// Longest notice, hold update or closing message.
const NOTICE_LIMIT: Duration = Duration::from_secs(15);

/// How often a waiting caller hears how long it still takes; oftener is a nuisance.
const HOLD_UPDATE_EVERY: Duration = Duration::from_secs(30);

/// Least wait that is spoken, in seconds: "now" would be a promise that nobody can keep.
const SPOKEN_WAIT_MIN_S: u32 = 5;

/// How long the directory may take. It answers at once; only a lost answer takes longer.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);

/// Longest ring, whatever a target says: carriers give up near two minutes.
const RING_LIMIT: Duration = Duration::from_secs(120);

/// How long an answered phone may go without a yes, in all.
const BRIEFING_LIMIT: Duration = Duration::from_secs(45);

/// How long two-way audio may take to be seen after the bridge.
const AUDIO_PROOF_LIMIT: Duration = Duration::from_secs(2);

/// By then, counted from the decision, a required destination has reported that it missed
/// its budget: building takes at most 1.5 s, delivery 5 s in all, the report a moment.
const DELIVERY_SETTLES: Duration = Duration::from_secs(7);

/// How long the voice agent's link may take to open.
const VOICE_CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long the caller's acknowledgement of our answer may take: RFC 3261 gives it 32 s.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(35);

/// How long the end of a leg is awaited after we ordered it: one SIP transaction is 32 s.
const CLOSE_LIMIT: Duration = Duration::from_secs(35);

/// How long the disk may take to confirm the recordings of a call that is over. Longer keeps a
/// finished call in memory; without the confirmation its record names no digest.
const STORE_LIMIT: Duration = Duration::from_secs(3);

/// Longest message that is recorded. Longer fills the disk by one forgotten handset; shorter
/// cuts off somebody who explains.
const MESSAGE_LIMIT: Duration = Duration::from_secs(120);

/// How long the key that answers a question may take after the question.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// Longest goodbye to a human agent whose caller left.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

/// No call lasts longer; a forgotten one would be billed for days.
const CALL_LIMIT: Duration = Duration::from_secs(4 * 3_600);

/// Most transfers of one call; more is a loop between rules and fallbacks.
const TRANSFERS_MAX: u32 = 8;

/// Most persons tried in one transfer, whatever a queue says.
const ATTEMPTS_LIMIT: u32 = 20;

/// Most rules named beside the one that names a decision: the payload has room for six.
const ALSO_MAX: usize = 6;

/// Ids of commands that are remembered, so that a repeat has no effect. A queue redelivers
/// within minutes; a call gets a handful of commands in that time.
const IDS_REMEMBERED: usize = 128;

/// Longest name of a category in the record.
const SIGNAL_NAME_MAX: usize = 48;

/// The key by which a waiting caller goes back to the voice agent.
const CANCEL_KEY: char = '*';

/// One call.
#[derive(Debug)]
pub struct Call {
    core: Core,
    state: State,
}

/// Where a call is. What a state needs lives inside it and goes with it.
#[derive(Debug)]
enum State {
    /// Answered by us, not yet acknowledged.
    Arriving { until: Now },
    /// The caller hears that a machine speaks.
    Disclosing(Disclosing),
    /// Caller and voice agent talk, for the first time or again.
    WithVoiceAgent(Conversing),
    /// A person is on the way.
    Transferring(Box<Transfer>),
    /// Nobody took the call: the caller is offered a message or a call back.
    FallingBack(Box<FallingBack>),
    /// Caller and human agent talk.
    Bridged(Box<Bridge>),
    /// The caller hears the last words of the call, which ends for this cause.
    Closing { play: PlayId, until: Now, cause: &'static str },
    /// The legs are being closed.
    Ending(Ending),
    /// Nothing follows.
    Finished,
}

impl Call {
    /// Takes a call. It is answered at once: a caller in trouble hears something.
    pub fn new(at: Moment, arrival: Arrival, rules: Arc<CallRules>) -> (Self, Vec<Output>) {
        let mut core = Core::new(at, arrival, rules);
        core.emit(Fact::CallReceived {
            trunk: core.arrival.trunk.clone(),
            caller_tag: core.arrival.caller_tag.clone(),
            direction: "inbound".to_owned(),
            call_type: core.arrival.call_type.clone(),
        });
        core.emit(Fact::LegOpened { leg: LegId::CALLER, role: Role::Caller });
        core.out.push(Output::Answer);
        let mut call = Self { core, state: State::Arriving { until: at.now + ARRIVAL_LIMIT } };
        let outputs = call.settle();
        (call, outputs)
    }

    /// Every transition of a call starts here.
    #[must_use = "outputs are the only effect a call has"]
    pub fn handle(&mut self, at: Moment, input: Input) -> Vec<Output> {
        self.core.at = at;
        let state = std::mem::replace(&mut self.state, State::Finished);
        self.state = step(&mut self.core, state, input);
        self.settle()
    }

    /// The next time at which `handle(.., Input::Timeout)` has something to do.
    pub fn next_timeout(&self) -> Option<Now> {
        let own = match &self.state {
            State::Finished => return None,
            State::Arriving { until } | State::Closing { until, .. } => Some(*until),
            State::Disclosing(disclosing) => disclosing.next_timeout(&self.core),
            State::WithVoiceAgent(conversing) => conversing.next_timeout(&self.core),
            State::Transferring(transfer) => transfer.next_timeout(),
            State::FallingBack(falling) => Some(falling.next_timeout()),
            State::Bridged(bridge) => bridge.next_timeout(),
            State::Ending(ending) => return self.core.store_due().or_else(|| ending.next_timeout()),
        };
        let voice = match self.core.voice {
            VoiceLink::Connecting { until, .. } => Some(until),
            VoiceLink::Up { .. } | VoiceLink::Gone => None,
        };
        earliest([
            own,
            voice,
            self.core.tap.next_timeout(),
            self.core.silences.next_timeout(),
            Some(self.core.until),
        ])
    }

    /// Where the call stands, without personal data.
    pub fn standing(&self) -> Standing {
        Standing {
            state: self.state.name(),
            phase: self.state.phase(),
            transfer: self.transfer_id(),
            legs: self.core.legs.roles(),
        }
    }

    /// How the caller waits for a person, where one is on the way.
    pub fn waiting(&self) -> Option<Waiting> {
        let State::Transferring(transfer) = &self.state else { return None };
        Some(Waiting {
            transfer: transfer.id.clone(),
            queue: self.core.queue(transfer.queue)?.id.clone(),
            category: transfer.decision.trigger.category,
            since: transfer.decided_at.now,
            estimate_s: transfer.announced_s(),
            attempt: transfer.attempts,
            offered_to: transfer.offer.target().map(|target| target.agent.clone()),
        })
    }

    /// Nothing follows any more.
    pub const fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// What a payload would be built from now.
    pub fn context(&self) -> Context {
        self.core.conversation.context()
    }

    /// The payload of the transfer under way.
    pub fn payload(&self) -> Option<&Payload> {
        match &self.state {
            State::Transferring(transfer) => transfer.payload.as_ref(),
            State::FallingBack(falling) => falling.transfer.payload.as_ref(),
            State::Bridged(bridge) => bridge.payload.as_ref(),
            State::Arriving { .. }
            | State::Disclosing(_)
            | State::WithVoiceAgent(_)
            | State::Closing { .. }
            | State::Ending(_)
            | State::Finished => None,
        }
    }

    /// The transfer under way, or that made the bridge.
    pub fn transfer_id(&self) -> Option<TransferId> {
        match &self.state {
            State::Transferring(transfer) => Some(transfer.id.clone()),
            State::FallingBack(falling) => Some(falling.transfer.id.clone()),
            State::Bridged(bridge) => Some(bridge.transfer.clone()),
            State::Arriving { .. }
            | State::Disclosing(_)
            | State::WithVoiceAgent(_)
            | State::Closing { .. }
            | State::Ending(_)
            | State::Finished => None,
        }
    }

    /// The language of the briefing for the person that the call is offered to; that of the
    /// call where there is none.
    pub fn whisper_lang(&self) -> String {
        let lang = match &self.state {
            State::Transferring(transfer) => transfer.offer.target().map(|target| &target.lang),
            State::Bridged(bridge) => Some(&bridge.target.lang),
            State::Arriving { .. }
            | State::Disclosing(_)
            | State::WithVoiceAgent(_)
            | State::FallingBack(_)
            | State::Closing { .. }
            | State::Ending(_)
            | State::Finished => None,
        };
        lang.unwrap_or(&self.core.rules.lang).clone()
    }

    /// What follows from any transition: recordings and the media plan follow the state, and
    /// a call whose legs are all closed is over.
    fn settle(&mut self) -> Vec<Output> {
        let core = &mut self.core;
        let state = std::mem::replace(&mut self.state, State::Finished);
        self.state = tap::settle(core, state);
        if !matches!(self.state, State::Finished) {
            core.follow_recordings();
            let egress = media::routes(&self.state, &core.legs, core.voice, core.voice_silent);
            if let Some(plan) = core.sound.plan(&core.arrival.call, egress) {
                core.out.push(Output::Media(plan));
            }
        }
        if let State::Ending(ending) = &self.state
            && core.legs.is_empty()
            && core.recordings_settled()
        {
            ending::finish(core, ending);
            self.state = State::Finished;
        }
        std::mem::take(&mut core.out)
    }
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            Self::Arriving { .. } => "arriving",
            Self::Disclosing(_) => "disclosing",
            Self::WithVoiceAgent(_) => "with_voice_agent",
            Self::Transferring(_) => "transferring",
            Self::FallingBack(_) => "falling_back",
            Self::Bridged(_) => "bridged",
            Self::Closing { .. } => "closing",
            Self::Ending(_) => "ending",
            Self::Finished => "finished",
        }
    }

    /// The transfer under way, if it is this one.
    fn into_transfer(self, id: &TransferId) -> Result<Box<Transfer>, Self> {
        let Self::Transferring(transfer) = self else { return Err(self) };
        if transfer.id == *id { Ok(transfer) } else { Err(Self::Transferring(transfer)) }
    }

    /// Whether this transfer made the bridge that holds.
    fn is_bridge_of(&self, id: &TransferId) -> bool {
        matches!(self, Self::Bridged(bridge) if bridge.transfer == *id)
    }

    const fn phase(&self) -> Option<Phase> {
        match self {
            Self::Transferring(transfer) => Some(transfer.phase()),
            Self::Bridged(_) => Some(Phase::Bridged),
            Self::Arriving { .. }
            | Self::Disclosing(_)
            | Self::WithVoiceAgent(_)
            | Self::FallingBack(_)
            | Self::Closing { .. }
            | Self::Ending(_)
            | Self::Finished => None,
        }
    }
}

/// Every pair of state and input. Pairs that change nothing stand together in each group,
/// so that a new one has to be placed by hand.
fn step(core: &mut Core, state: State, input: Input) -> State {
    use State::{Arriving, Bridged, Closing, Ending, Finished, Transferring};
    match (state, input) {
        (Finished, _) => Finished,

        // The end comes from anywhere.
        (state, Input::Drain) => ending::stop(core, state, "drained", LegCause::Drained),
        (state, Input::Ended { leg: LegId::CALLER, cause, .. }) => ending::caller_gone(core, state, cause),
        (state, Input::Ended { leg, cause, status }) => leg_ended(core, state, leg, cause, status),

        // Legs.
        (state, Input::Answered { leg }) => leg_answered(core, state, leg),
        (Transferring(transfer), Input::Ringing { leg }) => offer::ringing(core, transfer, leg),
        (Transferring(mut transfer), Input::HoldDone { leg: LegId::CALLER, ok: false }) => {
            transfer::hold_refused(core, &mut transfer);
            Transferring(transfer)
        }
        (state, Input::PeerHold { leg, held }) => peer_held(core, state, leg, held),
        (state, Input::Ringing { .. } | Input::HoldDone { .. }) => state,

        // What is said by the voice agent and by the cloud.
        (state @ (Arriving { .. } | Closing { .. } | Ending(_)), Input::Signal(_)) => state,
        (state, Input::Signal(signal)) => talk::signal(core, state, &signal),
        (state, Input::Command(command)) => command::obey(core, state, command),

        // The offer.
        (Transferring(transfer), Input::TargetFound { target, estimate_s }) => {
            offer::found(core, transfer, target, estimate_s)
        }
        (Transferring(transfer), Input::NobodyAvailable) => offer::nobody(core, transfer),
        (Transferring(transfer), Input::DesktopAcked { agent, transfer: id, revision })
            if id == transfer.id =>
        {
            offer::painted(core, transfer, &agent, revision)
        }
        (Bridged(bridge), Input::DesktopAcked { agent, transfer, revision })
            if transfer == bridge.transfer =>
        {
            bridge::painted(core, bridge, &agent, revision)
        }
        (Transferring(transfer), Input::Accept { agent, transfer: id, means }) if id == transfer.id => {
            offer::accepted_by(core, transfer, &agent, means)
        }
        (Transferring(transfer), Input::Decline { agent, transfer: id, reason, .. }) if id == transfer.id => {
            offer::declined_by(core, transfer, &agent, reason)
        }
        (Bridged(bridge), Input::HandBack { agent }) => bridge::hand_back(core, bridge, &agent),
        (
            state,
            Input::TargetFound { .. }
            | Input::NobodyAvailable
            | Input::DesktopAcked { .. }
            | Input::Accept { .. }
            | Input::Decline { .. }
            | Input::HandBack { .. },
        ) => state,

        (state, Input::RecordingStored { leg, recording }) => {
            core.recording_stored(leg, recording);
            state
        }
        (state, Input::Media(report)) => media_reported(core, state, report),
        (state, Input::Timeout) => timeout(core, state),
    }
}

/// A leg is up.
fn leg_answered(core: &mut Core, state: State, leg: LegId) -> State {
    match (state, core.legs.answer(leg, core.at.now)) {
        // The answer crossed our order to end: end it again, now that it can be ended.
        (state, Answered::TooLate) => {
            core.out.push(Output::HangUp { leg, cause: LegCause::Cancelled });
            state
        }
        (State::Arriving { .. }, Answered::Up(Role::Caller)) => talk::answered(core),
        (State::Transferring(transfer), Answered::Up(Role::HumanAgent)) => {
            offer::answered(core, transfer, leg)
        }
        (state, Answered::Up(Role::VoiceAgent)) => {
            talk::voice_up(core, leg);
            state
        }
        (state, Answered::Up(Role::Caller | Role::HumanAgent) | Answered::Again | Answered::Unknown) => state,
    }
}

/// A leg other than the caller's is over.
fn leg_ended(core: &mut Core, state: State, leg: LegId, cause: LegCause, status: Option<u16>) -> State {
    core.close_leg(leg, cause);
    if core.voice.leg() == Some(leg) {
        return talk::voice_gone(core, state, cause);
    }
    match state {
        State::Transferring(transfer) => offer::lost(core, transfer, leg, cause, status),
        State::Bridged(bridge) => bridge::human_gone(core, bridge, leg, cause),
        State::Arriving { .. }
        | State::Disclosing(_)
        | State::WithVoiceAgent(_)
        | State::FallingBack(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => state,
    }
}

/// A far end holds its own leg, or takes it back.
fn peer_held(core: &mut Core, mut state: State, leg: LegId, held: bool) -> State {
    core.silences.hold(leg, HeldBy::Peer, held, core.at.now);
    if let State::Bridged(bridge) = &mut state
        && bridge.leg == leg
    {
        bridge.held = held;
    }
    state
}

/// Nothing came from a leg for so long that nobody can be there any more.
fn given_up(core: &mut Core, state: State, leg: LegId) -> State {
    core.hang_up(leg, LegCause::Lost);
    match state {
        state if leg == LegId::CALLER => ending::without_caller(core, state, LegCause::Lost),
        State::Bridged(bridge) => bridge::human_gone(core, bridge, leg, LegCause::Lost),
        State::Arriving { .. }
        | State::Disclosing(_)
        | State::WithVoiceAgent(_)
        | State::Transferring(_)
        | State::FallingBack(_)
        | State::Closing { .. }
        | State::Ending(_)
        | State::Finished => state,
    }
}

/// The media plane reports.
fn media_reported(core: &mut Core, state: State, report: MediaReport) -> State {
    if let MediaReport::SourceLost { leg } | MediaReport::SourceBack { leg } = report
        && core.voice.up() == Some(leg)
    {
        core.voice_silent = matches!(report, MediaReport::SourceLost { .. });
    }
    match report {
        MediaReport::SourceLost { leg } if core.legs.is_up(leg) => core.silences.lost(leg, core.at.now),
        MediaReport::SourceBack { leg } => core.silences.back(leg),
        MediaReport::Quality { leg, quality } => core.legs.heard(leg, quality),
        MediaReport::SourceLost { .. }
        | MediaReport::Applied { .. }
        | MediaReport::PlayEnded { .. }
        | MediaReport::Digit { .. }
        | MediaReport::FirstRtp { .. }
        | MediaReport::AudioSeen { .. }
        | MediaReport::Spoke { .. }
        | MediaReport::Quiet { .. }
        | MediaReport::Sent { .. }
        | MediaReport::Drained { .. } => {}
    }
    match (state, report) {
        (
            state @ (State::Transferring(_) | State::FallingBack(_) | State::Bridged(_)),
            MediaReport::Sent { egress: LegId::CALLER, stretch },
        ) => {
            // The first ends with the first packet of the message: it is the voice agent's.
            core.proof = Some(core.proof.map_or_else(Stretch::default, |proof| proof.and(stretch)));
            state
        }
        (state, MediaReport::PlayEnded { play, played_pm }) => {
            if core.play_ended(play, played_pm) {
                return play_ended(core, state, play);
            }
            state
        }
        (State::Bridged(bridge), MediaReport::Applied { epoch, egress }) => {
            bridge::applied(core, bridge, epoch, egress)
        }
        (State::Bridged(bridge), MediaReport::AudioSeen { leg, epoch }) => {
            bridge::audio_seen(core, bridge, leg, epoch)
        }
        (State::Bridged(mut bridge), MediaReport::SourceLost { leg }) if leg == bridge.leg => {
            bridge.silent = true;
            State::Bridged(bridge)
        }
        (State::Bridged(mut bridge), MediaReport::SourceBack { leg }) if leg == bridge.leg => {
            bridge.silent = false;
            State::Bridged(bridge)
        }
        (State::Transferring(transfer), MediaReport::Drained { leg } | MediaReport::SourceLost { leg })
            if core.voice.up() == Some(leg) =>
        {
            transfer::drained(core, transfer)
        }
        (State::Transferring(transfer), MediaReport::Digit { leg: LegId::CALLER, digit }) => {
            if digit == CANCEL_KEY {
                return transfer::cancel(core, transfer).0;
            }
            State::Transferring(transfer)
        }
        (State::Transferring(transfer), MediaReport::Digit { leg, digit }) => {
            offer::key(core, transfer, leg, digit)
        }
        (State::FallingBack(falling), MediaReport::Digit { leg: LegId::CALLER, digit }) => {
            fallback::key(core, falling, digit)
        }
        (State::FallingBack(falling), MediaReport::Spoke { leg: LegId::CALLER }) => fallback::spoke(falling),
        (State::FallingBack(falling), MediaReport::Quiet { leg: LegId::CALLER }) => {
            fallback::quiet(core, falling)
        }
        (
            state @ (State::Disclosing(_) | State::WithVoiceAgent(_)),
            MediaReport::Digit { leg: LegId::CALLER, digit },
        ) => talk::caller_key(core, state, digit),
        (
            state,
            MediaReport::Applied { .. }
            | MediaReport::Digit { .. }
            | MediaReport::FirstRtp { .. }
            | MediaReport::AudioSeen { .. }
            | MediaReport::SourceLost { .. }
            | MediaReport::SourceBack { .. }
            | MediaReport::Spoke { .. }
            | MediaReport::Quiet { .. }
            | MediaReport::Sent { .. }
            | MediaReport::Quality { .. }
            | MediaReport::Drained { .. },
        ) => state,
    }
}

/// A prompt that was known is over.
fn play_ended(core: &mut Core, state: State, play: PlayId) -> State {
    match state {
        State::Disclosing(disclosing) if disclosing.play == play => talk::disclosure_ended(core, disclosing),
        State::WithVoiceAgent(conversing) => talk::notice_ended(core, conversing, play),
        State::Transferring(transfer) => transfer::play_ended(core, transfer, play),
        State::FallingBack(falling) => fallback::play_ended(core, falling, play),
        State::Closing { play: closing, cause, .. } if closing == play => {
            ending::end(core, cause, "system", LegCause::LocalHangUp)
        }
        State::Ending(ending) => ending::play_ended(core, ending, play),
        State::Arriving { .. }
        | State::Disclosing(_)
        | State::Bridged(_)
        | State::Closing { .. }
        | State::Finished => state,
    }
}

/// A deadline may have come. Each one is compared where it lives, so a stale or early call
/// does nothing.
fn timeout(core: &mut Core, state: State) -> State {
    let now = core.at.now;
    if now >= core.until && !matches!(state, State::Ending(_)) {
        return ending::stop(core, state, "failed", LegCause::LocalHangUp);
    }
    let state = tap::tick(core, state);
    let state = match core.voice {
        VoiceLink::Connecting { leg, until, .. } if now >= until => {
            core.hang_up(leg, LegCause::Unreachable);
            talk::voice_gone(core, state, LegCause::Unreachable)
        }
        VoiceLink::Connecting { .. } | VoiceLink::Up { .. } | VoiceLink::Gone => state,
    };
    let mut state = state;
    while let Some(leg) = core.silences.take_due(now) {
        state = given_up(core, state, leg);
    }
    match state {
        State::Arriving { until } if now >= until => {
            ending::end(core, "failed", "system", LegCause::Unreachable)
        }
        State::Closing { play, until, cause } if now >= until => {
            core.play_ended(play, 0);
            ending::end(core, cause, "system", LegCause::LocalHangUp)
        }
        state @ (State::Disclosing(_) | State::WithVoiceAgent(_)) => talk::tick(core, state),
        State::Transferring(transfer) => transfer::tick(core, transfer),
        State::FallingBack(falling) => fallback::tick(core, falling),
        State::Bridged(bridge) => bridge::tick(core, bridge),
        State::Ending(ending) => ending::tick(core, ending),
        state @ (State::Arriving { .. } | State::Closing { .. } | State::Finished) => state,
    }
}

#[cfg(test)]
mod tests;
