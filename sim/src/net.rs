//! The network: links that are cut (in one direction or both), that refuse, lose or delay, and how long messages take.
//!
//! What runs on a member's host (a client beside it, a member of etcd) reaches what else runs there whatever happens outside, and shares
//! its fate on the way to others. Cuts and delays are between hosts, unless they name what lives there itself.

use std::collections::BTreeMap;

use crate::clock::{MS, Time};
use crate::rng::Rng;

/// How long a message takes within a host: loopback, with the wake-up of whoever reads it.
pub const LOCAL: (Time, Time) = (MS / 20, MS / 5);

/// How long a message takes between hosts of one site: a round trip of 0.4 to 4 ms.
const LAN: (Time, Time) = (MS / 5, 2 * MS);

/// After what time TCP sends a lost segment again, at first; it doubles.
const RETRANSMIT: Time = 200 * MS;

/// Where a message comes from or goes to, each by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A member's host.
    Node(usize),
    /// A member of etcd.
    Etcd(usize),
    /// A router.
    Router(usize),
    /// A client.
    Client(usize),
}

/// What slows a link down.
#[derive(Debug, Clone, Copy)]
struct Slow {
    until: Time,
    least: Time,
    most: Time,
    /// Of a hundred packets, so many are lost and sent again.
    percent: u8,
}

/// What is wrong with some links.
#[derive(Debug, Clone)]
struct Links<T> {
    map: BTreeMap<(Place, Place), T>,
    /// From then on nothing is: most of the time there is nothing to look up.
    until: Time,
}

impl<T> Links<T> {
    fn end(&mut self, now: Time, until: impl Fn(&mut T) -> &mut Time) {
        for link in self.map.values_mut() {
            let until = until(link);
            *until = now.min(*until);
        }
        self.until = now.min(self.until);
    }
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Self {
            map: BTreeMap::new(),
            until: 0,
        }
    }
}

/// The state of the links.
#[derive(Debug, Clone, Default)]
pub struct Net {
    /// Of the members of etcd, the routers and the clients, each by its index.
    homes: [Vec<Option<Place>>; 3],
    cut: Links<Time>,
    refused: Links<Time>,
    slow: Links<Slow>,
    /// How long a message between hosts takes; `None` for the usual.
    pub between: Option<(Time, Time)>,
}

/// What kind of place it is that can be on a host, and its index.
fn kind(place: Place) -> Option<(usize, usize)> {
    match place {
        Place::Node(_) => None,
        Place::Etcd(index) => Some((0, index)),
        Place::Router(index) => Some((1, index)),
        Place::Client(index) => Some((2, index)),
    }
}

impl Net {
    /// `place` runs on the host of `home`.
    pub fn settle(&mut self, place: Place, home: Place) {
        if let Some((kind, index)) = kind(place) {
            let homes = &mut self.homes[kind];
            homes.resize(homes.len().max(index + 1), None);
            homes[index] = Some(home);
        }
    }

    /// The host that a place is on.
    #[must_use]
    pub fn home(&self, place: Place) -> Place {
        let home = kind(place).and_then(|(kind, index)| *self.homes[kind].get(index)?);
        home.unwrap_or(place)
    }

    /// Cuts the way from `from` to `to` until then.
    pub fn cut(&mut self, from: Place, to: Place, until: Time) {
        let end = self.cut.map.entry((from, to)).or_default();
        *end = until.max(*end);
        self.cut.until = self.cut.until.max(until);
    }

    /// Connections from `from` to `to` are refused until then.
    pub fn refuse(&mut self, from: Place, to: Place, until: Time) {
        let end = self.refused.map.entry((from, to)).or_default();
        *end = until.max(*end);
        self.refused.until = self.refused.until.max(until);
    }

    /// Makes messages from `from` to `to` take longer, by `least` to `most`, until then.
    pub fn slow(&mut self, from: Place, to: Place, until: Time, (least, most): (Time, Time)) {
        let percent = self.slow.map.get(&(from, to)).map_or(0, |slow| slow.percent);
        let slow = Slow {
            until,
            least,
            most,
            percent,
        };
        self.slow.map.insert((from, to), slow);
        self.slow.until = self.slow.until.max(until);
    }

    /// Loses so many of a hundred packets from `from` to `to`, until then.
    pub fn lossy(&mut self, from: Place, to: Place, until: Time, percent: u8) {
        let slow = self.slow.map.entry((from, to)).or_insert(Slow {
            until,
            least: 0,
            most: 0,
            percent,
        });
        slow.percent = percent;
        slow.until = slow.until.max(until);
        self.slow.until = self.slow.until.max(until);
    }

    /// When the next cut ends.
    #[must_use]
    pub fn next_end(&self, now: Time) -> Option<Time> {
        self.cut.map.values().copied().filter(|until| now < *until).min()
    }

    /// Everything works again from now on. What has been is remembered.
    pub fn heal(&mut self, now: Time) {
        for links in [&mut self.cut, &mut self.refused] {
            links.end(now, |until| until);
        }
        self.slow.end(now, |slow| &mut slow.until);
    }

    /// What `links` says of the link, by the ends themselves or by the hosts they are on.
    fn of<'a, T>(&self, links: &'a Links<T>, now: Time, from: Place, to: Place) -> Option<&'a T> {
        if links.until <= now || from == to {
            return None;
        }
        let map = &links.map;
        if let Some(own) = map.get(&(from, to)) {
            return Some(own);
        }
        let (here, there) = (self.home(from), self.home(to));
        if here == there {
            return None;
        }
        map.get(&(here, there))
            .or_else(|| map.get(&(from, there)))
            .or_else(|| map.get(&(here, to)))
    }

    /// A message sent now arrives.
    #[must_use]
    pub fn up(&self, now: Time, from: Place, to: Place) -> bool {
        self.of(&self.cut, now, from, to)
            .is_none_or(|until| *until <= now)
    }

    /// A message sent now is answered with a reset by the network.
    #[must_use]
    pub fn refuses(&self, now: Time, from: Place, to: Place) -> bool {
        self.of(&self.refused, now, from, to)
            .is_some_and(|until| now < *until)
    }

    /// Both directions work.
    #[must_use]
    pub fn connected(&self, now: Time, a: Place, b: Place) -> bool {
        self.up(now, a, b) && self.up(now, b, a) && !self.refuses(now, a, b) && !self.refuses(now, b, a)
    }

    /// Nothing has befallen the link between two hosts since then: it was not cut, refused or slowed down.
    #[must_use]
    pub fn calm(&self, since: Time, a: Place, b: Place) -> bool {
        let ends = (self.home(a), self.home(b));
        let between = |(from, to): &(Place, Place)| {
            let these = (self.home(*from), self.home(*to));
            these == ends || (these.1, these.0) == ends
        };
        let over = |until: Time| until <= since;
        let cuts = self.cut.map.iter().chain(&self.refused.map);
        cuts.filter(|(link, _)| between(link))
            .all(|(_, until)| over(*until))
            && self
                .slow
                .map
                .iter()
                .filter(|(link, _)| between(link))
                .all(|(_, slow)| over(slow.until))
    }

    /// How long a message sent now takes.
    pub fn delay(&self, now: Time, from: Place, to: Place, rng: &mut Rng) -> Time {
        let (least, most) = if self.home(from) == self.home(to) {
            LOCAL
        } else {
            self.between.unwrap_or(LAN)
        };
        let mut delay = rng.range(least, most);
        let Some(slow) = self.of(&self.slow, now, from, to).filter(|slow| now < slow.until) else {
            return delay;
        };
        delay += rng.range(slow.least, slow.most.max(slow.least));
        let mut again = RETRANSMIT;
        // A connection gives up after some tries; so many in a row do not happen to anybody.
        while again < 10_000 * MS && rng.below(100) < u64::from(slow.percent) {
            delay += again;
            again *= 2;
        }
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_mended_early_was_cut_all_the_same() {
        let mut net = Net::default();
        let (n1, n2) = (Place::Node(0), Place::Node(1));
        net.cut(n1, n2, 30);
        net.heal(20);
        assert!(net.up(20, n1, n2));
        assert!(!net.calm(15, n1, n2) && net.calm(20, n1, n2));
    }

    #[test]
    fn what_lives_on_a_host_shares_its_cuts_but_reaches_the_host() {
        let mut net = Net::default();
        let (n1, n2, client) = (Place::Node(0), Place::Node(1), Place::Client(0));
        net.settle(client, n1);
        net.cut(n1, n2, 10);
        assert!(!net.up(5, client, n2), "it is behind the cut");
        assert!(
            net.up(5, client, n1) && net.up(5, n2, client),
            "one way only, and never at home"
        );
        assert!(net.up(10, client, n2), "until then");
        net.cut(client, n1, 20);
        assert!(!net.up(15, client, n1), "named itself");
    }
}
