//! Who is meant: members by their part at the moment, and the ends of links.

use surus_scenarios::{End, EtcdTarget, Name, Target};

use super::super::net::Machine;
use super::super::world::World;
use crate::witness::Cast;

impl World {
    /// The member that is meant, if anybody is.
    pub(super) fn member_at(&mut self, target: &Target) -> Option<usize> {
        let count = self.agents.len();
        match target {
            Target::Node(name) => self.hub.host_named(name.as_str()),
            Target::Leader => self.leader().or_else(|| self.hub.record().witness.leader()),
            Target::FormerLeader => self.hub.record().witness.former_leader(),
            Target::Candidate => self.replicas().into_iter().max_by_key(|host| {
                let standing = self.hub.look(*host, |inside| inside.standing());
                (standing, usize::MAX - host)
            }),
            Target::Replica => {
                let replicas = self.replicas();
                (!replicas.is_empty()).then(|| replicas[self.rng.index(replicas.len())])
            }
            Target::Any => Some(self.rng.index(count)),
            Target::Here => self.here,
        }
    }

    fn replicas(&self) -> Vec<usize> {
        let is = |host: &usize| self.hub.look(*host, |inside| inside.server.standby());
        (0..self.agents.len()).filter(is).collect()
    }

    /// The machines at an end of a link.
    pub(super) fn machines_at(&mut self, end: &End) -> Option<Vec<Machine>> {
        let machines = self.machines.clone();
        Some(match end {
            End::Node(target) => vec![machines.hosts[self.member_at(target)?]],
            End::Etcd => machines.etcd,
            End::EtcdMember(name) => vec![machines.etcd[self.etcd_named(name)?]],
            End::Replicas => {
                let leader = self.leader().map(|leader| machines.hosts[leader]);
                machines
                    .hosts
                    .into_iter()
                    .filter(|machine| Some(*machine) != leader)
                    .collect()
            }
            End::Peers => machines.hosts,
            End::Clients => machines.clients,
            End::Client(name) => vec![machines.clients[self.client_named(name)?]],
            End::Router(name) => {
                let routers = &self.shape.routers;
                vec![machines.routers[routers.iter().position(|router| router.name == *name)?]]
            }
            End::All => (0..machines.names.len()).map(Machine).collect(),
        })
    }

    pub(super) fn etcd_named(&self, name: &Name) -> Option<usize> {
        self.shape.etcd.iter().position(|member| member.name == *name)
    }

    pub(super) fn client_named(&self, name: &Name) -> Option<usize> {
        self.shape.clients.iter().position(|client| client.name == *name)
    }

    /// The members of etcd that are meant.
    pub(super) fn etcd_at(&mut self, target: &EtcdTarget) -> Vec<usize> {
        let count = self.machines.etcd.len();
        let leader = self.etcd.model(|_, model| model.leader());
        match target {
            EtcdTarget::Member(name) => self.etcd_named(name).into_iter().collect(),
            EtcdTarget::Leader => leader.into_iter().collect(),
            EtcdTarget::Follower => {
                let followers: Vec<usize> = (0..count).filter(|member| Some(*member) != leader).collect();
                if followers.is_empty() {
                    return followers;
                }
                vec![followers[self.rng.index(followers.len())]]
            }
            EtcdTarget::Any => vec![self.rng.index(count)],
            EtcdTarget::All => (0..count).collect(),
        }
    }
}

impl Cast for World {
    fn member(&mut self, target: &Target) -> Option<usize> {
        self.member_at(target)
    }

    fn client(&self, name: &Name) -> Option<usize> {
        self.client_named(name)
    }
}
