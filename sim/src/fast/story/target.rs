//! Who is meant: members by their part at the moment, and the ends of links.

use surus_scenarios::{End, Name, Target};

use crate::fast::world::World;
use crate::net::Place;
use crate::witness::Cast;

impl World {
    /// The member called so.
    pub(crate) fn named(&self, name: &Name) -> Option<usize> {
        self.names
            .iter()
            .position(|known| known.as_str() == name.as_str())
    }

    /// The member that is meant now.
    pub(crate) fn member_at(&mut self, target: &Target) -> Option<usize> {
        let replicas = |world: &Self| -> Vec<usize> {
            let is = |node: &usize| world.hosts[*node].pg.standby();
            (0..world.hosts.len()).filter(is).collect()
        };
        match target {
            Target::Node(name) => self.named(name),
            Target::Leader => {
                let holder = self.etcd.view.leader.as_ref().map(|key| key.name.clone());
                let holder = holder.and_then(|name| self.index(&name));
                holder.or(self.record.witness.leader())
            }
            Target::FormerLeader => self.record.witness.former_leader(),
            Target::Candidate => {
                let standing =
                    |node: &usize| self.standing(*node).map(|standing| (standing, usize::MAX - node));
                replicas(self).into_iter().max_by_key(standing)
            }
            Target::Replica => {
                let replicas = replicas(self);
                (!replicas.is_empty()).then(|| replicas[self.rng.index(replicas.len())])
            }
            Target::Any => Some(self.rng.index(self.hosts.len())),
            Target::Here => self.here,
        }
    }

    /// All places that an end of a link stands for. `None`: nobody is meant now.
    pub(crate) fn places(&mut self, end: &End) -> Option<Vec<Place>> {
        let etcd = 0..self.shape.etcd.len();
        let clients = 0..self.clients.len();
        let nodes = 0..self.hosts.len();
        Some(match end {
            End::Node(target) => vec![Place::Node(self.member_at(target)?)],
            End::Etcd => etcd.map(Place::Etcd).collect(),
            End::EtcdMember(name) => vec![Place::Etcd(self.etcd_named(name)?)],
            End::Replicas => {
                let leader = self.member_at(&Target::Leader);
                nodes
                    .filter(|node| Some(*node) != leader)
                    .map(Place::Node)
                    .collect()
            }
            End::Peers => nodes.map(Place::Node).collect(),
            End::Clients => clients.map(Place::Client).collect(),
            End::Client(name) => vec![Place::Client(self.client_named(name)?)],
            End::Router(name) => {
                let routers = &self.shape.routers;
                vec![Place::Router(
                    routers.iter().position(|router| router.name == *name)?,
                )]
            }
            End::All => nodes
                .map(Place::Node)
                .chain(etcd.map(Place::Etcd))
                .chain((0..self.routers.len()).map(Place::Router))
                .chain(clients.map(Place::Client))
                .collect(),
        })
    }

    /// The member of etcd called so.
    pub(crate) fn etcd_named(&self, name: &Name) -> Option<usize> {
        self.shape.etcd.iter().position(|member| member.name == *name)
    }

    /// The client called so.
    pub(crate) fn client_named(&self, name: &Name) -> Option<usize> {
        self.shape.clients.iter().position(|client| client.name == *name)
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
