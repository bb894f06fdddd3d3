//! `surus-sim zoo`: how many seeds each planted bug takes.
//!
//! Each thread takes the next bug and hunts it seed by seed until a run fails that ends well without the bug. What was done is kept in a
//! file, so that a hunt that was stopped goes on where it was.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use comfy_table::{Table, presets};
use surus_sim::run::Job;
use surus_sim::zoo::{self, Bug, Clean};

use crate::Trouble;
use crate::subject::{self, Setting};
use crate::sweep::{interrupted, now};

/// Seeds between two words on how far a hunt has come.
const STRIDE: u64 = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Give up on a bug after so many seeds
    #[arg(long, default_value_t = 5000)]
    seeds: u64,
    /// Only these bugs; may be given more than once
    #[arg(long = "only", value_name = "BUG", value_parser = subject::bug)]
    only: Vec<Bug>,
    /// Only name the bugs
    #[arg(long)]
    list: bool,
    /// A table in Markdown, as sim/ZOO.md has it
    #[arg(long)]
    markdown: bool,
    /// Keep what was done in this file, and go on from what it says
    #[arg(long, value_name = "FILE")]
    kept: Option<PathBuf>,
    /// Threads; as many as there are processors, if not given
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop after so many minutes
    #[arg(long)]
    minutes: Option<f64>,
    #[command(flatten)]
    setting: Setting,
}

/// How far the hunt for a bug has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Hunt {
    /// The seeds that are done.
    done: u64,
    /// As what it was found, in words; the last seed done found it.
    found: Option<String>,
}

impl Hunt {
    /// `GuardAsleep 7 S1: …`, or `GuardAsleep 500` while it is not found.
    fn line(&self, bug: Bug) -> String {
        format!(
            "{bug} {} {}",
            self.done,
            self.found.as_deref().unwrap_or_default()
        )
    }

    fn read(line: &str) -> Option<(Bug, Self)> {
        let mut words = line.splitn(3, ' ');
        let bug = words.next()?.parse().ok()?;
        let done = words.next()?.parse().ok()?;
        let found = words.next().map(str::trim).filter(|text| !text.is_empty());
        let found = found.map(str::to_owned);
        Some((bug, Self { done, found }))
    }

    fn over(&self, seeds: u64) -> bool {
        self.found.is_some() || seeds <= self.done
    }
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let chosen = |bug: &Bug| {
        let named = args.only.contains(bug) || args.setting.bug == Some(*bug);
        named || args.only.is_empty() && args.setting.bug.is_none() && (args.list || bug.covered().is_none())
    };
    let bugs: Vec<Bug> = Bug::all().filter(chosen).collect();
    if args.list {
        for bug in bugs {
            println!("{:<28} {}", bug.name(), bug.text());
            if let Some(by) = bug.covered() {
                println!("{:<28} not hunted: {by}", "");
            }
        }
        return Ok(false);
    }
    let mut hunts = kept(args)?;
    hunt(args, &bugs, &mut hunts)?;
    let found = |bug: &&Bug| hunts.get(*bug).is_some_and(|hunt| hunt.found.is_some());
    let count = bugs.iter().filter(found).count();
    let seeds = args.seeds;
    if args.markdown {
        println!("{}\n", table(args, &bugs, &hunts));
    }
    println!("{count} of {} are found within {seeds} seeds.", bugs.len());
    if args.markdown && args.only.is_empty() {
        println!(
            "\nNot hunted, for something else stops the harm in this world:\n\n{}",
            covered()
        );
    }
    Ok(count != bugs.len())
}

/// What the file says.
fn kept(args: &Args) -> Result<BTreeMap<Bug, Hunt>, Trouble> {
    let Some(path) = args.kept.as_ref().filter(|path| path.exists()) else {
        return Ok(BTreeMap::new());
    };
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().filter_map(Hunt::read).collect())
}

/// Hunts what is not over.
fn hunt(args: &Args, bugs: &[Bug], hunts: &mut BTreeMap<Bug, Hunt>) -> Result<(), Trouble> {
    let stop = interrupted()?;
    let end = args
        .minutes
        .map(|minutes| now() + Duration::from_secs_f64(60.0 * minutes.max(0.0)));
    let mut file = match &args.kept {
        None => None,
        Some(path) => {
            let opened = fs::File::options().create(true).append(true).open(path);
            Some(opened.map_err(|error| format!("{}: {error}", path.display()))?)
        }
    };
    let left: Vec<(Bug, Hunt)> = bugs
        .iter()
        .map(|bug| (*bug, hunts.get(bug).cloned().unwrap_or_default()))
        .filter(|(_, hunt)| !hunt.over(args.seeds))
        .collect();
    let (next, clean) = (AtomicUsize::new(0), Clean::default());
    let (send, receive) = mpsc::channel();
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.jobs.unwrap_or_else(all).max(1);
    let worker = |send: mpsc::Sender<(Bug, Hunt)>| {
        while let Some((bug, hunt)) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
            hunt_one(args, *bug, hunt.clone(), &clean, &stop, &send);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (send, worker) = (send.clone(), &worker);
            scope.spawn(move || worker(send));
        }
        drop(send);
        for (bug, hunt) in receive {
            if let Some(file) = &mut file {
                writeln!(file, "{}", hunt.line(bug))?;
            }
            if hunt.over(args.seeds) {
                tell(args, bug, &hunt);
            }
            hunts.insert(bug, hunt);
            if end.is_some_and(|end| end <= now()) {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    })
}

fn hunt_one(
    args: &Args,
    bug: Bug,
    mut hunt: Hunt,
    clean: &Clean,
    stop: &AtomicBool,
    send: &mpsc::Sender<(Bug, Hunt)>,
) {
    while !hunt.over(args.seeds) && !stop.load(Ordering::Relaxed) {
        let until = (hunt.done + STRIDE).min(args.seeds);
        let jobs = (hunt.done..until).map(|seed| job(args, bug, seed));
        let found = zoo::hunt(jobs.take_while(|_| !stop.load(Ordering::Relaxed)), clean);
        match found {
            Some((job, violation)) => {
                hunt.done = job.seed + 1;
                hunt.found = Some(violation.to_string());
            }
            // What was stopped in the middle is hunted again.
            None if stop.load(Ordering::Relaxed) => return,
            None => hunt.done = until,
        }
        if send.send((bug, hunt.clone())).is_err() {
            return;
        }
    }
}

fn job(args: &Args, bug: Bug, seed: u64) -> Job {
    Job {
        bug: Some(bug),
        ..args.setting.job(seed)
    }
}

fn tell(args: &Args, bug: Bug, hunt: &Hunt) {
    if args.markdown {
        return;
    }
    let (name, seeds) = (bug.name(), hunt.done);
    match &hunt.found {
        Some(text) => {
            let replay = job(args, bug, seeds - 1).replay();
            println!("{name:<28} {seeds:>6} seeds  {text}\n{:<28} {replay}", "");
        }
        None => println!("{name:<28} not found in {seeds} seeds"),
    }
}

fn table(args: &Args, bugs: &[Bug], hunts: &BTreeMap<Bug, Hunt>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["planted", "what is wrong", "seeds", "found as"]);
    for bug in bugs {
        let hunt = hunts.get(bug).cloned().unwrap_or_default();
        let code = hunt.found.as_deref().and_then(|text| text.split(':').next());
        let seeds = match code {
            Some(_) => hunt.done.to_string(),
            None => format!("not in {}", hunt.done.min(args.seeds)),
        };
        table.add_row([bug.name(), bug.text(), &seeds, code.unwrap_or_default()]);
    }
    table
}

/// Those that are not hunted, and why.
fn covered() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["planted", "what is wrong", "what stops the harm"]);
    for (bug, by) in Bug::all().filter_map(|bug| Some((bug, bug.covered()?))) {
        table.add_row([bug.name(), bug.text(), by]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_as_it_was_written() {
        let found = Some("S1: n2 acknowledges".to_owned());
        for hunt in [
            Hunt { done: 7, found },
            Hunt {
                done: 500,
                found: None,
            },
        ] {
            assert_eq!(
                Hunt::read(&hunt.line(Bug::GuardAsleep)),
                Some((Bug::GuardAsleep, hunt))
            );
        }
        assert_eq!(Hunt::read("Nonesuch 7"), None);
        assert_eq!(Hunt::read(""), None);
    }
}
