//! `surus-sim shrink`: the shortest story that still breaks the same invariant.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use surus_sim::check::Violation;
use surus_sim::record::Keep;
use surus_sim::run::Job;
use surus_sim::shrink::{self, Shrunk};

use crate::Trouble;
use crate::progress::Line;
use crate::style::{Ink, Paint};
use crate::subject::Subject;
use crate::sweep::{interrupted, now};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// The file to write; by default its name says world, seed and invariant
    #[arg(short, long, value_name = "FILE.story")]
    output: Option<PathBuf>,
    /// Stop after so many minutes, with the shortest so far
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let paint = Paint::stdout();
    let job = args.subject.job()?;
    let Some((violation, shrunk)) = shrunk(&job, args.minutes)? else {
        let alone = if job.bug.is_some() {
            " by the planted bug alone"
        } else {
            ""
        };
        println!(
            "{}: nothing to shrink, no invariant is broken{alone}",
            job.replay()
        );
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
        synchronous: false,
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
pub(crate) fn shrunk(job: &Job, minutes: f64) -> Result<Option<(Violation, Shrunk)>, Trouble> {
    let Some(violation) = job.run(Keep::Hash).violation else {
        return Ok(None);
    };
    let stop = interrupted()?;
    let line = Line::spinner();
    let end = now() + Duration::from_secs_f64(60.0 * minutes.max(0.0));
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
