//! An empty data directory: create the cluster, or clone from it.

use super::{Context, Plan, Trail, fence};
use crate::action::{Lane, Order, StopMode};
use crate::decision::{Evidence, Guard, Rule};
use crate::types::NodeName;
use crate::view::{DataDir, Initialize};
use crate::zoo::{Flaw, lacks};

/// Decides about a data directory that is empty, half-made or unusable.
///
/// - Half-made, and a server runs in it, with no order to make it under way: the agent that made it is gone, and the server is stopped.
/// - Unusable: a person must look; the lock is given back.
/// - Empty or half-made, and the cluster exists: clone from a member tagged `clonefrom`, else from the leader.
/// - Empty or half-made, and there is no cluster: claim the `initialize` key, take the lock, create the cluster under it.
///   Creating under the lock means that a node that dies half-way leaves nothing that blocks the others. The new cluster is started
///   only when `initialize` names it: before that it may be given up for another, and nobody has written to it.
pub(super) fn data(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let view = ctx.facts.view()?;
    match ctx.facts.data()? {
        DataDir::Present(_) => None,
        DataDir::Incomplete(text) if !ctx.absent() && !lacks(Flaw::HalfMadeLeads) => {
            let plan = fence::stop(ctx, Rule::StopHalfMade, StopMode::Immediate);
            Some(plan.because(Evidence::Said(text.clone())))
        }
        _ if !ctx.absent() => None,
        DataDir::Unusable(text) => {
            let release = ctx.state.lease.held && ctx.lanes.idle(Lane::Lock);
            let plan = if release {
                Plan::order(Rule::NeedHelp, ctx.release())
            } else {
                Plan::hold(Rule::NeedHelp)
            };
            Some(plan.because(Evidence::Said(text.clone())))
        }
        DataDir::Empty | DataDir::Incomplete(_) => match (view.initialize, ctx.facts.leader()) {
            (_, Some(leader)) if leader != ctx.me() => clone(ctx, trail),
            // The order to take the lock came late; the renewal under way confirms it, and needs the lane.
            (_, Some(_)) if !ctx.state.lease.held => Some(Plan::hold(Rule::AwaitView)),
            // A primary has lived, even if it never came to say so in `initialize`: a second cluster beside it would lose its data.
            _ if ctx.has_lived() && !lacks(Flaw::SecondCluster) => Some(await_source(ctx, trail)),
            (None | Some(Initialize::InProgress), _) if ctx.state.lease.held => create(ctx),
            (Some(Initialize::Done(_) | Initialize::Garbage), _) => Some(await_source(ctx, trail)),
            (initialize, _) => Some(claim(ctx, trail, initialize)),
        },
    }
}

fn create(ctx: &Context<'_>) -> Option<Plan> {
    let order = Order::Bootstrap {
        guard_until: ctx.guard_until(),
        valid_until: ctx.valid_until(),
    };
    (ctx.now < ctx.valid_until()).then(|| Plan::order(Rule::CreateCluster, order))
}

fn claim(ctx: &Context<'_>, trail: &mut Trail, initialize: Option<Initialize>) -> Plan {
    let guard = if !ctx.config.may_bootstrap {
        Some(Guard::MayNotBootstrap)
    } else if ctx.config.nofailover {
        Some(Guard::NoFailover)
    } else if ctx.config.pause {
        Some(Guard::PauseOn)
    } else if initialize.is_some() && !ctx.state.claimed && !ctx.long_leaderless() {
        Some(Guard::SomebodyBootstraps)
    } else if let Some(guard) = ctx.old_right() {
        // Its maker may have lost the key early, and be at work.
        Some(guard)
    } else if ctx.now < ctx.state.cooldown {
        Some(Guard::Cooldown {
            left: ctx.state.cooldown.since(ctx.now),
        })
    } else {
        None
    };
    if let Some(guard) = guard {
        trail.block(Rule::CreateCluster, guard);
        return Plan::hold(Rule::AwaitSource);
    }
    let order = if initialize.is_none() && !ctx.state.claimed {
        Order::ClaimInitialize
    } else {
        super::race::acquire(ctx)
    };
    if ctx.lanes.idle(order.lane()) {
        Plan::order(Rule::CreateCluster, order)
    } else {
        Plan::hold(Rule::CreateCluster)
    }
}

fn clone(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let Some(source) = source(ctx, false) else {
        trail.block(Rule::Clone, Guard::LeaderNotReady);
        return Some(Plan::hold(Rule::AwaitSource));
    };
    let from = ctx.upstream(&source)?;
    Some(Plan::order(Rule::Clone, Order::BaseBackup { from }))
}

fn await_source(ctx: &Context<'_>, trail: &mut Trail) -> Plan {
    if ctx.state.lease.held && ctx.lanes.idle(Lane::Lock) {
        return Plan::order(Rule::AwaitSource, ctx.release());
    }
    trail.block(Rule::Clone, Guard::NoCandidate);
    Plan::hold(Rule::AwaitSource)
}

/// Whom to clone from: a running member tagged `clonefrom` that has come to the leader's timeline, else the leader once it runs as primary.
///
/// Whom the `sync` key names may be elected by it, and has what clients were told of from the leader alone.
pub(super) fn source(ctx: &Context<'_>, from_leader: bool) -> Option<NodeName> {
    let leader = ctx.facts.leader()?;
    let named = ctx
        .facts
        .sync_key()
        .is_some_and(|key| key.voters.contains(ctx.me()));
    let from_leader = from_leader || named;
    let tagged = ctx
        .facts
        .others(ctx.me())
        .find(|(name, member)| {
            let current = member.timeline.is_some() && member.timeline == ctx.leader_timeline();
            !from_leader && member.clonefrom && member.running() && current && *name != leader
        })
        .map(|(name, _)| name.clone());
    let leader_runs = ctx
        .facts
        .member(leader)
        .is_some_and(|member| member.running() && (member.role == "primary" || member.role == "master"));
    tagged.or_else(|| leader_runs.then(|| leader.clone()))
}
