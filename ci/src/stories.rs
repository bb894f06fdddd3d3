//! `cargo ci images` and `cargo ci stories`: the stories of `scenarios/` in the world that is asked for.
//!
//! The worlds are programs of their own: `surus-sim` for the two simulated ones, `surus-stories` for containers. Both are built first.

use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::courses;
use crate::error::{Error, Result};
use crate::images;
use crate::report::Report;
use crate::tool::{cargo, root, target};

/// In so many simulated worlds a story is played to learn its courses.
const WORLDS: u64 = 200;

/// What `images` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Images {
    /// The majors of PostgreSQL
    #[arg(long, value_delimiter = ',', default_values_t = images::POSTGRES.iter().map(|(major, _)| *major))]
    postgres: Vec<u32>,
}

/// Makes the images that are not there.
///
/// # Errors
/// What stopped one of them.
pub(crate) fn images(options: &Images, report: Report) -> Result<()> {
    for postgres in &options.postgres {
        images::host(*postgres, report)?;
    }
    Ok(())
}

/// Where stories are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum World {
    /// Cores and models in one queue of events
    Fast,
    /// The whole agent over simulated connections
    Turmoil,
    /// Real servers, a container per host
    Containers,
}

/// What `stories` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Stories {
    /// Where they are played
    #[arg(long, default_value = "containers")]
    world: World,
    /// In the world of containers: the major of PostgreSQL
    #[arg(long, default_value_t = images::POSTGRES[0].0)]
    postgres: u32,
    /// On containers: then play the same stories in this simulated world, and say where who took writes, one after the other, is
    /// not as in any run there
    #[arg(long, value_name = "WORLD")]
    against: Option<World>,
    /// On containers: plant flaws in the core of agents that are built for it, each in the story that must fail by it
    #[arg(long, conflicts_with = "against")]
    flaws: bool,
    /// Story files, directories with such, or names such as B-001; if none is given, all in a simulated world, and the suite of `testcontainers` on containers
    #[arg(value_name = "STORY")]
    stories: Vec<String>,
    /// Anything else for the program of that world; see its `--help`
    #[arg(last = true, value_name = "ARG")]
    rest: Vec<String>,
}

/// Plays stories.
///
/// # Errors
/// [`Error::Unmet`] when one does not hold, or differs; [`Error::Unable`] when that could not be found out.
pub(crate) fn stories(options: &Stories, report: Report) -> Result<()> {
    if options.flaws && options.world != World::Containers {
        return Err(Error::Unable(
            "--flaws is for containers; in a simulated world: cargo ci stories --world fast -- --bugs"
                .to_owned(),
        ));
    }
    match options.against {
        None => play(options.world, options, &options.stories, &options.rest, report),
        Some(World::Containers) => Err(Error::Unable(
            "runs are held against those of a simulated world: --against fast, or turmoil".to_owned(),
        )),
        Some(_) if options.world != World::Containers => Err(Error::Unable(
            "only runs on containers are held against those of another world".to_owned(),
        )),
        Some(world) => differ(world, options, report),
    }
}

/// Plays stories on containers and in a simulated world, and compares.
fn differ(world: World, options: &Stories, report: Report) -> Result<()> {
    let files = target(&root()?).join("stories");
    std::fs::create_dir_all(&files).map_err(Error::io(|| format!("create {}", files.display())))?;
    let (real, simulated) = (files.join("courses.containers"), files.join("courses.simulated"));
    let read =
        |file: &Path| std::fs::read_to_string(file).map_err(Error::io(|| format!("read {}", file.display())));
    let with = |rest: &[String], file: &Path| {
        let mut words = rest.to_vec();
        words.push(format!("--courses={}", file.display()));
        words
    };
    let held = play(
        World::Containers,
        options,
        &options.stories,
        &with(&options.rest, &real),
        report,
    );
    // What does not hold is not compared, and does not keep the others from it.
    if matches!(held, Err(Error::Unable(_))) {
        return held;
    }
    let seen = read(&real)?;
    let stories = if options.stories.is_empty() {
        courses::stories(&seen)
    } else {
        options.stories.clone()
    };
    // What an older run left is not of this one.
    let _ = std::fs::remove_file(&simulated);
    let seeds = vec![format!("--seeds={WORLDS}")];
    // A story that fails there is no matter of this comparison.
    let _ = play(world, options, &stories, &with(&seeds, &simulated), report);
    let comparison = courses::compare(&seen, &read(&simulated)?);
    report.say(format!(
        "{} stories took the one course that the simulated world knows, {} one of several, {} are not told there, {} differ",
        comparison.determined.len(),
        comparison.known.len(),
        comparison.untold.len(),
        comparison.differences.len()
    ));
    for difference in &comparison.differences {
        report.line(&format!("            {difference}"));
    }
    held?;
    if comparison.differences.is_empty() {
        return Ok(());
    }
    Err(Error::Unmet("the worlds differ".to_owned()))
}

fn play(world: World, options: &Stories, stories: &[String], rest: &[String], report: Report) -> Result<()> {
    let (package, program, mut words) = match world {
        World::Fast => ("surus-sim", "surus-sim", vec!["story".to_owned()]),
        World::Turmoil => (
            "surus-sim",
            "surus-sim",
            ["story", "--world", "turmoil"].map(str::to_owned).to_vec(),
        ),
        World::Containers => {
            images::host(options.postgres, report)?;
            let postgres = format!("--postgres={}", options.postgres);
            ("surus-testcontainers", "surus-stories", vec![postgres])
        }
    };
    let root = root()?;
    let target = target(&root);
    if options.flaws {
        // Not where somebody might take it for one without.
        let flawed = target.join("flawed");
        let place = format!("--target-dir={}", flawed.display());
        build(&root, "surus", &["--features=zoo", &place])?;
        let agent = flawed.join("release/surus");
        words.extend(["--flaws".to_owned(), format!("--agent={}", agent.display())]);
    } else if world == World::Containers {
        build(&root, "surus", &[])?;
    }
    build(&root, package, &[])?;
    words.extend(rest.iter().cloned());
    words.extend(stories.iter().cloned());
    let program = target.join("release").join(program);
    // Relative paths mean what they mean to the caller.
    let ended = run(Command::new(&program).args(&words))?;
    match ended.code() {
        Some(0) => Ok(()),
        Some(1) if options.flaws => Err(Error::Unmet("a planted flaw was not found".to_owned())),
        Some(1) => Err(Error::Unmet("not every story holds".to_owned())),
        _ => Err(Error::Unable(format!("{} ended with {ended}", program.display()))),
    }
}

fn build(root: &Path, package: &str, more: &[&str]) -> Result<()> {
    let mut build = Command::new(cargo());
    build
        .args(["build", "--quiet", "--release", "--locked", "-p", package])
        .args(more)
        .current_dir(root);
    if run(&mut build)?.success() {
        return Ok(());
    }
    Err(Error::Unable(format!("{package} was not built")))
}

fn run(command: &mut Command) -> Result<ExitStatus> {
    let shown = format!("{command:?}");
    command.status().map_err(Error::io(|| format!("run {shown}")))
}
