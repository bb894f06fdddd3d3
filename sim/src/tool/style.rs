//! Colour: only for people, never for pipes.

use std::fmt;
use std::io::{IsTerminal as _, stdout};

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint(bool);

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// As it comes.
    Plain,
    /// Unimportant.
    Dim,
    /// Important.
    Strong,
    /// All is well.
    Good,
    /// It is not.
    Bad,
    /// A fault.
    Fault,
    /// etcd and the lock.
    Lock,
    /// PostgreSQL.
    Server,
    /// A decision.
    Decision,
}

impl Paint {
    /// For standard output: colours if that is a terminal and `NO_COLOR` is not set.
    pub(crate) fn stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self(wanted && stdout().is_terminal())
    }

    /// The text in this ink.
    pub(crate) fn ink<T: fmt::Display>(self, ink: Ink, text: T) -> impl fmt::Display {
        let code = match ink {
            _ if !self.0 => "",
            Ink::Plain => "",
            Ink::Dim => "2",
            Ink::Strong => "1",
            Ink::Good => "32",
            Ink::Bad => "1;31",
            Ink::Fault => "31",
            Ink::Lock => "35",
            Ink::Server => "36",
            Ink::Decision => "33",
        };
        fmt::from_fn(move |f| {
            if code.is_empty() {
                return text.fmt(f);
            }
            write!(f, "\x1b[{code}m")?;
            text.fmt(f)?;
            f.write_str("\x1b[0m")
        })
    }
}
