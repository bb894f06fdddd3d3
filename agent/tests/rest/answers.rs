//! Documents: keys, their order, headers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use surus::rest::NodeStatus;
use surus::rest::state::Progress;
use surus_core::view::Process;

use crate::support::*;

#[tokio::test]
async fn status_of_a_primary() {
    let mut status = primary();
    status.pause = true;
    status.tags = tags(json!({"clonefrom": true}));
    let mut postgres = (**status.postgres.as_ref().unwrap()).clone();
    let pending = ("100".to_owned(), "101".to_owned());
    postgres
        .detail
        .pending_restart
        .insert("max_connections".to_owned(), pending);
    status.postgres = Some(Arc::new(postgres));
    let node = Node::start(status).await;
    let reply = node.get("/patroni").await;
    let expected = concat!(
        r#"{"state": "running", "postmaster_start_time": "2026-11-20 09:22:40.696997+00:00", "role": "primary", "#,
        r#""server_version": 150018, "xlog": {"location": 67395656}, "timeline": 5, "#,
        r#""replication": [{"usename": "replicator", "application_name": "n2", "client_addr": "10.0.0.2", "#,
        r#""state": "streaming", "sync_state": "async", "sync_priority": 0}], "pause": true, "#,
        r#""dcs_last_seen": 1795166718, "tags": {"clonefrom": true}, "#,
        r#""database_system_identifier": "7710181664234940600", "pending_restart": true, "#,
        r#""pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "101"}}, "#,
        r#""patroni": {"version": "4.1.5", "scope": "demo", "name": "n1"}, "#,
        r#""surus": {"version": "0.1.0", "can_take_lock": true, "right_remaining": 4.0, "rule": "R10"}}"#
    );
    assert_eq!(reply.body, expected);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(
        reply.header("content-length"),
        Some(expected.len().to_string().as_str())
    );
    assert_eq!(reply.header("date"), Some("Fri, 20 Nov 2026 09:25:18 GMT"));
    assert_eq!(reply.header("server"), Some("Surus/0.1.0"));
    assert_eq!(node.get("/").await.body, expected);
}

#[tokio::test]
async fn status_of_replicas() {
    let mut status = replica();
    let mut postgres = (**status.postgres.as_ref().unwrap()).clone();
    postgres.detail.replayed_at = Some(Duration::from_micros(1_795_166_700_500_000));
    status.postgres = Some(Arc::new(postgres));
    status.cluster = seen(&cluster(None, &[]));
    status.failsafe_active = true;
    status.watchdog_failed = true;
    status.progress = Some(Progress {
        what: "base backup",
        done: 5,
        total: Some(10),
    });
    let node = Node::start(status.clone()).await;
    let document = node.get("/patroni").await.json();
    assert_eq!(
        document["xlog"],
        json!({"received_location": 67_395_656, "replayed_location": 67_395_000,
               "replayed_timestamp": "2026-11-20 09:25:00.500000+00:00", "paused": false})
    );
    assert_eq!(document["replication_state"], "streaming");
    for key in ["cluster_unlocked", "failsafe_mode_is_active", "watchdog_failed"] {
        assert_eq!(document[key], true, "{key}");
    }
    assert!(document.get("pause").is_none() && document.get("replication").is_none());
    assert_eq!(
        document["surus"]["progress"],
        json!({"what": "base backup", "done": 5, "total": 10})
    );

    // The peer client reads its own kind.
    let read = surus::peers::read_status(&document).unwrap();
    assert!(read.running && !read.primary);
    assert_eq!(
        (read.position.unwrap().0, read.can_take_lock),
        (67_395_656, Some(false))
    );

    let mut postgres = (**status.postgres.as_ref().unwrap()).clone();
    postgres.view.process = Process::Unresponsive { may_write: false };
    node.publish(NodeStatus {
        postgres: Some(Arc::new(postgres)),
        ..status
    });
    let document = node.get("/patroni").await.json();
    assert_eq!(
        (&document["state"], &document["role"]),
        (&json!("unknown"), &json!("replica"))
    );
    assert!(document.get("xlog").is_none());
}

#[tokio::test]
async fn cluster_history_config_failsafe_explain() {
    let node = Node::start(primary()).await;
    let scheduled = r#"{"leader":"n1","member":"n2","scheduled_at":"2026-11-24T10:33:00+00:00"}"#;
    let members = r#"{"n1":"http://127.0.0.1:8001/patroni"}"#;
    let snapshot = cluster(Some("n1"), &[("failover", scheduled), ("failsafe", members)]);
    node.set_cluster(snapshot.clone());
    let document = node.get("/cluster").await;
    let lead = concat!(
        r#"{"members": [{"name": "n1", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:8001/patroni", "#,
        r#""host": "127.0.0.1", "port": 5001, "timeline": 5, "tags": {"clonefrom": true}}, "#,
        r#"{"name": "n2", "role": "replica", "state": "streaming", "#
    );
    assert!(document.body.starts_with(lead), "{}", document.body);
    let json = document.json();
    assert_eq!(json["members"][1]["receive_lag"], 0);
    assert_eq!(json["members"][1]["replay_lag"], 656);
    assert_eq!(json["members"][1]["lsn"], "0/4046049");
    assert_eq!(
        json["scheduled_switchover"],
        json!({"at": "2026-11-24T10:33:00+00:00", "from": "n1", "to": "n2"})
    );
    assert_eq!(json["scope"], "demo");

    let history = r#"[[1, 67108864, "no recovery target specified", "2026-11-20T09:00:00+00:00", "n1"]]"#;
    assert_eq!(node.get("/history").await.body, history);
    assert_eq!(node.get("/config").await.json()["ttl"], 5);
    assert_eq!(node.get("/failsafe").await.status, 502);
    node.publish(NodeStatus {
        cluster: seen(&snapshot),
        ..primary()
    });
    assert_eq!(
        node.get("/failsafe").await.body,
        r#"{"n1": "http://127.0.0.1:8001/patroni"}"#
    );

    assert_eq!(node.get("/explain").await.body, r#"{"rule": "R10"}"#);
    let text = "R10: holds the lock and renews it";
    assert_eq!(node.get("/explain?text=1").await.body, text);
    assert_eq!(node.get("/explain?text").await.body, text);
    assert_eq!(
        node.send_with("GET", "/explain", None, "Accept: text/plain\r\n")
            .await
            .body,
        text
    );
    node.fake.wedged.store(true, std::sync::atomic::Ordering::SeqCst);
    let wedged = node.get("/explain").await;
    assert_eq!(wedged.status, 503);
    assert!(
        wedged.body.starts_with("the agent does not answer"),
        "{}",
        wedged.body
    );
    node.fake.wedged.store(false, std::sync::atomic::Ordering::SeqCst);

    *node.fake.snapshot.lock().unwrap() = Err(surus::rest::backend::DcsError::Unavailable(
        "connection refused".to_owned(),
    ));
    let reply = node.get("/cluster").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, "the DCS is not available: connection refused")
    );
    // What was seen last still answers where the contract allows it.
    assert_eq!(node.get("/config").await.status, 200);
    node.publish(NodeStatus::starting("demo", "n1", timing(), NOW));
    assert_eq!(node.get("/config").await.status, 502);
    assert_eq!(node.get("/history").await.body, "[]");
}

#[tokio::test]
async fn metrics_have_patronis_names_in_order() {
    let node = Node::start(primary()).await;
    let reply = node.get("/metrics").await;
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    let names: Vec<&str> = reply
        .body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('{').next().unwrap())
        .collect();
    let expected = [
        "version",
        "postgres_running",
        "postmaster_start_time",
        "primary",
        "xlog_location",
        "standby_leader",
        "replica",
        "sync_standby",
        "quorum_standby",
        "xlog_received_location",
        "xlog_replayed_location",
        "xlog_replayed_timestamp",
        "xlog_paused",
        "postgres_streaming",
        "postgres_in_archive_recovery",
        "postgres_server_version",
        "cluster_unlocked",
        "failsafe_mode_is_active",
        "failsafe_mode_enabled",
        "failsafe_member",
        "postgres_timeline",
        "dcs_last_seen",
        "pending_restart",
        "is_paused",
        "postgres_state",
        "failover_priority",
    ];
    let ours: Vec<_> = names
        .iter()
        .filter_map(|name| name.strip_prefix("patroni_"))
        .collect();
    assert_eq!(ours, expected);
    for line in [
        r#"patroni_version{scope="demo",name="n1"} 040105"#,
        r#"patroni_primary{scope="demo",name="n1"} 1"#,
        r#"patroni_xlog_location{scope="demo",name="n1"} 67395656"#,
        r#"patroni_postmaster_start_time{scope="demo",name="n1"} 1795166560.696997"#,
        r#"patroni_postgres_state{scope="demo",name="n1"} 5"#,
        r#"surus_lease_remaining_seconds{scope="demo",name="n1"} 4"#,
        r#"surus_decisions_total{scope="demo",name="n1"} 17"#,
        r#"surus_last_rule{scope="demo",name="n1",rule="R10"} 1"#,
        "# TYPE patroni_xlog_location counter",
        "# TYPE patroni_postgres_timeline gauge",
    ] {
        assert!(
            reply.body.lines().any(|found| found == line),
            "{line} in\n{}",
            reply.body
        );
    }
    // Each sample has its HELP and TYPE, and labels are escaped.
    let mut status = primary();
    status.scope = "a\"b\\".into();
    node.publish(status);
    let reply = node.get("/metrics").await;
    assert!(reply.body.contains(r#"{scope="a\"b\\",name="n1"}"#));
    assert_eq!(
        reply.body.matches("# HELP ").count(),
        reply.body.lines().filter(|line| !line.starts_with('#')).count()
    );
}

#[tokio::test]
async fn server_tokens_and_extra_headers() {
    let mut settings = settings();
    settings.server_tokens = "ProductOnly".to_owned();
    settings
        .http_extra_headers
        .insert("X-Frame-Options".to_owned(), "SAMEORIGIN".to_owned());
    settings
        .http_extra_headers
        .insert("bad header".to_owned(), "x".to_owned());
    let node = Node::with(primary(), settings.clone(), Default::default()).await;
    let reply = node.get("/patroni").await;
    assert_eq!(reply.header("server"), Some("Patroni"));
    assert_eq!(reply.header("x-frame-options"), Some("SAMEORIGIN"));
    settings.server_tokens = "Minimal".to_owned();
    node.rest.reconfigure(settings).unwrap();
    assert_eq!(node.get("/patroni").await.header("server"), Some("Patroni/4.1.5"));
}

#[tokio::test]
async fn unknown_methods_and_paths_are_501() {
    let node = Node::start(primary()).await;
    for (method, path) in [
        ("POST", "/"),
        ("POST", "/primary"),
        ("POST", "/patroni"),
        ("DELETE", "/failover"),
        ("PUT", "/restart"),
        ("PATCH", "/failsafe"),
        ("DELETE", "/config"),
        ("TRACE", "/"),
        ("FOO", "/restart"),
        ("POST", "/config"),
    ] {
        let reply = node.send(method, path, Some("{}")).await;
        assert_eq!(reply.status, 501, "{method} {path}");
        assert!(
            reply.body.contains(&format!("Unsupported method ('{method}')")),
            "{}",
            reply.body
        );
    }
    assert_eq!(node.fake.take_calls(), Vec::<String>::new());
    assert_eq!(
        node.get("/patroni").await.json()["patroni"]["scope"],
        Value::from("demo")
    );
}
