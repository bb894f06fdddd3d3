//! Options of verbs that run many seeds, and how such a sweep is run: threads, progress, Ctrl-C, a bound in time.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use surus_sim::campaign::{self, Run, Tally};
use surus_sim::run::Job;

use crate::Trouble;
use crate::progress::Line;

/// How a sweep is run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Threads; as many as there are processors, if not given
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop after so many minutes
    #[arg(long)]
    minutes: Option<f64>,
}

impl Options {
    /// Threads.
    fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.unwrap_or_else(all).max(1)
    }

    /// Runs the seeds; `each` hears of every run in order, and says whether to go on. Gives the first seed that is not done, and why.
    pub(crate) fn sweep(
        &self,
        seeds: Range<u64>,
        job: impl Fn(u64) -> Job + Sync,
        mut each: impl FnMut(&Run, &Tally, &Line) -> Result<ControlFlow<()>, Trouble>,
    ) -> Result<Swept, Trouble> {
        let stop = interrupted()?;
        let line = Line::new(&seeds);
        let end = self
            .minutes
            .map(|minutes| now() + Duration::from_secs_f64(60.0 * minutes.max(0.0)));
        let (began, spent) = (now(), campaign::cpu());
        let mut tally = Tally::default();
        let mut trouble = None;
        let next = campaign::sweep(seeds, self.threads(), &stop, job, |run| {
            tally.add(&run);
            tally.cpu = campaign::cpu().saturating_sub(spent);
            let flow = each(&run, &tally, &line).unwrap_or_else(|error| {
                trouble = Some(error);
                ControlFlow::Break(())
            });
            line.tick(&tally, began.elapsed());
            if end.is_some_and(|end| end <= now()) {
                stop.store(true, Ordering::Relaxed);
            }
            flow
        });
        line.done();
        match trouble {
            Some(trouble) => Err(trouble),
            None => Ok(Swept {
                tally,
                next,
                elapsed: began.elapsed(),
            }),
        }
    }
}

/// What a sweep came to.
#[derive(Debug)]
pub(crate) struct Swept {
    /// The sums.
    pub(crate) tally: Tally,
    /// The first seed that is not done.
    pub(crate) next: u64,
    /// The time it took.
    pub(crate) elapsed: Duration,
}

/// Set by the first Ctrl-C (or SIGTERM); the second one ends the process at once.
pub(crate) fn interrupted() -> Result<Arc<AtomicBool>, Trouble> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// The clock on the wall: for progress and bounds, never for a run.
#[expect(clippy::disallowed_methods, reason = "the tool's own time, which no run sees")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Reads `FIRST..END`, `FIRST..=LAST` or one seed.
pub(crate) fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    let range = match text.split_once("..") {
        Some((first, last)) => match last.strip_prefix('=') {
            Some(last) => number(first).zip(number(last).and_then(|last| last.checked_add(1))),
            None => number(first).zip(number(last)),
        },
        None => number(text).and_then(|seed| Some((seed, seed.checked_add(1)?))),
    };
    match range {
        Some((first, end)) if first < end => Ok(first..end),
        Some((first, end)) => Err(format!(
            "{first}..{end} holds no seed; the end is not included, try {first}..{}",
            first + 1
        )),
        None => Err("expected FIRST..END such as 0..1000 (END not included), or one seed".to_owned()),
    }
}
