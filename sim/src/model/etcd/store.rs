//! Keys with all their revisions: reads of any of them, writes, transactions, compaction. What every member will have applied in
//! the end; a member that lags is served from the past.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::api::{
    Compare, Delete, Ending, Error, KeyValue, Keys, LeaseId, Op, Put, Range, Relation, Response, Revision,
    Target, Txn,
};

/// The most steps of a transaction, or conditions, or steps of a branch: etcd's `--max-txn-ops`.
const MOST_OPS: usize = 128;

/// A change, as a watch needs it: which key, at which revision.
#[derive(Debug, Clone)]
pub(super) struct Change<K> {
    pub(super) revision: Revision,
    pub(super) key: K,
    pub(super) how: Ending,
}

/// A lease, as all members know it; when it expires only the leader knows.
#[derive(Debug, Clone)]
pub(super) struct Lease<K> {
    pub(super) ttl: i64,
    pub(super) keys: BTreeSet<K>,
}

/// The state that the log makes.
#[derive(Debug, Clone)]
pub(super) struct Store<K, V> {
    /// The present revision. An empty store is at one.
    pub(super) revision: Revision,
    /// What was before this is gone.
    pub(super) compacted: Revision,
    /// The alarm: no space.
    pub(super) full: bool,
    pub(super) leases: BTreeMap<LeaseId, Lease<K>>,
    /// All versions of each key, oldest first; a deletion is one without a value.
    keys: BTreeMap<K, Vec<KeyValue<K, V>>>,
    /// All changes since the compaction, oldest first.
    changes: Vec<Change<K>>,
}

impl<K: Ord + Clone, V: Clone + PartialOrd> Store<K, V> {
    pub(super) fn new() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            full: false,
            leases: BTreeMap::new(),
            keys: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// A key at a revision.
    pub(super) fn get(&self, key: &K, at: Revision) -> Option<&KeyValue<K, V>> {
        living(self.keys.get(key)?, at)
    }

    /// A key right after and right before a revision that changed it.
    pub(super) fn change(&self, key: &K, at: Revision) -> [Option<&KeyValue<K, V>>; 2] {
        let Some(versions) = self.keys.get(key) else {
            return [None, None];
        };
        let after = versions.partition_point(|kv| kv.modified <= at);
        let now = after
            .checked_sub(1)
            .map(|index| &versions[index])
            .filter(|kv| kv.modified == at);
        [now, living(versions, at - 1)]
    }

    /// The changes from this revision on.
    pub(super) fn changes_since(&self, from: Revision) -> &[Change<K>] {
        let first = self.changes.partition_point(|change| change.revision < from);
        &self.changes[first..]
    }

    fn span<'a>(
        &'a self,
        keys: &'a Keys<K>,
        at: Revision,
    ) -> impl Iterator<Item = &'a KeyValue<K, V>> + use<'a, K, V> {
        let bounds = match keys {
            Keys::One(key) => (Bound::Included(key), Bound::Included(key)),
            // A map's range panics where the end is before the start; etcd finds nothing there.
            Keys::Between(first, end) if end <= first => (Bound::Included(first), Bound::Excluded(first)),
            Keys::Between(first, end) => (Bound::Included(first), Bound::Excluded(end)),
            Keys::From(first) => (Bound::Included(first), Bound::Unbounded),
        };
        self.keys
            .range::<K, _>(bounds)
            .filter_map(move |(_, versions)| living(versions, at))
    }

    /// A read, for a member that has applied `applied` and knows of a compaction at `compacted`.
    pub(super) fn range(
        &self,
        range: &Range<K>,
        applied: Revision,
        compacted: Revision,
    ) -> Result<Response<K, V>, Error> {
        if applied < range.revision {
            return Err(Error::FutureRevision);
        }
        if 0 < range.revision && range.revision < compacted {
            return Err(Error::Compacted);
        }
        let at = if range.revision == 0 {
            applied
        } else {
            range.revision
        };
        Ok(self.read(range, at))
    }

    fn read(&self, range: &Range<K>, at: Revision) -> Response<K, V> {
        if range.count_only {
            let count = self.span(&range.keys, at).count();
            return Response::Range {
                kvs: Vec::new(),
                more: false,
                count,
            };
        }
        let most = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut count = 0;
        let mut kvs = Vec::new();
        for kv in self.span(&range.keys, at) {
            count += 1;
            if count <= most {
                kvs.push(kv.clone());
            }
        }
        Response::Range {
            more: most < count,
            kvs,
            count,
        }
    }

    /// A put of its own.
    pub(super) fn put(&mut self, put: Put<K, V>) -> Result<Response<K, V>, Error> {
        if self.full {
            return Err(Error::NoSpace);
        }
        // Within a transaction the key is looked at first, as `check_put` does.
        self.check_lease(&put)?;
        self.check_put(&put, self.revision)?;
        self.revision += 1;
        Ok(self.write(put))
    }

    /// A deletion of its own.
    pub(super) fn delete(&mut self, delete: &Delete<K>) -> Response<K, V> {
        let next = self.revision + 1;
        let response = self.erase(delete, next);
        if matches!(response, Response::Delete { deleted, .. } if 0 < deleted) {
            self.revision = next;
        }
        response
    }

    /// A transaction. Its reads are checked against what is applied and compacted.
    pub(super) fn txn(&mut self, txn: Txn<K, V>) -> Result<Response<K, V>, Error> {
        if self.full && costs(&txn) {
            return Err(Error::NoSpace);
        }
        self.check(&txn)?;
        let mut changed = false;
        let response = self.run(txn, &mut changed);
        if changed {
            self.revision += 1;
        }
        Ok(response)
    }

    /// A transaction that only reads, as of `applied`.
    pub(super) fn read_txn(
        &self,
        txn: &Txn<K, V>,
        applied: Revision,
        compacted: Revision,
    ) -> Result<Response<K, V>, Error> {
        let succeeded = self.hold(&txn.when, applied);
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        let mut responses = Vec::with_capacity(branch.len());
        for op in branch {
            match op {
                Op::Range(range) => responses.push(self.range(range, applied, compacted)?),
                Op::Txn(inner) => responses.push(self.read_txn(inner, applied, compacted)?),
                Op::Put(_) | Op::Delete(_) => {}
            }
        }
        Ok(Response::Txn { succeeded, responses })
    }

    /// Ends a lease, with the keys on it, at one revision.
    pub(super) fn revoke(&mut self, id: LeaseId, how: Ending) -> Result<Response<K, V>, Error> {
        let lease = self.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        let next = self.revision + 1;
        for key in lease.keys {
            self.bury(&key, next, how);
            self.revision = next;
        }
        Ok(Response::Revoke)
    }

    /// Forgets what was before `revision`. The data stay until [`Self::prune`].
    pub(super) fn compact(&mut self, revision: Revision) -> Result<Response<K, V>, Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted);
        }
        if self.revision < revision {
            return Err(Error::FutureRevision);
        }
        self.compacted = revision;
        Ok(Response::Compact)
    }

    /// Throws away what nobody who is at `floor` or after can ask for.
    pub(super) fn prune(&mut self, floor: Revision) {
        self.keys.retain(|_, versions| {
            let newest = versions.partition_point(|kv| kv.modified <= floor);
            // The one that is valid at the floor stays, unless it is a deletion.
            let gone = newest
                .checked_sub(1)
                .map_or(0, |last| last + usize::from(versions[last].value.is_none()));
            versions.drain(..gone);
            !versions.is_empty()
        });
        let first = self.changes.partition_point(|change| change.revision < floor);
        self.changes.drain(..first);
    }

    /// All of `when` holds at a revision.
    fn hold(&self, when: &[Compare<K, V>], at: Revision) -> bool {
        when.iter().all(|compare| {
            let mut found = self.span(&compare.keys, at).peekable();
            if found.peek().is_none() {
                return holds(compare, None);
            }
            found.all(|kv| holds(compare, Some(kv)))
        })
    }

    fn check_put(&self, put: &Put<K, V>, at: Revision) -> Result<(), Error> {
        if (put.value.is_none() || put.lease.is_none()) && self.get(&put.key, at).is_none() {
            return Err(Error::KeyNotFound);
        }
        self.check_lease(put)
    }

    fn check_lease(&self, put: &Put<K, V>) -> Result<(), Error> {
        match put.lease {
            Some(lease) if lease != 0 && !self.leases.contains_key(&lease) => Err(Error::LeaseNotFound),
            _ => Ok(()),
        }
    }

    /// Everything in the branches that will be taken can be done, as of before the transaction.
    fn check(&self, txn: &Txn<K, V>) -> Result<(), Error> {
        let branch = if self.hold(&txn.when, self.revision) {
            &txn.then
        } else {
            &txn.otherwise
        };
        for op in branch {
            match op {
                Op::Put(put) => self.check_put(put, self.revision)?,
                Op::Range(range) if self.revision < range.revision => return Err(Error::FutureRevision),
                Op::Range(range) if 0 < range.revision && range.revision < self.compacted => {
                    return Err(Error::Compacted);
                }
                Op::Txn(inner) => self.check(inner)?,
                Op::Range(_) | Op::Delete(_) => {}
            }
        }
        Ok(())
    }

    /// Carries a transaction out at the revision after the present one. Conditions, those of transactions within too, see what was
    /// before it all.
    fn run(&mut self, txn: Txn<K, V>, changed: &mut bool) -> Response<K, V> {
        let succeeded = self.hold(&txn.when, self.revision);
        let branch = if succeeded { txn.then } else { txn.otherwise };
        let next = self.revision + 1;
        let mut responses = Vec::with_capacity(branch.len());
        for op in branch {
            responses.push(match op {
                Op::Range(range) => {
                    let now = if *changed { next } else { self.revision };
                    let at = if range.revision == 0 { now } else { range.revision };
                    self.read(&range, at)
                }
                Op::Put(put) => {
                    *changed = true;
                    self.write_at(put, next)
                }
                Op::Delete(delete) => {
                    let response = self.erase(&delete, next);
                    *changed |= matches!(response, Response::Delete { deleted, .. } if 0 < deleted);
                    response
                }
                Op::Txn(inner) => self.run(inner, changed),
            });
        }
        Response::Txn { succeeded, responses }
    }

    fn write(&mut self, put: Put<K, V>) -> Response<K, V> {
        let revision = self.revision;
        self.write_at(put, revision)
    }

    fn write_at(&mut self, put: Put<K, V>, revision: Revision) -> Response<K, V> {
        let versions = self.keys.entry(put.key.clone()).or_default();
        let before = versions.last().filter(|kv| kv.value.is_some());
        let old_lease = before.map_or(0, |kv| kv.lease);
        let lease = put.lease.unwrap_or(old_lease);
        let kv = KeyValue {
            value: put.value.or_else(|| before.and_then(|kv| kv.value.clone())),
            create: before.map_or(revision, |kv| kv.create),
            modified: revision,
            version: before.map_or(1, |kv| kv.version + 1),
            lease,
            key: put.key.clone(),
        };
        let previous = before.filter(|_| put.previous).cloned();
        versions.push(kv);
        self.changes.push(Change {
            revision,
            key: put.key.clone(),
            how: Ending::Written,
        });
        if old_lease != lease {
            if let Some(old) = self.leases.get_mut(&old_lease) {
                old.keys.remove(&put.key);
            }
            if let Some(new) = self.leases.get_mut(&lease) {
                new.keys.insert(put.key);
            }
        }
        Response::Put(previous)
    }

    fn erase(&mut self, delete: &Delete<K>, revision: Revision) -> Response<K, V> {
        // Also what this very transaction has written.
        let gone: Vec<KeyValue<K, V>> = self.span(&delete.keys, revision).cloned().collect();
        for kv in &gone {
            if let Some(lease) = self.leases.get_mut(&kv.lease) {
                lease.keys.remove(&kv.key);
            }
            self.bury(&kv.key, revision, Ending::Deleted);
        }
        Response::Delete {
            deleted: gone.len(),
            previous: if delete.previous { gone } else { Vec::new() },
        }
    }

    fn bury(&mut self, key: &K, revision: Revision, how: Ending) {
        if let Some(versions) = self.keys.get_mut(key) {
            versions.push(KeyValue {
                key: key.clone(),
                value: None,
                create: 0,
                modified: revision,
                version: 0,
                lease: 0,
            });
            self.changes.push(Change {
                revision,
                key: key.clone(),
                how,
            });
        }
    }
}

fn living<K, V>(versions: &[KeyValue<K, V>], at: Revision) -> Option<&KeyValue<K, V>> {
    let last = versions.last()?;
    let kv = if last.modified <= at {
        last
    } else {
        let after = versions.partition_point(|kv| kv.modified <= at);
        &versions[after.checked_sub(1)?]
    };
    kv.value.is_some().then_some(kv)
}

fn holds<K, V: PartialOrd>(compare: &Compare<K, V>, kv: Option<&KeyValue<K, V>>) -> bool {
    let order = match &compare.to {
        Target::Version(to) => Some(kv.map_or(0, |kv| kv.version).cmp(to)),
        Target::Create(to) => Some(kv.map_or(0, |kv| kv.create).cmp(to)),
        Target::Mod(to) => Some(kv.map_or(0, |kv| kv.modified).cmp(to)),
        Target::Lease(to) => Some(kv.map_or(0, |kv| kv.lease).cmp(to)),
        Target::Value(to) => match kv.and_then(|kv| kv.value.as_ref()) {
            Some(value) => value.partial_cmp(to),
            None => return false,
        },
    };
    match compare.is {
        Relation::Equal => order == Some(Ordering::Equal),
        Relation::NotEqual => order != Some(Ordering::Equal),
        Relation::Greater => order == Some(Ordering::Greater),
        Relation::Less => order == Some(Ordering::Less),
    }
}

/// A branch holds a put: refused while there is no space, whichever branch would be taken.
fn costs<K, V>(txn: &Txn<K, V>) -> bool {
    txn.then.iter().chain(&txn.otherwise).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(inner) => costs(inner),
        Op::Range(_) | Op::Delete(_) => false,
    })
}

/// What etcd refuses at the door, whatever it holds: too many steps, or one key written twice.
pub(super) fn well_formed<K: Ord + Clone, V>(txn: &Txn<K, V>) -> Result<(), Error> {
    sized(txn)?;
    intervals(&txn.then)?;
    intervals(&txn.otherwise)?;
    Ok(())
}

fn sized<K, V>(txn: &Txn<K, V>) -> Result<(), Error> {
    if MOST_OPS < txn.when.len().max(txn.then.len()).max(txn.otherwise.len()) {
        return Err(Error::TooManyOps);
    }
    for op in txn.then.iter().chain(&txn.otherwise) {
        if let Op::Txn(inner) = op {
            sized(inner)?;
        }
    }
    Ok(())
}

type Written<'a, K> = (BTreeSet<&'a K>, Vec<&'a Keys<K>>);

/// A deletion that etcd compares with puts. It takes one of all keys from some key on for an empty one, and lets it pass.
fn compared<K: Ord>(keys: &Keys<K>, key: &K) -> bool {
    !matches!(keys, Keys::From(_)) && keys.contain(key)
}

/// The keys that one branch may put and delete; an error if one is put twice, or put and deleted.
fn intervals<K: Ord + Clone, V>(branch: &[Op<K, V>]) -> Result<Written<'_, K>, Error> {
    let mut deleted: Vec<&Keys<K>> = Vec::new();
    for op in branch {
        if let Op::Delete(delete) = op {
            deleted.push(&delete.keys);
        }
    }
    let mut put: BTreeSet<&K> = BTreeSet::new();
    for op in branch {
        let Op::Txn(inner) = op else { continue };
        let (then, then_deleted) = intervals(&inner.then)?;
        let (otherwise, otherwise_deleted) = intervals(&inner.otherwise)?;
        // Only one of the two will be taken, so they may overlap each other, but not what stands beside them.
        for key in then.iter().chain(&otherwise) {
            if put.contains(key) || deleted.iter().any(|keys| compared(keys, key)) {
                return Err(Error::DuplicateKey);
            }
        }
        for keys in then_deleted.iter().chain(&otherwise_deleted) {
            if put.iter().any(|key| compared(keys, key)) {
                return Err(Error::DuplicateKey);
            }
        }
        put.extend(then);
        put.extend(otherwise);
        deleted.extend(then_deleted);
        deleted.extend(otherwise_deleted);
    }
    for op in branch {
        if let Op::Put(write) = op
            && (deleted.iter().any(|keys| compared(keys, &write.key)) || !put.insert(&write.key))
        {
            return Err(Error::DuplicateKey);
        }
    }
    Ok((put, deleted))
}
