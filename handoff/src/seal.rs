//! Sealing: what makes personal data erasable. One data key per call (AES-256-GCM); the
//! audit chain hashes ciphertext only, so destroying the key erases the text and leaves
//! the chain whole. Random nonces and keys come in as arguments; nothing here draws them,
//! and no key can be printed.

use core::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::id::TenantId;

/// Length of every key, in bytes: AES-256.
pub const KEY_LEN: usize = 32;

/// Length of a nonce, in bytes: the 96 bits for which GCM is defined without a hash. At one
/// key per call, random nonces cannot plausibly repeat.
pub const NONCE_LEN: usize = 12;

/// Length of the authentication tag, in bytes. Shorter tags weaken GCM more than linearly.
const TAG_LEN: usize = 16;

/// A sealed text could not be opened, or a key is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Wrong key, wrong place (the associated data), or changed bytes: GCM does not tell
    /// them apart, on purpose.
    #[error("sealed text does not open with this key at this place")]
    DoesNotOpen,
    /// Too short to hold a nonce and a tag.
    #[error("sealed text is shorter than its nonce and tag")]
    TooShort,
    /// Not 32 bytes.
    #[error("a key has exactly 32 bytes")]
    BadKey,
}

/// A key that seals: a call's data key, or the store's key that wraps data keys.
#[derive(Clone)]
pub struct SealKey(Zeroizing<[u8; KEY_LEN]>);

impl SealKey {
    /// A key from 32 random bytes that the shell drew or read.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A key from exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SealError> {
        bytes.try_into().map(Self::new).map_err(|_| SealError::BadKey)
    }

    /// `nonce || ciphertext || tag`. The nonce must never repeat under this key.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], place: &str, plain: &[u8]) -> Vec<u8> {
        let mut sealed = nonce.to_vec();
        // GCM refuses only what is longer than 64 GiB.
        let payload = Payload { msg: plain, aad: place.as_bytes() };
        sealed.extend(self.cipher().encrypt(&nonce.into(), payload).unwrap_or_default());
        sealed
    }

    /// Opens what [`SealKey::seal`] made for the same `place`.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if sealed.len() < NONCE_LEN + TAG_LEN {
            return Err(SealError::TooShort);
        }
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError::TooShort)?;
        self.cipher()
            .decrypt(&(*nonce).into(), Payload { msg: rest, aad: place.as_bytes() })
            .map(Zeroizing::new)
            .map_err(|_| SealError::DoesNotOpen)
    }

    /// The key itself, for a key service that wraps it.
    pub fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// This key, sealed under `wrapping` for storage.
    pub fn wrapped(&self, wrapping: &Self, nonce: [u8; NONCE_LEN], place: &str) -> Vec<u8> {
        wrapping.seal(nonce, place, self.0.as_slice())
    }

    /// Opens what [`SealKey::wrapped`] made.
    pub fn unwrapped(wrapping: &Self, place: &str, wrapped: &[u8]) -> Result<Self, SealError> {
        Self::from_slice(&wrapping.open(place, wrapped)?)
    }

    /// `refs.payload_mac`: a digest of a payload's canonical bytes that can be checked while
    /// the key exists and tells nothing afterwards. Hexadecimal.
    pub fn payload_mac(&self, canonical: &[u8]) -> String {
        let mut key = Zeroizing::new([0_u8; KEY_LEN]);
        // HKDF refuses only more than 255 blocks of output.
        let _one_block = Hkdf::<Sha256>::new(None, self.0.as_slice()).expand(MAC_INFO, key.as_mut_slice());
        hex(&hmac_sha256(key.as_slice(), &[canonical]))
    }

    /// Another key that follows from this one and from what it is for.
    pub fn derived(&self, purpose: &str) -> [u8; KEY_LEN] {
        derived_key(self.0.as_slice(), purpose)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey([redacted])")
    }
}

/// A call's data key with the name under which records cite it.
#[derive(Clone, Debug)]
pub struct DataKey {
    /// Not secret: `dek-1` within the call.
    pub id: String,
    /// The key.
    pub key: SealKey,
}

/// A key that follows from a secret and from what it is for (HKDF, RFC 5869).
pub fn derived_key(secret: &[u8], purpose: &str) -> [u8; KEY_LEN] {
    let mut key = [0_u8; KEY_LEN];
    // HKDF refuses only more than 255 blocks of output.
    let _one_block = Hkdf::<Sha256>::new(None, secret).expand(purpose.as_bytes(), &mut key);
    key
}

/// The associated data of a sealed audit text. Never the record's `seq`, which a retry may
/// change; a producer's own number never changes.
pub fn place(tenant: &TenantId, call: &str, producer: &str, pseq: u64) -> String {
    format!("{tenant}|{call}|{producer}|{pseq}")
}

/// The pseudonym of a caller's number: equal for equal numbers under one key, useless
/// without the key. A plain digest would not do: all numbers of a country can be tried.
pub fn caller_tag(key_number: u32, key: &[u8; KEY_LEN], tenant: &TenantId, e164: &str) -> String {
    let mac = hmac_sha256(key, &[tenant.as_str().as_bytes(), b"|", e164.as_bytes()]);
    let text: String = URL_SAFE_NO_PAD.encode(mac).chars().take(TAG_CHARS).collect();
    format!("hm{key_number}:{text}")
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

const MAC_INFO: &[u8] = b"warmbridge-audit/v1 mac";

/// 22 characters of base64url carry 132 bits: more than a number has, less than a digest.
const TAG_CHARS: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantId {
        TenantId::parse("t_acme").unwrap()
    }

    #[test]
    fn a_sealed_text_opens_only_with_its_key_at_its_place() {
        let key = SealKey::new([1; KEY_LEN]);
        let here = place(&tenant(), "call_1", "edge-1", 4);
        let sealed = key.seal([9; NONCE_LEN], &here, "héllo".as_bytes());
        assert_eq!(key.open(&here, &sealed).unwrap().as_slice(), "héllo".as_bytes());
        let elsewhere = place(&tenant(), "call_1", "edge-1", 5);
        assert_eq!(key.open(&elsewhere, &sealed), Err(SealError::DoesNotOpen));
        assert_eq!(SealKey::new([2; KEY_LEN]).open(&here, &sealed), Err(SealError::DoesNotOpen));
        assert_eq!(key.open(&here, &sealed[..20]), Err(SealError::TooShort));
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(key.open(&here, &changed), Err(SealError::DoesNotOpen), "{index}");
        }
    }

    #[test]
    fn a_wrapped_key_comes_back_and_is_never_printed() {
        let store = SealKey::new([3; KEY_LEN]);
        let dek = SealKey::new([0xAB; KEY_LEN]);
        let wrapped = dek.wrapped(&store, [1; NONCE_LEN], "t_acme|call_1");
        let back = SealKey::unwrapped(&store, "t_acme|call_1", &wrapped).unwrap();
        assert_eq!(back.payload_mac(b"{}"), dek.payload_mac(b"{}"));
        assert_eq!(format!("{dek:?}"), "SealKey([redacted])");
        assert!(SealKey::unwrapped(&store, "t_acme|call_2", &wrapped).is_err());
    }

    #[test]
    fn the_payload_mac_is_the_golden_one() {
        // Computed with Python's hmac and hashlib: HKDF-SHA-256 without salt, then HMAC.
        let dek = SealKey::new([7; KEY_LEN]);
        assert_eq!(
            dek.payload_mac(br#"{"a":1}"#),
            "343a8b3ff8a3920b576547b75957d8572a4f2994ec791f43c45b38e9dd8ada87"
        );
    }

    #[test]
    fn a_caller_tag_repeats_per_tenant_and_key_and_hides_the_number() {
        let tag = caller_tag(3, &[5; KEY_LEN], &tenant(), "+15555550142");
        assert_eq!(tag, caller_tag(3, &[5; KEY_LEN], &tenant(), "+15555550142"));
        assert!(tag.starts_with("hm3:") && tag.len() == 26, "{tag}");
        assert_ne!(tag, caller_tag(3, &[6; KEY_LEN], &tenant(), "+15555550142"));
        let other = TenantId::parse("t_other").unwrap();
        assert_ne!(tag, caller_tag(3, &[5; KEY_LEN], &other, "+15555550142"));
    }
}
