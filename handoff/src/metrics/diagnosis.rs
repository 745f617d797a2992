//! From a bad figure to the layer behind it, the setting to change and the calls that show
//! it. The way is data: a [`Rule`] names the figure and the layer, and the checks that the
//! layer must fail before it is blamed; each check names its setting. Where every check is
//! healthy the card says `unexplained` and names no setting. A share fires only when its 95 %
//! bound has crossed the threshold on enough calls. A suggestion is never carried out.

pub mod rules;

use std::collections::BTreeMap;

use serde::Serialize;

use self::rules::{RULES, Rule};
use super::figures::{Figures, Period, transfers, unresolved};
use super::handling::Gap;
use super::proportion::Proportion;
use super::row::{Row, Transfer};
use crate::clock::Timestamp;
use crate::id::CallId;
use crate::policy::Category;
use crate::policy::backtest::{BAND_ACT_PM, BAND_WARN_PM};

/// The layer of a card whose layer is healthy.
pub const UNEXPLAINED: &str = "unexplained";

/// Most calls that a card names: as many as a person listens to.
pub const EVIDENCE_MAX: usize = 5;

/// Fewest conversations with one queue for a card about its line: a line that cuts is urgent,
/// and a small team must not wait for the hundredth call to hear of it.
pub const CUT_SAMPLE_MIN: u64 = 20;

/// When a figure is bad. A tenant may have others; these are printed with every report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Thresholds {
    /// Above this transfer rate there is a warning, per-mille of calls.
    pub rate_warn_pm: u32,
    /// Above this one something must be changed.
    pub rate_act_pm: u32,
    /// Below this first-call resolution after transfer, per-mille.
    pub resolution_min_pm: u32,
    /// Above this abandonment between decision and bridge, per-mille.
    pub abandonment_max_pm: u32,
    /// Above this share of conversations over within a minute of the bridge, per-mille. Short
    /// conversations exist; one in ten is more than a habit of callers.
    pub cut_max_pm: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            rate_warn_pm: BAND_WARN_PM,
            rate_act_pm: BAND_ACT_PM,
            resolution_min_pm: 800,
            abandonment_max_pm: 50,
            cut_max_pm: 100,
        }
    }
}

/// Which figure is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Too many calls are handed over.
    TransferRate,
    /// Too few of them are resolved by the person who takes them.
    ResolutionPostTransfer,
    /// They take longer than direct calls.
    HandleTime,
    /// Too many callers leave while they wait.
    Abandonment,
    /// Conversations end soon after the bridge.
    LifeAfterBridge,
}

/// What a figure says is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Look.
    Warn,
    /// Change something.
    Act,
}

/// A setting, and which way to turn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Knob {
    /// Where it is: a key of the configuration or of the policy, or the place outside of both.
    pub setting: &'static str,
    /// What to do with it.
    pub direction: &'static str,
}

/// One check of a layer, made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// What it is; none where nothing was measured.
    pub value: Option<i64>,
    /// Beyond which it is sick.
    pub limit: i64,
    /// It is beyond; a check without a value is neither.
    pub sick: bool,
}

/// A bad figure with everything that a decision about it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Which figure.
    pub signal: Signal,
    /// Look, or change something.
    pub severity: Severity,
    /// Of which queue alone, where it is of one.
    pub queue: Option<String>,
    /// The reason that contributes most, where the figure is the transfer rate.
    pub trigger: Option<Category>,
    /// The rule that gave it most often.
    pub rule_id: Option<String>,
    /// The figure: per-mille, or milliseconds for the handle time.
    pub value: i64,
    /// Its 95 % bound on the side of the threshold.
    pub bound: i64,
    /// What the bound has crossed.
    pub threshold: i64,
    /// On how many calls or transfers.
    pub n: u64,
    /// To blame, or [`UNEXPLAINED`].
    pub layer: &'static str,
    /// What was checked before it was blamed.
    pub checks: Vec<Finding>,
    /// What to change, the first of them first. None where nothing explains the figure.
    pub knobs: Vec<Knob>,
    /// Calls that show it, the clearest first.
    pub evidence: Vec<CallId>,
}

/// A figure beyond its threshold, before anything is blamed.
struct Fired {
    severity: Severity,
    value: i64,
    bound: i64,
    threshold: i64,
    n: u64,
}

/// The rows from which figures were taken, for the calls that show them.
#[derive(Clone, Copy)]
pub(super) struct Shown<'r> {
    rows: &'r [Row],
    period: Period,
    now: Timestamp,
}

/// The cards of a period, in the order of the rules.
pub fn diagnose(
    rows: &[Row],
    period: Period,
    figures: &Figures,
    thresholds: Thresholds,
    now: Timestamp,
) -> Vec<Card> {
    let shown = Shown { rows, period, now };
    let mut cards: Vec<Card> =
        RULES.iter().filter_map(|rule| card(rule, figures, thresholds, shown)).collect();
    cards.extend(lines(figures, thresholds, shown));
    cards
}

/// The card of one rule, where its figure is beyond its threshold.
fn card(rule: &Rule, figures: &Figures, thresholds: Thresholds, shown: Shown<'_>) -> Option<Card> {
    let fired = fired(rule.signal, figures, thresholds)?;
    let checks: Vec<Finding> = rule.checks.iter().map(|check| check.make(figures)).collect();
    let sick = |name: &str| checks.iter().any(|found| found.sick && found.check == name);
    let knobs: Vec<Knob> = rule
        .checks
        .iter()
        .filter(|check| sick(check.name))
        .filter_map(|check| (check.knob)(figures))
        .collect();
    let layer = if knobs.is_empty() { UNEXPLAINED } else { rule.layer };
    let Fired { severity, value, bound, threshold, n } = fired;
    let trigger = rules::blamed(figures).filter(|_| rule.signal == Signal::TransferRate);
    Some(Card {
        signal: rule.signal,
        severity,
        queue: None,
        trigger,
        rule_id: trigger.and_then(|trigger| shown.rule_of(trigger)),
        value,
        bound,
        threshold,
        n,
        layer,
        checks,
        knobs,
        evidence: evidence(rule.signal, trigger, shown),
    })
}

fn fired(signal: Signal, figures: &Figures, thresholds: Thresholds) -> Option<Fired> {
    match signal {
        Signal::TransferRate => {
            let above = |limit, severity| above(figures.transfer_rate, limit, severity);
            above(thresholds.rate_act_pm, Severity::Act)
                .or_else(|| above(thresholds.rate_warn_pm, Severity::Warn))
        }
        Signal::ResolutionPostTransfer => {
            below(figures.resolution().post_transfer, thresholds.resolution_min_pm)
        }
        Signal::HandleTime => match &figures.handle_gap {
            Gap::Compared(gap) if gap.is_surely_longer() => Some(Fired {
                severity: Severity::Act,
                value: gap.gap_ms,
                bound: gap.low_ms,
                threshold: 0,
                n: gap.transferred,
            }),
            Gap::Compared(_) | Gap::NoBaseline | Gap::TooFew { .. } => None,
        },
        Signal::Abandonment => above(figures.abandonment, thresholds.abandonment_max_pm, Severity::Act),
        // Of one queue, not of all.
        Signal::LifeAfterBridge => None,
    }
}

fn above(share: Proportion, limit_pm: u32, severity: Severity) -> Option<Fired> {
    share.surely_above(limit_pm).then(|| of_share(share, share.bounds_pm().0, limit_pm, severity))
}

fn below(share: Proportion, limit_pm: u32) -> Option<Fired> {
    share.surely_below(limit_pm).then(|| of_share(share, share.bounds_pm().1, limit_pm, Severity::Act))
}

fn of_share(share: Proportion, bound_pm: u64, limit_pm: u32, severity: Severity) -> Fired {
    Fired {
        severity,
        value: per_mille(share).unwrap_or_default(),
        bound: i64::try_from(bound_pm).unwrap_or_default(),
        threshold: i64::from(limit_pm),
        n: share.n,
    }
}

fn per_mille(share: Proportion) -> Option<i64> {
    i64::try_from(share.per_mille()?).ok()
}

/// The cards about single queues whose conversations end soon after the bridge.
fn lines(figures: &Figures, thresholds: Thresholds, shown: Shown<'_>) -> Vec<Card> {
    let line = |(queue, life): (&String, &super::figures::Life)| {
        let (low_pm, _) = life.cut.bounds_pm();
        let proven = life.cut.bounds().0 * 1_000.0 > f64::from(thresholds.cut_max_pm);
        if life.cut.n < CUT_SAMPLE_MIN || !proven {
            return None;
        }
        let check = rules::timer(life);
        let knobs: Vec<Knob> = check.sick.then_some(rules::LINE).into_iter().collect();
        let short = |transfer: &Transfer| {
            let life_ms = i64::try_from(transfer.life_ms?).ok()?;
            let near = life.cut_after_ms?.abs_diff(life_ms);
            (transfer.queue == *queue && life_ms < super::figures::CUT_WITHIN_MS).then_some(u64::MAX - near)
        };
        let Fired { severity, value, bound, threshold, n } =
            of_share(life.cut, low_pm, thresholds.cut_max_pm, Severity::Act);
        Some(Card {
            signal: Signal::LifeAfterBridge,
            severity,
            queue: Some(queue.clone()),
            trigger: None,
            rule_id: None,
            value,
            bound,
            threshold,
            n,
            layer: if knobs.is_empty() { UNEXPLAINED } else { rules::LINE_LAYER },
            checks: vec![check],
            knobs,
            evidence: shown.worst(|_, transfer| short(transfer)),
        })
    };
    figures.life.iter().filter_map(line).collect()
}

/// The calls that show a bad figure, by what its layer could have done to them.
fn evidence(signal: Signal, trigger: Option<Category>, shown: Shown<'_>) -> Vec<CallId> {
    match signal {
        Signal::TransferRate => {
            shown.worst(|_, transfer| (transfer.ordinal == 1).then(|| u64::from(transfer.trigger == trigger)))
        }
        Signal::ResolutionPostTransfer => {
            let unresolved = unresolved(shown.rows, shown.period, shown.now);
            shown.worst(|_, transfer| {
                let missing = 1_000_u64.saturating_sub(transfer.completeness_pm.unwrap_or(1_000));
                let other_team = u64::from(transfer.wrong_team) * 1_000;
                unresolved.contains(&transfer.id).then_some(missing.max(other_team))
            })
        }
        Signal::HandleTime => shown.worst(|_, transfer| {
            let late_ms = transfer.pop_skew_ms.map_or(u64::MAX, |ms| u64::try_from(ms).unwrap_or(0));
            transfer.handle_ms().map(|_| late_ms)
        }),
        Signal::Abandonment => shown.worst(|_, transfer| {
            let silent_ms = transfer.dead_air_ms.unwrap_or_default();
            transfer.abandoned_ms.map(|waited_ms| silent_ms.max(waited_ms))
        }),
        Signal::LifeAfterBridge => Vec::new(),
    }
}

impl Shown<'_> {
    /// The rule that named this reason most often.
    fn rule_of(self, trigger: Category) -> Option<String> {
        let mut rules: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, transfer) in transfers(self.rows, self.period) {
            if let (1, true, Some(rule)) =
                (transfer.ordinal, transfer.trigger == Some(trigger), transfer.rule_id.as_deref())
            {
                *rules.entry(rule).or_default() += 1;
            }
        }
        rules.into_iter().max_by_key(|(_, count)| *count).map(|(rule, _)| rule.to_owned())
    }

    /// The calls that weigh most; none is named twice.
    fn worst(self, weigh: impl Fn(&Row, &Transfer) -> Option<u64>) -> Vec<CallId> {
        let mut weighed: Vec<(u64, &CallId)> = transfers(self.rows, self.period)
            .filter_map(|(row, transfer)| Some((weigh(row, transfer)?, &row.call)))
            .collect();
        weighed.sort_by(|(one, first), (other, second)| other.cmp(one).then_with(|| first.cmp(second)));
        let mut calls: Vec<CallId> = Vec::new();
        for (_, call) in weighed {
            if calls.len() == EVIDENCE_MAX {
                break;
            }
            if !calls.contains(call) {
                calls.push(call.clone());
            }
        }
        calls
    }
}

#[cfg(test)]
mod tests;
