//! `warmbridge metrics`: the figures over the calls of a store, each with its sample size and
//! its bounds, and the cards that fire, with the setting to change and the calls that show it.
//! It reads the chains themselves, so it needs nothing that was measured before; it writes
//! nothing and changes no setting.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use functions::audit_read::Reader;
use functions::sqlite::{self, StoreError};
use handoff::clock::Timestamp;
use handoff::id::CallId;
use handoff::metrics::diagnosis::Thresholds;
use handoff::metrics::figures::Period;
use handoff::metrics::handling::Baseline;
use handoff::metrics::report::Report;
use handoff::metrics::row::Row;

use super::policy::moment;
use super::{UNREADABLE, print_line};

/// Options of `warmbridge metrics`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// From when on: `2026-11-23`, `2026-11-23T07:00:00Z`, `7d` or `12h`; all calls where it is
    /// left out.
    #[arg(long)]
    since: Option<String>,
    /// Until when, in the same forms; that moment itself is outside. Callers who come back
    /// later still count.
    #[arg(long)]
    until: Option<String>,
    /// Direct calls to compare handle times with, one JSON object a line: intent, `ended_at`,
    /// `talk_s`, `hold_s`, `acw_s`.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Where the embedded store is.
    #[arg(long, default_value = "./warmbridge-data")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let now = sqlite::wall_clock();
    let limit = |given: &Option<String>, default: Timestamp| given.as_deref().map_or(Some(default), moment);
    // The end is outside: a call of this very millisecond is still inside.
    let limits = (limit(&options.since, Timestamp::default()), limit(&options.until, now.plus_millis(1)));
    let (Some(from), Some(to)) = limits else {
        print_line("--since and --until are a date, a time (2026-11-23T07:00:00Z), or like 7d or 12h");
        return ExitCode::FAILURE;
    };
    let baseline = match options.baseline.as_deref().map(read_baseline).transpose() {
        Ok(baseline) => baseline,
        Err(problem) => {
            print_line(&problem);
            return ExitCode::FAILURE;
        }
    };
    match measured(&options.data, Period { from, to }, baseline.as_ref(), now) {
        Ok(report) if options.json => print_line(&serde_json::json!(report).to_string()),
        Ok(report) => print_line(report.to_string().trim_end()),
        Err(error) => {
            print_line(&format!("{}: {error}", options.data.display()));
            return ExitCode::from(UNREADABLE);
        }
    }
    ExitCode::SUCCESS
}

fn read_baseline(file: &Path) -> Result<Baseline, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Baseline::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// The report of a period. Calls after it are read too: they tell who came back.
fn measured(
    data: &Path,
    period: Period,
    baseline: Option<&Baseline>,
    now: Timestamp,
) -> Result<Report, StoreError> {
    let reader = Reader::open(data)?;
    let mut rows = Vec::new();
    for chain in reader.list()?.into_iter().filter(|chain| chain.started_at >= period.from) {
        // A side chain is read with its call.
        let Ok(call) = CallId::parse(&chain.chain) else { continue };
        rows.extend(Row::of(&call, &reader.records(&chain.tenant, &call)?));
    }
    // A period that began at no moment began with its first call.
    let first = rows.iter().map(|row| row.started_at).min().unwrap_or(period.from);
    let from = if period.from == Timestamp::default() { first } else { period.from };
    Ok(Report::of(&rows, Period { from, ..period }, baseline, Thresholds::default(), now))
}

#[cfg(test)]
mod tests {
    use functions::ports::{AppendAudit, Keys};
    use functions::sqlite::Store;
    use handoff::audit::entry::entry_of;
    use handoff::event::{CallEvent, Fact, Role};
    use handoff::id::{EdgeId, LegId, TenantId};
    use handoff::signal::Speaker;

    use super::*;

    /// A call of four seconds in which somebody spoke; the ledger has it from now on.
    async fn talked(store: &Store, name: &str) {
        let tenant = TenantId::parse("t_acme").unwrap();
        let call = CallId::parse(name).unwrap();
        let dek = store.data_key(&tenant, &call).await.unwrap();
        let facts = [
            Fact::LegOpened { leg: LegId::VOICE_AGENT, role: Role::VoiceAgent },
            Fact::Utterance { segment: 0, speaker: Speaker::Caller, offset_ms: 1_000, text: None },
            Fact::CallEnded { cause: "normal".to_owned(), side: "caller".to_owned() },
        ];
        for (seq, fact) in (0..).zip(facts) {
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

    fn options(data: &Path) -> Options {
        Options { since: None, until: None, baseline: None, data: data.to_owned(), json: false }
    }

    #[tokio::test]
    async fn the_calls_of_a_store_are_measured_beside_a_running_edge() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        for name in ["call_0001", "call_0002"] {
            talked(&store, name).await;
        }
        let now = store.wall();
        let of = |from, to| measured(data.path(), Period { from, to }, None, now).unwrap();
        let all = of(Timestamp::default(), now.plus_millis(1));
        assert_eq!((all.figures.calls, all.figures.transfer_rate.n), (2, 2));
        assert!(all.period.from > now.plus_millis(-60_000), "the period began with its first call");
        assert_eq!(of(now.plus_millis(1), now.plus_millis(2)).figures.calls, 0);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(run(&options(nothing.path())), ExitCode::from(UNREADABLE));
        let when = Options { since: Some("yesterday".to_owned()), ..options(nothing.path()) };
        assert_eq!(run(&when), ExitCode::FAILURE);
        let file = nothing.path().join("direct.jsonl");
        std::fs::write(&file, "not a call\n").unwrap();
        assert_eq!(read_baseline(&file).unwrap_err().split("line 1").count(), 2);
        let against = Options { baseline: Some(file), ..options(nothing.path()) };
        assert_eq!(run(&against), ExitCode::FAILURE);
    }
}
