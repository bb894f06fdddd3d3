//! S10: what a slot keeps is kept.
//!
//! Per server and slot: its position never goes back while the data directory is the same; no WAL at or after the position of a slot is
//! removed. A member's slot is not dropped while that member streams from the server through it.
//!
//! Not counted: a slot on a data directory that was rebuilt (slots are not copied), a slot that a person or a limit of the server
//! (`max_slot_wal_keep_size`) invalidated, and how long a slot of a vanished member is kept: that is a setting, and costs disk, not data.

use std::collections::BTreeMap;

use surus_core::types::Lsn;

use super::{Fact, Invariant, Moment, Violation, name};
use crate::record::{NodeIndex, Seen};

/// S10.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    /// By the server's node and the slot's owner.
    kept: BTreeMap<(NodeIndex, NodeIndex), (Lsn, Fact)>,
}

impl Slots {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let node = moment.fact.node?;
        match moment.seen {
            Seen::Slot {
                of,
                position: Some(position),
            } => {
                let before = self.kept.insert((node, *of), (*position, moment.fact));
                let (before, since) = before.filter(|(before, _)| position < before)?;
                let text = format!(
                    "the slot of {} on {} goes back from {before} to {position}",
                    name(*of),
                    name(node)
                );
                moment.breaks(Invariant::S10, Some(since), text)
            }
            Seen::Slot { of, position: None } => {
                let (_, since) = self.kept.remove(&(node, *of))?;
                let streams = moment
                    .scene
                    .member(*of)
                    .is_some_and(|member| member.streams == Some(node));
                if !streams {
                    return None;
                }
                let text = format!(
                    "{} drops the slot of {}, which streams from it",
                    name(node),
                    name(*of)
                );
                moment.breaks(Invariant::S10, Some(since), text)
            }
            Seen::WalRemoved { before } => {
                let needed = self
                    .kept
                    .range((node, 0)..=(node, NodeIndex::MAX))
                    .find(|(_, (position, _))| position < before);
                let ((_, of), (position, since)) = needed?;
                let text = format!(
                    "{} removes WAL before {before}, and the slot of {} keeps it from {position}",
                    name(node),
                    name(*of)
                );
                moment.breaks(Invariant::S10, Some(*since), text)
            }
            Seen::Rebuilt { .. } | Seen::DataBroken | Seen::DataGone { .. } => {
                self.kept.retain(|(server, _), _| *server != node);
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, at};
    use super::*;

    fn slot(run: &mut MadeUp, of: NodeIndex, position: Option<u64>) -> Fact {
        let position = position.map(Lsn);
        run.see(Some(0), Seen::Slot { of, position })
    }

    fn removed(run: &mut MadeUp, before: u64) -> Fact {
        let before = Lsn(before);
        run.see(Some(0), Seen::WalRemoved { before })
    }

    #[test]
    fn slots_move_forward_and_wal_behind_them_goes() {
        let mut run = MadeUp::leading(3);
        slot(&mut run, 1, Some(100));
        slot(&mut run, 2, Some(300));
        slot(&mut run, 1, Some(200));
        removed(&mut run, 200);
        slot(&mut run, 1, None);
        removed(&mut run, 300);
        run.clean();
    }

    #[test]
    fn wal_that_a_slot_keeps_stays() {
        let mut run = MadeUp::leading(3);
        let first = slot(&mut run, 1, Some(100));
        let second = removed(&mut run, 101);
        run.broken(Invariant::S10, Some(first), second);
    }

    #[test]
    fn a_slot_does_not_go_back() {
        let mut run = MadeUp::leading(3);
        let first = slot(&mut run, 1, Some(100));
        let second = slot(&mut run, 1, Some(99));
        run.broken(Invariant::S10, Some(first), second);
    }

    #[test]
    fn a_slot_in_use_is_not_dropped() {
        let mut run = MadeUp::leading(3);
        run.replica(1, at(1, 100), 0);
        let first = slot(&mut run, 1, Some(100));
        let second = slot(&mut run, 1, None);
        run.broken(Invariant::S10, Some(first), second);
    }
}
