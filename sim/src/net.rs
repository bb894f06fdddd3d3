//! The network: links that are cut (in one direction or both), and how long messages take.

use std::collections::BTreeMap;

use crate::clock::{MS, Time};
use crate::rng::Rng;

/// Where a message comes from or goes to, each by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A member's host.
    Node(usize),
    /// A member of etcd.
    Etcd(usize),
    /// A router.
    Router(usize),
    /// A client that runs beside no server.
    Client(usize),
}

/// The state of the links.
#[derive(Debug, Clone, Default)]
pub struct Net {
    cut: BTreeMap<(Place, Place), Time>,
    slow: BTreeMap<(Place, Place), (Time, Time)>,
}

impl Net {
    /// Cuts the way from `from` to `to` until then.
    pub fn cut(&mut self, from: Place, to: Place, until: Time) {
        let end = self.cut.entry((from, to)).or_default();
        *end = until.max(*end);
    }

    /// Makes messages from `from` to `to` take up to `most` longer, until then.
    pub fn slow(&mut self, from: Place, to: Place, until: Time, most: Time) {
        self.slow.insert((from, to), (until, most));
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.slow.clear();
    }

    /// A message sent now arrives.
    #[must_use]
    pub fn up(&self, now: Time, from: Place, to: Place) -> bool {
        from == to || self.cut.get(&(from, to)).is_none_or(|until| *until <= now)
    }

    /// Both directions work.
    #[must_use]
    pub fn connected(&self, now: Time, a: Place, b: Place) -> bool {
        self.up(now, a, b) && self.up(now, b, a)
    }

    /// How long a message sent now takes.
    pub fn delay(&self, now: Time, from: Place, to: Place, rng: &mut Rng) -> Time {
        let usual = rng.range(MS / 5, 2 * MS);
        match self.slow.get(&(from, to)) {
            Some((until, most)) if now < *until => usual + rng.below(*most),
            _ => usual,
        }
    }
}
