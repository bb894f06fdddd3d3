//! S4 and S13: writes only within a right, and only under a guard that will kill in time.
//!
//! S4: a server acknowledges a write only while a right of its node runs. A right is what was truly confirmed (or granted by everybody),
//! counted from when it was *asked for*, at the speed of the world's clock: what the agent believes plays no part.
//!
//! S13: whenever a server acknowledges a write, its node's guard lives and has a deadline, and that has not passed by more than
//! [`KILL`].
//!
//! Not counted:
//! - a primary that `status` says runs without a deadline (a pause), or whom a person overruled;
//! - what is acknowledged within [`KILL`] after the whole host stood still;
//! - whether the guard *would* kill: that shows when it ought to have.

use super::{Invariant, Moment, Violation, name, scene, seconds};
use crate::clock::{MS, Time};
use crate::record::Seen;

/// From a deadline to the last backend's death: 64 ms were measured with 28 busy backends on two cores.
pub const KILL: Time = 70 * MS;

/// S4 and S13.
#[derive(Debug, Clone, Default)]
pub struct Fence;

impl Fence {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let (Seen::Committed { .. }, Some(node)) = (moment.seen, moment.fact.node) else {
            return None;
        };
        let scene = moment.scene;
        let member = scene.member(node)?;
        let exempt = scene.unfenced == Some(node) || scene.overruled == Some(node);
        if exempt || member.just_thawed(moment.at) {
            return None;
        }
        if member.right < moment.at {
            let late = seconds(moment.at - member.right);
            let text = format!(
                "{} acknowledges {late:.3} s after its right, counted from when it was asked for",
                name(node)
            );
            return moment.breaks(Invariant::S4, member.right_by, text);
        }
        match member.guard {
            scene::Guard::Gone | scene::Guard::Idle => {
                let text = format!("{} acknowledges and no guard has a deadline for it", name(node));
                moment.breaks(Invariant::S13, member.guard_since, text)
            }
            scene::Guard::Armed(until) if until + KILL < moment.at => {
                let late = seconds(moment.at - until);
                let text = format!(
                    "{} acknowledges {late:.3} s after its guard's deadline",
                    name(node)
                );
                moment.breaks(Invariant::S13, member.guard_since, text)
            }
            scene::Guard::Armed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, at};
    use super::*;
    use crate::clock::SEC;
    use crate::record::End;

    #[test]
    fn a_write_within_right_and_deadline_is_fine() {
        let mut run = MadeUp::leading(1);
        run.later(4000);
        run.write(0, at(1, 100));
        run.clean();
    }

    #[test]
    fn a_deadline_that_is_brought_forward_binds_from_then_on() {
        for (after, fine) in [(60, true), (100, false)] {
            let mut run = MadeUp::leading(1);
            run.later(2000);
            run.arm(0, 1800);
            run.later(after);
            run.write(0, at(1, 100));
            assert_eq!(run.checker.violation.is_none(), fine);
        }
    }

    #[test]
    fn a_write_after_the_right_is_found() {
        let mut run = MadeUp::leading(1);
        run.arm(0, 60_000);
        run.later(5001);
        let write = run.write(0, at(1, 100));
        assert_eq!(run.violation().invariant, Invariant::S4);
        assert_eq!(run.violation().facts.last(), Some(&write.serial));
    }

    #[test]
    fn a_right_counts_from_when_it_was_asked_for() {
        let mut run = MadeUp::leading(1);
        run.arm(0, 60_000);
        run.later(4000);
        // Asked for three seconds ago, answered now: five seconds from then.
        run.right(0, 1000);
        run.later(1900);
        run.write(0, at(1, 100));
        run.clean();
        run.later(101);
        run.write(0, at(1, 110));
        assert_eq!(run.violation().invariant, Invariant::S4);
    }

    #[test]
    fn a_write_without_a_deadline_is_found() {
        let mut run = MadeUp::leading(1);
        run.see(Some(0), Seen::Lifted);
        run.write(0, at(1, 100));
        assert_eq!(run.violation().invariant, Invariant::S13);
    }

    #[test]
    fn a_write_after_the_guards_death_is_found() {
        let mut run = MadeUp::leading(1);
        run.see(Some(0), Seen::GuardDied);
        run.write(0, at(1, 100));
        assert_eq!(run.violation().invariant, Invariant::S13);
    }

    #[test]
    fn the_kill_takes_a_moment_and_no_more() {
        let mut run = MadeUp::leading(1);
        run.right(0, 3000);
        run.arm(0, 4500);
        run.later(4570);
        run.write(0, at(1, 100));
        run.clean();
        run.later(1);
        run.write(0, at(1, 110));
        assert_eq!(run.violation().invariant, Invariant::S13);
    }

    #[test]
    fn a_primary_that_says_it_has_no_deadline_is_not_counted() {
        let mut run = MadeUp::leading(1);
        run.status(0, 100, true);
        run.see(Some(0), Seen::Lifted);
        run.later(60_000);
        run.write(0, at(1, 100));
        run.clean();
        run.status(0, 100, false);
        run.write(0, at(1, 110));
        assert_eq!(run.violation().invariant, Invariant::S4);
    }

    #[test]
    fn the_instant_after_a_host_thaws_is_not_counted() {
        let mut run = MadeUp::leading(1);
        run.see(Some(0), Seen::HostFrozen { frozen: true });
        run.later(60_000);
        run.see(Some(0), Seen::HostFrozen { frozen: false });
        run.later(60);
        run.write(0, at(1, 100));
        run.clean();
        run.see(
            Some(0),
            Seen::Ended {
                how: End::ByGuard,
                standing: None,
            },
        );
        assert!(run.checker.scene().member(0).unwrap().right < 60 * SEC);
    }
}
