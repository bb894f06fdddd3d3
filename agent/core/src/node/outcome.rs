//! What the completion of an order means for the node's memory.

use std::sync::Arc;
use std::time::Duration;

use super::{FIRST_WAIT, Node};
use crate::action::{Action, Lane, Order};
use crate::input::{OperatorOrder, Outcome};
use crate::lanes::Outstanding;
use crate::state::{AfterPromotion, Ancestry, Reached, Rewound, Writes};
use crate::types::{LeaseId, MonoTime, NodeName, Revision};
use crate::view::{ClusterView, Initialize, LeaderKey};
use crate::zoo::{Flaw, lacks};

/// How long a lane rests after a failure, and after what only a look will show.
const REST: Duration = Duration::from_millis(200);

/// So many reads in a row must be older than what was known before the store counts as another.
const RECEDED: u32 = 3;

/// How long a node that gave the lock up leaves it to others.
const AFTER_GIVING_UP: Duration = Duration::from_secs(10);

impl Node {
    pub(super) fn done(&mut self, outstanding: Outstanding, outcome: Outcome, actions: &mut Vec<Action>) {
        match outstanding.order.lane() {
            Lane::Lock => self.lock_done(&outstanding.order, outcome),
            Lane::Read => self.read_done(outcome),
            Lane::Publish => {
                if matches!(outstanding.order, Order::WriteMember(_)) {
                    self.state.writes = match (self.state.writes, &outcome) {
                        (taken @ Writes::Taken { .. }, Outcome::Ok) => taken,
                        (_, Outcome::Ok) => Writes::Taken { since: self.now },
                        _ => Writes::Refused,
                    };
                }
                self.publish_done(outstanding.order, outcome);
            }
            Lane::Postgres => self.postgres_done(outstanding.order, outcome, actions),
            Lane::Probe => match outcome {
                Outcome::Probed { at, view } => self.facts.observe_postgres(at, view),
                _ => self.lanes.rest(Lane::Probe, self.now.plus(REST)),
            },
            Lane::Upkeep => self.upkeep_done(&outstanding.order, outcome),
            Lane::Guard => {
                // What was sent before a start or a promotion ended may have reached the guard before the deadline of that, or after it.
                let sure = self.state.armed <= outstanding.since || lacks(Flaw::DeadlineUnrepeated);
                self.state.deadline = match (outstanding.order, outcome) {
                    (Order::SetDeadline(deadline), Outcome::Ok) => sure.then_some(deadline),
                    _ => {
                        self.lanes.rest(Lane::Guard, self.now.plus(REST));
                        None
                    }
                };
            }
            Lane::Synchronous => self.synchronous_done(outstanding.order, outcome),
            Lane::Failsafe => self.failsafe_done(&outstanding.order, outcome),
            Lane::Peers | Lane::Reply => {}
        }
    }

    fn lock_done(&mut self, order: &Order, outcome: Outcome) {
        let now = self.now;
        match outcome {
            Outcome::Ok if let Order::EndReign { created, .. } = order => self.reign_ended(*created),
            Outcome::Locked {
                sent,
                lease,
                term: _,
                revision,
                written,
            } => self.locked(order, sent, lease, revision, written),
            Outcome::NotLocked { holder: Some(holder) }
                if matches!(order, Order::Release { .. }) && holder == self.config.name =>
            {
                // A renewal of unknown fate came in between. The read tells what to release.
                self.state.due.read = now;
                self.lanes.rest(Lane::Lock, now.plus(REST / 4));
            }
            Outcome::NotLocked { .. } | Outcome::Ok if matches!(order, Order::Release { .. }) => {
                self.released()
            }
            Outcome::NotLocked { .. } => {
                if self.state.lease.held {
                    self.state.lost_lock();
                }
                self.state.due.read = now;
                self.lanes.rest(Lane::Lock, now.plus(REST / 4));
            }
            outcome => {
                if matches!(order, Order::Release { .. }) {
                    self.state.release_in_doubt |= !matches!(outcome, Outcome::Failed(_));
                    self.state.releasing = self.state.release_in_doubt && !lacks(Flaw::ReleaseForgotten);
                }
                // Unknown: the next answer tells. The right is what it was before.
                self.state.due.read = now;
                self.state.due.renew = now;
                self.lanes.rest(Lane::Lock, now.plus(REST));
            }
        }
    }

    fn locked(
        &mut self,
        order: &Order,
        sent: MonoTime,
        id: LeaseId,
        revision: Revision,
        written: Option<Revision>,
    ) {
        let (ttl, status, acquired) = match order {
            Order::Acquire { ttl, status, .. } => (*ttl, status, true),
            Order::Renew { ttl, status, .. } => (*ttl, status, false),
            _ => return,
        };
        if !self.state.lease.held {
            self.state.lost_lock();
            // What failed for want of a right may be tried at once under a new one.
            self.state.failure = None;
            // Who leads is not rebuilt: the wish was to make it like the leader.
            if !lacks(Flaw::LeaderRecloned) {
                self.state.reclone = None;
            }
            self.state.due.publish = self.now;
        }
        if let Some(written) = written {
            self.state.reserved = status.next;
            self.state.unfenced = status.unfenced;
            self.state.lease.confirmed = self.state.lease.confirmed.max(written);
        } else if !acquired {
            // Who waits for what `status` says must not ask for it as fast as etcd answers.
            self.lanes.rest(Lane::Lock, self.now.plus(REST));
        }
        if written.is_some() || acquired {
            self.state.told = Some(Reached {
                timeline: status.timeline,
                position: status.optime,
                forks: status.forks.clone(),
            });
        }
        // What others were told may be longer than what is wanted by now; it shortens as the right of before runs out.
        let ttl = ttl.min(self.config.ttl);
        self.state.lease.confirm(ttl, sent, id, written.is_some());
        self.facts.leaderless = None;
        if let Some(seen) = &mut self.facts.cluster {
            let view = &mut seen.value;
            let mine = view
                .leader
                .as_ref()
                .is_some_and(|key| key.name == self.config.name);
            if (acquired || !mine) && view.revision < revision {
                view.leader = Some(LeaderKey {
                    name: self.config.name.clone(),
                    lease: Some(id),
                    created: revision,
                });
            }
            view.revision = view.revision.max(revision);
            // The transaction wrote `status`: a release that follows at once must not wait for the watch to tell.
            view.status_revision = view.status_revision.max(written.unwrap_or_default());
        }
        self.state.due.renew = self.state.due.renew.max(self.now.plus(self.config.round() / 2));
    }

    fn released(&mut self) {
        let now = self.now;
        if self.state.giving_up {
            self.state.cooldown = now.plus(AFTER_GIVING_UP);
        }
        self.state.lost_lock();
        // If the lock comes back, nobody could take it.
        self.state.end_handover();
        self.state.lease.until = self.state.lease.until.min(now);
        self.state.lease.by_failsafe = false;
        self.state.due.read = now;
        self.facts.leaderless.get_or_insert(now);
        if let Some(seen) = &mut self.facts.cluster
            && seen
                .value
                .leader
                .as_ref()
                .is_some_and(|key| key.name == self.config.name)
        {
            seen.value.leader = None;
        }
    }

    /// The leader key of that reign is gone. By now there may be another's.
    fn reign_ended(&mut self, created: Revision) {
        let known = self.facts.cluster.as_mut().map(|seen| &mut seen.value);
        if let Some(view) =
            known.filter(|view| view.leader.as_ref().is_some_and(|key| key.created == created))
        {
            view.leader = None;
            self.facts.leaderless = Some(self.now);
            self.lock_is_free();
        }
        self.state.due.read = self.now;
    }

    fn read_done(&mut self, outcome: Outcome) {
        if let Outcome::Read { sent, view } = outcome {
            self.facts.read = self.facts.read.max(Some(sent));
            if self.receded(&view) {
                self.start_over();
            }
            self.observe_cluster(view);
        } else {
            self.lanes.rest(Lane::Read, self.now.plus(REST));
        }
    }

    /// The store's history has been replaced by an older one: it was restored from a backup, or made anew under the same addresses.
    ///
    /// A linearizable read is never older than what was known when it was sent. One that is can be a fault of a member that was frozen; several
    /// in a row, over two lifetimes of the lock, are not.
    fn receded(&mut self, view: &ClusterView) -> bool {
        if self.state.floor <= view.revision {
            self.state.receded = None;
            return false;
        }
        let (count, since) = self.state.receded.get_or_insert((0, self.now));
        *count += 1;
        RECEDED <= *count && self.config.ttl * 2 <= self.now.since(*since)
    }

    /// Forgets all that rests on revisions of a history that is gone. Rights in time stay what they are: this node's own runs on, and what is seen
    /// first counts as a renewal by another.
    fn start_over(&mut self) {
        if self.state.lease.held {
            self.state.lost_lock();
        }
        self.state.lease.confirmed = Revision(0);
        self.state.receded = None;
        self.state.claimed = false;
        self.state.refused = None;
        self.state.ancestry = None;
        self.state.failsafe_sent = None;
        self.state.nudged = None;
        self.state.rebuilt = None;
        self.state.published = None;
        if let Some(promise) = &mut self.state.promise {
            promise.status = None;
        }
        self.facts.start_over();
    }

    fn publish_done(&mut self, order: Order, outcome: Outcome) {
        let now = self.now;
        if outcome != Outcome::Ok {
            self.state.due.read = now;
            self.lanes.rest(Lane::Publish, now.plus(REST));
            return;
        }
        let view = self.facts.cluster.as_mut().map(|seen| &mut seen.value);
        match order {
            Order::ClaimInitialize => {
                self.state.claimed = true;
                self.state.due.read = now;
            }
            Order::WriteInitialize { system_id, .. } => {
                self.state.created = None;
                if let Some(view) = view {
                    view.initialize = Some(Initialize::Done(system_id));
                }
            }
            Order::UnclaimInitialize => self.state.claimed = false,
            Order::WriteMember(record) => self.state.published = Some(record),
            Order::WriteHistory(history) => {
                if let Some(view) = view {
                    view.history = Arc::new(history);
                }
            }
            Order::ClearFailover(_) => {
                if let Some(view) = view {
                    view.failover = None;
                }
            }
            Order::WriteConfig | Order::WriteFailsafe { .. } => self.state.due.read = now,
            _ => {}
        }
    }

    fn postgres_done(&mut self, order: Order, outcome: Outcome, actions: &mut Vec<Action>) {
        let now = self.now;
        self.state.settled = now;
        self.state.due.probe = now;
        self.state.due.publish = now;
        let arms = matches!(
            order,
            Order::Promote { .. }
                | Order::StartPrimary { .. }
                | Order::Bootstrap { .. }
                | Order::Restart { .. }
                | Order::StartReplica { .. }
        );
        if arms && !lacks(Flaw::DeadlineUnrepeated) {
            // The guard heard a deadline from this order, older perhaps than the last one sent.
            self.state.deadline = None;
            self.state.armed = now;
        }
        self.answer(&order, &outcome, actions);
        match outcome {
            Outcome::Failed(ref text) | Outcome::Unknown(ref text) => {
                let text = text.clone();
                let unknown = matches!(outcome, Outcome::Unknown(_)) && !lacks(Flaw::UnknownPromotion);
                match &order {
                    Order::Promote { .. } => {
                        self.state.giving_up = true;
                        self.state.unsure &= unknown || self.state.unsure_before;
                    }
                    Order::StartPrimary { .. } => self.state.failed_starts += 1,
                    Order::BaseBackup { .. } => self.state.reclone = None,
                    Order::Restart {
                        guard_until: None, ..
                    } => self.state.nudged = None,
                    _ => {}
                }
                // A failed stop is repeated by the rule that wants it, at its own pace.
                if !matches!(order, Order::Stop { .. }) {
                    self.state.failed(now, order, text, FIRST_WAIT);
                }
                return;
            }
            Outcome::Refused(text) => {
                if matches!(order, Order::Promote { .. }) {
                    self.state.unsure &= self.state.unsure_before;
                }
                if !matches!(order, Order::Stop { .. }) {
                    self.state.failed(now, order, text, REST);
                }
                return;
            }
            Outcome::Stopped { checkpoint } => {
                self.facts.observe_exit(now);
                if let Some(handover) = &mut self.state.handover {
                    handover.stopped = Some((checkpoint, now));
                    self.state.due.peers = now;
                }
                return;
            }
            Outcome::Bootstrapped { system_id } => {
                self.state.created = Some(system_id);
                self.state.stood = None;
                self.facts.observe_exit(now);
            }
            Outcome::Ancestry { timeline, history } => {
                let leader = self.facts.view().and_then(|view| view.leader.as_ref());
                let leader = leader.filter(
                    |key| matches!(&order, Order::CompareHistory { leader } if leader.name == key.name || lacks(Flaw::FormerHistory)),
                );
                self.state.ancestry = leader.map(|key| Ancestry {
                    leader: key.name.clone(),
                    created: key.created,
                    timeline,
                    history,
                });
            }
            _ => match &order {
                Order::Promote { .. } => {
                    self.state.reigned = true;
                    self.state.checkpoint = AfterPromotion::Wanted;
                }
                Order::Restart { .. } => self.state.restarted = now,
                Order::BaseBackup { .. } => {
                    self.state.reclone = None;
                    self.state.ancestry = None;
                    self.state.rewound = None;
                    self.state.stood = None;
                }
                Order::Rewind { .. } => {
                    self.state.stood = None;
                    self.rewound();
                }
                // Whatever was to become of the last one, this one is a replica.
                Order::StartReplica { .. } => {
                    self.state.unsure = false;
                    self.state.begun_as_replica = true;
                }
                _ => {}
            },
        }
        // Whether a start succeeded shows only when PostgreSQL serves.
        let open_end = matches!(
            order,
            Order::CompareHistory { .. } | Order::StartPrimary { .. } | Order::StartReplica { .. }
        );
        if !open_end {
            self.state.failure = None;
        }
    }

    fn rewound(&mut self) {
        let leader = self.facts.view().and_then(|view| view.leader.as_ref());
        let reign = leader.map_or(Revision(0), |key| key.created);
        let last = self.now;
        let before = self.state.rewound.filter(|before| before.reign == reign);
        let first = before.map_or(last, |before| before.first);
        self.state.rewound = Some(Rewound { reign, first, last });
    }

    /// Answers the operator who waits for this order.
    fn answer(&mut self, order: &Order, outcome: &Outcome, actions: &mut Vec<Action>) {
        let Some((request, asked)) = self.state.asked.clone() else {
            return;
        };
        if asked != OperatorOrder::Restart || !matches!(order, Order::Restart { .. } | Order::Stop { .. }) {
            return;
        }
        let (ok, text) = match (order, outcome) {
            (Order::Restart { .. }, Outcome::Ok) => (true, "restarted successfully".to_owned()),
            (Order::Restart { .. }, Outcome::Failed(why) | Outcome::Unknown(why) | Outcome::Refused(why)) => {
                (false, format!("restart failed: {why}"))
            }
            _ => (
                false,
                "restart failed: PostgreSQL was stopped meanwhile".to_owned(),
            ),
        };
        self.state.asked = None;
        self.state.leaving = self.state.shutdown;
        self.give(Order::Reply { request, ok, text }, actions);
    }

    fn upkeep_done(&mut self, order: &Order, outcome: Outcome) {
        if outcome != Outcome::Ok {
            self.lanes.rest(Lane::Upkeep, self.now.plus(self.config.round()));
        } else if matches!(order, Order::Checkpoint) {
            self.state.checkpoint = AfterPromotion::Made;
            self.state.due.publish = self.now;
        } else if let Order::SyncSlots { ensure, drop } = order {
            let known = self.facts.server().map(|server| &server.slots);
            let made = |slot| known.is_none_or(|known| !known.contains_key(slot));
            if !drop.is_empty() || ensure.keys().any(made) {
                // Until a look shows it they seem to be missing still, and who comes just after another needs a slot as well.
                self.state.due.probe = self.now;
                self.lanes.rest(Lane::Upkeep, self.now.plus(REST));
            }
        }
    }

    fn synchronous_done(&mut self, order: Order, outcome: Outcome) {
        let now = self.now;
        match (order, outcome) {
            (Order::OpenGate, Outcome::Ok) => {
                self.state.opened = now;
                self.state.due.probe = now;
            }
            (Order::SetSynchronous { names }, Outcome::Ok) => {
                self.state.sync.set(names.unwrap_or_default(), now);
                self.state.due.probe = now;
            }
            (Order::WriteSync { key, .. }, Outcome::Written { revision }) => {
                self.state.sync_in_doubt = false;
                if let Some(seen) = &mut self.facts.cluster {
                    let view = &mut seen.value;
                    view.sync_revision = if key.is_some() { revision } else { Revision(0) };
                    view.sync = key.map(Arc::new);
                    view.revision = view.revision.max(revision);
                }
            }
            (order, outcome) => {
                if matches!(order, Order::WriteSync { .. }) && !matches!(outcome, Outcome::Failed(_)) {
                    self.state.sync_in_doubt = true;
                }
                self.state.due.read = now;
                self.state.due.probe = now;
                self.lanes.rest(Lane::Synchronous, now.plus(REST));
            }
        }
    }

    /// A failsafe round counts only if every member that was asked, and every one that may have come onto the list since, granted.
    fn failsafe_done(&mut self, order: &Order, outcome: Outcome) {
        let (Order::AskFailsafe { voters: asked, ttl }, Outcome::Failsafe { sent, granted, .. }) =
            (order, outcome)
        else {
            return;
        };
        let required = self.context().failsafe_voters();
        let all = |names: std::collections::btree_map::Keys<'_, NodeName, String>| {
            let (asked, gave) = (names.len(), names.filter(|name| granted.contains(*name)).count());
            gave == asked || lacks(Flaw::FailsafeByMajority) && asked <= 2 * gave
        };
        let in_time = self.state.lease.valid(self.now);
        if in_time && all(asked.keys()) && required.is_some_and(|required| all(required.keys())) {
            self.state.lease.granted(&self.config, sent, *ttl);
            self.state.granted = self.now;
        }
    }
}
