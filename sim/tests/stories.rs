//! Every story of `scenarios/stories` in many worlds, a test each: `cargo test --test stories B-001`.
//!
//! What becomes of the lead in these worlds must be what `scenarios/OUTLINES` says of the story: `1 >2 =3` is a failover to timeline 2, and 3
//! in place. What a change does to it is seen in its diff. `surus-sim story --outlines scenarios/OUTLINES` writes that file.
//!
//! A story whose `requires` names something that the fast world does not have is listed as ignored: it waits, it does not pass.

use std::collections::BTreeSet;
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
    let (seen, written) = (tale.outlines(story), written(&story.name)?);
    if seen != written {
        return fail(format!(
            "{file}: seen {seen:?}, written {written:?}. If that is meant: surus-sim story --outlines scenarios/OUTLINES"
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

/// The lines of `scenarios/OUTLINES` about a story.
fn written(story: &str) -> Result<BTreeSet<String>, Failed> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/OUTLINES");
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failed::from(format!("{}: {error}", file.display())))?;
    let about = |line: &&str| line.split(' ').next() == Some(story);
    Ok(text.lines().filter(about).map(str::to_owned).collect())
}

fn fail(text: String) -> Result<(), Failed> {
    Err(Failed::from(text))
}
