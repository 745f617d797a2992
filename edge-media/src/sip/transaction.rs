//! Transactions (RFC 3261 section 17, RFC 6026): matching, retransmission and absorption
//! around the foreign crate's four machines, with a cap and an ordered timer queue. Time
//! comes in as `Now`. It knows no dialog: users of a transaction are told by its id.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use handoff::clock::Now;
use sipx_sip::transaction as machine;

use super::deadlines::Deadlines;
use super::header::Method;
use super::message::{Request, Response};
use super::{Flow, Transport};

/// RFC 3261's round-trip estimate.
pub(super) const T1: Duration = Duration::from_millis(500);
/// Cap of retransmission intervals.
pub(super) const T2: Duration = Duration::from_secs(4);
/// 64 times T1: how long anything waits for an answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(32);
/// Most transactions at once. At fourteen messages a call and 32 s of absorption this is
/// some 500 calls set up per second; more would only be a flood.
const TRANSACTIONS_MAX: usize = 65_536;
/// Most server transactions of one source address that is not a trunk.
const TRANSACTIONS_PER_SOURCE_MAX: u32 = 256;

/// Names a transaction for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TransactionId(u64);

/// RFC 3261 section 17.2.3: what makes a request the same request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ServerKey {
    Branch {
        branch: String,
        sent_by: String,
        method: Method,
    },
    /// RFC 2543, also for a branch that is only the cookie.
    Fields {
        uri: String,
        via: String,
        from_tag: String,
        call_id: String,
        cseq: u32,
        method: Method,
    },
}

impl ServerKey {
    fn of(request: &Request, method: Method) -> Self {
        let via = request.head.vias.first();
        let sent_by = via.map(|via| via.sent_by.to_ascii_lowercase()).unwrap_or_default();
        match via.and_then(|via| via.unique_branch()) {
            Some(branch) => Self::Branch { branch: branch.to_owned(), sent_by, method },
            // The To tag is left out: an ACK carries ours, the INVITE did not.
            None => Self::Fields {
                uri: request.uri.text.clone(),
                via: format!("{sent_by};{}", via.and_then(|via| via.branch()).unwrap_or_default()),
                from_tag: request.head.from.tag().unwrap_or_default().to_owned(),
                call_id: request.head.call_id.clone(),
                cseq: request.head.cseq,
                method,
            },
        }
    }
}

/// A branch of ours and the method it was sent with.
type ClientKey = (String, Method);

enum Machine {
    Client(machine::ClientTransaction, ClientKey),
    Server(machine::ServerTransaction, ServerKey),
}

struct Entry {
    machine: Machine,
    flow: Flow,
}

/// What became of a request that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// New: to be answered with [`Transactions::respond`].
    New(TransactionId),
    /// A retransmission or the ACK of a refusal; dealt with.
    Absorbed,
    /// Too many transactions; nothing was kept.
    Full,
}

/// What a timer or a lost transport did.
#[derive(Debug)]
pub(super) enum Progress {
    /// Send this.
    Send(Flow, Vec<u8>),
    /// A client transaction got no answer, or its transport failed.
    Unanswered(TransactionId),
    /// It is over; forget its id.
    Over(TransactionId),
}

/// All transactions of one stack.
pub(super) struct Transactions {
    entries: BTreeMap<TransactionId, Entry>,
    clients: BTreeMap<ClientKey, TransactionId>,
    servers: BTreeMap<ServerKey, TransactionId>,
    per_source: BTreeMap<IpAddr, u32>,
    timers: Deadlines<(TransactionId, u8)>,
    next_id: u64,
}

impl Transactions {
    /// None.
    pub(super) const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            per_source: BTreeMap::new(),
            timers: Deadlines::new(),
            next_id: 0,
        }
    }

    /// Sends a request in a client transaction of its own. `None` at the cap.
    pub(super) fn start(
        &mut self,
        now: Now,
        flow: Flow,
        request: &Request,
        out: &mut Vec<Progress>,
    ) -> Option<TransactionId> {
        let branch = request.head.vias.first()?.branch()?.to_owned();
        if self.entries.len() >= TRANSACTIONS_MAX {
            return None;
        }
        let timers = machine::Timers::default();
        let (client, outputs) =
            machine::ClientTransaction::new(request.to_wire()?, reliability(flow), timers);
        let id = self.fresh_id();
        let key = (branch, request.head.method.clone());
        self.clients.insert(key.clone(), id);
        self.entries.insert(id, Entry { machine: Machine::Client(client, key), flow });
        self.apply(now, id, outputs, out);
        Some(id)
    }

    /// Finds the client transaction of a response; tells whether the response is for its
    /// user (a retransmitted refusal is not).
    pub(super) fn on_response(
        &mut self,
        now: Now,
        response: &Response,
        out: &mut Vec<Progress>,
    ) -> Option<(TransactionId, bool)> {
        let [via] = response.head.vias.as_slice() else {
            return None;
        };
        let key = (via.branch()?.to_owned(), response.head.method.clone());
        let id = *self.clients.get(&key)?;
        let wire = response.to_wire()?;
        let Machine::Client(client, _) = &mut self.entries.get_mut(&id)?.machine else {
            return None;
        };
        // Behind a refusal only its repeats are acknowledged (RFC 3261 section 17.1.1.2); the
        // machine would acknowledge a provisional response that comes late.
        if client.state() == machine::ClientState::Completed && response.status < 300 {
            return Some((id, false));
        }
        let outputs = client.on_response(wire);
        let for_user = self.apply(now, id, outputs, out);
        Some((id, for_user))
    }

    /// Takes a request other than the ACK of a 2xx. `trusted` peers have no cap of their own.
    pub(super) fn receive(
        &mut self,
        now: Now,
        flow: Flow,
        request: &Request,
        trusted: bool,
        out: &mut Vec<Progress>,
    ) -> Received {
        if let Some(id) = self.find_server(request) {
            if let (Some(wire), Some(entry)) = (request.to_wire(), self.entries.get_mut(&id))
                && let Machine::Server(server, _) = &mut entry.machine
            {
                let outputs = server.on_request(&wire);
                self.apply(now, id, outputs, out);
            }
            return Received::Absorbed;
        }
        let source = flow.peer.ip().to_canonical();
        let used = self.per_source.get(&source).copied().unwrap_or(0);
        if self.entries.len() >= TRANSACTIONS_MAX || (!trusted && used >= TRANSACTIONS_PER_SOURCE_MAX) {
            return Received::Full;
        }
        let Some(wire) = request.to_wire() else {
            return Received::Full;
        };
        let timers = machine::Timers::default();
        let (server, _) = machine::ServerTransaction::new(wire, reliability(flow), timers);
        let id = self.fresh_id();
        let key = ServerKey::of(request, request.head.method.clone());
        self.servers.insert(key.clone(), id);
        self.per_source.insert(source, used + 1);
        self.entries.insert(id, Entry { machine: Machine::Server(server, key), flow });
        Received::New(id)
    }

    /// The ACK of a refusal ends here; `false` for the ACK of a 2xx, which is its dialog's.
    pub(super) fn on_ack(&mut self, now: Now, ack: &Request, out: &mut Vec<Progress>) -> bool {
        let key = ServerKey::of(ack, Method::Invite);
        let (Some(id), Some(wire)) = (self.servers.get(&key).copied(), ack.to_wire()) else {
            return false;
        };
        let Some(Machine::Server(server, _)) = self.entries.get_mut(&id).map(|entry| &mut entry.machine)
        else {
            return false;
        };
        if server.state() == machine::ServerState::Accepted {
            return false;
        }
        let outputs = server.on_request(&wire);
        self.apply(now, id, outputs, out);
        true
    }

    /// The transaction of a request that was seen before.
    pub(super) fn find_server(&self, request: &Request) -> Option<TransactionId> {
        self.servers.get(&ServerKey::of(request, request.head.method.clone())).copied()
    }

    /// The INVITE that a CANCEL means (RFC 3261 section 9.2).
    pub(super) fn find_cancelled(&self, cancel: &Request) -> Option<TransactionId> {
        self.servers.get(&ServerKey::of(cancel, Method::Invite)).copied()
    }

    /// Answers a request.
    pub(super) fn respond(
        &mut self,
        now: Now,
        id: TransactionId,
        response: &Response,
        out: &mut Vec<Progress>,
    ) {
        let Some(Machine::Server(server, _)) = self.entries.get_mut(&id).map(|entry| &mut entry.machine)
        else {
            return;
        };
        if let Some(wire) = response.to_wire() {
            let outputs = server.on_tu_response(wire);
            self.apply(now, id, outputs, out);
        }
    }

    /// Ends a transaction whose user no longer waits for it.
    pub(super) fn abandon(&mut self, id: TransactionId) {
        self.remove(id);
    }

    /// The flow of a transaction.
    pub(super) fn flow(&self, id: TransactionId) -> Option<Flow> {
        self.entries.get(&id).map(|entry| entry.flow)
    }

    /// Fires every timer that is due.
    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut Vec<Progress>) {
        while let Some((id, letter)) = self.timers.pop_due(now) {
            let Some(timer) = machine::Timer::ALL.get(usize::from(letter)).copied() else {
                continue;
            };
            let outputs = match self.entries.get_mut(&id).map(|entry| &mut entry.machine) {
                Some(Machine::Client(client, _)) => client.on_timer(timer),
                Some(Machine::Server(server, _)) => server.on_timer(timer),
                None => continue,
            };
            self.apply(now, id, outputs, out);
        }
    }

    /// A connection is gone: its client transactions get no answer any more.
    pub(super) fn connection_closed(&mut self, now: Now, flow: Flow, out: &mut Vec<Progress>) {
        let on_it: Vec<TransactionId> =
            self.entries.iter().filter(|(_, entry)| entry.flow == flow).map(|(id, _)| *id).collect();
        for id in on_it {
            let outputs = match self.entries.get_mut(&id).map(|entry| &mut entry.machine) {
                Some(Machine::Client(client, _)) => client.on_transport_error(),
                // A response may still leave over a new connection or never; the machine's
                // own timers end it.
                Some(Machine::Server(..)) | None => continue,
            };
            self.apply(now, id, outputs, out);
        }
    }

    /// The next timer.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.timers.next()
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn fresh_id(&mut self) -> TransactionId {
        self.next_id += 1;
        TransactionId(self.next_id)
    }

    /// Carries a machine's outputs out; tells whether its user has something to read.
    fn apply(
        &mut self,
        now: Now,
        id: TransactionId,
        outputs: Vec<machine::Output>,
        out: &mut Vec<Progress>,
    ) -> bool {
        let mut for_user = false;
        for output in outputs {
            match output {
                machine::Output::Send(message) => {
                    if let Some(flow) = self.flow(id) {
                        out.push(Progress::Send(flow, message.to_bytes().to_vec()));
                    }
                }
                machine::Output::SetTimer { timer, after } => {
                    self.timers.set((id, letter(timer)), now + after)
                }
                machine::Output::ClearTimer(timer) => self.timers.clear(&(id, letter(timer))),
                machine::Output::ToTu(event) => match *event {
                    machine::TuEvent::Timeout | machine::TuEvent::TransportError => {
                        out.push(Progress::Unanswered(id));
                    }
                    machine::TuEvent::Request(_)
                    | machine::TuEvent::Response(_)
                    | machine::TuEvent::Ack(_)
                    | _ => {
                        for_user = true;
                    }
                },
                machine::Output::Terminated(_) => {
                    self.remove(id);
                    out.push(Progress::Over(id));
                }
                _ => {}
            }
        }
        for_user
    }

    fn remove(&mut self, id: TransactionId) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        for timer in 0..machine::Timer::ALL.len() {
            self.timers.clear(&(id, u8::try_from(timer).unwrap_or(u8::MAX)));
        }
        match entry.machine {
            Machine::Client(_, key) => {
                self.clients.remove(&key);
            }
            Machine::Server(_, key) => {
                self.servers.remove(&key);
                let source = entry.flow.peer.ip().to_canonical();
                match self.per_source.get(&source).copied() {
                    Some(count) if count > 1 => {
                        self.per_source.insert(source, count - 1);
                    }
                    Some(_) | None => {
                        self.per_source.remove(&source);
                    }
                }
            }
        }
    }
}

fn reliability(flow: Flow) -> machine::Reliability {
    match flow.transport {
        Transport::Udp => machine::Reliability::Unreliable,
        Transport::Tcp | Transport::Tls => machine::Reliability::Reliable,
    }
}

fn letter(timer: machine::Timer) -> u8 {
    let position = machine::Timer::ALL.iter().position(|known| *known == timer);
    position.and_then(|position| u8::try_from(position).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
impl Transactions {
    /// The state of a machine by its name in the RFC; `None` once it is over.
    fn state_of(&self, id: TransactionId) -> Option<String> {
        Some(match &self.entries.get(&id)?.machine {
            Machine::Client(client, _) => format!("{:?}", client.state()),
            Machine::Server(server, _) => format!("{:?}", server.state()),
        })
    }

    /// The timers of a transaction that run.
    fn timers_of(&self, id: TransactionId) -> String {
        let running = machine::Timer::ALL.iter().filter_map(|timer| {
            let at = self.timers.of(&(id, letter(*timer)))?;
            Some(format!("{timer:?} at {} ms", at.millis()))
        });
        let running = running.collect::<Vec<_>>().join(", ");
        if running.is_empty() { "none".to_owned() } else { running }
    }
}

#[cfg(test)]
mod tests {
    mod grid;

    use super::super::message::tests::request;
    use super::*;

    fn flow(transport: Transport) -> Flow {
        Flow { transport, peer: "192.0.2.1:5060".parse().unwrap(), connection: 0 }
    }

    /// When the transaction sent something, in milliseconds, until it was over.
    fn sends(transactions: &mut Transactions) -> (Vec<u64>, bool) {
        let (mut sent, mut unanswered) = (Vec::new(), false);
        while let Some(at) = transactions.next_timeout() {
            let mut out = Vec::new();
            transactions.handle_timeout(at, &mut out);
            for progress in out {
                match progress {
                    Progress::Send(..) => sent.push(at.millis()),
                    Progress::Unanswered(_) => unanswered = true,
                    Progress::Over(_) => {}
                }
            }
        }
        (sent, unanswered)
    }

    #[test]
    fn an_unanswered_request_is_repeated_by_the_book_and_given_up_after_32_s() {
        for (method, udp) in [
            ("INVITE", vec![500, 1_500, 3_500, 7_500, 15_500, 31_500]),
            ("BYE", vec![500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]),
        ] {
            for (transport, expected) in [(Transport::Udp, udp.clone()), (Transport::Tcp, Vec::new())] {
                let mut transactions = Transactions::new();
                let mut out = Vec::new();
                let request = request(method, "sip:a@h", 1, "");
                transactions.start(Now::ZERO, flow(transport), &request, &mut out).unwrap();
                assert!(matches!(out[..], [Progress::Send(..)]));
                assert_eq!(sends(&mut transactions), (expected, true), "{method} {transport:?}");
                assert_eq!(transactions.len(), 0);
            }
        }
    }

    #[test]
    fn a_provisional_response_stops_the_invite_and_slows_the_rest_down() {
        for (method, expected) in [("INVITE", Vec::new()), ("BYE", vec![500, 4_500, 8_500])] {
            let mut transactions = Transactions::new();
            let mut out = Vec::new();
            let request = request(method, "sip:a@h", 1, "");
            transactions.start(Now::ZERO, flow(Transport::Udp), &request, &mut out).unwrap();
            let found = transactions.on_response(Now::ZERO, &request.response(100, None), &mut out);
            assert!(matches!(found, Some((_, true))));
            let (sent, _) = sends(&mut transactions);
            assert_eq!(sent.get(..expected.len()), Some(&expected[..]), "{method}");
        }
    }

    #[test]
    fn a_refusal_is_acked_each_time_and_told_once() {
        let mut transactions = Transactions::new();
        let mut out = Vec::new();
        let invite = request("INVITE", "sip:a@h", 1, "");
        let id = transactions.start(Now::ZERO, flow(Transport::Udp), &invite, &mut out);
        let refusal = invite.response(486, Some("t"));
        for told in [true, false, false] {
            let mut out = Vec::new();
            let found = transactions.on_response(Now::ZERO, &refusal, &mut out);
            assert_eq!(found, id.map(|id| (id, told)));
            let [Progress::Send(_, bytes)] = &out[..] else { panic!("{out:?}") };
            let ack = String::from_utf8_lossy(bytes);
            assert!(ack.starts_with("ACK sip:a@h SIP/2.0") && ack.contains("branch=z9hG4bKINVITE1"), "{ack}");
        }
    }

    #[test]
    fn a_repeated_request_gets_the_same_answer_and_a_refusal_is_repeated_until_acked() {
        let mut transactions = Transactions::new();
        let mut out = Vec::new();
        let invite = request("INVITE", "sip:a@h", 1, "");
        let udp = flow(Transport::Udp);
        let Received::New(id) = transactions.receive(Now::ZERO, udp, &invite, true, &mut out) else {
            panic!()
        };
        transactions.respond(Now::ZERO, id, &invite.response(486, Some("t")), &mut out);
        out.clear();
        assert_eq!(transactions.receive(Now::ZERO, udp, &invite, true, &mut out), Received::Absorbed);
        assert!(matches!(out[..], [Progress::Send(..)]));
        out.clear();
        transactions.handle_timeout(Now::from_millis(500), &mut out);
        assert!(matches!(out[..], [Progress::Send(..)]));
        let mut ack = invite.clone();
        ack.head.method = Method::Ack;
        assert!(transactions.on_ack(Now::from_millis(600), &ack, &mut out));
        assert_eq!(sends(&mut transactions).0, Vec::<u64>::new());
        assert_eq!(transactions.len(), 0);
    }

    #[test]
    fn the_bare_cookie_is_no_key() {
        let (mut one, mut other) =
            (request("OPTIONS", "sip:a@h", 1, ""), request("OPTIONS", "sip:a@h", 1, ""));
        for request in [&mut one, &mut other] {
            request.head.vias[0].params = vec![("branch".to_owned(), Some("z9hG4bK".to_owned()))];
        }
        other.head.call_id = "another".to_owned();
        let mut transactions = Transactions::new();
        let mut out = Vec::new();
        for request in [&one, &other] {
            let received = transactions.receive(Now::ZERO, flow(Transport::Udp), request, true, &mut out);
            assert!(matches!(received, Received::New(_)));
        }
        assert_eq!(
            transactions.receive(Now::ZERO, flow(Transport::Udp), &one, true, &mut out),
            Received::Absorbed
        );
    }

    #[test]
    fn one_source_cannot_take_all_transactions() {
        let mut transactions = Transactions::new();
        let mut out = Vec::new();
        let mut take = |cseq, trusted| {
            let request = request("OPTIONS", "sip:a@h", cseq, "");
            transactions.receive(Now::ZERO, flow(Transport::Udp), &request, trusted, &mut out)
        };
        let admitted = (1..400).filter(|cseq| matches!(take(*cseq, false), Received::New(_))).count();
        assert_eq!(admitted, 256);
        assert!(matches!(take(1_000, true), Received::New(_)));
    }
}
