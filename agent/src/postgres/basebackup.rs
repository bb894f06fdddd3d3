//! Cloning from another member.
//!
//! Whatever was in the data directory is moved aside first. Only the remains of an earlier clone that did not finish are deleted:
//! the marker says that nothing else was ever in there.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use surus_core::action::Upstream;
use surus_core::input::Outcome;

use super::conf::{Role, recovery};
use super::connect::{address, conninfo};
use super::directory::Marker;
use super::error::report;
use super::{Error, Postgres, Progress, blocking, directory, exec, files, rewind, text};
use crate::config::settings::{CustomMethod, PostgresSettings};

/// Options of pg_basebackup that are ours.
const FORBIDDEN: [&str; 14] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
    "no-password",
    "progress",
    "target",
];

/// For connections that carry much: a source that vanishes without a word is given up after half a minute.
pub(super) const PATIENCE: [(&str, &str); 4] = [
    ("connect_timeout", "5"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "4"),
];

/// How long a tool of a killed agent may take to vanish once killed.
const STRAY_LIMIT: Duration = Duration::from_secs(5);

impl Postgres {
    /// Clones from a member with the first of `create_replica_methods` that works. Whatever was there is moved aside.
    pub async fn base_backup(&self, from: &Upstream) -> Outcome {
        let result = self.clone_from(from).await;
        self.progress.set(None);
        report("base backup", result, |()| Outcome::Ok)
    }

    async fn clone_from(&self, from: &Upstream) -> Result<(), Error> {
        let settings = self.settings();
        self.clear_strays().await?;
        let data_dir = settings.data_dir.clone();
        let dir = data_dir.clone();
        if let Some(file) = blocking(move || directory::postmaster(&dir)).await {
            return Err(Error::Condition(format!(
                "the server (process {}) runs; it must be stopped before a base backup",
                file.pid
            )));
        }
        self.heartbeat.set(None);
        let recovery = {
            let (settings, from) = (std::sync::Arc::clone(&settings), from.clone());
            blocking(move || recovery(&settings, Some(&from))).await?
        };
        let methods = if settings.create_replica_methods.is_empty() {
            vec!["basebackup".to_owned()]
        } else {
            settings.create_replica_methods.clone()
        };
        let mut problems = Vec::new();
        for name in &methods {
            let custom = settings.replica_methods.get(name);
            if custom.is_none() && name != "basebackup" {
                problems.push(format!(
                    "{name}: postgresql.create_replica_methods names it, and there is no section postgresql.{name}"
                ));
                continue;
            }
            self.begin(custom.is_some_and(|method| method.keep_data)).await?;
            let attempt = match custom {
                Some(method) => self.custom_clone(method, from).await,
                None => self.pg_basebackup(from).await,
            };
            match attempt {
                Ok(()) => {
                    tracing::info!(method = name, from = %from.name, "cloned");
                    self.finish(Role::Replica(recovery)).await?;
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(method = name, from = %from.name, error = %error.chain(), "clone failed");
                    problems.push(format!("{name}: {}", error.chain()));
                }
            }
        }
        blocking(move || {
            // What the failed attempts left is worth nothing, unless a method of the user's keeps its data for the next try.
            if Marker::read(&data_dir).is_some_and(|marker| marker.only_ours) {
                directory::empty(&data_dir)?;
                Marker::remove(&data_dir)?;
            }
            Ok::<(), Error>(())
        })
        .await?;
        Err(Error::Condition(format!(
            "no clone from {}: {}",
            from.name,
            problems.join("; ")
        )))
    }

    /// Ends initdb, pg_basebackup and pg_rewind processes that a killed agent left at work on the data directory.
    pub(super) async fn clear_strays(&self) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        let limit = self.clock.now().plus(STRAY_LIMIT);
        loop {
            let dir = data_dir.clone();
            let strays = blocking(move || directory::strays(&dir)).await;
            if strays.is_empty() {
                return Ok(());
            }
            for pid in &strays {
                tracing::warn!(
                    pid,
                    "ended a tool that a former agent had left at work on the data directory"
                );
                if let Some(pid) = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw) {
                    // Gone already is as good.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if limit <= self.clock.now() {
                return Err(Error::Condition(format!(
                    "the processes {strays:?} work on {} and cannot be ended",
                    data_dir.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Clears the data directory and sets the marker.
    async fn begin(&self, keep_data: bool) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        let time = self.timestamp();
        blocking(move || {
            if !keep_data {
                let worthless = Marker::read(&data_dir).is_some_and(|marker| marker.only_ours);
                if worthless {
                    tracing::info!(dir = %data_dir.display(), "deleted the remains of a clone that did not finish");
                    directory::empty(&data_dir)?;
                } else {
                    directory::move_aside(&data_dir, "aside", &time)?;
                }
            }
            directory::create(&data_dir)?;
            Marker {
                operation: "base backup".to_owned(),
                pid: None,
                since: time,
                only_ours: !keep_data,
            }
            .write(&data_dir)
        })
        .await
    }

    async fn finish(&self, role: Role) -> Result<(), Error> {
        let settings = self.settings();
        self.restore_configuration().await?;
        self.configure(&role, &[], None).await?;
        {
            let mut memory = self.memory();
            memory.received = None;
            memory.history = None;
            memory.control = None;
            memory.primary = Some(false);
        }
        let data_dir = settings.data_dir.clone();
        blocking(move || {
            use std::os::unix::fs::PermissionsExt as _;
            files::write(&data_dir.join("standby.signal"), b"", 0o600)?;
            let mode = std::fs::metadata(&data_dir).map_or(0o700, |meta| meta.permissions().mode());
            if mode & 0o027 != 0 {
                std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o700))
                    .map_err(Error::file("set the permissions of", &data_dir))?;
            }
            Marker::remove(&data_dir)
        })
        .await
    }

    async fn pg_basebackup(&self, from: &Upstream) -> Result<(), Error> {
        let settings = self.settings();
        let place = address(from)?;
        let mut further = vec![("application_name", settings.name.as_str())];
        further.extend(PATIENCE);
        let dsn = conninfo(&settings, &settings.replication, &place, &further);
        let tool = exec::Tool::new(&self.binary("pg_basebackup"))
            .arg(format!("--pgdata={}", text(&settings.data_dir)))
            .args(["--wal-method=stream", "--no-password", "--progress"])
            .arg(format!("--dbname={dsn}"))
            .args(user_options(&settings))
            .env("PGPASSFILE", &settings.pgpass)
            .lines(|line| {
                if let Some((done, total)) = rewind::progress(line) {
                    self.progress.set(Some(Progress {
                        operation: "basebackup",
                        done_bytes: done * 1024,
                        total_bytes: total * 1024,
                    }));
                } else {
                    tracing::info!("{}", line.trim());
                }
            });
        self.marked(tool, &settings.data_dir).await
    }

    async fn custom_clone(&self, method: &CustomMethod, from: &Upstream) -> Result<(), Error> {
        let settings = self.settings();
        let place = address(from)?;
        let words = exec::split(&method.command)?;
        let mut args: Vec<OsString> = words[1..].to_vec();
        args.extend(
            method
                .extra
                .iter()
                .map(|(key, value)| format!("--{key}={value}").into()),
        );
        if !method.no_params {
            let further = [("application_name", settings.name.as_str())];
            let dsn = conninfo(&settings, &settings.replication, &place, &further);
            for (key, value) in [
                ("scope", settings.scope.clone()),
                ("role", "replica".to_owned()),
                ("datadir", text(&settings.data_dir)),
                ("connstring", dsn),
            ] {
                args.push(format!("--{key}={value}").into());
            }
        }
        let tool = exec::Tool::new(Path::new(&words[0]))
            .args(args)
            .env("PGPASSFILE", &settings.pgpass)
            .lines(|line| tracing::info!(method = method.name, "{}", line.trim()));
        self.marked(tool, &settings.data_dir).await?;
        let data_dir = settings.data_dir.clone();
        let whole =
            move || data_dir.join("PG_VERSION").exists() && data_dir.join("global/pg_control").exists();
        if !blocking(whole).await {
            return Err(Error::Condition(format!(
                "the command of {} reported success and left no cluster in {}",
                method.name,
                settings.data_dir.display()
            )));
        }
        Ok(())
    }

    /// Runs a tool with its process id in the marker.
    pub(super) async fn marked(&self, tool: exec::Tool<'_>, data_dir: &Path) -> Result<(), Error> {
        tool.started(|pid| {
            if let Some(mut marker) = Marker::read(data_dir) {
                marker.pid = Some(pid);
                if let Err(error) = marker.write(data_dir) {
                    tracing::warn!(error = %error.chain(), "marker not completed");
                }
            }
        })
        .run()
        .await
        .map(|_| ())
    }
}

/// The user's options that may be passed on, with `--checkpoint=fast` unless the user says otherwise.
fn user_options(settings: &PostgresSettings) -> Vec<String> {
    let mut options = Vec::new();
    let mut checkpoint = false;
    for (name, value) in &settings.basebackup {
        let name = name.trim_start_matches('-');
        if FORBIDDEN.contains(&name) {
            tracing::warn!(
                option = name,
                "left out an option of postgresql.basebackup that is not for the user to set"
            );
            continue;
        }
        checkpoint |= name == "checkpoint";
        options.push(match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        });
    }
    if !checkpoint {
        options.push("--checkpoint=fast".to_owned());
    }
    options
}
