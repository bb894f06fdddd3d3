//! The agent's own broom, for when the guard is gone.

use std::io;
use std::path::Path;

use rustix::process::Signal;

use super::procfs::{Image, Scanner, signal_if};

/// Sends SIGKILL to every process that runs `program` (the `postgres` file) in the data directory `data`: postmaster,
/// backends, orphans, stopped or not. Returns how many there were; call it until that is 0. It reads all of `/proc`,
/// so it takes some milliseconds on a busy host.
///
/// For an agent whose guard has died ([`super::Link::Gone`]), and for one that finds orphans of a former life and no
/// guard. Never while a guard lives: it does the same, and reports it.
///
/// # Errors
/// When `program`, `data` or `/proc` cannot be read.
pub fn kill_all_of(program: &Path, data: &Path) -> io::Result<u32> {
    let image = Image::of_files(program, data)?;
    let mut count = 0;
    Scanner::new()?.for_each(|found| {
        if image.matches(found.pid) {
            count += 1;
            signal_if(found.pid, Signal::KILL, |now| {
                now.start_ticks == found.start_ticks
            });
        }
    });
    Ok(count)
}
