//! The production agent of Surus and its command line.

pub mod clock;
pub mod config;
pub mod guard;
pub mod log;
