//! A PostgreSQL that is coming up, or that does not answer.

use std::time::Duration;

use super::{Context, Intent, Plan, Trail};
use crate::action::{Order, StopMode};
use crate::decision::{Evidence, Guard, Rule};
use crate::view::Process;

/// Waits for a starting PostgreSQL.
///
/// The primary of this reign may take `primary_start_timeout`; then it is stopped and the lock given up, if somebody could
/// take over. A restart that somebody asked for is no crash, and may take [`STARTS_IN`] also where that timeout is zero.
pub(super) fn starting(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let Some(Process::Starting { .. }) = ctx.facts.process() else {
        return None;
    };
    if let Some(plan) = misled(ctx) {
        return Some(plan);
    }
    let Some(since) = ctx
        .state
        .down_since
        .filter(|_| ctx.state.lease.held && !ctx.config.pause)
    else {
        return Some(Plan::hold(Rule::AwaitStart));
    };
    let limit = since.plus(ctx.config.primary_start_timeout);
    let limit = limit.max(ctx.state.restarted.plus(STARTS_IN));
    if ctx.now < limit {
        return Some(Plan::hold(Rule::AwaitStart));
    }
    if !ctx.somebody_could_lead() {
        trail.block(Rule::GiveUp, Guard::NoCandidate);
        return Some(Plan::hold(Rule::AwaitStart));
    }
    let order = Order::Stop {
        mode: StopMode::Immediate,
        checkpoint_first: false,
    };
    Some(Plan::order(Rule::GiveUp, order).intent(Intent::GiveUp))
}

/// Stops a replica that was started to follow another than it should follow now, or in another way, and does not come up.
///
/// It may need WAL to become consistent that only the present leader has, and it takes no new upstream before it answers. The start
/// that follows names the right one. One that is started for the right upstream may take as long as it takes.
fn misled(ctx: &Context<'_>) -> Option<Plan> {
    let (at, Order::StartReplica { upstream }) = ctx.state.last_start.as_ref()? else {
        return None;
    };
    let wanted = ctx
        .leader_is_other()
        .then(|| super::replica::source(ctx))
        .flatten()?;
    if upstream.as_ref() == Some(&wanted) || ctx.now < at.plus(STARTS_IN) {
        return None;
    }
    let until = ctx.now.plus(STARTS_IN);
    let order = Order::Stop {
        mode: StopMode::Fast { until },
        checkpoint_first: false,
    };
    Some(Plan::order(Rule::StartReplica, order).because(Evidence::Leader(wanted.name)))
}

/// How long a server that was stopped cleanly may take to come up: a replica, before it is looked at whom it was started to follow, and a primary
/// that was restarted.
const STARTS_IN: Duration = Duration::from_secs(10);

/// For so long a primary may leave a look unanswered before another takes over, in a ttl of this length: two thirds, so that what follows, a second
/// for the stop to come to SIGKILL most of all, is over when a lost host would be replaced.
fn patience(ttl: Duration) -> Duration {
    ttl * 2 / 3
}

/// Waits for a PostgreSQL that does not answer.
///
/// A primary that has been silent for too long ([`patience`]) is stopped (the executor goes as far as SIGKILL) and the lock given up,
/// if somebody could take over.
pub(super) fn unresponsive(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    if !ctx.facts.unresponsive() {
        return None;
    }
    let since = ctx.state.unresponsive_since.unwrap_or(ctx.now);
    let silent = ctx.now.since(since);
    let hold = Plan::hold(Rule::Unresponsive).because(Evidence::ProbeAge(silent));
    if !ctx.state.lease.held || ctx.config.pause || silent < patience(ctx.config.ttl) {
        return Some(hold);
    }
    if !ctx.somebody_could_lead() {
        trail.block(Rule::GiveUp, Guard::NoCandidate);
        return Some(hold);
    }
    let order = Order::Stop {
        mode: StopMode::Immediate,
        checkpoint_first: false,
    };
    Some(
        Plan::order(Rule::GiveUp, order)
            .because(Evidence::ProbeAge(silent))
            .intent(Intent::GiveUp),
    )
}
