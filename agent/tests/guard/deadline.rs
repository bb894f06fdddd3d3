//! The deadline: what comes when it passes, and what moves it.

use surus::guard::{ExitStatus, GuardError, KillReason, Phase, boottime_ns};

use crate::support::{Cluster, MS, as_postgres, exit_of, kill, sleep, state, until};

/// Within this after the deadline, nothing is left. Section 4 leaves 500 ms; a two-core machine under test load gets
/// by with much less.
const BOUND_MS: u64 = 200;

#[test]
fn at_the_deadline_nothing_survives() {
    as_postgres("deadline::at_the_deadline_nothing_survives", async {
        let cluster = Cluster::new();
        let (guard, _) = cluster.up(20_000).await;
        let load = cluster.load(20).await;
        let mut view = guard.watch();
        let before = cluster.processes();
        assert!(before.len() >= 25, "{before:?}");
        let deadline = boottime_ns() + 700 * MS;
        guard.shorten(1, deadline).await.unwrap();
        sleep(600).await;
        assert!(
            before.iter().all(|&pid| state(pid).is_some()),
            "nobody dies before the deadline"
        );
        let exit = exit_of(&mut view, 1, 3000).await;
        let reported = boottime_ns();
        assert_eq!(
            cluster.processes(),
            Vec::<i32>::new(),
            "nothing survives the report"
        );
        assert_eq!(
            (exit.killed, exit.status),
            (KillReason::Deadline, ExitStatus::Signal(9))
        );
        // Idle backends may see that the postmaster is gone and leave before they are killed; the four busy ones cannot.
        assert!(exit.survivors_killed >= 4, "{exit:?}");
        assert!(exit.began_ns >= deadline, "{exit:?}");
        let last_ack = load.last_ack_ns();
        println!(
            "deadline with 20 writers and 4 busy backends: kill began {:.1} ms after it, all gone after {:.1} ms, reported \
             after {:.1} ms, last acknowledged write {:+.1} ms, {} processes besides the postmaster",
            ms(exit.began_ns, deadline),
            ms(exit.gone_ns, deadline),
            ms(reported, deadline),
            (last_ack as f64 - deadline as f64) / 1e6,
            exit.survivors_killed,
        );
        assert!(exit.gone_ns - deadline < BOUND_MS * MS, "{exit:?}");
        assert!(last_ack < deadline + BOUND_MS * MS);
        assert_eq!(guard.status().await.unwrap().phase, Phase::Idle);
    });
}

fn ms(later: u64, earlier: u64) -> f64 {
    (later - earlier) as f64 / 1e6
}

#[test]
fn extensions_keep_it_alive_and_old_orders_do_nothing() {
    as_postgres(
        "deadline::extensions_keep_it_alive_and_old_orders_do_nothing",
        async {
            let cluster = Cluster::new();
            let (guard, started) = cluster.up(8_000).await;
            // Five times over the deadline that each extension sets.
            guard.shorten(1, boottime_ns() + 400 * MS).await.unwrap();
            for _ in 0..10 {
                sleep(200).await;
                guard.extend(1, boottime_ns() + 400 * MS).await.unwrap();
            }
            let status = guard.extend(2, boottime_ns() + 5000 * MS).await.unwrap();
            assert_eq!(
                (status.pid, status.phase, status.generation),
                (started.pid, Phase::Running, 2)
            );

            let stale = guard.extend(1, boottime_ns() + 60_000 * MS).await;
            assert!(matches!(stale, Err(GuardError::Stale { seen: 2 })), "{stale:?}");
            let stale = guard.disarm(1).await;
            assert!(matches!(stale, Err(GuardError::Stale { seen: 2 })), "{stale:?}");
            let kept = guard.extend(2, boottime_ns() + 1000 * MS).await.unwrap();
            assert_eq!(
                kept.deadline_ns, status.deadline_ns,
                "a deadline does not come closer by itself"
            );

            let shorter = boottime_ns() + 300 * MS;
            assert_eq!(guard.shorten(2, shorter).await.unwrap().deadline_ns, shorter);
            let exit = exit_of(&mut guard.watch(), 1, 3000).await;
            assert_eq!(exit.killed, KillReason::Deadline);
            assert!(exit.began_ns >= shorter);
        },
    );
}

#[test]
fn a_replica_has_no_deadline_and_a_past_one_kills_at_once() {
    as_postgres(
        "deadline::a_replica_has_no_deadline_and_a_past_one_kills_at_once",
        async {
            let cluster = Cluster::new();
            let (guard, _) = cluster.up(10_000).await;
            guard.shorten(1, boottime_ns() + 300 * MS).await.unwrap();
            assert_eq!(guard.disarm(1).await.unwrap().deadline_ns, 0);
            sleep(700).await;
            assert_eq!(guard.status().await.unwrap().phase, Phase::Running);
            let mut view = guard.watch();
            let past = guard.extend(1, boottime_ns() - MS).await;
            assert!(matches!(past, Err(GuardError::Expired)), "{past:?}");
            let exit = exit_of(&mut view, 1, 1000).await;
            assert_eq!(exit.killed, KillReason::Deadline);
            assert_eq!(cluster.processes(), Vec::<i32>::new());
            let late = guard
                .start(&surus::guard::Start {
                    deadline_ns: Some(1),
                    ..cluster.start(1, None)
                })
                .await;
            assert!(matches!(late, Err(GuardError::Expired)), "{late:?}");
        },
    );
}

#[test]
fn stopped_processes_die_too() {
    as_postgres("deadline::stopped_processes_die_too", async {
        let cluster = Cluster::new();
        let (guard, started) = cluster.up(20_000).await;
        let _load = cluster.load(5).await;
        let mut view = guard.watch();
        let backend = cluster
            .processes()
            .into_iter()
            .rfind(|&pid| pid != started.pid)
            .unwrap();
        for pid in [backend, started.pid] {
            kill(pid, libc::SIGSTOP);
            until(1000, "stopped", || state(pid) == Some('T')).await;
        }
        let deadline = boottime_ns() + 100 * MS;
        guard.shorten(1, deadline).await.unwrap();
        let exit = exit_of(&mut view, 1, 3000).await;
        assert_eq!(cluster.processes(), Vec::<i32>::new());
        println!(
            "deadline with stopped postmaster and backend: all gone after {:.1} ms",
            ms(exit.gone_ns, deadline)
        );
        assert!(exit.gone_ns - deadline < BOUND_MS * MS, "{exit:?}");
    });
}

#[test]
fn expirations_count_boottime() {
    as_postgres("deadline::expirations_count_boottime", async {
        let cluster = Cluster::new();
        let guard = cluster.guard().await;
        guard.extend(1, boottime_ns() + 60_000 * MS).await.unwrap();
        let pid = cluster.guard_pid();
        let timers: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
            .filter(|info| info.contains("clockid"))
            .collect();
        // 7 is CLOCK_BOOTTIME, and flag 1 TFD_TIMER_ABSTIME.
        assert!(
            timers.len() == 1 && timers[0].contains("clockid: 7"),
            "{timers:?}"
        );
        assert!(timers[0].contains("settime flags: 01"), "{timers:?}");
    });
}
