//! A story: a cluster, what happens to it and when, and what must hold.

use std::fmt;

use crate::expect::Expectation;
use crate::fault::Fault;
use crate::load::Load;
use crate::operator::Operator;
use crate::shape::Shape;
use crate::text::{Args, Name, Nanos, ParseError, Text, nearest};
use crate::trap::Trap;

/// A story. Its text form is [`fmt::Display`] and [`std::str::FromStr`], which give back the same value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Story {
    /// Its name, such as `B-001`.
    pub name: String,
    /// What it is about, in a line.
    pub title: String,
    /// What happened to others, or why the story is told; lines.
    pub notes: Vec<String>,
    /// Where that is reported.
    pub links: Vec<String>,
    /// What a world must have, such as `synchronous_mode`; where it is missing the story waits, and does not pass.
    pub requires: Vec<Name>,
    /// Rules (by code) and guards of the core that are to stop it. A run confirms each.
    pub stopped_by: Vec<Name>,
    /// Planted bugs with which it happens to us, too: with each the story fails in some world. They are the proof that it can fail.
    pub returns_with: Vec<Name>,
    /// The seed of the world's own chance; `None` leaves it to whoever plays the story.
    pub seed: Option<u64>,
    /// The world.
    pub shape: Shape,
    /// What happens, by time.
    pub steps: Vec<Planned>,
    /// When all faults are healed.
    pub end: Nanos,
    /// What must hold of the whole run, and after its end.
    pub expectations: Vec<Expectation>,
}

impl Story {
    /// When each fault begins, in order.
    pub fn faults(&self) -> impl Iterator<Item = (Nanos, &Fault)> {
        self.steps.iter().filter_map(|planned| match &planned.step {
            Step::Fault(fault)
            | Step::Trap(Trap {
                strike: Strike::Fault(fault),
                ..
            }) => Some((planned.at, fault)),
            _ => None,
        })
    }
}

/// A step and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub at: Nanos,
    /// What.
    pub step: Step,
}

/// What happens at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Something goes wrong.
    Fault(Fault),
    /// A person does something.
    Operator(Operator),
    /// Clients do something.
    Load(Load),
    /// From now on a fault waits for an act.
    Trap(Trap),
    /// Something must hold.
    Expect(Expectation),
    /// All faults end; whoever is down comes up.
    Heal,
}

/// What a trap can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strike {
    /// Something goes wrong.
    Fault(Fault),
    /// A person does something.
    Operator(Operator),
}

impl Strike {
    /// Its word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.word(),
            Self::Operator(act) => act.word(),
        }
    }

    /// Reads a whole line.
    pub(crate) fn read(args: &mut Args) -> Result<Self, ParseError> {
        let verb = args.word("a fault or what a person does")?;
        let word = verb.text.as_str();
        let read = match Fault::read(word, args)? {
            Some(fault) => Some(Self::Fault(fault)),
            None => Operator::read(word, args)?.map(Self::Operator),
        };
        let verbs = || Fault::verbs().chain(Operator::VERBS);
        let Some(read) = read else {
            let like = nearest(word, verbs().map(|verb| verb.word));
            return Err(verb.wrong("a fault or what a person does", like));
        };
        let keys = keys(verbs(), word);
        std::mem::replace(args, Args::empty()).finish(&keys)?;
        Ok(read)
    }

    #[cfg(test)]
    pub(crate) fn sample(dice: &mut crate::text::Dice) -> Self {
        match dice.below(3) {
            0 => Self::Operator(Operator::sample(dice)),
            _ => Self::Fault(Fault::sample(dice)),
        }
    }
}

/// The keys of a verb.
fn keys<'a>(verbs: impl IntoIterator<Item = &'a crate::text::Verb>, word: &str) -> Vec<&'static str> {
    let verb = verbs.into_iter().find(|verb| verb.word == word);
    verb.map(|verb| verb.keys.iter().map(|key| key.word).collect())
        .unwrap_or_default()
}

impl Step {
    /// Its word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.word(),
            Self::Operator(act) => act.word(),
            Self::Load(load) => load.word(),
            Self::Trap(_) => "when",
            Self::Expect(_) => "expect",
            Self::Heal => "heal",
        }
    }

    /// Reads a whole line after its time.
    pub(crate) fn read(mut args: Args) -> Result<Self, ParseError> {
        const WHAT: &str = "a fault, what a person or clients do, `when`, `expect` or `heal`";
        let Some(verb) = args.peek().cloned() else {
            return Err(args.missing(WHAT));
        };
        let word = verb.text.as_str();
        match word {
            "when" => {
                args.next();
                return Trap::read(args).map(Self::Trap);
            }
            "expect" => {
                args.next();
                return expectation(args).map(Self::Expect);
            }
            "heal" => {
                args.next();
                args.finish(&[])?;
                return Ok(Self::Heal);
            }
            _ => {}
        }
        if Load::VERBS.iter().any(|load| load.word == word) {
            args.next();
            let load = Load::read(word, &mut args)?.ok_or_else(|| verb.wrong(WHAT, None))?;
            args.finish(&keys(Load::VERBS, word))?;
            return Ok(Self::Load(load));
        }
        let known = || {
            Fault::verbs()
                .chain(Operator::VERBS)
                .chain(Load::VERBS)
                .map(|verb| verb.word)
        };
        if !known().any(|known| known == word) {
            let like = nearest(word, known().chain(["when", "expect", "heal"]));
            return Err(verb.wrong(WHAT, like));
        }
        Ok(match Strike::read(&mut args)? {
            Strike::Fault(fault) => Self::Fault(fault),
            Strike::Operator(act) => Self::Operator(act),
        })
    }

    /// Calls `visit` with each name in it.
    pub fn names(&self, visit: &mut dyn FnMut(&Name)) {
        match self {
            Self::Fault(fault) => fault.names(visit),
            Self::Operator(act) => act.names(visit),
            Self::Load(load) => load.names(visit),
            Self::Trap(trap) => trap.names(visit),
            Self::Expect(expectation) => expectation.names(visit),
            Self::Heal => {}
        }
    }

    #[cfg(test)]
    pub(crate) fn sample(dice: &mut crate::text::Dice) -> Self {
        match dice.below(8) {
            0 => Self::Operator(Operator::sample(dice)),
            1 => Self::Load(Load::sample(dice)),
            2 => Self::Trap(Trap::sample(dice)),
            3 => Self::Expect(Expectation::sample(dice)),
            4 => Self::Heal,
            _ => Self::Fault(Fault::sample(dice)),
        }
    }
}

/// Reads what follows `expect`.
pub(crate) fn expectation(mut args: Args) -> Result<Expectation, ParseError> {
    let verb = args.verb("an expectation", Expectation::VERBS)?;
    let word = verb.text.as_str();
    let Some(read) = Expectation::read(word, &mut args)? else {
        let like = nearest(word, Expectation::VERBS.iter().map(|verb| verb.word));
        return Err(verb.wrong("an expectation", like));
    };
    args.finish(&keys(Expectation::VERBS, word))?;
    Ok(read)
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Operator(act) => act.fmt(f),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Operator(act) => act.fmt(f),
            Self::Load(load) => load.fmt(f),
            Self::Trap(trap) => trap.fmt(f),
            Self::Expect(expectation) => write!(f, "expect {expectation}"),
            Self::Heal => f.write_str("heal"),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:<8} {}", self.at.to_string(), self.step)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}: {}", self.name, self.title)?;
        for note in &self.notes {
            writeln!(f, "#{}{note}", if note.is_empty() { "" } else { " " })?;
        }
        for link in &self.links {
            writeln!(f, "link {link}")?;
        }
        let list = |f: &mut fmt::Formatter<'_>, word: &str, names: &[Name]| {
            if names.is_empty() {
                return Ok(());
            }
            f.write_str(word)?;
            names.iter().try_for_each(|name| write!(f, " {}", Text(name)))?;
            writeln!(f)
        };
        list(f, "requires", &self.requires)?;
        list(f, "stopped-by", &self.stopped_by)?;
        list(f, "returns-with", &self.returns_with)?;
        if let Some(seed) = self.seed {
            writeln!(f, "seed {seed}")?;
        }
        write!(f, "{}", self.shape)?;
        for planned in &self.steps {
            writeln!(f, "{planned}")?;
        }
        writeln!(f, "end {}", self.end)?;
        for expectation in &self.expectations {
            writeln!(f, "expect {expectation}")?;
        }
        Ok(())
    }
}
