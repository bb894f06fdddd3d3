//! The servers of one script: their processes and files, and how they are asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::{Answer, Side as _};

/// A question that is answered at all is answered within this.
pub(super) const LIMIT: &str = "5";

pub(super) struct Node {
    pub(super) name: String,
    pub(super) data: PathBuf,
    pub(super) port: usize,
    pub(super) conf: Vec<(String, String)>,
    pub(super) sent: Vec<Child>,
}

pub(super) struct Real {
    pub(super) bin: PathBuf,
    pub(super) root: PathBuf,
    pub(super) address: String,
    pub(super) nodes: Vec<Node>,
}

impl Real {
    pub(super) fn new(script: &str, number: usize) -> Self {
        let bin = Path::new("/usr/lib/postgresql/15/bin").to_owned();
        assert!(
            bin.join("initdb").exists(),
            "PostgreSQL 15 is not installed in {}",
            bin.display()
        );
        let root = PathBuf::from(format!("/tmp/surus-pg-{}-{script}", std::process::id()));
        let made = as_postgres("mkdir").arg("-p").arg(&root).status().unwrap();
        assert!(made.success());
        let real = Self {
            bin,
            root,
            address: format!("127.0.7.{number}"),
            nodes: Vec::new(),
        };
        real.template();
        real
    }

    /// One initdb serves all scripts of one run of the tests, and of later ones.
    pub(super) fn template(&self) -> PathBuf {
        let template = PathBuf::from("/tmp/surus-pg-template-15");
        let lock = fs::File::options()
            .create(true)
            .append(true)
            .open("/tmp/surus-pg-template.lock")
            .unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        if !template.exists() {
            let raw = self.root.join("template");
            let made = as_postgres(self.bin.join("initdb"))
                .args(["-A", "trust", "-N", "-U", "postgres", "--locale=C", "-D"])
                .arg(&raw)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(made.success(), "initdb failed");
            assert!(
                as_postgres("mv")
                    .arg(&raw)
                    .arg(&template)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        template
    }

    pub(super) fn logs(&self) -> String {
        let read = |node: &Node| {
            let text = fs::read_to_string(self.root.join(format!("{}.log", node.name))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!(
                "--- {}\n{}\n",
                node.name,
                lines[lines.len().saturating_sub(25)..].join("\n")
            )
        };
        self.nodes.iter().map(read).collect()
    }

    pub(super) fn index(&mut self, name: &str) -> usize {
        if let Some(index) = self.nodes.iter().position(|node| node.name == name) {
            return index;
        }
        let port = 5470 + self.nodes.len();
        let mut node = Node {
            name: name.to_owned(),
            data: self.root.join(name),
            port,
            conf: Vec::new(),
            sent: Vec::new(),
        };
        let root = self.root.display();
        for (key, value) in [
            ("listen_addresses", self.address.as_str()),
            ("port", &port.to_string()),
            ("unix_socket_directories", &root.to_string()),
            ("hba_file", &format!("{root}/hba.conf")),
            ("fsync", "off"),
            ("autovacuum", "off"),
            ("wal_level", "logical"),
            ("wal_log_hints", "on"),
            ("wal_recycle", "off"),
            ("wal_init_zero", "off"),
            ("checkpoint_timeout", "1h"),
            ("checkpoint_completion_target", "0.0"),
            ("min_wal_size", "32MB"),
            ("shared_buffers", "16MB"),
            ("wal_retrieve_retry_interval", "1s"),
            ("max_connections", "20"),
            ("logging_collector", "off"),
        ] {
            node.conf.push((key.to_owned(), value.to_owned()));
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(super) fn conf(&mut self, server: &str, name: &str, value: &str) {
        let index = self.index(server);
        let node = &mut self.nodes[index];
        node.conf.retain(|(known, _)| known != name);
        node.conf.push((name.to_owned(), value.to_owned()));
        let hba = "local all all trust\nhost all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\nlocal replication all trust\n";
        let text: String = node
            .conf
            .iter()
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        fs::write(self.root.join("hba.conf"), hba).unwrap();
        let file = self.root.join(format!("{server}.conf"));
        fs::write(&file, text).unwrap();
    }

    pub(super) fn node(&mut self, server: &str) -> &mut Node {
        let index = self.index(server);
        &mut self.nodes[index]
    }

    pub(super) fn pid(&mut self, server: &str) -> Option<Pid> {
        for child in &mut self.node(server).sent {
            // Without this a dead postmaster would still have its process id.
            let _ = child.try_wait();
        }
        let file = self.node(server).data.join("postmaster.pid");
        let text = fs::read_to_string(file).ok()?;
        let pid = text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw)?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        (!stat.contains(") Z ")).then_some(pid)
    }

    pub(super) fn processes(&mut self, server: &str) -> Vec<Pid> {
        let Some(parent) = self.pid(server) else {
            return Vec::new();
        };
        let mut found = vec![parent];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let own = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
            if own == Some(&parent.as_raw_nonzero().to_string()) {
                found.extend(Pid::from_raw(pid));
            }
        }
        found
    }

    pub(super) fn signal_all(&mut self, server: &str, signal: Signal) {
        for pid in self.processes(server) {
            // One may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    pub(super) fn psql(&mut self, server: &str, options: &str) -> Command {
        let port = self.node(server).port;
        let mut command = as_postgres("timeout");
        command
            .arg(LIMIT)
            .arg(self.bin.join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1"])
            .arg(format!(
                "host={} port={port} user=postgres dbname=postgres connect_timeout=4 {options}",
                self.root.display()
            ))
            .arg("-c");
        command
    }

    pub(super) fn ask(&mut self, server: &str, sql: &str) -> Answer {
        self.ask_with(server, "", sql)
    }

    pub(super) fn ask_with(&mut self, server: &str, options: &str, sql: &str) -> Answer {
        let output = self.psql(server, options).arg(sql).output().unwrap();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(class(&text, output.status.code()))
    }

    pub(super) fn history(&mut self, server: &str, timeline: u32) -> Vec<(u32, u64)> {
        let file = self
            .node(server)
            .data
            .join(format!("pg_wal/{timeline:08X}.history"));
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.parse().ok()?, lsn(words.next()?)?))
            })
            .collect()
    }

    /// The timelines that the server's log went through with their ends, the last one's being the end of the log.
    pub(super) fn path(&mut self, server: &str) -> Option<Vec<(u32, u64)>> {
        let recovering = self.ask(server, "SELECT pg_is_in_recovery()");
        let (timeline, end) = match recovering.as_deref() {
            Ok("f") => {
                let row = self.ask(
                    server,
                    "SELECT pg_current_wal_insert_lsn(), pg_walfile_name(pg_current_wal_insert_lsn())",
                );
                let row = row.ok()?;
                let (end, file) = row.split_once('|')?;
                (u32::from_str_radix(file.get(..8)?, 16).ok()?, lsn(end)?)
            }
            Ok(_) => {
                let end = self
                    .ask(
                        server,
                        "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())",
                    )
                    .ok()?;
                (self.timeline(server).ok()?, lsn(&end)?)
            }
            Err(_) => self.end_on_disk(server)?,
        };
        let mut path = self.history(server, timeline);
        path.push((timeline, end));
        Some(path)
    }

    pub(super) fn controldata(&mut self, server: &str) -> Result<String, String> {
        let data = self.node(server).data.clone();
        let output = as_postgres(self.bin.join("pg_controldata"))
            .arg(data)
            .output()
            .unwrap();
        if !output.status.success() {
            return Err("no cluster".to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The end of valid WAL of a stopped server.
    pub(super) fn end_on_disk(&mut self, server: &str) -> Option<(u32, u64)> {
        let text = self.controldata(server).ok()?;
        let number = |name: &str| field(&text, name)?.parse::<u32>().ok();
        let recovered = number("Min recovery ending loc's timeline")?;
        let timeline = number("Latest checkpoint's TimeLineID")?.max(recovered);
        let start = field(&text, "Latest checkpoint's REDO location")?;
        let output = as_postgres(self.bin.join("pg_waldump"))
            .arg("-p")
            .arg(self.node(server).data.join("pg_wal"))
            .args(["-t", &timeline.to_string(), "-s", &start])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let at = errors
            .rsplit(" at ")
            .next()?
            .split([':', ','])
            .next()?
            .trim()
            .to_owned();
        Some((timeline, lsn(&at)?))
    }

    pub(super) fn reload(&mut self, server: &str) {
        if let Some(pid) = self.pid(server) {
            kill_process(pid, Signal::HUP).unwrap();
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    pub(super) fn wait_for(&mut self, limit: Duration, mut met: impl FnMut(&mut Self) -> bool) -> bool {
        const TICK: Duration = Duration::from_millis(50);
        for _ in 0..limit.as_millis() / TICK.as_millis() {
            if met(self) {
                return true;
            }
            std::thread::sleep(TICK);
        }
        false
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for name in names {
            self.signal_all(&name, Signal::KILL);
        }
        for node in &mut self.nodes {
            for child in &mut node.sent {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A command as a user that PostgreSQL accepts.
pub(super) fn as_postgres(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/tmp").env("HOME", "/tmp").env("LC_ALL", "C");
    command
}

/// The class of an error of psql or one of the tools.
pub(super) fn class(text: &str, code: Option<i32>) -> String {
    let classes = [
        ("starting up", "starting up"),
        ("not yet accepting connections", "starting up"),
        ("not accepting connections", "starting up"),
        ("shutting down", "shutting down"),
        ("Connection refused", "no connection"),
        ("No such file or directory", "no connection"),
        ("read-only transaction", "read-only"),
        ("not in progress", "not in recovery"),
        ("during recovery", "read-only"),
        ("cannot be executed", "not in recovery"),
        ("already exists", "replication slot already exists"),
        ("is active", "replication slot is active"),
        (
            "cannot advance replication slot",
            "cannot advance replication slot backwards",
        ),
        ("cannot be advanced", "replication slot cannot be advanced"),
        ("can no longer get changes", "replication slot cannot be advanced"),
        ("timeout expired", "no answer"),
    ];
    if code == Some(124) {
        return "no answer".to_owned();
    }
    if text.contains("replication slot") && text.contains("does not exist") {
        return "replication slot does not exist".to_owned();
    }
    let known = classes.iter().find(|(part, _)| text.contains(part));
    known.map_or_else(|| text.trim().to_owned(), |(_, class)| (*class).to_owned())
}

pub(super) fn lsn(text: &str) -> Option<u64> {
    surus_core::types::Lsn::parse(text).map(|lsn| lsn.0)
}

pub(super) fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim().to_owned())
}
