//! `warmbridge policy`: says what is wrong with a policy file, with the line, or `ok`; and what
//! it would have done to the calls of a store, without touching one of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use functions::audit_read::{Reader, Shown};
use functions::sqlite::{self, StoreError};
use handoff::clock::Timestamp;
use handoff::id::CallId;
use handoff::policy::backtest::{BAND_ACT_PM, BAND_WARN_PM, Backtest, Band, Flip, backtest};
use handoff::policy::replay::{LeftOut, Past, replay};
use handoff::policy::{Category, Policy};
use serde_json::{Value, json};

use super::{UNREADABLE, print_line};

/// Most changed calls that are printed; the JSON form names more.
const PRINTED_MAX: usize = 20;

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Say what is wrong with a policy file, or `ok`.
    Check {
        /// The policy file.
        file: PathBuf,
    },
    /// Say what a policy would have done to the recorded calls.
    Backtest {
        /// The policy file.
        file: PathBuf,
        /// From when on: `2026-11-23`, `2026-11-23T07:00:00Z`, `7d` or `12h`; all calls where
        /// it is left out.
        #[arg(long)]
        since: Option<String>,
        /// Where the embedded store is.
        #[arg(long, default_value = "./warmbridge-data")]
        data: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(what: What) -> ExitCode {
    match what {
        What::Check { file } => {
            let Some(policy) = read(&file) else { return ExitCode::FAILURE };
            for warning in policy.lint() {
                print_line(&format!("warning: {warning}"));
            }
            print_line(&format!("ok: {}", policy.version()));
            ExitCode::SUCCESS
        }
        What::Backtest { file, since, data, json } => {
            let Some(policy) = read(&file) else { return ExitCode::FAILURE };
            let Some(since) = since.as_deref().map_or_else(|| Some(Timestamp::default()), moment) else {
                print_line("--since is a date, a time (2026-11-23T07:00:00Z), or like 7d or 12h");
                return ExitCode::FAILURE;
            };
            match tested(&policy, since, &data) {
                Ok(tested) => {
                    tested.print(&policy, json);
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    print_line(&format!("{}: {error}", data.display()));
                    ExitCode::from(UNREADABLE)
                }
            }
        }
    }
}

/// The policy in a file, or what is wrong with it on stdout.
fn read(file: &Path) -> Option<Policy> {
    let problem = match std::fs::read_to_string(file) {
        Ok(text) => match Policy::from_toml(&text) {
            Ok(policy) => return Some(policy),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    print_line(&format!("{}: {problem}", file.display()));
    None
}

/// A date, a time, or so many days or hours ago.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    let ago = |number: &str, hours: i64| {
        let number: i64 = number.parse().ok().filter(|number| (0..=100_000).contains(number))?;
        let ago_ms = number * hours * 3_600_000;
        Some(Timestamp::from_unix_millis(sqlite::wall_clock().unix_millis() - ago_ms))
    };
    if let Some(days) = text.strip_suffix('d') {
        return ago(days, 24);
    }
    if let Some(hours) = text.strip_suffix('h') {
        return ago(hours, 1);
    }
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let precise = if whole.contains('.') { whole } else { whole.replace('Z', ".000Z") };
    Timestamp::parse(&precise).ok()
}

/// What a policy would have done, and the calls that say nothing about it.
#[derive(Debug)]
struct Tested {
    result: Backtest,
    left_out: BTreeMap<LeftOut, u64>,
}

fn tested(policy: &Policy, since: Timestamp, data: &Path) -> Result<Tested, StoreError> {
    let reader = Reader::open(data)?;
    let mut left_out: BTreeMap<LeftOut, u64> = BTreeMap::new();
    let mut events = Vec::new();
    for chain in reader.list()?.into_iter().filter(|chain| chain.started_at >= since) {
        // A side chain holds what came late; nothing was decided on it.
        let Ok(call) = CallId::parse(&chain.chain) else { continue };
        match replay(policy, &call, &facts(reader.show(call.as_str())?)) {
            Ok(judged) => events.extend(judged),
            Err(why) => *left_out.entry(why).or_default() += 1,
        }
    }
    Ok(Tested { result: backtest(policy, events), left_out })
}

/// The facts of the edge in the order in which they happened, and what a function decided.
fn facts(records: Vec<Shown>) -> Vec<Past> {
    let mut facts: Vec<((u64, u64), Past)> = records
        .into_iter()
        .filter_map(|record| {
            let at = record.body.get("mono_us").and_then(Value::as_u64);
            let decided = record.kind == "trigger.evaluated";
            let at = at.or_else(|| decided.then_some(u64::MAX))?;
            let past = Past { kind: record.kind, body: record.body, text: record.text };
            Some(((at, record.pseq), past))
        })
        .collect();
    facts.sort_by_key(|(order, _)| *order);
    facts.into_iter().map(|(_, past)| past).collect()
}

impl Tested {
    fn print(&self, policy: &Policy, as_json: bool) {
        if as_json {
            return print_line(&self.json(policy).to_string());
        }
        let Backtest { calls, flips, renamed, changed, shares, .. } = &self.result;
        let band = match self.result.band() {
            Band::Healthy => "below the band",
            Band::Warn => "inside the band: look at the rules",
            Band::Act => "above the band: change thresholds or scope",
        };
        let (then, now) = (percent(self.result.rate_then_pm()), percent(self.result.rate_pm()));
        let (from, to) = (percent(BAND_WARN_PM), percent(BAND_ACT_PM));
        print_line(&format!("policy          {}", policy.version()));
        print_line(&format!("calls           {calls}"));
        print_line(&format!("transfer rate   {now} (was {then}); the band is {from} to {to}: {band}"));
        print_line(&format!("calls that flip {flips}, and {renamed} with another reason"));
        for (category, count) in shares {
            let share = percent(per_mille(*count, self.result.transferred_now));
            print_line(&format!("  {:<16} {count:>6}  {share}", category.as_str()));
        }
        if let (Band::Act, Some(category)) = (self.result.band(), self.result.largest_adjustable()) {
            print_line(&format!("look first at   {}", category.as_str()));
        }
        for Flip { call, was, now } in changed.iter().take(PRINTED_MAX) {
            print_line(&format!("  {call}  {} -> {}", name(*was), name(*now)));
        }
        if changed.len() > PRINTED_MAX {
            print_line(&format!("  and {} more (--json)", changed.len() - PRINTED_MAX));
        }
        for (why, count) in &self.left_out {
            print_line(&format!("left out        {count}: {}", because(*why)));
        }
    }

    fn json(&self, policy: &Policy) -> Value {
        let result = &self.result;
        let band = match result.band() {
            Band::Healthy => "healthy",
            Band::Warn => "warn",
            Band::Act => "act",
        };
        let shares: BTreeMap<&str, u64> =
            result.shares.iter().map(|(category, count)| (category.as_str(), *count)).collect();
        let changed: Vec<Value> = result
            .changed
            .iter()
            .map(|flip| json!({"call": flip.call, "was": flip.was.map(Category::as_str), "now": flip.now.map(Category::as_str)}))
            .collect();
        let left_out: BTreeMap<&str, u64> =
            self.left_out.iter().map(|(why, count)| (because(*why), *count)).collect();
        json!({
            "policy": policy.version(), "calls": result.calls,
            "transferred_then": result.transferred_then, "transferred_now": result.transferred_now,
            "rate_then_pm": result.rate_then_pm(), "rate_pm": result.rate_pm(),
            "band_pm": [BAND_WARN_PM, BAND_ACT_PM], "band": band,
            "flips": result.flips, "renamed": result.renamed, "changed": changed, "shares": shares,
            "largest_adjustable": result.largest_adjustable().map(Category::as_str), "left_out": left_out,
        })
    }
}

const fn because(why: LeftOut) -> &'static str {
    match why {
        LeftOut::NoTalk => "nobody talked to the voice agent",
        LeftOut::NoText => "what was said is erased, or was not kept",
        LeftOut::NoRule => "no rule decided: the voice agent left or was lost",
    }
}

fn name(category: Option<Category>) -> &'static str {
    category.map_or("no transfer", Category::as_str)
}

fn per_mille(part: u64, whole: u64) -> u32 {
    (part * 1_000).checked_div(whole).and_then(|share| u32::try_from(share).ok()).unwrap_or(0)
}

fn percent(pm: u32) -> String {
    format!("{}.{} %", pm / 10, pm % 10)
}

#[cfg(test)]
mod tests {
    use functions::ports::{AppendAudit, Keys};
    use functions::sqlite::Store;
    use handoff::audit::entry::entry_of;
    use handoff::event::{CallEvent, Fact, Role};
    use handoff::id::{EdgeId, LegId, TenantId};
    use handoff::pii::Pii;
    use handoff::signal::Speaker;

    use super::*;

    /// Two calls of four seconds: one asks for a person and got one, one does not.
    async fn store(data: &Path, policy: &Policy) {
        let store = Store::open(data).unwrap();
        let tenant = TenantId::parse("t_acme").unwrap();
        for (name, words) in [("call_0001", "can I talk to a person please"), ("call_0002", "my bill")] {
            let call = CallId::parse(name).unwrap();
            let dek = store.data_key(&tenant, &call).await.unwrap();
            let text = Pii::new(words.to_owned());
            let snapshot = handoff::conversation::Snapshot::default();
            let speaker = Speaker::Caller;
            let stimulus = handoff::conversation::Stimulus::Turn { speaker, text: text.clone() };
            let trigger = policy.evaluate(&snapshot, &stimulus);
            assert_eq!(trigger.is_some(), name == "call_0001");
            let decided = trigger.map(|trigger| Fact::TriggerEvaluated {
                trigger,
                ruleset: policy.version().to_owned(),
                inputs: Vec::new(),
            });
            let leg_closed = Fact::LegClosed {
                leg: LegId::CALLER,
                role: Role::Caller,
                cause: handoff::call::outcome::LegCause::RemoteHangUp,
                billed_ms: 4_000,
                quality: None,
            };
            let facts = [
                Some(Fact::LegOpened { leg: LegId::VOICE_AGENT, role: Role::VoiceAgent }),
                Some(Fact::Utterance { segment: 0, speaker, offset_ms: 1_000, text: Some(text) }),
                decided,
                Some(leg_closed),
            ];
            for (seq, fact) in (0..).zip(facts.into_iter().flatten()) {
                let event = CallEvent {
                    edge: EdgeId::parse("edge-1").unwrap(),
                    tenant: tenant.clone(),
                    call: call.clone(),
                    seq,
                    time: store.wall(),
                    mono_us: 1_000_000 * (1 + seq),
                    commands: String::new(),
                    fact,
                    evaluable: None,
                };
                store.append(entry_of(&event, &dek, [7; 12])).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn the_same_policy_flips_nothing_and_another_what_it_changes() {
        let data = tempfile::tempdir().unwrap();
        let policy = Policy::default();
        store(data.path(), &policy).await;
        let same = tested(&policy, Timestamp::default(), data.path()).unwrap();
        assert_eq!((same.result.calls, same.result.flips, same.result.renamed), (2, 0, 0));
        assert_eq!(same.json(&policy)["rate_pm"], 500);
        assert_eq!(same.json(&policy)["band"], "act");
        assert_eq!(same.json(&policy)["shares"], json!({"caller_request": 1}));
        let deaf = Policy::from_toml("name = 'deaf'\n[[elapsed_time]]\nid = 't'\nafter_s = 300").unwrap();
        let other = tested(&deaf, Timestamp::default(), data.path()).unwrap().json(&deaf);
        assert_eq!(
            (&other["flips"], &other["rate_pm"], &other["rate_then_pm"]),
            (&json!(1), &json!(0), &json!(500))
        );
        assert_eq!(other["changed"], json!([{"call": "call_0001", "was": "caller_request", "now": null}]));
    }

    #[tokio::test]
    async fn only_calls_since_then_count_and_erased_ones_are_left_out() {
        let data = tempfile::tempdir().unwrap();
        let policy = Policy::default();
        store(data.path(), &policy).await;
        let later = Timestamp::from_unix_millis(sqlite::wall_clock().unix_millis() + 60_000);
        assert_eq!(tested(&policy, later, data.path()).unwrap().result.calls, 0);
        let open = Store::open(data.path()).unwrap();
        let tenant = TenantId::parse("t_acme").unwrap();
        open.destroy(&tenant, &CallId::parse("call_0001").unwrap()).await.unwrap();
        drop(open);
        let rest = tested(&policy, Timestamp::default(), data.path()).unwrap();
        assert_eq!((rest.result.calls, rest.left_out.get(&LeftOut::NoText)), (1, Some(&1)));
    }

    #[test]
    fn a_moment_is_a_date_a_time_or_an_age() {
        let day = Timestamp::parse("2026-11-23T00:00:00.000Z").unwrap();
        assert_eq!(moment("2026-11-23"), Some(day));
        assert_eq!(moment("2026-11-23T00:00:00Z"), Some(day));
        let week = moment("7d").unwrap().unix_millis();
        assert!((sqlite::wall_clock().unix_millis() - week - 7 * 86_400_000).abs() < 60_000);
        for bad in ["", "d", "-1d", "yesterday", "2026-13-01", "999999999999999999999h"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
