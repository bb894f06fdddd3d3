//! What a world is made of beside its processes: the members' hosts with their models, the record, and the time that passes for both.
//!
//! Every change of a host's models goes through [`Hub::act`], which takes what follows on its way: facts to the record, WAL to the
//! other servers over the same links that the processes' packets take, ends of servers to whoever waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::etcd::Ensemble;
use super::grants::Grants;
use super::host::{Host, Inside, Turned};
use super::net::{Machine, Net};
use super::story::Traps;
use crate::clock::{MS, Time};
use crate::model::postgres::sync::SyncNames;
use crate::model::postgres::{Link, Message};
use crate::record::{Recorder, Seen};
use crate::rng::Rng;

/// A piece of mail between two servers.
type Mail = (Link, Message);

/// What is on its way between servers.
#[derive(Default)]
struct Post {
    due: BTreeMap<(Time, u64), (usize, usize, Mail)>,
    /// Of each pair, when the last one arrives: TCP keeps their order.
    last: BTreeMap<(usize, usize), Time>,
    /// What waits for a link to be whole again.
    held: Vec<(usize, usize, Mail)>,
    sequence: u64,
}

/// Everything that is shared.
pub struct Hub {
    /// The network.
    pub net: Arc<dyn Net>,
    /// The members' hosts.
    pub hosts: Vec<Host>,
    /// etcd, once it runs.
    pub etcd: OnceLock<Ensemble>,
    record: Mutex<Recorder>,
    post: Mutex<Post>,
    grants: Mutex<Grants>,
    acked: Mutex<BTreeSet<u64>>,
    pub(super) traps: Mutex<Traps>,
    rng: Mutex<Rng>,
    wake: Notify,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({} hosts)", self.hosts.len())
    }
}

impl Hub {
    /// A world of these hosts.
    #[must_use]
    pub fn new(net: Arc<dyn Net>, hosts: Vec<Host>, record: Recorder, seed: u64) -> Arc<Self> {
        let hub = Arc::new(Self {
            net,
            hosts,
            etcd: OnceLock::new(),
            record: Mutex::new(record),
            post: Mutex::default(),
            grants: Mutex::default(),
            acked: Mutex::default(),
            traps: Mutex::default(),
            rng: Mutex::new(Rng::new(seed, 22)),
            wake: Notify::new(),
        });
        let clockwork = Arc::clone(&hub);
        hub.net.start(
            hub.hosts[0].machine,
            Box::pin(async move { clockwork.run().await }),
        );
        hub
    }

    /// The record.
    pub fn record(&self) -> MutexGuard<'_, Recorder> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened, at a host if it is one's.
    pub fn see(&self, host: Option<usize>, seen: Seen) {
        if let Some(host) = host {
            self.listen(host, &seen);
        }
        let now = self.net.now();
        self.record().see(now, host, seen);
    }

    /// A number in `low..=high`, by the world's chance.
    pub fn chance(&self, low: u64, high: u64) -> u64 {
        self.rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .range(low, high)
    }

    /// The host on a machine.
    #[must_use]
    pub fn host_of(&self, machine: Machine) -> Option<usize> {
        self.hosts.iter().position(|host| host.machine == machine)
    }

    /// The host of this name.
    #[must_use]
    pub fn host_named(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.name == name)
    }

    /// Does something to a host's models, or looks at them, and takes what follows on its way.
    pub fn act<T>(&self, host: usize, what: impl FnOnce(Time, &mut Inside) -> T) -> T {
        let result = self.pass(host, what);
        self.wake.notify_one();
        result
    }

    fn pass<T>(&self, host: usize, what: impl FnOnce(Time, &mut Inside) -> T) -> T {
        let now = self.net.now();
        let (result, seen, mail) = {
            let mut inside = self.hosts[host].inside();
            inside.server.tick(now);
            let result = what(now, &mut inside);
            let (mut seen, mail) = inside.settle();
            let rules = inside.acknowledging();
            seen.extend(rules.map(|rules| Seen::SyncStandbys {
                rules: SyncNames::told(&rules, |name| self.host_named(name)),
            }));
            (result, seen, mail)
        };
        if !seen.is_empty() || !mail.is_empty() {
            let mut record = self.record();
            for seen in seen {
                self.listen(host, &seen);
                record.see(now, Some(host), seen);
            }
        }
        for (to, link, message) in mail {
            if let Ok(to) = usize::try_from(to.0) {
                self.forward(now, host, to, (link, message));
            }
        }
        self.hosts[host].changed.notify_waiters();
        result
    }

    /// The record learns what became of a host's gate.
    pub(super) fn tell_gate(&self, host: usize, turned: Option<Turned>) {
        let seen = match turned {
            None => return,
            Some(Turned::Shut) => Seen::GateShut,
            Some(Turned::Lifted) => Seen::GateLifted,
            Some(Turned::Opened(shown)) => {
                let others = (0..self.hosts.len()).filter(|other| *other != host);
                let has = |other: &usize| self.look(*other, |inside| inside.server.keeps(shown));
                let having = others.filter(has).collect();
                Seen::GateOpened { having }
            }
        };
        self.see(Some(host), seen);
    }

    /// Only looks.
    pub fn look<T>(&self, host: usize, what: impl FnOnce(&Inside) -> T) -> T {
        what(&self.hosts[host].inside())
    }

    /// Two hosts' processes can talk.
    #[must_use]
    pub fn connected(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.hosts[a].machine, self.hosts[b].machine);
        self.net.reaches(a, b) && self.net.reaches(b, a)
    }

    /// The links have changed: what waited goes on its way, and etcd's members hear of it.
    pub fn relink(&self) {
        if let Some(etcd) = self.etcd.get() {
            etcd.relink();
        }
        let now = self.net.now();
        let held = std::mem::take(&mut self.post().held);
        for (from, to, mail) in held {
            self.forward(now, from, to, mail);
        }
        self.wake.notify_one();
    }

    /// The grants that are known of.
    pub fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of the writes that clients know to be done.
    pub fn acked(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a piece of mail on its way.
    fn forward(&self, now: Time, from: usize, to: usize, mail: Mail) {
        let delay = self.chance(MS / 5, 2 * MS);
        let reaches = self.net.reaches(self.hosts[from].machine, self.hosts[to].machine);
        let mut post = self.post();
        if !reaches {
            post.held.push((from, to, mail));
            return;
        }
        let last = post.last.entry((from, to)).or_default();
        *last = (now + delay).max(*last);
        let at = *last;
        post.sequence += 1;
        let key = (at, post.sequence);
        post.due.insert(key, (from, to, mail));
    }

    /// Lets time pass for the models.
    async fn run(self: Arc<Self>) {
        loop {
            let now = self.net.now();
            loop {
                let mail = {
                    let mut post = self.post();
                    match post.due.first_entry() {
                        Some(entry) if entry.key().0 <= now => Some(entry.remove()),
                        _ => None,
                    }
                };
                let Some((_, to, (link, message))) = mail else {
                    break;
                };
                self.pass(to, |now, inside| inside.server.receive(now, link, message));
            }
            let mut next = self
                .post()
                .due
                .first_key_value()
                .map_or(Time::MAX, |((at, _), _)| *at);
            for host in 0..self.hosts.len() {
                if self.look(host, Inside::next_deadline) <= now {
                    self.pass(host, |now, inside| inside.guard_due(now));
                }
                next = next.min(self.look(host, Inside::next_deadline));
            }
            // What is still due now is seen to after whoever else runs now.
            let wait = Duration::from_nanos(next.saturating_sub(self.net.now()).max(1));
            tokio::select! { biased;
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait), if next != Time::MAX => {}
            }
        }
    }
}
