//! The postmaster under guard, and how it and everything that belongs to it is brought to an end.
//!
//! Two cases, because the kernel treats them differently:
//!
//! *A child of the guard.* SIGKILL goes to the postmaster first. From the moment that call returns it cannot fork any
//! more (a fork that has not finished fails when a fatal signal is pending), and when it dies its children become the
//! guard's, who is a child subreaper; so do, one generation after the other, theirs. So: kill all that can be seen,
//! reap, repeat, until `wait` says that there is no child left. That answer is the kernel's and cannot be wrong: no
//! process can leave the tree of a subreaper by forking.
//!
//! *An adopted postmaster.* Its orphans would go to init and be lost, so it must die last: SIGSTOP to it and to every
//! process of it, so that the tree holds still; then a list of all of them, and SIGKILL to the whole list; and to the
//! postmaster when all of them are zombies. Processes of it are its descendants, and, should it have died before,
//! whatever runs the same program in the same data directory.
//!
//! Either way the end is only reported when the last process has ended. A process in an uninterruptible wait (a disk
//! that hangs) ends when the disk answers; the SIGKILL that it has is delivered before it can run any code of its own.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};

use super::procfs::{Image, Scanner, Stat, descends_from, for_each_child, signal_if, stat};
use super::protocol::{Exit, ExitStatus, KillReason, Phase};
use super::spawn::Launched;
use super::time::boottime_ns;

/// Rounds after which an adopted postmaster is killed even though a process of it still shows no sign of dying: half a
/// second, in which only an uninterruptible wait can hold a process that has a SIGKILL.
const PATIENCE: u32 = 250;

/// See the module.
pub(super) struct Ward {
    pid: i32,
    pidfd: OwnedFd,
    start_ticks: u64,
    since_ns: u64,
    adopted: bool,
    /// What its processes look like; unknown until the program runs.
    image: Option<Image>,
    /// The pipe that tells whether `execve` went well.
    progress: Option<OwnedFd>,
    phase: Phase,
    /// Whether what is left is killed only if it is PostgreSQL (after a clean end), or whatever it is.
    only_image: bool,
    ended: Option<ExitStatus>,
    killed: KillReason,
    survivors_killed: u32,
    began_ns: u64,
    rounds: u32,
}

/// What came through the pipe of a start.
pub(super) enum Progress {
    /// Nothing yet.
    Pending,
    /// The program runs.
    Running,
    /// It does not; the child has ended.
    Failed([u8; super::spawn::FAILURE_LEN]),
}

impl Ward {
    /// Takes over a child that was just forked.
    pub(super) fn started(launched: Launched) -> rustix::io::Result<Self> {
        let Launched { pid, progress } = launched;
        let mut ward = Self::new(pid, stat(pid).map_or(0, |found| found.start_ticks), false)?;
        ward.progress = Some(progress);
        ward.phase = Phase::Starting;
        Ok(ward)
    }

    /// Takes over a postmaster that is not the guard's child. `start_ticks` 0 stands for any.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process, `EPERM` when the guard may not signal it.
    pub(super) fn adopt(pid: i32, start_ticks: u64) -> rustix::io::Result<Self> {
        let ward = Self::new(pid, start_ticks, true)?;
        let found = stat(pid)
            .filter(|found| !found.is_dead())
            .ok_or(rustix::io::Errno::SRCH)?;
        if start_ticks != 0 && found.start_ticks != start_ticks {
            return Err(rustix::io::Errno::SRCH);
        }
        // Without an image nothing could be found after the postmaster's own death. It is unreadable for processes of
        // other users, which could not be signalled either.
        let image = Image::of(pid).ok_or(rustix::io::Errno::PERM)?;
        Ok(Self {
            image: Some(image),
            start_ticks: found.start_ticks,
            ..ward
        })
    }

    fn new(pid: i32, start_ticks: u64, adopted: bool) -> rustix::io::Result<Self> {
        let name = Pid::from_raw(pid)
            .filter(|_| pid > 1)
            .ok_or(rustix::io::Errno::SRCH)?;
        Ok(Self {
            pid,
            pidfd: pidfd_open(name, PidfdFlags::empty())?,
            start_ticks,
            since_ns: boottime_ns(),
            adopted,
            image: None,
            progress: None,
            phase: Phase::Running,
            only_image: false,
            ended: None,
            killed: KillReason::None,
            survivors_killed: 0,
            began_ns: 0,
            rounds: 0,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    pub(super) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.adopted
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it lives as far as is known, and is not being killed.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// What the loop must wake for: the start's pipe, and the postmaster's end (for a child SIGCHLD says it, too).
    pub(super) fn wake_on(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let end = self.ended.is_none().then(|| self.pidfd.as_fd());
        [self.progress.as_ref().map(AsFd::as_fd), end]
    }

    /// Looks at the pipe of a start.
    pub(super) fn progress(&mut self) -> Progress {
        let Some(pipe) = &self.progress else {
            return Progress::Pending;
        };
        let mut message = [0; super::spawn::FAILURE_LEN];
        let result = match rustix::io::read(pipe, &mut message) {
            Err(_) => return Progress::Pending,
            Ok(super::spawn::FAILURE_LEN) => Progress::Failed(message),
            Ok(_) => Progress::Running,
        };
        self.progress = None;
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
        }
        self.look();
        result
    }

    /// Notes what the postmaster looks like, while it can be seen. Again and again, because a start script may replace
    /// itself by PostgreSQL at any time after its own start.
    pub(super) fn look(&mut self) {
        if self.is_up()
            && let Some(image) = Image::of(self.pid)
        {
            self.image = Some(image);
        }
    }

    /// Sends the postmaster a signal.
    pub(super) fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        pidfd_send_signal(&self.pidfd, signal)
    }

    /// Begins to kill everything; there is no way back from it. The first signal is sent before this returns.
    pub(super) fn kill(&mut self, reason: KillReason) {
        if self.phase == Phase::Killing {
            return;
        }
        let _ = self.signal(if self.adopted { Signal::STOP } else { Signal::KILL });
        if self.phase != Phase::Draining {
            self.began_ns = boottime_ns();
            self.killed = reason;
        }
        self.phase = Phase::Killing;
        self.only_image = false;
        self.rounds = 0;
    }

    /// Collects dead children of the guard, and the news of an adopted postmaster's end. Whether a child is left.
    pub(super) fn reap(ward: &mut Option<Self>) -> bool {
        let left = loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some(ward) = ward {
                        ward.note_death(pid.as_raw_nonzero().get(), ExitStatus::from_wait(status.as_raw()));
                    }
                }
                Ok(None) => break true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break false,
            }
        };
        if let Some(ward) = ward
            && ward.adopted
            && ward.ended.is_none()
            && has_ended(&ward.pidfd)
        {
            ward.note_death(ward.pid, ExitStatus::Unknown);
        }
        left
    }

    fn note_death(&mut self, pid: i32, status: ExitStatus) {
        if pid != self.pid {
            let by_us = self.phase == Phase::Killing || self.phase == Phase::Draining;
            if !self.adopted && by_us && status == ExitStatus::Signal(Signal::KILL.as_raw()) {
                self.survivors_killed += 1;
            }
            return;
        }
        self.ended.get_or_insert(status);
        if self.is_up() {
            self.began_ns = boottime_ns();
            self.phase = Phase::Draining;
            // A postmaster that ends by itself and in order has waited for all its children. What hangs on the guard
            // then is no backend but, for instance, an archiving helper that made itself a daemon, and may finish.
            self.only_image = self.image.is_some() && (self.adopted || status == ExitStatus::Code(0));
        }
    }

    /// Kills what there is to kill. `children`: whether the guard has any child left. The end, once nothing is left.
    pub(super) fn round(&mut self, scanner: &mut Scanner, children: bool) -> Option<Exit> {
        if self.is_up() {
            return None;
        }
        let first = self.rounds == 0;
        self.rounds = self.rounds.saturating_add(1);
        let left = if self.adopted {
            self.round_adopted(scanner, first)
        } else if self.only_image {
            self.kill_images(scanner) > 0
        } else {
            if children {
                self.round_child(scanner, first);
            }
            children
        };
        if left {
            return None;
        }
        self.ended.map(|status| Exit {
            pid: self.pid,
            status,
            killed: self.killed,
            survivors_killed: self.survivors_killed,
            began_ns: self.began_ns,
            gone_ns: boottime_ns(),
        })
    }

    /// How long the loop may sleep before the next round, in nanoseconds. Deaths of children wake it before that.
    pub(super) fn pause_ns(&self) -> Option<u64> {
        match (self.is_up(), self.rounds) {
            (true, _) => None,
            (_, 0..PATIENCE) => Some(2_000_000),
            _ => Some(50_000_000),
        }
    }

    fn round_child(&self, scanner: &mut Scanner, first: bool) {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let pid = self.pid;
        if self.ended.is_none() {
            let _ = self.signal(Signal::KILL);
        }
        // Its children right away, not only when they have become ours: a postmaster that a hanging disk keeps from
        // dying keeps its backends, too.
        for_each_child(Some(pid), |child| {
            signal_if(child, Signal::KILL, |now| now.ppid == pid || now.ppid == me);
        });
        for_each_child(None, |child| {
            signal_if(child, Signal::KILL, |now| now.ppid == me);
        });
        // The lists are quick, and complete as a rule; what they left out is found the slow way from the second round.
        if !first {
            scanner.for_each(|found| {
                if descends_from(found, me) {
                    signal_if(found.pid, Signal::KILL, |now| {
                        now.start_ticks == found.start_ticks
                    });
                }
            });
        }
    }

    /// Kills orphans that are PostgreSQL, and returns how many there were.
    fn kill_images(&self, scanner: &mut Scanner) -> u32 {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let mut count = 0;
        scanner.for_each(|found| {
            if descends_from(found, me) && self.looks_like_it(found) {
                count += 1;
                signal_if(found.pid, Signal::KILL, |now| {
                    now.start_ticks == found.start_ticks
                });
            }
        });
        count
    }

    fn looks_like_it(&self, found: Stat) -> bool {
        self.image.is_some_and(|image| image.matches(found.pid))
    }

    fn round_adopted(&mut self, scanner: &mut Scanner, first: bool) -> bool {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let pid = self.pid;
        let is_ours = |found: Stat| {
            // The image first: it costs two system calls, the ancestors three for each of them.
            found.pid != pid && found.pid != me && (self.looks_like_it(found) || descends_from(found, pid))
        };
        if first {
            scanner.for_each(|found| {
                if is_ours(found) {
                    signal_if(found.pid, Signal::STOP, |now| {
                        now.start_ticks == found.start_ticks
                    });
                }
            });
        }
        // All are found before the first of them dies: a shell that dies takes its children's ancestry with it.
        let left = scanner.collect(is_ours);
        for &(pid, start_ticks) in left {
            signal_if(pid, Signal::KILL, |now| now.start_ticks == start_ticks);
        }
        let left = u32::try_from(left.len()).unwrap_or(u32::MAX);
        self.survivors_killed = self.survivors_killed.max(left);
        if self.ended.is_none() && (left == 0 || self.rounds > PATIENCE) {
            let _ = self.signal(Signal::KILL);
        }
        left > 0 || self.ended.is_none()
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}
