//! Everything that can go wrong, as one closed enum in four groups.
//!
//! - [`HostFault`] of processes, hosts and clocks
//! - [`PostgresFault`] of PostgreSQL, its data directory and its disk
//! - [`NetFault`] of links
//! - [`EtcdFault`] of etcd's members, and what they answer
//!
//! A fault that lasts ends by itself after its `for=`, or when all faults are healed.

mod etcd;
mod host;
mod net;
mod postgres;

use std::fmt;

pub use etcd::{ErrorCode, EtcdFault, EtcdTarget, Keys, Lost, Rpc};
pub use host::HostFault;
pub use net::{End, NetFault, Way};
pub use postgres::{PostgresFault, Step as PostgresStep};

use crate::text::{Args, Name, ParseError, Value, Verb};

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// With a process, a host or a clock.
    Host(HostFault),
    /// With PostgreSQL or its disk.
    Postgres(PostgresFault),
    /// With the network.
    Net(NetFault),
    /// With etcd.
    Etcd(EtcdFault),
}

impl Fault {
    /// How each is written.
    pub fn verbs() -> impl Iterator<Item = &'static Verb> {
        let groups = [
            HostFault::VERBS,
            PostgresFault::VERBS,
            NetFault::VERBS,
            EtcdFault::VERBS,
        ];
        groups.into_iter().flatten()
    }

    /// Its word: the kind of fault.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Host(fault) => fault.word(),
            Self::Postgres(fault) => fault.word(),
            Self::Net(fault) => fault.word(),
            Self::Etcd(fault) => fault.word(),
        }
    }

    pub(crate) fn read(word: &str, args: &mut Args) -> Result<Option<Self>, ParseError> {
        if let Some(fault) = HostFault::read(word, args)? {
            return Ok(Some(Self::Host(fault)));
        }
        if let Some(fault) = PostgresFault::read(word, args)? {
            return Ok(Some(Self::Postgres(fault)));
        }
        if let Some(fault) = NetFault::read(word, args)? {
            return Ok(Some(Self::Net(fault)));
        }
        Ok(EtcdFault::read(word, args)?.map(Self::Etcd))
    }

    /// Calls `visit` with each name in it.
    pub fn names(&self, visit: &mut dyn FnMut(&Name)) {
        match self {
            Self::Host(fault) => fault.names(visit),
            Self::Postgres(fault) => fault.names(visit),
            Self::Net(fault) => fault.names(visit),
            Self::Etcd(fault) => fault.names(visit),
        }
    }

    #[cfg(test)]
    pub(crate) fn sample(dice: &mut crate::text::Dice) -> Self {
        match dice.below(4) {
            0 => Self::Host(HostFault::sample(dice)),
            1 => Self::Postgres(PostgresFault::sample(dice)),
            2 => Self::Net(NetFault::sample(dice)),
            _ => Self::Etcd(EtcdFault::sample(dice)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(fault) => fault.fmt(f),
            Self::Postgres(fault) => fault.fmt(f),
            Self::Net(fault) => fault.fmt(f),
            Self::Etcd(fault) => fault.fmt(f),
        }
    }
}

impl From<HostFault> for Fault {
    fn from(fault: HostFault) -> Self {
        Self::Host(fault)
    }
}

impl From<PostgresFault> for Fault {
    fn from(fault: PostgresFault) -> Self {
        Self::Postgres(fault)
    }
}

impl From<NetFault> for Fault {
    fn from(fault: NetFault) -> Self {
        Self::Net(fault)
    }
}

impl From<EtcdFault> for Fault {
    fn from(fault: EtcdFault) -> Self {
        Self::Etcd(fault)
    }
}

/// A member, by name or by what it is when the fault strikes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// This one.
    Node(Name),
    /// Who holds the leader key; if nobody does, who held it last.
    Leader,
    /// Who held the leader key before the present holder.
    FormerLeader,
    /// The replica that is furthest on, the first of equals.
    Candidate,
    /// A replica, by chance.
    Replica,
    /// Any member, by chance; in a trap, whichever member does it first.
    Any,
    /// The member at which the trap sprang.
    Here,
}

impl Target {
    /// The member called `name`.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self::Node(Name::from(name))
    }
}

impl Value for Target {
    const WHAT: &'static str = "a member's name, leader, former-leader, candidate, replica, any or here";
    const WORDS: &'static [&'static str] =
        &["leader", "former-leader", "candidate", "replica", "any", "here"];

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "leader" => Self::Leader,
            "former-leader" => Self::FormerLeader,
            "candidate" => Self::Candidate,
            "replica" => Self::Replica,
            "any" => Self::Any,
            "here" => Self::Here,
            name => Self::Node(Name::read(name)?),
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.write(f),
            Self::Leader => f.write_str("leader"),
            Self::FormerLeader => f.write_str("former-leader"),
            Self::Candidate => f.write_str("candidate"),
            Self::Replica => f.write_str("replica"),
            Self::Any => f.write_str("any"),
            Self::Here => f.write_str("here"),
        }
    }

    fn names(&self, visit: &mut dyn FnMut(&Name)) {
        if let Self::Node(name) = self {
            visit(name);
        }
    }

    #[cfg(test)]
    fn sample(dice: &mut crate::text::Dice) -> Self {
        match dice.below(8) {
            0 => Self::Leader,
            1 => Self::FormerLeader,
            2 => Self::Candidate,
            3 => Self::Replica,
            4 => Self::Any,
            5 => Self::Here,
            _ => Self::Node(Name::sample(dice)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}
