//! Orders that succeed, fail, conflict and wait.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use surus::rest::NodeStatus;
use surus::rest::backend::{DcsError, FailsafeAnswer, Reply};

use crate::support::*;

#[tokio::test]
async fn config_is_patched_and_put() {
    let node = Node::start(primary()).await;
    let reply = node
        .send(
            "PATCH",
            "/config",
            Some(
                r#"{"ttl": 10, "postgresql": {"parameters": {"max_connections": null, "work_mem": "8MB"}}}"#,
            ),
        )
        .await;
    let expected = r#"{"ttl": 10, "postgresql": {"parameters": {"work_mem": "8MB"}}}"#;
    assert_eq!((reply.status, reply.body.as_str()), (200, expected));
    assert_eq!(
        node.fake.take_calls(),
        [
            r#"cas_config 42 {"ttl":10,"postgresql":{"parameters":{"work_mem":"8MB"}}}"#,
            "wake"
        ]
    );
    // Nothing to change, nothing written.
    assert_eq!(
        node.send("PATCH", "/config", Some(r#"{"ttl": 5}"#)).await.status,
        200
    );
    assert!(node.fake.take_calls().is_empty());

    *node.fake.write.lock().unwrap() = Err(DcsError::Conflict);
    let reply = node.send("PATCH", "/config", Some(r#"{"ttl": 6}"#)).await;
    assert_eq!(reply.status, 409);
    assert!(reply.body.contains("read it again and retry"), "{}", reply.body);
    *node.fake.write.lock().unwrap() = Err(DcsError::Unavailable("timed out".to_owned()));
    assert_eq!(
        node.send("PUT", "/config", Some(r#"{"ttl": 6}"#)).await.status,
        502
    );
    *node.fake.write.lock().unwrap() = Ok(1);
    let reply = node.send("PUT", "/config", Some(r#"{"ttl":6}"#)).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"ttl": 6}"#));

    let mut snapshot = cluster(Some("n1"), &[]);
    snapshot.raw.keys.remove("config");
    node.set_cluster(snapshot);
    assert_eq!(
        node.send("PATCH", "/config", Some(r#"{"ttl": 6}"#)).await.status,
        503
    );
}

#[tokio::test]
async fn switchover_waits_for_what_happens() {
    let body = r#"{"leader": "n1", "candidate": "n2"}"#;
    let outcomes = [
        (
            cluster(Some("n2"), &[]),
            200,
            r#"Successfully switched over to "n2""#,
        ),
        (
            cluster(Some("n3"), &[]),
            200,
            r#"Switched over to "n3" instead of "n2""#,
        ),
        (
            cluster(Some("n1"), &[("failover", "{}")]),
            503,
            "Switchover failed",
        ),
    ];
    for (mut after, code, text) in outcomes {
        let node = Node::start(primary()).await;
        let (reply, ()) = tokio::join!(node.post("/switchover", body), async {
            node.fake.until_called("wake").await;
            // Snapshots of the past, and of a moment without a leader, decide nothing.
            let pending = [("failover", r#"{"leader":"n1","member":"n2"}"#)];
            for early in [
                cluster(Some("n3"), &[]),
                cluster(None, &pending),
                cluster(None, &[]),
            ] {
                let mut early = early;
                if early.view.leader.is_none() {
                    early.raw.revision = 102;
                }
                node.publish(NodeStatus {
                    cluster: seen(&early),
                    ..primary()
                });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            after.raw.revision = 103;
            node.publish(NodeStatus {
                cluster: seen(&after),
                ..primary()
            });
        });
        assert_eq!((reply.status, reply.body.as_str()), (code, text));
        assert_eq!(
            node.fake.take_calls(),
            [r#"put_failover 0 {"leader":"n1","member":"n2"}"#, "wake"]
        );
    }
}

#[tokio::test]
async fn failover_without_a_leader_and_lost_driver() {
    let status = NodeStatus {
        cluster: seen(&cluster(None, &[])),
        ..replica()
    };
    let node = Node::start(status).await;
    let (reply, ()) = tokio::join!(node.post("/failover", r#"{"member": "n3"}"#), async {
        node.fake.until_called("wake").await;
        let mut after = cluster(Some("n3"), &[]);
        after.raw.revision = 101;
        node.publish(NodeStatus {
            cluster: seen(&after),
            ..replica()
        });
    });
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, r#"Successfully failed over to "n3""#)
    );
    assert_eq!(
        node.fake.take_calls(),
        [r#"put_failover 0 {"member":"n3"}"#, "wake"]
    );
}

#[tokio::test]
async fn switchover_is_refused_for_a_reason() {
    let node = Node::start(primary()).await;
    let paused = cluster(Some("n1"), &[("config", r#"{"pause":true}"#)]);
    let sync = |mode: &str, names: &str| {
        let (config, sync) = (
            format!(r#"{{"synchronous_mode":{mode}}}"#),
            format!(r#"{{"leader":"n1","sync_standby":{names}}}"#),
        );
        cluster(Some("n1"), &[("config", &config), ("sync", &sync)])
    };
    let mut alone = cluster(Some("n1"), &[]);
    alone.view.members.retain(|name, _| name.as_str() == "n1");
    let normal = || cluster(Some("n1"), &[]);
    let future = r#""2030-01-01T00:00:00Z""#;
    for (snapshot, path, body, code, text) in [
        (
            normal(),
            "switchover",
            r#"{"leader":"n2","candidate":"n3"}"#.to_owned(),
            412,
            "leader name does not match",
        ),
        (
            cluster(None, &[]),
            "switchover",
            r#"{"leader":"n1"}"#.to_owned(),
            412,
            "leader name does not match",
        ),
        (
            normal(),
            "failover",
            r#"{"leader":"n2","candidate":"n3"}"#.to_owned(),
            412,
            "leader name does not match",
        ),
        (
            normal(),
            "switchover",
            r#"{"leader":"n1","candidate":"n9"}"#.to_owned(),
            412,
            "candidate does not exists",
        ),
        (
            normal(),
            "failover",
            r#"{"candidate":"n9"}"#.to_owned(),
            412,
            "candidate does not exists",
        ),
        (
            normal(),
            "failover",
            r#"{"candidate":"n1"}"#.to_owned(),
            412,
            "n1 is the leader already",
        ),
        (
            normal(),
            "switchover",
            r#"{"leader":"n1","candidate":"n1"}"#.to_owned(),
            400,
            "Switchover target and source are the same",
        ),
        (
            alone,
            "switchover",
            r#"{"leader":"n1"}"#.to_owned(),
            412,
            "switchover is not possible: cluster does not have members except leader",
        ),
        (
            sync("true", "\"n2\""),
            "switchover",
            r#"{"leader":"n1","candidate":"n3"}"#.to_owned(),
            412,
            "candidate name does not match with sync_standby",
        ),
        (
            sync("true", "null"),
            "switchover",
            r#"{"leader":"n1"}"#.to_owned(),
            412,
            "switchover is not possible: can not find sync_standby",
        ),
        (
            paused.clone(),
            "switchover",
            r#"{"leader":"n1"}"#.to_owned(),
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ),
        (
            paused,
            "switchover",
            format!(r#"{{"leader":"n1","candidate":"n2","scheduled_at":{future}}}"#),
            400,
            "Can't schedule switchover in the paused state",
        ),
    ] {
        node.set_cluster(snapshot);
        let reply = node.post(&format!("/{path}"), &body).await;
        assert_eq!((reply.status, reply.body.as_str()), (code, text), "{path} {body}");
    }
    node.set_cluster(normal());
    for peer in [
        None,
        Some(surus_core::view::PeerStatus {
            nofailover: true,
            ..good_peer()
        }),
        Some(surus_core::view::PeerStatus {
            running: false,
            ..good_peer()
        }),
        Some(surus_core::view::PeerStatus {
            can_take_lock: Some(false),
            ..good_peer()
        }),
    ] {
        *node.fake.peer.lock().unwrap() = peer;
        let reply = node.post("/switchover", r#"{"leader":"n1"}"#).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (
                412,
                "switchover is not possible: no good candidates have been found"
            )
        );
    }
    assert_eq!(node.fake.take_calls(), Vec::<String>::new());
    *node.fake.peer.lock().unwrap() = Some(good_peer());
    *node.fake.write.lock().unwrap() = Err(DcsError::Conflict);
    let reply = node.post("/switchover", r#"{"leader":"n1"}"#).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, "failed to write failover key into DCS")
    );
    *node.fake.snapshot.lock().unwrap() = Err(DcsError::Unavailable("x".to_owned()));
    assert_eq!(node.post("/switchover", r#"{"leader":"n1"}"#).await.status, 503);
}

#[tokio::test]
async fn switchover_is_scheduled_and_deleted() {
    let node = Node::start(primary()).await;
    let reply = node.send("DELETE", "/switchover", None).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (404, "no switchover is scheduled")
    );
    let reply = node
        .post(
            "/switchover",
            r#"{"leader":"n1","candidate":"n2","scheduled_at":"2030-01-01T01:00:00+01:00"}"#,
        )
        .await;
    assert_eq!((reply.status, reply.body.as_str()), (202, "Switchover scheduled"));
    let key = r#"{"leader":"n1","member":"n2","scheduled_at":"2030-01-01T00:00:00+00:00"}"#;
    assert_eq!(
        node.fake.take_calls(),
        [format!("put_failover 0 {key}"), "wake".to_owned()]
    );
    node.set_cluster(cluster(Some("n1"), &[("failover", key)]));
    let reply = node.send("DELETE", "/switchover", None).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, "scheduled switchover deleted")
    );
    assert_eq!(node.fake.take_calls(), ["put_failover 70 {}", "wake"]);
    *node.fake.write.lock().unwrap() = Err(DcsError::Conflict);
    assert_eq!(node.send("DELETE", "/switchover", None).await.status, 409);
}

#[tokio::test]
async fn restart_now() {
    let node = Node::start(primary()).await;
    for body in [
        None,
        Some(""),
        Some("{}"),
        Some(r#"{"role":"primary","postgres_version":"15.19","timeout":"1min"}"#),
    ] {
        let reply = node.send("POST", "/restart", body).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (200, "restarted successfully"),
            "{body:?}"
        );
        assert_eq!(node.fake.take_calls(), ["order Restart"]);
    }
    for body in [
        r#"{"role":"replica"}"#,
        r#"{"postgres_version":"15.18"}"#,
        r#"{"restart_pending":true}"#,
    ] {
        let reply = node.post("/restart", body).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (503, "restart conditions are not satisfied"),
            "{body}"
        );
    }
    assert!(node.fake.take_calls().is_empty());
    *node.fake.reply.lock().unwrap() = Reply {
        ok: false,
        text: "restart already in progress".to_owned(),
    };
    let reply = node.post("/restart", "{}").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, "restart already in progress")
    );
    *node.fake.reply.lock().unwrap() = Reply {
        ok: false,
        text: String::new(),
    };
    assert_eq!(node.post("/restart", "{}").await.body, "restart failed");
    *node.fake.order_takes.lock().unwrap() = Duration::from_secs(30);
    let reply = node.post("/restart", r#"{"timeout": 1}"#).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, "postgres is still starting")
    );
}

#[tokio::test]
async fn restart_later() {
    let node = Node::start(primary()).await;
    let reply = node.send("DELETE", "/restart", None).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (404, "no restarts are scheduled")
    );
    let body = r#"{"schedule":"2026-11-20T09:30:00Z","role":"primary"}"#;
    let reply = node.post("/restart", body).await;
    assert_eq!((reply.status, reply.body.as_str()), (202, "Restart scheduled"));
    let reply = node.post("/restart", body).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (409, "Another restart is already scheduled")
    );
    let shown = json!({"schedule": "2026-11-20T09:30:00+00:00", "role": "primary"});
    assert_eq!(node.get("/patroni").await.json()["scheduled_restart"], shown);
    let record = node.rest.schedule().record().unwrap();
    assert_eq!(
        record["postmaster_start_time"],
        "2026-11-20 09:22:40.696997+00:00"
    );
    let reply = node.send("DELETE", "/restart", None).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, "scheduled restart deleted")
    );
    assert!(node.rest.schedule().record().is_none());

    // Due: executed. In pause: waits. Another postmaster, or conditions that do not hold: dropped.
    let due = 1_795_167_000_000;
    for (case, executed) in [
        ("due", true),
        ("pause", true),
        ("restarted", false),
        ("demoted", false),
        ("missed", false),
    ] {
        node.fake.wall.store(WALL.as_millis() as u64, Ordering::SeqCst);
        node.publish(primary());
        assert_eq!(node.post("/restart", body).await.status, 202, "{case}");
        node.fake.take_calls();
        match case {
            "pause" => node.publish(NodeStatus {
                pause: true,
                ..primary()
            }),
            "demoted" => node.publish(replica()),
            "restarted" => {
                let mut status = primary();
                let mut postgres = (**status.postgres.as_ref().unwrap()).clone();
                postgres.detail.postmaster_start_time = Some(WALL);
                status.postgres = Some(std::sync::Arc::new(postgres));
                node.publish(status);
            }
            _ => {}
        }
        let late = if case == "missed" { 60_000 } else { 1 };
        node.fake.wall.store(due + late, Ordering::SeqCst);
        if case == "pause" {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert!(node.fake.take_calls().is_empty());
            node.publish(primary());
        }
        node.fake.until_called("wake").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let ordered = node.fake.take_calls().contains(&"order Restart".to_owned());
        assert_eq!(ordered, executed, "{case}");
        assert!(node.rest.schedule().record().is_none(), "{case}");
    }
    node.publish(NodeStatus {
        pause: true,
        ..primary()
    });
    node.fake.wall.store(WALL.as_millis() as u64, Ordering::SeqCst);
    let reply = node.post("/restart", body).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (500, "Can't schedule restart in the paused state")
    );
}

#[tokio::test]
async fn reload_and_reinitialize() {
    let node = Node::start(replica()).await;
    let reply = node.send("POST", "/reload", None).await;
    assert_eq!((reply.status, reply.body.as_str()), (202, "reload scheduled"));
    assert_eq!(node.fake.take_calls(), ["reload"]);
    for (body, force, from_leader) in [
        ("{}", false, false),
        (r#"{"force":true,"from_leader":true}"#, true, true),
    ] {
        let reply = node.post("/reinitialize", body).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "reinitialize started"));
        let order = format!("order Reinitialize {{ force: {force}, from_leader: {from_leader} }}");
        assert_eq!(node.fake.take_calls(), [order]);
    }
    *node.fake.reply.lock().unwrap() = Reply {
        ok: false,
        text: "restart already in progress".to_owned(),
    };
    let reply = node.post("/reinitialize", "{}").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, "restart already in progress")
    );
    node.fake.take_calls();
    node.publish(primary());
    assert_eq!(
        node.post("/reinitialize", "{}").await.body,
        "I am the leader, can not reinitialize"
    );
    node.publish(NodeStatus {
        cluster: seen(&cluster(None, &[])),
        ..replica()
    });
    assert_eq!(
        node.post("/reinitialize", "{}").await.body,
        "Cluster has no leader, can not reinitialize"
    );
    assert!(node.fake.take_calls().is_empty());
}

#[tokio::test]
async fn failsafe_question() {
    let node = Node::start(replica()).await;
    let body = r#"{"name":"n2","conn_url":"postgres://x:5432/postgres","api_url":"http://x:8008/patroni","slots":{"n1":7},"surus":{"ttl":8.0}}"#;
    let reply = node.post("/failsafe", body).await;
    assert_eq!(
        (reply.status, reply.body.as_str(), reply.header("lsn")),
        (200, "Accepted", Some("67395656"))
    );
    assert_eq!(
        node.fake.take_calls(),
        [r#"failsafe n2 http://x:8008/patroni {"n1": Lsn(7)} Some(8s)"#]
    );
    for ttl in ["-1", "1e9", "\"8\"", "null"] {
        let body = format!(r#"{{"name":"n2","surus":{{"ttl":{ttl}}}}}"#);
        let reply = node.post("/failsafe", &body).await;
        assert_eq!(reply.status, 400, "{ttl}");
        assert!(
            reply.body.contains("\"ttl\" must be a number of seconds"),
            "{}",
            reply.body
        );
    }
    assert_eq!(node.post("/failsafe", r#"{"name":"n2"}"#).await.status, 200);
    assert_eq!(node.fake.take_calls(), ["failsafe n2  {} None"]);
    *node.fake.failsafe.lock().unwrap() = FailsafeAnswer::Refused(String::new());
    let reply = node.post("/failsafe", body).await;
    assert_eq!((reply.status, reply.body.as_str()), (500, "Running as a leader"));
    *node.fake.failsafe.lock().unwrap() = FailsafeAnswer::Off;
    assert_eq!(node.post("/failsafe", body).await.status, 502);
}

#[tokio::test]
async fn too_many_orders_are_refused_and_the_rest_goes_on() {
    let limits = surus::rest::Limits {
        max_orders: 2,
        ..Default::default()
    };
    let node = Node::with(primary(), settings(), limits).await;
    *node.fake.order_takes.lock().unwrap() = Duration::from_millis(500);
    let (first, second, third) =
        tokio::join!(node.post("/restart", "{}"), node.post("/restart", "{}"), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(node.get("/primary").await.status, 200);
            // The question that a primary's life depends on is not queued behind people's orders.
            assert_eq!(node.post("/failsafe", r#"{"name":"n2"}"#).await.status, 200);
            node.post("/restart", "{}").await
        });
    assert_eq!((first.status, second.status, third.status), (200, 200, 503));
    assert!(third.body.contains("too many orders"), "{}", third.body);
}

#[tokio::test]
async fn a_wedged_driver_collects_no_requests() {
    let limits = surus::rest::Limits {
        dcs_timeout: Duration::from_millis(100),
        core_timeout: Duration::from_millis(100),
        max_orders: 1,
        ..Default::default()
    };
    let node = Node::with(replica(), settings(), limits).await;
    node.fake.wedged.store(true, Ordering::SeqCst);
    for (method, path, body, code, text) in [
        ("PATCH", "/config", r#"{"ttl":7}"#, 409, "no answer within 0.1 s"),
        ("PUT", "/config", r#"{"ttl":7}"#, 502, "no answer within 0.1 s"),
        (
            "POST",
            "/switchover",
            r#"{"leader":"n2","candidate":"n3"}"#,
            503,
            "failed to write failover key into DCS",
        ),
        ("POST", "/reinitialize", "{}", 503, "has not begun with it yet"),
        (
            "POST",
            "/failsafe",
            r#"{"name":"n2"}"#,
            503,
            "the agent does not answer",
        ),
        (
            "POST",
            "/restart",
            r#"{"timeout":1}"#,
            503,
            "postgres is still starting",
        ),
    ] {
        let reply = node.send(method, path, Some(body)).await;
        assert_eq!(reply.status, code, "{method} {path}: {}", reply.body);
        assert!(reply.body.contains(text), "{method} {path}: {}", reply.body);
    }
    node.fake.wedged.store(false, Ordering::SeqCst);
    assert_eq!(node.post("/restart", "{}").await.status, 200);
}
