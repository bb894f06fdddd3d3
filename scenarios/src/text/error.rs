//! Errors of the parser.

use std::fmt;

/// A place in the text; both count from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub at: At,
    /// What was found there; empty at the end of a line.
    pub found: String,
    /// What would have been right.
    pub expected: String,
    /// The known word that is most like what was found.
    pub nearest: Option<String>,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let At { line, column } = self.at;
        write!(f, "line {line}, column {column}: expected {}", self.expected)?;
        if self.found.is_empty() {
            f.write_str(", found the end of the line")?;
        } else {
            write!(f, ", found `{}`", self.found)?;
        }
        match &self.nearest {
            Some(word) => write!(f, "; did you mean `{word}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ParseError {}

/// The word most like `found`, if one is alike enough to be meant.
pub(crate) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(found, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.chars().count() / 3)
        .min()
        .map(|(_, word)| word.to_owned())
}
