//! The configuration files.
//!
//! The user's own postgresql.conf is renamed to postgresql.base.conf once and included from then on; ours is written anew at each
//! start and reload.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use surus_core::sync::Names;

use super::super::conf::{OURS, TARGETS, socket_directories};
use super::super::hba;
use super::super::site::{Address, Configuration, Gate, Recovery, Role};
use super::{Error, Local, blocking, files, text};
use crate::config::settings::PostgresSettings;

/// The first line of a postgresql.conf of ours.
const HEADER: &str = "# Written by Surus at each start and reload: changes made here are lost.\n\
    # Use `surus edit-config`, or postgresql.base.conf for what is this node's own business.\n";

/// Stands above `synchronous_standby_names` where that is the agent's to write, so that an agent that comes after knows.
const SYNCHRONOUS: &str = "# Written by the leader: `surus edit-config` has synchronous_mode.\n";

/// Who may connect while a new cluster is being made, in its data directory.
pub(super) const PRIVATE: &str = "surus_bootstrap_hba.conf";

/// Who may connect to a server that was started with a gate, in its data directory.
const GATE: &str = "surus_gate_hba.conf";

/// Its first line while the gate is open; what follows is a copy of the user's rules.
const GATE_OPEN: &str = "# Written by Surus: a copy of pg_hba.conf, made at each start and reload.\n";

/// Its first line while it is shut.
const GATE_SHUT: &str = "# Written by Surus: members alone, until standbys have what clients would see.\n";

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

/// How crash recovery makes sure of what is on disk, where nobody has said otherwise: with one call for each file system rather than one for
/// each file, which is most of the time that a primary of ours takes to start again in place.
const SYNC: (&str, &str) = ("recovery_init_sync_method", "syncfs");

/// From this version on Linux tells whoever calls `syncfs` of errors while the data were written.
const TELLS_OF_ERRORS: (u32, u32) = (5, 8);

/// Whether a kernel's release, such as `6.1.0-37-amd64`, is as new as that.
fn tells_of_errors(release: &str) -> bool {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|digits| digits.parse::<u32>().ok());
    numbers
        .next()
        .zip(numbers.next())
        .is_some_and(|version| TELLS_OF_ERRORS <= version)
}

/// A `name = 'value'` line.
fn line(content: &mut String, name: &str, value: &str) {
    let value = value.replace('\\', "\\\\").replace('\'', "''");
    // Writing to a String cannot fail.
    let _ = writeln!(content, "{name} = '{value}'");
}

/// Everything that is written, so that it can be written off the event loop.
struct Plan {
    data_dir: PathBuf,
    config_dir: PathBuf,
    custom_conf: Option<PathBuf>,
    sockets: Option<PathBuf>,
    main: String,
    hba: Option<String>,
    /// A new cluster is being made: the rules that it is going to have, and whose they are.
    private: Option<(PathBuf, PostgresSettings)>,
    gate: Option<(PathBuf, PostgresSettings, Gate)>,
    ident: Option<String>,
}

impl Local {
    /// Writes the configuration files. Returns whether any has changed.
    pub(super) async fn write_configuration(&self, wanted: &Configuration) -> Result<bool, Error> {
        let (settings, wanted) = (self.settings(), wanted.clone());
        let catalogue = self.catalogue().await?;
        let known = self.known(&catalogue, SYNC.0).await?;
        blocking(move || {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            Plan::new(&settings, &wanted, known && tells_of_errors(&release)).write()
        })
        .await
    }

    /// By whom commits are acknowledged, if the file says that an agent wrote so.
    pub(super) async fn read_synchronous(&self) -> Option<Names> {
        let main = self.settings().config_dir.join("postgresql.conf");
        let content = blocking(move || fs::read_to_string(main)).await;
        content.ok().as_deref().and_then(synchronous)
    }

    /// Whom the server lets in, if it was started with a gate.
    pub(super) async fn read_gate(&self) -> Option<Gate> {
        let settings = self.settings();
        let main = settings.config_dir.join("postgresql.conf");
        let rules = settings.data_dir.join(GATE);
        blocking(move || gate(&main, &rules)).await
    }

    /// Brings configuration files back from the copies in a cloned data directory, when they are kept outside of it.
    pub(super) async fn restore_configuration(&self) -> Result<(), Error> {
        let settings = self.settings();
        blocking(move || restore(&settings.data_dir, &settings.config_dir)).await
    }
}

impl Plan {
    fn new(settings: &PostgresSettings, wanted: &Configuration, syncfs: bool) -> Self {
        let file = &wanted.file;
        let include = match &settings.custom_conf {
            Some(custom) => text(custom),
            None => "postgresql.base.conf".to_owned(),
        };
        let mut main = String::from(HEADER);
        if syncfs {
            // Above the user's own file, so that what that says counts.
            line(&mut main, SYNC.0, SYNC.1);
        }
        let _ = write!(main, "include '{}'\n\n", include.replace('\'', "''"));
        for (name, value) in wanted.command_line.iter().chain(file) {
            line(&mut main, name, value);
        }
        let managed = [
            (
                "hba_file",
                "pg_hba.conf",
                wanted.first_hba.is_some() || settings.pg_hba.is_some(),
            ),
            ("ident_file", "pg_ident.conf", settings.pg_ident.is_some()),
        ];
        for (name, file_name, ours) in managed {
            let path = settings.config_dir.join(file_name);
            // An existing cluster may keep them elsewhere, as Debian does, and says where in its own configuration.
            if !file.contains_key(name) && (ours || path.exists()) {
                line(&mut main, name, &text(&path));
            }
        }
        if let Some(names) = &wanted.synchronous {
            main.push_str(SYNCHRONOUS);
            line(&mut main, "synchronous_standby_names", &names.to_string());
        }
        if wanted.first_hba.is_some() {
            line(&mut main, "hba_file", &text(&settings.data_dir.join(PRIVATE)));
        } else if wanted.gate.is_some() {
            line(&mut main, "hba_file", &text(&settings.data_dir.join(GATE)));
        }
        if let Role::Replica(recovery) = &wanted.role {
            main.push_str("\n# recovery\n");
            recovery_section(&mut main, recovery, &wanted.recovery);
        }
        let chosen = file.get("hba_file").map(PathBuf::from);
        let rules = chosen.unwrap_or_else(|| settings.config_dir.join("pg_hba.conf"));
        Self {
            data_dir: settings.data_dir.clone(),
            config_dir: settings.config_dir.clone(),
            custom_conf: settings.custom_conf.clone(),
            sockets: socket_directories(settings).map(|(_, dir)| dir),
            main,
            hba: (!file.contains_key("hba_file"))
                .then(|| hba::render(settings, wanted.first_hba.as_deref()))
                .flatten(),
            private: wanted
                .first_hba
                .is_some()
                .then(|| (rules.clone(), settings.clone())),
            gate: wanted
                .gate
                .filter(|_| wanted.first_hba.is_none())
                .map(|gate| (rules, settings.clone(), gate)),
            ident: settings
                .pg_ident
                .as_ref()
                .filter(|_| !file.contains_key("ident_file"))
                .map(|lines| hba::file(lines)),
        }
    }
}

/// The names below our own mark.
fn synchronous(content: &str) -> Option<Names> {
    let (_, rest) = content.split_once(SYNCHRONOUS)?;
    let (_, quoted) = rest.lines().next()?.split_once(" = '")?;
    let value = quoted.strip_suffix('\'')?;
    Some(Names::parse(&value.replace("''", "'").replace("\\\\", "\\")))
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
    /// What the user's rules are.
    fn rules(&self, path: &Path) -> String {
        let rules = fs::read_to_string(path);
        rules
            .or_else(|_| fs::read_to_string(self.data_dir.join("pg_hba.conf")))
            .unwrap_or_default()
    }

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
        if let Some((rules, settings)) = &self.private {
            let content = hba::superuser_here(settings, &self.rules(rules));
            files::write(&self.data_dir.join(PRIVATE), content.as_bytes(), 0o600)?;
        }
        if let Some((rules, settings, gate)) = &self.gate {
            let rules = self.rules(rules);
            let content = match gate {
                Gate::Open => format!("{GATE_OPEN}{rules}"),
                Gate::Shut => format!("{GATE_SHUT}{}", hba::members(settings, &rules)),
            };
            changed |= files::write(&self.data_dir.join(GATE), content.as_bytes(), 0o600)?;
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

/// Whom the gate that postgresql.conf names lets in.
fn gate(main: &Path, rules: &Path) -> Option<Gate> {
    let named = format!("hba_file = '{}'", text(rules).replace('\'', "''"));
    let content = fs::read_to_string(main).ok()?;
    let last = content.lines().rev().find(|line| line.starts_with("hba_file "))?;
    let shut = || fs::read_to_string(rules).is_ok_and(|rules| rules.starts_with(GATE_SHUT));
    (last == named).then(|| Gate::new(shut()))
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

/// Puts the passwords of all our roles for a member into the password file, keeping lines for others.
pub(super) fn write_pgpass(settings: &PostgresSettings, address: &Address) -> Result<(), Error> {
    // A file of one cluster stays far below this many lines; beyond, the oldest go.
    const KEPT: usize = 200;
    let escape = |field: &str| field.replace('\\', "\\\\").replace(':', "\\:");
    let roles = [
        Some(&settings.replication),
        settings.rewind.as_ref(),
        Some(&settings.superuser),
    ];
    let mut ours = Vec::new();
    for role in roles.into_iter().flatten() {
        if let Some(password) = &role.password {
            let key = format!(
                "{}:{}:*:{}:",
                escape(&address.host),
                address.port,
                escape(&role.username)
            );
            if !ours.iter().any(|(known, _)| *known == key) {
                ours.push((key, escape(password)));
            }
        }
    }
    let old = fs::read_to_string(&settings.pgpass).unwrap_or_default();
    let others = old
        .lines()
        .filter(|line| !line.is_empty() && !ours.iter().any(|(key, _)| line.starts_with(key.as_str())));
    let mut lines: Vec<String> = others.map(str::to_owned).collect();
    let cut = lines.len().saturating_sub(KEPT);
    lines.drain(..cut);
    lines.extend(ours.iter().map(|(key, password)| format!("{key}{password}")));
    lines.sort_unstable();
    let mut content = lines.join("\n");
    content.push('\n');
    files::write(&settings.pgpass, content.as_bytes(), 0o600).map(|_| ())
}

/// The copy of the dynamic configuration in the data directory.
fn dynamic_copy(data_dir: &Path) -> PathBuf {
    data_dir.join("patroni.dynamic.json")
}

pub(super) fn read_dynamic(data_dir: &Path) -> Option<Value> {
    let text = fs::read_to_string(dynamic_copy(data_dir)).ok()?;
    serde_json::from_str(&text).ok()
}

pub(super) fn write_dynamic(data_dir: &Path, content: &str) {
    if !data_dir.join("PG_VERSION").exists() {
        return;
    }
    let path = dynamic_copy(data_dir);
    let fresh = path.with_extension("json.new");
    let written = fs::write(&fresh, content)
        .and_then(|()| fs::File::open(&fresh)?.sync_all())
        .and_then(|()| fs::rename(&fresh, &path));
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "cannot keep a copy of the dynamic configuration");
    }
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
    fn whose_the_synchronous_names_are_is_read_back() {
        for text in ["", "b", "ANY 1 (\"it's\",\"back\\slash\")"] {
            let names = Names::parse(text);
            let mut content = format!("{HEADER}\n{SYNCHRONOUS}");
            line(&mut content, "synchronous_standby_names", &names.to_string());
            content.push_str("\n# recovery\nprimary_conninfo = 'x'\n");
            assert_eq!(synchronous(&content), Some(names));
        }
        let users = format!("{HEADER}\nsynchronous_standby_names = 'b'\n");
        assert_eq!(synchronous(&users), None);
    }

    #[test]
    fn only_a_kernel_that_tells_of_errors_is_asked_for_whole_file_systems() {
        for release in ["5.8", "5.10.0-30-amd64\n", "6.1.0-37-amd64", "10.0"] {
            assert!(tells_of_errors(release), "{release}");
        }
        for release in ["", "5.7.19", "4.18.0-553.el8_10.x86_64", "strange", "5"] {
            assert!(!tells_of_errors(release), "{release}");
        }
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
            private: None,
            gate: None,
            ident: None,
        };
        fs::write(dir.path().join("postgresql.conf"), "work_mem = 1MB\n").unwrap();
        assert!(plan("a").write().unwrap());
        assert!(!plan("a").write().unwrap());
        assert!(plan("b").write().unwrap());
        let base = fs::read_to_string(dir.path().join("postgresql.base.conf")).unwrap();
        assert_eq!(base, "work_mem = 1MB\n");
    }

    #[test]
    fn an_agent_that_comes_after_knows_the_gate() {
        let dir = tempfile::tempdir().unwrap();
        let (main, rules) = (dir.path().join("postgresql.conf"), dir.path().join(GATE));
        let own = format!("hba_file = '{}'\n", rules.display());
        fs::write(&rules, format!("{GATE_SHUT}local all all peer\n")).unwrap();
        fs::write(&main, "hba_file = '/etc/pg_hba.conf'\n").unwrap();
        assert_eq!(gate(&main, &rules), None);
        fs::write(&main, format!("hba_file = '/etc/pg_hba.conf'\n{own}")).unwrap();
        assert_eq!(gate(&main, &rules), Some(Gate::Shut));
        fs::write(&rules, format!("{GATE_OPEN}local all all peer\n")).unwrap();
        assert_eq!(gate(&main, &rules), Some(Gate::Open));
    }
}
