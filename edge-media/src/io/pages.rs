//! What the HTTP listener asks of the edge's loop: pages that come and go, what people say
//! on them, and the few questions of the API. Who may ask was settled by the listener.

use functions::disposition::Taken;
use functions::outbox::Access;
use handoff::command::{Command, CommandBody};
use handoff::event::Means;
use handoff::id::{CallId, HumanAgentId, TransferId};
use handoff::pii::Pii;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Shell;
use crate::desktop::{self, DesktopInput, DesktopSession, Refusal, WaitingCaller};
use crate::edge::EdgeInput;
use crate::io::http::{Accessor, ApiError, CallSummary, HttpRequest, Note, QueueFigures};
use crate::io::spool::Stored;

/// What is shown to somebody.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Payload,
    Transcript,
}

impl Shell {
    pub(super) fn on_http(&mut self, request: HttpRequest) {
        // Whoever asked may have gone; an answer that nobody waits for is dropped.
        match request {
            HttpRequest::DesktopOpened { agent, session, outbox } => self.page_opened(agent, session, outbox),
            HttpRequest::DesktopSaid { agent, session, text } => {
                self.page_said(&agent, session, text.expose())
            }
            HttpRequest::DesktopClosed { agent, session } => {
                self.desktops.disconnect(&agent, session);
                self.pages.close(&agent, session);
                if !self.desktops.is_connected(&agent) {
                    self.step(EdgeInput::DesktopPresence(agent, false));
                }
            }
            HttpRequest::Decide { agent, input, reply } => {
                let permitted = self.desktops.permit(&agent, &input).map(drop).map_err(refused);
                if permitted.is_ok() {
                    self.said(agent, input, Means::Api);
                }
                let _ = reply.send(permitted);
            }
            HttpRequest::Payload { transfer, who, reply } => {
                self.show(&transfer, &who, Shown::Payload, reply);
            }
            HttpRequest::Transcript { transfer, who, reply } => {
                self.show(&transfer, &who, Shown::Transcript, reply);
            }
            HttpRequest::Signals { call, signals, reply } => {
                let call = self.call_named(&call);
                if let Some(call) = &call {
                    for signal in signals {
                        self.step(EdgeInput::CallSignal(call.clone(), Box::new(signal)));
                    }
                }
                let _ = reply.send(call.map(drop).ok_or(ApiError::NotFound));
            }
            HttpRequest::RequestTransfer { call, request, reply } => {
                let askable = self.askable(&call);
                if askable.is_ok() {
                    info!(%call, signal = %request.id, "a transfer is asked for over the API");
                    self.step(EdgeInput::CallSignal(call, request));
                }
                let _ = reply.send(askable);
            }
            HttpRequest::CancelTransfer { transfer, id, reply } => {
                let _ = reply.send(self.cancel(transfer, id));
            }
            HttpRequest::Disposition { from, message_id, disposition, reply } => {
                let taken = self.spool.disposed(from, message_id, *disposition);
                tokio::spawn(async move {
                    let _ = reply.send(match taken.await {
                        Ok(Taken::Recorded) => Ok(()),
                        Ok(Taken::UnknownTransfer) => Err(ApiError::NotFound),
                        Ok(Taken::IdReused) => Err(ApiError::Conflict),
                        Err(error) => {
                            warn!(%error, "a disposition was not taken");
                            Err(ApiError::Busy)
                        }
                    });
                });
            }
            HttpRequest::Calls { after, limit, reply } => {
                let calls = self.edge.standings().map(|(call, _)| call);
                let calls: Vec<CallId> = calls
                    .filter(|call| after.as_ref().is_none_or(|after| *call > after))
                    .take(limit)
                    .cloned()
                    .collect();
                let _ = reply.send(calls.into_iter().filter_map(|call| self.summary(call)).collect());
            }
            HttpRequest::Call { call, reply } => {
                let _ = reply.send(self.summary(call).ok_or(ApiError::NotFound));
            }
            HttpRequest::Queues { reply } => {
                let _ = reply.send(self.queues());
            }
            HttpRequest::Trunks { reply } => {
                let at = self.clock.moment();
                let _ = reply.send((at, self.edge.trunks(at.now)));
            }
            HttpRequest::Ready { reply } => {
                let _ = reply.send(self.edge.is_ready());
            }
        }
    }

    fn page_opened(
        &mut self,
        agent: HumanAgentId,
        session: DesktopSession,
        outbox: tokio::sync::mpsc::Sender<Note>,
    ) {
        let name = self
            .config
            .borrow()
            .agents
            .iter()
            .find(|known| known.id == agent)
            .map(|known| known.name.clone());
        let Some(name) = name else { return };
        // A refused page is closed by dropping its outbox.
        if let Ok(state) = self.desktops.connect(self.clock.now(), &agent, &name, session) {
            self.pages.open(agent.clone(), session, outbox);
            self.pages.send(&agent, session, state);
            self.step(EdgeInput::DesktopPresence(agent, true));
            self.show_waiting();
        }
    }

    /// Tells every open page who waits in its person's queues, where that has changed.
    pub(super) fn show_waiting(&mut self) {
        let config = self.config.borrow().clone();
        let now = self.clock.now();
        let waiting = self.edge.waiting();
        for agent in &config.agents {
            if !self.desktops.is_connected(&agent.id) {
                continue;
            }
            let mine = waiting.iter().filter_map(|(_, waiting)| {
                let queue = config.queues.iter().find(|queue| queue.id == waiting.queue)?;
                queue.agents.contains(&agent.id).then(|| WaitingCaller {
                    transfer: waiting.transfer.clone(),
                    queue: queue.label.clone(),
                    category: waiting.category,
                    since: waiting.since,
                    offered_to: waiting.offered_to.clone(),
                })
            });
            let mine: Vec<WaitingCaller> = mine.collect();
            if let Some(message) = self.desktops.waiting(now, &agent.id, &mine) {
                self.pages.send_all(&agent.id, &message);
            }
        }
    }

    /// The running call that the voice agent names by our id or by that of its stream.
    fn call_named(&self, name: &str) -> Option<CallId> {
        let ours = CallId::parse(name).ok().filter(|call| self.edge.call(call).is_some());
        ours.or_else(|| {
            let stream = self.call_sids.get(name)?;
            self.edge.call_of_stream(*stream).cloned()
        })
    }

    fn summary(&self, call: CallId) -> Option<CallSummary> {
        let machine = self.edge.call(&call)?;
        let now = self.clock.now();
        let waiting = machine.waiting().map(|waiting| {
            let waited = now.since(waiting.since);
            (waiting, waited)
        });
        Some(CallSummary { call, standing: machine.standing(), waiting })
    }

    fn queues(&self) -> Vec<QueueFigures> {
        let config = self.config.borrow().clone();
        let now = self.clock.now();
        let waiting = self.edge.waiting();
        let figures = |queue: &crate::config::Queue| QueueFigures {
            queue: queue.id.clone(),
            label: queue.label.clone(),
            staffing: self.edge.staffing(&queue.id).unwrap_or_default(),
            wait_default_s: queue.wait_default_s,
            waiting: waiting
                .iter()
                .filter(|(_, waiting)| waiting.queue == queue.id)
                .map(|(_, waiting)| (waiting.transfer.clone(), now.since(waiting.since)))
                .collect(),
        };
        config.queues.iter().map(figures).collect()
    }

    /// Whether a transfer can be asked for: a second request joins the first, but a caller
    /// who has a person, or is not there yet or any more, needs none.
    fn askable(&self, call: &CallId) -> Result<(), ApiError> {
        let standing = self.edge.call(call).ok_or(ApiError::NotFound)?.standing();
        match standing.state {
            "disclosing" | "with_voice_agent" | "transferring" => Ok(()),
            _before_or_after => Err(ApiError::Conflict),
        }
    }

    fn cancel(&mut self, transfer: TransferId, id: String) -> Result<(), ApiError> {
        let call = self.edge.call_of(&transfer).cloned().ok_or(ApiError::NotFound)?;
        info!(%call, command = %id, "a transfer is taken back over the API");
        let body = CommandBody::TransferCancel { transfer_id: transfer.clone() };
        self.step(EdgeInput::Command(Box::new(Command { id, call_id: call, body })));
        // Still there: somebody has accepted it.
        if self.edge.call_of(&transfer).is_some() { Err(ApiError::Conflict) } else { Ok(()) }
    }

    fn page_said(&mut self, agent: &HumanAgentId, session: DesktopSession, text: &str) {
        match self.desktops.receive(agent, text) {
            Ok((_, input)) => self.said(agent.clone(), input, Means::Ui),
            Err(refusal) => self.pages.send(agent, session, Pii::new(refusal.to_message())),
        }
    }

    fn said(&mut self, agent: HumanAgentId, input: DesktopInput, means: Means) {
        self.step(match input {
            DesktopInput::Acked { transfer, revision } => EdgeInput::DesktopAcked(agent, transfer, revision),
            DesktopInput::Accept { transfer } => EdgeInput::Accept(agent, transfer, means),
            DesktopInput::Decline { transfer, reason } => {
                EdgeInput::Decline(agent, transfer, means, reason.into())
            }
            DesktopInput::HandBack { transfer } => EdgeInput::HandBack(agent, transfer),
        });
    }

    /// Answers with personal data of a running call, when the record of the access is on
    /// disk and not before.
    fn show(
        &mut self,
        transfer: &TransferId,
        who: &Accessor,
        object: Shown,
        reply: oneshot::Sender<Result<Pii<String>, ApiError>>,
    ) {
        let found = self.accessible(transfer, who).and_then(|call| {
            let text = match object {
                Shown::Payload => self.payload(&call, transfer, who),
                Shown::Transcript => self.transcript(&call, transfer),
            };
            Ok((call, text?))
        });
        let recorded = found.and_then(|(call, text)| {
            let stored = self.record_access(&call, who, object).ok_or(ApiError::Busy)?;
            Ok((stored, text))
        });
        match recorded {
            Ok((mut stored, text)) => {
                tokio::spawn(async move {
                    let answer = stored.committed().await.map(|()| text).map_err(|_| ApiError::Busy);
                    let _ = reply.send(answer);
                });
            }
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
            }
        }
    }

    fn payload(&self, call: &CallId, transfer: &TransferId, who: &Accessor) -> Result<Pii<String>, ApiError> {
        let payload = match who {
            Accessor::Agent(agent) => self.desktops.payload_of(agent, transfer),
            Accessor::Supervisor(_) => {
                let payload = self.edge.call(call).and_then(|call| call.payload());
                payload
                    .and_then(|payload| payload.canonical_bytes().ok())
                    .map(|bytes| Pii::new(String::from_utf8_lossy(&bytes).into_owned()))
            }
        };
        payload.ok_or(ApiError::NotFound)
    }

    fn transcript(&self, call: &CallId, transfer: &TransferId) -> Result<Pii<String>, ApiError> {
        let context = self.edge.call(call).ok_or(ApiError::NotFound)?.context();
        if context.recording_consent == "refused" {
            return Err(ApiError::NotFound);
        }
        Ok(desktop::transcript(transfer, &context.turns, context.truncated))
    }

    /// The running call of a transfer that this person may look at.
    fn accessible(&self, transfer: &TransferId, who: &Accessor) -> Result<CallId, ApiError> {
        match who {
            Accessor::Agent(agent) => {
                self.desktops.call_of(agent, transfer).cloned().ok_or(ApiError::NotYours)
            }
            Accessor::Supervisor(_) => self.edge.call_of(transfer).cloned().ok_or(ApiError::NotFound),
        }
    }

    /// Who looked at what goes into the call's own trail.
    fn record_access(&mut self, call: &CallId, who: &Accessor, object: Shown) -> Option<Stored> {
        let object = match object {
            Shown::Payload => "payload",
            Shown::Transcript => "transcript",
        };
        let (actor, role) = match who {
            Accessor::Agent(agent) => (agent.as_str(), "agent"),
            Accessor::Supervisor(id) => (id.as_str(), "supervisor"),
        };
        info!(%call, role, object, "personal data was looked at");
        self.spool.accessed(call, Access { actor, role, object, at: self.clock.wall() })
    }
}

/// What a page is told in words, as the API's answer.
fn refused(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::NotYours => ApiError::NotYours,
        Refusal::TooEarly
        | Refusal::TooLate
        | Refusal::TooLarge
        | Refusal::NotAnObject
        | Refusal::Field(_) => ApiError::Conflict,
    }
}
