//! What can be asked of etcd and what it answers: the part of its v3 API that a cluster manager can meet, over any key and value.

use crate::clock::Time;

/// A revision of the whole store. Zero: none; as a bound, "now".
pub type Revision = i64;

/// A lease's number. Zero: none.
pub type LeaseId = i64;

/// The keys that something is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys<K> {
    /// This one.
    One(K),
    /// From the first on, up to the second, which is not among them.
    Between(K, K),
    /// This one and all after it.
    From(K),
}

impl<K: Ord> Keys<K> {
    /// Whether `key` is among them.
    #[must_use]
    pub fn contain(&self, key: &K) -> bool {
        match self {
            Self::One(one) => key == one,
            Self::Between(first, end) => first <= key && key < end,
            Self::From(first) => first <= key,
        }
    }
}

impl Keys<Vec<u8>> {
    /// As the API encodes it: no end is one key, an end of one zero byte is everything from the key on.
    #[must_use]
    pub fn of_bytes(key: Vec<u8>, end: Vec<u8>) -> Self {
        match end.as_slice() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Between(key, end),
        }
    }
}

/// A read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range<K> {
    /// What.
    pub keys: Keys<K>,
    /// As of this revision; zero for now.
    pub revision: Revision,
    /// At most so many; zero for all.
    pub limit: usize,
    /// Answered by the member from what it has, however old that is.
    pub serializable: bool,
    /// Only how many there are.
    pub count_only: bool,
}

impl<K> Range<K> {
    /// A linearizable read of the present.
    #[must_use]
    pub fn new(keys: Keys<K>) -> Self {
        Self {
            keys,
            revision: 0,
            limit: 0,
            serializable: false,
            count_only: false,
        }
    }
}

/// A write of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put<K, V> {
    /// Where.
    pub key: K,
    /// What; `None` keeps the value there is (`ignore_value`).
    pub value: Option<V>,
    /// The lease it is to hang on; zero for none; `None` keeps the lease there is (`ignore_lease`).
    pub lease: Option<LeaseId>,
    /// Answer with what was there before.
    pub previous: bool,
}

/// A deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete<K> {
    /// What.
    pub keys: Keys<K>,
    /// Answer with what was there before.
    pub previous: bool,
}

/// What a comparison is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<V> {
    /// How often the key was written since it was created; zero: absent.
    Version(i64),
    /// When it was created; zero: absent.
    Create(Revision),
    /// When it was written; zero: absent.
    Mod(Revision),
    /// Its value. Never true of an absent key.
    Value(V),
    /// Its lease.
    Lease(LeaseId),
}

/// How the key is to stand to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// More than it.
    Greater,
    /// Less than it.
    Less,
    /// Another.
    NotEqual,
}

/// A condition of a transaction: it must hold for each of the keys that exists, or for the absent key if none does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare<K, V> {
    /// Which.
    pub keys: Keys<K>,
    /// How.
    pub is: Relation,
    /// To what.
    pub to: Target<V>,
}

impl<K, V> Compare<K, V> {
    /// The key equals the target.
    #[must_use]
    pub fn equal(key: K, to: Target<V>) -> Self {
        Self {
            keys: Keys::One(key),
            is: Relation::Equal,
            to,
        }
    }
}

/// A step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op<K, V> {
    /// A read: sees the steps before it.
    Range(Range<K>),
    /// A write.
    Put(Put<K, V>),
    /// A deletion.
    Delete(Delete<K>),
    /// A transaction within.
    Txn(Txn<K, V>),
}

/// A transaction: if all of `when` holds, all of `then`; or else all of `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn<K, V> {
    /// The conditions.
    pub when: Vec<Compare<K, V>>,
    /// If they hold.
    pub then: Vec<Op<K, V>>,
    /// If not.
    pub otherwise: Vec<Op<K, V>>,
}

impl<K, V> Default for Txn<K, V> {
    fn default() -> Self {
        Self {
            when: Vec::new(),
            then: Vec::new(),
            otherwise: Vec::new(),
        }
    }
}

/// A request of one answer. Watches are streams: see [`super::Etcd::watch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<K, V> {
    /// Read.
    Range(Range<K>),
    /// Write.
    Put(Put<K, V>),
    /// Delete.
    Delete(Delete<K>),
    /// All of it or nothing.
    Txn(Txn<K, V>),
    /// Forget what was before this revision.
    Compact(Revision),
    /// A lease of so many seconds. The number zero lets etcd choose one.
    Grant {
        /// Its number.
        id: LeaseId,
        /// Its life in seconds.
        ttl: i64,
    },
    /// End a lease, with the keys on it.
    Revoke(LeaseId),
    /// Let a lease live anew.
    KeepAlive(LeaseId),
    /// What is known of a lease, with its keys if asked.
    TimeToLive(LeaseId, bool),
    /// All leases.
    Leases,
    /// What the member says of itself; answered whatever the state of the cluster.
    Status,
    /// A token for a user who knows the password.
    Authenticate,
    /// Make this member the leader.
    MoveLeader(usize),
    /// Switch the alarm for lack of space on, or off.
    Alarm(bool),
}

impl<K, V> Request<K, V> {
    /// Goes through the log.
    #[must_use]
    pub fn proposes(&self) -> bool {
        match self {
            Self::Put(_)
            | Self::Delete(_)
            | Self::Compact(_)
            | Self::Grant { .. }
            | Self::Revoke(_)
            | Self::Alarm(_) => true,
            Self::Txn(txn) => txn.writes(),
            Self::Range(_)
            | Self::KeepAlive(_)
            | Self::TimeToLive(..)
            | Self::Leases
            | Self::Status
            | Self::Authenticate
            | Self::MoveLeader(_) => false,
        }
    }
}

impl<K, V> Txn<K, V> {
    /// Either branch holds a write.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.then.iter().chain(&self.otherwise).any(|op| match op {
            Op::Range(_) => false,
            Op::Put(_) | Op::Delete(_) => true,
            Op::Txn(txn) => txn.writes(),
        })
    }
}

/// A key as it is at some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue<K, V> {
    /// Its name.
    pub key: K,
    /// Its value; `None` in the event of a deletion.
    pub value: Option<V>,
    /// When it was created.
    pub create: Revision,
    /// When it was last written.
    pub modified: Revision,
    /// How often it was written since it was created.
    pub version: i64,
    /// The lease it hangs on.
    pub lease: LeaseId,
}

/// The answer to each kind of [`Request`] and [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<K, V> {
    /// To a read.
    Range {
        /// The keys, in order.
        kvs: Vec<KeyValue<K, V>>,
        /// There are more than the limit.
        more: bool,
        /// How many there are, whatever the limit.
        count: usize,
    },
    /// To a write: what was there, if asked for.
    Put(Option<KeyValue<K, V>>),
    /// To a deletion.
    Delete {
        /// How many.
        deleted: usize,
        /// What was there, if asked for.
        previous: Vec<KeyValue<K, V>>,
    },
    /// To a transaction.
    Txn {
        /// The conditions held.
        succeeded: bool,
        /// One for each step of the branch taken.
        responses: Vec<Self>,
    },
    /// Compacted.
    Compact,
    /// A lease, with the life it got.
    Grant {
        /// Its number.
        id: LeaseId,
        /// Seconds.
        ttl: i64,
    },
    /// Revoked.
    Revoke,
    /// Kept alive.
    KeepAlive {
        /// Its number.
        id: LeaseId,
        /// Seconds; zero: there is no such lease.
        ttl: i64,
    },
    /// A lease.
    TimeToLive {
        /// Its number.
        id: LeaseId,
        /// Seconds left; −1: there is no such lease.
        ttl: i64,
        /// The life it was granted.
        granted: i64,
        /// The keys on it, if asked for.
        keys: Vec<K>,
    },
    /// All leases.
    Leases(Vec<LeaseId>),
    /// What the member knows.
    Status {
        /// Whom it takes for the leader.
        leader: Option<usize>,
        /// Its raft term.
        term: u64,
        /// Its place in the log.
        index: u64,
    },
    /// A token.
    Token(u64),
    /// Done.
    MoveLeader,
    /// Done.
    Alarm,
}

/// Why something was not done, or why that is not known. `code` and `message` are etcd's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Error {
    /// The member knows of no leader, and the client asked for one.
    NoLeader,
    /// The member waited for its proposal, or for the leader, and gives up. The proposal may still be applied.
    Timeout,
    /// The same, where the leader was lost meanwhile.
    TimeoutLeaderFail,
    /// The same, where the leader is cut off from this member.
    TimeoutConnectionLost,
    /// A linearizable read met a change of the leader.
    LeaderChanged,
    /// The member is stopping.
    Stopped,
    /// The member waited in vain for a leader to propose to: with the code `Unknown`.
    DeadlineExceeded,
    /// The proposal was dropped before it was sent.
    ProposalDropped,
    /// The leader ceased to be one while a keep-alive waited in it (B-010: with the code `Unknown`).
    NotPrimary,
    /// More proposals than can be applied.
    TooManyRequests,
    /// The database is full.
    NoSpace,
    /// There is no such lease.
    LeaseNotFound,
    /// There is one of this number.
    LeaseExists,
    /// Longer than etcd's limit of 9,000,000,000 s.
    LeaseTtlTooLarge,
    /// The token is unknown or has expired.
    InvalidToken,
    /// The token was given before authentication was last changed.
    AuthOldRevision,
    /// The user may not do this.
    PermissionDenied,
    /// The revision has been compacted.
    Compacted,
    /// The revision is yet to come.
    FutureRevision,
    /// One key twice in one transaction.
    DuplicateKey,
    /// A transaction of more than 128 steps.
    TooManyOps,
    /// No key was given.
    EmptyKey,
    /// There is nothing to keep the value or the lease of.
    KeyNotFound,
    /// An alarm says that the members' data differ.
    Corrupt,
    /// The member named is not the leader.
    NotLeader,
}

impl Error {
    /// The gRPC status code's number.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::NotPrimary | Self::ProposalDropped | Self::DeadlineExceeded => 2,
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::DuplicateKey
            | Self::TooManyOps
            | Self::AuthOldRevision => 3,
            Self::LeaseNotFound => 5,
            Self::PermissionDenied => 7,
            Self::TooManyRequests | Self::NoSpace => 8,
            Self::LeaseExists | Self::NotLeader => 9,
            Self::Compacted | Self::FutureRevision | Self::LeaseTtlTooLarge => 11,
            Self::NoLeader
            | Self::Timeout
            | Self::TimeoutLeaderFail
            | Self::TimeoutConnectionLost
            | Self::LeaderChanged
            | Self::Stopped => 14,
            Self::Corrupt => 15,
            Self::InvalidToken => 16,
        }
    }

    /// The text.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::NoLeader => "etcdserver: no leader",
            Self::Timeout => "etcdserver: request timed out",
            Self::TimeoutLeaderFail => {
                "etcdserver: request timed out, possibly due to previous leader failure"
            }
            Self::TimeoutConnectionLost => "etcdserver: request timed out, possibly due to connection lost",
            Self::LeaderChanged => "etcdserver: leader changed",
            Self::Stopped => "etcdserver: server stopped",
            Self::DeadlineExceeded => "context deadline exceeded",
            Self::ProposalDropped => "raft proposal dropped",
            Self::NotPrimary => "not a primary lessor",
            Self::TooManyRequests => "etcdserver: too many requests",
            Self::NoSpace => "etcdserver: mvcc: database space exceeded",
            Self::LeaseNotFound => "etcdserver: requested lease not found",
            Self::LeaseExists => "etcdserver: lease already exists",
            Self::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            Self::InvalidToken => "etcdserver: invalid auth token",
            Self::AuthOldRevision => "etcdserver: revision of auth store is old",
            Self::PermissionDenied => "etcdserver: permission denied",
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            Self::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Self::TooManyOps => "etcdserver: too many operations in txn request",
            Self::EmptyKey => "etcdserver: key is not provided",
            Self::KeyNotFound => "etcdserver: key not found",
            Self::Corrupt => "etcdserver: corrupt cluster",
            Self::NotLeader => "etcdserver: not leader",
        }
    }
}

/// Whose answer it is, and as of when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The member that answers.
    pub member: usize,
    /// The term of the last entry that this member has applied: what etcd calls `raft_term`.
    pub term: u64,
    /// The revision that this member has applied.
    pub revision: Revision,
}

/// Who asks, in what manner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The caller's own number for it, given back with the answer.
    pub id: u64,
    /// Refuse at once where there is no leader (the metadata `hasleader`).
    pub require_leader: bool,
    /// The token, where authentication is on.
    pub token: u64,
}

impl Call {
    /// A call in the manner of the agent, which requires a leader.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            require_leader: true,
            token: 0,
        }
    }
}

/// What a watch is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch<K> {
    /// Of which keys.
    pub keys: Keys<K>,
    /// From this revision on; zero: from the next.
    pub start: Revision,
    /// With what was there before.
    pub previous: bool,
    /// End it when the member has had no leader for three election timeouts (the metadata `hasleader`).
    pub require_leader: bool,
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<K, V> {
    /// The key as it is now; without a value if it was deleted.
    pub kv: KeyValue<K, V>,
    /// As it was, if asked for and not compacted.
    pub previous: Option<KeyValue<K, V>>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<K, V> {
    /// It has begun.
    Created,
    /// Changes, in order; one or several whole revisions.
    Events(Vec<Event<K, V>>),
    /// Nothing new up to the header's revision.
    Progress,
    /// Cancelled, for events before this revision are gone. The stream stays open (B-005).
    Compacted(Revision),
    /// Ended with an error; the stream is closed.
    Ended(Error),
}

/// How a revision changed a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was written.
    Written,
    /// It was deleted by a request.
    Deleted,
    /// It was gone with its lease, which nobody kept alive.
    Expired,
    /// It was gone with its lease, which was revoked: by a request, or by a leader that was left behind.
    Revoked,
}

/// Something that leaves a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<K, V> {
    /// The answer to a call.
    Answer {
        /// When it leaves.
        at: Time,
        /// The call.
        call: u64,
        /// Whose answer it is.
        header: Header,
        /// The answer.
        result: Result<Response<K, V>, Error>,
    },
    /// A message of a watch. Those of one watch leave in order.
    Watch {
        /// When it leaves.
        at: Time,
        /// The watch.
        watch: u64,
        /// Whose message it is.
        header: Header,
        /// What it tells.
        told: Told<K, V>,
    },
}
