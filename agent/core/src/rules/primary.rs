//! PostgreSQL runs as primary.

use std::time::Duration;

use super::{Context, Plan, Trail, race};
use crate::action::{Lane, Order, StopMode};
use crate::decision::{Evidence, Guard, Rule};
use crate::sync::gate;
use crate::view::Initialize;
use crate::zoo::{Flaw, lacks};

/// Leads: the lock is held and PostgreSQL accepts writes. Renewal, status and all else is routine (see [`crate::duties`]).
///
/// A server that has no guard yet (it ran stand-alone, or under another manager) is put under one first.
pub(super) fn lead(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let server = ctx.primary()?;
    let lease = &ctx.state.lease;
    let by_grants = lease.by_failsafe && ctx.valid();
    if !lease.held && !by_grants || !ctx.valid() && !ctx.config.pause {
        return None;
    }
    if let Some(guard) = ctx.usurped().filter(|_| !ctx.config.pause) {
        // The order to take the lock was on its way as a replica. It is the next timeline that belongs to it.
        trail.block(rule(by_grants), guard);
        return Some(stop(ctx));
    }
    if !server.guarded && !ctx.config.pause {
        let guard_until = Some(ctx.guard_until());
        return Some(Plan::order(Rule::Adopt, Order::AdoptPostmaster { guard_until }));
    }
    // Grants carry the right while etcd is out of reach, or has no space. When it is back and the lock has expired meanwhile, it is taken again.
    if by_grants
        && !lease.held
        && let Some(plan) = take_free_lock(ctx, trail)
    {
        return Some(plan);
    }
    if by_grants {
        trail.block(
            Rule::Lead,
            Guard::Unrenewed {
                age: ctx.now.since(lease.renewed),
            },
        );
    }
    let mut plan = Plan::hold(rule(by_grants))
        .because(Evidence::RightLeft(lease.left(ctx.now)))
        .because(Evidence::Position(server.timeline, server.position()));
    if server.gated {
        let left = gate::shut_for(ctx).unwrap_or(Some(Duration::ZERO));
        plan.because.push(Evidence::GateShut(left));
    }
    Some(plan)
}

fn rule(by_grants: bool) -> Rule {
    if by_grants { Rule::LeadFailsafe } else { Rule::Lead }
}

fn stop(ctx: &Context<'_>) -> Plan {
    let order = Order::Stop {
        mode: StopMode::Fast {
            until: ctx.now.plus(Duration::from_secs(2)),
        },
        checkpoint_first: false,
    };
    Plan::order(Rule::StopWithoutRight, order)
}

/// Decides about a primary that does not hold the lock.
///
/// If the key names this node (the agent was restarted) the renewal that is under way confirms it. If nobody leads it takes the lock,
/// provided that its timeline is the newest and no other primary may still be there. What has no right and may not get
/// one is stopped.
pub(super) fn without_lock(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let server = ctx.primary()?;
    if ctx.leader_is_me() {
        return Some(Plan::hold(Rule::AwaitView).because(Evidence::Leader(ctx.me().clone())));
    }
    let view = ctx.facts.view()?;
    let behind = view
        .timeline()
        .filter(|cluster| server.timeline < *cluster && !lacks(Flaw::OldTimelineLeads));
    let own = server.timeline;
    let behind = behind.map(|cluster| Guard::TimelineBehind { own, cluster });
    let tagged = || (ctx.config.nofailover && ctx.somebody_could_lead()).then_some(Guard::NoFailover);
    if let Some(guard) = behind.or_else(|| ctx.usurped()).or_else(tagged) {
        trail.block(Rule::Reacquire, guard);
        return Some(stop(ctx));
    }
    take_free_lock(ctx, trail).or_else(|| {
        let hold = Plan::hold(Rule::Reacquire);
        Some(ctx.facts.leader().cloned().map_or(hold, |leader| {
            Plan::hold(Rule::Reacquire).because(Evidence::Leader(leader))
        }))
    })
}

/// Takes the free lock for a running primary.
pub(super) fn take_free_lock(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let server = ctx.primary()?;
    let view = ctx.facts.view()?;
    if view.leader.is_some() || ctx.state.lease.held {
        return None;
    }
    if let Some(cluster) = view
        .timeline()
        .filter(|cluster| server.timeline < *cluster && !lacks(Flaw::OldTimelineLeads))
    {
        // In a pause it is not stopped for that; but it would lead the cluster back to what others have left.
        let own = server.timeline;
        trail.block(Rule::Reacquire, Guard::TimelineBehind { own, cluster });
        return None;
    }
    match view.initialize {
        None | Some(Initialize::Garbage) => {
            let order = Order::WriteInitialize {
                system_id: server.system_id,
                bootstrapped: false,
            };
            return ctx
                .lanes
                .idle(Lane::Publish)
                .then(|| Plan::order(Rule::Reacquire, order));
        }
        Some(Initialize::InProgress)
            if ctx.state.created.is_none() && !ctx.has_lived() && !ctx.long_leaderless() =>
        {
            trail.block(Rule::Reacquire, Guard::SomebodyBootstraps);
            return None;
        }
        Some(Initialize::InProgress | Initialize::Done(_)) => {}
    }
    if let Some(guard) = ctx.unreserved().filter(|_| !ctx.config.pause) {
        trail.block(Rule::Reacquire, guard);
        return None;
    }
    if let Some(guard) = ctx.unfenced_other() {
        trail.block(Rule::Reacquire, guard);
        return None;
    }
    let another_primary = ctx.facts.peers.iter().find(|(name, peer)| {
        *name != ctx.me()
            && peer
                .status
                .as_ref()
                .is_some_and(|status| status.primary && status.running)
    });
    if let Some((name, _)) = another_primary
        && !lacks(Flaw::PeerPrimaryUnheeded)
    {
        trail.block(Rule::Reacquire, Guard::PeerIsPrimary(name.clone()));
        return None;
    }
    if let Some(guard) = ctx.old_right().filter(|_| !ctx.valid()) {
        trail.block(Rule::Reacquire, guard);
        return None;
    }
    if !ctx.lanes.idle(Lane::Lock) {
        return Some(Plan::hold(Rule::Reacquire));
    }
    Some(
        Plan::order(Rule::Reacquire, race::acquire(ctx))
            .because(Evidence::Position(server.timeline, server.position())),
    )
}
