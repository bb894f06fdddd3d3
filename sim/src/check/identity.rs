//! S6 and S11: a timeline is made once, above all that were made before; a cluster has one identity.
//!
//! S6: a promotion makes a timeline with a number above every timeline that was ever made of that cluster, on whatever node, whether it
//! came to acknowledge a write or not: it counts from the moment at which some disk has it. A host that stood still as a whole may finish its
//! own, under a number that nobody else has used, in the instant before its guard ends it.
//!
//! S11: `initialize`, once it names a cluster, never names another; while it names one, no server of another begins as primary.
//!
//! Not counted: a cluster that was created and never named (its maker died before it could say so) and that another took the place of:
//! it has no identity yet. If it acknowledged writes, S1 judges those. An `initdb` that a maker which stood still ends when another's
//! cluster has its name: its files are nobody's, and must not become a server. A timeline that a person made by hand, past the agent.

use std::collections::BTreeMap;

use surus_core::types::{SystemId, Timeline};
use surus_core::view::Initialize;

use super::{Fact, Invariant, Moment, Violation, name};
use crate::record::{NodeIndex, Seen, Standing};

/// S6 and S11.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    newest: BTreeMap<SystemId, (Timeline, Fact)>,
    /// The timelines that began on a disk, and on whose.
    forked: BTreeMap<(SystemId, Timeline), NodeIndex>,
    named: Option<(SystemId, Fact)>,
}

impl Identity {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        match moment.seen {
            Seen::Forked { standing, .. } | Seen::Promoted { standing, .. } => {
                let member = moment.fact.node.and_then(|node| moment.scene.member(node));
                if member.is_some_and(|member| member.by_hand) {
                    return None;
                }
                let made = (standing.timeline, moment.fact);
                let (newest, maker) = *self.newest.entry(standing.system_id).or_insert(made);
                // What was forked is told of again when it is opened, perhaps much later.
                let line = (standing.system_id, standing.timeline);
                let unused = !self.forked.contains_key(&line) && standing.timeline < newest;
                let opened = match (moment.seen, moment.fact.node) {
                    (Seen::Forked { .. }, Some(node)) => {
                        self.forked.entry(line).or_insert(node);
                        false
                    }
                    (_, node) => node.is_some() && self.forked.get(&line).copied() == node,
                };
                if opened {
                    return None;
                }
                // A host that stood still finishes in one instant what its right allowed when it stopped; the number was reserved for it.
                if unused && member.is_some_and(|member| member.just_thawed(moment.at)) {
                    return None;
                }
                if newest < standing.timeline || maker == moment.fact {
                    self.newest.insert(standing.system_id, made);
                    return None;
                }
                let who = moment.fact.node.map(name).unwrap_or_default();
                let text = format!(
                    "{who} makes timeline {}, and timeline {newest} exists",
                    standing.timeline
                );
                moment.breaks(Invariant::S6, Some(maker), text)
            }
            Seen::Bootstrapped { system_id } => {
                self.newest.insert(*system_id, (Timeline(1), moment.fact));
                None
            }
            Seen::Starting {
                as_primary: true,
                standing: Standing { system_id, .. },
            } => {
                let (named, when) = self.named.filter(|(named, _)| named != system_id)?;
                let text = format!("a primary of cluster {system_id} begins beside cluster {named}");
                moment.breaks(Invariant::S11, Some(when), text)
            }
            Seen::InitializeWritten {
                to: Some(Initialize::Done(id)),
            } => {
                let (named, when) = *self.named.get_or_insert((*id, moment.fact));
                if named == *id {
                    return None;
                }
                let text = format!("the cluster was {named} and is now called {id}");
                moment.breaks(Invariant::S11, Some(when), text)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, at};
    use super::*;

    fn named(run: &mut MadeUp, id: u64) -> Fact {
        let to = Some(Initialize::Done(SystemId(id)));
        run.see(None, Seen::InitializeWritten { to })
    }

    #[test]
    fn timelines_grow_and_may_leave_gaps() {
        let mut run = MadeUp::leading(2);
        run.promote(1, at(2, 100));
        run.promote(0, at(5, 100));
        run.clean();
    }

    fn forked(run: &mut MadeUp, node: usize, timeline: u32) -> Fact {
        run.see(
            Some(node),
            Seen::Forked {
                from: Timeline(timeline - 1),
                switch: surus_core::types::Lsn(90),
                standing: at(timeline, 100),
            },
        )
    }

    #[test]
    fn a_timeline_that_was_never_opened_exists() {
        let mut run = MadeUp::leading(2);
        forked(&mut run, 1, 2);
        run.promote(1, at(2, 100));
        run.clean();
        let first = forked(&mut run, 1, 3);
        let second = forked(&mut run, 0, 3);
        run.broken(Invariant::S6, Some(first), second);
    }

    #[test]
    fn a_number_is_used_once() {
        let mut run = MadeUp::leading(2);
        let first = run.promote(1, at(3, 100));
        let second = run.promote(0, at(3, 100));
        run.broken(Invariant::S6, Some(first), second);
    }

    #[test]
    fn a_lower_number_is_not_made_later() {
        let mut run = MadeUp::leading(2);
        let first = run.promote(1, at(3, 100));
        let second = run.promote(0, at(2, 100));
        run.broken(Invariant::S6, Some(first), second);
    }

    #[test]
    fn a_host_that_stood_still_may_finish_what_was_reserved_for_it_and_nothing_else() {
        for (timeline, fine) in [(2, true), (3, false)] {
            let mut run = MadeUp::leading(2);
            run.see(Some(0), Seen::HostFrozen { frozen: true });
            forked(&mut run, 1, 3);
            run.later(1000);
            run.see(Some(0), Seen::HostFrozen { frozen: false });
            forked(&mut run, 0, timeline);
            assert_eq!(run.checker.violation.is_none(), fine, "timeline {timeline}");
        }
    }

    #[test]
    fn a_cluster_keeps_its_name() {
        let mut run = MadeUp::leading(2);
        run.see(
            None,
            Seen::InitializeWritten {
                to: Some(Initialize::InProgress),
            },
        );
        let first = named(&mut run, 7);
        named(&mut run, 7);
        run.clean();
        let second = named(&mut run, 8);
        run.broken(Invariant::S11, Some(first), second);
    }

    #[test]
    fn no_primary_of_another_cluster_begins_beside_the_named_one() {
        let mut run = MadeUp::leading(2);
        let made = |run: &mut MadeUp, node, id| {
            let system_id = SystemId(id);
            run.see(Some(node), Seen::Bootstrapped { system_id });
            system_id
        };
        made(&mut run, 0, 7);
        let first = named(&mut run, 7);
        // Its maker stood still; as long as it is not started it is nobody's.
        let system_id = made(&mut run, 1, 8);
        run.clean();
        let mut begins = |system_id| {
            run.see(
                Some(1),
                Seen::Starting {
                    as_primary: true,
                    standing: Standing {
                        system_id,
                        ..at(1, 100)
                    },
                },
            )
        };
        begins(SystemId(7));
        let second = begins(system_id);
        run.broken(Invariant::S11, Some(first), second);
    }
}
