//! The connections between PostgreSQL servers: in order, and patient as TCP is.
//!
//! A message that cannot set out waits, and with it all that come after it on the same connection; it is tried again after 200 ms, then
//! after twice as long each time, as TCP does. So a partition that ends is noticed late, and one that was shorter than the servers' own
//! time limits loses nothing.

use std::collections::VecDeque;

use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::postgres::{Link, Message};
use crate::net::Place;

/// TCP's first retransmission timeout on a fast network.
const FIRST: Time = 200 * MS;

/// TCP's longest.
const LONGEST: Time = 120 * SEC;

/// A message on its way, with its number there.
#[derive(Debug, Clone)]
pub struct Parcel {
    number: u64,
    link: Link,
    message: Message,
}

/// The way from one host to another.
#[derive(Debug, Clone, Default)]
pub struct Wire {
    /// When the last message arrives.
    last: Time,
    /// Numbers the messages.
    next: u64,
    /// What waits for the network, in order.
    held: VecDeque<Parcel>,
    /// The pause before the next attempt, if one is arranged.
    pause: Option<Time>,
}

/// The ways between all hosts.
#[derive(Debug)]
pub(crate) struct Wires {
    hosts: usize,
    ways: Vec<Wire>,
}

impl Wires {
    /// Ways on which nothing is.
    pub(crate) fn new(hosts: usize) -> Self {
        let ways = vec![Wire::default(); hosts * hosts];
        Self { hosts, ways }
    }

    fn between(&mut self, from: usize, to: usize) -> &mut Wire {
        &mut self.ways[from * self.hosts + to]
    }
}

impl World {
    /// A message of a server sets out.
    pub(crate) fn carry(&mut self, from: usize, to: usize, link: Link, message: Message) {
        if to >= self.hosts.len() || !self.hosts[from].powered {
            return;
        }
        let wire = self.wires.between(from, to);
        wire.next += 1;
        let number = wire.next;
        self.pass(
            from,
            to,
            Parcel {
                number,
                link,
                message,
            },
        );
    }

    /// Sends a parcel, or has it wait in its place.
    fn pass(&mut self, from: usize, to: usize, parcel: Parcel) {
        let up = self.reaches(from, to);
        let wire = self.wires.between(from, to);
        // A new connection does not wait for what an old one holds.
        let behind = wire.held.iter().any(|held| held.link == parcel.link);
        if up && !behind {
            self.transmit(from, to, parcel);
            return;
        }
        let place = wire.held.partition_point(|held| held.number < parcel.number);
        wire.held.insert(place, parcel);
        if wire.pause.is_none() {
            wire.pause = Some(FIRST);
            self.after(FIRST, Event::WireRetry(from, to));
        }
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.hosts[to].powered && self.net.up(self.now, Place::Node(from), Place::Node(to))
    }

    fn transmit(&mut self, from: usize, to: usize, parcel: Parcel) {
        let delay = self
            .net
            .delay(self.now, Place::Node(from), Place::Node(to), &mut self.rng);
        let now = self.now;
        let wire = self.wires.between(from, to);
        wire.last = (now + delay).max(wire.last + 1);
        let wait = wire.last - now;
        self.after(wait, Event::Wire(to, parcel));
    }

    /// What waits is tried again.
    pub(crate) fn wire_retry(&mut self, from: usize, to: usize) {
        let up = self.reaches(from, to);
        let wire = self.wires.between(from, to);
        if wire.pause.is_none() {
            return;
        }
        if !up {
            let pause = (2 * wire.pause.unwrap_or(FIRST)).min(LONGEST);
            wire.pause = Some(pause);
            self.after(pause, Event::WireRetry(from, to));
            return;
        }
        wire.pause = None;
        for parcel in std::mem::take(&mut wire.held) {
            self.transmit(from, to, parcel);
        }
    }

    /// A host lost its power, and with it all that its kernel held.
    pub(crate) fn wires_down(&mut self, node: usize) {
        for to in 0..self.hosts.len() {
            let wire = self.wires.between(node, to);
            wire.held.clear();
            wire.pause = None;
        }
    }

    /// A message arrives; a host without power leaves it to be sent again.
    pub(crate) fn wire(&mut self, to: usize, parcel: Parcel) {
        let Link {
            standby, upstream, ..
        } = parcel.link;
        let other = if standby.0 as usize == to {
            upstream
        } else {
            standby
        };
        if self.hosts[to].powered {
            self.hosts[to].pg.receive(self.now, parcel.link, parcel.message);
            self.follow_pg(to);
        } else {
            self.pass(other.0 as usize, to, parcel);
        }
    }
}
