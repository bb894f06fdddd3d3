//! When leases expire: known to a leader alone, and to each by its own count. All leases live anew when a leader takes over
//! (B-097); one that has been left behind goes on counting (B-095) and renewing (B-096).

use std::collections::BTreeMap;

use super::api::LeaseId;
use crate::clock::{MS, SEC, Time};

/// How often a leader looks for leases that have expired.
const SWEEP: Time = 500 * MS;

/// A lease as a leader counts it.
#[derive(Debug, Clone, Copy)]
struct Counted {
    ttl: Time,
    expires: Time,
}

/// A leader's count.
#[derive(Debug, Clone)]
pub(super) struct Lessor {
    leases: BTreeMap<LeaseId, Counted>,
    /// When it was promoted: it looks every half second from then on.
    since: Time,
}

impl Lessor {
    /// Promoted now: all leases live anew, and for the extension besides.
    pub(super) fn promoted(now: Time, leases: impl Iterator<Item = (LeaseId, i64)>, extension: Time) -> Self {
        let mut lessor = Self {
            leases: BTreeMap::new(),
            since: now,
        };
        for (id, ttl) in leases {
            lessor.grant(now, id, ttl);
            if let Some(lease) = lessor.leases.get_mut(&id) {
                lease.expires += extension;
            }
        }
        lessor
    }

    pub(super) fn grant(&mut self, now: Time, id: LeaseId, seconds: i64) {
        let ttl = u64::try_from(seconds).unwrap_or(0).saturating_mul(SEC);
        let expires = now.saturating_add(ttl);
        self.leases.insert(id, Counted { ttl, expires });
    }

    pub(super) fn revoke(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Whether there is one, and whether it has expired: then it must be waited for its end.
    pub(super) fn expired(&self, now: Time, id: LeaseId) -> Option<bool> {
        self.leases.get(&id).map(|lease| lease.expires <= now)
    }

    /// It lives anew; its ttl in seconds.
    pub(super) fn renew(&mut self, now: Time, id: LeaseId) -> i64 {
        self.leases.get_mut(&id).map_or(0, |lease| {
            lease.expires = now.saturating_add(lease.ttl);
            i64::try_from(lease.ttl / SEC).unwrap_or(i64::MAX)
        })
    }

    /// Whole seconds left, and granted.
    pub(super) fn remaining(&self, now: Time, id: LeaseId) -> Option<(i64, i64)> {
        let lease = self.leases.get(&id)?;
        let left = lease.expires.saturating_sub(now) / SEC;
        Some((
            i64::try_from(left).unwrap_or(i64::MAX),
            i64::try_from(lease.ttl / SEC).unwrap_or(i64::MAX),
        ))
    }

    /// All expire so much later.
    pub(super) fn prolong(&mut self, by: Time) {
        for lease in self.leases.values_mut() {
            lease.expires = lease.expires.saturating_add(by);
        }
    }

    /// Those that have expired.
    pub(super) fn overdue(&self, now: Time) -> Vec<LeaseId> {
        let overdue = self.leases.iter().filter(|(_, lease)| lease.expires <= now);
        overdue.map(|(id, _)| *id).collect()
    }

    /// The first look that will find one.
    pub(super) fn next_sweep(&self, after: Time) -> Time {
        let Some(first) = self.leases.values().map(|lease| lease.expires).min() else {
            return Time::MAX;
        };
        let from = first.max(after);
        let looks = from.saturating_sub(self.since).div_ceil(SWEEP);
        self.since.saturating_add(looks.saturating_mul(SWEEP))
    }
}
