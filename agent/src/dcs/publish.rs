//! Reads of the whole prefix, and every write but those of the leader key.
//!
//! Each write is one transaction whose repetition is harmless, or shows whether the first attempt went through: so an attempt
//! that was not answered can be repeated at the next endpoint, and the end is certain more often than the wire is.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, DeleteOptions, PutOptions, Txn, TxnOp};
use surus_core::sync::SyncKey;
use surus_core::types::{MonoTime, NodeName, Revision, SystemId};
use surus_core::view::HistoryLine;

use super::Etcd;
use super::endpoint::{Reply, Request};
use super::fault::{DcsError, Failure, Kind};
use super::lock::{Found, absent, get};
use super::parse::view;
use super::pool::Work;
use super::record::{failsafe_json, history_json, sync_json};
use super::snapshot::{RawCluster, Snapshot};

/// Whether a compare-and-swap took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// The key has the new value.
    Done,
    /// The key has changed meanwhile, and was left as it is.
    Conflict,
}

/// Who has claimed the right to create the cluster: Patroni's empty `initialize` does not tell, and a claim whose answer was lost
/// would block every node for ever.
const CLAIM: &str = "surus/claim";

/// The leader's word that it is about to stop: its name. It binds nobody; routers let new sessions wait, so that none is cut off.
pub const STOPPING: &str = "surus/stopping";

impl Etcd {
    /// Everything under the prefix, as of the returned time, when the request was sent.
    ///
    /// # Errors
    /// [`DcsError::Failed`]: a read has no effect.
    pub async fn read(&self, limit: Duration) -> Result<(MonoTime, Snapshot), DcsError> {
        let mut work = self.pool.work(limit);
        let request = Request::Range {
            key: self.prefix.clone(),
            prefix: true,
        };
        let answer = self
            .pool
            .call(&mut work, &request)
            .await
            .map_err(|failure| work.error(failure))?;
        let Reply::Range(keys) = answer.reply else {
            return Err(DcsError::Failed(
                "a read was answered by something else".to_owned(),
            ));
        };
        let raw = RawCluster {
            keys: keys
                .into_iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(&self.prefix)?.to_owned(), value)))
                .collect(),
            revision: answer.header.revision,
            term: answer.header.term,
        };
        Ok((answer.sent, self.snapshot(raw)))
    }

    /// The facts in `raw`, by the wall clock now.
    pub(super) fn snapshot(&self, raw: RawCluster) -> Snapshot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let view = view(&raw, self.clock.wall(), &known);
        let snapshot = Snapshot { view, raw };
        known.clone_from(&snapshot);
        snapshot
    }

    /// Claims the right to create the cluster.
    ///
    /// # Errors
    /// [`DcsError::Failed`] if somebody else has claimed it, or the cluster exists.
    pub async fn claim_initialize(&self, limit: Duration) -> Result<(), DcsError> {
        let txn = Txn::new()
            .when(vec![absent(self.key("initialize"))])
            .and_then(vec![
                TxnOp::put(self.key("initialize"), "", None),
                TxnOp::put(self.key(CLAIM), self.name.as_str(), None),
            ])
            .or_else(vec![get(self.key("initialize")), get(self.key(CLAIM))]);
        let found = self.write(txn, limit).await?;
        let initialize = found.gets.first().and_then(Option::as_ref);
        let claim = found.gets.get(1).and_then(Option::as_ref);
        let mine = initialize.zip(claim).is_some_and(|(initialize, claim)| {
            initialize.value.is_empty()
                && claim.value == self.name
                && claim.mod_revision == initialize.mod_revision
        });
        if found.succeeded || mine {
            return Ok(());
        }
        let by = claim.map_or("another node", |claim| claim.value.as_str());
        Err(DcsError::Failed(match initialize {
            Some(key) if key.value.is_empty() => format!("{by} is creating the cluster"),
            _ => "the cluster has been created".to_owned(),
        }))
    }

    /// Writes the cluster's identity: over anything if this node has just created it (and still leads), else only where there is
    /// none that can be read.
    ///
    /// # Errors
    /// [`DcsError::Failed`] if the key holds another identity, which is left alone, or the lock is no longer this node's.
    pub async fn write_initialize(
        &self,
        system_id: SystemId,
        bootstrapped: bool,
        limit: Duration,
    ) -> Result<(), DcsError> {
        let key = self.key("initialize");
        let puts = vec![
            TxnOp::put(key.as_str(), system_id.to_string(), None),
            TxnOp::delete(self.key(CLAIM), None),
        ];
        let mut work = self.pool.work(limit);
        let mut condition = if bootstrapped {
            vec![self.leader_is_me()]
        } else {
            vec![absent(key.clone())]
        };
        loop {
            let txn = Txn::new()
                .when(condition)
                .and_then(puts.clone())
                .or_else(vec![get(key.clone())]);
            let found = self
                .commit(&mut work, txn)
                .await
                .map_err(|failure| work.error(failure))?;
            let present = found.gets.into_iter().next().flatten();
            let written = present
                .as_ref()
                .is_some_and(|present| present.value.trim().parse() == Ok(system_id.0));
            if bootstrapped && !found.succeeded && !written {
                return Err(DcsError::Failed(format!(
                    "{key} is for the leader to write, and {} is not the leader",
                    self.name
                )));
            }
            condition = match present {
                _ if found.succeeded => return Ok(()),

                None => vec![absent(key.clone())],
                Some(present) => match present.value.trim().parse::<u64>() {
                    Ok(id) if id == system_id.0 => return Ok(()),
                    Ok(id) => {
                        return Err(DcsError::Failed(format!(
                            "{key} holds the system identifier {id}, this node's is {system_id}"
                        )));
                    }
                    Err(_) => vec![Compare::mod_revision(
                        key.as_str(),
                        CompareOp::Equal,
                        present.mod_revision,
                    )],
                },
            };
        }
    }

    /// Takes this node's claim back, if the cluster has not been created since.
    ///
    /// # Errors
    /// Any of [`DcsError`].
    pub async fn unclaim_initialize(&self, limit: Duration) -> Result<(), DcsError> {
        let txn = Txn::new()
            .when(vec![
                Compare::value(self.key("initialize"), CompareOp::Equal, ""),
                Compare::value(self.key(CLAIM), CompareOp::Equal, self.name.as_str()),
            ])
            .and_then(vec![
                TxnOp::delete(self.key("initialize"), None),
                TxnOp::delete(self.key(CLAIM), None),
            ]);
        self.write(txn, limit).await.map(drop)
    }

    /// Writes the `config` key if there is none. `Ok` either way.
    ///
    /// # Errors
    /// Any of [`DcsError`].
    pub async fn write_config(&self, value: &str, limit: Duration) -> Result<(), DcsError> {
        let txn = Txn::new()
            .when(vec![absent(self.key("config"))])
            .and_then(vec![TxnOp::put(self.key("config"), value, None)]);
        self.write(txn, limit).await.map(drop)
    }

    /// Writes this member's key on the process's lease of `ttl`, which it keeps alive (or grants). A key that is as it should be is
    /// not written again.
    ///
    /// # Errors
    /// Any of [`DcsError`].
    pub async fn write_member(&self, json: &str, ttl: Duration, limit: Duration) -> Result<(), DcsError> {
        let key = self.key(&format!("members/{}", self.name));
        let mut work = self.pool.work(limit);
        loop {
            let lease = self
                .living_lease(ttl, &mut work)
                .await
                .map_err(|failure| work.error(failure))?;
            let put = TxnOp::put(key.as_str(), json, Some(PutOptions::new().with_lease(lease.id)));
            let txn = Txn::new()
                .when(vec![
                    Compare::value(key.as_str(), CompareOp::Equal, json),
                    Compare::lease(key.as_str(), CompareOp::Equal, lease.id),
                ])
                .or_else(vec![put]);
            match self.commit(&mut work, txn).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.kind == Kind::LeaseGone => self.forget_lease(lease.id),
                Err(failure) => return Err(work.error(failure)),
            }
        }
    }

    /// Writes the `history` key, if the leader key is ours.
    ///
    /// # Errors
    /// [`DcsError::Failed`] if it is not.
    pub async fn write_history(&self, lines: &[HistoryLine], limit: Duration) -> Result<(), DcsError> {
        self.write_as_leader("history", history_json(lines), Vec::new(), limit)
            .await
    }

    /// Writes the `failsafe` key, if the leader key is ours and the list is still the one of `seen` (zero: none): a deposed
    /// leader's list that arrives late must not replace a newer one.
    ///
    /// # Errors
    /// [`DcsError::Failed`] if it is not.
    pub async fn write_failsafe(
        &self,
        members: &BTreeMap<NodeName, String>,
        seen: Revision,
        limit: Duration,
    ) -> Result<(), DcsError> {
        let unchanged = Compare::mod_revision(self.key("failsafe"), CompareOp::Equal, seen.0);
        self.write_as_leader("failsafe", failsafe_json(members), vec![unchanged], limit)
            .await
    }

    async fn write_as_leader(
        &self,
        key: &str,
        value: String,
        mut conditions: Vec<Compare>,
        limit: Duration,
    ) -> Result<(), DcsError> {
        let key = self.key(key);
        conditions.push(self.leader_is_me());
        let txn = Txn::new()
            .when(conditions)
            .and_then(vec![TxnOp::put(key.as_str(), value.as_str(), None)])
            .or_else(vec![get(key.clone())]);
        let mut work = self.pool.work(limit);
        let found = self
            .commit(&mut work, txn)
            .await
            .map_err(|failure| work.error(failure))?;
        // An attempt of ours that was not answered may have written it, and so changed its revision.
        let present = found.gets.first().and_then(Option::as_ref);
        if found.succeeded || present.is_some_and(|present| present.value == value) {
            return Ok(());
        }
        Err(self.not_the_leaders(&key, work))
    }

    /// Writes the `sync` key or, for `None`, deletes it, if the leader key is ours and it is still at `seen` (zero: absent). Returns the
    /// revision of that transaction.
    ///
    /// # Errors
    /// [`DcsError::Failed`] if this node does not lead, or the key has changed.
    pub async fn write_sync(
        &self,
        key: Option<&SyncKey>,
        seen: Revision,
        limit: Duration,
    ) -> Result<Revision, DcsError> {
        let (name, value) = (self.key("sync"), key.map(sync_json));
        // Whoever reads the list would find other members in it.
        let apart =
            |voter: &&NodeName| voter.as_str().contains(',') || voter.as_str().trim() != voter.as_str();
        if let Some(voter) = key.and_then(|key| key.voters.iter().find(apart)) {
            return Err(DcsError::Failed(format!(
                "{name} cannot list the member {voter:?}, whose name has a comma in it or blanks around it; rename it, or give it the tag nosync",
                voter = voter.as_str()
            )));
        }
        let write = match &value {
            Some(value) => TxnOp::put(name.as_str(), value.as_str(), None),
            None => TxnOp::delete(name.as_str(), None),
        };
        let unchanged = Compare::mod_revision(name.as_str(), CompareOp::Equal, seen.0);
        let txn = Txn::new()
            .when(vec![self.leader_is_me(), unchanged])
            .and_then(vec![write])
            .or_else(vec![get(name.clone())]);
        let mut work = self.pool.work(limit);
        let found = self
            .commit(&mut work, txn)
            .await
            .map_err(|failure| work.error(failure))?;
        if found.succeeded {
            return Ok(Revision(found.revision));
        }
        let present = found.gets.first().and_then(Option::as_ref);
        let at = Revision(present.map_or(found.revision, |present| present.mod_revision));
        let changed = seen != Revision(present.map_or(0, |present| present.mod_revision));
        // An attempt that was not answered has written it; or nothing tells whether it did before the key was changed again.
        if work.ambiguous && changed && present.map(|present| &present.value) == value.as_ref() {
            return Ok(at);
        }
        Err(self.not_the_leaders(&name, work))
    }

    /// A leader's write whose conditions did not hold, of which no attempt is known to have gone through.
    fn not_the_leaders(&self, key: &str, work: Work) -> DcsError {
        let text = format!(
            "{key} is for the leader to write: {} is not the leader, or the key has changed",
            self.name
        );
        if work.ambiguous {
            work.error(Failure::refused(text))
        } else {
            DcsError::Failed(text)
        }
    }

    /// Says that this node, the leader, is about to stop.
    ///
    /// # Errors
    /// [`DcsError::Failed`] if it is not the leader.
    pub async fn announce_stop(&self, limit: Duration) -> Result<(), DcsError> {
        self.write_as_leader(STOPPING, self.name.clone(), Vec::new(), limit)
            .await
    }

    /// Empties the `failover` key, if it is still at `revision`.
    ///
    /// # Errors
    /// [`DcsError::Failed`] if it has changed to another request.
    pub async fn clear_failover(&self, revision: Revision, limit: Duration) -> Result<(), DcsError> {
        let key = self.key("failover");
        match self.swap(&key, "{}", Some(revision), limit).await? {
            Swap::Done => Ok(()),
            Swap::Conflict => Err(DcsError::Failed(format!("{key} holds a newer request"))),
        }
    }

    /// Replaces the `config` key, if it is still at `revision` (zero: absent; `None`: whatever it is).
    ///
    /// # Errors
    /// Any of [`DcsError`].
    pub async fn put_config_cas(
        &self,
        value: &str,
        revision: Option<Revision>,
        limit: Duration,
    ) -> Result<Swap, DcsError> {
        self.swap(&self.key("config"), value, revision, limit).await
    }

    /// Writes the `failover` key, if it is still at `revision` (zero: absent; `None`: whatever it is).
    ///
    /// # Errors
    /// Any of [`DcsError`].
    pub async fn put_failover(
        &self,
        value: &str,
        revision: Option<Revision>,
        limit: Duration,
    ) -> Result<Swap, DcsError> {
        self.swap(&self.key("failover"), value, revision, limit).await
    }

    async fn swap(
        &self,
        key: &str,
        value: &str,
        revision: Option<Revision>,
        limit: Duration,
    ) -> Result<Swap, DcsError> {
        let condition = revision.map(|revision| Compare::mod_revision(key, CompareOp::Equal, revision.0));
        let txn = Txn::new()
            .when(condition.into_iter().collect::<Vec<_>>())
            .and_then(vec![TxnOp::put(key, value, None)])
            .or_else(vec![get(key.to_owned())]);
        let mut work = self.pool.work(limit);
        let found = self
            .commit(&mut work, txn)
            .await
            .map_err(|failure| work.error(failure))?;
        if found.succeeded {
            return Ok(Swap::Done);
        }
        let present = found.gets.first().and_then(Option::as_ref);
        if present.is_some_and(|key| key.value == value) {
            return Ok(Swap::Done);
        }
        if work.ambiguous {
            return Err(work.error(Failure::refused(format!(
                "an attempt was not answered, and {key} has changed since"
            ))));
        }
        Ok(Swap::Conflict)
    }

    /// Deletes every key of the cluster.
    ///
    /// # Errors
    /// Any of [`DcsError`].
    pub async fn delete_prefix(&self, limit: Duration) -> Result<(), DcsError> {
        let all = TxnOp::delete(self.prefix.as_str(), Some(DeleteOptions::new().with_prefix()));
        self.write(Txn::new().and_then(vec![all]), limit).await.map(drop)
    }

    /// One transaction as a whole order.
    pub(super) async fn write(&self, txn: Txn, limit: Duration) -> Result<Found, DcsError> {
        let mut work = self.pool.work(limit);
        self.commit(&mut work, txn)
            .await
            .map_err(|failure| work.error(failure))
    }
}
