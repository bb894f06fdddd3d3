//! The gate of a new primary.

use surus_core::sync::Names;
use surus_core::types::Timeline;
use surus_core::view::{Process, Server};
use tokio_postgres::error::SqlState;

use crate::support::*;
use crate::synchronous::LIMIT;

fn gated(root: &std::path::Path, name: &str) -> Node {
    Node::with(root, name, |settings| settings.gate = true, Some(bootstrap()))
}

/// A client's session, or why there is none.
async fn client(node: &Node) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let connected = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(node.settings.port)
        .user("client")
        .password("client")
        .dbname("postgres")
        .connect(tokio_postgres::NoTls)
        .await;
    let (client, connection) = connected?;
    tokio::spawn(async {
        // It is to be broken off.
        let _ = connection.await;
    });
    Ok(client)
}

async fn let_in(node: &Node) -> bool {
    match client(node).await {
        Ok(client) => client.query_one("SELECT 1", &[]).await.is_ok(),
        Err(error) => {
            assert_eq!(
                error.code(),
                Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION),
                "{error}"
            );
            false
        }
    }
}

async fn absent(node: &Node) {
    node.stop().await;
    node.until_process(|process| *process == Process::Absent).await;
}

#[test]
fn nobody_but_members_sees_a_new_primary_before_it_is_opened() {
    as_postgres(
        "gate::nobody_but_members_sees_a_new_primary_before_it_is_opened",
        || async {
            let root = tempfile::tempdir().unwrap();
            let (n1, n2) = (gated(root.path(), "n1"), gated(root.path(), "n2"));
            n1.bootstrapped().await;
            n1.sql("CREATE ROLE client LOGIN PASSWORD 'client'").await;
            n2.replica_of(&n1).await;
            let reader = client(&n2).await.unwrap();
            let before = now();
            let nobody = Names::Alone;
            expect_ok(
                n2.postgres
                    .promote(soon(), soon(), Timeline(1), Some(&nobody), true, G)
                    .await,
            );
            eprintln!("MEASURED promotion behind a gate: {:?}", now().since(before));
            assert!(n2.until(Server::is_primary).await.gated);
            assert!(
                reader.query_one("SELECT 1", &[]).await.is_err(),
                "it was there before"
            );
            assert!(!let_in(&n2).await);

            // Members come in: the agent's sessions, replication, and who rewinds.
            absent(&n1).await;
            expect_ok(n1.postgres.rewind(&n2.upstream()).await);
            expect_ok(n1.postgres.start_replica(Some(&n2.upstream()), G).await);
            n1.until(streaming).await;
            let commits = n2
                .postgres
                .set_synchronous(Some(&Names::parse("n1")), LIMIT, G)
                .await;
            expect_ok(commits);
            assert!(n2.server().await.gated, "names do not open it");
            assert!(!let_in(&n2).await);

            let before = now();
            expect_ok(n2.postgres.open_gate(LIMIT, G).await);
            eprintln!("MEASURED opening: {:?}", now().since(before));
            assert!(!n2.server().await.gated);
            assert!(let_in(&n2).await);

            // From the first moment of a start on.
            expect_ok(n2.postgres.restart(Some(soon()), true, G).await);
            assert!(n2.until(Server::is_primary).await.gated);
            assert!(!let_in(&n2).await);
            absent(&n2).await;
            expect_ok(
                n2.postgres
                    .start_primary(soon(), soon(), Some(&nobody), true, G)
                    .await,
            );
            assert!(n2.until(Server::is_primary).await.gated);
            assert!(!let_in(&n2).await);
            // A replica shows nothing that is not elsewhere.
            absent(&n2).await;
            expect_ok(n2.postgres.start_replica(None, G).await);
            assert!(!n2.until(|server| !server.is_primary()).await.gated);
            assert!(let_in(&n2).await);
        },
    );
}

#[test]
fn a_gate_that_waits_for_a_restart_keeps_nobody_from_being_promoted() {
    as_postgres(
        "gate::a_gate_that_waits_for_a_restart_keeps_nobody_from_being_promoted",
        || async {
            let root = tempfile::tempdir().unwrap();
            let (n1, n2) = (Node::new(root.path(), "n1"), Node::new(root.path(), "n2"));
            n1.bootstrapped().await;
            n1.sql("CREATE ROLE client LOGIN PASSWORD 'client'").await;
            n2.replica_of(&n1).await;
            let mut settings = n2.settings.clone();
            settings.gate = true;
            let report = n2.postgres.reload(settings).await.unwrap();
            assert!(
                report.pending_restart.contains_key("hba_file"),
                "{:?}",
                report.pending_restart
            );
            expect_ok(
                n2.postgres
                    .promote(soon(), soon(), Timeline(1), None, true, G)
                    .await,
            );
            assert!(!n2.until(Server::is_primary).await.gated);
            assert!(let_in(&n2).await);
        },
    );
}
