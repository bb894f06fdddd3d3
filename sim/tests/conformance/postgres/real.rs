//! PostgreSQL's side: servers of version 15 in a temporary directory, each script on an address of its own.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::machine::{LIMIT, Real, as_postgres, class, field, lsn};
use super::{Answer, Commands, SCRIPTS, Side};

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
        let mut looked = 0;
        loop {
            looked += 1;
            let role = self.role(server);
            if let Some(_status) = child.try_wait().unwrap() {
                return Err("it ended".to_owned());
            }
            let patient = looked < if role == "starting" { 60 } else { 150 };
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
