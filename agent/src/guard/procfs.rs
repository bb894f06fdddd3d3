//! Who is whose child, read from `/proc` without allocation.
//!
//! A process is named by (pid, start time): a pid alone may have been reused. Whoever wants to signal a process found
//! here opens a pidfd, looks at `/proc` again, and signals through the pidfd ([`signal_if`]): what was looked at and
//! what is signalled are then one process.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom, openat, seek};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One line of `/proc/PID/stat`, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) ppid: i32,
    /// `R`, `S`, `D`, `T`, `Z`, …
    pub(super) state: u8,
    /// Start time in clock ticks of BOOTTIME.
    pub(super) start_ticks: u64,
}

impl Stat {
    /// A zombie runs no code any more and waits for its parent only.
    pub(super) fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// What makes a process one of *this* PostgreSQL: the same program file, working in the same data directory (every
/// PostgreSQL process stays in it). Survives the loss of the parent, and a program file that was replaced on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Image {
    program: (u64, u64),
    directory: (u64, u64),
}

impl Image {
    /// The image of a living process; `None` when it is gone, a zombie, or another user's.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Some(Self {
            program: identity(pid, "/exe")?,
            directory: identity(pid, "/cwd")?,
        })
    }

    /// Whether this process is of this image. A dying process loses its program first, then its files, then its
    /// directory; it counts until it has lost that, so that whoever is told that none is left finds no port taken.
    pub(super) fn matches(self, pid: i32) -> bool {
        identity(pid, "/cwd") == Some(self.directory)
            && identity(pid, "/exe").is_none_or(|program| program == self.program)
    }

    /// The image that a PostgreSQL of this program and data directory has.
    pub(super) fn of_files(program: &std::path::Path, directory: &std::path::Path) -> std::io::Result<Self> {
        let id = |path| rustix::fs::stat(path).map(|found| (found.st_dev, found.st_ino));
        Ok(Self {
            program: id(program)?,
            directory: id(directory)?,
        })
    }
}

fn identity(pid: i32, what: &str) -> Option<(u64, u64)> {
    let found = rustix::fs::stat(ProcPath::new(pid, what).as_c_str()).ok()?;
    Some((found.st_dev, found.st_ino))
}

/// `/proc/PID/what`, in place.
pub(super) struct ProcPath {
    bytes: [u8; 64],
}

impl ProcPath {
    pub(super) fn new(pid: i32, what: &str) -> Self {
        let mut path = Self { bytes: [0; 64] };
        let mut at = 0;
        let mut put = |part: &[u8]| {
            path.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(b"/proc/");
        let mut digits = [0; 12];
        put(decimal(u64::from(pid.unsigned_abs()), &mut digits));
        put(what.as_bytes());
        path
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).expect("the longest path here has 40 bytes")
    }
}

/// `value` in decimal, written into the end of `buffer`; 20 digits are the longest.
pub(super) fn decimal<const N: usize>(mut value: u64, buffer: &mut [u8; N]) -> &[u8] {
    let mut at = N;
    loop {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(value % 10).expect("a digit is below ten");
        value /= 10;
        if value == 0 || at == 0 {
            return &buffer[at..];
        }
    }
}

/// Reads `/proc/PID/stat`.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let file = open(ProcPath::new(pid, "/stat").as_c_str())?;
    let mut buffer = [0_u8; 1024];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    parse_stat(pid, &buffer[..length])
}

fn parse_stat(pid: i32, line: &[u8]) -> Option<Stat> {
    // The name in parentheses may itself hold spaces and parentheses; what follows it does not.
    let name_end = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = line.get(name_end + 2..)?.split(|&byte| byte == b' ');
    let state = *fields.next()?.first()?;
    let ppid = number(fields.next()?)?;
    // Fields 5 to 21 lie between the parent's pid and the start time, field 22.
    let start_ticks = number(fields.nth(17)?)?;
    Some(Stat {
        pid,
        ppid: i32::try_from(ppid).ok()?,
        state,
        start_ticks,
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.trim_end().parse().ok()
}

fn open(path: &CStr) -> Option<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Whether `root` is among the ancestors of `process`.
pub(super) fn descends_from(process: Stat, root: i32) -> bool {
    let mut parent = process.ppid;
    // Deeper than any honest tree; a bound because pids may be reused while we climb.
    for _ in 0..64 {
        if parent == root {
            return true;
        }
        if parent <= 1 {
            return false;
        }
        match stat(parent) {
            Some(found) => parent = found.ppid,
            None => return false,
        }
    }
    false
}

/// Opens a pidfd for `pid`, asks `still` about the process it then names, and signals it.
/// `false`: gone, no match, a zombie, or not ours to signal.
pub(super) fn signal_if(pid: i32, signal: Signal, still: impl FnOnce(Stat) -> bool) -> bool {
    let Some(name) = Pid::from_raw(pid) else {
        return false;
    };
    let Ok(pidfd) = pidfd_open(name, PidfdFlags::empty()) else {
        return false;
    };
    match stat(pid) {
        Some(now) if !now.is_dead() && still(now) => pidfd_send_signal(&pidfd, signal).is_ok(),
        _ => false,
    }
}

/// Calls `visit` for each child of the *main thread* of `pid` (`None`: of the calling thread). One `read` per page of
/// pids: fast even on a host with many processes. It may miss a child while others exit, and kernels may be built
/// without it, so it is never the last word.
pub(super) fn for_each_child(pid: Option<i32>, mut visit: impl FnMut(i32)) {
    let file = match pid {
        None => open(c"/proc/thread-self/children"),
        Some(pid) => {
            let mut digits = [0; 12];
            let mut what = [0_u8; 32];
            let digits = decimal(u64::from(pid.unsigned_abs()), &mut digits);
            what[..6].copy_from_slice(b"/task/");
            what[6..6 + digits.len()].copy_from_slice(digits);
            let end = 6 + digits.len() + 9;
            what[end - 9..end].copy_from_slice(b"/children");
            let what = std::str::from_utf8(&what[..end]).expect("written as ASCII above");
            open(ProcPath::new(pid, what).as_c_str())
        }
    };
    let Some(file) = file else {
        return;
    };
    let mut buffer = [0_u8; 4096];
    let mut current = 0_i32;
    while let Ok(length @ 1..) = rustix::io::read(&file, &mut buffer) {
        for &byte in &buffer[..length] {
            if byte.is_ascii_digit() {
                current = current.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
            } else if current > 0 {
                visit(current);
                current = 0;
            }
        }
    }
    if current > 0 {
        visit(current);
    }
}

/// The processes of the host, through a descriptor of `/proc` and a buffer that are there from the start.
pub(super) struct Scanner {
    proc: OwnedFd,
    buffer: Box<[MaybeUninit<u8>]>,
    found: Box<[(i32, u64)]>,
}

impl Scanner {
    /// Bytes for one batch of directory entries: about 1,000 of them.
    const BUFFER: usize = 32 * 1024;
    /// Processes in one list; those beyond it are in the next one, when these are dead.
    const LIST: usize = 8 * 1024;

    pub(super) fn new() -> rustix::io::Result<Self> {
        let proc = openat(
            CWD,
            c"/proc",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // Filled, because only pages that were written to are there to be locked.
        let buffer = vec![MaybeUninit::new(0xff); Self::BUFFER].into_boxed_slice();
        Ok(Self {
            proc,
            buffer,
            found: vec![(-1, 0); Self::LIST].into_boxed_slice(),
        })
    }

    /// The processes that `want` picks, as (pid, start time).
    pub(super) fn collect(&mut self, want: impl Fn(Stat) -> bool) -> &[(i32, u64)] {
        let mut list = std::mem::take(&mut self.found);
        let mut count = 0;
        self.for_each(|found| {
            if count < list.len() && want(found) {
                list[count] = (found.pid, found.start_ticks);
                count += 1;
            }
        });
        self.found = list;
        &self.found[..count]
    }

    /// Calls `visit` for every process of the host that is not dead.
    pub(super) fn for_each(&mut self, mut visit: impl FnMut(Stat)) {
        let proc: BorrowedFd<'_> = rustix::fd::AsFd::as_fd(&self.proc);
        if seek(proc, SeekFrom::Start(0)).is_err() {
            return;
        }
        let mut entries = RawDir::new(proc, &mut self.buffer);
        while let Some(Ok(entry)) = entries.next() {
            let Some(pid) = number(entry.file_name().to_bytes()).and_then(|pid| i32::try_from(pid).ok())
            else {
                continue;
            };
            if let Some(found) = stat(pid).filter(|found| !found.is_dead()) {
                visit(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_this_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let found = stat(pid).unwrap();
        assert_eq!(found.pid, pid);
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert_eq!(found.ppid, parent);
        assert!(!found.is_dead());
        assert!(descends_from(found, parent));
        assert!(!descends_from(found, pid));
    }

    #[test]
    fn a_name_full_of_parentheses_is_no_trap() {
        let line = b"7 (a) S 1 (b) Z) D 42 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1 1\n";
        let found = parse_stat(7, line).unwrap();
        assert_eq!(
            found,
            Stat {
                pid: 7,
                ppid: 42,
                state: b'D',
                start_ticks: 987_654
            }
        );
    }

    #[test]
    fn decimals() {
        let mut digits = [0; 20];
        assert_eq!(decimal(0, &mut digits), b"0");
        assert_eq!(decimal(u64::MAX, &mut digits), b"18446744073709551615");
        assert_eq!(ProcPath::new(31, "/exe").as_c_str(), c"/proc/31/exe");
    }

    #[test]
    fn children_are_found_both_ways() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut by_scan = false;
        Scanner::new()
            .unwrap()
            .for_each(|found| by_scan |= found.pid == pid);
        assert!(by_scan);
        let mut by_list = false;
        for_each_child(None, |found| by_list |= found == pid);
        let has_lists = std::path::Path::new("/proc/thread-self/children").exists();
        assert_eq!(by_list, has_lists);
        assert!(!signal_if(pid, Signal::KILL, |found| found.ppid == 1));
        assert!(signal_if(pid, Signal::KILL, |found| found.ppid != 1));
        child.wait().unwrap();
    }
}
