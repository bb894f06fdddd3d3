//! What walreceiver and walsender say to each other, at the level of the streaming replication protocol.

use super::settings::Peer;
use super::timeline::Fork;
use super::wal::Piece;
use surus_core::types::SystemId;

/// A connection of a walreceiver to a walsender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The walreceiver's server.
    pub standby: Peer,
    /// The walsender's server.
    pub upstream: Peer,
    /// Tells the connections of one standby apart.
    pub number: u32,
}

/// A message on a link. Those of one link and direction arrive in order or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// To the upstream: a connection, IDENTIFY_SYSTEM and the history files from `timeline` on.
    Hello {
        /// `application_name`.
        application_name: String,
        /// The timeline the standby is on.
        timeline: u32,
    },
    /// To the upstream: START_REPLICATION.
    Start {
        /// The slot to use.
        slot: Option<String>,
        /// The timeline to stream.
        timeline: u32,
        /// From here on.
        from: u64,
    },
    /// To the upstream: a standby status update.
    Feedback {
        /// Written up to.
        written: u64,
        /// Flushed up to.
        flushed: u64,
        /// Replayed up to.
        applied: u64,
        /// The upstream shall answer at once.
        ping: bool,
    },
    /// To the standby: the answer to `Hello`.
    Identity {
        /// Whose data it is.
        system_id: SystemId,
        /// The upstream's timeline.
        timeline: u32,
        /// Its history files, from the standby's timeline on; a file that is missing there is not among them.
        histories: Vec<(u32, Vec<Fork>)>,
    },
    /// To the standby: streaming begins.
    Started,
    /// To the standby: WAL.
    Wal(Piece),
    /// To the standby: a keepalive.
    Keepalive {
        /// The standby shall answer at once.
        ping: bool,
    },
    /// To the standby: the timeline ends here for this upstream, which went on with another, and the history files that the standby then asks
    /// for.
    EndOfTimeline {
        /// The next timeline.
        timeline: u32,
        /// The upstream's history files up to that one's, from the standby's timeline on.
        histories: Vec<(u32, Vec<Fork>)>,
    },
    /// To the standby: an error, and the connection's end.
    Refused(Refused),
    /// Either way: the connection is closed. A host that is lost does not send it.
    Close,
}

impl Message {
    /// Bytes on the wire, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Wal(piece) => piece.end - piece.from + 30,
            _ => 60,
        }
    }
}

/// Why a walsender refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nothing listens there (the host's kernel answers), or it takes no connections now.
    NoServer,
    /// "the database system is starting up" or "is shutting down".
    NotNow,
    /// "requested starting point … on timeline … is not in this server's history".
    NotInHistory,
    /// "requested WAL segment … has already been removed".
    Removed,
    /// "replication slot … does not exist".
    NoSlot,
    /// "replication slot … is active for PID …".
    SlotActive,
    /// The slot was invalidated, or is a logical one.
    SlotUnusable,
    /// "number of requested standby connections exceeds max_wal_senders".
    TooMany,
}

impl Refused {
    /// In PostgreSQL's words, or nearly.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoServer => "connection refused",
            Self::NotNow => "the database system is starting up or shutting down",
            Self::NotInHistory => "requested starting point is not in this server's history",
            Self::Removed => "requested WAL segment has already been removed",
            Self::NoSlot => "replication slot does not exist",
            Self::SlotActive => "replication slot is active",
            Self::SlotUnusable => "replication slot cannot be used",
            Self::TooMany => "too many standby connections",
        }
    }
}
