//! Several stacks on one simulated network in virtual time: datagrams are lost, doubled and
//! reordered by a seeded generator. TCP is a link that loses nothing. The same seed is the
//! same run.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use edge_media::sip::{
    Caller, Codec, Destination, DialogKey, Direction, Flow, LocalMedia, Rel100, Secret, SipCommand,
    SipConfig, SipEvent, SipOutput, SrtpPolicy, Stack, Transport, TrunkConfig, UserConfig,
};
use handoff::clock::Now;
use handoff::pii::Pii;

pub(crate) const EDGE: &str = "198.51.100.1:5060";
pub(crate) const CARRIER: &str = "192.0.2.1:5060";
pub(crate) const PHONE: &str = "203.0.113.5:5060";

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn media(text: &str, direction: Direction) -> LocalMedia {
    LocalMedia { ip: address(text).ip(), port: 20_000, direction }
}

/// How bad the network is, in percent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) duplicates: u64,
    /// Extra delay up to this, which reorders.
    pub(crate) jitter_ms: u64,
}

/// From, to, how, what.
type Packet = (SocketAddr, SocketAddr, Transport, Vec<u8>);

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) stacks: BTreeMap<SocketAddr, Stack>,
    pub(crate) events: BTreeMap<SocketAddr, Vec<SipEvent>>,
    /// Everything ever sent: when, from, to, bytes.
    pub(crate) wire: Vec<(Now, SocketAddr, SocketAddr, Vec<u8>)>,
    pub(crate) weather: Weather,
    /// Datagrams that are dropped although the weather is fine.
    pub(crate) drop_if: Option<fn(&str) -> bool>,
    in_flight: BTreeMap<(Now, u64), Packet>,
    order: u64,
    random: u64,
}

/// Whatever a world was for, a second parser reads all that was sent in it.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _counted = crate::oracle::agree(self.wire.iter().map(|(.., bytes)| bytes.as_slice()));
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Now::from_millis(1_000),
            stacks: BTreeMap::new(),
            events: BTreeMap::new(),
            wire: Vec::new(),
            weather: Weather::default(),
            drop_if: None,
            in_flight: BTreeMap::new(),
            order: 0,
            random: seed,
        }
    }

    /// An edge, a carrier that is its trunk, and a phone that is its user `ann`.
    pub(crate) fn edge_carrier_phone(seed: u64) -> Self {
        let mut world = Self::new(seed);
        let mut edge = SipConfig::new(address(EDGE), "edge.example");
        edge.trunks.push(trunk("carrier", CARRIER));
        edge.users.push(UserConfig {
            name: "ann".to_owned(),
            secret: Secret::Password(Pii::new("secret".to_owned())),
            allow_md5: false,
            uri: None,
        });
        world.add(EDGE, edge);
        for (at, name) in [(CARRIER, "carrier.example"), (PHONE, "edge.example")] {
            let mut config = SipConfig::new(address(at), name);
            config.trunks.push(trunk("edge", EDGE));
            world.add(at, config);
        }
        world
    }

    pub(crate) fn add(&mut self, at: &str, config: SipConfig) {
        let seed = self.draw();
        self.stacks.insert(address(at), Stack::new(config, seed.into()));
        self.events.insert(address(at), Vec::new());
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }

    pub(crate) fn command(&mut self, at: &str, command: SipCommand) {
        let outputs = self.stacks.get_mut(&address(at)).unwrap().command(self.now, command);
        self.carry_out(address(at), outputs);
    }

    /// A stack learns the addresses of a trunk's servers.
    pub(crate) fn servers(&mut self, at: &str, trunk: &str, servers: &[&str]) {
        let servers = servers.iter().map(|server| address(server)).collect();
        let stack = self.stacks.get_mut(&address(at)).unwrap();
        let outputs = stack.set_servers(self.now, vec![(trunk.to_owned(), servers)]);
        self.carry_out(address(at), outputs);
    }

    /// Puts bytes into a stack as if `from` had sent them.
    pub(crate) fn inject(&mut self, at: &str, from: &str, bytes: &[u8]) {
        let flow = Flow { transport: Transport::Udp, peer: address(from), connection: 0 };
        let outputs = self.stacks.get_mut(&address(at)).unwrap().receive(self.now, flow, bytes);
        self.carry_out(address(at), outputs);
    }

    /// A TCP connection of `at` to `peer` is gone.
    pub(crate) fn close(&mut self, at: &str, peer: &str, connection: u64) {
        let flow = Flow { transport: Transport::Tcp, peer: address(peer), connection };
        let outputs = self.stacks.get_mut(&address(at)).unwrap().connection_closed(self.now, flow);
        self.carry_out(address(at), outputs);
    }

    pub(crate) fn carry_out(&mut self, from: SocketAddr, outputs: Vec<SipOutput>) {
        for output in outputs {
            match output {
                SipOutput::Event(event) => self.events.get_mut(&from).unwrap().push(event),
                SipOutput::Close(_) => {}
                SipOutput::Send(flow, bytes) => self.send(from, flow, bytes),
            }
        }
    }

    fn send(&mut self, from: SocketAddr, flow: Flow, bytes: Vec<u8>) {
        self.wire.push((self.now, from, flow.peer, bytes.clone()));
        let udp = flow.transport == Transport::Udp;
        let weather = self.weather;
        let dropped = self.drop_if.is_some_and(|drops| drops(&String::from_utf8_lossy(&bytes)));
        let mut copies = usize::from(!(dropped || (udp && self.chance(weather.loss))));
        if udp && copies == 1 && self.chance(weather.duplicates) {
            copies = 2;
        }
        for _ in 0..copies {
            let jitter = if udp && weather.jitter_ms > 0 { self.draw() % weather.jitter_ms } else { 0 };
            self.order += 1;
            let at = self.now + Duration::from_millis(10 + jitter);
            self.in_flight.insert((at, self.order), (from, flow.peer, flow.transport, bytes.clone()));
        }
    }

    /// Runs until `until` or until nothing is left to do.
    pub(crate) fn run_until(&mut self, until: Now) {
        loop {
            let timer = self.stacks.values().filter_map(Stack::next_timeout).min();
            let packet = self.in_flight.keys().next().map(|(at, _)| *at);
            let Some(next) = [timer, packet].into_iter().flatten().min().filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            if packet == Some(next) {
                let (_, (from, to, transport, bytes)) = self.in_flight.pop_first().unwrap();
                let connection = u64::from(transport.is_stream());
                if let Some(stack) = self.stacks.get_mut(&to) {
                    let outputs = stack.receive(self.now, Flow { transport, peer: from, connection }, &bytes);
                    self.carry_out(to, outputs);
                }
            } else {
                let due: BTreeSet<SocketAddr> = self
                    .stacks
                    .iter()
                    .filter(|(_, stack)| stack.next_timeout().is_some_and(|at| at <= self.now))
                    .map(|(at, _)| *at)
                    .collect();
                for at in due {
                    let outputs = self.stacks.get_mut(&at).unwrap().handle_timeout(self.now);
                    self.carry_out(at, outputs);
                }
            }
        }
    }

    pub(crate) fn run(&mut self, millis: u64) {
        self.run_until(self.now + Duration::from_millis(millis));
    }

    pub(crate) fn take(&mut self, at: &str) -> Vec<SipEvent> {
        std::mem::take(self.events.get_mut(&address(at)).unwrap())
    }

    pub(crate) fn stack(&self, at: &str) -> &Stack {
        &self.stacks[&address(at)]
    }

    /// First lines of what `from` sent, in order.
    pub(crate) fn sent(&self, from: &str) -> Vec<String> {
        let from = address(from);
        self.wire
            .iter()
            .filter(|(_, sender, ..)| *sender == from)
            .map(|(.., bytes)| first_line(bytes))
            .collect()
    }

    /// The phone registers as `ann`.
    pub(crate) fn register(&mut self) {
        self.command(
            PHONE,
            SipCommand::Register {
                user: "ann".to_owned(),
                password: Pii::new("secret".to_owned()),
                registrar: address(EDGE),
                domain: "edge.example".to_owned(),
                expires_secs: 600,
            },
        );
    }

    /// The carrier calls the edge with this key.
    pub(crate) fn dial(&mut self, key: u64) {
        self.command(
            CARRIER,
            SipCommand::Dial {
                dialog: DialogKey(key),
                to: Destination::Uri(Pii::new("sip:+15555550100@198.51.100.1:5060".to_owned())),
                local: media(CARRIER, Direction::SendRecv),
                from: Caller::new(Pii::new("+15555550142".to_owned())),
                credentials: None,
            },
        );
    }

    /// A call from the carrier, answered by the edge. Returns the edge's key.
    pub(crate) fn answered_call(&mut self, key: u64) -> DialogKey {
        self.dial(key);
        self.run(100);
        let inbound = invited(&self.take(EDGE)).unwrap();
        self.command(EDGE, SipCommand::Answer(inbound, media(EDGE, Direction::SendRecv)));
        self.run(100);
        inbound
    }
}

pub(crate) fn trunk(name: &str, at: &str) -> TrunkConfig {
    let ip: IpAddr = address(at).ip();
    TrunkConfig {
        name: name.to_owned(),
        addresses: vec![ip.into()],
        certificate: None,
        port: None,
        call_type: None,
        hold_by_reinvite: true,
        credentials: None,
        rel100: Rel100::default(),
        srtp: SrtpPolicy::default(),
    }
}

pub(crate) fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned()
}

pub(crate) fn invited(events: &[SipEvent]) -> Option<DialogKey> {
    events
        .iter()
        .find_map(|event| if let SipEvent::Invited { dialog, .. } = event { Some(*dialog) } else { None })
}

pub(crate) fn ended(events: &[SipEvent]) -> usize {
    events.iter().filter(|event| matches!(event, SipEvent::Ended { .. })).count()
}

/// What both sides of a call agree on, as one of them sees it.
pub(crate) fn agreed(peer: &str, direction: Direction) -> edge_media::sip::RemoteMedia {
    edge_media::sip::RemoteMedia {
        rtp: SocketAddr::new(address(peer).ip(), 20_000),
        codec: Codec::Pcmu,
        telephone_event: Some(101),
        direction,
        srtp: None,
    }
}
