//! Checkpoints in a folder: per tenant, one note, one leaf file and one frontier per
//! checkpoint, named after the size of the log, and the keyring beside them. The folder lies
//! outside the data directory, best on another machine's disk: what is written is never
//! replaced. A leaf file without a note is left of a crash and counts for nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use handoff::audit::Hash;
use handoff::audit::verify::checkpoints::{Evidence, StoredCheckpoint};
use handoff::checkpoint::keyring::{Keyring, NoteKey, TrustedKey};
use handoff::checkpoint::{Leaf, note};
use handoff::clock::Timestamp;
use handoff::id::TenantId;

use crate::ports::{Checkpoints, LastCheckpoint, NewCheckpoint, PortError};

/// Name of the keyring in the folder.
pub const KEYRING: &str = "keyring.toml";

/// Name of the file that a process locks while it adds to a log.
const LOCK: &str = "lock";

/// Largest file of the folder that is read: far more than a checkpoint's leaves.
const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// A folder of checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointFolder {
    dir: PathBuf,
}

impl CheckpointFolder {
    /// The folder `dir`, which need not exist yet.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Everything that the folder holds of a tenant's log, for the verifier. `keyring` is
    /// read instead of the folder's own where it is given.
    pub fn evidence(&self, tenant: &TenantId, keyring: Option<&Path>) -> io::Result<Evidence> {
        let own = self.dir.join(KEYRING);
        let keyring = Keyring::parse(&read_text(keyring.unwrap_or(&own))?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let folder = self.of(tenant);
        let mut checkpoints = Vec::new();
        for size in sizes(&folder)? {
            let leaves = match fs::read(folder.join(name(size, "leaves"))) {
                Ok(leaves) => Some(leaves),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            let note = bounded(&folder.join(name(size, "note")), note::NOTE_LEN_MAX as u64)?;
            let note = String::from_utf8_lossy(&note).into_owned();
            checkpoints.push(StoredCheckpoint { name: name(size, "note"), note, leaves });
        }
        Ok(Evidence { keyring, checkpoints })
    }

    /// Names of the tenants that have a log here.
    pub fn tenants(&self) -> io::Result<Vec<TenantId>> {
        let mut tenants = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if let (true, Some(Ok(tenant))) = (entry.path().is_dir(), name.to_str().map(TenantId::parse)) {
                tenants.push(tenant);
            }
        }
        tenants.sort();
        Ok(tenants)
    }

    /// Enters `key` into the keyring, good from `at`; an earlier key of the same name ends
    /// there. A key that is in it already stays as it is.
    pub fn trust(&self, key: &NoteKey, at: Timestamp) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(KEYRING);
        let mut keys = match read_text(&path) {
            Ok(text) => Keyring::parse(&text)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?
                .keys()
                .to_vec(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        if keys.iter().any(|trusted| trusted.key == *key) {
            return Ok(());
        }
        for trusted in keys.iter_mut().filter(|trusted| trusted.key.name() == key.name()) {
            trusted.until = trusted.until.or(Some(at));
        }
        keys.push(TrustedKey { key: key.clone(), from: at, until: None });
        replace(&path, Keyring::new(keys).print().as_bytes())
    }

    fn of(&self, tenant: &TenantId) -> PathBuf {
        self.dir.join(tenant.as_str())
    }

    fn read_last(&self, tenant: &TenantId) -> io::Result<Option<LastCheckpoint>> {
        let folder = self.of(tenant);
        let Some(size) = sizes(&folder)?.pop() else { return Ok(None) };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a frontier is damaged");
        let peaks = read_text(&folder.join(name(size, "frontier")))?;
        let peaks = peaks.lines().map(Hash::parse).collect::<Result<_, _>>().map_err(|_| damaged())?;
        Ok(Some(LastCheckpoint { note: read_text(&folder.join(name(size, "note")))?, peaks }))
    }

    fn write(&self, checkpoint: &NewCheckpoint) -> io::Result<()> {
        let folder = self.of(&checkpoint.tenant);
        fs::create_dir_all(&folder)?;
        let size = checkpoint.size;
        // One process at a time: the edge and a command may both want to make one. The system
        // lets go of the lock with the file.
        let lock = File::create(folder.join(LOCK))?;
        lock.lock()?;
        if sizes(&folder)?.pop().unwrap_or_default() != checkpoint.previous {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let peaks: String = checkpoint.peaks.iter().map(|peak| format!("{peak}\n")).collect();
        replace(&folder.join(name(size, "leaves")), &Leaf::lines(&checkpoint.leaves))?;
        replace(&folder.join(name(size, "frontier")), peaks.as_bytes())?;
        let mut note =
            OpenOptions::new().write(true).create_new(true).open(folder.join(name(size, "note")))?;
        note.write_all(checkpoint.note.as_bytes())?;
        note.sync_all()?;
        File::open(&folder)?.sync_all()
    }
}

impl Checkpoints for CheckpointFolder {
    async fn last(&self, tenant: &TenantId) -> Result<Option<LastCheckpoint>, PortError> {
        self.read_last(tenant).map_err(port_error)
    }

    async fn put(&self, checkpoint: NewCheckpoint) -> Result<(), PortError> {
        self.write(&checkpoint).map_err(port_error)
    }
}

fn port_error(error: io::Error) -> PortError {
    let text = format!("checkpoint folder: {error}");
    if error.kind() == io::ErrorKind::InvalidData {
        PortError::Permanent(text)
    } else {
        PortError::Transient(text)
    }
}

/// The file of a checkpoint, named after the size of its log.
pub(crate) fn name(size: u64, what: &str) -> String {
    format!("{size:012}.{what}")
}

/// Sizes of which there is a note, ascending.
fn sizes(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut sizes = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let size = file.to_str().and_then(|file| file.strip_suffix(".note")?.parse().ok());
        sizes.extend(size.filter(|size| file.to_str() == Some(name(*size, "note").as_str())));
    }
    sizes.sort_unstable();
    Ok(sizes)
}

fn bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a file is larger than any of its kind"));
    }
    fs::read(path)
}

fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(bounded(path, FILE_LEN_MAX)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a file is not text"))
}

/// Writes a file whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("part");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
