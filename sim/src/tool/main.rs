//! `surus-sim`: runs seeds, and replays one.
#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use surus_sim::Report;
use surus_sim::zoo::{self, Bug};

/// Simulated clusters of Surus, with faults.
#[derive(Debug, Parser)]
#[command(name = "surus-sim")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a range of seeds and print those that fail.
    Run {
        /// The seeds: FIRST..END, the end not included.
        #[arg(long, default_value = "0..1000")]
        seeds: String,
        /// Stop after so many failures.
        #[arg(long, default_value_t = 20)]
        failures: usize,
    },
    /// Run one seed and print what happened.
    Replay {
        /// The seed.
        seed: u64,
    },
    /// Plant each bug in turn and say how many seeds it took to find it.
    Zoo {
        /// Give up on a bug after so many.
        #[arg(long, default_value_t = 5000)]
        seeds: u64,
        /// Only this bug.
        #[arg(long)]
        bug: Option<String>,
    },
    /// Run seeds twice each and compare.
    Determinism {
        /// How many.
        #[arg(default_value_t = 20)]
        seeds: u64,
    },
}

fn safely(seed: u64, keep: bool) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| surus_sim::run(seed, keep)))
        .map_err(|_| format!("seed {seed}: S12: panic"))
}

fn range(text: &str) -> Option<std::ops::Range<u64>> {
    let (first, end) = text.split_once("..")?;
    Some(first.parse().ok()?..end.parse().ok()?)
}

fn run(seeds: &str, limit: usize) -> ExitCode {
    let Some(seeds) = range(seeds) else {
        println!("--seeds takes FIRST..END, such as 0..1000");
        return ExitCode::FAILURE;
    };
    let (mut failures, mut simulated, mut acks, mut promotions, mut events, mut runs) = (0, 0, 0, 0, 0, 0u64);
    for seed in seeds {
        runs += 1;
        match safely(seed, false) {
            Ok(report) => {
                simulated += report.simulated;
                acks += report.acks;
                promotions += report.promotions;
                events += report.events;
                if let Some(violation) = report.violation {
                    failures += 1;
                    println!("seed {seed}: {violation}");
                }
            }
            Err(text) => {
                failures += 1;
                println!("{text}");
            }
        }
        if limit <= failures {
            break;
        }
    }
    println!(
        "{runs} seeds, {failures} failed; {} simulated hours, {events} events, {promotions} promotions, {acks} writes",
        simulated / surus_sim::clock::SEC / 3600
    );
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn zoo(seeds: u64, only: Option<&str>) -> ExitCode {
    let mut missed = false;
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if only.is_some_and(|only| only != name) {
            continue;
        }
        match zoo::hunt(*bug, 0..seeds) {
            Some((seed, violation)) => println!("{name:<24} {:>5} seeds  {violation}", seed + 1),
            None => {
                missed = true;
                println!("{name:<24} not found in {seeds} seeds");
            }
        }
    }
    if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn main() -> ExitCode {
    match Args::parse().verb {
        Verb::Run { seeds, failures } => run(&seeds, failures),
        Verb::Replay { seed } => match safely(seed, true) {
            Ok(report) => {
                for line in &report.lines {
                    println!("{line}");
                }
                let verdict = report.violation.unwrap_or_else(|| "all well".to_owned());
                println!("seed {seed}: {verdict} (hash {:016x})", report.hash);
                ExitCode::SUCCESS
            }
            Err(text) => {
                println!("{text}");
                ExitCode::FAILURE
            }
        },
        Verb::Zoo { seeds, bug } => zoo(seeds, bug.as_deref()),
        Verb::Determinism { seeds } => {
            for seed in 0..seeds {
                let (one, two) = (surus_sim::run(seed, false), surus_sim::run(seed, false));
                if one.hash != two.hash {
                    println!("seed {seed}: two runs differ");
                    return ExitCode::FAILURE;
                }
            }
            println!("{seeds} seeds, each twice, no difference");
            ExitCode::SUCCESS
        }
    }
}
