//! L2, between members: nobody takes away the key of a leader that has a right to be primary.
//!
//! Whose right by the lock or by grants runs is no reason for a failover, whatever the others have heard of it. What counts is the right that its
//! agent knows of.
//!
//! Not counted: a key that a person deletes; a right by grants that came after the order, for a leader whose right had been over by then
//! (15628610): it lives on, and takes the lock again; and a right by grants that need not be asked of whom a person names in a manual failover, who
//! cannot know of it (18019593).

use std::collections::BTreeMap;

use super::calm::Calm;
use super::{Fact, Invariant, Moment, Violation, name, seconds};
use crate::clock::{SEC, Time};
use crate::record::{Deed, LeaseEnd, NodeIndex, RightBy, Seen};

/// For so long an order that nobody waits for any more may still arrive.
const UNDER_WAY: Time = 60 * SEC;

/// L2, of reigns that are ended.
#[derive(Debug, Clone, Default)]
pub struct Reign {
    /// The last grants of each.
    grants: BTreeMap<NodeIndex, Fact>,
    /// When a member last ordered to end one, and whether a person had named it.
    ordered: Option<(Time, bool)>,
}

impl Reign {
    pub(super) fn see(&mut self, moment: &Moment<'_>, calm: &Calm) -> Option<Violation> {
        match moment.seen {
            Seen::Right {
                by: RightBy::Grants, ..
            } => {
                self.grants.insert(moment.fact.node?, moment.fact);
                None
            }
            Seen::OrderBegan {
                order: Deed::EndReign,
                ..
            } => {
                let forced = moment.scene.forced(moment.fact.node?);
                self.ordered = Some((moment.at, forced));
                None
            }
            Seen::LockLost {
                why: LeaseEnd::Deposed,
                ..
            } => {
                let (ordered, forced) = self.ordered.filter(|(at, _)| moment.at <= at + UNDER_WAY)?;
                let node = moment.fact.node?;
                let (until, told) = calm.known(node)?;
                let granted = self.grants.get(&node) == Some(&told);
                if until <= moment.at || granted && (forced || ordered <= told.at) {
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

    /// The key of the first member is taken away; if that is not fine, it breaks the rule for what it was told.
    fn taken(mut run: MadeUp, fine: bool, told: Fact) {
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

    fn order() -> Seen {
        Seen::OrderBegan {
            id: 1,
            order: Deed::EndReign,
            about: None,
        }
    }

    #[test]
    fn a_reign_is_ended_after_its_right_and_by_members() {
        for (at, ordered, fine) in [(5900, true, false), (5900, false, true), (6000, true, true)] {
            let mut run = MadeUp::leading(2);
            let told = run.right(0, 1000);
            run.done(0, Deed::Renew);
            run.later(at);
            if ordered {
                run.see(Some(1), order());
            }
            taken(run, fine, told);
        }
    }

    #[test]
    fn grants_count_that_were_there_before_the_order() {
        for (granted_first, named, fine) in [(true, false, false), (true, true, true), (false, false, true)] {
            let mut run = MadeUp::leading(2);
            if named {
                run.person_names(1);
            }
            run.right(0, 0);
            run.done(0, Deed::Renew);
            run.later(5500);
            if !granted_first {
                run.see(Some(1), order());
            }
            let grants = Seen::Right {
                sent: 5 * SEC,
                until: 10 * SEC,
                by: RightBy::Grants,
            };
            let told = run.see(Some(0), grants);
            run.done(0, Deed::AskFailsafe);
            run.later(1);
            if granted_first {
                run.see(Some(1), order());
            }
            taken(run, fine, told);
        }
    }
}
