//! `surus-sim`: runs seeds, and replays one.
#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use surus_sim::record::Keep;
use surus_sim::run::Job;
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
        let outcome = Job::seed(seed).run(Keep::Hash);
        simulated += outcome.simulated;
        acks += outcome.acks;
        promotions += outcome.promotions;
        events += outcome.events;
        if let Some(violation) = outcome.violation {
            failures += 1;
            println!("seed {seed}: {violation}");
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
    for bug in Bug::all() {
        let name = bug.name();
        if only.is_some_and(|only| only != name) {
            continue;
        }
        match zoo::hunt(bug, 0..seeds) {
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
        Verb::Replay { seed } => {
            let outcome = Job::seed(seed).run(Keep::Facts);
            for line in outcome.lines() {
                println!("{line}");
            }
            let verdict = outcome
                .violation
                .map_or_else(|| "all well".to_owned(), |violation| violation.to_string());
            println!("seed {seed}: {verdict} (hash {:016x})", outcome.hash);
            ExitCode::SUCCESS
        }
        Verb::Zoo { seeds, bug } => zoo(seeds, bug.as_deref()),
        Verb::Determinism { seeds } => {
            for seed in 0..seeds {
                let [one, two] = [0, 1].map(|_| Job::seed(seed).run(Keep::Hash));
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
