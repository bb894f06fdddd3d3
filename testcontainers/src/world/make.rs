//! A world from nothing: network, hosts, etcd, agents, clients; and away again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::Value;
use surus_ci::client::{self, Habit, Plan as ClientPlan, Route, TABLE, Writer};
use surus_ci::error::{Error, Result};
use surus_scenarios::{Nanos, Role, Step, Story, SyncMode};
use tokio::runtime::Handle;

use super::hosts::Host;
use super::orders::{self, Tail};
use super::{Client, World, disk, net, postgres, span};
use crate::dcs::{Etcd, Key};
use crate::docker::{Docker, Plan};
use crate::observer::{self, POSTGRES};
use crate::run::Run;
use crate::seen::Seen;
use crate::yml;
use surus_ci::lock;

/// A first step that is not before this is awaited with the clock set to just before it.
const EARLY: Nanos = Nanos::secs(8);
/// How long before the first step the clock is set to: clients have written by then.
const LEAD: Nanos = Nanos::secs(2);
/// How long a cluster may take to come about on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where worlds are made.
#[derive(Debug, Clone)]
pub struct Site {
    /// Runs what waits.
    pub handle: Handle,
    /// The engine.
    pub docker: Docker,
    /// The image of every host.
    pub image: String,
    /// The major of its PostgreSQL.
    pub postgres: u32,
    /// The agent's program.
    pub agent: PathBuf,
}

impl World {
    /// A world of the story's shape, whose files go to `directory`. When the story's first step is not among the first seconds, the
    /// cluster is healthy and clients write.
    ///
    /// `name` is the run's own: containers, volumes and network are called after it.
    ///
    /// # Errors
    /// The engine refuses something, or the cluster does not come about. What was made is removed.
    pub fn new(site: &Site, run: &Run<'_>, name: &str, directory: &Path) -> Result<Self> {
        let story = run.story;
        let shape = &story.shape;
        let members = shape.members.len();
        let network = site.handle.block_on(site.docker.network(name))?;
        let mut world = Self {
            handle: site.handle.clone(),
            docker: site.docker.clone(),
            etcd: Etcd::new(Vec::new(), String::new()),
            shape: shape.clone(),
            flaw: run.flaw.map(str::to_owned),
            small_disks: disk::fills(story),
            directory: directory.to_owned(),
            hosts: Vec::new(),
            etcd_hosts: Vec::new(),
            router_hosts: Vec::new(),
            clients: Vec::new(),
            seen: Arc::new(Mutex::new(Seen::new(
                shape
                    .members
                    .iter()
                    .map(|member| member.name.as_str().to_owned())
                    .collect(),
            ))),
            tasks: Vec::new(),
            due: Vec::new(),
            bars: Vec::new(),
            last_bar: 0,
            traps: Vec::new(),
            tails: Vec::new(),
            sprung: Vec::new(),
            here: None,
            dice: story.seed.unwrap_or(0),
            kept: None,
            broken: None,
            network,
        };
        for (index, member) in shape.members.iter().enumerate() {
            world.plan(name, member.name.as_str(), 11 + index);
        }
        for (index, member) in shape.etcd.iter().enumerate() {
            let host = member.host.as_ref().and_then(|host| shape.member(host));
            let host = host.unwrap_or_else(|| world.plan(name, member.name.as_str(), 101 + index));
            world.etcd_hosts.push(host);
        }
        for (index, router) in shape.routers.iter().enumerate() {
            let host = world.plan(name, router.name.as_str(), 201 + index);
            world.router_hosts.push(host);
        }
        let etcd: Vec<_> = world
            .etcd_hosts
            .iter()
            .map(|host| world.hosts[*host].address)
            .collect();
        world.etcd = Etcd::new(etcd.clone(), shape.file.prefix(yml::SCOPE));
        let addresses: Vec<_> = world.hosts[..members].iter().map(|host| host.address).collect();
        let places = yml::Places {
            members: &addresses,
            etcd: &etcd,
            router: world.router_hosts.first().map(|host| world.hosts[*host].address),
        };
        for (host, member) in world.hosts.iter().zip(&shape.members) {
            let text = yml::configuration(shape, member, host.address, &places);
            write(&host.files.join("surus.yml"), &text.map_err(Error::Unable)?)?;
        }
        for (router, host) in shape.routers.iter().zip(&world.router_hosts) {
            let text = yml::router(shape, &router.health, &places);
            write(&world.hosts[*host].files.join("haproxy.cfg"), &text)?;
        }
        let waits = |step: &Step| matches!(step, Step::Trap(trap) if orders::known(trap.when));
        if story.steps.iter().any(|planned| waits(&planned.step)) {
            let logs = world.hosts[..members]
                .iter()
                .map(|host| Tail::new(host.files.join("agent.log")));
            world.tails = logs.collect();
        }
        world.start(site, story)?;
        Ok(world)
    }

    /// Decides on a host and returns its place.
    fn plan(&mut self, run: &str, name: &str, last: usize) -> usize {
        let number = self.hosts.len();
        self.hosts.push(Host {
            name: name.to_owned(),
            address: self.network.at(u8::try_from(last).unwrap_or(u8::MAX)),
            label: format!("{run}-{number}"),
            id: String::new(),
            files: self.directory.join(name.replace(['/', '.'], "_")),
            powered: true,
            paused: false,
            shell: None,
            rules: String::new(),
        });
        number
    }

    fn start(&mut self, site: &Site, story: &Story) -> Result<()> {
        for host in &self.hosts {
            fs::create_dir_all(&host.files)
                .map_err(Error::io(|| format!("create {}", host.files.display())))?;
            // The users of a container have other numbers than those of this machine.
            fs::set_permissions(&host.files, fs::Permissions::from_mode(0o777))
                .map_err(Error::io(|| format!("open {}", host.files.display())))?;
        }
        let members = self.shape.members.len();
        let made = self.hosts.iter().enumerate().map(|(number, host)| {
            let plan = Plan {
                name: &host.label,
                image: &site.image,
                address: host.address,
                files: &host.files,
                agent: &site.agent,
                disk: (self.small_disks && number < members).then_some(disk::SMALL),
            };
            let (docker, network) = (&self.docker, &self.network);
            async move { docker.host(network, &plan).await }
        });
        let ids = self.handle.block_on(try_join_all(made))?;
        for (host, id) in self.hosts.iter_mut().zip(ids) {
            host.id = id;
        }
        let programs = postgres::programs(site.postgres);
        for host in 0..self.hosts.len() {
            let script = format!(
                "mkdir -p /opt/surus/run && chown postgres: /opt/surus/run /data && chmod 755 /data\n{programs}"
            );
            self.sh(host, &script)?;
        }
        for member in 0..self.etcd_hosts.len() {
            self.start_etcd(member)?;
        }
        self.await_etcd()?;
        self.tell("etcd has a leader");
        let runtime = self.handle.clone();
        self.tasks.push(observer::keys(&runtime, &self.seen, &self.etcd));
        for member in 0..self.shape.members.len() {
            let address = self.hosts[member].address;
            self.tasks
                .push(observer::servers(&runtime, &self.seen, member, address));
        }
        for host in self.router_hosts.clone() {
            self.start_all(host)?;
        }
        // What came before is not of the story.
        let mut seen = lock(&self.seen);
        seen.clock = crate::seen::Clock::start();
        seen.lines.clear();
        drop(seen);
        let mut late = false;
        for member in 0..self.shape.members.len() {
            let joins = self.shape.members[member].tags.joins;
            if joins == Nanos::ZERO {
                self.start_agent(member)?;
            } else {
                late = true;
                self.lasts(joins, move |world| {
                    let done = world.start_agent(member);
                    world.outcome("start an agent", done);
                });
            }
        }
        let first = story
            .steps
            .iter()
            .map(|planned| planned.at)
            .min()
            .unwrap_or(story.end);
        if late || first < EARLY {
            let table = client_table(self.addresses(), self.seen.clone());
            self.tasks.push(self.handle.spawn(table));
            self.start_clients();
            return Ok(());
        }
        self.await_health()?;
        let table = client_table(self.addresses(), self.seen.clone());
        let table = self
            .handle
            .block_on(async { tokio::time::timeout(PATIENCE, table).await });
        table.map_err(|_| Error::Late {
            what: "the clients' table".to_owned(),
            limit: PATIENCE,
            last: "nobody takes writes".to_owned(),
        })?;
        self.start_clients();
        let mut seen = lock(&self.seen);
        let took = seen.clock.now();
        seen.tell(format!("all is well after {took}; the clock is set"));
        seen.set_clock(first.minus(LEAD));
        Ok(())
    }

    fn addresses(&self) -> Vec<std::net::SocketAddrV4> {
        let members = &self.hosts[..self.shape.members.len()];
        members
            .iter()
            .map(|host| std::net::SocketAddrV4::new(host.address, POSTGRES))
            .collect()
    }

    fn await_etcd(&self) -> Result<()> {
        let began = crate::clock::now();
        while !self.handle.block_on(self.etcd.healthy()) {
            if PATIENCE < began.elapsed() {
                return Err(Error::Late {
                    what: "etcd to have a leader".to_owned(),
                    limit: PATIENCE,
                    last: "not every member answers".to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn await_health(&self) -> Result<()> {
        let began = crate::clock::now();
        loop {
            let hosts = &self.hosts;
            let seen = lock(&self.seen);
            let healthy = seen.healthy(|member| hosts[member].address);
            let synchronous = healthy.and_then(|leader| self.synchronous(leader, seen.keys.get("sync")));
            drop(seen);
            let Err(last) = synchronous else {
                return Ok(());
            };
            if PATIENCE < began.elapsed() {
                return Err(Error::Late {
                    what: "the cluster to be healthy before the story begins".to_owned(),
                    limit: PATIENCE,
                    last,
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Commits wait for somebody, if the story wants that and there is anybody who may be waited for.
    fn synchronous(&self, leader: usize, key: Option<&Key>) -> std::result::Result<(), String> {
        let members = self.shape.members.iter().enumerate();
        let mut others = members.filter(|(member, _)| *member != leader);
        let wanted = self.shape.settings.synchronous_mode != SyncMode::Off
            && others.any(|(_, member)| !member.tags.nosync && member.tags.replicatefrom.is_none());
        let names = key.and_then(|key| serde_json::from_str::<Value>(&key.value).ok());
        let named = names.is_some_and(|key| {
            key.get("sync_standby")
                .and_then(Value::as_str)
                .is_some_and(|names| !names.is_empty())
        });
        if wanted && !named {
            return Err("no standby is synchronous".to_owned());
        }
        Ok(())
    }

    fn start_clients(&mut self) {
        let _inside = self.handle.enter();
        for (number, spec) in self.shape.clients.iter().enumerate() {
            let router = spec.route.via.as_ref().and_then(|via| self.router_named(via));
            let router = router.map(|host| self.hosts[host].address);
            let route = match router {
                Some(address) => Route::To(std::net::SocketAddrV4::new(address, yml::door(Role::Primary))),
                None => Route::Primary(self.addresses()),
            };
            let writer = Writer::start(ClientPlan {
                name: spec.name.as_str().to_owned(),
                route,
                habit: if spec.route.sticky {
                    Habit::Keep
                } else {
                    Habit::Renew
                },
                pace: span(spec.route.every),
                retry: client::PAUSE,
                first: (number as i64 + 1) * 10_000_000,
                ports: Some(net::ports(number)),
                psql: None,
            });
            self.clients.push(Client { writer });
        }
    }

    /// Ends everything, and keeps what helps to understand it in the run's directory: logs, the run's story, etcd's keys, what clients
    /// knew. Returns that directory.
    pub fn keep(&mut self, story: &Story, why: &str) -> PathBuf {
        let mut text = format!("{why}\n\n");
        for (at, line) in &lock(&self.seen).lines {
            text += &format!("{:>9.3}  {line}\n", at.0 as f64 / 1e9);
        }
        let mut clients = String::new();
        let clock = lock(&self.seen).clock;
        let seconds = |at: tokio::time::Instant| clock.at(at.into_std()).0 as f64 / 1e9;
        for log in self.logs() {
            clients += &format!(
                "{}: {} acknowledged, {} failures\n",
                log.name,
                log.acks.len(),
                log.troubles.len()
            );
            for ack in &log.acks {
                clients += &format!(
                    "{:>9.3}  {} by {} on timeline {}\n",
                    seconds(ack.acked),
                    ack.id,
                    ack.node,
                    ack.timeline
                );
            }
            for trouble in &log.troubles {
                clients += &format!("{:>9.3}  ! {}\n", seconds(trouble.at), trouble.what);
            }
        }
        let keys = self.handle.block_on(self.etcd.keys());
        let keys: String = match keys {
            Ok(keys) => keys
                .iter()
                .map(|(name, key)| format!("{name} (lease {:x}): {}\n", key.lease, key.value))
                .collect(),
            Err(why) => format!("etcd does not answer: {why}\n"),
        };
        let files = [
            ("timeline.txt", text),
            ("clients.txt", clients),
            ("etcd.txt", keys),
            ("the.story", story.to_string()),
        ];
        for (name, text) in files {
            // What cannot be kept must not hide why the story failed.
            let _ = fs::write(self.directory.join(name), text);
        }
        for host in 0..self.hosts.len() {
            let script = format!(
                "ps -eo pid,ppid,stat,lstart,args; ls -la /data; {}/pg_controldata {}",
                yml::PROGRAMS,
                yml::DATA
            );
            if let Ok((_, text)) = self.ask(host, &script) {
                let _ = fs::write(self.hosts[host].files.join("processes.txt"), text);
            }
        }
        self.directory.clone()
    }

    /// The run's story so far.
    #[must_use]
    pub fn lines(&self) -> Vec<(Nanos, String)> {
        lock(&self.seen).lines.clone()
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(Error::io(|| format!("create {}", directory.display())))?;
    }
    fs::write(path, text).map_err(Error::io(|| format!("write {}", path.display())))
}

/// Creates the clients' table on whichever member takes writes, as soon as one does.
async fn client_table(members: Vec<std::net::SocketAddrV4>, seen: observer::Shared) {
    let sql = format!("CREATE TABLE IF NOT EXISTS {TABLE} (id bigint PRIMARY KEY, client text NOT NULL)");
    loop {
        if let Ok(client) = client::connect(&Route::Primary(members.clone())).await
            && client.batch_execute(&sql).await.is_ok()
        {
            lock(&seen).tell("clients have their table");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let clients = std::mem::take(&mut self.clients);
        let (docker, network) = (&self.docker, &self.network);
        let hosts = &self.hosts;
        self.handle.block_on(async {
            for client in clients {
                client.writer.stop().await;
            }
            let gone = hosts.iter().map(|host| async move {
                docker.remove(&host.label).await;
                docker.remove_volume(&host.label).await;
            });
            futures_util::future::join_all(gone).await;
            docker.remove_network(network).await;
        });
    }
}
