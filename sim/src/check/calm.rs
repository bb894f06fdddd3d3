//! L2: faults below the tolerance move nobody.
//!
//! From the time the charter names on, the story has only faults that a cluster must bear (an agent that stands still for a
//! moment, an election of etcd, a short cut). The primary that leads then keeps its server: it does not end, nobody else takes the lock, and
//! no switch of timelines happens.
//!
//! At any time, in any story: a guard does not kill a server whose agent is awake and was told more than [`HEARD`] ago of a right that
//! outlasts the kill by more than [`RENEWED`]: the deadline follows the right. What counts is the right of the last order that the agent
//! itself got an answer to.
//!
//! And an agent that has been told that it holds the lock does not stop its server for a lock that is another's, unless another has taken
//! it since.
//!
//! Not counted: what a guard does that an agent, starved of processor time, has been trying to reach for [`HEARD`]; a lock that was lost and taken again by the same primary (a lease revoked early costs nobody anything); a cluster
//! without a primary when the calm begins; a server that a fault kills.

use std::collections::{BTreeMap, BTreeSet};

use surus_core::decision::Rule;

use super::{Fact, Invariant, Moment, Violation, name, scene};
use crate::clock::{MS, SEC, Time};
use crate::record::{Deed, End, NodeIndex, OrderEnd, RightBy, Seen};

/// By so much the right must outlast the kill for that to be needless.
pub const RENEWED: Time = SEC;

/// The agent has known of its right for so long.
pub const HEARD: Time = 100 * MS;

/// L2.
#[derive(Debug, Clone, Default)]
pub struct Calm {
    /// The right that the record told of last, which the agent may not have heard of, by node.
    told: BTreeMap<NodeIndex, (Time, Fact)>,
    /// The shortest life of a right by the lock since the node's agent began, one that it asked for in vain included: grants give no more, for
    /// who granted may not know of a longer ttl, nor more than the ttl of now; and nothing to an agent that has not renewed yet, for it does not
    /// know what they know.
    shortest: BTreeMap<NodeIndex, Time>,
    /// The ttl that a node is set to, and the one before: an agent that stood still acts before it has heard of the newer one.
    ttls: BTreeMap<NodeIndex, (Time, Time)>,
    /// Since when an agent waits for its guard to take one deadline after the other, and when the last was taken, if it waits no more.
    telling: BTreeMap<NodeIndex, (Time, Option<Time>)>,
    /// When an agent last began to ask for grants: it counts them from then, whenever its questions left.
    asked: BTreeMap<NodeIndex, Time>,
    /// When an agent last gave an order: one that is starved knows what it was told only then.
    acted: BTreeMap<NodeIndex, Time>,
    /// The agent stops its server, or has.
    stopping: BTreeSet<NodeIndex>,
    /// The agent is writing a failsafe list: grants count only if all on it gave them.
    listing: BTreeSet<NodeIndex>,
    /// The right that the agent knows.
    known: BTreeMap<NodeIndex, (Time, Fact)>,
    reign: Option<(NodeIndex, Fact)>,
    begun: bool,
}

impl Calm {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        self.hear(moment);
        self.guard(moment)
            .or_else(|| Self::mistaken(&self.known, moment))
            .or_else(|| self.reign(moment))
    }

    fn mistaken(known: &BTreeMap<NodeIndex, (Time, Fact)>, moment: &Moment<'_>) -> Option<Violation> {
        let (Seen::Decided(decision), Some(node)) = (moment.seen, moment.fact.node) else {
            return None;
        };
        if decision.rule != Rule::StopLostLock {
            return None;
        }
        let (_, since) = moment.scene.holder.filter(|(holder, _)| *holder == node)?;
        let (_, told) = *known.get(&node)?;
        if told.at < since.at {
            return None;
        }
        let text = format!(
            "{} stops its server for a lock that is another's, and has been told that it is its own",
            name(node)
        );
        moment.breaks(Invariant::L2, Some(since), text)
    }

    /// The right that the agent of this node knows of, and what gave it.
    pub(super) fn known(&self, node: NodeIndex) -> Option<(Time, Fact)> {
        self.known.get(&node).copied()
    }

    fn hear(&mut self, moment: &Moment<'_>) {
        let Some(node) = moment.fact.node else { return };
        if let Seen::OrderBegan { order, .. } = moment.seen {
            self.acted.insert(node, moment.at);
            match order {
                Deed::StopFast | Deed::StopImmediate => {
                    self.stopping.insert(node);
                }
                Deed::StartPrimary | Deed::StartReplica | Deed::Bootstrap => {
                    self.stopping.remove(&node);
                }
                Deed::Renew => {
                    let woke = moment.scene.member(node).and_then(|member| member.woke);
                    let waking = woke.is_some_and(|woke| moment.at <= woke + HEARD);
                    if let (Some((ttl, before)), Some(shortest)) =
                        (self.ttls.get(&node), self.shortest.get_mut(&node))
                    {
                        let ttl = if waking { ttl.min(before) } else { ttl };
                        *shortest = *ttl.min(shortest);
                    }
                }
                _ => {}
            }
        }
        match moment.seen {
            Seen::Right { sent, until, by } => {
                let settings = moment.scene.member(node).and_then(|member| member.settings);
                let until = match by {
                    RightBy::Lock => {
                        let life = until.saturating_sub(*sent);
                        let shortest = self.shortest.entry(node).or_insert(life);
                        *shortest = life.min(*shortest);
                        // A shorter ttl is wanted than the one that others still have to be told.
                        settings.map_or(*until, |settings| (*until).min(sent + settings.ttl))
                    }
                    RightBy::Grants if self.listing.contains(&node) => return,
                    RightBy::Grants => {
                        let shortest = self.shortest.get(&node).copied().unwrap_or_default();
                        let asked = self.asked.get(&node).map_or(*sent, |asked| *sent.min(asked));
                        asked + settings.map_or(shortest, |settings| settings.ttl.min(shortest))
                    }
                };
                self.told.insert(node, (until, moment.fact));
            }
            Seen::OrderEnded {
                order: Deed::Acquire | Deed::Renew | Deed::AskFailsafe,
                end: OrderEnd::Done,
                ..
            } => {
                if let Some((until, fact)) = self.told.remove(&node).filter(|(_, fact)| fact.at == moment.at)
                {
                    self.known.insert(node, (until, fact));
                }
            }
            Seen::OrderBegan {
                order: Deed::SetDeadline,
                ..
            } => {
                let began = match self.telling.get(&node) {
                    Some((began, Some(ended))) if moment.at <= ended + HEARD => *began,
                    _ => moment.at,
                };
                self.telling.insert(node, (began, None));
            }
            Seen::OrderEnded {
                order: Deed::SetDeadline,
                ..
            } => {
                if let Some((_, ended)) = self.telling.get_mut(&node) {
                    *ended = Some(moment.at);
                }
            }
            Seen::OrderBegan {
                order: Deed::AskFailsafe,
                ..
            } => {
                self.asked.insert(node, moment.at);
            }
            Seen::OrderBegan {
                order: Deed::WriteFailsafe,
                ..
            } => {
                self.listing.insert(node);
            }
            Seen::OrderEnded {
                order: Deed::WriteFailsafe,
                ..
            } => {
                self.listing.remove(&node);
            }
            // An agent gives up what a longer ttl has given it before it tells of a shorter one.
            Seen::Configured(settings) => {
                let before = self.ttls.get(&node).map_or(settings.ttl, |(ttl, _)| *ttl);
                self.ttls.insert(node, (settings.ttl, before));
                if let Some((until, _)) = self.known.get_mut(&node) {
                    *until = (*until).min(moment.at + settings.ttl);
                }
            }
            Seen::LockReleased { .. } => {
                self.known.remove(&node);
            }
            Seen::AgentBegan => {
                self.telling.remove(&node);
                self.listing.remove(&node);
                self.stopping.remove(&node);
                self.acted.remove(&node);
                self.asked.remove(&node);
                self.known.remove(&node);
                self.shortest.remove(&node);
            }
            _ => {}
        }
    }

    fn guard(&self, moment: &Moment<'_>) -> Option<Violation> {
        let (
            Seen::Ended {
                how: End::ByGuard, ..
            },
            Some(node),
        ) = (moment.seen, moment.fact.node)
        else {
            return None;
        };
        let member = moment.scene.member(node)?;
        let (right, right_by) = *self.known.get(&node)?;
        let awake = member.agent && !member.frozen && !member.host_frozen;
        let rested = member.woke.is_none_or(|woke| woke + SEC < moment.at);
        let known = member.agent_since + SEC < moment.at && right_by.at + HEARD < moment.at;
        let paused = member.settings.is_some_and(|settings| settings.pause);
        let starved = |(began, ended): &(Time, Option<Time>)| {
            began + HEARD < moment.at && ended.is_none_or(|ended| moment.at <= ended + HEARD)
        };
        if self.telling.get(&node).is_some_and(starved) || self.stopping.contains(&node) {
            return None;
        }
        if self
            .acted
            .get(&node)
            .is_none_or(|acted| *acted < right_by.at + HEARD)
        {
            return None;
        }
        if !awake || !rested || !known || paused || right <= moment.at + RENEWED {
            return None;
        }
        let text = format!(
            "the guard of {} kills although the right runs for another second",
            name(node)
        );
        moment.breaks(Invariant::L2, Some(right_by), text)
    }

    fn reign(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let from = moment.charter.calm_from?;
        if moment.at < from {
            return None;
        }
        if !self.begun {
            self.begun = true;
            let leads = |(node, _): &(NodeIndex, Fact)| {
                moment.scene.member(*node).is_some_and(scene::Member::is_primary)
            };
            self.reign = moment.scene.holder.filter(leads);
        }
        let (leader, since) = self.reign?;
        let node = moment.fact.node?;
        let text = match moment.seen {
            Seen::Ended {
                how: how @ (End::FastStop | End::ImmediateStop | End::ByGuard),
                ..
            } if node == leader => {
                format!("the primary {} is stopped ({how})", name(node))
            }
            Seen::LockTaken { .. } if node != leader => {
                format!("{} takes the lock of {}", name(node), name(leader))
            }
            Seen::Promoted { .. } => format!("{} is promoted", name(node)),
            _ => return None,
        };
        moment.breaks(
            Invariant::L2,
            Some(since),
            format!("faults below the tolerance: {text}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Charter;
    use super::super::made_up::{MadeUp, at};
    use super::*;
    use crate::record::Settings;
    use surus_core::Decision;
    use surus_core::types::{Generation, MonoTime};

    fn calm() -> MadeUp {
        let mut run = MadeUp::chartered(Charter {
            nodes: 2,
            calm_from: Some(10 * SEC),
            ..Charter::default()
        });
        run.later(10_000);
        run.status(0, 100, false);
        run
    }

    fn ended(run: &mut MadeUp, node: NodeIndex, how: End) -> Fact {
        run.see(Some(node), Seen::Ended { how, standing: None })
    }

    fn stops(run: &mut MadeUp, rule: Rule) -> Fact {
        let decision = Decision {
            seq: 1,
            at: MonoTime::ZERO,
            rule,
            because: Vec::new(),
            blocked: Vec::new(),
            generation: Generation(1),
        };
        run.see(Some(0), Seen::Decided(Box::new(decision)))
    }

    fn confirmed(run: &mut MadeUp) {
        run.take_lock(0, at(1, 100));
        run.right(0, 0);
        let (order, end, text) = (Deed::Acquire, OrderEnd::Done, None);
        run.see(
            Some(0),
            Seen::OrderEnded {
                id: 1,
                order,
                end,
                text,
            },
        );
    }

    #[test]
    fn nobody_stops_for_his_own_lock() {
        let mut run = MadeUp::leading(2);
        confirmed(&mut run);
        stops(&mut run, Rule::StopBeforeRightEnds);
        run.clean();
        stops(&mut run, Rule::StopLostLock);
        assert_eq!(run.violation().invariant, Invariant::L2);
        // Another has it; or the answer has not come yet.
        let mut run = MadeUp::leading(2);
        confirmed(&mut run);
        run.take_lock(1, at(1, 100));
        stops(&mut run, Rule::StopLostLock);
        run.clean();
        let mut run = MadeUp::leading(2);
        run.take_lock(0, at(1, 100));
        stops(&mut run, Rule::StopLostLock);
        run.clean();
    }

    #[test]
    fn the_primary_stays() {
        let mut run = calm();
        run.see(Some(1), Seen::AgentDied);
        ended(&mut run, 1, End::Killed);
        run.release(0);
        run.take_lock(0, at(1, 100));
        run.clean();
    }

    #[test]
    fn a_stopped_primary_is_found() {
        let mut run = calm();
        ended(&mut run, 0, End::FastStop);
        assert_eq!(run.violation().invariant, Invariant::L2);
    }

    #[test]
    fn another_leader_is_found() {
        let mut run = calm();
        run.release(0);
        run.take_lock(1, at(1, 100));
        assert_eq!(run.violation().invariant, Invariant::L2);
    }

    #[test]
    fn what_happens_before_the_calm_is_not_counted() {
        let mut run = MadeUp::chartered(Charter {
            nodes: 2,
            calm_from: Some(10 * SEC),
            ..Charter::default()
        });
        ended(&mut run, 0, End::FastStop);
        run.take_lock(1, at(1, 100));
        run.clean();
    }

    fn renewed(run: &mut MadeUp, sent: u64) {
        run.right(0, sent);
        run.done(0, Deed::Renew);
    }

    /// Grants, asked for at this millisecond, for a right of so many seconds.
    fn granted(run: &mut MadeUp, sent: u64, life: u64) {
        let sent = sent * MS;
        let right = Seen::Right {
            sent,
            until: sent + life * SEC,
            by: RightBy::Grants,
        };
        run.see(Some(0), right);
        run.done(0, Deed::AskFailsafe);
    }

    /// The agent acts, so it has heard what it was told.
    fn acts(run: &mut MadeUp) {
        let (order, about) = (Deed::Probe, None);
        run.see(Some(0), Seen::OrderBegan { id: 9, order, about });
    }

    #[test]
    fn a_guard_that_did_not_hear_of_the_renewal_is_found() {
        let mut run = MadeUp::leading(2);
        run.later(2000);
        renewed(&mut run, 2000);
        run.later(2500);
        acts(&mut run);
        ended(&mut run, 0, End::ByGuard);
        assert_eq!(run.violation().invariant, Invariant::L2);
    }

    #[test]
    fn a_renewal_under_a_shorter_ttl_gives_a_right_of_that_whatever_others_are_told() {
        for (ttl, blamed) in [(3, false), (5, true)] {
            let mut run = MadeUp::leading(2);
            let settings = run.checker.scene().member(0).and_then(|member| member.settings);
            let ttl = ttl * SEC;
            run.see(
                Some(0),
                Seen::Configured(Settings {
                    ttl,
                    ..settings.unwrap()
                }),
            );
            run.later(2000);
            renewed(&mut run, 2000);
            run.later(2500);
            acts(&mut run);
            ended(&mut run, 0, End::ByGuard);
            assert_eq!(run.checker.violation.is_some(), blamed);
        }
    }

    #[test]
    fn an_agent_that_has_not_heard_of_the_renewal_yet_or_stops_its_server_is_not_blamed() {
        for stops in [false, true] {
            let mut run = MadeUp::leading(2);
            run.later(2000);
            renewed(&mut run, 2000);
            run.later(2500);
            if stops {
                let (order, about) = (Deed::StopFast, None);
                run.see(Some(0), Seen::OrderBegan { id: 9, order, about });
            }
            ended(&mut run, 0, End::ByGuard);
            run.clean();
        }
    }

    #[test]
    fn a_guard_kills_in_time_when_there_was_no_renewal() {
        let mut run = MadeUp::leading(2);
        run.later(4500);
        ended(&mut run, 0, End::ByGuard);
        run.clean();
    }

    #[test]
    fn a_renewal_whose_answer_the_agent_did_not_wait_for_is_not_counted() {
        let mut run = MadeUp::leading(2);
        run.later(2000);
        run.right(0, 2000);
        run.later(2500);
        ended(&mut run, 0, End::ByGuard);
        run.clean();
    }

    #[test]
    fn an_agent_that_still_tries_to_tell_its_guard_is_not_blamed() {
        for (waits, blamed) in [(50, true), (150, false)] {
            let mut run = MadeUp::leading(2);
            run.later(2000);
            renewed(&mut run, 2000);
            run.later(2500 - waits);
            run.see(
                Some(0),
                Seen::OrderBegan {
                    id: 2,
                    order: Deed::SetDeadline,
                    about: None,
                },
            );
            run.later(waits);
            ended(&mut run, 0, End::ByGuard);
            assert_eq!(run.checker.violation.is_some(), blamed, "{waits} ms");
        }
    }

    #[test]
    fn a_frozen_agent_cannot_tell_its_guard() {
        let mut run = MadeUp::leading(2);
        run.later(2000);
        renewed(&mut run, 2000);
        run.see(Some(0), Seen::AgentFrozen { frozen: true });
        run.later(2500);
        ended(&mut run, 0, End::ByGuard);
        run.clean();
    }

    #[test]
    fn grants_give_the_shortest_life_that_the_agent_renewed_with_and_not_more() {
        // Killed three and a half seconds early, and in time.
        for (after, blamed) in [(1500, true), (4500, false)] {
            let mut run = MadeUp::leading(2);
            run.later(1000);
            renewed(&mut run, 1000);
            run.later(2000);
            granted(&mut run, 3000, 15);
            run.later(after);
            acts(&mut run);
            ended(&mut run, 0, End::ByGuard);
            if blamed {
                assert_eq!(run.violation().invariant, Invariant::L2);
            } else {
                run.clean();
            }
        }
    }

    /// 14800993: a ttl of 3 s was set and taken back while the agent stood still, and its first renewal after that had no answer.
    #[test]
    fn a_shorter_life_that_was_asked_for_in_vain_counts_for_grants() {
        for (ttl, stands, blamed) in [(3, false, false), (3, true, false), (5, true, true)] {
            let mut run = MadeUp::leading(2);
            run.later(1000);
            renewed(&mut run, 1000);
            let set = |run: &mut MadeUp, ttl| {
                let settings = run.checker.scene().member(0).and_then(|member| member.settings);
                let settings = settings.expect("it is configured");
                run.see(
                    Some(0),
                    Seen::Configured(Settings {
                        ttl: ttl * SEC,
                        ..settings
                    }),
                );
            };
            set(&mut run, ttl);
            if stands {
                run.see(Some(0), Seen::AgentFrozen { frozen: true });
                set(&mut run, 5);
                run.see(Some(0), Seen::AgentFrozen { frozen: false });
            }
            let (order, about) = (Deed::Renew, None);
            run.see(Some(0), Seen::OrderBegan { id: 8, order, about });
            set(&mut run, 5);
            run.later(2000);
            granted(&mut run, 3000, 15);
            run.later(2500);
            acts(&mut run);
            ended(&mut run, 0, End::ByGuard);
            assert_eq!(
                run.checker.violation.is_some(),
                blamed,
                "{ttl} s, stood still: {stands}"
            );
        }
    }
}
