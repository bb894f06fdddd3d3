//! The leader's orders: one write to one of the two sides at a time.

use super::plan::{self, Present, Step};
use super::target::{Candidate, target};
use super::{Mode, Names, SyncKey, gate};
use crate::action::{Lane, Order};
use crate::input::OperatorOrder;
use crate::rules::Context;
use crate::types::NodeName;
use crate::view::{ClusterView, Server};

/// The next write, if one is due. Only a leader whose right is beyond doubt gives any, and not before it has looked at what the last one did.
pub(crate) fn order(ctx: &Context<'_>) -> Option<Order> {
    if let Some(order) = gate::order(ctx) {
        return Some(order);
    }
    let server = ctx.primary()?;
    let view = ctx.facts.view()?;
    let off = ctx.config.synchronous.mode == Mode::Off;
    if off && view.sync.is_none() && !server.managed {
        return None;
    }
    let idle = ctx.lanes.idle(Lane::Synchronous) && ctx.lanes.idle(Lane::Postgres);
    let looked = ctx.settled() && !ctx.state.sync.unseen(&server.synchronous);
    if !idle || !looked || !ctx.state.lease.held || !ctx.valid() || ctx.state.releasing {
        return None;
    }
    if off {
        // From here on nobody is promised anything.
        return Some(if view.sync.is_some() {
            write(view, None)
        } else {
            Order::SetSynchronous { names: None }
        });
    }
    let restart = matches!(ctx.state.asked, Some((_, OperatorOrder::Restart)));
    if restart && plan::before_writable(ctx.me(), view.sync.as_deref(), ctx.state.sync_in_doubt).is_none() {
        // It is ready for the restart that a person waits for.
        return None;
    }
    match step(ctx, view, server) {
        Step::Rest | Step::Await => None,
        Step::Key(key) => Some(write(view, Some(key))),
        Step::Names(names) => Some(Order::SetSynchronous { names: Some(names) }),
    }
}

/// The write that comes before a primary of this reign may be started or promoted. The inner `None`: one is under way.
pub(crate) fn before_writable(ctx: &Context<'_>) -> Option<Option<Order>> {
    if ctx.config.synchronous.mode == Mode::Off {
        return None;
    }
    let view = ctx.facts.view()?;
    if !ctx.lanes.idle(Lane::Synchronous) {
        return Some(None);
    }
    let key = plan::before_writable(ctx.me(), view.sync.as_deref(), ctx.state.sync_in_doubt)?;
    Some(Some(write(view, Some(key))))
}

/// By whom commits are acknowledged from the first on, while nobody but this node may be elected.
pub(crate) fn first_names(ctx: &Context<'_>) -> Option<Names> {
    let settings = &ctx.config.synchronous;
    (settings.mode != Mode::Off).then(|| settings.alone())
}

fn write(view: &ClusterView, key: Option<SyncKey>) -> Order {
    Order::WriteSync {
        seen: view.sync_revision,
        key,
    }
}

/// What comes next in a mode.
fn step(ctx: &Context<'_>, view: &ClusterView, server: &Server) -> Step {
    let names = &server.synchronous;
    let key = view.sync.as_deref();
    let candidates = candidates(ctx, server);
    let present = |name: &&NodeName| candidates.iter().any(|candidate| candidate.name == **name);
    let demanded = match names {
        Names::Some(some) => some.number,
        Names::Alone | Names::Foreign(_) => usize::MAX,
    };
    let now = Present {
        me: ctx.me(),
        key,
        doubt: ctx.state.sync_in_doubt,
        names,
        in_force: ctx.state.sync.in_force(names),
        confirmed: ctx.state.sync.confirmed(names),
        confirmable: demanded <= names.members().filter(present).count(),
    };
    let settings = &ctx.config.synchronous;
    let target = target(
        settings,
        ctx.me(),
        key,
        names,
        server.position(),
        candidates.clone(),
    );
    plan::next(&now, &target)
}

/// The standbys that could acknowledge commits: members that run and stream from here under their own name, have everything or come nearer,
/// and are not kept out by a tag.
fn candidates(ctx: &Context<'_>, server: &Server) -> Vec<Candidate> {
    let patience = ctx.config.ttl;
    let members = ctx.facts.others(ctx.me());
    members
        .filter(|(_, member)| member.running() && !member.nosync)
        .filter(|(_, member)| {
            // Who streams from here for the moment only, its own source being away, goes back to it.
            let source = member.replicatefrom.as_ref();
            source.is_none_or(|source| !server.standbys.contains_key(source.as_str()))
        })
        .filter_map(|(name, member)| {
            let standby = server.standbys.get(name.as_str())?;
            let stalled = ctx.state.sync.stalled(name.as_str(), ctx.now, patience);
            (standby.streaming && !standby.doubled && !stalled).then(|| Candidate {
                name: name.clone(),
                position: standby.position,
                priority: member.sync_priority,
                nofailover: member.nofailover,
            })
        })
        .collect()
}
