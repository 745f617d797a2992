//! The functions of this machine: the one place where the edge links them as a library. It
//! opens the embedded store, starts the workers on their own thread, and hands their orders
//! to the edge's loop. With a cloud, queues take its place.

use anyhow::Result;
use functions::local::Workers;
use functions::local::checkpointer::Checkpointer;
use functions::sqlite::Store;
use handoff::command::Command;
use tokio::sync::mpsc;

use crate::setup::Setup;

/// The store and its workers.
#[derive(Debug)]
pub struct Local {
    store: Store,
    workers: Workers,
    checkpointer: Option<Checkpointer>,
}

impl Local {
    /// Starts the workers. Their orders for the edge arrive on the returned channel.
    pub fn start(store: Store, setup: &Setup) -> Result<(Self, mpsc::Receiver<Command>)> {
        let (workers, commands) = Workers::start(store.clone(), (*setup.functions).clone())?;
        let plan = setup.checkpoints.clone();
        let checkpointer = plan.map(|plan| Checkpointer::start(store.clone(), plan)).transpose()?;
        Ok((Self { store, workers, checkpointer }, commands))
    }

    /// The functions go by a new configuration; running calls keep their policy.
    pub fn reload(&self, setup: &Setup) {
        self.workers.reload((*setup.functions).clone());
    }

    /// The embedded store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The workers.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Resolves when every queue is empty, retries of the durable lane aside, and the chain
    /// of every ended call is closed.
    pub async fn idle(&self) -> Result<()> {
        Ok(self.workers.idle().await?)
    }

    /// Signs what moved since the last checkpoint, where checkpoints are configured.
    pub async fn checkpoint(&self) -> Result<()> {
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.make().await?;
        }
        Ok(())
    }

    /// Stops the workers, makes a last checkpoint, then stops the store: what is queued stays
    /// queued. All wait for their threads, which would hold up this one.
    pub async fn stop(self) {
        let Self { store, workers, checkpointer } = self;
        let stopped = tokio::task::spawn_blocking(move || {
            workers.stop();
            drop(checkpointer);
            drop(store);
        });
        // A panic there has been reported there.
        let _ = stopped.await;
    }
}
