//! SIP messages as typed values (RFC 3261 section 7), the façade over the foreign parser.
//! Bytes become [`Request`] and [`Response`] once, here; what leaves is rebuilt from those
//! values and never copied as text, so that nothing a peer wrote can add a header line.
//! Refused: what RFC 3261 calls malformed, also where an element might be liberal. This file
//! and `transaction.rs` are the only ones that name the foreign crate.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use sipx_sip as wire;

use super::header::{Address, Method, PROTOCOL, Uri, Via, is_token};

/// Largest message, in bytes: what a UDP datagram can carry at all.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most header fields. A long Via chain has about seventy.
const HEADERS_MAX: usize = 256;
/// Longest header field, folding included.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Most Via values: a request that passed more hops than Max-Forwards starts with loops.
const VIAS_MAX: usize = 71;
/// Most header lines that a 400 copies from a message that could not be parsed.
const SALVAGED_VIAS_MAX: usize = 71;

/// What every message carries.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Topmost first.
    pub(super) vias: Vec<Via>,
    /// From.
    pub(super) from: Address,
    /// To.
    pub(super) to: Address,
    /// Call-ID.
    pub(super) call_id: String,
    /// The number of CSeq, at most 2^31 - 1.
    pub(super) cseq: u32,
    /// The method of CSeq.
    pub(super) method: Method,
    /// Every other header in order, canonical name and unfolded value.
    pub(super) fields: Vec<(String, String)>,
    /// The body: bytes, whatever they are.
    pub(super) body: Vec<u8>,
}

/// What a Contact header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contacts {
    /// `*`: every binding.
    Wildcard,
    /// Addresses; none where the header is missing.
    List(Vec<Address>),
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest is credentials, numbers and names.
        write!(f, "{} {} ({} bytes)", self.cseq, self.method.as_str(), self.body.len())
    }
}

impl Head {
    /// The first value of a header.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every value of a header.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The tokens of a list header such as Supported.
    pub(super) fn tokens<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|token| !token.is_empty())
            .collect()
    }

    /// Whether a list header names `token`.
    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).iter().any(|found| found.eq_ignore_ascii_case(token))
    }

    /// A header that is one number, possibly with parameters after it.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let value = self.field(name)?.split(';').next()?.trim();
        value.parse().ok()
    }

    /// The Contact header; `None` where it is malformed.
    pub(super) fn contacts(&self) -> Option<Contacts> {
        let mut list = Vec::new();
        for value in self.all("Contact") {
            if value == "*" {
                return (self.all("Contact").count() == 1).then_some(Contacts::Wildcard);
            }
            list.extend(parse_addresses(value)?);
        }
        Some(Contacts::List(list))
    }

    /// Addresses of a list header such as Record-Route; `None` where it is malformed.
    pub(super) fn addresses(&self, name: &str) -> Option<Vec<Address>> {
        let mut list = Vec::new();
        for value in self.all(name) {
            list.extend(parse_addresses(value)?);
        }
        Some(list)
    }

    /// The media type of the body, lower case, without parameters.
    pub(super) fn content_type(&self) -> Option<String> {
        let value = self.field("Content-Type")?;
        Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// Adds a header.
    pub(super) fn push(&mut self, name: &str, value: impl Into<String>) {
        self.fields.push((name.to_owned(), value.into()));
    }

    /// Adds an address header, one per line.
    pub(super) fn push_address(&mut self, name: &str, address: &Address) {
        self.push(name, address.print());
    }

    fn print(&self, out: &mut Vec<u8>, max_forwards: Option<u8>) {
        let mut line = |name: &str, value: &str| {
            if is_token(name) {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b": ");
                // The last gate against header injection: no control character leaves.
                out.extend(value.bytes().filter(|byte| *byte >= 0x20 && *byte != 0x7f || *byte == b'\t'));
                out.extend_from_slice(b"\r\n");
            }
        };
        for via in &self.vias {
            line("Via", &via.print());
        }
        if let Some(hops) = max_forwards {
            line("Max-Forwards", &hops.to_string());
        }
        line("From", &self.from.print());
        line("To", &self.to.print());
        line("Call-ID", &self.call_id);
        line("CSeq", &format!("{} {}", self.cseq, self.method.as_str()));
        for (name, value) in &self.fields {
            line(name, value);
        }
        line("Content-Length", &self.body.len().to_string());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The Request-URI.
    pub(super) uri: Uri,
    /// Max-Forwards, where it was written.
    pub(super) max_forwards: Option<u8>,
    /// Everything else. Its `method` is the request's own: a mismatch was refused.
    pub(super) head: Head,
}

impl Request {
    /// The bytes.
    pub(super) fn print(&self) -> Vec<u8> {
        let mut out = format!("{} {} SIP/2.0\r\n", self.head.method.as_str(), self.uri.text).into_bytes();
        self.head.print(&mut out, Some(self.max_forwards.unwrap_or(70)));
        out
    }

    /// Notes the real source in the topmost Via.
    pub(super) fn stamp(&mut self, source: SocketAddr) {
        if let Some(via) = self.head.vias.first_mut() {
            via.stamp(source);
        }
    }

    /// A response to it, without a body: Via, From, To, Call-ID and CSeq are its own
    /// (RFC 3261 section 8.2.6), `to_tag` is added where To has none.
    pub(super) fn response(&self, status: u16, to_tag: Option<&str>) -> Response {
        let mut to = self.head.to.clone();
        if let (None, Some(tag)) = (to.tag(), to_tag) {
            to = to.with_tag(tag);
        }
        Response {
            status,
            head: Head {
                vias: self.head.vias.clone(),
                from: self.head.from.clone(),
                to,
                call_id: self.head.call_id.clone(),
                cseq: self.head.cseq,
                method: self.head.method.clone(),
                fields: Vec::new(),
                body: Vec::new(),
            },
        }
    }

    /// As the foreign transaction machines want it.
    pub(super) fn to_wire(&self) -> Option<wire::Request> {
        match parse_wire(self.print()).ok()? {
            wire::Message::Request(request) => Some(request),
            wire::Message::Response(_) => None,
        }
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// 100 to 699.
    pub(super) status: u16,
    /// Everything else.
    pub(super) head: Head,
}

impl Response {
    /// The bytes.
    pub(super) fn print(&self) -> Vec<u8> {
        let mut out = format!("SIP/2.0 {} {}\r\n", self.status, reason(self.status)).into_bytes();
        self.head.print(&mut out, None);
        out
    }

    /// As the foreign transaction machines want it.
    pub(super) fn to_wire(&self) -> Option<wire::Response> {
        match parse_wire(self.print()).ok()? {
            wire::Message::Response(response) => Some(response),
            wire::Message::Request(_) => None,
        }
    }
}

/// A parsed and valid message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A request that deserves this answer. The bytes are complete and stateless.
    #[error("refused with {status}")]
    Refused {
        /// 400, 413, 416 or 505.
        status: u16,
        /// What to send back.
        response: Vec<u8>,
    },
    /// A malformed response or something without a usable Via: never answered.
    #[error("dropped")]
    Dropped,
}

fn parse_wire(bytes: Vec<u8>) -> Result<wire::Message, wire::error::ParseError> {
    let limits = wire::Limits {
        max_message_bytes: MESSAGE_BYTES_MAX,
        max_body_bytes: MESSAGE_BYTES_MAX,
        max_headers: HEADERS_MAX,
        max_header_bytes: HEADER_BYTES_MAX,
        max_folding_lines: 16,
    };
    wire::parse_datagram(bytes.into(), &limits)
}

/// Parses one datagram or one framed message. Octets after Content-Length are ignored.
pub(super) fn parse(bytes: &[u8], source: SocketAddr) -> Result<Message, Fault> {
    match parse_wire(bytes.to_vec()) {
        Ok(wire::Message::Request(request)) => match request_from_wire(&request) {
            Ok(mut request) => {
                request.stamp(source);
                Ok(Message::Request(request))
            }
            Err(status) => Err(refuse(bytes, source, status)),
        },
        Ok(wire::Message::Response(response)) => {
            response_from_wire(&response).map(Message::Response).ok_or(Fault::Dropped)
        }
        Err(_) => Err(refuse(bytes, source, 400)),
    }
}

fn request_from_wire(request: &wire::Request) -> Result<Request, u16> {
    let findings = wire::validate_request(request);
    if findings.contains(&wire::Finding::UnsupportedVersion) {
        return Err(505);
    }
    let tolerated = |finding: &wire::Finding| {
        // RFC 2543 peers know no Max-Forwards; nothing is passed on, so nothing can loop.
        matches!(finding, wire::Finding::MissingRequiredHeader("Max-Forwards"))
    };
    if !findings.iter().all(tolerated) {
        return Err(400);
    }
    let uri = uri_from_wire(&request.uri);
    let head = head_from_wire(&request.headers, request.body()).ok_or(400_u16)?;
    let max_forwards = match request.headers.typed::<wire::headers::MaxForwards>() {
        None => None,
        Some(hops) => Some(hops.map_err(|_| 400_u16)?.0),
    };
    let lists = head.contacts().is_some()
        && head.addresses("Record-Route").is_some()
        && head.addresses("Route").is_some();
    if !lists {
        return Err(400);
    }
    Ok(Request { uri, max_forwards, head })
}

fn response_from_wire(response: &wire::Response) -> Option<Response> {
    if !wire::validate_response(response).is_empty() {
        return None;
    }
    let head = head_from_wire(&response.headers, response.body())?;
    Some(Response { status: response.status.code(), head })
}

fn head_from_wire(headers: &wire::Headers, body: &[u8]) -> Option<Head> {
    let mut vias = Vec::new();
    for via in headers.typed_all::<wire::Via>() {
        vias.push(via_from_wire(&via.ok()?));
    }
    if vias.iter().any(|via| via.protocol != PROTOCOL) || vias.is_empty() || vias.len() > VIAS_MAX {
        return None;
    }
    let from = address_from_wire(&headers.typed::<wire::headers::From>()?.ok()?.0);
    let to = address_from_wire(&headers.typed::<wire::headers::To>()?.ok()?.0);
    let call_id = String::from_utf8(headers.typed::<wire::CallId>()?.ok()?.0).ok()?;
    let cseq = headers.typed::<wire::CSeq>()?.ok()?;
    let typed = [
        wire::HeaderName::Via,
        wire::HeaderName::From,
        wire::HeaderName::To,
        wire::HeaderName::CallId,
        wire::HeaderName::CSeq,
        wire::HeaderName::MaxForwards,
        wire::HeaderName::ContentLength,
    ];
    let fields = headers
        .iter()
        .filter(|header| !typed.contains(header.name()))
        .map(|header| {
            let name = String::from_utf8_lossy(header.name().canonical()).into_owned();
            (name, String::from_utf8_lossy(&header.value()).into_owned())
        })
        .collect();
    Some(Head {
        vias,
        from,
        to,
        call_id,
        cseq: cseq.sequence,
        method: Method::parse(&String::from_utf8_lossy(cseq.method.as_bytes())),
        fields,
        body: body.to_vec(),
    })
}

/// A URI without brackets.
pub(super) fn parse_uri(text: &str) -> Option<Uri> {
    wire::Uri::parse(text.to_owned().into()).ok().as_ref().map(uri_from_wire)
}

fn uri_from_wire(uri: &wire::Uri) -> Uri {
    let scheme = String::from_utf8_lossy(uri.scheme().as_bytes()).to_ascii_lowercase();
    let user = if scheme == "tel" {
        uri.tel_parts().map(|parts| parts.subscriber().to_vec())
    } else {
        uri.decoded_user()
    };
    let host = match uri.host() {
        Some(wire::Host::Ip(ip)) => ip.to_string(),
        Some(wire::Host::Name(name)) => String::from_utf8_lossy(name.as_bytes()).to_ascii_lowercase(),
        None => String::new(),
    };
    Uri {
        text: String::from_utf8_lossy(&uri.to_bytes()).into_owned(),
        scheme,
        user,
        host,
        port: uri.port(),
        transport: uri.transport().map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()),
        loose: uri.params().is_some_and(|params| params.contains("lr")),
        has_headers: uri.has_headers(),
    }
}

fn address_from_wire(address: &wire::Address) -> Address {
    Address {
        display: address.display_name.as_deref().map(|name| String::from_utf8_lossy(name).into_owned()),
        uri: uri_from_wire(&address.uri),
        params: address.params.iter().map(param_from_wire).collect(),
    }
}

/// Parses a comma-separated list.
fn parse_addresses(value: &str) -> Option<Vec<Address>> {
    let list = wire::Address::parse_list(value.as_bytes(), "address").ok()?;
    Some(list.iter().map(address_from_wire).collect())
}

fn param_from_wire(param: &wire::headers::HeaderParam) -> (String, Option<String>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&param.name), param.value.as_deref().map(text))
}

fn via_from_wire(via: &wire::Via) -> Via {
    // As it is written in a message: an IPv6 address has its brackets.
    let host = via.host.to_string();
    let (name, version) = (String::from_utf8_lossy(&via.protocol), String::from_utf8_lossy(&via.version));
    Via {
        protocol: format!("{name}/{version}").to_ascii_uppercase(),
        transport: String::from_utf8_lossy(&via.transport).to_ascii_uppercase(),
        sent_by: via.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")),
        params: via.params.iter().map(param_from_wire).collect(),
    }
}

/// Builds the answer to bytes that are no valid request, from what of them can be read.
/// Without one readable Via there is nobody to answer.
fn refuse(bytes: &[u8], source: SocketAddr, status: u16) -> Fault {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(bytes.get(..head_end).unwrap_or_default());
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let mut lines = unfolded.split("\r\n");
    let start = lines.next().unwrap_or_default();
    let is_response = start.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/"));
    let is_ack = start.trim_start().starts_with("ACK ");
    if is_response || is_ack || start.is_empty() {
        return Fault::Dropped;
    }
    let (mut vias, mut rest) = (Vec::new(), String::new());
    let mut seen = Vec::new();
    for (name, value) in lines.take(HEADERS_MAX).filter_map(|line| line.split_once(':')) {
        let name = match name.trim().to_ascii_lowercase().as_str() {
            "via" | "v" => "Via",
            "from" | "f" => "From",
            "to" | "t" => "To",
            "call-id" | "i" => "Call-ID",
            "cseq" => "CSeq",
            _ => continue,
        };
        // A bare CR or LF inside a value would start a line of its own.
        let value: String = value.trim().chars().filter(|c| !c.is_control()).take(HEADER_BYTES_MAX).collect();
        if name == "Via" {
            let list = wire::Via::parse_list(value.as_bytes()).unwrap_or_default();
            vias.extend(list.iter().map(via_from_wire));
        } else if !seen.contains(&name) {
            seen.push(name);
            let _ = write!(rest, "{name}: {value}\r\n");
        }
    }
    let Some(top) = vias.first_mut() else {
        return Fault::Dropped;
    };
    top.stamp(source);
    vias.truncate(SALVAGED_VIAS_MAX);
    let mut out = format!("SIP/2.0 {status} {}\r\n", reason(status));
    for via in &vias {
        let _ = write!(out, "Via: {}\r\n", via.print());
    }
    let _ = write!(out, "{rest}Content-Length: 0\r\n\r\n");
    Fault::Refused { status, response: out.into_bytes() }
}

/// The 400 for bytes of a stream that cannot be framed, where somebody can be answered.
pub(super) fn refuse_unframed(bytes: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    match refuse(bytes, source, 400) {
        Fault::Refused { response, .. } => Some(response),
        Fault::Dropped => None,
    }
}

/// The reason phrases of the statuses in use; a class name for any other.
pub(super) const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        600 => "Busy Everywhere",
        603 => "Decline",
        _ => match status / 100 {
            1 => "Session Progress",
            2 => "Accepted",
            3 => "Redirected",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A valid request from 192.0.2.1 with these header lines.
    pub(in crate::sip) fn request(method: &str, uri: &str, cseq: u32, lines: &str) -> Request {
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{method}{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:ann@edge>;tag=f\r\nTo: <sip:ann@edge>\r\nCall-ID: c\r\n\
             CSeq: {cseq} {method}\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        match parse(text.as_bytes(), "192.0.2.1:5060".parse().unwrap()) {
            Ok(Message::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_parsed_prints_and_parses_to_the_same() {
        let one = request(
            "INVITE",
            "sip:%00b@[2001:db8::1]:5070;transport=tcp",
            7,
            "m: \"Odd, \\\"name\\\" <x>\" <sip:a;b@c;lr>;q=0.5;+sip.instance=\"<urn:x>\"\r\nk: timer,\r\n 100rel\r\n",
        );
        assert_eq!(one.uri.user.as_deref(), Some(&b"\0b"[..]));
        assert_eq!((one.uri.host.as_str(), one.uri.port), ("2001:db8::1", Some(5070)));
        assert_eq!(one.head.tokens("Supported"), ["timer", "100rel"]);
        let Some(Contacts::List(contacts)) = one.head.contacts() else { panic!("{:?}", one.head) };
        assert_eq!(contacts[0].display.as_deref(), Some("Odd, \"name\" <x>"));
        assert_eq!(contacts[0].param("+sip.instance"), Some(Some("<urn:x>")));
        let Ok(Message::Request(again)) = parse(&one.print(), "192.0.2.1:5060".parse().unwrap()) else {
            panic!("{}", String::from_utf8_lossy(&one.print()));
        };
        assert_eq!(one, again);
    }

    #[test]
    fn the_source_is_noted_where_it_differs_or_is_asked_for() {
        let text = |via: &str| {
            format!(
                "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
                 Call-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n"
            )
        };
        let via = |via: &str, source: &str| {
            let Ok(Message::Request(request)) = parse(text(via).as_bytes(), source.parse().unwrap()) else {
                panic!("{via}");
            };
            request.head.vias[0].print()
        };
        assert_eq!(via("192.0.2.1;branch=z9hG4bKa", "192.0.2.1:9"), "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa");
        assert_eq!(
            via("host.example;branch=z9hG4bKa", "192.0.2.1:9"),
            "SIP/2.0/UDP host.example;branch=z9hG4bKa;received=192.0.2.1"
        );
        assert_eq!(
            via("10.0.0.1:5060;rport;branch=z9hG4bKa", "[2001:db8::9]:9"),
            "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa;received=2001:db8::9;rport=9"
        );
        // Without its brackets nobody could tell the address from the port, and no answer would
        // find its request.
        assert_eq!(
            via("[2001:DB8::1]:5061;branch=z9hG4bKa", "[2001:db8::1]:5061"),
            "SIP/2.0/UDP [2001:db8::1]:5061;branch=z9hG4bKa"
        );
    }

    #[test]
    fn a_refusal_of_what_cannot_be_parsed_adds_no_line() {
        let bytes =
            b"OPTIONS  sip:a SIP/2.0\r\nVia: SIP/2.0/U\nDP h;branch=z9hG4bKa\r\nCall-ID: c\nEvil: 2\r\n\r\n";
        let Err(Fault::Refused { status: 400, response }) = parse(bytes, "192.0.2.1:9".parse().unwrap())
        else {
            panic!("not refused");
        };
        let text = String::from_utf8(response).unwrap();
        assert!(
            !text.contains("\nDP")
                && !text.contains("\nEvil")
                && text.starts_with("SIP/2.0 400 Bad Request\r\n"),
            "{text}"
        );
    }

    #[test]
    fn malformed_responses_and_acks_are_never_answered() {
        for start in ["SIP/2.0 99999 no", "ACK  sip:a SIP/2.0", ""] {
            let text = format!("{start}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\n\r\n");
            assert!(
                matches!(parse(text.as_bytes(), "192.0.2.1:9".parse().unwrap()), Err(Fault::Dropped)),
                "{start}"
            );
        }
    }

    /// Header lines of every kind that is read, whole and broken.
    const LINES: [&str; 18] = [
        "v: SIP/2.0/UDP h;branch=z9hG4bKv, SIP / 2.0 / TCP [2001:db8::1]:5061 ;rport",
        "Contact: \"A, \\\"b\" <sip:a?b@c;lr?X=y>;q=0.5, <tel:+1555>;x",
        "m: *",
        "Contact: sip:a@b;c",
        "Record-Route: <sip:r;lr>, <sip:s>",
        "Route: <sip:%00@r;lr>",
        "Session-Expires: 90 ; refresher=uac",
        "k: timer,\r\n 100rel",
        "Subject: \u{e9}\u{2028}\ttab",
        "Authorization: Digest username=\"a\", nonce=\"\\\\\"",
        "Max-Forwards: 0",
        "Max-Forwards: 256",
        "Expires: 4294967296",
        "X-Odd.Name!%*: ",
        "P-Asserted-Identity: \"x\" <sip:+1@b>",
        "Privacy: id;header",
        "Content-Type: application/sdp; charset=x",
        "User-to-User: 00;encoding=hex",
    ];

    proptest::proptest! {
        #[test]
        fn whatever_parses_prints_and_parses_to_the_same(
            picks in proptest::collection::vec(0..LINES.len(), 0..6),
            edits in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), "[ -~]{0,3}"), 0..3),
            response in proptest::prelude::any::<bool>(),
        ) {
            let start = if response { "SIP/2.0 200 OK" } else { "OPTIONS sip:a@b;c?d SIP/2.0" };
            let lines: String = picks.iter().map(|pick| format!("{}\r\n", LINES[*pick])).collect();
            let mut text = format!(
                "{start}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\nf: \"n\" <sip:a@b>;tag=1\r\n\
                 To: sip:b;x=y\r\ni: c@d\r\nCSeq: 1 OPTIONS\r\n{lines}l: 3\r\n\r\nabc"
            );
            for (index, piece) in edits {
                let at = index.index(text.len());
                if text.is_char_boundary(at) {
                    text.insert_str(at, &piece);
                }
            }
            let source = "192.0.2.1:5060".parse().unwrap();
            let printed = match parse(text.as_bytes(), source) {
                Ok(Message::Request(request)) => request.print(),
                Ok(Message::Response(response)) => response.print(),
                Err(_) => return Ok(()),
            };
            let (Ok(first), Ok(again)) = (parse(text.as_bytes(), source), parse(&printed, source)) else {
                panic!("we cannot read what we wrote: {}", String::from_utf8_lossy(&printed));
            };
            match (first, again) {
                (Message::Request(mut first), Message::Request(again)) => {
                    // What is sent says how far it may go, also where it did not say so.
                    first.max_forwards = first.max_forwards.or(Some(70));
                    proptest::prop_assert_eq!(first, again);
                }
                (first, again) => proptest::prop_assert_eq!(first, again),
            }
        }
    }
}
