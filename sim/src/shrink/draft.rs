//! A story as lines of words, and the simpler forms of it.
//!
//! Only what every story has is known here: which lines can go, that a member is a word of the line `cluster`, that `key=value` may be
//! left out, that a time is a number with a unit. Whether a form makes sense is for the parser to say.

use std::fmt;

use surus_scenarios::text::Value as _;
use surus_scenarios::{Nanos, Story};

/// Times are rounded to the first of these that still fails.
const GRAINS: [Nanos; 9] = [
    Nanos::secs(60),
    Nanos::secs(10),
    Nanos::secs(5),
    Nanos::secs(1),
    Nanos::ms(500),
    Nanos::ms(100),
    Nanos::ms(50),
    Nanos::ms(10),
    Nanos::ms(1),
];

/// Ends are whole seconds.
const SECOND: Nanos = Nanos::secs(1);

/// A story as lines of words. Comments, links and the seed are set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    aside: Story,
    lines: Vec<Vec<String>>,
}

impl Draft {
    pub(super) fn of(story: &Story) -> Self {
        let mut bare = story.clone();
        bare.seed = None;
        bare.links.clear();
        bare.notes.clear();
        let lines = bare.to_string();
        let lines = lines
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(words)
            .collect();
        Self {
            aside: story.clone(),
            lines,
        }
    }

    /// The story, if it is one.
    pub(super) fn story(&self, seed: u64) -> Option<Story> {
        let read: Story = self.to_string().parse().ok()?;
        let aside = self.aside.clone();
        Some(Story {
            name: aside.name,
            title: aside.title,
            notes: aside.notes,
            links: aside.links,
            seed: Some(seed),
            ..read
        })
    }

    /// The lines that may go: all but the cluster and the end.
    pub(super) fn loose(&self) -> Vec<usize> {
        let fixed = |line: &[String]| matches!(line[0].as_str(), "cluster" | "end");
        (0..self.lines.len())
            .filter(|index| !fixed(&self.lines[*index]))
            .collect()
    }

    /// Of the lines that may go, only these.
    pub(super) fn with_lines(&self, kept: &[usize]) -> Self {
        let loose = self.loose();
        self.with(|draft| {
            let mut index = 0;
            draft.lines.retain(|_| {
                index += 1;
                !loose.contains(&(index - 1)) || kept.contains(&(index - 1))
            });
        })
    }

    /// Nothing happens after `at`, and the run ends soon after it; the boldest first.
    pub(super) fn cut(&self, at: Nanos) -> Vec<Self> {
        let late = |line: &[String]| line[0] == "at" && time(&line[1]).is_some_and(|time| at < time);
        let dropped = self.with(|draft| draft.lines.retain(|line| !late(line)));
        let end = Nanos(at.0.div_ceil(SECOND.0) * SECOND.0);
        let mut shorter = dropped.clone();
        shorter.set_end(end);
        let now = dropped.end();
        if end < now {
            vec![shorter, dropped]
        } else {
            vec![dropped]
        }
    }

    /// The members.
    pub(super) fn members(&self) -> impl Iterator<Item = &str> {
        let cluster = self.lines.iter().find(|line| line[0] == "cluster");
        let words = cluster.into_iter().flatten().skip(1);
        words.map(String::as_str).filter(|word| !word.contains('='))
    }

    /// Without a member, and without the lines that name it.
    pub(super) fn without_member(&self, member: &str) -> Self {
        let mentions = |word: &String| word.split(['=', ',', '@']).any(|part| part == member);
        self.with(|draft| {
            for line in &mut draft.lines {
                if line[0] == "cluster" {
                    line.retain(|word| word != member);
                }
            }
            draft
                .lines
                .retain(|line| line[0] == "cluster" || !line.iter().any(mentions));
        })
    }

    /// Members called n1, n2, … in the order of their names, which is what ties are broken by.
    pub(super) fn renamed(&self) -> Vec<Self> {
        let mut old: Vec<&str> = self.members().collect();
        old.sort_unstable();
        let new: Vec<String> = (1..=old.len()).map(|number| format!("n{number}")).collect();
        let name = |part: &str| {
            old.iter()
                .position(|name| *name == part)
                .map(|place| new[place].as_str())
        };
        vec![self.with(|draft| {
            for word in draft.lines.iter_mut().flatten() {
                let parts = word.split_inclusive(['=', ',', '@']);
                *word = parts
                    .map(|part| {
                        let bare = part.trim_end_matches(['=', ',', '@']);
                        let end = &part[bare.len()..];
                        format!("{}{end}", name(bare).unwrap_or(bare))
                    })
                    .collect();
            }
        })]
    }

    /// One `key=value` less that is no time, or a trap's fault at its time instead of the trap.
    pub(super) fn plainer(&self) -> Vec<Self> {
        let mut forms = Vec::new();
        for (row, line) in self.lines.iter().enumerate() {
            for (column, word) in line.iter().enumerate() {
                let Some((key, value)) = word.split_once('=') else {
                    continue;
                };
                // A fault without its duration lasts for ever; that is no simpler.
                if time(value).is_none() || key == "after" {
                    forms.push(self.with(|draft| {
                        draft.lines[row].remove(column);
                    }));
                }
            }
            if let Some(strike) = line.iter().position(|word| word == "do") {
                forms.push(self.with(|draft| {
                    draft.lines[row].drain(2..=strike);
                }));
            }
        }
        forms
    }

    /// What happens from one line on happens sooner, and the end comes sooner.
    pub(super) fn sooner(&self) -> Vec<Self> {
        let mut times: Vec<Nanos> = self.times_of_steps().collect();
        times.sort_unstable();
        times.dedup();
        let mut forms = Vec::new();
        let mut last = Nanos::ZERO;
        for at in times {
            let gap = at.minus(last);
            for less in [gap, Nanos(gap.0 / 2), Nanos(gap.0 / 4)] {
                if Nanos::secs(1) < less || less == gap && Nanos::ms(1) < gap {
                    forms.push(self.earlier(at, less));
                }
            }
            last = at;
        }
        let end = self.end();
        let room = end.minus(last);
        for less in [Nanos(room.0 / 2), Nanos(room.0 / 4), Nanos::secs(1)] {
            let whole = Nanos(end.minus(less).0.div_ceil(SECOND.0) * SECOND.0);
            if SECOND <= whole && whole < end {
                forms.push(self.with(|draft| draft.set_end(whole)));
            }
        }
        forms
    }

    fn earlier(&self, from: Nanos, less: Nanos) -> Self {
        self.with(|draft| {
            for line in draft.lines.iter_mut().filter(|line| line[0] == "at") {
                if let Some(at) = time(&line[1]).filter(|at| from <= *at) {
                    line[1] = at.minus(less).to_string();
                }
            }
            let end = draft.end().minus(less).0.div_ceil(SECOND.0).max(1);
            draft.set_end(Nanos(end * SECOND.0));
        })
    }

    /// One time rounder. The coarsest grain comes first.
    pub(super) fn rounder(&self) -> Vec<Self> {
        let mut forms = Vec::new();
        for (row, line) in self.lines.iter().enumerate() {
            for (column, word) in line.iter().enumerate() {
                let (key, value) = word
                    .split_once('=')
                    .map_or(("", word.as_str()), |(key, value)| (key, value));
                let Some(old) = time(value) else { continue };
                for grain in GRAINS {
                    let new = Nanos((old.0 + grain.0 / 2) / grain.0 * grain.0);
                    if old.0 % grain.0 == 0 {
                        break;
                    }
                    let duration = line[0] != "at" || column != 1;
                    if new == Nanos::ZERO && duration {
                        continue;
                    }
                    forms.push(self.with(|draft| {
                        let equals = if key.is_empty() { "" } else { "=" };
                        draft.lines[row][column] = format!("{key}{equals}{new}");
                    }));
                }
            }
        }
        forms
    }

    fn times_of_steps(&self) -> impl Iterator<Item = Nanos> {
        self.lines
            .iter()
            .filter(|line| line[0] == "at")
            .filter_map(|line| time(&line[1]))
    }

    fn end(&self) -> Nanos {
        let line = self.lines.iter().find(|line| line[0] == "end");
        line.and_then(|line| time(&line[1])).unwrap_or_default()
    }

    fn set_end(&mut self, end: Nanos) {
        if let Some(line) = self.lines.iter_mut().find(|line| line[0] == "end") {
            line[1] = end.to_string();
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut draft = self.clone();
        change(&mut draft);
        draft
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}: {}", self.aside.name, self.aside.title)?;
        self.lines
            .iter()
            .try_for_each(|line| writeln!(f, "{}", line.join(" ")))
    }
}

/// A time that is not for ever.
fn time(word: &str) -> Option<Nanos> {
    Nanos::read(word).filter(|time| *time != Nanos::FOREVER)
}

/// Words between blanks; a blank within quotes separates nothing.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for char in line.chars() {
        if char == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && char == '\\' && !escaped;
        match words.last_mut() {
            Some(word) if !char.is_whitespace() || quoted => word.push(char),
            Some(word) if !word.is_empty() => words.push(String::new()),
            _ => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
