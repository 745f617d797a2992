//! The storm: seeds by the million against the whole signalling of the product, judged by
//! independent checks of its invariants (I1 to I18 and I20 of the list in
//! `tests/README.md`). The real router, call machines and SIP stack run; messages are bytes and
//! time is virtual. Callers, phones, voice agents, pages, functions, the CRM and the network
//! do what one number says, and the same number does it again.
//!
//! Media is not simulated frame by frame: a plane that keeps the contract of plans and
//! reports stands in for the engine, and who hears whom is judged on the plans and on whose
//! audio flows. Tones, frames and sequence numbers are judged over the real engine by the
//! system tests. Not here either: disk, crash and recovery (I19, I21 to I23), hostile input
//! (the fuzz targets), and the port quarantine, which is the media thread's.
//!
//! In reading order: `plan` (what a seed holds), `wire` and `peer` (telephones), `media` (the
//! plane), `world` (everything together), `check` (the judges), `sabotage` (planted bugs) and
//! `shrink`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a judge looks at the few kinds of fact that its invariants are about"
)]

pub mod chance;
pub mod check;
mod house;
pub mod media;
pub mod peer;
pub mod plan;
pub mod sabotage;
pub mod shrink;
mod voice;
pub mod wire;
pub mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use self::plan::Plan;
use self::sabotage::Bug;
use self::world::{Verdict, play};

/// Seeds that a thread takes at a time: enough that the counter costs nothing.
const BATCH: u64 = 64;

/// What a range of seeds gave.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Seeds played.
    pub seeds: u64,
    /// Events in them.
    pub events: u64,
    /// Facts by type.
    pub facts: BTreeMap<&'static str, u64>,
    /// The lowest failing seed found, and how it failed.
    pub failed: Option<(u64, Verdict)>,
}

/// Plays seeds `from..from + seeds` on so many threads, up to the first that fails.
pub fn sweep(from: u64, seeds: u64, threads: usize, bug: Option<Bug>) -> Sum {
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut own = Sum::default();
                while !stop.load(Ordering::Relaxed) {
                    let first = next.fetch_add(BATCH, Ordering::Relaxed);
                    let last = (first + BATCH).min(from + seeds);
                    if first >= last {
                        break;
                    }
                    for seed in first..last {
                        let verdict = play(&Plan::of(seed), bug, false);
                        own.seeds += 1;
                        own.events += verdict.events;
                        for (kind, count) in &verdict.facts {
                            *own.facts.entry(kind).or_insert(0) += count;
                        }
                        if !verdict.violations.is_empty() {
                            stop.store(true, Ordering::Relaxed);
                            own.failed = Some((seed, verdict));
                            break;
                        }
                    }
                }
                sum.lock().unwrap_or_else(PoisonError::into_inner).add(own);
            });
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        for (kind, count) in other.facts {
            *self.facts.entry(kind).or_insert(0) += count;
        }
        let lower = |failed: &(u64, Verdict)| self.failed.as_ref().is_none_or(|known| failed.0 < known.0);
        if let Some(failed) = other.failed.filter(lower) {
            self.failed = Some(failed);
        }
    }
}
