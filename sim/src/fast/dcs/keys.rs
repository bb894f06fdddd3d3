//! The cluster's keys in etcd with typed values: what the agents write as text, without the text.

use std::cmp::Ordering;
use std::sync::Arc;

use surus_core::action::StatusRecord;
use surus_core::sync::SyncKey;
use surus_core::types::{LeaseId, NodeName, Revision, Term};
use surus_core::view::{ClusterView, FailoverKey, HistoryLine, Initialize, LeaderKey, Member, Status};

use crate::model::etcd::{Header, KeyValue, Request, Response};

/// A key below the cluster's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `config`.
    Config,
    /// `failover`.
    Failover,
    /// `failsafe`.
    Failsafe,
    /// `history`.
    History,
    /// `initialize`.
    Initialize,
    /// `leader`.
    Leader,
    /// `members/…`.
    Member(usize),
    /// `status`.
    Status,
    /// `sync`.
    Sync,
    /// `surus/claim`.
    Claim,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// Nothing that is told apart: an emptied `failover`, a `config`.
    Empty,
    /// A member's name: `leader`, `surus/claim`.
    Name(usize),
    /// `initialize`.
    Initialize(Initialize),
    /// A member's key.
    Member(Arc<Member>),
    /// `status`, and who wrote it.
    Status(usize, Arc<Status>),
    /// `history`.
    History(Arc<Vec<HistoryLine>>),
    /// `failsafe`: names and addresses.
    Failsafe(Arc<std::collections::BTreeMap<NodeName, String>>),
    /// `sync`.
    Sync(Arc<SyncKey>),
    /// A person's wish.
    Failover(Arc<FailoverKey>),
}

// Agents compare for equality only.
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

/// A key with its value.
pub type Kv = KeyValue<Key, Held>;

/// A request of an agent.
pub type Asked = Request<Key, Held>;

/// An answer to it.
pub type Answered = Response<Key, Held>;

/// What `status` says when `by` writes this.
pub fn status(by: usize, record: &StatusRecord, names: &[NodeName]) -> Held {
    let status = Status {
        optime: record.optime,
        slots: record.slots.clone(),
        retain_slots: record.retain_slots.clone(),
        ttl: Some(record.ttl),
        timeline: record.timeline,
        forks: record.forks.clone(),
        next: record.next,
        vacated: record.vacated.then(|| names[by].clone()),
        unfenced: record.unfenced.then(|| names[by].clone()),
    };
    Held::Status(by, Arc::new(status))
}

/// Everything, as a member answered.
pub fn read(kvs: &[Kv], header: Header, names: &[NodeName]) -> ClusterView {
    let mut view = ClusterView {
        revision: Revision(header.revision),
        term: Term(header.term),
        ..ClusterView::default()
    };
    for kv in kvs {
        apply(&mut view, &kv.key, Some(kv), names);
    }
    view
}

/// A key has changed, or is gone.
pub fn apply(view: &mut ClusterView, key: &Key, kv: Option<&Kv>, names: &[NodeName]) {
    let revision = kv.map_or(Revision(0), |kv| Revision(kv.modified));
    let held = kv.and_then(|kv| kv.value.as_ref());
    match key {
        Key::Config => view.config_revision = held.map(|_| revision),
        Key::Initialize => {
            view.initialize = match held {
                Some(Held::Initialize(to)) => Some(*to),
                _ => None,
            };
        }
        Key::Leader => {
            view.leader = match (kv, held) {
                (Some(kv), Some(Held::Name(who))) => Some(LeaderKey {
                    name: names[*who].clone(),
                    lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
                    created: Revision(kv.create),
                }),
                _ => None,
            };
        }
        Key::Member(who) => match held {
            Some(Held::Member(member)) => match view.members.get_mut(&names[*who]) {
                Some(known) => known.clone_from(member),
                None => {
                    view.members.insert(names[*who].clone(), member.clone());
                }
            },
            _ => {
                view.members.remove(&names[*who]);
            }
        },
        Key::Status => {
            view.status_revision = revision;
            view.status = match held {
                Some(Held::Status(_, status)) => Some(status.clone()),
                _ => None,
            };
        }
        Key::Failover => {
            view.failover_revision = revision;
            view.failover = match held {
                Some(Held::Failover(wish)) => Some(FailoverKey {
                    revision,
                    ..wish.as_ref().clone()
                }),
                _ => None,
            };
        }
        Key::History => {
            view.history = match held {
                Some(Held::History(lines)) => lines.clone(),
                _ => Arc::default(),
            };
        }
        Key::Failsafe => {
            view.failsafe_revision = revision;
            view.failsafe = match held {
                Some(Held::Failsafe(list)) => Some(list.clone()),
                _ => None,
            };
        }
        Key::Sync => {
            view.sync_revision = revision;
            view.sync = match held {
                Some(Held::Sync(key)) => Some(key.clone()),
                _ => None,
            };
        }
        Key::Claim => {}
    }
}
