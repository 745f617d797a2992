//! The values that SIP headers are made of: methods, URIs, addresses, Vias. Typed on the way
//! in, printed from their types on the way out (RFC 3261 sections 19, 20, 25). They know how
//! to print themselves and nothing of any message.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::Transport;

/// The magic cookie of RFC 3261 section 8.1.1.7.
pub(super) const COOKIE: &str = "z9hG4bK";

/// A request method.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Options,
    Update,
    /// Known to the RFCs, not offered here: 405.
    Known(&'static str),
    /// Never heard of: 501.
    Unknown(String),
}

impl Method {
    pub(super) fn parse(text: &str) -> Self {
        const KNOWN: [&str; 8] =
            ["INFO", "PRACK", "SUBSCRIBE", "NOTIFY", "REFER", "MESSAGE", "PUBLISH", "PING"];
        match text {
            "INVITE" => Self::Invite,
            "ACK" => Self::Ack,
            "BYE" => Self::Bye,
            "CANCEL" => Self::Cancel,
            "REGISTER" => Self::Register,
            "OPTIONS" => Self::Options,
            "UPDATE" => Self::Update,
            other => KNOWN
                .iter()
                .find(|known| **known == other)
                .map_or_else(|| Self::Unknown(other.to_owned()), |known| Self::Known(known)),
        }
    }

    /// The method token.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Register => "REGISTER",
            Self::Options => "OPTIONS",
            Self::Update => "UPDATE",
            Self::Known(token) => token,
            Self::Unknown(token) => token,
        }
    }
}

/// A `;name=value` list, in order. Values are unquoted.
pub(super) type Params = Vec<(String, Option<String>)>;

/// A URI: its exact text, and its parts where the scheme is `sip`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Uri {
    /// As it was written, printable ASCII without space, `<`, `>` or `"`.
    pub(super) text: String,
    /// `sip`, `sips`, `tel` or another, lower case.
    pub(super) scheme: String,
    /// The user part, percent-decoded: bytes, because `%00` is a legal user.
    pub(super) user: Option<Vec<u8>>,
    /// The host, lower case, an IPv6 address without brackets.
    pub(super) host: String,
    /// The port, where it was written.
    pub(super) port: Option<u16>,
    /// The `transport` parameter, lower case.
    pub(super) transport: Option<String>,
    /// Whether it has a `;lr` parameter.
    pub(super) loose: bool,
    /// Whether it has `?headers`, which nothing here ever obeys.
    pub(super) has_headers: bool,
}

impl Uri {
    /// Parses a URI without brackets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        super::message::parse_uri(text)
    }

    /// A `sip:` URI of this address.
    pub(super) fn of(user: Option<&str>, address: SocketAddr, transport: Transport) -> Self {
        let parameter = transport.parameter();
        let transport = parameter.map(|transport| format!(";transport={transport}")).unwrap_or_default();
        let user_at = user.map(|user| format!("{}@", escape_user(user))).unwrap_or_default();
        Self {
            text: format!("sip:{user_at}{address}{transport}"),
            scheme: "sip".to_owned(),
            user: user.map(|user| user.as_bytes().to_vec()),
            host: address.ip().to_string(),
            port: Some(address.port()),
            transport: parameter.map(str::to_owned),
            loose: false,
            has_headers: false,
        }
    }

    /// The same without `?headers`: a Contact may carry them, a Request-URI must not
    /// (RFC 3261 section 19.1.1).
    pub(super) fn without_headers(mut self) -> Self {
        // A `?` before the `@` is part of the user's name.
        let host = self.text.rfind('@').unwrap_or_default();
        if let (true, Some(at)) = (self.has_headers, self.text.get(host..).and_then(|rest| rest.find('?'))) {
            self.text.truncate(host + at);
            self.has_headers = false;
        }
        self
    }

    /// Whether it is `sip:` (not `sips:`, which promises TLS to the last hop).
    pub(super) fn is_sip(&self) -> bool {
        self.scheme == "sip"
    }

    /// The user part as text, where it is UTF-8.
    pub(super) fn user_text(&self) -> Option<&str> {
        self.user.as_deref().and_then(|user| std::str::from_utf8(user).ok())
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A user part is somebody's number.
        write!(f, "{}:[redacted]@{}", self.scheme, self.host)
    }
}

/// Percent-escapes what RFC 3261 section 25.1 does not allow in a user part.
fn escape_user(user: &str) -> String {
    let mut escaped = String::with_capacity(user.len());
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// A name-addr or addr-spec with its parameters (From, To, Contact, Route).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Display name, unquoted.
    pub(super) display: Option<String>,
    /// The URI.
    pub(super) uri: Uri,
    /// Header parameters.
    pub(super) params: Params,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A display name is somebody's name.
        write!(f, "<{:?}>", self.uri)
    }
}

impl Address {
    /// A bare URI.
    pub(super) const fn new(uri: Uri) -> Self {
        Self { display: None, uri, params: Vec::new() }
    }

    /// The same with a tag.
    pub(super) fn with_tag(mut self, tag: &str) -> Self {
        self.params.retain(|(name, _)| !name.eq_ignore_ascii_case("tag"));
        self.params.push(("tag".to_owned(), Some(tag.to_owned())));
        self
    }

    /// A parameter's value; `Some(None)` for a bare flag.
    pub(super) fn param(&self, name: &str) -> Option<Option<&str>> {
        find(&self.params, name)
    }

    /// The tag.
    pub(super) fn tag(&self) -> Option<&str> {
        self.param("tag").flatten()
    }

    /// As it goes on the wire.
    pub(super) fn print(&self) -> String {
        let mut out = String::new();
        if let Some(display) = &self.display {
            out.push_str(&quote(display));
            out.push(' ');
        }
        let _ = write!(out, "<{}>", self.uri.text);
        print_params(&mut out, &self.params);
        out
    }
}

fn find<'a>(params: &'a Params, name: &str) -> Option<Option<&'a str>> {
    params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_deref())
}

/// Whether `text` is a token (RFC 3261 section 25.1).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

fn print_params(out: &mut String, params: &Params) {
    for (name, value) in params.iter().filter(|(name, _)| is_token(name)) {
        let _ = write!(out, ";{name}");
        if let Some(value) = value {
            // `received` carries an IPv6 address, which is no token and takes no quotes.
            let bare =
                is_token(value) || value.bytes().all(|b| b.is_ascii_hexdigit() || b":.[]".contains(&b));
            let value = if bare && !value.is_empty() { value.clone() } else { quote(value) };
            let _ = write!(out, "={value}");
        }
    }
}

/// What every Via names.
pub(super) const PROTOCOL: &str = "SIP/2.0";

/// One Via value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Via {
    /// `SIP/2.0`; another version only in the refusal of it.
    pub(super) protocol: String,
    /// Upper case.
    pub(super) transport: String,
    /// `host` or `host:port` as it was written, IPv6 in brackets.
    pub(super) sent_by: String,
    /// Its parameters.
    pub(super) params: Params,
}

impl Via {
    /// Ours, for a new branch.
    pub(super) fn ours(transport: Transport, sent_by: SocketAddr, branch: &str) -> Self {
        Self {
            protocol: PROTOCOL.to_owned(),
            transport: transport.name().to_owned(),
            sent_by: sent_by.to_string(),
            params: vec![("branch".to_owned(), Some(branch.to_owned())), ("rport".to_owned(), None)],
        }
    }

    /// The branch.
    pub(super) fn branch(&self) -> Option<&str> {
        find(&self.params, "branch").flatten()
    }

    /// The branch, where it identifies a transaction: the cookie and something after it.
    /// The bare cookie is as good as no branch at all.
    pub(super) fn unique_branch(&self) -> Option<&str> {
        self.branch().filter(|branch| {
            branch.len() > COOKIE.len()
                && branch.get(..COOKIE.len()).is_some_and(|start| start.eq_ignore_ascii_case(COOKIE))
        })
    }

    /// RFC 3261 section 18.2.1 and RFC 3581: notes where the request really came from.
    pub(super) fn stamp(&mut self, source: SocketAddr) {
        let (asks, known) = (find(&self.params, "rport").is_some(), source.ip().to_canonical());
        let sent_host = self.sent_by.parse::<SocketAddr>().map(|address| address.ip());
        let sent_ip = sent_host.or_else(|_| self.sent_by.trim_matches(['[', ']']).parse::<IpAddr>());
        self.params.retain(|(name, _)| {
            !name.eq_ignore_ascii_case("received") && !name.eq_ignore_ascii_case("rport")
        });
        if asks || sent_ip.ok() != Some(known) {
            self.params.push(("received".to_owned(), Some(known.to_string())));
        }
        if asks {
            self.params.push(("rport".to_owned(), Some(source.port().to_string())));
        }
    }

    /// As it goes on the wire.
    pub(super) fn print(&self) -> String {
        let mut out = format!("{}/{} {}", self.protocol, self.transport, self.sent_by);
        print_params(&mut out, &self.params);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_do_not_show_in_debug() {
        let uri = Uri::parse("sip:+15555550142@h").unwrap();
        let address = Address { display: Some("Ann Example".to_owned()), uri, params: Vec::new() };
        assert_eq!(format!("{address:?}"), "<sip:[redacted]@h>");
    }

    #[test]
    fn users_are_escaped_where_they_are_not_safe() {
        let at = "192.0.2.1:5060".parse().unwrap();
        for (user, text) in [
            ("+15555550142", "sip:+15555550142@192.0.2.1:5060"),
            ("a@b>\r\nEvil: x", "sip:a%40b%3E%0D%0AEvil%3A%20x@192.0.2.1:5060"),
            ("é", "sip:%C3%A9@192.0.2.1:5060"),
        ] {
            let uri = Uri::of(Some(user), at, Transport::Udp);
            assert_eq!(uri.text, text);
            assert_eq!(Uri::parse(&uri.text).unwrap().user_text(), Some(user));
        }
    }
}
