//! PostgreSQL does not run, and this node holds the lock, or nobody does.

use std::time::Duration;

use super::{Context, Plan, Trail};
use crate::action::Order;
use crate::decision::{Evidence, Guard, Rule};
use crate::sync::{self, Mode};
use crate::view::{ControlState, DataDir};

/// Starts in place in a row before others get the lock.
const STARTS_IN_PLACE: u32 = 3;

/// How long a stopped PostgreSQL waits for whom to follow once the lock is free: another takes it within some 50 ms, if one can. A server
/// that starts without knowing whom to follow has to be told a moment later, and follows an upstream that has vanished only 5 s after that.
pub(crate) const SUCCESSION: Duration = Duration::from_millis(500);

/// Decides about a stopped PostgreSQL under this node's own lock.
///
/// The primary of this reign is started again in place, on its timeline, losing nothing; unless `primary_start_timeout` is
/// over (or zero), or several starts failed, and somebody could take over: then the lock is given up. After a crash it is given up at once
/// where a synchronous standby loses nothing either, and need not recover first. A node that took the lock as a
/// replica is started as one, and promoted later; if several starts fail and somebody could take over, the lock is given up too. A cluster that this node has just created is started once `initialize` names it.
pub(super) fn lock_held(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let DataDir::Present(control) = ctx.facts.data()? else {
        return None;
    };
    if !ctx.absent() || !ctx.state.lease.held {
        return None;
    }
    let cluster = ctx.facts.view().and_then(|view| view.timeline());
    let newest = cluster.is_none_or(|cluster| cluster <= control.timeline);
    let leading = ctx.state.reigned || control.state.was_primary() && newest;
    let was_leading = leading && ctx.usurped().is_none();
    if !was_leading {
        let failed = ctx.state.failure.as_ref().is_some_and(|failure| {
            matches!(failure.order, Order::StartReplica { .. }) && STARTS_IN_PLACE <= failure.count
        });
        if (failed || ctx.state.releasing) && ctx.somebody_could_lead() {
            return Some(ctx.give_back());
        }
        return Some(Plan::order(
            Rule::StartReplica,
            Order::StartReplica { upstream: None },
        ));
    }
    if control.state == ControlState::InProduction && ctx.config.synchronous.mode != Mode::Off {
        if ctx.successor_has_all() {
            return Some(Plan {
                rule: Rule::YieldToStandby,
                ..ctx.give_back()
            });
        }
        trail.block(Rule::YieldToStandby, Guard::NoCandidate);
    }
    let down = ctx
        .state
        .down_since
        .map_or(Duration::ZERO, |since| ctx.now.since(since));
    let hopeless = ctx.state.giving_up
        || STARTS_IN_PLACE <= ctx.state.failed_starts
        || ctx.config.primary_start_timeout <= down;
    if hopeless || ctx.state.releasing {
        if ctx.somebody_could_lead() || ctx.state.releasing {
            return Some(ctx.give_back());
        }
        trail.block(Rule::GiveUp, Guard::NoCandidate);
    }
    if ctx.valid_until() <= ctx.now {
        trail.block(Rule::RestartPrimary, Guard::NoRight);
        return Some(Plan::hold(Rule::RestartPrimary));
    }
    if let Some(guard) = ctx.announced(control.system_id).or_else(|| ctx.others_right()) {
        trail.block(Rule::RestartPrimary, guard);
        return Some(Plan::hold(Rule::RestartPrimary));
    }
    if let Some(plan) = ctx.named_first(trail, Rule::RestartPrimary) {
        return Some(plan);
    }
    let order = Order::StartPrimary {
        guard_until: ctx.guard_until(),
        valid_until: ctx.valid_until(),
        synchronous: sync::duty::first_names(ctx),
        gated: ctx.config.synchronous.shut_by().is_some(),
    };
    Some(Plan::order(Rule::RestartPrimary, order))
}

/// Starts PostgreSQL as a replica that follows nobody, when there is no leader: then it can take part in the race. Not in the first moment, if
/// another could win that.
pub(super) fn no_leader(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let DataDir::Present(_) = ctx.facts.data()? else {
        return None;
    };
    if !ctx.absent() || ctx.facts.leader().is_some_and(|leader| leader != ctx.me()) {
        return None;
    }
    let fresh = ctx
        .facts
        .read
        .is_some_and(|read| ctx.now.since(read) < ctx.config.ttl);
    if ctx.leader_is_me() && fresh {
        // An agent that was restarted: the renewal under way decides whether this is still the primary.
        return Some(Plan::hold(Rule::AwaitView));
    }
    if let Some(free) = ctx.facts.leaderless
        && ctx.now < free.plus(SUCCESSION)
        && ctx.somebody_could_lead()
    {
        let left = free.plus(SUCCESSION).since(ctx.now);
        trail.block(Rule::StartReplica, Guard::Succession { left });
        let since = Evidence::Leaderless(ctx.now.since(free));
        return Some(Plan::hold(Rule::AwaitLeader).because(since));
    }
    Some(Plan::order(
        Rule::StartReplica,
        Order::StartReplica { upstream: None },
    ))
}
