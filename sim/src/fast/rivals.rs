//! What else was possible when the lock changes hands: whether somebody with more could have had it, whether anybody has what its holder
//! wrote last. Agents do not know this, or only in part; the record is told of it, and checkers judge.
//!
//! What is told is certain: a rival counts only if everything between it and the taker, and between it and etcd, has been quiet for
//! [`QUIET`], so that its answer must have been heard.

use std::collections::BTreeSet;

use surus_core::action::StopMode;
use surus_core::view::Process;
use surus_core::{Action, Order};

use crate::check;
use crate::clock::{MS, SEC, Time};
use crate::fast::world::World;
use crate::net::Place;
use crate::record::Seen;

/// For so long nothing has befallen a rival: longer than its failure to answer counts without asking again (`DEAD_FOR`, 5 s), with the order
/// to take the lock that follows.
const QUIET: Time = 6 * SEC;

/// For so long nobody has written: what was on its way to the replicas is there.
const SILENT: Time = 2 * SEC;

/// For so long a node that has stopped waits for a standby, less a reserve.
const WAITS: Time = 4500 * MS;

/// How long a node that gave the lock up leaves it to others, with a reserve.
const GAVE_UP: Time = 12 * SEC;

/// What the world remembers of a node for this.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rivalry {
    /// Who could have been elected as well and has more, as the order to take the lock began.
    better: BTreeSet<usize>,
    /// When it granted last.
    pub(crate) granted: Option<Time>,
    /// When it gave the lock back last.
    released: Option<Time>,
    /// When it began to stream last: it may have caught up since it was asked.
    pub(crate) streamed: Option<Time>,
    /// When its settings changed last.
    pub(crate) configured: Option<Time>,
    /// It stops to hand over, and some standby streamed when that began; when it had stopped.
    hands_over: Option<Option<Time>>,
    /// When its data were given up for another's last: it may have had everything before, and said so.
    pub(crate) discarded: Option<Time>,
    /// It gives the lock back after that, and nobody had all that it wrote, and it did not wait, when it gave the order.
    unsent: bool,
}

impl World {
    /// An order begins.
    pub(crate) fn rivalry_begins(&mut self, node: usize, action: &Action) {
        match &action.order {
            Order::Acquire { .. } => {
                let better = self.rivals(node);
                self.hosts[node].rivalry.better = better;
            }
            Order::Stop {
                mode: StopMode::Fast { .. },
                checkpoint_first: true,
            } => {
                let agent = self.hosts[node].agent.as_ref();
                let streamed = agent.is_some_and(|agent| {
                    let server = agent.core.explain().facts.server();
                    server.is_some_and(|server| !server.standbys.is_empty())
                });
                self.hosts[node].rivalry.hands_over = streamed.then_some(None);
            }
            Order::Stop { .. }
            | Order::StartPrimary { .. }
            | Order::StartReplica { .. }
            | Order::Promote { .. } => {
                self.hosts[node].rivalry.hands_over = None;
            }
            Order::Release { .. } => {
                let unsent = self.unsent(node).unwrap_or(false);
                self.hosts[node].rivalry.unsent = unsent;
            }
            _ => {}
        }
    }

    /// An agent begins: it hands nothing over yet.
    pub(crate) fn rivalry_anew(&mut self, node: usize) {
        let rivalry = &mut self.hosts[node].rivalry;
        (rivalry.hands_over, rivalry.unsent) = (None, false);
    }

    /// A server has been stopped by its agent.
    pub(crate) fn rivalry_stopped(&mut self, node: usize) {
        let now = self.now;
        if let Some(stopped) = &mut self.hosts[node].rivalry.hands_over {
            stopped.get_or_insert(now);
        }
    }

    /// The node takes the lock: whoever could have had it, then and now, and has more.
    pub(crate) fn outdone(&self, node: usize) -> Option<Seen> {
        let better = &self.hosts[node].rivalry.better;
        if better.is_empty() {
            return None;
        }
        let by = self.rivals(node).intersection(better).next().copied()?;
        let position = |node: usize| self.peer_status(node)?.position;
        let bytes = position(by)?.ahead_of(position(node)?);
        Some(Seen::Outdone { by, bytes })
    }

    /// The node gives the lock back: nobody had all that it wrote when it decided to, and it did not wait for that.
    pub(crate) fn left_unsent(&mut self, node: usize) -> Option<Seen> {
        let rivalry = &mut self.hosts[node].rivalry;
        rivalry.released = Some(self.now);
        rivalry.hands_over = None;
        std::mem::take(&mut rivalry.unsent).then_some(Seen::LeftUnsent)
    }

    fn unsent(&self, node: usize) -> Option<bool> {
        let stopped = self.hosts[node].rivalry.hands_over??;
        let control = &self.hosts[node].pg.cluster()?.control;
        let missing = self
            .alone(node)
            .is_some_and(|shared| shared.0 <= control.checkpoint);
        let emptied = self
            .hosts
            .iter()
            .any(|host| Some(stopped) <= host.rivalry.discarded);
        Some(control.clean() && missing && !emptied && self.now < stopped + WAITS)
    }

    /// Who could have been elected as well as `taker`, and has more.
    fn rivals(&self, taker: usize) -> BTreeSet<usize> {
        let (now, scene) = (self.now, self.record.checker.scene());
        let ttl = |node: usize| self.hosts[node].settings.ttl * SEC;
        let written = |member: &check::scene::Member| {
            member.is_primary() || member.primary_until.is_some_and(|until| now <= until + SILENT)
        };
        // The end of the faults ends what the hosts remember of them.
        let faults = scene.healed.is_some_and(|healed| now <= healed + QUIET);
        let patient = scene.leaderless.is_none_or(|since| now < since + ttl(taker));
        let quiet = !scene.members.iter().any(written) && scene.failover.is_none() && patient && !faults;
        if !quiet || !self.undisturbed(taker) {
            return BTreeSet::new();
        }
        let Some(own) = self.peer_status(taker).filter(|own| !own.primary) else {
            return BTreeSet::new();
        };
        let since = now.saturating_sub(QUIET);
        // What they wrote last may still be on its way to one that is slow to reach.
        let wrote = |node: &usize| scene.member(*node).and_then(|member| member.primary_until) >= Some(since);
        let writers: Vec<usize> = (0..self.hosts.len()).filter(wrote).collect();
        let better = |rival: &usize| {
            let rival = *rival;
            let memory = &self.hosts[rival].rivalry;
            let caught_up = memory.streamed.is_none_or(|at| at + QUIET < now);
            let free = caught_up
                && memory.granted.is_none_or(|at| at + 2 * ttl(rival) + QUIET < now)
                && memory.released.is_none_or(|at| at + GAVE_UP + QUIET < now);
            let here = Place::Node(rival);
            let heard = self.net.calm(since, Place::Node(taker), here)
                && (0..self.etcd.members()).all(|member| self.net.calm(since, here, Place::Etcd(member)))
                && writers
                    .iter()
                    .all(|writer| self.net.calm(since, Place::Node(*writer), here));
            if rival == taker || !free || !heard || !self.undisturbed(rival) {
                return false;
            }
            self.peer_status(rival).is_some_and(|theirs| {
                let fit = theirs.running && !theirs.primary && theirs.can_take_lock == Some(true);
                fit && theirs.timeline == own.timeline && own.position < theirs.position
            })
        };
        (0..self.hosts.len()).filter(better).collect()
    }

    /// Nothing has befallen the node, its agent or its server lately.
    fn undisturbed(&self, node: usize) -> bool {
        let (now, host) = (self.now, &self.hosts[node]);
        let long = |since: Time| since + QUIET < now;
        let Some(member) = self.record.checker.scene().member(node) else {
            return false;
        };
        let stands = member.process == check::scene::Process::Up { primary: false };
        let served = matches!(
            self.look(node, &mut host.memory.clone()).process,
            Process::Running(_)
        );
        stands
            && served
            && member.since.is_some_and(|since| long(since.at))
            && member.agent
            && !member.frozen
            && !member.host_frozen
            && !member.hung
            && long(member.agent_since)
            && member.woke.is_none_or(long)
            && member.paused.is_none()
            && host.rivalry.configured.is_none_or(long)
            && host.mishaps.is_empty()
            && host.troubles.is_empty()
            && long(host.starved.0)
            && long(host.deaf)
            && host.pinned.is_none()
            && self.etcd.slow.iter().all(|(until, _)| long(*until))
    }
}
