//! The stories of `scenarios/` on real servers: a container per host, with the agent that was built, PostgreSQL, etcd and HAProxy from
//! Debian's packages, and clients that write from this process.
//!
//! - [`world`]: the world that plays a story; [`run`]: many stories, and what became of each
//! - [`seen`]: what servers and etcd answered, and what follows; [`observer`]: asks them
//! - [`docker`], [`dcs`], [`yml`]: the engine, etcd, and configuration files
//!
//! Guarantees: a story is judged by what servers answer and what was acknowledged to clients, never by what an agent says of itself;
//! what this world cannot do makes a story wait, and does not let it pass; nothing stays behind when a run ends, however it ends.

mod clock;
pub mod dcs;
pub mod docker;
pub mod observer;
pub mod run;
pub mod seen;
pub mod suite;
pub mod world;
pub mod yml;
