//! Hosts: containers, the processes in them, and the signals they get.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use surus_ci::error::{Error, Result};
use surus_scenarios::Nanos;

use super::World;
use crate::docker::Shell;
use crate::yml::DATA;

/// How long a script on a host may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    /// What the story calls it.
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// The container's name, and its volume's.
    pub(super) label: String,
    /// The container.
    pub(super) id: String,
    /// Its files on this machine.
    pub(super) files: PathBuf,
    /// It has power.
    pub(super) powered: bool,
    /// It stands still.
    pub(super) paused: bool,
    pub(super) shell: Option<Shell>,
    /// The rules for its packets, as they were given last.
    pub(super) rules: String,
}

/// Which processes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The agent.
    Agent,
    /// Its guard.
    Guard,
    /// The postmaster and all its children.
    Postgres,
    /// One backend that serves a client of the story, by the ports that they come from.
    Backend,
    /// The WAL receiver.
    Receiver,
}

impl Who {
    /// A script that prints their ids, and nothing if there are none.
    pub(super) fn script(self) -> String {
        let postmaster =
            format!("pm=$(head -n 1 {DATA}/postmaster.pid 2>/dev/null) && kill -0 $pm 2>/dev/null");
        match self {
            Self::Agent => "pgrep -f '^/usr/bin/surus run '".to_owned(),
            Self::Guard => "pgrep -f '^[^ ]*surus guard'".to_owned(),
            Self::Postgres => format!("{postmaster} && echo $pm && pgrep -P $pm"),
            Self::Backend => {
                format!(
                    "{postmaster} && pgrep -P $pm -f 'postgres postgres [0-9.]*[(]2[3-6][0-9][0-9][0-9][)]' | head -n 1"
                )
            }
            Self::Receiver => format!("{postmaster} && pgrep -P $pm -f 'postgres: .*walreceiver'"),
        }
    }
}

impl World {
    /// Runs a script on a host that has power and goes on, and returns what it printed.
    ///
    /// # Errors
    /// The host is off or stands still, or the script ends with another code than zero.
    pub(super) fn sh(&mut self, host: usize, script: &str) -> Result<String> {
        let (code, output) = self.ask(host, script)?;
        if code == 0 {
            return Ok(output);
        }
        Err(Error::Program {
            program: script.lines().next().unwrap_or_default().to_owned(),
            status: code.to_string(),
            output,
        })
    }

    /// The same, for a script whose exit code is an answer.
    pub(super) fn ask(&mut self, host: usize, script: &str) -> Result<(i32, String)> {
        let handle = self.handle.clone();
        let docker = self.docker.clone();
        let host = &mut self.hosts[host];
        if !host.powered || host.paused {
            let state = if host.powered {
                "stands still"
            } else {
                "has no power"
            };
            return Err(Error::Unable(format!("{} {state}", host.name)));
        }
        handle.block_on(async {
            let mut shell = match host.shell.take() {
                Some(shell) => shell,
                None => docker.shell(&host.id).await?,
            };
            let done = shell.run(script, LIMIT).await;
            if done.is_ok() {
                host.shell = Some(shell);
            }
            done
        })
    }

    /// It has power and goes on.
    pub(super) fn awake(&self, host: usize) -> bool {
        self.hosts[host].powered && !self.hosts[host].paused
    }

    /// Sends a signal to processes of a host. False if there are none, or the host does not go on.
    pub(super) fn signal(&mut self, host: usize, who: Who, signal: &str) -> bool {
        if !self.awake(host) {
            return false;
        }
        let find = who.script();
        let script = format!("pids=$({find}) && [ -n \"$pids\" ] && kill -{signal} $pids");
        // A process that ended between the two is one that is not there.
        matches!(self.ask(host, &script), Ok((0, _)))
    }

    /// Whether there is such a process.
    pub(super) fn runs(&mut self, host: usize, who: Who) -> bool {
        let find = who.script();
        self.awake(host) && matches!(self.ask(host, &find), Ok((0, text)) if !text.is_empty())
    }

    /// Starts a member's agent unless it runs, as the service manager would.
    pub(super) fn start_agent(&mut self, host: usize) -> Result<()> {
        if !self.awake(host) || self.runs(host, Who::Agent) {
            return Ok(());
        }
        self.tell(format!("{}: the agent is started", self.hosts[host].name));
        let flaw = self.flaw.as_ref().map(|flaw| format!("SURUS_FLAW={flaw} "));
        let run = format!("{}/usr/bin/surus run /surus/surus.yml", flaw.unwrap_or_default());
        self.sh(host, &daemon(&run, "agent")).map(drop)
    }

    /// Starts a member of etcd unless it runs.
    pub(super) fn start_etcd(&mut self, member: usize) -> Result<()> {
        let host = self.etcd_hosts[member];
        let name = self.shape.etcd[member].name.as_str().to_owned();
        if !self.awake(host) {
            return Ok(());
        }
        let members = self.shape.etcd.iter().zip(&self.etcd_hosts);
        let all: Vec<String> = members
            .map(|(member, host)| format!("{}=http://{}:2380", member.name, self.hosts[*host].address))
            .collect();
        let address = self.hosts[host].address;
        let command = format!(
            "etcd --name={name} --data-dir=/data/etcd --listen-client-urls=http://{address}:2379 \
             --advertise-client-urls=http://{address}:2379 --listen-peer-urls=http://{address}:2380 \
             --initial-advertise-peer-urls=http://{address}:2380 --initial-cluster={} --initial-cluster-state=new \
             --logger=zap --log-level=warn",
            all.join(",")
        );
        let script = format!("pgrep -x etcd >/dev/null || {}", daemon(&command, "etcd"));
        self.sh(host, &script).map(drop)
    }

    /// Sends a signal to a member of etcd.
    pub(super) fn signal_etcd(&mut self, member: usize, signal: &str) -> bool {
        let host = self.etcd_hosts[member];
        self.awake(host) && matches!(self.ask(host, &format!("pkill -{signal} -x etcd")), Ok((0, _)))
    }

    /// The members of etcd that live on a host.
    pub(super) fn etcd_on(&self, host: usize) -> Vec<usize> {
        let all = 0..self.etcd_hosts.len();
        all.filter(|member| self.etcd_hosts[*member] == host).collect()
    }

    /// A host loses power, or has it again with all that its service manager starts.
    pub(super) fn power(&mut self, host: usize, on: bool) -> Result<()> {
        let (handle, docker, id) = (
            self.handle.clone(),
            self.docker.clone(),
            self.hosts[host].id.clone(),
        );
        if self.hosts[host].powered == on {
            return Ok(());
        }
        self.hosts[host].shell = None;
        if !on {
            if self.hosts[host].paused {
                handle.block_on(docker.pause(&id, false))?;
                self.hosts[host].paused = false;
            }
            handle.block_on(docker.kill(&id))?;
            self.hosts[host].powered = false;
            return Ok(());
        }
        self.tell(format!("{} has power again", self.hosts[host].name));
        handle.block_on(docker.start(&id))?;
        self.hosts[host].powered = true;
        self.hosts[host].rules.clear();
        self.bar_host(host)?;
        self.start_all(host)
    }

    /// Starts what belongs on a host.
    pub(super) fn start_all(&mut self, host: usize) -> Result<()> {
        for member in self.etcd_on(host) {
            self.start_etcd(member)?;
        }
        if host < self.shape.members.len() {
            self.start_agent(host)?;
        }
        if self.router_hosts.contains(&host) {
            let command = "/usr/sbin/haproxy -db -f /surus/haproxy.cfg";
            let script = format!("pgrep -x haproxy >/dev/null || {}", daemon(command, "haproxy"));
            self.sh(host, &script)?;
        }
        Ok(())
    }

    /// A host stands still, or goes on.
    pub(super) fn pause(&mut self, host: usize, paused: bool) -> Result<()> {
        if self.hosts[host].paused == paused || !self.hosts[host].powered {
            return Ok(());
        }
        let (handle, docker, id) = (
            self.handle.clone(),
            self.docker.clone(),
            self.hosts[host].id.clone(),
        );
        if !paused {
            self.thawed(host);
        }
        handle.block_on(docker.pause(&id, paused))?;
        self.hosts[host].paused = paused;
        // What changed in the network meanwhile.
        self.bar_host(host)
    }

    /// From now on the guard of this member goes on again: what its server does in the instant after is what no lease covers.
    pub(super) fn thawed(&self, host: usize) {
        let mut seen = surus_ci::lock(&self.seen);
        let now = seen.clock.now();
        seen.thawed.push((host, now.plus(Nanos::ms(100))));
    }
}

/// A script that starts a program for good as the user `postgres`; what it prints goes to a file that this machine sees.
fn daemon(command: &str, log: &str) -> String {
    format!(
        "(cd /data && setsid setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/data {command} \
         >>/surus/{log}.log 2>&1 </dev/null &)"
    )
}
