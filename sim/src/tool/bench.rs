//! `surus-sim bench`: how fast the worlds are, and how well runs shrink.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

use comfy_table::{Table, presets};
use surus_sim::fast::outage::{Demo, outages};
use surus_sim::run::Job;
use surus_sim::shrink as short;
use surus_sim::zoo::Bug;

use crate::subject::Setting;
use crate::sweep::{self, Options, interrupted, now};
use crate::{Trouble, shrink};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Simulated time and events per second of processor time
    Speed(Speed),
    /// How long a client goes without writes in a failover, beside the figures of the real cluster
    Failover(Failover),
    /// How short runs of planted bugs become: a table
    Shrink(Shrinking),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Speed {
    /// The seeds, FIRST..END without END
    #[arg(long, default_value = "0..300", value_parser = sweep::seeds)]
    seeds: Range<u64>,
    #[command(flatten)]
    setting: Setting,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Failover {
    /// Runs of each fault
    #[arg(long, default_value_t = 200)]
    runs: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Shrinking {
    /// So many runs, each of another bug
    #[arg(long, default_value_t = 15)]
    cases: usize,
    /// Only runs with so many faults
    #[arg(long, default_value_t = 30)]
    faults: usize,
    /// At most so many minutes for each
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    match args {
        Args::Speed(args) => speed(args),
        Args::Failover(args) => failover(args),
        Args::Shrink(args) => shrinking(args),
    }
}

/// How fast the world is, by the number of members.
fn speed(args: &Speed) -> Result<bool, Trouble> {
    println!(
        "{:>8} {:>8} {:>14} {:>14} {:>18}",
        "members", "runs", "x real time", "events/s", "events/simulated s"
    );
    for members in [1, 2, 3, 5, 7] {
        if args.setting.nodes.is_some_and(|nodes| nodes != members) {
            continue;
        }
        let job = |seed| Job {
            nodes: Some(usize::from(members)),
            ..args.setting.job(seed)
        };
        let swept = args
            .options
            .sweep(args.seeds.clone(), job, |_, _, _| Ok(ControlFlow::Continue(())))?;
        let tally = swept.tally;
        println!(
            "{members:>8} {:>8} {:>14.0} {:>14.0} {:>18.0}",
            tally.runs,
            tally.speed(),
            tally.events_per_second(),
            tally.events as f64 / (tally.simulated as f64 / 1e9)
        );
    }
    Ok(false)
}

/// How far the fast world's median may be from the real cluster's.
const AGREES: f64 = 0.20;

/// The outages of the demo's faults, here and on the real cluster.
fn failover(args: &Failover) -> Result<bool, Trouble> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "fault",
        "median",
        "p95",
        "longest",
        "real median",
        "real range",
        "difference",
    ]);
    let mut apart = false;
    for demo in Demo::ALL {
        let outages = outages(*demo, 0..args.runs.max(1));
        let part = |percent: usize| outages[(outages.len() - 1) * percent / 100];
        let (median, shortest, longest) = demo.real();
        let difference = part(50) as f64 / median as f64 - 1.0;
        apart |= AGREES < difference.abs();
        let seconds = |time: u64| format!("{:.2} s", time as f64 / 1e9);
        table.add_row([
            demo.name().to_owned(),
            seconds(part(50)),
            seconds(part(95)),
            seconds(part(100)),
            seconds(median),
            format!("{} to {}", seconds(shortest), seconds(longest)),
            format!("{:+.0} %", 100.0 * difference),
        ]);
    }
    println!("{table}");
    Ok(apart)
}

/// Shrinks runs of planted bugs, and says how short they became.
fn shrinking(args: &Shrinking) -> Result<bool, Trouble> {
    let stop = interrupted()?;
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "planted", "seed", "breaks", "faults", "left", "members", "left", "runs", "seconds",
    ]);
    let mut left = Vec::new();
    for seed in 0.. {
        // Each bug in turn, so that no bug which is found by every seed fills the table.
        for bug in Bug::all() {
            if args.cases <= left.len() || stop.load(Ordering::Relaxed) || 100_000 < seed {
                return Ok(print(&table, &mut left));
            }
            let done = table.row_iter().any(|row| {
                row.cell_iter()
                    .next()
                    .is_some_and(|cell| cell.content() == bug.name())
            });
            let job = Job {
                bug: Some(bug),
                ..Job::seed(seed)
            };
            let faults = short::faults(&job.story());
            if done || faults < args.faults {
                continue;
            }
            let began = now();
            let Some((violation, shrunk)) = shrink::shrunk(&job, args.minutes)? else {
                continue;
            };
            let short = short::faults(&shrunk.story);
            left.push(short);
            let row = [
                bug.name().to_owned(),
                seed.to_string(),
                violation.invariant.to_string(),
                faults.to_string(),
                short.to_string(),
                job.story().shape.members.len().to_string(),
                shrunk.story.shape.members.len().to_string(),
                shrunk.runs.to_string(),
                format!("{:.0}", began.elapsed().as_secs_f64()),
            ];
            println!("{}", row.join("  "));
            table.add_row(row);
        }
    }
    Ok(false)
}

fn print(table: &Table, left: &mut [usize]) -> bool {
    println!("\n{table}");
    left.sort_unstable();
    if let Some(median) = left.get(left.len() / 2) {
        println!("\n{} cases; the median case has {median} faults left", left.len());
    }
    false
}
