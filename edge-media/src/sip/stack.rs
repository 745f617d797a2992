//! The stack: bytes, commands and time in; bytes and events out. This file admits, parses
//! and dispatches, and owns the timers; `uas` answers requests, `uac` sends them and reads
//! the answers, `registration` does both for REGISTER.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use handoff::call::outcome::LegCause;
use handoff::clock::Now;

use super::auth::Authenticator;
use super::deadlines::Deadlines;
use super::dialog::{Dialog, Phase};
use super::guard::{Bans, Buckets, Counters};
use super::header::Method;
use super::message::{self, Fault, Message, Request, Response};
use super::random::Random;
use super::registrar::Registrar;
use super::registration::Registration;
use super::room::{CallLimits, Room};
use super::stream::{Framed, Framer};
use super::transaction::{Progress, TIMEOUT, TransactionId, Transactions};
use super::trunk::{SipConfig, TrunkConfig, UserConfig};
use super::uac::Order;
use super::uplink::{Uplink, UplinkConfig, UplinkNews};
use super::{DialogKey, Flow, SipCommand, SipEvent, SipOutput, Transport};

/// Connections whose stream is read; the shell caps what it accepts as well.
const STREAMS_MAX: usize = 4_096;
/// Most dialogs at once, ringing and ending ones included.
pub(super) const DIALOGS_MAX: usize = 8_192;
/// A NAT forgets a UDP flow after 30 s in the worst common case.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Wrong credentials from one source at once, and a minute afterwards, before it is banned:
/// several phones behind one address may have an old password.
const FAILURES_MAX: u64 = 20;
/// The same for one user of one source, before its attempts are no longer looked at: a phone
/// that was given a wrong password asks about twice a minute.
const USER_FAILURES_MAX: u64 = 5;

/// What a client transaction was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Invite(DialogKey),
    Reinvite(DialogKey),
    Bye(DialogKey),
    /// UPDATE that refreshes the session.
    Update(DialogKey),
    /// CANCEL, or the BYE of a fork: nobody waits for the answer.
    Nothing,
    Register(String),
    /// The registration of a trunk's account.
    Uplink(String),
    /// OPTIONS to a trunk.
    Health(String),
}

/// A deadline of the stack itself; those of transactions are theirs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Send our 2xx again, or give its ACK up.
    Acknowledge(DialogKey),
    /// Send a reliable provisional response again, or give its PRACK up.
    Provisional(DialogKey),
    /// Try a re-INVITE again after 491.
    Glare(DialogKey),
    /// A re-INVITE gets no final answer.
    Reinvite(DialogKey),
    /// Refresh the session, or end it.
    Session(DialogKey),
    /// A cancelled INVITE gets no final answer.
    Cancelled(DialogKey),
    /// A message on a stream does not end.
    Stream(Flow),
    /// Keep the NAT bindings of UDP contacts open.
    KeepAlive,
    /// Refresh or retry a registration of ours.
    Register(String),
    /// Refresh or retry the registration of a trunk's account.
    Uplink(String),
    /// Ask a trunk how it is.
    Health(String),
}

/// A SIP user agent, registrar and back-to-back leg factory without a socket.
pub struct Stack {
    pub(super) config: SipConfig,
    pub(super) random: Random,
    pub(super) transactions: Transactions,
    pub(super) uses: BTreeMap<TransactionId, Use>,
    pub(super) dialogs: BTreeMap<DialogKey, Dialog>,
    /// Call-ID and our tag.
    pub(super) by_call: BTreeMap<(String, String), DialogKey>,
    pub(super) timers: Deadlines<Timer>,
    pub(super) registrar: Registrar,
    pub(super) registrations: BTreeMap<String, Registration>,
    pub(super) room: Room,
    pub(super) uplinks: BTreeMap<String, Uplink>,
    pub(super) uplink_news: Vec<UplinkNews>,
    pub(super) auth: Authenticator,
    pub(super) failures: Buckets<IpAddr>,
    pub(super) user_failures: Buckets<(IpAddr, String)>,
    bans: Bans,
    streams: BTreeMap<Flow, Framer>,
    sources: Buckets<IpAddr>,
    pub(super) tag_key: [u8; 32],
    pub(super) draining: bool,
    pub(super) next_inbound: u64,
    pub(super) counters: Counters,
    pub(super) out: Vec<SipOutput>,
}

impl Stack {
    /// A stack. `seed` must come from the operating system's random source outside tests:
    /// branches, tags, Call-IDs and nonces are as unguessable as it is.
    pub fn new(config: SipConfig, seed: u128) -> Self {
        let random = Random::new(seed);
        let uplinks = config.uplinks.clone();
        let mut stack = Self {
            auth: Authenticator::new(config.realm.clone(), random.derive("nonce")),
            tag_key: random.derive("stateless tag"),
            random,
            transactions: Transactions::new(),
            uses: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            by_call: BTreeMap::new(),
            timers: Deadlines::new(),
            registrar: Registrar::default(),
            registrations: BTreeMap::new(),
            room: Room::new(config.limits.clone()),
            uplinks: BTreeMap::new(),
            uplink_news: Vec::new(),
            failures: Buckets::per_minute(FAILURES_MAX, FAILURES_MAX),
            user_failures: Buckets::per_minute(USER_FAILURES_MAX, USER_FAILURES_MAX),
            bans: Bans::default(),
            streams: BTreeMap::new(),
            sources: Buckets::new(config.source_rate, config.source_rate.saturating_mul(3)),
            config,
            draining: false,
            next_inbound: 2,
            counters: Counters::default(),
            out: Vec::new(),
        };
        // Nothing is sent before the addresses of their servers are known.
        stack.keep_uplinks(Now::ZERO, uplinks);
        stack
    }

    /// Takes one datagram, or the next bytes of a stream.
    #[must_use = "outputs are the only effect a stack has"]
    pub fn receive(&mut self, now: Now, flow: Flow, bytes: &[u8]) -> Vec<SipOutput> {
        let source = flow.peer.ip().to_canonical();
        if self.config.trunk(flow.peer).is_none() && !self.sources.take(now, &source) {
            self.counters.count("source_over_rate");
            if flow.transport.is_stream() {
                // Bytes cannot be left out of a stream; the stream as a whole can.
                self.close(flow);
            }
            return std::mem::take(&mut self.out);
        }
        if self.is_banned(now, flow) {
            self.counters.count("banned_source");
            if flow.transport.is_stream() {
                self.close(flow);
            }
            return std::mem::take(&mut self.out);
        }
        match flow.transport {
            Transport::Udp => self.on_datagram(now, flow, bytes),
            Transport::Tcp | Transport::Tls => self.on_stream(now, flow, bytes),
        }
        std::mem::take(&mut self.out)
    }

    /// A connection is gone, or could not be made (then with the flow of the `Send`).
    #[must_use = "outputs are the only effect a stack has"]
    pub fn connection_closed(&mut self, now: Now, flow: Flow) -> Vec<SipOutput> {
        self.streams.remove(&flow);
        self.timers.clear(&Timer::Stream(flow));
        for user in self.registrar.connection_closed(flow) {
            self.tell_registered(user);
        }
        for dialog in self.dialogs.values_mut().filter(|dialog| dialog.flow == flow) {
            dialog.flow.connection = 0;
        }
        let mut progress = Vec::new();
        self.transactions.connection_closed(now, flow, &mut progress);
        self.advance(now, progress);
        std::mem::take(&mut self.out)
    }

    /// Carries an order out.
    #[must_use = "outputs are the only effect a stack has"]
    pub fn command(&mut self, now: Now, command: SipCommand) -> Vec<SipOutput> {
        match command {
            SipCommand::Ring(key) => self.progress(now, key, None),
            SipCommand::Progress(key, local) => self.progress(now, key, Some(local)),
            SipCommand::Answer(key, local) => self.answer(now, key, local),
            SipCommand::Reject(key, status) => self.reject(now, key, status),
            SipCommand::Invite { dialog, to, local, handle } => {
                let order = Order { to, local, handle, from: None, credentials: None };
                self.invite(now, dialog, order);
            }
            SipCommand::Dial { dialog, to, local, from, credentials } => {
                let order = Order { to, local, handle: None, from: Some(from), credentials };
                self.invite(now, dialog, order);
            }
            SipCommand::Reinvite(key, local) => self.reinvite(now, key, local),
            SipCommand::HangUp(key, cause) => self.hang_up(now, key, cause),
            SipCommand::Drain => self.draining = true,
            SipCommand::Register { user, password, registrar, domain, expires_secs } => {
                self.register(now, user, password, registrar, domain, expires_secs);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Does everything that is due.
    #[must_use = "outputs are the only effect a stack has"]
    pub fn handle_timeout(&mut self, now: Now) -> Vec<SipOutput> {
        let mut progress = Vec::new();
        self.transactions.handle_timeout(now, &mut progress);
        self.advance(now, progress);
        for user in self.registrar.handle_timeout(now) {
            self.tell_registered(user);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            self.on_timer(now, timer);
        }
        std::mem::take(&mut self.out)
    }

    /// The next time at which [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_timeout(&self) -> Option<Now> {
        let all = [self.transactions.next_timeout(), self.timers.next(), self.registrar.next_timeout()];
        all.into_iter().flatten().min()
    }

    /// Everything that was dropped or refused, by name.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Dialogs and transactions that are not over: zero is idle.
    pub fn open(&self) -> (usize, usize) {
        (self.dialogs.len(), self.transactions.len())
    }

    /// How many contacts a user has registered.
    pub fn contacts(&self, user: &str) -> usize {
        self.registrar.count(user)
    }

    /// Exchanges trunks and users. Running dialogs stay; bindings of removed users end.
    #[must_use = "outputs are the only effect a stack has"]
    pub fn reload(&mut self, trunks: Vec<TrunkConfig>, users: Vec<UserConfig>) -> Vec<SipOutput> {
        self.config.trunks = trunks;
        self.config.users = users;
        let config = &self.config;
        for user in self.registrar.reload(|name| config.user(name).is_some()) {
            self.tell_registered(user);
        }
        std::mem::take(&mut self.out)
    }

    /// Exchanges what is kept up with trunks: registrations and looks at their health. What
    /// is configured as before goes on undisturbed.
    #[must_use = "outputs are the only effect a stack has"]
    pub fn set_uplinks(&mut self, now: Now, uplinks: Vec<UplinkConfig>) -> Vec<SipOutput> {
        self.keep_uplinks(now, uplinks);
        std::mem::take(&mut self.out)
    }

    /// Exchanges how many calls trunks may have. Running calls stay.
    pub fn set_limits(&mut self, limits: Vec<CallLimits>) {
        self.room.limit(limits);
    }

    /// Learns the addresses of trunks' servers, each in the order in which they are tried.
    #[must_use = "outputs are the only effect a stack has"]
    pub fn set_servers(&mut self, now: Now, servers: Vec<(String, Vec<SocketAddr>)>) -> Vec<SipOutput> {
        self.learn_servers(now, servers);
        std::mem::take(&mut self.out)
    }

    /// Exchanges the addresses of the names that fixed URIs use.
    pub fn set_hosts(&mut self, hosts: Vec<(String, SocketAddr)>) {
        self.config.hosts = hosts;
    }

    fn on_datagram(&mut self, now: Now, flow: Flow, bytes: &[u8]) {
        if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return;
        }
        if bytes.len() > message::MESSAGE_BYTES_MAX {
            self.counters.count("message_too_large");
            return;
        }
        self.on_message(now, flow, bytes);
    }

    fn on_stream(&mut self, now: Now, flow: Flow, bytes: &[u8]) {
        if !self.streams.contains_key(&flow) && self.streams.len() >= STREAMS_MAX {
            self.counters.count("streams_full");
            self.out.push(SipOutput::Close(flow));
            return;
        }
        let framer = self.streams.entry(flow).or_default();
        let framed = framer.push(bytes);
        if framer.is_waiting() {
            if !framed.is_empty() || !self.timers.is_set(&Timer::Stream(flow)) {
                self.timers.set(Timer::Stream(flow), now + TIMEOUT);
            }
        } else {
            self.timers.clear(&Timer::Stream(flow));
        }
        for item in framed {
            match item {
                Framed::Message(bytes) => self.on_message(now, flow, &bytes),
                Framed::Ping => self.out.push(SipOutput::Send(flow, b"\r\n".to_vec())),
                Framed::Broken(bytes) => {
                    self.counters.count("stream_framing");
                    if let Some(answer) = message::refuse_unframed(&bytes, flow.peer) {
                        self.out.push(SipOutput::Send(flow, answer));
                    }
                    self.close(flow);
                }
            }
        }
    }

    /// Whether a flow's source is not listened to. Whoever has proven who they are, or is in a
    /// call with us, is heard all the same: others may share or forge their address.
    fn is_banned(&self, now: Now, flow: Flow) -> bool {
        self.bans.holds(now, flow.peer.ip().to_canonical())
            && self.config.trunk(flow.peer).is_none()
            && !self.registrar.has(flow)
            && !self.dialogs.values().any(|dialog| dialog.flow.peer == flow.peer)
    }

    /// Stops listening to a source for a while.
    pub(super) fn ban(&mut self, now: Now, flow: Flow) {
        self.counters.count("banned");
        self.bans.ban(now, flow.peer.ip().to_canonical());
    }

    fn close(&mut self, flow: Flow) {
        self.streams.remove(&flow);
        self.timers.clear(&Timer::Stream(flow));
        self.out.push(SipOutput::Close(flow));
    }

    fn on_message(&mut self, now: Now, flow: Flow, bytes: &[u8]) {
        match message::parse(bytes, flow.peer) {
            Ok(Message::Request(request)) => self.on_request(now, flow, bytes.len(), request),
            Ok(Message::Response(response)) => self.on_response(now, flow, &response),
            Err(Fault::Refused { response, .. }) => {
                self.counters.count("malformed_request");
                if response.len() <= 2 * bytes.len() {
                    self.out.push(SipOutput::Send(flow, response));
                }
            }
            Err(Fault::Dropped) => self.counters.count("malformed_dropped"),
        }
    }

    fn on_response(&mut self, now: Now, flow: Flow, response: &Response) {
        let mut progress = Vec::new();
        let found = self.transactions.on_response(now, response, &mut progress);
        // The ACK of a refusal leaves before anything that the refusal leads to.
        let (sends, rest): (Vec<Progress>, Vec<Progress>) =
            progress.into_iter().partition(|step| matches!(step, Progress::Send(..)));
        self.advance(now, sends);
        match found {
            Some((id, true)) => match self.uses.get(&id).cloned() {
                Some(Use::Invite(key)) => {
                    self.with(key, |stack, dialog| stack.on_invite_response(now, flow, dialog, response));
                }
                Some(Use::Reinvite(key)) => {
                    self.with(key, |stack, dialog| stack.on_reinvite_response(now, flow, dialog, response));
                }
                Some(Use::Update(key)) => {
                    self.with(key, |stack, dialog| stack.on_update_response(now, id, dialog, response));
                }
                Some(Use::Bye(key)) if response.status >= 200 => {
                    self.with(key, |_, dialog| dialog.bye = None);
                }
                Some(Use::Register(user)) => self.on_register_response(now, &user, response),
                Some(Use::Uplink(trunk)) => self.on_uplink_response(now, &trunk, response),
                Some(Use::Health(trunk)) => self.on_health(now, &trunk, Some(response)),
                Some(Use::Bye(_) | Use::Nothing) | None => {}
            },
            Some((_, false)) => {}
            None => self.counters.count("stray_response"),
        }
        self.advance(now, rest);
    }

    fn on_timer(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Acknowledge(key) => self.with(key, |stack, dialog| stack.on_unacknowledged(now, dialog)),
            Timer::Provisional(key) => self.with(key, |stack, dialog| stack.on_unpracked(now, dialog)),
            Timer::Glare(key) => self.with(key, |stack, dialog| stack.try_reinvite(now, dialog)),
            Timer::Reinvite(key) => self.with(key, |stack, dialog| stack.on_reinvite_stuck(now, dialog)),
            Timer::Session(key) => self.with(key, |stack, dialog| stack.on_session_timer(now, dialog)),
            Timer::Cancelled(key) => self.with(key, |stack, dialog| {
                if let Some(id) = dialog.invite.take() {
                    stack.transactions.abandon(id);
                    stack.uses.remove(&id);
                }
            }),
            Timer::Stream(flow) => {
                self.counters.count("stream_stalled");
                self.close(flow);
            }
            Timer::KeepAlive => {
                let flows = self.registrar.udp_flows();
                if !flows.is_empty() {
                    self.timers.set(Timer::KeepAlive, now + KEEP_ALIVE);
                }
                self.out.extend(flows.into_iter().map(|flow| SipOutput::Send(flow, b"\r\n\r\n".to_vec())));
            }
            Timer::Register(user) => self.send_register(now, &user),
            Timer::Uplink(trunk) => self.on_uplink_due(now, &trunk),
            Timer::Health(trunk) => self.on_health_due(now, &trunk),
        }
    }

    /// Carries out what transactions did.
    pub(super) fn advance(&mut self, now: Now, progress: Vec<Progress>) {
        for step in progress {
            match step {
                Progress::Send(flow, bytes) => self.out.push(SipOutput::Send(flow, bytes)),
                Progress::Unanswered(id) => match self.uses.get(&id).cloned() {
                    Some(Use::Invite(key)) => {
                        self.with(key, |stack, dialog| stack.on_invite_unanswered(now, dialog));
                    }
                    Some(Use::Reinvite(key)) => {
                        self.with(key, |stack, dialog| stack.on_reinvite_unanswered(now, dialog));
                    }
                    Some(Use::Update(key)) => {
                        self.with(key, |stack, dialog| stack.on_update_unanswered(now, id, dialog));
                    }
                    Some(Use::Bye(key)) => self.with(key, |_, dialog| dialog.bye = None),
                    Some(Use::Register(user)) => self.on_register_unanswered(now, &user),
                    Some(Use::Uplink(trunk)) => self.on_uplink_silence(now, &trunk),
                    Some(Use::Health(trunk)) => self.on_health(now, &trunk, None),
                    Some(Use::Nothing) | None => {}
                },
                Progress::Over(id) => match self.uses.remove(&id) {
                    Some(Use::Invite(key)) => self.with(key, |_, dialog| {
                        dialog.invite = dialog.invite.filter(|invite| *invite != id);
                    }),
                    Some(Use::Reinvite(key)) => self.with(key, |_, dialog| {
                        dialog.reinvite_transaction = dialog.reinvite_transaction.filter(|open| *open != id);
                    }),
                    Some(
                        Use::Update(_)
                        | Use::Bye(_)
                        | Use::Nothing
                        | Use::Register(_)
                        | Use::Uplink(_)
                        | Use::Health(_),
                    )
                    | None => {}
                },
            }
        }
    }

    /// Works on one dialog, taken out of the table meanwhile, and forgets it once it is over.
    pub(super) fn with(&mut self, key: DialogKey, work: impl FnOnce(&mut Self, &mut Dialog)) {
        let Some(mut dialog) = self.dialogs.remove(&key) else {
            return;
        };
        work(self, &mut dialog);
        if dialog.is_over() {
            self.room.ended(key);
            self.by_call.remove(&(dialog.call_id.clone(), dialog.local_tag().to_owned()));
            for timer in [
                Timer::Acknowledge(key),
                Timer::Provisional(key),
                Timer::Glare(key),
                Timer::Reinvite(key),
                Timer::Session(key),
                Timer::Cancelled(key),
            ] {
                self.timers.clear(&timer);
            }
        } else {
            self.dialogs.insert(key, dialog);
        }
    }

    /// Tells the end of a dialog, once.
    pub(super) fn end(&mut self, dialog: &mut Dialog, cause: LegCause, status: Option<u16>) {
        if std::mem::replace(&mut dialog.ended, true) {
            return;
        }
        dialog.cause = cause;
        dialog.wanted = None;
        self.room.ended(dialog.key);
        self.timers.clear(&Timer::Provisional(dialog.key));
        self.timers.clear(&Timer::Glare(dialog.key));
        self.timers.clear(&Timer::Session(dialog.key));
        self.event(SipEvent::Ended { dialog: dialog.key, cause, status });
    }

    pub(super) fn event(&mut self, event: SipEvent) {
        self.out.push(SipOutput::Event(event));
    }

    pub(super) fn tell_registered(&mut self, user: String) {
        let contacts = self.registrar.count(&user);
        self.event(SipEvent::Registered { user, contacts });
    }

    pub(super) fn keep_alive(&mut self, now: Now) {
        if !self.timers.is_set(&Timer::KeepAlive) {
            self.timers.set(Timer::KeepAlive, now + KEEP_ALIVE);
        }
    }

    /// Starts a client transaction, over TCP where the request is too large for UDP
    /// (RFC 3261 section 18.1.1).
    pub(super) fn start(
        &mut self,
        now: Now,
        flow: Flow,
        request: &mut Request,
        purpose: Use,
    ) -> Option<TransactionId> {
        let flow = self.fit(flow, request);
        self.start_on(now, flow, request, purpose)
    }

    /// Starts a client transaction on exactly this flow.
    pub(super) fn start_on(
        &mut self,
        now: Now,
        flow: Flow,
        request: &Request,
        purpose: Use,
    ) -> Option<TransactionId> {
        let mut progress = Vec::new();
        let id = self.transactions.start(now, flow, request, &mut progress);
        match id {
            Some(id) => {
                self.uses.insert(id, purpose);
            }
            None => self.counters.count("transactions_full"),
        }
        self.advance(now, progress);
        id
    }

    /// Moves a request that is too large for a datagram to TCP.
    fn fit(&mut self, flow: Flow, request: &mut Request) -> Flow {
        if flow.transport.is_stream() || request.print().len() <= DATAGRAM_BYTES_MAX {
            return flow;
        }
        let flow = Flow { transport: Transport::Tcp, peer: flow.peer, connection: 0 };
        request.head.vias = vec![super::dialog::via(&self.config, &mut self.random, flow)];
        flow
    }

    /// Answers in a transaction.
    pub(super) fn respond(&mut self, now: Now, id: TransactionId, response: &Response) {
        let mut progress = Vec::new();
        self.transactions.respond(now, id, response, &mut progress);
        self.advance(now, progress);
    }

    /// The dialog that a request belongs to: Call-ID, our tag and the peer's.
    pub(super) fn find_dialog(&self, request: &Request) -> Option<DialogKey> {
        let tag = request.head.to.tag()?;
        let key = *self.by_call.get(&(request.head.call_id.clone(), tag.to_owned()))?;
        let dialog = self.dialogs.get(&key)?;
        let early = matches!(dialog.phase, Phase::Calling(_)) && request.head.method != Method::Bye;
        (early || dialog.is_remote_tag(request.head.from.tag())).then_some(key)
    }
}

/// RFC 3261 section 18.1.1: above it a request goes over TCP, so that no fragment is lost.
const DATAGRAM_BYTES_MAX: usize = 1_300;
