//! What is wrong with a configuration, said so that the reader can mend it: where, what, and what to do.
//!
//! Reading never stops at the first problem; all of them go into one [`Report`] and come out together.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// Whether a [`Problem`] stops the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is not used: at start the agent stops before it touches anything, later it keeps the former one.
    Error,
    /// The configuration is used; what the message says was changed or left out.
    Warning,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// A file's path, the name of an environment variable, or what else the value came from.
    pub origin: Arc<str>,
    /// Line, from 1; 0 if the origin has no lines.
    pub line: usize,
    /// Column in characters, from 1; 0 if the origin has no lines.
    pub column: usize,
}

impl Mark {
    /// A place without lines.
    #[must_use]
    pub fn whole(origin: &str) -> Self {
        Self {
            origin: origin.into(),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.origin)
        } else {
            write!(f, "{}:{}:{}", self.origin, self.line, self.column)
        }
    }
}

/// One thing that is wrong, with its place and its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the agent.
    pub severity: Severity,
    /// The key, from the top: `postgresql.listen`; empty for the whole text.
    pub path: String,
    /// File, environment variable or other source.
    pub origin: String,
    /// Line, from 1; 0 if the origin has no lines.
    pub line: usize,
    /// Column, from 1; 0 if the origin has no lines.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem of the environment rather than of the text: it has a key and an origin but no line.
    #[must_use]
    pub fn at(severity: Severity, path: &str, mark: &Mark, message: String, remedy: String) -> Self {
        Self {
            severity,
            path: path.to_owned(),
            origin: mark.origin.to_string(),
            line: mark.line,
            column: mark.column,
            message,
            remedy,
        }
    }

    /// True for [`Severity::Error`].
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.message)?;
        if self.line > 0 {
            write!(f, "\n  --> {}:{}:{}", self.origin, self.line, self.column)?;
        } else if !self.origin.is_empty() {
            write!(f, "\n  --> {}", self.origin)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "\n   hint: {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All of `problems` in the manner of a compiler, errors first, with a last line that counts them.
///
/// Empty if there are none.
#[must_use]
pub fn render(problems: &[Problem]) -> String {
    let mut text = String::new();
    for wanted in [Severity::Error, Severity::Warning] {
        for problem in problems.iter().filter(|problem| problem.severity == wanted) {
            text.push_str(&problem.to_string());
            text.push_str("\n\n");
        }
    }
    if !problems.is_empty() {
        let errors = problems.iter().filter(|problem| problem.is_error()).count();
        text.push_str(&format!(
            "{}, {}\n",
            count(errors, "error"),
            count(problems.len() - errors, "warning")
        ));
    }
    text
}

fn count(n: usize, what: &str) -> String {
    match n {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{n} {what}s"),
    }
}

/// Collects the problems of one reading.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
}

impl Report {
    pub(super) fn error(
        &self,
        path: &str,
        mark: &Mark,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(Problem::at(
            Severity::Error,
            path,
            mark,
            message.into(),
            remedy.into(),
        ));
    }

    pub(super) fn warning(
        &self,
        path: &str,
        mark: &Mark,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(Problem::at(
            Severity::Warning,
            path,
            mark,
            message.into(),
            remedy.into(),
        ));
    }

    pub(super) fn push(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        // An anchor that is used twice is read twice.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.problems.borrow().iter().any(Problem::is_error)
    }

    pub(super) fn take(&self) -> Vec<Problem> {
        self.problems.take()
    }
}
