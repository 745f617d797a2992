//! Where the functions of this edge run: in this process, over the embedded store, or in the
//! cloud, behind the feature `aws`. The edge's loop sees a store, commands that come in, and
//! nothing of the difference.

use anyhow::{Context, Result};
use functions::local::Workers;
use functions::sqlite::Store;
use handoff::command::Command;
use tokio::sync::mpsc;

#[cfg(feature = "aws")]
use crate::cloud::Cloud;
use crate::config::Config;
use crate::io::spool::Place;
use crate::local::Local;
use crate::setup::Setup;

/// The functions, wherever they run.
#[derive(Debug)]
pub enum ControlPlane {
    /// In this process.
    Local(Local),
    /// In a deployed stack.
    #[cfg(feature = "aws")]
    Cloud(Box<Cloud>),
}

impl ControlPlane {
    /// Opens the store of a configuration.
    pub fn open(config: &Config) -> Result<Store> {
        Ok(Store::open(&config.edge.data_dir)?)
    }

    /// Starts the functions, or finds those of the stack that the configuration names. Their
    /// orders for the edge arrive on the returned channel.
    #[cfg_attr(not(feature = "aws"), expect(clippy::unused_async, reason = "the cloud is asked"))]
    pub async fn start(
        store: Store,
        config: &Config,
        setup: &mut Setup,
    ) -> Result<(Self, mpsc::Receiver<Command>)> {
        match &config.aws {
            None => {
                let (local, commands) = Local::start(store, setup).context("the functions cannot start")?;
                Ok((Self::Local(local), commands))
            }
            #[cfg(feature = "aws")]
            Some(aws) => {
                let (cloud, commands) = Cloud::start(store, aws, setup)
                    .await
                    .with_context(|| format!("the stack {} cannot be used", aws.stack))?;
                Ok((Self::Cloud(Box::new(cloud)), commands))
            }
            #[cfg(not(feature = "aws"))]
            Some(aws) => anyhow::bail!("this build has no adapters for the stack {}", aws.stack),
        }
    }

    /// The functions go by a new configuration; running calls keep their policy.
    #[cfg_attr(not(feature = "aws"), expect(clippy::unused_async, reason = "the cloud is asked"))]
    pub async fn reload(&self, setup: &mut Setup) -> Result<()> {
        match self {
            Self::Local(local) => {
                local.reload(setup);
                Ok(())
            }
            #[cfg(feature = "aws")]
            Self::Cloud(cloud) => cloud.reload(setup).await,
        }
    }

    /// The store of this machine.
    pub fn store(&self) -> &Store {
        match self {
            Self::Local(local) => local.store(),
            #[cfg(feature = "aws")]
            Self::Cloud(cloud) => cloud.store(),
        }
    }

    /// Where what the edge stores is meant for.
    pub const fn place(&self) -> Place {
        match self {
            Self::Local(_) => Place::Here,
            #[cfg(feature = "aws")]
            Self::Cloud(_) => Place::Cloud,
        }
    }

    /// The workers, where they are in this process.
    pub fn workers(&self) -> Option<&Workers> {
        match self {
            Self::Local(local) => Some(local.workers()),
            #[cfg(feature = "aws")]
            Self::Cloud(_) => None,
        }
    }

    /// Resolves when every queue is empty, retries of the durable lane aside, and, in this
    /// process, the chain of every ended call is closed.
    pub async fn idle(&self) -> Result<()> {
        match self {
            Self::Local(local) => local.idle().await,
            #[cfg(feature = "aws")]
            Self::Cloud(cloud) => cloud.idle().await,
        }
    }

    /// Signs what moved since the last checkpoint, where this process makes them: a stack has
    /// a checkpointer of its own.
    pub async fn checkpoint(&self) -> Result<()> {
        match self {
            Self::Local(local) => local.checkpoint().await,
            #[cfg(feature = "aws")]
            Self::Cloud(_) => Ok(()),
        }
    }

    /// Stops: what is queued stays queued.
    pub async fn stop(self) {
        match self {
            Self::Local(local) => local.stop().await,
            #[cfg(feature = "aws")]
            Self::Cloud(cloud) => cloud.stop().await,
        }
    }
}
