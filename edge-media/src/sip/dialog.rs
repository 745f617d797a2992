//! One dialog (RFC 3261 section 12) and what is going on inside it: identity, targets, CSeq
//! space, the open INVITE, the unacknowledged 2xx, the session timer. It builds requests
//! within the dialog and judges the order of those that come in; it sends nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use handoff::call::outcome::LegCause;
use handoff::clock::Now;
use handoff::pii::Pii;

use super::early::Early;
use super::header::{Address, Method, Uri, Via};
use super::message::{Head, Request, Response};
use super::offer_answer::Negotiation;
use super::random::Random;
use super::reliable::Reliable;
use super::transaction::TransactionId;
use super::trunk::{Credentials, Rel100, SipConfig};
use super::update::Refresh;
use super::{DialogKey, Flow, LocalMedia, Transport};

/// Most forks of one INVITE whose 2xx are remembered; a proxy that forks wider is broken.
pub(super) const FORKS_MAX: usize = 16;

/// Which side sent the INVITE: the owner of the Call-ID is `Uac`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Uac,
    Uas,
}

/// Who is at the far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A trunk, or a fixed address of the configuration: reached by its Contact.
    Address,
    /// A phone behind whatever it is behind: reached by the flow it used.
    User,
}

/// Where an outbound INVITE can still go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) uri: Uri,
    pub(super) flow: Flow,
}

/// Whether and how far an INVITE was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    No,
    /// As soon as a provisional response has come.
    Wanted,
    Sent,
}

/// An INVITE of ours without a final answer.
#[derive(Clone, Debug)]
pub(super) struct Calling {
    pub(super) request: Request,
    pub(super) local: LocalMedia,
    pub(super) provisional: bool,
    pub(super) rang: bool,
    pub(super) cancel: Cancel,
    /// Contacts that were not tried.
    pub(super) targets: Vec<Target>,
    pub(super) handle: Option<String>,
    pub(super) restricted: bool,
    pub(super) credentials: Option<Credentials>,
    /// A challenge was answered.
    pub(super) authorized: bool,
    /// The peer's Min-SE was obeyed.
    pub(super) interval_raised: bool,
    /// It went over TCP only because of its size.
    pub(super) moved_to_tcp: bool,
    /// TCP failed: send it by UDP, whatever its size.
    pub(super) datagram_only: bool,
}

impl Calling {
    /// An INVITE that is about to leave.
    pub(super) const fn new(request: Request, local: LocalMedia) -> Self {
        Self {
            request,
            local,
            provisional: false,
            rang: false,
            cancel: Cancel::No,
            targets: Vec::new(),
            handle: None,
            restricted: false,
            credentials: None,
            authorized: false,
            interval_raised: false,
            moved_to_tcp: false,
            datagram_only: false,
        }
    }
}

/// Where the dialog stands.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// We called; no final answer.
    Calling(Box<Calling>),
    /// We are called; we gave no final answer.
    Called { transaction: TransactionId, request: Box<Request> },
    /// A 2xx was sent or received.
    Confirmed,
}

/// A 2xx of ours that waits for its ACK.
#[derive(Clone, Debug)]
pub(super) struct Unacknowledged {
    pub(super) cseq: u32,
    pub(super) transaction: TransactionId,
    pub(super) response: Response,
    pub(super) interval: Duration,
    pub(super) give_up_at: Now,
    /// The answer to our offer comes in the ACK.
    pub(super) wants_answer: bool,
    /// It answers the first INVITE.
    pub(super) first: bool,
}

/// A re-INVITE of ours without a final answer.
#[derive(Clone, Debug)]
pub(super) struct Reinvite {
    pub(super) request: Request,
    pub(super) local: LocalMedia,
    pub(super) purpose: Purpose,
    pub(super) authorized: bool,
}

/// What a re-INVITE is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The edge wants other media and hears the result.
    Media,
    /// RFC 4028; nobody hears of it unless it fails.
    Refresh,
}

/// The session timer in force (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) interval: Duration,
    pub(super) we_refresh: bool,
}

impl Session {
    /// When to act: refresh at half the interval, or hang up a little before its end.
    pub(super) fn act_after(self) -> Duration {
        if self.we_refresh {
            self.interval / 2
        } else {
            self.interval - Duration::from_secs(32).min(self.interval / 3)
        }
    }
}

/// A dialog, early, confirmed or ending.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub(super) key: DialogKey,
    pub(super) role: Role,
    pub(super) peer: Peer,
    pub(super) flow: Flow,
    pub(super) call_id: String,
    pub(super) local: Address,
    pub(super) remote: Address,
    pub(super) target: Uri,
    pub(super) routes: Vec<Address>,
    pub(super) local_cseq: u32,
    pub(super) remote_cseq: Option<u32>,
    pub(super) negotiation: Negotiation,
    pub(super) phase: Phase,
    /// The client transaction of our first INVITE, while it lives.
    pub(super) invite: Option<TransactionId>,
    /// The client transaction of our re-INVITE, while it lives.
    pub(super) reinvite_transaction: Option<TransactionId>,
    pub(super) reinvite: Option<Reinvite>,
    /// Media the edge wants as soon as the dialog is free.
    pub(super) wanted: Option<(LocalMedia, Purpose)>,
    pub(super) glares: u32,
    pub(super) unacknowledged: Option<Unacknowledged>,
    pub(super) bye: Option<TransactionId>,
    /// Hang up as soon as the ACK is here.
    pub(super) bye_wanted: bool,
    /// `Ended` was told.
    pub(super) ended: bool,
    /// Why we end it, for the Reason of CANCEL and BYE.
    pub(super) cause: LegCause,
    /// Our ACKs by CSeq and To tag, for retransmitted 2xx.
    pub(super) acks: BTreeMap<(u32, String), (Flow, Vec<u8>)>,
    pub(super) session: Option<Session>,
    pub(super) credentials: Option<Credentials>,
    /// The far end takes UPDATE.
    pub(super) takes_update: bool,
    /// An UPDATE of ours that refreshes the session.
    pub(super) refresh: Option<Refresh>,
    /// What we do about reliable provisional responses.
    pub(super) rel100: Rel100,
    /// Ours, while we are called.
    pub(super) reliable: Reliable,
    /// The far ends by To-tag, while we call.
    pub(super) early: BTreeMap<String, Early>,
}

/// The identity of a dialog at its start.
pub(super) struct Parties {
    pub(super) call_id: String,
    /// With our tag.
    pub(super) local: Address,
    pub(super) remote: Address,
    pub(super) target: Uri,
}

impl Dialog {
    /// A dialog that begins.
    #[expect(clippy::too_many_arguments, reason = "each is one fact, and there are two callers")]
    pub(super) fn new(
        config: &SipConfig,
        random: &mut Random,
        key: DialogKey,
        role: Role,
        peer: Peer,
        flow: Flow,
        parties: Parties,
        phase: Phase,
    ) -> Self {
        Self {
            key,
            role,
            peer,
            flow,
            call_id: parties.call_id,
            local: parties.local,
            remote: parties.remote,
            target: parties.target,
            routes: Vec::new(),
            // Far below 2^31, with room to count (RFC 3261 section 8.1.1.5).
            local_cseq: u32::try_from(random.below(1 << 24)).unwrap_or(1),
            remote_cseq: None,
            // Numbers beyond 53 bits are not safe in every peer's parser.
            negotiation: Negotiation::new(
                random.below(1 << 53),
                config.allow_loopback,
                config.keying(flow),
                random.master_key(),
            ),
            phase,
            invite: None,
            reinvite_transaction: None,
            reinvite: None,
            wanted: None,
            glares: 0,
            unacknowledged: None,
            bye: None,
            bye_wanted: false,
            ended: false,
            cause: LegCause::LocalHangUp,
            acks: BTreeMap::new(),
            session: None,
            credentials: None,
            takes_update: false,
            refresh: None,
            rel100: Rel100::default(),
            reliable: Reliable::default(),
            early: BTreeMap::new(),
        }
    }

    /// Our tag.
    pub(super) fn local_tag(&self) -> &str {
        self.local.tag().unwrap_or_default()
    }

    /// Whether `tag` is the far end's.
    pub(super) fn is_remote_tag(&self, tag: Option<&str>) -> bool {
        self.remote.tag() == tag
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.ended
            && self.invite.is_none()
            && self.reinvite_transaction.is_none()
            && self.bye.is_none()
            && !self.bye_wanted
            && self.unacknowledged.is_none()
    }

    /// Whether a request's CSeq is new; remembers it.
    pub(super) fn advances(&mut self, cseq: u32) -> bool {
        let grows = self.remote_cseq.is_none_or(|last| cseq > last);
        if grows {
            self.remote_cseq = Some(cseq);
        }
        grows
    }

    /// Learns the far end's Contact (target refresh).
    pub(super) fn refresh_target(&mut self, head: &Head) {
        if let Some(super::message::Contacts::List(contacts)) = head.contacts()
            && let Some(contact) = contacts.into_iter().find(|contact| contact.uri.is_sip())
        {
            self.target = contact.uri;
        }
    }

    /// A request within the dialog. `cseq` is given for ACK only; others count on.
    pub(super) fn request(
        &mut self,
        config: &SipConfig,
        random: &mut Random,
        method: Method,
        cseq: Option<u32>,
    ) -> (Flow, Request) {
        let cseq = cseq.unwrap_or_else(|| {
            self.local_cseq += 1;
            self.local_cseq
        });
        let mut uri = self.target.clone().without_headers();
        let mut routes = self.routes.clone();
        if routes.first().is_some_and(|first| !first.uri.loose) {
            // A strict router wants itself in the Request-URI (RFC 3261 section 12.2.1.1).
            let first = routes.remove(0);
            routes.push(Address::new(std::mem::replace(&mut uri, first.uri.without_headers())));
        }
        let flow = self.next_hop(config);
        let mut head = Head {
            vias: vec![via(config, random, flow)],
            from: self.local.clone(),
            to: self.remote.clone(),
            call_id: self.call_id.clone(),
            cseq,
            method,
            fields: Vec::new(),
            body: Vec::new(),
        };
        for route in &routes {
            head.push_address("Route", route);
        }
        (flow, Request { uri, max_forwards: Some(70), head })
    }

    fn next_hop(&self, config: &SipConfig) -> Flow {
        if self.peer == Peer::User || self.flow.transport.is_stream() {
            return self.flow;
        }
        let hop = self.routes.first().map_or(&self.target, |route| &route.uri);
        let address = config.resolve(hop);
        let allowed =
            address.filter(|address| super::offer_answer::is_reachable(address.ip(), config.allow_loopback));
        match allowed {
            Some(peer) => Flow { transport: transport_of(hop), peer, connection: 0 },
            None => self.flow,
        }
    }
}

/// Learns what a response establishes: target, route set, flow.
pub(super) fn establish(dialog: &mut Dialog, flow: Flow, response: &Response) {
    dialog.refresh_target(&response.head);
    dialog.learn_methods(&response.head);
    dialog.routes = response.head.addresses("Record-Route").unwrap_or_default();
    dialog.routes.reverse();
    if dialog.flow.transport.may_become(flow.transport) {
        dialog.flow = flow;
    }
}

/// The transport that a URI asks for.
pub(super) fn transport_of(uri: &Uri) -> Transport {
    match uri.transport.as_deref() {
        Some("tcp") => Transport::Tcp,
        Some("tls") => Transport::Tls,
        Some(_) | None => Transport::Udp,
    }
}

/// Our address on a transport.
pub(super) fn own_address(config: &SipConfig, transport: Transport) -> std::net::SocketAddr {
    match transport {
        Transport::Udp => config.advertised,
        Transport::Tcp => config.advertised_tcp.unwrap_or(config.advertised),
        Transport::Tls => config.advertised_tls.unwrap_or(config.advertised),
    }
}

/// A Via with a fresh branch.
pub(super) fn via(config: &SipConfig, random: &mut Random, flow: Flow) -> Via {
    let branch = format!("{}{}", super::header::COOKIE, random.token());
    Via::ours(flow.transport, own_address(config, flow.transport), &branch)
}

/// Our Contact on a flow.
pub(super) fn contact(config: &SipConfig, user: Option<&Pii<String>>, flow: Flow) -> Address {
    let address = own_address(config, flow.transport);
    Address::new(Uri::of(Some(&config.identity(user)), address, flow.transport))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialog(routes: &[&str]) -> Dialog {
        let uri = |text: &str| Uri::parse(text).unwrap();
        let parties = Parties {
            call_id: "c".to_owned(),
            local: Address::new(uri("sip:us@edge")).with_tag("l"),
            remote: Address::new(uri("sip:them@192.0.2.1")).with_tag("r"),
            target: uri("sip:them@192.0.2.7:5070"),
        };
        let config = SipConfig::new("198.51.100.1:5060".parse().unwrap(), "edge");
        let flow = Flow { transport: Transport::Udp, peer: "192.0.2.1:5060".parse().unwrap(), connection: 0 };
        let mut dialog = Dialog::new(
            &config,
            &mut Random::new(1),
            DialogKey(1),
            Role::Uac,
            Peer::Address,
            flow,
            parties,
            Phase::Confirmed,
        );
        dialog.routes = routes.iter().map(|route| Address::new(uri(route))).collect();
        dialog
    }

    /// Next hop, Request-URI and Route lines of a BYE.
    fn bye(dialog: &mut Dialog) -> (String, String, Vec<String>) {
        let config = SipConfig::new("198.51.100.1:5060".parse().unwrap(), "edge");
        let (flow, request) = dialog.request(&config, &mut Random::new(1), Method::Bye, None);
        let routes = request.head.all("Route").map(str::to_owned).collect();
        (flow.peer.to_string(), request.uri.text, routes)
    }

    #[test]
    fn requests_go_to_the_contact_or_along_the_route_set() {
        let to = |routes: &[&str]| bye(&mut dialog(routes));
        let text = |peer: &str, uri: &str, routes: &[&str]| {
            let routes = routes.iter().map(|route| (*route).to_owned()).collect();
            (peer.to_owned(), uri.to_owned(), routes)
        };
        assert_eq!(to(&[]), text("192.0.2.7:5070", "sip:them@192.0.2.7:5070", &[]));
        assert_eq!(
            to(&["sip:192.0.2.9;lr", "sip:p2;lr"]),
            text("192.0.2.9:5060", "sip:them@192.0.2.7:5070", &["<sip:192.0.2.9;lr>", "<sip:p2;lr>"])
        );
        assert_eq!(
            to(&["sip:192.0.2.9", "sip:p2;lr"]),
            text("192.0.2.9:5060", "sip:192.0.2.9", &["<sip:p2;lr>", "<sip:them@192.0.2.7:5070>"])
        );
    }

    #[test]
    fn headers_of_a_contact_are_no_part_of_a_request_uri() {
        for (contact, written) in [
            ("sip:them@192.0.2.7?Replaces=x", "sip:them@192.0.2.7"),
            ("sip:a?b@192.0.2.7;lr?Subject=x&To=y", "sip:a?b@192.0.2.7;lr"),
            ("sip:a?b@192.0.2.7", "sip:a?b@192.0.2.7"),
            ("sip:192.0.2.7?R", "sip:192.0.2.7"),
        ] {
            let mut dialog = dialog(&[]);
            dialog.target = Uri::parse(contact).unwrap();
            assert_eq!(bye(&mut dialog).1, written, "{contact}");
        }
    }

    #[test]
    fn targets_that_nobody_can_want_are_not_followed() {
        for host in ["127.0.0.1", "255.255.255.255", "169.254.169.254", "name.example"] {
            let mut dialog = dialog(&[]);
            dialog.target = Uri::parse(&format!("sip:them@{host}")).unwrap();
            assert_eq!(bye(&mut dialog).0, "192.0.2.1:5060", "{host}");
        }
        let mut phone = dialog(&[]);
        phone.peer = Peer::User;
        assert_eq!(bye(&mut phone).0, "192.0.2.1:5060", "a phone is reached by its flow");
    }

    #[test]
    fn sequence_numbers_only_grow() {
        let mut dialog = dialog(&[]);
        let verdicts: Vec<bool> = [5, 5, 4, 6, 9].into_iter().map(|cseq| dialog.advances(cseq)).collect();
        assert_eq!(verdicts, [true, false, false, true, true]);
    }

    #[test]
    fn a_session_is_refreshed_at_half_time_or_ended_shortly_before_its_end() {
        let after = |secs, we_refresh| {
            Session { interval: Duration::from_secs(secs), we_refresh }.act_after().as_secs()
        };
        assert_eq!([after(1_800, true), after(1_800, false), after(90, false)], [900, 1_768, 60]);
    }
}
