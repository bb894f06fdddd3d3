//! What led to each entry: the links of the chain from a fault to what it did.
//!
//! A world tells the cause of many entries itself ([`Entry::cause`]): a lock that was lost caused the watch that caused the decision. What
//! is true because of a *state* has no such cause: a server acknowledges a write since it was promoted, minutes ago. For those the rules
//! here name the entry that made the state so.

use std::collections::BTreeMap;

use crate::clock::Time;
use crate::record::{Deed, End, Entry, LeaseEnd, NodeIndex, Seen};

/// For each entry (in the order given) the serial numbers of those that led to it, the most telling first.
pub(super) fn causes(entries: &[Entry]) -> Vec<Vec<u64>> {
    let mut memory = Memory::default();
    entries
        .iter()
        .map(|entry| {
            let because = memory.because(entry);
            memory.note(entry);
            because
        })
        .collect()
}

/// What the rules look back for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Past {
    /// The server became what it is.
    Server,
    /// Its start was begun.
    Starting,
    /// It ended.
    Ended,
    /// An order of this kind began.
    Order(Deed),
    /// A decision.
    Decision,
    /// A right was confirmed.
    Right,
    /// The lock was taken, renewed, or the right granted.
    Renewal,
    /// The guard got a deadline.
    Armed,
    /// The agent was frozen, killed, or ended.
    AgentTrouble,
    /// A fault that names the node, or all.
    Fault,
}

#[derive(Default)]
struct Memory {
    at_node: BTreeMap<(Past, Option<NodeIndex>), u64>,
    /// The lock was last lost or given back.
    vacancy: Option<u64>,
    /// The lock was last taken.
    taken: Option<u64>,
    orders: BTreeMap<(Option<NodeIndex>, u64), u64>,
    /// Entries that mean nothing by themselves, with the cause of each.
    dull: BTreeMap<u64, Option<u64>>,
}

impl Memory {
    fn last(&self, past: Past, node: Option<NodeIndex>) -> Option<u64> {
        self.at_node.get(&(past, node)).copied()
    }

    /// The cause that the world told of, past all that means nothing by itself.
    fn told(&self, entry: &Entry) -> Option<u64> {
        let mut cause = entry.cause;
        while let Some(serial) = cause
            && let Some(before) = self.dull.get(&serial)
        {
            cause = *before;
        }
        cause
    }

    fn because(&self, entry: &Entry) -> Vec<u64> {
        let node = entry.node;
        let last = |past| self.last(past, node);
        let order = |deeds: &[Deed]| deeds.iter().filter_map(|deed| last(Past::Order(*deed))).max();
        let links: [Option<u64>; 3] = match &entry.seen {
            Seen::Committed { .. } => [last(Past::Server), last(Past::Right), last(Past::Armed)],
            Seen::Up { .. } => [last(Past::Starting), None, None],
            Seen::Starting { .. } => [
                order(&[
                    Deed::StartPrimary,
                    Deed::StartReplica,
                    Deed::Restart,
                    Deed::Bootstrap,
                ]),
                None,
                None,
            ],
            Seen::Promoted { .. } => [last(Past::Order(Deed::Promote)), None, None],
            // Routine, and the beginning of a cluster's life: nothing led to these.
            Seen::OrderBegan {
                order: Deed::Renew | Deed::Bootstrap | Deed::ClaimInitialize,
                ..
            } => [None, None, None],
            Seen::OrderBegan { .. } => [last(Past::Decision), None, None],
            Seen::OrderEnded { id, .. } => [self.orders.get(&(node, *id)).copied(), None, None],
            Seen::LockTaken { .. } => [self.vacancy, last(Past::Order(Deed::Acquire)), None],
            Seen::LockReleased { .. } => [last(Past::Order(Deed::Release)), None, None],
            Seen::LockLost {
                why: LeaseEnd::Expired | LeaseEnd::Deposed,
                ..
            } => {
                let trouble = last(Past::AgentTrouble)
                    .max(last(Past::Fault))
                    .max(self.last(Past::Fault, None));
                [trouble, last(Past::Renewal), None]
            }
            Seen::Right { .. } => [last(Past::Renewal), None, None],
            Seen::Armed { .. } => [last(Past::Right), last(Past::Order(Deed::SetDeadline)), None],
            Seen::Ended {
                how: End::ByGuard, ..
            } => [last(Past::Armed), last(Past::Server), None],
            Seen::Decided(_) => [self.told(entry), last(Past::Decision), None],
            Seen::StepBegan { .. } | Seen::Healed => [None, None, None],
            _ => [self.told(entry), None, None],
        };
        let mut because: Vec<u64> = Vec::new();
        for link in links.into_iter().flatten() {
            if !because.contains(&link) && link != entry.serial {
                because.push(link);
            }
        }
        because
    }

    fn note(&mut self, entry: &Entry) {
        let (node, serial) = (entry.node, entry.serial);
        let mut note = |past| self.at_node.insert((past, node), serial);
        match &entry.seen {
            Seen::Up { .. } | Seen::Promoted { .. } => _ = note(Past::Server),
            Seen::Starting { .. } => _ = note(Past::Starting),
            Seen::Ended { .. } => _ = note(Past::Ended),
            Seen::Decided(_) => _ = note(Past::Decision),
            Seen::Right { .. } => _ = note(Past::Right),
            Seen::Armed { .. } | Seen::Lifted => _ = note(Past::Armed),
            Seen::LockRenewed { .. } => _ = note(Past::Renewal),
            Seen::LockTaken { .. } => {
                note(Past::Renewal);
                self.taken = Some(serial);
            }
            Seen::LockLost { .. } | Seen::LockReleased { .. } => self.vacancy = Some(serial),
            Seen::AgentFrozen { frozen: true }
            | Seen::AgentDied
            | Seen::AgentEnded { .. }
            | Seen::HostFrozen { frozen: true }
            | Seen::Power { on: false } => _ = note(Past::AgentTrouble),
            Seen::OrderBegan { id, order, .. } => {
                note(Past::Order(*order));
                self.orders.insert((node, *id), serial);
            }
            Seen::StepBegan { text, .. } => {
                let named = named(text);
                if named.is_empty() {
                    self.at_node.insert((Past::Fault, None), serial);
                }
                for node in named {
                    self.at_node.insert((Past::Fault, Some(node)), serial);
                }
            }
            _ => {}
        }
        if dull(&entry.seen) {
            let before = entry.cause;
            self.dull.insert(serial, before);
        }
    }
}

/// It leads from a cause to an effect, but says nothing.
fn dull(seen: &Seen) -> bool {
    match seen {
        Seen::Committed { .. }
        | Seen::WriteAsked { .. }
        | Seen::WriteEnded { .. }
        | Seen::ReadAsked { .. }
        | Seen::ReadEnded { .. }
        | Seen::Health { .. }
        | Seen::MemberKey { present: true }
        | Seen::Message { .. } => true,
        Seen::OrderBegan { order, .. } | Seen::OrderEnded { order, .. } => {
            matches!(
                order,
                Deed::Probe | Deed::WriteMember | Deed::AskPeers | Deed::ReadCluster | Deed::SetDeadline
            )
        }
        _ => false,
    }
}

/// The nodes that a step's text names, as `n1`.
pub(super) fn named(text: &str) -> Vec<NodeIndex> {
    let words = text.split(|char: char| !char.is_alphanumeric());
    let number = |word: &str| word.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1);
    words.filter_map(number).collect()
}

/// The chain that leads to an entry, the oldest first: the most telling cause of each, back to a fault or the beginning.
pub(super) fn chain(entries: &[Entry], causes: &[Vec<u64>], serial: u64) -> Vec<u64> {
    const LONGEST: usize = 14;
    let place = |serial: u64| entries.binary_search_by_key(&serial, |entry| entry.serial).ok();
    let mut chain = Vec::new();
    let mut next = Some(serial);
    while let Some(serial) = next
        && chain.len() < LONGEST
        && !chain.contains(&serial)
        && let Some(index) = place(serial)
    {
        chain.push(serial);
        next = causes[index].first().copied().filter(|cause| *cause < serial);
    }
    chain.reverse();
    chain
}

/// What happened of consequence between two times: what a person would tell.
pub(super) fn between(entries: &[Entry], from: Time, to: Time) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(move |entry| {
        let told = match &entry.seen {
            Seen::OrderBegan { order, .. } => {
                matches!(
                    order,
                    Deed::Promote
                        | Deed::StopFast
                        | Deed::StopImmediate
                        | Deed::Release
                        | Deed::EndReign
                        | Deed::Restart
                )
            }
            Seen::StepBegan { .. }
            | Seen::Healed
            | Seen::LockTaken { .. }
            | Seen::LockLost { .. }
            | Seen::LockReleased { .. }
            | Seen::Promoted { .. }
            | Seen::Ended { .. }
            | Seen::Up { .. }
            | Seen::AgentBegan
            | Seen::AgentDied
            | Seen::AgentEnded { .. }
            | Seen::AgentFrozen { .. }
            | Seen::HostFrozen { .. }
            | Seen::GuardDied
            | Seen::Lifted
            | Seen::Power { .. }
            | Seen::Hung { .. }
            | Seen::WalLost { .. }
            | Seen::Discarded { .. }
            | Seen::EtcdLeader { .. }
            | Seen::FailoverWritten { .. } => true,
            _ => false,
        };
        told && from < entry.at && entry.at < to
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use surus_core::types::{LeaseId, Revision};

    #[test]
    fn a_write_leads_back_to_the_fault_that_freed_the_lock() {
        leads_back(LeaseEnd::Expired);
        leads_back(LeaseEnd::Deposed);
    }

    fn leads_back(why: LeaseEnd) {
        let standing = crate::record::Standing {
            system_id: surus_core::types::SystemId(1),
            timeline: surus_core::types::Timeline(2),
            position: surus_core::types::Lsn(100),
        };
        let lost = Seen::LockLost {
            lease: LeaseId(1),
            why,
        };
        let taken = Seen::LockTaken {
            lease: LeaseId(2),
            revision: Revision(3),
            term: surus_core::types::Term(1),
            primary: false,
            standing: None,
            optime: None,
        };
        let order = |order| Seen::OrderBegan {
            id: 1,
            order,
            about: None,
        };
        let seen = [
            (
                None,
                Seen::StepBegan {
                    step: 0,
                    text: "power-loss n1 back=8s".into(),
                },
            ),
            (Some(0), Seen::Power { on: false }),
            (Some(0), lost),
            (Some(1), taken),
            (Some(1), order(Deed::Promote)),
            (
                Some(1),
                Seen::Promoted {
                    from: standing.timeline,
                    switch: standing.position,
                    standing,
                },
            ),
            (
                Some(1),
                Seen::Committed {
                    key: 1,
                    value: 1,
                    standing,
                },
            ),
        ];
        let entries: Vec<Entry> = (0..)
            .zip(seen)
            .map(|(serial, (node, seen))| Entry {
                at: serial,
                node,
                seen,
                serial,
                cause: if serial == 4 {
                    Some(3)
                } else {
                    serial.checked_sub(1)
                },
            })
            .collect();
        let causes = causes(&entries);
        assert_eq!(causes[3], [2], "the lock was free because it was lost");
        assert_eq!(causes[2], [1], "and that because the power was");
        assert_eq!(chain(&entries, &causes, 2), [0, 1, 2]);
        assert_eq!(
            chain(&entries, &causes, 6),
            [4, 5, 6],
            "no decision was told of that gave the order"
        );
    }
}
