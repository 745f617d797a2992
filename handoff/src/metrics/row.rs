//! One row per transfer, and one for each call without a transfer, folded from what the
//! ledger holds of the call: its chain and its side chain. The edge's records are taken in
//! the order of the edge's numbers, everybody else's by the ids that they name, so that the
//! order of the ledger does not matter. A record that lacks a member says nothing; it never
//! stops the fold. A row holds ids, numbers and the caller's pseudonym, nothing personal.

mod fold;

use serde::{Deserialize, Serialize};

use crate::audit::AuditRecord;
use crate::clock::Timestamp;
use crate::event::Mode;
use crate::id::{CallId, TransferId};
use crate::policy::Category;

/// Form of a stored row. A row of another form is made again from its chain, never guessed at.
pub const ROW_VERSION: u32 = 1;

/// A shorter call in which nobody spoke is a wrong number or a probe, and is left out.
pub const SILENT_CALL_MAX_MS: u64 = 10_000;

/// The type of call that marks a test, by the trunk on which it comes.
pub const TEST_CALL_TYPE: &str = "test";

/// Why a call says nothing about transfers. Each is counted and reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// It is not over yet.
    Running,
    /// It came on a trunk for tests.
    Test,
    /// Nobody from outside was on it.
    Internal,
    /// The voice agent never answered it.
    NotAnswered,
    /// It was over at once and nobody spoke.
    Silent,
}

impl LeftOut {
    /// For a person.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Running => "still running",
            Self::Test => "tests",
            Self::Internal => "internal",
            Self::NotAnswered => "not answered by the voice agent",
            Self::Silent => "short and silent",
        }
    }
}

/// What the measures need of a transfer and of its call, or of a call without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// [`ROW_VERSION`].
    pub version: u32,
    /// Which call.
    pub call: CallId,
    /// When the call began.
    pub started_at: Timestamp,
    /// When it ended, or its last record so far.
    pub ended_at: Timestamp,
    /// Pseudonym of the caller's number.
    pub caller: Option<String>,
    /// What the call is about: the last intent that was told, else the type of call.
    pub intent: Option<String>,
    /// Why the call does not count, if it does not.
    pub left_out: Option<LeftOut>,
    /// Legs that were opened and not closed: none in a balanced call.
    pub legs_open: u32,
    /// The transfer; none in the one row of a call without any.
    pub transfer: Option<Transfer>,
}

/// What the measures need of one transfer. Durations are on the edge's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Which.
    pub id: TransferId,
    /// From 1 within its call: a call counts once, by its first.
    pub ordinal: u32,
    /// Another transfer of the same call came after it.
    pub followed: bool,
    /// Why; none where the record names no known reason.
    pub trigger: Option<Category>,
    /// The rule that named the reason.
    pub rule_id: Option<String>,
    /// To which queue.
    pub queue: String,
    /// What its people are told before they are connected.
    #[serde(default)]
    pub mode: Mode,
    /// How it ended, by the name in the record; none where it did not.
    pub outcome: Option<String>,
    /// People to whom it was offered.
    pub offers: u32,
    /// Somebody said that it belongs to another team.
    pub wrong_team: bool,
    /// Phones rang so long in all.
    pub ring_ms: u64,
    /// Somebody accepted.
    pub accepted: bool,
    /// From the decision until caller and human were connected.
    pub bridged_ms: Option<u64>,
    /// From the decision until the caller left, before the bridge.
    pub abandoned_ms: Option<u64>,
    /// The person who accepted had the card so long after they answered; negative is early.
    pub pop_skew_ms: Option<i64>,
    /// Longest silence at the caller from the transition message to the human's first word.
    pub dead_air_ms: Option<u64>,
    /// How much of the transition message was sent.
    pub played_pm: Option<u64>,
    /// The wait that it named.
    pub promised_s: Option<u64>,
    /// Required fields present in the payload that was used.
    pub completeness_pm: Option<u64>,
    /// That payload's summary is the template's.
    pub template: Option<bool>,
    /// From the answer of the accepting phone to its end: talk and hold, the whisper included.
    pub handled_ms: Option<u64>,
    /// From the bridge until one of the two was gone.
    pub life_ms: Option<u64>,
    /// Why that leg ended.
    pub cut_by: Option<String>,
    /// The last disposition.
    pub disposition: Option<Disposition>,
    /// The caller was seen again within so many days, by somebody who sees more than calls.
    pub repeat_within_days: Option<u64>,
}

/// What the human agent said of the outcome afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disposition {
    /// Their code.
    pub code: String,
    /// The matter was resolved.
    pub resolved: bool,
    /// Work after the call.
    pub acw_s: Option<u64>,
    /// Fields that the caller was asked for although the card showed them, by somebody who
    /// listened or read a transcript of it.
    #[serde(default)]
    pub asked_again: Option<u64>,
}

impl Row {
    /// The rows of `call`, from the records of its chain and its side chain in any order. At
    /// least one, unless there is no record.
    pub fn of(call: &CallId, records: &[AuditRecord]) -> Vec<Self> {
        fold::fold(call, records)
    }

    /// Under which it is kept: the transfer's id, else the call's.
    pub fn key(&self) -> &str {
        self.transfer.as_ref().map_or(self.call.as_str(), |transfer| transfer.id.as_str())
    }
}

impl Transfer {
    /// Talk, hold and work after the call, where a disposition told the last.
    pub fn handle_ms(&self) -> Option<u64> {
        let after_ms = self.disposition.as_ref()?.acw_s?.saturating_mul(1_000);
        Some(self.handled_ms?.saturating_add(after_ms))
    }

    /// The wait beyond what was promised; negative is sooner.
    pub fn promise_error_ms(&self) -> Option<i64> {
        let promised = i64::try_from(self.promised_s?.saturating_mul(1_000)).ok()?;
        Some(i64::try_from(self.bridged_ms?).ok()?.saturating_sub(promised))
    }
}

#[cfg(test)]
mod tests;
