//! `surus guard`: from a command line to a [`Process`] that serves.
//!
//! The caller's child only makes sure that the guard is ready, or says why it cannot be, and exits; the guard is its
//! child, in a session of its own, without any descriptor of the agent. So the agent has no zombie to reap, and dies
//! without the guard noticing anything but the end of a connection.
#![expect(unsafe_code, reason = "fork, and resource limits")]

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::pipe::{PipeFlags, pipe_with};

use super::process::Process;
use super::signals::Signals;
use super::socket::{Place, SocketError};
use super::spawn::{Launcher, OomScore};
use crate::chain::chain;

/// Exit code of a guard whose place is taken: an agent that finds it should connect again.
pub(super) const TAKEN: u8 = 3;

/// What the guard is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardArgs {
    /// Where to listen.
    pub socket: PathBuf,
    /// Stay the caller's child and keep its standard streams.
    pub foreground: bool,
}

/// Why a guard does not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command line is wrong.
    #[error("usage: surus guard --socket PATH [--foreground]; the agent starts its guard itself")]
    Usage,
    /// The socket or its lock cannot be had.
    #[error("the guard cannot take its place")]
    Socket(#[from] SocketError),
    /// A system call that every guard needs failed.
    #[error("the guard cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl GuardArgs {
    /// Reads the arguments after `surus guard`.
    ///
    /// # Errors
    /// When there is no `--socket PATH`, or something else.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, StartError> {
        let (mut socket, mut foreground) = (None, false);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--socket") => socket = args.next(),
                Some("--foreground") => foreground = true,
                _ => return Err(StartError::Usage),
            }
        }
        let socket = socket.map(PathBuf::from).ok_or(StartError::Usage)?;
        // The daemon's directory is `/`.
        let socket = std::path::absolute(socket).map_err(|_| StartError::Usage)?;
        Ok(Self { socket, foreground })
    }
}

/// Takes everything a guard needs. Call it in a process with one thread: it blocks signals, becomes a child subreaper,
/// and the postmaster's life will hang on the calling thread.
///
/// # Errors
/// When the place is taken or the system refuses something indispensable. Memory that cannot be locked and an OOM
/// score that cannot be lowered are not: the status tells of the first.
pub fn prepare(socket: &Path) -> Result<Process, StartError> {
    let system = |what| move |source: io::Error| StartError::System { what, source };
    let place = Place::take(socket)?;
    let signals = Signals::take().map_err(system("take its signals"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| system("become a child subreaper")(errno.into()))?;
    let (memlock, memory_locked) = lock_memory();
    touch_stack();
    let launcher = Launcher::new(OomScore::lower(), memlock);
    Process::new(place, signals, launcher, memory_locked)
        .map_err(|errno| system("open /proc and its timer")(errno.into()))
}

/// Locks memory as it comes into use (`ONFAULT`): locking the whole file of a program that is an agent too would cost
/// megabytes nobody touches. The limit as it was, and whether it worked.
fn lock_memory() -> (libc::rlimit, bool) {
    let mut before = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: plain system calls on a local structure.
    unsafe {
        libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut before);
        let raised = libc::rlimit {
            rlim_cur: before.rlim_max,
            ..before
        };
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const raised);
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    (before, mlockall(flags).is_ok())
}

/// Brings the stack's pages into memory that the guard will need later.
#[inline(never)]
fn touch_stack() {
    let pages = std::hint::black_box([1_u8; 128 * 1024]);
    std::hint::black_box(&pages);
}

/// The whole life of `surus guard`; `args` are those after the word `guard`. Must be called while the process has one
/// thread, so before any runtime is built.
pub fn guard_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let result = GuardArgs::parse(args).and_then(|args| {
        if args.foreground {
            prepare(&args.socket)?.serve();
            return Ok(ExitCode::SUCCESS);
        }
        daemonize(&args)
    });
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "{}", chain(&error));
        exit_code(&error)
    })
}

/// Runs the guard if the process was started as one: the one line `main` needs.
#[must_use]
pub fn run_if_guard() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == "guard").then(|| guard_main(args))
}

fn exit_code(error: &StartError) -> ExitCode {
    match error {
        StartError::Socket(SocketError::Taken { .. }) => TAKEN.into(),
        _ => ExitCode::FAILURE,
    }
}

fn daemonize(args: &GuardArgs) -> Result<ExitCode, StartError> {
    let system = |what| {
        move |errno: rustix::io::Errno| StartError::System {
            what,
            source: errno.into(),
        }
    };
    // Nothing of the agent's may live on in the guard, least of all a listening socket. Older kernels than 5.9 lack the
    // call; all descriptors of the agent itself are CLOEXEC anyway.
    // SAFETY: nothing in this process owns a descriptor above 2 yet.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_int::MAX, 0);
    }
    let (news, report) = pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"))?;
    // SAFETY: one thread, by this function's contract; the child is a whole copy of the process.
    match unsafe { libc::fork() } {
        -1 => Err(StartError::System {
            what: "make its process",
            source: io::Error::last_os_error(),
        }),
        0 => {
            drop(news);
            Ok(be_daemon(args, report))
        }
        _ => {
            drop(report);
            let mut text = Vec::new();
            let _ = std::fs::File::from(news).read_to_end(&mut text);
            match text.split_first() {
                Some((0, _)) => Ok(ExitCode::SUCCESS),
                Some((&code, message)) => {
                    let _ = writeln!(io::stderr(), "{}", String::from_utf8_lossy(message));
                    Ok(code.into())
                }
                None => {
                    let _ = writeln!(io::stderr(), "the guard ended before it was ready");
                    Ok(ExitCode::FAILURE)
                }
            }
        }
    }
}

/// The guard's process. Its last words go through `report`: a code, and a message unless it is 0.
fn be_daemon(args: &GuardArgs, report: OwnedFd) -> ExitCode {
    let mut report = std::fs::File::from(report);
    let _ = rustix::process::setsid();
    match prepare(&args.socket).and_then(|process| detach().map(|()| process)) {
        Ok(mut process) => {
            let _ = report.write_all(&[0]);
            drop(report);
            process.serve();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let taken = matches!(error, StartError::Socket(SocketError::Taken { .. }));
            let _ = report.write_all(&[if taken { TAKEN } else { 1 }]);
            let _ = report.write_all(chain(&error).as_bytes());
            exit_code(&error)
        }
    }
}

/// Lets go of the caller's directory and streams. What the guard has to say it says through its socket: a log on a disk
/// that hangs, or a pipe that nobody reads, must not be able to hold it.
fn detach() -> Result<(), StartError> {
    let detach = || {
        rustix::process::chdir(c"/")?;
        let null = rustix::fs::open(c"/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
        rustix::stdio::dup2_stdin(null.as_fd())?;
        rustix::stdio::dup2_stdout(null.as_fd())?;
        rustix::stdio::dup2_stderr(null.as_fd())
    };
    detach().map_err(|errno: rustix::io::Errno| StartError::System {
        what: "detach from its caller",
        source: errno.into(),
    })
}
