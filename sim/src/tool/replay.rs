//! `surus-sim replay`: one run, and what happened in it.

use std::io::{self, BufWriter, Write};

use surus_core::types::NodeName;
use surus_sim::record::{Entry, Keep, Seen};

use crate::Trouble;
use crate::style::{Ink, Paint};
use crate::subject::Subject;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Only what happens at this member (n1, n2, …); may be given more than once
    #[arg(long = "node", value_name = "NAME")]
    only: Vec<String>,
    /// How much: who leads; what agents decide and what is done as well; facts of the models; or messages, too
    #[arg(long, value_enum, default_value_t = Level::Facts)]
    level: Level,
    /// From this second of the world
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    from: f64,
    /// Until this second
    #[arg(long, value_name = "SECONDS", default_value_t = f64::INFINITY)]
    to: f64,
}

/// How much is shown. A level shows all that those before it show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Level {
    /// Faults, who leads, and what begins and ends
    News,
    /// Decisions and orders as well
    Decisions,
    /// All that happens, but for messages
    Facts,
    /// All
    Messages,
}

impl Level {
    /// The first level that shows it.
    pub(crate) fn of(seen: &Seen) -> Self {
        match seen {
            Seen::Message { .. } => Self::Messages,
            Seen::Decided(_) | Seen::OrderBegan { .. } | Seen::OrderEnded { .. } => Self::Decisions,
            Seen::StepBegan { .. }
            | Seen::StepEnded { .. }
            | Seen::Healed
            | Seen::LockTaken { .. }
            | Seen::LockReleased { .. }
            | Seen::LockLost { .. }
            | Seen::Promoted { .. }
            | Seen::Up { .. }
            | Seen::Ended { .. }
            | Seen::Broken { .. }
            | Seen::AgentBegan
            | Seen::AgentEnded { .. }
            | Seen::AgentDied
            | Seen::AgentFrozen { .. }
            | Seen::HostFrozen { .. }
            | Seen::Power { .. } => Self::News,
            _ => Self::Facts,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let job = args.subject.job()?;
    let keep = if args.level == Level::Messages {
        Keep::Messages
    } else {
        Keep::Facts
    };
    let outcome = job.run(keep);
    for name in &args.only {
        if !outcome.names.iter().any(|known| known.as_str() == name) {
            let known: Vec<&str> = outcome.names.iter().map(NodeName::as_str).collect();
            return Err(format!("--node {name}: this world has {}", known.join(", ")).into());
        }
    }
    let paint = Paint::stdout();
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = |entry: &Entry| {
        let seconds = entry.at as f64 / 1e9;
        let here = entry.node.is_none_or(|node| {
            let name = outcome.names.get(node).map_or("", NodeName::as_str);
            args.only.is_empty() || args.only.iter().any(|only| only == name)
        });
        here && args.from <= seconds && seconds <= args.to && Level::of(&entry.seen) <= args.level
    };
    for entry in outcome.entries.iter().filter(|entry| shown(entry)) {
        writeln!(out, "{}", paint.ink(ink(&entry.seen), entry.line(&outcome.names)))?;
    }
    let ink = if outcome.violation.is_some() {
        Ink::Bad
    } else {
        Ink::Good
    };
    writeln!(out, "{}", paint.ink(ink, outcome.verdict()))?;
    if let Some(violation) = &outcome.violation {
        writeln!(out, "{}: {}", violation.invariant, violation.invariant.words())?;
    }
    out.flush()?;
    Ok(outcome.violation.is_some())
}

/// How it is shown.
pub(crate) fn ink(seen: &Seen) -> Ink {
    match seen {
        Seen::StepBegan { .. } | Seen::StepEnded { .. } | Seen::Healed => Ink::Fault,
        Seen::Broken { .. } => Ink::Bad,
        Seen::LockTaken { .. } | Seen::LockReleased { .. } | Seen::LockLost { .. } => Ink::Lock,
        Seen::Promoted { .. }
        | Seen::Up { .. }
        | Seen::Ended { .. }
        | Seen::Closing
        | Seen::Discarded { .. } => Ink::Server,
        Seen::Decided(_) => Ink::Decision,
        Seen::OrderBegan { .. } | Seen::OrderEnded { .. } => Ink::Plain,
        Seen::Message { .. } | Seen::LockRenewed { .. } | Seen::StatusWritten { .. } | Seen::Armed { .. } => {
            Ink::Dim
        }
        _ => Ink::Plain,
    }
}
