//! What people do, and what they make clients do.

use std::sync::Arc;

use surus_core::input::{Input, OperatorOrder, RequestId};
use surus_core::types::Revision;
use surus_core::view::{Due, FailoverKey};
use surus_scenarios::{Load, Name, Nanos, Operator, Taken};

use super::{unable, void};
use crate::clock::SEC;
use crate::fast::dcs::keys::{Held, Key};
use crate::fast::event::{Change, Event};
use crate::fast::world::World;
use crate::model::postgres::StopMode;
use crate::record::Seen;
use crate::zoo::Bug;

impl World {
    pub(super) fn operator_act(&mut self, act: &Operator) -> Taken {
        match act {
            Operator::Switchover { to } => {
                let leader = self.etcd.view.leader.as_ref().map(|key| key.name.clone());
                let Some(leader) = leader.filter(|_| self.etcd.cluster.leader().is_some()) else {
                    return void("there is no leader, or etcd does not answer");
                };
                let candidate = match to {
                    Some(to) => match self.member_at(to) {
                        Some(node) => Some(node),
                        None => return void("nobody is meant by that now"),
                    },
                    None => None,
                };
                let leader = self.index(&leader);
                return self.wish(leader, candidate);
            }
            Operator::Failover { to } => {
                let Some(node) = self
                    .member_at(to)
                    .filter(|_| self.etcd.cluster.leader().is_some())
                else {
                    return void("nobody is meant by that now, or etcd does not answer");
                };
                return self.wish(None, Some(node));
            }
            Operator::CancelFailover {} => {
                if self.etcd.view.failover.is_none() {
                    return void("there is none to cancel");
                }
                return self.put_failover(Held::Empty);
            }
            Operator::Restart { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                return self.order(node, OperatorOrder::Restart);
            }
            Operator::Reinit {
                node,
                force,
                from_leader,
            } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                let (force, from_leader) = (*force, *from_leader);
                return self.order(node, OperatorOrder::Reinitialize { force, from_leader });
            }
            Operator::Pause { span } => {
                self.spread(&Change::Pause(true), 0);
                if *span != Nanos::FOREVER {
                    self.spread(&Change::Pause(false), span.0);
                }
                self.lasts(*span);
            }
            Operator::Resume {} => self.spread(&Change::Pause(false), 0),
            Operator::Set { key, value } => {
                if self
                    .shape
                    .settings
                    .clone()
                    .with(key.as_str(), value.as_str())
                    .is_none()
                {
                    return unable(&format!("there is no setting {key} of {value}"));
                }
                self.spread(&Change::Set(key.clone(), value.clone()), 0);
            }
            Operator::Tag { node, key, value } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                let tags = self.hosts[node].tags.clone();
                if tags.with(key.as_str(), value.as_str()).is_none() {
                    return unable(&format!("there is no tag {key} of {value}"));
                }
                let change = Change::Tag(key.clone(), value.clone());
                let delay = self.rng.below(SEC);
                self.after(delay, Event::Configure(node, Box::new(change)));
            }
            Operator::StopByHand { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                if !self.hosts[node].pg.answers() {
                    return void("PostgreSQL does not run");
                }
                self.stop_postgres(node, StopMode::Fast);
            }
            Operator::PromoteByHand { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                if self.record.checker.scene().leads(node) {
                    return void("its agent leads, and promotes it or has");
                }
                if self.now < self.hosts[node].still {
                    return void("the host stands still");
                }
                if self.hosts[node].pg.promote(self.now).is_err() {
                    return void("it is no replica that could be promoted");
                }
                self.see(node, Seen::PromotedByHand);
                self.follow_pg(node);
            }
            Operator::Reload { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                let config = self.config(node);
                self.hear(node, Input::Config(config));
            }
            Operator::StartByHand { .. } | Operator::ResetSetting { .. } => {
                return unable(&format!("the model of PostgreSQL has no {}", act.word()));
            }
            Operator::Patch { .. } => {
                return unable("there is no REST API here");
            }
        }
        Taken::Done
    }

    fn wish(&mut self, leader: Option<usize>, candidate: Option<usize>) -> Taken {
        let name = |node: usize| self.names[node].clone();
        let (from, to) = (leader.map(name), candidate.map(name));
        let wish = FailoverKey {
            leader: from,
            candidate: to,
            due: Due::Now,
            revision: Revision(0),
        };
        self.put_failover(Held::Failover(Arc::new(wish)))
    }

    fn put_failover(&mut self, held: Held) -> Taken {
        if self.etcd.cluster.full() {
            return void("etcd has no space");
        }
        self.etcd_put(Key::Failover, held);
        Taken::Done
    }

    fn order(&mut self, node: usize, order: OperatorOrder) -> Taken {
        if self.hosts[node].agent.is_none() {
            return void("no agent runs");
        }
        self.counter += 1;
        let request = RequestId(self.counter);
        self.hear(node, Input::Operator { request, order });
        Taken::Done
    }

    /// A change of the configuration reaches each node in its own time.
    pub(crate) fn spread(&mut self, change: &Change, after: u64) {
        for node in 0..self.hosts.len() {
            let delay = after + self.rng.below(2 * SEC);
            self.after(delay, Event::Configure(node, Box::new(change.clone())));
        }
    }

    pub(super) fn client_load(&mut self, load: &Load) -> Taken {
        match load {
            Load::Pace { client, every } => {
                let Some(index) = self.client_named(client) else {
                    return void("there is no such client");
                };
                self.clients[index].pace = every.0;
                self.after(1, Event::ClientAct(index));
            }
            Load::Burst { bytes } => {
                let Some(node) = (0..self.hosts.len()).find(|node| self.hosts[*node].pg.writable()) else {
                    return void("nobody takes writes");
                };
                // A server whose disk is full refuses, and so has nothing to send.
                let _ = self.hosts[node].pg.write(self.now, *bytes);
                self.follow_pg(node);
            }
            Load::Session { node, .. } => {
                // A session that does nothing holds nothing up in a fast stop; there is nothing to see.
                if self.member_at(node).is_none() {
                    return void("nobody is meant by that now");
                }
            }
        }
        Taken::Done
    }

    /// A change reaches a node.
    pub(crate) fn configure(&mut self, node: usize, change: &Change) {
        let host = &mut self.hosts[node];
        let set = |key: &Name, value: &Name| (key.as_str().to_owned(), value.as_str().to_owned());
        match change {
            Change::Pause(pause) => {
                host.settings.pause = *pause;
            }
            Change::Set(key, value) => {
                let (key, value) = set(key, value);
                if let Some(settings) = host.settings.clone().with(&key, &value) {
                    host.settings = settings;
                }
            }
            Change::Tag(key, value) => {
                let (key, value) = set(key, value);
                if let Some(tags) = host.tags.clone().with(&key, &value) {
                    host.tags = tags;
                }
            }
        }
        host.rivalry.configured = Some(self.now);
        let config = self.config(node);
        self.see(node, Seen::Configured(self.settings(node)));
        let busy = self.hosts[node]
            .agent
            .as_ref()
            .is_some_and(|agent| !agent.under_way.is_empty());
        if busy && self.bug == Some(Bug::SettingsDropped) {
            return;
        }
        self.hear(node, Input::Config(config));
    }
}

#[cfg(test)]
mod tests {
    use surus_scenarios::{EtcdFault, Fault, Shape, Target, World as _};

    use super::*;
    use crate::record::Keep;

    #[test]
    fn a_word_that_etcd_refuses_is_none() {
        for (space, taken) in [(true, true), (false, false)] {
            let mut world = World::new(1, &Shape::of(3), Keep::Hash);
            world.run_until(20 * SEC);
            if !space {
                let span = Nanos::FOREVER;
                world.strike(&Fault::Etcd(EtcdFault::ReadOnly { span }));
            }
            let to = Target::Candidate;
            let said = world.operate(&Operator::Failover { to });
            assert_eq!(said == Taken::Done, taken);
            assert_eq!(world.record.checker.scene().failover.is_some(), taken);
        }
    }
}
