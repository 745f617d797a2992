//! The network between the parties, in virtual time: every datagram takes a step, and more,
//! or never comes, as the script or the seed says. Rules name what they are about, so that a
//! test can lose one answer, or hold one request back until it crosses another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use handoff::clock::Now;

use crate::phone::Sent;

/// Which datagrams suffer the chance faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suffers {
    /// None.
    #[default]
    Nothing,
    /// Audio.
    Rtp,
    /// Signalling.
    Sip,
    /// All.
    Everything,
}

/// Chance faults, per thousand datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// What it falls on.
    pub suffers: Suffers,
    /// Lost.
    pub loss_pm: u64,
    /// Sent twice.
    pub duplicate_pm: u64,
    /// Latest after this long; later ones overtake earlier ones.
    pub jitter: Duration,
}

/// What happens to a datagram that a rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never comes.
    Lost,
    /// It comes this much later.
    Late(Duration),
}

/// A fault by name: the next datagrams that begin with this text.
#[derive(Clone, Debug)]
struct Rule {
    starts: &'static str,
    holds: &'static str,
    to: Option<SocketAddr>,
    times: usize,
    fate: Fate,
}

/// The network.
#[derive(Debug, Default)]
pub struct Net {
    /// The chance faults of now.
    pub weather: Weather,
    /// Hosts that are gone: nothing comes from them or reaches them.
    pub gone: BTreeSet<IpAddr>,
    /// Sockets from which nothing comes.
    pub mute: BTreeSet<SocketAddr>,
    rules: Vec<Rule>,
    wire: BTreeMap<(Now, u64), Sent>,
    serial: u64,
    random: u64,
}

impl Net {
    /// The next `times` datagrams that start with `starts` and hold `holds` somewhere, to
    /// `to` or anybody, have this fate.
    pub fn rule(
        &mut self,
        starts: &'static str,
        holds: &'static str,
        to: Option<SocketAddr>,
        times: usize,
        fate: Fate,
    ) {
        self.rules.push(Rule { starts, holds, to, times, fate });
    }

    /// Datagrams leave; each takes `delay` at least.
    pub fn post(&mut self, now: Now, delay: Duration, sent: Vec<Sent>) {
        for sent in sent {
            if self.gone.contains(&sent.from.ip()) || self.mute.contains(&sent.from) {
                continue;
            }
            let at = match self.fate_of(&sent) {
                Some(Fate::Lost) => continue,
                Some(Fate::Late(late)) => now + delay + late,
                None => now + delay,
            };
            self.weathered(at, sent);
        }
    }

    fn fate_of(&mut self, sent: &Sent) -> Option<Fate> {
        let text = String::from_utf8_lossy(&sent.bytes);
        let rule = self.rules.iter_mut().find(|rule| {
            rule.times > 0
                && text.starts_with(rule.starts)
                && text.contains(rule.holds)
                && rule.to.is_none_or(|to| to == sent.to)
        })?;
        rule.times -= 1;
        Some(rule.fate)
    }

    fn weathered(&mut self, at: Now, sent: Sent) {
        let signalling = sent.to.port() == 5060;
        let suffers = match self.weather.suffers {
            Suffers::Nothing => false,
            Suffers::Rtp => !signalling,
            Suffers::Sip => signalling,
            Suffers::Everything => true,
        };
        if !suffers {
            return self.enqueue(at, sent);
        }
        if self.chance(self.weather.loss_pm) {
            return;
        }
        if self.chance(self.weather.duplicate_pm) {
            let again = Sent { from: sent.from, to: sent.to, bytes: sent.bytes.clone() };
            let at = at + self.jitter();
            self.enqueue(at, again);
        }
        let at = at + self.jitter();
        self.enqueue(at, sent);
    }

    fn jitter(&mut self) -> Duration {
        let steps = u64::try_from(self.weather.jitter.as_millis() / 5).unwrap_or(0);
        if steps == 0 { Duration::ZERO } else { Duration::from_millis(self.next() % (steps + 1) * 5) }
    }

    fn enqueue(&mut self, at: Now, sent: Sent) {
        self.serial += 1;
        self.wire.insert((at, self.serial), sent);
    }

    /// The next datagram that has arrived by now.
    pub fn arrived(&mut self, now: Now) -> Option<Sent> {
        loop {
            let entry = self.wire.first_entry().filter(|entry| entry.key().0 <= now)?;
            let sent = entry.remove();
            if !self.gone.contains(&sent.to.ip()) {
                return Some(sent);
            }
        }
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.next() % 1_000 < per_mille
    }

    /// SplitMix64: the same script meets the same weather.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}
