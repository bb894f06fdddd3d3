//! Processes of the machine: starting them, finding those that belong to a directory, ending them by id, and weighing them.
//!
//! Everything a cluster consists of is found through `/proc` by its directory (command line, working directory, environment), never by
//! name, so a run touches nothing that it did not start. What the harness starts carries a marker in its environment; PostgreSQL's
//! processes overwrite theirs, but all of them work in the data directory. In a container root may not look at another user's
//! environment: there a server is known by naming the directory in its command line, and what it started by being its child.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::error::{Error, Result};
use crate::tool;

/// The environment variable that marks everything a run starts; its value is the directory of the node or service.
pub(crate) const MARKER: &str = "SURUS_CI_DIR";

/// The servers that a run starts, all with their directory in the command line.
const SERVERS: &[&str] = &["surus", "postgres", "etcd", "haproxy"];

/// The account that runs the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Its login name.
    pub(crate) name: String,
    /// User and group to change to; `None` when this process is that user already.
    switch: Option<(u32, u32)>,
}

impl Account {
    /// `postgres` for root, because PostgreSQL refuses to run as root; the current user otherwise.
    pub(crate) fn choose() -> Result<Self> {
        let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io(|| "read /etc/passwd"))?;
        let uid = rustix::process::getuid().as_raw();
        let entry = |wanted: &dyn Fn(&str, u32) -> bool| {
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let uid = fields.nth(1)?.parse().ok()?;
                let gid = fields.next()?.parse().ok()?;
                wanted(name, uid).then(|| (name.to_owned(), uid, gid))
            })
        };
        if uid == 0 {
            let (name, uid, gid) = entry(&|name, _| name == "postgres").ok_or_else(|| {
                Error::Unable(
                    "there is no user `postgres`, and PostgreSQL does not run as root: run ./ci/setup".into(),
                )
            })?;
            return Ok(Self {
                name,
                switch: Some((uid, gid)),
            });
        }
        let name = entry(&|_, id| id == uid).map_or_else(|| uid.to_string(), |(name, ..)| name);
        Ok(Self { name, switch: None })
    }

    /// Gives a path to the account.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.switch {
            chown(path, Some(uid), Some(gid))
                .map_err(Error::io(|| format!("give {} to {}", path.display(), self.name)))?;
        }
        Ok(())
    }

    /// Creates a directory that the account owns.
    pub(crate) fn directory(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).map_err(Error::io(|| format!("create {}", path.display())))?;
        self.own(path)
    }

    /// The command line of `words` as the account in a network namespace, which takes root to enter. Each program becomes the next one, so
    /// that the process is the last one's.
    fn within(&self, space: &str, words: &[String]) -> Vec<String> {
        let mut all: Vec<String> = ["ip", "netns", "exec", space].map(str::to_owned).to_vec();
        if let Some((uid, gid)) = self.switch {
            all.extend(["setpriv", "--clear-groups"].map(str::to_owned));
            all.extend([format!("--reuid={uid}"), format!("--regid={gid}")]);
        }
        all.extend_from_slice(words);
        all
    }

    /// Makes `command` run as the account.
    pub(crate) fn dress(&self, command: &mut std::process::Command) {
        if let Some((uid, gid)) = self.switch {
            command.uid(uid).gid(gid);
        }
    }
}

/// Starts `words` as `account` in a process group of its own, so that Ctrl-C at the terminal reaches only the harness.
///
/// Both outputs are appended to `log`; `dir` becomes the working directory and the value of [`MARKER`]. `space` is the network namespace, if it
/// is not this one.
pub(crate) fn start(
    account: &Account,
    space: Option<&str>,
    words: &[String],
    dir: &Path,
    log: &Path,
) -> Result<Child> {
    let words = space.map_or_else(|| words.to_vec(), |space| account.within(space, words));
    let (program, arguments) = words.split_first().expect("a command has a program");
    let open = || {
        let file = fs::OpenOptions::new().create(true).append(true).open(log);
        file.map_err(Error::io(|| format!("open {}", log.display())))
    };
    let (out, err) = (open()?, open()?);
    account.own(log)?;
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .current_dir(dir)
        .env(MARKER, dir)
        .env_remove("NOTIFY_SOCKET");
    command
        .env("HOME", dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    if space.is_none() {
        account.dress(&mut command);
    }
    Command::from(command)
        .spawn()
        .map_err(Error::io(|| format!("start {}", words.join(" "))))
}

/// Runs a program to its end as `account` and returns what it printed.
pub(crate) async fn run(account: &Account, words: &[String], dir: &Path, limit: Duration) -> Result<String> {
    let (program, arguments) = words.split_first().expect("a command has a program");
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .current_dir(dir)
        .env("HOME", dir)
        .stdin(Stdio::null());
    account.dress(&mut command);
    let mut command = Command::from(command);
    let output = tokio::time::timeout(limit, command.kill_on_drop(true).output());
    let output = output
        .await
        .map_err(|_| Error::Late {
            what: format!("`{}`", words.join(" ")),
            limit,
            last: "still running".into(),
        })?
        .map_err(Error::io(|| format!("run {}", words.join(" "))))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() {
        return Ok(text);
    }
    Err(Error::Program {
        program: words.join(" "),
        status: output.status.to_string(),
        output: text.trim().to_owned(),
    })
}

/// A process as `/proc` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    parent: i32,
    /// Its arguments, separated by blanks.
    pub(crate) command: String,
    directory: Option<PathBuf>,
    program: Option<PathBuf>,
    marker: Option<PathBuf>,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let at = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(at.join("stat")).ok()?;
        // The name in parentheses may hold anything; the fields after its last parenthesis do not.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let parent = fields.next()?.parse().ok()?;
        let command = fs::read(at.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .trim()
            .to_owned();
        let wanted = format!("{MARKER}=");
        let environment = fs::read(at.join("environ")).unwrap_or_default();
        let marker = environment
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(wanted.as_bytes()))
            .map(|value| PathBuf::from(std::ffi::OsStr::from_bytes(value)));
        let link = |name| fs::read_link(at.join(name)).ok();
        Some(Self {
            pid,
            parent,
            command,
            directory: link("cwd"),
            program: link("exe"),
            marker,
        })
    }

    /// A shell or a pager that a person has open in the directory is not part of the cluster: being there is not enough.
    fn belongs_to(&self, dir: &Path) -> bool {
        let inside = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.starts_with(dir));
        let is = |name: &str, program: &Path| program.ends_with(name);
        let is_postgres = self
            .program
            .as_ref()
            .is_some_and(|program| is("postgres", program));
        let called = Path::new(self.command.split(' ').next().unwrap_or_default());
        let is_server = SERVERS.iter().any(|name| is(name, called));
        inside(&self.marker) || (is_postgres && inside(&self.directory)) || (is_server && self.mentions(dir))
    }

    /// True for the process that stands between the agent and PostgreSQL.
    pub(crate) fn is_guard(&self) -> bool {
        self.command.split(' ').nth(1) == Some("guard")
    }

    fn mentions(&self, dir: &Path) -> bool {
        self.command
            .match_indices(&*dir.to_string_lossy())
            .any(|(at, found)| {
                // `/x/node1` must not claim the processes of `/x/node10`.
                self.command[at + found.len()..]
                    .chars()
                    .next()
                    .is_none_or(|next| matches!(next, '/' | ' ' | ',' | ':'))
            })
    }
}

/// Every live process that belongs to `dir`, its descendants included; this process and its ancestors never.
pub(crate) fn of(dir: &Path) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: BTreeMap<i32, Process> = pids.filter_map(|pid| Some((pid, Process::read(pid)?))).collect();
    let mut spared = BTreeSet::new();
    let mut next = i32::try_from(std::process::id()).unwrap_or(0);
    while next > 0 && spared.insert(next) {
        next = all.get(&next).map_or(0, |process| process.parent);
    }
    let mut found: BTreeSet<i32> = all
        .values()
        .filter(|process| process.belongs_to(dir))
        .map(|process| process.pid)
        .collect();
    found.retain(|pid| !spared.contains(pid));
    loop {
        let children = all
            .values()
            .filter(|process| found.contains(&process.parent) && !spared.contains(&process.pid));
        let grown: Vec<i32> = children
            .map(|process| process.pid)
            .filter(|pid| !found.contains(pid))
            .collect();
        if grown.is_empty() {
            break;
        }
        found.extend(grown);
    }
    all.into_values()
        .filter(|process| found.contains(&process.pid))
        .collect()
}

/// True while `pid` runs (a zombie does not).
pub(crate) fn alive(pid: i32) -> bool {
    Process::read(pid).is_some()
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends everything that belongs to `dir` at once with SIGKILL and returns what it killed.
///
/// All are stopped first, so that no survivor of the first kills sees its neighbours die: that is how a machine loses power.
pub(crate) fn kill_all(dir: &Path) -> Vec<Process> {
    let mut killed: BTreeMap<i32, Process> = BTreeMap::new();
    for _ in 0..50 {
        let found = of(dir);
        if found.is_empty() {
            break;
        }
        for process in &found {
            signal(process.pid, Signal::STOP);
        }
        for process in &found {
            signal(process.pid, Signal::KILL);
        }
        killed.extend(found.into_iter().map(|process| (process.pid, process)));
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.into_values().collect()
}

/// Proportional set size of a process in KiB: its private memory and its share of what it shares.
pub(crate) fn pss_kib(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
}

/// Processor time that a process has used, user and system, in clock ticks (100 per second on Linux).
pub(crate) fn cpu_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Binds all threads of a process, or one thread, to one core.
///
/// # Errors
/// When `taskset` is missing, or the process is gone.
pub(crate) fn bind(id: i32, core: usize) -> Result<()> {
    let (core, id) = (core.to_string(), id.to_string());
    tool::output(std::process::Command::new("taskset").args(["-a", "-c", "-p", &core, &id])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Account {
        Account {
            name: "me".into(),
            switch: None,
        }
    }

    #[tokio::test]
    async fn what_was_started_for_a_directory_is_found_with_its_children_and_killed() {
        let dir = tempfile::tempdir().unwrap();
        let (one, ten) = (dir.path().join("node1"), dir.path().join("node10"));
        for path in [&one, &ten] {
            fs::create_dir(path).unwrap();
        }
        let log = dir.path().join("log");
        let words = |script: &str| ["sh", "-c", script].map(str::to_owned);
        let mut first = start(&me(), None, &words("sleep 600 & sleep 600; true"), &one, &log).unwrap();
        let mut other = start(&me(), None, &words("sleep 600; true"), &ten, &log).unwrap();
        tokio::time::timeout(Duration::from_secs(10), async {
            while of(&one).len() < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(kill_all(&one).len(), 3);
        assert!(of(&one).is_empty());
        assert!(!first.wait().await.unwrap().success());
        assert!(
            other.try_wait().unwrap().is_none(),
            "the neighbour whose name begins alike lives"
        );
        kill_all(dir.path());
        other.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_failing_program_is_quoted() {
        let words = ["sh", "-c", "echo no luck >&2; exit 3"].map(str::to_owned);
        let error = run(&me(), &words, Path::new("/"), Duration::from_secs(10))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no luck"), "{error}");
    }

    #[test]
    fn this_process_has_weight() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(pss_kib(me).unwrap() > 100);
        assert!(cpu_ticks(me).is_some());
        assert!(alive(me) && !alive(i32::MAX));
    }
}
