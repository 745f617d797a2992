//! `measure-transfers`: what a chain tells of its transfers becomes rows, and rows of a period
//! become figures and cards. A chain is measured when it closes and again whenever something
//! comes late; a row replaces the one before, so that measuring twice changes nothing. It
//! writes to no chain and changes no setting.

use std::collections::BTreeSet;

use handoff::audit::ChainId;
use handoff::clock::{DAY_MS, Day, Timestamp};
use handoff::id::{CallId, TenantId};
use handoff::metrics::diagnosis::Thresholds;
use handoff::metrics::figures::{Period, REPEAT_WINDOWS_DAYS};
use handoff::metrics::handling::Baseline;
use handoff::metrics::report::Report;
use handoff::metrics::row::{ROW_VERSION, Row};
use serde::Deserialize;

use crate::batch::Failure;
use crate::ports::{PutRow, ReadRecords, ReadRows, StoredRow};

/// Most days of one report: rows are kept a little longer than a year.
pub const PERIOD_DAYS_MAX: i64 = 400;

/// Records that come after a call and change what is measured of it.
const LATE_RESULTS: [&str; 2] = ["disposition.received", "followup.repeat_contact"];

/// Measures a call whose chain was closed or got something late. Returns how many rows it has.
pub async fn measure<S: ReadRecords + PutRow>(
    store: &S,
    tenant: &TenantId,
    call: &CallId,
) -> Result<usize, Failure> {
    let rows = Row::of(call, &store.records(tenant, call).await?);
    let count = rows.len();
    for row in rows {
        let body = serde_json::to_vec(&row).map_err(Failure::permanent)?;
        let (day, key) = (Day::of(row.started_at), row.key().to_owned());
        store.put_row(StoredRow { tenant: tenant.clone(), day, key, body }).await?;
    }
    Ok(count)
}

/// The figures and cards of a period, from its rows and from those of the days after it in
/// which a caller who comes back still counts.
pub async fn report<S: ReadRows>(
    store: &S,
    tenant: &TenantId,
    period: Period,
    baseline: Option<&Baseline>,
    now: Timestamp,
) -> Result<Report, Failure> {
    if period.to.unix_millis().saturating_sub(period.from.unix_millis()) > PERIOD_DAYS_MAX * DAY_MS {
        return Err(Failure::Permanent(format!("a period has at most {PERIOD_DAYS_MAX} days")));
    }
    let longest_window = REPEAT_WINDOWS_DAYS.into_iter().max().unwrap_or_default();
    // A call lasts into the next day at most; the window begins at its end.
    let last = period.to.plus_millis((i64::from(longest_window) + 1) * DAY_MS).min(now);
    let mut rows = Vec::new();
    let mut day = Day::of(period.from);
    while day <= Day::of(last) {
        rows.extend(store.rows(tenant, day).await?.iter().filter_map(read));
        day = day.next();
    }
    Ok(Report::of(&without_stale(rows), period, baseline, Thresholds::default(), now))
}

/// The call that an audit message changes the measures of, where it is a late result.
pub fn late_result(body: &[u8]) -> Option<(TenantId, CallId)> {
    let Message { entry } = serde_json::from_slice(body).ok()?;
    let is_late = LATE_RESULTS.contains(&entry.kind.as_str());
    Some((entry.tenant, entry.chain.call()?)).filter(|_| is_late)
}

/// An audit message as far as it must be known here.
#[derive(Deserialize)]
struct Message {
    entry: Entry,
}

#[derive(Deserialize)]
struct Entry {
    tenant: TenantId,
    chain: ChainId,
    #[serde(rename = "type")]
    kind: String,
}

/// A stored row. What else lies under the day, or has another form, is no row.
fn read(stored: &StoredRow) -> Option<Row> {
    let row: Row = serde_json::from_slice(&stored.body).ok()?;
    (row.version == ROW_VERSION && row.key() == stored.key).then_some(row)
}

/// A call that was measured before its first transfer was known has a row of its own left
/// over; the rows of its transfers replace it.
fn without_stale(mut rows: Vec<Row>) -> Vec<Row> {
    let transferred: BTreeSet<CallId> =
        rows.iter().filter(|row| row.transfer.is_some()).map(|row| row.call.clone()).collect();
    rows.retain(|row| row.transfer.is_some() || !transferred.contains(&row.call));
    rows
}

#[cfg(test)]
mod tests {
    use handoff::audit::{Actor, AuditEntry, AuditMessage, ProducerId};
    use handoff::id::TransferId;
    use handoff::metrics::proportion::Proportion;
    use serde_json::{Value, json};

    use super::*;
    use crate::audit_read::Reader;
    use crate::ports::AppendAudit;
    use crate::testing::{Bench, T0, call};

    fn tenant() -> TenantId {
        TenantId::parse("t_acme").unwrap()
    }

    fn entry(producer: &str, pseq: u64, at_ms: i64, kind: &str, body: Value) -> AuditMessage {
        AuditMessage::plain(AuditEntry {
            tenant: tenant(),
            chain: ChainId::of(&call()),
            producer: ProducerId::parse(producer).unwrap(),
            pseq,
            kind: kind.to_owned(),
            occurred_at: Timestamp::from_unix_millis(T0 + at_ms),
            actor: Actor::system("test"),
            body,
            sealed: None,
            refs: None,
        })
    }

    fn transfer() -> TransferId {
        TransferId::of(&call(), 1)
    }

    /// One call of a minute, bridged after twelve seconds, its chain closed.
    async fn closed_call(bench: &Bench) {
        let facts = [
            (0, "call.received", json!({"caller_tag": "hm1:a", "direction": "inbound"})),
            (5_000, "utterance.ref", json!({})),
            (
                9_000,
                "transfer.decided",
                json!({"transfer_id": transfer(), "trigger": "loop", "target_id": "q"}),
            ),
            (21_000, "bridge.completed", json!({"transfer_id": transfer()})),
            (60_000, "call.ended", json!({})),
            (60_000, "producer.final", json!({"count": 6})),
        ];
        for (pseq, (at_ms, kind, mut body)) in (0..).zip(facts) {
            body["mono_us"] = json!(at_ms * 1_000);
            bench.store.append(entry("edge-1", pseq, at_ms, kind, body)).await.unwrap();
        }
        assert_eq!(bench.store.close_complete().await.unwrap(), [call()]);
    }

    fn said(n: u64, resolved: bool) -> AuditMessage {
        let body = json!({"transfer_id": transfer(), "code": "done", "resolved": resolved, "acw_s": 20});
        entry(&format!("api:job{n}:1"), 0, 90_000 + i64::try_from(n).unwrap(), "disposition.received", body)
    }

    async fn resolved(bench: &Bench) -> Proportion {
        measure(&bench.store, &tenant(), &call()).await.unwrap();
        let from = Timestamp::from_unix_millis(T0 - DAY_MS);
        let period = Period { from, to: from.plus_millis(2 * DAY_MS) };
        let now = from.plus_millis(30 * DAY_MS);
        let report = report(&bench.store, &tenant(), period, None, now).await.unwrap();
        assert_eq!((report.figures.calls, report.figures.transfer_rate.k), (1, 1));
        report.figures.resolution().post_transfer
    }

    #[tokio::test]
    async fn a_late_disposition_changes_the_resolution_and_leaves_the_closed_chain_untouched() {
        let bench = Bench::new();
        closed_call(&bench).await;
        let chain = || Reader::open(bench.store.dir()).unwrap().export(call().as_str()).unwrap();
        let before = chain();
        assert_eq!(resolved(&bench).await, Proportion { k: 0, n: 0 });
        bench.store.append(said(1, false)).await.unwrap();
        assert_eq!(resolved(&bench).await, Proportion { k: 0, n: 1 });
        bench.store.append(said(2, true)).await.unwrap();
        assert_eq!(resolved(&bench).await, Proportion { k: 1, n: 1 }, "the last one wins");
        assert_eq!(chain(), before);
        let shown = Reader::open(bench.store.dir()).unwrap().show(call().as_str()).unwrap();
        let late = shown.iter().filter(|record| record.kind == "disposition.received").count();
        assert_eq!(late, 2, "all are kept");
    }

    #[tokio::test]
    async fn measuring_again_replaces_the_row() {
        let bench = Bench::new();
        closed_call(&bench).await;
        for _ in 0..2 {
            assert_eq!(measure(&bench.store, &tenant(), &call()).await, Ok(1));
        }
        let rows = bench.store.rows(&tenant(), Day::of(Timestamp::from_unix_millis(T0))).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), [transfer().as_str()]);
        let unknown = CallId::parse("call_other").unwrap();
        assert_eq!(measure(&bench.store, &tenant(), &unknown).await, Ok(0));
    }

    #[tokio::test]
    async fn what_is_no_row_of_this_form_is_passed_over() {
        let bench = Bench::new();
        closed_call(&bench).await;
        measure(&bench.store, &tenant(), &call()).await.unwrap();
        let day = Day::of(Timestamp::from_unix_millis(T0));
        let stored = bench.store.rows(&tenant(), day).await.unwrap().remove(0);
        let mut bare: Row = serde_json::from_slice(&stored.body).unwrap();
        bare.transfer = None;
        let stale = serde_json::to_vec(&bare).unwrap();
        bare.version += 1;
        let newer = serde_json::to_vec(&bare).unwrap();
        let other = |key: &str, body: Vec<u8>| StoredRow { key: key.to_owned(), body, ..stored.clone() };
        for row in [other("call_0001", stale), other("call_0002", newer), other("attempt", b"{}".to_vec())] {
            bench.store.put_row(row).await.unwrap();
        }
        assert_eq!(resolved(&bench).await, Proportion { k: 0, n: 0 });
    }

    #[tokio::test]
    async fn a_period_is_bounded() {
        let bench = Bench::new();
        let to = Timestamp::from_unix_millis(T0);
        let period = Period { from: to.plus_millis(-401 * DAY_MS), to };
        let refused = report(&bench.store, &tenant(), period, None, to).await;
        assert!(matches!(refused, Err(Failure::Permanent(_))), "{refused:?}");
    }

    #[test]
    fn late_results_are_known_by_their_type() {
        assert_eq!(late_result(&said(1, true).to_json()), Some((tenant(), call())));
        let accessed = entry("api:job:1", 0, 0, "record.accessed", json!({}));
        assert_eq!(late_result(&accessed.to_json()), None);
        assert_eq!(late_result(b"{"), None);
    }
}
