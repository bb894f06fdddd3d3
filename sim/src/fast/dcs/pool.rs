//! An agent's endpoints of etcd: which to ask, for how long, and whose answer to believe. As `agent/src/dcs/pool.rs` does it.

use surus_scenarios::ErrorCode;

use crate::clock::{MS, SEC, Time};
use crate::model::etcd::Error;

/// How long a failed endpoint is asked last.
const AVOID_FOR: Time = 5 * SEC;
/// The least time an attempt gets if there is any choice.
const LEAST_SHARE: Time = 300 * MS;
/// The most time an attempt gets in the first round; each later round doubles it.
const MOST_SHARE: Time = SEC;
/// Pause between rounds.
pub const BETWEEN_ROUNDS: Time = 100 * MS;
/// Remaining time that is not worth an attempt.
const TOO_LATE: Time = 2 * MS;
/// When all answers have been older for so long, etcd was restored from a backup.
const BELIEVE_AFTER: Time = 60 * SEC;

/// What to do about a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Another endpoint may do better.
    Elsewhere,
    /// The token is out of date.
    Token,
    /// The lease named in the request does not exist.
    LeaseGone,
    /// etcd's database is full.
    NoSpace,
    /// Refused for good by this endpoint.
    Denied,
}

/// A failed request to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub kind: Kind,
    /// It may have been carried out.
    pub maybe: bool,
}

impl Failure {
    /// Nothing was sent, or it was refused.
    pub const REFUSED: Self = Self {
        kind: Kind::Elsewhere,
        maybe: false,
    };
    /// No telling what became of it.
    pub const AMBIGUOUS: Self = Self {
        kind: Kind::Elsewhere,
        maybe: true,
    };

    /// The table of `agent/src/dcs/fault.rs`.
    pub fn of(error: Error) -> Self {
        let certain = |kind| Self { kind, maybe: false };
        match error {
            Error::NoLeader | Error::TooManyRequests => Self::REFUSED,
            Error::NoSpace => certain(Kind::NoSpace),
            Error::InvalidToken | Error::AuthOldRevision => certain(Kind::Token),
            Error::LeaseNotFound => certain(Kind::LeaseGone),
            Error::LeaseExists
            | Error::LeaseTtlTooLarge
            | Error::PermissionDenied
            | Error::Compacted
            | Error::FutureRevision
            | Error::DuplicateKey
            | Error::TooManyOps
            | Error::EmptyKey
            | Error::KeyNotFound
            | Error::NotLeader => certain(Kind::Denied),
            Error::Timeout
            | Error::TimeoutLeaderFail
            | Error::TimeoutConnectionLost
            | Error::LeaderChanged
            | Error::Stopped
            | Error::DeadlineExceeded
            | Error::ProposalDropped
            | Error::NotPrimary
            | Error::Corrupt => Self::AMBIGUOUS,
        }
    }
}

impl Failure {
    /// The same for a story's words.
    pub fn of_code(code: ErrorCode) -> Self {
        let certain = |kind| Self { kind, maybe: false };
        match code {
            ErrorCode::NoLeader | ErrorCode::TooManyRequests => Self::REFUSED,
            ErrorCode::NoSpace => certain(Kind::NoSpace),
            ErrorCode::InvalidToken | ErrorCode::AuthOld => certain(Kind::Token),
            ErrorCode::LeaseNotFound => certain(Kind::LeaseGone),
            ErrorCode::NotLeader
            | ErrorCode::TooLarge
            | ErrorCode::LeaseExists
            | ErrorCode::Compacted
            | ErrorCode::FutureRevision
            | ErrorCode::PermissionDenied => certain(Kind::Denied),
            _ => Self::AMBIGUOUS,
        }
    }
}

/// One endpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Endpoint {
    avoid_until: Time,
    /// The process that the connection leads to, by its number.
    connected: Option<u64>,
}

/// The endpoints of one agent.
#[derive(Debug, Clone)]
pub struct Pool {
    endpoints: Vec<Endpoint>,
    /// The one that answered last.
    best: usize,
    /// The newest term that was seen.
    term: u64,
    /// Since when no answer has matched it.
    doubted: Option<Time>,
}

/// Endpoints in the order to ask them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Round {
    order: [u8; 8],
    len: u8,
    /// How many have been asked.
    pub asked: u8,
    /// How many have refused for good.
    pub denied: u8,
    /// Rounds before this one.
    pub number: u32,
    /// The token of this one has been renewed.
    pub retried: bool,
}

impl Round {
    /// The one to ask now.
    pub fn at(&self) -> Option<usize> {
        (self.asked < self.len).then(|| usize::from(self.order[usize::from(self.asked)]))
    }

    /// All have refused for good.
    pub fn denied(&self) -> bool {
        self.denied == self.len
    }
}

impl Pool {
    /// A pool of so many.
    pub fn new(members: usize, first: usize) -> Self {
        Self {
            endpoints: vec![Endpoint::default(); members],
            best: first % members,
            term: 0,
            doubted: None,
        }
    }

    /// The best first, those that failed lately last.
    pub fn round(&self, now: Time, number: u32) -> Round {
        let count = self.endpoints.len();
        let mut round = Round {
            number,
            ..Round::default()
        };
        for avoided in [false, true] {
            for step in 0..count {
                let index = (self.best + step) % count;
                if (now < self.endpoints[index].avoid_until) == avoided {
                    round.order[usize::from(round.len)] = u8::try_from(index).unwrap_or(0);
                    round.len += 1;
                }
            }
        }
        round
    }

    /// How long an attempt may take; `None`: it is too late for one.
    pub fn share(&self, now: Time, deadline: Time, round: &Round) -> Option<Time> {
        let remaining = deadline.saturating_sub(now);
        if remaining < TOO_LATE {
            return None;
        }
        let left = u64::from(round.len - round.asked);
        let parts = if round.number == 0 { left.max(2) } else { left };
        let most = MOST_SHARE << round.number.min(10);
        Some((remaining / parts).max(LEAST_SHARE).min(most).min(remaining))
    }

    /// Whether an answer of this term may be believed.
    pub fn admit(&mut self, term: u64, now: Time) -> bool {
        if term < self.term && now.saturating_sub(*self.doubted.get_or_insert(now)) < BELIEVE_AFTER {
            return false;
        }
        self.term = term;
        self.doubted = None;
        true
    }

    /// It answered.
    pub fn praise(&mut self, member: usize) {
        self.best = member;
        self.endpoints[member].avoid_until = 0;
    }

    /// It is asked last for a while.
    pub fn avoid(&mut self, member: usize, now: Time) {
        self.endpoints[member].avoid_until = now + AVOID_FOR;
    }

    /// Which process the connection leads to.
    pub fn connected(&self, member: usize) -> Option<u64> {
        self.endpoints[member].connected
    }

    /// There is a connection to this process; or none any more.
    pub fn connect(&mut self, member: usize, process: Option<u64>) {
        self.endpoints[member].connected = process;
    }
}
