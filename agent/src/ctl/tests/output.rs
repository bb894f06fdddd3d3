//! What `list`, `topology`, `history` and the like print, in every format.

use crate::ctl::fake::Bench;

const PRETTY: &str = "\
+ Cluster: demo (7710181664234940600) ----+----+-------------+-----+------------+-----+
| Member | Host     | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+----------+---------+-----------+----+-------------+-----+------------+-----+
| nodea  | 10.0.0.1 | Leader  | running   |  3 |             |     |            |     |
| nodeb  | 10.0.0.2 | Replica | streaming |  3 |   0/4000060 |   0 |  0/4000060 |   0 |
+--------+----------+---------+-----------+----+-------------+-----+------------+-----+
";

fn out(bench: &Bench, arguments: &str) -> String {
    let outcome = bench.run(arguments);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{arguments}");
    outcome.out
}

#[test]
fn pretty_is_the_table_that_everybody_knows() {
    assert_eq!(out(&Bench::demo(), "list"), PRETTY);
    assert_eq!(out(&Bench::demo(), "list demo demo"), format!("{PRETTY}{PRETTY}"));
}

#[test]
fn footer_names_the_pause_and_the_scheduled_switchover() {
    let bench = Bench::demo().with(|world| {
        world.put("demo", "config", r#"{"pause":true}"#);
        let failover = r#"{"leader":"nodea","member":"nodeb","scheduled_at":"2026-11-24T10:33:00+00:00"}"#;
        world.put("demo", "failover", failover);
    });
    let footer = " Maintenance mode: on
 Switchover scheduled at: 2026-11-24T10:33:00+00:00
                    from: nodea
                      to: nodeb
";
    assert_eq!(out(&bench, "list"), format!("{PRETTY}{footer}"));
    assert!(!out(&bench, "list -f tsv").contains("Maintenance"));
}

#[test]
fn programs_get_every_field_that_says_something() {
    let bench = Bench::demo();
    let tsv = "\
Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag
demo\tnodea\t10.0.0.1\tLeader\trunning\t3\t\t\t\t
demo\tnodeb\t10.0.0.2\tReplica\tstreaming\t3\t0/4000060\t0\t0/4000060\t0
";
    assert_eq!(out(&bench, "list -f tsv"), tsv);
    let json = r#"[{"Cluster": "demo", "Member": "nodea", "Host": "10.0.0.1", "Role": "Leader", "State": "running", "TL": 3}, {"Cluster": "demo", "Member": "nodeb", "Host": "10.0.0.2", "Role": "Replica", "State": "streaming", "TL": 3, "Receive LSN": "0/4000060", "Receive Lag": 0, "Replay LSN": "0/4000060", "Replay Lag": 0}]
"#;
    assert_eq!(out(&bench, "list -f json"), json);
    let yaml = "\
- Cluster: demo
  Host: 10.0.0.1
  Member: nodea
  Role: Leader
  State: running
  TL: 3
- Cluster: demo
  Host: 10.0.0.2
  Member: nodeb
  Receive LSN: 0/4000060
  Receive Lag: 0
  Replay LSN: 0/4000060
  Replay Lag: 0
  Role: Replica
  State: streaming
  TL: 3
";
    assert_eq!(out(&bench, "list -f yaml"), yaml);
    assert_eq!(out(&bench, "list -f yml"), yaml);
}

const RICH: &str = "\
+ Cluster: demo (7710181664234940600) --+---------------------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+----------------------------------------------+----------------------+
| Member | Host          | Role         | State               | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason                        | Scheduled restart                            | Tags                 |
+--------+---------------+--------------+---------------------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+----------------------------------------------+----------------------+
| nodea  | 10.0.0.1:5432 | Leader       | running             |  3 |             |     |            |     |                 |                                               |                                              |                      |
+--------+---------------+--------------+---------------------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+----------------------------------------------+----------------------+
| nodeb  | 10.0.0.2:5432 | Sync Standby | streaming           |  3 |   0/4000060 |  10 |  0/4000060 |  10 |                 |                                               |                                              |                      |
+--------+---------------+--------------+---------------------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+----------------------------------------------+----------------------+
| nodec  | 10.0.0.1:5433 | Replica      | in archive recovery |  2 |     unknown |     |  0/4000060 |  10 | *               | max_connections: 100->101                     | 2026-11-21T10:00:00+00:00 if version < 15.18 | nofailover: true     |
|        |               |              |                     |    |             |     |            |     |                 | shared_preload_libraries: [hidden - too long] |                                              | replicatefrom: nodeb |
+--------+---------------+--------------+---------------------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+----------------------------------------------+----------------------+
";

/// A cluster in which every column has something to say.
fn rich() -> Bench {
    Bench::demo().with(|world| {
        world.put("demo", "config", r#"{"synchronous_mode":true}"#);
        world.put("demo", "sync", r#"{"leader":"nodea","sync_standby":"nodeb"}"#);
        world.put("demo", "status", r#"{"optime":77594720}"#);
        let record = r#"{"conn_url":"postgres://10.0.0.1:5433/postgres","api_url":"http://nodec:8008/patroni","state":"running","role":"replica","replication_state":"in archive recovery","xlog_location":67108960,"timeline":2,"tags":{"nofailover":true,"replicatefrom":"nodeb"},"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"101"},"shared_preload_libraries":{"old_value":"pg_stat_statements","new_value":"pg_stat_statements,auto_explain"}},"scheduled_restart":{"schedule":"2026-11-21T10:00:00+00:00","postgres_version":"15.18"}}"#;
        world.put("demo", "members/nodec", record);
    })
}

#[test]
fn extra_columns_appear_when_a_member_fills_them() {
    assert_eq!(out(&rich(), "list"), RICH);

    let tsv = out(&rich(), "list -f tsv");
    let last = "*\tmax_connections: 100->101 shared_preload_libraries: pg_stat_statements->pg_stat_statements,auto_explain\t2026-11-21T10:00:00+00:00 if version < 15.18\t{nofailover: true, replicatefrom: nodeb}";
    assert!(tsv.trim_end().ends_with(last), "{tsv}");
    let json: serde_json::Value = serde_json::from_str(&out(&rich(), "list -f json")).unwrap();
    assert_eq!(
        json[2]["Tags"],
        serde_json::json!({"nofailover": true, "replicatefrom": "nodeb"})
    );
    assert_eq!(json[0].get("Tags"), None);
}

#[test]
fn extended_shows_empty_columns_too() {
    let text = out(&Bench::demo(), "list -e");
    let head = "| Lag | Pending restart | Pending restart reason | Scheduled restart | Tags |\n";
    assert!(text.contains(head), "{text}");
}

#[test]
fn timestamp_comes_first() {
    let text = out(&Bench::demo(), "list -t");
    assert!(
        text.starts_with("2026-11-20 ") && text.lines().next().unwrap().len() == 19,
        "{text}"
    );
}

#[test]
fn clusters_before_and_in_bootstrap_say_so() {
    let bench = Bench::demo().with(|world| {
        world.put("young", "initialize", "");
        world.put("blank", "config", "{}");
    });
    assert!(out(&bench, "list young").starts_with("+ Cluster: young (initializing) "));
    assert!(out(&bench, "list blank").starts_with("+ Cluster: blank (uninitialized) "));
    assert!(out(&bench, "list nosuch").starts_with("+ Cluster: nosuch (uninitialized) "));
}

#[test]
fn topology_indents_each_member_below_its_upstream() {
    let text = out(&rich(), "topology");
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split('|').next())
        .collect();
    let names: Vec<_> = names.iter().map(|name| name.trim_end()).collect();
    assert_eq!(names, ["Member", "nodea", "+ nodeb", "  + nodec", ""], "{text}");
    assert!(
        text.contains("{nofailover: true, replicatefrom: nodeb}"),
        "{text}"
    );
}

#[test]
fn topology_loses_nobody_in_a_circle() {
    let bench = Bench::demo().with(|world| {
        world.put(
            "demo",
            "members/x",
            r#"{"state":"running","tags":{"replicatefrom":"y"}}"#,
        );
        world.put(
            "demo",
            "members/y",
            r#"{"state":"running","tags":{"replicatefrom":"x"}}"#,
        );
    });
    let text = out(&bench, "topology");
    assert!(text.contains("| x ") && text.contains("| y "), "{text}");
}

#[test]
fn history_in_every_format() {
    let bench = Bench::demo().with(|world| {
        let lines = r#"[[1,67108864,"no recovery target specified","2026-11-20T09:00:00+00:00","nodeb"],[2,67108960,"old"]]"#;
        world.put("demo", "history", lines);
    });
    let pretty = "\
+----+----------+------------------------------+---------------------------+------------+
| TL |      LSN | Reason                       | Timestamp                 | New Leader |
+----+----------+------------------------------+---------------------------+------------+
|  1 | 67108864 | no recovery target specified | 2026-11-20T09:00:00+00:00 | nodeb      |
|  2 | 67108960 | old                          |                           |            |
+----+----------+------------------------------+---------------------------+------------+
";
    assert_eq!(out(&bench, "history"), pretty);
    assert_eq!(
        out(&bench, "history -f tsv").lines().last(),
        Some("2\t67108960\told\t\t")
    );
    let json = r#"[{"TL": 1, "LSN": 67108864, "Reason": "no recovery target specified", "Timestamp": "2026-11-20T09:00:00+00:00", "New Leader": "nodeb"}, {"TL": 2, "LSN": 67108960, "Reason": "old", "Timestamp": "", "New Leader": ""}]
"#;
    assert_eq!(out(&bench, "history -f json"), json);
    assert!(out(&bench, "history -f yaml").starts_with("- LSN: 67108864\n  New Leader: nodeb\n"));
    assert_eq!(out(&Bench::demo(), "history").lines().count(), 4);
}

#[test]
fn dsn_finds_a_member() {
    let bench = Bench::demo();
    assert_eq!(out(&bench, "dsn"), "host=10.0.0.1 port=5432\n");
    assert_eq!(out(&bench, "dsn -r replica"), "host=10.0.0.2 port=5432\n");
    assert_eq!(out(&bench, "dsn demo -m nodeb"), "host=10.0.0.2 port=5432\n");
}

#[test]
fn version_asks_the_members() {
    let bench = Bench::demo().with(|world| {
        let patroni = r#"{"server_version":150018,"patroni":{"version":"4.1.5"}}"#;
        world.answer("GET http://nodea:8008/patroni", 200, patroni);
        let surus = r#"{"server_version":90624,"patroni":{"version":"4.1.5"},"surus":{"version":"0.1.0"}}"#;
        world.answer("GET http://nodeb:8008/patroni", 503, surus);
    });
    let expected = "\nnodea: Patroni 4.1.5 PostgreSQL 15.18\nnodeb: Surus 0.1.0 PostgreSQL 9.6.24\n";
    assert_eq!(out(&bench, "version demo"), expected);
    assert_eq!(
        out(&bench, "version demo nodea"),
        "\nnodea: Patroni 4.1.5 PostgreSQL 15.18\n"
    );
}

#[test]
fn explain_asks_the_node_itself_without_etcd() {
    let bench = Bench {
        world: Bench::demo().world,
        scope: None,
    }
    .with(|world| {
        world.answer("GET http://nodea:8008/explain?text", 200, "nodea leads\n");
        world.answer("GET http://nodea:8008/explain", 200, r#"{"rule":"R1"}"#);
        world.clusters.clear();
    });
    assert_eq!(out(&bench, "explain"), "nodea leads\n");
    assert_eq!(out(&bench, "explain -f json"), "{\"rule\":\"R1\"}\n");
    let lost = Bench::demo().run("explain nodeb");
    assert_eq!(lost.code, 1);
    assert!(
        lost.err.contains("cannot reach the REST API of member nodeb"),
        "{}",
        lost.err
    );
}
