//! Session descriptions: the input as an offer in an INVITE and in a re-INVITE, and as the
//! answer to an offer of the edge. Audio goes nowhere that it must not, an answer has the
//! m-lines of its offer, and what the edge writes it can read.

use edge_media::sip::{Direction, SipCommand};

use crate::harness::{Behaviour, Target};
use crate::targets::sip::{Rig, local};

pub(crate) const TARGET: Target = Target { name: "sdp", words: WORDS, run };

fn run(input: &[u8]) -> Behaviour {
    // Beyond this the message is refused by its size, which is another target's.
    let input = input.get(..BODY_BYTES_MAX).unwrap_or(input);
    let mut rig = Rig::new();
    if let Some(answer) = offered(&mut rig, input) {
        // Without a description the INVITE asks for an offer, and that is what came.
        let offer = if input.is_empty() { &answer } else { input };
        assert_eq!(lines(&answer), lines(offer), "an answer has the m-lines of its offer");
        let mut other = Rig::new();
        let again = offered(&mut other, &answer).expect("we accept as an offer what we answered with");
        assert_eq!(lines(&again), lines(&answer));
        other.finish();
        // Ringing is over: the same description again, inside the dialog.
        let agreed = if input.is_empty() { &answer } else { &[][..] };
        rig.receive_from_carrier(&message("ACK sip:x@198.51.100.1", ("$To", 1, "ACK"), agreed));
        rig.receive_from_carrier(&message("INVITE sip:x@198.51.100.1", ("$To", 2, "INVITE"), input));
    }
    rig.finish();
    answered(input)
}

/// The body of the 200 to an INVITE with this offer; `None` where it is refused.
fn offered(rig: &mut Rig, offer: &[u8]) -> Option<Vec<u8>> {
    let to = ("<sip:100@198.51.100.1>", 1, "INVITE");
    rig.receive_from_carrier(&message("INVITE sip:100@198.51.100.1", to, offer));
    let dialog = rig.newest()?;
    let sent = rig.order_and_see(SipCommand::Answer(dialog, local(Direction::SendRecv)));
    let answer = sent.iter().find(|bytes| bytes.starts_with(b"SIP/2.0 200"))?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    answer.get(body..).filter(|body| !body.is_empty()).map(<[u8]>::to_vec)
}

/// The edge calls, and this is the answer.
fn answered(input: &[u8]) -> Behaviour {
    let mut rig = Rig::new();
    rig.dial();
    let head = "SIP/2.0 200 OK\r\nVia: $Via\r\nFrom: $From\r\nTo: $To;tag=p1\r\nCall-ID: $Call-ID\r\nCSeq: $CSeq\r\n\
         Contact: <sip:p@192.0.2.1:5060>\r\nContent-Type: application/sdp\r\n";
    let mut bytes = format!("{head}Content-Length: {}\r\n\r\n", input.len()).into_bytes();
    bytes.extend_from_slice(input);
    rig.receive_from_carrier(&bytes);
    rig.note(&lines(input).to_string());
    rig.finish()
}

fn message(start: &str, (to, cseq, method): (&str, u32, &str), body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{start} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{method}{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:+15555550142@192.0.2.1>;tag=c1\r\nTo: {to}\r\nCall-ID: sdp@fuzz\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:c@192.0.2.1:5060>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn lines(description: &[u8]) -> usize {
    // The reader takes CR, LF and both as the end of a line.
    description.split(|byte| matches!(byte, b'\r' | b'\n')).filter(|line| line.starts_with(b"m=")).count()
}

const BODY_BYTES_MAX: usize = 16 * 1024;

const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "v=0\r\n",
    "o=- 1 1 IN IP4 192.0.2.1\r\n",
    "o=a b c 99999999999999999999 1 IN IP4 x\r\n",
    "s=-\r\n",
    "t=0 0\r\n",
    "c=IN IP4 192.0.2.1\r\n",
    "c=IN IP4 127.0.0.1\r\n",
    "c=IN IP4 0.0.0.0\r\n",
    "c=IN IP4 169.254.169.254\r\n",
    "c=IN IP4 224.2.1.1/127/3\r\n",
    "c=IN IP4 255.255.255.255\r\n",
    "c=IN IP6 ::1\r\n",
    "c=IN IP6 ::ffff:127.0.0.1\r\n",
    "c=IN IP6 fe80::1\r\n",
    "c=IN IP6 ::ffff:169.254.169.254\r\n",
    "c=IN IP4 host.example\r\n",
    "m=audio 4000 RTP/AVP 0 8 101\r\n",
    "m=audio 0 RTP/AVP 0\r\n",
    "m=audio 4000/2 RTP/AVP 0\r\n",
    "m=audio 4000 RTP/SAVP 0\r\n",
    "m=video 5000 RTP/AVP 96\r\n",
    "m=image 6000 udptl t38\r\n",
    "m=audio 70000 RTP/AVP 8\r\n",
    "m=application 9 TCP/MSRP *\r\n",
    "a=rtpmap:0 PCMU/8000\r\n",
    "a=rtpmap:8 L16/44100/2\r\n",
    "a=rtpmap:101 telephone-event/8000\r\n",
    "a=fmtp:101 0-15\r\n",
    "a=sendonly\r\n",
    "a=recvonly\r\n",
    "a=inactive\r\n",
    "a=sendrecv\r\n",
    "a=ptime:20\r\n",
    "a=rtcp:4001 IN IP4 192.0.2.77\r\n",
    "a=rtcp:4001\r\n",
    "a=rtcp-mux\r\n",
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n",
    "a=group:BUNDLE 0 1\r\n",
    "a=candidate:1 1 UDP 1 127.0.0.1 1 typ host\r\n",
    "b=AS:64\r\n",
    "r=7d 1h 0 25h\r\n",
    "z=0 1h\r\n",
    "k=prompt\r\n",
    "i=\r\n",
    "u=\r\n",
    "e=\r\n",
    "p=\r\n",
];
