//! `surus-sim zoo`: how many seeds each planted bug takes.

use std::ops::ControlFlow;

use comfy_table::{Table, presets};
use surus_sim::run::Job;
use surus_sim::zoo::Bug;

use crate::Trouble;
use crate::subject::{self, Setting};
use crate::sweep::Options;

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
    /// A table in Markdown
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    setting: Setting,
    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let chosen = |bug: &Bug| {
        args.only.is_empty() && args.setting.bug.is_none_or(|one| one == *bug) || args.only.contains(bug)
    };
    let bugs: Vec<Bug> = Bug::all().filter(chosen).collect();
    if args.list {
        for bug in bugs {
            println!("{:<28} {}", bug.name(), bug.text());
        }
        return Ok(false);
    }
    let mut table = Table::new();
    table.load_preset(if args.markdown {
        presets::ASCII_MARKDOWN
    } else {
        presets::NOTHING
    });
    table.set_header(["planted", "what is wrong", "seeds", "found as"]);
    let mut missed = 0;
    for bug in bugs {
        let mut found = None;
        let job = |seed| Job {
            bug: Some(bug),
            ..args.setting.job(seed)
        };
        let swept = args.options.sweep(0..args.seeds, job, |run, _, line| {
            line.say(bug.name().to_owned());
            let Some(violation) = &run.outcome.violation else {
                return Ok(ControlFlow::Continue(()));
            };
            found = Some((run.job.replay(), violation.clone()));
            Ok(ControlFlow::Break(()))
        })?;
        let (seeds, name) = (swept.next, bug.name());
        match &found {
            Some((replay, violation)) => {
                if !args.markdown {
                    println!("{name:<28} {seeds:>6} seeds  {violation}\n{:<28} {replay}", "");
                }
                table.add_row([name, bug.text(), &seeds.to_string(), violation.invariant.code()]);
            }
            None => {
                missed += 1;
                if !args.markdown {
                    println!("{name:<28} not found in {seeds} seeds");
                }
                table.add_row([name, bug.text(), &format!("not in {seeds}"), ""]);
            }
        }
        if found.is_none() && seeds < args.seeds {
            break;
        }
    }
    if args.markdown {
        println!("{table}");
    }
    Ok(missed != 0)
}
