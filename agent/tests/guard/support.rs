//! A PostgreSQL of one's own for each test, clients for it, and eyes on `/proc` that share no code with the guard.

use std::future::Future;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use surus::guard::{Exit, Guard, GuardView, Start, Status, boottime_ns, kill_all_of};
use tokio::sync::watch;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const GUARD: &str = env!("CARGO_BIN_EXE_surus");

/// Runs `body` as the user postgres: PostgreSQL refuses root, and the guard serves its own user only. As root it runs
/// this very test again as postgres, in a process of its own.
pub(crate) fn as_postgres(name: &str, body: impl Future<Output = ()>) {
    if bin_dir().is_none() {
        #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
        {
            eprintln!("SKIPPED: {name}: no PostgreSQL below /usr/lib/postgresql");
        }
        return;
    }
    if rustix::process::geteuid().is_root() {
        let ended = run_as_postgres(&["--exact", name, "--nocapture"], &[])
            .status()
            .unwrap();
        assert!(ended.success(), "{name} failed as user postgres");
        return;
    }
    block_on(body);
}

pub(crate) fn block_on(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(body);
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// This test program again, as postgres when we are root; `CAP_IPC_LOCK` comes along where root has it.
pub(crate) fn run_as_postgres(args: &[&str], env: &[(&str, &str)]) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command;
    if rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        if may_lock_memory() {
            command.args(["--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock"]);
        }
        command.arg(this);
    } else {
        command = Command::new(this);
    }
    command.args(args).envs(env.iter().copied()).current_dir("/");
    command
}

/// Whether this process has `CAP_IPC_LOCK`, number 14.
pub(crate) fn may_lock_memory() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap()
        .trim();
    u64::from_str_radix(held, 16).unwrap() & 1 << 14 != 0
}

fn bin_dir() -> Option<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop()
}

pub(crate) fn sleep(ms: u64) -> tokio::time::Sleep {
    tokio::time::sleep(Duration::from_millis(ms))
}

/// A directory that user postgres can use, whoever makes it.
pub(crate) fn directory() -> Directory {
    let dir = tempfile::Builder::new().prefix("surus-guard-").tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        let id = Command::new("id")
            .args(["-u", "postgres"])
            .output()
            .unwrap()
            .stdout;
        let uid = String::from_utf8(id).unwrap().trim().parse().unwrap();
        chown(dir.path(), Some(uid), None).unwrap();
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    Directory(dir)
}

/// A temporary directory. Dropped, it takes its guard along, also when a test has failed.
pub(crate) struct Directory(tempfile::TempDir);

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.kill_guard();
    }
}

impl Directory {
    fn kill_guard(&self) {
        let lock = std::fs::read_to_string(self.path().join("guard.sock.lock")).unwrap_or_default();
        let Ok(pid) = lock.trim().parse() else {
            return;
        };
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.contains("--socket") && line.contains(self.path().to_str().unwrap()) {
            kill(pid, libc::SIGKILL);
        }
    }
}

/// A data directory, a port and a place for a guard. Dropped, nothing of it is left.
pub(crate) struct Cluster {
    pub(crate) dir: Directory,
    pub(crate) data: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) port: u16,
    pub(crate) postgres: PathBuf,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let dir = directory();
        let data = dir.path().join("data");
        let bin = bin_dir().unwrap();
        let made = Command::new(bin.join("initdb"))
            .args([
                "-A",
                "trust",
                "-U",
                "postgres",
                "--no-sync",
                "--no-instructions",
                "-D",
            ])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nmax_connections = 60\n\
             shared_buffers = 16MB\nautovacuum = off\nmax_wal_size = 200MB\n"
        );
        std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        let socket = dir.path().join("guard.sock");
        Self {
            data,
            socket,
            port,
            postgres: bin.join("postgres"),
            dir,
        }
    }

    pub(crate) async fn guard(&self) -> Guard {
        Guard::connect_or_spawn(&self.socket, Path::new(GUARD))
            .await
            .unwrap()
            .0
    }

    /// How to start this PostgreSQL, with a deadline in so many milliseconds.
    pub(crate) fn start(&self, generation: u64, deadline_ms: Option<u64>) -> Start {
        Start {
            program: self.postgres.clone(),
            args: vec!["-D".into(), self.data.clone().into()],
            env: vec![],
            cwd: self.data.clone(),
            log: Some(self.dir.path().join("log")),
            deadline_ns: deadline_ms.map(|ms| boottime_ns() + ms * MS),
            generation,
        }
    }

    /// A guard with a PostgreSQL that accepts connections.
    pub(crate) async fn up(&self, deadline_ms: u64) -> (Guard, Status) {
        let guard = self.guard().await;
        let status = guard.start(&self.start(1, Some(deadline_ms))).await.unwrap();
        self.connect().await;
        (guard, status)
    }

    /// A session, as soon as there can be one.
    pub(crate) async fn connect(&self) -> tokio_postgres::Client {
        let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port);
        for _ in 0..500 {
            if let Ok((client, connection)) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await {
                tokio::spawn(connection);
                return client;
            }
            sleep(20).await;
        }
        panic!(
            "no session: {}",
            std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
        );
    }

    /// Clients that commit small transactions as fast as they can, and four that keep a backend busy for ever.
    pub(crate) async fn load(&self, writers: usize) -> Load {
        let setup = self.connect().await;
        setup
            .batch_execute("CREATE TABLE IF NOT EXISTS w (writer int, n bigint, t text)")
            .await
            .unwrap();
        let load = Load::default();
        for writer in 0..writers {
            let client = self.connect().await;
            let load = load.clone();
            tokio::spawn(async move {
                let writer = i32::try_from(writer).unwrap();
                while !load.stop.load(Ordering::Relaxed) {
                    let insert = format!(
                        "BEGIN; INSERT INTO w SELECT {writer}, g, repeat('x', 50) FROM generate_series(1, 20) g"
                    );
                    if client.batch_execute(&insert).await.is_err()
                        || client.batch_execute("COMMIT").await.is_err()
                    {
                        break;
                    }
                    load.last_ack.fetch_max(boottime_ns(), Ordering::Relaxed);
                    load.acks.fetch_add(1, Ordering::Relaxed);
                }
                load.ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        for _ in 0..4 {
            let client = self.connect().await;
            tokio::spawn(async move { client.batch_execute("DO 'BEGIN LOOP END LOOP; END'").await });
        }
        drop(setup);
        sleep(300).await;
        assert!(load.acks.load(Ordering::Relaxed) > 0, "the writers do not write");
        load
    }

    /// Every process that lives in the data directory, zombies not counted.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes()
            .into_iter()
            .filter(|&pid| works_in(pid, &self.data) && state(pid) != Some('Z'))
            .collect()
    }

    pub(crate) fn guard_pid(&self) -> i32 {
        let lock = self.socket.with_extension("sock.lock");
        std::fs::read_to_string(lock).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.dir.kill_guard();
        for _ in 0..200 {
            if kill_all_of(&self.postgres, &self.data).is_ok_and(|count| count == 0) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What the writers have seen.
#[derive(Clone, Default)]
pub(crate) struct Load {
    pub(crate) acks: Arc<AtomicU64>,
    pub(crate) last_ack: Arc<AtomicU64>,
    pub(crate) ended: Arc<AtomicU64>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn last_ack_ns(&self) -> u64 {
        self.last_ack.load(Ordering::Relaxed)
    }
}

/// Waits for the `nth` end of a postmaster under this guard, and returns it.
pub(crate) async fn exit_of(view: &mut watch::Receiver<GuardView>, nth: u64, limit_ms: u64) -> Exit {
    let wait = view.wait_for(|view| view.status.exits >= nth);
    let seen = tokio::time::timeout(Duration::from_millis(limit_ms), wait)
        .await
        .expect("an exit in time")
        .unwrap();
    assert_eq!(seen.status.exits, nth);
    seen.status.last_exit.unwrap()
}

pub(crate) fn kill(pid: i32, signal: i32) {
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

pub(crate) fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

pub(crate) fn works_in(pid: i32, dir: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
}

/// The letter of a process's state, and `None` when it is gone.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

pub(crate) fn start_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(19)
        .unwrap()
        .parse()
        .unwrap()
}

/// Waits until `condition` holds, and returns when that was.
pub(crate) async fn until(limit_ms: u64, what: &str, mut condition: impl FnMut() -> bool) -> u64 {
    let end = boottime_ns() + limit_ms * MS;
    while boottime_ns() < end {
        if condition() {
            return boottime_ns();
        }
        sleep(2).await;
    }
    panic!("not within {limit_ms} ms: {what}");
}

/// This test program in another role, in a session of its own; killed when dropped.
pub(crate) struct Helper(pub(crate) std::process::Child);

impl Helper {
    pub(crate) fn run(role: &str, socket: &Path) -> Self {
        let mut command = run_as_postgres(
            &["--exact", role, "--nocapture"],
            &[
                ("SURUS_TEST_ROLE", role),
                ("SURUS_TEST_SOCKET", socket.to_str().unwrap()),
            ],
        );
        Self(command.stdout(Stdio::null()).process_group(0).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The socket a helper was given, if this process plays this role.
pub(crate) fn playing(role: &str) -> Option<PathBuf> {
    (std::env::var("SURUS_TEST_ROLE").ok()? == role)
        .then(|| std::env::var("SURUS_TEST_SOCKET").unwrap().into())
}
