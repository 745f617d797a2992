//! A second opinion: every message that this stack emits and the `rsip` crate can parse must
//! mean the same to it. What `rsip` cannot parse is skipped and counted.

use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};

use edge_media::sip::{Direction, SipCommand};
use handoff::call::outcome::LegCause;

use crate::world::{CARRIER, EDGE, World, media};

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn compare(bytes: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(bytes).unwrap();
    let message = rsip::SipMessage::try_from(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    match &message {
        rsip::SipMessage::Request(request) => {
            let start = format!("{} {} SIP/2.0", request.method, request.uri);
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
    assert!(field(head, "Via").unwrap().contains(&headers.branch), "{}", headers.branch);
    assert_eq!(headers.body, body.as_bytes());
    Some(())
}

struct Fields {
    call_id: String,
    cseq: (u32, String),
    from_tag: Option<String>,
    to_tag: Option<String>,
    branch: String,
    body: Vec<u8>,
}

fn message_headers(message: &rsip::SipMessage) -> Fields {
    let cseq = message.cseq_header().unwrap().typed().unwrap();
    let via = message.via_header().unwrap().typed().unwrap();
    Fields {
        call_id: message.call_id_header().unwrap().value().to_owned(),
        cseq: (cseq.seq.into(), cseq.method.to_string()),
        from_tag: message.from_header().unwrap().tag().unwrap().map(|tag| tag.to_string()),
        to_tag: message.to_header().unwrap().tag().unwrap().map(|tag| tag.to_string()),
        branch: via.branch().unwrap().to_string(),
        body: message.body().clone(),
    }
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
    let (mut read, mut skipped) = (0, 0);
    for (.., bytes) in world.wire.iter().filter(|(.., bytes)| !bytes.starts_with(b"\r\n")) {
        match compare(bytes) {
            Some(()) => read += 1,
            None => skipped += 1,
        }
    }
    println!("{read} messages compared, {skipped} that rsip cannot parse");
    assert!(read >= 19, "{read} read, {skipped} skipped");
}
