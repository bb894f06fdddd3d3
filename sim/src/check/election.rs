//! S5: who takes the lock may be elected at that instant.
//!
//! Judged at the instant of the transaction that creates the leader key, for a node whose server is no primary (one that is takes its own
//! lock back, and elects nobody) and that has a cluster in its data directory (one that has none creates one):
//! - its disk is at most `maximum_lag_on_failover` behind the position that `status` told of just before;
//! - it does not carry the tag `nofailover`;
//! - in failsafe mode it is on the failsafe list, if there is one: a primary without etcd asks nobody else;
//! - its data is of the cluster that `initialize` names;
//! - no other member's primary is said to run without a deadline;
//! - nobody whom it could ask and who could lead has more on its disk ([`Seen::Outdone`]);
//! - its data is not on a timeline that a person made by hand and whose number nobody had reserved, unless nobody has led for about two
//!   lifetimes of the lock;
//! - its agent has not known of a pause for longer than [`LATE`], unless a person named it.
//!
//! A manual failover that names the node overrules lag, list and deadline; lag also later, if the node has written itself into the `sync` key
//! by that word and nobody has been promoted since, for nobody else can lead. Not counted: a node that takes the lock and gives it back
//! without ever becoming a primary is judged all the same, for it could have.

use super::{Invariant, Moment, Violation, name};
use crate::clock::{SEC, Time};
use crate::record::Seen;

/// How long an order to take the lock may be on its way: etcd's own limit for a proposal is 5 s and two elections, and the agent may be
/// starved for a while before it hears of the pause.
pub const LATE: Time = 10 * SEC;

/// Two lifetimes of a lock of the shortest ttl that is played, less a reserve: the ttl may have changed since the order was given.
const PATIENCE: Time = 5 * SEC;

/// S5.
#[derive(Debug, Clone, Default)]
pub struct Election;

impl Election {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        if let (Seen::Outdone { by, bytes }, Some(node)) = (moment.seen, moment.fact.node)
            && !moment.scene.forced(node)
        {
            let who = format!("{} takes the lock", name(node));
            let text = format!(
                "{who} and {}, which it could ask and which could lead, has {bytes} bytes more",
                name(*by)
            );
            return moment.breaks(Invariant::S5, None, text);
        }
        let (
            Seen::LockTaken {
                primary: false,
                standing: Some(standing),
                optime,
                ..
            },
            Some(node),
        ) = (moment.seen, moment.fact.node)
        else {
            return None;
        };
        let scene = moment.scene;
        let settings = scene.member(node)?.settings?;
        let forced = scene.forced(node);
        let who = format!("{} takes the lock", name(node));
        let told = scene.status.map(|(_, fact)| fact);
        let published = !scene.unpublished(node, standing.timeline);
        let patience = scene
            .leaderless
            .map_or(0, |since| moment.at.saturating_sub(since));
        let made = scene.member(node)?.made.filter(|made| made.at + LATE < moment.at);
        let made = made.map(|made| made.timeline);
        // Before anybody has published a timeline, nothing tells whose is the cluster's.
        let known = scene.reserved.max(scene.lived);
        let unknown =
            made.filter(|made| *made == standing.timeline && known.is_some_and(|known| known < *made));
        if let Some(made) = unknown.filter(|_| !forced && patience < PATIENCE) {
            let text = format!(
                "{who} on timeline {made}, which a person made by hand, before others had their turn"
            );
            return moment.breaks(Invariant::S5, None, text);
        }
        // What a person made by hand may have been published since by one whom the `sync` key names as well.
        let by_hand = told
            .and_then(|told| told.node)
            .and_then(|node| scene.member(node)?.made);
        let alone = scene.sync_leader == Some(node) && (scene.by_word(node) || by_hand.is_some());
        let mistaken = scene.member(node)?.mistaken();
        if let Some(optime) = optime.filter(|_| !forced && !alone && !mistaken && published) {
            let lag = optime.ahead_of(standing.position);
            if settings.maximum_lag < lag {
                let text = format!(
                    "{who} {lag} bytes behind, and {} are allowed",
                    settings.maximum_lag
                );
                return moment.breaks(Invariant::S5, told, text);
            }
        }
        if moment.charter.nofailover.contains(&node) {
            return moment.breaks(
                Invariant::S5,
                None,
                format!("{who} and carries the tag nofailover"),
            );
        }
        let unlisted = scene
            .failsafe
            .as_ref()
            .is_some_and(|list| !list.is_empty() && !list.contains(&node));
        if settings.failsafe && unlisted && !forced {
            return moment.breaks(
                Invariant::S5,
                None,
                format!("{who} and is not on the failsafe list"),
            );
        }
        if let Some(identity) = scene.identity.filter(|identity| *identity != standing.system_id) {
            let text = format!(
                "{who} with data of cluster {}, and this is cluster {identity}",
                standing.system_id
            );
            return moment.breaks(Invariant::S5, None, text);
        }
        let named = matches!(scene.failover, Some((_, Some(candidate))) if candidate == node);
        let member = scene.member(node)?;
        let awake = member.woke.max(Some(member.agent_since));
        if let Some(since) = member.paused.max(awake.filter(|_| member.paused.is_some()))
            && since + LATE < moment.at
            && !named
            && member.primary_until.is_none_or(|until| until + LATE < moment.at)
        {
            let text = format!("{who} in a pause that its agent knows of, and nobody named it");
            return moment.breaks(Invariant::S5, None, text);
        }
        if let Some(other) = scene.unfenced.filter(|other| *other != node && !forced) {
            let text = format!("{who} and {} may run as primary without a deadline", name(other));
            return moment.breaks(Invariant::S5, told, text);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Charter;
    use super::super::made_up::{MadeUp, at};
    use super::*;
    use crate::record::Standing;
    use surus_core::types::{Lsn, SystemId, Timeline};
    use surus_core::view::Initialize;

    fn freed() -> MadeUp {
        let mut run = MadeUp::chartered(Charter {
            nodes: 3,
            nofailover: vec![2],
            ..Charter::default()
        });
        run.status(0, 5000, false);
        run.release(0);
        run
    }

    #[test]
    fn the_lag_limit_counts_to_the_byte() {
        let mut run = freed();
        run.take_lock(1, at(1, 4000));
        run.clean();
        let mut run = freed();
        let taken = run.take_lock(1, at(1, 3999));
        assert_eq!(run.violation().invariant, Invariant::S5);
        assert_eq!(run.violation().facts.last(), Some(&taken.serial));
    }

    #[test]
    fn a_person_may_overrule_the_lag() {
        let mut run = freed();
        run.person_names(1);
        run.take_lock(1, at(1, 0));
        run.clean();
        // A switchover, which names the leader too, does not.
        let mut run = freed();
        run.see(
            None,
            Seen::FailoverWritten {
                leader: Some(0),
                candidate: Some(1),
            },
        );
        run.take_lock(1, at(1, 0));
        assert_eq!(run.violation().invariant, Invariant::S5);
    }

    #[test]
    fn the_tag_is_never_overruled() {
        let mut run = freed();
        run.person_names(2);
        run.take_lock(2, at(1, 5000));
        assert_eq!(run.violation().invariant, Invariant::S5);
    }

    #[test]
    fn who_is_not_listed_is_not_elected() {
        let mut run = freed();
        run.see(Some(0), Seen::FailsafeWritten { list: vec![0, 1] });
        run.take_lock(1, at(1, 5000));
        run.clean();
        let mut run = freed();
        run.see(Some(0), Seen::FailsafeWritten { list: vec![0] });
        run.take_lock(1, at(1, 5000));
        assert_eq!(run.violation().invariant, Invariant::S5);
    }

    /// n2 was promoted by hand to this timeline and stopped.
    fn promoted_by_hand(timeline: u32) -> MadeUp {
        let mut run = freed();
        run.fork_by_hand(1, 5000, at(timeline, 5100));
        run.promote(1, at(timeline, 5100));
        run.clean();
        run.replica(1, at(timeline, 5100), 0);
        run.later(11_000);
        run
    }

    #[test]
    fn what_a_person_made_by_hand_comes_last() {
        let taken = |run: &mut MadeUp| run.take_lock(1, at(2, 5100));
        let mut run = promoted_by_hand(2);
        run.take_lock(0, at(1, 5000));
        run.release(0);
        taken(&mut run);
        assert_eq!(run.violation().invariant, Invariant::S5);
        // Nobody else has had it for a while.
        let mut run = promoted_by_hand(2);
        taken(&mut run);
        run.clean();
        // A person's word.
        let mut run = promoted_by_hand(2);
        run.take_lock(0, at(1, 5000));
        run.release(0);
        run.person_names(1);
        taken(&mut run);
        run.clean();
    }

    #[test]
    fn a_number_that_was_reserved_since_hides_what_a_person_made() {
        for (published, restarted, hidden) in [(1, true, true), (1, false, false), (2, true, false)] {
            let mut run = promoted_by_hand(2);
            run.see(
                Some(0),
                Seen::StatusWritten {
                    optime: Lsn(5000),
                    timeline: Some(Timeline(published)),
                    next: Some(Timeline(2)),
                    vacated: false,
                    unfenced: false,
                },
            );
            if restarted {
                run.see(Some(1), Seen::AgentBegan);
            }
            assert_eq!(run.checker.scene().member(1).unwrap().mistaken(), hidden);
        }
    }

    #[test]
    fn another_cluster_is_not_led() {
        let mut run = freed();
        let to = Some(Initialize::Done(SystemId(7)));
        run.see(None, Seen::InitializeWritten { to });
        let foreign = Standing {
            system_id: SystemId(8),
            ..at(1, 5000)
        };
        run.take_lock(1, foreign);
        assert_eq!(run.violation().invariant, Invariant::S5);
    }

    #[test]
    fn who_has_less_than_another_that_could_lead_is_not_elected() {
        let mut run = freed();
        run.take_lock(1, at(1, 4900));
        run.clean();
        run.see(Some(1), Seen::Outdone { by: 0, bytes: 100 });
        assert_eq!(run.violation().invariant, Invariant::S5);
        let mut run = freed();
        run.person_names(1);
        run.take_lock(1, at(1, 4900));
        run.see(Some(1), Seen::Outdone { by: 0, bytes: 100 });
        run.clean();
    }

    #[test]
    fn nobody_is_elected_in_a_pause_that_he_knows_of() {
        let mut run = freed();
        run.settings(1, true);
        // The order may have been on its way.
        run.later(9_900);
        run.take_lock(1, at(1, 5000));
        run.clean();
        let mut run = freed();
        run.settings(1, true);
        run.later(10_100);
        run.take_lock(1, at(1, 5000));
        assert_eq!(run.violation().invariant, Invariant::S5);
        // It is over, or a person named who is elected.
        for named in [false, true] {
            let mut run = freed();
            run.settings(1, true);
            run.later(20_000);
            if named {
                run.person_names(1);
            } else {
                run.settings(1, false);
            }
            run.take_lock(1, at(1, 5000));
            run.clean();
        }
    }

    #[test]
    fn nobody_is_elected_beside_a_primary_without_a_deadline() {
        let mut run = freed();
        run.status(0, 5000, true);
        run.take_lock(1, at(1, 5000));
        assert_eq!(run.violation().invariant, Invariant::S5);
    }
}
