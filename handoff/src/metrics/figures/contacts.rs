//! Who came back. A contact is any call of the same caller that a person outside made and
//! that was no slip, also one that the voice agent kept. Two calls are about the same unless
//! both intents are known and differ: where nobody knows, resolution is not claimed.

use std::collections::BTreeMap;

use super::super::row::{LeftOut, Row};

/// One call of a caller.
struct Contact<'r> {
    began_ms: i64,
    intent: Option<&'r str>,
}

/// The calls of each caller, in their order.
pub(super) struct Contacts<'r>(BTreeMap<&'r str, Vec<Contact<'r>>>);

impl<'r> Contacts<'r> {
    pub(super) fn of(rows: &'r [Row]) -> Self {
        let mut callers: BTreeMap<&str, Vec<Contact<'_>>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.begins_call() && is_contact(row)) {
            if let Some(caller) = row.caller.as_deref() {
                let contact =
                    Contact { began_ms: row.started_at.unix_millis(), intent: row.intent.as_deref() };
                callers.entry(caller).or_default().push(contact);
            }
        }
        callers.values_mut().for_each(|calls| calls.sort_unstable_by_key(|call| call.began_ms));
        Self(callers)
    }

    /// The caller of this call made another one about the same by the end of the window, which
    /// begins when this one ended.
    pub(super) fn again(&self, row: &Row, window_ms: i64) -> bool {
        let Some(calls) = row.caller.as_deref().and_then(|caller| self.0.get(caller)) else { return false };
        let last = row.ended_at.unix_millis().saturating_add(window_ms);
        let later = calls.partition_point(|call| call.began_ms <= row.started_at.unix_millis());
        calls
            .iter()
            .skip(later)
            .take_while(|call| call.began_ms <= last)
            .any(|call| is_same(call.intent, row.intent.as_deref()))
    }
}

const fn is_contact(row: &Row) -> bool {
    match row.left_out {
        None | Some(LeftOut::Running | LeftOut::NotAnswered) => true,
        Some(LeftOut::Test | LeftOut::Internal | LeftOut::Silent) => false,
    }
}

fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_none() || other.is_none() || one == other
}
