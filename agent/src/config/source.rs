//! Where the configuration comes from: a file, a directory of files, `PATRONI_CONFIGURATION`, and `PATRONI_*` over them.
//!
//! The result is one tree in which each value still knows its file and line, or its variable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::problem::{Mark, Problem, Report, Severity};
use super::section::nearest;
use super::yaml::{self, Data, Entry, Node};

/// What of the process the configuration depends on. A parameter, so that tests need not change the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The environment: `PATRONI_*`, `HOME`, `PATH`.
    pub environment: BTreeMap<String, String>,
    /// What relative paths are relative to.
    pub current_dir: PathBuf,
}

impl Surroundings {
    /// Those of this process. Variables that are not Unicode are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            environment,
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// `path` with `~/` replaced and made absolute.
    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        if let Some(rest) = path.strip_prefix("~/")
            && let Some(home) = self.environment.get("HOME")
        {
            return Path::new(home).join(rest);
        }
        self.current_dir.join(path)
    }
}

/// How a variable's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    List,
    Map,
}

/// Variables with the key that each sets; contract 3.10.
const VARIABLES: &[(&str, &str, Kind)] = &[
    ("SCOPE", "scope", Kind::One),
    ("NAME", "name", Kind::One),
    ("NAMESPACE", "namespace", Kind::One),
    ("THREAD_POOL_SIZE", "thread_pool_size", Kind::One),
    ("THREAD_STACK_SIZE", "thread_stack_size", Kind::One),
    ("LOGLEVEL", "log.level", Kind::One),
    ("LOGFORMAT", "log.format", Kind::One),
    ("LOG_DATEFMT", "log.dateformat", Kind::One),
    ("LOG_TYPE", "log.type", Kind::One),
    ("LOG_LEVEL", "log.level", Kind::One),
    ("LOG_TRACEBACK_LEVEL", "log.traceback_level", Kind::One),
    ("LOG_FORMAT", "log.format", Kind::One),
    ("LOG_DATEFORMAT", "log.dateformat", Kind::One),
    ("LOG_STATIC_FIELDS", "log.static_fields", Kind::Map),
    ("LOG_MAX_QUEUE_SIZE", "log.max_queue_size", Kind::One),
    ("LOG_DIR", "log.dir", Kind::One),
    ("LOG_MODE", "log.mode", Kind::One),
    ("LOG_FILE_SIZE", "log.file_size", Kind::One),
    ("LOG_FILE_NUM", "log.file_num", Kind::One),
    ("LOG_LOGGERS", "log.loggers", Kind::Map),
    (
        "LOG_DEDUPLICATE_HEARTBEAT_LOGS",
        "log.deduplicate_heartbeat_logs",
        Kind::One,
    ),
    ("RESTAPI_LISTEN", "restapi.listen", Kind::One),
    ("RESTAPI_CONNECT_ADDRESS", "restapi.connect_address", Kind::One),
    ("RESTAPI_CERTFILE", "restapi.certfile", Kind::One),
    ("RESTAPI_KEYFILE", "restapi.keyfile", Kind::One),
    ("RESTAPI_KEYFILE_PASSWORD", "restapi.keyfile_password", Kind::One),
    ("RESTAPI_CAFILE", "restapi.cafile", Kind::One),
    ("RESTAPI_CIPHERS", "restapi.ciphers", Kind::One),
    ("RESTAPI_VERIFY_CLIENT", "restapi.verify_client", Kind::One),
    (
        "RESTAPI_HTTP_EXTRA_HEADERS",
        "restapi.http_extra_headers",
        Kind::Map,
    ),
    (
        "RESTAPI_HTTPS_EXTRA_HEADERS",
        "restapi.https_extra_headers",
        Kind::Map,
    ),
    ("RESTAPI_ALLOWLIST", "restapi.allowlist", Kind::List),
    (
        "RESTAPI_ALLOWLIST_INCLUDE_MEMBERS",
        "restapi.allowlist_include_members",
        Kind::One,
    ),
    (
        "RESTAPI_REQUEST_QUEUE_SIZE",
        "restapi.request_queue_size",
        Kind::One,
    ),
    ("RESTAPI_SERVER_TOKENS", "restapi.server_tokens", Kind::One),
    ("RESTAPI_USERNAME", "restapi.authentication.username", Kind::One),
    ("RESTAPI_PASSWORD", "restapi.authentication.password", Kind::One),
    ("CTL_INSECURE", "ctl.insecure", Kind::One),
    ("CTL_CACERT", "ctl.cacert", Kind::One),
    ("CTL_CERTFILE", "ctl.certfile", Kind::One),
    ("CTL_KEYFILE", "ctl.keyfile", Kind::One),
    ("CTL_KEYFILE_PASSWORD", "ctl.keyfile_password", Kind::One),
    ("CTL_USERNAME", "ctl.authentication.username", Kind::One),
    ("CTL_PASSWORD", "ctl.authentication.password", Kind::One),
    ("POSTGRESQL_LISTEN", "postgresql.listen", Kind::One),
    (
        "POSTGRESQL_CONNECT_ADDRESS",
        "postgresql.connect_address",
        Kind::One,
    ),
    ("POSTGRESQL_PROXY_ADDRESS", "postgresql.proxy_address", Kind::One),
    ("POSTGRESQL_CONFIG_DIR", "postgresql.config_dir", Kind::One),
    ("POSTGRESQL_DATA_DIR", "postgresql.data_dir", Kind::One),
    ("POSTGRESQL_PGPASS", "postgresql.pgpass", Kind::One),
    ("POSTGRESQL_BIN_DIR", "postgresql.bin_dir", Kind::One),
    ("POSTGRESQL_BIN_PG_CTL", "postgresql.bin_name.pg_ctl", Kind::One),
    ("POSTGRESQL_BIN_INITDB", "postgresql.bin_name.initdb", Kind::One),
    (
        "POSTGRESQL_BIN_PG_CONTROLDATA",
        "postgresql.bin_name.pg_controldata",
        Kind::One,
    ),
    (
        "POSTGRESQL_BIN_PG_BASEBACKUP",
        "postgresql.bin_name.pg_basebackup",
        Kind::One,
    ),
    (
        "POSTGRESQL_BIN_POSTGRES",
        "postgresql.bin_name.postgres",
        Kind::One,
    ),
    (
        "POSTGRESQL_BIN_PG_ISREADY",
        "postgresql.bin_name.pg_isready",
        Kind::One,
    ),
    (
        "POSTGRESQL_BIN_PG_REWIND",
        "postgresql.bin_name.pg_rewind",
        Kind::One,
    ),
];

/// What may follow `PATRONI_SUPERUSER_` and its like.
const ROLE_SUFFIXES: &[&str] = &[
    "USERNAME",
    "PASSWORD",
    "SSLMODE",
    "SSLKEY",
    "SSLPASSWORD",
    "SSLCERT",
    "SSLROOTCERT",
    "SSLCRL",
    "SSLCRLDIR",
    "GSSENCMODE",
    "CHANNEL_BINDING",
    "SSLNEGOTIATION",
];

/// What may follow `PATRONI_ETCD_` and `PATRONI_ETCD3_`.
const ETCD_SUFFIXES: &[&str] = &[
    "HOST",
    "HOSTS",
    "PORT",
    "USE_PROXIES",
    "PROTOCOL",
    "SRV",
    "SRV_SUFFIX",
    "URL",
    "PROXY",
    "CACERT",
    "CERT",
    "KEY",
    "USERNAME",
    "PASSWORD",
];

/// The whole local configuration as one tree, or `None` if it cannot be read.
pub(super) fn tree(path: Option<&Path>, around: &Surroundings, report: &Report) -> Option<Node> {
    let mut root = match (path, around.environment.get("PATRONI_CONFIGURATION")) {
        (Some(path), _) => from_path(path, report)?,
        // Patroni ignores the other variables in this case, and so do we.
        (None, Some(text)) => return document(text, "PATRONI_CONFIGURATION", report),
        (None, None) => Node {
            mark: Mark::whole("the environment"),
            data: Data::Map(Vec::new()),
        },
    };
    root.merge(from_environment(&around.environment, report));
    Some(root)
}

fn from_path(path: &Path, report: &Report) -> Option<Node> {
    let mark = Mark::whole(&path.display().to_string());
    if !path.is_dir() {
        return file(path, report);
    }
    let mut names: Vec<PathBuf> = match std::fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) => {
            report.error(
                "",
                &mark,
                format!("cannot list the directory: {error}"),
                "make it readable for this user",
            );
            return None;
        }
    };
    names.retain(|name| {
        name.extension()
            .is_some_and(|extension| extension == "yml" || extension == "yaml")
    });
    names.sort();
    if names.is_empty() {
        report.error(
            "",
            &mark,
            "the directory has no *.yml or *.yaml",
            "name a file, or put one there",
        );
        return None;
    }
    // Every file is read before the first failure ends it, so that all problems are found.
    let trees: Vec<Option<Node>> = names.iter().map(|name| file(name, report)).collect();
    trees.into_iter().reduce(|whole, next| {
        let (mut whole, next) = (whole?, next?);
        whole.merge(next);
        Some(whole)
    })?
}

fn file(path: &Path, report: &Report) -> Option<Node> {
    let origin = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => document(&text, &origin, report),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..at]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count();
                let mark = Mark {
                    line,
                    column: 1,
                    ..Mark::whole(&origin)
                };
                report.error("", &mark, "the text is not UTF-8", "convert the file to UTF-8");
                None
            }
        },
        Err(error) => {
            report.error(
                "",
                &Mark::whole(&origin),
                format!("cannot read the file: {error}"),
                "check the path, and that this user may read it",
            );
            None
        }
    }
}

fn document(text: &str, origin: &str, report: &Report) -> Option<Node> {
    let root = match yaml::parse(text, origin, report) {
        Ok(root) => root,
        Err(problem) => {
            report.push(problem);
            return None;
        }
    };
    match &root.data {
        Data::Map(entries) if !entries.is_empty() => Some(root),
        _ => {
            report.error(
                "",
                &root.mark,
                format!("expected the sections of a configuration, found {}", root.kind()),
                "begin with `scope: …` and `name: …`; the package brings a complete example, config.example.yml",
            );
            None
        }
    }
}

fn from_environment(environment: &BTreeMap<String, String>, report: &Report) -> Node {
    let mut root = Node {
        mark: Mark::whole("the environment"),
        data: Data::Map(Vec::new()),
    };
    for (name, text) in environment {
        let Some(short) = name.strip_prefix("PATRONI_") else {
            continue;
        };
        if short == "CONFIGURATION" {
            continue;
        }
        let mark = Mark::whole(&format!("environment variable {name}"));
        let Some((path, kind)) = key_of(short) else {
            let known = VARIABLES.iter().map(|(known, ..)| *known);
            let remedy = nearest(short, known).map_or_else(
                || "unset it".to_owned(),
                |near| format!("did you mean `PATRONI_{near}`?"),
            );
            report.warning(name, &mark, "unknown variable; it has no effect", remedy);
            continue;
        };
        match value_of(text, kind, &mark) {
            Ok(value) => insert(&mut root, &path, value),
            Err(problem) => report.error(&path, &mark, problem.message, problem.remedy),
        }
    }
    root
}

/// The key that a variable (without `PATRONI_`) sets.
fn key_of(short: &str) -> Option<(String, Kind)> {
    if let Some((_, path, kind)) = VARIABLES.iter().find(|(name, ..)| *name == short) {
        return Some(((*path).to_owned(), *kind));
    }
    let (first, rest) = short.split_once('_')?;
    let key = rest.to_ascii_lowercase();
    match first {
        "SUPERUSER" | "REPLICATION" | "REWIND" if ROLE_SUFFIXES.contains(&rest) => Some((
            format!("postgresql.authentication.{}.{key}", first.to_ascii_lowercase()),
            Kind::One,
        )),
        "ETCD" | "ETCD3" if ETCD_SUFFIXES.contains(&rest) => {
            let kind = if rest == "HOSTS" { Kind::List } else { Kind::One };
            Some((format!("{}.{key}", first.to_ascii_lowercase()), kind))
        }
        // Whatever they say, the section that they open is refused with its remedy.
        "CONSUL" | "ZOOKEEPER" | "EXHIBITOR" | "KUBERNETES" | "RAFT" | "CITUS" => {
            Some((format!("{}.{key}", first.to_ascii_lowercase()), Kind::One))
        }
        _ => None,
    }
}

fn value_of(text: &str, kind: Kind, mark: &Mark) -> Result<Node, Problem> {
    let text = text.trim();
    let node = match kind {
        Kind::One => Node::text(text, mark.clone()),
        Kind::List if !text.starts_with(['[', '-']) => {
            // Patroni's manual writes such lists with each item in quotes.
            let items = text.split(',').map(|item| item.trim().trim_matches(['\'', '"']));
            Node {
                mark: mark.clone(),
                data: Data::List(items.map(|item| Node::text(item, mark.clone())).collect()),
            }
        }
        Kind::List => parsed(text, mark)?,
        Kind::Map if text.starts_with('{') => parsed(text, mark)?,
        Kind::Map => parsed(&format!("{{{text}}}"), mark)?,
    };
    Ok(node)
}

/// YAML in a variable; every value of it gets the variable as its place.
fn parsed(text: &str, mark: &Mark) -> Result<Node, Problem> {
    let node = yaml::parse(text, &mark.origin, &Report::default()).map_err(|problem| Problem {
        severity: Severity::Error,
        ..problem
    })?;
    Ok(Node::from_json(&node.to_json(), mark))
}

fn insert(root: &mut Node, path: &str, value: Node) {
    let mut node = value;
    for key in path.rsplit('.') {
        let mark = node.mark.clone();
        let entry = Entry {
            key: key.to_owned(),
            mark: mark.clone(),
            value: node,
        };
        node = Node {
            mark,
            data: Data::Map(vec![entry]),
        };
    }
    root.merge(node);
}
