//! Each sentence that design and documentation say of the guard, on a real PostgreSQL with sessions in mid-transaction.
//!
//! `cargo test -p surus --test guard -- --nocapture` prints what was measured. Suspend cannot be tested here: that the
//! timer counts it rests on `CLOCK_BOOTTIME` (`timerfd_create(2)`), for which `expirations_count_boottime` looks.

#![expect(
    clippy::unwrap_used,
    reason = "clippy's leave for tests covers test functions only, not what they share"
)]

#[path = "guard/support.rs"]
mod support;

#[path = "guard/agents.rs"]
mod agents;
#[path = "guard/deadline.rs"]
mod deadline;
#[path = "guard/deaths.rs"]
mod deaths;
#[path = "guard/doors.rs"]
mod doors;
#[path = "guard/programs.rs"]
mod programs;
