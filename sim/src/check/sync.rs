//! S7: whoever may elect meets whoever may acknowledge.
//!
//! With synchronous replication a commit is acknowledged once `needed` of some standbys have it, and a new primary is found among
//! the members of the `sync` key, of which `quorum` must be heard. Whatever standbys acknowledged, and whatever members are heard, one must be in
//! both: else a primary can be elected that lacks an acknowledged commit. It must hold at every instant, in the middle of a change of
//! either set too.
//!
//! Judged at each change of the `sync` key and of what the primary's server waits for. Not counted: a server that waits for nobody (it
//! acknowledges alone: with a `sync` key that names others that is a violation, without one it is asynchronous and S3's matter), servers
//! that are no primary, and one that serves on beside the reign that wrote the key (S1 and S4 judge it).

use super::{Fact, Invariant, Moment, Violation, name};
use crate::record::{NodeIndex, Seen};

/// So many of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// Of these.
    pub members: Vec<NodeIndex>,
    /// So many.
    pub number: usize,
}

/// Whether any `one.number` of `one` and any `other.number` of `other` have a member in common.
#[must_use]
pub fn intersect(one: &Choice, other: &Choice) -> bool {
    let common = one
        .members
        .iter()
        .filter(|node| other.members.contains(node))
        .count();
    // Each side avoids the common ones as far as it can; what is left over must fit beside each other.
    let forced = |side: &Choice| side.number.saturating_sub(side.members.len() - common);
    common < forced(one) + forced(other)
}

/// S7.
#[derive(Debug, Clone, Default)]
pub struct Sync {
    electors: Option<(Choice, Fact)>,
    /// Of the last server that said so.
    acknowledgers: Option<(NodeIndex, Vec<Choice>, Fact)>,
}

impl Sync {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let earlier = match (moment.seen, moment.fact.node) {
            (Seen::SyncWritten { members, quorum }, _) => {
                let electors = Choice {
                    members: members.clone(),
                    number: *quorum,
                };
                self.electors = (!members.is_empty()).then_some((electors, moment.fact));
                self.acknowledgers.as_ref().map(|(.., fact)| *fact)
            }
            (Seen::SyncStandbys { .. }, Some(node)) if moment.scene.by_hand(node) => {
                return None;
            }
            (Seen::SyncStandbys { rules }, Some(node)) => {
                let choice = |(members, number): &(Vec<NodeIndex>, usize)| Choice {
                    members: members.clone(),
                    number: *number,
                };
                let rules: Vec<Choice> = rules.iter().map(choice).collect();
                self.acknowledgers = (!rules.is_empty()).then_some((node, rules, moment.fact));
                self.electors.as_ref().map(|(_, fact)| *fact)
            }
            (Seen::Ended { .. }, Some(node)) => {
                if self.acknowledgers.as_ref().is_some_and(|(who, ..)| *who == node) {
                    self.acknowledgers = None;
                }
                return None;
            }
            _ => return None,
        };
        let (electors, written) = self.electors.as_ref()?;
        let (node, rules, _) = self.acknowledgers.as_ref()?;
        if written.node.is_some_and(|leader| leader != *node) {
            return None;
        }
        let acknowledgers = rules.iter().find(|rule| !intersect(electors, rule))?;
        let list = |some: &Choice| {
            let names: Vec<String> = some.members.iter().map(|node| name(*node)).collect();
            format!("any {} of [{}]", some.number, names.join(", "))
        };
        let text = format!(
            "{} acknowledges after {}, and {} may elect: they need not meet",
            name(*node),
            list(acknowledgers),
            list(electors)
        );
        moment.breaks(Invariant::S7, earlier, text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::MadeUp;
    use super::*;

    fn some(members: &[NodeIndex], number: usize) -> Choice {
        Choice {
            members: members.to_vec(),
            number,
        }
    }

    /// All ways to choose `number` of `members`, as bits.
    fn choices(some: &Choice) -> Vec<u32> {
        (0u32..1 << 5)
            .filter(|bits| bits.count_ones() as usize == some.number)
            .filter(|bits| (0..5).all(|node| bits & 1 << node == 0 || some.members.contains(&node)))
            .collect()
    }

    #[test]
    fn the_formula_agrees_with_trying_everything() {
        for one_bits in 1u32..32 {
            for other_bits in 1u32..32 {
                let members = |bits: u32| (0..5).filter(|node| bits & 1 << node != 0).collect::<Vec<_>>();
                let (ones, others) = (members(one_bits), members(other_bits));
                for one_number in 0..=ones.len() {
                    for other_number in 0..=others.len() {
                        let (one, other) = (some(&ones, one_number), some(&others, other_number));
                        let all = choices(&one)
                            .iter()
                            .all(|a| choices(&other).iter().all(|b| a & b != 0));
                        assert_eq!(intersect(&one, &other), all, "{one:?} {other:?}");
                    }
                }
            }
        }
    }

    fn electors(run: &mut MadeUp, members: &[NodeIndex], quorum: usize) -> Fact {
        let members = members.to_vec();
        run.see(None, Seen::SyncWritten { members, quorum })
    }

    fn waits(run: &mut MadeUp, members: &[NodeIndex], needed: usize) -> Fact {
        let rules = vec![(members.to_vec(), needed)];
        run.see(Some(0), Seen::SyncStandbys { rules })
    }

    #[test]
    fn a_change_in_the_right_order_is_fine() {
        let mut run = MadeUp::leading(3);
        waits(&mut run, &[1], 1);
        electors(&mut run, &[1], 1);
        // The other standby is waited for too before it may elect, and the first may elect no more before it is not waited for.
        waits(&mut run, &[1, 2], 2);
        electors(&mut run, &[1, 2], 1);
        electors(&mut run, &[2], 1);
        waits(&mut run, &[2], 1);
        run.clean();
    }

    #[test]
    fn a_standby_that_elects_before_it_is_waited_for_is_found() {
        let mut run = MadeUp::leading(3);
        let first = waits(&mut run, &[1], 1);
        let second = electors(&mut run, &[1, 2], 1);
        run.broken(Invariant::S7, Some(first), second);
    }

    #[test]
    fn a_server_that_forgets_its_standbys_is_found() {
        let mut run = MadeUp::leading(3);
        waits(&mut run, &[1], 1);
        let first = electors(&mut run, &[1], 1);
        let second = waits(&mut run, &[], 0);
        run.broken(Invariant::S7, Some(first), second);
    }
}
