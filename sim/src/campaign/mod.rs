//! Many runs: worker threads around whole runs, what they add up to, and where failures are kept.
//!
//! - [`sweep`]: runs a range of seeds, and hands out the results in the order of the seeds
//! - [`Tally`]: what many runs add up to
//! - [`Bugs`]: the folder with a directory for each failure, and how far a sweep has come
//!
//! A run knows nothing of threads: each worker takes the next seed, runs it from beginning to end, and sends what came of it.

mod bugs;
mod tally;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::record::Keep;
use crate::run::{Job, Outcome};

pub use bugs::{Bugs, CASE, Kept, Progress};
pub use tally::Tally;

/// A run that ended.
#[derive(Debug)]
pub struct Run {
    /// What was run.
    pub job: Job,
    /// How it ended.
    pub outcome: Outcome,
}

/// Runs the seeds on so many threads. `each` hears of every run, in the order of the seeds whichever was done first, and says whether
/// to go on. Once `stop` is set no further run begins, and those under way are finished and told.
///
/// The result is the first seed that `each` has not heard of: everything before it is done, nothing from it on.
pub fn sweep(
    seeds: Range<u64>,
    threads: usize,
    stop: &AtomicBool,
    job: impl Fn(u64) -> Job + Sync,
    mut each: impl FnMut(Run) -> ControlFlow<()>,
) -> u64 {
    let next = AtomicU64::new(seeds.start);
    let over = AtomicBool::new(false);
    let (send, receive) = mpsc::channel();
    let worker = |send: mpsc::Sender<(u64, Run)>| {
        while !stop.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seeds.end <= seed {
                break;
            }
            let job = job(seed);
            let outcome = job.run(Keep::Hash);
            if send.send((seed, Run { job, outcome })).is_err() {
                break;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (send, worker) = (send.clone(), &worker);
            scope.spawn(move || worker(send));
        }
        drop(send);
        let mut early = BTreeMap::new();
        let mut told = seeds.start;
        for (seed, run) in receive {
            early.insert(seed, run);
            while let Some(run) = early.remove(&told) {
                told += 1;
                if each(run).is_break() {
                    over.store(true, Ordering::Relaxed);
                    return told;
                }
            }
        }
        told
    })
}

/// The processor time that this process has used, on all its threads: how fast a world is does not depend on what else the machine does.
#[must_use]
pub fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_are_the_same_for_any_number_of_threads() {
        let stop = AtomicBool::new(false);
        let hashes = |threads| {
            let mut seen = Vec::new();
            let end = sweep(3..9, threads, &stop, Job::seed, |run| {
                seen.push((run.job.seed, run.outcome.hash));
                ControlFlow::Continue(())
            });
            assert_eq!(end, 9);
            seen
        };
        let one = hashes(1);
        assert_eq!(
            one.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(),
            [3, 4, 5, 6, 7, 8]
        );
        assert_eq!(one, hashes(3));
    }

    #[test]
    fn a_stopped_sweep_says_where_it_stopped() {
        let stop = AtomicBool::new(false);
        let mut told = Vec::new();
        let end = sweep(0..1000, 2, &stop, Job::seed, |run| {
            told.push(run.job.seed);
            stop.store(true, Ordering::Relaxed);
            ControlFlow::Continue(())
        });
        assert_eq!(told, (0..end).collect::<Vec<_>>(), "every run that began is told");
        assert!(end < 10, "{end} runs after the stop");
    }
}
