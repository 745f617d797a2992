//! The database thread: takes jobs, runs each in its own savepoint, commits them together,
//! then answers. Nobody else writes.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use handoff::clock::Timestamp;
use handoff::seal::SealKey;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::{ClockFn, Committed, StoreError};

/// Longest time between the first job of a group and its commit begins. Higher groups more
/// jobs into one flush of the disk, lower answers sooner.
const GROUP_MAX: Duration = Duration::from_millis(5);

/// Most jobs in one group: a failed commit fails them all.
const GROUP_JOBS_MAX: usize = 512;

/// What a job may use.
pub struct Tx<'a> {
    /// The write connection, inside a savepoint.
    pub(crate) conn: &'a Connection,
    /// The store's key.
    pub(crate) key: &'a SealKey,
    /// When the group began.
    pub(crate) now: Timestamp,
    active: Cell<bool>,
}

impl<'a> Tx<'a> {
    /// A transaction that began at `now`.
    pub(super) const fn new(conn: &'a Connection, key: &'a SealKey, now: Timestamp) -> Self {
        Self { conn, key, now, active: Cell::new(false) }
    }

    /// Says that queues changed, so that workers look again after the commit.
    pub(crate) fn mark_active(&self) {
        self.active.set(true);
    }
}

/// A job with its answer.
pub(super) trait Job: Send {
    /// Does the work and keeps the result; says whether it may be committed.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// Answers with the commit's number, or with why there was none.
    fn answer(self: Box<Self>, commit: Result<u64, StoreError>);
    /// Forgets what the work returned, because it panicked.
    fn panicked(&mut self);
}

type Reply<T> = oneshot::Sender<Result<Committed<T>, StoreError>>;

pub(super) struct Typed<T, F> {
    work: Option<F>,
    result: Result<Option<T>, StoreError>,
    reply: Reply<T>,
}

impl<T, F> Typed<T, F> {
    pub(super) const fn new(work: F, reply: Reply<T>) -> Self {
        Self { work: Some(work), result: Ok(None), reply }
    }
}

impl<T, F> Job for Typed<T, F>
where
    T: Send,
    F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> bool {
        if let Some(work) = self.work.take() {
            self.result = work(tx).map(Some);
        }
        self.result.is_ok()
    }

    fn panicked(&mut self) {
        self.result = Err(StoreError::Panicked);
    }

    fn answer(self: Box<Self>, commit: Result<u64, StoreError>) {
        let answer = match (self.result, commit) {
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(Some(value)), Ok(commit)) => Ok(Committed { value, commit }),
            (Ok(None), Ok(_)) => Err(StoreError::Closed),
        };
        // Whoever asked may have stopped waiting; the work is durable all the same.
        let _gone = self.reply.send(answer);
    }
}

pub(super) fn start(
    connection: Connection,
    key: SealKey,
    clock: ClockFn,
    jobs: Receiver<Box<dyn Job>>,
    activity: watch::Sender<u64>,
) -> Result<JoinHandle<()>, StoreError> {
    let thread = Builder::new().name("store".to_owned()).spawn(move || {
        let mut commits = 0;
        while let Ok(first) = jobs.recv() {
            let tx = Tx::new(&connection, &key, clock());
            commit_group(&tx, first, &jobs, &mut commits);
            if tx.active.get() {
                activity.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        close(connection);
    })?;
    Ok(thread)
}

fn commit_group(tx: &Tx<'_>, first: Box<dyn Job>, jobs: &Receiver<Box<dyn Job>>, commits: &mut u64) {
    if let Err(error) = tx.conn.execute_batch("BEGIN IMMEDIATE") {
        tracing::warn!(%error, "store transaction did not begin");
        first.answer(Err(error.into()));
        return;
    }
    let started = Instant::now();
    let mut done = Vec::new();
    let mut next = Some(first);
    while let Some(mut job) = next {
        run_alone(tx, job.as_mut());
        done.push(job);
        let room = done.len() < GROUP_JOBS_MAX && started.elapsed() < GROUP_MAX;
        next = if room { jobs.try_recv().ok() } else { None };
    }
    let committed = tx.conn.execute_batch("COMMIT");
    match committed {
        Ok(()) => {
            *commits += 1;
            for job in done {
                job.answer(Ok(*commits));
            }
        }
        Err(error) => {
            tracing::error!(%error, "store commit failed");
            let _already_rolled_back = tx.conn.execute_batch("ROLLBACK");
            for job in done {
                job.answer(Err(StoreError::Commit(error.to_string())));
            }
        }
    }
}

/// Runs one job in its savepoint. What fails or panics leaves nothing behind.
fn run_alone(tx: &Tx<'_>, job: &mut dyn Job) {
    if tx.conn.execute_batch("SAVEPOINT job").is_err() {
        job.panicked();
        return;
    }
    let keep = catch_unwind(AssertUnwindSafe(|| job.run(tx))).unwrap_or_else(|_| {
        job.panicked();
        false
    });
    let end = if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    if let Err(error) = tx.conn.execute_batch(end) {
        tracing::error!(%error, "store savepoint did not end");
    }
}

/// A clean exit leaves no write-ahead log behind.
fn close(connection: Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(%error, "store log was not truncated");
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "store did not close cleanly");
    }
}
