//! What must never happen, checked on the models, never on what the agents say of themselves.
//!
//! | id | what |
//! |---|---|
//! | S1 | once a timeline has acknowledged a write, no older one does; and no timeline is written by two nodes |
//! | S4 | a server acknowledges only within its right, counted from when each confirmed renewal was sent |
//! | S13 | and only under a guard whose deadline has not passed |
//! | S5 | a replica that takes the lock is within the lag limit |
//! | S6 | a promotion makes a timeline that never was, above all that were |
//! | S8 | data is discarded only where that is allowed, for a copy that is the cluster's present |
//! | S11 | a cluster's identity never changes |
//! | S12 | no panic, no wake in the past (in `world.rs`) |
//! | L1, L3 | after the last fault there is one primary, and everybody streams from it (in `fast/play.rs`) |
//! | L2 | faults shorter than the tolerance do not move the primary (in `fast/play.rs`) |

mod invariant;

use std::collections::BTreeMap;

use surus_core::Order;
use surus_core::config::Config;
use surus_core::types::{MonoTime, NodeName, SystemId};
use surus_core::view::Initialize;

use crate::clock::{MS, Time};
use crate::fast::host::{Host, Rpc};
use crate::fast::world::World;
use crate::model::etcd::single::{Etcd, Request, Response};
use crate::model::postgres::Relation;
use crate::record::Seen;

pub use invariant::{Invariant, Violation};

/// From its deadline to the last backend's death: the kill took 64 ms in the prototype, and is drawn from that.
const KILL: Time = 70 * MS;

/// What the checks have seen.
#[derive(Debug, Default)]
pub struct Checker {
    /// The first thing that must not happen and did.
    pub violation: Option<String>,
    /// Writes acknowledged.
    pub acks: u64,
    /// Promotions.
    pub promotions: u64,
    /// When the last write was acknowledged.
    pub last_ack: Time,
    timelines: BTreeMap<(SystemId, u32), usize>,
    newest: Option<((SystemId, u32), Time)>,
    identity: Option<SystemId>,
    lag: Option<u64>,
}

impl Checker {
    /// Something must not happen and did.
    pub fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// Something happened.
    pub fn see(&mut self, at: Time, node: Option<usize>, seen: &Seen) {
        match seen {
            Seen::Committed { .. } => {
                self.acks += 1;
                self.last_ack = at;
            }
            Seen::Promoted { .. } => self.promotions += 1,
            Seen::Broken { text } => {
                let who = node.map_or_else(|| "the world".to_owned(), |node| format!("n{}", node + 1));
                self.fail(format!("S12: {who} {text}"));
            }
            _ => {}
        }
    }

    /// A node's clients got a write acknowledged.
    pub fn acked(&mut self, now: Time, local: MonoTime, node: usize, hosts: &[Host]) {
        let host = &hosts[node];
        let Some(cluster) = host.pg.cluster() else { return };
        if host.unfenced {
            return;
        }
        let key = (cluster.control.system_id, cluster.log.timeline());
        match self.newest {
            Some((newest, since)) if key < newest => self.fail(format!(
                "S1: {} acknowledges on timeline {} of cluster {} at {:.3} s; timeline {} of cluster {} has acknowledged since {:.3} s",
                host.name, key.1, key.0, now as f64 / 1e9, newest.1, newest.0, since as f64 / 1e9
            )),
            Some((newest, _)) if key == newest => {}
            _ => self.newest = Some((key, now)),
        }
        let owner = *self.timelines.entry(key).or_insert(node);
        if owner != node {
            self.fail(format!(
                "S1: {} acknowledges on timeline {}, which is {}'s",
                host.name, key.1, hosts[owner].name
            ));
        }
        // In a pause no deadline holds, and it takes a moment to come back.
        if host.settings.pause || now < host.pause_changed + 3 * crate::clock::SEC {
            return;
        }
        if host.right < now {
            let late = (now - host.right) as f64 / 1e9;
            self.fail(format!(
                "S4: {} acknowledges {late:.3} s after its right, counted from when it was asked for",
                host.name
            ));
        }
        let covered = host.guard.as_ref().and_then(|guard| guard.deadline);
        match covered {
            None => self.fail(format!(
                "S13: {} acknowledges and no guard has a deadline for it",
                host.name
            )),
            Some(deadline) if deadline.plus(std::time::Duration::from_nanos(KILL)) < local => {
                self.fail(format!(
                    "S13: {} acknowledges after its guard's deadline",
                    host.name
                ));
            }
            Some(_) => {}
        }
    }

    /// A server was promoted.
    pub fn promoted(&mut self, node: usize, system_id: SystemId, timeline: u32) {
        let key = (system_id, timeline);
        let newest = self
            .timelines
            .range((system_id, 0)..=(system_id, u32::MAX))
            .next_back()
            .map(|((_, timeline), _)| *timeline);
        if newest.is_some_and(|newest| timeline <= newest) {
            self.fail(format!(
                "S6: timeline {timeline} made while {} exists",
                newest.unwrap_or(0)
            ));
        }
        self.timelines.insert(key, node);
    }

    /// A cluster was created.
    pub fn bootstrapped(&mut self, etcd: &Etcd, node: usize, system_id: SystemId) {
        if let Some(Initialize::Done(known)) = etcd.view.initialize {
            self.fail(format!(
                "S11: cluster {system_id} created beside {known} by node {node}"
            ));
        }
        self.timelines.insert((system_id, 1), node);
    }

    /// A request is about to have its effect.
    pub fn before_request(&mut self, _: Time, etcd: &Etcd, rpc: &Rpc, hosts: &[Host]) {
        self.lag = None;
        let host = &hosts[rpc.node];
        if matches!(rpc.request, Request::Lock { .. })
            && matches!(rpc.order, Order::Acquire { .. })
            && host.pg.standby()
            && let (Some(status), Some(cluster)) = (&etcd.view.status, host.pg.cluster())
        {
            self.lag = Some(status.optime.0.saturating_sub(cluster.log.inserted));
        }
    }

    /// It had its effect.
    pub fn after_request(&mut self, etcd: &Etcd, rpc: &Rpc, response: &Response) {
        if let Some(lag) = self.lag.take()
            && matches!(response, Response::Locked(..))
            && Config::new("x".into()).maximum_lag_on_failover < lag
        {
            self.fail(format!("S5: node {} took the lock {lag} bytes behind", rpc.node));
        }
        if let Some(Initialize::Done(id)) = etcd.view.initialize {
            let known = *self.identity.get_or_insert(id);
            if known != id {
                self.fail(format!(
                    "S11: the cluster's identity changed from {known} to {id}"
                ));
            }
        }
    }

    /// A data directory is about to be discarded for a copy of `source`'s.
    pub fn discard(
        &mut self,
        hosts: &[Host],
        leader: Option<&NodeName>,
        (node, source): (usize, Option<usize>),
        how: &str,
    ) {
        let host = &hosts[node];
        let Some(own) = host.pg.cluster() else { return };
        let allowed = if how == "rewound" {
            host.settings.use_pg_rewind
        } else {
            host.settings.remove_data_directory_on_diverged_timelines
        };
        if !allowed {
            self.fail(format!("S8: {} is {how} although that is not allowed", host.name));
        }
        if source == Some(node) || leader == Some(&host.name) {
            self.fail(format!("S8: {}, which leads, is {how}", host.name));
        }
        let theirs = source.and_then(|source| hosts[source].pg.cluster());
        let Some(theirs) = theirs else { return };
        let newest = self.newest.map(|(key, _)| key);
        let present = (theirs.control.system_id, theirs.log.timeline());
        let ahead = (own.control.system_id, own.log.timeline()) > present && Some(present) < newest;
        if ahead {
            self.fail(format!(
                "S8: {}, which has timeline {}, is {how} with timeline {}",
                host.name,
                own.log.timeline(),
                theirs.log.timeline()
            ));
        }
    }
}

impl World {
    /// One primary under the lock, everybody else streams from it on its timeline.
    #[must_use]
    pub fn unconverged(&self) -> Option<String> {
        let Some(key) = &self.etcd.view.leader else {
            return Some("nobody holds the lock".to_owned());
        };
        let leader = self.names.iter().position(|name| *name == key.name)?;
        let first = &self.hosts[leader].pg;
        let Some(wanted) = first.cluster().filter(|_| first.writable()) else {
            return Some(format!("{} holds the lock and does not accept writes", key.name));
        };
        for (node, host) in self.hosts.iter().enumerate() {
            if host.agent.is_none() {
                // One that lost the race to create the cluster, and has a cluster of its own.
                if host
                    .pg
                    .cluster()
                    .is_some_and(|own| own.control.system_id != wanted.control.system_id)
                {
                    continue;
                }
                return Some(format!("{} has no agent", host.name));
            }
            let follows = host
                .pg
                .probe()
                .is_ok_and(|probe| probe.receiver == Some("streaming"))
                && host.pg.cluster().is_some_and(|own| {
                    own.log.timeline() == wanted.log.timeline()
                        && matches!(wanted.log.relation(&own.log), Relation::Equal | Relation::Ahead)
                });
            if node != leader && !follows {
                let why = host
                    .agent
                    .as_ref()
                    .and_then(|agent| agent.core.explain().decision.map(ToString::to_string));
                return Some(format!(
                    "{} does not stream from {}: {}",
                    host.name,
                    key.name,
                    why.unwrap_or_default()
                ));
            }
        }
        None
    }
}
