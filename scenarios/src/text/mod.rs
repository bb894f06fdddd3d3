//! The text form: tokens of a line, values, verbs, and errors that say where and what.

mod error;
mod record;
mod token;
mod value;
mod verb;

pub use error::{At, ParseError};
pub use value::{Name, Nanos, Value};
pub use verb::{Key, Verb};

pub(crate) use error::nearest;
pub(crate) use record::records;
pub(crate) use token::{Args, line};
#[cfg(test)]
pub(crate) use value::Dice;
pub(crate) use value::{Text, words};
pub(crate) use verb::verbs;
