//! What the guard starts: its surroundings, its failures, its worst habits.

use std::path::Path;
use std::process::Command;

use surus::guard::{ExitStatus, Guard, GuardError, KillReason, Phase, Stage, Start, boottime_ns};

use crate::support::{
    Cluster, GUARD, as_postgres, directory, exit_of, kill, may_lock_memory, processes, sleep, until, works_in,
};

fn script(dir: &Path, text: &str) -> Start {
    Start {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), text.into()],
        env: vec![],
        cwd: dir.to_owned(),
        log: Some(dir.join("log")),
        deadline_ns: None,
        generation: 0,
    }
}

async fn guard_in(dir: &Path) -> Guard {
    Guard::connect_or_spawn(&dir.join("guard.sock"), GUARD.as_ref())
        .await
        .unwrap()
        .0
}

#[test]
fn a_failed_start_says_where_and_why() {
    as_postgres("programs::a_failed_start_says_where_and_why", async {
        let dir = directory();
        let guard = guard_in(dir.path()).await;
        let good = script(dir.path(), "sleep 0.2");
        let cases = [
            (
                Start {
                    program: "/no/such/postgres".into(),
                    ..good.clone()
                },
                Stage::Exec,
                libc::ENOENT,
            ),
            (
                Start {
                    program: "/etc/passwd".into(),
                    ..good.clone()
                },
                Stage::Exec,
                libc::EACCES,
            ),
            (
                Start {
                    cwd: "/no/such/directory".into(),
                    ..good.clone()
                },
                Stage::Directory,
                libc::ENOENT,
            ),
            (
                Start {
                    log: Some("/no/such/log".into()),
                    ..good.clone()
                },
                Stage::Log,
                libc::ENOENT,
            ),
            (
                Start {
                    args: vec!["x".into(); 3000],
                    ..good.clone()
                },
                Stage::TooMany,
                libc::E2BIG,
            ),
        ];
        for (start, expected, errno) in cases {
            match guard.start(&start).await {
                Err(GuardError::StartFailed { stage, source, .. }) => {
                    assert_eq!((stage, source.raw_os_error()), (expected, Some(errno)));
                }
                other => panic!("{expected:?}: {other:?}"),
            }
            let status = guard.status().await.unwrap();
            assert_eq!((status.phase, status.exits), (Phase::Idle, 0), "{expected:?}");
        }
        let error = guard
            .start(&Start {
                program: "/no/such/postgres".into(),
                ..good.clone()
            })
            .await
            .unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(
            format!("{error}: {cause}"),
            "cannot execute the program to start /no/such/postgres: No such file or directory (os error 2)"
        );
        assert!(matches!(
            guard
                .start(&Start {
                    args: vec!["y".repeat(70_000).into()],
                    ..good.clone()
                })
                .await,
            Err(GuardError::Unsendable(_))
        ));
        let mut view = guard.watch();
        guard.start(&good).await.unwrap();
        assert_eq!(exit_of(&mut view, 1, 2000).await.status, ExitStatus::Code(0));
        guard.quit().await.unwrap();
    });
}

#[test]
fn a_program_starts_in_clean_surroundings() {
    as_postgres("programs::a_program_starts_in_clean_surroundings", async {
        let dir = directory();
        let guard = guard_in(dir.path()).await;
        let mut view = guard.watch();
        let look = "echo \"extra=$EXTRA home=$HOME path=$PATH\"; ls /proc/$$/fd; \
                    for name in SigBlk SigIgn VmLck; do grep $name /proc/$$/status; done; cat /proc/$$/stat; pwd";
        let start = Start {
            env: vec![("EXTRA".into(), "1 2".into()), ("HOME".into(), "/other".into())],
            ..script(dir.path(), look)
        };
        let pid = guard.start(&start).await.unwrap().pid;
        exit_of(&mut view, 1, 2000).await;
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(log.contains("extra=1 2 home=/other path=/"), "{log}");
        assert!(log.contains("\n0\n1\n2\nSigBlk:\t0000000000000000\n"), "{log}");
        // But 32 and 33, which belong to the C library and cannot be changed through it.
        let ignored = log
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .unwrap()
            .trim();
        assert_eq!(
            u64::from_str_radix(ignored, 16).unwrap() & !(0b11 << 31),
            0,
            "{log}"
        );
        assert!(log.contains("VmLck:\t       0 kB"), "{log}");
        let stat = log.lines().find(|line| line.contains(") ")).unwrap();
        let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
        assert_eq!(session, pid.to_string(), "a session of its own");
        assert!(log.ends_with(&format!("{}\n", dir.path().display())), "{log}");
        guard.quit().await.unwrap();
    });
}

#[test]
fn a_program_that_forks_for_ever_dies_with_all_its_children() {
    as_postgres(
        "programs::a_program_that_forks_for_ever_dies_with_all_its_children",
        async {
            let dir = directory();
            let guard = guard_in(dir.path()).await;
            let mut view = guard.watch();
            // Children, grandchildren, and processes that have left for a session of their own and lost their parent.
            let storm = "n=0; while [ $n -lt 150 ]; do n=$((n+1)); (sleep 300 & setsid sleep 300 & ) ; \
                     sh -c 'sleep 300; true' & done; while :; do sleep 0.01 & done";
            guard.start(&script(dir.path(), storm)).await.unwrap();
            sleep(700).await;
            let deadline = boottime_ns();
            let _ = guard.extend(1, deadline).await;
            let exit = exit_of(&mut view, 1, 5000).await;
            let left: Vec<_> = processes()
                .into_iter()
                .filter(|&pid| works_in(pid, dir.path()))
                .collect();
            assert_eq!(left, Vec::<i32>::new());
            println!(
                "a fork storm: {} processes killed, all gone after {:.1} ms",
                exit.survivors_killed,
                (exit.gone_ns - deadline) as f64 / 1e6
            );
            assert!(exit.survivors_killed > 100, "{exit:?}");
            guard.quit().await.unwrap();
        },
    );
}

#[test]
fn helpers_may_outlive_a_clean_end_but_not_a_crash() {
    as_postgres(
        "programs::helpers_may_outlive_a_clean_end_but_not_a_crash",
        async {
            let dir = directory();
            let guard = guard_in(dir.path()).await;
            let mut view = guard.watch();
            // An archiving helper that made itself a daemon; it comes to the guard, which is a subreaper.
            let daemon = |code: u8| format!("(setsid sleep 30 >/dev/null 2>&1 &); sleep 0.3; exit {code}");
            let helpers = || {
                processes()
                    .into_iter()
                    .filter(|&pid| works_in(pid, dir.path()))
                    .count()
            };
            guard.start(&script(dir.path(), &daemon(0))).await.unwrap();
            let exit = exit_of(&mut view, 1, 2000).await;
            assert_eq!((exit.status, exit.survivors_killed), (ExitStatus::Code(0), 0));
            assert_eq!(helpers(), 1, "it may finish its work");
            guard.start(&script(dir.path(), &daemon(1))).await.unwrap();
            let exit = exit_of(&mut view, 2, 2000).await;
            assert_eq!((exit.status, exit.survivors_killed), (ExitStatus::Code(1), 2));
            assert_eq!(helpers(), 0);
            guard.quit().await.unwrap();
        },
    );
}

#[test]
fn sigterm_to_the_guard_is_a_fast_stop() {
    as_postgres("programs::sigterm_to_the_guard_is_a_fast_stop", async {
        let cluster = Cluster::new();
        let (guard, _) = cluster.up(60_000).await;
        let _load = cluster.load(3).await;
        let mut view = guard.watch();
        kill(cluster.guard_pid(), libc::SIGTERM);
        let exit = exit_of(&mut view, 1, 10_000).await;
        assert_eq!(
            (exit.status, exit.killed),
            (ExitStatus::Code(0), KillReason::None)
        );
        until(1000, "the guard leaves", || {
            view.borrow().link == surus::guard::Link::Gone
        })
        .await;
        let control = Command::new(cluster.postgres.with_file_name("pg_controldata"))
            .arg("-D")
            .arg(&cluster.data)
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let control = String::from_utf8(control.stdout).unwrap();
        assert!(control.contains("shut down\n"), "{control}");
    });
}

#[test]
fn memory_is_locked_where_that_is_permitted() {
    if !may_lock_memory() {
        eprintln!("SKIPPED: memory_is_locked_where_that_is_permitted: needs CAP_IPC_LOCK");
        return;
    }
    as_postgres("programs::memory_is_locked_where_that_is_permitted", async {
        let dir = directory();
        let socket = dir.path().join("guard.sock");
        let (guard, status) = Guard::connect_or_spawn(&socket, GUARD.as_ref()).await.unwrap();
        assert!(status.memory_locked);
        let memory = std::fs::read_to_string(format!("/proc/{}/status", status.guard_pid)).unwrap();
        assert!(!memory.contains("VmLck:\t       0 kB"), "{memory}");
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", status.guard_pid)).unwrap();
        println!(
            "memory of the guard, locked: {:?}",
            rollup.lines().skip(1).take(3).collect::<Vec<_>>()
        );
        guard.quit().await.unwrap();
    });
}
