//! The line that shows how far a sweep is, on a terminal only.

use std::ops::Range;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use surus_sim::campaign::Tally;

/// A progress line.
#[derive(Debug)]
pub(crate) struct Line(ProgressBar);

impl Line {
    /// A line for these seeds.
    pub(crate) fn new(seeds: &Range<u64>) -> Self {
        let bar = ProgressBar::new(seeds.end - seeds.start);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {human_pos}/{human_len} {msg}  {eta} left")
        {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self(bar)
    }

    /// A line for work whose end is not known.
    pub(crate) fn spinner() -> Self {
        Self(ProgressBar::new_spinner())
    }

    /// One more run.
    pub(crate) fn tick(&self, tally: &Tally, elapsed: Duration) {
        self.0.inc(1);
        let rate = tally.runs as f64 / elapsed.as_secs_f64().max(1e-3);
        self.0.set_message(format!(
            "{rate:.0} seeds/s, {:.1} simulated hours, {:.0} x real time per core, {} failed",
            tally.simulated as f64 / 3.6e12,
            tally.speed(),
            tally.failed()
        ));
    }

    /// What is being done.
    pub(crate) fn say(&self, text: String) {
        self.0.set_message(text);
        self.0.tick();
    }

    /// Prints above the line.
    pub(crate) fn print(&self, text: &str) {
        self.0.suspend(|| println!("{text}"));
    }

    /// The line goes away.
    pub(crate) fn done(&self) {
        self.0.finish_and_clear();
    }
}
