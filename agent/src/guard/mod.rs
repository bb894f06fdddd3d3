//! The guard: before the right to be primary ends, every backend that could acknowledge a commit is gone.
//!
//! `surus guard` is a process of its own, PostgreSQL's parent, with one thread, no runtime and nothing allocated after
//! it has started. It holds one number, the deadline; the agent moves it as its lease is renewed. What it guarantees:
//!
//! - At the deadline the postmaster and every process of it are killed: connected backends, stopped ones, orphans, and
//!   those that were forked a moment ago. The agent need not be alive for that, nor awake.
//! - An agent that dies leaves PostgreSQL alone. The next one finds the guard by its socket and takes over; the newest
//!   connection is the agent.
//! - A guard that dies takes PostgreSQL along: the kernel sends the postmaster SIGQUIT (`PR_SET_PDEATHSIG`). Should the
//!   postmaster itself be stopped at that time, it cannot act on it; the agent, if it lives, then uses [`kill_all_of`].
//! - A postmaster that dies takes its backends along: they become the guard's children, and their end is reported
//!   ([`Exit`]) only when the last of them is gone. A restart in place is safe from then on.
//! - An order of an older lease generation than the guard has seen does nothing.
//!
//! What it does not: an *adopted* postmaster ([`Guard::adopt`]) is nobody's child, so the second and fourth of these
//! rest on `/proc` instead of on the kernel, and the third does not hold until its next start through the guard. And a
//! host frozen whole, guard and kernel included, answers no timer; a hardware watchdog does.
//!
//! Map: [`protocol`] is what both sides say; [`Guard`] (client) is the agent's side; start → process → ward is the
//! guard's: coming up, the loop, and the kill, on top of spawn (fork and exec), procfs (who is whose child), peers and
//! socket (connections), signals and [`time`].

pub mod protocol;
pub mod time;

mod client;
mod peers;
mod process;
mod procfs;
mod signals;
mod socket;
mod spawn;
mod start;
mod sweep;
mod ward;

pub use client::{Guard, GuardError, GuardView, Link, Start};
pub use process::Process;
pub use protocol::{Exit, ExitStatus, KillReason, Order, Phase, Stage, Status};
pub use socket::SocketError;
pub use start::{GuardArgs, StartError, guard_main, prepare, run_if_guard};
pub use sweep::kill_all_of;
pub use time::boottime_ns;
