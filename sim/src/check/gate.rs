//! C1, before there is a history: with the gate nobody is let in to see what no standby has.
//!
//! A start or a promotion shows commits that were waiting for standbys. While the gate is shut clients see nothing; when it is opened
//! some other disk has all that was in the log as it was shut, or the bound that the node obeys is over, or the gate is not wanted any more.
//! Who has it may be cloned anew by a person's word, of which nobody can hear in time.

use std::collections::BTreeMap;

use surus_core::types::Lsn;

use super::{Fact, Invariant, Moment, Violation, name};
use crate::record::{NodeIndex, Rebuild, Seen};

/// What is let in to which new primary.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    /// Since when, and where the log ended then.
    shut: BTreeMap<NodeIndex, (Fact, Option<Lsn>)>,
}

impl Gates {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let node = moment.fact.node?;
        match moment.seen {
            Seen::GateShut => {
                let standing = moment.scene.member(node).and_then(|member| member.standing);
                let end = standing.map(|standing| standing.position);
                self.shut.insert(node, (moment.fact, end));
            }
            Seen::GateLifted => {
                self.shut.remove(&node);
            }
            Seen::GateOpened { having } => {
                let (since, _) = self.shut.remove(&node)?;
                let member = moment.scene.member(node);
                let gate = member.and_then(|member| member.settings)?.gate?;
                // By the node's clock, which may run fast.
                let bound = gate.bound - gate.bound / 500;
                let over = !gate.hold && since.at + bound <= moment.at;
                if having.is_empty() && !over {
                    let text = format!(
                        "{} lets clients in {:.1} s after it began to show what no other disk has",
                        name(node),
                        super::seconds(moment.at - since.at)
                    );
                    return moment.breaks(Invariant::C1, Some(since), text);
                }
            }
            Seen::Discarded {
                how: Rebuild::Clone,
                source: Some(source),
                own,
                theirs: Some(theirs),
                ..
            } if moment.charter.reinit && own.timeline == theirs.timeline => {
                let end = self.shut.get(source).and_then(|(_, end)| *end);
                if end.unwrap_or(theirs.position) <= own.position {
                    self.shut.remove(source);
                }
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Charter;
    use super::super::made_up::{MadeUp, at};
    use super::*;
    use crate::clock::SEC;
    use crate::record::Gate;

    fn opened(hold: bool, after: u64, having: &[NodeIndex]) -> (MadeUp, Fact, Fact) {
        let mut run = MadeUp::leading(2);
        run.gated(
            0,
            Gate {
                bound: 10 * SEC,
                hold,
            },
        );
        let first = run.see(Some(0), Seen::GateShut);
        run.later(after);
        let having = having.to_vec();
        let second = run.see(Some(0), Seen::GateOpened { having });
        (run, first, second)
    }

    #[test]
    fn a_gate_opens_for_a_standby_or_when_its_bound_is_over() {
        opened(true, 100, &[1]).0.clean();
        opened(false, 10_000, &[]).0.clean();
    }

    #[test]
    fn a_person_may_have_the_standby_cloned_anew_that_has_it() {
        for (has, excused) in [(100, true), (90, false)] {
            let mut run = MadeUp::chartered(Charter {
                nodes: 2,
                reinit: true,
                ..Charter::default()
            });
            let hold = true;
            run.gated(0, Gate { bound: SEC, hold });
            run.see(Some(0), Seen::GateShut);
            run.see(
                Some(1),
                Seen::Discarded {
                    how: Rebuild::Clone,
                    source: Some(0),
                    own: at(1, has),
                    theirs: Some(at(1, 100)),
                    alone: None,
                },
            );
            run.see(Some(0), Seen::GateOpened { having: Vec::new() });
            assert_eq!(run.checker.violation.is_none(), excused);
        }
    }

    #[test]
    fn a_gate_that_opens_too_soon_is_found() {
        for (hold, after) in [(false, 9_000), (true, 60_000)] {
            let (run, first, second) = opened(hold, after, &[]);
            run.broken(Invariant::C1, Some(first), second);
        }
    }
}
