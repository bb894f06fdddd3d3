//! The model's side: servers on a network that loses nothing, with durations of zero.

use std::collections::{BTreeMap, VecDeque};

use surus_core::types::SystemId;
use surus_sim::clock::{MS, SEC, Time};
use surus_sim::model::postgres::control::state_name;
use surus_sim::model::postgres::rewind::{RewindError, Verdict};
use surus_sim::model::postgres::{
    Conninfo, Costs, Effect, Fact, Happening, Link, Message, Peer, Refusal, Relation, Server, StopMode,
    SyncLevel, Txn,
};
use surus_sim::rng::Rng;

use super::{Answer, Commands, Side};

pub(super) fn run(script: &str) {
    let mut commands = Commands(Model::default());
    let path = crate::directory("postgres").join(format!("{script}.script"));
    goldenscript::run(&mut commands, path).unwrap();
}

#[derive(Default)]
struct Model {
    names: Vec<String>,
    servers: Vec<Server>,
    now: Time,
    values: BTreeMap<Txn, String>,
    facts: BTreeMap<Txn, Vec<Fact>>,
}

fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotRunning => "no connection",
        Refusal::Running => "a server runs",
        Refusal::StartingUp => "starting up",
        Refusal::ShuttingDown => "shutting down",
        Refusal::Silent => "no answer",
        Refusal::InRecovery => "read-only",
        Refusal::NotInRecovery => "not in recovery",
        Refusal::NoCluster => "no cluster",
        Refusal::Disk => "the disk",
        Refusal::Other(text) => text,
    }
    .to_owned()
}

fn done(result: Result<impl Sized, Refusal>) -> Answer {
    result.map(|_| String::new()).map_err(|refusal| words(&refusal))
}

impl Model {
    fn index(&mut self, name: &str) -> usize {
        if let Some(index) = self.names.iter().position(|known| known == name) {
            return index;
        }
        let peer = u32::try_from(self.names.len()).unwrap();
        let mut server = Server::new(Peer(peer), Costs::NONE, Rng::new(1, u64::from(peer)));
        server.settings.wal_retrieve_retry_interval = SEC;
        self.names.push(name.to_owned());
        self.servers.push(server);
        self.names.len() - 1
    }

    fn at(&mut self, name: &str) -> &mut Server {
        let index = self.index(name);
        &mut self.servers[index]
    }

    fn settle(&mut self) {
        let mut wire: VecDeque<(Peer, Link, Message)> = VecDeque::new();
        loop {
            for server in &mut self.servers {
                server.tick(self.now);
                for effect in server.effects() {
                    match effect {
                        Effect::Send { to, link, message } => wire.push_back((to, link, message)),
                        Effect::Happened(Happening::Commit { txn, fact, .. }) => {
                            self.facts.entry(txn).or_default().push(fact);
                        }
                        Effect::Happened(_) => {}
                    }
                }
            }
            let Some((to, link, message)) = wire.pop_front() else {
                return;
            };
            self.servers[to.0 as usize].receive(self.now, link, message);
        }
    }

    fn pass(&mut self, span: Time) {
        let end = self.now + span;
        self.settle();
        while let Some(next) = self.servers.iter().filter_map(Server::next_deadline).min()
            && next <= end
        {
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = end;
    }

    fn told(&self, txn: Txn) -> String {
        let facts = self.facts.get(&txn).map_or(&[][..], Vec::as_slice);
        match facts.last() {
            Some(Fact::Acked { .. }) => "committed",
            Some(Fact::Dropped) => "connection lost",
            _ => "waits",
        }
        .to_owned()
    }
}

impl Side for Model {
    fn new_primary(&mut self, server: &str) -> Answer {
        let now = self.now;
        let result = self.at(server).initdb(SystemId(1));
        done(result)?;
        done(self.at(server).start(now))?;
        self.settle();
        Ok(String::new())
    }

    fn standby(&mut self, server: &str, of: &str, slot: Option<&str>) -> Answer {
        self.backup(server, of)?;
        self.follow(server, Some(of), slot)?;
        self.signal(server, true)?;
        self.start(server)?;
        Ok(String::new())
    }

    fn backup(&mut self, server: &str, of: &str) -> Answer {
        let now = self.now;
        done(self.at(of).backup(now, true))?;
        self.settle();
        let copy = self.at(of).snapshot().map_err(|refusal| words(&refusal))?;
        done(self.at(of).backup(now, false))?;
        self.settle();
        done(self.at(server).clone_begin())?;
        self.at(server).clone_finish(&copy);
        Ok(String::new())
    }

    fn follow(&mut self, server: &str, of: Option<&str>, slot: Option<&str>) -> Answer {
        let now = self.now;
        let to = of.map(|of| Peer(u32::try_from(self.index(of)).unwrap()));
        let application_name = server.to_owned();
        let server = self.at(server);
        server.settings.primary_conninfo = to.map(|to| Conninfo { to, application_name });
        server.settings.primary_slot_name = slot.map(str::to_owned);
        if server.alive() {
            let _ = server.reload(now);
        }
        self.settle();
        Ok(String::new())
    }

    fn signal(&mut self, server: &str, on: bool) -> Answer {
        let cluster = self.at(server).cluster_mut();
        cluster.ok_or_else(|| "no cluster".to_owned())?.standby_signal = on;
        Ok(String::new())
    }

    fn start(&mut self, server: &str) -> Answer {
        let now = self.now;
        done(self.at(server).start(now))?;
        self.pass(5 * SEC);
        match self.role(server).as_str() {
            "down" => Err("it ended".to_owned()),
            role => Ok(role.to_owned()),
        }
    }

    fn stop(&mut self, server: &str, immediate: bool, wait: bool) -> Answer {
        let now = self.now;
        let mode = if immediate {
            StopMode::Immediate
        } else {
            StopMode::Fast
        };
        done(self.at(server).stop(now, mode))?;
        self.pass(if wait { 10 * SEC } else { 0 });
        if wait && self.alive(server) {
            return Err("it does not end".to_owned());
        }
        Ok(String::new())
    }

    fn kill(&mut self, server: &str) -> Answer {
        let now = self.now;
        self.at(server).kill(now);
        self.settle();
        Ok(String::new())
    }

    fn freeze(&mut self, server: &str, on: bool) -> Answer {
        let now = self.now;
        if on {
            self.at(server).hang();
        } else {
            self.at(server).thaw(now);
        }
        self.settle();
        Ok(String::new())
    }

    fn role(&mut self, server: &str) -> String {
        let server = self.at(server);
        match server.in_recovery() {
            Ok(true) => "standby",
            Ok(false) => "primary",
            Err(Refusal::StartingUp) => "starting",
            Err(Refusal::ShuttingDown) => "stopping",
            Err(Refusal::Silent) => "silent",
            Err(_) => "down",
        }
        .to_owned()
    }

    fn alive(&mut self, server: &str) -> bool {
        self.at(server).alive()
    }

    fn commit(&mut self, server: &str, value: &str, level: &str, wait: bool) -> Answer {
        let level = match level {
            "off" => SyncLevel::Off,
            "local" => SyncLevel::Local,
            "remote_write" => SyncLevel::RemoteWrite,
            "remote_apply" => SyncLevel::RemoteApply,
            _ => SyncLevel::On,
        };
        let txn = self.values.len() as u64 + 1;
        let now = self.now;
        done(self.at(server).commit(now, txn, 200, level))?;
        self.values.insert(txn, value.to_owned());
        self.settle();
        if !wait {
            return Ok(String::new());
        }
        if self.told(txn) == "waits" {
            self.pass(5 * SEC);
        }
        Ok(self.told(txn))
    }

    fn sees(&mut self, server: &str) -> Result<Vec<String>, String> {
        let seen = self.at(server);
        seen.in_recovery().map_err(|refusal| words(&refusal))?;
        let txns: Vec<Txn> = seen.visible().collect();
        let mut values: Vec<String> = txns.iter().map(|txn| self.values[txn].clone()).collect();
        values.sort();
        Ok(values)
    }

    fn waiting(&mut self, server: &str) -> usize {
        self.at(server).waiting()
    }

    fn cancel(&mut self, server: &str, terminate: bool) -> Answer {
        let txns: Vec<Txn> = self.values.keys().copied().collect();
        let mut told = Vec::new();
        for txn in txns {
            let before = self.facts.get(&txn).map_or(0, Vec::len);
            self.at(server).cancel(txn, terminate);
            self.settle();
            if self.facts.get(&txn).map_or(0, Vec::len) != before {
                told.push(self.told(txn));
            }
        }
        Ok(told.join(" "))
    }

    fn bulk(&mut self, server: &str, mib: u64) -> Answer {
        for _ in 0..mib {
            let now = self.now;
            done(self.at(server).write(now, 1 << 20))?;
        }
        self.settle();
        Ok(String::new())
    }

    fn switch(&mut self, server: &str) -> Answer {
        let now = self.now;
        done(self.at(server).switch_wal(now))?;
        self.settle();
        Ok(String::new())
    }

    fn checkpoint(&mut self, server: &str) -> Answer {
        let now = self.now;
        done(self.at(server).checkpoint(now))?;
        self.settle();
        Ok(String::new())
    }

    fn promote(&mut self, server: &str, wait: bool) -> Answer {
        let now = self.now;
        done(self.at(server).promote(now))?;
        self.pass(if wait { SEC } else { 0 });
        Ok(String::new())
    }

    fn pause(&mut self, server: &str, on: bool) -> Answer {
        let now = self.now;
        let result = self.at(server).pause_replay(now, on);
        self.settle();
        done(result)
    }

    fn set(&mut self, server: &str, name: &str, value: &str) -> Answer {
        let now = self.now;
        let number = || {
            value
                .trim_end_matches(char::is_alphabetic)
                .parse::<u64>()
                .unwrap_or(0)
        };
        let settings = &mut self.at(server).settings;
        match name {
            "synchronous_standby_names" => settings.synchronous_standby_names = value.to_owned(),
            "recovery_min_apply_delay" => settings.recovery_min_apply_delay = number() * SEC,
            "wal_keep_size" => settings.wal_keep_size = number() << 20,
            "max_slot_wal_keep_size" => settings.max_slot_wal_keep_size = Some(number() << 20),
            "wal_sender_timeout" => settings.wal_sender_timeout = number() * SEC,
            "wal_receiver_timeout" => settings.wal_receiver_timeout = number() * SEC,
            _ => return Err(format!("nobody knows the setting {name}")),
        }
        let _ = self.at(server).reload(now);
        self.settle();
        Ok(String::new())
    }

    fn control(&mut self, server: &str) -> Result<(String, u32, bool), String> {
        let cluster = self.at(server).cluster().ok_or_else(|| "no cluster".to_owned())?;
        let control = cluster.control;
        let state = state_name(control.state).to_owned();
        Ok((state, control.timeline, control.min_recovery != 0))
    }

    fn timeline(&mut self, server: &str) -> Result<u32, String> {
        let identity = self.at(server).identify();
        identity
            .map(|(_, timeline, _)| timeline.0)
            .map_err(|refusal| words(&refusal))
    }

    fn histories(&mut self, server: &str) -> Vec<(u32, Vec<u32>)> {
        let files = self
            .at(server)
            .cluster()
            .map(|cluster| cluster.histories.all().clone());
        let files = files
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, forks)| !forks.is_empty());
        files
            .map(|(timeline, forks)| (timeline, forks.iter().rev().map(|fork| fork.timeline).collect()))
            .collect()
    }

    fn reserve(&mut self, server: &str, upto: u32) -> Answer {
        let cluster = self
            .at(server)
            .cluster_mut()
            .ok_or_else(|| "no cluster".to_owned())?;
        let own = cluster.control.timeline;
        cluster.histories.reserve(own, upto);
        Ok(String::new())
    }

    fn compare(&mut self, a: &str, b: &str) -> String {
        let other = self.at(b).cluster().map(|cluster| cluster.log.clone());
        let own = self.at(a).cluster().map(|cluster| cluster.log.clone());
        let (Some(own), Some(other)) = (own, other) else {
            return "nothing to compare".to_owned();
        };
        match own.relation(&other) {
            Relation::Equal => "equal",
            Relation::Ahead => "ahead",
            Relation::Behind => "behind",
            Relation::Diverged(_) => "diverged",
        }
        .to_owned()
    }

    fn received(&mut self, server: &str) -> Result<String, String> {
        let probe = self.at(server).probe().map_err(|refusal| words(&refusal))?;
        Ok(super::received(
            probe.received.map(|lsn| lsn.0),
            probe.replayed.map_or(0, |lsn| lsn.0),
        ))
    }

    fn receiver(&mut self, server: &str) -> Result<String, String> {
        let probe = self.at(server).probe().map_err(|refusal| words(&refusal))?;
        Ok(probe.receiver.unwrap_or("none").to_owned())
    }

    fn sync(&mut self, server: &str) -> Result<Vec<(String, String)>, String> {
        let rows = self.at(server).replication().map_err(|refusal| words(&refusal))?;
        let mut rows: Vec<_> = rows
            .into_iter()
            .filter(|row| row.state != "startup")
            .map(|row| (row.application_name, row.sync_state.to_owned()))
            .collect();
        rows.sort();
        Ok(rows)
    }

    fn slot(&mut self, server: &str, act: &str, name: &str, logical: bool) -> Answer {
        let server = self.at(server);
        let end = server.cluster().map_or(0, |cluster| cluster.log.flushed);
        match act {
            "create" => done(server.create_slot(name, logical, true)),
            "drop" => done(server.drop_slot(name)),
            "advance" => done(server.advance_slot(name, end)),
            "back" => done(server.advance_slot(name, 8)),
            _ => Err("create, drop, advance or back?".to_owned()),
        }
    }

    fn slots(&mut self, server: &str) -> Result<Vec<(String, bool, String)>, String> {
        let server = self.at(server);
        server.in_recovery().map_err(|refusal| words(&refusal))?;
        let slots = server.slots().into_iter().flatten();
        let word = |lost| if lost { "lost" } else { "kept" };
        Ok(slots
            .map(|(name, slot)| (name.clone(), slot.active.is_some(), word(slot.lost).to_owned()))
            .collect())
    }

    fn rewind(&mut self, server: &str, from: &str) -> Answer {
        let now = self.now;
        let source = self.at(from).snapshot().map_err(|refusal| words(&refusal))?;
        let verdict = self.at(server).rewind_plan(now, &source);
        match verdict {
            Ok(Verdict::NotRequired) => Ok("no rewind required".to_owned()),
            Ok(Verdict::Required { redo, .. }) => {
                self.at(server).rewind_begin();
                self.at(server).rewind_finish(&source, redo);
                Ok("done".to_owned())
            }
            Err(error) => Err(match error {
                RewindError::Target => "the target runs, or is none",
                RewindError::NotClean => "the target was not shut down cleanly",
                RewindError::OtherSystem => "another system",
                RewindError::NoHints => "no hints in the log",
                RewindError::NoAncestor => "no common ancestor",
                RewindError::WalRemoved => "WAL is gone",
            }
            .to_owned()),
        }
    }

    fn single(&mut self, server: &str) -> Answer {
        let now = self.now;
        let result = self.at(server).single_user(now);
        result.map(|()| String::new()).map_err(|_| "refused".to_owned())
    }

    fn sleep(&mut self, seconds: u64) {
        self.pass(seconds * SEC);
    }

    fn moment(&mut self) {
        self.pass(100 * MS);
    }
}
