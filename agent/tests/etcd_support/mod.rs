//! Real etcd clusters on loopback, and the faults to do to them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

pub mod script;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use surus::clock::{Clock, SystemClock};
use surus::config::settings::{self, HostPort};
use surus::dcs::Etcd;
use surus_core::action::StatusRecord;
use surus_core::types::Lsn;

pub const TTL: Duration = Duration::from_secs(2);
pub const LIMIT: Duration = Duration::from_secs(2);

/// The two binaries, or a loud word.
pub fn etcd_is_here() -> bool {
    let here = Path::new("/usr/bin/etcd").exists() && Path::new("/usr/bin/etcdctl").exists();
    if !here {
        eprintln!(
            "SKIPPED: /usr/bin/etcd or /usr/bin/etcdctl is missing (apt install etcd-server etcd-client)"
        );
    }
    here
}

/// A port that nobody listens on, below those that the kernel gives to outgoing connections: etcd must find it free after a restart.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id().wrapping_mul(97) + NEXT.fetch_add(1, Ordering::SeqCst);
        let port = 15_000 + u16::try_from(next % 17_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub struct Member {
    pub port: u16,
    peer: u16,
    pub args: Vec<String>,
    log: std::path::PathBuf,
    child: Option<Child>,
}

impl Member {
    pub fn start(&mut self) {
        // A test that aborts leaves no etcd behind.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "/usr/bin/etcd"])
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(&self.log)
                    .unwrap(),
            )
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(child) = &self.child {
            let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }

    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Cluster {
    pub members: Vec<Member>,
    pub scheme: &'static str,
    pub ctl: Vec<String>,
    pub dir: tempfile::TempDir,
}

impl Cluster {
    pub fn start(count: usize, extra: &[&str]) -> Self {
        Self::start_with("http", count, |_| {
            extra.iter().map(|arg| (*arg).to_owned()).collect()
        })
    }

    /// `count` members; `extra` gives more arguments, from the directory of the cluster.
    pub fn start_with(scheme: &'static str, count: usize, extra: impl Fn(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let initial: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(index, (_, peer))| format!("m{index}=http://127.0.0.1:{peer}"))
            .collect();
        let extra = extra(dir.path());
        let members = ports.iter().enumerate().map(|(index, (port, peer))| {
            let data = dir.path().join(format!("m{index}"));
            let mut args = vec![
                format!("--name=m{index}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={scheme}://127.0.0.1:{port}"),
                format!("--advertise-client-urls={scheme}://127.0.0.1:{port}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={}", initial.join(",")),
                "--heartbeat-interval=50".to_owned(),
                "--election-timeout=500".to_owned(),
            ];
            args.extend(extra.clone());
            let mut member = Member {
                port: *port,
                peer: *peer,
                args,
                log: dir.path().join(format!("m{index}.log")),
                child: None,
            };
            member.start();
            member
        });
        let cluster = Self {
            members: members.collect(),
            scheme,
            ctl: Vec::new(),
            dir,
        };
        if scheme == "http" {
            cluster.wait_healthy();
        }
        cluster
    }

    pub fn endpoints(&self) -> String {
        let all: Vec<String> = self
            .members
            .iter()
            .filter(|member| member.child.is_some())
            .map(|member| format!("{}://{}", self.scheme, member.endpoint()))
            .collect();
        all.join(",")
    }

    pub fn wait_healthy(&self) {
        for _ in 0..200 {
            let all = self
                .members
                .iter()
                .filter(|member| member.child.is_some())
                .all(|member| {
                    let endpoint = format!("{}://{}", self.scheme, member.endpoint());
                    self.ctl_at(&endpoint, &["get", "health", "--command-timeout=300ms"])
                        .is_ok()
                });
            if all {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let logs = self
            .members
            .iter()
            .map(|member| std::fs::read_to_string(&member.log).unwrap());
        let tails: Vec<String> = logs
            .map(|log| log[log.len().saturating_sub(3000)..].to_owned())
            .collect();
        panic!("etcd does not come up: {}", tails.join("\n---\n"));
    }

    pub fn ctl_at(&self, endpoint: &str, args: &[&str]) -> Result<String, String> {
        let output = Command::new("/usr/bin/etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={endpoint}"))
            .args(&self.ctl)
            .args(args)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub fn ctl(&self, args: &[&str]) -> String {
        self.ctl_at(&self.endpoints(), args).unwrap()
    }

    /// Index of etcd's own leader.
    pub fn leader(&self) -> usize {
        let text = self.ctl(&["endpoint", "status", "--write-out=simple"]);
        let line = text
            .lines()
            .find(|line| line.split(", ").nth(4) == Some("true"))
            .unwrap();
        let endpoint = line.split(", ").next().unwrap().to_owned();
        self.members
            .iter()
            .position(|member| endpoint.ends_with(&member.endpoint()))
            .unwrap()
    }

    pub fn hosts(&self) -> Vec<HostPort> {
        self.members.iter().map(|member| at(member.port)).collect()
    }

    pub fn node(&self, name: &str) -> Arc<Etcd> {
        node(name, self.hosts())
    }
}

pub fn at(port: u16) -> HostPort {
    HostPort {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

pub fn settings(hosts: Vec<HostPort>) -> settings::Etcd {
    settings::Etcd {
        hosts,
        tls: false,
        username: None,
        password: None,
        cacert: None,
        cert: None,
        key: None,
    }
}

pub fn node(name: &str, hosts: Vec<HostPort>) -> Arc<Etcd> {
    node_with(name, &settings(hosts))
}

pub fn node_with(name: &str, settings: &settings::Etcd) -> Arc<Etcd> {
    let etcd = Etcd::new(
        settings,
        "/service/batman/",
        name,
        surus::machine::Machine::real(),
    )
    .unwrap();
    Arc::new(etcd)
}

pub fn status(optime: u64) -> StatusRecord {
    StatusRecord {
        optime: Lsn(optime),
        ttl: TTL,
        ..StatusRecord::default()
    }
}

/// A stopwatch.
pub struct Since(surus_core::types::MonoTime);

pub fn start() -> Since {
    Since(SystemClock.now())
}

impl Since {
    pub fn elapsed(&self) -> Duration {
        SystemClock.now().since(self.0)
    }
}

/// Median and the worst of some times, as text.
pub fn spread(times: &mut [Duration]) -> String {
    times.sort();
    format!(
        "median {:.1} ms, p99 {:.1} ms, worst {:.1} ms of {}",
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() * 99 / 100].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
        times.len()
    )
}

/// A network that can be shut.
#[derive(Clone, Default)]
pub struct Gate {
    pub shut: Arc<std::sync::atomic::AtomicBool>,
}

impl surus::net::Dial for Gate {
    fn dial<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> surus::task::BoxFuture<'a, std::io::Result<surus::net::Stream>> {
        if self.shut.load(std::sync::atomic::Ordering::SeqCst) {
            return Box::pin(async { Err(std::io::Error::other("the gate is shut")) });
        }
        surus::net::Tcp.dial(host, port)
    }
}

impl Gate {
    /// This machine behind the gate.
    pub fn machine(&self) -> surus::machine::Machine {
        surus::machine::Machine {
            dial: Arc::new(self.clone()),
            ..surus::machine::Machine::real()
        }
    }
}
