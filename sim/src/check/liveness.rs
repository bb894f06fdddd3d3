//! L1, L3, L4: after the faults all becomes well, each part within its bound.
//!
//! All bounds count from the end of the faults ([`Seen::Healed`]), when every host has power, every link works, etcd has its quorum and
//! supervisors start whatever is down.
//!
//! - L1: somebody holds the lock and accepts writes within [`primary_within`].
//! - L3: and everybody else streams from it, within [`return_within`].
//! - L4: once that is so, clients that write get at least one answer in every [`SILENCE`].
//!
//! Once each has been reached it has been reached: what happens later is judged by the rules of safety alone.
//!
//! Not counted, for a person must act: a primary that is said to run without a deadline and whose node does not come back; a cluster that persons have
//! led where nobody may (see [`super::Scene::led_astray`]); members whose data belongs to another cluster (see [`super::Scene::unconverged`]).

use super::{Charter, Fact, Invariant, Moment, Scene, Violation, seconds};
use crate::clock::{SEC, Time};
use crate::record::{Fate, Seen};

/// The core's longest wait after failures in a row.
const BACKOFF: Time = 30 * SEC;

/// How long a node that gave the lock up leaves it to others.
const GAVE_UP: Time = 10 * SEC;

/// Everybody must be back so long after the faults, at the longest: a full rejoin can need two of the longest waits, a rebuild, and a primary
/// first, for which the longer of [`primary_within`]'s lifetimes count.
#[must_use]
pub const fn return_within(ttl: Time) -> Time {
    100 * SEC + 5 * ttl.saturating_sub(15 * SEC)
}

/// Clients that write to a whole cluster and hear nothing for so long are cut off.
pub const SILENCE: Time = 15 * SEC;

/// A primary must stand so long after the faults, at the longest:
/// - the leases of the time before, which two elections of etcd have extended: two ttl and two elections;
/// - the old right, counted from when it was last seen: a ttl;
/// - a better candidate that cannot lead after all: two ttl;
/// - a node that gave the lock up leaves it to others, and one order to PostgreSQL that waits for its next attempt.
#[must_use]
pub fn primary_within(ttl: Time, charter: &Charter) -> Time {
    5 * ttl + 2 * charter.election + GAVE_UP + BACKOFF
}

/// L1, L3 and L4.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    next: Time,
    led: Option<Time>,
    whole: Option<Time>,
    /// The first write since the last one that was acknowledged, once all is well.
    waiting: Option<Fact>,
}

impl Liveness {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let healed = moment.scene.healed?;
        if self.whole.is_some() {
            return self.answered(moment);
        }
        if moment.at < self.next {
            return None;
        }
        self.next = moment.at + SEC / 4;
        let since = moment.at.saturating_sub(healed);
        let scene = moment.scene;
        if self.led.is_none() {
            let leads = scene
                .holder
                .and_then(|(node, _)| scene.member(node))
                .is_some_and(super::scene::Member::is_primary);
            self.led = leads.then_some(moment.at);
            let bound = primary_within(ttl(scene), moment.charter);
            let by_people = scene.unfenced.is_some() || scene.led_astray();
            if !leads && bound < since && !by_people {
                let text = format!("{:.0} s after the last fault there is no primary", seconds(since));
                return moment.breaks(Invariant::L1, None, text);
            }
        }
        let Some(why) = scene.unconverged() else {
            self.whole = Some(moment.at);
            return None;
        };
        if return_within(ttl(scene)) < since {
            let text = format!("{:.0} s after the last fault {why}", seconds(since));
            return moment.breaks(Invariant::L3, None, text);
        }
        None
    }

    fn answered(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        match moment.seen {
            Seen::WriteAsked { .. } => {
                self.waiting.get_or_insert(moment.fact);
            }
            Seen::WriteEnded { fate: Fate::Ok, .. } => self.waiting = None,
            _ => {}
        }
        let since = self.waiting.filter(|since| since.at + SILENCE < moment.at)?;
        let text = format!(
            "no write is acknowledged for {:.0} s, and all is well",
            seconds(moment.at - since.at)
        );
        moment.breaks(Invariant::L4, Some(since), text)
    }
}

/// The longest ttl that an agent obeys.
fn ttl(scene: &Scene) -> Time {
    let settings = scene.members.iter().filter_map(|member| member.settings);
    settings.map(|settings| settings.ttl).max().unwrap_or(5 * SEC)
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, at};
    use super::*;
    use crate::record::End;

    fn pass(run: &mut MadeUp, seconds: u64) {
        for _ in 0..seconds * 2 {
            run.later(500);
            run.see(None, Seen::StepEnded { step: 0 });
        }
    }

    #[test]
    fn a_cluster_that_is_well_is_left_alone() {
        let mut run = MadeUp::leading(2);
        run.replica(1, at(1, 100), 0);
        run.see(None, Seen::Healed);
        pass(&mut run, 300);
        run.clean();
        assert_eq!(run.checker.unconverged(), None);
    }

    #[test]
    fn no_primary_in_time_is_found() {
        let mut run = MadeUp::leading(2);
        run.see(
            Some(0),
            Seen::Ended {
                how: End::Killed,
                standing: None,
            },
        );
        run.see(None, Seen::Healed);
        pass(&mut run, 60);
        run.clean();
        pass(&mut run, 10);
        assert_eq!(run.violation().invariant, Invariant::L1);
    }

    #[test]
    fn where_persons_led_it_is_for_a_person() {
        for by_hand in [false, true] {
            let mut run = MadeUp::leading(2);
            run.replica(1, at(1, 100), 0);
            run.release(0);
            run.replica(0, at(1, 100), 1);
            run.person_names(1);
            run.take_lock(1, at(1, 100));
            let (members, quorum) = (vec![1], 0);
            run.see(Some(1), Seen::SyncWritten { members, quorum });
            run.release(1);
            if by_hand {
                run.fork_by_hand(1, 100, at(2, 100));
            }
            run.see(None, Seen::Healed);
            pass(&mut run, 300);
            let found = run.checker.violation.as_ref();
            let none = (!by_hand).then_some(Invariant::L1);
            assert_eq!(found.map(|found| found.invariant), none);
        }
    }

    #[test]
    fn a_member_that_does_not_come_back_is_found() {
        let mut run = MadeUp::leading(2);
        run.see(None, Seen::Healed);
        pass(&mut run, 99);
        run.clean();
        pass(&mut run, 2);
        assert_eq!(run.violation().invariant, Invariant::L3);
    }

    #[test]
    fn a_member_whose_wal_is_gone_is_for_a_person() {
        let mut run = MadeUp::leading(2);
        run.replica(1, at(1, 100), 0);
        run.see(
            Some(1),
            Seen::StreamLost {
                why: "connection refused",
            },
        );
        assert!(run.checker.unconverged().is_some());
        run.see(Some(1), Seen::WalMissing);
        assert_eq!(run.checker.unconverged(), None);
    }

    #[test]
    fn a_cascade_is_well_if_its_upstream_is() {
        let mut run = MadeUp::leading(3);
        run.replica(1, at(1, 100), 0);
        run.replica(2, at(1, 100), 1);
        assert_eq!(run.checker.unconverged(), None);
        run.see(
            Some(1),
            Seen::StreamLost {
                why: "connection refused",
            },
        );
        assert!(run.checker.unconverged().is_some());
    }

    #[test]
    fn writes_that_are_never_answered_are_found() {
        let mut run = MadeUp::leading(1);
        run.arm(0, 600_000);
        run.right(0, 600_000);
        run.see(None, Seen::Healed);
        pass(&mut run, 1);
        let ask = |value| Seen::WriteAsked {
            client: 0,
            key: 0,
            value,
        };
        let end = |value, fate| Seen::WriteEnded {
            client: 0,
            key: 0,
            value,
            fate,
        };
        for value in 0..30 {
            run.see(None, ask(value));
            run.later(1000);
            let standing = at(1, 200 + value);
            run.see(
                Some(0),
                Seen::Committed {
                    key: 0,
                    value,
                    standing,
                },
            );
            run.see(
                None,
                end(value, if value == 10 { Fate::Ok } else { Fate::Unknown }),
            );
            assert!(value < 28 || run.checker.violation.is_some());
        }
        assert_eq!(run.violation().invariant, Invariant::L4);
    }
}
