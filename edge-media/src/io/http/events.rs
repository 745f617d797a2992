//! What happens on this edge, as a stream (server-sent events): names and numbers of each
//! fact, once it is on disk; nobody's words or numbers. The last few thousand are kept, so
//! that a client that comes back with `Last-Event-ID` misses none; where more were missed,
//! or the edge was restarted, it is told so by `reset` and asks for the list of calls anew.
//! It slows nobody down: a client that does not keep up is told `reset` as well.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::unfold;
use handoff::clock::Timestamp;
use handoff::event::{CallEvent, Fact};
use handoff::id::CallId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Shared;
use super::access::{bearer, holder};
use super::problem::Denied;
use crate::config::Secret;

/// One fact as the stream tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub call: CallId,
    /// The fact's number within the call; `{call}:{seq}` is the id of its event and record.
    pub seq: u64,
    /// The audit type of the fact.
    pub kind: &'static str,
    /// What else may be told.
    details: Map<String, Value>,
}

impl Told {
    /// What may be told of an event.
    pub fn of(event: &CallEvent) -> Self {
        Self {
            at: event.time,
            call: event.call.clone(),
            seq: event.seq,
            kind: event.fact.kind(),
            details: details(&event.fact),
        }
    }

    fn data(&self) -> String {
        let mut data = self.details.clone();
        data.insert("call".to_owned(), json!(self.call));
        data.insert("seq".to_owned(), json!(self.seq));
        data.insert("at".to_owned(), json!(self.at));
        data.insert("type".to_owned(), json!(self.kind));
        Value::Object(data).to_string()
    }
}

/// Ids of our own making and names out of fixed sets, of the facts that a wallboard is about.
fn details(fact: &Fact) -> Map<String, Value> {
    let mut details = Map::new();
    let mut put = |name: &str, value: Value| details.insert(name.to_owned(), value);
    if let Fact::TransferDecided { decision, queue, .. } = fact {
        put("transfer", json!(decision.transfer_id));
        put("category", json!(decision.trigger.category));
        put("queue", json!(queue));
    }
    if let Fact::AgentOffered { agent_id, attempt, .. } = fact {
        put("agent", json!(agent_id));
        put("attempt", json!(attempt));
    }
    if let Fact::AgentDeclined { agent_id, reason, .. } = fact {
        put("agent", json!(agent_id));
        put("reason", json!(reason));
    }
    if let Fact::AgentAccepted { agent_id, method, .. } = fact {
        put("agent", json!(agent_id));
        put("method", json!(method));
    }
    if let Fact::BridgeCompleted { transfer_id, .. } = fact {
        put("transfer", json!(transfer_id));
    }
    if let Fact::FallbackChosen { kind, queue, .. } = fact {
        put("fallback", json!(kind));
        if let Some(queue) = queue {
            put("queue", json!(queue));
        }
    }
    if let Fact::VoicemailLeft { transfer_id, .. } = fact {
        put("transfer", json!(transfer_id));
    }
    if let Fact::CallbackRequested { transfer_id, callback_id } = fact {
        put("transfer", json!(transfer_id));
        put("callback", json!(callback_id));
    }
    if let Fact::TransferEnded { transfer_id, outcome, fallback, .. } = fact {
        put("transfer", json!(transfer_id));
        put("outcome", json!(outcome.name()));
        put("fallback", json!(fallback));
    }
    details
}

/// The last events of this edge, shared by its loop and the open streams.
#[derive(Debug)]
pub struct EventLog {
    /// Tells this run of the edge from the one before, whose numbers began at 0 too.
    run: u32,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Number of the next event.
    next: u64,
    events: VecDeque<Arc<Told>>,
}

/// What follows a place in the log.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// These, and the place behind them.
    Events(Vec<(u64, Arc<Told>)>, u64),
    /// Some of them are no longer kept; the next place that is.
    Lost(u64),
}

impl EventLog {
    /// An empty log of a run that `run` tells apart from others.
    pub fn new(run: u32) -> Self {
        Self { run, kept: Mutex::default(), newest: watch::Sender::new(0) }
    }

    /// Keeps an event and wakes the streams.
    pub fn push(&self, told: Told) {
        let next = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.events.len() >= EVENTS_KEPT {
                kept.events.pop_front();
            }
            kept.events.push_back(Arc::new(told));
            kept.next += 1;
            kept.next
        };
        self.newest.send_replace(next);
    }

    fn next(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Everything from `place` on, a bounded number at a time.
    fn after(&self, place: u64) -> After {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.next - kept.events.len() as u64;
        if place < first || place > kept.next {
            return After::Lost(kept.next);
        }
        let skip = usize::try_from(place - first).unwrap_or(usize::MAX);
        let events = kept.events.iter().skip(skip).take(EVENTS_AT_ONCE);
        let events: Vec<_> = (place..).zip(events.cloned()).collect();
        let behind = place + events.len() as u64;
        After::Events(events, behind)
    }

    fn id(&self, next: u64) -> String {
        format!("{:08x}-{next}", self.run)
    }

    /// The place that an id of ours names; an id of another run, or no id at all, names none.
    fn place(&self, id: &str) -> Option<u64> {
        let (run, next) = id.split_once('-')?;
        let same = u32::from_str_radix(run, 16).is_ok_and(|run| run == self.run);
        next.parse().ok().filter(|_| same)
    }
}

/// `?call=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    call: Option<String>,
}

/// Opens a stream, from `Last-Event-ID` on or from now on.
pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Denied> {
    shared.admit(&headers)?.operator()?;
    let Query(wanted) = query.map_err(|_| Denied::field("query", "has unknown or repeated members"))?;
    let call = wanted.call.as_deref().map(CallId::parse).transpose();
    let call = call.map_err(|_| Denied::field("call", "is no id of a call"))?;
    let resumed =
        headers.get("last-event-id").map(|id| id.to_str().ok().and_then(|id| shared.events.place(id)));
    let permit = Arc::clone(&shared.streams).try_acquire_owned();
    let permit = permit.map_err(|_| Denied::TooMany(STREAMS_RETRY))?;
    let log = Arc::clone(&shared.events);
    let (place, first) = match resumed {
        // Whoever was here before is told what it missed, or that it missed something.
        Some(Some(place)) => (place, None),
        Some(None) => (log.next(), Some(Say::Reset)),
        None => (log.next(), Some(Say::Ready)),
    };
    let reader = Reader {
        newest: log.newest.subscribe(),
        token: Secret::new(bearer(&headers).unwrap_or_default().to_vec()),
        said: first.map(|say| log.mark(say, place)).into_iter().collect(),
        call,
        place,
        log,
        shared,
        _permit: permit,
    };
    let events = unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<Event, Infallible>(event), reader))
    });
    Ok(Sse::new(events).into_response())
}

/// What the stream says of itself.
#[derive(Clone, Copy, Debug)]
enum Say {
    /// It begins here.
    Ready,
    /// Something was missed: ask for the list of calls.
    Reset,
}

impl EventLog {
    fn mark(&self, say: Say, place: u64) -> Event {
        let name = match say {
            Say::Ready => "ready",
            Say::Reset => "reset",
        };
        Event::default().event(name).id(self.id(place)).data("{}")
    }
}

/// One open stream.
struct Reader {
    shared: Arc<Shared>,
    log: Arc<EventLog>,
    newest: watch::Receiver<u64>,
    /// Looked up again and again: a reload may take it away.
    token: Secret,
    call: Option<CallId>,
    place: u64,
    said: VecDeque<Event>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// The next event, or a sign of life; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.said.pop_front() {
                return Some(event);
            }
            self.newest.borrow_and_update();
            match self.log.after(self.place) {
                After::Lost(next) => {
                    self.place = next;
                    return Some(self.log.mark(Say::Reset, next));
                }
                After::Events(events, behind) => {
                    self.place = behind;
                    let wanted = events
                        .into_iter()
                        .filter(|(_, told)| self.call.as_ref().is_none_or(|call| *call == told.call));
                    // The id names the place behind the event: where to go on.
                    self.said.extend(wanted.map(|(place, told)| {
                        Event::default().event(told.kind).id(self.log.id(place + 1)).data(told.data())
                    }));
                }
            }
            if !self.said.is_empty() || self.place < self.log.next() {
                continue;
            }
            match tokio::time::timeout(BEAT, self.newest.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_quiet) => {
                    let still = holder(&self.shared.config(), self.token.reveal());
                    still.and_then(|holder| holder.operator().ok())?;
                    return Some(Event::default().comment("beat"));
                }
            }
        }
    }
}

/// A busy edge makes a hundred facts a second: a client has half a minute to come back.
const EVENTS_KEPT: usize = 4_096;
/// Copied in one go while the loop waits for the lock.
const EVENTS_AT_ONCE: usize = 256;
/// Keeps proxies from closing a quiet stream, and finds a client that is gone.
const BEAT: Duration = Duration::from_secs(15);
/// Streams are long; somebody leaves one every now and then.
const STREAMS_RETRY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn told(seq: u64) -> Told {
        Told {
            at: Timestamp::from_unix_millis(0),
            call: CallId::parse("call_01").unwrap(),
            seq,
            kind: "call.received",
            details: Map::new(),
        }
    }

    fn numbers(after: &After) -> Vec<u64> {
        let After::Events(events, _) = after else { panic!("{after:?}") };
        events.iter().map(|(place, _)| *place).collect()
    }

    #[test]
    fn the_log_goes_on_from_any_place_that_is_kept_and_says_where_it_cannot() {
        let log = EventLog::new(7);
        assert_eq!(log.after(0), After::Events(Vec::new(), 0));
        for seq in 0..3 {
            log.push(told(seq));
        }
        assert_eq!(numbers(&log.after(0)), [0, 1, 2]);
        assert_eq!(numbers(&log.after(2)), [2]);
        assert_eq!(numbers(&log.after(3)), Vec::<u64>::new());
        assert_eq!(log.after(4), After::Lost(3), "a place that was never reached");
        for seq in 3..EVENTS_KEPT as u64 + 2 {
            log.push(told(seq));
        }
        assert!(matches!(log.after(1), After::Lost(_)), "dropped");
        assert_eq!(numbers(&log.after(2)).len(), EVENTS_AT_ONCE, "the oldest that is kept");
    }

    #[test]
    fn an_id_names_a_place_of_this_run_only() {
        let log = EventLog::new(0xbeef);
        assert_eq!(log.place(&log.id(41)), Some(41));
        for id in ["", "41", "0000beee-41", "0000beef-", "0000beef--1", "0000beef-99999999999999999999999"] {
            assert_eq!(log.place(id), None, "{id}");
        }
    }
}
