//! Stopping a primary that loses its right. These rules come before all others and interrupt whatever is being done.

use std::time::Duration;

use super::{Context, Plan, STOP_AGAIN, Trail};
use crate::action::{Lane, Order, StopMode};
use crate::decision::{Evidence, Guard, Rule};
use crate::types::MonoTime;
use crate::zoo::{Flaw, lacks};

/// Stops PostgreSQL when the right to be primary is about to end.
///
/// Fires when PostgreSQL accepts writes, or an order under way will make it, and less than the stop margin of the right is
/// left: a fast stop that turns immediate when a third of the margin has passed. The guard kills after that whatever
/// this code does. In a pause it does not fire: nobody else is elected then.
pub(super) fn right_is_ending(ctx: &Context<'_>, _: &mut Trail) -> Option<Plan> {
    let lease = &ctx.state.lease;
    let may_write = ctx.may_write();
    let had_right = lease.until != MonoTime::ZERO;
    let begin = lease.until.minus(ctx.config.stop_margin());
    if ctx.config.pause || !may_write || !had_right || ctx.now < begin {
        return None;
    }
    let turn = lease.until.minus(ctx.config.stop_margin() * 2 / 3);
    let mode = if ctx.now < turn {
        StopMode::Fast { until: turn }
    } else {
        StopMode::Immediate
    };
    Some(stop(ctx, Rule::StopBeforeRightEnds, mode).because(Evidence::RightLeft(lease.left(ctx.now))))
}

/// Stops a primary when another member holds the lock.
///
/// The other one waits until the right of this node is over before it promotes, so there is no hurry of milliseconds; but
/// every write from now on is lost.
pub(super) fn lock_is_anothers(ctx: &Context<'_>, _: &mut Trail) -> Option<Plan> {
    let may_write = ctx.may_write();
    if ctx.config.pause || !may_write || !ctx.leader_is_other() || lacks(Flaw::LostLockUnheeded) {
        return None;
    }
    let leader = ctx.facts.leader()?.clone();
    Some(stop(ctx, Rule::StopLostLock, StopMode::Immediate).because(Evidence::Leader(leader)))
}

/// Stops a replica whose promotion was asked for and may still come to pass, when it is not wanted any more.
///
/// A lock given back as vacated over a server that then finishes its promotion would be two primaries.
pub(super) fn unfinished_promotion(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let wanted = (ctx.state.lease.held || ctx.leader_is_me()) && !ctx.state.giving_up;
    let heeded = !lacks(Flaw::UnfinishedPromotion);
    if ctx.config.pause || !ctx.state.unsure || ctx.replica().is_none() || wanted || !heeded {
        return None;
    }
    trail.block(Rule::GiveUp, Guard::NoRight);
    let until = ctx.now.plus(STOP_PATIENCE);
    Some(stop(ctx, Rule::StopWithoutRight, StopMode::Fast { until }))
}

/// How long a stop that no right hurries may take before it turns immediate.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The order to stop, unless one that is as strict is under way.
pub(super) fn stop(ctx: &Context<'_>, rule: Rule, mode: StopMode) -> Plan {
    let strict_enough = match ctx
        .lanes
        .outstanding(Lane::Postgres)
        .map(|outstanding| &outstanding.order)
    {
        Some(Order::Stop {
            mode: StopMode::Immediate,
            ..
        }) => true,
        Some(Order::Stop {
            mode: StopMode::Fast { until: theirs },
            checkpoint_first: false,
        }) => match mode {
            StopMode::Fast { until } => *theirs <= until,
            StopMode::Immediate => false,
        },
        _ => false,
    };
    if strict_enough || ctx.now < ctx.state.last_stop.plus(STOP_AGAIN) {
        return Plan::hold(rule);
    }
    Plan::order(
        rule,
        Order::Stop {
            mode,
            checkpoint_first: false,
        },
    )
}
