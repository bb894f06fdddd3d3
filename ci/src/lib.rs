//! What the suites on real clusters share: clients that remember what was acknowledged to them, what follows from that, etcd's gateway,
//! and the images of hosts.
//!
//! `cargo ci` stands on it with processes on loopback, `surus-testcontainers` with containers. It knows neither the agent nor a world.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod client;
pub mod error;
pub mod gateway;
pub mod history;
pub mod http;
pub mod images;
mod libpq;
pub mod report;
pub mod tool;

/// Takes a lock, also after somebody panicked with it: what it guards is changed in one step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
