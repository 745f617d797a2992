//! What each human agent's desktop must show, and what it may say. A desktop belongs to a
//! person, not to a call: whoever connects with that person's token sees the truth of this
//! moment at once, so a reload or a lost network loses nothing. Messages carry a sequence
//! number per person. A person can act on the transfers offered to them and on no other.
//! Nothing is decided here: an accept is an input of the call machine like any other.

pub mod message;

use std::collections::BTreeMap;

use handoff::call::DesktopPush;
use handoff::clock::Now;
use handoff::conversation::Turn;
use handoff::id::{CallId, HumanAgentId, TransferId};
use handoff::pii::Pii;
use handoff::policy::Category;
use serde_json::{Value, json};

pub use message::{DesktopInput, Refusal};

/// One open page, named by the shell for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DesktopSession(pub u64);

/// All desktops of an edge.
#[derive(Debug, Default)]
pub struct Desktops {
    desks: BTreeMap<HumanAgentId, Desk>,
}

/// One person's desktop, open or not.
#[derive(Debug, Default)]
struct Desk {
    sequence: u64,
    sessions: Vec<DesktopSession>,
    offers: Vec<Offer>,
    /// The waiting callers as every open page was last told.
    waiting: Option<Vec<WaitingCaller>>,
}

/// A caller who waits in a queue of this person: seen by all its people, and therefore
/// without anything about who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingCaller {
    /// Which transfer.
    pub transfer: TransferId,
    /// The queue's name on screens.
    pub queue: String,
    /// Why a person is needed.
    pub category: Category,
    /// Since when.
    pub since: Now,
    /// To whom it is offered now.
    pub offered_to: Option<HumanAgentId>,
}

/// One transfer as this person sees it.
#[derive(Debug)]
struct Offer {
    transfer: TransferId,
    call: CallId,
    attempt: u32,
    waited_ms: u64,
    since: Now,
    stage: Stage,
    card: Option<Card>,
    caption: Option<Pii<String>>,
}

#[derive(Debug)]
struct Card {
    revision: u32,
    payload: Pii<Value>,
}

/// How far an offer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Incoming,
    Accepted { revision: u32 },
    Bridged { revision: u32 },
}

/// More pages were opened than one person can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many desktop pages are open for this agent")]
pub struct TooManyPages;

impl Desktops {
    /// A page was opened. Returns what it shows first: who this is and every offer as it
    /// stands, complete, so that nothing sent before is needed.
    pub fn connect(
        &mut self,
        now: Now,
        agent: &HumanAgentId,
        name: &Pii<String>,
        session: DesktopSession,
    ) -> Result<Pii<String>, TooManyPages> {
        let desk = self.desks.entry(agent.clone()).or_default();
        if desk.sessions.len() >= PAGES_MAX {
            return Err(TooManyPages);
        }
        desk.sessions.push(session);
        // The new page knows of none.
        desk.waiting = None;
        let offers: Vec<Value> = desk.offers.iter().map(|offer| offer.view(now)).collect();
        // Not counted: the person's other pages get no message for it and would miss a number.
        let seq = desk.sequence;
        let agent = json!({ "id": agent.as_str(), "name": name.expose() });
        Ok(Pii::new(json!({ "seq": seq, "type": "state", "agent": agent, "offers": offers }).to_string()))
    }

    /// A page was closed.
    pub fn disconnect(&mut self, agent: &HumanAgentId, session: DesktopSession) {
        if let Some(desk) = self.desks.get_mut(agent) {
            desk.sessions.retain(|open| *open != session);
        }
    }

    /// Whether a page of this person is open now.
    pub fn is_connected(&self, agent: &HumanAgentId) -> bool {
        self.desks.get(agent).is_some_and(|desk| !desk.sessions.is_empty())
    }

    /// Takes what the call machine shows a person. Returns the message for each of their
    /// open pages; `None` where it changes nothing (a lower revision, an offer unknown).
    pub fn push(&mut self, now: Now, agent: &HumanAgentId, push: &DesktopPush) -> Option<Pii<String>> {
        let desk = self.desks.entry(agent.clone()).or_default();
        let mut message = desk.apply(now, push)?;
        let seq = desk.next_sequence();
        message.as_object_mut()?.insert("seq".to_owned(), json!(seq));
        Some(Pii::new(message.to_string()))
    }

    /// Shows a person who waits in their queues, the longest first. `None` where nothing has
    /// changed or no page is open. Unnumbered: each message is the whole list.
    pub fn waiting(
        &mut self,
        now: Now,
        agent: &HumanAgentId,
        callers: &[WaitingCaller],
    ) -> Option<Pii<String>> {
        let desk = self.desks.get_mut(agent)?;
        if desk.sessions.is_empty() || desk.waiting.as_deref() == Some(callers) {
            return None;
        }
        desk.waiting = Some(callers.to_vec());
        let shown = callers.iter().take(WAITING_SHOWN_MAX).map(|caller| {
            let offered = match &caller.offered_to {
                Some(to) if to == agent => "you",
                Some(_) => "other",
                None => "nobody",
            };
            json!({
                "transfer": caller.transfer,
                "queue": caller.queue,
                "category": caller.category,
                "waited_ms": u64::try_from(now.since(caller.since).as_millis()).unwrap_or(u64::MAX),
                "offered": offered,
            })
        });
        let callers_shown: Vec<Value> = shown.collect();
        let message = json!({ "type": "waiting", "total": callers.len(), "callers": callers_shown });
        Some(Pii::new(message.to_string()))
    }

    /// Reads what a page says: the call that it concerns, and what it means there.
    pub fn receive(&self, agent: &HumanAgentId, text: &str) -> Result<(CallId, DesktopInput), Refusal> {
        let input = message::parse(text)?;
        let call = self.permit(agent, &input)?.clone();
        Ok((call, input))
    }

    /// Whether a person may say this now; the call that it concerns.
    pub fn permit(&self, agent: &HumanAgentId, input: &DesktopInput) -> Result<&CallId, Refusal> {
        let offer = self.offer(agent, input.transfer()).ok_or(Refusal::NotYours)?;
        match input {
            DesktopInput::Acked { revision, .. } => {
                let shown = offer.card.as_ref().map_or(0, |card| card.revision);
                if *revision == 0 || *revision > shown {
                    return Err(Refusal::Field("revision".to_owned()));
                }
            }
            DesktopInput::HandBack { .. } if !matches!(offer.stage, Stage::Bridged { .. }) => {
                return Err(Refusal::TooEarly);
            }
            DesktopInput::Accept { .. } | DesktopInput::Decline { .. }
                if !matches!(offer.stage, Stage::Incoming) =>
            {
                return Err(Refusal::TooLate);
            }
            DesktopInput::Accept { .. } | DesktopInput::Decline { .. } | DesktopInput::HandBack { .. } => {}
        }
        Ok(&offer.call)
    }

    /// The call of a transfer that is offered to this person, or that they took.
    pub fn call_of(&self, agent: &HumanAgentId, transfer: &TransferId) -> Option<&CallId> {
        self.offer(agent, transfer).map(|offer| &offer.call)
    }

    /// The payload that this person sees for a transfer.
    pub fn payload_of(&self, agent: &HumanAgentId, transfer: &TransferId) -> Option<Pii<String>> {
        let card = self.offer(agent, transfer)?.card.as_ref()?;
        Some(Pii::new(card.payload.expose().to_string()))
    }

    fn offer(&self, agent: &HumanAgentId, transfer: &TransferId) -> Option<&Offer> {
        self.desks.get(agent)?.offers.iter().find(|offer| offer.transfer == *transfer)
    }
}

/// The transcript of a transfer, as the API answers it: oldest turn first, already redacted.
pub fn transcript(transfer: &TransferId, turns: &[Turn], partial: bool) -> Pii<String> {
    let segments: Vec<Value> = turns
        .iter()
        .map(|turn| {
            json!({
                "segment": turn.segment,
                "speaker": turn.speaker,
                "text": turn.text.expose(),
                "at_ms": turn.at_ms,
            })
        })
        .collect();
    Pii::new(json!({ "transfer": transfer, "partial": partial, "segments": segments }).to_string())
}

impl Desk {
    const fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn offer_mut(&mut self, transfer: &TransferId) -> Option<&mut Offer> {
        self.offers.iter_mut().find(|offer| offer.transfer == *transfer)
    }

    /// Shows a card, unless a higher revision is there or an accept has frozen it.
    fn show(&mut self, transfer: &TransferId, payload: Value) -> Option<Value> {
        let offer = self.offer_mut(transfer)?;
        let revision = payload.get("revision").and_then(Value::as_u64).and_then(|r| u32::try_from(r).ok())?;
        let newer = offer.card.as_ref().is_none_or(|card| card.revision < revision);
        if !newer || offer.stage != Stage::Incoming {
            return None;
        }
        let message =
            json!({ "type": "card", "transfer": transfer, "revision": revision, "payload": payload });
        offer.card = Some(Card { revision, payload: Pii::new(payload) });
        Some(message)
    }

    /// Changes what the desk shows; the message that says so.
    fn apply(&mut self, now: Now, push: &DesktopPush) -> Option<Value> {
        match push {
            DesktopPush::Incoming { transfer, call, attempt, waited_ms } => {
                self.offers.retain(|offer| offer.transfer != *transfer);
                if self.offers.len() >= OFFERS_MAX {
                    self.offers.remove(0);
                }
                let offer = Offer {
                    transfer: transfer.clone(),
                    call: call.clone(),
                    attempt: *attempt,
                    waited_ms: *waited_ms,
                    since: now,
                    stage: Stage::Incoming,
                    card: None,
                    caption: None,
                };
                let message = json!({ "type": "incoming", "offer": offer.view(now) });
                self.offers.push(offer);
                Some(message)
            }
            DesktopPush::Card { transfer, payload } => {
                self.show(transfer, serde_json::to_value(payload).ok()?)
            }
            DesktopPush::Caption { transfer, text } => {
                self.offer_mut(transfer)?.caption = Some(text.clone());
                Some(json!({ "type": "caption", "transfer": transfer, "text": text.expose() }))
            }
            DesktopPush::Accepted { transfer, revision } => {
                self.offer_mut(transfer)?.stage = Stage::Accepted { revision: *revision };
                Some(json!({ "type": "accepted", "transfer": transfer, "revision": revision }))
            }
            DesktopPush::Bridged { transfer } => {
                let offer = self.offer_mut(transfer)?;
                let revision = match offer.stage {
                    Stage::Incoming => offer.card.as_ref().map_or(0, |card| card.revision),
                    Stage::Accepted { revision } | Stage::Bridged { revision } => revision,
                };
                offer.stage = Stage::Bridged { revision };
                Some(json!({ "type": "bridged", "transfer": transfer }))
            }
            DesktopPush::Ended { transfer, reason } => {
                self.offer_mut(transfer)?;
                self.offers.retain(|offer| offer.transfer != *transfer);
                Some(json!({ "type": "ended", "transfer": transfer, "reason": reason }))
            }
        }
    }
}

impl Offer {
    /// Everything a page needs to show this offer.
    fn view(&self, now: Now) -> Value {
        let (stage, frozen) = match self.stage {
            Stage::Incoming => ("incoming", None),
            Stage::Accepted { revision } => ("accepted", Some(revision)),
            Stage::Bridged { revision } => ("bridged", Some(revision)),
        };
        let since = u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX);
        json!({
            "transfer": self.transfer,
            "call": self.call,
            "attempt": self.attempt,
            "waited_ms": self.waited_ms.saturating_add(since),
            "stage": stage,
            "frozen": frozen,
            "payload": self.card.as_ref().map(|card| card.payload.expose()),
            "caption": self.caption.as_ref().map(Pii::expose),
        })
    }
}

/// A person looks at one page; a second and a third are forgotten tabs.
const PAGES_MAX: usize = 4;
/// One call is talked to, one is offered, and ends may cross; older ones are left over.
const OFFERS_MAX: usize = 4;

/// Nobody reads further down; the total is told beside it.
const WAITING_SHOWN_MAX: usize = 20;

#[cfg(test)]
mod tests;
