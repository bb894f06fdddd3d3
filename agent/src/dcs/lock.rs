//! The leader key: acquire, renew, release, take away; and the one lease that it and the member's key hang on.
//!
//! What a [`Lock::Held`] proves. The keep-alive (or the grant) was answered first; `sent` was read before it left. Only then a
//! transaction was sent that saw the key ours and on that very lease, and both answers carry the same raft term. A term has one
//! etcd leader, and a transaction commits only under the leader of its term, so the leader that renewed the lease was still the
//! leader afterwards: its lease table is the one that counts, and a later leader only ever extends leases. A keep-alive alone
//! could come from a leader that the others have left behind; a transaction alone does not show that the lease was extended.
//! Where the terms differ nothing is claimed and the pair is tried again at once.
//!
//! What it does not prove: that the last holder's right is over. An etcd leader that was frozen may revoke, when it thaws, leases
//! that were renewed meanwhile (etcd issue 15247; seen with 3.4.23 in `tests/etcd_lock.rs`: two holders for 0.95 s of a ttl of 1 s).
//! Whoever gets the key must also wait until the last change of `status` that it has seen is older than the last holder's ttl, and must
//! look at `status` once more after it got the key; or find that the last holder has vacated.
//!
//! Nothing here runs by itself: a lease lives as long as the core orders renewals.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use surus_core::action::{Grounds, StatusRecord};
use surus_core::input::Outcome;
use surus_core::types::{LeaseId, MonoTime, NodeName, Revision, Term};

use super::Etcd;
use super::endpoint::{Reply, Request};
use super::fault::{DcsError, Failure, Kind};
use super::pool::Work;
use super::record::status_json;
use super::snapshot::RawKey;

/// How an order of the lock lane ended, where that is certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// Ours; until the ttl after `sent`, if `status` was written.
    Held {
        /// When the keep-alive or the grant of `lease` was sent.
        sent: MonoTime,
        /// The lease that the key hangs on.
        lease: LeaseId,
        /// The raft term of both answers.
        term: Term,
        /// The store's revision of the transaction.
        revision: Revision,
        /// The revision at which `status` was written; `None` if it was not, for etcd has no space, or an earlier attempt has taken the lock.
        written: Option<Revision>,
    },
    /// Not ours, as of the transaction.
    NotHeld {
        /// Whose it is, if there is a key. May be this member's own name: then the key is of an earlier life, or the cluster has
        /// changed since the view that the order rests on; a renewal takes it over.
        holder: Option<NodeName>,
    },
    /// Given back.
    Released,
}

impl From<Lock> for Outcome {
    fn from(lock: Lock) -> Self {
        match lock {
            Lock::Held {
                sent,
                lease,
                term,
                revision,
                written,
            } => Self::Locked {
                sent,
                lease,
                term,
                revision,
                written,
            },
            Lock::NotHeld { holder } => Self::NotLocked { holder },
            Lock::Released => Self::Ok,
        }
    }
}

/// The lease of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnLease {
    id: i64,
    /// The ttl it was asked for. etcd raises a small one to its own minimum without a word.
    ttl: Duration,
}

/// The lease, seen alive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Living {
    pub(super) id: i64,
    /// When the request that shows it was sent.
    sent: MonoTime,
    /// The term of the answer.
    term: u64,
}

/// What a transaction found.
pub(super) struct Found {
    pub(super) succeeded: bool,
    pub(super) gets: Vec<Option<RawKey>>,
    pub(super) term: u64,
    pub(super) revision: i64,
}

impl Etcd {
    /// Creates the leader key if there is none and the keys of `grounds` are at those revisions, and writes `status` with it: a
    /// predecessor's `vacated` must not be taken for this reign's. `seen` is the revision of `status` that the order rests on (zero: absent;
    /// `None`: not looked at): a reign that was never seen has written a newer one, and its right may still run.
    ///
    /// # Errors
    /// [`DcsError::Unknown`] if the key may have been created.
    pub async fn acquire(
        &self,
        ttl: Duration,
        grounds: Grounds,
        seen: Option<Revision>,
        status: &StatusRecord,
        limit: Duration,
    ) -> Result<Lock, DcsError> {
        let mut work = self.pool.work(limit);
        self.try_acquire(ttl, grounds, seen, status, &mut work)
            .await
            .map_err(|failure| work.error(failure))
    }

    async fn try_acquire(
        &self,
        ttl: Duration,
        grounds: Grounds,
        seen: Option<Revision>,
        status: &StatusRecord,
        work: &mut Work,
    ) -> Result<Lock, Failure> {
        let status = status_json(status, &self.name);
        let grounds = [
            ("config", grounds.config),
            ("failover", grounds.failover),
            ("failsafe", grounds.failsafe),
            ("sync", grounds.sync),
        ];
        loop {
            let lease = self.living_lease(ttl, work).await?;
            let unchanged =
                |(key, at): (&str, Revision)| Compare::mod_revision(self.key(key), CompareOp::Equal, at.0);
            let mut conditions = vec![absent(self.key("leader"))];
            conditions.extend(grounds.map(unchanged));
            conditions.extend(self.status_at(seen));
            let txn = Txn::new()
                .when(conditions)
                .and_then(vec![
                    self.put_leader(lease.id),
                    TxnOp::put(self.key("status"), status.as_str(), None),
                ])
                .or_else(
                    ["leader", "config", "failover", "failsafe", "sync"]
                        .map(|key| get(self.key(key)))
                        .to_vec(),
                );
            let found = match self.commit(work, txn).await {
                Err(failure) if failure.kind == Kind::LeaseGone => {
                    self.forget_lease(lease.id);
                    continue;
                }
                found => found?,
            };
            let revision = |key: &Option<RawKey>| key.as_ref().map_or(0, |key| key.mod_revision);
            let unchanged = || {
                let now = found.gets.iter().skip(1).map(revision);
                now.eq(grounds.map(|(_, at)| at.0))
            };
            let leader = found.gets.first().and_then(Option::as_ref);
            // An attempt of ours that was not answered, or was answered under another term, has created it: of this order, or of one before
            // it, which may have written another `status`.
            let ours =
                leader.is_some_and(|key| key.value == self.name && key.lease == lease.id) && unchanged();
            if !found.succeeded && !ours {
                return Ok(not_held(leader));
            }
            if found.term == lease.term {
                let written = found.succeeded.then_some(found.revision);
                return Ok(lease.held(&found, written));
            }
        }
    }

    /// Keeps the lease alive, then confirms under the same term that the key is ours and hangs on it, writing `status` if that is still
    /// at `seen` (zero: absent; `None`: whatever it is). A key of ours on another lease (of an earlier life of this process, or of another ttl) is moved to this
    /// one. A `status` that has moved was written by a renewal of ours that came late, for the key is ours: it is written over, at the
    /// revision that it has now. So a renewal that comes late itself, after another was confirmed, is void.
    ///
    /// While etcd's database is full, a linearizable read in place of the transaction tells whose the lock is. `status` is not written, so nobody
    /// else sees that the lease lives on, and that gives no right.
    ///
    /// # Errors
    /// [`DcsError::Unknown`] if `status` may have been written; the lock may be ours either way.
    pub async fn renew(
        &self,
        ttl: Duration,
        seen: Option<Revision>,
        status: &StatusRecord,
        limit: Duration,
    ) -> Result<Lock, DcsError> {
        let mut work = self.pool.work(limit);
        self.try_renew(ttl, seen, status, &mut work)
            .await
            .map_err(|failure| work.error(failure))
    }

    async fn try_renew(
        &self,
        ttl: Duration,
        mut seen: Option<Revision>,
        status: &StatusRecord,
        work: &mut Work,
    ) -> Result<Lock, Failure> {
        let status = status_json(status, &self.name);
        let mut stray = None;
        loop {
            let lease = self.living_lease(ttl, work).await?;
            let hangs_on = stray.take().unwrap_or(lease.id);
            // The old lease is compared too: a move that arrives late must not undo a later one.
            let mut puts = vec![TxnOp::put(self.key("status"), status.as_str(), None)];
            if hangs_on != lease.id {
                puts.push(self.put_leader(lease.id));
            }
            let mut conditions = vec![
                self.leader_is_me(),
                Compare::lease(self.key("leader"), CompareOp::Equal, hangs_on),
            ];
            conditions.extend(self.status_at(seen));
            let txn = Txn::new()
                .when(conditions)
                .and_then(puts)
                .or_else(vec![get(self.key("leader")), get(self.key("status"))]);
            let found = match self.commit(work, txn).await {
                Err(failure) if failure.kind == Kind::NoSpace => {
                    let found = self.look(work, "leader").await?;
                    let leader = found.gets.first().and_then(Option::as_ref);
                    let Some(key) = leader.filter(|key| key.value == self.name) else {
                        return Ok(not_held(leader));
                    };
                    if key.lease != lease.id {
                        return Err(failure);
                    }
                    if found.term == lease.term {
                        return Ok(lease.held(&found, None));
                    }
                    continue;
                }
                Err(failure) if failure.kind == Kind::LeaseGone => {
                    self.forget_lease(lease.id);
                    continue;
                }
                found => found?,
            };
            if found.succeeded {
                if found.term == lease.term {
                    return Ok(lease.held(&found, Some(found.revision)));
                }
                seen = Some(Revision(found.revision));
                continue;
            }
            let leader = found.gets.first().and_then(Option::as_ref);
            let Some(key) = leader.filter(|key| key.value == self.name) else {
                return Ok(not_held(leader));
            };
            if key.lease != lease.id {
                tracing::info!(
                    from = key.lease,
                    to = lease.id,
                    "moving the leader key to this process's lease"
                );
            }
            stray = Some(key.lease);
            let written = found.gets.get(1).and_then(Option::as_ref);
            seen = Some(Revision(written.map_or(0, |status| status.mod_revision)));
        }
    }

    /// Deletes the leader key if it is ours, writing `status` with it, if `status` is still at `seen` (`None`: whatever it is):
    /// a release that arrives late must not end a reign that has been renewed since.
    ///
    /// # Errors
    /// [`DcsError::Unknown`] if the key may be gone.
    pub async fn release(
        &self,
        status: &StatusRecord,
        seen: Option<Revision>,
        limit: Duration,
    ) -> Result<Lock, DcsError> {
        let status = status_json(status, &self.name);
        let mut conditions = vec![self.leader_is_me()];
        conditions.extend(self.status_at(seen));
        let txn = Txn::new()
            .when(conditions)
            .and_then(vec![
                TxnOp::put(self.key("status"), status.as_str(), None),
                TxnOp::delete(self.key("leader"), None),
            ])
            .or_else(vec![get(self.key("leader")), get(self.key("status"))]);
        let mut work = self.pool.work(limit);
        let found = self
            .commit(&mut work, txn)
            .await
            .map_err(|failure| work.error(failure))?;
        let leader = found.gets.first().and_then(Option::as_ref);
        let written = found.gets.get(1).and_then(Option::as_ref);
        let before = work.ambiguous && written.is_some_and(|key| key.value == status);
        if found.succeeded || (before && leader.is_none()) {
            return Ok(Lock::Released);
        }
        Ok(not_held(leader))
    }

    /// Deletes the leader key that was created at that revision, if `status` is still at `seen`: a leader that has renewed keeps it, and so
    /// does the next one.
    ///
    /// # Errors
    /// [`DcsError::Unknown`] if the key may be gone.
    pub async fn end_reign(
        &self,
        created: Revision,
        seen: Revision,
        limit: Duration,
    ) -> Result<Lock, DcsError> {
        let leader = self.key("leader");
        let reign = Compare::create_revision(leader.as_str(), CompareOp::Equal, created.0);
        let mut conditions = vec![reign];
        conditions.extend(self.status_at(Some(seen)));
        let txn = Txn::new()
            .when(conditions)
            .and_then(vec![TxnOp::delete(leader.as_str(), None)])
            .or_else(vec![get(leader)]);
        let found = self.write(txn, limit).await?;
        if found.succeeded {
            return Ok(Lock::Released);
        }
        Ok(not_held(found.gets.first().and_then(Option::as_ref)))
    }

    /// The process's lease, kept alive now; a new one if there is none, if it is gone, or if `ttl` has changed.
    pub(super) async fn living_lease(&self, ttl: Duration, work: &mut Work) -> Result<Living, Failure> {
        let asked = whole_seconds(ttl);
        loop {
            let current = *self.own_lease();
            if let Some(own) = current.filter(|own| own.ttl == ttl) {
                match self.pool.call(work, &Request::KeepAlive { lease: own.id }).await {
                    Ok(answer) => {
                        if let Reply::KeepAlive { seconds } = answer.reply
                            && seconds > 0
                        {
                            return long_enough(seconds, asked).map(|()| Living {
                                id: own.id,
                                sent: answer.sent,
                                term: answer.header.term,
                            });
                        }
                    }
                    Err(failure) if failure.kind == Kind::LeaseGone => {}
                    Err(failure) => return Err(failure),
                }
                self.forget_lease(own.id);
                continue;
            }
            let answer = self.pool.call(work, &Request::Grant { seconds: asked }).await?;
            let Reply::Grant { lease, seconds } = answer.reply else {
                return Err(Failure::ambiguous("a grant was answered by something else"));
            };
            long_enough(seconds, asked)?;
            let mut own = self.own_lease();
            // The other lane may have been faster: then that lease is used, and the one granted here dies unused.
            if *own == current {
                *own = Some(OwnLease { id: lease, ttl });
                return Ok(Living {
                    id: lease,
                    sent: answer.sent,
                    term: answer.header.term,
                });
            }
        }
    }

    /// Forgets the lease, unless there is another by now.
    pub(super) fn forget_lease(&self, id: i64) {
        let mut own = self.own_lease();
        if own.is_some_and(|own| own.id == id) {
            *own = None;
        }
    }

    fn own_lease(&self) -> MutexGuard<'_, Option<OwnLease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transaction.
    pub(super) async fn commit(&self, work: &mut Work, txn: Txn) -> Result<Found, Failure> {
        let answer = self.pool.call(work, &Request::Txn(txn)).await?;
        let Reply::Txn { succeeded, gets } = answer.reply else {
            return Err(Failure::ambiguous("a transaction was answered by something else"));
        };
        Ok(Found {
            succeeded,
            gets,
            term: answer.header.term,
            revision: answer.header.revision,
        })
    }

    /// One key, read linearizably.
    pub(super) async fn look(&self, work: &mut Work, key: &str) -> Result<Found, Failure> {
        let request = Request::Range {
            key: self.key(key),
            prefix: false,
        };
        let answer = self.pool.call(work, &request).await?;
        let Reply::Range(mut keys) = answer.reply else {
            return Err(Failure::ambiguous("a read was answered by something else"));
        };
        Ok(Found {
            succeeded: false,
            gets: vec![keys.pop().map(|(_, key)| key)],
            term: answer.header.term,
            revision: answer.header.revision,
        })
    }

    /// The comparison that the leader key is ours.
    pub(super) fn leader_is_me(&self) -> Compare {
        Compare::value(self.key("leader"), CompareOp::Equal, self.name.as_str())
    }

    /// The comparison that `status` has not been written since then; none if it does not matter.
    fn status_at(&self, seen: Option<Revision>) -> Option<Compare> {
        seen.map(|seen| Compare::mod_revision(self.key("status"), CompareOp::Equal, seen.0))
    }

    fn put_leader(&self, lease: i64) -> TxnOp {
        TxnOp::put(
            self.key("leader"),
            self.name.as_str(),
            Some(PutOptions::new().with_lease(lease)),
        )
    }
}

impl Living {
    fn held(self, found: &Found, written: Option<i64>) -> Lock {
        Lock::Held {
            sent: self.sent,
            lease: LeaseId(self.id),
            term: Term(found.term),
            revision: Revision(found.revision),
            written: written.map(Revision),
        }
    }
}

/// The comparison that there is no such key.
pub(super) fn absent(key: String) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, 0)
}

/// Reads a key within a transaction.
pub(super) fn get(key: String) -> TxnOp {
    TxnOp::get(key, None)
}

fn not_held(leader: Option<&RawKey>) -> Lock {
    Lock::NotHeld {
        holder: leader.map(|key| NodeName(key.value.clone())),
    }
}

/// etcd counts whole seconds. Rounded up: the lease may outlive the right, never the other way round.
fn whole_seconds(ttl: Duration) -> i64 {
    let up = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(up.max(1)).unwrap_or(i64::MAX)
}

/// etcd may make a lease longer than asked, never shorter; if it does, no right is counted.
fn long_enough(granted: i64, asked: i64) -> Result<(), Failure> {
    if granted >= asked {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "etcd's lease lives {granted} s, but {asked} s were asked for"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_never_shorter_than_the_right() {
        assert_eq!(whole_seconds(Duration::from_secs(5)), 5);
        assert_eq!(whole_seconds(Duration::from_millis(2500)), 3);
        assert_eq!(whole_seconds(Duration::from_nanos(1)), 1);
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert!(long_enough(4, 5).is_err());
        assert!(long_enough(5, 5).is_ok());
        assert!(long_enough(7, 5).is_ok());
    }
}
