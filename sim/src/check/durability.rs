//! S2 and S3: what a failover may lose.
//!
//! A write is *lost* when a server is promoted whose history does not contain it, or when a primary comes up without it. History is
//! ancestry: the timelines a server went through, each up to the position where it left it.
//!
//! S2, where the charter says that every acknowledged write is on a standby first: none is lost.
//!
//! S3, elsewhere: a lost write is one that nobody could know of. Either the position it ended at had not been published in `status` when the
//! lock was taken, and it is not older than [`STALE`] before that publication; or it lies within `maximum_lag_on_failover` before the
//! published position. What an older timeline's primary published says nothing of a reign that was over before it published any.
//!
//! And in any case: a server whose WAL went on past the point at which the cluster left its timeline is not promoted, once `status` has told
//! of the timeline that followed. It would lose all that was written there.
//!
//! And a node that stops to hand over waits for a standby that streams to have all that it wrote ([`Seen::LeftUnsent`]).
//!
//! Not counted: a manual failover that names the new primary (a person gave those writes up), the writes of a primary that a person
//! overruled, and what a failover before has given up and was allowed to: one that had it may have been promoted since, and lost.

use std::collections::{BTreeMap, BTreeSet};

use surus_core::types::{Lsn, Timeline};

use super::ledger::{Commit, Ledger};
use super::{Invariant, Moment, Violation, name, seconds};
use crate::clock::{SEC, Time};
use crate::record::{Deed, NodeIndex, OrderEnd, Seen};

/// A published position is older than its publication: by the pace of looks and renewals, and by what the order took on its way, of which etcd
/// itself may hold a proposal for 7 s.
pub const STALE: Time = 12 * SEC;

/// S2 and S3.
#[derive(Debug, Clone, Default)]
pub struct Durability {
    /// The most that `status` told when the lock was taken since the last promotion, and whether a person had named a taker: a reign whose
    /// promotion came to nothing may have published less, and what it gave up was decided when it began.
    taken: Option<(Lsn, bool)>,
    /// Somebody was promoted since, or was a primary already.
    over: bool,
    /// The newest timeline that `status` has told of, and that had been told of when the lock was last taken.
    told: Option<Timeline>,
    taken_after: Option<Timeline>,
    /// When each member's agent began the look at its server that ended last, and the one under way.
    looked: BTreeMap<NodeIndex, [Option<Time>; 2]>,
    /// When each member's agent had looked that composed its last renewal.
    composed: BTreeMap<NodeIndex, Time>,
    /// When each member had looked that last published its position as a primary.
    published: BTreeMap<NodeIndex, Time>,
    /// The values that a failover has lost.
    given_up: BTreeSet<u64>,
}

impl Durability {
    pub(super) fn see(&mut self, moment: &Moment<'_>, lost: &[Commit], ledger: &Ledger) -> Option<Violation> {
        let scene = moment.scene;
        match (moment.seen, moment.fact.node) {
            (
                Seen::LockTaken {
                    optime,
                    primary,
                    standing,
                    ..
                },
                Some(node),
            ) => {
                let before = self.taken.filter(|_| !self.over);
                let (most, named) = before.unwrap_or_default();
                let published = !standing.is_some_and(|standing| scene.unpublished(node, standing.timeline));
                let told = optime.map(|optime| if published { optime } else { Lsn(0) });
                self.taken = told.map(|told| (told.max(most), named || scene.forced(node)));
                self.taken_after = self.told;
                self.over = *primary;
            }
            (Seen::StatusWritten { timeline, .. }, Some(node)) => {
                self.told = self.told.max(*timeline);
                // One that was composed before the promotion tells the position of another history.
                let member = scene.member(node).filter(|member| member.is_primary());
                let own = member
                    .and_then(|member| member.standing)
                    .map(|standing| standing.timeline);
                let looked = self.composed.get(&node).copied();
                let up = member.and_then(|member| member.since).map(|since| since.at);
                if let Some(looked) = looked.filter(|looked| up.is_some_and(|up| up <= *looked))
                    && own.is_some()
                    && own == *timeline
                {
                    self.published.insert(node, looked);
                }
            }
            (
                Seen::OrderBegan {
                    order: Deed::Probe, ..
                },
                Some(node),
            ) => {
                let [_, begun] = self.looked.entry(node).or_default();
                *begun = Some(moment.at);
            }
            (
                Seen::OrderEnded {
                    order: Deed::Probe,
                    end: OrderEnd::Done,
                    ..
                },
                Some(node),
            ) => {
                let [ended, begun] = self.looked.entry(node).or_default();
                // A look at a server that does not answer shows no position.
                if scene.member(node).is_some_and(|member| !member.hung) {
                    *ended = begun.take();
                }
            }
            (
                Seen::OrderBegan {
                    order: Deed::Renew | Deed::Release,
                    ..
                },
                Some(node),
            ) => match self.looked.get(&node).and_then(|looked| looked[0]) {
                Some(looked) => drop(self.composed.insert(node, looked)),
                None => drop(self.composed.remove(&node)),
            },
            (Seen::AgentBegan, Some(node)) => {
                self.looked.remove(&node);
                self.composed.remove(&node);
            }
            _ => {}
        }
        self.over |= matches!(moment.seen, Seen::Promoted { .. });
        if let (Seen::LeftUnsent, Some(node)) = (moment.seen, moment.fact.node) {
            let text = format!(
                "{} hands over, does not wait for a standby that streamed, and nobody has what it wrote last",
                name(node)
            );
            return moment.breaks(Invariant::S3, None, text);
        }
        let first = lost.first()?;
        let who = moment.fact.node.map(name).unwrap_or_default();
        let overruled = |commit: &&Commit| scene.overruled.is_some() && commit.fact.node == scene.overruled;
        if moment.charter.sync {
            let by_word = moment.fact.node.is_some_and(|node| scene.by_word(node));
            let first = lost
                .iter()
                .find(|commit| !overruled(commit))
                .filter(|_| !by_word)?;
            let text = format!("{who} is promoted without {} acknowledged writes", lost.len());
            return moment.breaks(Invariant::S2, Some(first.fact), text);
        }
        let (Seen::Promoted { switch, .. }, Some((optime, forced))) = (moment.seen, self.taken) else {
            return None;
        };
        let settings = scene.member(moment.fact.node?)?.settings?;
        if forced {
            return None;
        }
        if let (Seen::Promoted { from, standing, .. }, Some(told)) = (moment.seen, self.taken_after)
            && *from < told
            && let Some(fork) = ledger.left((standing.system_id, told), *from)
            && fork < *switch
        {
            let text = format!(
                "{who} is promoted from timeline {from} at {switch}, which timeline {told} left at {fork}: {} acknowledged writes are lost",
                lost.len()
            );
            return moment.breaks(Invariant::S3, Some(first.fact), text);
        }
        let lag = optime.ahead_of(*switch);
        let counts = |commit: &&Commit| !overruled(commit) && !self.given_up.contains(&commit.value);
        for commit in lost.iter().filter(counts) {
            if commit.position <= optime && settings.maximum_lag < lag {
                let text = format!(
                    "{who} is promoted {lag} bytes behind what was published, and acknowledged writes are lost"
                );
                return moment.breaks(Invariant::S3, Some(commit.fact), text);
            }
            let looked = commit.fact.node.and_then(|writer| self.published.get(&writer));
            let late = |looked: &&Time| optime < commit.position && commit.fact.at + STALE < **looked;
            if let Some(looked) = looked.filter(late) {
                let age = seconds(looked - commit.fact.at);
                let text = format!(
                    "{who} is promoted without a write that had been acknowledged {age:.1} s before its server last published a position, without it"
                );
                return moment.breaks(Invariant::S3, Some(commit.fact), text);
            }
        }
        self.given_up.extend(lost.iter().map(|commit| commit.value));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, at};
    use super::super::{Charter, Fact};
    use super::*;

    fn synchronous() -> MadeUp {
        MadeUp::chartered(Charter {
            nodes: 3,
            sync: true,
            ..Charter::default()
        })
    }

    /// n2 leads on timeline 2, which left the first one at 190, and says so; n1 has gone on to 230 on the first one.
    fn diverged() -> MadeUp {
        let mut run = MadeUp::leading(3);
        run.write(0, at(1, 180));
        run.take_lock(1, at(1, 190));
        run.promote(1, at(2, 200));
        run.write(1, at(2, 220));
        run.see(
            Some(1),
            Seen::StatusWritten {
                optime: Lsn(220),
                timeline: Some(Timeline(2)),
                next: None,
                vacated: false,
                unfenced: false,
            },
        );
        run.clean();
        run
    }

    fn promoted(run: &mut MadeUp, node: NodeIndex, switch: u64) -> Fact {
        let (from, switch) = (Timeline(1), Lsn(switch));
        let standing = at(3, 240);
        let seen = Seen::Promoted {
            from,
            switch,
            standing,
        };
        run.see(Some(node), seen)
    }

    #[test]
    fn who_went_past_the_fork_is_not_promoted() {
        let mut run = diverged();
        run.take_lock(0, at(1, 191));
        promoted(&mut run, 0, 191);
        assert_eq!(run.violation().invariant, Invariant::S3);
        // Up to the fork all that it has is in the cluster's history.
        let mut run = diverged();
        run.take_lock(0, at(1, 190));
        promoted(&mut run, 0, 190);
        run.clean();
    }

    #[test]
    fn what_a_person_promotes_by_hand_ends_no_history() {
        for by_hand in [true, false] {
            let mut run = synchronous();
            run.write(0, at(1, 200));
            if by_hand {
                run.see(Some(1), Seen::PromotedByHand);
            }
            run.promote(1, at(2, 150));
            let found = run.checker.violation.map(|found| found.invariant);
            assert_eq!(found, (!by_hand).then_some(Invariant::S2));
        }
    }

    #[test]
    fn a_hand_over_leaves_nothing_unsent() {
        let mut run = MadeUp::leading(2);
        run.release(0);
        run.clean();
        run.see(Some(0), Seen::LeftUnsent);
        assert_eq!(run.violation().invariant, Invariant::S3);
    }

    #[test]
    fn with_sync_nothing_is_lost() {
        let mut run = synchronous();
        run.write(0, at(1, 200));
        run.take_lock(1, at(1, 200));
        // Forked at 200: the write that ended there is kept.
        run.promote(1, at(2, 210));
        run.write(1, at(2, 220));
        run.promote(2, at(3, 230));
        run.clean();
    }

    #[test]
    fn with_sync_one_byte_is_too_much() {
        let mut run = synchronous();
        let first = run.write(0, at(1, 201));
        let second = run.promote(1, at(2, 210));
        run.broken(Invariant::S2, Some(first), second);
    }

    #[test]
    fn a_promotion_that_ends_as_its_host_goes_on_ends_no_history() {
        for still in [true, false] {
            let mut run = synchronous();
            run.see(Some(2), Seen::HostFrozen { frozen: still });
            run.write(0, at(1, 200));
            run.promote(1, at(2, 210));
            run.write(1, at(2, 220));
            run.later(5000);
            if still {
                run.see(Some(2), Seen::HostFrozen { frozen: false });
            }
            let seen = Seen::Promoted {
                from: Timeline(1),
                switch: Lsn(200),
                standing: at(3, 200),
            };
            run.see(Some(2), seen);
            let found = run.checker.violation.map(|found| found.invariant);
            assert_eq!(found, (!still).then_some(Invariant::S2));
        }
    }

    #[test]
    fn ancestry_counts_and_not_the_number() {
        let mut run = synchronous();
        run.promote(1, at(2, 110));
        let first = run.write(1, at(2, 150));
        // Timeline 3 forks off timeline 1, not off 2.
        let second = run.see(
            Some(2),
            Seen::Promoted {
                from: surus_core::types::Timeline(1),
                switch: Lsn(100),
                standing: at(3, 500),
            },
        );
        run.broken(Invariant::S2, Some(first), second);
    }

    /// 16145283: what it was promoted with is of a timeline that somebody had made by hand, and not of the cluster's that has its number.
    #[test]
    fn what_was_streamed_of_a_timeline_made_by_hand_counts_from_its_fork() {
        for reached in [true, false] {
            let mut run = synchronous();
            run.fork_by_hand(1, 100, at(2, 150));
            run.replica(2, at(1, 100), 1);
            run.replica(2, if reached { at(2, 150) } else { at(1, 100) }, 0);
            let first = run.write(0, at(1, 120));
            run.promote(3, at(2, 130));
            run.clean();
            run.replica(2, at(2, 150), 3);
            let second = run.promote(2, at(3, 160));
            if reached {
                run.broken(Invariant::S2, Some(first), second);
            } else {
                run.clean();
            }
        }
    }

    #[test]
    fn without_sync_what_was_not_published_may_go() {
        let mut run = MadeUp::leading(2);
        run.status(0, 150, false);
        run.write(0, at(1, 190));
        run.write(0, at(1, 5000));
        run.take_lock(1, at(1, 140));
        run.promote(1, at(2, 150));
        run.clean();
    }

    #[test]
    fn what_was_published_may_go_only_within_the_limit() {
        let mut run = MadeUp::leading(2);
        let first = run.write(0, at(1, 1500));
        run.status(0, 1500, false);
        run.take_lock(1, at(1, 1400));
        // Something took its WAL between the lock and the promotion.
        let second = run.promote(1, at(2, 400));
        run.broken(Invariant::S3, Some(first), second);
    }

    #[test]
    fn a_position_that_is_never_published_is_found() {
        for looks in [true, false] {
            let mut run = MadeUp::leading(2);
            run.write(0, at(1, 190));
            for _ in 0..20 {
                run.later(1000);
                if looks {
                    look(&mut run);
                }
                let (id, order, about) = (10, Deed::Renew, None);
                run.see(Some(0), Seen::OrderBegan { id, order, about });
                run.status(0, 100, false);
            }
            run.take_lock(1, at(1, 100));
            run.promote(1, at(2, 110));
            let found = run.checker.violation.map(|found| found.invariant);
            assert_eq!(
                found,
                looks.then_some(Invariant::S3),
                "who could not look knows no better"
            );
        }
    }

    #[test]
    fn a_reign_that_came_to_nothing_decided_what_was_given_up() {
        let mut run = MadeUp::leading(3);
        run.write(0, at(1, 900));
        for _ in 0..20 {
            run.later(1000);
            look(&mut run);
            let (id, order, about) = (10, Deed::Renew, None);
            run.see(Some(0), Seen::OrderBegan { id, order, about });
            run.status(0, 1000, false);
        }
        // n2 lacks 200 bytes, which is within the limit; its promotion hangs, and it says how far it has come as it leaves.
        run.take_lock(1, at(1, 800));
        run.status(1, 800, true);
        run.take_lock(1, at(1, 800));
        run.promote(1, at(3, 810));
        run.clean();
    }

    /// Turmoil 1302432: who had it led for a moment and published nothing.
    #[test]
    fn what_was_given_up_may_come_back_and_go_again() {
        let from_the_first = |switch, standing| Seen::Promoted {
            from: Timeline(1),
            switch: Lsn(switch),
            standing,
        };
        for given_up in [true, false] {
            let mut run = MadeUp::leading(3);
            run.write(0, at(1, 900));
            for _ in 0..20 {
                run.later(1000);
                look(&mut run);
                let (id, order, about) = (10, Deed::Renew, None);
                run.see(Some(0), Seen::OrderBegan { id, order, about });
                run.status(0, 1000, false);
            }
            if given_up {
                run.take_lock(1, at(1, 800));
                run.promote(1, at(2, 810));
                run.take_lock(0, at(1, 1000));
                run.see(Some(0), from_the_first(1000, at(3, 1010)));
            }
            run.status(1, 810, false);
            run.take_lock(2, at(1, 800));
            run.see(Some(2), from_the_first(800, at(4, 810)));
            let found = run.checker.violation.map(|found| found.invariant);
            assert_eq!(found, (!given_up).then_some(Invariant::S3));
        }
    }

    fn look(run: &mut MadeUp) {
        let (id, order) = (9, Deed::Probe);
        let (about, end, text) = (None, OrderEnd::Done, None);
        run.see(Some(0), Seen::OrderBegan { id, order, about });
        run.see(Some(0), Seen::OrderEnded { id, order, end, text });
    }

    /// 3500131.
    #[test]
    fn a_reign_that_published_nothing_is_not_measured_by_the_one_before() {
        let mut run = MadeUp::leading(3);
        run.see(
            Some(0),
            Seen::StatusWritten {
                optime: Lsn(9000),
                timeline: Some(Timeline(1)),
                next: Some(Timeline(2)),
                vacated: false,
                unfenced: false,
            },
        );
        // By a person's word n2 leads on timeline 2 from 150; it publishes nothing, and is lost.
        run.person_names(1);
        run.take_lock(1, at(1, 150));
        run.promote(1, at(2, 160));
        run.write(1, at(2, 400));
        let (leader, candidate) = (None, None);
        run.see(None, Seen::FailoverWritten { leader, candidate });
        run.take_lock(2, at(2, 300));
        run.promote(2, at(3, 310));
        run.clean();
    }

    #[test]
    fn a_person_may_give_writes_up() {
        let mut run = MadeUp::leading(2);
        run.write(0, at(1, 9000));
        run.status(0, 9000, false);
        run.person_names(1);
        run.take_lock(1, at(1, 100));
        run.promote(1, at(2, 110));
        run.clean();
    }
}
