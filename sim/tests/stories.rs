//! Every story of `scenarios/stories` in many worlds, a test each: `cargo test --test stories B-001`.
//!
//! The courses that a story takes in these worlds (who took writes on which timeline, one after the other) must be those of
//! `scenarios/COURSES`: what a change does to them is seen in its diff. `surus-sim story --courses scenarios/COURSES` writes that file.
//!
//! A story whose `requires` names something that the fast world does not have is listed as ignored: it waits, it does not pass.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use surus_scenarios::library::{self, Told};
use surus_sim::fast;
use surus_sim::run::{Job, Kind};
use surus_sim::story::{self, Tale};
use surus_sim::zoo::Bug;

/// Stories that show something which is still open, with what it is. They are listed as ignored, too; one that holds again leaves
/// this list.
const OPEN: &[(&str, &str)] = &[
    (
        "B-037",
        "S5 takes a failsafe list that was wiped for one that excludes everybody",
    ),
    ("R2b", "L2 counts what a guard does that was frozen"),
];

fn main() -> Result<ExitCode, library::Error> {
    let arguments = Arguments::from_args();
    let stories = library::stories(&library::directory())?;
    let mut trials = Vec::new();
    for told in stories {
        let name = told.file.with_extension("").display().to_string();
        let lacks = told
            .story
            .requires
            .iter()
            .any(|feature| !fast::has(feature.as_str()));
        let open = OPEN.iter().any(|(name, _)| *name == told.story.name);
        let trial = Trial::test(name, move || holds(&told)).with_ignored_flag(lacks || open);
        trials.push(trial);
    }
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

fn holds(told: &Told) -> Result<(), Failed> {
    let Told { file, story } = told;
    let file = format!("scenarios/stories/{}", file.display());
    let tale = story::tell(Kind::Fast, story, story::SEEDS, None);
    let Tale {
        failures,
        waits,
        void,
        courses,
        ..
    } = &tale;
    if !waits.is_empty() {
        return fail(format!(
            "{file} must say that it `requires` this: {}",
            waits.join("; ")
        ));
    }
    if let Some(failure) = failures.first() {
        let replay = Job {
            file: Some(file.clone()),
            ..story::job(Kind::Fast, story, failure.seed, None)
        };
        let replay = replay.replay();
        let count = failures.len();
        return fail(format!(
            "{}\n  in {count} of {} worlds; {replay}",
            failure.violation, tale.played
        ));
    }
    if let Some((step, why)) = void.first() {
        return fail(format!("{file}: `{step}` never had an effect: {why}"));
    }
    if let Some(name) = tale.unconfirmed(story).next() {
        let fired: Vec<_> = tale.fired.iter().copied().collect();
        return fail(format!(
            "{file}: it is not stopped by {name}; these fired: {}",
            fired.join(" ")
        ));
    }
    let seen = courses
        .iter()
        .map(|(course, worlds)| format!("{worlds} {course}"));
    let (seen, written) = (seen.collect::<Vec<_>>(), written(&story.name)?);
    if seen != written {
        return fail(format!(
            "{file} takes {}; scenarios/COURSES says {}. If that is meant: surus-sim story --courses scenarios/COURSES",
            seen.join(", "),
            written.join(", ")
        ));
    }
    for name in &story.returns_with {
        let bug: Bug = name.as_str().parse()?;
        if story::returns(Kind::Fast, story, bug, story::PATIENCE).is_none() {
            return fail(format!(
                "{file} does not return with {bug} in {} worlds",
                story::PATIENCE.end
            ));
        }
    }
    Ok(())
}

/// The courses of a story in `scenarios/COURSES`, each with the number of its worlds before it.
fn written(story: &str) -> Result<Vec<String>, Failed> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/COURSES");
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failed::from(format!("{}: {error}", file.display())))?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    Ok(lines
        .filter(|(name, _)| *name == story)
        .map(|(_, course)| course.to_owned())
        .collect())
}

fn fail(text: String) -> Result<(), Failed> {
    Err(Failed::from(text))
}
