//! By whom commits are acknowledged: set, in force, and known again.

use std::time::Duration;

use surus_core::input::Outcome;
use surus_core::sync::Names;
use surus_core::types::{Generation, Timeline};
use surus_core::view::Server;

use super::support::{G, Node, as_postgres, expect_ok, now, soon, streaming};

pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// Sets `text`; returns how long it took.
async fn set(node: &Node, text: &str) -> Duration {
    let before = now();
    let names = Names::parse(text);
    expect_ok(node.postgres.set_synchronous(Some(&names), LIMIT, G).await);
    let took = now().since(before);
    let server = node.server().await;
    assert_eq!((server.synchronous, server.managed), (names, true));
    took
}

/// A client that is connected inserts; `None` if it is not acknowledged within this.
async fn insert(node: &Node, patience: Duration) -> Option<Duration> {
    let (client, task) = node.connect().await;
    let before = now();
    let inserted = client.simple_query("INSERT INTO t VALUES (1)");
    let inserted = tokio::time::timeout(patience, inserted).await;
    task.abort();
    inserted.ok()?.unwrap();
    Some(now().since(before))
}

async fn pause_walreceiver(node: &Node, stop: bool) {
    // No parameter stops a walreceiver; a signal does.
    let pids = node
        .sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'")
        .await;
    let signal = if stop {
        rustix::process::Signal::STOP
    } else {
        rustix::process::Signal::CONT
    };
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

#[test]
fn names_are_in_force_in_every_process_when_the_order_ends() {
    as_postgres(
        "synchronous::names_are_in_force_in_every_process_when_the_order_ends",
        || async {
            let root = tempfile::tempdir().unwrap();
            let user = |settings: &mut surus::config::settings::PostgresSettings| {
                let parameters = [
                    ("synchronous_standby_names", "nobody"),
                    ("synchronous_commit", "on"),
                ];
                let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
                settings.parameters.extend(parameters);
            };
            let n1 = Node::with(root.path(), "n1", user, Some(super::support::bootstrap()));
            let (n2, n3) = (Node::new(root.path(), "n2"), Node::new(root.path(), "n3"));
            // Bootstrap, checkpoints and slots do not wait for the standby that is not there.
            n1.bootstrapped().await;
            let users = n1.server().await;
            assert_eq!(
                (users.synchronous, users.managed),
                (Names::parse("nobody"), false)
            );
            expect_ok(n1.postgres.checkpoint().await);
            expect_ok(
                n1.postgres
                    .sync_slots(&[("n2".to_owned(), None)].into(), &Default::default())
                    .await,
            );
            eprintln!("MEASURED the user's own -> alone: {:?}", set(&n1, "").await);
            n1.sql("CREATE TABLE t (i int)").await;
            n2.replica_of(&n1).await;
            n3.replica_of(&n1).await;
            n1.until(|server| {
                server
                    .standbys
                    .values()
                    .filter(|standby| standby.streaming)
                    .count()
                    == 2
            })
            .await;
            assert!(insert(&n1, LIMIT).await.is_some());

            let mut times = Vec::new();
            for names in [
                "n2",
                "2 (n2,n3)",
                "n3",
                "ANY 1 (n2,n3)",
                "ANY 2 (n2,n3)",
                "n2",
                "",
                "n2",
            ] {
                let took = set(&n1, names).await;
                times.push(format!("{names:?} {took:?}"));
                // A commit of a client waits by that, no later than now.
                let took = insert(&n1, LIMIT).await;
                assert!(took.is_some(), "{names}");
            }
            eprintln!("MEASURED set in force: {}", times.join(", "));

            // The one that is named is silent: whoever commits right after the order waits for it.
            for round in 0..5 {
                pause_walreceiver(&n2, true).await;
                set(&n1, "").await;
                assert!(insert(&n1, LIMIT).await.is_some(), "round {round}");
                set(&n1, "n2").await;
                assert_eq!(
                    insert(&n1, Duration::from_millis(300)).await,
                    None,
                    "round {round}"
                );
                // And no longer once another one is.
                set(&n1, "n3").await;
                assert!(insert(&n1, LIMIT).await.is_some(), "round {round}");
                pause_walreceiver(&n2, false).await;
                set(&n1, "n2").await;
            }

            // Nobody can: all wait, and none does when they need not any more.
            set(&n1, "__patroni_strict_sync_replica_placeholder__").await;
            assert_eq!(insert(&n1, Duration::from_millis(300)).await, None);
            let server = n1.server().await;
            assert_eq!(server.synchronous, Names::nobody(false));

            // An agent that comes after knows whose the setting is; a reload of other settings leaves it.
            let second = n1.another_agent();
            let mut settings = n1.settings.clone();
            settings
                .parameters
                .insert("work_mem".to_owned(), "7MB".to_owned());
            assert!(second.reload(settings).await.unwrap().reloaded);
            let Outcome::Probed { view, .. } = second.probe().await else {
                panic!("a probe is answered by what was seen");
            };
            let surus_core::view::Process::Running(server) = view.process else {
                panic!("{view:?}");
            };
            assert_eq!((server.synchronous, server.managed), (Names::nobody(false), true));
            let old = second
                .set_synchronous(Some(&Names::Alone), LIMIT, Generation(9))
                .await;
            assert_eq!(old, Outcome::Ok);
            let late = second.set_synchronous(None, LIMIT, G).await;
            assert!(matches!(late, Outcome::Refused(_)), "{late:?}");

            // The user's own comes back.
            expect_ok(n1.postgres.set_synchronous(None, LIMIT, G).await);
            let users = n1.server().await;
            assert_eq!(
                (users.synchronous, users.managed),
                (Names::parse("nobody"), false)
            );

            let replica = n2.postgres.set_synchronous(Some(&Names::Alone), LIMIT, G).await;
            assert!(
                matches!(&replica, Outcome::Failed(text) if text.contains("replica")),
                "{replica:?}"
            );
            n2.stop().await;
            n2.until_process(|process| *process == surus_core::view::Process::Absent)
                .await;
            let stopped = n2.postgres.set_synchronous(Some(&Names::Alone), LIMIT, G).await;
            assert!(matches!(&stopped, Outcome::Failed(_)), "{stopped:?}");
        },
    );
}

#[test]
fn what_somebody_else_sets_is_told_with_the_remedy() {
    as_postgres(
        "synchronous::what_somebody_else_sets_is_told_with_the_remedy",
        || async {
            let root = tempfile::tempdir().unwrap();
            let n1 = Node::new(root.path(), "n1");
            n1.bootstrapped().await;
            n1.sql("ALTER SYSTEM SET synchronous_standby_names = 'x'").await;
            let wanted = Names::parse("n2");
            let overridden = n1.postgres.set_synchronous(Some(&wanted), LIMIT, G).await;
            let Outcome::Unknown(text) = overridden else {
                panic!("{overridden:?}");
            };
            eprintln!("{text}");
            assert!(text.contains("ALTER SYSTEM RESET") && text.contains("postgresql.auto.conf"));
            n1.sql("ALTER SYSTEM RESET synchronous_standby_names").await;
            set(&n1, "n2").await;
            // A configuration that PostgreSQL refuses is never read.
            std::fs::write(n1.data("postgresql.base.conf"), "nonsense\n").unwrap();
            let refused = n1
                .postgres
                .set_synchronous(Some(&Names::Alone), Duration::ZERO, G)
                .await;
            assert!(
                matches!(&refused, Outcome::Unknown(text) if text.contains("has not read")),
                "{refused:?}"
            );
        },
    );
}

#[test]
fn positions_are_those_that_commits_wait_for() {
    as_postgres(
        "synchronous::positions_are_those_that_commits_wait_for",
        || async {
            let root = tempfile::tempdir().unwrap();
            let applied = |settings: &mut surus::config::settings::PostgresSettings| {
                settings
                    .parameters
                    .insert("synchronous_commit".to_owned(), "remote_apply".to_owned());
            };
            let n1 = Node::with(root.path(), "n1", applied, Some(super::support::bootstrap()));
            let n2 = Node::new(root.path(), "n2");
            n1.bootstrapped().await;
            n1.sql("CREATE TABLE t (i int)").await;
            n2.replica_of(&n1).await;
            let caught_up = |server: &Server| {
                let standby = server.standbys.get("n2");
                standby.is_some_and(|standby| standby.streaming && server.position() <= standby.position)
            };
            n1.until(caught_up).await;
            n2.sql("SELECT pg_wal_replay_pause()").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            n1.sql("INSERT INTO t VALUES (1)").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let server = n1.server().await;
            assert!(
                server.standbys["n2"].position < server.position(),
                "it has received all and replayed nothing"
            );
            n1.sql("ALTER SYSTEM SET synchronous_commit = 'on'").await;
            n1.sql("SELECT pg_reload_conf()").await;
            n1.until(caught_up).await;
            n2.sql("SELECT pg_wal_replay_resume()").await;
            // Two of one name.
            let n3 = Node::with(
                root.path(),
                "n3",
                |settings| settings.name = "N2".to_owned(),
                None,
            );
            n3.replica_of(&n1).await;
            let doubled = n1.until(|server| server.standbys.len() == 2).await;
            assert!(doubled.standbys.values().all(|standby| standby.doubled));
        },
    );
}

#[test]
fn a_reign_begins_with_its_names() {
    as_postgres("synchronous::a_reign_begins_with_its_names", || async {
        let root = tempfile::tempdir().unwrap();
        let (n1, n2) = (Node::new(root.path(), "n1"), Node::new(root.path(), "n2"));
        n1.bootstrapped().await;
        n1.sql("CREATE TABLE t (i int)").await;
        n2.replica_of(&n1).await;
        n1.until(|server| server.standbys.values().any(|standby| standby.streaming))
            .await;
        set(&n1, "n2").await;

        // A restart keeps them, a start as primary begins with its own.
        expect_ok(n1.postgres.restart(Some(soon()), false, G).await);
        assert_eq!(n1.until(Server::is_primary).await.synchronous, Names::parse("n2"));
        n1.stop().await;
        n1.until_process(|process| *process == surus_core::view::Process::Absent)
            .await;
        let nobody = Names::nobody(true);
        expect_ok(
            n1.postgres
                .start_primary(soon(), soon(), Some(&nobody), false, G)
                .await,
        );
        let server = n1.until(Server::is_primary).await;
        assert_eq!((server.synchronous, server.managed), (nobody.clone(), true));
        assert_eq!(
            insert(&n1, Duration::from_millis(300)).await,
            None,
            "from the first on"
        );

        // What was a primary's says nothing for a replica.
        n1.stop().await;
        n1.until_process(|process| *process == surus_core::view::Process::Absent)
            .await;
        for (names, replica) in [(Some(nobody), false), (Some(Names::Alone), true), (None, true)] {
            if replica {
                n2.stop().await;
                n2.until_process(|process| *process == surus_core::view::Process::Absent)
                    .await;
                expect_ok(n2.postgres.start_replica(Some(&n1.upstream()), G).await);
                let managed = n2.until(|server| !server.is_primary()).await;
                assert_eq!((managed.synchronous, managed.managed), (Names::Alone, true));
            }
            // A session that lives through a reload has another time of it than the postmaster.
            n2.sql("SELECT pg_reload_conf()").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let timeline = n2.server().await.timeline;
            let before = now();
            expect_ok(
                n2.postgres
                    .promote(soon(), soon(), Timeline(1), names.as_ref(), false, G)
                    .await,
            );
            eprintln!("MEASURED promotion with {names:?}: {:?}", now().since(before));
            let waits = names == Some(Names::nobody(true));
            let patience = if waits { Duration::from_millis(300) } else { LIMIT };
            let acknowledged = insert(&n2, patience).await;
            let server = n2.server().await;
            assert!(timeline < server.timeline);
            assert_eq!(server.managed, names.is_some());
            assert_eq!(server.synchronous, names.clone().unwrap_or_default());
            assert_eq!(acknowledged.is_none(), waits);
        }
        assert!(!streaming(&n2.server().await));
    });
}
