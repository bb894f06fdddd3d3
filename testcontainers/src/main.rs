//! `surus-stories`: plays stories on containers and says whether what they expect holds.
//!
//! Exit code 0: all that were played hold, or, with `--flaws`, every planted flaw made its story fail. 1: one does not. 2: it could not be
//! found out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use surus_ci::error::{Error, Result, chain};
use surus_ci::report::{Paint, Report, span};
use surus_ci::{images, tool};
use surus_scenarios::Nanos;
use surus_scenarios::library::{self, Told};
use surus_testcontainers::docker::Docker;
use surus_testcontainers::run::{self, End, Run, Tale};
use surus_testcontainers::suite;
use surus_testcontainers::world::Site;

/// Play stories on containers
#[derive(Debug, Parser)]
#[command(name = "surus-stories")]
struct Arguments {
    /// Story files, directories with such, or names such as B-001; the suite if none is given
    #[arg(value_name = "STORY")]
    stories: Vec<String>,
    /// The major of PostgreSQL
    #[arg(long, default_value_t = images::POSTGRES[0].0)]
    postgres: u32,
    /// So many stories at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Each story so many times
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Keep the logs of stories that hold, too
    #[arg(long)]
    keep: bool,
    /// Print the run of each story, line by line
    #[arg(short, long)]
    verbose: bool,
    /// Write to this file who took writes in each story, one after the other
    #[arg(long, value_name = "FILE")]
    courses: Option<PathBuf>,
    /// The agent; the one that was built beside this program if none is given
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Plant this flaw in the core of every agent (`agent/core/src/zoo.rs` names them)
    #[arg(long, value_name = "NAME", requires = "agent")]
    flaw: Option<String>,
    /// Plant known flaws, each in the story that must fail by it; of the stories that are given, or of all
    #[arg(long, requires = "agent", conflicts_with_all = ["flaw", "courses"])]
    flaws: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = Report::new();
    match play(&arguments, report) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            report.line(&report.paint(Paint::Red, format!("failed: {}", chain(&error))));
            ExitCode::from(2)
        }
    }
}

fn play(arguments: &Arguments, report: Report) -> Result<bool> {
    let chosen = chosen(arguments).map_err(|error| Error::Unable(error.to_string()))?;
    if chosen.is_empty() {
        return Err(Error::Unable(
            "no flaw is known for these stories: `FLAWS` in testcontainers/src/suite.rs has those that are"
                .to_owned(),
        ));
    }
    let runs = chosen.iter().map(|(told, flaw)| Run {
        story: &told.story,
        flaw: *flaw,
    });
    let runs: Vec<_> = (0..arguments.times.max(1)).flat_map(|_| runs.clone()).collect();
    let runtime = suite::runtime()?;
    let image = images::ready(arguments.postgres)?;
    let docker = runtime.block_on(Docker::connect())?;
    let removed = runtime.block_on(docker.sweep())?;
    if removed != 0 {
        report.say(format!("removed {removed} things that runs before this one left"));
    }
    let agent = match &arguments.agent {
        Some(agent) => agent.clone(),
        None => suite::agent()?,
    };
    if runs.iter().any(|run| run.flaw.is_some()) {
        suite::flawed(&agent)?;
    }
    let site = Site {
        handle: runtime.handle().clone(),
        docker,
        image,
        postgres: arguments.postgres,
        agent,
    };
    let files = tool::target(&tool::root()?).join("stories");
    report.say(format!(
        "{} stories on PostgreSQL {}, {} at a time",
        runs.len(),
        arguments.postgres,
        arguments.jobs
    ));
    let tales = run::all(&site, &runs, arguments.jobs, &files, arguments.keep, &|tale| {
        say(report, tale, arguments)
    })?;
    if let Some(file) = &arguments.courses {
        let courses: String = tales
            .iter()
            .filter(|tale| tale.end == End::Holds)
            .map(|tale| format!("{} 1 {}\n", tale.name, tale.course))
            .collect();
        std::fs::write(file, courses).map_err(Error::io(|| format!("write {}", file.display())))?;
    }
    Ok(if arguments.flaws {
        found(report, &tales)
    } else {
        summary(report, &tales)
    })
}

/// What is played: stories, and the flaw that is planted in each.
fn chosen(arguments: &Arguments) -> std::result::Result<Vec<(Told, Option<&str>)>, library::Error> {
    let given = &arguments.stories;
    if arguments.flaws {
        let meant = |story: &str| given.is_empty() || given.iter().any(|name| name == story);
        let pairs = suite::FLAWS.iter().filter(|(_, story)| meant(story));
        let (flaws, stories): (Vec<_>, Vec<_>) = pairs.copied().unzip();
        let told = library::chosen(&stories)?;
        return Ok(told.into_iter().zip(flaws.into_iter().map(Some)).collect());
    }
    let told = if given.is_empty() {
        library::chosen(suite::NAMES)
    } else {
        library::chosen(given)
    };
    let flaw = arguments.flaw.as_deref();
    Ok(told?.into_iter().map(|told| (told, flaw)).collect())
}

fn say(report: Report, tale: &Tale, arguments: &Arguments) {
    let (paint, word) = match &tale.end {
        End::Holds if arguments.flaws => (Paint::Red, "HOLDS"),
        End::Fails(_) if arguments.flaws => (Paint::Green, "found"),
        End::Holds => (Paint::Green, "holds"),
        End::Waits(_) => (Paint::Dim, "waits"),
        End::Fails(_) => (Paint::Red, "FAILS"),
        End::Unknown(_) => (Paint::Red, "unknown"),
    };
    let flaw = tale.flaw.as_ref().map(|flaw| format!(" with {flaw}"));
    let silence: Vec<String> = tale
        .outages
        .iter()
        .map(|(client, outage)| format!("{client} {}", silence(*outage)))
        .collect();
    let silence = if silence.is_empty() {
        String::new()
    } else {
        format!(", longest silence: {}", silence.join(", "))
    };
    report.say(format!(
        "{} {:<8} {}{}{silence}",
        report.paint(paint, format!("{word:<7}")),
        tale.name,
        span(tale.took),
        flaw.unwrap_or_default()
    ));
    match &tale.end {
        End::Holds => {}
        End::Waits(lacks) => lacks
            .iter()
            .for_each(|lack| report.line(&format!("            {lack}"))),
        End::Fails(why) | End::Unknown(why) => report.line(&format!("            {why}")),
    }
    if let Some(kept) = &tale.kept {
        report.line(&format!("            logs: {}", kept.display()));
        if arguments.verbose {
            let lines = std::fs::read_to_string(kept.join("timeline.txt")).unwrap_or_default();
            lines
                .lines()
                .for_each(|line| report.line(&format!("            {line}")));
        }
    }
    for (step, why) in &tale.void {
        report.line(&format!("            `{step}` had no effect: {why}"));
    }
}

fn silence(outage: Nanos) -> String {
    if outage == Nanos::FOREVER {
        return "all the time".to_owned();
    }
    span(std::time::Duration::from_nanos(outage.0))
}

/// The counts; false when a story does not hold or is not known to.
fn summary(report: Report, tales: &[Tale]) -> bool {
    let count = |is: fn(&End) -> bool| tales.iter().filter(|tale| is(&tale.end)).count();
    let holds = count(|end| matches!(end, End::Holds));
    let waits = count(|end| matches!(end, End::Waits(_)));
    let fails = count(|end| matches!(end, End::Fails(_)));
    let unknown = count(|end| matches!(end, End::Unknown(_)));
    report.say(format!(
        "{holds} hold, {fails} fail, {waits} wait for what containers cannot do, {unknown} unknown"
    ));
    fails == 0 && unknown == 0
}

/// How many planted flaws made their story fail; false when one did not, or it is not known.
fn found(report: Report, tales: &[Tale]) -> bool {
    let failing = tales.iter().filter(|tale| matches!(tale.end, End::Fails(_)));
    let count = failing.count();
    report.say(format!(
        "{count} of {} planted flaws made their story fail",
        tales.len()
    ));
    count == tales.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_names_stories_that_there_are() {
        let chosen = library::chosen(suite::NAMES).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(chosen.len(), suite::NAMES.len());
        assert!(suite::FEW.iter().all(|name| suite::NAMES.contains(name)));
        assert!(suite::FLAWS.iter().all(|(_, name)| suite::NAMES.contains(name)));
    }
}
