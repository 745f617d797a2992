//! What signalling costs: whole calls between two SIP stacks in one process, and of the edge's
//! side alone how long its stack is at work, by what it was given. The time is virtual; only the
//! work is measured.
//!
//! ```text
//! setups [CALLS]      20000 where nothing is said
//! ```
//!
//! A set-up is INVITE, 100, 180, 200, ACK, BYE and 200 over UDP. Machines differ and are noisy:
//! beside each figure stands what it is in kilobytes hashed with SHA-256 in the same run.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]
#![allow(clippy::expect_used, reason = "its own worlds are in order, or it has no result")]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use edge_media::sip::{
    Caller, Destination, DialogKey, Direction, Flow, LocalMedia, Rel100, SipCommand, SipConfig, SipEvent,
    SipOutput, SrtpPolicy, Stack, Transport, TrunkConfig,
};
use handoff::audit::Hash;
use handoff::call::outcome::LegCause;
use handoff::clock::Now;
use handoff::pii::Pii;

/// Set-ups where none are named: some seconds of work.
const CALLS: u64 = 20_000;

/// Virtual time from one call to the next: 200 calls a second, so that what lingers for 32 s
/// stays below the bound of transactions.
const EVERY: Duration = Duration::from_millis(5);

/// Calls that stand at once for the measure of memory.
const STANDING: u64 = 2_000;

/// What the reference hashes.
const REFERENCE_LEN: usize = 64 * 1024 * 1024;

const EDGE: &str = "198.51.100.1:5060";
const CARRIER: &str = "192.0.2.1:5060";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn stack(own: &str, domain: &str, name: &str, peer: &str, seed: u128) -> Stack {
    let mut config = SipConfig::new(address(own), domain);
    config.trunks.push(TrunkConfig {
        name: name.to_owned(),
        addresses: vec![address(peer).ip().into()],
        certificate: None,
        port: None,
        call_type: None,
        hold_by_reinvite: true,
        credentials: None,
        rel100: Rel100::default(),
        srtp: SrtpPolicy::default(),
    });
    Stack::new(config, seed)
}

fn media(of: &str) -> LocalMedia {
    LocalMedia { ip: address(of).ip(), port: 20_000, direction: Direction::SendRecv }
}

/// Two stacks and what the edge's spent, by what it was given.
struct Bench {
    edge: Stack,
    carrier: Stack,
    now: Now,
    spent: BTreeMap<&'static str, Duration>,
    /// Datagrams: to the edge or from it.
    wire: VecDeque<(bool, Vec<u8>)>,
    invited: Vec<DialogKey>,
    established: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            edge: stack(EDGE, "edge.example", "carrier", CARRIER, 7),
            carrier: stack(CARRIER, "carrier.example", "edge", EDGE, 11),
            now: Now::from_millis(1_000),
            spent: BTreeMap::new(),
            wire: VecDeque::new(),
            invited: Vec::new(),
            established: 0,
        }
    }

    /// Lets the edge's stack work, and notes how long it did.
    fn edge_does(&mut self, what: &'static str, work: impl FnOnce(&mut Stack, Now) -> Vec<SipOutput>) {
        let began = Instant::now();
        let outputs = work(&mut self.edge, self.now);
        *self.spent.entry(what).or_default() += began.elapsed();
        for output in outputs {
            match output {
                SipOutput::Send(_, bytes) => self.wire.push_back((false, bytes)),
                SipOutput::Event(SipEvent::Invited { dialog, .. }) => self.invited.push(dialog),
                SipOutput::Event(SipEvent::Confirmed(..)) => self.established += 1,
                SipOutput::Event(_) | SipOutput::Close(_) => {}
            }
        }
    }

    fn carrier_does(&mut self, work: impl FnOnce(&mut Stack, Now) -> Vec<SipOutput>) {
        for output in work(&mut self.carrier, self.now) {
            if let SipOutput::Send(_, bytes) = output {
                self.wire.push_back((true, bytes));
            }
        }
    }

    /// Carries datagrams until there are none.
    fn settle(&mut self) {
        while let Some((to_edge, bytes)) = self.wire.pop_front() {
            let peer = address(if to_edge { CARRIER } else { EDGE });
            let flow = Flow { transport: Transport::Udp, peer, connection: 0 };
            if to_edge {
                let what = match bytes.first_chunk::<3>() {
                    Some(b"INV") => "INVITE",
                    Some(b"ACK") => "ACK",
                    Some(b"BYE") => "BYE",
                    _ => "answers",
                };
                self.edge_does(what, |stack, now| stack.receive(now, flow, &bytes));
            } else {
                self.carrier_does(|stack, now| stack.receive(now, flow, &bytes));
            }
        }
    }

    fn tick(&mut self) {
        self.now = self.now + EVERY;
        self.edge_does("timers", Stack::handle_timeout);
        self.carrier_does(Stack::handle_timeout);
        self.settle();
    }

    /// One call as far as its ACK.
    fn establish(&mut self, number: u64) -> DialogKey {
        let key = DialogKey(2 * number + 1);
        self.carrier_does(|stack, now| {
            stack.command(
                now,
                SipCommand::Dial {
                    dialog: key,
                    to: Destination::Uri(Pii::new(format!("sip:+18005550100@{EDGE}"))),
                    local: media(CARRIER),
                    from: Caller::new(Pii::new("+15555550142".to_owned())),
                    credentials: None,
                },
            )
        });
        self.settle();
        for dialog in std::mem::take(&mut self.invited) {
            self.edge_does("180", |stack, now| stack.command(now, SipCommand::Ring(dialog)));
            self.edge_does("200", |stack, now| stack.command(now, SipCommand::Answer(dialog, media(EDGE))));
        }
        self.settle();
        key
    }

    fn hang_up(&mut self, key: DialogKey) {
        self.carrier_does(|stack, now| stack.command(now, SipCommand::HangUp(key, LegCause::LocalHangUp)));
        self.settle();
    }
}

/// Memory of this process that is in use, in kilobytes; 0 where the system does not tell.
fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Nanoseconds for a kilobyte of SHA-256.
fn reference() -> f64 {
    let bytes = vec![0x5a_u8; REFERENCE_LEN];
    let began = Instant::now();
    let hash = Hash::of(&[&bytes]);
    let spent = began.elapsed();
    // The digest is looked at, so that it is made.
    assert_ne!(hash.as_bytes().first(), hash.as_bytes().last(), "of these bytes they differ");
    spent.as_nanos() as f64 / (REFERENCE_LEN as f64 / 1024.0)
}

fn main() -> ExitCode {
    let calls = match std::env::args().nth(1).map(|text| text.parse()) {
        None => CALLS,
        Some(Ok(calls)) => calls,
        Some(Err(_)) => {
            println!("setups [CALLS]");
            return ExitCode::from(2);
        }
    };
    let kilobyte_ns = reference();
    let mut bench = Bench::new();
    for number in 0..calls {
        let key = bench.establish(number);
        bench.hang_up(key);
        bench.tick();
    }
    if bench.established != calls {
        println!("only {} of {calls} calls were established", bench.established);
        return ExitCode::FAILURE;
    }
    let whole: Duration = bench.spent.values().sum();
    let each_us = whole.as_secs_f64() * 1e6 / calls as f64;
    println!(
        "{:.0} set-ups a second on one core: {each_us:.0} us each, as much as {:.0} KB of SHA-256",
        1e6 / each_us,
        each_us * 1_000.0 / kilobyte_ns
    );
    let mut parts: Vec<_> = bench.spent.iter().collect();
    parts.sort_by(|a, b| b.1.cmp(a.1));
    for (what, spent) in parts {
        let share = 100.0 * spent.as_secs_f64() / whole.as_secs_f64();
        println!("  {what:<8} {:>6.1} us  {share:>4.1} %", spent.as_secs_f64() * 1e6 / calls as f64);
    }
    let mut standing = Bench::new();
    let before = resident_kb();
    for number in 0..STANDING {
        standing.establish(number);
        standing.tick();
    }
    // What lingers of the transactions is over by then.
    for _ in 0..8_000 {
        standing.tick();
    }
    let (dialogs, transactions) = standing.edge.open();
    let grown = resident_kb().saturating_sub(before);
    println!(
        "{dialogs} idle calls ({transactions} transactions): {:.1} KB each, of both ends together",
        grown as f64 / STANDING as f64
    );
    ExitCode::SUCCESS
}
