//! The figures over the rows of a period. Each has its own sample size, because each leaves
//! other calls out, and carries its bounds. Rows outside the period are no part of any
//! figure, but a caller who comes back after it counts: resolution would look better than it
//! is if only calls of the period were asked.

mod contacts;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::contacts::Contacts;
use super::handling::{Baseline, Gap};
use super::proportion::{Proportion, Spread};
use super::row::{LeftOut, Row, Transfer};
use crate::clock::{DAY_MS, Timestamp};
use crate::event::Mode;
use crate::id::TransferId;
use crate::policy::Category;

/// In which another contact of the same caller counts as a repeat, in days. No standard names
/// one; seven is the default of the diagnosis, the others show how much hangs on the choice.
pub const REPEAT_WINDOWS_DAYS: [u32; 4] = [1, 3, 7, 30];

/// The window by which resolution is judged.
pub const REPEAT_WINDOW_DAYS: u32 = 7;

/// A caller who leaves sooner after the decision did not wait; also counted apart.
pub const SHORT_ABANDON_MS: u64 = 5_000;

/// The promise made to the caller where nothing was measured yet: within it a person is there.
pub const SERVICE_LEVEL_MS: u64 = 30_000;

/// Longer silence than this is heard as a dead line.
pub const DEAD_AIR_MS: u64 = 500;

/// A conversation that ends sooner after the bridge may have been cut.
pub const CUT_WITHIN_MS: i64 = 60_000;

/// How near to each other ends are that one timer made.
const TOGETHER_WITHIN_MS: u64 = 1_000;

/// From when until when calls began: the figures are of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Period {
    /// The first moment inside.
    pub from: Timestamp,
    /// The first moment after.
    pub to: Timestamp,
}

impl Period {
    fn has(self, row: &Row) -> bool {
        (self.from..self.to).contains(&row.started_at)
    }
}

/// Bridged within the promised time, of the transfers that were offered to somebody, with the
/// three ways to treat callers who left within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceLevel {
    /// They are taken out: met of offered less left. The default.
    pub ignored: Proportion,
    /// They count as not met: met of offered.
    pub negative: Proportion,
    /// They count as met: met and left of offered.
    pub positive: Proportion,
}

/// First-call resolution after transfer, for one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// The window.
    pub window_days: u32,
    /// Its coverage: bridged transfers whose window is over and whose caller is known.
    pub eligible: Proportion,
    /// No other contact of the caller about the same, of the eligible.
    pub no_repeat: Proportion,
    /// The second coverage: the eligible that have a disposition.
    pub disposed: Proportion,
    /// Resolved by the first human agent: resolved, no repeat and no second transfer, of the
    /// eligible with a disposition.
    pub post_transfer: Proportion,
}

/// The figures of a period.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Calls that count.
    pub calls: u64,
    /// Calls that do not, by reason.
    pub left_out: BTreeMap<LeftOut, u64>,
    /// Calls with a leg that was never closed.
    pub unbalanced: u64,
    /// Calls with a decision, of calls that the voice agent answered.
    pub transfer_rate: Proportion,
    /// The same without the reasons that no threshold moves.
    pub adjustable_rate: Proportion,
    /// Calls by the reason of their first decision, of the same calls.
    pub rate_by_trigger: BTreeMap<Category, Proportion>,
    /// How transfers ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Transfers that bridged, of those decided.
    pub completion: Proportion,
    /// Callers who left between decision and bridge, of the transfers decided.
    pub abandonment: Proportion,
    /// Those who left at once, of the same.
    pub short_abandonment: Proportion,
    /// A person within the promised time.
    pub service_level: ServiceLevel,
    /// From the decision to the bridge.
    pub wait_ms: Spread,
    /// That wait beyond the promised one.
    pub promise_error_ms: Spread,
    /// Phones rang so long for each transfer.
    pub ring_ms: Spread,
    /// Longest silence at the caller for each transfer.
    pub dead_air_ms: Spread,
    /// Transfers with a silence that is heard as a dead line.
    pub dead_air: Proportion,
    /// Transition messages that were not played whole, of those whose caller stayed.
    pub message_cut: Proportion,
    /// The card after the answer; negative is early.
    pub pop_skew_ms: Spread,
    /// The card was acknowledged, of the transfers accepted.
    pub pop_success: Proportion,
    /// Transfers whose payload lacked a required field.
    pub incomplete: Proportion,
    /// Transfers whose summary was the template's.
    pub template: Proportion,
    /// Transfers whose caller was asked again for what the card showed, of those of which a
    /// disposition says whether.
    pub asked_again: Proportion,
    /// Transfers that a person said belong to another team.
    pub wrong_team: Proportion,
    /// First-call resolution after transfer, by window.
    pub resolution: Vec<Resolution>,
    /// Resolved, of the dispositions received.
    pub disposition: Proportion,
    /// Talk, hold and work after the call, where all three are known.
    pub handle_ms: Spread,
    /// Talk and hold alone, the whisper included, of all that were handled.
    pub talk_ms: Spread,
    /// Transfers for which the work after the call is known too, of those handled.
    pub handle_known: Proportion,
    /// Handle time beside that of direct calls.
    pub handle_gap: Gap,
    /// From the start of the call to its end, where the matter was resolved.
    pub resolution_ms: Spread,
    /// Life after the bridge, by queue.
    pub life: BTreeMap<String, Life>,
    /// How transfers go by what people are told before they are connected.
    pub by_mode: BTreeMap<Mode, ByMode>,
}

/// The transfers of one mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByMode {
    /// Callers who were gone before they had talked for a minute: left between decision and
    /// bridge, or cut within a minute of it; of the transfers decided.
    pub dropped: Proportion,
    /// Transfers that bridged, of those decided.
    pub completion: Proportion,
    /// Talk and hold, a whisper included, of those handled.
    pub talk_ms: Spread,
}

/// How long conversations with one queue live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Life {
    /// Those over within a minute of the bridge, of those that are over.
    pub cut: Proportion,
    /// The middle one of these.
    pub cut_after_ms: Option<i64>,
    /// Those of them that ended within a second of that moment: people stop at any time, a
    /// timer always at the same.
    pub together: Proportion,
}

impl Figures {
    /// The figures of the calls of `period` among `rows`. `now` decides which windows are over.
    pub fn of(rows: &[Row], period: Period, baseline: Option<&Baseline>, now: Timestamp) -> Self {
        let contacts = Contacts::of(rows);
        let calls: Vec<&Row> = rows.iter().filter(|row| period.has(row) && row.begins_call()).collect();
        let counted: Vec<&Row> = calls.iter().copied().filter(|row| row.left_out.is_none()).collect();
        let transfers: Vec<(&Row, &Transfer)> = transfers(rows, period).collect();
        let share = |has: fn(&Transfer) -> bool| Proportion::of(transfers.iter(), |(_, it)| has(it));
        let known = |tells: fn(&Transfer) -> Option<bool>| {
            Proportion::of(transfers.iter().filter_map(|(_, it)| tells(it)), |has| *has)
        };
        let spread = |value: fn(&Transfer) -> Option<i64>| {
            Spread::of(transfers.iter().filter_map(|(_, it)| value(it)).collect())
        };
        Self {
            calls: counted.len() as u64,
            left_out: tally(calls.iter().filter_map(|row| row.left_out)),
            unbalanced: counted.iter().filter(|row| row.legs_open > 0).count() as u64,
            transfer_rate: Proportion::of(&counted, |row| row.transfer.is_some()),
            adjustable_rate: Proportion::of(&counted, |row| {
                row.transfer.as_ref().is_some_and(|first| is_adjustable(first.trigger))
            }),
            rate_by_trigger: by_trigger(&counted),
            outcomes: tally(transfers.iter().filter_map(|(_, it)| it.outcome.clone())),
            completion: share(|it| it.bridged_ms.is_some()),
            abandonment: share(|it| it.abandoned_ms.is_some()),
            short_abandonment: share(|it| it.abandoned_ms.is_some_and(|ms| ms < SHORT_ABANDON_MS)),
            service_level: service_level(&transfers),
            wait_ms: spread(|it| signed(it.bridged_ms)),
            promise_error_ms: spread(Transfer::promise_error_ms),
            ring_ms: spread(|it| (it.offers > 0).then_some(it.ring_ms).and_then(|ms| i64::try_from(ms).ok())),
            dead_air_ms: spread(|it| signed(it.dead_air_ms)),
            dead_air: known(|it| it.dead_air_ms.map(|ms| ms > DEAD_AIR_MS)),
            // Whoever leaves during the message cuts it: that is the wait's doing, not the message's.
            message_cut: known(|it| it.played_pm.filter(|_| it.abandoned_ms.is_none()).map(|pm| pm < 1_000)),
            pop_skew_ms: spread(|it| it.pop_skew_ms),
            pop_success: known(|it| it.accepted.then_some(it.pop_skew_ms.is_some())),
            incomplete: known(|it| it.completeness_pm.map(|pm| pm < 1_000)),
            template: known(|it| it.template),
            asked_again: known(|it| it.disposition.as_ref()?.asked_again.map(|fields| fields > 0)),
            wrong_team: known(|it| (it.offers > 0).then_some(it.wrong_team)),
            resolution: REPEAT_WINDOWS_DAYS
                .iter()
                .map(|days| resolution(&transfers, &contacts, *days, now))
                .collect(),
            disposition: known(|it| it.disposition.as_ref().map(|said| said.resolved)),
            handle_ms: spread(|it| signed(it.handle_ms())),
            talk_ms: spread(|it| signed(it.handled_ms)),
            handle_known: known(|it| it.handled_ms.map(|_| it.handle_ms().is_some())),
            handle_gap: Gap::of(transfers.iter().map(|(row, _)| *row), baseline),
            resolution_ms: Spread::of(
                transfers
                    .iter()
                    .filter(|(_, it)| it.disposition.as_ref().is_some_and(|said| said.resolved))
                    .map(|(row, _)| row.ended_at.unix_millis() - row.started_at.unix_millis())
                    .collect(),
            ),
            life: life(&transfers),
            by_mode: by_mode(&transfers),
        }
    }

    /// Resolution in the window by which it is judged.
    pub fn resolution(&self) -> Resolution {
        let judged = self.resolution.iter().find(|it| it.window_days == REPEAT_WINDOW_DAYS);
        judged.copied().unwrap_or_default()
    }
}

/// The bridged transfers of a period that were not resolved by the first human agent, as far
/// as it can be told: what lowers the resolution.
pub(super) fn unresolved(rows: &[Row], period: Period, now: Timestamp) -> BTreeSet<&TransferId> {
    let contacts = Contacts::of(rows);
    let fails = |(row, transfer): &(&Row, &Transfer)| {
        let one = resolution(&[(*row, *transfer)], &contacts, REPEAT_WINDOW_DAYS, now).post_transfer;
        one.n > one.k
    };
    transfers(rows, period).filter(fails).map(|(_, transfer)| &transfer.id).collect()
}

/// A threshold, a window or a rule moves how often calls are handed over for this reason.
pub const fn is_adjustable(category: Option<Category>) -> bool {
    !matches!(category, Some(Category::Safety | Category::Regulatory | Category::CallerRequest))
}

/// The transfers of the calls of a period that count.
pub(super) fn transfers(rows: &[Row], period: Period) -> impl Iterator<Item = (&Row, &Transfer)> {
    rows.iter()
        .filter(move |row| period.has(row) && row.left_out.is_none())
        .filter_map(|row| row.transfer.as_ref().map(|transfer| (row, transfer)))
}

impl Row {
    /// A call has one row that counts it: its only one, or that of its first transfer.
    fn begins_call(&self) -> bool {
        self.transfer.as_ref().is_none_or(|transfer| transfer.ordinal == 1)
    }
}

fn by_trigger(calls: &[&Row]) -> BTreeMap<Category, Proportion> {
    let first = |row: &Row| row.transfer.as_ref().and_then(|transfer| transfer.trigger);
    let count = tally(calls.iter().filter_map(|row| first(row)));
    let n = calls.len() as u64;
    count.into_iter().map(|(category, k)| (category, Proportion { k, n })).collect()
}

fn service_level(transfers: &[(&Row, &Transfer)]) -> ServiceLevel {
    let offered = || transfers.iter().map(|(_, it)| it).filter(|it| it.offers > 0);
    let within = |ms: Option<u64>| ms.is_some_and(|ms| ms <= SERVICE_LEVEL_MS);
    let n = offered().count() as u64;
    let met = offered().filter(|it| within(it.bridged_ms)).count() as u64;
    let left = offered().filter(|it| within(it.abandoned_ms)).count() as u64;
    ServiceLevel {
        ignored: Proportion { k: met, n: n - left },
        negative: Proportion { k: met, n },
        positive: Proportion { k: met + left, n },
    }
}

fn resolution(
    transfers: &[(&Row, &Transfer)],
    contacts: &Contacts<'_>,
    window_days: u32,
    now: Timestamp,
) -> Resolution {
    let window_ms = i64::from(window_days) * DAY_MS;
    let mut found = Resolution { window_days, ..Resolution::default() };
    for (row, transfer) in transfers.iter().filter(|(_, it)| it.bridged_ms.is_some()) {
        let over = now >= row.ended_at.plus_millis(window_ms);
        let eligible = over && row.caller.is_some();
        found.eligible.count(eligible);
        if !eligible {
            continue;
        }
        let seen = transfer.repeat_within_days.is_some_and(|days| days <= u64::from(window_days));
        let repeated = seen || contacts.again(row, window_ms);
        found.no_repeat.count(!repeated);
        found.disposed.count(transfer.disposition.is_some());
        if let Some(said) = &transfer.disposition {
            found.post_transfer.count(said.resolved && !repeated && !transfer.followed);
        }
    }
    found
}

fn life(transfers: &[(&Row, &Transfer)]) -> BTreeMap<String, Life> {
    let mut queues: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (_, transfer) in transfers {
        if let Some(life_ms) = signed(transfer.life_ms) {
            queues.entry(transfer.queue.clone()).or_default().push(life_ms);
        }
    }
    let of = |lives: &Vec<i64>| {
        let short: Vec<i64> = lives.iter().copied().filter(|ms| *ms < CUT_WITHIN_MS).collect();
        let cut_after_ms = Spread::of(short.clone()).p50;
        let close = |ms: &i64| cut_after_ms.is_some_and(|middle| middle.abs_diff(*ms) <= TOGETHER_WITHIN_MS);
        Life {
            cut: Proportion::of(lives, |ms| **ms < CUT_WITHIN_MS),
            cut_after_ms,
            together: Proportion::of(short, close),
        }
    };
    queues.into_iter().map(|(queue, lives)| (queue, of(&lives))).collect()
}

fn by_mode(transfers: &[(&Row, &Transfer)]) -> BTreeMap<Mode, ByMode> {
    let modes: BTreeSet<Mode> = transfers.iter().map(|(_, it)| it.mode).collect();
    let of = |mode: Mode| {
        let own = || transfers.iter().map(|(_, it)| *it).filter(|it| it.mode == mode);
        let cut = |it: &Transfer| signed(it.life_ms).is_some_and(|ms| ms < CUT_WITHIN_MS);
        ByMode {
            dropped: Proportion::of(own(), |it| it.abandoned_ms.is_some() || cut(it)),
            completion: Proportion::of(own(), |it| it.bridged_ms.is_some()),
            talk_ms: Spread::of(own().filter_map(|it| signed(it.handled_ms)).collect()),
        }
    };
    modes.into_iter().map(|mode| (mode, of(mode))).collect()
}

fn tally<K: Ord>(items: impl Iterator<Item = K>) -> BTreeMap<K, u64> {
    let mut counts = BTreeMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

fn signed(value: Option<u64>) -> Option<i64> {
    i64::try_from(value?).ok()
}

#[cfg(test)]
mod tests;
