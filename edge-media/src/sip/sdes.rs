//! Keys for audio in the session description (SDES, RFC 4568), and whose audio has to be
//! encrypted. Reads and writes `a=crypto`; seals nothing itself. Keys in the clear would be
//! keys for everybody, so nothing is agreed on outside TLS. Not used: lifetimes shorter than
//! a call, master key identifiers, and session parameters that take protection away.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Transport;

/// Bytes of a master key.
pub const KEY_LEN: usize = 16;
/// Bytes of a master salt.
pub const SALT_LEN: usize = 14;
/// Lines that are read of one m-line: an offer with more repeats itself.
pub(super) const CRYPTOS_MAX: usize = 16;
/// Digits of a tag at most (RFC 4568 section 9.1).
const TAG_DIGITS_MAX: usize = 9;
/// The tag of our own offers, which have one line.
pub(super) const OUR_TAG: u32 = 1;

/// How packets are sealed (RFC 4568 section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`, which everybody has to know.
    Sha1Tag80,
    /// `AES_CM_128_HMAC_SHA1_32`.
    Sha1Tag32,
}

impl Suite {
    /// Its name in SDP.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1Tag80 => "AES_CM_128_HMAC_SHA1_80",
            Self::Sha1Tag32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Sha1Tag80, Self::Sha1Tag32].into_iter().find(|suite| suite.name() == name)
    }
}

/// Key and salt of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MasterKey {
    /// The key.
    pub key: [u8; KEY_LEN],
    /// The salt.
    pub salt: [u8; SALT_LEN],
}

impl MasterKey {
    /// A key of these random bytes.
    pub(super) fn of(bytes: &[u8; KEY_LEN + SALT_LEN]) -> Self {
        let (mut key, mut salt) = ([0; KEY_LEN], [0; SALT_LEN]);
        let (first, second) = bytes.split_at(KEY_LEN);
        key.copy_from_slice(first);
        salt.copy_from_slice(second);
        Self { key, salt }
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text).ok()?;
        Some(Self::of(bytes.as_slice().try_into().ok()?))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

/// What both ends seal with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SrtpKeys {
    /// For both directions.
    pub suite: Suite,
    /// What we seal with.
    pub ours: MasterKey,
    /// What the far end seals with.
    pub theirs: MasterKey,
}

/// One usable `a=crypto` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crypto {
    /// Which line of its author's it is; an answer repeats it.
    pub(super) tag: u32,
    pub(super) suite: Suite,
    pub(super) key: MasterKey,
}

impl Crypto {
    /// Reads the value of the attribute. `None` for what this side cannot do or must not.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let (tag, suite, keys) = (words.next()?, words.next()?, words.next()?);
        let digits = tag.len() <= TAG_DIGITS_MAX && tag.bytes().all(|byte| byte.is_ascii_digit());
        // Any other parameter changes what is sealed and how (RFC 4568 section 6.3); of this
        // one the default is all that is done, and a window of another size harms nobody.
        if !digits || !words.all(|word| word == "KDR=0" || word.starts_with("WSH=")) {
            return None;
        }
        let mut parts = keys.strip_prefix("inline:")?.split('|');
        let key = MasterKey::parse(parts.next()?)?;
        // A lifetime has no colon. Several keys, and keys that are numbered, are not spoken.
        if keys.contains(';') || parts.any(|part| part.contains(':')) {
            return None;
        }
        Some(Self { tag: tag.parse().ok()?, suite: Suite::named(suite)?, key })
    }

    /// The value of the attribute.
    pub(super) fn print(&self) -> String {
        let bytes = [self.key.key.as_slice(), self.key.salt.as_slice()].concat();
        format!("{} {} inline:{}", self.tag, self.suite.name(), BASE64.encode(bytes))
    }
}

/// Whose audio is encrypted, as configured for a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SrtpPolicy {
    /// Required where signalling is TLS, not spoken elsewhere.
    #[default]
    WithTls,
    /// Never.
    Off,
    /// Over TLS with whoever can; in the clear with others.
    Preferred,
    /// Always: without TLS there is no call.
    Required,
}

impl SrtpPolicy {
    /// What it means for a dialog over `transport`.
    pub(super) const fn over(self, transport: Transport) -> Keying {
        match (self, transport) {
            (Self::WithTls | Self::Required, Transport::Tls) => Keying::Required,
            (Self::Preferred, Transport::Tls) => Keying::Preferred,
            (Self::Required, Transport::Udp | Transport::Tcp) => Keying::Impossible,
            (Self::Off, _) | (Self::WithTls | Self::Preferred, Transport::Udp | Transport::Tcp) => {
                Keying::Clear
            }
        }
    }
}

/// What one dialog may agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keying {
    /// Nothing: keys are neither given nor taken.
    Clear,
    /// Keys where the far end has them.
    Preferred,
    /// Keys, or nothing at all.
    Required,
    /// No agreement: keys are required and would be readable on the way.
    Impossible,
}

#[cfg(test)]
mod tests {
    use super::*;

    const INLINE: &str = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

    #[test]
    fn lines_of_the_standard_are_read_and_others_left_alone() {
        for (value, suite) in [
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE}"), Some(Suite::Sha1Tag80)),
            (format!("7 AES_CM_128_HMAC_SHA1_32 {INLINE}|2^20 WSH=128"), Some(Suite::Sha1Tag32)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE}|1048576 KDR=0"), Some(Suite::Sha1Tag80)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE}|2^20|1:4"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE};{INLINE}"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE} UNENCRYPTED_SRTP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE} UNAUTHENTICATED_SRTP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 {INLINE} KDR=3"), None),
            (format!("1 F8_128_HMAC_SHA1_80 {INLINE}"), None),
            (format!("-1 AES_CM_128_HMAC_SHA1_80 {INLINE}"), None),
            (format!("9999999999 AES_CM_128_HMAC_SHA1_80 {INLINE}"), None),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwg".to_owned(), None),
            ("1 AES_CM_128_HMAC_SHA1_80".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(Crypto::parse(&value).map(|crypto| crypto.suite), suite, "{value}");
        }
    }

    #[test]
    fn what_is_printed_is_read_again_and_shown_nowhere() {
        let key = MasterKey::of(&[7; KEY_LEN + SALT_LEN]);
        let crypto = Crypto { tag: 3, suite: Suite::Sha1Tag80, key };
        assert_eq!(Crypto::parse(&crypto.print()), Some(crypto));
        assert_eq!(format!("{key:?}"), "MasterKey([redacted])");
    }

    #[test]
    fn keys_travel_inside_tls_alone() {
        for policy in [SrtpPolicy::WithTls, SrtpPolicy::Off, SrtpPolicy::Preferred, SrtpPolicy::Required] {
            for transport in [Transport::Udp, Transport::Tcp] {
                let keying = policy.over(transport);
                assert!(matches!(keying, Keying::Clear | Keying::Impossible), "{policy:?}");
                assert_eq!(keying == Keying::Impossible, policy == SrtpPolicy::Required);
            }
        }
        assert_eq!(SrtpPolicy::default().over(Transport::Tls), Keying::Required);
        assert_eq!(SrtpPolicy::Off.over(Transport::Tls), Keying::Clear);
    }
}
