//! The parts of transactions.

use std::time::Duration;

use surus_core::action::Grounds;
use surus_core::input::Outcome;
use surus_core::types::Revision;

use super::keys::{Held, Key, Kv};
use super::work::Worker;
use crate::model::etcd::api::Range;
use crate::model::etcd::{Compare, Delete, Keys, Op, Put, Target};

/// etcd counts whole seconds; rounded up, for the lease may outlive the right, never the other way round.
pub(super) fn whole_seconds(ttl: Duration) -> i64 {
    let up = ttl.as_secs() + u64::from(0 < ttl.subsec_nanos());
    i64::try_from(up.max(1)).unwrap_or(i64::MAX)
}

pub(super) fn not_locked(leader: Option<&Kv>, worker: &Worker<'_>) -> Outcome {
    let holder = match leader.and_then(|kv| kv.value.as_ref()) {
        Some(Held::Name(who)) => Some(worker.names[*who].clone()),
        _ => None,
    };
    Outcome::NotLocked { holder }
}

/// What an order to take the lock rests on, key by key.
pub(super) fn on(grounds: &Grounds) -> [(Key, Revision); 4] {
    [
        (Key::Config, grounds.config),
        (Key::Failover, grounds.failover),
        (Key::Failsafe, grounds.failsafe),
        (Key::Sync, grounds.sync),
    ]
}

pub(super) fn absent(key: Key) -> Compare<Key, Held> {
    Compare::equal(key, Target::Create(0))
}

pub(super) fn get(key: Key) -> Op<Key, Held> {
    Op::Range(Range::new(Keys::One(key)))
}

pub(super) fn put(key: Key, held: Held, lease: i64) -> Op<Key, Held> {
    Op::Put(Put {
        key,
        value: Some(held),
        lease: Some(lease),
        previous: false,
    })
}

pub(super) fn delete(key: Key) -> Op<Key, Held> {
    Op::Delete(Delete {
        keys: Keys::One(key),
        previous: false,
    })
}
