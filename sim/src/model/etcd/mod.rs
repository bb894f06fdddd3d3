//! A cluster of etcd, sans IO, at the level of its v3 API: what a client of one member is answered, and when, and what is not true
//! of the cluster although a member says so.
//!
//! Both worlds use it: the fast one calls it with typed keys and values, the other serves it over gRPC with bytes. Whoever owns one
//! - says who can reach whom ([`Etcd::set_links`]) and which members run ([`Etcd::stop`], [`Etcd::freeze`], …),
//! - hands it requests as they reach a member ([`Etcd::handle`], [`Etcd::watch`]),
//! - calls [`Etcd::tick`] at [`Etcd::next_deadline`] or later,
//! - and carries each [`Output`] to its client, unless the connection or the member is gone by `at`.
//!
//! Raft is abstracted: there is one committed log, and of each member what it has applied, which term it knows, and whom it takes
//! for the leader. So two leaders (one of them deposed, without knowing it), lost and late proposals, members that lag and leases
//! that outlive or underlive what their holders were told come out as they do in etcd, at a small part of its price.
//!
//! - [`api`]: requests, answers, errors with etcd's codes and texts; `store`: keys and revisions; `lessor`: when leases expire
//! - `raft`: terms, elections, who hears whom; `serve`: what becomes of a request; `wait`: those that wait; `watch`: watches
//! - [`Mischief`]: what a real one does by chance only, on order
//!
//! What is known of etcd's behaviour and was compared with etcd 3.4: `sim/conformance/etcd`.

pub mod api;
mod lessor;
mod mischief;
mod raft;
mod serve;
mod store;
#[cfg(test)]
mod tests;
mod wait;
mod watch;

pub use api::{
    Call, Compare, Delete, Error, Event, Header, KeyValue, Keys, LeaseId, Op, Output, Put, Range, Relation,
    Request, Response, Revision, Target, Told, Txn, Watch,
};
pub use mischief::{Kind, Mischief};

use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;
use raft::Member;
use store::Store;
use wait::Waiting;
use watch::Watcher;

/// How a cluster is set up. The default is etcd 3.4's, with three members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// 1, 3 or 5.
    pub members: usize,
    /// `--election-timeout`.
    pub election: Time,
    /// `--pre-vote`: without it, on by default since 3.5, a member that was cut off upsets the leader when it comes back.
    pub pre_vote: bool,
    /// A leader that was stuck while others elected another lets revocations of leases out that are then applied (B-095): so up
    /// to 3.4.28 and 3.5.10.
    pub late_revokes: bool,
    /// Keep-alives need a token where authentication is on (B-100): since 3.4.42, 3.5.28 and 3.6.9.
    pub lease_auth: bool,
    /// How long a member takes to answer, at least and at most: what agreement and its disk cost.
    pub latency: (Time, Time),
    /// How long a deposed leader that thaws takes to find out, at least and at most.
    pub awakening: (Time, Time),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            members: 3,
            election: SEC,
            pre_vote: false,
            late_revokes: true,
            lease_auth: false,
            latency: (MS / 2, 3 * MS),
            awakening: (MS, 30 * MS),
        }
    }
}

impl Settings {
    /// The shortest life of a lease, in seconds: one and a half election timeouts, rounded up.
    #[must_use]
    pub fn least_ttl(&self) -> i64 {
        i64::try_from((self.election + self.election / 2).div_ceil(SEC)).unwrap_or(i64::MAX)
    }

    /// How long a member waits for its own proposal: five seconds and two election timeouts.
    #[must_use]
    pub fn request_timeout(&self) -> Time {
        5 * SEC + 2 * self.election
    }
}

/// Which members' messages reach which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links([u8; 8]);

impl Default for Links {
    fn default() -> Self {
        Self([u8::MAX; 8])
    }
}

impl Links {
    /// Every member reaches every other.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// What `up(from, to)` says.
    #[must_use]
    pub fn of(mut up: impl FnMut(usize, usize) -> bool) -> Self {
        let mut links = Self([0; 8]);
        for from in 0..8 {
            for to in 0..8 {
                if from == to || up(from, to) {
                    links.0[from] |= 1 << to;
                }
            }
        }
        links
    }

    /// Messages of `from` reach `to`.
    #[must_use]
    pub fn up(&self, from: usize, to: usize) -> bool {
        self.0[from] & (1 << to) != 0
    }

    /// Sets one direction.
    pub fn set(&mut self, from: usize, to: usize, up: bool) {
        if up {
            self.0[from] |= 1 << to;
        } else {
            self.0[from] &= !(1 << to);
        }
    }
}

/// How far the log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Point {
    /// Entries.
    index: u64,
    /// The term of the last one.
    term: u64,
    /// The store's revision after it.
    revision: Revision,
    /// Up to where the store was compacted.
    compacted: Revision,
}

/// A cluster of etcd.
#[derive(Debug, Clone)]
pub struct Etcd<K, V> {
    settings: Settings,
    rng: Rng,
    links: Links,
    members: Vec<Member<K, V>>,
    /// What is agreed.
    store: Store<K, V>,
    /// The newest entry that is agreed.
    committed: Point,
    waiting: Vec<Waiting<K, V>>,
    watchers: Vec<Watcher<K>>,
    mischief: Vec<Mischief>,
    last_lease: LeaseId,
    /// Where authentication is on, the one token that is valid.
    token: Option<u64>,
    due: Time,
}

impl<K: Ord + Clone, V: Clone + PartialOrd> Etcd<K, V> {
    /// A cluster that has elected a leader and holds nothing.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut rng = Rng::new(seed, 7);
        let first = rng.index(settings.members);
        let store = Store::new();
        let mut etcd = Self {
            settings,
            rng,
            links: Links::all(),
            members: (0..settings.members).map(|_| Member::new()).collect(),
            committed: Point {
                index: 4,
                term: 1,
                revision: store.revision,
                compacted: 0,
            },
            store,
            waiting: Vec::new(),
            watchers: Vec::new(),
            mischief: Vec::new(),
            last_lease: 0,
            token: None,
            due: Time::MAX,
        };
        let mut nobody = Vec::new();
        etcd.elect(0, first, &mut nobody);
        etcd
    }

    /// How it is set up.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When [`Self::tick`] is wanted next; `Time::MAX` for never.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.due
    }

    /// What is agreed about a key, whatever any member believes.
    #[must_use]
    pub fn agreed(&self, key: &K) -> Option<&KeyValue<K, V>> {
        self.store.get(key, self.store.revision)
    }

    /// What was agreed about a key as of a revision that is not compacted.
    #[must_use]
    pub fn agreed_at(&self, key: &K, revision: Revision) -> Option<&KeyValue<K, V>> {
        self.store.get(key, revision)
    }

    /// What a revision changed.
    pub fn changes(&self, revision: Revision) -> impl Iterator<Item = (K, api::Ending)> + '_ {
        let changes = self.store.changes_since(revision).iter();
        changes
            .take_while(move |change| change.revision == revision)
            .map(|change| (change.key.clone(), change.how))
    }

    /// The agreed revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.store.revision
    }

    /// The agreed term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.committed.term
    }

    /// The leases there are.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> + '_ {
        self.store.leases.keys().copied()
    }

    /// The member that leads, and can.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).find(|member| self.commits(*member))
    }

    /// Whom a member takes for the leader.
    #[must_use]
    pub fn believed_leader(&self, member: usize) -> Option<usize> {
        self.members[member].leader
    }

    /// The member's process runs, frozen or not.
    #[must_use]
    pub fn runs(&self, member: usize) -> bool {
        self.members[member].up
    }

    /// The member's process is stopped by a signal.
    #[must_use]
    pub fn frozen(&self, member: usize) -> bool {
        self.members[member].frozen
    }

    /// The member's header, as of what it has applied.
    #[must_use]
    pub fn header(&self, member: usize) -> Header {
        let applied = self.members[member].applied;
        Header {
            member,
            term: applied.term,
            revision: applied.revision,
        }
    }

    /// Switches authentication on, with this one token valid, or off. The client gets it by [`Request::Authenticate`]; to change
    /// it is to let all tokens expire.
    pub fn set_token(&mut self, token: Option<u64>) {
        self.token = token;
    }

    /// The alarm for lack of space is on.
    #[must_use]
    pub fn full(&self) -> bool {
        self.store.full
    }

    /// No lease of those there are ends before its time and this.
    pub fn prolong(&mut self, by: Time) {
        for member in &mut self.members {
            if let Some(lessor) = &mut member.lessor {
                lessor.prolong(by);
            }
        }
        self.reschedule();
    }

    /// Something that a real etcd does only by chance.
    pub fn plant(&mut self, mischief: Mischief) {
        self.mischief.push(mischief);
    }

    /// No more of [`Self::plant`].
    pub fn behave(&mut self) {
        self.mischief.clear();
    }

    fn reschedule(&mut self) {
        let members = self.members.iter().filter(|member| member.live());
        let members = members.map(Member::next_deadline).min();
        let waits = self
            .waiting
            .iter()
            .filter(|waiting| self.members[waiting.member].live());
        let waits = waits.map(|waiting| waiting.deadline).min();
        let watches = self.watches_due();
        self.due = members
            .into_iter()
            .chain(waits)
            .chain([watches])
            .min()
            .unwrap_or(Time::MAX);
    }

    fn latency(&mut self) -> Time {
        let (least, most) = self.settings.latency;
        self.rng.range(least, most)
    }
}
