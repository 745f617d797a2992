//! SIP as the storm's peers speak it: just enough of RFC 3261 to read what the edge writes
//! and to answer it, by text. It shares no line with the stack under test, so that a mistake
//! there is not made here as well; it is no parser for anything that a stranger wrote.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// A message, borrowed from its bytes.
#[derive(Debug)]
pub struct Message<'a> {
    /// The status of a response.
    pub status: Option<u16>,
    /// The method, of a response by its CSeq.
    pub method: &'a str,
    /// The Request-URI of a request.
    pub uri: &'a str,
    /// Via values, topmost first.
    pub vias: Vec<&'a str>,
    /// From, whole.
    pub from: &'a str,
    /// To, whole.
    pub to: &'a str,
    /// Call-ID.
    pub call_id: &'a str,
    /// The number of CSeq.
    pub cseq: u32,
    /// The body.
    pub body: &'a str,
}

/// The audio of a session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audio {
    /// Where its author receives.
    pub address: SocketAddr,
    /// Its author sends.
    pub sends: bool,
    /// Its author receives.
    pub receives: bool,
}

impl<'a> Message<'a> {
    /// Reads a message of the edge or of a peer of the storm.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let start = lines.next()?;
        let mut message = Self {
            status: None,
            method: "",
            uri: "",
            vias: Vec::with_capacity(1),
            from: "",
            to: "",
            call_id: "",
            cseq: 0,
            body,
        };
        match start.strip_prefix("SIP/2.0 ") {
            Some(rest) => message.status = Some(rest.get(..3)?.parse().ok()?),
            None => message.uri = start.split(' ').nth(1)?,
        }
        for line in lines {
            let Some((name, value)) = line.split_once(": ") else { continue };
            match name {
                "Via" => message.vias.push(value),
                "From" => message.from = value,
                "To" => message.to = value,
                "Call-ID" => message.call_id = value,
                "CSeq" => {
                    let (number, method) = value.split_once(' ')?;
                    message.cseq = number.parse().ok()?;
                    message.method = method;
                }
                _ => {}
            }
        }
        Some(message)
    }

    /// The branch of the topmost Via.
    pub fn branch(&self) -> &'a str {
        self.vias.first().map_or("", |via| parameter(via, ";branch="))
    }

    /// The tag of From.
    pub fn from_tag(&self) -> &'a str {
        parameter(self.from, ";tag=")
    }

    /// The tag of To, empty where there is none.
    pub fn to_tag(&self) -> &'a str {
        parameter(self.to, ";tag=")
    }

    /// The audio of the body.
    pub fn audio(&self) -> Option<Audio> {
        let (mut ip, mut port) = (None::<IpAddr>, None::<u16>);
        let (mut sends, mut receives) = (true, true);
        for line in self.body.lines() {
            if let Some(address) = line.strip_prefix("c=IN IP4 ") {
                ip = address.trim().parse().ok();
            } else if let Some(media) = line.strip_prefix("m=audio ") {
                port = media.split(' ').next()?.parse().ok();
            } else {
                match line {
                    "a=sendonly" => receives = false,
                    "a=recvonly" => sends = false,
                    "a=inactive" => (sends, receives) = (false, false),
                    _ => {}
                }
            }
        }
        Some(Audio { address: SocketAddr::new(ip?, port?), sends, receives })
    }

    /// One line for a trace.
    pub fn summary(&self) -> String {
        let what = self.status.map_or_else(|| self.method.to_owned(), |status| format!("{status}"));
        let of = if self.status.is_some() { format!(" ({})", self.method) } else { String::new() };
        let audio = self.audio().map_or_else(String::new, |audio| {
            let direction = match (audio.sends, audio.receives) {
                (true, true) => "sendrecv",
                (true, false) => "sendonly",
                (false, true) => "recvonly",
                (false, false) => "inactive",
            };
            format!(" {} {direction}", audio.address)
        });
        format!("{what}{of} cseq {}{audio}", self.cseq)
    }
}

fn parameter<'a>(value: &'a str, name: &str) -> &'a str {
    let Some(at) = value.find(name) else { return "" };
    let rest = &value[at + name.len()..];
    rest.split([';', '>', ' ']).next().unwrap_or("")
}

/// A session description of a peer.
pub fn description(receive: SocketAddr, version: u32, sends: bool, receives: bool) -> String {
    let direction = match (sends, receives) {
        (true, true) => "sendrecv",
        (true, false) => "sendonly",
        (false, true) => "recvonly",
        (false, false) => "inactive",
    };
    let (ip, port) = (receive.ip(), receive.port());
    format!(
        "v=0\r\no=- 7 {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na={direction}\r\n"
    )
}

/// The text of a response to a request.
pub fn response(request: &Message<'_>, status: u16, tag: &str, contact: SocketAddr, body: &str) -> Vec<u8> {
    let mut text = String::with_capacity(640);
    let _ = write!(text, "SIP/2.0 {status} X\r\n");
    for via in &request.vias {
        let _ = write!(text, "Via: {via}\r\n");
    }
    let _ = write!(text, "From: {}\r\nTo: {}", request.from, request.to);
    if request.to_tag().is_empty() && status > 100 {
        let _ = write!(text, ";tag={tag}");
    }
    let _ = write!(text, "\r\nCall-ID: {}\r\nCSeq: {} {}\r\n", request.call_id, request.cseq, request.method);
    finish(text, contact, body, "application/sdp")
}

/// What a request of a peer is made of.
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The Request-URI.
    pub uri: &'a str,
    /// The branch of its Via.
    pub branch: &'a str,
    /// From, whole.
    pub from: &'a str,
    /// To, whole.
    pub to: &'a str,
    /// Call-ID.
    pub call_id: &'a str,
    /// The number of CSeq.
    pub cseq: u32,
    /// Whose request it is.
    pub own: SocketAddr,
    /// The body.
    pub body: &'a str,
    /// The type of the body.
    pub body_type: &'a str,
}

impl Request<'_> {
    /// Its text.
    pub fn print(&self) -> Vec<u8> {
        let mut text = String::with_capacity(640);
        let _ = write!(
            text,
            "{} {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n",
            self.method,
            self.uri,
            self.own,
            self.branch,
            self.from,
            self.to,
            self.call_id,
            self.cseq,
            self.method
        );
        finish(text, self.own, self.body, self.body_type)
    }
}

fn finish(mut text: String, contact: SocketAddr, body: &str, body_type: &str) -> Vec<u8> {
    let _ = write!(text, "Contact: <sip:peer@{contact}>\r\n");
    if !body.is_empty() {
        let _ = write!(text, "Content-Type: {body_type}\r\n");
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
    text.into_bytes()
}
