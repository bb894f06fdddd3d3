//! S8: the last good copy is not given up.
//!
//! Judged at the instant at which a data directory is given up for another's (a rewind, a clone over something):
//! - the cluster's settings, or a person, allow it;
//! - the node does not hold the lock, and does not copy from itself;
//! - what replaces it is not older: not of a lower timeline of the same cluster, once its own timeline has acknowledged a write.
//!
//! Not counted: the acknowledged writes that an asynchronous failover loses (S3 judges how many), and directories that a fault took.

use std::collections::BTreeMap;

use surus_core::types::{SystemId, Timeline};

use super::{Fact, Invariant, Moment, Violation, name};
use crate::record::{Rebuild, Seen};

/// S8.
#[derive(Debug, Clone, Default)]
pub struct LastCopy {
    /// The first write that each timeline acknowledged.
    wrote: BTreeMap<(SystemId, Timeline), Fact>,
}

impl LastCopy {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        match (moment.seen, moment.fact.node) {
            (Seen::Committed { standing, .. }, _) => {
                let key = (standing.system_id, standing.timeline);
                self.wrote.entry(key).or_insert(moment.fact);
                None
            }
            (
                Seen::Discarded {
                    how,
                    source,
                    own,
                    theirs,
                    ..
                },
                Some(node),
            ) => {
                let (allowed, deed) = match how {
                    Rebuild::Rewind => (moment.charter.rewind, "is rewound"),
                    Rebuild::Clone => (moment.charter.reclone || moment.charter.reinit, "is cloned over"),
                };
                let who = format!("{} {deed}", name(node));
                if !allowed {
                    return moment.breaks(Invariant::S8, None, format!("{who}, and that is not allowed"));
                }
                if *source == Some(node) {
                    return moment.breaks(Invariant::S8, None, format!("{who} from itself"));
                }
                if let Some((_, since)) = moment.scene.holder.filter(|(holder, _)| *holder == node) {
                    return moment.breaks(
                        Invariant::S8,
                        Some(since),
                        format!("{who} while it holds the lock"),
                    );
                }
                let theirs = (*theirs)?;
                // Clients never reached what a person made by hand, whatever the cluster's own of that number acknowledged.
                let made = moment.scene.member(node).and_then(|member| member.made);
                let by_hand = made.is_some_and(|made| made.timeline == own.timeline);
                let wrote = self.wrote.get(&(own.system_id, own.timeline)).copied();
                let wrote = wrote.filter(|_| !by_hand);
                let older = own.system_id == theirs.system_id && theirs.timeline < own.timeline;
                if older && wrote.is_some() {
                    let (own, theirs) = (own.timeline, theirs.timeline);
                    let text = format!(
                        "{who}: its timeline {own} has acknowledged writes, and what replaces it is on timeline {theirs}"
                    );
                    return moment.breaks(Invariant::S8, wrote, text);
                }
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Charter;
    use super::super::made_up::{MadeUp, at};
    use super::*;
    use crate::record::{NodeIndex, Standing};

    fn discard(
        run: &mut MadeUp,
        node: NodeIndex,
        source: NodeIndex,
        own: Standing,
        theirs: Standing,
    ) -> Fact {
        run.see(
            Some(node),
            Seen::Discarded {
                how: Rebuild::Rewind,
                source: Some(source),
                own,
                theirs: Some(theirs),
                alone: None,
            },
        )
    }

    #[test]
    fn an_old_primary_is_rewound_onto_the_new_one() {
        let mut run = MadeUp::leading(2);
        run.write(0, at(1, 200));
        run.take_lock(1, at(1, 190));
        run.promote(1, at(2, 200));
        discard(&mut run, 0, 1, at(1, 200), at(2, 220));
        run.clean();
    }

    #[test]
    fn the_new_primary_is_not_rewound_onto_the_old_one() {
        let mut run = MadeUp::leading(2);
        run.promote(1, at(2, 200));
        let first = run.write(1, at(2, 220));
        let second = discard(&mut run, 1, 0, at(2, 220), at(1, 300));
        run.broken(Invariant::S8, Some(first), second);
    }

    #[test]
    fn who_leads_gives_nothing_up() {
        let mut run = MadeUp::leading(2);
        discard(&mut run, 0, 1, at(1, 100), at(2, 220));
        assert_eq!(run.violation().invariant, Invariant::S8);
    }

    #[test]
    fn nothing_is_given_up_where_that_is_not_allowed() {
        let mut run = MadeUp::chartered(Charter {
            nodes: 2,
            ..Charter::default()
        });
        discard(&mut run, 1, 0, at(1, 100), at(1, 100));
        assert_eq!(run.violation().invariant, Invariant::S8);
    }
}
