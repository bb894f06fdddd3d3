//! The stories in `scenarios/stories`, and the incidents that have none.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::story::Story;
use crate::text::ParseError;

/// A story and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The file, from the directory of all stories on: `incidents/B-001.story`.
    pub file: PathBuf,
    /// The story.
    pub story: Story,
}

/// An incident that has no story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its name: `B-051`.
    pub incident: String,
    /// Where it is reported.
    pub link: String,
    /// Why it cannot concern an agent that works with etcd.
    pub reason: String,
}

/// Why the stories cannot be read.
#[derive(Debug)]
pub enum Error {
    /// A file or directory.
    Io(PathBuf, io::Error),
    /// The text of a story.
    Parse(PathBuf, ParseError),
    /// A line of `ELSEWHERE`.
    Line(String),
    /// Neither a file, a directory nor the name of a story.
    Unknown(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Parse(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Line(line) => write!(f, "ELSEWHERE: expected INCIDENT LINK REASON, found `{line}`"),
            Self::Unknown(name) => write!(
                f,
                "`{name}` is neither a file, a directory nor the name of a story"
            ),
        }
    }
}

impl std::error::Error for Error {}

/// The directory of all stories in this source tree.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stories")
}

/// All stories below `directory`, by their file names.
///
/// # Errors
/// A file that cannot be read, or is no story.
pub fn stories(directory: &Path) -> Result<Vec<Told>, Error> {
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    files.sort();
    let mut told = Vec::new();
    for path in files {
        let story = read(&path)?;
        let file = path.strip_prefix(directory).unwrap_or(&path).to_path_buf();
        told.push(Told { file, story });
    }
    Ok(told)
}

/// The stories that are meant by files, directories or names such as `B-001`, in that order.
///
/// # Errors
/// As [`stories`], and something that is none of these.
pub fn chosen<S: AsRef<str>>(names: &[S]) -> Result<Vec<Told>, Error> {
    let mut chosen = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        let path = Path::new(name);
        if path.is_dir() {
            let within = stories(path)?;
            chosen.extend(within.into_iter().map(|told| Told {
                file: path.join(told.file),
                story: told.story,
            }));
        } else if path.is_file() {
            chosen.push(Told {
                file: path.to_owned(),
                story: read(path)?,
            });
        } else {
            let known = stories(&directory())?
                .into_iter()
                .find(|told| told.story.name == name);
            chosen.push(known.ok_or_else(|| Error::Unknown(name.to_owned()))?);
        }
    }
    Ok(chosen)
}

/// The story in a file.
///
/// # Errors
/// The file cannot be read, or is no story.
pub fn read(path: &Path) -> Result<Story, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::Io(path.to_path_buf(), error))?;
    text.parse()
        .map_err(|error| Error::Parse(path.to_path_buf(), error))
}

/// The incidents that have no story, from `directory/incidents/ELSEWHERE`.
///
/// # Errors
/// The file cannot be read, or a line of it is not as it should be.
pub fn elsewhere(directory: &Path) -> Result<Vec<Elsewhere>, Error> {
    let path = directory.join("incidents/ELSEWHERE");
    let text = fs::read_to_string(&path).map_err(|error| Error::Io(path, error))?;
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            let (incident, link, reason) = (words.next(), words.next(), words.next());
            match (incident, link, reason) {
                (Some(incident), Some(link), Some(reason)) => Ok(Elsewhere {
                    incident,
                    link,
                    reason,
                }),
                _ => Err(Error::Line(line.to_owned())),
            }
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |error| Error::Io(directory.to_path_buf(), error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "story") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Expectation;

    #[test]
    fn every_file_is_a_story_of_its_name_that_prints_as_itself() {
        let stories = stories(&directory()).unwrap_or_else(|error| panic!("{error}"));
        assert!(100 < stories.len());
        for Told { file, story } in stories {
            let name = file
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            assert_eq!(story.name, name);
            let printed = story.to_string();
            assert_eq!(printed.parse::<Story>().as_ref(), Ok(&story), "{printed}");
            assert!(!story.notes.is_empty(), "{name} says what happened");
            assert!(story.expectations.len() > 1, "{name} expects something");
            let incident = name.starts_with("B-");
            assert_eq!(incident, !story.links.is_empty(), "{name} has its link");
            let single = story.expectations.iter().any(|expect| {
                matches!(
                    expect,
                    Expectation::NoDualPrimary {}
                        | Expectation::NoFailover {}
                        | Expectation::Promotions { .. }
                )
            });
            assert!(single, "{name} expects that there is one primary");
        }
    }

    #[test]
    fn a_file_in_a_story_says_what_its_cluster_line_says() {
        let told = stories(&directory()).unwrap_or_else(|error| panic!("{error}"));
        let mut files = 0;
        for Told { story, .. } in told.iter().filter(|told| told.story.shape.file.given()) {
            files += 1;
            let settings = &story.shape.settings;
            for line in &story.shape.file.0 {
                let Some((key, value)) = line.trim().split_once(": ") else {
                    continue;
                };
                let value = match value {
                    "true" => "on",
                    "false" => "off",
                    other => other,
                };
                if let Some(with) = settings.clone().with(key, value) {
                    assert_eq!(&with, settings, "{}: `{line}`", story.name);
                }
            }
        }
        assert!(5 <= files, "each article has a story");
    }

    #[test]
    fn an_incident_is_told_or_explained() {
        let told = stories(&directory()).unwrap_or_else(|error| panic!("{error}"));
        let elsewhere = elsewhere(&directory()).unwrap_or_else(|error| panic!("{error}"));
        for Elsewhere { incident, reason, .. } in elsewhere {
            assert!(
                told.iter().all(|told| !told.story.name.starts_with(&incident)),
                "{incident} is both"
            );
            assert!(20 < reason.len(), "{incident} has a reason");
        }
    }
}
