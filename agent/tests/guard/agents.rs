//! Agents come and go; PostgreSQL does not notice.

use std::time::Duration;

use surus::guard::{Guard, GuardError, KillReason, Link, Phase, boottime_ns};

use crate::support::{
    Cluster, Helper, MS, as_postgres, block_on, exit_of, kill, playing, sleep, state, until,
};

/// Not a test by itself: an agent in a process of its own, which arms a deadline 1.5 s ahead and then does nothing.
#[test]
fn an_agent() {
    if let Some(socket) = playing("agents::an_agent") {
        block_on(async {
            let (guard, _) = Guard::connect(&socket).await.unwrap();
            guard.shorten(2, boottime_ns() + 1500 * MS).await.unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
        });
    }
}

#[test]
fn a_closed_connection_changes_nothing_before_the_deadline() {
    as_postgres(
        "agents::a_closed_connection_changes_nothing_before_the_deadline",
        async {
            let cluster = Cluster::new();
            let (guard, started) = cluster.up(20_000).await;
            let deadline = boottime_ns() + 1200 * MS;
            guard.shorten(1, deadline).await.unwrap();
            drop(guard);
            sleep(900).await;
            assert!(
                state(started.pid).is_some_and(|state| state != 'Z'),
                "the guard stays until the deadline"
            );
            let gone = until(1000, "the deadline kills", || cluster.processes().is_empty()).await;
            assert!(gone >= deadline);
            // The next agent is told what it missed.
            let (guard, _) = Guard::connect(&cluster.socket).await.unwrap();
            let mut view = guard.watch();
            view.wait_for(|view| view.status.phase == Phase::Idle)
                .await
                .unwrap();
            let status = guard.status().await.unwrap();
            assert_eq!((status.exits, status.phase, status.pid), (1, Phase::Idle, 0));
            let exit = status.last_exit.unwrap();
            assert_eq!((exit.pid, exit.killed), (started.pid, KillReason::Deadline));
        },
    );
}

#[test]
fn the_next_agent_takes_over_and_clients_notice_nothing() {
    as_postgres(
        "agents::the_next_agent_takes_over_and_clients_notice_nothing",
        async {
            let cluster = Cluster::new();
            let (first, started) = cluster.up(20_000).await;
            let mut session = cluster.connect().await;
            session.batch_execute("CREATE TABLE t (n int)").await.unwrap();
            let open = session.transaction().await.unwrap();
            open.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
            first.shorten(1, boottime_ns() + 1000 * MS).await.unwrap();

            let (second, adopted) = Guard::connect_or_spawn(&cluster.socket, "/nowhere".as_ref())
                .await
                .unwrap();
            assert_eq!(
                (adopted.pid, adopted.phase, adopted.generation),
                (started.pid, Phase::Running, 1)
            );
            assert_eq!(adopted.start_ticks, crate::support::start_ticks(started.pid));
            second.extend(2, boottime_ns() + 10_000 * MS).await.unwrap();
            let mut view = first.watch();
            tokio::time::timeout(
                Duration::from_secs(1),
                view.wait_for(|view| view.link == Link::Replaced),
            )
            .await
            .expect("the former agent is told")
            .unwrap();
            assert!(matches!(first.status().await, Err(GuardError::Disconnected)));
            sleep(1200).await;
            open.commit().await.unwrap();
            assert_eq!(
                session
                    .query_one("SELECT count(*) FROM t", &[])
                    .await
                    .unwrap()
                    .get::<_, i64>(0),
                1
            );
            assert_eq!(second.status().await.unwrap().pid, started.pid);
        },
    );
}

#[test]
fn a_stopped_agent_and_a_killed_one_do_not_matter() {
    as_postgres("agents::a_stopped_agent_and_a_killed_one_do_not_matter", async {
        let cluster = Cluster::new();
        for signal in [libc::SIGSTOP, libc::SIGKILL] {
            let guard = cluster.guard().await;
            let generation = guard.status().await.unwrap().generation;
            guard
                .start(&cluster.start(generation, Some(20_000)))
                .await
                .unwrap();
            let load = cluster.load(5).await;
            drop(guard);
            let other = Helper::run("agents::an_agent", &cluster.socket);
            let peek = peek(&cluster).await;
            kill(other.pid(), signal);
            let gone = until(3000, "the deadline kills", || cluster.processes().is_empty()).await;
            let last = load.last_ack_ns();
            println!(
                "agent got signal {signal}: all gone {:.1} ms after the deadline, last acknowledged write {:+.1} ms",
                (gone as f64 - peek as f64) / 1e6,
                (last as f64 - peek as f64) / 1e6
            );
            assert!(
                gone >= peek && last < peek + 200 * MS,
                "gone {gone} deadline {peek} last {last}"
            );
        }
    });
}

/// Looks at the deadline without becoming the agent: a guest may ask for the status.
async fn peek(cluster: &Cluster) -> u64 {
    for _ in 0..300 {
        let status = crate::doors::raw_status(&cluster.socket);
        if status.deadline_ns != 0 && status.deadline_ns < boottime_ns() + 1500 * MS && status.generation == 2
        {
            return status.deadline_ns;
        }
        sleep(5).await;
    }
    panic!("the other agent did not arm");
}

#[test]
fn a_fast_stop_is_reported_and_a_restart_in_place_works() {
    as_postgres(
        "agents::a_fast_stop_is_reported_and_a_restart_in_place_works",
        async {
            use surus::guard::{ExitStatus, Order};
            let cluster = Cluster::new();
            let (guard, _) = cluster.up(20_000).await;
            let _load = cluster.load(5).await;
            let busy = guard.start(&cluster.start(1, None)).await;
            assert!(matches!(busy, Err(GuardError::Busy { .. })), "{busy:?}");
            assert!(matches!(guard.quit().await, Err(GuardError::Busy { .. })));
            guard.signal(Order::Reload).await.unwrap();
            let mut view = guard.watch();
            guard.signal(Order::Fast).await.unwrap();
            let exit = exit_of(&mut view, 1, 10_000).await;
            assert_eq!(
                (exit.status, exit.killed, exit.survivors_killed),
                (ExitStatus::Code(0), KillReason::None, 0)
            );
            assert!(matches!(
                guard.signal(Order::Fast).await,
                Err(GuardError::NoPostmaster)
            ));
            guard.start(&cluster.start(1, Some(20_000))).await.unwrap();
            cluster.connect().await;
            guard.signal(Order::Kill).await.unwrap();
            let exit = exit_of(&mut view, 2, 1000).await;
            assert_eq!(exit.killed, KillReason::Order);
            assert_eq!(cluster.processes(), Vec::<i32>::new());
            guard.quit().await.unwrap();
            let mut view = guard.watch();
            tokio::time::timeout(
                Duration::from_secs(1),
                view.wait_for(|view| view.link == Link::Gone),
            )
            .await
            .expect("the end of the guard is seen")
            .unwrap();
        },
    );
}
