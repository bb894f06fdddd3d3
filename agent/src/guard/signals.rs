//! Signals as readable events, through a signalfd.
#![expect(unsafe_code, reason = "rustix has no signalfd and no signal masks")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

/// The signals the guard lives by, blocked and readable from a descriptor.
pub(super) struct Signals {
    fd: OwnedFd,
}

/// SIGHUP is taken and ignored: no terminal's end shall end the guard.
const TAKEN: [i32; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

impl Signals {
    /// Blocks the signals and opens the descriptor.
    pub(super) fn take() -> io::Result<Self> {
        // SAFETY: `set` is initialised by `sigemptyset` before it is used, and the new descriptor has no other owner.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in TAKEN {
                libc::sigaddset(&raw mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self {
                fd: OwnedFd::from_raw_fd(fd),
            })
        }
    }

    /// Takes all that came; whether the guard was told to go.
    pub(super) fn drain(&self) -> bool {
        const RECORD: usize = size_of::<libc::signalfd_siginfo>();
        let mut records = [0_u8; RECORD * 8];
        let mut told_to_go = false;
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut records) {
            for record in records[..length].chunks_exact(RECORD) {
                // The signal's number is the first field of the record.
                let number = record
                    .first_chunk()
                    .map_or(0, |number| u32::from_ne_bytes(*number));
                told_to_go |= [libc::SIGTERM, libc::SIGINT]
                    .iter()
                    .any(|&go| u32::try_from(go) == Ok(number));
            }
        }
        told_to_go
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
