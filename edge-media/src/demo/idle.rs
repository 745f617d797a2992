//! What the machine itself adds to every figure of a demo: the lateness of clocks that have
//! nothing else to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// An idle 20 ms clock on every processor: what the worst of them is late by, the machine is
/// late by. One alone would not see the stall of another processor, where the audio may run.
#[derive(Debug)]
pub struct IdleClock {
    stop: Arc<AtomicBool>,
    worst_us: Arc<AtomicU64>,
}

impl IdleClock {
    /// Starts the clocks.
    pub fn start() -> Self {
        let idle = Self { stop: Arc::default(), worst_us: Arc::default() };
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for processor in 0..processors {
            let (stop, worst) = (Arc::clone(&idle.stop), Arc::clone(&idle.worst_us));
            std::thread::spawn(move || {
                let mut here = CpuSet::new();
                // A processor that is not ours to use leaves its clock to the scheduler.
                let _ = here.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &here));
                Self::run(&stop, &worst);
            });
        }
        idle
    }

    fn run(stop: &AtomicBool, worst: &AtomicU64) {
        let frame = Duration::from_millis(20);
        let mut due = std::time::Instant::now() + frame;
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
            let late = std::time::Instant::now().saturating_duration_since(due);
            worst.fetch_max(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            due += frame.max(late);
        }
    }

    /// Ends them; the worst lateness of any.
    pub fn stop(&self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        Duration::from_micros(self.worst_us.load(Ordering::Relaxed))
    }
}
