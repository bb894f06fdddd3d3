//! The configurations of the articles that our users start from: each loads and means what its author meant.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use surus::config::settings::{Effective, HostPort, Settings};
use surus::config::{Problem, Surroundings, effective, load, render};

fn seed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/seeds")
        .join(name)
}

/// Loads a seed and merges its own `bootstrap.dcs`, as on the first start.
fn read(name: &str) -> (Settings, Effective, Vec<Problem>) {
    let around = Surroundings {
        environment: [("HOME".to_owned(), "/home/postgres".to_owned())].into(),
        current_dir: "/tmp/surus".into(),
    };
    let (settings, mut problems) =
        load(Some(&seed(name)), &around).unwrap_or_else(|problems| panic!("{name}: {}", render(&problems)));
    let dcs = settings
        .bootstrap
        .as_ref()
        .expect("every seed can bootstrap")
        .dcs
        .clone();
    let (effective, more) =
        effective(&settings, &dcs).unwrap_or_else(|problems| panic!("{name}: {}", render(&problems)));
    problems.extend(more);
    (settings, effective, problems)
}

fn at(host: &str, port: u16) -> HostPort {
    HostPort {
        host: host.to_owned(),
        port,
    }
}

fn parameter<'a>(effective: &'a Effective, name: &str) -> Option<&'a str> {
    effective.postgres.parameters.get(name).map(String::as_str)
}

#[test]
fn gcp_article() {
    let (settings, effective, problems) = read("000.yml");
    assert_eq!(problems, []);
    assert_eq!(
        (settings.scope.as_str(), settings.namespace.as_str()),
        ("postgres", "db")
    );
    assert_eq!(settings.name, "bhuvi-psql");
    assert_eq!(settings.restapi.listen, at("0.0.0.0", 8008));
    assert_eq!(settings.restapi.connect_address, at("127.0.0.11", 8008));
    assert_eq!(settings.etcd.hosts, [at("127.0.0.1", 80)]);
    assert_eq!(
        (effective.core.ttl, effective.core.loop_wait),
        (Duration::from_secs(100), Duration::from_secs(10))
    );
    // `listen: 0.0.0.0` without a port.
    assert_eq!(settings.postgresql.listen_hosts, ["0.0.0.0"]);
    assert_eq!(settings.postgresql.port, 5432);
    assert_eq!(
        settings.postgresql.bin_dir.as_deref(),
        Some(Path::new("/usr/lib/postgresql/9.6/bin"))
    );
    assert_eq!(parameter(&effective, "checkpoint_timeout"), Some("30"));
    assert_eq!(parameter(&effective, "max_wal_senders"), Some("5"));
    assert_eq!(parameter(&effective, "unix_socket_directories"), Some("/tmp"));
    assert_eq!(parameter(&effective, "wal_keep_size"), Some("128MB"));
    assert_eq!(parameter(&effective, "wal_keep_segments"), None);
    let bootstrap = settings.bootstrap.expect("there");
    assert_eq!(
        bootstrap.initdb,
        [
            ("encoding".to_owned(), Some("UTF8".to_owned())),
            ("data-checksums".to_owned(), None)
        ]
    );
    assert_eq!(bootstrap.pg_hba.len(), 5);
    assert_eq!(bootstrap.users["admin"].password.as_deref(), Some("admin"));
    assert_eq!(bootstrap.users["admin"].options, ["createrole", "createdb"]);
    assert_eq!(settings.log.dir.as_deref(), Some(Path::new("/tmp/surus/log")));
    assert!(settings.tags.published.is_empty());
    assert!(effective.core.use_pg_rewind && effective.core.use_slots && effective.core.may_bootstrap);
}

#[test]
fn gcp_article_s_delayed_replica() {
    let (settings, effective, problems) = read("000-delayed.yml");
    // PostgreSQL refuses the article's `1hr`; the agent understands it and says so.
    assert_eq!(problems.len(), 1, "{}", render(&problems));
    assert_eq!(
        problems[0].path,
        "postgresql.recovery_conf.recovery_min_apply_delay"
    );
    assert_eq!(effective.postgres.recovery_conf["recovery_min_apply_delay"], "1h");
    assert!(effective.core.nofailover);
    assert_eq!(effective.core.failover_priority, 0);
    assert_eq!(json!(settings.tags.published), json!({"nofailover": true}));
}

#[test]
fn three_tier_article() {
    let (settings, effective, problems) = read("001.yml");
    assert_eq!(problems, []);
    assert_eq!(
        settings.etcd.hosts,
        [
            at("127.0.0.137", 2379),
            at("127.0.0.138", 2379),
            at("127.0.0.139", 2379)
        ]
    );
    assert_eq!(parameter(&effective, "wal_level"), Some("replica"));
    assert_eq!(parameter(&effective, "archive_mode"), Some("on"));
    assert_eq!(parameter(&effective, "archive_timeout"), Some("1800s"));
    assert_eq!(
        parameter(&effective, "archive_command"),
        Some("mkdir -p ../wal_archive && test ! -f ../wal_archive/%f && cp %p ../wal_archive/%f")
    );
    assert_eq!(
        effective.postgres.recovery_conf["restore_command"],
        "cp ../wal_archive/%f %p"
    );
    assert_eq!(parameter(&effective, "shared_buffers"), Some("512MB"));
    assert_eq!(parameter(&effective, "track_commit_timestamp"), Some("off"));
    assert_eq!(parameter(&effective, "listen_addresses"), Some("127.0.0.124"));
    assert_eq!(parameter(&effective, "cluster_name"), Some("postgres"));
    assert_eq!(
        settings.bootstrap.expect("there").initdb[0],
        ("auth".to_owned(), Some("scram-sha-256".to_owned()))
    );
    let core = &effective.core;
    assert_eq!(
        (
            core.ttl.as_secs(),
            core.loop_wait.as_secs(),
            core.retry_timeout.as_secs()
        ),
        (30, 10, 10)
    );
}

#[test]
fn vmware_article() {
    let (settings, effective, problems) = read("002.yml");
    assert_eq!(problems, []);
    assert_eq!(settings.namespace, "service");
    assert_eq!(
        settings
            .postgresql
            .rewind
            .as_ref()
            .map(|role| role.username.as_str()),
        Some("rewind_user")
    );
    assert_eq!(effective.core.permanent_slots, ["patroni_standby_leader"]);
    assert_eq!(parameter(&effective, "wal_keep_size"), Some("320MB"));
    assert_eq!(parameter(&effective, "max_replication_slots"), Some("8"));
    assert_eq!(settings.postgresql.pgpass, Path::new("/tmp/pgpass0"));
    assert_eq!(
        settings.bootstrap.expect("there").pg_hba[0],
        "host replication replicator 127.0.1.0/24 md5"
    );
}

#[test]
fn ubuntu_article() {
    let (settings, effective, problems) = read("003.yml");
    assert_eq!(problems, []);
    assert_eq!(settings.etcd.hosts, [at("127.0.0.20", 2379)]);
    // `parameters:` with nothing below it.
    assert_eq!(parameter(&effective, "max_connections"), Some("100"));
    assert_eq!(parameter(&effective, "wal_log_hints"), Some("on"));
    assert_eq!(parameter(&effective, "unix_socket_directories"), Some("."));
    assert_eq!(settings.postgresql.data_dir, Path::new("/tmp/surus/data/patroni"));
    assert_eq!(
        settings.bootstrap.expect("there").pg_hba[1],
        "host replication replicator 127.0.0.21/0 md5"
    );
}

#[test]
fn cybertec_talk() {
    let (settings, effective, problems) = read("004.yml");
    // The sample's data directory is relative: resolved, and said.
    assert_eq!(problems.len(), 1, "{}", render(&problems));
    assert_eq!(problems[0].path, "postgresql.data_dir");
    assert_eq!(
        settings.postgresql.data_dir,
        Path::new("/tmp/surus/data/postgresql0")
    );
    assert_eq!(settings.scope, "batman");
    let hba = effective.postgres.pg_hba.expect("from the dynamic configuration");
    assert_eq!(
        hba,
        [
            "host replication replicator 127.0.0.1/32 md5",
            "host all all 0.0.0.0/0 md5"
        ]
    );
    assert_eq!(effective.postgres.parameters["unix_socket_directories"], "..");
    assert!(settings.tags.published.is_empty());
}
