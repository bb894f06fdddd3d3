//! Errors in words: our `Display`s leave the cause out, and this puts it back where people read it.

use std::error::Error;

/// An error with its causes, outermost first, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
