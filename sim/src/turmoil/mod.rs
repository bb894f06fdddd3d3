//! The turmoil world (T2): the real agent over a simulated network, against the same models as the fast world, served on sockets.
//!
//! ```text
//!   surus::agent::run ── etcd-client ──▶ gRPC ──┐                 ┌── etcd       model::etcd
//!     driver, adapters   tokio-postgres ─▶ wire ─┼─ process ─ net ─┼── postgres   model::postgres
//!     REST, peers        hyper ─▶ HTTP ─────────┘                 └── other agents
//!     Site, Custody ──────────────────────────────── site, custody ── model::postgres, model::guard
//! ```
//!
//! - [`net`]: machines and links, two of them behind one trait; [`process`]: tasks that freeze and die together; [`interpose`]: std's clock
//!   and entropy
//! - [`etcd`], [`postgres`]: the models, served; [`site`], [`custody`]: the agent's files, tools and guard; [`agent`]: its process;
//!   [`told`]: what its core decides
//! - [`hub`], [`host`]: what all share; [`keys`], [`grants`]: facts read from etcd's store and off the wire; [`client`]: who writes;
//!   [`router`]: who takes them there, `balancer`: and agents to etcd; `file`: what members are configured by
//! - [`world`]: all of it; `story`: what befalls it; [`mod@play`]: a run
//!
//! A run is a thread of its own, on which the clock and the entropy of libraries are the world's: the same job gives the same bytes, in any
//! process and beside any other run.

pub mod agent;
mod balancer;
pub mod client;
pub mod custody;
pub mod etcd;
mod file;
pub mod grants;
pub mod halt;
pub mod host;
pub mod hub;
pub mod interpose;
pub mod keys;
pub mod net;
pub mod play;
pub mod postgres;
pub mod process;
pub mod router;
pub mod site;
mod story;
pub mod told;
pub mod world;
