//! Who may come in, which guard is the guard, and what its memory does.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use surus::guard::protocol::{HEADER_LEN, Header, Outcome, Report, Request, Strings, VERSION};
use surus::guard::{Guard, GuardError, Order, Phase, Start, Status, boottime_ns, prepare};

use crate::support::{
    Cluster, GUARD, Helper, MS, as_postgres, block_on, directory, exit_of, kill, playing, sleep, state, until,
};

/// One request in one frame of any version, over a connection of its own, and the answer.
fn raw(socket: &Path, version: u16, requests: &[Request<'_>]) -> std::io::Result<Report> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut answer = None;
    for request in requests {
        let mut frame = [0; 1024];
        let length = request.encode(9, &mut frame).unwrap();
        frame[4..6].copy_from_slice(&version.to_le_bytes());
        stream.write_all(&frame[..length])?;
        let mut head = [0; HEADER_LEN];
        stream.read_exact(&mut head)?;
        let header = Header::decode(&head).unwrap();
        let mut payload = vec![0; header.length];
        stream.read_exact(&mut payload)?;
        answer = Report::decode(header, &payload);
    }
    Ok(answer.unwrap())
}

pub(crate) fn raw_status(socket: &Path) -> Status {
    raw(socket, VERSION, &[Request::Status]).unwrap().status
}

#[test]
fn a_second_guard_is_refused_and_a_dead_ones_socket_replaced() {
    as_postgres(
        "doors::a_second_guard_is_refused_and_a_dead_ones_socket_replaced",
        async {
            let cluster = Cluster::new();
            let _guard = cluster.guard().await;
            let first = cluster.guard_pid();
            let second = Command::new(GUARD)
                .arg("guard")
                .arg("--socket")
                .arg(&cluster.socket)
                .output()
                .unwrap();
            assert_eq!(second.status.code(), Some(3));
            let text = String::from_utf8(second.stderr).unwrap();
            assert!(text.contains(&format!("guard {first} holds the lock")), "{text}");
            let mode = std::fs::metadata(&cluster.socket).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            kill(first, libc::SIGKILL);
            until(1000, "the guard is dead", || {
                matches!(state(first), None | Some('Z'))
            })
            .await;
            // Two agents at once: one guard.
            let (one, two) = tokio::join!(cluster.guard(), cluster.guard());
            drop((one, two));
            assert_ne!(cluster.guard_pid(), first);
        },
    );
}

#[test]
fn a_deleted_socket_is_named() {
    as_postgres("doors::a_deleted_socket_is_named", async {
        let cluster = Cluster::new();
        let _guard = cluster.guard().await;
        std::fs::remove_file(&cluster.socket).unwrap();
        let Err(error) = Guard::connect_or_spawn(&cluster.socket, GUARD.as_ref()).await else {
            panic!("connected to nothing");
        };
        assert!(error.to_string().contains("guard.sock.lock"), "{error}");
    });
}

#[test]
fn another_user_is_refused_on_both_sides() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: another_user_is_refused_on_both_sides: needs root to be two users");
        return;
    }
    let dir = directory();
    let socket = dir.path().join("guard.sock");
    // Root is not stopped by the socket's mode, so this is the check of the credentials alone.
    let mut theirs = Command::new("setpriv")
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            GUARD,
            "guard",
            "--foreground",
            "--socket",
        ])
        .arg(&socket)
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    block_on(async {
        until(5000, "the guard listens", || UnixStream::connect(&socket).is_ok()).await;
        let refused = raw(&socket, VERSION, &[Request::Status]);
        assert!(refused.is_err(), "{refused:?}");
        let refused = Guard::connect(&socket).await;
        assert!(matches!(refused, Err(GuardError::WrongUser { theirs, ours: 0, .. }) if theirs != 0));
    });
    theirs.kill().unwrap();
    theirs.wait().unwrap();
}

#[test]
fn a_path_of_any_length_will_do() {
    as_postgres("doors::a_path_of_any_length_will_do", async {
        let dir = directory();
        let deep = dir.path().join("a".repeat(130)).join("b".repeat(130));
        std::fs::create_dir_all(&deep).unwrap();
        let socket = deep.join("guard.sock");
        let (guard, status) = Guard::connect_or_spawn(&socket, GUARD.as_ref()).await.unwrap();
        let (again, same) = Guard::connect_or_spawn(&socket, GUARD.as_ref()).await.unwrap();
        assert_eq!(status.guard_pid, same.guard_pid);
        again.quit().await.unwrap();
        drop(guard);
    });
}

#[test]
fn other_versions_are_understood_where_it_matters() {
    as_postgres("doors::other_versions_are_understood_where_it_matters", async {
        let cluster = Cluster::new();
        let (guard, _) = cluster.up(60_000).await;
        let other = VERSION + 41;
        assert_eq!(
            raw(&cluster.socket, other, &[Request::Status])
                .unwrap()
                .status
                .phase,
            Phase::Running
        );
        assert!(guard.status().await.is_ok(), "who only looks does not take over");
        let strange = raw(&cluster.socket, VERSION, &[Request::Signal(Order::Kill)]).unwrap();
        assert_eq!(strange.outcome, Outcome::NotAgent);
        let deadline = boottime_ns() + 30_000 * MS;
        let extend = Request::Extend {
            deadline_ns: deadline,
            generation: 7,
            shorten: false,
        };
        let extended = raw(&cluster.socket, other, &[Request::Hello, extend]).unwrap();
        assert_eq!(
            (extended.outcome, extended.status.deadline_ns),
            (Outcome::Done, deadline)
        );
        let start = Request::Start {
            deadline_ns: 0,
            generation: 8,
            argv: Strings::packed(b"/bin/true\0").unwrap(),
            env: Strings::packed(b"").unwrap(),
            cwd: c"/",
            log: c"",
        };
        let refused = raw(&cluster.socket, other, &[Request::Hello, start]).unwrap();
        assert_eq!(
            (refused.outcome, refused.status.version),
            (Outcome::Version, VERSION)
        );
        let stop = raw(
            &cluster.socket,
            other,
            &[Request::Hello, Request::Signal(Order::Fast)],
        )
        .unwrap();
        assert_eq!(stop.outcome, Outcome::Done);
        until(5000, "a fast stop", || cluster.processes().is_empty()).await;
        // Noise ends the connection that makes it, and nothing else.
        let mut noise = UnixStream::connect(&cluster.socket).unwrap();
        noise.write_all(&[0xee; 70_000]).unwrap_or(());
        // The processes are gone a moment before the guard has seen that they are.
        until(5000, "its end to be seen", || {
            raw_status(&cluster.socket).exits == 1
        })
        .await;
    });
}

#[test]
fn a_guard_that_is_frozen_is_an_error_and_not_a_wait() {
    as_postgres(
        "doors::a_guard_that_is_frozen_is_an_error_and_not_a_wait",
        async {
            let cluster = Cluster::new();
            let (guard, _) = cluster.up(60_000).await;
            let mut view = guard.watch();
            kill(cluster.guard_pid(), libc::SIGSTOP);
            let before = boottime_ns();
            assert!(matches!(guard.status().await, Err(GuardError::Unresponsive(_))));
            assert!(matches!(
                Guard::connect(&cluster.socket).await,
                Err(GuardError::Unresponsive(_))
            ));
            assert!(boottime_ns() - before < 3000 * MS);
            // What an agent earned in time counts when the guard thaws; what it did not, does not.
            let _ = guard.shorten(1, boottime_ns() + 200 * MS).await;
            sleep(100).await;
            let thawed = boottime_ns();
            kill(cluster.guard_pid(), libc::SIGCONT);
            let exit = exit_of_either(&cluster, &mut view, thawed).await;
            assert!(
                exit < thawed + 500 * MS,
                "a guard that wakes past its deadline kills at once"
            );
        },
    );
}

/// When the data directory is empty of processes; the guest that gave up may have replaced the agent meanwhile.
async fn exit_of_either(
    cluster: &Cluster,
    _view: &mut tokio::sync::watch::Receiver<surus::guard::GuardView>,
    since: u64,
) -> u64 {
    let gone = until(2000, "all gone", || cluster.processes().is_empty()).await;
    assert!(gone >= since);
    gone
}

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is the system allocator's; only a counter is added.
#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Not a test by itself: a guard in this program, whose allocator counts. Writes its count beside the socket.
#[test]
fn a_counting_guard() {
    if let Some(socket) = playing("doors::a_counting_guard") {
        let mut guard = prepare(&socket).unwrap();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        guard.serve();
        let after = ALLOCATIONS.load(Ordering::Relaxed);
        std::fs::write(
            socket.with_extension("count"),
            format!("{} {}", before, after - before),
        )
        .unwrap();
    }
}

#[test]
fn nothing_is_allocated_after_the_start() {
    as_postgres("doors::nothing_is_allocated_after_the_start", async {
        let cluster = Cluster::new();
        let helper = Helper::run("doors::a_counting_guard", &cluster.socket);
        until(5000, "the guard listens", || {
            UnixStream::connect(&cluster.socket).is_ok()
        })
        .await;
        let (guard, _) = Guard::connect(&cluster.socket).await.unwrap();
        let mut view = guard.watch();
        let start = Start {
            env: vec![("A".into(), "b".into())],
            ..cluster.start(1, Some(20_000))
        };
        guard.start(&start).await.unwrap();
        let _load = cluster.load(10).await;
        for _ in 0..500 {
            guard.extend(1, boottime_ns() + 20_000 * MS).await.unwrap();
        }
        let _ = guard.shorten(1, boottime_ns()).await;
        exit_of(&mut view, 1, 3000).await;
        let failed = guard
            .start(&Start {
                program: "/no/such/program".into(),
                ..start.clone()
            })
            .await;
        assert!(failed.is_err());
        guard.start(&cluster.start(1, None)).await.unwrap();
        cluster.connect().await;
        let pid = guard.status().await.unwrap().pid;
        kill(pid, libc::SIGKILL);
        exit_of(&mut view, 2, 3000).await;
        let (second, _) = Guard::connect(&cluster.socket).await.unwrap();
        second.quit().await.unwrap();
        let count = cluster.socket.with_extension("count");
        until(3000, "the guard leaves", || {
            std::fs::read_to_string(&count).is_ok_and(|text| !text.is_empty())
        })
        .await;
        let text = std::fs::read_to_string(&count).unwrap();
        let (before, after) = text.split_once(' ').unwrap();
        assert!(before.parse::<u64>().unwrap() > 10, "the counter counts");
        assert_eq!(after, "0", "allocations while it guarded");
        drop(helper);
    });
}
