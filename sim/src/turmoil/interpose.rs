//! The clock and the entropy that libraries read behind our back: std's `Instant`, `SystemTime` and `RandomState`.
//!
//! On a thread that simulates, both follow the world; on every other thread they are the system's. So a run is the same bytes on
//! every machine, and runs on several threads do not disturb each other. It works because the program's own `clock_gettime` and
//! `getrandom` come before those of libc, and std calls them by name. Linux only: elsewhere a run is a function of its seed only
//! as far as no library looks at the time.
//!
//! What it is needed for (each was seen to change a trace): `RandomState` orders the `HashMap`s of libraries, hyper and h2 stamp with
//! std's clock. The random numbers of tokio are *not* reached by it, for they also count the runtimes of the process; what
//! draws from them is kept out of the worlds (an unordered `select!`, several receivers of one `watch`).
#![expect(
    unsafe_code,
    reason = "the functions replaced are C's: they take pointers, which are valid or null by their contract"
)]

use std::cell::Cell;
use std::marker::PhantomData;

use crate::clock::Time;

/// What the wall clock shows when a world begins: 2026-01-01 00:00:00 UTC.
pub const EPOCH_SECONDS: u64 = 1_767_225_600;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static NOW: Cell<Time> = const { Cell::new(0) };
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// While it lives, this thread's clock and entropy are the world's.
#[derive(Debug)]
pub struct Interposed(PhantomData<*const ()>);

impl Interposed {
    /// Begins on this thread, at time zero.
    #[must_use]
    pub fn begin(seed: u64) -> Self {
        NOW.set(0);
        STATE.set(seed);
        ON.set(true);
        Self(PhantomData)
    }
}

impl Drop for Interposed {
    fn drop(&mut self) {
        ON.set(false);
    }
}

/// The world's time, for whoever on this thread asks the system's.
pub fn set_now(now: Time) {
    NOW.set(now);
}

fn entropy() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// libc's, but for threads that simulate.
///
/// # Safety
/// `time` is null or points to a `timespec`.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    if !ON.try_with(Cell::get).unwrap_or(false) {
        // SAFETY: the caller's own arguments, to the kernel, which checks them.
        let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return if result == 0 { 0 } else { -1 };
    }
    let now = NOW.get();
    let seconds = EPOCH_SECONDS + now / 1_000_000_000;
    // SAFETY: the caller's pointer is to a `timespec` or null.
    if let Some(time) = unsafe { time.as_mut() } {
        time.tv_sec = i64::try_from(seconds).unwrap_or(i64::MAX);
        time.tv_nsec = i64::try_from(now % 1_000_000_000).unwrap_or(0);
    }
    0
}

/// libc's, but for threads that simulate.
///
/// # Safety
/// `buffer` points to `length` bytes.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: usize, flags: libc::c_uint) -> isize {
    if !ON.try_with(Cell::get).unwrap_or(false) {
        // SAFETY: the caller's own arguments, to the kernel, which checks them.
        let result = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(result).unwrap_or(-1);
    }
    // SAFETY: the caller's buffer is `length` bytes long; they need not be initialised to be written.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<std::mem::MaybeUninit<u8>>(), length) };
    for byte in bytes {
        byte.write(entropy().to_le_bytes()[0]);
    }
    isize::try_from(length).unwrap_or(-1)
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "it is the machine's own clocks that are interposed"
)]
mod tests {
    use std::hash::BuildHasher;
    use std::time::{Duration, Instant, SystemTime};

    use super::*;

    fn look() -> (u64, Duration, SystemTime) {
        std::thread::spawn(|| {
            let interposed = Interposed::begin(7);
            let begin = Instant::now();
            set_now(3_000_000_000);
            let hash = std::hash::RandomState::new().hash_one(1_u64);
            let seen = (hash, begin.elapsed(), SystemTime::now());
            drop(interposed);
            seen
        })
        .join()
        .unwrap()
    }

    #[test]
    fn time_and_chance_are_the_worlds_on_this_thread_only() {
        let (one, two) = (look(), look());
        assert_eq!(one, two);
        assert_eq!(one.1, Duration::from_secs(3));
        let real = SystemTime::now();
        assert_ne!(real, one.2);
        let moving = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(moving.elapsed() > Duration::ZERO);
    }
}
