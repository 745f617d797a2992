//! The clocks of the process, for the ports.

use std::time::Instant;

use handoff::clock::{Now, Timestamp};

use crate::ports::Clock;
use crate::sqlite::wall_clock;

/// The clock of the process.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic epoch is now.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        wall_clock()
    }

    fn now(&self) -> Now {
        Now::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, at: Now) {
        tokio::time::sleep(at.since(self.now())).await;
    }
}
