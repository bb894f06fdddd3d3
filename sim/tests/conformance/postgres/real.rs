//! PostgreSQL's side: servers of 15 or later in a temporary directory, each script on an address of its own.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::{Answer, Commands, SCRIPTS, Side};

/// A question that is answered at all is answered within this.
const LIMIT: &str = "5";

pub(super) fn run(script: &str) {
    if !crate::real() {
        eprintln!("SKIPPED: set SURUS_CONFORMANCE=real to run {script} on PostgreSQL");
        return;
    }
    let number = SCRIPTS.iter().position(|known| *known == script).unwrap() + 1;
    let mut commands = Commands(Real::new(script, number));
    let path = crate::directory("postgres").join(format!("{script}.script"));
    let input = fs::read_to_string(&path).unwrap();
    let output = goldenscript::generate(&mut commands, &input).unwrap();
    if std::env::var("UPDATE_GOLDENFILES").is_ok_and(|value| value == "1") {
        fs::write(&path, output).unwrap();
        return;
    }
    if output != input {
        let log: String = commands.0.logs();
        panic!(
            "PostgreSQL does not do what {script}.script says. It gave:\n\n{output}\n\nThe servers' logs:\n{log}"
        );
    }
}

struct Node {
    name: String,
    data: PathBuf,
    port: usize,
    conf: Vec<(String, String)>,
    sent: Vec<Child>,
}

struct Real {
    bin: PathBuf,
    root: PathBuf,
    address: String,
    nodes: Vec<Node>,
}

impl Real {
    fn new(script: &str, number: usize) -> Self {
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
    fn template(&self) -> PathBuf {
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

    fn logs(&self) -> String {
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

    fn index(&mut self, name: &str) -> usize {
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

    fn conf(&mut self, server: &str, name: &str, value: &str) {
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

    fn node(&mut self, server: &str) -> &mut Node {
        let index = self.index(server);
        &mut self.nodes[index]
    }

    fn pid(&mut self, server: &str) -> Option<Pid> {
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

    fn processes(&mut self, server: &str) -> Vec<Pid> {
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

    fn signal_all(&mut self, server: &str, signal: Signal) {
        for pid in self.processes(server) {
            // One may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    fn psql(&mut self, server: &str, options: &str) -> Command {
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

    fn ask(&mut self, server: &str, sql: &str) -> Answer {
        self.ask_with(server, "", sql)
    }

    fn ask_with(&mut self, server: &str, options: &str, sql: &str) -> Answer {
        let output = self.psql(server, options).arg(sql).output().unwrap();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(class(&text, output.status.code()))
    }

    fn history(&mut self, server: &str, timeline: u32) -> Vec<(u32, u64)> {
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
    fn path(&mut self, server: &str) -> Option<Vec<(u32, u64)>> {
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

    fn controldata(&mut self, server: &str) -> Result<String, String> {
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
    fn end_on_disk(&mut self, server: &str) -> Option<(u32, u64)> {
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

    fn reload(&mut self, server: &str) {
        if let Some(pid) = self.pid(server) {
            kill_process(pid, Signal::HUP).unwrap();
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    fn wait_for(&mut self, limit: Duration, mut met: impl FnMut(&mut Self) -> bool) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if met(self) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
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

impl Side for Real {
    fn new_primary(&mut self, server: &str) -> Answer {
        let template = self.template();
        let data = self.node(server).data.clone();
        let copied = as_postgres("cp")
            .arg("-a")
            .arg(template)
            .arg(&data)
            .status()
            .unwrap();
        assert!(copied.success());
        self.start(server)?;
        self.ask(server, "CREATE TABLE t (v text)")?;
        Ok(String::new())
    }

    fn standby(&mut self, server: &str, of: &str, slot: Option<&str>) -> Answer {
        self.backup(server, of)?;
        self.follow(server, Some(of), slot)?;
        self.signal(server, true)?;
        self.start(server)?;
        let streams = self.wait_for(Duration::from_secs(10), |side| {
            side.receiver(server).is_ok_and(|status| status == "streaming")
        });
        if streams {
            Ok(String::new())
        } else {
            Err("it does not stream".to_owned())
        }
    }

    fn backup(&mut self, server: &str, of: &str) -> Answer {
        let port = self.node(of).port.to_string();
        let data = self.node(server).data.clone();
        let root = self.root.clone();
        let output = as_postgres(self.bin.join("pg_basebackup"))
            .args([
                "-c", "fast", "-X", "stream", "-N", "-U", "postgres", "-p", &port, "-h",
            ])
            .arg(root)
            .arg("-D")
            .arg(data)
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(String::new());
        }
        Err(class(&String::from_utf8_lossy(&output.stderr), None))
    }

    fn follow(&mut self, server: &str, of: Option<&str>, slot: Option<&str>) -> Answer {
        let address = self.address.clone();
        let conninfo = of.map_or_else(String::new, |of| {
            let port = self.node(of).port;
            format!("host={address} port={port} user=postgres application_name='{server}'")
        });
        self.conf(server, "primary_conninfo", &conninfo);
        self.conf(server, "primary_slot_name", slot.unwrap_or_default());
        self.reload(server);
        Ok(String::new())
    }

    fn signal(&mut self, server: &str, on: bool) -> Answer {
        let file = self.node(server).data.join("standby.signal");
        let program = if on { "touch" } else { "rm" };
        let mut command = as_postgres(program);
        if !on {
            command.arg("-f");
        }
        assert!(command.arg(file).status().unwrap().success());
        Ok(String::new())
    }

    fn start(&mut self, server: &str) -> Answer {
        self.conf(server, "cluster_name", server);
        let data = self.node(server).data.clone();
        if self.pid(server).is_some() {
            return Err("a server runs".to_owned());
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.root.join(format!("{server}.log")))
            .unwrap();
        let mut command = as_postgres(self.bin.join("postgres"));
        command
            .arg("-D")
            .arg(data)
            .arg("-c")
            .arg(format!("config_file={}/{server}.conf", self.root.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0);
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        loop {
            let role = self.role(server);
            if let Some(_status) = child.try_wait().unwrap() {
                return Err("it ended".to_owned());
            }
            let patient = begun.elapsed() < Duration::from_secs(if role == "starting" { 4 } else { 10 });
            if role == "primary" || role == "standby" || !patient {
                self.node(server).sent.push(child);
                return Ok(role);
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    fn stop(&mut self, server: &str, immediate: bool, wait: bool) -> Answer {
        let Some(pid) = self.pid(server) else {
            return Err("no connection".to_owned());
        };
        let signal = if immediate { Signal::QUIT } else { Signal::INT };
        kill_process(pid, signal).unwrap();
        if !wait {
            std::thread::sleep(Duration::from_millis(500));
            return Ok(String::new());
        }
        if self.wait_for(Duration::from_secs(10), |side| side.pid(server).is_none()) {
            Ok(String::new())
        } else {
            Err("it does not end".to_owned())
        }
    }

    fn kill(&mut self, server: &str) -> Answer {
        // All at once, so that none can do anything about the others' end.
        self.signal_all(server, Signal::STOP);
        self.signal_all(server, Signal::KILL);
        self.wait_for(Duration::from_secs(5), |side| side.pid(server).is_none());
        Ok(String::new())
    }

    fn freeze(&mut self, server: &str, on: bool) -> Answer {
        self.signal_all(server, if on { Signal::STOP } else { Signal::CONT });
        Ok(String::new())
    }

    fn role(&mut self, server: &str) -> String {
        if self.pid(server).is_none() {
            return "down".to_owned();
        }
        let answer = self.ask(server, "SELECT pg_is_in_recovery()");
        match answer.as_deref().map_err(String::as_str) {
            Ok("t") => "standby",
            Ok(_) => "primary",
            Err("starting up") => "starting",
            Err("shutting down") => "stopping",
            Err("no answer") => "silent",
            Err(_) => "down",
        }
        .to_owned()
    }

    fn alive(&mut self, server: &str) -> bool {
        self.pid(server).is_some()
    }

    fn commit(&mut self, server: &str, value: &str, level: &str, wait: bool) -> Answer {
        let sql = format!("INSERT INTO t VALUES ('{value}')");
        let options = format!("options='-c synchronous_commit={level}'");
        if wait {
            return match self.ask_with(server, &options, &sql) {
                Ok(_) => Ok("committed".to_owned()),
                Err(text) if text == "no answer" => Ok("waits".to_owned()),
                Err(text) => Err(text),
            };
        }
        let mut command = self.psql(server, &options);
        // This one may wait for as long as the script lasts.
        let mut long = as_postgres("timeout");
        long.arg("120")
            .args(command.get_args().skip_while(|arg| *arg != LIMIT).skip(1));
        command = long;
        let child = command
            .arg(sql)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(400));
        let index = self.index(server);
        self.nodes[index].sent.push(child);
        Ok(String::new())
    }

    fn sees(&mut self, server: &str) -> Result<Vec<String>, String> {
        let rows = self.ask(server, "SELECT v FROM t ORDER BY v COLLATE \"C\"")?;
        Ok(rows.lines().map(str::to_owned).collect())
    }

    fn waiting(&mut self, server: &str) -> usize {
        let count = self.ask(
            server,
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
        );
        count.ok().and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    fn cancel(&mut self, server: &str, terminate: bool) -> Answer {
        let how = if terminate {
            "pg_terminate_backend"
        } else {
            "pg_cancel_backend"
        };
        let sql = format!("SELECT {how}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
        self.ask(server, &sql)?;
        std::thread::sleep(Duration::from_millis(300));
        let mut told = Vec::new();
        let index = self.index(server);
        for child in &mut self.nodes[index].sent {
            if child.stdout.is_some() && child.try_wait().unwrap().is_some() {
                let status = child.wait().unwrap();
                child.stdout = None;
                told.push(if status.success() {
                    "committed"
                } else {
                    "connection lost"
                });
            }
        }
        Ok(told.join(" "))
    }

    fn bulk(&mut self, server: &str, mib: u64) -> Answer {
        let sql = format!(
            "SELECT count(pg_logical_emit_message(false, 'bulk', repeat('x', 1048576))) FROM generate_series(1, {mib})"
        );
        self.ask(server, &sql).map(|_| String::new())
    }

    fn switch(&mut self, server: &str) -> Answer {
        self.ask(server, "SELECT pg_switch_wal()").map(|_| String::new())
    }

    fn checkpoint(&mut self, server: &str) -> Answer {
        self.ask(server, "CHECKPOINT").map(|_| String::new())
    }

    fn promote(&mut self, server: &str, wait: bool) -> Answer {
        let sql = format!("SELECT pg_promote({wait}, 4)");
        self.ask(server, &sql)?;
        Ok(String::new())
    }

    fn pause(&mut self, server: &str, on: bool) -> Answer {
        let how = if on { "pause" } else { "resume" };
        self.ask(server, &format!("SELECT pg_wal_replay_{how}()"))?;
        if on {
            // It takes effect when the startup process comes by.
            self.wait_for(Duration::from_secs(3), |side| {
                side.ask(server, "SELECT pg_get_wal_replay_pause_state()")
                    .as_deref()
                    == Ok("paused")
            });
        }
        Ok(String::new())
    }

    fn set(&mut self, server: &str, name: &str, value: &str) -> Answer {
        self.conf(server, name, value);
        self.reload(server);
        Ok(String::new())
    }

    fn control(&mut self, server: &str) -> Result<(String, u32, bool), String> {
        let text = self.controldata(server)?;
        let get = |name: &str| field(&text, name).ok_or_else(|| format!("no {name}"));
        let state = get("Database cluster state")?;
        let timeline = get("Latest checkpoint's TimeLineID")?.parse().unwrap();
        Ok((state, timeline, get("Minimum recovery ending location")? != "0/0"))
    }

    fn timeline(&mut self, server: &str) -> Result<u32, String> {
        let row = self.ask_with(server, "replication=true", "IDENTIFY_SYSTEM")?;
        let timeline = row.split('|').nth(1).and_then(|timeline| timeline.parse().ok());
        timeline.ok_or_else(|| "no timeline".to_owned())
    }

    fn histories(&mut self, server: &str) -> Vec<(u32, Vec<u32>)> {
        let wal = self.node(server).data.join("pg_wal");
        let mut timelines: Vec<u32> = fs::read_dir(wal)
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                u32::from_str_radix(name.strip_suffix(".history")?, 16).ok()
            })
            .collect();
        timelines.sort_unstable();
        let parents = |timeline: u32, side: &mut Self| -> Vec<u32> {
            side.history(server, timeline)
                .into_iter()
                .rev()
                .map(|(parent, _)| parent)
                .collect()
        };
        let files = timelines
            .into_iter()
            .map(|timeline| (timeline, parents(timeline, self)));
        files.filter(|(_, parents)| !parents.is_empty()).collect()
    }

    fn reserve(&mut self, server: &str, upto: u32) -> Answer {
        let own = self.control(server)?.1;
        for timeline in own + 1..=upto {
            let file = self
                .node(server)
                .data
                .join(format!("pg_wal/{timeline:08X}.history"));
            if !file.exists() {
                assert!(as_postgres("touch").arg(file).status().unwrap().success());
            }
        }
        Ok(String::new())
    }

    fn compare(&mut self, a: &str, b: &str) -> String {
        let (Some(own), Some(other)) = (self.path(a), self.path(b)) else {
            return "nothing to compare".to_owned();
        };
        let mut common = 0;
        for (ours, theirs) in own.iter().zip(&other) {
            if ours.0 != theirs.0 {
                break;
            }
            common = ours.1.min(theirs.1);
            if ours.1 != theirs.1 {
                break;
            }
        }
        let end = |path: &[(u32, u64)]| path.last().map_or(0, |last| last.1);
        match (end(&own) <= common, end(&other) <= common) {
            (true, true) => "equal",
            (false, true) => "ahead",
            (true, false) => "behind",
            (false, false) => "diverged",
        }
        .to_owned()
    }

    fn received(&mut self, server: &str) -> Result<String, String> {
        let row = self.ask(
            server,
            "SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()",
        )?;
        let (received, replayed) = row.split_once('|').unwrap_or_default();
        Ok(super::received(lsn(received), lsn(replayed).unwrap_or(0)))
    }

    fn receiver(&mut self, server: &str) -> Result<String, String> {
        let status = self.ask(server, "SELECT status FROM pg_stat_wal_receiver")?;
        Ok(if status.is_empty() {
            "none".to_owned()
        } else {
            status
        })
    }

    fn sync(&mut self, server: &str) -> Result<Vec<(String, String)>, String> {
        let rows = self.ask(
            server,
            "SELECT application_name, sync_state FROM pg_stat_replication WHERE state IN ('streaming', 'catchup') ORDER BY 1",
        )?;
        Ok(rows
            .lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(name, state)| (name.to_owned(), state.to_owned()))
            .collect())
    }

    fn slot(&mut self, server: &str, act: &str, name: &str, logical: bool) -> Answer {
        let sql = match (act, logical) {
            ("create", false) => format!("SELECT pg_create_physical_replication_slot('{name}', true)"),
            ("create", true) => format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"),
            ("drop", _) => format!("SELECT pg_drop_replication_slot('{name}')"),
            ("advance", _) => format!(
                "SELECT pg_replication_slot_advance('{name}', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)"
            ),
            _ => format!("SELECT pg_replication_slot_advance('{name}', '0/8')"),
        };
        self.ask(server, &sql).map(|_| String::new())
    }

    fn slots(&mut self, server: &str) -> Result<Vec<(String, bool, String)>, String> {
        let rows = self.ask(
            server,
            "SELECT slot_name, active, CASE WHEN wal_status = 'lost' THEN 'lost' ELSE 'kept' END FROM pg_replication_slots ORDER BY 1",
        )?;
        Ok(rows
            .lines()
            .filter_map(|line| {
                let mut fields = line.split('|');
                Some((
                    fields.next()?.to_owned(),
                    fields.next()? == "t",
                    fields.next()?.to_owned(),
                ))
            })
            .collect())
    }

    fn rewind(&mut self, server: &str, from: &str) -> Answer {
        let port = self.node(from).port;
        let data = self.node(server).data.clone();
        let output = as_postgres(self.bin.join("pg_rewind"))
            .arg("-D")
            .arg(data)
            .arg(format!("--config-file={}/{server}.conf", self.root.display()))
            .arg(format!(
                "--source-server=host={} port={port} user=postgres dbname=postgres",
                self.root.display()
            ))
            .arg("--no-sync")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            let idle = text.contains("no rewind required");
            return Ok(if idle { "no rewind required" } else { "done" }.to_owned());
        }
        Err(if text.contains("previous WAL record") {
            "WAL is gone"
        } else if text.contains("common ancestor") {
            "no common ancestor"
        } else if text.contains("wal_log_hints") {
            "no hints in the log"
        } else if text.contains("single-user") || text.contains("shut down cleanly") {
            "the target was not shut down cleanly"
        } else if text.contains("connection to server") {
            "no connection"
        } else {
            &text
        }
        .to_owned())
    }

    fn single(&mut self, server: &str) -> Answer {
        let data = self.node(server).data.clone();
        let output = as_postgres(self.bin.join("postgres"))
            .arg("--single")
            .arg("-D")
            .arg(data)
            .arg("-c")
            .arg(format!("config_file={}/{server}.conf", self.root.display()))
            .arg("template1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::new())
        } else {
            Err("refused".to_owned())
        }
    }

    fn sleep(&mut self, seconds: u64) {
        std::thread::sleep(Duration::from_secs(seconds));
    }

    fn moment(&mut self) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A command as a user that PostgreSQL accepts.
fn as_postgres(program: impl AsRef<std::ffi::OsStr>) -> Command {
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
fn class(text: &str, code: Option<i32>) -> String {
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

fn lsn(text: &str) -> Option<u64> {
    surus_core::types::Lsn::parse(text).map(|lsn| lsn.0)
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim().to_owned())
}
