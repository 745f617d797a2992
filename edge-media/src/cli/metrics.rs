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
#[cfg(feature = "aws")]
use handoff::id::TenantId;
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
    /// The audit table of a deployed stack, instead of an embedded store.
    #[arg(long, value_name = "TABLE")]
    dynamodb: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is asked for, understood.
struct Question {
    period: Period,
    baseline: Option<Baseline>,
    now: Timestamp,
}

impl Options {
    /// The table of a stack, where one is named.
    pub(super) fn table(&self) -> Option<&str> {
        self.dynamodb.as_deref()
    }

    fn question(&self) -> Result<Question, String> {
        let now = sqlite::wall_clock();
        let limit =
            |given: &Option<String>, default: Timestamp| given.as_deref().map_or(Some(default), moment);
        // The end is outside: a call of this very millisecond is still inside.
        let limits = (limit(&self.since, Timestamp::default()), limit(&self.until, now.plus_millis(1)));
        let (Some(from), Some(to)) = limits else {
            let forms = "--since and --until are a date, a time (2026-11-23T07:00:00Z), or like 7d or 12h";
            return Err(forms.to_owned());
        };
        let baseline = self.baseline.as_deref().map(read_baseline).transpose()?;
        Ok(Question { period: Period { from, to }, baseline, now })
    }

    fn told(&self, report: Result<Report, String>, place: &str) -> ExitCode {
        match report {
            Ok(report) if self.json => print_line(&serde_json::json!(report).to_string()),
            Ok(report) => print_line(report.to_string().trim_end()),
            Err(error) => {
                print_line(&format!("{place}: {error}"));
                return ExitCode::from(UNREADABLE);
            }
        }
        ExitCode::SUCCESS
    }
}

pub(super) fn run(options: &Options) -> ExitCode {
    let question = match options.question() {
        Ok(question) => question,
        Err(problem) => {
            print_line(&problem);
            return ExitCode::FAILURE;
        }
    };
    let rows = rows_of_store(&options.data, question.period).map_err(|error| error.to_string());
    options.told(rows.map(|rows| report(&rows, &question)), &options.data.display().to_string())
}

/// The same from the tables of a deployed stack.
#[cfg(feature = "aws")]
pub(super) async fn run_of_stack(options: Options) -> anyhow::Result<ExitCode> {
    use functions::aws::read::TableReader;

    let question = match options.question() {
        Ok(question) => question,
        Err(problem) => {
            print_line(&problem);
            return Ok(ExitCode::FAILURE);
        }
    };
    let table = options.dynamodb.clone().unwrap_or_default();
    let reader = TableReader::open(&table).await;
    let rows = async {
        let mut rows = Vec::new();
        for chain in reader.list().await?.into_iter().filter(|chain| chain.started_at >= question.period.from)
        {
            let (Ok(call), Ok(tenant)) = (CallId::parse(&chain.chain), TenantId::parse(&chain.tenant)) else {
                continue;
            };
            rows.extend(Row::of(&call, &reader.records_of(&tenant, &call).await?));
        }
        Ok::<_, functions::ports::PortError>(rows)
    };
    let rows = rows.await.map_err(|error| error.to_string());
    Ok(options.told(rows.map(|rows| report(&rows, &question)), &table))
}

fn read_baseline(file: &Path) -> Result<Baseline, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Baseline::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// The rows of the calls that began in the period or later: those tell who came back.
fn rows_of_store(data: &Path, period: Period) -> Result<Vec<Row>, StoreError> {
    let reader = Reader::open(data)?;
    let mut rows = Vec::new();
    for chain in reader.list()?.into_iter().filter(|chain| chain.started_at >= period.from) {
        // A side chain is read with its call.
        let Ok(call) = CallId::parse(&chain.chain) else { continue };
        rows.extend(Row::of(&call, &reader.records(&chain.tenant, &call)?));
    }
    Ok(rows)
}

fn report(rows: &[Row], question: &Question) -> Report {
    let Question { period, baseline, now } = question;
    // A period that began at no moment began with its first call.
    let first = rows.iter().map(|row| row.started_at).min().unwrap_or(period.from);
    let from = if period.from == Timestamp::default() { first } else { period.from };
    Report::of(rows, Period { from, ..*period }, baseline.as_ref(), Thresholds::default(), *now)
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
        Options {
            since: None,
            until: None,
            baseline: None,
            data: data.to_owned(),
            dynamodb: None,
            json: false,
        }
    }

    #[tokio::test]
    async fn the_calls_of_a_store_are_measured_beside_a_running_edge() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        for name in ["call_0001", "call_0002"] {
            talked(&store, name).await;
        }
        let now = store.wall();
        let of = |from, to| {
            let period = Period { from, to };
            let rows = rows_of_store(data.path(), period).unwrap();
            report(&rows, &Question { period, baseline: None, now })
        };
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
