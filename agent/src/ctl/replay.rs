//! `replay`: a recording told to the state machine of this version.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use surus_core::{Decision, Input};

use crate::agent::record::{self, Replayed};
use crate::ctl::failure::Failure;
use crate::ctl::terminal::Terminal;

/// Prints what the state machine decides and orders, step by step; steps at which it does nothing new are left out.
pub fn replay(terminal: &mut Terminal, file: &Path) -> Result<(), Failure> {
    let trouble = || Failure::new(format!("cannot replay {}", file.display()));
    let recording = File::open(file).map_err(|error| trouble().because(&error))?;
    let mut last: Option<Decision> = None;
    let mut printed = Ok(());
    let mut steps = 0_usize;
    let end = record::replay(BufReader::new(recording), |step| {
        steps += 1;
        let text = describe(&step, last.as_ref());
        last = Some(step.decision);
        if let Some(text) = text
            && printed.is_ok()
        {
            printed = terminal.print(&text);
        }
    });
    printed?;
    match end {
        Ok(Some(node)) => terminal.print(&format!("\nafter {steps} steps:\n{}", node.explain())),
        Ok(None) => Err(trouble().cause("it is empty")),
        Err(error) => Err(trouble().because(&error)),
    }
}

/// The step in words; `None` if there is nothing new to say.
fn describe(step: &Replayed, last: Option<&Decision>) -> Option<String> {
    let decided = last.is_none_or(|last| !last.same_as(&step.decision));
    if !decided && step.actions.is_empty() {
        return None;
    }
    let what = step.input.as_ref().map_or("begins", word);
    let mut text = format!("{:>12.6}  {what}", step.after.as_secs_f64());
    // Writing to a String cannot fail.
    if decided {
        let _ = write!(text, "\n              decides  {}", step.decision);
    }
    for action in &step.actions {
        let _ = write!(
            text,
            "\n              orders   {} {:?}",
            action.id.0, action.order
        );
    }
    Some(text)
}

/// An input by its kind.
fn word(input: &Input) -> &'static str {
    match input {
        Input::Tick => "time passes",
        Input::Look => "a peer wants to know how things stand",
        Input::Cluster(_) => "the cluster's keys have changed",
        Input::PostgresExited => "PostgreSQL has ended",
        Input::GuardLost => "the guard is gone",
        Input::Config(_) => "the settings have changed",
        Input::FailsafeAsked { .. } => "a primary asks to stay primary",
        Input::Operator { .. } => "somebody asks something",
        Input::Shutdown => "the agent is to end",
        Input::Peer { status: Some(_), .. } => "a peer has answered",
        Input::Peer { status: None, .. } => "a peer has not answered",
        Input::Done { .. } => "an order has ended",
    }
}
