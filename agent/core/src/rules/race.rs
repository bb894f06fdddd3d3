//! The race for the free lock.

use std::cmp::Ordering;
use std::time::Duration;

use super::{Context, Plan, Trail};
use crate::action::{Grounds, Lane, Order};
use crate::decision::{Evidence, Guard, Rule};
use crate::facts::REMEMBERED;
use crate::state::Writes;
use crate::types::{Lsn, MonoTime, NodeName, Timeline};
use crate::view::{ClusterView, FailoverKey, Server};
use crate::zoo::{Flaw, lacks};

/// How long a free lock is kept for the candidate that a person named, and from the node that gave it away.
const RESERVATION: Duration = Duration::from_secs(5);

/// For so long after the lock became free, what a member that is ahead says of itself may rest on what it knew before: it has not heard yet
/// that the lock is free, or that etcd is back. It is asked again after that.
pub(crate) const HEARSAY: Duration = Duration::from_millis(500);

/// How old the failure to reach a peer may be for the peer to count as gone without being asked again.
const DEAD_FOR: Duration = Duration::from_secs(5);

/// Takes the lock when it is free and this replica is the one that should have it.
pub(super) fn take_lock(ctx: &Context<'_>, trail: &mut Trail) -> Option<Plan> {
    if ctx.facts.leader().is_some() {
        return None;
    }
    let leaderless = Evidence::Leaderless(ctx.leaderless_for());
    let asked = forced(ctx).then_some(Evidence::Forced);
    match may_take_lock(ctx) {
        Ok(server) if ctx.lanes.idle(Lane::Lock) => Some(
            Plan::order(Rule::TakeLock, acquire(ctx))
                .because(leaderless)
                .because(asked)
                .because(Evidence::Position(server.timeline, server.position()))
                .because(inheritance(ctx, server)),
        ),
        Ok(_) => Some(Plan::hold(Rule::TakeLock).because(leaderless).because(asked)),
        Err(guard) => {
            trail.block(Rule::TakeLock, guard);
            Some(Plan::hold(Rule::AwaitLeader).because(leaderless))
        }
    }
}

/// What becomes of the last primary's commits if this server leads.
fn inheritance(ctx: &Context<'_>, server: &Server) -> Evidence {
    let status = ctx.facts.view().and_then(|view| view.status.as_ref());
    let told = status.map(|status| status.optime).unwrap_or_default();
    let lack = told.ahead_of(ctx.worth(server).1);
    // Who is named has what clients were told of; the key's leader may be so by a person's word alone.
    let key = ctx.facts.sync_key().filter(|_| !forced(ctx));
    if key.is_some_and(|key| key.leader != *ctx.me() || lack == 0) {
        return Evidence::Complete;
    }
    Evidence::MayLack(told, lack)
}

/// The order to take the lock. What it rests on is checked again in its transaction.
pub(super) fn acquire(ctx: &Context<'_>) -> Order {
    let view = ctx.facts.view();
    let mut status = ctx.status(false);
    if ctx.replica().is_some() {
        let known = ctx.newest_timeline().max(status.next.unwrap_or_default());
        status.next = Some(Timeline(known.0 + 1));
    }
    Order::Acquire {
        ttl: status.ttl,
        grounds: view.map(grounds).unwrap_or_default(),
        seen: view.map(|view| view.status_revision).unwrap_or_default(),
        status,
    }
}

fn grounds(view: &ClusterView) -> Grounds {
    Grounds {
        config: view.config_revision.unwrap_or_default(),
        failover: view.failover_revision,
        failsafe: view.failsafe_revision,
        sync: view.sync_revision,
    }
}

/// Whether this node may take a free lock, by all that does not depend on other members: this is also what it tells them.
pub(crate) fn could_take_lock<'a>(ctx: &Context<'a>) -> Result<&'a Server, Guard> {
    ctx.facts.view().ok_or(Guard::ViewStale { age: Duration::MAX })?;
    let manual = chosen(ctx);
    if let Some(guard) = ctx.stale_view() {
        return Err(guard);
    }
    if ctx.config.pause && !manual && !lacks(Flaw::PauseUnheeded) {
        return Err(Guard::PauseOn);
    }
    if let Some(guard) = ctx.unfenced_other() {
        return Err(guard);
    }
    if ctx.config.nofailover && !lacks(Flaw::NofailoverUnheeded) {
        return Err(Guard::NoFailover);
    }
    if ctx.now < ctx.state.cooldown {
        return Err(Guard::Cooldown {
            left: ctx.state.cooldown.since(ctx.now),
        });
    }
    if let Some(guard) = ctx.promised() {
        return Err(guard);
    }
    if let Some(guard) = unsynchronous(ctx) {
        return Err(guard);
    }
    if !ctx.listed(ctx.me()) && !forced(ctx) && !lacks(Flaw::FailsafeListUnread) {
        return Err(Guard::NotInFailsafe);
    }
    let (server, _) = ctx.replica().ok_or(Guard::PostgresNotReady)?;
    if let Some(guard) = ctx
        .unreserved()
        .filter(|_| !ctx.long_leaderless() && !forced(ctx))
    {
        return Err(guard);
    }
    heritage(ctx, server)?;
    Ok(server)
}

/// What this replica holds is the cluster's history, and enough of it. Who leads by the `sync` key has every acknowledged commit, or a
/// person's word; if it were kept out, nobody could lead.
pub(super) fn heritage(ctx: &Context<'_>, server: &Server) -> Result<(), Guard> {
    ancestry(ctx, server)?;
    let last = ctx
        .facts
        .view()
        .and_then(|view| view.status.as_ref())
        .filter(|_| !unpublished(ctx, server))
        .map(|status| status.optime)
        .unwrap_or_default();
    let lag = last.ahead_of(ctx.worth(server).1);
    let limit = ctx.config.maximum_lag_on_failover;
    let key = ctx.facts.sync_key();
    let named = key.is_some_and(|key| key.leader == *ctx.me());
    if limit < lag && !named && !forced(ctx) && !lacks(Flaw::LagUnheeded) {
        return Err(Guard::LagTooHigh { lag, limit });
    }
    Ok(())
}

/// The server is on the timeline that was reserved last, whose reign was over before it published any position: the last published one is of
/// an older timeline and says nothing of it.
pub(super) fn unpublished(ctx: &Context<'_>, server: &Server) -> bool {
    let status = ctx.facts.view().and_then(|view| view.status.as_ref());
    status.is_some_and(|status| {
        let reserved = status.next.is_some_and(|next| next <= server.timeline);
        let newer = status.timeline.is_some_and(|said| said < server.timeline);
        reserved && newer && ctx.usurped().is_none() && !lacks(Flaw::NewTimelineLags)
    })
}

/// The `sync` key names others: whoever is to lead has every commit that clients were told of. In quorum mode votes are counted instead, see
/// [`votes`].
fn unsynchronous(ctx: &Context<'_>) -> Option<Guard> {
    let key = ctx
        .facts
        .sync_key()
        .filter(|_| !forced(ctx) && !lacks(Flaw::SyncUnheeded))?;
    let leader = key.leader.clone();
    (!ctx.electable(ctx.me())).then_some(Guard::NotSynchronous { leader })
}

/// As many voters as the `sync` key demands have said that they are not ahead of this node, at a time when the last primary could not
/// acknowledge commits any more.
fn votes(ctx: &Context<'_>, server: &Server) -> Result<(), Guard> {
    let key = ctx.facts.sync_key();
    let Some(key) = key.filter(|key| key.leader != *ctx.me() && !forced(ctx) && !lacks(Flaw::SyncUnheeded))
    else {
        return Ok(());
    };
    let since = if lacks(Flaw::VotesBeforeTheEnd) {
        MonoTime::ZERO
    } else {
        ctx.rights_end()
    };
    let not_ahead = |name: &&NodeName| {
        let peer = ctx.facts.peers.get(*name).filter(|peer| since <= peer.asked);
        let status = peer.and_then(|peer| peer.status.as_ref());
        let theirs = status.and_then(|status| status.timeline.zip(status.position));
        *name == ctx.me() || theirs.is_some_and(|theirs| holds(server, theirs))
    };
    let (have, need) = (key.voters.iter().filter(not_ahead).count(), key.votes());
    if have < need {
        return Err(Guard::VotesMissing { have, need });
    }
    Ok(())
}

/// This server has whatever one has that says it is there. Beyond the end of a timeline that this server has left, the other may have come to
/// a newer one without its agent having seen it.
fn holds(server: &Server, (timeline, position): (Timeline, Lsn)) -> bool {
    let left = server.history.iter().find(|line| line.timeline == timeline);
    let end = match timeline.cmp(&server.timeline) {
        Ordering::Less if !lacks(Flaw::VotesOfThePast) => left.map(|line| line.switch),
        Ordering::Less => Some(position),
        Ordering::Equal => Some(server.position()),
        Ordering::Greater => None,
    };
    end.is_some_and(|end| position <= end)
}

/// A node on an older timeline than the cluster's may lead only if all that it holds is in the cluster's history: what it has received
/// and not replayed yet as well, for a promotion replays that first.
pub(super) fn ancestry(ctx: &Context<'_>, server: &Server) -> Result<(), Guard> {
    let Some(view) = ctx.facts.view() else {
        return Ok(());
    };
    let Some(cluster) = view.timeline().filter(|cluster| server.timeline < *cluster) else {
        return Ok(());
    };
    if lacks(Flaw::AncestryUnheeded) {
        return Ok(());
    }
    let Some(fork) = view.fork_of(server.timeline) else {
        return Err(Guard::TimelineBehind {
            own: server.timeline,
            cluster,
        });
    };
    if fork < server.position() {
        return Err(Guard::Diverged {
            timeline: server.timeline,
            position: server.position(),
        });
    }
    Ok(())
}

/// All conditions of [`could_take_lock`], and: the old right is over, the lock is not meant for another, and no member
/// that could lead is better.
fn may_take_lock<'a>(ctx: &Context<'a>) -> Result<&'a Server, Guard> {
    let server = could_take_lock(ctx)?;
    if let Some(guard) = ctx.old_right() {
        return Err(guard);
    }
    if let Some(key) = ctx.facts.view().and_then(|view| view.failover.as_ref()) {
        reservation(ctx, key)?;
    }
    if lacks(Flaw::PeersUnasked) {
        return Ok(server);
    }
    votes(ctx, server)?;
    let electable = |name: &&NodeName| ctx.electable(name);
    for name in ctx.facts.others(ctx.me()).map(|(name, _)| name).filter(electable) {
        peer(ctx, server, name)?;
    }
    match awaited(ctx).filter(|_| !forced(ctx) && !lacks(Flaw::MembersForgotten)) {
        Some((name, _)) => Err(Guard::PeerUnheard(name.clone())),
        None => Ok(server),
    }
}

/// Who may be about to write its key anew, and when etcd is to be read for that: whoever has not come back then is not waited for.
///
/// An etcd that was away takes the keys of all members with the leader's, and they write them anew; and one without space refuses the key of a
/// member that could lead, which nobody asks without it: for as long as it refuses this node's own, it refuses theirs. That it came back is
/// not left to the watch, which may be held up. The last leader is expected to be gone, unless it has said since that it could lead.
pub(crate) fn awaited<'a>(ctx: &Context<'a>) -> Option<(&'a NodeName, MonoTime)> {
    let free = ctx.facts.leaderless?;
    let read = ctx.facts.read.unwrap_or_default();
    let led = ctx.facts.led.as_ref().filter(|name| !offers(ctx, name));
    let able = match ctx.state.writes {
        _ if lacks(Flaw::RefusedUnawaited) => free,
        Writes::Taken { since } => since,
        Writes::Refused => ctx.now,
        Writes::Untried => free,
    };
    let missing = ctx.facts.missing(free.minus(REMEMBERED));
    missing
        .filter(|(name, _)| *name != ctx.me() && Some(*name) != led)
        .map(|(name, at)| (name, at.max(free).max(able).plus(HEARSAY)))
        .filter(|(_, until)| read < *until)
        .max_by_key(|(_, until)| *until)
}

/// This member has said since the lock became free that it could take it.
fn offers(ctx: &Context<'_>, name: &NodeName) -> bool {
    let since = ctx.facts.leaderless.unwrap_or(ctx.now);
    let known = ctx.facts.peers.get(name).filter(|known| since <= known.asked);
    let status = known.and_then(|known| known.status.as_ref());
    status.is_some_and(|status| status.can_take_lock == Some(true))
}

/// A person named this node.
fn chosen(ctx: &Context<'_>) -> bool {
    ctx.facts
        .view()
        .and_then(|view| view.failover.as_ref())
        .is_some_and(|key| key.candidate.as_ref() == Some(ctx.me()))
}

/// A person named this node in a manual failover: whatever it costs. A switchover (which names the leader too) is no such
/// word: if its leader is lost half-way, its candidate is one of several, and a leader that is only cut off may be alive by failsafe
/// grants that this node was not asked for.
pub(super) fn forced(ctx: &Context<'_>) -> bool {
    let key = ctx.facts.view().and_then(|view| view.failover.as_ref());
    chosen(ctx) && key.is_some_and(FailoverKey::manual)
}

fn reservation(ctx: &Context<'_>, key: &FailoverKey) -> Result<(), Guard> {
    if RESERVATION <= ctx.leaderless_for() {
        return Ok(());
    }
    if let Some(candidate) = key.candidate.as_ref().filter(|candidate| *candidate != ctx.me())
        && ctx.facts.member(candidate).is_some()
    {
        return Err(Guard::Reserved(candidate.clone()));
    }
    if key.leader.as_ref() == Some(ctx.me()) && ctx.somebody_could_lead() {
        return Err(Guard::JustLeft);
    }
    Ok(())
}

/// Compares with one other member.
///
/// A member that did not answer since the lock became free, or shortly before while others did, is gone. One that is ahead, or an equal with
/// a higher priority, goes first if it can lead at all; but not for ever: after two lifetimes of the lock without a leader, whoever is within the
/// lag limit may lead.
fn peer(ctx: &Context<'_>, server: &Server, name: &NodeName) -> Result<(), Guard> {
    let since = ctx.facts.leaderless.unwrap_or(ctx.now);
    let Some(known) = ctx.facts.peers.get(name) else {
        return Err(Guard::PeerUnheard(name.clone()));
    };
    let Some(status) = &known.status else {
        // Who hears nobody else either is cut off itself, more likely than not. The last leader is expected to be gone.
        let believed = known.vouched || ctx.facts.led.as_ref() == Some(name);
        let dead = since <= known.asked || believed && since.minus(DEAD_FOR) <= known.asked;
        return if dead {
            Ok(())
        } else {
            Err(Guard::PeerUnheard(name.clone()))
        };
    };
    if known.asked < since {
        return Err(Guard::PeerUnheard(name.clone()));
    }
    let impatient = ctx.long_leaderless();
    if status.primary && status.running && !impatient && !lacks(Flaw::PeerPrimaryUnheeded) {
        return Err(Guard::PeerIsPrimary(name.clone()));
    }
    let own = ctx.worth(server);
    let theirs = (
        status.timeline.unwrap_or(server.timeline),
        status.position.unwrap_or(Lsn(0)),
    );
    let hearsay = known.asked < since.plus(HEARSAY) && status.running && own < theirs;
    let hearsay = hearsay && !lacks(Flaw::HearsayBelieved);
    let cannot_lead = status.nofailover || status.can_take_lock == Some(false) && !hearsay;
    if cannot_lead || forced(ctx) || impatient {
        return Ok(());
    }
    if own < theirs && !lacks(Flaw::PeerAheadUnheeded) {
        return Err(Guard::PeerAhead {
            peer: name.clone(),
            by: theirs.1.ahead_of(own.1),
        });
    }
    let preferred = ctx.config.failover_priority < status.failover_priority;
    if own == theirs && preferred && (!chosen(ctx) || lacks(Flaw::PreferredFirst)) {
        return Err(Guard::PeerPreferred(name.clone()));
    }
    Ok(())
}
