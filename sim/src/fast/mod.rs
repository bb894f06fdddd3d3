//! The fast world (T1): the production cores and the models in one queue of events; time jumps from one to the next.
//!
//! - [`world`]: the queue and what an event does; [`event`]: what can stand in it; [`host`]: what a member consists of
//! - [`agents`]: a core is told something and obeyed; [`executor`], [`orders`], `making`: what becomes of its orders
//! - [`dcs`]: etcd, and the conversations with it; [`peers`]: those between members
//! - [`servers`]: what PostgreSQL and guards do by themselves; [`wire`]: the connections between servers; [`look`]: what an agent sees;
//!   `synchronous`: by whom commits are acknowledged
//! - [`clients`], [`routers`]: who writes, reads and asks who is primary
//! - [`outage`]: how long clients go without, to be compared with real clusters
//! - `story`: what a story can do to it and ask of it; [`play()`]: a run, from its first event to the verdict
//!
//! # What bounds its speed
//!
//! About 3,500 times real time on one core, with 470 events in a simulated second (`surus-sim run`, the seeds' own clusters), where 5,000 is wanted.
//! A third of the events are messages between servers, a fifth their calls, a quarter the clients' operations. By instructions (callgrind, six
//! seeds): the cores and what follows their steps take 29 %, clients' operations 23 %, calls of servers 14 %, messages between them 13 %,
//! etcd and the conversations with it (steps left out) 10 %; the record with its checks, in all of these, 13 %.
//!
//! When a server wants to be called next changes with every message, so that stands beside the queue: of such calls in it half were void when
//! they came, and one that was put in far ahead moved the keys of all that wait before it.

pub mod agents;
pub mod clients;
pub mod dcs;
pub mod event;
pub mod executor;
mod gate;
pub mod host;
pub mod look;
mod making;
pub mod orders;
pub mod outage;
pub mod peers;
mod play;
mod queue;
mod rivals;
mod roster;
pub mod routers;
pub mod servers;
pub mod story;
mod synchronous;
pub mod wire;
pub mod world;

pub use play::play;
pub use story::has;
