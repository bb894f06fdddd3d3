//! `surus-sim`: plays simulated clusters of Surus, many or one, and shows what happened.
//!
//! A verb is a file here and a thin one: it reads arguments, calls the library, and prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod coverage;
mod determinism;
mod incidents;
mod lab;
mod progress;
mod replay;
mod report;
mod run;
mod shrink;
mod story;
mod style;
mod subject;
mod sweep;
mod zoo;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use signal_hook::consts::SIGPIPE;

/// Simulated clusters of Surus: the production state machine over models of etcd and PostgreSQL, with faults.
#[derive(Debug, Parser)]
#[command(name = "surus-sim", version, max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Play many seeds and keep those that fail
    Run(run::Args),
    /// Play one seed or story and print what happened
    Replay(replay::Args),
    /// Play one seed or story and draw what happened, as one page for the browser
    Report(report::Args),
    /// Make a failing run as short and plain as it can be, still failing in the same way
    Shrink(shrink::Args),
    /// Play stories and say whether what they expect holds
    Story(story::Args),
    /// Make a world and tell it what to do, a line at a time
    Lab(lab::Args),
    /// Plant each known bug in turn and say how many seeds it takes to find it
    Zoo(zoo::Args),
    /// Play many seeds and say which rules, guards, faults and outcomes they reached, and which they never did
    Coverage(coverage::Args),
    /// Measure: how fast the worlds are, how short failing runs become
    #[command(subcommand)]
    Bench(bench::Args),
    /// Play seeds in two processes and compare every byte
    Determinism(determinism::Args),
    /// The table of incidents: what happened to others, and what stops it here
    Incidents(incidents::Args),
}

/// A run makes and drops small values all the time, and hardly ever a large one.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What a verb could not do, with the remedy.
type Trouble = Box<dyn std::error::Error>;

/// Exit status when something was found: a violation, a missed bug, a difference.
const FOUND: u8 = 1;

/// Exit status when the verb could not do its work. Wrong arguments have the same, from clap.
const TROUBLE: u8 = 2;

fn main() -> ExitCode {
    // Whoever reads our output has seen enough (`| head`): end without a word. Rust ignores the signal at first.
    let enough = signal_hook::flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true)));
    debug_assert!(enough.is_ok(), "SIGPIPE may be handled");
    let found = match Args::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Shrink(args) => shrink::run(&args),
        Verb::Story(args) => story::run(&args),
        Verb::Lab(args) => lab::run(&args),
        Verb::Zoo(args) => zoo::run(&args),
        Verb::Coverage(args) => coverage::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Determinism(args) => determinism::run(&args),
        Verb::Incidents(args) => incidents::run(&args),
    };
    match found {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(FOUND),
        Err(trouble) => {
            eprintln!("surus-sim: {trouble}");
            ExitCode::from(TROUBLE)
        }
    }
}
