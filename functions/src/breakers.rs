//! The circuit breakers of one process, one per destination. In the cloud each copy of the
//! function has its own: a destination that is down is then tried by each of them a few times,
//! which needs no shared state and no more trust in it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use handoff::clock::Now;
use handoff::delivery::AttemptResult;
use handoff::delivery::breaker::{Admission, Breaker};
use handoff::id::DestinationId;

/// See the module. Destinations come from the configuration, which bounds their number.
#[derive(Debug, Default)]
pub struct Breakers(Mutex<BTreeMap<DestinationId, Breaker>>);

impl Breakers {
    /// Asks for one try.
    pub fn admit(&self, destination: &DestinationId, now: Now) -> Admission {
        self.with(destination, |breaker| breaker.admit(now))
    }

    /// Takes the result of a try.
    pub fn record(&self, destination: &DestinationId, now: Now, result: AttemptResult) {
        if self.with(destination, |breaker| breaker.record(now, result)) {
            tracing::warn!(%destination, "webhooks rest: this destination failed too often in a row");
        }
    }

    fn with<T>(&self, destination: &DestinationId, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(breakers.entry(destination.clone()).or_default())
    }
}
