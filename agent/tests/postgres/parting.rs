//! Parting from clients before a planned stop, on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use surus::postgres::{BoxFuture, Herald};
use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::Generation;
use tokio::sync::Notify;

use crate::support::{Node, as_postgres, expect_ok, now, soon};

/// Counts its words, and says whether they are heard.
struct Word {
    heard: bool,
    said: AtomicUsize,
    saying: Notify,
}

impl Word {
    fn new(heard: bool) -> Arc<Self> {
        Arc::new(Self {
            heard,
            said: AtomicUsize::new(0),
            saying: Notify::new(),
        })
    }
}

impl Herald for Word {
    fn stopping(&self) -> BoxFuture<'_, bool> {
        self.said.fetch_add(1, Ordering::Relaxed);
        self.saying.notify_one();
        Box::pin(async move { self.heard })
    }
}

fn stopped(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Stopped { checkpoint: Some(_) })
}

const UNDER_WAY: Duration = Duration::from_millis(250);

#[test]
fn a_planned_stop_lets_transactions_end_and_waits_for_none_for_long() {
    as_postgres(
        "parting::a_planned_stop_lets_transactions_end_and_waits_for_none_for_long",
        || async {
            let root = tempfile::tempdir().unwrap();
            let node = Node::new(root.path(), "n1");
            node.bootstrapped().await;
            node.sql("CREATE TABLE t (i int)").await;
            let word = Word::new(true);
            node.postgres.announce_with(word.clone());
            let fast = || StopMode::Fast { until: soon() };

            // One is under way when the word is said; another session is idle, and nobody waits for it.
            let _idle = node.connect().await;
            let (client, _) = node.connect().await;
            client
                .batch_execute("BEGIN; INSERT INTO t VALUES (1)")
                .await
                .unwrap();
            let at_work = {
                let word = Arc::clone(&word);
                tokio::spawn(async move {
                    word.saying.notified().await;
                    tokio::time::sleep(UNDER_WAY).await;
                    client.batch_execute("COMMIT").await
                })
            };
            let outcome = node.postgres.stop(fast(), true).await;
            assert!(stopped(&outcome), "{outcome:?}");
            at_work.await.unwrap().expect("the transaction was let end");

            // One that does not end is cut off, soon; a stop for safety's sake says nothing and waits for nobody.
            for (planned, said) in [(true, 2), (false, 2)] {
                expect_ok(
                    node.postgres
                        .start_primary(soon(), soon(), None, false, Generation(2))
                        .await,
                );
                node.until(|server| server.is_primary()).await;
                let (client, _) = node.connect().await;
                client
                    .batch_execute("BEGIN; INSERT INTO t VALUES (2)")
                    .await
                    .unwrap();
                let before = now();
                let outcome = node.postgres.stop(fast(), planned).await;
                let took = now().since(before);
                assert!(stopped(&outcome), "{outcome:?}");
                eprintln!("MEASURED stop over an open transaction, planned {planned}: {took:?}");
                assert!(took < Duration::from_secs(3), "{took:?}");
                assert_eq!(planned, Duration::from_millis(600) <= took);
                assert_eq!(word.said.load(Ordering::Relaxed), said);
                client.batch_execute("COMMIT").await.expect_err("cut off");
            }

            // A word that nobody can hear is no reason to wait.
            node.postgres.announce_with(Word::new(false));
            expect_ok(
                node.postgres
                    .start_primary(soon(), soon(), None, false, Generation(2))
                    .await,
            );
            node.until(|server| server.is_primary()).await;
            let (client, _) = node.connect().await;
            client
                .batch_execute("BEGIN; INSERT INTO t VALUES (3)")
                .await
                .unwrap();
            let before = now();
            assert!(stopped(&node.postgres.stop(fast(), true).await));
            eprintln!("MEASURED planned stop, unheard: {:?}", now().since(before));
            client.batch_execute("COMMIT").await.expect_err("cut off");

            expect_ok(
                node.postgres
                    .start_primary(soon(), soon(), None, false, Generation(2))
                    .await,
            );
            node.until(|server| server.is_primary()).await;
            assert_eq!(node.sql("SELECT i FROM t").await, ["1"]);
            node.stop().await;
        },
    );
}
