//! Clones: broken off, begun anew, and with the configuration kept elsewhere.

use std::time::Duration;

use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::Timeline;
use surus_core::view::DataDir;

use super::support::{self, G, Node, as_postgres, expect_ok, soon, streaming};

#[test]
fn a_clone_that_was_broken_off_is_known_and_begun_anew() {
    as_postgres(
        "cloning::a_clone_that_was_broken_off_is_known_and_begun_anew",
        || async {
            let root = tempfile::tempdir().unwrap();
            let n1 = Node::new(root.path(), "n1");
            n1.bootstrapped().await;
            let slow = Node::with(
                root.path(),
                "n2",
                |settings| settings.basebackup = vec![("max-rate".to_owned(), Some("4M".to_owned()))],
                None,
            );
            let postgres = std::sync::Arc::clone(&slow.postgres);
            let upstream = n1.upstream();
            let clone = tokio::spawn(async move { postgres.base_backup(&upstream).await });
            let mut progress = None;
            for _ in 0..1000 {
                progress = slow.postgres.progress();
                if progress.as_ref().is_some_and(|progress| 0 < progress.done_bytes) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let progress = progress.expect("progress is reported");
            assert!(progress.done_bytes <= progress.total_bytes && progress.operation == "basebackup");
            assert!(
                matches!(slow.look().await.data, DataDir::Incomplete(text) if text.contains("under way"))
            );
            clone.abort();
            let _ = clone.await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(
                matches!(slow.look().await.data, DataDir::Incomplete(text) if text.contains("not finished"))
            );
            // Another agent's tool is still at work: one that its agent's death left behind.
            let away = root.path().join("n2/away");
            std::fs::rename(&slow.settings.data_dir, &away).unwrap();
            let mut stray = std::process::Command::new(support::bin_dir().unwrap().join("pg_basebackup"))
                .arg(format!("--pgdata={}", slow.settings.data_dir.display()))
                .args([
                    "--max-rate=32k",
                    "--checkpoint=fast",
                    "--host=127.0.0.1",
                    "--username=replicator",
                ])
                .arg(format!("--port={}", n1.settings.port))
                .env("PGPASSFILE", &slow.settings.pgpass)
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(stray.try_wait().unwrap().is_none());
            let fast = Node::with(
                root.path(),
                "n2",
                |settings| settings.data_dir.clone_from(&slow.settings.data_dir),
                None,
            );
            fast.replica_of(&n1).await;
            assert!(!stray.wait().unwrap().success());
            let aside = std::fs::read_dir(root.path().join("n2"))
                .unwrap()
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().contains("aside"))
                .count();
            assert_eq!(aside, 0, "a part of a clone is not worth keeping");
            fast.stop().await;
        },
    );
}

#[test]
fn configuration_outside_of_the_data_directory_and_connections_through_the_socket() {
    as_postgres(
        "cloning::configuration_outside_of_the_data_directory_and_connections_through_the_socket",
        || async {
            let root = tempfile::tempdir().unwrap();
            let outside = |settings: &mut surus::config::settings::PostgresSettings| {
                settings.config_dir = settings.data_dir.with_file_name("etc");
                settings.use_unix_socket = true;
                settings.use_pg_rewind = true;
                settings.pre_promote = Some("/bin/sh -c 'test -e /nonexistent'".to_owned());
                settings
                    .recovery_conf
                    .insert("restore_command".to_owned(), "false".to_owned());
            };
            let mut bootstrap = support::bootstrap();
            bootstrap.pg_hba.push("local all all md5".to_owned());
            let n1 = Node::with(root.path(), "n1", outside, Some(bootstrap));
            let n2 = Node::with(root.path(), "n2", outside, None);
            n1.bootstrapped().await;
            assert!(
                root.path().join("n1/etc/postgresql.base.conf").exists()
                    || n1.data("postgresql.conf").exists()
            );
            assert!(n1.data("pg_hba.conf.backup").exists());
            n2.replica_of(&n1).await;
            assert!(
                root.path().join("n2/etc/pg_hba.conf").exists(),
                "brought along from the clone"
            );
            assert_eq!(n2.sql("SHOW restore_command").await, ["false"]);
            let clients = n2
                .sql("SELECT coalesce(client_addr::text, 'socket') FROM pg_stat_activity WHERE application_name = 'Surus heartbeat'")
                .await;
            assert_eq!(clients, ["socket"]);
            let refused = n2
                .postgres
                .promote(soon(), soon(), Timeline(1), None, false, G)
                .await;
            assert!(
                matches!(&refused, Outcome::Failed(text) if text.contains("sh failed")),
                "{refused:?}"
            );
            let mut settings = n2.settings.clone();
            settings.pre_promote = None;
            n2.postgres.reload(settings).await.unwrap();
            let stopped = n1.postgres.stop(StopMode::Immediate, false).await;
            assert_eq!(stopped, Outcome::Stopped { checkpoint: None });
            n2.promote(1).await;
            expect_ok(n2.postgres.checkpoint().await);
            expect_ok(n1.postgres.rewind(&n2.upstream()).await);
            expect_ok(n1.postgres.start_replica(Some(&n2.upstream()), G).await);
            n1.until(streaming).await;
        },
    );
}
