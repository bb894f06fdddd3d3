//! What a real etcd does by chance only, on order.

use super::api::{Error, Request, Revision};
use crate::clock::Time;

/// Which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Linearizable reads.
    Read,
    /// Transactions and other writes of keys.
    Write,
    /// Grants of leases.
    Grant,
    /// Keep-alives.
    KeepAlive,
    /// Any.
    Any,
}

impl Kind {
    fn is<K, V>(self, request: &Request<K, V>) -> bool {
        match self {
            Self::Any => true,
            Self::Grant => matches!(request, Request::Grant { .. }),
            Self::KeepAlive => matches!(request, Request::KeepAlive(_)),
            Self::Read => matches!(request, Request::Range(range) if !range.serializable),
            Self::Write => matches!(request, Request::Put(_) | Request::Delete(_) | Request::Txn(_)),
        }
    }
}

/// A misdeed of a member. Those of requests happen once each; plant more for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mischief {
    /// Refuse the next such request, without effect.
    Refuse(usize, Kind, Error),
    /// Carry out the next such request, and answer with an error.
    DoAndFail(usize, Kind, Error),
    /// Carry out the next such request, and never answer.
    DoAndSwallow(usize, Kind),
    /// Answer linearizable reads from what the member has, until then (etcd 20418).
    StaleReads(usize, Time),
    /// The next message of each of the member's watches is lost (etcd 15271, 17529).
    LoseEvents(usize),
    /// The next message of each of the member's watches comes twice.
    RepeatEvents(usize),
    /// With the next message the member's watches tell anew all since this revision (etcd 19179).
    Rewind(usize, Revision),
}

/// What becomes of a request.
pub(super) enum Fate {
    Usual,
    Refused(Error),
    Fails(Error),
    Swallowed,
}

/// The fate of a request at a member; what decided it is used up.
pub(super) fn fate<K, V>(planted: &mut Vec<Mischief>, member: usize, request: &Request<K, V>) -> Fate {
    let hit = planted.iter().position(|mischief| match mischief {
        Mischief::Refuse(at, kind, _)
        | Mischief::DoAndFail(at, kind, _)
        | Mischief::DoAndSwallow(at, kind) => *at == member && kind.is(request),
        _ => false,
    });
    match hit.map(|index| planted.remove(index)) {
        Some(Mischief::Refuse(_, _, error)) => Fate::Refused(error),
        Some(Mischief::DoAndFail(_, _, error)) => Fate::Fails(error),
        Some(Mischief::DoAndSwallow(..)) => Fate::Swallowed,
        _ => Fate::Usual,
    }
}

/// The member answers reads from what it has.
pub(super) fn stale(planted: &[Mischief], member: usize, now: Time) -> bool {
    planted
        .iter()
        .any(|mischief| matches!(mischief, Mischief::StaleReads(at, until) if *at == member && now < *until))
}
