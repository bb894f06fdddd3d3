//! Bad configurations: each problem names its key, its line and what to do, and no problem hides another.

use surus::config::{Problem, Severity, Surroundings, load, render};

/// A configuration without a problem; each case changes one line of it.
const GOOD: &str = "\
scope: demo
name: n1
restapi:
  listen: 127.0.0.1:8008
  connect_address: 127.0.0.1:8008
etcd3:
  hosts: 127.0.0.1:2379
bootstrap:
  dcs:
    ttl: 30
  initdb:
    - encoding: UTF8
  pg_hba:
    - host all all 127.0.0.1/32 trust
postgresql:
  listen: 127.0.0.1:5432
  connect_address: 127.0.0.1:5432
  data_dir: /tmp/surus/data
  pgpass: /tmp/surus/pgpass
  authentication:
    replication:
      username: replicator
      password: secret
  parameters:
    work_mem: 4MB
tags:
  clonefrom: true
log:
  level: INFO
";

fn problems_of(text: &str) -> Vec<Problem> {
    let around = Surroundings {
        environment: [("PATRONI_CONFIGURATION".to_owned(), text.to_owned())].into(),
        current_dir: "/tmp".into(),
    };
    match load(None, &around) {
        Ok((_, problems)) | Err(problems) => problems,
    }
}

struct Case {
    /// The line of GOOD that is replaced.
    from: &'static str,
    /// By what.
    to: &'static str,
    severity: Severity,
    path: &'static str,
    /// The line that the problem must name.
    line: usize,
    /// Part of the message.
    message: &'static str,
    /// Part of the remedy.
    remedy: &'static str,
}

const fn error(
    from: &'static str,
    to: &'static str,
    path: &'static str,
    line: usize,
    message: &'static str,
    remedy: &'static str,
) -> Case {
    Case {
        from,
        to,
        severity: Severity::Error,
        path,
        line,
        message,
        remedy,
    }
}

const fn warning(
    from: &'static str,
    to: &'static str,
    path: &'static str,
    line: usize,
    message: &'static str,
    remedy: &'static str,
) -> Case {
    Case {
        from,
        to,
        severity: Severity::Warning,
        path,
        line,
        message,
        remedy,
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Text that is no YAML.
    error("name: n1", "\tname: n1", "", 2, "not valid YAML", "spaces"),
    error("  listen: 127.0.0.1:5432", "  listen: *:5432", "", 16, "not valid YAML", "'*:5432'"),
    error("      password: secret", "      password: ***", "", 23, "not valid YAML", "quotes"),
    error("      password: secret", "      password: %secret", "", 23, "not valid YAML", "quotes"),
    error("name: n1", "name: [n1", "", 3, "not valid YAML", ""),
    error("name: n1", "name: \"n1", "", 2, "not valid YAML", "close the quote"),
    error("name: n1", "name: a: b", "", 2, "not valid YAML", "colon"),
    error("name: n1", "name: n1\n---\nname: n2", "", 4, "second YAML document", "one document"),
    warning("name: n1", "name: n1\nname: n2", "name", 3, "second time", "remove one"),
    // Missing.
    error("scope: demo", "", "scope", 2, "is missing", "name of the cluster"),
    error("name: n1", "", "name", 1, "is missing", "no other has"),
    error("  listen: 127.0.0.1:8008", "  # nothing", "restapi.listen", 3, "is missing", "0.0.0.0:8008"),
    error("  listen: 127.0.0.1:5432", "", "postgresql.listen", 15, "is missing", "5432"),
    error("  data_dir: /tmp/surus/data", "", "postgresql.data_dir", 15, "is missing", "absolute path"),
    error("      username: replicator", "", "postgresql.authentication.replication.username", 21, "is missing", "role"),
    error("  hosts: 127.0.0.1:2379", "  username: x", "etcd3.hosts", 6, "is missing", "hosts: host1:2379"),
    error("  hosts: 127.0.0.1:2379", "  hosts: 127.0.0.1:2379\n  username: x", "etcd3.password", 6, "is missing", "both"),
    // Addresses.
    error("  listen: 127.0.0.1:5432", "  listen: 127.0.0.1:99999", "postgresql.listen", 16, "not a port", "host:port"),
    error("  listen: 127.0.0.1:5432", "  listen: a:1,b:2", "postgresql.listen", 16, "two ports", "host:port"),
    error("  listen: 127.0.0.1:5432", "  listen: ''", "postgresql.listen", 15, "is missing", "5432"),
    error("  connect_address: 127.0.0.1:5432", "  connect_address: 0.0.0.0:5432", "postgresql.connect_address", 17, "every interface", "other members"),
    error("  connect_address: 127.0.0.1:8008", "  connect_address: http://127.0.0.1:8008", "restapi.connect_address", 5, "colon", "host:port"),
    error("  listen: 127.0.0.1:5432\n  connect_address: 127.0.0.1:5432", "  listen: 0.0.0.0", "postgresql.connect_address", 15, "is missing", "every interface"),
    error("  hosts: 127.0.0.1:2379", "  hosts: ftp://127.0.0.1", "etcd3.hosts", 7, "not http", "host:2379"),
    error("  hosts: 127.0.0.1:2379", "  srv: example.net", "etcd3.srv", 7, "not supported yet", "`hosts`"),
    warning("  listen: 127.0.0.1:5432", "  listen: ::1:5432", "postgresql.listen", 16, "with or without a port", "[::1]:5432"),
    // Other backends.
    error("etcd3:", "consul:", "consul", 7, "not supported", "etcd3"),
    error("tags:", "kubernetes:\n  labels: {}\ntags:", "kubernetes", 27, "not supported", "etcd3"),
    error("tags:", "raft:\n  self_addr: 127.0.0.1:2222\ntags:", "raft", 27, "not supported", "etcd"),
    error("tags:", "citus:\n  group: 0\ntags:", "citus", 27, "not supported", "Patroni"),
    // Types and ranges.
    error("    ttl: 30", "    ttl: soon", "bootstrap.dcs.ttl", 10, "whole number", "from 0"),
    error("    ttl: 30", "    ttl: -5", "bootstrap.dcs.ttl", 10, "out of range", "from 0"),
    warning("    ttl: 30", "    ttl: 1", "bootstrap.dcs.ttl", 10, "changed to 2 s", "loop_wait"),
    warning("    ttl: 30", "    ttl: 20\n    loop_wait: 15\n    retry_timeout: 3", "bootstrap.dcs.loop_wait", 11, "15 s is changed to 14 s", "ttl"),
    error("    ttl: 30", "    failsafe_mode: perhaps", "bootstrap.dcs.failsafe_mode", 10, "on or off", "write on, off"),
    error("    ttl: 30", "    maximum_lag_on_failover: 1 apple", "bootstrap.dcs.maximum_lag_on_failover", 10, "size", "MB"),
    error("    ttl: 30", "    synchronous_mode: [on]", "bootstrap.dcs.synchronous_mode", 10, "expected one word", "quorum"),
    error("    ttl: 30", "    synchronous_node_count: 0", "bootstrap.dcs.synchronous_node_count", 10, "out of range", "1 or more"),
    error("    ttl: 30", "    synchronous_mode_strict: perhaps", "bootstrap.dcs.synchronous_mode_strict", 10, "on or off", "write on, off"),
    error("    ttl: 30", "    maximum_lag_on_syncnode: -2", "bootstrap.dcs.maximum_lag_on_syncnode", 10, "out of range", "-1 or more"),
    error("    ttl: 30", "    synchronous_mode: sometimes", "bootstrap.dcs.synchronous_mode", 10, "not a choice", "quorum"),
    error("    ttl: 30", "    standby_cluster: {host: 127.0.0.1}", "bootstrap.dcs.standby_cluster", 10, "not supported yet", "Patroni"),
    error("    ttl: 30", "    slots: {Bad-Name: {type: physical}}", "bootstrap.dcs.slots.Bad-Name", 10, "name of a slot", "lower-case"),
    error("    ttl: 30", "    slots: {s: {type: logical, database: d}}", "bootstrap.dcs.slots.s.plugin", 10, "is missing", "plugin"),
    warning("    ttl: 30", "    postgresql: {parameters: {max_connections: 5}}", "bootstrap.dcs.postgresql.parameters.max_connections", 10, "100 is used", "from 25"),
    warning("    ttl: 30", "    postgresql: {data_dir: /x/y}", "bootstrap.dcs.postgresql.data_dir", 10, "ignored", "local file"),
    error("    - encoding: UTF8", "    - encoding: UTF8\n      locale: C", "bootstrap.initdb[0]", 12, "several options", "dash"),
    error("    - encoding: UTF8", "    - [x]", "bootstrap.initdb[0]", 12, "a list", "flag"),
    warning("    - encoding: UTF8", "    - pgdata: /x", "bootstrap.initdb", 12, "set by the agent", "remove"),
    error("    - host all all 127.0.0.1/32 trust", "    - hots all all 127.0.0.1/32 trust", "bootstrap.pg_hba[0]", 14, "hots", "hostssl"),
    error("    - host all all 127.0.0.1/32 trust", "    - host all trust", "bootstrap.pg_hba[0]", 14, "too short", "method"),
    error("  initdb:", "  users: {admin: {options: [fly]}}\n  initdb:", "bootstrap.users.admin.options", 11, "fly", "createrole"),
    error("  initdb:", "  method: wal_e\n  initdb:", "bootstrap.method", 11, "no section", "command"),
    error("  pgpass: /tmp/surus/pgpass", "  create_replica_methods: [wal_e, basebackup]", "postgresql.create_replica_methods", 19, "no section", "command"),
    error("  pgpass: /tmp/surus/pgpass", "  pg_ctl_timeout: 0", "postgresql.pg_ctl_timeout", 19, "out of range", "from 1"),
    error("  pgpass: /tmp/surus/pgpass", "  use_pg_rewind: maybe", "postgresql.use_pg_rewind", 19, "on or off", "true"),
    error("  data_dir: /tmp/surus/data", "  data_dir: /", "postgresql.data_dir", 18, "root directory", "absolute path"),
    error("  data_dir: /tmp/surus/data", "  data_dir: ~/data", "postgresql.data_dir", 18, "HOME is not set", "whole path"),
    warning("  data_dir: /tmp/surus/data", "  data_dir: /data", "postgresql.data_dir", 18, "move it aside", "within"),
    warning("  data_dir: /tmp/surus/data", "  data_dir: data/pg", "postgresql.data_dir", 18, "relative", "/tmp/data/pg"),
    error("    work_mem: 4MB", "    work_mem: [4MB, {a: b}]", "postgresql.parameters.work_mem", 25, "a list", "name: value"),
    error("    work_mem: 4MB", "    work mem: 4MB", "postgresql.parameters.work mem", 25, "not the name", "underscores"),
    error("    work_mem: 4MB", "    search_path: \"a\\nb\"", "postgresql.parameters.search_path", 25, "more than one line", "one line"),
    warning("    work_mem: 4MB", "    max_connections: 500", "postgresql.parameters.max_connections", 25, "same on all members", "edit-config"),
    warning("    work_mem: 4MB", "    port: 5433", "postgresql.parameters.port", 25, "ignored", "postgresql.listen"),
    warning("    work_mem: 4MB", "    statement_timeout: 1hr", "postgresql.parameters.statement_timeout", 25, "taken as `1h`", "units"),
    warning("  parameters:", "  use_slots: false\n  parameters:", "postgresql.use_slots", 24, "ignored", "edit-config"),
    warning("  parameters:", "  recovery_conf: {primary_conninfo: x}\n  parameters:", "postgresql.recovery_conf.primary_conninfo", 24, "ignored", "leader"),
    error("postgresql:", "postgresql: nothing\nx:", "postgresql", 15, "expected a mapping", "indented"),
    error("  level: INFO", "  level: LOUD", "log.level", 29, "LOUD", "one of"),
    error("  level: INFO", "  mode: 0999", "log.mode", 29, "file mode", "0640"),
    error("  level: INFO", "  mode: 640", "log.mode", 29, "file mode", "0640"),
    warning("  level: INFO", "  mode: '0440'", "log.mode", 29, "could not write", "0640"),
    error("  level: INFO", "  dir: [/tmp]", "log.dir", 29, "expected text", "one value"),
    error("  level: INFO", "  type: xml", "log.type", 29, "xml", "plain, json"),
    error("  clonefrom: true", "  clonefrom: perhaps", "tags.clonefrom", 27, "on or off", "write on"),
    error("  clonefrom: true", "  replicatefrom: n1", "tags.replicatefrom", 27, "itself", "another member"),
    warning("  clonefrom: true", "  nofailover: true\n  failover_priority: 2", "tags.nofailover", 27, "Conflicting configuration", "failover_priority"),
    error("  connect_address: 127.0.0.1:8008", "  authentication: {username: x}", "restapi.authentication.password", 5, "is missing", "user name"),
    warning("  connect_address: 127.0.0.1:8008", "  verify_client: required", "restapi.verify_client", 5, "TLS", "certfile"),
    error("  connect_address: 127.0.0.1:8008", "  verify_client: required\n  certfile: /x/y", "restapi.cafile", 3, "is missing", "CA"),
    error("  connect_address: 127.0.0.1:8008", "  http_extra_headers: {'bad name': x}", "restapi.http_extra_headers", 5, "not an HTTP header", "dashes"),
    error("  connect_address: 127.0.0.1:8008", "  keyfile_password: x", "restapi.keyfile_password", 5, "encrypted", "openssl"),
    error("tags:", "watchdog:\n  mode: maybe\ntags:", "watchdog.mode", 27, "maybe", "automatic"),
    // The router.
    error("tags:", "router:\n  primary: 127.0.0.1:0\ntags:", "router.primary", 27, "not a port", "host:port"),
    error("tags:", "router:\n  hold: 5\ntags:", "router.primary", 26, "no door", "primary: 127.0.0.1:5000"),
    error("tags:", "router:\n  primary: 127.0.0.1:5000\n  replicas: 127.0.0.1:5000\ntags:", "router.replicas", 28, "address of `primary` too", "port of its own"),
    error("tags:", "router:\n  primary: 127.0.0.1:5000\n  hold: long\ntags:", "router.hold", 28, "number of seconds", "units"),
    error("tags:", "router:\n  primary: 127.0.0.1:5000\n  connect_timeout: 0\ntags:", "router.connect_timeout", 28, "no time", "above 0"),
    error("tags:", "router:\n  primary: 127.0.0.1:5000\n  max_connections: 0\ntags:", "router.max_connections", 28, "out of range", "from 1"),
    error("tags:", "router:\n  primary: 127.0.0.1:5000\n  maximum_lag: far\ntags:", "router.maximum_lag", 28, "size", "MB"),
    error("tags:", "router:\n  primary: 127.0.0.1:5000\n  send_proxy: v1\ntags:", "router.send_proxy", 28, "not a choice", "v2"),
    error("tags:", "router:\n  primary: 127.0.0.1:5000\n  accept_proxy:\n    - lb.example\ntags:", "router.accept_proxy", 29, "neither an address nor a network", "10.0.0.0/24"),
    warning("tags:", "router:\n  primary: 127.0.0.1:5000\n  max_conections: 5\ntags:", "router.max_conections", 28, "unknown key", "did you mean `max_connections`"),
    // Unknown keys.
    warning("  connect_address: 127.0.0.1:8008", "  conect_adress: 127.0.0.1:8008", "restapi.conect_adress", 5, "unknown key", "did you mean `connect_address`"),
    warning("    ttl: 30", "    tttl: 30", "bootstrap.dcs.tttl", 10, "unknown key", "did you mean `ttl`"),
    warning("tags:", "data_dir: /x/y\ntags:", "data_dir", 26, "unknown key", "belongs at postgresql.data_dir"),
    warning("    ttl: 30", "    ttl: 30\n    initdb: []", "bootstrap.dcs.initdb", 11, "unknown key", "bootstrap.initdb"),
    warning("tags:", "something_else: 1\ntags:", "something_else", 26, "unknown key", "remove it"),
    warning("scope: demo", "scope: demo\nttl: 30", "ttl", 2, "only while", "bootstrap.dcs"),
];

#[test]
fn the_good_configuration_is_good() {
    assert_eq!(problems_of(GOOD), []);
}

#[test]
fn each_bad_input_is_named_with_its_line_and_a_remedy() {
    let mut failures = String::new();
    for case in CASES {
        assert_eq!(
            GOOD.matches(case.from).count(),
            1,
            "`{}` must be one place of GOOD",
            case.from
        );
        let problems = problems_of(&GOOD.replace(case.from, case.to));
        let found = problems.iter().any(|problem| {
            problem.severity == case.severity
                && problem.path == case.path
                && problem.line == case.line
                && problem.column > 0
                && problem.message.contains(case.message)
                && problem.remedy.contains(case.remedy)
                && !problem.remedy.is_empty()
        });
        let surplus = case.severity == Severity::Warning && problems.iter().any(Problem::is_error);
        if !found || surplus {
            failures.push_str(&format!(
                "`{}`: wanted {:?} {}:{}, found\n{}\n",
                case.to,
                case.severity,
                case.path,
                case.line,
                render(&problems)
            ));
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(CASES.len() >= 30);
}

#[test]
fn all_problems_come_at_once() {
    let text = GOOD
        .replace("scope: demo", "scop: demo")
        .replace("127.0.0.1:2379", "127.0.0.1:0")
        .replace("level: INFO", "level: LOUD")
        .replace("work_mem: 4MB", "port: 1");
    let mut paths: Vec<String> = problems_of(&text)
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    paths.sort();
    assert_eq!(
        paths,
        [
            "etcd3.hosts",
            "log.level",
            "postgresql.parameters.port",
            "scop",
            "scope"
        ]
    );
}

#[test]
fn problems_read_like_a_compiler_s() {
    let problems = problems_of(&GOOD.replace("  listen: 127.0.0.1:5432", "  listen: 127.0.0.1:0"));
    assert_eq!(
        render(&problems),
        "error: postgresql.listen: `0` is not a port (1 to 65535)\n  \
         --> PATRONI_CONFIGURATION:16:11\n   \
         hint: write host:port, host1,host2:port, or `'*:5432'` for every interface\n\n\
         1 error, no warnings\n"
    );
}

#[test]
fn what_is_no_configuration_at_all_is_refused() {
    for text in [
        "",
        "# nothing\n",
        "just text",
        "- a\n- list\n",
        "{}",
        "\u{0}\u{1}",
        "null",
        "&a [*a]",
    ] {
        let problems = problems_of(text);
        assert!(problems.iter().any(Problem::is_error), "{text:?}: {problems:?}");
    }
}

#[test]
fn no_text_makes_it_panic() {
    // Every prefix, and every line once removed, doubled and emptied.
    for end in 0..GOOD.len() {
        problems_of(&GOOD[..end]);
    }
    let lines: Vec<&str> = GOOD.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        for change in [
            "",
            &format!("{line}\n{line}"),
            &line.replace(": ", ":"),
            &line.replace("127", "["),
        ] {
            let mut changed = lines.clone();
            changed[index] = change;
            problems_of(&changed.join("\n"));
        }
    }
}
