//! Requests that are too large for a datagram (RFC 3261 section 18.1.1): over TCP where that can
//! be, as a large datagram where TCP is refused. Nobody who sends a request has to know. It
//! measures and readdresses; what a request says is none of its business.

use handoff::clock::Now;

use super::dialog::{self, Phase};
use super::header::Via;
use super::message::Request;
use super::stack::{Stack, Use};
use super::transaction::{Progress, TransactionId};
use super::{Flow, Transport};

/// RFC 3261 section 18.1.1: above it a request goes over TCP, so that no fragment is lost.
const DATAGRAM_BYTES_MAX: usize = 1_300;

impl Stack {
    /// Moves a request that is too large for a datagram to TCP. Not towards a phone that has
    /// registered with datagrams, which may be behind a NAT that lets nothing else in, nor where
    /// TCP was refused a while ago.
    pub(super) fn fit(&self, now: Now, flow: Flow, request: &mut Request) -> Flow {
        if flow.transport.is_stream()
            || request.print().len() <= DATAGRAM_BYTES_MAX
            || self.registrar.has(flow)
            || self.without_tcp.holds(now, flow.peer)
        {
            return flow;
        }
        let flow = Flow { transport: Transport::Tcp, peer: flow.peer, connection: 0 };
        self.address(flow, request);
        flow
    }

    /// Writes another way into a request's Via. Its branch stays, so that whoever has received it
    /// both ways takes the second for the first sent again.
    fn address(&self, flow: Flow, request: &mut Request) {
        let branch = request.head.vias.first().and_then(|via| via.branch()).unwrap_or_default().to_owned();
        let address = dialog::own_address(&self.config, flow.transport);
        request.head.vias = vec![Via::ours(flow.transport, address, &branch)];
    }

    /// Where no connection could be made for what is too large for a datagram, a large datagram
    /// is the best that is left (RFC 3261 section 18.1.1). Whoever sent it hears nothing of it.
    pub(super) fn back_to_datagrams(&mut self, now: Now, progress: Vec<Progress>) -> Vec<Progress> {
        let mut rest = Vec::new();
        let mut again = Vec::new();
        for step in progress {
            let (Progress::Unanswered(id) | Progress::Over(id)) = step else {
                rest.push(step);
                continue;
            };
            if again.contains(&id) {
                continue;
            }
            let Some((flow, mut request)) = self.moved.remove(&id) else {
                rest.push(step);
                continue;
            };
            self.counters.count("tcp_refused");
            self.without_tcp.ban(now, flow.peer);
            self.address(flow, &mut request);
            if self.transactions.restart(now, id, flow, &request, &mut rest).is_some() {
                again.push(id);
                self.readdressed(id, request);
            } else {
                rest.push(step);
            }
        }
        rest
    }

    /// A CANCEL names the Via of what it cancels.
    fn readdressed(&mut self, id: TransactionId, request: Request) {
        let Some(Use::Invite(key) | Use::Reinvite(key)) = self.uses.get(&id) else { return };
        let Some(dialog) = self.dialogs.get_mut(key) else { return };
        if let Phase::Calling(calling) = &mut dialog.phase {
            calling.request = request;
        } else if let Some(reinvite) = &mut dialog.reinvite {
            reinvite.request = request;
        }
    }
}
