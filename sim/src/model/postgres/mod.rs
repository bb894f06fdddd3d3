//! PostgreSQL: one value per server and data directory. Sans-IO: orders and messages with the time go in, effects come out.
//!
//! | file | what |
//! |---|---|
//! | [`wal`] | positions, records, segments, and whose hand wrote what |
//! | [`timeline`] | history files, and the numbers that a promotion counts by |
//! | [`control`], [`directory`] | what outlives a server, and what can be wrong with its disk |
//! | [`server`] | the server: what it is doing, when it wants to be called, what came of it |
//! | `life`, [`stop`], `promote`, `checkpoint` | start, crash and death; the steps of a stop; leaving recovery; what the control file then says |
//! | `standby`, `receiver`, `sender`, [`message`] | replay; walreceiver; walsenders; what they say to each other |
//! | [`commit`], [`sync`] | durable, visible, acknowledged; whom a commit waits for |
//! | [`slots`], [`rewind`], [`probe`] | what holds WAL; pg_rewind and base backups; what a client is told |
//! | [`settings`] | postgresql.conf, and how long things take |
//!
//! Everything said here of PostgreSQL is held against PostgreSQL 15 by the scripts in `sim/conformance/postgres`.

mod checkpoint;
pub mod commit;
pub mod control;
pub mod directory;
mod life;
pub mod message;
pub mod probe;
mod promote;
mod receiver;
pub mod rewind;
mod sender;
pub mod server;
pub mod settings;
pub mod slots;
mod standby;
pub mod stop;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod wal;

pub use commit::Fact;
pub use directory::{Cluster, DataDir};
pub use message::{Link, Message, Refused};
pub use server::{Effect, Happening, Refusal, Server};
pub use settings::{Conninfo, Costs, Peer, Settings, SyncLevel};
pub use stop::{Ended, StopMode};
pub use wal::{Point, Relation, Txn};
