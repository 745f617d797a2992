//! A telephone of the storm: a SIP user agent of its own, by text, that behaves and
//! misbehaves as it is told. It repeats what it must over a network that loses (RFC 3261
//! sections 13.3.1.4, 17.1), answers repeated requests alike, and never decides anything: when
//! it rings, answers or hangs up is the world's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::plan::Reinvite;
use super::wire::{self, Audio, Message, Request};

/// RFC 3261's T1, and where the doubling ends.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// 64 times T1.
const GIVE_UP: Duration = Duration::from_secs(32);

/// The edge's address, where everything goes.
pub const EDGE: &str = "192.0.2.1:5060";

/// How far a dialog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// INVITE, no final answer.
    Early,
    /// Answered.
    Up,
    /// Over.
    Over,
}

/// One dialog of a phone.
#[derive(Debug)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: String,
    /// How far it is.
    pub stand: Stand,
    /// The port of the edge that this dialog's audio goes to: which leg it is.
    pub edge_port: Option<u16>,
    /// What the edge does with its audio, as it said last.
    pub edge_audio: Option<Audio>,
    /// We have put the edge on hold.
    pub holding: bool,
    /// No audio leaves, whatever was agreed.
    pub mute: bool,
    reached: bool,
    calls: bool,
    own: String,
    far: String,
    own_tag: String,
    cseq: u32,
    version: u32,
    media: SocketAddr,
    /// Our INVITE's branch and CSeq, or the head of theirs.
    branch: String,
    invite_cseq: u32,
    invite: Vec<u8>,
    /// A re-INVITE of ours is open.
    asking: bool,
    /// The caller gave up before the answer.
    cancelled: bool,
    ack: Option<(u32, Vec<u8>)>,
    /// Tags of ours that answered: more than one is a fork.
    tags: Vec<String>,
    byes: u32,
}

impl Dialog {
    /// Whether audio leaves this phone for the edge.
    pub fn flows(&self) -> bool {
        let wanted = self.edge_audio.is_some_and(|audio| audio.receives);
        self.stand == Stand::Up && wanted && !self.mute
    }

    /// Where this phone receives.
    pub const fn media(&self) -> SocketAddr {
        self.media
    }
}

/// A timer of a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Send it again.
    Repeat(u32),
}

/// What a phone tells the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A new INVITE.
    Invited(usize),
    /// The edge took its INVITE back before the answer.
    Cancelled(usize),
    /// The edge answered our INVITE.
    Answered(usize),
    /// Audio may have begun or ceased.
    Flow(usize),
}

/// What a phone does with one input.
#[derive(Debug, Default)]
pub struct Effects {
    /// Sent to the edge.
    pub sent: Vec<Vec<u8>>,
    /// To be called back after so long.
    pub timers: Vec<(Duration, Timer)>,
    /// For the world.
    pub news: Vec<News>,
}

/// Something that is sent until it is answered.
#[derive(Debug)]
struct Repeating {
    bytes: Vec<u8>,
    interval: Duration,
    waited: Duration,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A request, by its branch and method.
    Request { branch: String, method: &'static str, dialog: usize },
    /// A final response to an INVITE, until its ACK.
    Final { call_id: String, cseq: u32, tag: String, status: u16 },
}

/// See the module.
#[derive(Debug)]
pub struct Peer {
    /// Where it receives SIP.
    pub sip: SocketAddr,
    /// Its dialogs, in order.
    pub dialogs: Vec<Dialog>,
    /// Nothing leaves it any more, and nothing reaches it.
    pub vanished: bool,
    /// What it does with a re-INVITE.
    pub reinvite: Reinvite,
    /// It acknowledges our answers.
    pub acks: bool,
    name: String,
    repeating: BTreeMap<u32, Repeating>,
    /// What was answered last, by branch and method.
    answered: BTreeMap<(String, &'static str), Vec<u8>>,
    next: u32,
}

const METHODS: [&str; 8] = ["INVITE", "ACK", "BYE", "CANCEL", "INFO", "UPDATE", "OPTIONS", "NOTIFY"];

fn known(method: &str) -> &'static str {
    METHODS.into_iter().find(|name| *name == method).unwrap_or("OPTIONS")
}

impl Peer {
    /// A phone at an address.
    pub fn new(sip: SocketAddr, name: &str) -> Self {
        Self {
            sip,
            dialogs: Vec::new(),
            vanished: false,
            reinvite: Reinvite::Answers,
            acks: true,
            name: name.to_owned(),
            repeating: BTreeMap::new(),
            answered: BTreeMap::new(),
            next: 1,
        }
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}p{}", self.sip.port(), self.next)
    }

    fn media(&self) -> SocketAddr {
        SocketAddr::new(
            self.sip.ip(),
            self.sip.port().wrapping_add(10_000).wrapping_add(2 * self.dialogs.len() as u16),
        )
    }

    /// Calls the edge.
    pub fn dial(&mut self, offers: bool, out: &mut Effects) -> usize {
        let (branch, tag, call_id) = (self.fresh("z9hG4bK"), self.fresh("t"), self.fresh("c"));
        let media = self.media();
        let own = format!("<sip:{}@{}>;tag={tag}", self.name, self.sip);
        let far = "<sip:+18005550100@192.0.2.1>".to_owned();
        let body = if offers { wire::description(media, 1, true, true) } else { String::new() };
        let invite = Request {
            method: "INVITE",
            uri: "sip:+18005550100@192.0.2.1",
            branch: &branch,
            from: &own,
            to: &far,
            call_id: &call_id,
            cseq: 1,
            own: self.sip,
            body: &body,
            body_type: "application/sdp",
        }
        .print();
        let index = self.dialogs.len();
        self.dialogs.push(Dialog {
            call_id,
            stand: Stand::Early,
            edge_port: None,
            edge_audio: None,
            holding: false,
            mute: false,
            reached: false,
            calls: true,
            own,
            far,
            own_tag: tag,
            cseq: 1,
            version: 1,
            media,
            branch: branch.clone(),
            invite_cseq: 1,
            invite: invite.clone(),
            asking: false,
            cancelled: false,
            ack: None,
            tags: Vec::new(),
            byes: 0,
        });
        self.repeat(invite, What::Request { branch, method: "INVITE", dialog: index }, out);
        index
    }

    /// The edge has a response of this phone: from now on it can take its INVITE back.
    pub fn reached(&mut self, call_id: &str) {
        if let Some(known) = self.dialogs.iter_mut().find(|known| known.call_id == call_id) {
            known.reached = true;
        }
    }

    /// Sends a provisional response, and again for every repeated INVITE.
    pub fn provisional(&mut self, dialog: usize, status: u16, out: &mut Effects) {
        let Some(known) = self.dialogs.get(dialog).filter(|known| known.stand == Stand::Early) else {
            return;
        };
        if let (false, Some(invite)) = (self.vanished, Message::parse(&known.invite)) {
            let bytes = wire::response(&invite, status, &known.own_tag, self.sip, "");
            self.answered.insert((known.branch.clone(), "INVITE"), bytes.clone());
            out.sent.push(bytes);
        }
    }

    /// Answers an INVITE of the edge, once for each of these phones.
    pub fn answer(&mut self, dialog: usize, phones: usize, out: &mut Effects) {
        let sip = self.sip;
        if self.vanished {
            return;
        }
        let mut finals = Vec::new();
        let Some(known) = self.dialogs.get_mut(dialog) else { return };
        if known.stand != Stand::Early || known.calls {
            return;
        }
        known.stand = Stand::Up;
        for phone in 0..phones {
            let tag = if phone == 0 { known.own_tag.clone() } else { format!("{}f{phone}", known.own_tag) };
            let body = wire::description(known.media, 1, true, true);
            if let Some(invite) = Message::parse(&known.invite) {
                finals.push((wire::response(&invite, 200, &tag, sip, &body), tag.clone(), invite.cseq));
            }
            known.tags.push(tag);
        }
        let call_id = known.call_id.clone();
        out.news.push(News::Flow(dialog));
        for (bytes, tag, cseq) in finals {
            let what = What::Final { call_id: call_id.clone(), cseq, tag, status: 200 };
            self.repeat(bytes, what, out);
        }
    }

    /// Refuses an INVITE of the edge.
    pub fn refuse(&mut self, dialog: usize, status: u16, out: &mut Effects) {
        let sip = self.sip;
        let Some(known) = self.dialogs.get_mut(dialog) else { return };
        if self.vanished || known.stand != Stand::Early || known.calls {
            return;
        }
        known.stand = Stand::Over;
        let Some(invite) = Message::parse(&known.invite) else { return };
        let bytes = wire::response(&invite, status, &known.own_tag, sip, "");
        let what = What::Final {
            call_id: known.call_id.clone(),
            cseq: invite.cseq,
            tag: known.own_tag.clone(),
            status,
        };
        self.repeat(bytes, what, out);
    }

    /// Hangs up by what the dialog needs.
    pub fn hang_up(&mut self, dialog: usize, out: &mut Effects) {
        if self.vanished {
            return;
        }
        let Some(known) = self.dialogs.get_mut(dialog) else { return };
        match (known.stand, known.calls) {
            (Stand::Over, _) => {}
            (Stand::Up, _) => {
                known.stand = Stand::Over;
                out.news.push(News::Flow(dialog));
                self.request(dialog, "BYE", "", "", out);
            }
            (Stand::Early, true) => {
                known.cancelled = true;
                let (branch, bytes) = (known.branch.clone(), cancel(known, self.sip));
                self.repeat(bytes, What::Request { branch, method: "CANCEL", dialog }, out);
            }
            (Stand::Early, false) => self.refuse(dialog, 480, out),
        }
    }

    /// Holds the edge, or takes it back.
    pub fn hold(&mut self, dialog: usize, held: bool, out: &mut Effects) {
        let Some(known) = self.dialogs.get_mut(dialog) else { return };
        if self.vanished || known.stand != Stand::Up || known.asking || known.holding == held {
            return;
        }
        known.holding = held;
        known.asking = true;
        known.version += 1;
        let body = wire::description(known.media, known.version, true, !held);
        self.request(dialog, "INVITE", &body, "application/sdp", out);
    }

    /// A key as INFO.
    pub fn info(&mut self, dialog: usize, key: char, out: &mut Effects) {
        if !self.vanished && self.dialogs.get(dialog).is_some_and(|known| known.stand == Stand::Up) {
            let body = format!("Signal={key}\r\nDuration=160\r\n");
            self.request(dialog, "INFO", &body, "application/dtmf-relay", out);
        }
    }

    /// A request of ours within a dialog.
    fn request(
        &mut self,
        dialog: usize,
        method: &'static str,
        body: &str,
        body_type: &str,
        out: &mut Effects,
    ) {
        let branch = self.fresh("z9hG4bK");
        let sip = self.sip;
        let Some(known) = self.dialogs.get_mut(dialog) else { return };
        known.cseq += 1;
        if method == "BYE" {
            known.byes += 1;
        }
        let bytes = Request {
            method,
            uri: "sip:192.0.2.1:5060",
            branch: &branch,
            from: &known.own,
            to: &known.far,
            call_id: &known.call_id,
            cseq: known.cseq,
            own: sip,
            body,
            body_type,
        }
        .print();
        self.repeat(bytes, What::Request { branch, method, dialog }, out);
    }

    fn repeat(&mut self, bytes: Vec<u8>, what: What, out: &mut Effects) {
        self.next += 1;
        let id = self.next;
        if !self.vanished {
            out.sent.push(bytes.clone());
        }
        out.timers.push((T1, Timer::Repeat(id)));
        self.repeating.insert(id, Repeating { bytes, interval: T1, waited: Duration::ZERO, what });
    }

    /// A timer came.
    pub fn timer(&mut self, timer: Timer, out: &mut Effects) {
        let Timer::Repeat(id) = timer;
        let Some(repeating) = self.repeating.get_mut(&id) else { return };
        repeating.waited += repeating.interval;
        if repeating.waited >= GIVE_UP || self.vanished {
            let gone = self.repeating.remove(&id);
            if let Some(Repeating { what, .. }) = gone {
                self.gave_up(&what, out);
            }
            return;
        }
        let invites = matches!(repeating.what, What::Request { method: "INVITE", .. });
        repeating.interval *= 2;
        if !invites {
            repeating.interval = repeating.interval.min(T2);
        }
        out.timers.push((repeating.interval, timer));
        out.sent.push(repeating.bytes.clone());
    }

    fn gave_up(&mut self, what: &What, out: &mut Effects) {
        let dialog = match what {
            What::Request { dialog, .. } => Some(*dialog),
            What::Final { call_id, status, .. } if *status < 300 => {
                self.dialogs.iter().position(|known| known.call_id == *call_id)
            }
            What::Final { .. } => None,
        };
        // Who never hears again from the far end takes the call as over.
        if let Some(dialog) = dialog
            && let Some(known) = self.dialogs.get_mut(dialog)
        {
            known.stand = Stand::Over;
            out.news.push(News::Flow(dialog));
        }
    }

    /// Bytes of the edge arrived.
    pub fn receive(&mut self, bytes: &[u8], late: impl Fn(usize) -> bool, out: &mut Effects) {
        let Some(message) = Message::parse(bytes).filter(|_| !self.vanished) else { return };
        if message.status.is_some() {
            self.response(&message, out);
        } else {
            self.asked(&message, late, out);
        }
    }

    fn response(&mut self, message: &Message<'_>, out: &mut Effects) {
        let status = message.status.unwrap_or(0);
        let found = self.repeating.iter().find_map(|(id, repeating)| match &repeating.what {
            What::Request { branch, method, dialog }
                if branch == message.branch() && *method == message.method =>
            {
                Some((*id, *dialog))
            }
            What::Request { .. } | What::Final { .. } => None,
        });
        let invites = message.method == "INVITE";
        if let Some((id, _)) = found
            && (status >= 200 || invites)
        {
            self.repeating.remove(&id);
        }
        let dialog = self.dialogs.iter().position(|known| known.call_id == message.call_id);
        let (Some(dialog), true) = (dialog, invites && status >= 200) else { return };
        let sip = self.sip;
        let Some(known) = self.dialogs.get_mut(dialog) else { return };
        if status >= 300 {
            let bytes = ack(known, sip, message.branch(), message.to, message.cseq);
            out.sent.push(bytes);
            if known.stand == Stand::Early {
                known.stand = Stand::Over;
            }
            known.asking = false;
            return;
        }
        if let Some((cseq, bytes)) = &known.ack
            && *cseq == message.cseq
        {
            out.sent.push(bytes.clone());
            return;
        }
        if let Some(audio) = message.audio() {
            known.edge_port = Some(audio.address.port());
            known.edge_audio = Some(audio);
        }
        let first = known.stand == Stand::Early;
        if first {
            known.stand = Stand::Up;
            known.far = message.to.to_owned();
        }
        known.asking = false;
        // An answer to an INVITE without an offer is an offer, and the ACK carries ours.
        let offerless = first && !known.invite.ends_with(b"sendrecv\r\n");
        let body = if offerless { wire::description(known.media, 1, true, true) } else { String::new() };
        if self.acks {
            let branch = format!("z9hG4bKa{}{}", message.cseq, known.own_tag);
            let bytes = Request {
                method: "ACK",
                uri: "sip:192.0.2.1:5060",
                branch: &branch,
                from: &known.own,
                to: &known.far,
                call_id: &known.call_id,
                cseq: message.cseq,
                own: sip,
                body: &body,
                body_type: "application/sdp",
            }
            .print();
            known.ack = Some((message.cseq, bytes.clone()));
            out.sent.push(bytes);
        }
        let leaves = known.cancelled && known.stand == Stand::Up;
        out.news.push(if first { News::Answered(dialog) } else { News::Flow(dialog) });
        if leaves {
            self.hang_up(dialog, out);
        }
    }

    fn asked(&mut self, message: &Message<'_>, late: impl Fn(usize) -> bool, out: &mut Effects) {
        let method = known(message.method);
        if method == "ACK" {
            self.repeating.retain(|_, repeating| match &repeating.what {
                What::Final { call_id, cseq, tag, status } => {
                    let ours = *call_id == message.call_id && *cseq == message.cseq;
                    !(ours && (*status >= 300 || *tag == message.to_tag()))
                }
                What::Request { .. } => true,
            });
            return;
        }
        let key = (message.branch().to_owned(), method);
        if let Some(bytes) = self.answered.get(&key) {
            if !bytes.is_empty() {
                out.sent.push(bytes.clone());
            }
            return;
        }
        let dialog = self.dialogs.iter().position(|known| known.call_id == message.call_id);
        let mut reply = |peer: &mut Self, status: u16, tag: &str, body: &str| {
            let bytes = wire::response(message, status, tag, peer.sip, body);
            peer.answered.insert(key.clone(), bytes.clone());
            out.sent.push(bytes);
        };
        match (method, dialog) {
            ("INVITE", None) if message.to_tag().is_empty() => {
                self.answered.insert(key, Vec::new());
                self.invited(message, out);
            }
            ("INVITE", Some(dialog)) if !message.to_tag().is_empty() => {
                self.answered.insert(key, Vec::new());
                self.reinvited(dialog, message, out);
            }
            ("INVITE", Some(_)) => {}
            ("CANCEL", Some(dialog)) => {
                let tag = self.dialogs.get(dialog).map_or_else(String::new, |known| known.own_tag.clone());
                reply(self, 200, &tag, "");
                self.taken_back(dialog, message, late(dialog), out);
            }
            ("BYE", Some(dialog)) => {
                let Some(known) = self.dialogs.get_mut(dialog) else { return };
                // A second phone that answered has a dialog of its own.
                let fork = known.tags.iter().skip(1).any(|tag| tag == message.to_tag());
                if !fork {
                    known.stand = Stand::Over;
                }
                known.tags.retain(|tag| tag != message.to_tag());
                let call_id = known.call_id.clone();
                reply(self, 200, "", "");
                out.news.push(News::Flow(dialog));
                // A BYE says as well that the answer arrived.
                self.repeating.retain(|_, repeating| {
                    !matches!(&repeating.what, What::Final { call_id: of, tag, .. }
                        if *of == call_id && *tag == message.to_tag())
                });
            }
            ("BYE", None) => reply(self, 481, "none", ""),
            ("INFO" | "UPDATE" | "OPTIONS", _) => reply(self, 200, "none", ""),
            _ => {}
        }
    }

    fn invited(&mut self, message: &Message<'_>, out: &mut Effects) {
        let tag = self.fresh("t");
        let index = self.dialogs.len();
        let audio = message.audio();
        self.dialogs.push(Dialog {
            call_id: message.call_id.to_owned(),
            stand: Stand::Early,
            edge_port: audio.map(|audio| audio.address.port()),
            edge_audio: audio,
            holding: false,
            mute: false,
            reached: false,
            calls: false,
            own: format!("{};tag={tag}", message.to),
            far: message.from.to_owned(),
            own_tag: tag,
            cseq: 100,
            version: 1,
            media: self.media(),
            branch: message.branch().to_owned(),
            invite_cseq: message.cseq,
            invite: Self::copy(message),
            asking: false,
            cancelled: false,
            ack: None,
            tags: Vec::new(),
            byes: 0,
        });
        out.news.push(News::Invited(index));
    }

    /// The head of an INVITE, as far as an answer needs it.
    fn copy(message: &Message<'_>) -> Vec<u8> {
        let mut text = format!("INVITE {} SIP/2.0\r\n", message.uri);
        for via in &message.vias {
            text.push_str("Via: ");
            text.push_str(via);
            text.push_str("\r\n");
        }
        let cseq = message.cseq;
        text.push_str(&format!(
            "From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} INVITE\r\n\r\n",
            message.from, message.to, message.call_id
        ));
        text.into_bytes()
    }

    fn reinvited(&mut self, dialog: usize, message: &Message<'_>, out: &mut Effects) {
        let (sip, policy) = (self.sip, self.reinvite);
        let Some(known) = self.dialogs.get_mut(dialog) else { return };
        let status = match (known.stand, policy) {
            (Stand::Over | Stand::Early, _) => 481,
            (Stand::Up, _) if known.asking => 491,
            (Stand::Up, Reinvite::Refuses(status)) => status,
            (Stand::Up, Reinvite::Ignores) => return,
            (Stand::Up, Reinvite::Answers) => 200,
        };
        let mut body = String::new();
        if status == 200
            && let Some(audio) = message.audio()
        {
            known.edge_audio = Some(audio);
            known.version += 1;
            body =
                wire::description(known.media, known.version, audio.receives, audio.sends && !known.holding);
            out.news.push(News::Flow(dialog));
        }
        let what = What::Final {
            call_id: known.call_id.clone(),
            cseq: message.cseq,
            tag: message.to_tag().to_owned(),
            status,
        };
        let bytes = wire::response(message, status, "", sip, &body);
        self.repeat(bytes, what, out);
    }

    /// CANCEL: 487, unless the answer has left or this phone answers all the same.
    fn taken_back(&mut self, dialog: usize, message: &Message<'_>, late: bool, out: &mut Effects) {
        let Some(known) = self.dialogs.get_mut(dialog) else { return };
        if known.stand != Stand::Early
            || known.branch != message.branch()
            || known.invite_cseq != message.cseq
        {
            return;
        }
        if late {
            self.answer(dialog, 1, out);
            return;
        }
        self.refuse(dialog, 487, out);
        out.news.push(News::Cancelled(dialog));
    }

    /// The phone is gone.
    pub fn vanish(&mut self, out: &mut Effects) {
        self.vanished = true;
        self.repeating.clear();
        for (index, known) in self.dialogs.iter_mut().enumerate() {
            known.mute = true;
            out.news.push(News::Flow(index));
        }
    }

    /// Dialogs that are not over, forks included.
    pub fn open(&self) -> usize {
        if self.vanished {
            return 0;
        }
        // An INVITE that nothing was answered to cannot be taken back (RFC 3261 section 9.1).
        let left = |known: &&Dialog| match known.stand {
            Stand::Over => false,
            Stand::Up => true,
            Stand::Early => known.calls || known.reached,
        };
        let dialogs = self.dialogs.iter().filter(left).count();
        let forks: usize = self
            .dialogs
            .iter()
            .map(|known| known.tags.iter().filter(|tag| **tag != known.own_tag).count())
            .sum();
        dialogs + forks
    }

    /// Answers that are still waiting for their ACK.
    pub fn unacknowledged(&self) -> usize {
        let waiting =
            |repeating: &&Repeating| matches!(repeating.what, What::Final { status, .. } if status < 300);
        if self.vanished { 0 } else { self.repeating.values().filter(waiting).count() }
    }
}

fn cancel(known: &Dialog, own: SocketAddr) -> Vec<u8> {
    Request {
        method: "CANCEL",
        uri: "sip:+18005550100@192.0.2.1",
        branch: &known.branch,
        from: &known.own,
        to: &known.far,
        call_id: &known.call_id,
        cseq: known.invite_cseq,
        own,
        body: "",
        body_type: "",
    }
    .print()
}

/// The ACK of a refusal belongs to its INVITE (RFC 3261 section 17.1.1.3).
fn ack(known: &Dialog, own: SocketAddr, branch: &str, to: &str, cseq: u32) -> Vec<u8> {
    Request {
        method: "ACK",
        uri: "sip:+18005550100@192.0.2.1",
        branch,
        from: &known.own,
        to,
        call_id: &known.call_id,
        cseq,
        own,
        body: "",
        body_type: "",
    }
    .print()
}
