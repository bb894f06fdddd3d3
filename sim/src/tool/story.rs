//! `surus-sim story`: plays stories, each in many worlds, and says whether what they expect holds.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use surus_scenarios::library::{self, Told};
use surus_sim::run::Job;
use surus_sim::story::{self, Tale};
use surus_sim::zoo::Bug;

use crate::Trouble;
use crate::style::{Ink, Paint};
use crate::subject::Setting;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Story files, directories with such, or names such as B-001; all stories of the source tree if none is given
    #[arg(value_name = "STORY")]
    stories: Vec<String>,
    /// In the world of this seed only (`surus-sim replay FILE --seed N` shows all that happens)
    #[arg(long)]
    seed: Option<u64>,
    /// In so many worlds
    #[arg(long, default_value_t = story::SEEDS.end, conflicts_with = "seed")]
    seeds: u64,
    /// Plant each known bug in turn, and say with which the story fails and in which world first
    #[arg(long, conflicts_with_all = ["seed", "bug"])]
    bugs: bool,
    /// Say which steps had no effect and why, and what fired
    #[arg(short, long)]
    verbose: bool,
    /// Write to this file who took writes in each world, one after the other: a line for each course of each story, with the number of
    /// its worlds
    #[arg(long, value_name = "FILE", conflicts_with = "bugs")]
    courses: Option<PathBuf>,
    /// Write to this file the outlines of these courses: what `scenarios/OUTLINES` holds of all stories
    #[arg(long, value_name = "FILE", conflicts_with = "bugs")]
    outlines: Option<PathBuf>,
    #[command(flatten)]
    setting: Setting,
}

/// How a story ended in all its worlds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Holds,
    Fails,
    Waits,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let paint = Paint::stdout();
    let (mut holds, mut fails, mut waits) = (0, 0, 0);
    let (mut courses, mut outlines) = (String::new(), BTreeSet::new());
    for told in chosen(&args.stories)? {
        if args.bugs {
            bugs(args, &told);
            continue;
        }
        match play(args, &told, &paint, &mut courses, &mut outlines) {
            End::Holds => holds += 1,
            End::Fails => fails += 1,
            End::Waits => waits += 1,
        }
    }
    if let Some(file) = &args.courses {
        std::fs::write(file, courses)?;
    }
    if let Some(file) = &args.outlines {
        let lines: Vec<_> = outlines.into_iter().collect();
        std::fs::write(file, lines.join("\n") + "\n")?;
    }
    if !args.bugs {
        println!("{holds} hold, {fails} fail, {waits} wait for what this world lacks");
    }
    Ok(fails != 0)
}

/// The stories that are meant; all if none is named.
fn chosen(names: &[String]) -> Result<Vec<Told>, Trouble> {
    if names.is_empty() {
        return Ok(library::stories(&library::directory())?);
    }
    Ok(library::chosen(names)?)
}

/// The path to give to other commands.
fn path(file: &Path) -> PathBuf {
    let known = library::directory().join(file);
    if known.is_file() { known } else { file.to_owned() }
}

/// Many worlds, in a line or a few.
fn play(args: &Args, told: &Told, paint: &Paint, log: &mut String, outlines: &mut BTreeSet<String>) -> End {
    let Told { file, story } = told;
    let seeds = match args.seed {
        Some(seed) => seed..seed + 1,
        None => 0..args.seeds,
    };
    let tale = story::tell(args.setting.world(), story, seeds, args.setting.bug);
    let Tale {
        played,
        failures,
        waits,
        void,
        fired,
        recovered,
        courses,
    } = &tale;
    let (end, ink, word) = match (failures.is_empty(), waits.is_empty()) {
        (_, false) => (End::Waits, Ink::Dim, "waits"),
        (true, true) => (End::Holds, Ink::Good, "holds"),
        (false, true) => (End::Fails, Ink::Bad, "fails"),
    };
    println!("{} {:<8} {}", paint.ink(ink, word), story.name, story.title);
    for lack in waits {
        println!("      {lack}");
    }
    if let Some(failure) = failures.first() {
        let job = Job {
            file: Some(path(file).display().to_string()),
            ..story::job(args.setting.world(), story, failure.seed, args.setting.bug)
        };
        println!(
            "      {}\n      in {} of {played} worlds; {}",
            failure.violation,
            failures.len(),
            job.replay()
        );
    }
    if end == End::Waits {
        return end;
    }
    outlines.append(&mut tale.outlines(story));
    for (course, worlds) in courses {
        // Writing to a String cannot fail.
        let _ = writeln!(log, "{} {worlds} {course}", story.name);
    }
    let unconfirmed: Vec<_> = tale.unconfirmed(story).map(ToString::to_string).collect();
    if args.setting.bug.is_none() && !unconfirmed.is_empty() {
        println!("      not seen: {}", unconfirmed.join(" "));
    }
    if args.verbose || !unconfirmed.is_empty() {
        let fired: Vec<_> = fired.iter().copied().collect();
        println!("      fired: {}", fired.join(" "));
    }
    for (step, why) in void {
        println!("      `{step}` never had an effect: {why}");
    }
    if args.verbose && *recovered != 0 {
        println!(
            "      all well within {:.1} s of the last fault",
            *recovered as f64 / 1e9
        );
    }
    end
}

/// The planted bugs that make it fail.
fn bugs(args: &Args, told: &Told) {
    let Told { story, .. } = told;
    let world = args.setting.world();
    if !story::tell(world, story, 0..1, None).waits.is_empty() {
        return;
    }
    let failing = Bug::all().filter_map(|bug| {
        let failure = story::returns(world, story, bug, 0..args.seeds)?;
        Some(format!(" {bug}:{}:{}", failure.seed, failure.violation.invariant))
    });
    println!("{:<8}{}", story.name, failing.collect::<String>());
}
