//! Unguessable identifiers from one seed: branches, tags, Call-IDs, nonces, back-off draws and
//! keys of streams. It reads no random source itself; the shell seeds it from the operating system,
//! a simulation seeds it with a number and gets the same bytes every time.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::sdes::{KEY_LEN, MasterKey, SALT_LEN};

/// A keyed counter: HMAC-SHA-256 over the draw's number, so that no output tells another.
#[derive(Clone)]
pub(super) struct Random {
    key: [u8; 32],
    draws: u64,
}

impl Random {
    /// A generator for `seed`.
    pub(super) fn new(seed: u128) -> Self {
        Self { key: mac(&seed.to_be_bytes(), &[b"warmbridge sip"]), draws: 0 }
    }

    /// A key for another purpose, independent of every draw.
    pub(super) fn derive(&self, purpose: &str) -> [u8; 32] {
        mac(&self.key, &[b"derive", purpose.as_bytes()])
    }

    /// 96 bits in lower-case hexadecimal: safe in every SIP grammar that takes a token.
    pub(super) fn token(&mut self) -> String {
        let bytes = self.draw();
        hex(bytes.get(..12).unwrap_or_default())
    }

    /// A number below `bound`; zero for a bound of zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let bytes = self.draw();
        let drawn = bytes.iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        // The bias of a 64-bit draw over a bound of a few hundred is beneath notice.
        drawn.checked_rem(bound).unwrap_or(0)
    }

    /// Key and salt of a stream: as strong as the seed.
    pub(super) fn master_key(&mut self) -> MasterKey {
        let drawn = self.draw();
        let mut bytes = [0; KEY_LEN + SALT_LEN];
        for (byte, drawn) in bytes.iter_mut().zip(drawn) {
            *byte = drawn;
        }
        MasterKey::of(&bytes)
    }

    fn draw(&mut self) -> [u8; 32] {
        self.draws += 1;
        mac(&self.key, &[b"draw", &self.draws.to_be_bytes()])
    }
}

/// HMAC-SHA-256 over the parts, each led by its length so that no two lists collide.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut padded = [0_u8; 64];
    for (slot, byte) in padded.iter_mut().zip(key) {
        *slot = *byte;
    }
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&padded.into());
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_another_seed_differs() {
        let (mut one, mut same, mut other) = (Random::new(7), Random::new(7), Random::new(8));
        let first = one.token();
        assert_eq!(first, same.token());
        assert_ne!(first, other.token());
        assert_ne!(first, one.token());
        assert_eq!(first.len(), 24);
    }

    #[test]
    fn draws_stay_below_their_bound() {
        let mut random = Random::new(1);
        assert!((0..1_000).all(|_| random.below(191) < 191));
        assert_eq!(random.below(0), 0);
    }
}
