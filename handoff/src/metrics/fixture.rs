//! Rows from which the tests of the measures begin: a healthy call and a healthy transfer.

use super::row::{Disposition, ROW_VERSION, Row, Transfer};
use crate::clock::{DAY_MS, Timestamp};
use crate::event::Mode;
use crate::id::{CallId, TransferId};
use crate::policy::Category;

/// A call of one minute that began `day` days after the epoch, of a caller of its own.
pub(super) fn row(name: &str, day: i64, transfer: Option<Transfer>) -> Row {
    let started_at = Timestamp::from_unix_millis(day * DAY_MS);
    let call = CallId::parse(&format!("call_{name}")).unwrap();
    // Each call names its transfer by its own id.
    let transfer =
        transfer.map(|transfer| Transfer { id: TransferId::of(&call, transfer.ordinal), ..transfer });
    Row {
        version: ROW_VERSION,
        started_at,
        ended_at: started_at.plus_millis(60_000),
        caller: Some(format!("hm1:{name}")),
        intent: Some("billing".to_owned()),
        left_out: None,
        legs_open: 0,
        transfer,
        call,
    }
}

/// Decided, offered and bridged after 20 s of the 30 that were promised; the card was there
/// before the answer; talked for 180 s.
pub(super) fn bridged() -> Transfer {
    Transfer {
        id: TransferId::parse("xfer_0").unwrap(),
        ordinal: 1,
        followed: false,
        mode: Mode::Warm,
        trigger: Some(Category::LowConfidence),
        rule_id: Some("unsure".to_owned()),
        queue: "queue_care".to_owned(),
        outcome: Some("completed".to_owned()),
        offers: 1,
        wrong_team: false,
        ring_ms: 6_000,
        accepted: true,
        bridged_ms: Some(20_000),
        abandoned_ms: None,
        pop_skew_ms: Some(-800),
        dead_air_ms: Some(120),
        played_pm: Some(1_000),
        promised_s: Some(30),
        completeness_pm: Some(1_000),
        template: Some(false),
        handled_ms: Some(180_000),
        life_ms: Some(170_000),
        cut_by: Some("remote_hang_up".to_owned()),
        disposition: None,
        repeat_within_days: None,
    }
}

/// The same with a disposition and 30 s of work after the call.
pub(super) fn disposed(transfer: Transfer, resolved: bool) -> Transfer {
    let disposition = Disposition { code: "done".to_owned(), resolved, acw_s: Some(30), asked_again: None };
    Transfer { disposition: Some(disposition), ..transfer }
}

/// The caller left after so long.
pub(super) fn abandoned(after_ms: u64) -> Transfer {
    Transfer {
        outcome: Some("abandoned_by_caller".to_owned()),
        accepted: false,
        bridged_ms: None,
        abandoned_ms: Some(after_ms),
        pop_skew_ms: None,
        handled_ms: None,
        life_ms: None,
        cut_by: None,
        ..bridged()
    }
}
