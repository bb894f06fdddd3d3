//! A whole cluster on this machine: etcd, three hosts and HAProxy, from nothing to healthy and away again.
//!
//! [`with`] is the only way in: whatever happens to the body (an error, Ctrl-C, a panic), everything that was started is ended and the
//! directory goes, except that a failure keeps logs and configuration and says where, and `keep` keeps all of it running.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::client::{self, Route, TABLE};
use crate::error::{Error, Result, chain};
use crate::etcd::Etcd;
use crate::faults;
use crate::ground::Network;
use crate::haproxy::{self, HaProxy};
use crate::http;
use crate::layout::{Layout, MEMBERS};
use crate::node::Node;
use crate::proc::{self, Account};
use crate::report::Report;
use crate::watch::Watch;

/// What a cluster is made of.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Seconds of the leader lease; the agent's default when not given
    #[arg(long)]
    pub(crate) ttl: Option<u32>,
    /// Another agent's command line, to compare with: its configuration file is appended
    #[arg(long, value_name = "CMD")]
    pub(crate) agent: Option<String>,
    /// Where PostgreSQL's programs are; the newest in /usr/lib/postgresql when not given
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// What the hosts are: addresses of the loopback, or network namespaces, which take root
    #[arg(long, value_enum)]
    pub(crate) hosts: Option<Hosts>,
    /// PostgreSQL's data is on a disk of so many MiB, in memory
    #[arg(skip)]
    pub(crate) disk: Option<u32>,
}

/// What the hosts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Hosts {
    /// Addresses of this machine's loopback.
    Loopback,
    /// Network namespaces.
    Namespaces,
}

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Where everything is.
    pub(crate) layout: Layout,
    /// Who runs it.
    pub(crate) account: Account,
    /// Where progress goes.
    pub(crate) report: Report,
    /// The hosts.
    pub(crate) nodes: Vec<Node>,
    /// The DCS.
    pub(crate) etcd: Etcd,
    /// The lease's length, if it was set.
    pub(crate) ttl: Option<u32>,
    /// Where PostgreSQL's programs are.
    pub(crate) bin: PathBuf,
    /// The operator's command line; `None` with somebody else's agent.
    pub(crate) ctl: Option<PathBuf>,
    haproxy: Option<HaProxy>,
    /// Goes when the cluster does.
    _network: Option<Network>,
    watch: Option<Watch>,
    fate: Fate,
}

/// What becomes of the cluster when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Remove,
    KeepLogs,
    Leave,
}

/// Creates a cluster, runs `body` on it when it is healthy, and clears up.
///
/// # Errors
/// What `body` failed with, or why the cluster did not come about; [`Error::Interrupted`] after Ctrl-C or SIGTERM.
pub(crate) async fn with<T>(
    options: &Options,
    report: Report,
    keep: bool,
    body: impl AsyncFnOnce(&mut Cluster) -> Result<T>,
) -> Result<T> {
    let mut cluster = Cluster::create(options, report)?;
    let outcome = {
        let work = async {
            cluster.start().await?;
            body(&mut cluster).await
        };
        tokio::select! {
            biased;
            () = interrupted() => Err(Error::Interrupted),
            outcome = work => outcome,
        }
    };
    match &outcome {
        Ok(_) if keep => cluster.leave()?,
        Ok(_) => {}
        Err(Error::Interrupted) => report.say("interrupted: clearing up"),
        Err(_) => cluster.mourn(),
    }
    outcome
}

async fn interrupted() {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Finds a program on the path or where Debian puts servers.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/usr/local/sbin", "/sbin"]);
    let found = places
        .map(|place| Path::new(place).join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| Error::Unable(format!("`{name}` is not installed: run ./ci/setup")))
}

/// The newest PostgreSQL of this machine that can run a server.
fn postgres_programs() -> Result<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let versions = entries.filter_map(|entry| {
        Some((
            entry.file_name().to_str()?.parse::<u32>().ok()?,
            entry.path().join("bin"),
        ))
    });
    match versions.filter(|(_, bin)| bin.join("initdb").is_file()).max() {
        Some((_, bin)) => Ok(bin),
        None => Ok(program("initdb")?
            .parent()
            .expect("a program is in a directory")
            .to_path_buf()),
    }
}

impl Cluster {
    fn create(options: &Options, report: Report) -> Result<Self> {
        let account = Account::choose()?;
        let (etcd, haproxy) = (program("etcd")?, program("haproxy")?);
        let bin = options.bin_dir.clone().map_or_else(postgres_programs, Ok)?;
        let root = tempfile::Builder::new()
            .prefix("surus-")
            .tempdir()
            .map_err(Error::io(|| "create a directory"))?
            .keep();
        let network = (options.hosts == Some(Hosts::Namespaces))
            .then(Network::create)
            .transpose();
        let network = network.inspect_err(|_| drop(fs::remove_dir(&root)))?;
        let layout = match &network {
            Some(network) => Layout::on(root.clone(), network),
            None => Layout::find(root.clone()).inspect_err(|_| drop(fs::remove_dir(&root)))?,
        };
        // Other users may look; they own nothing in it.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
            .map_err(Error::io(|| format!("open {}", root.display())))?;
        account.own(&root)?;
        let (command, ctl) = match &options.agent {
            Some(command) => (command.split_whitespace().map(str::to_owned).collect(), None),
            None => {
                let surus = install(&root)?;
                (vec![surus.display().to_string(), "run".to_owned()], Some(surus))
            }
        };
        let node = |i| {
            Node::prepare(
                &layout,
                i,
                &account,
                command.clone(),
                &bin,
                options.ttl,
                options.disk,
            )
        };
        let cluster = Self {
            nodes: (0..MEMBERS).map(node).collect::<Result<_>>()?,
            etcd: Etcd::prepare(&layout, &account, etcd)?,
            haproxy: Some(HaProxy::start(&layout, &account, &haproxy)?),
            ttl: options.ttl,
            _network: network,
            watch: None,
            fate: Fate::Remove,
            layout,
            account,
            report,
            bin,
            ctl,
        };
        report.say(format!(
            "cluster in {}, run by {}",
            cluster.layout.root.display(),
            cluster.account.name
        ));
        Ok(cluster)
    }

    async fn start(&mut self) -> Result<()> {
        let began = Instant::now();
        self.etcd.start().await?;
        let from = self.layout.etcd_client(0);
        self.report
            .say(format!("etcd: three members, {} and the two next to it", from));
        for node in &mut self.nodes {
            node.start()?;
            self.report.say(format!(
                "{}: agent on {}, PostgreSQL on {}",
                node.name, node.rest, node.postgres
            ));
        }
        self.watch = Some(Watch::start(self));
        let primary = self.wait_healthy(Duration::from_secs(120)).await?;
        let client = client::connect(&Route::To(self.nodes[usize::from(primary)].postgres)).await?;
        let sql = format!("CREATE TABLE {TABLE} (id bigint PRIMARY KEY, client text NOT NULL)");
        client
            .batch_execute(&sql)
            .await
            .map_err(Error::sql(|| "create the clients' table"))?;
        haproxy::wait_routed(&self.layout, primary, Duration::from_secs(60)).await?;
        let took = began.elapsed().as_secs_f64();
        self.report.say(format!(
            "three healthy members after {took:.1} s; HAProxy routes to {}",
            self.nodes[usize::from(primary)].name
        ));
        Ok(())
    }

    /// Waits until all members are healthy on one timeline, and returns the primary.
    pub(crate) async fn wait_healthy(&mut self, limit: Duration) -> Result<u8> {
        let end = Instant::now() + limit;
        loop {
            let last = match self.healthy().await {
                Ok(primary) => return Ok(primary),
                Err(last) => last,
            };
            for node in &mut self.nodes {
                if node.agent().is_none() {
                    return Err(Error::Unmet(format!(
                        "the agent of {} has ended; see {}",
                        node.name,
                        node.log().display()
                    )));
                }
            }
            if Instant::now() > end {
                return Err(Error::Late {
                    what: "three healthy members on one timeline".into(),
                    limit,
                    last,
                });
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The primary, if all members are healthy on one timeline and both replicas stream from it; else what is missing.
    async fn healthy(&self) -> std::result::Result<u8, String> {
        let view = self.view().await?;
        let members = view
            .get("members")
            .and_then(Value::as_array)
            .ok_or("no members in /cluster")?;
        let text =
            |member: &Value, key: &str| member.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        let seen = || {
            let one = |m: &Value| {
                format!(
                    "{} {} {} TL {}",
                    text(m, "name"),
                    text(m, "role"),
                    text(m, "state"),
                    m.get("timeline").unwrap_or(&Value::Null)
                )
            };
            members.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let leaders: Vec<String> = members
            .iter()
            .filter(|m| text(m, "role") == "leader" && text(m, "state") == "running")
            .map(|m| text(m, "name"))
            .collect();
        let replicas = members
            .iter()
            .filter(|m| text(m, "role") != "leader" && text(m, "state") == "streaming")
            .count();
        let timelines: BTreeSet<Option<u64>> = members
            .iter()
            .map(|m| m.get("timeline").and_then(Value::as_u64))
            .collect();
        let [leader] = &leaders[..] else {
            return Err(seen());
        };
        if members.len() != usize::from(MEMBERS)
            || replicas + 1 != members.len()
            || timelines.len() != 1
            || timelines.contains(&None)
        {
            return Err(seen());
        }
        let node = self
            .nodes
            .iter()
            .find(|node| &node.name == leader)
            .ok_or_else(&seen)?;
        let client = client::connect(&Route::To(node.postgres))
            .await
            .map_err(|error| chain(&error))?;
        let sql = "SELECT pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE 'surus_')";
        let row = client::ask(&client, sql).await.map_err(|error| chain(&error))?;
        if row != ["f", "2"] {
            return Err(format!(
                "{leader} is in recovery: {}, and has {} streaming replicas",
                row[0], row[1]
            ));
        }
        Ok(node.index)
    }

    /// `GET /cluster` from the first member that answers.
    pub(crate) async fn view(&self) -> std::result::Result<Value, String> {
        let mut last = String::from("no member answers");
        for node in &self.nodes {
            match http::get(node.rest, "/cluster", Duration::from_millis(700)).await {
                Ok(answer) if answer.status == 200 => match serde_json::from_str(&answer.body) {
                    Ok(view) => return Ok(view),
                    Err(error) => last = format!("{}: /cluster is no JSON: {error}", node.name),
                },
                Ok(answer) => last = format!("{}: /cluster answers {}", node.name, answer.status),
                Err(error) => last = format!("{}: {error}", node.name),
            }
        }
        Err(last)
    }

    /// The ids of all rows that the primary has now.
    pub(crate) async fn rows(&self, primary: u8) -> Result<BTreeSet<i64>> {
        let client = client::connect(&Route::To(self.nodes[usize::from(primary)].postgres)).await?;
        let rows = client
            .query(&format!("SELECT id FROM {TABLE}"), &[])
            .await
            .map_err(Error::sql(|| "read the rows back"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The lease's length that counts for waiting.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.ttl.unwrap_or(5)))
    }

    /// Stops asking the agents what they see: an agent that answers ten times a second is not idle.
    pub(crate) fn hush(&mut self) {
        self.watch = None;
    }

    /// Shows the end of every agent's log and keeps all logs.
    fn mourn(&mut self) {
        for node in &self.nodes {
            self.report.tail(&node.log(), 25);
        }
        self.fate = Fate::KeepLogs;
    }

    fn leave(&mut self) -> Result<()> {
        let kept = kept();
        fs::create_dir_all(kept.parent().expect("it is below the target directory"))
            .map_err(Error::io(|| format!("create {}", kept.display())))?;
        fs::write(&kept, self.layout.root.display().to_string())
            .map_err(Error::io(|| format!("write {}", kept.display())))?;
        self.fate = Fate::Leave;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.haproxy = None;
        self.watch = None;
        if self.fate == Fate::Leave {
            return;
        }
        for node in &mut self.nodes {
            proc::kill_all(&node.dir);
            node.unmount();
        }
        clear(
            &self.layout.root,
            self.fate == Fate::Remove && !std::thread::panicking(),
        );
        if self.fate == Fate::KeepLogs {
            self.report.line(&format!(
                "\nlogs and configuration are in {}",
                self.layout.root.display()
            ));
        }
    }
}

/// Ends everything below `root`; removes it, or only what is neither log nor configuration.
fn clear(root: &Path, wholly: bool) {
    proc::kill_all(root);
    faults::unsilence();
    if wholly {
        let _ = fs::remove_dir_all(root);
        return;
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let _ = fs::remove_dir_all(entry.path().join("data"));
    }
    let _ = fs::remove_dir_all(root.join("bin"));
}

/// Where the directory of a cluster that was left running is noted.
fn kept() -> PathBuf {
    beside().join("surus-ci-kept")
}

/// The directory of this program, where cargo puts the agent too.
pub(crate) fn beside() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    me.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Copies the agent where every account can run it: a checkout may be in a home directory that is closed to others.
fn install(root: &Path) -> Result<PathBuf> {
    let built = beside().join("surus");
    if !built.is_file() {
        return Err(Error::Unable(format!(
            "{} is missing: run `cargo build --release`",
            built.display()
        )));
    }
    let bin = root.join("bin");
    fs::create_dir_all(&bin).map_err(Error::io(|| format!("create {}", bin.display())))?;
    let surus = bin.join("surus");
    fs::copy(&built, &surus).map_err(Error::io(|| format!("copy {}", built.display())))?;
    fs::set_permissions(&surus, fs::Permissions::from_mode(0o755))
        .map_err(Error::io(|| format!("open {}", surus.display())))?;
    Ok(surus)
}

/// Ends the cluster that an earlier run left.
///
/// # Errors
/// [`Error::Unable`] when there is none.
pub(crate) fn stop_kept(report: Report) -> Result<()> {
    let kept = kept();
    let root = fs::read_to_string(&kept)
        .map_err(|_| Error::Unable("no cluster was left running by `./ci/demo --keep`".into()))?;
    let root = PathBuf::from(root.trim());
    clear(&root, true);
    fs::remove_file(&kept).map_err(Error::io(|| format!("remove {}", kept.display())))?;
    report.say(format!("stopped and removed {}", root.display()));
    Ok(())
}
