//! The high-availability state machine of Surus: facts in, decisions and orders out.
//!
//! It does no IO, reads no clock, draws no randomness, logs nothing and never fails. The agent runs it in production;
//! the simulator runs the very same code through bad days.
//!
//! # How it works
//!
//! [`Node::step`] folds one [`Input`] into the [`facts`], then asks the [`rules`] in their order. Rules look at facts, not at
//! which input came, so that lost, doubled or reordered inputs lose no transition. The first rule that fires decides what
//! is done to PostgreSQL and to the lock; the [`duties`] add the routine work. Both only give [`Order`]s, at most one at
//! a time in each [`Lane`]; what becomes of an order comes back as [`Input::Done`].
//!
//! # What it guarantees
//!
//! - **PostgreSQL accepts writes only under a right** ([`lease`]): every order that makes it writable carries the time
//!   until which it may be executed and the guard's deadline.
//! - **A right is counted from when the renewal was sent**, and another's right is waited for.
//! - **Nothing renews the lock but an order given here**: if this code hangs, the lock expires.
//! - **`step` is total**: any input at any time is legal, and early or late calls are harmless.
//!
//! # The map
//!
//! - [`types`], [`config`]: values and settings; [`view`]: the facts a node can know
//! - [`input`], [`action`]: what can happen to a node, and what it orders; [`decision`]: why
//! - [`node`]: the state machine; [`facts`], [`state`], [`lanes`]: its three memories
//! - [`sync`]: who acknowledges commits, and who may be elected for it
//! - [`rules`]: one file a topic; [`duties`]: routine work; [`zoo`]: planted flaws, for simulations only
pub mod action;
pub mod config;
pub mod decision;
pub mod duties;
pub mod explain;
pub mod facts;
pub mod input;
pub mod lanes;
pub mod lease;
pub mod node;
pub mod rules;
pub mod slots;
pub mod state;
pub mod sync;
pub mod types;
pub mod view;
pub mod zoo;

pub use action::{Action, Lane, Order};
pub use decision::{Decision, Evidence, Guard, Rule, Step, Wake};
pub use explain::Explanation;
pub use input::{Input, OperatorOrder, Outcome, RequestId};
pub use node::{Boot, Node};
