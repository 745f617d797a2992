//! Signing with a key in a file, for an installation on one machine. Whoever reads the file
//! can sign; what keeps such a note honest is that old notes lie elsewhere and are never
//! replaced. With a cloud the private key never leaves its hardware.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ed25519_dalek::{Signer, SigningKey};
use handoff::checkpoint::keyring::NoteKey;
use handoff::checkpoint::origin;
use handoff::id::TenantId;
use zeroize::Zeroizing;

use crate::ports::{PortError, SignNote};

/// Name of the private key's file, beside the store's key.
pub const KEY_FILE: &str = "checkpoint.key";

/// A private key from a file.
#[derive(Clone)]
pub struct LocalKey(SigningKey);

impl LocalKey {
    /// The key in `dir`; made where there is none.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(KEY_FILE);
        match fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, "a private key has exactly 32 bytes")
                })?);
                Ok(Self(SigningKey::from_bytes(&bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = Zeroizing::new([0; 32]);
                getrandom::fill(bytes.as_mut_slice())
                    .map_err(|_| io::Error::other("the system gives no randomness"))?;
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                file.write_all(bytes.as_slice())?;
                file.sync_all()?;
                Ok(Self(SigningKey::from_bytes(&bytes)))
            }
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalKey([redacted])")
    }
}

impl SignNote for LocalKey {
    async fn note_key(&self, tenant: &TenantId) -> Result<NoteKey, PortError> {
        Ok(NoteKey::new(&origin(tenant), self.0.verifying_key().to_bytes()))
    }

    async fn sign(&self, text: String) -> Result<[u8; 64], PortError> {
        Ok(self.0.sign(text.as_bytes()).to_bytes())
    }
}
