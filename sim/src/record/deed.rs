//! The kinds of orders, without what they carry: names for the record, the report and the coverage.

use std::fmt;

use surus_core::Order;
use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::{ActionId, NodeName};

use super::{OrderEnd, Seen};

macro_rules! deeds {
    ($($variant:ident = $name:literal,)*) => {
        /// A kind of order.
        #[expect(missing_docs, reason = "each is the order of its name")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Deed { $($variant,)* }

        impl Deed {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
        }
    };
}

deeds! {
    Acquire = "acquire",
    Renew = "renew",
    Release = "release",
    EndReign = "end-reign",
    ReadCluster = "read-cluster",
    ClaimInitialize = "claim-initialize",
    WriteInitialize = "write-initialize",
    UnclaimInitialize = "unclaim-initialize",
    WriteConfig = "write-config",
    WriteMember = "write-member",
    WriteHistory = "write-history",
    WriteFailsafe = "write-failsafe",
    ClearFailover = "clear-failover",
    Probe = "probe",
    Bootstrap = "bootstrap",
    BaseBackup = "base-backup",
    StartReplica = "start-replica",
    StartPrimary = "start-primary",
    StopFast = "stop-fast",
    StopImmediate = "stop-immediate",
    Promote = "promote",
    Follow = "follow",
    CompareHistory = "compare-history",
    Rewind = "rewind",
    Restart = "restart",
    AdoptPostmaster = "adopt-postmaster",
    SyncSlots = "sync-slots",
    Checkpoint = "checkpoint",
    WriteSync = "write-sync",
    SetSynchronous = "set-synchronous",
    OpenGate = "open-gate",
    SetDeadline = "set-deadline",
    AskPeers = "ask-peers",
    AskFailsafe = "ask-failsafe",
    Reply = "reply",
    Exit = "exit",
}

impl Deed {
    /// The kind of `order`.
    #[must_use]
    pub fn of(order: &Order) -> Self {
        match order {
            Order::Acquire { .. } => Self::Acquire,
            Order::Renew { .. } => Self::Renew,
            Order::Release { .. } => Self::Release,
            Order::EndReign { .. } => Self::EndReign,
            Order::ReadCluster => Self::ReadCluster,
            Order::ClaimInitialize => Self::ClaimInitialize,
            Order::WriteInitialize { .. } => Self::WriteInitialize,
            Order::UnclaimInitialize => Self::UnclaimInitialize,
            Order::WriteConfig => Self::WriteConfig,
            Order::WriteMember(_) => Self::WriteMember,
            Order::WriteHistory(_) => Self::WriteHistory,
            Order::WriteFailsafe { .. } => Self::WriteFailsafe,
            Order::ClearFailover(_) => Self::ClearFailover,
            Order::Probe => Self::Probe,
            Order::Bootstrap { .. } => Self::Bootstrap,
            Order::BaseBackup { .. } => Self::BaseBackup,
            Order::StartReplica { .. } => Self::StartReplica,
            Order::StartPrimary { .. } => Self::StartPrimary,
            Order::Stop {
                mode: StopMode::Fast { .. },
                ..
            } => Self::StopFast,
            Order::Stop {
                mode: StopMode::Immediate,
                ..
            } => Self::StopImmediate,
            Order::Promote { .. } => Self::Promote,
            Order::Follow { .. } => Self::Follow,
            Order::CompareHistory { .. } => Self::CompareHistory,
            Order::Rewind { .. } => Self::Rewind,
            Order::Restart { .. } => Self::Restart,
            Order::AdoptPostmaster { .. } => Self::AdoptPostmaster,
            Order::SyncSlots { .. } => Self::SyncSlots,
            Order::Checkpoint => Self::Checkpoint,
            Order::WriteSync { .. } => Self::WriteSync,
            Order::SetSynchronous { .. } => Self::SetSynchronous,
            Order::OpenGate => Self::OpenGate,
            Order::SetDeadline(_) => Self::SetDeadline,
            Order::AskPeers(_) => Self::AskPeers,
            Order::AskFailsafe { .. } => Self::AskFailsafe,
            Order::Reply { .. } => Self::Reply,
            Order::Exit { .. } => Self::Exit,
        }
    }
}

impl Deed {
    /// The other member that `order` concerns.
    #[must_use]
    pub fn about(order: &Order) -> Option<&NodeName> {
        match order {
            Order::BaseBackup { from } => Some(&from.name),
            Order::Rewind { leader } | Order::CompareHistory { leader } => Some(&leader.name),
            Order::Follow { upstream } | Order::StartReplica { upstream } => {
                upstream.as_ref().map(|upstream| &upstream.name)
            }
            _ => None,
        }
    }
}

impl Seen {
    /// The order of this number and kind ended so.
    #[must_use]
    pub fn order_ended(id: ActionId, order: Deed, outcome: &Outcome) -> Self {
        let (end, text) = match outcome {
            Outcome::Failed(text) => (OrderEnd::Failed, Some(text.as_str().into())),
            Outcome::Unknown(text) => (OrderEnd::Unknown, Some(text.as_str().into())),
            Outcome::Refused(text) => (OrderEnd::Refused, Some(text.as_str().into())),
            Outcome::NotLocked { .. } => (OrderEnd::Failed, None),
            _ => (OrderEnd::Done, None),
        };
        Self::OrderEnded {
            id: id.0,
            order,
            end,
            text,
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
