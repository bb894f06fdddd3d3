//! Where the configuration comes from, which source wins, and what the cluster's part makes of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use surus::config::settings::{Effective, HostPort, Settings};
use surus::config::{Problem, Surroundings, effective, load, load_router, render};
use surus_core::sync::Mode;

const FILE: &str = "\
scope: demo
name: n1
restapi: {listen: '127.0.0.1:8008'}
etcd3: {hosts: [127.0.0.1, 'https://[::1]:2389']}
postgresql:
  listen: '*:5433'
  connect_address: 127.0.0.1
  data_dir: /tmp/surus/data/
  authentication:
    superuser: {username: admin, password: 0123, sslmode: require}
    replication: {username: replicator, password: 123456}
";

fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let environment: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Surroundings {
        environment,
        current_dir: "/tmp".into(),
    }
}

fn with_text(text: &str) -> Settings {
    match load(
        None,
        &surroundings(&[("PATRONI_CONFIGURATION", text), ("HOME", "/home/postgres")]),
    ) {
        Ok((settings, _)) => settings,
        Err(problems) => panic!("{}", render(&problems)),
    }
}

fn apply(settings: &Settings, dynamic: Value) -> (Effective, Vec<Problem>) {
    effective(settings, &dynamic).unwrap_or_else(|problems| panic!("{}", render(&problems)))
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("written");
}

#[test]
fn values_keep_the_text_in_which_they_were_written() {
    let settings = with_text(FILE);
    // YAML would make 83 of an unquoted 0123.
    assert_eq!(settings.postgresql.superuser.password.as_deref(), Some("0123"));
    assert_eq!(
        settings.postgresql.replication.password.as_deref(),
        Some("123456")
    );
    assert_eq!(settings.postgresql.superuser.options["sslmode"], "require");
}

#[test]
fn addresses_and_directories_have_defaults() {
    let settings = with_text(FILE);
    let at = |host: &str, port| HostPort {
        host: host.to_owned(),
        port,
    };
    assert_eq!(settings.restapi.connect_address, at("127.0.0.1", 8008));
    assert_eq!(settings.postgresql.connect_address, at("127.0.0.1", 5433));
    assert_eq!(settings.postgresql.listen_hosts, ["*"]);
    assert_eq!(settings.postgresql.data_dir, Path::new("/tmp/surus/data"));
    assert_eq!(settings.postgresql.config_dir, Path::new("/tmp/surus/data"));
    assert_eq!(settings.postgresql.pgpass, Path::new("/home/postgres/pgpass"));
    assert_eq!(settings.etcd.hosts, [at("127.0.0.1", 2379), at("::1", 2389)]);
    assert!(settings.etcd.tls);
    assert_eq!(settings.namespace, "service");
    assert_eq!(settings.bootstrap, None);
    assert_eq!(settings.postgresql.create_replica_methods, ["basebackup"]);
}

#[test]
fn etcd_and_etcd3_are_the_same() {
    let three = with_text(FILE).etcd;
    let plain = with_text(&FILE.replace("etcd3:", "etcd:")).etcd;
    assert_eq!(three, plain);
    for (written, hosts) in [
        ("host: 127.0.0.1", "127.0.0.1:2379"),
        (
            "hosts: '127.0.0.1:1, http://127.0.0.2:2/'",
            "127.0.0.1:1,127.0.0.2:2",
        ),
        ("url: 'http://etcd.example.net:80'", "etcd.example.net:80"),
        ("{host: e, port: 4001}", "e:4001"),
    ] {
        let written = if written.starts_with('{') {
            written.to_owned()
        } else {
            format!("{{{written}}}")
        };
        let text = FILE.replace("{hosts: [127.0.0.1, 'https://[::1]:2389']}", &written);
        let found: Vec<String> = with_text(&text)
            .etcd
            .hosts
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.join(","), hosts, "{written}");
    }
}

#[test]
fn a_directory_is_merged_in_the_order_of_names() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "10-base.yml", FILE);
    write(
        dir.path(),
        "20-node.yaml",
        "name: n2\npostgresql:\n  data_dir: /tmp/surus/other\n  parametres: {}\n",
    );
    write(dir.path(), "30-ignored.txt", "name: n3\n");
    let (settings, problems) = load(Some(dir.path()), &surroundings(&[])).expect("valid");
    assert_eq!((settings.scope.as_str(), settings.name.as_str()), ("demo", "n2"));
    assert_eq!(settings.postgresql.data_dir, Path::new("/tmp/surus/other"));
    assert_eq!(settings.postgresql.port, 5433);
    let problem = problems.first().expect("a typing error");
    assert!(problem.origin.ends_with("20-node.yaml"), "{problem}");
    assert_eq!(
        (problem.line, problem.remedy.as_str()),
        (4, "did you mean `parameters`?")
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = load(Some(&dir.path().join("none.yml")), &surroundings(&[])).expect_err("no such file");
    assert!(
        missing[0].origin.ends_with("none.yml") && missing[0].message.contains("cannot read"),
        "{missing:?}"
    );
    let empty = load(Some(dir.path()), &surroundings(&[])).expect_err("an empty directory");
    assert!(empty[0].message.contains("no *.yml"), "{empty:?}");
    std::fs::write(dir.path().join("x.yml"), b"scope: a\nname: \xff\n").expect("written");
    let latin = load(Some(dir.path()), &surroundings(&[])).expect_err("not UTF-8");
    assert_eq!(
        (latin[0].line, latin[0].message.as_str()),
        (2, "the text is not UTF-8")
    );
}

#[test]
fn variables_go_over_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "patroni.yml", FILE);
    let variables = [
        ("PATRONI_NAME", "n9"),
        ("PATRONI_ETCD3_HOSTS", "'10.0.0.1:2379', 10.0.0.2"),
        ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.9:5999"),
        ("PATRONI_SUPERUSER_PASSWORD", "yes"),
        ("PATRONI_REWIND_USERNAME", "rewinder"),
        ("PATRONI_RESTAPI_USERNAME", "u"),
        ("PATRONI_RESTAPI_PASSWORD", "p"),
        ("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "X-A: b"),
        ("PATRONI_RESTAPI_ALLOWLIST", "[10.0.0.0/8, db1]"),
        ("PATRONI_LOG_LOGGERS", "{surus.dcs: debug}"),
        ("PATRONI_LOG_FILE_SIZE", "1MB"),
        ("PATRONI_POSTGRESQL_BIN_POSTGRES", "postgres16"),
        ("PATRONI_CONFIGURATION", "scope: not used"),
        ("PATRONI_NAMESPASE", "typo"),
        ("PATH", "/bin"),
    ];
    let (settings, problems) = load(Some(&dir.path().join("patroni.yml")), &surroundings(&variables))
        .unwrap_or_else(|problems| panic!("{}", render(&problems)));
    assert_eq!(settings.name, "n9");
    assert_eq!(settings.scope, "demo");
    assert_eq!(settings.postgresql.listen_hosts, ["127.0.0.9"]);
    assert_eq!(settings.postgresql.superuser.password.as_deref(), Some("yes"));
    assert_eq!(settings.postgresql.superuser.username, "admin");
    assert_eq!(
        settings.postgresql.rewind.map(|role| role.username).as_deref(),
        Some("rewinder")
    );
    assert_eq!(
        settings
            .restapi
            .authentication
            .map(|auth| auth.password)
            .as_deref(),
        Some("p")
    );
    assert_eq!(settings.restapi.http_extra_headers["X-A"], "b");
    assert_eq!(settings.restapi.allowlist, ["10.0.0.0/8", "db1"]);
    assert_eq!(settings.log.loggers["surus.dcs"], "DEBUG");
    assert_eq!(settings.log.file_size, 1 << 20);
    assert_eq!(settings.postgresql.bin_name["postgres"], "postgres16");
    let hosts: Vec<String> = settings.etcd.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["10.0.0.1:2379", "10.0.0.2:2379"]);
    assert_eq!(problems.len(), 1, "{}", render(&problems));
    assert_eq!(problems[0].remedy, "did you mean `PATRONI_NAMESPACE`?");
    assert_eq!(problems[0].origin, "environment variable PATRONI_NAMESPASE");
}

#[test]
fn variables_alone_are_enough() {
    let variables = [
        ("PATRONI_SCOPE", "demo"),
        ("PATRONI_NAME", "n1"),
        ("PATRONI_ETCD_HOST", "127.0.0.1:2379"),
        ("PATRONI_RESTAPI_LISTEN", "127.0.0.1:8008"),
        ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.1:5432"),
        ("PATRONI_POSTGRESQL_DATA_DIR", "/tmp/surus/data"),
        ("PATRONI_REPLICATION_USERNAME", "replicator"),
    ];
    let (settings, problems) = load(None, &surroundings(&variables)).expect("complete");
    assert_eq!(problems, []);
    assert_eq!(settings.postgresql.connect_address.to_string(), "127.0.0.1:5432");
    let problems = load(None, &surroundings(&[("PATRONI_ETCD3_SRV", "x.net")])).expect_err("incomplete");
    let srv = problems
        .iter()
        .find(|problem| problem.path == "etcd3.srv")
        .expect("named");
    assert_eq!(srv.origin, "environment variable PATRONI_ETCD3_SRV");
    assert_eq!(srv.line, 0);
}

#[test]
fn without_a_dynamic_configuration_our_defaults_hold() {
    let (effective, problems) = apply(&with_text(FILE), Value::Null);
    assert_eq!(problems, []);
    let core = effective.core;
    assert_eq!(core.ttl, Duration::from_secs(5));
    assert_eq!(core.loop_wait, Duration::from_secs(1));
    assert_eq!(core.retry_timeout, Duration::from_secs(2));
    assert!(
        core.failsafe_mode && core.use_slots && !core.pause && !core.use_pg_rewind && !core.may_bootstrap
    );
    assert_eq!(core.member_slots_ttl, Duration::from_secs(1800));
    assert_eq!(core.primary_start_timeout, Duration::from_secs(300));
}

#[test]
fn the_global_keys_reach_the_core() {
    let (effective, problems) = apply(
        &with_text(FILE),
        json!({
            "ttl": "30", "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": "16MB",
            "master_start_timeout": 0, "member_slots_ttl": "1hr", "failsafe_mode": "off", "pause": true,
            "max_timelines_history": 7, "slots": {"keep_me": null, "other": {"type": "physical"}},
            "ignore_slots": [{"name": "theirs", "type": "logical"}],
            "postgresql": {"use_slots": false, "use_pg_rewind": "yes",
                           "remove_data_directory_on_rewind_failure": true,
                           "remove_data_directory_on_diverged_timelines": "on"}
        }),
    );
    assert_eq!(problems, []);
    let core = effective.core;
    assert_eq!(
        (
            core.ttl.as_secs(),
            core.loop_wait.as_secs(),
            core.retry_timeout.as_secs()
        ),
        (30, 10, 10)
    );
    assert_eq!(core.maximum_lag_on_failover, 16 << 20);
    assert_eq!(core.primary_start_timeout, Duration::ZERO);
    assert_eq!(core.member_slots_ttl, Duration::from_secs(3600));
    assert_eq!(core.max_timelines_history, 7);
    assert_eq!(core.permanent_slots, ["keep_me", "other", "theirs"]);
    assert!(!core.failsafe_mode && core.pause && !core.use_slots && core.use_pg_rewind);
    assert!(core.reclone_on_rewind_failure && core.reclone_on_divergence);
}

#[test]
fn local_settings_go_over_the_cluster_s_as_in_patroni() {
    let local = FILE.to_owned()
        + "\x20 use_slots: false\n  recovery_conf: {b: 2}\n  pg_ctl_timeout: 7\n  pg_hba:\n  \
           parameters: {Max_Connections: 50, work_mem: 5MB, log_connections: yes}\n";
    let (effective, _) = apply(
        &with_text(&local),
        json!({"postgresql": {
            "use_slots": true, "recovery_conf": {"a": 1}, "pg_ctl_timeout": 99, "data_dir": "/x/y",
            "listen": "1.2.3.4:1", "pg_hba": ["local all all trust"], "callbacks": {"on_start": "/bin/true"},
            "parameters": {"max_connections": 200, "WORK_MEM": "1MB", "jit": false, "random_page_cost": 1.1}
        }}),
    );
    let postgres = effective.postgres;
    assert!(postgres.use_slots);
    assert_eq!(postgres.recovery_conf, [("b".to_owned(), "2".to_owned())].into());
    assert_eq!(postgres.pg_ctl_timeout, 7);
    assert_eq!(postgres.data_dir, Path::new("/tmp/surus/data"));
    assert_eq!(postgres.port, 5433);
    assert_eq!(postgres.callbacks["on_start"], "/bin/true");
    // Empty in the file: the cluster's lines stay.
    assert_eq!(
        postgres.pg_hba.as_deref(),
        Some(&["local all all trust".to_owned()][..])
    );
    let expected = [
        ("max_connections", "200"),
        ("work_mem", "5MB"),
        ("log_connections", "on"),
        ("jit", "off"),
        ("random_page_cost", "1.1"),
        ("listen_addresses", "*"),
        ("port", "5433"),
        ("cluster_name", "demo"),
        ("hot_standby", "on"),
    ];
    for (name, value) in expected {
        assert_eq!(
            postgres.parameters.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    // 10 of the cluster, wal_keep_size, 3 of ours, 4 free ones; no name in two spellings.
    assert_eq!(postgres.parameters.len(), 18, "{:?}", postgres.parameters);
}

#[test]
fn a_local_ttl_counts_only_while_the_cluster_says_nothing() {
    let settings = with_text(&format!("{FILE}ttl: 40\n"));
    assert_eq!(apply(&settings, json!({})).0.core.ttl.as_secs(), 40);
    assert_eq!(apply(&settings, json!({"ttl": 25})).0.core.ttl.as_secs(), 25);
}

#[test]
fn timing_that_breaks_the_rule_is_changed_and_said() {
    let (effective, problems) = apply(
        &with_text(FILE),
        json!({"ttl": 20, "loop_wait": 10, "retry_timeout": 10}),
    );
    let core = effective.core;
    assert_eq!(
        (
            core.ttl.as_secs(),
            core.loop_wait.as_secs(),
            core.retry_timeout.as_millis()
        ),
        (20, 1, 9500)
    );
    let changes: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect();
    assert_eq!(
        changes,
        [
            "retry_timeout: 10 s is changed to 9.5 s: ttl is 20 s",
            "loop_wait: 10 s is changed to 1 s: ttl is 20 s and retry_timeout 9.5 s"
        ]
    );
}

#[test]
fn bad_dynamic_values_are_refused_with_their_key() {
    let settings = with_text(FILE);
    for (dynamic, path) in [
        (json!([1]), ""),
        (json!("text"), ""),
        (json!({"ttl": "soon"}), "ttl"),
        (json!({"ttl": 5.5}), "ttl"),
        (json!({"ttl": [5]}), "ttl"),
        (json!({"pause": "perhaps"}), "pause"),
        (json!({"maximum_lag_on_failover": -1}), "maximum_lag_on_failover"),
        (json!({"synchronous_mode": "sometimes"}), "synchronous_mode"),
        (json!({"synchronous_mode": ["on"]}), "synchronous_mode"),
        (json!({"synchronous_node_count": 0}), "synchronous_node_count"),
        (json!({"maximum_lag_on_syncnode": -2}), "maximum_lag_on_syncnode"),
        (json!({"standby_cluster": {"host": "h"}}), "standby_cluster"),
        (json!({"slots": ["a"]}), "slots"),
        (json!({"slots": {"UPPER": {}}}), "slots.UPPER"),
        (json!({"postgresql": 5}), "postgresql"),
        (json!({"postgresql": {"parameters": []}}), "postgresql.parameters"),
        (
            json!({"postgresql": {"parameters": {"a": {"b": 1}}}}),
            "postgresql.parameters.a",
        ),
        (
            json!({"postgresql": {"pg_hba": ["hots all"]}}),
            "postgresql.pg_hba[0]",
        ),
        (
            json!({"postgresql": {"bin_dir": "relative/bin"}}),
            "postgresql.bin_dir",
        ),
        (
            json!({"postgresql": {"use_pg_rewind": 7}}),
            "postgresql.use_pg_rewind",
        ),
    ] {
        let problems = effective(&settings, &dynamic).expect_err("refused");
        let named = problems
            .iter()
            .any(|problem| problem.is_error() && problem.path == path && !problem.remedy.is_empty());
        assert!(named, "{dynamic}: {}", render(&problems));
        assert!(
            problems
                .iter()
                .all(|problem| problem.origin == surus::config::ORIGIN),
            "{problems:?}"
        );
    }
}

#[test]
fn synchronous_modes_are_read_as_people_write_them() {
    let settings = with_text(FILE);
    let read = |dynamic: serde_json::Value| effective(&settings, &dynamic).expect("good").0.core.synchronous;
    for (mode, expected) in [
        (json!("off"), Mode::Off),
        (json!(false), Mode::Off),
        (json!(null), Mode::Off),
        (json!("on"), Mode::On),
        (json!("On"), Mode::On),
        (json!(true), Mode::On),
        (json!("true"), Mode::On),
        (json!("Quorum"), Mode::Quorum),
    ] {
        assert_eq!(
            read(json!({ "synchronous_mode": mode.clone() })).mode,
            expected,
            "{mode}"
        );
    }
    let default = read(json!({}));
    assert_eq!(
        (default.mode, default.strict, default.count, default.maximum_lag),
        (Mode::Off, false, 1, None)
    );
    let all = read(
        json!({"synchronous_mode": "quorum", "synchronous_mode_strict": true, "synchronous_node_count": 2,
            "maximum_lag_on_syncnode": 1_048_576}),
    );
    assert_eq!((all.strict, all.count, all.maximum_lag), (true, 2, Some(1 << 20)));
    for none in [-1, 0] {
        assert_eq!(read(json!({ "maximum_lag_on_syncnode": none })).maximum_lag, None);
    }
}

#[test]
fn tags_say_what_patroni_s_say() {
    let tags = |text: &str| with_text(&format!("{FILE}tags: {text}\n")).tags;
    // Observed on Patroni 4.1.5: (nofailover, priority).
    for (text, nofailover, priority) in [
        ("{}", false, 1),
        ("{nofailover: false, failover_priority: 0}", false, 0),
        ("{nofailover: true, failover_priority: 2}", true, 0),
        ("{failover_priority: 0}", true, 0),
        ("{nofailover: 'on'}", true, 0),
        ("{nofailover: false, failover_priority: 3}", false, 3),
    ] {
        let tags = tags(text);
        assert_eq!(
            (tags.nofailover, tags.failover_priority),
            (nofailover, priority),
            "{text}"
        );
    }
    let tags = tags(
        "{nofailover: no, failover_priority: 3, x: 1, clonefrom: no, nosync: no, foo: no, replicatefrom: n2, nostream: no}",
    );
    assert_eq!(
        json!(tags.published),
        json!({"nofailover": false, "failover_priority": 3, "x": 1, "foo": false, "replicatefrom": "n2"})
    );
    assert_eq!(tags.replicatefrom.as_deref(), Some("n2"));
}

#[test]
fn custom_methods_and_callbacks_are_read() {
    let settings = with_text(&format!(
        "{FILE}  create_replica_methods: [pgbackrest, basebackup]\n  pgbackrest: {{command: /usr/bin/pgbackrest restore, \
         keep_data: true, no_params: 'True', stanza: main}}\n  basebackup:\n  - max-rate: 100M\n  - checkpoint: fast\n  \
         - verbose\n  callbacks: {{on_role_change: /bin/true}}\nbootstrap:\n  method: restore\n  restore: {{command: /bin/restore}}\n"
    ));
    let method = &settings.postgresql.replica_methods["pgbackrest"];
    assert_eq!(method.command, "/usr/bin/pgbackrest restore");
    assert!(method.keep_data && method.no_params && !method.no_leader);
    assert_eq!(method.extra, [("stanza".to_owned(), "main".to_owned())].into());
    assert_eq!(
        settings.postgresql.create_replica_methods,
        ["pgbackrest", "basebackup"]
    );
    assert_eq!(
        settings.postgresql.basebackup[0],
        ("max-rate".to_owned(), Some("100M".to_owned()))
    );
    assert_eq!(settings.postgresql.basebackup[2], ("verbose".to_owned(), None));
    let bootstrap = settings.bootstrap.expect("there");
    assert_eq!(
        bootstrap.method.map(|method| method.name).as_deref(),
        Some("restore")
    );
    assert_eq!(bootstrap.dcs, json!({}));
}

const ROUTER: &str = "\
scope: demo
namespace: /db/
etcd3: {hosts: 127.0.0.1}
router:
  primary: 127.0.0.1
  replicas: '*:6001'
  status: '[::1]'
  hold: 1min
  max_waiting: 7
  max_connections: 9
  connect_timeout: 500ms
  idle_timeout: 2h
  keepalive: 3
  tcp_user_timeout: 0
  maximum_lag: 16MB
  replicas_fall_back: on
  use_proxy_url: on
  send_proxy: v2
  accept_proxy: [10.0.0.5, 10.1.0.0/16]
";

#[test]
fn a_router_needs_no_more_than_its_cluster_and_its_doors() {
    let text = |text| surroundings(&[("PATRONI_CONFIGURATION", text)]);
    let (file, problems) = load_router(None, &text(ROUTER)).unwrap();
    assert_eq!(problems, []);
    assert_eq!((file.scope.as_str(), file.namespace.as_str()), ("demo", "db"));
    let router = file.router;
    let shown = |at: &Option<HostPort>| at.as_ref().unwrap().to_string();
    assert_eq!(shown(&router.primary), "127.0.0.1:5000");
    assert_eq!(shown(&router.replicas), "*:6001");
    assert_eq!(shown(&router.status), "[::1]:8009");
    assert_eq!(
        (router.hold, router.idle_timeout),
        (Duration::from_secs(60), Some(Duration::from_secs(7200)))
    );
    assert_eq!((router.max_waiting, router.max_connections), (7, 9));
    assert_eq!(router.connect_timeout, Duration::from_millis(500));
    assert_eq!(
        (router.keepalive, router.user_timeout),
        (Duration::from_secs(3), Duration::ZERO)
    );
    assert_eq!(router.maximum_lag, Some(16 << 20));
    assert!(router.fall_back && router.use_pooler && router.send_proxy);
    let trusted: Vec<String> = router.accept_proxy.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.5/32", "10.1.0.0/16"]);

    // An agent's file will do, and has a router only if it says so.
    assert_eq!(with_text(FILE).router, None);
    let both = format!("{FILE}router: {{primary: '127.0.0.1:5000'}}\n");
    let (file, problems) = load_router(None, &text(&both)).unwrap();
    assert_eq!(problems, []);
    assert_eq!(Some(file.router), with_text(&both).router);
    let problems = load_router(None, &text(FILE)).unwrap_err();
    assert_eq!(problems[0].path, "router");
    assert!(
        problems[0].remedy.contains("primary: 127.0.0.1:5000"),
        "{problems:?}"
    );
}
