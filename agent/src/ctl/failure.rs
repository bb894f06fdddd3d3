//! What an operator is told when a command cannot do its work: the fact, its causes, and what to do next.

use std::fmt;

/// Whose fault it is, which is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request cannot be fulfilled as things are: exit code 1.
    Request,
    /// Something that should never happen: exit code 2.
    Internal,
    /// Whoever read our output stopped reading: nothing is left to say, exit code 0.
    Reader,
}

/// An error on its way to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code's reason.
    pub blame: Blame,
    /// What could not be done, in one sentence without a full stop.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// The request cannot be fulfilled.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Request,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Something that should never happen.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            blame: Blame::Internal,
            ..Self::new(message)
        }
    }

    /// Adds an error and everything below it.
    #[must_use]
    pub fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds a cause that is no error value.
    #[must_use]
    pub fn cause(mut self, text: impl Into<String>) -> Self {
        self.causes.push(text.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self.blame {
            Blame::Reader => 0,
            Blame::Request => 1,
            Blame::Internal => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {}", cause.trim_end().replace('\n', "\n    "))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n\nhint: {}", hint.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self {
                blame: Blame::Reader,
                ..Self::new("nobody reads the output any more")
            }
        } else {
            Self::new("cannot write the output").because(&error)
        }
    }
}
