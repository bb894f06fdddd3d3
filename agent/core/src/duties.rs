//! Routine work: what is done at a steady pace, whatever the rules decide.
//!
//! A duty gives an order when it is due and its lane is idle. Duties never decide anything about PostgreSQL's role.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::action::{Lane, MemberRecord, Order};
use crate::facts::REMEMBERED;
use crate::rules::{self, Context};
use crate::slots::slot_name;
use crate::state::{AfterPromotion, Cadence};
use crate::sync::{self, Mode};
use crate::types::{MonoTime, NodeName};
use crate::view::{ClusterView, DataDir, Due, Initialize, Process, ServerRole};
use crate::zoo::{Flaw, lacks};

/// The pace of looks at a PostgreSQL that is about to change its state.
const BRISK: Duration = Duration::from_millis(50);

/// The pace of questions whether a candidate has the shutdown checkpoint, and for how long after each stop: clients have no primary meanwhile,
/// and a standby that streams has it within some milliseconds, or not at all soon.
const HANDING_OVER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(60));

/// The longest time between two writings of the failsafe list or the history: each is written when it is not what it should be, and whoever has
/// just come cannot lead before the list names it. With a `loop_wait` of 10 s half a round is long.
const KEYS: Duration = Duration::from_millis(500);

/// The longest time between two looks of a primary in a synchronous mode: commits wait for a standby that is gone, and one that came back
/// protects nothing, until a look shows it. With a `loop_wait` of 10 s a round is long.
const STANDBYS: Duration = Duration::from_secs(1);

/// The pace at which replicas move the slots of other members forward.
const SLOTS_ON_REPLICA: Duration = Duration::from_secs(10);

/// The orders that are due, and when each duty is due again.
pub(crate) fn routine(ctx: &Context<'_>) -> (Vec<Order>, Cadence) {
    let mut due = ctx.state.due;
    let mut orders = Vec::new();
    if ctx.state.exiting {
        return (orders, due);
    }
    orders.extend(set_deadline(ctx));
    orders.extend(renew(ctx, &mut due));
    orders.extend(failsafe(ctx, &mut due));
    orders.extend(probe(ctx, &mut due));
    orders.extend(read(ctx, &mut due));
    orders.extend(ask_peers(ctx, &mut due));
    orders.extend(publish(ctx, &mut due));
    orders.extend(upkeep(ctx, &mut due));
    orders.extend(sync::duty::order(ctx));
    (orders, due)
}

/// Gives the order of `lane` if it is due and the lane idle, and sets when it is due again. At most steps it is not, so it is not made
/// before.
fn pace(
    ctx: &Context<'_>,
    due: &mut MonoTime,
    every: Duration,
    lane: Lane,
    order: impl FnOnce() -> Order,
) -> Option<Order> {
    if !ready(ctx, *due, lane) {
        return None;
    }
    *due = ctx.now.plus(every);
    Some(order())
}

/// The order of `lane` is due, and can be given.
fn ready(ctx: &Context<'_>, due: MonoTime, lane: Lane) -> bool {
    due <= ctx.now && ctx.lanes.idle(lane)
}

/// Renews the lock while it is held, or while the key names this node (an agent that was restarted).
fn renew(ctx: &Context<'_>, due: &mut Cadence) -> Option<Order> {
    if !ctx.state.lease.held && !ctx.leader_is_me() {
        return None;
    }
    pace(ctx, &mut due.renew, ctx.config.round(), Lane::Lock, || {
        ctx.renew(ctx.status(false))
    })
}

/// The guard's deadline follows the right. It is lifted only when PostgreSQL certainly is no primary, or in a pause that everybody can
/// know it to be exempt in; while PostgreSQL cannot be looked at, one that an order has set follows the right as well.
fn set_deadline(ctx: &Context<'_>) -> Option<Order> {
    if ctx.facts.postgres.is_none() && !ctx.state.unsure {
        return None;
    }
    let writable = ctx.may_write();
    let right = ctx.state.lease.until != MonoTime::ZERO;
    let guarded = ctx.facts.server().is_none_or(|server| server.guarded);
    let unseen = !ctx.settled() && !ctx.state.begun_as_replica;
    let unseen = unseen && ctx.valid() && ctx.state.deadline != Some(None);
    let deadline = if !writable && ctx.settled() {
        None
    } else if !writable && !unseen {
        return None;
    } else if ctx.exempt() {
        None
    } else if right {
        Some(ctx.guard_until())
    } else {
        return None;
    };
    let known = ctx.state.deadline == Some(deadline);
    (guarded && !known && ctx.lanes.idle(Lane::Guard)).then_some(Order::SetDeadline(deadline))
}

/// Asks for failsafe grants while no renewal comes through.
fn failsafe(ctx: &Context<'_>, due: &mut Cadence) -> Option<Order> {
    let lease = &ctx.state.lease;
    let silent = lease.renewed.plus(ctx.config.suspicion()) <= ctx.now;
    let leads = ctx.primary().is_some() && lease.until != MonoTime::ZERO && ctx.valid();
    if !ctx.config.failsafe_mode || ctx.config.pause || !silent || !leads || ctx.leader_is_other() {
        return None;
    }
    if !ready(ctx, due.failsafe, Lane::Failsafe) {
        return None;
    }
    let voters = ctx.failsafe_voters()?;
    let claimed = ctx.facts.view().and_then(ClusterView::claimed_ttl);
    let ttl = lease.safe_ttl(ctx.config, claimed);
    pace(ctx, &mut due.failsafe, ctx.config.round(), Lane::Failsafe, || {
        Order::AskFailsafe { voters, ttl }
    })
}

fn probe(ctx: &Context<'_>, due: &mut Cadence) -> Option<Order> {
    let brisk = match ctx.facts.process() {
        None | Some(Process::Starting { .. }) => true,
        Some(Process::Unresponsive { .. } | Process::Absent) => false,
        Some(Process::Running(_)) => !ctx.settled(),
    };
    let synchronous = ctx.config.synchronous.mode != Mode::Off && ctx.primary().is_some();
    let every = if brisk {
        BRISK
    } else if synchronous {
        STANDBYS.min(ctx.config.round())
    } else {
        ctx.config.round()
    };
    if brisk {
        due.probe = due.probe.min(ctx.now.plus(BRISK));
    }
    pace(ctx, &mut due.probe, every, Lane::Probe, || Order::Probe)
}

fn read(ctx: &Context<'_>, due: &mut Cadence) -> Option<Order> {
    if let Some((_, until)) = rules::awaited(ctx) {
        due.read = due.read.min(until);
    }
    // Reads failed while etcd was away, and the next may be a round off. That the lock is free is known by the watch, which is no ground to take it.
    if ctx.facts.leaderless.is_some() && ctx.stale_view().is_some() {
        due.read = due.read.min(ctx.now);
    }
    pace(ctx, &mut due.read, ctx.config.round(), Lane::Read, || {
        Order::ReadCluster
    })
}

/// Asks the other members for their positions when trouble is suspected, when nobody leads, and in a hand-over.
fn ask_peers(ctx: &Context<'_>, due: &mut Cadence) -> Option<Order> {
    let handing_over = ctx.state.handover.as_ref().and_then(|handover| handover.stopped);
    let every = if let Some((_, since)) = handing_over {
        let (pace, time) = HANDING_OVER;
        Some(if ctx.now < since.plus(time) { pace } else { BRISK })
    } else if ctx.facts.cluster.is_some() && ctx.facts.leader().is_none() {
        Some((ctx.config.round() / 4).max(BRISK))
    } else if ctx.leader_is_other() && ctx.facts.foreign.heard.plus(ctx.config.suspicion()) <= ctx.now {
        Some((ctx.config.round() / 2).max(BRISK))
    } else {
        None
    }?;
    if !ready(ctx, due.peers, Lane::Peers) {
        return None;
    }
    let addresses: BTreeMap<NodeName, String> = ctx
        .facts
        .others(ctx.me())
        .filter(|(_, member)| !member.api_url.is_empty())
        .map(|(name, member)| (name.clone(), member.api_url.clone()))
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let order = pace(ctx, &mut due.peers, every, Lane::Peers, || {
        Order::AskPeers(addresses)
    });
    if let Some(settled) = ctx.facts.leaderless.map(|since| since.plus(rules::HEARSAY))
        && ctx.now < settled
    {
        // What they said before that may have been hearsay.
        due.peers = due.peers.min(settled);
    }
    let votes_count = ctx.facts.sync_key().is_some();
    if votes_count && ctx.now < ctx.rights_end() {
        // Votes count from then on.
        due.peers = due.peers.min(ctx.rights_end());
    }
    order
}

/// The keys other than the lock. One write at a time, the most urgent first.
fn publish(ctx: &Context<'_>, due: &mut Cadence) -> Option<Order> {
    if !ctx.lanes.idle(Lane::Publish) {
        return None;
    }
    if let Some(order) = leaders_keys(ctx, due) {
        return Some(order);
    }
    let record = member_record(ctx)?;
    let news = ctx.state.published.as_ref().is_none_or(|old| {
        (
            old.state,
            old.role,
            old.pause,
            old.nosync,
            old.checkpoint_after_promote,
        ) != (
            record.state,
            record.role,
            record.pause,
            record.nosync,
            record.checkpoint_after_promote,
        )
    });
    if news {
        due.publish = ctx.now;
    }
    pace(ctx, &mut due.publish, ctx.config.round(), Lane::Publish, || {
        Order::WriteMember(record)
    })
}

fn leaders_keys(ctx: &Context<'_>, due: &mut Cadence) -> Option<Order> {
    let view = ctx.facts.view()?;
    if !ctx.state.lease.held || !ctx.valid() {
        return None;
    }
    let others = |list: &BTreeMap<NodeName, String>| !list.is_empty() && !list.contains_key(ctx.me());
    let announcement = announce(ctx, view);
    let cluster = ctx.state.created.is_some() || announcement.is_some();
    let promotes = ctx.replica().is_some() && !lacks(Flaw::PromotedUnlisted);
    let names = cluster || promotes || sync::duty::before_writable(ctx).is_some();
    if names && view.failsafe.as_deref().is_some_and(others) {
        // Once `initialize` names the cluster that only this node has, the `sync` key only this node, or there is a timeline that only this node
        // has, nobody on that list could lead.
        return name_electable(ctx, view, due);
    }
    if announcement.is_some() {
        return announcement;
    }
    // From the order to promote on: who was named in the reign before may be lost with it.
    if ctx.may_write()
        && let Some(order) = name_electable(ctx, view, due)
    {
        return Some(order);
    }
    let server = ctx.primary()?;
    if let Some(key) = &view.failover
        && obsolete(
            ctx,
            key.due,
            key.leader.as_ref(),
            key.candidate.as_ref(),
            key.revision,
        )
    {
        return Some(Order::ClearFailover(key.revision));
    }
    // At its own pace: of a new cluster the failsafe list has just been written, and who changes a setting next must find the key.
    if view.config_revision.is_none() && due.config <= ctx.now {
        due.config = ctx.now.plus(ctx.config.round());
        return Some(Order::WriteConfig);
    }
    if ctx.now < due.keys {
        return None;
    }
    let recorded = view.history.last().map(|line| line.timeline);
    let last = server.history.last().map(|line| line.timeline);
    if last.is_some() && recorded < last {
        due.keys = next_keys(ctx);
        return Some(Order::WriteHistory(merged_history(ctx)));
    }
    None
}

/// Names the cluster in the data directory in `initialize`: it was created here, or on a member that this one was cloned from and whose
/// agent is gone; or the key has vanished. It comes before anything becomes writable.
fn announce(ctx: &Context<'_>, view: &ClusterView) -> Option<Order> {
    let DataDir::Present(control) = ctx.facts.data()? else {
        return None;
    };
    let created = ctx.state.created;
    let bootstrapped = match view.initialize {
        _ if created.is_some() => true,
        Some(Initialize::Done(_)) => return None,
        Some(Initialize::InProgress) => true,
        None | Some(Initialize::Garbage) => false,
    };
    let system_id = created.unwrap_or(control.system_id);
    Some(Order::WriteInitialize {
        system_id,
        bootstrapped,
    })
}

/// A wish that is fulfilled, meant for another leader, or cannot be met, by what PostgreSQL says since it is known.
fn obsolete(
    ctx: &Context<'_>,
    due: Due,
    leader: Option<&NodeName>,
    candidate: Option<&NodeName>,
    revision: crate::types::Revision,
) -> bool {
    let fulfilled = candidate == Some(ctx.me()) || leader.is_some_and(|leader| leader != ctx.me());
    let idle = ctx.state.handover.is_none() && ctx.lanes.idle(Lane::Postgres);
    let unfit = rules::looked_since_wish(ctx) && rules::candidate(ctx).is_err();
    let unmeetable = due == Due::Now && (!rules::wanted(ctx) || unfit);
    fulfilled || due == Due::Stale || idle && (unmeetable || ctx.state.refused == Some(revision))
}

/// The lines that are already in the key keep their times and names; the newest promotion is this node's.
fn merged_history(ctx: &Context<'_>) -> Vec<crate::view::HistoryLine> {
    let (Some(view), Some(server)) = (ctx.facts.view(), ctx.primary()) else {
        return Vec::new();
    };
    let newest = server.history.last().map(|line| line.timeline);
    let mut lines: Vec<_> = server
        .history
        .iter()
        .map(|line| {
            let recorded = view
                .history
                .iter()
                .find(|old| old.timeline == line.timeline && old.switch == line.switch);
            let mut line = recorded.unwrap_or(line).clone();
            if recorded.is_none() && Some(line.timeline) == newest {
                line.leader = Some(ctx.me().as_str().to_owned());
            }
            line
        })
        .collect();
    let keep = ctx.config.max_timelines_history;
    if 0 < keep && keep < lines.len() {
        lines.drain(..lines.len() - keep);
    }
    lines
}

/// When the failsafe list or the history may be written again.
fn next_keys(ctx: &Context<'_>) -> MonoTime {
    ctx.now.plus(KEYS.min(ctx.config.round() / 2))
}

/// Writes the failsafe list anew, if it is not what it should be.
fn name_electable(ctx: &Context<'_>, view: &ClusterView, due: &mut Cadence) -> Option<Order> {
    if ctx.now < due.keys {
        return None;
    }
    let list = next_failsafe_list(ctx, view)?;
    due.keys = next_keys(ctx);
    let seen = view.failsafe_revision;
    Some(Order::WriteFailsafe { seen, list })
}

/// What the `failsafe` key should hold and does not: who could be elected, or nobody once the mode is off.
///
/// Whoever is named there may be elected, so while the right rests on grants of those who were named before, nobody is named: first a
/// renewal that was sent after the last round of grants.
fn next_failsafe_list(ctx: &Context<'_>, view: &ClusterView) -> Option<BTreeMap<NodeName, String>> {
    let on_grants = ctx.state.lease.renewed <= ctx.state.granted;
    if on_grants && !lacks(Flaw::ListOnGrants) {
        return None;
    }
    let list = view.failsafe.as_deref();
    if ctx.config.failsafe_mode {
        (!is_failsafe_list(ctx, list)).then(|| failsafe_list(ctx))
    } else {
        list.is_some_and(|list| !list.is_empty()).then(BTreeMap::new)
    }
}

/// Who could be elected without the DCS being asked: every member that may lead, with its address.
fn failsafe_list(ctx: &Context<'_>) -> BTreeMap<NodeName, String> {
    let members = ctx.facts.view().into_iter().flat_map(|view| &view.members);
    let mut list: BTreeMap<NodeName, String> = members
        .filter(|(_, member)| !member.api_url.is_empty())
        .map(|(name, member)| (name.clone(), member.api_url.clone()))
        .collect();
    let kept = ctx.facts.view().into_iter().flat_map(|view| kept(ctx, view));
    list.extend(kept.map(|(name, address)| (name.clone(), address.clone())));
    // Whose own key has just expired is a member all the same; a list without it would keep it from being elected again.
    if !list.contains_key(ctx.me()) {
        let known = ctx.facts.view().and_then(|view| view.failsafe.as_ref());
        let address = known.and_then(|list| list.get(ctx.me())).cloned();
        list.insert(ctx.me().clone(), address.unwrap_or_default());
    }
    list
}

/// Who is named, has no key any more, and stays.
///
/// For a while everybody: an etcd that was away takes the keys of all, and they write them anew. A leader that then named itself alone and
/// was lost would leave nobody who may be elected. And nobody leaves before this node is the primary: if it is lost half-way, whoever left
/// may be the only one that can lead.
fn kept<'a>(
    ctx: &Context<'a>,
    view: &'a ClusterView,
) -> impl Iterator<Item = (&'a NodeName, &'a String)> + use<'a> {
    let since = ctx.now.minus(REMEMBERED);
    let (facts, primary) = (ctx.facts, ctx.primary().is_some());
    let named = view.failsafe.iter().flat_map(|list| list.iter());
    named.filter(move |(name, _)| {
        !view.members.contains_key(*name) && (!primary || facts.vanished_since(name, since))
    })
}

/// The key holds what [`failsafe_list`] would write.
fn is_failsafe_list(ctx: &Context<'_>, list: Option<&BTreeMap<NodeName, String>>) -> bool {
    let (Some(view), Some(list)) = (ctx.facts.view(), list) else {
        return false;
    };
    let mut electable = view
        .members
        .iter()
        .filter(|(_, member)| !member.api_url.is_empty());
    let own = view
        .members
        .get(ctx.me())
        .is_some_and(|member| !member.api_url.is_empty());
    let kept = kept(ctx, view).filter(|(name, _)| *name != ctx.me()).count();
    let count = electable.clone().count() + usize::from(!own) + kept;
    list.len() == count
        && list.contains_key(ctx.me())
        && electable.all(|(name, member)| list.get(name) == Some(&member.api_url))
}

/// What this member says of itself.
fn member_record(ctx: &Context<'_>) -> Option<MemberRecord> {
    let postgres = &ctx.facts.postgres.as_ref()?.value;
    let order = ctx
        .lanes
        .outstanding(Lane::Postgres)
        .map(|outstanding| &outstanding.order);
    let server = ctx.facts.server();
    let state = match (&postgres.process, order) {
        (_, Some(Order::Bootstrap { .. })) => "initializing new cluster",
        (_, Some(Order::BaseBackup { .. })) => "creating replica",
        (_, Some(Order::Restart { .. })) => "restarting",
        (_, Some(Order::Stop { .. })) => "stopping",
        (Process::Running(_), _) => "running",
        (Process::Starting { .. }, _) => "starting",
        (Process::Unresponsive { .. }, _) => "unknown",
        (Process::Absent, Some(Order::StartPrimary { .. } | Order::StartReplica { .. })) => "starting",
        (Process::Absent, _) if ctx.state.reigned && ctx.state.shutdown.is_none() => "crashed",
        (Process::Absent, _) => "stopped",
    };
    let (role, replayed, streaming) = match server.map(|server| server.role) {
        Some(ServerRole::Primary { .. }) => ("primary", None, false),
        Some(ServerRole::Replica {
            replayed, streaming, ..
        }) => ("replica", Some(replayed), streaming),
        None if matches!(postgres.data, DataDir::Present(_)) => ("replica", None, false),
        None => ("uninitialized", None, false),
    };
    Some(MemberRecord {
        ttl: ctx.config.ttl,
        lease: ctx.state.lease.id,
        state,
        role,
        position: server.map(crate::view::Server::position),
        replayed,
        timeline: server.map(|server| server.timeline),
        streaming,
        checkpoint_after_promote: (ctx.state.checkpoint == AfterPromotion::Wanted).then_some(false),
        pause: ctx.config.pause,
        nosync: ctx.state.leaving.is_some(),
    })
}

/// Slots and the first checkpoint after a promotion.
fn upkeep(ctx: &Context<'_>, due: &mut Cadence) -> Option<Order> {
    let server = ctx.facts.server()?;
    if !ctx.lanes.idle(Lane::Upkeep) || !ctx.lanes.idle(Lane::Postgres) {
        return None;
    }
    let leads = server.is_primary() && ctx.state.lease.held;
    if leads && ctx.state.checkpoint == AfterPromotion::Wanted {
        return Some(Order::Checkpoint);
    }
    let use_slots = ctx.config.use_slots;
    if ctx.config.pause || server.is_primary() && !leads {
        return None;
    }
    let own = slot_name(ctx.me().as_str());
    let standbys = ctx.facts.others(ctx.me()).filter(|(_, member)| !member.nostream);
    let permanent = ctx.config.permanent_slots.iter();
    // Asked at every step, and nearly always to no effect: so nothing is made before it is wanted.
    let wanted = standbys
        .map(|(name, _)| slot_name(name.as_str()))
        .chain(permanent.map(|slot| Cow::Borrowed(slot.as_str())))
        .filter(|slot| use_slots && *slot != own);
    // Once slots are turned off nobody uses those of members, and each would hold WAL for good.
    let drop: BTreeSet<String> = ctx
        .state
        .known
        .iter()
        .filter(|(name, seen)| {
            let expired = ctx.config.member_slots_ttl < ctx.now.since(**seen);
            *name != ctx.me() && (expired || !use_slots)
        })
        .map(|(name, _)| slot_name(name.as_str()))
        .filter(|slot| server.slots.contains_key(&**slot) && !wanted.clone().any(|wanted| wanted == *slot))
        .filter(|slot| !ctx.config.permanent_slots.iter().any(|kept| kept == &**slot))
        .map(Cow::into_owned)
        .collect();
    let missing = wanted.clone().any(|slot| !server.slots.contains_key(&*slot));
    let advance = use_slots && !server.is_primary() && due.slots <= ctx.now;
    if !missing && drop.is_empty() && !advance {
        return None;
    }
    let every = if server.is_primary() {
        ctx.config.round()
    } else {
        SLOTS_ON_REPLICA
    };
    if missing {
        due.slots = due.slots.min(ctx.now);
    }
    pace(ctx, &mut due.slots, every, Lane::Upkeep, || {
        let status = ctx.facts.view().and_then(|view| view.status.as_ref());
        let position = |slot: &str| status.and_then(|status| status.slots.get(slot)).copied();
        let ensure = wanted.map(|slot| {
            let position = position(&slot);
            (slot.into_owned(), position)
        });
        Order::SyncSlots {
            ensure: ensure.collect(),
            drop,
        }
    })
}

impl Context<'_> {
    /// Whose grants a failsafe round needs: everybody on the list in the DCS, and on any list that may have arrived there
    /// since, but this node. `None` if there is no list, or this node is not on it.
    pub(crate) fn failsafe_voters(&self) -> Option<BTreeMap<NodeName, String>> {
        let list = self.facts.view()?.failsafe.as_ref()?;
        if !list.contains_key(self.me()) {
            return None;
        }
        let mut voters = BTreeMap::clone(list);
        if !lacks(Flaw::FailsafeListInFlight) {
            voters.extend(self.state.failsafe_sent.clone().unwrap_or_default().1);
        }
        voters.remove(self.me());
        Some(voters)
    }
}
