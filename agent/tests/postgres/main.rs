//! The orders of the agent on a real PostgreSQL. Each test has its own directories and ports.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod cloning;
mod gate;
mod parting;
mod promotion;
mod support;
mod synchronous;

use std::time::Duration;

use support::{G, Node, as_postgres, expect_ok, now, present, soon, streaming};
use surus::postgres::ProcessControl as _;
use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::{Generation, Lsn, MonoTime, Timeline};
use surus_core::view::{ControlState, DataDir, Process, ServerRole};

#[test]
fn a_cluster_is_bootstrapped_with_roles_users_and_script() {
    as_postgres(
        "a_cluster_is_bootstrapped_with_roles_users_and_script",
        || async {
            let root = tempfile::tempdir().unwrap();
            let mut bootstrap = support::bootstrap();
            let out = root.path().join("script-out");
            let script =
                "echo \"$0\" > OUT; psql \"$0 user=admin password=admin\" -c \"SELECT 1\" >> OUT 2>&1; true";
            let script = script.replace("OUT", &out.display().to_string());
            bootstrap.post_bootstrap = Some(format!("/bin/sh -c '{script}'"));
            bootstrap.users.insert(
                "admin".to_owned(),
                surus::config::settings::BootstrapUser {
                    password: Some("admin".to_owned()),
                    options: vec!["createrole".to_owned(), "createdb".to_owned()],
                },
            );
            let node = Node::with(root.path(), "n1", |_| {}, Some(bootstrap));
            assert_eq!(node.look().await.data, DataDir::Empty);
            let outcome = node.postgres.bootstrap(soon(), soon(), G).await;
            let Outcome::Bootstrapped { system_id } = outcome else {
                panic!("{outcome:?}\n{}", node.log());
            };
            // Nobody can write to it before it is known that this is the cluster. The stop ends with the shutdown checkpoint, and the postmaster
            // goes a moment later: its pid file first, as one that has only just been started has none yet.
            let process = node.look().await.process;
            let gone = matches!(
                process,
                Process::Absent | Process::Unresponsive { may_write: false } | Process::Starting { .. }
            );
            assert!(gone, "{process:?}");
            node.until_process(|process| *process == Process::Absent).await;
            assert_eq!(node.look().await.process, Process::Absent);
            node.started().await;
            let server = node.server().await;
            assert!(server.is_primary() && server.guarded);
            assert_eq!((server.system_id, server.timeline), (system_id, Timeline(1)));
            assert_eq!(node.control.told()[0], "start deadline=true");
            let roles = node
            .sql("SELECT rolname || rolreplication || rolcreatedb FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")
            .await;
            assert_eq!(
                roles,
                [
                    "adminfalsetrue",
                    "postgrestruetrue",
                    "replicatortruefalse",
                    "rewinderfalsefalse"
                ]
            );
            let out = std::fs::read_to_string(&out).unwrap();
            assert!(out.contains("user=postgres"));
            assert!(
                out.contains("no pg_hba.conf entry for") && out.contains("user \"admin\""),
                "it is for the superuser alone while it is being made: {out}"
            );
            let conf = std::fs::read_to_string(node.data("postgresql.conf")).unwrap();
            assert!(!conf.contains("surus_bootstrap") && !node.data("surus_bootstrap_hba.conf").exists());
            assert!(conf.contains("shared_buffers = '16MB'") && !conf.contains("no_such_parameter"));
            assert!(node.data("postgresql.base.conf").exists());
            // A second bootstrap finds a cluster and touches nothing.
            let again = node.postgres.bootstrap(soon(), soon(), G).await;
            assert!(matches!(again, Outcome::Failed(text) if text.contains("already")));
            assert!(node.server().await.is_primary());
            assert!(node.stop().await.is_some());
        },
    );
}

#[test]
fn a_failed_bootstrap_is_put_aside() {
    as_postgres("a_failed_bootstrap_is_put_aside", || async {
        let root = tempfile::tempdir().unwrap();
        let mut bootstrap = support::bootstrap();
        bootstrap.post_bootstrap = Some("/bin/sh -c 'echo broken script >&2; exit 3'".to_owned());
        let node = Node::with(root.path(), "n1", |_| {}, Some(bootstrap));
        let outcome = node.postgres.bootstrap(soon(), soon(), G).await;
        assert!(
            matches!(&outcome, Outcome::Failed(text) if text.contains("broken script")),
            "{outcome:?}"
        );
        let view = node.look().await;
        assert_eq!((view.data, view.process), (DataDir::Empty, Process::Absent));
        let kept = std::fs::read_dir(root.path().join("n1"))
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("data.failed-"))
            .count();
        assert_eq!(kept, 1);
    });
}

#[test]
fn a_bootstrap_that_outlasts_its_first_right_ends_with_a_clean_stop() {
    as_postgres(
        "a_bootstrap_that_outlasts_its_first_right_ends_with_a_clean_stop",
        || async {
            let root = tempfile::tempdir().unwrap();
            let mut bootstrap = support::bootstrap();
            bootstrap.post_bootstrap = Some("/bin/sh -c 'sleep 5'".to_owned());
            let node = Node::with(root.path(), "n1", |_| {}, Some(bootstrap));
            let short = || now().plus(Duration::from_secs(3));
            // Each renewal of the lease moves the deadline on.
            let renewals = async {
                loop {
                    expect_ok(node.postgres.set_deadline(Some(short()), G).await);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let outcome = tokio::select! {
                outcome = node.postgres.bootstrap(short(), short(), G) => outcome,
                () = renewals => unreachable!(),
            };
            assert!(matches!(outcome, Outcome::Bootstrapped { .. }), "{outcome:?}");
            node.until_process(|process| *process == Process::Absent).await;
            assert_eq!(present(&node.look().await).state, ControlState::ShutDown);
        },
    );
}

#[test]
fn a_replica_is_cloned_promoted_and_the_old_primary_rewound() {
    as_postgres(
        "a_replica_is_cloned_promoted_and_the_old_primary_rewound",
        || async {
            let root = tempfile::tempdir().unwrap();
            let (n1, n2, n3) = Node::three(root.path());
            n1.bootstrapped().await;
            n1.sql("CREATE TABLE t (i int)").await;
            expect_ok(
                n1.postgres
                    .sync_slots(&[("n2".to_owned(), None)].into(), &Default::default())
                    .await,
            );
            n2.replica_of(&n1).await;
            n3.replica_of(&n1).await;
            let server = n2.server().await;
            assert_eq!(server.upstream, Some(format!("127.0.0.1:{}", n1.settings.port)));
            let primary = n1.until(|server| server.standbys.len() == 2).await;
            assert_eq!(primary.standbys.keys().collect::<Vec<_>>(), ["n2", "n3"]);
            assert!(primary.slots.contains_key("n2"));
            let details = n1.postgres.details().await.unwrap();
            assert_eq!(details.replication[0].usename, "replicator");
            assert_eq!((details.replication.len(), details.paused), (2, None));
            assert_eq!(n2.postgres.details().await.unwrap().paused, Some(false));
            assert!(n1.postgres.started_at().unwrap().contains(':'));

            // An agent that wrote the same and was killed before it said so.
            let loaded = n2.sql("SELECT pg_conf_load_time()").await;
            expect_ok(n2.postgres.follow(Some(&n1.upstream())).await);
            let mut reread = n2.sql("SELECT pg_conf_load_time()").await;
            for _ in 0..50 {
                if reread != loaded {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                reread = n2.sql("SELECT pg_conf_load_time()").await;
            }
            assert_ne!(reread, loaded, "an unchanged file is read again");

            // The old primary crashes with a commit that nobody else has.
            n2.postgres.follow(None).await;
            n3.postgres.follow(None).await;
            n2.until(|server| !streaming(server)).await;
            n3.until(|server| !streaming(server)).await;
            n1.sql("INSERT INTO t VALUES (666)").await;
            let outcome = n1.postgres.stop(StopMode::Immediate, false).await;
            assert_eq!(outcome, Outcome::Stopped { checkpoint: None });
            let view = n1.look().await;
            assert_eq!(view.process, Process::Absent);
            assert_eq!(present(&view).state, ControlState::InProduction);

            // Promotion above a timeline that n2 has never heard of.
            let before = now();
            n2.promote(3).await;
            let took = now().since(before);
            eprintln!("MEASURED promotion with two placeholders: {took:?}");
            let server = n2.server().await;
            assert!(server.is_primary());
            assert_eq!(server.timeline, Timeline(4));
            assert_eq!(server.history.len(), 1);
            let told = n2.control.told();
            assert_eq!(told.last().map(String::as_str), Some("deadline=true"));
            n2.sql("INSERT INTO t VALUES (1)").await;
            expect_ok(n2.postgres.checkpoint().await);

            // The other replica follows to the new timeline.
            let before = now();
            expect_ok(n3.postgres.follow(Some(&n2.upstream())).await);
            let shown = n3.server().await.upstream;
            assert_eq!(shown, Some(format!("127.0.0.1:{}", n2.settings.port)));
            n3.until(|server| streaming(server) && server.timeline == Timeline(4))
                .await;
            eprintln!("MEASURED follow to streaming: {:?}", now().since(before));

            let ancestry = n1.postgres.compare_history(&n2.upstream()).await;
            let Outcome::Ancestry { timeline, history } = ancestry else {
                panic!("{ancestry:?}");
            };
            assert_eq!(
                (timeline, history.len(), history[0].timeline),
                (Timeline(4), 1, Timeline(1))
            );
            let replica = n1.postgres.compare_history(&n3.upstream()).await;
            assert!(matches!(replica, Outcome::Failed(_)), "{replica:?}");

            let before = now();
            expect_ok(n1.postgres.rewind(&n2.upstream()).await);
            eprintln!("MEASURED rewind: {:?}", now().since(before));
            let kept: Vec<_> = std::fs::read_dir(root.path().join("n1"))
                .unwrap()
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("data.diverged-"))
                .collect();
            assert_eq!(kept.len(), 1);
            let waldump = std::process::Command::new(support::bin_dir().unwrap().join("pg_waldump"))
                .arg("--path")
                .arg(kept[0].path())
                .args([
                    "--timeline",
                    "1",
                    "--start",
                    &history[0].switch.to_string(),
                    "--rmgr",
                    "Transaction",
                ])
                .output()
                .unwrap();
            assert!(
                String::from_utf8_lossy(&waldump.stdout).contains("COMMIT"),
                "the lost commit is kept"
            );
            expect_ok(n1.postgres.start_replica(Some(&n2.upstream()), G).await);
            n1.until(|server| streaming(server) && server.timeline == Timeline(4))
                .await;
            assert_eq!(n1.sql("SELECT i FROM t").await, ["1"]);
        },
    );
}

#[test]
fn a_clean_stop_tells_its_checkpoint_and_a_crashed_primary_comes_back() {
    as_postgres(
        "a_clean_stop_tells_its_checkpoint_and_a_crashed_primary_comes_back",
        || async {
            let root = tempfile::tempdir().unwrap();
            let node = Node::new(root.path(), "n1");
            node.bootstrapped().await;
            let before = now();
            let checkpoint = node.stop().await.unwrap();
            eprintln!("MEASURED clean stop: {:?}", now().since(before));
            node.until_process(|process| *process == Process::Absent).await;
            let control = present(&node.look().await);
            assert_eq!(
                (control.state, control.position),
                (ControlState::ShutDown, checkpoint)
            );
            assert!(control.rewindable);
            // Stopping what is stopped says the same.
            assert_eq!(node.stop().await, Some(checkpoint));

            let expired = node.postgres.start_primary(soon(), now(), None, false, G).await;
            assert!(matches!(expired, Outcome::Refused(_)), "{expired:?}");
            assert_eq!(node.look().await.process, Process::Absent);
            expect_ok(
                node.postgres
                    .start_primary(soon(), soon(), None, false, Generation(2))
                    .await,
            );
            let old = node
                .postgres
                .start_primary(soon(), soon(), None, false, Generation(1))
                .await;
            assert!(matches!(old, Outcome::Refused(_)), "{old:?}");
            let server = node.until(|server| server.is_primary()).await;
            assert_eq!(server.timeline, Timeline(1));
            assert!(matches!(server.role, ServerRole::Primary { written } if checkpoint < written));

            let outcome = node.postgres.stop(StopMode::Immediate, false).await;
            assert_eq!(outcome, Outcome::Stopped { checkpoint: None });
            expect_ok(
                node.postgres
                    .start_primary(soon(), soon(), None, false, Generation(2))
                    .await,
            );
            node.until(|server| server.is_primary()).await;
            // The order knew of a shorter right, and whoever holds the process has forgotten the deadline when the server has stopped.
            let (ordered, extended) = (soon(), MonoTime(soon().0 + 1_000_000_000));
            expect_ok(node.postgres.set_deadline(Some(extended), Generation(2)).await);
            expect_ok(node.postgres.restart(Some(ordered), false, Generation(2)).await);
            node.until(|server| server.is_primary()).await;
            let held = node.control.status().await.unwrap();
            assert_eq!(held.deadline, Some(extended));
        },
    );
}

#[test]
fn a_stop_returns_while_the_archiver_still_works_and_turns_immediate_in_time() {
    as_postgres(
        "a_stop_returns_while_the_archiver_still_works_and_turns_immediate_in_time",
        || async {
            let root = tempfile::tempdir().unwrap();
            let node = Node::with(
                root.path(),
                "n1",
                |settings| {
                    settings
                        .parameters
                        .insert("archive_mode".to_owned(), "on".to_owned());
                    settings
                        .parameters
                        .insert("archive_command".to_owned(), "sleep 3".to_owned());
                },
                Some(support::bootstrap()),
            );
            node.bootstrapped().await;
            node.sql("SELECT pg_switch_wal()").await;
            let before = now();
            assert!(node.stop().await.is_some());
            let took = now().since(before);
            eprintln!("MEASURED stop with a slow archiver: {took:?}");
            assert!(took < Duration::from_millis(2500), "{took:?}");
            // The postmaster is still there: a start waits for its end.
            expect_ok(node.postgres.start_primary(soon(), soon(), None, false, G).await);
            node.until(|server| server.is_primary()).await;

            // A stop whose patience is over turns immediate.
            let pid = std::fs::read_to_string(node.data("postmaster.pid")).unwrap();
            let checkpointer = children(pid.lines().next().unwrap())
                .into_iter()
                .find(|pid| title(*pid).contains("checkpointer"))
                .unwrap();
            rustix::process::kill_process(support::raw(checkpointer), rustix::process::Signal::STOP).unwrap();
            let before = now();
            let until = now().plus(Duration::from_millis(500));
            let outcome = node.postgres.stop(StopMode::Fast { until }, false).await;
            eprintln!("MEASURED fast stop turned immediate: {:?}", now().since(before));
            // Here nobody sweeps up after the postmaster, as the guard does.
            let _ = rustix::process::kill_process(support::raw(checkpointer), rustix::process::Signal::KILL);
            assert_eq!(outcome, Outcome::Stopped { checkpoint: None });
        },
    );
}

fn children(parent: &str) -> Vec<u32> {
    std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .unwrap()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn title(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

#[test]
fn a_silent_server_is_told_from_an_absent_one() {
    as_postgres("a_silent_server_is_told_from_an_absent_one", || async {
        let root = tempfile::tempdir().unwrap();
        let node = Node::new(root.path(), "n1");
        node.bootstrapped().await;
        assert!(node.server().await.is_primary());
        let cpu = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
        };
        let (started, cpu_before) = (now(), cpu());
        for _ in 0..200 {
            let postgres = std::sync::Arc::clone(&node.postgres);
            let order = surus_core::action::Order::Probe;
            let probed = tokio::spawn(async move { postgres.execute(G, &order).await })
                .await
                .unwrap();
            assert!(matches!(probed, Some(Outcome::Probed { .. })));
        }
        eprintln!(
            "MEASURED probe: {:?}, of it in the agent {:?} of processor time",
            now().since(started) / 200,
            (cpu() - cpu_before) / 200
        );
        let pid: u32 = std::fs::read_to_string(node.data("postmaster.pid"))
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let mut stopped = children(&pid.to_string());
        stopped.insert(0, pid);
        let signal = |signal| {
            for pid in &stopped {
                let _ = rustix::process::kill_process(support::raw(*pid), signal);
            }
        };
        signal(rustix::process::Signal::STOP);
        for _ in 0..2 {
            let before = now();
            let view = node.look().await;
            assert!(now().since(before) < Duration::from_millis(2500));
            assert_eq!(view.process, Process::Unresponsive { may_write: true });
            assert!(matches!(view.data, DataDir::Present(_)));
        }
        signal(rustix::process::Signal::CONT);
        node.until(|server| server.is_primary()).await;

        // Another agent finds the server without knowing it, and adopts it.
        let pid_known = node.server().await.guarded;
        node.control.forget();
        assert!(pid_known && !node.server().await.guarded);
        expect_ok(node.postgres.adopt_postmaster(Some(soon()), G).await);
        assert!(node.server().await.guarded);
        let told = node.control.told();
        assert_eq!(told[told.len() - 2..], ["adopt", "deadline=true"]);

        // One that has ended meanwhile, as it does with its guard, is no failure: after one the next start would have to wait.
        assert!(node.stop().await.is_some());
        node.until_process(|process| *process == Process::Absent).await;
        expect_ok(node.postgres.adopt_postmaster(Some(soon()), G).await);
    });
}

#[test]
fn bad_directories_are_named_and_left_alone() {
    as_postgres("bad_directories_are_named_and_left_alone", || async {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let node = Node::new(root.path(), "n1");
        let data_dir = &node.settings.data_dir;
        assert_eq!(node.look().await.data, DataDir::Empty);
        assert!(
            matches!(node.postgres.start_replica(None, G).await, Outcome::Failed(text) if text.contains("empty"))
        );
        std::fs::create_dir(data_dir).unwrap();
        std::fs::write(data_dir.join("thesis.tex"), "years of work").unwrap();
        assert!(
            matches!(node.look().await.data, DataDir::Unusable(text) if text.contains("no PostgreSQL cluster"))
        );
        for outcome in [
            node.postgres.bootstrap(soon(), soon(), G).await,
            node.postgres.start_primary(soon(), soon(), None, false, G).await,
            node.postgres.rewind(&node.upstream()).await,
        ] {
            assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        }
        assert!(data_dir.join("thesis.tex").exists());
        std::fs::remove_file(data_dir.join("thesis.tex")).unwrap();

        node.bootstrapped().await;
        node.stop().await;
        node.until_process(|process| *process == Process::Absent).await;
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(node.look().await.data, DataDir::Unusable(text) if text.contains("0755")));
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(data_dir.join("PG_VERSION"), "12\n").unwrap();
        assert!(matches!(node.look().await.data, DataDir::Unusable(text) if text.contains("PostgreSQL 12")));
        std::fs::write(data_dir.join("PG_VERSION"), "15\n").unwrap();
        std::fs::rename(data_dir.join("global/pg_control"), data_dir.join("global/away")).unwrap();
        assert!(matches!(node.look().await.data, DataDir::Incomplete(_)));
        std::fs::write(data_dir.join("global/pg_control"), vec![7; 8192]).unwrap();
        assert!(matches!(node.look().await.data, DataDir::Unusable(_)));
        std::fs::rename(data_dir.join("global/away"), data_dir.join("global/pg_control")).unwrap();
        let marker = root.path().join("n1/data.surus.json");
        std::fs::write(
            &marker,
            r#"{"operation":"rewind","pid":null,"since":"T","only_ours":false}"#,
        )
        .unwrap();
        assert!(matches!(node.look().await.data, DataDir::Incomplete(text) if text.contains("rewind")));
        assert!(matches!(
            node.postgres.start_primary(soon(), soon(), None, false, G).await,
            Outcome::Failed(_)
        ));
        std::fs::remove_file(&marker).unwrap();
        assert!(matches!(node.look().await.data, DataDir::Present(_)));
        // A pid file that names a living process which is no PostgreSQL is stale.
        std::fs::write(
            data_dir.join("postmaster.pid"),
            format!("{}\n", std::process::id()),
        )
        .unwrap();
        assert_eq!(node.look().await.process, Process::Absent);
        expect_ok(node.postgres.start_primary(soon(), soon(), None, false, G).await);
        node.until(|server| server.is_primary()).await;
    });
}

#[test]
fn a_standby_keeps_the_primarys_limits_and_slots_are_kept_in_order() {
    as_postgres(
        "a_standby_keeps_the_primarys_limits_and_slots_are_kept_in_order",
        || async {
            let root = tempfile::tempdir().unwrap();
            let raise = |connections: &'static str| {
                move |settings: &mut surus::config::settings::PostgresSettings| {
                    settings
                        .parameters
                        .insert("max_connections".to_owned(), connections.to_owned());
                }
            };
            let n1 = Node::with(root.path(), "n1", raise("120"), Some(support::bootstrap()));
            let n2 = Node::with(root.path(), "n2", raise("50"), None);
            n1.bootstrapped().await;
            n2.replica_of(&n1).await;
            assert_eq!(n2.sql("SHOW max_connections").await, ["120"]);
            let pending = n2.postgres.pending_restart();
            assert_eq!(pending["max_connections"].old_value, "120");
            assert_eq!(pending["max_connections"].new_value, "50");

            // New settings: one takes effect, one waits.
            let mut settings = n1.settings.clone();
            settings
                .parameters
                .insert("work_mem".to_owned(), "5MB".to_owned());
            settings
                .parameters
                .insert("max_connections".to_owned(), "130".to_owned());
            settings
                .parameters
                .insert("shared_buffers".to_owned(), "32MB".to_owned());
            settings.pg_hba = Some(vec!["host all all 127.0.0.1/8 md5".to_owned()]);
            let report = n1.postgres.reload(settings.clone()).await.unwrap();
            assert!(report.reloaded);
            assert_eq!(
                report.pending_restart.keys().collect::<Vec<_>>(),
                ["max_connections", "shared_buffers"]
            );
            assert_eq!(n1.sql("SHOW work_mem").await, ["5MB"]);
            // Ours is a default: the user's own file has the last word. Older servers do not have it.
            let method = "SELECT setting FROM pg_settings WHERE name = 'recovery_init_sync_method'";
            if n1.sql(method).await == ["syncfs"] {
                let base = n1.data("postgresql.base.conf");
                let before = std::fs::read_to_string(&base).unwrap();
                let after = format!("{before}\nrecovery_init_sync_method = fsync\n");
                std::fs::write(&base, after).unwrap();
                n1.sql("SELECT pg_reload_conf()").await;
                let taken = async {
                    while n1.sql(method).await != ["fsync"] {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(10), taken)
                    .await
                    .unwrap();
            } else {
                assert!(n1.server().await.version < 140_000);
            }
            assert!(!n1.postgres.reload(settings.clone()).await.unwrap().reloaded);
            // The agent before may have been killed between writing and telling.
            let second = n1.another_agent();
            assert!(second.reload(settings.clone()).await.unwrap().reloaded);
            assert!(!second.reload(settings).await.unwrap().reloaded);
            expect_ok(n1.postgres.restart(Some(soon()), false, G).await);
            n1.until(|server| server.is_primary()).await;
            assert_eq!(n1.sql("SHOW max_connections").await, ["130"]);

            let names = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), None)).collect();
            expect_ok(
                n1.postgres
                    .sync_slots(&names(&["a", "b"]), &Default::default())
                    .await,
            );
            let slots = n1.server().await.slots;
            assert_eq!(slots.keys().collect::<Vec<_>>(), ["a", "b"]);
            n1.sql("CREATE TABLE filler AS SELECT generate_series(1, 1000)")
                .await;
            let target = n1.server().await.position();
            let ahead = [("b".to_owned(), Some(Lsn(target.0 + (1 << 40))))].into();
            expect_ok(
                n1.postgres
                    .sync_slots(&ahead, &["a".to_owned(), "gone".to_owned()].into())
                    .await,
            );
            let slots = n1.server().await.slots;
            assert_eq!(slots.keys().collect::<Vec<_>>(), ["b"]);
            assert!(target <= slots["b"], "advanced, and not beyond the end");
            n1.sql("SELECT pg_create_logical_replication_slot('l', 'pgoutput') WHERE false")
                .await;
        },
    );
}
