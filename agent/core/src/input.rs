//! What can happen to a node: past facts, each with the time it is true for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::types::{ActionId, LeaseId, Lsn, MonoTime, NodeName, Revision, SystemId, Term, Timeline};
use crate::view::{ClusterView, HistoryLine, PeerStatus, PostgresView};

/// One thing that happened. Any input at any time is legal; lost, doubled and reordered ones are harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Only time passed.
    Tick,
    /// Another member asks how things stand now: PostgreSQL is looked at without waiting for the next round.
    Look,
    /// The DCS changed, as its watch tells. A hint: nothing is promoted on the strength of it alone.
    Cluster(ClusterView),
    /// The guard saw the postmaster end, and nothing of it is left. A hint to look: it can come after the next server has been started.
    PostgresExited,
    /// The guard's process is gone; the kernel is stopping PostgreSQL.
    GuardLost,
    /// The settings changed.
    Config(Config),
    /// Another primary asks to stay primary without the DCS. The answer is the `grant` of the reply.
    FailsafeAsked {
        /// Names the question for the reply.
        request: RequestId,
        /// Who asks.
        leader: NodeName,
        /// For how long at least, if it says so (Patroni does not).
        ttl: Option<Duration>,
    },
    /// Somebody asks something of this node, through REST.
    Operator {
        /// Names the question for the reply.
        request: RequestId,
        /// What is asked.
        order: OperatorOrder,
    },
    /// The agent is asked to end.
    Shutdown,
    /// A peer answered, or did not.
    Peer {
        /// Which.
        name: NodeName,
        /// When it was asked.
        asked: MonoTime,
        /// `None`: no answer within the time limit.
        status: Option<PeerStatus>,
    },
    /// An order was carried out, or was not.
    Done {
        /// Which.
        id: ActionId,
        /// How it went.
        outcome: Outcome,
    },
}

/// Names a question that awaits a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What people ask of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorOrder {
    /// Restart PostgreSQL in its present role.
    Restart,
    /// Build the data directory anew from the leader or a replica; the old one is moved aside.
    Reinitialize {
        /// Give up whatever is being done to PostgreSQL now.
        force: bool,
        /// Clone from the leader, not from a replica.
        from_leader: bool,
    },
}

/// How an order went. Each kind of [`crate::Order`] is answered by the outcome of its name, by `Failed` or by `Unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; nothing more to say.
    Ok,
    /// The key was written.
    Written {
        /// The store's revision of the transaction.
        revision: Revision,
    },
    /// Not done, and it certainly had no effect. The text is for people: place, cause, remedy.
    Failed(String),
    /// It may have had its effect: timed out, or the connection broke.
    Unknown(String),
    /// Refused where it was to be executed: the lease or generation was out of date.
    Refused(String),
    /// The DCS was read, linearizably, as of the time the request was sent.
    Read {
        /// When the request was sent.
        sent: MonoTime,
        /// What it held.
        view: ClusterView,
    },
    /// The lock is ours, and with `status` written until the ttl after `sent`, keep-alive and transaction being of one raft term.
    Locked {
        /// When the keep-alive (or the grant of the lease) was sent.
        sent: MonoTime,
        /// The lease the key hangs on.
        lease: LeaseId,
        /// The term both were answered under.
        term: Term,
        /// The store's revision of the transaction.
        revision: Revision,
        /// The revision at which the order's `status` was written; `None` if it was not, for etcd has no space, or an earlier attempt has taken
        /// the lock. Then this gives no right.
        written: Option<Revision>,
    },
    /// The lock is certainly not ours: somebody else holds it, or (for a renewal) nobody does.
    NotLocked {
        /// The holder that the transaction saw, if there is one.
        holder: Option<NodeName>,
    },
    /// PostgreSQL and its data directory were looked at.
    Probed {
        /// When the look began.
        at: MonoTime,
        /// What was seen.
        view: PostgresView,
    },
    /// PostgreSQL stopped (or, with `finishing`, has written its shutdown checkpoint and can take no more writes).
    Stopped {
        /// Position of the shutdown checkpoint of a clean stop; `None` after an immediate one.
        checkpoint: Option<Lsn>,
    },
    /// A new cluster was created, and is stopped.
    Bootstrapped {
        /// Its identity.
        system_id: SystemId,
    },
    /// The leader's history was read.
    Ancestry {
        /// The timeline the leader is on.
        timeline: Timeline,
        /// How it came there.
        history: Vec<HistoryLine>,
    },
    /// A failsafe round ended.
    Failsafe {
        /// When the questions were sent.
        sent: MonoTime,
        /// Who granted.
        granted: BTreeSet<NodeName>,
        /// Who answered that it is a primary itself.
        refused: BTreeSet<NodeName>,
    },
}
