//! Reading `patroni.yml`, `PATRONI_*` and the dynamic configuration.
//!
//! [`load`] turns the local side into checked [`Settings`]; [`effective`] merges them with the `config` key of the cluster into
//! what the state machine and PostgreSQL obey. Neither touches anything but the files it reads, and neither stops at the first
//! problem: each [`Problem`] names its key, its line and its remedy.
//!
//! - `yaml`, `scalar`: text to a tree with positions; what one value means
//! - `source`: file, directory, environment
//! - `section`, `address`, `problem`: reading with expectations
//! - `local`, `endpoints`, `bootstrap`, `postgresql`, `parameters`, `tags`: the sections
//! - `dynamic`, `timing`, `synchronous`: the cluster's side, and the merge
//! - [`binaries`]: where PostgreSQL's programs are, of which version
//! - [`validate`]: all of the above and the machine it is to run on, for `surus validate`
//! - [`operator`]: the part that the command line needs; `router`: the part that a router needs
//! - [`sample`]: a configuration to begin with

use std::path::Path;

mod address;
pub mod binaries;
mod bootstrap;
mod dynamic;
mod endpoints;
mod local;
pub mod operator;
mod parameters;
pub(crate) mod postgresql;
mod problem;
mod router;
pub mod sample;
mod scalar;
mod section;
pub mod settings;
mod source;
mod synchronous;
mod tags;
mod timing;
pub mod validate;
mod yaml;

pub use dynamic::{ORIGIN, effective};
pub use problem::{Mark, Problem, Severity, render};
pub use router::{RouterFile, load_router};
pub use settings::{Effective, Settings};
pub use source::Surroundings;

/// Reads the local configuration: a file, a directory whose `*.yml` are merged in the order of their names, or without a path
/// `PATRONI_CONFIGURATION` or the other `PATRONI_*` variables alone. Variables go over files.
///
/// The problems of a success are warnings.
///
/// # Errors
///
/// All problems, at least one of which is an error.
pub fn load(path: Option<&Path>, around: &Surroundings) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let report = problem::Report::default();
    let settings = source::tree(path, around, &report).and_then(|tree| local::read(&tree, around, &report));
    let failed = report.has_errors();
    let problems = report.take();
    match settings {
        Some(settings) if !failed => Ok((settings, problems)),
        _ => Err(problems),
    }
}
