//! The production agent of Surus and its command line.

pub mod clock;
pub mod guard;
