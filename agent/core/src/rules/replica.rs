//! PostgreSQL runs as replica.

use std::time::Duration;

use super::{Context, Intent, Plan, Trail, race, rejoin};
use crate::action::{Lane, Order, StopMode, Upstream};
use crate::decision::{Evidence, Guard, Rule};
use crate::sync;
use crate::types::{Lsn, NodeName, Timeline};
use crate::view::{Member, Server, ServerRole};
use crate::zoo::{Flaw, lacks};

/// How long a replica whose history leads to the leader's may go without streaming before it is started anew: three of PostgreSQL's own
/// attempts.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a replica may stand still on an older timeline than the leader's before its history is compared: following
/// a switch of timelines takes a reconnect, and PostgreSQL retries each 5 s at the latest. One that is known to hold more than the
/// cluster kept of its timeline has nothing to wait for.
const STANDSTILL: Duration = Duration::from_secs(6);

/// Promotes under the lock.
///
/// Not when so little of the right is left that the fence would stop it at once: a renewal is on its way then.
pub(super) fn promote(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let (server, streaming) = ctx.replica()?;
    if !ctx.state.lease.held {
        return None;
    }
    if ctx.state.giving_up || ctx.state.releasing {
        return Some(ctx.give_back());
    }
    // What took the lock may have been an order of which no other node was told: then the renewal that reserves a timeline gives the right.
    if ctx.valid_until() <= ctx.now && ctx.state.reserved.is_some() {
        trail.block(Rule::Promote, Guard::NoRight);
        return Some(Plan::hold(Rule::Promote));
    }
    if let Some(guard) = ctx.announced(server.system_id).or_else(|| ctx.others_right()) {
        trail.block(Rule::Promote, guard);
        return Some(Plan::hold(Rule::Promote));
    }
    if let Some(plan) = reconsider(ctx, trail, server, streaming) {
        return Some(plan);
    }
    if !ctx.listed(ctx.me()) && !lacks(Flaw::PromotedUnlisted) {
        // By a person's word. If it were lost before it had named itself, nobody with its timeline could be elected.
        trail.block(Rule::Promote, Guard::NotInFailsafe);
        return Some(Plan::hold(Rule::Promote));
    }
    if let Some(plan) = ctx.named_first(trail, Rule::Promote) {
        return Some(plan);
    }
    let known = ctx.newest_timeline().max(server.timeline);
    if ctx.state.reserved.is_none_or(|reserved| reserved <= known) && !lacks(Flaw::NextUnreserved) {
        // A reign that began with a primary has reserved no timeline, or it is not known what an earlier order has, or PostgreSQL would pass over
        // the number that is reserved: that comes first, or the next reign may make the same one.
        trail.block(Rule::Promote, Guard::NoReservation);
        let mut status = ctx.status(false);
        let spoken_for = status.next.unwrap_or_default().max(known);
        status.next = Some(Timeline(spoken_for.0 + 1));
        return Some(if ctx.lanes.idle(Lane::Lock) {
            Plan::order(Rule::Promote, ctx.renew(status))
        } else {
            Plan::hold(Rule::Promote)
        });
    }
    let above = ctx
        .state
        .reserved
        .map_or(known, |reserved| Timeline(reserved.0 - 1));
    let order = Order::Promote {
        guard_until: ctx.guard_until(),
        valid_until: ctx.valid_until(),
        above,
        synchronous: sync::duty::first_names(ctx),
        gated: ctx.config.synchronous.shut_by().is_some(),
    };
    Some(
        Plan::order(Rule::Promote, order)
            .because(Evidence::RightLeft(ctx.state.lease.left(ctx.now)))
            .because(Evidence::Position(server.timeline, server.position())),
    )
}

/// Looks again at what the order to take the lock rested on: PostgreSQL may have crashed since and come back with less, or have received more
/// from a server whose history the cluster has left. A promotion keeps all that was received, so a replica on an older timeline than
/// the cluster's receives nothing any more when it is compared.
fn reconsider(ctx: &Context<'_>, trail: &mut Trail, server: &Server, streaming: bool) -> Option<Plan> {
    if lacks(Flaw::PromotionUnconsidered) {
        return None;
    }
    if let Err(guard) = race::heritage(ctx, server) {
        trail.block(Rule::Promote, guard);
        return Some(ctx.give_back().intent(Intent::GiveUp));
    }
    let cluster = ctx.facts.view().and_then(|view| view.timeline());
    if cluster <= Some(server.timeline) {
        return None;
    }
    if server.upstream.is_some() {
        let upstream = None;
        return Some(Plan::order(Rule::Promote, Order::Follow { upstream }));
    }
    if streaming {
        trail.block(Rule::Promote, Guard::Receiving);
        return Some(Plan::hold(Rule::Promote));
    }
    None
}

/// Follows another leader, or the same one with a slot, or without: `use_slots` may have been turned while it runs.
pub(super) fn follow(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    let (server, streaming) = ctx.replica()?;
    if !ctx.leader_is_other() {
        return None;
    }
    let leader = ctx.facts.leader()?.clone();
    let Some(source) = source(ctx) else {
        trail.block(Rule::Follow, Guard::LeaderNotReady);
        return Some(Plan::hold(Rule::Replicate).because(Evidence::Leader(leader)));
    };
    let there = server.upstream.as_deref() == Some(host_and_port(&source.conn_url));
    if !there || server.slot != source.slot {
        let upstream = Some(source);
        return Some(Plan::order(Rule::Follow, Order::Follow { upstream }).because(Evidence::Leader(leader)));
    }
    if let Some(plan) = lost(ctx, trail, server, streaming) {
        return Some(plan);
    }
    let mut plan = Plan::hold(Rule::Replicate).because(Evidence::Leader(leader));
    plan.because
        .push(Evidence::Position(server.timeline, server.position()));
    Some(plan)
}

/// A replica that does not stream, on a timeline that is not the leader's: it is compared with the leader's history, and stopped to be rewound if it
/// diverged. One that is on the leader's and has heard of a later one is started anew.
fn lost(ctx: &Context<'_>, trail: &mut Trail, server: &Server, streaming: bool) -> Option<Plan> {
    let leader_timeline = ctx.leader_timeline()?;
    let usurped = ctx.usurped();
    let same = leader_timeline == server.timeline && usurped.is_none();
    if streaming || !ctx.leader_is_primary() {
        return None;
    }
    if same {
        return if server.heard_of.is_some() {
            nudge(ctx, trail, server)
        } else {
            None
        };
    }
    let Some(ancestry) = ctx.ancestry() else {
        let due = ctx.state.settled.plus(STANDSTILL);
        let beyond = matches!(race::ancestry(ctx, server), Err(Guard::Diverged { .. }));
        if ctx.now < due && !beyond {
            let left = due.since(ctx.now);
            trail.block(Rule::CompareHistory, Guard::MayYetFollow { left });
            return None;
        }
        let leader = ctx.upstream(ctx.facts.leader()?)?;
        return Some(Plan::order(
            Rule::CompareHistory,
            Order::CompareHistory { leader },
        ));
    };
    let ServerRole::Replica { replayed, .. } = server.role else {
        return None;
    };
    match rejoin::kinship(ancestry, server.timeline, replayed, false) {
        rejoin::Kinship::Ancestor | rejoin::Kinship::Unclear if usurped.is_none() => {
            nudge(ctx, trail, server)
        }
        _ => {
            let diverged = Guard::Diverged {
                timeline: server.timeline,
                position: server.position(),
            };
            trail.block(Rule::Replicate, usurped.unwrap_or(diverged));
            if let Some(guard) = ctx.outdated().or_else(|| ctx.still_named()) {
                trail.block(Rule::Rewind, guard);
                return None;
            }
            let curable = ctx.config.use_pg_rewind || ctx.config.reclone_on_divergence;
            if !curable {
                trail.block(Rule::Rewind, Guard::MayNotRewind);
                return Some(Plan::hold(Rule::NeedHelp));
            }
            let mode = StopMode::Fast {
                until: ctx.now.plus(Duration::from_secs(10)),
            };
            Some(Plan::order(
                Rule::Rewind,
                Order::Stop {
                    mode,
                    checkpoint_first: false,
                },
            ))
        }
    }
}

/// Restarts a replica that stands still although all that it has is in the leader's history, once in a reign and place.
///
/// A running standby that has heard of a timeline which came to nothing waits for it, and PostgreSQL refuses to turn to one that is not
/// its child; a start looks anew. Anything else that keeps it from streaming (a network, a missing right) is not helped by a restart, so
/// it is not repeated. One that came further since may have heard of another such timeline, from an upstream that had been left behind itself.
fn nudge(ctx: &Context<'_>, trail: &mut Trail, server: &Server) -> Option<Plan> {
    let reign = ctx.facts.view()?.leader.as_ref()?.created;
    let position = server.position();
    if ctx
        .state
        .nudged
        .is_some_and(|(last, stood)| last == reign && position <= stood)
    {
        return None;
    }
    let due = ctx.state.settled.plus(PATIENCE);
    if ctx.now < due {
        let left = due.since(ctx.now);
        trail.block(Rule::Follow, Guard::MayYetFollow { left });
        return None;
    }
    let order = Order::Restart {
        guard_until: None,
        gated: false,
    };
    Some(Plan::order(Rule::Follow, order).intent(Intent::Nudge(reign, position)))
}

/// Whom to stream from: the member of the tag `replicatefrom` while it runs and has what this replica needs, else the leader.
///
/// One that is far behind this replica cannot serve it: PostgreSQL refuses a position that the upstream does not have, and one that stands
/// still itself, for want of WAL that is gone, would hold all behind it back for ever; nor can one on a timeline that this replica has left.
/// A little behind is every upstream, for what its key says is up to a round old.
pub(super) fn source(ctx: &Context<'_>) -> Option<Upstream> {
    ctx.upstream(source_name(ctx)?)
}

fn source_name<'a>(ctx: &Context<'a>) -> Option<&'a NodeName> {
    let server = ctx.facts.server();
    let own = server.map(Server::position).unwrap_or_default();
    let behind = |position: Lsn| ctx.config.maximum_lag_on_failover < own.ahead_of(position);
    let left = |member: &Member| {
        let theirs = server.zip(member.timeline);
        theirs.is_some_and(|(server, theirs)| theirs < server.timeline)
    };
    let serves = |member: &Member| member.running() && !member.position.is_some_and(behind) && !left(member);
    let cascade = ctx
        .config
        .replicate_from
        .as_ref()
        .filter(|name| *name != ctx.me() && ctx.facts.member(name).is_some_and(serves));
    cascade.or(ctx.facts.leader())
}

/// `host:port` of `postgres://host:port/database`.
fn host_and_port(conn_url: &str) -> &str {
    let rest = conn_url.split_once("://").map_or(conn_url, |(_, rest)| rest);
    let rest = rest.split(['/', '?']).next().unwrap_or(rest);
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn the_address_is_cut_out_of_a_url() {
        assert_eq!(
            host_and_port("postgres://10.0.0.1:5432/postgres"),
            "10.0.0.1:5432"
        );
        assert_eq!(host_and_port("postgres://u:p@h:1/x?application_name=y"), "h:1");
        assert_eq!(host_and_port("h:1"), "h:1");
    }
}
