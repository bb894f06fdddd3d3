//! Who is to have the clients: the primary, or a replica, as far as the cluster's keys tell.
//!
//! **The primary** is the member that the leader key names, once that member says itself that it runs as primary. A new leader says so
//! only when PostgreSQL has left recovery and accepts writes; until then its clients wait. Three cases have no such agreement:
//!
//! - *The primary restarts in place.* The leader key still names it, in the same reign, and its own key says that it is down or starting.
//!   It is tried, for its key follows what it does by some tenths of a second.
//! - *The leader key has run out and nobody else leads.* The primary may live on the grants of its peers (failsafe), and its own key hangs
//!   on the same lease. As long as its key says primary, or is gone, it stays the target; it is tried if its key is gone.
//! - *The leader has said that it is about to stop.* New sessions wait, for a bounded time, while it ends its transactions.
//!
//! What is tried gets one session at a time, and only such whose start the router can read: a standby is recognised by it.

use std::time::Duration;

use super::cluster::{Cluster, Member, Role, State};
use super::table::{Backend, backend};

/// How long new sessions wait on the leader's word that it stops; by then it has stopped, or thought better of it.
pub(super) const STOPPING: Duration = Duration::from_secs(5);

/// Where new sessions of a door go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// There.
    To(Backend),
    /// There, to see whether it takes them.
    Try(Backend),
    /// Nowhere yet.
    Wait(Why),
}

/// Why there is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// etcd has not been read yet.
    NoView,
    /// Nobody leads.
    NoLeader,
    /// The leader is not known to accept writes yet.
    NotPromoted,
    /// The leader is about to stop.
    Stopping,
    /// No replica is fit.
    NoReplica,
}

impl Why {
    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoView => "etcd has not answered yet",
            Self::NoLeader => "the cluster has no leader",
            Self::NotPromoted => "the leader does not accept writes yet",
            Self::Stopping => "the primary is about to stop",
            Self::NoReplica => "no replica is fit",
        }
    }
}

/// The primary that was last known for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) backend: Backend,
    pub(super) reign: i64,
    /// It took a session since.
    pub(super) proven: bool,
}

fn serves(member: &Member) -> bool {
    member.role == Role::Primary && matches!(member.state, State::Running | State::Stopping)
}

/// The primary that is known once `cluster` is.
pub(super) fn follow(before: Option<&Known>, cluster: &Cluster) -> Option<Known> {
    let Some(leader) = &cluster.leader else {
        return before.cloned();
    };
    let same = before.filter(|known| known.backend.name == leader.name && known.reign == leader.reign);
    match cluster.members.get(&leader.name) {
        Some(member) if serves(member) => Some(Known {
            backend: backend(&leader.name, &member.at),
            reign: leader.reign,
            proven: same.is_some_and(|known| known.proven),
        }),
        _ => same.cloned(),
    }
}

/// The primary. With `closing` the leader has said that it stops.
pub(super) fn primary(cluster: Option<&Cluster>, known: Option<&Known>, closing: bool) -> Target {
    let Some(cluster) = cluster else {
        return Target::Wait(Why::NoView);
    };
    let tried = |known: &Known| {
        if known.proven {
            Target::To(known.backend.clone())
        } else {
            Target::Try(known.backend.clone())
        }
    };
    match (&cluster.leader, known) {
        (Some(_), _) if closing && cluster.stopping.is_some() => Target::Wait(Why::Stopping),
        (Some(leader), known) => {
            let known =
                known.filter(|known| known.backend.name == leader.name && known.reign == leader.reign);
            match (cluster.members.get(&leader.name), known) {
                (Some(member), _) if serves(member) => Target::To(backend(&leader.name, &member.at)),
                (Some(member), Some(known)) if member.state == State::Restarting => tried(known),
                (None, Some(known)) => tried(known),
                _ => Target::Wait(Why::NotPromoted),
            }
        }
        (None, Some(known)) => match cluster.members.get(&known.backend.name) {
            Some(member) if member.role == Role::Primary && member.state == State::Running => {
                Target::To(known.backend.clone())
            }
            Some(_) => Target::Wait(Why::NoLeader),
            None => tried(known),
        },
        (None, None) => Target::Wait(Why::NoLeader),
    }
}

/// The replicas that clients may read from, in the order of their names.
pub(super) fn replicas(
    cluster: &Cluster,
    maximum_lag: Option<u64>,
) -> impl Iterator<Item = (&String, &Member)> {
    cluster.members.iter().filter(move |(name, member)| {
        member.role == Role::Replica
            && member.state == State::Running
            && member.streaming
            && member.balanced
            && maximum_lag.is_none_or(|most| member.lag <= most)
            && cluster.leader.as_ref().is_none_or(|leader| leader.name != **name)
    })
}
