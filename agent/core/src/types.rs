//! The small values that everything else is made of: times, positions, names and counters.
//!
//! Each is a newtype, so that two of them cannot be swapped by mistake.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the node's monotonic clock, in nanoseconds.
///
/// The clock counts suspend (CLOCK_BOOTTIME): a node that slept through its lease must see that on waking.
/// It never goes back, and it says nothing about other nodes' clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);
    /// A time that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time `millis` milliseconds after the start of the clock.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// This time moved later by `by`; saturates at [`MonoTime::NEVER`].
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// This time moved earlier by `by`; saturates at zero. [`MonoTime::NEVER`] stays what it is.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        if self == Self::NEVER {
            self
        } else {
            Self(self.0.saturating_sub(nanos(by)))
        }
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A position in PostgreSQL's write-ahead log, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Reads PostgreSQL's own notation, two hexadecimal halves: `0/3000060`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.trim().split_once('/')?;
        let high = u64::from(u32::from_str_radix(high, 16).ok()?);
        let low = u64::from(u32::from_str_radix(low, 16).ok()?);
        Some(Self(high << 32 | low))
    }

    /// Bytes by which this position is ahead of `other`; zero if it is behind.
    #[must_use]
    pub fn ahead_of(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A PostgreSQL timeline: a new one begins at each promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A member's name, unique within the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct NodeName(pub String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// PostgreSQL's system identifier: the same on every node of one cluster, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An etcd lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub i64);

/// An etcd revision (of the store or of one key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Revision(pub i64);

/// A raft term of etcd. Answers of one term come from one etcd leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Term(pub u64);

/// Numbers the orders of one core, so that each completion finds its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ActionId(pub u64);

/// Numbers the reigns of one node: it grows each time the node gains the lock. An order of an older
/// generation is refused where it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Generation(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_what_it_prints() {
        for raw in [0, 1, 0x300_0060, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            assert_eq!(Lsn::parse(&Lsn(raw).to_string()), Some(Lsn(raw)));
        }
        assert_eq!(Lsn::parse("0/xyz"), None);
        assert_eq!(Lsn::parse("12"), None);
    }

    #[test]
    fn times_saturate() {
        assert_eq!(MonoTime::NEVER.plus(Duration::from_secs(1)), MonoTime::NEVER);
        assert_eq!(MonoTime::NEVER.minus(Duration::from_secs(1)), MonoTime::NEVER);
        assert_eq!(MonoTime(5).minus(Duration::from_secs(1)), MonoTime::ZERO);
        assert_eq!(MonoTime(5).since(MonoTime(9)), Duration::ZERO);
    }
}
