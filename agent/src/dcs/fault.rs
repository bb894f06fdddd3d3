//! What an error of etcd means: whether the request may have had its effect, and where to turn next.
//!
//! | error | effect | what is done |
//! |---|---|---|
//! | no connection existed or came about | none | next endpoint |
//! | no answer in time, connection broken, `Cancelled`, `Aborted`, `DeadlineExceeded`, `Internal` | maybe | next endpoint, on a new connection |
//! | `Unavailable` `no leader` (refused at the door, for we ask for `hasleader`) | none | next endpoint |
//! | `Unavailable` otherwise: `request timed out`, `leader changed`, `server stopped` | maybe | next endpoint |
//! | `Unknown`: `not a primary lessor`, `raft proposal dropped`, and etcd's other mislabelled leader changes | maybe | next endpoint |
//! | `ResourceExhausted` `database space exceeded` | none | the caller falls back on a read, or fails |
//! | `ResourceExhausted` otherwise: `too many requests` | none | next endpoint |
//! | `Unauthenticated`; `auth store is old`, `user name is empty`, `authentication is not enabled` | none | new token, once per endpoint |
//! | `NotFound` `requested lease not found` | none | the lease is gone: the caller grants another |
//! | `PermissionDenied`, `InvalidArgument`, `FailedPrecondition`, `NotFound`, `AlreadyExists`, `OutOfRange`, `Unimplemented` | none | next endpoint; final once all have said so |
//! | `DataLoss` (corruption alarm) | maybe | next endpoint |
//! | an answer of an older raft term or of another cluster | maybe | next endpoint |
//!
//! "None" is said only where etcd refuses a request before it becomes a raft proposal. Everything unknown is "maybe".

use std::error::Error as _;

use surus_core::input::Outcome;
use tonic::Code;

/// Why something asked of etcd was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DcsError {
    /// It certainly had no effect. The text names the endpoints and their answers.
    #[error("etcd did not do it: {0}")]
    Failed(String),
    /// It may have had its effect: some endpoint got it and did not answer, or answered ambiguously.
    #[error("etcd may or may not have done it: {0}")]
    Unknown(String),
    /// The settings cannot work, whatever etcd does.
    #[error("bad etcd3 settings: {0}")]
    Settings(String),
}

impl From<DcsError> for Outcome {
    fn from(error: DcsError) -> Self {
        let text = error.to_string();
        match error {
            DcsError::Unknown(_) => Self::Unknown(text),
            DcsError::Failed(_) | DcsError::Settings(_) => Self::Failed(text),
        }
    }
}

/// What to do about a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Another endpoint may do better.
    Elsewhere,
    /// The token is out of date.
    Token,
    /// The lease named in the request does not exist.
    LeaseGone,
    /// etcd's database is full: it only reads and deletes.
    NoSpace,
    /// Refused for good by this endpoint.
    Denied,
}

/// A failed request to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What to do about it.
    pub(super) kind: Kind,
    /// The request may have been carried out.
    pub(super) maybe: bool,
    /// For people.
    pub(super) text: String,
}

impl Failure {
    /// Nothing was sent, or it was refused: try elsewhere.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Elsewhere,
            maybe: false,
            text: text.into(),
        }
    }

    /// No telling what became of it: try elsewhere.
    pub(super) fn ambiguous(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Elsewhere,
            maybe: true,
            text: text.into(),
        }
    }

    fn certain(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            maybe: false,
            text: text.into(),
        }
    }

    /// The keep-alive was answered: there is no such lease.
    pub(super) fn lease_gone() -> Self {
        Self::certain(Kind::LeaseGone, "the lease has expired or was revoked")
    }

    /// Reads an error of the client library by the table above.
    pub(super) fn of(error: &etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::of_status(status),
            etcd_client::Error::InvalidArgs(_)
            | etcd_client::Error::InvalidUri(_)
            | etcd_client::Error::InvalidMetadataValue(_) => Self::certain(Kind::Denied, error.to_string()),
            // The library's own words for an answer with a ttl of zero.
            etcd_client::Error::LeaseKeepAliveError(text) if text == "lease not found" => Self::lease_gone(),
            other => Self::ambiguous(other.to_string()),
        }
    }

    fn of_status(status: &tonic::Status) -> Self {
        let message = status.message();
        let text = describe(status);
        if unconnected(status) {
            return Self::refused(text);
        }
        let token = status.code() == Code::Unauthenticated
            || ["invalid auth token", "auth store is old", "user name is empty"]
                .iter()
                .any(|known| message.contains(known));
        if token {
            return Self::certain(Kind::Token, text);
        }
        match status.code() {
            Code::Unavailable if message.contains("no leader") => Self::refused(text),
            Code::ResourceExhausted if message.contains("space exceeded") => Self::certain(
                Kind::NoSpace,
                format!("{text} (compact and defragment etcd, then `etcdctl alarm disarm`)"),
            ),
            Code::ResourceExhausted if message.contains("too many requests") => Self::refused(text),
            Code::NotFound if message.contains("lease not found") => Self::certain(Kind::LeaseGone, text),
            Code::FailedPrecondition if message.contains("authentication is not enabled") => {
                Self::certain(Kind::Token, text)
            }
            Code::InvalidArgument if message.contains("authentication failed") => Self::certain(
                Kind::Denied,
                format!("{text} (check etcd3.username and etcd3.password)"),
            ),
            Code::PermissionDenied => Self::certain(
                Kind::Denied,
                format!("{text} (grant the user of etcd3.username readwrite on the cluster's prefix)"),
            ),
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::Unimplemented => Self::certain(Kind::Denied, text),
            _ => Self::ambiguous(text),
        }
    }
}

/// The status in words, with the innermost cause of a transport error, which its own text hides.
fn describe(status: &tonic::Status) -> String {
    let mut cause = status.source();
    let mut innermost = None;
    while let Some(error) = cause {
        innermost = Some(error.to_string());
        cause = error.source();
    }
    match innermost {
        Some(innermost) if innermost != status.message() => format!("{}: {innermost}", status.message()),
        _ => status.message().to_owned(),
    }
}

/// The status stems from a connection that did not come about.
fn unconnected(status: &tonic::Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: Code, message: &str) -> (Kind, bool) {
        let failure = Failure::of(&etcd_client::Error::GRpcStatus(tonic::Status::new(code, message)));
        (failure.kind, failure.maybe)
    }

    #[test]
    fn every_code_is_read_as_the_table_says() {
        use Kind::*;
        let table = [
            (Code::Unavailable, "etcdserver: no leader", Elsewhere, false),
            (
                Code::Unavailable,
                "etcdserver: request timed out",
                Elsewhere,
                true,
            ),
            (Code::Unavailable, "etcdserver: leader changed", Elsewhere, true),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
                Elsewhere,
                true,
            ),
            (Code::Unknown, "etcdserver: not a primary lessor", Elsewhere, true),
            (Code::Unknown, "raft proposal dropped", Elsewhere, true),
            (Code::Unknown, "transport error", Elsewhere, true),
            (
                Code::DeadlineExceeded,
                "context deadline exceeded",
                Elsewhere,
                true,
            ),
            (Code::Cancelled, "Timeout expired", Elsewhere, true),
            (Code::Aborted, "", Elsewhere, true),
            (Code::Internal, "h2 protocol error", Elsewhere, true),
            (Code::DataLoss, "etcdserver: corrupt cluster", Elsewhere, true),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                NoSpace,
                false,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                Elsewhere,
                false,
            ),
            (Code::ResourceExhausted, "something new", Elsewhere, true),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                Token,
                false,
            ),
            (Code::Unknown, "etcdserver: invalid auth token", Token, false),
            (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                Token,
                false,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                Token,
                false,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
                Token,
                false,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Denied,
                false,
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                Denied,
                false,
            ),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                LeaseGone,
                false,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Denied,
                false,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                Denied,
                false,
            ),
            (Code::Unimplemented, "unknown service", Denied, false),
            (Code::AlreadyExists, "", Denied, false),
        ];
        for (code, message, kind, maybe) in table {
            assert_eq!(read(code, message), (kind, maybe), "{code:?} {message}");
        }
    }

    #[test]
    fn unknown_stays_unknown_as_an_outcome() {
        assert!(matches!(
            Outcome::from(DcsError::Unknown("x".into())),
            Outcome::Unknown(_)
        ));
        assert!(matches!(
            Outcome::from(DcsError::Failed("x".into())),
            Outcome::Failed(_)
        ));
    }
}
