//! A second opinion: every message that this stack emits in any of these tests and the `rsip`
//! crate can parse must mean the same to it. What `rsip` cannot parse is skipped and counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "the headers of rsip are a hundred")]

use rsip::prelude::{HasHeaders, HeadersExt, ToTypedHeader, UntypedHeader};

use edge_media::sip::{Direction, SipCommand};
use handoff::call::outcome::LegCause;

use crate::world::{CARRIER, EDGE, World, media};

/// A URI as it was sent: `rsip` prints the names of transports in capitals.
fn small(uri: &rsip::Uri) -> String {
    let text = uri.to_string();
    match text.split_once(";transport=") {
        Some((before, after)) => format!("{before};transport={}", after.to_lowercase()),
        None => text,
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Compares one message; `false` where `rsip` cannot parse it.
fn compare(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).unwrap();
    let Ok(message) = rsip::SipMessage::try_from(bytes) else {
        return false;
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    match &message {
        rsip::SipMessage::Request(request) => {
            let start = format!("{} {} SIP/2.0", request.method, small(&request.uri));
            assert_eq!(head.lines().next().unwrap(), start);
            let hops = request.max_forwards_header().unwrap().value();
            assert_eq!(field(head, "Max-Forwards"), Some(hops));
        }
        rsip::SipMessage::Response(response) => {
            let status = head.get(8..11).unwrap();
            assert_eq!(response.status_code.to_string().get(..3), Some(status));
        }
    }
    let headers = message_headers(&message);
    assert_eq!(field(head, "Call-ID"), Some(headers.call_id.as_str()));
    let (number, method) = &headers.cseq;
    assert_eq!(field(head, "CSeq"), Some(format!("{number} {method}").as_str()));
    let tag =
        |name| field(head, name).and_then(|value| value.rsplit_once("tag=")).map(|(_, tag)| tag.to_owned());
    assert_eq!((tag("From"), tag("To")), (headers.from_tag, headers.to_tag));
    let via = field(head, "Via").unwrap();
    assert!(via.starts_with(&headers.via) && via.contains(&headers.branch), "{via}");
    for (name, uri) in [("From", &headers.from), ("To", &headers.to)] {
        let ours = field(head, name).unwrap();
        // It takes a semicolon of a user part for the end of the user.
        let cut = ours.split_once('@').is_some_and(|(user, _)| user.contains(';'));
        let same = uri.as_ref().is_some_and(|uri| ours.contains(&format!("<{uri}>")));
        assert!(cut || same, "{name}: {ours}, rsip: {uri:?}");
    }
    if let (Some(ours), Some(theirs)) = (field(head, "Contact"), &headers.contact) {
        assert!(ours.contains(&format!("<{theirs}>")), "{ours}, rsip: {theirs}");
    }
    assert_eq!(field(head, "Content-Type"), headers.content_type.as_deref());
    assert_eq!(field(head, "Content-Length"), Some(body.len().to_string().as_str()));
    assert_eq!(headers.body, body.as_bytes());
    true
}

struct Fields {
    call_id: String,
    cseq: (u32, String),
    from_tag: Option<String>,
    to_tag: Option<String>,
    from: Option<String>,
    to: Option<String>,
    via: String,
    branch: String,
    contact: Option<String>,
    content_type: Option<String>,
    body: Vec<u8>,
}

fn message_headers(message: &rsip::SipMessage) -> Fields {
    let cseq = message.cseq_header().unwrap().typed().unwrap();
    let via = message.via_header().unwrap().typed().unwrap();
    Fields {
        call_id: message.call_id_header().unwrap().value().to_owned(),
        cseq: (cseq.seq, cseq.method.to_string()),
        from: message.from_header().unwrap().typed().ok().map(|from| small(&from.uri)),
        to: message.to_header().unwrap().typed().ok().map(|to| small(&to.uri)),
        via: format!("SIP/2.0/{} {}", via.transport, via.uri.host_with_port),
        // It reads no quoted parameter of a Contact, such as the name of an instance.
        contact: message.contact_header().ok().and_then(|contact| Some(small(&contact.typed().ok()?.uri))),
        content_type: message.headers().iter().find_map(|header| match header {
            rsip::Header::ContentType(value) => Some(value.value().to_owned()),
            _ => None,
        }),
        from_tag: message.from_header().unwrap().tag().unwrap().map(|tag| tag.to_string()),
        to_tag: message.to_header().unwrap().tag().unwrap().map(|tag| tag.to_string()),
        branch: via.branch().unwrap().to_string(),
        body: message.body().clone(),
    }
}

/// Compares all of these; how many `rsip` read, and how many it cannot. What is no message, such
/// as a keep-alive, is left out.
pub(crate) fn agree<'a>(messages: impl Iterator<Item = &'a [u8]>) -> (usize, usize) {
    let (mut read, mut skipped) = (0, 0);
    for bytes in messages.filter(|bytes| !bytes.starts_with(b"\r\n")) {
        if compare(bytes) {
            read += 1;
        } else {
            skipped += 1;
        }
    }
    (read, skipped)
}

#[test]
fn rsip_reads_the_same_fields() {
    let mut world = World::edge_carrier_phone(1);
    world.register();
    let inbound = world.answered_call(1);
    world.command(EDGE, SipCommand::Reinvite(inbound, media(EDGE, Direction::SendOnly)));
    world.run(200);
    world.command(CARRIER, SipCommand::HangUp(edge_media::sip::DialogKey(1), LegCause::LocalHangUp));
    world.run(200);
    world.dial(3);
    world.run(100);
    world.command(CARRIER, SipCommand::HangUp(edge_media::sip::DialogKey(3), LegCause::LocalHangUp));
    world.run(200);
    let (read, skipped) = agree(world.wire.iter().map(|(.., bytes)| bytes.as_slice()));
    println!("{read} messages compared, {skipped} that rsip cannot parse");
    assert!(read >= 19, "{read} read, {skipped} skipped");
}
