//! What befalls a packet between two machines: the part that both networks share, so that a cut is the same thing on either.
//!
//! TCP's trouble is decided here, and not in the stacks above: a lost packet arrives a retransmission timeout later and holds up those
//! of its connection behind it; what is cut off, or addressed to a machine without power, waits, and arrives some time after that is
//! over, as late as the sender's back-off makes it. Packets of one connection never overtake each other. Only what a machine
//! without power would send is lost.

use std::collections::BTreeMap;

use super::Machine;
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// Linux's shortest retransmission timeout, doubled with each attempt.
const RTO: Time = 200 * MS;
/// The longest wait after a cut is healed: the sender's back-off has grown to this in the longest cuts there are.
const MOST_BACKOFF: Time = 6 * SEC;
/// Linux's longest delay of an acknowledgement.
const DELAYED_ACK: Time = 40 * MS;
/// The shortest and the longest way of a packet where nothing is wrong: machines of one data centre.
const WAY: (Time, Time) = (MS / 5, 2 * MS);

/// So many directions of connections are remembered before any is forgotten.
const MANY: usize = 512;

/// The state of one direction between two machines.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    /// Cut since then.
    cut: Option<Time>,
    slow: Time,
    lossy: u64,
}

/// A direction of a connection: from and to which machine and port.
type Flow = (Machine, u16, Machine, u16);

/// What a packet is to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// It asks for the connection: the next one completes it, and is waited for.
    Opening,
    /// A bare acknowledgement: it waits, as Linux delays them, for one that says more or for data that carries it.
    Acknowledgement,
    /// All else.
    Substance,
}

/// What is known of a direction of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Course {
    /// When the last packet arrives: TCP keeps their order.
    last: Time,
    /// It has asked for the connection.
    opening: bool,
    /// Where a bare acknowledgement waits.
    acknowledgement: Option<(Time, u64)>,
}

/// Something on its way: what it is to the network above, and which way it goes.
#[derive(Debug)]
pub(super) struct Parcel<P> {
    pub(super) from: Machine,
    pub(super) to: Machine,
    /// The ports of sender and receiver.
    pub(super) ports: (u16, u16),
    pub(super) sort: Sort,
    pub(super) what: P,
}

/// All links, and what is on them.
#[derive(Debug)]
pub(super) struct Links<P> {
    links: BTreeMap<(Machine, Machine), Link>,
    dark: Vec<bool>,
    queue: BTreeMap<(Time, u64), Parcel<P>>,
    sequence: u64,
    flows: BTreeMap<Flow, Course>,
    /// Flows are forgotten that say nothing any more when there are so many.
    many: usize,
    held: BTreeMap<(Machine, Machine), Vec<Parcel<P>>>,
    rng: Rng,
}

impl<P> Links<P> {
    /// Whole links between so many machines, all with power.
    pub(super) fn new(machines: usize, seed: u64) -> Self {
        Self {
            links: BTreeMap::new(),
            dark: vec![false; machines],
            queue: BTreeMap::new(),
            sequence: 0,
            flows: BTreeMap::new(),
            many: MANY,
            held: BTreeMap::new(),
            rng: Rng::new(seed, 21),
        }
    }

    fn link(&mut self, from: Machine, to: Machine) -> &mut Link {
        self.links.entry((from, to)).or_default()
    }

    /// It leaves its machine.
    pub(super) fn send(&mut self, now: Time, parcel: Parcel<P>) {
        let (from, to) = (parcel.from, parcel.to);
        if self.dark[from.0] {
            return;
        }
        let link = self.links.get(&(from, to)).copied().unwrap_or_default();
        if link.cut.is_some() || self.dark[to.0] {
            self.hold(parcel);
            return;
        }
        let mut delay = self.rng.range(WAY.0, WAY.1) + self.rng.below(link.slow.max(1));
        if link.lossy != 0 {
            let mut wait = RTO;
            while wait < MOST_BACKOFF && self.rng.one_in(link.lossy) {
                delay += wait;
                wait *= 2;
            }
        }
        self.queue_at(now + delay, parcel);
    }

    fn hold(&mut self, parcel: Parcel<P>) {
        self.held
            .entry((parcel.from, parcel.to))
            .or_default()
            .push(parcel);
    }

    fn queue_at(&mut self, at: Time, parcel: Parcel<P>) {
        let (source, target) = parcel.ports;
        let course = self
            .flows
            .entry((parcel.from, source, parcel.to, target))
            .or_default();
        // Whatever is sent later acknowledges more.
        if let Some(place) = course.acknowledgement.take() {
            self.queue.remove(&place);
        }
        self.sequence += 1;
        let place = if parcel.sort == Sort::Acknowledgement && !course.opening {
            let place = (course.last.max(at + DELAYED_ACK), self.sequence);
            course.acknowledgement = Some(place);
            place
        } else {
            course.last = at.max(course.last);
            (course.last, self.sequence)
        };
        course.opening = parcel.sort == Sort::Opening;
        self.queue.insert(place, parcel);
    }

    /// When something arrives next.
    pub(super) fn next(&self) -> Option<Time> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// What has arrived by now, in order.
    pub(super) fn take_due(&mut self, now: Time, due: &mut Vec<P>) {
        while let Some(entry) = self.queue.first_entry() {
            if now < entry.key().0 {
                break;
            }
            let parcel = entry.remove();
            if self.dark[parcel.to.0] {
                self.hold(parcel);
            } else {
                due.push(parcel.what);
            }
        }
        if self.flows.len() > self.many {
            self.flows.retain(|_, course| {
                now < course.last || course.opening || course.acknowledgement.is_some_and(|(at, _)| now < at)
            });
            self.many = MANY.max(2 * self.flows.len());
        }
    }

    /// What waited goes on its way, as late as the back-off of its sender has grown in `waited`.
    fn release(&mut self, now: Time, from: Machine, to: Machine, waited: Time) {
        let mut backoff: BTreeMap<(u16, u16), Time> = BTreeMap::new();
        for parcel in self.held.remove(&(from, to)).unwrap_or_default() {
            let most = waited.clamp(RTO, MOST_BACKOFF);
            let rng = &mut self.rng;
            let delay = *backoff.entry(parcel.ports).or_insert_with(|| rng.below(most));
            self.queue_at(now + delay, parcel);
        }
    }

    /// See [`Net::cut`](super::Net::cut).
    pub(super) fn cut(&mut self, now: Time, from: Machine, to: Machine, cut: bool) {
        let link = self.link(from, to);
        if cut {
            link.cut = link.cut.or(Some(now));
        } else if let Some(since) = link.cut.take()
            && !self.dark[to.0]
        {
            self.release(now, from, to, now - since);
        }
    }

    /// See [`Net::slow`](super::Net::slow).
    pub(super) fn slow(&mut self, from: Machine, to: Machine, most: Time) {
        self.link(from, to).slow = most;
    }

    /// See [`Net::lossy`](super::Net::lossy).
    pub(super) fn lossy(&mut self, from: Machine, to: Machine, one_in: u64) {
        self.link(from, to).lossy = one_in;
    }

    /// See [`Net::power`](super::Net::power).
    pub(super) fn power(&mut self, now: Time, machine: Machine, on: bool) {
        self.dark[machine.0] = !on;
        if on {
            let senders: Vec<Machine> = self
                .held
                .keys()
                .filter(|(_, to)| *to == machine)
                .map(|(from, _)| *from)
                .collect();
            for from in senders {
                if self.link(from, machine).cut.is_none() {
                    self.release(now, from, machine, MOST_BACKOFF);
                }
            }
        } else {
            // What had left the machine is on its way; what it held back is gone with it.
            self.held.retain(|(from, _), _| *from != machine);
        }
    }

    /// See [`Net::reaches`](super::Net::reaches).
    pub(super) fn reaches(&self, from: Machine, to: Machine) -> bool {
        let cut = self.links.get(&(from, to)).is_some_and(|link| link.cut.is_some());
        !self.dark[from.0] && !self.dark[to.0] && !cut
    }
}
