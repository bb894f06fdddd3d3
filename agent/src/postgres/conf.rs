//! postgresql.conf and what belongs to it.
//!
//! The user's own postgresql.conf is renamed to postgresql.base.conf once and included from then on; ours is written anew at each
//! start and reload. What must be equal across the cluster goes on the command line too, where no file can override it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use surus_core::action::Upstream;

use super::connect::{address, conninfo, write_pgpass};
use super::{Error, PendingRestart, Postgres, blocking, files, hba, text};
use crate::config::settings::PostgresSettings;

/// The first line of a postgresql.conf of ours.
const HEADER: &str = "# Written by Surus at each start and reload: changes made here are lost.\n\
    # Use `surus edit-config`, or postgresql.base.conf for what is this node's own business.\n";

/// Parameters that only the dynamic configuration may set, with their defaults. They go on the command line.
const COMMAND_LINE: [(&str, &str); 10] = [
    ("hot_standby", "on"),
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
    ("track_commit_timestamp", "off"),
    ("wal_level", "replica"),
    ("wal_log_hints", "on"),
];

/// Recovery targets stop a standby half-way: they are blanked.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// Parameters that are ours to write, whatever anybody else says.
const OURS: [&str; 5] = [
    "primary_conninfo",
    "primary_slot_name",
    "listen_addresses",
    "port",
    "cluster_name",
];

/// Further recovery parameters, which are swept out of postgresql.auto.conf so that they cannot fight with ours.
const RECOVERY: [&str; 9] = [
    "archive_cleanup_command",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "restore_command",
    "wal_receiver_create_temp_slot",
];

/// Whom a standby follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Recovery {
    /// `primary_conninfo`; empty for nobody.
    pub(super) conninfo: String,
    /// `primary_slot_name`.
    pub(super) slot: Option<String>,
}

/// What the configuration is written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Replica(Recovery),
}

/// What came of writing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configured {
    /// The postmaster's arguments.
    pub(super) args: Vec<OsString>,
    /// The parameters of the command line.
    pub(super) command_line: BTreeMap<String, String>,
    /// Those of the file.
    pub(super) file: BTreeMap<String, String>,
    /// A file has changed.
    pub(super) changed: bool,
    /// Where a standby runs with more than is configured.
    pub(super) raised: BTreeMap<String, PendingRestart>,
}

/// The recovery settings for an upstream. The password file has its passwords when this returns.
pub(super) fn recovery(settings: &PostgresSettings, upstream: Option<&Upstream>) -> Result<Recovery, Error> {
    let Some(upstream) = upstream else {
        return Ok(Recovery::default());
    };
    let place = address(upstream)?;
    write_pgpass(settings, &place)?;
    let further = [
        ("application_name", settings.name.as_str()),
        ("dbname", settings.database.as_str()),
    ];
    Ok(Recovery {
        conninfo: conninfo(settings, &settings.replication, &place, &further),
        slot: upstream.slot.clone(),
    })
}

/// A `name = 'value'` line.
fn line(content: &mut String, name: &str, value: &str) {
    let value = value.replace('\\', "\\\\").replace('\'', "''");
    // Writing to a String cannot fail.
    let _ = writeln!(content, "{name} = '{value}'");
}

/// All parameters of the cluster: what goes on the command line, and what goes in the file only.
fn parameters(settings: &PostgresSettings) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let configured = |name: &str| {
        settings
            .parameters
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
    };
    let mut command_line: BTreeMap<String, String> = COMMAND_LINE
        .iter()
        .map(|(name, default)| {
            let value = configured(name).unwrap_or_else(|| (*default).to_owned());
            // The old name of the level, which PostgreSQL still takes but shows under the new one.
            let value = if value == "hot_standby" {
                "replica".to_owned()
            } else {
                value
            };
            ((*name).to_owned(), value)
        })
        .collect();
    command_line.insert("hot_standby".to_owned(), "on".to_owned());
    command_line.insert("listen_addresses".to_owned(), settings.listen_hosts.join(","));
    command_line.insert("port".to_owned(), settings.port.to_string());
    command_line.insert("cluster_name".to_owned(), settings.scope.clone());
    let mut file = BTreeMap::new();
    for (name, value) in &settings.parameters {
        let lower = name.to_ascii_lowercase();
        let elsewhere = command_line.contains_key(&lower)
            || OURS.contains(&lower.as_str())
            || TARGETS.contains(&lower.as_str())
            || lower == "wal_keep_segments";
        if !elsewhere {
            file.insert(name.clone(), value.clone());
        }
    }
    if !file.contains_key("wal_keep_size") {
        // A segment has 16 MB unless initdb was told otherwise, and the old parameter counted segments.
        let megabytes = configured("wal_keep_segments")
            .and_then(|segments| segments.parse::<u64>().ok())
            .map_or(128, |segments| segments.max(1) * 16);
        file.insert("wal_keep_size".to_owned(), format!("{megabytes}MB"));
    }
    (command_line, file)
}

/// The longest path of a Unix socket is 107 bytes, of which the file's name takes up to 16.
const SOCKET_DIR_MAX: usize = 90;

/// Where sockets go that were wanted inside the data directory: pg_rewind copies whatever it finds there, and fails at a socket (tried
/// on 15). `None` if the user's directories can stay.
fn socket_directories(settings: &PostgresSettings) -> Option<(String, PathBuf)> {
    let wanted = settings.parameters.get("unix_socket_directories")?;
    let outside = files::sibling(&settings.data_dir, ".sockets");
    if !settings.use_pg_rewind || SOCKET_DIR_MAX < outside.as_os_str().len() {
        return None;
    }
    let inside = |entry: &str| {
        let entry = entry.trim();
        let path = Path::new(entry.strip_prefix("./").unwrap_or(entry));
        !entry.is_empty()
            && !entry.starts_with("..")
            && !entry.starts_with('@')
            && (path.is_relative() || path.starts_with(&settings.data_dir))
    };
    if !wanted.split(',').any(inside) {
        return None;
    }
    let moved: Vec<String> = wanted
        .split(',')
        .map(|entry| {
            if inside(entry) {
                text(&outside)
            } else {
                entry.trim().to_owned()
            }
        })
        .collect();
    Some((moved.join(","), outside))
}

/// Everything that is written, so that it can be written off the event loop.
struct Plan {
    data_dir: PathBuf,
    config_dir: PathBuf,
    custom_conf: Option<PathBuf>,
    sockets: Option<PathBuf>,
    main: String,
    hba: Option<String>,
    ident: Option<String>,
}

impl Postgres {
    /// Writes the configuration for `role`. `minimums` are the values of pg_control that a standby must not go below.
    pub(super) async fn configure(
        &self,
        role: &Role,
        minimums: &[(&'static str, u64)],
        bootstrap_hba: Option<&[String]>,
    ) -> Result<Configured, Error> {
        let settings = self.settings();
        let (wanted, file) = parameters(&settings);
        let mut command_line = self.fitting(&wanted).await?;
        let mut file = self.fitting(&file).await?;
        // PostgreSQL's 5 s are most of what a replica needs to find a primary that was restarted or promoted.
        file.entry("wal_retrieve_retry_interval".to_owned())
            .or_insert_with(|| "500ms".to_owned());
        let sockets = socket_directories(&settings);
        if let Some((value, _)) = &sockets {
            let known = file.insert("unix_socket_directories".to_owned(), value.clone());
            tracing::debug!(
                wanted = known,
                used = value,
                "moved sockets out of the data directory, where pg_rewind fails at them"
            );
        }
        let mut raised = BTreeMap::new();
        if matches!(role, Role::Replica(_)) {
            for (name, minimum) in minimums {
                let configured = command_line
                    .get(*name)
                    .and_then(|value| value.parse::<u64>().ok());
                if let Some(configured) = configured
                    && configured < *minimum
                {
                    tracing::warn!(
                        parameter = name,
                        configured,
                        used = minimum,
                        "a standby must not have less than its primary had; restart it after the primary has been"
                    );
                    command_line.insert((*name).to_owned(), minimum.to_string());
                    raised.insert(
                        (*name).to_owned(),
                        PendingRestart {
                            old_value: minimum.to_string(),
                            new_value: configured.to_string(),
                        },
                    );
                }
            }
        }
        let managed = self.managed_files(bootstrap_hba.is_some()).await;
        let recovery_conf = self.fitting(&settings.recovery_conf).await?;
        let include = match &settings.custom_conf {
            Some(custom) => text(custom),
            None => "postgresql.base.conf".to_owned(),
        };
        let mut main = format!("{HEADER}include '{}'\n\n", include.replace('\'', "''"));
        for (name, value) in command_line.iter().chain(&file) {
            line(&mut main, name, value);
        }
        for (name, file_name) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
            // An existing cluster may keep them elsewhere, as Debian does, and says where in its own configuration.
            if !file.contains_key(name) && managed.contains(&file_name) {
                line(&mut main, name, &text(&settings.config_dir.join(file_name)));
            }
        }
        if let Role::Replica(recovery) = role {
            main.push_str("\n# recovery\n");
            recovery_section(&mut main, recovery, &recovery_conf);
        }
        let plan = Plan {
            data_dir: settings.data_dir.clone(),
            config_dir: settings.config_dir.clone(),
            custom_conf: settings.custom_conf.clone(),
            sockets: sockets.map(|(_, dir)| dir),
            main,
            hba: (!file.contains_key("hba_file"))
                .then(|| hba::render(&settings, bootstrap_hba))
                .flatten(),
            ident: settings
                .pg_ident
                .as_ref()
                .filter(|_| !file.contains_key("ident_file"))
                .map(|lines| hba::file(lines)),
        };
        let changed = blocking(move || plan.write()).await?;
        let mut args = vec![OsString::from("-D"), settings.data_dir.clone().into_os_string()];
        let mut config_file = OsString::from("--config_file=");
        config_file.push(settings.config_dir.join("postgresql.conf"));
        args.push(config_file);
        args.extend(
            command_line
                .iter()
                .map(|(name, value)| OsString::from(format!("--{name}={value}"))),
        );
        Ok(Configured {
            args,
            command_line,
            file,
            changed,
            raised,
        })
    }

    /// Those of pg_hba.conf and pg_ident.conf that are in the configuration directory, or will be.
    async fn managed_files(&self, bootstrap: bool) -> Vec<&'static str> {
        let settings = self.settings();
        let mut managed = Vec::new();
        for (name, ours) in [
            ("pg_hba.conf", bootstrap || settings.pg_hba.is_some()),
            ("pg_ident.conf", settings.pg_ident.is_some()),
        ] {
            let path = settings.config_dir.join(name);
            if ours || blocking(move || path.exists()).await {
                managed.push(name);
            }
        }
        managed
    }

    /// Brings configuration files back from the copies in a cloned data directory, when they are kept outside of it.
    pub(super) async fn restore_configuration(&self) -> Result<(), Error> {
        let settings = self.settings();
        blocking(move || restore(&settings.data_dir, &settings.config_dir)).await
    }
}

fn recovery_section(main: &mut String, recovery: &Recovery, recovery_conf: &BTreeMap<String, String>) {
    let mut lines: BTreeMap<&str, &str> = TARGETS.iter().map(|name| (*name, "")).collect();
    lines.insert("recovery_target_timeline", "latest");
    for (name, value) in recovery_conf {
        let ours = OURS.contains(&name.as_str()) || TARGETS.contains(&name.as_str());
        if !ours && name != "standby_mode" && name != "trigger_file" {
            lines.insert(name, value);
        }
    }
    lines.insert("primary_conninfo", &recovery.conninfo);
    lines.insert("primary_slot_name", recovery.slot.as_deref().unwrap_or_default());
    for (name, value) in lines {
        line(main, name, value);
    }
}

/// Files that a cloned data directory must bring along when they are kept outside of it.
const COPIED: [&str; 4] = [
    "postgresql.conf",
    "postgresql.base.conf",
    "pg_hba.conf",
    "pg_ident.conf",
];

impl Plan {
    fn write(&self) -> Result<bool, Error> {
        let main = self.config_dir.join("postgresql.conf");
        let base = self.config_dir.join("postgresql.base.conf");
        fs::create_dir_all(&self.config_dir).map_err(Error::file("create", &self.config_dir))?;
        if let Some(sockets) = &self.sockets {
            // Who may connect is for pg_hba.conf to say, as in /var/run/postgresql.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(sockets)
                .map_err(Error::file("create", sockets))?;
        }
        if !base.exists() {
            let foreign = fs::read_to_string(&main).is_ok_and(|content| !written_by_a_manager(&content));
            if foreign {
                fs::rename(&main, &base).map_err(Error::file("rename", &main))?;
                files::sync_parent(&base)?;
            } else if self.custom_conf.is_none() {
                files::write(&base, b"", 0o600)?;
            }
        }
        let mut changed = files::write(&main, self.main.as_bytes(), 0o600)?;
        if let Some(hba) = &self.hba {
            changed |= files::write(&self.config_dir.join("pg_hba.conf"), hba.as_bytes(), 0o600)?;
        }
        if let Some(ident) = &self.ident {
            changed |= files::write(&self.config_dir.join("pg_ident.conf"), ident.as_bytes(), 0o600)?;
        }
        changed |= sweep_auto_conf(&self.data_dir.join("postgresql.auto.conf"))?;
        if self.config_dir != self.data_dir {
            for name in COPIED {
                if let Ok(content) = fs::read(self.config_dir.join(name)) {
                    files::write(&self.data_dir.join(format!("{name}.backup")), &content, 0o600)?;
                }
            }
        }
        Ok(changed)
    }
}

/// A configuration of ours, or of the manager whose place we take: both are written anew, and neither is the user's own.
fn written_by_a_manager(content: &str) -> bool {
    content.starts_with("# Written by Surus") || content.starts_with("# Do not edit this file manually!")
}

fn restore(data_dir: &Path, config_dir: &Path) -> Result<(), Error> {
    if config_dir == data_dir {
        return Ok(());
    }
    fs::create_dir_all(config_dir).map_err(Error::file("create", config_dir))?;
    for name in COPIED {
        let target = config_dir.join(name);
        if !target.exists()
            && let Ok(content) = fs::read(data_dir.join(format!("{name}.backup")))
        {
            files::write(&target, &content, 0o600)?;
        }
    }
    Ok(())
}

/// Takes recovery parameters, and those that go on the command line, out of postgresql.auto.conf.
fn sweep_auto_conf(path: &Path) -> Result<bool, Error> {
    let Ok(content) = fs::read_to_string(path) else {
        return Ok(false);
    };
    let swept = |line: &&str| {
        let name = line
            .split(|character: char| character == '=' || character.is_whitespace())
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let name = name.as_str();
        TARGETS.contains(&name)
            || RECOVERY.contains(&name)
            || name == "primary_conninfo"
            || name == "primary_slot_name"
    };
    if !content.lines().any(|line| swept(&line)) {
        return Ok(false);
    }
    let mut kept: String = content
        .lines()
        .filter(|line| !swept(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    if kept.is_empty() {
        kept.push('\n');
    }
    tracing::info!(path = %path.display(), "took recovery settings out, which would override ours");
    files::write(path, kept.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_the_file() {
        let mut content = String::new();
        line(&mut content, "archive_command", r"test ! -f '/a\b' && cp %p /x");
        assert_eq!(content, "archive_command = 'test ! -f ''/a\\\\b'' && cp %p /x'\n");
    }

    #[test]
    fn recovery_settings_leave_the_auto_conf_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgresql.auto.conf");
        fs::write(
            &path,
            "# by ALTER SYSTEM\nwork_mem = '8MB'\nprimary_conninfo = 'host=x'\nrecovery_target_xid='7'\n",
        )
        .unwrap();
        assert!(sweep_auto_conf(&path).unwrap());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "# by ALTER SYSTEM\nwork_mem = '8MB'\n"
        );
        assert!(!sweep_auto_conf(&path).unwrap());
    }

    #[test]
    fn the_users_configuration_is_kept_once_and_included() {
        let dir = tempfile::tempdir().unwrap();
        let plan = |main: &str| Plan {
            data_dir: dir.path().to_owned(),
            config_dir: dir.path().to_owned(),
            custom_conf: None,
            sockets: None,
            main: format!("{HEADER}{main}"),
            hba: None,
            ident: None,
        };
        fs::write(dir.path().join("postgresql.conf"), "work_mem = 1MB\n").unwrap();
        assert!(plan("a").write().unwrap());
        assert!(!plan("a").write().unwrap());
        assert!(plan("b").write().unwrap());
        let base = fs::read_to_string(dir.path().join("postgresql.base.conf")).unwrap();
        assert_eq!(base, "work_mem = 1MB\n");
    }
}
