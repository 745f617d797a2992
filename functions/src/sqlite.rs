//! The embedded store: one SQLite file that holds queues, audit chains, payloads and keys
//! of an installation without a cloud. One thread owns the only connection that writes. It
//! gathers jobs for at most [`GATHER`] and commits them together, each in a savepoint of its
//! own, so that one failing job fails alone; a job's answer leaves only after the commit.
//! WAL with `synchronous=FULL`: what was answered survives a power cut.

pub mod keys;
pub mod queue;
pub mod schema;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use handoff::seal::SealKey;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

/// Jobs of this long are committed together. Longer saves syncs and delays what waits for
/// them; a phone cannot tell five milliseconds.
pub const GATHER: Duration = Duration::from_millis(5);

/// Jobs waiting for the thread. At some thousand commits a second this is seconds of work;
/// beyond it the disk is not late, it is gone, and the producer is told.
const JOBS_MAX: usize = 16_384;

/// Jobs in one commit, so that a burst does not hold its first job back.
const COMMIT_MAX: usize = 512;

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no.
    #[error("the store refused: {0}")]
    Database(#[from] rusqlite::Error),
    /// The folder or the key file cannot be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key file has the wrong length: it is not ours.
    #[error("{0} is not a key of this store (32 bytes)")]
    BadKey(PathBuf),
    /// A stored body was not sealed by this store's key.
    #[error("a stored body cannot be opened with this store's key")]
    Unsealed,
    /// More jobs are waiting than the disk can take.
    #[error("the store is overloaded: {JOBS_MAX} jobs are waiting")]
    Overloaded,
    /// The store was stopped.
    #[error("the store is stopped")]
    Stopped,
    /// The system has no randomness.
    #[error("the system has no randomness")]
    NoRandomness,
    /// Stored bytes are not what this version writes.
    #[error("the store holds something that this version cannot read: {0}")]
    Unreadable(String),
}

impl StoreError {
    /// The same job may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Overloaded | Self::Stopped => true,
            Self::Database(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::DatabaseBusy
                        | rusqlite::ErrorCode::DatabaseLocked
                        | rusqlite::ErrorCode::DiskFull
                        | rusqlite::ErrorCode::SystemIoFailure
                )
            ),
            Self::File { .. }
            | Self::BadKey(_)
            | Self::Unsealed
            | Self::NoRandomness
            | Self::Unreadable(_) => false,
        }
    }
}

type Work = Box<dyn FnOnce(&Connection) -> Result<Answer, StoreError> + Send>;
/// Sends a job's answer; called after the commit, with its fate.
type Answer = Box<dyn FnOnce(bool) + Send>;

enum Job {
    Work(Work),
    Stop,
}

/// The store. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    jobs: SyncSender<Job>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
    key: Arc<SealKey>,
    changed: tokio::sync::Notify,
}

impl Store {
    /// Opens or creates the store in `dir`: `warmbridge.db` and `store.key` (mode 0600).
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|source| StoreError::File { path: dir.to_owned(), source })?;
        let key = read_or_make_key(&dir.join("store.key"))?;
        let path = dir.join("warmbridge.db");
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        schema::create(&connection)?;
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(connection, &queue))
            .map_err(|source| StoreError::File { path: path.clone(), source })?;
        let shared = Shared {
            jobs,
            thread: std::sync::Mutex::new(Some(thread)),
            path,
            key: Arc::new(key),
            changed: tokio::sync::Notify::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The store's key.
    pub fn key(&self) -> &Arc<SealKey> {
        &self.shared.key
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Wakes when something was written.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Hands a job to the database thread. The receiver gets the job's result after its
    /// commit. The job sees the results of the jobs before it.
    pub fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::downgrade(&self.shared);
        // The answer is sent by the thread; where the queue refuses the job, by us.
        let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
        let ours = Arc::clone(&sender);
        let send = move |result: Result<T, StoreError>| {
            if let Some(sender) = sender.lock().ok().and_then(|mut slot| slot.take()) {
                // Whoever asked may be gone; the work is done all the same.
                let _ = sender.send(result);
            }
        };
        let work: Work = Box::new(move |connection| match job(connection) {
            Ok(value) => Ok(Box::new(move |committed| {
                send(if committed { Ok(value) } else { Err(StoreError::Stopped) });
                if let Some(shared) = shared.upgrade() {
                    shared.changed.notify_waiters();
                }
            })),
            Err(error) => {
                send(Err(error));
                Err(StoreError::Stopped)
            }
        });
        let refusal = match self.shared.jobs.try_send(Job::Work(work)) {
            Ok(()) => None,
            Err(TrySendError::Full(_)) => Some(StoreError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Some(StoreError::Stopped),
        };
        if let Some(error) = refusal
            && let Some(sender) = ours.lock().ok().and_then(|mut slot| slot.take())
        {
            let _ = sender.send(Err(error));
        }
        receiver
    }

    /// [`Self::submit`], awaited.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submit(job).await.unwrap_or(Err(StoreError::Stopped))
    }

    /// A connection that reads committed state, and only reads.
    pub fn reader(&self) -> Result<Connection, StoreError> {
        open_reader(&self.shared.path)
    }

    /// Commits what waits, truncates the log and closes the file. Later jobs are refused.
    pub async fn stop(&self) {
        let _ = self.shared.jobs.send(Job::Stop);
        let thread = self.shared.thread.lock().ok().and_then(|mut slot| slot.take());
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// A read-only connection to a store, also to one that no process has open.
pub fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

fn run(connection: Connection, jobs: &Receiver<Job>) {
    let mut stopped = false;
    while !stopped {
        let Ok(first) = jobs.recv() else { break };
        let mut answers = Vec::new();
        if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
            tracing::error!(%error, "the store cannot begin a transaction");
        }
        let gathered = Instant::now() + GATHER;
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Work(work) => answers.extend(in_savepoint(&connection, work)),
                Job::Stop => {
                    stopped = true;
                    break;
                }
            }
            if answers.len() >= COMMIT_MAX {
                break;
            }
            // Jobs that are already there share the commit; the thread waits for more only
            // as long as the first job may wait.
            next = jobs.recv_timeout(gathered.saturating_duration_since(Instant::now())).ok();
        }
        let committed = match connection.execute_batch("COMMIT") {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the store cannot commit");
                let _ = connection.execute_batch("ROLLBACK");
                false
            }
        };
        for answer in answers {
            answer(committed);
        }
    }
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "the store's log could not be truncated");
    }
}

fn in_savepoint(connection: &Connection, work: Work) -> Option<Answer> {
    connection.execute_batch("SAVEPOINT job").ok()?;
    // A panicking job is our bug; it must not take the store with it.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(connection)));
    match done {
        Ok(Ok(answer)) => connection.execute_batch("RELEASE job").ok().map(|()| answer),
        Ok(Err(_)) | Err(_) => {
            let _ = connection.execute_batch("ROLLBACK TO job; RELEASE job");
            None
        }
    }
}

fn read_or_make_key(path: &Path) -> Result<SealKey, StoreError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = |source| StoreError::File { path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) => SealKey::from_slice(&bytes).map_err(|_| StoreError::BadKey(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0_u8; 32];
            getrandom::fill(&mut key).map_err(|_| StoreError::NoRandomness)?;
            let mut options = std::fs::OpenOptions::new();
            let mut created = options.write(true).create_new(true).mode(0o600).open(path).map_err(file)?;
            created.write_all(&key).and_then(|()| created.sync_all()).map_err(file)?;
            Ok(SealKey::new(key))
        }
        Err(error) => Err(file(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn count(store: &Store) -> i64 {
        store.reader().unwrap().query_row("SELECT count(*) FROM claims", [], |row| row.get(0)).unwrap()
    }

    fn claim(store: &Store, name: &str) -> oneshot::Receiver<Result<usize, StoreError>> {
        let name = name.to_owned();
        store.submit(move |connection| {
            Ok(connection
                .execute("INSERT INTO claims (id, until_ms, state) VALUES (?1, 0, 'done')", [name])?)
        })
    }

    #[tokio::test]
    async fn a_failing_job_fails_alone() {
        let (_dir, store) = store();
        let (first, twice, last) = (claim(&store, "a"), claim(&store, "a"), claim(&store, "b"));
        assert!(first.await.unwrap().is_ok());
        assert!(matches!(twice.await.unwrap(), Err(StoreError::Database(_))));
        assert!(last.await.unwrap().is_ok());
        assert_eq!(count(&store), 2);
    }

    #[tokio::test]
    async fn a_panicking_job_leaves_the_store_alive() {
        let (_dir, store) = store();
        let panicked = store.submit::<()>(|_| panic!("a planted bug"));
        assert!(panicked.await.is_err(), "nobody answers for it");
        assert!(claim(&store, "a").await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_stop_and_the_log_is_empty() {
        let (dir, store) = store();
        assert!(claim(&store, "a").await.unwrap().is_ok());
        store.stop().await;
        assert!(matches!(claim(&store, "b").await.unwrap(), Err(StoreError::Stopped)));
        let log = dir.path().join("warmbridge.db-wal");
        assert_eq!(std::fs::metadata(log).map_or(0, |meta| meta.len()), 0);
        assert_eq!(count(&Store::open(dir.path()).unwrap()), 1);
    }

    #[test]
    fn a_key_file_of_another_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("store.key"), b"short").unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::BadKey(_))));
    }
}
