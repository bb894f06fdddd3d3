//! Simulated worlds for Surus: the production state machine, models of all it stands on, faults, and checkers.
//!
//! - [`run`]: one run, from what to run to how it ended
//! - [`campaign`]: many of them, on all processors, and the folder of failures
//! - [`fast`]: N cores and the models in one queue of events; time jumps
//! - `turmoil`: the real agent over a simulated network, against the same models (cargo feature of that name)
//! - [`model`]: etcd, PostgreSQL, the guard; [`net`], [`clock`]: what lies between
//! - [`nemesis`]: the faults, an explicit list made from the seed; [`check`]: what must never happen
//! - [`story`]: the stories of `scenarios/stories` as tests; [`incidents`]: the table of what they show
//! - [`record`]: what happened, its hash, and who is told; [`coverage`]: what has fired; [`witness`]: what stories ask about; [`zoo`]: planted bugs that the sweep must find
//!
//! The same seed gives the same bytes: all chance is [`rng`], all maps are ordered, there is no other clock.
pub mod campaign;
pub mod check;
pub mod clock;
pub mod coverage;
pub mod fast;
pub mod incidents;
pub mod model;
pub mod nemesis;
pub mod net;
pub mod record;
pub mod report;
pub mod rng;
pub mod run;
pub mod shrink;
pub mod story;
mod trap;
#[cfg(feature = "turmoil")]
pub mod turmoil;
pub mod witness;
pub mod zoo;
