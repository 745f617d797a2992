//! The embedded store: one database file, one thread that owns the only write connection.
//! It groups jobs into commits at most 5 ms apart, gives each job its own savepoint so that
//! one failing job fails alone, and answers after the commit. Readers have connections of
//! their own, read-only. What is personal is sealed before it is written: queue bodies with
//! the store's key, payloads and transcripts with the key of their call.

mod access;
pub mod dead;
pub mod erase;
mod heads;
pub(crate) mod ledger;
mod once;
mod ports;
pub(crate) mod queue;
pub mod retention;
mod schema;
pub(crate) mod vault;
mod writer;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use handoff::audit::BadEntry;
use handoff::clock::Timestamp;
use handoff::seal::{KEY_LEN, NONCE_LEN, SealError, SealKey};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{oneshot, watch};
use zeroize::Zeroizing;

pub use access::{recorded_access, recorded_export};
pub use heads::HeadsOutside;
pub use ledger::CLOSE_ANYWAY_AFTER_MS;
pub use once::Once;
pub use queue::{QUEUES, QueueSettings, Received, Row};
pub use vault::fresh_key;
pub use writer::Tx;

use crate::ports::PortError;
use writer::{Job, Typed};

/// Name of the database file in its directory.
pub const DATABASE: &str = "warmbridge.db";

/// Name of the file that holds the store's key.
pub const KEY_FILE: &str = "store.key";

/// Most jobs that wait for the writer. Fewer would refuse a burst of a thousand calls, more
/// would only hide that the disk is too slow.
const JOBS_MAX: usize = 8_192;

/// How long a reader or the writer waits for a lock that another process holds, in
/// milliseconds; a backup or the command line holds one briefly.
const BUSY_TIMEOUT_MS: u64 = 2_000;

/// Something is wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file in it.
    #[error("store file: {0}")]
    File(#[from] std::io::Error),
    /// The database.
    #[error("store database: {0}")]
    Database(#[source] rusqlite::Error),
    /// The whole group of jobs was not committed.
    #[error("commit failed: {0}")]
    Commit(String),
    /// The file is of another version, or of another program.
    #[error("store version {0}: this program reads and writes version 2 only")]
    Version(i64),
    /// A key or a sealed text is not right.
    #[error("sealed data: {0}")]
    Sealed(#[from] SealError),
    /// The key of this call was destroyed.
    #[error("the data key of this call is destroyed")]
    Erased,
    /// An audit entry cannot be recorded.
    #[error(transparent)]
    Audit(#[from] BadEntry),
    /// Rows of the store contradict each other.
    #[error("store rows are damaged: {0}")]
    Damaged(&'static str),
    /// A legal hold forbids it.
    #[error("a legal hold stands on this call")]
    Held,
    /// No randomness from the system.
    #[error("the system gives no randomness")]
    NoRandomness,
    /// Too many jobs wait.
    #[error("the store is too busy")]
    Busy,
    /// The job panicked; nothing of it was written.
    #[error("a store job panicked")]
    Panicked,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Another process has it: two would each take the other's messages for left behind.
    #[error("another process uses this store")]
    InUse,
}

impl StoreError {
    /// Whether the same job may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => !matches!(
                error.sqlite_error_code(),
                // What the same job would do again.
                None | Some(
                    ErrorCode::ConstraintViolation
                        | ErrorCode::TypeMismatch
                        | ErrorCode::TooBig
                        | ErrorCode::ParameterOutOfRange
                        | ErrorCode::ApiMisuse
                        | ErrorCode::NotADatabase
                )
            ),
            Self::File(_) | Self::Commit(_) | Self::NoRandomness | Self::Busy | Self::Closed => true,
            Self::Version(_)
            | Self::Sealed(_)
            | Self::Erased
            | Self::Audit(_)
            | Self::Damaged(_)
            | Self::Held
            | Self::InUse
            | Self::Panicked => false,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // A column that holds another type than is written there was written by somebody else.
        let foreign = matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..)
        );
        if foreign { Self::Damaged("a column of a row") } else { Self::Database(error) }
    }
}

impl From<StoreError> for PortError {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            Self::Transient(error.to_string())
        } else {
            Self::Permanent(error.to_string())
        }
    }
}

/// A value with the number of the commit that made it durable. Numbers only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the job returned.
    pub value: T,
    /// The commit.
    pub commit: u64,
}

/// The promise of a commit: await it, or wait for it on a thread that may block.
#[derive(Debug)]
pub struct Receipt<T>(oneshot::Receiver<Result<Committed<T>, StoreError>>);

impl<T> Receipt<T> {
    /// Resolves after the commit.
    pub async fn committed(self) -> Result<Committed<T>, StoreError> {
        self.await
    }

    /// Blocks until the commit. Never call it on a thread that runs async tasks.
    pub fn wait(self) -> Result<Committed<T>, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

/// Resolves after the commit. Awaiting it by reference leaves it whole when the wait is cut.
impl<T> Future for Receipt<T> {
    type Output = Result<Committed<T>, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}

/// Gives the time; a test gives its own.
pub type ClockFn = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The embedded store. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    key: SealKey,
    clock: ClockFn,
    jobs: Option<std::sync::mpsc::SyncSender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
    /// One read-only connection for lookups; lookups are short and few.
    reader: Mutex<Option<Connection>>,
    /// Counts commits that made a message visible or took one away.
    activity: watch::Sender<u64>,
    /// Held for as long as the store is open; the system lets go of it with the process.
    _lock: fs::File,
}

impl Store {
    /// Opens or creates the store in `dir`.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Arc::new(wall_clock))
    }

    /// Opens or creates the store in `dir` with a clock of the caller's.
    pub fn open_with(dir: &Path, clock: ClockFn) -> Result<Self, StoreError> {
        fs::create_dir_all(dir)?;
        let key = open_key(dir)?;
        let lock = lock(dir)?;
        let connection = open_for_writing(dir)?;
        let reader = open_for_reading(dir)?;
        let (jobs, queue) = std::sync::mpsc::sync_channel(JOBS_MAX);
        let (activity, _) = watch::channel(0);
        let writer = writer::start(connection, key.clone(), clock.clone(), queue, activity.clone())?;
        let shared = Shared {
            dir: dir.to_owned(),
            key,
            clock,
            jobs: Some(jobs),
            writer: Some(writer),
            reader: Mutex::new(Some(reader)),
            activity,
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Runs `work` in its own savepoint and answers after the commit. Fails at once when too
    /// many jobs wait.
    pub fn run<T, F>(&self, work: F) -> Receipt<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, receipt) = oneshot::channel();
        let job = Box::new(Typed::new(work, reply));
        let refused = match self.shared.jobs.as_ref() {
            Some(jobs) => jobs.try_send(job).err(),
            None => Some(std::sync::mpsc::TrySendError::Disconnected(job as Box<dyn Job>)),
        };
        match refused {
            None => {}
            Some(std::sync::mpsc::TrySendError::Full(job)) => job.answer(Err(StoreError::Busy)),
            Some(std::sync::mpsc::TrySendError::Disconnected(job)) => job.answer(Err(StoreError::Closed)),
        }
        Receipt(receipt)
    }

    /// Writes rows (messages, payloads, keys) in one transaction.
    pub fn submit(&self, rows: impl Into<Arc<[Row]>>) -> Receipt<()> {
        let rows = rows.into();
        self.run(move |tx| rows.iter().try_for_each(|row| queue::insert(tx, row)))
    }

    /// A key that follows from the store's and from what it is for.
    pub fn derived_key(&self, purpose: &str) -> [u8; KEY_LEN] {
        self.shared.key.derived(purpose)
    }

    /// Reads with the shared read-only connection.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection, &SealKey) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let guard = self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = guard.as_ref().ok_or(StoreError::Closed)?;
        read(connection, &self.shared.key)
    }

    /// The time by the store's clock.
    pub fn wall(&self) -> Timestamp {
        (self.shared.clock)()
    }

    /// Changes whenever a message became visible or was taken away.
    pub(crate) fn activity(&self) -> watch::Receiver<u64> {
        self.shared.activity.subscribe()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.shared.dir.display())
    }
}

impl Drop for Shared {
    /// A clean exit: readers go first, so that the writer can truncate the log.
    fn drop(&mut self) {
        drop(self.reader.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
    }
}

/// Takes the store in `dir` for this process: whoever holds its key file has it.
fn lock(dir: &Path) -> Result<fs::File, StoreError> {
    let file = fs::File::open(dir.join(KEY_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// A read-only connection to the database in `dir`.
pub(crate) fn open_for_reading(dir: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(dir.join(DATABASE), flags)?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    schema::check(&connection)?;
    Ok(connection)
}

/// The store's key, where it can be read.
pub(crate) fn read_key(dir: &Path) -> Result<SealKey, StoreError> {
    let bytes = Zeroizing::new(fs::read(dir.join(KEY_FILE))?);
    Ok(SealKey::from_slice(&bytes)?)
}

/// Random bytes for a nonce.
pub fn nonce() -> Result<[u8; NONCE_LEN], StoreError> {
    random()
}

/// Random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::NoRandomness)?;
    Ok(bytes)
}

/// The store's key; made where the store is new. A store that has lost its key is not given
/// another: what the old one sealed would be lost without a word.
fn open_key(dir: &Path) -> Result<SealKey, StoreError> {
    let path = dir.join(KEY_FILE);
    if path.exists() || dir.join(DATABASE).exists() {
        return read_key(dir);
    }
    let bytes = Zeroizing::new(random::<KEY_LEN>()?);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(&*bytes)?;
    file.sync_all()?;
    Ok(SealKey::new(*bytes))
}

fn open_for_writing(dir: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(dir.join(DATABASE))?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A key that is overwritten must not stay readable in a free page.
    connection.pragma_update(None, "secure_delete", true)?;
    schema::create(&connection)?;
    // Whoever held these messages was a process that is gone.
    connection.execute("UPDATE queue SET visible_at = 0, in_flight = 0 WHERE in_flight = 1", [])?;
    Ok(connection)
}

/// The time by the clock of this machine, for the labels of facts.
pub fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
