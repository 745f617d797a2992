//! Who hears whom: the contract between the call machine and the media plane, and the pure
//! function from state to plan. Default deny: an egress that a state does not name hears
//! silence. The media plane applies whole plans; nothing can forget to take a whisper away.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::call::State;
use crate::call::core::VoiceLink;
use crate::call::legs::Ledger;
use crate::call::transfer::Announcement;
use crate::clock::Now;
use crate::id::{CallId, Epoch, HumanAgentId, LegId, PlayId, TransferId};
use crate::pii::Pii;

/// What one egress sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The audio of another leg of the same call.
    Leg(LegId),
    /// A prompt, then silence when it has ended (a new plan follows at once).
    Prompt(PlayId),
    /// Hold music.
    HoldBed,
    /// Silence frames, contiguous.
    Silence,
    /// Soft noise: the line is open, and it is the listener's turn to speak. Meanwhile the media
    /// plane reports whether they do.
    Comfort,
    /// The sum of several legs, never including the listener's own.
    Mix(Vec<LegId>),
}

/// A named, committed clip (`reason.caller_request.en`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClipId(pub String);

/// One part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A clip of the catalogue.
    Clip(ClipId),
    /// Free text for speech synthesis. Where there is none in time, `fallback` is played.
    Say {
        /// What to say.
        text: Pii<String>,
        /// BCP 47.
        lang: String,
        /// The generic clip to play instead.
        fallback: ClipId,
    },
}

/// What a prompt consists of, in order, without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The parts.
    pub parts: Vec<Part>,
}

impl Prompt {
    /// A prompt of one clip.
    pub fn clip(name: &str) -> Self {
        Self { parts: vec![Part::Clip(ClipId(name.to_owned()))] }
    }
}

/// The whole media plan of a call at one epoch. An egress that is not named is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPlan {
    /// Which call.
    pub call: CallId,
    /// Grows with every plan of the call.
    pub epoch: Epoch,
    /// Egress → what it sends.
    pub egress: BTreeMap<LegId, Source>,
    /// The prompts that this plan names, so that a plan is complete by itself.
    pub prompts: BTreeMap<PlayId, Prompt>,
}

/// What the media plane reports. Reports carry the epoch or play they are about; a stale
/// one is dropped by the call machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaReport {
    /// A plan holds: `egress` changed its source, and the first packet of the new source
    /// left at the input's time. Sent once per egress whose source changed.
    Applied {
        /// Which plan.
        epoch: Epoch,
        /// Which egress.
        egress: LegId,
    },
    /// A prompt ended, or was taken away before its end.
    PlayEnded {
        /// Which.
        play: PlayId,
        /// Samples sent, per-mille; 1000 only when every sample was sent.
        played_pm: u16,
    },
    /// A key was pressed on `leg` (RFC 4733, or by the door's own means).
    Digit {
        /// By whom.
        leg: LegId,
        /// `0`–`9`, `*`, `#`, `A`–`D`.
        digit: char,
    },
    /// The first valid packet of `leg` arrived.
    FirstRtp {
        /// Whose.
        leg: LegId,
    },
    /// Ten valid packets of `leg` arrived since the plan of `epoch` was applied.
    AudioSeen {
        /// Whose.
        leg: LegId,
        /// Since which plan.
        epoch: Epoch,
    },
    /// Nothing valid came from `leg` for 500 ms while somebody listens to it; of a voice agent's
    /// stream: it answers nothing any more.
    SourceLost {
        /// Whose.
        leg: LegId,
    },
    /// `leg` sends again.
    SourceBack {
        /// Whose.
        leg: LegId,
    },
    /// `leg` spoke: sound came from it while its own egress sends [`Source::Comfort`]. Sent once
    /// per plan that begins so.
    Spoke {
        /// Who.
        leg: LegId,
    },
    /// Nothing that can be heard came from `leg` for five seconds while its own egress sends
    /// [`Source::Comfort`]. Sent once per pause.
    Quiet {
        /// Who.
        leg: LegId,
    },
    /// The queued speech of a stream leg has been played out (or cut).
    Drained {
        /// Whose.
        leg: LegId,
    },
    /// What left on `egress` since the last report of this kind. Sent before each
    /// [`MediaReport::Applied`] of an RTP leg.
    Sent {
        /// Which egress.
        egress: LegId,
        /// What was measured at it.
        stretch: Stretch,
    },
    /// How well `leg` is heard so far. With each RTCP report of it; a short leg has none.
    Quality {
        /// Whose.
        leg: LegId,
        /// All of it since the leg began.
        quality: Quality,
    },
}

/// How well a leg was heard, both ways, by its packets and its RTCP (RFC 3550).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// Packets that arrived.
    pub received: u64,
    /// Packets lost on the way here, of a thousand.
    pub lost_pm: u16,
    /// Their interarrival jitter in milliseconds.
    pub jitter_ms: u32,
    /// Packets lost on the way there, of a thousand, as the far end reports; `None` where it
    /// sends no reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_lost_pm: Option<u16>,
    /// The jitter that the far end reports, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_jitter_ms: Option<u32>,
    /// There and back, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<u32>,
    /// Estimate of the mean opinion score, a hundred times (ITU-T G.107); `None` where nothing
    /// arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mos_x100: Option<u16>,
}

/// What was measured on one egress for a while, on the packets and frames themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Packets sent.
    pub packets: u32,
    /// Longest time between two packets, in milliseconds. Time in which the far end forbade
    /// us to send does not count.
    pub longest_gap_ms: u32,
    /// Longest time without a frame above -50 dBFS, in milliseconds.
    pub longest_silence_ms: u32,
    /// Packets that do not follow the one before: another SSRC, a sequence number or a
    /// timestamp that goes back, repeats or leaps.
    pub breaks: u32,
    /// Frames in which what a prompt says to somebody else was heard here.
    pub leaked_frames: u32,
}

impl Stretch {
    /// The two together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            longest_gap_ms: self.longest_gap_ms.max(other.longest_gap_ms),
            longest_silence_ms: self.longest_silence_ms.max(other.longest_silence_ms),
            breaks: self.breaks.saturating_add(other.breaks),
            leaked_frames: self.leaked_frames.saturating_add(other.leaked_frames),
        }
    }
}

/// What a prompt is played for, as far as the record cares.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// The AI and recording disclosure.
    Disclosure,
    /// The transition message of a transfer.
    Transition { transfer_id: TransferId, text_id: String, anchor_s: u32 },
    /// The private briefing of a human agent.
    Whisper { agent_id: HumanAgentId },
    /// Anything of which no fact is kept.
    Unrecorded,
}

/// One prompt that has been started and not reported as ended.
#[derive(Clone, Debug)]
pub(super) struct Play {
    pub(super) purpose: Purpose,
    pub(super) prompt: Prompt,
    pub(super) since: Now,
}

/// The call's side of the media plane: the plan that holds, and the prompts under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Sound {
    epoch: Epoch,
    egress: BTreeMap<LegId, Source>,
    next_play: u32,
    plays: BTreeMap<PlayId, Play>,
}

impl Sound {
    /// Registers a prompt. The oldest is forgotten when the media plane never reports ends.
    pub(super) fn start(&mut self, since: Now, purpose: Purpose, prompt: Prompt) -> PlayId {
        if self.plays.len() >= PLAYS_MAX {
            self.plays.pop_first();
        }
        let play = PlayId(self.next_play);
        self.next_play = self.next_play.saturating_add(1);
        self.plays.insert(play, Play { purpose, prompt, since });
        play
    }

    /// Takes the prompt that ended out of the register.
    pub(super) fn end(&mut self, play: PlayId) -> Option<Play> {
        self.plays.remove(&play)
    }

    /// The epoch that the next change of plan gets.
    pub(super) fn next_epoch(&self) -> Epoch {
        Epoch(self.epoch.0.saturating_add(1))
    }

    /// The plan for `egress`, if it differs from the one that holds.
    pub(super) fn plan(&mut self, call: &CallId, egress: BTreeMap<LegId, Source>) -> Option<MediaPlan> {
        if egress == self.egress {
            return None;
        }
        self.epoch = self.next_epoch();
        self.egress.clone_from(&egress);
        let prompts = egress
            .values()
            .filter_map(|source| match source {
                Source::Prompt(play) => Some((*play, self.plays.get(play)?.prompt.clone())),
                Source::Leg(_) | Source::HoldBed | Source::Silence | Source::Comfort | Source::Mix(_) => None,
            })
            .collect();
        Some(MediaPlan { call: call.clone(), epoch: self.epoch, egress, prompts })
    }
}

/// Who hears whom, as a pure function of the state. Whoever would hear a voice agent by whose
/// open link nothing comes hears the hold bed. Legs that are not up hear nothing, and
/// what a state does not name is closed.
pub(super) fn routes(
    state: &State,
    legs: &Ledger,
    voice: VoiceLink,
    voice_silent: bool,
) -> BTreeMap<LegId, Source> {
    let voice_agent = voice.up();
    let assistant = voice_agent.filter(|_| !voice_silent).map_or(Source::HoldBed, Source::Leg);
    let mut egress = BTreeMap::new();
    let mut hears = |leg: LegId, source: Source| {
        if legs.is_up(leg) {
            egress.insert(leg, source);
        }
    };
    match state {
        State::Arriving { .. } | State::Finished => {}
        State::Disclosing(disclosing) => {
            hears(LegId::CALLER, Source::Prompt(disclosing.play));
            voice_agent.into_iter().for_each(|leg| hears(leg, Source::Leg(LegId::CALLER)));
        }
        State::WithVoiceAgent(conversing) => {
            let notice = conversing.notice.as_ref().map(|notice| Source::Prompt(notice.play));
            hears(LegId::CALLER, notice.unwrap_or(assistant));
            voice_agent.into_iter().for_each(|leg| hears(leg, Source::Leg(LegId::CALLER)));
        }
        State::Transferring(transfer) => {
            let (caller, listens) = match &transfer.announcement {
                Announcement::Draining { .. } => (assistant, true),
                Announcement::Playing { play, .. } => (Source::Prompt(*play), true),
                Announcement::Played(bed) => {
                    let listens = bed.overheard && !transfer.is_accepted();
                    (bed.update().map_or(Source::HoldBed, Source::Prompt), listens)
                }
            };
            hears(LegId::CALLER, caller);
            let to_agent = if listens { Source::Leg(LegId::CALLER) } else { Source::Silence };
            voice_agent.into_iter().for_each(|leg| hears(leg, to_agent.clone()));
            if let Some((leg, speech)) = transfer.offer.speech() {
                hears(leg, speech.map_or(Source::Silence, Source::Prompt));
            }
        }
        State::FallingBack(falling) => {
            hears(LegId::CALLER, falling.heard());
            voice_agent.into_iter().for_each(|leg| hears(leg, Source::Silence));
        }
        State::Bridged(bridge) => {
            let mute = bridge.held || bridge.silent;
            hears(LegId::CALLER, if mute { Source::HoldBed } else { Source::Leg(bridge.leg) });
            hears(bridge.leg, Source::Leg(LegId::CALLER));
            voice_agent.into_iter().for_each(|leg| hears(leg, Source::Silence));
        }
        State::Closing { play, .. } => hears(LegId::CALLER, Source::Prompt(*play)),
        State::Ending(ending) => {
            if let Some(farewell) = &ending.farewell {
                hears(farewell.leg, Source::Prompt(farewell.play));
            }
        }
    }
    egress
}

/// Most prompts whose end is awaited at a time. At most three play at once; the rest is
/// room for ends that are reported a moment late.
const PLAYS_MAX: usize = 16;
