//! pg_basebackup, or the user's own method in its place.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use surus_core::action::Upstream;

use super::super::basebackup::PATIENCE;
use super::super::connect::{address, conninfo};
use super::super::site::{OnProgress, Progress};
use super::directory::{self, Marker};
use super::{Error, Local, blocking, exec, files, rewind, text};
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

/// How long a tool of a killed agent may take to vanish once killed.
const STRAY_LIMIT: Duration = Duration::from_secs(5);

impl Local {
    /// Ends initdb, pg_basebackup and pg_rewind processes that a killed agent left at work on the data directory.
    pub(super) async fn end_strays(&self) -> Result<(), Error> {
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

    /// Copies a member's cluster.
    pub(super) async fn copy_cluster(
        &self,
        from: &Upstream,
        method: Option<&CustomMethod>,
        progress: OnProgress<'_>,
    ) -> Result<(), Error> {
        match method {
            Some(method) => self.custom_clone(method, from).await?,
            None => self.pg_basebackup(from, progress).await?,
        }
        self.forget_control();
        self.restore_configuration().await
    }

    async fn pg_basebackup(&self, from: &Upstream, told: OnProgress<'_>) -> Result<(), Error> {
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
                    told(Progress {
                        operation: "basebackup",
                        done_bytes: done * 1024,
                        total_bytes: total * 1024,
                    });
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

/// Clears the data directory and sets the marker.
pub(super) fn begin(data_dir: &Path, keep_data: bool, time: String) -> Result<(), Error> {
    if !keep_data {
        let worthless = Marker::read(data_dir).is_some_and(|marker| marker.only_ours);
        if worthless {
            tracing::info!(dir = %data_dir.display(), "deleted the remains of a clone that did not finish");
            directory::empty(data_dir)?;
        } else {
            directory::move_aside(data_dir, "aside", &time)?;
        }
    }
    directory::create(data_dir)?;
    Marker {
        operation: "base backup".to_owned(),
        pid: None,
        since: time,
        only_ours: !keep_data,
    }
    .write(data_dir)
}

/// Makes the clone a standby that can be started, and takes the marker away.
pub(super) fn finish(data_dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    files::write(&data_dir.join("standby.signal"), b"", 0o600)?;
    let mode = std::fs::metadata(data_dir).map_or(0o700, |meta| meta.permissions().mode());
    if mode & 0o027 != 0 {
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700))
            .map_err(Error::file("set the permissions of", data_dir))?;
    }
    Marker::remove(data_dir)
}

/// Deletes what a failed clone left, if nothing else ever was in there.
pub(super) fn abandon(data_dir: &Path) -> Result<(), Error> {
    if Marker::read(data_dir).is_some_and(|marker| marker.only_ours) {
        directory::empty(data_dir)?;
        Marker::remove(data_dir)?;
    }
    Ok(())
}
