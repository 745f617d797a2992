//! The circuit breakers of one process, one per destination. In the cloud each copy of the
//! function has its own: a destination that is down is then tried by each of them a few times,
//! which needs no shared state and no more trust in it. An operator may hold them all open.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use handoff::clock::Now;
use handoff::delivery::AttemptResult;
use handoff::delivery::breaker::{Admission, Breaker};
use handoff::id::DestinationId;

/// How long a message rests that an operator holds, before it asks again. A message of the
/// durable lane may be taken thirty times before it is a dead letter, so that they keep for
/// seven hours; shorter keeps them for less, longer makes them wait on when they are let go.
const HELD: Duration = Duration::from_secs(15 * 60);

/// See the module. Destinations come from the configuration, which bounds their number.
#[derive(Debug, Default)]
pub struct Breakers {
    each: Mutex<BTreeMap<DestinationId, Breaker>>,
    held: AtomicBool,
}

impl Breakers {
    /// Holds all of them open, whatever their destinations do, or no longer.
    pub fn hold_all(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Asks for one try.
    pub fn admit(&self, destination: &DestinationId, now: Now) -> Admission {
        if self.held.load(Ordering::Relaxed) {
            return Admission::Wait(now + HELD);
        }
        self.with(destination, |breaker| breaker.admit(now))
    }

    /// Takes the result of a try.
    pub fn record(&self, destination: &DestinationId, now: Now, result: AttemptResult) {
        if self.with(destination, |breaker| breaker.record(now, result)) {
            tracing::warn!(%destination, "webhooks rest: this destination failed too often in a row");
        }
    }

    fn with<T>(&self, destination: &DestinationId, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breakers = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        act(breakers.entry(destination.clone()).or_default())
    }
}
