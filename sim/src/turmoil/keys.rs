//! What becomes of the cluster's keys in etcd, read from the model's agreed store after every change: facts for the record.

use std::collections::BTreeMap;

use serde_json::Value;
use surus_core::types::{LeaseId, Lsn, Revision, SystemId, Term, Timeline};
use surus_core::view::Initialize;

use super::etcd::Answers;
use super::host::Inside;
use super::hub::Hub;
use crate::clock::Time;
use crate::model::etcd::{Etcd, KeyValue};
use crate::record::{Gate, LeaseEnd, RightBy, Seen, Settings};

type Store = Etcd<Vec<u8>, Vec<u8>>;
type Key = KeyValue<Vec<u8>, Vec<u8>>;

/// The leader key as it was.
#[derive(Debug, Clone, Copy)]
struct Leader {
    holder: Option<usize>,
    create: i64,
    lease: i64,
}

/// What was known of the keys.
#[derive(Debug, Default)]
pub struct Keys {
    /// What the cluster's keys begin with.
    prefix: String,
    leader: Option<Leader>,
    seen: BTreeMap<String, i64>,
    optime: Option<Lsn>,
    term: u64,
    etcd_leader: Option<usize>,
    ttl: Time,
}

fn text(key: &Key) -> String {
    String::from_utf8_lossy(key.value.as_deref().unwrap_or_default()).into_owned()
}

impl Keys {
    /// Nothing is known yet of the keys that begin so.
    #[must_use]
    pub fn below(prefix: String) -> Self {
        Self {
            prefix,
            ..Self::default()
        }
    }

    fn agreed<'a>(&self, store: &'a Store, name: &str) -> Option<&'a Key> {
        store.agreed(&format!("{}{name}", self.prefix).into_bytes())
    }

    /// The key has changed since it was last asked for here; its present self.
    fn changed<'a>(&mut self, store: &'a Store, name: &str) -> Option<Option<&'a Key>> {
        let key = self.agreed(store, name);
        let revision = key.map_or(0, |key| key.modified);
        let known = self.seen.insert(name.to_owned(), revision).unwrap_or(0);
        (known != revision).then_some(key)
    }

    /// Tells what has changed.
    pub fn observe(&mut self, hub: &Hub, store: &Store, answers: &Answers) {
        let term = Term(store.term());
        let member = store.leader();
        if (self.term, self.etcd_leader) != (term.0, member) {
            (self.term, self.etcd_leader) = (term.0, member);
            hub.see(None, Seen::EtcdLeader { term, member });
        }
        let before = self.leader;
        self.leader(hub, store, term);
        self.status(hub, store, answers, before, term);
        if let Some(key) = self.changed(store, "initialize") {
            let to = key.map(|key| match text(key).trim().parse() {
                Ok(id) => Initialize::Done(SystemId(id)),
                Err(_) => Initialize::InProgress,
            });
            hub.see(None, Seen::InitializeWritten { to });
        }
        if let Some(Some(key)) = self.changed(store, "failsafe") {
            let list: Value = serde_json::from_str(&text(key)).unwrap_or_default();
            let names = list.as_object().into_iter().flat_map(|list| list.keys());
            let list: Vec<usize> = names.filter_map(|name| hub.host_named(name)).collect();
            hub.grants().list.clone_from(&list);
            let by = self.leader.and_then(|leader| leader.holder);
            hub.see(by, Seen::FailsafeWritten { list });
        }
        if let Some(key) = self.changed(store, "sync") {
            let sync: Value = key
                .and_then(|key| serde_json::from_str(&text(key)).ok())
                .unwrap_or_default();
            let names = sync
                .get("sync_standby")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let members: Vec<usize> = names.split(',').filter_map(|name| hub.host_named(name)).collect();
            let quorum = sync.get("quorum").and_then(Value::as_u64).unwrap_or(0);
            let quorum = if members.is_empty() {
                0
            } else {
                usize::try_from(quorum).unwrap_or(0) + 1
            };
            let by = self.leader.and_then(|leader| leader.holder);
            hub.see(by, Seen::SyncWritten { members, quorum });
        }
        if let Some(key) = self.changed(store, "failover") {
            let wish: Value = key
                .and_then(|key| serde_json::from_str(&text(key)).ok())
                .unwrap_or_default();
            let named = |what: &str| wish.get(what)?.as_str().and_then(|name| hub.host_named(name));
            let (leader, candidate) = (named("leader"), named("member"));
            hub.see(
                None,
                if leader.or(candidate).is_some() {
                    Seen::FailoverWritten { leader, candidate }
                } else {
                    Seen::FailoverCleared
                },
            );
        }
        for host in 0..hub.hosts.len() {
            let name = format!("members/{}", hub.hosts[host].name);
            let present = self.agreed(store, &name).is_some();
            let known = self.seen.insert(name, i64::from(present)) == Some(1);
            if known != present {
                hub.see(Some(host), Seen::MemberKey { present });
            }
        }
        if let Some(Some(key)) = self.changed(store, "config") {
            let config: Value = serde_json::from_str(&text(key)).unwrap_or_default();
            let settings = settings(&config);
            self.ttl = settings.ttl;
            let mut grants = hub.grants();
            grants.ttl = settings.ttl;
            drop(grants);
            for host in 0..hub.hosts.len() {
                hub.see(Some(host), Seen::Configured(settings));
            }
        }
    }

    fn leader(&mut self, hub: &Hub, store: &Store, term: Term) {
        let now = self.agreed(store, "leader").map(|key| Leader {
            holder: hub.host_named(&text(key)),
            create: key.create,
            lease: key.lease,
        });
        let before = std::mem::replace(&mut self.leader, now);
        if let Some(before) = before
            && now.is_none_or(|now| now.create != before.create)
        {
            let lives = store.leases().any(|lease| lease == before.lease);
            // Who gives it back says so in `status`.
            let told = self
                .agreed(store, "status")
                .is_some_and(|key| key.modified == store.revision());
            let lost = |why| Seen::LockLost {
                lease: LeaseId(before.lease),
                why,
            };
            let seen = match (lives, told) {
                (false, _) => lost(LeaseEnd::Expired),
                (true, false) => lost(LeaseEnd::Deposed),
                (true, true) => Seen::LockReleased {
                    revision: Revision(store.revision()),
                },
            };
            hub.see(before.holder, seen);
        }
        let Some(now) = now else { return };
        let (lease, revision) = (LeaseId(now.lease), Revision(store.revision()));
        if before.is_none_or(|before| before.create != now.create) {
            let (primary, standing) = now.holder.map_or((false, None), |host| {
                hub.look(host, |inside| (inside.server.primary(), inside.standing()))
            });
            let seen = Seen::LockTaken {
                lease,
                revision,
                term,
                primary,
                standing,
                optime: self.optime,
            };
            hub.see(now.holder, seen);
        } else if before.is_some_and(|before| before.lease != now.lease) {
            let seen = Seen::LockRenewed {
                lease,
                revision,
                term,
            };
            hub.see(now.holder, seen);
        }
    }

    /// `status` is written by whoever holds the lock, together with the proof that it does: that makes a right.
    fn status(&mut self, hub: &Hub, store: &Store, answers: &Answers, before: Option<Leader>, term: Term) {
        let Some(Some(key)) = self.changed(store, "status") else {
            return;
        };
        let value: Value = serde_json::from_str(&text(key)).unwrap_or_default();
        let ours = value.get("surus").cloned().unwrap_or_default();
        let timeline = |name: &str| {
            let number = ours.get(name)?.as_u64()?;
            u32::try_from(number).ok().map(Timeline)
        };
        let told = ours.get("ttl").and_then(Value::as_f64);
        let told = told.map(|seconds| (seconds * 1e9) as Time);
        if let Some(told) = told {
            hub.grants().told = told;
        }
        let flag = |name: &str| ours.get(name).is_some_and(|value| *value != Value::Bool(false));
        let optime = Lsn(value.get("optime").and_then(Value::as_u64).unwrap_or(0));
        self.optime = Some(optime);
        let leader = self.leader.or(before);
        let by = leader.and_then(|leader| leader.holder);
        let seen = Seen::StatusWritten {
            optime,
            timeline: timeline("timeline"),
            next: timeline("next"),
            vacated: flag("vacated"),
            unfenced: flag("unfenced"),
        };
        hub.see(by, seen);
        let Some(leader) = self.leader else { return };
        if before.is_some_and(|before| before.create == leader.create) {
            let seen = Seen::LockRenewed {
                lease: LeaseId(leader.lease),
                revision: Revision(key.modified),
                term,
            };
            hub.see(by, seen);
        }
        if let Some(sent) = answers.kept(leader.lease) {
            let until = sent + told.unwrap_or(self.ttl);
            let by_what = RightBy::Lock;
            hub.see(
                by,
                Seen::Right {
                    sent,
                    until,
                    by: by_what,
                },
            );
        }
    }
}

/// The settings in the `config` key, with the defaults of Surus.
fn settings(config: &Value) -> Settings {
    let seconds = |name: &str, default: u64| {
        let seconds = config.get(name).and_then(Value::as_u64).unwrap_or(default);
        seconds * crate::clock::SEC
    };
    let flag = |name: &str, default: bool| config.get(name).and_then(Value::as_bool).unwrap_or(default);
    let bound = seconds("synchronous_gate_timeout", 0);
    let hold = flag("synchronous_gate_hold", false);
    let gate = (0 < bound).then_some(Gate { bound, hold });
    let off = [None, Some("off"), Some("false")];
    let mode = config.get("synchronous_mode");
    let synchronous = mode
        .and_then(Value::as_bool)
        .unwrap_or_else(|| !off.contains(&mode.and_then(Value::as_str)));
    Settings {
        ttl: seconds("ttl", 5),
        loop_wait: seconds("loop_wait", 1),
        retry_timeout: seconds("retry_timeout", 2),
        maximum_lag: config
            .get("maximum_lag_on_failover")
            .and_then(Value::as_u64)
            .unwrap_or(1 << 20),
        failsafe: flag("failsafe_mode", true),
        pause: flag("pause", false),
        gate: gate.filter(|_| synchronous),
    }
}

impl Hub {
    /// From where on no other host's disk has what this one's has; `None` if another has all of it.
    #[must_use]
    pub fn alone(&self, host: usize) -> Option<u64> {
        let log = |inside: &Inside| inside.server.cluster().map(|cluster| cluster.log.clone());
        let own = self.look(host, log)?;
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        let common = others
            .filter_map(|other| self.look(other, log))
            .map(|other| own.common(&other))
            .max()
            .unwrap_or(0);
        (common < own.inserted).then_some(common)
    }
}
