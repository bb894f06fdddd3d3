//! The guard dies, the postmaster dies, or PostgreSQL was never its child.

use std::process::Command;
use std::time::Duration;

use surus::guard::{ExitStatus, Guard, GuardError, KillReason, Link, boottime_ns, kill_all_of};

use crate::support::{Cluster, MS, as_postgres, exit_of, kill, sleep, start_ticks, state, until};

#[test]
fn the_guards_death_is_postgresqls_end() {
    as_postgres("deaths::the_guards_death_is_postgresqls_end", async {
        let cluster = Cluster::new();
        let (guard, _) = cluster.up(60_000).await;
        let load = cluster.load(20).await;
        let mut view = guard.watch();
        let killed = boottime_ns();
        kill(cluster.guard_pid(), libc::SIGKILL);
        let gone = until(5500, "the kernel stops PostgreSQL", || {
            cluster.processes().is_empty()
        })
        .await;
        println!(
            "kill -9 of the guard, 20 writers and 4 busy backends: last acknowledged write after {:.1} ms, all gone \
             after {:.1} ms",
            (load.last_ack_ns() as f64 - killed as f64) / 1e6,
            (gone - killed) as f64 / 1e6
        );
        assert!(load.last_ack_ns() < killed + 200 * MS);
        assert!(gone < killed + 1000 * MS);
        tokio::time::timeout(
            Duration::from_secs(1),
            view.wait_for(|view| view.link == Link::Gone),
        )
        .await
        .expect("the agent is told")
        .unwrap();
        assert!(matches!(guard.status().await, Err(GuardError::Disconnected)));
        // A dead guard's socket and lock are in nobody's way.
        let again = cluster.guard().await;
        again.start(&cluster.start(1, Some(20_000))).await.unwrap();
        cluster.connect().await;
    });
}

#[test]
fn a_stopped_postmaster_without_a_guard_is_the_agents_to_kill() {
    as_postgres(
        "deaths::a_stopped_postmaster_without_a_guard_is_the_agents_to_kill",
        async {
            let cluster = Cluster::new();
            let (_guard, started) = cluster.up(60_000).await;
            let _load = cluster.load(5).await;
            kill(started.pid, libc::SIGSTOP);
            until(1000, "stopped", || state(started.pid) == Some('T')).await;
            kill(cluster.guard_pid(), libc::SIGKILL);
            sleep(100).await;
            assert!(
                !cluster.processes().is_empty(),
                "SIGQUIT waits for a stopped process to go on"
            );
            // How many it finds depends: those that wait for their client go by themselves when the postmaster dies.
            assert!(kill_all_of(&cluster.postgres, &cluster.data).unwrap() > 0);
            until(2000, "none is left", || {
                kill_all_of(&cluster.postgres, &cluster.data).unwrap() == 0
            })
            .await;
            assert_eq!(cluster.processes(), Vec::<i32>::new());
        },
    );
}

#[test]
fn orphans_die_before_the_postmasters_death_is_reported() {
    as_postgres(
        "deaths::orphans_die_before_the_postmasters_death_is_reported",
        async {
            let cluster = Cluster::new();
            let (guard, started) = cluster.up(60_000).await;
            let load = cluster.load(20).await;
            let mut view = guard.watch();
            // A backend that cannot notice the death of its postmaster.
            let stopped = cluster
                .processes()
                .into_iter()
                .rfind(|&pid| pid != started.pid)
                .unwrap();
            kill(stopped, libc::SIGSTOP);
            let killed = boottime_ns();
            kill(started.pid, libc::SIGKILL);
            let exit = exit_of(&mut view, 1, 3000).await;
            assert_eq!(
                cluster.processes(),
                Vec::<i32>::new(),
                "reported only after the last is gone"
            );
            assert_eq!(
                (exit.status, exit.killed),
                (ExitStatus::Signal(9), KillReason::None)
            );
            assert!(exit.survivors_killed >= 4, "{exit:?}");
            println!(
                "kill -9 of the postmaster: orphans gone after {:.1} ms ({} killed), last acknowledged write {:+.1} ms",
                (exit.gone_ns - killed) as f64 / 1e6,
                exit.survivors_killed,
                (load.last_ack_ns() as f64 - killed as f64) / 1e6
            );
            guard.start(&cluster.start(1, Some(20_000))).await.unwrap();
            cluster.connect().await;
        },
    );
}

/// A PostgreSQL that somebody else started: its pid.
fn stand_alone(cluster: &Cluster) -> i32 {
    let started = Command::new(cluster.postgres.with_file_name("pg_ctl"))
        .args(["start", "-w", "-s", "-D"])
        .arg(&cluster.data)
        .arg("-l")
        .arg(cluster.dir.path().join("log"))
        .current_dir(cluster.dir.path())
        .status()
        .unwrap();
    assert!(started.success());
    let pid_file = std::fs::read_to_string(cluster.data.join("postmaster.pid")).unwrap();
    pid_file.lines().next().unwrap().parse().unwrap()
}

#[test]
fn an_adopted_postmaster_dies_at_the_deadline_with_all_of_its_own() {
    as_postgres(
        "deaths::an_adopted_postmaster_dies_at_the_deadline_with_all_of_its_own",
        async {
            let cluster = Cluster::new();
            let pid = stand_alone(&cluster);
            let load = cluster.load(20).await;
            let helper = cluster.connect().await;
            tokio::spawn(async move {
                helper
                    .batch_execute("COPY (SELECT 1) TO PROGRAM 'sleep 77; true'")
                    .await
            });
            sleep(200).await;
            let guard = cluster.guard().await;
            let other = guard.adopt(pid, start_ticks(pid) + 1).await;
            assert!(
                matches!(other, Err(GuardError::NoSuchProcess { .. })),
                "{other:?}"
            );
            let status = guard.adopt(pid, start_ticks(pid)).await.unwrap();
            assert!(status.adopted && status.pid == pid);
            guard.adopt(pid, start_ticks(pid)).await.expect("may be repeated");
            let mut view = guard.watch();
            let deadline = boottime_ns() + 500 * MS;
            guard.extend(1, deadline).await.unwrap();
            let exit = exit_of(&mut view, 1, 3000).await;
            assert_eq!(cluster.processes(), Vec::<i32>::new());
            assert_eq!(
                (exit.killed, exit.status),
                (KillReason::Deadline, ExitStatus::Unknown)
            );
            assert!(exit.survivors_killed >= 24, "{exit:?}");
            println!(
                "deadline of an adopted postmaster: all gone after {:.1} ms, last acknowledged write {:+.1} ms",
                (exit.gone_ns - deadline) as f64 / 1e6,
                (load.last_ack_ns() as f64 - deadline as f64) / 1e6
            );
            assert!(
                exit.began_ns >= deadline && exit.gone_ns - deadline < 400 * MS,
                "{exit:?}"
            );
            assert!(load.last_ack_ns() < deadline + 200 * MS);
        },
    );
}

#[test]
fn orphans_of_an_adopted_postmaster_are_found() {
    as_postgres("deaths::orphans_of_an_adopted_postmaster_are_found", async {
        let cluster = Cluster::new();
        let pid = stand_alone(&cluster);
        let _load = cluster.load(5).await;
        let (guard, _) = Guard::connect_or_spawn(&cluster.socket, crate::support::GUARD.as_ref())
            .await
            .unwrap();
        guard.adopt(pid, 0).await.unwrap();
        guard.extend(1, boottime_ns() + 20_000 * MS).await.unwrap();
        let mut view = guard.watch();
        kill(pid, libc::SIGKILL);
        let exit = exit_of(&mut view, 1, 3000).await;
        assert_eq!(cluster.processes(), Vec::<i32>::new());
        assert_eq!(
            (exit.killed, exit.status),
            (KillReason::None, ExitStatus::Unknown)
        );
        assert!(exit.survivors_killed >= 4, "{exit:?}");
    });
}
