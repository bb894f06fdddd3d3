//! Why a verb of `cargo ci` failed.
//!
//! One enum for the whole tool: each variant names what was being done, and the last line a person reads says where to look.
//! `Display` never contains the cause; [`chain`] prints it.

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Duration;

/// What stopped a verb.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("could not {doing}")]
    Io {
        /// What was tried, as a verb phrase with the path or address.
        doing: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// PostgreSQL refused something, or the connection broke.
    #[error("could not {doing}")]
    Sql {
        /// What was tried, as a verb phrase with the address.
        doing: String,
        /// What the client library said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A program ended with an error.
    #[error("`{program}` failed ({status}): {output}")]
    Program {
        /// The command line.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// Something did not come about in time.
    #[error("waited {:.0} s for {what}: {last}", .limit.as_secs_f64())]
    Late {
        /// What was awaited.
        what: String,
        /// How long, at most.
        limit: Duration,
        /// What was seen last.
        last: String,
    },
    /// An expectation of the run is not met: the product is at fault, not the harness.
    #[error("{0}")]
    Unmet(String),
    /// The machine cannot run this: something is missing or taken. The text says the remedy.
    #[error("{0}")]
    Unable(String),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps an error of the operating system: `.map_err(Error::io(|| format!("read {path}")))`.
    pub fn io<D: Into<String>>(doing: impl FnOnce() -> D) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::Io {
            doing: doing().into(),
            source,
        }
    }

    /// Wraps an error of PostgreSQL's client.
    pub fn sql<D: Into<String>>(doing: impl FnOnce() -> D) -> impl FnOnce(tokio_postgres::Error) -> Self {
        |source| Self::Sql {
            doing: doing().into(),
            source,
        }
    }

    /// 1: the product did not do what it must; 2: the harness or machine could not find out; 130: interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unmet(_) | Self::Late { .. } => 1,
            Self::Interrupted => 130,
            Self::Io { .. } | Self::Sql { .. } | Self::Program { .. } | Self::Unable(_) => 2,
        }
    }
}

/// The error and all its causes in one line.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
