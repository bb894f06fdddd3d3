//! `surus-sim shrink`: the shortest story that still breaks the same invariant.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use comfy_table::{Table, presets};
use surus_sim::record::Keep;
use surus_sim::run::Job;
use surus_sim::shrink::{self, Shrunk};
use surus_sim::zoo::Bug;

use crate::Trouble;
use crate::progress::Line;
use crate::style::{Ink, Paint};
use crate::subject::Subject;
use crate::sweep::{interrupted, now};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Option<Subject>,
    /// The file to write; by default its name says world, seed and invariant
    #[arg(short, long, value_name = "FILE.story")]
    output: Option<PathBuf>,
    /// Stop after so many minutes, with the shortest so far
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Measure instead: shrink so many runs that planted bugs broke, each of another bug while there are any, and print a table
    #[arg(long, value_name = "CASES", exclusive = false)]
    measure: Option<usize>,
    /// For --measure: only runs with so many faults
    #[arg(long, default_value_t = 30, requires = "measure")]
    faults: usize,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    if let Some(cases) = args.measure {
        return measure(args, cases);
    }
    let Some(subject) = &args.subject else {
        return Err("what shall be shrunk? Give a seed or the file of a story".into());
    };
    let paint = Paint::stdout();
    let job = subject.job()?;
    let Some((violation, shrunk)) = shrunk(args, &job)? else {
        println!("{}: nothing to shrink, no invariant is broken", job.replay());
        return Ok(false);
    };
    let usual = || {
        PathBuf::from(format!(
            "{}-{}-{}.story",
            job.world, job.seed, violation.invariant
        ))
    };
    let path = args.output.clone().unwrap_or_else(usual);
    let mut story = shrunk.story.clone();
    story.title = violation.to_string();
    story.notes = vec![format!("Shrunk from `{}`.", job.replay())];
    fs::write(&path, story.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    let short = Job {
        seed: story.seed.unwrap_or(job.seed),
        story: Some(story),
        file: Some(path.display().to_string()),
        nodes: None,
        ..job.clone()
    };
    println!("{}", short.text());
    let outcome = short.run(Keep::Hash);
    println!("{}", paint.ink(Ink::Bad, outcome.verdict()));
    println!(
        "{} of {} faults are left, {} of {} members; {} runs{}",
        shrink::faults(&shrunk.story),
        shrink::faults(&job.story()),
        shrunk.story.shape.members.len(),
        job.story().shape.members.len(),
        shrunk.runs,
        if shrunk.finished {
            ""
        } else {
            "; stopped early, --minutes gives more time"
        }
    );
    println!("kept in {}\n  {}", path.display(), short.replay());
    Ok(true)
}

/// Shrinks what the job breaks, with a line that shows how far it is. `None` if it breaks nothing.
fn shrunk(args: &Args, job: &Job) -> Result<Option<(surus_sim::check::Violation, Shrunk)>, Trouble> {
    let Some(violation) = job.run(Keep::Hash).violation else {
        return Ok(None);
    };
    let stop = interrupted()?;
    let line = Line::spinner();
    let end = now() + Duration::from_secs_f64(60.0 * args.minutes.max(0.0));
    let shrunk = shrink::shrink_job(job, violation.invariant, &mut |step| {
        line.say(format!(
            "{}: {} faults, {} members; {} runs ({})",
            violation.invariant, step.faults, step.members, step.runs, step.pass
        ));
        now() < end && !stop.load(Ordering::Relaxed)
    });
    line.done();
    // The same job has just broken it.
    Ok(shrunk.map(|shrunk| (violation, shrunk)))
}

/// Shrinks runs of planted bugs, and says how short they became.
fn measure(args: &Args, cases: usize) -> Result<bool, Trouble> {
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
            if cases <= left.len() || stop.load(Ordering::Relaxed) || 100_000 < seed {
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
            let faults = shrink::faults(&job.story());
            if done || faults < args.faults {
                continue;
            }
            let began = now();
            let Some((violation, shrunk)) = shrunk(args, &job)? else {
                continue;
            };
            let short = shrink::faults(&shrunk.story);
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
