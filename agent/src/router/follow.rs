//! Keeping the table current: etcd's watch for speed, and a read every other second that proves that the watch is not frozen.

use std::sync::Arc;
use std::time::Duration;

use surus_core::types::MonoTime;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::hub::Hub;
use crate::clock::Clock;
use crate::dcs::Etcd;
use crate::dcs::snapshot::Snapshot;

/// Between two reads.
const READ: Duration = Duration::from_secs(2);
/// For a read, which may try several endpoints.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Silence of etcd after which it is said that the table is old.
pub(super) const STALE: Duration = Duration::from_secs(6);
/// A revision that is lower than one that was seen is taken for late news first, and after this for an etcd restored from a backup.
const RESTORED: Duration = Duration::from_secs(5);

/// Follows the cluster's keys until the future is dropped.
pub(super) async fn follow(hub: Arc<Hub>, etcd: Arc<Etcd>, clock: Arc<dyn Clock>, pooler: bool) {
    let (states, changes) = watch::channel(None);
    let news = News {
        hub,
        clock,
        pooler,
        revision: 0,
        lower: None,
        stale: false,
    };
    tokio::select! { biased;
        () = news.take_in(&etcd, changes) => {}
        () = etcd.watch(states) => {}
    }
}

struct News {
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    pooler: bool,
    /// Of the newest state.
    revision: i64,
    /// Since when reads show a lower one.
    lower: Option<MonoTime>,
    /// It was said that the table is old.
    stale: bool,
}

impl News {
    async fn take_in(mut self, etcd: &Etcd, mut changes: watch::Receiver<Option<Arc<Snapshot>>>) {
        let mut due = self.clock.now().plus(READ);
        loop {
            let clock = Arc::clone(&self.clock);
            tokio::select! { biased;
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.watched(&mut changes);
                }
                () = clock.sleep_until(due) => {
                    let read = etcd.read(READ_LIMIT);
                    tokio::pin!(read);
                    // The watch must not wait for an etcd that does not answer.
                    let read = loop {
                        tokio::select! { biased;
                            read = &mut read => break read,
                            changed = changes.changed() => {
                                if changed.is_err() {
                                    return;
                                }
                                self.watched(&mut changes);
                            }
                        }
                    };
                    match read {
                        Ok((sent, snapshot)) => self.observe(sent, &snapshot),
                        Err(error) => tracing::debug!(%error, "cannot read the cluster's keys"),
                    }
                    self.mind_age();
                    due = self.clock.now().plus(READ);
                }
            }
        }
    }

    fn watched(&mut self, changes: &mut watch::Receiver<Option<Arc<Snapshot>>>) {
        let snapshot = changes.borrow_and_update().clone();
        if let Some(snapshot) = snapshot {
            self.observe(self.clock.now(), &snapshot);
        }
    }

    /// Takes in the keys as known for the time `at`.
    fn observe(&mut self, at: MonoTime, snapshot: &Snapshot) {
        let revision = snapshot.raw.revision;
        if revision < self.revision {
            let since = *self.lower.get_or_insert(at);
            if at.since(since) < RESTORED {
                return;
            }
            tracing::warn!(
                revision,
                before = self.revision,
                "etcd has gone back, as after a restore from a backup; believing it"
            );
        }
        self.lower = None;
        self.hub.confirm(at);
        if revision != self.revision {
            self.revision = revision;
            self.hub.view(Cluster::read(snapshot, self.pooler));
        }
    }

    fn mind_age(&mut self) {
        let old = self.hub.age().is_none_or(|age| STALE <= age);
        if old && !self.stale {
            tracing::warn!("etcd is silent; routing by what was last known of the cluster");
        } else if !old && self.stale {
            tracing::info!("etcd answers again");
        }
        self.stale = old;
    }
}
