//! The faults that a run injects at the primary, and what each may cost.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum as _;
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::ground::{self, Cut};
use crate::layout::Layout;
use crate::node::Node;
use crate::proc;
use crate::{http, layout};

/// The firewall table that silences an address: one per run, and nothing else of the machine's rules is touched.
fn table() -> String {
    format!("surus_ci_{}", std::process::id())
}

/// What happens to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Everything on the primary's host dies at once and its addresses fall silent
    Host,
    /// kill -9 of the agent; it is started again after a second, as systemd would
    Agent,
    /// kill -9 of the postmaster
    Postgres,
    /// kill -9 of agent, guard and PostgreSQL
    Both,
    /// SIGTERM to the agent
    Stop,
    /// A planned switchover by the operator's command
    Switchover,
    /// kill -9 of the guard
    Guard,
    /// SIGSTOP of the agent for three times the lease
    Freeze,
    /// kill -9 of the agent, and nobody starts it again until the cluster has recovered
    Orphan,
    /// kill -9 of one of PostgreSQL's backends
    Backend,
    /// The host is lost together with etcd's leader
    HostEtcd,
    /// The host is cut off from everybody but clients beside it
    Isolated,
    /// The host is cut off from etcd only
    NoEtcd,
    /// The host is cut off from the other hosts only
    NoPeers,
    /// kill -9 of etcd's leader
    EtcdLeader,
    /// kill -9 of two of etcd's three members
    EtcdQuorum,
    /// SIGSTOP of every process of PostgreSQL
    Hung,
    /// The disk of PostgreSQL's data is full
    DiskFull,
}

/// For so long a fault lasts that no other member takes over for: longer than any right, and than an election of etcd.
const LASTS: Duration = Duration::from_secs(20);

impl Fault {
    /// True where asynchronous replication makes the loss of an acknowledged write inevitable once another member takes over:
    /// the primary died, or may have, before the replicas had everything.
    pub(crate) fn may_lose(self) -> bool {
        !matches!(
            self,
            Self::Agent | Self::Stop | Self::Switchover | Self::EtcdLeader | Self::EtcdQuorum
        )
    }

    /// True where another member must take over.
    pub(crate) fn moves(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::HostEtcd
                | Self::Isolated
                | Self::Both
                | Self::Stop
                | Self::Switchover
                | Self::Freeze
                | Self::Orphan
                | Self::Hung
        )
    }

    /// True where whether another member takes over is for the product to choose.
    pub(crate) fn may_move(self) -> bool {
        matches!(
            self,
            Self::Postgres | Self::Guard | Self::Backend | Self::DiskFull
        )
    }

    /// How long it lasts, if it ends while it is being watched.
    pub(crate) fn lasts(self) -> Option<Duration> {
        matches!(
            self,
            Self::NoEtcd | Self::NoPeers | Self::EtcdQuorum | Self::DiskFull
        )
        .then_some(LASTS)
    }

    /// True where PostgreSQL ends and is to be started again in place: a server that ends soon after its start has failed to come up, and
    /// agents take their time over the next attempt.
    pub(crate) fn crashes(self) -> bool {
        matches!(self, Self::Postgres | Self::Guard)
    }

    /// True where nobody but root can do that: it takes a network or a disk of the host's own.
    pub(crate) fn takes_root(self) -> bool {
        matches!(
            self,
            Self::Isolated | Self::NoEtcd | Self::NoPeers | Self::DiskFull
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// A fault that has happened.
#[derive(Debug)]
pub(crate) struct Injected {
    /// Just before it happened.
    pub(crate) at: Instant,
    /// What was done, for people.
    pub(crate) what: String,
    /// The operator's command, while it runs.
    pub(crate) command: Option<JoinHandle<Result<String>>>,
}

/// Injects `fault` at node `primary`.
///
/// # Errors
/// [`Error::Unmet`] when there is nothing to hit, for instance no guard.
pub(crate) async fn inject(cluster: &mut Cluster, fault: Fault, primary: u8) -> Result<Injected> {
    let candidate = layout::node_name((primary + 1) % layout::MEMBERS);
    let order = if fault == Fault::Switchover {
        Some(order_switchover(cluster, primary, &candidate))
    } else {
        None
    };
    let etcd = match fault {
        Fault::EtcdLeader | Fault::HostEtcd => vec![cluster.etcd.leader().await?],
        Fault::EtcdQuorum => vec![0, 1],
        _ => Vec::new(),
    };
    let node = &mut cluster.nodes[usize::from(primary)];
    let name = node.name.clone();
    let hit = struck(node, fault)?;
    let at = Instant::now();
    for (pid, signal) in &hit {
        proc::signal(*pid, *signal);
    }
    let hits = match &hit[..] {
        [(pid, _)] => format!("pid {pid}"),
        all => format!("{} processes", all.len()),
    };
    for member in &etcd {
        cluster.etcd.kill_member(*member).await;
    }
    let node = &mut cluster.nodes[usize::from(primary)];
    let what = match fault {
        Fault::Host | Fault::HostEtcd => {
            let silent = silence(&cluster.layout, primary);
            let killed = node.kill_all()?.len();
            let addresses = if silent {
                "its addresses are silent"
            } else {
                "its addresses refuse connections (silence takes root and nft)"
            };
            let beside = if etcd.is_empty() {
                ""
            } else {
                ", and etcd's leader"
            };
            format!("{killed} processes of {name}{beside} killed at once; {addresses}")
        }
        Fault::Both => format!("{} processes of {name} killed at once", node.kill_all()?.len()),
        Fault::Switchover => format!("switchover from {name} to {candidate} ordered"),
        Fault::Agent | Fault::Orphan => format!("kill -9 of {name}'s agent ({hits})"),
        Fault::Stop => format!("{name}'s agent told to stop (SIGTERM, {hits})"),
        Fault::Freeze => format!("{name}'s agent frozen (SIGSTOP, {hits})"),
        Fault::Postgres => format!("kill -9 of {name}'s postmaster ({hits})"),
        Fault::Guard => format!("kill -9 of {name}'s guard ({hits})"),
        Fault::Backend => format!("kill -9 of one of {name}'s backends ({hits})"),
        Fault::Hung => format!("PostgreSQL of {name} frozen (SIGSTOP, {hits})"),
        Fault::EtcdLeader | Fault::EtcdQuorum => format!("kill -9 of {} of etcd's members", etcd.len()),
        Fault::Isolated => cut(cluster, primary, Cut::All, "everybody")?,
        Fault::NoEtcd => cut(cluster, primary, Cut::Etcd, "etcd")?,
        Fault::NoPeers => cut(cluster, primary, Cut::Hosts, "the other hosts")?,
        Fault::DiskFull => {
            node.fill_disk()?;
            format!("the disk of {name}'s data is full")
        }
    };
    Ok(Injected {
        at,
        what,
        command: order.map(|order| tokio::spawn(order)),
    })
}

/// Whom of a node's processes a fault strikes, and with what.
fn struck(node: &mut Node, fault: Fault) -> Result<Vec<(i32, Signal)>> {
    let (what, pids, signal) = match fault {
        Fault::Agent | Fault::Orphan => ("agent", node.agent().into_iter().collect(), Signal::KILL),
        Fault::Stop => ("agent", node.agent().into_iter().collect(), Signal::TERM),
        Fault::Freeze => ("agent", node.agent().into_iter().collect(), Signal::STOP),
        Fault::Postgres => (
            "postmaster",
            node.postmaster().into_iter().collect(),
            Signal::KILL,
        ),
        Fault::Guard => ("guard", node.guard().into_iter().collect(), Signal::KILL),
        Fault::Backend => ("backend", node.backend().into_iter().collect(), Signal::KILL),
        Fault::Hung => ("PostgreSQL", node.servers(), Signal::STOP),
        _ => return Ok(Vec::new()),
    };
    let hit: Vec<i32> = pids;
    if hit.is_empty() {
        return Err(Error::Unmet(format!("{} has no {what} to hit", node.name)));
    }
    Ok(hit.into_iter().map(|pid| (pid, signal)).collect())
}

fn cut(cluster: &Cluster, node: u8, cut: Cut, from: &str) -> Result<String> {
    let Some(block) = cluster.layout.network() else {
        let text = "to cut a host off it takes a network of its own: --hosts namespaces";
        return Err(Error::Unable(text.into()));
    };
    ground::cut(block, ground::POSTGRES + node, cut)?;
    Ok(format!(
        "{} is cut off from {from}",
        cluster.nodes[usize::from(node)].name
    ))
}

/// Undoes what outlasts the fault: a frozen agent goes on, a dead one is started as the service manager would.
pub(crate) fn heal(cluster: &mut Cluster, fault: Fault, primary: u8) -> Result<()> {
    unsilence();
    if let Some(block) = cluster.layout.network() {
        ground::mend(block, ground::POSTGRES + primary)?;
    }
    cluster.etcd.revive()?;
    let node = &mut cluster.nodes[usize::from(primary)];
    node.empty_disk()?;
    let frozen = match fault {
        Fault::Freeze => node.agent().into_iter().collect(),
        Fault::Hung => node.servers(),
        _ => Vec::new(),
    };
    for pid in frozen {
        proc::signal(pid, Signal::CONT);
    }
    if node.agent().is_none() {
        node.start()?;
    }
    Ok(())
}

/// The operator's command, to be awaited; somebody else's agent gets the same order through REST.
fn order_switchover(
    cluster: &Cluster,
    primary: u8,
    candidate: &str,
) -> impl Future<Output = Result<String>> + Send + 'static {
    let node = &cluster.nodes[usize::from(primary)];
    let (rest, name, candidate) = (node.rest, node.name.clone(), candidate.to_owned());
    let (account, dir, config) = (
        cluster.account.clone(),
        node.dir.clone(),
        node.config().display().to_string(),
    );
    let ctl = cluster.ctl.clone();
    async move {
        let limit = Duration::from_secs(60);
        let Some(ctl) = ctl else {
            let body = format!("{{\"leader\": \"{name}\", \"candidate\": \"{candidate}\"}}");
            let answer = http::request(rest, "POST", "/switchover", &body, limit).await;
            let answer = answer.map_err(Error::io(|| format!("POST http://{rest}/switchover")))?;
            return if answer.status == 200 {
                Ok(answer.body)
            } else {
                Err(Error::Unmet(format!(
                    "POST /switchover: {} {}",
                    answer.status, answer.body
                )))
            };
        };
        let words = [
            ctl.display().to_string(),
            "switchover".into(),
            "-c".into(),
            config,
            "--leader".into(),
            name,
            "--candidate".into(),
            candidate,
            "--force".into(),
        ];
        proc::run(&account, &words, &dir, limit).await
    }
}

/// Drops every packet from and to a node, as a host without power does. False where that is not possible.
fn silence(layout: &Layout, node: u8) -> bool {
    if let Some(block) = layout.network() {
        return ground::cut(block, ground::POSTGRES + node, Cut::Silent).is_ok();
    }
    let address = layout.postgres(node).ip().to_owned();
    let table = table();
    let rules = format!(
        "add table ip {table}; add chain ip {table} input {{ type filter hook input priority -300; }}; \
         add rule ip {table} input ip daddr {address} drop; add rule ip {table} input ip saddr {address} drop"
    );
    rustix::process::getuid().is_root() && nft(&[&rules])
}

/// Lets all silenced addresses speak again.
pub(crate) fn unsilence() {
    if rustix::process::getuid().is_root() {
        nft(&["delete", "table", "ip", &table()]);
    }
}

fn nft(words: &[&str]) -> bool {
    Command::new("nft")
        .args(words)
        .output()
        .is_ok_and(|output| output.status.success())
}
