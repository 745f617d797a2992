//! Hostile input against everything that takes bytes from outside, on stable Rust:
//!
//! ```text
//! fuzz TARGET --seconds N --seed S [--out DIR]   mutates the corpus of a target for a while
//! fuzz TARGET FILE…                              runs these inputs again
//! fuzz list                                      names the targets
//! ```
//!
//! It prints executions and executions per second. An input that breaks an invariant, hangs or
//! aborts the process is left in a file, with the command that runs it again. Beyond 0, exit
//! codes are 1 (a finding), 2 (a wrong command line) and 3 (an input that hangs).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its results")]

mod harness;
mod mutate;
mod script;
mod targets;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Campaign, Target, shrunk};

/// An input that takes longer is a hang: the slowest honest one takes some milliseconds.
const HANG: Duration = Duration::from_secs(10);

/// In the place of a number of executions: none follows.
const OVER: u64 = u64::MAX;

/// What was asked for.
struct Order {
    target: &'static Target,
    seconds: u64,
    seed: u64,
    out: PathBuf,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "list") {
        targets::ALL.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    match order(&arguments) {
        Ok(order) if order.files.is_empty() => campaign(&order),
        Ok(order) => again(&order),
        Err(why) => {
            eprintln!("{why}; see `fuzz list`, or `fuzz TARGET --seconds N --seed S`");
            ExitCode::from(2)
        }
    }
}

fn order(arguments: &[String]) -> Result<Order, String> {
    let mut arguments = arguments.iter();
    let name = arguments.next().ok_or("no target")?;
    let target = targets::ALL.iter().find(|target| target.name == name);
    let target = target.ok_or_else(|| format!("there is no target {name}"))?;
    let out = std::env::temp_dir().join("warmbridge-fuzz");
    let mut order = Order { target, seconds: 10, seed: 1, out, files: Vec::new() };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--seconds" => order.seconds = value()?.parse().map_err(|_| "--seconds needs a number")?,
            "--seed" => order.seed = value()?.parse().map_err(|_| "--seed needs a number")?,
            "--out" => order.out = PathBuf::from(value()?),
            option if option.starts_with("--") => return Err(format!("there is no {option}")),
            file => order.files.push(PathBuf::from(file)),
        }
    }
    Ok(order)
}

/// Runs files as they are. A panic is not caught, so that its message and place are seen.
fn again(order: &Order) -> ExitCode {
    for file in &order.files {
        match std::fs::read(file) {
            Ok(input) => {
                let behaviour = (order.target.run)(&input);
                println!("{}: {behaviour:?}", file.display());
            }
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}

fn campaign(order: &Order) -> ExitCode {
    let name = order.target.name;
    let current = order.out.join(format!("{name}.input"));
    let opened = std::fs::create_dir_all(&order.out).and_then(|()| File::create(&current));
    let Ok(file) = opened else {
        eprintln!("{}: cannot be written", current.display());
        return ExitCode::from(2);
    };
    let mut campaign = Campaign::new(order.target, order.seed);
    let runs = Arc::new(AtomicU64::new(0));
    watch(&runs, &current, name);
    let (started, limit) = (Instant::now(), Duration::from_secs(order.seconds));
    let mut slowest = Duration::ZERO;
    while started.elapsed() < limit {
        let input = campaign.next();
        // The input lies on disk before it is run: what aborts the process is found there.
        let length = u64::try_from(input.len()).unwrap_or_default();
        if file.write_all_at(&input, 0).and_then(|()| file.set_len(length)).is_err() {
            eprintln!("{}: cannot be written", current.display());
            return ExitCode::from(2);
        }
        let began = Instant::now();
        if let Err(finding) = campaign.run(input) {
            runs.store(OVER, Ordering::Relaxed);
            return report(order, &current, &finding.input, campaign.runs());
        }
        slowest = slowest.max(began.elapsed());
        runs.store(campaign.runs(), Ordering::Relaxed);
    }
    let _ = std::fs::remove_file(&current);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "ok {name}: {} executions, {:.0} a second, {} behaviours, slowest {} ms, seed {}",
        campaign.runs(),
        campaign.runs() as f64 / seconds,
        campaign.behaviours(),
        slowest.as_millis(),
        order.seed
    );
    ExitCode::SUCCESS
}

fn report(order: &Order, current: &Path, input: &[u8], runs: u64) -> ExitCode {
    let name = order.target.name;
    // The place was printed already; making it smaller would print it again at every step.
    std::panic::set_hook(Box::new(|_| {}));
    let small = shrunk(order.target, input);
    let crash = order.out.join(format!("{name}.crash"));
    let _ = std::fs::write(&crash, &small);
    let _ = std::fs::remove_file(current);
    println!("FAILED {name}: execution {runs} of seed {} breaks it", order.seed);
    replay(name, &crash);
    ExitCode::FAILURE
}

fn replay(name: &str, file: &Path) {
    println!("run it again with: cargo run --release -p tests --bin fuzz -- {name} {}", file.display());
}

/// Ends the process when one input takes too long; nothing else can end a loop in this thread.
fn watch(runs: &Arc<AtomicU64>, current: &Path, name: &'static str) {
    let (runs, current) = (Arc::clone(runs), current.to_owned());
    std::thread::spawn(move || {
        let mut last = 0;
        loop {
            std::thread::sleep(HANG);
            let now = runs.load(Ordering::Relaxed);
            if now == last && now != OVER {
                println!("FAILED {name}: an input takes more than {} s", HANG.as_secs());
                replay(name, &current);
                std::process::exit(3);
            }
            last = now;
        }
    });
}
