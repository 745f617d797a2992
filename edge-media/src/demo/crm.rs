//! A CRM that receives webhooks, as an outside party: it checks each signature, remembers
//! the message ids, and answers as scripted. It trusts nothing it cannot verify.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use tokio::net::TcpListener;

use crate::io::clock::Clock;
use crate::io::receiver::{self, Answer};

/// One verified webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// `webhook-id`.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// The signature was right and fresh.
    pub verified: bool,
}

/// How the CRM behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 at once.
    Healthy,
    /// 500 at once.
    Down,
}

impl Behaviour {
    const fn answer(self) -> Answer {
        match self {
            Self::Healthy => Answer { status: 200, popped: true },
            Self::Down => Answer { status: 500, popped: false },
        }
    }
}

/// The receiver.
#[derive(Debug)]
pub struct Crm {
    /// `http://…` for the edge's configuration.
    pub url: String,
    /// The secret of this endpoint (`whsec_…`).
    pub secret: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Crm {
    /// Listens on loopback.
    pub async fn start(behaviour: Behaviour, secret: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the demo's CRM cannot listen")?;
        let address: SocketAddr = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        let key = secret.clone();
        let task = tokio::spawn(async move {
            let clock = Clock::start();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (log, key) = (Arc::clone(&log), key.clone());
                tokio::spawn(async move {
                    let judge = |webhook: &receiver::Received| {
                        let (id, kind) = (webhook.id.clone(), webhook.kind.clone());
                        if let Ok(mut log) = log.lock() {
                            log.push(Received { id, kind, verified: webhook.verdict.is_ok() });
                        }
                        behaviour.answer()
                    };
                    // A broken request is the sender's loss, as with any receiver.
                    let _ = receiver::receive(&mut stream, &key, &clock, judge).await;
                });
            }
        });
        Ok(Self { url: format!("http://{address}/warmbridge"), secret, received, task })
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().map(|log| log.clone()).unwrap_or_default()
    }
}

impl Drop for Crm {
    fn drop(&mut self) {
        self.task.abort();
    }
}
