//! L2, between members: nobody takes away the key of a leader that has a right to be primary.
//!
//! Whose right by the lock or by grants runs is no reason for a failover, whatever the others have heard of it. A renewal that tells of a
//! shorter ttl ends what a longer one gave.
//!
//! Not counted: a key that a person deletes; and a right by grants that came after the order, for a leader whose right had been over by then
//! (15628610): it lives on, and takes the lock again.

use std::collections::BTreeMap;

use super::{Fact, Invariant, Moment, Violation, name, seconds};
use crate::clock::{SEC, Time};
use crate::record::{Deed, LeaseEnd, NodeIndex, RightBy, Seen};

/// For so long an order that nobody waits for any more may still arrive.
const UNDER_WAY: Time = 60 * SEC;

/// L2, of reigns that are ended.
#[derive(Debug, Clone, Default)]
pub struct Reign {
    /// How long the right of each lasts that it was told of last, by what, and since when.
    rights: BTreeMap<NodeIndex, (Time, RightBy, Fact)>,
    /// When a member last ordered to end one.
    ordered: Option<Time>,
}

impl Reign {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        match moment.seen {
            Seen::Right { until, by, .. } => {
                let told = (*until, *by, moment.fact);
                let right = self.rights.entry(moment.fact.node?).or_insert(told);
                if *by == RightBy::Lock || right.0 < *until {
                    *right = told;
                }
                None
            }
            Seen::OrderBegan {
                order: Deed::EndReign,
                ..
            } => {
                self.ordered = Some(moment.at);
                None
            }
            Seen::LockLost {
                why: LeaseEnd::Deposed,
                ..
            } => {
                let ordered = self.ordered.filter(|at| moment.at <= at + UNDER_WAY)?;
                let node = moment.fact.node?;
                let (until, by, told) = *self.rights.get(&node)?;
                let late = by == RightBy::Grants && ordered <= told.at;
                if until <= moment.at || late {
                    return None;
                }
                let left = seconds(until - moment.at);
                let text = format!(
                    "the key of {} is taken away {left:.3} s before its right ends",
                    name(node)
                );
                moment.breaks(Invariant::L2, Some(told), text)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use surus_core::types::LeaseId;

    use super::super::made_up::MadeUp;
    use super::*;

    #[test]
    fn a_reign_is_ended_after_its_right_and_by_members() {
        let lost = Seen::LockLost {
            lease: LeaseId(1),
            why: LeaseEnd::Deposed,
        };
        let order = Seen::OrderBegan {
            id: 1,
            order: Deed::EndReign,
            about: None,
        };
        for (at, ordered, fine) in [(5900, true, false), (5900, false, true), (6000, true, true)] {
            let mut run = MadeUp::leading(2);
            let told = run.right(0, 1000);
            run.later(at);
            if ordered {
                run.see(Some(1), order.clone());
            }
            let taken = run.see(Some(0), lost.clone());
            if fine {
                run.clean();
            } else {
                run.broken(Invariant::L2, Some(told), taken);
            }
        }
    }

    #[test]
    fn grants_count_that_were_there_before_the_order() {
        for (granted_first, fine) in [(true, false), (false, true)] {
            let mut run = MadeUp::leading(2);
            run.later(5500);
            let order = Seen::OrderBegan {
                id: 1,
                order: Deed::EndReign,
                about: None,
            };
            let grants = Seen::Right {
                sent: 5 * SEC,
                until: 10 * SEC,
                by: RightBy::Grants,
            };
            if !granted_first {
                run.see(Some(1), order.clone());
            }
            let told = run.see(Some(0), grants);
            run.later(1);
            if granted_first {
                run.see(Some(1), order);
            }
            let lost = Seen::LockLost {
                lease: LeaseId(1),
                why: LeaseEnd::Deposed,
            };
            let taken = run.see(Some(0), lost);
            if fine {
                run.clean();
            } else {
                run.broken(Invariant::L2, Some(told), taken);
            }
        }
    }
}
