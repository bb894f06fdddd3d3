//! Promotions: that happen at once, and that do not happen.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use surus::config::settings::PostgresSettings;
use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::{MonoTime, Timeline};
use surus_core::view::{DataDir, Process};

use super::support::{G, Node, as_postgres, expect_ok, now, present, soon, streaming};

#[test]
fn a_promotion_that_did_not_happen_leaves_a_standby_that_starts() {
    as_postgres(
        "promotion::a_promotion_that_did_not_happen_leaves_a_standby_that_starts",
        || async {
            let root = tempfile::tempdir().unwrap();
            let (n1, n2) = (Node::new(root.path(), "n1"), Node::new(root.path(), "n2"));
            n1.bootstrapped().await;
            n2.replica_of(&n1).await;
            let refused = n2
                .postgres
                .promote(soon(), MonoTime(1), Timeline(5), None, false, G)
                .await;
            assert!(matches!(refused, Outcome::Refused(_)));
            assert!(!n2.server().await.is_primary());
            std::fs::write(n2.data("pg_wal/00000002.history"), "").unwrap();
            expect_ok(n2.postgres.restart(None, false, G).await);
            n2.until(streaming).await;
            // One whose server dies over it ends with it.
            let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'";
            let startup = n2.sql(sql).await[0].parse().unwrap();
            let postmaster = std::fs::read_to_string(n2.data("postmaster.pid")).unwrap();
            let postmaster = postmaster.lines().next().unwrap().parse().unwrap();
            let send =
                |pid, signal| rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
            send(startup, Signal::STOP);
            let before = now();
            let (outcome, ()) = tokio::join!(
                n2.postgres.promote(soon(), soon(), Timeline(1), None, false, G),
                async {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    send(postmaster, Signal::KILL);
                    send(startup, Signal::KILL);
                }
            );
            assert!(
                matches!(&outcome, Outcome::Unknown(text) if text.contains("the server ended")),
                "{outcome:?}"
            );
            assert!(now().since(before) < Duration::from_secs(10));
            n2.until_process(|process| *process == Process::Absent).await;
            expect_ok(n2.postgres.start_replica(Some(&n1.upstream()), G).await);
            n2.until(streaming).await;
            // Whatever was there is moved aside by a new clone, which goes through.
            n2.stop().await;
            n2.until_process(|process| *process == Process::Absent).await;
            expect_ok(n2.postgres.base_backup(&n1.upstream()).await);
            let aside = std::fs::read_dir(root.path().join("n2"))
                .unwrap()
                .flatten()
                .find(|entry| entry.file_name().to_string_lossy().starts_with("data.aside-"))
                .unwrap();
            assert!(aside.path().join("PG_VERSION").exists());
            expect_ok(n2.postgres.start_replica(Some(&n1.upstream()), G).await);
            n2.until(streaming).await;
            // A clone from nobody fails, says why, and leaves nothing.
            n2.stop().await;
            n2.until_process(|process| *process == Process::Absent).await;
            n1.stop().await;
            let failed = n2.postgres.base_backup(&n1.upstream()).await;
            assert!(
                matches!(&failed, Outcome::Failed(text) if text.contains("pg_basebackup failed")),
                "{failed:?}"
            );
            assert_eq!(n2.look().await.data, DataDir::Empty);
            assert_eq!(n2.postgres.progress(), None);
        },
    );
}

#[test]
fn promotion_takes_milliseconds_whenever_it_comes() {
    as_postgres(
        "promotion::promotion_takes_milliseconds_whenever_it_comes",
        || async {
            let root = tempfile::tempdir().unwrap();
            let (mut n1, mut n2) = (Node::new(root.path(), "n1"), Node::new(root.path(), "n2"));
            n1.bootstrapped().await;
            n2.replica_of(&n1).await;
            let mut worst = Duration::ZERO;
            // The moment after the loss of the upstream decides whether PostgreSQL goes to sleep over the request.
            for (round, pause) in [0, 3, 8, 15, 30, 60].into_iter().enumerate() {
                n1.stop().await;
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let before = now();
                n2.promote(1).await;
                let took = now().since(before);
                eprintln!("MEASURED promotion {pause} ms after the stop: {took:?}");
                worst = worst.max(took);
                let timeline = Timeline(u32::try_from(round).unwrap() + 2);
                assert_eq!(n2.server().await.timeline, timeline);
                // Promoting a primary only moves the deadline.
                n2.promote(1).await;
                assert_eq!(n2.server().await.timeline, timeline);
                expect_ok(n1.postgres.start_replica(Some(&n2.upstream()), G).await);
                n1.until(|server| streaming(server) && server.timeline == timeline)
                    .await;
                std::mem::swap(&mut n1, &mut n2);
            }
            assert!(worst < Duration::from_secs(2), "{worst:?}");

            // An agent that starts after the primary was lost knows the timeline, though no walreceiver tells it and the control file may
            // be behind.
            n1.postgres.stop(StopMode::Immediate, false).await;
            n2.until(|server| !streaming(server)).await;
            let restarted = n2.another_agent();
            let Outcome::Probed { view, .. } = restarted.probe().await else {
                panic!("a probe is answered by what was seen");
            };
            let control = present(&view);
            let Process::Running(server) = view.process else {
                panic!("{view:?}");
            };
            eprintln!(
                "MEASURED control file on timeline {}, server on {}",
                control.timeline, server.timeline
            );
            assert_eq!(server.timeline, Timeline(7));
        },
    );
}

/// Its upstream was promoted by hand, and it has heard of that: at the fork it asks for the new timeline alone, whoever it is pointed at. A start
/// looks anew.
#[test]
fn a_standby_that_seeks_a_timeline_of_nobody_is_seen_and_helped_by_a_restart() {
    as_postgres(
        "promotion::a_standby_that_seeks_a_timeline_of_nobody_is_seen_and_helped_by_a_restart",
        || async {
            let root = tempfile::tempdir().unwrap();
            let (n1, n2) = (Node::new(root.path(), "n1"), Node::new(root.path(), "n2"));
            n1.bootstrapped().await;
            n2.replica_of(&n1).await;
            n2.until(streaming).await;
            assert_eq!(n2.server().await.heard_of, None);
            n1.sql("CHECKPOINT").await;
            let end = n1.server().await.position();
            n2.until(|server| server.position() == end).await;
            std::fs::write(n2.data("pg_wal/00000002.history"), format!("1\t{end}\tby hand\n")).unwrap();
            n1.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
                .await;
            n2.until(|server| server.heard_of == Some(Timeline(2))).await;
            // PostgreSQL tries again every five seconds.
            tokio::time::sleep(Duration::from_secs(6)).await;
            let server = n2.server().await;
            assert_eq!(
                (server.timeline, server.heard_of),
                (Timeline(1), Some(Timeline(2)))
            );
            expect_ok(n2.postgres.restart(None, false, G).await);
            assert_eq!(n2.until(streaming).await.heard_of, None);
        },
    );
}

#[test]
fn a_standby_that_ended_with_the_first_pages_of_a_new_timeline_starts() {
    as_postgres(
        "promotion::a_standby_that_ended_with_the_first_pages_of_a_new_timeline_starts",
        || async {
            let root = tempfile::tempdir().unwrap();
            let (n1, n2, n3) = Node::three(root.path());
            n1.bootstrapped().await;
            n2.replica_of(&n1).await;
            n3.replica_of(&n1).await;
            // The last checkpoint is on the first page of a segment, and recovery begins there.
            n1.sql("SELECT pg_switch_wal()").await;
            n1.sql("CHECKPOINT").await;
            n1.sql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS i")
                .await;
            let end = n1.server().await.position();
            for node in [&n2, &n3] {
                node.until(|server| end <= server.position()).await;
            }
            n2.stop().await;
            n1.postgres.stop(StopMode::Immediate, false).await;
            n3.promote(1).await;
            n3.sql("INSERT INTO t VALUES (0)").await;

            // What a walreceiver has written after a moment: it begins with the segment, and the timeline with a page far behind.
            let file = n3.sql("SELECT pg_walfile_name(pg_current_wal_lsn())").await;
            let segment = format!("pg_wal/{}", file[0]);
            let mut content = std::fs::read(n3.data(&segment)).unwrap();
            content[40 * 8192..].fill(0);
            std::fs::write(n2.data(&segment), content).unwrap();
            let history = "pg_wal/00000002.history";
            std::fs::copy(n3.data(history), n2.data(history)).unwrap();

            expect_ok(n2.postgres.start_replica(Some(&n3.upstream()), G).await);
            n2.until(|server| streaming(server) && server.timeline == Timeline(2))
                .await;
            assert_eq!(n2.sql("SELECT count(*) FROM t").await, ["20001"]);
        },
    );
}

/// No SQL function tells it, and to start psql takes longer than all the rest of a look, when every replica of a lost primary is asked.
#[test]
fn a_standby_without_an_upstream_is_asked_for_its_timeline_without_psql() {
    as_postgres(
        "promotion::a_standby_without_an_upstream_is_asked_for_its_timeline_without_psql",
        || async {
            let root = tempfile::tempdir().unwrap();
            let n1 = Node::new(root.path(), "n1");
            let without = |settings: &mut PostgresSettings| {
                settings.bin_name.insert("psql".into(), "no-psql".into());
                let logged = ("log_replication_commands".to_owned(), "on".to_owned());
                settings.parameters.extend([logged]);
            };
            let n2 = Node::with(root.path(), "n2", without, None);
            n1.bootstrapped().await;
            n2.replica_of(&n1).await;
            let asked = || n2.log().matches("command: IDENTIFY_SYSTEM").count();
            let before = asked();
            n1.postgres.stop(StopMode::Immediate, false).await;
            n2.until(|server| !streaming(server)).await;
            // Its own agent knows where it was, and there is no history of a later timeline.
            assert_eq!(asked(), before, "{}", n2.log());
            n2.another_agent().probe().await;
            assert_eq!(asked(), before + 1, "{}", n2.log());
        },
    );
}
