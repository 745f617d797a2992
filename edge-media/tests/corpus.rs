//! The torture messages of RFC 4475 and RFC 5118 against the whole stack, where the corpus is
//! at hand; it is not part of the project. Every file goes in as one datagram from a trusted
//! peer. The final response must be one that the manifest allows, a response must draw
//! nothing at all, and the stack must go on answering.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use edge_media::sip::{
    Flow, Rel100, SipCommand, SipConfig, SipEvent, SipOutput, SrtpPolicy, Stack, Transport, TrunkConfig,
};
use handoff::clock::Now;

const PEER: &str = "192.0.2.99:5060";
const PROCESS: [u16; 14] = [401, 403, 404, 405, 407, 415, 480, 481, 483, 484, 486, 488, 501, 603];

fn corpus() -> Option<PathBuf> {
    let path = std::env::var_os("WARMBRIDGE_SIP_CORPUS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    path.join("manifest.tsv").is_file().then_some(path)
}

fn stack() -> Stack {
    let mut config = SipConfig::new("198.51.100.1:5060".parse().unwrap(), "edge.example");
    config.domains = ["example.com", "example.org", "example.net", "company.com"].map(str::to_owned).to_vec();
    config.trunks.push(TrunkConfig {
        name: "open".to_owned(),
        addresses: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        port: None,
        call_type: None,
        hold_by_reinvite: true,
        credentials: None,
        rel100: Rel100::default(),
        srtp: SrtpPolicy::default(),
    });
    Stack::new(config, 1)
}

/// Statuses of everything the stack sends for these bytes, within 40 s, ringing calls refused.
fn statuses(
    stack: &mut Stack,
    now: &mut Now,
    peer: SocketAddr,
    transport: Transport,
    bytes: &[u8],
) -> Vec<u16> {
    let flow = Flow { transport, peer, connection: u64::from(transport == Transport::Tcp) };
    let mut outputs = stack.receive(*now, flow, bytes);
    let mut seen = Vec::new();
    for _ in 0..200 {
        let mut next = Vec::new();
        for output in outputs.drain(..) {
            match output {
                SipOutput::Send(to, bytes) => {
                    assert_eq!(to.peer, peer, "only the source is answered");
                    let line = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
                    let status =
                        line.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
                    seen.extend(status);
                }
                SipOutput::Event(SipEvent::Invited { dialog, .. }) => {
                    next.extend(stack.command(*now, SipCommand::Reject(dialog, 486)));
                }
                SipOutput::Event(_) => {}
                SipOutput::Close(_) => seen.push(0),
            }
        }
        outputs = next;
        if outputs.is_empty() {
            let Some(at) = stack.next_timeout() else { break };
            *now = (*now).max(at);
            outputs = stack.handle_timeout(*now);
        }
    }
    *now = *now + Duration::from_secs(1);
    seen
}

fn is_allowed(allowed: &str, kind: &str, statuses: &[u16]) -> bool {
    let last = statuses.last().copied();
    if kind == "response" {
        return last.is_none();
    }
    allowed.split(',').any(|token| match (token, last) {
        ("any", _) | ("drop", None) => true,
        ("process", Some(status)) => status < 400 || PROCESS.contains(&status),
        (token, Some(status)) => token.parse() == Ok(status),
        (_, None) => false,
    })
}

#[test]
fn every_torture_message_draws_an_allowed_answer() {
    let Some(corpus) = corpus() else {
        println!("left out: no corpus at hand (set WARMBRIDGE_SIP_CORPUS to its folder)");
        return;
    };
    let manifest = std::fs::read_to_string(corpus.join("manifest.tsv")).unwrap();
    let (mut stack, mut now) = (stack(), Now::from_millis(1_000));
    let mut wrong = Vec::new();
    let mut files = 0;
    for row in manifest.lines().skip(1) {
        let fields: Vec<&str> = row.split('\t').collect();
        let [file, _, kind, _, _, allowed, ..] = fields.as_slice() else { panic!("{row}") };
        let bytes = std::fs::read(corpus.join(file)).unwrap();
        let peer = PEER.parse().unwrap();
        let seen = statuses(&mut stack, &mut now, peer, Transport::Udp, &bytes);
        if !is_allowed(allowed, kind, &seen) {
            wrong.push(format!("{file}: {seen:?}, allowed {allowed}"));
        }
        let alive = format!(
            "OPTIONS sip:198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bKalive{files}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:198.51.100.1>\r\nCall-ID: alive{files}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(
            statuses(&mut stack, &mut now, peer, Transport::Udp, alive.as_bytes()).last(),
            Some(&200),
            "alive after {file}"
        );
        files += 1;
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(files, 62);
    assert_eq!(stack.open(), (0, 0), "nothing is left behind");
}

#[test]
fn framing_faults_close_a_stream() {
    let Some(corpus) = corpus() else {
        println!("left out: no corpus at hand (set WARMBRIDGE_SIP_CORPUS to its folder)");
        return;
    };
    let run = |file: &str| {
        let bytes = std::fs::read(corpus.join(file)).unwrap();
        let mut now = Now::from_millis(1_000);
        statuses(&mut stack(), &mut now, PEER.parse().unwrap(), Transport::Tcp, &bytes)
    };
    assert_eq!(run("rfc4475/ncl.dat"), [400, 0]);
    assert_eq!(run("rfc4475/mcl01.dat"), [400, 0]);
    assert_eq!(run("rfc4475/clerr.dat"), [0], "waits for the missing octets, then closes");
    let answered: BTreeSet<u16> = run("rfc4475/dblreq.dat").into_iter().collect();
    assert!(!answered.contains(&400) && answered.len() >= 2, "two requests: {answered:?}");
}
