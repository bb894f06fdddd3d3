//! What the configuration says, and for whom. Writing it down is the site's.
//!
//! What must be equal across the cluster goes on the command line too, where no file can override it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use surus_core::action::Upstream;
use surus_core::sync::Names;

use super::connect::{address, conninfo};
use super::site::{Configuration, Gate, PidFile, Recovery, Role};
use super::{Error, PendingRestart, Postgres, text};
use crate::config::settings::PostgresSettings;

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
pub(super) const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// Parameters that are ours to write, whatever anybody else says.
pub(super) const OURS: [&str; 5] = [
    "primary_conninfo",
    "primary_slot_name",
    "listen_addresses",
    "port",
    "cluster_name",
];

/// What becomes of `synchronous_standby_names`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acknowledgers {
    /// As it is: the agent's or the user's.
    Kept,
    /// These; `None`: the user's.
    Set(Option<Names>),
    /// As it is; but what the agent wrote for a primary says nothing for a replica.
    ForReplica,
}

/// What becomes of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gating {
    /// It stays as it is; one that is new begins with the next start.
    Kept,
    /// The server is about to start.
    Begins {
        /// With members alone let in.
        shut: bool,
    },
    /// The server runs.
    Turned {
        /// Members alone are let in from now on.
        shut: bool,
    },
}

/// A running server's configuration, written.
pub(super) struct Rewritten {
    /// Its postmaster, which has yet to be told.
    pub(super) postmaster: PidFile,
    /// It was started in recovery.
    pub(super) standby: bool,
    pub(super) configured: Configured,
}

/// What came of writing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configured {
    /// The parameters of the command line.
    pub(super) command_line: BTreeMap<String, String>,
    /// Those of the file.
    pub(super) file: BTreeMap<String, String>,
    /// A file has changed.
    pub(super) changed: bool,
    /// Where a standby runs with more than is configured.
    pub(super) raised: BTreeMap<String, PendingRestart>,
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
pub(super) fn socket_directories(settings: &PostgresSettings) -> Option<(String, PathBuf)> {
    let wanted = settings.parameters.get("unix_socket_directories")?;
    let outside = sibling(&settings.data_dir, ".sockets");
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

/// `path` with `suffix` appended to its last component.
fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// How long a walreceiver is patient with an upstream whose host is gone: until it streams, no timeout of PostgreSQL covers it, and TCP
/// alone takes two hours to find out. Milliseconds for the last, seconds for the others.
const PATIENCE: [(&str, &str); 4] = [
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "25000"),
];

impl Postgres {
    /// The recovery settings for an upstream. The password file has its passwords when this returns.
    pub(super) async fn recovery(&self, upstream: Option<&Upstream>) -> Result<Recovery, Error> {
        let Some(upstream) = upstream else {
            return Ok(Recovery::default());
        };
        let settings = self.settings();
        let place = address(upstream)?;
        self.site.keep_passwords(&place).await?;
        let mut further = vec![
            ("application_name", settings.name.as_str()),
            ("dbname", settings.database.as_str()),
        ];
        let said = &settings.replication.options;
        further.extend(PATIENCE.iter().filter(|(name, _)| !said.contains_key(*name)));
        Ok(Recovery {
            conninfo: conninfo(&settings, &settings.replication, &place, &further),
            slot: upstream.slot.clone(),
        })
    }

    /// Writes the configuration for `role`. `minimums` are the values of pg_control that a standby must not go below.
    pub(super) async fn configure(
        &self,
        role: &Role,
        minimums: &[(&'static str, u64)],
        first_hba: Option<&[String]>,
        acknowledgers: Acknowledgers,
        gating: Gating,
    ) -> Result<Configured, Error> {
        let _writing = self.writing.lock().await;
        self.write(role, minimums, first_hba, acknowledgers, gating).await
    }

    /// Writes the configuration of the running server anew; `None` if there is none.
    pub(super) async fn reconfigure(
        &self,
        acknowledgers: Acknowledgers,
        gating: Gating,
    ) -> Result<Option<Rewritten>, Error> {
        // A cluster in the making is its maker's, and for nobody else until it is made.
        if self.site.unfinished().await.is_some_and(|work| work.bootstrap) {
            return Ok(None);
        }
        // Nobody may start a server in another role between the look and the writing.
        let _writing = self.writing.lock().await;
        let look = self.site.look().await;
        let standby = look.standby;
        let Some(postmaster) = look.postmaster() else {
            return Ok(None);
        };
        let (role, minimums) = if standby {
            (
                Role::Replica(self.present_recovery().await),
                self.site.control_file().await?.minimums,
            )
        } else {
            (Role::Primary, Vec::new())
        };
        let configured = self.write(&role, &minimums, None, acknowledgers, gating).await?;
        Ok(Some(Rewritten {
            postmaster,
            standby,
            configured,
        }))
    }

    /// By whom commits are acknowledged, as our file says; `None` if that is the user's to say.
    pub(super) async fn managed(&self) -> Option<Names> {
        if let Some(known) = self.memory().synchronous.clone() {
            return known;
        }
        let read = self.site.synchronous().await;
        // Whoever has written it meanwhile knows better.
        self.memory().synchronous.get_or_insert(read).clone()
    }

    async fn write(
        &self,
        role: &Role,
        minimums: &[(&'static str, u64)],
        first_hba: Option<&[String]>,
        acknowledgers: Acknowledgers,
        gating: Gating,
    ) -> Result<Configured, Error> {
        let synchronous = match acknowledgers {
            Acknowledgers::Set(names) => names,
            Acknowledgers::Kept => self.managed().await,
            Acknowledgers::ForReplica => self.managed().await.map(|_| Names::Alone),
        };
        let settings = self.settings();
        let known = self.gate().await;
        let gate = match gating {
            Gating::Kept => known.or(settings.gate.then_some(Gate::Open)),
            Gating::Begins { shut } => (shut || settings.gate).then_some(Gate::new(shut)),
            Gating::Turned { shut } => known.map(|_| Gate::new(shut)),
        };
        let (wanted, file) = parameters(&settings);
        let mut command_line = self.site.fitting(&wanted).await?;
        let mut file = self.site.fitting(&file).await?;
        // PostgreSQL's 5 s are most of what a replica needs to find a primary that was restarted or promoted.
        file.entry("wal_retrieve_retry_interval".to_owned())
            .or_insert_with(|| "500ms".to_owned());
        if let Some((value, _)) = socket_directories(&settings) {
            let known = file.insert("unix_socket_directories".to_owned(), value.clone());
            tracing::debug!(
                wanted = known,
                used = value,
                "moved sockets out of the data directory, where pg_rewind fails at them"
            );
        }
        let raised = match role {
            Role::Primary => BTreeMap::new(),
            Role::Replica(_) => raise(&mut command_line, minimums),
        };
        if synchronous.is_some() {
            file.retain(|name, _| !name.eq_ignore_ascii_case("synchronous_standby_names"));
            // A restart shows commits that no standby has acknowledged, so it is the agent's to order: after the `sync` key.
            if !file
                .keys()
                .any(|name| name.eq_ignore_ascii_case("restart_after_crash"))
            {
                file.insert("restart_after_crash".to_owned(), "off".to_owned());
            }
        }
        let configuration = Configuration {
            role: role.clone(),
            recovery: self.site.fitting(&settings.recovery_conf).await?,
            command_line,
            file,
            synchronous: synchronous.clone(),
            gate,
            first_hba: first_hba.map(<[String]>::to_vec),
        };
        let changed = self.site.configure(&configuration).await?;
        {
            let mut memory = self.memory();
            memory.synchronous = Some(synchronous);
            memory.gate = Some(gate);
        }
        Ok(Configured {
            command_line: configuration.command_line,
            file: configuration.file,
            changed,
            raised,
        })
    }
}

/// Raises what is below its minimum. Returns what was.
fn raise(
    command_line: &mut BTreeMap<String, String>,
    minimums: &[(&'static str, u64)],
) -> BTreeMap<String, PendingRestart> {
    let mut raised = BTreeMap::new();
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
    raised
}
