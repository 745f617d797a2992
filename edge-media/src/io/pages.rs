//! What the HTTP listener asks of the edge's loop: pages that come and go, what people say
//! on them, and the few questions of the API. Who may ask was settled by the listener.

use functions::outbox::Access;
use handoff::event::Means;
use handoff::id::{CallId, HumanAgentId, TransferId};
use handoff::pii::Pii;
use tokio::sync::oneshot;
use tracing::info;

use super::Shell;
use crate::desktop::{self, DesktopInput, DesktopSession};
use crate::edge::EdgeInput;
use crate::io::http::{Accessor, ApiError, CallSummary, HttpRequest};
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
                let known = self.desktops.call_of(&agent, input.transfer()).is_some();
                if known {
                    self.said(agent, input, Means::Api);
                }
                let _ = reply.send(if known { Ok(()) } else { Err(ApiError::NotYours) });
            }
            HttpRequest::Payload { transfer, who, reply } => {
                self.show(&transfer, &who, Shown::Payload, reply);
            }
            HttpRequest::Transcript { transfer, who, reply } => {
                self.show(&transfer, &who, Shown::Transcript, reply);
            }
            HttpRequest::Signals { call, signals, reply } => {
                let stream = CallId::parse(&call).ok().and_then(|call| self.edge.stream_of(&call));
                if let Some(stream) = stream {
                    for signal in signals {
                        self.step(EdgeInput::DoorSignal(stream, Box::new(signal)));
                    }
                }
                let _ = reply.send(if stream.is_some() { Ok(()) } else { Err(ApiError::NotFound) });
            }
            HttpRequest::Calls { reply } => {
                let calls = self.edge.standings();
                let calls =
                    calls.map(|(call, standing)| CallSummary { call: call.clone(), standing }).collect();
                let _ = reply.send(calls);
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
        outbox: tokio::sync::mpsc::Sender<Pii<String>>,
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
        }
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
            DesktopInput::Decline { transfer, .. } => EdgeInput::Decline(agent, transfer, means),
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
