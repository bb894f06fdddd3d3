//! From the guard to a running postmaster: `fork`, what lies between, `execve`.
//!
//! Everything `execve` needs is laid out before the fork, in room that was there from the start; between fork and exec
//! the child makes system calls only. Failures come back through a pipe that a successful `execve` closes, so the
//! guard's loop never waits for a slow disk: a child that hangs while it opens its log file is just a child.
#![expect(unsafe_code, reason = "fork and execve, and the raw pointers they take")]

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};

use super::protocol::{Stage, Strings};

/// Most arguments, and most environment variables, that a start can have.
const MAX_STRINGS: usize = 2048;

/// Length of a failure message in the pipe: stage and errno.
pub(super) const FAILURE_LEN: usize = 8;

/// The room for `execve`'s two lists, and what the child has to put back as the guard found it.
pub(super) struct Launcher {
    argv: Box<[*const c_char]>,
    envp: Box<[*const c_char]>,
    oom_score: OomScore,
    memlock: libc::rlimit,
}

/// `/proc/self/oom_score_adj` as the guard inherited it. A postmaster gets this value back: it may be what a unit file
/// set for it on purpose, together with `PG_OOM_ADJUST_FILE`, by which PostgreSQL makes its backends killable again.
pub(super) struct OomScore {
    bytes: [u8; 16],
    length: usize,
}

impl OomScore {
    const FILE: &CStr = c"/proc/self/oom_score_adj";

    /// Reads the inherited value, and lowers the guard's own where the kernel permits it (`CAP_SYS_RESOURCE`).
    pub(super) fn lower() -> Self {
        let mut inherited = Self {
            bytes: [0; 16],
            length: 0,
        };
        if let Ok(text) = std::fs::read("/proc/self/oom_score_adj")
            && text.len() <= inherited.bytes.len()
        {
            inherited.bytes[..text.len()].copy_from_slice(&text);
            inherited.length = text.len();
        }
        // Being the cheaper victim costs only the guard's PostgreSQL an immediate stop: worth trying, not worth failing.
        let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
        inherited
    }
}

/// A child on its way to `execve`.
pub(super) struct Launched {
    pub(super) pid: i32,
    /// Ends without a byte when the program runs, or yields a failure message.
    pub(super) progress: OwnedFd,
}

/// A failure message as the child sent it.
pub(super) fn failure(message: [u8; FAILURE_LEN]) -> (Stage, i32) {
    let [a, b, c, d, e, f, g, h] = message;
    let stage = u16::try_from(i32::from_le_bytes([a, b, c, d])).unwrap_or(0);
    let stage = Stage::from_wire(stage).unwrap_or(Stage::None);
    (stage, i32::from_le_bytes([e, f, g, h]))
}

impl Launcher {
    pub(super) fn new(oom_score: OomScore, memlock: libc::rlimit) -> Self {
        let room = || vec![ptr::null(); MAX_STRINGS + 1].into_boxed_slice();
        Self {
            argv: room(),
            envp: room(),
            oom_score,
            memlock,
        }
    }

    /// Starts a program as the guard's child. The deadline must be armed before this is called.
    ///
    /// # Errors
    /// When the process cannot be made. Later failures come through [`Launched::progress`].
    pub(super) fn launch(
        &mut self,
        argv: Strings<'_>,
        env: Strings<'_>,
        cwd: &CStr,
        log: &CStr,
    ) -> Result<Launched, (Stage, i32)> {
        let too_many = (Stage::TooMany, libc::E2BIG);
        let mut count = 0;
        for argument in argv.iter() {
            *self
                .argv
                .get_mut(count)
                .filter(|_| count < MAX_STRINGS)
                .ok_or(too_many)? = argument.as_ptr();
            count += 1;
        }
        self.argv[count] = ptr::null();
        self.merge_environment(env).ok_or(too_many)?;

        let io_failure = |error: io::Error| (Stage::Fork, error.raw_os_error().unwrap_or(libc::EIO));
        let (progress, report) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| io_failure(error.into()))?;
        // SAFETY: the guard has one thread, so the child owns a whole and consistent copy of the process; it calls only
        // system calls and ends in `execve` or `_exit`.
        let guard = unsafe { libc::getpid() };
        // SAFETY: as above.
        match unsafe { libc::fork() } {
            -1 => Err(io_failure(io::Error::last_os_error())),
            0 => {
                let (stage, errno) = self.become_program(guard, cwd, log);
                let mut message = [0_u8; FAILURE_LEN];
                message[..4].copy_from_slice(&i32::from(stage as u16).to_le_bytes());
                message[4..].copy_from_slice(&errno.to_le_bytes());
                // SAFETY: plain system calls on a descriptor and a buffer that live until `_exit`.
                unsafe {
                    libc::write(report.as_raw_fd(), message.as_ptr().cast(), message.len());
                    libc::_exit(127)
                }
            }
            pid => Ok(Launched { pid, progress }),
        }
    }

    /// The guard's own environment, overlaid with `extra`, as pointers. `None` when there are too many variables.
    fn merge_environment(&mut self, extra: Strings<'_>) -> Option<()> {
        unsafe extern "C" {
            static environ: *const *const c_char;
        }
        let mut count = 0;
        // SAFETY: one thread, and nothing in the guard changes the environment: the array and its strings are valid
        // and end with a null pointer.
        let mut inherited = unsafe { environ };
        while !inherited.is_null() {
            // SAFETY: as above, and not beyond the null pointer.
            let pointer = unsafe { *inherited };
            if pointer.is_null() {
                break;
            }
            // SAFETY: as above.
            let variable = unsafe { CStr::from_ptr(pointer) };
            if !extra.iter().any(|other| name_of(other) == name_of(variable)) {
                *self.envp.get_mut(count).filter(|_| count < MAX_STRINGS)? = pointer;
                count += 1;
            }
            // SAFETY: not at the null pointer yet.
            inherited = unsafe { inherited.add(1) };
        }
        for variable in extra.iter() {
            *self.envp.get_mut(count).filter(|_| count < MAX_STRINGS)? = variable.as_ptr();
            count += 1;
        }
        self.envp[count] = ptr::null();
        Some(())
    }

    /// The child's side. Returns only when something failed.
    fn become_program(&self, guard: i32, cwd: &CStr, log: &CStr) -> (Stage, i32) {
        let failed = |stage: Stage| (stage, io::Error::last_os_error().raw_os_error().unwrap_or(0));
        // SAFETY: system calls with constants, with descriptors of this process, and with strings and lists that the
        // caller keeps alive; no memory is allocated and no lock is taken.
        unsafe {
            // SIGQUIT, not SIGKILL: the postmaster then ends its backends itself, at once and without a checkpoint, and
            // kills after five seconds those that do not go. A killed postmaster could not: its backends would notice
            // only when they next wait for their client, and one that is busy would still acknowledge its commit.
            // SIGINT and SIGTERM wait, for a checkpoint or for clients.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT) != 0 {
                return failed(Stage::Detach);
            }
            // The signal is sent when the parent dies, not when it is dead already. A guard killed between the fork and
            // this line has left us to somebody else, and the signal would never come.
            if libc::getppid() != guard {
                libc::_exit(127);
            }
            // A session of its own: no terminal of an operator who started the agent by hand reaches PostgreSQL.
            if libc::setsid() == -1 {
                return failed(Stage::Detach);
            }
            reset_signals();
            self.restore_limits();
            if libc::chdir(cwd.as_ptr()) != 0 {
                return failed(Stage::Directory);
            }
            if let Err(stage) = redirect(log) {
                return failed(stage);
            }
            // Everything the guard opens is CLOEXEC already; this covers what it inherited. Not on kernels before 5.11,
            // where the call fails and changes nothing.
            libc::syscall(libc::SYS_close_range, 3, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC);
            unblock_signals();
            libc::execve(self.argv[0], self.argv.as_ptr(), self.envp.as_ptr());
            failed(Stage::Exec)
        }
    }

    fn restore_limits(&self) {
        // SAFETY: system calls with a constant path and buffers of this object. Failing to restore either is no reason
        // not to start PostgreSQL.
        unsafe {
            let file = libc::open(OomScore::FILE.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file >= 0 {
                libc::write(file, self.oom_score.bytes.as_ptr().cast(), self.oom_score.length);
                libc::close(file);
            }
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const self.memlock);
        }
    }
}

/// The name in `NAME=value`.
fn name_of(variable: &CStr) -> &[u8] {
    let text = variable.to_bytes();
    text.iter()
        .position(|&byte| byte == b'=')
        .map_or(text, |end| &text[..end])
}

/// Standard input from nowhere, standard output and error to the end of `log` (empty: to nowhere).
fn redirect(log: &CStr) -> Result<(), Stage> {
    // SAFETY: system calls with constant or caller's strings, and descriptors just opened.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if null < 0 {
            return Err(Stage::Log);
        }
        let mut output = null;
        if !log.is_empty() {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC | libc::O_NOCTTY;
            output = libc::open(log.as_ptr(), flags, 0o600);
            if output < 0 {
                return Err(Stage::Log);
            }
        }
        if libc::dup2(null, 0) < 0 || libc::dup2(output, 1) < 0 || libc::dup2(output, 2) < 0 {
            return Err(Stage::Log);
        }
    }
    Ok(())
}

/// Every signal back to its default: Rust's runtime ignores SIGPIPE, and ignored signals survive `execve`.
fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. It fails for SIGKILL, SIGSTOP and libc's own, which need nothing.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// An empty mask: the guard blocks what it reads from its signalfd, and masks survive `execve`.
fn unblock_signals() {
    // SAFETY: `set` is initialised by `sigemptyset` before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Kills and reaps a child that cannot be guarded.
pub(super) fn abandon(pid: i32) {
    // SAFETY: an unreaped child of this process, so the pid is its own; the wait ends because SIGKILL does.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, ptr::null_mut(), 0);
    }
}
