//! The faults that a run injects at the primary, and what each may cost.

use std::fmt;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
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
}

impl Fault {
    /// The longest silence that a direct client may see with default settings; `None` where no limit is set.
    ///
    /// The figures are the acceptance limits of the project's first milestone.
    pub(crate) fn limit(self) -> Option<Duration> {
        match self {
            Self::Stop | Self::Switchover => Some(Duration::from_secs(1)),
            Self::Postgres => Some(Duration::from_secs(2)),
            Self::Both => Some(Duration::from_millis(6500)),
            // No outage at all; the figure is what a busy machine of two cores may add to a pace of 20 ms.
            Self::Agent => Some(Duration::from_millis(500)),
            Self::Host | Self::Guard | Self::Freeze | Self::Orphan => None,
        }
    }

    /// True where asynchronous replication makes the loss of an acknowledged write inevitable once another member takes over:
    /// the primary died, or may have, before the replicas had everything.
    pub(crate) fn may_lose(self) -> bool {
        match self {
            Self::Host | Self::Both | Self::Guard | Self::Freeze | Self::Orphan | Self::Postgres => true,
            Self::Agent | Self::Stop | Self::Switchover => false,
        }
    }

    /// True where another member must take over.
    pub(crate) fn moves(self) -> bool {
        match self {
            Self::Host | Self::Both | Self::Stop | Self::Switchover | Self::Freeze | Self::Orphan => true,
            Self::Agent | Self::Postgres | Self::Guard => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Agent => "agent",
            Self::Postgres => "postgres",
            Self::Both => "both",
            Self::Stop => "stop",
            Self::Switchover => "switchover",
            Self::Guard => "guard",
            Self::Freeze => "freeze",
            Self::Orphan => "orphan",
        })
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
    let node = &mut cluster.nodes[usize::from(primary)];
    let name = node.name.clone();
    let missing = |what: &str| Error::Unmet(format!("{name} has no {what} to hit"));
    let mut hit = Vec::new();
    match fault {
        Fault::Agent | Fault::Orphan => {
            hit.push((node.agent().ok_or_else(|| missing("agent"))?, Signal::KILL))
        }
        Fault::Stop => hit.push((node.agent().ok_or_else(|| missing("agent"))?, Signal::TERM)),
        Fault::Freeze => hit.push((node.agent().ok_or_else(|| missing("agent"))?, Signal::STOP)),
        Fault::Postgres => hit.push((
            node.postmaster().ok_or_else(|| missing("postmaster"))?,
            Signal::KILL,
        )),
        Fault::Guard => hit.push((node.guard().ok_or_else(|| missing("guard"))?, Signal::KILL)),
        Fault::Host | Fault::Both | Fault::Switchover => {}
    }
    let at = Instant::now();
    for (pid, signal) in &hit {
        proc::signal(*pid, *signal);
    }
    let hits = || {
        hit.iter()
            .map(|(pid, _)| format!("pid {pid}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let what = match fault {
        Fault::Host => {
            let silent = silence(*node.postgres.ip());
            let killed = node.kill_all()?.len();
            let addresses = if silent {
                "its addresses are silent"
            } else {
                "its addresses refuse connections (silence takes root and nft)"
            };
            format!("{killed} processes of {name} killed at once; {addresses}")
        }
        Fault::Both => format!("{} processes of {name} killed at once", node.kill_all()?.len()),
        Fault::Switchover => format!("switchover from {name} to {candidate} ordered"),
        Fault::Agent | Fault::Orphan => format!("kill -9 of {name}'s agent ({})", hits()),
        Fault::Stop => format!("{name}'s agent told to stop (SIGTERM, {})", hits()),
        Fault::Freeze => format!("{name}'s agent frozen (SIGSTOP, {})", hits()),
        Fault::Postgres => format!("kill -9 of {name}'s postmaster ({})", hits()),
        Fault::Guard => format!("kill -9 of {name}'s guard ({})", hits()),
    };
    Ok(Injected {
        at,
        what,
        command: order.map(|order| tokio::spawn(order)),
    })
}

/// Undoes what outlasts the fault: a frozen agent goes on, a dead one is started as the service manager would.
pub(crate) fn heal(cluster: &mut Cluster, fault: Fault, primary: u8) -> Result<()> {
    unsilence();
    let node = &mut cluster.nodes[usize::from(primary)];
    if fault == Fault::Freeze
        && let Some(agent) = node.agent()
    {
        proc::signal(agent, Signal::CONT);
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

/// Drops every packet from and to `address`, as a host without power does. False where that is not possible.
fn silence(address: Ipv4Addr) -> bool {
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
