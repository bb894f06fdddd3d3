//! S12: every input has an answer, and nothing spins.
//!
//! A core that panics, or asks to be woken at a time that has passed, is told by the world ([`Seen::Broken`]). Beyond that, in each second of
//! the world one member begins at most [`ORDERS`] orders of one kind and takes at most [`DECISIONS`] decisions that differ from the last.
//!
//! Not counted: decisions that repeat the last one (the world does not record them), and answers to questions of others, which set their own
//! pace.

use std::collections::BTreeMap;

use super::{Fact, Invariant, Moment, Violation, name};
use crate::clock::{SEC, Time};
use crate::record::{Deed, NodeIndex, Seen};

/// Orders of one kind in a second: a look at PostgreSQL every 50 ms while it changes is the briskest; a switch of timelines or a storm of
/// changes on the watch adds to it.
pub const ORDERS: u32 = 60;

/// Decisions in a second that differ each from the one before.
pub const DECISIONS: u32 = 120;

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    since: Time,
    first: Option<Fact>,
    number: u32,
}

impl Count {
    /// One more: the first of this second, if there are more than `limit`.
    fn more(&mut self, fact: Fact, limit: u32) -> Option<Fact> {
        let second = fact.at - fact.at % SEC;
        if self.since != second || self.first.is_none() {
            *self = Self {
                since: second,
                first: Some(fact),
                number: 0,
            };
        }
        self.number += 1;
        self.first.filter(|_| limit < self.number)
    }
}

/// S12.
#[derive(Debug, Clone, Default)]
pub struct Totality {
    orders: BTreeMap<(NodeIndex, Deed), Count>,
    decisions: BTreeMap<NodeIndex, Count>,
}

impl Totality {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let who = |node: Option<NodeIndex>| node.map_or_else(|| "the world".to_owned(), name);
        match (moment.seen, moment.fact.node) {
            (Seen::Broken { text }, node) => {
                moment.breaks(Invariant::S12, None, format!("{}: {text}", who(node)))
            }
            (Seen::OrderBegan { order, .. }, Some(node)) if *order != Deed::Reply => {
                let first = self
                    .orders
                    .entry((node, *order))
                    .or_default()
                    .more(moment.fact, ORDERS)?;
                let text = format!(
                    "{} gives the order {} more than {ORDERS} times in a second",
                    name(node),
                    order.name()
                );
                moment.breaks(Invariant::S12, Some(first), text)
            }
            (Seen::Decided(_), Some(node)) => {
                let first = self
                    .decisions
                    .entry(node)
                    .or_default()
                    .more(moment.fact, DECISIONS)?;
                let text = format!(
                    "{} changes its mind more than {DECISIONS} times in a second",
                    name(node)
                );
                moment.breaks(Invariant::S12, Some(first), text)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::MadeUp;
    use super::*;

    fn order(run: &mut MadeUp, order: Deed) {
        run.see(
            Some(0),
            Seen::OrderBegan {
                id: 1,
                order,
                about: None,
            },
        );
    }

    #[test]
    fn a_brisk_pace_is_fine() {
        let mut run = MadeUp::leading(1);
        for _ in 0..200 {
            run.later(20);
            order(&mut run, Deed::Probe);
        }
        run.clean();
    }

    #[test]
    fn an_order_without_end_is_found() {
        let mut run = MadeUp::leading(1);
        for _ in 0..61 {
            run.later(10);
            order(&mut run, Deed::Renew);
        }
        assert_eq!(run.violation().invariant, Invariant::S12);
    }

    #[test]
    fn kinds_and_members_are_counted_apart() {
        let mut run = MadeUp::leading(2);
        for _ in 0..60 {
            run.later(10);
            order(&mut run, Deed::Renew);
            order(&mut run, Deed::Probe);
            run.see(
                Some(1),
                Seen::OrderBegan {
                    id: 1,
                    order: Deed::Renew,
                    about: None,
                },
            );
        }
        run.clean();
    }

    #[test]
    fn a_panic_is_told_by_the_world() {
        let mut run = MadeUp::leading(1);
        run.see(
            Some(0),
            Seen::Broken {
                text: "panicked".into(),
            },
        );
        assert_eq!(run.violation().invariant, Invariant::S12);
    }
}
