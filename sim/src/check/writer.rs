//! S1: a single writer.
//!
//! A *writer* is a node on a timeline of a cluster. Writes are acknowledged by one writer after another: once a second one has
//! acknowledged a write, the first never does again; and no timeline is ever written by two nodes. There is no window of grace: the
//! hand-over is bounded by rights, and S4 holds each writer to its own, so that two that overlap are always a violation.
//!
//! Not counted:
//! - the writes of a primary without a deadline whose lock a person gave to another by a manual failover: the person said that it is
//!   dead ([`super::Scene::overruled`]);
//! - what a server acknowledges within [`super::fence::KILL`] after its whole host stood still: nothing on a frozen host can fence it, and
//!   users are told so.

use std::collections::BTreeMap;

use surus_core::types::{SystemId, Timeline};

use super::{Fact, Invariant, Moment, Violation, name, seconds};
use crate::record::{NodeIndex, Seen};

type Key = (SystemId, Timeline);

/// S1.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    present: Option<(NodeIndex, Key, Fact)>,
    /// Who has been followed by another, and the first write of that one.
    past: BTreeMap<(NodeIndex, Key), Fact>,
    owners: BTreeMap<Key, (NodeIndex, Fact)>,
}

impl Writer {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let (Seen::Committed { standing, .. }, Some(node)) = (moment.seen, moment.fact.node) else {
            return None;
        };
        let member = moment.scene.member(node)?;
        if moment.scene.overruled == Some(node) || member.just_thawed(moment.at) {
            return None;
        }
        let key = (standing.system_id, standing.timeline);
        if let Some((present, presents, _)) = self.present
            && (present, presents) == (node, key)
        {
            return None;
        }
        let who = format!(
            "{} acknowledges on timeline {} of cluster {}",
            name(node),
            key.1,
            key.0
        );
        let owner = *self.owners.entry(key).or_insert((node, moment.fact));
        if owner.0 != node {
            let text = format!(
                "{who}, which {} has written since {:.3} s",
                name(owner.0),
                seconds(owner.1.at)
            );
            return moment.breaks(Invariant::S1, Some(owner.1), text);
        }
        if let Some(follower) = self.past.get(&(node, key)) {
            let by = follower.node.map(name).unwrap_or_default();
            let text = format!(
                "{who} after {by} has acknowledged writes since {:.3} s",
                seconds(follower.at)
            );
            return moment.breaks(Invariant::S1, Some(*follower), text);
        }
        if let Some((before, befores, _)) = self.present {
            self.past.insert((before, befores), moment.fact);
        }
        self.present = Some((node, key, moment.fact));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, at};
    use super::*;

    #[test]
    fn writers_follow_one_another() {
        let mut run = MadeUp::leading(2);
        run.write(0, at(1, 100));
        run.write(0, at(1, 110));
        run.promote(1, at(2, 120));
        run.write(1, at(2, 130));
        run.write(1, at(2, 140));
        run.clean();
    }

    #[test]
    fn who_was_followed_is_done() {
        let mut run = MadeUp::leading(2);
        run.write(0, at(1, 100));
        run.promote(1, at(2, 120));
        let first = run.write(1, at(2, 130));
        let second = run.write(0, at(1, 110));
        run.broken(Invariant::S1, Some(first), second);
    }

    #[test]
    fn a_timeline_has_one_writer() {
        let mut run = MadeUp::leading(2);
        let first = run.write(0, at(1, 100));
        run.primary(1, at(1, 100));
        let second = run.write(1, at(1, 110));
        run.broken(Invariant::S1, Some(first), second);
    }

    #[test]
    fn what_a_person_overruled_is_not_counted_until_it_is_fenced() {
        let mut run = MadeUp::leading(2);
        run.write(0, at(1, 100));
        run.status(0, 100, true);
        run.person_names(1);
        run.take_lock(1, at(1, 100));
        run.promote(1, at(2, 120));
        run.write(1, at(2, 130));
        run.write(0, at(1, 110));
        run.clean();
        run.arm(0, 60_000);
        run.write(0, at(1, 120));
        assert_eq!(
            run.checker.violation.map(|found| found.invariant),
            Some(Invariant::S1)
        );
    }

    #[test]
    fn whom_a_person_overruled_beside_the_failsafe_list_is_fenced_when_it_has_ended() {
        for named in [true, false] {
            let mut run = MadeUp::leading(2);
            run.write(0, at(1, 100));
            run.see(Some(0), Seen::FailsafeWritten { list: vec![0] });
            if named {
                run.person_names(1);
            }
            run.take_lock(1, at(1, 100));
            run.promote(1, at(2, 120));
            run.write(1, at(2, 130));
            run.arm(0, 60_000);
            run.write(0, at(1, 110));
            assert_eq!(run.checker.violation.is_none(), named);
        }
    }
}
