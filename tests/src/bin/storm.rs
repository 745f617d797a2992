//! The storm from the command line:
//!
//! ```text
//! storm --seeds N [--from N] [--threads N]     plays N seeds and prints seeds, events and time
//! storm --planted [--threads N]                finds every planted bug and prints the table
//! storm --seed N [--bug NAME] [--whole] [--trace]   plays one seed; a failing one is shrunk
//! ```
//!
//! Exit codes: 0 is well, 1 a violation (or a planted bug that was not found), 2 a wrong
//! command line.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its results")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use tests::storm::plan::Plan;
use tests::storm::sabotage::{ALL, Bug, bug_of};
use tests::storm::shrink::shrink;
use tests::storm::world::play;
use tests::storm::{Sum, sweep};

/// Seeds after which a planted bug counts as not found.
const PLANTED_SEEDS: u64 = 20_000;

/// Facts of a trace's end that are shown without `--trace`.
const LAST_LINES: usize = 12;

#[derive(Default)]
struct Order {
    seeds: u64,
    from: u64,
    threads: usize,
    seed: Option<u64>,
    bug: Option<Bug>,
    trace: bool,
    whole: bool,
    planted: bool,
}

fn main() -> ExitCode {
    let Some(order) = order(std::env::args().skip(1)) else {
        eprintln!(
            "usage: storm --seeds N [--from N] [--threads N] | --planted | --seed N [--bug NAME] [--whole] [--trace]"
        );
        return ExitCode::from(2);
    };
    let well = match order.seed {
        Some(seed) => one(seed, &order),
        None if order.planted => planted(order.threads),
        None => many(&order),
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn order(mut words: impl Iterator<Item = String>) -> Option<Order> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut order = Order { seeds: 10_000, threads, ..Order::default() };
    while let Some(word) = words.next() {
        let mut number = || words.next()?.replace('_', "").parse::<u64>().ok();
        match word.as_str() {
            "--seeds" => order.seeds = number()?,
            "--from" => order.from = number()?,
            "--threads" => order.threads = usize::try_from(number()?).ok()?,
            "--seed" => order.seed = Some(number()?),
            "--bug" => order.bug = Some(bug_of(&words.next()?)?),
            "--trace" => order.trace = true,
            "--whole" => order.whole = true,
            "--planted" => order.planted = true,
            _ => return None,
        }
    }
    Some(order)
}

fn many(order: &Order) -> bool {
    let began = Instant::now();
    let sum = sweep(order.from, order.seeds, order.threads, order.bug);
    let took = began.elapsed().as_secs_f64();
    let violations = usize::from(sum.failed.is_some());
    let per_core = sum.seeds as f64 / took.max(1e-9) / order.threads.max(1) as f64;
    let word = if violations == 0 { "ok" } else { "broken" };
    println!(
        "{word} storm: {} seeds, {} events, {violations} violations, {took:.1} s on {} threads ({per_core:.0} seeds a second on each)",
        sum.seeds, sum.events, order.threads
    );
    println!("reached: {}", reached(&sum));
    if let Some((seed, _)) = sum.failed {
        return one(seed, order);
    }
    true
}

fn reached(sum: &Sum) -> String {
    let shown = [
        "call.received",
        "transfer.decided",
        "agent.offered",
        "agent.no_answer",
        "agent.declined",
        "agent.accepted",
        "bridge.completed",
        "fallback.taken",
        "voicemail.left",
        "callback.requested",
        "caller.abandoned",
        "command.rejected",
    ];
    let count = |kind: &&str| format!("{} {kind}", sum.facts.get(kind).copied().unwrap_or(0));
    shown.iter().map(count).collect::<Vec<_>>().join(", ")
}

/// One seed, as small as it gets while it still fails.
fn one(seed: u64, order: &Order) -> bool {
    let plan = Plan::of(seed);
    let verdict = play(&plan, order.bug, order.whole);
    let shrunk = !verdict.violations.is_empty() && !order.whole;
    let small = if shrunk { shrink(&plan, order.bug) } else { plan };
    let verdict = if order.whole { verdict } else { play(&small, order.bug, true) };
    if order.trace {
        println!("{small:#?}");
        verdict.trace.iter().for_each(|line| println!("{line}"));
    } else if shrunk {
        let skip = verdict.trace.len().saturating_sub(LAST_LINES);
        verdict.trace.iter().skip(skip).for_each(|line| println!("{line}"));
    }
    for violation in &verdict.violations {
        println!("FAILED seed {seed}: {violation}");
    }
    if shrunk {
        let bug = order.bug.and_then(|bug| ALL.iter().find(|(known, ..)| *known == bug));
        let bug = bug.map_or_else(String::new, |(_, name, _)| format!(" --bug {name}"));
        println!("replay: cargo run --release -p tests --bin storm -- --seed {seed}{bug} --trace");
    } else if verdict.violations.is_empty() {
        println!("seed {seed}: {} events, no violation", verdict.events);
    }
    verdict.violations.is_empty()
}

/// Plants each bug and counts the seeds until it is found.
fn planted(threads: usize) -> bool {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((place, (bug, ..))) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|place| Some((place, ALL.get(place)?)))
                {
                    let sum = sweep(0, PLANTED_SEEDS, 1, Some(*bug));
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((place, sum));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(place, _)| *place);
    println!("| planted bug | what it does | seeds to find it | found as |");
    println!("|---|---|---:|---|");
    let mut missed = 0;
    for (place, sum) in rows {
        let Some((_, name, what)) = ALL.get(place) else { continue };
        match sum.failed.as_ref().and_then(|(_, verdict)| verdict.violations.first()) {
            Some(violation) => {
                println!(
                    "| `{name}` | {what} | {} | {}: {} |",
                    sum.seeds, violation.invariant, violation.what
                );
            }
            None => {
                missed += 1;
                println!("| `{name}` | {what} | not in {} | |", sum.seeds);
            }
        }
    }
    let word = if missed == 0 { "ok" } else { "FAILED" };
    println!("{word} {} planted bugs, {missed} not found, {:.1} s", ALL.len(), began.elapsed().as_secs_f64());
    missed == 0
}
