//! Many stories, some at a time, and what became of each.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use surus_ci::error::{Error, Result, chain};
use surus_ci::lock;
use surus_scenarios::{Course, Nanos, Outcome, Played, Story, play};

use crate::world::{Site, World};

/// How a story ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All that was expected holds.
    Holds,
    /// It needs what this world does not have; each says what.
    Waits(Vec<String>),
    /// Something does not hold: what, when and what was seen.
    Fails(String),
    /// The harness failed, or the machine: nothing is known.
    Unknown(String),
}

/// A story that is to be told.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// The story.
    pub story: &'a Story,
    /// The flaw that is planted in the core of every agent, by its name in `surus_core::zoo`.
    pub flaw: Option<&'a str>,
}

impl<'a> Run<'a> {
    /// The story, with agents as they are.
    #[must_use]
    pub fn of(story: &'a Story) -> Self {
        Self { story, flaw: None }
    }
}

/// A story that was told.
#[derive(Debug, Clone)]
pub struct Tale {
    /// Its name.
    pub name: String,
    /// The flaw that every agent's core had.
    pub flaw: Option<String>,
    /// How it ended.
    pub end: End,
    /// How long it took, from nothing to nothing.
    pub took: Duration,
    /// Each client's longest silence since the first step.
    pub outages: Vec<(String, Nanos)>,
    /// Steps that had no effect, and why.
    pub void: Vec<(String, String)>,
    /// Expectations that came true, and how long each took.
    pub came: Vec<(String, Nanos)>,
    /// Who took writes since the first step, one after the other.
    pub course: Course,
    /// Where its logs are, if they were kept.
    pub kept: Option<PathBuf>,
}

/// Numbers the runs of this process.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Tells a story once. Its logs are kept below `files` if it fails, or if `keep` is set.
#[must_use]
pub fn tell(site: &Site, run: &Run<'_>, files: &Path, keep: bool) -> Tale {
    let story = run.story;
    let began = crate::clock::now();
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let name = format!("surus-{}-{number}", std::process::id());
    let directory = files.join(format!(
        "{}-{}-{}-{number}",
        story.name,
        site.postgres,
        std::process::id()
    ));
    let mut tale = Tale {
        name: story.name.clone(),
        flaw: run.flaw.map(str::to_owned),
        end: End::Holds,
        took: Duration::ZERO,
        outages: Vec::new(),
        void: Vec::new(),
        came: Vec::new(),
        course: Course::default(),
        kept: None,
    };
    let lacks = World::lacks(story);
    if lacks.is_empty() {
        in_world(site, run, &name, &directory, keep, &mut tale);
    } else {
        tale.end = End::Waits(lacks);
    }
    if tale.kept.is_none() {
        // What a container's users made can be removed by those who own the directory it lies in.
        let _ = fs::remove_dir_all(&directory);
    }
    tale.took = began.elapsed();
    tale
}

fn in_world(site: &Site, run: &Run<'_>, name: &str, directory: &Path, keep: bool, tale: &mut Tale) {
    let story = run.story;
    let mut world = match World::new(site, run, name, directory) {
        Ok(world) => world,
        Err(error) => {
            tale.end = End::Unknown(chain(&error));
            tale.kept = directory.exists().then(|| directory.to_owned());
            return;
        }
    };
    let Played { outcome, void, took } = play(&mut world, story);
    let first = story.steps.iter().map(|planned| planned.at).min();
    tale.outages = world.outages(first.unwrap_or(story.end));
    tale.course = world.course(first.unwrap_or(story.end));
    tale.void = void
        .into_iter()
        .map(|(step, why)| (step.to_string(), why))
        .collect();
    tale.came = took
        .into_iter()
        .map(|(expectation, took)| (expectation.to_string(), took))
        .collect();
    tale.end = match outcome {
        Outcome::Waits(lacks) => End::Waits(lacks),
        Outcome::Fails(failure) => End::Fails(failure.to_string()),
        // Always checked, whether the story says so or not.
        Outcome::Holds => match world.overlap() {
            Some(seen) => End::Fails(format!("at the end: expected one primary; seen: {seen}")),
            None => End::Holds,
        },
    };
    if let Some(why) = world.broken() {
        let was = std::mem::replace(&mut tale.end, End::Holds);
        tale.end = match was {
            End::Waits(lacks) => End::Waits(lacks),
            End::Fails(failure) => End::Unknown(format!("{why} (and then: {failure})")),
            _ => End::Unknown(why.to_owned()),
        };
    }
    let wanted = match &tale.end {
        End::Holds | End::Waits(_) => keep,
        End::Fails(_) | End::Unknown(_) => true,
    };
    if wanted {
        let why = match &tale.end {
            End::Fails(why) | End::Unknown(why) => why.clone(),
            End::Holds => "all that was expected holds".to_owned(),
            End::Waits(lacks) => lacks.join("; "),
        };
        tale.kept = Some(world.keep(story, &why));
    }
}

/// Tells stories, `jobs` at a time, and says how each ended as soon as it has. The tales are in the order of the runs.
///
/// # Errors
/// The directory for logs cannot be made.
pub fn all(
    site: &Site,
    runs: &[Run<'_>],
    jobs: usize,
    files: &Path,
    keep: bool,
    say: &(dyn Fn(&Tale) + Sync),
) -> Result<Vec<Tale>> {
    fs::create_dir_all(files).map_err(Error::io(|| format!("create {}", files.display())))?;
    // The longest first, so that none is left alone at the end.
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(runs[*index].story.end));
    let queue = Mutex::new(VecDeque::from(order));
    let tales = Mutex::new(vec![None; runs.len()]);
    let next = || lock(&queue).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(index) = next() {
                    let tale = tell(site, &runs[index], files, keep);
                    say(&tale);
                    lock(&tales)[index] = Some(tale);
                }
            });
        }
    });
    let tales = tales.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(tales.into_iter().flatten().collect())
}
