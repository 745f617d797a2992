//! The media plane: RTP in, one continuous stream per egress out, every 20 ms. The logic is
//! pure (packets, frames and time in; packets and reports out); sockets and threads are in
//! `io::media`. It executes whole plans and decides nothing: who hears whom comes from the
//! call machine. RFC 3550, 3551, 4733.

mod clip_table;
pub mod codec;
pub mod comfort;
pub mod dtmf;
pub mod egress;
pub mod engine;
pub mod hold;
pub mod jitter;
pub mod latch;
pub mod measure;
pub mod mixer;
pub mod prompt;
mod quality;
pub mod rtcp;
pub mod rtp;
pub mod rtp_leg;
pub mod srtp;
pub mod stream_leg;
pub mod tone;

use std::time::Duration;

use handoff::call::media::{MediaPlan, MediaReport};
use handoff::clock::Now;
use handoff::id::{CallId, LegId};

use crate::sip::RemoteMedia;

/// Samples in one 20 ms frame at 8 kHz.
pub const FRAME_SAMPLES: usize = 160;

/// The clock of everything that is sent.
pub const TICK: Duration = Duration::from_millis(20);

/// Frames that a late egress may send at once: 100 ms, which the jitter buffer of a telephone
/// holds. More would overrun it; fewer would tear the timeline whenever the host stalls.
pub const FRAMES_AT_ONCE_MAX: u32 = 5;

/// One bound pair of RTP and RTCP ports, by its RTP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u16);

/// One voice-agent stream (a WebSocket), named by the shell for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(pub u64);

/// What carries the audio of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// RTP on a bound port.
    Rtp(Port),
    /// A stream of the voice agent's door.
    Stream(StreamKey),
}

/// Orders to the media plane, in the order in which they are given.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaCommand {
    /// A leg exists and has this carrier. Its egress sends nothing before `Remote` (RTP)
    /// and a plan that names it.
    Open {
        /// Whose.
        call: CallId,
        /// Which.
        leg: LegId,
        /// By what.
        carrier: Carrier,
    },
    /// What was agreed for an RTP leg; again after each re-INVITE.
    Remote {
        /// Whose.
        call: CallId,
        /// Which.
        leg: LegId,
        /// Agreed media.
        remote: RemoteMedia,
    },
    /// Apply this plan at the next tick.
    Apply(MediaPlan),
    /// Drop the queued speech of a stream leg and echo its pending marks.
    Clear {
        /// Whose.
        call: CallId,
        /// Which.
        leg: LegId,
    },
    /// Report `Drained` as soon as the queued speech of a stream leg has been played: at once
    /// where nothing is queued, because a queue that is empty cannot run empty.
    Drain {
        /// Whose.
        call: CallId,
        /// Which.
        leg: LegId,
    },
    /// Send these keys on this leg, and on no other (RFC 4733).
    SendDigits {
        /// Whose.
        call: CallId,
        /// Which.
        leg: LegId,
        /// The keys; `,` is half a second of pause.
        digits: String,
    },
    /// Record what this leg says and hears, or cease to.
    Record {
        /// Whose.
        call: CallId,
        /// Which.
        leg: LegId,
        /// Begin or go on; `false` leaves a gap.
        on: bool,
    },
    /// The leg is over; the port goes into quarantine.
    Close {
        /// Whose.
        call: CallId,
        /// Which.
        leg: LegId,
    },
}

/// A report with its moment.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaEvent {
    /// When it happened, on the edge's monotonic clock.
    pub at: Now,
    /// Whose.
    pub call: CallId,
    /// What.
    pub report: MediaReport,
}

/// What a voice agent's door gives to the media plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamIn {
    /// µ-law bytes of any length.
    Audio(Vec<u8>),
    /// Echo this name when all audio given before it has been played.
    Mark(String),
    /// Drop the queue, echo all pending marks at once.
    Clear,
}

/// What the media plane gives to a voice agent's door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamOut {
    /// 20 ms of µ-law, contiguous for the life of the stream, silence included.
    Frame(Box<[u8; FRAME_SAMPLES]>),
    /// A mark was reached.
    Mark(String),
    /// A key of the caller.
    Digit(char),
}
