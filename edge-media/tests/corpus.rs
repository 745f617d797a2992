//! Torture messages against the whole stack: our own (`data/torture.txt`, which says of each
//! what is odd about it), and those of RFC 4475 and RFC 5118 where that corpus is at hand; it is
//! not part of the project. Every message goes in as one datagram from a trusted peer. The
//! final response must be one that the manifest allows, a response must draw nothing at all,
//! and the stack must go on answering.

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
        certificate: None,
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

/// The headers that every request has, but for those that are named.
fn usual(method: &str, without: &[&str]) -> String {
    let all = [
        ("Via", "SIP/2.0/UDP 192.0.2.99:5060;branch=z9hG4bKown-{n}".to_owned()),
        ("Max-Forwards", "70".to_owned()),
        ("From", "<sip:a@example.com>;tag=own".to_owned()),
        ("To", "<sip:b@example.com>".to_owned()),
        ("Call-ID", "own-{n}".to_owned()),
        ("CSeq", format!("1 {method}")),
        ("Contact", "<sip:a@192.0.2.99>".to_owned()),
    ];
    let kept = all.iter().filter(|(name, _)| !without.contains(name));
    kept.map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// A text's octets: `\xNN`, `\r`, `\n`, `\t` and `\\` are written out, `{text*n}` is repeated.
fn octets(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(escape) = rest.strip_prefix('\\') {
            let (octet, used) = match escape.as_bytes().first() {
                Some(b'x') => (u8::from_str_radix(&escape[1..3], 16).unwrap(), 3),
                Some(b'r') => (b'\r', 1),
                Some(b'n') => (b'\n', 1),
                Some(b't') => (b'\t', 1),
                other => (*other.unwrap(), 1),
            };
            bytes.push(octet);
            rest = &escape[used..];
        } else if let Some((inner, behind)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            let (what, times) = inner.rsplit_once('*').unwrap();
            bytes.extend(octets(what).repeat(times.parse().unwrap()));
            rest = behind;
        } else {
            bytes.extend(next.to_string().as_bytes());
            rest = &rest[next.len_utf8()..];
        }
    }
    bytes
}

/// A message of the file as it goes out.
fn written_out(number: usize, text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").map_or((text, None), |(head, body)| (head, Some(body)));
    // What begins with empty lines has its head behind them.
    let (head, body) = if text.starts_with('\n') { (text, None) } else { (head, body) };
    let mut lines = String::new();
    for line in head.lines() {
        match line.strip_prefix("+ ") {
            Some(asked) => {
                let mut words = asked.split(' ');
                let method = words.next().unwrap();
                let without: Vec<&str> = words.map(|word| word.trim_start_matches('-')).collect();
                lines.push_str(&usual(method, &without));
            }
            None => lines.push_str(&format!("{line}\r\n")),
        }
    }
    let body = octets(&body.unwrap_or_default().replace('\n', "\\r\\n"));
    let head = lines.replace("{n}", &number.to_string()).replace("{len}", &body.len().to_string());
    let whole = head.lines().count() > 1 || head.trim().is_empty();
    let end = if whole { "\r\n" } else { "" };
    [octets(&head), end.as_bytes().to_vec(), body].concat()
}

#[test]
fn every_odd_message_of_our_own_draws_an_allowed_answer() {
    let (mut stack, mut now) = (stack(), Now::from_millis(1_000));
    let (mut wrong, mut number) = (Vec::new(), 0);
    let peer: SocketAddr = PEER.parse().unwrap();
    for vector in include_str!("data/torture.txt").split("\n=== ").skip(1) {
        let (title, text) = vector.split_once('\n').unwrap();
        let fields: Vec<&str> = title.split(" | ").collect();
        let [name, section, odd, allowed] = fields.as_slice() else { panic!("{title}") };
        assert!(section.starts_with("RFC ") && !odd.is_empty(), "{title}");
        number += 1;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let bytes = written_out(number, text);
        let kind = if bytes.starts_with(b"SIP/2.0 ") { "response" } else { "request" };
        let seen = statuses(&mut stack, &mut now, peer, Transport::Udp, &bytes);
        if !is_allowed(allowed, kind, &seen) {
            wrong.push(format!("{name} ({odd}): {seen:?}, allowed {allowed}"));
        }
        let alive = written_out(1_000 + number, "OPTIONS sip:198.51.100.1 SIP/2.0\n+ OPTIONS");
        let answered = statuses(&mut stack, &mut now, peer, Transport::Udp, &alive);
        assert_eq!(answered.last(), Some(&200), "alive after {name}");
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(number >= 100, "{number} messages");
    now = now + Duration::from_secs(60);
    let _late = stack.handle_timeout(now);
    assert_eq!(stack.open(), (0, 0), "nothing is left behind");
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
