//! Random faults on a real cluster: which, where, when and for how long, all drawn from a seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::json;

use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::layout::MEMBERS;
use crate::node::Node;
use crate::{http, proc};

/// An agent that was told to stop has a checkpoint to make and clients to let go; systemd would wait for 90 s.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What happens to a node, or to etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Everything of the host is killed at once.
    Host,
    /// kill -9 of the postmaster.
    Postmaster,
    /// kill -9 of a backend or, of a standby, of whatever its postmaster started last.
    Backend,
    /// kill -9 of the agent.
    Agent,
    /// kill -9 of the guard.
    Guard,
    /// SIGTERM to the agent.
    Stop,
    /// SIGSTOP of the agent.
    FreezeAgent,
    /// SIGSTOP of every process of PostgreSQL.
    FreezePostgres,
    /// SIGSTOP of agent, guard and PostgreSQL.
    FreezeAll,
    /// A restart of PostgreSQL, ordered of the agent.
    Restart,
    /// A switchover, ordered of the primary's agent.
    Switchover,
    /// kill -9 of one etcd member.
    EtcdMember,
    /// kill -9 of all etcd members.
    Etcd,
}

impl Kind {
    /// What a node can suffer, each as often as it stands here.
    const NODE: [Self; 13] = [
        Self::Host,
        Self::Host,
        Self::Host,
        Self::Postmaster,
        Self::Backend,
        Self::Agent,
        Self::Guard,
        Self::Stop,
        Self::FreezeAgent,
        Self::FreezePostgres,
        Self::FreezeAll,
        Self::FreezeAll,
        Self::Restart,
    ];
    const CLUSTER: [Self; 4] = [Self::Switchover, Self::Switchover, Self::EtcdMember, Self::Etcd];

    /// In words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Host => "host killed",
            Self::Postmaster => "postmaster killed",
            Self::Backend => "backend killed",
            Self::Agent => "agent killed",
            Self::Guard => "guard killed",
            Self::Stop => "agent told to stop",
            Self::FreezeAgent => "agent frozen",
            Self::FreezePostgres => "PostgreSQL frozen",
            Self::FreezeAll => "host frozen",
            Self::Restart => "restart ordered",
            Self::Switchover => "switchover",
            Self::EtcdMember => "etcd member killed",
            Self::Etcd => "all of etcd killed",
        }
    }
}

/// Whom a fault hits, as it stands when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whom {
    /// The primary.
    Primary,
    /// A standby in the `sync` key.
    Synchronous,
    /// So many places after the primary.
    Next(u8),
    /// Not a node.
    Cluster,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    /// What.
    pub(crate) kind: Kind,
    /// Whom.
    pub(crate) whom: Whom,
    /// How long until what was killed starts again and what was frozen goes on.
    pub(crate) lasts: Duration,
}

impl Strike {
    /// Draws one; `ttl` is the lease's length, around which most limits of the product lie.
    pub(crate) fn draw(rng: &mut Rng, ttl: Duration) -> Self {
        let (kind, whom) = if rng.u8(0..6) == 0 {
            let kind = rng.choice(Kind::CLUSTER).unwrap_or(Kind::Etcd);
            (kind, Whom::Cluster)
        } else {
            let whom = match rng.u8(0..6) {
                0..3 => Whom::Primary,
                3..5 => Whom::Synchronous,
                _ => Whom::Next(rng.u8(1..MEMBERS)),
            };
            (rng.choice(Kind::NODE).unwrap_or(Kind::Host), whom)
        };
        let share = if rng.bool() {
            0.2 * rng.f64()
        } else {
            2.0 * rng.f64()
        };
        Self {
            kind,
            whom,
            lasts: ttl.mul_f64(share).max(Duration::from_millis(50)),
        }
    }

    /// Who is hit, for tables.
    pub(crate) fn place(&self) -> &'static str {
        match self.whom {
            Whom::Primary => "primary",
            Whom::Synchronous => "synchronous standby",
            Whom::Next(_) => "either standby",
            Whom::Cluster => "–",
        }
    }

    /// Does it to node `at` (of etcd: to that member).
    ///
    /// # Errors
    /// When the processes of a host cannot be found.
    pub(crate) async fn fall(&self, cluster: &mut Cluster, at: u8) -> Result<Fallen> {
        let mut fallen = Fallen {
            at,
            ending: None,
            frozen: Vec::new(),
        };
        let node = &mut cluster.nodes[usize::from(at)];
        if matches!(self.kind, Kind::Host | Kind::Agent | Kind::Stop) {
            fallen.ending = node.agent();
        }
        match self.kind {
            Kind::Host => drop(node.kill_all()?),
            Kind::Postmaster => kill(node.postmaster()),
            Kind::Backend => kill(node.servers().into_iter().max()),
            Kind::Agent => kill(node.agent()),
            Kind::Guard => kill(node.guard()),
            Kind::Stop => node
                .agent()
                .into_iter()
                .for_each(|pid| proc::signal(pid, Signal::TERM)),
            Kind::FreezeAgent => fallen.frozen.extend(node.agent()),
            Kind::FreezePostgres => fallen.frozen = node.servers(),
            Kind::FreezeAll => {
                fallen.frozen = proc::of(&node.dir).iter().map(|process| process.pid).collect();
            }
            Kind::Restart => tell(node, "/restart", json!({})),
            Kind::Switchover => tell(node, "/switchover", json!({ "leader": node.name })),
            Kind::EtcdMember => cluster.etcd.kill_member(at).await,
            Kind::Etcd => cluster.etcd.kill().await,
        }
        fallen
            .frozen
            .iter()
            .for_each(|pid| proc::signal(*pid, Signal::STOP));
        Ok(fallen)
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasts = self.lasts.as_secs_f64();
        write!(f, "{} ({}) for {lasts:.2} s", self.kind.text(), self.place())
    }
}

/// A fault that has come and is to end.
#[derive(Debug)]
pub(crate) struct Fallen {
    /// The node.
    at: u8,
    /// The agent that is to end.
    ending: Option<i32>,
    frozen: Vec<i32>,
}

impl Fallen {
    /// The node whose agent stands still until it ends.
    pub(crate) fn freezes(&self) -> Option<u8> {
        (!self.frozen.is_empty()).then_some(self.at)
    }

    /// The node whose agent is to end by itself.
    pub(crate) fn awaits(&self) -> Option<u8> {
        self.ending.map(|_| self.at)
    }

    /// Ends it: what was frozen goes on, and what is dead starts as the service manager would have it.
    ///
    /// # Errors
    /// When something cannot be started, or an agent that was to end does not.
    pub(crate) async fn end(&self, cluster: &mut Cluster) -> Result<()> {
        self.frozen
            .iter()
            .for_each(|pid| proc::signal(*pid, Signal::CONT));
        let node = &mut cluster.nodes[usize::from(self.at)];
        let began = Instant::now();
        // A process that was killed takes a moment, too.
        while self.ending.is_some() && node.agent() == self.ending {
            if STOP_LIMIT < began.elapsed() {
                return Err(Error::Late {
                    what: format!("the agent of {} to stop", node.name),
                    limit: STOP_LIMIT,
                    last: format!("see {}", node.log().display()),
                });
            }
            sleep(Duration::from_millis(20)).await;
        }
        if node.agent().is_none() {
            node.start()?;
        }
        cluster.etcd.revive()
    }
}

fn kill(pid: Option<i32>) {
    pid.into_iter().for_each(|pid| proc::signal(pid, Signal::KILL));
}

/// Orders something of its agent; nobody waits for the answer, and a refusal is one.
fn tell(node: &Node, path: &'static str, body: serde_json::Value) {
    let rest = node.rest;
    tokio::spawn(async move {
        let limit = Duration::from_secs(30);
        let _ = http::request(rest, "POST", path, &body.to_string(), limit).await;
    });
}
