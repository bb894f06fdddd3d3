//! Whether the courses of runs on containers are such as a simulated world knows: who took writes, one after the other.
//!
//! Both worlds write lines `STORY RUNS COURSE`. A course on containers that a simulated world never took in any of its runs is a
//! difference: its model is narrower than the world, or the story does not determine as much as it seems to.

use std::collections::BTreeMap;
use std::fmt;

/// Of each story its courses, and in how many runs each was taken.
type Courses<'a> = BTreeMap<&'a str, BTreeMap<&'a str, u64>>;

/// What the comparison gave.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Comparison {
    /// Stories of which the simulated world knows but one course, and that took it.
    pub(crate) determined: Vec<String>,
    /// Stories that took one of several courses that it knows.
    pub(crate) known: Vec<String>,
    /// Stories that it cannot play.
    pub(crate) untold: Vec<String>,
    /// Those that took another.
    pub(crate) differences: Vec<Difference>,
}

/// A course that the simulated world does not know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    story: String,
    seen: String,
    known: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { story, seen, known } = self;
        write!(
            f,
            "{story}: {seen} on containers; simulated: {}",
            known.join(", ")
        )
    }
}

fn read(text: &str) -> Courses<'_> {
    let mut courses = Courses::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(story), Some(runs), Some(course)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        *courses.entry(story).or_default().entry(course).or_default() += runs.parse().unwrap_or(0);
    }
    courses
}

/// The names of the stories in such a file.
pub(crate) fn stories(text: &str) -> Vec<String> {
    read(text).into_keys().map(str::to_owned).collect()
}

/// Compares what was seen on containers with what a simulated world knows.
pub(crate) fn compare(containers: &str, simulated: &str) -> Comparison {
    let simulated = read(simulated);
    let mut comparison = Comparison::default();
    for (story, seen) in read(containers) {
        let Some(known) = simulated.get(story) else {
            comparison.untold.push(story.to_owned());
            continue;
        };
        let strange: Vec<_> = seen
            .keys()
            .filter(|course| !known.contains_key(*course))
            .collect();
        if strange.is_empty() {
            let kind = if known.len() == 1 {
                &mut comparison.determined
            } else {
                &mut comparison.known
            };
            kind.push(story.to_owned());
        }
        comparison.differences.extend(strange.into_iter().map(|seen| {
            Difference {
                story: story.to_owned(),
                seen: (*seen).to_owned(),
                known: known
                    .iter()
                    .map(|(course, runs)| format!("{course} ({runs})"))
                    .collect(),
            }
        }));
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_that_is_not_known_is_a_difference() {
        let containers = "M-01 1 A1 B2\nM-01 1 A1 A2\nM-02 1 A1 B2\nM-03 1 A1\nB-1 1 A1\n";
        let simulated = "M-01 20 A1 B2\nM-02 20 A1 B2\nM-03 19 A1\nM-03 1 A1 B2\n";
        let comparison = compare(containers, simulated);
        assert_eq!(comparison.determined, ["M-02"]);
        assert_eq!(comparison.known, ["M-03"]);
        assert_eq!(comparison.untold, ["B-1"]);
        let said: Vec<String> = comparison.differences.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["M-01: A1 A2 on containers; simulated: A1 B2 (20)"]);
        assert_eq!(stories(containers), ["B-1", "M-01", "M-02", "M-03"]);
    }
}
