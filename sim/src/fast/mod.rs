//! The fast world (T1): the production cores and the models in one queue of events; time jumps from one to the next.
//!
//! - [`world`]: the queue and what an event does; [`event`]: what can stand in it; [`host`]: what a member consists of
//! - [`agents`]: a core is told something and obeyed; [`executor`], [`orders`]: what becomes of its orders
//! - [`dcs`]: etcd, and the conversations with it; [`peers`]: those between members
//! - [`servers`]: what PostgreSQL and guards do by themselves; [`wire`]: the connections between servers; [`look`]: what an agent sees
//! - [`clients`], [`routers`]: who writes, reads and asks who is primary
//! - [`outage`]: how long clients go without, to be compared with real clusters
//! - `story`: what a story can do to it and ask of it; [`play()`]: a run, from its first event to the verdict
//!
//! # What bounds its speed
//!
//! About 6,000 times real time on one core, with 400 events in a simulated second of a cluster of three (`surus-sim bench speed`). Half of the
//! events are WAL on its way and the fsyncs of servers, a quarter the clients' operations. Of the time the cores take a quarter (a step each
//! time that etcd's watch tells, which copies the view), the servers a quarter, etcd a sixth, the checks and the queue a tenth each.
//! What would gain most: a view of the cluster that is shared and not copied, and commits in groups.

pub mod agents;
pub mod clients;
pub mod dcs;
pub mod event;
pub mod executor;
pub mod host;
pub mod look;
pub mod orders;
pub mod outage;
pub mod peers;
mod play;
mod queue;
pub mod routers;
pub mod servers;
pub mod story;
pub mod wire;
pub mod world;

pub use play::play;
pub use story::has;
