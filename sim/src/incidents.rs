//! The table of incidents: what happened to others, the story that provokes it here, what stops it, and with which planted bug it
//! returns. `surus-sim incidents --write` makes `scenarios/INCIDENTS.md`; a test checks that it is current.
//!
//! The table is made of the story files and of `sim/ZOO.md`, the output of `surus-sim zoo --markdown`. What the files claim the tests
//! of the stories confirm: each rule and guard has fired, each planted bug makes the story fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use surus_core::Rule;
use surus_scenarios::Name;
use surus_scenarios::library::{self, Elsewhere, Error, Told};

use crate::fast;

/// The file of the table in this source tree.
#[must_use]
pub fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/INCIDENTS.md")
}

/// The figures of the zoo in this source tree.
fn zoo() -> BTreeMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("ZOO.md");
    // Nobody has hunted yet: the column stays empty.
    figures(&fs::read_to_string(file).unwrap_or_default())
}

/// The seeds that each planted bug took, by the rows `| bug | what is wrong | seeds | found as |`.
fn figures(text: &str) -> BTreeMap<String, String> {
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, seeds, ..] = cells.as_slice() else {
            return None;
        };
        let figure = seeds.chars().any(|char| char.is_ascii_digit());
        figure.then(|| ((*name).to_owned(), (*seeds).to_owned()))
    });
    rows.collect()
}

/// The table.
///
/// # Errors
/// The stories cannot be read.
pub fn table() -> Result<String, Error> {
    let directory = library::directory();
    let stories = library::stories(&directory)?;
    Ok(render(&stories, &library::elsewhere(&directory)?, &zoo()))
}

fn render(stories: &[Told], elsewhere: &[Elsewhere], zoo: &BTreeMap<String, String>) -> String {
    let mut text = HEAD.to_owned();
    let mut incidents: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for told in stories.iter().filter(|told| told.file.starts_with("incidents")) {
        let name = told
            .story
            .name
            .trim_end_matches(|char: char| char.is_ascii_lowercase());
        incidents.entry(name).or_default().push(told);
    }
    text += "\n| incident | what happened | story | stopped by | returns with | seeds of the zoo |\n|---|---|---|---|---|---|\n";
    for (name, told) in &incidents {
        for (index, one) in told.iter().enumerate() {
            row(&mut text, if index == 0 { Some(name) } else { None }, one, zoo);
        }
    }
    for (folder, title) in [
        ("articles", "What articles build"),
        ("recipes", "Recipes"),
        ("guards", "Safeguards, one at a time"),
        ("found", "Found by the simulation"),
    ] {
        let _ = write!(
            text,
            "\n## {title}\n\n| story | what happens | stopped by | returns with | seeds of the zoo |\n"
        );
        text += "|---|---|---|---|---|\n";
        for one in stories.iter().filter(|told| told.file.starts_with(folder)) {
            let (bugs, seeds) = bugs(one, zoo);
            let (story, title) = (link(one), title_of(one));
            let _ = writeln!(text, "| {story} | {title} | {} | {bugs} | {seeds} |", stops(one));
        }
    }
    text += "\n## Told elsewhere\n\n| incident | why there is no story |\n|---|---|\n";
    for Elsewhere {
        incident,
        link,
        reason,
    } in elsewhere
    {
        let _ = writeln!(text, "| [{incident}]({link}) | {reason} |");
    }
    text
}

const HEAD: &str = "# Incidents\n
What bit other managers of PostgreSQL, and what becomes of it here. Made by `surus-sim incidents --write`; do not edit.\n
Each story is played in 20 worlds by `cargo test -p surus-sim --test stories`. *Stopped by* names rules (`R01`) and guards of the
core that have fired while it was played. *Returns with* names bugs which, planted, make the story fail: the proof that it can. *Seeds
of the zoo* is how many random seeds find that bug without the story. A story that waits needs what the simulated worlds do not have.
";

fn row(text: &mut String, name: Option<&&str>, told: &Told, zoo: &BTreeMap<String, String>) {
    let incident = match (name, told.story.links.first()) {
        (Some(name), Some(link)) => format!("[{name}]({link})"),
        _ => String::new(),
    };
    let (bugs, seeds) = bugs(told, zoo);
    let (story, title) = (link(told), title_of(told));
    let _ = writeln!(
        text,
        "| {incident} | {title} | {story} | {} | {bugs} | {seeds} |",
        stops(told)
    );
}

fn link(told: &Told) -> String {
    format!("[{}](stories/{})", told.story.name, told.file.display())
}

fn title_of(told: &Told) -> String {
    told.story.title.replace('|', "\\|")
}

/// Rules with their names, guards by their codes; or what the story waits for.
fn stops(told: &Told) -> String {
    let waits: Vec<&str> = told
        .story
        .requires
        .iter()
        .map(Name::as_str)
        .filter(|name| !fast::has(name))
        .collect();
    if !waits.is_empty() {
        return format!("waits for {}", waits.join(", "));
    }
    let named = |name: &Name| {
        let rule = Rule::ALL.iter().find(|rule| rule.code() == name.as_str());
        rule.map_or_else(
            || format!("`{name}`"),
            |rule| format!("{} {}", rule.code(), rule.name()),
        )
    };
    told.story
        .stopped_by
        .iter()
        .map(named)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The planted bugs, and the seeds that the zoo needs for each.
fn bugs(told: &Told, zoo: &BTreeMap<String, String>) -> (String, String) {
    let names = || told.story.returns_with.iter().map(Name::as_str);
    let seeds = names().map(|name| zoo.get(name).map_or("", String::as_str));
    (
        names().collect::<Vec<_>>().join(", "),
        seeds.collect::<Vec<_>>().join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_current() {
        let table = table().unwrap_or_else(|error| panic!("{error}"));
        let file = fs::read_to_string(file()).unwrap_or_default();
        assert!(table == file, "run `surus-sim incidents --write`");
    }

    #[test]
    fn the_zoo_is_read_from_its_table() {
        let text = "| planted | what is wrong | seeds | found as |\n|---|---|---|---|\n| NoOldRight | a free lock | 6 | S1 |\n| X | y | not in 5000 |  |\n";
        let figures = figures(text);
        assert_eq!(figures.get("NoOldRight").map(String::as_str), Some("6"));
        assert_eq!(figures.get("X").map(String::as_str), Some("not in 5000"));
        assert_eq!(figures.len(), 2);
    }
}
