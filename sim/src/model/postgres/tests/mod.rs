//! Servers on a network that loses nothing and takes no time, for the tests of this model.

mod commits;
mod copies;
mod life;
mod replication;

use std::collections::VecDeque;

use surus_core::types::SystemId;

use super::commit::Fact;
use super::server::{Effect, Happening, Server};
use super::settings::{Conninfo, Costs, Peer};
use super::{Link, Message, SyncLevel, Txn};
use crate::clock::Time;
use crate::rng::Rng;

/// A few servers.
struct Cluster {
    servers: Vec<Server>,
    now: Time,
    cut: Vec<(u32, u32)>,
    happened: Vec<(usize, Happening)>,
    txn: Txn,
}

impl Cluster {
    /// The first is a primary that runs, the others stream from it.
    fn new(count: u32) -> Self {
        Self::with(count, Costs::NONE)
    }

    fn with(count: u32, costs: Costs) -> Self {
        let server = |peer| Server::new(Peer(peer), costs, Rng::new(7, u64::from(peer)));
        let mut cluster = Self {
            servers: (0..count).map(server).collect(),
            now: 1,
            cut: Vec::new(),
            happened: Vec::new(),
            txn: 0,
        };
        cluster.servers[0].initdb(SystemId(7)).unwrap();
        cluster.start(0);
        for standby in 1..cluster.servers.len() {
            cluster.clone_from(standby, 0);
            cluster.follow(standby, 0);
            cluster.start(standby);
        }
        cluster
    }

    fn clone_from(&mut self, target: usize, source: usize) {
        let copy = self.servers[source].snapshot().unwrap();
        self.servers[target].clone_begin().unwrap();
        self.servers[target].clone_finish(&copy);
    }

    fn follow(&mut self, standby: usize, upstream: u32) {
        let server = &mut self.servers[standby];
        server.settings.primary_conninfo = Some(Conninfo {
            to: Peer(upstream),
            application_name: format!("s{standby}"),
        });
        if let Some(cluster) = server.cluster_mut() {
            cluster.standby_signal = true;
        }
        let _ = server.reload(self.now);
        self.settle();
    }

    fn start(&mut self, server: usize) {
        self.servers[server].start(self.now).unwrap();
        self.settle();
    }

    fn at(&mut self, server: usize) -> &mut Server {
        &mut self.servers[server]
    }

    /// Commits on a server, and says what became of it at once.
    fn commit(&mut self, server: usize) -> (Txn, Vec<Fact>) {
        self.txn += 1;
        let txn = self.txn;
        self.servers[server]
            .commit(self.now, txn, 200, SyncLevel::On)
            .unwrap();
        self.settle();
        (txn, self.facts(txn))
    }

    fn facts(&self, wanted: Txn) -> Vec<Fact> {
        self.happened
            .iter()
            .filter_map(|(_, what)| match what {
                Happening::Commit { txn, fact, .. } if *txn == wanted => Some(*fact),
                _ => None,
            })
            .collect()
    }

    /// Time passes.
    fn pass(&mut self, span: Time) {
        let end = self.now + span;
        loop {
            let next = self.servers.iter().filter_map(Server::next_deadline).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Everything that is due or under way happens.
    fn settle(&mut self) {
        let mut wire: VecDeque<(Peer, Link, Message)> = VecDeque::new();
        for _ in 0..10_000 {
            for index in 0..self.servers.len() {
                self.servers[index].tick(self.now);
                for effect in self.servers[index].effects() {
                    match effect {
                        Effect::Send { to, link, message } => wire.push_back((to, link, message)),
                        Effect::Happened(what) => self.happened.push((index, what)),
                    }
                }
            }
            let Some((to, link, message)) = wire.pop_front() else {
                return;
            };
            let pair = (link.standby.0, link.upstream.0);
            if !self.cut.contains(&pair) {
                self.servers[to.0 as usize].receive(self.now, link, message);
            }
        }
        panic!("the servers do not come to rest");
    }

    fn position(&self, server: usize) -> u64 {
        self.servers[server]
            .cluster()
            .map_or(0, |cluster| cluster.log.inserted)
    }

    fn streams(&self, server: usize) -> bool {
        self.servers[server]
            .probe()
            .is_ok_and(|probe| probe.receiver == Some("streaming"))
    }

    fn happened(&self, server: usize, what: &Happening) -> bool {
        self.happened
            .iter()
            .any(|(who, happened)| *who == server && happened == what)
    }
}
