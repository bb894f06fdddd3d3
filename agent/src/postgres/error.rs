//! What goes wrong with PostgreSQL, and how it is told to the core.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use surus_core::input::Outcome;

use super::process::ControlError;

/// Why an order could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be worked on.
    #[error("cannot {what} {}", path.display())]
    File {
        /// A verb.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {}; set postgresql.bin_dir to the directory of PostgreSQL's binaries", program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// The last lines it printed.
        output: String,
    },
    /// PostgreSQL did not do what it was asked.
    #[error("PostgreSQL did not {what}")]
    Query {
        /// A verb and its object.
        what: String,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The local server cannot be connected to.
    #[error("cannot connect to the local server")]
    Unreachable(#[source] io::Error),
    /// Something did not happen in time.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The guard did not do what it was asked.
    #[error("the guard failed")]
    Guard(#[from] ControlError),
    /// A condition for the order is not met. The text names place and remedy.
    #[error("{0}")]
    Condition(String),
    /// The lease or the generation of the order is out of date.
    #[error("{0}")]
    Refused(String),
    /// It may or may not have happened.
    #[error("{0}")]
    Unknown(String),
}

impl Error {
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    pub(super) fn query(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let what = what.into();
        move |source| Self::Query { what, source }
    }

    /// The error with its causes, outermost first.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(text) => Outcome::Refused(text.clone()),
            Self::Unknown(text) => Outcome::Unknown(text.clone()),
            other => Outcome::Failed(other.chain()),
        }
    }
}

/// Logs a failure and turns it into an outcome; `Ok` becomes what `done` makes of it.
pub(super) fn report<T>(
    order: &'static str,
    result: Result<T, Error>,
    done: impl FnOnce(T) -> Outcome,
) -> Outcome {
    match result {
        Ok(value) => done(value),
        Err(error) => {
            tracing::warn!(order, error = %error.chain(), "order on PostgreSQL not carried out");
            error.outcome()
        }
    }
}

/// An error with its causes, outermost first.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
