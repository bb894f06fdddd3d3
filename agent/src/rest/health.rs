//! Health codes: which of 200 and 503 a load balancer gets, a pure function of path, query, status and time.
//!
//! Paths are matched as Patroni matches them, by substring in a fixed order, for configurations rely on it.
//!
//! One difference is deliberate: "primary" means that the right to be primary holds at this very instant *and* that
//! PostgreSQL accepts writes. Patroni says 200 from the moment the lock is won, so that a load balancer sends writes
//! to a server that is still in recovery, and until a ttl after the last renewal, whatever PostgreSQL does.
//!
//! In pause with the DCS out of reach for longer than a ttl, nobody can hold a right; there the server's own role
//! decides, as in Patroni, so that maintenance of etcd under a pause does not cut the clients off: the role of a primary that has told
//! `status` that it runs without a deadline, for any other is ended by its guard.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use surus_core::types::MonoTime;

use super::query::{self, Query};
use super::state::{NodeStatus, Position};
use crate::dcs::mode::Synchronous;

/// The code of the generic health paths.
pub(super) fn health(path: &str, query: &Query, status: &NodeStatus, now: MonoTime) -> StatusCode {
    let view = Health::of(status, now);
    let (healthy, leader_path) = view.judge(path, query);
    code(healthy && (leader_path || tags_match(query, status)))
}

/// `/liveness`: the driver is not overdue. Restarting the agent is all that a 503 is meant for, so pause is 200.
pub(super) fn liveness(status: &NodeStatus, now: MonoTime) -> StatusCode {
    let ttl = status.timing.ttl;
    let patience = if status.accepts_writes(now) { ttl } else { ttl * 2 };
    code(status.pause || now < status.next_run.plus(patience))
}

/// `/readiness`: the lock holder, or a replica that streams, is near enough, and whose agent reaches the DCS.
pub(super) fn readiness(query: &Query, status: &NodeStatus, now: MonoTime) -> StatusCode {
    if status.is_leader(now) {
        return StatusCode::OK;
    }
    let position = match query.get("mode") {
        Some("write") => Position::Received,
        _ => Position::Replayed,
    };
    let limit = query
        .get("lag")
        .and_then(query::bytes)
        .unwrap_or(status.timing.maximum_lag_on_failover);
    let ready = status.state_word(now) == "running"
        && status.replication_state(now) == Some("streaming")
        && (status.fresh_cluster(now).is_some() || status.failsafe_active)
        && status.lag(now, position).is_some_and(|lag| lag <= limit);
    code(ready)
}

/// How long the right to be primary still holds.
pub(super) fn right_remaining(status: &NodeStatus, now: MonoTime) -> Option<Duration> {
    status
        .lock_until
        .filter(|until| now < *until)
        .map(|until| until.since(now))
}

fn code(healthy: bool) -> StatusCode {
    if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

struct Health<'a> {
    status: &'a NodeStatus,
    now: MonoTime,
    running: bool,
    role: &'static str,
    leader: bool,
    primary: bool,
    standby_leader: bool,
}

impl<'a> Health<'a> {
    fn of(status: &'a NodeStatus, now: MonoTime) -> Self {
        let running = status.state_word(now) == "running";
        let role = status.role_word(now);
        let writes = status.accepts_writes(now);
        let cut_off = status.pause && status.fresh_cluster(now).is_none();
        let leader = if cut_off {
            writes && status.unfenced || role == "standby_leader"
        } else {
            status.is_leader(now)
        };
        let standby_cluster = status.standby_cluster();
        Self {
            status,
            now,
            running,
            role,
            leader,
            primary: leader && writes && !standby_cluster,
            standby_leader: leader && standby_cluster && matches!(role, "replica" | "standby_leader"),
        }
    }

    /// Whether the path is healthy, and whether it asks for a leader (then tags are not looked at).
    fn judge(&self, path: &str, query: &Query) -> (bool, bool) {
        let has = |part: &str| path.contains(part);
        let replica = || self.replica(query);
        // Reads are welcome at the lock holder in either role, so also while it is still being promoted.
        let leads = self.leader && self.running;
        let sync = |kind: Synchronous| self.status.sync_standby(self.now) == kind;
        if has("standby_leader") || has("standby-leader") {
            (self.standby_leader, true)
        } else if has("leader") {
            (self.leader, true)
        } else if path == "/" || has("master") || has("primary") || has("read-write") {
            (self.primary, true)
        } else if has("replica") {
            (replica(), false)
        } else if has("read-only") && !has("sync") && !has("quorum") {
            (leads || replica(), false)
        } else if has("health") {
            (self.running, false)
        } else if self.status.fresh_cluster(self.now).is_some() {
            let healthy = match path {
                "/sync" | "/synchronous" => sync(Synchronous::On) && replica(),
                "/quorum" => sync(Synchronous::Quorum) && replica(),
                "/async" | "/asynchronous" => sync(Synchronous::Off) && replica(),
                "/read-only-sync" | "/read-only-synchronous" => leads || sync(Synchronous::On) && replica(),
                "/read-only-quorum" => leads || sync(Synchronous::Quorum) && replica(),
                _ => false,
            };
            (healthy, false)
        } else {
            (false, false)
        }
    }

    fn replica(&self, query: &Query) -> bool {
        let streams_as_asked = query
            .get("replication_state")
            .is_none_or(|wanted| self.status.replication_state(self.now) == Some(wanted));
        // A limit that cannot be read is no limit, as Patroni has it.
        let near_enough = query.get("lag").and_then(query::bytes).is_none_or(|limit| {
            self.status
                .lag(self.now, Position::Replayed)
                .is_some_and(|lag| lag <= limit)
        });
        self.role == "replica"
            && self.running
            && !self.status.tags.noloadbalance
            && streams_as_asked
            && near_enough
    }
}

fn tags_match(query: &Query, status: &NodeStatus) -> bool {
    query.iter().all(|(key, wanted)| match key.strip_prefix("tag_") {
        None => true,
        Some(tag) => match status.tags.published.get(tag) {
            None => false,
            Some(Value::String(value)) => value == wanted,
            Some(value) => value.to_string().to_lowercase() == wanted,
        },
    })
}
