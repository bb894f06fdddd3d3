//! What one node knows: the fold of all inputs. It takes no decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::lease::ForeignRight;
use crate::sync::SyncKey;
use crate::types::{MonoTime, NodeName, Revision};
use crate::view::{
    ClusterView, ControlData, DataDir, Member, PeerStatus, PostgresView, Process, Seen, Server,
};
use crate::zoo::{Flaw, lacks};

/// How long a member whose key vanished is remembered, and stays on the failsafe list.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(10);

/// Members are asked together, and one that does not answer is heard of last.
const LATELY: Duration = Duration::from_secs(1);

/// Everything the node has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The DCS, newest revision known; `at` is when it became known.
    pub cluster: Option<Seen<ClusterView>>,
    /// When the last linearizable read that was answered had been sent.
    pub read: Option<MonoTime>,
    /// PostgreSQL, as last looked at.
    pub postgres: Option<Seen<PostgresView>>,
    /// The other members, as last asked.
    pub peers: BTreeMap<NodeName, Peer>,
    /// The last leader's right.
    pub foreign: ForeignRight,
    /// Since when there is no leader key; if a reign has come and gone unseen, since that became known.
    pub leaderless: Option<MonoTime>,
    /// When the keys of members vanished that have none now.
    pub vanished: BTreeMap<NodeName, MonoTime>,
    /// The wish in the `failover` key, and since when it is known.
    pub wished: Option<(Revision, MonoTime)>,
    /// The last leader.
    pub led: Option<NodeName>,
    /// Whoever led last is a member of Patroni, which reserves no timelines.
    pub led_by_patroni: bool,
    /// When the postmaster was last seen to have ended.
    pub exited: Option<MonoTime>,
}

/// What is known of another member from asking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// When it was last asked.
    pub asked: MonoTime,
    /// Its answer to that; `None`: none within the time limit.
    pub status: Option<PeerStatus>,
    /// Another member had answered when it was asked, or shortly before: if it did not, that is for its own reasons.
    pub vouched: bool,
}

impl Facts {
    /// Takes in a view of the DCS that became known at `now`. An older revision than the known one is ignored.
    pub fn observe_cluster(&mut self, config: &Config, now: MonoTime, view: ClusterView) {
        if self
            .cluster
            .as_ref()
            .is_some_and(|known| view.revision < known.value.revision)
            && !lacks(Flaw::OldViewTaken)
        {
            return;
        }
        self.foreign.observe(config, &config.name, &view, now);
        // Only leaders write `status`: there was one in between.
        let known = self.cluster.as_ref().map(|known| known.value.status_revision);
        let reigned = known.is_some_and(|known| known != view.status_revision);
        self.leaderless = match (&view.leader, self.leaderless) {
            (Some(_), _) => None,
            (None, Some(since)) if !reigned => Some(since),
            (None, _) => Some(now),
        };
        let known = self.wished;
        self.wished = view.failover.as_ref().map(|key| match known {
            Some(wish) if wish.0 == key.revision => wish,
            _ => (key.revision, now),
        });
        self.miss(&view, now);
        self.cluster = Some(Seen { value: view, at: now });
    }

    /// Notes whose keys have vanished.
    fn miss(&mut self, view: &ClusterView, now: MonoTime) {
        if self.cluster.is_none() {
            // Who is named there and has no key may have lost it the moment before.
            let named = view.failsafe.iter().flat_map(|list| list.keys());
            self.vanished.extend(named.map(|name| (name.clone(), now)));
        }
        if let Some(known) = &self.cluster {
            let gone = |name: &&NodeName| !view.members.contains_key(*name);
            for name in known.value.members.keys().filter(gone) {
                self.vanished.insert(name.clone(), now);
            }
        }
        self.vanished
            .retain(|name, at| now < at.plus(REMEMBERED) && !view.members.contains_key(name));
        if let Some(leader) = &view.leader {
            self.led = Some(leader.name.clone());
            if let Some(member) = view.members.get(&leader.name) {
                self.led_by_patroni = !member.surus;
            }
        }
    }

    /// The members whose keys vanished at `since` or later, and when they did.
    pub fn missing(&self, since: MonoTime) -> impl Iterator<Item = (&NodeName, MonoTime)> {
        let gone = self.vanished.iter().map(|(name, at)| (name, *at));
        gone.filter(move |(_, at)| since <= *at)
    }

    /// This member's key vanished at `since` or later.
    pub(crate) fn vanished_since(&self, name: &NodeName, since: MonoTime) -> bool {
        self.vanished.get(name).is_some_and(|at| since <= *at)
    }

    /// What is known of the DCS is of a history that is gone. The last leader's right is not: it may run on.
    pub fn start_over(&mut self) {
        self.cluster = None;
        self.leaderless = None;
        self.foreign.start_over();
    }

    /// Takes in a look at PostgreSQL that began at `at`.
    pub fn observe_postgres(&mut self, at: MonoTime, view: PostgresView) {
        // A look that began before the postmaster ended does not show the present.
        let outdated = self
            .exited
            .is_some_and(|exited| at < exited && view.process != Process::Absent);
        let older = self.postgres.as_ref().is_some_and(|known| at < known.at);
        if !outdated && !older || lacks(Flaw::OldLookTaken) {
            self.postgres = Some(Seen { value: view, at });
        }
    }

    /// The postmaster ended, and nothing of it is left.
    pub fn observe_exit(&mut self, now: MonoTime) {
        self.exited = Some(now);
        if let Some(postgres) = &mut self.postgres {
            postgres.value.process = Process::Absent;
        }
    }

    /// Takes in a peer's answer.
    pub fn observe_peer(&mut self, name: NodeName, asked: MonoTime, status: Option<PeerStatus>) {
        let newer = self.peers.get(&name).is_none_or(|known| known.asked <= asked);
        if newer || lacks(Flaw::OldPeerTaken) {
            let lately = |peer: &Peer| peer.status.is_some() && asked <= peer.asked.plus(LATELY);
            let mut others = self.peers.iter().filter(|(other, _)| **other != name);
            let vouched = others.any(|(_, peer)| lately(peer));
            let peer = Peer {
                asked,
                status,
                vouched,
            };
            self.peers.insert(name, peer);
        }
    }

    /// The DCS as last known.
    #[must_use]
    pub fn view(&self) -> Option<&ClusterView> {
        self.cluster.as_ref().map(|seen| &seen.value)
    }

    /// The server, if it answers. One whose data directory is not made to its end, a cluster in the making, is nobody's yet: it may be
    /// given up for another, so nothing is said of it and nothing led by it.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        match (self.process()?, self.data()?) {
            (Process::Running(server), data)
                if !matches!(data, DataDir::Incomplete(_)) || lacks(Flaw::HalfMadeLeads) =>
            {
                Some(server)
            }
            _ => None,
        }
    }

    /// The server process.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.postgres.as_ref().map(|seen| &seen.value.process)
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> Option<&DataDir> {
        self.postgres.as_ref().map(|seen| &seen.value.data)
    }

    /// What the control file says, of a complete data directory.
    #[must_use]
    pub fn control(&self) -> Option<&ControlData> {
        match self.data() {
            Some(DataDir::Present(control)) => Some(control),
            _ => None,
        }
    }

    /// PostgreSQL accepts writes, or may begin to without a further order.
    #[must_use]
    pub fn may_write(&self) -> bool {
        match self.process() {
            Some(Process::Running(server)) => server.is_primary(),
            Some(Process::Starting { as_primary }) => *as_primary,
            Some(Process::Unresponsive { may_write }) => *may_write,
            Some(Process::Absent) | None => false,
        }
    }

    /// A postmaster is there, and did not answer when it was last asked.
    #[must_use]
    pub fn unresponsive(&self) -> bool {
        matches!(self.process(), Some(Process::Unresponsive { .. }))
    }

    /// Who holds the lock, as far as known.
    #[must_use]
    pub fn leader(&self) -> Option<&NodeName> {
        self.view()?.leader.as_ref().map(|key| &key.name)
    }

    /// The `sync` key.
    #[must_use]
    pub fn sync_key(&self) -> Option<&SyncKey> {
        self.view()?.sync.as_deref()
    }

    /// A member's key.
    #[must_use]
    pub fn member(&self, name: &NodeName) -> Option<&Member> {
        self.view()?.members.get(name).map(Arc::as_ref)
    }

    /// The members other than `me`.
    pub fn others<'a>(
        &'a self,
        me: &'a NodeName,
    ) -> impl Iterator<Item = (&'a NodeName, &'a Member)> + Clone {
        self.view()
            .into_iter()
            .flat_map(|view| &view.members)
            .map(|(name, member)| (name, member.as_ref()))
            .filter(move |(name, _)| *name != me)
    }
}
