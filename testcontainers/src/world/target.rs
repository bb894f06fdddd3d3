//! Who is meant: members by their part at the moment, and the ends of links.

use surus_scenarios::{End, EtcdTarget, Name, Target};

use super::World;
use super::net::Spot;
use surus_ci::lock;

impl World {
    /// The member that is meant, if anybody is.
    pub(super) fn member_at(&mut self, target: &Target) -> Option<usize> {
        match target {
            Target::Node(name) => self.shape.member(name),
            Target::Leader => {
                let seen = lock(&self.seen);
                seen.leader.or(seen.leaders.0)
            }
            Target::FormerLeader => lock(&self.seen).leaders.1,
            Target::Candidate => {
                let seen = lock(&self.seen);
                let position = |member: &usize| seen.answer(*member).map_or(0, |answer| answer.position);
                let replicas = seen.replicas();
                replicas
                    .into_iter()
                    .max_by_key(|member| (position(member), usize::MAX - member))
            }
            Target::Replica => {
                let replicas = lock(&self.seen).replicas();
                (!replicas.is_empty()).then(|| replicas[self.below(replicas.len())])
            }
            Target::Any => Some(self.below(self.shape.members.len())),
            Target::Here => self.here,
        }
    }

    /// All that an end of a link stands for; `None` if nobody is meant now.
    pub(super) fn spots(&mut self, end: &End) -> Option<Vec<Spot>> {
        let members = self.shape.members.len();
        let hosts = |all: Vec<usize>| all.into_iter().map(Spot::Host).collect();
        Some(match end {
            End::Node(target) => vec![Spot::Host(self.member_at(target)?)],
            End::Etcd => hosts(self.etcd_hosts.clone()),
            End::EtcdMember(name) => vec![Spot::Host(self.etcd_hosts[self.etcd_named(name)?])],
            End::Replicas => {
                let leader = lock(&self.seen).leader;
                hosts((0..members).filter(|member| Some(*member) != leader).collect())
            }
            End::Peers => hosts((0..members).collect()),
            End::Clients => (0..self.shape.clients.len()).map(Spot::Client).collect(),
            End::Client(name) => vec![Spot::Client(self.client_named(name)?)],
            End::Router(name) => vec![Spot::Host(self.router_named(name)?)],
            End::All => {
                let hosts = (0..self.hosts.len()).map(Spot::Host);
                hosts
                    .chain((0..self.shape.clients.len()).map(Spot::Client))
                    .collect()
            }
        })
    }

    pub(super) fn etcd_named(&self, name: &Name) -> Option<usize> {
        self.shape.etcd.iter().position(|member| member.name == *name)
    }

    pub(super) fn client_named(&self, name: &Name) -> Option<usize> {
        self.shape.clients.iter().position(|client| client.name == *name)
    }

    /// The host of a router.
    pub(super) fn router_named(&self, name: &Name) -> Option<usize> {
        let routers = self.shape.routers.iter().zip(&self.router_hosts);
        let mut named = routers.filter(|(router, _)| router.name == *name);
        named.next().map(|(_, host)| *host)
    }

    /// The members of etcd that are meant.
    pub(super) fn etcd_at(&mut self, target: &EtcdTarget) -> Vec<usize> {
        let count = self.etcd_hosts.len();
        match target {
            EtcdTarget::Member(name) => self.etcd_named(name).into_iter().collect(),
            EtcdTarget::Leader => self.etcd_leader().into_iter().collect(),
            EtcdTarget::Follower => {
                let leader = self.etcd_leader();
                let followers: Vec<usize> = (0..count).filter(|member| Some(*member) != leader).collect();
                if followers.is_empty() {
                    return followers;
                }
                vec![followers[self.below(followers.len())]]
            }
            EtcdTarget::Any => vec![self.below(count)],
            EtcdTarget::All => (0..count).collect(),
        }
    }

    /// The leader of etcd.
    pub(super) fn etcd_leader(&self) -> Option<usize> {
        self.handle.block_on(self.etcd.leader())
    }
}
