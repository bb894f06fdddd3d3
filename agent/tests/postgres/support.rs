//! A node for tests: a PostgreSQL of its own, driven by the orders of the agent.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: a failure here is a failed test, and a skipped test must be seen"
)]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use surus::clock::{Clock, SystemClock};
use surus::config::settings::{Bootstrap, Credentials, HostPort, PostgresSettings};
use surus::machine::Machine;
use surus::postgres::{
    BoxFuture, ControlError, ControlStatus, Local, Postgres, ProcessControl, Signal, Site, StartRequest,
};
use surus_core::action::{StopMode, Upstream};
use surus_core::input::Outcome;
use surus_core::types::{Generation, Lsn, MonoTime, Timeline};
use surus_core::view::{DataDir, PostgresView, Process, Server};

pub(crate) const G: Generation = Generation(1);

/// Runs `test` as a user that PostgreSQL accepts. As root the test binary runs itself again as `postgres`.
pub(crate) fn as_postgres<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    if bin_dir().is_none() {
        eprintln!("SKIPPED: {name}: no PostgreSQL in /usr/lib/postgresql or PATH");
        return;
    }
    if rustix::process::geteuid().is_root() {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"])
            .arg(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .current_dir("/tmp")
            .env("HOME", "/tmp")
            .stderr(std::process::Stdio::inherit())
            .output();
        let Ok(output) = output else {
            eprintln!("SKIPPED: {name}: running as root, and there is no setpriv to become postgres with");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        eprintln!("{said}");
        assert!(output.status.success(), "{name} failed as user postgres");
        assert!(said.contains("1 passed"), "no test has the name {name}");
        return;
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .try_init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test());
}

pub(crate) fn bin_dir() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, path): &(u32, PathBuf)| path.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

/// Starts the postmaster as a child of the test, without a guard, and remembers what it was told.
#[derive(Default)]
pub(crate) struct Direct {
    state: Arc<Mutex<State>>,
    log: PathBuf,
}

#[derive(Default)]
struct State {
    status: ControlStatus,
    told: Vec<String>,
}

impl Direct {
    pub(crate) fn told(&self) -> Vec<String> {
        self.state.lock().unwrap().told.clone()
    }

    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().status = ControlStatus::default();
    }
}

impl ProcessControl for Direct {
    fn start(&self, request: StartRequest) -> BoxFuture<'_, Result<u32, ControlError>> {
        Box::pin(async move {
            let log = std::fs::File::options()
                .create(true)
                .append(true)
                .open(&self.log)
                .unwrap();
            let mut command = std::process::Command::new(&request.program);
            command
                .args(&request.args)
                .env_clear()
                .envs(request.env)
                .current_dir(&request.cwd)
                .stdin(std::process::Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .process_group(0);
            let mut child = command.spawn().map_err(|error| ControlError(error.to_string()))?;
            let pid = child.id();
            {
                let mut state = self.state.lock().unwrap();
                state.status = ControlStatus {
                    pid: Some(pid),
                    deadline: request.deadline,
                };
                state
                    .told
                    .push(format!("start deadline={}", request.deadline.is_some()));
            }
            let state = Arc::clone(&self.state);
            std::thread::spawn(move || {
                let _ = child.wait();
                let mut state = state.lock().unwrap();
                if state.status.pid == Some(pid) {
                    state.status = ControlStatus::default();
                }
            });
            Ok(pid)
        })
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            use rustix::process::Signal as Unix;
            let unix = match signal {
                Signal::Smart => Unix::TERM,
                Signal::Fast => Unix::INT,
                Signal::Immediate => Unix::QUIT,
                Signal::Reload => Unix::HUP,
                Signal::Kill => Unix::KILL,
            };
            let mut state = self.state.lock().unwrap();
            state.told.push(format!("{signal:?}"));
            if let Some(pid) = state.status.pid {
                let _ = rustix::process::kill_process(raw(pid), unix);
            }
            Ok(())
        })
    }

    fn set_deadline(
        &self,
        deadline: Option<MonoTime>,
        _generation: Generation,
    ) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            state.status.deadline = deadline;
            state.told.push(format!("deadline={}", deadline.is_some()));
            Ok(())
        })
    }

    fn adopt(&self, pid: u32) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            state.status.pid = Some(pid);
            state.told.push("adopt".to_owned());
            Ok(())
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<ControlStatus, ControlError>> {
        Box::pin(async move { Ok(self.state.lock().unwrap().status) })
    }

    fn wait_exit(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            while self.state.lock().unwrap().status.pid.is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        })
    }
}

pub(crate) fn raw(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// One member.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) postgres: Arc<Postgres>,
    pub(crate) control: Arc<Direct>,
    pub(crate) settings: PostgresSettings,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whatever the test left running, started by it and by nobody else.
        if let Some(pid) = std::fs::read_to_string(self.settings.data_dir.join("postmaster.pid"))
            .ok()
            .and_then(|content| content.lines().next()?.parse().ok())
        {
            let ours = std::fs::read_link(format!("/proc/{pid}/cwd")).ok().as_deref()
                == Some(self.settings.data_dir.as_path());
            if ours {
                let _ = rustix::process::kill_process(raw(pid), rustix::process::Signal::CONT);
                let _ = rustix::process::kill_process(raw(pid), rustix::process::Signal::QUIT);
                for _ in 0..200 {
                    if !Path::new(&format!("/proc/{pid}")).exists() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub(crate) fn credentials(username: &str) -> Credentials {
    Credentials {
        username: username.to_owned(),
        password: Some(format!("{username}'s \\pass:word")),
        options: std::collections::BTreeMap::default(),
    }
}

impl Node {
    pub(crate) fn new(root: &Path, name: &str) -> Self {
        Self::with(root, name, |_| {}, Some(bootstrap()))
    }

    pub(crate) fn three(root: &Path) -> (Self, Self, Self) {
        let node = |name| Self::new(root, name);
        (node("n1"), node("n2"), node("n3"))
    }

    pub(crate) fn with(
        root: &Path,
        name: &str,
        change: impl FnOnce(&mut PostgresSettings),
        bootstrap: Option<Bootstrap>,
    ) -> Self {
        let home = root.join(name);
        std::fs::create_dir_all(&home).unwrap();
        let port = free_port();
        let data_dir = home.join("data");
        let mut settings = PostgresSettings {
            scope: "main".to_owned(),
            name: name.to_owned(),
            listen_hosts: vec!["127.0.0.1".to_owned()],
            port,
            connect_address: HostPort {
                host: "127.0.0.1".to_owned(),
                port,
            },
            proxy_address: None,
            data_dir: data_dir.clone(),
            config_dir: data_dir,
            custom_conf: None,
            bin_dir: bin_dir(),
            bin_name: std::collections::BTreeMap::default(),
            pgpass: home.join("pgpass"),
            database: "postgres".to_owned(),
            use_unix_socket: false,
            superuser: credentials("postgres"),
            replication: credentials("replicator"),
            rewind: Some(credentials("rewinder")),
            parameters: [
                ("unix_socket_directories", "."),
                ("shared_buffers", "16MB"),
                ("fsync", "on"),
                ("no_such_parameter", "7"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            pg_hba: None,
            pg_ident: None,
            recovery_conf: std::collections::BTreeMap::default(),
            basebackup: Vec::new(),
            create_replica_methods: Vec::new(),
            replica_methods: std::collections::BTreeMap::default(),
            callbacks: std::collections::BTreeMap::default(),
            pre_promote: None,
            before_stop: None,
            pg_ctl_timeout: 30,
            use_pg_rewind: true,
            use_slots: true,
            gate: false,
            remove_data_directory_on_rewind_failure: false,
            remove_data_directory_on_diverged_timelines: false,
        };
        change(&mut settings);
        let control = Arc::new(Direct {
            log: home.join("postgres.log"),
            ..Direct::default()
        });
        let postgres = Arc::new(Postgres::new(
            Machine::real(),
            Arc::clone(&control) as Arc<dyn ProcessControl>,
            Arc::new(Local::new(Arc::new(SystemClock), settings.clone())),
            settings.clone(),
            bootstrap,
        ));
        Self {
            name: name.to_owned(),
            postgres,
            control,
            settings,
        }
    }

    /// Its place, as another agent would find it.
    fn site(&self) -> Arc<dyn Site> {
        Arc::new(Local::new(Arc::new(SystemClock), self.settings.clone()))
    }

    /// An agent that comes after this one, and knows nothing of what it did.
    pub(crate) fn another_agent(&self) -> Postgres {
        Postgres::new(
            Machine::real(),
            Arc::clone(&self.control) as Arc<dyn ProcessControl>,
            self.site(),
            self.settings.clone(),
            None,
        )
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream {
            name: self.name.as_str().into(),
            conn_url: format!("postgres://127.0.0.1:{}/postgres", self.settings.port),
            slot: None,
        }
    }

    pub(crate) fn data(&self, path: &str) -> PathBuf {
        self.settings.data_dir.join(path)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.control.log).unwrap_or_default()
    }

    pub(crate) async fn bootstrapped(&self) {
        let outcome = self.postgres.bootstrap(soon(), soon(), G).await;
        assert!(
            matches!(outcome, Outcome::Bootstrapped { .. }),
            "{outcome:?}\n{}",
            self.log()
        );
        self.started().await;
    }

    /// Starts as primary and waits until it accepts writes.
    pub(crate) async fn started(&self) {
        expect_ok(self.postgres.start_primary(soon(), soon(), None, false, G).await);
        self.until(Server::is_primary).await;
    }

    /// Clones from `from` and streams from it.
    pub(crate) async fn replica_of(&self, from: &Self) {
        expect_ok(self.postgres.base_backup(&from.upstream()).await);
        expect_ok(self.postgres.start_replica(Some(&from.upstream()), G).await);
        self.until(streaming).await;
    }

    pub(crate) async fn look(&self) -> PostgresView {
        match self.postgres.probe().await {
            Outcome::Probed { view, .. } => view,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn server(&self) -> Server {
        match self.look().await.process {
            Process::Running(server) => server,
            other => panic!("{} is not running but {other:?}\n{}", self.name, self.log()),
        }
    }

    /// Looks until what is seen satisfies; at most ten seconds.
    pub(crate) async fn until(&self, satisfied: impl Fn(&Server) -> bool) -> Server {
        let mut last = None;
        for _ in 0..500 {
            if let Process::Running(server) = self.look().await.process {
                if satisfied(&server) {
                    return server;
                }
                last = Some(server);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "{} did not come to it; last seen: {last:?}\n{}",
            self.name,
            self.log()
        );
    }

    /// Looks until PostgreSQL is in a state; at most ten seconds.
    pub(crate) async fn until_process(&self, satisfied: impl Fn(&Process) -> bool) {
        let mut last = None;
        for _ in 0..500 {
            let process = self.look().await.process;
            if satisfied(&process) {
                return;
            }
            last = Some(process);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "{} did not come to it; last seen: {last:?}\n{}",
            self.name,
            self.log()
        );
    }

    pub(crate) async fn stop(&self) -> Option<Lsn> {
        let outcome = self.postgres.stop(StopMode::Fast { until: soon() }, false).await;
        match outcome {
            Outcome::Stopped { checkpoint } => checkpoint,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn promote(&self, above: u32) {
        expect_ok(
            self.postgres
                .promote(soon(), soon(), Timeline(above), None, false, G)
                .await,
        );
    }

    /// A session as superuser, and the task of its connection.
    pub(crate) async fn connect(&self) -> (tokio_postgres::Client, tokio::task::JoinHandle<()>) {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.settings.port)
            .user("postgres")
            .password(self.settings.superuser.password.clone().unwrap())
            .dbname("postgres")
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        let task = tokio::spawn(async {
            // A server that is stopped breaks it off.
            let _ = connection.await;
        });
        (client, task)
    }

    /// Runs SQL as superuser and returns the first column of the rows, as text.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<String> {
        let (client, task) = self.connect().await;
        let rows = client.simple_query(sql).await.unwrap();
        task.abort();
        rows.into_iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn bootstrap() -> Bootstrap {
    Bootstrap {
        dcs: serde_json::Value::Null,
        initdb: vec![
            ("encoding".to_owned(), Some("UTF8".to_owned())),
            ("data-checksums".to_owned(), None),
        ],
        pg_hba: vec![
            "host replication replicator 127.0.0.1/8 md5".to_owned(),
            "host all all 127.0.0.1/8 md5".to_owned(),
        ],
        users: std::collections::BTreeMap::default(),
        post_bootstrap: None,
        method: None,
    }
}

pub(crate) fn streaming(server: &Server) -> bool {
    use surus_core::view::ServerRole;
    matches!(server.role, ServerRole::Replica { streaming: true, .. })
}

pub(crate) fn expect_ok(outcome: Outcome) {
    assert_eq!(outcome, Outcome::Ok);
}

pub(crate) fn now() -> MonoTime {
    SystemClock.now()
}

pub(crate) fn soon() -> MonoTime {
    now().plus(Duration::from_secs(60))
}

pub(crate) fn present(view: &PostgresView) -> surus_core::view::ControlData {
    match &view.data {
        DataDir::Present(control) => control.clone(),
        other => panic!("{other:?}"),
    }
}
