//! What the suites on real clusters share: clients that remember what was acknowledged to them, what follows from that, etcd's gateway,
//! and the images of hosts.
//!
//! `cargo ci` stands on it with processes on loopback, `surus-testcontainers` with containers. It knows neither the agent nor a world.

pub mod client;
pub mod error;
pub mod gateway;
pub mod history;
pub mod http;
pub mod images;
mod libpq;
pub mod report;
pub mod tool;
