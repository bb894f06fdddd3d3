//! What a node has decided and not finished: its memory beside the facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::action::{MemberRecord, Order};
use crate::config::Config;
use crate::input::{OperatorOrder, RequestId};
use crate::lease::Lease;
use crate::sync::progress::Progress;
use crate::types::{Lsn, MonoTime, NodeName, Revision, SystemId, Timeline};
use crate::view::{ClusterView, Fork, HistoryLine, Server};
use crate::zoo::{Flaw, lacks};

/// The node's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its hold on the lock.
    pub lease: Lease,
    /// The agent was asked to end.
    pub shutdown: Option<MonoTime>,
    /// Since when PostgreSQL is to be stopped, or stopped and started: no commit shall wait for it then.
    pub leaving: Option<MonoTime>,
    /// The order to end was given: nothing more is done.
    pub exiting: bool,
    /// An order that makes PostgreSQL writable was given and it has not been seen since what came of it: it may become writable
    /// without a further order.
    pub unsure: bool,
    /// It was so already when the last promotion was ordered: that one's failure says nothing of what was begun before.
    pub unsure_before: bool,
    /// A promotion was ordered, and PostgreSQL has not answered since: what it was before says nothing, also if that failed, for somebody else
    /// may have promoted it.
    pub tried: bool,
    /// Since when the gate of the primary here has been seen shut.
    pub gated: Option<MonoTime>,
    /// When it was last opened.
    pub opened: MonoTime,
    /// The last order to PostgreSQL started it as a replica.
    pub begun_as_replica: bool,
    /// The timeline that a promotion under this node's lock makes.
    pub reserved: Option<Timeline>,
    /// The highest timeline that an order of this node reserves: it may have arrived, whatever was answered, and is not unsaid.
    pub proposed: Option<Timeline>,
    /// The order to give the lock back was sent and may have its effect at any time: nothing may become writable in this reign.
    pub releasing: bool,
    /// Such an order was left without an answer in this reign: one that certainly failed later says nothing of it.
    pub release_in_doubt: bool,
    /// `status` is known to say that this node's primary runs without a deadline, and nothing that says otherwise has been sent since.
    pub unfenced: bool,
    /// PostgreSQL has been primary in this reign.
    pub reigned: bool,
    /// Where the primary of this reign was last seen: what `status` goes on saying while PostgreSQL does not answer.
    pub reached: Option<Reached>,
    /// What this reign has told of the cluster's position in `status`, which the view may not show yet.
    pub told: Option<Reached>,
    /// Since when PostgreSQL of this reign does not serve.
    pub down_since: Option<MonoTime>,
    /// Starts in place that failed in a row in this reign.
    pub failed_starts: u32,
    /// The lock is to be given back, because PostgreSQL does not come back here.
    pub giving_up: bool,
    /// Since when PostgreSQL does not answer.
    pub unresponsive_since: Option<MonoTime>,
    /// No attempt at the lock before this.
    pub cooldown: MonoTime,
    /// A failsafe grant that was given.
    pub promise: Option<Promise>,
    /// This node claimed the `initialize` key.
    pub claimed: bool,
    /// This node created the cluster and the `initialize` key does not say so yet: nothing of it runs.
    pub created: Option<SystemId>,
    /// A hand-over under way.
    pub handover: Option<Handover>,
    /// The operator's wish that could not be met.
    pub refused: Option<Revision>,
    /// When the last restart of PostgreSQL ended that somebody had asked for.
    pub restarted: MonoTime,
    /// When PostgreSQL was last started, and how.
    pub last_start: Option<(MonoTime, Order)>,
    /// What an operator asked of PostgreSQL.
    pub asked: Option<(RequestId, OperatorOrder)>,
    /// When that was asked.
    pub asked_at: MonoTime,
    /// The data directory is to be cloned anew, from the leader if true.
    pub reclone: Option<bool>,
    /// What was known of the store's revision when the read under way was sent: a linearizable answer cannot be older.
    pub floor: Revision,
    /// Reads in a row that were older than that, and when the first of them was heard.
    pub receded: Option<(u32, MonoTime)>,
    /// The reign in which this replica was restarted because it could not follow, and where it stood then.
    pub nudged: Option<(Revision, Lsn)>,
    /// The reign in which this replica was cloned anew because it could not be started.
    pub rebuilt: Option<Revision>,
    /// Rewinds that ended well and after which this replica has not streamed yet.
    pub rewound: Option<Rewound>,
    /// The leader's timelines, as it told them.
    pub ancestry: Option<Ancestry>,
    /// The last order to PostgreSQL failed: its words, and when to try again.
    pub failure: Option<Failure>,
    /// The right was last extended by failsafe grants at this time.
    pub granted: MonoTime,
    /// When an order that brought a deadline of its own to the guard last ended.
    pub armed: MonoTime,
    /// The highest timeline that this node's data was seen on: the control file names that of the last checkpoint only.
    pub stood: Option<Stood>,
    /// Facts about PostgreSQL from before this time do not show what the last order did.
    pub settled: MonoTime,
    /// When the last stop was ordered.
    pub last_stop: MonoTime,
    /// The first checkpoint after the promotion.
    pub checkpoint: AfterPromotion,
    /// Everybody on the failsafe lists that were sent to replace the one of this revision: whoever is on one may believe in it.
    pub failsafe_sent: Option<(Revision, BTreeMap<NodeName, String>)>,
    /// How far what was set for synchronous replication has come into force.
    pub sync: Progress,
    /// A write of the `sync` key was left without an answer: until another one is confirmed it may still arrive.
    pub sync_in_doubt: bool,
    /// The guard's deadline, as last confirmed. Outer `None`: not known.
    pub deadline: Option<Option<MonoTime>>,
    /// Whether etcd takes what this node writes to its own key.
    pub writes: Writes,
    /// The member key as last written.
    pub published: Option<MemberRecord>,
    /// Members seen at some time, and when last; for keeping their slots.
    pub known: BTreeMap<NodeName, MonoTime>,
    /// When routine work is due.
    pub due: Cadence,
}

/// A failsafe grant that binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// Who may stay primary.
    pub to: NodeName,
    /// Until when.
    pub until: MonoTime,
    /// The revision of `status` that was known when it was given; `None` if it is of a history of the store that is gone.
    pub status: Option<Revision>,
}

impl Promise {
    /// Whoever it was given to has stopped PostgreSQL and given the lock back since. Who takes the lock finds in its transaction that this is still
    /// the last word.
    #[must_use]
    pub fn void(&self, view: &ClusterView) -> bool {
        let vacated = view.status.as_ref().and_then(|status| status.vacated.as_ref());
        let newer = self.status.is_some_and(|known| known < view.status_revision);
        newer && view.leader.is_none() && vacated == Some(&self.to) && !lacks(Flaw::PromiseOutlived)
    }
}

/// A hand-over of the lock: a switchover, or the end of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The operator's wish behind it.
    pub key: Option<Revision>,
    /// Who shall take over; anybody if `None`.
    pub candidate: Option<NodeName>,
    /// PostgreSQL has stopped: where its shutdown checkpoint is, and when that became known.
    pub stopped: Option<(Option<Lsn>, MonoTime)>,
    /// Members that streamed when it began.
    pub streaming: BTreeSet<String>,
}

/// The newest timeline of this node's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stood {
    /// The timeline.
    pub timeline: Timeline,
    /// Since when it has been seen.
    pub since: MonoTime,
    /// The server here was a primary on it.
    pub wrote: bool,
    /// It was a replica since then.
    pub recovering: bool,
    /// It is known to be none of the cluster's: somebody promoted PostgreSQL past the agent, here or where this node's data comes from.
    pub usurped: bool,
}

/// The leader's timelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestry {
    /// Whose.
    pub leader: NodeName,
    /// Its reign.
    pub created: Revision,
    /// Its timeline.
    pub timeline: Timeline,
    /// How it came there.
    pub history: Vec<HistoryLine>,
}

impl Ancestry {
    /// Where `timeline` ended on the way to the leader's; `None` if the leader never was on it.
    #[must_use]
    pub fn fork_of(&self, timeline: Timeline) -> Option<Lsn> {
        self.history
            .iter()
            .find(|line| line.timeline == timeline)
            .map(|line| line.switch)
    }
}

/// An order to PostgreSQL that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The order.
    pub order: Order,
    /// In words.
    pub text: String,
    /// Not again before.
    pub retry: MonoTime,
    /// Failures in a row.
    pub count: u32,
}

/// Rewinds that ended well, under one leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewound {
    /// The leader's reign.
    pub reign: Revision,
    /// When the first of them ended.
    pub first: MonoTime,
    /// When the last of them ended.
    pub last: MonoTime,
}

/// Whether etcd takes what a node writes to its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writes {
    /// None was answered yet.
    #[default]
    Untried,
    /// The last one failed, or was not answered: etcd is out of reach, or has no space.
    Refused,
    /// It does.
    Taken {
        /// Since the first of those that were taken one after another was answered: a request waits for an etcd that is away.
        since: MonoTime,
    },
}

/// The first checkpoint after a promotion: until it is made, pg_rewind of others would see the old timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterPromotion {
    /// No promotion in this reign.
    NotNeeded,
    /// To be made.
    Wanted,
    /// Made, and said so.
    Made,
}

/// When routine work is due next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// A look at PostgreSQL.
    pub probe: MonoTime,
    /// A read of the DCS.
    pub read: MonoTime,
    /// A renewal.
    pub renew: MonoTime,
    /// The member key.
    pub publish: MonoTime,
    /// Questions to the peers.
    pub peers: MonoTime,
    /// A failsafe round.
    pub failsafe: MonoTime,
    /// Slots.
    pub slots: MonoTime,
    /// The `config` key, while there is none.
    pub config: MonoTime,
    /// Other keys of the leader.
    pub keys: MonoTime,
}

/// How far this cluster's primary has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reached {
    /// Its timeline, if it is known.
    pub timeline: Option<Timeline>,
    /// Its position on it.
    pub position: Lsn,
    /// The way to that timeline, or the newest part of it.
    pub forks: Vec<Fork>,
}

impl Reached {
    /// How far this server is.
    #[must_use]
    pub fn by(server: &Server) -> Self {
        Self {
            timeline: Some(server.timeline),
            position: server.position(),
            forks: server.history.iter().map(Fork::from).collect(),
        }
    }
}

impl State {
    /// This node's primary may run without a deadline: the cluster is paused, and everybody can know.
    #[must_use]
    pub fn exempt(&self, config: &Config) -> bool {
        config.pause && self.unfenced
    }

    /// The memory of a node that has just begun.
    #[must_use]
    pub fn new(lease: Lease, now: MonoTime) -> Self {
        Self {
            lease,
            shutdown: None,
            leaving: None,
            exiting: false,
            unsure: false,
            unsure_before: false,
            tried: false,
            gated: None,
            opened: MonoTime::ZERO,
            begun_as_replica: false,
            reserved: None,
            proposed: None,
            releasing: false,
            release_in_doubt: false,
            unfenced: false,
            reigned: false,
            reached: None,
            told: None,
            down_since: None,
            failed_starts: 0,
            giving_up: false,
            unresponsive_since: None,
            cooldown: MonoTime::ZERO,
            promise: None,
            claimed: false,
            created: None,
            handover: None,
            refused: None,
            restarted: MonoTime::ZERO,
            last_start: None,
            asked: None,
            asked_at: MonoTime::ZERO,
            reclone: None,
            floor: Revision(0),
            receded: None,
            nudged: None,
            rebuilt: None,
            rewound: None,
            ancestry: None,
            failure: None,
            granted: MonoTime::ZERO,
            armed: MonoTime::ZERO,
            stood: None,
            settled: now,
            last_stop: MonoTime::ZERO,
            checkpoint: AfterPromotion::NotNeeded,
            failsafe_sent: None,
            sync: Progress::default(),
            // The agent before this one may have sent one.
            sync_in_doubt: true,
            deadline: None,
            writes: Writes::Untried,
            published: None,
            known: BTreeMap::new(),
            due: Cadence {
                probe: now,
                read: now,
                renew: now,
                publish: now,
                peers: now,
                failsafe: now,
                slots: now,
                config: now,
                keys: now,
            },
        }
    }

    /// Remembers that an order to PostgreSQL failed. Each failure in a row doubles the wait, up to 30 s.
    pub fn failed(&mut self, now: MonoTime, order: Order, text: String, first_wait: Duration) {
        let count = self.failure.as_ref().map_or(0, |failure| failure.count) + 1;
        let wait = (first_wait * 2u32.saturating_pow(count - 1).min(64)).min(Duration::from_secs(30));
        self.failure = Some(Failure {
            order,
            text,
            retry: now.plus(wait),
            count,
        });
    }

    /// The hand-over under way is over. Its wish is not repeated by itself: each attempt cuts clients off.
    pub fn end_handover(&mut self) {
        if let Some(handover) = self.handover.take() {
            self.refused = handover.key;
        }
    }

    /// The reign is over.
    pub fn lost_lock(&mut self) {
        self.lease.held = false;
        self.reserved = None;
        self.sync.forget();
        self.reigned = false;
        self.reached = None;
        self.told = None;
        self.giving_up = false;
        self.releasing = false;
        self.release_in_doubt = false;
        self.down_since = None;
        self.failed_starts = 0;
        self.checkpoint = AfterPromotion::NotNeeded;
    }
}
