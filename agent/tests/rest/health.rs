//! Every health path × method × state of the node.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use surus::rest::NodeStatus;
use surus_core::types::Lsn;
use surus_core::view::{Process, ServerRole};

use crate::support::*;

/// Groups of paths that behave alike; a row of the table has one column per group.
const GROUPS: [&[&str]; 16] = [
    &[
        "/",
        "/primary",
        "/master",
        "/read-write",
        "/xprimaryx",
        "/primary/with/more",
        "/primary?lag=1&tag_no=x",
    ],
    &["/leader", "/xleaderx"],
    &["/standby-leader", "/standby_leader"],
    &["/replica"],
    &["/replica?lag=1000", "/replica?lag=1kB"],
    &["/replica?replication_state=streaming"],
    &["/read-only"],
    &["/sync", "/synchronous"],
    &["/quorum"],
    &["/async", "/asynchronous"],
    &["/read-only-sync", "/read-only-synchronous"],
    &["/read-only-quorum"],
    &["/health"],
    &["/liveness"],
    &["/readiness"],
    &["/nonsense", "/sync/", "/favicon.ico"],
];

fn states() -> Vec<(&'static str, NodeStatus, &'static str)> {
    let sync = r#"{"leader":"n2","quorum":0,"sync_standby":"n1,n3"}"#;
    let with =
        |config: &str, leader: &str| seen(&cluster(Some(leader), &[("config", config), ("sync", sync)]));
    let mut stale_probe = primary();
    stale_probe.postgres = stale_probe.postgres.map(|postgres| {
        let mut postgres = (*postgres).clone();
        postgres.at = NOW.minus(Duration::from_secs(4));
        Arc::new(postgres)
    });
    let process = |mut status: NodeStatus, process: Process| {
        status.postgres = status.postgres.map(|postgres| {
            let mut postgres = (*postgres).clone();
            postgres.view.process = process;
            Arc::new(postgres)
        });
        status
    };
    let role = |mut status: NodeStatus, role: ServerRole| {
        status.postgres = Some(Arc::new(server(role)));
        status
    };
    let unseen = |mut status: NodeStatus| {
        if let Some(seen) = &mut status.cluster {
            seen.at = NOW.minus(Duration::from_secs(6));
        }
        status
    };
    let received = Some(Lsn(67_395_656));
    let lagging = ServerRole::Replica {
        received,
        replayed: Lsn(60_000_000),
        streaming: true,
    };
    let archive = ServerRole::Replica {
        received,
        replayed: Lsn(67_395_656),
        streaming: false,
    };
    vec![
        // groups:                                       p l s r l s r s q a s q h l r n
        ("primary", primary(), "22555 52 5552 2222 5"),
        (
            "lock just over",
            NodeStatus {
                lock_until: Some(NOW),
                ..primary()
            },
            "55555 55 5555 5225 5",
        ),
        (
            "lock over by 1 ns to go",
            NodeStatus {
                lock_until: Some(NOW.plus(Duration::from_nanos(1))),
                ..primary()
            },
            "22555 52 5552 2222 5",
        ),
        (
            "primary without a lock",
            NodeStatus {
                lock_until: None,
                ..primary()
            },
            "55555 55 5555 5225 5",
        ),
        (
            "elected, still in recovery",
            role(primary(), replica_role()),
            "52522 22 5522 2222 5",
        ),
        (
            "primary, PostgreSQL hangs",
            process(primary(), Process::Unresponsive { may_write: true }),
            "52555 55 5555 5522 5",
        ),
        (
            "primary, PostgreSQL gone",
            NodeStatus {
                state: "crashed",
                ..process(primary(), Process::Absent)
            },
            "52555 55 5555 5522 5",
        ),
        ("primary, prober wedged", stale_probe, "52555 55 5555 5522 5"),
        (
            "primary, driver overdue",
            NodeStatus {
                next_run: NOW.minus(Duration::from_secs(6)),
                ..primary()
            },
            "22555 52 5552 2252 5",
        ),
        (
            "paused, driver overdue",
            NodeStatus {
                pause: true,
                next_run: NOW.minus(Duration::from_secs(60)),
                ..primary()
            },
            "22555 52 5552 2222 5",
        ),
        (
            "paused primary without a lock",
            NodeStatus {
                pause: true,
                lock_until: None,
                ..primary()
            },
            "55555 55 5555 5225 5",
        ),
        (
            "paused primary, DCS gone before anybody was told",
            unseen(NodeStatus {
                pause: true,
                lock_until: None,
                ..primary()
            }),
            "55555 55 5555 5225 5",
        ),
        (
            "paused primary, DCS gone",
            unseen(NodeStatus {
                pause: true,
                unfenced: true,
                lock_until: None,
                ..primary()
            }),
            "22555 52 5555 5225 5",
        ),
        (
            "paused replica, DCS gone",
            unseen(NodeStatus {
                pause: true,
                ..replica()
            }),
            "55522 22 5555 5225 5",
        ),
        ("replica", replica(), "55522 22 5525 5222 5"),
        ("replica, DCS gone", unseen(replica()), "55522 22 5555 5225 5"),
        (
            "replica, DCS gone, failsafe",
            unseen(NodeStatus {
                failsafe_active: true,
                ..replica()
            }),
            "55522 22 5555 5222 5",
        ),
        (
            "lagging replica",
            role(replica(), lagging),
            "55525 22 5525 5225 5",
        ),
        (
            "replica on the archive",
            role(replica(), archive),
            "55522 52 5525 5225 5",
        ),
        (
            "noloadbalance",
            NodeStatus {
                tags: tags(json!({"noloadbalance": true})),
                ..replica()
            },
            "55555 55 5555 5222 5",
        ),
        (
            "starting replica",
            NodeStatus {
                state: "starting",
                ..process(replica(), Process::Starting { as_primary: false })
            },
            "55555 55 5555 5525 5",
        ),
        (
            "sync standby",
            NodeStatus {
                cluster: with(r#"{"synchronous_mode":true}"#, "n2"),
                ..replica()
            },
            "55522 22 2552 5222 5",
        ),
        (
            "quorum standby",
            NodeStatus {
                cluster: with(r#"{"synchronous_mode":"quorum"}"#, "n2"),
                ..replica()
            },
            "55522 22 5255 2222 5",
        ),
        (
            "listed, but mode off",
            NodeStatus {
                cluster: with(r#"{"synchronous_mode":"off"}"#, "n2"),
                ..replica()
            },
            "55522 22 5525 5222 5",
        ),
        (
            "standby leader",
            NodeStatus {
                role: "standby_leader",
                cluster: with(r#"{"standby_cluster":{"host":"elsewhere"}}"#, "n1"),
                ..role(primary(), replica_role())
            },
            "52255 52 5552 2222 5",
        ),
        (
            "empty standby_cluster section",
            NodeStatus {
                cluster: with(r#"{"standby_cluster":{}}"#, "n1"),
                ..primary()
            },
            "22555 52 5552 2222 5",
        ),
        (
            "nothing yet",
            NodeStatus::starting("demo", "n1", timing(), NOW),
            "55555 55 5555 5525 5",
        ),
    ]
}

#[tokio::test]
async fn every_path_method_and_state() {
    let node = Node::start(primary()).await;
    let mut checked = 0;
    let mut wrong = Vec::new();
    for (name, status, row) in states() {
        node.publish(status);
        let row: Vec<char> = row.chars().filter(|code| *code != ' ').collect();
        assert_eq!(row.len(), GROUPS.len(), "{name}");
        for (paths, code) in GROUPS.iter().zip(row) {
            let expected = if code == '2' { 200 } else { 503 };
            for path in *paths {
                for method in ["GET", "HEAD", "OPTIONS"] {
                    let reply = node.send(method, path, None).await;
                    if reply.status != expected {
                        wrong.push(format!(
                            "{name}: {method} {path}: {} instead of {expected}",
                            reply.status
                        ));
                    }
                    assert!(
                        reply.header("content-length").is_some() || method == "HEAD",
                        "{}",
                        reply.head
                    );
                    assert!(method == "GET" || reply.body.is_empty());
                    checked += 1;
                }
            }
        }
        for path in [
            "/patroni",
            "/metrics",
            "/cluster",
            "/history",
            "/explain",
            "/patroni/abc",
        ] {
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert_eq!(
                    node.send(method, path, None).await.status,
                    200,
                    "{name}: {method} {path}"
                );
                checked += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("{checked} answers checked");
}

#[tokio::test]
async fn the_lock_is_judged_at_the_instant_of_the_request() {
    let node = Node::start(primary()).await;
    assert_eq!(node.get("/primary").await.status, 200);
    // No new status is published, only time passes: as when the driver is wedged.
    node.fake.now.store(
        NOW.plus(Duration::from_secs(4)).0,
        std::sync::atomic::Ordering::SeqCst,
    );
    assert_eq!(node.get("/primary").await.status, 503);
    assert_eq!(node.get("/leader").await.status, 503);
}

#[tokio::test]
async fn tags_filter_healthy_answers_except_of_leader_paths() {
    let status = NodeStatus {
        tags: tags(json!({"zone": "a b", "nice": true, "weight": 1.4})),
        ..replica()
    };
    let node = Node::start(status.clone()).await;
    for (path, expected) in [
        ("/replica?tag_zone=a+b", 200),
        ("/replica?tag_zone=a%20b&tag_nice=true", 200),
        ("/replica?tag_weight=1.4", 200),
        ("/replica?tag_zone=b", 503),
        ("/replica?tag_absent=x", 503),
        ("/replica?tag_nice=True", 503),
        ("/health?tag_zone=b", 503),
        ("/health?tag_nice=true", 200),
        ("/read-only?tag_zone=b", 503),
        ("/async?tag_zone=b", 503),
        ("/replica?lag=nonsense", 200),
        ("/replica?lag=", 200),
        ("/replica?lag=655", 503),
        ("/replica?lag=656", 200),
        ("/read-only?lag=655", 503),
        ("/async?lag=655", 503),
        ("/readiness?lag=655", 503),
        ("/readiness?lag=655&mode=write", 200),
        ("/replica?replication_state=in+archive+recovery", 503),
    ] {
        assert_eq!(node.get(path).await.status, expected, "{path}");
    }
    node.publish(NodeStatus {
        tags: status.tags,
        ..primary()
    });
    for path in ["/primary?tag_zone=b", "/leader?tag_zone=b", "/?tag_x=1"] {
        assert_eq!(node.get(path).await.status, 200, "{path}");
    }
}
