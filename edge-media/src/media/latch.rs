//! Whose packets count. A port listens to nobody before its SDP is known, then to the
//! signalled address, or (symmetric RTP) to one other address that has proven itself with
//! three packets in sequence. From then on every other source is dropped before it can touch
//! the jitter buffer, the statistics or the destination of our own packets.

use std::net::SocketAddr;
use std::time::Duration;

use handoff::clock::Now;

/// Packets in sequence that an address other than the signalled one must show. More delays
/// callers behind NAT by 20 ms each; fewer lets a lucky stray packet take the stream.
const PROOF_PACKETS: u8 = 3;
/// A latched peer may change its SSRC (a restarted sender) only after it was silent for this
/// long, from the same address, and with the same proof. Shorter would let a forger who
/// knows the address race the true stream; without it such a peer would be unheard for ever.
const SSRC_SILENCE: Duration = Duration::from_millis(500);

/// The source of one leg.
#[derive(Clone, Debug, Default)]
pub struct Latch {
    signalled: Option<SocketAddr>,
    latched: Option<Latched>,
    /// Where the stream was before the newest SDP; it may go on from there without new proof.
    previous: Option<SocketAddr>,
    candidate: Option<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Latched {
    from: SocketAddr,
    ssrc: u32,
    last: Now,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    from: SocketAddr,
    ssrc: u32,
    next_sequence: u16,
    seen: u8,
}

impl Latch {
    /// A new SDP: the address to expect from now on.
    pub fn signalled(&mut self, address: SocketAddr) {
        let moved = self.signalled != Some(address);
        // A hold or resume keeps the address, and a stream learnt behind NAT keeps its place:
        // re-learning at each re-INVITE would open a window to every stranger.
        let kept = self.latched.map(|latched| latched.from).or(self.previous);
        self.previous = if moved { None } else { kept };
        self.signalled = Some(address);
        self.latched = None;
        self.candidate = None;
    }

    /// Whether a packet from `from` counts. The caller has checked version and payload type.
    pub fn accepts(&mut self, now: Now, from: SocketAddr, ssrc: u32, sequence: u16) -> bool {
        let Some(signalled) = self.signalled else { return false };
        match &mut self.latched {
            Some(latched) if latched.from != from => false,
            Some(latched) if latched.ssrc == ssrc => {
                latched.last = now;
                true
            }
            Some(latched) => {
                let silent = now.since(latched.last) >= SSRC_SILENCE;
                silent && self.prove(now, from, ssrc, sequence)
            }
            None if from == signalled || self.previous == Some(from) => {
                self.latch(now, from, ssrc);
                true
            }
            // A hold must not become the moment in which a stranger takes a known stream. A
            // NAT that forgot the held phone gives it another port, seldom another address.
            None if self.previous.is_some_and(|previous| previous.ip() != from.ip()) => false,
            None => self.prove(now, from, ssrc, sequence),
        }
    }

    /// Where our packets go: the learnt address, else the signalled one.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.latched.map(|latched| latched.from).or(self.previous).or(self.signalled)
    }

    fn prove(&mut self, now: Now, from: SocketAddr, ssrc: u32, sequence: u16) -> bool {
        let seen = match self.candidate {
            Some(candidate)
                if candidate.from == from
                    && candidate.ssrc == ssrc
                    && candidate.next_sequence == sequence =>
            {
                candidate.seen + 1
            }
            _ => 1,
        };
        if seen >= PROOF_PACKETS {
            self.latch(now, from, ssrc);
            return true;
        }
        self.candidate = Some(Candidate { from, ssrc, next_sequence: sequence.wrapping_add(1), seen });
        false
    }

    fn latch(&mut self, now: Now, from: SocketAddr, ssrc: u32) {
        self.latched = Some(Latched { from, ssrc, last: now });
        self.candidate = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    const T0: Now = Now::from_millis(100);

    #[test]
    fn nothing_counts_before_the_sdp() {
        let mut latch = Latch::default();
        for sequence in 0..10 {
            assert!(!latch.accepts(T0, address(1), 1, sequence));
        }
        assert_eq!(latch.destination(), None);
    }

    #[test]
    fn the_signalled_address_counts_at_once_and_then_nobody_else() {
        let mut latch = Latch::default();
        latch.signalled(address(1));
        assert!(latch.accepts(T0, address(1), 7, 0));
        for sequence in 0..10 {
            assert!(!latch.accepts(T0, address(2), 7, sequence), "another address");
            assert!(!latch.accepts(T0, address(1), 8, sequence), "another SSRC");
        }
        assert_eq!(latch.destination(), Some(address(1)));
    }

    #[test]
    fn an_address_behind_nat_needs_three_in_sequence() {
        let mut latch = Latch::default();
        latch.signalled(address(1));
        let verdicts = [10, 12, 13, 14].map(|sequence| latch.accepts(T0, address(2), 7, sequence));
        assert_eq!(verdicts, [false, false, false, true]);
        assert_eq!(latch.destination(), Some(address(2)));
        assert!(!latch.accepts(T0, address(1), 7, 15), "the signalled address lost its turn");
    }

    #[test]
    fn a_hold_is_no_chance_for_a_stranger() {
        let mut latch = Latch::default();
        latch.signalled(address(1));
        for sequence in 0..3 {
            latch.accepts(T0, address(2), 7, sequence);
        }
        latch.signalled(address(1));
        for sequence in 0..10 {
            assert!(!latch.accepts(T0, ([198, 51, 100, 3], 3).into(), 9, sequence));
        }
        assert_eq!(latch.destination(), Some(address(2)));
        assert!(latch.accepts(T0, address(2), 8, 0), "a new SDP may come with a new SSRC");
    }

    #[test]
    fn a_restarted_sender_is_heard_again_after_a_silence() {
        let mut latch = Latch::default();
        latch.signalled(address(1));
        assert!(latch.accepts(T0, address(1), 7, 0));
        let later = T0 + SSRC_SILENCE;
        let verdicts = [0, 1, 2].map(|sequence| latch.accepts(later, address(1), 8, sequence));
        assert_eq!(verdicts, [false, false, true]);
    }
}
