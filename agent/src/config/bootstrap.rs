//! The `bootstrap` section: what a new cluster begins with.

use std::collections::BTreeMap;

use serde_json::Value;

use super::dynamic;
use super::postgresql::{custom_method, hba_lines};
use super::section::Section;
use super::settings::{Bootstrap, BootstrapUser};
use super::timing;

/// Options of initdb that the agent sets itself.
const INITDB_OURS: &[&str] = &[
    "pgdata",
    "pwfile",
    "username",
    "pwprompt",
    "nosync",
    "sync-only",
    "version",
];

/// What may stand under `users.*.options`: options of CREATE ROLE that need no value.
const ROLE_OPTIONS: &[&str] = &[
    "superuser",
    "nosuperuser",
    "createdb",
    "nocreatedb",
    "createrole",
    "nocreaterole",
    "inherit",
    "noinherit",
    "login",
    "nologin",
    "replication",
    "noreplication",
    "bypassrls",
    "nobypassrls",
];

pub(super) fn read(top: &Section<'_>) -> Option<Bootstrap> {
    let section = top.section("bootstrap");
    if !section.present {
        return None;
    }
    let dcs = section.node("dcs").map_or_else(
        || Value::Object(serde_json::Map::new()),
        |node| {
            // Only for its problems: what is in force is decided when the key is read from etcd.
            let dcs = Section::new(&section.path_of("dcs"), node, section.report);
            let read = dynamic::Dynamic::read(&dcs);
            timing::settle(read.timing, &dcs);
            node.to_json()
        },
    );
    let mut initdb = section.options("initdb");
    initdb.retain(|(name, _)| {
        let ours = INITDB_OURS.contains(&name.as_str());
        if ours {
            section.warning(
                "initdb",
                format!("`{name}` is set by the agent; the value here is ignored"),
                "remove it: the data directory, the superuser and its password come from `postgresql`",
            );
        }
        !ours
    });
    let method = section
        .text("method")
        .filter(|name| name != "initdb")
        .and_then(|name| {
            let Some(key) = section.key(&name) else {
                section.error(
                    "method",
                    format!("there is no section `bootstrap.{name}`"),
                    format!("write `{name}:` with `command: …` below `bootstrap:`"),
                );
                return None;
            };
            custom_method(&section, key)
        });
    let post_init = section.text("post_init");
    let bootstrap = Bootstrap {
        dcs,
        initdb,
        pg_hba: hba_lines(&section, "pg_hba").unwrap_or_default(),
        users: users(&section),
        post_bootstrap: section.text("post_bootstrap").or(post_init),
        method,
    };
    section.finish();
    Some(bootstrap)
}

fn users(section: &Section<'_>) -> BTreeMap<String, BootstrapUser> {
    let section = section.section("users");
    let mut users = BTreeMap::new();
    for entry in section.entries() {
        let user = section.section(&entry.key);
        let options = user.texts("options").unwrap_or_default();
        let options = options
            .into_iter()
            .filter_map(|(option, mark)| {
                let known = ROLE_OPTIONS.contains(&option.to_ascii_lowercase().as_str());
                if !known {
                    user.report.error(
                        &user.path_of("options"),
                        &mark,
                        format!("`{option}` is not an option of CREATE ROLE"),
                        format!("write one of {}", ROLE_OPTIONS.join(", ")),
                    );
                }
                known.then(|| option.to_ascii_lowercase())
            })
            .collect();
        users.insert(
            entry.key.clone(),
            BootstrapUser {
                password: user.text("password"),
                options,
            },
        );
        user.finish();
    }
    users
}
