//! The functions of a deployed stack: the edge spools as always, and a thread of its own takes
//! the spool to the stack's queues and brings commands back. The edge needs nothing of it to
//! keep a call: where the cloud is late or gone, it decides by itself.

use anyhow::Result;
use functions::aws::forward::Forwarder;
use functions::sqlite::Store;
use handoff::command::Command;
use tokio::sync::mpsc;

use crate::config::Aws;
use crate::setup::Setup;

/// The store and its forwarder.
#[derive(Debug)]
pub struct Cloud {
    store: Store,
    forwarder: Forwarder,
}

impl Cloud {
    /// Finds the stack, publishes the settings of its functions, and starts to forward.
    pub async fn start(
        store: Store,
        aws: &Aws,
        setup: &mut Setup,
    ) -> Result<(Self, mpsc::Receiver<Command>)> {
        let (forwarder, commands) =
            Forwarder::start(store.clone(), &aws.stack, &aws.media_bucket, &setup.functions, &setup.policy)
                .await?;
        setup.commands.clone_from(&forwarder.commands_url);
        Ok((Self { store, forwarder }, commands))
    }

    /// Publishes new settings, before the first call that is pinned to them.
    pub async fn reload(&self, setup: &mut Setup) -> Result<()> {
        self.forwarder.publish(&setup.functions, &setup.policy).await?;
        setup.commands.clone_from(&self.forwarder.commands_url);
        Ok(())
    }

    /// The store of this machine.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Resolves when the cloud has everything.
    pub async fn idle(&self) -> Result<()> {
        Ok(self.forwarder.idle().await?)
    }

    /// Stops: what is spooled stays spooled. Waits for threads, which would hold up this one.
    pub async fn stop(self) {
        let Self { store, forwarder } = self;
        let stopped = tokio::task::spawn_blocking(move || {
            forwarder.stop();
            drop(store);
        });
        // A panic there has been reported there.
        let _ = stopped.await;
    }
}
