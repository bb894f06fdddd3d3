//! `surus-sim story`: plays stories and says whether what they expect holds.

use std::fs;
use std::path::{Path, PathBuf};

use surus_scenarios::{Outcome as Ending, Story};
use surus_sim::record::Keep;
use surus_sim::run::Job;

use crate::Trouble;
use crate::style::{Ink, Paint};
use crate::subject::Setting;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files of stories, or directories with such
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Play each with so many seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Say of steps that had no effect why, and how long expectations took
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    setting: Setting,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let paint = Paint::stdout();
    let mut files = Vec::new();
    for path in &args.paths {
        gather(path, &mut files)?;
    }
    files.sort();
    if files.is_empty() {
        return Err("no file there ends in .story".into());
    }
    let (mut holds, mut waits, mut fails) = (0, 0, 0);
    for file in &files {
        let shown = file.display();
        let text = fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
        let story: Story = text.parse().map_err(|error| format!("{shown}:{error}"))?;
        let first = story.seed.unwrap_or(1);
        for seed in first..first + args.seeds.max(1) {
            let job = Job {
                story: Some(Story {
                    seed: Some(seed),
                    ..story.clone()
                }),
                file: Some(shown.to_string()),
                ..args.setting.job(seed)
            };
            let outcome = job.run(Keep::Hash);
            let (ink, word, why) = match (
                &outcome.violation,
                outcome.played.as_ref().map(|played| &played.outcome),
            ) {
                (Some(violation), _) => (Ink::Bad, "fails", violation.to_string()),
                (None, Some(Ending::Waits(lacks))) => (Ink::Dim, "waits", lacks.join(", ")),
                (None, _) => (Ink::Good, "holds", String::new()),
            };
            match word {
                "fails" => fails += 1,
                "waits" => waits += 1,
                _ => holds += 1,
            }
            println!("{} {:<8} {}", paint.ink(ink, word), story.name, story.title);
            if !why.is_empty() {
                println!("      {why}");
            }
            if word == "fails" {
                println!("      {}", job.replay());
            }
            if let Some(played) = outcome.played.as_ref().filter(|_| args.verbose) {
                for (step, why) in &played.void {
                    println!("      {step}: no effect, {why}");
                }
                for (expectation, took) in &played.took {
                    println!("      {expectation}: after {took}");
                }
            }
        }
    }
    println!("{holds} hold, {fails} fail, {waits} wait for what this world lacks");
    Ok(fails != 0)
}

/// The stories at a path.
fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Trouble> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "story") {
            gather(&path, files)?;
        }
    }
    Ok(())
}
