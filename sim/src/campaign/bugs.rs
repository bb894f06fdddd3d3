//! The bug folder: a directory for each failure, with all that is needed to look at it again, and how far a sweep has come.
//!
//! ```text
//! sim-bugs/
//!    fast-4711-S1/
//!       cause.txt     what is broken, in one line
//!       replay.txt    the command that replays it
//!       case.story    the cluster and what happens to it: survives changes of the generator
//!       trace.txt     what happened, a line each, the verdict and the hash
//!    fast.progress    the seeds that are done, for `run --resume`
//! ```

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::check::Violation;
use crate::record::Keep;
use crate::run::{Job, Kind, Outcome};

/// The name of the story's file in the directory of a failure.
pub const CASE: &str = "case.story";

/// A bug folder.
#[derive(Debug, Clone)]
pub struct Bugs {
    folder: PathBuf,
}

/// A failure that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its directory.
    pub directory: PathBuf,
    /// The command that replays it.
    pub replay: String,
}

impl Bugs {
    /// The bug folder at this place. Nothing is made before there is something to keep.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Keeps a failure: plays it again, for the trace. A directory that exists is written anew, for the same job gives the same bytes.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn keep(&self, job: &Job, violation: &Violation) -> io::Result<Kept> {
        let name = format!("{}-{}-{}", job.world, job.seed, violation.invariant);
        let directory = self.folder.join(name);
        fs::create_dir_all(&directory).map_err(|error| at(&directory, &error))?;
        let outcome = job.run(Keep::Facts);
        let replay = job.replay();
        write(&directory.join("cause.txt"), |file| writeln!(file, "{violation}"))?;
        write(&directory.join("replay.txt"), |file| writeln!(file, "{replay}"))?;
        write(&directory.join(CASE), |file| {
            file.write_all(job.text().as_bytes())
        })?;
        write(&directory.join("trace.txt"), |file| trace(file, &outcome))?;
        Ok(Kept { directory, replay })
    }

    /// The place of the progress of sweeps in this world.
    fn progress_path(&self, world: Kind) -> PathBuf {
        self.folder.join(format!("{world}.progress"))
    }

    /// Notes how far a sweep has come.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn note(&self, world: Kind, progress: &Progress) -> io::Result<()> {
        fs::create_dir_all(&self.folder).map_err(|error| at(&self.folder, &error))?;
        let path = self.progress_path(world);
        let Progress { first, next, end } = progress;
        // Renamed into place: whoever is killed in between leaves the old one.
        let draft = path.with_extension("draft");
        write(&draft, |file| writeln!(file, "{first} {next} {end}"))?;
        fs::rename(&draft, &path).map_err(|error| at(&path, &error))
    }

    /// How far the last sweep in this world came; `None` if there was none.
    ///
    /// # Errors
    /// Those of the file system, and a file that is none of ours.
    pub fn progress(&self, world: Kind) -> io::Result<Option<Progress>> {
        let path = self.progress_path(world);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| at(&path, &error))?,
        };
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let mut number = || numbers.next().and_then(Result::ok);
        match (number(), number(), number()) {
            (Some(first), Some(next), Some(end)) => Ok(Some(Progress { first, next, end })),
            _ => Err(io::Error::other(format!(
                "{}: expected three numbers (first, next and end of a range of seeds); remove it to begin anew",
                path.display()
            ))),
        }
    }
}

/// How far a sweep has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The first seed of the range.
    pub first: u64,
    /// The first that is not done.
    pub next: u64,
    /// The end of the range, not included.
    pub end: u64,
}

fn trace(file: &mut dyn io::Write, outcome: &Outcome) -> io::Result<()> {
    for line in outcome.lines() {
        writeln!(file, "{line}")?;
    }
    writeln!(file, "{}", outcome.verdict())
}

fn write(path: &Path, fill: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let file = fs::File::create(path).map_err(|error| at(path, &error))?;
    let mut file = BufWriter::new(file);
    fill(&mut file)
        .and_then(|()| file.flush())
        .map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
