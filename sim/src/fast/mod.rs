//! The fast world (T1): the production cores and the models in one queue of events; time jumps from one to the next.
//!
//! - [`world`]: the queue, the hosts, what an event does
//! - [`executor`]: what an agent does with its core's orders; [`messages`]: what agents say to etcd and to each other
//! - [`servers`]: what PostgreSQL, guards and clients do by themselves

pub mod executor;
pub mod messages;
pub mod servers;
pub mod world;
