//! The `postgresql` section.
//!
//! It is read in two parts. *Identity* (addresses, directories, roles) is the node's alone. *Behaviour* may come from the local
//! file or from the dynamic configuration, and is read again from the merged section whenever the latter changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::address;
use super::endpoints;
use super::parameters;
use super::section::Section;
use super::settings::{Credentials, CustomMethod, HostPort, PostgresSettings};
use super::source::Surroundings;
use super::yaml::{Entry, Node};

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// Keys that a node has to itself; they are ignored in the dynamic configuration.
pub(super) const IDENTITY: &[&str] = &[
    "connect_address",
    "proxy_address",
    "listen",
    "config_dir",
    "data_dir",
    "pgpass",
    "authentication",
];

/// Binaries that `bin_name` may rename.
const BINARIES: &[&str] = &[
    "pg_ctl",
    "initdb",
    "pg_controldata",
    "pg_basebackup",
    "postgres",
    "pg_isready",
    "pg_rewind",
];

/// What libpq takes from `authentication` besides user and password.
const LIBPQ_OPTIONS: &[&str] = &[
    "sslmode",
    "sslkey",
    "sslcert",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "sslnegotiation",
    "gssencmode",
    "channel_binding",
];

/// Recovery parameters that follow from the leader.
const RECOVERY_OURS: &[&str] = &["primary_conninfo", "primary_slot_name", "standby_mode"];

/// The local section. `None` if something in it is missing without which the rest cannot be used.
pub(super) fn read(
    top: &Section<'_>,
    scope: &str,
    name: &str,
    around: &Surroundings,
) -> Option<PostgresSettings> {
    let section = top.section("postgresql");
    if !section.present {
        top.missing(
            "postgresql",
            "write a `postgresql:` section with `listen`, `data_dir` and `authentication`",
        );
        return None;
    }
    let listen = listen(&section);
    let default = listen.as_ref().map(|(hosts, port)| HostPort {
        // A node that listens on one real address among wildcards is reached there.
        host: hosts
            .iter()
            .find(|host| !address::is_wildcard(host))
            .unwrap_or(&hosts[0])
            .clone(),
        port: *port,
    });
    let port = default.as_ref().map_or(PORT, |listen| listen.port);
    let connect = address::read(&section, "connect_address", port);
    let connect_address = endpoints::reachable(&section, connect, default.as_ref());
    let proxy_address = address::read(&section, "proxy_address", port);
    let data_dir = data_dir(&section, around);
    let config_dir = endpoints::path(&section, "config_dir", around);
    let pgpass = endpoints::path(&section, "pgpass", around);
    let (superuser, replication, rewind) = roles(&section);

    let (listen_hosts, port) = listen.unwrap_or_else(|| (vec!["localhost".to_owned()], PORT));
    // With these in place the rest of the section is checked even if one of the required ones is missing.
    let placeholder = HostPort {
        host: "localhost".to_owned(),
        port,
    };
    let mut settings = PostgresSettings {
        listen_hosts,
        port,
        connect_address: connect_address.clone().unwrap_or(placeholder),
        proxy_address,
        config_dir: config_dir.or_else(|| data_dir.clone()).unwrap_or_default(),
        data_dir: data_dir.clone().unwrap_or_default(),
        pgpass: pgpass.unwrap_or_else(|| match around.environment.get("HOME") {
            Some(home) => Path::new(home).join("pgpass"),
            // Next to the data directory the agent must be able to write anyway.
            None => data_dir
                .as_ref()
                .map(|dir| dir.with_file_name("pgpass"))
                .unwrap_or_default(),
        }),
        superuser,
        replication: replication.clone().unwrap_or_else(|| role("replicator")),
        rewind,
        ..blank(scope, name)
    };
    behaviour(&section, &mut settings, Some(around));
    let bootstrap = top
        .node("bootstrap")
        .and_then(|node| node.get("dcs")?.get("postgresql")?.get("parameters"));
    let local = section.node("parameters").map_or(&[][..], entries_of);
    parameters::warn_ignored(
        "postgresql.parameters",
        local,
        bootstrap.map_or(&[][..], entries_of),
        section.report,
    );
    if section.boolean("use_slots") == Some(false) {
        section.warning(
            "use_slots",
            "is ignored here: slots are switched on or off for the cluster as a whole",
            "set it for the cluster: `surus edit-config`, or `bootstrap.dcs.postgresql.use_slots` before the first start",
        );
    }
    settings.use_slots = true;
    section.finish();
    (connect_address.is_some() && data_dir.is_some() && replication.is_some()).then_some(settings)
}

fn entries_of(node: &Node) -> &[Entry] {
    match &node.data {
        super::yaml::Data::Map(entries) => entries,
        _ => &[],
    }
}

fn listen(section: &Section<'_>) -> Option<(Vec<String>, u16)> {
    let Some(text) = section.text("listen") else {
        section.missing(
            "listen",
            "write `listen: 10.0.0.1:5432`, or `'*:5432'` for every interface",
        );
        return None;
    };
    match address::hosts_port(&text, PORT) {
        Ok((hosts, port)) => {
            if let Some(host) = hosts.first() {
                address::warn_ambiguous(
                    section,
                    "listen",
                    &text,
                    &HostPort {
                        host: host.clone(),
                        port,
                    },
                );
            }
            Some((hosts, port))
        }
        Err(reason) => {
            section.error(
                "listen",
                reason,
                "write host:port, host1,host2:port, or `'*:5432'` for every interface",
            );
            None
        }
    }
}

fn data_dir(section: &Section<'_>, around: &Surroundings) -> Option<PathBuf> {
    if section.node("data_dir").is_none() {
        section.missing(
            "data_dir",
            "write the absolute path of the data directory, such as /var/lib/postgresql/15/main",
        );
        return None;
    }
    let path = endpoints::path(section, "data_dir", around)?;
    // Components drop the slash at the end, so that `data_dir` with a suffix is a sibling.
    let path: PathBuf = path.components().collect();
    let depth = path.components().count();
    if depth < 2 {
        section.error(
            "data_dir",
            "the root directory cannot be a data directory",
            "write the absolute path of the data directory, such as /var/lib/postgresql/15/main",
        );
        return None;
    }
    if depth < 3 {
        section.warning(
            "data_dir",
            format!(
                "{} lies in the root directory, where a clone cannot move it aside",
                path.display()
            ),
            "use a directory within a directory that the user postgres owns",
        );
    }
    Some(path)
}

fn role(username: &str) -> Credentials {
    Credentials {
        username: username.to_owned(),
        password: None,
        options: BTreeMap::new(),
    }
}

/// Superuser, replication, rewind.
fn roles(section: &Section<'_>) -> (Credentials, Option<Credentials>, Option<Credentials>) {
    let roles = section.section("authentication");
    let superuser = credentials(&roles, "superuser").unwrap_or_else(|| role("postgres"));
    let replication = credentials(&roles, "replication");
    if replication.is_none() {
        roles.missing(
            "replication.username",
            "write `replication:` with `username` and `password` of the role that replicas connect as",
        );
    }
    let rewind = credentials(&roles, "rewind");
    roles.finish();
    (superuser, replication, rewind)
}

fn credentials<'a>(roles: &Section<'a>, key: &'a str) -> Option<Credentials> {
    let section = roles.section(key);
    let username = section.text("username");
    let password = section.text("password");
    let options: BTreeMap<String, String> = LIBPQ_OPTIONS
        .iter()
        .filter_map(|option| Some(((*option).to_owned(), section.text(option)?)))
        .collect();
    if username.is_none() && (password.is_some() || !options.is_empty()) && key != "superuser" {
        section.missing(
            "username",
            "write the name of the role that the password belongs to",
        );
    }
    section.finish();
    let username = username.or_else(|| (key == "superuser").then(|| "postgres".to_owned()))?;
    Some(Credentials {
        username,
        password,
        options,
    })
}

/// Settings with every default and nothing of the node.
pub(crate) fn blank(scope: &str, name: &str) -> PostgresSettings {
    PostgresSettings {
        scope: scope.to_owned(),
        name: name.to_owned(),
        listen_hosts: vec!["localhost".to_owned()],
        port: PORT,
        connect_address: HostPort {
            host: "localhost".to_owned(),
            port: PORT,
        },
        proxy_address: None,
        data_dir: PathBuf::new(),
        config_dir: PathBuf::new(),
        custom_conf: None,
        bin_dir: None,
        bin_name: BTreeMap::new(),
        pgpass: PathBuf::new(),
        database: "postgres".to_owned(),
        use_unix_socket: false,
        superuser: role("postgres"),
        replication: role("replicator"),
        rewind: None,
        parameters: BTreeMap::new(),
        pg_hba: None,
        pg_ident: None,
        recovery_conf: BTreeMap::new(),
        basebackup: Vec::new(),
        create_replica_methods: Vec::new(),
        replica_methods: BTreeMap::new(),
        callbacks: BTreeMap::new(),
        pre_promote: None,
        before_stop: None,
        pg_ctl_timeout: 60,
        use_pg_rewind: false,
        use_slots: true,
        gate: false,
        remove_data_directory_on_rewind_failure: false,
        remove_data_directory_on_diverged_timelines: false,
    }
}

/// The part that may come from either side, into `settings`. `around` is there for local paths only.
pub(super) fn behaviour(
    section: &Section<'_>,
    settings: &mut PostgresSettings,
    around: Option<&Surroundings>,
) {
    let path = |key| match around {
        Some(around) => endpoints::path(section, key, around),
        None => absolute(section, key),
    };
    settings.bin_dir = path("bin_dir");
    settings.custom_conf = path("custom_conf");
    let bin_name = section.section("bin_name");
    for binary in BINARIES {
        if let Some(name) = bin_name.text(binary) {
            settings.bin_name.insert((*binary).to_owned(), name);
        }
    }
    bin_name.finish();
    if let Some(database) = section.text("database") {
        settings.database = database;
    }
    settings.use_unix_socket = section.boolean("use_unix_socket").unwrap_or(false);

    let written = section.section("parameters");
    settings.parameters = parameters::own(parameters::texts(
        &written.path,
        written.entries(),
        section.report,
    ));
    settings.pg_hba = hba_lines(section, "pg_hba");
    settings.pg_ident = section
        .texts("pg_ident")
        .map(|lines| lines.into_iter().map(|(line, _)| line).collect());
    let recovery = section.section("recovery_conf");
    settings.recovery_conf = parameters::texts(&recovery.path, recovery.entries(), section.report);
    for ours in RECOVERY_OURS {
        if settings.recovery_conf.remove(*ours).is_some() {
            recovery.warning(ours, "is ignored", "remove it: it follows from who the leader is");
        }
    }
    settings.basebackup = section.options("basebackup");
    methods(section, settings);
    callbacks(section, settings);
    settings.pre_promote = section.text("pre_promote");
    settings.before_stop = section.text("before_stop");
    if let Some(seconds) = section.integer("pg_ctl_timeout", 1..=86_400) {
        settings.pg_ctl_timeout = seconds.unsigned_abs();
    }
    settings.use_pg_rewind = section.boolean("use_pg_rewind").unwrap_or(false);
    settings.use_slots = section.boolean("use_slots").unwrap_or(true);
    settings.remove_data_directory_on_rewind_failure = section
        .boolean("remove_data_directory_on_rewind_failure")
        .unwrap_or(false);
    settings.remove_data_directory_on_diverged_timelines = section
        .boolean("remove_data_directory_on_diverged_timelines")
        .unwrap_or(false);
    section.without_effect(&["use_unix_socket_repl"]);
    section.not_obeyed(
        &["krbsrvname", "rewind"],
        "remove it, or ask for it with an issue",
    );
    if section
        .text("config_base_name")
        .is_some_and(|name| name != "postgresql")
    {
        section.error(
            "config_base_name",
            "the configuration file must be called postgresql.conf",
            "rename the file, and remove `config_base_name`",
        );
    }
}

/// A path of the dynamic configuration: it means the same on every member, so it must be absolute.
fn absolute<'a>(section: &Section<'a>, key: &'a str) -> Option<PathBuf> {
    let path = PathBuf::from(section.text(key)?);
    if path.is_absolute() {
        return Some(path);
    }
    section.error(
        key,
        format!("{} is not absolute", path.display()),
        "write a path that begins with /",
    );
    None
}

fn methods(section: &Section<'_>, settings: &mut PostgresSettings) {
    let names = section
        .texts("create_replica_methods")
        .or_else(|| section.texts("create_replica_method"));
    settings.create_replica_methods.clear();
    settings.replica_methods.clear();
    for (name, mark) in names.unwrap_or_default() {
        if name != "basebackup" {
            let Some(key) = section.key(&name) else {
                section.report.error(
                    &section.path_of("create_replica_methods"),
                    &mark,
                    format!("there is no section `{name}` that says what to run"),
                    format!("write `{name}:` with `command: …` below `postgresql:`, or remove the method"),
                );
                continue;
            };
            let Some(method) = custom_method(section, key) else {
                continue;
            };
            settings.replica_methods.insert(name.clone(), method);
        }
        settings.create_replica_methods.push(name);
    }
    if settings.create_replica_methods.is_empty() {
        settings.create_replica_methods.push("basebackup".to_owned());
    }
}

/// A method's own section. Keys that are not ours become arguments of the command.
pub(super) fn custom_method<'a>(parent: &Section<'a>, key: &'a str) -> Option<CustomMethod> {
    let section = parent.section(key);
    let mut extra = BTreeMap::new();
    for entry in section.entries() {
        if matches!(
            entry.key.as_str(),
            "command"
                | "no_params"
                | "no_leader"
                | "no_master"
                | "keep_data"
                | "keep_existing_recovery_conf"
                | "recovery_conf"
        ) {
            continue;
        }
        if let Some(text) = section.text(&entry.key) {
            extra.insert(entry.key.clone(), text);
        }
    }
    let Some(command) = section.text("command") else {
        section.missing("command", "write the command line to run");
        return None;
    };
    Some(CustomMethod {
        name: key.to_owned(),
        command,
        no_params: section.boolean("no_params").unwrap_or(false),
        no_leader: section
            .boolean("no_leader")
            .or_else(|| section.boolean("no_master"))
            .unwrap_or(false),
        keep_data: section.boolean("keep_data").unwrap_or(false),
        extra,
    })
}

fn callbacks(section: &Section<'_>, settings: &mut PostgresSettings) {
    let callbacks = section.section("callbacks");
    settings.callbacks.clear();
    for action in ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"] {
        if let Some(command) = callbacks.text(action) {
            settings.callbacks.insert(action.to_owned(), command);
        }
    }
    callbacks.finish();
}

/// Lines of `pg_hba.conf`; one that PostgreSQL would refuse is an error, because a new cluster would not start with it.
pub(super) fn hba_lines<'a>(section: &Section<'a>, key: &'a str) -> Option<Vec<String>> {
    let lines = section.texts(key)?;
    for (index, (line, mark)) in lines.iter().enumerate() {
        if let Err((message, remedy)) = hba_line(line) {
            section.report.error(
                &format!("{}[{index}]", section.path_of(key)),
                mark,
                message,
                remedy,
            );
        }
    }
    Some(lines.into_iter().map(|(line, _)| line).collect())
}

fn hba_line(line: &str) -> Result<(), (String, String)> {
    let mut words = words(line).into_iter();
    let Some(kind) = words.next() else { return Ok(()) };
    let words = words.count();
    // Type, database, user, [address,] method.
    let least = match kind.as_str() {
        "local" => 3,
        "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => 4,
        "include" | "include_if_exists" | "include_dir" | "@" => return Ok(()),
        _ => {
            return Err((
                format!("`{kind}` is not a connection type of pg_hba.conf"),
                "begin the line with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc".to_owned(),
            ));
        }
    };
    if words < least {
        let address = if least == 4 { " address" } else { "" };
        return Err((
            "the line is too short".to_owned(),
            format!("write `{kind} database user{address} method`"),
        ));
    }
    Ok(())
}

/// The words of a line up to a comment; quoted ones may contain spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.push(c);
            }
            '#' if !quoted => break,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
