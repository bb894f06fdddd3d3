//! The dynamic configuration: the `config` key of the cluster, checked, and merged with the node's own settings.
//!
//! Precedence, weakest first: our defaults, the dynamic configuration, the local file (environment included). Three groups
//! differ, as observed on Patroni 4.1.5:
//! - timing (`ttl`, `loop_wait`, `retry_timeout`), the other global keys, `use_slots` and the parameters that all members must
//!   share come from the dynamic configuration; a local timing is used only while the cluster says nothing;
//! - `parameters` are merged one by one; any other key of `postgresql` that the file has replaces the cluster's as a whole;
//! - addresses, directories and roles of the node are ignored in the dynamic configuration.

use std::time::Duration;

use serde_json::Value;

use super::parameters;
use super::postgresql;
use super::problem::{Mark, Problem, Report};
use super::section::Section;
use super::settings::{Effective, PostgresSettings, Settings};
use super::synchronous;
use super::timing::{self, Written};
use super::yaml::{Data, Entry, Node};

/// What [`Problem::origin`] says for values of the `config` key.
pub const ORIGIN: &str = "dynamic configuration of the cluster";

/// The global keys, checked.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    pub(super) timing: Written,
    maximum_lag_on_failover: Option<u64>,
    primary_start_timeout: Option<Duration>,
    member_slots_ttl: Option<Duration>,
    failsafe_mode: Option<bool>,
    synchronous: surus_core::sync::Settings,
    pause: Option<bool>,
    max_timelines_history: Option<usize>,
    permanent_slots: Vec<String>,
}

impl Dynamic {
    /// Reads and checks the whole key, `postgresql` included.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let size = |key| section.size(key);
        let dynamic = Self {
            timing: written_timing(section),
            maximum_lag_on_failover: size("maximum_lag_on_failover"),
            primary_start_timeout: either(section, "primary_start_timeout", "master_start_timeout"),
            member_slots_ttl: section.seconds("member_slots_ttl"),
            failsafe_mode: section.boolean("failsafe_mode"),
            synchronous: synchronous::read(section),
            pause: section.boolean("pause"),
            max_timelines_history: section
                .integer("max_timelines_history", 0..=1_000_000)
                .and_then(|lines| usize::try_from(lines).ok()),
            permanent_slots: slots(section),
        };
        // Known, checked, and without effect.
        either(section, "primary_stop_timeout", "master_stop_timeout");
        section.boolean("check_timeline");
        section.without_effect(&["primary_race_backoff"]);
        refuse_standby_cluster(section);
        postgres(section);
        section.finish();
        dynamic
    }
}

/// A duration under its present or its former name.
fn either<'a>(section: &Section<'a>, name: &'a str, former: &'a str) -> Option<Duration> {
    let (new, old) = (section.seconds(name), section.seconds(former));
    if new.is_some() && old.is_some() {
        section.warning(
            former,
            format!("is ignored because `{name}` is there too"),
            "remove it",
        );
    }
    new.or(old)
}

/// The three timing keys of a section that is the dynamic configuration, or of the local file.
pub(super) fn written_timing(section: &Section<'_>) -> Written {
    // A day: longer is a typing error, and would overflow nothing.
    let whole = |key| {
        section
            .integer(key, 0..=86_400)
            .map(|seconds| Duration::from_secs(seconds.unsigned_abs()))
    };
    Written {
        ttl: whole("ttl"),
        loop_wait: whole("loop_wait"),
        retry_timeout: whole("retry_timeout"),
    }
}

fn refuse_standby_cluster(section: &Section<'_>) {
    let standby = section.section("standby_cluster");
    if ["host", "port", "restore_command"]
        .into_iter()
        .any(|key| standby.node(key).is_some())
    {
        section.error(
            "standby_cluster",
            "standby clusters are not supported yet",
            "keep Patroni for this cluster for now: without this section it would accept writes of its own",
        );
    }
}

fn slots(section: &Section<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for key in ["slots", "permanent_slots", "permanent_replication_slots"] {
        let group = section.section(key);
        for entry in group.entries() {
            let valid = !entry.key.is_empty()
                && entry.key.len() <= SLOT_NAME_MAX
                && entry
                    .key
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !valid {
                group.error(
                    &entry.key,
                    format!("`{}` cannot be the name of a slot", entry.key),
                    "use up to 63 lower-case letters, digits and underscores",
                );
                continue;
            }
            let slot = group.section(&entry.key);
            let logical = slot.choice("type", &["physical", "logical"]) == Some("logical");
            let (database, plugin) = (slot.text("database"), slot.text("plugin"));
            if logical && (database.is_none() || plugin.is_none()) {
                let missing = if database.is_none() { "database" } else { "plugin" };
                slot.missing(missing, "a logical slot needs `database` and `plugin`");
            } else if logical {
                slot.warning(
                    "type",
                    "logical slots are kept, but not copied to replicas yet",
                    "after a failover create the slot anew, or on PostgreSQL 17 use its own failover slots",
                );
            }
            slot.without_effect(&["cluster_type"]);
            slot.finish();
            names.push(entry.key.clone());
        }
    }
    if let Some(node) = section.node("ignore_slots") {
        ignored_slots(section, node, &mut names);
    }
    names.sort();
    names.dedup();
    names
}

/// Slots that somebody else looks after: like permanent ones they are never dropped.
fn ignored_slots(section: &Section<'_>, node: &Node, names: &mut Vec<String>) {
    let Data::List(items) = &node.data else {
        section.error(
            "ignore_slots",
            format!("expected a list, found {}", node.kind()),
            "write `- name: …` lines below it",
        );
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{}[{index}]", section.path_of("ignore_slots"));
        let matcher = Section::new(&path, item, section.report);
        match matcher.text("name") {
            Some(name) => names.push(name),
            None => section.report.warning(
                &path,
                &item.mark,
                "a matcher without `name` has no effect yet",
                "name the slots one by one",
            ),
        }
        matcher.without_effect(&["type", "database", "plugin"]);
        matcher.finish();
    }
}

/// Checks `postgresql` of the dynamic configuration for itself.
fn postgres(section: &Section<'_>) {
    let postgresql = section.section("postgresql");
    for key in postgresql::IDENTITY {
        if postgresql.node(key).is_some() {
            postgresql.warning(
                key,
                "is ignored in the dynamic configuration",
                "remove it: each member has its own in its local file",
            );
        }
    }
    let parameters = postgresql.section("parameters");
    parameters::cluster_wide(&parameters.path, parameters.entries(), section.report);
    postgresql::behaviour(&postgresql, &mut postgresql::blank("", ""), None);
    postgresql.finish();
}

/// PostgreSQL's limit for the name of a slot (NAMEDATALEN - 1).
const SLOT_NAME_MAX: usize = 63;

/// Merges the dynamic configuration (JSON of the `config` key; null if there is none) with the local settings.
///
/// # Errors
///
/// All problems, at least one of them an error with the key's name. The caller keeps the former configuration: a mistake in
/// `surus edit-config` must not stop a running cluster.
pub fn effective(settings: &Settings, dynamic: &Value) -> Result<(Effective, Vec<Problem>), Vec<Problem>> {
    let report = Report::default();
    let mark = Mark::whole(ORIGIN);
    let tree = Node::from_json(dynamic, &mark);
    let section = Section::new("", &tree, &report);
    let global = Dynamic::read(&section);
    let local = Node::from_json(&settings.raw_timing, &mark);
    // What is wrong with the local side was said when it was loaded.
    let silent = Report::default();
    let local = written_timing(&Section::new("", &local, &silent));
    let timing = timing::settle(
        Written {
            ttl: global.timing.ttl.or(local.ttl),
            loop_wait: global.timing.loop_wait.or(local.loop_wait),
            retry_timeout: global.timing.retry_timeout.or(local.retry_timeout),
        },
        &section,
    );
    let postgres = PostgresSettings {
        gate: global.synchronous.shut_by().is_some(),
        ..merged(settings, &tree, &mark)
    };

    let name = surus_core::types::NodeName(settings.name.clone());
    let defaults = surus_core::config::Config::new(name);
    let core = surus_core::config::Config {
        ttl: timing.ttl,
        loop_wait: timing.loop_wait,
        retry_timeout: timing.retry_timeout,
        maximum_lag_on_failover: global
            .maximum_lag_on_failover
            .unwrap_or(defaults.maximum_lag_on_failover),
        primary_start_timeout: global
            .primary_start_timeout
            .unwrap_or(defaults.primary_start_timeout),
        member_slots_ttl: global.member_slots_ttl.unwrap_or(defaults.member_slots_ttl),
        failsafe_mode: global.failsafe_mode.unwrap_or(defaults.failsafe_mode),
        synchronous: global.synchronous,
        pause: global.pause.unwrap_or(defaults.pause),
        nofailover: settings.tags.nofailover,
        failover_priority: settings.tags.failover_priority,
        may_bootstrap: settings.bootstrap.is_some(),
        use_slots: postgres.use_slots,
        use_pg_rewind: postgres.use_pg_rewind,
        reclone_on_rewind_failure: postgres.remove_data_directory_on_rewind_failure,
        reclone_on_divergence: postgres.remove_data_directory_on_diverged_timelines,
        replicate_from: settings
            .tags
            .replicatefrom
            .clone()
            .map(surus_core::types::NodeName),
        permanent_slots: global.permanent_slots,
        max_timelines_history: global
            .max_timelines_history
            .unwrap_or(defaults.max_timelines_history),
        ..defaults
    };
    let failed = report.has_errors();
    let problems = report.take();
    if failed {
        return Err(problems);
    }
    Ok((
        Effective {
            core,
            postgres,
            dynamic: dynamic.clone(),
        },
        problems,
    ))
}

/// The `postgresql` section of both sides as one.
fn merged(settings: &Settings, dynamic: &Node, mark: &Mark) -> PostgresSettings {
    let silent = Report::default();
    let entries = |node: Option<&Node>| match node.map(|node| &node.data) {
        Some(Data::Map(entries)) => entries.clone(),
        _ => Vec::new(),
    };
    let cluster = dynamic.get("postgresql");
    let cluster_parameters = entries(cluster.and_then(|cluster| cluster.get("parameters")));
    let local = Node::from_json(&settings.raw_postgresql, mark);

    let mut both: Vec<Entry> = entries(cluster);
    both.retain(|entry| !postgresql::IDENTITY.contains(&entry.key.as_str()));
    let mut whole = Node {
        mark: mark.clone(),
        data: Data::Map(both),
    };
    for mut entry in entries(Some(&local)) {
        // An empty section of the file says nothing; slots are the cluster's to decide.
        if entry.value.is_null() || entry.key == "use_slots" {
            continue;
        }
        if entry.key != "parameters" {
            let key = entry.key.clone();
            if let Data::Map(whole) = &mut whole.data {
                whole.retain(|old| old.key != key);
            }
        } else if let Data::Map(parameters) = &mut entry.value.data {
            // Names are one by one, whatever their case.
            parameters
                .iter_mut()
                .for_each(|parameter| parameter.key = parameter.key.to_ascii_lowercase());
        }
        whole.merge(Node {
            mark: mark.clone(),
            data: Data::Map(vec![entry]),
        });
    }

    let mut postgres = settings.postgresql.clone();
    let (bin_dir, custom_conf) = (postgres.bin_dir.clone(), postgres.custom_conf.clone());
    postgresql::behaviour(&Section::new("postgresql", &whole, &silent), &mut postgres, None);
    // The local ones have been made absolute when they were loaded.
    postgres.bin_dir = bin_dir.or(postgres.bin_dir);
    postgres.custom_conf = custom_conf.or(postgres.custom_conf);

    let shared = parameters::cluster_wide("", &cluster_parameters, &silent);
    postgres.parameters.extend(shared);
    postgres
        .parameters
        .insert("listen_addresses".to_owned(), postgres.listen_hosts.join(","));
    postgres
        .parameters
        .insert("port".to_owned(), postgres.port.to_string());
    postgres
        .parameters
        .insert("cluster_name".to_owned(), settings.scope.clone());
    postgres
}
