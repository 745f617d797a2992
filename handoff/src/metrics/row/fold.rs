//! The fold itself: what of each record goes into which row.

use serde_json::Value;

use super::{Disposition, LeftOut, ROW_VERSION, Row, SILENT_CALL_MAX_MS, TEST_CALL_TYPE, Transfer};
use crate::audit::{AuditRecord, PRODUCER_FINAL};
use crate::clock::Timestamp;
use crate::event::Mode;
use crate::id::{CallId, LegId, PayloadId, TransferId};
use crate::policy::Category;

/// See [`Row::of`].
pub(super) fn fold(call: &CallId, records: &[AuditRecord]) -> Vec<Row> {
    let mut edge: Vec<&AuditRecord> = Vec::new();
    let mut others: Vec<&AuditRecord> = Vec::new();
    for record in records {
        if record.entry.producer.is_stream() { edge.push(record) } else { others.push(record) }
    }
    // The numbers of one edge order its records, also across a restart of its clock.
    edge.sort_by_key(|record| record.entry.pseq);
    // The last word wins by its own clock: the ledger may hold two late ones in either order.
    others.sort_by_key(|record| (record.entry.occurred_at, record.entry.chain.is_side(), record.seq));
    let Some(first) = edge.first().or_else(|| others.first()) else { return Vec::new() };
    let mut fold = Fold::new(first.entry.occurred_at);
    edge.iter().for_each(|record| fold.fact(record));
    others.iter().for_each(|record| fold.report(record));
    fold.rows(call)
}

/// A moment by both clocks of the edge.
#[derive(Clone, Copy, Default)]
struct At {
    mono_us: u64,
    wall: Timestamp,
}

impl At {
    /// Milliseconds since `earlier`. The monotonic clock tells, unless the edge was started
    /// again in between and began a new one: then the wall clock has to do.
    fn since(self, earlier: Self) -> u64 {
        match self.mono_us.checked_sub(earlier.mono_us) {
            Some(micros) => micros / 1_000,
            None => u64::try_from(self.wall.unix_millis() - earlier.wall.unix_millis()).unwrap_or(0),
        }
    }

    /// Milliseconds after `other`; negative is before it.
    fn after(self, other: Self) -> i64 {
        let signed = |millis| i64::try_from(millis).unwrap_or(i64::MAX);
        if self.mono_us >= other.mono_us { signed(self.since(other)) } else { -signed(other.since(self)) }
    }
}

/// One offer to one person.
struct OfferTo {
    who: String,
    leg: u64,
    answered: Option<At>,
    ringing: Option<At>,
    popped: Option<At>,
}

/// A transfer on its way to a row.
struct Open {
    row: Transfer,
    decided: At,
    bridged: Option<At>,
    offers: Vec<OfferTo>,
    accepted_leg: Option<u64>,
    accepted_revision: Option<u64>,
    /// Revision, completeness and template of each payload that was built.
    payloads: Vec<(u64, u64, bool)>,
}

struct Fold {
    started: At,
    last: At,
    seen: bool,
    over: bool,
    spoken: bool,
    answered: bool,
    caller: Option<String>,
    intent: Option<String>,
    call_type: Option<String>,
    internal: bool,
    legs_open: u32,
    transfers: Vec<Open>,
}

impl Fold {
    fn new(wall: Timestamp) -> Self {
        let started = At { mono_us: 0, wall };
        Self {
            started,
            last: started,
            seen: false,
            over: false,
            spoken: false,
            answered: false,
            caller: None,
            intent: None,
            call_type: None,
            internal: false,
            legs_open: 0,
            transfers: Vec::new(),
        }
    }

    /// A record of the edge.
    fn fact(&mut self, record: &AuditRecord) {
        let body = &record.entry.body;
        let at = At { mono_us: number(body, "mono_us").unwrap_or_default(), wall: record.entry.occurred_at };
        if !self.seen {
            (self.seen, self.started) = (true, at);
        }
        match record.entry.kind.as_str() {
            "call.received" => {
                self.caller = text(body, "caller_tag").map(str::to_owned);
                self.call_type = text(body, "call_type").map(str::to_owned);
                self.internal = text(body, "direction") == Some("internal");
            }
            "utterance.ref" => self.spoken = true,
            "signal.received" => self.signal(body),
            "leg.opened" => self.legs_open += 1,
            "leg.closed" => self.leg_closed(body, at),
            "call.ended" | PRODUCER_FINAL => self.over = true,
            "transfer.decided" => self.decided(body, at),
            kind => {
                if let Some(transfer) = self.transfers.last_mut() {
                    transfer.fact(kind, body, at);
                }
            }
        }
        self.last = at;
    }

    /// A record of a function, of the API or of an import: it names its transfer.
    fn report(&mut self, record: &AuditRecord) {
        let body = &record.entry.body;
        let named = |transfer: &&mut Open| match text(body, "transfer_id") {
            Some(id) => transfer.row.id.as_str() == id,
            None => Some(PayloadId::of(&transfer.row.id).as_str()) == text(body, "payload_id"),
        };
        let Some(transfer) = self.transfers.iter_mut().find(named) else { return };
        match record.entry.kind.as_str() {
            "payload.built" => transfer.built(body),
            "disposition.received" => {
                let Some(resolved) = body.get("resolved").and_then(Value::as_bool) else { return };
                transfer.row.disposition = Some(Disposition {
                    code: text(body, "code").unwrap_or_default().to_owned(),
                    resolved,
                    acw_s: number(body, "acw_s"),
                    asked_again: body.get("asked_again").and_then(Value::as_array).map(|it| it.len() as u64),
                });
            }
            "followup.repeat_contact" => {
                let days = number(body, "window_days").or_else(|| number(body, "window"));
                let nearer = |known: u64| days.map_or(known, |days| days.min(known));
                transfer.row.repeat_within_days = transfer.row.repeat_within_days.map(nearer).or(days);
            }
            _about_something_else => {}
        }
    }

    /// The voice agent speaks to us only once it is connected. Of what it says the intent is
    /// kept, without the kind before its name.
    fn signal(&mut self, body: &Value) {
        self.answered |= text(body, "kind") != Some("dtmf");
        if text(body, "kind") != Some("intent") {
            return;
        }
        let named = body.get("values").and_then(|values| values.get(0)?.get(0)?.as_str());
        if let Some(name) = named {
            self.intent = Some(name.strip_prefix("intent:").unwrap_or(name).to_owned());
        }
    }

    fn decided(&mut self, body: &Value, at: At) {
        let Some(id) = text(body, "transfer_id").and_then(|id| TransferId::parse(id).ok()) else { return };
        if let Some(before) = self.transfers.last_mut() {
            before.row.followed = true;
        }
        let ordinal = u32::try_from(self.transfers.len()).unwrap_or(u32::MAX).saturating_add(1);
        let trigger = text(body, "trigger");
        self.transfers.push(Open {
            row: Transfer {
                id,
                ordinal,
                followed: false,
                trigger: Category::ALL.into_iter().find(|of| trigger == Some(of.as_str())),
                rule_id: text(body, "rule_id").map(str::to_owned),
                queue: text(body, "target_id").unwrap_or_default().to_owned(),
                mode: if text(body, "mode") == Some("cold") { Mode::Cold } else { Mode::Warm },
                outcome: None,
                offers: 0,
                wrong_team: false,
                ring_ms: 0,
                accepted: false,
                bridged_ms: None,
                abandoned_ms: None,
                pop_skew_ms: None,
                dead_air_ms: None,
                played_pm: None,
                promised_s: None,
                completeness_pm: None,
                template: None,
                handled_ms: None,
                life_ms: None,
                cut_by: None,
                disposition: None,
                repeat_within_days: None,
            },
            decided: at,
            bridged: None,
            offers: Vec::new(),
            accepted_leg: None,
            accepted_revision: None,
            payloads: Vec::new(),
        });
    }

    fn leg_closed(&mut self, body: &Value, at: At) {
        self.legs_open = self.legs_open.saturating_sub(1);
        let billed = number(body, "billed_ms");
        self.answered |= text(body, "role") == Some("voice_agent") && billed.is_some_and(|ms| ms > 0);
        let Some(leg) = number(body, "leg") else { return };
        for transfer in &mut self.transfers {
            let accepted = transfer.accepted_leg == Some(leg);
            if accepted {
                transfer.row.handled_ms = billed;
            }
            let ends = accepted || leg == u64::from(LegId::CALLER.0);
            if let (true, Some(bridged), None) = (ends, transfer.bridged, transfer.row.life_ms) {
                transfer.row.life_ms = Some(at.since(bridged));
                transfer.row.cut_by = text(body, "cause").map(str::to_owned);
            }
        }
    }

    fn left_out(&self) -> Option<LeftOut> {
        let silent = !self.spoken && self.last.since(self.started) < SILENT_CALL_MAX_MS;
        if self.call_type.as_deref() == Some(TEST_CALL_TYPE) {
            Some(LeftOut::Test)
        } else if self.internal {
            Some(LeftOut::Internal)
        } else if !self.over {
            Some(LeftOut::Running)
        } else if !self.answered && !self.spoken {
            Some(LeftOut::NotAnswered)
        } else if silent && self.transfers.is_empty() {
            Some(LeftOut::Silent)
        } else {
            None
        }
    }

    fn rows(self, call: &CallId) -> Vec<Row> {
        let row = Row {
            version: ROW_VERSION,
            call: call.clone(),
            started_at: self.started.wall,
            ended_at: self.last.wall,
            left_out: self.left_out(),
            caller: self.caller,
            intent: self.intent.or(self.call_type),
            legs_open: self.legs_open,
            transfer: None,
        };
        if self.transfers.is_empty() {
            return vec![row];
        }
        let with = |open: Open| Row { transfer: Some(open.into_row()), ..row.clone() };
        self.transfers.into_iter().map(with).collect()
    }
}

impl Open {
    fn fact(&mut self, kind: &str, body: &Value, at: At) {
        match kind {
            "agent.offered" => {
                self.row.offers += 1;
                self.offers.push(OfferTo {
                    who: text(body, "agent_id").unwrap_or_default().to_owned(),
                    leg: number(body, "leg").unwrap_or_default(),
                    answered: None,
                    ringing: None,
                    popped: None,
                });
            }
            "agent.ringing" => {
                if let Some(offer) = self.offer_to(body) {
                    offer.ringing = Some(at);
                }
            }
            "agent.answered" => {
                self.rung(body, at);
                if let Some(offer) = self.offer_to(body) {
                    offer.answered = Some(at);
                }
            }
            "agent.no_answer" => self.rung(body, at),
            "agent.declined" => {
                self.row.wrong_team |= text(body, "reason") == Some("wrong_team");
                self.rung(body, at);
            }
            "screenpop.acked" => {
                if let Some(offer) = self.offer_to(body) {
                    offer.popped.get_or_insert(at);
                }
            }
            "agent.accepted" => {
                self.row.accepted = true;
                self.accepted_leg = number(body, "leg");
                self.accepted_revision = number(body, "revision");
            }
            "payload.built" => self.built(body),
            "transition.played" => {
                self.row.played_pm = number(body, "played_pm");
                self.row.promised_s = number(body, "anchor_s");
            }
            "media.proof" => {
                let silence = number(body, "longest_silence_ms");
                self.row.dead_air_ms = self.row.dead_air_ms.max(silence);
            }
            "bridge.completed" => {
                self.bridged = Some(at);
                self.row.bridged_ms = Some(at.since(self.decided));
            }
            "caller.abandoned" => {
                self.row.abandoned_ms = Some(at.since(self.decided));
                // A phone that still rang did so until now.
                let ringing = self.offers.iter_mut().filter_map(|offer| offer.ringing.take());
                self.row.ring_ms += ringing.map(|from| at.since(from)).sum::<u64>();
            }
            "transfer.ended" => self.row.outcome = text(body, "outcome").map(str::to_owned),
            _of_no_figure => {}
        }
    }

    fn built(&mut self, body: &Value) {
        let (Some(revision), Some(completeness)) =
            (number(body, "revision"), number(body, "completeness_pm"))
        else {
            return;
        };
        let template = text(body, "generator") == Some("template_fallback");
        self.payloads.push((revision, completeness, template));
    }

    /// The last offer to the person whom a record names: one person may be asked twice.
    fn offer_to(&mut self, body: &Value) -> Option<&mut OfferTo> {
        let who = text(body, "agent_id")?;
        self.offers.iter_mut().rev().find(|offer| offer.who == who)
    }

    /// The phone of this person stops ringing.
    fn rung(&mut self, body: &Value, at: At) {
        let rang = self.offer_to(body).and_then(|offer| offer.ringing.take()).map(|from| at.since(from));
        self.row.ring_ms = self.row.ring_ms.saturating_add(rang.unwrap_or_default());
    }

    fn into_row(self) -> Transfer {
        let mut row = self.row;
        // The revision that was frozen at the accept is the one that was used; without an
        // accept it is the newest.
        let used = self
            .payloads
            .iter()
            .filter(|(revision, ..)| self.accepted_revision.is_none_or(|frozen| *revision <= frozen))
            .max_by_key(|(revision, ..)| *revision);
        if let Some((_, completeness, template)) = used {
            row.completeness_pm = Some(*completeness);
            row.template = Some(*template);
        }
        let accepted = self.offers.iter().find(|offer| Some(offer.leg) == self.accepted_leg);
        if let Some(OfferTo { answered: Some(answered), popped: Some(popped), .. }) = accepted {
            row.pop_skew_ms = Some(popped.after(*answered));
        }
        row
    }
}

fn text<'b>(body: &'b Value, name: &str) -> Option<&'b str> {
    body.get(name).and_then(Value::as_str)
}

fn number(body: &Value, name: &str) -> Option<u64> {
    body.get(name).and_then(Value::as_u64)
}
