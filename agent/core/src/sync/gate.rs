//! The gate: who may use a new primary before its standbys have what it shows.
//!
//! A commit that waits for a standby is in the log already, and PostgreSQL shows it to nobody before it is acknowledged. A crash or a
//! promotion ends the wait: whatever is in the log is visible from then on, on standbys or not. Nothing that was acknowledged is lost by
//! that, for nobody else is elected before somebody has it all (see [`plan`](super::plan)); but who reads such a commit, and then loses
//! this host and its disk, has seen what never was.
//!
//! With the gate a server that is started, restarted or promoted as a primary begins with rules that let in the agent and its fellow members alone. It is opened once as many
//! standbys as commits wait for have all that was in the log; or, if nobody comes, when the bound is over, unless it is to hold.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::action::{Lane, Order};
use crate::rules::Context;
use crate::zoo::{Flaw, lacks};

/// How long clients wait for standbys to have what they would see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// `synchronous_gate_timeout`: no longer than this.
    pub bound: Duration,
    /// `synchronous_gate_hold`: or for as long as it takes.
    pub hold: bool,
}

/// For how long clients are kept out at most from now on; the outer `None`: not any more, the inner: for as long as it takes.
pub(crate) fn shut_for(ctx: &Context<'_>) -> Option<Option<Duration>> {
    let gate = ctx.config.synchronous.shut_by();
    let gate = gate.filter(|_| !lacks(Flaw::GateOpenedAtOnce))?;
    if caught_up(ctx) {
        return None;
    }
    let until = ctx.state.gated.unwrap_or(ctx.now).plus(gate.bound);
    match gate.hold {
        true => Some(None),
        false => (ctx.now < until).then(|| Some(until.since(ctx.now))),
    }
}

/// The key names somebody besides this node in this reign, and is written so only once as many standbys as commits wait for have what was
/// committed before.
fn caught_up(ctx: &Context<'_>) -> bool {
    ctx.facts
        .sync_key()
        .is_some_and(|key| key.leader == *ctx.me() && !key.voters.is_empty())
}

/// Opens it, when it is time.
pub(super) fn order(ctx: &Context<'_>) -> Option<Order> {
    let server = ctx.primary()?;
    let seen = ctx.facts.postgres.as_ref().map(|seen| seen.at)?;
    let idle = ctx.lanes.idle(Lane::Synchronous) && ctx.lanes.idle(Lane::Postgres);
    let due = server.gated && shut_for(ctx).is_none();
    let looked = ctx.settled() && ctx.state.opened < seen;
    (due && looked && idle).then_some(Order::OpenGate)
}
