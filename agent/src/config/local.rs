//! The whole local configuration: the tree to checked [`Settings`].

use std::path::PathBuf;

use serde_json::Value;

use super::bootstrap;
use super::dynamic;
use super::endpoints;
use super::postgresql;
use super::problem::Report;
use super::router;
use super::section::Section;
use super::settings::{Log, Settings, Watchdog};
use super::source::Surroundings;
use super::tags;
use super::yaml::{Data, Node};

/// Rotated at this size unless `file_size` says otherwise: Patroni's 25 MB.
const LOG_FILE_SIZE: u64 = 25_000_000;

/// Names of levels, of Python's logging as Patroni's users know them.
const LEVELS: &[&str] = &[
    "CRITICAL", "FATAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "NOTSET", "TRACE",
];

/// The timing keys.
const TIMING: &[&str] = &["ttl", "loop_wait", "retry_timeout"];

/// `None` if an error makes a required part unusable; there may be errors either way.
pub(super) fn read(root: &Node, around: &Surroundings, report: &Report) -> Option<Settings> {
    let top = Section::new("", root, report);
    let scope = identifier(
        &top,
        "scope",
        "write the name of the cluster, the same on all members",
    );
    let name = identifier(
        &top,
        "name",
        "write a name for this member that no other has, such as its host name",
    );
    let namespace = namespace(&top);
    let log = log(&top, around);
    let restapi = endpoints::restapi(&top, around);
    let ctl = endpoints::ctl(&top, around);
    let etcd = endpoints::etcd(&top, around);
    let bootstrap = bootstrap::read(&top);
    let postgresql = postgresql::read(
        &top,
        scope.as_deref().unwrap_or(""),
        name.as_deref().unwrap_or(""),
        around,
    );
    let tags = tags::read(&top);
    let watchdog = watchdog(&top);
    let router = router::read(&top);
    let raw_timing = timing(&top);
    top.without_effect(&["thread_pool_size", "thread_stack_size"]);
    top.finish();
    Some(Settings {
        scope: scope?,
        namespace,
        name: name?,
        log,
        restapi: restapi?,
        ctl,
        etcd: etcd?,
        bootstrap,
        postgresql: postgresql?,
        tags,
        watchdog,
        router,
        raw_postgresql: root.get("postgresql").map_or(Value::Null, Node::to_json),
        raw_timing,
    })
}

/// A name that becomes part of etcd's keys.
pub(super) fn identifier<'a>(top: &Section<'a>, key: &'a str, remedy: &str) -> Option<String> {
    let Some(text) = top.text(key) else {
        top.missing(key, remedy);
        return None;
    };
    if text.contains('/') || text.chars().any(char::is_control) {
        top.error(
            key,
            format!(
                "`{}` contains a character that cannot be part of a name",
                text.escape_debug()
            ),
            "use letters, digits, dashes, dots and underscores",
        );
        return None;
    }
    Some(text)
}

pub(super) fn namespace(top: &Section<'_>) -> String {
    let written = top.text("namespace").unwrap_or_else(|| "service".to_owned());
    let namespace = written.trim_matches('/').to_owned();
    if namespace.is_empty() {
        top.error(
            "namespace",
            "nothing is left of it without slashes",
            "write a word, or remove it for `service`",
        );
    }
    namespace
}

/// The timing keys as written, checked. Patroni ignores them here; we use them while the cluster says nothing.
fn timing(top: &Section<'_>) -> Value {
    dynamic::written_timing(top);
    let mut map = serde_json::Map::new();
    for key in TIMING {
        if let Some(node) = top.node(key) {
            top.warning(
                key,
                "is used only while the cluster's dynamic configuration has none: it must be the same on all members",
                "write it under `bootstrap.dcs`, or set it with `surus edit-config`",
            );
            map.insert((*key).to_owned(), node.to_json());
        }
    }
    Value::Object(map)
}

pub(super) fn log(top: &Section<'_>, around: &Surroundings) -> Log {
    let section = top.section("log");
    let loggers = section.section("loggers");
    let mut levels = std::collections::BTreeMap::new();
    for entry in loggers.entries() {
        if let Some(level) = loggers.choice(&entry.key, LEVELS) {
            levels.insert(entry.key.clone(), level.to_owned());
        }
    }
    let log = Log {
        json: section.choice("type", &["plain", "json"]) == Some("json"),
        level: section.choice("level", LEVELS).unwrap_or("INFO").to_owned(),
        dir: endpoints::path(&section, "dir", around),
        file_size: section.size("file_size").unwrap_or(LOG_FILE_SIZE),
        file_num: section
            .integer("file_num", 0..=10_000)
            .map_or(4, |files| files as u32),
        mode: mode(&section),
        loggers: levels,
    };
    section.without_effect(&["traceback_level", "max_queue_size", "deduplicate_heartbeat_logs"]);
    section.not_obeyed(
        &["format", "dateformat", "static_fields"],
        "remove it: lines are `time LEVEL: message`, or with `type: json` objects with asctime, levelname and message",
    );
    section.finish();
    log
}

/// File permissions: a number as YAML has it (`0644`, `0o644`, `420`), or octal digits in quotes.
fn mode(section: &Section<'_>) -> Option<u32> {
    let node = section.node("mode")?;
    let bits = match &node.data {
        Data::Scalar { text, quoted: true } => i64::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        Data::Scalar { text, quoted: false } => super::scalar::plain_integer(text),
        Data::List(_) | Data::Map(_) => None,
    };
    let bits = bits
        .and_then(|bits| u32::try_from(bits).ok())
        .filter(|bits| *bits <= 0o777);
    if bits.is_none() {
        section.error(
            "mode",
            format!("{} is no file mode", node.kind()),
            "write octal permissions with a leading zero, such as 0640",
        );
    } else if bits.is_some_and(|bits| bits & 0o200 == 0) {
        section.warning(
            "mode",
            "the owner could not write the log",
            "write 0640, with its leading zero",
        );
    }
    bits
}

fn watchdog(top: &Section<'_>) -> Watchdog {
    let section = top.section("watchdog");
    // YAML reads a bare `off` as false; both mean the same here.
    let mode = match section.text("mode").as_deref() {
        Some(text) if super::scalar::boolean(text) == Some(false) => "off",
        Some(_) => section
            .choice("mode", &["off", "automatic", "required"])
            .unwrap_or("automatic"),
        None => "automatic",
    };
    let watchdog = Watchdog {
        mode: mode.to_owned(),
        device: section
            .text("device")
            .map_or_else(|| PathBuf::from("/dev/watchdog"), PathBuf::from),
        safety_margin: section.integer("safety_margin", -1..=86_400).unwrap_or(5),
    };
    section.without_effect(&["driver"]);
    section.finish();
    watchdog
}
