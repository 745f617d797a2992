//! Who hears whom: the contract between the call machine and the media plane, and the pure
//! function from state to plan. Default deny: an egress that a state does not name hears
//! silence. The media plane applies whole plans; nothing can forget to take a whisper away.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{CallId, Epoch, LegId, PlayId};
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
    /// Nothing valid came from `leg` for 500 ms while somebody listens to it.
    SourceLost {
        /// Whose.
        leg: LegId,
    },
    /// `leg` sends again.
    SourceBack {
        /// Whose.
        leg: LegId,
    },
    /// The queued speech of a stream leg has been played out (or cut).
    Drained {
        /// Whose.
        leg: LegId,
    },
}
