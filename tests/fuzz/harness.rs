//! Runs a target on its corpus, then on mutations of it. An input that makes the target behave
//! as none before did is kept and mutated further, which finds its way into a parser without
//! an instrumented build. A panic is a finding: a broken invariant panics as a bug does.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::mutate::{Random, mutate};

/// Inputs kept for their behaviour, beside the corpus. More would be chosen too seldom each.
const KEPT_MAX: usize = 4_096;
/// Inputs that a finding is made smaller with, at most.
const SHRINKS_MAX: usize = 4_000;

/// Something that takes bytes from strangers, and what must hold whatever they are.
pub(crate) struct Target {
    /// Its name: of its corpus and on the command line.
    pub(crate) name: &'static str,
    /// Words that mean something in its inputs.
    pub(crate) words: &'static [&'static str],
    /// Takes one input. Panics where an invariant is broken.
    pub(crate) run: fn(&[u8]) -> Behaviour,
}

/// What an input made happen, in few words: inputs of the same behaviour are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Behaviour(u64);

impl Behaviour {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Notes one thing that happened; the order counts.
    pub(crate) fn note(&mut self, what: &str) {
        for byte in what.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Notes how large something is, roughly.
    pub(crate) fn note_size(&mut self, size: usize) {
        self.note(&usize::BITS.saturating_sub(size.leading_zeros()).to_string());
    }
}

/// An input that breaks its target.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) input: Vec<u8>,
}

/// One target under test.
pub(crate) struct Campaign {
    target: &'static Target,
    pool: Vec<Vec<u8>>,
    seen: BTreeSet<Behaviour>,
    random: Random,
    kept: usize,
    runs: u64,
}

impl Campaign {
    /// A campaign that has its corpus before it.
    pub(crate) fn new(target: &'static Target, seed: u64) -> Self {
        let pool = corpus(target.name);
        Self { target, pool, seen: BTreeSet::new(), random: Random::new(seed), kept: 0, runs: 0 }
    }

    /// The next input: first each of the corpus as it is, then mutations.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let corpus = self.pool.len() - self.kept;
        if let Some(whole) = usize::try_from(self.runs).ok().filter(|run| *run < corpus) {
            return self.pool[whole].clone();
        }
        let mut input = self.random.pick(&self.pool).cloned().unwrap_or_default();
        mutate(&mut self.random, &mut input, &self.pool, self.target.words);
        input
    }

    /// Runs one input.
    pub(crate) fn run(&mut self, input: Vec<u8>) -> Result<(), Finding> {
        let of_corpus = usize::try_from(self.runs).is_ok_and(|run| run < self.pool.len() - self.kept);
        self.runs += 1;
        let Ok(behaviour) = catch_unwind(AssertUnwindSafe(|| (self.target.run)(&input))) else {
            return Err(Finding { input });
        };
        if self.seen.insert(behaviour) && !of_corpus && self.kept < KEPT_MAX {
            self.kept += 1;
            self.pool.push(input);
        }
        Ok(())
    }

    /// Inputs run so far.
    pub(crate) const fn runs(&self) -> u64 {
        self.runs
    }

    /// Behaviours seen so far.
    pub(crate) fn behaviours(&self) -> usize {
        self.seen.len()
    }
}

/// A smaller input that still breaks the target: pieces are left out, large ones first.
pub(crate) fn shrunk(target: &Target, input: &[u8]) -> Vec<u8> {
    let mut smallest = input.to_vec();
    let mut piece = smallest.len() / 2;
    let mut tries = 0;
    while piece > 0 && tries < SHRINKS_MAX {
        let mut at = 0;
        while at < smallest.len() && tries < SHRINKS_MAX {
            let mut without = smallest.clone();
            without.drain(at..(at + piece).min(without.len()));
            tries += 1;
            if catch_unwind(|| (target.run)(&without)).is_err() {
                smallest = without;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    smallest
}

/// The committed inputs of a target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a corpus can be listed").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}: a target without a corpus", folder.display());
    paths.iter().map(|path| std::fs::read(path).expect("a corpus can be read")).collect()
}
