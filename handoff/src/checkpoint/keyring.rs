//! Public keys of a log and when each was good: the one thing that a verifier must get from
//! somewhere it trusts. Keys are written as C2SP signed-note verifier keys
//! (`name+id+base64`), algorithm 0x01, which is Ed25519 (RFC 8032). Signing is not here; the
//! private key may be in a file or in somebody else's hardware.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;

use super::note::{NoteSignature, SignedNote};
use crate::audit::Hash;
use crate::clock::Timestamp;
use crate::seal::hex;

/// The algorithm byte of Ed25519 in a signed note's keys.
const ED25519: u8 = 0x01;

/// Most keys of a ring: one a month for decades.
const KEYS_MAX: usize = 512;

/// The text is not a key or a ring of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadKeyring(String);

/// Why a note is not taken for the log's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteFault {
    /// No signature is by a key of the ring.
    #[error("no signature of the note is by a key of the keyring")]
    UnknownKey,
    /// A signature in the name of a key of the ring is not by it.
    #[error("a signature of the note is forged")]
    BadSignature,
    /// The key was not good when the note says that it was signed.
    #[error("the note was signed outside the validity of its key")]
    KeyNotValid,
}

/// A public key with the name under which it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    public: [u8; 32],
}

impl NoteKey {
    /// The key `public` that signs as `name`.
    pub fn new(name: &str, public: [u8; 32]) -> Self {
        Self { name: name.to_owned(), public }
    }

    /// Parses `name+id+base64`.
    pub fn parse(text: &str) -> Result<Self, BadKeyring> {
        let bad = || BadKeyring("a verifier key is not name+id+base64 of an Ed25519 key".to_owned());
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        let bytes = STANDARD.decode(encoded).map_err(|_| bad())?;
        let public = match bytes.split_first() {
            Some((&ED25519, public)) => <[u8; 32]>::try_from(public).map_err(|_| bad())?,
            Some(_) | None => return Err(bad()),
        };
        let key = Self::new(name, public);
        let named = !name.is_empty() && !name.contains(char::is_whitespace);
        if named && hex(&key.id()) == id { Ok(key) } else { Err(bad()) }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells keys of one name apart.
    pub fn id(&self) -> [u8; 4] {
        let digest = Hash::of(&[self.name.as_bytes(), b"\n", &[ED25519], &self.public]);
        let [a, b, c, d, ..] = *digest.as_bytes();
        [a, b, c, d]
    }

    /// The line of this key under a note, around what the private key made of the note's text.
    pub fn signature(&self, bytes: [u8; 64]) -> NoteSignature {
        NoteSignature { name: self.name.clone(), key_id: self.id(), bytes: bytes.to_vec() }
    }

    /// Whether the private half signed `text`.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        let Ok(public) = VerifyingKey::from_bytes(&self.public) else { return false };
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        public.verify_strict(text, &signature).is_ok()
    }
}

impl core::fmt::Display for NoteKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let bytes = [[ED25519].as_slice(), &self.public].concat();
        write!(f, "{}+{}+{}", self.name, hex(&self.id()), STANDARD.encode(bytes))
    }
}

/// A key and when it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// The key.
    pub key: NoteKey,
    /// From then on.
    pub from: Timestamp,
    /// Before then; for good where it is left out.
    pub until: Option<Timestamp>,
}

/// The keys whose notes count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring(Vec<TrustedKey>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RingTable {
    #[serde(default)]
    key: Vec<KeyTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    vkey: String,
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Keyring {
    /// A ring of these keys.
    pub const fn new(keys: Vec<TrustedKey>) -> Self {
        Self(keys)
    }

    /// Reads a ring: TOML, one `[[key]]` with `vkey`, `from` and perhaps `until` per key.
    pub fn parse(text: &str) -> Result<Self, BadKeyring> {
        let table: RingTable = toml::from_str(text).map_err(|e| BadKeyring(e.message().to_owned()))?;
        if table.key.is_empty() || table.key.len() > KEYS_MAX {
            return Err(BadKeyring(format!("a keyring has 1 to {KEYS_MAX} keys")));
        }
        let keys = table
            .key
            .into_iter()
            .map(|row| Ok(TrustedKey { key: NoteKey::parse(&row.vkey)?, from: row.from, until: row.until }));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The ring as [`Keyring::parse`] reads it.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for TrustedKey { key, from, until } in &self.0 {
            text.push_str(&format!("[[key]]\nvkey = \"{key}\"\nfrom = \"{from}\"\n"));
            if let Some(until) = until {
                text.push_str(&format!("until = \"{until}\"\n"));
            }
            text.push('\n');
        }
        text
    }

    /// The keys.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.0
    }

    /// Whether the note is the word of a key of this ring. Lines of other keys (witnesses)
    /// neither help nor harm.
    pub fn verify(&self, note: &SignedNote) -> Result<(), NoteFault> {
        let mut fault = NoteFault::UnknownKey;
        let mut vouched = false;
        for signature in &note.signatures {
            let by = |trusted: &&TrustedKey| {
                trusted.key.name() == signature.name && trusted.key.id() == signature.key_id
            };
            let Some(trusted) = self.0.iter().find(by) else { continue };
            if !trusted.key.verifies(note.text.as_bytes(), &signature.bytes) {
                return Err(NoteFault::BadSignature);
            }
            let at = note.body.at;
            if at < trusted.from || trusted.until.is_some_and(|until| at >= until) {
                fault = NoteFault::KeyNotValid;
            } else {
                vouched = true;
            }
        }
        if vouched { Ok(()) } else { Err(fault) }
    }
}
