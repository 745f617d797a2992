//! A recorded call, lived through once more with another policy: from the facts of its chain to
//! the evaluations that [`super::backtest`] counts. Up to the first decision only, because
//! what came after a different one never happened. The clock of the call follows the
//! candidate's own limits. What the trail does not hold (which keys were pressed, what a field
//! said) no rule looks at.

use serde_json::Value;

use crate::clock::{Moment, Now, Timestamp};
use crate::conversation::{CallerIdentity, Conversation, Stimulus, TransferStanding};
use crate::id::CallId;
use crate::pii::Pii;
use crate::policy::backtest::Recorded;
use crate::policy::{Category, Policy};
use crate::signal::{ConfidenceOf, PiiClass, RequestReason, Signal, SignalBody, Speaker, TransferRequest};

/// One fact of the edge as its audit record holds it, in the order of the edge's numbers.
#[derive(Clone, Debug)]
pub struct Past {
    /// The record's type.
    pub kind: String,
    /// Its body.
    pub body: Value,
    /// Its sealed text, opened.
    pub text: Option<Pii<String>>,
}

/// Why a call says nothing about a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// Nobody talked to the voice agent.
    NoTalk,
    /// A turn's text is missing: recording was refused, or the call was erased.
    NoText,
    /// It was not a rule that decided: the voice agent left or was lost.
    NoRule,
}

/// The rule ids of decisions that no policy makes.
const NO_RULES: [&str; 2] = ["voice_agent_left", "voice_agent_lost"];

/// What `candidate` had to judge in this call, in order, with what was decided then on the
/// first of them. The events of a call that went on without any decision reach to its end.
pub fn replay(candidate: &Policy, call: &CallId, facts: &[Past]) -> Result<Vec<Recorded>, LeftOut> {
    // The voice agent is connected at the moment in which the caller is answered.
    let answered = facts
        .iter()
        .find(|fact| fact.kind == "leg.opened" && text(&fact.body, "role") == Some("voice_agent"))
        .ok_or(LeftOut::NoTalk)?;
    let mut past = Call {
        candidate,
        call,
        conversation: Conversation::new(
            moment(at(answered)),
            CallerIdentity::default(),
            facts.iter().find_map(|fact| text(&fact.body, "call_type")).map(str::to_owned),
            candidate.version().to_owned(),
        ),
        answered: at(answered),
        events: Vec::new(),
    };
    // Every call counts, also one in which nothing was said.
    past.judge(at(answered), Stimulus::Other);
    let mut decided = None;
    for (index, fact) in facts.iter().enumerate() {
        let over = fact.kind == "leg.closed" && fact.body.get("leg").and_then(Value::as_u64) == Some(0);
        past.clock(at(fact));
        if over || fact.kind == "transfer.decided" {
            if NO_RULES.contains(&text(&fact.body, "rule_id").unwrap_or_default()) {
                return Err(LeftOut::NoRule);
            }
            decided = decided.or_else(|| category(&fact.body, "trigger"));
            break;
        }
        if fact.kind == "trigger.evaluated" {
            decided = decided.or_else(|| category(&fact.body, "category"));
            continue;
        }
        past.fact(index, fact)?;
    }
    // A function may have decided for a caller who had left by then.
    let late = || facts.iter().find(|fact| fact.kind == "trigger.evaluated");
    let decided = decided.or_else(|| category(&late()?.body, "category"));
    if let Some(first) = past.events.first_mut() {
        first.decided = decided;
    }
    Ok(past.events)
}

/// A call that is lived through again.
struct Call<'p> {
    candidate: &'p Policy,
    call: &'p CallId,
    conversation: Conversation,
    answered: Now,
    events: Vec<Recorded>,
}

impl Call<'_> {
    fn fact(&mut self, index: usize, fact: &Past) -> Result<(), LeftOut> {
        let now = at(fact);
        match fact.kind.as_str() {
            "utterance.ref" => {
                let text = fact.text.clone().ok_or(LeftOut::NoText)?;
                let offset = fact.body.get("offset_ms").and_then(Value::as_u64).unwrap_or_default();
                let said = self.answered + core::time::Duration::from_millis(offset);
                let body = SignalBody::Turn {
                    speaker: speaker(&fact.body),
                    text,
                    // A later record of the same segment is its correction.
                    turn: fact.body.get("segment").map(Value::to_string),
                    confidence_pm: None,
                    interrupted: false,
                };
                let stimulus = self.apply(said, index, body);
                self.judge(now, stimulus);
            }
            "signal.received" => {
                if let Some(stimulus) = self.signal(now, index, &fact.body) {
                    self.judge(now, stimulus);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The stimulus of a signal; `None` for the clock, which follows the candidate.
    fn signal(&mut self, now: Now, index: usize, body: &Value) -> Option<Stimulus> {
        let values = values(body);
        let number = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let first = values.first().copied();
        let named = |kind: &str| {
            first.and_then(|(name, pm)| Some((name.strip_prefix(kind)?.strip_prefix(':')?.to_owned(), pm)))
        };
        let per_mille = |value: i64| u16::try_from(value).unwrap_or_default();
        let body = match text(body, "kind")? {
            "clock" => return None,
            // Which key it was is not recorded, only whether it asked for a person.
            "dtmf" => return Some(Stimulus::Digit { zero: number("request") == Some(1) }),
            "intent" => {
                let (name, pm) = named("intent")?;
                SignalBody::Intent { name, confidence_pm: Some(per_mille(pm)) }
            }
            "topic" => {
                let (name, pm) = named("topic")?;
                let regulated = number("regulated") == Some(1);
                SignalBody::Topic { name, confidence_pm: Some(per_mille(pm)), regulated }
            }
            "field" => {
                let (name, pm) = named("field")?;
                SignalBody::Field {
                    name,
                    value: Pii::new("recorded".to_owned()),
                    confidence_pm: Some(per_mille(pm)),
                    verified: number("verified") == Some(1),
                    class: PiiClass::None,
                }
            }
            "confidence" => {
                let (name, pm) = first?;
                let of = match name {
                    "resolution_pm" => ConfidenceOf::Resolution,
                    "asr_pm" => ConfidenceOf::Asr,
                    "intent_pm" => ConfidenceOf::Intent,
                    _ => ConfidenceOf::Identity,
                };
                SignalBody::Confidence { value_pm: per_mille(pm), of }
            }
            "tool" => {
                let (name, ok) = named("tool")?;
                SignalBody::Tool { name, ok: (ok >= 0).then_some(ok > 0) }
            }
            "transfer.request" => {
                let reason = named("reason").and_then(|(name, _)| reason(&name));
                SignalBody::TransferRequest(TransferRequest {
                    reason: reason.unwrap_or(RequestReason::Other),
                    queue: None,
                    target: None,
                    summary: None,
                    next_action: None,
                    caller_message: None,
                    whisper: None,
                    on_fail: None,
                    fields: Vec::new(),
                })
            }
            "transfer.cancel" => SignalBody::TransferCancel,
            "resolved" => SignalBody::Resolved { outcome: None },
            "error" => SignalBody::Error { message: None },
            _ => SignalBody::X,
        };
        Some(self.apply(now, index, body))
    }

    fn apply(&mut self, at: Now, index: usize, body: SignalBody) -> Stimulus {
        let signal = Signal { id: index.to_string(), at_ms: None, body };
        self.conversation.apply(moment(at), &signal)
    }

    /// What the candidate's timers would have said by `now`.
    fn clock(&mut self, now: Now) {
        while let Some(due) = self.conversation.next_timeout(self.candidate).filter(|due| *due <= now) {
            let Some(stimulus) = self.conversation.take_due(due, self.candidate) else { break };
            self.judge(due, stimulus);
        }
    }

    fn judge(&mut self, now: Now, stimulus: Stimulus) {
        self.events.push(Recorded {
            call: self.call.clone(),
            snapshot: self.conversation.snapshot(now, TransferStanding::None),
            stimulus,
            decided: None,
        });
    }
}

fn at(fact: &Past) -> Now {
    Now::from_micros(fact.body.get("mono_us").and_then(Value::as_u64).unwrap_or_default())
}

/// Only the order of moments counts here; the label is of no use to a rule.
fn moment(now: Now) -> Moment {
    Moment { now, wall: Timestamp::default() }
}

fn text<'b>(body: &'b Value, member: &str) -> Option<&'b str> {
    body.get(member).and_then(Value::as_str)
}

fn values(body: &Value) -> Vec<(&str, i64)> {
    let pairs = body.get("values").and_then(Value::as_array).into_iter().flatten();
    pairs.filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_i64()?))).collect()
}

fn category(body: &Value, member: &str) -> Option<Category> {
    let name = text(body, member)?;
    Category::ALL.into_iter().find(|category| category.as_str() == name)
}

fn speaker(body: &Value) -> Speaker {
    match text(body, "speaker") {
        Some("caller") => Speaker::Caller,
        Some("agent") => Speaker::Agent,
        Some("human") => Speaker::Human,
        _ => Speaker::System,
    }
}

fn reason(name: &str) -> Option<RequestReason> {
    let all = [
        RequestReason::CallerRequest,
        RequestReason::LowConfidence,
        RequestReason::Topic,
        RequestReason::Regulatory,
        RequestReason::TimeLimit,
        RequestReason::Error,
        RequestReason::Vip,
        RequestReason::Other,
    ];
    all.into_iter().find(|reason| reason.as_str() == name)
}
