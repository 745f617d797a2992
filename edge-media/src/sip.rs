//! SIP for a back-to-back user agent: messages, transactions, dialogs, offer/answer,
//! registrar and trunks, as one sans-IO machine (RFC 3261, 6026, 3264, 3581, 7616).
//! It is driven by bytes and time and answers with bytes and events. It opens no socket,
//! resolves no name, reads no clock and never proxies: nothing is copied between legs. It is
//! not the place for who may call whom at what time; it knows trunks, users and secrets.
//!
//! In reading order: `header` and `message` (bytes to values and back), `stream` (framing on
//! TCP), `transaction` and `deadlines` (retransmission and timers), `dialog`, `sdp`, `sdes` and
//! `offer_answer`, `auth`, `registrar`, `trunk`, `guard`, `room`; then the [`Stack`] itself: `stack`
//! (admission and dispatch), `certificate`, `size`, `uas`, `reliable`, `within`, `refer`, `uac`, `early`,
//! `reinvite`, `update`, `registration`, `uplink` (what is kept up with trunks).
//!
//! SDP does not leave this module: its neighbours see [`LocalMedia`] and [`RemoteMedia`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use handoff::call::outcome::LegCause;
use handoff::pii::Pii;

mod auth;
mod certificate;
mod deadlines;
mod dialog;
mod early;
mod guard;
mod header;
mod locate;
mod message;
mod offer_answer;
mod random;
mod refer;
mod registrar;
mod registration;
mod reinvite;
mod reliable;
mod room;
mod sdes;
mod sdp;
mod size;
mod stack;
mod stream;
mod transaction;
mod trunk;
mod uac;
mod uas;
mod update;
mod uplink;
mod within;

pub use auth::Secret;
pub use guard::Counters;
pub use locate::{Naptr, Srv, in_order, is_located, service_name};
pub use message::MESSAGE_BYTES_MAX;
pub use offer_answer::is_reachable;
pub use room::CallLimits;
pub use sdes::{KEY_LEN, MasterKey, SALT_LEN, SrtpKeys, SrtpPolicy, Suite};
pub use stack::Stack;
pub use trunk::{
    CertificateFault, Credentials, Rel100, SESSION_EXPIRES_SECS, SipConfig, TrunkConfig, UserConfig,
};
pub use uplink::{
    Account, EXPIRES_MAX_SECS, LastAnswer, OptionsState, RegistrationPhase, RegistrationState, Server,
    UplinkChange, UplinkConfig, UplinkNews, UplinkState, account_of, advice,
};

/// The host of a `sip:` URI that can be dialled, an IPv6 address without its brackets. `None`
/// for everything else: other schemes, and URIs with headers.
pub fn host_of(uri: &str) -> Option<String> {
    header::Uri::parse(uri).filter(|uri| uri.is_sip() && !uri.has_headers).map(|uri| uri.host)
}

/// The user part of a `sip:` URI, its escapes undone.
pub fn user_of(uri: &str) -> Option<String> {
    let user = header::Uri::parse(uri)?.user?;
    Some(String::from_utf8_lossy(&user).into_owned())
}

/// How a `sip:` URI is to be reached. `None` where it cannot be read.
pub fn dialled_over(uri: &str) -> Option<Transport> {
    header::Uri::parse(uri).map(|uri| dialog::transport_of(&uri))
}

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// One datagram, one message.
    Udp,
    /// A byte stream, framed by Content-Length.
    Tcp,
    /// The same inside TLS.
    Tls,
    /// A WebSocket that the far end opened: one message a frame (RFC 7118).
    Ws,
    /// The same inside TLS.
    Wss,
}

impl Transport {
    /// Whether messages travel on a connection, so that no network loses them and whoever sends
    /// them has shown that their address is theirs.
    pub const fn is_stream(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls | Self::Ws | Self::Wss => true,
        }
    }

    /// Whether the far end alone can open a connection: who is behind a browser has no address
    /// that could be dialled (RFC 7118 section 5.2).
    pub const fn is_opened_by_peer(self) -> bool {
        match self {
            Self::Udp | Self::Tcp | Self::Tls => false,
            Self::Ws | Self::Wss => true,
        }
    }

    /// Whether a dialog may go on by `other`: it moves to the connection that its peer uses,
    /// but never out of TLS.
    const fn may_become(self, other: Self) -> bool {
        match (self, other) {
            (Self::Udp, _)
            | (Self::Tcp, Self::Tcp | Self::Tls)
            | (Self::Tls, Self::Tls)
            | (Self::Ws, Self::Ws | Self::Wss)
            | (Self::Wss, Self::Wss) => true,
            (Self::Tcp | Self::Tls | Self::Ws | Self::Wss, _) => false,
        }
    }

    /// As a Via names it (RFC 3261 section 20.42).
    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// As the parameter of a URI; UDP is what its absence means.
    const fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Udp => None,
            Self::Tcp => Some("tcp"),
            Self::Tls => Some("tls"),
            // One parameter for both: the scheme says which (RFC 7118 section 5.5.1).
            Self::Ws | Self::Wss => Some("ws"),
        }
    }
}

/// Where bytes came from and answers go to. `connection` names one TCP connection for its
/// life (the shell counts them up from 1); 0 for UDP. A `Send` over TCP with connection 0
/// means that none is known: the shell uses one it has to that peer or connects, and reports
/// a failure with `connection_closed` and the same flow. A WebSocket is never connected to: a
/// `Send` to one that is gone is reported as such a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// How.
    pub transport: Transport,
    /// The far end.
    pub peer: SocketAddr,
    /// Which connection.
    pub connection: u64,
}

/// One dialog, from its INVITE to its end; the edge's key for a SIP leg. Even for inbound,
/// odd for outbound dialogs, so that neither side has to ask the other for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogKey(pub u64);

/// A codec that the edge speaks on a SIP leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// G.711 µ-law, payload type 0.
    Pcmu,
    /// G.711 A-law, payload type 8.
    Pcma,
}

/// Direction of a media stream as this side sees it (RFC 3264).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// We send only (the far end is on hold).
    SendOnly,
    /// We receive only (we are on hold).
    RecvOnly,
    /// Neither.
    Inactive,
}

/// What we put into an offer or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalMedia {
    /// Advertised address.
    pub ip: IpAddr,
    /// RTP port (even); RTCP is the next one.
    pub port: u16,
    /// As we see it.
    pub direction: Direction,
}

/// What was agreed with the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteMedia {
    /// Where our RTP goes, until symmetric RTP teaches better.
    pub rtp: SocketAddr,
    /// The agreed codec.
    pub codec: Codec,
    /// Payload type of telephone-event (RFC 4733), if agreed.
    pub telephone_event: Option<u8>,
    /// What we may do, after the answer: our own view.
    pub direction: Direction,
    /// What audio is sealed with; `None` in the clear.
    pub srtp: Option<SrtpKeys>,
}

/// Who an INVITE is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A configured trunk.
    Trunk(String),
    /// A registered user who authenticated.
    User(String),
}

/// Whom to dial. Only names of the configuration: no dial string comes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A registered user: every fresh contact of the AOR, newest first.
    User(String),
    /// A fixed URI of the configuration, through the named trunk or directly.
    Uri(Pii<String>),
}

/// Who an outbound INVITE is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Number or user name.
    pub user: Pii<String>,
    /// Domain of the From address, where it is not our realm.
    pub domain: Option<String>,
    /// Ask for privacy: an anonymous From and `Privacy: id`.
    pub restricted: bool,
}

/// Orders to the stack.
#[derive(Clone, Debug, PartialEq)]
pub enum SipCommand {
    /// 180 to an inbound INVITE.
    Ring(DialogKey),
    /// 183 with our description to an inbound INVITE: an answer, or an offer where it has none.
    Progress(DialogKey, LocalMedia),
    /// 200 to an inbound INVITE.
    Answer(DialogKey, LocalMedia),
    /// Final refusal of an inbound INVITE.
    Reject(DialogKey, u16),
    /// A new outbound INVITE.
    Invite {
        /// Key for the new dialog (odd, chosen by the edge, never reused).
        dialog: DialogKey,
        /// Whom.
        to: Destination,
        /// Our offer.
        local: LocalMedia,
        /// Opaque 26-character handle for `X-Warmbridge-Handoff` and `User-to-User`;
        /// registered users only.
        handle: Option<String>,
    },
    /// Re-INVITE with this media (hold, resume), as soon as the dialog is free for it. One that
    /// still waits is replaced, and only the newer one is answered.
    Reinvite(DialogKey, LocalMedia),
    /// End the dialog by what its state needs: CANCEL, BYE, or a refusal. `Ended` is told at
    /// once with this cause; what is left to do on the wire goes on without the edge.
    HangUp(DialogKey, LegCause),
    /// Answer new calls with 503 and `Retry-After` from now on, and take back what trunks'
    /// registrars have of us.
    Drain,
    /// A new outbound INVITE on behalf of somebody: what a carrier or a softphone does.
    Dial {
        /// Key for the new dialog (odd, chosen by the caller of this, never reused).
        dialog: DialogKey,
        /// Whom.
        to: Destination,
        /// Our offer.
        local: LocalMedia,
        /// The From address.
        from: Caller,
        /// What a challenge is answered with.
        credentials: Option<Credentials>,
    },
    /// Register as a phone, and stay registered; 0 seconds ends it.
    Register {
        /// The user part of the address of record, and the digest user name.
        user: String,
        /// Its password.
        password: Pii<String>,
        /// Where the registrar is (UDP).
        registrar: SocketAddr,
        /// The domain of the address of record.
        domain: String,
        /// How long.
        expires_secs: u32,
    },
}

/// What the stack tells the edge.
#[derive(Clone, Debug, PartialEq)]
pub enum SipEvent {
    /// An authorised INVITE with an acceptable offer (or none). 100 has been sent.
    Invited {
        /// Its key (even).
        dialog: DialogKey,
        /// From whom.
        origin: Origin,
        /// The caller's number or user part, where it is shown.
        caller: Option<Pii<String>>,
        /// The caller asked for privacy (RFC 3323, anonymous From).
        restricted: bool,
        /// The user part of the Request-URI: the number that was dialled.
        dialled: Pii<String>,
        /// What was offered, already intersected with what we speak.
        remote: Option<RemoteMedia>,
    },
    /// Our INVITE rings (any 101–199).
    Ringing(DialogKey),
    /// Our INVITE was answered and the answer acknowledged.
    Answered(DialogKey, RemoteMedia),
    /// Our 200 was acknowledged. Carries the media where only the ACK agreed on it.
    Confirmed(DialogKey, Option<RemoteMedia>),
    /// The dialog, early or confirmed, is over. Exactly one per dialog, and the last.
    Ended {
        /// Which.
        dialog: DialogKey,
        /// Why.
        cause: LegCause,
        /// The SIP status, where there was one.
        status: Option<u16>,
    },
    /// Our re-INVITE was answered; the media as agreed now.
    Reinvited(DialogKey, RemoteMedia),
    /// Our re-INVITE was refused, timed out or met glare to the end. Nothing changed.
    ReinviteFailed(DialogKey, u16),
    /// The peer changed the media (re-INVITE, UPDATE), and it was answered for the edge:
    /// direction mirrored, port kept.
    PeerMedia(DialogKey, RemoteMedia),
    /// A digit that the peer signalled with INFO, because it cannot send telephone-events.
    Digit(DialogKey, char),
    /// A user's set of contacts changed.
    Registered {
        /// Who.
        user: String,
        /// Contacts left; 0 is gone.
        contacts: usize,
    },
    /// How a [`SipCommand::Register`] went, and each refresh of it.
    RegisterResult {
        /// Who.
        user: String,
        /// Whether the contact is registered now.
        ok: bool,
        /// The SIP status; `None` where there was no answer.
        status: Option<u16>,
    },
}

/// What the stack wants done.
#[derive(Clone, PartialEq)]
pub enum SipOutput {
    /// Send these bytes. For TCP without a live connection, the shell connects first.
    Send(Flow, Vec<u8>),
    /// Close this connection (framing error).
    Close(Flow),
    /// Tell the edge.
    Event(SipEvent),
}

impl fmt::Debug for SipOutput {
    /// Messages hold numbers and names, so only their size is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(flow, bytes) => write!(f, "Send({flow:?}, {} bytes)", bytes.len()),
            Self::Close(flow) => f.debug_tuple("Close").field(flow).finish(),
            Self::Event(event) => f.debug_tuple("Event").field(event).finish(),
        }
    }
}
