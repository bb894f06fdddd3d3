//! `cargo ci images` and `cargo ci stories`: the stories of `scenarios/` in the world that is asked for.
//!
//! The worlds are programs of their own: `surus-sim` for the two simulated ones, `surus-stories` for containers. Both are built first.

use std::process::{Command, ExitStatus};

use crate::error::{Error, Result};
use crate::images;
use crate::report::Report;
use crate::tool::{cargo, root, target};

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
/// [`Error::Unmet`] when one does not hold; [`Error::Unable`] when that could not be found out.
pub(crate) fn stories(options: &Stories, report: Report) -> Result<()> {
    let (package, program, mut words) = match options.world {
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
    words.extend(options.rest.iter().cloned());
    words.extend(options.stories.iter().cloned());
    let root = root()?;
    let mut build = Command::new(cargo());
    build
        .args(["build", "--quiet", "--release", "--locked", "-p", package])
        .current_dir(&root);
    if options.world == World::Containers {
        build.args(["-p", "surus"]);
    }
    if !run(&mut build)?.success() {
        return Err(Error::Unable(format!("{package} was not built")));
    }
    let program = target(&root).join("release").join(program);
    // Relative paths mean what they mean to the caller.
    let ended = run(Command::new(&program).args(&words))?;
    match ended.code() {
        Some(0) => Ok(()),
        Some(1) => Err(Error::Unmet("not every story holds".to_owned())),
        _ => Err(Error::Unable(format!("{} ended with {ended}", program.display()))),
    }
}

fn run(command: &mut Command) -> Result<ExitStatus> {
    let shown = format!("{command:?}");
    command.status().map_err(Error::io(|| format!("run {shown}")))
}
